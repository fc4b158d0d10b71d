"""The simulation: its sums against cases worked out by hand, and the same customers whoever paces."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import pytest

from dialer.forecasting.other_pacing import AverageAdapt, FixedRatio, Progressive
from dialer.simulation import Duration, Outcome, Simulation, Traffic

EXACT = 1e-9
"""A spread so small that every draw is the mean."""


def exactly(seconds: float) -> Duration:
    return Duration(mean=seconds, spread=EXACT)


class AtOnce:
    """Places so many calls at the first tick and none after; keeps what it hears."""

    def __init__(self, calls: int, *, give_up_at: float = 1e9) -> None:
        self._left = calls
        self._give_up_at = give_up_at
        self.heard: list[tuple[float, str, Hashable, Any]] = []

    def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None:
        self.heard.append((now, kind, ident, info))

    def calls_to_place(self, now: float) -> int:
        count, self._left = self._left, 0
        return count

    def calls_to_give_up(self, now: float) -> Iterable[Hashable]:
        return [1] if now >= self._give_up_at else []

    def kinds(self, ident: Hashable) -> list[str]:
        return [kind for _, kind, about, _ in self.heard if about == ident]


def all_answer(agents: int, **more: Any) -> Traffic:
    """Everybody picks up 3 s after the first tick at 1 s, and talks for 10 s; 5 s of wrap-up."""
    values: dict[str, Any] = {
        "agents": agents,
        "seconds": 30.0,
        "tick": 1.0,
        "answer_rate": ((0.0, 1.0),),
        "set_up": exactly(1.0),
        "to_answer": exactly(2.0),
        "says_ring": 1.0,
        "talk": exactly(10.0),
        "wrap": exactly(5.0),
    }
    return Traffic(**(values | more))


def test_utilisation_is_talk_and_wrap_up_of_the_time_at_work() -> None:
    pace = AtOnce(1)
    outcome = Simulation(all_answer(2), pace, seed=1).run()
    assert (outcome.placed, outcome.answered, outcome.connected, outcome.abandoned) == (1, 1, 1, 0)
    assert outcome.busy == pytest.approx(15.0, abs=1e-3)
    assert outcome.ready == pytest.approx(60.0, abs=1e-3)
    assert outcome.utilisation == pytest.approx(0.25, abs=1e-3)
    assert pace.kinds(1) == ["dial", "ring", "answer", "connect"]
    assert pace.kinds("agent 0") == ["login", "ready", "talk", "wrap", "disp", "ready"]


def test_whoever_finds_no_agent_in_time_is_lost() -> None:
    pace = AtOnce(3)
    outcome = Simulation(all_answer(1), pace, seed=1).run()
    assert (outcome.answered, outcome.connected, outcome.abandoned) == (3, 1, 2)
    assert outcome.abandonment == pytest.approx(2 / 3)
    lost = [(now, info) for now, kind, _, info in pace.heard if kind == "abandon"]
    assert [now for now, _ in lost] == pytest.approx([6.0, 6.0], abs=1e-3)
    assert [info for _, info in lost] == [2.0, 2.0]


def test_an_agent_who_is_free_within_the_wait_takes_the_call_that_waits() -> None:
    """The first two talk until 14 s; a third, who waits as long as it takes, comes then."""
    outcome = Simulation(all_answer(2, wrap=exactly(0.5), answer_wait=20.0), AtOnce(3), seed=1).run()
    assert (outcome.connected, outcome.abandoned) == (3, 0)
    assert sorted(outcome.waited) == pytest.approx([0.0, 0.0, 10.5], abs=1e-3)


def test_nobody_is_reached_after_the_ringing_time() -> None:
    pace = AtOnce(1)
    outcome = Simulation(all_answer(1, to_answer=exactly(40.0), seconds=60.0), pace, seed=1).run()
    assert (outcome.answered, outcome.busy) == (0, 0.0)
    assert pace.heard[-1] == (25.0, "end", 1, "noanswer")


def test_a_call_given_up_is_told_and_answers_no_more() -> None:
    pace = AtOnce(1, give_up_at=3.0)
    outcome = Simulation(all_answer(1), pace, seed=1).run()
    assert (outcome.given_up, outcome.answered) == (1, 0)
    assert pace.heard[-1] == (3.0, "end", 1, "cancel")


def test_machines_are_hung_up_on_and_are_no_live_answers() -> None:
    outcome = Simulation(all_answer(1, amd=True, machines=1.0), AtOnce(4), seed=1).run()
    assert (outcome.answered, outcome.machines, outcome.connected) == (0, 4, 0)


def test_lines_and_calls_a_second_hold_calls_back() -> None:
    assert Simulation(all_answer(1, lines=3), AtOnce(9), seed=1).run().placed == 3
    assert Simulation(all_answer(1, calls_per_second=4.0), AtOnce(9), seed=1).run().placed == 4


def test_shifts_change_who_is_there() -> None:
    outcome = Simulation(all_answer(1, shifts=((10.0, 3), (20.0, 0))), AtOnce(0), seed=1).run()
    assert outcome.ready == pytest.approx(10 * 1 + 10 * 3)


def test_the_answer_rate_steps_or_drifts() -> None:
    rates = ((0.0, 0.2), (100.0, 0.4))
    stepping, drifting = (
        Traffic(agents=1, answer_rate=rates),
        Traffic(agents=1, answer_rate=rates, drifting=True),
    )
    assert [stepping.share(at) for at in (0.0, 99.0, 100.0, 500.0)] == [0.2, 0.2, 0.4, 0.4]
    assert [drifting.share(at) for at in (0.0, 50.0, 100.0, 500.0)] == pytest.approx([0.2, 0.3, 0.4, 0.4])


def run(pace: Any, seed: int) -> tuple[Outcome, Any]:
    return Simulation(Traffic(agents=10, seconds=600.0, tick=1.0), pace, seed=seed).run(), pace


def test_the_same_seed_is_the_same_run() -> None:
    assert run(Progressive(), 4)[0] == run(Progressive(), 4)[0]
    assert run(Progressive(), 4)[0] != run(Progressive(), 5)[0]


def test_the_same_seed_is_the_same_customers_whoever_paces() -> None:
    def of_customers(pace: Any) -> list[tuple[str, ...]]:
        heard: dict[Hashable, list[str]] = {}

        class Listening(type(pace)):  # type: ignore[misc]
            def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None:
                if isinstance(ident, int) and kind in ("ring", "answer", "end"):
                    heard.setdefault(ident, []).append(kind)
                super().observe(now, kind, ident, info)

        pace.__class__ = Listening
        run(pace, 4)
        return [tuple(heard.get(n, ())) for n in range(1, 60)]

    assert of_customers(Progressive()) == of_customers(FixedRatio(1.5)) == of_customers(AverageAdapt())


def test_a_fixed_ratio_keeps_agents_busier_than_one_each_and_loses_calls() -> None:
    one_each, double = run(Progressive(), 1)[0], run(FixedRatio(3.0), 1)[0]
    assert one_each.abandoned == 0
    assert double.utilisation > one_each.utilisation
    assert double.abandoned > 0
