"""The simulator on a TCP port: sessions, logins, and faults at will.

    async with Simulator(Plan(calls_per_second=20, static_members=True), port=5038) as simulator:
        await simulator.lag(3.0)

Faults are coroutines and methods of `Simulator`; another process commands them over AMI with the action `Simulator`
(headers `Fault: drop|freeze|garbage|split|whole|restart|lag`, `Seconds`), which no Asterisk knows. The same action with
`CallsPerSecond` makes more calls or fewer from then on.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, cast

from cti.simulator.actions import VERSION, Actions, respond
from cti.simulator.messages import message
from cti.simulator.pbx import Pbx
from cti.simulator.plan import Plan

GREETING = b"Asterisk Call Manager/11.0.0\r\n"
TICK = 0.002
"""Seconds between two looks at what is due. All that is said in one goes out in one write for each session."""

UNREAD_MOST = 3 << 20
"""Bytes a client may leave unread; then it is dropped without a word, as Asterisk does after its writetimeout."""

AUTHENTICATION_DELAY = 1.0
"""Seconds that Asterisk takes to say that a login failed."""

LINE_MOST = 64 << 10
GARBAGE = (
    b"\xff\xfe\x00Event: New\r\nchannel\r\n:::\r\n\r\nEvent: \r\nUniqueid\r\n\r\n"
    + bytes(range(256))
    + b"\r\n\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An AMI user. `lean` hears what one with the rights of asterisk-config/include/manager_cti.conf does, others all."""

    secret: str
    lean: bool = True


class _Session(asyncio.Protocol):
    """One AMI connection."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._tail = b""
        self._challenge = ""
        self._backlog = bytearray()
        self._dripping = False
        self.user: User | None = None
        self.lean = True
        self.hears = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # other event loops' are no subclass of it
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._simulator.joined(self)
        self.write(GREETING)

    def connection_lost(self, exc: Exception | None) -> None:
        self.hears, self.user = False, None
        self._backlog.clear()
        self._simulator.left(self)

    def write(self, data: bytes) -> None:
        """Sends, in odd pieces when that fault is on; a client that does not read is dropped."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._simulator.splits or self._backlog:
            self._backlog += data
            if not self._dripping:
                self._dripping = True
                self._drip()
        else:
            transport.write(data)
        if transport.get_write_buffer_size() + len(self._backlog) > UNREAD_MOST:
            transport.abort()

    def _drip(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing() or not self._backlog:
            self._dripping = False
            return
        size = random.randint(1, 997)  # noqa: S311  # no secret
        transport.write(bytes(self._backlog[:size]))
        del self._backlog[:size]
        asyncio.get_running_loop().call_soon(self._drip)

    def data_received(self, data: bytes) -> None:
        *actions, tail = (self._tail + data).replace(b"\r\n", b"\n").split(b"\n\n")
        self._tail = tail
        if len(tail) > LINE_MOST and self.transport is not None:
            self.transport.abort()
            return
        for raw in actions:
            headers: dict[str, str] = {}
            for line in raw.decode("utf-8", "surrogateescape").split("\n"):
                name, colon, value = line.partition(":")
                if not colon:
                    continue
                key, word = name.strip().lower(), value.strip()
                if key == "variable" and key in headers:
                    headers[key] += "\n" + word
                else:
                    headers.setdefault(key, word)
            if headers:
                self._act(headers)

    def _act(self, headers: Mapping[str, str]) -> None:
        match headers.get("action", "").lower():
            case "challenge" if self.user is None:
                self._challenge = str(secrets.randbelow(1_000_000_000))
                self.write(respond(headers, "Success", None, [("Challenge", self._challenge)]))
            case "login" if self.user is None:
                self._login(headers)
            case "logoff" if self.transport is not None:
                self.write(respond(headers, "Goodbye", "Thanks for all the fish."))
                self.transport.close()
            case _ if self.user is None:
                self.write(respond(headers, "Error", "Permission denied"))
            case "events":
                self._mask(headers)
            case _:
                self._simulator.act(self, headers)

    def _login(self, headers: Mapping[str, str]) -> None:
        user = self._simulator.user(headers.get("username", ""))
        if user is None or not self._proves(headers, user):
            asyncio.get_running_loop().call_later(AUTHENTICATION_DELAY, self._reject, headers)
            return
        self.user, self.lean = user, user.lean
        self.write(respond(headers, "Success", "Authentication accepted"))
        self.hears = headers.get("events", "on").lower() not in {"off", "no", "false"}
        self._simulator.logged_in(self)

    def _proves(self, headers: Mapping[str, str], user: User) -> bool:
        if headers.get("authtype", "").lower() == "md5":
            key = hashlib.md5((self._challenge + user.secret).encode(), usedforsecurity=False).hexdigest()
            return bool(self._challenge) and hmac.compare_digest(key, headers.get("key", ""))
        given = headers.get("secret", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(user.secret.encode(), given)

    def _reject(self, headers: Mapping[str, str]) -> None:
        self.write(respond(headers, "Error", "Authentication failed"))
        if self.transport is not None:
            self.transport.close()

    def _mask(self, headers: Mapping[str, str]) -> None:
        mask = headers.get("eventmask", "").lower()
        self.hears = mask not in {"off", "no", "false"}
        if self.user is not None:
            self.lean = self.user.lean or (self.hears and mask not in {"on", "yes", "true", "all"})
        self._simulator.heard()
        self.write(respond(headers, "Success", None, [("Events", "On" if self.hears else "Off")]))


class Simulator:
    """An AMI peer with a small PBX behind it."""

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        users: Mapping[str, User] | None = None,
        tick: float = TICK,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._host, self._port, self._tick_every, self._clock = host, port, tick, clock
        self._users = dict(users) if users is not None else {"cti": User(secret="cti-secret")}  # noqa: S106
        self.pbx = Pbx(plan or Plan(), clock=clock)
        self._actions = Actions(self.pbx, clock=clock)
        self._sessions: set[_Session] = set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._frozen_until = 0.0
        self._lag = 0.0
        self._late: deque[tuple[float, bytes, bytes]] = deque()
        self._booted_at = 0.0
        self._restarting: asyncio.Task[None] | None = None
        self.splits = False
        self.refuses_logins = False
        self.bytes_sent = 0

    @property
    def port(self) -> int:
        """Where it listens; chosen at `start` when 0 was given."""
        return self._port

    @property
    def sessions(self) -> int:
        """How many clients are logged in."""
        return sum(session.user is not None for session in self._sessions)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listens and lets the PBX's time run. Raises OSError when the port is taken."""
        await self._listen()
        self._tick()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Session(self), self._host, self._port, reuse_address=True
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stops all; clients see the connection close."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        self._drop_all()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    # ------------------------------------------------------------------------------------------ time and events

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._clock() >= self._frozen_until:
            self.pbx.advance()
            self._flush()
        pause = max(0.0, self._tick_every - (loop.time() - began))
        self._timer = loop.call_later(pause, self._tick)

    def _flush(self) -> None:
        full, lean = self.pbx.take()
        if self._lag or self._late:
            now = self._clock()
            self._late.append((now + self._lag, full, lean))
            due = []
            while self._late and self._late[0][0] <= now:
                due.append(self._late.popleft())
            full, lean = b"".join(f for _, f, _ in due), b"".join(e for _, _, e in due)
        if not full and not lean:
            return
        for session in tuple(self._sessions):
            if session.hears:
                data = lean if session.lean else full
                if data:
                    self.bytes_sent += len(data)
                    session.write(data)

    def heard(self) -> None:
        """Notes which kinds of clients there are: what nobody hears is not made."""
        self.pbx.hears_full = any(s.hears and not s.lean for s in self._sessions)
        self.pbx.hears_lean = any(s.hears and s.lean for s in self._sessions)

    # ------------------------------------------------------------------------------------------ sessions

    def joined(self, session: _Session) -> None:
        """A client has connected."""
        self._sessions.add(session)

    def left(self, session: _Session) -> None:
        """A client has gone."""
        self._sessions.discard(session)
        self.heard()

    def user(self, name: str) -> User | None:
        """The user of that name; None as long as `refuses_logins`."""
        return None if self.refuses_logins else self._users.get(name)

    def logged_in(self, session: _Session) -> None:
        """A client is in: FullyBooted follows, as soon as the PBX is."""
        asyncio.get_running_loop().call_later(
            max(0.0, self._booted_at - self._clock()), self._say_booted, session
        )

    def _say_booted(self, session: _Session) -> None:
        if session.user is None:
            return
        self._flush()
        up = str(int(self._clock() - self.pbx.started))
        session.write(
            message(
                [
                    ("Event", "FullyBooted"),
                    ("Privilege", "system,all"),
                    ("Uptime", up),
                    ("LastReload", up),
                    ("Status", "Fully Booted"),
                ]
            )
        )
        self.heard()

    def act(self, session: _Session, headers: Mapping[str, str]) -> None:
        """Answers one session's action; the events it causes follow the answer."""
        if headers.get("action", "").lower() == "simulator":
            self._fault_by_action(session, headers)
            return
        self._flush()
        session.write(self._actions.answer(headers))
        self._flush()

    def _fault_by_action(self, session: _Session, headers: Mapping[str, str]) -> None:
        try:
            seconds = float(headers.get("seconds") or 1.0)
            pace = float(headers["callspersecond"]) if "callspersecond" in headers else None
        except ValueError:
            session.write(respond(headers, "Error", "Seconds and CallsPerSecond are numbers"))
            return
        loop = asyncio.get_running_loop()
        session.write(respond(headers, "Success", VERSION))
        if pace is not None:
            self.pbx.set_pace(pace)
        match headers.get("fault", "").lower():
            case "drop":
                loop.call_soon(self.drop)
            case "freeze":
                self.freeze(seconds)
            case "garbage":
                self.garbage()
            case "split" | "whole" as word:
                self.splits = word == "split"
            case "lag":
                self.lag(seconds)
            case "restart":
                self._restarting = loop.create_task(self.restart(down=seconds))

    # ------------------------------------------------------------------------------------------ faults

    def drop(self) -> None:
        """Breaks every connection; the PBX itself goes on."""
        self._drop_all()

    def _drop_all(self) -> None:
        for session in tuple(self._sessions):
            if session.transport is not None:
                session.transport.abort()

    def freeze(self, seconds: float) -> None:
        """Neither reads nor writes nor does anything for so long; then all that was due happens at once."""
        self._frozen_until = self._clock() + seconds
        for session in self._sessions:
            if session.transport is not None:
                session.transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self._thaw)

    def _thaw(self) -> None:
        for session in self._sessions:
            if session.transport is not None and not session.transport.is_closing():
                session.transport.resume_reading()

    def garbage(self, data: bytes = GARBAGE) -> None:
        """Sends every client bytes that are no AMI, between two messages."""
        for session in tuple(self._sessions):
            session.write(data)

    def lag(self, seconds: float) -> None:
        """Sends events so many seconds late from now on, with the time at which they happened; answers come at once."""
        self._lag = seconds

    async def restart(self, *, down: float = 0.5, booting: float = 0.2) -> None:
        """As `core restart now`: connections close without a word, calls and dynamic members are gone, nobody listens for
        `down` seconds, and for `booting` more a login works but FullyBooted does not come."""
        if self._server is not None:
            self._server.close()
        self._drop_all()
        self._late.clear()
        self._frozen_until = self._clock() + down
        self.pbx.restart()
        await asyncio.sleep(down)
        self._booted_at = self._clock() + booting
        await self._listen()
