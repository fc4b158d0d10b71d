"""The documents that describe the interfaces: written when first asked for, beside the loop, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cti.openapi import Route
from cti.rest.serving import Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document: where, what, of which media type, and what writes it."""

    path: str
    summary: str
    kind: str
    write: Callable[[], bytes]


def document_routes(documents: Iterable[Document]) -> list[Route]:
    """The routes that give them. Writing takes half a second of the processor: no start waits for it, and no call."""
    return [_route(one) for one in documents]


def _route(document: Document) -> Route:
    writing: asyncio.Task[bytes] | None = None

    async def give(_asked: Asked) -> Any:
        nonlocal writing
        if writing is None or (writing.done() and (writing.cancelled() or writing.exception())):
            writing = asyncio.create_task(asyncio.to_thread(document.write))
        body = await asyncio.shield(writing)
        return web.Response(body=body, content_type=document.kind, charset="utf-8")

    return Route(
        method="GET",
        path=document.path,
        handler=give,
        summary=document.summary,
        tag="Documents",
        roles=None,
        raw=document.kind,
    )
