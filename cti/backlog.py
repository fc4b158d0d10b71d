"""Work that is written in the background: what waits wakes the writer, a failure pauses it, its end can be waited for."""

from __future__ import annotations

import asyncio

import structlog

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
