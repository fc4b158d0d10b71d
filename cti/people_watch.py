"""People who change while the server runs: by REST, by the `cti` command or by hand, noticed within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from cti import users
from cti.agents import Agents
from cti.audience import Audience
from cti.facts import AgentOffHookChanged, Fact
from cti.hub import Hub
from cti.membership import Membership
from cti.people import Agent, Directory, Team
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
        self._reading = asyncio.Lock()
        self._written: users.WrittenDirectory | None = None

    async def refresh(self, chosen: Mapping[str, str] = MappingProxyType({})) -> None:
        """Reads agents, teams and phones again; when they have changed, tells all whom it concerns.

        `chosen`: who has chosen, for which agent, how that agent works.
        """
        async with self._reading:  # never an older reading after a newer one
            written = await users.read_directory(self._pool())
            if written == self._written:
                return
            agents, teams = users.directory_of(written)
            if self._directory.differs(agents, teams):
                self._bring_in_line(agents, teams, chosen)
            self._written = written

    def _bring_in_line(
        self, agents: Sequence[Agent], teams: Sequence[Team], chosen: Mapping[str, str]
    ) -> None:
        now = datetime.now(UTC)
        was = dict(self._directory.agents)
        phones = {agent.login: agent.interfaces for agent in agents}
        for login in [login for login, agent in was.items() if phones.get(login) != agent.interfaces]:
            why = "the user's phone was changed or taken away"
            self._publish(self._agents.dismiss(login, at=now, why=why))
        self._directory.load(agents, teams)
        self._audience.people_changed()
        for agent in sorted(agents, key=lambda agent: agent.login):
            before = was.get(agent.login)
            if agent.off_hook != (before.off_hook if before else False):
                by = chosen.get(agent.login, "system")
                told = AgentOffHookChanged(at=now, agent=agent.login, off_hook=agent.off_hook, by=by)
                self._publish([told, *self._agents.off_hook_changed(agent.login, by=by, at=now)])
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
