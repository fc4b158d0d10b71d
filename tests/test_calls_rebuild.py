"""The call model brought up to what the switch lists: after lost events, after a restart of the server in mid-call, and
when nothing was wrong at all. Traces are cut at every record; the lists are those a switch would give at that moment
(switch_lists.py), and where a trace has them, the real ones.
"""

from __future__ import annotations

from functools import cache

import pytest
from msgspec.structs import replace

from cti.ami_events import (
    ChannelGone,
    ChannelRow,
    ChannelState,
    ParkedRow,
    Record,
    WaitingRow,
    channel_rows,
    parked_rows,
    queue_rows,
)
from cti.facts import (
    CallCleared,
    CallConferenced,
    CallDiverted,
    CallEstablished,
    CallParked,
    CallQueued,
    CallUnparked,
    CallView,
    ConnectionCleared,
    ConnectionState,
    Direction,
    Fact,
)
from tests.call_rules import Watched
from tests.recorded import messages, model, parse
from tests.switch_lists import Switch
from tests.test_calls_properties import KNOWN, WHOLE

Lists = tuple[list[ChannelRow], list[WaitingRow], list[ParkedRow], float]
HANDLED = model().handles
UNTELLABLE = {
    "46_blonde_transfer_by_phone",  # the ringing target keeps its own Linkedid until it answers
    "50_two_phones_of_one_agent",  # that a Local channel leads to an agent's phone is only told by DialBegin
    "55_bridged_by_the_server",  # the customer has the Linkedid of the agent's waiting leg
}
"""Traces in which the lists do not tell who belongs together; elsewhere the rebuilt calls must be the same."""

NOTHING = dict.fromkeys(("missed", "ghosts", "bridges", "states", "waits", "parkings", "lines"), 0)


@cache
def moments(name: str) -> list[tuple[Record, Lists]]:
    """The records of a trace, each with what the switch would list right after it."""
    switch = Switch()
    found = []
    for raw in messages(name):
        switch.hear(raw)
        record = parse(raw)
        if record is not None and type(record) in HANDLED:
            found.append((record, switch.lists()))
    return found


def outline(view: CallView) -> tuple[object, ...]:
    """What lists can tell of a call: not who holds, nor whether who is alone was with somebody, nor the number called,
    nor whence the call came once its first party has left."""
    waits = (ConnectionState.QUEUED, ConnectionState.ALERTING)
    parties = {c.id: (c.agent, c.state if c.state in waits else None) for c in view.connections}
    known = view.id in parties
    dnis = view.dnis if view.direction is Direction.INBOUND else None
    return (view.direction, dnis) if known else None, view.parked_at, view.conference, parties


def outlines(watched: Watched) -> dict[str, tuple[object, ...]]:
    return {view.id: outline(view) for view in watched.calls.views()}


def calm(found: list[tuple[Record, Lists]], at: int) -> bool:
    """Whether nothing else happened around this moment: in mid-change what lists show is a matter of microseconds."""
    return at + 1 == len(found) or found[at + 1][0].at - found[at][0].at > 0.3


def to_the_end(watched: Watched, rest: list[tuple[Record, Lists]]) -> None:
    for record, _ in rest:
        watched.apply(record)
    watched.tick(1e10)
    assert not any(watched.calls.sizes().values()), watched.calls.sizes()


@pytest.mark.parametrize("name", WHOLE)
def test_a_model_that_is_right_is_left_alone(name: str) -> None:
    """At every moment: no differences, no facts."""
    watched = Watched(KNOWN)
    for record, lists in moments(name):
        watched.apply(record)
        facts, differences = watched.rebuild(*lists)
        assert (facts, differences) == ([], NOTHING), f"after {record}"


@pytest.mark.parametrize("name", WHOLE)
def test_restart_of_the_server_in_mid_call(name: str) -> None:
    """An empty model, the lists, then the rest of the trace: the calls are there, and end once each."""
    whole = Watched(KNOWN)
    found = moments(name)
    for at, (record, lists) in enumerate(found):
        whole.apply(record)
        if at % (1 + len(found) // 40):
            continue
        watched = Watched(KNOWN)
        _, differences = watched.rebuild(*lists)
        assert differences == {**NOTHING, "missed": len(lists[0])}
        assert watched.rebuild(*lists) == ([], NOTHING), "asked twice, found twice"
        if calm(found, at) and name not in UNTELLABLE:
            assert outlines(watched) == outlines(whole)
        to_the_end(watched, found[at + 1 :])


@pytest.mark.parametrize("lost", [3, 20])
@pytest.mark.parametrize("name", WHOLE)
def test_lost_events(name: str, lost: int) -> None:
    """Some events are never heard, the lists make up for them, and the rest goes on as if nothing had been."""
    found = moments(name)
    for cut in range(0, max(0, len(found) - lost), 1 + len(found) // 30):
        whole, watched = Watched(KNOWN), Watched(KNOWN)
        for record, _ in found[:cut]:
            watched.apply(record)
        for record, _ in found[: cut + lost]:
            whole.apply(record)
        lists = found[cut + lost - 1][1]
        watched.rebuild(*lists)
        assert watched.rebuild(*lists) == ([], NOTHING), "asked twice, found twice"
        if calm(found, cut + lost - 1) and name not in UNTELLABLE:
            there = {view.id: {c.id for c in view.connections} for view in whole.calls.views()}
            assert {view.id: {c.id for c in view.connections} for view in watched.calls.views()} == there
        to_the_end(watched, found[cut + lost :])


# ------------------------------------------------------------------------------------------------ real lists


def real_lists(name: str) -> list[tuple[list[Record], Lists]]:
    """Where a trace has CoreShowChannels, QueueStatus, ParkedCalls in a row: the records before, and the lists."""
    before: list[Record] = []
    rows: list[bytes] = []
    found: list[tuple[list[Record], Lists]] = []
    for raw in messages(name):
        event = raw[7:].split(b"\r\n", 1)[0] if raw.startswith(b"Event: ") else b""
        if b"\r\nActionID: " in raw and event in {b"CoreShowChannel", b"QueueEntry", b"ParkedCall"}:
            rows.append(raw)
        elif event == b"ParkedCallsComplete":
            _, _, waiting = queue_rows(rows)
            found.append((list(before), (channel_rows(rows), waiting, parked_rows(rows), before[-1].at)))
            rows = []
        elif (record := parse(raw)) is not None and type(record) in HANDLED:
            before.append(record)
    return found


@pytest.mark.parametrize("name", ["40_ring_all", "44_attended", "49_agent_behind", "61_conference"])
def test_real_lists_of_a_model_that_is_right(name: str) -> None:
    for before, lists in real_lists(name):
        watched = Watched(KNOWN)
        for record in before:
            watched.apply(record)
        assert lists[0], "the trace has a call up"
        assert watched.rebuild(*lists) == ([], NOTHING)


def test_real_lists_with_one_call_talking_and_one_waiting() -> None:
    """Trace 25 asks for the channels and, several times, for the queues: the rows of all of them together."""
    rows = [raw for raw in messages("25") if b"\r\nActionID: " in raw]
    records = [
        record for raw in messages("25") if (record := parse(raw)) is not None and type(record) in HANDLED
    ]
    channels = channel_rows(rows)
    _, _, waiting = queue_rows(rows)
    waiting = list({row.uniqueid: row for row in waiting}.values())
    watched = Watched(KNOWN)
    for record in records:
        watched.apply(record)
    assert watched.rebuild(channels, waiting, [], records[-1].at) == ([], NOTHING)

    restarted = Watched(KNOWN)
    facts, differences = restarted.rebuild(channels, waiting, [], records[-1].at)
    assert differences == {**NOTHING, "missed": 4}
    assert {type(fact).__name__ for fact in facts} >= {
        "CallOriginated",
        "CallOffered",
        "CallEstablished",
        "CallQueued",
    }
    talking, queued = restarted.calls.views()
    assert (talking.ani, talking.dnis, talking.queue, talking.direction) == (
        "15551234567",
        "5550100",
        "main:sales",
        Direction.INBOUND,
    )
    assert [(c.agent, str(c.state)) for c in talking.connections] == [
        (None, "connected"),
        ("agent1101", "connected"),
    ]
    assert (queued.ani, queued.queue, queued.connections[0].state) == (
        "15559998888",
        "main:sales",
        ConnectionState.QUEUED,
    )
    assert queued.queued_since is not None
    assert abs(queued.queued_since.timestamp() - records[-1].at) < 3
    assert [view.data for view in restarted.calls.views()] == [view.data for view in watched.calls.views()]


# ------------------------------------------------------------------------------------------------ what is found, and told


def rebuilt(name: str, at: float, change: object = None) -> tuple[list[Fact], dict[str, int], Watched]:
    """A model that heard a trace up to some seconds, and then lists changed by a function."""
    found = moments(name)
    start = found[0][0].at
    heard = [(record, lists) for record, lists in found if record.at - start <= at]
    watched = Watched(KNOWN)
    for record, _ in heard:
        watched.apply(record)
    lists = change(heard[-1][1]) if callable(change) else heard[-1][1]
    facts, differences = watched.rebuild(*lists)
    return facts, differences, watched


def test_a_call_that_ended_unheard_is_lost() -> None:
    facts, differences, watched = rebuilt("02", 3.0, lambda lists: ([], [], [], lists[3] + 60))
    assert differences == {**NOTHING, "ghosts": 3}
    cleared = [fact for fact in facts if isinstance(fact, ConnectionCleared)]
    assert [fact.reason for fact in cleared] == ["lost", "lost"]
    (end,) = [fact for fact in facts if isinstance(fact, CallCleared)]
    assert (end.outcome, end.agents, end.queue) == ("lost", ("agent1101",), "main:sales")
    assert 60 <= end.talked < 63
    assert not watched.calls.views()


def test_one_of_two_parties_gone_unheard() -> None:
    def without_agent(lists: Lists) -> Lists:
        return [row for row in lists[0] if not row.channel.startswith("Local/")], *lists[1:]

    facts, differences, watched = rebuilt("02", 3.0, without_agent)
    assert differences["ghosts"] == 2
    assert [fact.TYPE for fact in facts] == ["call.connection_cleared"]
    (view,) = watched.calls.views()
    assert [c.device for c in view.connections] == ["PJSIP/trunk"]


def test_the_far_half_alone_gone_is_no_lost_party() -> None:
    """Both halves of a Local channel end within a moment; a list between the two must not say the agent is lost."""

    def without_far_half(lists: Lists) -> Lists:
        return [row for row in lists[0] if not row.channel.endswith(";2")], *lists[1:]

    facts, _, _ = rebuilt("02", 3.0, without_far_half)
    assert facts == []


def test_an_answer_unheard() -> None:
    found = moments("02")
    start = found[0][0].at
    ringing = [(record, lists) for record, lists in found if record.at - start < 1.2]
    talking = next(lists for record, lists in reversed(found) if record.at - start < 3.0)
    watched = Watched(KNOWN)
    for record, _ in ringing:
        watched.apply(record)
    facts, differences = watched.rebuild(*talking)
    assert differences == {**NOTHING, "states": 1, "bridges": 2, "waits": 1}
    (established,) = [fact for fact in facts if isinstance(fact, CallEstablished)]
    assert established.agent == "agent1101"
    assert not [fact for fact in facts if isinstance(fact, CallCleared)]


def test_a_caller_who_left_the_queue_unheard() -> None:
    facts, differences, _ = rebuilt("04", 2.0, lambda lists: (lists[0], [], lists[2], lists[3]))
    assert differences == {**NOTHING, "waits": 1}
    (diverted,) = facts
    assert isinstance(diverted, CallDiverted)
    assert (diverted.reason, diverted.queue) == ("left", "main:sales")


def test_a_caller_who_joined_a_queue_unheard() -> None:
    def waits(lists: Lists) -> Lists:
        return lists[0], [WaitingRow("sales", lists[0][0].uniqueid, 3, 7)], lists[2], lists[3] + 9

    facts, differences, _ = rebuilt("04", 0.3, waits)
    assert differences == {**NOTHING, "waits": 1}
    (queued,) = [fact for fact in facts if isinstance(fact, CallQueued)]
    assert (queued.queue, queued.position) == ("main:sales", 3)


def test_parked_and_unparked_unheard() -> None:
    found = moments("23")
    start = found[0][0].at

    def at(seconds: float) -> Lists:
        return [lists for record, lists in found if record.at - start <= seconds][-1]

    facts, differences, _ = rebuilt("23", 2.0, lambda _: at(3.2))
    assert differences["parkings"] == 1
    (parked,) = [fact for fact in facts if isinstance(fact, CallParked)]
    assert (parked.slot, parked.view.parked_at) == ("701", "701")
    facts, differences, _ = rebuilt("23", 3.2, lambda _: at(5.0))
    assert differences["parkings"] == 1
    (unparked,) = [fact for fact in facts if isinstance(fact, CallUnparked)]
    assert unparked.reason == "retrieved"


def test_a_conference_found_after_a_restart() -> None:
    found = moments("61")
    lists = next(lists for record, lists in found if record.at - found[0][0].at > 5.0)
    watched = Watched(KNOWN)
    facts, _ = watched.rebuild(*lists)
    assert {fact.room for fact in facts if isinstance(fact, CallConferenced)} == {"8001"}
    assert {view.conference for view in watched.calls.views()} == {"8001"}
    assert len(watched.calls.views()) == 2, "a room is shared by calls, it does not make them one"


def test_channels_spoken_of_meanwhile_are_not_judged() -> None:
    """Lists that are older than an event on the way: what the event was about stays as the event left it."""
    found = moments("02")
    watched = Watched(KNOWN)
    for record, _ in found:
        watched.apply(record)
    stale = next(lists for record, lists in reversed(found) if record.at - found[0][0].at < 3.0)
    gone = frozenset(record.uniqueid for record, _ in found if isinstance(record, ChannelGone))
    facts, differences = watched.calls.rebuild(*stale, touched=gone)
    assert (facts, differences) == ([], NOTHING)


def test_a_row_in_an_unknown_state_is_borne() -> None:
    lists = moments("02")[-12][1]
    rows = [
        replace(row, state=ChannelState.UNKNOWN, channel="Odd", linkedid="", application="")
        for row in lists[0]
    ]
    watched = Watched(KNOWN)
    watched.rebuild(rows, lists[1], lists[2], lists[3])
    watched.rebuild([], [], [], lists[3] + 1)
    assert not any(watched.calls.sizes().values())
