"""Tokens: who is at the door, checked without asking anybody; and log-ins that can be ended at once.

An access token is a JWT (RFC 7519), HS256 only, good for minutes. A session is a log-in: its refresh tokens are each
good for one use, and one that is used a second time ends the session, since somebody has copied it.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from cti import audit
from cti.database import AWAY, connection, explain
from cti.people import Actor, Role
from cti.users import actor_of

if TYPE_CHECKING:
    from cti.database import Connection, Pool, Queryable

log = structlog.get_logger(__name__)

ALGORITHM = "HS256"
ISSUER = "cti"
LONGEST_TOKEN = 4096
SECOND_USE_GRACE = timedelta(seconds=10)
"""Two tabs that renew at the same moment are no theft; within this time a used refresh token is good once more."""

MOST_REFRESH_TOKENS = 200
"""Used ones kept of a session; older copies are refused too, but end nothing."""

_CHANNEL = "cti_session_revoked"
_RENEWED_EVERY = 10.0
_MOST_REVOKED = 50_000


class TokenInvalid(Exception):
    """The token is not one of ours, was changed, or its session has ended: log in again."""


class TokenExpired(TokenInvalid):
    """The token was good until a moment ago: get a new one with the refresh token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What an access token says. `sid` is the session it came from."""

    actor: Actor
    sid: str
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A fresh pair: the access token, and the refresh token that gets the next pair, once."""

    access: str
    expires: datetime
    refresh: str
    session_expires: datetime
    sid: str
    actor: Actor


async def signing_key(db: Queryable, configured: str = "") -> bytes:
    """Returns the key that tokens are signed with: the configured one, else one made at random once and kept.

    Raises ValueError when the configured one is shorter than 32 characters. Any number of servers may ask at once.
    """
    if configured:
        if len(configured) < 32:
            raise ValueError(
                "CTI_SECRET_KEY needs at least 32 characters; make one with: openssl rand -base64 48"
            )
        return configured.encode()
    await db.execute(
        "INSERT INTO secrets (name, value) VALUES ('token signing', $1) ON CONFLICT DO NOTHING",
        secrets.token_bytes(64),
    )
    return bytes(await db.fetchval("SELECT value FROM secrets WHERE name = 'token signing'"))


class Revoked:
    """Sessions that have ended while access tokens of theirs are still running. Bounded: when there are too many, all
    tokens issued so far count as ended, and their holders get new ones with their refresh tokens."""

    def __init__(self, keep: timedelta, *, most: int = _MOST_REVOKED) -> None:
        self._keep = keep
        self._most = most
        self._sids: OrderedDict[str, datetime] = OrderedDict()
        self._none_before = datetime.min.replace(tzinfo=UTC)

    def __len__(self) -> int:
        return len(self._sids)

    def add(self, sid: str, now: datetime) -> None:
        """Notes the end of a session; once more changes nothing."""
        while self._sids and next(iter(self._sids.values())) < now:
            self._sids.popitem(last=False)
        if sid in self._sids:
            return
        if len(self._sids) >= self._most:
            self._sids.clear()
            self._none_before = now
        self._sids[sid] = now + self._keep

    def covers(self, access: Access) -> bool:
        """Tells whether this token's session has ended."""
        return access.sid in self._sids or access.issued < self._none_before


class Tokens:
    """Issues, checks and ends. One for the whole server; `start` keeps it told of sessions ended elsewhere."""

    def __init__(
        self,
        dsn: str,
        pool: Pool,
        *,
        key: bytes,
        access: timedelta = timedelta(minutes=15),
        session: timedelta = timedelta(hours=12),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._dsn = dsn
        self._pool = pool
        self._key = OctKey.import_key(key)
        self._access = access
        self._session = session
        self._now = now
        self._revoked = Revoked(access + timedelta(minutes=1))
        self._listener: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()

    # --- access tokens ----------------------------------------------------------------------------------------------

    def issue(self, actor: Actor, sid: str) -> tuple[str, datetime]:
        """Returns an access token for the actor and when it expires."""
        issued = self._now()
        expires = (issued + self._access).replace(microsecond=0)
        claims = {
            "iss": ISSUER,
            "kind": "access",
            "sub": actor.login,
            "name": actor.name,
            "role": actor.role.value,
            "teams": sorted(actor.teams),
            "via": actor.via,
            "sid": sid,
            "iat": issued.timestamp(),
            "exp": int(expires.timestamp()),
        }
        return jwt.encode({"alg": ALGORITHM}, claims, self._key), expires

    def verify(self, token: str) -> Actor:
        """Returns who the access token is for. Raises TokenExpired or TokenInvalid."""
        return self.read(token).actor

    def read(self, token: str) -> Access:
        """As `verify`, with the session and the times too."""
        if len(token) > LONGEST_TOKEN:
            raise TokenInvalid("The token is not one of ours.")
        try:
            claims = jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims
            access = _access(claims)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise TokenInvalid("The token is not one of ours; log in again.") from None
        now = self._now()
        if access.issued > now + timedelta(minutes=1):
            raise TokenInvalid("The token is from the future; check the clocks of the servers.")
        if access.expires <= now:
            raise TokenExpired("The token has expired; get a new one.")
        if self._revoked.covers(access):
            raise TokenInvalid("This log-in was ended; log in again.")
        return access

    def still_valid(self, access: Access) -> bool:
        """Tells whether the session of a token read before still goes on; says nothing of its age."""
        return not self._revoked.covers(access)

    # --- sessions ---------------------------------------------------------------------------------------------------

    async def begin(self, actor: Actor, *, address: str = "") -> Issued:
        """Begins a session for somebody who has just proven who they are."""
        refresh = secrets.token_urlsafe(32)
        expires = self._now() + self._session
        async with self._pool.acquire() as conn, conn.transaction():
            sid = str(
                await conn.fetchval(
                    "INSERT INTO sessions (login, expires, address) VALUES ($1, $2, $3) RETURNING sid",
                    actor.login,
                    expires,
                    address or None,
                )
            )
            await self._keep(conn, refresh, sid)
            await audit.record(conn, actor, "session.begun", actor.login, {}, address or None)
        return self._issued(actor, sid, refresh, expires)

    async def refresh(self, refresh: str) -> Issued:
        """Returns the next pair, with the rights the user has now. Raises TokenInvalid, TokenExpired (of the session).

        A refresh token that was used before ends its session, unless that was seconds ago.
        """
        now = self._now()
        async with self._pool.acquire() as conn, conn.transaction():
            row = await conn.fetchrow(
                """SELECT s.sid::text AS sid, s.login, s.expires, s.revoked, r.used
                   FROM refresh_tokens r JOIN sessions s USING (sid) WHERE r.token_hash = $1 FOR UPDATE""",
                _hash(refresh),
            )
            if row is None:
                raise TokenInvalid("The refresh token is not one of ours; log in again.")
            if row["revoked"] is not None:
                raise TokenInvalid("This log-in was ended; log in again.")
            if row["expires"] <= now:
                raise TokenExpired("This log-in has ended by its age; log in again.")
            actor = await actor_of(conn, row["login"])
            if actor is None:
                raise TokenInvalid("This user is disabled.")
            stolen = row["used"] is not None and row["used"] + SECOND_USE_GRACE < now
            following = ""
            if not stolen:
                following = secrets.token_urlsafe(32)
                await conn.execute(
                    "UPDATE refresh_tokens SET used = coalesce(used, $2) WHERE token_hash = $1",
                    _hash(refresh),
                    now,
                )
                await self._keep(conn, following, row["sid"])
        if stolen:
            await self.revoke(row["sid"], why="refresh token used twice")
            log.warning("a refresh token was used twice; its session was ended", sid=row["sid"])
            raise TokenInvalid("This log-in was ended, because its token was used twice; log in again.")
        return self._issued(actor, row["sid"], following, row["expires"])

    async def revoke(self, sid: str, *, why: str = "logged out") -> None:
        """Ends a session: here at once, on other servers within seconds. An unknown one is fine."""
        try:
            UUID(sid)
        except ValueError:
            return
        self._revoked.add(sid, self._now())
        await self._pool.execute(
            "UPDATE sessions SET revoked = now(), why = $2 WHERE sid = $1::uuid AND revoked IS NULL", sid, why
        )

    async def end(self, refresh: str) -> None:
        """Logs out: ends the session that this refresh token belongs to. An unknown one is fine."""
        sid = await self._pool.fetchval(
            "SELECT sid::text FROM refresh_tokens WHERE token_hash = $1", _hash(refresh)
        )
        if sid is not None:
            await self.revoke(str(sid))

    async def revoke_all(self, login: str, *, why: str = "ended by an administrator") -> int:
        """Ends all sessions of a user; returns how many."""
        rows = await self._pool.fetch(
            "UPDATE sessions SET revoked = now(), why = $2 WHERE login = $1 AND revoked IS NULL RETURNING sid::text",
            login,
            why,
        )
        for row in rows:
            self._revoked.add(row["sid"], self._now())
        return len(rows)

    async def forget_old(self) -> int:
        """Deletes sessions that ended more than a day ago; returns how many. To be called now and then."""
        done = await self._pool.fetch(
            """DELETE FROM sessions WHERE sid IN (SELECT sid FROM sessions
               WHERE expires < now() - interval '1 day' OR revoked < now() - interval '1 day' LIMIT 10000)
               RETURNING true"""
        )
        return len(done)

    async def _keep(self, conn: Queryable, refresh: str, sid: str) -> None:
        await conn.execute(
            "INSERT INTO refresh_tokens (token_hash, sid) VALUES ($1, $2::uuid)", _hash(refresh), sid
        )
        await conn.execute(
            """DELETE FROM refresh_tokens WHERE sid = $1::uuid AND created <
                   (SELECT created FROM refresh_tokens WHERE sid = $1::uuid ORDER BY created DESC OFFSET $2 LIMIT 1)""",
            sid,
            MOST_REFRESH_TOKENS,
        )

    def _issued(self, actor: Actor, sid: str, refresh: str, session_expires: datetime) -> Issued:
        access, expires = self.issue(actor, sid)
        return Issued(
            access=access,
            expires=expires,
            refresh=refresh,
            session_expires=session_expires,
            sid=sid,
            actor=actor,
        )

    # --- sessions ended elsewhere -----------------------------------------------------------------------------------

    async def start(self, *, timeout: float = 10.0) -> None:
        """Begins to listen for ended sessions; returns once those of the last minutes are known. Raises TimeoutError."""
        self._listener = asyncio.create_task(self._listen_until_closed(), name="ended sessions")
        async with asyncio.timeout(timeout):
            await self._listening.wait()

    async def close(self) -> None:
        """Stops listening. May be called twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await listener

    async def _listen_until_closed(self) -> None:
        pause = 0.1
        while True:
            try:
                async with connection(self._dsn, name="cti ended sessions") as conn:
                    await conn.add_listener(_CHANNEL, self._heard)
                    while True:
                        await self._catch_up(conn)
                        self._listening.set()
                        pause = 0.1
                        await self._lost_or(conn, _RENEWED_EVERY)
            except AWAY as error:
                log.warning("not told of ended sessions", why=str(explain(error, self._dsn)))
            except Exception:
                log.exception("listening for ended sessions failed")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    @staticmethod
    async def _lost_or(conn: Connection, seconds: float) -> None:
        lost = asyncio.Event()

        def terminated(*_: Any) -> None:
            lost.set()

        conn.add_termination_listener(terminated)
        try:
            async with asyncio.timeout(seconds):
                await lost.wait()
            raise ConnectionError("the connection was ended")
        except TimeoutError:
            return
        finally:
            conn.remove_termination_listener(terminated)

    async def _catch_up(self, conn: Connection) -> None:
        async with asyncio.timeout(5):
            rows = await conn.fetch(
                """SELECT sid::text FROM sessions WHERE revoked > now() - make_interval(secs => $1)
                   ORDER BY revoked DESC LIMIT $2""",
                (self._access + timedelta(minutes=1)).total_seconds(),
                _MOST_REVOKED,
            )
        for row in reversed(rows):
            self._revoked.add(row["sid"], self._now())

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._revoked.add(str(payload), self._now())


def _access(claims: dict[str, Any]) -> Access:
    if claims["iss"] != ISSUER or claims["kind"] != "access":
        raise ValueError("another kind of token")
    texts = (claims["sub"], claims["name"], claims["sid"], claims["via"])
    if not all(isinstance(text, str) for text in texts) or isinstance(claims["teams"], str):
        raise TypeError("claims of another shape")
    return Access(
        actor=Actor(
            login=claims["sub"],
            name=claims["name"],
            role=Role(claims["role"]),
            teams=frozenset(claims["teams"]),
            via=claims["via"],
        ),
        sid=claims["sid"],
        issued=datetime.fromtimestamp(claims["iat"], UTC),
        expires=datetime.fromtimestamp(claims["exp"], UTC),
    )


def _hash(refresh: str) -> bytes:
    return hashlib.sha256(refresh.encode("utf-8", "surrogatepass")).digest()
