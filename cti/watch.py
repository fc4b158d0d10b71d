"""`cti watch`: a live view of calls, agents, queues and screen pops in a terminal, over `cti.v1` like any other client.

Where standard output is no terminal, one line a fact. It only looks, except that an agent may ask to be logged on while
looking.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from cti.client import Client, CommandFailed, Refused
from cti.json_in import read_json
from cti.terminal_text import plain
from cti.watch_lines import UNTOLD, summary, told
from cti.watch_screen import Seat, screen

Frame = dict[str, Any]
LOOK_EVERY = 0.5
"""Seconds between two drawings when nothing happens; times tick."""

QUICKEST = 0.15
"""Seconds between two drawings when much happens."""

RETRIES = (0.5, 1.0, 2.0, 5.0)


class LogInFailed(Exception):
    """The server does not let this user in, or there is none at this address; the message says which."""

    def __init__(self, message: str, *, wrong: bool = False) -> None:
        super().__init__(message)
        self.wrong = wrong


class Login:
    """A session at the server: logs in once, then brings fresh tokens. The password stays in memory only."""

    def __init__(self, http: aiohttp.ClientSession, url: str, login: str, password: str) -> None:
        self._http = http
        self._url = url
        self._login = login
        self._password = password
        self._refresh: str | None = None
        self._unused: str | None = None

    async def begin(self) -> None:
        """Logs in. Raises LogInFailed, also when nothing answers."""
        try:
            self._unused = await self._ask(
                "/api/v1/sessions", {"login": self._login, "password": self._password}
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = (
                "nothing listens there"
                if isinstance(error, aiohttp.ClientConnectorError)
                else "it does not answer"
            )
            raise LogInFailed(
                f"No CTI server at {self._url}: {why}. Is `cti serve` or `cti demo` running?"
            ) from None

    async def token(self) -> str:
        """A fresh token; waits while the server is away. Raises LogInFailed when the user may not come in any more."""
        if (token := self._unused) is not None:
            self._unused = None
            return token
        for attempt in range(1_000_000):
            try:
                if self._refresh is not None:
                    try:
                        return await self._ask("/api/v1/sessions/refresh", {"refresh_token": self._refresh})
                    except LogInFailed:
                        self._refresh = None  # used up or over: the password says who we are
                return await self._ask("/api/v1/sessions", {"login": self._login, "password": self._password})
            except LogInFailed as failed:
                if failed.wrong:
                    raise
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(RETRIES[min(attempt, len(RETRIES) - 1)])
        raise LogInFailed("the server stays away")

    async def end(self) -> None:
        """Ends the session; a server that is away is left alone."""
        if self._refresh is None:
            return
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._http.post(
                f"{self._url}/api/v1/sessions/log-out", json={"refresh_token": self._refresh}
            ):
                pass

    async def _ask(self, path: str, body: dict[str, str]) -> str:
        async with self._http.post(
            f"{self._url}{path}", json=body, timeout=aiohttp.ClientTimeout(total=10)
        ) as answer:
            raw = await answer.read()
            try:
                said = read_json(raw)
            except ValueError:
                said = {}
            if not isinstance(said, dict):
                said = {}
            if answer.status in (200, 201) and isinstance(said.get("access_token"), str):
                self._refresh = said["refresh_token"]
                return str(said["access_token"])
            if answer.status in (401, 403):
                raise LogInFailed(
                    plain(said.get("detail"), 200) or "The login or the password is wrong.", wrong=True
                )
            if answer.status in (429, 503):
                raise LogInFailed(plain(said.get("detail"), 200) or "The server is too busy; try again.")
            if said.get("detail"):
                raise LogInFailed(f"The server says: {plain(said['detail'], 200)}", wrong=True)
            raise LogInFailed(f"What answers at {self._url} is not a CTI server.", wrong=True)


def websocket_url(url: str) -> str:
    """The websocket's address of a server's address."""
    return url.rstrip("/").replace("http", "ws", 1) + "/ws"


class Watch:
    """One look at a server, until cancelled or for so many seconds. `out` decides between a screen and lines; `top` stands
    above the screen.
    """

    def __init__(
        self,
        client: Client,
        *,
        url: str,
        out: Console,
        as_json: bool = False,
        lines: bool | None = None,
        log_on: bool = False,
        top: tuple[Text, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._top = top
        self._url = url
        self._out = out
        self._as_json = as_json
        plain_output = as_json or not out.is_terminal or out.is_dumb_terminal
        self._lines = plain_output if lines is None else (lines or plain_output)
        self._log_on = log_on
        self._clock = clock
        self._changed = asyncio.Event()
        self._ahead = timedelta()
        self._gone_since: float | None = clock()
        self._ever = False
        self._name = ""
        self._role = ""
        self.facts = 0
        self.frames_drawn = 0

    async def run(self, seconds: float | None = None) -> None:
        """Looks. Raises Refused or LogInFailed when the server does not want us back."""
        following = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(seconds):
                if self._lines:
                    await self._tell(following)
                else:
                    await self._draw(following)
        except TimeoutError:
            if following.done() and not following.cancelled() and following.exception() is not None:
                raise
        finally:
            await self._leave(following)

    async def _leave(self, following: asyncio.Task[None]) -> None:
        if self._log_on and self._client.connected and not following.done():
            with contextlib.suppress(CommandFailed, TimeoutError):
                await self._client.ask("agent.log_off", seconds=2.0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        async for frame in self._client.follow():
            self._take(frame)
            self._changed.set()

    def _take(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind == "welcome":
            agent = frame["agent"]
            self._name, self._role = agent["name"] or agent["login"], agent["role"]
            self._ahead = datetime.fromisoformat(frame["server"]["time"]) - datetime.now(UTC)
            again = self._ever
            self._ever, self._gone_since = True, None
            if self._lines and not self._as_json:
                how = (
                    ("again, nothing was missed" if frame["resumed"] else "again, all taken anew")
                    if again
                    else ""
                )
                self._line(
                    self._now(),
                    f"connected{' again' if again else ''} to {self._url} as {self._name} ({self._role}){how}",
                )
            if self._log_on and not again:
                self._work = asyncio.create_task(self._go_to_work())
        elif kind == "snapshot" and self._lines and not self._as_json:
            self._line(self._now(), summary(self._client.picture))
        elif kind == "goodbye" and self._lines and not self._as_json:
            self._line(self._now(), f"the server says goodbye: {frame['reason']}")
        elif "seq" in frame and "at" in frame:
            self.facts += 1
            if self._as_json:
                self._out.file.write(msgspec.json.encode(frame).decode() + "\n")
                self._out.file.flush()
            elif self._lines and kind not in UNTOLD:
                self._line(datetime.fromisoformat(frame["at"]), told(frame, self._client.picture))

    async def _go_to_work(self) -> None:
        with contextlib.suppress(CommandFailed, TimeoutError):
            await self._client.ask("agent.log_on", ready=True)
            return
        with contextlib.suppress(CommandFailed, TimeoutError):
            await self._client.ask("agent.ready")

    def _line(self, at: datetime, text: str) -> None:
        self._out.file.write(f"{at.astimezone():%H:%M:%S} {plain(text, 600)}\n")
        self._out.file.flush()

    def _now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def _notice(self) -> bool:
        """Looks whether the line is there; returns whether that has just changed for the worse."""
        if self._client.connected or self._gone_since is not None:
            return False
        self._gone_since = self._clock()
        return True

    def seat(self) -> Seat:
        """Who looks, and how the line is, at this moment."""
        self._notice()
        away = self._clock() - self._gone_since if self._gone_since is not None else 0.0
        return Seat(
            now=self._now(),
            name=self._name,
            role=self._role,
            url=self._url,
            connected=self._gone_since is None,
            away=away,
            ever=self._ever,
        )

    async def _tell(self, following: asyncio.Task[None]) -> None:
        while not following.done():
            await asyncio.wait({following}, timeout=LOOK_EVERY)
            if self._notice() and not self._as_json:
                self._line(
                    self._now(), "NOT CONNECTED, trying again; what happens meanwhile comes afterwards"
                )
        following.result()

    async def _draw(self, following: asyncio.Task[None]) -> None:
        with Live(
            console=self._out, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while not following.done():
                width, height = self._out.size
                live.update(screen(self._client.picture, self.seat(), width, height, self._top), refresh=True)
                self.frames_drawn += 1
                await asyncio.sleep(QUICKEST)
                waking = asyncio.create_task(self._changed.wait())
                await asyncio.wait(
                    {following, waking}, timeout=LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED
                )
                waking.cancel()
                self._changed.clear()
        following.result()


async def watch(
    url: str,
    login: str,
    password: str,
    *,
    out: Console,
    as_json: bool = False,
    lines: bool | None = None,
    log_on: bool = False,
    seconds: float | None = None,
) -> None:
    """Logs in and looks until cancelled, or until SIGTERM or SIGHUP. Raises LogInFailed, Refused."""
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed window logs an agent off, too
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with aiohttp.ClientSession() as http:
        session = Login(http, url, login, password)
        await session.begin()
        client = Client(websocket_url(url), session.token, name="cti watch")
        try:
            await Watch(client, url=url, out=out, as_json=as_json, lines=lines, log_on=log_on).run(seconds)
        finally:
            await session.end()


__all__ = ["LogInFailed", "Login", "Refused", "Watch", "watch", "websocket_url"]
