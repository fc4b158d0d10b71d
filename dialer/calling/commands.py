"""What agents ask of campaigns that they dial themselves: the next contact, call it, skip it; look through them and pick."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.campaigns import ContactsToCall, OfferView
from cti.command_refusals import NOTHING_DONE, refusing
from cti.commands import Commands
from cti.people import Actor, Role
from cti.plain_text import Plain
from dialer.calling.picking import Place, Wanted
from dialer.calling.preview import PreviewDesk

AGENTS = (Role.AGENT, Role.SUPERVISOR, Role.ADMIN)
LIMIT = 25.0
"""Seconds: a call begins with the agent's own phone."""


class OnOffer(BaseModel):
    """Which contact: the `offer` of offer.made."""

    model_config = ConfigDict(extra="forbid")

    offer: Annotated[str, StringConstraints(pattern=r"^at-[0-9a-f]{32}$")]


class Skipped(OnOffer):
    """Why it is not called. `later`: somebody else is asked in an hour; else nobody is any more."""

    reason: Annotated[Plain, Field(min_length=1, max_length=150)]
    later: bool = False


class NextOf(BaseModel):
    """Of which campaign; the one with the highest priority if left out."""

    model_config = ConfigDict(extra="forbid")

    campaign: int | None = Field(default=None, ge=1, lt=1 << 62)


class Searched(Wanted):
    """Which contacts of which campaign in mode manual; of the one with the highest priority if left out."""

    campaign: int | None = Field(default=None, ge=1, lt=1 << 62)
    limit: int = Field(default=20, ge=1, le=50)
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}-[0-9]{1,18}$")] | None = Field(
        default=None, description="`next` of the page before"
    )


class Picked(BaseModel):
    """Which contact: the `contact` of campaign.contacts."""

    model_config = ConfigDict(extra="forbid")

    contact: int = Field(ge=1, lt=1 << 62)


def add_campaign_commands(commands: Commands, *, desk: PreviewDesk) -> None:
    """Registers `campaign.*`."""

    async def accept(actor: Actor, args: OnOffer) -> OfferView:
        with refusing(away=NOTHING_DONE):
            return await desk.accept(actor.login, args.offer)

    async def skip(actor: Actor, args: Skipped) -> OfferView:
        with refusing(away=NOTHING_DONE):
            return await desk.skip(actor.login, args.offer, args.reason, later=args.later)

    async def following(actor: Actor, args: NextOf) -> OfferView:
        with refusing(away=NOTHING_DONE):
            return await desk.next(actor.login, args.campaign)

    async def contacts(actor: Actor, args: Searched) -> ContactsToCall:
        after = Place.of(args.cursor) if args.cursor else Place()
        with refusing(away=NOTHING_DONE):
            return await desk.search(actor.login, args.campaign, args, after, args.limit)

    async def pick(actor: Actor, args: Picked) -> OfferView:
        with refusing(away=NOTHING_DONE):
            return await desk.pick(actor.login, args.contact)

    commands.add(
        "campaign.contacts",
        Searched,
        contacts,
        summary="Look through the contacts that you may pick, in mode manual; each with what the law says of it now.",
        result=ContactsToCall,
        roles=AGENTS,
        lane="work",
    )
    commands.add(
        "campaign.pick",
        Picked,
        pick,
        summary="Call this contact, in mode manual: your own phone first; answered once that rings.",
        result=OfferView,
        roles=AGENTS,
        lane="work",
        limit=LIMIT,
    )
    commands.add(
        "campaign.accept",
        OnOffer,
        accept,
        summary="Call the contact that is offered to you: your own phone first; answered once that rings.",
        result=OfferView,
        roles=AGENTS,
        lane="work",
        limit=LIMIT,
    )
    commands.add(
        "campaign.skip",
        Skipped,
        skip,
        summary="Do not call the contact that is offered to you, and why.",
        result=OfferView,
        roles=AGENTS,
        lane="work",
    )
    commands.add(
        "campaign.next",
        NextOf,
        following,
        summary="Ask for the next contact of a campaign that agents dial.",
        result=OfferView,
        roles=AGENTS,
        lane="work",
    )
