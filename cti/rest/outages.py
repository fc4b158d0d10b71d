"""What it means to whoever asks when the database is out of reach: try again in a moment."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from cti.database import DatabaseUnavailable
from cti.problems import Problem
from cti.rest.serving import Translate


def _unavailable(_error: Exception) -> Problem:
    return Problem(
        503,
        "unavailable",
        "the database is out of reach: try again in a moment, and look first whether a change was kept",
        headers={"Retry-After": "2"},
    )


OUTAGES: Mapping[type[Exception], Translate] = dict.fromkeys(
    (
        DatabaseUnavailable,
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.QueryCanceledError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.InterfaceError,
        OSError,  # TimeoutError of a pool without a free connection among them
    ),
    _unavailable,
)
