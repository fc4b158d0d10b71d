"""What every `cti` command shares: how it fails, where its settings are, how it answers scripts. Imports little, so that
`cti --help` is there at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from cti.settings import Settings

FAILED, WRONG_USE = 1, 2
"""Exit codes."""

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON, for scripts.")]


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Ends the command with one sentence on stderr."""
    print(f"cti: {message}", file=sys.stderr)
    raise typer.Exit(code)


def settings() -> Settings:
    """The settings of environment and file. Raises WrongSettings."""
    from cti.settings import load

    return load()


def database_url() -> str:
    """Where the database is. Raises WrongSettings when that is not set."""
    return settings().dsn


def show_json(value: Any) -> None:
    """Writes a value for scripts."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")
