"""One day of a call centre, written out call by call and added up by hand: the report says the same.

The day is 27 October 2024 in London: summer time ends at 02:00, which comes twice, and the day has 25 hours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from cti.database import connect
from cti.facts import Fact
from cti.figures.report import (
    AgentFigures,
    Interval,
    QueueFigures,
    Range,
    Stay,
    TooLarge,
    WorkFigures,
    of_agents,
    of_queues,
    of_teams,
    of_work,
)
from cti.figures.roll_up import fold, roll_up, set_limits, set_zone
from cti.figures.table import csv_of, lines_of
from cti.other_work import WorkView
from routing import work_store
from tests.figure_facts import Shift, handed_on, journal, not_taken, part, visit

if TYPE_CHECKING:
    Db = asyncpg.Connection[asyncpg.Record]

LONDON = ZoneInfo("Europe/London")
SALES, SUPPORT = "main:sales", "main:support"


def at(clock: str, day: int = 27, fold: int = 0) -> datetime:
    """A moment in London: `09:15:30`."""
    hour, minute, second = (int(part) for part in clock.split(":"))
    return datetime(2024, 10, day, hour, minute, second, tzinfo=LONDON, fold=fold).astimezone(UTC)


def the_day() -> list[Fact]:
    """What happened, as the facts tell it."""
    facts: list[Fact] = []
    anna, ben = Shift("anna", facts), Shift("ben", facts)

    # The evening before: Ben works over midnight. The visit began on the 26th and was answered on the 27th.
    ben.to(at("23:30:00", 26), "ready")
    facts.append(visit(at("23:59:40", 26), SALES, 30, "answered", "main:0"))
    ben.to(at("00:00:10"), "busy", call="main:0")
    facts.append(part(at("00:04:10"), "ben", 240, 0, SALES, "main:0"))
    facts.append(
        part(at("00:04:10"), None, 240, 0, None, "main:0")
    )  # the customer's own part counts for nobody
    ben.to(at("00:04:10"), "wrap_up", call="main:0")
    ben.to(at("00:05:10"), "logged_off")

    # The hour that comes twice: one caller in each of them, at half past one.
    facts.append(visit(at("01:30:00"), SALES, 12, "abandoned", "main:1"))
    facts.append(visit(at("01:30:00", fold=1), SALES, 60, "timed_out", "main:2"))

    # 09:00-09:15 sales, Anna and Ben.
    anna.to(at("08:55:00"), "not_ready")
    anna.to(at("09:00:00"), "ready")
    ben.to(at("09:00:00"), "ready")
    #  1 answered in time, with a hold of 20 s, handed on to support
    facts.append(visit(at("09:00:30"), SALES, 10, "answered", "main:10"))
    anna.to(at("09:00:35"), "reserved", call="main:10")
    anna.to(at("09:00:40"), "busy", call="main:10")
    facts.append(handed_on(at("09:02:40"), "anna", SALES))
    facts.append(part(at("09:02:40"), "anna", 100, 20, SALES, "main:10", "transferred"))
    anna.to(at("09:02:40"), "wrap_up", call="main:10")
    anna.to(
        at("09:02:50"), "wrap_up", call="main:10", pending="not_ready: Lunch"
    )  # asked for Lunch meanwhile
    anna.to(at("09:03:10"), "not_ready", "Lunch")
    #  ... and there times out to overflow into sales again, where Ben does not answer first, then does, late
    facts.append(visit(at("09:02:40"), SUPPORT, 30, "overflowed", "main:10"))
    facts.append(visit(at("09:03:10"), SALES, 35, "answered", "main:10"))
    ben.to(at("09:03:11"), "reserved", call="main:10")
    facts.append(not_taken(at("09:03:26"), "ben", SALES))
    ben.to(at("09:03:26"), "ready")
    ben.to(at("09:03:40"), "reserved", call="main:10")
    ben.to(at("09:03:45"), "busy", call="main:10")
    #  Ben asks Cleo, with the customer on hold for 50 s, then all three talk; Cleo's part is of no queue
    facts.append(part(at("09:05:00"), "ben", 30, 0, None, "main:10b"))
    facts.append(part(at("09:06:00"), "cleo", 80, 0, None, "main:10"))
    facts.append(part(at("09:06:45"), "ben", 130, 50, SALES, "main:10"))
    ben.to(at("09:06:45"), "wrap_up", call="main:10")
    ben.to(at("09:07:15"), "ready")
    #  2 hangs up after 3 s: short      3 after 5 s, which is not short any more      4 refused by Ben's phone, then gone
    facts.append(visit(at("09:08:00"), SALES, 3, "abandoned", "main:11"))
    facts.append(visit(at("09:08:30"), SALES, 5, "abandoned", "main:12"))
    facts.append(not_taken(at("09:09:05"), "ben", SALES, "rejected", 4))
    facts.append(not_taken(at("09:09:07"), "ben", SALES, "caller_gone", 2))  # no fault of the agent's
    facts.append(visit(at("09:09:00"), SALES, 25, "abandoned", "main:13"))
    #  5 joins at 09:14:59.999 and waits 20.000 s exactly: in time, and in this quarter, whatever the part's end
    edge = at("09:14:59") + timedelta(milliseconds=999)
    facts.append(visit(edge, SALES, 20, "answered", "main:14"))
    ben.to(edge + timedelta(seconds=20), "busy", call="main:14")
    facts.append(part(at("09:30:00"), "ben", 880.001, 0, SALES, "main:14"))
    ben.to(at("09:30:00"), "wrap_up", call="main:14")
    ben.to(at("09:31:00"), "not_ready", "Break")
    #  Anna dials out herself: of no queue
    facts.append(part(at("09:40:00"), "anna", 45, 0, None, "main:15"))
    anna.to(at("10:03:10"), "logged_off")
    ben.to(at("10:01:00"), "logged_off")
    return facts


def day_of(interval: Interval, day: int = 27) -> Range:
    return Range(first=at("00:00:00", day), last=at("00:00:00", day + 1), interval=interval, zone=LONDON)


@pytest.fixture(params=["from quarters", "from folded days", "from days of another zone"])
async def db(migrated: str, request: pytest.FixtureRequest) -> AsyncIterator[Db]:
    conn = await connect(migrated, name="test", jit="off")
    if request.param != "from quarters":
        await set_zone(conn, "Europe/London" if "folded" in request.param else "Asia/Kathmandu")
    await set_limits(conn, {"Lunch": timedelta(minutes=30), "Break": timedelta(minutes=20)})
    await journal(conn, the_day())
    while await roll_up(conn, 11):
        if request.param != "from quarters":
            while await fold(conn):
                pass
    assert (await conn.fetchval("SELECT count(*) FROM figures_queue_days") > 0) == (
        request.param != "from quarters"
    )
    yield conn
    await conn.close()


def counts(row: QueueFigures) -> dict[str, int]:
    names = (
        "offered answered answered_in_time abandoned short_abandoned timed_out overflowed left_otherwise lost"
    )
    return {name: value for name in names.split() if (value := getattr(row, name))}


async def test_queues_of_the_day(db: Db) -> None:
    sales, support = await of_queues(db, day_of(Interval.DAY), None)
    assert (sales.queue, sales.start) == (SALES, at("00:00:00"))
    # Joined on the 27th: main:1, 2, 10 (twice answered: 10 s and 35 s), 11, 12, 13, 14. main:0 is of the day before.
    assert counts(sales) == {
        "offered": 8,
        "answered": 3,
        "answered_in_time": 2,
        "abandoned": 3,
        "short_abandoned": 1,
        "timed_out": 1,
    }
    assert sales.service_level == pytest.approx(2 / (8 - 1), abs=1e-4)
    assert sales.average_speed_of_answer == pytest.approx((10 + 35 + 20) / 3, abs=1e-3)
    assert sales.average_abandon_wait == pytest.approx((12 + 5 + 25) / 3, abs=1e-3)
    assert sales.longest_wait == 60
    # Parts that ended on the 27th: main:0 (Ben), 10 (Anna), 10 (Ben), 14 (Ben); wrap-up 60, 30, 30, 60.
    assert sales.handled == 4
    assert (sales.talk, sales.hold, sales.wrap_up) == (240 + 100 + 130 + 880.001, 20 + 50, 60 + 30 + 30 + 60)
    assert sales.average_handle_time == pytest.approx((1350.001 + 70 + 180) / 4, abs=1e-3)
    assert (sales.transferred, sales.not_answered, sales.refused) == (1, 1, 1)

    assert counts(support) == {"offered": 1, "overflowed": 1}
    assert (support.service_level, support.average_speed_of_answer, support.average_handle_time) == (
        0,
        None,
        None,
    )

    (before,) = await of_queues(db, day_of(Interval.DAY, 26), [SALES])
    assert counts(before) == {"offered": 1, "answered": 1}
    assert (before.service_level, before.average_speed_of_answer, before.handled) == (0, 30, 0)


async def test_intervals_of_the_day(db: Db) -> None:
    quarters = await of_queues(db, day_of(Interval.QUARTER), [SALES])
    told = {(row.start.strftime("%H:%M"), row.start.fold): row for row in quarters}
    assert counts(told["09:00", 0]) == {
        "offered": 6,
        "answered": 3,
        "answered_in_time": 2,
        "abandoned": 2,
        "short_abandoned": 1,
    }
    assert told["09:00", 0].service_level == pytest.approx(2 / 5)
    assert (told["09:00", 0].handled, told["09:00", 0].wrap_up) == (2, 60)
    assert (told["09:30", 0].offered, told["09:30", 0].handled, told["09:30", 0].wrap_up) == (0, 1, 60)
    assert counts(told["01:30", 0]) == {"offered": 1, "abandoned": 1}
    assert counts(told["01:30", 1]) == {"offered": 1, "timed_out": 1}
    hours = {
        (row.start.strftime("%H:%M"), row.start.fold): row
        for row in await of_queues(db, day_of(Interval.HOUR), [SALES])
    }
    assert hours.keys() == {("00:00", 0), ("01:00", 0), ("01:00", 1), ("09:00", 0)}
    assert hours["01:00", 1].timed_out == 1
    assert hours["09:00", 0].handled == 3
    (total,) = await of_queues(db, day_of(Interval.TOTAL), [SALES])
    (of_day,) = await of_queues(db, day_of(Interval.DAY), [SALES])
    assert total == of_day
    for name in ("offered", "answered", "handled", "talk", "wrap_up"):
        assert sum(getattr(row, name) for row in quarters) == pytest.approx(getattr(total, name))


async def test_agents_of_the_day(db: Db) -> None:
    anna, ben, cleo = await of_agents(db, day_of(Interval.DAY), None, now=at("23:00:00"), unpaid={"Lunch"})
    assert (anna.agent, anna.handled, anna.handled_of_queues) == ("anna", 2, 1)
    assert (anna.talk, anna.hold, anna.wrap_up, anna.average_handle_time) == (145, 20, 30, 150)
    assert (anna.transferred, anna.not_answered, anna.refused) == (1, 0, 0)
    # 08:55 not ready, 09:00:00 ready, :35 offered, :40 talks, 09:02:40 wraps up, 09:03:10 Lunch until 10:03:10
    assert (anna.ready, anna.reserved, anna.busy, anna.wrapping_up) == (35, 5, 120, 30)
    assert anna.not_ready == 300 + 3600
    # Lunch from 09:03:10, over its half an hour at 09:33:10; no reason has no limit
    assert anna.reasons == {"none given": stay(1, 300), "Lunch": stay(1, 3600, 1, 1800)}
    assert (anna.over_limit, anna.over_limit_lasted) == (1, 1800)
    assert (anna.unpaid, anna.paid) == (3600, anna.logged_on - 3600)
    assert anna.logged_on == 35 + 5 + 120 + 30 + 3900
    assert anna.occupancy == pytest.approx((120 + 30) / (35 + 5 + 120 + 30), abs=1e-4)

    # Busy 240 + 180 + 880.001; ready 10 of after midnight, 191 + 14 + 464.999; reserved 15 + 5; wrap-up 60 + 30 + 60.
    assert (ben.handled, ben.handled_of_queues, ben.not_answered, ben.refused) == (4, 3, 1, 1)
    assert ben.talk == pytest.approx(240 + 30 + 130 + 880.001)
    assert (ben.hold, ben.wrap_up) == (50, 150)
    assert ben.average_handle_time == pytest.approx((240 + 180 + 880.001 + 150) / 3, abs=1e-3)
    assert ben.busy == pytest.approx(240 + 180 + 880.001)
    assert ben.ready == pytest.approx(
        10 + 191 + 14 + (at("09:14:59") - at("09:07:15")).total_seconds() + 20.999
    )
    assert (ben.reserved, ben.wrapping_up, ben.reasons) == (20, 150, {"Break": stay(1, 1800, 1, 600)})
    assert (ben.unpaid, ben.paid) == (0, ben.logged_on)

    assert (cleo.agent, cleo.handled, cleo.talk, cleo.logged_on, cleo.occupancy) == ("cleo", 1, 80, 0, None)

    quarters = await of_agents(db, day_of(Interval.QUARTER), ["ben"], now=at("23:00:00"))
    busy = {row.start.strftime("%H:%M"): row.busy for row in quarters if row.busy}
    assert busy == {"00:00": 240, "09:00": 180, "09:15": pytest.approx(880.001)}
    (before,) = await of_agents(db, day_of(Interval.DAY, 26), ["ben"], now=at("23:00:00"))
    assert (before.ready, before.handled) == (1800, 0)

    (team,) = await of_teams(
        db, day_of(Interval.DAY), {"sales": ["anna", "ben", "zoe"], "none": []}, now=at("23:00:00")
    )
    assert (team.team, team.agents, team.handled) == ("sales", 3, 6)
    assert team.logged_on == pytest.approx(anna.logged_on + ben.logged_on)
    assert team.reasons == {
        "none given": stay(1, 300),
        "Lunch": stay(1, 3600, 1, 1800),
        "Break": stay(1, 1800, 1, 600),
    }
    assert (team.over_limit, team.over_limit_lasted) == (2, 2400)
    assert team.occupancy == pytest.approx(
        (anna.busy + anna.wrapping_up + ben.busy + ben.wrapping_up)
        / sum(a.busy + a.wrapping_up + a.ready + a.reserved for a in (anna, ben)),
        abs=1e-4,
    )


def stay(times: int, lasted: float, over_limit: int = 0, over_limit_lasted: float = 0) -> Stay:
    return Stay(times=times, lasted=lasted, over_limit=over_limit, over_limit_lasted=over_limit_lasted)


async def test_adherence_by_interval_is_cut_where_the_limit_and_the_interval_end(db: Db) -> None:
    quarters = await of_agents(db, day_of(Interval.QUARTER), ["anna", "ben"], now=at("23:00:00"))
    told = {
        (row.agent, row.start.strftime("%H:%M")): row.reasons[reason]
        for row in quarters
        for reason in row.reasons
        if reason != "none given"
    }
    assert told == {
        ("anna", "09:00"): stay(1, 710),  # from 09:03:10
        ("anna", "09:15"): stay(0, 900),
        ("anna", "09:30"): stay(0, 900, 1, 710),  # over at 09:33:10
        ("anna", "09:45"): stay(0, 900, 0, 900),
        ("anna", "10:00"): stay(0, 190, 0, 190),
        ("ben", "09:30"): stay(1, 840),  # from 09:31
        ("ben", "09:45"): stay(0, 900, 1, 540),  # over at 09:51
        ("ben", "10:00"): stay(0, 60, 0, 60),
    }
    first, *_ = csv_of(quarters, AgentFigures).splitlines()
    assert (
        "not_ready Lunch,not_ready Lunch times,not_ready Lunch over_limit,not_ready Lunch over_limit_lasted"
        in first
    )


async def test_a_break_goes_on_over_a_time_of_which_nobody_knows(db: Db) -> None:
    """Twenty minutes from 12:00; the PBX is away from 12:15 to 12:25, and again at 12:30; she is back at 12:40."""
    facts: list[Fact] = []
    dora = Shift("dora", facts)
    dora.to(at("12:00:00"), "not_ready", "Break")
    dora.to(at("12:15:00"), "unknown", "the PBX main cannot be asked now")
    dora.to(at("12:25:00"), "not_ready", "Break", since=at("12:00:00"))
    dora.to(at("12:30:00"), "unknown", "the PBX main cannot be asked now")
    dora.to(at("12:31:00"), "not_ready", "Break", since=at("12:00:00"))
    await journal(db, facts, after=1000)
    while await roll_up(db, 1):
        pass
    for now, told in (("12:31:00", stay(1, 1200, 1, 300)), ("12:40:00", stay(1, 1740, 1, 840))):
        (day,) = await of_agents(db, day_of(Interval.DAY), ["dora"], now=at(now))
        assert day.reasons == {"Break": told}
    quarters = await of_agents(db, day_of(Interval.QUARTER), ["dora"], now=at("12:40:00"))
    assert [row.reasons.get("Break") for row in quarters] == [
        stay(1, 900),
        stay(0, 300, 1, 300),  # over when nobody knew, counted when it was known again
        stay(0, 540, 0, 540),
    ]
    dora.to(at("12:40:00"), "ready")
    await journal(db, facts[-1:], after=2000)
    await roll_up(db)
    assert await of_agents(db, day_of(Interval.QUARTER), ["dora"], now=at("12:40:00")) == quarters


async def test_what_is_going_on_counts_as_far_as_it_has_lasted(db: Db) -> None:
    facts: list[Fact] = []
    dora = Shift("dora", facts)
    dora.to(at("11:50:00"), "ready")
    dora.to(at("12:05:00"), "busy", call="main:30")
    await journal(db, facts, after=1000)
    await roll_up(db)
    hours = await of_agents(db, day_of(Interval.HOUR), ["dora"], now=at("12:20:00"))
    assert [(row.ready, row.busy, row.logged_on) for row in hours] == [(600, 0, 600), (300, 900, 1200)]
    (day,) = await of_agents(db, day_of(Interval.DAY), ["dora"], now=at("12:20:00"))
    assert (day.ready, day.busy, day.occupancy) == (900, 900, 0.5)

    facts.clear()
    dora.to(at("12:20:00"), "not_ready", "Break")
    await journal(db, facts, after=2000)
    await roll_up(db)
    for now, told in (
        ("12:39:59", stay(1, 1199)),
        ("12:40:00", stay(1, 1200)),
        ("12:41:00", stay(1, 1260, 1, 60)),
        ("12:50:00", stay(1, 1800, 1, 600)),
    ):
        (day,) = await of_agents(db, day_of(Interval.DAY), ["dora"], now=at(now))
        assert day.reasons == {"Break": told}


async def test_other_work_of_the_day(migrated: str) -> None:
    def item(ref: str, created: str, state: str, since: str, **more: Any) -> WorkView:
        given = {"kind": "email", "skill": SALES, "title": ref, "source": "mail", "data": {}, **more}
        return WorkView(id=ref, ref=ref, created=at(created), since=at(since), state=state, **given)

    items = [
        item("in-time", "09:00:00", "done", "09:30:00", due=at("10:00:00"), begun=at("09:10:00"), worked=600.0),
        item("no-due", "09:05:00", "done", "11:05:00", begun=at("10:05:00"), worked=1200.0),
        item("late", "09:10:00", "done", "10:10:00", due=at("10:09:59"), begun=at("10:00:00"), worked=300.0),
        item("overdue", "09:20:00", "waiting", "09:20:00", due=at("09:40:00")),
        item("not-due", "09:40:00", "accepted", "09:50:00", due=at("18:00:00"), begun=at("09:50:00")),
        item("taken-back", "09:41:00", "cancelled", "09:42:00", due=at("09:41:30")),
        item("unreached", "09:45:00", "failed", "10:00:00", kind="callback", due=at("12:00:00"),
             begun=at("09:46:00"), worked=40.0),
        item("elsewhere", "09:00:00", "waiting", "09:00:00", skill=SUPPORT),
    ]  # fmt: skip
    conn = await connect(migrated, name="test", jit="off")
    try:
        for one in items:
            await work_store.add(conn, one)
        callback, email = await of_work(conn, day_of(Interval.DAY), [SALES], now=at("12:00:00"))
        assert (email.queue, email.kind, email.start) == (SALES, "email", at("00:00:00"))
        assert (email.brought, email.open, email.overdue) == (6, 2, 1)
        assert (email.done, email.done_in_time, email.failed, email.cancelled) == (3, 1, 0, 1)
        # one of those with a due time that are done or past it: in-time, late, overdue
        assert email.service_level == pytest.approx(1 / 3, abs=1e-4)
        assert email.average_time_to_begin == (600 + 3600 + 3000 + 600) / 4
        assert email.average_time_to_end == (1800 + 7200 + 3600) / 3
        assert email.average_handle_time == (600 + 1200 + 300) / 3
        assert email.oldest_open == 2 * 3600 + 40 * 60
        assert (callback.kind, callback.failed, callback.service_level) == ("callback", 1, 0)
        assert (callback.average_handle_time, callback.average_time_to_end) == (40, None)
        quarters = await of_work(conn, day_of(Interval.QUARTER), None, now=at("12:00:00"))
        assert [(row.start.strftime("%H:%M"), row.queue, row.kind, row.brought) for row in quarters] == [
            ("09:00", SALES, "email", 3),
            ("09:00", SUPPORT, "email", 1),
            ("09:15", SALES, "email", 1),
            ("09:30", SALES, "email", 2),
            ("09:45", SALES, "callback", 1),
        ]
        assert (
            csv_of(quarters, WorkFigures)
            .splitlines()[1]
            .startswith("2024-10-27T09:00:00Z,main:sales,email,3,0")
        )
        assert lines_of(quarters, WorkFigures)[0].split()[:4] == ["from", "queue", "kind", "brought"]
    finally:
        await conn.close()


async def test_other_zones_see_the_same_calls_in_their_own_days(db: Db) -> None:
    kathmandu = ZoneInfo("Asia/Kathmandu")  # 5:45 ahead of UTC: their hours begin at a quarter past ours
    first = datetime(2024, 10, 27, tzinfo=kathmandu)
    range = Range(first=first, last=first + timedelta(days=1), interval=Interval.HOUR, zone=kathmandu)
    rows = await of_queues(db, range, [SALES])
    assert {row.start.minute for row in rows} == {0}
    nine = next(row for row in rows if row.start.astimezone(UTC) == datetime(2024, 10, 27, 8, 15, tzinfo=UTC))
    assert nine.start.hour == 14
    assert sum(row.offered for row in rows) == 9  # the visit of 23:59:40 is in their 27th


async def test_a_report_too_long_is_refused(db: Db) -> None:
    with pytest.raises(TooLarge, match="shorter"):
        await of_queues(db, day_of(Interval.QUARTER), None, most=2)
    with pytest.raises(ValueError, match="quarter"):
        Range(first=at("00:00:01"), last=at("01:00:00"), interval=Interval.DAY, zone=LONDON)


async def test_a_report_that_takes_too_long_is_refused_with_what_to_do(db: Db, migrated: str) -> None:
    await db.execute("SET statement_timeout = 200")
    blocker = await connect(migrated, name="test")
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE figures_queues IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(TooLarge, match="too long"):
                await of_queues(db, day_of(Interval.QUARTER), None)
    finally:
        await blocker.close()
