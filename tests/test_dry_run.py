"""Dry runs: what they rest on, what comes of goals, more agents and thin history; checked against plain reckoning."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from dialer.forecasting.dry_run import (
    USUAL_ANSWER,
    Between,
    History,
    Impossible,
    Question,
    Rates,
    Shift,
    between,
    plan,
    rates_of,
    work_through,
)

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
        "max_attempts": 1,
        "seconds": 0.0,
        "variants": False,
    }
    return Question(**(values | more))


def flat(rate: float) -> Rates:
    return Rates((rate,) * 24, Between(mean=rate, low=rate, high=rate))


# ------------------------------------------------------------------------------------------ what is known


def test_where_nothing_is_known_the_usual_is_assumed_and_said_to_be_thin() -> None:
    rates = rates_of(History())
    assert rates.overall.mean == USUAL_ANSWER
    assert rates.overall.high - rates.overall.low > 0.2
    answer = plan(question(history=History(), contacts=(10,)))
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
    way = work_through(question(), flat(0.25), 1.0, lambda agents: 50.0)
    assert way.once == way.through == MONDAY + timedelta(hours=5)
    assert way.reached == pytest.approx(0.25 * (1200 + 17) / (1200 + 20))


def test_nights_and_weekends_are_not_worked() -> None:
    way = work_through(
        question(now=MONDAY + timedelta(days=4)), flat(0.25), 1.0, lambda agents: 25.0
    )  # a Friday
    assert way.through == MONDAY + timedelta(days=7, hours=2)


def test_who_is_not_reached_is_called_again_after_the_pause_and_at_most_so_often() -> None:
    asked = question(max_attempts=3, retry_minutes=(60, 1440), contacts=(100,))
    way = work_through(asked, flat(0.5), 1.0, lambda agents: 1000.0)
    assert way.once is not None
    assert way.once < MONDAY + timedelta(minutes=10)
    assert way.through is not None
    assert way.through >= MONDAY + timedelta(minutes=60 + 1440)
    share = 0.5 * (1200 + 17) / (1200 + 20)
    assert way.reached == pytest.approx(1 - (1 - share) ** 3, abs=0.01)


def test_the_clocks_change_within_the_rota() -> None:
    way = work_through(
        question(now=datetime(2026, 3, 27, 16, 0, tzinfo=UTC)), flat(0.25), 1.0, lambda agents: 50.0
    )
    assert way.through == datetime(2026, 3, 30, 7, 0, tzinfo=UTC) + timedelta(
        hours=5
    )  # nine is seven in UTC by then


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
        return work_through(question(contacts=(3000,)), rates, 1.0, lambda _: calls, agents - 4).through

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
