"""The dry run of a campaign with a million contacts: how long they are counted, beside a bare count of the same rows.

Run: python -m benchmarks.dry_run [--contacts N] [--seconds S]

A US campaign with four lists (one assigned, one with a quota) in five zone groups; every third contact has a second number,
every second a person; 2 % are on our do-not-call list, 3 % in a national register, one in ten has said yes or no to calls.
`count` is what the server does before the answer is reckoned: queries, law, sorting. `bare` reads the same contacts
(`SELECT count(*)` of the open ones, by list and zone group). `query_ms` is a small query by others meanwhile,
`query_alone_ms` without it; `loop_ms` the longest that the event loop was held up. `answer`: the reckoning, in its process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from benchmarks import scratch
from benchmarks.machine import machine
from cti import logs
from cti.database import migrate
from cti.people import Agent
from dialer.forecasting.dry_run_contacts import contacts_of
from dialer.forecasting.plans import run_apart
from dialer.forecasting.question import History, Question, Shift
from dialer.law.profiles import load
from dialer.management.settings import Campaign, CampaignSettings

if TYPE_CHECKING:
    from cti.database import Pool

ZONES = (
    ["America/New_York"],
    ["America/Chicago"],
    ["America/Denver"],
    ["America/Los_Angeles"],
    ["America/Chicago", "America/New_York"],
)
LISTS = (
    "{}",
    '{"quota": [{"counts": "connected", "per": "day", "most": 2000}]}',
    "{}",
    '{"assigned": {"agents": ["a1", "a2"]}}',
)
MONDAY = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
TRIES = 3


async def people(pool: Pool, contacts: int) -> Campaign:
    """A campaign with so many contacts."""
    id = await pool.fetchval(
        "INSERT INTO campaigns (name, mode, profile, created_by, changed_by) "
        "VALUES ('bench', 'predictive', 'US', 'b', 'b') RETURNING id"
    )
    for zones in ZONES:
        await pool.execute("INSERT INTO zone_groups (country, zones) VALUES ('US', $1)", zones)
    for number, settings in enumerate(LISTS):
        await pool.execute(
            "INSERT INTO call_lists (name, campaign_id, settings, created_by, changed_by) VALUES ($1, $2, $3, 'b', 'b')",
            *(f"list {number}", id, settings),
        )
    await pool.execute(
        """INSERT INTO list_contacts (list_id, name, e164, zone_group, person, other_numbers)
           SELECT (SELECT min(id) FROM call_lists) + n % 4, 'Customer ' || n, '+1' || (2012000000 + n * 17::bigint),
                  (SELECT min(id) FROM zone_groups) + n % 5, CASE WHEN n % 2 = 0 THEN 'p' || n ELSE '' END,
                  CASE WHEN n % 3 = 0 THEN ARRAY['+1' || (ARRAY[312, 212, 415, 303])[1 + n % 4] || (2000000 + n)]
                       ELSE '{}'::text[] END
             FROM generate_series(0, $1::int - 1) n""",
        contacts,
        timeout=600,
    )
    await pool.execute(
        """INSERT INTO do_not_call (number, scope, added_by)
           SELECT 12012000000 + n * 17 * 50::bigint, 'everywhere', 'b' FROM generate_series(0, $1::int / 50) n""",
        contacts,
    )
    await pool.execute(
        """INSERT INTO consents (number, channel, purpose, given, at, source, noted_by)
           SELECT 12012000000 + n * 17 * 10::bigint, 'call', 'marketing', n % 5 > 0, now(), 'form', 'b'
             FROM generate_series(0, $1::int / 10) n""",
        contacts,
    )
    edition = await pool.fetchval(
        """INSERT INTO do_not_call_editions (register, country, edition, state, numbers, loaded_by)
           VALUES ('us-national', 'US', '2026-11-15', 'active', 1, 'b') RETURNING id"""
    )
    await pool.execute(
        """INSERT INTO do_not_call_blocks (edition, block, few)
           SELECT $1, 1201200 + n, (SELECT array_agg((i * 33 + n % 33)::smallint) FROM generate_series(0, 302) i)
             FROM generate_series(0, $2::int * 17 / 10000) n""",
        *(edition, contacts),
    )
    await pool.execute("ANALYZE")
    return Campaign(
        id=id,
        name="bench",
        mode="predictive",
        state="draft",
        profile="US",
        priority=0,
        settings=CampaignSettings(),
        version=1,
    )


async def held_up(longest: list[float]) -> None:
    """Notes how much later than it should the loop comes round."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        longest.append(time.perf_counter() - began - 0.005)


async def small_queries(pool: Pool, took: list[float]) -> None:
    """What others want of the database meanwhile: one contact by its number, fifty times a second."""
    while True:
        began = time.perf_counter()
        await pool.fetchrow("SELECT id FROM list_contacts WHERE e164 = '+12012000017'")
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)


async def beside(pool: Pool, what: Callable[[], Awaitable[Any]]) -> tuple[Any, float, dict[str, float]]:
    """What came of it, how long it took, and what others noticed."""
    lags: list[float] = []
    took: list[float] = []
    watching = [asyncio.create_task(held_up(lags)), asyncio.create_task(small_queries(pool, took))]
    began = time.perf_counter()
    try:
        found = await what()
    finally:
        seconds = time.perf_counter() - began
        for task in watching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    took.sort()
    told = {
        "p50": round(1000 * median(took), 2),
        "p99": round(1000 * took[int(0.99 * len(took))], 2),
        "loop_ms": round(1000 * max(lags), 1),
    }
    return found, seconds, told


async def measure(dsn: str, contacts: int, seconds: float) -> dict[str, Any]:
    async with asyncpg.create_pool(dsn, min_size=3, max_size=4, server_settings={"jit": "off"}) as pool:
        campaign = await people(pool, contacts)
        profile = load()["US"]
        agents = [Agent(login=f"a{n}", name="A") for n in range(40)]

        async def counted() -> Any:
            return await contacts_of(pool, campaign, "predictive", profile, agents, MONDAY)

        async def bare() -> Any:
            return await pool.fetch(
                """SELECT c.list_id, c.zone_group, count(*) FROM list_contacts c JOIN call_lists l ON l.id = c.list_id
                    WHERE l.campaign_id = $1 AND l.active AND c.state = 'open' GROUP BY 1, 2""",
                campaign.id,
                timeout=600,
            )

        await bare()
        _, _, alone = await beside(pool, lambda: asyncio.sleep(2.0))
        counts, bares, told = [], [], alone
        found: Any = None
        for _ in range(TRIES):
            _, took, _ = await beside(pool, bare)
            bares.append(took)
            found, took, told = await beside(pool, counted)
            counts.append(took)
        question = Question(
            mode="predictive",
            now=MONDAY,
            zone="America/New_York",
            rota=(Shift(days=(0, 1, 2, 3, 4), start=540, end=1260, agents=40),),
            history=History(),
            finish_by=datetime(2026, 12, 23, tzinfo=UTC),
            seconds=seconds,
            **found._asdict(),
        )
        answer, took, _ = await beside(pool, lambda: run_apart(question))
    return {
        "contacts": contacts,
        "callable": answer.callable,
        "pools": len(found.pools),
        "count": {
            "seconds": round(median(counts), 2),
            "query_ms": {"p50": told["p50"], "p99": told["p99"]},
            "query_alone_ms": {"p50": alone["p50"], "p99": alone["p99"]},
            "loop_ms": told["loop_ms"],
        },
        "bare": {"seconds": round(median(bares), 2)},
        "ratio": round(median(counts) / median(bares), 1),
        "answer": {"seconds": round(took, 2), "asked_for": seconds, "complete": answer.complete},
        "question_mb": round(len(msgspec.json.encode(question)) / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contacts", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="that the answer may take")
    given = parser.parse_args()
    where = machine()
    logs.none()
    with scratch.postgres() as server:
        dsn = server.create_database("bench")
        asyncio.run(migrate(dsn))
        figures = asyncio.run(measure(dsn, given.contacts, given.seconds))
    json.dump({"benchmark": "dry_run", "machine": where, **figures}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
