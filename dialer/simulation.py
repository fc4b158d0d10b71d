"""A call centre in a few seconds: the dry run of a campaign, and the bench on which ways of pacing are compared.

Customers, phones and agents are played event by event; whoever paces sees only what a real dialer sees
(`Pacing.observe`) and is asked each tick how many calls to place and which to give up. Time is simulated; nothing
here waits, dials or knows a clock. The same seed gives the same customers whoever paces, call by call.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

HALF_HOUR = 1800.0


class Paces(Protocol):
    """Who decides how many calls to place: `dialer.pacing.Pacing`, or something to compare it with."""

    def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None: ...

    def calls_to_place(self, now: float) -> int: ...

    def calls_to_give_up(self, now: float) -> Iterable[Hashable]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A log-normal span of time: its mean in seconds, and its standard deviation as a share of the mean."""

    mean: float
    spread: float = 0.6

    def draw(self, dice: random.Random) -> float:
        """Returns seconds, above 0."""
        variance = math.log(1 + self.spread**2)
        return dice.lognormvariate(math.log(self.mean) - variance / 2, math.sqrt(variance))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is dialed, and who talks.

    `answer_rate`: the share of calls that somebody (or a machine) answers, as (from second, share) steps, with
    straight lines between them where `drifting`. `says_ring`: the share of calls whose carrier tells that it rings.
    `machines`: the share of answers that are machines; with `amd` they are found after `amd_seconds`, and this share
    of people is taken for one. `shifts`: (second, agents) changes of the number of agents. `late`: seconds by which
    events come late, at most.
    """

    agents: int
    seconds: float = 4 * 3600.0
    answer_rate: Sequence[tuple[float, float]] = ((0.0, 0.3),)
    drifting: bool = False
    set_up: Duration = Duration(mean=2.5, spread=0.5)
    to_answer: Duration = Duration(mean=9.0, spread=0.6)
    busy: float = 0.08
    failed: float = 0.06
    says_ring: float = 0.9
    talk: Duration = Duration(mean=75.0, spread=0.9)
    refusing: float = 0.0
    refusal: Duration = Duration(mean=8.0, spread=0.5)
    wrap: Duration = Duration(mean=15.0, spread=0.6)
    machines: float = 0.0
    amd: bool = False
    amd_seconds: Duration = Duration(mean=1.8, spread=0.3)
    amd_false: float = 0.0
    pause_every: float = 0.0
    pause: Duration = Duration(mean=300.0, spread=0.5)
    shifts: Sequence[tuple[float, int]] = ()
    ring_timeout: float = 24.0
    answer_wait: float = 2.0
    tick: float = 0.5
    calls_per_second: float = 50.0
    lines: int = 5000
    late: float = 0.0

    def share(self, at: float) -> float:
        """The share of calls answered that are dialed at this second."""
        before = self.answer_rate[0]
        for step in self.answer_rate[1:]:
            if step[0] > at:
                if self.drifting:
                    part = (at - before[0]) / (step[0] - before[0])
                    return before[1] + part * (step[1] - before[1])
                return before[1]
            before = step
        return before[1]


@dataclass(slots=True)
class Outcome:
    """What a run came to. `busy`, `ready`: agent seconds. `worst_window`: the highest share abandoned of the answers
    in any half hour with 30 answers and more; `windows_over` how many half hours, by the minute, were above 3 % and
    one call."""

    placed: int = 0
    answered: int = 0
    connected: int = 0
    abandoned: int = 0
    machines: int = 0
    given_up: int = 0
    busy: float = 0.0
    ready: float = 0.0
    waited: list[float] = field(default_factory=list)
    worst_window: float = 0.0
    windows_over: int = 0

    @property
    def utilisation(self) -> float:
        """Talk and wrap-up as a share of the time agents were ready to work."""
        return self.busy / self.ready if self.ready else 0.0

    @property
    def abandonment(self) -> float:
        """Abandoned calls as a share of the live answers."""
        return self.abandoned / self.answered if self.answered else 0.0


@dataclass(slots=True, eq=False)
class _Agent:
    number: int
    state: str = "out"
    since: float = 0.0
    leaving: bool = False
    pausing: bool = False


@dataclass(slots=True, eq=False)
class _Call:
    number: int
    person: bool = True
    answered: float = 0.0
    stage: str = "dialing"
    end: str = ""
    talk: float = 0.0
    wrap: float = 0.0
    agent: _Agent | None = None


class Simulation:
    """One run. `pace` decides, `traffic` plays; `run` returns what came of it."""

    def __init__(self, traffic: Traffic, pace: Paces, *, seed: int) -> None:
        self._traffic = traffic
        self._pace = pace
        self._seed = seed
        self._dice = random.Random(seed)  # noqa: S311  # it plays people, it keeps no secret
        self._events: list[tuple[float, int, str, Any]] = []
        self._count = 0
        self._now = 0.0
        self._told = 0.0
        self._agents: list[_Agent] = []
        self._free: deque[_Agent] = deque()
        self._queue: deque[_Call] = deque()
        self._calls: dict[int, _Call] = {}
        self._dialed = 0
        self._tokens = 0.0
        self._lives: list[tuple[float, bool]] = []
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Plays all of it."""
        traffic = self._traffic
        self._at(0.0, "staff", traffic.agents)
        for second, agents in traffic.shifts:
            self._at(second, "staff", agents)
        self._at(traffic.tick, "tick", None)
        events = self._events
        while events:
            now, _, kind, about = heapq.heappop(events)
            if now > traffic.seconds:
                break
            self._now = now
            getattr(self, f"_{kind}")(about)
        self._now = traffic.seconds
        for agent in self._agents:
            self._enter(agent, agent.state)
        self._windows()
        return self.outcome

    # -------------------------------------------------------------------------------------------- the machinery

    def _at(self, when: float, kind: str, about: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, kind, about))

    def _say(self, kind: str, ident: Hashable, info: Any = None) -> None:
        late = self._traffic.late
        if not late:
            self._pace.observe(self._now, kind, ident, info)
            return
        self._told = max(self._told, self._now + self._dice.random() * late)
        self._at(self._told, "deliver", (kind, ident, info))

    def _deliver(self, said: tuple[str, Hashable, Any]) -> None:
        self._pace.observe(self._now, *said)

    def _tick(self, _: None) -> None:
        traffic, now = self._traffic, self._now
        self._at(now + traffic.tick, "tick", None)
        for ident in list(self._pace.calls_to_give_up(now)):
            call = self._calls.get(ident)  # type: ignore[call-overload]  # ours are numbers
            if call is not None and call.stage in ("dialing", "ringing"):
                self.outcome.given_up += 1
                self._over(call, "cancel")
        wanted = self._pace.calls_to_place(now)
        self._tokens = min(
            max(1.0, traffic.calls_per_second), self._tokens + traffic.calls_per_second * traffic.tick
        )
        for _n in range(min(wanted, int(self._tokens), traffic.lines - len(self._calls))):
            self._tokens -= 1
            self._dial()

    # -------------------------------------------------------------------------------------------- calls

    def _dial(self) -> None:
        """The customer is drawn from dice of its own, so that all who pace call the same people."""
        traffic, now = self._traffic, self._now
        dice = random.Random(f"{self._seed} {self._dialed}")  # noqa: S311  # as above
        self._dialed += 1
        self.outcome.placed += 1
        call = _Call(self._dialed)
        self._calls[call.number] = call
        self._say("dial", call.number)
        set_up, to_answer, luck = traffic.set_up.draw(dice), traffic.to_answer.draw(dice), dice.random()
        share, told = traffic.share(now), dice.random() < traffic.says_ring
        call.person = dice.random() >= traffic.machines
        call.talk = (traffic.refusal if dice.random() < traffic.refusing else traffic.talk).draw(dice)
        call.wrap = traffic.wrap.draw(dice)
        if luck < share:
            if told:
                self._at(now + set_up, "ring", call)
            if set_up + to_answer < traffic.ring_timeout:
                self._at(now + set_up + to_answer, "answer", call)
            else:
                self._at(now + traffic.ring_timeout, "unanswered", (call, "noanswer"))
            return
        kind = dice.random()
        if kind < traffic.failed:
            self._at(now + set_up * dice.random(), "unanswered", (call, "failed"))
        elif kind < traffic.failed + traffic.busy:
            self._at(now + set_up, "unanswered", (call, "busy"))
        else:
            if told:
                self._at(now + set_up, "ring", call)
            self._at(now + traffic.ring_timeout, "unanswered", (call, "noanswer"))

    def _ring(self, call: _Call) -> None:
        if call.stage == "dialing":
            call.stage = "ringing"
            self._say("ring", call.number)

    def _unanswered(self, what: tuple[_Call, str]) -> None:
        call, end = what
        if call.stage in ("dialing", "ringing"):
            self._over(call, end)

    def _answer(self, call: _Call) -> None:
        if call.stage not in ("dialing", "ringing"):
            return
        call.answered = self._now
        self._say("answer", call.number)
        if not self._traffic.amd:
            self._live(call)
            return
        call.stage = "amd"
        self._at(self._now + self._traffic.amd_seconds.draw(self._dice), "judged", call)

    def _judged(self, call: _Call) -> None:
        if not call.person or self._dice.random() < self._traffic.amd_false:
            self.outcome.machines += 1
            self._say("amd", call.number, "machine")
            self._over(call, "machine")
            return
        self._say("amd", call.number, "human")
        self._live(call)

    def _live(self, call: _Call) -> None:
        self.outcome.answered += 1
        if self._free:
            self._connect(call, self._free.popleft())
            return
        call.stage = "queued"
        self._queue.append(call)
        self._say("queue", call.number)
        self._at(self._now + self._traffic.answer_wait, "lost", call)

    def _lost(self, call: _Call) -> None:
        if call.stage != "queued":
            return
        self._queue.remove(call)
        del self._calls[call.number]
        call.stage = "over"
        self.outcome.abandoned += 1
        self._lives.append((self._now, True))
        self._say("abandon", call.number, self._traffic.answer_wait)

    def _over(self, call: _Call, end: str) -> None:
        call.stage = "over"
        self._calls.pop(call.number, None)
        self._say("end", call.number, end)

    # -------------------------------------------------------------------------------------------- agents

    def _enter(self, agent: _Agent, state: str) -> None:
        spent = self._now - agent.since
        if agent.state in ("talk", "wrap"):
            self.outcome.busy += spent
        if agent.state in ("ready", "talk", "wrap"):
            self.outcome.ready += spent
        agent.state, agent.since = state, self._now

    def _staff(self, agents: int) -> None:
        here = [agent for agent in self._agents if agent.state != "out" and not agent.leaving]
        for agent in here[agents:]:
            agent.leaving = True
            if agent.state == "ready":
                self._free.remove(agent)
                self._leave(agent)
        for _ in range(agents - len(here)):
            agent = _Agent(len(self._agents), since=self._now)
            self._agents.append(agent)
            self._say("login", self._name(agent))
            self._ready(agent)
            if self._traffic.pause_every:
                self._at(
                    self._now + self._dice.expovariate(1 / self._traffic.pause_every), "wants_pause", agent
                )

    @staticmethod
    def _name(agent: _Agent) -> str:
        return f"agent {agent.number}"

    def _leave(self, agent: _Agent) -> None:
        self._enter(agent, "out")
        self._say("logout", self._name(agent))

    def _wants_pause(self, agent: _Agent) -> None:
        if agent.state == "out":
            return
        agent.pausing = True
        if agent.state == "ready":
            self._free.remove(agent)
            self._rest(agent)

    def _rest(self, agent: _Agent) -> None:
        agent.pausing = False
        self._enter(agent, "break")
        self._say("break", self._name(agent))
        self._at(self._now + self._traffic.pause.draw(self._dice), "rested", agent)
        self._at(self._now + self._dice.expovariate(1 / self._traffic.pause_every), "wants_pause", agent)

    def _rested(self, agent: _Agent) -> None:
        if agent.state == "break":
            self._ready(agent)

    def _ready(self, agent: _Agent) -> None:
        self._enter(agent, "ready")
        self._say("ready", self._name(agent))
        if self._queue:
            self._connect(self._queue.popleft(), agent)
        else:
            self._free.append(agent)

    def _connect(self, call: _Call, agent: _Agent) -> None:
        waited = self._now - call.answered
        call.stage, call.agent = "talking", agent
        self.outcome.connected += 1
        self.outcome.waited.append(waited)
        self._lives.append((self._now, False))
        self._enter(agent, "talk")
        self._say("connect", call.number, (self._name(agent), waited))
        self._say("talk", self._name(agent), call.number)
        machine = not call.person and not self._traffic.amd
        self._at(self._now + (min(call.talk, 6.0) if machine else call.talk), "hung_up", call)

    def _hung_up(self, call: _Call) -> None:
        agent = call.agent
        assert agent is not None
        self._calls.pop(call.number, None)
        self._enter(agent, "wrap")
        self._say("wrap", self._name(agent), call.number)
        self._at(self._now + call.wrap, "wrapped", call)

    def _wrapped(self, call: _Call) -> None:
        agent = call.agent
        assert agent is not None
        self._say("disp", self._name(agent), (call.number, "human" if call.person else "machine"))
        if agent.leaving:
            self._leave(agent)
        elif agent.pausing:
            self._rest(agent)
        else:
            self._ready(agent)

    # -------------------------------------------------------------------------------------------- the law's windows

    def _windows(self) -> None:
        lives, lost, first = self._lives, 0, 0
        checked = 0.0
        for n, (at, was_lost) in enumerate(lives):
            lost += was_lost
            while lives[first][0] < at - HALF_HOUR:
                lost -= lives[first][1]
                first += 1
            total = n + 1 - first
            if at >= HALF_HOUR and total >= 30:
                self.outcome.worst_window = max(self.outcome.worst_window, lost / total)
                if at >= checked + 60.0:
                    checked = at
                    self.outcome.windows_over += lost > 0.03 * total + 1
