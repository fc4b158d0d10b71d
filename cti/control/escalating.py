"""Escalation: a call goes on to the second level with all that is known of it, and the agent is free."""

from __future__ import annotations

from datetime import UTC, datetime

from cti.commands import CommandError
from cti.control.consulting import Consulting
from cti.control.moves import NotPossible, Phase
from cti.control.ports import CallAnswer
from cti.control.second_level import SecondLevel, require_takes
from cti.control.steps import NOBODY, Act
from cti.control.talking import Talking
from cti.control.targets import Target
from cti.second_level import CallEscalated


class Escalating(Talking, Consulting):
    """Escalate."""

    async def escalate(
        self, call: str, agent: str, *, reason: str, note: str = "", priority: int | None = None, by: str = ""
    ) -> CallAnswer:
        """Sends the other party to the second level of the call's queue or the agent's team. Nothing has changed when it
        raises before that; whom nobody takes there goes on as the rule says, with this server or without."""
        async with self._act(call, agent, "escalate") as act:
            now, port = act.scene, act.port
            to = self._rules.second_level(port.name, now.view.queue, agent)
            if to is None:
                raise NotPossible(
                    "no_second_level",
                    f"no rule says where calls of {now.view.queue or 'no queue'} are escalated to: transfer it, or"
                    " ask an administrator for an escalation rule",
                )
            if to.note_required and not note.strip():
                raise NotPossible("note_missing", f"{to.queue} wants a note: say what was done so far")
            target = port.targets.queue(to.queue)
            require_takes(to.queue, port.staff(to.queue, agent), self._rules)
            level = to.priority if priority is None else priority
            waited = port.calls.waited(call)
            context = _context(agent, now.view.queue, reason, note)
            before = {name: now.view.data.get(name, "") for name in context}
            self._set_data(call, context, agent)
            try:
                await self._hand_up(act, target, to, level)
            except (CommandError, NotPossible):
                if port.calls.view(call) is not None:
                    self._set_data(call, before, agent)
                raise
            view = port.calls.view(call)
            if view is not None:
                fact = CallEscalated(
                    at=datetime.now(UTC),
                    call=call,
                    agent=agent,
                    by=by or agent,
                    queue=to.queue,
                    from_queue=now.view.queue,
                    reason=reason,
                    note=note,
                    priority=level,
                    waited=round(waited, 3),
                    rule=to.rule,
                    view=view,
                )
                self._publish([fact])
            return self._answer(act)

    async def _hand_up(self, act: Act, target: Target, to: SecondLevel, priority: int) -> None:
        now = act.scene
        known = {c.id for c in now.view.connections}
        customer = self._channel(act, now.customer)
        former = (now.view.queue or "").partition(":")[2]
        last = to.otherwise or former
        back = "" if last else now.me.device  # who came from no queue comes back to the agent
        self._mark(act, customer, partner=NOBODY, back=back, then="", queue=last)
        act.marks += [
            (customer, "CTI_SECOND_PRIO", str(priority)),
            (customer, "CTI_SECOND_WAIT", str(to.seconds)),
            (customer, "CTI_SECOND_PLACE", ""),
        ]
        where = {"Context": "cti-second", "Exten": target.exten}
        if now.phase is Phase.TALKING:
            await self._do(act, "BlindTransfer", Channel=self._channel(act, now.me), **where)
        else:
            await self._do(act, "Redirect", Channel=customer, Priority="1", **where)
            self._handed_on(act, target)
            await self._end(act, now.me)
        await self._went_on(act, target, known, now.customer.id)


def _context(agent: str, queue: str | None, reason: str, note: str) -> dict[str, str]:
    """What whoever takes it reads; an entry of an earlier escalation gives way."""
    return {
        "EscalatedBy": agent,
        "EscalatedFrom": (queue or "").partition(":")[2],
        "EscalationReason": reason,
        "EscalationNote": note,
    }
