"""A server's campaigns over REST, for the command line: logs in, finds a campaign by name or id, asks and is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from cti.json_in import read_json
from cti.terminal_text import plain
from cti.watch import Login, LogInFailed

PATIENCE = 60.0
"""Seconds for one answer."""


class RefusedByServer(Exception):
    """The server refuses; the message is its sentence."""

    def __init__(self, status: int, says: str) -> None:
        super().__init__(says)
        self.status = status


class Server:
    """One server, asked as somebody. `token` brings what proves who."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str | None, login: Login | None) -> None:
        self._http, self._url, self._key, self._login = http, url, key, login
        self._token: str | None = None

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> Any:
        """One request; JSON as values, else text. Raises RefusedByServer, LogInFailed where nothing answers."""
        try:
            return await self._ask(method, path, body, query, version)
        except RefusedByServer as refused:
            if refused.status != 401 or self._login is None:
                raise
            self._token = None  # tokens last for minutes, a look at a campaign for hours
            return await self._ask(method, path, body, query, version)

    async def _ask(
        self, method: str, path: str, body: Any, query: Mapping[str, str] | None, version: int | None
    ) -> Any:
        headers = {"Authorization": f"Bearer {await self._proof()}"}
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        try:
            async with self._http.request(
                method,
                f"{self._url}/api/v1{path}",
                json=body,
                params=query,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=PATIENCE),
            ) as answer:
                raw = await answer.read()
                if answer.status >= 400:
                    raise RefusedByServer(answer.status, _detail(raw, answer.status))
                return read_json(raw) if answer.content_type == "application/json" else raw.decode()
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

    async def all(self) -> list[dict[str, Any]]:
        """All campaigns that may be seen."""
        found: list[dict[str, Any]] = []
        query = {"limit": "500"}
        while True:
            part = await self.ask("GET", "/campaigns", query=query)
            found += part["items"]
            if part["next"] is None:
                return found
            query["cursor"] = part["next"]

    async def find(self, which: str) -> dict[str, Any]:
        """A campaign by its name, or its id. Raises RefusedByServer."""
        everyone = await self.all()
        for one in everyone:
            if one["name"] == which or str(one["id"]) == which:
                return one
        near = [one["name"] for one in everyone if which.lower() in one["name"].lower()]
        hint = f"; did you mean {', '.join(near[:5])}?" if near else "; cti campaigns list shows them"
        raise RefusedByServer(404, f"there is no campaign {which}{hint}")

    async def one(self, which: str) -> dict[str, Any]:
        """A campaign as a whole."""
        found = await self.find(which)
        return dict(await self.ask("GET", f"/campaigns/{found['id']}"))

    async def change(self, which: str, method: str, path: str, body: Any) -> Any:
        """Changes the version that there is now."""
        found = await self.find(which)
        return await self.ask(method, f"/campaigns/{found['id']}{path}", body, version=found["version"])

    async def edit(
        self, which: str, edit: Callable[[dict[str, Any]], dict[str, Any] | None]
    ) -> dict[str, Any]:
        """Changes the settings that `edit` makes of the campaign as it is, if it makes any; gives back how it is then."""
        found = await self.one(which)
        settings = edit(found)
        if settings is None:
            return found
        path, version = f"/campaigns/{found['view']['id']}", found["view"]["version"]
        return dict(await self.ask("PATCH", path, {"settings": settings}, version=version))

    async def plan(self, which: str, body: Any, tell: Callable[[str], object]) -> dict[str, Any]:
        """A dry run to its end; ended at the server if this is. `tell` is told what it does; "" at the end."""
        id = (await self.find(which))["id"]
        found = await self.ask("POST", f"/campaigns/{id}/plans", body)
        try:
            while found["state"] == "running":
                tell(str(found["doing"]))
                await asyncio.sleep(0.3)
                found = await self.ask("GET", f"/campaigns/{id}/plans/{found['id']}")
        except asyncio.CancelledError:
            await self.ask("DELETE", f"/campaigns/{id}/plans/{found['id']}")
            raise
        finally:
            tell("")
        return dict(found)


@asynccontextmanager
async def at(url: str, login: str, password: str, key: str | None) -> AsyncIterator[Server]:
    """A server at this address, asked by this API key, or as this user."""
    async with aiohttp.ClientSession() as http:
        if key is not None:
            yield Server(http, url, key, None)
            return
        session = Login(http, url, login, password)
        await session.begin()
        try:
            yield Server(http, url, None, session)
        finally:
            await session.end()


def _detail(raw: bytes, status: int) -> str:
    try:
        said = read_json(raw)
    except ValueError:
        said = None
    detail = said.get("detail") if isinstance(said, dict) else None
    return plain(detail, 4000) or f"the server answers {status}"
