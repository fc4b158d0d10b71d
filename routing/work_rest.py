"""REST routes of other work: what modules bring, what is open, and what each agent may be offered now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from cti.openapi import SUPERVISORS, Route
from cti.other_work import BlendingView, WorkView
from cti.people import Actor, Directory, Role
from cti.plain_text import Plain
from cti.problems import Problem, of_refusal
from cti.rest.serving import Asked, Reply, Translate
from routing.callback import may_be_called
from routing.desk import WorkDesk
from routing.document import WorkKind
from routing.work import NotPossible

BRINGERS = frozenset({*SUPERVISORS, Role.INTEGRATION})

Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]


class WorkNew(BaseModel):
    """Something to be done. `skill`: the id of the queue whose agents can do it; `level`: their penalty there at most.
    `ref` is what you call it: the same one again is the same work. With a `number` (E.164) it is a call to a customer."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kind: WorkKind
    skill: Annotated[str, StringConstraints(min_length=3, max_length=120)]
    title: Annotated[Plain, Field(min_length=1, max_length=200)]
    ref: Annotated[Plain, Field(min_length=1, max_length=120)]
    priority: int = Field(default=0, ge=0, le=1000)
    level: int | None = Field(default=None, ge=0, le=100)
    due: AwareDatetime | None = None
    not_before: AwareDatetime | None = None
    number: Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{4,14}$")] | None = None
    account: int | None = Field(default=None, ge=1, lt=1 << 63)
    data: dict[Key, Annotated[Plain, Field(max_length=1000)]] = Field(default_factory=dict, max_length=20)


class WorkQuery(BaseModel):
    """Which part of what is open."""

    model_config = ConfigDict(extra="forbid")

    kind: WorkKind | None = None
    skill: Annotated[str, StringConstraints(max_length=120)] | None = None
    state: Literal["waiting", "offered", "accepted"] | None = None
    agent: Annotated[str, StringConstraints(max_length=64)] | None = None


class WorkList(BaseModel):
    """What is open, of the queues of your teams, the oldest first; at most 1,000. `total`: how many there are."""

    items: list[WorkView]
    total: int


class BlendingList(BaseModel):
    """What each agent of your teams may be offered now, and why."""

    items: list[BlendingView]


class OneWork(BaseModel):
    """The work that the address names."""

    work: Annotated[str, StringConstraints(pattern=r"^w[0-9a-f]{16}$")]


def routes(
    *,
    desk: WorkDesk,
    directory: Directory,
    knows_queue: Callable[[str], bool],
    audit: Callable[[Actor, str, dict[str, Any], str], None],
) -> list[Route]:
    """Returns the routes."""

    def own(actor: Actor, skill: str) -> bool:
        if actor.is_admin or (actor.role is Role.INTEGRATION and not actor.teams):
            return True
        return not directory.teams_of_queue(skill).isdisjoint(actor.teams)

    async def found(asked: Asked) -> WorkView:
        item = await desk.read(asked.params.work)
        if item is None or not own(asked.who, item.skill):
            raise Problem(404, "not_found", "there is no such work, or it is not of a queue of yours")
        return item

    async def work_list(asked: Asked) -> dict[str, Any]:
        wanted: WorkQuery = asked.query
        items = [
            item
            for item in desk.items()
            if own(asked.who, item.skill)
            and wanted.kind in (None, item.kind)
            and wanted.skill in (None, item.skill)
            and wanted.state in (None, item.state)
            and wanted.agent in (None, item.agent)
        ]
        return {"items": items[:1000], "total": len(items)}

    async def blending(asked: Asked) -> dict[str, Any]:
        who = asked.who
        seen = [
            view for view in desk.blending() if who.is_admin or directory.team_of(view.agent) in who.teams
        ]
        return {"items": seen}

    async def add(asked: Asked) -> Reply:
        new: WorkNew = asked.body
        if not knows_queue(new.skill):
            raise Problem(422, "bad_value", "skill: there is no such queue; say it like main:sales")
        if not own(asked.who, new.skill):
            raise Problem(403, "forbidden", "this is not a queue of a team of yours")
        if new.number is not None and not may_be_called(new.number):
            raise Problem(422, "bad_value", "number: of a kind that is not called, or no number")
        item = await desk.add(source=asked.who.login, **new.model_dump())
        audit(asked.who, "work.added", {"work": item.id, "kind": item.kind, "skill": item.skill}, "ok")
        return Reply(value=item, status=201)

    async def cancel(asked: Asked) -> None:
        item = await found(asked)
        await desk.cancel(item.id, asked.who.login)
        audit(asked.who, "work.cancelled", {"work": item.id}, "ok")

    base, away = "/api/v1/work", frozenset({409, 503})

    def route(
        method: str, path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, **more: Any
    ) -> Route:
        more = {"roles": BRINGERS, "errors": away, **more}
        return Route(method=method, path=path, handler=handler, summary=summary, tag="Other work", **more)

    return [
        route("GET", base, work_list, "What is open.", query=WorkQuery, result=WorkList),
        route("POST", base, add, "Brings something to be done.", body=WorkNew, result=WorkView, status=201),
        route(
            "GET", base + "/{work}", found, "One item, also when it is over.", params=OneWork, result=WorkView
        ),
        route("DELETE", base + "/{work}", cancel, "Takes it back.", params=OneWork, status=204),
        route(
            "GET",
            "/api/v1/blending",
            blending,
            "What each agent may be offered besides calls, and why.",
            result=BlendingList,
            roles=SUPERVISORS,
        ),
    ]


TRANSLATE: dict[type[Exception], Translate] = {
    NotPossible: of_refusal,
}
"""What is refused over REST, in its words; for `application(translate=...)`."""
