"""Words between supervisors and agents: messages with receipts, and requests for help."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from cti.command_refusals import refusing
from cti.commands import CommandError, Commands
from cti.facts import Fact
from cti.help_requests import HelpRequests
from cti.messages import Messages, NoSuchMessage, Unread
from cti.people import Actor, Directory, Role
from cti.plain_text import Plain
from cti.supervision import HelpView

CallId = Annotated[str, StringConstraints(min_length=3, max_length=200)]
Login = Annotated[str, StringConstraints(min_length=1, max_length=64)]

SENDERS = (Role.SUPERVISOR, Role.ADMIN, Role.INTEGRATION)
LEADERS = (Role.SUPERVISOR, Role.ADMIN)
AGENTS = (Role.AGENT, Role.SUPERVISOR)

NOTHING_SENT = "the database is out of reach, nothing was kept or told: try again in a moment"


class SendArgs(BaseModel):
    """A message: to one agent, or to all of a team."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    agent: Login | None = None
    team: Login | None = None
    text: Annotated[Plain, Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _exactly_one(self) -> SendArgs:
        if (self.agent is None) == (self.team is None):
            raise ValueError("say to whom: either agent or team")
        return self


class Sent(BaseModel):
    """A message was written down and told; to whom."""

    message: int
    agents: list[str]


class ReadArgs(BaseModel):
    """Which message has been read."""

    model_config = ConfigDict(extra="forbid")

    message: int = Field(ge=1, lt=1 << 62)


class HelpArgs(BaseModel):
    """What help is needed with."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    call: CallId | None = Field(default=None, description="a call of yours that it is about")
    text: Annotated[Plain, Field(max_length=500)] = ""


class HelpNamed(BaseModel):
    """Which request."""

    model_config = ConfigDict(extra="forbid")

    help: Annotated[str, StringConstraints(min_length=1, max_length=64)]


def add_message_commands(
    commands: Commands,
    *,
    messages: Messages,
    help_requests: HelpRequests,
    directory: Directory,
    agents_in: Callable[[str], tuple[str, ...]],
    logged_on: Callable[[str], bool],
    publish: Callable[[Iterable[Fact]], None],
) -> None:
    """Registers `message.*` and `help.*`."""

    def everybodys(actor: Actor) -> bool:
        return actor.is_admin or (actor.role is Role.INTEGRATION and not actor.teams)

    def recipients(actor: Actor, args: SendArgs) -> list[str]:
        if args.team is not None:
            if args.team not in directory.teams:
                raise CommandError("no_such_team", "there is no such team")
            if not everybodys(actor) and args.team not in actor.teams:
                raise CommandError("not_your_team", f"{args.team} is not a team of yours")
            found = [login for login, agent in directory.agents.items() if agent.team == args.team]
            if not found:
                raise CommandError("nobody_there", f"nobody is in the team {args.team}")
            return found
        assert args.agent is not None
        if args.agent not in directory.agents:
            raise CommandError("not_an_agent", f"{args.agent} is not an agent")
        if not everybodys(actor) and directory.team_of(args.agent) not in actor.teams:
            raise CommandError("not_your_agent", f"{args.agent} is not in a team of yours")
        return [args.agent]

    async def send(actor: Actor, args: SendArgs) -> Sent:
        agents = recipients(actor, args)
        try:
            with refusing(away=NOTHING_SENT):
                id, told = await messages.send(actor, agents, args.team, args.text, datetime.now(UTC))
        except Unread as error:
            raise CommandError("too_many_unread", str(error)) from None
        publish(told)
        return Sent(message=id, agents=agents)

    async def read(actor: Actor, args: ReadArgs) -> None:
        try:
            with refusing(away=NOTHING_SENT):
                publish(await messages.read(actor.login, args.message, datetime.now(UTC)))
        except NoSuchMessage:
            why = "there is no such message for you, or you have read it"
            raise CommandError("no_such_message", why) from None

    async def ask(actor: Actor, args: HelpArgs) -> HelpView:
        if actor.login not in directory.agents:
            raise CommandError("not_an_agent", f"{actor.login} is not an agent")
        if not logged_on(actor.login):
            raise CommandError("wrong_state", "log on first")
        if args.call is not None and actor.login not in agents_in(args.call):
            raise CommandError("not_your_call", "you are not in this call")
        with refusing():
            publish(help_requests.ask(actor.login, args.call, args.text, datetime.now(UTC)))
        view = help_requests.of(actor.login)
        assert view is not None
        return view

    def led(actor: Actor, id: str) -> HelpView:
        with refusing():
            view = help_requests.known(id)
        if not actor.is_admin and directory.team_of(view.agent) not in actor.teams:
            raise CommandError("not_your_agent", f"{view.agent} is not in a team of yours")
        return view

    async def accept(actor: Actor, args: HelpNamed) -> HelpView:
        led(actor, args.help)
        with refusing():
            publish(help_requests.accept(args.help, actor.login, datetime.now(UTC)))
            return help_requests.known(args.help)

    async def close(actor: Actor, args: HelpNamed) -> None:
        with refusing():
            mine = help_requests.known(args.help).agent == actor.login
        if not mine:
            if actor.role is Role.AGENT:
                raise CommandError("not_your_agent", "this is another's request")
            led(actor, args.help)
        with refusing():
            reason = "withdrawn" if mine else "closed"
            publish(help_requests.close(args.help, actor.login, reason, datetime.now(UTC)))

    commands.add(
        "message.send",
        SendArgs,
        send,
        summary="Write to an agent or to all of a team; kept until each has read it. Plain text.",
        result=Sent,
        roles=SENDERS,
    )
    commands.add(
        "message.read",
        ReadArgs,
        read,
        summary="Say that you have read a message: its sender sees that.",
        roles=AGENTS,
    )
    commands.add(
        "help.request",
        HelpArgs,
        ask,
        summary="Ask the supervisors of your team for help, about a call or not; one request at a time.",
        result=HelpView,
        roles=AGENTS,
    )
    commands.add(
        "help.accept",
        HelpNamed,
        accept,
        summary="Take care of a request for help: the agent and the other supervisors see who does.",
        result=HelpView,
        roles=LEADERS,
    )
    commands.add(
        "help.close",
        HelpNamed,
        close,
        summary="A supervisor closes a request for help, an agent withdraws their own.",
        roles=(Role.AGENT, *LEADERS),
    )
