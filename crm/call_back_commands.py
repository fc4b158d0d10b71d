"""What agents promise customers: `call.call_back`, and `call_back.take`, `.release`, `.move`, `.done`, `.cancel`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from crm.call_backs import CallBacks, NotPossible, kept_by, when, zone_of
from crm.commands import refusing_crm
from crm.views import CallBackView
from cti.commands import CommandError, Commands
from cti.control.ports import CallAnswer
from cti.numbers import read_caller
from cti.people import Actor, Directory, Role
from cti.plain_text import Plain

CallId = Annotated[str, StringConstraints(min_length=3, max_length=200)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Note = Annotated[Plain, Field(max_length=500)]

PEOPLE = (Role.AGENT, Role.SUPERVISOR, Role.ADMIN)
LIMIT = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Whom a call was with, as far as is known: number in E.164, region of the PBX for numbers written as there."""

    number: str | None
    name: str
    account: int | None
    zone: str
    region: str


class Time(BaseModel):
    """A time for the customer."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    at: datetime = Field(
        description="2026-11-23T09:30 as the customer's clock shows it, or with an offset: 2026-11-23T09:30:00Z"
    )
    zone: Name | None = Field(
        default=None, description="Europe/London; left out: the customer's, else that of the number"
    )


class Keeper(BaseModel):
    """Who keeps a promise: at most one of these."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    agent: Name | None = Field(default=None, description="a supervisor's: which agent keeps it")
    team: Name | None = Field(default=None, description="any of this team may keep it")
    queue: Name | None = Field(default=None, description="main:support: the team that watches this queue")

    @model_validator(mode="after")
    def _one_keeper(self) -> Self:
        if sum(value is not None for value in (self.agent, self.team, self.queue)) > 1:
            raise ValueError("say who keeps it: one of agent, team and queue")
        return self


class Promise(Time, Keeper):
    """What is promised, in a call or just after it. Kept by yourself if neither agent, team nor queue is named."""

    call: CallId
    number: Name | None = Field(default=None, description="left out: the customer's number in this call")
    note: Note = ""


class Named(BaseModel):
    """Which call back."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    call_back: int = Field(ge=1, lt=1 << 62)


class TakeArgs(Named):
    """Take it, and call the customer."""

    pbx: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="on which PBX; the only one on which you have a phone if left out"
    )


class MoveArgs(Named, Time):
    """Another time."""


class HandOverArgs(Named, Keeper):
    """Who keeps it from now on; yourself if nobody is named."""


class DoneArgs(Named):
    """What came of it."""

    outcome: Annotated[Plain, Field(max_length=200)] = ""


class CancelArgs(Named):
    """Why it is not kept."""

    reason: Annotated[Plain, Field(max_length=200)] = ""


class Taken(BaseModel):
    """A call back that is yours now, and the call to the customer: your own phone first."""

    call_back: CallBackView
    call: CallAnswer


A = TypeVar("A", bound=Named)


def add_call_back_commands(
    commands: Commands,
    *,
    call_backs: CallBacks,
    directory: Directory,
    works_on: Callable[[Actor, str], bool],
    customer_of: Callable[[Actor, str], Awaitable[Customer]],
    dial: Callable[[str, str, str], Awaitable[CallAnswer]],
    mark: Callable[[str, int, str], None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Registers the commands. `customer_of(actor, call)`; `dial(pbx, agent, number)` calls from the agent's phone;
    `mark(call, call_back, by)` attaches the id of the call back to the call that keeps it."""

    async def promise(actor: Actor, args: Promise) -> CallBackView:
        if not works_on(actor, args.call):
            raise CommandError("not_your_call", "this call is not, and has not just been, yours")
        agent, team = keeper(actor, args)
        with refusing_crm():
            customer = await customer_of(actor, args.call)
            number = customer.number
            if args.number is not None:
                number = read_caller(args.number, customer.region).e164
                if number is None:
                    raise CommandError("bad_number", "number: no country has such a number")
            if number is None:
                raise CommandError("bad_number", "the customer's number is not known: say which to call")
            zone = args.zone or customer.zone or zone_of(number, now())
            if zone is None:
                if args.at.tzinfo is None:
                    raise CommandError("which_zone", "the customer's time zone is not known: say which")
                zone = "UTC"
            return await call_backs.promise(
                number=number,
                name=customer.name,
                account=customer.account,
                due=when(args.at, zone, now()),
                zone=zone,
                agent=agent,
                team=team,
                note=args.note,
                call=args.call,
                by=actor.login,
            )

    def keeper(actor: Actor, args: Keeper) -> tuple[str | None, str | None]:
        """(agent, team) who keep a promise; raises CommandError for those who are not the actor's to bind."""
        if args.queue is not None:
            return None, of_queue(actor, args.queue)
        if args.team is not None:
            if args.team not in directory.teams:
                raise CommandError("no_such_team", "there is no such team")
            mine = {directory.team_of(actor.login), *actor.teams}
            if args.team not in mine and not actor.is_admin:
                raise CommandError("not_your_team", f"{args.team} is not a team of yours")
            return None, args.team
        agent = args.agent or actor.login
        if agent not in directory.agents:
            raise CommandError("not_an_agent", f"{agent} is not an agent: name an agent, a team or a queue")
        if agent != actor.login and not (actor.is_admin or directory.team_of(agent) in actor.teams):
            raise CommandError("not_your_agent", f"{agent} is not in a team of yours")
        return agent, directory.team_of(agent)

    def of_queue(actor: Actor, queue: str) -> str:
        teams = directory.teams_of_queue(queue)
        if not teams:
            raise CommandError("no_such_queue", f"no team watches a queue {queue}")
        own = directory.agents.get(actor.login)
        works_there = own is not None and any(a.queue == queue for a in own.queues)
        if not (actor.is_admin or works_there or teams & actor.teams):
            raise CommandError("not_your_queue", f"{queue} is not a queue of yours")
        mine = own.team if own is not None else None
        return mine if mine is not None and mine in teams else min(teams)

    def mine(actor: Actor, id: int, *, to_keep: bool = False) -> CallBackView:
        """One that the actor may change, or `to_keep` call; one they may not even see is not there."""
        view = call_backs.live(id)
        if kept_by(view, actor.login, directory.team_of(actor.login)):
            return view
        if not to_keep and (actor.is_admin or view.created_by == actor.login or view.team in actor.teams):
            return view
        if actor.is_admin or view.team in actor.teams:
            raise CommandError(
                "not_yours", "the agent, or one of the team, calls back: it is not yours to take"
            )
        raise NotPossible("no_such_call_back", "there is no such call back for you, or it is over")

    async def take(actor: Actor, args: TakeArgs) -> Taken:
        with refusing_crm():
            mine(actor, args.call_back, to_keep=True)
            pbx = phone_at(actor, args.pbx)
            view, just_now = await call_backs.take(args.call_back, actor.login)
        try:
            call = await dial(pbx, actor.login, view.number)
        except CommandError:
            if just_now:  # nobody is calling: others may
                with suppress(Exception):
                    await call_backs.release(view.id, actor.login)
            raise
        mark(call.call, view.id, actor.login)
        return Taken(call_back=view, call=call)

    def phone_at(actor: Actor, pbx: str | None) -> str:
        known = directory.agents.get(actor.login)
        phones = known.interfaces if known is not None else {}
        if pbx is None and len(phones) == 1:
            return next(iter(phones))
        if pbx is None or pbx not in phones:
            raise CommandError("no_phone", f"say on which PBX: you have phones on {len(phones)}")
        return pbx

    async def release(actor: Actor, args: Named) -> CallBackView:
        if mine(actor, args.call_back).taken_by not in (None, actor.login) and actor.role is Role.AGENT:
            raise NotPossible("already_taken", "somebody else has taken it")
        return await call_backs.release(args.call_back, actor.login)

    async def move(actor: Actor, args: MoveArgs) -> CallBackView:
        view = changeable(actor, args.call_back)
        zone = args.zone or view.zone
        return await call_backs.move(args.call_back, when(args.at, zone, now()), zone, actor.login)

    async def hand_over(actor: Actor, args: HandOverArgs) -> CallBackView:
        changeable(actor, args.call_back)
        agent, team = keeper(actor, args)
        return await call_backs.hand_over(args.call_back, agent, team, actor.login)

    async def done(actor: Actor, args: DoneArgs) -> CallBackView:
        changeable(actor, args.call_back)
        return await call_backs.finish(args.call_back, actor.login, args.outcome)

    async def cancel(actor: Actor, args: CancelArgs) -> CallBackView:
        changeable(actor, args.call_back)
        return await call_backs.cancel(args.call_back, actor.login, args.reason)

    def changeable(actor: Actor, id: int) -> CallBackView:
        view = mine(actor, id)
        if view.taken_by not in (None, actor.login) and actor.role is Role.AGENT:
            raise NotPossible("already_taken", f"{view.taken_by} has taken it")
        return view

    def register(
        op: str, args: type[A], do: Callable[[Actor, A], Awaitable[CallBackView]], summary: str
    ) -> None:
        async def handler(actor: Actor, given: A) -> CallBackView:
            with refusing_crm():
                return await do(actor, given)

        commands.add(op, args, handler, summary=summary, result=CallBackView, roles=PEOPLE)

    commands.add(
        "call.call_back",
        Promise,
        promise,
        summary="Promise the customer of a call, in it or just after, a call at a time; kept when answered.",
        result=CallBackView,
        roles=PEOPLE,
    )
    commands.add(
        "call_back.take",
        TakeArgs,
        take,
        summary="Take a call back, which then nobody else can, and call the customer: your own phone first.",
        result=Taken,
        roles=PEOPLE,
        lane="call",
        limit=LIMIT,
    )
    register("call_back.release", Named, release, "Give back a call back that was taken: it is open again.")
    register("call_back.move", MoveArgs, move, "Another time for a call back; it is open again.")
    register(
        "call_back.hand_over",
        HandOverArgs,
        hand_over,
        "Somebody else keeps it from now on: an agent of yours, a team, or the team that watches a queue; it is open again.",
    )
    register("call_back.done", DoneArgs, done, "The promise is kept.")
    register("call_back.cancel", CancelArgs, cancel, "Take a promise back.")
