"""A scriptable AMI server on a plain socket, for faults that a real Asterisk cannot be made to show."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from cti.ami import AmiLink, LinkPhase, LinkStatus

TRACES = Path(__file__).parent / "traces" / "22"
GREETING = b"Asterisk Call Manager/11.0.0\r\n"
BOOTED = b"Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n"
USERNAME, SECRET = "cti", "demo-secret"

Headers = dict[str, str]
Handler = Callable[["Session", Headers], "bytes | None"]


def from_asterisk(name: str) -> bytes:
    """Return what Asterisk sent in a recorded trace, as it was on the wire; the greeting is its first line."""
    out = []
    for block in (TRACES / f"{name}.txt").read_bytes().split(b"\n\n"):
        lines = block.strip(b"\n").split(b"\n")
        if lines[0].startswith(b"#<") and len(lines) > 1:
            end = b"\r\n" if lines[1].startswith(b"Asterisk Call Manager") else b"\r\n\r\n"
            out.append(b"\r\n".join(lines[1:]) + end)
    return b"".join(out)


def event(name: str, **headers: str) -> bytes:
    """Build one event as Asterisk sends it."""
    lines = [f"Event: {name}", *(f"{key}: {value}" for key, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def ok(action: Headers, message: str = "", **headers: str) -> bytes:
    return reply("Success", action, message, **headers)


def error(action: Headers, message: str) -> bytes:
    return reply("Error", action, message)


def reply(word: str, action: Headers, message: str = "", **headers: str) -> bytes:
    lines = [f"Response: {word}", f"ActionID: {action['ActionID']}"]
    lines += [f"Message: {message}"] if message else []
    lines += [f"{key}: {value}" for key, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Session:
    """One connection of a client."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.challenge = ""
        self.gone = False

    def write(self, raw: bytes) -> None:
        if not self.gone:
            self.writer.write(raw)

    def drop(self) -> None:
        self.gone = True
        self.writer.transport.abort()


class Peer:
    """Answers logins, pings and Logoff like Asterisk; `on[action]` replaces any answer, None stays silent."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.greeting: bytes | None = GREETING
        self.booted = BOOTED
        self.frozen = False
        self.seen: list[Headers] = []
        self.raw = bytearray()
        self.sessions: list[Session] = []
        self.on: dict[str, Handler] = {}
        self.port = 0
        self._tls = tls
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every client."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for session in self.sessions:
            session.drop()
        if self._serving:
            await asyncio.wait(self._serving, timeout=5)

    async def __aenter__(self) -> Peer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def session(self) -> Session:
        """The newest connection."""
        return self.sessions[-1]

    def asked(self, action: str) -> list[Headers]:
        return [headers for headers in self.seen if headers["Action"] == action]

    async def until(self, condition: Callable[[], bool], within: float = 5.0) -> None:
        """Wait until something the clients sent makes the condition true."""
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._serving.add(me)
        me.add_done_callback(self._serving.discard)
        session = Session(writer)
        self.sessions.append(session)
        self._changed.set()
        try:
            if self.greeting is not None:
                session.write(self.greeting)
            rest = b""
            while data := await reader.read(65536):
                self.raw += data
                *blocks, rest = (rest + data).split(b"\r\n\r\n")
                for block in blocks:
                    self._answer(session, block.decode("utf-8", "surrogateescape"))
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            session.gone = True
            writer.close()
            self._changed.set()

    def _answer(self, session: Session, block: str) -> None:
        headers: Headers = {}
        for line in block.split("\r\n"):
            name, colon, value = line.partition(": ")
            if colon:
                headers.setdefault(name, value)
        if "Action" not in headers:
            return
        self.seen.append(headers)
        self._changed.set()
        if self.frozen:
            return
        handler = self.on.get(headers["Action"]) or getattr(self, f"_{headers['Action'].lower()}", None)
        if handler is None:
            session.write(error(headers, "Invalid/unknown command"))
            return
        answer = handler(session, headers)
        if answer is not None:
            session.write(answer)

    def _challenge(self, session: Session, headers: Headers) -> bytes:
        session.challenge = "202690462"
        return ok(headers, Challenge=session.challenge)

    def _login(self, session: Session, headers: Headers) -> bytes:
        key = hashlib.md5((session.challenge + SECRET).encode()).hexdigest()
        right = headers.get("Key") == key if session.challenge else headers.get("Secret") == SECRET
        if headers.get("Username") != USERNAME or not right:
            return error(headers, "Authentication failed")
        return ok(headers, "Authentication accepted") + self.booted

    def _ping(self, session: Session, headers: Headers) -> bytes:
        return ok(headers, Ping="Pong", Timestamp="1795288746.746706")

    def _logoff(self, session: Session, headers: Headers) -> None:
        session.write(b"Response: Goodbye\r\nMessage: Thanks for all the fish.\r\n\r\n")
        session.writer.close()


class Watcher:
    """Collects a link's records and status changes, and waits for the ones a test is about."""

    def __init__(self) -> None:
        self.statuses: list[LinkStatus] = []
        self.chunks: list[list[object]] = []
        self._changed = asyncio.Event()

    def on_status(self, status: LinkStatus) -> None:
        self.statuses.append(status)
        self._changed.set()

    def on_records(self, records: list[object]) -> None:
        self.chunks.append(records)
        self._changed.set()

    @property
    def records(self) -> list[object]:
        return [record for chunk in self.chunks for record in chunk]

    @property
    def phases(self) -> list[str]:
        return [status.phase.value for status in self.statuses]

    async def until(self, condition: Callable[[], bool], within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def status(
        self, phase: LinkPhase, code: str | None = None, *, after: int = 0, within: float = 10.0
    ) -> LinkStatus:
        """Wait for a status of this phase (and code), not looking at the first `after` ones."""

        def found() -> Iterator[LinkStatus]:
            return (s for s in self.statuses[after:] if s.phase is phase and code in (None, s.code))

        await self.until(lambda: next(found(), None) is not None, within)
        return next(found())


@asynccontextmanager
async def linked(port: int, **changes: Any) -> Any:
    """Run a link with short times to 127.0.0.1:port; yields (link, watcher, task) and ends it."""
    watcher = Watcher()
    options: dict[str, Any] = {
        "pbx": "lab",
        "host": "127.0.0.1",
        "port": port,
        "username": USERNAME,
        "secret": SECRET,
        "parsers": {b"Newchannel": bytes, b"Hangup": bytes, b"OriginateResponse": bytes},
        "on_records": watcher.on_records,
        "on_status": watcher.on_status,
        "connect_timeout": 1.0,
        "login_timeout": 1.0,
        "boot_timeout": 0.3,
        "ping_every": 5.0,
        "ping_timeout": 2.0,
        "backoff_max": 0.05,
    }
    link = AmiLink(**(options | changes))
    task = asyncio.create_task(link.run())
    try:
        yield link, watcher, task
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def event_name(raw: object) -> bytes:
    """Return the name in the first line of a raw event."""
    return bytes(raw)[7:].partition(b"\r\n")[0] if isinstance(raw, bytes) else b""
