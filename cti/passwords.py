"""Passwords: hashed with argon2id, in threads, so few at a time that no rush of log-ins exhausts CPU or memory."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

T = TypeVar("T")

SHORTEST = 12
LONGEST = 1024


class BadInput(ValueError):
    """What somebody typed cannot be used. `field` names it, the message says what it should be."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Busy(Exception):
    """Too many are logging in at this moment; nothing was checked."""


def check_password(password: str, *, shortest: int = SHORTEST) -> None:
    """Raises BadInput unless the password is long enough; any characters will do (NIST SP 800-63B, 3.1.1.2)."""
    if len(password) < shortest:
        raise BadInput(
            "password", f"The password needs at least {shortest} characters; a short sentence is fine."
        )
    if len(password) > LONGEST:
        raise BadInput("password", f"The password may have at most {LONGEST} characters.")


class Passwords:
    """Hashes and verifies, `at_once` at a time (19 MiB, some 40 ms each); `waiting` more stand in line, the rest is Busy."""

    def __init__(self, hasher: PasswordHasher | None = None, *, at_once: int = 2, waiting: int = 500) -> None:
        # OWASP's least: 19 MiB, two passes, one lane.
        self._hasher = hasher or PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="password")
        self._most = at_once + waiting
        self._at_work = 0
        self._nobody = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """Returns the argon2id hash of a password. Raises Busy."""
        return await self._in_thread(self._hasher.hash, _bytes(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Tells whether this is the password; works as long when there is none stored. Raises Busy."""
        right = await self._in_thread(self._matches, stored or self._nobody, _bytes(password))
        return right and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Tells whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Lets the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[..., T], *args: str | bytes) -> T:
        if self._at_work >= self._most:
            raise Busy
        self._at_work += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        finally:
            self._at_work -= 1


def _bytes(password: str) -> bytes:
    """One spelling of what looks the same, however it was typed; longer than any password allowed is as good as wrong."""
    return unicodedata.normalize("NFKC", password[: 2 * LONGEST]).encode("utf-8", "surrogatepass")
