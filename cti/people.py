"""People: who works here, what they may do, which phone and queues are theirs. Held in memory, no I/O.

The tables behind it are read by `cti.users`; this is the directory that every event is looked up in, so all its
answers are dictionary look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do. A supervisor's rights end at their teams; an integration's at the teams of its key, if any."""

    AGENT = "agent"
    SUPERVISOR = "supervisor"
    ADMIN = "admin"
    INTEGRATION = "integration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who is asking. `login` is unique and never changes; `via` is password, api_key or system."""

    login: str
    name: str
    role: Role
    teams: frozenset[str] = frozenset()
    via: str = "password"

    @property
    def is_admin(self) -> bool:
        """Whether everything may be seen and done."""
        return self.role is Role.ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAssignment:
    """A queue an agent works in; lower penalties are called first (Asterisk's member penalty)."""

    queue: str
    penalty: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A person who takes calls. `interfaces`: PBX name → Asterisk interface, `PJSIP/1001` or `Local/1101@agents/n`.
    `off_hook`: their phone is called once and the line stays open. `in_browser`: the PBXs on which that phone is the page
    /phone. `unit` (department) and `position` are the house's own names, "" for none."""

    login: str
    name: str
    team: str | None = None
    interfaces: dict[str, str] = field(default_factory=dict)
    queues: tuple[QueueAssignment, ...] = ()
    off_hook: bool = False
    in_browser: frozenset[str] = frozenset()
    unit: str = ""
    position: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A group of agents with supervisors; the queues whose waiting calls its supervisors may see."""

    id: str
    name: str
    queues: frozenset[str] = frozenset()


def device_of(interface: str) -> str:
    """The device an interface names, without options: `Local/1@x/n` → `Local/1@x`, `PJSIP/1/sip:1@h` → `PJSIP/1`."""
    technology, slash, rest = interface.partition("/")
    return f"{technology}{slash}{rest.split('/', 1)[0]}"


def line_of(interface: str) -> str:
    """What reaches the open line of a phone: `PJSIP/1101` → `Local/1101@cti-line` (asterisk-config: [cti-line])."""
    return f"Local/{interface.partition('/')[2].partition('@')[0].partition('/')[0]}@cti-line"


class Directory:
    """The agents and teams of the moment. Replaced as a whole by `load`, so a reader never sees half a change."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.teams: dict[str, Team] = {}
        self._by_device: dict[tuple[str, str], str] = {}
        self._queue_teams: dict[str, frozenset[str]] = {}

    def differs(self, agents: Iterable[Agent], teams: Iterable[Team]) -> bool:
        """Whether these are other agents or teams than those held."""
        return {a.login: a for a in agents} != self.agents or {t.id: t for t in teams} != self.teams

    def load(self, agents: Iterable[Agent], teams: Iterable[Team]) -> None:
        """Takes over these agents and teams in place of the former ones."""
        self.agents = {agent.login: agent for agent in agents}
        self.teams = {team.id: team for team in teams}
        self._by_device = {
            (pbx, device): agent.login
            for agent in self.agents.values()
            for pbx, interface in agent.interfaces.items()
            for device in (line_of(interface), device_of(interface))
        }
        queue_teams: dict[str, set[str]] = {}
        for team in self.teams.values():
            for queue in team.queues:
                queue_teams.setdefault(queue, set()).add(team.id)
        self._queue_teams = {queue: frozenset(teams) for queue, teams in queue_teams.items()}

    def agent_at(self, pbx: str, device: str) -> str | None:
        """The login of the agent whose phone this device is, or None. `device` as from `device_of`."""
        return self._by_device.get((pbx, device))

    def team_of(self, login: str) -> str | None:
        """The agent's team, or None."""
        agent = self.agents.get(login)
        return agent.team if agent else None

    def teams_of_queue(self, queue: str) -> frozenset[str]:
        """The teams whose supervisors watch this queue."""
        return self._queue_teams.get(queue, frozenset())
