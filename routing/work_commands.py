"""What agents, and supervisors for their teams, ask of other work: accept, decline, complete, give back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import asyncpg
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.commands import CommandError, Commands
from cti.other_work import WorkView
from cti.people import Actor, Directory, Role
from cti.plain_text import Plain
from routing.desk import WorkDesk
from routing.work import NotPossible

AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a database that is away raises."""

WORKERS = (Role.AGENT, Role.SUPERVISOR, Role.ADMIN)
LIMIT = 25.0
"""Seconds: a call to a customer begins with the agent's own phone."""

Login = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class OnWork(BaseModel):
    """Which work."""

    model_config = ConfigDict(extra="forbid")

    work: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class OnWorkOf(OnWork):
    """Which work, and whose."""

    agent: Login | None = Field(default=None, description="a supervisor's agent; yourself if left out")


class Completed(OnWorkOf):
    """How it ended."""

    outcome: Annotated[Plain, Field(min_length=1, max_length=100)]


def add_work_commands(commands: Commands, *, desk: WorkDesk, directory: Directory) -> None:
    """Registers `work.*`."""

    def whose(actor: Actor, agent: str | None) -> str:
        if agent is None or agent == actor.login:
            return actor.login
        if actor.role is Role.AGENT:
            raise CommandError("not_your_agent", "you can see to your own work only")
        if not actor.is_admin and directory.team_of(agent) not in actor.teams:
            raise CommandError("not_your_agent", f"{agent} is not in a team of yours")
        return agent

    async def accept(actor: Actor, args: OnWork) -> WorkView:
        return await said(lambda: desk.accept(actor.login, args.work))

    async def decline(actor: Actor, args: OnWork) -> WorkView:
        return await said(now(lambda: desk.decline(actor.login, args.work)))

    async def complete(actor: Actor, args: Completed) -> WorkView:
        agent = whose(actor, args.agent)
        return await said(now(lambda: desk.complete(agent, args.work, args.outcome)))

    async def give_back(actor: Actor, args: OnWorkOf) -> WorkView:
        agent = whose(actor, args.agent)
        return await said(now(lambda: desk.give_back(agent, args.work)))

    commands.add(
        "work.accept",
        OnWork,
        accept,
        summary="Do what is offered to you. A call to a customer begins with your own phone: answered once that rings.",
        result=WorkView,
        roles=WORKERS,
        lane="work",
        limit=LIMIT,
    )
    commands.add(
        "work.decline",
        OnWork,
        decline,
        summary="Not now: it is offered to somebody else.",
        result=WorkView,
        roles=WORKERS,
        lane="work",
    )
    commands.add(
        "work.complete",
        Completed,
        complete,
        summary="It is done, and how it ended.",
        result=WorkView,
        roles=WORKERS,
        lane="work",
    )
    commands.add(
        "work.give_back",
        OnWorkOf,
        give_back,
        summary="Not done: it waits again, for somebody else. Supervisors can take it from an agent of theirs.",
        result=WorkView,
        roles=WORKERS,
        lane="work",
    )


def now(do: Callable[[], WorkView]) -> Callable[[], Awaitable[WorkView]]:
    """What is done at once, as something to be awaited."""

    async def run() -> WorkView:
        return do()

    return run


async def said(do: Callable[[], Awaitable[WorkView]]) -> WorkView:
    """What it gives; refusals as those of commands."""
    try:
        return await do()
    except NotPossible as error:
        raise CommandError(error.code, str(error)) from None
    except asyncio.CancelledError:
        raise
    except AWAY:
        raise CommandError(
            "database_unavailable", "the database does not answer: nothing was done, try again in a moment"
        ) from None
