"""States of agents that a comparison with Asterisk found wrong: said in the agent's own fact, counted, logged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from cti.agents import Agents
from cti.facts import Fact, PbxResynced

log = structlog.get_logger(__name__)

Publish = Callable[[Iterable[Fact]], None]


def telling_corrections(publish: Publish, agents: Agents) -> Publish:
    """Returns what publishes a PBX's facts. What agents' states become by the differences that a comparison found says so; a
    state that was `unknown` until then was not wrong."""

    def published(facts: Iterable[Fact]) -> None:
        told = list(facts)
        resynced = told[-1] if told else None
        if not isinstance(resynced, PbxResynced):
            publish(told)
            return
        with agents.compared(resynced.pbx) as corrected:
            publish(told)
        for one in corrected:
            log.warning(
                "an agent's state was wrong", agent=one.agent, shown=one.old, found=one.new, why=one.why
            )

    return published
