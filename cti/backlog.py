"""Work that is written in the background: what waits wakes the writer, a failure pauses it, its end can be waited for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import asyncpg
import structlog

T = TypeVar("T")

log = structlog.get_logger(__name__)

PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two attempts, longer with each failure in a row."""


class Backlog:
    """Whether something waits to be written. `what`: what cannot be written when it fails, as the log says it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._wake = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()
        self._failures = 0

    def more(self) -> None:
        """Something waits from now on."""
        self._done.clear()
        self._wake.set()

    async def idle(self) -> None:
        """Nothing waits any more: returns once something does."""
        self._done.set()
        self._wake.clear()
        await self._wake.wait()

    def succeeded(self) -> None:
        """An attempt went well."""
        self._failures = 0

    async def failed(self, why: str) -> None:
        """An attempt did not go well: said once in a row of failures; returns when it is time for the next attempt."""
        if self._failures == 0:
            log.warning(f"{self._what} cannot be written", why=why)
        await asyncio.sleep(PAUSES[min(self._failures, len(PAUSES) - 1)])
        self._failures += 1

    async def flush(self, timeout: float) -> bool:
        """Waits until nothing waits; False if something still does after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._done.wait()
        except TimeoutError:
            return False
        return True


class InTurn(Generic[T]):
    """Writes one thing after the other, in the order given; while the database is away they wait, at most `most` of them:
    beyond that the oldest is lost. One that the database refuses for what it is must not keep the others back."""

    def __init__(self, what: str, write: Callable[[T], Awaitable[object]], *, most: int) -> None:
        self._what = what
        self._write = write
        self._due: deque[T] = deque(maxlen=most)
        self._backlog = Backlog(what)

    def put(self, thing: T) -> None:
        """To be written."""
        self._due.append(thing)
        self._backlog.more()

    async def run(self) -> None:
        """Writes, until cancelled."""
        while True:
            if not self._due:
                await self._backlog.idle()
            thing = self._due[0]
            try:
                await self._write(thing)
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                log.error(f"one of {self._what} cannot be written", why=type(error).__name__)
            except Exception as error:
                await self._backlog.failed(type(error).__name__)
                continue
            self._backlog.succeeded()
            if self._due and self._due[0] is thing:
                self._due.popleft()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything is written; False if it is not after `timeout` seconds."""
        return await self._backlog.flush(timeout)
