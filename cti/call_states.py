"""States of connections: derived from what is known of each leg, and each change told as a fact (docs/adr/002)."""

from __future__ import annotations

from cti.call_book import CallBook
from cti.facts import (
    CallConferenced,
    CallDelivered,
    CallEstablished,
    CallHeld,
    CallQueued,
    CallRetrieved,
    CallTransferred,
    CallView,
    ConnectionState,
    Fact,
)
from cti.legs import (
    ALERTING,
    CONNECTED,
    ESTABLISHED,
    HOLD,
    INITIATED,
    NOT_YET,
    QUEUED,
    TRANSITIONS,
    Call,
    Facts,
    IllegalTransition,
    Leg,
    moment,
)


class CallStates(CallBook):
    """Derives and tells."""

    def _end_wait(self, leg: Leg, at: float) -> None:
        self._leaving.pop(leg.id, None)
        if leg.queue is None:
            return
        leg.call.wait = max(0.0, at - leg.queued_at)
        if leg.agent is None:
            leg.call.waited += leg.call.wait
        leg.queue, leg.gave_up_at, leg.connecting = None, None, False

    def _transferred(self, call: Call, by: Leg | None, kind: str, target: str | None, at: float) -> Fact:
        view = self._connection(by) if by is not None and by.published else None
        return CallTransferred(
            at=moment(at),
            call=call.id,
            kind=kind,
            by=view,
            target=target,
            view=self._whole(call),
            queue=by.answered_from if by is not None else None,
        )

    def _conferenced(self, leg: Leg, room: str, at: float) -> Fact:
        return CallConferenced(
            at=moment(at),
            call=leg.call.id,
            connection=self._connection(leg),
            agent=leg.agent,
            room=room,
            parties=len(leg.peers) + 1,
            view=self._whole(leg.call),
        )

    def _settle(self, call: Call, at: float) -> Facts:
        """Brings every state of the call up to what is known now and says each change."""
        facts = self._tell(call, self._derive(call, at), at)
        # Who took it over may have been told as connected before the other party came.
        return facts or (self._taken_over(call, at) if call.departed else [])

    def _derive(
        self, call: Call, at: float, parked: Leg | None = None
    ) -> list[tuple[Leg, ConnectionState, ConnectionState]]:
        changes = []
        for leg in call.legs.values():
            self._clock_talk(leg, at)
        for leg in call.legs.values():
            if not leg.published:
                continue
            old, new = leg.state, HOLD if leg is parked else self._state_of(leg)
            if new is not old:
                self._enter(leg, new, at)
                changes.append((leg, old, new))
        return changes

    def _state_of(self, leg: Leg) -> ConnectionState:
        talking = leg.talking_from is not None
        if leg.queue is not None and not talking:
            return QUEUED
        if talking:
            return CONNECTED
        if leg.set_aside:
            return HOLD
        if leg.state in ESTABLISHED:
            if leg.held_in is not None and leg.held_in in leg.bridges.values():
                return HOLD
            if leg.peers:
                return CONNECTED
            if leg.slot is not None or leg.state is HOLD or self._hears_music(leg):
                return HOLD
            return HOLD if self._partner_hears_music(leg) else CONNECTED
        if leg.state is QUEUED:
            if not (leg.dialled and leg.up):
                return INITIATED
            return HOLD if leg.agent is not None and self._partner_hears_music(leg) else CONNECTED
        if leg.dialled:
            if leg.up and (leg.dialler is None or leg.dialler.cleared):
                return CONNECTED
            if leg.rings:
                return ALERTING
        return leg.state

    def _hears_music(self, leg: Leg) -> bool:
        """Whether the leg was sent to music by who talked with it, and not left behind by who hangs up."""
        if not leg.music or not leg.met or leg.aside is not None:
            return False
        partners = [other for met in leg.met if (other := leg.call.legs.get(met)) is not None]
        return not partners or not all(other.hangs_up for other in partners)

    def _partner_hears_music(self, leg: Leg) -> bool:
        """Whether the one the leg talked with was sent to music: then this side holds the call."""
        if leg.bridged or leg.hangs_up:
            return False
        legs = leg.call.legs
        return any(
            (other := legs.get(met)) is not None
            and other.music
            and not other.bridged
            and other.queue is other.slot is other.aside is None
            for met in leg.met
        )

    def _clock_talk(self, leg: Leg, at: float) -> None:
        if not leg.bridges and not leg.peers and leg.talking_from is None:
            return  # alone before and now
        there = leg.front is None and (leg.up or not leg.dialled)
        peers = self._peers(leg) if there else frozenset()
        changed, leg.peers = peers != leg.peers, peers
        holding = leg.held_in is not None and leg.held_in in leg.bridges.values()
        heard = not holding and any(not self._holds(peer) for peer in peers)
        if heard and leg.talking_from is None:
            leg.talking_from = at
            if leg.call.talked_from is None:
                leg.call.talked_from = at
        elif not heard and leg.talking_from is not None:
            leg.talked += max(0.0, at - leg.talking_from)
            leg.talking_from = None
        if heard and changed:
            self._note_partners(leg, peers)

    def _holds(self, peer: str) -> bool:
        leg = self._legs.get(peer)
        return leg is not None and leg.held_in is not None and leg.held_in in leg.bridges.values()

    def _note_partners(self, leg: Leg, peers: frozenset[str]) -> None:
        """Remembers who a leg has talked with; when a new one takes the place of all the old, who left it to them."""
        leg.left_by -= peers
        latest, leg.latest = leg.latest, peers
        if peers <= leg.met:
            return
        old = leg.met - peers
        if old and not (leg.met & peers):
            former = {
                peer
                for peer in old & latest  # who was asked and let go before the last talk hands nothing on
                if (other := leg.call.legs.get(peer)) is None or other.state is not HOLD
            }
            leg.left_by = former
        leg.met |= peers

    def _enter(self, leg: Leg, state: ConnectionState, at: float) -> None:
        if state is leg.state:
            return
        if state not in TRANSITIONS[leg.state]:
            raise IllegalTransition(f"{leg.state} → {state}")
        if leg.state is HOLD and leg.held_from is not None:
            leg.held += max(0.0, at - leg.held_from)
            leg.held_from = None
        if state is HOLD:
            leg.held_from = at
            leg.held_by = "phone" if leg.held_in is not None else "server"
        if leg.state is QUEUED and leg.queue is not None:
            self._end_wait(leg, at)
        # An agent who asks a queue leaves the caller's own queue as it is.
        if state is QUEUED and leg.agent is None:
            leg.call.queue, leg.call.queued_since = leg.queue, leg.queued_at
        if leg.caller is not None:
            leg.number, leg.name = leg.caller
            leg.caller = None
        leg.state, leg.since = state, at

    def _tell(
        self, call: Call, changes: list[tuple[Leg, ConnectionState, ConnectionState]], at: float
    ) -> Facts:
        """One fact for each change of state; of those that become connected together, the dialled ones speak for all."""
        if not changes:
            return []
        when = moment(at)
        facts: Facts = []
        through = [leg for leg, old, new in changes if new is CONNECTED and old in NOT_YET]
        if through:
            waited = [leg for leg, old, new in changes if old is QUEUED and new is CONNECTED]
            # Of agents who asked the queue something, whoever took it from there speaks.
            asked = [leg for leg in waited if leg.agent is not None]
            facts += self._established(
                call, [leg for leg in through if leg not in asked] or through, bool(waited), at
            )
        for leg, old, new in changes:
            connection = self._connection(leg)
            if new is ALERTING:
                facts.append(
                    CallDelivered(
                        at=when, call=call.id, connection=connection, agent=leg.agent, queue=leg.offered_by
                    )
                )
            elif new is QUEUED:
                facts.append(
                    CallQueued(
                        at=when,
                        call=call.id,
                        connection=connection,
                        queue=leg.queue or "",
                        position=leg.position,
                        view=self._whole(call),
                    )
                )
            elif new is HOLD:
                facts.append(
                    CallHeld(at=when, call=call.id, connection=connection, agent=leg.agent, by=leg.held_by)
                )
            elif old is HOLD and new is CONNECTED:
                facts.append(
                    CallRetrieved(
                        at=when,
                        call=call.id,
                        connection=connection,
                        agent=leg.agent,
                        by=leg.held_by,
                        held=leg.held,
                    )
                )
        return facts

    def _established(self, call: Call, through: list[Leg], from_queue: bool, at: float) -> Facts:
        dialled = [leg for leg in through if leg.dialled]
        speakers = [leg for leg in dialled if leg.agent or leg.member_of] or dialled
        if not speakers:
            # brought together by the server: the agent who waited for this caller speaks, if there is one
            met = [call.legs[peer] for leg in through for peer in leg.peers if peer in call.legs]
            speakers = [leg for leg in met if leg.agent][:1] or through[:1]
        if call.answered is None and any(leg.agent is None for leg in speakers):
            call.answered = at
        facts: Facts = []
        if from_queue:  # whoever had the caller before the queue has handed over nothing
            for leg in call.legs.values():
                leg.left_by -= call.departed.keys()
        else:
            facts = self._taken_over(call, at)
        for leg in speakers:
            call.dnis = call.dnis or leg.dials
            queue = leg.member_of or (call.queue if from_queue else None)
            leg.answered_from = queue or leg.answered_from
            facts.append(
                CallEstablished(
                    at=moment(at),
                    call=call.id,
                    connection=self._connection(leg),
                    agent=leg.agent,
                    queue=queue,
                    waited=call.wait if queue else None,
                    rang=max(0.0, at - leg.offered_at) if leg.dialled and leg in through else None,
                    view=self._whole(call),
                )
            )
            if not leg.in_room and len(leg.peers) >= 2:
                facts.append(self._conferenced(leg, "", at))
        return facts

    def _taken_over(self, call: Call, at: float) -> Facts:
        """Whether somebody talks on with another after the one they talked with was taken off the call: a transfer."""
        for leg in call.legs.values():
            for former in leg.left_by & call.departed.keys():
                gone = call.departed[former]
                leg.left_by.clear()
                if leg.talking_from is not None and not gone.transferred:
                    gone.transferred = True
                    return [self._transferred(call, gone, "by_server", None, at)]
        return []

    def _whole(self, call: Call) -> CallView:
        """The call for a fact that carries all of it, with what no fact of its own tells brought up to date first."""
        legs = call.legs.values()
        for leg in legs:
            if leg.caller is not None:
                leg.number, leg.name = leg.caller
                leg.caller = None
        if call.answered is None:
            call.answered = call.talked_from
        call.queue = call.queue or call.served_by
        if call.queued_since is not None and not any(leg.queue for leg in legs):
            call.queued_since = None
        if call.conference is not None and not any(leg.in_room for leg in legs):
            call.conference = None
        return self._view(call)
