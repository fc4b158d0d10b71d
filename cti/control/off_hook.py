"""Agents who work off-hook: their phone is called once, the line stays open, and calls are connected to it after a beep.

What holds the line, says to Asterisk's queues whether it is free, and connects calls to it is the dialplan
(`[cti-line-open]`, `[cti-line]`): all of that goes on while this server is away. Here lines are opened and closed, and a
waiting customer is given to one (docs/adr/009).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog

from cti.agents import LINE_RENEWED, Agents
from cti.commands import CommandError
from cti.control.acting import Acting, Means
from cti.control.moves import CONNECTED
from cti.control.ports import CallAnswer, Port
from cti.control.ringing import AUTO_ANSWER
from cti.control.steps import PROOF, RINGS
from cti.facts import (
    AgentLineChanged,
    AgentOffHookChanged,
    AgentState,
    AgentStateChanged,
    CallView,
    ConnectionCleared,
    ConnectionView,
    Fact,
    LineState,
    PbxStatusChanged,
)
from cti.lines import line_id, phone_of
from cti.people import Directory

log = structlog.get_logger(__name__)

WHY_NOT = {
    "busy": "your phone is busy: hang up there, then try again",
    "rejected": "your phone refused the call",
    "no_answer": "your phone was not answered",
    "unreachable": "your phone cannot be reached: look at it, then try again",
    "hung_up": "your phone was hung up at once",
}


class OffHook(Acting):
    """The open lines on all PBXs. Who may ask is not decided here."""

    def __init__(
        self,
        means: Means,
        *,
        directory: Directory,
        agents: Agents,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        super().__init__(means)
        self._directory = directory
        self._agents = agents
        self._spawn = spawn
        self._told: dict[tuple[str, str], AgentLineChanged] = {}
        self._news = asyncio.Event()

    def device(self, pbx: str, agent: str) -> str | None:
        """What reaches the agent on their open line, for Dial and Originate; None while it is not open."""
        port = self._ports.get(pbx)
        device = port.calls.lines.device(agent) if port is not None else None
        return f"{device}/n" if device is not None else None

    # ------------------------------------------------------------------------------------------ open and close

    async def open(self, agent: str) -> None:
        """Calls the agent's phone and keeps the line; done once it rings or is open. With phones at several PBXs one that
        can be called is enough."""
        person = self._directory.agents.get(agent)
        if person is None or not person.interfaces:
            raise CommandError("no_phone", f"{agent} has no phone: an administrator gives one")
        if not person.off_hook:
            raise CommandError("wrong_state", f"{agent} works on-hook: choose off-hook first")
        async with self._lock(agent):
            if any(port.calls.lines.channel(agent) for port in self._ports.values()):
                raise CommandError("wrong_state", "the line is open already, or your phone rings for it")
            tried = await asyncio.gather(
                *(self._call(pbx, agent, device) for pbx, device in person.interfaces.items()),
                return_exceptions=True,
            )
            failed = [outcome for outcome in tried if isinstance(outcome, BaseException)]
            if len(failed) == len(tried):
                raise failed[0]

    async def _call(self, pbx: str, agent: str, device: str) -> None:
        port, id, phone = self._port(pbx), line_id(device), phone_of(device)
        if id is None or phone is None:
            why = f"no line can be kept open to {device}: only to a phone like PJSIP/1101"
            raise CommandError("no_phone", why)
        self._told.pop((pbx, agent), None)
        in_browser = self._browser is not None and self._browser.has(agent, pbx)
        headers: dict[str, Any] = {
            "Channel": device,
            "Context": "cti-line-open",
            "Exten": phone,
            "Priority": "1",
            "CallerID": f'"Open line" <{phone}>',
            "Timeout": str(port.ring_seconds * 1000),
            "ChannelId": id,
            "Variable": [
                *([f"CTI_LINE_MUSIC={port.line_music}"] if port.line_music else []),
                *(AUTO_ANSWER if port.auto_answer or in_browser else []),
                *([f"PJSIP_HEADER(add,X-CTI-Channel)={id}"] if in_browser else []),
            ],
        }
        await self._originate(port, headers)

        def came() -> bool:
            told = self._told.get((pbx, agent))
            return told is not None and told.reason != "called"

        if not await self._until(came, RINGS):
            with suppress(CommandError):
                await self._hang_up(port, id)
            raise CommandError("phone_not_reached", f"your own phone does not ring within {RINGS:g} s")
        told = self._told[pbx, agent]
        if told.line is LineState.CLOSED:
            raise CommandError("phone_not_reached", WHY_NOT.get(told.reason, WHY_NOT["unreachable"]))

    def is_open(self, pbx: str, agent: str) -> bool:
        """Whether the agent's line at this PBX is open."""
        port = self._ports.get(pbx)
        return port is not None and port.calls.lines.device(agent) is not None

    async def renew(self, pbx: str, agent: str) -> None:
        """Ends a line behind which there is no page any more, and opens it to the new one: who was ready stays so. Raises
        nothing."""
        await self.end(pbx, agent, LINE_RENEWED)
        await self._open_by_itself(agent)

    def give_up(self, pbx: str, agent: str) -> None:
        """Nobody is behind this line any more: the agent is not ready before it ends, so that it is free for no moment."""
        if self.is_open(pbx, agent):
            self._publish(self._agents.page_gone(agent, at=datetime.now(UTC)))

    async def end(self, pbx: str, agent: str, why: str) -> None:
        """Ends a line behind which there is no page any more; nothing happens if there is none. Raises nothing."""
        port = self._ports[pbx]
        async with self._lock(agent):
            if port.up() and port.calls.lines.channel(agent) is not None:
                with suppress(CommandError):
                    await self._end([port], agent, why)

    async def close(self, agent: str) -> None:
        """Hangs the line up; done once it is gone. Raises CommandError while a call is on it."""
        async with self._lock(agent):
            lines = [port for port in self._ports.values() if port.calls.lines.channel(agent)]
            if not lines:
                for pbx in (
                    self._directory.agents[agent].interfaces if agent in self._directory.agents else ()
                ):
                    self._port(pbx)
                raise CommandError("wrong_state", "the line is closed")
            for port in lines:
                self._port(port.name)
                if self.in_a_call(agent):
                    raise CommandError("wrong_state", "there is a call on the line: end it first")
            await self._end(lines, agent)

    async def _end(self, lines: list[Port], agent: str, why: str = "closed") -> None:
        for port in lines:
            id = port.calls.lines.channel(agent)
            if id is not None:
                port.calls.lines.ending(agent, why)
                await self._hang_up(port, id)
        if not await self._until(lambda: not any(port.calls.lines.channel(agent) for port in lines), PROOF):
            raise CommandError("not_confirmed", "the line was told to end and is still there")

    def in_a_call(self, agent: str) -> bool:
        """Whether a call is on the agent's line."""
        return any(
            connection.agent == agent and connection.device == port.calls.lines.device(agent)
            for port in self._ports.values()
            if port.calls.lines.channel(agent)
            for view in port.calls.views()
            for connection in view.connections
        )

    # ------------------------------------------------------------------------------------------ by itself

    def wanted(self, agent: str) -> None:
        """The agent has logged on or asked for calls: the line is opened if they work off-hook and it is closed."""
        person = self._directory.agents.get(agent)
        if person is not None and person.off_hook:
            self._spawn(self._open_by_itself(agent))

    async def _open_by_itself(self, agent: str) -> None:
        try:
            await self.open(agent)
        except CommandError as error:
            if error.code == "wrong_state":
                return  # it is open
            log.info("an agent's line could not be opened", agent=agent, code=error.code)
            self._publish(self._agents.line_refused(agent, error.message, at=datetime.now(UTC)))

    async def _close_by_itself(self, agent: str) -> None:
        lines = [port for port in self._ports.values() if port.calls.lines.channel(agent)]
        with suppress(CommandError):
            await self._end(lines, agent)

    def hear(self, fact: Fact) -> None:
        """Notes how lines are; ends the line of who logs off or goes on-hook, opens that of who goes off-hook."""
        match fact:
            case AgentLineChanged():
                self._told[fact.pbx, fact.agent] = fact
                self._news.set()
                if fact.line is LineState.OPEN and not self.keeps(fact.agent):
                    self._spawn(self._close_by_itself(fact.agent))
            case PbxStatusChanged():
                self._news.set()
            case AgentOffHookChanged() if fact.off_hook:
                if self._logged_on(fact.agent):
                    self.wanted(fact.agent)
            case AgentOffHookChanged() | AgentStateChanged() | ConnectionCleared():
                self._close_if_not_kept(fact.agent)

    def _close_if_not_kept(self, agent: str | None) -> None:
        """Ends the line of who has logged off or works on-hook now; with a call on it, when that is over."""
        if agent is None or not any(port.calls.lines.channel(agent) for port in self._ports.values()):
            return
        if not self.keeps(agent) and not self.in_a_call(agent):
            self._spawn(self._close_by_itself(agent))

    def _logged_on(self, agent: str) -> bool:
        return self._agents.session(agent, datetime.now(UTC)).logged_on

    def keeps(self, agent: str) -> bool:
        """Whether the agent is logged on and works off-hook."""
        person = self._directory.agents.get(agent)
        return person is not None and person.off_hook and self._logged_on(agent)

    # ------------------------------------------------------------------------------------------ a call for the line

    async def connect(self, call: str, agent: str) -> CallAnswer:
        """Gives an answered customer who waits in the dialplan to a free agent's open line; done once the two talk.

        Raises CommandError: `unknown_call`, `caller_gone`, `wrong_state` (the customer talks with somebody),
        `line_closed`, `agent_not_free`, `agent_taken` (another call was quicker: the customer waits on, or is in the
        queue that the dialer has given), `pbx_down`, `not_confirmed`.
        """
        port = self._port(call.partition(":")[0])
        async with self._lock(f"connect {agent}"):
            view = port.calls.view(call)
            if view is None:
                raise CommandError("unknown_call", "there is no such call, or it is over")
            customer = _waiting(view)
            channel = port.calls.channel_of(call, customer.id) if customer is not None else None
            if customer is None or channel is None:
                raise CommandError("wrong_state", "nobody waits alone in this call")
            device = port.calls.lines.device(agent)
            if device is None:
                raise CommandError("line_closed", f"{agent} has no open line on {port.name}")
            shown = self._agents.view(agent, datetime.now(UTC))
            if shown is None or shown.state is not AgentState.READY:
                raise CommandError("agent_not_free", f"{agent} is {shown.state if shown else 'no agent'}")
            await self._send(
                port,
                "Redirect",
                Channel=channel,
                Context="cti-line-connect",
                Exten=device.removeprefix("Local/").partition("@")[0],
                Priority="1",
            )
            return await self._connected(port, call, agent, customer)

    async def _connected(self, port: Port, call: str, agent: str, customer: ConnectionView) -> CallAnswer:
        tried = False

        def look() -> str | None:
            nonlocal tried
            if not port.up():
                return "down"
            view = port.calls.view(call)
            if view is None or all(c.id != customer.id for c in view.connections):
                return "gone"
            mine = [c for c in view.connections if c.agent == agent]
            if any(c.state is CONNECTED for c in mine):
                return "through"
            taken = tried and not mine
            tried = tried or bool(mine)
            return "taken" if taken else None

        match await self._waits.until(call, look, PROOF):
            case "through":
                return CallAnswer(call=call, agent=agent, view=port.calls.view(call))
            case "gone":
                raise CommandError("caller_gone", "the customer hung up meanwhile")
            case "taken":
                raise CommandError("agent_taken", f"another call was quicker at the line of {agent}")
            case "down":
                why = f"{port.name} broke off in the middle: the facts tell what happened"
                raise CommandError("pbx_down", why)
        raise CommandError("not_confirmed", "the facts do not show that the two talk")

    # ------------------------------------------------------------------------------------------ steps

    async def _hang_up(self, port: Port, id: str) -> None:
        try:
            await self._send(port, "Hangup", Channel=id, Cause="16")
        except CommandError as error:
            if error.code != "caller_gone":
                raise

    async def _until(self, true: Callable[[], bool], limit: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while not true():
                    self._news.clear()
                    await self._news.wait()
        return true()


def _waiting(view: CallView) -> ConnectionView | None:
    """The one party of a call that is through to nobody."""
    through = [c for c in view.connections if c.state is CONNECTED]
    return through[0] if len(view.connections) == len(through) == 1 and through[0].agent is None else None
