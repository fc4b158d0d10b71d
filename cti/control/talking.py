"""Holding, leaving and handing on a call."""

from __future__ import annotations

from cti.commands import CommandError
from cti.control.moves import CONNECTED, Phase, require, state_of
from cti.control.ports import CallAnswer
from cti.control.steps import NOBODY, PROOF, RINGS, RINGS_OR_THROUGH, Act, Finder, Steps
from cti.control.targets import Target
from cti.facts import CallView


class Talking(Steps):
    """Hold, retrieve, hang up, clear, blind transfer."""

    async def hold(self, call: str, agent: str) -> CallAnswer:
        """The other party hears music, the agent nothing."""
        async with self._act(call, agent, "hold") as act:
            await self._park_aside(act, act.scene.customer)
            return self._answer(act)

    async def retrieve(self, call: str, agent: str) -> CallAnswer:
        """The talk goes on."""
        async with self._act(call, agent) as act:
            now, browser = act.scene, self._in_browser(act)
            if now.phase is Phase.HELD_AT_PHONE and browser is not None:
                await self._order(act, browser, "retrieve")
                await self._prove(
                    act, lambda view: state_of(view, now.me.id) is CONNECTED, "the phone still holds it"
                )
                return self._answer(act)
            require("retrieve", now)
            await self._bring_back(act, now.customer)
            return self._answer(act)

    async def mute_microphone(self, call: str, agent: str, muted: bool) -> CallAnswer:
        """Whether the other party hears the agent, at the agent's phone in the browser. The switch knows nothing of it."""
        async with self._act(call, agent, "mute") as act:
            browser = self._in_browser(act)
            if browser is None:
                raise CommandError(
                    "not_in_browser", "the microphone can be muted from here for a phone in the browser only"
                )
            await self._order(act, browser, "mute" if muted else "unmute")
            return self._answer(act)

    async def clear_connection(self, call: str, agent: str) -> CallAnswer:
        """The agent leaves. Whom they hold alone goes too: nobody is left in the music."""
        async with self._act(call, agent) as act:
            now = act.scene
            if now.phase in (Phase.HELD, Phase.ASKING):
                for other in now.others:
                    await self._end(act, other)
            await self._end(act, now.me)
            await self._prove(
                act, lambda view: state_of(view, now.me.id) is None, "you are still in the call"
            )
            return self._answer(act)

    def known(self, call: str) -> None:
        """Raises CommandError if there is no such call, or its PBX cannot be reached."""
        self._find(call)

    def told(self, call: str, agent: str) -> CallAnswer:
        """The call as it stands, for an agent in it."""
        _, view = self._find(call)
        mine = any(c.agent == agent for c in view.connections)
        return CallAnswer(call=call, agent=agent if mine else None, view=view if mine else None)

    async def clear(self, call: str) -> CallAnswer:
        """Everybody leaves."""
        port, view = self._find(call)
        async with self._lock(call):
            for connection in view.connections:
                await self._hang_up(port, call, connection)
            gone = await self._until(port, call, lambda now: now is None, PROOF)
            if not gone:
                raise CommandError("not_confirmed", f"the call still has {self._seen(port, call)}")
            return CallAnswer(call=call, agent=None, view=None)

    async def transfer(self, call: str, agent: str, find: Finder) -> CallAnswer:
        """Hands the other party on; the agent leaves. Whoever is not taken comes back to the agent's phone."""
        async with self._act(call, agent, "transfer") as act:
            target = await self._target(act, find)
            now, port = act.scene, act.port
            known = {c.id for c in now.view.connections}
            customer = self._channel(act, now.customer)
            self._mark(
                act,
                customer,
                partner=NOBODY,
                back=now.me.device,
                then="",
                ring=port.ring_seconds,
            )
            where = "cti-queue" if target.queue else "cti-transfer"
            self._mark(act, customer, caller_id=self._caller_id(act, target))
            if now.phase is Phase.TALKING:
                mine = self._channel(act, now.me)
                await self._do(act, "BlindTransfer", Channel=mine, Context=where, Exten=target.exten)
            else:
                await self._do(
                    act, "Redirect", Channel=customer, Context=where, Exten=target.exten, Priority="1"
                )
                if target.queue:
                    self._handed_on(act, target)
                await self._end(act, now.me)
            await self._went_on(act, target, known, now.customer.id)
            return self._answer(act)

    async def _went_on(self, act: Act, target: Target, known: set[str], customer: str) -> None:
        """Waits until the target rings, or says what became of the caller instead."""
        me = act.scene.me.id
        queue = f"{act.port.name}:{target.exten}"
        tried: set[str] = set()

        def look(view: CallView | None) -> str | None:
            if view is None or state_of(view, customer) is None:
                return "gone"
            if state_of(view, me) is not None:
                return None
            new = [c for c in view.connections if c.id not in known]
            if target.queue:  # whoever is free may have answered before we looked
                return "rings" if view.queue == queue and (view.queued_since is not None or new) else None
            if tried and tried.isdisjoint(c.id for c in new):
                return "failed"
            tried.update(c.id for c in new)
            return "rings" if any(c.state in RINGS_OR_THROUGH for c in new) else None

        came = await self._find_out(act.port, act.call, look, RINGS)
        if came == "rings" or (came is None and tried):
            return
        if came == "gone":
            raise CommandError("caller_gone", "the caller hung up meanwhile")
        if came == "failed":
            why = f"{target.exten} did not take it: the caller comes back"
            raise CommandError("target_not_reached", why)
        raise CommandError(
            "not_confirmed", f"{target.exten} does not ring; the call has {self._seen(act.port, act.call)}"
        )
