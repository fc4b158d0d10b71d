"""Who presses the key during a message is not called again: listed at once, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from cti import audit
from cti.people import Actor, Role
from dialer.do_not_call import digits_of

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

log = structlog.get_logger(__name__)

CUSTOMER = Actor(login="customer", name="the customer, by a key", role=Role.ADMIN, via="system")
"""Who it is in the audit; nobody can log in so."""

LONGEST_PAUSE = 30.0

LIST = """
INSERT INTO do_not_call (number, scope, company, reason, call, added_by)
SELECT DISTINCT ON (1, 2, 3) substr(a.e164, 2)::bigint,
       CASE WHEN coalesce(c.settings ->> 'company', '') = '' THEN 'everywhere' ELSE 'company' END,
       coalesce(c.settings ->> 'company', ''), 'pressed the key during the message', a.id, 'customer'
FROM attempts a JOIN campaigns c ON c.id = a.campaign_id
WHERE a.opted_out
  AND NOT EXISTS (SELECT FROM do_not_call d WHERE d.number = substr(a.e164, 2)::bigint
                    AND (d.call = a.id OR d.removed > a.committed))
ON CONFLICT (number, scope, company, campaign_id) WHERE removed IS NULL DO NOTHING
RETURNING id
"""


class OptOuts:
    """Lists who has opted out: for the company of the campaign, or everywhere if it names none.

    What is heard is listed within moments, and tried again while the database is away. `catch_up` at a start lists what a
    server that died had not: the attempts know it.
    """

    def __init__(self, pool: Callable[[], Pool], *, pause: float = 1.0) -> None:
        self._pool = pool
        self._pause = pause

    async def heard(self, number: str, campaign: int, attempt: str) -> None:
        """Lists the number; returns when that is written. For the dialer's loop, which runs it as a task of its own."""
        pause = self._pause
        while True:
            try:
                async with self._pool().acquire(timeout=5) as db, db.transaction():
                    entry = await db.fetchval(
                        """INSERT INTO do_not_call AS d (number, scope, company, reason, call, added_by)
                           SELECT $1, CASE WHEN company = '' THEN 'everywhere' ELSE 'company' END, company,
                                  'pressed the key during the message', $3, 'customer'
                           FROM (SELECT coalesce(settings ->> 'company', '') AS company FROM campaigns WHERE id = $2) c
                           ON CONFLICT (number, scope, company, campaign_id) WHERE removed IS NULL
                               DO UPDATE SET expires = NULL RETURNING id""",
                        digits_of(number),
                        campaign,
                        attempt,
                    )
                    await audit.record(
                        db, CUSTOMER, "do_not_call.added", "dialer", {"entry": entry, "attempt": attempt}
                    )
                return
            except Exception as error:
                log.warning("an opt-out waits for the database", attempt=attempt, why=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def catch_up(db: Queryable) -> int:
    """Lists everybody whose attempt says that they opted out and who has not been listed for it; returns how many."""
    return len(await db.fetch(LIST))
