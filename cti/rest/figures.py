"""Figures over REST: queues, agents and teams by interval, as JSON or CSV (`Accept: text/csv`, or `format=csv`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from aiohttp import web
from pydantic import Field

from cti.figures import desk
from cti.figures.desk import NotYours, Report, WrongQuestion
from cti.figures.report import AgentFigures, QueueFigures, TeamFigures, TooLarge, WorkFigures
from cti.figures.table import csv_of
from cti.openapi import EVERYBODY, Route
from cti.people import Actor, Role
from cti.problems import Problem
from cti.rest.serving import Asked, Translate

LEADERS = frozenset({Role.SUPERVISOR, Role.ADMIN, Role.INTEGRATION})
Form = Literal["json", "csv"]

TRANSLATE: dict[type[Exception], Translate] = {
    NotYours: lambda error: Problem(403, "not_yours", str(error)),
    WrongQuestion: lambda error: Problem(422, "bad_value", str(error)),
    TooLarge: lambda error: Problem(422, "too_large", str(error)),
}


class QueuesAsked(desk.QueuesAsked):
    """Figures of queues, and in which form."""

    format: Form | None = Field(default=None, description="outranks the Accept header")


class AgentsAsked(desk.AgentsAsked):
    """Figures of agents, and in which form."""

    format: Form | None = Field(default=None, description="outranks the Accept header")


class TeamsAsked(desk.TeamsAsked):
    """Figures of teams, and in which form."""

    format: Form | None = Field(default=None, description="outranks the Accept header")


class Figures(Protocol):
    """The desk, as far as it is asked here."""

    async def queues(self, actor: Actor, asked: desk.QueuesAsked) -> Report[QueueFigures]: ...
    async def agents(self, actor: Actor, asked: desk.AgentsAsked) -> Report[AgentFigures]: ...
    async def teams(self, actor: Actor, asked: desk.TeamsAsked) -> Report[TeamFigures]: ...
    async def work(self, actor: Actor, asked: desk.QueuesAsked) -> Report[WorkFigures]: ...


def routes(figures: Figures) -> list[Route]:
    """Returns the routes."""

    async def of_queues(asked: Asked) -> Report[QueueFigures] | web.Response:
        report = await figures.queues(asked.who, asked.query)
        return await _csv(report, QueueFigures, "queues") if _wants_csv(asked) else report

    async def of_agents(asked: Asked) -> Report[AgentFigures] | web.Response:
        report = await figures.agents(asked.who, asked.query)
        return await _csv(report, AgentFigures, "agents") if _wants_csv(asked) else report

    async def of_teams(asked: Asked) -> Report[TeamFigures] | web.Response:
        report = await figures.teams(asked.who, asked.query)
        return await _csv(report, TeamFigures, "teams") if _wants_csv(asked) else report

    async def of_work(asked: Asked) -> Report[WorkFigures] | web.Response:
        report = await figures.work(asked.who, asked.query)
        return await _csv(report, WorkFigures, "work") if _wants_csv(asked) else report

    def route(
        noun: str,
        handler: Callable[[Asked], Awaitable[object]],
        query: type[desk.FiguresAsked],
        result: object,
        roles: frozenset[Role],
        summary: str,
    ) -> Route:
        return Route(
            method="GET",
            path=f"/api/v1/figures/{noun}",
            handler=handler,
            summary=summary,
            tag="Figures",
            roles=roles,
            query=query,
            result=result,
            also="text/csv",
            errors=frozenset({403, 503}),
        )

    return [
        route(
            "queues",
            of_queues,
            QueuesAsked,
            Report[QueueFigures],
            LEADERS,
            "What came to queues and what became of it, by interval.",
        ),
        route(
            "agents",
            of_agents,
            AgentsAsked,
            Report[AgentFigures],
            EVERYBODY,
            "What agents did, and how long they were in which state, by interval; agents see their own.",
        ),
        route(
            "teams",
            of_teams,
            TeamsAsked,
            Report[TeamFigures],
            LEADERS,
            "The same for all agents of a team together.",
        ),
        route(
            "work",
            of_work,
            QueuesAsked,
            Report[WorkFigures],
            LEADERS,
            "What other work than calls was brought and what became of it, by interval, queue and kind.",
        ),
    ]


def _wants_csv(asked: Asked) -> bool:
    if asked.query.format is not None:
        return bool(asked.query.format == "csv")
    accepts = asked.request.headers.get("Accept", "")
    return "text/csv" in accepts and "application/json" not in accepts


async def _csv(
    report: Report[QueueFigures] | Report[AgentFigures] | Report[TeamFigures] | Report[WorkFigures],
    kind: type,
    noun: str,
) -> web.Response:
    name = f"{noun}-{report.first.date()}.csv"  # the first day in the report's zone
    return web.Response(
        text=await asyncio.to_thread(csv_of, report.items, kind),
        content_type="text/csv",
        charset="utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
