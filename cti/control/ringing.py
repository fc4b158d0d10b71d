"""Calls that are made, ring, are parked; and tones."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import uuid4

from cti.command_refusals import refusing
from cti.commands import CommandError
from cti.control.moves import CONNECTED, HOLD, NotPossible, Phase, scene, state_of
from cti.control.ports import CallAnswer, InBrowser, Port
from cti.control.steps import NOBODY, PROOF, RINGS, RINGS_OR_THROUGH, Act, Finder, on_a_line
from cti.control.talking import Talking
from cti.control.targets import Target, Targets
from cti.facts import CallView

AUTO_ANSWER = [
    "PJSIP_HEADER(add,Call-Info)=<sip:click-to-dial>;answer-after=0",
    "PJSIP_HEADER(add,Alert-Info)=<sip:click-to-dial>;info=alert-autoanswer;delay=0",
]
"""What makes phones take a call by themselves that their own agent has asked for; those that do not know it just ring."""

ORDERED = 10.0
"""Seconds that a phone in the browser is given, at most, to come back and to answer."""

TONE_GAP = 0.08
"""Seconds of silence between two tones."""

CALLING: frozenset[str] = frozenset({"initiated", "queued", "connected"})


class Ringing(Talking):
    """Make, answer, deflect, park, pick up, tones."""

    async def make(self, pbx: str, agent: str, find: Finder, shown: str = "") -> CallAnswer:
        """Calls the agent's own phone; once it is answered, the target. Answered when the phone rings or is up. `shown`: the
        number that the target sees; "": by the PBX's rules."""
        port = self._port(pbx)
        device = self._phone_of(pbx, agent)
        if device is None:
            raise CommandError("no_phone", f"{agent} has no phone on {pbx}: an administrator gives one")
        browser = self._browser if self._browser is not None and self._browser.has(agent, pbx) else None
        if browser is not None:
            await browser.ready(agent, pbx)
        async with self._lock(f"make {agent}"):
            busy = next(
                (view for view in port.calls.views() if any(c.agent == agent for c in view.connections)), None
            )
            if busy is not None:
                raise CommandError("wrong_state", "you are in a call: end it, or consult somebody in it")
            with refusing():
                target = await self._sought(port, find)
            id = f"cti-{uuid4().hex}"
            call = f"{pbx}:{id}"
            shown = shown or port.caller_id(agent, target.exten)
            variables = [f"__CTI_CALLERID={shown}"] if shown else []
            line = device.startswith("Local/")
            if port.auto_answer and not line:
                variables += AUTO_ANSWER
            where = "cti-queue" if target.queue else "cti-agent"
            await self._originate(
                port,
                {
                    "Channel": device,
                    "Context": where,
                    "Exten": target.exten,
                    "Priority": "1",
                    "CallerID": f"<{target.exten}>",
                    "Timeout": str(port.ring_seconds * 1000),
                    "ChannelId": id,
                    **({"OtherChannelId": f"other-{id}"} if line else {}),
                    "Variable": variables,
                },
            )
            seen: list[str] = []

            def look(view: CallView | None) -> str | None:
                mine = [c for c in view.connections if c.agent == agent] if view else []
                if mine:
                    seen.append(mine[0].state)
                    return "rings" if mine[0].state in RINGS_OR_THROUGH else None
                return "refused" if seen else None

            came = await self._find_out(port, call, look, RINGS)
            if came == "refused" or (came is None and not seen):
                raise CommandError(
                    "phone_not_reached",
                    "your own phone cannot be reached or is busy: look at it, then try again",
                )
            if came is None:
                with suppress(CommandError):
                    await self._send(port, "Hangup", Channel=id, Cause="16")
                raise CommandError("phone_not_reached", f"your own phone does not ring within {RINGS:g} s")
            if browser is not None:
                await self._take_at_once(browser, port, call, agent)
            return CallAnswer(call=call, agent=agent, view=port.calls.view(call))

    async def _take_at_once(self, browser: InBrowser, port: Port, call: str, agent: str) -> None:
        """Lets the agent's phone in the browser take a call that they have asked for; if it does not, it just rings."""
        now = scene(view, agent) if (view := port.calls.view(call)) is not None else None
        if now is not None and now.phase is Phase.RINGING and not on_a_line(now.me):
            with suppress(CommandError):
                await browser.order(agent, port.name, "answer", call=call, connection=now.me.id)

    async def dtmf(self, call: str, agent: str, digits: str) -> CallAnswer:
        """Sends tones to the other party, one after another."""
        async with self._act(call, agent, "send tones") as act:
            for other in act.scene.connected:
                channel = self._channel(act, other)
                for digit in digits:
                    await self._send(act.port, "PlayDTMF", Channel=channel, Digit=digit, Duration="100")
                    await asyncio.sleep(TONE_GAP)
            return self._answer(act)

    async def park(self, call: str, agent: str) -> CallAnswer:
        """The other party waits in a parking slot, the agent leaves; the slot is in the answer."""
        async with self._act(call, agent, "park") as act:
            now, port = act.scene, act.port
            channel = self._channel(act, now.customer)
            self._mark(act, channel, partner=NOBODY, back=now.me.device, then="", ring=port.ring_seconds)
            await self._do(act, "Park", Channel=channel)
            await self._prove(
                act,
                lambda view: (
                    view is not None and view.parked_at is not None and state_of(view, now.me.id) is None
                ),
                "it is not parked",
            )
            view = port.calls.view(call)
            return CallAnswer(call=call, agent=agent, view=None, slot=view.parked_at if view else None)

    async def pick_up(self, call: str, agent: str) -> CallAnswer:
        """Calls the agent's phone and brings it together with a parked call."""
        port, view = self._find(call)
        slot = view.parked_at
        if slot is None:
            raise CommandError("wrong_state", "this call is not parked: there is nobody to fetch")

        async def find(targets: Targets) -> Target:
            return await targets.number(slot)

        return await self.make(port.name, agent, find)

    async def deflect(self, call: str, agent: str, find: Finder) -> CallAnswer:
        """Sends a call that rings at the agent's phone elsewhere, unanswered."""
        async with self._act(call, agent, "deflect") as act:
            target = await self._target(act, find)
            now, port = act.scene, act.port
            caller = next((c for c in now.others if c.state in CALLING), None)
            if caller is None:
                raise NotPossible("caller_gone", "the caller has hung up meanwhile")
            channel = self._channel(act, caller)
            known = {c.id for c in now.view.connections}
            self._mark(act, channel, partner=NOBODY, back="", then="", ring=port.ring_seconds)
            self._mark(act, channel, caller_id=self._caller_id(act, target))
            where = "cti-queue" if target.queue else "cti-transfer"
            await self._do(act, "Redirect", Channel=channel, Context=where, Exten=target.exten, Priority="1")
            await self._went_on(act, target, known, caller.id)
            return self._answer(act)

    async def answer(self, call: str, agent: str) -> CallAnswer:
        """Makes the ringing phone answer: one in the browser by an order, another if it honours `Event: talk`."""
        async with self._act(call, agent, "answer") as act:
            if (browser := self._in_browser(act)) is not None:
                await self._answered_in_browser(act, browser)
                return self._answer(act)
            channel = self._channel(act, act.scene.me)
            await self._send(act.port, "PJSIPNotify", Channel=channel, Variable="Event=talk")
            me = act.scene.me.id
            if not await self._until(
                act.port,
                call,
                lambda view: state_of(view, me) is CONNECTED or state_of(view, me) is None,
                PROOF,
            ):
                why = "your phone was asked to answer and still rings: it does not honour this, answer at the phone"
                raise CommandError("phone_did_not_answer", why)
            if state_of(act.port.calls.view(call), me) is None:
                raise CommandError("caller_gone", "it has stopped ringing meanwhile")
            return self._answer(act)

    async def _answered_in_browser(self, act: Act, browser: InBrowser) -> None:
        """Answered when the switch shows it, or when it rings no more, whatever the page says of its own."""
        me = act.scene.me.id
        ordered = asyncio.create_task(self._order(act, browser, "answer"))
        through = asyncio.create_task(
            self._until(
                act.port,
                act.call,
                lambda view: state_of(view, me) in (CONNECTED, HOLD, None),
                ORDERED + PROOF,
            )
        )
        try:
            await asyncio.wait((ordered, through), return_when=asyncio.FIRST_COMPLETED)
            if not through.done():
                await ordered
                await asyncio.wait((through,), timeout=PROOF)
            seen = through.done() and through.result()
        finally:
            for task in (ordered, through):
                task.cancel()
            await asyncio.gather(ordered, through, return_exceptions=True)
        if not seen:
            raise CommandError("not_confirmed", f"the call has {self._seen(act.port, act.call)}")
        if state_of(act.port.calls.view(act.call), me) is None:
            raise CommandError("caller_gone", "it has stopped ringing meanwhile")
