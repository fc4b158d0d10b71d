"""REST routes of target groups: customers by saved conditions, for supervisors and administrators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from crm import target_groups
from crm.target_groups import Conditions, GroupCount, Name, TargetGroupView
from cti import audit
from cti.openapi import SUPERVISORS, Route
from cti.problems import Problem
from cti.rest.pages import Page, Paging, decode, encode
from cti.rest.serving import Asked, Reply, Translate

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection


class OneGroup(BaseModel):
    """The target group that the address names."""

    group: Annotated[int, Field(ge=1, lt=1 << 63)]


class GroupPut(BaseModel):
    """A target group, whole."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name
    conditions: Conditions


def routes(*, pool: Callable[[], Pool]) -> list[Route]:
    """Returns the routes."""

    @asynccontextmanager
    async def trailed(asked: Asked, action: str, target: str) -> AsyncIterator[PoolConnection]:
        async with pool().acquire(timeout=5) as db, db.transaction():
            yield db
            await audit.record(db, asked.who, action, target, {}, asked.request.remote)

    def version(asked: Asked) -> int:
        match = asked.match or ""
        if not match.isdecimal() or len(match) > 9:
            raise target_groups.ChangedMeanwhile
        return int(match)

    async def group_list(asked: Asked) -> dict[str, Any]:
        wanted: Paging = asked.query
        after = decode(wanted.cursor, str) if wanted.cursor else ""
        found = await target_groups.everyone(pool(), after=after, limit=wanted.limit + 1)
        part = found[: wanted.limit]
        return {"items": part, "next": encode(part[-1].name) if len(found) > len(part) else None}

    async def group_create(asked: Asked) -> Reply:
        new: GroupPut = asked.body
        async with trailed(asked, "target_group.created", new.name) as db:
            made = await target_groups.create(db, new.name, new.conditions, asked.who.login)
        where = {"Location": f"/api/v1/target-groups/{made.id}"}
        return Reply(value=made, version=made.version, headers=where)

    async def group_read(asked: Asked) -> Reply:
        found = await target_groups.read(pool(), asked.params.group)
        return Reply(value=found, version=found.version)

    async def group_put(asked: Asked) -> Reply:
        new: GroupPut = asked.body
        async with trailed(asked, "target_group.changed", str(asked.params.group)) as db:
            changed = await target_groups.replace(
                db, asked.params.group, new.name, new.conditions, version=version(asked), by=asked.who.login
            )
        return Reply(value=changed, version=changed.version)

    async def group_delete(asked: Asked) -> None:
        async with trailed(asked, "target_group.removed", str(asked.params.group)) as db:
            await target_groups.remove(db, asked.params.group, version=version(asked))

    async def group_count(asked: Asked) -> GroupCount:
        found = await target_groups.read(pool(), asked.params.group)
        return await target_groups.count(pool(), found.conditions)

    async def try_count(asked: Asked) -> GroupCount:
        return await target_groups.count(pool(), asked.body)

    base, one = "/api/v1/target-groups", "/api/v1/target-groups/{group}"

    def route(
        method: str, path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, **more: Any
    ) -> Route:
        more = {"roles": SUPERVISORS, "errors": frozenset({503}), **more}
        return Route(method=method, path=path, handler=handler, summary=summary, tag="Target groups", **more)

    changing = {"params": OneGroup, "versioned": True, "errors": frozenset({409, 503})}
    return [
        route("GET", base, group_list, "Target groups, by name.", query=Paging, result=Page[TargetGroupView]),
        route("POST", base, group_create, "A new one.", body=GroupPut, result=TargetGroupView, status=201),
        route(
            "POST",
            base + "/count",
            try_count,
            "How many meet conditions.",
            body=Conditions,
            result=GroupCount,
        ),
        route("GET", one, group_read, "One target group.", params=OneGroup, result=TargetGroupView),
        route("PUT", one, group_put, "Changes it.", body=GroupPut, result=TargetGroupView, **changing),
        route("DELETE", one, group_delete, "Removes it; lists made of it stay.", status=204, **changing),
        route(
            "GET", one + "/count", group_count, "How many are in it now.", params=OneGroup, result=GroupCount
        ),
    ]


TRANSLATE: dict[type[Exception], Translate] = {
    target_groups.NoGroup: lambda _error: Problem(404, "not_found", "there is no such target group"),
    target_groups.ChangedMeanwhile: lambda _error: Problem(
        412, "changed_meanwhile", "somebody else has changed the target group: read it again"
    ),
    target_groups.NameTaken: lambda error: Problem(409, "name_taken", str(error)),
}
"""What is refused over REST, in its words; for `application(translate=...)`."""
