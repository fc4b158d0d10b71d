"""The rule set as the decision reads it: frozen, checked, every name in it resolved. Made by `routing.document` only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from routing.hours import Calendar, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a call goes that its queue cannot take: another queue, a place in the dialplan, a mailbox, or a sound and the
    end. Exactly one of `queue`, `place`, `voicemail`, `sounds` says it; sounds may come before any of the others."""

    queue: str | None = None
    place: str | None = None
    voicemail: str | None = None
    sounds: tuple[str, ...] = ()
    seconds: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ageing:
    """A waiting call's priority rises `by` every `every` seconds, up to `most`."""

    every: int
    by: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Whose skill is wanted: agents of level `best` to `worst` in the queue (their penalty: 0 knows most). Every
    `widen_every` seconds of waiting the next level is asked too; None: never."""

    best: int = 0
    worst: int = 0
    widen_every: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """What the caller hears before the queue."""

    sounds: tuple[str, ...] = ()
    place: bool = False
    wait: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefer:
    """The agent to be tried first, for `seconds`. `kind`: own (the customer's account manager) or last (who talked to
    them within `within_days`). `if_busy`: also wait for one who is on a call."""

    kind: str
    seconds: int
    within_days: int = 30
    if_busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """Who waits may be called back instead, in their turn, within `within` seconds: customers who are known, and callers
    from `countries`. Nobody else, since a caller can claim any number and would have us call it. `when_quiet`: not in their
    turn but when it is quiet, as other work (blending)."""

    within: int = 1800
    countries: frozenset[str] = frozenset()
    when_quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Blending:
    """Agents of `queues` may be offered work of these `kinds` when nobody waits there and `free_agents` of them have been
    free for `quiet_for` seconds, `at_most` of them at a time, while `calendar` is open; what is overdue also when it is not
    quiet, if `overdue`. `interrupted_by_calls`: kinds at which an agent stays ready for calls, and of which they may have
    `at_once` at a time. The priority of what waits rises by `ageing`. A call to a customer is
    tried `attempts` times, `again_after` seconds apart; `wrap_up`: seconds for what is to be done after it."""

    id: str
    queues: frozenset[str]
    kinds: tuple[str, ...]
    free_agents: int = 1
    quiet_for: int = 30
    at_most: int | None = None
    calendar: str | None = None
    overdue: bool = True
    interrupted_by_calls: frozenset[str] = frozenset()
    at_once: int = 1
    ageing: Ageing | None = None
    offer_seconds: int = 20
    attempts: int = 3
    again_after: int = 900
    wrap_up: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue of Asterisk and what is to be done when it cannot take a call. `limit`: so many may wait. `calendar`: when it
    takes consultations and escalations."""

    name: str
    seconds: int = 60
    limit: int | None = None
    full: Target | None = None
    timed_out: Target | None = None
    ageing: Ageing | None = None
    announce: Announce | None = None
    calendar: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """The second level of some queues or teams (None: of all). `to`: its queue; `seconds`: how long a call waits there;
    `otherwise`: the queue for those whom nobody has taken by then, None: the one they came from."""

    id: str
    to: str
    queues: frozenset[str] | None = None
    teams: frozenset[str] | None = None
    priority: int = 0
    seconds: int = 120
    note_required: bool = False
    otherwise: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpan:
    """Some hours of some weekdays (0 is Monday)."""

    days: frozenset[int]
    span: Span
    zone: ZoneInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerIs:
    """What the customer must be; None: whatever. All of what is given must hold, of each set one."""

    known: bool | None = None
    classification: frozenset[str] | None = None
    language: frozenset[str] | None = None
    country: frozenset[str] | None = None
    status: frozenset[str] | None = None
    open_items: frozenset[str] | None = None
    unpaid_invoice: bool | None = None
    overdue_invoice: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """The conditions of a rule: all that are given must hold."""

    entries: frozenset[str] | None = None
    dialed: tuple[str, ...] | None = None
    calendar_open: str | None = None
    calendar_closed: str | None = None
    times: tuple[TimeSpan, ...] | None = None
    customer: CustomerIs | None = None
    caller_country: frozenset[str] | None = None
    withheld: bool | None = None
    waiting_in: str | None = None
    waiting_more_than: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """What a rule sets; what an earlier rule has set stays."""

    queue: str | None = None
    priority: int | None = None
    levels: Levels | None = None
    prefer: tuple[Prefer, ...] | None = None
    announce: Announce | None = None
    seconds: int | None = None
    language: str | None = None
    open_always: bool | None = None
    target: Target | None = None
    callback: Callback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `last`: after it has matched, no further rule is looked at."""

    id: str
    name: str
    when: When
    then: Then
    last: bool = False
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A way in: numbers dialed (digits; a `*` at the end stands for any more), what becomes of calls to them."""

    id: str
    numbers: tuple[str, ...]
    queue: str
    calendar: str | None = None
    closed: Target | None = None
    language: str | None = None
    pbxs: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """Everything, by name. `version` 0 is the empty one: every call goes its default way."""

    version: int = 0
    entries: tuple[Entry, ...] = ()
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    direct_queue: str | None = None
    escalations: tuple[Escalation, ...] = ()
    blending: tuple[Blending, ...] = ()
