"""The rule set as people write it: a JSON document, checked as a whole before it becomes active.

Shapes are pydantic's business, names that must exist and numbers that must not be said twice are checked here; every
complaint says where it is and what is wrong. What has passed becomes a `routing.rules.RuleSet`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from routing import rules as r
from routing.hours import DAY_MINUTES, DAYS, Calendar, Holiday, Span, SpecialDay

MOST_COMPLAINTS = 50
WIDEN_STEPS = (5, 10, 15, 20, 30, 45, 60, 90, 120)
"""Seconds for which asterisk-config/include/queuerules_cti.conf has a rule."""


class WrongRules(Exception):
    """The rules cannot be used; nothing has changed. `complaints`: (where, what is wrong), each worth mending."""

    def __init__(self, complaints: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{where}: {what}" for where, what in complaints))
        self.complaints = complaints


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value} is not a time zone such as Europe/Berlin")
    return value


def _minutes(value: str) -> str:
    if _minute(value) > DAY_MINUTES:
        raise ValueError(f"{value} is not a time of day from 00:00 to 24:00")
    return value


def _holiday(value: str) -> str:
    if value.startswith("easter"):
        return value
    try:
        date.fromisoformat(value if len(value) > 5 else f"2024-{value}")
    except ValueError:
        raise ValueError(f"{value} is not a date: 2026-12-24, 12-25 for each year, or easter+1") from None
    return value


Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Name = Annotated[str, Field(max_length=120)]
QueueName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{1,39}$", description="a queue of the PBX")
]
Zone = Annotated[str, AfterValidator(_zone)]
Clock = Annotated[str, Field(pattern=r"^[0-2][0-9]:[0-5][0-9]$"), AfterValidator(_minutes)]
Begin = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
ChannelLanguage = Annotated[str, Field(pattern=r"^[a-z]{2,3}([_-][A-Za-z0-9]{2,8})?$")]
Pattern = Annotated[
    str, Field(pattern=r"^(\+?[0-9 ]{0,30}[0-9] ?\*?|\*)$", description="+44 20 7946*, 5550100, * for all")
]
Sound = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_/.-]{0,79}$", description="a sound of Asterisk")
]
Place = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,29}$", description="an extension of [cti-places]")]
Mailbox = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}@[A-Za-z0-9][A-Za-z0-9_-]{0,39}$",
        description="a mailbox of voicemail.conf with its context, 100@default",
    ),
]
Seconds = Annotated[int, Field(ge=1, le=3600)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Login = Annotated[str, Field(min_length=1, max_length=64)]
WorkKind = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_-]{1,29}$", description="callback, or what a module calls its own")
]
TeamName = Annotated[str, Field(min_length=1, max_length=120)]
HolidayOn = Annotated[
    str,
    Field(pattern=r"^(\d{4}-\d{2}-\d{2}|\d{2}-\d{2}|easter([+-]\d{1,2})?)$"),
    AfterValidator(_holiday),
]
DateText = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_holiday)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class TargetDoc(_Strict):
    """Where a call goes instead: to a queue, to a place of the dialplan's [cti-places], to a mailbox of its voicemail, or
    just sounds and the end. Sounds may come before any of the others; before a mailbox they replace its greeting.
    `seconds`: how long it waits in that queue."""

    queue: QueueName | None = None
    place: Place | None = None
    voicemail: Mailbox | None = None
    sounds: list[Sound] = Field(default_factory=list, max_length=8)
    seconds: Seconds = 60

    @model_validator(mode="after")
    def _one(self) -> TargetDoc:
        if sum(one is not None for one in (self.queue, self.place, self.voicemail)) > 1:
            raise ValueError("name a queue or a place or a voicemail, not several")
        if not (self.queue or self.place or self.voicemail or self.sounds):
            raise ValueError("name a queue, a place, a voicemail, or sounds")
        return self


class HoursDoc(_Strict):
    """Hours of some weekdays; `to` not after `from` is on the next day, 24:00 is midnight."""

    days: list[Weekday] = Field(min_length=1)
    from_: Begin = Field(alias="from")
    to: Clock


class HolidayDoc(_Strict):
    """A day off: a date, a day of each year (12-25), or days from western Easter Sunday (easter-2, easter, easter+1)."""

    on: HolidayOn
    name: Name


class SpecialDayDoc(_Strict):
    """A date with hours of its own; none: closed."""

    date: DateText
    name: Name = "special day"
    hours: list[tuple[Begin, Clock]] = Field(default_factory=list, max_length=8)


class CalendarDoc(_Strict):
    """Opening hours in a time zone. `holidays`: the country whose list in `holidays` closes it."""

    zone: Zone
    hours: list[HoursDoc] = Field(default_factory=list, max_length=50)
    holidays: Country | None = None
    days: list[SpecialDayDoc] = Field(default_factory=list, max_length=400)


class AgeingDoc(_Strict):
    """Priority rises `by` every `every` seconds of waiting, up to `most`."""

    every: int = Field(ge=5, le=3600)
    by: int = Field(default=1, ge=1, le=100)
    most: int = Field(default=100, ge=1, le=1000)


class AnnounceDoc(_Strict):
    """What is heard before the queue: sounds, the place in the queue, the wait to be expected."""

    sounds: list[Sound] = Field(default_factory=list, max_length=8)
    place: bool = False
    wait: bool = False


class QueueDoc(_Strict):
    """A queue: how long a call waits there, how many may wait, where it goes when full or when nobody has come."""

    seconds: Seconds = 60
    limit: int | None = Field(default=None, ge=0, le=10_000)
    full: TargetDoc | None = None
    timed_out: TargetDoc | None = None
    ageing: AgeingDoc | None = None
    announce: AnnounceDoc | None = None
    calendar: Id | None = Field(
        default=None, description="when it takes consultations and escalations; always if left out"
    )


class EscalationDoc(_Strict):
    """The second level of some queues or teams, of all if neither is given: calls go to the queue `to`, ahead of those of
    less `priority`, for `seconds`, then to the queue `otherwise`, or where they came from. The first that fits counts."""

    id: Id
    queues: list[QueueName] | None = Field(default=None, min_length=1, max_length=500)
    teams: list[TeamName] | None = Field(default=None, min_length=1, max_length=500)
    to: QueueName
    priority: int = Field(default=0, ge=0, le=1000)
    seconds: Annotated[int, Field(ge=5, le=3600)] = 120
    note: Literal["optional", "required"] = "optional"
    otherwise: QueueName | None = None


class BlendingDoc(_Strict):
    """Other work for agents of these queues when calls are few: nobody waits in them and at least `free_agents` have been
    free for `quiet_for` seconds. What is past its due time is offered to whoever is ready, unless `overdue` is false."""

    id: Id
    queues: list[QueueName] = Field(min_length=1, max_length=500)
    kinds: list[WorkKind] = Field(min_length=1, max_length=50)
    free_agents: int = Field(default=1, ge=1, le=10_000)
    quiet_for: int = Field(default=30, ge=0, le=3600, description="seconds")
    at_most: int | None = Field(
        default=None, ge=1, le=10_000, description="so many agents at other work at a time"
    )
    calendar: Id | None = Field(default=None, description="only while it is open; customers sleep at night")
    overdue: bool = True
    interrupted_by_calls: list[WorkKind] = Field(
        default_factory=list, max_length=50, description="of these kinds, e-mail say: the agent stays ready"
    )
    at_once: int = Field(
        default=1, ge=1, le=20, description="so many of those an agent may have at a time; of others one"
    )
    ageing: AgeingDoc | None = None
    offer_seconds: int = Field(default=20, ge=5, le=600)
    attempts: int = Field(default=3, ge=1, le=20, description="how often a customer is called")
    again_after: int = Field(default=900, ge=10, le=86_400, description="seconds between two attempts")
    wrap_up: int = Field(default=0, ge=0, le=600, description="seconds after a call to a customer")


class EntryDoc(_Strict):
    """Numbers dialed and their queue; with a `calendar`, where calls go while that is closed."""

    id: Id
    numbers: list[Pattern] = Field(min_length=1, max_length=1000)
    queue: QueueName
    calendar: Id | None = None
    closed: TargetDoc | None = None
    language: ChannelLanguage | None = None
    pbxs: list[Id] | None = None

    @model_validator(mode="after")
    def _pair(self) -> EntryDoc:
        if (self.calendar is None) != (self.closed is None):
            raise ValueError("calendar and closed go together: when it is open, and where calls go else")
        return self


class LevelsDoc(_Strict):
    """Agents of level `best` to `worst` of the queue (their penalty; 0 knows most). Every `widen_every` seconds of
    waiting the next level is asked too."""

    best: int = Field(default=0, ge=0, le=100)
    worst: int = Field(default=0, ge=0, le=100)
    widen_every: int | None = None

    @model_validator(mode="after")
    def _order(self) -> LevelsDoc:
        if self.worst < self.best:
            raise ValueError("worst must not be less than best (0 knows most)")
        if self.widen_every is not None and self.widen_every not in WIDEN_STEPS:
            raise ValueError(f"widen_every must be one of {', '.join(map(str, WIDEN_STEPS))}")
        return self


class PreferDoc(_Strict):
    """An agent tried first: the customer's `own`, or the `last` who talked to them within so many days. `if_busy`: wait
    the `seconds` for one who is on a call, too."""

    agent: Literal["own", "last"]
    seconds: int = Field(default=15, ge=1, le=600)
    within_days: int = Field(default=30, ge=1, le=3650)
    if_busy: bool = False


class CallbackDoc(_Strict):
    """A key in the queue hangs up and keeps the place: the caller is called when it is their turn, `within` seconds. For
    known customers, and callers from these countries."""

    within: int = Field(default=1800, ge=60, le=28_800)
    countries: list[Country] = Field(default_factory=list, max_length=250)
    when_quiet: bool = Field(
        default=False,
        description="not in their turn, but as work for agents when calls are few (blending), by then at the latest",
    )


class CustomerDoc(_Strict):
    """What the customer must be; of a list, one is enough. `has_open`: kinds of open items."""

    known: bool | None = None
    class_: list[Annotated[str, Field(min_length=1, max_length=8)]] | None = Field(
        default=None, alias="class"
    )
    language: list[Language] | None = None
    country: list[Country] | None = None
    status: list[Literal["prospect", "active", "blocked", "closed"]] | None = None
    has_open: list[Literal["ticket", "order", "callback", "invoice", "complaint"]] | None = None
    unpaid_invoice: bool | None = None
    overdue_invoice: bool | None = None


class TimeDoc(_Strict):
    """A time of some weekdays, in a zone."""

    days: list[Weekday] = Field(default_factory=lambda: list(DAYS), min_length=1)  # type: ignore[arg-type]
    from_: Begin = Field(alias="from")
    to: Clock
    zone: Zone


class WaitingDoc(_Strict):
    """More than so many wait in a queue."""

    queue: QueueName
    more_than: int = Field(ge=0, le=10_000)


class WhenDoc(_Strict):
    """Conditions; all that are given must hold."""

    entry: list[Id] | None = Field(default=None, min_length=1)
    dialed: list[Pattern] | None = Field(default=None, min_length=1)
    open: Id | None = None
    closed: Id | None = None
    time: list[TimeDoc] | None = Field(default=None, min_length=1, max_length=50)
    customer: CustomerDoc | None = None
    caller_country: list[Country] | None = None
    withheld: bool | None = None
    waiting: WaitingDoc | None = None


class ThenDoc(_Strict):
    """What is set where no earlier rule has set it. `target` sends the call elsewhere; `open_always`: at any hour."""

    queue: QueueName | None = None
    priority: int | None = Field(default=None, ge=0, le=1000)
    levels: LevelsDoc | None = None
    prefer: list[PreferDoc] | None = Field(default=None, max_length=4)
    announce: AnnounceDoc | None = None
    seconds: Seconds | None = None
    language: ChannelLanguage | None = None
    open_always: bool | None = None
    target: TargetDoc | None = None
    callback: CallbackDoc | None = None

    @model_validator(mode="after")
    def _something(self) -> ThenDoc:
        if not self.model_dump(exclude_none=True):
            raise ValueError("set something")
        if self.queue and self.target:
            raise ValueError("name a queue or a target, not both")
        return self


class RuleDoc(_Strict):
    """A rule. `last`: when it matches, those after it are not looked at."""

    id: Id
    name: Name = ""
    enabled: bool = True
    when: WhenDoc = Field(default_factory=WhenDoc)
    then: ThenDoc
    last: bool = False


class RulesDoc(_Strict):
    """All routing rules. `direct_queue`: the queue in which each agent has a penalty of their own, for own and last
    agents."""

    entries: list[EntryDoc] = Field(default_factory=list, max_length=1000)
    calendars: dict[Id, CalendarDoc] = Field(default_factory=dict, max_length=200)
    holidays: dict[Country, list[HolidayDoc]] = Field(default_factory=dict, max_length=200)
    queues: dict[QueueName, QueueDoc] = Field(default_factory=dict, max_length=500)
    rules: list[RuleDoc] = Field(default_factory=list, max_length=500)
    direct_queue: QueueName | None = None
    escalations: list[EscalationDoc] = Field(default_factory=list, max_length=200)
    blending: list[BlendingDoc] = Field(default_factory=list, max_length=200)


def read_document(written: Any) -> RulesDoc:
    """Checks the shape; raises WrongRules."""
    try:
        return RulesDoc.model_validate(written)
    except ValidationError as error:
        complaints = [
            (".".join(str(part) for part in e["loc"]) or "rules", e["msg"].removeprefix("Value error, "))
            for e in error.errors(include_input=False, include_url=False)
        ]
        raise WrongRules(complaints[:MOST_COMPLAINTS]) from None


def rule_set(doc: RulesDoc, version: int) -> r.RuleSet:
    """Makes the rule set, or raises WrongRules with everything that does not fit together."""
    complaints = list(_complaints(doc))
    if complaints:
        raise WrongRules(complaints[:MOST_COMPLAINTS])
    calendars = {id: _calendar(id, one, doc) for id, one in doc.calendars.items()}
    return r.RuleSet(
        version=version,
        entries=tuple(_entry(one) for one in doc.entries),
        calendars=calendars,
        queues={name: _queue(name, one) for name, one in doc.queues.items()},
        rules=tuple(_rule(one) for one in doc.rules),
        direct_queue=doc.direct_queue,
        escalations=tuple(_escalation(one) for one in doc.escalations),
        blending=tuple(_blending(one) for one in doc.blending),
    )


# ------------------------------------------------------------------------------------------------ what must fit


def _complaints(doc: RulesDoc) -> Iterator[tuple[str, str]]:
    yield from _twice("entries", [one.id for one in doc.entries])
    yield from _twice("rules", [one.id for one in doc.rules])
    whose: dict[tuple[str, str], str] = {}
    for n, entry in enumerate(doc.entries):
        where = f"entries.{n}"
        if entry.calendar is not None and entry.calendar not in doc.calendars:
            yield f"{where}.calendar", f"there is no calendar {entry.calendar}"
        for m, number in enumerate(entry.numbers):
            for pbx in entry.pbxs or ["*"]:
                other = whose.setdefault((_pattern(number), pbx), entry.id)
                if other != entry.id:
                    yield f"{where}.numbers.{m}", f"{number} belongs to entry {other} already"
    for id, calendar in doc.calendars.items():
        if calendar.holidays is not None and calendar.holidays not in doc.holidays:
            yield f"calendars.{id}.holidays", f"there is no list of holidays for {calendar.holidays}"
        dates = [day.date for day in calendar.days]
        yield from _twice(f"calendars.{id}.days", dates)
    entries = {entry.id for entry in doc.entries}
    for n, rule in enumerate(doc.rules):
        where = f"rules.{n}"
        for m, id in enumerate(rule.when.entry or ()):
            if id not in entries:
                yield f"{where}.when.entry.{m}", f"there is no entry {id}"
        for field in ("open", "closed"):
            id = getattr(rule.when, field)
            if id is not None and id not in doc.calendars:
                yield f"{where}.when.{field}", f"there is no calendar {id}"
        if rule.then.prefer and doc.direct_queue is None:
            yield (
                f"{where}.then.prefer",
                "name a direct_queue, in which each agent has a penalty of their own",
            )
    yield from _twice("blending", [one.id for one in doc.blending])
    for n, blend in enumerate(doc.blending):
        if blend.calendar is not None and blend.calendar not in doc.calendars:
            yield f"blending.{n}.calendar", f"there is no calendar {blend.calendar}"
        for m, kind in enumerate(blend.interrupted_by_calls):
            if kind not in blend.kinds:
                yield f"blending.{n}.interrupted_by_calls.{m}", f"{kind} is not one of its kinds"
    quiet = {kind for blend in doc.blending for kind in blend.kinds}
    for n, rule in enumerate(doc.rules):
        if rule.then.callback and rule.then.callback.when_quiet and "callback" not in quiet:
            yield (
                f"rules.{n}.then.callback.when_quiet",
                "no blending offers the kind callback: nobody would call",
            )
    yield from _twice("escalations", [one.id for one in doc.escalations])
    for n, escalation in enumerate(doc.escalations):
        if escalation.to in (escalation.queues or ()):
            yield f"escalations.{n}.to", "a queue cannot be its own second level"
        if escalation.otherwise == escalation.to:
            yield f"escalations.{n}.otherwise", "that is where nobody has come"
    for name, queue in doc.queues.items():
        if queue.calendar is not None and queue.calendar not in doc.calendars:
            yield f"queues.{name}.calendar", f"there is no calendar {queue.calendar}"
        for field in ("full", "timed_out"):
            target = getattr(queue, field)
            if target is not None and target.queue == name:
                yield f"queues.{name}.{field}.queue", "a queue cannot overflow into itself"


def _twice(where: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for n, name in enumerate(names):
        if name in seen:
            yield f"{where}.{n}", f"{name} is there already"
        seen.add(name)


# ------------------------------------------------------------------------------------------------ making


def _pattern(number: str) -> str:
    return re.sub(r"[^0-9*]", "", number)


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _span(start: str, end: str) -> Span:
    return Span(start=_minute(start), end=_minute(end))


def _calendar(id: str, doc: CalendarDoc, whole: RulesDoc) -> Calendar:
    week: list[list[Span]] = [[] for _ in DAYS]
    for hours in doc.hours:
        for day in hours.days:
            week[DAYS.index(day)].append(_span(hours.from_, hours.to))
    return Calendar(
        id=id,
        zone=ZoneInfo(doc.zone),
        week=tuple(tuple(day) for day in week),
        holidays=tuple(_day_off(one) for one in whole.holidays.get(doc.holidays or "", ())),
        days={
            date.fromisoformat(day.date): SpecialDay(
                name=day.name, hours=tuple(_span(start, end) for start, end in day.hours)
            )
            for day in doc.days
        },
    )


def _day_off(doc: HolidayDoc) -> Holiday:
    if doc.on.startswith("easter"):
        return Holiday(name=doc.name, easter=int(doc.on.removeprefix("easter") or 0))
    if len(doc.on) == 5:
        return Holiday(name=doc.name, month=int(doc.on[:2]), day=int(doc.on[3:]))
    return Holiday(name=doc.name, on=date.fromisoformat(doc.on))


def _target(doc: TargetDoc | None) -> r.Target | None:
    if doc is None:
        return None
    return r.Target(
        queue=doc.queue,
        place=doc.place,
        voicemail=doc.voicemail,
        sounds=tuple(doc.sounds),
        seconds=doc.seconds,
    )


def _announce(doc: AnnounceDoc | None) -> r.Announce | None:
    return r.Announce(sounds=tuple(doc.sounds), place=doc.place, wait=doc.wait) if doc else None


def _ageing(doc: AgeingDoc | None) -> r.Ageing | None:
    return r.Ageing(every=doc.every, by=doc.by, most=doc.most) if doc else None


def _queue(name: str, doc: QueueDoc) -> r.Queue:
    return r.Queue(
        name=name,
        seconds=doc.seconds,
        limit=doc.limit,
        full=_target(doc.full),
        timed_out=_target(doc.timed_out),
        ageing=_ageing(doc.ageing),
        announce=_announce(doc.announce),
        calendar=doc.calendar,
    )


def _escalation(doc: EscalationDoc) -> r.Escalation:
    return r.Escalation(
        id=doc.id,
        to=doc.to,
        queues=_set(doc.queues),
        teams=_set(doc.teams),
        priority=doc.priority,
        seconds=doc.seconds,
        note_required=doc.note == "required",
        otherwise=doc.otherwise,
    )


def _blending(doc: BlendingDoc) -> r.Blending:
    return r.Blending(
        id=doc.id,
        queues=frozenset(doc.queues),
        kinds=tuple(dict.fromkeys(doc.kinds)),
        free_agents=doc.free_agents,
        quiet_for=doc.quiet_for,
        at_most=doc.at_most,
        calendar=doc.calendar,
        overdue=doc.overdue,
        interrupted_by_calls=frozenset(doc.interrupted_by_calls),
        at_once=doc.at_once,
        ageing=_ageing(doc.ageing),
        offer_seconds=doc.offer_seconds,
        attempts=doc.attempts,
        again_after=doc.again_after,
        wrap_up=doc.wrap_up,
    )


def _entry(doc: EntryDoc) -> r.Entry:
    return r.Entry(
        id=doc.id,
        numbers=tuple(_pattern(number) for number in doc.numbers),
        queue=doc.queue,
        calendar=doc.calendar,
        closed=_target(doc.closed),
        language=doc.language,
        pbxs=_set(doc.pbxs),
    )


def _set(values: Iterable[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)


def _when(doc: WhenDoc) -> r.When:
    customer = doc.customer
    return r.When(
        entries=_set(doc.entry),
        dialed=None if doc.dialed is None else tuple(_pattern(number) for number in doc.dialed),
        calendar_open=doc.open,
        calendar_closed=doc.closed,
        times=None
        if doc.time is None
        else tuple(
            r.TimeSpan(
                days=frozenset(DAYS.index(day) for day in one.days),
                span=_span(one.from_, one.to),
                zone=ZoneInfo(one.zone),
            )
            for one in doc.time
        ),
        customer=None
        if customer is None
        else r.CustomerIs(
            known=customer.known,
            classification=_set(customer.class_),
            language=_set(customer.language),
            country=_set(customer.country),
            status=_set(customer.status),
            open_items=_set(customer.has_open),
            unpaid_invoice=customer.unpaid_invoice,
            overdue_invoice=customer.overdue_invoice,
        ),
        caller_country=_set(doc.caller_country),
        withheld=doc.withheld,
        waiting_in=doc.waiting.queue if doc.waiting else None,
        waiting_more_than=doc.waiting.more_than if doc.waiting else 0,
    )


def _rule(doc: RuleDoc) -> r.Rule:
    then = doc.then
    return r.Rule(
        id=doc.id,
        name=doc.name or doc.id,
        enabled=doc.enabled,
        last=doc.last,
        when=_when(doc.when),
        then=r.Then(
            queue=then.queue,
            priority=then.priority,
            levels=r.Levels(
                best=then.levels.best, worst=then.levels.worst, widen_every=then.levels.widen_every
            )
            if then.levels
            else None,
            prefer=None
            if then.prefer is None
            else tuple(
                r.Prefer(
                    kind=one.agent, seconds=one.seconds, within_days=one.within_days, if_busy=one.if_busy
                )
                for one in then.prefer
            ),
            announce=_announce(then.announce),
            seconds=then.seconds,
            language=then.language,
            open_always=then.open_always,
            target=_target(then.target),
            callback=r.Callback(
                within=then.callback.within,
                countries=frozenset(then.callback.countries),
                when_quiet=then.callback.when_quiet,
            )
            if then.callback
            else None,
        ),
    )
