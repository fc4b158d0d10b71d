"""Agents: one state for each person, derived from what they asked for and what their calls do. Pure: facts and wishes in,
facts out.

What an agent asked for (logged on, ready or not, why) and what happens to them (offered a call, talking, wrapping up, PBX
out of reach) are kept apart; `STATES` lists, in order of precedence, which of them decides the state shown. So no event can
leave a state behind, and what was asked for during a call is `pending` until the call is over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from cti.agent_states import AgentNow, Known, Membership, Party, Shown, pending_of, state_of
from cti.facts import (
    AgentLineChanged,
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
    LineState,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
    QueueMemberLeft,
    QueueMemberPaused,
    QueueMemberStatusChanged,
)
from cti.people import Agent, Directory
from cti.reasons import CONTESTED, LINE_CLOSED, OTHER_WORK, PAUSED_AT_THE_PBX, NotAReason, Reason, Reasons
from cti.refusals import Refused
from cti.views import AgentView
from cti.wrap_up import LONGEST_EXTENSION as LONGEST_EXTENSION
from cti.wrap_up import Disposition, Worked, Wrapping, WrapUps, begin
from cti.wrap_up import WrapUp as WrapUp

Facts = list[Fact]

SKEW = 5.0
"""Seconds by which Asterisk's clock may differ from ours before wrap-up is counted by ours."""


class NotPossible(Refused):
    """The change cannot be made now; the message says why, for the person who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What must survive a restart of an agent's working session: written down at every change.

    `state`, `shown_reason`, `call`, `since`, `by`, `why`: the last known ones, never of `unknown`. `asked_by`: who wanted
    `ready` and `reason`. `log_off_after`: asked to log off when the call is over, by `log_off_by`. `wrap_*`, `owed`: the
    wrap-up under way, `wrap_extended` the seconds that its agent has added. `worked`: queue calls that are still to be
    wrapped up, with queue and whether they were disposed.
    """

    agent: str
    logged_on: bool
    ready: bool
    reason: str | None
    since: datetime
    wrap_until: datetime | None
    state: AgentState | None = None
    log_off_after: bool = False
    shown_reason: str | None = None
    call: str | None = None
    by: str | None = None
    why: str | None = None
    asked_by: str | None = None
    log_off_by: str | None = None
    wrap_call: str | None = None
    wrap_queue: str | None = None
    wrap_extended: float = 0.0
    owed: dict[str, str] = field(default_factory=dict)
    worked: dict[str, tuple[str, bool]] = field(default_factory=dict)


class Agents:
    """All agents of all PBXs. `hear` folds facts, the verbs carry out wishes; both return what changed.

    `wrap_ups`: the rules of queues that have their own. `pbxs`: those that are configured; phones at others do not count.
    No PBX is taken for reachable before it was asked. `corrected`: states that a comparison with a PBX found wrong.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        wrap_up: WrapUp,
        reasons: Iterable[Reason],
        wrap_ups: Iterable[WrapUp] = (),
        pbxs: Collection[str] | None = None,
    ) -> None:
        self._directory = directory
        self._rules = WrapUps(wrap_up, wrap_ups)
        self._campaign_of: Callable[[str, str], str | None] = lambda call, login: None
        self._reasons = Reasons(reasons)
        self._pbxs = None if pbxs is None else frozenset(pbxs)
        self._agents: dict[str, AgentNow] = {}
        self._up: set[str] = set()
        self._first_asked: datetime | None = None
        self._now: datetime | None = None
        self._comparing: tuple[str, list[AgentStateChanged]] | None = None
        self.corrected = 0

    @contextmanager
    def compared(self, pbx: str) -> Iterator[list[AgentStateChanged]]:
        """What is heard meanwhile was found different when this PBX was asked again: changes of state say so. Yields those
        of states that were shown wrong, and counts them in `corrected`."""
        found: list[AgentStateChanged] = []
        self._comparing = (pbx, found)
        try:
            yield found
        finally:
            self._comparing = None
            self.corrected += len(found)

    def follow_campaigns(
        self, rule: Callable[[int], WrapUp | None], campaign_of: Callable[[str, str], str | None]
    ) -> None:
        """Has calls of campaigns wrapped up by their rules. `rule`: that of a campaign; `campaign_of(call, login)`: whose
        call it is that this agent talks in, as `cti.wrap_up.of_campaign` writes it; None for any other call."""
        self._rules.campaign, self._campaign_of = rule, campaign_of

    # ------------------------------------------------------------------------------------------ what is asked

    def reasons(self) -> tuple[Reason, ...]:
        """The reasons for being not ready, the system's own among them."""
        return self._reasons.all()

    def wrap_ups(self) -> tuple[WrapUp, ...]:
        """The rules of wrap-up that do not change, the general one first."""
        return self._rules.all()

    def wrap_up_of(self, queue: str | None) -> WrapUp:
        """The rule for the calls of a queue."""
        return self._rules.of(queue)

    def view(self, login: str, now: datetime) -> AgentView | None:
        """The agent as clients see them; None for somebody who is no agent."""
        person = self._directory.agents.get(login)
        return self._view(person, now) if person else None

    def views(self, now: datetime) -> list[AgentView]:
        """All agents of the directory, by login."""
        return [self._view(person, now) for _, person in sorted(self._directory.agents.items())]

    def _view(self, person: Agent, now: datetime) -> AgentView:
        a = self._agents.get(person.login) or AgentNow(person.login, person.name, off_hook=person.off_hook)
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
            queues=tuple(sorted({queue for queue, _ in a.members})),
            off_hook=person.off_hook,
            lines={pbx: line.value for pbx, line in a.lines.items()},
        )

    def session(self, login: str, now: datetime) -> Session:
        """What of the agent's session is to be kept; that of somebody who is no agent is over."""
        a = self._agents.get(login) or AgentNow(login, login)
        last: Known | None = Known(a.shown, a.since or now, a.by, a.why)
        if a.shown.state is AgentState.UNKNOWN:
            last = a.known
        wrapping = a.wrapping
        worked = {**a.left_over, **self._at_work(a)}
        return Session(
            agent=login,
            logged_on=a.logged_on,
            ready=a.ready,
            reason=a.reason,
            since=last.since if last else a.since or now,
            wrap_until=wrapping.until if wrapping else None,
            state=last.shown.state if last else None,
            log_off_after=a.log_off_by is not None,
            shown_reason=last.shown.reason if last else None,
            call=last.shown.call if last else None,
            by=last.by if last and a.in_session else None,
            why=last.why if last and a.in_session else None,
            asked_by=a.asked_by if a.in_session else None,
            log_off_by=a.log_off_by,
            wrap_call=wrapping.call if wrapping else None,
            wrap_queue=wrapping.queue if wrapping else None,
            wrap_extended=wrapping.extended if wrapping else 0.0,
            owed=dict(wrapping.owed) if wrapping else {},
            worked={call: (work.queue, work.disposed) for call, work in worked.items()},
        )

    @staticmethod
    def _at_work(a: AgentNow) -> dict[str, Worked]:
        """The queue calls that the agent is on or was on before the present one."""
        now = {p.call: Worked(p.queue, p.disposed) for p in a.parties.values() if p.queue is not None}
        return {**a.worked, **now}

    def wants(self, login: str) -> tuple[bool, bool, str | None]:
        """How Asterisk's queues should have the agent: (member, paused, reason of the pause)."""
        a = self._agents.get(login)
        if a is None or not a.logged_on:
            return (False, False, None)
        if a.wrapping is not None:
            return (True, True, "Wrap-up")
        if not a.ready:
            return (True, True, a.reason or "Not ready")
        if a.at_other_work:
            return (True, True, OTHER_WORK)
        return (True, False, None)

    def knows(self, login: str) -> bool:
        """Whether the agent has, or has had, a session."""
        found = self._agents.get(login)
        return found is not None and found.in_session

    def known(self) -> list[str]:
        """The logins of all agents who have, or have had, a session. Whoever has not is none of our business at the PBX: a
        server that is new to a call centre must not take its agents out of their queues."""
        return [a.login for a in self._agents.values() if a.in_session]

    def at_pbx_only(self, login: str) -> bool:
        """Whether the agent is there at the PBX without ever having had a session: nothing of theirs is to be kept."""
        found = self._agents.get(login)
        return found is not None and found.at_pbx_only

    def dispositions(self, login: str, call: str, queue: str | None) -> tuple[Disposition, ...]:
        """What this agent may say the call ended with; `queue`: the call's own. Nothing when any text will do."""
        a = self._agents.get(login)
        queues: list[str | None] = []
        if a is not None:
            queues += [work.queue for id, work in self._at_work(a).items() if id == call]
            if a.wrapping is not None and a.wrapping.call == call:
                queues.append(a.wrapping.queue)
            if a.wrapping is not None and call in a.wrapping.owed:
                queues.append(a.wrapping.owed[call])
        if queue is not None:
            queues.append(queue)
        return self._rules.choice(queues) if queues else ()

    def _agent(self, login: str) -> AgentNow:
        person = self._directory.agents.get(login)
        if person is None:
            raise NotPossible("not_an_agent", f"{login} is not an agent: no phone is assigned to this login")
        found = self._agents.get(login)
        if found is None:
            found = self._agents[login] = AgentNow(login, person.name, off_hook=person.off_hook)
        return found

    # ------------------------------------------------------------------------------------------ wishes

    def log_on(self, login: str, *, ready: bool, by: str, at: datetime) -> Facts:
        """Begins the working session, ready or not. Who is logged on already stays as they are, or becomes ready if that is
        asked for; a pending log-off is taken back."""
        a = self._agent(login)
        if a.log_off_by is not None or not a.logged_on or ready:
            a.asked_by = by
        a.in_session, a.log_off_by = True, None
        if not a.logged_on:
            a.logged_on, a.ready, a.reason = True, ready, None
            a.wrapping, a.worked = None, {}
        elif ready:
            a.ready, a.reason = True, None
        return self._derive(a, at, by=by, why="logged on", asked=True)

    def log_off(self, login: str, *, by: str, at: datetime, note: str = "") -> Facts:
        """Ends the session; during a call it is pending until the call is over. Nobody is kept by a disposition they owe:
        that it was not given is said. `note`: what the agent is told of why."""
        a = self._agent(login)
        a.in_session = True
        if a.logged_on and (a.talking or a.offered):
            a.log_off_by, a.ready, a.asked_by = by, False, by
            return self._derive(a, at, by=by, why=_noted("asked to log off after the call", note), asked=True)
        owing = a.wrapping is not None and a.wrapping.owed
        why = _noted("logged off" + (" without the disposition" if owing else ""), note)
        return self._end_session(a, by, at, why)

    def _end_session(self, a: AgentNow, by: str, at: datetime, why: str) -> Facts:
        a.logged_on = a.ready = a.at_other_work = False
        a.wrapping = a.reason = a.log_off_by = None
        a.worked, a.left_over = {}, {}
        return self._derive(a, at, by=by, why=why, asked=True)

    def dismiss(self, login: str, *, at: datetime, why: str) -> Facts:
        """Ends the session of somebody who is no agent any more or has another phone, whatever they are doing."""
        a = self._agents.get(login)
        if a is None:
            return []
        facts = self._end_session(a, "system", at, why)
        if not (a.parties or a.members):  # who still talks is busy when they log on again
            del self._agents[login]
        return facts

    def make_ready(self, login: str, *, by: str, at: datetime, note: str = "") -> Facts:
        """Ready for calls, at once or after the present one; ends a wrap-up. Raises NotPossible for an agent who still owes
        a disposition; somebody else, who answers for it, may do it for them."""
        a = self._logged_on(login)
        without = self._let_go(a, by)
        a.ready, a.reason, a.log_off_by, a.wrapping, a.asked_by = True, None, None, None, by
        return self._derive(a, at, by=by, why=_noted("asked to be ready" + without, note), asked=True)

    def make_not_ready(self, login: str, reason: str, *, by: str, at: datetime, note: str = "") -> Facts:
        """Not ready for the reason, at once or after the present call; ends a wrap-up, but for a disposition that is owed.
        Raises NotPossible for a reason that this person may not give."""
        a = self._logged_on(login)
        try:
            self._reasons.check(reason, for_oneself=by == login)
        except NotAReason as error:
            raise NotPossible(error.code, str(error)) from None
        a.ready, a.reason, a.log_off_by, a.asked_by = False, reason, None, by
        self._no_more_time(a)
        return self._derive(a, at, by=by, why=_noted(f"asked to be not ready: {reason}", note), asked=True)

    def begin_other_work(self, login: str, what: str, *, at: datetime) -> Facts:
        """The agent does something that calls do not interrupt: none are offered until it ends. Raises NotPossible for one
        who is not logged on."""
        a = self._logged_on(login)
        a.at_other_work = True
        return self._derive(a, at, by=login, why=f"accepted other work: {what}", asked=True)

    def end_other_work(self, login: str, why: str, *, at: datetime) -> Facts:
        """Calls come again, if the agent wants them."""
        a = self._agents.get(login)
        if a is None or not a.at_other_work:
            return []
        a.at_other_work = False
        return self._derive(a, at, by="system", why=why)

    def finish_wrap_up(self, login: str, *, by: str, at: datetime) -> Facts:
        """Ends wrap-up before its time. Raises NotPossible when there is none, or the agent owes a disposition (which does
        not hold somebody else who ends it for them)."""
        a = self._wrapping_up(login)
        return self._end_wrap_up(a, at, by, "finished wrap-up" + self._let_go(a, by))

    def extend_wrap_up(self, login: str, seconds: float, *, by: str, at: datetime) -> Facts:
        """Gives wrap-up more time, at most ten minutes a call of this. Raises NotPossible when there is none,
        or for an agent who has added as much as the rule allows."""
        a = self._wrapping_up(login)
        if a.wrapping is not None and by != login:
            a.wrapping.extend(seconds, at)
        elif a.wrapping is not None:
            rule = self._rules.of(a.wrapping.queue)
            if not a.wrapping.extend_by_agent(rule, seconds, at):
                raise NotPossible(
                    "no_more_time",
                    f"this wrap-up may be made longer by {rule.extension:g} seconds in all, and was: a supervisor can",
                )
        return self._derive(a, at, by=by, why="extended wrap-up", asked=True)

    def disposed(self, login: str, call: str, *, by: str, at: datetime) -> Facts:
        """How the call ended has been said for this agent: it is owed no more; a wrap-up that only waited for it ends."""
        a = self._agents.get(login)
        if a is None:
            return []
        for party in a.parties.values():
            party.disposed = party.disposed or party.call == call
        for worked in (a.worked, a.left_over):
            if call in worked:
                worked[call].disposed = True
        if a.wrapping is None or a.wrapping.owed.pop(call, None) is None:
            return []
        if a.wrapping.over:
            return self._end_wrap_up(a, at, by, "said how the call ended")
        return self._derive(a, at, by=by, why="said how the call ended")

    def owing(self, call: str) -> list[str]:
        """The agents who still have to say how this call ended."""
        return [a.login for a in self._agents.values() if a.wrapping is not None and call in a.wrapping.owed]

    def wrapping_up(self, call: str) -> list[str]:
        """The agents who are wrapping this call up, or owe how it ended: it is theirs, over a restart too."""
        return [
            a.login
            for a in self._agents.values()
            if a.wrapping is not None and (a.wrapping.call == call or call in a.wrapping.owed)
        ]

    def found_paused(self, login: str, paused: bool, reason: str | None, *, at: datetime) -> Facts:
        """Somebody paused or unpaused the agent at the PBX itself: the wish is taken over, so that both agree. Unpaused in
        wrap-up ends it; paused in wrap-up holds for the time after it."""
        a = self._agents.get(login)
        if a is None or not a.logged_on:
            return []
        a.asked_by = "pbx"
        if paused:
            a.ready, a.reason = False, reason or PAUSED_AT_THE_PBX
            return self._derive(a, at, by="pbx", why="paused at the PBX", asked=True)
        without = " without the disposition" if a.wrapping is not None and a.wrapping.owed else ""
        a.ready, a.reason, a.log_off_by, a.wrapping, a.at_other_work = True, None, None, None, False
        return self._derive(a, at, by="pbx", why="unpaused at the PBX" + without, asked=True)

    def found_contested(self, login: str, pbx: str, *, at: datetime) -> Facts:
        """Another program keeps changing the agent's queue members: not ready until somebody asks again."""
        a = self._agents.get(login)
        if a is None or not a.logged_on:
            return []
        a.ready, a.reason, a.asked_by = False, CONTESTED, "system"
        why = f"another program keeps changing the queue members of this agent at the PBX {pbx}: left as they are"
        return self._derive(a, at, by="system", why=why, asked=True)

    def _let_go(self, a: AgentNow, by: str) -> str:
        """What to add to the reason of who ends a wrap-up with a disposition owed; NotPossible for the agent themselves."""
        if a.wrapping is None or not a.wrapping.owed:
            return ""
        if by != a.login:
            return " without the disposition"
        call, queue = next(iter(a.wrapping.owed.items()))
        codes = ", ".join(f"{d.code} ({d.label})" for d in self._rules.of(queue).dispositions) or "any text"
        raise NotPossible(
            "disposition_owed", f"say first how the call {call} ended, with call.dispose: {codes}"
        )

    def _no_more_time(self, a: AgentNow) -> None:
        if a.wrapping is not None:
            a.wrapping.until = None
            if a.wrapping.over:
                a.wrapping = None

    def _logged_on(self, login: str) -> AgentNow:
        a = self._agent(login)
        if not a.logged_on:
            raise NotPossible("not_logged_on", f"{login} is not logged on: log on first")
        return a

    def _wrapping_up(self, login: str) -> AgentNow:
        a = self._logged_on(login)
        if a.wrapping is None:
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
        a.asked_by = session.asked_by or session.agent
        if session.logged_on and session.log_off_after:
            a.log_off_by = session.log_off_by or session.agent
        self._restore_work(a, session, at)
        by, why = session.by or a.by, session.why or a.why
        if not session.logged_on:
            a.since, a.by, a.why = min(session.since, at), by, why
        elif session.state is not None:
            plain = session.reason if session.state is AgentState.NOT_READY else None
            shown = Shown(session.state, session.shown_reason or plain, call=session.call)
            a.known = Known(shown, min(session.since, at), by, why)
        return self._derive(a, at, by="system", why="taken up again after a restart of the server")

    def _restore_work(self, a: AgentNow, session: Session, at: datetime) -> None:
        a.left_over = {
            call: Worked(queue, disposed=disposed) for call, (queue, disposed) in session.worked.items()
        }
        if session.wrap_until is None and not session.owed:
            return
        until = session.wrap_until if session.wrap_until is not None and session.wrap_until > at else None
        a.wrapping = Wrapping(
            session.wrap_call or "",
            session.wrap_queue or "",
            until,
            dict(session.owed),
            session.wrap_extended,
        )
        if a.wrapping.over:
            self._wrapped_up(a)

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

    def _forget(self, a: AgentNow) -> None:
        if a.login not in self._directory.agents and not (a.logged_on or a.parties or a.members):
            self._agents.pop(a.login, None)

    def tick(self, now: datetime) -> Facts:
        """Ends the wrap-ups whose time is over and in which nothing is owed."""
        self._now = now
        facts: Facts = []
        for a in self._agents.values():
            wrapping = a.wrapping
            if wrapping is None or wrapping.until is None or now < wrapping.until:
                continue
            until, wrapping.until = wrapping.until, None
            if wrapping.over:
                facts += self._end_wrap_up(a, until, "system", "wrap-up time is over")
            else:
                why = "wrap-up time is over; how the call ended is still to be said"
                facts += self._derive(a, until, by="system", why=why)
        return facts

    def _end_wrap_up(self, a: AgentNow, at: datetime, by: str, why: str) -> Facts:
        self._wrapped_up(a)
        return self._derive(a, at, by=by, why=why)

    def _wrapped_up(self, a: AgentNow) -> None:
        wrapping, a.wrapping = a.wrapping, None
        if wrapping is not None and a.ready and not self._rules.of(wrapping.queue).then_ready:
            a.ready, a.reason, a.asked_by = False, None, "system"

    # ------------------------------------------------------------------------------------------ what happens

    def hear(self, fact: Fact) -> Facts:
        """Follows calls, phones, members of queues and PBX links."""
        match fact:
            case CallCleared():
                return self._call_over(fact)
            case CallFact():
                return self._call(fact)
            case QueueMemberJoined():
                new = Membership(fact.status, fact.paused, fact.pause_reason)
                return self._member(fact, new, f"is a member of the queue {fact.queue}")
            case QueueMemberStatusChanged():
                old = self._membership(fact)
                return self._member(fact, Membership(fact.status, old.paused, old.pause_reason), "")
            case QueueMemberPaused():
                old = self._membership(fact)
                why = "paused at the PBX" if fact.paused else "unpaused at the PBX"
                return self._member(fact, Membership(old.status, fact.paused, fact.reason), why)
            case QueueMemberLeft():
                return self._member(fact, None, f"is no longer a member of the queue {fact.queue}")
            case AgentLineChanged():
                return self._line(fact)
            case PbxStatusChanged() if fact.phase != "up":
                self._up.discard(fact.pbx)
                return self._link_changed(fact.at, f"the link to the PBX {fact.pbx} is {fact.phase}")
            case PbxResynced():
                self._up.add(fact.pbx)
                facts: Facts = []
                for a in tuple(self._agents.values()):
                    facts += self._settle_left_over(a, fact)
                    if not (self._lost(a.login) or a.lines):
                        facts += self._without_line(a, fact.at, "the line was found closed")
                return facts + self._link_changed(fact.at, f"the PBX {fact.pbx} was asked again")
        return []

    def _line(self, fact: AgentLineChanged) -> Facts:
        """Follows the line of an agent who works off-hook. Who loses it is not ready until somebody asks again: nobody is
        given calls because a phone was put back on its hook and taken off."""
        a = self._agents.get(fact.agent)
        if a is None and fact.agent not in self._directory.agents:
            return []
        a = a or self._agent(fact.agent)
        was_reachable = a.reachable
        if fact.line is LineState.CLOSED:
            a.lines.pop(fact.pbx, None)
        else:
            a.lines[fact.pbx] = fact.line
        facts: Facts = []
        if a.reachable != was_reachable:
            facts.append(
                AgentReachabilityChanged(at=fact.at, agent=a.login, device=fact.device, reachable=a.reachable)
            )
        if fact.line is LineState.CLOSED and not a.lines and fact.reason != LINE_RENEWED:
            facts += self._without_line(
                a, fact.at, LINE_ENDS.get(fact.reason, f"the line ended: {fact.reason}")
            )
        return facts + self._derive(a, fact.at, by="pbx", why="the line is open")

    def _without_line(self, a: AgentNow, at: datetime, why: str) -> Facts:
        person = self._directory.agents.get(a.login)
        if person is None or not person.off_hook or not (a.logged_on and a.ready):
            return []
        a.ready, a.reason, a.asked_by = False, LINE_CLOSED, "system"
        return self._derive(a, at, by="pbx", why=why, asked=True)

    def line_refused(self, login: str, why: str, *, at: datetime) -> Facts:
        """The line that an agent needs could not be opened: not ready until somebody asks again."""
        a = self._agents.get(login)
        return self._without_line(a, at, f"the line could not be opened: {why}") if a is not None else []

    def page_gone(self, login: str, *, at: datetime) -> Facts:
        """Nobody is behind the agent's open line any more, and it is about to be ended: not ready until asked again."""
        a = self._agents.get(login)
        return self._without_line(a, at, LINE_ENDS[PAGE_GONE]) if a is not None else []

    def off_hook_changed(self, login: str, *, by: str, at: datetime) -> Facts:
        """The agent works off-hook from now on, or no longer, as the directory says."""
        person, known = self._directory.agents[login], login in self._agents
        a = self._agent(login)
        # Of who was never heard of, it is only known that they are reachable on-hook.
        before = a.reachable if known else person.off_hook
        how = "off-hook" if person.off_hook else "on-hook"
        facts = self._derive(a, at, by=by, why=f"works {how} from now on")
        told: Facts = []
        if a.reachable != before:
            device = _device(person) or ""
            told = [AgentReachabilityChanged(at=at, agent=login, device=device, reachable=a.reachable)]
        return [*told, *facts]

    def _settle_left_over(self, a: AgentNow, fact: PbxResynced) -> Facts:
        """After a restart: calls that are gone meanwhile are wrapped up now, or the log-off that waited for their end comes,
        unless the agent is on another one."""
        gone = [call for call in a.left_over if call.partition(":")[0] == fact.pbx]
        for call in gone:
            a.worked[call] = a.left_over.pop(call)
        if not a.logged_on or a.parties or a.left_over:
            return []
        if a.log_off_by is not None and not self._lost(a.login):
            return self._end_session(a, a.log_off_by, fact.at, "logged off after the call, as asked")
        if gone:
            self._begin_wrap_up(a, fact.at)
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
            party = a.parties[connection.id] = Party(fact.call, connection.state)
            party.dials = its_own and isinstance(fact, CallOriginated)
            if (before := a.left_over.pop(fact.call, None)) is not None:
                party.queue, party.disposed = before.queue, before.disposed
        elif not party.talks and connection.state is ConnectionState.CONNECTED:
            a.parties[connection.id] = a.parties.pop(connection.id)  # the one answered last is the newest
        party.call, party.state = fact.call, connection.state
        if its_own and isinstance(fact, CallEstablished) and fact.queue is not None:
            party.queue = fact.queue
        if isinstance(fact, CallEstablished) and party.talks and _with_customer(fact.view):
            party.queue = self._campaign_of(fact.call, login) or party.queue
        why = _WHY.get(fact.TYPE, "on a call") if party.talks else "offered a call"
        return self._derive(a, fact.at, by="pbx", why=why)

    def _left(self, a: AgentNow, connection: str, fact: CallFact) -> Facts:
        party = a.parties.pop(connection, None)
        if party is None:
            return []
        why = "the call ended" if party.talks else f"the offered call went: {getattr(fact, 'reason', 'gone')}"
        if "lost" in (getattr(fact, "reason", None), getattr(fact, "outcome", None)):
            why = "the call was found gone when the PBX was asked again"
        if party.queue is not None:
            a.worked[party.call] = Worked(party.queue, party.disposed)
        if not a.parties:
            if a.logged_on and a.log_off_by is not None:
                return self._end_session(a, a.log_off_by, fact.at, "logged off after the call, as asked")
            if self._begin_wrap_up(a, fact.at):
                why = "wrap-up after a queue call"
        facts = self._derive(a, fact.at, by="pbx", why=why)
        self._forget(a)
        return facts

    def _begin_wrap_up(self, a: AgentNow, at: datetime) -> bool:
        """Whether wrap-up of the calls worked on begins now."""
        worked, a.worked = a.worked, {}
        if not a.logged_on:
            return False
        before = a.wrapping
        a.wrapping = begin(self._rules, worked, self._begin(at), before)
        return a.wrapping is not before

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

    def _membership(self, fact: QueueMemberStatusChanged | QueueMemberPaused) -> Membership:
        a = self._agents.get(fact.agent or "")
        found = a.members.get((fact.queue, fact.interface)) if a is not None else None
        return found or Membership("unknown")

    def _member(
        self,
        fact: QueueMemberJoined | QueueMemberStatusChanged | QueueMemberPaused | QueueMemberLeft,
        new: Membership | None,
        why: str,
    ) -> Facts:
        """`why`: what the PBX did, for somebody who is there without a session."""
        login, key = fact.agent, (fact.queue, fact.interface)
        if login is None or (login not in self._directory.agents and login not in self._agents):
            return []
        a = self._agents.get(login) or self._agent(login)
        was_reachable = a.reachable
        if new is None:
            a.members.pop(key, None)
        else:
            a.members[key] = new
        facts: Facts = []
        if a.reachable != was_reachable:
            why = f"the phone {fact.interface} can{'' if a.reachable else 'not'} be reached"
            facts.append(
                AgentReachabilityChanged(
                    at=fact.at, agent=login, device=fact.interface, reachable=a.reachable
                )
            )
        if facts or not a.in_session:
            facts += self._derive(a, fact.at, by="pbx", why=why, asked=a.reachable == was_reachable)
        self._forget(a)
        return facts

    def _link_changed(self, at: datetime, why: str) -> Facts:
        facts: Facts = []
        for a in self._agents.values():
            facts += self._derive(a, at, by="system", why=why)
        return facts

    # ------------------------------------------------------------------------------------------ the state shown

    def _lost(self, login: str) -> frozenset[str]:
        """The PBXs of the agent's phones that cannot be asked now."""
        person = self._directory.agents.get(login)
        if person is None or person.interfaces.keys() <= self._up:
            return frozenset()
        configured = person.interfaces.keys() if self._pbxs is None else person.interfaces.keys() & self._pbxs
        return frozenset(configured - self._up)

    def _derive(self, a: AgentNow, at: datetime, *, by: str, why: str, asked: bool = False) -> Facts:
        """`asked`: the change is what somebody has just asked for. One that is not, and ends in what was asked for before,
        says who asked: nobody is ready without a person or a rule that wanted it."""
        old = a.shown
        a.lost = self._lost(a.login)
        person = self._directory.agents.get(a.login)
        a.off_hook = person is not None and person.off_hook
        state = state_of(a)
        unknown = old.reason if old.state is AgentState.UNKNOWN else why
        if by != "system" and old.state is not AgentState.UNKNOWN:
            unknown = f"the PBX {', '.join(sorted(a.lost))} cannot be asked now"
        new = Shown(
            state=state,
            reason={AgentState.NOT_READY: a.idle_reason, AgentState.UNKNOWN: unknown}.get(state),
            pending=pending_of(a, state),
            call={
                AgentState.BUSY: a.talking,
                AgentState.RESERVED: a.offered,
                AgentState.WRAP_UP: (a.wrapping.call or None) if a.wrapping is not None else None,
            }.get(state),
            until=a.wrapping.until if state is AgentState.WRAP_UP and a.wrapping is not None else None,
        )
        if new == old:
            return []
        at = max(at, a.since or at)
        if not asked and state is not old.state and state in (AgentState.READY, AgentState.NOT_READY):
            why = f"{why}; {a.wish}"
        if self._comparing is not None and "asked again" not in why:
            why = f"{why}; found when the PBX {self._comparing[0]} was asked again"
        if a.since is None or (new.state, new.reason) != (old.state, old.reason):
            began = self._begun(a, old, Known(new, at, by, why))
        else:
            began = Known(new, a.since, by, why)
        a.shown, a.since, a.by, a.why = new, began.since, began.by, began.why
        changed = AgentStateChanged(
            at=at,
            agent=a.login,
            old=old.state,
            new=new.state,
            since=a.since,
            reason=new.reason,
            by=a.by,
            why=a.why,
            call=new.call,
            pending=new.pending,
            until=new.until,
            device=_device(person) if person else None,
        )
        if self._comparing is not None and _was_wrong(changed):
            self._comparing[1].append(changed)
        return [changed]

    @staticmethod
    def _begun(a: AgentNow, old: Shown, new: Known) -> Known:
        """Since when, by whom and why the new state is. One that was only unknown for a while goes on as it was."""
        if new.shown.state is AgentState.UNKNOWN:
            if a.since is not None:
                a.known = Known(old, a.since, a.by, a.why)
            return new
        known, a.known = a.known, None
        if known is not None and known.shown.goes_on_as(new.shown):
            return Known(new.shown, min(known.since, new.since), known.by, known.why)
        return new


_WHY = {
    "call.originated": "dials",
    "call.established": "talks",
    "call.held": "holds a call",
    "call.retrieved": "talks again",
}


LINE_RENEWED = "renewed"
"""Why a line has ended that is opened again at once: to the same phone, a page in the browser that was loaded again."""

PAGE_GONE = "page_gone"
LINE_ENDS = {
    PAGE_GONE: "the page that was the phone was closed, or its computer lost the network",
    "hung_up": "the line was hung up at the phone, or broke",
    "closed": "the line was closed",
    "lost": "the line was found closed when the PBX was asked again",
    "no_answer": "the phone was called to open the line and was not answered",
    "busy": "the phone was called to open the line and is busy",
    "rejected": "the phone was called to open the line and refused",
    "unreachable": "the phone was called to open the line and cannot be reached",
}


def _was_wrong(changed: AgentStateChanged) -> bool:
    """Whether what was shown before was another state, and not that nobody knows."""
    return changed.old is not changed.new and AgentState.UNKNOWN not in (changed.old, changed.new)


def _noted(why: str, note: str) -> str:
    return f"{why} ({note})" if note else why


def _with_customer(view: CallView) -> bool:
    """Whether somebody who is no agent is through in the call."""
    through = (ConnectionState.CONNECTED, ConnectionState.HOLD)
    return any(one.agent is None and one.state in through for one in view.connections)


def _device(person: Agent) -> str | None:
    return next(iter(person.interfaces.values()), None)
