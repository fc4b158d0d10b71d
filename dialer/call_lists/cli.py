"""`cti lists`: call lists on the command line: import, look through, merge, split, undo. Its parts are imported late."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cti.console import WRONG_USE, Json, database_url, fail, settings, show_json
from dialer.call_lists.terminal import (
    as_plain,
    find_campaign,
    find_list,
    go_on,
    home,
    in_trail,
    run,
    say,
    show_all,
    sure,
    tell,
    us,
    valid,
)

if TYPE_CHECKING:
    from cti.database import Connection
    from dialer.call_lists.columns import Guess
    from dialer.call_lists.contacts import ContactFilter
    from dialer.call_lists.imports import ImportView, PreviewRow
    from dialer.call_lists.rows import ImportSettings
    from dialer.call_lists.sheets import Format, Line
    from dialer.lists import ListView

T = TypeVar("T")

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


@lists.callback(invoke_without_command=True)
def overview(ctx: typer.Context, json: Json = False) -> None:
    """Call lists: import files, look through, merge, split, undo; docs/call-lists.md.

    Without a command: all lists.
    """
    if ctx.invoked_subcommand is not None:
        return
    from dialer.lists import all_lists

    def row(one: ListView) -> tuple[str, ...]:
        active, waiting = "active" if one.active else "inactive", one.contacts.get("open", 0)
        return (
            *(str(one.id), one.name, active, f"{one.total:,}", f"{waiting:,}"),
            *(str(one.campaign or "-"), str(one.priority)),
        )

    show_all(
        lambda db, after: all_lists(db, after=after, limit=500),
        json,
        ("NUMBER", "NAME", "STATE", "CONTACTS", "OPEN", "CAMPAIGN", "PRIORITY"),
        row,
        "There are no lists yet: cti lists import FILE --list NAME",
    )


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
    json: Json = False,
) -> None:
    """Import a file into a list: shows what it would become, asks, then goes on to the end.

    Example: cti lists import may.xlsx --list "May" --country GB --map "Tel. 2=phone"
    """
    from dialer.call_lists.sheets import NotASheet

    url = database_url()
    where = (country or home()).upper()
    given = {
        "language": language,
        "zone": zone,
        "priority": priority,
        "anywhere": anywhere,
        "duplicates": duplicates,
    }
    try:
        how, parts, size = _opened(file, sheet, ctx.call_on_close)
        lines = _first(parts(), how)
    except NotASheet as error:
        fail(f"{file.name}: {error}.")
    except (FileNotFoundError, IsADirectoryError):
        fail(f"{file} is no file.", WRONG_USE)
    guess, wanted = _settings(lines, where, map or [], no_header, given)
    if not json or not yes:
        _preview(file, how, guess, wanted, lines)
    if not yes:
        if not sys.stdin.isatty():
            fail("nothing was imported: say --yes, or answer at a terminal.", WRONG_USE)
        if not typer.confirm(f"Import into {into}?", err=True):
            fail("nothing was imported.")
    id = run(lambda db: _uploaded(db, file.name, how, parts, size, into, wanted))
    go_on(url, id, json)


@lists.command()
def resume(
    number: Annotated[int | None, typer.Argument(metavar="[IMPORT]", help="Which; else all.")] = None,
    json: Json = False,
) -> None:
    """Go on with imports that were broken off. A running server does so by itself."""
    from dialer.call_lists import imports

    url = database_url()
    found = [number] if number is not None else run(imports.waiting)
    if not found:
        say("No import waits to be gone on with.")
    for id in found:
        go_on(url, id, json)


@lists.command("imports")
def list_imports(
    name: Annotated[str | None, typer.Argument(metavar="[LIST]", help="Only into this list.")] = None,
    json: Json = False,
) -> None:
    """Show imports, the newest first."""
    from cti.terminal_text import columns
    from dialer.call_lists import imports

    async def work(db: Connection) -> Any:
        return await imports.of_list(db, await find_list(db, name) if name else None)

    found = run(work)
    if json:
        show_json([as_plain(view) for view in found])
        return
    table = [("NUMBER", "FILE", "STATE", "ADDED", "NOT TAKEN", "DUPLICATES", "WHEN", "BY")]
    for one in found:
        when = one.created.strftime("%Y-%m-%d %H:%M")
        counts = (f"{one.added:,}", f"{one.bad:,}", f"{one.duplicates:,}")
        table.append((str(one.id), one.file, one.state, *counts, when, one.created_by))
    say("\n".join(columns(table)) if found else "There are none.")


@lists.command("bad-rows")
def bad_rows(
    number: Import,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Into this file; else shown.")] = None,
    code: Annotated[str | None, typer.Option(help="Only rows of this code, like bad_number.")] = None,
    json: Json = False,
) -> None:
    """Give back the rows that were not taken, as CSV with the reason: repair them and import that file."""
    from cti import audit
    from dialer.call_lists import imports

    async def work(db: Connection) -> Any:
        view = await imports.read(db, number)
        await audit.record(db, us(), "list_import.bad_rows_read", str(number))
        if json:
            return await imports.bad_rows(db, number, limit=1_000_000, code=code)
        with output.open("wb") if output else _Standard() as to:
            async for part in imports.bad_rows_csv(db, view, code=code):
                to.write(part)
        return view

    found = run(work)
    if json:
        show_json([as_plain(row) for row in found])
    elif output:
        say(f"{output}: {found.bad:,} rows.")


@lists.command()
def undo(number: Import, yes: Yes = False, json: Json = False) -> None:
    """Take the contacts of an import out again; those that have been called stay."""
    from cti import audit
    from dialer.call_lists import imports

    async def about(db: Connection) -> ImportView:
        return await imports.read(db, number)

    view = run(about)
    sure(yes, f"Take out what came with {view.file} ({view.added:,} contacts)?")

    async def work(db: Connection) -> ImportView:
        async with db.transaction():
            if view.state == "running":
                await imports.cancel(db, number)
            undone = await imports.undo(db, number, us().login)
            await audit.record(
                db,
                us(),
                "list_import.undone",
                str(number),
                {"removed": undone.removed, "stayed": undone.stayed},
            )
        return undone

    done = run(work)
    if json:
        show_json(as_plain(done))
        return
    say(f"{done.removed:,} contacts are gone.")
    if done.stayed:
        say(f"{done.stayed:,} stay: they have been called, or are being called now.")


# ------------------------------------------------------------------------------------------------------ lists


@lists.command()
def create(name: Annotated[str, typer.Argument(help="What the list is called.")], json: Json = False) -> None:
    """Make an empty list."""
    from cti import audit
    from dialer.lists import NewList
    from dialer.lists import create as make

    new = valid(NewList, name=name)

    async def work(db: Connection) -> ListView:
        async with db.transaction():
            await audit.record(db, us(), "list.created", new.name)
            return await make(db, new, us().login)

    made = run(work)
    tell(made, json, f"List {made.name} is there, number {made.id}.")


@lists.command()
def show(
    name: List,
    whole: Annotated[
        bool, typer.Option("--all", help="Ask the law about every contact, however long that takes.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a list: how it stands, and who can be called, who not, and why."""
    from dialer.call_lists.before_launch import MOST_ASKED, before_launch, by_law
    from dialer.law.profiles import load
    from dialer.lists import read

    folder = settings().dialer.profiles

    async def work(db: Connection) -> Any:
        id = await find_list(db, name)
        profiles = load(*([Path(folder)] if folder else []))
        most = sys.maxsize if whole else MOST_ASKED
        law = by_law(lambda: db, lambda: profiles)
        return await read(db, id), await before_launch(db, id, law, most=most)

    one, told = run(work)
    if json:
        show_json({**as_plain(one), "before_launch": as_plain(told)})
        return
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
        say(f"  (the law was asked about the first {told.asked:,}; about all: --all)")


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
    json: Json = False,
) -> None:
    """Change what is given of a list. Who it is assigned to, and quotas, replace those of before."""
    from cti import audit
    from cti.users import load_directory
    from dialer.call_lists.rules_said import NotUnderstood, quotas_said, recycling_said
    from dialer.lists import Assigned, ListEdit, ListSettings, must_be_known, read
    from dialer.lists import change as write

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

    async def work(db: Connection) -> ListView:
        async with db.transaction():
            now = await read(db, await find_list(db, name))
            if campaign is not None:
                given["campaign"] = await find_campaign(db, campaign) if campaign else None
            own = now.settings.model_dump()
            if to_all or team or agent or unit or position:
                to = valid(
                    Assigned, teams=team or [], agents=agent or [], units=unit or [], positions=position or []
                )
                agents, teams = await load_directory(db)
                logins, names = {one.login for one in agents}, {one.id for one in teams}
                must_be_known(to, now.settings.assigned, logins, names)
                own["assigned"] = to
            own["max_attempts"] = max_attempts or own["max_attempts"]
            try:
                own["quota"] = own["quota"] if quota is None else quotas_said(quota)
                own["recycling"] = recycling_said(recycling or [], own["recycling"])
            except NotUnderstood as error:
                fail(f"{error}.", WRONG_USE)
            if (new := valid(ListSettings, **own)) != now.settings:
                given["settings"] = new
            edit = valid(ListEdit, **given)
            await audit.record(db, us(), "list.changed", str(now.id), {"fields": sorted(given)})
            return await write(db, now.id, edit, version=now.version, by=us().login)

    changed = run(work)
    tell(changed, json, f"Changed {changed.name}.")


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
    json: Json = False,
) -> None:
    """Merge other lists into one; of contacts with the same number the best stays."""
    from dialer.call_lists import contacts

    sure(yes, f"Merge {', '.join(others)} into {name}?")

    async def work(db: Connection, by: str) -> Any:
        target = await find_list(db, name)
        version = await db.fetchval("SELECT version FROM call_lists WHERE id = $1", target)
        sources = [await find_list(db, other) for other in others]
        return target, await contacts.merge(
            db, target, sources, version=version, by=by, duplicates=keep_duplicates
        )

    moved = in_trail("list.merged", work)
    tell(moved, json, f"{moved.moved:,} contacts moved, {moved.removed:,} duplicates removed.")


@lists.command()
def split(
    name: List,
    parts: Annotated[int | None, typer.Option(min=2, max=50, help="Into so many of the same size.")] = None,
    into: Annotated[str | None, typer.Option(help="What fits --where into a new list of this name.")] = None,
    where: Where = None,
    json: Json = False,
) -> None:
    """Split a list evenly, or move what fits into a new one."""
    from dialer.call_lists import contacts

    if (parts is None) == (into is None) or (into is None) != (not where):
        fail("say --parts N, or --into NAME with --where FIELD=VALUE.", WRONG_USE)
    wanted = _fitting(where or [])

    async def work(db: Connection, by: str) -> Any:
        id = await find_list(db, name)
        version = await db.fetchval("SELECT version FROM call_lists WHERE id = $1", id)
        if parts is not None:
            return id, await contacts.split_evenly(db, id, parts, version=version, by=by)
        return id, await contacts.split_off(db, id, wanted, str(into), version=version, by=by)

    moved = in_trail("list.split", work)
    tell(moved, json, f"{moved.moved:,} contacts moved into {len(moved.lists)} new list(s).")


@lists.command()
def dedupe(
    names: Annotated[list[str], typer.Argument(metavar="LISTS...", help="Taken together.")],
    same: Annotated[str, typer.Option(help="The same number, or person (customer number).")] = "number",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove duplicates within and across lists; the best contact stays."""
    from dialer.call_lists import contacts

    if same not in ("number", "person"):
        fail("--same is number or person.", WRONG_USE)
    sure(yes, f"Remove duplicates within {', '.join(names)}?")

    async def work(db: Connection, by: str) -> Any:
        ids = [await find_list(db, name) for name in names]
        how: Any = same
        return ids[0], await contacts.dedupe(db, ids, same=how, by=by)

    moved = in_trail("list.deduped", work)
    tell(moved, json, f"{moved.removed:,} duplicates removed.")


@lists.command()
def recycle(
    name: List,
    outcomes: Annotated[
        list[str],
        typer.Argument(metavar="OUTCOMES...", help="How their last attempt ended: busy, no_answer …"),
    ],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Call used-up contacts again whose last attempt ended so; what the law counts does not begin anew."""
    from dialer.call_lists import contacts

    wanted = valid(contacts.RecycleAsked, outcomes=outcomes)
    sure(yes, f"Call the used-up contacts of {name} again?")

    async def work(db: Connection, by: str) -> Any:
        id = await find_list(db, name)
        version = await db.fetchval("SELECT version FROM call_lists WHERE id = $1", id)
        return id, await contacts.recycle(db, id, wanted.outcomes, version=version, by=by)

    opened = in_trail("list.recycled", work)
    tell({"opened": opened}, json, f"{opened:,} contacts are open again.")


@lists.command("contacts")
def list_contacts(
    name: List,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most.")] = 50,
    json: Json = False,
) -> None:
    """Look through a list: its contacts that fit, in the order in which they came."""
    from cti.terminal_text import columns, plain
    from dialer.call_lists import contacts

    wanted = _fitting(where or [])

    async def work(db: Connection) -> Any:
        id = await find_list(db, name)
        return await contacts.page(db, id, wanted, limit=limit + 1)

    found = run(work)
    if json:
        show_json([as_plain(one) for one in found[:limit]])
        return
    table = [("NUMBER", "NAME", "WHERE", "STATE", "ATTEMPTS", "LAST", "WHY")]
    for one in found[:limit]:
        where_from = f"{one.country}{'-' + one.region if one.region else ''} {one.zones[0] if len(one.zones) == 1 else ''}"
        table.append(
            (
                *(one.e164, plain(one.name, 30), where_from.strip(), one.state, str(one.attempts)),
                *(one.last_outcome or "-", plain(one.why, 60)),
            )
        )
    say("\n".join(columns(table)) if found else "Nobody fits.")
    if len(found) > limit:
        say(f"There are more than these {limit:,}: --limit, or --where.")


@lists.command()
def delete(name: List, yes: Yes = False) -> None:
    """Delete a list with its contacts; attempts stay as evidence."""
    from dialer.lists import delete as remove

    sure(yes, f"Delete {name} with all its contacts?")

    async def work(db: Connection, by: str) -> Any:
        id = await find_list(db, name)
        version = await db.fetchval("SELECT version FROM call_lists WHERE id = $1", id)
        return id, await remove(db, id, version=version)

    gone = in_trail("list.deleted", work)
    say(f"{name} and its {gone:,} contacts are gone.")


def _fitting(where: list[str]) -> ContactFilter:
    """The filter that is typed as FIELD=VALUE."""
    from dialer.call_lists.contacts import ContactFilter

    fits: dict[str, Any] = {"data": {}}
    for one in where:
        field, equals, value = one.partition("=")
        if not equals:
            fail(f"--where {one}: say FIELD=VALUE.", WRONG_USE)
        if field.startswith("data:"):
            fits["data"][field.removeprefix("data:")] = value
        else:
            fits[field] = value
    return valid(ContactFilter, **fits)


class _Standard:
    """The standard output as bytes."""

    def __enter__(self) -> Any:
        sys.stdout.flush()
        return getattr(sys.stdout, "buffer", None) or self

    def write(self, part: bytes) -> None:
        sys.stdout.write(part.decode())

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()


# ------------------------------------------------------------------------------------------------ parts of an import


def _opened(
    file: Path, sheet: str, at_end: Callable[[Callable[[], None]], object]
) -> tuple[Format, Callable[[], Iterator[bytes]], int]:
    """How the file is written, its parts as CSV (again and again), and its size in bytes. Raises NotASheet, OSError."""
    import tempfile

    from dialer.call_lists.imports import LARGEST_FILE, OURS
    from dialer.call_lists.sheets import PART, NotASheet, Sniffer, as_csv, open_workbook

    sniffer = Sniffer()
    for part in _parts(file):
        sniffer.feed(part)
    if sniffer.size > LARGEST_FILE:
        raise NotASheet(f"a file holds at most {LARGEST_FILE >> 20} MiB: split it")
    if not sniffer.is_workbook:
        return sniffer.format, lambda: _parts(file), sniffer.size
    how, rows = open_workbook(file, sheet)
    unpacked = tempfile.TemporaryFile(prefix="cti-lists-")  # noqa: SIM115
    at_end(unpacked.close)
    size = sum(unpacked.write(part) for part in as_csv(rows))

    def again() -> Iterator[bytes]:
        unpacked.seek(0)
        while part := unpacked.read(PART):
            yield part

    return type(OURS)(kind="csv", sheet=how.sheet, sheets=how.sheets, skip=how.skip), again, size


def _parts(file: Path) -> Iterator[bytes]:
    from dialer.call_lists.sheets import PART

    with file.open("rb") as opened:
        while part := opened.read(PART):
            yield part


def _first(parts: Iterator[bytes], how: Format) -> list[Line]:
    from dialer.call_lists.imports import first_rows

    return first_rows(parts, how)


def _settings(
    lines: Any, country: str, maps: Any, no_header: bool, given: dict[str, Any]
) -> tuple[Guess, ImportSettings]:
    from dialer.call_lists.columns import guess
    from dialer.call_lists.rows import ImportSettings

    found = guess([line.cells for line in lines if not line.broken], country)
    header = found.header and not no_header
    names = [cell.strip() for cell in lines[0].cells] if lines and header else []
    chosen = [*found.columns]
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
    return found, valid(ImportSettings, columns=chosen, header=header, country=country, **given)


def _preview(file: Path, how: Format, guess: Guess, wanted: ImportSettings, lines: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from cti.terminal_text import plain
    from dialer.call_lists.imports import preview

    console = Console(stderr=True, highlight=False)
    told = f"sheet {how.sheet}" if how.sheet else f"{how.encoding}, separator {how.separator!r}"
    console.print(
        f"{plain(file.name)}: {told}; numbers without a country code are {wanted.country}'s", markup=False
    )
    names = list(lines[0].cells) if wanted.header and lines else []
    meaning = Table("column", "is", box=box.SIMPLE)
    for n, column in enumerate(wanted.columns):
        meaning.add_row(plain(names[n] if n < len(names) else f"{n + 1}", 40), column or "(left out)")
    console.print(meaning)
    shown = Table("row", "number", "name", "where", "more, or why not", box=box.SIMPLE)
    rows = preview(lines, wanted, 10)
    for row in rows:
        shown.add_row(*_preview_row(row))
    console.print(shown)
    bad = sum(bool(row.why_not) for row in preview(lines, wanted, 200))
    if bad:
        seen = min(200, len(lines) - wanted.header)
        console.print(f"Of the first {seen} rows {bad} would not be taken; they are kept with the reason.")


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


async def _uploaded(
    db: Connection,
    name: str,
    how: Format,
    parts: Callable[[], Iterator[bytes]],
    size: int,
    list_name: str,
    wanted: Any,
) -> int:
    from cti import audit
    from dialer.call_lists import imports
    from dialer.lists import NewList, by_name, create

    new = valid(NewList, name=list_name)
    id = await imports.begin(db, name, us().login)
    for number, part in enumerate(parts()):
        await imports.add_part(db, id, number, part)
    await imports.uploaded(db, id, how, size)
    async with db.transaction():
        target = await by_name(db, new.name)
        if target is None:
            target = (await create(db, new, us().login)).id
        await imports.start(db, id, target, wanted)
        await audit.record(db, us(), "list_import.started", str(id), {"file": name, "list": target})
    return id
