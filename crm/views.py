"""What the agent's screen is told about a customer and a call: shapes only, as they go over the wire."""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from cti.facts import Direction
from cti.frozen import Frozen


class AccountCard(Frozen, frozen=True, gc=False, kw_only=True):
    """A customer in short. `classification` is the house's own rating (A is best), `own_agent` the login of whoever looks
    after them, or ""."""

    id: int
    number: str
    name: str
    kind: str
    classification: str
    status: str
    language: str
    country: str
    timezone: str
    email: str
    city: str
    last_contact: datetime | None
    own_agent: str = ""


class ContactCard(Frozen, frozen=True, gc=False, kw_only=True):
    """A person at an account. `main`: the one to speak to when nobody else is named."""

    id: int
    name: str
    role: str
    main: bool
    email: str
    language: str


class InteractionCard(Frozen, frozen=True, gc=False, kw_only=True):
    """An earlier contact with the account; `note` is the newest note on it. `talked`: seconds."""

    id: int
    channel: str
    direction: str
    started: datetime
    ended: datetime | None
    queue: str | None
    agents: tuple[str, ...]
    talked: float
    outcome: str | None
    disposition: str | None
    note: str | None


class OpenItemCard(Frozen, frozen=True, gc=False, kw_only=True):
    """Something still open with the account. `kind`: ticket, order, callback, invoice, complaint. `amount` is exact
    decimal text in `currency`, or None."""

    id: int
    kind: str
    reference: str
    subject: str
    status: str
    due: date | None
    amount: str | None
    currency: str


class AlertCard(Frozen, frozen=True, gc=False, kw_only=True):
    """What whoever speaks to this customer has to know first. `severity`: info, warning, critical."""

    severity: str
    text: str


class Candidate(Frozen, frozen=True, gc=False, kw_only=True):
    """A customer who may be the caller, with all that a pop shows of them.

    `how`: chosen (by a person), account_number (given to the IVR), exact (this number is theirs), switchboard (the
    number begins like their company's). `contacts` are the account's people (at most 10, the main one first).
    """

    how: str
    account: AccountCard
    contact: ContactCard | None = None
    contacts: tuple[ContactCard, ...] = ()
    interactions: tuple[InteractionCard, ...] = ()
    open_items: tuple[OpenItemCard, ...] = ()
    alerts: tuple[AlertCard, ...] = ()


class PopView(Frozen, frozen=True, gc=False, kw_only=True):
    """A screen pop as its agent sees it.

    `id` is the same whenever this call is shown to this agent, also after a restart: show it once. `state`: offered
    (the phone is about to ring), talking, ended (the call is over, work on it is not). `lookup`: pending, complete,
    unavailable (the customer data cannot be read at present; a pop.updated follows). `kind` says what `number` is:
    identified, withheld, unknown, internal, alphanumeric, invalid. `candidates` are ranked, the first is the likeliest;
    `chosen_by` says who picked it if a person did. `waited`: seconds in queues when this was written; `waiting_since`
    while the wait goes on. `data` is what the IVR collected and clients attached.

    Names and `data` are text from outside: show them as text, never as markup.
    """

    id: str
    call: str
    pbx: str
    agent: str
    state: str
    direction: Direction
    number: str
    kind: str
    withheld: bool
    e164: str | None
    formatted: str | None
    country: str
    name: str | None
    dnis: str | None
    queue: str | None
    started: datetime
    waiting_since: datetime | None
    waited: float
    shown: datetime
    ended: datetime | None
    lookup: str
    how: str
    candidates: tuple[Candidate, ...]
    chosen_by: str | None
    consulted_by: str | None
    transferred_by: str | None
    url: str | None
    data: dict[str, str] = msgspec.field(default_factory=dict)


class CallBackView(Frozen, frozen=True, gc=False, kw_only=True):
    """A promise to call a customer back. `due` in UTC, `zone` the customer's. `agent`: who keeps it, None for any of
    `team`; `for_team`: the team may take it. `state`: open, taken (by `taken_by`, who calls), done, cancelled. `tries`: how
    often it was taken. `call`: the one in which it was promised."""

    id: int
    number: str
    name: str
    account: int | None
    due: datetime
    zone: str
    agent: str | None
    team: str | None
    for_team: bool
    note: str
    call: str
    created: datetime
    created_by: str
    state: str = "open"
    taken_by: str | None = None
    taken: datetime | None = None
    tries: int = 0
    reminded: datetime | None = None
    ended: datetime | None = None
    ended_by: str | None = None
    outcome: str | None = None
    version: int = 1
