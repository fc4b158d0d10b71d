"""Attempts in the database: how far they have come, what became of them and of their contacts. SQL beside its function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from dialer.attempts import Outcome
from dialer.calling.outcomes import HEARD, MESSAGE_LEFT, Next, after, alive, kind_of, said
from dialer.law import do_not_call
from dialer.lists import list_settings
from dialer.management.settings import CampaignSettings

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection, Queryable


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """An attempt as it stands. Of one that has ended `outcome` is set; `settings` and `alone` then say what follows.
    `end_unseen`: it was found gone, `ended` is when."""

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
    wait_s: float | None = None
    wait_from: str | None = None
    outcome: str | None = None
    counts_as: str | None = None
    cause: int | None = None
    amd: str | None = None
    amd_cause: str | None = None
    amd_s: float | None = None
    detail: str = ""
    message_played: datetime | None = None
    opted_out: bool = False
    why: str = ""
    end_unseen: bool = False


async def write(
    pool: Pool, rows: Sequence[AttemptRow], settings: dict[int, tuple[CampaignSettings, bool]], now: datetime
) -> None:
    """Writes how attempts stand, all or none, by three statements however many there are. Those that end let their contacts
    go: done, open again later, used up. An attempt that is written as ended stays so, whoever writes it again. `settings`:
    campaign → its settings, and whether its mode is agentless."""
    if not rows:
        return
    async with pool.acquire() as db, db.transaction():
        ended = await _update(db, rows)
        over = [row for row in rows if row.id in ended and row.campaign in settings]
        for row in over:
            if row.opted_out:  # hardly anybody does
                await _never_again(db, row, ended[row.id]["e164"], settings[row.campaign][0])
        await _let_go(db, over, ended, settings, now)


async def _update(db: PoolConnection, rows: Sequence[AttemptRow]) -> dict[str, Any]:
    """Returns those that have ended now: id → (contact_id, e164)."""
    columns = zip(
        *(
            (
                *(row.id, row.state, row.trunk, row.caller_id, row.dialed, row.ringing, row.answered),
                *(row.connected, row.ended, row.agent, row.queue, row.waited, row.outcome, row.cause),
                *(row.amd, row.message_played, row.opted_out, row.why[:200], row.counts_as),
                *(row.amd_cause, row.amd_s, row.detail, row.end_unseen, row.wait_s, row.wait_from),
            )
            for row in rows
        ),
        strict=True,
    )
    found = await db.fetch(
        """
        UPDATE attempts a
           SET state = n.state, trunk = CASE WHEN n.trunk = '' THEN a.trunk ELSE n.trunk END,
               caller_id = CASE WHEN n.caller_id = '' THEN a.caller_id ELSE n.caller_id END,
               dialed = coalesce(a.dialed, n.dialed), ringing = coalesce(a.ringing, n.ringing),
               answered = coalesce(a.answered, n.answered), connected = coalesce(a.connected, n.connected),
               ended = coalesce(a.ended, n.ended), agent = coalesce(a.agent, n.agent),
               queue = coalesce(a.queue, n.queue), waited = coalesce(a.waited, n.waited),
               outcome = coalesce(a.outcome, n.outcome), cause = coalesce(n.cause, a.cause),
               amd = coalesce(n.amd, a.amd),
               message_played = CASE WHEN n.detail = 'no_sound' THEN NULL
                                     ELSE coalesce(a.message_played, n.message_played) END,
               opted_out = a.opted_out OR n.opted_out, why = CASE WHEN n.why = '' THEN a.why ELSE n.why END,
               counts_as = CASE WHEN n.detail = 'no_sound' THEN coalesce(n.counts_as, a.counts_as)
                                WHEN a.counts_as IN ('in_time', 'late') THEN a.counts_as
                                ELSE coalesce(n.counts_as, a.counts_as) END,
               amd_cause = coalesce(a.amd_cause, n.amd_cause), amd_s = coalesce(a.amd_s, n.amd_s),
               detail = CASE WHEN n.detail = '' THEN a.detail ELSE n.detail END, end_unseen = n.end_unseen,
               wait_s = coalesce(a.wait_s, n.wait_s), wait_from = coalesce(a.wait_from, n.wait_from)
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
                      $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::text[], $11::text[], $12::real[],
                      $13::text[], $14::integer[], $15::text[], $16::timestamptz[], $17::boolean[], $18::text[],
                      $19::text[], $20::text[], $21::real[], $22::text[], $23::boolean[], $24::real[],
                      $25::text[])
               AS n (id, state, trunk, caller_id, dialed, ringing, answered, connected, ended, agent, queue, waited,
                     outcome, cause, amd, message_played, opted_out, why, counts_as, amd_cause, amd_s, detail,
                     end_unseen, wait_s, wait_from)
         WHERE a.id = n.id AND a.state <> 'ended'
        RETURNING a.id, a.contact_id, a.e164, a.outcome, a.detail, a.disposition
        """,
        *(list(column) for column in columns),
    )
    return {row["id"]: row for row in found if row["outcome"] is not None}


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
    db: PoolConnection,
    over: Sequence[AttemptRow],
    ended: Mapping[str, Any],
    settings: Mapping[int, tuple[CampaignSettings, bool]],
    now: datetime,
) -> None:
    """What follows for the contacts of these attempts; one whose list is gone, or on whom somebody has decided, stays."""
    of_contact = {ended[row.id]["contact_id"]: row for row in over if ended[row.id]["contact_id"] is not None}
    if not of_contact:
        return
    contacts = await db.fetch(
        """
        SELECT c.id, c.e164, c.other_numbers, c.dead_numbers, c.turn, c.attempts, l.settings::text AS list_settings,
               EXISTS (SELECT FROM promised_numbers p JOIN attempts a ON a.e164 = p.key
                        WHERE a.contact_id = c.id AND a.id = ANY ($4::text[])) AS promised,
               (SELECT jsonb_object_agg(kind, n) FROM
                  (SELECT CASE WHEN detail = ANY ($2::text[]) THEN $3::text ELSE outcome END AS kind, count(*) AS n
                     FROM attempts
                    WHERE contact_id = c.id AND outcome IS NOT NULL
                      AND committed > coalesce(c.recycled, '-infinity') GROUP BY kind) AS o)::text AS so_far
          FROM list_contacts c JOIN call_lists l ON l.id = c.list_id
         WHERE c.id = ANY ($1::bigint[]) AND c.state = 'in_hand'
         ORDER BY c.id FOR UPDATE OF c
        """,
        list(of_contact),
        list(HEARD),
        MESSAGE_LEFT,
        [row.id for row in of_contact.values()],
    )
    following = [
        (contact["id"], of_contact[contact["id"]], _follows(contact, of_contact, ended, settings, now))
        for contact in contacts
    ]
    await db.execute(
        """
        UPDATE list_contacts c
           SET state = n.state, why = n.why, not_before = coalesce(n.not_before, c.not_before), turn = n.turn,
               last_outcome = n.outcome,
               dead_numbers = CASE WHEN n.dead = '' THEN c.dead_numbers ELSE c.dead_numbers || n.dead END
          FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[], $5::integer[], $6::text[], $7::text[])
               AS n (id, state, why, not_before, turn, outcome, dead)
         WHERE c.id = n.id
        """,
        [id for id, _, _ in following],
        [follows.state for _, _, follows in following],
        [follows.why for _, _, follows in following],
        [follows.not_before for _, _, follows in following],
        [follows.turn for _, _, follows in following],
        [kind_of(ended[row.id]["outcome"], ended[row.id]["detail"]) for _, row, _ in following],
        [follows.dead for _, _, follows in following],
    )


def _follows(
    contact: Any,
    of_contact: Mapping[int, AttemptRow],
    ended: Mapping[str, Any],
    settings: Mapping[int, tuple[CampaignSettings, bool]],
    now: datetime,
) -> Next:
    row = of_contact[contact["id"]]
    ours, alone = settings[row.campaign]
    rules = list_settings(contact["list_settings"]).over(ours)
    disposition = ours.disposition(ended[row.id]["disposition"])
    if disposition is not None and not row.opted_out:
        return said(
            rules,
            disposition,
            turn=contact["turn"],
            attempts=contact["attempts"],
            promised=contact["promised"],
            now=now,
        )
    return after(
        rules,
        Outcome(ended[row.id]["outcome"]),
        detail=ended[row.id]["detail"],
        dialed=ended[row.id]["e164"],
        numbers=alive(contact["e164"], contact["other_numbers"], contact["dead_numbers"]),
        turn=contact["turn"],
        attempts=contact["attempts"],
        so_far=_counts(contact["so_far"]),
        now=now,
        alone=alone,
        opted_out=row.opted_out,
    )


def _counts(text: str | None) -> dict[str, int]:
    return msgspec.json.decode(text, type=dict[str, int]) if text else {}


async def open_attempts(pool: Pool, campaign: int) -> list[Any]:
    """Attempts of a campaign that have not ended, as they were last written."""
    return list(
        await pool.fetch(
            """
            SELECT a.*, c.name AS contact_name, c.language, c.data, l.name AS list_name, l.script,
                   (l.settings -> 'assigned')::text AS assigned
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
                SELECT id, outcome, counts_as, agent,
                       extract(epoch FROM now() - coalesce(dialed, committed))::float8 AS dialed,
                       extract(epoch FROM now() - ringing)::float8 AS ringing,
                       extract(epoch FROM now() - answered)::float8 AS answered,
                       extract(epoch FROM now() - connected)::float8 AS connected,
                       extract(epoch FROM now() - ended)::float8 AS ended, waited, amd, amd_s,
                       CASE WHEN NOT end_unseen THEN extract(epoch FROM ended - connected) END::float8 AS talked
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


async def messages_on_machines(db: Queryable, campaign: int, contacts: Sequence[int]) -> dict[int, int]:
    """On how many machines of each of these contacts a message of this campaign has begun, or may have: the PBX goes on
    when nobody watches. Who has none is left out."""
    rows = await db.fetch(
        """
        SELECT contact_id, count(*)::integer AS n FROM attempts
         WHERE contact_id = ANY ($1::bigint[]) AND campaign_id = $2
           AND ((outcome = 'machine' AND message_played IS NOT NULL)
                OR (outcome = 'unknown' AND answered IS NOT NULL AND amd IS NULL))
         GROUP BY contact_id
        """,
        list(contacts),
        campaign,
    )
    return {row["contact_id"]: row["n"] for row in rows}
