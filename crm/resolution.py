"""First-call resolution: of the contacts of known customers, after how many the same customer needed no other.

A contact is an answered call from outside whose customer is known. It resolved the matter if the same account had no
further contact from outside (answered or not) within so many days of its beginning. That is known once the days are over:
each day is settled then, once, into figures_resolutions, counted for the queue and the agent who talked last.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

AT_ONCE = 31
"""Days settled in one go."""

EVERY = 3600.0
"""Seconds between two looks for days that can be settled by now."""

_SETTLE = """
WITH contacts AS (
    SELECT i.id, i.started, i.account_id, coalesce(i.queue, '') AS queue,
           coalesce(i.agents[cardinality(i.agents)], '') AS agent
    FROM interactions i
    WHERE i.started >= $1 AND i.started < $1 + interval '1 day' AND i.account_id IS NOT NULL
      AND i.direction = 'inbound' AND i.outcome = 'answered'
)
INSERT INTO figures_resolutions (slot, queue, agent, contacts, resolved)
SELECT figures_slot(c.started), c.queue, c.agent, count(*), count(*) FILTER (WHERE NOT EXISTS (
    SELECT FROM interactions n
    WHERE n.account_id = c.account_id AND n.direction = 'inbound' AND n.id <> c.id
      AND (n.started > c.started OR (n.started = c.started AND n.id > c.id))
      AND n.started <= c.started + make_interval(days => $2)))
FROM contacts c GROUP BY 1, 2, 3
"""


async def settle(pool: Pool, *, days: int, now: datetime) -> list[date]:
    """Settles the days (UTC) that can be and are not yet, at most `AT_ONCE`, in order; returns them. A contact whose
    customer becomes known after that is not counted any more."""
    settled: list[date] = []
    while len(settled) < AT_ONCE:
        day = await pool.fetchval(
            """SELECT coalesce((SELECT max(day) + 1 FROM figures_settled),
                               (SELECT (min(started) AT TIME ZONE 'UTC')::date FROM interactions))"""
        )
        if day is None or day + timedelta(days=days + 1) > now.date():
            break
        async with pool.acquire() as conn, conn.transaction():
            mine = await conn.fetchval(
                "INSERT INTO figures_settled (day, days) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true",
                day,
                days,
            )
            if not mine:
                break  # another process is at it
            midnight = datetime.fromisoformat(f"{day}T00:00:00+00:00")
            await conn.execute("SELECT figures_make_room($1)", midnight)
            await conn.execute(_SETTLE, midnight, days)
            await conn.execute(
                """INSERT INTO figures_days AS d (slot)
                   SELECT DISTINCT date_trunc('day', r.slot, (SELECT zone FROM figures_position))
                   FROM figures_resolutions r WHERE r.slot >= $1 AND r.slot < $1 + interval '1 day'
                   ON CONFLICT (slot) DO UPDATE SET dirty = true WHERE NOT d.dirty""",
                midnight,
            )
        settled.append(day)
    return settled


async def keep_settling(pool: Pool, *, days: int) -> None:
    """Settles, until cancelled, each day once its time is over; what fails is logged and tried again at the next look."""
    while True:
        try:
            more = await settle(pool, days=days, now=datetime.now(UTC))
        except Exception as error:
            more = []
            log.warning("contacts could not be settled", why=f"{type(error).__name__}: {error}"[:200])
        await asyncio.sleep(1.0 if more else EVERY)
