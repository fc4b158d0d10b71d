"""Consultation: asking somebody while the other party is on hold."""

from __future__ import annotations

from cti.ami import AmiError
from cti.ami_events import fields_of
from cti.commands import CommandError
from cti.control.moves import CONNECTED, HOLD, QUEUED, NotPossible, Phase, state_of
from cti.control.ports import CallAnswer, both, command_error
from cti.control.second_level import require_takes
from cti.control.steps import NOBODY, RINGS, RINGS_OR_THROUGH, Act, Finder, Steps
from cti.control.targets import Target
from cti.facts import CallView

QUEUE_WAIT = 60
"""Seconds that an agent waits in a queue for somebody to ask."""


class Consulting(Steps):
    """Consult, alternate, complete, cancel."""

    async def consult(
        self, call: str, agent: str, find: Finder, *, wait: int = QUEUE_WAIT, priority: int = 0
    ) -> CallAnswer:
        """Asks somebody while the other party is on hold. If the target is not reached, the parties talk on. A queue is
        waited in for `wait` seconds at this priority; one that takes nobody is refused before anything changes."""
        async with self._act(call, agent, "consult") as act:
            target = await self._target(act, find)
            if target.queue:
                return await self._ask_queue(act, target, wait, priority)
            now, port = act.scene, act.port
            known = {c.id for c in now.view.connections}
            customer, mine = self._channel(act, now.customer), self._channel(act, now.me)
            self._mark(
                act,
                customer,
                partner=mine,
                back=now.me.device,
                then=target.exten,
                ring=port.ring_seconds,
            )
            self._mark(act, mine, partner=customer, ring=port.ring_seconds)
            self._mark(act, mine, caller_id=self._caller_id(act, target))
            asking = {"Context": "cti-consult", "Exten": target.exten, "Priority": "1"}
            if now.phase is Phase.TALKING:
                await self._do(
                    act,
                    "Redirect",
                    **both(customer, ("cti-hold", "music"), mine, ("cti-consult", target.exten)),
                )
            else:
                await self._do(act, "Redirect", Channel=mine, **asking)
            await self._is_asked(act, target, known)
            return self._answer(act)

    async def _ask_queue(self, act: Act, target: Target, wait: int, priority: int) -> CallAnswer:
        """The agent waits in the queue, the other party on hold. Whoever takes it from the queue is the one asked."""
        now, port = act.scene, act.port
        queue = f"{port.name}:{target.exten}"
        require_takes(queue, port.staff(queue, act.agent), self._rules)
        customer, mine = self._channel(act, now.customer), self._channel(act, now.me)
        then = f"queue/{target.exten}"
        self._mark(act, customer, partner=mine, back=now.me.device, then=then, ring=port.ring_seconds)
        self._mark(act, mine, partner=customer)
        act.marks += [(one, "CTI_SECOND_WAIT", str(wait)) for one in (customer, mine)]
        act.marks += [(one, "CTI_SECOND_PRIO", str(priority)) for one in (customer, mine)]
        # Kept by cti.control.places once the agent waits.
        act.marks.append((customer, "CTI_SECOND_PLACE", ""))
        there = ("cti-consult-queue", target.exten)
        if now.phase is Phase.TALKING:
            await self._do(act, "Redirect", **both(customer, ("cti-hold", "music"), mine, there))
        else:
            where = {"Context": there[0], "Exten": there[1], "Priority": "1"}
            await self._do(act, "Redirect", Channel=mine, **where)
        known = {c.id for c in now.view.connections}
        apart = now.phase is not Phase.TALKING

        def look(view: CallView | None) -> str | None:
            nonlocal apart
            me, other = state_of(view, now.me.id), state_of(view, now.customer.id)
            if other is None or view is None:
                return "gone"
            if me is None:
                return "left"
            apart = apart or other is HOLD
            asks = me is QUEUED or any(
                c.id not in known and c.state in RINGS_OR_THROUGH for c in view.connections
            )
            if apart and asks:
                return "waits"
            return "back" if apart and me is CONNECTED and other is CONNECTED else None

        came = await self._find_out(port, act.call, look, RINGS)
        _both_there(came)
        if came == "back":
            raise CommandError(
                "target_not_reached", f"{queue} takes nobody now; you talk with the caller again"
            )
        if came is None:
            await self._bring_back(act, act.scene.customer)
            raise CommandError(
                "target_not_reached", f"{queue} was not reached; you talk with the caller again"
            )
        return self._answer(act)

    async def _is_asked(self, act: Act, target: Target, known: set[str]) -> None:
        me, customer = act.scene.me.id, act.scene.customer.id
        tried: set[str] = set()

        def look(view: CallView | None) -> str | None:
            if state_of(view, customer) is None:
                return "gone"
            if state_of(view, me) is None or view is None:
                return "left"
            new = [c for c in view.connections if c.id not in known]
            tried.update(c.id for c in new)
            if any(c.state in RINGS_OR_THROUGH for c in new):
                return "rings"
            if (
                tried
                and not new
                and state_of(view, me) is CONNECTED
                and state_of(view, customer) is CONNECTED
            ):
                return "back"
            return None

        came = await self._find_out(act.port, act.call, look, RINGS)
        if came == "rings":
            return
        _both_there(came)
        if came == "back":
            raise CommandError(
                "target_not_reached", f"{target.exten} could not be reached; you talk with the caller again"
            )
        if not tried:
            await self._bring_back(act, act.scene.customer)
            raise CommandError(
                "target_not_reached", f"{target.exten} does not ring; you talk with the caller again"
            )

    async def alternate(self, call: str, agent: str) -> CallAnswer:
        """Changes between the two parties: who is talked with goes on hold, the other is talked with."""
        async with self._act(call, agent, "alternate") as act:
            now = act.scene
            talked, waiting = now.connected[0], now.held[0]
            await self._park_aside(act, talked)
            try:
                await self._bring_back(act, waiting, then=talked)
            except CommandError as error:
                await self._bring_back(act, talked)
                raise CommandError(
                    error.code, f"{error.message}; you talk with the same party as before"
                ) from None
            return self._answer(act)

    async def complete(self, call: str, agent: str) -> CallAnswer:
        """Brings the two parties together; the agent leaves. While the asked one still rings, the caller hears that."""
        async with self._act(call, agent, "complete") as act:
            now = act.scene
            customer, mine = self._channel(act, now.customer), self._channel(act, now.me)
            if now.me.state is QUEUED:
                await self._give_place(act, customer, mine)
                return self._answer(act)
            if now.phase is Phase.ASKING:
                await self._let_go(act, customer)
                return self._answer(act)
            asked = self._channel(act, now.consulted)
            self._mark(act, mine, partner=NOBODY)
            self._mark(act, asked, partner=NOBODY, back="", then="", queue="")
            self._mark(act, customer, partner=NOBODY, back="", then="")
            await self._bridge(act, customer, asked)
            both = now.customer.id, now.consulted.id
            await self._prove(
                act,
                lambda view: (
                    all(state_of(view, one) is CONNECTED for one in both)
                    and state_of(view, now.me.id) is None
                ),
                "the two do not talk yet",
            )
            return self._answer(act)

    async def _give_place(self, act: Act, customer: str, mine: str) -> None:
        """The agent leaves the queue in which they wait, and the caller has their place: comes in just before them, so that
        nobody gets between. A queue that is full takes the caller only once the agent is out."""
        now, port = act.scene, act.port
        then = await self._send(port, "Getvar", Channel=customer, Variable="CTI_THEN")
        queue = then.get("Value", "").removeprefix("queue/")
        try:
            rows = [fields_of(row) for row in await port.query("QueueStatus", {"Queue": queue})]
        except AmiError as error:
            raise command_error(port, "QueueStatus", error) from None
        place = next((row.get("Position", "") for row in rows if row.get("Uniqueid") == mine), None)
        if place is None:
            raise NotPossible(
                "wrong_state",
                f"somebody of {queue} has taken it just now: say it once more to leave them the caller",
            )
        params = next((row for row in rows if row.get("Event") == "QueueParams"), {})
        full = 0 < int(params.get("Max", "0")) <= int(params.get("Calls", "0"))
        act.marks.append((customer, "CTI_SECOND_PLACE", place))
        if full:
            await self._end(act, now.me)
            await self._prove(
                act, lambda view: state_of(view, now.me.id) is None, "your phone has not let go"
            )
        await self._do(act, "Redirect", Channel=customer, Context="cti-return", Exten="s", Priority="1")

        def in_place(view: CallView | None) -> bool:
            served = [c for c in view.connections if c.id not in (now.me.id, now.customer.id)] if view else []
            taken = state_of(view, now.customer.id) is CONNECTED and any(c.state is CONNECTED for c in served)
            return state_of(view, now.customer.id) is QUEUED or taken

        await self._prove(act, in_place, f"the caller does not wait in {queue}")
        await self._end(act, now.me)
        await self._prove(act, lambda view: state_of(view, now.me.id) is None, "your phone has not let go")

    async def _let_go(self, act: Act, customer: str) -> None:
        """The agent leaves while the asked one rings: [cti-return] calls that one again, now for the caller."""
        now = act.scene
        await self._end(act, now.me)
        asked = [c.id for c in now.called]
        await self._prove(
            act,
            lambda view: all(state_of(view, one) is None for one in (now.me.id, *asked)),
            "your phone has not let go",
        )
        await self._send(
            act.port, "Redirect", Channel=customer, Context="cti-return", Exten="s", Priority="1"
        )

        def look(view: CallView | None) -> bool:
            rest = [c for c in view.connections if c.id not in (now.me.id, now.customer.id)] if view else []
            waits = state_of(view, now.customer.id) is QUEUED
            return state_of(view, now.me.id) is None and (
                waits or any(c.state in RINGS_OR_THROUGH for c in rest)
            )

        if not await self._until(act.port, act.call, look, RINGS):
            raise CommandError("not_confirmed", f"the call has {self._seen(act.port, act.call)}")

    async def cancel(self, call: str, agent: str) -> CallAnswer:
        """Ends the consultation: whoever was asked leaves, the agent talks with the other party again."""
        async with self._act(call, agent, "cancel") as act:
            now = act.scene
            if now.me.state is QUEUED:
                return await self._leave_queue(act)
            asked = now.consulted
            if state_of(now.view, now.customer.id) is not CONNECTED:
                await self._bring_back(act, now.customer)
            await self._end(act, asked)
            await self._prove(
                act, lambda view: state_of(view, asked.id) is None, "whoever was asked is still there"
            )
            return self._answer(act)

    async def _leave_queue(self, act: Act) -> CallAnswer:
        """The agent waits no longer: back with the other party."""
        now = act.scene
        mine, called = self._channel(act, now.me), [c.id for c in now.called]
        await self._do(act, "Redirect", Channel=mine, Context="cti-consult-back", Exten="s", Priority="1")
        await self._prove(
            act,
            lambda view: (
                state_of(view, now.me.id) is CONNECTED
                and state_of(view, now.customer.id) is CONNECTED
                and all(state_of(view, one) is None for one in called)
            ),
            "you are not together",
        )
        self._mark(act, mine, partner=NOBODY)
        self._mark(act, self._channel(act, now.customer), partner=NOBODY, then="")
        await self._write(act)
        return self._answer(act)


def _both_there(came: str | None) -> None:
    """Raises CommandError where one of the two who talked has hung up: `gone` is the caller, `left` the agent."""
    if came == "gone":
        raise CommandError("caller_gone", "the caller hung up meanwhile")
    if came == "left":
        raise CommandError("not_confirmed", "your phone hung up meanwhile")
