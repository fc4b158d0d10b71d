"""A server asked over REST, for the command line: logs in, asks and is told, sends and takes files, part by part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

import aiohttp
import msgspec

from cti.json_in import read_json
from cti.terminal_text import plain
from cti.watch import Login, LogInFailed

PATIENCE = 60.0
"""Seconds for one answer, where nothing else is said."""

LONG = 1_000.0
"""Seconds for an answer that is about every contact of a list, or a whole file."""

PART = 1 << 20
"""Bytes of a file that are read at once."""

Query = Mapping[str, str]


class RefusedByServer(Exception):
    """The server refuses; the message is its sentence."""

    def __init__(self, status: int, says: str) -> None:
        super().__init__(says)
        self.status = status


class Server:
    """One server, asked as somebody: by an API key, or by a log-in. All of it raises RefusedByServer, and LogInFailed where
    nothing answers."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str | None, login: Login | None) -> None:
        self._http, self._url, self._key, self._login = http, url, key, login
        self._token: str | None = None

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Query | None = None,
        version: int | None = None,
        patience: float = PATIENCE,
    ) -> Any:
        """One request; JSON as values, else text. `version`: the one that is changed; `patience`: seconds."""
        how = {"json": body, "params": query, "timeout": aiohttp.ClientTimeout(total=patience)}
        match = {} if version is None else {"If-Match": f'"{version}"'}
        async with self._answer(method, path, match, lambda: how) as answer:
            return await _told(answer)

    async def all(self, path: str, query: Query | None = None) -> list[dict[str, Any]]:
        """All of what comes in pages."""
        found: list[dict[str, Any]] = []
        asked = {"limit": "500", **(query or {})}
        while True:
            part = await self.ask("GET", path, query=asked)
            found += part["items"]
            if part["next"] is None:
                return found
            asked["cursor"] = part["next"]

    async def send(
        self, path: str, file: BinaryIO, *, query: Query, sent: Callable[[int], object] = lambda _bytes: None
    ) -> Any:
        """Sends a file as it is, part by part; `sent` is told the bytes of each. The answer as by `ask`."""

        async def parts() -> AsyncIterator[bytes]:
            while part := await asyncio.to_thread(file.read, PART):
                yield part
                sent(len(part))

        def how() -> dict[str, Any]:
            file.seek(0)
            return {"data": parts(), "params": query, "timeout": _FOR_FILES}

        async with self._answer("POST", path, {"Content-Type": "application/octet-stream"}, how) as answer:
            return await _told(answer)

    async def parts(self, path: str, query: Query | None = None) -> AsyncIterator[bytes]:
        """A file of the server's, part by part."""
        async with self._answer("GET", path, {}, lambda: {"params": query, "timeout": _FOR_FILES}) as answer:
            async for part in answer.content.iter_chunked(PART):
                yield part

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, headers: Mapping[str, str], how: Callable[[], dict[str, Any]]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        for again in (True, False):
            proof = {"Authorization": f"Bearer {await self._proof()}", **headers}
            try:
                async with self._http.request(
                    method, f"{self._url}/api/v1{path}", headers=proof, **how()
                ) as answer:
                    if answer.status == 401 and self._login is not None and again:
                        self._token = None  # tokens last for minutes, a look at a campaign for hours
                        continue
                    if answer.status >= 400:
                        raise RefusedByServer(answer.status, _detail(await answer.read(), answer.status))
                    yield answer
                    return
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise LogInFailed(
                    f"No answer from {self._url}: {plain(error, 200) or type(error).__name__}"
                ) from None

    async def _proof(self) -> str:
        if self._key is not None:
            return self._key
        if self._token is None and self._login is not None:
            self._token = await self._login.token()
        return self._token or ""


_FOR_FILES = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=LONG)


@asynccontextmanager
async def at(url: str, login: str, password: str, key: str | None) -> AsyncIterator[Server]:
    """A server at this address, asked by this API key, or as this user."""
    async with aiohttp.ClientSession(json_serialize=_json) as http:
        if key is not None:
            yield Server(http, url, key, None)
            return
        session = Login(http, url, login, password)
        await session.begin()
        try:
            yield Server(http, url, None, session)
        finally:
            await session.end()


async def _told(answer: aiohttp.ClientResponse) -> Any:
    raw = await answer.read()
    return read_json(raw) if answer.content_type == "application/json" else raw.decode()


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _detail(raw: bytes, status: int) -> str:
    try:
        said = read_json(raw)
    except ValueError:
        said = None
    detail = said.get("detail") if isinstance(said, dict) else None
    return plain(detail, 4000) or f"the server answers {status}"
