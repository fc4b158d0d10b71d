"""The place in a queue of an agent who asks it something, kept for the party on hold: whoever is left on hold when the agent
puts the receiver down waits on in that very place."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from cti.ami import AmiError
from cti.control.ports import Port
from cti.facts import (
    CallCleared,
    CallView,
    ConnectionState,
    Fact,
    PbxResynced,
    QueueCallerJoined,
    QueueCallerLeft,
)

log = structlog.get_logger(__name__)


class Waiting(Protocol):
    """Who waits in the queues of a PBX (`cti.queues`)."""

    def ahead_of(self, call: str) -> tuple[str, list[str]]:
        """The queue in which a call waits, and the calls ahead of it."""


@dataclass(slots=True)
class _Asks:
    """An agent in a queue. `held`: the channel on hold. `told`: the place that is written there."""

    port: Port
    queue: str
    held: str
    ahead: set[str]
    told: int = 0


class Places:
    """Writes the place to the channel on hold (CTI_SECOND_PLACE, read by [cti-second]) whenever it changes, so that the
    dialplan knows it without this server too. `hear` is the listener."""

    def __init__(
        self,
        ports: Mapping[str, Port],
        *,
        waiting: Mapping[str, Waiting],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._ports = ports
        self._waiting = waiting
        self._spawn = spawn
        self._asking: dict[str, _Asks] = {}

    def hear(self, fact: Fact) -> None:
        """Follows queues of which an agent asks something, until the party on hold waits in the queue or is gone."""
        match fact:
            case QueueCallerJoined():
                self._asking.pop(fact.call, None)
                self._follow(self._view(fact.call))
                for asks in self._in(fact.queue):
                    if fact.position <= len(asks.ahead) + 1 and self._asking.get(fact.call) is not asks:
                        asks.ahead.add(fact.call)
            case QueueCallerLeft():
                for asks in self._in(fact.queue):
                    asks.ahead.discard(fact.call)
            case CallCleared():
                self._asking.pop(fact.call, None)
                return
            case PbxResynced():
                for view in self._ports[fact.pbx].calls.views():
                    self._follow(view)
            case _:
                return
        for asks in self._asking.values():
            if asks.told != len(asks.ahead) + 1:
                asks.told = len(asks.ahead) + 1
                self._spawn(self._tell(asks.port, asks.held, asks.told))

    def _view(self, call: str) -> CallView | None:
        return self._ports[call.partition(":")[0]].calls.view(call)

    def _in(self, queue: str) -> Iterable[_Asks]:
        return [asks for asks in self._asking.values() if asks.queue == queue]

    def _follow(self, view: CallView | None) -> None:
        """Begins with a call in which an agent waits in a queue, and one other does not."""
        if view is None:
            return
        asks = [c for c in view.connections if c.agent is not None and c.state is ConnectionState.QUEUED]
        others = [c for c in view.connections if c not in asks]
        if len(asks) != 1 or len(others) != 1 or others[0].state is ConnectionState.QUEUED:
            return
        queue, ahead = self._waiting[view.pbx].ahead_of(view.id)
        held = self._ports[view.pbx].calls.channel_of(view.id, others[0].id)
        if queue and held is not None:
            self._asking[view.id] = _Asks(self._ports[view.pbx], queue, held, set(ahead))

    async def _tell(self, port: Port, held: str, place: int) -> None:
        if not port.up():
            return
        try:
            await port.send("Setvar", {"Channel": held, "Variable": "CTI_SECOND_PLACE", "Value": str(place)})
        except AmiError as error:
            log.info("a place in a queue was not written", pbx=port.name, why=type(error).__name__)
