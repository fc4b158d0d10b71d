"""Figures as commands of `cti.v1`: what a screen asks for every few seconds to show today's figures live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cti.commands import CommandError, Commands
from cti.figures.desk import (
    AgentsAsked,
    Desk,
    FiguresAsked,
    NotYours,
    QueuesAsked,
    Report,
    TeamsAsked,
    WrongQuestion,
)
from cti.figures.report import AgentFigures, QueueFigures, TeamFigures, TooLarge, WorkFigures
from cti.people import Actor, Role

A = TypeVar("A", bound=FiguresAsked)
LEADERS = (Role.SUPERVISOR, Role.ADMIN, Role.INTEGRATION)


def add_figures_commands(commands: Commands, desk: Desk) -> None:
    """Registers `figures.queues`, `figures.agents`, `figures.teams`, `figures.work`: the same reports as over REST."""

    def register(
        op: str,
        args: type[A],
        report: Callable[[Actor, A], Awaitable[Any]],
        result: Any,
        summary: str,
        roles: tuple[Role, ...],
    ) -> None:
        async def handler(actor: Actor, asked: A) -> Any:
            try:
                return await report(actor, asked)
            except NotYours as error:
                raise CommandError("forbidden", str(error)) from None
            except (WrongQuestion, TooLarge) as error:
                raise CommandError("bad_args", str(error)) from None

        commands.add(op, args, handler, summary=summary, result=result, roles=roles, changes=False)

    everybody = (Role.AGENT, *LEADERS)
    register(
        "figures.queues",
        QueuesAsked,
        desk.queues,
        Report[QueueFigures],
        "Figures of your queues, of today if not said otherwise, and who waits now.",
        LEADERS,
    )
    register(
        "figures.agents",
        AgentsAsked,
        desk.agents,
        Report[AgentFigures],
        "Figures of your agents, or your own.",
        everybody,
    )
    register(
        "figures.work",
        QueuesAsked,
        desk.work,
        Report[WorkFigures],
        "Figures of other work than calls, for your queues.",
        LEADERS,
    )
    register("figures.teams", TeamsAsked, desk.teams, Report[TeamFigures], "Figures of your teams.", LEADERS)
