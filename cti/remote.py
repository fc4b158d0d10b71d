"""What commands share that work over REST, as whoever logs in: how they are told where and who, and how they are refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from cti.console import FAILED, WRONG_USE, fail

if TYPE_CHECKING:
    from pathlib import Path

    from cti.rest_client import Server

T = TypeVar("T")

Url = Annotated[str, typer.Option(envvar="CTI_URL", help="The server.")]
Who = Annotated[
    str | None, typer.Option(envvar="CTI_LOGIN", help="Who asks; the password is asked for, or CTI_PASSWORD.")
]
HERE = "http://127.0.0.1:8600"


def run(url: str, login: str | None, work: Callable[[Server], Awaitable[T]]) -> T:
    """Does something with the server; what it refuses ends the command with its sentence."""
    import asyncio

    from cti import logs
    from cti.rest_client import RefusedByServer, at
    from cti.watch import LogInFailed

    logs.none()
    if not url.startswith(("http://", "https://")):
        fail(f"{url} is no address of a server: it begins with http:// or https://.", WRONG_USE)
    key, given = os.environ.get("CTI_API_KEY"), os.environ.get("CTI_PASSWORD")
    if key is None and (login is None or given is None):
        if not sys.stdin.isatty():
            fail("say who asks: CTI_API_KEY, or --login (CTI_LOGIN) and CTI_PASSWORD.", WRONG_USE)
        login = login or str(typer.prompt("Login", err=True))
        given = given or str(typer.prompt(f"Password of {login}", hide_input=True, err=True))

    async def do() -> T:
        async with at(url.rstrip("/"), login or "", given or "", key) as server:
            return await work(server)

    try:
        return asyncio.run(do())
    except LogInFailed as failed:
        fail(str(failed))
    except RefusedByServer as refused:
        _refused(refused.status, str(refused))


def _refused(status: int, says: str) -> NoReturn:
    if status == 412:
        fail("somebody else has changed this meanwhile: try again.")
    parts = says.split("; ") if status == 409 else [says]
    if len(parts) > 1:
        fail("\n  - ".join(["it cannot be done:", *parts]), FAILED)
    fail(says, WRONG_USE if status == 422 else FAILED)


def after_the_command(ctx: typer.Context) -> None:
    """Fails where it is said before the command who asks whom: it would not be heeded."""
    for name in ("url", "login"):
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            fail(f"write --{name} after the command {ctx.invoked_subcommand}.", WRONG_USE)


def read_as(kind: type[T], value: Any) -> T:
    """Returns what a server has answered as the view that it is."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(value)


async def saved(server: Server, path: str, query: dict[str, str], to: Path | None) -> None:
    """Writes a file of the server's into one of ours, or to standard output; untouched where the server refuses."""
    parts = server.parts(path, query)
    first = await anext(parts, b"")
    try:
        out = open(to, "wb") if to is not None else _Standard()  # noqa: ASYNC230, SIM115  # nothing else waits
    except OSError as error:
        fail(f"{to} cannot be written: {error.strerror}.", WRONG_USE)
    with out:
        out.write(first)
        async for part in parts:
            out.write(part)


class _Standard:
    """The standard output as bytes."""

    def __enter__(self) -> None:
        sys.stdout.flush()

    def write(self, part: bytes) -> None:
        if buffer := getattr(sys.stdout, "buffer", None):
            buffer.write(part)
        else:
            sys.stdout.write(part.decode())

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
