"""A page that was the agent's phone and is loaded again, closed, or dead in a call: the call goes on in the new one, and
nobody waits on a dead line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from cti.commands import CommandError
from cti.control.acting import Means
from cti.control.moves import HOLD, Phase, scene, state_of
from cti.control.ports import InBrowser, Port
from cti.control.steps import NOBODY, PROOF, RINGS, Act, Steps, on_a_line
from cti.control.targets import phone_number
from cti.facts import CallView, ConnectionState, ConnectionView

log = structlog.get_logger(__name__)

SETTLE = 0.4
"""Seconds in which a call that has just been ended leaves the picture."""

SILENT = 0.8
"""Seconds without one packet of sound after which a page that has left is taken for dead: it sends fifty a second, muted
or not."""

STILL_TALKS = 3.0
"""Seconds until it is looked again at a page that lost the server and whose sound goes on."""

THROUGH = (ConnectionState.CONNECTED, ConnectionState.HOLD)


class TakingUp(Steps):
    """Takes up the calls of a phone in the browser that knows nothing of them any more, or is not there any more."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._away: dict[tuple[str, str], str] = {}

    async def take_up(self, pbx: str, agent: str) -> None:
        """Whom the agent talked with or held comes back to the phone, which takes the call by itself; whoever has somebody
        else to talk with goes on without the agent. Nothing happens if there is no such call. Raises nothing."""
        port = self._ports.get(pbx)
        if port is None or not port.up():
            return
        waits = self._waits_for(port, agent)
        if waits is not None:
            await self._call_through(port, agent, waits)
            return
        if self._left_over(pbx, agent) is None:
            return
        await asyncio.sleep(SETTLE)
        await self._with_left_over(
            pbx, agent, self._again, "a call could not be taken up by the phone in the browser"
        )

    async def is_dead(self, pbx: str, agent: str) -> bool:
        """Whether the agent's page, whose connection has ended, is gone and has left a call or an open line behind:
        no sound comes from it, and none was opened again. One whose sound goes on has lost the server alone. Done when
        that is known, or nothing is left behind."""
        port = self._ports.get(pbx)
        while port is not None and port.up() and (channel := self._left_behind(port, agent)) is not None:
            before = await self._heard_of(port, channel)
            await asyncio.sleep(SILENT)
            if self._browser is None or self._browser.there(agent, pbx):
                return False
            if before is not None and before == await self._heard_of(port, channel):
                return True
            await asyncio.sleep(STILL_TALKS)
        return False

    async def let_wait(self, pbx: str, agent: str, *, why: str) -> None:
        """The agent's page is gone: whom they talked with hears music, and is theirs again once a page is open; after a
        while they go back to the queue (`cti-hold,away`). Whoever has somebody else to talk with goes on without the agent.
        An open line ends at the same moment, for the reason `why`: it must not be free between. Raises nothing."""

        async def set_aside(act: Act) -> None:
            await self._set_aside(act, why)

        await self._with_left_over(pbx, agent, set_aside, "a call of a page that is gone could not be saved")

    def awaited(self, pbx: str, agent: str) -> bool:
        """Whether somebody waits until the agent's page is there again."""
        return self._waits_for(self._ports[pbx], agent) is not None

    def _left_behind(self, port: Port, agent: str) -> str | None:
        """The channel of the agent's phone in the browser: of the open line, or of the call it is through in."""
        if port.calls.lines.device(agent) is not None:
            return port.calls.lines.channel(agent)
        found = self._left_over(port.name, agent)
        return port.calls.channel_of(found[0], found[1].id) if found is not None else None

    def _left_over(self, pbx: str, agent: str) -> tuple[str, ConnectionView] | None:
        """A call in which the phone in the browser is shown as through."""
        for view in self._ports[pbx].calls.views():
            for part in view.connections:
                if (
                    part.agent == agent
                    and part.state in THROUGH
                    and self._browser_of(agent, pbx, part) is not None
                ):
                    return view.id, part
        return None

    async def _with_left_over(
        self, pbx: str, agent: str, then: Callable[[Act], Awaitable[None]], otherwise: str
    ) -> None:
        """Does this with the call in which the phone is shown as through, if there is one and it is still so."""
        found = self._left_over(pbx, agent)
        if found is None:
            return
        call, me = found
        try:
            async with self._act(call, agent) as act:
                if act.scene.me.id == me.id:
                    await then(act)
        except CommandError as error:
            log.warning(otherwise, code=error.code)

    async def _heard_of(self, port: Port, channel: str) -> str | None:
        """How many packets of sound have come from the phone; None if nobody knows."""
        with suppress(CommandError):
            told = await self._send(port, "Getvar", Channel=channel, Variable="CHANNEL(rtcp,rxcount)")
            return told.get("Value") or None
        return None

    async def _set_aside(self, act: Act, why: str) -> None:
        now, port = act.scene, act.port
        if now.phase is Phase.HELD_AT_PHONE:
            return
        if now.phase not in (Phase.TALKING, Phase.HELD):
            await self._end(act, now.me)
            return
        customer = self._channel(act, now.customer)
        self._mark(act, customer, partner=NOBODY, back=now.me.device, then="", ring=port.ring_seconds)
        phone = phone_number(now.me.device)
        seen = f"Custom:cti-line-{phone}" if on_a_line(now.me) else now.me.device
        act.marks.append((customer, "CTI_AWAY", seen))
        line = port.calls.lines.channel(act.agent) if on_a_line(now.me) else None
        where = {"Context": "cti-hold", "Exten": "away", "Priority": "1"}
        if line is None:
            await self._do(act, "Redirect", Channel=customer, **where)
            await self._end(act, now.me)
        else:
            await self._write(act)
            port.calls.lines.ending(act.agent, why)
            moved, _ = await asyncio.gather(
                self._send(port, "Redirect", Channel=customer, **where),
                self._send(port, "Hangup", Channel=line, Cause="16"),
                return_exceptions=True,
            )
            if isinstance(moved, BaseException):
                raise moved
        self._away[port.name, act.agent] = act.call
        log.info("the page of an agent is gone in a call: the caller waits for it", pbx=port.name)

    async def _again(self, act: Act) -> None:
        now, port = act.scene, act.port
        if now.me.state not in THROUGH:
            return
        known = frozenset(part.id for part in now.view.connections)
        if now.phase not in (Phase.TALKING, Phase.HELD, Phase.HELD_AT_PHONE):
            await self._end(act, now.me)
            return
        customer = self._channel(act, now.customer)
        self._mark(act, customer, partner=NOBODY, back=now.me.device, then="", ring=port.ring_seconds)
        await self._do(act, "Redirect", Channel=customer, Context="cti-return", Exten="s", Priority="1")
        await self._end(act, now.me)
        browser = self._in_browser(act)
        if browser is not None:
            await self._taken_at_once(port, act.call, act.agent, browser, known)

    def _waits_for(self, port: Port, agent: str) -> CallView | None:
        """The call whose other party waits alone until the agent's page is there again, or has begun to ring there."""
        call = self._away.get((port.name, agent))
        view = port.calls.view(call) if call is not None else None
        if (
            view is None
            or view.queued_since is not None
            or any(part.state in THROUGH and part.agent is not None for part in view.connections)
        ):
            self._away.pop((port.name, agent), None)
            return None
        return view

    async def _call_through(self, port: Port, agent: str, view: CallView) -> None:
        async with self._lock(view.id):
            self._away.pop((port.name, agent), None)
            waits = next((part for part in view.connections if part.state is HOLD), None)
            channel = port.calls.channel_of(view.id, waits.id) if waits is not None else None
            try:
                if channel is not None:  # else Asterisk has seen the phone itself, and it rings
                    where = {"Context": "cti-return", "Exten": "s", "Priority": "1"}
                    await self._send(port, "Redirect", Channel=channel, **where)
            except CommandError as error:
                log.warning("a call could not be taken up by the phone in the browser", code=error.code)
                return
            browser = self._browser
            if browser is not None and browser.has(agent, port.name):
                await self._taken_at_once(port, view.id, agent, browser, frozenset())

    async def _taken_at_once(
        self, port: Port, call: str, agent: str, browser: InBrowser, known: frozenset[str]
    ) -> None:
        """Lets the page answer once it rings there, at a connection that was not `known` before."""

        def ringing(view: CallView | None) -> str | None:
            if view is None:
                return "gone"
            again = scene(view, agent)
            fresh = (
                again is not None and again.me.id not in known and again.me.state is ConnectionState.ALERTING
            )
            return again.me.id if again is not None and fresh else None

        came = await self._find_out(port, call, ringing, RINGS)
        if came is None or came == "gone":
            return
        with suppress(CommandError):  # then it rings, as any call
            await browser.order(agent, port.name, "answer", call=call, connection=came)
            await self._until(port, call, lambda view: state_of(view, came) in THROUGH, PROOF)
