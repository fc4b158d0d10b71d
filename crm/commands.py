"""What agents say about a call and its customer: notes, dispositions, who the customer is, pops put away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import asyncpg
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from crm.ani import LookupUnavailable
from crm.interactions import (
    ChangedMeanwhile,
    Interaction,
    Interactions,
    Note,
    NotYourNote,
    UnknownInteraction,
    UnknownNote,
    WrongDisposition,
    WrongText,
)
from crm.screen_pop import NotYourCall, ScreenPops, UnknownAccount, UnknownCall
from crm.views import PopView
from cti.command_refusals import refusing
from cti.commands import CommandError, Commands
from cti.database import AWAY
from cti.facts import Fact
from cti.people import Actor, Role
from cti.wrap_up import Disposition

if TYPE_CHECKING:
    from cti.database import Queryable

CallId = Annotated[str, StringConstraints(min_length=3, max_length=200)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class NoteArgs(BaseModel):
    """A note on a call."""

    model_config = ConfigDict(extra="forbid")

    call: CallId
    text: Text


class EditNoteArgs(BaseModel):
    """A note in place of an earlier one; `version` is the one that was read."""

    model_config = ConfigDict(extra="forbid")

    note: int = Field(ge=1, lt=1 << 63)
    text: Text
    version: int = Field(ge=1, lt=1 << 31)


class DisposeArgs(BaseModel):
    """How the contact ended, in the house's own words."""

    model_config = ConfigDict(extra="forbid")

    call: CallId
    disposition: Short


class IdentifyArgs(BaseModel):
    """Which account the caller is. `remember`: the number becomes one of the account's phones."""

    model_config = ConfigDict(extra="forbid")

    call: CallId
    account: int = Field(ge=1, lt=1 << 63)
    remember: bool = False


class DismissArgs(BaseModel):
    """A pop to take off the screen."""

    model_config = ConfigDict(extra="forbid")

    pop: Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Identified(BaseModel):
    """The pops as they are now."""

    pops: list[PopView]


class Dismissed(BaseModel):
    """Whether there was such a pop of an ended call."""

    dismissed: bool


NOT_KEPT = "the database is out of reach, nothing was kept: try again in a moment"

ERRORS: tuple[tuple[type[Exception], str, str], ...] = (
    (UnknownCall, "unknown_call", "there is no such call, or it is over and nobody works on it"),
    (NotYourCall, "not_your_call", "only who has this call on the screen may say whose it is"),
    (UnknownAccount, "unknown_account", "there is no account with this id"),
    (UnknownInteraction, "unknown_call", "there is no record of such a call"),
    (UnknownNote, "unknown_note", "there is no such note"),
    (NotYourNote, "not_your_note", "only its author or a supervisor may change a note"),
    (LookupUnavailable, "database_unavailable", "the customer data is out of reach: try again in a moment"),
    (asyncpg.ForeignKeyViolationError, "unknown_account", "this account is gone"),
    *((away, "database_unavailable", NOT_KEPT) for away in AWAY),
)


@contextmanager
def refusing_crm() -> Iterator[None]:
    """Turns what the customer data and what is promised to customers refuse into a CommandError."""
    try:
        with refusing():
            yield
    except CommandError:
        raise
    except Exception as error:
        raise _command_error(error) or error from None


def _command_error(error: Exception) -> CommandError | None:
    """The error to answer with, or None for one that nobody foresaw."""
    if isinstance(error, WrongText | ChangedMeanwhile):
        code = "wrong_text" if isinstance(error, WrongText) else "changed_meanwhile"
        return CommandError(code, str(error))
    if isinstance(error, WrongDisposition):
        return CommandError("unknown_disposition", str(error))
    for kind, code, message in ERRORS:
        if isinstance(error, kind):
            return CommandError(code, message)
    return None


def add_crm_commands(
    commands: Commands,
    *,
    pops: ScreenPops,
    interactions: Interactions,
    works_on: Callable[[Actor, str], bool],
    publish: Callable[[Iterable[Fact]], None],
    choice: Callable[[str, str, str | None], Sequence[Disposition]] = lambda login, call, queue: (),
    of_campaign: Callable[[Queryable, str], Awaitable[Sequence[Disposition] | None]] | None = None,
    follows: Callable[[Queryable, str, str, str], Awaitable[None]] | None = None,
    disposed: Callable[[Actor, str, str], None] = lambda actor, call, disposition: None,
) -> None:
    """Registers `call.note`, `call.dispose`, `call.identify`, `note.edit`, `pop.dismiss`.

    `works_on(actor, call)`: whether the call is, or has just been, that person's or their team's.
    `choice(login, call, queue)`: what somebody may say the call ended with, any text if nothing is given back;
    `of_campaign(db, call)`: what the campaign that placed it says of that, which outranks it; None for any other call.
    `follows(db, call, disposition, login)` does what comes of it, in the transaction that keeps it.
    `disposed(actor, call, disposition)` is told when it was said.
    """

    def mine(actor: Actor, call: str) -> None:
        if not works_on(actor, call):
            raise CommandError("not_your_call", "you are not on this call and it is not on your screen")

    async def note(actor: Actor, args: NoteArgs) -> Note:
        mine(actor, args.call)
        with refusing_crm():
            return await interactions.add_note(actor, args.text, call=args.call)

    async def edit_note(actor: Actor, args: EditNoteArgs) -> Note:
        with refusing_crm():
            return await interactions.edit_note(actor, args.note, args.text, version=args.version)

    async def dispose(actor: Actor, args: DisposeArgs) -> Interaction:
        mine(actor, args.call)
        with refusing_crm():
            found = await interactions.dispose(
                actor,
                args.call,
                args.disposition,
                choice=lambda queue: choice(actor.login, args.call, queue),
                of_campaign=of_campaign,
                follows=follows,
            )
        disposed(actor, args.call, found.disposition or args.disposition)
        return found

    async def identify(actor: Actor, args: IdentifyArgs) -> Identified:
        with refusing_crm():
            found = await pops.identify(actor, args.call, args.account, remember=args.remember)
        return Identified(pops=list(found))

    async def dismiss(actor: Actor, args: DismissArgs) -> Dismissed:
        facts = pops.dismiss(actor, args.pop)
        publish(facts)
        return Dismissed(dismissed=bool(facts))

    people = (Role.AGENT, Role.SUPERVISOR, Role.ADMIN)
    commands.add(
        "call.note",
        NoteArgs,
        note,
        summary="Write a note on a call; kept when answered.",
        result=Note,
        roles=people,
    )
    commands.add(
        "note.edit",
        EditNoteArgs,
        edit_note,
        summary="Replace a note one has written.",
        result=Note,
        roles=people,
    )
    commands.add(
        "call.dispose",
        DisposeArgs,
        dispose,
        summary="Say how the contact ended, with a code of the campaign's or queue's if it has any; the last word counts.",
        result=Interaction,
        roles=people,
    )
    commands.add(
        "call.identify",
        IdentifyArgs,
        identify,
        summary="Say which account the caller is; every pop of the call is updated.",
        result=Identified,
        roles=people,
    )
    commands.add(
        "pop.dismiss",
        DismissArgs,
        dismiss,
        summary="Take an ended call's pop off the screen.",
        result=Dismissed,
        roles=people,
    )
