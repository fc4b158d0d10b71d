"""Lets go of what has been kept long enough: old facts, read messages, ended sessions, old audit entries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from cti import audit, messages
from cti.database import Database
from cti.journal import Journal
from cti.tokens import Tokens

if TYPE_CHECKING:
    from cti.database import Queryable

log = structlog.get_logger(__name__)

Expire = Callable[["Queryable", datetime], Awaitable[None]]

EVERY = 6 * 3600.0
"""Seconds between two clean-ups."""


async def keep_house(
    database: Database,
    journal: Journal,
    tokens: Tokens,
    *,
    keep_journal_days: int,
    keep_audit_days: int,
    also: Iterable[Expire] = (),
) -> None:
    """Cleans up every few hours, until cancelled; what fails is logged and tried again the next time.

    `also`: what else lets go of what was over before a time, as old as the journal.
    """
    while True:
        await asyncio.sleep(EVERY)
        try:
            now = datetime.now(UTC)
            await journal.expire(keep_journal_days)
            for expire in (messages.expire, *also):
                await expire(database.pool, now - timedelta(days=keep_journal_days))
            await tokens.forget_old()
            await audit.expire(database.pool, now - timedelta(days=keep_audit_days))
        except Exception as error:
            log.warning("old data could not be let go of", why=f"{type(error).__name__}: {error}"[:200])
