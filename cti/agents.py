"""Agents: one state for each person, derived from what they asked for and what their calls do. Pure: facts and wishes in,
facts out.

What an agent asked for (logged on, ready or not, why) and what happens to them (offered a call, talking, wrapping up, PBX
out of reach) are kept apart; `STATES` lists, in order of precedence, which of them decides the state shown. So no event can
leave a state behind, and what was asked for during a call is `pending` until the call is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cti.facts import (
    AgentReachabilityChanged,
    AgentState,
    AgentStateChanged,
    CallCleared,
    CallFact,
    CallMerged,
    CallOriginated,
    CallView,
    ConnectionState,
    ConnectionView,
    Fact,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
    QueueMemberLeft,
    QueueMemberStatusChanged,
)
from cti.people import Agent, Directory
from cti.views import AgentView

Facts = list[Fact]

UNREACHABLE = frozenset({"unavailable", "invalid"})


class NotPossible(Exception):
    """The change cannot be made now; the message says why, for the person who asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapUp:
    """What follows a queue call: how long, and the state after it."""

    seconds: float = 30.0
    then_ready: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What must survive a restart of an agent's working session: written down at every change."""

    agent: str
    logged_on: bool
    ready: bool
    reason: str | None
    since: datetime
    wrap_until: datetime | None


@dataclass(slots=True)
class _Agent:
    login: str
    name: str
    logged_on: bool = False
    ready: bool = False
    reason: str | None = None
    log_off_after: bool = False
    offered: dict[str, None] = field(default_factory=dict)
    talking: dict[str, None] = field(default_factory=dict)
    dialling: set[str] = field(default_factory=set)
    from_queue: set[str] = field(default_factory=set)
    wrap_until: datetime | None = None
    wrap_call: str | None = None
    state: AgentState = AgentState.LOGGED_OFF
    shown_reason: str | None = None
    since: datetime | None = None
    by: str = "system"
    why: str = "not logged on since the server started"
    pending: str | None = None
    call: str | None = None
    reachable: bool = True
    statuses: dict[tuple[str, str], str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)


def _newest(calls: dict[str, None]) -> str | None:
    return next(reversed(calls), None)


STATES: tuple[tuple[AgentState, Callable[[_Agent], bool]], ...] = (
    (AgentState.LOGGED_OFF, lambda a: not a.logged_on),
    (AgentState.UNKNOWN, lambda a: bool(a.lost)),
    (AgentState.BUSY, lambda a: bool(a.talking)),
    (AgentState.RESERVED, lambda a: bool(a.offered)),
    (AgentState.WRAP_UP, lambda a: a.wrap_until is not None),
    (AgentState.READY, lambda a: a.ready),
    (AgentState.NOT_READY, lambda a: True),
)
"""The first condition that holds is the agent's state."""

OCCUPIED = frozenset({AgentState.BUSY, AgentState.RESERVED, AgentState.WRAP_UP})


class Agents:
    """All agents of all PBXs. `hear` folds facts, the verbs carry out wishes; both return what changed."""

    def __init__(self, directory: Directory, *, wrap_up: WrapUp, reasons: tuple[str, ...]) -> None:
        self._directory = directory
        self._wrap_up = wrap_up
        self._reasons = reasons
        self._agents: dict[str, _Agent] = {}
        self._down: set[str] = set()

    # ------------------------------------------------------------------------------------------ what is asked

    def view(self, login: str, now: datetime) -> AgentView | None:
        """The agent as clients see them; None for somebody who is no agent."""
        person = self._directory.agents.get(login)
        return self._view(person, now) if person else None

    def views(self, now: datetime) -> list[AgentView]:
        """All agents of the directory, by login."""
        return [self._view(person, now) for _, person in sorted(self._directory.agents.items())]

    def _view(self, person: Agent, now: datetime) -> AgentView:
        a = self._agents.get(person.login) or _Agent(person.login, person.name)
        queues = sorted({queue for queue, _ in a.statuses})
        return AgentView(
            agent=person.login,
            name=person.name,
            team=person.team,
            state=a.state,
            reason=a.shown_reason,
            since=a.since or now,
            by=a.by,
            why=a.why,
            pending=a.pending,
            until=a.wrap_until if a.state is AgentState.WRAP_UP else None,
            call=a.call,
            device=_device(person),
            reachable=a.reachable,
            queues=tuple(queues),
        )

    def session(self, login: str, now: datetime) -> Session:
        """What of the agent's session is to be kept."""
        a = self._agent(login)
        return Session(
            agent=login,
            logged_on=a.logged_on,
            ready=a.ready,
            reason=a.reason,
            since=a.since or now,
            wrap_until=a.wrap_until,
        )

    def wants(self, login: str) -> tuple[bool, bool, str | None]:
        """How Asterisk's queues should have the agent: (member, paused, reason of the pause)."""
        a = self._agents.get(login)
        if a is None or not a.logged_on:
            return (False, False, None)
        if a.wrap_until is not None and not a.talking:
            return (True, True, "Wrap-up")
        if not a.ready:
            return (True, True, a.reason or "Not ready")
        return (True, False, None)

    def known(self) -> list[str]:
        """The logins of all agents who have a session."""
        return list(self._agents)

    def _agent(self, login: str) -> _Agent:
        found = self._agents.get(login)
        if found is None:
            person = self._directory.agents.get(login)
            if person is None:
                raise NotPossible(
                    "not_an_agent", f"{login} is not an agent: no phone is assigned to this login"
                )
            found = self._agents[login] = _Agent(login, person.name)
        return found

    # ------------------------------------------------------------------------------------------ wishes

    def log_on(self, login: str, *, ready: bool, by: str, at: datetime) -> Facts:
        """Begins the working session. Twice is no error and changes nothing but readiness."""
        a = self._agent(login)
        a.log_off_after = False
        if not a.logged_on:
            a.logged_on, a.wrap_until = True, None
        a.ready, a.reason = ready, None
        a.lost = self._down & set(self._directory.agents[login].interfaces)
        return self._derive(a, at, by=by, why="logged on")

    def log_off(self, login: str, *, by: str, at: datetime) -> Facts:
        """Ends the session; during a call it is pending until the call is over."""
        a = self._agent(login)
        if a.talking or a.offered:
            a.log_off_after = True
            a.ready = False
            return self._derive(a, at, by=by, why="asked to log off after the call")
        return self._end_session(a, by, at, "logged off")

    def _end_session(self, a: _Agent, by: str, at: datetime, why: str) -> Facts:
        a.logged_on = a.ready = a.log_off_after = False
        a.wrap_until = a.wrap_call = a.reason = None
        return self._derive(a, at, by=by, why=why)

    def make_ready(self, login: str, *, by: str, at: datetime) -> Facts:
        """Ready for calls, at once or after the present one; ends a wrap-up."""
        a = self._logged_on(login)
        a.ready, a.reason, a.log_off_after = True, None, False
        a.wrap_until = a.wrap_call = None
        return self._derive(a, at, by=by, why="asked to be ready")

    def make_not_ready(self, login: str, reason: str, *, by: str, at: datetime) -> Facts:
        """Not ready for the reason, at once or after the present call. Raises NotPossible for a reason not configured."""
        a = self._logged_on(login)
        if self._reasons and reason not in self._reasons:
            raise NotPossible(
                "unknown_reason", f"there is no reason {reason!r}; use one of: {', '.join(self._reasons)}"
            )
        a.ready, a.reason, a.log_off_after = False, reason, False
        a.wrap_until = a.wrap_call = None
        return self._derive(a, at, by=by, why=f"asked to be not ready: {reason}")

    def finish_wrap_up(self, login: str, *, by: str, at: datetime) -> Facts:
        """Ends wrap-up before its time. Raises NotPossible when there is none."""
        a = self._logged_on(login)
        if a.wrap_until is None:
            raise NotPossible("not_in_wrap_up", "you are not in wrap-up")
        return self._end_wrap_up(a, at, by, "finished wrap-up")

    def extend_wrap_up(self, login: str, seconds: float, *, by: str, at: datetime) -> Facts:
        """Gives wrap-up more time, at most ten minutes a call of this. Raises NotPossible when there is none."""
        a = self._logged_on(login)
        if a.wrap_until is None:
            raise NotPossible("not_in_wrap_up", "you are not in wrap-up")
        a.wrap_until += timedelta(seconds=min(max(seconds, 0.0), 600.0))
        return self._derive(a, at, by=by, why="extended wrap-up")

    def found_paused(self, login: str, paused: bool, reason: str | None, *, at: datetime) -> Facts:
        """Somebody paused or unpaused the agent at the PBX itself: the wish is taken over, so that both agree."""
        a = self._agents.get(login)
        if a is None or not a.logged_on or a.wrap_until is not None:
            return []
        a.ready, a.reason = not paused, (reason or "Paused at the PBX") if paused else None
        return self._derive(a, at, by="pbx", why="paused at the PBX" if paused else "unpaused at the PBX")

    def _logged_on(self, login: str) -> _Agent:
        a = self._agent(login)
        if not a.logged_on:
            raise NotPossible("not_logged_on", "log on first")
        return a

    def restore(self, session: Session, at: datetime) -> Facts:
        """Takes a session up again after a restart of the server. A wrap-up that is over meanwhile has ended as set."""
        if session.agent not in self._directory.agents:
            return []
        a = self._agent(session.agent)
        a.logged_on, a.ready, a.reason, a.since = (
            session.logged_on,
            session.ready,
            session.reason,
            session.since,
        )
        if session.wrap_until is not None:
            if session.wrap_until > at:
                a.wrap_until = session.wrap_until
            else:
                a.ready = self._wrap_up.then_ready and session.ready
        a.lost = self._down & set(self._directory.agents[session.agent].interfaces)
        return self._derive(a, at, by="system", why="taken up again after a restart of the server")

    def tick(self, now: datetime) -> Facts:
        """Ends the wrap-ups whose time is over."""
        facts: Facts = []
        for a in self._agents.values():
            if a.wrap_until is not None and now >= a.wrap_until and not a.talking:
                facts += self._end_wrap_up(a, a.wrap_until, "system", "wrap-up time is over")
        return facts

    def _end_wrap_up(self, a: _Agent, at: datetime, by: str, why: str) -> Facts:
        a.wrap_until = a.wrap_call = None
        if a.ready and not self._wrap_up.then_ready:
            a.ready, a.reason = False, None
        return self._derive(a, at, by=by, why=why)

    # ------------------------------------------------------------------------------------------ what happens

    def hear(self, fact: Fact) -> Facts:
        """Follows calls, phones and PBX links."""
        match fact:
            case CallCleared():
                return self._call_over(fact)
            case CallFact():
                return self._call(fact)
            case QueueMemberJoined() | QueueMemberStatusChanged():
                return self._member(fact.agent, fact.queue, fact.interface, fact.status, fact.at)
            case QueueMemberLeft():
                return self._member(fact.agent, fact.queue, fact.interface, None, fact.at)
            case PbxStatusChanged() if fact.phase != "up":
                return self._pbx_lost(fact)
            case PbxResynced():
                return self._pbx_back(fact)
        return []

    def _call(self, fact: CallFact) -> Facts:
        facts: Facts = []
        seen: set[str] = set()
        connection = getattr(fact, "connection", None)
        if isinstance(connection, ConnectionView) and connection.agent:
            seen.add(connection.id)
            facts += self._connection(fact, connection)
        view = getattr(fact, "view", None)
        if isinstance(view, CallView):
            for other in view.connections:
                if other.agent and other.id not in seen:
                    facts += self._connection(fact, other)
        return facts

    def _connection(self, fact: CallFact, connection: ConnectionView) -> Facts:
        login = connection.agent or ""
        if login not in self._directory.agents:
            return []
        a, call, state = self._agent(login), fact.call, connection.state
        if isinstance(fact, CallMerged):
            a.talking.pop(fact.merged, None)
        if isinstance(fact, CallOriginated) and fact.connection is connection:
            a.dialling.add(call)
        queue = getattr(fact, "queue", None)
        if queue and state is ConnectionState.CONNECTED:
            a.from_queue.add(call)
        if state is ConnectionState.NULL:
            return self._left(a, fact)
        if state in (ConnectionState.CONNECTED, ConnectionState.HOLD) or call in a.dialling:
            a.offered.pop(call, None)
            a.talking.setdefault(call)
            return self._derive(a, fact.at, by="pbx", why=_WHY.get(fact.TYPE, "on a call"))
        if call not in a.talking:
            a.offered.setdefault(call)
        return self._derive(a, fact.at, by="pbx", why="offered a call")

    def _left(self, a: _Agent, fact: CallFact) -> Facts:
        call = fact.call
        talked = call in a.talking
        a.offered.pop(call, None)
        a.talking.pop(call, None)
        a.dialling.discard(call)
        from_queue = call in a.from_queue
        a.from_queue.discard(call)
        why = "the call ended" if talked else f"the offered call went: {getattr(fact, 'reason', 'gone')}"
        if a.talking or a.offered or not a.logged_on:
            return self._derive(a, fact.at, by="pbx", why=why)
        if a.log_off_after:
            return self._end_session(a, a.by, fact.at, "logged off after the call, as asked")
        if talked and from_queue and self._wrap_up.seconds > 0:
            a.wrap_until = fact.at + timedelta(seconds=self._wrap_up.seconds)
            a.wrap_call = call
            return self._derive(a, fact.at, by="system", why="wrap-up after a queue call")
        return self._derive(a, fact.at, by="pbx", why=why)

    def _call_over(self, fact: CallCleared) -> Facts:
        facts: Facts = []
        for a in self._agents.values():
            if fact.call in a.talking or fact.call in a.offered:
                facts += self._left(a, fact)
        return facts

    def _member(
        self, login: str | None, queue: str, interface: str, status: str | None, at: datetime
    ) -> Facts:
        if login is None or login not in self._directory.agents:
            return []
        a = self._agent(login)
        if status is None:
            a.statuses.pop((queue, interface), None)
        else:
            a.statuses[queue, interface] = status
        reachable = not a.statuses or any(s not in UNREACHABLE for s in a.statuses.values())
        if reachable == a.reachable:
            return []
        a.reachable = reachable
        return [AgentReachabilityChanged(at=at, agent=login, device=interface, reachable=reachable)]

    def _pbx_lost(self, fact: PbxStatusChanged) -> Facts:
        self._down.add(fact.pbx)
        facts: Facts = []
        for a in self._agents.values():
            person = self._directory.agents.get(a.login)
            if person is not None and fact.pbx in person.interfaces:
                a.lost.add(fact.pbx)
                facts += self._derive(
                    a, fact.at, by="system", why=f"the link to the PBX {fact.pbx} is {fact.phase}"
                )
        return facts

    def _pbx_back(self, fact: PbxResynced) -> Facts:
        self._down.discard(fact.pbx)
        facts: Facts = []
        for a in self._agents.values():
            if fact.pbx in a.lost:
                a.lost.discard(fact.pbx)
                facts += self._derive(a, fact.at, by="system", why=f"the PBX {fact.pbx} was asked again")
        return facts

    # ------------------------------------------------------------------------------------------ the state shown

    def _derive(self, a: _Agent, at: datetime, *, by: str, why: str) -> Facts:
        state = next(state for state, holds in STATES if holds(a))
        reason = {
            AgentState.NOT_READY: a.reason,
            AgentState.UNKNOWN: why if a.state is not AgentState.UNKNOWN else a.shown_reason,
        }.get(state)
        pending = self._pending(a, state)
        call = {
            AgentState.BUSY: _newest(a.talking),
            AgentState.RESERVED: _newest(a.offered),
            AgentState.WRAP_UP: a.wrap_call,
        }.get(state)
        until = a.wrap_until if state is AgentState.WRAP_UP else None
        shown = (a.state, a.shown_reason, a.pending, a.call)
        if shown == (state, reason, pending, call) and why != "extended wrap-up":
            return []
        old = a.state
        if state is not old or reason != a.shown_reason or a.since is None:
            a.since = at
        a.state, a.shown_reason, a.pending, a.call, a.by, a.why = state, reason, pending, call, by, why
        person = self._directory.agents.get(a.login)
        return [
            AgentStateChanged(
                at=at,
                agent=a.login,
                old=old,
                new=state,
                since=a.since,
                reason=reason,
                by=by,
                why=why,
                call=call,
                pending=pending,
                until=until,
                device=_device(person) if person else None,
            )
        ]

    @staticmethod
    def _pending(a: _Agent, state: AgentState) -> str | None:
        if state not in OCCUPIED:
            return None
        if a.log_off_after:
            return "logged_off"
        if not a.ready:
            return f"not_ready: {a.reason}" if a.reason else "not_ready"
        return None


_WHY = {
    "call.originated": "dials",
    "call.established": "talks",
    "call.held": "holds a call",
    "call.retrieved": "talks again",
}


def _device(person: Agent) -> str | None:
    return next(iter(person.interfaces.values()), None)
