"""The byte stream of one AMI connection: any cut of it, any oddity in it, and every way an action can end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cti.ami_protocol import (
    ABANDONED_MAX,
    ActionRefused,
    AmiProtocol,
    BadValue,
    Busy,
    ComplaintBook,
    LinkLost,
    LinkStats,
    NotConnected,
    check_action,
)
from tests.ami_peer import BOOTED, GREETING, event, from_asterisk


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.backlog = 0
        self.aborted = False
        self.paused = False

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True


class Line:
    """A protocol with everything around it that a test reads."""

    def __init__(
        self,
        parsers: Mapping[bytes, Callable[[bytes], object | None]],
        buffer_max: int = 8 << 20,
        at_a_time: int = 1 << 30,
    ):
        self.chunks: list[list[object]] = []
        self.log: list[str] = []
        self.stats = LinkStats()
        self.wire = Wire()
        self.protocol = AmiProtocol(
            parsers=parsers,
            on_records=self._on_records,
            on_booted=lambda: self.log.append("booted"),
            on_lost=lambda exc: self.log.append("lost"),
            stats=self.stats,
            complaints=ComplaintBook("lab"),
            buffer_max=buffer_max,
            at_a_time=at_a_time,
        )
        self.protocol.connection_made(self.wire)
        self.protocol.authenticated = True

    def _on_records(self, records: list[object]) -> None:
        self.log.append("records")
        self.chunks.append(records)

    def feed(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.protocol.data_received(chunk)

    def open(self) -> Line:
        self.feed(GREETING + BOOTED)
        return self

    @property
    def records(self) -> list[object]:
        return [record for chunk in self.chunks for record in chunk]

    def ask(self, action: str, *, as_list: bool = False, **headers: str) -> tuple[str, asyncio.Future[Any]]:
        """Send an action; return its ActionID and its future."""
        prepared = self.protocol.prepare(action, headers)
        return prepared["ActionID"], self.protocol.send(prepared, as_list=as_list)


def keep_all(names: Iterable[bytes]) -> dict[bytes, Callable[[bytes], object | None]]:
    return dict.fromkeys(names, bytes)


def names_in(stream: bytes) -> set[bytes]:
    return {m[7:].partition(b"\r\n")[0] for m in stream.split(b"\r\n\r\n") if m.startswith(b"Event: ")}


def outcome(line: Line) -> tuple[object, ...]:
    return line.records, line.stats, line.protocol.version, line.log.count("booted")


# -- the stream, however it is cut ----------------------------------------------------------------------------------


async def test_any_single_cut_gives_the_same_records() -> None:
    stream = (
        GREETING
        + event("Newchannel", Uniqueid="0")  # before FullyBooted: not wanted
        + BOOTED
        + event("Newchannel", Uniqueid="1", CallerIDName="Łukasz Żółć", Exten="")
        + b"\r\n"  # Asterisk sometimes sends a line end too many
        + event("VarSet", Variable="A", Value="b")
        + b"Response: Success\r\nActionID: somebody-else\r\n\r\n\r\n\r\n"
        + event("Hangup", Uniqueid="1", ChanVariable="CTI_DID=")
    )
    whole = Line(keep_all([b"Newchannel", b"Hangup"]))
    whole.feed(stream)
    assert [r for r in whole.records if b"Uniqueid: 1" in r] == whole.records  # type: ignore[operator]
    assert len(whole.records) == 2
    for cut in range(len(stream) + 1):
        line = Line(keep_all([b"Newchannel", b"Hangup"]))
        line.feed(stream[:cut], stream[cut:])
        assert outcome(line) == outcome(whole), cut
    line = Line(keep_all([b"Newchannel", b"Hangup"]))
    line.feed(*(stream[i : i + 1] for i in range(len(stream))))
    assert outcome(line) == outcome(whole)


TRACE = from_asterisk("02_inbound_answered_agent_hangup")
TRACE_NAMES = names_in(TRACE)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_a_recorded_call_is_the_same_in_any_chunks(data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(TRACE)), max_size=60).map(sorted))
    wanted = keep_all(data.draw(st.sets(st.sampled_from(sorted(TRACE_NAMES)))))
    whole, line = Line(wanted), Line(wanted)
    whole.feed(TRACE)
    line.feed(*(TRACE[a:b] for a, b in zip([0, *cuts], [*cuts, len(TRACE)], strict=True) if a != b))
    assert outcome(line) == outcome(whole)
    expected = [m for m in TRACE.split(b"\r\n\r\n") if m[7:].partition(b"\r\n")[0] in wanted]
    assert line.records == [m for m in expected if not m.startswith(b"Event: FullyBooted")] or (
        b"FullyBooted" in wanted
    )


# -- a burst is read in turns ---------------------------------------------------------------------------------------


def burst(count: int) -> bytes:
    return b"".join(event("Newchannel", Uniqueid=str(n)) for n in range(count))


async def turns(line: Line) -> None:
    """Until nothing waits any more."""
    while line.wire.paused:
        await asyncio.sleep(0)


async def test_others_get_the_loop_between_the_events_of_a_burst() -> None:
    line = Line(keep_all([b"Newchannel"]), at_a_time=3).open()
    seen: list[int] = []

    def look() -> None:
        seen.append(len(line.records))
        if line.wire.paused:
            asyncio.get_running_loop().call_soon(look)

    line.feed(burst(10))
    assert (len(line.records), line.wire.paused) == (3, True)
    look()
    await turns(line)
    assert {3, 6, 9} <= set(seen)
    assert line.records == [message for message in burst(10).split(b"\r\n\r\n") if message]


async def test_of_a_backlog_more_is_read_in_a_turn() -> None:
    line = Line(keep_all([b"Newchannel"]), at_a_time=3).open()
    line.feed(burst(1000))
    await turns(line)
    assert len(line.records) == 1000
    assert len(line.chunks) < 40


async def test_what_had_come_when_the_connection_broke_is_read() -> None:
    line = Line(keep_all([b"Newchannel"]), at_a_time=3).open()
    line.feed(burst(10))
    line.protocol.connection_lost(None)
    assert len(line.records) == 10
    assert line.log[-1] == "lost"


async def test_a_connection_that_was_closed_here_is_read_no_more() -> None:
    line = Line(keep_all([b"Newchannel"]), at_a_time=3).open()
    line.feed(burst(10))
    line.protocol.close()
    await asyncio.sleep(0.01)
    assert len(line.records) == 3


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(0, len(TRACE)), max_size=20).map(sorted), at_a_time=st.integers(1, 20))
async def test_turns_change_nothing_in_what_is_read(cuts: list[int], at_a_time: int) -> None:
    whole, line = Line(keep_all(TRACE_NAMES)), Line(keep_all(TRACE_NAMES), at_a_time=at_a_time)
    whole.feed(TRACE)
    for a, b in zip([0, *cuts], [*cuts, len(TRACE)], strict=True):
        if a != b:
            line.feed(TRACE[a:b])
            await turns(line)
    assert outcome(line)[:3] == outcome(whole)[:3]


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(step=st.integers(1, 4000))
async def test_list_rows_are_told_from_live_events_in_any_chunks(step: int) -> None:
    line = Line(keep_all([b"Newchannel", b"QueueMember"])).open()
    action_id, rows = line.ask("QueueStatus", as_list=True)
    aid = {"ActionID": action_id}
    stream = (
        f"Response: Success\r\nActionID: {action_id}\r\nEventList: start\r\n\r\n".encode()
        + event("QueueParams", Queue="sales", **aid)
        + event("Newchannel", Uniqueid="1")
        + event("QueueMember", Queue="sales", **aid, Response="Success")
        + event("QueueMember", Queue="live")
        + event("QueueStatusComplete", **aid, EventList="Complete", ListItems="2")
        + event("Newchannel", Uniqueid="2")
    )
    line.feed(*(stream[i : i + step] for i in range(0, len(stream), step)))
    got = await rows
    assert [r.partition(b"\r\n")[0] for r in got] == [b"Event: QueueParams", b"Event: QueueMember"]
    assert [r.partition(b"\r\n")[0] for r in line.records] == [  # type: ignore[attr-defined]
        b"Event: Newchannel",
        b"Event: QueueMember",
        b"Event: Newchannel",
    ]
    assert line.protocol.responses == {}


async def test_one_call_of_on_records_for_each_chunk_and_up_before_the_first() -> None:
    line = Line(keep_all([b"Newchannel"]))
    line.feed(GREETING + BOOTED + event("Newchannel", Uniqueid="1") + event("Newchannel", Uniqueid="2"))
    line.feed(event("VarSet"))
    line.feed(event("Newchannel", Uniqueid="3"))
    assert line.log == ["booted", "records", "records"]
    assert [len(chunk) for chunk in line.chunks] == [2, 1]


async def test_fully_booted_without_a_login_means_nothing() -> None:
    line = Line(keep_all([b"Newchannel"]))
    line.protocol.authenticated = False
    line.feed(GREETING + BOOTED + event("Newchannel", Uniqueid="1"))
    assert line.log == []


async def test_dropped_events_are_counted_and_never_parsed() -> None:
    line = Line(keep_all([b"Hangup"])).open()
    line.feed(event("VarSet", Value="x") * 1000)
    assert line.records == []
    assert (line.stats.dropped, line.stats.messages) == (1000, 1001)


async def test_duplicate_headers_reach_the_parser_whole() -> None:
    line = Line(keep_all([b"Newchannel"])).open()
    raw = b"Event: Newchannel\r\nEvent: Newchannel\r\nActionID: a\r\nActionID: a\r\nChanVariable: A=\r\nChanVariable: B="
    line.feed(raw + b"\r\n\r\n")
    assert line.records == [raw]


async def test_duplicate_headers_in_a_response_still_answer() -> None:
    line = Line({}).open()
    action_id, answer = line.ask("Command", Command="core show version")
    twice = f"Response: Success\r\nResponse: Success\r\nActionID: {action_id}\r\nActionID: {action_id}\r\n"
    line.feed(twice.encode() + b"Output: one\r\nOutput: two\r\n\r\n")
    assert (await answer)["Output"] == "one\ntwo"


async def test_utf8_cut_in_a_character_and_latin1_pass_raw() -> None:
    line = Line(keep_all([b"Newchannel"])).open()
    raw = event("Newchannel", CallerIDName="Żółć") + b"Event: Newchannel\r\nCallerIDName: M\xfcller\r\n\r\n"
    cut = raw.index("ó".encode()) + 1
    line.feed(raw[:cut], raw[cut:])
    assert line.records == raw.split(b"\r\n\r\n")[:2]


async def test_latin1_in_a_response_is_readable() -> None:
    line = Line({}).open()
    action_id, answer = line.ask("Getvar", Variable="CALLERID(name)")
    line.feed(f"Response: Success\r\nActionID: {action_id}\r\nValue: ".encode() + b"M\xfcller\r\n\r\n")
    assert (await answer)["Value"] == "Müller"


async def test_an_event_whose_name_is_not_first_is_still_found() -> None:
    line = Line(keep_all([b"Newchannel"])).open()
    line.feed(b"Privilege: call,all\r\nevent: Newchannel\r\nUniqueid: 1\r\n\r\nnonsense\r\n\r\n: \r\n\r\n")
    assert len(line.records) == 1


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    parts=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [b"\r\n", b"\r\n\r\n", b"Event: ", b"Event: Newchannel", b"Response: ", b": ", b"\n"]
            ),
        ),
        max_size=40,
    )
)
async def test_noise_never_raises(parts: list[bytes]) -> None:
    line = Line(keep_all([b"Newchannel", b"FullyBooted"])).open()
    line.ask("Ping")
    line.ask("QueueStatus", as_list=True)
    line.feed(*parts)
    line.feed(b"\r\n\r\n" + event("Newchannel", Uniqueid="after"))
    assert line.records[-1] == event("Newchannel", Uniqueid="after")[:-4]


# -- limits ---------------------------------------------------------------------------------------------------------


async def test_a_message_without_an_end_is_given_up_and_its_memory_freed() -> None:
    line = Line({}, buffer_max=1 << 20).open()
    line.feed(*[b"x" * 65536 for _ in range(160)])
    assert line.wire.aborted
    assert line.protocol.fault == "too_large"
    assert line.stats.oversize == 1
    assert line.stats.bytes < (1 << 20) + 2 * 65536  # what came after was not even looked at
    assert len(line.protocol._tail) == 0


async def test_a_big_message_in_small_pieces_costs_linear_time() -> None:
    def seconds(size: int) -> float:
        line = Line(keep_all([b"Big"])).open()
        start = time.process_time()
        line.feed(b"Event: Big\r\nData: ", *[b"y" * 256 for _ in range(size // 256)], b"\r\n\r\n")
        assert len(line.records) == 1
        return time.process_time() - start

    assert seconds(4 << 20) < 1.5  # searching again from the start of what waits would take tens of seconds


async def test_a_greeting_that_is_not_asterisks_ends_at_once() -> None:
    for said in (b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"Asterisk Call M\x00"):
        line = Line({})
        line.feed(said)
        assert line.wire.aborted
        assert line.protocol.fault == "wrong_host"
    endless = Line({})
    endless.feed(b"Asterisk Call Manager/", b"1" * 300)
    assert endless.protocol.fault == "wrong_host"


async def test_too_many_unanswered_actions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti.ami_protocol.PENDING_MAX", 3)
    line = Line({}).open()
    for _ in range(3):
        line.ask("Ping")
    with pytest.raises(Busy):
        line.ask("Ping")
    line.protocol.forget_all()
    line.wire.backlog = 2 << 20
    with pytest.raises(Busy):
        line.ask("Ping")


# -- what other people's code does ----------------------------------------------------------------------------------


async def test_a_parser_that_raises_is_counted_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(raw: bytes) -> object:
        raise ValueError("caller 0171 5550123")

    line = Line({b"Bad": broken, b"Good": bytes}).open()
    line.feed((event("Bad", CallerIDNum="01715550123") + event("Good")) * 50)
    assert len(line.records) == 50
    assert line.stats.parser_errors == 50
    said = capsys.readouterr()
    assert (said.out + said.err).count("ami handler failed") == 1
    assert "0171" not in said.out + said.err


async def test_a_listener_that_raises_does_not_end_the_stream() -> None:
    def broken(records: list[object]) -> None:
        raise RuntimeError

    line = Line(keep_all([b"Good"])).open()
    line.protocol._on_records = broken
    line.feed(event("Good"))
    line.feed(event("Good"))
    assert line.stats.listener_errors == 2
    assert not line.wire.aborted


# -- actions --------------------------------------------------------------------------------------------------------


async def test_an_error_answers_a_list_action() -> None:
    line = Line({}).open()
    action_id, rows = line.ask("ConfbridgeListRooms", as_list=True)
    line.feed(f"Response: Error\r\nActionID: {action_id}\r\nMessage: No active conferences.\r\n\r\n".encode())
    with pytest.raises(ActionRefused, match="No active conferences"):
        await rows
    assert line.protocol.responses == {}


async def test_an_error_in_the_middle_of_a_list_ends_it() -> None:
    line = Line({}).open()
    action_id, rows = line.ask("QueueStatus", as_list=True)
    line.feed(f"Response: Success\r\nActionID: {action_id}\r\nEventList: start\r\n\r\n".encode())
    line.feed(f"Response: Success\r\nActionID: {action_id}\r\n\r\n".encode())  # ends nothing
    assert not rows.done()
    line.feed(f"Response: Error\r\nActionID: {action_id}\r\nMessage: gone\r\n\r\n".encode())
    with pytest.raises(ActionRefused, match="gone"):
        await rows


async def test_a_list_that_asterisk_breaks_off_is_refused() -> None:
    line = Line({}).open()
    action_id, rows = line.ask("QueueStatus", as_list=True)
    line.feed(f"Response: Success\r\nActionID: {action_id}\r\nEventList: start\r\n\r\n".encode())
    line.feed(event("QueueStatusComplete", ActionID=action_id, EventList="cancelled"))
    with pytest.raises(ActionRefused):
        await rows


async def test_an_action_without_a_list_gives_an_empty_one() -> None:
    line = Line({}).open()
    action_id, rows = line.ask("QueueAdd", as_list=True)
    line.feed(
        f"Response: Success\r\nActionID: {action_id}\r\nMessage: Added interface to queue\r\n\r\n".encode()
    )
    assert await rows == []


async def test_lists_recorded_from_asterisk_are_complete() -> None:
    """Every list in the trace, asked again under our ActionIDs, ends and has as many rows as Asterisk counts."""
    trace = from_asterisk("25_lists").partition(b"\r\n")[2].split(b"\r\n\r\n")
    line = Line({}).open()
    names: dict[bytes, bytes] = {}
    asked: dict[bytes, asyncio.Future[Any]] = {}
    counts: dict[bytes, int] = {}
    for raw in trace:
        old_id = raw.partition(b"\r\nActionID: ")[2].partition(b"\r\n")[0]
        if not old_id or raw.startswith(b"Event: OriginateResponse"):
            continue
        if old_id not in asked:
            new_id, asked[old_id] = line.ask("Any", as_list=True)
            names[old_id], counts[old_id] = new_id.encode(), 0
        line.feed(raw.replace(b"\r\nActionID: " + old_id, b"\r\nActionID: " + names[old_id]) + b"\r\n\r\n")
        counts[old_id] += raw.startswith(b"Event: ") and b"\r\nEventList: Complete" not in raw
    assert len(asked) > 10
    for old_id, rows in asked.items():
        assert rows.done(), old_id
        if rows.exception() is None:
            assert len(rows.result()) == counts[old_id], old_id
    assert line.protocol.responses == {}


async def test_an_event_that_our_action_caused_is_live_even_while_a_list_runs() -> None:
    line = Line(keep_all([b"OriginateResponse"])).open()
    originate_id, answer = line.ask("Originate", Async="true")
    line.ask("QueueStatus", as_list=True)
    line.feed(
        f"Response: Success\r\nActionID: {originate_id}\r\nMessage: Originate successfully queued\r\n\r\n".encode()
    )
    line.feed(event("OriginateResponse", ActionID=originate_id, Response="Failure", Reason="5"))
    assert (await answer)["Message"] == "Originate successfully queued"
    assert len(line.records) == 1


async def test_late_answers_and_rows_are_counted_and_touch_nothing() -> None:
    line = Line(keep_all([b"DeviceStateChange"])).open()
    ping_id, _ = line.ask("Ping")
    list_id, _ = line.ask("DeviceStateList", as_list=True)
    line.protocol.abandon(ping_id)
    line.protocol.abandon(list_id)
    line.feed(f"Response: Success\r\nActionID: {ping_id}\r\n\r\n".encode())
    line.feed(f"Response: Success\r\nActionID: {list_id}\r\nEventList: start\r\n\r\n".encode())
    line.feed(event("DeviceStateChange", ActionID=list_id, State="INUSE"))
    assert line.records == []  # an old state of a list given up must not pass for news
    line.feed(event("DeviceStateListComplete", ActionID=list_id, EventList="Complete"))
    assert line.stats.late == 3
    assert line.protocol.responses == {}


async def test_lists_given_up_do_not_pile_up() -> None:
    line = Line({}).open()
    for _ in range(ABANDONED_MAX * 3):
        action_id, _ = line.ask("QueueStatus", as_list=True)
        line.protocol.abandon(action_id)
    assert len(line.protocol.responses) == ABANDONED_MAX


async def test_a_lost_connection_fails_all_that_waits_and_keeps_nothing() -> None:
    line = Line({}).open()
    answers = [line.ask("Originate", Channel=f"PJSIP/{n}")[1] for n in range(50)]
    list_id, rows = line.ask("QueueStatus", as_list=True)
    line.feed(f"Response: Success\r\nActionID: {list_id}\r\nEventList: start\r\n\r\n".encode())
    line.feed(event("QueueParams", ActionID=list_id))
    line.protocol.connection_lost(ConnectionResetError())
    for answer in (*answers, rows):
        assert isinstance(answer.exception(), LinkLost)
    assert line.protocol.responses == {}
    assert not line.protocol.authenticated
    assert line.log == ["booted", "lost"]
    with pytest.raises(NotConnected):
        line.ask("Ping")


async def test_an_action_is_one_block_on_the_wire_with_repeated_headers_in_order() -> None:
    line = Line({}).open()
    prepared = line.protocol.prepare("Originate", {"Channel": "Local/é", "Variable": ["A=1", "B=2"]})
    line.protocol.send(prepared)
    block = line.wire.written
    assert block.endswith(b"\r\n\r\n")
    assert block.count(b"\r\n\r\n") == 1
    assert "Channel: Local/é\r\n".encode() in block
    assert block.index(b"Variable: A=1\r\n") < block.index(b"Variable: B=2\r\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Variable", "A=1\r\nAction: Command"),
        ("Variable", "A=1\nCommand: core stop now"),
        ("Variable", "A=1\rX: y"),
        ("Variable", "A=1\0"),
        ("Channel", ["fine", "not\r\n\r\nAction: Command"]),
        ("Vari\r\nable", "x"),
        ("Variable: x\r\nY", "x"),
        ("Vari able", "x"),
        ("", "x"),
        ("Variable\n", "x"),
        ("Variablé", "x"),
        ("ActionID", "mine"),
        ("action", "Command"),
        ("Data", "x" * 995),
        ("Data", "é" * 498),
        ("Data", "\ud800"),
        ("Data", 7),
        ("Data", [7]),
        ("Data", b"bytes"),
        ("Variable", ["A=1"] * 119),
    ],
)
async def test_what_could_not_be_sent_safely_is_refused(name: str, value: Any) -> None:
    line = Line({}).open()
    with pytest.raises(BadValue):
        line.protocol.prepare("Setvar", {name: value})
    assert line.wire.written == b""


async def test_a_header_given_twice_in_other_case_and_a_bad_action_are_refused() -> None:
    with pytest.raises(BadValue):
        check_action("Setvar", {"Variable": "a", "VARIABLE": "b"})
    with pytest.raises(BadValue):
        check_action("Ping\r\nAction: Command", {})


@given(value=st.text(max_size=300))
async def test_whatever_passes_the_check_is_one_line(value: str) -> None:
    line = Line({}).open()
    try:
        prepared = line.protocol.prepare("Setvar", {"Variable": "A", "Value": value})
    except BadValue:
        return
    line.protocol.send(prepared)
    assert line.wire.written.count(b"\n") == line.wire.written.count(b"\r") == 5
    assert b"\0" not in line.wire.written
