"""What agents, and supervisors for their teams, ask of open lines: work off-hook or on-hook, open and close the line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from pydantic import Field

from cti.agent_commands import ROLES, ForAgent, whose
from cti.agents import Agents
from cti.command_refusals import refusing
from cti.commands import CommandError, Commands
from cti.control.off_hook import OffHook
from cti.people import Actor, Directory
from cti.views import AgentView

LIMIT = 15.0
"""Seconds for a command: a phone has 5 to ring."""


class OffHookArgs(ForAgent):
    """How the agent works from now on."""

    off_hook: bool = Field(
        description="true: the phone is called once, the line stays open, calls come after a beep; false: it rings per call"
    )


def add_line_commands(
    commands: Commands,
    *,
    off_hook: OffHook,
    agents: Agents,
    directory: Directory,
    choose: Callable[[str, bool, str], Awaitable[None]],
) -> None:
    """Registers `agent.line_open`, `agent.line_close` and `agent.set_off_hook`. `choose(agent, off_hook, by)` writes down
    how somebody works and makes it so."""

    def view(login: str) -> AgentView:
        found = agents.view(login, datetime.now(UTC))
        if found is None:
            raise CommandError("not_an_agent", f"{login} is not an agent")
        return found

    async def open_line(actor: Actor, args: ForAgent) -> AgentView:
        login = whose(actor, args, directory)
        view(login)
        if not agents.session(login, datetime.now(UTC)).logged_on:
            raise CommandError("not_logged_on", f"{login} is not logged on: log on first")
        await off_hook.open(login)
        return view(login)

    async def close_line(actor: Actor, args: ForAgent) -> AgentView:
        login = whose(actor, args, directory)
        view(login)
        await off_hook.close(login)
        return view(login)

    async def set_off_hook(actor: Actor, args: OffHookArgs) -> AgentView:
        login = whose(actor, args, directory)
        if view(login).off_hook == args.off_hook:
            how = "off-hook" if args.off_hook else "on-hook"
            raise CommandError("wrong_state", f"{login} works {how} already")
        if off_hook.in_a_call(login):
            raise CommandError("wrong_state", "there is a call on the line: end it first")
        with refusing(away="the database is out of reach, nothing was changed: try again in a moment"):
            await choose(login, args.off_hook, actor.login)
        return view(login)

    more = {"result": AgentView, "roles": ROLES, "lane": "agent", "limit": LIMIT}
    commands.add(
        "agent.line_open",
        ForAgent,
        open_line,
        summary="Open the line of an agent who works off-hook: the phone is called. Answered once it rings or is open.",
        **more,  # type: ignore[arg-type]
    )
    commands.add(
        "agent.line_close",
        ForAgent,
        close_line,
        summary="Hang up the open line; the agent is not ready until it is open again.",
        **more,  # type: ignore[arg-type]
    )
    commands.add(
        "agent.set_off_hook",
        OffHookArgs,
        set_off_hook,
        summary="Work off-hook (one open line, calls come after a beep) or on-hook (the phone rings for each call).",
        **more,  # type: ignore[arg-type]
    )
