"""What agents, and supervisors for their teams, ask of other work: accept, decline, complete, give back."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.command_refusals import NOTHING_DONE, refusing
from cti.commands import CommandError, Commands
from cti.other_work import WorkView
from cti.people import Actor, Directory, Role
from cti.plain_text import Plain
from routing.desk import WorkDesk

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
        with refusing(away=NOTHING_DONE):
            return await desk.accept(actor.login, args.work)

    async def decline(actor: Actor, args: OnWork) -> WorkView:
        with refusing(away=NOTHING_DONE):
            return desk.decline(actor.login, args.work)

    async def complete(actor: Actor, args: Completed) -> WorkView:
        agent = whose(actor, args.agent)
        with refusing(away=NOTHING_DONE):
            return desk.complete(agent, args.work, args.outcome)

    async def give_back(actor: Actor, args: OnWorkOf) -> WorkView:
        agent = whose(actor, args.agent)
        with refusing(away=NOTHING_DONE):
            return desk.give_back(agent, args.work)

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
