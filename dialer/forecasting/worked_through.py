"""A list, worked through hour by hour of the rota: who is called when, by whom, and how far it comes. Pure, without a clock.

Contacts are a fluid: of those who are alike so many are called in an hour as the agents can, in the order of the lists'
priority, a list that is assigned to some only by them, and one for one; who is not reached comes again as their course says.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec

from cti.frozen import Frozen
from dialer.forecasting.courses import Course, course_of
from dialer.forecasting.question import (
    ALL,
    LONGEST_DAYS,
    NEVER_OPEN,
    NO_QUOTA,
    REFUSED,
    Crew,
    Dropped,
    History,
    Limit,
    OpenHour,
    Pool,
    Question,
    Rival,
)
from dialer.forecasting.sharing import Lending, Lent

USUAL_ANSWER = 0.2
USUAL_WEIGHT = 60.0
"""The share of calls answered that is assumed where nothing is known, and as how many attempts that counts."""

HOUR_WEIGHT = 40.0
"""As how many attempts of its own an hour is taken to be like all hours, and an attempt of its number like all attempts."""

USUAL_SAID, USUAL_SAID_WEIGHT = 0.1, 20.0
"""The share of talks that end with a disposition, where little is known, and as how many talks that counts."""

QUARTER = 900
"""Seconds: who is due within one is due at its end."""

GRAIN = 1e-3
"""Of a contact: less is not looked at by itself."""


class Between(Frozen, frozen=True, gc=False, kw_only=True):
    """A value and where it lies in 19 of 20 cases, as far as can be told."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rates:
    """The share of attempts answered by hour of the day, and over all with what is known of it; `by_attempt`: factors."""

    by_hour: tuple[float, ...]
    overall: Between
    by_attempt: tuple[float, ...] = ()

    def of_attempt(self, before: int) -> float:
        """By which factor the attempt after so many to a contact is answered more often than all, or less."""
        return self.by_attempt[min(before, len(self.by_attempt) - 1)] if self.by_attempt else 1.0


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
    by_attempt = tuple(
        (a + mean * HOUR_WEIGHT) / (t + HOUR_WEIGHT) / mean
        for t, a in zip(history.tried_of, history.answered_of, strict=True)
    )
    overall = Between(mean=mean, low=max(0.005, mean - half), high=min(0.98, mean + half))
    return Rates(by_hour, overall, by_attempt)


def pulled(mean: float, of: int, usual: float, weight: float) -> float:
    """A mean of so many, pulled towards the usual where they are few."""
    return (mean * of + usual * weight) / (of + weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Calls an agent's hour at the overall answer rate. `paced`: by how many agents there are; `one_each`: of lists that are
    called one for one."""

    paced: Callable[[float], float]
    one_each: float = 0.0


@dataclass(slots=True)
class Rested:
    """How a list's quota went: when it was reached first, on how many days, whether for good, and then how many contacts it
    had left."""

    first: datetime
    days: int = 0
    for_good: bool = False
    left: float = 0.0


@dataclass(slots=True)
class Way:
    """What came of a list: when everybody had been called once, when it was through and that of each assignment, of all
    contacts which share was reached, and of the agents' hours spent which share one for one. `rested`: lists whose quota
    was reached; `rival_through`: when rivals had called all of theirs; `lent`: of the agents' hours until then the share
    that was the campaign's."""

    once: datetime | None = None
    through: datetime | None = None
    through_of: dict[int, datetime] = field(default_factory=dict)
    reached: float = 0.0
    reached_by_then: float = 0.0
    one_for_one: float = 0.0
    rested: dict[int, Rested] = field(default_factory=dict)
    rival_through: dict[int, datetime] = field(default_factory=dict)
    lent: float = 1.0


class _Quota:
    """What a list's quotas leave, while it is worked through. `shares`: of the talks those that count, for each limit."""

    def __init__(self, limits: Sequence[Limit], shares: Sequence[float], today: date) -> None:
        self._limits = limits
        self._shares = shares
        self._so_far = [float(limit.so_far) for limit in limits]
        self._day = today
        self.rests = False

    def begin(self, day: date) -> None:
        """On another day, quotas of a day are as new."""
        if day != self._day:
            self._day, self.rests = day, False
            for n, limit in enumerate(self._limits):
                if limit.per == "day":
                    self._so_far[n] = 0.0

    def room(self, talks: float) -> float:
        """Attempts that are left, with so many talks of each."""
        left = math.inf
        for limit, share, so_far in zip(self._limits, self._shares, self._so_far, strict=True):
            each = 1.0 if limit.counts == "attempts" else talks * share
            left = min(left, max(0.0, limit.most - so_far) / each if each > 0 else math.inf)
        return left

    def count(self, tried: float, talks: float) -> None:
        """So many attempts were made, with so many talks."""
        for n, (limit, share) in enumerate(zip(self._limits, self._shares, strict=True)):
            self._so_far[n] += tried if limit.counts == "attempts" else talks * share

    def reached(self) -> Limit | None:
        """The limit that is reached; of several one that is for good."""
        hit = [
            limit
            for limit, so_far in zip(self._limits, self._so_far, strict=True)
            if limit.most - so_far < GRAIN * 10
        ]
        return min(hit, key=lambda limit: limit.per != "total", default=None)


@dataclass(frozen=True, slots=True)
class _Hour:
    begin: datetime
    part: float
    agents: int
    are_open: tuple[int, ...]


class Work:
    """A question's contacts, made ready to be worked through again and again.

    A slot is where contacts stand who are alike: of a pool, after so many attempts, with the number that is next.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._zone = ZoneInfo(question.zone)
        self._hours = list(_hours(question, self._zone))
        courses = courses_of(question)
        self._crews = question.crews or (Crew(share=1.0),)
        self._begin: list[float] = []
        self._tries: list[int] = []
        self._whose: list[int] = []
        self._place_of: list[tuple[int, int, int, int]] = []
        self._next: list[list[tuple[int, int, float]]] = []
        self._goes_on: list[float] = []
        self._due: list[tuple[int, int, float]] = []
        for pool in question.pools:
            self._add(pool, courses[pool.rules])
        # Lists by priority; in them those first that the fewest may call.
        self._order = sorted(
            {(priority, whose, limited) for priority, whose, limited, _ in self._place_of},
            key=lambda one: (-one[0], one[1] == ALL, self._share(one[1]), one[2] == NO_QUOTA, one[2]),
        )
        # First who may call the fewest other lists.
        crews = sorted(range(len(self._crews)), key=lambda n: len(self._crews[n].may))
        self._crews_of = {
            whose: [n for n in crews if whose == ALL or whose in self._crews[n].may]
            for _, whose, _ in self._order
        }
        self._contacts_of: dict[tuple[int, int], float] = {}
        for pool in question.pools:
            place = pool.whose, pool.limited
            self._contacts_of[place] = self._contacts_of.get(place, 0.0) + pool.contacts
        self._house = ZoneInfo(question.house_zone)
        self._shares = [[share_said(question, limit) for limit in one.limits] for one in question.limited]
        self._lending = (
            Lending(question.people, self._crews, question.elsewhere, question.rivals, question.rank)
            if question.rivals and question.people
            else None
        )

    def lent(self) -> Lent | None:
        """How the people are lent while all rivals have somebody to call; None: nobody else takes of them."""
        wanting = frozenset(n for n, rival in enumerate(self._question.rivals) if rival.contacts)
        return self._lending.of(wanting) if self._lending is not None else None

    def usual_share(self) -> float:
        """Of the agents the share that the campaign has in the hours of the first week in which it has any."""
        if self._lending is None:
            return 1.0
        rivals, found = self._question.rivals, []
        for hour in self._hours:
            if hour.begin >= self._question.now + timedelta(days=7):
                break
            lent = self._lending.of(_wanting(rivals, [float(one.contacts) for one in rivals], hour.begin))
            share = sum(crew.share * part for crew, part in zip(self._crews, lent.crews, strict=True))
            if hour.agents and share > 0:
                found.append(share)
        return sum(found) / len(found) if found else 1.0

    def _share(self, whose: int) -> float:
        return sum(crew.share for crew in self._crews if whose == ALL or whose in crew.may)

    def _add(self, pool: Pool, course: Course) -> None:
        base, numbers = len(self._begin), len(pool.open)
        for tries in range(course.most):
            for place in range(numbers):
                ways = [
                    (-(-way.minutes * 60 // QUARTER), base + (tries + 1) * numbers + way.place, way.share)
                    for way in course.steps[tries][place]
                    if pool.open[way.place] != REFUSED
                ]
                self._begin.append(0.0)
                self._tries.append(tries)
                self._whose.append(pool.whose)
                self._place_of.append((pool.priority, pool.whose, pool.limited, pool.open[place]))
                self._next.append(ways)
                self._goes_on.append(sum(share for _, _, share in ways))
        for tries, so_many in enumerate(pool.ready):
            self._begin[base + min(tries, course.most - 1) * numbers + pool.place] += so_many
        self._due += [
            (-(-at // QUARTER), base + min(tries, course.most - 1) * numbers + pool.place, float(count))
            for at, tries, count in pool.due
        ]

    def through(
        self,
        rates: Rates,
        level: float,
        speed: Speed,
        more: int = 0,
        share: float = 1.0,
        until: datetime | None = None,
    ) -> Way:
        """Goes through the contacts hour by hour of the rota, each only while its zones are open. `level`: a factor on all
        rates; `more` agents than the rota says; `share`: a factor on the rates by another ring time; `until`: what comes
        after is not asked."""
        question, stock = self._question, list(self._begin)
        live_share, finish_by = live_share_of(question.history), question.finish_by
        active: dict[tuple[int, int, int, int], set[int]] = {}
        for slot, count in enumerate(stock):
            if count > 0:
                active.setdefault(self._place_of[slot], set()).add(slot)
        waiting: dict[int, dict[int, float]] = {}
        for quarter, slot, count in self._due:
            then = waiting.setdefault(quarter, {})
            then[slot] = then.get(slot, 0.0) + count
        quarters = list(waiting)
        heapq.heapify(quarters)
        left_of = dict(self._contacts_of)
        total = left = sum(left_of.values())
        untried = sum(count for count, tries in zip(stock, self._tries, strict=True) if not tries)
        untried += sum(count for _, slot, count in self._due if not self._tries[slot])
        untried_of = dict.fromkeys(range(len(question.limited)), 0.0)
        for slot, count in (*enumerate(stock), *((slot, count) for _, slot, count in self._due)):
            if not self._tries[slot] and (limited := self._place_of[slot][2]) != NO_QUOTA:
                untried_of[limited] += count
        today = question.now.astimezone(self._house).date()
        quotas = [
            _Quota(one.limits, shares, today)
            for one, shares in zip(question.limited, self._shares, strict=True)
        ]
        ended: set[int] = set()
        rivals = question.rivals
        backlog = [rival.contacts * calls_each(rival, rates.overall.mean * live_share) for rival in rivals]
        done = spent_one_each = spent_all = there_all = lent_all = 0.0
        way = Way()
        for hour in self._hours:
            begin, agents = hour.begin, max(0, hour.agents + more)
            if left < 0.5 or (until is not None and begin > until):
                break
            while quarters and quarters[0] * QUARTER <= begin.timestamp():
                for slot, count in waiting.pop(heapq.heappop(quarters)).items():
                    if self._place_of[slot][2] in ended:
                        continue
                    stock[slot] += count
                    active.setdefault(self._place_of[slot], set()).add(slot)
            if not agents:
                continue
            base = rates.by_hour[begin.astimezone(self._zone).hour] * level * share
            mean = rates.overall.mean * share
            crews = [agents * hour.part * crew.share for crew in self._crews]
            at_work: float = agents
            there_all += agents * hour.part
            if self._lending is not None:
                lent = self._lending.of(_wanting(rivals, backlog, begin))
                crews = [hours * part for hours, part in zip(crews, lent.crews, strict=True)]
                at_work = sum(crews) / hour.part
                for n, many in enumerate(lent.rivals):
                    theirs_now = many * agents / question.people
                    backlog[n] -= theirs_now * hour.part * speed.paced(theirs_now) if many else 0.0
                    if backlog[n] <= 0 < many:
                        way.rival_through.setdefault(n, begin + timedelta(hours=hour.part))
            lent_all += sum(crews)
            today = begin.astimezone(self._house).date()
            for quota in quotas:
                quota.begin(today)
            lines = question.calls_per_second * 3600 * hour.part
            this_quarter = -int(-begin.timestamp() // QUARTER)
            over = 0.0
            for priority, whose, limited in self._order:
                slots = [
                    slot
                    for time in hour.are_open
                    for slot in active.get((priority, whose, limited, time), ())
                ]
                wanted = sum(stock[slot] for slot in slots)
                if wanted <= 0:
                    continue
                mix = sum(stock[slot] * rates.of_attempt(self._tries[slot]) for slot in slots) / wanted
                # Agents are as busy as at the rate that was played: with more answers they need fewer calls.
                rate = max(min(0.95, base * mix), 0.01)
                an_hour = (speed.paced(at_work) if whose == ALL else speed.one_each) * mean / rate
                if an_hour <= 0:
                    continue
                theirs = self._crews_of[whose]
                there = sum(crews[n] for n in theirs)
                can = min(there * an_hour, lines)
                if can <= 0:
                    over = 1.0
                    continue
                talks = min(0.95, base * mix) * live_share
                room = quotas[limited].room(talks) if limited != NO_QUOTA else math.inf
                taking = min(1.0, can / wanted, room / wanted)
                if taking <= 0:
                    continue
                over = max(over, min(1.0, taking * wanted / can))
                spent = taking * wanted / an_hour
                lines -= taking * wanted
                if limited != NO_QUOTA:
                    quotas[limited].count(taking * wanted, taking * wanted * talks)
                _take(crews, theirs, spent)
                spent_all += spent
                spent_one_each += spent if whose != ALL else 0.0
                for slot in slots:
                    tried = stock[slot] * taking
                    if taking == 1.0 or stock[slot] - tried < GRAIN:
                        active[self._place_of[slot]].discard(slot)
                        tried = stock[slot]
                    stock[slot] -= tried
                    if not self._tries[slot]:
                        untried -= tried
                        if limited != NO_QUOTA:
                            untried_of[limited] -= tried
                    reached = tried * min(0.95, base * rates.of_attempt(self._tries[slot])) * live_share
                    rest = tried - reached
                    gone = reached + rest * (1.0 - self._goes_on[slot])
                    done += reached
                    left -= gone
                    left_of[whose, limited] -= gone
                    for later, target, part in self._next[slot]:
                        quarter = this_quarter + later
                        due = waiting.get(quarter)
                        if due is None:
                            due = waiting[quarter] = {}
                            heapq.heappush(quarters, quarter)
                        due[target] = due.get(target, 0.0) + rest * part
            end = begin + timedelta(hours=hour.part * over)
            if finish_by is None or end <= finish_by:
                way.reached_by_then = done / total
            for limited, quota in enumerate(quotas):
                hit = quota.reached() if limited not in ended else None
                if hit is None or (quota.rests and hit.per == "day"):
                    continue
                rested = way.rested.setdefault(limited, Rested(first=end))
                rested.days += not quota.rests
                quota.rests = True
                if hit.per == "total":
                    ended.add(limited)
                    rested.for_good = True
                    untried -= untried_of[limited]
                    for place in [place for place in left_of if place[1] == limited]:
                        rested.left += left_of[place]
                        left -= left_of[place]
                        left_of[place] = 0.0
                    for cell in [cell for cell in active if cell[2] == limited]:
                        del active[cell]
            if way.once is None and untried < 0.5:
                way.once = end
            for whose in {whose for whose, _ in left_of} - way.through_of.keys():
                if sum(still for (one, _), still in left_of.items() if one == whose) < 0.5:
                    way.through_of[whose] = end
            if left < 0.5:
                way.through = end
                break
        way.reached = done / total if total else 0.0
        way.one_for_one = spent_one_each / spent_all if spent_all else 0.0
        way.lent = lent_all / there_all if there_all else 1.0
        return way


def _wanting(rivals: Sequence[Rival], backlog: Sequence[float], at: datetime) -> frozenset[int]:
    """The rivals that run and have somebody to call."""
    then = at.timestamp()
    return frozenset(n for n, rival in enumerate(rivals) if backlog[n] > 0 and _open(rival.times, then))


def calls_each(rival: Rival, reached: float) -> float:
    """Calls that each contact of a rival takes until it is reached, or used up."""
    if reached <= 0:
        return rival.attempts_left
    return float((1.0 - (1.0 - min(reached, 1.0)) ** rival.attempts_left) / reached)


def share_said(question: Question, limit: Limit) -> float:
    """Of the talks the share that counts."""
    if question.mode == "agentless":
        return 0.0
    if limit.counts != "disposition":
        return 1.0
    live = question.history.live
    said = dict(question.history.said).get(limit.disposition, 0)
    return pulled(min(1.0, said / live) if live else 0.0, live, USUAL_SAID, USUAL_SAID_WEIGHT)


def _take(hours: list[float], crews: Sequence[int], spent: float) -> None:
    """Takes agents' hours from these crews, the first first."""
    for n in crews:
        taken = min(hours[n], spent)
        hours[n] -= taken
        spent -= taken


def courses_of(question: Question) -> list[Course]:
    """What follows attempts that reach nobody, for each of the question's rules."""
    machines = 0.0
    if question.amd:
        rate = rates_of(question.history).overall.mean
        answered = rate * (1.0 - live_share_of(question.history))
        machines = answered / (1.0 - rate + answered)
    return [course_of(rules, dict(question.history.unreached), machines=machines) for rules in question.rules]


def live_share_of(history: History) -> float:
    """The share of people among answers."""
    answers = sum(history.answered)
    return (history.live + 17.0) / (answers + 20.0) if answers else 0.85


def _hours(question: Question, zone: ZoneInfo) -> Iterable[_Hour]:
    """The rota from now on, hour by hour and in parts of them: zones open and close between, not within."""
    edges = sorted({edge for spans in question.times for span in spans or () for edge in span})
    for begin, over, agents in _shifts(question, zone):
        first, last = begin.timestamp(), over.timestamp()
        cuts = edges[bisect_right(edges, first) : bisect_left(edges, last)]
        for start, end in pairwise((first, *cuts, last)):
            are_open = tuple(n for n, spans in enumerate(question.times) if _open(spans, start))
            yield _Hour(datetime.fromtimestamp(start, UTC), (end - start) / 3600, agents, are_open)


def _open(spans: Sequence[tuple[int, int]] | None, at: float) -> bool:
    if spans is None:
        return True
    place = bisect_right(spans, (at, math.inf)) - 1
    return place >= 0 and at < spans[place][1]


def open_hours(question: Question) -> tuple[OpenHour, ...]:
    """Of how many contacts the zones are open, by the hours of the rota's first week."""
    of_time = [0] * len(question.times)
    for pool in question.pools:
        of_time[pool.open[pool.place]] += pool.contacts
    total = sum(of_time)
    found: dict[datetime, float] = {}
    for hour in _hours(question, ZoneInfo(question.zone)):
        if hour.begin >= question.now + timedelta(days=7):
            break
        if hour.agents and total:
            begin = hour.begin.replace(minute=0, second=0, microsecond=0)
            now_open = sum(of_time[time] for time in hour.are_open)
            found[begin] = found.get(begin, 0.0) + hour.part * now_open / total
    return tuple(OpenHour(begin=hour, share=round(min(1.0, share), 4)) for hour, share in found.items())


def within_rota(question: Question) -> Question:
    """The question without the contacts, and numbers of contacts, whose zones are never open while somebody works."""
    met = {
        time for hour in _hours(question, ZoneInfo(question.zone)) if hour.agents for time in hour.are_open
    }
    never = sum(pool.contacts for pool in question.pools if pool.open[pool.place] not in met)
    pools = tuple(
        msgspec.structs.replace(pool, open=tuple(time if time in met else REFUSED for time in pool.open))
        for pool in question.pools
        if pool.open[pool.place] in met
    )
    known = [one for one in question.dropped if one.code != "never_open"]
    never += sum(one.count for one in question.dropped if one.code == "never_open")
    told = [Dropped(code="never_open", says=NEVER_OPEN, count=never)] if never else []
    return msgspec.structs.replace(question, pools=pools, dropped=(*known, *told))


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


def _moment(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    later, minutes = divmod(minutes, 1440)
    naive = datetime(day.year, day.month, day.day, *divmod(minutes, 60)) + timedelta(days=later)  # noqa: DTZ001
    return naive.replace(tzinfo=zone).astimezone(UTC)
