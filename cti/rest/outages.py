"""What it means to whoever asks when the database is out of reach: try again in a moment."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import structlog

from cti.database import DatabaseUnavailable
from cti.problems import Problem
from cti.rest.serving import Translate

log = structlog.get_logger(__name__)


def _unavailable(error: Exception) -> Problem:
    if isinstance(error, asyncpg.InterfaceError) and "clos" not in str(error):
        # Not a closed pool or connection: asyncpg calls a query that we got wrong by the same name.
        log.error("a query is wrong", error=type(error).__name__, exc_info=error)
        return Problem(500, "internal", "the server failed; its log says why")
    log.warning("database out of reach", error=type(error).__name__)
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
