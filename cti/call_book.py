"""The book of calls: which legs, calls and bridges there are, and how they look from outside. Decides nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from cti.facts import (
    CallView,
    ConnectionCleared,
    ConnectionView,
    Fact,
)
from cti.legs import (
    NOBODYS,
    Call,
    Leg,
    moment,
)


class CallBook:
    """The calls of one PBX as they stand."""

    def __init__(
        self,
        pbx: str,
        *,
        agent_at: Callable[[str], str | None],
        is_trunk: Callable[[str], bool],
        inbound_contexts: Iterable[str],
    ) -> None:
        self.pbx = pbx
        self._agent_at = agent_at
        self._is_trunk = is_trunk
        self._inbound = frozenset(inbound_contexts)
        self._calls: dict[str, Call] = {}
        self._aliases: dict[str, Call] = {}
        self._legs: dict[str, Leg] = {}
        self._halves: dict[str, Leg] = {}
        self._bridges: dict[str, set[str]] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._expected: dict[str, tuple[str, str]] = {}
        self._leaving: dict[str, Leg] = {}
        self._left_alone: dict[str, tuple[Leg, float]] = {}
        self._hears_hangup_requests = False
        self.unknown = 0

    def view(self, call: str) -> CallView | None:
        """The call as clients see it, or None."""
        found = self._calls.get(self._key(call))
        return self._view(found) if found else None

    def views(self) -> list[CallView]:
        """All calls, the oldest first."""
        return [self._view(call) for call in sorted(self._calls.values(), key=lambda c: c.started)]

    def agents_in(self, call: str) -> tuple[str, ...]:
        """The agents who are parties of the call now."""
        found = self._calls.get(self._key(call))
        if found is None:
            return ()
        return tuple({leg.agent for leg in found.legs.values() if leg.agent and leg.published})

    def queue_of(self, call: str) -> str | None:
        """The queue the call is in or was last answered from."""
        found = self._calls.get(self._key(call))
        return found.queue if found else None

    def channels_of(self, call: str, agent: str) -> list[str]:
        """Uniqueids of the agent's live channels in the call, one a connection."""
        found = self._calls.get(self._key(call))
        legs = found.legs.values() if found else ()
        return [leg.ends[0] for leg in legs if leg.agent == agent and leg.published]

    def channel_of(self, call: str, connection: str) -> str | None:
        """Uniqueid of the live channel that a connection of the call has now, which actions can name."""
        found = self._calls.get(self._key(call))
        leg = found.legs.get(self._key(connection)) if found else None
        return next((end for end in leg.ends if self._legs.get(end) is leg), None) if leg else None

    def talk(self, call: str, one: str, other: str) -> bool:
        """Whether two connections of the call are in one conversation."""
        found = self._calls.get(self._key(call))
        leg = found.legs.get(self._key(one)) if found else None
        return leg is not None and self._key(other) in leg.peers

    def names_of(self, call: str, connection: str) -> tuple[str, ...]:
        """Names of the channels by which a connection may sit in a conference: its own, and Local ones that lead to it."""
        found = self._calls.get(self._key(call))
        leg = found.legs.get(self._key(connection)) if found else None
        if found is None or leg is None:
            return ()
        joints = [other for other in found.legs.values() if other.pipe]
        return (leg.channel, *(other.channel for other in joints if leg.dialler is other))

    def __len__(self) -> int:
        return len(self._calls)

    def sizes(self) -> dict[str, int]:
        """How much is held, for metrics and for tests that nothing leaks."""
        return {
            "calls": len(self._calls),
            "channels": len(self._legs),
            "local_halves": len(self._halves),
            "bridges": len(self._bridges),
            "leaving": len(self._leaving),
            "left_alone": len(self._left_alone),
            "expected": len(self._expected),
            "aliases": len(self._aliases),
        }

    def _waiting_in(self, call: Call) -> str | None:
        if call.queued_since is not None:
            return call.queue
        return next((leg.queue for leg in call.legs.values() if leg.queue is not None), None)

    def _leave_bridge(self, leg: Leg, uniqueid: str, bridge: str) -> None:
        leg.bridges.pop(uniqueid, None)
        members = self._bridges.get(bridge)
        if members is not None:
            members.discard(uniqueid)
            if not members:
                del self._bridges[bridge]

    def _peers(self, leg: Leg) -> frozenset[str]:
        """Ids of the parties the leg is in one conversation with, across Local channels that only join."""
        if not leg.bridges:
            return frozenset()
        found: set[str] = set()
        seen: set[str] = set()
        ahead = list(leg.bridges.values())
        while ahead:
            bridge = ahead.pop()
            if bridge in seen:
                continue
            seen.add(bridge)
            for uniqueid in self._bridges.get(bridge, ()):
                other = self._legs[uniqueid]
                if other is leg:
                    continue
                if other.pipe:
                    ahead += other.bridges.values()
                elif other.front is None and other.up:
                    found.add(other.id)
        return frozenset(found)

    def _queue_id(self, queue: str) -> str:
        return f"{self.pbx}:{queue}"

    def _connection_cleared(self, leg: Leg, at: float, cause: int, reason: str) -> Fact:
        return ConnectionCleared(
            at=moment(at),
            call=leg.call.id,
            connection=self._connection(leg),
            agent=leg.agent,
            cause=cause,
            reason=reason,
            talked=leg.talked,
            held=leg.held,
            queue=leg.answered_from,
        )

    def _leg(self, uniqueid: str) -> Leg | None:
        leg = self._legs.get(uniqueid)
        if leg is None:
            self.unknown += not uniqueid.startswith(NOBODYS)
            return None
        return None if leg.cleared else leg

    def _key(self, call: str) -> str:
        return call.removeprefix(self.pbx + ":")

    def _connection(self, leg: Leg) -> ConnectionView:
        return ConnectionView(
            id=f"{self.pbx}:{leg.id}",
            device=leg.device,
            state=leg.state,
            since=moment(leg.since),
            agent=leg.agent,
            number=leg.number,
            name=leg.name,
            muted=leg.muted,
        )

    def _view(self, call: Call) -> CallView:
        return CallView(
            id=call.id,
            pbx=self.pbx,
            direction=call.direction,
            ani=call.ani,
            ani_name=call.ani_name,
            dnis=call.dnis,
            started=moment(call.started),
            queue=call.queue,
            queued_since=moment(call.queued_since) if call.queued_since is not None else None,
            answered=moment(call.answered) if call.answered is not None else None,
            consult_of=call.consult_of,
            parked_at=call.parked_at,
            conference=call.conference,
            data=dict(call.data),
            connections=tuple(self._connection(leg) for leg in call.legs.values() if leg.published),
        )
