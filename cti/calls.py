"""Calls: what AMI says about channels, folded into calls with connections (CSTA, ECMA-269). Pure: records in, facts out.

One `Calls` holds the calls of one PBX. A *leg* is a connection: a channel, or the two halves of a Local channel as one.
What a leg's state is follows from what is known of it (ringing, up, in which bridge with whom, in a queue, on hold);
`_settle` derives it after each record and says each change as a fact, so no order of events can leave a state behind.

Rules that hold for any order of events:
- only a channel's appearance makes a leg, and only once; records about unknown channels change nothing and are counted;
- states move along `TRANSITIONS` only;
- talk time is the time in a bridge with another party, never negative;
- a call ends once, when its last leg is gone; its Linkedid is never taken for the same call again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

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
    ChannelRow,
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
    ParkedRow,
    PhoneHeld,
    QueueOutcome,
    Record,
    TransferCompleted,
    WaitingRow,
    device_of_channel,
    made_by_originate,
    other_half,
)
from cti.facts import (
    CallCleared,
    CallConferenced,
    CallDataChanged,
    CallDelivered,
    CallDiverted,
    CallerChanged,
    CallEstablished,
    CallFailed,
    CallHeld,
    CallMerged,
    CallOffered,
    CallOriginated,
    CallQueued,
    CallRetrieved,
    CallTransferred,
    CallView,
    ConnectionCleared,
    ConnectionState,
    ConnectionView,
    Direction,
    Fact,
)
from cti.facts import CallParked as CallParkedFact
from cti.facts import CallUnparked as CallUnparkedFact

NULL, INITIATED, ALERTING, CONNECTED, HOLD, QUEUED, FAIL = (
    ConnectionState.NULL,
    ConnectionState.INITIATED,
    ConnectionState.ALERTING,
    ConnectionState.CONNECTED,
    ConnectionState.HOLD,
    ConnectionState.QUEUED,
    ConnectionState.FAIL,
)

TRANSITIONS: dict[ConnectionState, frozenset[ConnectionState]] = {
    NULL: frozenset({INITIATED}),
    INITIATED: frozenset({ALERTING, CONNECTED, QUEUED, HOLD, FAIL, NULL}),
    ALERTING: frozenset({CONNECTED, QUEUED, HOLD, FAIL, NULL}),
    QUEUED: frozenset({CONNECTED, INITIATED, HOLD, NULL}),
    CONNECTED: frozenset({HOLD, QUEUED, NULL}),
    HOLD: frozenset({CONNECTED, QUEUED, NULL}),
    FAIL: frozenset({NULL}),
}
"""Where a connection's state may go from each. INITIATED → HOLD is a caller parked from an IVR, QUEUED → INITIATED one whom
the queue gave back to the dialplan."""

ESTABLISHED = frozenset({CONNECTED, HOLD})
NOT_YET = frozenset({INITIATED, ALERTING, QUEUED})

REASONS = {
    1: "unreachable",
    3: "unreachable",
    17: "busy",
    18: "no_answer",
    19: "no_answer",
    20: "unreachable",
    21: "rejected",
    26: "answered_elsewhere",
    27: "unreachable",
    28: "unreachable",
    34: "congestion",
    38: "congestion",
    42: "congestion",
}
"""Q.850 cause → why a device did not take the call. Other causes say nothing and the dial's own end decides."""

DIAL_REASONS = {
    "NOANSWER": "no_answer",
    "BUSY": "busy",
    "CANCEL": "caller_gone",
    "CONGESTION": "congestion",
    "CHANUNAVAIL": "unreachable",
    "INVALIDARGS": "unreachable",
}

LEFT_QUEUE_AFTER = 1.0
"""Seconds after QueueCallerAbandon without a hangup by which the queue's time-out, not the caller, ended the wait."""

BRIDGES_OF = {
    "Park": ("holding_bridge", "parking"),
    "BridgeWait": ("holding_bridge", "base"),
    "ConfBridge": ("softmix", "base"),
}
"""Application → technology and kind of the bridge it puts a channel into, for channels found at a rebuild."""

LEFT_ALONE_AFTER = 1.0
"""Seconds after the customer's end by which an agent's waiting leg that is still there was not meant to end with it."""

RIVALRY = 1.0
"""Seconds within which two devices dialled by one party were dialled together: the answer of one ends the other."""

REMEMBERED = 4096
"""How many ended Linkedids are remembered, so that a late channel never wakes a dead call."""


class IllegalTransition(Exception):
    """A connection was asked into a state that `TRANSITIONS` does not allow; nothing was changed."""


@lru_cache(maxsize=4096)  # a call's times are told again in each of its views
def moment(at: float) -> datetime:
    """Unix seconds as an aware datetime."""
    return datetime.fromtimestamp(at, UTC)


@dataclass(slots=True, eq=False)
class _Leg:
    """A connection as it stands.

    `ends`: uniqueids of its channel, or of both halves of a Local one, the near half first. `dialling`: legs it dials
    now, each with the end that dials it. `front`: the Local connection that stands for this phone behind it. `joint`: a
    Local channel that only leads to an agent's own phone. `aside`: the bridge where nobody hears anybody (parking,
    waiting) that it is in. `offered_by`: the queue that was told with its offer. `dials`: the number sent to the
    outside. `caller`: a number and name heard but not told yet. `met`: whom it has talked with. `left_by`: whom it
    talked with before others took their place. `guest_of`: the Linkedid of the call it left to be with a customer, and
    with which it goes on when they leave.
    """

    id: str
    call: _Call
    channel: str
    device: str
    agent: str | None
    number: str | None
    name: str | None
    dialled: bool
    since: float
    ends: list[str] = field(default_factory=list)
    bridges: dict[str, str] = field(default_factory=dict)
    state: ConnectionState = NULL
    local: bool = False
    published: bool = False
    cleared: bool = False
    front: _Leg | None = None
    joint: bool = False
    rings: bool = False
    up: bool = False
    dialler: _Leg | None = None
    dialling: dict[str, str] = field(default_factory=dict)
    member_of: str | None = None
    dial_reason: str | None = None
    offered_at: float = 0.0
    offered_by: str | None = None
    queue: str | None = None
    queued_at: float = 0.0
    position: int = 1
    gave_up_at: float | None = None
    hangs_up: bool = False
    connecting: bool = False
    music: bool = False
    aside: str | None = None
    in_room: bool = False
    dials: str | None = None
    held_in: str | None = None
    held_from: float | None = None
    held: float = 0.0
    slot: str | None = None
    talking_from: float | None = None
    talked: float = 0.0
    peers: frozenset[str] = frozenset()
    met: set[str] = field(default_factory=set)
    left_by: set[str] = field(default_factory=set)
    transferred: bool = False
    held_by: str = "server"
    caller: tuple[str | None, str | None] | None = None
    guest_of: str | None = None

    @property
    def pipe(self) -> bool:
        """Whether this Local channel only joins what is at its two ends, and nobody is it."""
        if self.joint:
            return True
        if not self.local or self.agent is not None or self.member_of is not None:
            return False
        near = self.ends[0]
        near_used = self.dialler is not None or near in self.bridges or near in self.dialling.values()
        return len(self.bridges) == 2 or (near_used and any(end != near for end in self.dialling.values()))


@dataclass(slots=True, eq=False)
class _Call:
    """A call as it stands. `key`: its id without the PBX; `aliases`: other Linkedids whose channels are its own. `wait`:
    the last wait in a queue, `waited`: all of them. `served_by`: the queue that brought a call found in mid-talk.
    `failed`: the last attempt to reach somebody failed for a fault."""

    id: str
    key: str
    direction: Direction
    started: float
    ani: str | None
    ani_name: str | None
    dnis: str | None
    aliases: list[str] = field(default_factory=list)
    legs: dict[str, _Leg] = field(default_factory=dict)
    queue: str | None = None
    served_by: str | None = None
    queued_since: float | None = None
    answered: float | None = None
    wait: float = 0.0
    waited: float = 0.0
    talked: float = 0.0
    held: float = 0.0
    consult_of: str | None = None
    parked_at: str | None = None
    conference: str | None = None
    data: dict[str, str] = field(default_factory=dict)
    agents: dict[str, None] = field(default_factory=dict)
    departed: dict[str, _Leg] = field(default_factory=dict)
    talked_from: float | None = None
    abandoned: bool = False
    failed: bool = False
    merged_into: str | None = None
    lost: bool = False
    cause: int = 0


Facts = list[Fact]
_Move = tuple[_Leg, _Call, bool]
"""A leg that came over to another call, the call it came from, and whether it was told of there."""


class Calls:
    """The calls of one PBX. `apply` folds a record and returns what happened; nothing here waits, reads a clock or fails."""

    def __init__(
        self,
        pbx: str,
        *,
        agent_at: Callable[[str], str | None],
        is_trunk: Callable[[str], bool],
        inbound_contexts: Iterable[str],
    ) -> None:
        self.pbx = pbx
        self._agent_at = agent_at
        self._is_trunk = is_trunk
        self._inbound = frozenset(inbound_contexts)
        self._calls: dict[str, _Call] = {}
        self._aliases: dict[str, _Call] = {}
        self._legs: dict[str, _Leg] = {}
        self._halves: dict[str, _Leg] = {}
        self._bridges: dict[str, set[str]] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._leaving: dict[str, _Leg] = {}
        self._left_alone: dict[str, tuple[_Leg, float]] = {}
        self._hears_hangup_requests = False
        self.unknown = 0
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
            DataCollected: self._data_collected,
        }

    # ------------------------------------------------------------------------------------------ what is asked

    @property
    def handles(self) -> frozenset[type[Record]]:
        """The classes of records that `apply` folds."""
        return frozenset(self._fold)

    def apply(self, record: Record) -> Facts:
        """Folds one record; returns what happened, in order. Records about unknown channels change nothing."""
        fold = self._fold.get(type(record))
        return fold(record) if fold else []

    def tick(self, now: float) -> Facts:
        """Settles what only time can tell: a caller who gave up a queue without hanging up was timed out by it; an agent's
        waiting leg that outlives the customer's waits again."""
        facts: Facts = []
        for leg, since in tuple(self._left_alone.values()):
            if now - since >= LEFT_ALONE_AFTER:
                facts += self._return(leg, now)
        for leg in tuple(self._leaving.values()):
            if leg.gave_up_at is not None and not leg.hangs_up and now - leg.gave_up_at >= LEFT_QUEUE_AFTER:
                facts += self._given_back(leg, leg.gave_up_at, "timed_out")
        return facts

    def view(self, call: str) -> CallView | None:
        """The call as clients see it, or None."""
        found = self._calls.get(self._key(call))
        return self._view(found) if found else None

    def views(self) -> list[CallView]:
        """All calls, the oldest first."""
        return [self._view(call) for call in sorted(self._calls.values(), key=lambda c: c.started)]

    def agents_in(self, call: str) -> tuple[str, ...]:
        """The agents who are parties of the call now."""
        found = self._calls.get(self._key(call))
        if found is None:
            return ()
        return tuple({leg.agent for leg in found.legs.values() if leg.agent and leg.published})

    def queue_of(self, call: str) -> str | None:
        """The queue the call is in or was last answered from."""
        found = self._calls.get(self._key(call))
        return found.queue if found else None

    def channels_of(self, call: str, agent: str) -> list[str]:
        """Uniqueids of the agent's live channels in the call, one a connection."""
        found = self._calls.get(self._key(call))
        legs = found.legs.values() if found else ()
        return [leg.ends[0] for leg in legs if leg.agent == agent and leg.published]

    def __len__(self) -> int:
        return len(self._calls)

    def sizes(self) -> dict[str, int]:
        """How much is held, for metrics and for tests that nothing leaks."""
        return {
            "calls": len(self._calls),
            "channels": len(self._legs),
            "local_halves": len(self._halves),
            "bridges": len(self._bridges),
            "leaving": len(self._leaving),
            "left_alone": len(self._left_alone),
            "aliases": len(self._aliases),
        }

    def set_data(self, call: str, values: dict[str, str], *, by: str, at: float) -> Facts:
        """Attaches correlator data to a call; an empty value removes one. Nothing for an unknown call or no change."""
        found = self._calls.get(self._key(call))
        return self._change_data(found, values, by, at) if found else []

    # ------------------------------------------------------------------------------------------ channels

    def _appeared(self, r: ChannelAppeared) -> Facts:
        if r.uniqueid in self._legs:
            return []
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
        leg = _Leg(
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

    def _new_call(self, r: ChannelAppeared, device: str) -> _Call:
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

    def _begin(
        self, linkedid: str, direction: Direction, at: float, ani: str | None, ani_name: str | None
    ) -> _Call:
        key = linkedid
        while key in self._ended or key in self._calls:
            key = f"{linkedid}~{at:.3f}" if key == linkedid else key + "+"
        call = _Call(
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

    def _call_also(self, linkedid: str, call: _Call) -> None:
        if self._current(linkedid) is not call:
            self._aliases[linkedid] = call
            call.aliases.append(linkedid)

    def _add_end(self, leg: _Leg, uniqueid: str, channel: str) -> None:
        leg.ends.append(uniqueid)
        self._legs[uniqueid] = leg
        if leg.local:
            self._halves[channel] = leg

    def _originate(self, leg: _Leg, at: float) -> Facts:
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

    def _consulted_call(self, agent: str, new: _Call) -> str | None:
        """The call an agent already talks on when they begin another: the new one is a consultation about it."""
        for call in self._calls.values():
            if call is not new and any(
                leg.agent == agent and leg.state in ESTABLISHED for leg in call.legs.values()
            ):
                return call.id
        return None

    def _publish(self, leg: _Leg, at: float) -> Facts:
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

    def _is_outside(self, leg: _Leg) -> bool:
        return not leg.local and leg.agent is None and self._is_trunk(leg.device)

    def _waiting_in(self, call: _Call) -> str | None:
        return call.queue if call.queued_since is not None else None

    def _count_agent(self, leg: _Leg) -> None:
        if leg.agent is not None:
            leg.call.agents[leg.agent] = None

    def _state_changed(self, r: ChannelStateChanged) -> Facts:
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
        if (
            leg.dialled
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
            self.unknown += 1
            return []
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

    def _forget_halves(self, leg: _Leg) -> None:
        for channel in (leg.channel, other_half(leg.channel) or ""):
            if self._halves.get(channel) is leg:
                del self._halves[channel]

    # ------------------------------------------------------------------------------------------ dialling

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

    def _stand_behind(self, leg: _Leg, local: _Leg) -> None:
        """Which of the two is the party: an agent's own phone, else the Local channel that stands for an agent or member."""
        if leg.agent not in (None, local.agent):
            leg.member_of, local.joint, leg.front = local.member_of, True, None
        elif not leg.published and (local.agent is not None or local.member_of is not None):
            leg.front = local

    def _retract(self, pipe: _Leg, at: float) -> Facts:
        """A Local channel taken for a party turns out to be a mere joint: it is no connection any more."""
        if not pipe.published:
            return []
        pipe.published = False
        self._enter(pipe, NULL, at)
        cleared = self._connection_cleared(pipe, at, 0, "replaced")
        pipe.state = NULL
        return [cleared]

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

    # ------------------------------------------------------------------------------------------ bridges

    def _bridge_entered(self, r: BridgeEntered) -> Facts:
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
        leg.in_room = r.kind == "base"
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

    def _bridge_left(self, r: BridgeLeft) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        if leg.aside == r.bridge:
            leg.aside = None
        if leg.bridges.get(r.uniqueid) != r.bridge:
            return []
        self._leave_bridge(leg, r.uniqueid, r.bridge)
        return [*self._settle(leg.call, r.at), *self._settle_others(leg, r.bridge, r.at)]

    def _settle_others(self, leg: _Leg, bridge: str, at: float) -> Facts:
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

    def _leave_bridge(self, leg: _Leg, uniqueid: str, bridge: str) -> None:
        leg.bridges.pop(uniqueid, None)
        members = self._bridges.get(bridge)
        if members is not None:
            members.discard(uniqueid)
            if not members:
                del self._bridges[bridge]

    def _take_place(self, phone: _Leg, local: _Leg) -> _Leg:
        """Asterisk took the Local channel out of the talk: the phone behind it is the connection's channel from now on."""
        for other in phone.call.legs.values():
            other.dialling.pop(phone.id, None)
        del phone.call.legs[phone.id]
        local.ends.insert(0, phone.id)
        local.bridges |= phone.bridges
        self._legs[phone.id] = local
        return local

    def _unite(self, leg: _Leg, r: BridgeEntered) -> list[_Move]:
        """Who share a bridge get one Linkedid from Asterisk, the oldest, so one call of two; returns who came over from
        where. Where the oldest is that of a leg with which an agent waited for work, the customer's call goes on all the
        same, and the agent comes over to it."""
        moves: list[_Move] = []
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

    def _is_staff(self, call: _Call) -> bool:
        """Whether nobody but agents is in the call."""
        return all(leg.agent is not None for leg in call.legs.values() if leg.published)

    def _bring(self, leg: _Leg, target: _Call) -> _Move:
        source = leg.call
        del source.legs[leg.id]
        leg.call = target
        target.legs[leg.id] = leg
        source.merged_into = target.id
        return leg, source, leg.published

    def _invite(self, agent: _Leg, host: _Call, linkedid: str) -> _Move:
        move = self._bring(agent, host)
        if not move[1].legs:
            agent.guest_of = linkedid
        self._aliases.pop(linkedid, None)
        self._call_also(linkedid, host)
        return move

    def _merged(self, moves: list[_Move], target: _Call, at: float) -> Facts:
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

    def _return(self, guest: _Leg, at: float) -> Facts:
        """An agent's waiting leg outlives the customer's: the customer's call ends, and the leg waits in one of its own."""
        self._left_alone.pop(guest.id, None)
        call, linkedid = guest.call, guest.guest_of or guest.id
        self._enter(guest, NULL, at)
        call.talked, call.held = max(call.talked, guest.talked), max(call.held, guest.held)
        del call.legs[guest.id]
        facts: Facts = [self._connection_cleared(guest, at, 16, "normal"), *self._end_if_empty(call, at)]
        guest.talked, guest.held, guest.offered_at = 0.0, 0.0, at
        guest.met, guest.left_by, guest.guest_of, guest.transferred = set(), set(), None, False
        guest.call = self._begin(linkedid, Direction.INTERNAL, at, guest.number, guest.name)
        guest.call.legs[guest.id] = guest
        return facts + self._originate(guest, at)

    def _peers(self, leg: _Leg) -> frozenset[str]:
        """Ids of the parties the leg is in one conversation with, across Local channels that only join."""
        if not leg.bridges:
            return frozenset()
        found: set[str] = set()
        seen: set[str] = set()
        ahead = list(leg.bridges.values())
        while ahead:
            bridge = ahead.pop()
            if bridge in seen:
                continue
            seen.add(bridge)
            for uniqueid in self._bridges.get(bridge, ()):
                other = self._legs[uniqueid]
                if other is leg:
                    continue
                if other.pipe:
                    ahead += other.bridges.values()
                elif other.front is None and other.up:
                    found.add(other.id)
        return frozenset(found)

    # ------------------------------------------------------------------------------------------ hold, music, park

    def _phone_held(self, r: PhoneHeld) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        holder, bridge = leg.front or leg, leg.bridges.get(r.uniqueid)
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

    # ------------------------------------------------------------------------------------------ queues

    def _queue_id(self, queue: str) -> str:
        return f"{self.pbx}:{queue}"

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

    def _given_back(self, leg: _Leg, at: float, reason: str) -> Facts:
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

    def _end_wait(self, leg: _Leg, at: float) -> None:
        self._leaving.pop(leg.id, None)
        if leg.queue is None:
            return
        leg.call.wait = max(0.0, at - leg.queued_at)
        leg.call.waited += leg.call.wait
        leg.queue, leg.gave_up_at, leg.connecting = None, None, False

    # ------------------------------------------------------------------------------------------ transfers, conferences

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

    def _lives(self, call: _Call) -> bool:
        return self._calls.get(call.key) is call

    def _transferred(self, call: _Call, by: _Leg | None, kind: str, target: str | None, at: float) -> Fact:
        view = self._connection(by) if by is not None and by.published else None
        return CallTransferred(
            at=moment(at), call=call.id, kind=kind, by=view, target=target, view=self._whole(call)
        )

    def _conference_joined(self, r: ConferenceJoined) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is None:
            return []
        call = leg.call
        call.conference, leg.in_room = r.room, True
        facts = self._settle(call, r.at)
        return [*facts, self._conferenced(leg, r.room, r.at)]

    def _conferenced(self, leg: _Leg, room: str, at: float) -> Fact:
        return CallConferenced(
            at=moment(at),
            call=leg.call.id,
            connection=self._connection(leg),
            agent=leg.agent,
            room=room,
            parties=len(leg.peers) + 1,
            view=self._whole(leg.call),
        )

    def _conference_left(self, r: ConferenceLeft) -> Facts:
        leg = self._leg(r.uniqueid)
        if leg is not None:
            leg.in_room = False
        return []

    # ------------------------------------------------------------------------------------------ data

    def _data_collected(self, r: DataCollected) -> Facts:
        leg = self._leg(r.uniqueid)
        return self._change_data(leg.call, r.values, "ivr", r.at) if leg else []

    def _change_data(self, call: _Call, values: dict[str, str], by: str, at: float) -> Facts:
        changed = {name: value for name, value in values.items() if call.data.get(name, "") != value}
        if not changed:
            return []
        call.data.update(changed)
        for name in [name for name, value in call.data.items() if value == ""]:
            del call.data[name]
        return [CallDataChanged(at=moment(at), call=call.id, changed=changed, by=by)]

    # ------------------------------------------------------------------------------------------ deriving states

    def _settle(self, call: _Call, at: float) -> Facts:
        """Brings every state of the call up to what is known now and says each change."""
        return self._tell(call, self._derive(call, at), at)

    def _derive(
        self, call: _Call, at: float, parked: _Leg | None = None
    ) -> list[tuple[_Leg, ConnectionState, ConnectionState]]:
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

    def _state_of(self, leg: _Leg) -> ConnectionState:
        talking = leg.talking_from is not None
        if leg.queue is not None and not talking:
            return QUEUED
        if talking:
            return CONNECTED
        if leg.state in ESTABLISHED:
            if leg.held_in is not None and leg.held_in in leg.bridges.values():
                return HOLD
            if leg.peers:
                return CONNECTED
            if leg.slot is not None or leg.state is HOLD or self._hears_music(leg):
                return HOLD
            return HOLD if self._partner_hears_music(leg) else CONNECTED
        if leg.state is QUEUED:
            return CONNECTED if leg.dialled and leg.up else INITIATED
        if leg.dialled:
            if leg.up and (leg.dialler is None or leg.dialler.cleared):
                return CONNECTED
            if leg.rings:
                return ALERTING
        return leg.state

    def _hears_music(self, leg: _Leg) -> bool:
        """Whether the leg was sent to music by who talked with it, and not left behind by who hangs up."""
        if not leg.music or not leg.met or leg.aside is not None:
            return False
        partners = [other for met in leg.met if (other := leg.call.legs.get(met)) is not None]
        return not partners or not all(other.hangs_up for other in partners)

    def _partner_hears_music(self, leg: _Leg) -> bool:
        """Whether the one the leg talked with was sent to music: then this side holds the call."""
        if leg.bridges or leg.hangs_up:
            return False
        legs = leg.call.legs
        return any(
            (other := legs.get(met)) is not None
            and other.music
            and not other.bridges
            and other.queue is other.slot is other.aside is None
            for met in leg.met
        )

    def _clock_talk(self, leg: _Leg, at: float) -> None:
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

    def _note_partners(self, leg: _Leg, peers: frozenset[str]) -> None:
        """Remembers who a leg has talked with; when a new one takes the place of all the old, who left it to them."""
        leg.left_by -= peers
        if peers <= leg.met:
            return
        old = leg.met - peers
        if old and not (leg.met & peers):
            former = {
                peer for peer in old if (other := leg.call.legs.get(peer)) is None or other.state is not HOLD
            }
            leg.left_by = former
        leg.met |= peers

    def _enter(self, leg: _Leg, state: ConnectionState, at: float) -> None:
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
        if state is QUEUED:
            leg.call.queue, leg.call.queued_since = leg.queue, leg.queued_at
        if leg.caller is not None:
            leg.number, leg.name = leg.caller
            leg.caller = None
        leg.state, leg.since = state, at

    def _tell(
        self, call: _Call, changes: list[tuple[_Leg, ConnectionState, ConnectionState]], at: float
    ) -> Facts:
        """One fact for each change of state; of those that become connected together, the dialled ones speak for all."""
        if not changes:
            return []
        when = moment(at)
        facts: Facts = []
        through = [leg for leg, old, new in changes if new is CONNECTED and old in NOT_YET]
        if through:
            from_queue = any(old is QUEUED for leg, old, _ in changes if leg in through)
            facts += self._established(call, through, from_queue, at)
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

    def _established(self, call: _Call, through: list[_Leg], from_queue: bool, at: float) -> Facts:
        dialled = [leg for leg in through if leg.dialled]
        speakers = [leg for leg in dialled if leg.agent or leg.member_of] or dialled
        if not speakers:
            # brought together by the server: the agent who waited for this caller speaks, if there is one
            met = [call.legs[peer] for leg in through for peer in leg.peers if peer in call.legs]
            speakers = [leg for leg in met if leg.agent][:1] or through[:1]
        if call.answered is None and any(leg.agent is None for leg in speakers):
            call.answered = at
        facts: Facts = [] if from_queue else self._taken_over(call, at)
        for leg in speakers:
            call.dnis = call.dnis or leg.dials
            queue = leg.member_of or (call.queue if from_queue else None)
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

    # ------------------------------------------------------------------------------------------ endings

    def _clear(self, leg: _Leg, at: float, cause: int, *, lost: bool = False) -> Facts:
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

    def _leave_alone(self, call: _Call, at: float) -> Facts:
        """Whether only a guest is left, who waits again at once or is about to go too."""
        facts: Facts = []
        if all(leg.guest_of is not None for leg in call.legs.values()):
            for leg in tuple(call.legs.values()):
                if leg.music or leg.aside is not None:
                    facts += self._return(leg, at)
                else:
                    self._left_alone[leg.id] = leg, at
        return facts

    def _taken_over(self, call: _Call, at: float) -> Facts:
        """Whether somebody talks on with another after the one they talked with was taken off the call: a transfer."""
        for leg in call.legs.values():
            for former in leg.left_by & call.departed.keys():
                gone = call.departed[former]
                leg.left_by.clear()
                if leg.talking_from is not None and not gone.transferred:
                    gone.transferred = True
                    return [self._transferred(call, gone, "by_server", None, at)]
        return []

    def _handed_over(self, call: _Call, gone: _Leg, at: float) -> Facts:
        """Whether somebody who talked with the one now gone talks on with another: that was a transfer."""
        for leg in call.legs.values():
            if gone.id in leg.left_by and leg.talking_from is not None:
                leg.left_by.clear()
                gone.transferred = True
                return [self._transferred(call, gone, "by_server", None, at)]
        return []

    def _parting(
        self, leg: _Leg, before: ConnectionState, queued: str | None, at: float, cause: int, lost: bool
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
            call.abandoned = True
            return self._connection_cleared(leg, at, cause, "abandoned")
        reason = "lost" if lost else "transferred" if leg.transferred else "normal"
        return self._connection_cleared(leg, at, cause, reason)

    def _why_not_taken(self, leg: _Leg, cause: int) -> str:
        rivals = (other for other in leg.call.legs.values() if other.dialler is leg.dialler is not None)
        if cause == 26 or any(
            rival.up and abs(rival.offered_at - leg.offered_at) <= RIVALRY for rival in rivals
        ):
            return "answered_elsewhere"
        through = leg.dialler if leg.dialler is not None and leg.dialler.joint else leg
        return REASONS.get(cause) or through.dial_reason or leg.dial_reason or "no_answer"

    def _connection_cleared(self, leg: _Leg, at: float, cause: int, reason: str) -> Fact:
        return ConnectionCleared(
            at=moment(at),
            call=leg.call.id,
            connection=self._connection(leg),
            agent=leg.agent,
            cause=cause,
            reason=reason,
            talked=leg.talked,
            held=leg.held,
        )

    def _end_if_empty(self, call: _Call, at: float) -> Facts:
        if call.legs or not self._lives(call):
            return []
        del self._calls[call.key]
        for linkedid in call.aliases:
            if self._aliases.get(linkedid) is call:
                del self._aliases[linkedid]
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

    def _outcome(self, call: _Call) -> str:
        if call.merged_into is not None:
            return "merged"
        if call.lost:
            return "lost"
        if call.abandoned:
            return "abandoned"
        if call.talked_from is not None or (call.answered is not None and call.queue is None):
            return "answered"
        return "failed" if call.failed else "unanswered"

    # ------------------------------------------------------------------------------------------ views

    def _leg(self, uniqueid: str) -> _Leg | None:
        leg = self._legs.get(uniqueid)
        if leg is None:
            self.unknown += 1
            return None
        return None if leg.cleared else leg

    def _key(self, call: str) -> str:
        return call.removeprefix(self.pbx + ":")

    def _current(self, linkedid: str) -> _Call | None:
        """The live call that channels with this Linkedid belong to."""
        return self._calls.get(linkedid) or self._aliases.get(linkedid)

    def _connection(self, leg: _Leg) -> ConnectionView:
        return ConnectionView(
            id=f"{self.pbx}:{leg.id}",
            device=leg.device,
            state=leg.state,
            since=moment(leg.since),
            agent=leg.agent,
            number=leg.number,
            name=leg.name,
        )

    def _whole(self, call: _Call) -> CallView:
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

    def _view(self, call: _Call) -> CallView:
        return CallView(
            id=call.id,
            pbx=self.pbx,
            direction=call.direction,
            ani=call.ani,
            ani_name=call.ani_name,
            dnis=call.dnis,
            started=moment(call.started),
            queue=call.queue,
            queued_since=moment(call.queued_since) if call.queued_since is not None else None,
            answered=moment(call.answered) if call.answered is not None else None,
            consult_of=call.consult_of,
            parked_at=call.parked_at,
            conference=call.conference,
            data=dict(call.data),
            connections=tuple(self._connection(leg) for leg in call.legs.values() if leg.published),
        )

    # ------------------------------------------------------------------------------------------ rebuilding

    def rebuild(
        self,
        channels: list[ChannelRow],
        waiting: list[WaitingRow],
        parked: list[ParkedRow],
        now: float,
        touched: frozenset[str] = frozenset(),
    ) -> tuple[Facts, dict[str, int]]:
        """Brings the model to what the switch says it has. Returns the facts, and how often what was found wrong:
        `missed` channels that had come, `ghosts` that had gone, `bridges`, `states`, `waits`, `parkings` that differed.

        `touched`: uniqueids that events spoke of while the lists were on their way; the lists may be older or newer than
        what the model knows of these, so they are not judged.
        """
        wrong = dict.fromkeys(("missed", "ghosts", "bridges", "states", "waits", "parkings"), 0)
        facts: Facts = []
        there = {row.uniqueid: row for row in channels}
        gone = [u for u in self._legs if u not in there and u not in touched]
        wrong["ghosts"] = sum(not self._legs[uniqueid].cleared for uniqueid in gone)
        for uniqueid in gone:
            facts += self._drop(uniqueid, now, 0, lost=True)
        known = frozenset(self._legs)
        for row in sorted(channels, key=lambda c: (-c.age, c.uniqueid != c.linkedid, c.uniqueid)):
            if row.uniqueid not in self._legs and row.uniqueid not in touched:
                wrong["missed"] += 1
                facts += self._found(row, now)
        judged = [leg for leg in self._connections() if touched.isdisjoint(leg.ends)]
        facts += self._rebuild_waits(judged, waiting, now, wrong, known)
        slots = {row.uniqueid: row for row in parked}
        for leg in judged:
            if leg.slot is not None and slots.keys().isdisjoint(leg.ends):
                wrong["parkings"] += 1
                unparked = CallUnparked(now, leg.ends[0], leg.call.key, leg.slot, "retrieved", None)
                facts += self._unparked(unparked)
        for row in channels:
            if row.uniqueid not in touched:
                differs = self._rebuild_channel(row, row.uniqueid in slots, now, facts)
                for kind in differs if row.uniqueid in known else ():
                    wrong[kind] += 1
        for leg in judged:
            found = next((slots[end] for end in leg.ends if end in slots), None)
            if found is not None and leg.slot is None and not leg.cleared:
                wrong["parkings"] += leg.ends[0] in known
                facts += self._parked(CallParked(now, leg.ends[0], leg.call.key, found.lot, found.slot))
        return facts, wrong

    def _found(self, row: ChannelRow, now: float) -> Facts:
        """A channel found on the switch, as if its appearance had been heard when it came."""
        first = row.uniqueid == row.linkedid and not made_by_originate(row.uniqueid)
        came = first and self._is_trunk(device_of_channel(row.channel))
        state = ChannelState.RING if came and row.state is ChannelState.UP else row.state
        number_dialed = row.variables.get("CTI_DID", row.exten)
        appeared = ChannelAppeared(
            now - row.age,
            row.uniqueid,
            row.linkedid,
            row.channel,
            state,
            row.number,
            row.name,
            number_dialed,
            row.context,
            row.variables,
        )
        facts = self._appeared(appeared)
        leg, argument = self._legs.get(row.uniqueid), row.data.partition(",")[0]
        if leg is not None and not leg.local:
            facts += [*self._publish(leg, now), *self._settle(leg.call, now)]
        if leg is not None and row.application == "Queue":
            leg.call.served_by = self._queue_id(argument)
        if leg is not None and row.application == "ConfBridge":
            facts += self._conference_joined(ConferenceJoined(now, row.uniqueid, row.linkedid, argument))
        return facts

    def _connections(self) -> Iterable[_Leg]:
        return {id(leg): leg for leg in self._legs.values()}.values()

    def _rebuild_waits(
        self,
        judged: Iterable[_Leg],
        waiting: list[WaitingRow],
        now: float,
        wrong: dict[str, int],
        known: frozenset[str],
    ) -> Facts:
        facts: Facts = []
        waits = {row.uniqueid: row for row in waiting}
        for leg in judged:
            row = next((waits[end] for end in leg.ends if end in waits), None)
            if row is None and leg.queue is not None and not leg.connecting and leg.gave_up_at is None:
                wrong["waits"] += 1
                facts += self._given_back(leg, now, "left")
            elif row is not None and leg.queue != self._queue_id(row.queue):
                wrong["waits"] += leg.ends[0] in known
                joined = CallerJoinedQueue(
                    now - row.waited, row.uniqueid, leg.call.key, row.queue, row.position, {}
                )
                facts += self._joined_queue(joined)
        return facts

    def _rebuild_channel(self, row: ChannelRow, parked: bool, now: float, facts: Facts) -> list[str]:
        """Brings one channel to what its row says; adds to the facts and returns what differed."""
        leg = self._legs.get(row.uniqueid)
        if leg is None or leg.cleared:
            return []
        differs: list[str] = []
        if leg.ends[0] == row.uniqueid and row.state is ChannelState.UP and not leg.up:
            differs.append("states")
            leg.up = True
            facts += [*self._publish(leg, now), *self._settle(leg.call, now)]
        if leg.ends[0] == row.uniqueid and row.state is ChannelState.RINGING and not leg.rings:
            differs.append("states")
            facts += self._state_changed(ChannelStateChanged(now, row.uniqueid, row.linkedid, row.state))
        held = leg.bridges.get(row.uniqueid)
        bridge = None if leg.slot is not None or row.bridge == leg.aside else row.bridge
        if held != bridge:
            differs.append("bridges")
            if held is not None:
                facts += self._bridge_left(BridgeLeft(now, row.uniqueid, row.linkedid, held))
            if bridge is not None:
                application = "Park" if parked else row.application
                technology, kind = BRIDGES_OF.get(application, ("simple_bridge", "basic"))
                entered = BridgeEntered(now, row.uniqueid, row.linkedid, bridge, technology, kind)
                facts += self._bridge_entered(entered)
        return differs
