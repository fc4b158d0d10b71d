"""What agents, and supervisors for their teams, ask of agent states: log on and off, ready, not ready, wrap-up.

Each command is answered with the state that resulted; what waits for the end of a call is in its `pending`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.agents import Agents
from cti.command_refusals import refusing
from cti.commands import CommandError, Commands
from cti.facts import Fact
from cti.people import Actor, Directory, Role
from cti.plain_text import Plain
from cti.views import AgentView

Login = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ForAgent(BaseModel):
    """Whom the command is for: oneself, or for a supervisor an agent of their teams."""

    model_config = ConfigDict(extra="forbid")

    agent: Login | None = Field(default=None, description="a supervisor's agent; yourself if left out")


class Noted(ForAgent):
    """With a word of why, which the agent is shown."""

    note: Annotated[Plain, Field(max_length=200)] = Field(
        default="", description="a supervisor's word of why; the agent sees it with who it was"
    )


class LogOn(ForAgent):
    """Begins the working session: the agent becomes a member of their queues."""

    ready: bool = Field(default=False, description="ready for calls at once")


class NotReady(Noted):
    """Why no calls are wanted."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ExtendWrapUp(ForAgent):
    """How much longer wrap-up takes."""

    seconds: float = Field(gt=0, le=600)


A = TypeVar("A", bound=ForAgent)
ROLES = (Role.AGENT, Role.SUPERVISOR, Role.ADMIN, Role.INTEGRATION)


def whose(actor: Actor, args: ForAgent, directory: Directory) -> str:
    """The agent that a command is for; raises CommandError for one who is not the actor's to change."""
    login = args.agent or actor.login
    everybodys = actor.is_admin or (actor.role is Role.INTEGRATION and not actor.teams)
    if login != actor.login and not everybodys:
        if actor.role is Role.AGENT:
            raise CommandError("not_your_agent", "you can change your own state only")
        if directory.team_of(login) not in actor.teams:
            raise CommandError("not_your_agent", f"{login} is not in a team of yours")
    return login


def add_agent_commands(
    commands: Commands,
    *,
    agents: Agents,
    directory: Directory,
    publish: Callable[[Iterable[Fact]], None],
    wants_line: Callable[[str], None] = lambda login: None,
) -> None:
    """Registers `agent.*`. `wants_line` is told who has logged on or asked for calls."""

    def register(
        op: str, args: type[A], change: Callable[[str, A, str, datetime], list[Fact]], summary: str
    ) -> None:
        async def handler(actor: Actor, given: A) -> AgentView:
            login = whose(actor, given, directory)
            now = datetime.now(UTC)
            with refusing():
                publish(change(login, given, actor.login, now))
            if op in ("agent.log_on", "agent.ready"):
                wants_line(login)
            view = agents.view(login, now)
            if view is None:
                raise CommandError("not_an_agent", f"{login} is not an agent")
            return view

        commands.add(op, args, handler, summary=summary, result=AgentView, roles=ROLES, lane="agent")

    register(
        "agent.log_on",
        LogOn,
        lambda login, args, by, at: agents.log_on(login, ready=args.ready, by=by, at=at),
        "Log on: become a member of one's queues, not ready unless asked for.",
    )
    register(
        "agent.log_off",
        Noted,
        lambda login, args, by, at: agents.log_off(login, by=by, at=at, note=args.note),
        "Log off, after the call if there is one.",
    )
    register(
        "agent.ready",
        Noted,
        lambda login, args, by, at: agents.make_ready(login, by=by, at=at, note=args.note),
        "Be ready for calls, after the call if there is one; ends wrap-up.",
    )
    register(
        "agent.not_ready",
        NotReady,
        lambda login, args, by, at: agents.make_not_ready(login, args.reason, by=by, at=at, note=args.note),
        "Take no calls, for one of the configured reasons; after the call if there is one.",
    )
    register(
        "agent.finish_wrap_up",
        ForAgent,
        lambda login, _args, by, at: agents.finish_wrap_up(login, by=by, at=at),
        "End wrap-up before its time.",
    )
    register(
        "agent.extend_wrap_up",
        ExtendWrapUp,
        lambda login, args, by, at: agents.extend_wrap_up(login, args.seconds, by=by, at=at),
        "Give wrap-up more time.",
    )
