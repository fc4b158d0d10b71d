"""What is measured of the whole server, for /metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cti import gauges
from cti.metrics import Gauge

if TYPE_CHECKING:
    from cti.server import Server


def all_gauges(server: Server) -> Iterable[Gauge]:
    """Every gauge, read when it is asked for."""
    return (
        *gauges.of_pbxs(server.switches, server.links, server.canaries),
        gauges.of_agents(server.agents),
        *gauges.of_server(
            bus=server.bus,
            hub=server.hub,
            journal=server.journal,
            database=server.database,
            roll_up=server.roll_up,
            membership=server.membership,
        ),
        Gauge("cti_browser_phones", "phones in the browser that are open", lambda: float(len(server.browser_phones))),
        Gauge("cti_interactions_unwritten", "interaction records not yet written",
              lambda: float(server.interactions.unwritten)),
        Gauge("cti_routing_questions_total", "calls that asked where to go, by what became of it",
              lambda: {name: float(n) for name, n in server.questions.outcomes.items()}, "outcome", counter=True),
        Gauge("cti_routing_version", "the active version of the routing rules",
              lambda: float(server.book.active.version)),
        Gauge("cti_routing_promises_total", "callbacks that callers wanted to be promised, by what became of it",
              lambda: {name: float(n) for name, n in server.promises.outcomes.items()}, "outcome", counter=True),
        Gauge("cti_work_open", "other work that is open", lambda: float(len(server.work.items()))),
    )  # fmt: skip
