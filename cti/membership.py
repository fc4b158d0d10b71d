"""Membership: makes Asterisk's queues have each agent as the agent's state wants it: member or not, paused or not.

Calls are distributed by Asterisk itself; this is how it learns of states. What is wanted is compared with what the PBX has
and the difference sent (QueueAdd, QueuePause, QueueRemove): it may run at any time, twice does no harm, and members lost by
a restart of Asterisk are put back. A pause made at the PBX by somebody else is taken over as the agent's wish, not fought.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import structlog

from cti.agents import Agents
from cti.facts import (
    AgentStateChanged,
    Fact,
    PbxResynced,
    QueueAdded,
    QueueMemberJoined,
    QueueMemberLeft,
    QueueMemberPaused,
    QueueMemberStatusChanged,
)
from cti.people import Agent, Directory, device_of, line_of
from cti.queues import Queues
from cti.views import MemberView

log = structlog.get_logger(__name__)

ECHO = 1.0
"""Seconds within which Asterisk tells the change it has just confirmed; then the next one may be judged by what it has."""

AGAIN_AFTER = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds after which a change that Asterisk refused is tried again; the last one goes on."""

MOST_CORRECTIONS, CORRECTIONS_WITHIN = 4, 60.0
"""How often an agent's members are put right again, within how many seconds, though nobody here has asked for anything:
after that another program wants them otherwise (a second server, a script), and this one takes its hands off."""

MOST_PAUSES, PAUSES_WITHIN = 9, 10.0
"""The same for pauses made and taken back at the PBX, which are taken over: no person does that so fast."""

AFTER_A_BREAK = frozenset({"connected", "reconnected"})
"""Reasons of a comparison after which members that are gone are nobody's doing: Asterisk forgets them when it restarts."""

LOGGED_OFF = "Logged off"
"""The reason with which a member is paused that is written in queues.conf and so cannot be removed."""

Action = tuple[str, dict[str, str]]
Wants = tuple[bool, bool, str | None]
"""`Agents.wants`: member, paused, reason of the pause."""

OF_MEMBERS = (QueueMemberJoined, QueueMemberLeft, QueueMemberPaused, QueueMemberStatusChanged)


class Sender(Protocol):
    """What carries an action to a PBX."""

    async def __call__(
        self, action: str, headers: Mapping[str, str], /
    ) -> object:  # pragma: no cover - a protocol
        """Sends it and returns the answer; raises when it was refused or could not be sent."""
        ...


@dataclass(slots=True)
class _Bench:
    """The work at one PBX: whose memberships are due there, who is being worked on, whom Asterisk refused how often, and
    what was wanted when an agent was last found in line: while it is wanted still, a new state changes nothing there.
    `reached`: what was wanted when all was last done; `corrected`, `paused`: when it had to be done again since, or a pause
    made at the PBX was found. `hands_off`: whose members are left as they are, as long as the same is wanted."""

    due: dict[str, None] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    working_on: str | None = None
    refused: dict[str, int] = field(default_factory=dict)
    settled: dict[str, Wants] = field(default_factory=dict)
    reached: dict[str, Wants] = field(default_factory=dict)
    corrected: dict[str, deque[float]] = field(default_factory=dict)
    paused: dict[str, deque[float]] = field(default_factory=dict)
    hands_off: dict[str, Wants] = field(default_factory=dict)

    def note(self, login: str) -> None:
        self.settled.pop(login, None)
        self.due[login] = None
        self.wake.set()

    def concerns(self, login: str) -> bool:
        return login == self.working_on or login in self.due


class Membership:
    """Brings queue memberships in line, at each PBX one agent after the other, so never two changes of one agent at once."""

    def __init__(
        self,
        *,
        directory: Directory,
        agents: Agents,
        queues: Mapping[str, Queues],
        send: Mapping[str, Sender],
        up: Callable[[str], bool],
        publish: Callable[[Iterable[Fact]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._agents = agents
        self._queues = queues
        self._send = send
        self._up = up
        self._publish = publish
        self._benches = {pbx: _Bench() for pbx in queues}
        self._placed: dict[tuple[str, str], str] = {}
        self._clock = clock
        self.failures = 0
        self.contested = 0

    @property
    def unsettled(self) -> int:
        """How many agents' memberships are still to be brought in line, counted at each PBX."""
        return sum(len(b.due) + (b.working_on is not None) for b in self._benches.values())

    def hear(self, fact: Fact) -> None:
        """Notes whose memberships may need a change."""
        if isinstance(fact, OF_MEMBERS):
            self._hear_of_member(fact)
            return
        match fact:
            case AgentStateChanged() if not self._agents.at_pbx_only(fact.agent):
                wanted = self._agents.wants(fact.agent)
                for bench in self._benches.values():
                    if bench.settled.get(fact.agent) != wanted:
                        bench.note(fact.agent)
            case PbxResynced() if fact.pbx in self._benches:
                if fact.reason in AFTER_A_BREAK:
                    self._benches[fact.pbx].reached.clear()
                for login in self._agents.known():
                    self._benches[fact.pbx].note(login)
            case QueueAdded() if fact.pbx in self._benches:
                for login in self._agents.known():
                    person = self._directory.agents.get(login)
                    if person is not None and any(a.queue == fact.queue for a in person.queues):
                        self._benches[fact.pbx].note(login)

    def people_changed(self) -> None:
        """Looks at everybody again, after people, their phones or their queues changed."""
        for bench in self._benches.values():
            bench.reached.clear()
            for login in {*self._agents.known(), *(login for _, login in self._placed)}:
                bench.note(login)

    def _hear_of_member(
        self, fact: QueueMemberJoined | QueueMemberLeft | QueueMemberPaused | QueueMemberStatusChanged
    ) -> None:
        pbx = fact.queue.partition(":")[0]
        bench, login = self._benches.get(pbx), fact.agent
        if bench is None:
            return
        bench.told.set()
        if login is None or bench.concerns(login) or not self._agents.knows(login):
            return
        if isinstance(fact, QueueMemberPaused):
            self._paused_elsewhere(fact, login)
        elif not isinstance(fact, QueueMemberStatusChanged):
            bench.note(login)

    def _paused_elsewhere(self, fact: QueueMemberPaused, login: str) -> None:
        wanted = self._agents.wants(login)
        member, paused, _ = wanted
        pbx = fact.queue.partition(":")[0]
        bench = self._benches[pbx]
        if not member or fact.paused == paused or bench.hands_off.get(login) == wanted:
            return
        if self._too_often(bench.paused, login, MOST_PAUSES, PAUSES_WITHIN):
            self._take_hands_off(pbx, bench, login)
            return
        self._publish(
            self._agents.found_paused(login, fact.paused, fact.reason, at=max(fact.at, datetime.now(UTC)))
        )

    # ------------------------------------------------------------------------------------------ somebody else's hands

    def _too_often(self, seen: dict[str, deque[float]], login: str, most: int, within: float) -> bool:
        """Counts that somebody else has changed what was in line; whether that happens too often."""
        times, now = seen.setdefault(login, deque(maxlen=most + 1)), self._clock()
        times.append(now)
        return len(times) > most and now - times[0] <= within

    def _take_hands_off(self, pbx: str, bench: _Bench, login: str) -> None:
        """Leaves the members as they are until a person asks for something else; everybody sees why."""
        self.contested += 1
        bench.corrected.pop(login, None)
        bench.paused.pop(login, None)
        log.warning(
            "queue members are changed again and again by another program: hands off", pbx=pbx, agent=login
        )
        self._publish(self._agents.found_contested(login, pbx, at=datetime.now(UTC)))
        bench.hands_off[login] = self._agents.wants(login)

    # ------------------------------------------------------------------------------------------ bringing in line

    async def run(self) -> None:
        """Works off what is due, until cancelled. A PBX that is slow or refuses holds up nobody at another one."""
        async with asyncio.TaskGroup() as group:
            for pbx, bench in self._benches.items():
                group.create_task(self._work(pbx, bench), name=f"membership {pbx}")

    async def _work(self, pbx: str, bench: _Bench) -> None:
        while True:
            await bench.wake.wait()
            bench.wake.clear()
            while bench.due:
                login = next(iter(bench.due))
                del bench.due[login]
                bench.working_on = login
                try:
                    settled = await self._settle_at(pbx, login)
                except Exception:
                    settled = False
                    log.exception("queue membership could not be brought in line", pbx=pbx)
                finally:
                    bench.working_on = None
                if login not in bench.due:
                    self._look_again(pbx, bench, login, settled)

    def _look_again(self, pbx: str, bench: _Bench, login: str, settled: bool) -> None:
        if settled or not self._up(pbx):  # all are looked at when a PBX has come up
            bench.refused.pop(login, None)
            if settled:
                bench.settled[login] = self._agents.wants(login)
            return
        self.failures += 1
        times = bench.refused.get(login, 0)
        bench.refused[login] = times + 1
        pause = AGAIN_AFTER[min(times, len(AGAIN_AFTER) - 1)]
        asyncio.get_running_loop().call_later(pause, bench.note, login)

    async def _settle_at(self, pbx: str, login: str) -> bool:
        """Sends what is to be changed; whether all was done and nobody else has changed it meanwhile."""
        if not self._up(pbx):
            return True
        bench, wanted = self._benches[pbx], self._agents.wants(login)
        if bench.hands_off.get(login) == wanted:
            return True
        bench.hands_off.pop(login, None)
        plan = self._plan(pbx, login)
        again = bool(plan) and bench.reached.get(login) == wanted
        if again and self._too_often(bench.corrected, login, MOST_CORRECTIONS, CORRECTIONS_WITHIN):
            self._take_hands_off(pbx, bench, login)
            return True
        done = [await self._act(pbx, action, headers) for action, headers in plan]
        in_line = all(done) and not self._plan(pbx, login)
        if all(done):
            bench.reached[login] = wanted
        return in_line

    def _plan(self, pbx: str, login: str) -> list[Action]:
        """What is to be changed, as Asterisk has the agent now."""
        person, queues = self._directory.agents.get(login), self._queues[pbx]
        phone = person.interfaces.get(pbx) if person is not None else None
        interface = line_of(phone) + "/n" if person is not None and phone and person.off_hook else phone
        plan: list[Action] = []
        if phone is not None and interface is not None:  # as what the agent is not reached now
            other = device_of(phone) if interface != phone else line_of(phone)
            plan += [a for queue, now in queues.memberships(other).items() for a in _removal(queue, now)]
        former = self._placed.get((pbx, login))
        if former is not None and (interface is None or device_of(former) != device_of(interface)):
            there = queues.memberships(device_of(former))
            leaving = [action for queue, now in there.items() for action in _removal(queue, now)]
            plan += [action for action in leaving if action not in plan]
            if not leaving:
                del self._placed[pbx, login]
        if person is None or interface is None:
            return plan
        member, paused, reason = self._agents.wants(login)
        has = queues.memberships(device_of(interface))
        wanted = {
            assignment.queue: assignment.penalty
            for assignment in person.queues
            if member and queues.knows(assignment.queue)
        }
        for queue, penalty in wanted.items():
            now = has.get(queue)
            if now is None:
                plan.append(("QueueAdd", _addition(queue, penalty, person, interface, paused, reason)))
                continue
            if _pause_differs(now, paused, reason):
                plan.append(("QueuePause", _pause(queue, now.interface, paused, reason)))
            if now.penalty != penalty:
                headers = {"Queue": _name(queue), "Interface": now.interface, "Penalty": str(penalty)}
                plan.append(("QueuePenalty", headers))
        plan += [
            action for queue, now in has.items() if queue not in wanted for action in _removal(queue, now)
        ]
        if wanted:
            self._placed.setdefault((pbx, login), interface)
        return plan

    async def _act(self, pbx: str, action: str, headers: Mapping[str, str]) -> bool:
        """Sends one change and waits until it has come back as an event: later ones then are somebody else's doing."""
        queue, interface, paused = f"{pbx}:{headers['Queue']}", headers["Interface"], headers.get("Paused")
        try:
            await self._send[pbx](action, headers)
        except Exception as error:
            said = str(error).lower()
            if "already there" in said or "not there" in said:
                return True  # somebody else has just done it
            if action == "QueueRemove" and "not dynamic" in said:
                return await self._act(pbx, "QueuePause", _pause(queue, interface, True, LOGGED_OFF))
            log.warning("a queue member could not be changed", pbx=pbx, action=action, error=str(error))
            return False

        def seen() -> bool:
            now = self._queues[pbx].member(queue, interface)
            if action == "QueueRemove":
                return now is None
            return now is not None and (paused is None or now.paused == (paused == "true"))

        told = self._benches[pbx].told
        with suppress(TimeoutError):
            async with asyncio.timeout(ECHO):
                while not seen():
                    told.clear()
                    await told.wait()
        return True


def _addition(
    queue: str, penalty: int, person: Agent, interface: str, paused: bool, reason: str | None
) -> dict[str, str]:
    headers = {
        "Queue": _name(queue),
        "Interface": interface,
        "MemberName": person.name,
        "Penalty": str(penalty),
        "Paused": "true" if paused else "false",
    }
    if interface.startswith("Local/"):
        headers["StateInterface"] = line_state(interface) or device_of(interface)
    if paused and reason:
        headers["Reason"] = reason
    return headers


def line_state(interface: str) -> str | None:
    """The device in which Asterisk keeps whether an open line is free (asterisk-config: [cti-line])."""
    phone, at, _ = device_of(interface).removeprefix("Local/").partition("@cti-line")
    return f"Custom:cti-line-{phone}" if at else None


def _removal(queue: str, member: MemberView) -> list[Action]:
    """Nothing for a member of queues.conf, which cannot be removed and was paused instead."""
    if member.paused and member.pause_reason == LOGGED_OFF:
        return []
    return [("QueueRemove", {"Queue": _name(queue), "Interface": member.interface})]


def _name(queue: str) -> str:
    return queue.partition(":")[2]


def _pause_differs(now: MemberView, paused: bool, reason: str | None) -> bool:
    return now.paused != paused or (paused and (now.pause_reason or "") != (reason or ""))


def _pause(queue: str, interface: str, paused: bool, reason: str | None) -> dict[str, str]:
    headers = {"Queue": _name(queue), "Interface": interface, "Paused": "true" if paused else "false"}
    if paused and reason:
        headers["Reason"] = reason
    return headers
