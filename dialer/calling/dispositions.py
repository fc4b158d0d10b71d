"""What agents say a campaign's call ended with: which words there are, and what becomes of the contact then.

Both are the campaign's own, as it is written at that moment. Everything happens in the transaction that keeps the word: what
is acknowledged has been done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from cti.wrap_up import Disposition
from dialer.calling.outcomes import said
from dialer.law import do_not_call
from dialer.law.do_not_call import WrongEntry
from dialer.lists import list_settings
from dialer.management.settings import CampaignDisposition, CampaignSettings

if TYPE_CHECKING:
    from cti.database import Queryable

log = structlog.get_logger(__name__)


OF_CALL = """
SELECT a.id, a.campaign_id, a.contact_id, a.e164, a.state, a.committed, c.settings::text AS settings
  FROM attempts a JOIN campaigns c ON c.id = a.campaign_id
 WHERE a.id = split_part($1, ':', 2) OR a.call = $1 ORDER BY a.committed DESC LIMIT 1
"""
"""The attempt of a call, of several the last."""


def words_of(settings: CampaignSettings) -> tuple[Disposition, ...]:
    """The campaign's dispositions as agents choose from them."""
    return tuple(
        Disposition(code=one.code, label=one.label, category=one.category) for one in settings.dispositions
    )


async def choice(db: Queryable, call: str) -> Sequence[Disposition] | None:
    """What may be said of this call; None where no campaign with words of its own placed it."""
    row = await db.fetchrow(OF_CALL, call)
    if row is None:
        return None
    return words_of(CampaignSettings.model_validate_json(row["settings"])) or None


async def follows(db: Queryable, call: str, code: str, by: str, now: datetime) -> None:
    """Does what this disposition of a campaign's call does: who does not want calls is listed at once; the contact of a call
    that is over is done with or waits for the next call. Of a call under way the contact follows when it ends.

    A contact that somebody has called since, or decided on, stays as it is. Nothing for any other call."""
    row = await db.fetchrow(f"{OF_CALL} FOR UPDATE OF a", call)
    settings = CampaignSettings.model_validate_json(row["settings"]) if row is not None else None
    disposition = settings.disposition(code) if settings is not None else None
    if row is None or settings is None or disposition is None:
        return
    if disposition.follows == "do_not_call":
        await _list(db, row, settings, disposition, by)
    if row["state"] == "ended" and row["contact_id"] is not None:
        await _change(db, row, settings, disposition, now)


async def _list(
    db: Queryable, row: Any, settings: CampaignSettings, disposition: CampaignDisposition, by: str
) -> None:
    scope = disposition.do_not_call or ("company" if settings.company else "everywhere")
    try:
        await do_not_call.add(
            db,
            number=row["e164"],
            scope=scope,
            company=settings.company,
            campaign=row["campaign_id"],
            reason=disposition.label,
            call=row["id"],
            by=by,
        )
    except WrongEntry as error:
        log.error("a number cannot be listed as not to be called", attempt=row["id"], why=str(error))
        raise


async def _change(
    db: Queryable, row: Any, settings: CampaignSettings, disposition: CampaignDisposition, now: datetime
) -> None:
    contact = await db.fetchrow(
        """
        SELECT c.id, c.turn, c.attempts, l.settings::text AS list_settings,
               EXISTS (SELECT FROM promised_numbers WHERE key = $2) AS promised
          FROM list_contacts c JOIN call_lists l ON l.id = c.list_id
         WHERE c.id = $1 AND c.state IN ('open', 'done', 'exhausted') AND coalesce(c.recycled < $3, true)
           AND NOT EXISTS (SELECT FROM attempts WHERE contact_id = c.id AND committed > $3)
           FOR UPDATE OF c
        """,
        *(row["contact_id"], row["e164"], row["committed"]),
    )
    if contact is None:
        return
    then = said(
        list_settings(contact["list_settings"]).over(settings),
        disposition,
        turn=contact["turn"],
        attempts=contact["attempts"],
        promised=contact["promised"],
        now=now,
    )
    await db.execute(
        """UPDATE list_contacts SET state = $2, why = $3, not_before = coalesce($4, not_before), turn = $5
            WHERE id = $1""",
        *(contact["id"], then.state, then.why, then.not_before, then.turn),
    )
