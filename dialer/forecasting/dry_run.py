"""The dry run of a campaign: what will happen before it happens, from the list's own history and the rota.

The pace itself is played against simulated customers (`dialer/simulation.py`) who answer, talk and wait as those of the
history did; then the list is worked through hour by hour of the rota at the speed that came of it. What is not known is
taken from careful usual values, and the answer says so. Pure and without a clock; `python -m dialer.forecasting.dry_run`
answers one question from standard input, so that a server lets it run beside itself, ends it when it likes and never waits
for it.
"""

from __future__ import annotations

import heapq
import math
import os
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec

from cti.frozen import Frozen
from dialer.attempts import left_to_connect
from dialer.law.abandoned import lost_share
from dialer.pacing import Mode, Pacing, PacingConfig
from dialer.simulation import Duration, Simulation, Traffic

USUAL_ANSWER = 0.2
USUAL_WEIGHT = 60.0
"""The share of calls answered that is assumed where nothing is known, and as how many attempts that counts."""

HOUR_WEIGHT = 40.0
"""As how many attempts of its own an hour is taken to be like all hours."""

LOOKING = 25.0
"""Seconds that an agent looks at a contact in mode preview or manual before the call."""

LONGEST_DAYS = 60
"""Days of the rota that are looked ahead."""

LARGEST = 400
"""Agents that are played; more are taken to be as busy as so many."""

RUNS, RUNS_OF_CHANGES = 5, 2
"""Times that the plan, and each change of it, is played, if there is time."""

NEVER_OPEN = "calling hours there and the rota never meet"

STUDENT = (12.71, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


class Shift(Frozen, frozen=True, gc=False, kw_only=True):
    """So many agents on these weekdays (0 is Monday), from and to minutes after midnight, in the question's zone."""

    days: tuple[int, ...]
    start: int
    end: int
    agents: int


class History(Frozen, frozen=True, gc=False, kw_only=True):
    """What is known of the list. `tried`, `answered`: attempts that are over and those somebody or a machine answered, by
    hour of the day in the question's zone (24 each); `machines`: the share of answers that were machines; seconds with how
    many calls each mean is of."""

    tried: tuple[int, ...] = (0,) * 24
    answered: tuple[int, ...] = (0,) * 24
    live: int = 0
    to_answer: float = 9.0
    to_answer_of: int = 0
    talk: float = 90.0
    talk_spread: float = 0.9
    talk_of: int = 0
    wrap: float = 20.0
    wrap_of: int = 0


class Pool(Frozen, frozen=True, gc=False, kw_only=True):
    """Contacts whose zones are open at the same times: from, to before, in seconds since 1970, in order; None: always.
    `ready`: how many have had 0, 1, 2… attempts and may be called at once; `due`: (when, attempts so far, how many) of the
    others."""

    open: tuple[tuple[int, int], ...] | None = None
    ready: tuple[int, ...] = ()
    due: tuple[tuple[int, int, int], ...] = ()

    @property
    def contacts(self) -> int:
        """How many there are."""
        return sum(self.ready) + sum(count for _, _, count in self.due)


class Dropped(Frozen, frozen=True, gc=False, kw_only=True):
    """So many contacts are not called, and why. `code`: done, skipped, blocked, attempts_used_up, no_zone, never_open, or
    `law:` and the rule that refuses."""

    code: str
    says: str
    count: int


class OpenHour(Frozen, frozen=True, gc=False, kw_only=True):
    """An hour of the rota, or the part of one: how many of the contacts are in zones that are open then, a share of 1."""

    begin: datetime
    share: float


class Question(Frozen, frozen=True, gc=False, kw_only=True):
    """What is asked. `pools`: the contacts that may be called; `dropped`: the others. `retry_minutes`: until the
    next attempt after the first that reached nobody, the second… `finish_by`, `abandonment`: the goal, if there is one; the
    `cap` is what the law or the settings allow; `error_share` of the detected machines are people who count as lost.
    `seconds`: that the answer may take."""

    mode: str
    now: datetime
    zone: str
    rota: tuple[Shift, ...]
    pools: tuple[Pool, ...]
    history: History
    dropped: tuple[Dropped, ...] = ()
    max_attempts: int = 6
    retry_minutes: tuple[int, ...] = (180, 1440, 1440, 2880)
    cap: float = 0.03
    window_h: float = 24.0
    error_share: float = 0.0
    answer_wait: float = 2.0
    min_ring: float = 15.0
    ring_timeout: float = 24.0
    calls_per_second: float = 10.0
    max_lines: int = 1000
    ratio: float = 1.5
    few_agents: int = 3
    amd: bool = False
    finish_by: datetime | None = None
    abandonment: float | None = None
    seconds: float = 30.0
    variants: bool = True


class Between(Frozen, frozen=True, gc=False, kw_only=True):
    """A value and where it lies in 19 of 20 cases, as far as can be told."""

    mean: float
    low: float
    high: float


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


class DryRun(Frozen, frozen=True, gc=False, kw_only=True):
    """The answer. `says`: in words, the goal first; `basis`: what it rests on, and what is thin. `callable` contacts are
    called, `dropped` are not; `open_hours`: of how many the zones are open, by the hours of the rota's first week.
    `expected`: as planned,
    then what a change would make of it. `agents_needed`: to be through by the wanted time, None if no number of them is
    enough or no time was wanted. `complete`: whether there was time for all of it."""

    says: tuple[str, ...]
    basis: tuple[str, ...]
    callable: int
    dropped: tuple[Dropped, ...]
    open_hours: tuple[OpenHour, ...]
    answer_rate: Between
    expected: tuple[Expected, ...]
    agents_needed: int | None
    holds: bool | None
    complete: bool


class Impossible(ValueError):
    """There is nothing to plan; the message says why and what to do."""


# ------------------------------------------------------------------------------------------------ what is known


@dataclass(frozen=True, slots=True)
class Rates:
    """The share of attempts answered by hour of the day, and over all with what is known of it."""

    by_hour: tuple[float, ...]
    overall: Between


def rates_of(history: History) -> Rates:
    """Answer rates with careful usual values: an hour of which little is known is like all hours, all hours like usual."""
    tried, answered = sum(history.tried), sum(history.answered)
    weight = tried + USUAL_WEIGHT
    mean = (answered + USUAL_ANSWER * USUAL_WEIGHT) / weight
    # Contacts differ and days differ: known less well than so many throws of one coin.
    half = 1.96 * math.sqrt(mean * (1 - mean) / (min(tried, 2000) * 0.5 + USUAL_WEIGHT * 0.25))
    by_hour = tuple(
        (a + mean * HOUR_WEIGHT) / (t + HOUR_WEIGHT)
        for t, a in zip(history.tried, history.answered, strict=True)
    )
    return Rates(by_hour, Between(mean=mean, low=max(0.005, mean - half), high=min(0.98, mean + half)))


def pulled(mean: float, of: int, usual: float, weight: float) -> float:
    """A mean of so many, pulled towards the usual where they are few."""
    return (mean * of + usual * weight) / (of + weight)


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
    question: Question, agents: int, ring_timeout: float, rate: float, seconds: float, seed: int
) -> _Played:
    """Plays some time of the pace with so many agents."""
    history = question.history
    by_hand = question.mode in ("manual", "preview")
    talk = pulled(history.talk, history.talk_of, 90.0, 20.0)
    wrap = pulled(history.wrap, history.wrap_of, 20.0, 20.0) + (LOOKING if by_hand else 0.0)
    to_answer = pulled(history.to_answer, history.to_answer_of, 9.0, 20.0)
    answers = sum(history.answered)
    machines = (answers - history.live + 3.0) / (answers + 20.0) if answers else 0.15
    wait = left_to_connect(question.answer_wait, amd=question.amd)
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
    mode = cast(Mode, "progressive" if by_hand else question.mode)
    cap = question.cap if question.abandonment is None else min(question.cap, question.abandonment)
    pace = _Watched(
        Pacing(
            PacingConfig(
                mode=mode,
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


# ------------------------------------------------------------------------------------------------ the list, worked through


@dataclass(slots=True)
class _Way:
    once: datetime | None = None
    through: datetime | None = None
    reached: float = 0.0
    reached_by_then: float = 0.0


def work_through(
    question: Question,
    rates: Rates,
    level: float,
    calls: Callable[[int], float],
    more: int = 0,
    share: float = 1.0,
) -> _Way:
    """Goes through the list hour by hour of the rota, each contact only while its zones are open. `calls(agents)`: an
    agent's calls an hour at the overall answer rate; `level`: a factor on all rates; `more` agents than the rota says;
    `share`: a factor on the rates by another ring time."""
    live_share = _live_share(question.history)
    most = question.max_attempts
    ready = [[0.0] * most for _ in question.pools]
    waiting: list[tuple[float, int, int, float]] = []  # when, pool, attempts so far, how many
    for number, pool in enumerate(question.pools):
        for tried_before, so_many in enumerate(pool.ready):
            ready[number][min(tried_before, most - 1)] += so_many
        waiting += [(at, number, min(tries, most - 1), float(count)) for at, tries, count in pool.due]
    heapq.heapify(waiting)
    total = left = float(sum(pool.contacts for pool in question.pools))
    untried = sum(pool[0] for pool in ready) + sum(count for _, _, tries, count in waiting if not tries)
    done, way = 0.0, _Way()
    zone = ZoneInfo(question.zone)
    for begin, part, agents, are_open in _hours(question, zone):
        agents = max(0, agents + more)
        if left < 0.5:
            way.through = begin
            break
        while waiting and waiting[0][0] <= begin.timestamp():
            _, number, tries, count = heapq.heappop(waiting)
            ready[number][tries] += count
        if not agents and question.mode != "agentless":
            continue
        open_now = sum(sum(ready[number]) for number in are_open)
        rate = min(0.95, rates.by_hour[begin.astimezone(zone).hour] * level * share)
        # Agents are as busy as at the rate that was played: with more answers they need fewer calls.
        can = calls(agents) * agents * part * rates.overall.mean * share / max(rate, 0.01)
        can = min(can, question.calls_per_second * 3600 * part)
        taking = min(1.0, can / open_now) if open_now > 0 else 0.0
        end = begin + timedelta(hours=part * min(1.0, open_now / can if can > 0 else 1.0))
        for number in are_open:
            for tries, count in enumerate(ready[number]):
                tried = count * taking
                if tried <= 0:
                    continue
                ready[number][tries] -= tried
                untried -= tried if not tries else 0.0
                reached = tried * rate * live_share
                done += reached
                left -= reached if tries + 1 < most else tried
                if tries + 1 < most:
                    minutes = question.retry_minutes[min(tries, len(question.retry_minutes) - 1)]
                    due = begin.timestamp() + minutes * 60
                    heapq.heappush(waiting, (due, number, tries + 1, tried - reached))
        if question.finish_by is None or end <= question.finish_by:
            way.reached_by_then = done / total
        if way.once is None and untried < 0.5:
            way.once = end
        if left < 0.5:
            way.through = end
            break
    way.reached = done / total if total else 0.0
    return way


def _live_share(history: History) -> float:
    answers = sum(history.answered)
    return (history.live + 17.0) / (answers + 20.0) if answers else 0.85


def _hours(question: Question, zone: ZoneInfo) -> Iterable[tuple[datetime, float, int, list[int]]]:
    """(begin in UTC, part of an hour, agents, the pools that are open) of the rota, from now on; pools open and close
    between, not within."""
    edges = sorted({edge for pool in question.pools for span in pool.open or () for edge in span})
    for begin, over, agents in _shifts(question, zone):
        first, last = begin.timestamp(), over.timestamp()
        cuts = edges[bisect_right(edges, first) : bisect_left(edges, last)]
        for start, end in pairwise((first, *cuts, last)):
            are_open = [number for number, pool in enumerate(question.pools) if _open(pool, start)]
            yield datetime.fromtimestamp(start, UTC), (end - start) / 3600, agents, are_open


def _open(pool: Pool, at: float) -> bool:
    if pool.open is None:
        return True
    place = bisect_right(pool.open, (at, math.inf)) - 1
    return place >= 0 and at < pool.open[place][1]


def _shifts(question: Question, zone: ZoneInfo) -> Iterable[tuple[datetime, datetime, int]]:
    """(begin, end, agents) of the rota, hour by hour, in UTC."""
    first = question.now.astimezone(zone).date()
    for ahead in range(LONGEST_DAYS):
        day = first + timedelta(days=ahead)
        shifts = [shift for shift in question.rota if day.weekday() in shift.days]
        edges = {edge for shift in shifts for edge in (shift.start, shift.end)}
        edges |= {m for shift in shifts for m in range(shift.start - shift.start % 60 + 60, shift.end, 60)}
        for start, end in pairwise(sorted(edges)):
            agents = sum(shift.agents for shift in shifts if shift.start <= start and end <= shift.end)
            begin, over = _moment(day, start, zone), _moment(day, end, zone)
            begin = max(begin, question.now)
            if over > begin:
                yield begin, over, agents


def open_hours(question: Question) -> tuple[OpenHour, ...]:
    """Of how many contacts the zones are open, by the hours of the rota's first week."""
    total = sum(pool.contacts for pool in question.pools)
    found: dict[datetime, float] = {}
    for begin, part, agents, are_open in _hours(question, ZoneInfo(question.zone)):
        if begin >= question.now + timedelta(days=7):
            break
        if agents and total:
            hour = begin.replace(minute=0, second=0, microsecond=0)
            now_open = sum(question.pools[number].contacts for number in are_open)
            found[hour] = found.get(hour, 0.0) + part * now_open / total
    return tuple(OpenHour(begin=hour, share=round(min(1.0, share), 4)) for hour, share in found.items())


def within_rota(question: Question) -> Question:
    """The question without the contacts whose zones are never open while somebody works."""
    met = {
        number
        for _, _, agents, are_open in _hours(question, ZoneInfo(question.zone))
        if agents or question.mode == "agentless"
        for number in are_open
    }
    never = sum(pool.contacts for number, pool in enumerate(question.pools) if number not in met)
    if not never:
        return question
    pools = tuple(pool for number, pool in enumerate(question.pools) if number in met)
    known = [one for one in question.dropped if one.code != "never_open"]
    never += sum(one.count for one in question.dropped if one.code == "never_open")
    told = Dropped(code="never_open", says=NEVER_OPEN, count=never)
    return msgspec.structs.replace(question, pools=pools, dropped=(*known, told))


def _moment(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    later, minutes = divmod(minutes, 1440)
    naive = datetime(day.year, day.month, day.day, *divmod(minutes, 60)) + timedelta(days=later)  # noqa: DTZ001
    return naive.replace(tzinfo=zone).astimezone(UTC)


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
    rates = rates_of(question.history)
    until = clock() + question.seconds
    wanted: list[tuple[str, int, float]] = [("as planned", most, question.ring_timeout)]
    if question.variants:
        wanted.append((f"{most + 5} agents", most + 5, question.ring_timeout))
        if most > 5:
            wanted.insert(1, (f"{most - 5} agents", most - 5, question.ring_timeout))
        shorter = max(question.min_ring, round(question.ring_timeout * 0.75))
        for ring in (shorter, round(question.ring_timeout * 1.25)):
            if abs(ring - question.ring_timeout) >= 1:
                wanted.append((f"ringing {ring:g} s", most, ring))
    runs: dict[str, list[_Played]] = {title: [] for title, _, _ in wanted}
    complete = True
    for seed in range(1, RUNS + 1):
        for title, agents, ring in wanted:
            if seed > (RUNS if title == "as planned" else RUNS_OF_CHANGES):
                continue
            if runs[title] and clock() > until:
                complete = False
                continue
            agents = min(agents, LARGEST)
            runs[title].append(
                play(question, agents, ring, rates.overall.mean, _long_enough(agents, question.seconds), seed)
            )
    calls = _calls_of(
        {agents: runs[title] for title, agents, ring in wanted if ring == question.ring_timeout}
    )
    expected = tuple(
        _expected(question, rates, title, agents, ring, runs[title], calls, agents - most)
        for title, agents, ring in wanted
        if runs[title]
    )
    needed = _needed(question, rates, calls, most) if question.finish_by is not None else None
    holds = _holds(question, expected[0])
    return DryRun(
        says=tuple(_says(question, expected, needed, most)),
        basis=tuple(_basis(question, rates)),
        callable=_callable(question),
        dropped=question.dropped,
        open_hours=open_hours(question),
        answer_rate=rates.overall,
        expected=expected,
        agents_needed=needed,
        holds=holds,
        complete=complete and len(expected) == len(wanted),
    )


def _in_time_share(question: Question, ring: float) -> float:
    to_answer = pulled(question.history.to_answer, question.history.to_answer_of, 9.0, 20.0)
    return _in_time(to_answer, ring) / max(_in_time(to_answer, question.ring_timeout), 0.05)


def _long_enough(agents: int, seconds: float) -> float:
    """Seconds that are played: with few agents long, so that enough calls are lost to be counted, if there is time."""
    return min(5400.0, max(900.0, 45_000.0 / agents)) * min(max(seconds / 15.0, 0.25), 1.0)


def _calls_of(runs: dict[int, list[_Played]]) -> Callable[[int], float]:
    """Calls an agent an hour by the number of agents: straight lines between what was played."""
    known = sorted(
        (agents, fmean(r.calls_per_agent_hour for r in played)) for agents, played in runs.items() if played
    )

    def calls(agents: int) -> float:
        if agents <= known[0][0]:
            return known[0][1]
        for (a, low), (b, high) in pairwise(known):
            if agents <= b:
                return low + (high - low) * (agents - a) / (b - a)
        return known[-1][1]

    return calls


def _expected(
    question: Question,
    rates: Rates,
    title: str,
    agents: int,
    ring: float,
    runs: Sequence[_Played],
    calls: Callable[[int], float],
    more: int,
) -> Expected:
    share = _in_time_share(question, ring)
    if ring != question.ring_timeout:
        calls = _calls_of({agents: list(runs)})
    busy = between([run.busy for run in runs], 0.0, 1.0)
    talk = pulled(question.history.talk, question.history.talk_of, 90.0, 20.0)
    wrap = pulled(question.history.wrap, question.history.wrap_of, 20.0, 20.0)
    of_talk = talk / (talk + wrap)
    connected = fmean(run.connected_per_agent_hour for run in runs)
    way = work_through(question, rates, 1.0, calls, more, share)
    level = rates.overall
    early = work_through(question, rates, level.high / level.mean, calls, more, share)
    late = work_through(question, rates, level.low / level.mean, calls, more, share)
    ends = sorted(one for one in (early.through, way.through, late.through) if one is not None)
    return Expected(
        title=title,
        agents=agents,
        ring_timeout=ring,
        busy=busy,
        talk_minutes=Between(
            mean=60 * of_talk * busy.mean, low=60 * of_talk * busy.low, high=60 * of_talk * busy.high
        ),
        idle=3600 * (1 - busy.mean) / connected if connected else 3600.0,
        customer_wait=fmean(run.waited for run in runs),
        abandonment=_abandoned(runs),
        calls_per_hour=calls(agents) * agents,
        lines=max(run.lines for run in runs),
        calls_per_second=max(run.calls_per_second for run in runs),
        reached=way.reached,
        reached_in_time=way.reached_by_then,
        called_once=way.once,
        through=way.through,
        through_early=ends[0] if ends else None,
        through_late=None if None in (early.through, late.through) else ends[-1],
    )


def _needed(question: Question, rates: Rates, calls: Callable[[int], float], most: int) -> int | None:
    """The fewest agents, at the busiest of the rota, with whom the list is through by the wanted time."""
    assert question.finish_by is not None

    def enough(agents: int) -> bool:
        way = work_through(question, rates, 1.0, calls, agents - most)
        return way.through is not None and way.through <= cast(datetime, question.finish_by)

    high = max(2 * most, 8)
    while not enough(high):
        high *= 2
        if high > 5000:
            return None
    low = 0
    while high - low > 1:
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
    way = work_through(one, rates, 1.0, lambda _: per_hour)
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
    return DryRun(
        says=tuple(_says(question, (expected,), None, 0)),
        basis=tuple(_basis(one, rates)),
        callable=_callable(one),
        dropped=one.dropped,
        open_hours=open_hours(one),
        answer_rate=rates.overall,
        expected=(expected,),
        agents_needed=None,
        holds=_holds(question, expected),
        complete=True,
    )


# ------------------------------------------------------------------------------------------------ in words


def _says(question: Question, expected: Sequence[Expected], needed: int | None, most: int) -> Iterable[str]:
    zone, first = ZoneInfo(question.zone), expected[0]

    def when(moment: datetime | None) -> str:
        return (
            moment.astimezone(zone).strftime("%a %d %b %H:%M")
            if moment
            else f"not within {LONGEST_DAYS} days"
        )

    if question.finish_by is not None:
        in_time = first.through is not None and first.through <= question.finish_by
        told = "in time" if in_time else "NOT in time"
        yield f"{told}: through {when(first.through)}, wanted by {when(question.finish_by)}"
        if not in_time:
            yield (
                f"{needed} agents would be through by then"
                if needed is not None
                else "no number of agents is through by then: contacts are called again only after a while, at most "
                f"{question.max_attempts} times; ask for fewer attempts or shorter pauses"
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
    for other in expected[1:]:
        yield (
            f"{other.title}: through {when(other.through)}, {other.talk_minutes.mean:.0f} minutes of talk,"
            f" {other.abandonment.mean:.1%} abandoned"
        )


def _basis(question: Question, rates: Rates) -> Iterable[str]:
    history, of = question.history, sum(question.history.tried)
    rate = rates.overall
    thin = " (thin: mostly the usual value)" if of < USUAL_WEIGHT else ""
    yield f"answered {rate.mean:.0%} ({rate.low:.0%} to {rate.high:.0%}), from {of} attempts{thin}"
    known = sum(count >= HOUR_WEIGHT for count in history.tried)
    yield f"{known} hours of the day known by themselves, the others taken to be like all"
    for name, of_calls in (("talk", history.talk_of), ("wrap-up", history.wrap_of)):
        mean = history.talk if name == "talk" else history.wrap
        usual = 90.0 if name == "talk" else 20.0
        told = pulled(mean, of_calls, usual, 20.0)
        yield f"{name} {told:.0f} s, from {of_calls} calls{' (thin: mostly the usual value)' if of_calls < 20 else ''}"
    never = sum(pool.ready[0] for pool in question.pools if pool.ready)
    never += sum(count for pool in question.pools for _, tries, count in pool.due if not tries)
    later = sum(count for pool in question.pools for _, _, count in pool.due)
    yield f"{_callable(question)} contacts may be called, {never} never tried" + (
        f", {later} not before later" if later else ""
    )
    if question.dropped:
        yield f"{sum(one.count for one in question.dropped)} are not called: " + "; ".join(_dropped(question))
    hours = open_hours(question)
    if hours and min(hour.share for hour in hours) < 0.995:
        zone = ZoneInfo(question.zone)
        ends = min(hours, key=lambda hour: hour.share), max(hours, key=lambda hour: hour.share)
        least, most = (f"{hour.share:.0%} at {hour.begin.astimezone(zone):%a %H:%M}" for hour in ends)
        yield f"of these contacts the zones are open in the rota's hours: {least} to {most}"


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
