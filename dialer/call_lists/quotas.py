"""Quotas of lists: when so many are reached, a list rests until midnight or for good. Claims pass over lists that rest.

Looked at every few seconds, not at each call: a quota may be passed by the calls of that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog
from pydantic import ValidationError

from dialer.lists import Quota, list_settings

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

log = structlog.get_logger(__name__)

EVERY = 10.0
"""Seconds between two looks."""

FOR_GOOD = datetime(9999, 1, 1, tzinfo=UTC)


async def look(db: Queryable, now: datetime, zone: str) -> dict[int, datetime]:
    """Writes which active lists rest, and returns until when. `zone`: whose midnight ends a day."""
    rows = await db.fetch(
        """SELECT id, settings, quota_until FROM call_lists
           WHERE active AND campaign_id IS NOT NULL
             AND (jsonb_array_length(coalesce(settings->'quota', '[]')) > 0 OR quota_until IS NOT NULL)"""
    )
    resting: dict[int, datetime] = {}
    for row in rows:
        try:
            quotas = list_settings(row["settings"]).quota
        except ValidationError:
            log.error("the settings of a list cannot be read", list=row["id"])
            continue
        until = None
        for quota in quotas:
            if (reached := await _until(db, row["id"], quota, now, zone)) is not None:
                until = max(until or reached, reached)
        if until is not None:
            resting[row["id"]] = until
        if until != row["quota_until"]:
            await db.execute("UPDATE call_lists SET quota_until = $2 WHERE id = $1", row["id"], until)
    return resting


async def _until(db: Queryable, id: int, quota: Quota, now: datetime, zone: str) -> datetime | None:
    local = now.astimezone(ZoneInfo(zone))
    midnight = datetime.combine(local.date(), time(), tzinfo=local.tzinfo)
    count = await db.fetchval(
        """SELECT count(*) FROM (
               SELECT FROM attempts WHERE list_id = $1 AND ($2::timestamptz IS NULL OR committed >= $2)
                 AND ($3 <> 'connected' OR connected IS NOT NULL) AND ($3 <> 'disposition' OR disposition = $4)
               LIMIT $5) AS counted""",
        *(id, midnight if quota.per == "day" else None, quota.counts, quota.disposition, quota.most),
    )
    if count < quota.most:
        return None
    if quota.per == "total":
        return FOR_GOOD
    return datetime.combine(local.date() + timedelta(days=1), time(), tzinfo=local.tzinfo)


async def keep_looking(pool: Callable[[], Pool], *, zone: str, every: float = EVERY) -> None:
    """Keeps quotas up to date, until cancelled."""
    while True:
        try:
            await look(pool(), datetime.now(UTC), zone)
        except Exception as error:
            log.warning(
                "quotas of lists could not be looked at", why=f"{type(error).__name__}: {error}"[:200]
            )
        await asyncio.sleep(every)
