"""Contacts of call lists: looked through, moved between lists, merged, split, freed of duplicates, called again.

Whatever moves or deletes contacts holds their lists until it is done, and leaves alone those who are being called.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, Field, StringConstraints

from cti.frozen import Frozen
from cti.numbers import read_caller
from cti.plain_text import Plain
from dialer.call_lists.zones import zone_name
from dialer.lists import STRICT, ListView, NotPossible, held, read, touched
from dialer.management.settings import Retried

if TYPE_CHECKING:
    import asyncpg

    from cti.database import Connection, PoolConnection, Queryable

    Held = Connection | PoolConnection

MOST_LISTS = 50
MOST_PARTS = 50

INDEXED = 3
"""Letters from which on the index of parts of names finds whose name has them."""

State = Literal["open", "in_hand", "done", "exhausted", "blocked", "skipped"]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class ContactFilter(BaseModel):
    """Which contacts: all that fit everything given. `q`: part of the name, or the beginning or end of a number (at least 4
    digits); `data`: custom fields with exactly these values; `zone`: may lie in this time zone."""

    model_config = STRICT

    q: Annotated[Plain, Field(max_length=100)] = ""
    state: State | None = None
    outcome: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")] | None = Field(
        default=None, description="how the last attempt ended"
    )
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    language: Annotated[str, StringConstraints(max_length=35)] | None = None
    zone: Annotated[str, StringConstraints(max_length=64)] | None = None
    attempted: bool | None = None
    priority_from: int | None = Field(default=None, ge=0, le=100)
    data: dict[Key, Annotated[str, StringConstraints(max_length=1000)]] = Field(
        default_factory=dict, max_length=10
    )

    @property
    def empty(self) -> bool:
        """Whether every contact fits."""
        return self == ContactFilter()


class ContactView(Frozen, frozen=True, kw_only=True):
    """A contact. `zones`: every time zone that the number may lie in; `why`: of the state; `import_row`: its row in the file
    it came with."""

    id: int
    list: int
    name: str
    e164: str
    other_numbers: tuple[str, ...]
    person: str
    account: int | None
    language: str
    country: str
    region: str
    zones: tuple[str, ...]
    data: dict[str, str]
    priority: int
    state: str
    why: str
    not_before: datetime | None
    attempts: int
    last_attempt: datetime | None
    last_outcome: str | None
    import_id: int | None
    import_row: int | None
    created: datetime


NAMED = "c.name <> '' AND lower(c.name) LIKE $3"
"""Apart from the rest, so that the index of parts of names can be used."""

_FITS = """($2::text IS NULL OR c.state = $2)
    AND ($4::text IS NULL OR c.e164 LIKE $4 OR EXISTS (SELECT FROM unnest(c.other_numbers) o WHERE o LIKE $4))
    AND ($5::text IS NULL OR g.country = $5) AND ($6::text IS NULL OR c.language = $6)
    AND ($7::text IS NULL OR $7 = ANY(g.zones)) AND ($8::boolean IS NULL OR (c.attempts > 0) = $8)
    AND ($9::smallint IS NULL OR c.priority >= $9) AND c.data @> $10::jsonb
    AND ($11::text IS NULL OR c.last_outcome = $11)"""


def as_number(q: str) -> str | None:
    """What is searched for as a pattern for numbers; None where it is no part of one (at least 4 digits)."""
    digits = "".join(c for c in q if c.isdigit())
    if len(digits) < 4 or any(c.isalpha() for c in q):
        return None
    whole = read_caller(q, "").e164 if q.startswith("+") else None
    return f"{whole or '+' + digits}%" if q.startswith("+") else f"%{digits.lstrip('0')}%"


def literal(text: str) -> str:
    """A text as a pattern that means just itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _fits(wanted: ContactFilter) -> str:
    """The condition for `_values`."""
    return f"{_FITS} AND {NAMED if wanted.q and as_number(wanted.q) is None else '$3::text IS NULL'}"


def _values(wanted: ContactFilter) -> list[Any]:
    name = number = None
    if wanted.q and (number := as_number(wanted.q)) is None:
        name = "%" + literal(wanted.q.lower()) + "%"
    zone = (zone_name(wanted.zone) or wanted.zone) if wanted.zone else None
    return [
        *(
            wanted.state,
            name,
            number,
            wanted.country,
            wanted.language,
            zone,
            wanted.attempted,
            wanted.priority_from,
        ),
        *(msgspec.json.encode(wanted.data).decode(), wanted.outcome),
    ]


_SELECT = """SELECT c.id, c.list_id, c.name, c.e164, c.other_numbers, c.person, c.account_id, c.language, g.country,
    g.region, g.zones, c.data, c.priority, c.state, c.why, nullif(c.not_before, '-infinity') AS not_before, c.attempts,
    c.last_attempt, c.last_outcome, c.import_id, c.import_row, c.created
    FROM list_contacts c JOIN zone_groups g ON g.id = c.zone_group """


async def page(
    db: Queryable, list_id: int, wanted: ContactFilter, *, after: int = 0, limit: int = 100
) -> list[ContactView]:
    """Contacts of a list that fit, in the order in which they came, those with an id above `after`."""
    rows = await db.fetch(page_query(wanted), list_id, *_values(wanted), after, limit)
    return [_view(row) for row in rows]


def page_query(wanted: ContactFilter) -> str:
    """What `page` asks."""
    fits, named = _fits(wanted), wanted.q and as_number(wanted.q) is None
    # Where names are indexed no other index may give the order: what is found by name is sorted.
    order = "c.id + 0" if named and len(wanted.q) >= INDEXED else "c.list_id, c.id"
    return f"{_SELECT}WHERE c.list_id = $1 AND {fits} AND c.id > $12 ORDER BY {order} LIMIT $13"


async def of_ids(db: Queryable, ids: Sequence[int]) -> list[ContactView]:
    """These contacts, in the order of their ids; those that are gone are left out."""
    return [_view(row) for row in await db.fetch(_SELECT + "WHERE c.id = ANY($1) ORDER BY c.id", list(ids))]


def _view(row: asyncpg.Record) -> ContactView:
    values = dict(row)
    return ContactView(
        list=values.pop("list_id"),
        account=values.pop("account_id"),
        other_numbers=tuple(values.pop("other_numbers")),
        zones=tuple(values.pop("zones")),
        data={key: str(value) for key, value in msgspec.json.decode(values.pop("data")).items()},
        **values,
    )


# ------------------------------------------------------------------------------------------------ merging and splitting


class Moved(Frozen, frozen=True, kw_only=True):
    """What came of it: contacts moved, duplicates removed, lists that are gone or new."""

    moved: int = 0
    removed: int = 0
    lists: tuple[int, ...] = ()


async def merge(
    db: Held, target: int, sources: Sequence[int], *, version: int, by: str, duplicates: bool = False
) -> Moved:
    """Moves all contacts of other lists into one and deletes those lists; their imports can still be undone.

    Of contacts with the same number the best one stays, unless `duplicates` are wanted. In a transaction of the caller's;
    raises NoList, ChangedMeanwhile, NotPossible.
    """
    if target in sources or len(set(sources)) != len(sources):
        raise NotPossible("same_list", "a list cannot be merged into itself, nor twice")
    await db.execute("SET LOCAL statement_timeout = 0")
    for id in sorted(
        [target, *sources]
    ):  # always in the same order: two merges at once wait, and never for each other
        await held(db, id, version if id == target else None)
    await _nobody_called(db, list(sources))
    if await db.fetchval(
        "SELECT EXISTS (SELECT FROM list_imports WHERE list_id = ANY($1) AND state = 'running')",
        list(sources),
    ):
        raise NotPossible("importing", "an import into one of these lists is running: wait, or cancel it")
    moved = await _count(
        db, "UPDATE list_contacts SET list_id = $1 WHERE list_id = ANY($2)", target, list(sources)
    )
    removed = 0 if duplicates else await _remove_duplicates(db, [target], "number")
    await db.execute("UPDATE list_imports SET list_id = $1 WHERE list_id = ANY($2)", target, list(sources))
    await db.execute("DELETE FROM call_lists WHERE id = ANY($1)", list(sources), timeout=900)
    await touched(db, target, by)
    return Moved(moved=moved, removed=removed, lists=tuple(sources))


async def split_evenly(db: Held, id: int, parts: int, *, version: int, by: str) -> Moved:
    """Splits a list into so many of about the same size, each with a share of every stretch of it: the list itself, and new
    ones named after it with the same settings. Contacts being called stay. In a transaction of the caller's."""
    if not 2 <= parts <= MOST_PARTS:
        raise NotPossible("bad_parts", f"a list is split into 2 to {MOST_PARTS} parts")
    await db.execute("SET LOCAL statement_timeout = 0")
    await held(db, id, version)
    whole = await read(db, id)
    new = [await _copy(db, whole, f"{whole.name[:90]} {n}/{parts}", by) for n in range(2, parts + 1)]
    moved = await _count(
        db,
        """WITH numbered AS (
               SELECT id, (row_number() OVER (ORDER BY id) - 1) % $2 AS place FROM list_contacts
               WHERE list_id = $1 AND state <> 'in_hand')
           UPDATE list_contacts c SET list_id = ($3::bigint[])[n.place] FROM numbered n
           WHERE c.id = n.id AND n.place > 0 AND c.state <> 'in_hand'""",
        *(id, parts, new),
    )
    await touched(db, id, by)
    return Moved(moved=moved, lists=tuple(new))


async def split_off(db: Held, id: int, wanted: ContactFilter, name: str, *, version: int, by: str) -> Moved:
    """Moves the contacts that fit into a new list with the same settings; those being called stay. In a transaction of the
    caller's; raises NoList, ChangedMeanwhile, NotPossible (the name is taken, nobody fits)."""
    await db.execute("SET LOCAL statement_timeout = 0")
    await held(db, id, version)
    new = await _copy(db, await read(db, id), name, by)
    moved = await _count(
        db,
        f"""UPDATE list_contacts SET list_id = $12 WHERE id IN (
                SELECT c.id FROM list_contacts c JOIN zone_groups g ON g.id = c.zone_group
                WHERE c.list_id = $1 AND c.state <> 'in_hand' AND {_fits(wanted)}) AND state <> 'in_hand'""",  # noqa: S608
        *(id, *_values(wanted), new),
    )
    if not moved:
        raise NotPossible("nobody", "no contact of this list fits")
    await touched(db, id, by)
    return Moved(moved=moved, lists=(new,))


async def _copy(db: Held, like: ListView, name: str, by: str) -> int:
    found = await db.fetchval(
        """INSERT INTO call_lists (name, active, campaign_id, priority, script, settings, created_by, changed_by)
           VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, $7) ON CONFLICT (name) DO NOTHING RETURNING id""",
        *(name, like.active, like.campaign, like.priority, like.script, like.settings.model_dump_json(), by),
    )
    if found is None:
        raise NotPossible("name_taken", f"another list is called {name}: rename it first")
    return int(found)


async def _nobody_called(db: Held, ids: list[int]) -> None:
    if await db.fetchval(
        "SELECT EXISTS (SELECT FROM list_contacts WHERE list_id = ANY($1) AND state = 'in_hand')", ids
    ):
        raise NotPossible(
            "in_use", "contacts of these lists are being called: deactivate the lists, then wait"
        )


# ------------------------------------------------------------------------------------------------------ duplicates


async def dedupe(
    db: Held, ids: Sequence[int], *, same: Literal["number", "person"] = "number", by: str
) -> Moved:
    """Of contacts with the same number (or person) within these lists taken together the best one stays.

    Best is who is being called, who must not be called, who was reached, who has been tried; then who has more fields, then
    who was there first: nobody is called again because a copy of them was better. In a transaction of the caller's.
    """
    if not 1 <= len(set(ids)) <= MOST_LISTS:
        raise NotPossible("too_many", f"1 to {MOST_LISTS} lists at once")
    await db.execute("SET LOCAL statement_timeout = 0")
    for id in sorted(set(ids)):
        await held(db, id)
    removed = await _remove_duplicates(db, sorted(set(ids)), same)
    if removed:
        for id in sorted(set(ids)):
            await touched(db, id, by)
    return Moved(removed=removed)


async def _remove_duplicates(db: Held, ids: list[int], same: str) -> int:
    return await _count(
        db,
        """WITH ranked AS (
               SELECT id, row_number() OVER (
                   PARTITION BY CASE WHEN $2 = 'person' THEN person ELSE e164 END
                   ORDER BY array_position('{in_hand,blocked,done,exhausted,skipped,open}'::text[], state), attempts DESC,
                       (name <> '')::int + (person <> '')::int + cardinality(other_numbers) +
                           (SELECT count(*) FROM jsonb_object_keys(data)) DESC, priority DESC, id) AS place
               FROM list_contacts WHERE list_id = ANY($1) AND ($2 <> 'person' OR person <> ''))
           DELETE FROM list_contacts c USING ranked r WHERE c.id = r.id AND r.place > 1 AND c.state <> 'in_hand'
          """,
        *(ids, same),
    )


# ------------------------------------------------------------------------------------------------------ once again


class RecycleAsked(BaseModel):
    """Used-up contacts whose last attempt ended so are called again."""

    model_config = STRICT

    outcomes: list[Retried] = Field(min_length=1, max_length=20)


async def recycle(db: Held, id: int, outcomes: Sequence[Retried], *, version: int, by: str) -> int:
    """Makes used-up contacts open again whose last attempt ended so, and returns how many. Their count of attempts begins
    anew; what the law counts does not. In a transaction of the caller's; raises NoList, ChangedMeanwhile."""
    await db.execute("SET LOCAL statement_timeout = 0")
    await held(db, id, version)
    again = await _count(
        db,
        """UPDATE list_contacts SET state = 'open', why = '', attempts = 0, not_before = now(), recycled = now()
           WHERE list_id = $1 AND state = 'exhausted' AND last_outcome = ANY($2)""",
        *(id, list(outcomes)),
    )
    if again:
        await touched(db, id, by)
    return again


async def _count(db: Held, query: str, *values: Any) -> int:
    """How many rows a statement has changed."""
    status = await db.execute(query, *values, timeout=900)
    return int(status.rpartition(" ")[2])
