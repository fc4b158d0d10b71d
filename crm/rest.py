"""REST routes of the CRM side: accounts, their people and phones, interactions and notes, and who a number belongs to.

Names and numbers never stand in an address (addresses end up in logs): what is searched for goes in a body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from crm import accounts, interactions
from crm.accounts import Account, AccountChange, AccountDetail, NewAccount, NewContact, NewPhone, Phone
from crm.ani import Identification, LookupUnavailable
from crm.interactions import Interaction, Note
from crm.paging import WrongCursor
from crm.views import Candidate, ContactCard
from cti.openapi import Route
from cti.people import Actor
from cti.problems import Problem
from cti.rest.pages import Page, Paging
from cti.rest.serving import Asked, Reply, Translate

if TYPE_CHECKING:
    from cti.database import Pool

Id = Annotated[int, Field(ge=1, lt=1 << 63)]
Region = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166 country of national numbers")]


class OneId(BaseModel):
    """The thing that the address names."""

    id: Id


class PhoneAt(BaseModel):
    """A phone of an account."""

    id: Id
    phone: Id


class AccountSearch(BaseModel):
    """What to look for: a phone number, the beginning of an account number, part of a name. Empty: all, by name."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(default="", max_length=100)
    region: Region = "US"
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=1000)


AccountEdit = create_model(
    "AccountEdit",
    __config__=ConfigDict(extra="forbid"),
    __doc__="What is to be different; what is left out stays.",
    **{
        name: (field.annotation, field)
        for name, field in AccountChange.model_fields.items()
        if name != "version"
    },  # type: ignore[call-overload]
)


class NewNote(BaseModel):
    """A note on an interaction, 1 to 4,000 characters, several lines if need be."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=4000)


class NumberAsked(BaseModel):
    """A caller's number in any form a switch may deliver it; `region` if it may be a national one."""

    model_config = ConfigDict(extra="forbid")

    number: str = Field(max_length=256)
    region: Region = "US"


class NumberKnown(BaseModel):
    """Who it may be, the likeliest first. `how`: see the pop's candidates; without any: none, or what the text is."""

    number: str
    e164: str | None
    formatted: str | None
    country: str
    how: str
    candidates: list[Candidate]


def routes(
    *,
    pool: Callable[[], Pool],
    find: Callable[[str, str], Awaitable[Identification]],
    add_note: Callable[[Actor, str, int], Awaitable[Note]],
    edit_note: Callable[[Actor, int, str, int], Awaitable[Note]],
    audit: Callable[[Actor, str, Mapping[str, Any], str], None],
) -> list[Route]:
    """Returns the routes. `find(number, region)`; `add_note(actor, text, interaction)`;
    `edit_note(actor, note, text, version)`; `audit` as in `cti.commands`, told of ids and never of contents."""

    async def search(asked: Asked) -> dict[str, Any]:
        wanted: AccountSearch = asked.body
        return _page(
            await accounts.search(
                pool(), wanted.text, region=wanted.region, limit=wanted.limit, cursor=wanted.cursor
            )
        )

    async def create(asked: Asked) -> Reply:
        made = await accounts.create(pool(), asked.body)
        audit(asked.who, "account.create", {"account": made.id}, "ok")
        return Reply(
            value=made, status=201, version=made.version, headers={"Location": f"/api/v1/accounts/{made.id}"}
        )

    async def read(asked: Asked) -> Reply:
        found = await accounts.get(pool(), asked.params.id)
        return Reply(value=found, headers={"ETag": f'"{found.account.version}"'})

    async def change(asked: Asked) -> Reply:
        wanted = asked.body.model_dump(exclude_unset=True)
        edit = AccountChange(version=_version(asked), **wanted)
        made = await accounts.update(pool(), asked.params.id, edit)
        audit(asked.who, "account.change", {"account": made.id, "fields": sorted(wanted)}, "ok")
        return Reply(value=made, version=made.version)

    async def create_contact(asked: Asked) -> Reply:
        made = await accounts.add_contact(pool(), asked.params.id, asked.body)
        audit(asked.who, "contact.create", {"account": asked.params.id, "contact": made.id}, "ok")
        return Reply(value=made, status=201)

    async def create_phone(asked: Asked) -> Reply:
        made = await accounts.add_phone(pool(), asked.params.id, asked.body)
        audit(asked.who, "phone.create", {"account": asked.params.id, "phone": made.id}, "ok")
        return Reply(value=made, status=201)

    async def delete_phone(asked: Asked) -> None:
        await accounts.remove_phone(pool(), asked.params.id, asked.params.phone)
        audit(asked.who, "phone.delete", {"account": asked.params.id, "phone": asked.params.phone}, "ok")

    async def history(asked: Asked) -> dict[str, Any]:
        wanted: Paging = asked.query
        found = await interactions.list_interactions(
            pool(), asked.params.id, limit=min(wanted.limit, 200), cursor=wanted.cursor
        )
        return _page(found)

    async def read_interaction(asked: Asked) -> Interaction:
        return await interactions.get_interaction(pool(), asked.params.id)

    async def create_note(asked: Asked) -> Reply:
        made = await add_note(asked.who, asked.body.text, asked.params.id)
        audit(asked.who, "note.create", {"interaction": asked.params.id, "note": made.id}, "ok")
        return Reply(value=made, status=201, version=made.version)

    async def change_note(asked: Asked) -> Reply:
        made = await edit_note(asked.who, asked.params.id, asked.body.text, _version(asked))
        audit(asked.who, "note.change", {"note": made.id}, "ok")
        return Reply(value=made, version=made.version)

    async def lookup(asked: Asked) -> NumberKnown:
        wanted: NumberAsked = asked.body
        found = await find(wanted.number, wanted.region)
        return NumberKnown(
            number=found.caller.text,
            e164=found.caller.e164,
            formatted=found.caller.formatted,
            country=found.caller.country,
            how=found.how,
            candidates=list(found.candidates),
        )

    base = "/api/v1/accounts"
    away = frozenset({503})
    taken = frozenset({409, 503})
    missing = frozenset({404, 503})

    def post(
        path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, tag: str, **more: Any
    ) -> Route:
        return Route(method="POST", path=path, handler=handler, summary=summary, tag=tag, **more)

    return [
        post(
            f"{base}/search",
            search,
            "Finds accounts by phone, number or name.",
            "Accounts",
            body=AccountSearch,
            result=Page[Account],
            errors=away,
        ),
        post(
            base,
            create,
            "Writes down a new account.",
            "Accounts",
            body=NewAccount,
            result=Account,
            status=201,
            idempotent=True,
            errors=taken,
        ),
        Route(
            method="GET",
            path=f"{base}/{{id}}",
            handler=read,
            summary="An account with its people, phones, open items and alerts.",
            tag="Accounts",
            params=OneId,
            result=AccountDetail,
            errors=away,
        ),
        Route(
            method="PATCH",
            path=f"{base}/{{id}}",
            handler=change,
            summary="Changes an account.",
            tag="Accounts",
            params=OneId,
            body=AccountEdit,
            result=Account,
            versioned=True,
            errors=away,
        ),
        post(
            f"{base}/{{id}}/contacts",
            create_contact,
            "Adds a person to an account.",
            "Accounts",
            params=OneId,
            body=NewContact,
            result=ContactCard,
            status=201,
            idempotent=True,
            errors=missing,
        ),
        post(
            f"{base}/{{id}}/phones",
            create_phone,
            "Adds a phone: its calls are recognised from then on.",
            "Accounts",
            params=OneId,
            body=NewPhone,
            result=Phone,
            status=201,
            idempotent=True,
            errors=missing,
        ),
        Route(
            method="DELETE",
            path=f"{base}/{{id}}/phones/{{phone}}",
            handler=delete_phone,
            summary="Takes a phone from an account.",
            tag="Accounts",
            params=PhoneAt,
            status=204,
            errors=away,
        ),
        Route(
            method="GET",
            path=f"{base}/{{id}}/interactions",
            handler=history,
            summary="The account's interactions, the newest first.",
            tag="Interactions",
            params=OneId,
            query=Paging,
            result=Page[Interaction],
            errors=away,
        ),
        Route(
            method="GET",
            path="/api/v1/interactions/{id}",
            handler=read_interaction,
            summary="An interaction with its notes and escalations.",
            tag="Interactions",
            params=OneId,
            result=Interaction,
            errors=away,
        ),
        post(
            "/api/v1/interactions/{id}/notes",
            create_note,
            "Writes a note.",
            "Interactions",
            params=OneId,
            body=NewNote,
            result=Note,
            status=201,
            idempotent=True,
            errors=missing,
        ),
        Route(
            method="PATCH",
            path="/api/v1/notes/{id}",
            handler=change_note,
            summary="Replaces the text of a note: one's own, or any as a supervisor.",
            tag="Interactions",
            params=OneId,
            body=NewNote,
            result=Note,
            versioned=True,
            errors=away,
        ),
        post(
            "/api/v1/lookup",
            lookup,
            "Who a number belongs to, as for a caller.",
            "Accounts",
            body=NumberAsked,
            result=NumberKnown,
            errors=away,
        ),
    ]


def _said(status: int, code: str, detail: str = "") -> Translate:
    return lambda error: Problem(status, code, detail or str(error))


TRANSLATE: Mapping[type[Exception], Translate] = {
    accounts.UnknownAccount: _said(404, "not_found", "there is no such account"),
    accounts.UnknownPart: _said(404, "not_found", "the account has no such contact or phone"),
    accounts.NumberTaken: _said(409, "taken", "this number is taken already"),
    accounts.WrongNumber: _said(422, "bad_number"),
    accounts.ChangedMeanwhile: _said(412, "changed_meanwhile", "somebody else has changed it: read it again"),
    interactions.UnknownInteraction: _said(404, "not_found", "there is no such interaction"),
    interactions.UnknownNote: _said(404, "not_found", "there is no such note"),
    interactions.NotYourNote: _said(
        403, "not_your_note", "only its author, a supervisor or an administrator may change it"
    ),
    interactions.ChangedMeanwhile: _said(
        412, "changed_meanwhile", "somebody else has changed it: read it again"
    ),
    interactions.WrongText: _said(422, "bad_text"),
    WrongCursor: _said(422, "bad_cursor", "this cursor is not one of ours: begin again without one"),
    LookupUnavailable: _said(503, "unavailable", "the customer data cannot be read at present: try again"),
}
"""What the CRM's own refusals are called over REST; for `application(translate=...)`."""


def _version(asked: Asked) -> int:
    if asked.match is None or not asked.match.isdecimal() or len(asked.match) > 9:
        raise Problem(412, "changed_meanwhile", "this is not a version of it: read it again")
    return max(1, int(asked.match))


def _page(found: Any) -> dict[str, Any]:
    return {"items": found.items, "next": found.cursor}
