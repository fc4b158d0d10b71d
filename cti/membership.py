"""Membership: makes Asterisk's queues have each agent as the agent's state wants it: member or not, paused or not.

Calls are distributed by Asterisk itself; this is how it learns of states. What is wanted is compared with what the PBX has
and the difference sent (QueueAdd, QueuePause, QueueRemove): it may run at any time, twice does no harm, and members lost by
a restart of Asterisk are put back. A pause made at the PBX by somebody else is taken over as the agent's wish, not fought.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

import structlog

from cti.agents import Agents
from cti.facts import AgentStateChanged, Fact, PbxResynced, QueueMemberLeft, QueueMemberPaused
from cti.people import Agent, Directory, device_of
from cti.queues import Queues
from cti.views import MemberView

log = structlog.get_logger(__name__)

TRIES = 3


class Sender(Protocol):
    """What carries an action to a PBX."""

    async def __call__(
        self, action: str, headers: Mapping[str, str], /
    ) -> object:  # pragma: no cover - a protocol
        """Sends it and returns the answer; raises when it was refused or could not be sent."""
        ...


class Membership:
    """Brings queue memberships in line, one agent at a time and never two changes of one agent at once."""

    def __init__(
        self,
        *,
        directory: Directory,
        agents: Agents,
        queues: Mapping[str, Queues],
        send: Mapping[str, Sender],
        up: Callable[[str], bool],
        publish: Callable[[Iterable[Fact]], None],
    ) -> None:
        self._directory = directory
        self._agents = agents
        self._queues = queues
        self._send = send
        self._up = up
        self._publish = publish
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._working_on: str | None = None
        self.failures = 0

    def hear(self, fact: Fact) -> None:
        """Notes whose memberships may need a change."""
        match fact:
            case AgentStateChanged():
                self._note(fact.agent)
            case PbxResynced():
                for login in self._agents.known():
                    self._note(login)
            case QueueMemberPaused(agent=str(login)):
                self._paused_elsewhere(fact, login)
            case QueueMemberLeft(agent=str(login)) if login not in (self._working_on, *self._due):
                self._note(login)

    def _paused_elsewhere(self, fact: QueueMemberPaused, login: str) -> None:
        member, paused, _ = self._agents.wants(login)
        if login == self._working_on or login in self._due or not member or fact.paused == paused:
            return
        self._publish(
            self._agents.found_paused(login, fact.paused, fact.reason, at=max(fact.at, datetime.now(UTC)))
        )

    def _note(self, login: str) -> None:
        self._due[login] = None
        self._wake.set()

    async def run(self) -> None:
        """Works off what is due, until cancelled. One agent's failure is logged and tried again later."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                login = next(iter(self._due))
                del self._due[login]
                self._working_on = login
                try:
                    await self.settle(login)
                except Exception:
                    self.failures += 1
                    log.exception("queue membership could not be brought in line")
                finally:
                    self._working_on = None

    async def settle(self, login: str) -> None:
        """Makes every reachable PBX agree with the agent's present state. Raises nothing for a PBX that is down."""
        person = self._directory.agents.get(login)
        if person is None:
            return
        for pbx, interface in person.interfaces.items():
            if pbx in self._queues and self._up(pbx):
                await self._settle_at(pbx, person, interface)

    async def _settle_at(self, pbx: str, person: Agent, interface: str) -> None:
        member, paused, reason = self._agents.wants(person.login)
        queues = self._queues[pbx]
        has = queues.memberships(device_of(interface))
        wanted = {
            assignment.queue: assignment.penalty
            for assignment in person.queues
            if member and queues.knows(assignment.queue)
        }
        for queue, penalty in wanted.items():
            now = has.get(queue)
            if now is None:
                await self._act(
                    pbx, "QueueAdd", self._addition(queue, penalty, person, interface, paused, reason)
                )
            elif _pause_differs(now, paused, reason):
                await self._act(pbx, "QueuePause", _pause(queue, now.interface, paused, reason))
        for queue, now in has.items():
            if queue not in wanted:
                await self._act(pbx, "QueueRemove", {"Queue": _name(queue), "Interface": now.interface})

    def _addition(
        self, queue: str, penalty: int, person: Agent, interface: str, paused: bool, reason: str | None
    ) -> dict[str, str]:
        headers = {
            "Queue": _name(queue),
            "Interface": interface,
            "MemberName": person.name,
            "Penalty": str(penalty),
            "Paused": "true" if paused else "false",
        }
        if interface.startswith("Local/"):
            headers["StateInterface"] = device_of(interface)
        if paused and reason:
            headers["Reason"] = reason
        return headers

    async def _act(self, pbx: str, action: str, headers: Mapping[str, str]) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                await self._send[pbx](action, headers)
                return
            except Exception as error:
                said = str(error)
                if "already there" in said.lower() or "not there" in said.lower():
                    return  # somebody else has just done it
                if attempt == TRIES or not self._up(pbx):
                    self.failures += 1
                    log.warning("a queue member could not be changed", pbx=pbx, action=action, error=said)
                    return
                await asyncio.sleep(0.2 * attempt)


def _name(queue: str) -> str:
    return queue.partition(":")[2]


def _pause_differs(now: MemberView, paused: bool, reason: str | None) -> bool:
    return now.paused != paused or (paused and (now.pause_reason or "") != (reason or ""))


def _pause(queue: str, interface: str, paused: bool, reason: str | None) -> dict[str, str]:
    headers = {"Queue": _name(queue), "Interface": interface, "Paused": "true" if paused else "false"}
    if paused and reason:
        headers["Reason"] = reason
    return headers
