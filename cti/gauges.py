"""What operations see of the running server: its figures for Prometheus, and the checks of whether it can work."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cti.agents import Agents
from cti.ami import AmiLink
from cti.ami_canary import Canary
from cti.bus import Bus
from cti.database import Database
from cti.figures.roll_up import RollUp
from cti.hub import Hub
from cti.journal import Journal
from cti.membership import Membership
from cti.metrics import Gauge
from cti.rest.health import Check
from cti.switch import Switch

JOURNAL_BEHIND = 10.0
"""Seconds that facts may wait to be written before the server is not ready."""


def of_pbxs(
    switches: Mapping[str, Switch], links: Mapping[str, AmiLink], canaries: Mapping[str, Canary]
) -> tuple[Gauge, ...]:
    """What each PBX is like and has told."""

    def drift_by_kind() -> dict[str, float]:
        sums: dict[str, float] = {}
        for switch in switches.values():
            for kind, count in switch.drift.items():
                sums[kind] = sums.get(kind, 0.0) + count
        return sums

    return (
        Gauge("cti_pbx_up", "1 while the PBX is connected and its state known",
              lambda: {n: float(s.synced) for n, s in switches.items()}, "pbx"),
        Gauge("cti_pbx_events_late", "1 while the PBX's events come too late",
              lambda: {n: float(c.late) for n, c in canaries.items()}, "pbx"),
        Gauge("cti_pbx_event_delay_seconds", "how long the last canary was on its way",
              lambda: {n: c.delay for n, c in canaries.items()}, "pbx"),
        Gauge("cti_calls", "calls now", lambda: {n: float(len(s.calls)) for n, s in switches.items()}, "pbx"),
        Gauge("cti_ami_events_total", "AMI events folded",
              lambda: {n: float(s.events) for n, s in switches.items()}, "pbx", counter=True),
        Gauge("cti_ami_messages_total", "AMI messages received",
              lambda: {n: float(link.stats().messages) for n, link in links.items()}, "pbx", counter=True),
        Gauge("cti_ami_reconnects_total", "AMI connections made again",
              lambda: {n: float(link.stats().reconnects) for n, link in links.items()}, "pbx", counter=True),
        Gauge("cti_drift_total", "things found different when a PBX was asked again",
              lambda: {n: float(sum(s.drift.values())) for n, s in switches.items()}, "pbx", counter=True),
        Gauge("cti_drift_kinds_total", "the same by what it was: calls, connections, queues, members",
              drift_by_kind, "kind", counter=True),
    )  # fmt: skip


def of_agents(agents: Agents) -> Gauge:
    """How true their states were."""
    return Gauge("cti_agent_states_corrected_total", "agents' states found wrong when a PBX was asked again",
                 lambda: float(agents.corrected), counter=True)  # fmt: skip


def of_server(
    *, bus: Bus, hub: Hub, journal: Journal, database: Database, roll_up: RollUp, membership: Membership
) -> tuple[Gauge, ...]:
    """What the server itself does with that."""
    return (
        Gauge("cti_facts_total", "facts published", lambda: float(bus.seq), counter=True),
        Gauge("cti_listener_failures_total", "reactions that failed", lambda: float(bus.failures), counter=True),
        Gauge("cti_clients", "websocket clients", lambda: float(len(hub))),
        Gauge("cti_journal_buffered", "facts not yet written", lambda: float(journal.buffered)),
        Gauge("cti_journal_lag_seconds", "since when facts wait", lambda: journal.lag),
        Gauge("cti_journal_dropped_total", "facts given up", lambda: float(journal.dropped), counter=True),
        Gauge("cti_figures_facts_total", "facts summed up in figures", lambda: float(roll_up.facts), counter=True),
        Gauge("cti_figures_failing", "1 while figures cannot be summed up",
              lambda: float(roll_up.failing is not None)),
        Gauge("cti_database_healthy", "1 while the database answers", lambda: float(database.healthy)),
        Gauge("cti_membership_failures_total", "queue member changes that Asterisk refused",
              lambda: float(membership.failures), counter=True),
        Gauge("cti_membership_contested_total", "agents whose queue members were left to another program",
              lambda: float(membership.contested), counter=True),
    )  # fmt: skip


def checks(switches: Mapping[str, Switch], database: Database, journal: Journal) -> dict[str, Check]:
    """What must be well for the server to do its work, by name."""

    def link(switch: Switch) -> Callable[[], str | None]:
        return lambda: None if switch.timely else switch.view.why or "its state is being asked for"

    return {
        **{f"pbx {name}": link(switch) for name, switch in switches.items()},
        "database": lambda: None if database.healthy else "the database does not answer",
        "journal": lambda: (
            None if journal.lag < JOURNAL_BEHIND else f"the journal is {journal.lag:.0f} s behind"
        ),
    }
