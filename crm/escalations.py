"""Escalations as part of the record of a call: written a moment after they happened, read with the interaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cti.backlog import InTurn
from cti.second_level import CallEscalated

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

UNWRITTEN_MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """A call went up to the second level. `waited`: seconds in queues before."""

    at: datetime
    agent: str
    queue: str
    from_queue: str | None
    reason: str
    note: str
    priority: int
    waited: float


def escalations(pool: Callable[[], Pool]) -> InTurn[CallEscalated]:
    """Writes what was escalated; while the database is away it waits. The journal has the fact all the same."""

    async def write(fact: CallEscalated) -> None:
        await pool().execute(
            """INSERT INTO escalations (call, at, agent, queue, from_queue, reason, note, priority, waited)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (call, at) DO NOTHING""",
            *(fact.call, fact.at, fact.agent, fact.queue, fact.from_queue),
            *(fact.reason, fact.note, fact.priority, fact.waited),
        )

    return InTurn("escalations", write, most=UNWRITTEN_MOST)


async def of_call(db: Queryable, call: str) -> tuple[Escalation, ...]:
    """The escalations of a call, the first one first."""
    rows = await db.fetch(
        """SELECT at, agent, queue, from_queue, reason, note, priority, waited FROM escalations
           WHERE call = $1 ORDER BY at LIMIT 100""",
        call,
    )
    return tuple(Escalation(**dict(row)) for row in rows)
