"""Contacts who might not be called, looked at again when what stood in the way may have changed.

Nothing is decided here: they are open again, and the law says at the next claim whether they may be called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cti.database import Queryable

PORTION = 5_000
"""Contacts changed by one statement, so that none is locked for long."""


async def reopen(db: Queryable, *, campaign: int | None = None) -> int:
    """Opens the blocked contacts of a campaign, or of all; returns how many. To be called outside a transaction."""
    opened = 0
    while True:
        done = await db.execute(
            """
            UPDATE list_contacts SET state = 'open', why = ''
             WHERE id IN (SELECT c.id FROM list_contacts c JOIN call_lists l ON l.id = c.list_id
                           WHERE c.state = 'blocked' AND ($1::bigint IS NULL OR l.campaign_id = $1)
                           LIMIT $2 FOR UPDATE OF c SKIP LOCKED)
            """,
            campaign,
            PORTION,
        )
        count = int(done.rpartition(" ")[2])
        opened += count
        if count < PORTION:
            return opened


async def reopen_who(db: Queryable, *, numbers: Sequence[str] = (), persons: Sequence[str] = ()) -> None:
    """Opens blocked contacts that have one of these numbers, or are one of these persons."""
    await db.execute(
        """
        UPDATE list_contacts SET state = 'open', why = ''
         WHERE state = 'blocked'
           AND id IN (SELECT id FROM list_contacts WHERE e164 = ANY($1::text[])
                      UNION ALL SELECT id FROM list_contacts WHERE other_numbers && $1::text[] AND other_numbers <> '{}'
                      UNION ALL SELECT id FROM list_contacts WHERE person = ANY($2::text[]) AND person <> '')
        """,
        list(numbers),
        list(persons),
    )
