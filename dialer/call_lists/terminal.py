"""What the commands about call lists share: the database, who works at the command line, how they ask and tell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from cti.console import WRONG_USE, database_url, fail, settings, show_json

if TYPE_CHECKING:
    from cti.database import Connection
    from cti.people import Actor
    from dialer.call_lists.imports import ImportView

T = TypeVar("T")


def run(work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    import asyncio

    from cti import logs
    from cti.database import connection
    from dialer.call_lists.imports import NoImport
    from dialer.call_lists.target_group import NoGroup
    from dialer.lists import ChangedMeanwhile, NameTaken, NoList, NotPossible

    logs.none()

    async def within() -> T:
        async with connection(database_url(), name="cti lists", jit="off") as db:
            return await work(db)

    try:
        return asyncio.run(within())
    except NoList as error:
        fail(f"there is no list {error}: cti lists shows them.", WRONG_USE)
    except NoGroup as error:
        fail(f"{error}.", WRONG_USE)
    except NoImport:
        fail("there is no such import: cti lists imports shows them.", WRONG_USE)
    except ChangedMeanwhile:
        fail("somebody else is changing this list: try again.")
    except (NameTaken, NotPossible) as error:
        fail(f"{error}.")


def in_trail(action: str, work: Callable[[Connection, str], Coroutine[Any, Any, Any]]) -> Any:
    """Does work that gives the list and what came of it, in one transaction with its line in the audit trail."""
    from cti import audit

    async def within(db: Connection) -> Any:
        async with db.transaction():
            id, told = await work(db, us().login)
            await audit.record(db, us(), action, str(id))
        return told

    return run(within)


async def find_list(db: Connection, name: str) -> int:
    """The list of this name, or of this number where none is called so; raises NoList."""
    from dialer.lists import NoList, by_name

    found = await by_name(db, name)
    if found is None and name.isdecimal() and len(name) < 19:
        found = await db.fetchval("SELECT id FROM call_lists WHERE id = $1", int(name))
    if found is None:
        raise NoList(name)
    return int(found)


async def find_campaign(db: Connection, name: str) -> int:
    from dialer.lists import NotPossible

    found = await db.fetchval("SELECT id FROM campaigns WHERE name = $1", name)
    if found is None and name.isdecimal() and len(name) < 19:
        found = await db.fetchval("SELECT id FROM campaigns WHERE id = $1", int(name))
    if found is None:
        raise NotPossible("no_campaign", f"there is no campaign {name}")
    return int(found)


def valid(kind: Callable[..., T], **values: Any) -> T:
    from pydantic import ValidationError

    from cti.commands import sentence

    try:
        return kind(**values)
    except ValidationError as error:
        fail(f"{sentence(error)}.", WRONG_USE)


def us() -> Actor:
    """Who works at the server's own command line."""
    from cti.people import Actor, Role

    return Actor(login="cti", name="command line", role=Role.ADMIN, via="system")


def home() -> str:
    """The country of the first PBX in the settings; fails where there is none."""
    pbxs = settings().pbx
    if not pbxs:
        fail("say the country of numbers without a country code: --country GB.", WRONG_USE)
    return next(iter(pbxs.values())).region


def sure(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("nothing was changed: say --yes, or answer at a terminal.", WRONG_USE)
    if not typer.confirm(question, err=True):
        fail("nothing was changed.")


def as_plain(value: Any) -> Any:
    import msgspec

    from cti.hub import pack

    return msgspec.json.decode(pack(value))


def show_all(
    part: Callable[[Connection, str], Coroutine[Any, Any, list[T]]],
    json: bool,
    head: tuple[str, ...],
    row: Callable[[T], tuple[str, ...]],
    none: str,
) -> None:
    """Shows all there are of something that has a name, as a table. `part`: some of them, those after a name."""
    from cti.terminal_text import columns

    async def work(db: Connection) -> list[Any]:
        found: list[Any] = []
        while more := await part(db, found[-1].name if found else ""):
            found += more
        return found

    found = run(work)
    if json:
        show_json([as_plain(one) for one in found])
    else:
        say("\n".join(columns([head, *map(row, found)])) if found else none)


def tell(value: Any, json: bool, sentence: str) -> None:
    if json:
        show_json(as_plain(value))
    else:
        say(sentence)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def go_on(url: str, id: int, json: bool) -> None:
    """Works on an import to its end, with a bar; fails with how to go on if it is broken off."""
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from cti import logs
    from cti.database import DatabaseUnavailable
    from dialer.call_lists import imports

    logs.none()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            shown = bar.add_task("importing", total=1.0)

            def told(view: ImportView) -> None:
                bar.update(
                    shown, completed=view.share, description=f"{view.added:,} added, {view.bad:,} not taken"
                )

            done = asyncio.run(imports.run(url, id, told))
            bar.update(shown, completed=1.0)
    except imports.Busy:
        fail(f"a server or another command is working on import {id}: cti lists imports shows how far it is.")
    except imports.NoImport:
        fail(f"there is no import {id}: cti lists imports shows them.", WRONG_USE)
    except DatabaseUnavailable as error:
        fail(f"{error} Nothing is lost: go on with cti lists resume {id}")
    except KeyboardInterrupt:
        sys.stderr.write(f"\ncti: stopped; go on with cti lists resume {id}\n")
        raise
    if json:
        show_json(as_plain(done))
    else:
        say(f"{done.added:,} contacts added (import {done.id}).")
        if done.state == "done" and not done.added and not done.bad:
            say("The file has no rows besides its header.")
        if done.bad:
            twice = f", {done.duplicates:,} of them duplicates" if done.duplicates else ""
            say(f"{done.bad:,} rows were not taken{twice}: cti lists bad-rows {done.id} -o repair.csv")
    if done.state != "done":
        fail(f"the import is {done.state}: {done.why or 'somebody has ended it'}")
