"""The audit trail: who did what to whom, written before it is acknowledged, never changed, without a secret in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from cti.people import Actor, Role

if TYPE_CHECKING:
    from cti.database import Queryable

REMOVED = "[removed]"
COMMAND_LINE = Actor(login="cti", name="command line", role=Role.ADMIN, via="system")
"""Whoever works at the server's own command line."""

LONGEST_DETAIL = 8192
_LONGEST_TEXT = 500
_DEEPEST = 6
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|authori[sz]ation|cookie|credential|(api|private|signing|secret)[_-]?key|hash$|^pin$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"eyJ[\w-]{5,}\.[\w-]*\.[\w-]*|cti_[0-9a-f]{12}_[\w-]{20,}|\$argon2\w*\$\S+|://[^/\s:@]*:[^/\s@]+@"
    r"|\b(?:bearer|basic)\s+[\w.~+/=-]{8,}",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the trail. `id` rises and serves as the cursor."""

    id: int
    at: datetime
    actor: str
    via: str
    action: str
    target: str
    detail: dict[str, Any]
    address: str | None


def without_secrets(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the detail as it may be kept: secrets, by name or by looks, replaced; long texts cut; NUL replaced."""
    cleaned = _clean(detail, 0)
    if len(msgspec.json.encode(cleaned)) > LONGEST_DETAIL:
        return {"too_long": True, "fields": sorted(str(name)[:50] for name in detail)[:50]}
    assert isinstance(cleaned, dict)
    return cleaned


def _clean(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return "…"
    match value:
        case str():
            text = _SECRET_TEXT.sub(REMOVED, value).replace("\0", "\N{REPLACEMENT CHARACTER}")
            text = text.encode("utf-8", "replace").decode()
            return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"
        case Mapping():
            return {
                _clean(str(name)[:100], depth): REMOVED
                if _SECRET_NAME.search(str(name)) and inner not in (None, "", True, False)
                else _clean(inner, depth + 1)
                for name, inner in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_clean(inner, depth + 1) for inner in value]
        case bytes() | bytearray():
            return REMOVED
        case int() if abs(value) >= 1 << 63:
            return str(value)[:40]
        case bool() | int() | float() | None:
            return value
        case _:
            return _clean(str(value), depth)


async def record(
    db: Queryable,
    actor: Actor,
    action: str,
    target: str = "",
    detail: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> int:
    """Writes one entry and returns its id; await it before the action is acknowledged.

    `action` is noun.verb (user.created, call.barged), `target` what it was done to. What the database raises is
    raised: an action that cannot be recorded is not to be done.
    """
    return int(
        await db.fetchval(
            """INSERT INTO audit (actor, via, action, target, detail, address)
               VALUES ($1, $2, $3, $4, $5::jsonb, $6) RETURNING id""",
            _clean(actor.login, 0),
            actor.via,
            action,
            _clean(target, 0),
            msgspec.json.encode(without_secrets(detail or {})).decode(),
            None if address is None else _clean(address, 0),
        )
    )


async def list_entries(
    db: Queryable,
    *,
    before: int | None = None,
    limit: int = 100,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
) -> list[Entry]:
    """Returns entries, the newest first, those with an id below `before`; of one actor, action or target if given."""
    rows = await db.fetch(
        """SELECT id, at, actor, via, action, target, detail, address FROM audit
           WHERE ($1::bigint IS NULL OR id < $1) AND ($2::text IS NULL OR actor = $2)
             AND ($3::text IS NULL OR action = $3) AND ($4::text IS NULL OR target = $4)
           ORDER BY id DESC LIMIT $5""",
        before,
        actor,
        action,
        target,
        limit,
    )
    return [_entry(row) for row in rows]


async def expire(db: Queryable, before: datetime) -> int:
    """Deletes entries from before that moment and records that; returns how many. The last 90 days are refused."""
    return int(await db.fetchval("SELECT audit_expire($1)", before))


def _entry(row: asyncpg.Record) -> Entry:
    return Entry(
        id=row["id"],
        at=row["at"],
        actor=row["actor"],
        via=row["via"],
        action=row["action"],
        target=row["target"],
        detail=msgspec.json.decode(row["detail"]),
        address=row["address"],
    )
