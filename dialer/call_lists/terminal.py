"""What the commands about call lists share: how they find a list, ask and tell, and follow an import."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from cti.console import WRONG_USE, fail, show_json
from cti.remote import read_as, run

if TYPE_CHECKING:
    from cti.rest_client import Server
    from dialer.call_lists.imports import ImportView

T = TypeVar("T")

SOON, LATER = 0.1, 1.0
"""Seconds between two looks at an import: at first, and when it takes long."""

AWAY = 300.0
"""Seconds for which an import is waited for while the server is away."""


async def find_list(server: Server, name: str) -> dict[str, Any]:
    """The list of this name, or of this number where none is called so."""
    found = await list_named(server, name)
    if found is None and name.isdecimal() and len(name) < 19:
        found = await _there(server, f"/lists/{name}")
    if found is None:
        fail(f"there is no list {name}, or it is not one of yours: cti lists shows them.", WRONG_USE)
    return found


async def list_named(server: Server, name: str) -> dict[str, Any] | None:
    """The list of exactly this name, if it is there and may be seen."""
    return next(iter((await server.ask("GET", "/lists", query={"name": name}))["items"]), None)


async def find_import(server: Server, number: int) -> dict[str, Any]:
    """An import by its number."""
    found = await _there(server, f"/list-imports/{number}")
    if found is None:
        fail(
            f"there is no such import ({number}), or it is not one of yours: cti lists imports shows them.",
            WRONG_USE,
        )
    return found


async def _there(server: Server, path: str) -> dict[str, Any] | None:
    from cti.rest_client import RefusedByServer

    try:
        return dict(await server.ask("GET", path))
    except RefusedByServer as refused:
        if refused.status == 404:
            return None
        raise


async def find_campaign(server: Server, name: str) -> int:
    """The id of a campaign, by its name or its id."""
    from dialer.management.client import Campaigns

    return int((await Campaigns(server).find(name))["id"])


def country_of(written: str) -> str:
    """The country of numbers without a country code, as it was said."""
    if not written:
        fail("say the country of numbers without a country code: --country GB.", WRONG_USE)
    return written.upper()


def valid(kind: Callable[..., T], **values: Any) -> T:
    from pydantic import ValidationError

    from cti.commands import sentence

    try:
        return kind(**values)
    except ValidationError as error:
        fail(f"{sentence(error)}.", WRONG_USE)


def sure(yes: bool, question: str, nothing: str = "nothing was changed") -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{nothing}: say --yes, or answer at a terminal.", WRONG_USE)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C is an answer, too
    try:
        if not typer.confirm(question, err=True):
            fail(f"{nothing}.")
    finally:
        signal.signal(signal.SIGINT, before)


def show_all(
    url: str,
    login: str | None,
    path: str,
    kind: type[T],
    json: bool,
    head: tuple[str, ...],
    row: Callable[[T], tuple[str, ...]],
    none: str,
) -> None:
    """Shows all there are of something as a table, a `row` for each, or says that there is `none`."""
    from cti.terminal_text import columns

    found = run(url, login, lambda server: server.all(path))
    if json:
        show_json(found)
    else:
        say("\n".join(columns([head, *(row(read_as(kind, one)) for one in found)])) if found else none)


def tell(value: Any, json: bool, sentence: str) -> None:
    if json:
        show_json(value)
    else:
        say(sentence)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


@contextmanager
def bar(doing: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal's standard error; it is told how far things are, and what is being done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        shown = progress.add_task(doing, total=total)
        yield lambda done, says: progress.update(shown, completed=done, description=says)


async def followed(server: Server, id: int) -> dict[str, Any]:
    """Looks at an import until it is over, with a bar; the server works on it whether somebody looks or not."""
    from cti.watch import LogInFailed

    away, pause = 0.0, SOON
    try:
        with bar("importing", 1.0) as told:
            while True:
                try:
                    found = await find_import(server, id)
                except LogInFailed as failed:
                    if failed.wrong or away > AWAY:
                        fail(f"{failed} Nothing is lost: cti lists resume {id} looks again.")
                    away += pause
                else:
                    away, view = 0.0, read_as(_import_view(), found)
                    if view.state != "running":
                        return found
                    told(view.share, f"{view.added:,} added, {view.bad:,} not taken")
                await asyncio.sleep(pause)
                pause = min(LATER, pause * 1.3)
    except asyncio.CancelledError:
        sys.stderr.write(f"\ncti: the server goes on with it; cti lists resume {id} looks again\n")
        raise


def _import_view() -> type[ImportView]:
    from dialer.call_lists.imports import ImportView

    return ImportView


def tell_of_import(found: dict[str, Any], json: bool) -> None:
    """Says what has become of an import; fails where it has not come to its end."""
    done = read_as(_import_view(), found)
    if json:
        show_json(found)
    else:
        say(f"{done.added:,} contacts added (import {done.id}).")
        if done.state == "done" and not done.added and not done.bad:
            say("The file has no rows besides its header.")
        if done.bad:
            twice = f", {done.duplicates:,} of them duplicates" if done.duplicates else ""
            say(f"{done.bad:,} rows were not taken{twice}: cti lists bad-rows {done.id} -o repair.csv")
    if done.state != "done":
        fail(f"the import is {done.state}: {done.why or 'somebody has ended it'}")
