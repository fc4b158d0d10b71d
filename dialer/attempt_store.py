"""Attempts in the database: how far they have come, what became of them and of their contacts. SQL beside its function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from dialer import do_not_call
from dialer.attempts import Outcome
from dialer.campaign_settings import CampaignSettings
from dialer.lists import list_settings
from dialer.outcomes import Next, after, alive

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """An attempt as it stands. Of one that has ended `outcome` is set; `settings` and `alone` then say what follows."""

    id: str
    campaign: int
    state: str
    trunk: str = ""
    caller_id: str = ""
    dialed: datetime | None = None
    ringing: datetime | None = None
    answered: datetime | None = None
    connected: datetime | None = None
    ended: datetime | None = None
    agent: str | None = None
    queue: str | None = None
    waited: float | None = None
    outcome: str | None = None
    cause: int | None = None
    amd: str | None = None
    message_played: datetime | None = None
    opted_out: bool = False
    why: str = ""


async def write(
    pool: Pool, rows: Sequence[AttemptRow], settings: dict[int, tuple[CampaignSettings, bool]], now: datetime
) -> None:
    """Writes how attempts stand, all or none. Those that end let their contacts go: done, open again later, used up. An
    attempt that is written as ended stays so, whoever writes it again. `settings`: campaign → its settings, and whether its
    mode is agentless."""
    async with pool.acquire() as db, db.transaction():
        ended = await _update(db, rows)
        for row in rows:
            if row.outcome is not None and row.id in ended and row.campaign in settings:
                if row.opted_out:
                    await _never_again(db, row, ended[row.id]["e164"], settings[row.campaign][0])
                await _let_go(db, row, ended[row.id], *settings[row.campaign], now)


async def _update(db: PoolConnection, rows: Sequence[AttemptRow]) -> dict[str, Any]:
    """Returns those that have ended now: id → (contact_id, e164)."""
    ended: dict[str, Any] = {}
    for row in rows:
        found = await db.fetchrow(
            """
            UPDATE attempts
               SET state = $2, trunk = CASE WHEN $3 = '' THEN trunk ELSE $3 END,
                   caller_id = CASE WHEN $4 = '' THEN caller_id ELSE $4 END,
                   dialed = coalesce(dialed, $5), ringing = coalesce(ringing, $6), answered = coalesce(answered, $7),
                   connected = coalesce(connected, $8), ended = coalesce(ended, $9), agent = coalesce(agent, $10),
                   queue = coalesce(queue, $11), waited = coalesce(waited, $12), outcome = coalesce(outcome, $13),
                   cause = coalesce($14, cause), amd = coalesce($15, amd),
                   message_played = coalesce(message_played, $16), opted_out = opted_out OR $17,
                   why = CASE WHEN $18 = '' THEN why ELSE $18 END
             WHERE id = $1 AND state <> 'ended'
            RETURNING contact_id, e164
            """,
            row.id,
            row.state,
            row.trunk,
            row.caller_id,
            row.dialed,
            row.ringing,
            row.answered,
            row.connected,
            row.ended,
            row.agent,
            row.queue,
            row.waited,
            row.outcome,
            row.cause,
            row.amd,
            row.message_played,
            row.opted_out,
            row.why[:200],
        )
        if found is not None and row.outcome is not None:
            ended[row.id] = found
    return ended


async def _never_again(db: PoolConnection, row: AttemptRow, e164: str, settings: CampaignSettings) -> None:
    """Who pressed the key during the message is on the do-not-call list, in the same transaction as the attempt's end."""
    await do_not_call.add(
        db,
        number=e164,
        scope="company" if settings.company else "everywhere",
        company=settings.company,
        by="customer",
        reason="pressed the key during the message",
        call=row.id,
    )


async def _let_go(
    db: PoolConnection, row: AttemptRow, found: Any, settings: CampaignSettings, alone: bool, now: datetime
) -> None:
    contact = await db.fetchrow(
        """
        SELECT e164, other_numbers, dead_numbers, turn, attempts,
               (SELECT settings::text FROM call_lists l WHERE l.id = list_id) AS list_settings,
               (SELECT jsonb_object_agg(outcome, n) FROM
                  (SELECT outcome, count(*) AS n FROM attempts
                    WHERE contact_id = $1 AND outcome IS NOT NULL
                      AND committed > coalesce(recycled, '-infinity') GROUP BY outcome) AS o)::text AS so_far
          FROM list_contacts WHERE id = $1 AND state = 'in_hand' FOR UPDATE
        """,
        found["contact_id"],
    )
    if contact is None:
        return  # its list is gone, or somebody has decided on it
    assert row.outcome is not None
    so_far = _counts(contact["so_far"])
    follows = after(
        list_settings(contact["list_settings"]).over(settings),
        Outcome(row.outcome),
        dialed=found["e164"],
        numbers=alive(contact["e164"], contact["other_numbers"], contact["dead_numbers"]),
        turn=contact["turn"],
        attempts=contact["attempts"],
        so_far=so_far,
        now=now,
        alone=alone,
        opted_out=row.opted_out,
    )
    await _settle_contact(db, found["contact_id"], follows, row.outcome)


def _counts(text: str | None) -> dict[str, int]:
    return msgspec.json.decode(text, type=dict[str, int]) if text else {}


async def _settle_contact(db: PoolConnection, contact: int, follows: Next, outcome: str) -> None:
    await db.execute(
        """
        UPDATE list_contacts
           SET state = $2, why = $3, not_before = coalesce($4, not_before), turn = $5, last_outcome = $6,
               dead_numbers = CASE WHEN $7 = '' THEN dead_numbers ELSE dead_numbers || $7 END
         WHERE id = $1
        """,
        contact,
        follows.state,
        follows.why,
        follows.not_before,
        follows.turn,
        outcome,
        follows.dead,
    )


async def open_attempts(pool: Pool, campaign: int) -> list[Any]:
    """Attempts of a campaign that have not ended, as they were last written."""
    return list(
        await pool.fetch(
            """
            SELECT a.*, c.name AS contact_name, c.language, c.data, l.name AS list_name, l.script
              FROM attempts a
              LEFT JOIN list_contacts c ON c.id = a.contact_id
              LEFT JOIN call_lists l ON l.id = a.list_id
             WHERE a.campaign_id = $1 AND a.state <> 'ended'
            """,
            campaign,
        )
    )


async def recent(pool: Pool, campaign: int, hours: float, most: int) -> list[Any]:
    """The last attempts of the pace's window, the oldest first; ages in seconds by the database's clock."""
    return list(
        await pool.fetch(
            """
            SELECT * FROM (
                SELECT id, outcome, agent, extract(epoch FROM now() - coalesce(dialed, committed))::float8 AS dialed,
                       extract(epoch FROM now() - ringing)::float8 AS ringing,
                       extract(epoch FROM now() - answered)::float8 AS answered,
                       extract(epoch FROM now() - connected)::float8 AS connected,
                       extract(epoch FROM now() - ended)::float8 AS ended, waited, amd
                  FROM attempts
                 WHERE campaign_id = $1 AND state = 'ended' AND ended > now() - make_interval(secs => $2)
                 ORDER BY ended DESC LIMIT $3) AS last
             ORDER BY dialed DESC
            """,
            campaign,
            hours * 3600.0,
            most,
        )
    )


async def dispose(pool: Pool, attempt: str, disposition: str) -> None:
    """Notes how an agent says that the call ended."""
    await pool.execute("UPDATE attempts SET disposition = $2 WHERE id = $1", attempt, disposition[:100])
