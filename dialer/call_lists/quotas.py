"""Quotas of lists: when so many are reached, a list rests until midnight or for good. Claims pass over lists that rest.

Looked at every few seconds. Where a quota is near, each claim counts as well, and takes every call under way to be one of
those that are counted: a quota is never passed, and towards its end fewer calls are placed at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog
from pydantic import ValidationError

from dialer.lists import Quota, list_settings

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

log = structlog.get_logger(__name__)

EVERY = 10.0
"""Seconds between two looks."""

NEAR = 5_000
"""What is left of a quota from which on each claim counts: more than is claimed between two looks."""

KEPT = 5.0
"""Seconds that it is remembered which lists have quotas."""

SAID_WITHIN = timedelta(minutes=10)
"""After the end of a call in which its agent may still say how it ended."""

_CLASS = 0x0C71_0107  # of the advisory locks: lists whose quota is near, from which somebody claims

FOR_GOOD = datetime(9999, 1, 1, tzinfo=UTC)


_Key = tuple[int, str, str, str, int]


def _key(list_id: int, quota: Quota) -> _Key:
    return list_id, quota.counts, quota.disposition, quota.per, quota.most


class Quotas:
    """The quotas of this server's campaigns' lists. `zone`: whose midnight ends a day; `clock`: seconds that never fall."""

    def __init__(self, *, zone: str, clock: Callable[[], float]) -> None:
        self._zone = zone
        self._clock = clock
        self._of: tuple[float, dict[int, list[Quota]]] | None = None
        self._far: dict[_Key, float] = {}

    async def room(self, db: Queryable, lists: Collection[int], now: datetime) -> dict[int, int]:
        """How many more contacts of these lists may be claimed, should every call under way be counted one day; lists
        without a quota that is near are left out. Asked in the transaction that claims: others wait until it is over."""
        kept = await self._quotas(db)
        near = {
            id: quotas
            for id in sorted(lists)
            if (quotas := [one for one in kept.get(id, ()) if self._is_near(id, one)])
        }
        if near:
            await db.execute(
                "SELECT pg_advisory_xact_lock($1, (id % 2147483647)::integer) FROM unnest($2::bigint[]) AS id",
                *(_CLASS, list(near)),
            )
        room: dict[int, int] = {}
        for id, quotas in near.items():
            left = [
                quota.most - await reached(db, id, quota, now, self._zone, with_under_way=True)
                for quota in quotas
            ]
            room[id] = max(0, min(left))
        return room

    def _is_near(self, id: int, quota: Quota) -> bool:
        return self._clock() >= self._far.get(_key(id, quota), 0.0)

    async def _quotas(self, db: Queryable) -> dict[int, list[Quota]]:
        if self._of is None or self._clock() - self._of[0] >= KEPT:
            rows = await db.fetch(
                """SELECT id, settings FROM call_lists WHERE active AND campaign_id IS NOT NULL
                     AND jsonb_array_length(coalesce(settings->'quota', '[]')) > 0"""
            )
            self._of = self._clock(), {row["id"]: _quotas_of(row) for row in rows}
        return self._of[1]

    async def look(self, db: Queryable, now: datetime) -> dict[int, datetime]:
        """Writes which active lists rest, and returns until when."""
        rows = await db.fetch(
            """SELECT id, settings, quota_until FROM call_lists
               WHERE active AND campaign_id IS NOT NULL
                 AND (jsonb_array_length(coalesce(settings->'quota', '[]')) > 0 OR quota_until IS NOT NULL)"""
        )
        resting: dict[int, datetime] = {}
        far: dict[_Key, float] = {}
        for row in rows:
            until = None
            for quota in _quotas_of(row):
                count = await reached(db, row["id"], quota, now, self._zone)
                if quota.most - count > NEAR:
                    far[_key(row["id"], quota)] = self._clock() + 2 * EVERY
                if count >= quota.most:
                    end = _ends(quota, now, self._zone)
                    until = max(until or end, end)
            if until is not None:
                resting[row["id"]] = until
            if until != row["quota_until"]:
                await db.execute("UPDATE call_lists SET quota_until = $2 WHERE id = $1", row["id"], until)
        self._far = far
        return resting

    async def keep_looking(self, pool: Callable[[], Pool], *, every: float = EVERY) -> None:
        """Keeps quotas up to date, until cancelled."""
        while True:
            try:
                await self.look(pool(), datetime.now(UTC))
            except Exception as error:
                log.warning(
                    "quotas of lists could not be looked at", why=f"{type(error).__name__}: {error}"[:200]
                )
            await asyncio.sleep(every)


def _quotas_of(row: Any) -> list[Quota]:
    try:
        return list_settings(row["settings"]).quota
    except ValidationError:
        log.error("the settings of a list cannot be read", list=row["id"])
        return []


async def reached(
    db: Queryable, id: int, quota: Quota, now: datetime, zone: str, *, with_under_way: bool = False
) -> int:
    """How many are reached, no further than the quota; with those under way that may be."""
    local = now.astimezone(ZoneInfo(zone))
    midnight = datetime.combine(local.date(), time(), tzinfo=local.tzinfo)
    return int(
        await db.fetchval(
            """SELECT count(*) FROM (
                   SELECT FROM attempts WHERE list_id = $1 AND ($2::timestamptz IS NULL OR committed >= $2)
                     AND CASE $3 WHEN 'connected' THEN connected IS NOT NULL OR ($6 AND state <> 'ended')
                                 WHEN 'disposition' THEN disposition IS NOT DISTINCT FROM $4 OR ($6 AND disposition IS NULL
                                      AND (state <> 'ended' OR (connected IS NOT NULL AND ended > $7)))
                                 ELSE true END
                   LIMIT $5) AS counted""",
            *(id, midnight if quota.per == "day" else None, quota.counts, quota.disposition, quota.most),
            *(with_under_way, now - SAID_WITHIN),
        )
    )


def _ends(quota: Quota, now: datetime, zone: str) -> datetime:
    if quota.per == "total":
        return FOR_GOOD
    local = now.astimezone(ZoneInfo(zone))
    return datetime.combine(local.date() + timedelta(days=1), time(), tzinfo=local.tzinfo)
