"""Dry runs: what they rest on, what comes of goals, more agents and thin history; checked against plain reckoning."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from cti.people import Agent, QueueAssignment
from dialer.attempts import LOST, Attempt, CountsAs, Told
from dialer.calling.claims import Claims
from dialer.calling.outcomes import alive
from dialer.campaigns import Record, Schedule
from dialer.compliance import judge
from dialer.forecasting.courses import Rules, course_of
from dialer.forecasting.dry_run import (
    Impossible,
    between,
    plan,
)
from dialer.forecasting.dry_run_contacts import contacts_of
from dialer.forecasting.question import (
    Assignment,
    Band,
    Crew,
    Dropped,
    History,
    Limit,
    Limited,
    Pool,
    Question,
    Rival,
    Shift,
)
from dialer.forecasting.sharing import shared
from dialer.forecasting.worked_through import (
    USUAL_ANSWER,
    Between,
    Rates,
    Rested,
    Speed,
    Way,
    Work,
    open_hours,
    rates_of,
)
from dialer.law import do_not_call
from dialer.law.consents import Word, record
from dialer.law.known import known_for
from dialer.management.settings import Campaign, CampaignMode, CampaignSettings, Retried, RetryRule
from dialer.simulation import Simulation, Traffic
from routing.hours import Span
from tests.law_desk import GB, NOON, law_desk

MONDAY = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)  # nine o'clock in Berlin
OFFICE = Shift(days=(0, 1, 2, 3, 4), start=540, end=1020, agents=4)
KNOWN = History(
    tried=(0,) * 9 + (500,) * 8 + (0,) * 7,
    answered=(0,) * 9 + (150,) * 8 + (0,) * 7,
    live=1200,
    to_answer=9.0,
    to_answer_of=1200,
    talk=60.0,
    talk_of=900,
    wrap=15.0,
    wrap_of=900,
)


def question(**more: Any) -> Question:
    values: dict[str, Any] = {
        "mode": "progressive",
        "now": MONDAY,
        "zone": "Europe/Berlin",
        "rota": (OFFICE,),
        "contacts": (1000,),
        "history": KNOWN,
        "seconds": 0.0,
        "variants": False,
    }
    values |= more
    contacts = values.pop("contacts")
    rules = Rules(settings=called_again(values.get("max_attempts", 1), values.pop("retry_minutes", (180,))))
    return Question(**({"pools": (Pool(ready=contacts),), "rules": (rules,)} | values))


def called_again(most: int, minutes: tuple[int, ...]) -> str:
    """Settings by which whoever is not reached is called again after so long, however the attempt ended."""
    rule = RetryRule(after_minutes=minutes, at_most=30)
    kinds: tuple[Retried, ...] = (
        "no_answer",
        "busy",
        "congestion",
        "invalid_number",
        "rejected",
        "cancelled",
    )
    settings = CampaignSettings(max_attempts=most, retries=dict.fromkeys(kinds, rule))
    return settings.model_dump_json(exclude_defaults=True)


def worked(asked: Question, rates: Rates, calls: float, more: int = 0, one_each: float = 0.0) -> Way:
    """The list worked through at so many calls an agent an hour."""
    return Work(asked).through(rates, 1.0, Speed(paced=lambda _: calls, one_each=one_each), more)


def flat(rate: float) -> Rates:
    return Rates((rate,) * 24, Between(mean=rate, low=rate, high=rate))


# ------------------------------------------------------------------------------------------ what is known


def test_where_nothing_is_known_the_usual_is_assumed_and_said_to_be_thin() -> None:
    rates = rates_of(History())
    assert rates.overall.mean == USUAL_ANSWER
    assert rates.overall.high - rates.overall.low > 0.2
    answer = plan(question(history=History(), contacts=(10,), office_hours=True))
    said = "at work: 4 agents Mon to Fri 09:00-17:00 (Europe/Berlin), taken for granted: the campaign has no schedule"
    assert any(line.startswith(said) for line in answer.basis)
    assert [("thin" in line) for line in answer.basis[:1]] == [True]
    assert any("talk 90 s, from 0 calls (thin" in line for line in answer.basis)


def test_what_is_known_outweighs_the_usual_by_the_hour() -> None:
    hours = list(KNOWN.answered)
    hours[16] = 350
    rates = rates_of(msgspec.structs.replace(KNOWN, answered=tuple(hours)))
    assert rates.by_hour[16] == pytest.approx(0.7, abs=0.04)
    assert rates.by_hour[10] == pytest.approx(0.3, abs=0.02)
    assert rates.by_hour[3] == pytest.approx(rates.overall.mean)
    assert rates.overall.high - rates.overall.low < 0.12


def test_the_interval_of_runs_is_students() -> None:
    found = between([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert found.high - found.mean == pytest.approx(4.3 * 0.1 / math.sqrt(3))
    assert between([0.1, 0.1]).high == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------ the list, worked through


def test_a_list_is_through_when_the_calls_of_the_rota_are_enough() -> None:
    """4 agents with 50 calls an hour each: 1000 contacts called once take 5 hours."""
    way = worked(question(), flat(0.25), 50.0)
    assert way.once == way.through == MONDAY + timedelta(hours=5)
    assert way.reached == pytest.approx(0.25 * (1200 + 17) / (1200 + 20))


def test_nights_and_weekends_are_not_worked() -> None:
    way = worked(question(now=MONDAY + timedelta(days=4)), flat(0.25), 25.0)  # a Friday
    assert way.through == MONDAY + timedelta(days=7, hours=2)


def test_who_is_not_reached_is_called_again_after_the_pause_and_at_most_so_often() -> None:
    asked = question(max_attempts=3, retry_minutes=(60, 1440), contacts=(100,))
    way = worked(asked, flat(0.5), 1000.0)
    assert way.once is not None
    assert way.once < MONDAY + timedelta(minutes=10)
    assert way.through is not None
    assert way.through >= MONDAY + timedelta(minutes=60 + 1440)
    share = 0.5 * (1200 + 17) / (1200 + 20)
    assert way.reached == pytest.approx(1 - (1 - share) ** 3, abs=0.01)


def test_the_clocks_change_within_the_rota() -> None:
    way = worked(question(now=datetime(2026, 3, 27, 16, 0, tzinfo=UTC)), flat(0.25), 50.0)
    assert way.through == datetime(2026, 3, 30, 7, 0, tzinfo=UTC) + timedelta(
        hours=5
    )  # nine is seven in UTC by then


# ------------------------------------------------------------------------------------------ who may be called, and when


def at(hour: float, day: int = 0) -> int:
    """Seconds since 1970 of that hour of the week's day in Berlin."""
    return int((MONDAY + timedelta(days=day, hours=hour - 9)).timestamp())


def test_contacts_wait_until_their_zones_are_open() -> None:
    """200 calls an hour; 500 may be called at any time, 500 from three o'clock on: they take two days."""
    evening = tuple((at(15, day), at(22, day)) for day in range(7))
    asked = question(times=(None, evening), pools=(Pool(ready=(500,)), Pool(ready=(500,), open=(1,))))
    way = worked(asked, flat(0.25), 50.0)
    assert way.once == way.through == MONDAY + timedelta(days=1, hours=6.5)
    hours = {hour.begin.astimezone(ZoneInfo("Europe/Berlin")): hour.share for hour in open_hours(asked)}
    assert [share for hour, share in hours.items() if hour.day == 2] == [0.5] * 6 + [1.0] * 2
    half = question(times=(((at(9.5), at(10.25)),),), contacts=(1000,))
    assert [hour.share for hour in open_hours(half)][:3] == [0.5, 0.25, 0.0]
    assert worked(half, flat(0.25), 50.0).through is None


def test_who_is_due_later_is_not_called_before() -> None:
    asked = question(pools=(Pool(ready=(100,), due=((at(14), 0, 100),)),))
    way = worked(asked, flat(0.25), 50.0)
    assert way.once == MONDAY + timedelta(hours=5.5)


# ------------------------------------------------------------------------------------------ whose lists, which numbers


def test_an_assigned_list_takes_only_those_whom_it_is_for_and_one_for_one() -> None:
    """4 agents; 300 contacts are for one of them, who makes 25 calls an hour one for one, 600 for everybody at 50."""
    asked = question(
        pools=(Pool(ready=(300,), whose=0, priority=9), Pool(ready=(600,))),
        assignments=(Assignment(told="anna", agents=1),),
        crews=(Crew(share=0.25, may=(0,)), Crew(share=0.75)),
    )
    way = worked(asked, flat(0.25), 50.0, one_each=25.0)
    assert way.through_of == {0: MONDAY + timedelta(days=1, hours=4), -1: MONDAY + timedelta(hours=4)}
    assert way.through == way.through_of[0]
    assert way.one_for_one == pytest.approx(12 / (12 + 12))
    # Three times as many agents, three of whom may call it.
    assert worked(asked, flat(0.25), 50.0, 8, one_each=25.0).through == MONDAY + timedelta(hours=4)
    # Were it for everybody, it would be through with the others.
    free = question(pools=(Pool(ready=(900,)),))
    assert worked(free, flat(0.25), 50.0).through == MONDAY + timedelta(hours=4.5)


def test_who_may_call_few_lists_is_left_to_them() -> None:
    """Two lists for overlapping crews: who may call only one of them calls that one."""
    both = question(
        pools=(Pool(ready=(100,), whose=0), Pool(ready=(100,), whose=1)),
        assignments=(Assignment(told="ben", agents=2), Assignment(told="anna", agents=4)),
        crews=(Crew(share=0.5, may=(0, 1)), Crew(share=0.5, may=(1,))),
    )
    way = worked(both, flat(0.25), 0.0, one_each=25.0)
    assert way.through_of == {0: MONDAY + timedelta(hours=2), 1: MONDAY + timedelta(hours=2)}


def test_a_quota_ends_a_list_and_the_others_go_on() -> None:
    """200 calls an hour. The first list may have 300 attempts in all, of which 50 were made before."""
    limited = Limited(name="May", limits=(Limit(counts="attempts", per="total", most=300, so_far=50),))
    pools = Pool(ready=(1000,), priority=5, limited=0), Pool(ready=(400,))
    way = worked(question(pools=pools, limited=(limited,)), flat(0.25), 50.0)
    assert way.rested == {
        0: Rested(first=MONDAY + timedelta(hours=2), days=1, for_good=True, left=pytest.approx(750))
    }
    assert way.once == way.through == MONDAY + timedelta(hours=3.25)
    told = plan(question(pools=pools, limited=(limited,)))
    assert [(one.for_good, one.contacts_left) for one in told.quotas] == [(True, 750)]
    assert any(line.startswith("list May: quota reached (300 attempts) Mon 02 Mar ") for line in told.says)


def test_a_quota_of_a_day_begins_anew_at_the_houses_midnight() -> None:
    """Talks: a quarter of the calls, but for machines; 100 of today's 150 were had before."""
    live = (1200 + 17) / (1200 + 20)
    daily = Limit(counts="connected", per="day", most=150, so_far=100)
    asked = question(
        contacts=(1000,),
        limited=(Limited(name="May", limits=(daily,)),),
        pools=(Pool(ready=(1000,), limited=0),),
        house_zone="Europe/Berlin",
    )
    way = worked(asked, flat(0.25), 50.0)
    first, second, last = (150 - 100) / 0.25 / live, 150 / 0.25 / live, 0.0
    last = 1000 - first - second
    assert way.rested[0].days == 2
    assert not way.rested[0].for_good
    assert way.rested[0].first > MONDAY + timedelta(hours=1)
    assert way.through == MONDAY + timedelta(days=2, hours=last / 200)
    # Of half the talks somebody says so: twice as many calls.
    sold = msgspec.structs.replace(KNOWN, said=(("sale", 600),))
    limit = Limit(counts="disposition", disposition="sale", per="total", most=25)
    of_sales = msgspec.structs.replace(
        asked, history=sold, limited=(Limited(name="May", limits=(limit, daily)),)
    )
    way = worked(of_sales, flat(0.25), 50.0)
    assert way.rested[0].left == pytest.approx(1000 - 25 / 0.25 / live / 0.5, rel=0.03)
    told = plan(of_sales)
    assert any(
        line.startswith("list May: quota reached (25 times sale, 150 talks a day)") for line in told.says
    )
    assert any("of the talks end with sale, from 1200 talks" in line for line in told.basis)


def test_agents_are_shared_with_campaigns_as_they_are_lent() -> None:
    """4 agents at 50 calls an hour. Another campaign's 100 contacts take one call each."""
    other = Rival(name="Autumn", priority=3, rank=0, contacts=100, attempts_left=1.0)

    def through(rival: Rival, *crews: Crew, elsewhere: tuple[Band, ...] = ()) -> tuple[Way, Question]:
        asked = question(people=4, crews=crews, rivals=(rival,), elsewhere=elsewhere, rank=0)
        return worked(asked, flat(0.25), 50.0), asked

    way, _ = through(other, Crew(share=1.0, rivals=(0,)))
    assert way.rival_through == {0: MONDAY + timedelta(hours=1)}
    assert way.through == MONDAY + timedelta(hours=5.5)
    # One that comes first has them all, until it is through.
    first = msgspec.structs.replace(other, rank=1)
    way, asked = through(first, Crew(share=1.0, rivals=(0,)))
    assert way.rival_through == {0: MONDAY + timedelta(hours=1)}
    assert way.through == MONDAY + timedelta(hours=6)
    # It has two of its own and its share is even: three each.
    way, _ = through(other, Crew(share=1.0, rivals=(0,)), elsewhere=(Band(agents=2, rivals=(0,)),))
    assert way.through == MONDAY + timedelta(hours=1) + timedelta(hours=(1000 - 150) / 200)
    # Half of them work for this one alone: the other has the rest, also while it comes first.
    halves = Crew(share=0.5), Crew(share=0.5, rivals=(0,))
    assert through(other, *halves)[0].through == through(first, *halves)[0].through
    # It runs from noon on.
    noon = (at(12), at(17))
    later = msgspec.structs.replace(first, times=(noon,))
    assert through(later, Crew(share=1.0, rivals=(0,)))[0].through == MONDAY + timedelta(hours=6)
    told = plan(asked)
    assert [(one.campaign, one.first, one.agents) for one in told.sharing] == [("Autumn", True, 4.0)]
    assert told.lent < 1.0
    assert any(
        line.startswith("Autumn (priority 3) comes first: 4 agents in its hours") for line in told.says
    )


def test_who_shares_agents_is_who_runs_or_will_and_comes_before() -> None:
    mine, theirs, both = "main:sales", "main:support", "main:after"

    def agent(login: str, *queues: str) -> Agent:
        return Agent(login=login, name=login, queues=tuple(QueueAssignment(queue=one) for one in queues))

    agents = [
        agent("anna", mine, theirs),
        agent("ben", mine),
        agent("cleo", theirs, both),
        agent("dan", both),
    ]

    def campaign(id: int, queue: str, mode: CampaignMode = "predictive", **more: Any) -> Record:
        values: dict[str, Any] = {"state": "running", "priority": 1} | more
        schedule = values.pop("schedule", None)
        found = Campaign(
            id=id, name=f"c{id}", mode=mode, profile="GB", version=1, settings=CampaignSettings(queue=queue), **values
        )  # fmt: skip
        return Record(
            campaign=found, created=MONDAY, created_by="sue", changed=MONDAY, changed_by="sue", since=MONDAY, why="",
            schedule=schedule,
        )  # fmt: skip

    office = Schedule(
        zone="Europe/Berlin", days=frozenset({0}), spans=(Span(start=600, end=660),), last=MONDAY.date()
    )
    records = [
        campaign(1, mine),
        campaign(2, theirs, priority=2, state="paused", schedule=office),
        campaign(3, both),
        campaign(4, mine, "preview", priority=9),
        campaign(5, mine, state="paused"),
        campaign(6, mine, "agentless"),
        campaign(7, "main:else"),
    ]
    found = shared(records[0].campaign, "predictive", agents[:2], agents, records, MONDAY)
    assert [one.campaign.id for one in found.records] == [2, 3]
    assert found.times == (((at(10), at(11)),), None)
    assert (found.ranks, found.rank) == ((1, 0), 0)
    assert found.of_agent == {"anna": (0,), "cleo": (0, 1), "dan": (1,)}
    assert found.elsewhere == (Band(agents=1, rivals=(0, 1)), Band(agents=1, rivals=(1,)))
    # Calls come before what agents dial themselves; of that offers come by priority.
    by_hand = shared(records[0].campaign, "preview", agents[:2], agents, records, MONDAY)
    assert [one.campaign.id for one in by_hand.records] == [2, 3, 4]
    assert min(by_hand.ranks) > by_hand.rank
    assert shared(records[5].campaign, "agentless", agents[:2], agents, records, MONDAY).records == ()
    named = found.rivals({2: (40, 1.5)}, lambda record: record.campaign.id == 3)
    assert [(one.name, one.contacts, one.attempts_left) for one in named] == [
        ("another campaign", 40, 4.5),
        ("c3", 0, 6.0),
    ]


def test_lists_of_high_priority_come_first() -> None:
    asked = question(
        pools=(Pool(ready=(400,)), Pool(ready=(200,), priority=5, open=(1,))),
        times=(None, ((at(10), at(22)),)),
    )
    way = worked(asked, flat(0.25), 50.0)
    # 200 from nine to ten, then the other list from ten to eleven, then the rest.
    assert way.through == MONDAY + timedelta(hours=3)


def test_a_plan_says_which_lists_are_for_whom_and_loses_nobody_on_them() -> None:
    crews = (Crew(share=0.25, may=(0,)), Crew(share=0.75))
    anna = (Assignment(told="anna", agents=1),)
    rota = (Shift(days=(0, 1, 2, 3, 4), start=540, end=1020, agents=12),)
    only = plan(
        question(mode="power", rota=rota, pools=(Pool(ready=(300,), whose=0),), assignments=anna, crews=crews)
    )
    assert only.expected[0].abandonment.mean == 0.0
    assert [(one.told, one.agents, one.contacts) for one in only.assigned] == [("anna", 1, 300)]
    assert any(
        line.startswith("300 contacts for anna (1 of the campaign's people), one for one: ")
        for line in only.says
    )
    assert "9 of the agents may call none of its lists" in only.says
    pools = Pool(ready=(300,), whose=0), Pool(ready=(3000,))
    mixed = plan(question(mode="power", rota=rota, pools=pools, assignments=anna, crews=crews))
    free = plan(question(mode="power", rota=rota, contacts=(3300,)))
    assert mixed.expected[0].calls_per_hour < free.expected[0].calls_per_hour
    assert mixed.expected[0].through is not None
    assert free.expected[0].through is not None
    assert mixed.expected[0].through > free.expected[0].through


def test_another_number_is_next_and_soon_until_the_round_is_complete() -> None:
    """As the usual rule for no answer has it: the second number after ten minutes, then a day."""
    always = {"no_answer": 10**9}
    course = course_of(Rules(settings="{}", numbers=2), always)
    first, second, third = course.steps[0][0], course.steps[1][1], course.steps[2][0]
    assert [(way.minutes, way.place, round(way.share, 2)) for way in first] == [(10, 1, 1.0)]
    assert [(way.minutes, way.place, round(way.share, 2)) for way in second] == [(1440, 0, 1.0)]
    assert [(way.minutes, way.place) for way in third] == [(10, 1)]
    assert course.most == 6
    assert course.steps[5] == ((), ())


def test_a_course_keeps_the_attempts_that_the_law_allows() -> None:
    settings = called_again(4, (10, 180, 1440))

    def waits(**law: Any) -> list[int]:
        course = course_of(Rules(settings=settings, **law), {"no_answer": 10**9}, lives=20)
        return [way.minutes for step in course.steps for ways in step for way in ways]

    assert waits() == [10, 180, 1440]
    assert waits(per_number=((24, 2),)) == [10, 1430, 1440]
    assert waits(per_number=((24, 1), (720, 3))) == [1440, 1440, 43200 - 2 * 1440]
    # A person is counted over all numbers, if it is known who they are.
    course = course_of(
        Rules(settings="{}", numbers=2, per_number=((24, 1),), per_person=((24, 1),), person=True),
        {"no_answer": 10**9},
    )
    assert [way.minutes for way in course.steps[0][0]] == [1440]


def test_outcomes_of_the_history_decide_what_follows() -> None:
    """Half are busy (the same number again), half no number (never again): half are gone after each attempt."""
    settings = CampaignSettings().model_dump_json(exclude_defaults=True)
    course = course_of(Rules(settings=settings, numbers=1), {"busy": 10**9, "invalid_number": 10**9})
    ((way,),) = course.steps[0]
    assert (way.minutes, way.place) == (15, 0)
    assert way.share == pytest.approx(0.5, abs=0.04)
    both = course_of(Rules(settings=settings, numbers=2), {"busy": 10**9, "invalid_number": 10**9})
    assert sorted((way.minutes, way.place) for way in both.steps[0][0]) == [(10, 1), (15, 0)]
    # The second number may be refused by law: then the contact ends there.
    asked = question(rules=(Rules(settings=settings, numbers=2),), pools=(Pool(ready=(100,), open=(0, -1)),))
    way_on = worked(asked, flat(0.25), 1000.0)
    assert way_on.through is not None


def test_later_attempts_are_answered_as_the_history_says() -> None:
    history = msgspec.structs.replace(KNOWN, tried_of=(2000, 2000), answered_of=(900, 300))
    rates = rates_of(history)
    assert rates.of_attempt(0) == pytest.approx(1.5, abs=0.05)
    assert rates.of_attempt(1) == rates.of_attempt(7) == pytest.approx(0.5, abs=0.05)
    asked = question(history=history, contacts=(0, 1000), max_attempts=2)
    assert worked(asked, rates, 50.0).reached == pytest.approx(0.15 * 0.98, abs=0.02)


def test_zones_that_the_rota_never_meets_drop_out_and_it_says_so() -> None:
    times = None, ((at(3), at(5)),)
    never = Pool(ready=(30,), open=(1,))
    told = plan(
        question(
            times=times,
            pools=(Pool(ready=(70,)), never),
            dropped=(Dropped(code="done", says="was reached", count=5),),
        )
    )
    assert told.callable == 70
    assert [(one.code, one.count) for one in told.dropped] == [("done", 5), ("never_open", 30)]
    assert "35 are not called: 5 was reached; 30 calling hours there and the rota never meet" in told.basis
    assert told.expected[0].through is not None
    with pytest.raises(Impossible, match="never meet"):
        plan(question(times=times, pools=(never,)))


async def nobody_asks(*_: Any) -> Any:
    raise AssertionError


async def test_who_drops_out_is_whom_compliance_refuses_one_by_one(tables: str) -> None:
    """500 contacts of all kinds, counted by one query, and each number of each asked of the law by itself."""
    chance = random.Random(11)
    many = 500
    async with law_desk(tables) as desk:
        of = await desk.campaign(company="acme")
        groups = [
            await desk.pool.fetchval(
                "INSERT INTO zone_groups (country, zones) VALUES ($1, $2) RETURNING id", country, zones
            )
            for country, zones in (
                ("GB", ["Europe/London"]),
                ("GB", []),
                ("JE", ["Europe/London"]),
                ("US", ["America/Chicago"]),
            )
        ]
        lists = [
            await desk.pool.fetchval(
                """INSERT INTO call_lists (name, campaign_id, active, settings, created_by, changed_by)
                   VALUES ($1, $2, $3, $4, 'sara', 'sara') RETURNING id""",
                *(name, of, name != "off", settings),
            )
            for name, settings in (
                ("long", "{}"),
                ("short", '{"max_attempts": 2}'),
                ("off", "{}"),
                ("ours", '{"assigned": {"agents": ["anna"]}}'),
                ("theirs", '{"assigned": {"teams": ["nowhere"]}}'),
            )
        ]
        await desk.pool.executemany(
            """INSERT INTO list_contacts (list_id, e164, person, zone_group, state, why, attempts, not_before, turn,
                                         other_numbers, dead_numbers)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",
            [
                (
                    chance.choice(lists), f"+44207946{n:04}", chance.choice(("", f"p{n % 90}")), chance.choice(groups),
                    chance.choice(("open", "open", "open", "open", "done")), "",
                    chance.choice((0, 0, 1, 3)), NOON + timedelta(hours=chance.choice((-5, -5, 7))), chance.randrange(3),
                    chance.choice(([], [f"+44207946{n + 77:04}"], [f"+1312555{n:04}", f"+44207946{n:04}", "+88213123456"])),
                    chance.choice(([], [], [f"+44207946{n:04}"])),
                )
                for n in range(many)
            ],
        )  # fmt: skip
        await desk.register("".join(f"020 7946 {n:04}\n" for n in range(0, many, 7)))
        for n in range(0, many, 11):
            scope = chance.choice((("everywhere", ""), ("company", "acme"), ("company", "other")))
            await do_not_call.add(
                desk.pool, number=f"+44207946{n:04}", scope=scope[0], company=scope[1], by="anna"
            )
        words = [
            Word(
                number=f"+44207946{n:04}" if chance.random() < 0.6 else None, person=f"p{n % 90}" if n % 3 else "",
                given=chance.random() < 0.6, source="form", purpose="marketing",
                at=datetime(2025, 1, 1 + chance.randrange(28), tzinfo=UTC),
            )
            for n in range(0, many, 5)
        ]  # fmt: skip
        # What was blocked before is looked at again when there is news of do-not-call lists or consents.
        await record(desk.pool, [word for word in words if word.number or word.person], by="anna")
        await desk.pool.execute(
            "UPDATE list_contacts SET state = 'blocked', why = 'asked to' WHERE id % 9 = 0 AND state = 'open'"
        )
        profile = replace(GB, countries=("GB", "JE"))
        anna, ben = (Agent(login=login, name=login) for login in ("anna", "ben"))
        campaign = Campaign(
            id=of, name="c", mode="predictive", state="draft", profile="GB", priority=0, version=1,
            settings=CampaignSettings(max_attempts=3),
        )  # fmt: skip
        asked = await contacts_of(desk.pool, campaign, "predictive", profile, (anna, ben), NOON)
        rows = await desk.pool.fetch(
            """SELECT c.*, g.country, g.region, g.zones, l.name AS list, 1 AS list_version, l.settings
                 FROM list_contacts c JOIN zone_groups g ON g.id = c.zone_group JOIN call_lists l ON l.id = c.list_id
                WHERE l.active"""
        )
        claims = Claims(lambda: desk.pool, check_all=nobody_asks, open_groups=nobody_asks, clock=lambda: 0.0)
        candidates = [claims.next_number(row) for row in rows]
        known = await known_for(desk.pool, candidates, of, NOON)
        # What a claim would do when it is the turn of each of the others' numbers.
        numbers = [
            alive(row["e164"], row["other_numbers"], row["dead_numbers"]) or [row["e164"]] for row in rows
        ]
        turns = [
            [claims.next_number({**row, "turn": turn}) for turn in range(len(all_of))]
            for row, all_of in zip(rows, numbers, strict=True)
        ]
        flat_turns = [replace(one, contact=n) for n, one in enumerate(one for each in turns for one in each)]
        known_then = await known_for(desk.pool, flat_turns, of, NOON)

    def refused(candidate: Any, known: Any) -> list[str]:
        steps = judge(profile, candidate, known, NOON).steps
        rules = [step.rule for step in steps if not step.ok]
        if not candidate.zones:
            return ["no_zone"]
        return [rule for rule in rules if rule not in ("calling_hours", "holidays")]

    verdicts = iter([bool(refused(one, known_then[one.contact])) for one in flat_turns])
    expected: Counter[str] = Counter()
    courses: Counter[Any] = Counter()
    for row, one, each in zip(rows, candidates, turns, strict=True):
        no = refused(one, known[one.contact])
        barred = tuple(next(verdicts) for _ in each)
        if row["state"] in ("done", "blocked"):
            expected[row["state"]] += 1
        elif row["attempts"] >= (2 if row["list"] == "short" else 3):
            expected["attempts_used_up"] += 1
        elif not row["zones"] or no == ["no_zone"]:
            expected["no_zone"] += 1
        elif no:
            expected[f"law:{no[0]}"] += 1
        elif row["list"] == "theirs":
            expected["not_theirs"] += 1
        else:
            expected["due" if row["not_before"] > NOON else "ready"] += 1
            whose = "anna" if row["list"] == "ours" else "all"
            courses[barred, row["turn"] % len(barred), whose, row["list"] == "short"] += 1
    counted: Counter[str] = Counter()
    for dropped in asked.dropped:
        counted[dropped.code] += dropped.count
    counted["ready"] = sum(sum(pool.ready) for pool in asked.pools)
    counted["due"] = sum(count for pool in asked.pools for _, _, count in pool.due)
    assert +counted == +expected
    assert expected.keys() == {
        *("ready", "due", "done", "blocked", "attempts_used_up", "no_zone", "not_theirs"),
        *("law:country", "law:do_not_call", "law:register_gb-tps", "law:consent"),
    }
    found: Counter[Any] = Counter()
    for pool in asked.pools:
        rules = asked.rules[pool.rules]
        short = CampaignSettings.model_validate_json(rules.settings).max_attempts == 2
        whose = "all" if pool.whose < 0 else asked.assignments[pool.whose].told
        found[tuple(one < 0 for one in pool.open), pool.place, whose, short] += pool.contacts
        assert rules.numbers == len(pool.open)
    assert found == courses
    assert {crew.may: crew.share for crew in asked.crews} == {(): 0.5, (0,): 0.5}
    # Jersey has London's time; who has a number in Chicago too is called on it while both are open.
    lawful = {times[0] for times in asked.times if times is not None}
    noon, six = int(NOON.timestamp()), int((NOON + timedelta(hours=9)).timestamp())
    assert (noon, six) in lawful
    assert any(begin > noon and end == six for begin, end in lawful)


def test_a_played_call_counts_as_the_law_counts_it() -> None:
    """What the simulation calls abandoned and live is what attempts would be counted as."""
    calls: dict[Any, Attempt] = {}

    class Listening:
        def observe(self, now: float, kind: str, ident: Any, info: Any = None) -> None:
            what = {
                "dial": Told.SENT,
                "answer": Told.UP,
                "connect": Told.CONNECTED,
                "abandon": Told.NOBODY,
            }.get(kind)
            if kind == "end":
                calls[ident].tell(Told.GONE, now, "16")
            elif what is not None:
                calls.setdefault(ident, Attempt(str(ident), wait=2.0)).tell(what, now)

        def calls_to_give_up(self, now: float) -> tuple[()]:
            return ()

        def calls_to_place(self, now: float) -> int:
            return 3

    outcome = Simulation(
        Traffic(agents=5, seconds=900.0, answer_rate=((0.0, 0.4),), amd=False), Listening(), seed=3
    ).run()
    counted = Counter(call.counts_as for call in calls.values() if call.counts_as is not None)
    lost = sum(counted[one] for one in LOST)
    waiting = sum(Told.UP in call.at and call.counts_as is None for call in calls.values())
    assert (lost, counted.total() + waiting) == (outcome.abandoned, outcome.answered)
    assert lost > 20 < counted[CountsAs.IN_TIME]


# ------------------------------------------------------------------------------------------ goals


def test_agents_who_are_needed_for_a_goal_are_enough_and_one_less_is_not() -> None:
    """Without the pace played again: the agents needed come from the same reckoning."""
    goal = MONDAY + timedelta(hours=6)
    answer = plan(question(contacts=(3000,), finish_by=goal))
    assert answer.holds is False
    assert "NOT in time" in answer.says[0]
    needed = answer.agents_needed
    assert needed is not None
    calls = answer.expected[0].calls_per_hour / 4
    rates = rates_of(KNOWN)

    def through(agents: int) -> datetime | None:
        return worked(question(contacts=(3000,)), rates, calls, agents - 4).through

    enough, too_few = through(needed), through(needed - 1)
    assert enough is not None
    assert enough <= goal
    assert too_few is not None
    assert too_few > goal
    assert f"{needed} agents would be through by then" in answer.says


def test_no_number_of_agents_shortens_the_pauses_between_attempts() -> None:
    answer = plan(
        question(
            max_attempts=3, retry_minutes=(1440, 1440), finish_by=MONDAY + timedelta(hours=8), contacts=(50,)
        )
    )
    assert answer.agents_needed is None
    assert any("no number of agents" in line for line in answer.says)


def test_a_predictive_plan_says_talk_loss_and_lines() -> None:
    rota = (Shift(days=(0, 1, 2, 3, 4), start=540, end=1020, agents=12),)
    answer = plan(question(mode="predictive", rota=rota, contacts=(5000,), abandonment=0.025))
    base = answer.expected[0]
    assert 25 < base.talk_minutes.mean < 60 * 60 / 75
    assert base.abandonment.low <= base.abandonment.mean <= base.abandonment.high
    assert base.abandonment.mean < 0.08
    assert base.lines > 12
    assert base.calls_per_second >= 1
    assert answer.holds == (base.abandonment.mean <= 0.025)
    assert any("2.5% wanted" in line for line in answer.says)


def test_a_plan_says_what_more_agents_and_another_ring_time_would_change() -> None:
    rota = (Shift(days=(0, 1, 2, 3, 4), start=540, end=1020, agents=12),)
    answer = plan(question(mode="power", rota=rota, contacts=(5000,), max_attempts=2, variants=True))
    titles = {one.title: one for one in answer.expected}
    base = titles["as planned"]
    assert list(titles) == ["as planned", "7 agents", "17 agents", "ringing 18 s", "ringing 30 s"]
    assert titles["17 agents"].calls_per_hour > base.calls_per_hour > titles["7 agents"].calls_per_hour
    assert titles["ringing 30 s"].reached > base.reached > titles["ringing 18 s"].reached
    assert not answer.complete  # there was no time for several runs of each


def test_agents_who_preview_make_fewer_calls() -> None:
    by_itself, preview = (plan(question(mode=mode)).expected[0] for mode in ("progressive", "preview"))
    assert preview.calls_per_hour < 0.9 * by_itself.calls_per_hour


def test_without_agents_the_lines_decide() -> None:
    answer = plan(question(mode="agentless", rota=(), calls_per_second=1.0, max_lines=10, contacts=(2000,)))
    base = answer.expected[0]
    assert base.lines == 10
    assert base.calls_per_hour < 3600 * 10 / 15
    assert base.through is not None


def test_nothing_to_plan_is_said() -> None:
    for wrong, says in (({"contacts": (0,)}, "nobody"), ({"rota": ()}, "no agents")):
        with pytest.raises(Impossible, match=says):
            plan(question(**wrong))
