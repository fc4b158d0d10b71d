"""The figures' sums on a real PostgreSQL: right by another reckoning, whole whatever is killed, the same by any batches."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from cti.database import connect
from cti.facts import PbxResynced, QueueCallerJoined
from cti.figures.roll_up import compute_again, fold, roll_up, set_limits, set_targets, set_zone
from tests.figure_facts import (
    Shift,
    added_up,
    as_counters,
    by_chance,
    forget,
    journal,
    part,
    sums,
    visit,
)

if TYPE_CHECKING:
    Db = asyncpg.Connection[asyncpg.Record]

NOON = datetime(2024, 3, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
async def db(migrated: str) -> AsyncIterator[Db]:
    conn = await connect(migrated, name="test", jit="off")
    yield conn
    await conn.close()


@pytest.mark.parametrize("seed", range(4))
async def test_sums_are_those_of_plain_adding_up_whatever_the_batches(db: Db, seed: int) -> None:
    chance = random.Random(seed)
    facts = by_chance(chance, 600, NOON)
    limits = {"Lunch": timedelta(minutes=1), "Break": timedelta(minutes=7)}
    await set_limits(db, {"Gone": timedelta(1)})
    await set_limits(db, limits)
    last = await journal(db, facts, after=17)
    while await roll_up(db, chance.choice((1, 2, 7, 40, 150))):
        pass
    in_pieces = await sums(db)
    assert await as_counters(db) == added_up(facts, limits=limits)

    await forget(db)
    assert await roll_up(db, 10_000) == 600
    assert await sums(db) == in_pieces
    assert await db.fetchval("SELECT seq FROM figures_position") == last
    assert await roll_up(db, 10_000) == 0

    first, until = NOON - timedelta(days=3), NOON + timedelta(days=30)
    await compute_again(db, first, until)
    assert await sums(db) == in_pieces
    await compute_again(db, NOON + timedelta(hours=3), NOON + timedelta(hours=5, minutes=15))
    assert await sums(db) == in_pieces


@pytest.mark.parametrize("seed", range(2))
async def test_folded_days_are_the_sums_of_their_quarters_also_after_late_facts(db: Db, seed: int) -> None:
    """Days of New York, folded while facts of theirs still come; then of Kathmandu."""
    chance = random.Random(seed)
    await set_zone(db, "America/New_York")
    await set_limits(db, {"Lunch": timedelta(minutes=2)})
    await journal(db, by_chance(chance, 1200, NOON - timedelta(days=5)))
    while await roll_up(db, chance.choice((30, 60))):
        for _ in range(chance.randrange(3)):
            await fold(db)
    for zone in ("America/New_York", "Asia/Kathmandu"):
        await set_zone(db, zone)
        while await fold(db):
            pass
        for quarters, days, keys, counts in (
            (
                "figures_queues",
                "figures_queue_days",
                "queue",
                "sum(offered), sum(answer_wait), max(longest_wait), sum(talk)",
            ),
            ("figures_agents", "figures_agent_days", "agent, queue", "sum(handled), sum(talk), sum(wrap_up)"),
            (
                "figures_states",
                "figures_state_days",
                "agent, state, reason",
                "sum(lasted), sum(times), sum(over_times), sum(over_lasted)",
            ),
        ):
            by_day = await db.fetch(
                f"""SELECT date_trunc('day', slot, $1) AS slot, {keys}, {counts} FROM {quarters}
                    GROUP BY 1, {keys} ORDER BY 1, {keys}""",
                zone,
            )
            kept = await db.fetch(
                f"SELECT slot, {keys}, {counts} FROM {days} GROUP BY slot, {keys} ORDER BY 1, {keys}"
            )
            assert kept == by_day
            assert len(kept) >= 4


async def test_a_change_of_targets_counts_from_then_on_and_for_a_range_computed_again(db: Db) -> None:
    calls = [visit(NOON, "main:sales", waited, "answered") for waited in (5, 15, 25)]
    await journal(db, calls)
    await roll_up(db)
    await set_targets(db, {"": (20, 5), "main:sales": (10, 5)})
    await journal(db, calls, after=100)
    await roll_up(db)
    assert await db.fetchval("SELECT in_time FROM figures_queues") == 2 + 1
    await compute_again(db, NOON, NOON + timedelta(minutes=15))
    assert await db.fetchval("SELECT in_time FROM figures_queues") == 1 + 1
    await set_targets(db, {"": (30, 5)})
    await compute_again(db, NOON, NOON + timedelta(minutes=15))
    assert await db.fetchval("SELECT in_time FROM figures_queues") == 6


async def test_a_range_the_journal_no_longer_has_is_refused_and_kept(db: Db) -> None:
    await journal(db, [visit(NOON, "main:sales", 5, "answered")])
    await roll_up(db)
    await db.execute("UPDATE journal_kept SET first = 2")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="no longer"):
        await compute_again(db, NOON, NOON + timedelta(minutes=15))
    with pytest.raises(asyncpg.InvalidParameterValueError, match="quarter"):
        await compute_again(db, NOON, NOON + timedelta(minutes=14))
    assert await db.fetchval("SELECT answered FROM figures_queues") == 1


async def test_time_while_the_server_was_away_is_unknown(db: Db) -> None:
    """Told ready at 12:00; last sign of life 12:10; back at 12:20, ready since 12:00 as before."""
    facts: list = []
    anna = Shift("anna", facts)
    anna.to(NOON, "ready")
    facts.append(visit(NOON + timedelta(minutes=10) - timedelta(seconds=5), "main:sales", 5, "abandoned"))
    await journal(db, facts)
    await roll_up(db)
    await db.execute("INSERT INTO journal_boots (base_seq, after_seq, holder) VALUES (1000000, 2, 'x')")
    facts.clear()
    back = NOON + timedelta(minutes=20)
    anna.to(back, "unknown", "starting", old="logged_off")
    anna.to(back + timedelta(seconds=1), "ready", since=NOON)
    anna.to(back + timedelta(minutes=5), "logged_off")
    await journal(db, facts, after=1_000_000)
    await roll_up(db)
    rows = await db.fetch("SELECT state, sum(lasted) / 1000000 AS s FROM figures_states GROUP BY 1")
    assert {row["state"]: int(row["s"]) for row in rows} == {"ready": 600 + 299, "unknown": 600 + 1}


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
async def test_a_visit_that_ended_while_the_server_was_away_is_lost_and_one_that_goes_on_is_not(
    db: Db, batch: int
) -> None:
    def joins(call: str, at: datetime) -> QueueCallerJoined:
        return QueueCallerJoined(at=at, queue="main:sales", call=call, position=1, waiting=1)

    def asked(at: datetime, pbx: str = "main") -> PbxResynced:
        return PbxResynced(at=at, pbx=pbx, reason="connected", calls=1, differences={})

    second = timedelta(seconds=1)
    await journal(
        db,
        [
            joins("main:1", NOON),  # answered in time
            joins("main:2", NOON),  # nobody ever tells of its end
            joins("main:3", NOON + second),  # waits on
            visit(NOON, "main:sales", 5, "answered", "main:1"),
            asked(NOON + 6 * second),  # a comparison without a start between: nothing is lost
        ],
    )
    await db.execute("INSERT INTO journal_boots (base_seq, after_seq, holder) VALUES (1000000, 5, 'x')")
    back = NOON + timedelta(minutes=3)
    await journal(
        db,
        [
            asked(back, "other"),  # another PBX knows nothing of these
            joins("main:3", NOON + second),  # found waiting, since then
            asked(back),
            visit(NOON + second, "main:sales", 200, "abandoned", "main:3"),
            asked(back + 60 * second),
        ],
        after=1_000_000,
    )
    while await roll_up(db, batch):
        pass
    row = await db.fetchrow("SELECT offered, answered, abandoned, lost FROM figures_queues")
    assert tuple(row) == (3, 1, 1, 1)
    assert await db.fetchval("SELECT count(*) FROM figures_waiting") == 0
    await compute_again(db, NOON, NOON + timedelta(minutes=15))
    assert tuple(await db.fetchrow("SELECT offered, answered, abandoned, lost FROM figures_queues")) == (
        3,
        1,
        1,
        1,
    )


async def test_facts_without_a_possible_time_disturb_nothing(db: Db) -> None:
    odd = [
        visit(datetime(1970, 1, 1, tzinfo=UTC), "main:sales", 1, "answered"),
        part(datetime(2200, 1, 1, tzinfo=UTC), "anna", 5, 0, "main:sales"),
        visit(NOON, "main:sales", 1, "answered"),
    ]
    await journal(db, odd)
    assert await roll_up(db) == 3
    assert await db.fetchval("SELECT sum(offered) FROM figures_queues") == 1
    assert await db.fetchval("SELECT count(*) FROM figures_agents") == 0


PROGRAM = """
import asyncio, os, signal, sys, threading
from cti.database import connect
from cti.figures.roll_up import roll_up
async def main(dsn):
    conn = await connect(dsn, name="roll-up", jit="off")
    if len(sys.argv) > 2:
        end = threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL))
        end.daemon = True
        end.start()
    while await roll_up(conn, 23):
        pass
    print("done", flush=True)
asyncio.run(main(sys.argv[1]))
"""
"""Rolls up, for so many seconds if they are given: then it kills itself, whatever this machine is busy with."""


async def test_killed_at_any_moment_nothing_is_lost_or_counted_twice(db: Db, migrated: str) -> None:
    chance = random.Random(7)
    facts = by_chance(chance, 3000, NOON)
    await journal(db, facts)
    kills = 0
    for seconds in [*(str(chance.random() * 0.15) for _ in range(6)), None]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, migrated, *([seconds] if seconds else [])),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert said == b"done\n"
    assert kills >= 3
    assert await as_counters(db) == added_up(facts)


async def test_two_at_once_count_nothing_twice(db: Db, migrated: str) -> None:
    facts = by_chance(random.Random(8), 1000, NOON)
    await journal(db, facts)
    others = [await connect(migrated, name="test") for _ in range(3)]

    async def all_of_it(conn: Db) -> None:
        while await roll_up(conn, 37):
            pass

    try:
        await asyncio.gather(*(all_of_it(conn) for conn in others))
    finally:
        for conn in others:
            await conn.close()
    assert await as_counters(db) == added_up(facts)
