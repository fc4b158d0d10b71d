"""What supervisors ask for about the calls of their agents: listen, whisper, barge, take over. All of it is audited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.alarms import Alarms
from cti.commands import CommandError, Commands, NoArgs
from cti.control.ports import CallAnswer
from cti.control.supervising import Supervising
from cti.facts import Fact
from cti.people import Actor, Directory, Role
from cti.supervision import AlarmView, Mode, SupervisionView

CallId = Annotated[str, StringConstraints(min_length=3, max_length=200)]
Login = Annotated[str, StringConstraints(min_length=1, max_length=64)]

SUPERVISORS = (Role.SUPERVISOR, Role.ADMIN)
LIMIT = 40.0
"""Seconds: the supervisor's own phone has to be picked up, then comes what is proven."""


class WatchArgs(BaseModel):
    """Whose call."""

    model_config = ConfigDict(extra="forbid")

    agent: Login
    call: CallId | None = Field(
        default=None, description="which of their calls; the one they talk in if left out"
    )


class AlarmNamed(BaseModel):
    """Which alarm."""

    model_config = ConfigDict(extra="forbid")

    alarm: Annotated[str, StringConstraints(min_length=1, max_length=64)]


R = TypeVar("R")


def add_supervisor_commands(commands: Commands, *, supervising: Supervising, directory: Directory) -> None:
    """Registers `supervisor.*`."""

    def own(actor: Actor, agent: str) -> None:
        if agent not in directory.agents:
            raise CommandError("not_an_agent", f"{agent} is not an agent")
        if agent == actor.login:
            raise CommandError("not_your_agent", "you cannot listen to yourself")
        if not actor.is_admin and directory.team_of(agent) not in actor.teams:
            raise CommandError("not_your_agent", f"{agent} is not in a team of yours")

    def register(
        op: str, do: Callable[[Actor, WatchArgs], Awaitable[R]], result: type[R], summary: str
    ) -> None:
        async def handler(actor: Actor, args: WatchArgs) -> R:
            own(actor, args.agent)
            return await do(actor, args)

        commands.add(
            op,
            WatchArgs,
            handler,
            summary=summary,
            result=result,
            roles=SUPERVISORS,
            lane="supervisor",
            limit=LIMIT,
        )

    def watch(mode: Mode) -> Callable[[Actor, WatchArgs], Awaitable[SupervisionView]]:
        return lambda actor, args: supervising.watch(actor.login, args.agent, args.call, mode)

    async def take_over(actor: Actor, args: WatchArgs) -> CallAnswer:
        view = await supervising.take_over(actor.login, args.agent, args.call)
        return CallAnswer(call=view.id, agent=actor.login, view=view)

    async def stop(actor: Actor, _args: NoArgs) -> SupervisionView:
        return await supervising.stop(actor.login)

    register(
        "supervisor.listen",
        watch(Mode.LISTEN),
        SupervisionView,
        "Hear an agent's call: your own phone is called. Answered once you hear it.",
    )
    register(
        "supervisor.whisper",
        watch(Mode.WHISPER),
        SupervisionView,
        "Hear an agent's call and be heard by the agent, not by the other party.",
    )
    register(
        "supervisor.barge",
        watch(Mode.BARGE),
        SupervisionView,
        "Hear an agent's call and be heard by both.",
    )
    register(
        "supervisor.take_over",
        take_over,
        CallAnswer,
        "Take an agent's call: you talk with the other party, the agent is let go. Your phone is called first if need be.",
    )
    commands.add(
        "supervisor.stop",
        NoArgs,
        stop,
        summary="Listen no longer: your own phone hangs up.",
        result=SupervisionView,
        roles=SUPERVISORS,
        limit=LIMIT,
    )


def add_alarm_commands(
    commands: Commands,
    *,
    alarms: Alarms,
    sees: Callable[[Actor, AlarmView], bool],
    publish: Callable[[Iterable[Fact]], None],
) -> None:
    """Registers `alarm.acknowledge`. `sees`: whether an alarm is one of somebody's queues, teams or PBXs."""

    async def acknowledge(actor: Actor, args: AlarmNamed) -> AlarmView:
        view = next((one for one in alarms.views() if one.id == args.alarm), None)
        if view is None or not sees(actor, view):
            raise CommandError("no_such_alarm", "there is no such alarm, or it is over")
        try:
            publish(alarms.acknowledge(args.alarm, actor.login, datetime.now(UTC)))
        except ValueError as error:
            raise CommandError("already_acknowledged", f"{error} sees to it already") from None
        return next(one for one in alarms.views() if one.id == args.alarm)

    commands.add(
        "alarm.acknowledge",
        AlarmNamed,
        acknowledge,
        summary="Say that you see to an alarm: all who see it are shown who does.",
        result=AlarmView,
        roles=SUPERVISORS,
    )
