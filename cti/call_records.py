"""Records folded into the book: one method for each thing that AMI tells of a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from cti.ami_events import (
    BlindlyTransferred,
    BridgeEntered,
    BridgeGone,
    BridgeLeft,
    CallerGaveUpQueue,
    CallerIdChanged,
    CallerJoinedQueue,
    CallerLeftQueue,
    CallParked,
    CallUnparked,
    ChannelAppeared,
    ChannelGone,
    ChannelRenamed,
    ChannelState,
    ChannelStateChanged,
    ConferenceJoined,
    ConferenceLeft,
    DataCollected,
    DialBegun,
    DialEnded,
    DialProgressed,
    HangupRequested,
    LocalPaired,
    MemberCalled,
    MemberConnected,
    MemberDidNotAnswer,
    MusicChanged,
    PartyMuted,
    PhoneHeld,
    QueueOutcome,
    Record,
    TransferCompleted,
    VoicemailEnded,
    device_of_channel,
    other_half,
)
from cti.call_life import CallLife
from cti.facts import (
    CallerChanged,
    CallMerged,
    CallMuted,
    Direction,
)
from cti.facts import CallParked as CallParkedFact
from cti.facts import CallUnparked as CallUnparkedFact
from cti.legs import (
    DIAL_REASONS,
    LINES,
    NOBODYS,
    Call,
    Facts,
    Leg,
    Move,
    in_no_call,
    moment,
)
from cti.lines import Lines
from cti.voicemail import CallVoicemailLeft


class CallRecords(CallLife):
    """Folds records."""

    def __init__(
        self,
        pbx: str,
        *,
        agent_at: Callable[[str], str | None],
        is_trunk: Callable[[str], bool],
        inbound_contexts: Iterable[str],
    ) -> None:
        super().__init__(pbx, agent_at=agent_at, is_trunk=is_trunk, inbound_contexts=inbound_contexts)
        self.lines = Lines(pbx, agent_at=agent_at)
        self._fold: dict[type[Record], Callable[..., Facts]] = {
            ChannelAppeared: self._appeared,
            ChannelStateChanged: self._state_changed,
            ChannelGone: self._gone,
            HangupRequested: self._hangup_requested,
            CallerIdChanged: self._caller_changed,
            ChannelRenamed: self._renamed,
            LocalPaired: self._paired,
            DialBegun: self._dial_begun,
            DialProgressed: self._dial_progressed,
            DialEnded: self._dial_ended,
            BridgeEntered: self._bridge_entered,
            BridgeLeft: self._bridge_left,
            BridgeGone: self._bridge_gone,
            PhoneHeld: self._phone_held,
            MusicChanged: self._music_changed,
            CallerJoinedQueue: self._joined_queue,
            CallerGaveUpQueue: self._gave_up_queue,
            CallerLeftQueue: self._left_queue,
            QueueOutcome: self._queue_outcome,
            MemberCalled: self._member_called,
            MemberConnected: self._member_connected,
            MemberDidNotAnswer: self._member_did_not_answer,
            BlindlyTransferred: self._blindly_transferred,
            TransferCompleted: self._transfer_completed,
            CallParked: self._parked,
            CallUnparked: self._unparked,
            ConferenceJoined: self._conference_joined,
            ConferenceLeft: self._conference_left,
            PartyMuted: self._party_muted,
            DataCollected: self._data_collected,
            VoicemailEnded: self._voicemail_ended,
        }

    def _appeared(self, r: ChannelAppeared) -> Facts:
        if r.uniqueid in self._legs or in_no_call(r.uniqueid, r.linkedid):
            return self.lines.appeared(r) if r.uniqueid.startswith(LINES) else []
        if r.linkedid.startswith(LINES):
            r = msgspec.structs.replace(r, linkedid=self._linked_as_a_line(r))
        half = other_half(r.channel)
        if half is not None and (twin := self._halves.get(half)) is not None and not twin.cleared:
            self._add_end(twin, r.uniqueid, r.channel)
            return []
        device = device_of_channel(r.channel)
        call = self._current(r.linkedid)
        first = call is None
        if call is None:
            call = self._new_call(r, device)
        elif r.uniqueid in call.legs:  # a connection that another channel has taken over
            return []
        agent = self._agent_at(device)
        leg = Leg(
            id=r.uniqueid,
            call=call,
            channel=r.channel,
            device=device,
            agent=agent,
            number=r.number,
            name=r.name,
            dialled=not first or r.state is not ChannelState.RING,
            since=r.at,
            local=half is not None,
            up=r.state is ChannelState.UP,
            rings=r.state is ChannelState.RINGING,
        )
        leg.offered_at = r.at
        call.legs[leg.id] = leg
        self._add_end(leg, r.uniqueid, r.channel)
        if first:
            return self._originate(leg, r.at)
        if agent is None:
            return []
        if not leg.local:
            newest = reversed(call.legs.values())
            leg.front = next((o for o in newest if o.agent == agent and o.local and len(o.ends) == 2), None)
        return [*self._publish(leg, r.at), *self._settle(call, r.at)]

    def _linked_as_a_line(self, r: ChannelAppeared) -> str:
        """What Linkedid to take for a channel that has an open line's: that of the call which the line is in."""
        device = self.lines.reached_by(r.linkedid)
        calls = (
            call.key
            for call in self._calls.values()
            if any(leg.device == device and not leg.cleared for leg in call.legs.values())
        )
        return next(calls, r.uniqueid)

    def _new_call(self, r: ChannelAppeared, device: str) -> Call:
        incoming = r.state is ChannelState.RING
        if r.context in self._inbound and (incoming or other_half(r.channel)):
            direction = Direction.INBOUND
        elif self._is_trunk(device):
            direction = Direction.INBOUND if incoming else Direction.OUTBOUND
        else:
            direction = Direction.INTERNAL
        call = self._begin(r.linkedid, direction, r.at, r.number, r.name)
        call.dnis = r.exten if r.exten not in {"", "s"} else None
        call.data.update(r.variables)
        return call

    def _add_end(self, leg: Leg, uniqueid: str, channel: str) -> None:
        leg.ends.append(uniqueid)
        self._legs[uniqueid] = leg
        if leg.local:
            self._halves[channel] = leg

    def _state_changed(self, r: ChannelStateChanged) -> Facts:
        if r.uniqueid.startswith(LINES):
            return self.lines.changed(r)
        leg = self._leg(r.uniqueid)
        if leg is None or leg.ends[0] != r.uniqueid:
            return []
        if r.state is ChannelState.RINGING:
            leg.rings = True
        elif r.state is ChannelState.UP:
            leg.up = True
        else:
            return []
        return [*self._publish(leg, r.at), *self._settle(leg.call, r.at)]

    def _renamed(self, r: ChannelRenamed) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is not None and not leg.local and not r.channel.endswith("<ZOMBIE>"):
            leg.channel = r.channel
        return []

    def _caller_changed(self, r: CallerIdChanged) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        leg.caller = r.number, r.name
        call = leg.call
        # A place kept in a queue for a customer who will be called back.
        keeps_place = leg.local and call.direction is Direction.INBOUND
        if (
            (leg.dialled and not keeps_place)
            or next(iter(call.legs.values())) is not leg
            or (call.ani, call.ani_name) == (r.number, r.name)
        ):
            return []
        call.ani, call.ani_name = r.number, r.name
        return [CallerChanged(at=moment(r.at), call=call.id, ani=r.number, ani_name=r.name)]

    def _paired(self, r: LocalPaired) -> Facts:
        return []  # the halves already found each other by name

    def _gone(self, r: ChannelGone) -> Facts:
        if r.uniqueid not in self._legs:
            self.unknown += not r.uniqueid.startswith(NOBODYS)
            return self.lines.gone(r.uniqueid, r.at, r.cause)
        return self._drop(r.uniqueid, r.at, r.cause)

    def _drop(self, uniqueid: str, at: float, cause: int, *, lost: bool = False) -> Facts:
        """A channel is no more: its connection ends with it, or with the near half of a Local channel."""
        leg = self._legs.pop(uniqueid)
        alive = any(self._legs.get(end) is leg for end in leg.ends)
        bridge = leg.bridges.get(uniqueid)
        if bridge is not None:
            self._leave_bridge(leg, uniqueid, bridge)
        ends = not leg.cleared and (uniqueid == leg.ends[0] or not alive)
        facts = self._clear(leg, at, cause, lost=lost) if ends else []
        if leg.local and not alive:
            self._forget_halves(leg)
        return facts

    def _forget_halves(self, leg: Leg) -> None:
        for channel in (leg.channel, other_half(leg.channel) or ""):
            if self._halves.get(channel) is leg:
                del self._halves[channel]

    def _dial_begun(self, r: DialBegun) -> Facts:
        leg = self._leg(r.dialled)
        if leg is None:
            return []
        dialler = self._legs.get(r.dialler) if r.dialler else None
        if dialler is not None and dialler is not leg and not dialler.cleared:
            leg.dialler = dialler
            dialler.dialling[leg.id] = r.dialler or ""
            if dialler.local and r.dialler != dialler.ends[0]:
                self._stand_behind(leg, dialler)
        if r.number is not None and self._is_outside(leg):
            leg.dials, leg.caller = r.number, (r.number, None)
        facts = self._retract(dialler, r.at) if dialler is not None and dialler.pipe else []
        if leg.agent is not None or not leg.local:
            facts += self._publish(leg, r.at)
        return facts + self._settle(leg.call, r.at)

    def _stand_behind(self, leg: Leg, local: Leg) -> None:
        """Which of the two is the party: an agent's own phone, else the Local channel that stands for an agent or member."""
        if leg.agent not in (None, local.agent):
            leg.member_of, local.joint, leg.front = local.member_of, True, None
        elif not leg.published and (local.agent is not None or local.member_of is not None):
            leg.front = local

    def _dial_progressed(self, r: DialProgressed) -> Facts:
        leg = self._leg(r.dialled)
        if leg is None or r.status != "RINGING":
            return []
        leg.rings = True
        return [*self._publish(leg, r.at), *self._settle(leg.call, r.at)]

    def _dial_ended(self, r: DialEnded) -> Facts:
        leg = self._leg(r.dialled)
        if leg is None:
            return []
        if leg.dialler is not None and r.status != "ANSWER":
            leg.dialler.dialling.pop(leg.id, None)
        if r.status == "ANSWER":
            leg.up = True
        elif leg.dial_reason is None:
            leg.dial_reason = DIAL_REASONS.get(r.status)
        return self._settle(leg.call, r.at)

    def _member_called(self, r: MemberCalled) -> Facts:
        leg = self._leg(r.dialled)
        if leg is None:
            return []
        leg.member_of = self._queue_id(r.queue)
        if leg.local and leg.agent is None:
            return []  # it may only lead to an agent's phone: what rings first tells
        return [*self._publish(leg, r.at), *self._settle(leg.call, r.at)]

    def _member_connected(self, r: MemberConnected) -> Facts:
        leg = self._leg(r.dialled)
        if leg is None:
            return []
        leg.up = True
        if not leg.joint:
            leg.member_of = self._queue_id(r.queue)
        return self._settle(leg.call, r.at)

    def _member_did_not_answer(self, r: MemberDidNotAnswer) -> Facts:
        leg = self._leg(r.dialled)
        if leg is not None and leg.dial_reason is None:
            leg.dial_reason = "no_answer"
        return []

    def _bridge_entered(self, r: BridgeEntered) -> Facts:
        expected = self._expected.pop(r.uniqueid, None)
        if expected is not None:
            return [*self._taken_in(r, *expected), *self._bridge_entered(r)]
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        former = leg.bridges.get(r.uniqueid)
        if former is not None and former != r.bridge:
            self._leave_bridge(leg, r.uniqueid, former)
        if leg.front is not None and leg.front.cleared:
            leg.front = None
        if leg.held_in != r.bridge:
            leg.held_in = None  # gone to consult somebody: held is now only the one left behind
        leg.in_room, leg.set_aside = r.kind == "base", False
        if r.technology == "holding_bridge":
            leg.aside = r.bridge
        else:
            leg.aside = None
            self._bridges.setdefault(r.bridge, set()).add(r.uniqueid)
            leg.bridges[r.uniqueid] = r.bridge
        if leg.front is not None and not leg.local and self._peers(leg) - {leg.front.id}:
            leg = self._take_place(leg, leg.front)
        moves = self._unite(leg, r)
        facts = self._merged(moves, leg.call, r.at)
        if leg.pipe:
            facts += self._retract(leg, r.at)
        elif not leg.published and leg.up:
            facts += self._publish(leg, r.at)
        facts += self._settle(leg.call, r.at)
        return facts + self._settle_others(leg, r.bridge, r.at)

    def _taken_in(self, r: BridgeEntered, call: str, channel: str) -> Facts:
        """A supervisor's channel comes into the call that it takes over."""
        if call not in self._calls or r.uniqueid in self._legs:
            return []
        up = ChannelState.UP
        return self._appeared(ChannelAppeared(r.at, r.uniqueid, call, channel, up, None, None, "", "", {}))

    def _bridge_left(self, r: BridgeLeft) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        if leg.aside == r.bridge:
            leg.aside = None
        if leg.bridges.get(r.uniqueid) != r.bridge:
            return []
        self._leave_bridge(leg, r.uniqueid, r.bridge)
        if leg.held_in == r.bridge:
            leg.held_in = None  # should it come back to the same conference, it comes back to talk
        return [*self._settle(leg.call, r.at), *self._settle_others(leg, r.bridge, r.at)]

    def _settle_others(self, leg: Leg, bridge: str, at: float) -> Facts:
        """Settles the other calls that meet the leg's in this bridge (a conference)."""
        facts: Facts = []
        members = self._bridges.get(bridge, ())
        for call in {c.key: c for u in members if (c := self._legs[u].call) is not leg.call}.values():
            facts += self._settle(call, at)
        return facts

    def _bridge_gone(self, r: BridgeGone) -> Facts:
        facts: Facts = []
        for uniqueid in tuple(self._bridges.get(r.bridge, ())):
            leg = self._legs[uniqueid]
            self._leave_bridge(leg, uniqueid, r.bridge)
            facts += self._settle(leg.call, r.at)
        return facts

    def _take_place(self, phone: Leg, local: Leg) -> Leg:
        """Asterisk took the Local channel out of the talk: the phone behind it is the connection's channel from now on."""
        for other in phone.call.legs.values():
            other.dialling.pop(phone.id, None)
        del phone.call.legs[phone.id]
        local.ends.insert(0, phone.id)
        local.bridges |= phone.bridges
        self._legs[phone.id] = local
        return local

    def _unite(self, leg: Leg, r: BridgeEntered) -> list[Move]:
        """Who share a bridge get one Linkedid from Asterisk, the oldest, so one call of two; returns who came over from
        where. Where the oldest is that of a leg with which an agent waited for work, the customer's call goes on all the
        same, and the agent comes over to it."""
        moves: list[Move] = []
        said = self._current(r.linkedid)
        elsewhere = said is not None and said is not leg.call and said.merged_into != leg.call.id
        if said is not None and elsewhere and not (self._is_staff(said) and not self._is_staff(leg.call)):
            moves.append(self._bring(leg, said))
        if r.kind == "basic":
            for uniqueid in tuple(self._bridges.get(r.bridge, ())):
                other = self._legs[uniqueid]
                if other.call is leg.call:
                    continue
                if self._is_staff(other.call) and not self._is_staff(leg.call):
                    moves.append(self._invite(other, leg.call, r.linkedid))
                elif self._is_staff(leg.call) and not self._is_staff(other.call):
                    moves.append(self._invite(leg, other.call, r.linkedid))
                else:
                    moves.append(self._bring(other, leg.call))
        return moves

    def _is_staff(self, call: Call) -> bool:
        """Whether nobody but agents is in the call."""
        return all(leg.agent is not None for leg in call.legs.values() if leg.published)

    def _bring(self, leg: Leg, target: Call) -> Move:
        source = leg.call
        del source.legs[leg.id]
        leg.call = target
        target.legs[leg.id] = leg
        source.merged_into = target.id
        return leg, source, leg.published

    def _invite(self, agent: Leg, host: Call, linkedid: str) -> Move:
        move = self._bring(agent, host)
        if not move[1].legs:
            agent.guest_of = linkedid
        self._aliases.pop(linkedid, None)
        self._call_also(linkedid, host)
        return move

    def _merged(self, moves: list[Move], target: Call, at: float) -> Facts:
        if not moves:
            return []
        changes = self._derive(target, at)
        facts: Facts = []
        for leg, source, told in moves:
            if told:
                self._count_agent(leg)
                target.data = source.data | target.data
                facts.append(
                    CallMerged(
                        at=moment(at),
                        call=target.id,
                        connection=self._connection(leg),
                        merged=source.id,
                        view=self._whole(target),
                    )
                )
            facts += self._end_if_empty(source, at) or self._settle(source, at)
        return facts + self._tell(target, changes, at)

    def _phone_held(self, r: PhoneHeld) -> Facts:
        on_line = self.lines.reached_by(r.uniqueid)
        if on_line:  # a phone with an open line holds the call that is on it
            leg = next((one for one in reversed(self._legs.values()) if one.device == on_line), None)
        else:
            leg = self._leg(r.uniqueid)
        if leg is None or leg.cleared:
            return []
        holder, bridge = leg.front or leg, leg.bridges.get(leg.ends[0] if on_line else r.uniqueid)
        holder.held_in = bridge if r.on else None
        for peer in () if r.on else self._peers(holder):
            self._legs[peer].music = False  # its end is told later, at times when they have parted already
        facts = self._settle(leg.call, r.at)
        return facts + self._settle_others(leg, bridge, r.at) if bridge is not None else facts

    def _music_changed(self, r: MusicChanged) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None or leg.music == r.on or leg.ends[0] != r.uniqueid:
            return []  # what the far half of a Local channel hears is told to nobody
        leg.music = r.on
        if r.on and leg.id in self._left_alone:
            return self._return(leg, r.at)
        return self._settle(leg.call, r.at)

    def _parked(self, r: CallParked) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None or leg.slot is not None:
            return []
        call, leg.slot = leg.call, r.slot
        call.parked_at = r.slot
        changes = self._derive(call, r.at, parked=leg)
        parked = CallParkedFact(
            at=moment(r.at),
            call=call.id,
            connection=self._connection(leg),
            lot=r.lot,
            slot=r.slot,
            view=self._whole(call),
        )
        return [parked, *self._tell(call, [c for c in changes if c[0] is not leg], r.at)]

    def _unparked(self, r: CallUnparked) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None or leg.slot is None:
            return []
        leg.slot, leg.call.parked_at = None, None
        unparked = CallUnparkedFact(
            at=moment(r.at),
            call=leg.call.id,
            connection=self._connection(leg),
            slot=r.slot,
            reason=r.reason,
            view=self._whole(leg.call),
        )
        return [unparked, *self._settle(leg.call, r.at)]

    def _joined_queue(self, r: CallerJoinedQueue) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        facts: Facts = []
        if leg.queue is not None:
            if leg.queue == self._queue_id(r.queue) and leg.gave_up_at is None:
                return []
            facts += self._given_back(leg, r.at, "overflowed")
        call = leg.call
        leg.queue, leg.queued_at, leg.connecting = self._queue_id(r.queue), r.at, False
        leg.position = r.position
        facts += self._change_data(call, r.variables, "pbx", r.at)
        if not leg.published:
            facts += self._publish(leg, r.at)
        return facts + self._settle(call, r.at)

    def _hangup_requested(self, r: HangupRequested) -> Facts:
        self._hears_hangup_requests = True
        leg = self._leg(r.uniqueid)
        if leg is not None:
            leg.hangs_up = True
        return []

    def _gave_up_queue(self, r: CallerGaveUpQueue) -> Facts:
        """Asterisk says the same for a caller who hangs up and one whom the queue's time limit ends: only the first has
        asked for a hangup before. Where those requests are filtered out, what follows within a second tells."""
        leg = self._leg(r.uniqueid)
        if leg is None or leg.queue != self._queue_id(r.queue):
            return []
        if self._hears_hangup_requests and not leg.hangs_up:
            return self._given_back(leg, r.at, "timed_out")
        leg.gave_up_at = r.at
        self._leaving[leg.id] = leg
        return []

    def _left_queue(self, r: CallerLeftQueue) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None or leg.queue != self._queue_id(r.queue) or leg.gave_up_at is not None:
            return []
        if any(
            other.dialled and other.up and not other.cleared
            for other in leg.call.legs.values()
            if other is not leg
        ):
            leg.connecting = True  # the bridge comes next, and ends the wait
            return []
        return self._given_back(leg, r.at, "left")

    def _queue_outcome(self, r: QueueOutcome) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None or leg.queue is None or leg.connecting:
            return []
        reason = "timed_out" if r.status == "TIMEOUT" else "left"
        return self._given_back(leg, r.at, reason)

    def _blindly_transferred(self, r: BlindlyTransferred) -> Facts:
        leg = self._legs.get(r.transferer)
        if leg is None or not self._lives(leg.call):
            return []
        leg.transferred = True
        return [self._transferred(leg.call, leg, "blind", r.exten or None, r.at)]

    def _transfer_completed(self, r: TransferCompleted) -> Facts:
        named = (self._legs.get(r.transferer), self._legs.get(r.second_transferer))
        transferers = [leg for leg in named if leg is not None]
        transferee = self._legs.get(r.transferee) if r.transferee else None
        for leg in transferers:
            leg.transferred = True
        if not transferers or not self._lives(call := (transferee or transferers[0]).call):
            return []
        facts: Facts = [self._transferred(call, transferers[0], "attended", None, r.at)]
        second = transferers[-1]
        if second.call is not call:
            # the target has not answered yet, and goes on ringing for the other party
            targets = [leg for leg in second.call.legs.values() if leg is not second]
            for leg in targets:
                second.dialling.pop(leg.id, None)
                leg.dialler = transferee
                if transferee is not None:
                    transferee.dialling[leg.id] = r.transferee or ""
            moves = [self._bring(leg, call) for leg in targets]
            facts += self._merged(moves, call, r.at)
        return facts

    def _conference_joined(self, r: ConferenceJoined) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        call = leg.call
        call.conference, leg.in_room = r.room, True
        facts = self._settle(call, r.at)
        return [*facts, self._conferenced(leg, r.room, r.at)]

    def _conference_left(self, r: ConferenceLeft) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        leg.in_room = False
        return self._mute(leg, False, r.at)

    def _party_muted(self, r: PartyMuted) -> Facts:
        leg = self._leg(r.uniqueid)
        return self._mute(leg, r.on, r.at) if leg is not None else []

    def _mute(self, leg: Leg, muted: bool, at: float) -> Facts:
        """Whether a party is heard; of a Local channel that only leads to it, the party behind."""
        party = leg
        if leg.pipe:
            party = next((other for other in leg.call.legs.values() if other.dialler is leg), leg)
        if party.muted is muted:
            return []
        party.muted = muted
        if not party.published:
            return []
        connection = self._connection(party)
        return [
            CallMuted(
                at=moment(at), call=party.call.id, connection=connection, agent=party.agent, muted=muted
            )
        ]

    def set_muted(self, channels: Mapping[str, bool], at: float) -> Facts:
        """Takes over who is muted in a conference, by channel name, as the PBX lists it."""
        by_name = {
            name: leg for leg in self._legs.values() for name in (leg.channel, other_half(leg.channel))
        }
        facts: Facts = []
        for name, muted in channels.items():
            leg = by_name.get(name)
            facts += self._mute(leg, muted, at) if leg is not None and not leg.cleared else []
        return facts

    def _data_collected(self, r: DataCollected) -> Facts:
        leg = self._leg(r.uniqueid)
        return self._change_data(leg.call, r.values, "ivr", r.at) if leg else []

    def _voicemail_ended(self, r: VoicemailEnded) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None or r.status != "SUCCESS":
            return []
        facts = self._change_data(leg.call, {"Voicemail": r.mailbox}, "pbx", r.at)
        left = CallVoicemailLeft(
            at=moment(r.at), call=leg.call.id, mailbox=r.mailbox, view=self._whole(leg.call)
        )
        return [*facts, left]
