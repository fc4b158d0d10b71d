"""Wrap-up: what follows a queue's or a campaign's call. For how long, what the agent has to say of the call, and what comes
after. Pure.

A call is wrapped up by the rule of what gave it: a queue's id, or `of_campaign`, wherever `queue` is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cti.frozen import Frozen

LONGEST_EXTENSION = 600.0
"""Seconds by which one extension makes wrap-up longer at most."""


class Disposition(Frozen, frozen=True, gc=False, kw_only=True):
    """How a contact may have ended, in the house's own words. `category`, of a campaign's: conversion, contact, no_contact,
    do_not_call, call_back or finished; "" of a queue's."""

    code: str
    label: str
    category: str = ""


class WrapUp(Frozen, frozen=True, gc=False, kw_only=True):
    """What follows the calls of a queue (`queue` None: of every queue without a rule of its own).

    `mandatory`: wrap-up does not end before a disposition is given. No `dispositions`: any text is one. `extension`: seconds
    that an agent may add to one wrap-up in all; None: as often as they ask.
    """

    queue: str | None = None
    seconds: float = 30.0
    then_ready: bool = True
    mandatory: bool = False
    dispositions: tuple[Disposition, ...] = ()
    extension: float | None = None


def of_campaign(id: int) -> str:
    """What is written in a queue's place for a call of this campaign; no queue's id is like it."""
    return f"#{id}"


class WrapUps:
    """The rules of a house: a general one, those of queues that have their own, and those of campaigns, which change while
    they run: `campaign` (set later) says the one of an id, None for one that is gone."""

    def __init__(self, general: WrapUp, of_queues: Iterable[WrapUp] = ()) -> None:
        self._general = general
        self._of_queues = {rule.queue: rule for rule in of_queues}
        self.campaign: Callable[[int], WrapUp | None] = lambda id: None

    def all(self) -> tuple[WrapUp, ...]:
        """Every rule, the general one first."""
        return (self._general, *self._of_queues.values())

    def of(self, queue: str | None) -> WrapUp:
        """The rule for the calls of this queue, or of a campaign."""
        if queue is not None and queue.startswith("#"):
            return self.campaign(int(queue[1:])) or self._general
        return self._of_queues.get(queue, self._general)

    def choice(self, queues: Iterable[str | None]) -> tuple[Disposition, ...]:
        """What a call that went through these queues may have ended with; nothing when any text will do. Of a campaign's
        call the campaign says it alone."""
        through = list(queues)
        campaigns = [queue for queue in through if queue is not None and queue.startswith("#")]
        rules = [self.of(queue) for queue in campaigns or through]
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
    how they ended, each with its queue. `extended`: by how many seconds its agent has made it longer."""

    call: str
    queue: str
    until: datetime | None
    owed: dict[str, str] = field(default_factory=dict)
    extended: float = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing keeps the agent in it any more."""
        return self.until is None and not self.owed

    def extend(self, seconds: float, at: datetime) -> None:
        """Gives it more time, counted from now if its time is over."""
        self.until = (self.until or at) + timedelta(seconds=min(max(seconds, 0.0), LONGEST_EXTENSION))

    def extend_by_agent(self, rule: WrapUp, seconds: float, at: datetime) -> bool:
        """Gives it as much more as its agent may add by the rule; False if that is nothing."""
        if rule.extension is not None:
            seconds = min(seconds, rule.extension - self.extended)
            if seconds <= 0:
                return False
        self.extended += seconds
        self.extend(seconds, at)
        return True


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
