"""Escalations as part of the record of a call: written a moment after they happened, read with the interaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg
import structlog

from cti.backlog import Backlog
from cti.second_level import CallEscalated

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

log = structlog.get_logger(__name__)

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


class Escalations:
    """Writes what it hears, in order; while the database is away it waits. The journal has the fact all the same."""

    def __init__(self, pool: Callable[[], Pool]) -> None:
        self._pool = pool
        self._due: deque[CallEscalated] = deque(maxlen=UNWRITTEN_MOST)
        self._backlog = Backlog("escalations")

    def hear(self, fact: CallEscalated) -> None:
        """A call was escalated."""
        self._due.append(fact)
        self._backlog.more()

    async def run(self) -> None:
        """Writes, until cancelled."""
        while True:
            if not self._due:
                await self._backlog.idle()
            fact = self._due[0]
            try:
                await self._save(fact)
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                log.error("an escalation cannot be written", why=type(error).__name__)
            except Exception as error:
                await self._backlog.failed(type(error).__name__)
                continue
            self._backlog.succeeded()
            if self._due and self._due[0] is fact:
                self._due.popleft()

    async def _save(self, fact: CallEscalated) -> None:
        await self._pool().execute(
            """INSERT INTO escalations (call, at, agent, queue, from_queue, reason, note, priority, waited)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (call, at) DO NOTHING""",
            *(fact.call, fact.at, fact.agent, fact.queue, fact.from_queue),
            *(fact.reason, fact.note, fact.priority, fact.waited),
        )

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything is written; False if it is not after `timeout` seconds."""
        return await self._backlog.flush(timeout)


async def of_call(db: Queryable, call: str) -> tuple[Escalation, ...]:
    """The escalations of a call, the first one first."""
    rows = await db.fetch(
        """SELECT at, agent, queue, from_queue, reason, note, priority, waited FROM escalations
           WHERE call = $1 ORDER BY at LIMIT 100""",
        call,
    )
    return tuple(Escalation(**dict(row)) for row in rows)
