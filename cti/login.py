"""Logging in with a password: who it is, or a refusal that tells a stranger nothing.

Known and unknown logins cost the same work and get the same answers, locks included. Failures slow down whoever makes
them, by login and by address; successes cost nothing, so a whole call centre behind one address logs in at eight.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cti.passwords import Busy, Passwords
from cti.people import Actor
from cti.users import actor_of

if TYPE_CHECKING:
    from cti.database import Pool

FREE_FAILURES = 5
"""Failures in a row before a login is locked: 30 seconds, doubled with each further one, up to a quarter of an hour."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No entry. `code`: wrong, disabled (said only to who knows the password), too_many, busy; `retry_after` in seconds."""

    code: str
    message: str
    retry_after: int = 0


WRONG = Refused("wrong", "The login or the password is wrong.")
DISABLED = Refused("disabled", "This user is disabled; ask your administrator.")
BUSY = Refused("busy", "Very many are logging in at this moment; try again in a few seconds.", 3)


def _too_many(seconds: float) -> Refused:
    wait = max(1, int(seconds + 0.999))
    return Refused("too_many", f"Too many failed attempts; try again in {wait} seconds.", wait)


class Buckets:
    """Token buckets, one a key: `burst` tokens, filled up at `per_second`. At most `most` are kept; the oldest go first."""

    def __init__(
        self,
        burst: float,
        per_second: float,
        *,
        most: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._most = most
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def _level(self, key: str) -> float:
        level, at = self._levels.get(key, (self._burst, 0.0))
        return min(self._burst, level + (self._clock() - at) * self._per_second)

    def wait(self, key: str) -> float:
        """Returns the seconds until there is a token, 0 when there is one."""
        return max(0.0, (1.0 - self._level(key)) / self._per_second)

    def take(self, key: str) -> None:
        """Takes a token; the level never falls below zero."""
        self._levels[key] = (max(0.0, self._level(key) - 1.0), self._clock())
        self._levels.move_to_end(key)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)


def place_of(address: str) -> str:
    """Returns what counts as one client: an IPv4 address, an IPv6 /64, else the text itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
    return str(parsed)


class LogIn:
    """Checks passwords. One for the whole server: it remembers who fails."""

    def __init__(
        self,
        pool: Pool,
        passwords: Passwords,
        *,
        by_login: Buckets | None = None,
        by_address: Buckets | None = None,
    ) -> None:
        self._pool = pool
        self._passwords = passwords
        self._by_login = Buckets(20, 1 / 30) if by_login is None else by_login
        self._by_address = Buckets(100, 1.0) if by_address is None else by_address

    async def verify(self, login: str, password: str, address: str) -> Actor | Refused:
        """Returns who logs in from `address`, or why not."""
        login = login.strip().lower()[:256]
        digest = hashlib.sha256(login.encode("utf-8", "surrogatepass")).digest()
        name, place = digest.hex(), place_of(address)
        if wait := max(self._by_login.wait(name), self._by_address.wait(place)):
            return _too_many(wait)
        # A login that no user can have is looked up as one that nobody has.
        looked_up = login if login.isascii() and login.isprintable() else ""
        row = await self._pool.fetchrow(
            """SELECT u.password_hash, u.disabled,
                      extract(epoch FROM f.locked_until - now())::float8 AS locked
               FROM (SELECT) AS always LEFT JOIN users u ON u.login = $1
                    LEFT JOIN login_failures f ON f.login_hash = $2""",
            looked_up,
            digest,
        )
        assert row is not None
        if row["locked"] is not None and row["locked"] > 0:
            self._charge(name, place)
            return _too_many(row["locked"])
        try:
            right = await self._passwords.verify(row["password_hash"], password)
        except Busy:
            return BUSY
        if not right:
            self._charge(name, place)
            await self._note_failure(digest, looked_up, address)
            return WRONG
        if row["disabled"]:
            return DISABLED
        return await self._welcome(looked_up, digest, row["password_hash"], password)

    def _charge(self, name: str, place: str) -> None:
        self._by_login.take(name)
        self._by_address.take(place)

    async def _welcome(self, login: str, digest: bytes, stored: str, password: str) -> Actor | Refused:
        renewed = await self._passwords.hash(password) if self._passwords.is_outdated(stored) else None
        async with self._pool.acquire() as conn, conn.transaction():
            await conn.execute("DELETE FROM login_failures WHERE login_hash = $1", digest)
            if renewed is not None:
                await conn.execute("SELECT set_config('cti.rehash', 'on', true)")
                await conn.execute(
                    "UPDATE users SET password_hash = $3 WHERE login = $1 AND password_hash = $2",
                    login,
                    stored,
                    renewed,
                )
            actor = await actor_of(conn, login)
        return actor or DISABLED

    async def _note_failure(self, digest: bytes, login: str, address: str) -> None:
        """Counts a failure of a login, known or not; a day without one and it is forgotten. That a user is locked goes to
        the audit; what else was typed does not, as it may be a password in the wrong field."""
        await self._pool.execute(
            """WITH old AS (DELETE FROM login_failures WHERE last_failed < now() - interval '1 day' AND login_hash <> $1),
               noted AS (
                   INSERT INTO login_failures AS f (login_hash, failed) VALUES ($1, 1)
                   ON CONFLICT (login_hash) DO UPDATE SET
                       failed = f.failed + 1,
                       last_failed = now(),
                       locked_until = CASE WHEN f.failed + 1 < $2 THEN now() ELSE
                           now() + make_interval(secs => least(30 * 2 ^ least(f.failed + 1 - $2, 10), 900)) END
                   RETURNING failed)
               INSERT INTO audit (actor, via, action, target, detail, address)
               SELECT 'system', 'system', 'user.locked', login, jsonb_build_object('failures', failed), $4
               FROM noted, users WHERE failed >= $2 AND login = $3""",
            digest,
            FREE_FAILURES,
            login,
            place_of(address),
        )
