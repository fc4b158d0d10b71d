"""What the pacing knows of calls and agents: how likely a call of an age is answered, and an agent becomes free, and
when.

All of it is learnt from what happens, with a prior for a cold start, and forgotten slowly; calls that are still under way
count as well, for what has not happened to them yet. Ages in seconds. Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import exp, sqrt
from operator import sub


class Hazard:
    """How often things end at an age: for each kind of ending events a second of exposure, by bins of age.

    `edges`: where bins begin, from 0; the last bin has no end. `prior`: kind → events a second assumed before anything is
    known. A bin of which little is known is taken to be like all ages together, with the weight of `confidence` seconds.
    `memory`: endings after which an observation weighs a third of what it did.
    """

    def __init__(
        self, edges: Sequence[float], prior: dict[str, float], *, confidence: float, memory: float
    ) -> None:
        self.edges = tuple(float(edge) for edge in edges)
        self._widths = (*map(sub, self.edges[1:], self.edges), 0.0)
        self.seen = 0
        self._grow = 1.0 + 1.0 / memory
        self._weight = 1.0
        self._exposure = [0.0] * len(edges)
        self._events = {kind: [0.0] * len(edges) for kind in prior}
        self._prior = prior
        self._confidence = confidence

    def bin_of(self, age: float) -> int:
        """The bin of an age."""
        return max(0, bisect_right(self.edges, age) - 1)

    def ended(self, age: float, kind: str | None) -> None:
        """Something lived to that age and ended so; None: it left for another reason."""
        self.seen += 1
        self._weight *= self._grow
        if self._weight > 1e6:
            self._fade()
        weight, exposure = self._weight, self._exposure
        last = self.bin_of(age)
        for n in range(last):
            exposure[n] += weight * self._widths[n]
        exposure[last] += weight * max(age - self.edges[last], 0.0)
        if kind is not None:
            self._events[kind][last] += weight

    def _fade(self) -> None:
        self._exposure = [seconds / self._weight for seconds in self._exposure]
        for kind, events in self._events.items():
            self._events[kind] = [count / self._weight for count in events]
        self._weight = 1.0

    def rates(self, under_way: Sequence[int]) -> dict[str, list[float]]:
        """Events a second in each bin, by kind. `under_way`: how many are in each bin now; what has not ended them
        counts."""
        weight = self._weight
        come_to = accumulate(
            under_way, sub, initial=sum(under_way)
        )  # who has come to the bin, and those beyond it
        next(come_to)
        spent = [
            seconds / weight + width * (beyond + 0.5 * here)
            for seconds, width, beyond, here in zip(
                self._exposure, self._widths, come_to, under_way, strict=True
            )
        ]
        total, held = sum(spent), self._confidence
        found = {}
        for kind, events in self._events.items():
            overall = (sum(events) / weight + self._prior[kind] * 3.0 * held) / (total + 3.0 * held)
            found[kind] = [
                (count / weight + overall * held) / (seconds + held)
                for count, seconds in zip(events, spent, strict=True)
            ]
        return found


class Level:
    """A factor that follows quickly how much more, or less, happens than slowly learnt rates say.

    Counted over a long memory and a short one; while the short one contradicts the long one more than chance allows,
    it is believed, and in the end the long one is dropped: a sudden step is followed within some ten events, and a
    steady state is known well. Steps upwards cost abandoned calls: for them there is an alarm with a shorter memory yet. A
    level that `doubts_drops` believes in steps downwards late: what seems to be one may be chance, right before one upwards.
    """

    QUICK = 16.0
    ALARM = 6.0
    PRIOR = 6.0

    def __init__(self, memory: float = 80.0, *, doubts_drops: bool = False) -> None:
        self._memory = memory
        self._drop = 2.6 if doubts_drops else 1.6
        self._seen = self._expected = 0.0
        self._quick_seen = self._quick_expected = 0.0
        self._alarm_seen = self._alarm_expected = 0.0
        self._believed = 0.0
        self._believed_seen = 0.0
        self.factor = 1.0
        """1 when things are as they were."""

    def expect(self, events: float) -> None:
        """So many events were to be expected since the last time, at factor 1."""
        now = events * self.factor
        fade = exp(-now / self._memory)
        self._seen *= fade
        self._expected = self._expected * fade + events
        fade = exp(-now / self.QUICK)
        self._quick_seen *= fade
        self._quick_expected = self._quick_expected * fade + events
        fade = exp(-now / self.ALARM)
        self._alarm_seen *= fade
        self._alarm_expected = self._alarm_expected * fade + events
        self._settle()

    def happened(self) -> None:
        """One of them happened."""
        self._seen += 1.0
        self._quick_seen += 1.0
        self._alarm_seen += 1.0

    def rescale(self, ratio: float) -> None:
        """The rates themselves were learnt anew, and are so many times what they were."""
        self._expected *= ratio
        self._quick_expected *= ratio
        self._alarm_expected *= ratio
        self._settle()

    def _settle(self) -> None:
        long = (self._seen + self.PRIOR) / (self._expected + self.PRIOR)
        short = (self._quick_seen + 1.0) / (self._quick_expected + 1.0)
        z = _beyond(self._quick_seen, long * self._quick_expected)
        believed = _part((z - 1.7) / 1.6 if z > 0.0 else (-z - self._drop) / 1.2)
        if believed >= 1.0:
            self._seen, self._expected = self._quick_seen, self._quick_expected
        self.factor = long + believed * (short - long)
        self._believed, self._believed_seen = believed, self._quick_seen
        alarmed = _part((_beyond(self._alarm_seen, self.factor * self._alarm_expected) - 1.8) / 1.4)
        if alarmed > 0.0:
            shortest = (self._alarm_seen + 1.0) / (self._alarm_expected + 1.0)
            self.factor += alarmed * max(shortest - self.factor, 0.0)
            self._believed, self._believed_seen = max(believed, alarmed), self._alarm_seen

    @property
    def error(self) -> float:
        """The standard error as a share of the factor."""
        long = 1.0 / (self._seen + self.PRIOR)
        return float(sqrt(long + self._believed * max(1.0 / (self._believed_seen + 3.0) - long, 0.0)))


def _beyond(seen: float, told: float) -> float:
    """By how many standard deviations more was seen than was told.

    Half: events of a fading memory weigh less than 1 each, and their sum scatters less than their number.
    """
    return (seen - told) / sqrt(0.5 * told + 0.7)


def _part(x: float) -> float:
    return min(max(x, 0.0), 1.0)
