"""Attendance: writes agents' working sessions down, so that a restart takes them up again.

A change of state is shown at once and written a moment later, coalesced per agent; while the database is away it waits. An
agent must be able to take a break with the database down (docs/adr/005).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from cti.agents import Agents, Session
from cti.backlog import Backlog
from cti.facts import AgentStateChanged

LINGER = 0.1
"""Seconds a change waits for others to be written with it."""


class Attendance:
    """Hears state changes, saves sessions. At most one entry an agent waits."""

    def __init__(self, *, agents: Agents, save: Callable[[Sequence[Session]], Awaitable[None]]) -> None:
        self._agents = agents
        self._save = save
        self._due: dict[str, None] = {}
        self._backlog = Backlog("agent sessions")

    @property
    def unwritten(self) -> int:
        """How many agents' sessions wait to be written."""
        return len(self._due)

    def hear(self, fact: AgentStateChanged) -> None:
        """Notes whose session changed."""
        self.note(fact.agent)

    def note(self, login: str) -> None:
        """Notes that something of this agent's session is to be written."""
        self._due[login] = None
        self._backlog.more()

    async def run(self) -> None:
        """Writes what is due, until cancelled."""
        while True:
            if not self._due:
                await self._backlog.idle()
            await asyncio.sleep(LINGER)
            batch, self._due = self._due, {}
            now = datetime.now(UTC)
            try:
                await self._save(
                    [
                        self._agents.session(login, now)
                        for login in batch
                        if not self._agents.at_pbx_only(login)  # what the PBX has is not ours to remember
                    ]
                )
            except Exception as error:
                self._due = {**batch, **self._due}
                await self._backlog.failed(f"{type(error).__name__}: {error}"[:200])
            else:
                self._backlog.succeeded()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything is written; False if it is not after `timeout` seconds."""
        return await self._backlog.flush(timeout)
