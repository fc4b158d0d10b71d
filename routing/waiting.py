"""Callers who wait: how long it has taken of late, and how their priority rises while it takes.

The queue is Asterisk's; without this server a caller waits there just the same, at the priority they came with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from cti.facts import CallCleared, Fact, QueueCallerJoined, QueueCallerLeft
from routing import rules
from routing.questions import Decided

log = structlog.get_logger(__name__)

Send = Callable[[str, Mapping[str, str]], Awaitable[object]]

NEWEST_COUNTS = 0.25
"""How much of the estimate the newest wait is; Asterisk's own hold time takes as much."""

ON_THE_WAY = 3.0
"""Seconds after which a call that has not joined its queue is not expected any more."""

MOST_AGEING = 10_000
TICK = 0.5
NOT_JOINED_AFTER = 600.0
"""Seconds after its answer that a call may still come to its queue: the direct queue and sounds come before."""


class Waits:
    """How long callers who were answered have waited, for each queue, lately."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def hear(self, fact: Fact) -> list[Fact]:
        """Takes note of a wait that has ended well."""
        if isinstance(fact, QueueCallerLeft) and fact.reason == "answered":
            old = self._seconds.get(fact.queue, fact.waited)
            self._seconds[fact.queue] = old + NEWEST_COUNTS * (fact.waited - old)
        return []

    def of(self, queue: str) -> float | None:
        """Seconds; None when nobody has been answered yet."""
        return self._seconds.get(queue)


class OnTheWay:
    """Calls that have been sent to a queue and have not joined it yet: they count as waiting, else a burst of calls
    would pass every limit."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[str, tuple[str, float]] = {}

    def decided(self, decided: Decided) -> None:
        """A call is sent to a queue."""
        now = self._clock()
        while self._calls and next(iter(self._calls.values()))[1] < now - ON_THE_WAY:
            del self._calls[next(iter(self._calls))]
        if decided.decision.action == "queue":
            self._calls.pop(decided.call, None)
            self._calls[decided.call] = (f"{decided.pbx}:{decided.decision.queue}", now)

    def hear(self, fact: Fact) -> list[Fact]:
        """It has joined a queue, or is gone."""
        if isinstance(fact, QueueCallerJoined | CallCleared):
            self._calls.pop(fact.call, None)
        return []

    def to(self, queue: str) -> int:
        """How many are on their way to a queue."""
        oldest = self._clock() - ON_THE_WAY
        return sum(to == queue and since >= oldest for to, since in self._calls.values())


@dataclass(slots=True)
class _Ageing:
    pbx: str
    channel: str
    queue: str
    priority: int
    rule: rules.Ageing
    told: float
    waits: bool = False


class Ageing:
    """Raises the priority of calls that wait (AMI: QueueChangePriorityCaller, Asterisk 16 and later)."""

    def __init__(self, *, send: Mapping[str, Send], clock: Callable[[], float] = time.monotonic) -> None:
        self._send, self._clock = send, clock
        self._calls: dict[str, _Ageing] = {}
        self.raised = 0

    def decided(self, decided: Decided) -> None:
        """A call has got its decision; its ageing begins when it joins the queue."""
        decision = decided.decision
        if decision.ageing is None or decision.action != "queue" or len(self._calls) >= MOST_AGEING:
            return
        self._calls[decided.call] = _Ageing(
            decided.pbx, decided.channel, decision.queue, decision.priority, decision.ageing, self._clock()
        )

    def joined(self, fact: Fact) -> list[Fact]:
        """A call waits from now on."""
        if isinstance(fact, QueueCallerJoined) and (one := self._calls.get(fact.call)) is not None:
            one.waits = fact.queue == f"{one.pbx}:{one.queue}"
            one.told = self._clock()
        return []

    def left(self, fact: Fact) -> list[Fact]:
        """A call does not wait any more."""
        if (
            isinstance(fact, QueueCallerLeft)
            and (one := self._calls.get(fact.call)) is not None
            and one.waits
        ):
            del self._calls[fact.call]
        return []

    async def run(self) -> None:
        """Raises what is due, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            for call, one in tuple(self._calls.items()):
                if self._clock() - one.told >= (one.rule.every if one.waits else NOT_JOINED_AFTER):
                    await self._raise(call, one)

    async def _raise(self, call: str, one: _Ageing) -> None:
        most = max(one.rule.most, one.priority)
        if not one.waits or one.priority >= most:
            self._calls.pop(call, None)
            return
        one.told += one.rule.every
        one.priority = min(one.priority + one.rule.by, most)
        headers = {
            "Queue": one.queue,
            "Caller": one.channel,
            "Priority": str(one.priority),
            "Immediate": "yes",
        }
        try:
            await self._send[one.pbx]("QueueChangePriorityCaller", headers)
            self.raised += 1
        except Exception as error:  # it has just left, or the PBX is away: the queue goes on without
            log.debug("a priority was not raised", pbx=one.pbx, why=type(error).__name__)
