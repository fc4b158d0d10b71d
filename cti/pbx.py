"""One PBX put together: its link, its state, its canary, and who hears of its records before and after they are folded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cti.ami import AmiLink, LinkStatus
from cti.ami_canary import Canary
from cti.ami_events import PARSERS
from cti.calls import Calls
from cti.facts import Fact
from cti.queues import Queues
from cti.settings import PbxSettings, tls_context
from cti.switch import LinkState, Switch

Hears = Mapping[type[Any], Callable[[str, Any], None]]
"""Class of records → what takes (PBX, record)."""


@dataclass(frozen=True, slots=True)
class Pbx:
    """The parts of one PBX."""

    switch: Switch
    link: AmiLink
    canary: Canary


def put_together(
    name: str,
    settings: PbxSettings,
    *,
    agent_at: Callable[[str], str | None],
    publish: Callable[[Iterable[Fact]], None],
    first: Hears,
    then: Hears,
) -> Pbx:
    """Makes a PBX's parts; nothing is connected yet.

    `first` hears of records before they are folded (a caller waits for the answer, within milliseconds), `then` afterwards.
    """
    calls = Calls(
        name,
        agent_at=agent_at,
        is_trunk=frozenset(settings.trunks).__contains__,
        inbound_contexts=settings.inbound_contexts,
    )
    queues = Queues(name, agent_at=agent_at)
    switch = Switch(name, calls=calls, queues=queues, publish=publish, resync_every=settings.resync_every)

    def on_status(status: LinkStatus) -> None:
        switch.on_link(LinkState(status.phase.value, status.code, status.why, status.since))

    async def send(action: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        return await link.send(action, headers)

    canary = Canary(
        name,
        send=send,
        is_up=lambda: switch.synced,
        on_change=switch.events_late,
        every=settings.canary_every,
        late_after=settings.events_late_after,
    )

    def tell(whom: Hears, records: list[Any]) -> None:
        for record in records:
            if (hear := whom.get(type(record))) is not None:
                hear(name, record)

    def on_records(records: list[Any]) -> None:
        canary.event(records[-1].at)
        tell(first, records)
        switch.on_records(records)
        tell(then, records)

    link = AmiLink(
        pbx=name,
        host=settings.host,
        port=settings.port,
        username=settings.username,
        secret=settings.secret.get_secret_value(),
        tls=settings.tls and tls_context(settings.tls_ca),
        parsers={**PARSERS, b"UserEvent": canary.parser(PARSERS[b"UserEvent"])},
        on_records=on_records,
        on_status=on_status,
    )
    switch.link = link
    return Pbx(switch, link, canary)
