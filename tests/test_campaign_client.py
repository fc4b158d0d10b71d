"""A look at a campaign lasts for hours: longer than a token, and longer than a restart of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from cti.rest_client import RefusedByServer, at
from dialer.management.client import Campaigns
from dialer.management.screen import follow

NOW = {
    "at": "2026-11-22T08:00:00Z",
    "state": "running",
    "agents": {},
    "calls": {},
    "today": {
        **dict.fromkeys(
            (
                "attempts",
                "in_flight",
                "answered",
                "connected",
                "abandoned",
                "late",
                "amd_errors",
                "live",
                "conversions",
            ),
            0,
        )
    },
    "budget": "3 more calls may be lost",
    "why": "placing 0",
}


@dataclass
class Door:
    """Stands for a server whose tokens are good for two questions, and which may be away."""

    port: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    log_ins: int = 0
    asked: int = 0
    runner: web.AppRunner | None = None

    async def open(self) -> None:
        app = web.Application()
        app.router.add_post("/api/v1/sessions", self._log_in)
        app.router.add_post("/api/v1/sessions/refresh", self._log_in)
        app.router.add_post("/api/v1/sessions/log-out", self._log_out)
        app.router.add_get("/api/v1/campaigns", self._campaigns)
        app.router.add_get("/api/v1/campaigns/1/now", self._now)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def close(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _log_in(self, _request: web.Request) -> web.Response:
        self.log_ins += 1
        token = f"token-{self.log_ins}"
        self.tokens[token] = 2
        return web.json_response({"access_token": token, "refresh_token": f"r-{self.log_ins}"})

    async def _log_out(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    def _good(self, request: web.Request) -> bool:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        left = self.tokens.get(token, 0)
        self.tokens[token] = left - 1
        return left > 0

    async def _campaigns(self, request: web.Request) -> web.Response:
        if not self._good(request):
            return web.json_response({"detail": "The token has expired; get a new one."}, status=401)
        return web.json_response({"items": [{"id": 1, "name": "Spring", "version": 1}], "next": None})

    async def _now(self, request: web.Request) -> web.Response:
        if not self._good(request):
            return web.json_response({"detail": "The token has expired; get a new one."}, status=401)
        self.asked += 1
        return web.json_response(NOW)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.open()
    yield made
    await made.close()


async def test_a_token_that_has_expired_is_replaced(door: Door) -> None:
    async with at(door.url, "sue", "secret", None) as server:
        for _ in range(7):
            assert (await server.ask("GET", "/campaigns/1/now"))["state"] == "running"
    assert door.asked == 7
    assert door.log_ins == 4


async def test_a_key_that_is_not_good_is_said(door: Door) -> None:
    async with at(door.url, "", "", "key") as server:
        with pytest.raises(RefusedByServer, match="expired"):
            await server.ask("GET", "/campaigns/1/now")


async def test_watching_outlasts_a_restart_of_the_server(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    async def until(seen: Any) -> None:
        async with asyncio.timeout(20):
            while not seen():
                await asyncio.sleep(0.02)

    async with at(door.url, "sue", "secret", None) as server:
        watching = asyncio.create_task(
            follow(Campaigns(server), "Spring", every=0.05, seconds=None, as_json=False)
        )
        await until(lambda: door.asked >= 2)
        await door.close()
        told = ""

        def away() -> bool:
            nonlocal told
            told += capsys.readouterr().err
            return "No answer from" in told

        await until(away)
        before = door.asked
        await door.open()
        await until(lambda: door.asked > before + 1)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
