"""Who works for which campaign: agents of its queue or team, lent to one running campaign at a time by priority. Pure.

An agent's free moment is promised to one campaign only, or two would dial for it. Who has answered may be given to any agent
who is eligible: there the person on the line comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cti.facts import AgentState
from cti.views import AgentView
from dialer.management.settings import Campaign

AWAY = frozenset({AgentState.LOGGED_OFF, AgentState.UNKNOWN})


def eligible(agent: AgentView, campaign: Campaign, team_name: Callable[[str | None], str]) -> bool:
    """Whether this agent may get the campaign's calls. Who works on-hook gets them from the queue, so needs one."""
    settings = campaign.settings
    if settings.team and settings.team not in (agent.team, team_name(agent.team)):
        return False
    if settings.queue and settings.queue not in agent.queues and not (agent.off_hook and settings.team):
        return False
    if not settings.queue and (not settings.team or not agent.off_hook):
        return False
    return agent.state not in AWAY


def takes_calls(agent: AgentView, pbx: str) -> bool:
    """Whether a call given to this agent now would reach them."""
    if agent.state is not AgentState.READY or not agent.reachable:
        return False
    return not agent.off_hook or agent.lines.get(pbx) == "open"


@dataclass(slots=True, eq=False)
class Hands:
    """Which campaign each agent is lent to. Equal priorities share by who has fewest."""

    lent: dict[str, int] = field(default_factory=dict)

    def lend(self, agent: str, may: Iterable[Campaign], hungry: Callable[[int], bool]) -> int | None:
        """Lends an agent to the first of these campaigns by priority that has somebody to call; of several alike to the one
        with the fewest, but for one more or less nobody is moved. Returns it, None if there is none."""
        choice = sorted(may, key=lambda campaign: -campaign.priority)
        choice = [c for c in choice if hungry(c.id)] or choice
        if not choice:
            self.lent.pop(agent, None)
            return None
        best = [c.id for c in choice if c.priority == choice[0].priority]
        now = self.lent.get(agent)
        if now in best and len(best) == 1:
            return now
        numbers = {id: self.number(id) for id in best}
        poorest = min(best, key=lambda id: (numbers[id], id))
        if now not in best or numbers[poorest] + 2 <= numbers[now]:
            now = self.lent[agent] = poorest
        return now

    def number(self, campaign: int) -> int:
        """How many agents are lent to a campaign."""
        return sum(to == campaign for to in self.lent.values())
