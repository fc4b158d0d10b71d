"""What the rules say of queues to whoever sends a call or an agent to one: hours, room, and their second level."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from cti.control.second_level import SecondLevel
from routing.hours import opening
from routing.rules import RuleSet


class RulesOfQueues:
    """Reads the rules that are active when it is asked. Queues are named by their ids, `main:support`."""

    def __init__(
        self,
        *,
        rules: Callable[[], RuleSet],
        team_of: Callable[[str], str | None],
        now: Callable[[], datetime],
    ) -> None:
        self._rules, self._team_of, self._now = rules, team_of, now

    def limit(self, queue: str) -> int | None:
        """How many may wait; None for any number."""
        found = self._rules().queues.get(queue.partition(":")[2])
        return found.limit if found else None

    def closed(self, queue: str) -> str:
        """Why it takes nobody at this hour; "" while it is open, or has no hours."""
        rules = self._rules()
        found = rules.queues.get(queue.partition(":")[2])
        if found is None or found.calendar is None:
            return ""
        state = opening(rules.calendars[found.calendar], self._now())
        return "" if state.open else state.why

    def second_level(self, pbx: str, queue: str | None, agent: str) -> SecondLevel | None:
        """The first escalation that fits the call's queue and the agent's team; one that leads to that very queue does
        not."""
        name, team = (queue or "").partition(":")[2], self._team_of(agent)
        for one in self._rules().escalations:
            fits = one.queues is None or name in one.queues
            if fits and (one.teams is None or team in one.teams) and one.to != name:
                return SecondLevel(
                    rule=one.id,
                    queue=f"{pbx}:{one.to}",
                    priority=one.priority,
                    seconds=one.seconds,
                    note_required=one.note_required,
                    otherwise=one.otherwise or "",
                )
        return None
