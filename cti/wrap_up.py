"""Wrap-up: what follows a queue call. For how long, what the agent has to say of the call, and what comes after. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cti.frozen import Frozen

LONGEST_EXTENSION = 600.0
"""Seconds by which one extension makes wrap-up longer at most."""


class Disposition(Frozen, frozen=True, gc=False, kw_only=True):
    """How a contact may have ended, in the house's own words."""

    code: str
    label: str


class WrapUp(Frozen, frozen=True, gc=False, kw_only=True):
    """What follows the calls of a queue (`queue` None: of every queue without a rule of its own).

    `mandatory`: wrap-up does not end before a disposition is given. No `dispositions`: any text is one.
    """

    queue: str | None = None
    seconds: float = 30.0
    then_ready: bool = True
    mandatory: bool = False
    dispositions: tuple[Disposition, ...] = ()


class WrapUps:
    """The rules of a house: a general one, and those of queues that have their own."""

    def __init__(self, general: WrapUp, of_queues: Iterable[WrapUp] = ()) -> None:
        self._general = general
        self._of_queues = {rule.queue: rule for rule in of_queues}

    def all(self) -> tuple[WrapUp, ...]:
        """Every rule, the general one first."""
        return (self._general, *self._of_queues.values())

    def of(self, queue: str | None) -> WrapUp:
        """The rule for the calls of this queue."""
        return self._of_queues.get(queue, self._general)

    def choice(self, queues: Iterable[str | None]) -> tuple[Disposition, ...]:
        """What a call that went through these queues may have ended with; nothing when any text will do."""
        rules = [self.of(queue) for queue in queues]
        if not all(rule.dispositions for rule in rules):
            return ()
        return tuple({d.code: d for rule in rules for d in rule.dispositions}.values())


@dataclass(slots=True)
class Worked:
    """A queue call that an agent works on or has worked on. `disposed`: they have said how it ended."""

    queue: str
    disposed: bool = False


@dataclass(slots=True)
class Wrapping:
    """A wrap-up under way. `until`: when its time is over, None when it is. `owed`: calls of which it must still be said
    how they ended, each with its queue."""

    call: str
    queue: str
    until: datetime | None
    owed: dict[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing keeps the agent in it any more."""
        return self.until is None and not self.owed

    def extend(self, seconds: float, at: datetime) -> None:
        """Gives it more time, counted from now if its time is over."""
        self.until = (self.until or at) + timedelta(seconds=min(max(seconds, 0.0), LONGEST_EXTENSION))


def begin(
    rules: WrapUps, worked: Mapping[str, Worked], at: datetime, before: Wrapping | None
) -> Wrapping | None:
    """The wrap-up that follows these calls, the last of them named in it; None when there is nothing to be done.

    What was owed `before`, in a wrap-up that the calls came into, is owed still.
    """
    owed = dict(before.owed) if before is not None else {}
    seconds = 0.0
    for call, work in worked.items():
        rule = rules.of(work.queue)
        seconds = max(seconds, rule.seconds)
        if rule.mandatory and not work.disposed:
            owed[call] = work.queue
    if not worked or (seconds <= 0 and not owed):
        return before
    call, work = list(worked.items())[-1]
    until = at + timedelta(seconds=seconds) if seconds > 0 else None
    return Wrapping(call, work.queue, until, owed)
