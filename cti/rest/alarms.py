"""REST routes of alarms: what is raised now, and the rules that say when.

Administrators change all rules, supervisors those of their own queues and teams.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from cti import audit
from cti.alarm_watch import add_rule, change_rule, load_rules, read_rule, remove_rule
from cti.alarms import OF_AGENTS, OF_QUEUES, Kind, Rule
from cti.openapi import SUPERVISORS, Route
from cti.people import Actor, Directory
from cti.plain_text import Plain
from cti.problems import Problem
from cti.rest.serving import Asked, Reply
from cti.supervision import AlarmView

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection

Id = Annotated[str, StringConstraints(min_length=1, max_length=120)]
RULES_AT_MOST = 1000


class RuleEdit(BaseModel):
    """When to alarm. Seconds for waits and states, percent for the service level, else a number of callers or agents.

    A queue for longest_wait, callers_waiting, service_level; a queue or a team for ready_agents; a team for not_ready and
    wrap_up; a PBX, or none for each, for pbx_down.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[Plain, Field(min_length=1, max_length=120)]
    kind: Kind
    queue: Id | None = None
    team: Id | None = None
    pbx: Id | None = None
    reason: Id | None = Field(default=None, description="not_ready: this reason only")
    threshold: float = Field(
        ge=0, le=1_000_000, description="service_level, ready_agents: below it is bad; else above"
    )
    raise_after: float = Field(default=0, ge=0, le=3600, description="seconds it must have been passed")
    clear_after: float = Field(default=5, ge=0, le=3600, description="seconds the value must have been back")
    margin: float = Field(default=0, ge=0, le=1_000_000, description="how far back it must be")
    enabled: bool = True

    @model_validator(mode="after")
    def _fits(self) -> RuleEdit:
        given = {name for name in ("queue", "team", "pbx") if getattr(self, name) is not None}
        if self.kind in OF_QUEUES:
            allowed: tuple[set[str], ...] = ({"queue"},)
        elif self.kind in OF_AGENTS:
            allowed = ({"team"},)
        elif self.kind is Kind.READY_AGENTS:
            allowed = ({"queue"}, {"team"})
        else:
            allowed = (set(), {"pbx"})
        if given not in allowed:
            wanted = " or ".join("and ".join(sorted(one)) or "nothing" for one in allowed)
            raise ValueError(f"{self.kind} is about {wanted}")
        if self.reason is not None and self.kind is not Kind.NOT_READY:
            raise ValueError("reason is for not_ready only")
        return self


class RuleRead(RuleEdit):
    """A rule. `version` is its ETag."""

    id: int
    version: int


class RuleList(BaseModel):
    """The rules that you may see, in the order they were made."""

    items: list[RuleRead]


class AlarmList(BaseModel):
    """The alarms that are raised now and that you may see, the oldest first."""

    items: list[AlarmView]


class OneRule(BaseModel):
    """The rule that the address names."""

    rule: int = Field(ge=1, lt=1 << 31)


def routes(
    *,
    pool: Callable[[], Pool],
    directory: Directory,
    pbxs: Iterable[str],
    raised: Callable[[Actor], list[AlarmView]],
    changed: Callable[[], Awaitable[None]],
) -> list[Route]:
    """Returns the routes. `raised`: the alarms that somebody may see; `changed` takes changed rules over."""
    known_pbxs = frozenset(pbxs)

    def own(actor: Actor, rule: RuleEdit | Rule) -> bool:
        if actor.is_admin:
            return True
        if rule.queue is not None:
            return not directory.teams_of_queue(rule.queue).isdisjoint(actor.teams)
        return rule.team is not None and rule.team in actor.teams

    def require(actor: Actor, rule: RuleEdit | Rule) -> None:
        if not own(actor, rule):
            raise Problem(403, "forbidden", "this is not a queue or team of yours")

    def check(wanted: RuleEdit) -> None:
        if wanted.team is not None and wanted.team not in directory.teams:
            raise Problem(422, "bad_value", "team: there is no such team")
        if wanted.pbx is not None and wanted.pbx not in known_pbxs:
            raise Problem(
                422, "bad_value", f"pbx: there is no such PBX; there are {', '.join(sorted(known_pbxs))}"
            )

    async def rule_list(asked: Asked) -> RuleList:
        rules = await load_rules(pool())
        return RuleList(items=[_read(rule) for rule in rules if own(asked.who, rule)])

    async def alarm_list(asked: Asked) -> dict[str, Any]:
        return {"items": raised(asked.who)}

    async def found(asked: Asked) -> Rule:
        rule = await read_rule(pool(), asked.params.rule)
        if rule is None or not own(asked.who, rule):
            raise Problem(404, "not_found", "there is no such rule, or it is not yours")
        return rule

    async def rule_read(asked: Asked) -> Reply:
        rule = await found(asked)
        return Reply(value=_read(rule), version=rule.version)

    async def create(asked: Asked) -> Reply:
        wanted: RuleEdit = asked.body
        require(asked.who, wanted)
        check(wanted)
        if len(await load_rules(pool())) >= RULES_AT_MOST:
            raise Problem(409, "too_many", f"there are {RULES_AT_MOST} rules: remove one first")
        async with trailed(asked, "alarms.rule_added", wanted) as connection:
            rule = await add_rule(connection, Rule(id=0, version=0, **wanted.model_dump()), asked.who.login)
        await changed()
        return Reply(value=_read(rule), version=rule.version)

    async def change(asked: Asked) -> Reply:
        wanted: RuleEdit = asked.body
        former = await found(asked)
        require(asked.who, wanted)
        check(wanted)
        async with trailed(asked, "alarms.rule_changed", wanted, former.id) as connection:
            new = Rule(id=former.id, version=_version(asked), **wanted.model_dump())
            rule = await change_rule(connection, new, asked.who.login)
            if rule is None:
                raise _changed_meanwhile()
        await changed()
        return Reply(value=_read(rule), version=rule.version)

    async def remove(asked: Asked) -> None:
        former = await found(asked)
        async with trailed(asked, "alarms.rule_removed", None, former.id) as connection:
            if not await remove_rule(connection, former.id, _version(asked)):
                raise _changed_meanwhile()
        await changed()

    @asynccontextmanager
    async def trailed(
        asked: Asked, action: str, wanted: RuleEdit | None, id: int | None = None
    ) -> AsyncIterator[PoolConnection]:
        detail: dict[str, Any] = wanted.model_dump(mode="json", exclude_none=True) if wanted else {}
        async with pool().acquire(timeout=5) as connection, connection.transaction():
            yield connection
            target = str(id) if id is not None else ""
            await audit.record(connection, asked.who, action, target, detail, asked.request.remote)

    base, away = "/api/v1/alarms", frozenset({503})

    def route(
        method: str, path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, **more: Any
    ) -> Route:
        more = {"errors": away, **more}
        return Route(
            method=method,
            path=base + path,
            handler=handler,
            summary=summary,
            tag="Alarms",
            roles=SUPERVISORS,
            **more,
        )

    one = {"params": OneRule, "result": RuleRead}
    return [
        route("GET", "", alarm_list, "The alarms that are raised now.", result=AlarmList),
        route("GET", "/rules", rule_list, "The rules that say when to alarm.", result=RuleList),
        route("POST", "/rules", create, "Adds a rule.", body=RuleEdit, result=RuleRead, status=201),
        route("GET", "/rules/{rule}", rule_read, "One rule.", **one),
        route("PUT", "/rules/{rule}", change, "Changes a rule.", body=RuleEdit, versioned=True, **one),
        route(
            "DELETE",
            "/rules/{rule}",
            remove,
            "Removes a rule; its alarms are cleared.",
            params=OneRule,
            status=204,
            versioned=True,
        ),
    ]


def _read(rule: Rule) -> RuleRead:
    return RuleRead.model_construct(**{name: getattr(rule, name) for name in RuleRead.model_fields})


def _version(asked: Asked) -> int:
    match = asked.match or ""
    if not match.isdecimal() or len(match) > 9:
        raise _changed_meanwhile()
    return int(match)


def _changed_meanwhile() -> Problem:
    return Problem(412, "changed_meanwhile", "somebody else has changed or removed this rule: read it again")
