"""One AMI session for an examination: asks, and notes the names of the events that come. Changes nothing by itself.

Unlike `cti.ami.AmiLink` it goes on with a user who is never told that Asterisk is ready, so that all that is wrong with
a user can be said at once; it does not supervise, reconnect or speed anything up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self

from cti.ami_protocol import check_action, read_headers, text

LARGEST_MESSAGE = 1 << 20
ROWS_MOST = 50_000

Message = dict[str, str]


class Refused(Exception):
    """Asterisk refuses the action; the message is its own words."""


class SessionLost(Exception):
    """The session ended, or Asterisk did not answer in time."""


class Line:
    """A logged-in session.

    `version` is that of the interface, `seen` counts the events by name, `booted`: FullyBooted was among them.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Queue[Message]] = {}
        self._lists: set[str] = set()
        self.version = ""
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self.seen: Counter[str] = Counter()
        self.stamped: bool | None = None
        self.booted = False
        self.lost = False

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        username: str,
        secret: str,
        *,
        tls: ssl.SSLContext | None = None,
        patience: float = 5.0,
    ) -> Self:
        """Connects and logs in. Raises OSError, Refused, SessionLost."""
        try:
            async with asyncio.timeout(patience):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=LARGEST_MESSAGE)
                line = cls(reader, writer)
                greeting = await reader.readuntil(b"\n")
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise SessionLost("there is no greeting") from error
        line.version = text(greeting).strip().rpartition("/")[2]
        line._reading = asyncio.create_task(line._read())
        try:
            await line._log_in(username, secret, patience)
        except BaseException:
            await line.close()
            raise
        return line

    async def _log_in(self, username: str, secret: str, patience: float) -> None:
        try:
            challenge = (await self.ask("Challenge", {"AuthType": "MD5"}, patience)).get("Challenge", "")
        except Refused:
            challenge = ""
        proof = {"Secret": secret}
        if challenge:
            key = hashlib.md5((challenge + secret).encode(), usedforsecurity=False).hexdigest()
            proof = {"AuthType": "MD5", "Key": key}
        await self.ask("Login", {"Username": username, "Events": "on", **proof}, patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Logs off and closes; a closed one is fine."""
        if self._reading is not None:
            self._reading.cancel()
        with contextlib.suppress(OSError):
            self._writer.write(b"Action: Logoff\r\n\r\n")
            self._writer.close()
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()

    async def _read(self) -> None:
        try:
            while True:
                raw = await self._reader.readuntil(b"\r\n\r\n")
                self._take(read_headers(raw))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass
        finally:
            self.lost = True
            self._changed.set()
            for waiting in self._answers.values():
                waiting.put_nowait({})

    def _take(self, message: Message) -> None:
        id = message.get("ActionID", "")
        waiting = self._answers.get(id)
        if waiting is not None and ("Event" not in message or id in self._lists):
            waiting.put_nowait(message)
            return
        if name := message.get("Event"):
            self.seen[name] += 1
            if name == "FullyBooted":
                self.booted = True
            elif name in ("Newchannel", "Hangup", "UserEvent"):
                self.stamped = "Timestamp" in message
            self._changed.set()

    async def ask(
        self, action: str, headers: Mapping[str, str] | None = None, patience: float = 5.0
    ) -> Message:
        """Carries out an action and returns Asterisk's answer. Raises Refused, SessionLost."""
        async with self._asked(action, headers or {}, False) as answers:
            return await self._answer(answers, action, patience)

    async def rows(
        self, action: str, headers: Mapping[str, str] | None = None, patience: float = 10.0
    ) -> list[Message]:
        """Carries out an action that answers with a list and returns its rows. Raises Refused, SessionLost."""
        found: list[Message] = []
        async with self._asked(action, headers or {}, True) as answers:
            answer = await self._answer(answers, action, patience)
            if answer.get("EventList", "").lower() != "start":
                return found
            while len(found) < ROWS_MOST:
                row = await self._answer(answers, action, patience)
                if row.get("EventList", "").lower() in ("complete", "cancelled"):
                    return found
                found.append(row)
        return found

    @contextlib.asynccontextmanager
    async def _asked(
        self, action: str, headers: Mapping[str, str], as_list: bool
    ) -> AsyncIterator[asyncio.Queue[Message]]:
        id = f"doctor-{next(self._numbers)}"
        lines = [f"Action: {action}", f"ActionID: {id}"]
        lines += [f"{name}: {value}" for name, value in check_action(action, headers).items()]
        answers: asyncio.Queue[Message] = asyncio.Queue()
        self._answers[id] = answers
        if as_list:
            self._lists.add(id)
        try:
            if self.lost:
                raise SessionLost(f"Asterisk closed the session before {action}")
            self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
            yield answers
        finally:
            del self._answers[id]
            self._lists.discard(id)

    @staticmethod
    async def _answer(answers: asyncio.Queue[Message], action: str, patience: float) -> Message:
        try:
            async with asyncio.timeout(patience):
                answer = await answers.get()
        except TimeoutError:
            raise SessionLost(f"Asterisk did not answer {action} within {patience:g} s") from None
        if not answer:
            raise SessionLost(f"Asterisk closed the session at {action}")
        if answer.get("Response") == "Error":
            raise Refused(answer.get("Message", "refused"))
        return answer

    async def until(self, wanted: Callable[[], bool], seconds: float) -> bool:
        """Waits until `wanted()` holds, looked at after each event; False when the time is over or the session lost."""
        try:
            async with asyncio.timeout(seconds):
                while not wanted():
                    if self.lost:
                        return False
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return wanted()
        return True
