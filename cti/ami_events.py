"""AMI events at the door: the one file that knows Asterisk's field names.

`PARSERS` turns a whole raw message (CRLF lines, no final blank line) into a frozen record, or None where it holds
nothing for us. Every value is text checked here; a record's ids are Asterisk's own (`uniqueid`, `linkedid`), times are
Unix seconds from the event's `Timestamp` (0.0 where the PBX does not send any: the link then stamps it).

Event names, headers and their quirks are those of Asterisk 16 to 22, as recorded in tests/traces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from cti.frozen import Frozen

Parser = Callable[[bytes], object | None]


class ChannelState(StrEnum):
    """`ChannelStateDesc`; those a channel can be seen in."""

    DOWN = "Down"
    RESERVED = "Rsrvd"
    OFF_HOOK = "OffHook"
    DIALING = "Dialing"
    RING = "Ring"
    RINGING = "Ringing"
    UP = "Up"
    BUSY = "Busy"
    DIALING_OFF_HOOK = "Dialing Offhook"
    PRE_RING = "Pre-ring"
    UNKNOWN = "Unknown"


class Record(Frozen, frozen=True, gc=False):
    """What one AMI message said. `at`: Unix seconds."""

    at: float


class ChannelRecord(Record, frozen=True, gc=False):
    """A record about one channel."""

    uniqueid: str
    linkedid: str


class ChannelAppeared(ChannelRecord, frozen=True, gc=False):
    """AMI: Newchannel."""

    channel: str
    state: ChannelState
    number: str | None
    name: str | None
    exten: str
    context: str
    variables: dict[str, str]


class ChannelStateChanged(ChannelRecord, frozen=True, gc=False):
    """AMI: Newstate."""

    state: ChannelState


class ChannelGone(ChannelRecord, frozen=True, gc=False):
    """AMI: Hangup. `cause`: Q.850, 0 when Asterisk does not know."""

    cause: int


class HangupRequested(ChannelRecord, frozen=True, gc=False):
    """AMI: HangupRequest (the far end hung up), SoftHangupRequest (the PBX will hang it up)."""


class CallerIdChanged(ChannelRecord, frozen=True, gc=False):
    """AMI: NewCallerid."""

    number: str | None
    name: str | None


class ChannelRenamed(Record, frozen=True, gc=False):
    """AMI: Rename (a masquerade). The uniqueid stays."""

    uniqueid: str
    channel: str


class LocalPaired(Record, frozen=True, gc=False):
    """AMI: LocalBridge. The two halves of a Local channel."""

    one: str
    two: str


class DialBegun(Record, frozen=True, gc=False):
    """AMI: DialBegin. `dialler` is None for a leg made by Originate; `number` is what is sent to a carrier."""

    dialler: str | None
    dialled: str
    number: str | None = None


class DialProgressed(Record, frozen=True, gc=False):
    """AMI: DialState. `status`: RINGING, PROGRESS, PROCEEDING..."""

    dialled: str
    status: str


class DialEnded(Record, frozen=True, gc=False):
    """AMI: DialEnd. `status`: ANSWER, BUSY, NOANSWER, CANCEL, CONGESTION, CHANUNAVAIL, ABORT..."""

    dialler: str | None
    dialled: str
    status: str


class BridgeEntered(ChannelRecord, frozen=True, gc=False):
    """AMI: BridgeEnter. `technology`: simple_bridge, softmix, holding_bridge (nobody hears anybody)... `kind`: basic (a
    talk, whose parties get one Linkedid), base (a room that calls share without becoming one), parking."""

    bridge: str
    technology: str
    kind: str = "basic"


class BridgeLeft(ChannelRecord, frozen=True, gc=False):
    """AMI: BridgeLeave."""

    bridge: str


class BridgeGone(Record, frozen=True, gc=False):
    """AMI: BridgeDestroy."""

    bridge: str


class PhoneHeld(ChannelRecord, frozen=True, gc=False):
    """AMI: Hold (`on`) and Unhold."""

    on: bool


class MusicChanged(ChannelRecord, frozen=True, gc=False):
    """AMI: MusicOnHoldStart (`on`) and MusicOnHoldStop."""

    on: bool


class CallerJoinedQueue(ChannelRecord, frozen=True, gc=False):
    """AMI: QueueCallerJoin."""

    queue: str
    position: int
    variables: dict[str, str]


class CallerLeftQueue(ChannelRecord, frozen=True, gc=False):
    """AMI: QueueCallerLeave."""

    queue: str


class CallerGaveUpQueue(ChannelRecord, frozen=True, gc=False):
    """AMI: QueueCallerAbandon: the caller hung up OR the queue timed out; what follows tells."""

    queue: str


class QueueOutcome(ChannelRecord, frozen=True, gc=False):
    """UserEvent CtiQueueLeft from the dialplan. `status`: Asterisk's QUEUESTATUS (TIMEOUT, FULL, JOINEMPTY...)."""

    status: str


class MemberCalled(ChannelRecord, frozen=True, gc=False):
    """AMI: AgentCalled: the queue rings a member. `uniqueid` is the caller's, `dialled` the member's leg."""

    dialled: str
    queue: str
    interface: str


class MemberConnected(ChannelRecord, frozen=True, gc=False):
    """AMI: AgentConnect. `uniqueid` is the caller's, `dialled` the member's leg."""

    dialled: str
    queue: str
    interface: str


class MemberDidNotAnswer(ChannelRecord, frozen=True, gc=False):
    """AMI: AgentRingNoAnswer. Also sent for a busy member."""

    dialled: str
    queue: str
    interface: str


class MemberStatus(StrEnum):
    """Asterisk's device states, as a queue member has them."""

    UNKNOWN = "unknown"
    NOT_IN_USE = "not_in_use"
    IN_USE = "in_use"
    BUSY = "busy"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"
    RINGING = "ringing"
    RING_IN_USE = "ring_in_use"
    ON_HOLD = "on_hold"


_MEMBER_STATUS = tuple(MemberStatus)


class MemberSeen(Record, frozen=True, gc=False):
    """A queue member as Asterisk has it. AMI: QueueMemberAdded, -Status, -Pause, -Penalty, and QueueStatus rows."""

    queue: str
    interface: str
    name: str
    penalty: int
    paused: bool
    pause_reason: str | None
    status: MemberStatus
    state_interface: str


class MemberRemoved(Record, frozen=True, gc=False):
    """AMI: QueueMemberRemoved."""

    queue: str
    interface: str


class BlindlyTransferred(Record, frozen=True, gc=False):
    """AMI: BlindTransfer, when it succeeded. `transferee` is None where a whole bridge was sent on."""

    transferer: str
    transferee: str | None
    exten: str


class TransferCompleted(Record, frozen=True, gc=False):
    """AMI: AttendedTransfer, when it succeeded. Uniqueids; `target` is None on Asterisk 16."""

    transferer: str
    second_transferer: str
    transferee: str | None
    target: str | None


class CallParked(ChannelRecord, frozen=True, gc=False):
    """AMI: ParkedCall."""

    lot: str
    slot: str


class CallUnparked(ChannelRecord, frozen=True, gc=False):
    """AMI: UnParkedCall, ParkedCallTimeOut, ParkedCallGiveUp, ParkedCallSwap. `reason`: retrieved, timed_out, given_up."""

    slot: str
    reason: str
    retriever: str | None


class ConferenceJoined(ChannelRecord, frozen=True, gc=False):
    """AMI: ConfbridgeJoin."""

    room: str


class ConferenceLeft(ChannelRecord, frozen=True, gc=False):
    """AMI: ConfbridgeLeave."""

    room: str


class PartyMuted(ChannelRecord, frozen=True, gc=False):
    """AMI: ConfbridgeMute (`on`) and ConfbridgeUnmute: whether the others of a conference hear this channel."""

    on: bool


class DataCollected(ChannelRecord, frozen=True, gc=False):
    """UserEvent CtiData from the dialplan: what an IVR collected. All its own headers, names as written there."""

    values: dict[str, str]


class PromiseAsked(ChannelRecord, frozen=True, gc=False):
    """UserEvent CtiPromise from the dialplan: a caller who waits wants to be called back when it is quiet, at this number,
    `within` seconds at the latest. `ask`: number of the question on this channel; the answer is a variable of it."""

    channel: str
    ask: str
    number: str
    queue: str
    within: int
    priority: int


class VoicemailEnded(ChannelRecord, frozen=True, gc=False):
    """UserEvent CtiVoicemail from the dialplan: the caller is through with the voicemail. `status`: Asterisk's VMSTATUS
    (SUCCESS, USEREXIT, FAILED)."""

    mailbox: str
    status: str


class MailboxChanged(Record, frozen=True, gc=False):
    """AMI: MessageWaiting: messages in a mailbox, `100@default`, not yet heard and heard."""

    mailbox: str
    new: int
    old: int


class RouteAsked(ChannelRecord, frozen=True, gc=False):
    """UserEvent CtiRoute from the dialplan: a call at its entry asks where to go. `ask`: number of the question on this
    channel; the answer is a variable of it. `dialed`, `caller`: as received."""

    channel: str
    ask: str
    dialed: str
    caller: str


class DialerTold(ChannelRecord, frozen=True, gc=False):
    """UserEvents CtiAmd and CtiDialer from the dialplan: how a customer whom the dialer has called fares. `what`: amd
    (`value`: Asterisk's AMDSTATUS, or FAX; `cause`: its AMDCAUSE), waiting (for an agent), message (is played now),
    no_message (its sound is not there), opt_out (key pressed); of a machine that is to hear a message: greeting (its
    end is waited for), no_pause (there was none), left (`value`: PLAYBACKSTATUS). sound: whether a sound is there
    (`value`: PLAYBACKSTATUS)."""

    what: str
    value: str
    cause: str = ""


class OriginateEnded(Record, frozen=True, gc=False):
    """AMI: OriginateResponse."""

    action_id: str
    uniqueid: str
    success: bool
    reason: int


class SpyStarted(Record, frozen=True, gc=False):
    """AMI: ChanSpyStart. `spyer` hears `spied` from now on; uniqueids, `channel` is the spyer's name."""

    spyer: str
    spied: str
    channel: str


class ConfigurationReloaded(Record, frozen=True, gc=False):
    """AMI: Reload: queues may have come or gone."""

    module: str


# ------------------------------------------------------------------------------------------------ rows of lists


class ChannelRow(Frozen, frozen=True, gc=False):
    """A row of CoreShowChannels. `age`: seconds since the channel was made; `data`: the application's arguments."""

    uniqueid: str
    linkedid: str
    channel: str
    state: ChannelState
    number: str | None
    name: str | None
    exten: str
    context: str
    application: str
    bridge: str | None
    age: int
    variables: dict[str, str]
    data: str = ""


class QueueRow(Frozen, frozen=True, gc=False):
    """A queue as QueueStatus lists it."""

    queue: str
    strategy: str


class WaitingRow(Frozen, frozen=True, gc=False):
    """A caller as QueueStatus lists them. `waited`: whole seconds."""

    queue: str
    uniqueid: str
    position: int
    waited: int


class ParkedRow(Frozen, frozen=True, gc=False):
    """A parked call as ParkedCalls lists it."""

    uniqueid: str
    lot: str
    slot: str


# ------------------------------------------------------------------------------------------------ reading headers

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def unescape(value: str) -> str:
    r"""Undoes the C escapes that Asterisk puts into names and variables of events: `O\'Neil` → `O'Neil`."""
    if "\\" not in value:
        return value
    return _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), value)


def _text(value: str | None) -> str | None:
    """None for what Asterisk writes when there is nothing."""
    if value is None or value in {"", "<unknown>", "unknown"}:
        return None
    return unescape(value)


def _number(value: str | None, default: int = 0) -> int:
    try:
        return int(value) if value else default
    except ValueError:
        return default


def _at(fields: Mapping[str, str]) -> float:
    try:
        return float(fields["Timestamp"])
    except (KeyError, ValueError):
        return 0.0


def _state(fields: Mapping[str, str]) -> ChannelState:
    try:
        return ChannelState(fields.get("ChannelStateDesc", "Unknown"))
    except ValueError:
        return ChannelState.UNKNOWN


def _status(value: str | None) -> MemberStatus:
    index = _number(value)
    return _MEMBER_STATUS[index] if 0 <= index < len(_MEMBER_STATUS) else MemberStatus.UNKNOWN


Fields = dict[str, str]
Read = Callable[[bytes], Fields]


def _reader(*names: str) -> Read:
    """Returns a function that reads these headers and the Timestamp, and no others, out of a raw message.

    Each is looked for among the bytes from where the last one was found, since most come in this order, and then from
    the start: that costs less than one expression over all of the text.
    """
    marks = tuple((name, f"\r\n{name}: ".encode(), len(name) + 4) for name in ("Timestamp", *names))

    def read(raw: bytes) -> Fields:
        found: Fields = {}
        find = raw.find
        end = 0
        for name, mark, size in marks:
            start = find(mark, end)
            if start < 0 and (start := find(mark)) < 0:
                continue
            start += size
            end = find(b"\r\n", start)
            if end < 0:
                end = len(raw)
            found[name] = raw[start:end].decode("utf-8", "replace")
        return found

    return read


_VARIABLE = re.compile(r"\r\nChanVariable(?:\([^)\r\n]*\))?: ([^=\r\n]+)=([^\r\n]*)")


def _variables(raw: bytes) -> dict[str, str]:
    """The channel's variables that ride on events (manager.conf: channelvars), empty ones left out."""
    if b"\r\nChanVariable" not in raw:
        return {}
    found = _VARIABLE.findall(raw.decode("utf-8", "replace"))
    return {name: unescape(value) for name, value in found if value}


def fields_of(raw: bytes) -> Fields:
    """All headers of a raw message by name; of a repeated one the first."""
    result: Fields = {}
    for line in raw.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            result.setdefault(name, value.lstrip(" "))
    return result


# ------------------------------------------------------------------------------------------------ parsers

_OWN = ("Uniqueid", "Linkedid")


def _newchannel(read: Read) -> Parser:
    def parse(raw: bytes) -> Record | None:
        f = read(raw)
        return ChannelAppeared(
            _at(f),
            f["Uniqueid"],
            f["Linkedid"],
            f["Channel"],
            _state(f),
            _text(f.get("CallerIDNum")),
            _text(f.get("CallerIDName")),
            f.get("Exten", ""),
            f.get("Context", ""),
            _variables(raw),
        )

    return parse


def _of(names: Iterable[str], make: Callable[[float, Fields], Record | None]) -> Parser:
    read = _reader(*names)

    def parse(raw: bytes) -> Record | None:
        f = read(raw)
        return make(_at(f), f)

    return parse


def _own(make: Callable[..., Record], *names: str) -> Parser:
    """A parser for records that are the channel's two ids and then these headers, as text."""
    read = _reader(*_OWN, *names)

    def parse(raw: bytes) -> Record:
        f = read(raw)
        return make(_at(f), f["Uniqueid"], f["Linkedid"], *[f.get(name, "") for name in names])

    return parse


def _switch(make: Callable[[float, str, str, bool], Record], on: bool) -> Parser:
    read = _reader(*_OWN)

    def parse(raw: bytes) -> Record:
        f = read(raw)
        return make(_at(f), f["Uniqueid"], f["Linkedid"], on)

    return parse


_MEMBER = (
    "Queue",
    "Interface",
    "Location",
    "MemberName",
    "Name",
    "StateInterface",
    "Penalty",
    "Status",
    "Paused",
    "PausedReason",
    "Reason",
)


def _member(at: float, f: Fields) -> MemberSeen:
    interface = f.get("Interface") or f["Location"]
    return MemberSeen(
        at,
        f["Queue"],
        interface,
        f.get("MemberName") or f.get("Name") or interface,
        _number(f.get("Penalty")),
        f.get("Paused") == "1",
        _text(f.get("PausedReason") or f.get("Reason")),
        _status(f.get("Status")),
        f.get("StateInterface") or interface,
    )


def _blind(at: float, f: Fields) -> Record | None:
    if f.get("Result") != "Success" or "TransfererUniqueid" not in f:
        return None
    return BlindlyTransferred(
        at, f["TransfererUniqueid"], f.get("TransfereeUniqueid"), f.get("Extension", "")
    )


def _attended(at: float, f: Fields) -> Record | None:
    if f.get("Result") != "Success" or "OrigTransfererUniqueid" not in f:
        return None
    return TransferCompleted(
        at,
        f["OrigTransfererUniqueid"],
        f.get("SecondTransfererUniqueid", ""),
        f.get("TransfereeUniqueid"),
        f.get("TransferTargetUniqueid"),
    )


def _parked(at: float, f: Fields) -> Record | None:
    if "ActionID" in f:  # a row of the ParkedCalls list
        return None
    return CallParked(
        at,
        f["ParkeeUniqueid"],
        f["ParkeeLinkedid"],
        f.get("Parkinglot", "default"),
        f.get("ParkingSpace", ""),
    )


def _unparked(reason: str) -> Parser:
    def make(at: float, f: Fields) -> Record:
        return CallUnparked(
            at,
            f["ParkeeUniqueid"],
            f["ParkeeLinkedid"],
            f.get("ParkingSpace", ""),
            reason,
            f.get("RetrieverUniqueid"),
        )

    return _of(("ParkeeUniqueid", "ParkeeLinkedid", "ParkingSpace", "RetrieverUniqueid"), make)


_USER_EVENT = re.compile(rb"\r\nUserEvent: ?([^\r\n]*)")
_CHANNEL_HEADERS = frozenset(
    {
        *(
            "Event",
            "Privilege",
            "SequenceNumber",
            "File",
            "Line",
            "Func",
            "Timestamp",
            "SystemName",
            "UserEvent",
        ),
        *("Channel", "ChannelState", "ChannelStateDesc", "CallerIDNum", "CallerIDName", "ConnectedLineNum"),
        *(
            "ConnectedLineName",
            "Language",
            "AccountCode",
            "Context",
            "Exten",
            "Priority",
            "Uniqueid",
            "Linkedid",
        ),
        *("ChanVariable", "ActionID"),
    }
)
_DATA_LIMIT = 50
_OUR_USER_EVENTS = frozenset(
    {b"CtiData", b"CtiQueueLeft", b"CtiRoute", b"CtiPromise", b"CtiVoicemail", b"CtiAmd", b"CtiDialer"}
)


def _user_event(raw: bytes) -> Record | None:
    named = _USER_EVENT.search(raw)
    if named is None or named[1] not in _OUR_USER_EVENTS:
        return None
    f = fields_of(raw)
    uniqueid = f.get("Uniqueid")
    if uniqueid is None:  # made by an AMI action, not by a channel
        return None
    if named[1] == b"CtiData":
        values = {n: unescape(v) for n, v in f.items() if n not in _CHANNEL_HEADERS and "(" not in n}
        kept = dict(list(values.items())[:_DATA_LIMIT])
        return DataCollected(_at(f), uniqueid, f.get("Linkedid", uniqueid), kept) if kept else None
    if named[1] == b"CtiRoute":
        ask = f.get("Ask", "")
        if not (ask.isdecimal() and len(ask) <= 4 and "Channel" in f):
            return None
        asked = (f["Channel"], ask, unescape(f.get("Dialed", ""))[:64], unescape(f.get("Caller", ""))[:64])
        return RouteAsked(_at(f), uniqueid, f.get("Linkedid", uniqueid), *asked)
    if named[1] == b"CtiAmd":
        said, cause = f.get("Status", "")[:32], f.get("AmdCause", "")[:60]
        return DialerTold(_at(f), uniqueid, f.get("Linkedid", uniqueid), "amd", said, cause)
    if named[1] == b"CtiDialer":
        linkedid, what = f.get("Linkedid", uniqueid), f.get("Is", "")[:32]
        return DialerTold(_at(f), uniqueid, linkedid, what, f.get("Value", "")[:32])
    if named[1] == b"CtiPromise":
        return _promise(f, uniqueid)
    if named[1] == b"CtiVoicemail":
        box, status = unescape(f.get("Mailbox", ""))[:80], f.get("Status", "")[:32]
        return VoicemailEnded(_at(f), uniqueid, f.get("Linkedid", uniqueid), box, status)
    return QueueOutcome(_at(f), uniqueid, f.get("Linkedid", uniqueid), f.get("Status", ""))


def _promise(f: Fields, uniqueid: str) -> Record | None:
    ask, number, within = f.get("Ask", ""), f.get("Number", ""), f.get("Within", "")
    if not (ask.isdecimal() and len(ask) <= 4 and "Channel" in f and within.isdecimal() and len(within) <= 6):
        return None
    return PromiseAsked(
        _at(f),
        uniqueid,
        f.get("Linkedid", uniqueid),
        f["Channel"],
        ask,
        unescape(number)[:40],
        f.get("Queue", "")[:80],
        int(within),
        min(_number(f.get("Prio"), 0), 1000),
    )


def _queue_join(read: Read) -> Parser:
    def parse(raw: bytes) -> Record:
        f = read(raw)
        position = _number(f.get("Position"), 1)
        return CallerJoinedQueue(_at(f), f["Uniqueid"], f["Linkedid"], f["Queue"], position, _variables(raw))

    return parse


def _originate_ended(at: float, f: Fields) -> Record:
    return OriginateEnded(
        at,
        f.get("ActionID", ""),
        f.get("Uniqueid", ""),
        f.get("Response") == "Success",
        _number(f.get("Reason")),
    )


def _local(at: float, f: Fields) -> Record:
    return LocalPaired(at, f["LocalOneUniqueid"], f["LocalTwoUniqueid"])


_DIALLED = re.compile(r"(?:^|[/:])(\+?[0-9*#]+)@")


def _dial_begin(at: float, f: Fields) -> Record:
    number = _DIALLED.search(f.get("DialString", ""))  # 15550001@carrier, carrier/sip:15550001@host
    return DialBegun(at, f.get("Uniqueid"), f["DestUniqueid"], number[1] if number else None)


def _hangup(at: float, f: Fields) -> Record:
    return ChannelGone(at, f["Uniqueid"], f["Linkedid"], _number(f.get("Cause")))


def _newstate(at: float, f: Fields) -> Record:
    return ChannelStateChanged(at, f["Uniqueid"], f["Linkedid"], _state(f))


def _callerid(at: float, f: Fields) -> Record:
    number, name = _text(f.get("CallerIDNum")), _text(f.get("CallerIDName"))
    return CallerIdChanged(at, f["Uniqueid"], f["Linkedid"], number, name)


_MEMBER_LEG = ("DestUniqueid", "Queue", "Interface")

PARSERS: dict[bytes, Parser] = {
    b"Newchannel": _newchannel(
        _reader(*_OWN, "Channel", "ChannelStateDesc", "CallerIDNum", "CallerIDName", "Exten", "Context")
    ),
    b"Newstate": _of((*_OWN, "ChannelStateDesc"), _newstate),
    b"Hangup": _of((*_OWN, "Cause"), _hangup),
    b"HangupRequest": _own(HangupRequested),
    b"SoftHangupRequest": _own(HangupRequested),
    b"NewCallerid": _of((*_OWN, "CallerIDNum", "CallerIDName"), _callerid),
    b"Rename": _of(("Uniqueid", "Newname"), lambda at, f: ChannelRenamed(at, f["Uniqueid"], f["Newname"])),
    b"LocalBridge": _of(("LocalOneUniqueid", "LocalTwoUniqueid"), _local),
    b"DialBegin": _of(("Uniqueid", "DestUniqueid", "DialString"), _dial_begin),
    b"DialState": _of(
        ("DestUniqueid", "DialStatus"),
        lambda at, f: DialProgressed(at, f["DestUniqueid"], f.get("DialStatus", "")),
    ),
    b"DialEnd": _of(
        ("Uniqueid", "DestUniqueid", "DialStatus"),
        lambda at, f: DialEnded(at, f.get("Uniqueid"), f["DestUniqueid"], f.get("DialStatus", "")),
    ),
    b"BridgeEnter": _own(BridgeEntered, "BridgeUniqueid", "BridgeTechnology", "BridgeType"),
    b"BridgeLeave": _own(BridgeLeft, "BridgeUniqueid"),
    b"BridgeDestroy": _of(("BridgeUniqueid",), lambda at, f: BridgeGone(at, f["BridgeUniqueid"])),
    b"Hold": _switch(PhoneHeld, True),
    b"Unhold": _switch(PhoneHeld, False),
    b"MusicOnHoldStart": _switch(MusicChanged, True),
    b"MusicOnHoldStop": _switch(MusicChanged, False),
    b"QueueCallerJoin": _queue_join(_reader(*_OWN, "Queue", "Position")),
    b"QueueCallerLeave": _own(CallerLeftQueue, "Queue"),
    b"QueueCallerAbandon": _own(CallerGaveUpQueue, "Queue"),
    b"AgentCalled": _own(MemberCalled, *_MEMBER_LEG),
    b"AgentConnect": _own(MemberConnected, *_MEMBER_LEG),
    b"AgentRingNoAnswer": _own(MemberDidNotAnswer, *_MEMBER_LEG),
    b"QueueMemberAdded": _of(_MEMBER, _member),
    b"QueueMemberStatus": _of(_MEMBER, _member),
    b"QueueMemberPause": _of(_MEMBER, _member),
    b"QueueMemberPenalty": _of(_MEMBER, _member),
    b"QueueMemberRemoved": _of(
        ("Queue", "Interface"), lambda at, f: MemberRemoved(at, f["Queue"], f["Interface"])
    ),
    b"BlindTransfer": _of(("Result", "TransfererUniqueid", "TransfereeUniqueid", "Extension"), _blind),
    b"AttendedTransfer": _of(
        (
            "Result",
            "OrigTransfererUniqueid",
            "SecondTransfererUniqueid",
            "TransfereeUniqueid",
            "TransferTargetUniqueid",
        ),
        _attended,
    ),
    b"ParkedCall": _of(
        ("ActionID", "ParkeeUniqueid", "ParkeeLinkedid", "Parkinglot", "ParkingSpace"), _parked
    ),
    b"UnParkedCall": _unparked("retrieved"),
    b"ParkedCallSwap": _unparked("retrieved"),
    b"ParkedCallTimeOut": _unparked("timed_out"),
    b"ParkedCallGiveUp": _unparked("given_up"),
    b"ConfbridgeJoin": _own(ConferenceJoined, "Conference"),
    b"ConfbridgeLeave": _own(ConferenceLeft, "Conference"),
    b"ConfbridgeMute": _switch(PartyMuted, True),
    b"ConfbridgeUnmute": _switch(PartyMuted, False),
    b"UserEvent": _user_event,
    b"MessageWaiting": _of(
        ("Mailbox", "New", "Old"),
        lambda at, f: MailboxChanged(
            at, unescape(f["Mailbox"])[:80], _number(f.get("New"), 0), _number(f.get("Old"), 0)
        ),
    ),
    b"OriginateResponse": _of(("ActionID", "Uniqueid", "Response", "Reason"), _originate_ended),
    b"ChanSpyStart": _of(
        ("SpyerUniqueid", "SpyeeUniqueid", "SpyerChannel"),
        lambda at, f: SpyStarted(
            at, f["SpyerUniqueid"], f.get("SpyeeUniqueid", ""), f.get("SpyerChannel", "")
        ),
    ),
    b"Reload": _of(("Module",), lambda at, f: ConfigurationReloaded(at, f.get("Module", ""))),
}


# ------------------------------------------------------------------------------------------------ list rows


def _age(duration: str) -> int:
    """Seconds of `HH:MM:SS`."""
    total = 0
    for part in duration.split(":"):
        total = total * 60 + _number(part)
    return total


def channel_rows(rows: Iterable[bytes]) -> list[ChannelRow]:
    """The answer to CoreShowChannels."""
    result = []
    for raw in rows:
        f = fields_of(raw)
        if f.get("Event") != "CoreShowChannel":
            continue
        result.append(
            ChannelRow(
                f["Uniqueid"],
                f["Linkedid"],
                f["Channel"],
                _state(f),
                _text(f.get("CallerIDNum")),
                _text(f.get("CallerIDName")),
                f.get("Exten", ""),
                f.get("Context", ""),
                f.get("Application", ""),
                f.get("BridgeId") or None,
                _age(f.get("Duration", "")),
                _variables(raw),
                f.get("ApplicationData", ""),
            )
        )
    return result


def queue_rows(rows: Iterable[bytes]) -> tuple[list[QueueRow], list[MemberSeen], list[WaitingRow]]:
    """The answer to QueueStatus: queues, their members, their callers."""
    queues, members, waiting = [], [], []
    for raw in rows:
        f = fields_of(raw)
        match f.get("Event"):
            case "QueueParams":
                queues.append(QueueRow(f["Queue"], f.get("Strategy", "")))
            case "QueueMember":
                members.append(_member(0.0, f))
            case "QueueEntry":
                waiting.append(
                    WaitingRow(
                        f["Queue"], f["Uniqueid"], _number(f.get("Position"), 1), _number(f.get("Wait"))
                    )
                )
    return queues, members, waiting


def parked_rows(rows: Iterable[bytes]) -> list[ParkedRow]:
    """The answer to ParkedCalls."""
    result = []
    for raw in rows:
        f = fields_of(raw)
        if f.get("Event") == "ParkedCall":
            result.append(
                ParkedRow(f["ParkeeUniqueid"], f.get("Parkinglot", "default"), f.get("ParkingSpace", ""))
            )
    return result


def technology(channel: str) -> str:
    """`PJSIP/1001-0000002a` → `PJSIP`."""
    return channel.partition("/")[0]


_NUMBERED = re.compile(r"(?:.+-)?[0-9]+\.[0-9]+")


def made_by_originate(uniqueid: str) -> bool:
    """Whether a channel has its id from an Originate's ChannelId, not from Asterisk (`<system>-<seconds>.<number>`)."""
    return _NUMBERED.fullmatch(uniqueid) is None


_LOCAL = re.compile(r"-[0-9a-f]{8,};[12]$")


def device_of_channel(channel: str) -> str:
    """The device a channel belongs to: `PJSIP/trunk-de-0000002a` → `PJSIP/trunk-de`, `Local/1@x-0000;1` → `Local/1@x`."""
    if channel.startswith("Local/"):
        return _LOCAL.sub("", channel).removesuffix("/n")
    head, dash, _ = channel.rpartition("-")
    return head if dash else channel


def other_half(channel: str) -> str | None:
    """The name of a Local channel's other half, None for any other channel."""
    if channel.startswith("Local/") and channel[-2:] in {";1", ";2"}:
        return channel[:-1] + ("2" if channel.endswith("1") else "1")
    return None
