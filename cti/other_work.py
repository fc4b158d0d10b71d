"""Other work than calls from queues: what is to be done, who does it, and who may be offered some now. Facts and views only;
`routing.desk` makes them true.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from cti.facts import Fact
from cti.frozen import Frozen


class WorkView(Frozen, frozen=True, gc=False, kw_only=True):
    """Something to be done. `skill`: the queue whose agents can do it, `level`: how well they must know it (their penalty
    there at most). Higher `priority` goes first, then what is `due` sooner. With a `number` it is a call to a customer.
    `state`: waiting (not before `not_before`), offered to `agent` (`until` then), accepted by them, done, cancelled, failed.
    `begun`: when somebody first accepted it; `worked`: seconds for which it was being done, but for the present ones.
    `interrupted_by_calls`: the agent stays ready meanwhile. `source` and `ref`: who brought it, and what they call it."""

    id: str
    kind: str
    skill: str
    title: str
    source: str
    ref: str
    created: datetime
    since: datetime
    state: str = "waiting"
    priority: int = 0
    level: int | None = None
    due: datetime | None = None
    number: str | None = None
    account: int | None = None
    data: dict[str, str]
    agent: str | None = None
    until: datetime | None = None
    attempts: int = 0
    not_before: datetime | None = None
    interrupted_by_calls: bool = False
    rule: str | None = None
    call: str | None = None
    outcome: str | None = None
    begun: datetime | None = None
    worked: float = 0.0


class BlendingView(Frozen, frozen=True, gc=False, kw_only=True):
    """Which kinds of work an agent may be offered now, and why these or none."""

    agent: str
    may: tuple[str, ...]
    why: str
    since: datetime


class WorkFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about something to be done, told to the agent it concerns (`agent`), their supervisors and those of its skill.
    `view` replaces the former one."""

    work: str
    agent: str | None
    view: WorkView


class WorkAdded(WorkFact, frozen=True, gc=False, kw_only=True):
    """It is to be done from now on."""

    TYPE: ClassVar[str] = "work.added"


class WorkOffered(WorkFact, frozen=True, gc=False, kw_only=True):
    """The agent is asked to do it: work.accept or work.decline, until `view.until`. `why`: why now."""

    TYPE: ClassVar[str] = "work.offered"
    why: str


class WorkAccepted(WorkFact, frozen=True, gc=False, kw_only=True):
    """The agent does it."""

    TYPE: ClassVar[str] = "work.accepted"


class WorkReturned(WorkFact, frozen=True, gc=False, kw_only=True):
    """It waits again, and is `agent`'s no longer. `reason`: declined, unanswered, calls_came_back, not_ready, given_back,
    not_reached, not_possible, logged_off, restarted."""

    TYPE: ClassVar[str] = "work.returned"
    reason: str


class WorkCompleted(WorkFact, frozen=True, gc=False, kw_only=True):
    """It is done, with this outcome in the words of who did it; `reached` when a call with the customer was all."""

    TYPE: ClassVar[str] = "work.completed"
    outcome: str


class WorkEnded(WorkFact, frozen=True, gc=False, kw_only=True):
    """It will not be done. `reason`: cancelled (by `by`), or failed: tried as often as the rule wants."""

    TYPE: ClassVar[str] = "work.ended"
    reason: str
    by: str


class BlendingChanged(Fact, frozen=True, gc=False, kw_only=True):
    """What an agent may be offered besides calls has changed. `may`: kinds of work, none while calls come first. `why` is
    null when no rule has anything to do with the agent any more."""

    TYPE: ClassVar[str] = "blending.changed"
    agent: str
    may: tuple[str, ...]
    why: str | None
