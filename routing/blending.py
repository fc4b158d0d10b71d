"""Who may be offered other work than calls now, and why: rules and the floor in, a permission for each agent out. Pure.

The order in which it is decided, for one agent: ready at all; nobody waits in any of their queues; a rule of one of their
queues is open, has been quiet for as long as it wants, and has not as many agents at other work as it allows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from cti.facts import AgentState
from routing.hours import opening
from routing.rules import Blending, RuleSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """An agent at this moment. `queues`: ids of those they are a member of; `levels`: their penalty in each; `since`: when
    the state began; `work`: they have been offered, or do, other work; `beside`: so many items that calls interrupt, and
    nothing else."""

    agent: str
    state: AgentState
    since: datetime
    queues: frozenset[str]
    levels: Mapping[str, int] = field(default_factory=dict)
    work: bool = False
    beside: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFloor:
    """`waiting`: how many wait in a queue, None where that is not known now."""

    workers: tuple[Worker, ...]
    waiting: Callable[[str], int | None]


class Verdict(NamedTuple):
    """How a rule stands: its calendar is `open`, it is `quiet`, as many as it allows are at other work already (`full`)."""

    open: bool
    quiet: bool
    full: bool
    why: str


@dataclass(frozen=True, slots=True)
class Permit:
    """What an agent may be offered: kinds, each with the rule that allows it; `overdue`: kinds that may be offered once
    they are past their time. `why` is for people."""

    kinds: Mapping[str, Blending] = field(default_factory=dict)
    overdue: Mapping[str, Blending] = field(default_factory=dict)
    why: str = ""


class Quiet:
    """Since when it has been quiet, for each rule. Asked again and again; what is not seen to be quiet is not."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}

    def look(self, rules: RuleSet, floor: WorkFloor, now: datetime) -> dict[str, Permit]:
        """Returns every worker's permission at this moment."""
        staff: dict[str, list[Worker]] = {}
        for worker in floor.workers:
            for queue in worker.queues:
                staff.setdefault(queue, []).append(worker)
        crowded = {  # who waits in the direct queue waits for one agent only
            queue for queue in staff if _name(queue) != rules.direct_queue and floor.waiting(queue) != 0
        }
        ids: dict[str, list[str]] = {}
        for queue in staff:
            ids.setdefault(_name(queue), []).append(queue)
        verdicts: dict[str, Verdict] = {}
        of_queue: dict[str, list[Blending]] = {}
        for rule in rules.blending:
            queues = [queue for name in sorted(rule.queues) for queue in ids.get(name, ())]
            mine = {worker.agent: worker for queue in queues for worker in staff[queue]}
            verdicts[rule.id] = self._judge(rule, rules, queues, mine.values(), floor, now)
            for queue in queues:
                of_queue.setdefault(queue, []).append(rule)
        self._since = {id: since for id, since in self._since.items() if id in verdicts}
        places = {rule.id: n for n, rule in enumerate(rules.blending)}

        def rules_of(worker: Worker) -> list[Blending]:
            found = {rule.id: rule for queue in worker.queues for rule in of_queue.get(queue, ())}
            return sorted(found.values(), key=lambda rule: places[rule.id])

        return {worker.agent: _permit(worker, rules_of, verdicts, crowded, floor) for worker in floor.workers}

    def _judge(
        self,
        rule: Blending,
        rules: RuleSet,
        queues: Iterable[str],
        mine: Collection[Worker],
        floor: WorkFloor,
        now: datetime,
    ) -> Verdict:
        if rule.calendar is not None:
            state = opening(rules.calendars[rule.calendar], now, look_ahead=False)
            if not state.open:
                self._since.pop(rule.id, None)
                return Verdict(False, False, False, state.why)
        names = ", ".join(sorted(rule.queues))
        counts = [floor.waiting(queue) for queue in queues]
        free = sum(worker.state is AgentState.READY for worker in mine)
        if any(count is None for count in counts):
            self._since.pop(rule.id, None)
            return Verdict(True, False, False, f"it is not known now who waits in {names}")
        if any(counts):
            self._since.pop(rule.id, None)
            return Verdict(True, False, False, f"somebody waits in {names}: calls come first")
        if free < rule.free_agents:
            self._since.pop(rule.id, None)
            return Verdict(True, False, False, f"fewer than {rule.free_agents} of {names} are free")
        since = self._since.setdefault(rule.id, now)
        if now - since < timedelta(seconds=rule.quiet_for):
            return Verdict(True, False, False, f"{names} has not been quiet for {rule.quiet_for} s yet")
        at_work = sum(worker.work for worker in mine)
        if rule.at_most is not None and at_work >= rule.at_most:
            return Verdict(True, True, True, f"{rule.at_most} of {names} are at other work already")
        told = f"{names} is quiet: nobody waits and at least {rule.free_agents} have been free for {rule.quiet_for} s"
        return Verdict(True, True, False, told)


def works_for(worker: Worker, rule: Blending) -> bool:
    """Whether the agent is a member of one of the rule's queues."""
    return any(_name(queue) in rule.queues for queue in worker.queues)


def _name(queue: str) -> str:
    return queue.partition(":")[2]


_OCCUPIED = {
    AgentState.BUSY: "talks",
    AgentState.RESERVED: "is offered a call",
    AgentState.WRAP_UP: "wraps up a call",
    AgentState.UNKNOWN: "it is not known now what they do",
}


def _permit(
    worker: Worker,
    rules_of: Callable[[Worker], list[Blending]],
    verdicts: Mapping[str, Verdict],
    crowded: set[str],
    floor: WorkFloor,
) -> Permit:
    if worker.state is not AgentState.READY:
        return Permit(why=_OCCUPIED.get(worker.state, f"is {worker.state.value.replace('_', ' ')}"))
    rules = rules_of(worker)
    if not rules:
        return Permit(why="no rule offers other work to agents of these queues")
    overdue: dict[str, Blending] = {}
    for rule in rules:
        if rule.overdue and verdicts[rule.id].open:
            for kind in rule.kinds:
                overdue.setdefault(kind, rule)
    mine = sorted(worker.queues & crowded)
    if mine:
        unknown = floor.waiting(mine[0]) is None
        told = "it is not known now who waits" if unknown else "somebody waits"
        return Permit(overdue=overdue, why=f"{told} in {_name(mine[0])}: calls come first")
    kinds: dict[str, Blending] = {}
    why = ""
    for rule in rules:
        verdict = verdicts[rule.id]
        if verdict.quiet and (worker.work or not verdict.full):  # who is at work is one of those who fill it
            why = why if kinds else verdict.why
            for kind in rule.kinds:
                kinds.setdefault(kind, rule)
        else:
            why = why or verdict.why
    return Permit(kinds, overdue, why)
