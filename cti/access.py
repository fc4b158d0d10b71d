"""Access: who is at the door, by password, token or API key, for websocket and REST alike."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from cti.api_keys import verify_api_key
from cti.database import Database
from cti.hub import Grant
from cti.login import LogIn, Refused
from cti.passwords import Passwords
from cti.people import Actor
from cti.problems import Problem
from cti.settings import Settings
from cti.tokens import Access as TokenGrant
from cti.tokens import Issued, TokenInvalid, Tokens, signing_key
from cti.websocket import NotAuthenticated

log = structlog.get_logger(__name__)

KEY_CHECKED_EVERY = 5.0
"""Seconds within which a revoked API key is noticed by what is already connected with it."""

STATUS_OF_REFUSAL = {"wrong": 401, "disabled": 403, "too_many": 429, "busy": 503}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant:
    """Entry by an API key."""

    actor: Actor
    expires: datetime | None
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """A log-in as REST hands it out."""

    actor: Actor
    access: str
    access_expires: datetime
    refresh: str
    refresh_expires: datetime


def _logged_in(issued: Issued) -> LoggedIn:
    return LoggedIn(
        actor=issued.actor,
        access=issued.access,
        access_expires=issued.expires,
        refresh=issued.refresh,
        refresh_expires=issued.session_expires,
    )


class Access:
    """Opens and keeps shut. `start` before use, `close` after."""

    def __init__(self, database: Database, *, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._passwords = Passwords()
        self._log_in = LogIn(database.pool, self._passwords)
        self._tokens: Tokens | None = None
        self._keys_seen: dict[str, None] = {}
        self._keys_ended: set[str] = set()
        self._watch: asyncio.Task[None] | None = None

    @property
    def passwords(self) -> Passwords:
        """Hashes and checks passwords, bounded."""
        return self._passwords

    @property
    def tokens(self) -> Tokens:
        """Issues and ends sessions."""
        if self._tokens is None:
            raise RuntimeError("access is not started")
        return self._tokens

    async def start(self) -> None:
        """Reads the signing key and begins to hear of ended sessions."""
        s = self._settings
        key = await signing_key(self._database.pool, s.secret_key.get_secret_value())
        self._tokens = Tokens(
            s.database_url.get_secret_value(),
            self._database.pool,
            key=key,
            access=timedelta(minutes=s.token_minutes),
            session=timedelta(hours=s.session_hours),
        )
        await self._tokens.start()
        self._watch = asyncio.create_task(self._watch_keys(), name="ended API keys")

    async def close(self) -> None:
        """Stops. May be called twice."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        if self._tokens is not None:
            await self._tokens.close()
        self._passwords.close()

    # ------------------------------------------------------------------------------------------ tokens and keys

    async def authenticate(self, token: str) -> Grant:
        """Who this token or API key is for; raises NotAuthenticated, which says what to do."""
        if token.startswith("cti_"):
            return await self._by_key(token)
        try:
            return self.tokens.read(token)
        except TokenInvalid as error:
            raise NotAuthenticated(str(error)) from None

    async def _by_key(self, key: str) -> KeyGrant:
        holder = await verify_api_key(self._database.pool, key)
        if holder is None:
            raise NotAuthenticated("this API key is not known, has expired or was revoked: ask for a new one")
        key_id = holder.actor.login.removeprefix("key:")
        self._keys_seen[key_id] = None
        self._keys_ended.discard(key_id)
        return KeyGrant(actor=holder.actor, expires=holder.expires, key_id=key_id)

    def still_valid(self, grant: Grant) -> bool:
        """Whether what was granted has not been taken back; asked every second for every client."""
        if isinstance(grant, TokenGrant):
            return self.tokens.still_valid(grant)
        return not (isinstance(grant, KeyGrant) and grant.key_id in self._keys_ended)

    async def _watch_keys(self) -> None:
        while True:
            await asyncio.sleep(KEY_CHECKED_EVERY)
            if not self._keys_seen:
                continue
            try:
                ended = await self._database.pool.fetch(
                    """SELECT id FROM api_keys WHERE id = ANY ($1::text[])
                       AND (revoked IS NOT NULL OR expires <= now())""",
                    list(self._keys_seen),
                )
            except Exception as error:
                log.warning("API keys could not be looked at", why=type(error).__name__)
                continue
            for row in ended:
                self._keys_seen.pop(row["id"], None)
                self._keys_ended.add(row["id"])

    # ------------------------------------------------------------------------------------------ people

    async def log_in(self, login: str, password: str, address: str) -> LoggedIn:
        """Begins a session; raises Problem 401, 403 or 429 that tells a stranger nothing."""
        answer = await self._log_in.verify(login, password, address)
        if isinstance(answer, Refused):
            headers = {"Retry-After": str(answer.retry_after)} if answer.retry_after else {}
            raise Problem(
                STATUS_OF_REFUSAL.get(answer.code, 401), answer.code, answer.message, headers=headers
            )
        log.info("logged in", login=answer.login, role=answer.role.value)
        return _logged_in(await self.tokens.begin(answer, address=address))

    async def refresh(self, token: str) -> LoggedIn:
        """The next pair of tokens; raises Problem 401 when the session is over."""
        try:
            return _logged_in(await self.tokens.refresh(token))
        except TokenInvalid as error:
            raise Problem(401, "session_ended", str(error), headers={"WWW-Authenticate": "Bearer"}) from None

    async def log_out(self, token: str) -> None:
        """Ends the session of this refresh token; its clients are closed within a second."""
        await self.tokens.end(token)
