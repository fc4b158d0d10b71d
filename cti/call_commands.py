"""What agents, and supervisors for their teams, ask of calls. Each is answered with what the switch shows afterwards."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from cti.commands import CommandError, Commands
from cti.control.control import Control
from cti.control.ports import CallAnswer
from cti.control.targets import Target, Targets
from cti.people import Actor, Directory, Role
from cti.plain_text import Plain

CallId = Annotated[str, StringConstraints(min_length=3, max_length=200)]
Login = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Number = Annotated[str, StringConstraints(min_length=1, max_length=40)]

ROLES = (Role.AGENT, Role.SUPERVISOR, Role.ADMIN, Role.INTEGRATION)
LIMIT = 25.0
"""Seconds for a command of several steps, each with a limit of its own; the sum of those is below it."""


class OnCall(BaseModel):
    """Which call, and whose part in it."""

    model_config = ConfigDict(extra="forbid")

    call: CallId
    agent: Login | None = Field(
        default=None,
        description="a supervisor's agent; yourself, or your only agent in the call, if left out",
    )


class ToTarget(BaseModel):
    """Where to: exactly one of these."""

    model_config = ConfigDict(extra="forbid")

    to: Number | None = Field(default=None, description="a number, as a phone of the house would dial it")
    to_agent: Login | None = Field(default=None, description="an agent's own phone")

    @model_validator(mode="after")
    def _exactly_one(self) -> ToTarget:
        given = sum(value is not None for name, value in self if name.startswith("to"))
        if given != 1:
            raise ValueError("say where to: exactly one target")
        return self


class ConsultArgs(OnCall, ToTarget):
    """Whom to ask."""


class ToTargetOrQueue(ToTarget):
    """Where to, queues among it: exactly one of these."""

    to_queue: Annotated[str, StringConstraints(max_length=120)] | None = Field(
        default=None, description="a queue's id, `main:support`"
    )


class AskArgs(OnCall, ToTargetOrQueue):
    """Whom to ask; of a queue, whoever takes it."""

    wait: int = Field(default=60, ge=5, le=600, description="seconds to wait in a queue for somebody")
    priority: int = Field(default=0, ge=0, le=1000, description="in a queue: higher goes first")


class TransferArgs(OnCall, ToTargetOrQueue):
    """Where the call goes."""


class EscalateArgs(OnCall):
    """Why the call goes to the second level, for whoever takes it there."""

    reason: Annotated[Plain, Field(min_length=1, max_length=200)]
    note: Annotated[Plain, Field(max_length=1000)] = Field(
        default="", description="what was done so far; some rules want one"
    )
    priority: int | None = Field(
        default=None, ge=0, le=1000, description="the rule's if left out; for supervisors"
    )


class DeflectArgs(TransferArgs):
    """Where the ringing call goes instead."""


class PartyArgs(OnCall):
    """Which party of a conference."""

    party: Annotated[str, StringConstraints(min_length=3, max_length=200)] = Field(
        description="the id of its connection"
    )


class MuteArgs(PartyArgs):
    """Whether the others hear a party."""

    muted: bool = True


class MicrophoneArgs(OnCall):
    """Whether the other party hears the agent."""

    muted: bool = True


class DtmfArgs(OnCall):
    """Tones to send. They may be a card number: the audit does not keep them."""

    digits: SecretStr = Field(
        description="0-9 A-D * #, up to 32", json_schema_extra={"pattern": "^[0-9A-D*#]{1,32}$"}
    )

    @field_validator("digits")
    @classmethod
    def _tones(cls, value: SecretStr) -> SecretStr:
        if re.fullmatch(r"[0-9A-D*#]{1,32}", value.get_secret_value()) is None:
            raise ValueError("up to 32 of 0-9 A-D * #")
        return value


class DataArgs(BaseModel):
    """Correlator data: what any client attaches to a call. It follows the call; an empty value removes an entry."""

    model_config = ConfigDict(extra="forbid")

    call: CallId
    data: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")],
        Annotated[str, StringConstraints(max_length=1000)],
    ] = Field(min_length=1, max_length=32)


class MakeArgs(ToTarget):
    """Whom to call."""

    agent: Login | None = Field(default=None, description="whose phone calls; yours if left out")
    pbx: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="which PBX; the only one on which the agent has a phone if left out"
    )


A = TypeVar("A", bound=OnCall)


def add_call_commands(
    commands: Commands,
    *,
    control: Control,
    directory: Directory,
    agents_in: Callable[[str], tuple[str, ...]],
    works_on: Callable[[Actor, str], bool],
    set_data: Callable[[str, dict[str, str], str], None],
    written: Callable[[], Awaitable[bool]],
) -> None:
    """Registers `call.*`.

    `works_on`: whether a call is, or has just been, somebody's or their team's. `written`: waits until what was said so
    far is in the database; False if that takes too long.
    """

    def everybodys(actor: Actor) -> bool:
        return actor.is_admin or (actor.role is Role.INTEGRATION and not actor.teams)

    def whose(actor: Actor, call: str, agent: str | None) -> str:
        """The agent on whose connection it is done; raises CommandError."""
        there = agents_in(call)
        if agent is None or agent == actor.login:
            if actor.login in there or actor.role is Role.AGENT:
                return actor.login
            mine = [one for one in there if everybodys(actor) or directory.team_of(one) in actor.teams]
            if len(mine) == 1:
                return mine[0]
            if mine:
                raise CommandError(
                    "which_agent", f"several agents are in this call: say which of {', '.join(mine)}"
                )
            if agent is None and there:
                raise CommandError("not_your_call", "no agent of yours is in this call")
            return actor.login
        own(actor, agent)
        return agent

    def own(actor: Actor, agent: str) -> None:
        if agent != actor.login and not everybodys(actor):
            if actor.role is Role.AGENT:
                raise CommandError("not_your_agent", "you can use your own phone only")
            if directory.team_of(agent) not in actor.teams:
                raise CommandError("not_your_agent", f"{agent} is not in a team of yours")

    def register(
        op: str,
        args: type[A],
        do: Callable[[A, str], Awaitable[CallAnswer]],
        summary: str,
        lane: str = "call",
    ) -> None:
        async def handler(actor: Actor, given: A) -> CallAnswer:
            return await do(given, whose(actor, given.call, given.agent))

        commands.add(
            op, args, handler, summary=summary, result=CallAnswer, roles=ROLES, lane=lane, limit=LIMIT
        )

    async def make(actor: Actor, args: MakeArgs) -> CallAnswer:
        agent = args.agent or actor.login
        own(actor, agent)
        known = directory.agents.get(agent)
        if known is None:
            raise CommandError("no_phone", f"{agent} is not an agent and has no phone")
        pbx = args.pbx
        if pbx is None:
            if len(known.interfaces) != 1:
                raise CommandError(
                    "no_phone", f"say on which PBX: {agent} has phones on {len(known.interfaces)}"
                )
            (pbx,) = known.interfaces
        return await control.make(pbx, agent, finder(args))

    async def clear(actor: Actor, args: OnCall) -> CallAnswer:
        there = agents_in(args.call)
        if not (
            everybodys(actor)
            or actor.login in there
            or (actor.role is Role.SUPERVISOR and works_on(actor, args.call))
        ):
            control.known(args.call)
            raise CommandError("not_your_call", "you are not in this call")
        return await control.clear(args.call)

    async def attach(actor: Actor, args: DataArgs) -> CallAnswer:
        control.known(args.call)
        if not (everybodys(actor) or works_on(actor, args.call)):
            raise CommandError("not_your_call", "you have nothing to do with this call")
        set_data(args.call, args.data, actor.login)
        return replace(control.told(args.call, actor.login), saved=await written())

    async def escalate(actor: Actor, args: EscalateArgs) -> CallAnswer:
        agent = whose(actor, args.call, args.agent)
        if args.priority is not None and actor.role is Role.AGENT:
            raise CommandError(
                "forbidden", "the rule says how urgent it is: leave priority out, or ask a supervisor"
            )
        answer = await control.escalate(
            args.call, agent, reason=args.reason, note=args.note, priority=args.priority, by=actor.login
        )
        return replace(answer, saved=await written())

    async def pick_up(actor: Actor, args: OnCall) -> CallAnswer:
        agent = args.agent or actor.login
        own(actor, agent)
        return await control.pick_up(args.call, agent)

    commands.add(
        "call.set_data",
        DataArgs,
        attach,
        summary="Attach data to a call; it follows the call, and all who see the call see it.",
        result=CallAnswer,
        roles=ROLES,
    )
    commands.add(
        "call.escalate",
        EscalateArgs,
        escalate,
        summary="Hand the other party up to the second level, by the rules of the call's queue, and leave. With nobody at"
        " work there nothing changes.",
        result=CallAnswer,
        roles=ROLES,
        lane="call",
        limit=LIMIT,
    )
    commands.add(
        "call.pick_up",
        OnCall,
        pick_up,
        summary="Fetch a parked call: the agent's phone rings, and is then with it.",
        result=CallAnswer,
        roles=ROLES,
        lane="call",
        limit=LIMIT,
    )
    commands.add(
        "call.make",
        MakeArgs,
        make,
        summary="Call somebody: the agent's own phone first, then the target. Answered once that phone rings.",
        result=CallAnswer,
        roles=ROLES,
        lane="call",
        limit=LIMIT,
    )
    commands.add(
        "call.clear",
        OnCall,
        clear,
        summary="End the whole call, for everybody in it.",
        result=CallAnswer,
        roles=ROLES,
        lane="call",
        limit=LIMIT,
    )
    register(
        "call.hold",
        OnCall,
        lambda args, agent: control.hold(args.call, agent),
        "Put the other party on hold: music for them, silence for the agent, with any phone.",
    )
    register(
        "call.retrieve",
        OnCall,
        lambda args, agent: control.retrieve(args.call, agent),
        "Talk on with the party on hold.",
    )
    register(
        "call.mute",
        MicrophoneArgs,
        lambda args, agent: control.mute_microphone(args.call, agent, args.muted),
        "Mute the agent's microphone, or not: at a phone in the browser, which says whether it did.",
    )
    register(
        "call.hangup",
        OnCall,
        lambda args, agent: control.clear_connection(args.call, agent),
        "Leave the call; it ends if nobody else talks in it.",
    )
    register(
        "call.transfer",
        TransferArgs,
        lambda args, agent: control.transfer(args.call, agent, finder(args)),
        "Hand the other party on to a number, an agent or a queue, and leave. A wrong target changes nothing.",
    )
    register(
        "call.consult",
        AskArgs,
        lambda args, agent: control.consult(
            args.call, agent, finder(args), wait=args.wait, priority=args.priority
        ),
        "Ask somebody while the other party is on hold: a number, an agent, or whoever of a queue takes it. Answered once"
        " the target rings, or you wait in the queue.",
    )
    register(
        "call.alternate",
        OnCall,
        lambda args, agent: control.alternate(args.call, agent),
        "In a consultation, change between the two parties.",
    )
    register(
        "call.complete",
        OnCall,
        lambda args, agent: control.complete(args.call, agent),
        "In a consultation, bring the two parties together and leave, also while the asked one still rings.",
    )
    register(
        "call.cancel",
        OnCall,
        lambda args, agent: control.cancel(args.call, agent),
        "End the consultation and talk with the first party again.",
    )
    register(
        "call.answer",
        OnCall,
        lambda args, agent: control.answer(args.call, agent),
        "Answer the ringing phone from the screen, if the phone can do that.",
    )
    register(
        "call.deflect",
        DeflectArgs,
        lambda args, agent: control.deflect(args.call, agent, finder(args)),
        "Send a call that rings at the agent's phone elsewhere, unanswered.",
    )
    register(
        "call.dtmf",
        DtmfArgs,
        lambda args, agent: control.dtmf(args.call, agent, args.digits.get_secret_value()),
        "Send tones to the other party.",
    )
    register(
        "call.park",
        OnCall,
        lambda args, agent: control.park(args.call, agent),
        "Let the other party wait in a parking slot, and leave; the answer says which. Not fetched, they come back.",
    )
    register(
        "call.conference",
        OnCall,
        lambda args, agent: control.join(args.call, agent),
        "Make a conference of a consultation: all three talk.",
    )
    register(
        "conference.add",
        ConsultArgs,
        lambda args, agent: control.add(args.call, agent, finder(args)),
        "Call somebody into the conference; a call of two becomes one. Answered once the target rings.",
    )
    register(
        "conference.remove",
        PartyArgs,
        lambda args, agent: control.remove(args.call, agent, args.party),
        "Take a party out of the conference.",
    )
    register(
        "conference.mute",
        MuteArgs,
        lambda args, agent: control.mute(args.call, agent, args.party, args.muted),
        "Whether the others hear a party of the conference.",
    )
    register(
        "conference.hand_over",
        OnCall,
        lambda args, agent: control.hand_over(args.call, agent),
        "Leave the conference; the others talk on.",
    )
    register(
        "recording.start",
        OnCall,
        lambda args, agent: control.record(args.call, agent),
        "Record the call from now on; an error if no recording is written.",
        lane="recording",  # it takes seconds until a recording is known to be written: nobody waits for that with a call
    )
    register(
        "recording.pause",
        OnCall,
        lambda args, agent: control.pause(args.call, agent, True),
        "Record silence until `recording.resume`: for card numbers.",
    )
    register(
        "recording.resume",
        OnCall,
        lambda args, agent: control.pause(args.call, agent, False),
        "Go on recording.",
    )
    register(
        "recording.stop",
        OnCall,
        lambda args, agent: control.stop_recording(args.call, agent),
        "End the recording.",
    )


def finder(args: ToTarget) -> Callable[[Targets], Awaitable[Target]]:
    """What looks for the target that the arguments name."""

    async def find(targets: Targets) -> Target:
        if args.to is not None:
            return await targets.number(args.to)
        if args.to_agent is not None:
            return await targets.agent(args.to_agent)
        return targets.queue(getattr(args, "to_queue", None) or "")

    return find
