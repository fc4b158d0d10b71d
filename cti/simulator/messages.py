"""AMI events as ready-made bytes: a short script of events is compiled once, then filled in for each call.

A script has one line an event: its name, whose channels it shows, and the values of its own headers.

    = caller state=Up | priority=8          the caller's channel is so from here on
    VarSet caller | QUEUEWAIT | 2           an event with the caller's channel in it
    AgentCalled caller agent | {queue} | …  a second channel stands in headers that begin with Dest
    DialBegin - agent | {extension}         the first is left out

`{name}` is filled in for each call. Which headers an event has, and in which order, is in SHAPES, as recorded from
Asterisk 22.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Values = dict[bytes, bytes]

_BRIDGE = (
    "BridgeUniqueid",
    "BridgeType",
    "BridgeTechnology",
    "BridgeCreator",
    "BridgeName",
    "BridgeNumChannels",
    "BridgeVideoSourceMode",
)
_CDR = (
    "AccountCode",
    "Source",
    "Destination",
    "DestinationContext",
    "CallerID",
    "Channel",
    "DestinationChannel",
    "LastApplication",
    "LastData",
    "StartTime",
    "AnswerTime",
    "EndTime",
    "Duration",
    "BillableSeconds",
    "Disposition",
    "AMAFlags",
    "UniqueID",
    "UserField",
    "CtiCall",
)

SHAPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Newchannel": ("call", ()),
    "Newstate": ("call", ()),
    "NewCallerid": ("call", ("CID-CallingPres",)),
    "NewConnectedLine": ("call", ()),
    "HangupRequest": ("call", ("Cause", "TechCause")),
    "SoftHangupRequest": ("call", ("Cause", "TechCause")),
    "Hangup": ("call", ("Cause", "Cause-txt", "TechCause")),
    "DialBegin": ("call", ("DialString",)),
    "DialState": ("call", ("DialStatus",)),
    "DialEnd": ("call", ("DialStatus",)),
    "BridgeCreate": ("call", _BRIDGE),
    "BridgeEnter": ("call", _BRIDGE),
    "BridgeLeave": ("call", _BRIDGE),
    "BridgeDestroy": ("call", _BRIDGE),
    "MusicOnHoldStart": ("call", ("Class",)),
    "MusicOnHoldStop": ("call", ()),
    "DeviceStateChange": ("call", ("Device", "State")),
    "VarSet": ("dialplan", ("Variable", "Value")),
    "Newexten": ("dialplan", ("Extension", "Application", "AppData")),
    "UserEvent": ("user", ("UserEvent", "DID", "ANI", "Name", "SipCallId")),
    "QueueCallerJoin": ("agent", ("Queue", "Position", "Count")),
    "QueueCallerLeave": ("agent", ("Queue", "Position", "Count")),
    "QueueCallerAbandon": ("agent", ("Queue", "Position", "OriginalPosition", "HoldTime")),
    "AgentCalled": ("agent", ("Queue", "Interface", "MemberName")),
    "AgentConnect": ("agent", ("Queue", "Interface", "MemberName", "HoldTime", "RingTime")),
    "AgentComplete": ("agent", ("Queue", "Interface", "MemberName", "HoldTime", "TalkTime", "Reason")),
    "AgentRingNoAnswer": ("agent", ("Queue", "Interface", "MemberName", "RingTime")),
    "Cdr": ("cdr", _CDR),
}
"""Event → its class (first word of Privilege) and its own headers, which follow those of its channels."""

_BRIDGE_FIRST = frozenset({"BridgeEnter", "BridgeLeave"})
"""Events whose own headers stand before those of the channel."""

LEAN_CLASSES = frozenset({"system", "call", "agent", "user"})
LEAN_DROPPED = re.compile(
    "VarSet|Newexten|RTCP|TestEvent|NewConnectedLine|NewAccountCode|ChallengeSent|SuccessfulAuth|RequestBadFormat"
    "|ChannelTalking|DTMF"
)
"""What a user set up as in asterisk-config/include/manager_cti.conf hears: its read classes, less its event filter."""

_STATES = {"Down": "0", "Ring": "4", "Ringing": "5", "Up": "6"}
_UNKNOWN = {"line": "<unknown>", "line_name": "<unknown>", "CTI_CALL": "", "CTI_DID": ""}

ROLES: dict[str, dict[str, str]] = {
    "caller": {
        "channel": "{caller}",
        "id": "{call}",
        "state": "Ring",
        "num": "{ani}",
        "name": "{ani_name}",
        "context": "from-trunk",
        "exten": "{did}",
        "priority": "1",
        **_UNKNOWN,
    },
    "agent": {
        "channel": "{agent}",
        "id": "{leg}",
        "state": "Down",
        "num": "{extension}",
        "name": "{agent_name}",
        "context": "from-agent",
        "exten": "s",
        "priority": "1",
        **_UNKNOWN,
    },
    "phone": {
        "channel": "{agent}",
        "id": "{call}",
        "state": "Down",
        "num": "{extension}",
        "name": "{agent_name}",
        "context": "from-agent",
        "exten": "s",
        "priority": "1",
        **_UNKNOWN,
    },
    "customer": {
        "channel": "{customer}",
        "id": "{leg}",
        "state": "Down",
        "num": "<unknown>",
        "name": "<unknown>",
        "context": "from-trunk",
        "exten": "s",
        "priority": "1",
        **_UNKNOWN,
    },
}
"""Who has a channel in a call, and how it looks when it appears. `phone` is an agent's phone that begins a call."""


def is_lean(name: str) -> bool:
    """Whether the filtered user hears this event."""
    privilege, _ = SHAPES[name]
    return privilege in LEAN_CLASSES and LEAN_DROPPED.match(name) is None


def channel_headers(channel: Mapping[str, str], prefix: str = "") -> list[tuple[str, str]]:
    """The headers by which Asterisk describes a channel, in its order."""
    return [
        (prefix + name, value)
        for name, value in (
            ("Channel", channel["channel"]),
            ("ChannelState", _STATES[channel["state"]]),
            ("ChannelStateDesc", channel["state"]),
            ("CallerIDNum", channel["num"]),
            ("CallerIDName", channel["name"]),
            ("ConnectedLineNum", channel["line"]),
            ("ConnectedLineName", channel["line_name"]),
            ("Language", "en"),
            ("AccountCode", ""),
            ("Context", channel["context"]),
            ("Exten", channel["exten"]),
            ("Priority", channel["priority"]),
            ("Uniqueid", channel["id"]),
            ("Linkedid", "{call}"),
            ("ChanVariable", "CTI_CALL=" + channel["CTI_CALL"]),
            ("ChanVariable", "CTI_DID=" + channel["CTI_DID"]),
        )
    ]


def message(headers: list[tuple[str, str]]) -> bytes:
    """One AMI message."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode() + b"\r\n"


_PLACE = re.compile(rb"\{([a-z_]+)\}")


def template(raw: bytes) -> bytes:
    """Turns `{name}` into what bytes formatting fills in; everything else stays."""
    return _PLACE.sub(rb"%(\1)b", raw.replace(b"%", b"%%"))


@dataclass(frozen=True, slots=True)
class Step:
    """Events that Asterisk sends in one go. They carry one Timestamp, while Asterisk's own are microseconds apart."""

    full: bytes
    lean: bytes
    events: int
    lean_events: int

    @classmethod
    def of(cls, script: str) -> Step:
        """Compiles a script. Raises KeyError for a name, and ValueError for values, that are not known."""
        channels = {role: dict(first) for role, first in ROLES.items()}
        full: list[bytes] = []
        lean: list[bytes] = []
        for line in filter(None, map(str.strip, script.splitlines())):
            head, *values = (line + " " if line.endswith("|") else line).split(" | ")
            if head.startswith("= "):
                _, role, first = head.split(" ", 2)
                for setting in (first, *values):
                    key, _, value = setting.partition("=")
                    channels[role][key] = value
                continue
            raw = template(_event(head, values, channels))
            full.append(raw)
            if is_lean(head.split(" ")[0]):
                lean.append(raw)
        return cls(b"".join(full), b"".join(lean), len(full), len(lean))


def _event(head: str, values: list[str], channels: dict[str, dict[str, str]]) -> bytes:
    name, *roles = head.split(" ")
    privilege, own = SHAPES[name]
    if len(values) > len(own):
        raise ValueError(f"{name} has no more than {len(own)} headers of its own")
    mine = list(zip(own, values, strict=False))
    shown: list[tuple[str, str]] = []
    for prefix, role in zip(("", "Dest"), roles, strict=False):
        if role != "-":
            shown += channel_headers(channels[role], prefix)
    first = [("Event", name), ("Privilege", f"{privilege},all"), ("Timestamp", "{t}")]
    return message([*first, *mine, *shown] if name in _BRIDGE_FIRST else [*first, *shown, *mine])
