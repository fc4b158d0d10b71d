"""`cti lists groups`: target groups of customers on the command line, over REST, and the lists made of them. Its parts are
imported late; it knows the views of both the customers' side and the lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cti.console import WRONG_USE, Json, fail, show_json
from cti.remote import HERE, Url, Who, after_the_command, read_as, run

if TYPE_CHECKING:
    from crm.target_groups import TargetGroupView
    from cti.rest_client import Server
    from dialer.call_lists.from_group import GroupPreview

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
def overview(ctx: typer.Context, url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Target groups: customers by saved conditions, and lists made of them; docs/call-lists.md.

    Without a command: all groups.
    """
    if ctx.invoked_subcommand is not None:
        after_the_command(ctx)
        return
    from crm.target_groups import TargetGroupView
    from dialer.call_lists.terminal import show_all

    def row(one: TargetGroupView) -> tuple[str, ...]:
        return str(one.id), one.name, _conditions(one), one.changed_by

    head = ("NUMBER", "NAME", "WHO", "CHANGED BY")
    none = "There are no target groups yet: cti lists groups save NAME --class A --country GB"
    show_all(url, login, "/target-groups", TargetGroupView, json, head, row, none)


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
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Save a group of customers who meet all that is given; options may be repeated, then any of them will do.

    A group of this name is replaced. Example: cti lists groups save "Best in Leeds" --class A --city Leeds
    """
    from crm.target_groups import GroupCount
    from dialer.call_lists.terminal import say

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
    conditions = {key: value for key, value in given.items() if value not in (None, [])}
    body = {"name": name, "conditions": conditions}

    async def work(server: Server) -> tuple[Any, Any]:
        found = await server.all("/target-groups")
        there = next((one for one in found if one["name"] == name), None)
        if there is None:
            saved = await server.ask("POST", "/target-groups", body)
        else:
            path = f"/target-groups/{there['id']}"
            saved = await server.ask("PUT", path, body, version=there["version"])
        return saved, await server.ask("GET", f"/target-groups/{saved['id']}/count")

    saved, now = run(url, login, work)
    if json:
        show_json({**saved, "now": now})
        return
    size = read_as(GroupCount, now)
    say(
        f"Group {saved['name']}, number {saved['id']}: {size.customers:,} customers, {size.with_phone:,} with a phone."
    )


@groups.command()
def remove(
    name: Group,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = HERE,
    login: Who = None,
) -> None:
    """Remove a group; lists made of it stay."""
    from dialer.call_lists.terminal import say, sure

    sure(yes, f"Remove the target group {name}?")

    async def work(server: Server) -> str:
        found = await _find(server, name)
        await server.ask("DELETE", f"/target-groups/{found['id']}", version=found["version"])
        return str(found["name"])

    say(f"{run(url, login, work)} is gone; lists made of it stay.")


@groups.command()
def preview(
    name: Group,
    into: Annotated[str, typer.Option("--list", help="The list that it would go into.")] = "",
    campaign: Campaign = "",
    country: Country = "",
    duplicates: Duplicates = "list",
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Say what a group would give: how many customers and numbers, how many have consented or withdrawn consent for the
    campaign's purpose, are on a do-not-call list, are there already. Nothing is written."""
    from dialer.call_lists.from_group import GroupPreview
    from dialer.call_lists.terminal import country_of, find_list

    where = country_of(country)

    async def work(server: Server) -> Any:
        target = (await find_list(server, into))["id"] if into else None
        body = {**await _asked(server, name, campaign, where, duplicates), "list": target}
        return await server.ask("POST", "/list-imports/from-target-group/preview", body)

    found = run(url, login, work)
    if json:
        show_json(found)
    else:
        _show(read_as(GroupPreview, found))


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
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Make contacts of a group's customers; a new list is the campaign's.

    Who has withdrawn consent, or has not given it where the campaign's profile demands it, becomes a row that was not taken:
    cti lists bad-rows.

    Example: cti lists groups import "Best in Leeds" --list May --campaign Spring --country GB
    """
    from cti.rest_client import LONG
    from dialer.call_lists.terminal import country_of, followed, list_named, sure, tell_of_import, valid
    from dialer.lists import NewList

    where, into = country_of(country), valid(NewList, name=into).name
    sure(yes, f"Import the target group {name} into {into}?")

    async def work(server: Server) -> dict[str, Any]:
        there = await list_named(server, into)
        target = {"name": into} if there is None else {"list": there["id"]}
        body = {**await _asked(server, name, campaign, where, duplicates), **target}
        begun = await server.ask("POST", "/list-imports/from-target-group", body, patience=LONG)
        return await followed(server, begun["id"])

    tell_of_import(run(url, login, work), json)


async def _asked(server: Server, name: str, campaign: str, country: str, duplicates: str) -> dict[str, Any]:
    from dialer.call_lists.terminal import find_campaign

    return {
        "group": (await _find(server, name))["id"],
        "campaign": await find_campaign(server, campaign) if campaign else None,
        "country": country,
        "duplicates": duplicates,
    }


async def _find(server: Server, name: str) -> dict[str, Any]:
    everyone = await server.all("/target-groups")
    named = [one for one in everyone if one["name"] == name]
    for one in named or [one for one in everyone if str(one["id"]) == name]:
        return one
    fail(f"there is no target group {name}: cti lists groups shows them.", WRONG_USE)


def _conditions(view: TargetGroupView) -> str:
    told = view.conditions.model_dump(exclude_defaults=True)
    said = [
        f"{key} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in told.items()
    ]
    return "; ".join(said) or "all who are customers or might become some"
