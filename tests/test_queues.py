"""Queues: the waiting lists and members that recorded and imagined calls leave, and what a comparison mends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cti.ami_events import MemberRemoved, MemberSeen, MemberStatus, QueueRow, queue_rows
from cti.bus import serialise
from cti.client import Picture
from cti.facts import (
    CallCleared,
    CallDiverted,
    CallEstablished,
    CallFact,
    CallQueued,
    CallView,
    ConnectionCleared,
    ConnectionState,
    ConnectionView,
    Direction,
    Fact,
    QueueCallerJoined,
    QueueCallerLeft,
    QueueMemberJoined,
    QueueMemberLeft,
    QueueMemberPaused,
    QueueMemberStatusChanged,
    QueueRemoved,
)
from cti.legs import moment
from cti.queues import Queues
from tests.floor import Floor, as_json, recorded_people
from tests.recorded import AGENTS, messages, records


def told(trace: str) -> list[str]:
    """What a recorded trace tells of its queues, a line each."""
    floor = Floor(recorded_people())
    floor.feed(records(trace))
    return [told_line for envelope in floor.told if (told_line := line(envelope.fact))]


def line(fact: Fact) -> str:
    match fact:
        case QueueCallerJoined():
            return f"{fact.queue} +{fact.position}/{fact.waiting}"
        case QueueCallerLeft():
            return f"{fact.queue} -{fact.reason} {fact.waited:.0f}s /{fact.waiting}"
        case QueueMemberJoined():
            pause = f" paused {fact.pause_reason}" if fact.paused else ""
            return f"{fact.queue} member {fact.agent or fact.interface} p{fact.penalty}{pause} {fact.status}"
        case QueueMemberLeft():
            return f"{fact.queue} no member {fact.agent or fact.interface}"
        case QueueMemberPaused():
            return f"{fact.queue} {fact.agent or fact.interface} {f'paused {fact.reason}' if fact.paused else 'back'}"
        case QueueMemberStatusChanged():
            return f"{fact.queue} {fact.agent or fact.interface} p{fact.penalty} {fact.status}"
    return ""


STORIES: dict[str, list[str]] = {
    "04": ["main:sales +1/1", "main:sales -abandoned 4s /0"],
    "06": [
        "main:sales member agent1101 p2 not_in_use",
        "main:support member agent1101 p0 paused Training not_in_use",
        "main:sales agent1101 p5 not_in_use",
        "main:sales agent1101 paused Lunch",
        "main:sales agent1101 back",
        "main:support agent1101 paused Meeting, all queues",
        "main:sales agent1101 paused Meeting, all queues",
        "main:support agent1101 back",
        "main:sales agent1101 back",
        "main:sales member Nonsense/1 p0 invalid",
        "main:sales no member agent1101",
        "main:support no member agent1101",
        "main:sales no member Nonsense/1",
    ],
    "41": [
        "main:sales member PJSIP/1101 p0 not_in_use",
        "main:sales +1/1",
        "main:sales PJSIP/1101 p0 ringing",
        "main:sales PJSIP/1101 p0 not_in_use",
        "main:sales -timed_out 4s /0",
        "main:support +1/1",
        "main:support -timed_out 4s /0",
    ],
    "42": [
        "main:support member PJSIP/1102 p0 not_in_use",
        "main:support PJSIP/1102 paused None",
        "main:sales +1/1",
        "main:sales -overflowed 4s /0",
        "main:support +1/1",
        "main:support PJSIP/1102 back",
        "main:support PJSIP/1102 p0 ringing",
        "main:support PJSIP/1102 p0 in_use",
        "main:support -answered 3s /0",
        "main:support PJSIP/1102 p0 not_in_use",
    ],
}


@pytest.mark.parametrize("trace", STORIES)
def test_recorded_calls_tell_the_queues_story(trace: str) -> None:
    assert told(trace) == STORIES[trace]


@pytest.mark.parametrize(
    ("trace", "reasons"),
    [
        ("02", ["answered"]),
        ("05", ["answered"]),
        ("07", ["answered", "abandoned"]),
        ("21", ["answered", "abandoned", "timed_out"]),
        ("43", ["left"]),
    ],
)
def test_how_a_wait_ended(trace: str, reasons: list[str]) -> None:
    floor = Floor(recorded_people())
    floor.feed(records(trace))
    left = [e.fact for e in floor.told if isinstance(e.fact, QueueCallerLeft)]
    assert [fact.reason for fact in left] == reasons
    joined = {
        (e.fact.queue, e.fact.call): e.fact.at for e in floor.told if isinstance(e.fact, QueueCallerJoined)
    }
    for fact in left:
        assert fact.waited == pytest.approx((fact.at - joined[fact.queue, fact.call]).total_seconds())
    assert all(not view.waiting for view in floor.queues["main"].views())
    assert not floor.queues["main"]._waits_in


def test_what_the_list_of_a_real_asterisk_says_is_taken_over() -> None:
    rows = [raw for raw in messages("25") if b"\r\nActionID: " in raw]
    queues = Queues("main", agent_at=AGENTS.get)
    asked, members, waiting = queue_rows(rows)
    facts, wrong = queues.rebuild(asked, members, 1000.0)
    assert {view.id for view in queues.views()} == {f"main:{row.queue}" for row in asked}
    assert wrong["queues"] == len({row.queue for row in asked})
    assert {f.agent for f in facts if isinstance(f, QueueMemberJoined)} >= {"agent1101"}
    assert waiting
    assert queues.rebuild(asked, members, 1001.0) == ([], {"queues": 0, "members": 0})


# ------------------------------------------------------------------------------------------ imagined callers


def caller(state: ConnectionState = ConnectionState.QUEUED, id: str = "main:1") -> ConnectionView:
    return ConnectionView(id=id, device="PJSIP/trunk", state=state, since=moment(0.0))


def view(call: str, *, queued: bool) -> CallView:
    return CallView(
        id=call, pbx="main", direction=Direction.INBOUND, ani="15551234567", ani_name=None, dnis=None, started=moment(0.0),
        queued_since=moment(0.0) if queued else None,
    )  # fmt: skip


def joins(call: str, position: int, at: float = 0.0, queue: str = "main:sales") -> CallQueued:
    return CallQueued(
        at=moment(at),
        call=call,
        connection=caller(),
        queue=queue,
        position=position,
        view=view(call, queued=True),
    )


def answered(call: str, at: float = 9.0, *, still_waits: bool = False) -> CallEstablished:
    return CallEstablished(
        at=moment(at), call=call, connection=caller(ConnectionState.CONNECTED), agent=None, queue="main:sales",
        waited=None, rang=None, view=view(call, queued=still_waits),
    )  # fmt: skip


def abandoned(call: str, at: float = 9.0) -> ConnectionCleared:
    return ConnectionCleared(
        at=moment(at), call=call, connection=caller(ConnectionState.NULL), agent=None, cause=16, reason="abandoned",
        talked=0.0, held=0.0,
    )  # fmt: skip


def diverted(call: str, reason: str, at: float = 9.0, *, still_waits: bool = False) -> CallDiverted:
    return CallDiverted(
        at=moment(at), call=call, connection=caller(ConnectionState.INITIATED), agent=None, queue="main:sales",
        reason=reason, rang=None, view=view(call, queued=still_waits),
    )  # fmt: skip


def over(call: str, at: float = 9.0) -> CallCleared:
    return CallCleared(
        at=moment(at), call=call, outcome="lost", cause=0, duration=1.0, waited=0.0, talked=0.0, held=0.0, queue=None,
        agents=(), merged_into=None,
    )  # fmt: skip


def line_up(queues: Queues, queue: str = "main:sales") -> list[tuple[str, int]]:
    found = next(view for view in queues.views() if view.id == queue)
    return [(waiting.call, waiting.position) for waiting in found.waiting]


def test_a_priority_caller_jumps_in() -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    for position, call in enumerate(("a", "b", "c"), 1):
        queues.hear(joins(call, position))
    (jumped,) = queues.hear(joins("vip", 2))
    assert isinstance(jumped, QueueCallerJoined)
    assert (jumped.position, jumped.waiting) == (2, 4)
    assert line_up(queues) == [("a", 1), ("vip", 2), ("b", 3), ("c", 4)]
    (far,) = queues.hear(joins("far", 99))
    assert isinstance(far, QueueCallerJoined)
    assert far.position == 5
    queues.hear(joins("odd", 0))
    assert line_up(queues)[0] == ("odd", 1)


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        (answered("a"), "answered"),
        (abandoned("a"), "abandoned"),
        (diverted("a", "timed_out"), "timed_out"),
        (diverted("a", "overflowed"), "overflowed"),
        (diverted("a", "left"), "left"),
        (over("a"), "lost"),
        (joins("a", 1, 9.0, "main:support"), "left"),
    ],
)
def test_a_wait_ends_once_and_says_why(fact: CallFact, reason: str) -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    queues.hear(joins("a", 1))
    queues.hear(joins("b", 2))
    left = queues.hear(fact)[0]
    assert isinstance(left, QueueCallerLeft)
    assert (left.reason, left.waited, left.waiting) == (reason, 9.0, 1)
    assert line_up(queues) == [("b", 1)]
    if not isinstance(fact, CallQueued):
        assert queues.hear(fact) == []


@pytest.mark.parametrize(
    "fact", [answered("a", still_waits=True), diverted("a", "no_answer", still_waits=True)]
)
def test_an_agent_who_does_not_answer_ends_nobodys_wait(fact: CallFact) -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    queues.hear(joins("a", 1))
    assert queues.hear(fact) == []
    assert line_up(queues) == [("a", 1)]


def test_clocks_that_run_back_make_no_wait_negative() -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    queues.hear(joins("a", 1, at=10.0))
    (left,) = queues.hear(abandoned("a", at=9.0))
    assert isinstance(left, QueueCallerLeft)
    assert left.waited == 0.0


# ------------------------------------------------------------------------------------------ members


def member(interface: str = "PJSIP/1001", queue: str = "sales", **changes: Any) -> MemberSeen:
    seen = MemberSeen(5.0, queue, interface, "Alice", 0, False, None, MemberStatus.NOT_IN_USE, interface)
    return replace(seen, **changes)


def test_what_is_so_already_is_not_told_again() -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    assert [f.TYPE for f in queues.apply(member())] == ["queue.added", "queue.member_joined"]
    assert queues.apply(member()) == []
    assert queues.apply(member(pause_reason="left over")) == []
    both = queues.apply(member(status=MemberStatus.IN_USE, paused=True, pause_reason="Lunch"))
    assert [f.TYPE for f in both] == ["queue.member_status_changed", "queue.member_paused"]
    assert queues.apply(MemberRemoved(6.0, "nowhere", "PJSIP/1001")) == []
    assert len(queues.apply(MemberRemoved(6.0, "sales", "PJSIP/1001"))) == 1
    assert queues.apply(MemberRemoved(6.0, "sales", "PJSIP/1001")) == []


def test_another_person_at_the_phone_is_another_member() -> None:
    owner = {"PJSIP/1001": "alice"}
    queues = Queues("main", agent_at=owner.get)
    queues.apply(member())
    renamed = queues.apply(member(name="Alice B."))
    assert [f.TYPE for f in renamed] == ["queue.member_left", "queue.member_joined"]
    owner["PJSIP/1001"] = "bea"
    left, joined = queues.reassign(9.0)
    assert isinstance(left, QueueMemberLeft)
    assert isinstance(joined, QueueMemberJoined)
    assert (left.agent, joined.agent, joined.name) == ("alice", "bea", "Alice B.")
    assert queues.reassign(9.0) == []


def test_a_local_member_is_the_agent_whose_phone_gives_its_state() -> None:
    """As FreePBX has them: Local/1001@from-queue/n with StateInterface PJSIP/1001."""
    queues = Queues("main", agent_at=AGENTS.get)
    queues.apply(member("Local/1001@from-queue/n", state_interface="PJSIP/1001"))
    assert queues.reassign(9.0) == []
    assert [m.agent for m in queues.members("main:sales").values()] == ["alice"]
    assert queues.memberships("PJSIP/1001").keys() == {"main:sales"}
    assert queues.memberships("Local/1001@from-queue").keys() == {"main:sales"}
    assert queues.memberships("PJSIP/1002") == {}
    assert queues.member("main:sales", "Local/1001@from-queue/n") is not None
    assert queues.member("main:nowhere", "PJSIP/1001") is None


# ------------------------------------------------------------------------------------------ comparing with Asterisk


def test_a_comparison_tells_and_counts_only_what_differs() -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    rows = [QueueRow("sales", "ringall"), QueueRow("old", "ringall")]
    queues.rebuild(rows, [member(), member("PJSIP/1002"), member(queue="old")], 10.0)
    seen = [member(paused=True, pause_reason="Lunch"), member("PJSIP/1003", name="Carol")]
    facts, wrong = queues.rebuild([QueueRow("sales", "ringall"), QueueRow("new", "x")], seen, 20.0)
    assert wrong == {"queues": 2, "members": 4}
    assert sorted(f.TYPE for f in facts) == [
        "queue.added", "queue.member_joined", "queue.member_left", "queue.member_left", "queue.member_paused",
        "queue.removed",
    ]  # fmt: skip
    assert queues.rebuild([QueueRow("sales", "ringall"), QueueRow("new", "x")], seen, 30.0)[0] == []


def test_members_that_events_spoke_of_meanwhile_are_not_judged() -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    row = [QueueRow("sales", "ringall")]
    queues.rebuild(row, [member(), member("PJSIP/1002")], 10.0)
    touched = frozenset({"sales|PJSIP/1001", "sales|PJSIP/1002", "sales|PJSIP/1003"})
    older = [member(paused=True), member("PJSIP/1003")]  # 1002 is new since, 1003 has gone since
    assert queues.rebuild(row, older, 20.0, touched) == ([], {"queues": 0, "members": 0})


def test_a_queue_somebody_waits_in_is_not_removed() -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    queues.hear(joins("a", 1))
    queues.apply(member())
    assert queues.rebuild([], [], 10.0)[1] == {"queues": 0, "members": 1}
    queues.hear(abandoned("a"))
    facts, wrong = queues.rebuild([], [], 20.0)
    assert wrong["queues"] == 1
    assert isinstance(facts[-1], QueueRemoved)
    assert not queues.knows("main:sales")


def test_the_members_of_a_queue_that_goes_leave_it_first() -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    queues.apply(member())
    facts, _ = queues.rebuild([], [], 10.0, frozenset({"sales|PJSIP/1001"}))
    assert [f.TYPE for f in facts] == ["queue.member_left", "queue.removed"]


# ------------------------------------------------------------------------------------------ old views + facts = new views

CALLS = st.sampled_from([f"main:{n}" for n in range(6)])
QUEUES = st.sampled_from(["main:sales", "main:support"])
MEMBERS = st.builds(
    member,
    interface=st.sampled_from(["PJSIP/1001", "PJSIP/1003", "Local/7@x/n"]),
    queue=st.sampled_from(["sales", "support", "odd"]),
    name=st.sampled_from(["Alice", "Bea"]),
    penalty=st.integers(0, 2),
    paused=st.booleans(),
    pause_reason=st.sampled_from([None, "Lunch"]),
    status=st.sampled_from(list(MemberStatus)),
)
ROWS = st.lists(
    st.sampled_from([QueueRow("sales", "x"), QueueRow("support", "x"), QueueRow("odd", "x")]), unique=True
)
STEPS = st.one_of(
    st.builds(joins, CALLS, st.integers(0, 7), st.floats(0, 10), QUEUES),
    st.builds(answered, CALLS),
    st.builds(abandoned, CALLS),
    st.builds(diverted, CALLS, st.sampled_from(["timed_out", "overflowed", "no_answer"])),
    st.builds(over, CALLS),
    MEMBERS,
    st.builds(
        MemberRemoved,
        st.just(7.0),
        st.sampled_from(["sales", "odd"]),
        st.sampled_from(["PJSIP/1001", "PJSIP/1003"]),
    ),
    st.tuples(ROWS, st.lists(MEMBERS, max_size=4)),
)


def facts_of(queues: Queues, step: Any) -> Iterator[Fact]:
    if isinstance(step, CallFact):
        yield from queues.hear(step)
    elif isinstance(step, tuple):
        rows, members = step
        members = [m for m in members if m.queue in {row.queue for row in rows}]
        yield from queues.rebuild(rows, members, 20.0)[0]
    else:
        yield from queues.apply(step)


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=40))
def test_old_views_and_facts_are_the_new_views(steps: list[Any]) -> None:
    queues = Queues("main", agent_at=AGENTS.get)
    picture = Picture(me="root")
    for step in steps:
        for fact in facts_of(queues, step):
            picture.fold(msgspec.json.decode(serialise(1, fact)[0]))
            if isinstance(fact, QueueCallerJoined | QueueCallerLeft):
                assert fact.waiting >= 0
        now = {view["id"]: view for view in as_json(queues.views())}
        assert picture.queues == now
        waiting = [w["call"] for view in now.values() for w in view["waiting"]]
        assert len(waiting) == len(set(waiting))  # nobody waits twice
        assert set(waiting) == queues._waits_in.keys()
        assert all(w["position"] == n for view in now.values() for n, w in enumerate(view["waiting"], 1))
