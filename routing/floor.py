"""What the floor looks like at one PBX to whoever decides: queues, and agents with their number in the direct queue."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from cti.agents import Agents
from cti.facts import AgentState
from cti.switch import Switch
from routing.decide import AgentNow, Floor
from routing.waiting import OnTheWay, Waits


class Floors:
    """Called with a PBX it returns that PBX's floor, as it is when it is asked."""

    def __init__(
        self, switches: Mapping[str, Switch], agents: Agents, *, waits: Waits, on_the_way: OnTheWay
    ) -> None:
        self._switches = switches
        self._agents = agents
        self._waits = waits
        self._on_the_way = on_the_way

    def __call__(self, pbx: str) -> Floor:
        """The floor of a PBX that is configured."""
        queues = self._switches[pbx].queues
        return Floor(
            exists=lambda queue: queues.knows(f"{pbx}:{queue}"),
            waiting=lambda queue: queues.waiting(f"{pbx}:{queue}") + self._on_the_way.to(f"{pbx}:{queue}"),
            wait=lambda queue: self._waits.of(f"{pbx}:{queue}"),
            agent=lambda login, direct: self._agent(login, f"{pbx}:{direct}"),
        )

    def _agent(self, login: str, direct_queue: str) -> AgentNow | None:
        """An agent; their number in the direct queue is a penalty there that nobody else has."""
        view = self._agents.view(login, datetime.now(UTC))
        if view is None:
            return None
        members = self._switches[direct_queue.partition(":")[0]].queues.members(direct_queue).values()
        mine = [m for m in members if m.agent == login]
        own = len(mine) == 1 and sum(m.penalty == mine[0].penalty for m in members) == 1
        ready = view.state is AgentState.READY and bool(mine) and not mine[0].paused
        return AgentNow(
            ready=ready,
            busy=view.state in (AgentState.BUSY, AgentState.RESERVED, AgentState.WRAP_UP),
            number=mine[0].penalty if own else None,
            why=view.state.value.replace("_", " "),
        )
