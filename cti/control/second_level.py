"""What queues take, asked before a caller or an agent is sent to one; and where a call goes when the first level is at
its end. Shapes only: the rules are routing's, who is at work the switch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cti.control.moves import NotPossible
from cti.queues import Queues

UNREACHABLE = frozenset({"unavailable", "invalid"})
BACK_SOON = "Wrap-up"
"""The reason of a pause that ends by itself."""


@dataclass(frozen=True, slots=True)
class Staff:
    """Who is at work in a queue: `free` could be rung now, `busy` talk or wrap up; and how many callers wait."""

    free: int
    busy: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondLevel:
    """Where calls of a queue or team are escalated to. `queue`: its id; `seconds`: how long they wait there; `otherwise`:
    the queue, by its name, for those whom nobody has taken then, "" for the one they came from."""

    rule: str
    queue: str
    priority: int = 0
    seconds: int = 120
    note_required: bool = False
    otherwise: str = ""


class QueueRules(Protocol):
    """What the routing rules say of queues, by their ids."""

    def limit(self, queue: str) -> int | None:  # pragma: no cover - a protocol
        """How many may wait; None for any number."""
        ...

    def closed(self, queue: str) -> str:  # pragma: no cover - a protocol
        """Why it takes nobody at this hour; "" while it is open."""
        ...

    def second_level(
        self, pbx: str, queue: str | None, agent: str
    ) -> SecondLevel | None:  # pragma: no cover - a protocol
        """Where an agent escalates a call of this queue to."""
        ...


class NoRules:
    """Where there are no rules: any number may wait at any hour, and there is no second level."""

    def limit(self, queue: str) -> int | None:
        """Any number."""
        return None

    def closed(self, queue: str) -> str:
        """Always open."""
        return ""

    def second_level(self, pbx: str, queue: str | None, agent: str) -> SecondLevel | None:
        """Nowhere."""
        return None


def staff_of(queues: Queues) -> Callable[[str, str], Staff]:
    """Returns what tells who is at work in a queue, but for one agent."""

    def staff(queue: str, but: str) -> Staff:
        there = [
            m
            for m in queues.members(queue).values()
            if m.agent != but
            and m.status not in UNREACHABLE
            and (not m.paused or m.pause_reason == BACK_SOON)
        ]
        free = sum(m.status == "not_in_use" and not m.paused for m in there)
        return Staff(free, len(there) - free, queues.waiting(queue))

    return staff


def require_takes(queue: str, staff: Staff, rules: QueueRules) -> None:
    """Raises NotPossible if the queue is closed, full, or nobody is at work in it."""
    why = rules.closed(queue)
    if why:
        raise NotPossible("queue_closed", f"{queue} takes nobody now: {why}; promise to call back")
    if not staff.free + staff.busy:
        raise NotPossible(
            "nobody_there",
            f"nobody is at work in {queue} now: ask a colleague with call.consult, or promise to call back",
        )
    limit = rules.limit(queue)
    if limit is not None and staff.waiting >= limit:
        raise NotPossible(
            "queue_full", f"{staff.waiting} wait in {queue}, which takes {limit}: try again soon"
        )
