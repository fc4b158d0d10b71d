"""The floor as other work sees it: agents with their states and queues, and who waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cti.agents import Agents
from cti.people import Directory
from cti.switch import Switch
from routing.blending import Worker, WorkFloor


def work_floor(
    switches: Mapping[str, Switch],
    agents: Agents,
    directory: Directory,
    on_the_way: Callable[[str], int],
) -> Callable[[Mapping[str, int]], WorkFloor]:
    """Returns what looks at the floor, told `Worker.beside` of those who have other work. What a PBX tells late is
    not known."""

    def look(at_work: Mapping[str, int]) -> WorkFloor:
        workers = tuple(
            Worker(
                agent=view.agent,
                state=view.state,
                since=view.since,
                queues=frozenset(view.queues),
                levels=levels(view.agent),
                work=view.agent in at_work,
                beside=at_work.get(view.agent, 0),
            )
            for view in agents.views(datetime.now(UTC))
            if view.queues
        )
        return WorkFloor(workers=workers, waiting=waiting)

    def levels(agent: str) -> dict[str, int]:
        person = directory.agents.get(agent)
        return {one.queue: one.penalty for one in person.queues} if person else {}

    def waiting(queue: str) -> int | None:
        switch = switches.get(queue.partition(":")[0])
        if switch is None or not switch.timely:
            return None
        return switch.queues.waiting(queue) + on_the_way(queue)

    return look
