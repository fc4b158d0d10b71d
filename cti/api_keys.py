"""Keys for programs: made once, shown once, checked with every request."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg

from cti.passwords import BadInput
from cti.people import Actor, Role
from cti.users import NotThere, check_login, check_name

if TYPE_CHECKING:
    from cti.database import Queryable

_KEY = re.compile(r"cti_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_ROLES = (Role.INTEGRATION, Role.SUPERVISOR, Role.ADMIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as lists show it: `prefix` is how it begins, enough to recognise it by and useless to anybody else.

    `teams` are in the order of their ids.
    """

    id: str
    name: str
    role: Role
    teams: tuple[str, ...]
    created: datetime
    created_by: str
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None

    @property
    def prefix(self) -> str:
        """The first letters of the key."""
        return f"cti_{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHolder:
    """Who came with a key, and what for. `expires`: when it ends, None never."""

    actor: Actor
    expires: datetime | None


async def create_api_key(
    db: Queryable,
    *,
    name: str,
    created_by: str,
    role: Role = Role.INTEGRATION,
    teams: Collection[str] = (),
    expires: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Makes a key and returns it with its text, which cannot be had again. Raises BadInput, NotThere (a team)."""
    name = check_name(name)
    if role not in _ROLES:
        raise BadInput("role", "A key is for an integration, a supervisor or an admin.")
    if expires is not None and (expires.tzinfo is None or expires <= datetime.now(expires.tzinfo)):
        raise BadInput("expires", "The end of a key is a moment in the future, with its time zone.")
    for team in teams:
        check_login(team, "teams")
    known = {
        row["id"] for row in await db.fetch("SELECT id FROM teams WHERE id = ANY ($1::text[])", list(teams))
    }
    if missing := sorted(set(teams) - known):
        raise NotThere(f"There is no team {missing[0]}.")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = await db.fetchrow(
        """INSERT INTO api_keys (id, name, key_hash, role, teams, created_by, expires)
           VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *""",
        key_id,
        name,
        _hash(secret),
        role,
        sorted(set(teams)),
        created_by,
        expires,
    )
    assert row is not None
    return _api_key(row), f"cti_{key_id}_{secret}"


async def verify_api_key(db: Queryable, key: str) -> KeyHolder | None:
    """Returns whose key this is; None if it is none, or has expired or been revoked. Notes its use, once a minute."""
    parts = _KEY.fullmatch(key)
    if parts is None:
        return None
    row = await db.fetchrow(
        """SELECT *, revoked IS NULL AND (expires IS NULL OR expires > now()) AS good,
                  last_used IS NULL OR last_used < now() - interval '1 minute' AS stale
           FROM api_keys WHERE id = $1""",
        parts[1],
    )
    same = hmac.compare_digest(row["key_hash"] if row else b"", _hash(parts[2]))
    if row is None or not same or not row["good"]:
        return None
    if row["stale"]:
        await db.execute("UPDATE api_keys SET last_used = now() WHERE id = $1", row["id"])
    actor = Actor(
        login=f"key:{row['id']}",
        name=row["name"],
        role=Role(row["role"]),
        teams=frozenset(row["teams"]),
        via="api_key",
    )
    return KeyHolder(actor=actor, expires=row["expires"])


async def revoke_api_key(db: Queryable, key_id: str) -> None:
    """Ends a key for good; once more changes nothing. Raises NotThere."""
    if (
        await db.fetchval(
            "UPDATE api_keys SET revoked = coalesce(revoked, now()) WHERE id = $1 RETURNING true", key_id
        )
        is None
    ):
        raise NotThere("There is no such key.")


async def list_api_keys(db: Queryable, *, after: str = "", limit: int = 100) -> list[ApiKey]:
    """Returns keys in the order of their ids, those after `after`, ended ones too."""
    rows = await db.fetch("SELECT * FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2", after, limit)
    return [_api_key(row) for row in rows]


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _api_key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        role=Role(row["role"]),
        teams=tuple(sorted(row["teams"])),
        created=row["created"],
        created_by=row["created_by"],
        expires=row["expires"],
        revoked=row["revoked"],
        last_used=row["last_used"],
    )
