"""How others pace, to compare with: one call per free agent, a fixed ratio, and a level moved by the drop rate (as
VICIdial's ADAPT_AVERAGE is documented to do). Nothing dials by these."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

IN_FLIGHT_ENDS = frozenset({"connect", "abandon", "end"})


class _Counting:
    """Counts agents by state, and calls on their way to an agent."""

    def __init__(self) -> None:
        self.agents: dict[Hashable, str] = {}
        self.open: set[Hashable] = set()
        self.answered = self.dropped = 0

    def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None:
        if kind in ("login", "ready", "break", "talk", "wrap"):
            self.agents[ident] = kind
        elif kind == "logout":
            self.agents.pop(ident, None)
        elif kind == "dial":
            self.open.add(ident)
        elif kind in IN_FLIGHT_ENDS:
            self.open.discard(ident)
            self.answered += kind != "end"
            self.dropped += kind == "abandon"

    def in_state(self, *states: str) -> int:
        return sum(state in states for state in self.agents.values())

    def calls_to_give_up(self, now: float) -> Iterable[Hashable]:
        return ()


class Progressive(_Counting):
    """One call for each free agent."""

    def calls_to_place(self, now: float) -> int:
        return max(0, self.in_state("ready") - len(self.open))


class FixedRatio(_Counting):
    """So many calls for each free agent."""

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def calls_to_place(self, now: float) -> int:
        return max(0, round(self.ratio * self.in_state("ready")) - len(self.open))


class AverageAdapt(_Counting):
    """Every 2.5 s level x agents at work, less all open calls and talks; the level follows, every 15 s, whether
    agents wait or calls do, and is cut while the drop rate is above the limit once 50 calls were answered."""

    def __init__(self, limit: float = 0.03) -> None:
        super().__init__()
        self.limit = limit
        self.level = 1.0
        self._dial_at = self._adapt_at = 0.0

    def calls_to_place(self, now: float) -> int:
        if now >= self._adapt_at:
            self._adapt_at = now + 15.0
            self._adapt()
        if now < self._dial_at:
            return 0
        self._dial_at = now + 2.5
        ready, talking = self.in_state("ready"), self.in_state("talk")
        return max(0, round(self.level * (ready + talking)) - len(self.open) - talking)

    def _adapt(self) -> None:
        working = self.in_state("ready", "talk", "wrap")
        if not working:
            return
        waiting = self.in_state("ready") / working
        over = self.answered >= 50 and self.dropped / self.answered > self.limit
        if over:
            self.level = max(1.0, self.level - 0.15)
        elif waiting > 0.1:
            self.level = min(3.0, self.level + 0.05 * (1 + 5 * waiting))
        elif waiting < 0.03:
            self.level = max(1.0, self.level - 0.05)
