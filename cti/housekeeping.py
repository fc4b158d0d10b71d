"""Lets go of what has been kept long enough: old facts, read messages, ended sessions, old audit entries."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from cti import audit, messages
from cti.database import Database
from cti.journal import Journal
from cti.tokens import Tokens

log = structlog.get_logger(__name__)

EVERY = 6 * 3600.0
"""Seconds between two clean-ups."""


async def keep_house(
    database: Database, journal: Journal, tokens: Tokens, *, keep_journal_days: int, keep_audit_days: int
) -> None:
    """Cleans up every few hours, until cancelled; what fails is logged and tried again the next time."""
    while True:
        await asyncio.sleep(EVERY)
        try:
            now = datetime.now(UTC)
            await journal.expire(keep_journal_days)
            await messages.expire(database.pool, now - timedelta(days=keep_journal_days))
            await tokens.forget_old()
            await audit.expire(database.pool, now - timedelta(days=keep_audit_days))
        except Exception as error:
            log.warning("old data could not be let go of", why=f"{type(error).__name__}: {error}"[:200])
