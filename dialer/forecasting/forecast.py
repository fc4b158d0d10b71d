"""What is learnt from calls and agents, and the outlook that follows from it: who is under way, for how long, and
what became of those who were as long under way before. No clock, no I/O; times in seconds, as told."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from math import exp, floor, sqrt
from operator import itemgetter, mul, sub

from dialer.forecasting.estimates import Hazard, Level
from dialer.forecasting.outlook import AHEAD, Moments, Outlook, arrivals, weighed

TALK_BINS = (*range(0, 20, 2), *range(20, 60, 5), *range(60, 180, 15), *range(180, 600, 60), 600, 900, 1500)
WRAP_BINS = (*range(0, 20, 2), *range(20, 60, 5), *range(60, 180, 15), 180, 300)
JUDGED_BINS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0)


LAST = AHEAD[-1]

LEARN_CALLS = 3.0
LEARN_AGENTS = 5.0
"""Seconds after which tables are worked out anew."""

RENEWED = 8
"""Rows of agents' tables worked out anew in one decision; half as many where something else is worked out too.

One decision works out one part of one table anew, the next one the next: none takes long, and what was worked out before is
a few seconds old meanwhile."""

YOUNG = (800, 120)
"""Calls and talks that have ended, up to which each of them may change much: till then tables are worked out at once."""


class _Ages:
    """How many calls of a stage there are, by the half second in which they came to it."""

    def __init__(self) -> None:
        self.came: dict[int, int] = {}
        self.count = 0

    def add(self, since: float) -> None:
        half = int(since * 2.0)
        self.came[half] = self.came.get(half, 0) + 1
        self.count += 1

    def remove(self, since: float) -> None:
        half = int(since * 2.0)
        self.came[half] -= 1
        self.count -= 1
        if not self.came[half]:
            del self.came[half]

    def by_second(self, now: float, size: int) -> list[int]:
        """How many are of each whole age; the last number is of all that are older."""
        found, last = [0] * size, size - 1
        whole = floor(2.0 * now - 0.5)  # a quarter of a second less: calls came somewhere within their half
        for half, count in self.came.items():
            age = (whole - half) >> 1
            found[last if age > last else age if age > 0 else 0] += count
        return found


class Forecast:
    """Learns how calls and agents fare by age, and looks ahead."""

    def __init__(
        self, ring_timeout: float, answer_wait: float, *, amd: bool, doubts_drops: bool = False
    ) -> None:
        self._amd = amd
        self._size = size = int(min(max(ring_timeout + 8.0, 20.0), 75.0))
        seconds = range(size)
        self._dialing = Hazard(
            seconds, {"answer": 0.012, "end": 0.03, "ring": 0.15}, confidence=15.0, memory=3000.0
        )
        self._ringing = Hazard(seconds, {"answer": 0.04, "end": 0.01}, confidence=15.0, memory=3000.0)
        self._judging = Hazard(JUDGED_BINS, {"human": 0.4, "end": 0.2}, confidence=5.0, memory=500.0)
        self._talking = Hazard(TALK_BINS, {"end": 1 / 90}, confidence=40.0, memory=800.0)
        self._wrapping = Hazard(WRAP_BINS, {"end": 1 / 25}, confidence=25.0, memory=800.0)
        self._level = Level(doubts_drops=doubts_drops)
        self._people, self._judged = 0.6, 5.0
        self._stays = 0.98
        self._most_wait = self._wait = answer_wait
        self._ages = {"dial": _Ages(), "ring": _Ages(), "amd": _Ages(), "queue": _Ages(), "over": _Ages()}
        self._told_at = self._calls_at = self._agents_at = -1e12
        self._rate = 0.0
        self._rates: list[float] = [0.0] * (2 * size)
        self._rows: list[tuple[float, ...]] = []
        self._mean_of: list[tuple[float, ...]] = []
        self._squares_of: list[tuple[float, ...]] = []
        self._cubes_of: list[tuple[float, ...]] = []
        self._at_level = 1.0
        self._talk_stays: list[float] = []
        self._wrap_stays: list[float] = []
        self._free_rows: list[list[float]] = []
        self._stale: set[int] = set()
        self._learning: Iterator[None] | None = None
        self._calls_turn = False
        self._wrapped: list[list[float]] = []
        self._back: list[list[float]] = []

    # ------------------------------------------------------------------------------------------ what happens

    def entered(self, stage: str, now: float) -> None:
        """A call came to a stage: dial, ring, amd, queue or over."""
        self._ages[stage].add(now)

    def left(self, stage: str, since: float, now: float, how: str | None) -> None:
        """It left it: by answer, ring or end, judged human or machine, or for a reason that says nothing (None)."""
        self._ages[stage].remove(since)
        age = now - since
        if stage in ("dial", "ring"):
            (self._dialing if stage == "dial" else self._ringing).ended(age, how)
            if how == "answer":
                self._level.happened()
        elif stage == "amd":
            human = how == "human"
            self._judging.ended(age, "human" if human else "end")
            self._judged = min(self._judged + 1.0, 120.0)
            self._people += (human - self._people) / self._judged

    def patience(self, waited: float) -> None:
        """Somebody was lost after waiting so long."""
        self._wait += 0.1 * (min(waited, self._most_wait) - self._wait)

    def talked(self, seconds: float) -> None:
        """A talk was so long; what its agent did then is not known."""
        self._talking.ended(seconds, "end")

    def agent_left(self, state: str, since: float, now: float, to: str) -> None:
        """An agent went from a state to another, or logged out."""
        if state == "talk":
            self._talking.ended(now - since, "end")
            if to != "wrap":
                self._wrapping.ended(0.0, "end")
        elif state == "wrap":
            self._wrapping.ended(now - since, "end")
        if state in ("talk", "wrap") and to not in ("talk", "wrap"):
            self._stays += ((to == "ready") - self._stays) * 0.02

    def any_older(self, now: float, age: float) -> bool:
        """Whether a call rings or dials for longer than that."""
        before = 2.0 * (now - age) + 1.0
        return any(half <= before for stage in ("ring", "dial") for half in self._ages[stage].came)

    # ------------------------------------------------------------------------------------------ what is to come

    def row_of(self, stage: str, age: float) -> int:
        """Which of the rows of `chances` is of a call of that stage and age."""
        n = min(int(age), self._size - 1)
        return n if stage == "dial" else self._size + n

    def chances(self, row: int) -> Sequence[float]:
        """How likely a person at a call of that row has answered, by the seconds `AHEAD`."""
        scale = self._level.factor / self._at_level * (self._people if self._amd else 1.0)
        return [min(scale * p, 1.0) for p in self._rows[row]]

    def outlook(
        self,
        now: float,
        asked: int,
        free: int,
        talking_since: Iterable[float],
        wrapping_since: Iterable[float],
    ) -> Outlook:
        """What to expect. `asked`: calls asked for and not dialed yet; `free`: how many agents are; since when others talk
        or write up, who has begun first first."""
        counts = self._ages["dial"].by_second(now, self._size)
        ringing = self._ages["ring"].by_second(now, self._size)
        if now - self._calls_at >= LEARN_CALLS and self._learning is None:
            self._calls_at = now
            self._learning = self._learn_calls(counts, ringing)
        learnt = self._learn_on()
        counts = counts + ringing
        self._expect(now, counts)
        counts[0] += asked
        under_way = [float(count) for count in counts]  # turned once, not in each product
        scale = self._level.factor / self._at_level * (self._people if self._amd else 1.0)
        mean = [scale * sum(map(mul, under_way, chances)) for chances in self._mean_of]
        squares = [scale * scale * sum(map(mul, under_way, chances)) for chances in self._squares_of]
        cubes = [scale**3 * sum(map(mul, under_way, chances)) for chances in self._cubes_of]
        answers = Moments(
            mean,
            [p - q for p, q in zip(mean, squares, strict=True)],
            [p - 3.0 * q + 2.0 * r for p, q, r in zip(mean, squares, cubes, strict=True)],
        )
        error = self._level.error
        if self._amd:
            self._add_judged(now, answers)
            error = sqrt(error * error + (1.0 - self._people) / (self._people * self._judged + 0.1))
        new = self.chances(self.row_of("dial", 0.0))
        talking = _by_age(now, talking_since, TALK_BINS)
        wrapping = _by_age(now, wrapping_since, WRAP_BINS)
        counts = talking + wrapping
        if not self._talk_stays:
            self._learn_agents(now, talking, wrapping)
            self._renew_rows(range(len(counts)))
        else:
            young = self._talking.seen < YOUNG[1]
            due = now - self._agents_at >= LEARN_AGENTS and (young or not learnt)
            if due:
                self._learn_agents(now, talking, wrapping)
            if not due or young:
                # Only what is in use: a bin in which nobody is can wait until somebody comes to it.
                most = len(counts) if young else RENEWED // 2 if learnt else RENEWED
                self._renew_rows(tuple(islice((n for n in self._stale if counts[n]), most)))
        busy = [n for n, count in enumerate(counts) if count]
        many = [float(counts[n]) for n in busy]
        columns = zip(*(self._free_rows[n] for n in busy), strict=True)
        freed = [sum(map(mul, many, column)) for column in columns] or weighed([0.0] * len(AHEAD))
        coming = arrivals(answers.mean)
        back = [sum(map(mul, coming, weights)) for weights in self._back]
        unsure = sqrt(1.0 / (self._talking.seen + 15.0) + 0.0009)
        return Outlook(free - self._ages["queue"].count, answers, error, new, Moments.of(freed), unsure, back)

    def _expect(self, now: float, counts: list[int]) -> None:
        """Tells the level how many answers were to be expected since the last time."""
        rate = sum(map(mul, counts, self._rates))
        since = now - self._told_at
        if 0.0 < since < 10.0:
            self._level.expect(0.5 * (rate + self._rate) * since)
        self._told_at, self._rate = now, rate

    def _add_judged(self, now: float, answers: Moments) -> None:
        rates = self._judging.rates([0] * len(JUDGED_BINS))
        person = self._people
        stays = _stays([h + e for h, e in zip(rates["human"], rates["end"], strict=True)])
        for half, count in self._ages["amd"].came.items():
            n = self._judging.bin_of(now - 0.5 * half - 0.25)
            answers.add(count, weighed([person * p for p in _over(JUDGED_PATHS[n], stays, 0.0)]))

    def _learn_on(self) -> bool:
        """Does the next part of what is learnt of calls, every other time; whether it did. The first time all of it."""
        at_once = not self._rows or self._ringing.seen + self._dialing.seen < YOUNG[0]
        self._calls_turn = not self._calls_turn
        if self._learning is None or not (self._calls_turn or at_once):
            return False
        for _ in self._learning:
            if not at_once:
                return True
        self._learning = None
        return True

    def _learn_calls(self, dialing: list[int], ringing: list[int]) -> Iterator[None]:
        """How likely a call of each age has been answered after each of the next seconds; in parts."""
        rates = self._ringing.rates(ringing)
        ring = rates["answer"], rates["end"]
        rates = self._dialing.rates(dialing)
        dial = rates["answer"], rates["end"], rates["ring"]
        former = sum(map(mul, dialing + ringing, self._rates))
        self._rates = dial[0] + ring[0]
        rate = sum(map(mul, dialing + ringing, self._rates))
        if former > 0.0 and rate > 0.0:
            self._level.rescale(rate / former)
            self._rate *= rate / former
            self._at_level *= former / rate  # the former rows hold as before until there are new ones
        level = self._level.factor
        yield
        delay = round(self._judging_takes()) if self._amd else 0
        row = [0.0] * (LAST + 1)
        ring_rows = []
        for answer, end in zip(reversed(ring[0]), reversed(ring[1]), strict=True):
            answer *= level
            total = answer + end
            stays = exp(-total)
            answered = (1.0 - stays) * answer / total
            row = [0.0, *[answered + stays * p for p in row[:-1]]]
            ring_rows.append(row)
        rung = ring_rows[-1]
        yield
        row, rung_before = [0.0] * (LAST + 1), rung[:-1]
        dial_rows = []
        for answer, end, rings in zip(*(reversed(rates) for rates in dial), strict=True):
            answer *= level
            total = answer + end + rings
            stays = exp(-total)
            over = (1.0 - stays) / total
            answered, goes_on = over * answer, over * rings
            row = [0.0, *[answered + goes_on * q + stays * p for p, q in zip(row, rung_before, strict=False)]]
            dial_rows.append(row)
        yield
        rows = list(
            map(itemgetter(*[max(0, k - delay) for k in AHEAD]), (*reversed(dial_rows), *reversed(ring_rows)))
        )
        self._rows, self._at_level = rows, level
        # Turned: for each second ahead the chances of all ages.
        self._mean_of = list(zip(*rows, strict=True))
        self._squares_of = [tuple(map(mul, chances, chances)) for chances in self._mean_of]
        self._cubes_of = [
            tuple(map(mul, *pair)) for pair in zip(self._mean_of, self._squares_of, strict=True)
        ]

    def _judging_takes(self) -> float:
        """Mean seconds until an answer is judged."""
        rates = self._judging.rates([0] * len(JUDGED_BINS))
        left, mean = 1.0, 0.0
        for n, (human, end) in enumerate(zip(rates["human"], rates["end"], strict=True)):
            width = JUDGED_BINS[n + 1] - JUDGED_BINS[n] if n + 1 < len(JUDGED_BINS) else 5.0
            stays = left * exp(-(human + end) * width)
            mean += 0.5 * (left + stays) * width
            left = stays
        return mean

    def _learn_agents(self, now: float, talking: list[int], wrapping: list[int]) -> None:
        self._agents_at = now
        self._talk_stays = _stays(self._talking.rates(talking)["end"])
        self._wrap_stays = _stays(self._wrapping.rates(wrapping)["end"])
        self._stale = set(range(len(talking) + len(wrapping)))
        # Turned round, for sums of talk and wrap-up; half a second less, as talks end somewhere within their second.
        ended = _by_second(WRAP_PATHS[0], self._wrap_stays)
        after = int(self._wait + 0.5)
        wrapped = [self._stays * _at(ended, k + self._wait - 0.5) for k in range(LAST, -after - 1, -1)]
        talks = _ends(_by_second(TALK_PATHS[0], self._talk_stays))
        free = [_free_by(talks, wrapped[LAST - k :]) for k in range(LAST + 1)]
        self._wrapped = [wrapped[LAST - k :] for k in AHEAD]
        middle = [0.5 * (begin + end) for begin, end in zip((0, *AHEAD[:-1]), AHEAD, strict=True)]
        self._back = [[_at(free, k - m) if k > m else 0.0 for m in middle] for k in AHEAD]

    def _renew_rows(self, which: Iterable[int]) -> None:
        """Works out anew how likely the agents of these bins are free in time for an answer."""
        rows = self._free_rows = self._free_rows or [[] for _ in self._stale]
        for n in which:
            rows[n] = self._free_row(n)
            self._stale.discard(n)

    def _free_row(self, n: int) -> list[float]:
        """Of an agent in the n-th bin, of those who talk and then those who write up; `weighed`."""
        if n >= len(TALK_BINS):
            over = _over(WRAP_PATHS[n - len(TALK_BINS)], self._wrap_stays, self._wait)
            return weighed([self._stays * p for p in over])
        ends = _ends(_by_second(TALK_PATHS[n], self._talk_stays))
        return weighed([_free_by(ends, wrapped) for wrapped in self._wrapped])


def _by_age(now: float, since: Iterable[float], edges: Sequence[int]) -> list[int]:
    """How many are in each bin of age; `since`: when each came, the first first."""
    came = list(since)
    older = [bisect_right(came, now - edge) for edge in edges[1:]]
    return list(map(sub, (len(came), *older), (*older, 0)))


SPAN = LAST + 10
"""Seconds for which the ends of talks and wrap-ups are worked out."""


Path = Callable[[Sequence[float]], Sequence[float]]


def _paths(edges: Sequence[float]) -> list[Path]:
    """For each bin of age: what picks, of values by bins, those of the bins in which what is at its beginning now will be in
    the coming seconds."""
    found: list[Path] = []
    last = len(edges) - 1
    for begun, age in enumerate(edges):
        n, path = begun, []
        for second in range(SPAN - 1):
            while n < last and edges[n + 1] <= age + second + 0.5:
                n += 1
            path.append(n)
        found.append(itemgetter(*path))
    return found


TALK_PATHS, WRAP_PATHS, JUDGED_PATHS = _paths(TALK_BINS), _paths(WRAP_BINS), _paths(JUDGED_BINS)


def _stays(rates: Sequence[float]) -> list[float]:
    """The chance of not being over after a second, by bins."""
    return [exp(-rate) for rate in rates]


def _by_second(path: Path, stays: Sequence[float]) -> list[float]:
    """The chance that what is on this path is over after 0, 1, 2... seconds."""
    left = accumulate(path(stays), mul, initial=1.0)
    return [1.0 - one for one in left]


def _ends(over: Sequence[float]) -> list[float]:
    """Of such chances: the chance of ending in each second."""
    return list(map(sub, over[1:], over))


def _at(over: Sequence[float], at: float) -> float:
    """Such a chance at any time."""
    if at <= 0.0:
        return 0.0
    whole = min(int(at), len(over) - 2)
    return over[whole] + min(at - whole, 1.0) * (over[whole + 1] - over[whole])


def _free_by(ends: Sequence[float], wrapped: Sequence[float]) -> float:
    """The chance of having talked and written up by then; `ends`: of the talk's ending in each second, `wrapped`: of having
    written up in the time that is left after it."""
    return float(sum(map(mul, ends, wrapped)))


def _over(path: Path, stays: Sequence[float], later: float) -> list[float]:
    """Such chances at the seconds `AHEAD` and so much later."""
    found = _by_second(path, stays)
    return [_at(found, k + later) for k in AHEAD]
