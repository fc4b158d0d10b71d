"""What the law costs the dialer: loading a register, looking a number up among 200 million, judging a batch of contacts.

    python -m benchmarks.dialing_law [--lines N] [--register N] [--attempts N]

Starts the embedded PostgreSQL for itself. Prints one JSON object. `load`: a file of so many lines becomes the edition in
force, beside the bare COPY of its numbers; `peak_mb` is the largest the loading process was. `look_up`: microseconds by
which the query is slower than `SELECT 1`, in a register of `--register` numbers, 312 in each ten thousand that is used at
all. `check`: milliseconds for 100 contacts, as a claim asks, with so many attempts on record.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import statistics
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import structlog

from benchmarks import scratch
from cti.database import migrate
from dialer.candidate import Candidate
from dialer.law.do_not_call import registers_with
from dialer.law.known import check_all
from dialer.law.profiles import load
from dialer.law.registers import load_edition

USED = 312
"""Numbers listed of ten thousand, where any are: as in the United States."""


def register_file(path: Path, lines: int, rng: random.Random) -> None:
    """Area code and number, as the FTC delivers them."""
    with path.open("w") as file:
        for _ in range(lines // USED):
            area, exchange = rng.randrange(201, 999), rng.randrange(200, 999)
            file.writelines(f"{area},{exchange}{n:04}\n" for n in sorted(rng.sample(range(10_000), USED)))


async def loading(dsn: str, folder: Path, lines: int) -> dict[str, Any]:
    path = folder / "register.txt"
    await asyncio.to_thread(register_file, path, lines, random.Random(1))
    began = time.perf_counter()
    with path.open("rb") as file:
        told, read = await load_edition(
            dsn, file, register="us-national", country="US", edition=date(2026, 11, 1), by="bench"
        )
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    digits = folder / "digits.txt"
    with path.open() as lines_of, digits.open("w") as ready:
        ready.writelines("1" + line.replace(",", "") for line in lines_of)
    db = await asyncpg.connect(dsn)
    try:
        await db.execute("CREATE TABLE bare (number bigint)")
        began = time.perf_counter()
        await db.copy_to_table("bare", source=digits, columns=["number"])
        bare = time.perf_counter() - began
        digits.unlink()
        await db.execute("VACUUM do_not_call_blocks")
        size = await db.fetchval("SELECT pg_total_relation_size('do_not_call_blocks')")
    finally:
        await db.close()
    return {
        "lines": read.lines,
        "numbers": told.numbers,
        "seconds": round(took, 2),
        "bare_copy_seconds": round(bare, 2),
        "peak_mb": round(peak, 1),
        "bytes_a_number": round(size / told.numbers, 2),
    }


async def looking_up(pool: Any, numbers: int) -> dict[str, Any]:
    blocks = numbers // USED
    edition = await pool.fetchval(
        """INSERT INTO do_not_call_editions (register, country, edition, state, numbers, loaded_by)
           VALUES ('large', 'US', '2026-11-01', 'active', $1, 'bench') RETURNING id""",
        numbers,
    )
    await pool.execute(
        """INSERT INTO do_not_call_blocks (edition, block, few)
           SELECT $1, 120000 + n, few FROM generate_series(1, $2) n,
                  (SELECT array_agg((k * 32)::smallint) AS few FROM generate_series(0, 311) k) f""",
        edition,
        blocks,
        timeout=300,
    )
    await pool.execute("VACUUM ANALYZE do_not_call_blocks", timeout=300)
    rng = random.Random(2)
    took: dict[str, list[float]] = {"look_up": [], "nothing": []}
    found = 0
    async with pool.acquire() as db:
        for _ in range(2_000):
            number = f"+{120_000 + rng.randrange(blocks)}{rng.randrange(10_000):04}"
            began = time.perf_counter()
            found += bool(await registers_with(db, number))
            took["look_up"].append(time.perf_counter() - began)
            began = time.perf_counter()
            await db.fetch("SELECT 1")
            took["nothing"].append(time.perf_counter() - began)
    half = {name: statistics.median(each[200:]) * 1e6 for name, each in took.items()}
    return {
        "numbers": numbers,
        "found": found,
        "median_us": round(half["look_up"] - half["nothing"], 1),
        "round_trip_us": round(half["nothing"], 1),
        "table_mb": round(await pool.fetchval("SELECT pg_total_relation_size('do_not_call_blocks')") / 1e6),
    }


async def checking(pool: Any, attempts: int) -> dict[str, Any]:
    campaign = await pool.fetchval(
        """INSERT INTO campaigns (name, mode, profile, created_by, changed_by)
           VALUES ('bench', 'predictive', 'US', 'x', 'x') RETURNING id"""
    )
    await pool.execute(
        """INSERT INTO attempts (id, campaign_id, e164, person, pbx, mode, profile, owner, state, committed, dialed, ended,
                                 outcome)
           SELECT 'at-' || md5(n::text), $1, '+1212' || (2000000 + n % 100000), 'p' || n % 50000, 'main', 'predictive', 'US',
                  'x', 'ended', at, at, at, 'no_answer'
           FROM (SELECT n, now() - n * interval '5 seconds' AS at FROM generate_series(1, $2) n) s""",
        campaign,
        attempts,
        timeout=300,
    )
    await pool.execute("VACUUM ANALYZE attempts", timeout=300)
    rng, profile = random.Random(3), load()["US"]
    took = []
    async with pool.acquire() as db:
        for _ in range(30):
            batch = [
                Candidate(
                    contact=n, list=1, list_version=1, e164=f"+1212{2_000_000 + rng.randrange(100_000)}", zone_group=1,
                    country="US", region="NY", zones=("America/New_York",), person=f"p{rng.randrange(50_000)}",
                )
                for n in range(100)
            ]  # fmt: skip
            async with db.transaction():
                began = time.perf_counter()
                await check_all(db, batch, campaign, profile, datetime.now(UTC))
                took.append((time.perf_counter() - began) * 1000)
    return {
        "contacts": 100,
        "attempts_on_record": attempts,
        "median_ms": round(statistics.median(took[5:]), 1),
    }


async def measure(dsn: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    await migrate(dsn)
    told: dict[str, Any] = {"load": await loading(dsn, folder, asked.lines)}
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2, server_settings={"jit": "off"}) as pool:
        told["look_up"] = await looking_up(pool, asked.register)
        told["check"] = await checking(pool, asked.attempts)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=3_000_000)
    parser.add_argument("--register", type=int, default=200_000_000)
    parser.add_argument("--attempts", type=int, default=300_000)
    asked = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with scratch.folder() as folder, scratch.postgres() as server:
        dsn = server.create_database("law")
        told = asyncio.run(measure(dsn, folder, asked))
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


if __name__ == "__main__":
    main()
