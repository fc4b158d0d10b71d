"""Whether the server is alive and able to work, and its figures for Prometheus. Open to whoever can reach the port."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel

from cti.openapi import Route
from cti.rest.serving import Asked, Reply

Check = Callable[[], str | None]
"""Returns None when all is well, else one sentence that says what is wrong."""


class Alive(BaseModel):
    """The process answers."""

    alive: bool


class Readiness(BaseModel):
    """Whether the server can do its work; for each part null or what is wrong with it."""

    ready: bool
    parts: dict[str, str | None]


def routes(*, checks: Mapping[str, Check], registry: CollectorRegistry) -> list[Route]:
    """Returns the routes. Every check is asked at each request, so it only looks at what is known already."""

    async def healthz(_asked: Asked) -> dict[str, bool]:
        return {"alive": True}

    async def readyz(_asked: Asked) -> Reply:
        parts: dict[str, str | None] = {}
        for name, check in checks.items():
            try:
                parts[name] = check()
            except Exception as error:
                parts[name] = f"the check itself failed: {type(error).__name__}"
        ready = not any(parts.values())
        return Reply(value={"ready": ready, "parts": parts}, status=200 if ready else 503)

    async def metrics(_asked: Asked) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        Route(
            method="GET",
            path="/healthz",
            handler=healthz,
            summary="Whether the process is alive.",
            tag="Health",
            roles=None,
            result=Alive,
        ),
        Route(
            method="GET",
            path="/readyz",
            handler=readyz,
            summary="Whether it can work: PBX links, database, journal.",
            tag="Health",
            roles=None,
            result=Readiness,
            errors=frozenset({503}),
        ),
        Route(
            method="GET",
            path="/metrics",
            handler=metrics,
            summary="Figures for Prometheus.",
            tag="Health",
            roles=None,
            raw="text/plain",
        ),
    ]
