"""Blocked contacts are looked at again when what blocked them has changed. Always safe: every claim asks the law anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cti.database import Queryable


async def of_numbers(db: Queryable, numbers: Iterable[str], persons: Iterable[str] = ()) -> int:
    """Opens the blocked contacts of these numbers (E.164) and persons; returns how many. By index."""
    opened = await db.fetchval(
        """WITH found AS (
               SELECT id FROM list_contacts WHERE e164 = ANY ($1::text[]) AND state = 'blocked'
               UNION
               SELECT id FROM list_contacts WHERE person = ANY ($2::text[]) AND person <> '' AND state = 'blocked'
           ), opened AS (
               UPDATE list_contacts c SET state = 'open', why = '', not_before = now()
               FROM found WHERE c.id = found.id AND c.state = 'blocked' RETURNING c.id
           )
           SELECT count(*) FROM opened""",
        sorted(set(numbers)),
        sorted(set(persons) - {""}),
    )
    return int(opened)


async def of_campaign(db: Queryable, campaign_id: int) -> int:
    """Opens all blocked contacts of a campaign's lists, after its profile or settings changed; returns how many."""
    opened = await db.fetchval(
        """WITH opened AS (
               UPDATE list_contacts c SET state = 'open', why = '', not_before = now()
               FROM call_lists l WHERE l.id = c.list_id AND l.campaign_id = $1 AND c.state = 'blocked' RETURNING c.id
           )
           SELECT count(*) FROM opened""",
        campaign_id,
    )
    return int(opened)


async def of_register(db: Queryable, register: str) -> int:
    """Lets contacts wait no longer that were put off because an edition of the register was missing or too old."""
    woken = await db.fetchval(
        """WITH woken AS (
               UPDATE list_contacts SET not_before = now(), why = ''
               WHERE state = 'open' AND not_before > now()
                 AND (starts_with(why, 'no edition of the register ' || $1 || ' ')
                      OR starts_with(why, 'not on the register ' || $1 || ','))
               RETURNING id
           )
           SELECT count(*) FROM woken""",
        register,
    )
    return int(woken)
