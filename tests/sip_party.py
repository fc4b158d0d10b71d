"""A SIP party on one UDP socket, for recordings and tests: any number of phones, or a carrier and its customers.

It signals (calls, answers, holds, refers, hangs up) and, if asked, sends silence as sound. Made for loopback, where no
packet is lost: it repeats nothing but its last answer to a repeated request.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

_PARAMETER = re.compile(r";tag=([^;\s>]+)")
_ADDRESS = re.compile(r"<([^>]+)>")
_USER = re.compile(r"sip:([^@;>]+)@")


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a phone does with a call: rings at once for `rings` seconds, then answers, or refuses with `status`.

    `rings` None means it rings until the caller gives up.
    """

    rings: float | None = 0.5
    status: int = 200


@dataclass(slots=True, eq=False)
class Message:
    """A SIP request or answer, taken apart as far as needed."""

    first: str
    headers: dict[str, list[str]]
    body: str = ""

    @classmethod
    def read(cls, data: bytes) -> Message:
        head, _, body = data.decode("utf-8", "replace").partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.strip().lower(), []).append(value.strip())
        return cls(first, headers, body)

    def __getitem__(self, name: str) -> str:
        return self.headers[name][0]

    @property
    def method(self) -> str:
        return self["cseq"].split()[1]

    @property
    def status(self) -> int:
        return int(self.first.split()[1]) if self.first.startswith("SIP/2.0 ") else 0


@dataclass(slots=True, eq=False)
class Leg:
    """One dialog of one phone. `answered` and `ended` are set when it is; `status` is the last answer's."""

    party: Party
    number: str
    call_id: str
    local: str
    remote: str
    target: str
    sequence: int = 1
    status: int = 0
    request: Message | None = None
    branch: str = ""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    rings: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self) -> None:
        """Re-INVITE with sendonly: this phone holds the other party."""
        await self._again("sendonly")

    async def retrieve(self) -> None:
        """Re-INVITE with sendrecv: the talk goes on."""
        await self._again("sendrecv")

    async def _again(self, mode: str) -> None:
        self.answered.clear()
        self._invite(mode)
        await asyncio.wait_for(self.answered.wait(), 5)

    def _invite(self, mode: str = "sendrecv") -> None:
        self.party.send_request("INVITE", self, self.party.sdp(mode))

    def bye(self) -> None:
        """Hangs up; a call that is not answered yet is cancelled."""
        if self.ended.is_set():
            return
        if self.answered.is_set() or self.request is not None:
            self.party.send_request("BYE", self)
            self.ended.set()
        else:
            self.party.send_request("CANCEL", self)

    def refer(self, to: str, replaces: Leg | None = None) -> None:
        """Transfers the other party to a number: blind, or to the one this phone talks with on another leg."""
        uri = f"sip:{to}@{self.party.server[0]}:{self.party.server[1]}"
        if replaces is not None:
            tags = _tag(replaces.remote), _tag(replaces.local)
            uri += f"?Replaces={replaces.call_id}%3Bto-tag%3D{tags[0]}%3Bfrom-tag%3D{tags[1]}"
        more = f"Refer-To: <{uri}>\r\nReferred-By: <sip:{self.number}@{self.party.host}>\r\n"
        self.party.send_request("REFER", self, headers=more)


def _tag(header: str) -> str:
    found = _PARAMETER.search(header)
    return found[1] if found else ""


class Party(asyncio.DatagramProtocol):
    """The socket. `conduct` says by number called what happens to a call; numbers not in it ring shortly and answer.

    With `sounds`, answered legs send silence (G.711): Asterisk takes a Local channel out only while sound flows."""

    def __init__(self, host: str, port: int, server: tuple[str, int]) -> None:
        self.host, self.port, self.server = host, port, server
        self.conduct: dict[str, Conduct] = {}
        self.legs: dict[str, Leg] = {}
        self.arrived: list[Leg] = []
        self.on_arrival: Callable[[Leg], None] = lambda leg: None
        self.sounds = False
        self._answers: dict[tuple[str, str], bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> Party:
        """Binds the socket."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=(self.host, self.port)
        )
        return self

    async def close(self) -> None:
        """Hangs up everything and closes the socket."""
        for leg in self.legs.values():
            leg.bye()
        await asyncio.sleep(0.2)
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.close()

    def call(self, as_number: str, number: str, name: str = "") -> Leg:
        """Dials. The leg's `answered`, `rings`, `ended` tell how it goes."""
        own = f'"{name}" <sip:{as_number}@{self.host}:{self.port}>;tag={secrets.token_hex(4)}'
        uri = f"sip:{number}@{self.server[0]}:{self.server[1]}"
        leg = Leg(self, as_number, secrets.token_hex(8), own, f"<{uri}>", uri, sequence=0)
        self.legs[leg.call_id] = leg
        leg._invite()
        return leg

    async def leg_of(self, number: str, within: float = 15.0) -> Leg:
        """The newest call that has reached a number, waited for if there is none yet."""
        deadline = asyncio.get_running_loop().time() + within
        while asyncio.get_running_loop().time() < deadline:
            for leg in reversed(self.arrived):
                if leg.number == number and not leg.ended.is_set():
                    return leg
            await asyncio.sleep(0.02)
        raise TimeoutError(f"no call for {number}")

    # ------------------------------------------------------------------------------------------ on the wire

    def sdp(self, mode: str = "sendrecv") -> str:
        return (
            f"v=0\r\no=party 1 {secrets.randbelow(1 << 30)} IN IP4 {self.host}\r\ns=-\r\nc=IN IP4 {self.host}\r\n"
            f"t=0 0\r\nm=audio {self.port + 2} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n"
            f"a=rtpmap:101 telephone-event/8000\r\na={mode}\r\n"
        )

    def send_request(self, method: str, leg: Leg, body: str = "", headers: str = "") -> None:
        if method not in {"ACK", "CANCEL"}:
            leg.sequence += 1
        if method != "CANCEL":  # which takes back the INVITE, by its branch and number
            leg.branch = f"z9hG4bK{secrets.token_hex(6)}"
        kind = "Content-Type: application/sdp\r\n" if body else ""
        text = (
            f"{method} {leg.target} SIP/2.0\r\nVia: SIP/2.0/UDP {self.host}:{self.port};branch={leg.branch}\r\n"
            f"From: {leg.local}\r\nTo: {leg.remote}\r\nCall-ID: {leg.call_id}\r\nCSeq: {leg.sequence} {method}\r\n"
            f"Contact: <sip:{leg.number}@{self.host}:{self.port}>\r\nMax-Forwards: 70\r\n{headers}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self._send(text.encode())

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, self.server)

    def _answer(self, request: Message, leg: Leg | None, status: int, body: str = "") -> None:
        to = request["to"]
        if leg is not None and ";tag=" not in to:
            to += f";tag={_tag(leg.local)}"
        vias = "".join(f"Via: {via}\r\n" for via in request.headers["via"])
        kind = "Content-Type: application/sdp\r\n" if body else ""
        user = leg.number if leg is not None else "party"
        text = (
            f"SIP/2.0 {status} {'OK' if status == 200 else 'Said'}\r\n{vias}From: {request['from']}\r\nTo: {to}\r\n"
            f"Call-ID: {request['call-id']}\r\nCSeq: {request['cseq']}\r\n"
            f"Contact: <sip:{user}@{self.host}:{self.port}>\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}"
        )
        data = text.encode()
        self._answers[request["call-id"], request["cseq"]] = data
        self._send(data)

    def datagram_received(self, data: bytes, address: object) -> None:
        if not data.strip():
            return
        message = Message.read(data)
        leg = self.legs.get(message["call-id"])
        if message.status:
            self._answered(message, leg)
        elif (repeated := self._answers.get((message["call-id"], message["cseq"]))) is not None:
            self._send(repeated)
        else:
            self._requested(message, leg)

    def _answered(self, message: Message, leg: Leg | None) -> None:
        if leg is None or message.method != "INVITE":
            return
        leg.status = message.status
        if message.status in {180, 183}:
            leg.remote = message["to"]
            leg.rings.set()
        elif 200 <= message.status < 300:
            leg.remote = message["to"]
            found = _ADDRESS.search(message["contact"])
            leg.target = found[1] if found else leg.target
            self.send_request("ACK", leg)
            leg.answered.set()
            self._sound(leg, message)
        elif message.status >= 300:
            via = message["via"]
            text = (
                f"ACK {leg.target} SIP/2.0\r\nVia: {via}\r\n"
                f"From: {leg.local}\r\nTo: {message['to']}\r\nCall-ID: {leg.call_id}\r\nCSeq: {leg.sequence} ACK\r\n"
                "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
            )
            self._send(text.encode())
            leg.ended.set()

    def _requested(self, message: Message, leg: Leg | None) -> None:
        match message.method:
            case "INVITE" if leg is None:
                self._arrive(message)
            case "INVITE":
                self._answer(message, leg, 200, self.sdp())
            case "ACK":
                pass
            case "BYE":
                self._answer(message, leg, 200)
                if leg is not None:
                    leg.ended.set()
            case "CANCEL":
                self._answer(message, leg, 200)
                if leg is not None and leg.request is not None and not leg.answered.is_set():
                    self._answer(leg.request, leg, 487)
                    leg.ended.set()
            case _:
                self._answer(message, leg, 200)

    def _arrive(self, message: Message) -> None:
        user = _USER.search(message.first)
        number = user[1] if user else ""
        contact = _ADDRESS.search(message["contact"])
        leg = Leg(
            self,
            number,
            message["call-id"],
            local=f"{message['to']};tag={secrets.token_hex(4)}",
            remote=message["from"],
            target=contact[1] if contact else "",
            request=message,
        )
        self.legs[leg.call_id] = leg
        self.arrived.append(leg)
        self.on_arrival(leg)
        task = asyncio.create_task(self._behave(leg, message, self.conduct.get(number, Conduct())))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _behave(self, leg: Leg, invite: Message, conduct: Conduct) -> None:
        if conduct.rings is None or conduct.rings > 0:
            self._answer(invite, leg, 180)
        if conduct.rings is None:
            return
        await asyncio.sleep(conduct.rings)
        if leg.ended.is_set():
            return
        self._answer(invite, leg, conduct.status, self.sdp() if conduct.status == 200 else "")
        (leg.answered if conduct.status == 200 else leg.ended).set()
        if conduct.status == 200:
            self._sound(leg, invite)

    def _sound(self, leg: Leg, message: Message) -> None:
        port = re.search(r"m=audio (\d+)", message.body)
        if self.sounds and port is not None:
            task = asyncio.create_task(self._silence(leg, int(port[1])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _silence(self, leg: Leg, port: int) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=(self.host, 0)
        )
        try:
            for number in range(3000):
                head = struct.pack("!BBHII", 0x80, 0, number, number * 160, id(leg) & 0xFFFFFFFF)
                transport.sendto(head + b"\xff" * 160, (self.server[0], port))
                if leg.ended.is_set():
                    return
                await asyncio.sleep(0.02)
        finally:
            transport.close()
