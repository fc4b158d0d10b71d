"""Ways out: which trunk takes the next call, within its calls a second and its channels; failing ones rest. Pure.

A trunk that fails `FAILS` times with nothing got through between them rests for `RESTS[0]` seconds; then one call tries it,
and each further failure makes the next rest longer. The caller says the time: seconds of a clock that never falls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

FAILS = 5
"""Failures in a row after which a trunk rests."""

RESTS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds of the first rest, the second...; the last one stays."""


LATE = 0.03
"""Seconds by which a call may be sent late without the next ones being so too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkPlan:
    """A trunk as it is set up. `dial`: `PJSIP/{number}@carrier`, with {number} as E.164 or {digits} without its +."""

    name: str
    pbx: str
    dial: str
    priority: int = 0
    calls_per_second: float = 10.0
    channels: int = 100

    def channel(self, e164: str) -> str:
        """What is dialed to reach a number."""
        return self.dial.replace("{number}", e164).replace("{digits}", e164.removeprefix("+"))


@dataclass(slots=True, eq=False)
class _Trunk:
    plan: TrunkPlan
    tokens: float = 1.0
    turn: float = 0.0
    filled: float = 0.0
    busy: int = 0
    fails: int = 0
    rests: int = 0
    until: float = 0.0
    trying: bool = False
    placed: int = 0

    def fill(self, now: float) -> None:
        most = max(1.0, self.plan.calls_per_second * 0.5)
        self.tokens = min(most, self.tokens + self.plan.calls_per_second * max(0.0, now - self.filled))
        self.filled = now

    def free(self, now: float) -> bool:
        self.fill(now)
        if self.busy >= self.plan.channels or self.tokens < 1.0 or now < self.until:
            return False
        return not (self.rests and self.trying)


@dataclass(slots=True, eq=False)
class Trunks:
    """All trunks of this server. A slot is taken before a call is placed and given back when it is over."""

    plans: Sequence[TrunkPlan]
    _trunks: dict[str, _Trunk] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for plan in self.plans:
            self._trunks[plan.name] = _Trunk(plan)

    def plan(self, name: str) -> TrunkPlan | None:
        """A trunk as it is set up, by its name."""
        trunk = self._trunks.get(name)
        return trunk.plan if trunk is not None else None

    def of(self, pbx: str, wanted: Sequence[str] = ()) -> list[str]:
        """Names of the trunks of a PBX, the preferred first: as wanted, else by priority."""
        here = [t.plan for t in self._trunks.values() if t.plan.pbx == pbx]
        if wanted:
            names = {plan.name for plan in here}
            return [name for name in wanted if name in names]
        return [plan.name for plan in sorted(here, key=lambda plan: (-plan.priority, plan.name))]

    def take(self, now: float, pbx: str, wanted: Sequence[str] = (), most: int = 1) -> list[str]:
        """Slots for up to so many calls, each the name of its trunk; equal priorities take turns."""
        taken: list[str] = []
        names = self.of(pbx, wanted)
        while len(taken) < most:
            free = [self._trunks[name] for name in names if self._trunks[name].free(now)]
            if not free:
                break
            if not wanted:
                best = free[0].plan.priority
                free = [trunk for trunk in free if trunk.plan.priority == best]
                free.sort(key=lambda trunk: trunk.placed)
            trunk = free[0]
            trunk.tokens -= 1.0
            trunk.busy += 1
            trunk.placed += 1
            trunk.trying = trunk.trying or trunk.rests > 0
            taken.append(trunk.plan.name)
        return taken

    def turn(self, name: str, now: float, apart: float = 0.0) -> float:
        """When the next call may be sent through a trunk: one that is alone at once; of several each by the calls a second
        after the one before, `apart` seconds at least. Who comes a little late does not make all those after them late."""
        trunk = self._trunks.get(name)
        if trunk is None:
            return now
        at = max(now - LATE, trunk.turn)
        trunk.turn = at + max(1.0 / trunk.plan.calls_per_second, apart)
        return max(at, now)

    def take_up(self, name: str) -> None:
        """A call that was there already holds a slot."""
        if (trunk := self._trunks.get(name)) is not None:
            trunk.busy += 1

    def unused(self, names: Iterable[str]) -> None:
        """Slots taken for calls that were not placed."""
        for name in names:
            if (trunk := self._trunks.get(name)) is not None:
                trunk.busy -= 1
                trunk.tokens += 1.0
                trunk.placed -= 1
                trunk.trying = False

    def over(self, name: str) -> None:
        """A call is over: its channel is free."""
        if (trunk := self._trunks.get(name)) is not None:
            trunk.busy = max(0, trunk.busy - 1)
            trunk.trying = False

    def got_through(self, name: str) -> None:
        """The trunk did its work: somebody's phone rang, was busy, or there is no such number."""
        if (trunk := self._trunks.get(name)) is not None:
            trunk.fails = trunk.rests = 0
            trunk.until, trunk.trying = 0.0, False

    def failed(self, now: float, name: str) -> float:
        """The trunk did not get through; seconds that it rests now, 0.0 while it goes on."""
        trunk = self._trunks.get(name)
        if trunk is None or now < trunk.until:
            return 0.0
        trunk.fails += 1
        if trunk.fails < FAILS and not trunk.rests:
            return 0.0
        rest = RESTS[min(trunk.rests, len(RESTS) - 1)]
        trunk.rests += 1
        trunk.until, trunk.trying = now + rest, False
        return rest

    def all_rest(self, now: float, pbx: str, wanted: Sequence[str] = ()) -> bool:
        """Whether there is a trunk, and none that does not rest."""
        names = self.of(pbx, wanted)
        return bool(names) and all(now < self._trunks[name].until for name in names)

    def words(self, now: float) -> dict[str, str]:
        """How each is: `12 of 100 channels`, `rests 20 s: failed 5 times`."""
        said = {}
        for name, trunk in self._trunks.items():
            if now < trunk.until:
                said[name] = f"rests {trunk.until - now:.0f} s more: failed {trunk.fails} times in a row"
            else:
                said[name] = f"{trunk.busy} of {trunk.plan.channels} channels"
        return said


class CallerIds:
    """Which number is shown to whom: those that fit best take turns. Only verified ones are ever shown."""

    def __init__(self, verified: Iterable[str]) -> None:
        self._verified = frozenset(verified)
        self._turns: dict[tuple[int, tuple[str, ...]], Iterator[str]] = {}

    def show(self, campaign: int, wanted: Iterable[tuple[str, Sequence[str]]], e164: str) -> str:
        """The number to show for a call to `e164`; "" where none is verified. `wanted`: numbers of the campaign, each with
        the prefixes of those to whom it is shown (none: to all others)."""
        rules = [(number, prefixes) for number, prefixes in wanted if number in self._verified]
        longest = max((len(p) for _, prefixes in rules for p in prefixes if e164.startswith(p)), default=0)
        if longest:
            fits = [n for n, ps in rules if any(e164.startswith(p) and len(p) == longest for p in ps)]
        else:
            fits = [number for number, prefixes in rules if not prefixes]
        if not fits and not rules:
            fits = sorted(self._verified)
        if not fits:
            return ""
        turn = self._turns.setdefault((campaign, tuple(fits)), cycle(fits))
        return next(turn)
