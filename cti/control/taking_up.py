"""A page that was the agent's phone and was loaded again in a call: the call goes on in the new one."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from cti.commands import CommandError
from cti.control.moves import Phase, scene, state_of
from cti.control.steps import NOBODY, PROOF, RINGS, Act, Steps
from cti.facts import CallView, ConnectionState, ConnectionView

log = structlog.get_logger(__name__)

SETTLE = 0.4
"""Seconds in which a call that has just been ended leaves the picture."""

THROUGH = (ConnectionState.CONNECTED, ConnectionState.HOLD)


class TakingUp(Steps):
    """Takes up the calls of a phone in the browser that knows nothing of them any more."""

    async def take_up(self, pbx: str, agent: str) -> None:
        """Whom the agent talked with or held comes back to the phone, which takes the call by itself; whoever has somebody
        else to talk with goes on without the agent. Nothing happens if there is no such call. Raises nothing."""
        port = self._ports.get(pbx)
        if port is None or not port.up() or self._left_over(pbx, agent) is None:
            return
        await asyncio.sleep(SETTLE)
        found = self._left_over(pbx, agent)
        if found is None:
            return
        call, me = found
        try:
            async with self._act(call, agent) as act:
                if act.scene.me.id == me.id and act.scene.me.state in THROUGH:
                    await self._again(act)
        except CommandError as error:
            log.warning("a call could not be taken up by the phone in the browser", code=error.code)

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

    async def _again(self, act: Act) -> None:
        now, port = act.scene, act.port
        known = {part.id for part in now.view.connections}
        if now.phase not in (Phase.TALKING, Phase.HELD, Phase.HELD_AT_PHONE):
            await self._end(act, now.me)
            return
        customer = self._channel(act, now.customer)
        self._mark(act, customer, partner=NOBODY, back=now.me.device, then="", ring=port.ring_seconds)
        await self._do(act, "Redirect", Channel=customer, Context="cti-return", Exten="s", Priority="1")
        await self._end(act, now.me)

        def ringing(view: CallView | None) -> str | None:
            if view is None:
                return "gone"
            again = scene(view, act.agent)
            fresh = (
                again is not None and again.me.id not in known and again.me.state is ConnectionState.ALERTING
            )
            return again.me.id if again is not None and fresh else None

        came = await self._find_out(port, act.call, ringing, RINGS)
        browser = self._in_browser(act)
        if came in (None, "gone") or browser is None:
            return
        assert came is not None
        with suppress(CommandError):  # then it rings, as any call
            await browser.order(act.agent, port.name, "answer", call=act.call, connection=came)
            await self._until(port, act.call, lambda view: state_of(view, came) in THROUGH, PROOF)
