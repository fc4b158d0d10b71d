"""`call.do_not_call`: an agent puts the customer of a call on the do-not-call list, because they asked for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import asyncpg
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.commands import CommandError, Commands
from cti.database import AWAY
from cti.people import Actor, Role
from cti.plain_text import Plain
from dialer.law import do_not_call
from dialer.law.do_not_call import DoNotCallEntry

if TYPE_CHECKING:
    from cti.database import Pool

CallId = Annotated[str, StringConstraints(min_length=3, max_length=200)]


class Called(Protocol):
    """Whom a call is with: their number in E.164, None where it is not known."""

    @property
    def number(self) -> str | None: ...


class DoNotCallArgs(BaseModel):
    """The customer of a call that is yours, or just was, does not want to be called."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    call: CallId
    scope: Literal["everywhere", "company", "campaign"] = Field(
        default="everywhere", description="company, campaign: of the campaign that placed the call"
    )
    reason: Annotated[Plain, Field(max_length=300)] = ""
    days: int | None = Field(
        default=None,
        ge=1,
        le=3650,
        description="for so many days (France: 60 after a refusal); for ever if left out",
    )


def add_law_commands(
    commands: Commands,
    *,
    pool: Callable[[], Pool],
    works_on: Callable[[Actor, str], bool],
    customer_of: Callable[[Actor, str], Awaitable[Called]],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Registers `call.do_not_call`. Listed are the number of the call and the others of its contact: nobody types one."""

    async def ask_not_to(actor: Actor, args: DoNotCallArgs) -> DoNotCallEntry:
        if not works_on(actor, args.call):
            raise CommandError("not_your_call", "this call is not, and has not just been, yours")
        try:
            attempt = await _attempt(args.call)
            number = attempt["e164"] if attempt is not None else (await customer_of(actor, args.call)).number
            if number is None:
                raise CommandError(
                    "no_number", "the customer's number is not known: ask a supervisor to list it"
                )
            if attempt is None and args.scope != "everywhere":
                raise CommandError("no_campaign", "no campaign placed this call: list the number everywhere")
            company = attempt["company"] if attempt is not None and args.scope == "company" else ""
            if args.scope == "company" and not company:
                raise CommandError("no_company", "the campaign names no company: list the number everywhere")
            return await do_not_call.add(
                pool(),
                number=number,
                scope=args.scope,
                company=company,
                campaign=attempt["campaign_id"] if attempt is not None else None,
                reason=args.reason,
                call=args.call,
                expires=now() + timedelta(days=args.days) if args.days else None,
                by=actor.login,
            )
        except do_not_call.WrongEntry as error:
            raise CommandError("no_number", str(error)) from None
        except AWAY:
            raise CommandError(
                "database_unavailable",
                "the database is out of reach, nothing was kept: try again in a moment",
            ) from None

    async def _attempt(call: str) -> asyncpg.Record | None:
        """The attempt that became this call: its id is the channel's, so it is in the call's id; or for which an agent made
        the call."""
        return await pool().fetchrow(
            """SELECT a.e164, a.campaign_id, coalesce(c.settings ->> 'company', '') AS company
               FROM attempts a JOIN campaigns c ON c.id = a.campaign_id
               WHERE a.id = $1 OR a.call = $2 ORDER BY a.committed DESC LIMIT 1""",
            call.partition(":")[2],
            call,
        )

    commands.add(
        "call.do_not_call",
        DoNotCallArgs,
        ask_not_to,
        summary="The customer of this call does not want to be called: no campaign calls the number from now on.",
        result=DoNotCallEntry,
        roles=(Role.AGENT, Role.SUPERVISOR, Role.ADMIN),
    )
