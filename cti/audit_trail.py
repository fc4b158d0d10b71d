"""The audit of commands: who asked for what, and what came of it, written in the background and in order.

A command that changes something is answered when it is done; its entry follows within a moment. While the database is away
entries wait, at most `most` of them; what had to be given up is counted and itself recorded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog

from cti import audit
from cti.people import Actor, Role

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

PRIVATE = frozenset({"text", "token", "password"})
"""Arguments whose content is not the audit's business: what was written, not that it was."""

PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
SYSTEM = Actor(login="system", name="CTI server", role=Role.ADMIN, via="system")

_Entry = tuple[Actor, str, str, dict[str, Any]]


class AuditTrail:
    """Takes entries at once, writes them soon."""

    def __init__(self, pool: Pool, *, most: int = 20_000) -> None:
        self._pool = pool
        self._most = most
        self._waiting: deque[_Entry] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0

    def note(self, actor: Actor, op: str, args: Mapping[str, Any], told: str) -> None:
        """Notes a command and its outcome (`ok` or an error's code)."""
        kept = {name: value for name, value in args.items() if name not in PRIVATE}
        target = str(kept.get("call") or kept.get("agent") or kept.get("pop") or "")
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((actor, op, target, {**kept, "outcome": told}))
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Writes, until cancelled."""
        failures = 0
        while True:
            if not self._waiting:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            actor, op, target, detail = self._waiting[0]
            try:
                if self.dropped:
                    await audit.record(self._pool, SYSTEM, "audit.dropped", "", {"entries": self.dropped})
                    self.dropped = 0
                await audit.record(self._pool, actor, op, target, detail)
            except Exception as error:
                if failures == 0:
                    log.warning("the audit cannot be written", why=type(error).__name__)
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
            else:
                failures = 0
                if self._waiting and self._waiting[0][3] is detail:
                    self._waiting.popleft()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything is written; False if it is not after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
