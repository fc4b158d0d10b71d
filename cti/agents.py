"""Agents: one state for each person, derived from what they asked for and what their calls do. Pure: facts and wishes in,
facts out.

What an agent asked for (logged on, ready or not, why) and what happens to them (offered a call, talking, wrapping up, PBX
out of reach) are kept apart; `STATES` lists, in order of precedence, which of them decides the state shown. So no event can
leave a state behind, and what was asked for during a call is `pending` until the call is over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cti.facts import (
    AgentReachabilityChanged,
    AgentState,
    AgentStateChanged,
    CallCleared,
    CallEstablished,
    CallFact,
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

SKEW = 5.0
"""Seconds by which Asterisk's clock may differ from ours before wrap-up is counted by ours."""

LONGEST_EXTENSION = 600.0


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
    """What must survive a restart of an agent's working session: written down at every change. `state` and `since`: the
    last known one, never `unknown`. `log_off_after`: asked to log off when the call is over."""

    agent: str
    logged_on: bool
    ready: bool
    reason: str | None
    since: datetime
    wrap_until: datetime | None
    state: AgentState | None = None
    log_off_after: bool = False


@dataclass(slots=True)
class _Party:
    """An agent's connection in a call. `dials`: the agent made the call, and is busy from the first digit on."""

    call: str
    state: ConnectionState
    dials: bool = False
    from_queue: bool = False

    @property
    def talks(self) -> bool:
        return self.dials or self.state in (ConnectionState.CONNECTED, ConnectionState.HOLD)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What everybody has been told of an agent."""

    state: AgentState
    reason: str | None = None
    pending: str | None = None
    call: str | None = None
    until: datetime | None = None


@dataclass(slots=True)
class _Agent:
    """`in_session`: has logged on or off here, ever. `parties`: connections by id, the newest last. `to_wrap_up`: the queue
    call to be wrapped up once on no other. `known`: what was shown before it became unknown, and since when."""

    login: str
    name: str
    in_session: bool = False
    logged_on: bool = False
    ready: bool = False
    reason: str | None = None
    log_off_by: str | None = None
    parties: dict[str, _Party] = field(default_factory=dict)
    to_wrap_up: str | None = None
    wrap_until: datetime | None = None
    wrap_call: str | None = None
    lost: frozenset[str] = frozenset()
    shown: _Shown = _Shown(AgentState.LOGGED_OFF)
    since: datetime | None = None
    known: tuple[_Shown, datetime] | None = None
    by: str = "system"
    why: str = "not logged on since the server started"
    reachable: bool = True
    statuses: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def talking(self) -> str | None:
        """The call the agent talks on, at a PBX that can be asked: the newest, one on hold only if there is no other."""
        calls = [party for party in self._heard() if party.talks]
        spoken = [party for party in calls if party.state is not ConnectionState.HOLD]
        return (spoken or calls)[-1].call if calls else None

    @property
    def offered(self) -> str | None:
        """The newest call that is offered to the agent, at a PBX that can be asked."""
        calls = [party for party in self._heard() if not party.talks]
        return calls[-1].call if calls else None

    def _heard(self) -> list[_Party]:
        return [party for party in self.parties.values() if party.call.partition(":")[0] not in self.lost]


STATES: tuple[tuple[AgentState, Callable[[_Agent], bool]], ...] = (
    (AgentState.LOGGED_OFF, lambda a: not a.logged_on),
    (AgentState.BUSY, lambda a: a.talking is not None),
    (AgentState.RESERVED, lambda a: a.offered is not None),
    (AgentState.UNKNOWN, lambda a: bool(a.lost)),
    (AgentState.WRAP_UP, lambda a: a.wrap_until is not None),
    (AgentState.READY, lambda a: a.ready),
    (AgentState.NOT_READY, lambda a: True),
)
"""The first condition that holds is the agent's state. What one PBX tells is true though another one is lost."""

OCCUPIED = frozenset({AgentState.BUSY, AgentState.RESERVED, AgentState.WRAP_UP, AgentState.UNKNOWN})
"""The states after which comes what was asked for meanwhile."""


class Agents:
    """All agents of all PBXs. `hear` folds facts, the verbs carry out wishes; both return what changed.

    `pbxs`: those that are configured; phones at others do not count. No PBX is taken for reachable before it was asked.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        wrap_up: WrapUp,
        reasons: tuple[str, ...],
        pbxs: Collection[str] | None = None,
    ) -> None:
        self._directory = directory
        self._wrap_up = wrap_up
        self._reasons = reasons
        self._pbxs = None if pbxs is None else frozenset(pbxs)
        self._agents: dict[str, _Agent] = {}
        self._up: set[str] = set()
        self._first_asked: datetime | None = None
        self._now: datetime | None = None

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
        self._first_asked = self._first_asked or now
        return AgentView(
            agent=person.login,
            name=person.name,
            team=person.team,
            state=a.shown.state,
            reason=a.shown.reason,
            since=a.since or self._first_asked,
            by=a.by,
            why=a.why,
            pending=a.shown.pending,
            until=a.shown.until,
            call=a.shown.call,
            device=_device(person),
            reachable=a.reachable,
            queues=tuple(sorted({queue for queue, _ in a.statuses})),
        )

    def session(self, login: str, now: datetime) -> Session:
        """What of the agent's session is to be kept; that of somebody who is no agent is over."""
        a = self._agents.get(login) or _Agent(login, login)
        state, since = a.shown.state, a.since or now
        if a.known is not None and state is AgentState.UNKNOWN:
            state, since = a.known[0].state, a.known[1]
        return Session(
            agent=login,
            logged_on=a.logged_on,
            ready=a.ready,
            reason=a.reason,
            since=since,
            wrap_until=a.wrap_until,
            state=None if state is AgentState.UNKNOWN else state,
            log_off_after=a.log_off_by is not None,
        )

    def wants(self, login: str) -> tuple[bool, bool, str | None]:
        """How Asterisk's queues should have the agent: (member, paused, reason of the pause)."""
        a = self._agents.get(login)
        if a is None or not a.logged_on:
            return (False, False, None)
        if a.wrap_until is not None:
            return (True, True, "Wrap-up")
        if not a.ready:
            return (True, True, a.reason or "Not ready")
        return (True, False, None)

    def knows(self, login: str) -> bool:
        """Whether the agent has, or has had, a session."""
        found = self._agents.get(login)
        return found is not None and found.in_session

    def known(self) -> list[str]:
        """The logins of all agents who have, or have had, a session. Whoever has not is none of our business at the PBX: a
        server that is new to a call centre must not take its agents out of their queues."""
        return [a.login for a in self._agents.values() if a.in_session]

    def _agent(self, login: str) -> _Agent:
        person = self._directory.agents.get(login)
        if person is None:
            raise NotPossible("not_an_agent", f"{login} is not an agent: no phone is assigned to this login")
        found = self._agents.get(login)
        if found is None:
            found = self._agents[login] = _Agent(login, person.name)
        return found

    # ------------------------------------------------------------------------------------------ wishes

    def log_on(self, login: str, *, ready: bool, by: str, at: datetime) -> Facts:
        """Begins the working session, ready or not. Who is logged on already stays as they are, or becomes ready if that is
        asked for; a pending log-off is taken back."""
        a = self._agent(login)
        a.in_session, a.log_off_by = True, None
        if not a.logged_on:
            a.logged_on, a.ready, a.reason = True, ready, None
            a.wrap_until = a.to_wrap_up = None
        elif ready:
            a.ready, a.reason = True, None
        return self._derive(a, at, by=by, why="logged on")

    def log_off(self, login: str, *, by: str, at: datetime, note: str = "") -> Facts:
        """Ends the session; during a call it is pending until the call is over. `note`: what the agent is told of why."""
        a = self._agent(login)
        a.in_session = True
        if a.logged_on and (a.talking or a.offered):
            a.log_off_by, a.ready = by, False
            return self._derive(a, at, by=by, why=_noted("asked to log off after the call", note))
        return self._end_session(a, by, at, _noted("logged off", note))

    def _end_session(self, a: _Agent, by: str, at: datetime, why: str) -> Facts:
        a.logged_on = a.ready = False
        a.wrap_until = a.to_wrap_up = a.reason = a.log_off_by = None
        return self._derive(a, at, by=by, why=why)

    def dismiss(self, login: str, *, at: datetime, why: str) -> Facts:
        """Ends the session of somebody who is no agent any more or has another phone, whatever they are doing."""
        a = self._agents.get(login)
        if a is None:
            return []
        facts = self._end_session(a, "system", at, why)
        if not (a.parties or a.statuses):  # who still talks is busy when they log on again
            del self._agents[login]
        return facts

    def make_ready(self, login: str, *, by: str, at: datetime, note: str = "") -> Facts:
        """Ready for calls, at once or after the present one; ends a wrap-up."""
        a = self._logged_on(login)
        a.ready, a.reason, a.log_off_by, a.wrap_until = True, None, None, None
        return self._derive(a, at, by=by, why=_noted("asked to be ready", note))

    def make_not_ready(self, login: str, reason: str, *, by: str, at: datetime, note: str = "") -> Facts:
        """Not ready for the reason, at once or after the present call; ends a wrap-up. Raises NotPossible for a reason not
        configured."""
        a = self._logged_on(login)
        if self._reasons and reason not in self._reasons:
            raise NotPossible(
                "unknown_reason", f"there is no reason {reason!r}; use one of: {', '.join(self._reasons)}"
            )
        a.ready, a.reason, a.log_off_by, a.wrap_until = False, reason, None, None
        return self._derive(a, at, by=by, why=_noted(f"asked to be not ready: {reason}", note))

    def finish_wrap_up(self, login: str, *, by: str, at: datetime) -> Facts:
        """Ends wrap-up before its time. Raises NotPossible when there is none."""
        return self._end_wrap_up(self._wrapping_up(login), at, by, "finished wrap-up")

    def extend_wrap_up(self, login: str, seconds: float, *, by: str, at: datetime) -> Facts:
        """Gives wrap-up more time, at most ten minutes a call of this. Raises NotPossible when there is none."""
        a = self._wrapping_up(login)
        if a.wrap_until is not None:
            a.wrap_until += timedelta(seconds=min(max(seconds, 0.0), LONGEST_EXTENSION))
        return self._derive(a, at, by=by, why="extended wrap-up")

    def found_paused(self, login: str, paused: bool, reason: str | None, *, at: datetime) -> Facts:
        """Somebody paused or unpaused the agent at the PBX itself: the wish is taken over, so that both agree. Unpaused in
        wrap-up ends it; paused in wrap-up holds for the time after it."""
        a = self._agents.get(login)
        if a is None or not a.logged_on:
            return []
        if paused:
            a.ready, a.reason = False, reason or "Paused at the PBX"
        else:
            a.ready, a.reason, a.log_off_by, a.wrap_until = True, None, None, None
        return self._derive(a, at, by="pbx", why="paused at the PBX" if paused else "unpaused at the PBX")

    def _logged_on(self, login: str) -> _Agent:
        a = self._agent(login)
        if not a.logged_on:
            raise NotPossible("not_logged_on", f"{login} is not logged on: log on first")
        return a

    def _wrapping_up(self, login: str) -> _Agent:
        a = self._logged_on(login)
        if a.wrap_until is None:
            raise NotPossible("not_in_wrap_up", f"{login} is not in wrap-up")
        return a

    def restore(self, session: Session, at: datetime) -> Facts:
        """Takes a session up again after a restart of the server. A wrap-up that is over meanwhile has ended as set.
        Nothing for somebody who is no agent any more."""
        if session.agent not in self._directory.agents:
            return []
        a = self._agent(session.agent)
        a.in_session = True
        a.logged_on, a.ready, a.reason = session.logged_on, session.ready, session.reason
        a.log_off_by = session.agent if session.logged_on and session.log_off_after else None
        if session.wrap_until is not None and session.wrap_until > at:
            a.wrap_until = session.wrap_until
        elif session.wrap_until is not None and a.ready and not self._wrap_up.then_ready:
            a.ready, a.reason = False, None
        if not session.logged_on:
            a.since = min(session.since, at)
        elif session.state is not None:
            reason = session.reason if session.state is AgentState.NOT_READY else None
            a.known = (_Shown(session.state, reason), min(session.since, at))
        return self._derive(a, at, by="system", why="taken up again after a restart of the server")

    def people_changed(self, at: datetime) -> Facts:
        """Follows a change of the directory: who is no agent any more is logged off and, once on no call, forgotten."""
        facts: Facts = []
        for a in tuple(self._agents.values()):
            if a.login in self._directory.agents:
                facts += self._derive(a, at, by="system", why="the agent's phones were changed")
                continue
            facts += self._end_session(a, "system", at, "is no agent any more")
            self._forget(a)
        return facts

    def _forget(self, a: _Agent) -> None:
        if a.login not in self._directory.agents and not (a.logged_on or a.parties or a.statuses):
            self._agents.pop(a.login, None)

    def tick(self, now: datetime) -> Facts:
        """Ends the wrap-ups whose time is over."""
        self._now = now
        facts: Facts = []
        for a in self._agents.values():
            if a.wrap_until is not None and now >= a.wrap_until:
                facts += self._end_wrap_up(a, a.wrap_until, "system", "wrap-up time is over")
        return facts

    def _end_wrap_up(self, a: _Agent, at: datetime, by: str, why: str) -> Facts:
        a.wrap_until = None
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
                self._up.discard(fact.pbx)
                return self._link_changed(fact.at, f"the link to the PBX {fact.pbx} is {fact.phase}")
            case PbxResynced():
                self._up.add(fact.pbx)
                return self._link_changed(fact.at, f"the PBX {fact.pbx} was asked again")
        return []

    def _call(self, fact: CallFact) -> Facts:
        facts: Facts = []
        connection = getattr(fact, "connection", None)
        if isinstance(connection, ConnectionView) and connection.agent:
            facts += self._connection(fact, connection, its_own=True)
        view = getattr(fact, "view", None)
        if isinstance(view, CallView):
            own = connection.id if isinstance(connection, ConnectionView) else None
            for other in view.connections:
                if other.agent and other.id != own:
                    facts += self._connection(fact, other, its_own=False)
        return facts

    def _connection(self, fact: CallFact, connection: ConnectionView, *, its_own: bool) -> Facts:
        login = connection.agent or ""
        if login not in self._directory.agents and login not in self._agents:
            return []
        a = self._agents.get(login) or self._agent(login)
        if connection.state is ConnectionState.NULL:
            return self._left(a, connection.id, fact)
        party = a.parties.get(connection.id)
        if party is None:
            party = a.parties[connection.id] = _Party(fact.call, connection.state)
            party.dials = its_own and isinstance(fact, CallOriginated)
        elif not party.talks and connection.state is ConnectionState.CONNECTED:
            a.parties[connection.id] = a.parties.pop(connection.id)  # the one answered last is the newest
        party.call, party.state = fact.call, connection.state
        if its_own and isinstance(fact, CallEstablished) and fact.queue is not None:
            party.from_queue = True
        why = _WHY.get(fact.TYPE, "on a call") if party.talks else "offered a call"
        return self._derive(a, fact.at, by="pbx", why=why)

    def _left(self, a: _Agent, connection: str, fact: CallFact) -> Facts:
        party = a.parties.pop(connection, None)
        if party is None:
            return []
        why = "the call ended" if party.talks else f"the offered call went: {getattr(fact, 'reason', 'gone')}"
        if party.from_queue:
            a.to_wrap_up = party.call
        if not a.parties:
            if a.logged_on and a.log_off_by is not None:
                return self._end_session(a, a.log_off_by, fact.at, "logged off after the call, as asked")
            if a.logged_on and a.to_wrap_up is not None and self._wrap_up.seconds > 0:
                a.wrap_until = self._begin(fact.at) + timedelta(seconds=self._wrap_up.seconds)
                a.wrap_call, why = a.to_wrap_up, "wrap-up after a queue call"
            a.to_wrap_up = None
        facts = self._derive(a, fact.at, by="pbx", why=why)
        self._forget(a)
        return facts

    def _begin(self, at: datetime) -> datetime:
        """When wrap-up begins: as Asterisk says, unless its clock is plainly not ours, which ends the wrap-up."""
        if self._now is None or abs((self._now - at).total_seconds()) <= SKEW:
            return at
        return self._now

    def _call_over(self, fact: CallCleared) -> Facts:
        facts: Facts = []
        for login in fact.agents:
            a = self._agents.get(login)
            if a is not None:
                for connection in [id for id, party in a.parties.items() if party.call == fact.call]:
                    facts += self._left(a, connection, fact)
        return facts

    def _member(
        self, login: str | None, queue: str, interface: str, status: str | None, at: datetime
    ) -> Facts:
        if login is None or (login not in self._directory.agents and login not in self._agents):
            return []
        a = self._agents.get(login) or self._agent(login)
        if status is None:
            a.statuses.pop((queue, interface), None)
        else:
            a.statuses[queue, interface] = status
        reachable = not a.statuses or any(s not in UNREACHABLE for s in a.statuses.values())
        self._forget(a)
        if reachable == a.reachable:
            return []
        a.reachable = reachable
        return [AgentReachabilityChanged(at=at, agent=login, device=interface, reachable=reachable)]

    def _link_changed(self, at: datetime, why: str) -> Facts:
        facts: Facts = []
        for a in self._agents.values():
            facts += self._derive(a, at, by="system", why=why)
        return facts

    # ------------------------------------------------------------------------------------------ the state shown

    def _lost(self, login: str) -> frozenset[str]:
        """The PBXs of the agent's phones that cannot be asked now."""
        person = self._directory.agents.get(login)
        if person is None:
            return frozenset()
        configured = person.interfaces.keys() if self._pbxs is None else person.interfaces.keys() & self._pbxs
        return frozenset(configured - self._up)

    def _derive(self, a: _Agent, at: datetime, *, by: str, why: str) -> Facts:
        old = a.shown
        a.lost = self._lost(a.login)
        state = next(state for state, holds in STATES if holds(a))
        unknown = why if old.state is not AgentState.UNKNOWN else old.reason
        new = _Shown(
            state=state,
            reason={AgentState.NOT_READY: a.reason, AgentState.UNKNOWN: unknown}.get(state),
            pending=self._pending(a, state),
            call={
                AgentState.BUSY: a.talking,
                AgentState.RESERVED: a.offered,
                AgentState.WRAP_UP: a.wrap_call,
            }.get(state),
            until=a.wrap_until if state is AgentState.WRAP_UP else None,
        )
        if new == old:
            return []
        at = max(at, a.since or at)
        if a.since is None or (new.state, new.reason) != (old.state, old.reason):
            a.since = self._since(a, old, new, at)
        a.shown, a.by, a.why = new, by, why
        person = self._directory.agents.get(a.login)
        return [
            AgentStateChanged(
                at=at,
                agent=a.login,
                old=old.state,
                new=new.state,
                since=a.since,
                reason=new.reason,
                by=by,
                why=why,
                call=new.call,
                pending=new.pending,
                until=new.until,
                device=_device(person) if person else None,
            )
        ]

    @staticmethod
    def _since(a: _Agent, old: _Shown, new: _Shown, at: datetime) -> datetime:
        """When the new state began. One that was only unknown for a while, and comes back the same, goes on."""
        if new.state is AgentState.UNKNOWN:
            if a.since is not None:
                a.known = (old, a.since)
            return at
        known, a.known = a.known, None
        if known is not None:
            before, since = known
            if (before.state, before.reason, before.call) == (new.state, new.reason, new.call):
                return min(since, at)
        return at

    @staticmethod
    def _pending(a: _Agent, state: AgentState) -> str | None:
        if state not in OCCUPIED:
            return None
        if a.log_off_by is not None:
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


def _noted(why: str, note: str) -> str:
    return f"{why} ({note})" if note else why


def _device(person: Agent) -> str | None:
    return next(iter(person.interfaces.values()), None)
