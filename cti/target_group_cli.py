"""`cti lists groups`: target groups of customers on the command line, and the lists made of them. Its parts are imported
late; it knows both the customers' side and the lists, as `cti.customers_for_lists` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cti.console import Json, database_url, settings, show_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crm.target_groups import TargetGroupView
    from cti.database import Connection
    from dialer.call_lists.from_group import GroupPreview
    from dialer.law.profiles import Profile

groups = typer.Typer(
    help="Target groups: customers by saved conditions, and lists made of them; docs/call-lists.md.",
    rich_markup_mode=None,
)

Group = Annotated[str, typer.Argument(metavar="GROUP", help="The group: its name or number.")]
Several = list[str] | None
Country = Annotated[
    str, typer.Option(help="Country of numbers without a country code: two letters, like GB.")
]
Campaign = Annotated[
    str,
    typer.Option(
        help="The campaign, by name or number, whose purpose and profile say which consent is needed."
    ),
]
Duplicates = Annotated[
    str,
    typer.Option(
        help="Numbers of this list count as there already (list), or of active lists, or all; or keep."
    ),
]


@groups.callback(invoke_without_command=True)
def overview(ctx: typer.Context, json: Json = False) -> None:
    """Target groups: customers by saved conditions, and lists made of them; docs/call-lists.md.

    Without a command: all groups.
    """
    if ctx.invoked_subcommand is not None:
        return
    from crm import target_groups
    from dialer.call_lists.terminal import show_all

    show_all(
        lambda db, after: target_groups.everyone(db, after=after, limit=500),
        json,
        ("NUMBER", "NAME", "WHO", "CHANGED BY"),
        lambda one: (str(one.id), one.name, _conditions(one), one.changed_by),
        "There are no target groups yet: cti lists groups save NAME --class A --country GB",
    )


@groups.command()
def save(
    name: Annotated[str, typer.Argument(help="What the group is called.")],
    classes: Annotated[Several, typer.Option("--class", help="Customers of this class.")] = None,
    status: Annotated[
        Several, typer.Option(help="prospect, active, blocked, closed; else prospect and active.")
    ] = None,
    kind: Annotated[Several, typer.Option(help="person or company.")] = None,
    country: Annotated[Several, typer.Option(help="Of this country, like GB.")] = None,
    language: Annotated[Several, typer.Option(help="Who speak this, like de.")] = None,
    city: Annotated[Several, typer.Option(help="Of this city.")] = None,
    own_agent: Annotated[Several, typer.Option(help="Whose own agent this is.")] = None,
    last_contact_days: Annotated[
        int | None, typer.Option(min=0, help="Whose last contact is older than so many days, or never was.")
    ] = None,
    open_item: Annotated[Several, typer.Option(help="With an open one: ticket, order, callback, …")] = None,
    no_open_item: Annotated[Several, typer.Option(help="With none open of this kind.")] = None,
    json: Json = False,
) -> None:
    """Save a group of customers who meet all that is given; options may be repeated, then any of them will do.

    A group of this name is replaced. Example: cti lists groups save "Best in Leeds" --class A --city Leeds
    """
    from crm import target_groups
    from crm.target_groups import Conditions
    from cti import audit
    from dialer.call_lists.terminal import as_plain, run, say, us, valid

    given: dict[str, Any] = {
        "classes": classes,
        "statuses": status,
        "kinds": kind,
        "countries": [one.upper() for one in country or []],
        "languages": language,
        "cities": city,
        "own_agents": own_agent,
        "last_contact_days": last_contact_days,
        "open_items": open_item,
        "no_open_items": no_open_item,
    }
    wanted = valid(Conditions, **{key: value for key, value in given.items() if value not in (None, [])})
    called = valid(_named, name=name)

    async def work(db: Connection) -> tuple[TargetGroupView, Any]:
        async with db.transaction():
            there = await db.fetchrow(
                "SELECT id, version FROM target_groups WHERE name = $1 FOR UPDATE", called
            )
            if there is None:
                saved = await target_groups.create(db, called, wanted, us().login)
            else:
                saved = await target_groups.replace(
                    db, there["id"], called, wanted, version=there["version"], by=us().login
                )
            action = "target_group.created" if there is None else "target_group.changed"
            await audit.record(db, us(), action, called)
        return saved, await target_groups.count(db, wanted)

    saved, size = run(work)
    if json:
        show_json({**as_plain(saved), "now": as_plain(size)})
    else:
        say(
            f"Group {saved.name}, number {saved.id}: {size.customers:,} customers, {size.with_phone:,} with a phone."
        )


def _named(name: str) -> str:
    from pydantic import TypeAdapter

    from crm.target_groups import Name

    found: str = TypeAdapter(Name).validate_python(name)
    return found


@groups.command()
def remove(
    name: Group, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Remove a group; lists made of it stay."""
    from crm import target_groups
    from cti import audit
    from dialer.call_lists.terminal import run, say, sure, us

    sure(yes, f"Remove the target group {name}?")

    async def work(db: Connection) -> str:
        async with db.transaction():
            found = await target_groups.read(db, await _find(db, name))
            await target_groups.remove(db, found.id, version=found.version)
            await audit.record(db, us(), "target_group.removed", found.name)
        return found.name

    say(f"{run(work)} is gone; lists made of it stay.")


@groups.command()
def preview(
    name: Group,
    into: Annotated[str, typer.Option("--list", help="The list that it would go into.")] = "",
    campaign: Campaign = "",
    country: Country = "",
    duplicates: Duplicates = "list",
    json: Json = False,
) -> None:
    """Say what a group would give: how many customers and numbers, how many have consented or withdrawn consent for the
    campaign's purpose, are on a do-not-call list, are there already. Nothing is written."""
    from cti.customers_for_lists import CustomersForLists
    from dialer.call_lists import from_group
    from dialer.call_lists.from_group import GroupAsked
    from dialer.call_lists.terminal import as_plain, find_list, home, run, valid

    where, profiles = country.upper() or home(), _profiles()

    async def work(db: Connection) -> GroupPreview:
        wanted = valid(
            GroupAsked,
            group=await _find(db, name),
            list=await find_list(db, into) if into else None,
            campaign=await _campaign(db, campaign),
            country=where,
            duplicates=duplicates,
        )
        return await from_group.preview(db, CustomersForLists(lambda: db), wanted, lambda: profiles)

    found = run(work)
    if json:
        show_json(as_plain(found))
    else:
        _show(found)


def _show(found: GroupPreview) -> None:
    from dialer.call_lists.terminal import say

    say(
        f"{found.name}: {found.customers:,} customers, {found.with_phone:,} with a phone, {found.numbers:,} numbers"
    )
    if not found.whole:
        say(f"  (the first {found.asked:,} were looked at)")
    say(f"  {found.usable:>9,}  usable: nothing in the way but the hour")
    for reason in found.reasons:
        say(f"  {reason.count:>9,}  {reason.code}: {reason.says}")
    if found.campaign is None:
        say("Say --campaign to see who has consented and who is on a do-not-call list.")
        return
    needed = "needed" if found.needed else "not needed"
    say(f"Consent to calls for {found.purpose} ({needed} by the campaign's profile), each counted by itself:")
    for count, what in (
        (found.consented, "have consented"),
        (found.withdrawn, "have withdrawn their consent"),
        (found.nothing, "have said nothing"),
        (found.do_not_call, "are on a do-not-call list or register"),
        (found.twice + found.there, "are duplicates"),
    ):
        say(f"  {count:>9,}  {what}")


@groups.command("import")
def import_group(
    name: Group,
    into: Annotated[str, typer.Option("--list", help="Into this list; it is made if it is not there.")],
    campaign: Campaign = "",
    country: Country = "",
    duplicates: Duplicates = "list",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Make contacts of a group's customers; a new list is the campaign's.

    Who has withdrawn consent, or has not given it where the campaign's profile demands it, becomes a row that was not taken:
    cti lists bad-rows.

    Example: cti lists groups import "Best in Leeds" --list May --campaign Spring --country GB
    """
    from cti import audit
    from cti.customers_for_lists import CustomersForLists
    from dialer.call_lists import from_group, imports
    from dialer.call_lists.from_group import FromGroup
    from dialer.call_lists.terminal import go_on, home, run, sure, us, valid
    from dialer.lists import NewList, by_name, create

    url, where, profiles = database_url(), country.upper() or home(), _profiles()
    new = valid(NewList, name=into)
    sure(yes, f"Import the target group {name} into {into}?")

    async def work(db: Connection) -> int:
        there = await by_name(db, new.name)
        wanted = valid(
            FromGroup,
            group=await _find(db, name),
            list=there,
            name=None if there is not None else new.name,
            campaign=await _campaign(db, campaign),
            country=where,
            duplicates=duplicates,
        )
        customers = CustomersForLists(lambda: db)
        id, how, of = await from_group.upload(db, customers, wanted, lambda: profiles, us().login)
        async with db.transaction():
            target = there
            if target is None:
                target = (await create(db, new.model_copy(update={"campaign": of}), us().login)).id
            await imports.start(db, id, target, how)
            detail = {"group": wanted.group, "list": target, "campaign": of}
            await audit.record(db, us(), "list_import.started", str(id), detail)
        return id

    go_on(url, run(work), json)


async def _find(db: Connection, name: str) -> int:
    from crm import target_groups
    from dialer.call_lists.target_group import NoGroup

    try:
        return (await target_groups.by_name(db, name)).id
    except target_groups.NoGroup:
        raise NoGroup(f"there is no target group {name}: cti lists groups shows them") from None


async def _campaign(db: Connection, name: str) -> int | None:
    from dialer.call_lists.terminal import find_campaign

    return await find_campaign(db, name) if name else None


def _profiles() -> Mapping[str, Profile]:
    from dialer.law.profiles import load

    folder = settings().dialer.profiles
    return load(*([Path(folder)] if folder else []))


def _conditions(view: TargetGroupView) -> str:
    told = view.conditions.model_dump(exclude_defaults=True)
    said = [
        f"{key} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in told.items()
    ]
    return "; ".join(said) or "all who are customers or might become some"
