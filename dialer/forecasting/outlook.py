"""The next half minute as it looks from now: how many people will have answered, how many agents will be free, and
how likely the answer to one more call finds nobody. Sums of many unequal chances: a normal value corrected for skew
(the first Edgeworth term), which for a handful of agents comes within a percent or two of the exact sum. Pure
arithmetic, no state."""

from __future__ import annotations

from collections.abc import Sequence
from math import erf, exp, sqrt
from operator import sub

AHEAD = (1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 25)
"""The seconds from now that are looked at."""

SOON = 4
"""How many of them are soon."""


def tail(z: float, skew: float) -> float:
    """The chance that a value, standardised and of that skew, is above z."""
    if z > 6.0:
        return 0.0
    density = 0.3989422804014327 * exp(-0.5 * z * z)
    chance = 0.5 - 0.5 * erf(z * 0.7071067811865476) + density * skew * (z * z - 1.0) / 6.0
    return 1.0 if chance > 1.0 else chance if chance > 0.0 else 0.0


class Moments:
    """Mean, variance and third central moment of a number, at each of the seconds `AHEAD`."""

    __slots__ = ("mean", "third", "variance")

    def __init__(self, mean: list[float], variance: list[float], third: list[float]) -> None:
        self.mean, self.variance, self.third = mean, variance, third

    @classmethod
    def of(cls, row: Sequence[float]) -> Moments:
        """Out of one row with all three, as `weighed` makes it."""
        size = len(AHEAD)
        return cls(list(row[:size]), list(row[size : 2 * size]), list(row[2 * size :]))

    def add(self, count: float, row: Sequence[float]) -> None:
        """Adds so many things, each with these moments (`weighed`)."""
        self._are(
            [m + count * p for m, p in zip((*self.mean, *self.variance, *self.third), row, strict=True)]
        )

    def take_out(self, row: Sequence[float]) -> None:
        """Takes one thing out."""
        self._are(list(map(sub, (*self.mean, *self.variance, *self.third), row)))

    def _are(self, row: list[float]) -> None:
        size = len(AHEAD)
        self.mean, self.variance, self.third = row[:size], row[size : 2 * size], row[2 * size :]


def weighed(chances: Sequence[float]) -> list[float]:
    """One row with mean, variance and third central moment of a thing that has happened by then with these chances."""
    variance = [p * (1.0 - p) for p in chances]
    return [*chances, *variance, *[v * (1.0 - 2.0 * p) for v, p in zip(variance, chances, strict=True)]]


class Outlook:
    """What to expect. `answers`: of the calls under way; `error`: by which share all of them may be wrong together;
    `new`: the chance that a new call is answered by then; `freed`: busy agents who will be free in time for an answer;
    `freed_error`: likewise; `back`: agents who will take a call and be free again; `spare`: agents free and not yet
    needed."""

    def __init__(
        self,
        spare: int,
        answers: Moments,
        error: float,
        new: Sequence[float],
        freed: Moments,
        freed_error: float,
        back: Sequence[float],
    ) -> None:
        self.spare = spare
        self.answers = answers
        self.freed = freed
        self._error = error
        self._new = new
        self.chance_answered = new[-1]
        total = new[-1] or 1.0
        when = [(p - q) / total for p, q in zip(new, (0.0, *new[:-1]), strict=True)]
        self._seen_at = [(k, part) for k, part in enumerate(when) if part > 1e-3]
        self._freed_variance = [
            v + (freed_error * m) ** 2 + 0.01 for v, m in zip(freed.variance, freed.mean, strict=True)
        ]
        self.room = [spare + f + b for f, b in zip(freed.mean, back, strict=True)]
        self._full_now: list[float | None] = [None] * len(AHEAD)

    def without(self, row: Sequence[float]) -> None:
        """Takes out a call that will not be answered any more, which would have been with these moments (`weighed`)."""
        self.answers.take_out(row)
        self._full_now = [None] * len(AHEAD)

    def _full(self, k: int) -> float:
        """The chance that whoever answers then, beyond those expected, finds nobody free in time."""
        known = self._full_now[k]
        if known is None:
            known = self._full_now[k] = self._lost([(k, 1.0)], 0.0)
        return known

    def chance_lost(self, more: int) -> float:
        """The chance that the answer to one more call after `more` new ones finds no agent in time."""
        if not more:
            return sum([part * self._full(k) for k, part in self._seen_at])
        return self._lost(self._seen_at, more)

    def _lost(self, parts: Sequence[tuple[int, float]], more: float) -> float:
        """The chance that whoever answers at these times, with these weights, beyond those expected and `more` new calls,
        finds nobody free in time. Asked a hundred times a decision, so in one piece."""
        new, room, error, freed_variance = self._new, self.room, self._error, self._freed_variance
        means, variances, thirds = self.answers.mean, self.answers.variance, self.answers.third
        freed_third = self.freed.third
        lost = 0.0
        for k, part in parts:
            p = new[k]
            answered = more * p
            odds = answered * (1.0 - p)
            mean = means[k] + answered
            variance = variances[k] + odds
            shared = (error * mean) ** 2
            all_variance = variance + shared + freed_variance[k]
            deviation = sqrt(all_variance) if all_variance > 0.01 else 0.1
            z = (room[k] - mean - 0.5) / deviation
            if z > 6.0:
                continue
            # A number whose mean is itself uncertain has a longer tail: as of a Poisson mean that is gamma distributed.
            third = thirds[k] + odds * (1.0 - 2.0 * p) - freed_third[k]
            third += shared * (3.0 * variance + 2.0 * shared) / (mean + 0.1)
            skew = third / (deviation * deviation * deviation)
            lost += part * tail(z, 1.2 if skew > 1.2 else skew if skew > -1.2 else -1.2)
        return lost

    def chance_lost_soon(self) -> float:
        """The chance that an answer in the next seconds finds no agent in time."""
        return sum(self._full(k) for k in range(SOON)) / SOON

    def at_risk(self) -> float:
        """How many of the answers to come will find nobody, roughly."""
        return sum(
            [part * self._full(k) for k, part in enumerate(arrivals(self.answers.mean)) if part > 0.01]
        )


def arrivals(mean: Sequence[float]) -> list[float]:
    """How many come in each span between the seconds `AHEAD`."""
    return [b - a for a, b in zip((0.0, *mean[:-1]), mean, strict=True)]
