"""Facts of the CRM side: screen pops shown, updated and withdrawn; calls identified; interactions noted and closed."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from crm.views import CallBackView, PopView
from cti.facts import Fact


class PopFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about one agent's screen pop: for that agent alone."""

    agent: str
    call: str
    pop: str


class PopShown(PopFact, frozen=True, gc=False, kw_only=True):
    """The call is offered to the agent (or dialled by them): this is who it is. Follows call.offered."""

    TYPE: ClassVar[str] = "pop.shown"
    view: PopView


class PopUpdated(PopFact, frozen=True, gc=False, kw_only=True):
    """More is known, or the call went on: `view` replaces the former one. Follows the look-up's answer and call facts."""

    TYPE: ClassVar[str] = "pop.updated"
    view: PopView


class PopWithdrawn(PopFact, frozen=True, gc=False, kw_only=True):
    """The pop is no longer this agent's. `reason`: answered_elsewhere, caller_gone, no_answer, rejected, busy,
    unreachable, transferred (before they took it), call_ended (the record is closed: wrap-up is over), replaced
    (by the next call's pop), dismissed, logged_off."""

    TYPE: ClassVar[str] = "pop.withdrawn"
    reason: str


class InteractionIdentified(Fact, frozen=True, gc=False, kw_only=True):
    """The customer of a call is settled: no other candidate, or a person chose. `how`: chosen, account_number, exact,
    switchboard. `by`: the login of who chose, or `lookup`."""

    TYPE: ClassVar[str] = "interaction.identified"
    call: str
    e164: str | None
    account_id: int | None
    contact_id: int | None
    how: str
    by: str


class InteractionNoted(Fact, frozen=True, gc=False, kw_only=True):
    """A note was written or changed on an interaction, and is committed. The text is read over REST."""

    TYPE: ClassVar[str] = "interaction.noted"
    call: str
    interaction: int
    account_id: int | None
    note: int
    version: int
    author: str


class InteractionClosed(Fact, frozen=True, gc=False, kw_only=True):
    """The record of a call is complete and committed. `at` is when the call ended. Outcomes: those of call.cleared."""

    TYPE: ClassVar[str] = "interaction.closed"
    call: str
    interaction: int
    account_id: int | None
    agents: tuple[str, ...]
    outcome: str
    started: datetime


FACTS: tuple[type[Fact], ...] = (
    PopShown,
    PopUpdated,
    PopWithdrawn,
    InteractionIdentified,
    InteractionNoted,
    InteractionClosed,
)
"""Every fact of this package that goes over the wire."""


class CallBackFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about a promise to call a customer back: for its agent and their supervisors, with `for_team` for all of the
    team."""

    call_back: int
    agent: str | None
    team: str | None
    for_team: bool


class CallBackPromised(CallBackFact, frozen=True, gc=False, kw_only=True):
    """A customer was promised a call at a time, and it is committed."""

    TYPE: ClassVar[str] = "call_back.promised"
    view: CallBackView


class CallBackDue(CallBackFact, frozen=True, gc=False, kw_only=True):
    """It is time. Told again, with `for_team`, when its agent is away: then any of the team may take it."""

    TYPE: ClassVar[str] = "call_back.due"
    view: CallBackView


class CallBackTaken(CallBackFact, frozen=True, gc=False, kw_only=True):
    """Somebody calls the customer: nobody else can take it."""

    TYPE: ClassVar[str] = "call_back.taken"
    by: str
    view: CallBackView


class CallBackReleased(CallBackFact, frozen=True, gc=False, kw_only=True):
    """Who had taken it gives it back, or their phone could not be reached."""

    TYPE: ClassVar[str] = "call_back.released"
    by: str
    view: CallBackView


class CallBackMoved(CallBackFact, frozen=True, gc=False, kw_only=True):
    """It is due at another time; it is open again."""

    TYPE: ClassVar[str] = "call_back.moved"
    by: str
    view: CallBackView


class CallBackHandedOver(CallBackFact, frozen=True, gc=False, kw_only=True):
    """Somebody else keeps it from now on; told to who kept it, and so without a view: they have it no longer."""

    TYPE: ClassVar[str] = "call_back.handed_over"
    by: str
    to_agent: str | None
    to_team: str | None


class CallBackReceived(CallBackFact, frozen=True, gc=False, kw_only=True):
    """A promise that somebody else made or kept is this agent's or team's now; it is open. Follows call_back.handed_over."""

    TYPE: ClassVar[str] = "call_back.received"
    by: str
    view: CallBackView


class CallBackDone(CallBackFact, frozen=True, gc=False, kw_only=True):
    """The promise is kept."""

    TYPE: ClassVar[str] = "call_back.done"
    by: str
    outcome: str


class CallBackCancelled(CallBackFact, frozen=True, gc=False, kw_only=True):
    """The promise is taken back. `reason` is text from whoever did."""

    TYPE: ClassVar[str] = "call_back.cancelled"
    by: str
    reason: str
