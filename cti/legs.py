"""Legs and calls as they stand: what is known of each, and the tables that say where a connection may go and what a cause
means. Data only; `cti.calls` tells how it fits together."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from cti.facts import (
    ConnectionState,
    Direction,
    Fact,
)

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

SPIES = "cti-spy-"
"""How the ids begin of channels by which supervisors listen: those are nobody's call."""

LINES = "cti-line-"
"""How the ids begin of the open lines of agents who work off-hook (`cti.lines`): those are nobody's call either."""

SOUNDS = "cti-sound-"
"""How the ids begin of channels by which it is asked whether a sound is there (`dialer.calling.sounds`)."""

NOBODYS = (SPIES, LINES, SOUNDS)
"""How ids begin of channels that are in no call."""


def in_no_call(uniqueid: str, linkedid: str) -> bool:
    """Whether a channel is in no call. A line is known by its own id, since its Linkedid may be another's by now: of three
    channels that meet in a bridge and whose ids Asterisk cannot compare, all get the last one's (main/channel.c,
    ast_channel_oldest_linkedid). The others are known by theirs: a supervisor who takes a call over is in it."""
    return uniqueid.startswith(LINES) or linkedid.startswith((SPIES, SOUNDS))


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
class Leg:
    """A connection as it stands.

    `ends`: uniqueids of its channel, or of both halves of a Local one, the near half first. `dialling`: legs it dials
    now, each with the end that dials it. `front`: the Local connection that stands for this phone behind it. `joint`: a
    Local channel that only leads to an agent's own phone. `aside`: the bridge where nobody hears anybody (parking,
    waiting) that it is in. `offered_by`: the queue that was told with its offer. `answered_from`: the queue whose caller
    it took. `dials`: the number sent to the outside. `caller`: a number and name heard but not told yet. `met`: whom it
    has talked with, `latest` most recently. `left_by`: whom it talked with before others took their place. `set_aside`:
    found held by the server when the state was asked for. `guest_of`: the Linkedid of the call it left to be with a
    customer, and with which it goes on when they leave.
    """

    id: str
    call: Call
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
    front: Leg | None = None
    joint: bool = False
    rings: bool = False
    up: bool = False
    dialler: Leg | None = None
    dialling: dict[str, str] = field(default_factory=dict)
    member_of: str | None = None
    dial_reason: str | None = None
    offered_at: float = 0.0
    offered_by: str | None = None
    answered_from: str | None = None
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
    latest: frozenset[str] = frozenset()
    left_by: set[str] = field(default_factory=set)
    transferred: bool = False
    held_by: str = "server"
    set_aside: bool = False
    muted: bool = False
    caller: tuple[str | None, str | None] | None = None
    guest_of: str | None = None

    @property
    def bridged(self) -> bool:
        """Whether it is in a bridge with others; the one of a Local channel's far half leads to its own phone only."""
        return self.ends[0] in self.bridges

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
class Call:
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
    legs: dict[str, Leg] = field(default_factory=dict)
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
    departed: dict[str, Leg] = field(default_factory=dict)
    talked_from: float | None = None
    abandoned: bool = False
    failed: bool = False
    merged_into: str | None = None
    lost: bool = False
    cause: int = 0


Facts = list[Fact]
Move = tuple[Leg, Call, bool]
"""A leg that came over to another call, the call it came from, and whether it was told of there."""
