"""Writes how attempts stand, a few times a second, all that is new together. What cannot be written is kept: nothing is
dialed meanwhile, so it does not grow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import structlog

from cti.database import AWAY
from dialer.calling import attempt_store
from dialer.calling.live import Live
from dialer.management.settings import CampaignSettings

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

WRITE_EVERY = 0.2
"""Seconds between two writings."""

TRY_AGAIN = 1.0
"""Seconds after one that failed."""


class AttemptWriter:
    """What is not written yet. `settings`: campaign → what follows an outcome, and whether it is agentless."""

    def __init__(
        self,
        pool: Callable[[], Pool],
        *,
        healthy: Callable[[], bool],
        settings: Callable[[], dict[int, tuple[CampaignSettings, bool]]],
    ) -> None:
        self._pool = pool
        self._healthy = healthy
        self._settings = settings
        self._unwritten: dict[str, Live] = {}
        self._writing = asyncio.Lock()
        self._now = asyncio.Event()

    def __contains__(self, attempt: str) -> bool:
        return attempt in self._unwritten

    def __len__(self) -> int:
        return len(self._unwritten)

    def note(self, live: Live) -> None:
        """Something is new of this attempt."""
        self._unwritten[live.attempt.id] = live
        if live.done:
            self._now.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY):
                    await self._now.wait()
            self._now.clear()
            if self._unwritten and self._healthy():
                try:
                    await self.flush()
                except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                    log.exception("attempts cannot be written together")
                    await self._one_by_one()
                except AWAY as error:
                    log.warning("attempts cannot be written yet", error=type(error).__name__)
                    await asyncio.sleep(TRY_AGAIN)
                except Exception:
                    log.exception("attempts cannot be written together")
                    await self._one_by_one()
            await asyncio.sleep(WRITE_EVERY / 4)

    async def flush(self) -> None:
        """Writes what is new. Raises what the database does; then nothing is forgotten."""
        async with self._writing:
            taken, self._unwritten = self._unwritten, {}
            if not taken:
                return
            try:
                rows = [live.row() for live in taken.values()]
                await attempt_store.write(self._pool(), rows, self._settings(), datetime.now(UTC))
            except BaseException:
                self._unwritten = taken | self._unwritten
                raise

    async def _one_by_one(self) -> None:
        """One that the database refuses must not keep the others from being written."""
        async with self._writing:
            taken, self._unwritten = self._unwritten, {}
            for id, live in taken.items():
                try:
                    await attempt_store.write(self._pool(), [live.row()], self._settings(), datetime.now(UTC))
                except AWAY as error:
                    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
                        log.error("an attempt is refused by the database", attempt=id, error=str(error)[:200])
                    else:
                        self._unwritten.setdefault(id, live)
                except Exception:
                    log.exception("an attempt cannot be written", attempt=id)
