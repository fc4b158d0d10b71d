"""Membership: Asterisk's queues have each agent as their state wants it, whatever happened at the PBX meanwhile."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from cti.agents import WrapUp
from cti.ami import ActionRefused, ActionTimeout, NotConnected
from cti.ami_events import MemberRemoved, MemberSeen, MemberStatus, QueueRow
from cti.embedded.sample_pbx import SamplePbx
from cti.facts import AgentStateChanged, QueueMemberPaused
from cti.membership import LOGGED_OFF, Membership
from cti.people import Agent
from tests.floor import NOON, Floor, after, person
from tests.live_floor import callers, live, now, simulated

Factory = Callable[..., SamplePbx]
Headers = Mapping[str, str]

# ------------------------------------------------------------------------------------------ a PBX that may refuse


def refused(message: str) -> ActionRefused:
    return ActionRefused(message, {"Response": "Error", "Message": message})


class Pbx:
    """Queue members as Asterisk keeps them; each change comes back as an event. `refuses` answers instead of it."""

    def __init__(self, floor: Floor, name: str, queues: tuple[str, ...]) -> None:
        self.floor, self.name = floor, name
        self.members: dict[tuple[str, str], MemberSeen] = {}
        self.static: set[str] = set()
        self.sent: list[tuple[str, str]] = []
        self.refuses: Callable[[str, Headers], Exception | None] = lambda action, headers: None
        self.gate = asyncio.Event()
        self.gate.set()
        floor.publish(floor.queues[name].rebuild([QueueRow(q, "x") for q in queues], [], 1.0)[0])

    async def send(self, action: str, headers: Headers) -> None:
        self.sent.append((action, headers["Queue"]))
        await self.gate.wait()
        error = self.refuses(action, headers)
        if error is not None:
            raise error
        await asyncio.sleep(0)
        key = headers["Queue"], headers["Interface"]
        if action == "QueueAdd":
            if key in self.members:
                raise refused("Unable to add interface: Already there")
            paused = headers["Paused"] == "true"
            self.members[key] = MemberSeen(
                2.0, *key, headers["MemberName"], int(headers["Penalty"]), paused, headers.get("Reason"),
                MemberStatus.NOT_IN_USE, headers.get("StateInterface", key[1]),
            )  # fmt: skip
        elif key not in self.members:
            raise refused("Unable to remove interface: Not there")
        elif action == "QueueRemove":
            if key[1] in self.static:
                raise refused("Member not dynamic")
            del self.members[key]
            asyncio.get_running_loop().call_soon(self.event, MemberRemoved(2.0, *key))
            return
        elif action == "QueuePause":
            self.pause(key[1], headers["Paused"] == "true", headers.get("Reason"), queue=key[0])
            return
        elif action == "QueuePenalty":
            old = self.members[key]
            self.members[key] = MemberSeen(
                2.0, *key, old.name, int(headers["Penalty"]), old.paused, old.pause_reason, old.status, key[1]
            )
        asyncio.get_running_loop().call_soon(self.event, self.members[key])

    def pause(self, interface: str, paused: bool, reason: str | None, *, queue: str) -> None:
        """Somebody pauses or unpauses a member."""
        old = self.members[queue, interface]
        self.members[queue, interface] = MemberSeen(
            2.0, queue, interface, old.name, old.penalty, paused, reason, old.status, interface
        )
        asyncio.get_running_loop().call_soon(self.event, self.members[queue, interface])

    def event(self, record: MemberSeen | MemberRemoved) -> None:
        self.floor.feed([record], self.name)

    def has(self) -> dict[str, tuple[int, bool, str | None]]:
        return {f"{q} {i}": (m.penalty, m.paused, m.pause_reason) for (q, i), m in self.members.items()}


class Bench:
    """Membership between a floor and such PBXs."""

    def __init__(self, *people: Agent, pbxs: tuple[str, ...] = ("main",)) -> None:
        self.floor = Floor(
            people or (person("anna", queues=("main:sales", "main:support"), main="PJSIP/1"),), pbxs=pbxs
        )
        self.pbxs = {name: Pbx(self.floor, name, ("sales", "support")) for name in pbxs}
        self.pbx = self.pbxs[pbxs[0]]
        self.up = set(pbxs)
        self.membership = Membership(
            directory=self.floor.directory,
            agents=self.floor.agents,
            queues=self.floor.queues,
            send={name: pbx.send for name, pbx in self.pbxs.items()},  # type: ignore[misc]
            up=lambda name: name in self.up,
            publish=self.floor.bus.publish,
        )
        self.floor.bus.carry(lambda envelope: self.membership.hear(envelope.fact))
        self.second = 0.0

    def wish(self, verb: str, *args: object, login: str = "anna", **more: object) -> None:
        self.second += 1
        at = after(self.second)
        self.floor.publish(getattr(self.floor.agents, verb)(login, *args, by=login, at=at, **more))

    async def settled(self, within: float = 5.0) -> None:
        async with asyncio.timeout(within):
            while self.membership.unsettled:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def bench(*people: Agent, pbxs: tuple[str, ...] = ("main",)) -> AsyncIterator[Bench]:
    made = Bench(*people, pbxs=pbxs)
    task = asyncio.create_task(made.membership.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def test_a_day_at_the_queues() -> None:
    async with bench() as b:
        b.wish("log_on", ready=False)
        await b.settled()
        assert b.pbx.has() == {
            "sales PJSIP/1": (0, True, "Not ready"),
            "support PJSIP/1": (1, True, "Not ready"),
        }
        b.wish("make_ready")
        await b.settled()
        assert {now[1:] for now in b.pbx.has().values()} == {(False, None)}
        b.wish("make_not_ready", "Lunch")
        await b.settled()
        b.wish("make_not_ready", "Break")
        await b.settled()
        assert {now[1:] for now in b.pbx.has().values()} == {(True, "Break")}
        b.wish("log_off")
        await b.settled()
        assert b.pbx.has() == {}
        assert Counter(action for action, _ in b.pbx.sent) == {
            "QueueAdd": 2,
            "QueuePause": 6,
            "QueueRemove": 2,
        }


async def test_changing_ones_mind_quickly_is_not_taken_for_a_pause_by_somebody_else() -> None:
    async with bench() as b:
        b.wish("log_on", ready=True)
        await b.settled()
        for _ in range(20):
            b.wish("make_not_ready", "Break")
            await asyncio.sleep(0)
            b.wish("make_ready")
            await asyncio.sleep(0)
        await b.settled()
        assert b.floor.state("anna") == "ready"
        assert {now[1] for now in b.pbx.has().values()} == {False}
        assert not [c for c in b.floor.changes("anna") if c.by == "pbx"]


async def test_a_pause_at_the_pbx_is_taken_over_in_all_queues_and_not_fought() -> None:
    async with bench() as b:
        b.wish("log_on", ready=True)
        await b.settled()
        sent = len(b.pbx.sent)
        b.pbx.pause("PJSIP/1", True, None, queue="sales")
        await asyncio.sleep(0.01)
        await b.settled()
        assert b.floor.state("anna") == "not_ready (Paused at the PBX)"
        assert {now[1:] for now in b.pbx.has().values()} == {(True, "Paused at the PBX")}
        assert len(b.pbx.sent) - sent == 2  # the reason in one queue, the pause in the other; then peace
        b.pbx.pause("PJSIP/1", False, None, queue="support")
        await asyncio.sleep(0.01)
        await b.settled()
        assert b.floor.state("anna") == "ready"
        assert {now[1] for now in b.pbx.has().values()} == {False}
        assert [c.by for c in b.floor.changes("anna")] == ["anna", "pbx", "pbx"]


async def test_somebody_elses_change_in_the_middle_of_ours_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti.membership.AGAIN_AFTER", (0.02,))
    async with bench() as b:
        b.wish("log_on", ready=False)
        await b.settled()

        def meddle(action: str, headers: Headers) -> None:
            if headers["Queue"] == "support":  # the other queue has just been unpaused
                b.pbx.refuses = lambda action, headers: None
                b.pbx.pause("PJSIP/1", True, "Chat", queue="sales")

        b.pbx.refuses = meddle
        b.wish("make_ready")
        async with asyncio.timeout(2):
            while any(now[1] for now in b.pbx.has().values()) or b.membership.unsettled:
                await asyncio.sleep(0.005)
        assert b.floor.state("anna") == "ready"
        assert b.pbx.sent[-1] == ("QueuePause", "sales")


async def test_members_taken_out_are_put_back_and_strangers_are_left_alone() -> None:
    people = (person("anna", main="PJSIP/1"), person("ben", main="PJSIP/2"))
    async with bench(*people) as b:
        stranger = MemberSeen(
            1.0, "sales", "PJSIP/9", "X", 0, False, None, MemberStatus.NOT_IN_USE, "PJSIP/9"
        )
        not_yet = MemberSeen(
            1.0, "sales", "PJSIP/2", "Ben", 0, False, None, MemberStatus.NOT_IN_USE, "PJSIP/2"
        )
        for found in (stranger, not_yet):
            b.pbx.members["sales", found.interface] = found
            b.pbx.event(found)
        b.wish("log_on", ready=True)
        b.floor.link("main", up=True, at=NOON)
        await b.settled()
        del b.pbx.members["sales", "PJSIP/1"]
        b.pbx.event(MemberRemoved(3.0, "sales", "PJSIP/1"))
        await b.settled()
        assert set(b.pbx.has()) == {"sales PJSIP/1", "sales PJSIP/9", "sales PJSIP/2"}
        b.wish("log_on", login="ben", ready=False)  # from now on it is our business
        await b.settled()
        assert b.pbx.has()["sales PJSIP/2"] == (0, True, "Not ready")
        b.wish("log_off", login="ben")
        await b.settled()
        assert set(b.pbx.has()) == {"sales PJSIP/1", "sales PJSIP/9"}


async def test_a_member_of_queues_conf_is_paused_when_logged_off() -> None:
    async with bench(person("anna", main="PJSIP/1")) as b:
        fixed = MemberSeen(
            1.0, "sales", "PJSIP/1", "Anna", 0, False, None, MemberStatus.NOT_IN_USE, "PJSIP/1"
        )
        b.pbx.members["sales", "PJSIP/1"] = fixed
        b.pbx.static.add("PJSIP/1")
        b.pbx.event(fixed)
        b.wish("log_on", ready=True)
        await b.settled()
        assert b.pbx.sent == []
        b.wish("log_off")
        await b.settled()
        assert b.pbx.has() == {"sales PJSIP/1": (0, True, LOGGED_OFF)}
        b.floor.link("main", up=True, at=NOON)
        await b.settled()
        assert [action for action, _ in b.pbx.sent] == ["QueueRemove", "QueuePause"]  # not again and again
        b.wish("log_on", ready=True)
        await b.settled()
        assert b.pbx.has() == {"sales PJSIP/1": (0, False, None)}
        assert b.membership.failures == 0


async def test_what_was_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti.membership.AGAIN_AFTER", (0.02, 0.04))
    async with bench() as b:
        errors: list[Exception] = [
            ActionTimeout("late"),
            refused("Permission denied"),
            RuntimeError("odd"),
        ]
        b.pbx.refuses = lambda action, _: errors.pop() if action == "QueueAdd" and errors else None
        b.wish("log_on", ready=True)
        async with asyncio.timeout(5):
            while len(b.pbx.has()) < 2:
                await asyncio.sleep(0.005)
        assert b.membership.failures == 2
        await b.settled()
        assert {now[1] for now in b.pbx.has().values()} == {False}


@asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[Bench, Bench]]:
    """Two servers at one PBX, each with sessions of its own."""
    async with bench(person("anna", main="PJSIP/1")) as a, bench(person("anna", main="PJSIP/1")) as b:
        b.membership._send = {"main": a.pbx.send}
        tell = a.pbx.event

        def both(record: MemberSeen | MemberRemoved) -> None:
            tell(record)
            b.pbx.event(record)

        a.pbx.event = both  # type: ignore[method-assign]
        yield a, b


async def calm(pbx: Pbx) -> int:
    """Waits until nothing has been sent for a while; how much was."""
    sent = -1
    async with asyncio.timeout(20):
        while sent != len(pbx.sent):
            sent = len(pbx.sent)
            await asyncio.sleep(0.3)
    return sent


async def test_two_servers_do_not_fight_for_ever_over_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti.membership.AGAIN_AFTER", (0.01,))
    async with two_servers() as (a, b):
        b.wish("log_on", ready=False)
        b.wish("log_off")
        a.wish("log_on", ready=True)  # the other one takes her out again
        assert await calm(a.pbx) < 40
        gave_up = [server for server in (a, b) if server.membership.contested]
        assert gave_up
        assert not a.membership.unsettled + b.membership.unsettled
        if a in gave_up:
            assert a.floor.state("anna") == "not_ready (Contested at the PBX)"
            last = a.floor.changes("anna")[-1]
            assert last.by == "system"
            assert "another program keeps changing" in last.why
        else:
            assert a.pbx.has() == {"sales PJSIP/1": (0, False, None)}
        for server in gave_up:  # what a person asks for is done again
            server.wish("log_on", ready=False)
            server.wish("make_ready")
        await calm(a.pbx)
        assert a.pbx.has() == {"sales PJSIP/1": (0, False, None)}


async def test_pauses_that_flap_at_the_pbx_are_not_followed_for_ever() -> None:
    async with bench(person("anna", main="PJSIP/1")) as b:
        b.wish("log_on", ready=True)
        await b.settled()
        for n in range(40):
            b.pbx.pause("PJSIP/1", n % 2 == 0, None, queue="sales")
            await asyncio.sleep(0.002)
            await b.settled()
        assert b.membership.contested == 1
        assert b.floor.state("anna") == "not_ready (Contested at the PBX)"
        assert len(b.floor.changes("anna")) < 15
        b.wish("make_ready")
        await b.settled()
        assert b.floor.state("anna") == "ready"
        assert b.pbx.has() == {"sales PJSIP/1": (0, False, None)}


async def test_members_lost_by_restarts_of_the_pbx_are_put_back_however_often() -> None:
    async with bench(person("anna", main="PJSIP/1")) as b:
        b.wish("log_on", ready=True)
        await b.settled()
        for n in range(8):
            b.floor.link("main", up=False, at=after(100 + n))
            del b.pbx.members["sales", "PJSIP/1"]
            b.pbx.event(MemberRemoved(3.0, "sales", "PJSIP/1"))
            b.floor.link("main", up=True, at=after(100.5 + n))
            await b.settled()
        assert b.pbx.has() == {"sales PJSIP/1": (0, False, None)}
        assert b.membership.contested == 0


async def test_a_link_that_goes_in_the_middle_waits_for_the_pbx_to_be_back() -> None:
    async with bench() as b:

        def gone(action: str, headers: Headers) -> Exception:
            b.up.clear()
            return NotConnected(f"{action} was not sent")

        b.pbx.refuses = gone
        b.wish("log_on", ready=True)
        await b.settled()
        sent = len(b.pbx.sent)
        b.wish("make_not_ready", "Break")
        await b.settled()
        assert len(b.pbx.sent) == sent
        b.pbx.refuses = lambda action, headers: None
        b.up.add("main")
        b.floor.link("main", up=True, at=after(60))
        await b.settled()
        assert {now[1:] for now in b.pbx.has().values()} == {(True, "Break")}


async def test_a_pbx_that_does_not_answer_holds_up_nobody_at_another_one() -> None:
    anna = person("anna", queues=("main:sales", "west:sales"), main="PJSIP/1", west="PJSIP/7")
    ben = person("ben", queues=("west:sales",), west="PJSIP/8")
    async with bench(anna, ben, pbxs=("main", "west")) as b:
        b.pbxs["main"].gate.clear()
        b.wish("log_on", ready=True)
        b.wish("log_on", login="ben", ready=True)
        async with asyncio.timeout(2):
            while len(b.pbxs["west"].has()) < 2:
                await asyncio.sleep(0.005)
        assert b.pbxs["main"].has() == {}
        b.pbxs["main"].gate.set()
        await b.settled()
        assert b.pbxs["main"].has() == {"sales PJSIP/1": (0, False, None)}
        assert b.pbxs["west"].has()["sales PJSIP/7"] == (1, False, None)


async def test_people_phones_and_queues_that_change_are_followed() -> None:
    async with bench() as b:
        b.wish("log_on", ready=True)
        await b.settled()
        moved = person("anna", queues=("main:support",), main="PJSIP/5")
        b.floor.directory.load([moved], ())
        b.floor.publish(b.floor.queues["main"].reassign(2.0))
        b.membership.people_changed()
        await b.settled()
        assert b.pbx.has() == {"support PJSIP/5": (0, False, None)}
        b.floor.directory.load([person("anna", queues=("main:sales", "main:support"), main="PJSIP/5")], ())
        b.membership.people_changed()
        await b.settled()
        assert b.pbx.has() == {"sales PJSIP/5": (0, False, None), "support PJSIP/5": (1, False, None)}
        b.floor.directory.load([], ())
        b.floor.publish(b.floor.queues["main"].reassign(3.0))
        b.floor.publish(b.floor.agents.people_changed(after(99)))
        await b.settled()
        assert b.pbx.has() == {}
        assert b.floor.agents.known() == []


async def test_a_queue_that_comes_with_a_reload_gets_its_members() -> None:
    async with bench(person("anna", queues=("main:new",), main="PJSIP/1")) as b:
        b.wish("log_on", ready=True)
        await b.settled()
        assert b.pbx.sent == []  # no such queue yet
        rows = [QueueRow("sales", "x"), QueueRow("support", "x"), QueueRow("new", "x")]
        b.floor.publish(b.floor.queues["main"].rebuild(rows, [], 3.0)[0])
        await b.settled()
        assert b.pbx.has() == {"new PJSIP/1": (0, False, None)}


# ------------------------------------------------------------------------------------------ a real Asterisk

BOTH = ("main:sales", "main:support")


def shown(pbx: SamplePbx, queue: str = "sales") -> str:
    return pbx.cli(f"queue show {queue}")


async def test_one_agent_at_a_real_asterisk(asterisk_factory: Factory) -> None:
    """Log on, ready, a call, wrap-up, pauses by hand at the PBX, log off: Asterisk has it as the agent sees it."""
    pbx = asterisk_factory("pbx")
    anna = simulated(5101, BOTH)
    async with live(pbx, [anna], wrap_up=WrapUp(seconds=1.5)) as floor, callers(pbx) as outside:
        login = anna.login

        async def comes(*wanted: object) -> None:
            await floor.until(lambda: all(floor.member(queue, login) == wanted for queue in BOTH))

        floor.log_on([login], ready=False)
        await comes(True, "Not ready")
        said = shown(pbx)
        assert re.search(r"Agent5101 \(Local/5101@sim-agent/n.*\(dynamic\).*\(paused:Not ready", said)
        assert "with penalty 1" in shown(pbx, "support")
        floor.publish(floor.agents.make_ready(login, by=login, at=now()))
        await comes(False, None)
        await outside.call(talk=60)
        await floor.until(lambda: floor.state(login) == "busy")
        await comes(True, "Wrap-up")
        assert floor.state(login) == "wrap_up"
        await floor.until(lambda: floor.state(login) == "ready")
        await comes(False, None)

        mark = len(floor.sent)
        pbx.cli("queue pause member Local/5101@sim-agent/n queue sales reason Coffee")
        await floor.until(lambda: floor.state(login) == "not_ready (Coffee)")
        await comes(True, "Coffee")
        pbx.cli("queue unpause member Local/5101@sim-agent/n")
        await floor.until(lambda: floor.state(login) == "ready")
        await comes(False, None)
        assert len(floor.sent) - mark <= 4  # no fight
        pbx.cli("queue remove member Local/5101@sim-agent/n from sales")
        await floor.until(lambda: floor.member("main:sales", login) is None)
        await comes(False, None)

        floor.publish(floor.agents.log_off(login, by=login, at=now()))
        await floor.until(lambda: all(floor.member(queue, login) is None for queue in BOTH))
        assert "sim-agent" not in shown(pbx) + shown(pbx, "support")
        assert floor.membership.failures == 0


async def test_wishes_while_the_pbx_is_down_are_brought_in_line_later(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory("pbx")
    people = [simulated(n) for n in (1101, 1102, 1103)]
    async with live(pbx, people) as floor:
        floor.log_on(["agent1101", "agent1102"])
        await floor.until(lambda: floor.member("main:sales", "agent1102") == (False, None))
        await asyncio.to_thread(pbx.stop)
        await floor.until(lambda: floor.phases()[-1] == "down")
        floor.publish(floor.agents.make_not_ready("agent1101", "Lunch", by="agent1101", at=now()))
        floor.publish(floor.agents.log_off("agent1102", by="agent1102", at=now()))
        floor.log_on(["agent1103"])
        assert [floor.state(p.login).partition(" ")[0] for p in people] == [
            "unknown",
            "logged_off",
            "unknown",
        ]
        await asyncio.to_thread(pbx.start)
        await floor.until(lambda: floor.phases()[-1] == "up", within=30.0)
        await floor.until(
            lambda: (
                floor.member("main:sales", "agent1101") == (True, "Lunch")
                and floor.member("main:sales", "agent1103") == (False, None)
            )
        )
        assert floor.member("main:sales", "agent1102") is None
        assert [floor.state(p.login) for p in people] == ["not_ready (Lunch)", "logged_off", "ready"]


async def test_three_hundred_agents_log_on_at_once(asterisk_factory: Factory) -> None:
    """Two queues each: one change after the other, so the PBX is never flooded, and all are in within seconds."""
    pbx = asterisk_factory("pbx")
    people = [simulated(n, BOTH) for n in range(1200, 1500)]
    async with live(pbx, people) as floor:
        started = time.monotonic()
        floor.log_on([p.login for p in people])
        wish = asyncio.get_running_loop().time()
        await floor.until(
            lambda: sum(len(floor.queues["main"].members(queue)) for queue in BOTH) == 600, within=30.0
        )
        took = time.monotonic() - started
        assert len(floor.sent) == 600
        assert took < 10.0
        assert asyncio.get_running_loop().time() - wish < 10.0
        floor.publish(
            [f for p in people for f in floor.agents.make_not_ready(p.login, "Break", by="x", at=now())]
        )
        await floor.until(
            lambda: all(m.paused for queue in BOTH for m in floor.queues["main"].members(queue).values()),
            within=30.0,
        )
        assert len(floor.sent) == 1200
        assert floor.membership.failures == 0
        assert {change.by for change in floor.facts(AgentStateChanged)} <= {
            "x",
            *(p.login for p in people),
            "system",
        }
        assert not [f for f in floor.facts(QueueMemberPaused) if not f.paused]
        print(f"300 agents in two queues: {took:.2f} s")
