"""Alarms on thresholds. Pure: rules and what is measured now in, facts out; nothing here waits or reads a clock.

An alarm is raised once its threshold has been passed for `raise_after` seconds, and cleared once the value has been back by
`margin` for `clear_after` seconds: so what moves about a threshold does not flap. What cannot be known (a PBX is out of
reach) changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from cti.facts import AgentState, Fact
from cti.reasons import OTHER_WORK
from cti.supervision import AlarmAcknowledged, AlarmCleared, AlarmRaised, AlarmView
from cti.views import AgentView


class Kind(StrEnum):
    """What is measured."""

    LONGEST_WAIT = "longest_wait"
    CALLERS_WAITING = "callers_waiting"
    SERVICE_LEVEL = "service_level"
    READY_AGENTS = "ready_agents"
    NOT_READY = "not_ready"
    WRAP_UP = "wrap_up"
    PBX_DOWN = "pbx_down"


BELOW = frozenset({Kind.SERVICE_LEVEL, Kind.READY_AGENTS})
"""Kinds that are bad when the value is below the threshold; all others when it is above."""

OF_QUEUES = frozenset({Kind.LONGEST_WAIT, Kind.CALLERS_WAITING, Kind.SERVICE_LEVEL})
OF_AGENTS = frozenset({Kind.NOT_READY, Kind.WRAP_UP})
"""Kinds that are measured for each agent of a team apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When to alarm. Seconds for waits and states, percent for the service level, else a number. `queue`, `team`, `pbx`:
    what it is about, by kind; `reason`: a not-ready reason, all if None; a PBX of None: each."""

    id: int
    version: int
    name: str
    kind: Kind
    threshold: float
    queue: str | None = None
    team: str | None = None
    pbx: str | None = None
    reason: str | None = None
    raise_after: float = 0.0
    clear_after: float = 5.0
    margin: float = 0.0
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What can be measured. `waits`: how many seconds each caller of a queue has waited, `ready`: how many agents of a queue
    are ready, `service_level`: today's percentage; None where it is not known. `down`: seconds since a PBX is out of reach
    or late with its events, 0 while it is neither."""

    waits: Callable[[str], list[float] | None]
    ready: Callable[[str], int | None]
    service_level: Callable[[str], float | None]
    agents: Callable[[str], Iterable[AgentView]]
    pbxs: Callable[[], Iterable[str]]
    down: Callable[[str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An alarm as it was written down: `rule_version` is that of the rule that raised it."""

    id: str
    rule: int
    rule_version: int
    agent: str | None
    pbx: str | None
    value: float
    since: datetime
    acknowledged_by: str | None
    acknowledged: datetime | None


Subject = tuple[int, str]
"""A rule's id, and the agent or PBX it is about if it is about several."""


@dataclass(slots=True)
class _Watched:
    rule: Rule
    agent: str | None = None
    pbx: str | None = None
    passed_since: datetime | None = None
    back_since: datetime | None = None
    raised: AlarmView | None = None


@dataclass(slots=True)
class _Found:
    """A measurement. `value` None: not known."""

    value: float | None
    agent: str | None = None
    pbx: str | None = None


@dataclass(slots=True, kw_only=True)
class Alarms:
    """The rules and the alarms that are raised. `new_id` names an alarm."""

    new_id: Callable[[], str]
    _rules: dict[int, Rule] = field(default_factory=dict)
    _watched: dict[Subject, _Watched] = field(default_factory=dict)

    def views(self) -> list[AlarmView]:
        """The alarms that are raised, the oldest first."""
        raised = [watched.raised for watched in self._watched.values() if watched.raised is not None]
        return sorted(raised, key=lambda view: view.since)

    def standing(self) -> list[tuple[Rule, AlarmView]]:
        """The alarms that are raised, each with the rule that raised it: what is to be kept over a restart."""
        return [
            (watched.rule, watched.raised) for watched in self._watched.values() if watched.raised is not None
        ]

    def restore(self, kept: Iterable[Kept], now: datetime) -> list[Fact]:
        """Takes up the alarms of before a restart: nothing is told of those whose rule is as it was, the others are cleared.
        Call it once, when the rules are loaded."""
        facts: list[Fact] = []
        for one in kept:
            rule = self._rules.get(one.rule)
            if rule is None or rule.version != one.rule_version:
                facts.append(
                    AlarmCleared(
                        at=now,
                        alarm=one.id,
                        rule=one.rule,
                        queue=rule.queue if rule else None,
                        team=rule.team if rule else None,
                        agent=one.agent,
                        pbx=one.pbx,
                        reason="rule_changed",
                        lasted=(now - one.since).total_seconds(),
                    )
                )
                continue
            view = AlarmView(
                id=one.id,
                rule=rule.id,
                name=rule.name,
                kind=rule.kind,
                queue=rule.queue,
                team=rule.team,
                agent=one.agent,
                pbx=one.pbx,
                value=one.value,
                threshold=rule.threshold,
                since=one.since,
                acknowledged_by=one.acknowledged_by,
                acknowledged=one.acknowledged,
            )
            watched = _Watched(rule, one.agent, one.pbx, passed_since=one.since, raised=view)
            self._watched[rule.id, one.agent or one.pbx or ""] = watched
        return facts

    def wants(self, kind: Kind) -> bool:
        """Whether any rule measures this."""
        return any(rule.kind is kind and rule.enabled for rule in self._rules.values())

    def load(self, rules: Iterable[Rule], now: datetime) -> list[Fact]:
        """Takes these rules over in place of the former ones; alarms of rules that are gone or different are cleared."""
        self._rules = {rule.id: rule for rule in rules if rule.enabled}
        facts: list[Fact] = []
        for subject, watched in tuple(self._watched.items()):
            if self._rules.get(subject[0]) != watched.rule:
                facts += self._clear(subject, now, "rule_changed")
        return facts

    def look(self, floor: Now, now: datetime) -> list[Fact]:
        """Measures everything; returns what was raised and cleared."""
        facts: list[Fact] = []
        for rule in self._rules.values():
            seen: set[Subject] = set()
            for found in _measure(rule, floor, now):
                subject = (rule.id, found.agent or found.pbx or "")
                seen.add(subject)
                facts += self._judge(rule, subject, found, now)
            for subject in [s for s in self._watched if s[0] == rule.id and s not in seen]:
                facts += self._back(subject, now)
        return facts

    def acknowledge(self, alarm: str, by: str, now: datetime) -> list[Fact]:
        """Somebody sees to it. Raises KeyError if it is not raised, ValueError (who does) if somebody does already."""
        for watched in self._watched.values():
            view = watched.raised
            if view is not None and view.id == alarm:
                if view.acknowledged_by is not None:
                    raise ValueError(view.acknowledged_by)
                watched.raised = msgspec.structs.replace(view, acknowledged_by=by, acknowledged=now)
                return [
                    AlarmAcknowledged(
                        at=now,
                        alarm=alarm,
                        rule=view.rule,
                        queue=view.queue,
                        team=view.team,
                        agent=view.agent,
                        pbx=view.pbx,
                        by=by,
                    )
                ]
        raise KeyError(alarm)

    def _judge(self, rule: Rule, subject: Subject, found: _Found, now: datetime) -> list[Fact]:
        value = found.value
        if value is None:
            return []
        watched = self._watched.get(subject)
        if not _passed(rule, value, 0.0 if watched is None or watched.raised is None else rule.margin):
            return self._back(subject, now)
        if watched is None:
            watched = self._watched[subject] = _Watched(rule, found.agent, found.pbx)
        watched.back_since = None
        watched.passed_since = watched.passed_since or now
        if watched.raised is not None or (now - watched.passed_since).total_seconds() < rule.raise_after:
            return []
        view = AlarmView(
            id=self.new_id(),
            rule=rule.id,
            name=rule.name,
            kind=rule.kind,
            queue=rule.queue,
            team=rule.team,
            agent=found.agent,
            pbx=found.pbx,
            value=value,
            threshold=rule.threshold,
            since=now,
        )
        watched.raised = view
        return [
            AlarmRaised(
                at=now,
                alarm=view.id,
                rule=view.rule,
                name=view.name,
                kind=view.kind,
                queue=view.queue,
                team=view.team,
                agent=view.agent,
                pbx=view.pbx,
                value=value,
                threshold=view.threshold,
            )
        ]

    def _back(self, subject: Subject, now: datetime) -> list[Fact]:
        """The value is back, or what was measured is no more."""
        watched = self._watched.get(subject)
        if watched is None:
            return []
        if watched.raised is None:
            del self._watched[subject]
            return []
        watched.back_since = watched.back_since or now
        if (now - watched.back_since).total_seconds() < watched.rule.clear_after:
            return []
        return self._clear(subject, now, "over")

    def _clear(self, subject: Subject, now: datetime, reason: str) -> list[Fact]:
        view = self._watched.pop(subject).raised
        if view is None:
            return []
        return [
            AlarmCleared(
                at=now,
                alarm=view.id,
                rule=view.rule,
                queue=view.queue,
                team=view.team,
                agent=view.agent,
                pbx=view.pbx,
                reason=reason,
                lasted=(now - view.since).total_seconds(),
            )
        ]


def _passed(rule: Rule, value: float, margin: float) -> bool:
    """Whether the value is on the wrong side of the threshold, or not back from there by the margin."""
    if rule.kind in BELOW:
        return value < rule.threshold + margin
    return value > rule.threshold - margin


def _measure(rule: Rule, floor: Now, now: datetime) -> Iterator[_Found]:
    queue, team = rule.queue or "", rule.team or ""
    match rule.kind:
        case Kind.LONGEST_WAIT | Kind.CALLERS_WAITING:
            waits = floor.waits(queue)
            if waits is None:
                yield _Found(None)
            else:
                yield _Found(max(waits, default=0.0) if rule.kind is Kind.LONGEST_WAIT else float(len(waits)))
        case Kind.SERVICE_LEVEL:
            yield _Found(floor.service_level(queue))
        case Kind.READY_AGENTS if rule.queue is not None:
            ready = floor.ready(queue)
            yield _Found(None if ready is None else float(ready))
        case Kind.READY_AGENTS:
            agents = list(floor.agents(team))
            known = [agent for agent in agents if agent.state is not AgentState.UNKNOWN]
            ready = sum(agent.state is AgentState.READY for agent in known)
            yield _Found(float(ready) if known or not agents else None)
        case Kind.NOT_READY | Kind.WRAP_UP:
            wanted = AgentState.NOT_READY if rule.kind is Kind.NOT_READY else AgentState.WRAP_UP
            for agent in floor.agents(team):
                if agent.state is AgentState.UNKNOWN:
                    yield _Found(None, agent=agent.agent)
                elif agent.reason == OTHER_WORK and rule.reason is None:
                    continue  # they work: only a rule that names it is about that
                elif agent.state is wanted and rule.reason in (None, agent.reason):
                    yield _Found((now - agent.since).total_seconds(), agent=agent.agent)
        case Kind.PBX_DOWN:
            for pbx in [rule.pbx] if rule.pbx is not None else floor.pbxs():
                yield _Found(floor.down(pbx), pbx=pbx)
