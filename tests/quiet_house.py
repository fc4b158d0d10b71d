"""A server whose PBX is nowhere, with its database and the people who use it: for what is asked over REST alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import msgspec

from cti.embedded.place import free_ports
from cti.embedded.postgres import Postgres
from cti.server import Server
from cti.settings import load
from tests.centre import KEY, PASSWORD, database_of_centre
from tests.law_desk import LawDesk


class House:
    """The server; asks as any of its people."""

    def __init__(self, server: Server, dsn: str, pool: Any) -> None:
        self.server, self.dsn = server, dsn
        self.desk = LawDesk(pool, dsn)
        self._tokens: dict[str, str] = {}

    async def token(self, login: str) -> str:
        """A log-in's token."""
        if login not in self._tokens:
            body = {"login": login, "password": PASSWORD}
            async with (
                aiohttp.ClientSession(self.server.url) as http,
                http.post("/api/v1/sessions", json=body) as answer,
            ):
                self._tokens[login] = (await answer.json())["access_token"]
        return self._tokens[login]

    async def ask(
        self, method: str, path: str, login: str = "olga", raw: bool = False, **more: Any
    ) -> tuple[int, Any]:
        """Status and body."""
        headers = {"Authorization": f"Bearer {await self.token(login)}", **more.pop("headers", {})}
        async with (
            aiohttp.ClientSession(self.server.url) as http,
            http.request(method, "/api/v1" + path, headers=headers, **more) as answer,
        ):
            return answer.status, await (answer.text() if raw else answer.json())

    async def trail(self, *actions: str) -> list[dict[str, Any]]:
        """What the audit says of these actions."""
        rows = await self.desk.pool.fetch(
            "SELECT actor, action, detail FROM audit WHERE action = ANY ($1) ORDER BY id", list(actions)
        )
        return [{**dict(row), "detail": msgspec.json.decode(row["detail"])} for row in rows]


@asynccontextmanager
async def quiet_house(postgres_server: Postgres) -> AsyncIterator[House]:
    """The server at work, everybody engaged, the sample customers in its database."""
    dsn = await database_of_centre(postgres_server)
    nowhere, port = free_ports(2)
    server = Server(
        load(
            database_url=dsn,
            port=port,
            secret_key=KEY,
            log_level="warning",
            pbx={"main": {"host": "127.0.0.1", "port": nowhere, "secret": "x", "region": "GB"}},
        )
    )
    try:
        await server.start()
        async with asyncpg.create_pool(dsn, min_size=1, max_size=3) as pool:
            yield House(server, dsn, pool)
    finally:
        await server.stop()
        await asyncio.to_thread(postgres_server.drop_database, dsn.rpartition("/")[2])
