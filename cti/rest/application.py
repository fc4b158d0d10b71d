"""The web application: routes, websocket and documents put together, with the guard around all of them."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aiohttp import web

from cti import asyncapi, openapi
from cti.commands import Commands
from cti.facts import Fact
from cti.hub import pack
from cti.openapi import Route, Routes
from cti.protocol import SUBPROTOCOL
from cti.rest.documents import Document, document_routes
from cti.rest.outages import OUTAGES
from cti.rest.proxies import Proxies
from cti.rest.serving import LARGEST_BODY, Serving, Translate, middleware
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
    proxies: Proxies | None = None,
    translate: Mapping[type[Exception], Translate] | None = None,
) -> web.Application:
    """Returns the application; its documents describe what is registered when they are first asked for.

    `translate`: exceptions of the parts behind the routes that mean a problem; a database out of reach is known.
    On shutdown every websocket is closed with 1012.
    """
    facts = tuple(facts)
    register = Routes()
    register.add(*routes)
    app = web.Application(middlewares=[middleware()], client_max_size=LARGEST_BODY)
    app.router.add_get("/ws", websocket.handle)
    described = functools.cache(lambda: openapi.document(register, title=title, version=version))

    def spoken() -> dict[str, Any]:
        return asyncapi.document(
            facts=facts, commands=commands, title=f"{title}: {SUBPROTOCOL}", version=version
        )

    register.add(
        *document_routes(
            [
                Document(
                    path="/api/openapi.json",
                    summary="This interface, for programs: OpenAPI 3.1.",
                    kind="application/json",
                    write=lambda: pack(described()),
                ),
                Document(
                    path="/api/asyncapi.json",
                    summary="The websocket, for programs: AsyncAPI 3.",
                    kind="application/json",
                    write=lambda: pack(spoken()),
                ),
                Document(
                    path="/api/",
                    summary="This interface, for people.",
                    kind="text/html",
                    write=lambda: openapi.page(described()).encode(),
                ),
            ]
        )
    )
    serving = Serving(
        routes=register,
        authenticate=authenticate,
        allowed_origins=allowed_origins,
        proxies=proxies,
        translate={**OUTAGES, **(translate or {})},
    )
    serving.mount(app)

    async def goodbye(_app: web.Application) -> None:
        await websocket.stop()

    app.on_shutdown.append(goodbye)
    return app
