"""Target groups: customers by saved conditions, counted, and given as rows to whoever calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import asyncpg
import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from crm.accounts import Status
from cti.frozen import Frozen
from cti.plain_text import Plain

if TYPE_CHECKING:
    from cti.database import Queryable

BATCH = 1000

ItemKind = Literal["ticket", "order", "callback", "invoice", "complaint"]
Name = Annotated[Plain, Field(min_length=1, max_length=100)]
Word = Annotated[Plain, Field(min_length=1, max_length=100)]


class NoGroup(Exception):
    """There is no such target group."""


class ChangedMeanwhile(Exception):
    """Somebody else has changed the group since it was read."""


class NameTaken(Exception):
    """Another group has this name."""


class Conditions(BaseModel):
    """Which customers: who meets all that is given; of a list any value will do. `last_contact_days`: the last contact is
    older, or there was none; `open_items`: has one of these kinds open; `no_open_items`: has none of these kinds open."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    classes: list[Annotated[Plain, Field(min_length=1, max_length=8)]] = Field(
        default_factory=list, max_length=50
    )
    statuses: list[Status] = Field(default=["prospect", "active"], max_length=4)
    kinds: list[Literal["person", "company"]] = Field(default_factory=list, max_length=2)
    countries: list[Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]] = Field(
        default_factory=list, max_length=250
    )
    languages: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]] = (
        Field(default_factory=list, max_length=50)
    )
    cities: list[Word] = Field(default_factory=list, max_length=200)
    own_agents: list[Word] = Field(default_factory=list, max_length=200)
    last_contact_days: int | None = Field(default=None, ge=0, le=36_500)
    open_items: list[ItemKind] = Field(default_factory=list, max_length=5)
    no_open_items: list[ItemKind] = Field(default_factory=list, max_length=5)


class TargetGroupView(Frozen, frozen=True, kw_only=True):
    """A target group."""

    id: int
    name: str
    conditions: Conditions
    created: datetime
    created_by: str
    changed: datetime
    changed_by: str
    version: int


class GroupCount(Frozen, frozen=True, kw_only=True):
    """How many customers are in it now, how many of them have a phone, and how many numbers that are."""

    customers: int
    with_phone: int
    numbers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A customer of a group; `phones` in E.164: mobiles first, then their own, then the others."""

    account: int
    number: str
    name: str
    phones: tuple[str, ...]
    country: str
    zone: str
    language: str
    data: dict[str, str]


_MEETS = """(cardinality($1::text[]) = 0 OR a.class = ANY($1)) AND (cardinality($2::text[]) = 0 OR a.status = ANY($2))
    AND (cardinality($3::text[]) = 0 OR a.kind = ANY($3)) AND (cardinality($4::text[]) = 0 OR a.country = ANY($4))
    AND (cardinality($5::text[]) = 0 OR lower(a.language) = ANY($5)
         OR split_part(lower(a.language), '-', 1) = ANY($5))
    AND (cardinality($6::text[]) = 0 OR lower(a.city) = ANY($6)) AND (cardinality($7::text[]) = 0 OR a.own_agent = ANY($7))
    AND ($8::timestamptz IS NULL OR a.last_contact IS NULL OR a.last_contact < $8)
    AND (cardinality($9::text[]) = 0 OR EXISTS (SELECT FROM open_items o WHERE o.account_id = a.id
         AND o.status NOT IN ('done', 'cancelled') AND o.kind = ANY($9)))
    AND NOT EXISTS (SELECT FROM open_items o WHERE o.account_id = a.id
         AND o.status NOT IN ('done', 'cancelled') AND o.kind = ANY($10::text[]))"""


def _values(wanted: Conditions) -> list[Any]:
    days = wanted.last_contact_days
    return [
        *(wanted.classes, list(wanted.statuses), list(wanted.kinds), wanted.countries),
        [one.lower() for one in wanted.languages],
        [one.lower() for one in wanted.cities],
        wanted.own_agents,
        None if days is None else datetime.now(UTC) - timedelta(days=days),
        *(list(wanted.open_items), list(wanted.no_open_items)),
    ]


async def count(db: Queryable, wanted: Conditions) -> GroupCount:
    """How many customers meet the conditions now."""
    row = await db.fetchrow(
        f"""SELECT count(*) AS customers, count(*) FILTER (WHERE n.numbers > 0) AS with_phone,
                coalesce(sum(n.numbers), 0)::bigint AS numbers
            FROM accounts a CROSS JOIN LATERAL (
                SELECT count(DISTINCT p.e164) AS numbers FROM phones p WHERE p.account_id = a.id AND p.prefix IS NULL) n
            WHERE {_MEETS}""",  # noqa: S608
        *_values(wanted),
    )
    assert row is not None
    return GroupCount(customers=row["customers"], with_phone=row["with_phone"], numbers=row["numbers"])


async def members(pool: Callable[[], Queryable], wanted: Conditions) -> AsyncIterator[list[Member]]:
    """The customers who meet the conditions, in batches by their ids; each batch as it is when it is read."""
    after = 0
    values = _values(wanted)
    while True:
        rows = await pool().fetch(
            f"""SELECT a.id, a.number, a.name, a.class, a.country, a.timezone, a.language, a.city, a.email,
                    ARRAY(SELECT p.e164 FROM phones p WHERE p.account_id = a.id AND p.prefix IS NULL
                          ORDER BY p.kind <> 'mobile', p.contact_id IS NOT NULL, p.id LIMIT 10) AS phones
                FROM accounts a WHERE a.id > $11 AND {_MEETS} ORDER BY a.id LIMIT $12""",  # noqa: S608
            *(*values, after, BATCH),
        )
        if not rows:
            return
        after = rows[-1]["id"]
        yield [
            Member(
                account=row["id"],
                number=row["number"],
                name=row["name"],
                phones=tuple(dict.fromkeys(row["phones"])),
                country=row["country"],
                zone=row["timezone"],
                language=row["language"],
                data={"class": row["class"], "city": row["city"], "email": row["email"]},
            )
            for row in rows
        ]


_SELECT = "SELECT id, name, conditions, created, created_by, changed, changed_by, version FROM target_groups "


async def create(db: Queryable, name: str, conditions: Conditions, by: str) -> TargetGroupView:
    """Saves a new group; raises NameTaken."""
    try:
        id = await db.fetchval(
            """INSERT INTO target_groups (name, conditions, created_by, changed_by) VALUES ($1, $2::jsonb, $3, $3)
               RETURNING id""",
            *(name, conditions.model_dump_json(), by),
        )
    except asyncpg.UniqueViolationError:
        raise NameTaken(f"another target group is called {name}") from None
    return await read(db, id)


async def read(db: Queryable, id: int) -> TargetGroupView:
    """One group; raises NoGroup."""
    row = await db.fetchrow(_SELECT + "WHERE id = $1", id)
    if row is None:
        raise NoGroup
    return _view(row)


async def everyone(db: Queryable, *, after: str = "", limit: int = 100) -> list[TargetGroupView]:
    """Groups in the order of their names, those after `after`."""
    return [
        _view(row) for row in await db.fetch(_SELECT + "WHERE name > $1 ORDER BY name LIMIT $2", after, limit)
    ]


async def replace(
    db: Queryable, id: int, name: str, conditions: Conditions, *, version: int, by: str
) -> TargetGroupView:
    """Changes a group; raises NoGroup, ChangedMeanwhile, NameTaken. Lists made of it before stay as they are."""
    try:
        changed = await db.fetchval(
            """UPDATE target_groups SET name = $3, conditions = $4::jsonb, changed = now(), changed_by = $5,
                   version = version + 1 WHERE id = $1 AND version = $2 RETURNING id""",
            *(id, version, name, conditions.model_dump_json(), by),
        )
    except asyncpg.UniqueViolationError:
        raise NameTaken(f"another target group is called {name}") from None
    if changed is None:
        await read(db, id)
        raise ChangedMeanwhile
    return await read(db, id)


async def remove(db: Queryable, id: int, *, version: int) -> None:
    """Removes a group; raises NoGroup, ChangedMeanwhile."""
    if not await db.fetchval(
        "DELETE FROM target_groups WHERE id = $1 AND version = $2 RETURNING id", id, version
    ):
        await read(db, id)
        raise ChangedMeanwhile


def _view(row: asyncpg.Record) -> TargetGroupView:
    values = dict(row)
    return TargetGroupView(
        conditions=Conditions.model_validate(msgspec.json.decode(values.pop("conditions"))), **values
    )
