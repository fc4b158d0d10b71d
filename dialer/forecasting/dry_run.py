"""The dry run of a campaign: what will happen before it happens, from the list's own history and the rota.

The pace itself is played against simulated customers (`dialer/simulation.py`) who answer, talk and wait as those of the
history did; then the list is worked through hour by hour of the rota at the speed that came of it. What is not known is
taken from careful usual values, and the answer says so. Pure and without a clock; `python -m dialer.forecasting.dry_run`
answers one question from standard input, so that a server lets it run beside itself, ends it when it likes and never waits
for it.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec

from cti.frozen import Frozen
from dialer.attempts import left_to_connect
from dialer.forecasting.question import ALL, LONGEST_DAYS, NEVER_OPEN, Dropped, OpenHour, Question, Shift
from dialer.forecasting.worked_through import (
    HOUR_WEIGHT,
    USUAL_SAID_WEIGHT,
    USUAL_WEIGHT,
    Between,
    Rates,
    Speed,
    Way,
    Work,
    open_hours,
    pulled,
    rates_of,
    share_said,
    within_rota,
)
from dialer.law.abandoned import lost_share
from dialer.pacing import Mode, Pacing, PacingConfig
from dialer.simulation import Duration, Simulation, Traffic
from routing.hours import DAYS

LOOKING = 25.0
"""Seconds that an agent looks at a contact in mode preview or manual before the call."""

BY_HAND = frozenset({"manual", "preview"})

LARGEST = 400
"""Agents that are played; more are taken to be as busy as so many."""

PLAYING, BETWEEN = 0.6, 0.8
"""Of the time there is: until when the pace is played; until when it is worked out for changes, too, between which moments
the list is through. The rest is for how many agents are needed."""

LISTS_TOLD = 5
"""Assigned lists of which it is said when they are through, the last ones."""

SHIFTS_TOLD = 5
"""Shifts of the rota that are said."""

LATE, LATE_AT_LEAST = 2.0, 10.0
"""Times the seconds there are, and seconds at least, after which changes that were not played yet are left out."""

RUNS, RUNS_OF_CHANGES = 5, 2
"""Times that the plan, and each change of it, is played, if there is time."""

STUDENT = (12.71, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


class Expected(Frozen, frozen=True, gc=False, kw_only=True):
    """What will come of it with so many agents (the most of the rota) and this ring time.

    `talk_minutes`: that an agent talks in an hour; `busy`: talk and wrap-up as a share of 1; `idle`: seconds between two
    calls of an agent; `customer_wait`: seconds until an agent speaks. `lines`, `calls_per_second`: needed at the busiest
    (the highest but one of a hundred seconds). `called_once`: when everybody has been called once; `through`: when nobody
    is left to be called, at the earliest and the latest; None: not within 60 days. `reached`: the share of the contacts,
    in the end; `reached_in_time`: by the wanted time.
    """

    title: str
    agents: int
    ring_timeout: float
    busy: Between
    talk_minutes: Between
    idle: float
    customer_wait: float
    abandonment: Between
    calls_per_hour: float
    lines: int
    calls_per_second: float
    reached: float
    reached_in_time: float
    called_once: datetime | None
    through: datetime | None
    through_early: datetime | None
    through_late: datetime | None


class Assigned(Frozen, frozen=True, gc=False, kw_only=True):
    """What comes of the lists that only some may call: `told` who; so many `agents` of the campaign's people, of whom each
    has one call at a time."""

    told: str
    agents: int
    contacts: int
    through: datetime | None


class Sharing(Frozen, frozen=True, gc=False, kw_only=True):
    """Another campaign that runs, or is scheduled to, and takes of the agents: so many of them (`agents`) while all have
    somebody to call, until it has called its `contacts` (`through`; None: not within 60 days). `first`: it comes before this
    one, by priority or because its calls come by themselves."""

    campaign: str
    priority: int
    first: bool
    contacts: int
    agents: float
    through: datetime | None


class QuotaOf(Frozen, frozen=True, gc=False, kw_only=True):
    """What comes of a list's quotas, `told` in words: when one is reached first, on how many `days`, whether for good, and
    how many contacts are not called then. `reached` None: the list is through before, or not within 60 days."""

    list: str
    told: str
    reached: datetime | None
    days: int
    for_good: bool
    contacts_left: int


class DryRun(Frozen, frozen=True, gc=False, kw_only=True):
    """The answer. `says`: in words, the goal first; `basis`: what it rests on, and what is thin. `callable` contacts are
    called, `dropped` are not; `open_hours`: of how many the zones are open, by the hours of the rota's first week.
    `expected`: as planned, then what a change would make of it; `assigned`: lists that are for some of the agents, as
    planned; `sharing`: who else takes of the agents, of whose time `lent` (a share of 1) is the campaign's until it is
    through; `quotas` of its lists. `agents_needed`: to be through by the wanted time, None if no number of them is enough
    or no time was wanted. `complete`: whether there was time for all of it."""

    says: tuple[str, ...]
    basis: tuple[str, ...]
    callable: int
    dropped: tuple[Dropped, ...]
    open_hours: tuple[OpenHour, ...]
    answer_rate: Between
    expected: tuple[Expected, ...]
    assigned: tuple[Assigned, ...]
    sharing: tuple[Sharing, ...]
    lent: float
    quotas: tuple[QuotaOf, ...]
    agents_needed: int | None
    holds: bool | None
    complete: bool


class Impossible(ValueError):
    """There is nothing to plan; the message says why and what to do."""


# ------------------------------------------------------------------------------------------------ the pace, played


class _Watched:
    """Pacing, with the lines and calls a second counted that it takes."""

    def __init__(self, pace: Any) -> None:
        self._pace = pace
        self._open: set[Hashable] = set()
        self._talks: dict[Hashable, Hashable] = {}
        self._dialed = 0
        self.lines: list[int] = []
        self.dialed: list[int] = []

    def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None:
        if kind == "dial":
            self._open.add(ident)
            self._dialed += 1
        elif kind in ("end", "abandon", "connect"):
            self._open.discard(ident)
        if kind == "talk":
            self._talks[ident] = info
        elif kind in ("wrap", "ready", "break", "logout"):
            self._talks.pop(ident, None)
        self._pace.observe(now, kind, ident, info)

    def calls_to_give_up(self, now: float) -> Iterable[Hashable]:
        return cast(Iterable[Hashable], self._pace.calls_to_give_up(now))

    def calls_to_place(self, now: float) -> int:
        self.lines.append(len(self._open) + len(self._talks))
        self.dialed.append(self._dialed)
        self._dialed = 0
        return int(self._pace.calls_to_place(now))


@dataclass(frozen=True, slots=True)
class _Played:
    busy: float
    abandonment: float
    calls_per_agent_hour: float
    connected_per_agent_hour: float
    waited: float
    lines: int
    calls_per_second: float
    lost: float
    live: float


def play(
    question: Question, mode: str, agents: int, ring_timeout: float, rate: float, seconds: float, seed: int
) -> _Played:
    """Plays some time of the pace in this mode with so many agents."""
    history = question.history
    by_hand = mode in BY_HAND
    talk = pulled(history.talk, history.talk_of, 90.0, 20.0)
    wrap = pulled(history.wrap, history.wrap_of, history.usual_wrap, 20.0) + (LOOKING if by_hand else 0.0)
    to_answer = pulled(history.to_answer, history.to_answer_of, 9.0, 20.0)
    answers = sum(history.answered)
    machines = (answers - history.live + 3.0) / (answers + 20.0) if answers else 0.15
    wait = left_to_connect(question.answer_wait, amd=question.amd, wait_from=question.wait_from)
    # The rate was seen with the ring time as it is: who answers later is heard from only if it rings longer.
    seen = _in_time(to_answer, question.ring_timeout)
    traffic = Traffic(
        agents=agents,
        seconds=seconds,
        answer_rate=((0.0, min(0.99, rate / max(seen, 0.05))),),
        to_answer=Duration(mean=to_answer, spread=0.6),
        talk=Duration(mean=talk, spread=min(max(history.talk_spread, 0.3), 1.5)),
        wrap=Duration(mean=wrap),
        machines=min(max(machines, 0.0), 0.9),
        amd=question.amd,
        ring_timeout=ring_timeout,
        answer_wait=wait,
        tick=1.0,
        calls_per_second=question.calls_per_second,
        lines=question.max_lines,
    )
    cap = question.cap if question.abandonment is None else min(question.cap, question.abandonment)
    pace = _Watched(
        Pacing(
            PacingConfig(
                mode=cast(Mode, "progressive" if by_hand else mode),
                abandonment_cap=cap,
                window_s=question.window_h * 3600,
                answer_wait_s=wait,
                error_share=question.error_share,
                min_ring_s=min(question.min_ring, ring_timeout),
                ring_timeout_s=ring_timeout,
                calls_per_second=question.calls_per_second,
                max_lines=question.max_lines,
                tick_s=1.0,
                amd=question.amd,
                ratio=question.ratio,
                few_agents=question.few_agents,
            )
        )
    )
    outcome = Simulation(traffic, pace, seed=seed).run()
    hours = outcome.ready / 3600 or 1.0
    errors = outcome.machines * question.error_share
    return _Played(
        busy=outcome.utilisation,
        abandonment=lost_share(outcome.answered, outcome.abandoned, errors) or 0.0,
        calls_per_agent_hour=outcome.placed / hours,
        connected_per_agent_hour=outcome.connected / hours,
        waited=fmean(outcome.waited) if outcome.waited else 0.0,
        lines=_high(pace.lines),
        calls_per_second=float(_high(pace.dialed)),
        lost=outcome.abandoned + errors,
        live=outcome.answered + errors,
    )


def _mixed(paced: _Played, one_each: _Played, part: float) -> _Played:
    """Agents who spend this part of their time on lists that are called one for one."""

    def of(a: float, b: float) -> float:
        return (1 - part) * a + part * b

    live = of(paced.live, one_each.live)
    return _Played(
        busy=of(paced.busy, one_each.busy),
        abandonment=of(paced.lost, one_each.lost) / live if live else 0.0,
        calls_per_agent_hour=of(paced.calls_per_agent_hour, one_each.calls_per_agent_hour),
        connected_per_agent_hour=of(paced.connected_per_agent_hour, one_each.connected_per_agent_hour),
        waited=of(paced.waited, one_each.waited),
        lines=max(paced.lines, one_each.lines),
        calls_per_second=max(paced.calls_per_second, one_each.calls_per_second),
        lost=of(paced.lost, one_each.lost),
        live=live,
    )


def _in_time(mean: float, timeout: float) -> float:
    """The share of those who would answer that do so before it has rung so long (log-normal, as the simulation plays it)."""
    variance = math.log(1 + 0.6**2)
    rings = max(timeout - 2.5, 0.5)
    z = (math.log(rings) - math.log(mean) + variance / 2) / math.sqrt(variance)
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def _high(values: Sequence[int]) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0


def between(values: Sequence[float], lowest: float = 0.0, highest: float = math.inf) -> Between:
    """The mean of runs and its 95 % interval (Student's t); one run alone says little."""
    mean = fmean(values)
    if len(values) > 1:
        factor = STUDENT[len(values) - 2] if len(values) - 2 < len(STUDENT) else 2.1
        half = factor * stdev(values) / math.sqrt(len(values))
    else:
        half = 0.5 * mean
    return Between(mean=mean, low=max(lowest, mean - half), high=min(highest, mean + half))


def _abandoned(runs: Sequence[_Played]) -> Between:
    """The share lost over all runs; the interval by Wilson, which is honest where hardly any are lost, or as runs differ."""
    lost, live = sum(run.lost for run in runs), sum(run.live for run in runs)
    if not live:
        return Between(mean=0.0, low=0.0, high=0.0)
    share, z = lost / live, 1.96
    middle = (share + z * z / (2 * live)) / (1 + z * z / live)
    half = z * math.sqrt(share * (1 - share) / live + z * z / (4 * live * live)) / (1 + z * z / live)
    runs_differ = between([run.abandonment for run in runs], 0.0, 1.0) if len(runs) > 2 else None
    low, high = middle - half, middle + half
    if runs_differ is not None:
        low, high = min(low, runs_differ.low), max(high, runs_differ.high)
    return Between(mean=share, low=max(0.0, low), high=min(1.0, high))


# ------------------------------------------------------------------------------------------------ the answer


def plan(question: Question, clock: Callable[[], float] = time.monotonic) -> DryRun:
    """Answers within the question's seconds, about. Raises Impossible."""
    if not any(pool.contacts for pool in question.pools):
        why = "; ".join(_dropped(question))
        raise Impossible(
            "nobody on its lists is left to be called"
            + (f": {why}" if why else ": import or recycle contacts")
        )
    most = max((shift.agents for shift in question.rota), default=0)
    if question.mode == "agentless":
        return _agentless(question)
    if not most:
        raise Impossible("the rota has no agents: say who works when (--agents 10 --hours 09:00-17:00)")
    question = within_rota(question)
    if not question.pools:
        raise Impossible(f"{NEVER_OPEN}: ask for other hours (--hours), or see cti lists show")
    rates, work = rates_of(question.history), Work(question)
    alone = Work(msgspec.structs.replace(question, rivals=())) if question.rivals else work
    began = clock()
    until, within = began + PLAYING * question.seconds, began + BETWEEN * question.seconds
    late = began + max(LATE * question.seconds, LATE_AT_LEAST)
    lent = work.usual_share()
    cases = _cases(question, most, lent)
    runs: dict[str, list[_Pair]] = {case.title: [] for case in cases}
    complete = True
    for seed in range(1, RUNS + 1):
        for case in cases:
            if seed > (RUNS if case is cases[0] else RUNS_OF_CHANGES):
                continue
            first_of_plan = case is cases[0] and seed == 1
            if not first_of_plan and clock() > (until if runs[case.title] else late):
                complete = False
                continue
            runs[case.title].append(
                _played_in_pairs(question, case.played, case.ring, rates.overall.mean, seed)
            )
    speed = _speed_of({case.played: runs[case.title] for case in cases if case.ring == question.ring_timeout})
    expected, planned = [], None
    for case in cases:
        if runs[case.title]:
            unsure = planned is None or clock() < within
            complete = complete and unsure
            own = speed if case.ring == question.ring_timeout else _speed_of({case.played: runs[case.title]})
            found, way = _expected(
                question,
                alone if case.alone else work,
                rates,
                case,
                runs[case.title],
                own,
                case.agents - most,
                unsure,
            )
            expected.append(found)
            planned = planned or way
    assert planned is not None
    needed = _needed(question, work, rates, speed, most) if question.finish_by is not None else None
    assigned, sharing = _assigned(question, planned), _sharing(question, work, planned)
    quotas = _quotas(question, planned)
    return DryRun(
        says=tuple(_says(question, expected, assigned, sharing, planned.lent, quotas, needed, most)),
        basis=tuple(_basis(question, rates)),
        callable=_callable(question),
        dropped=question.dropped,
        open_hours=open_hours(question),
        answer_rate=rates.overall,
        expected=tuple(expected),
        assigned=assigned,
        sharing=sharing,
        lent=planned.lent,
        quotas=quotas,
        agents_needed=needed,
        holds=_holds(question, expected[0]),
        complete=complete and len(expected) == len(cases),
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """What is reckoned: so many `agents` in the rota, of whom as many are `played` as the campaign has in its hours;
    `alone`: were they for it alone."""

    title: str
    agents: int
    ring: float
    played: int
    alone: bool = False


def _cases(question: Question, most: int, lent: float) -> list[_Case]:
    """The plan first, then what would change it."""

    def case(title: str, agents: int, ring: float = question.ring_timeout, share: float = lent) -> _Case:
        return _Case(title, agents, ring, min(max(1, round(agents * share)), LARGEST), share != lent)

    found = [case("as planned", most)]
    if question.variants:
        if most > 5:
            found.append(case(f"{most - 5} agents", most - 5))
        found.append(case(f"{most + 5} agents", most + 5))
        shorter = max(question.min_ring, round(question.ring_timeout * 0.75))
        for ring in (shorter, round(question.ring_timeout * 1.25)):
            if abs(ring - question.ring_timeout) >= 1:
                found.append(case(f"ringing {ring:g} s", most, ring))
        if lent < 0.995:
            found.append(case("agents not shared", most, share=1.0))
    return found


@dataclass(frozen=True, slots=True)
class _Pair:
    """The same time played as the campaign paces, and one for one as lists are that only some may call."""

    paced: _Played
    one_each: _Played


def _played_in_pairs(question: Question, agents: int, ring: float, rate: float, seed: int) -> _Pair:
    """Each played only where there are such lists."""
    whose = {pool.whose == ALL for pool in question.pools}
    alike = question.mode in BY_HAND or question.mode == "progressive"
    modes = [question.mode if all_may or alike else "progressive" for all_may in sorted(whose, reverse=True)]
    seconds = _long_enough(agents, question.seconds)
    played = {mode: play(question, mode, agents, ring, rate, seconds, seed) for mode in dict.fromkeys(modes)}
    return _Pair(played[modes[0]], played[modes[-1]])


def _assigned(question: Question, way: Way) -> tuple[Assigned, ...]:
    contacts: dict[int, int] = {}
    for pool in question.pools:
        contacts[pool.whose] = contacts.get(pool.whose, 0) + pool.contacts
    return tuple(
        Assigned(told=one.told, agents=one.agents, contacts=contacts[n], through=way.through_of.get(n))
        for n, one in enumerate(question.assignments)
        if n in contacts
    )


def _sharing(question: Question, work: Work, way: Way) -> tuple[Sharing, ...]:
    lent, most = work.lent(), max(shift.agents for shift in question.rota)
    if lent is None:
        return ()
    ours = {n for crew in question.crews for n in crew.rivals}
    return tuple(
        Sharing(
            campaign=rival.name,
            priority=rival.priority,
            first=rival.rank > question.rank,
            contacts=rival.contacts,
            agents=round(lent.rivals[n] * most / question.people, 1),
            through=way.rival_through.get(n),
        )
        for n, rival in enumerate(question.rivals)
        if rival.contacts and n in ours and rival.rank >= question.rank
    )


def _quotas(question: Question, way: Way) -> tuple[QuotaOf, ...]:
    found = []
    for n, one in enumerate(question.limited):
        rested = way.rested.get(n)
        found.append(
            QuotaOf(
                list=one.name,
                told=", ".join(limit.told for limit in one.limits),
                reached=rested.first if rested is not None else None,
                days=rested.days if rested is not None else 0,
                for_good=rested is not None and rested.for_good,
                contacts_left=round(rested.left) if rested is not None else 0,
            )
        )
    return tuple(found)


def _in_time_share(question: Question, ring: float) -> float:
    to_answer = pulled(question.history.to_answer, question.history.to_answer_of, 9.0, 20.0)
    return _in_time(to_answer, ring) / max(_in_time(to_answer, question.ring_timeout), 0.05)


def _long_enough(agents: int, seconds: float) -> float:
    """Seconds that are played: with few agents long, so that enough calls are lost to be counted, if there is time."""
    return min(5400.0, max(900.0, 45_000.0 / agents)) * min(max(seconds / 15.0, 0.25), 1.0)


def _speed_of(runs: dict[int, list[_Pair]]) -> Speed:
    """Calls an agent an hour by the number of agents: straight lines between what was played."""
    known = sorted(
        (agents, fmean(run.paced.calls_per_agent_hour for run in played))
        for agents, played in runs.items()
        if played
    )

    def paced(agents: float) -> float:
        if agents <= known[0][0]:
            return known[0][1]
        for (a, low), (b, high) in pairwise(known):
            if agents <= b:
                return low + (high - low) * (agents - a) / (b - a)
        return known[-1][1]

    one_each = fmean(run.one_each.calls_per_agent_hour for played in runs.values() for run in played)
    return Speed(paced=paced, one_each=one_each)


def _expected(
    question: Question,
    work: Work,
    rates: Rates,
    case: _Case,
    pairs: Sequence[_Pair],
    speed: Speed,
    more: int,
    unsure: bool,
) -> tuple[Expected, Way]:
    """`unsure`: also when it is through at the earliest and the latest."""
    share = _in_time_share(question, case.ring)
    way = work.through(rates, 1.0, speed, more, share)
    level = rates.overall
    early = work.through(rates, level.high / level.mean, speed, more, share) if unsure else way
    late = work.through(rates, level.low / level.mean, speed, more, share) if unsure else way
    runs = [_mixed(pair.paced, pair.one_each, way.one_for_one) for pair in pairs]
    busy = between([run.busy for run in runs], 0.0, 1.0)
    talk = pulled(question.history.talk, question.history.talk_of, 90.0, 20.0)
    wrap = pulled(question.history.wrap, question.history.wrap_of, question.history.usual_wrap, 20.0)
    of_talk = talk / (talk + wrap)
    connected = fmean(run.connected_per_agent_hour for run in runs)
    part, working = way.one_for_one, case.agents * way.lent
    ends = sorted(one for one in (early.through, way.through, late.through) if one is not None)
    expected = Expected(
        title=case.title,
        agents=case.agents,
        ring_timeout=case.ring,
        busy=busy,
        talk_minutes=Between(
            mean=60 * of_talk * busy.mean, low=60 * of_talk * busy.low, high=60 * of_talk * busy.high
        ),
        idle=3600 * (1 - busy.mean) / connected if connected else 3600.0,
        customer_wait=fmean(run.waited for run in runs),
        abandonment=_abandoned(runs),
        calls_per_hour=((1 - part) * speed.paced(working) + part * speed.one_each) * working,
        lines=max(run.lines for run in runs),
        calls_per_second=max(run.calls_per_second for run in runs),
        reached=way.reached,
        reached_in_time=way.reached_by_then,
        called_once=way.once,
        through=way.through,
        through_early=ends[0] if ends else None,
        through_late=None if None in (early.through, late.through) else ends[-1],
    )
    return expected, way


def _needed(question: Question, work: Work, rates: Rates, speed: Speed, most: int) -> int | None:
    """The fewest agents, at the busiest of the rota, with whom the list is through by the wanted time; within 1 %."""
    assert question.finish_by is not None

    def enough(agents: int) -> bool:
        way = work.through(rates, 1.0, speed, agents - most, until=question.finish_by)
        return way.through is not None and way.through <= cast(datetime, question.finish_by)

    high = max(2 * most, 8)
    while not enough(high):
        high *= 2
        if high > 5000:
            return None
    low = 0
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _holds(question: Question, expected: Expected) -> bool | None:
    """Whether the goal is met; None if none was set."""
    if question.finish_by is None and question.abandonment is None:
        return None
    in_time = question.finish_by is None or (
        expected.through is not None and expected.through <= question.finish_by
    )
    wanted = question.cap if question.abandonment is None else question.abandonment
    return in_time and expected.abandonment.mean <= wanted


def _agentless(question: Question) -> DryRun:
    """No agents: the lines and the calls a second decide."""
    rates = rates_of(question.history)
    rate, held = rates.overall.mean, 30.0
    each = 2.5 + (1 - rate) * question.ring_timeout + rate * (9.0 + held)
    per_hour = 3600 * min(question.calls_per_second, question.max_lines / each)
    rota = question.rota or (Shift(days=tuple(range(7)), start=9 * 60, end=17 * 60, agents=1),)
    one = within_rota(
        msgspec.structs.replace(
            question, rota=tuple(msgspec.structs.replace(shift, agents=1) for shift in rota)
        )
    )
    if not one.pools:
        raise Impossible(f"{NEVER_OPEN}: ask for other hours (--hours), or see cti lists show")
    nobody = Between(mean=0.0, low=0.0, high=0.0)
    way = Work(one).through(rates, 1.0, Speed(paced=lambda _: per_hour))
    expected = Expected(
        title="as planned",
        agents=0,
        ring_timeout=question.ring_timeout,
        busy=nobody,
        talk_minutes=nobody,
        idle=0.0,
        customer_wait=0.0,
        abandonment=nobody,
        calls_per_hour=per_hour,
        lines=min(question.max_lines, math.ceil(question.calls_per_second * each)),
        calls_per_second=min(question.calls_per_second, per_hour / 3600),
        reached=way.reached,
        reached_in_time=way.reached_by_then,
        called_once=way.once,
        through=way.through,
        through_early=way.through,
        through_late=way.through,
    )
    quotas = _quotas(question, way)
    return DryRun(
        says=tuple(_says(question, (expected,), (), (), 1.0, quotas, None, 0)),
        basis=tuple(_basis(one, rates)),
        callable=_callable(one),
        dropped=one.dropped,
        open_hours=open_hours(one),
        answer_rate=rates.overall,
        expected=(expected,),
        assigned=(),
        sharing=(),
        lent=1.0,
        quotas=quotas,
        agents_needed=None,
        holds=_holds(question, expected),
        complete=True,
    )


# ------------------------------------------------------------------------------------------------ in words


def _says(
    question: Question,
    expected: Sequence[Expected],
    assigned: Sequence[Assigned],
    sharing: Sequence[Sharing],
    lent: float,
    quotas: Sequence[QuotaOf],
    needed: int | None,
    most: int,
) -> Iterable[str]:
    zone, first = ZoneInfo(question.zone), expected[0]

    def when(moment: datetime | None) -> str:
        return (
            moment.astimezone(zone).strftime("%a %d %b %H:%M")
            if moment
            else f"not within {LONGEST_DAYS} days"
        )

    alike = ", as many of each who may call assigned lists" if assigned else ""
    if question.finish_by is not None:
        in_time = first.through is not None and first.through <= question.finish_by
        told = "in time" if in_time else "NOT in time"
        yield f"{told}: through {when(first.through)}, wanted by {when(question.finish_by)}"
        if not in_time:
            yield (
                f"{needed} agents would be through by then{alike}"
                if needed is not None
                else "no number of agents is through by then: contacts are called again only after a while, at most "
                f"{question.max_attempts} times; ask for fewer attempts or shorter pauses"
                + (", or larger quotas" if any(one.reached for one in quotas) else "")
            )
            yield (
                f"by then {first.reached_in_time:.0%} of the contacts will have been reached,"
                f" of {first.reached:.0%} in the end"
            )
        elif needed is not None and needed < most:
            yield f"{needed} agents would be enough"
    wanted = question.cap if question.abandonment is None else question.abandonment
    lost = first.abandonment
    if question.mode not in ("agentless", "manual", "preview", "progressive"):
        yield (
            f"abandoned {lost.mean:.1%} of those who answer ({lost.low:.1%} to {lost.high:.1%}), {wanted:.1%} wanted: "
            + ("held" if lost.mean <= wanted else "NOT held; a lower abandonment_cap makes it more careful")
        )
    if question.mode != "agentless":
        yield f"an agent talks {first.talk_minutes.mean:.0f} minutes in the hour and waits {first.idle:.0f} s for a call"
    yield (
        f"{first.calls_per_hour:.0f} calls an hour; {first.lines} lines and {first.calls_per_second:g} calls a second at the"
        " busiest"
    )
    yield f"everybody called once {when(first.called_once)}; {first.reached:.0%} reached in the end"
    for one in sorted(
        assigned, key=lambda one: one.through or datetime.max.replace(tzinfo=zone), reverse=True
    )[:LISTS_TOLD]:
        yield (
            f"{one.contacts} contacts for {one.told} ({one.agents} of the campaign's people), one for one:"
            f" through {when(one.through)}"
        )
    if len(assigned) > LISTS_TOLD:
        yield f"and {len(assigned) - LISTS_TOLD} more such lists, through before"
    yield from _told_of_quotas(quotas, when)
    yield from _told_of_sharing(sharing, lent, most, when)
    nothing = sum(crew.share for crew in question.crews if not crew.may)
    if nothing > 0.005 and all(pool.whose != ALL for pool in question.pools):
        yield f"{nothing * most:.0f} of the agents may call none of its lists"
    for other in expected[1:]:
        yield (
            f"{other.title}: through {when(other.through)}, {other.talk_minutes.mean:.0f} minutes of talk,"
            f" {other.abandonment.mean:.1%} abandoned"
        )


def _told_of_quotas(quotas: Sequence[QuotaOf], when: Callable[[datetime | None], str]) -> Iterable[str]:
    for one in quotas[:LISTS_TOLD]:
        if one.reached is None:
            yield f"list {one.list}: its quota ({one.told}) is not reached"
        elif one.for_good:
            days = f", on {one.days} days" if one.days > 1 else ""
            yield (
                f"list {one.list}: quota reached ({one.told}) {when(one.reached)}{days};"
                f" {one.contacts_left} of its contacts are not called any more"
            )
        else:
            yield (
                f"list {one.list}: quota reached ({one.told}) on {one.days} days, first {when(one.reached)};"
                " it rests until midnight then"
            )
    if len(quotas) > LISTS_TOLD:
        yield f"and {len(quotas) - LISTS_TOLD} more lists with quotas"


def _told_of_sharing(
    sharing: Sequence[Sharing], lent: float, most: int, when: Callable[[datetime | None], str]
) -> Iterable[str]:
    if not sharing:
        return
    yield f"shared agents: {lent:.0%} of the {most} agents' time is this campaign's until it is through"
    for one in sharing[:LISTS_TOLD]:
        order = "comes first" if one.first else "shares alike"
        yield (
            f"{one.campaign} (priority {one.priority}) {order}: {one.agents:g} agents in its hours, until its"
            f" {one.contacts} contacts are called, {when(one.through)}"
        )
    if len(sharing) > LISTS_TOLD:
        yield f"and {len(sharing) - LISTS_TOLD} more campaigns that share agents"


def _basis(question: Question, rates: Rates) -> Iterable[str]:
    history, of = question.history, sum(question.history.tried)
    rate = rates.overall
    thin = " (thin: mostly the usual value)" if of < USUAL_WEIGHT else ""
    yield f"answered {rate.mean:.0%} ({rate.low:.0%} to {rate.high:.0%}), from {of} attempts{thin}"
    known = sum(count >= HOUR_WEIGHT for count in history.tried)
    yield f"{known} hours of the day known by themselves, the others taken to be like all"
    for name, mean, of_calls, usual in (
        ("talk", history.talk, history.talk_of, 90.0),
        ("wrap-up", history.wrap, history.wrap_of, history.usual_wrap),
    ):
        told = pulled(mean, of_calls, usual, 20.0)
        yield f"{name} {told:.0f} s, from {of_calls} calls{' (thin: mostly the usual value)' if of_calls < 20 else ''}"
    never = sum(pool.ready[0] for pool in question.pools if pool.ready)
    never += sum(count for pool in question.pools for _, tries, count in pool.due if not tries)
    later = sum(count for pool in question.pools for _, _, count in pool.due)
    several = sum(pool.contacts for pool in question.pools if len(pool.open) > 1)
    yield (
        f"{_callable(question)} contacts may be called, {never} never tried"
        + (f", {later} not before later" if later else "")
        + (f", {several} on more than one number" if several else "")
    )
    if len(history.tried_of) > 1 and sum(history.tried_of[1:]) >= HOUR_WEIGHT:
        shares = (f"{rate.mean * rates.of_attempt(n):.0%}" for n in range(min(len(history.tried_of), 5)))
        yield f"answered by attempt, the first to the fifth: {', '.join(shares)}"
    for limit in (limit for one in question.limited for limit in one.limits if limit.counts == "disposition"):
        thin = " (thin: mostly the usual value)" if history.live < USUAL_SAID_WEIGHT else ""
        yield (
            f"{share_said(question, limit):.1%} of the talks end with {limit.disposition}, from {history.live} talks{thin}"
        )
    if question.rota:
        yield (
            f"{'calls' if question.mode == 'agentless' else 'at work'}: {'; '.join(_shifts(question))} ({question.zone})"
            + (
                ", taken for granted: the campaign has no schedule, and no hours were said"
                if question.office_hours
                else ""
            )
        )
    if question.dropped:
        yield f"{sum(one.count for one in question.dropped)} are not called: " + "; ".join(_dropped(question))
    hours = open_hours(question)
    if hours and min(hour.share for hour in hours) < 0.995:
        zone = ZoneInfo(question.zone)
        ends = min(hours, key=lambda hour: hour.share), max(hours, key=lambda hour: hour.share)
        least, most = (f"{hour.share:.0%} at {hour.begin.astimezone(zone):%a %H:%M}" for hour in ends)
        yield f"of these contacts the zones are open in the rota's hours: {least} to {most}"


def _shifts(question: Question) -> Iterable[str]:
    """The rota in words: agents, days, hours."""
    for shift in question.rota[:SHIFTS_TOLD]:
        days = [DAYS[day].capitalize() for day in sorted(shift.days)]
        row = len(days) > 2 and max(shift.days) - min(shift.days) == len(days) - 1
        start, end = (f"{minutes // 60:02d}:{minutes % 60:02d}" for minutes in (shift.start, shift.end))
        many = "1 agent " if shift.agents == 1 else f"{shift.agents} agents "
        many = "" if question.mode == "agentless" else many
        yield f"{many}{f'{days[0]} to {days[-1]}' if row else ', '.join(days)} {start}-{end}"
    if len(question.rota) > SHIFTS_TOLD:
        yield f"and {len(question.rota) - SHIFTS_TOLD} more shifts"


def _callable(question: Question) -> int:
    return sum(pool.contacts for pool in question.pools)


def _dropped(question: Question) -> Iterable[str]:
    return (f"{one.count} {one.says}" for one in question.dropped)


# ------------------------------------------------------------------------------------------------ a process of its own


def main() -> None:
    """Answers the question on standard input; exit code 3 and a sentence where there is nothing to plan."""
    os.nice(10)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        answer = plan(question)
    except Impossible as error:
        sys.stderr.write(str(error))
        raise SystemExit(3) from None
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
