"""The audit of commands: who asked for what, and what came of it, written in the background and in order.

A command that changes something is answered when it is done; its entry follows within a moment. While the database is away
entries wait, at most `most` of them; what had to be given up is counted and itself recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cti import audit
from cti.backlog import Backlog
from cti.people import Actor, Role

if TYPE_CHECKING:
    from cti.database import Pool

PRIVATE = frozenset({"text", "token", "password"})
"""Arguments whose content is not the audit's business: what was written, not that it was."""

SYSTEM = Actor(login="system", name="CTI server", role=Role.ADMIN, via="system")

_Entry = tuple[Actor, str, str, dict[str, Any]]


class AuditTrail:
    """Takes entries at once, writes them soon."""

    def __init__(self, pool: Pool, *, most: int = 20_000) -> None:
        self._pool = pool
        self._most = most
        self._waiting: deque[_Entry] = deque()
        self._backlog = Backlog("the audit")
        self.dropped = 0

    def note(self, actor: Actor, op: str, args: Mapping[str, Any], told: str) -> None:
        """Notes a command and its outcome (`ok` or an error's code)."""
        kept = {name: value for name, value in args.items() if name not in PRIVATE}
        target = str(kept.get("call") or kept.get("agent") or kept.get("pop") or "")
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((actor, op, target, {**kept, "outcome": told}))
        self._backlog.more()

    async def run(self) -> None:
        """Writes, until cancelled."""
        while True:
            if not self._waiting:
                await self._backlog.idle()
            actor, op, target, detail = self._waiting[0]
            try:
                if self.dropped:
                    await audit.record(self._pool, SYSTEM, "audit.dropped", "", {"entries": self.dropped})
                    self.dropped = 0
                await audit.record(self._pool, actor, op, target, detail)
            except Exception as error:
                await self._backlog.failed(type(error).__name__)
            else:
                self._backlog.succeeded()
                if self._waiting and self._waiting[0][3] is detail:
                    self._waiting.popleft()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything is written; False if it is not after `timeout` seconds."""
        return await self._backlog.flush(timeout)
