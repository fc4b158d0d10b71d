"""Records tests/traces/22/40_... and on: plays scenarios on a real Asterisk and writes down all that AMI says.

    python -m tests.record_traces [--list] [--out DIR] [NAME...]

Needs an Asterisk (found or fetched as for the tests). The PBX is the sample one of asterisk-config/ with the queues,
phones and numbers below added; phones and carrier are `sip_party.Party`. Not a test: the recordings are.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

from cti.embedded.asterisk import find_or_provision
from cti.embedded.place import free_ports, home, remove_folder, scratch_folder
from cti.embedded.sample_pbx import CONFIGURATION, Behaviour, SamplePbx
from tests.sip_party import Conduct, Party

DIALPLAN = """
[from-trunk]
exten => 5550901,1,Answer()
 same => n,Queue(sales,tT,,,4)
 same => n,UserEvent(CtiQueueLeft,Queue: sales,Status: ${QUEUESTATUS})
 same => n,Queue(support,tT,,,4)
 same => n,UserEvent(CtiQueueLeft,Queue: support,Status: ${QUEUESTATUS})
 same => n,Wait(1)
 same => n,Hangup()
exten => 5550902,1,Answer()
 same => n,Queue(sales,tT,,,4)
 same => n,Queue(support,tT,,,4)
 same => n,Wait(2)
 same => n,Hangup()
exten => 5550903,1,Answer()
 same => n,Queue(staffed,tT,,,30)
 same => n,UserEvent(CtiQueueLeft,Queue: staffed,Status: ${QUEUESTATUS})
 same => n,Wait(1)
 same => n,Hangup()
exten => 5550904,1,Dial(PJSIP/1101,20,tT)
 same => n,Hangup()
exten => 5550905,1,Dial(PJSIP/1101,3,tT)
 same => n,Dial(PJSIP/1102,20,tT)
 same => n,Hangup()
exten => 5550906,1,Dial(PJSIP/1101&PJSIP/1102,20,tT)
 same => n,Hangup()
exten => 5550907,1,Dial(${PJSIP_DIAL_CONTACTS(1150)},20,tT)
 same => n,Hangup()
exten => 5550908,1,Answer()
 same => n,MusicOnHold(default)
exten => 5550909,1,Queue(sales,tT,,,20)
 same => n,Hangup()
[both-phones]
exten => 1150,1,Dial(${PJSIP_DIAL_CONTACTS(1150)},20,tT)
"""

QUEUES = """
[staffed](q)
strategy=rrmemory
joinempty=paused,penalty,invalid
leavewhenempty=paused,penalty,invalid
"""

PHONES = """
; 1150: one agent, a desk phone and a softphone
[1150](phone)
aors=1150
callerid="Mona Lind" <1150>
[1150](phone-aor)
max_contacts=2
contact=sip:1150@127.0.0.1:@PHONES_PORT@
contact=sip:1150b@127.0.0.1:@PHONES_PORT@
"""

Headers = dict[str, str]
Scenario = Callable[["Stage"], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    SCENARIOS[play.__name__.removeprefix("s_")] = play
    return play


class Session:
    """An AMI session that writes down what it sends and hears."""

    def __init__(self, trace: IO[bytes]) -> None:
        self.trace = trace
        self.began = time.monotonic()
        self.heard: list[Headers] = []
        self._news = asyncio.Event()
        self._number = 0
        self._task: asyncio.Task[None] | None = None

    async def open(self, port: int, user: str, secret: str) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        await self._reader.readline()
        self._task = asyncio.create_task(self._listen())
        self._writer.write(
            f"Action: Login\r\nActionID: login\r\nUsername: {user}\r\nSecret: {secret}\r\n\r\n".encode()
        )
        await self.event("FullyBooted")

    async def close(self) -> None:
        self._writer.close()
        if self._task is not None:
            self._task.cancel()

    def _note(self, mark: str, raw: bytes) -> None:
        at = time.monotonic() - self.began
        self.trace.write(f"#{mark} {at:.3f}\n".encode() + raw.replace(b"\r\n", b"\n").strip(b"\n") + b"\n\n")

    async def _listen(self) -> None:
        while True:
            raw = await self._reader.readuntil(b"\r\n\r\n")
            self._note("<", raw)
            headers: Headers = {}
            for line in raw.decode("utf-8", "replace").split("\r\n"):
                name, _, value = line.partition(":")
                headers.setdefault(name.lower(), value.strip())
            self.heard.append(headers)
            self._news.set()

    async def event(self, name: str, within: float = 15.0, since: int = 0, **wanted: str) -> Headers:
        """Waits for an event whose headers match these patterns; one heard from `since` on counts."""
        deadline = time.monotonic() + within
        while True:
            for headers in self.heard[since:]:
                if headers.get("event") == name and all(
                    re.fullmatch(pattern, headers.get(header.lower(), ""))
                    for header, pattern in wanted.items()
                ):
                    return headers
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not heard: {name} {wanted}")
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                continue

    async def act(self, action: str, **headers: str) -> Headers:
        """Sends an action and gives back the answer."""
        self._number += 1
        action_id = f"a{self._number}"
        lines = [
            f"Action: {action}",
            f"ActionID: {action_id}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        raw = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self._note(">", raw)
        since = len(self.heard)
        self._writer.write(raw)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for message in self.heard[since:]:
                if message.get("actionid") == action_id and "response" in message and "event" not in message:
                    return message
            await asyncio.sleep(0.01)
        raise TimeoutError(f"no answer to {action}")


class Stage:
    """What a scenario plays with: the PBX's AMI, the agents' phones, the carrier and its customers."""

    def __init__(self, pbx: SamplePbx, ami: Session, phones: Party, carrier: Party) -> None:
        self.pbx, self.ami, self.phones, self.carrier = pbx, ami, phones, carrier

    def say(self, text: str) -> None:
        self.ami.trace.write(f"#= {text}\n\n".encode())

    async def member(self, queue: str, interface: str, state: str | None = None) -> None:
        more = {"StateInterface": state} if state else {}
        await self.ami.act("QueueAdd", Queue=queue, Interface=interface, MemberName=interface, **more)

    async def gone(self, channel: str, within: float = 15.0) -> None:
        await self.ami.event("Hangup", within, Channel=re.escape(channel))

    async def quiet(self, seconds: float = 1.0) -> None:
        """Lets things settle: nothing tells that no event will follow."""
        await asyncio.sleep(seconds)

    async def lists(self) -> None:
        """What the server asks for after a reconnect."""
        for action in ("CoreShowChannels", "QueueStatus", "ParkedCalls"):
            await self.ami.act(action)
        await self.quiet(0.3)

    async def talk(self, did: str = "5550100", queue: str = "sales", phone: str = "1101") -> tuple[str, str]:
        """A customer talks with a phone through a queue; returns both channels."""
        await self.member(queue, f"PJSIP/{phone}")
        since = len(self.ami.heard)
        self.carrier.call("15551234567", did, "Ada Lovelace")
        connect = await self.ami.event("AgentConnect", 20, since)
        await self.quiet(1.5)
        return connect["channel"], connect["destchannel"]


# ------------------------------------------------------------------------------------------------ scenarios


@scenario
async def s_40_ring_all(s: Stage) -> None:
    """a ring-all queue calls three phones, the second answers, the others are taken off"""
    s.phones.conduct |= {"1101": Conduct(None), "1102": Conduct(1.5), "1103": Conduct(None)}
    for phone in ("1101", "1102", "1103"):
        await s.member("emergency", f"PJSIP/{phone}")
    s.carrier.call("15551234567", "5550400", "Ada Lovelace")
    connect = await s.ami.event("AgentConnect")
    await s.quiet(2)
    await s.lists()
    (await s.phones.leg_of("1102")).bye()
    await s.gone(connect["channel"])
    await s.quiet()


@scenario
async def s_41_overflow_told(s: Stage) -> None:
    """a queue times out, the caller overflows into a second one and is timed out there too; the dialplan tells both"""
    s.phones.conduct["1101"] = Conduct(None)
    await s.member("sales", "PJSIP/1101")
    s.carrier.call("15551234567", "5550901", "Ada Lovelace")
    await s.ami.event("Hangup", 30, Channel="PJSIP/trunk.*")
    await s.quiet()


@scenario
async def s_42_overflow_untold(s: Stage) -> None:
    """the same, the dialplan tells nothing; the second queue's agent answers"""
    await s.member("support", "PJSIP/1102")
    await s.ami.act("QueuePause", Queue="support", Interface="PJSIP/1102", Paused="true")
    s.carrier.call("15551234567", "5550902", "Ada Lovelace")
    await s.ami.event("QueueCallerJoin", Queue="support")
    await s.quiet()
    await s.ami.act("QueuePause", Queue="support", Interface="PJSIP/1102", Paused="false")
    connect = await s.ami.event("AgentConnect", 30)
    await s.quiet(2)
    (await s.phones.leg_of("1102")).bye()
    await s.gone(connect["channel"])
    await s.quiet()


@scenario
async def s_43_leave_when_empty(s: Stage) -> None:
    """the only agent pauses: the queue gives its caller back (LEAVEEMPTY); then one cannot even join (JOINEMPTY)"""
    s.phones.conduct["1101"] = Conduct(None)
    await s.member("staffed", "PJSIP/1101")
    s.carrier.call("15551234567", "5550903", "Ada Lovelace")
    await s.ami.event("AgentCalled")
    await s.quiet(1.5)
    await s.ami.act("QueuePause", Queue="staffed", Interface="PJSIP/1101", Paused="true")
    await s.ami.event("Hangup", 30, Channel="PJSIP/trunk.*")
    await s.quiet()
    since = len(s.ami.heard)
    s.carrier.call("15557654321", "5550903", "Grace Hopper")
    await s.ami.event("Hangup", 10, since, Channel="PJSIP/trunk.*")
    await s.quiet()


@scenario
async def s_44_attended_transfer_by_phone(s: Stage) -> None:
    """the agent's phone holds the caller, calls a colleague on a second line, and joins them (REFER with Replaces)"""
    caller, _ = await s.talk()
    first = await s.phones.leg_of("1101")
    await first.hold()
    await s.quiet(1.5)
    second = s.phones.call("1101", "1102", "Amelia Novak")
    await asyncio.wait_for(second.answered.wait(), 10)
    await s.quiet(2)
    await s.lists()
    first.refer("1102", second)
    await s.ami.event("AttendedTransfer")
    await s.quiet(2)
    (await s.phones.leg_of("1102")).bye()
    await s.gone(caller)
    await s.quiet()


@scenario
async def s_45_blind_transfer_by_phone(s: Stage) -> None:
    """the agent's phone sends the caller on to a colleague (REFER)"""
    caller, _ = await s.talk()
    (await s.phones.leg_of("1101")).refer("1102")
    await s.ami.event("BlindTransfer")
    await s.phones.leg_of("1102")
    await s.quiet(3)
    (await s.phones.leg_of("1102")).bye()
    await s.gone(caller)
    await s.quiet()


@scenario
async def s_46_blonde_transfer_by_phone(s: Stage) -> None:
    """as 44, but joined while the colleague's phone still rings; the colleague answers later"""
    s.phones.conduct["1102"] = Conduct(4)
    caller, _ = await s.talk()
    first = await s.phones.leg_of("1101")
    await first.hold()
    await s.quiet(1)
    second = s.phones.call("1101", "1102", "Amelia Novak")
    await asyncio.wait_for(second.rings.wait(), 10)
    await s.quiet(1)
    first.refer("1102", second)
    await s.quiet(6)
    (await s.phones.leg_of("1102")).bye()
    await s.gone(caller)
    await s.quiet()


@scenario
async def s_47_agent_to_agent(s: Stage) -> None:
    """an agent calls three colleagues: one answers, one is busy, one does not answer until the caller gives up"""
    s.phones.conduct |= {"1103": Conduct(0.3, 486), "1104": Conduct(None)}
    leg = s.phones.call("1101", "1102", "Amelia Novak")
    await asyncio.wait_for(leg.answered.wait(), 10)
    await s.quiet(2)
    leg.bye()
    await s.quiet()
    leg = s.phones.call("1101", "1103", "Amelia Novak")
    await asyncio.wait_for(leg.ended.wait(), 15)
    await s.quiet()
    leg = s.phones.call("1101", "1104", "Amelia Novak")
    await asyncio.wait_for(leg.rings.wait(), 10)
    await s.quiet(2)
    leg.bye()
    await s.quiet(2)


@scenario
async def s_48_agent_to_trunk(s: Stage) -> None:
    """an agent calls customers over the carrier: answered, busy (486), no such number (404), failed (503), given up"""
    numbers = {
        "15550001": Conduct(1),
        "15550002": Conduct(0.3, 486),
        "15550003": Conduct(0, 404),
        "15550004": Conduct(0, 503),
    }
    s.carrier.conduct |= {**numbers, "15550005": Conduct(None)}
    leg = s.phones.call("1101", "915550001", "Amelia Novak")
    await asyncio.wait_for(leg.answered.wait(), 10)
    await s.quiet(2)
    (await s.carrier.leg_of("15550001")).bye()
    await asyncio.wait_for(leg.ended.wait(), 10)
    await s.quiet()
    for number in ("915550002", "915550003", "915550004"):
        leg = s.phones.call("1101", number, "Amelia Novak")
        await asyncio.wait_for(leg.ended.wait(), 15)
        await s.quiet()
    leg = s.phones.call("1101", "915550005", "Amelia Novak")
    await asyncio.wait_for(leg.rings.wait(), 10)
    await s.quiet(2)
    leg.bye()
    await s.quiet(2)


@scenario
async def s_49_agent_behind_local(s: Stage) -> None:
    """the queue's member is Local/1104@from-agent/n whose dialplan dials PJSIP/1104: misses a call, takes it, holds it"""
    s.phones.conduct["1104"] = Conduct(None)
    await s.member("sales", "Local/1104@from-agent/n", "PJSIP/1104")
    s.carrier.call("15551234567", "5550100", "Ada Lovelace")
    await s.ami.event("AgentRingNoAnswer")
    s.phones.conduct["1104"] = Conduct(1)
    connect = await s.ami.event("AgentConnect", 20)
    await s.quiet(2)
    leg = await s.phones.leg_of("1104")
    await leg.hold()
    await s.quiet(2)
    await s.lists()
    await leg.retrieve()
    await s.quiet(1.5)
    leg.bye()
    await s.gone(connect["channel"])
    await s.quiet()


@scenario
async def s_50_two_phones_of_one_agent(s: Stage) -> None:
    """an agent's two devices ring together, for a call straight to them and as a Local member of a queue; one answers"""
    s.phones.conduct |= {"1150": Conduct(None), "1150b": Conduct(1.5)}
    call = s.carrier.call("15551234567", "5550907", "Ada Lovelace")
    await asyncio.wait_for(call.answered.wait(), 10)
    await s.quiet(2)
    call.bye()
    await s.quiet(1.5)
    await s.member("sales", "Local/1150@both-phones/n", "PJSIP/1150")
    call = s.carrier.call("15551234567", "5550100", "Ada Lovelace")
    await s.ami.event("AgentConnect")
    await s.quiet(2)
    call.bye()
    await s.quiet(1.5)


@scenario
async def s_51_straight_to_an_agent(s: Stage) -> None:
    """a customer calls an agent's own number, no queue: answered, the customer hangs up"""
    call = s.carrier.call("15551234567", "5550904", "Ada Lovelace")
    await asyncio.wait_for(call.answered.wait(), 10)
    await s.quiet(2)
    call.bye()
    await s.quiet(1.5)


@scenario
async def s_52_forwarded_on_no_answer(s: Stage) -> None:
    """a call to an agent's own number goes on to a colleague after 3 s without an answer"""
    s.phones.conduct["1101"] = Conduct(None)
    call = s.carrier.call("15551234567", "5550905", "Ada Lovelace")
    await asyncio.wait_for(call.answered.wait(), 15)
    await s.quiet(2)
    (await s.phones.leg_of("1102")).bye()
    await asyncio.wait_for(call.ended.wait(), 10)
    await s.quiet(1)


@scenario
async def s_53_caller_gives_up_ringing(s: Stage) -> None:
    """the caller hangs up while a phone rings: called straight, then two phones at once, then through a queue"""
    s.phones.conduct |= {"1101": Conduct(None), "1102": Conduct(None)}
    for did in ("5550904", "5550906"):
        call = s.carrier.call("15551234567", did, "Ada Lovelace")
        await asyncio.wait_for(call.rings.wait(), 10)
        await s.quiet(1.5)
        call.bye()
        await s.quiet(1.5)
    await s.member("sales", "PJSIP/1101")
    call = s.carrier.call("15551234567", "5550100", "Ada Lovelace")
    since = len(s.ami.heard)
    await s.ami.event("AgentCalled", since=since)
    await s.quiet(1.5)
    call.bye()
    await s.quiet(1.5)


@scenario
async def s_54_menu(s: Stage) -> None:
    """a menu: the caller presses 3 and a customer number, which CtiData tells; then billing's agent answers"""
    await s.member("billing", "PJSIP/1101")
    s.carrier.call("15551234567", "5550500", "Ada Lovelace")
    caller = (await s.ami.event("Newchannel", Channel="PJSIP/trunk.*"))["channel"]
    await s.quiet(2)
    for digit in "3":
        await s.ami.act("PlayDTMF", Channel=caller, Digit=digit, Receive="true")
    await s.quiet(2)
    for digit in "4711":
        await s.ami.act("PlayDTMF", Channel=caller, Digit=digit, Receive="true")
        await s.quiet(0.3)
    await s.ami.act("PlayDTMF", Channel=caller, Digit="#", Receive="true")
    await s.ami.event("AgentConnect", 30)
    await s.quiet(2)
    (await s.phones.leg_of("1101")).bye()
    await s.gone(caller)
    await s.quiet()


@scenario
async def s_55_bridged_by_the_server(s: Stage) -> None:
    """an agent waits off-hook in music; the server bridges them with an answered customer, then with one who is queued"""
    await s.ami.act(
        "Originate",
        Channel="PJSIP/1101",
        Context="cti-hold",
        Exten="music",
        Priority="1",
        Async="true",
        ChannelId="off-hook",
        CallerID="Waiting <1101>",
    )
    await s.ami.event("OriginateResponse")
    await s.quiet(1)
    for did in ("5550908", "5550100"):
        since = len(s.ami.heard)
        call = s.carrier.call("15551234567", did, "Ada Lovelace")
        caller = (await s.ami.event("Newchannel", since=since, Channel="PJSIP/trunk.*"))["channel"]
        await asyncio.wait_for(call.answered.wait(), 10)
        await s.quiet(2)
        s.say("bridged by AMI")
        await s.ami.act("Bridge", Channel1="off-hook", Channel2=caller, Tone="no")
        await s.quiet(2)
        if did == "5550908":
            s.say("the agent's leg goes back to music, so that it outlives the customer's")
            await s.ami.act("Redirect", Channel="off-hook", Context="cti-hold", Exten="music", Priority="1")
            await s.quiet(1)
        call.bye()
        await s.quiet(1.5)
    for leg in s.phones.legs.values():
        leg.bye()
    await s.quiet(1)


@scenario
async def s_56_consultation_given_up(s: Stage) -> None:
    """the agent's phone holds, calls a colleague who answers, ends that call and goes back to the caller"""
    caller, _ = await s.talk()
    first = await s.phones.leg_of("1101")
    await first.hold()
    await s.quiet(1)
    second = s.phones.call("1101", "1102", "Amelia Novak")
    await asyncio.wait_for(second.answered.wait(), 10)
    await s.quiet(1.5)
    second.bye()
    await s.quiet(0.5)
    await first.retrieve()
    await s.quiet(1.5)
    first.bye()
    await s.gone(caller)
    await s.quiet()


@scenario
async def s_57_ringing_queue(s: Stage) -> None:
    """a queue without Answer() before it: the caller hears ringing, an agent answers, the caller hangs up"""
    await s.member("sales", "PJSIP/1101")
    call = s.carrier.call("15551234567", "5550909", "Ada Lovelace")
    await s.ami.event("AgentConnect")
    await s.quiet(2)
    call.bye()
    await s.quiet(1.5)


@scenario
async def s_58_consulted_outside(s: Stage) -> None:
    """attended transfer by the phone to a customer over the carrier, the consulted party hangs up last"""
    caller, _ = await s.talk()
    s.carrier.conduct["15550001"] = Conduct(1)
    first = await s.phones.leg_of("1101")
    await first.hold()
    await s.quiet(1)
    second = s.phones.call("1101", "915550001", "Amelia Novak")
    await asyncio.wait_for(second.answered.wait(), 10)
    await s.quiet(1.5)
    first.refer("915550001", second)
    await s.ami.event("AttendedTransfer")
    await s.quiet(2)
    (await s.carrier.leg_of("15550001")).bye()
    await s.gone(caller)
    await s.quiet()


@scenario
async def s_59_local_taken_out(s: Stage) -> None:
    """as 49, answered, but the member is a Local channel without /n: Asterisk takes it out of the talk"""
    s.phones.sounds = s.carrier.sounds = True
    await s.member("sales", "Local/1104@from-agent", "PJSIP/1104")
    s.phones.conduct["1104"] = Conduct(1)
    s.carrier.call("15551234567", "5550100", "Ada Lovelace")
    connect = await s.ami.event("AgentConnect", 20)
    await s.quiet(3)
    (await s.phones.leg_of("1104")).bye()
    await s.gone(connect["channel"])
    await s.quiet()


@scenario
async def s_60_click_to_dial(s: Stage) -> None:
    """click to dial: the agent's phone is called first, then the customer over the carrier; the agent hangs up"""
    s.carrier.conduct["15550001"] = Conduct(1)
    await s.ami.act(
        "Originate",
        Channel="PJSIP/1101",
        Context="cti-agent",
        Exten="915550001",
        Priority="1",
        Async="true",
        ChannelId="click-1",
        CallerID="Amelia Novak <1101>",
    )
    await s.carrier.leg_of("15550001")
    await s.quiet(3)
    (await s.phones.leg_of("1101")).bye()
    await s.quiet(1.5)


@scenario
async def s_61_conference_dialled_into(s: Stage) -> None:
    """an agent and a caller go to a conference room, a colleague dials in from their phone, the caller leaves first"""
    caller, agent = await s.talk()
    where = {"Context": "cti-conference", "Exten": "8001", "Priority": "1"}
    await s.ami.act(
        "Redirect", Channel=caller, ExtraChannel=agent, **where, **{f"Extra{k}": v for k, v in where.items()}
    )
    await s.quiet(1.5)
    colleague = s.phones.call("1102", "8001", "Bruno Keller")
    await asyncio.wait_for(colleague.answered.wait(), 10)
    await s.quiet(2)
    await s.lists()
    for leg in s.carrier.legs.values():
        leg.bye()
    await s.quiet(1.5)
    colleague.bye()
    await s.quiet(0.5)
    (await s.phones.leg_of("1101")).bye()
    await s.quiet(1.5)


# ------------------------------------------------------------------------------------------------ the stage


def configuration(folder: Path) -> Path:
    """The sample PBX's configuration with what the scenarios need added, below `folder`."""
    made = folder / "pbx"
    shutil.copytree(CONFIGURATION / "pbx", made)
    for name, text in (
        ("extensions_lab.conf", DIALPLAN),
        ("queues.conf", QUEUES),
        ("pjsip_lab.conf", PHONES),
    ):
        (made / name).write_text((made / name).read_text() + text)
    return made


async def play(pbx: SamplePbx, name: str, out: Path) -> None:
    run = SCENARIOS[name]
    server = (pbx.host, pbx.sip_port)
    phones = await Party("127.0.0.1", pbx.phones_port, server).open()
    carrier = await Party("127.0.0.2", pbx.peer_port, server).open()
    with (out / f"{name}.txt").open("wb") as trace:
        trace.write(f"#= scenario {name}: {(run.__doc__ or '').strip()}\n\n".encode())
        version = pbx.cli("core show version").split(" built by")[0]
        trace.write(f"#= {version}\n\n".encode())
        ami = Session(trace)
        await ami.open(pbx.ami_port, pbx.admin_username, pbx.admin_secret)
        try:
            await asyncio.wait_for(run(Stage(pbx, ami, phones, carrier)), 120)
        finally:
            await ami.close()
            await phones.close()
            await carrier.close()
            pbx.cli("channel request hangup all")
            await asyncio.sleep(0.5)
            for line in pbx.cli("queue show").splitlines():
                found = re.search(r"((?:PJSIP|Local)/\S+?)\)? .*\(dynamic\)", line)
                if found:
                    for queue in ("sales", "support", "billing", "emergency", "staffed"):
                        pbx.cli(f"queue remove member {found[1].lstrip('(')} from {queue}")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "traces" / "22")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--first-port", type=int, help="use this and the next ports instead of free ones")
    asked = parser.parse_args(arguments)
    if asked.list:
        for name, run in SCENARIOS.items():
            print(f"{name}: {run.__doc__}")
        return
    folder = scratch_folder("cti-record-")
    try:
        first = asked.first_port
        ports = tuple(range(first, first + 60, 10)) if first else tuple(free_ports(6))
        pbx = SamplePbx(find_or_provision(home(), print), folder, "", Behaviour(ring_seconds=6), ports)
        pbx.instance.config_dir = configuration(folder)
        pbx.start()
        try:
            for name in asked.names or SCENARIOS:
                began = time.monotonic()
                asyncio.run(play(pbx, name, asked.out))
                print(f"{name}: {time.monotonic() - began:.1f} s")
        finally:
            pbx.stop()
    finally:
        remove_folder(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
