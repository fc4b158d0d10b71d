"""A switch on a real link: everything is asked for after a login, events meanwhile are held back, differences are told."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cti.agents import WrapUp
from cti.ami_events import BridgeEntered, ChannelGone, MemberSeen, Record
from cti.calls import Calls
from cti.embedded.sample_pbx import SamplePbx
from cti.facts import (
    AgentStateChanged,
    CallCleared,
    CallEstablished,
    CallOffered,
    CallOriginated,
    ConnectionCleared,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
)
from cti.queues import Queues
from cti.switch import LinkState, Switch
from tests.ami_peer import SECRET, USERNAME, Headers, Peer, Session, error, event
from tests.floor import ROOT, Viewer, person
from tests.live_floor import LiveFloor, callers, live, now, simulated

Factory = Callable[..., SamplePbx]
QUICK = WrapUp(seconds=0.5)

# ------------------------------------------------------------------------------------------ an Asterisk made to order


def listed(headers: Headers, complete: str, *rows: bytes) -> bytes:
    """An answer as Asterisk gives lists: Response, rows with the ActionID, end of list."""
    id = headers["ActionID"]
    start = f"Response: Success\r\nActionID: {id}\r\nEventList: start\r\nMessage: list will follow\r\n\r\n".encode()
    marked = b"".join(row[:-2] + f"ActionID: {id}\r\n\r\n".encode() for row in rows)
    return start + marked + event(complete, ActionID=id, EventList="Complete", ListItems=str(len(rows)))


def channel(
    uniqueid: str, linkedid: str = "", name: str = "PJSIP/trunk-1", state: str = "Up", **more: str
) -> bytes:
    return event(
        "CoreShowChannel",
        Channel=name, ChannelState="6", ChannelStateDesc=state, CallerIDNum="15551230001", CallerIDName="<unknown>",
        Context="from-trunk", Exten="5550100", Uniqueid=uniqueid, Linkedid=linkedid or uniqueid,
        Application="Queue", Duration="00:00:20", BridgeId="", **more,
    )  # fmt: skip


def appears(uniqueid: str, linkedid: str = "", name: str = "PJSIP/trunk-1", state: str = "Ring") -> bytes:
    return event(
        "Newchannel",
        Timestamp=f"{time.time():.6f}", Channel=name, ChannelStateDesc=state, CallerIDNum="15551230001",
        CallerIDName="<unknown>", Context="from-trunk", Exten="5550100", Uniqueid=uniqueid,
        Linkedid=linkedid or uniqueid,
    )  # fmt: skip


def hangs_up(uniqueid: str, linkedid: str = "") -> bytes:
    return event(
        "Hangup", Timestamp=f"{time.time():.6f}", Uniqueid=uniqueid, Linkedid=linkedid or uniqueid, Cause="16"
    )


def member(paused: str = "0", name: str = "QueueMember") -> bytes:
    return event(
        name, Timestamp=f"{time.time():.6f}", Queue="sales", Name="Anna", Location="PJSIP/1001", Interface="PJSIP/1001",
        MemberName="Anna", StateInterface="PJSIP/1001", Penalty="0", Status="1", Paused=paused, PausedReason="",
    )  # fmt: skip


class Pbx(Peer):
    """A peer with channels and a queue, whose lists can be changed, held up or refused."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: list[bytes] = []
        self.members: list[bytes] = [member()]
        self.refuses: str | None = None
        self.before_lists: Callable[[Session], None] = lambda _: None
        self.on |= {
            "QueueStatus": self._queue_status,
            "CoreShowChannels": self._core_show_channels,
            "ParkedCalls": lambda _, headers: listed(headers, "ParkedCallsComplete"),
        }

    def _queue_status(self, session: Session, headers: Headers) -> bytes:
        if self.refuses:
            return error(headers, self.refuses)
        self.before_lists(session)
        return listed(
            headers, "QueueStatusComplete", event("QueueParams", Queue="sales", Strategy="x"), *self.members
        )

    def _core_show_channels(self, _: Session, headers: Headers) -> bytes:
        return listed(headers, "CoreShowChannelsComplete", *self.channels)


@asynccontextmanager
async def at_a_peer(**options: Any) -> AsyncIterator[tuple[Pbx, LiveFloor]]:
    async with (
        Pbx() as peer,
        LiveFloor([person("anna", main="PJSIP/1001"), person("ben", main="PJSIP/1002")], **options) as floor,
    ):
        peer.channels = [channel("1.0")]
        floor.add_link("main", peer.port, USERNAME, SECRET, boot_timeout=0.3)
        await floor.synced()
        yield peer, floor


async def test_after_a_login_everything_is_asked_for_and_told_once() -> None:
    async with at_a_peer() as (peer, floor):
        asked = [
            headers["Action"] for headers in peer.seen if headers["Action"] not in ("Challenge", "Login")
        ]
        assert asked[:3] == ["QueueStatus", "CoreShowChannels", "ParkedCalls"]
        assert floor.phases() == ["up"]
        names = [type(e.fact).__name__ for e in floor.told if not isinstance(e.fact, AgentStateChanged)]
        assert names == [
            "PbxStatusChanged", "QueueAdded", "QueueMemberJoined", "CallOriginated", "PbxResynced",
        ]  # fmt: skip
        told = [(change.old, change.new, change.by) for change in floor.changes("anna")]  # has no session
        assert told == [("logged_off", "unknown", "pbx"), ("unknown", "ready", "system")]
        (resynced,) = floor.facts(PbxResynced)
        assert (resynced.reason, resynced.calls, resynced.differences["missed"]) == ("connected", 1, 1)
        assert floor.switches["main"].drift == {}  # what was never known is not drift


async def test_events_during_the_asking_are_held_back_and_folded_after() -> None:
    """A call comes and one goes while the lists are on their way; the lists know of neither."""
    async with at_a_peer() as (peer, floor):
        peer.session.drop()
        await floor.until(lambda: "down" in floor.phases())
        peer.channels = [channel("1.0"), channel("7.0")]
        peer.before_lists = lambda session: session.write(
            appears("8.0", name="PJSIP/trunk-8") + hangs_up("1.0") + member("1", "QueueMemberPause")
        )
        mark = len(floor.told)
        await floor.until(lambda: floor.phases()[-1] == "up")
        await floor.until(lambda: set(floor.cleared()) == {"main:1.0"})
        names = [type(e.fact).__name__ for e in floor.told[mark:]]
        assert names.index("PbxResynced") < names.index("CallCleared")
        assert {view.id for view in floor.calls["main"].views()} == {"main:7.0", "main:8.0"}
        assert floor.member("main:sales", "anna") == (True, None)
        assert floor.cleared()["main:1.0"] == 1
        assert floor.facts(CallCleared)[0].outcome != "lost"


async def test_after_a_break_the_difference_is_told_with_its_reason() -> None:
    async with at_a_peer() as (peer, floor):
        viewer = Viewer(floor, ROOT)
        peer.session.drop()
        await floor.until(lambda: "down" in floor.phases())
        peer.channels, peer.members = [channel("2.0")], []
        await floor.until(lambda: floor.phases()[-1] == "up")
        reason, differences = floor.resyncs()[-1]
        assert reason == "reconnected"
        assert {name: differences[name] for name in ("members", "ghosts", "missed")} == dict.fromkeys(
            ("members", "ghosts", "missed"), 1
        )
        assert floor.switches["main"].drift == differences
        (ended,) = floor.facts(CallCleared)
        assert (ended.call, ended.outcome) == ("main:1.0", "lost")
        assert floor.facts(ConnectionCleared)[0].reason == "lost"
        floor.links["main"] = floor.switches["main"].view
        assert viewer.folded() == viewer.fresh()


async def test_the_view_of_the_link_is_what_was_told() -> None:
    async with at_a_peer() as (peer, floor):
        switch = floor.switches["main"]

        def same() -> bool:
            last, view = floor.facts(PbxStatusChanged)[-1], switch.view
            return (last.at, last.phase, last.code, last.why) == (view.since, view.phase, view.code, view.why)

        assert same()
        assert switch.view.phase == "up"
        peer.session.drop()
        await floor.until(lambda: "down" in floor.phases())
        assert same()
        await floor.until(lambda: floor.phases()[-1] == "up")
        assert same()
        assert floor.phases() == ["up", "down", "connecting", "up"]


async def test_a_pbx_that_does_not_tell_its_state_is_asked_until_it_does() -> None:
    async with at_a_peer() as (peer, floor):
        floor.log_on(["anna"])
        peer.refuses = "Permission denied"
        peer.session.drop()
        why = "main is connected, but its state cannot be asked for"
        await floor.until(lambda: floor.switches["main"].view.why.startswith(why))
        view = floor.switches["main"].view
        assert (view.phase, view.code) == ("connecting", "not_readable")
        assert "Permission denied" in view.why
        assert floor.state("anna").startswith("unknown")
        await peer.until(lambda: len(peer.asked("QueueStatus")) >= 4)
        assert len(floor.facts(PbxStatusChanged)) == 4  # up, down, connecting, why not: said once
        peer.refuses = None
        await floor.until(lambda: floor.phases()[-1] == "up")
        assert floor.state("anna") == "ready"


async def test_a_regular_comparison_that_fails_changes_nothing_and_comes_again() -> None:
    async with at_a_peer(resync_every=0.1) as (peer, floor):
        peer.refuses = "busy"
        asked = len(peer.asked("QueueStatus"))
        await peer.until(lambda: len(peer.asked("QueueStatus")) > asked + 1)
        assert floor.switches["main"].synced
        assert floor.switches["main"]._touched is None or len(floor.switches["main"]._touched) == 0
        peer.refuses = None
        peer.channels = []
        await floor.until(lambda: floor.cleared())
        assert floor.resyncs()[-1] == ("regular comparison", {"ghosts": 1})
        assert floor.agents.corrected == 0
        peer.members = [member(paused="1")]  # she was shown ready, and is not: the event was lost
        await floor.until(lambda: floor.resyncs()[-1] == ("regular comparison", {"members": 1}))
        told = floor.changes("anna")[-1]
        assert (told.old, told.new, told.by) == ("ready", "not_ready", "pbx")
        assert told.why.endswith("; found when the PBX main was asked again")
        assert floor.agents.corrected == 1


async def test_too_many_events_during_the_asking_begin_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti.switch.HELD_BACK_MOST", 10)
    async with at_a_peer() as (peer, floor):
        flood = b"".join(appears(f"9.{n}", name=f"PJSIP/x-{n}") + hangs_up(f"9.{n}") for n in range(30))
        floods = iter([flood])
        peer.before_lists = lambda session: session.write(next(floods, b""))
        peer.session.drop()
        await floor.until(lambda: "down" in floor.phases())
        await floor.until(lambda: floor.phases()[-1] == "up")
        assert len(peer.asked("QueueStatus")) >= 3
        assert {view.id for view in floor.calls["main"].views()} == {"main:1.0"}


async def test_what_was_held_back_is_folded_in_its_order_while_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thousands of events wait after the lists: what comes while they are folded is folded after them."""
    monkeypatch.setattr("cti.switch.CAUGHT_UP_AT_ONCE", 20)
    async with at_a_peer() as (peer, floor):
        many = [f"9.{n}" for n in range(1500)]
        flood = b"".join(appears(id, name=f"PJSIP/trunk-{id}") for id in many)
        floods = iter([flood])
        peer.before_lists = lambda session: session.write(next(floods, b""))
        peer.session.drop()
        await floor.until(lambda: "down" in floor.phases())
        turns = 0
        while "9.700" not in {view.id.partition(":")[2] for view in floor.calls["main"].views()}:
            turns += 1
            await asyncio.sleep(0)
        assert len(floor.calls["main"]) < len(many)
        peer.session.write(b"".join(hangs_up(id) for id in many[::-1]))
        await floor.until(lambda: len(floor.cleared()) == len(many))
        assert turns > 30
        assert {view.id for view in floor.calls["main"].views()} == {"main:1.0"}
        assert floor.switches["main"].drift == {}
        assert {fact.outcome for fact in floor.facts(CallCleared)} == {"unanswered"}


async def test_a_record_that_cannot_be_folded_stops_nothing_and_is_looked_into() -> None:
    told: list[Any] = []

    class Broken(Calls):
        def apply(self, record: Record) -> list[Any]:
            if isinstance(record, BridgeEntered):
                raise RuntimeError("boom")
            return super().apply(record)

    def nobody(device: str) -> None:
        return None

    calls = Broken("main", agent_at=nobody, is_trunk=lambda _: False, inbound_contexts=())
    switch = Switch("main", calls=calls, queues=Queues("main", agent_at=nobody), publish=told.extend)
    switch.synced = True
    bad = BridgeEntered(1.0, "1.0", "1.0", "b", "simple_bridge", "basic")
    switch.on_records([bad, MemberSeen(1.0, "sales", "X/1", "X", 0, False, None, "idle", "X/1"), bad])  # type: ignore[arg-type]
    assert [fact.TYPE for fact in told] == ["queue.added", "queue.member_joined"]
    await asyncio.sleep(0)


async def test_a_record_without_a_time_gets_ours() -> None:
    told: list[Any] = []
    calls = Calls("main", agent_at=lambda _: None, is_trunk=lambda _: False, inbound_contexts=())
    queues = Queues("main", agent_at=lambda _: None)
    switch = Switch("main", calls=calls, queues=queues, publish=told.extend, clock=lambda: 77.0)
    switch.on_records([MemberSeen(0.0, "sales", "X/1", "X", 0, False, None, "idle", "X/1")])  # type: ignore[arg-type]
    assert isinstance(told[-1], QueueMemberJoined)
    assert told[-1].at.timestamp() == 77.0
    switch.on_link(LinkState("down", "closed", "gone", 70.0))
    assert told[-1].at.timestamp() == 70.0


# ------------------------------------------------------------------------------------------ a real Asterisk

PEOPLE = [simulated(number, ("main:sales", "main:support")) for number in range(1101, 1113)]


def ready(floor: LiveFloor) -> None:
    floor.log_on([p.login for p in PEOPLE])


async def settled(floor: LiveFloor) -> None:
    """Waits until every agent is a member of both queues, not paused."""
    queues = ("main:sales", "main:support")
    await floor.until(lambda: all(floor.member(q, p.login) == (False, None) for q in queues for p in PEOPLE))


async def test_comparisons_find_nothing_wrong_while_calls_come_and_go(asterisk_factory: Factory) -> None:
    """Eight seconds of eight calls a second, compared all the time: not one difference, every call ended once."""
    pbx = asterisk_factory("pbx")
    async with live(pbx, PEOPLE, resync_every=0.1, wrap_up=QUICK) as floor, callers(pbx) as outside:
        ready(floor)
        await settled(floor)
        asked = 0
        query = floor.links_of["main"].query

        async def counted(action: str, *args: Any, **more: Any) -> list[bytes]:
            nonlocal asked
            asked += action == "CoreShowChannels"
            return await query(action, *args, **more)

        floor.links_of["main"].query = counted  # type: ignore[method-assign]
        ends = time.monotonic() + 8.0
        while time.monotonic() < ends:
            await outside.call(talk=1 + outside.made % 4, exten=("5550100", "5550200")[outside.made % 2])
            await asyncio.sleep(0.125)
        floor.publish(floor.agents.tick(now()))
        await floor.until(lambda: len(floor.cleared()) == outside.made, within=40.0)
        await floor.until(lambda: not floor.facts(CallOriginated) or len(floor.calls["main"]) == 0)
        assert asked >= 6
        assert floor.switches["main"].drift == {}
        assert floor.resyncs() == [("connected", {"queues": len(floor.queues["main"].views())})]
        assert set(floor.cleared().values()) == {1}
        assert {fact.outcome for fact in floor.facts(CallCleared)} <= {"answered", "abandoned"}
        assert floor.calls["main"].unknown == 0
        await floor.until(
            lambda: not any(floor.calls["main"].sizes().values())
        )  # the last halves of Local channels
        assert len(floor.audience) == 0


def _tells(record: Record) -> bool:
    """Of the hangups only the caller's own: the far half of a Local channel is no party."""
    return not isinstance(record, ChannelGone) or record.uniqueid == record.linkedid


def answered(floor: LiveFloor) -> list[CallEstablished]:
    """The calls that an agent has answered."""
    return [fact for fact in floor.facts(CallEstablished) if fact.agent is not None]


@pytest.mark.parametrize("lost", [ChannelGone, BridgeEntered, MemberSeen])
async def test_an_event_that_got_lost_is_found_by_the_next_comparison(
    asterisk_factory: Factory, lost: type[Record]
) -> None:
    pbx = asterisk_factory("pbx")
    async with live(pbx, PEOPLE[:1], resync_every=0.5, wrap_up=QUICK) as floor, callers(pbx) as outside:
        floor.log_on(["agent1101"])
        await floor.until(lambda: floor.member("main:sales", "agent1101") == (False, None))
        await asyncio.sleep(1.0)  # the event that is to get lost must not be one of the log-on
        dropped: list[Record] = []

        def spoil(chunk: list[Record]) -> list[Record]:
            found = next((r for r in chunk if isinstance(r, lost) and _tells(r)), None)
            if found is None or dropped:
                return chunk
            dropped.append(found)
            return [r for r in chunk if r is not found]

        floor.spoil = spoil
        if lost is MemberSeen:
            await asyncio.to_thread(
                pbx.cli, "queue pause member Local/1101@sim-agent/n queue sales reason Chat"
            )
        else:
            await outside.call(talk=4 if lost is ChannelGone else 30)
        await floor.until(lambda: len(floor.resyncs()) > 1, within=20.0)
        assert dropped
        reason, differences = floor.resyncs()[1]
        assert reason in ("regular comparison", "second look after a break")
        kind = {ChannelGone: "ghosts", BridgeEntered: "bridges", MemberSeen: "members"}[lost]
        assert differences.get(kind) == 1
        if lost is ChannelGone:
            await floor.until(lambda: floor.cleared(), within=20.0)
            assert not floor.calls["main"]._calls
        if lost is MemberSeen:
            await floor.until(lambda: floor.state("agent1101") == "not_ready (Chat)")
            assert floor.agents.corrected == 1
            told = floor.changes("agent1101")[-1]
            assert (told.old, told.why) == (
                "ready",
                "paused at the PBX; found when the PBX main was asked again",
            )


async def test_asterisk_killed_in_mid_call_and_started_again(asterisk_factory: Factory) -> None:
    """Calls end as lost, once; agents are unknown, then right; the members are put back as the agents want it."""
    pbx = asterisk_factory("pbx")
    async with live(pbx, PEOPLE, wrap_up=WrapUp(seconds=60.0)) as floor, callers(pbx) as outside:
        ready(floor)
        await settled(floor)
        for _ in range(3):
            await outside.call(talk=60)
        await floor.until(lambda: len(answered(floor)) == 3)
        floor.publish(floor.agents.make_not_ready("agent1112", "Lunch", by="agent1112", at=now()))
        busy = {view.agent for view in floor.agents.views(now()) if view.state == "busy"}
        assert len(busy) == 3
        assert pbx.pid is not None
        os.kill(pbx.pid, signal.SIGKILL)
        await floor.until(lambda: floor.phases()[-1] == "down")
        assert {view.state.value for view in floor.agents.views(now())} == {"unknown"}
        assert not floor.cleared()  # nobody knows yet
        await asyncio.to_thread(pbx.kill)
        await asyncio.to_thread(pbx.start)
        back = await floor.until(lambda: floor.phases()[-1] == "up", within=30.0)
        assert back < 10.0
        assert len(floor.cleared()) == 3
        assert set(floor.cleared().values()) == {1}
        assert {fact.outcome for fact in floor.facts(CallCleared)} == {"lost"}
        views = {view.agent: view for view in floor.agents.views(now())}
        assert {login for login, view in views.items() if view.state == "wrap_up"} == busy
        assert views["agent1112"].state == "not_ready"
        others = views.keys() - busy - {"agent1112"}
        assert {views[login].state.value for login in others} == {"ready"}

        def as_wanted() -> bool:
            def wanted(login: str) -> tuple[bool, str | None]:
                if login in busy:
                    return True, "Wrap-up"
                return (True, "Lunch") if login == "agent1112" else (False, None)

            return all(
                floor.member(q, p.login) == wanted(p.login)
                for p in PEOPLE
                for q in ("main:sales", "main:support")
            )

        put_back = await floor.until(as_wanted)
        assert put_back < 1.5
        reason, differences = floor.resyncs()[-1]
        assert reason == "reconnected"
        assert differences["members"] == 24
        assert differences["ghosts"] >= 6


async def test_restarted_from_the_command_line_the_members_are_back_within_a_second(
    asterisk_factory: Factory,
) -> None:
    pbx = asterisk_factory("pbx")
    async with live(pbx, PEOPLE) as floor:
        ready(floor)
        await settled(floor)
        floor.publish(floor.agents.make_not_ready("agent1105", "Break", by="agent1105", at=now()))
        await floor.until(lambda: floor.member("main:sales", "agent1105") == (True, "Break"))
        await asyncio.to_thread(pbx.stop)
        await floor.until(lambda: floor.phases()[-1] == "down")
        await asyncio.to_thread(pbx.start)
        await floor.until(lambda: floor.phases()[-1] == "up", within=30.0)

        def back() -> bool:
            members = {p.login: floor.member("main:support", p.login) for p in PEOPLE}
            return members.pop("agent1105") == (True, "Break") and set(members.values()) == {(False, None)}

        assert await floor.until(back) < 1.0
        assert floor.state("agent1105") == "not_ready (Break)"
        said = pbx.cli("queue show sales")
        assert said.count("(dynamic)") == len(PEOPLE)
        assert said.count("(paused:Break") == 1


async def test_a_frozen_asterisk(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory("pbx")
    async with live(pbx, PEOPLE, wrap_up=QUICK) as floor, callers(pbx) as outside:
        ready(floor)
        await settled(floor)
        await outside.call(talk=60)
        await floor.until(lambda: answered(floor))
        talking = answered(floor)[0].agent or ""
        pbx.freeze()
        try:
            await floor.until(lambda: floor.phases()[-1] == "down")
            assert floor.switches["main"].view.code == "frozen"
            assert floor.state(talking).startswith("unknown")
            floor.publish(floor.agents.make_not_ready("agent1112", "Lunch", by="agent1112", at=now()))
            floor.publish(floor.agents.make_not_ready(talking, "Break", by=talking, at=now()))
        finally:
            pbx.thaw()
        await floor.until(lambda: floor.phases()[-1] == "up", within=20.0)
        assert floor.state(talking) == "busy then not_ready: Break"  # the same call goes on
        assert not floor.cleared()
        await floor.until(lambda: floor.member("main:sales", "agent1112") == (True, "Lunch"))
        assert len(floor.facts(CallOffered)) == 1
