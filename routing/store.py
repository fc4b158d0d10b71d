"""The versions of the rules in the database: read, add, list. What is in here has been checked before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

if TYPE_CHECKING:
    from cti.database import Queryable


class ChangedMeanwhile(Exception):
    """Somebody else has changed the rules since they were read: read them again."""


class UnknownVersion(Exception):
    """There is no such version of the rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of the rules: who made it when, and why."""

    version: int
    made: datetime
    made_by: str
    note: str


NONE = Version(
    version=0, made=datetime.fromisoformat("1970-01-01T00:00:00+00:00"), made_by="", note="no rules yet"
)


async def newest_version(db: Queryable) -> int:
    """The number of the active version; 0 when there has never been one."""
    return int(await db.fetchval("SELECT coalesce(max(version), 0) FROM routing_versions") or 0)


async def active(db: Queryable) -> tuple[Version, dict[str, Any]]:
    """The active version and its rules as written; NONE and no rules when there has never been one."""
    row = await db.fetchrow(
        "SELECT version, made, made_by, note, rules::text FROM routing_versions ORDER BY version DESC LIMIT 1"
    )
    return (_version(row), msgspec.json.decode(row["rules"])) if row else (NONE, {})


async def read(db: Queryable, version: int) -> tuple[Version, dict[str, Any]]:
    """One version; raises UnknownVersion."""
    row = await db.fetchrow(
        "SELECT version, made, made_by, note, rules::text FROM routing_versions WHERE version = $1", version
    )
    if row is None:
        raise UnknownVersion
    return _version(row), msgspec.json.decode(row["rules"])


async def versions(db: Queryable, *, before: int | None, limit: int) -> list[Version]:
    """The versions, the newest first, those below `before`."""
    rows = await db.fetch(
        """SELECT version, made, made_by, note FROM routing_versions
           WHERE version < coalesce($1::bigint, 2147483647) ORDER BY version DESC LIMIT $2""",
        before,
        limit,
    )
    return [_version(row) for row in rows]


async def add(db: Queryable, rules: dict[str, Any], *, after: int, by: str, note: str) -> Version:
    """Writes the version after `after`; raises ChangedMeanwhile if that is not the newest one."""
    try:
        row = await db.fetchrow(
            """INSERT INTO routing_versions (version, made_by, note, rules)
               SELECT $1 + 1, $2, $3, $4::jsonb
               WHERE $1 = (SELECT coalesce(max(version), 0) FROM routing_versions)
               RETURNING version, made, made_by, note""",
            after,
            by,
            note,
            msgspec.json.encode(rules).decode(),
        )
    except asyncpg.UniqueViolationError:
        row = None
    if row is None:
        raise ChangedMeanwhile
    return _version(row)


def _version(row: asyncpg.Record) -> Version:
    return Version(version=row["version"], made=row["made"], made_by=row["made_by"], note=row["note"])
