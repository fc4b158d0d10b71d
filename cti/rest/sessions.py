"""Logging in and out: a password becomes a short-lived access token and a refresh token that brings the next.

Browsers ask for cookies and never see a token: HttpOnly, SameSite=Strict, and the refresh cookie goes to this address
only. Programs get both tokens in the body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.openapi import Route
from cti.people import Actor
from cti.problems import Problem
from cti.protocol import WhoAmI
from cti.rest.serving import Asked, Reply
from cti.websocket import COOKIE, cookie, same_origin

REFRESH_COOKIE = "cti_refresh"
PATH = "/api/v1/sessions"
Token = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class LoggedIn(Protocol):
    """What logging in or refreshing gives. A refresh token is good once; its successor comes with the answer."""

    @property
    def actor(self) -> Actor: ...
    @property
    def access(self) -> str: ...
    @property
    def access_expires(self) -> datetime: ...
    @property
    def refresh(self) -> str: ...
    @property
    def refresh_expires(self) -> datetime: ...


class LogIn(BaseModel):
    """Who wants to log in. `cookie`: a browser that wants its tokens as cookies."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    login: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    password: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    cookie: bool = False


class Refresh(BaseModel):
    """The refresh token, unless it comes as a cookie."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    refresh_token: Token | None = None


class SessionGiven(BaseModel):
    """A session. The tokens are null when they went into cookies."""

    access_token: str | None = Field(description="goes into `Authorization: Bearer` or the websocket's hello")
    expires: datetime = Field(description="get the next access token before this time")
    refresh_token: str | None = Field(description="good for one refresh")
    session_ends: datetime = Field(description="log in again after this time")
    user: WhoAmI


def routes(
    *,
    log_in: Callable[[str, str, str], Awaitable[LoggedIn]],
    refresh: Callable[[str], Awaitable[LoggedIn]],
    log_out: Callable[[str], Awaitable[None]],
    secure: bool,
    allowed_origins: Collection[str] = (),
) -> list[Route]:
    """Returns the routes. `log_in(login, password, address)`; `log_out(refresh token)` ends the session.

    `secure`: clients come over https, so the cookies must never go over http.
    """

    async def create(asked: Asked) -> Reply:
        wanted: LogIn = asked.body
        given = await log_in(wanted.login, wanted.password, asked.request.remote or "")
        return _given(given, wanted.cookie, 201)

    async def renew(asked: Asked) -> Reply:
        token, from_cookie = _token(asked)
        return _given(await refresh(token), from_cookie, 200)

    async def delete(asked: Asked) -> Reply:
        token, _ = _token(asked)
        await log_out(token)
        return Reply(status=204, cookies=(_cookie(COOKIE, "", "/", 0), _cookie(REFRESH_COOKIE, "", PATH, 0)))

    def _token(asked: Asked) -> tuple[str, bool]:
        if asked.body.refresh_token:
            return asked.body.refresh_token, False
        token = cookie(asked.request, REFRESH_COOKIE)
        if not token:
            raise Problem(401, "not_authenticated", "send the refresh token, or log in again")
        if not same_origin(asked.request, allowed_origins):
            raise Problem(403, "cross_site", "a request with the session cookie must come from our own page")
        return token, True

    def _given(given: LoggedIn, as_cookies: bool, status: int) -> Reply:
        actor = given.actor
        user = WhoAmI(login=actor.login, name=actor.name, role=actor.role, teams=sorted(actor.teams))
        value = SessionGiven(
            access_token=None if as_cookies else given.access,
            expires=given.access_expires,
            refresh_token=None if as_cookies else given.refresh,
            session_ends=given.refresh_expires,
            user=user,
        )
        if not as_cookies:
            return Reply(value=value, status=status)
        now = datetime.now(UTC)
        return Reply(
            value=value,
            status=status,
            cookies=(
                _cookie(COOKIE, given.access, "/", int((given.access_expires - now).total_seconds())),
                _cookie(
                    REFRESH_COOKIE, given.refresh, PATH, int((given.refresh_expires - now).total_seconds())
                ),
            ),
        )

    def _cookie(name: str, value: str, path: str, seconds: int) -> str:
        kept = f"{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        return kept + "; Secure" if secure else kept

    too_many = frozenset({401, 403, 429})
    return [
        Route(
            method="POST",
            path=PATH,
            handler=create,
            summary="Logs in.",
            tag="Sessions",
            roles=None,
            body=LogIn,
            result=SessionGiven,
            status=201,
            errors=too_many,
        ),
        Route(
            method="POST",
            path=f"{PATH}/refresh",
            handler=renew,
            summary="Gets the next access token.",
            tag="Sessions",
            roles=None,
            body=Refresh,
            result=SessionGiven,
            errors=too_many,
        ),
        Route(
            method="POST",
            path=f"{PATH}/log-out",
            handler=delete,
            summary="Logs out: the session of this refresh token ends, here and in every tab.",
            tag="Sessions",
            roles=None,
            body=Refresh,
            status=204,
            errors=too_many,
        ),
    ]
