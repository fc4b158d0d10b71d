"""Queues: who waits and who could take them, as Asterisk has it. Pure: records about members and facts about calls in,
facts about queues out.

Whether a caller waits is decided once, by the call model; this one only keeps the lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from cti.ami_events import MemberRemoved, MemberSeen, QueueRow, Record
from cti.facts import (
    CallCleared,
    CallDiverted,
    CallEstablished,
    CallQueued,
    CallView,
    ConnectionCleared,
    ConnectionState,
    Fact,
    QueueAdded,
    QueueCallerJoined,
    QueueCallerLeft,
    QueueMemberJoined,
    QueueMemberLeft,
    QueueMemberPaused,
    QueueMemberStatusChanged,
    QueueRemoved,
)
from cti.legs import moment
from cti.people import device_of
from cti.views import MemberView, QueueView, WaitingView

Facts = list[Fact]


@dataclass(slots=True)
class _Queue:
    """`devices`: of each member its own device and the one whose state counts for it (AMI: StateInterface)."""

    name: str
    waiting: list[tuple[str, datetime]] = field(default_factory=list)
    members: dict[str, MemberView] = field(default_factory=dict)
    devices: dict[str, tuple[str, str]] = field(default_factory=dict)


class Queues:
    """The queues of one PBX."""

    def __init__(self, pbx: str, *, agent_at: Callable[[str], str | None]) -> None:
        self.pbx = pbx
        self._agent_at = agent_at
        self._queues: dict[str, _Queue] = {}
        self._waits_in: dict[str, str] = {}
        self._waiter: dict[str, str] = {}

    # ------------------------------------------------------------------------------------------ what is asked

    def views(self) -> list[QueueView]:
        """All queues by name, waiting callers in the order they will be taken."""
        return [self._view(id) for id in sorted(self._queues)]

    def members(self, queue: str) -> dict[str, MemberView]:
        """The members of a queue by interface; empty for an unknown queue."""
        found = self._queues.get(queue)
        return dict(found.members) if found else {}

    def member(self, queue: str, interface: str) -> MemberView | None:
        """The member with this interface, or None."""
        found = self._queues.get(queue)
        return found.members.get(interface) if found else None

    def waiting(self, queue: str) -> int:
        """How many wait in a queue; 0 for an unknown one."""
        found = self._queues.get(queue)
        return len(found.waiting) if found else 0

    def ahead_of(self, call: str) -> tuple[str, list[str]]:
        """The queue in which a call waits ("" if in none), and the calls ahead of it."""
        id = self._waits_in.get(call, "")
        waiting = [waits for waits, _ in self._queues[id].waiting] if id else []
        return id, waiting[: waiting.index(call)] if id else []

    def knows(self, queue: str) -> bool:
        """Whether the PBX has this queue."""
        return queue in self._queues

    def memberships(self, device: str) -> dict[str, MemberView]:
        """The queues in which this device is a member, itself or as the one whose state counts, each with how it is one."""
        return {
            id: queue.members[interface]
            for id, queue in self._queues.items()
            for interface, devices in queue.devices.items()
            if device in devices
        }

    def _view(self, id: str) -> QueueView:
        queue = self._queues[id]
        waiting = tuple(
            WaitingView(call=call, position=place, since=since)
            for place, (call, since) in enumerate(queue.waiting, start=1)
        )
        return QueueView(
            id=id, pbx=self.pbx, name=queue.name, waiting=waiting, members=tuple(queue.members.values())
        )

    # ------------------------------------------------------------------------------------------ members (AMI)

    def apply(self, record: Record) -> Facts:
        """Folds a record about a queue member; any other changes nothing."""
        match record:
            case MemberSeen():
                return self._member_seen(record, record.at)
            case MemberRemoved():
                return self._member_removed(f"{self.pbx}:{record.queue}", record.interface, record.at)
        return []

    def _member_seen(self, r: MemberSeen, at: float) -> Facts:
        id = f"{self.pbx}:{r.queue}"
        facts = self._add(id, r.queue, at)
        members, devices = self._queues[id].members, (device_of(r.interface), device_of(r.state_interface))
        agent = self._agent_of(devices)
        old = members.get(r.interface)
        if old is not None and (old.agent, old.name) != (agent, r.name):  # another person: another member
            facts += self._member_removed(id, r.interface, at)
            old = None
        self._queues[id].devices[r.interface] = devices
        new = MemberView(
            interface=r.interface,
            name=r.name,
            agent=agent,
            penalty=r.penalty,
            paused=r.paused,
            pause_reason=r.pause_reason if r.paused else None,
            status=r.status,
        )
        if old == new:
            return facts
        members[r.interface] = new
        when = moment(at)
        if old is None:
            facts.append(_joined(id, new, at))
            return facts
        if (old.status, old.penalty) != (new.status, new.penalty):
            facts.append(
                QueueMemberStatusChanged(
                    at=when,
                    queue=id,
                    interface=new.interface,
                    agent=agent,
                    status=new.status,
                    penalty=new.penalty,
                )
            )
        if (old.paused, old.pause_reason) != (new.paused, new.pause_reason):
            facts.append(
                QueueMemberPaused(
                    at=when,
                    queue=id,
                    interface=new.interface,
                    agent=agent,
                    paused=new.paused,
                    reason=new.pause_reason,
                )
            )
        return facts

    def _agent_of(self, devices: tuple[str, str]) -> str | None:
        return self._agent_at(devices[0]) or self._agent_at(devices[1])

    def _member_removed(self, id: str, interface: str, at: float) -> Facts:
        queue = self._queues.get(id)
        if queue is None or interface not in queue.members:
            return []
        member = queue.members.pop(interface)
        del queue.devices[interface]
        return [QueueMemberLeft(at=moment(at), queue=id, interface=interface, agent=member.agent)]

    def _add(self, id: str, name: str, at: float) -> Facts:
        if id in self._queues:
            return []
        self._queues[id] = _Queue(name)
        return [QueueAdded(at=moment(at), queue=id, pbx=self.pbx, name=name)]

    # ------------------------------------------------------------------------------------------ callers (facts)

    def hear(self, fact: Fact) -> Facts:
        """Keeps the waiting list by what is told of calls. One who has left is not who waits in that place now."""
        match fact:
            case CallQueued():
                return self._joined(fact)
            case CallEstablished() if fact.call in self._waits_in and _no_longer_waits(fact.view):
                return self._left(fact.call, "answered", fact.at)
            case CallDiverted() if fact.call in self._waits_in and _no_longer_waits(fact.view):
                return self._left(fact.call, fact.reason, fact.at)
            case ConnectionCleared(reason="abandoned") if self._waiter.get(fact.call) == fact.connection.id:
                return self._left(fact.call, "abandoned", fact.at)
            case CallCleared() if fact.call in self._waits_in:
                return self._left(fact.call, "lost", fact.at)
        return []

    def _joined(self, fact: CallQueued) -> Facts:
        facts: Facts = []
        if fact.call in self._waits_in:
            facts += self._left(fact.call, "left", fact.at)
        name = fact.queue.removeprefix(self.pbx + ":")
        facts += self._add(fact.queue, name, fact.at.timestamp())
        waiting = self._queues[fact.queue].waiting
        place = max(0, min(fact.position - 1, len(waiting)))
        waiting.insert(place, (fact.call, fact.at))
        self._waits_in[fact.call], self._waiter[fact.call] = fact.queue, fact.connection.id
        joined = QueueCallerJoined(
            at=fact.at, queue=fact.queue, call=fact.call, position=place + 1, waiting=len(waiting)
        )
        return [*facts, joined]

    def _left(self, call: str, reason: str, at: datetime) -> Facts:
        id, _ = self._waits_in.pop(call), self._waiter.pop(call)
        waiting = self._queues[id].waiting
        since = next(since for waits, since in waiting if waits == call)
        waiting[:] = [entry for entry in waiting if entry[0] != call]
        waited = max(0.0, (at - since).total_seconds())
        return [
            QueueCallerLeft(at=at, queue=id, call=call, reason=reason, waited=waited, waiting=len(waiting))
        ]

    # ------------------------------------------------------------------------------------------ rebuilding

    def rebuild(
        self,
        queues: Iterable[QueueRow],
        members: Iterable[MemberSeen],
        now: float,
        touched: frozenset[str] = frozenset(),
    ) -> tuple[Facts, dict[str, int]]:
        """Takes over queues and members as QueueStatus lists them; returns the facts and how much was found wrong.
        Members in `touched` (`queue|interface`) were spoken of by events meanwhile and are not judged."""
        wrong = {"queues": 0, "members": 0}
        facts: Facts = []
        listed = {f"{self.pbx}:{row.queue}": row.queue for row in queues}
        there = {(f"{self.pbx}:{row.queue}", row.interface): row for row in members}
        spared = {f"{self.pbx}:{member}" for member in touched}
        for id, queue in self._queues.items():
            for interface in [i for i in queue.members if (id, i) not in there and f"{id}|{i}" not in spared]:
                wrong["members"] += 1
                facts += self._member_removed(id, interface, now)
        for id in [id for id, queue in self._queues.items() if id not in listed and not queue.waiting]:
            wrong["queues"] += 1
            for interface in tuple(self._queues[id].members):
                facts += self._member_removed(id, interface, now)
            del self._queues[id]
            facts.append(QueueRemoved(at=moment(now), queue=id))
        for id, name in listed.items():
            added = self._add(id, name, now)
            wrong["queues"] += len(added)
            facts += added
        for (id, interface), row in there.items():
            if f"{id}|{interface}" in spared:
                continue
            changed = self._member_seen(row, now)
            wrong["members"] += bool(changed)
            facts += changed
        return facts, wrong

    def reassign(self, now: float) -> Facts:
        """Looks every member's agent up again, after people or their phones changed: a member whose agent is another one
        now leaves and joins."""
        facts: Facts = []
        for id, queue in self._queues.items():
            for interface, member in tuple(queue.members.items()):
                devices = queue.devices[interface]
                agent = self._agent_of(devices)
                if agent != member.agent:
                    facts += self._member_removed(id, interface, now)
                    queue.members[interface] = msgspec.structs.replace(member, agent=agent)
                    queue.devices[interface] = devices
                    facts.append(_joined(id, queue.members[interface], now))
        return facts


def _joined(queue: str, member: MemberView, at: float) -> QueueMemberJoined:
    return QueueMemberJoined(
        at=moment(at),
        queue=queue,
        interface=member.interface,
        name=member.name,
        agent=member.agent,
        penalty=member.penalty,
        paused=member.paused,
        pause_reason=member.pause_reason,
        status=member.status,
    )


def _no_longer_waits(view: CallView) -> bool:
    return view.queued_since is None and all(c.state is not ConnectionState.QUEUED for c in view.connections)
