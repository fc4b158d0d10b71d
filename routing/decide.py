"""Who should take the call: rules, the call, the customer and the floor in; a decision with its reasons out. Pure.

The order, each step said in the explanation: the number dialed finds the entry; the rules are read from top to bottom,
each that matches sets what none before it has set; the entry and the queue fill in the rest; a closed entry sends the call
to its `closed` target; a full queue sends it on; the preferred agent is looked for last, when the queue is known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from routing.callback import may_be_called
from routing.hours import Opening, opening, spans, within
from routing.rules import (
    Ageing,
    Announce,
    CustomerIs,
    Entry,
    Levels,
    Prefer,
    Queue,
    Rule,
    RuleSet,
    Target,
    Then,
    When,
)

MOST_HOPS = 8
"""Full queues passed on from one to the next; the circle of two full ones ends here at the latest."""

HIGHEST_PRIORITY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """A call at its entry. `dialed`, `ani`: as received; `e164`, `country`: the caller's, "" if unknown."""

    dialed: str
    ani: str = ""
    e164: str = ""
    pbx: str = "main"
    country: str = ""
    withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """What routing needs to know of a customer. `last_agents`: who talked to them and when, the newest first.
    `open_items`: kinds of what is open (ticket, order, callback, invoice, complaint)."""

    account: int
    classification: str = ""
    language: str = ""
    country: str = ""
    status: str = ""
    open_items: frozenset[str] = frozenset()
    overdue_invoice: bool = False
    own_agent: str | None = None
    last_agents: tuple[tuple[str, datetime], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentNow:
    """An agent at this moment. `number`: their place in the direct queue, None if they have none of their own."""

    ready: bool
    busy: bool = False
    number: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The floor of one PBX, asked when needed. `exists`: whether it has this queue; `wait`: seconds that callers have
    waited there of late, None if unknown; `agent(login, direct queue)`: None for nobody of that name."""

    exists: Callable[[str], bool] = lambda queue: True
    waiting: Callable[[str], int] = lambda queue: 0
    wait: Callable[[str], float | None] = lambda queue: None
    agent: Callable[[str, str], AgentNow | None] = lambda login, direct_queue: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferred:
    """The agent tried first: `number` is theirs in the direct queue."""

    agent: str
    queue: str
    number: int
    seconds: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A line of the explanation. `what`: entry, customer, rule, callback, hours, queue, agent."""

    what: str
    id: str
    matched: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where the call goes. `action`: queue, place, voicemail, sounds (then the end), or default: the dialplan's own way.

    `place_in_queue`, `wait_minutes`: told to the caller when not None. `rules`: those that matched, in order.
    `overflow`: where it goes when nobody has taken it after `seconds`. `callback`: the number to be called back if the
    caller asks for it, within `callback_within` seconds; `callback_when_quiet`: as other work, not in their turn.
    """

    action: str
    rules: tuple[str, ...] = ()
    version: int = 0
    entry: str = ""
    queue: str = ""
    priority: int = 0
    levels: Levels | None = None
    seconds: int = 60
    preferred: Preferred | None = None
    sounds: tuple[str, ...] = ()
    place_in_queue: int | None = None
    wait_minutes: int | None = None
    language: str = ""
    place: str = ""
    voicemail: str = ""
    overflow: Target | None = None
    ageing: Ageing | None = None
    callback: str = ""
    callback_within: int = 0
    callback_when_quiet: bool = False
    closed: bool = False
    explanation: tuple[Step, ...] = ()


@dataclass(slots=True)
class _Trail:
    steps: list[Step] = field(default_factory=list)

    def say(self, what: str, id: str, matched: bool, why: str) -> None:
        self.steps.append(Step(what=what, id=id, matched=matched, why=why))


@dataclass(slots=True)
class _Wish:
    """What the rules have set so far."""

    then: dict[str, object] = field(default_factory=dict)
    rules: list[str] = field(default_factory=list)

    def take(self, rule: Rule) -> list[str]:
        self.rules.append(rule.id)
        taken = []
        for name in Then.__dataclass_fields__:
            value = getattr(rule.then, name)
            if value is not None and name not in self.then:
                self.then[name] = value
                taken.append(name)
        return taken

    def settled(self) -> Then:
        return Then(**self.then)  # type: ignore[arg-type]  # these are Then's own values


def decide(
    rules: RuleSet, call: CallFacts, customer: Customer | None, now: datetime, floor: Floor
) -> Decision:
    """Decides. Always gives a decision: with nothing to go by, the dialplan's default way."""
    trail = _Trail()
    entry = find_entry(rules, call)
    if entry is None:
        trail.say("entry", "", False, "no entry has the number dialed: the dialplan's own way")
        return Decision(action="default", version=rules.version, explanation=tuple(trail.steps))
    trail.say("entry", entry.id, True, f"the number dialed belongs to entry {entry.id}, queue {entry.queue}")
    trail.say("customer", "", customer is not None, _known(customer))
    wish = _Wish()
    hours = functools.cache(lambda id: opening(rules.calendars[id], now, look_ahead=False))
    for rule in rules.rules:
        if not rule.enabled:
            trail.say("rule", rule.id, False, "switched off")
            continue
        why_not = next(_misfits(rule.when, hours, entry, call, customer, now, floor), None)
        if why_not is not None:
            trail.say("rule", rule.id, False, why_not)
            continue
        taken = wish.take(rule)
        trail.say("rule", rule.id, True, f"sets {', '.join(taken)}" if taken else "sets nothing new")
        if rule.last:
            break
    return _settle(rules, entry, wish, call, customer, now, floor, trail)


def find_entry(rules: RuleSet, call: CallFacts) -> Entry | None:
    """The entry of the number dialed: the exact number before patterns, of these the longest."""
    dialed = digits(call.dialed)
    best: tuple[int, Entry] | None = None
    for entry in rules.entries:
        if entry.pbxs is not None and call.pbx not in entry.pbxs:
            continue
        for number in entry.numbers:
            fit = how_exact(number, dialed)
            if fit and (best is None or fit > best[0]):
                best = (fit, entry)
    return best[1] if best else None


def how_exact(pattern: str, dialed: str) -> int:
    """How well a number of an entry fits what was dialed; 0: not at all."""
    if pattern.endswith("*"):
        return len(pattern) if dialed.startswith(pattern[:-1]) else 0
    return 1000 if pattern == dialed else 0


def digits(number: str) -> str:
    """The digits of a number as dialed, without + and anything else."""
    return "".join(c for c in number if c in "0123456789")


# ------------------------------------------------------------------------------------------------ conditions


def _misfits(
    when: When,
    hours: Callable[[str], Opening],
    entry: Entry,
    call: CallFacts,
    customer: Customer | None,
    now: datetime,
    floor: Floor,
) -> Iterator[str]:
    """The conditions that do not hold, in words; the first one is enough to know."""
    if when.entries is not None and entry.id not in when.entries:
        yield f"the entry is {entry.id}, not {_either(when.entries)}"
    if when.dialed is not None and not any(how_exact(n, digits(call.dialed)) for n in when.dialed):
        yield f"the number dialed is not {_either(when.dialed)}"
    if when.calendar_open is not None:
        state = hours(when.calendar_open)
        if not state.open:
            yield state.why
    if when.calendar_closed is not None:
        state = hours(when.calendar_closed)
        if state.open:
            yield state.why
    if when.times is not None and not any(within(t.days, t.span, t.zone, now) for t in when.times):
        told = ", ".join(f"{next(spans((t.span,)))} {t.zone.key}" for t in when.times)
        yield f"it is not the time ({told})"
    if when.withheld is not None and call.withheld is not when.withheld:
        yield "the caller's number is withheld" if call.withheld else "the caller's number is not withheld"
    if when.caller_country is not None and call.country not in when.caller_country:
        yield f"the caller's country is {call.country or 'unknown'}, not {_either(when.caller_country)}"
    if when.waiting_in is not None and (n := floor.waiting(when.waiting_in)) <= when.waiting_more_than:
        yield f"{n} wait in {when.waiting_in}, not more than {when.waiting_more_than}"
    if when.customer is not None:
        yield from _customer_misfits(when.customer, customer)


def _customer_misfits(wanted: CustomerIs, customer: Customer | None) -> Iterator[str]:
    if wanted.known is not None and (customer is not None) is not wanted.known:
        yield "the customer is known" if customer is not None else "the customer is not known"
    if customer is None:
        if wanted != CustomerIs(known=wanted.known):
            yield "the customer is not known"
        return
    for what, allowed, value in (
        ("class", wanted.classification, customer.classification),
        ("language", wanted.language, customer.language.partition("-")[0].lower()),
        ("country", wanted.country, customer.country),
        ("status", wanted.status, customer.status),
    ):
        if allowed is not None and value not in allowed:
            yield f"the customer's {what} is {value or 'unknown'}, not {_either(allowed)}"
    if wanted.open_items is not None and not wanted.open_items & customer.open_items:
        yield f"the customer has no open {_either(wanted.open_items)}"
    for name, asked, holds in (
        ("an unpaid invoice", wanted.unpaid_invoice, "invoice" in customer.open_items),
        ("an overdue invoice", wanted.overdue_invoice, customer.overdue_invoice),
    ):
        if asked is not None and asked is not holds:
            yield f"the customer has {name}" if holds else f"the customer has not {name}"


def _either(values: tuple[str, ...] | frozenset[str]) -> str:
    return " or ".join(sorted(values)) or "anything"


def _known(customer: Customer | None) -> str:
    if customer is None:
        return "the customer is not known"
    return f"account {customer.account}, class {customer.classification}, language {customer.language or 'unknown'}"


# ------------------------------------------------------------------------------------------------ settling


def _settle(
    rules: RuleSet,
    entry: Entry,
    wish: _Wish,
    call: CallFacts,
    customer: Customer | None,
    now: datetime,
    floor: Floor,
    trail: _Trail,
) -> Decision:
    then = wish.settled()
    base = Decision(
        action="default",
        version=rules.version,
        entry=entry.id,
        rules=tuple(wish.rules),
        language=then.language or entry.language or "",
        callback=_callback(then, call, customer, trail),
        callback_within=then.callback.within if then.callback else 0,
        callback_when_quiet=bool(then.callback and then.callback.when_quiet),
    )
    if entry.calendar is not None and not then.open_always:
        state = opening(rules.calendars[entry.calendar], now)
        trail.say("hours", entry.calendar, state.open, state.why)
        if not state.open and entry.closed is not None:
            return _sent_on(base, entry.closed, rules, then, customer, now, floor, trail, closed=True)
    elif entry.calendar is not None:
        trail.say("hours", entry.calendar, True, "a rule takes this call at any hour")
    if then.target is not None:
        return _sent_on(base, then.target, rules, then, customer, now, floor, trail)
    return _into_queue(base, then.queue or entry.queue, (), rules, then, customer, now, floor, trail)


def _callback(then: Then, call: CallFacts, customer: Customer | None, trail: _Trail) -> str:
    if then.callback is None:
        return ""
    if not call.e164 or call.withheld:
        why_not = "the caller's number is not known"
    elif not may_be_called(call.e164):
        why_not = "the caller's number is of a kind that is not called"
    elif customer is None and call.country not in then.callback.countries:
        why_not = "the caller is no known customer, nor from a country that is called back"
    else:
        trail.say("callback", "", True, "the caller may ask to be called back")
        return call.e164
    trail.say("callback", "", False, why_not)
    return ""


def _sent_on(
    base: Decision,
    target: Target,
    rules: RuleSet,
    then: Then,
    customer: Customer | None,
    now: datetime,
    floor: Floor,
    trail: _Trail,
    *,
    closed: bool = False,
    passed: tuple[str, ...] = (),
) -> Decision:
    if target.queue is not None:
        decision = _into_queue(
            base, target.queue, target.sounds, rules, then, customer, now, floor, trail, passed=passed
        )
        return _with(decision, closed=closed)
    action = (
        "place" if target.place is not None else "voicemail" if target.voicemail is not None else "sounds"
    )
    return _with(
        base,
        action=action,
        place=target.place or "",
        voicemail=target.voicemail or "",
        sounds=target.sounds,
        closed=closed,
        explanation=tuple(trail.steps),
    )


def _into_queue(
    base: Decision,
    name: str,
    sounds: tuple[str, ...],
    rules: RuleSet,
    then: Then,
    customer: Customer | None,
    now: datetime,
    floor: Floor,
    trail: _Trail,
    *,
    passed: tuple[str, ...] = (),
) -> Decision:
    if not floor.exists(name):
        trail.say("queue", name, False, f"the PBX has no queue {name}: the dialplan's own way")
        return _with(base, explanation=tuple(trail.steps))
    queue = rules.queues.get(name) or Queue(name=name)
    waiting = floor.waiting(name)
    if queue.limit is not None and waiting >= queue.limit:
        trail.say("queue", name, False, f"{waiting} wait in {name}, which takes {queue.limit}: it is full")
        if queue.full is not None and len(passed) < MOST_HOPS and queue.full.queue not in (*passed, name):
            return _sent_on(
                base, queue.full, rules, then, customer, now, floor, trail, passed=(*passed, name)
            )
        trail.say("queue", name, True, "nowhere else to go: it is taken all the same")
    else:
        trail.say("queue", name, True, f"{waiting} wait in {name}")
    announce = then.announce or queue.announce or Announce()
    wait = floor.wait(name) if announce.wait else None
    overflow = queue.timed_out
    if overflow is not None and overflow.queue is not None and not floor.exists(overflow.queue):
        trail.say("queue", overflow.queue, False, f"the PBX has no queue {overflow.queue} to overflow to")
        overflow = None
    return _with(
        base,
        action="queue",
        queue=name,
        priority=max(0, min(then.priority or 0, HIGHEST_PRIORITY)),
        levels=then.levels,
        seconds=then.seconds or queue.seconds,
        preferred=_preferred(rules, then, customer, now, floor, trail),
        sounds=(*sounds, *announce.sounds),
        place_in_queue=waiting + 1 if announce.place else None,
        wait_minutes=None if wait is None else max(0, round(wait / 60)),
        overflow=overflow,
        ageing=queue.ageing,
        explanation=tuple(trail.steps),
    )


def _preferred(
    rules: RuleSet, then: Then, customer: Customer | None, now: datetime, floor: Floor, trail: _Trail
) -> Preferred | None:
    if not then.prefer or customer is None:
        return None
    if rules.direct_queue is None or not floor.exists(rules.direct_queue):
        trail.say("agent", "", False, "the PBX has no direct queue, by which one agent can be called")
        return None
    for prefer in then.prefer:
        login = _named(prefer, customer, now)
        if login is None:
            trail.say("agent", prefer.kind, False, f"the customer has no {prefer.kind} agent")
            continue
        agent = floor.agent(login, rules.direct_queue)
        if agent is None or agent.number is None:
            why = (
                "is not here any more" if agent is None else "has no number of their own in the direct queue"
            )
            trail.say("agent", login, False, f"the {prefer.kind} agent {why}")
        elif agent.ready or (agent.busy and prefer.if_busy):
            how = "ready" if agent.ready else "on a call, and is waited for"
            trail.say(
                "agent", login, True, f"the {prefer.kind} agent is {how}: tried first for {prefer.seconds} s"
            )
            return Preferred(
                agent=login,
                queue=rules.direct_queue,
                number=agent.number,
                seconds=prefer.seconds,
                kind=prefer.kind,
            )
        else:
            trail.say("agent", login, False, f"the {prefer.kind} agent is {agent.why or 'not ready'}")
    return None


def _named(prefer: Prefer, customer: Customer, now: datetime) -> str | None:
    if prefer.kind == "own":
        return customer.own_agent
    oldest = now.astimezone(UTC) - timedelta(days=prefer.within_days)
    return next((login for login, when in customer.last_agents if when >= oldest), None)


def _with(decision: Decision, **changed: object) -> Decision:
    values = {name: getattr(decision, name) for name in Decision.__dataclass_fields__}
    return Decision(**{**values, **changed})
