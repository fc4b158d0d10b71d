"""Claims: contacts claimed a second, with several processes' worth of connections at once, beside a bare SKIP LOCKED claim.

Run: python -m benchmarks.claims. `bare` takes rows in the order of the key and marks them: no lists, zones, priorities,
lease, law or attempts. `claims` is the dialer's, with a law that agrees to all; `with_law` with compliance reading attempts,
consents and do-not-call lists for each batch. `ratio` is bare's rate over theirs. In turns, each on contacts of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from benchmarks import scratch
from benchmarks.machine import machine
from cti.database import migrate
from dialer.calling.claims import Claims
from dialer.candidate import Candidate
from dialer.law.known import check_all
from dialer.law.profiles import Attempts, Profile, load
from dialer.management.settings import Campaign, CampaignSettings
from dialer.verdict import Verdict

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

YES = Verdict(steps=())
LISTS = 3


def lenient() -> Profile:
    """A profile by which everybody may be called now: compliance still looks at everything."""
    return dataclasses.replace(
        load()["default"],
        week=tuple(((0, 24 * 60),) for _ in range(7)),  # type: ignore[misc]
        closed_on_holidays=False,
        consent_needed=False,
        per_number=Attempts(day=9),
        per_person=Attempts(day=9),
    )


async def people(pool: Pool, contacts: int) -> tuple[Campaign, list[int]]:
    """A campaign with lists of so many contacts in four zone groups."""
    await pool.execute("TRUNCATE campaigns, call_lists, zone_groups CASCADE")
    id = await pool.fetchval(
        "INSERT INTO campaigns (name, mode, state, profile, created_by, changed_by) "
        "VALUES ('bench', 'predictive', 'running', 'default', 'b', 'b') RETURNING id"
    )
    groups = [
        await pool.fetchval("INSERT INTO zone_groups (country, zones) VALUES ('GB', $1) RETURNING id", [zone])
        for zone in ("Europe/London", "Europe/Paris", "Europe/Berlin", "Europe/Madrid")
    ]
    for number in range(LISTS):
        list_id = await pool.fetchval(
            "INSERT INTO call_lists (name, campaign_id, priority, created_by, changed_by) "
            "VALUES ($1, $2, $3, 'b', 'b') RETURNING id",
            f"list {number}",
            id,
            number,
        )
        await pool.execute(
            """
            INSERT INTO list_contacts (list_id, name, e164, zone_group, not_before, priority)
            SELECT $1, 'Customer ' || n, '+44' || (7000000000 + $2::bigint * 10000000 + n)::text, $3::int + n % 4,
                   now() - make_interval(secs => n % 3600), n % 2
              FROM generate_series(1, $4::int) n
            """,
            list_id,
            number,
            groups[0],
            contacts // LISTS,
        )
    await pool.execute("ANALYZE list_contacts")
    campaign = Campaign(
        id=id,
        name="bench",
        mode="predictive",
        state="running",
        profile="default",
        priority=0,
        settings=CampaignSettings(),
        version=1,
    )
    return campaign, groups


async def bare(pool: Pool, batch: int) -> int:
    """One batch, as simply as it can be done."""
    async with pool.acquire() as db, db.transaction():
        rows = await db.fetch(
            "SELECT id FROM list_contacts WHERE state = 'open' ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
            batch,
        )
        await db.execute(
            "UPDATE list_contacts SET state = 'in_hand' WHERE id = ANY($1)", [row["id"] for row in rows]
        )
        return len(rows)


async def rate(workers: int, seconds: float, one: Callable[[], Awaitable[int]]) -> dict[str, float]:
    """Claims for so long, or until nobody is left; contacts a second and milliseconds a batch."""
    took: list[float] = []
    got = 0
    end = time.perf_counter() + seconds

    async def work() -> None:
        nonlocal got
        while time.perf_counter() < end:
            began = time.perf_counter()
            many = await one()
            if not many:
                return
            took.append(time.perf_counter() - began)
            got += many

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    spent = time.perf_counter() - began
    took.sort()
    return {
        "contacts_a_second": round(got / spent),
        "p50_ms": round(1000 * took[len(took) // 2], 2),
        "p99_ms": round(1000 * took[int(len(took) * 0.99)], 2),
        "contacts": got,
    }


async def measure(dsn: str, *, contacts: int, workers: int, batch: int, seconds: float) -> dict[str, Any]:
    """All three, each on fresh contacts."""
    profile = lenient()

    async def agrees(
        db: Queryable, candidates: Sequence[Candidate], campaign: Campaign, now: datetime
    ) -> Mapping[int, Verdict]:
        return {one.contact: YES for one in candidates}

    async def by_law(
        db: Queryable, candidates: Sequence[Candidate], campaign: Campaign, now: datetime
    ) -> Mapping[int, Verdict]:
        return await check_all(db, candidates, campaign.id, profile, now)

    found: dict[str, Any] = {}
    async with asyncpg.create_pool(dsn, min_size=workers, max_size=workers + 2) as pool:
        for name, check in (("bare", None), ("claims", agrees), ("with_law", by_law)):
            campaign, groups = await people(pool, contacts)

            async def all_groups(
                db: Queryable, campaign: Campaign, now: datetime, groups: list[int] = groups
            ) -> Collection[int]:
                return groups

            if check is None:
                found[name] = await rate(workers, seconds, lambda: bare(pool, batch))
                continue
            claims = Claims(lambda: pool, check_all=check, open_groups=all_groups, clock=time.monotonic)
            lease = await claims.lease(campaign.id, "bench", 600)
            assert lease is not None

            async def one(claims: Claims = claims, campaign: Campaign = campaign, lease: Any = lease) -> int:
                now = datetime.now(UTC) + timedelta(seconds=1)
                return len((await claims.claim(campaign, lease, batch, now=now, pbx="main")).attempts)

            found[name] = await rate(workers, seconds, one)
            twice = await pool.fetchval(
                "SELECT count(*) FROM (SELECT contact_id FROM attempts GROUP BY 1 HAVING count(*) > 1) AS t"
            )
            assert twice == 0, "a contact was claimed twice"
    for name in ("claims", "with_law"):
        found[name]["ratio"] = round(found["bare"]["contacts_a_second"] / found[name]["contacts_a_second"], 1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contacts", type=int, default=30_000)
    parser.add_argument(
        "--workers", type=int, default=4, help="claims at once, each with a connection of its own"
    )
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each")
    given = parser.parse_args()
    with scratch.postgres() as server:
        dsn = server.create_database("bench")
        asyncio.run(migrate(dsn))
        figures = asyncio.run(
            measure(
                dsn,
                contacts=given.contacts,
                workers=given.workers,
                batch=given.batch,
                seconds=given.seconds,
            )
        )
    json.dump({"benchmark": "claims", "machine": machine(), **vars(given), **figures}, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
