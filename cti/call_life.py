"""How connections and calls begin and end: offered, given back by a queue, cleared, ended."""

from __future__ import annotations

from cti.call_states import CallStates
from cti.facts import (
    CallCleared,
    CallDataChanged,
    CallDiverted,
    CallFailed,
    CallOffered,
    CallOriginated,
    ConnectionState,
    Direction,
    Fact,
)
from cti.legs import (
    ALERTING,
    ESTABLISHED,
    INITIATED,
    NULL,
    QUEUED,
    REASONS,
    REMEMBERED,
    RIVALRY,
    Call,
    Facts,
    Leg,
    moment,
)


class CallLife(CallStates):
    """Begins and ends legs and calls; each call ends once."""

    def _begin(
        self, linkedid: str, direction: Direction, at: float, ani: str | None, ani_name: str | None
    ) -> Call:
        key = linkedid
        while key in self._ended or key in self._calls:
            key = f"{linkedid}~{at:.3f}" if key == linkedid else key + "+"
        call = Call(
            id=f"{self.pbx}:{key}",
            key=key,
            direction=direction,
            started=at,
            ani=ani,
            ani_name=ani_name,
            dnis=None,
        )
        self._calls[key] = call
        if key != linkedid:
            self._call_also(linkedid, call)
        return call

    def _call_also(self, linkedid: str, call: Call) -> None:
        if self._current(linkedid) is not call:
            self._aliases[linkedid] = call
            call.aliases.append(linkedid)

    def _originate(self, leg: Leg, at: float) -> Facts:
        call = leg.call
        if leg.agent is not None:
            call.consult_of = self._consulted_call(leg.agent, call)
        self._enter(leg, INITIATED, at)
        leg.published = True
        self._count_agent(leg)
        facts: Facts = [
            CallOriginated(
                at=moment(at), call=call.id, connection=self._connection(leg), view=self._whole(call)
            )
        ]
        return facts + self._settle(call, at)

    def _consulted_call(self, agent: str, new: Call) -> str | None:
        """The call an agent already talks on when they begin another: the new one is a consultation about it."""
        for call in self._calls.values():
            if call is not new and any(
                leg.agent == agent and leg.state in ESTABLISHED for leg in call.legs.values()
            ):
                return call.id
        return None

    def _publish(self, leg: Leg, at: float) -> Facts:
        """Says a leg is being offered the call. Those that only serve other legs are never said."""
        if leg.published or leg.front is not None or leg.cleared or leg.pipe:
            return []
        call = leg.call
        leg.published = True
        self._enter(leg, INITIATED, at)
        self._count_agent(leg)
        if call.direction is Direction.INTERNAL and call.answered is None and self._is_outside(leg):
            call.direction = Direction.OUTBOUND
        call.dnis = call.dnis or leg.dials
        leg.offered_by = leg.member_of or self._waiting_in(call)
        return [
            CallOffered(
                at=moment(at),
                call=call.id,
                connection=self._connection(leg),
                agent=leg.agent,
                queue=leg.offered_by,
                view=self._whole(call),
            )
        ]

    def _is_outside(self, leg: Leg) -> bool:
        return not leg.local and leg.agent is None and self._is_trunk(leg.device)

    def _count_agent(self, leg: Leg) -> None:
        if leg.agent is not None:
            leg.call.agents[leg.agent] = None

    def _retract(self, pipe: Leg, at: float) -> Facts:
        """A Local channel taken for a party turns out to be a mere joint: it is no connection any more."""
        if not pipe.published:
            return []
        pipe.published = False
        self._enter(pipe, NULL, at)
        cleared = self._connection_cleared(pipe, at, 0, "replaced")
        pipe.state = NULL
        return [cleared]

    def _return(self, guest: Leg, at: float) -> Facts:
        """An agent's waiting leg outlives the customer's: the customer's call ends, and the leg waits in one of its own."""
        self._left_alone.pop(guest.id, None)
        call, linkedid = guest.call, guest.guest_of or guest.id
        self._enter(guest, NULL, at)
        call.talked, call.held = max(call.talked, guest.talked), max(call.held, guest.held)
        del call.legs[guest.id]
        facts: Facts = [self._connection_cleared(guest, at, 16, "normal"), *self._end_if_empty(call, at)]
        guest.talked, guest.held, guest.offered_at, guest.answered_from = 0.0, 0.0, at, None
        guest.met, guest.left_by, guest.guest_of, guest.transferred = set(), set(), None, False
        guest.latest = frozenset()
        guest.call = self._begin(linkedid, Direction.INTERNAL, at, guest.number, guest.name)
        guest.call.legs[guest.id] = guest
        return facts + self._originate(guest, at)

    def _given_back(self, leg: Leg, at: float, reason: str) -> Facts:
        """The queue gave the caller back to the dialplan."""
        queue, call = leg.queue, leg.call
        self._end_wait(leg, at)
        changes = self._derive(call, at)
        facts: Facts = []
        if leg.published:
            facts.append(
                CallDiverted(
                    at=moment(at),
                    call=call.id,
                    connection=self._connection(leg),
                    agent=None,
                    queue=queue,
                    reason=reason,
                    rang=None,
                    view=self._whole(call),
                )
            )
        return facts + self._tell(call, [c for c in changes if c[0] is not leg], at)

    def _lives(self, call: Call) -> bool:
        return self._calls.get(call.key) is call

    def _change_data(self, call: Call, values: dict[str, str], by: str, at: float) -> Facts:
        changed = {name: value for name, value in values.items() if call.data.get(name, "") != value}
        if not changed:
            return []
        call.data.update(changed)
        for name in [name for name, value in call.data.items() if value == ""]:
            del call.data[name]
        return [CallDataChanged(at=moment(at), call=call.id, changed=changed, by=by)]

    def _clear(self, leg: Leg, at: float, cause: int, *, lost: bool = False) -> Facts:
        call = leg.call
        # a member that never rang is only told now, so that its end is one
        facts = self._publish(leg, at) if leg.member_of is not None else []
        before = leg.state
        for uniqueid, bridge in tuple(leg.bridges.items()):
            self._leave_bridge(leg, uniqueid, bridge)
        if leg.talking_from is not None:
            leg.talked += max(0.0, at - leg.talking_from)
            leg.talking_from = None
        leg.cleared = True
        del call.legs[leg.id]
        if leg.met:
            call.departed[leg.id] = leg
        for other in call.legs.values():
            other.dialling.pop(leg.id, None)
        if leg.dialler is not None:
            leg.dialler.dialling.pop(leg.id, None)
        self._left_alone.pop(leg.id, None)
        queued = leg.queue
        self._end_wait(leg, at)
        if not leg.published:
            return facts + (self._end_if_empty(call, at) or self._settle(call, at))
        self._enter(leg, NULL, at)
        call.talked, call.held = max(call.talked, leg.talked), max(call.held, leg.held)
        call.cause = cause or call.cause
        if not leg.transferred and before in ESTABLISHED:
            facts += self._handed_over(call, leg, at)
        facts.append(self._parting(leg, before, queued, at, cause, lost))
        if call.legs:
            return facts + (self._leave_alone(call, at) or self._settle(call, at))
        call.lost = call.lost or lost
        return facts + self._end_if_empty(call, at)

    def _leave_alone(self, call: Call, at: float) -> Facts:
        """Whether only a guest is left, who waits again at once or is about to go too."""
        facts: Facts = []
        if all(leg.guest_of is not None for leg in call.legs.values()):
            for leg in tuple(call.legs.values()):
                if leg.music or leg.aside is not None:
                    facts += self._return(leg, at)
                else:
                    self._left_alone[leg.id] = leg, at
        return facts

    def _handed_over(self, call: Call, gone: Leg, at: float) -> Facts:
        """Whether somebody who talked with the one now gone talks on with another: that was a transfer."""
        for leg in call.legs.values():
            if gone.id in leg.left_by and leg.talking_from is not None:
                leg.left_by.clear()
                gone.transferred = True
                return [self._transferred(call, gone, "by_server", None, at)]
        return []

    def _parting(
        self, leg: Leg, before: ConnectionState, queued: str | None, at: float, cause: int, lost: bool
    ) -> Fact:
        call = leg.call
        if before in (INITIATED, ALERTING) and leg.dialled:
            reason = "lost" if lost else self._why_not_taken(leg, cause)
            call.failed = reason in {"unreachable", "congestion"}
            rang = max(0.0, at - leg.offered_at)
            if leg.agent is not None or leg.member_of is not None:
                return CallDiverted(
                    at=moment(at),
                    call=call.id,
                    connection=self._connection(leg),
                    agent=leg.agent,
                    queue=leg.member_of or self._waiting_in(call),
                    reason=reason,
                    rang=rang,
                    view=self._whole(call),
                )
            return CallFailed(
                at=moment(at),
                call=call.id,
                connection=self._connection(leg),
                agent=leg.agent,
                reason=reason,
                cause=cause,
            )
        if queued is not None and before is QUEUED and not lost:
            call.abandoned = call.abandoned or leg.agent is None
            return self._connection_cleared(leg, at, cause, "abandoned")
        reason = "lost" if lost else "transferred" if leg.transferred else "normal"
        return self._connection_cleared(leg, at, cause, reason)

    def _why_not_taken(self, leg: Leg, cause: int) -> str:
        rivals = (other for other in leg.call.legs.values() if other.dialler is leg.dialler is not None)
        if cause == 26 or any(
            rival.up and abs(rival.offered_at - leg.offered_at) <= RIVALRY for rival in rivals
        ):
            return "answered_elsewhere"
        through = leg.dialler if leg.dialler is not None and leg.dialler.joint else leg
        return REASONS.get(cause) or through.dial_reason or leg.dial_reason or "no_answer"

    def _end_if_empty(self, call: Call, at: float) -> Facts:
        if call.legs or not self._lives(call):
            return []
        del self._calls[call.key]
        for linkedid in call.aliases:
            if self._aliases.get(linkedid) is call:
                del self._aliases[linkedid]
        call.departed.clear()  # legs know their call: left as they are, only the garbage collector would find them
        self._ended[call.key] = None
        duration = max(0.0, at - call.started)
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        return [
            CallCleared(
                at=moment(at),
                call=call.id,
                outcome=self._outcome(call),
                cause=call.cause,
                duration=duration,  # a party that came over may have talked longer than this call has lasted
                waited=min(call.waited, duration),
                talked=min(call.talked, duration),
                held=min(call.held, duration),
                queue=call.queue,
                agents=tuple(call.agents),
                merged_into=call.merged_into,
            )
        ]

    def _outcome(self, call: Call) -> str:
        if call.merged_into is not None:
            return "merged"
        if call.lost:
            return "lost"
        if call.abandoned:
            return "abandoned"
        if call.talked_from is not None or (call.answered is not None and call.queue is None):
            return "answered"
        return "failed" if call.failed else "unanswered"

    def _current(self, linkedid: str) -> Call | None:
        """The live call that channels with this Linkedid belong to."""
        return self._calls.get(linkedid) or self._aliases.get(linkedid)
