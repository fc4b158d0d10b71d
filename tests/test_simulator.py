"""The simulator is held to recordings of Asterisk 22, to our own link and models, and to its faults.

What may differ from the recordings, and why:
- DeviceStateChange and QueueMemberStatus come from another thread in Asterisk: what they say is compared, not their places;
- RTCP reports depend on sound and are not sent; the record of the call (Cdr) likewise moves about;
- the simulator's agents are PJSIP phones: of recordings with agents behind Local channels (02, 03, 05) the caller's channel
  is compared;
- in recordings other than 07, the order is that of each channel: between two channels Asterisk's threads race.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cti.ami import ActionRefused, AmiLink, LinkPhase, LinkStatus
from cti.ami_events import PARSERS, Record, channel_rows, queue_rows
from cti.calls import Calls
from cti.facts import Fact
from cti.queues import Queues
from cti.simulator import VERSION, Caller, Plan, Simulator, User, scripts
from cti.simulator.messages import LEAN_CLASSES, LEAN_DROPPED, Step
from cti.simulator.pbx import Pbx
from cti.switch import LinkState, Switch
from tests.recorded import line, messages, model, parse

ADA = Caller(number="15551234567", name="Ada Lovelace")
RACING = {
    "DeviceStateChange",
    "QueueMemberStatus",
    "Cdr",
    "RTCPSent",
    "QueueMemberAdded",
    "QueueMemberRemoved",
}
OTHER = {"FullyBooted", "SuccessfulAuth"}

Told = tuple[str, str, tuple[str, ...]]
"""An event: its name (with the variable or application it is about), its own channel, and its headers in order."""


def headers_of(raw: bytes) -> list[tuple[str, str]]:
    return [
        (name, value.lstrip(" "))
        for name, _, value in (row.partition(":") for row in raw.decode().split("\r\n"))
    ]


def told(raws: Sequence[bytes], *, racing: bool = False) -> list[Told]:
    found = []
    for raw in raws:
        rows = headers_of(raw)
        if rows[0][0] != "Event" or rows[0][1] in OTHER or (rows[0][1] in RACING) != racing:
            continue
        fields = dict(rows)
        about = fields.get("Variable") or fields.get("Application") or fields.get("DialStatus") or ""
        names = tuple(re.sub(r"\(.*\)", "", name) for name, _ in rows)
        found.append(
            (
                f"{rows[0][1]} {about}".strip(),
                fields.get("Channel") or "dialled " + fields.get("DestChannel", ""),
                names,
            )
        )
    return found


def split(stream: bytes) -> list[bytes]:
    return [raw for raw in stream.split(b"\r\n\r\n") if raw]


class Stage:
    """A PBX whose clock is moved by hand, so that everything happens when it did in the recording."""

    def __init__(self, **given: object) -> None:
        exact = {"greeting": 0.5, "ring": (2.0, 2.0), "talk": (3.5, 3.5), "patience": (90.0, 90.0), "seed": 1}
        shares = {"no_answer": 0.0, "refused": 0.0, "agent_ends": 0.0, "customer_busy": 0.0}
        phones = {"agents": 1, "first_extension": 1003, "agent_names": ("Carol Agent",)}
        self.now = 1795289558.0
        self.pbx = Pbx(Plan(**{**exact, **shares, **phones, **given}), clock=lambda: self.now)  # type: ignore[arg-type]
        self.pbx.hears_full = self.pbx.hears_lean = True
        self.full, self.lean = b"", b""

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.01
            self.pbx.advance()
        full, lean = self.pbx.take()
        self.full += full
        self.lean += lean

    def member(self) -> None:
        self.pbx.add_member("sales", "PJSIP/1003", "Carol")


def one_call(name: str, nth: int = 0) -> list[bytes]:
    """The messages of a recording from its nth inbound call on, up to the next one."""
    raws = [raw for raw in messages(name) if raw.startswith(b"Event: ")]
    starts = [
        n for n, raw in enumerate(raws)
        if raw.startswith(b"Event: Newchannel") and b"Exten: 5550100" in raw and b"\r\nChannel: PJSIP/trunk" in raw
    ]  # fmt: skip
    ends = [*starts[1:], len(raws)]
    return raws[starts[nth] : ends[nth]]


def by_channel(events: list[Told]) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The events of each channel, channels numbered in the order in which they come up."""
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for name, channel, names in events:
        found.setdefault(channel, []).append((name, names))
    return {f"channel {n}": events for n, events in enumerate(found.values())}


# ------------------------------------------------------------------------------------------------ held to recordings


def test_a_queue_call_of_a_pjsip_agent_is_told_as_recorded_event_by_event_header_by_header() -> None:
    stage = Stage()
    stage.member()
    stage.run(0.1)
    stage.full = b""
    stage.pbx.arrive(ADA, "5550100")
    stage.run(10)
    recorded, simulated = told(one_call("07_")), told(split(stage.full))
    assert [(name, names) for name, _, names in simulated] == [(name, names) for name, _, names in recorded]
    assert Counter((n, h) for n, _, h in told(split(stage.full), racing=True)) == Counter(
        (n, h)
        for n, _, h in told(one_call("07_"), racing=True)
        if n not in {"RTCPSent", "QueueMemberRemoved"}
    )


@pytest.mark.parametrize(
    ("name", "given", "seconds"),
    [
        ("04_", {"patience": (3.5, 3.5), "agents": 0}, 10),
        ("37_", {"agent_ends": 1.0, "talk": (3.0, 3.0)}, 10),
        ("38_", {"no_answer": 1.0, "ring_limit": 6.0, "patience": (6.1, 6.1)}, 10),
    ],
    ids=["abandoned", "agent-hangs-up", "no-answer"],
)
def test_other_ends_of_a_queue_call_are_told_as_recorded(
    name: str, given: dict[str, object], seconds: float
) -> None:
    stage = Stage(**given)
    if stage.pbx.phones:
        stage.member()
    stage.pbx.arrive(ADA, "5550100")
    stage.run(seconds)
    assert by_channel(told(split(stage.full))) == by_channel(told(one_call(name)))


def test_click_to_dial_is_told_as_recorded() -> None:
    recorded = [raw for raw in messages("39_") if raw.startswith(b"Event: ")]
    second = next(n for n, raw in enumerate(recorded) if b"Uniqueid: c2d-2" in raw)
    for share, channel, trace, tag in (
        (0.0, "c2d-1", recorded[:second], "c2d"),
        (1.0, "c2d-2", recorded[second:], ""),
    ):
        stage = Stage(customer_busy=share)
        lifted: list[str] = []
        stage.pbx.originate(
            "PJSIP/1003", "915557654321",
            channel_id=channel, tag=tag, number_name="Grace Hopper", answered=lifted.append,
        )  # fmt: skip
        stage.run(4.2)
        if not share:
            stage.pbx.hang_up(channel)
        stage.run(0.1)
        assert lifted == ["PJSIP/1003-00000000"]
        wanted = [event for event in told(trace) if not event[0].startswith("OriginateResponse")]
        if not tag:  # without the variable there is nothing to set
            simulated = [event for event in told(split(stage.full)) if event[0] != "VarSet CTI_CALL"]
        else:
            simulated = told(split(stage.full))
        assert by_channel(simulated) == by_channel(wanted)


@pytest.mark.parametrize(
    ("step", "name", "nth", "first", "last"),
    [
        (scripts.ABANDON_RINGING, "07_", 1, "VarSet RTPAUDIOQOS", None),
        (scripts.REFUSED, "07_", 1, "HangupRequest", "Hangup"),
    ],
    ids=["abandoned-while-it-rings", "refused"],
)
def test_single_steps_are_as_recorded(step: Step, name: str, nth: int, first: str, last: str | None) -> None:
    recorded = told(one_call(name, nth))
    start = next(n for n, event in enumerate(recorded) if event[0] == first)
    end = next(n for n, event in enumerate(recorded) if event[0] == last and n > start) + 1 if last else None
    simulated = told(split(step.full.replace(b"%%", b"%")))
    wanted = [(name, names) for name, _, names in recorded[start:end]]
    assert [(name, names) for name, _, names in simulated] == wanted


@pytest.mark.parametrize(
    ("name", "given"),
    [("02_", {"agent_ends": 1.0}), ("03_", {})],
    ids=["agent-hangs-up", "caller-hangs-up"],
)
def test_the_callers_channel_is_told_as_with_agents_behind_local_channels(
    name: str, given: dict[str, object]
) -> None:
    def caller(raws: Sequence[bytes]) -> Counter[Told]:
        mine = [raw for raw in raws if b"\r\nChannel: PJSIP/trunk" in raw]
        # A phone has its own QoS and SIP call id, a Local channel has neither; its name is not shown to the caller.
        lacking = ("RTPAUDIO", "BRIDGEPVTCALLID")
        return Counter(
            (name, "", names)
            for name, _, names in told(mine)
            if not any(word in name for word in lacking)
            and not name.startswith(("NewConnectedLine", "HangupRequest"))
        )

    stage = Stage(**given)
    stage.member()
    stage.pbx.arrive(ADA, "5550100")
    stage.run(10)
    recorded, simulated = caller(one_call(name)), caller(split(stage.full))
    by_ami = Counter({event: n for event, n in recorded.items() if event[0] == "SoftHangupRequest"})
    assert simulated - by_ami == recorded - by_ami


def test_a_member_who_does_not_answer_is_told_as_with_agents_behind_local_channels() -> None:
    stage = Stage(no_answer=1.0, ring_limit=6.0)
    stage.member()
    stage.pbx.arrive(ADA, "5550100")
    stage.run(7)
    wanted = (
        "AgentCalled",
        "DialBegin",
        "DialState RINGING",
        "AgentRingNoAnswer",
        "DialEnd NOANSWER",
        "DialEnd CANCEL",
    )
    recorded = [(name, names) for name, _, names in told(one_call("05_")) if name in wanted][: len(wanted)]
    simulated = [(name, names) for name, _, names in told(split(stage.full)) if name in wanted]
    assert simulated == recorded


def test_what_devices_and_members_are_said_to_be_is_as_recorded() -> None:
    def states(raws: Sequence[bytes]) -> Counter[tuple[str, str]]:
        rows = [dict(headers_of(raw)) for raw in raws]
        devices = Counter((f["Device"], f["State"]) for f in rows if f.get("Event") == "DeviceStateChange")
        return devices + Counter(
            (f["Interface"], f["Status"]) for f in rows if f.get("Event") == "QueueMemberStatus"
        )

    stage = Stage()
    stage.member()
    stage.run(0.1)
    stage.full = b""
    stage.pbx.arrive(ADA, "5550100")
    stage.run(10)
    assert states(split(stage.full)) == states(one_call("07_"))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("07_", {}),
        ("04_", {"patience": (3.5, 3.5), "agents": 0}),
        ("37_", {"agent_ends": 1.0, "talk": (3.0, 3.0)}),
        ("38_", {"no_answer": 1.0, "ring_limit": 6.0, "patience": (6.1, 6.1)}),
    ],
    ids=["answered", "abandoned", "agent-hangs-up", "no-answer"],
)
@pytest.mark.parametrize("stream", ["full", "lean"])
def test_the_call_model_hears_the_same_story_from_both(
    name: str, given: dict[str, object], stream: str
) -> None:
    def story(raws: Sequence[bytes]) -> list[str]:
        calls = model({"PJSIP/1003": "carol"})
        found: list[Fact] = []
        for raw in raws:
            if record := parse(raw):
                found += calls.apply(record)
        return [re.sub(r"\d{10}\.\d+", "<id>", line(fact)) for fact in found]

    stage = Stage(**given)
    if stage.pbx.phones:
        stage.member()
    stage.pbx.arrive(ADA, "5550100")
    stage.run(10)
    assert story(split(getattr(stage, stream))) == story(one_call(name))


def test_the_lean_stream_is_the_full_one_through_the_rights_and_filter_that_operators_include() -> None:
    stage = Stage(
        agents=3, calls_per_second=3.0, static_members=True, talk=(1.0, 3.0), no_answer=0.2, refused=0.1
    )
    stage.run(30)

    def passes(raw: bytes) -> bool:
        rows = headers_of(raw)
        return rows[1][1].split(",")[0] in LEAN_CLASSES and not LEAN_DROPPED.match(rows[0][1])

    assert split(stage.lean) == [raw for raw in split(stage.full) if passes(raw)]
    include = (Path(__file__).parents[1] / "asterisk-config/include/manager_cti.conf").read_text()
    assert f"eventfilter=!^Event: ({LEAN_DROPPED.pattern})" in include.replace(" \\\n", "")
    assert "read=" + ",".join(sorted(LEAN_CLASSES, key=["system", "call", "agent", "user"].index)) in include


def test_hostile_names_cannot_add_headers_and_are_escaped_as_asterisk_does() -> None:
    stage = Stage()
    stage.member()
    stage.pbx.arrive(Caller(number="1\r\nEvent: Hangup", name='O\'Neil "Bob"\r\n\r\nx'), "5550100")
    stage.run(5)
    appeared = dict(headers_of(split(stage.full)[3]))
    assert appeared["CallerIDName"] == 'O\\\'Neil \\"Bob\\"    x'
    assert not any(raw.startswith(b"Event: Hangup\r\n") for raw in split(stage.full))


# ------------------------------------------------------------------------------------------------ a busy PBX, by hand


def test_a_busy_hour_leaves_nothing_behind() -> None:
    stage = Stage(
        agents=40, calls_per_second=20.0, static_members=True, last_call=600, patience=(0.5, 8.0), talk=(0.5, 3.0),
        ring=(0.1, 1.0), ring_limit=2.0, no_answer=0.1, refused=0.1, agent_ends=0.5,
    )  # fmt: skip
    stage.run(50)
    pbx = stage.pbx
    assert (pbx.arrived, pbx.ended, len(pbx.calls)) == (600, 600, 0)
    assert all(
        len(q.free) == len(q.members) and not q.waiting and not q.unserved for q in pbx.queues.values()
    )
    calls = model({f"PJSIP/{1003 + n}": f"agent{n}" for n in range(40)})
    facts = [fact for raw in split(stage.lean) if (record := parse(raw)) for fact in calls.apply(record)]
    ends = Counter(fact.outcome for fact in facts if fact.TYPE == "call.cleared")  # type: ignore[attr-defined]
    assert sum(ends.values()) == 600
    assert ends["abandoned"] == sum(q.abandoned for q in pbx.queues.values())
    assert set(calls.sizes().values()) == {0}
    assert calls.unknown == 0


def test_the_same_seed_makes_the_same_calls() -> None:
    def play() -> bytes:
        stage = Stage(agents=5, calls_per_second=5.0, static_members=True, seed=7)
        stage.run(20)
        return stage.full

    assert play() == play()


# ------------------------------------------------------------------------------------------------ over TCP, to our link


class Heard:
    """What a link has told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.statuses: list[LinkStatus] = []

    async def until(self, wanted: Callable[[], bool], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < deadline, "not seen in time"
            await asyncio.sleep(0.005)


@asynccontextmanager
async def linked(
    simulator: Simulator, secret: str = "cti-secret", **more: float
) -> AsyncIterator[tuple[AmiLink, Heard]]:
    heard = Heard()
    link = AmiLink(
        pbx="main", host="127.0.0.1", port=simulator.port, username="cti", secret=secret, parsers=PARSERS,
        on_records=heard.records.extend,  # type: ignore[arg-type]
        on_status=heard.statuses.append, backoff_max=0.3, **{"ping_every": 0.2, "ping_timeout": 0.3, **more},  # type: ignore[arg-type]
    )  # fmt: skip
    task = asyncio.create_task(link.run())
    try:
        yield link, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def up(link: AmiLink) -> Callable[[], bool]:
    return lambda: link.status.phase is LinkPhase.UP


async def test_it_says_what_it_is() -> None:
    async with Simulator() as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        settings = await link.send("CoreSettings")
        assert settings["AsteriskVersion"] == VERSION
        assert "simulator" in VERSION
        assert {"Originate", "Hangup", "QueueAdd", "CoreShowChannels"} <= await link.privileges()
        with pytest.raises(ActionRefused, match="Invalid/unknown command: Park"):
            await link.send("Park", {"Channel": "x"})


async def test_a_wrong_password_is_refused_as_asterisk_does() -> None:
    async with Simulator(users={"cti": User(secret="another")}) as simulator, linked(simulator) as (_, heard):
        await heard.until(lambda: bool(heard.statuses) and heard.statuses[-1].phase is LinkPhase.STOPPED)
        assert heard.statuses[-1].code == "wrong_password"


@pytest.mark.parametrize("trace", ["06_queue_member_admin"])
async def test_queue_members_are_administered_as_recorded(trace: str) -> None:
    actions = [
        (
            "QueueAdd",
            {"Queue": "sales", "Interface": "PJSIP/1001", "MemberName": "Agent 1001", "Penalty": "2"},
        ),
        ("QueueAdd", {"Queue": "sales", "Interface": "PJSIP/1001", "MemberName": "Agent 1001"}),
        ("QueueAdd", {"Queue": "support", "Interface": "PJSIP/1001", "Paused": "true", "Reason": "Training"}),
        ("QueuePenalty", {"Interface": "PJSIP/1001", "Penalty": "5", "Queue": "sales"}),
        ("QueuePause", {"Interface": "PJSIP/1001", "Paused": "true", "Queue": "sales", "Reason": "Lunch"}),
        ("QueuePause", {"Interface": "PJSIP/1001", "Paused": "false"}),
        ("QueueRemove", {"Queue": "sales", "Interface": "PJSIP/1001"}),
        ("QueueRemove", {"Queue": "sales", "Interface": "PJSIP/1001"}),
        ("QueueAdd", {"Queue": "nosuch", "Interface": "PJSIP/1001"}),
        ("QueuePause", {"Interface": "PJSIP/4711", "Paused": "true"}),
        ("Hangup", {"Channel": "PJSIP/none-1"}),
    ]
    async with Simulator() as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        said = []
        for action, headers in actions:
            try:
                said.append((await link.send(action, headers))["Message"])
            except ActionRefused as refusal:
                said.append(refusal.message)
        await link.send("Ping")
        told_of = {type(record).__name__ for record in heard.records}
    recorded = {dict(headers_of(raw)).get("Message") for raw in [*messages(trace), *messages("16_")]}
    assert said[:3] == [
        "Added interface to queue",
        "Unable to add interface: Already there",
        "Added interface to queue",
    ]
    assert set(said) - {"No such channel"} <= recorded
    assert {"MemberSeen", "MemberRemoved"} <= told_of


async def test_member_events_have_the_recorded_headers() -> None:
    stage = Stage()
    stage.member()
    stage.pbx.pause_member("sales", "PJSIP/1003", True, "Lunch")
    stage.pbx.set_penalty("sales", "PJSIP/1003", 5)
    stage.pbx.remove_member("sales", "PJSIP/1003")
    stage.run(0.01)
    shapes = {name: names for name, _, names in told(split(stage.full), racing=True)}
    shapes |= {name: names for name, _, names in told(split(stage.full))}
    raws = messages("06_")
    recorded = {name: names for name, _, names in [*told(raws, racing=True), *told(raws)]}
    assert {name: recorded[name] for name in shapes} == shapes
    assert {"QueueMemberAdded", "QueueMemberPause", "QueueMemberPenalty", "QueueMemberRemoved"} <= set(shapes)


async def test_lists_are_as_recorded_and_read_back() -> None:
    plan = Plan(
        agents=2, static_members=True, queues={"5550100": "sales"}, greeting=0, ring=(0, 0), talk=(60, 60),
        refused=0, no_answer=0,
    )  # fmt: skip
    async with Simulator(plan) as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        for _ in range(3):
            simulator.pbx.arrive(ADA, "5550100")
        await heard.until(lambda: sum(c.stage == "talking" for c in simulator.pbx.calls.values()) == 2)
        lists = {
            name: await link.query(name)
            for name in ("QueueStatus", "QueueSummary", "CoreShowChannels", "ParkedCalls")
        }
    _, members, waiting = queue_rows(lists["QueueStatus"])
    assert ([m.status for m in members], [w.position for w in waiting]) == (["in_use", "in_use"], [1])
    channels = channel_rows(lists["CoreShowChannels"])
    assert len(channels) == 5
    assert sum(row.bridge is not None for row in channels) == 4
    assert len({row.linkedid for row in channels}) == 3
    recorded = {(name, names) for name, _, names in told(messages("25_"))}
    shapes = {(name, names) for rows in lists.values() for name, _, names in told(rows)}
    assert shapes
    assert shapes <= recorded


def switched(simulator: Simulator, facts: list[Fact]) -> tuple[Switch, AmiLink]:
    """The models as the server has them, at the end of a link to the simulator."""
    calls = Calls(
        "main", agent_at=lambda device: device if device[-4:].isdigit() else None, is_trunk=lambda d: d == "PJSIP/trunk",
        inbound_contexts=("from-trunk",),
    )  # fmt: skip
    switch = Switch(
        "main", calls=calls, queues=Queues("main", agent_at=lambda device: None), publish=facts.extend
    )
    link = AmiLink(
        pbx="main", host="127.0.0.1", port=simulator.port, username="cti", secret="cti-secret", parsers=PARSERS,
        on_records=switch.on_records,  # type: ignore[arg-type]
        on_status=lambda s: switch.on_link(LinkState(s.phase.value, s.code, s.why, s.since)),
        backoff_max=0.2, ping_every=0.2, ping_timeout=0.3,
    )  # fmt: skip
    switch.link = link
    return switch, link


BUSY = Plan(
    calls_per_second=60, agents=30, static_members=True, last_call=90, greeting=0.05, ring=(0.05, 0.3), talk=(0.1, 0.6),
    patience=(0.2, 3.0), ring_limit=0.4, retry=0.1, no_answer=0.1, refused=0.1, seed=3,
)  # fmt: skip


@pytest.mark.parametrize("fault", ["drop", "freeze", "split", "lag", "restart"])
async def test_whatever_happens_to_the_stream_the_models_end_where_the_pbx_is(fault: str) -> None:
    facts: list[Fact] = []
    async with Simulator(BUSY) as simulator:
        switch, link = switched(simulator, facts)
        task = asyncio.create_task(link.run())
        heard = Heard()
        try:
            await heard.until(lambda: switch.synced and simulator.pbx.arrived > 30 and len(switch.calls) > 5)
            match fault:
                case "drop":
                    simulator.drop()
                case "freeze":
                    simulator.freeze(0.2)
                case "split":
                    simulator.splits = True
                case "lag":
                    simulator.lag(0.3)
                case "restart":
                    await simulator.restart(down=0.2)
            await heard.until(lambda: simulator.pbx.arrived >= 90 and not simulator.pbx.calls, 20)
            await heard.until(lambda: switch.synced and not len(switch.calls), 20)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    ended = [fact for fact in facts if fact.TYPE == "call.cleared"]
    assert len({fact.call for fact in ended}) == len(ended)  # type: ignore[attr-defined]
    assert set(switch.calls.sizes().values()) == {0}
    outcomes = Counter(fact.outcome for fact in ended)  # type: ignore[attr-defined]
    if fault in {"split", "lag"}:
        assert len(ended) >= 85  # all but those already over when the link came up
        assert outcomes["lost"] == 0
    if fault == "restart":
        assert outcomes["lost"] > 0


async def test_garbage_does_not_disturb_the_link() -> None:
    async with Simulator(BUSY) as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        simulator.garbage()
        before = len(heard.records)
        await heard.until(lambda: len(heard.records) > before + 50)
        assert link.stats().reconnects == 0


async def test_a_freeze_is_seen_as_one() -> None:
    async with Simulator() as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        simulator.freeze(1.0)
        await heard.until(lambda: heard.statuses[-1].code == "frozen")
        await heard.until(up(link))


async def test_a_restart_loses_members_added_over_ami_and_keeps_static_ones() -> None:
    plan = Plan(agents=1, static_members=True, queues={"5550100": "sales"})
    async with Simulator(plan) as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        await link.send("QueueAdd", {"Queue": "sales", "Interface": "PJSIP/4711"})
        assert len(queue_rows(await link.query("QueueStatus"))[1]) == 2
        await simulator.restart(down=0.1)
        await heard.until(up(link))
        assert [m.interface for m in queue_rows(await link.query("QueueStatus"))[1]] == ["PJSIP/1001"]


async def test_late_events_keep_the_time_at_which_they_happened() -> None:
    async with Simulator(Plan(agents=0)) as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        simulator.lag(0.5)
        simulator.pbx.arrive(ADA, "5550100")
        began = time.time()
        await heard.until(lambda: bool(heard.records))
        assert time.time() - began >= 0.45
        assert heard.records[0].at == pytest.approx(began, abs=0.1)


async def test_the_unfiltered_user_gets_the_noise_and_events_can_be_masked() -> None:
    users = {"cti": User(secret="cti-secret", lean=False)}
    async with Simulator(Plan(agents=0), users=users) as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        simulator.pbx.arrive(ADA, "5550100")
        await heard.until(lambda: len(heard.records) >= 4)
        noisy = link.stats().dropped
        assert noisy > 15
        await link.send("Events", {"EventMask": "call,agent,user"})
        simulator.pbx.arrive(ADA, "5550100")
        await heard.until(lambda: len(heard.records) >= 8)
        assert link.stats().dropped - noisy < 5
        await link.send("Events", {"EventMask": "off"})
        before = link.stats().messages
        simulator.pbx.arrive(ADA, "5550100")
        await link.send("Ping")
        assert link.stats().messages == before + 1


async def test_a_client_that_does_not_read_is_dropped_and_others_are_not_slowed() -> None:
    async with Simulator(BUSY) as simulator:
        _, writer = await asyncio.open_connection("127.0.0.1", simulator.port, limit=1024)
        writer.write(b"Action: Login\r\nUsername: cti\r\nSecret: cti-secret\r\n\r\n")
        heard = Heard()
        async with linked(simulator) as (link, other):
            await heard.until(lambda: up(link)() and simulator.sessions == 2)
            block = b"Event: Filler\r\nText: " + b"x" * 60000 + b"\r\n\r\n"
            deadline = time.monotonic() + 20
            while simulator.sessions == 2 and time.monotonic() < deadline:
                simulator.pbx.say(block)
                await asyncio.sleep(0.004)
            assert simulator.sessions == 1
            assert up(link)()
            assert [status.phase for status in other.statuses][-1] is LinkPhase.UP
        writer.close()


async def test_the_pace_of_calls_can_be_set_by_another_process() -> None:
    async with Simulator(Plan(agents=0, calls_per_second=0)) as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        with pytest.raises(ActionRefused, match="numbers"):
            await link.send("Simulator", {"CallsPerSecond": "many"})
        assert simulator.pbx.arrived == 0
        await link.send("Simulator", {"CallsPerSecond": "500"})
        await heard.until(lambda: simulator.pbx.arrived > 20)
        await link.send("Simulator", {"CallsPerSecond": "0"})
        arrived = simulator.pbx.arrived
        await link.send("Ping")
        assert simulator.pbx.arrived == arrived


async def test_originate_and_hangup_over_ami() -> None:
    plan = Plan(agents=1, ring=(0.02, 0.02), talk=(60, 60), customer_busy=0)
    async with Simulator(plan) as simulator, linked(simulator) as (link, heard):
        await heard.until(up(link))
        common = {
            "Context": "from-agent",
            "Exten": "915557654321",
            "Priority": "1",
            "CallerID": '"Grace Hopper" <15557654321>',
        }
        await link.originate({"Channel": "PJSIP/1001", "ChannelId": "c2d-1", **common})

        def names() -> list[str]:
            return [type(record).__name__ for record in heard.records]

        await heard.until(lambda: names().count("BridgeEntered") == 2)
        await link.originate({"Channel": "PJSIP/1001", "ChannelId": "c2d-2", **common})
        await heard.until(lambda: names().count("OriginateEnded") == 2)
        outcomes = [r for r in heard.records if type(r).__name__ == "OriginateEnded"]
        assert [(r.success, r.reason) for r in outcomes] == [(True, 4), (False, 0)]  # type: ignore[attr-defined]
        await link.send("Hangup", {"Channel": "c2d-1", "Cause": "16"})
        await heard.until(lambda: names().count("ChannelGone") == 2)
        assert not simulator.pbx.calls


# ------------------------------------------------------------------------------------------------ as a program


async def test_it_runs_on_its_own_and_says_what_it_did(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    numbers.write_text("+498912345678,Müller GmbH\n15551234567\n", encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cti.simulator", "--port", "0", "--calls-per-second", "200", "--agents", "20", "--seed", "1",
        "--static-members", "--numbers", str(numbers), "--greeting", "0", "--ring", "0-0.1", "--talk", "0.05", "--full",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        hello = json.loads(await asyncio.wait_for(process.stdout.readline(), 10))
        assert hello["what"] == "AMI simulator"
        host, _, port = hello["listening"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"Action: Login\r\nUsername: cti\r\nSecret: cti-secret\r\n\r\n")
        stream = b""
        while stream.count(b"Event: AgentConnect") < 5:
            stream += await asyncio.wait_for(reader.read(65536), 10)
        assert "Müller GmbH".encode() in stream
        writer.write(b"Action: Simulator\r\nActionID: x\r\nFault: drop\r\n\r\n")
        while await asyncio.wait_for(reader.read(65536), 10):
            pass
        writer.close()
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = await asyncio.wait_for(process.communicate(), 10)
    counts = json.loads(rest.splitlines()[-1])
    assert counts["calls"] > 5
    assert counts["events"] > 500
