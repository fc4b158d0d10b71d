"""What the pacing knows of calls and agents: how likely a call of an age is answered, and an agent becomes free, and when.

All of it is learnt from what happens, with a prior for a cold start, and forgotten slowly; calls that are still under way
count as well, for what has not happened to them yet. Ages in seconds. Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import exp
from operator import mul, sub


class Hazard:
    """How often things end at an age: for each kind of ending events a second of exposure, by bins of age.

    `edges`: where bins begin, from 0; the last bin has no end. `prior`: kind → events a second assumed before anything is
    known, weighing as much as `confidence` seconds seen in each bin. `memory`: endings after which an observation weighs
    a third of what it did.
    """

    def __init__(
        self, edges: Sequence[float], prior: dict[str, Sequence[float]], *, confidence: float, memory: float
    ) -> None:
        self.edges = tuple(edges)
        self._grow = 1.0 + 1.0 / memory
        self._weight = 1.0
        self._exposure = [0.0] * len(edges)
        self._events = {kind: [0.0] * len(edges) for kind in prior}
        self._prior = {kind: [rate * confidence for rate in rates] for kind, rates in prior.items()}
        self._prior_exposure = confidence
        self.version = 0

    def bin_of(self, age: float) -> int:
        """The bin of an age."""
        return max(0, bisect_right(self.edges, age) - 1)

    def ended(self, age: float, kind: str | None) -> None:
        """Something lived to that age and ended so; None: it left for another reason."""
        self._weight *= self._grow
        if self._weight > 1e6:
            self._fade()
        weight, exposure, edges = self._weight, self._exposure, self.edges
        last = self.bin_of(age)
        for n in range(last):
            exposure[n] += weight * (edges[n + 1] - edges[n])
        exposure[last] += weight * (max(age, 0.0) - edges[last])
        if kind is not None:
            self._events[kind][last] += weight
        self.version += 1

    def _fade(self) -> None:
        self._exposure = [seconds / self._weight for seconds in self._exposure]
        for kind, events in self._events.items():
            self._events[kind] = [count / self._weight for count in events]
        self._weight = 1.0

    def rates(self, under_way: Sequence[int]) -> dict[str, list[float]]:
        """Events a second in each bin, by kind. `under_way`: how many are in each bin now; what has not ended them yet counts.

        The prior keeps its weight while everything seen fades.
        """
        edges, weight = self.edges, self._weight
        spent = [seconds / weight + self._prior_exposure for seconds in self._exposure]
        older = 0
        for n in range(len(edges) - 1, -1, -1):
            width = edges[n + 1] - edges[n] if n + 1 < len(edges) else 0.0
            spent[n] += width * (older + 0.5 * under_way[n])
            older += under_way[n]
        return {
            kind: [
                (count / weight + assumed) / seconds
                for count, assumed, seconds in zip(events, self._prior[kind], spent, strict=True)
            ]
            for kind, events in self._events.items()
        }


class Level:
    """A factor that follows quickly how much more, or less, happens than the slowly learnt rates say.

    The estimate is (seen + prior) / (expected + prior), over `memory` expected events. While few calls have ended the rates are
    guesses themselves: `patience` endings long the factor stays near 1, and its error is large.
    """

    def __init__(self, *, prior: float, memory: float, patience: float) -> None:
        self._prior = prior
        self._memory = memory
        self._patience = patience
        self._ended = 0
        self._seen = 0.0
        self._expected = 0.0
        self._under_way = 0.0

    def ended(self, expected: float, happened: bool) -> None:
        """A call is over for which so much had been expected."""
        self._ended += 1
        # What is expected of calls under way does not fade; what was seen of their like must not fade much faster.
        fade = max(0.0, 1.0 - expected / (self._memory + 10.0 * self._under_way))
        self._seen = self._seen * fade + happened
        self._expected = self._expected * fade + expected

    def under_way(self, expected: float) -> None:
        """What is expected, up to now, of calls to which it has not happened yet."""
        self._under_way = expected

    @property
    def ignorance(self) -> float:
        """1 before anything is known, 0 once the rates are learnt."""
        return exp(-self._ended / self._patience)

    @property
    def factor(self) -> float:
        """1 when things are as they were."""
        held = self._prior + 200.0 * self.ignorance
        return (self._seen + held) / (self._expected + self._under_way + held)

    @property
    def error(self) -> float:
        """The standard error as a share of the factor."""
        return float((self._seen + self._prior) ** -0.5) + 0.4 * self.ignorance


def convolved(first: Sequence[float], then: Sequence[float]) -> list[float]:
    """The chance that both of two spans, one after the other, are over by each step; given such chances of each."""
    parts = [first[0], *map(sub, first[1:], first)]
    return [sum(map(mul, parts[: n + 1], then[n::-1])) for n in range(len(first))]
