"""The web application: routes, websocket and documents put together, with the guard around all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aiohttp import web

from cti import asyncapi, openapi
from cti.commands import Commands
from cti.facts import Fact
from cti.hub import pack
from cti.openapi import Route, Routes
from cti.problems import Problem
from cti.protocol import SUBPROTOCOL
from cti.rest.outages import OUTAGES
from cti.rest.serving import LARGEST_BODY, Asked, Serving, Translate, middleware
from cti.websocket import Authenticate, Websocket


def application(
    *,
    routes: Iterable[Route],
    websocket: Websocket,
    commands: Commands,
    facts: Iterable[type[Fact]],
    authenticate: Authenticate,
    version: str,
    title: str = "CTI server",
    allowed_origins: Collection[str] = (),
    translate: Mapping[type[Exception], Translate] | None = None,
) -> web.Application:
    """Returns the application; its documents describe what is registered by now.

    `translate`: exceptions of the parts behind the routes that mean a problem; a database out of reach is known.
    On shutdown every websocket is closed with 1012.
    """
    register = Routes()
    register.add(*routes)
    app = web.Application(middlewares=[middleware()], client_max_size=LARGEST_BODY)
    app.router.add_get("/ws", websocket.handle)
    documents: dict[str, tuple[bytes, str]] = {}
    for path, summary, kind in (
        ("/api/openapi.json", "This interface, for programs: OpenAPI 3.1.", "application/json"),
        ("/api/asyncapi.json", "The websocket, for programs: AsyncAPI 3.", "application/json"),
        ("/api/", "This interface, for people.", "text/html"),
    ):
        register.add(_document_route(path, summary, kind, documents))
    described = openapi.document(register, title=title, version=version)
    spoken = asyncapi.document(
        facts=facts, commands=commands, title=f"{title}: {SUBPROTOCOL}", version=version
    )
    documents["/api/openapi.json"] = pack(described), "application/json"
    documents["/api/asyncapi.json"] = pack(spoken), "application/json"
    documents["/api/"] = openapi.page(described).encode(), "text/html"
    serving = Serving(
        routes=register,
        authenticate=authenticate,
        allowed_origins=allowed_origins,
        translate={**OUTAGES, **(translate or {})},
    )
    serving.mount(app)

    async def goodbye(_app: web.Application) -> None:
        await websocket.stop()

    app.on_shutdown.append(goodbye)
    return app


def _document_route(path: str, summary: str, kind: str, documents: dict[str, tuple[bytes, str]]) -> Route:
    async def give(_asked: Asked) -> Any:
        if path not in documents:
            raise Problem(404, "no_such_address", "there is nothing at this address")
        body, content_type = documents[path]
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return Route(
        method="GET", path=path, handler=give, summary=summary, tag="Documents", roles=None, raw=kind
    )
