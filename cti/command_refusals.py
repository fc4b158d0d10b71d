"""Refusals of what a command works on, as the refusal of the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cti.commands import CommandError
from cti.database import AWAY
from cti.refusals import Refused

NOTHING_DONE = "the database does not answer: nothing was done, try again in a moment"


@contextmanager
def refusing(away: str | None = None) -> Iterator[None]:
    """Turns Refused into a CommandError with its code and words; `away`: what a database out of reach is answered with,
    where one is asked."""
    try:
        yield
    except Refused as error:
        raise CommandError(error.code, str(error)) from None
    except AWAY:
        if away is None:
            raise
        raise CommandError("database_unavailable", away) from None
