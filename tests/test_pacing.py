"""Pacing: what it falls back to and when, what it never does whatever it hears, and what comes of it on all kinds of
traffic."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialer.forecasting.estimates import Hazard, Level
from dialer.forecasting.outlook import AHEAD, Moments, Outlook, tail
from dialer.pacing import DAY, Pacing, PacingConfig
from dialer.simulation import Duration, Outcome, Simulation, Traffic

SINCE_1970 = 1.7e9


class Floor:
    """Agents and calls at hand: says what a dialer would, one call at a time, at a clock of its own."""

    def __init__(self, start: float = SINCE_1970, **config: Any) -> None:
        self.pacing = Pacing(PacingConfig(**config))
        self.now = start
        self._calls = 0

    def say(self, kind: str, ident: Hashable, info: Any = None) -> None:
        self.pacing.observe(self.now, kind, ident, info)

    def agents(self, count: int, state: str = "ready") -> None:
        for n in range(count):
            self.say("login", f"agent {n}")
            self.say(state, f"agent {n}")

    def dial(self, count: int, *, rings: bool = True) -> list[int]:
        made = list(range(self._calls, self._calls + count))
        self._calls += count
        for call in made:
            self.say("dial", call)
            if rings:
                self.say("ring", call)
        return made

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def history(self, *, connected: int, abandoned: int = 0, unanswered: int = 0) -> None:
        """So many calls that were answered after ten seconds, or never; agent 0 takes those for which one was there."""
        for n in range(connected + abandoned + unanswered):
            (call,) = self.dial(1)
            self.wait(10.0)
            if n < connected:
                self.say("answer", call)
                self.say("connect", call, ("agent 0", 0.0))
                self.say("talk", "agent 0", call)
                self.say("ready", "agent 0")
            elif n < connected + abandoned:
                self.say("answer", call)
                self.say("queue", call)
                self.wait(2.0)
                self.say("abandon", call, 2.0)
            else:
                self.wait(10.0)
                self.say("end", call, "noanswer")

    def placed(self) -> int:
        return self.pacing.calls_to_place(self.now)

    def given_up(self) -> set[Hashable]:
        return set(self.pacing.calls_to_give_up(self.now))

    def why(self) -> str:
        return self.pacing.why(self.now)


# -------------------------------------------------------------------------------------------- what it falls back to


def test_progressive_is_one_call_for_each_free_agent() -> None:
    floor = Floor(mode="progressive", tick_s=10.0)
    floor.agents(7)
    assert floor.placed() == 7
    assert floor.placed() == 0
    floor.dial(7)
    floor.wait(5.0)
    assert floor.placed() == 0
    floor.say("end", 0, "busy")
    assert floor.placed() == 1


def test_power_is_a_ratio_of_free_agents() -> None:
    floor = Floor(mode="power", ratio=2.0, tick_s=10.0)
    floor.agents(7)
    assert floor.placed() == 14


def test_nothing_is_known_at_first_so_one_call_for_each_free_agent() -> None:
    floor = Floor(calls_per_second=100.0, tick_s=1.0)
    floor.agents(30)
    assert floor.placed() == 30
    assert "little is known" in floor.why()


def test_once_it_knows_it_places_more_calls_than_agents_are_free() -> None:
    floor = Floor(calls_per_second=100.0, tick_s=1.0)
    floor.agents(10)
    floor.history(connected=40, unanswered=160)
    assert floor.placed() > 10


def test_few_agents_get_one_call_each() -> None:
    floor = Floor(calls_per_second=100.0, tick_s=1.0)
    floor.agents(2)
    floor.history(connected=40, unanswered=160)
    assert floor.placed() == 2
    assert "few agents" in floor.why()


@pytest.mark.parametrize("agents", [5, 20, 100])
def test_a_spent_budget_leaves_one_call_for_each_free_agent(agents: int) -> None:
    floor = Floor(calls_per_second=1000.0, tick_s=1.0)
    floor.agents(agents)
    floor.history(connected=40, abandoned=12, unanswered=100)
    assert floor.placed() == agents
    assert "budget is spent" in floor.why()
    assert ", 11 too many today" in floor.why()


@pytest.mark.parametrize("mode", ["predictive", "predictive-strict", "power"])
def test_what_is_spent_of_the_laws_window_holds_also_on_a_day_on_which_nothing_was_lost(mode: Any) -> None:
    """Six answers in a hundred were lost two days ago: nothing is staked today, until that is made good or forgotten."""
    floor = Floor(
        mode=mode, calls_per_second=1000.0, tick_s=1.0, ratio=3.0, window_s=DAY, legal_window_s=30 * DAY
    )
    floor.agents(10)
    floor.history(connected=188, abandoned=12, unanswered=100)
    floor.wait(2 * DAY)
    floor.history(connected=40, unanswered=160)
    assert floor.placed() == 10
    assert "budget is spent" in floor.why()
    assert floor.why().endswith("5.0% abandoned of 240 answers, 5 too many within 30 days")
    assert "0.0% abandoned of 40 answers, 1 more may be lost today" in floor.why()
    floor.wait(29 * DAY)
    floor.history(connected=20)
    assert floor.placed() > 10


@pytest.mark.parametrize("lost", [1, 2])
def test_a_call_is_granted_by_the_laws_window_while_it_holds_few_answers(lost: int) -> None:
    floor = Floor(calls_per_second=1000.0, tick_s=1.0, window_s=DAY, legal_window_s=30 * DAY)
    floor.agents(10)
    floor.history(connected=30, abandoned=lost, unanswered=100)
    floor.placed()
    assert ("budget is spent" in floor.why()) is (lost > 1)


def test_a_ratio_is_not_kept_beyond_the_budget_nor_while_events_are_late() -> None:
    floor = Floor(mode="power", ratio=3.0, calls_per_second=1000.0, tick_s=1.0)
    floor.agents(10)
    floor.history(connected=60, abandoned=2, unanswered=10)
    assert floor.placed() == 30
    assert "fixed ratio" in floor.why()
    floor.dial(30)
    floor.wait(60.0)
    assert floor.placed() == 0
    assert "late" in floor.why()
    floor.history(connected=0, abandoned=2)
    for call in range(30):
        floor.say("end", call + 72, "busy")
    assert floor.placed() == 10
    assert "budget is spent" in floor.why()


def test_what_was_lost_is_forgotten_after_the_window() -> None:
    floor = Floor(calls_per_second=1000.0, tick_s=1.0, window_s=3600.0)
    floor.agents(10)
    floor.history(connected=40, abandoned=12, unanswered=100)
    assert "budget" in (floor.placed(), floor.why())[1]
    floor.wait(3700.0)
    floor.history(connected=20, unanswered=20)
    assert floor.placed() > 0
    assert "budget is spent" not in floor.why()


def test_silence_leaves_one_call_for_each_free_agent_and_asks_for_no_more_while_it_lasts() -> None:
    floor = Floor(calls_per_second=100.0, tick_s=1.0)
    floor.agents(10)
    floor.history(connected=40, unanswered=160)
    floor.dial(4)
    floor.wait(60.0)
    asked = 0
    for _ in range(25):
        floor.wait(1.0)
        asked += floor.placed()
    assert asked == 10 - 4
    assert "late" in floor.why()


def test_a_fast_floor_that_falls_silent_is_noticed_within_seconds() -> None:
    floor = Floor(calls_per_second=1000.0, tick_s=1.0)
    floor.agents(100)
    floor.history(connected=40, unanswered=60)
    for _ in range(60):
        floor.wait(0.5)
        for call in floor.dial(5):
            floor.say("end", call, "busy")
    floor.dial(50)
    floor.wait(6.0)
    assert floor.placed() <= 50
    assert "late" in floor.why()


# -------------------------------------------------------------------------------------------- stopping and giving up


def leaves_by(kind: str, floor: Floor, agents: int) -> None:
    for n in range(agents):
        floor.say(kind, f"agent {n}")


@pytest.mark.parametrize("mode", ["progressive", "power", "predictive", "predictive-strict"])
@pytest.mark.parametrize("kind", ["logout", "break"])
def test_when_the_last_agent_leaves_nothing_is_placed_and_what_rang_long_enough_is_given_up(
    mode: Any, kind: str
) -> None:
    floor = Floor(mode=mode, min_ring_s=15.0)
    floor.agents(10)
    floor.history(connected=40, unanswered=60)
    long = floor.dial(8)
    floor.wait(10.0)
    short = floor.dial(8)
    unsaid = floor.dial(3, rings=False)
    floor.wait(6.0)
    leaves_by(kind, floor, 10)
    assert floor.placed() == 0
    assert floor.given_up() == set(long)
    floor.wait(10.0)
    assert floor.given_up() >= set(long + short)
    assert not floor.given_up() & set(unsaid)
    floor.wait(10.0)
    assert floor.given_up() == set(long + short + unsaid)
    assert floor.placed() == 0
    assert "no agent is at work" in floor.why()


def test_a_late_word_of_a_talk_brings_no_agent_back_who_has_logged_out() -> None:
    floor = Floor()
    floor.agents(1)
    floor.say("logout", "agent 0")
    (call,) = floor.dial(1)
    floor.say("connect", call, ("agent 0", 0.5))
    floor.say("talk", "agent 0", call)
    floor.say("wrap", "agent 0", call)
    assert floor.placed() == 0
    assert "0 of 0 agents" in floor.why()


class Watched:
    """Pacing that is watched while it works: no call is given up early, no limit overstepped."""

    def __init__(self, config: PacingConfig) -> None:
        self.pacing = Pacing(config)
        self.config = config
        self.open: dict[Hashable, float] = {}
        self.given_up = 0

    def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None:
        if kind in ("dial", "ring"):
            self.open[ident] = now
        elif kind == "end":
            self.open.pop(ident, None)
        self.pacing.observe(now, kind, ident, info)

    def calls_to_give_up(self, now: float) -> Iterable[Hashable]:
        gone = list(self.pacing.calls_to_give_up(now))
        for ident in gone:
            assert now - self.open[ident] >= self.config.min_ring_s
        self.given_up += len(gone)
        return gone

    def calls_to_place(self, now: float) -> int:
        count = self.pacing.calls_to_place(now)
        assert count >= 0
        return count


@pytest.mark.parametrize("min_ring", [15.0, 20.0])
def test_calls_are_given_up_where_agents_run_short_and_never_before_the_least_ringing(
    min_ring: float,
) -> None:
    traffic = Traffic(
        agents=15, seconds=500.0, tick=1.0, answer_rate=((0.0, 0.2), (250.0, 0.6)), ring_timeout=40.0
    )
    watched = Watched(
        PacingConfig(min_ring_s=min_ring, ring_timeout_s=40.0, tick_s=1.0, calls_per_second=50.0)
    )
    Simulation(traffic, watched, seed=3).run()
    assert watched.given_up > 0


# -------------------------------------------------------------------------------------------- lines and calls a second


def test_never_more_than_the_lines_there_are() -> None:
    floor = Floor(mode="power", ratio=5.0, max_lines=12, calls_per_second=1000.0, tick_s=1.0)
    floor.agents(10)
    floor.say("talk", "agent 0", "another call")
    floor.dial(5)
    assert floor.placed() == 12 - 5 - 1
    assert floor.placed() == 0


def test_never_more_than_the_calls_a_second_however_often_it_is_asked() -> None:
    floor = Floor(mode="power", ratio=50.0, calls_per_second=4.0, tick_s=0.5)
    floor.agents(100)
    asked = 0
    for _ in range(200):
        floor.wait(0.05)
        asked += floor.placed()
    assert 30 <= asked <= 10 * 4 + 4


def test_less_than_a_call_a_second() -> None:
    floor = Floor(mode="power", calls_per_second=0.2, tick_s=0.5)
    floor.agents(100)
    asked = 0
    for _ in range(120):
        floor.wait(0.5)
        asked += floor.placed()
    assert 11 <= asked <= 13


def test_a_call_that_was_asked_for_and_never_dialed_is_asked_for_again() -> None:
    floor = Floor(mode="progressive", tick_s=10.0)
    floor.agents(5)
    assert floor.placed() == 5
    floor.dial(2)
    floor.wait(1.0)
    assert floor.placed() == 0
    floor.wait(2.0)
    floor.say("ring", 1)
    assert floor.placed() == 3


# -------------------------------------------------------------------------------------------- what it hears


def test_a_talk_told_by_the_agent_alone_is_a_connected_call() -> None:
    floor = Floor()
    floor.agents(3)
    (call,) = floor.dial(1)
    floor.say("answer", call)
    floor.say("talk", "agent 1", call)
    floor.say("connect", call, ("agent 1", 0.0))
    floor.placed()
    assert "of 1 answers" in floor.why()
    assert "2 of 3 agents free" in floor.why()


def test_a_late_connect_begins_no_second_talk() -> None:
    floor = Floor()
    floor.agents(3)
    (call,) = floor.dial(1)
    floor.say("talk", "agent 1", call)
    floor.say("ready", "agent 1")
    floor.say("connect", call, ("agent 1", 0.0))
    floor.placed()
    assert "3 of 3 agents free" in floor.why()


def test_a_name_used_again_is_another_call() -> None:
    floor = Floor()
    floor.agents(3)
    for _ in range(2):
        floor.say("dial", "line 1")
        floor.say("answer", "line 1")
        floor.say("connect", "line 1", ("agent 1", 0.0))
        floor.say("talk", "agent 1", "line 1")
        floor.placed()
        assert "2 of 3 agents free" in floor.why()
        floor.say("ready", "agent 1")
    floor.placed()
    assert "of 2 answers" in floor.why()


def test_machines_that_came_to_an_agent_are_no_live_answers() -> None:
    floor = Floor()
    floor.agents(5)
    floor.history(connected=20)
    for call in range(10):
        floor.say("disp", "agent 0", (call, "machine"))
    floor.placed()
    answers = re.search(r"of (\d+) answers", floor.why())
    assert answers is not None
    assert int(answers[1]) in (10, 11)


def test_why_says_it_in_words_and_numbers() -> None:
    floor = Floor(calls_per_second=100.0, tick_s=1.0)
    assert floor.why() == "nothing has been decided yet"
    floor.agents(10)
    floor.history(connected=99, abandoned=1, unanswered=200)
    floor.dial(6)
    floor.say("talk", "agent 1", 7777)
    floor.placed()
    assert re.fullmatch(
        r"placing \d+: 9 of 10 agents free, \d+ more expected within 13 s; 6 calls under way of which about \d+ will be "
        r"answered; .+; 1\.0% abandoned of 100 answers, 2 more may be lost today",
        floor.why(),
    )


EVENTS = (
    *("dial", "ring", "answer", "end", "amd", "queue", "connect", "abandon"),
    *("login", "ready", "break", "talk", "wrap", "disp", "logout", "noise"),
)
KINDS = st.sampled_from(EVENTS)
IDENTS = st.one_of(
    st.integers(0, 6), st.sampled_from(["a", "b", "c"]), st.none(), st.tuples(st.integers(0, 2))
)
INFOS = st.one_of(
    st.none(),
    st.sampled_from(["human", "machine", "busy", "cancel", "fax"]),
    st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0, 5)),
    st.integers(0, 6),
    st.tuples(st.integers(0, 6), st.sampled_from(["human", "machine"])),
    st.just(()),
)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.0, 40.0), KINDS, IDENTS, INFOS), max_size=120),
    st.sampled_from(["progressive", "power", "predictive", "predictive-strict"]),
    st.booleans(),
    st.integers(1, 8),
)
def test_any_events_in_any_order_never_fail_and_never_break_a_limit(
    events: list[tuple[float, str, Hashable, Any]], mode: Any, amd: bool, lines: int
) -> None:
    config = PacingConfig(mode=mode, amd=amd, max_lines=lines, calls_per_second=2.0, tick_s=0.5)
    pacing = Pacing(config)
    now = SINCE_1970
    for n in range(4):
        pacing.observe(now, "ready", "abcd"[n])
    for call in range(40):
        # Enough is known to predict.
        pacing.observe(now, "dial", f"past {call}")
        pacing.observe(now, "answer" if call % 3 == 0 else "end", f"past {call}")
        pacing.observe(now, "end", f"past {call}")
    for pause, kind, ident, info in events:
        now += pause
        pacing.observe(now, kind, ident, info)
        count = pacing.calls_to_place(now)
        assert 0 <= count <= min(lines, 4)
        gone = list(pacing.calls_to_give_up(now))
        assert len(gone) == len(set(gone))
        assert pacing.why(now)


# -------------------------------------------------------------------------------------------- its arithmetic


def test_the_tail_of_a_small_sum_is_near_the_exact_one() -> None:
    # A Poisson number of mean 0.5: P(>= 2) = 0.0902, P(>= 3) = 0.0144.
    deviation = 0.5**0.5
    assert tail((1.5 - 0.5) / deviation, 1 / deviation) == pytest.approx(0.0902, abs=0.025)
    assert tail((2.5 - 0.5) / deviation, 1 / deviation) == pytest.approx(0.0144, abs=0.005)
    # A binomial number of 10 and 0.5: P(>= 8) = 0.0547.
    assert tail(2.5 / 2.5**0.5, 0.0) == pytest.approx(0.0547, abs=0.005)


def test_another_call_is_riskier_the_more_there_are_and_the_fewer_agents() -> None:
    def outlook(spare: int) -> Outlook:
        nothing = Moments([0.0] * len(AHEAD), [0.0] * len(AHEAD), [0.0] * len(AHEAD))
        new = [0.3 * k / 25 for k in AHEAD]
        return Outlook(spare, nothing, 0.1, new, nothing, 0.05, [0.0] * len(AHEAD))

    risks = [outlook(5).chance_lost(more) for more in range(0, 60, 5)]
    assert risks == sorted(risks)
    assert risks[0] < 0.001
    assert risks[-1] > 0.5
    assert outlook(4).chance_lost(10) > outlook(5).chance_lost(10) > outlook(6).chance_lost(10)


def test_a_hazard_is_endings_a_second_of_exposure() -> None:
    hazard = Hazard((0.0, 1.0, 2.0), {"end": 0.5}, confidence=1e-9, memory=1e9)
    for age in (0.5, 1.5, 2.5):
        hazard.ended(age, "end")
    assert hazard.rates([0, 0, 0])["end"] == pytest.approx([1 / 2.5, 1 / 1.5, 1 / 0.5])
    # One more that is half a second old, and has not ended.
    assert hazard.rates([1, 0, 0])["end"][0] == pytest.approx(1 / 3.0)


@pytest.mark.parametrize("step", [2.5, 0.4])
def test_a_step_is_followed_within_some_events_and_a_steady_state_is_known_well(step: float) -> None:
    level, due = Level(), 0.0

    def play(events: int, factor: float) -> None:
        nonlocal due
        for _ in range(events * 10):
            level.expect(0.1)
            due += 0.1 * factor
            while due >= 1.0:
                due -= 1.0
                level.happened()

    play(300, 1.0)
    assert level.factor == pytest.approx(1.0, abs=0.05)
    assert level.error < 0.13
    play(50, step)
    assert level.factor == pytest.approx(step, rel=0.4)


def test_a_spell_without_events_is_doubted_where_it_is_better_to() -> None:
    plain, doubting = Level(), Level(doubts_drops=True)
    for level in (plain, doubting):
        for n in range(3000):
            level.expect(0.1)
            if n % 10 == 9:
                level.happened()
        for _ in range(100):
            level.expect(0.1)
    assert plain.factor < 0.8 < doubting.factor < 0.95


# -------------------------------------------------------------------------------------------- what comes of it

TRAFFIC = {
    "few agents": (
        Traffic(agents=5, seconds=1800.0, answer_rate=((0.0, 0.2),), talk=Duration(mean=120.0)),
        50.0,
    ),
    "ten agents": (Traffic(agents=10, seconds=1500.0, talk=Duration(mean=110.0, spread=0.9)), 70.0),
    "steps up and down": (
        Traffic(agents=20, seconds=2000.0, answer_rate=((0.0, 0.2), (500.0, 0.5), (1400.0, 0.15))),
        74.0,
    ),
    "no ringing told": (Traffic(agents=15, seconds=1200.0, says_ring=0.0, talk=Duration(mean=90.0)), 72.0),
    "events late": (Traffic(agents=15, seconds=1200.0, late=1.0, talk=Duration(mean=90.0)), 68.0),
    "machines": (
        Traffic(agents=20, seconds=1200.0, answer_rate=((0.0, 0.5),), machines=0.5, amd=True, amd_false=0.05),
        68.0,
    ),
    "refusals": (
        Traffic(
            agents=10,
            seconds=1200.0,
            talk=Duration(mean=250.0, spread=0.4),
            refusing=0.7,
            wrap=Duration(mean=5.0),
        ),
        62.0,
    ),
    "agents come and go": (
        Traffic(agents=15, seconds=1500.0, shifts=((500.0, 30), (1000.0, 6)), pause_every=900.0),
        70.0,
    ),
    "short calls": (
        Traffic(agents=40, seconds=600.0, talk=Duration(mean=30.0), wrap=Duration(mean=8.0)),
        72.0,
    ),
}


def paced(traffic: Traffic, *, seed: int, **config: Any) -> Outcome:
    pacing = Watched(
        PacingConfig(
            amd=traffic.amd,
            ring_timeout_s=traffic.ring_timeout,
            tick_s=traffic.tick,
            calls_per_second=traffic.calls_per_second,
            **config,
        )
    )
    return Simulation(traffic, pacing, seed=seed).run()


@pytest.mark.parametrize("kind", TRAFFIC)
def test_agents_are_busy_and_the_cap_holds(kind: str) -> None:
    """One run each; bounds a few points below what was seen, so that only a real change for the worse breaks them."""
    traffic, utilisation = TRAFFIC[kind]
    outcome = paced(replace(traffic, tick=1.0), seed=1)
    assert outcome.abandoned <= 0.03 * outcome.answered + 1
    assert outcome.utilisation * 100 > utilisation


def test_strict_holds_every_half_hour_also_when_three_times_as_many_answer_all_at_once() -> None:
    traffic = Traffic(agents=50, seconds=2400.0, tick=1.0, answer_rate=((0.0, 0.17), (1500.0, 0.5)))
    outcome = paced(traffic, seed=2, mode="predictive-strict")
    assert outcome.worst_window <= 0.03
    assert outcome.utilisation > 0.85
