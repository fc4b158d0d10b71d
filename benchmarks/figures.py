"""How long a report over many calls takes, beside the same report straight over one row a call; and how fast facts are
summed up.

    python benchmarks/figures.py [--calls N] [--days N] [DSN of an empty database]

Without a DSN it starts the embedded PostgreSQL for itself. Prints one JSON object. The calls are made in the database, one
narrow row each (a tenth of the journal's facts, so the baseline is as good as one without sums can be), and the sums from
those rows; both must say the same. `roll_up`: facts of real calls in the journal (five each: a caller comes, goes
to an agent, the agent's part ends, two changes of state) summed up by the server's own function.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog

from benchmarks import scratch
from benchmarks.machine import machine
from cti.database import connect, migrate
from cti.facts import QueueCallerJoined
from cti.figures.report import Interval, Range, of_agents, of_queues
from cti.figures.roll_up import fold, roll_up, set_zone

if TYPE_CHECKING:
    from cti.database import Connection

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
QUEUES, AGENTS = 40, 400
LONDON = ZoneInfo("Europe/London")

RAW = """
CREATE UNLOGGED TABLE raw_calls AS
SELECT $1::timestamptz + (n / $2) * interval '1 day' + interval '8 hours'
         + (n % $2)::float8 / $2 * interval '12 hours' AS joined,
       (hashint8(n) & 511) % 20 * 2 + (hashint8(n + 4) & 1) AS queue, hashint8(n) & 511 AS agent,
       (hashint8(n + 1) & 65535) / 1000.0::real AS waited,
       CASE WHEN hashint8(n + 2) & 15 < 14 THEN 60 + (hashint8(n + 3) & 511) ELSE 0 END AS talked
FROM generate_series(0, $3::bigint - 1) n
"""
"""So many calls, in twelve hours of each day: 14 of 16 answered, by 512 agents of whom each works in two of 40 queues."""

SUM_QUEUES = """
INSERT INTO figures_queues (slot, queue, offered, answered, in_time, answer_wait, longest_wait, abandoned, short,
                            abandon_wait, handled, talk)
SELECT figures_slot(joined), 'main:q' || queue, count(*), count(*) FILTER (WHERE talked > 0),
       count(*) FILTER (WHERE talked > 0 AND waited <= 20),
       coalesce(sum((waited * 1000)::bigint * 1000) FILTER (WHERE talked > 0), 0), max((waited * 1000)::bigint * 1000),
       count(*) FILTER (WHERE talked = 0 AND waited >= 5), count(*) FILTER (WHERE talked = 0 AND waited < 5), 0,
       count(*) FILTER (WHERE talked > 0), sum(talked::bigint * 1000000)
FROM raw_calls GROUP BY 1, 2
"""
SUM_AGENTS = """
INSERT INTO figures_agents (slot, agent, queue, handled, talk)
SELECT figures_slot(joined), 'agent' || agent, 'main:q' || queue, count(*), sum(talked::bigint * 1000000)
FROM raw_calls WHERE talked > 0 GROUP BY 1, 2, 3
"""
SUM_STATES = """
INSERT INTO figures_states (slot, agent, state, reason, lasted)
SELECT slot, agent, state, '', sum(talk) / (CASE state WHEN 'busy' THEN 1 ELSE 9 END)
FROM figures_agents CROSS JOIN (VALUES ('busy'), ('ready'), ('wrap_up')) s (state) GROUP BY 1, 2, 3
"""
RAW_REPORT = """
SELECT date_trunc('day', joined, 'Europe/London') AS day, queue, count(*) AS offered,
       count(*) FILTER (WHERE talked > 0) AS answered,
       count(*) FILTER (WHERE talked > 0 AND waited <= 20) AS in_time,
       sum(waited) FILTER (WHERE talked > 0) AS answer_wait, max(waited) AS longest,
       count(*) FILTER (WHERE talked = 0 AND waited >= 5) AS abandoned,
       count(*) FILTER (WHERE talked = 0 AND waited < 5) AS short, sum(talked) AS talk
FROM raw_calls GROUP BY 1, 2 ORDER BY 1, 2
"""


async def took(work: Callable[[], Awaitable[Any]], times: int = 3) -> tuple[Any, float]:
    """What it gives, and the median of so many times in seconds."""
    spent = []
    result = None
    for _ in range(times):
        began = time.perf_counter()
        result = await work()
        spent.append(time.perf_counter() - began)
    return result, round(sorted(spent)[times // 2], 3)


async def reports(db: Connection, calls: int, days: int) -> dict[str, Any]:
    """Reports over so many calls in so many days, from the sums and from the rows."""
    began = time.perf_counter()
    await db.execute(
        RAW.replace("$1", f"'{BEGIN.isoformat()}'")
        .replace("$2", str(calls // days))
        .replace("$3", str(calls))
    )
    for day in range(-1, days + 32, 28):
        await db.execute("SELECT figures_make_room($1)", BEGIN + timedelta(days=day))
    for statement in (SUM_QUEUES, SUM_AGENTS, SUM_STATES, "VACUUM ANALYZE"):
        await db.execute(statement)
    made = time.perf_counter() - began
    began = time.perf_counter()
    await set_zone(db, LONDON.key)
    while await fold(db):
        pass
    folded = time.perf_counter() - began
    await db.execute("VACUUM ANALYZE")
    whole = BEGIN - timedelta(hours=BEGIN.hour), BEGIN + timedelta(days=days + 1)

    def span(interval: Interval, last: datetime = whole[1]) -> Range:
        return Range(first=whole[0], last=last, interval=interval, zone=LONDON)

    by_day, queues_day = await took(lambda: of_queues(db, span(Interval.DAY), None))
    _, elsewhere = await took(
        lambda: of_queues(
            db, Range(first=whole[0], last=whole[1], interval=Interval.DAY, zone=ZoneInfo("UTC")), None
        )
    )
    _, queues_total = await took(lambda: of_queues(db, span(Interval.TOTAL), None))
    _, agents_total = await took(lambda: of_agents(db, span(Interval.TOTAL), None, now=whole[0]))
    month = BEGIN + timedelta(days=30)
    _, agents_day = await took(lambda: of_agents(db, span(Interval.DAY, month), None, now=whole[0]))
    _, half_hours = await took(
        lambda: of_queues(db, span(Interval.HALF, BEGIN + timedelta(days=min(7, days))), None)
    )
    baseline, raw = await took(lambda: db.fetch(RAW_REPORT))
    same = [
        (row.start, row.queue, row.offered, row.answered, row.answered_in_time, row.talk) for row in by_day
    ]
    rows = [
        (
            row["day"],
            f"main:q{row['queue']}",
            row["offered"],
            row["answered"],
            row["in_time"],
            float(row["talk"]),
        )
        for row in baseline
    ]
    if sorted(same) != sorted(rows):
        raise RuntimeError("the sums say something else than the rows")
    size = await db.fetchrow(
        """SELECT pg_total_relation_size('raw_calls') AS raw,
                  (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits JOIN pg_class c ON c.oid = inhparent
                   WHERE c.relname LIKE 'figures%') AS sums,
                  (SELECT count(*) FROM figures_agents) AS agent_rows, (SELECT count(*) FROM figures_queues) AS queue_rows"""
    )
    assert size is not None
    await db.execute("DROP TABLE raw_calls")
    await db.execute("TRUNCATE figures_queues, figures_agents, figures_states")
    return {
        "calls": calls,
        "days": days,
        "made_s": round(made, 1),
        "folded_s": round(folded, 1),
        "queues_by_day_s": queues_day,
        "queues_by_day_of_another_zone_s": elsewhere,
        "queues_total_s": queues_total,
        "agents_total_s": agents_total,
        "agents_by_day_of_a_month_s": agents_day,
        "queues_by_half_hour_of_a_week_s": half_hours,
        "baseline_queues_by_day_over_rows_s": raw,
        "times_faster": round(raw / queues_day, 1),
        "sums_mb": round(float(size["sums"]) / 1e6),
        "rows_mb": round(float(size["raw"]) / 1e6),
        "rows_of_sums": size["agent_rows"] + size["queue_rows"],
    }


async def roll_ups(db: Connection, calls: int) -> dict[str, Any]:
    """Facts a second summed up, in batches as the server does it."""
    from tests.figure_facts import Shift, journal, part, visit

    chance = random.Random(1)
    facts: list[Any] = []
    shifts = [Shift(f"agent{n}", facts) for n in range(AGENTS)]
    for n in range(calls):
        now = BEGIN + timedelta(seconds=n * 0.5)
        shift, queue = shifts[n % AGENTS], f"main:q{chance.randrange(QUEUES)}"
        facts.append(QueueCallerJoined(at=now, queue=queue, call=f"main:{n}", position=1, waiting=1))
        facts.append(visit(now, queue, 10, "answered", f"main:{n}"))
        shift.to(now + timedelta(seconds=10), "busy", call=f"main:{n}")
        facts.append(part(now + timedelta(seconds=70), shift.agent, 60, 0, queue, f"main:{n}"))
        shift.to(now + timedelta(seconds=70), "ready")
    for start in range(0, len(facts), 20_000):
        await journal(db, facts[start : start + 20_000], after=start)
    await db.execute("ANALYZE journal")
    began = time.perf_counter()
    done = 0
    while more := await roll_up(db):
        done += more
    spent = time.perf_counter() - began
    return {"facts": done, "facts_per_s": round(done / spent), "calls_per_s": round(calls / spent)}


async def measure(dsn: str, calls: int, days: int) -> dict[str, Any]:
    """All of it, in an empty database."""
    await migrate(dsn)
    db = await connect(dsn, name="bench", jit="off")
    try:
        return {
            "reports": await reports(db, calls, days),
            "roll_up": await roll_ups(db, min(calls // 10, 50_000)),
        }
    finally:
        await db.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dsn", nargs="?")
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=100)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    where = machine()
    with contextlib.ExitStack() as ended:
        dsn = given.dsn
        if not dsn:
            dsn = ended.enter_context(scratch.postgres()).create_database("bench")
        result = asyncio.run(measure(dsn, given.calls, given.days))
    print(json.dumps({"machine": where, **result}, indent=1))


if __name__ == "__main__":
    main()
