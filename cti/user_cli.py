"""`cti users`: people and teams on the command line. Imports its parts when they are used."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cti.console import WRONG_USE, Json, database_url, fail, settings, show_json

people = typer.Typer(
    help="People: agents, supervisors, administrators, teams.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Login = Annotated[str, typer.Argument(help="The login name.")]
Name = Annotated[str | None, typer.Option(help="Name as people write it.")]
Role = Annotated[str | None, typer.Option(help="agent, supervisor or admin.")]
Team = Annotated[str | None, typer.Option(help='The team they are in; "" takes them out.')]
Unit = Annotated[str | None, typer.Option(help='Their unit (department); "" for none.')]
Position = Annotated[str | None, typer.Option(help='Their position, as "senior"; "" for none.')]
Leads = Annotated[list[str] | None, typer.Option(help="A team they lead; may be repeated.")]
Phone = Annotated[list[str] | None, typer.Option(help="Their phone, as PBX=PJSIP/1001; may be repeated.")]
Queue = Annotated[
    list[str] | None,
    typer.Option(help="A queue they work in, as PBX:NAME or PBX:NAME:PENALTY; may be repeated."),
]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password and show it once.")]


@people.command("add")
def add_user(
    login: Login,
    name: Name = None,
    role: Role = None,
    team: Team = None,
    unit: Unit = None,
    position: Position = None,
    leads: Leads = None,
    phone: Phone = None,
    queue: Queue = None,
    password_stdin: FromStdin = False,
    generate: Generate = False,
) -> None:
    """Add a user.

    Example: cti users add anna --name "Anna Berg" --team sales --phone main=PJSIP/1001 --queue main:sales
    """
    import asyncio

    from cti import logs, user_admin

    logs.none()
    url = database_url()
    wanted = _wanted(name, role, team, unit, position, leads, phone, queue)
    password, made = _password(login, password_stdin, generate)
    asyncio.run(user_admin.add(url, login, password, wanted))
    print(f"Added {login}.")
    if made:
        print(f"Password (shown once): {password}")


@people.command("change")
def change_user(
    login: Login,
    name: Name = None,
    role: Role = None,
    team: Team = None,
    unit: Unit = None,
    position: Position = None,
    leads: Leads = None,
    phone: Phone = None,
    queue: Queue = None,
) -> None:
    """Change what is given of a user.

    Queues and teams led that are given replace those of before.
    """
    import asyncio

    from cti import logs, user_admin

    logs.none()
    asyncio.run(
        user_admin.change(
            database_url(), login, _wanted(name, role, team, unit, position, leads, phone, queue)
        )
    )
    print(f"Changed {login}.")


@people.command("list")
def list_users(json: Json = False) -> None:
    """List all users with their teams, phones and queues."""
    import asyncio

    from cti import logs, user_admin
    from cti.terminal_text import columns

    logs.none()
    found = asyncio.run(user_admin.everybody(database_url()))
    if json:
        show_json(found)
    elif not found:
        print("There are no users yet: cti users add LOGIN --role admin")
    else:
        print("\n".join(columns(user_admin.table(found))))


@people.command("passwd")
def set_password(login: Login, password_stdin: FromStdin = False, generate: Generate = False) -> None:
    """Give a user another password; their sessions end."""
    import asyncio

    from cti import logs, user_admin

    logs.none()
    url = database_url()
    password, made = _password(login, password_stdin, generate)
    asyncio.run(user_admin.set_password(url, login, password))
    print(f"Password (shown once): {password}" if made else f"Changed the password of {login}.")


@people.command("browser-phone")
def browser_phone(
    login: Login,
    pbx: Annotated[str, typer.Option(help="Which PBX.")] = "main",
    password_stdin: FromStdin = False,
    generate: Generate = False,
    remove: Annotated[bool, typer.Option("--remove", help="It is an ordinary phone again.")] = False,
) -> None:
    """Make a user's phone one in the browser: keep its SIP password, show Asterisk's lines for it."""
    import asyncio

    from cti import logs, user_admin

    logs.none()
    url = database_url()
    if remove:
        there = asyncio.run(user_admin.remove_browser_phone(url, login, pbx))
        print(
            f"{login}'s phone on {pbx} is an ordinary one." if there else f"{login} has none in the browser."
        )
        return
    password = None if generate else _password(f"{login}'s phone", password_stdin, False)[0]
    secret = settings().secret_key.get_secret_value()
    user, password = asyncio.run(user_admin.set_browser_phone(url, login, pbx, password, secret))
    print(f"{login}'s phone on {pbx} is the page /phone now. In pjsip.conf of {pbx}:\n")
    print("\n".join(user_admin.pjsip_lines(user, login, password if generate else "...")))


@people.command("disable")
def disable_user(login: Login) -> None:
    """Shut a user out at once; what they did stays."""
    import asyncio

    from cti import logs, user_admin

    logs.none()
    asyncio.run(user_admin.set_disabled(database_url(), login, True))
    print(f"{login} is shut out.")


@people.command("enable")
def enable_user(login: Login) -> None:
    """Let a disabled user in again."""
    import asyncio

    from cti import logs, user_admin

    logs.none()
    asyncio.run(user_admin.set_disabled(database_url(), login, False))
    print(f"{login} may log in again.")


@people.command("key")
def make_key(
    name: Annotated[str, typer.Argument(help="What it is for, such as CRM.")],
    role: Annotated[str, typer.Option(help="integration, supervisor or admin.")] = "integration",
    team: Annotated[
        list[str] | None, typer.Option(help="What it may see of; may be repeated. Everything if left out.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="It ends after so many days.")] = None,
    json: Json = False,
) -> None:
    """Make an API key for a program; it is shown once.

    It goes where an access token goes: into hello, or into `Authorization: Bearer`.
    """
    import asyncio

    from cti import logs, user_admin
    from cti.passwords import BadInput
    from cti.people import Role as Roles

    logs.none()
    if role not in ("integration", "supervisor", "admin"):
        raise BadInput("role", "A key is for an integration, a supervisor or an admin.")
    id, key = asyncio.run(user_admin.make_key(database_url(), name, Roles(role), team or (), days))
    if json:
        show_json({"id": id, "key": key})
    else:
        print(f"Key of {name} (shown once): {key}")


@people.command("keys")
def list_keys(json: Json = False) -> None:
    """List all API keys, ended ones too."""
    import asyncio
    from datetime import UTC, datetime

    from cti import logs, user_admin
    from cti.terminal_text import columns

    logs.none()
    found = asyncio.run(user_admin.keys(database_url()))
    if json:
        show_json(found)
    elif not found:
        print("There are no API keys yet: cti users key NAME")
    else:
        print("\n".join(columns(user_admin.key_table(found, datetime.now(UTC)))))


@people.command("revoke-key")
def end_key(id: Annotated[str, typer.Argument(help="Its id: cti users keys.")]) -> None:
    """End an API key for good; who uses it is out within seconds."""
    import asyncio

    from cti import logs, user_admin

    logs.none()
    asyncio.run(user_admin.end_key(database_url(), id))
    print(f"Key {id} is ended.")


@people.command("team")
def put_team(
    team: Annotated[str, typer.Argument(help="The team's short name, such as sales.")],
    name: Annotated[str | None, typer.Option(help="Name as people write it.")] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="A queue whose calls its supervisors see, as PBX:NAME; may be repeated."),
    ] = None,
) -> None:
    """Add a team, or change its name and queues."""
    import asyncio

    from cti import logs, user_admin

    logs.none()
    asyncio.run(user_admin.put_team(database_url(), team, name or team, queue))
    print(f"Team {team} is there.")


def _wanted(
    name: str | None,
    role: str | None,
    team: str | None,
    unit: str | None,
    position: str | None,
    leads: list[str] | None,
    phone: list[str] | None,
    queue: list[str] | None,
) -> Any:
    from cti.passwords import BadInput
    from cti.people import Role as Roles
    from cti.user_admin import Wanted, read_phone, read_queue

    if role is not None and role not in ("agent", "supervisor", "admin"):
        raise BadInput("role", "A user is an agent, a supervisor or an admin.")
    return Wanted(
        name=name,
        role=Roles(role) if role else None,
        team=team,
        unit=unit,
        position=position,
        supervises=tuple(leads) if leads else None,
        phones=tuple(read_phone(text) for text in phone or ()),
        queues=tuple(read_queue(text) for text in queue) if queue else None,
    )


def _password(login: str, from_stdin: bool, generate: bool) -> tuple[str, bool]:
    """The password to set, and whether it was made here."""
    import secrets

    if from_stdin and generate:
        fail("--password-stdin and --generate exclude each other.", WRONG_USE)
    if generate:
        return secrets.token_urlsafe(15), True
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n"), False
    if not sys.stdin.isatty():
        fail("give a password: --password-stdin, or --generate.", WRONG_USE)
    asked = typer.prompt(f"New password of {login}", hide_input=True, confirmation_prompt=True, err=True)
    return str(asked), False
