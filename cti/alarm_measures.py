"""What alarms are measured by: queues, agents and PBXs as they are at one look."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cti.agents import Agents
from cti.alarms import Now
from cti.facts import AgentState, PbxStatusChanged
from cti.switch import Switch
from cti.views import AgentView, QueueView


class AlarmMeasures:
    """Called once for each look; views are made once for all rules. `hear` remembers since when a PBX is away or late."""

    def __init__(self, switches: Mapping[str, Switch], agents: Agents) -> None:
        self._switches = switches
        self._agents = agents
        self._not_up: dict[str, datetime] = {}

    def hear(self, fact: PbxStatusChanged) -> None:
        """Takes note; each attempt to connect begins a phase of its own, but the PBX is away since the first."""
        if fact.phase == "up" and fact.code != "late":
            self._not_up.pop(fact.pbx, None)
        else:
            self._not_up.setdefault(fact.pbx, fact.at)

    def was_away(self, pbx: str, since: datetime) -> None:
        """Takes note that a PBX was away before this server came up; it counts until the PBX is there."""
        if pbx in self._switches:
            self._not_up[pbx] = min(since, self._not_up.get(pbx, since))

    def __call__(self, level: Callable[[str], float | None]) -> Now:
        """The measures as they are now. `level`: queue → today's service level."""
        now = datetime.now(UTC)

        @functools.cache
        def queues_of(pbx: str) -> dict[str, QueueView]:
            switch = self._switches.get(pbx)
            if switch is None or not switch.synced:
                return {}
            return {view.id: view for view in switch.queues.views()}

        @functools.cache
        def agents() -> list[AgentView]:
            return self._agents.views(now)

        @functools.cache
        def teams() -> dict[str | None, list[AgentView]]:
            by_team: dict[str | None, list[AgentView]] = {}
            for view in agents():
                by_team.setdefault(view.team, []).append(view)
            return by_team

        def waits(queue: str) -> list[float] | None:
            view = queues_of(queue.partition(":")[0]).get(queue)
            return [(now - one.since).total_seconds() for one in view.waiting] if view is not None else None

        def ready(queue: str) -> int | None:
            if queue not in queues_of(queue.partition(":")[0]):
                return None
            return sum(view.state is AgentState.READY and queue in view.queues for view in agents())

        def down(pbx: str) -> float:
            if self._switches[pbx].timely:
                return 0.0
            return (now - self._not_up.setdefault(pbx, now)).total_seconds()

        return Now(
            waits=waits,
            ready=ready,
            service_level=level,
            agents=lambda team: teams().get(team, ()),
            pbxs=lambda: self._switches,
            down=down,
        )
