"""Second level: the fact that a call was escalated. `cti.control.escalating` makes it true."""

from __future__ import annotations

from typing import ClassVar

from cti.facts import CallFact, CallView


class CallEscalated(CallFact, frozen=True, gc=False, kw_only=True):
    """An agent has handed the call up to the second level, and is out of it. `queue`: where it waits now, `from_queue`:
    where it came from. `by`: who gave the order. `waited`: seconds in queues before. `rule`: the id of the rule that said
    where to. `reason`, `note`: what the agent wrote, plain text. Follows call.transferred."""

    TYPE: ClassVar[str] = "call.escalated"
    agent: str
    by: str
    queue: str
    from_queue: str | None
    reason: str
    note: str
    priority: int
    waited: float
    rule: str
    view: CallView
