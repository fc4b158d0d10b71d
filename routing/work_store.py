"""Work items in the database. An offer is not kept: what is offered is written as waiting."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cti.other_work import WorkView

if TYPE_CHECKING:
    from cti.database import Queryable

COLUMNS = (
    *("id", "kind", "skill", "title", "source", "ref", "created", "since", "state", "priority", "level"),
    *("due", "number", "account", "data", "agent", "attempts", "not_before", "interrupted_by_calls"),
    *("rule", "call", "outcome", "begun", "worked"),
)

SELECT = """SELECT id, kind, skill, title, source, ref, created, since, state, priority, level, due, number, account,
       data::text AS data, agent, attempts, not_before, interrupted_by_calls, rule, call, outcome,
       begun, worked FROM work_items """


async def add(db: Queryable, item: WorkView) -> WorkView:
    """Writes a new item; gives back the one that is there if this source has brought it before."""
    await db.execute(
        """INSERT INTO work_items (id, kind, skill, title, source, ref, created, since, state, priority, level, due, number,
               account, data, agent, attempts, not_before, interrupted_by_calls, rule, call, outcome, begun, worked)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::jsonb, $16, $17, $18, $19, $20, $21,
               $22, $23, $24)
           ON CONFLICT (source, ref) DO NOTHING""",
        *_values(item),
    )
    row = await db.fetchrow(SELECT + "WHERE source = $1 AND ref = $2", item.source, item.ref)
    assert row is not None
    return _view(row)


async def save(db: Queryable, item: WorkView) -> None:
    """Writes an item as it is now."""
    kept = as_kept(item)
    await db.execute(
        """UPDATE work_items SET since = $2, state = $3, agent = $4, attempts = $5, not_before = $6,
               interrupted_by_calls = $7, rule = $8, call = $9, outcome = $10, begun = $11, worked = $12
           WHERE id = $1""",
        *(kept.id, kept.since, kept.state, kept.agent, kept.attempts, kept.not_before),
        *(kept.interrupted_by_calls, kept.rule, kept.call, kept.outcome, kept.begun, kept.worked),
    )


async def still_open(db: Queryable) -> list[WorkView]:
    """What waits or is being done."""
    return [
        _view(row)
        for row in await db.fetch(SELECT + "WHERE state IN ('waiting', 'accepted') ORDER BY created")
    ]


async def read(db: Queryable, id: str) -> WorkView | None:
    """One item, also one that is over."""
    row = await db.fetchrow(SELECT + "WHERE id = $1", id)
    return _view(row) if row is not None else None


async def expire(db: Queryable, before: datetime) -> None:
    """Lets go of what was over before this time."""
    await db.execute(
        "DELETE FROM work_items WHERE state NOT IN ('waiting', 'accepted') AND since < $1", before
    )


def as_kept(item: WorkView) -> WorkView:
    """An item as it is written down."""
    if item.state != "offered":
        return item
    return msgspec.structs.replace(item, state="waiting", agent=None, until=None)


def _values(item: WorkView) -> tuple[Any, ...]:
    kept = as_kept(item)
    values = {name: getattr(kept, name) for name in COLUMNS}
    values["data"] = msgspec.json.encode(kept.data).decode()
    return tuple(values[name] for name in COLUMNS)


def _view(row: Any) -> WorkView:
    values = dict(row)
    values["data"] = msgspec.json.decode(values["data"])
    return WorkView(**values)
