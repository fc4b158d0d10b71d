"""The `cti` command. Every part is imported only by the command that needs it, so that `cti --help` is there at once."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cti.console import FAILED, WRONG_USE, Json, database_url, fail, settings, show_json
from cti.figures.cli import figures
from cti.target_group_cli import groups
from cti.user_cli import people
from dialer.call_lists.cli import lists
from dialer.law.cli import dialer
from dialer.management.cli import campaigns

if TYPE_CHECKING:
    from cti.doctor import Report
    from cti.doctor_findings import Target

app = typer.Typer(
    name="cti",
    help="A CTI server for call centres on Asterisk: screen pops, agent states, queues and calls, live.",
    epilog="First time here? `cti demo` shows everything on this machine. Settings: docs/operations.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(people, name="users")
app.add_typer(figures, name="figures")
app.add_typer(campaigns, name="campaigns")
app.add_typer(dialer, name="dialer")
lists.add_typer(groups, name="groups")
app.add_typer(lists, name="lists")


def main() -> NoReturn:
    """Runs the command line; foreseeable trouble is one sentence and an exit code (1 failed, 2 wrong use or settings)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else FAILED
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception as error:
        foreseen = explain(error)
        if foreseen is None:
            raise
        message, code = foreseen
        print(f"cti: {message}", file=sys.stderr)
    sys.exit(code)


def explain(error: Exception) -> tuple[str, int] | None:
    """The sentence and exit code for an exception that was foreseen, None for a fault of ours."""
    import asyncpg

    from crm.pop_url import WrongTemplate
    from cti.database import DatabaseUnavailable, MigrationFailed
    from cti.journal import JournalInUse
    from cti.passwords import BadInput
    from cti.settings import WrongSettings
    from cti.users import NotThere
    from dialer.law.profiles import WrongProfile

    match error:
        case WrongSettings() | WrongTemplate() | WrongProfile():
            return str(error), WRONG_USE
        case BadInput():
            return f"{error.field}: {error}", WRONG_USE
        case NotThere() | DatabaseUnavailable() | MigrationFailed() | JournalInUse():
            return str(error), FAILED
        case (
            asyncpg.UndefinedTableError() | asyncpg.UndefinedColumnError() | asyncpg.UndefinedFunctionError()
        ):
            return f"The database is not set up for this version ({error}): run `cti migrate` first.", FAILED
        case PermissionError():
            where = f"{error.filename} may not be used by this user ({error.strerror})."
            return (where if error.filename else str(error)), FAILED
        case OSError() if "address already in use" in str(error).lower():
            return (
                "The port is taken by another program (or another cti server): set CTI_PORT to a free one.",
                FAILED,
            )
        case OSError() if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            return "CTI_LISTEN is no address of this machine; 0.0.0.0 listens on all of them.", WRONG_USE
        case _:
            return None


# --------------------------------------------------------------------------------------------------- serving


@app.command()
def version(json: Json = False) -> None:
    """Say which version this is."""
    from importlib.metadata import version as version_of
    from platform import python_version

    told = {"cti": version_of("asterisk-cti"), "python": python_version()}
    if json:
        show_json(told)
    else:
        print(f"cti {told['cti']} (Python {told['python']})")


@app.command()
def serve() -> None:
    """Run the server until SIGTERM or Ctrl-C.

    It connects to the PBXs, and serves the websocket and REST.
    Settings come from CTI_... variables and the TOML file that CTI_CONFIG names; see docs/operations.md.
    """
    import uvloop

    from cti import logs

    wanted = settings()
    logs.set_up(json=wanted.log_json, level=wanted.log_level)
    from cti.server import serve as run

    why = uvloop.run(run(wanted))
    if why:
        fail(why)


@app.command()
def migrate(json: Json = False) -> None:
    """Bring the database's tables up to date.

    `cti serve` does so by itself at its start.
    """
    import asyncio

    from cti import logs
    from cti.database import migrate as run

    logs.none()
    applied = asyncio.run(run(database_url()))
    if json:
        show_json({"applied": applied})
    elif applied:
        print("\n".join(f"applied {name}" for name in applied))
    else:
        print("The database is up to date.")


# ---------------------------------------------------------------------------------------------------- doctor


@app.command()
def doctor(
    host: Annotated[
        str | None, typer.Option(help="The PBX's address; without it, the PBXs of the settings.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port of its manager interface (AMI).")
    ] = 5038,
    username: Annotated[str, typer.Option(help="The AMI user.")] = "cti",
    secret_file: Annotated[
        Path | None,
        typer.Option(help="File with the secret; else CTI_AMI_SECRET, else it is asked for."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Connect with TLS.")] = False,
    tls_ca: Annotated[
        str, typer.Option(help="File with the authority of its certificate, or that itself; with --tls.")
    ] = "",
    inbound_context: Annotated[
        list[str] | None, typer.Option(help="Where calls from outside arrive; may be repeated.")
    ] = None,
    trunk: Annotated[list[str] | None, typer.Option(help="A trunk, as PJSIP/name; may be repeated.")] = None,
    pbx: Annotated[str | None, typer.Option(help="Only this PBX of the settings.")] = None,
    no_test_call: Annotated[
        bool, typer.Option("--no-test-call", help="Make no call inside Asterisk (it would ring nobody).")
    ] = False,
    probe_queue: Annotated[
        str | None,
        typer.Option(help="Add a paused member to this queue for a moment, to hear agents' events."),
    ] = None,
    json: Json = False,
) -> None:
    """Look at a PBX; say what to change in which file.

    Exit code 0: usable. 1: something must be changed first. 2: wrong use.
    """
    import asyncio

    from cti import logs
    from cti.doctor import as_json, examine

    logs.none()
    targets = _targets(host, port, username, secret_file, tls, tls_ca, inbound_context, trunk, pbx)

    async def all_of_them() -> list[Report]:
        known = targets if host is not None else await _with_people(targets)
        return [
            await examine(target, secret, test_call=not no_test_call, probe_queue=probe_queue)
            for target, secret in known
        ]

    reports = asyncio.run(all_of_them())
    if json:
        told = [as_json(report) for report in reports]
        show_json(told[0] if host is not None else told)
    else:
        _show_reports(reports)
    if not all(report.usable for report in reports):
        raise typer.Exit(FAILED)


def _targets(
    host: str | None,
    port: int,
    username: str,
    secret_file: Path | None,
    tls: bool,
    tls_ca: str,
    inbound_context: list[str] | None,
    trunk: list[str] | None,
    pbx: str | None,
) -> list[tuple[Target, str]]:
    from cti.doctor import target_of
    from cti.doctor_findings import Target
    from cti.settings import PbxSettings, tls_context

    if host is not None:
        usual = PbxSettings.model_construct()
        if tls_ca:
            try:
                tls_context(tls_ca)
            except ValueError as error:
                fail(f"--tls-ca: {error}.", WRONG_USE)
        target = Target(
            name=pbx or "pbx",
            host=host,
            port=port,
            username=username,
            tls=tls,
            tls_ca=tls_ca,
            inbound_contexts=tuple(inbound_context or usual.inbound_contexts),
            trunks=tuple(trunk or ()),
        )
        return [(target, _secret(username, secret_file))]
    configured = settings().pbx
    if not configured:
        fail(
            "say which PBX: --host (and --port, --username), or configure one (CTI_PBX__MAIN__HOST ...).",
            WRONG_USE,
        )
    if pbx is not None and pbx not in configured:
        fail(f"no PBX {pbx} is configured, only {', '.join(sorted(configured))}.", WRONG_USE)
    return [
        (target_of(name, one), one.secret.get_secret_value())
        for name, one in configured.items()
        if pbx in (None, name)
    ]


async def _with_people(targets: list[tuple[Target, str]]) -> list[tuple[Target, str]]:
    """The targets with what the database names on them for people; why not, where it cannot be read. Without one as they
    are."""
    from dataclasses import replace

    from cti.database import connection
    from cti.doctor import with_people
    from cti.users import load_directory

    if not settings().database_url.get_secret_value():
        return targets
    try:
        async with connection(database_url(), name="cti doctor") as db:
            agents, teams = await load_directory(db)
    except Exception as error:
        foreseen = explain(error)
        if foreseen is None:
            raise
        return [(replace(target, people_unread=foreseen[0]), secret) for target, secret in targets]
    return [(with_people(target, agents, teams), secret) for target, secret in targets]


def _secret(username: str, secret_file: Path | None) -> str:
    if secret_file is not None:
        try:
            return secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            fail(f"the secret cannot be read from {secret_file}: {why}.", WRONG_USE)
    if secret := os.environ.get("CTI_AMI_SECRET"):
        return secret
    if not sys.stdin.isatty():
        fail("give the secret: --secret-file FILE or CTI_AMI_SECRET.", WRONG_USE)
    return str(typer.prompt(f"AMI secret of {username}", hide_input=True, err=True))


def _show_reports(reports: list[Report]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from cti.doctor import as_lines
    from cti.doctor_findings import Level

    colours = {Level.OK: "green", Level.WARN: "yellow", Level.WRONG: "red", Level.UNSEEN: "dim"}
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    for report in reports:
        for line in as_lines(report):
            colour = colours[line.level]
            match line.kind:
                case "finding":
                    text = Text(line.text)
                    text.stylize(colour, 0, 1)
                    indented = Text("  ") + text if console.soft_wrap else Padding(text, (0, 0, 0, 2))
                    console.print(indented)
                case "fix":  # never wrapped: it is there to be copied
                    console.print(
                        Text(f"      {line.text}", "" if line.level is not Level.UNSEEN else "dim"),
                        soft_wrap=True,
                    )
                case "title" | "chapter":
                    console.print(Text(line.text, "bold"))
                case "verdict":
                    console.print(Text(line.text, f"bold {colour}"))
                case _:
                    console.print()
        if report is not reports[-1]:
            console.print()


# ----------------------------------------------------------------------------------------------------- watch


@app.command()
def watch(
    url: Annotated[str, typer.Option(envvar="CTI_URL", help="The server.")] = "http://127.0.0.1:8600",
    login: Annotated[
        str | None, typer.Option(envvar="CTI_LOGIN", help="Who looks; else it is asked for.")
    ] = None,
    log_on: Annotated[
        bool, typer.Option("--log-on", help="An agent: be ready for calls while looking, log off at the end.")
    ] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="One line for each fact instead of a screen.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0.1, help="End after so many seconds.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Each fact as one line of JSON, as it is sent.")
    ] = False,
) -> None:
    """Watch calls, agents, queues and screen pops live.

    End with Ctrl-C. The password is asked for, or taken from CTI_PASSWORD. Into a file or a pipe
    it writes one line for each fact.
    """
    import asyncio

    from rich.console import Console

    from cti import logs
    from cti.client import Refused
    from cti.watch import LogInFailed
    from cti.watch import watch as look

    logs.none()
    if not url.startswith(("http://", "https://")):
        fail(f"{url} is no address of a server: it begins with http:// or https://.", WRONG_USE)
    asks = sys.stdin.isatty()
    given = os.environ.get("CTI_PASSWORD")
    if (login is None or given is None) and not asks:
        fail("say who looks: --login (or CTI_LOGIN), and CTI_PASSWORD.", WRONG_USE)
    login = login or str(typer.prompt("Login", err=True))
    for tries_left in (2, 1, 0):
        password = given or str(typer.prompt(f"Password of {login}", hide_input=True, err=True))
        try:
            asyncio.run(
                look(
                    url.rstrip("/"),
                    login,
                    password,
                    out=Console(highlight=False),
                    as_json=json,
                    lines=lines or None,
                    log_on=log_on,
                    seconds=seconds,
                )
            )
        except LogInFailed as failed:
            if not failed.wrong or given is not None or not tries_left:
                fail(str(failed))
            print(f"cti: {failed}", file=sys.stderr)
        except asyncio.CancelledError:
            raise typer.Exit(130) from None
        except Refused as refused:
            fail(f"the server does not want this client back: {refused}.")
        else:
            return


# ------------------------------------------------------------------------------------------------------ demo


@app.command()
def demo(
    headless: Annotated[
        bool, typer.Option("--headless", help="Show nothing after the start but what is served.")
    ] = False,
    seconds: Annotated[float | None, typer.Option("--for", min=1, help="End after so many seconds.")] = None,
    simulator: Annotated[
        bool, typer.Option("--simulator", help="Take the AMI simulator even where there is a real Asterisk.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the server; 8600, or the next free one.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the data of earlier demos.")] = False,
) -> None:
    """Run a whole call centre here, with live calls.

    PostgreSQL, a real Asterisk with a world around it that calls in (or a simulator, it says which), a hundred
    customers, eleven agents at work and one phone for you. Ctrl-C ends everything; the data stays in .local/demo.
    """
    from cti.demo import DemoFailed
    from cti.demo import run as run_demo

    try:
        run_demo(headless=headless, seconds=seconds, simulator=simulator, port=port, fresh=fresh)
    except DemoFailed as failed:
        fail(str(failed))


if __name__ == "__main__":
    main()
