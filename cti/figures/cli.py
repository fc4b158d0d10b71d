"""`cti figures`: reports on the command line, for people, scripts and spreadsheets. Imports its parts when they are used."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cti.console import FAILED, WRONG_USE, Json, database_url, fail, settings, show_json

if TYPE_CHECKING:
    from cti.database import Connection
    from cti.figures.desk import Desk, FiguresAsked, Report
    from cti.people import Actor

T = TypeVar("T")

figures = typer.Typer(
    help="Figures: what came to queues, what agents did, other work; docs/figures.md defines each.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

First = Annotated[str, typer.Option("--from", help="A day or moment: 2026-10-25, 2026-10-25T09:15.")]
Last = Annotated[str | None, typer.Option("--to", help="A day, to its end, or a moment.")]
Interval = Annotated[str, typer.Option(help="15m, 30m, 60m, day or total.")]
Zone = Annotated[str | None, typer.Option("--tz", help="Time zone; the call centre's if left out.")]
Csv = Annotated[bool, typer.Option("--csv", help="Answer as CSV, for spreadsheets.")]


@figures.command()
def queues(
    first: First = "today",
    last: Last = None,
    interval: Interval = "total",
    tz: Zone = None,
    queue: Annotated[str | None, typer.Option(help="This one only, as main:sales.")] = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Show what came to the queues and what became of it."""
    from cti.figures.desk import Desk, QueuesAsked
    from cti.figures.report import QueueFigures

    asked = _asked(QueuesAsked, first, last, interval, tz, queue=queue)
    _show(_run(_report(Desk.queues, asked)), QueueFigures, json, csv)


@figures.command()
def agents(
    first: First = "today",
    last: Last = None,
    interval: Interval = "total",
    tz: Zone = None,
    agent: Annotated[str | None, typer.Option(help="This one only, by login.")] = None,
    team: Annotated[str | None, typer.Option(help="Only those who are in this team now.")] = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Show what agents did, how long they were in which state, and how often and how long beyond a reason's limit."""
    from cti.figures.desk import AgentsAsked, Desk
    from cti.figures.report import AgentFigures

    asked = _asked(AgentsAsked, first, last, interval, tz, agent=agent, team=team)
    _show(_run(_report(Desk.agents, asked)), AgentFigures, json, csv)


@figures.command()
def teams(
    first: First = "today",
    last: Last = None,
    interval: Interval = "total",
    tz: Zone = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Show the same for teams."""
    from cti.figures.desk import Desk, TeamsAsked
    from cti.figures.report import TeamFigures

    asked = _asked(TeamsAsked, first, last, interval, tz)
    _show(_run(_report(Desk.teams, asked)), TeamFigures, json, csv)


@figures.command()
def work(
    first: First = "today",
    last: Last = None,
    interval: Interval = "total",
    tz: Zone = None,
    queue: Annotated[str | None, typer.Option(help="For this one's agents only, as main:sales.")] = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Show what other work than calls was brought, and what became of it."""
    from cti.figures.desk import Desk, QueuesAsked
    from cti.figures.report import WorkFigures

    asked = _asked(QueuesAsked, first, last, interval, tz, queue=queue)
    _show(_run(_report(Desk.work, asked)), WorkFigures, json, csv)


@figures.command()
def again(
    first: Annotated[str, typer.Argument(metavar="FROM", help="A day, or a moment on a quarter of an hour.")],
    last: Annotated[str, typer.Argument(metavar="TO", help="A day, to its end, or a moment.")],
) -> None:
    """Compute a past time anew from the journal, with the targets and limits set now. The server may run meanwhile."""
    from datetime import timedelta

    import asyncpg

    from cti.figures.desk import FiguresAsked, WrongQuestion, range_of
    from cti.figures.roll_up import compute_again, set_limits, set_targets, targets_of

    asked = _asked(FiguresAsked, first, last, "total", None)
    ours = settings()
    set_now = ours.figures
    try:
        whole = range_of(asked, set_now.time_zone)
    except WrongQuestion as error:
        fail(f"{error}.", WRONG_USE)

    async def work() -> None:
        async with _database() as db:
            await set_targets(db, targets_of(set_now))
            await set_limits(db, ours.reason_limits)
            begin = whole.first
            while begin < whole.last:
                end = min(begin + timedelta(days=1), whole.last)
                await compute_again(db, begin, end)
                begin = end

    try:
        _run(work())
    except asyncpg.InvalidParameterValueError as error:
        fail(f"{error}.", FAILED)
    sys.stdout.write("Computed anew.\n")


# ------------------------------------------------------------------------------------------------ asking and showing


def _asked(kind: type[Any], first: str, last: str | None, interval: str, tz: str | None, **more: Any) -> Any:
    from pydantic import ValidationError

    try:
        return kind(first=first, last=last, interval=interval, tz=tz, **more)
    except ValidationError as error:
        where = error.errors(include_url=False)[0]
        fail(f"{where['loc'][0]}: {where['msg']}", WRONG_USE)


def _run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(work)


def _database() -> Any:
    from cti.database import connection

    return connection(database_url(), name="cti figures", jit="off")


async def _report(
    ask: Callable[[Desk, Actor, Any], Awaitable[Report[Any]]], asked: FiguresAsked
) -> Report[Any]:
    from cti.figures.desk import Desk, WrongQuestion
    from cti.figures.report import TooLarge
    from cti.people import Actor, Directory, Role
    from cti.users import load_directory

    db: Connection
    async with _database() as db:
        directory = Directory()
        directory.load(*await load_directory(db))
        ours = settings()
        desk = Desk(
            pool=lambda: db,
            directory=directory,
            zone=ours.figures.time_zone,
            queues=lambda: (),
            unpaid=ours.unpaid_reasons,
        )
        actor = Actor(login="cti", name="cti", role=Role.ADMIN, via="system")
        try:
            return await ask(desk, actor, asked)
        except (WrongQuestion, TooLarge) as error:
            fail(f"{error}.", WRONG_USE)


def _show(report: Report[Any], kind: Any, json: bool, csv: bool) -> None:
    from cti.figures.table import csv_of, lines_of

    if json:
        show_json(report)
    elif csv:
        sys.stdout.write(csv_of(report.items, kind))
    else:
        _print(lines_of(report.items, kind))


def _print(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines or ["Nothing in that time."]) + "\n")
