"""Facts: what happened, in the trade's words, once and for all who listen.

A fact is frozen, carries the time Asterisk gave it (never ours, where Asterisk gave one), and is named on the
wire by its `TYPE`. Call facts follow CSTA (ECMA-269): a call has connections, each with a device and a state.
This module only declares; it decides nothing and does no I/O.

Ids: a call is `<pbx>:<Linkedid>`, a connection `<pbx>:<Uniqueid>`, a queue `<pbx>:<name>`, an agent the user's
login name. Times are aware datetimes in UTC, durations seconds.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec

from cti.frozen import Frozen


class ConnectionState(StrEnum):
    """ECMA-269 connection states; `null` is a connection that is no more."""

    NULL = "null"
    INITIATED = "initiated"
    ALERTING = "alerting"
    CONNECTED = "connected"
    HOLD = "hold"
    QUEUED = "queued"
    FAIL = "fail"


class Direction(StrEnum):
    """Where a call came from, fixed when it appears: a transfer never turns it round."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"


class AgentState(StrEnum):
    """One state an agent at a time; `unknown` while the PBX that would tell is out of reach."""

    LOGGED_OFF = "logged_off"
    NOT_READY = "not_ready"
    READY = "ready"
    RESERVED = "reserved"
    BUSY = "busy"
    WRAP_UP = "wrap_up"
    UNKNOWN = "unknown"


class ConnectionView(Frozen, frozen=True, gc=False, kw_only=True):
    """One party of a call as a client sees it. `muted`: the others of the conference do not hear them."""

    id: str
    device: str
    state: ConnectionState
    since: datetime
    agent: str | None = None
    number: str | None = None
    name: str | None = None
    muted: bool = False


class CallView(Frozen, frozen=True, gc=False, kw_only=True):
    """A whole call as a client sees it: in the snapshot, and in every fact by which a call can enter a client's view."""

    id: str
    pbx: str
    direction: Direction
    ani: str | None
    ani_name: str | None
    dnis: str | None
    started: datetime
    queue: str | None = None
    queued_since: datetime | None = None
    answered: datetime | None = None
    consult_of: str | None = None
    parked_at: str | None = None
    conference: str | None = None
    data: dict[str, str] = msgspec.field(default_factory=dict)
    connections: tuple[ConnectionView, ...] = ()


class Fact(Frozen, frozen=True, gc=False, kw_only=True):
    """The base of all facts. `TYPE` names it on the wire; `at` is when it happened."""

    TYPE: ClassVar[str] = ""
    at: datetime


class CallFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about one call."""

    call: str


class CallOriginated(CallFact, frozen=True, gc=False, kw_only=True):
    """A call exists: a customer has reached the switch, or a device or the server has begun to dial. AMI: Newchannel."""

    TYPE: ClassVar[str] = "call.originated"
    connection: ConnectionView
    view: CallView


class CallQueued(CallFact, frozen=True, gc=False, kw_only=True):
    """The caller waits in a queue. AMI: QueueCallerJoin."""

    TYPE: ClassVar[str] = "call.queued"
    connection: ConnectionView
    queue: str
    position: int
    view: CallView


class CallOffered(CallFact, frozen=True, gc=False, kw_only=True):
    """A device is about to be rung for the call; nothing has rung yet (CSTA Offered). AMI: Newchannel of the dialled leg."""

    TYPE: ClassVar[str] = "call.offered"
    connection: ConnectionView
    agent: str | None
    queue: str | None
    view: CallView


class CallDelivered(CallFact, frozen=True, gc=False, kw_only=True):
    """The device rings. AMI: Newstate Ringing or DialState RINGING, whichever comes first."""

    TYPE: ClassVar[str] = "call.delivered"
    connection: ConnectionView
    agent: str | None
    queue: str | None


class CallEstablished(CallFact, frozen=True, gc=False, kw_only=True):
    """The connection is through to another party. `waited`: seconds in the queue; `rang`: seconds from offer to
    answer. AMI: DialEnd ANSWER or BridgeEnter."""

    TYPE: ClassVar[str] = "call.established"
    connection: ConnectionView
    agent: str | None
    queue: str | None
    waited: float | None
    rang: float | None
    view: CallView


class CallDiverted(CallFact, frozen=True, gc=False, kw_only=True):
    """The call leaves a device or queue that did not take it.

    `reason`: no_answer, busy, rejected, unreachable, answered_elsewhere, caller_gone (from a device);
    timed_out, overflowed, transferred (from a queue). AMI: DialEnd, AgentRingNoAnswer, QueueCallerLeave.
    """

    TYPE: ClassVar[str] = "call.diverted"
    connection: ConnectionView
    agent: str | None
    queue: str | None
    reason: str
    rang: float | None
    view: CallView


class CallHeld(CallFact, frozen=True, gc=False, kw_only=True):
    """A connection is on hold. `by`: phone (its own re-INVITE) or server. AMI: Hold; MusicOnHoldStart after a redirect."""

    TYPE: ClassVar[str] = "call.held"
    connection: ConnectionView
    agent: str | None
    by: str


class CallRetrieved(CallFact, frozen=True, gc=False, kw_only=True):
    """Talk goes on after a hold; `held`: seconds it lasted. AMI: Unhold; BridgeEnter after a hold by the server."""

    TYPE: ClassVar[str] = "call.retrieved"
    connection: ConnectionView
    agent: str | None
    by: str
    held: float


class CallParked(CallFact, frozen=True, gc=False, kw_only=True):
    """The call waits in a parking slot. AMI: ParkedCall."""

    TYPE: ClassVar[str] = "call.parked"
    connection: ConnectionView
    lot: str
    slot: str
    view: CallView


class CallUnparked(CallFact, frozen=True, gc=False, kw_only=True):
    """The call has left its slot. `reason`: retrieved, timed_out, given_up.

    AMI: UnParkedCall, ParkedCallTimeOut, ParkedCallGiveUp.
    """

    TYPE: ClassVar[str] = "call.unparked"
    connection: ConnectionView
    slot: str
    reason: str
    view: CallView


class CallTransferred(CallFact, frozen=True, gc=False, kw_only=True):
    """A device has handed the call on. `kind`: blind, attended, by_server. `target`: what it was sent to, as dialled, when
    known. `queue`: the one that device had answered the call from. AMI: BlindTransfer, AttendedTransfer, or bridges that
    say so."""

    TYPE: ClassVar[str] = "call.transferred"
    kind: str
    by: ConnectionView | None
    target: str | None
    view: CallView
    queue: str | None = None


class CallMerged(CallFact, frozen=True, gc=False, kw_only=True):
    """A connection has come over from another call (`merged`), which ends when its last one has: a consultation that became
    part of this call, or a parked call fetched. AMI: BridgeEnter with another Linkedid."""

    TYPE: ClassVar[str] = "call.merged"
    connection: ConnectionView
    merged: str
    view: CallView


class CallConferenced(CallFact, frozen=True, gc=False, kw_only=True):
    """Three or more parties share one bridge, or a party joined a conference room. AMI: ConfbridgeJoin, BridgeEnter."""

    TYPE: ClassVar[str] = "call.conferenced"
    connection: ConnectionView
    agent: str | None
    room: str
    parties: int
    view: CallView


class CallMuted(CallFact, frozen=True, gc=False, kw_only=True):
    """A party of a conference is heard by the others no longer (`muted`), or again; also when it leaves the conference.
    AMI: ConfbridgeMute, ConfbridgeUnmute, ConfbridgeLeave."""

    TYPE: ClassVar[str] = "call.muted"
    connection: ConnectionView
    agent: str | None
    muted: bool


class CallFailed(CallFact, frozen=True, gc=False, kw_only=True):
    """An attempt to reach a device failed before it was answered and nothing else is tried by the dialling device.
    `cause`: Q.850 cause value, 0 when unknown. AMI: DialEnd, Hangup."""

    TYPE: ClassVar[str] = "call.failed"
    connection: ConnectionView
    agent: str | None
    reason: str
    cause: int


class ConnectionCleared(CallFact, frozen=True, gc=False, kw_only=True):
    """A party has left the call. `talked` and `held`: seconds, computed from bridges. `cause`: Q.850. `reason`: normal,
    abandoned (left a queue unanswered), transferred, lost (found gone at a resync), replaced (a Local channel that turned
    out to join others only). `queue`: the one it was answered from. AMI: Hangup."""

    TYPE: ClassVar[str] = "call.connection_cleared"
    connection: ConnectionView
    agent: str | None
    cause: int
    reason: str
    talked: float
    held: float
    queue: str | None = None


class CallCleared(CallFact, frozen=True, gc=False, kw_only=True):
    """The call is over; said exactly once a call. `outcome`: answered (an agent or other party talked), abandoned (left
    while queued), unanswered, failed, merged (went on as another call, see `merged_into`), lost (found gone at a resync).
    Seconds: `duration` of all, `waited` in queues, `talked` (the longest party's), `held`. AMI: the last Hangup."""

    TYPE: ClassVar[str] = "call.cleared"
    outcome: str
    cause: int
    duration: float
    waited: float
    talked: float
    held: float
    queue: str | None
    agents: tuple[str, ...]
    merged_into: str | None


class CallDataChanged(CallFact, frozen=True, gc=False, kw_only=True):
    """Correlator data changed: what the IVR collected or a client attached. `changed` holds the new values only.
    AMI: UserEvent CtiData, channelvars; or a command."""

    TYPE: ClassVar[str] = "call.data_changed"
    changed: dict[str, str]
    by: str


class CallerChanged(CallFact, frozen=True, gc=False, kw_only=True):
    """The switch corrected the caller's number or name. AMI: NewCallerid."""

    TYPE: ClassVar[str] = "call.caller_changed"
    ani: str | None
    ani_name: str | None


class AgentStateChanged(Fact, frozen=True, gc=False, kw_only=True):
    """An agent's state changed, with who made it and why. `since`: when the present state and reason began. `pending`: what
    was asked for during a call and comes after it. `until`: when the state ends by itself (wrap-up)."""

    TYPE: ClassVar[str] = "agent.state_changed"
    agent: str
    old: AgentState
    new: AgentState
    since: datetime
    reason: str | None
    by: str
    why: str
    call: str | None
    pending: str | None
    until: datetime | None
    device: str | None


class AgentReachabilityChanged(Fact, frozen=True, gc=False, kw_only=True):
    """An agent's phone came or went. AMI: QueueMemberStatus, DeviceStateChange, ContactStatus."""

    TYPE: ClassVar[str] = "agent.reachability_changed"
    agent: str
    device: str
    reachable: bool


class LineState(StrEnum):
    """The line of an agent who works off-hook: closed, the phone is being called, or open."""

    CLOSED = "closed"
    CALLING = "calling"
    OPEN = "open"


class AgentLineChanged(Fact, frozen=True, gc=False, kw_only=True):
    """The open line of an agent who works off-hook came or went. `reason`: called, rings, opened; of a closed one hung_up
    (at the phone, or the way to it broke), closed (by command, logged off), page_gone and renewed (a page in the browser was
    closed, or loaded again), no_answer, busy, rejected, unreachable,
    congestion, lost (found gone at a resync). AMI: Newchannel, Newstate, Hangup."""

    TYPE: ClassVar[str] = "agent.line_changed"
    agent: str
    pbx: str
    device: str
    line: LineState
    reason: str


class AgentOffHookChanged(Fact, frozen=True, gc=False, kw_only=True):
    """An agent works off-hook from now on (their line stays open and calls are connected to it), or on-hook again."""

    TYPE: ClassVar[str] = "agent.off_hook_changed"
    agent: str
    off_hook: bool
    by: str


class QueueAdded(Fact, frozen=True, gc=False, kw_only=True):
    """A queue is known from now on. AMI: QueueStatus (QueueParams)."""

    TYPE: ClassVar[str] = "queue.added"
    queue: str
    pbx: str
    name: str


class QueueRemoved(Fact, frozen=True, gc=False, kw_only=True):
    """A queue is no longer configured on its PBX. AMI: QueueStatus after a reload."""

    TYPE: ClassVar[str] = "queue.removed"
    queue: str


class QueueMemberJoined(Fact, frozen=True, gc=False, kw_only=True):
    """An interface is a member of a queue. `agent` when it is a known agent's. AMI: QueueMemberAdded."""

    TYPE: ClassVar[str] = "queue.member_joined"
    queue: str
    interface: str
    name: str
    agent: str | None
    penalty: int
    paused: bool
    pause_reason: str | None
    status: str


class QueueMemberStatusChanged(Fact, frozen=True, gc=False, kw_only=True):
    """A member's phone or penalty changed in a queue; `status` as in `MemberView`.

    AMI: QueueMemberStatus, QueueMemberPenalty.
    """

    TYPE: ClassVar[str] = "queue.member_status_changed"
    queue: str
    interface: str
    agent: str | None
    status: str
    penalty: int


class QueueMemberLeft(Fact, frozen=True, gc=False, kw_only=True):
    """An interface is no longer a member of a queue. AMI: QueueMemberRemoved."""

    TYPE: ClassVar[str] = "queue.member_left"
    queue: str
    interface: str
    agent: str | None


class QueueMemberPaused(Fact, frozen=True, gc=False, kw_only=True):
    """A member was paused or unpaused in a queue. AMI: QueueMemberPause."""

    TYPE: ClassVar[str] = "queue.member_paused"
    queue: str
    interface: str
    agent: str | None
    paused: bool
    reason: str | None


class QueueCallerJoined(Fact, frozen=True, gc=False, kw_only=True):
    """Somebody waits. No personal data: any agent of the queue may see it. AMI: QueueCallerJoin."""

    TYPE: ClassVar[str] = "queue.caller_joined"
    queue: str
    call: str
    position: int
    waiting: int


class QueueCallerLeft(Fact, frozen=True, gc=False, kw_only=True):
    """Somebody no longer waits. `reason`: answered, abandoned, timed_out, left. `waited`: seconds. AMI: QueueCallerLeave,
    QueueCallerAbandon."""

    TYPE: ClassVar[str] = "queue.caller_left"
    queue: str
    call: str
    reason: str
    waited: float
    waiting: int


class PbxStatusChanged(Fact, frozen=True, gc=False, kw_only=True):
    """The link to a PBX changed: connecting, up, down, stopped; `why` says it in one sentence, with what to do."""

    TYPE: ClassVar[str] = "pbx.status_changed"
    pbx: str
    phase: str
    code: str
    why: str


class DatabaseStatusChanged(Fact, frozen=True, gc=False, kw_only=True):
    """The database went away or came back; `why` says in one sentence what does not work meanwhile. Facts of the time
    without it are written when it is back."""

    TYPE: ClassVar[str] = "database.status_changed"
    up: bool
    why: str


class PbxResynced(Fact, frozen=True, gc=False, kw_only=True):
    """The state of a PBX was asked for again; `differences` says how often each kind of thing was found wrong."""

    TYPE: ClassVar[str] = "pbx.resynced"
    pbx: str
    reason: str
    calls: int
    differences: dict[str, int]


class JournalGap(Fact, frozen=True, gc=False, kw_only=True):
    """Facts `first`..`last` (seq) could not be written down and are not in the journal; `lost` says how many."""

    TYPE: ClassVar[str] = "journal.gap"
    first: int
    last: int
    lost: int
