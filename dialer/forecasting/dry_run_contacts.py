"""Whom a dry run calls: the contacts that may be called at all, by when their zones are open and when they are due; and who
drops out, and why. One query, however long the lists are; what the law says is said by compliance, once for all alike.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from cti.database import patiently
from dialer.candidate import Candidate
from dialer.compliance import ConsentState, Known, Listed, judge
from dialer.forecasting.dry_run import LONGEST_DAYS, NEVER_OPEN, Dropped, Pool
from dialer.law.calling_hours import UnknownZone, open_times
from dialer.law.profiles import Attempts, Profile

if TYPE_CHECKING:
    from cti.database import Pool as Database

WITHIN = 120.0
"""Seconds that the query may take."""

TIME_HELPS = frozenset({"calling_hours", "holidays"})
"""Rules that only put off a call."""

SAYS = {
    "done": "has been reached",
    "skipped": "an agent did not want to call",
    "attempts_used_up": "all attempts are used up",
    "no_zone": "nobody knows in which time zone the number rings: not called automatically",
    "never_open": NEVER_OPEN,
}

COUNTED = """
WITH campaign AS (
    SELECT id, coalesce(nullif(settings ->> 'purpose', ''), 'marketing') AS purpose,
           coalesce(settings ->> 'company', '') AS company
      FROM campaigns WHERE id = $1
), listed AS MATERIALIZED (
    SELECT c.id, c.zone_group, c.attempts, c.person, substr(c.e164, 2)::bigint AS number, c.why,
           CASE WHEN greatest(c.not_before, l.quota_until) > $3
                THEN date_bin('1 hour', greatest(c.not_before, l.quota_until), timestamptz '2020-01-01 00:00:00+00')
           END AS due,
           CASE WHEN c.state IN ('done', 'blocked', 'skipped') THEN c.state
                WHEN c.state = 'exhausted'
                  OR c.attempts >= least($2, coalesce((l.settings ->> 'max_attempts')::integer, $2)) THEN 'attempts_used_up'
                WHEN g.zones = '{}' AND NOT $4 THEN 'no_zone' ELSE '' END AS gone
      FROM list_contacts c JOIN call_lists l ON l.id = c.list_id JOIN zone_groups g ON g.id = c.zone_group
     WHERE l.campaign_id = $1 AND l.active
), open AS MATERIALIZED (
    SELECT id, number, person FROM listed WHERE gone = ''
), own AS (
    SELECT o.id, min(d.scope) AS scope
      FROM open o CROSS JOIN campaign c JOIN do_not_call d ON d.number = o.number
     WHERE d.removed IS NULL AND (d.expires IS NULL OR d.expires > $3)
       AND (d.scope = 'everywhere' OR (d.scope = 'company' AND d.company = c.company)
            OR (d.scope = 'campaign' AND d.campaign_id = c.id))
     GROUP BY 1
), blocks AS (
    SELECT number / 10000 AS block, array_agg(id) AS ids, array_agg((number % 10000)::integer) AS lasts
      FROM open GROUP BY 1
), national AS (
    SELECT u.id, array_agg(DISTINCT e.register) AS registers
      FROM blocks w
      JOIN do_not_call_editions e ON e.state = 'active'
      JOIN do_not_call_blocks b ON b.edition = e.id AND b.block = w.block
     CROSS JOIN LATERAL unnest(w.ids, w.lasts) AS u (id, last)
     WHERE CASE WHEN b.bits IS NULL THEN u.last::smallint = ANY (b.few) ELSE get_bit(b.bits, u.last) = 1 END
     GROUP BY 1
), words AS (
    SELECT s.* FROM consents s CROSS JOIN campaign c
     WHERE s.channel = 'call' AND (s.purpose = c.purpose OR (s.purpose = '' AND NOT s.given))
), said AS (
    SELECT DISTINCT ON (contact) contact, given FROM (
        SELECT o.id AS contact, s.given, s.at, s.id FROM open o JOIN words s ON s.number = o.number
         WHERE NOT s.given OR s.person = '' OR o.person = '' OR s.person = o.person
        UNION ALL
        SELECT o.id, s.given, s.at, s.id FROM open o JOIN words s ON s.person = o.person AND s.person <> ''
         WHERE NOT s.given OR s.number IS NULL) all_words
     ORDER BY contact, at DESC, given, id DESC
)
SELECT g.id AS zone_group, g.country, g.region, g.zones, a.*,
       (SELECT coalesce(jsonb_object_agg(register, edition), '{}') FROM do_not_call_editions
         WHERE state = 'active')::text AS editions
  FROM (SELECT l.zone_group AS grouped, l.attempts, l.due, l.gone,
               CASE WHEN l.gone = 'blocked' THEN l.why ELSE '' END AS why,
               own.scope, national.registers, said.given, count(*) AS n
          FROM listed l LEFT JOIN own ON own.id = l.id LEFT JOIN national ON national.id = l.id
          LEFT JOIN said ON said.contact = l.id
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8) a
  JOIN zone_groups g ON g.id = a.grouped
"""
"""$1 campaign, $2 the most attempts, $3 now, $4 whether agents dial by hand."""


async def contacts_of(
    database: Database, campaign: int, mode: str, most: int, profile: Profile | None, now: datetime
) -> tuple[tuple[Pool, ...], tuple[Dropped, ...]]:
    """Returns who may be called, and who drops out, on the active lists of a campaign; without a `profile` no law is
    asked."""
    async with patiently(database, WITHIN) as db:  # a long list takes its time
        rows: list[Any] = await db.fetch(COUNTED, campaign, most, now, mode == "manual", timeout=WITHIN + 5.0)
    return await asyncio.to_thread(sorted_out, rows, mode, most, profile, now)


def sorted_out(
    rows: Sequence[Mapping[str, Any]], mode: str, most: int, profile: Profile | None, now: datetime
) -> tuple[tuple[Pool, ...], tuple[Dropped, ...]]:
    """The rows of the query as pools of contacts whose zones are open at the same times, and who drops out. Pure."""
    dropped: Counter[tuple[str, str]] = Counter()
    refusals: dict[Any, tuple[str, str]] = {}
    times: dict[int, tuple[tuple[int, int], ...] | None] = {}
    ready: dict[tuple[tuple[int, int], ...] | None, list[int]] = {}
    due: dict[tuple[tuple[int, int], ...] | None, Counter[tuple[int, int]]] = {}
    for row in rows:
        if row["gone"]:
            code, why = row["gone"], row["why"] or SAYS.get(row["gone"], "must not be called")
            dropped[code, why] += row["n"]
            continue
        if profile is not None:
            alike = row["zone_group"], row["scope"], tuple(row["registers"] or ()), row["given"]
            if alike not in refusals:
                refusals[alike] = _refused(row, mode, profile, now)
            if refusals[alike][0]:
                dropped[refusals[alike]] += row["n"]
                continue
        group = row["zone_group"]
        if group not in times:
            times[group] = _times(row, profile, now)
        open_at = times[group]
        if open_at == ():
            dropped["never_open", SAYS["never_open"]] += row["n"]
        elif row["due"] is not None:
            due.setdefault(open_at, Counter())[int(row["due"].timestamp()), row["attempts"]] += row["n"]
        else:
            ready.setdefault(open_at, [0] * most)[row["attempts"]] += row["n"]
    pools = [
        Pool(
            open=open_at,
            ready=tuple(ready.get(open_at, ())),
            due=tuple((at, tries, n) for (at, tries), n in sorted(due.get(open_at, {}).items())),
        )
        for open_at in {**ready, **due}
    ]
    told = [Dropped(code=code, says=says, count=n) for (code, says), n in dropped.most_common()]
    return tuple(pools), tuple(told)


def lawful_pauses(minutes: Sequence[int], most: int, limits: Sequence[Attempts]) -> tuple[int, ...]:
    """Minutes until the next attempt after the first, the second…, that also keep the law's attempts a day, week and 30
    days."""
    at = [0]
    for tries in range(1, most):
        due = at[-1] + minutes[min(tries, len(minutes)) - 1]
        for limit in limits:
            for _, hours, allowed in limit.windows():
                if tries >= allowed:
                    due = max(due, at[tries - allowed] + int(hours * 60))
        at.append(due)
    return tuple(later - earlier for earlier, later in pairwise(at)) or (1440,)


def _refused(row: Mapping[str, Any], mode: str, profile: Profile, now: datetime) -> tuple[str, str]:
    """What the law says of contacts that are alike: the rule that refuses, and in words; "" if none but time does."""
    editions = {
        register: date.fromisoformat(day) for register, day in msgspec.json.decode(row["editions"]).items()
    }
    today = now.astimezone(UTC).date()
    lists = [(row["scope"], today)] if row["scope"] else []
    lists += [(register, editions.get(register, today)) for register in row["registers"] or ()]
    known = Known(
        mode=mode,
        listed=tuple(Listed(list=name, since=since) for name, since in lists),
        editions=editions,
        consent=ConsentState(id=0, given=row["given"], purpose="", at=now, source="")
        if row["given"] is not None
        else None,
    )
    candidate = Candidate(
        contact=0,
        list=0,
        list_version=0,
        e164="",
        zone_group=row["zone_group"],
        country=row["country"],
        region=row["region"],
        zones=tuple(row["zones"]),
    )
    step = next(
        (
            one
            for one in judge(profile, candidate, known, now).steps
            if not one.ok and one.rule not in TIME_HELPS
        ),
        None,
    )
    return (
        (f"law:{step.rule}", _plainly(step.rule, step.says, row["given"])) if step is not None else ("", "")
    )


def _plainly(rule: str, says: str, given: bool | None) -> str:
    """A step in words that hold for all alike: it names no day of an entry."""
    if rule == "do_not_call":
        return "on a do-not-call list of ours"
    if rule == "consent" and given is False:
        return "consent was withdrawn"
    return says


def _times(
    row: Mapping[str, Any], profile: Profile | None, now: datetime
) -> tuple[tuple[int, int], ...] | None:
    """When a zone group is open, in seconds since 1970; None: always (no law, or dialed by hand to who knows where)."""
    if profile is None or not row["zones"]:
        return None
    try:
        found = open_times(profile, row["country"], row["region"], row["zones"], now, LONGEST_DAYS + 1)
    except UnknownZone:
        return ()
    return tuple((int(a.timestamp()), int(b.timestamp())) for a, b in found)
