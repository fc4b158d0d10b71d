"""`cti lists`: call lists on the command line, over REST: import, look through, merge, split, undo. Parts come late."""

from __future__ import annotations

from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from cti.console import WRONG_USE, Json, fail, show_json
from cti.remote import HERE, Url, Who, after_the_command, read_as, run, saved
from dialer.call_lists.terminal import (
    bar,
    country_of,
    find_campaign,
    find_import,
    find_list,
    followed,
    list_named,
    say,
    show_all,
    sure,
    tell,
    tell_of_import,
    valid,
)

if TYPE_CHECKING:
    from cti.rest_client import Server
    from dialer.call_lists.imports import PreviewRow
    from dialer.lists import ListView

lists = typer.Typer(
    help="Call lists: import files, look through, merge, split, undo; docs/call-lists.md.",
    rich_markup_mode=None,
)

List = Annotated[str, typer.Argument(metavar="LIST", help="The list: its name or number.")]
Import = Annotated[int, typer.Argument(metavar="IMPORT", min=1, help="The import's number.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Where = Annotated[
    list[str] | None,
    typer.Option(help="state=, outcome=, country=, language=, zone=, q= (text), data:KEY=; all must fit."),
]


MOST_ASKED = 100_000
"""Contacts that the law is asked about at once, at most."""


@lists.callback(invoke_without_command=True)
def overview(ctx: typer.Context, url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Call lists: import files, look through, merge, split, undo; docs/call-lists.md.

    Without a command: all lists.
    """
    if ctx.invoked_subcommand is not None:
        after_the_command(ctx)
        return
    from dialer.lists import ListView

    def row(one: ListView) -> tuple[str, ...]:
        active, waiting = "active" if one.active else "inactive", one.contacts.get("open", 0)
        return (
            *(str(one.id), one.name, active, f"{one.total:,}", f"{waiting:,}"),
            *(str(one.campaign or "-"), str(one.priority)),
        )

    head = ("NUMBER", "NAME", "STATE", "CONTACTS", "OPEN", "CAMPAIGN", "PRIORITY")
    none = "There are no lists yet: cti lists import FILE --list NAME"
    show_all(url, login, "/lists", ListView, json, head, row, none)


# ------------------------------------------------------------------------------------------------------ importing


@lists.command("import")
def import_file(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV or Excel (.xlsx).")],
    into: Annotated[str, typer.Option("--list", help="Into this list; it is made if it is not there.")],
    country: Annotated[
        str, typer.Option(help="Country of numbers without a country code: two letters, like GB.")
    ] = "",
    map: Annotated[
        list[str] | None,
        typer.Option(
            help="COLUMN=FIELD, the column by its name or number; may be repeated. Fields: phone, area, name, "
            "first_name, last_name, person, country, region, zone, language, priority, data:KEY, none."
        ),
    ] = None,
    sheet: Annotated[
        str, typer.Option(help="This sheet of a workbook; else the first that is not empty.")
    ] = "",
    duplicates: Annotated[
        str,
        typer.Option(
            help="Numbers of this list count as there already (list), or of active lists, or all; or keep."
        ),
    ] = "list",
    no_header: Annotated[bool, typer.Option("--no-header", help="The first row is a contact.")] = False,
    language: Annotated[str, typer.Option(help="Language of contacts whose row names none, like de.")] = "",
    zone: Annotated[
        str, typer.Option(help="Time zone of contacts whose row names none, instead of the number's.")
    ] = "",
    priority: Annotated[
        int, typer.Option(min=0, max=100, help="Priority of contacts whose row names none.")
    ] = 0,
    anywhere: Annotated[
        bool,
        typer.Option("--anywhere", help="Numbers that may be mobile may lie in every zone of their country."),
    ] = False,
    yes: Yes = False,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Import a file into a list: shows what it would become, asks, then looks on to the end.

    Example: cti lists import may.xlsx --list "May" --country GB --map "Tel. 2=phone"
    """
    from dialer.call_lists.rows import ImportSettings
    from dialer.lists import NewList

    where, into = country_of(country), valid(NewList, name=into).name
    given = {
        "language": language,
        "zone": zone,
        "priority": priority,
        "anywhere": anywhere,
        "duplicates": duplicates,
    }
    valid(ImportSettings, columns=["phone"], country=where, **given)
    try:
        opened = file.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        fail(f"{file} is no file.", WRONG_USE)

    async def work(server: Server) -> dict[str, Any]:
        there = await list_named(server, into)
        found = await _uploaded(server, file, opened, where, sheet)
        id = found["about"]["id"]
        try:
            wanted = _settings(found, map or [], no_header, {**given, "country": where})
            shown = {**found, "items": found["preview"]}
            if wanted != found["settings"]:
                shown = await server.ask("POST", f"/list-imports/{id}/preview", {"settings": wanted})
            if not json or not yes:
                _preview(file, found["about"], wanted, shown)
            sure(yes, f"Import into {into}?", "nothing was imported")
            target = {"name": into} if there is None else {"list": there["id"]}
            await server.ask("POST", f"/list-imports/{id}/start", {**target, "settings": wanted})
        except BaseException:
            await _dropped(server, id)
            raise
        return await followed(server, id)

    with opened:
        tell_of_import(run(url, login, work), json)


@lists.command()
def resume(
    number: Annotated[int | None, typer.Argument(metavar="[IMPORT]", help="Which; else all.")] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Look on at imports that are under way, to their end.

    The server works on them by itself, also after a restart.
    """

    async def work(server: Server) -> list[dict[str, Any]]:
        if number is not None:
            asked = await find_import(server, number)
            if asked["state"] == "ready":
                fail(f"import {number} was never started: import the file again.")
            return [await followed(server, number)]
        everyone = reversed(await server.all("/list-imports"))
        return [await followed(server, one["id"]) for one in everyone if one["state"] == "running"]

    found = run(url, login, work)
    for one in found:
        tell_of_import(one, json)
    if not found:
        say("No import is under way.")


@lists.command("imports")
def list_imports(
    name: Annotated[
        str | None, typer.Argument(metavar="[LIST]", help="Into this list; else those of your own.")
    ] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Show imports, the newest first: into a list, or your own; administrators see everybody's."""
    from cti.terminal_text import columns
    from dialer.call_lists.imports import ImportView

    async def work(server: Server) -> Any:
        of = {"list": str((await find_list(server, name))["id"])} if name else {}
        return (await server.ask("GET", "/list-imports", query={**of, "limit": "100"}))["items"]

    found = run(url, login, work)
    if json:
        show_json(found)
        return
    table = [("NUMBER", "FILE", "STATE", "ADDED", "NOT TAKEN", "DUPLICATES", "WHEN", "BY")]
    for one in (read_as(ImportView, each) for each in found):
        when = one.created.strftime("%Y-%m-%d %H:%M")
        counts = (f"{one.added:,}", f"{one.bad:,}", f"{one.duplicates:,}")
        table.append((str(one.id), one.file, one.state, *counts, when, one.created_by))
    say("\n".join(columns(table)) if found else "There are none.")


@lists.command("bad-rows")
def bad_rows(
    number: Import,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Into this file; else shown.")] = None,
    code: Annotated[str | None, typer.Option(help="Only rows of this code, like bad_number.")] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Give back the rows that were not taken, as CSV with the reason: repair them and import that file."""
    of = {"code": code} if code else {}

    async def work(server: Server) -> Any:
        found, path = await find_import(server, number), f"/list-imports/{number}/bad-rows"
        if json:
            return await server.all(path, of)
        await saved(server, f"{path}.csv", of, output)
        return found

    found = run(url, login, work)
    if json:
        show_json(found)
    elif output:
        say(f"{output}: {found['bad']:,} rows.")


@lists.command()
def undo(number: Import, yes: Yes = False, url: Url = HERE, login: Who = None, json: Json = False) -> None:
    """Take the contacts of an import out again; those that have been called stay."""
    from cti.rest_client import LONG
    from dialer.call_lists.imports import ImportView

    async def work(server: Server) -> Any:
        view, path = read_as(ImportView, await find_import(server, number)), f"/list-imports/{number}"
        sure(yes, f"Take out what came with {view.file} ({view.added:,} contacts)?")
        if view.state == "running":
            await server.ask("POST", f"{path}/cancel")
        return await server.ask("POST", f"{path}/undo", patience=LONG)

    done = run(url, login, work)
    if json:
        show_json(done)
        return
    say(f"{done['removed']:,} contacts are gone.")
    if done["stayed"]:
        say(f"{done['stayed']:,} stay: they have been called, or are being called now.")


# ------------------------------------------------------------------------------------------------------ lists


@lists.command()
def create(
    name: Annotated[str, typer.Argument(help="What the list is called.")],
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Make an empty list."""
    made = run(url, login, lambda server: server.ask("POST", "/lists", {"name": name}))
    tell(made, json, f"List {made['name']} is there, number {made['id']}.")


@lists.command()
def show(
    name: List,
    whole: Annotated[
        bool,
        typer.Option("--all", help=f"Ask the law about {MOST_ASKED:,} contacts, however long that takes."),
    ] = False,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Show a list: how it stands, and who can be called, who not, and why."""
    from cti.rest_client import LONG
    from dialer.call_lists.before_launch import BeforeLaunch
    from dialer.lists import ListView

    most = {"most": str(MOST_ASKED)} if whole else None

    async def work(server: Server) -> Any:
        found = await find_list(server, name)
        path = f"/lists/{found['id']}/before-launch"
        return found, await server.ask("GET", path, query=most, patience=LONG)

    found, stands = run(url, login, work)
    if json:
        show_json({**found, "before_launch": stands})
        return
    one, told = read_as(ListView, found), read_as(BeforeLaunch, stands)
    say(
        f"{one.name} (number {one.id}, version {one.version}): {one.total:,} contacts, priority {one.priority}"
    )
    for hindrance in told.hindrances:
        say(f"  not called: {hindrance}")
    if told.callers:
        whom = one.settings.assigned.told()
        say(f"  assigned to {whom}: {told.callers} of the campaign's agents")
    for reason in told.reasons:
        say(f"  {reason.count:>9,}  {reason.code}: {reason.says}")
    if not told.whole and told.asked:
        more = "" if whole else "; about more: --all"
        say(f"  (the law was asked about the first {told.asked:,}{more})")


@lists.command("set")
def change(
    name: List,
    rename: Annotated[str | None, typer.Option(help="Another name.")] = None,
    campaign: Annotated[
        str | None, typer.Option(help='The campaign that calls it, by name or number; "" for none.')
    ] = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether it is called.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=100, help="Higher is called first.")] = None,
    script: Annotated[Path | None, typer.Option(help="File with the agents' script.")] = None,
    team: Annotated[list[str] | None, typer.Option(help="Assigned to this team; may be repeated.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="Assigned to this agent; may be repeated.")] = None,
    unit: Annotated[
        list[str] | None, typer.Option(help="Assigned to this department; may be repeated.")
    ] = None,
    position: Annotated[
        list[str] | None, typer.Option(help="Assigned to this position; may be repeated.")
    ] = None,
    to_all: Annotated[bool, typer.Option("--to-all", help="Assigned to everybody of the campaign.")] = False,
    max_attempts: Annotated[int | None, typer.Option(min=1, max=100, help="Attempts to one contact.")] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            help="It rests when so many are reached: connected=50/day, attempts=1000, disposition:Sale=20; may be "
            'repeated; "" for none.'
        ),
    ] = None,
    recycling: Annotated[
        list[str] | None,
        typer.Option(
            help="After which outcome it is called again, in minutes: busy=15,30 or busy=15,30*4 (four times at most), "
            "busy=never, busy= (as the campaign has it); may be repeated."
        ),
    ] = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Change what is given of a list. Who it is assigned to, and quotas, replace those of before."""
    from dialer.call_lists.rules_said import NotUnderstood, quotas_said, recycling_said

    given: dict[str, Any] = {
        field: value
        for field, value in (("name", rename), ("active", active), ("priority", priority))
        if value is not None
    }
    if script is not None:
        try:
            given["script"] = script.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            fail(f"the script cannot be read from {script}: {error}.", WRONG_USE)

    async def work(server: Server) -> Any:
        now = await find_list(server, name)
        if campaign is not None:
            given["campaign"] = await find_campaign(server, campaign) if campaign else None
        own = dict(now["settings"])
        if to_all or team or agent or unit or position:
            own["assigned"] = {
                "teams": team or [],
                "agents": agent or [],
                "units": unit or [],
                "positions": position or [],
            }
        own["max_attempts"] = max_attempts or own["max_attempts"]
        try:
            own["quota"] = own["quota"] if quota is None else quotas_said(quota)
            own["recycling"] = recycling_said(recycling or [], own["recycling"])
        except NotUnderstood as error:
            fail(f"{error}.", WRONG_USE)
        if own != now["settings"]:
            given["settings"] = own
        return await server.ask("PATCH", f"/lists/{now['id']}", given, version=now["version"])

    changed = run(url, login, work)
    tell(changed, json, f"Changed {changed['name']}.")


@lists.command()
def merge(
    name: List,
    others: Annotated[
        list[str], typer.Argument(metavar="OTHERS...", help="Lists that go into it and are gone then.")
    ],
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="The same number may be there twice.")
    ] = False,
    yes: Yes = False,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Merge other lists into one; of contacts with the same number the best stays."""
    sure(yes, f"Merge {', '.join(others)} into {name}?")

    async def work(server: Server) -> Any:
        target = await find_list(server, name)
        sources = [(await find_list(server, other))["id"] for other in others]
        body = {"lists": sources, "duplicates": keep_duplicates}
        return await _changed(server, target, "merge", body)

    moved = run(url, login, work)
    tell(moved, json, f"{moved['moved']:,} contacts moved, {moved['removed']:,} duplicates removed.")


@lists.command()
def split(
    name: List,
    parts: Annotated[int | None, typer.Option(min=2, max=50, help="Into so many of the same size.")] = None,
    into: Annotated[str | None, typer.Option(help="What fits --where into a new list of this name.")] = None,
    where: Where = None,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Split a list evenly, or move what fits into a new one."""
    if (parts is None) == (into is None) or (into is None) != (not where):
        fail("say --parts N, or --into NAME with --where FIELD=VALUE.", WRONG_USE)
    body = {"parts": parts} if parts is not None else {"name": into, "filter": _fitting(where or [])}

    async def work(server: Server) -> Any:
        return await _changed(server, await find_list(server, name), "split", body)

    moved = run(url, login, work)
    tell(moved, json, f"{moved['moved']:,} contacts moved into {len(moved['lists'])} new list(s).")


@lists.command()
def dedupe(
    names: Annotated[list[str], typer.Argument(metavar="LISTS...", help="Taken together.")],
    same: Annotated[str, typer.Option(help="The same number, or person (customer number).")] = "number",
    yes: Yes = False,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Remove duplicates within and across lists; the best contact stays."""
    from cti.rest_client import LONG

    if same not in ("number", "person"):
        fail("--same is number or person.", WRONG_USE)
    sure(yes, f"Remove duplicates within {', '.join(names)}?")

    async def work(server: Server) -> Any:
        body = {"lists": [(await find_list(server, name))["id"] for name in names], "same": same}
        return await server.ask("POST", "/lists/dedupe", body, patience=LONG)

    moved = run(url, login, work)
    tell(moved, json, f"{moved['removed']:,} duplicates removed.")


@lists.command()
def recycle(
    name: List,
    outcomes: Annotated[
        list[str],
        typer.Argument(metavar="OUTCOMES...", help="How their last attempt ended: busy, no_answer …"),
    ],
    yes: Yes = False,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Call used-up contacts again whose last attempt ended so; what the law counts does not begin anew."""
    sure(yes, f"Call the used-up contacts of {name} again?")

    async def work(server: Server) -> Any:
        return await _changed(server, await find_list(server, name), "recycle", {"outcomes": outcomes})

    told = run(url, login, work)
    tell(told, json, f"{told['opened']:,} contacts are open again.")


@lists.command("contacts")
def list_contacts(
    name: List,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most.")] = 50,
    url: Url = HERE,
    login: Who = None,
    json: Json = False,
) -> None:
    """Look through a list: its contacts that fit, in the order in which they came."""
    from cti.terminal_text import columns, plain
    from dialer.call_lists.contacts import ContactView

    wanted = _fitting(where or [])

    async def work(server: Server) -> tuple[list[Any], bool]:
        path = f"/lists/{(await find_list(server, name))['id']}/contacts/search"
        found: list[Any] = []
        next = None
        while len(found) < limit:
            more = {"limit": min(500, limit - len(found))} | ({"cursor": next} if next else {})
            part = await server.ask("POST", path, {**wanted, **more})
            found, next = found + part["items"], part["next"]
            if next is None:
                break
        return found, next is not None

    found, more = run(url, login, work)
    if json:
        show_json(found)
        return
    table = [("NUMBER", "NAME", "WHERE", "STATE", "ATTEMPTS", "LAST", "WHY")]
    for one in (read_as(ContactView, each) for each in found):
        where_from = f"{one.country}{'-' + one.region if one.region else ''} {one.zones[0] if len(one.zones) == 1 else ''}"
        table.append(
            (
                *(one.e164, plain(one.name, 30), where_from.strip(), one.state, str(one.attempts)),
                *(one.last_outcome or "-", plain(one.why, 60)),
            )
        )
    say("\n".join(columns(table)) if found else "Nobody fits.")
    if more:
        say(f"There are more than these {limit:,}: --limit, or --where.")


@lists.command()
def delete(name: List, yes: Yes = False, url: Url = HERE, login: Who = None) -> None:
    """Delete a list with its contacts; attempts stay as evidence."""
    from cti.rest_client import LONG
    from dialer.lists import ListView

    sure(yes, f"Delete {name} with all its contacts?")

    async def work(server: Server) -> ListView:
        found = read_as(ListView, await find_list(server, name))
        await server.ask("DELETE", f"/lists/{found.id}", version=found.version, patience=LONG)
        return found

    gone = run(url, login, work)
    say(f"{gone.name} and its {gone.total:,} contacts are gone.")


async def _changed(server: Server, found: dict[str, Any], what: str, body: dict[str, Any]) -> Any:
    """Changes the contacts of a list as it has just been found."""
    from cti.rest_client import LONG

    path = f"/lists/{found['id']}/{what}"
    return await server.ask("POST", path, body, version=found["version"], patience=LONG)


def _fitting(where: list[str]) -> dict[str, Any]:
    """The filter that is typed as FIELD=VALUE."""
    fits: dict[str, Any] = {"data": {}}
    for one in where:
        field, equals, value = one.partition("=")
        if not equals:
            fail(f"--where {one}: say FIELD=VALUE.", WRONG_USE)
        if field.startswith("data:"):
            fits["data"][field.removeprefix("data:")] = value
        else:
            fits[field] = value
    return fits


# ------------------------------------------------------------------------------------------------ parts of an import


async def _uploaded(server: Server, file: Path, opened: BinaryIO, country: str, sheet: str) -> dict[str, Any]:
    """Sends the file, with a bar; what the server says of it."""
    from cti.rest_client import RefusedByServer

    size = opened.seek(0, SEEK_END)
    query = {"file": file.name[:200], "country": country} | ({"sheet": sheet} if sheet else {})
    with bar("sending", size) as told:
        done = 0

        def sent(more: int) -> None:
            nonlocal done
            done += more
            told(done, "sending" if done < size else "the server reads it")

        try:
            return dict(await server.send("/list-imports", opened, query=query, sent=sent))
        except RefusedByServer as refused:
            if refused.status in (413, 422):
                fail(f"{file.name}: {refused}.", WRONG_USE)
            raise


async def _dropped(server: Server, id: int) -> None:
    """Takes a file back that is not to be imported; where that fails the server lets go of it in a few days."""
    from contextlib import suppress

    from cti.rest_client import RefusedByServer
    from cti.watch import LogInFailed

    with suppress(RefusedByServer, LogInFailed):
        await server.ask("DELETE", f"/list-imports/{id}")


def _settings(
    found: dict[str, Any], maps: list[str], no_header: bool, given: dict[str, Any]
) -> dict[str, Any]:
    """What the server guesses, put right by what is said."""
    guess = found["guess"]
    header = guess["header"] and not no_header
    names, chosen = found["about"]["header"] if header else [], [*guess["columns"]]
    for one in maps:
        column, equals, field = one.rpartition("=")
        if not equals:
            fail(f"--map {one}: say COLUMN=FIELD.", WRONG_USE)
        place = names.index(column) if column in names else int(column) - 1 if column.isdecimal() else -1
        if not 0 <= place < len(chosen):
            fail(
                f"--map {one}: there is no column {column}; there are {', '.join(names) or len(chosen)}.",
                WRONG_USE,
            )
        wanted = "" if field == "none" else field
        if wanted != "phone":
            chosen = ["" if other == wanted else other for other in chosen]
        chosen[place] = wanted
    if "phone" not in chosen:
        fail("no column looks like a phone number: say which, --map COLUMN=phone.", WRONG_USE)
    return {**(found["settings"] or {}), "columns": chosen, "header": header, **given}


def _preview(file: Path, about: dict[str, Any], wanted: dict[str, Any], shown: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from cti.terminal_text import plain
    from dialer.call_lists.imports import PreviewRow

    console, how = Console(stderr=True, highlight=False), about["format"]
    told = f"sheet {how['sheet']}" if how["sheet"] else f"{how['encoding']}, separator {how['separator']!r}"
    console.print(
        f"{plain(file.name)}: {told}; numbers without a country code are {wanted['country']}'s", markup=False
    )
    names = about["header"] if wanted["header"] else []
    meaning = Table("column", "is", box=box.SIMPLE)
    for n, column in enumerate(wanted["columns"]):
        meaning.add_row(plain(names[n] if n < len(names) else f"{n + 1}", 40), column or "(left out)")
    console.print(meaning)
    rows = Table("row", "number", "name", "where", "more, or why not", box=box.SIMPLE)
    for row in shown["items"][:10]:
        rows.add_row(*_preview_row(read_as(PreviewRow, row)))
    console.print(rows)
    if bad := shown["not_taken"]:
        console.print(
            f"Of the first {shown['looked_at']} rows {bad} would not be taken; they are kept with the reason."
        )


def _preview_row(row: PreviewRow) -> tuple[str, ...]:
    from rich.markup import escape

    from cti.terminal_text import plain

    if row.why_not:
        return (str(row.row), "-", "", "", "[red]" + escape(plain(row.why_not, 60)) + "[/red]")
    more = ", ".join(f"{key} {value}" for key, value in row.data.items())
    zones = row.zones[0] if len(row.zones) == 1 else f"{len(row.zones)} zones" if row.zones else "no zone"
    return (
        str(row.row),
        row.number,
        escape(plain(row.name, 30)),
        f"{row.country} {zones}",
        escape(plain(more, 60)),
    )
