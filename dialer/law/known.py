"""What must be known of contacts before they are called, read for a whole batch by one query; and the verdicts on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from dialer.candidate import Candidate
from dialer.compliance import SOON, ConsentState, Known, Listed, Promised, judge
from dialer.law.profiles import Profile
from dialer.verdict import Step, Verdict

if TYPE_CHECKING:
    from cti.database import Queryable

_CLASS = 0x0C71_0D14  # of the advisory locks: numbers and persons that a claim is deciding on


def _made(whose: str) -> str:
    """What was made of attempts so far, of a number or of a person."""
    return f"""CROSS JOIN LATERAL (
    SELECT array_agg(t.committed ORDER BY t.committed DESC) FILTER (WHERE t.placed) AS made,
           max(t.at) FILTER (WHERE lost_answer(t.counts_as) AND t.at <= $5) AS abandoned,
           max(t.at) FILTER (WHERE t.outcome = 'machine' AND t.at <= $5) AS machine,
           coalesce(bool_or(t.outcome IS NULL OR t.at > $5), false) AS under_way
    FROM (
        SELECT committed, coalesce(ended, committed) AS at, outcome, counts_as,
               outcome IS NULL OR coalesce(dialed, ringing, answered) IS NOT NULL AS placed
        FROM attempts WHERE {whose} AND committed > $4 - interval '90 days' AND committed <= $5
        ORDER BY committed DESC LIMIT 300
    ) t
)"""  # noqa: S608  # of the two conditions below


def _said(channel: str, where: str = "") -> str:
    """The last word on consent to a channel; who has withdrawn consent to calls has to all kinds of them."""
    return f"""LEFT JOIN LATERAL (
    SELECT jsonb_build_object('id', s.id, 'given', s.given, 'purpose', s.purpose, 'at', s.at, 'source', s.source) AS said
    FROM (
        SELECT * FROM consents
        WHERE {where}number = a.number AND (NOT given OR person = '' OR a.person = '' OR person = a.person)
        UNION ALL
        SELECT * FROM consents WHERE {where}person = a.person AND person <> '' AND (NOT given OR number IS NULL)
    ) s
    WHERE s.at <= $5 AND (law_name(s.purpose) = law_name(c.purpose) OR (s.purpose = '' AND NOT s.given))
      AND (s.channel = {channel} OR (s.channel = 'call' AND NOT s.given))
    ORDER BY s.at DESC, s.given, s.id DESC LIMIT 1
)"""  # noqa: S608  # of columns and conditions of this module


KNOWN = f"""
WITH asked AS (
    SELECT a.ord, a.e164, a.person, a.contact, substr(a.e164, 2)::bigint AS number
    FROM unnest($1::text[], $2::text[], $6::bigint[]) WITH ORDINALITY AS a (e164, person, contact, ord)
), campaign AS (
    SELECT id, mode, coalesce(nullif(settings ->> 'purpose', ''), 'marketing') AS purpose,
           CASE mode WHEN 'agentless' THEN 'recorded' ELSE 'call' END AS channel,
           law_name(settings ->> 'company') AS company,
           settings ->> 'machine_message' IS NOT NULL AND mode <> 'agentless' AS drops
    FROM campaigns WHERE id = $3
), editions AS (
    SELECT id, register, edition FROM do_not_call_editions WHERE state = 'active'
)
SELECT a.ord, c.mode, c.purpose, promised.told AS promised, own.listed, national.listed AS national, consent.said,
       recorded.said AS recorded,
       n.made AS number_made, n.abandoned AS number_abandoned, n.machine AS number_machine, n.under_way AS number_under_way,
       p.made AS person_made, p.abandoned AS person_abandoned, p.machine AS person_machine,
       p.under_way AS person_under_way,
       s.made AS contact_made, s.abandoned AS contact_abandoned, s.machine AS contact_machine,
       s.under_way AS contact_under_way,
       (SELECT coalesce(jsonb_object_agg(register, edition), '{{}}') FROM editions) AS editions
FROM asked a CROSS JOIN campaign c
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('list', d.scope, 'since', d.added::date, 'until', d.expires, 'reason', d.reason)
                     ORDER BY d.id) AS listed
    FROM do_not_call d
    WHERE d.number = a.number AND d.added <= $5 AND (d.removed IS NULL OR d.removed > $4)
      AND (d.expires IS NULL OR d.expires > $4)
      AND (d.scope = 'everywhere' OR (d.scope = 'company' AND law_name(d.company) = c.company)
           OR (d.scope = 'campaign' AND d.campaign_id = c.id))
) own
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('list', e.register, 'since', e.edition)) AS listed
    FROM editions e JOIN do_not_call_blocks b ON b.edition = e.id AND b.block = a.number / 10000
    WHERE CASE WHEN b.bits IS NULL THEN (a.number % 10000)::smallint = ANY (b.few)
               ELSE get_bit(b.bits, a.number % 10000) = 1 END
) national
{_said("c.channel")} consent ON true
{_said("'recorded'", "c.drops AND ")} recorded ON true
LEFT JOIN LATERAL (
    SELECT jsonb_build_object('due', b.due, 'keeper', b.keeper) AS told
    FROM promised_numbers b
    WHERE (b.key = a.e164 OR (a.person <> '' AND b.key = 'person ' || a.person)) AND b.made <= $5
    ORDER BY b.due DESC LIMIT 1
) promised ON true
{_made("e164 = a.e164")} n
{_made("person = a.person AND person <> ''")} p
{_made("contact_id = a.contact")} s
ORDER BY a.ord
"""  # noqa: S608
"""$1 numbers, $2 persons, $3 campaign, $4 the moment, $5 up to when records are looked at, $6 contacts whose numbers
are all that tells that they are one person; 0 for others."""

NEVER_ENDING = datetime(9999, 1, 1, tzinfo=UTC)


class NoSuchCampaign(LookupError):
    """There is no such campaign."""


async def known_for(
    db: Queryable,
    candidates: Sequence[Candidate],
    campaign_id: int,
    now: datetime,
    *,
    as_of: bool = False,
) -> dict[int, Known]:
    """Returns what is known of each candidate, by contact, with one query. Raises NoSuchCampaign.

    `as_of`: only what was on record at `now`, for a question about the past. Otherwise also what another server's clock,
    a little ahead of ours, has written. National registers are those of today either way.
    """
    if not candidates:
        return {}
    rows = await db.fetch(
        KNOWN,
        [one.e164 for one in candidates],
        [one.person for one in candidates],
        campaign_id,
        now,
        now if as_of else NEVER_ENDING,
        [one.contact if one.several and not one.person else 0 for one in candidates],
    )
    if not rows:
        raise NoSuchCampaign(f"there is no campaign {campaign_id}")
    editions = _editions(rows[0]["editions"])
    return {one.contact: _known(row, editions, now) for one, row in zip(candidates, rows, strict=True)}


def _editions(told: str) -> dict[str, date]:
    return {register: date.fromisoformat(day) for register, day in msgspec.json.decode(told).items()}


def _known(row: Any, editions: dict[str, date], now: datetime) -> Known:
    listed = [*_list(row["listed"]), *_list(row["national"])]
    month = now - timedelta(days=30)
    return Known(
        mode=row["mode"],
        purpose=row["purpose"],
        listed=tuple(
            Listed(
                list=entry["list"],
                since=date.fromisoformat(entry["since"]),
                until=datetime.fromisoformat(entry["until"]) if entry.get("until") else None,
                reason=entry.get("reason", ""),
            )
            for entry in listed
        ),
        editions=editions,
        consent=_consent(row["said"]),
        recorded=_consent(row["recorded"]),
        attempts_of_number=tuple(at for at in row["number_made"] or () if at > month),
        attempts_of_person=tuple(at for at in row["person_made"] or row["contact_made"] or () if at > month),
        last_abandoned=_last(row["number_abandoned"], row["person_abandoned"], row["contact_abandoned"]),
        last_machine=_last(row["number_machine"], row["person_machine"], row["contact_machine"]),
        under_way=row["number_under_way"] or row["person_under_way"] or row["contact_under_way"],
        promised=_promised(row["promised"]),
    )


def _consent(told: str | None) -> ConsentState | None:
    if told is None:
        return None
    said = msgspec.json.decode(told)
    return ConsentState(
        id=said["id"],
        given=said["given"],
        purpose=said["purpose"],
        at=datetime.fromisoformat(said["at"]),
        source=said["source"],
    )


def _promised(told: str | None) -> Promised | None:
    if told is None:
        return None
    found = msgspec.json.decode(told)
    return Promised(due=datetime.fromisoformat(found["due"]), keeper=found["keeper"])


def _list(told: str | None) -> list[dict[str, Any]]:
    return msgspec.json.decode(told) if told else []


def _last(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


async def check_all(
    db: Queryable, candidates: Sequence[Candidate], campaign_id: int, profile: Profile, now: datetime
) -> dict[int, Verdict]:
    """Returns the verdict on each candidate, by contact; to be called in the transaction that writes the attempts.

    Of several candidates with one number or person, at most one is allowed. Numbers and persons that another transaction
    is deciding on are refused for some minutes, so no two servers call one number at once. `profile`: the campaign's own,
    tightened. Raises NoSuchCampaign.
    """
    if not candidates:
        return {}
    ours = await _take(db, candidates)
    known = await known_for(db, candidates, campaign_id, now)
    verdicts: dict[int, Verdict] = {}
    chosen: set[str] = set()
    for one in candidates:
        about, names = known[one.contact], _names(one)
        if not chosen.isdisjoint(names):
            about = replace(about, under_way=True)
        verdict = judge(profile, one, about, now)
        if not ours.issuperset(names):
            verdict = _elsewhere(verdict, now)
        verdicts[one.contact] = verdict
        if verdict.allowed:
            chosen |= names
    return verdicts


def _names(candidate: Candidate) -> set[str]:
    return {candidate.e164, f"person {candidate.person}"} if candidate.person else {candidate.e164}


async def _take(db: Queryable, candidates: Sequence[Candidate]) -> set[str]:
    """Marks numbers and persons as being decided on until the transaction ends; returns those that nobody else has."""
    names = sorted({name for one in candidates for name in _names(one)})
    rows = await db.fetch(
        """SELECT name FROM unnest($1::text[]) AS name
           WHERE pg_try_advisory_xact_lock($2, hashtext(name))""",
        names,
        _CLASS,
    )
    return {row["name"] for row in rows}


def _elsewhere(verdict: Verdict, now: datetime) -> Verdict:
    step = Step(rule="under_way", ok=False, says="another server is deciding on this number at this moment")
    again = verdict.not_before if not verdict.allowed else now + SOON
    return Verdict(
        steps=(*verdict.steps, step), not_before=again, consent=verdict.consent, recorded=verdict.recorded
    )
