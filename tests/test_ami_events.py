"""The door: AMI messages into records. Every event of the recordings parses; odd values come through whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from cti.ami_events import (
    PARSERS,
    BridgeEntered,
    CallerGaveUpQueue,
    CallerIdChanged,
    CallerJoinedQueue,
    CallParked,
    ChannelAppeared,
    ChannelGone,
    ChannelState,
    ChannelStateChanged,
    DataCollected,
    DialBegun,
    DialEnded,
    MemberSeen,
    MemberStatus,
    OriginateEnded,
    QueueOutcome,
    Record,
    TransferCompleted,
    channel_rows,
    device_of_channel,
    fields_of,
    made_by_originate,
    other_half,
    parked_rows,
    queue_rows,
    technology,
    unescape,
)
from tests.recorded import FOLDER, messages

TRACES = sorted(path.stem for path in (FOLDER / "22").glob("*.txt"))


def message(event: str, *lines: str, encoding: str = "utf-8") -> bytes:
    return "\r\n".join(
        [f"Event: {event}", "Privilege: call,all", "Timestamp: 1795288748.461580", *lines]
    ).encode(encoding)


def parse(raw: bytes) -> Any:
    return PARSERS[raw[7:].split(b"\r\n", 1)[0]](raw)


CHANNEL = (
    "Channel: PJSIP/trunk-00000001",
    "ChannelState: 4",
    "ChannelStateDesc: Ring",
    "CallerIDNum: 15551234567",
    "CallerIDName: Ada",
    "Exten: 5550100",
    "Context: from-trunk",
    "Uniqueid: 1.1",
    "Linkedid: 1.1",
)


def newchannel(*lines: str, without: str = "", encoding: str = "utf-8", **changed: str) -> bytes:
    kept = [line for line in CHANNEL if not (without and line.startswith(without + ":"))]
    kept = [f"{name}: {changed[name]}" if (name := line.split(":")[0]) in changed else line for line in kept]
    return message("Newchannel", *kept, *lines, encoding=encoding)


# ------------------------------------------------------------------------------------------------ recordings


def test_a_supervisor_begins_to_listen() -> None:
    spies = [parse(raw) for raw in messages("22_chanspy") if raw.startswith(b"Event: ChanSpyStart")]
    assert [spy.spyer for spy in spies[:3]] == ["spy-listen", "spy-whisper", "spy-barge"]
    assert all(spy.spied and spy.channel.startswith("Local/") for spy in spies)


@pytest.mark.parametrize("name", TRACES)
def test_every_recorded_event_parses(name: str) -> None:
    for raw in messages(name):
        event = raw[7:].split(b"\r\n", 1)[0] if raw.startswith(b"Event: ") else b""
        if event not in PARSERS:
            continue
        record = PARSERS[event](raw)
        if record is None:
            assert event in {b"UserEvent", b"BlindTransfer", b"AttendedTransfer", b"ParkedCall"}
            continue
        assert isinstance(record, Record)
        assert record.at > 1_700_000_000
        texts = [getattr(record, field.name) for field in fields(record)]
        assert not [text for text in texts if isinstance(text, str) and ("\r" in text or "<unknown>" in text)]


def test_recordings_have_an_event_for_nearly_every_parser() -> None:
    seen = {
        raw[7:].split(b"\r\n", 1)[0]
        for name in TRACES
        for raw in messages(name)
        if raw.startswith(b"Event: ")
    }
    assert PARSERS.keys() - seen <= {b"Rename", b"ParkedCallSwap", b"MessageWaiting"}, (
        "a masquerade, a parking swap and a voicemail are not recorded"
    )


def said_by_dialplan(name: str, *headers: str) -> bytes:
    return "\r\n".join(("Event: UserEvent", *CHANNEL, f"UserEvent: {name}", *headers)).encode()


def test_voicemail_and_promises_are_read_and_nonsense_is_not() -> None:
    told = parse(b"Event: MessageWaiting\r\nMailbox: 100@default\r\nWaiting: 1\r\nNew: 2\r\nOld: 1")
    assert (told.mailbox, told.new, told.old) == ("100@default", 2, 1)
    left = parse(said_by_dialplan("CtiVoicemail", "Mailbox: 100@default", "Status: SUCCESS"))
    assert (left.mailbox, left.status) == ("100@default", "SUCCESS")
    wanted = ("Ask: 2", "Number: +447700900121", "Queue: sales", "Within: 600", "Prio: 7")
    asked = parse(said_by_dialplan("CtiPromise", *wanted))
    assert (asked.ask, asked.number, asked.queue, asked.within, asked.priority) == (
        *("2", "+447700900121", "sales"),
        *(600, 7),
    )
    for wrong in ("Ask: x", "Ask: 12345", "Within: -1", "Within: "):
        name = wrong.partition(":")[0]
        headers = [header for header in wanted if not header.startswith(name)]
        assert parse(said_by_dialplan("CtiPromise", *headers, wrong)) is None


def test_times_are_unix_seconds() -> None:
    assert parse(newchannel()).at == 1795288748.461580
    assert parse(newchannel().replace(b"Timestamp: 1795288748.461580\r\n", b"")).at == 0.0
    assert parse(newchannel().replace(b"1795288748.461580", b"soon")).at == 0.0


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"O\'Neil", "O'Neil"),
        (r"\"Ann\" B", '"Ann" B'),
        (r"a\\b", r"a\b"),
        (r"two\nlines\r", "two\nlines\r"),
        (r"tab\tbell\a", "tab\tbell\a"),
        (r"\x", "x"),
        ("end\\", "end\\"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_unescape(written: str, meant: str) -> None:
    assert unescape(written) == meant


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")))
def test_unescape_undoes_what_asterisk_does(text: str) -> None:
    written = "".join(f"\\{c}" if c in "\"'\\" else c for c in text)
    assert unescape(written) == text


@pytest.mark.parametrize("nothing", ["<unknown>", "unknown", ""])
def test_absent_numbers_and_names_are_none(nothing: str) -> None:
    record = parse(newchannel(CallerIDNum=nothing, CallerIDName=nothing))
    assert (record.number, record.name) == (None, None)
    record = parse(
        message(
            "NewCallerid", f"CallerIDNum: {nothing}", f"CallerIDName: {nothing}", "Uniqueid: 1", "Linkedid: 1"
        )
    )
    assert record == CallerIdChanged(record.at, "1", "1", None, None)


def test_utf8_passes_whole_and_latin1_is_borne() -> None:
    assert parse(newchannel(CallerIDName="Zoë 👍 Łódź")).name == "Zoë 👍 Łódź"
    assert parse(newchannel(CallerIDName="Zoë", encoding="latin-1")).name == "Zo\ufffd"


def test_hostile_names_stay_values() -> None:
    hostile = "<script>alert(1)</script>\\r\\nEvent: Hangup\\r\\nUniqueid: 9"
    record = parse(newchannel(CallerIDName=hostile))
    assert record.name == "<script>alert(1)</script>\r\nEvent: Hangup\r\nUniqueid: 9", (
        "escaped by Asterisk, a value here"
    )
    assert record.uniqueid == "1.1"
    assert parse(newchannel(CallerIDName="Uniqueid: 9")).uniqueid == "1.1"
    assert parse(newchannel(CallerIDName="x" * 10_000)).name == "x" * 10_000
    assert parse(newchannel(CallerIDName="\x00\x01\x7f")).name == "\x00\x01\x7f"


def test_a_value_may_hold_colons_and_blanks() -> None:
    assert parse(newchannel(CallerIDName="a: b : c")).name == "a: b : c"
    assert parse(newchannel(Exten="")).exten == ""


@pytest.mark.parametrize("header", ["Uniqueid", "Linkedid", "Channel"])
def test_without_its_ids_an_event_is_refused(header: str) -> None:
    with pytest.raises(KeyError, match=header):
        parse(newchannel(without=header))


@pytest.mark.parametrize("header", ["CallerIDNum", "CallerIDName", "Exten", "Context", "ChannelStateDesc"])
def test_other_headers_may_be_missing(header: str) -> None:
    record = parse(newchannel(without=header))
    assert isinstance(record, ChannelAppeared)
    assert record.state is (ChannelState.UNKNOWN if header == "ChannelStateDesc" else ChannelState.RING)


def test_unknown_states_and_numbers_that_are_none() -> None:
    assert parse(newchannel(ChannelStateDesc="Levitating")).state is ChannelState.UNKNOWN
    gone = parse(message("Hangup", "Uniqueid: 1", "Linkedid: 1", "Cause: many"))
    assert gone == ChannelGone(gone.at, "1", "1", 0)
    assert parse(
        message("Newstate", "Uniqueid: 1", "Linkedid: 1", "ChannelStateDesc: Up")
    ) == ChannelStateChanged(gone.at, "1", "1", ChannelState.UP)


def test_system_name_in_uniqueids() -> None:
    record = parse(
        newchannel("SystemName: lab16", Uniqueid="lab16-1795288748.10", Linkedid="lab16-1795288748.10")
    )
    assert record.uniqueid == "lab16-1795288748.10"


def test_headers_of_the_other_leg_are_not_taken_for_own() -> None:
    begun = parse(
        message(
            "DialBegin", "DestUniqueid: 2", "DestLinkedid: 1", "DestChannel: PJSIP/1-1", "DialString: 1001"
        )
    )
    assert begun == DialBegun(begun.at, None, "2", None), "an Originate has no dialling side"
    ended = parse(message("DialEnd", "Uniqueid: 1", "Linkedid: 1", "DestUniqueid: 2", "DialStatus: ANSWER"))
    assert ended == DialEnded(ended.at, "1", "2", "ANSWER")


@pytest.mark.parametrize(
    ("dialled", "number"),
    [
        ("15550001@trunk", "15550001"),
        ("+4930123@trunk", "+4930123"),
        ("trunk/sip:15550001@10.0.0.1", "15550001"),
        ("trunk/sip:+49*30#@10.0.0.1:5060", "+49*30#"),
        ("1101", None),
        ("Local/1101@sim-agent/n", "1101"),
        ("alice@trunk", None),
        ("", None),
    ],
)
def test_the_number_sent_to_a_carrier(dialled: str, number: str | None) -> None:
    record = parse(message("DialBegin", "DestUniqueid: 2", f"DialString: {dialled}"))
    assert record.number == number


# ------------------------------------------------------------------------------------------------ variables, user events


@pytest.mark.parametrize("form", ["ChanVariable: {}", "ChanVariable(PJSIP/trunk-00000001): {}"])
def test_channel_variables(form: str) -> None:
    lines = [form.format(pair) for pair in ("CTI_DID=5550100", "CTI_CALL=", r"NAME=O\'Neil=x, y", "ODD")]
    assert parse(newchannel(*lines)).variables == {"CTI_DID": "5550100", "NAME": "O'Neil=x, y"}


def test_variables_of_the_other_leg_are_not_own() -> None:
    assert parse(newchannel("DestChanVariable: CTI_DID=1", "LocalOneChanVariable: A=1")).variables == {}


def test_variables_ride_on_joining_a_queue() -> None:
    lines = (
        "Uniqueid: 1",
        "Linkedid: 1",
        "Queue: sales",
        "Position: 2",
        "Count: 2",
        "ChanVariable: CTI_DID=7",
    )
    record = parse(message("QueueCallerJoin", *lines))
    assert record == CallerJoinedQueue(record.at, "1", "1", "sales", 2, {"CTI_DID": "7"})
    assert parse(message("QueueCallerJoin", *lines[:3])).position == 1


def said(name: str, *lines: str) -> Any:
    return parse(message("UserEvent", *CHANNEL, f"UserEvent: {name}", *lines))


def test_data_of_the_menu() -> None:
    record = said(
        "CtiData", "CustomerNumber: 4711", r"Note: it\'s \"x\"", "Empty: ", "ChanVariable: CTI_DID=1"
    )
    assert record == DataCollected(
        record.at, "1.1", "1.1", {"CustomerNumber": "4711", "Note": 'it\'s "x"', "Empty": ""}
    )


def test_data_is_bounded() -> None:
    assert len(said("CtiData", *(f"H{n}: {n}" for n in range(500))).values) == 50
    assert said("CtiData") is None


def test_how_a_queue_was_left() -> None:
    record = said("CtiQueueLeft", "Queue: sales", "Status: TIMEOUT")
    assert record == QueueOutcome(record.at, "1.1", "1.1", "TIMEOUT")
    assert said("CtiQueueLeft").status == ""


@pytest.mark.parametrize("name", ["Other", "CtiSomethingElse", "", "ctidata"])
def test_other_user_events_are_left_alone(name: str) -> None:
    assert said(name, "A: b") is None


def test_a_user_event_made_by_a_client_is_about_no_channel() -> None:
    assert parse(message("UserEvent", "UserEvent: CtiData", "A: b")) is None


# ------------------------------------------------------------------------------------------------ single kinds


def test_members_live_and_listed() -> None:
    live = parse(
        message(
            "QueueMemberPause",
            "Queue: sales",
            "MemberName: Agent 1101",
            "Interface: Local/1101@sim-agent/n",
            "StateInterface: Local/1101@sim-agent",
            "Penalty: 2",
            "Status: 6",
            "Paused: 1",
            "PausedReason: Lunch",
        )
    )
    assert live == MemberSeen(
        live.at,
        "sales",
        "Local/1101@sim-agent/n",
        "Agent 1101",
        2,
        True,
        "Lunch",
        MemberStatus.RINGING,
        "Local/1101@sim-agent",
    )
    _, (listed,), _ = queue_rows(
        [b"Event: QueueMember\r\nQueue: sales\r\nName: Ann\r\nLocation: PJSIP/1\r\nStatus: 99\r\nPaused: 0"]
    )
    assert (listed.interface, listed.name, listed.status, listed.paused, listed.state_interface) == (
        "PJSIP/1",
        "Ann",
        MemberStatus.UNKNOWN,
        False,
        "PJSIP/1",
    )


def test_a_pause_of_asterisk_16_has_its_reason_elsewhere() -> None:
    record = parse(
        message("QueueMemberPause", "Queue: q", "Interface: PJSIP/1", "Paused: 1", "Reason: Lunch")
    )
    assert (record.pause_reason, record.name) == ("Lunch", "PJSIP/1")


def test_transfers_that_failed_are_none() -> None:
    ids = ("TransfererUniqueid: 1", "TransfereeUniqueid: 2", "Extension: 1102")
    assert parse(message("BlindTransfer", "Result: Success", *ids)).exten == "1102"
    assert parse(message("BlindTransfer", "Result: Fail", *ids)) is None
    assert parse(message("BlindTransfer", "Result: Success")) is None
    both = ("OrigTransfererUniqueid: 1", "SecondTransfererUniqueid: 2")
    done = parse(message("AttendedTransfer", "Result: Success", *both))
    assert done == TransferCompleted(done.at, "1", "2", None, None)
    assert parse(message("AttendedTransfer", "Result: Not Permitted", *both)) is None


def test_parked_call_live_and_listed() -> None:
    lines = ("ParkeeUniqueid: 1", "ParkeeLinkedid: 1", "Parkinglot: default", "ParkingSpace: 701")
    live = parse(message("ParkedCall", *lines))
    assert live == CallParked(live.at, "1", "1", "default", "701")
    row = message("ParkedCall", "ActionID: a1", *lines)
    assert parse(row) is None, "a row of a list is not news"
    assert [(found.uniqueid, found.slot) for found in parked_rows([row])] == [("1", "701")]


def test_bridges_and_originates() -> None:
    lines = (
        "BridgeUniqueid: b",
        "BridgeType: base",
        "BridgeTechnology: softmix",
        "Uniqueid: 1",
        "Linkedid: 1",
    )
    entered = parse(message("BridgeEnter", *lines))
    assert entered == BridgeEntered(entered.at, "1", "1", "b", "softmix", "base")
    ended = parse(
        message("OriginateResponse", "ActionID: o1", "Response: Failure", "Reason: 5", "Uniqueid: <null>")
    )
    assert ended == OriginateEnded(ended.at, "o1", "<null>", False, 5)
    gave_up = parse(message("QueueCallerAbandon", "Uniqueid: 1", "Linkedid: 1", "Queue: sales"))
    assert gave_up == CallerGaveUpQueue(gave_up.at, "1", "1", "sales")


# ------------------------------------------------------------------------------------------------ lists and names


def test_rows_of_channels() -> None:
    raw = message(
        "CoreShowChannel",
        *CHANNEL,
        "ActionID: a1",
        "Application: Queue",
        "ApplicationData: sales,tT",
        "Duration: 01:02:03",
        "BridgeId: ",
        "ChanVariable: CTI_DID=7",
    )
    (row,) = channel_rows([raw, message("CoreShowChannelsComplete", "ActionID: a1")])
    assert (row.age, row.application, row.data, row.bridge) == (3723, "Queue", "sales,tT", None)
    assert row.variables == {"CTI_DID": "7"}
    (odd,) = channel_rows([message("CoreShowChannel", *CHANNEL, "Duration: a while")])
    assert odd.age == 0


def test_rows_of_queues() -> None:
    queues, members, waiting = queue_rows(
        [
            b"Event: QueueParams\r\nQueue: sales\r\nStrategy: ringall",
            b"Event: QueueEntry\r\nQueue: sales\r\nPosition: 2\r\nUniqueid: 1.1\r\nWait: 17",
            b"Event: QueueStatusComplete",
        ]
    )
    assert [(queue.queue, queue.strategy) for queue in queues] == [("sales", "ringall")]
    assert members == []
    assert [(row.uniqueid, row.position, row.waited) for row in waiting] == [("1.1", 2, 17)]


def test_the_first_of_a_repeated_header_counts() -> None:
    assert fields_of(b"Event: X\r\nA: 1\r\nA: 2\r\nno colon\r\nB:3") == {"Event": "X", "A": "1", "B": "3"}


@pytest.mark.parametrize(
    ("channel", "device", "other"),
    [
        ("PJSIP/1001-0000002a", "PJSIP/1001", None),
        ("PJSIP/trunk-de-0000002a", "PJSIP/trunk-de", None),
        ("Local/1101@sim-agent-0000000a;1", "Local/1101@sim-agent", "Local/1101@sim-agent-0000000a;2"),
        ("Local/1101@sim-agent-0000000a;2", "Local/1101@sim-agent", "Local/1101@sim-agent-0000000a;1"),
        ("Local/11@from-queue-x-0000000a;1", "Local/11@from-queue-x", "Local/11@from-queue-x-0000000a;2"),
        ("DAHDI/i1/5551-3", "DAHDI/i1/5551", None),
        ("Surrogate/x", "Surrogate/x", None),
        ("", "", None),
    ],
)
def test_names_of_channels(channel: str, device: str, other: str | None) -> None:
    assert device_of_channel(channel) == device
    assert other_half(channel) == other
    assert technology(channel) == channel.split("/")[0]


@pytest.mark.parametrize(
    ("uniqueid", "made"),
    [
        ("1795288748.10", False),
        ("lab-16-1795288748.10", False),
        ("cti-1-1", True),
        ("off-hook", True),
        ("1.2;2", True),
    ],
)
def test_ids_that_an_originate_gave(uniqueid: str, made: bool) -> None:
    assert made_by_originate(uniqueid) is made


# ------------------------------------------------------------------------------------------------ anything at all


@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=200))
def test_garbage_is_parsed_or_refused_as_incomplete(event: bytes, rest: bytes) -> None:
    """The link counts a KeyError as an event it could not use; nothing else may come out."""
    try:
        record = PARSERS[event](b"Event: " + event + b"\r\n" + rest)
    except KeyError:
        return
    assert record is None or isinstance(record, Record)
