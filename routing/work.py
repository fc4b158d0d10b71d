"""What is to be done besides calls: each item's states as a table, and in what order items are offered to whom. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from cti.facts import AgentState
from cti.other_work import WorkView
from cti.refusals import Refused
from routing.blending import Permit, Worker, works_for
from routing.rules import Ageing, Blending

LOOKED_AT = 1000
"""Items, the first in order, that one look may offer; the next look takes those after them."""

ANYTHING = ""
"""In place of an item: all of them."""

FAR = datetime(9999, 1, 1, tzinfo=UTC)


class Step(StrEnum):
    """What can happen to an item."""

    OFFER = "offer"
    ACCEPT = "accept"
    RETURN = "return"
    COMPLETE = "complete"
    CANCEL = "cancel"
    FAIL = "fail"


TRANSITIONS: dict[str, dict[Step, str]] = {
    "waiting": {Step.OFFER: "offered", Step.CANCEL: "cancelled", Step.FAIL: "failed"},
    "offered": {Step.ACCEPT: "accepted", Step.RETURN: "waiting", Step.CANCEL: "cancelled"},
    "accepted": {
        Step.COMPLETE: "done",
        Step.RETURN: "waiting",
        Step.CANCEL: "cancelled",
        Step.FAIL: "failed",
    },
    "done": {},
    "cancelled": {},
    "failed": {},
}
"""Every change of an item; a step that is not listed cannot be made."""

OPEN = frozenset({"waiting", "offered", "accepted"})


class NotPossible(Refused):
    """A step cannot be made: a code for programs, a sentence that says what to do."""


def move(item: WorkView, step: Step, at: datetime, **changes: object) -> WorkView:
    """The item after a step; raises NotPossible, and then nothing has changed."""
    state = TRANSITIONS[item.state].get(step)
    if state is None:
        now = {"offered": "is offered to somebody", "accepted": "is being done"}.get(
            item.state, f"is {item.state}"
        )
        raise NotPossible("wrong_state", f"this {now}: you cannot {step.value} it")
    worked = item.worked
    if item.state == "accepted":
        worked += max(0.0, (at - item.since).total_seconds())
    begun = item.begun or (at if step is Step.ACCEPT else None)
    return msgspec.structs.replace(item, state=state, since=at, begun=begun, worked=worked, **changes)


def order(item: WorkView, now: datetime, ageing: Ageing | None = None) -> tuple[int, datetime, datetime, str]:
    """Higher priority first, which rises with the item's age; then what is due sooner, then what came sooner."""
    priority = item.priority
    if ageing is not None:
        waited = max(0.0, (now - item.created).total_seconds())
        priority += min(ageing.most, int(waited // ageing.every) * ageing.by)
    return (-priority, item.due or FAR, item.created, item.id)


@dataclass(frozen=True, slots=True)
class Match:
    """An item for an agent, by a rule; `why` is told."""

    item: WorkView
    agent: str
    rule: Blending
    why: str


def matches(
    items: Iterable[WorkView],
    workers: Iterable[Worker],
    permits: Mapping[str, Permit],
    now: datetime,
    passed_over: Mapping[tuple[str, str], datetime],
) -> list[Match]:
    """Who is to be offered what now: items in their order, each to whoever of its skill has been free for longest. An
    agent who has declined an item is passed over for it until the time in `passed_over`, by (item, agent); for all items
    by (`ANYTHING`, agent)."""
    everybody = tuple(workers)
    free = [w for w in everybody if w.state is AgentState.READY and (not w.work or w.beside)]
    free = [w for w in free if permits[w.agent].kinds or permits[w.agent].overdue]
    free = [w for w in free if passed_over.get((ANYTHING, w.agent), now) <= now]
    free.sort(key=lambda w: (w.since, w.agent))
    able: dict[tuple[str, str], list[Worker]] = {}  # who may do what kind of which skill
    ageing: dict[tuple[str, str], Ageing | None] = {}
    for worker in free:
        permit = permits[worker.agent]
        for kind in permit.kinds.keys() | permit.overdue.keys():
            for skill in worker.queues:
                able.setdefault((kind, skill), []).append(worker)
                ageing.setdefault((kind, skill), (permit.kinds.get(kind) or permit.overdue[kind]).ageing)
    could_be = [
        item
        for item in items
        if (item.kind, item.skill) in able and (item.not_before is None or item.not_before <= now)
    ]
    found: list[Match] = []
    begun: dict[str, int] = {}
    taken: set[str] = set()
    at_work: dict[str, int] = {}
    first = heapq.nsmallest(
        LOOKED_AT, could_be, key=lambda item: order(item, now, ageing[item.kind, item.skill])
    )
    for item in first:
        late = item.due is not None and item.due <= now
        candidates = able[item.kind, item.skill]
        for worker in candidates:
            permit = permits[worker.agent]
            rule = permit.kinds.get(item.kind)
            why = permit.why
            if rule is None and late:
                rule, why = permit.overdue.get(item.kind), "it is past its time"
            if rule is None or worker.agent in taken or not _can(worker, item, rule):
                continue
            if passed_over.get((item.id, worker.agent), now) > now:
                continue
            if not late and not worker.work and rule.at_most is not None:
                if rule.id not in at_work:
                    at_work[rule.id] = sum(one.work and works_for(one, rule) for one in everybody)
                if at_work[rule.id] + begun.get(rule.id, 0) >= rule.at_most:
                    continue
            begun[rule.id] = begun.get(rule.id, 0) + (not worker.work)
            found.append(Match(item, worker.agent, rule, why))
            taken.add(worker.agent)
            able[item.kind, item.skill] = [one for one in candidates if one is not worker]
            break
        if len(taken) == len(free):
            break
    return found


def _can(worker: Worker, item: WorkView, rule: Blending) -> bool:
    """Whether they know enough for it, and may have it besides what they do already."""
    if worker.work and not (item.kind in rule.interrupted_by_calls and 0 < worker.beside < rule.at_once):
        return False
    return item.level is None or worker.levels.get(item.skill, 0) <= item.level


def again(item: WorkView, rule: Blending | None, now: datetime) -> WorkView | None:
    """The item after a customer was not reached: to be tried again later, or None when that was the last attempt."""
    attempts = item.attempts + 1
    if rule is not None and attempts >= rule.attempts:
        return None
    pause = timedelta(seconds=rule.again_after if rule is not None else 900)
    return msgspec.structs.replace(item, attempts=attempts, not_before=now + pause)
