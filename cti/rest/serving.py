"""How every REST request is served: who asks, whether they may, what they say, and the answer or the problem.

The order is always the same: log-in, role, cross-site check, parameters, body, handler. A handler gets an `Asked` whose
parts have been checked, and returns a value or a `Reply`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import structlog
from aiohttp import web
from multidict import CIMultiDict
from pydantic import BaseModel, ValidationError

from cti.commands import CommandError, sentence
from cti.hub import Grant, pack
from cti.json_in import has_nul, read_json, too_deep
from cti.openapi import Route, Routes
from cti.people import Actor, Role
from cti.problems import Problem, of_command_error
from cti.rest.proxies import Proxies
from cti.websocket import COOKIE, Authenticate, NotAuthenticated, cookie, same_origin

log = structlog.get_logger(__name__)

Translate = Callable[[Exception], Problem]

LARGEST_BODY = 1 << 20
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
KEYS_KEPT_SECONDS = 3600.0
KEYS_KEPT_AT_MOST = 10_000

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that has been checked. `who` raises where a route is open to strangers and nobody has logged in."""

    grant: Grant | None
    params: Any
    query: Any
    body: Any
    match: str | None
    key: str | None
    request: web.Request

    @property
    def who(self) -> Actor:
        """Who asks."""
        if self.grant is None:
            raise Problem(401, "not_authenticated", "log in first", headers={"WWW-Authenticate": "Bearer"})
        return self.grant.actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer with more than a value. `version` becomes the ETag. `cookies` are ready Set-Cookie values."""

    value: Any = None
    status: int | None = None
    version: int | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kept:
    fingerprint: bytes
    since: float
    task: asyncio.Task[tuple[int, bytes, dict[str, str]]]


class Serving:
    """Answers requests by the routes. Bounded: a body of 1 MiB, 10,000 idempotency keys for at most an hour.

    `allowed_origins`: pages besides our own that may act with the session cookie. No CORS header is ever sent.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        authenticate: Authenticate,
        allowed_origins: Collection[str] = (),
        proxies: Proxies | None = None,
        translate: Mapping[type[Exception], Translate] | None = None,
    ) -> None:
        self._routes = routes
        self._proxies = proxies or Proxies()
        self._authenticate = authenticate
        self._origins = frozenset(allowed_origins)
        self._translate = dict(translate or {})
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()

    def mount(self, app: web.Application) -> None:
        """Puts every route into the application."""
        for route in self._routes:
            handler = self._handler(route)
            if route.method == "GET":
                app.router.add_get(route.path, handler)  # and HEAD
            else:
                app.router.add_route(route.method, route.path, handler)

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await self._answer(route, self._proxies.seen_through(request))
            except CommandError as error:
                raise of_command_error(error.code, error.message) from None
            except Exception as error:
                for kind in type(error).__mro__:
                    if kind in self._translate:
                        raise self._translate[kind](error) from error
                raise

        return handle

    async def _answer(self, route: Route, request: web.Request) -> web.StreamResponse:
        grant = await self._admit(route, request)
        params = _checked(route.params, _plain_pairs(dict(request.match_info), "path"), 404)
        query = _checked(route.query, _query(request, route), 422)
        raw, body = await self._body(route, request)
        asked = Asked(
            grant=grant,
            params=params,
            query=query,
            body=body,
            match=_if_match(route, request),
            key=_idempotency_key(route, request),
            request=request,
        )
        if asked.key is None:
            given = await route.handler(asked)
            return given if isinstance(given, web.StreamResponse) else _response(route, request, given)
        status, content, headers = await self._once(route, asked, raw)
        return web.Response(status=status, body=content, content_type="application/json", headers=headers)

    async def _admit(self, route: Route, request: web.Request) -> Grant | None:
        if route.roles is None:
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if not token:
            token = cookie(request, COOKIE) or ""
            if token and request.method not in SAFE and not same_origin(request, self._origins):
                raise Problem(
                    403, "cross_site", "a request with the session cookie must come from our own page"
                )
        if not token:
            raise _not_authenticated("log in: send Authorization: Bearer and a token or an API key")
        try:
            grant = await self._authenticate(token)
        except NotAuthenticated as error:
            raise _not_authenticated(str(error)) from None
        if grant.actor.role not in route.roles:
            raise Problem(403, "forbidden", f"this is for {_listed(route.roles)}; you are {grant.actor.role}")
        return grant

    async def _body(self, route: Route, request: web.Request) -> tuple[bytes, Any]:
        if route.body is None:
            return b"", None
        if request.content_type != "application/json":
            raise Problem(415, "not_json", "send Content-Type: application/json")
        raw = await request.read()
        try:
            value = read_json(raw)
        except ValueError as error:
            raise Problem(400, "bad_json", f"the body is not JSON: {error}") from None
        if too_deep(value):
            raise Problem(400, "bad_json", "the body is nested too deep")
        if has_nul(value):
            raise Problem(422, "bad_value", "text must not hold the character U+0000")
        return raw, _checked(route.body, value, 422)

    async def _once(self, route: Route, asked: Asked, raw: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Carries a POST out, or waits for, or repeats, the answer that the same key has had."""
        self._forget()
        key = (asked.who.login, asked.request.rel_url.raw_path, asked.key or "")
        fingerprint = hashlib.sha256(raw).digest()
        kept = self._kept.get(key)
        if kept is None:
            task = asyncio.create_task(self._carried_out(route, asked))
            kept = self._kept[key] = _Kept(fingerprint, monotonic(), task)
        elif kept.fingerprint != fingerprint:
            raise Problem(
                422, "key_reused", "this Idempotency-Key was used with another body: take a new one"
            )
        try:
            return await asyncio.shield(kept.task)
        except asyncio.CancelledError:
            raise
        except BaseException:  # what failed may be tried again with the same key
            if self._kept.get(key) is kept:
                del self._kept[key]
            raise

    async def _carried_out(self, route: Route, asked: Asked) -> tuple[int, bytes, dict[str, str]]:
        given = await route.handler(asked)
        response = _response(route, asked.request, given)
        content = response.body if isinstance(response.body, bytes) else b""
        kept = {name: value for name, value in response.headers.items() if name in ("ETag", "Location")}
        return response.status, content, kept

    def _forget(self) -> None:
        now = monotonic()
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            full = len(self._kept) >= KEYS_KEPT_AT_MOST
            if not kept.task.done() or (kept.since > now - KEYS_KEPT_SECONDS and not full):
                return
            if not kept.task.cancelled():
                kept.task.exception()
            del self._kept[key]


def middleware() -> Any:
    """Returns the outermost middleware: every failure leaves as a problem, every response with the security headers."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        except Problem as problem:
            response = problem.response()
        except web.HTTPException as error:
            response = _of_http(error).response()
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("request failed", method=request.method, route=_route_name(request))
            response = Problem(500, "internal", "the server failed; its log says why").response()
        if not response.prepared:
            for name, value in SECURITY_HEADERS.items():
                response.headers.setdefault(name, value)
            if request.secure:
                response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        return response

    return guard


def _route_name(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"


def _of_http(error: web.HTTPException) -> Problem:
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return Problem(
                405, "method_not_allowed", f"here you can use {allowed}", headers={"Allow": allowed}
            )
        case web.HTTPNotFound():
            return Problem(
                404, "no_such_address", "there is nothing at this address; /api/ lists what there is"
            )
        case web.HTTPRequestEntityTooLarge():
            return Problem(413, "too_large", f"a request's body holds at most {LARGEST_BODY} bytes")
        case _:
            return Problem(
                max(error.status, 400), "bad_request", error.reason or "the request cannot be served"
            )


def _not_authenticated(says: str) -> Problem:
    return Problem(401, "not_authenticated", says, headers={"WWW-Authenticate": "Bearer"})


def _listed(roles: Collection[Role]) -> str:
    return ", ".join(sorted(roles))


def _plain_pairs(given: dict[str, str], place: str) -> dict[str, str]:
    for value in given.values():
        if "\0" in value or not value.isprintable():
            raise Problem(400, "bad_value", f"the {place} holds characters that have no place there")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Problem(400, "bad_value", f"the {place} is not UTF-8") from None
    return given


def _query(request: web.Request, route: Route) -> dict[str, Any]:
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise Problem(422, "bad_value", "a query parameter is given twice")
        given[name] = value
    if given and route.query is None:
        raise Problem(422, "bad_value", "this address takes no query parameters")
    return _plain_pairs(given, "query")


def _checked(model: type[BaseModel] | None, value: Any, status: int) -> Any:
    if model is None:
        return value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        code = "not_found" if status == 404 else "bad_value"
        raise Problem(status, code, sentence(error, model)) from None


def _if_match(route: Route, request: web.Request) -> str | None:
    if not route.versioned:
        return None
    given = request.headers.get("If-Match", "").strip()
    if not given:
        raise Problem(428, "version_needed", "say with If-Match which version you are changing: its ETag")
    return given.removeprefix("W/").strip('"')


def _idempotency_key(route: Route, request: web.Request) -> str | None:
    given = request.headers.get("Idempotency-Key") if route.idempotent else None
    if given is None:
        return None
    given = given.strip()
    if not given or len(given) > 128 or not given.isascii() or not given.isprintable():
        raise Problem(422, "bad_value", "an Idempotency-Key is 1 to 128 characters of visible ASCII")
    return given


def _response(route: Route, request: web.Request, given: Any) -> web.Response:
    reply = given if isinstance(given, Reply) else Reply(value=given)
    status = reply.status or route.status
    headers: CIMultiDict[str] = CIMultiDict(reply.headers)
    for value in reply.cookies:
        headers.add("Set-Cookie", value)
    if reply.version is not None:
        headers["ETag"] = f'"{reply.version}"'
        if request.method in SAFE and request.headers.get("If-None-Match", "").strip() == headers["ETag"]:
            return web.Response(status=304, headers=headers)
    if route.result is None and reply.value is None:
        return web.Response(status=status if status != 200 else 204, headers=headers)
    return web.Response(
        status=status, body=pack(reply.value), content_type="application/json", headers=headers
    )
