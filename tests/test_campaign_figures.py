"""Campaigns' figures on a real PostgreSQL: right by another reckoning, the same whatever is rolled up, also after changes
that come late, and the same in every form in which they are given out."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from cti.figures.desk import WrongQuestion
from dialer.management import store
from dialer.management.charts import chart
from dialer.management.figures import By, CampaignFigures, csv_of, read, roll_up, totals
from tests.campaign_attempts import (
    Attempt,
    a_campaign,
    a_list,
    added_up,
    by_chance,
    counted,
    emptied,
    write,
)

if TYPE_CHECKING:
    Db = asyncpg.Connection[asyncpg.Record]

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
WON = frozenset({"Sale"})


@pytest.fixture
async def db(tables: str) -> AsyncIterator[Db]:
    async with emptied(tables) as conn:
        yield conn


async def roll_up_all(db: Db, now: datetime) -> None:
    while await roll_up(db, now):
        pass


async def of_one(db: Db, id: int, by: By, first: datetime = NOON, hours: float = 48) -> list[CampaignFigures]:
    return await read(db, {id: "Spring"}, first, first + timedelta(hours=hours), by, BERLIN)


async def test_figures_are_those_of_plain_adding_up_whatever_was_rolled_up(db: Db) -> None:
    one, other = await a_campaign(db), await a_campaign(db, "Autumn")
    await store.set_conversions(db, one, WON)
    attempts = by_chance(random.Random(7), (one, other), 3000, NOON, 30)
    await write(db, attempts)
    mine = [a for a in attempts if a.campaign == one]
    for until in (0.0, 1.1, 9.0, 31.0, 100.0):
        await roll_up_all(db, NOON + timedelta(hours=until))
        (total,) = await of_one(db, one, By.TOTAL)
        assert total.sums == added_up(mine, WON)
        clock = {row.key: row.sums.attempts for row in await of_one(db, one, By.CLOCK)}
        assert clock == counted(mine, lambda a: a.committed.astimezone(BERLIN).strftime("%H"))
    assert await db.fetchval("SELECT count(*) FROM campaign_sums") > 0
    assert await db.fetchval("SELECT upto FROM campaign_sums_position") == NOON + timedelta(hours=99.5)


async def test_what_changes_later_is_right_at_once_and_after_the_next_roll_up(db: Db) -> None:
    one = await a_campaign(db)
    attempts = by_chance(random.Random(3), (one,), 400, NOON, 5)
    await write(db, attempts)
    await roll_up_all(db, NOON + timedelta(hours=9))
    late = [
        replace(a, outcome="answered", agent="anna", disposition="Sale", talk=60.0, late=False)
        for a in attempts[:40]
    ]
    for a in late:
        row = a.row
        await db.execute(
            """UPDATE attempts SET state = 'ended', outcome = 'answered', agent = 'anna', disposition = 'Sale',
                   answered = $2, connected = $3, ended = $4, waited = $5, amd = NULL, counts_as = 'in_time'
                WHERE id = $1""",
            *(a.id, *row[13:16], row[17]),
        )
    await write(db, new := [replace(attempts[0], id=f"at-{n:032x}", number_of=2) for n in range(5)])
    expected = added_up([*late, *attempts[40:], *new])
    assert await db.fetchval("SELECT count(*) FROM campaign_sums_again") > 0
    assert (await totals(db, [one], NOON, NOON + timedelta(days=2)))[one].sums == expected
    await roll_up_all(db, NOON + timedelta(hours=9))
    assert await db.fetchval("SELECT count(*) FROM campaign_sums_again") == 0
    assert (await totals(db, [one], NOON, NOON + timedelta(days=2)))[one].sums == expected


async def test_every_way_of_telling_apart_adds_up_to_the_same(db: Db) -> None:
    one = await a_campaign(db)
    first = await a_list(db, one, name="Fair")
    attempts = by_chance(random.Random(5), (one,), 500, NOON, 40)
    attempts = [replace(a, list=first if a.list == 1 else a.list) for a in attempts]
    await write(db, attempts)
    await roll_up_all(db, NOON + timedelta(hours=20))
    whole = added_up(attempts)
    keys = {
        By.HOUR: lambda a: a.committed.astimezone(BERLIN).strftime("%Y-%m-%d %H:00"),
        By.DAY: lambda a: a.committed.astimezone(BERLIN).strftime("%Y-%m-%d"),
        By.ATTEMPT: lambda a: "10 and more" if a.number_of >= 10 else str(a.number_of),
        By.LIST: lambda a: (
            "no list" if a.list is None else "Fair" if a.list == first else f"list {a.list}, removed"
        ),
        By.AGENT: lambda a: a.agent or "nobody",
        By.OUTCOME: lambda a: a.outcome or "under way",
        By.DISPOSITION: lambda a: a.disposition or "none",
    }
    for by, key in keys.items():
        rows = await of_one(db, one, by)
        assert {row.title: row.sums.attempts for row in rows} == counted(attempts, key), by
        for name in ("attempts", "live", "connected", "abandoned", "late", "in_flight", "opted_out"):
            assert sum(getattr(row.sums, name) for row in rows) == getattr(whole, name), (by, name)


async def test_campaigns_are_compared_row_by_row_and_what_cannot_be_told_is_none(db: Db) -> None:
    spring, autumn = await a_campaign(db), await a_campaign(db, "Autumn")
    at = NOON + timedelta(minutes=5)
    await write(
        db,
        [
            Attempt(spring, at, "answered", agent="anna", disposition="Sale", talk=60.0, wait=1.5),
            Attempt(spring, at, "answered", agent="ben", disposition="No", talk=30.0),
            Attempt(spring, at, "abandoned"),
            Attempt(spring, at, "no_answer", ring=20.0),
            Attempt(spring, at, None),
        ],
    )
    for id in (spring, autumn):
        await store.set_conversions(db, id, WON)
    found = await read(
        db, {spring: "Spring", autumn: "Autumn"}, NOON, NOON + timedelta(hours=1), By.TOTAL, BERLIN
    )
    assert [row.name for row in found] == ["Autumn", "Spring"]
    told = found[1]
    assert (told.answer_rate, told.abandonment, told.conversion) == (
        0.75,
        pytest.approx(1 / 3, abs=1e-5),
        0.5,
    )
    assert (told.mean_talk, told.mean_wait) == (45.0, 0.75)
    assert told.outcomes == {"abandoned": 1, "answered": 2, "no_answer": 1}
    assert (found[0].answer_rate, found[0].abandonment, found[0].mean_talk) == (None, None, None)
    await write(db, [Attempt(autumn, NOON + timedelta(hours=n), "busy") for n in range(80)])
    both, four_days = {spring: "Spring", autumn: "Autumn"}, NOON + timedelta(hours=96)
    hours = await read(db, both, NOON, four_days, By.HOUR, BERLIN)
    picture = chart(hours, By.HOUR)
    assert "21 rows before these are left out" in picture
    side_by_side = [row for row in hours if row.key == hours[0].key]
    assert {row.name for row in side_by_side} == {"Spring", "Autumn"}
    titles = re.findall(r"<title>(\w+), ", chart(side_by_side + hours[1:3], By.HOUR))
    assert titles == ["Autumn", "Spring", "Autumn", "Autumn"]
    with pytest.raises(WrongQuestion, match="shorter time"):
        await read(db, both, NOON, four_days, By.HOUR, BERLIN, most=80)


async def test_csv_has_the_same_numbers_and_no_formulas(db: Db) -> None:
    one = await a_campaign(db, "=HYPERLINK(1)")
    attempts = by_chance(random.Random(2), (one,), 200, NOON, 4)
    attempts[0] = replace(attempts[0], outcome="answered", agent="-1+1", disposition="@SUM(A1)")
    await write(db, attempts)
    figures = await read(db, {one: "=HYPERLINK(1)"}, NOON, NOON + timedelta(hours=4), By.AGENT, BERLIN)
    rows = list(csv.DictReader(io.StringIO(csv_of(figures, By.AGENT))))
    assert [int(row["attempts"]) for row in rows] == [row.sums.attempts for row in figures]
    assert [float(row["talk_seconds"]) for row in rows] == [row.sums.talk_seconds for row in figures]
    assert {row["agent"] for row in rows} == {"'-1+1", "anna", "ben", "nobody"}
    assert rows[0]["name"] == "'=HYPERLINK(1)"
    assert sorted(row["disposition @SUM(A1)"] for row in rows) == ["0", "0", "0", "1"]


async def test_what_is_young_is_read_by_the_index_and_the_rest_from_the_sums(db: Db) -> None:
    """However many attempts there are, a report reads the sums and the last three quarters of an hour."""
    one, other = await a_campaign(db), await a_campaign(db, "Other")
    await write(db, by_chance(random.Random(1), (one, other), 4000, NOON, 60))
    await roll_up_all(db, NOON + timedelta(hours=59))
    await db.execute("ANALYZE attempts, campaign_sums")
    plan = "\n".join(
        row[0]
        for row in await db.fetch(
            "EXPLAIN SELECT * FROM campaign_sums_of($1, $2, $3)",
            one,
            NOON + timedelta(hours=59),
            NOON + timedelta(days=9),
        )
    )
    assert "attempts_of_campaign" in plan
    assert "Seq Scan" not in plan


async def test_what_an_agent_says_of_the_call_counts_for_its_attempt(db: Db) -> None:
    one = await a_campaign(db)
    await store.set_conversions(db, one, WON)
    dialed, by_hand = (Attempt(one, NOON, "answered", agent="anna", talk=30.0) for _ in range(2))
    await write(db, [dialed, by_hand])
    await db.execute("UPDATE attempts SET call = 'main:cti-1' WHERE id = $1", by_hand.id)
    await roll_up_all(db, NOON + timedelta(hours=3))
    for call in (f"main:{dialed.id}", "main:cti-1", "main:17.1"):
        await db.execute(
            "INSERT INTO interactions (call, pbx, started, touched) VALUES ($1, 'main', $2, $2)", call, NOON
        )
    await db.execute("UPDATE interactions SET disposition = 'Sale'")
    assert (await of_one(db, one, By.TOTAL))[0].sums.conversions == 2
    await db.execute("UPDATE interactions SET disposition = 'Call later' WHERE call = 'main:cti-1'")
    (total,) = await of_one(db, one, By.TOTAL)
    assert total.dispositions == {"Call later": 1, "Sale": 1}
    assert total.conversion == 0.5
    await db.execute("DELETE FROM interactions")
