"""People who change while the server runs: by REST, by the `cti` command or by hand, noticed within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from cti import users
from cti.agents import Agents
from cti.audience import Audience
from cti.facts import Fact
from cti.hub import Hub
from cti.membership import Membership
from cti.people import Directory
from cti.switch import Switch

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

EVERY = 3.0
"""Seconds between two looks at the tables of users, teams and phones."""


class PeopleWatch:
    """Brings everything in line that depends on who works here."""

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        directory: Directory,
        audience: Audience,
        agents: Agents,
        switches: Mapping[str, Switch],
        membership: Membership,
        hub: Hub,
        publish: Callable[[Iterable[Fact]], None],
    ) -> None:
        self._pool = pool
        self._directory = directory
        self._audience = audience
        self._agents = agents
        self._switches = switches
        self._membership = membership
        self._hub = hub
        self._publish = publish

    async def refresh(self) -> None:
        """Reads agents, teams and phones again; when they have changed, tells all whom it concerns."""
        agents, teams = await users.load_directory(self._pool())
        if not self._directory.differs(agents, teams):
            return
        now = datetime.now(UTC)
        phones = {agent.login: agent.interfaces for agent in agents}
        gone = [
            login for login, agent in self._directory.agents.items() if phones.get(login) != agent.interfaces
        ]
        for login in gone:
            why = "the user's phone was changed or taken away"
            self._publish(self._agents.dismiss(login, at=now, why=why))
        self._directory.load(agents, teams)
        self._audience.people_changed()
        self._publish(self._agents.people_changed(now))
        for switch in self._switches.values():
            self._publish(switch.queues.reassign(now.timestamp()))
        self._membership.people_changed()
        self._hub.refresh()

    async def run(self) -> None:
        """Looks every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.refresh()
            except Exception as error:
                log.debug("people could not be read", why=type(error).__name__)
