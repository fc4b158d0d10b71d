"""Whom a dry run calls: the contacts that may be called at all, by when their zones are open and when they are due; and who
drops out, and why. One query, however long the lists are; what the law says is said by compliance, once for all alike.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cti.database import patiently
from cti.people import Agent
from dialer.call_lists.quotas import reached
from dialer.call_lists.zones import Places
from dialer.candidate import Candidate
from dialer.compliance import AGENT_WAITS, ConsentState, Known, Listed, judge
from dialer.forecasting.courses import Rules
from dialer.forecasting.question import (
    ALL,
    LONGEST_DAYS,
    NEVER_OPEN,
    NO_QUOTA,
    REFUSED,
    Assignment,
    Crew,
    Dropped,
    Limit,
    Limited,
    Pool,
    Span,
)
from dialer.law.calling_hours import UnknownZone, open_times
from dialer.law.profiles import Attempts, Profile
from dialer.lists import assigned_of, list_settings, may_call
from dialer.management.settings import Campaign, CampaignSettings

if TYPE_CHECKING:
    from cti.database import Pool as Database
    from cti.database import Queryable

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
    "quota_reached": "on lists whose quota is reached",
    "not_theirs": "on lists that are assigned to nobody who works for the campaign",
}

NOBODY = -2
"""In place of an assignment: nobody of the campaign's people may call it."""

ALIKE = 9
"""Characters of a number, its + included: those that begin alike are taken to lie in the same zones."""

OTHERS = """
SELECT left(o, $2) AS beginning, min(o) AS number
  FROM list_contacts c JOIN call_lists l ON l.id = c.list_id CROSS JOIN unnest(c.other_numbers) o
 WHERE l.campaign_id = $1 AND l.active AND c.state = 'open' AND c.other_numbers <> '{}'
 GROUP BY 1
"""
"""A number of each beginning of contacts' other numbers."""

WAITING = """
SELECT l.campaign_id, count(*) AS n, avg(c.attempts) AS attempts
  FROM call_lists l JOIN list_contacts c ON c.list_id = l.id
 WHERE l.campaign_id = ANY ($1::bigint[]) AND l.active AND c.state = 'open'
   AND (l.quota_until IS NULL OR l.quota_until <= now())
 GROUP BY 1
"""

WITH_QUOTAS = """
SELECT id, name, settings FROM call_lists
 WHERE campaign_id = $1 AND active AND jsonb_array_length(coalesce(settings -> 'quota', '[]')) > 0 ORDER BY id
"""

COUNTED = """
WITH campaign AS (
    SELECT id, law_name(coalesce(nullif(settings ->> 'purpose', ''), 'marketing')) AS purpose,
           CASE mode WHEN 'agentless' THEN 'recorded' ELSE 'call' END AS channel,
           law_name(settings ->> 'company') AS company
      FROM campaigns WHERE id = $1
), lists AS MATERIALIZED (
    SELECT id, least($2, coalesce((settings ->> 'max_attempts')::integer, $2)) AS most
      FROM call_lists WHERE campaign_id = $1 AND active
), listed AS MATERIALIZED (
    SELECT c.id, c.list_id, c.zone_group, c.attempts, c.person, substr(c.e164, 2)::bigint AS number, c.why, c.turn,
           CASE WHEN c.other_numbers = '{}' THEN NULL
                WHEN c.dead_numbers = '{}' AND cardinality(c.other_numbers) = 1 AND c.other_numbers[1] <> c.e164
                THEN ARRAY[c.e164, c.other_numbers[1]]
                ELSE (SELECT array_agg(n ORDER BY first) FROM (
                   SELECT n, min(o) AS first FROM unnest(c.e164 || c.other_numbers) WITH ORDINALITY AS u (n, o)
                    WHERE n <> ALL (c.dead_numbers) GROUP BY n) AS numbers) END AS several,
           CASE WHEN c.other_numbers <> '{}' THEN c.e164 END AS first,
           CASE WHEN c.not_before > $3
                THEN date_bin('1 hour', c.not_before, timestamptz '2020-01-01 00:00:00+00') END AS due,
           CASE WHEN c.state IN ('done', 'blocked', 'skipped') THEN c.state
                WHEN c.state = 'exhausted' OR c.attempts >= l.most THEN 'attempts_used_up'
                WHEN g.zones = '{}' AND NOT $4 THEN 'no_zone' ELSE '' END AS gone
      FROM list_contacts c JOIN lists l ON l.id = c.list_id JOIN zone_groups g ON g.id = c.zone_group
), numbers AS MATERIALIZED (
    SELECT id, 0 AS place, number, person FROM listed WHERE gone = '' AND several IS NULL
    UNION ALL
    SELECT l.id, (s.o - 1)::integer, substr(s.n, 2)::bigint, l.person
      FROM listed l CROSS JOIN LATERAL unnest(l.several) WITH ORDINALITY AS s (n, o) WHERE l.gone = ''
), own AS (
    SELECT o.id, o.place, min(d.scope) AS scope
      FROM numbers o CROSS JOIN campaign c JOIN do_not_call d ON d.number = o.number
     WHERE d.removed IS NULL AND (d.expires IS NULL OR d.expires > $3)
       AND (d.scope = 'everywhere' OR (d.scope = 'company' AND law_name(d.company) = c.company)
            OR (d.scope = 'campaign' AND d.campaign_id = c.id))
     GROUP BY 1, 2
), blocks AS (
    SELECT number / 10000 AS block, array_agg(id * 1000000 + place * 10000 + number % 10000) AS those
      FROM numbers GROUP BY 1
), national AS (
    SELECT u.one / 1000000 AS id, (u.one / 10000 % 100)::integer AS place,
           string_agg(DISTINCT e.register, ',') AS registers
      FROM blocks w
      JOIN do_not_call_editions e ON e.state = 'active'
      JOIN do_not_call_blocks b ON b.edition = e.id AND b.block = w.block
     CROSS JOIN LATERAL unnest(w.those) AS u (one)
     WHERE CASE WHEN b.bits IS NULL THEN (u.one % 10000)::smallint = ANY (b.few)
                ELSE get_bit(b.bits, (u.one % 10000)::integer) = 1 END
     GROUP BY 1, 2
), words AS (
    SELECT s.* FROM consents s CROSS JOIN campaign c
     WHERE (law_name(s.purpose) = c.purpose OR (s.purpose = '' AND NOT s.given))
       AND (s.channel = c.channel OR (s.channel = 'call' AND NOT s.given))
), said AS (
    SELECT DISTINCT ON (id, place) id, place, given FROM (
        SELECT o.id, o.place, s.given, s.at, s.id AS word FROM numbers o JOIN words s ON s.number = o.number
         WHERE NOT s.given OR s.person = '' OR o.person = '' OR s.person = o.person
        UNION ALL
        SELECT o.id, o.place, s.given, s.at, s.id FROM numbers o JOIN words s ON s.person = o.person
         WHERE s.person <> '' AND (NOT s.given OR s.number IS NULL)) all_words
     ORDER BY id, place, at DESC, given, word DESC
), marks AS MATERIALIZED (
    SELECT id, place,
           concat_ws('|', coalesce(max(scope), ''), coalesce(max(registers), ''), coalesce(bool_or(given)::text, '')) AS told
      FROM (SELECT id, place, scope, NULL::text AS registers, NULL::boolean AS given FROM own
            UNION ALL SELECT id, place, NULL, registers, NULL FROM national
            UNION ALL SELECT id, place, NULL, NULL, given FROM said) AS law
     GROUP BY 1, 2
), places AS MATERIALIZED (
    SELECT jsonb_object_agg(beginning, zones) AS zones FROM unnest($6::text[], $7::integer[]) AS z (beginning, zones)
), of_one AS (
    SELECT l.list_id, l.zone_group AS grouped, l.attempts, l.due, l.gone, l.person <> '' AS person, 0 AS turn,
           CASE WHEN l.gone = 'blocked' THEN l.why ELSE '' END AS why, m.told, count(*) AS n
      FROM listed l LEFT JOIN marks m ON m.id = l.id AND m.place = 0
     WHERE l.several IS NULL OR l.gone <> ''
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
), laws AS (
    SELECT id, array_agg(told ORDER BY place) AS told, array_agg(place ORDER BY place) AS places FROM marks GROUP BY 1
), of_several AS (
    SELECT l.list_id, l.zone_group AS grouped, l.attempts, l.due, l.person <> '' AS person,
           l.turn % cardinality(l.several) AS turn,
           ARRAY(SELECT coalesce(m.told[array_position(m.places, (s.o - 1)::integer)], '||') || '|' ||
                        CASE WHEN s.n = l.first THEN '-1' ELSE coalesce(p.zones ->> left(s.n, $5), '-1') END
                   FROM unnest(l.several) WITH ORDINALITY AS s (n, o)) AS told
      FROM listed l CROSS JOIN places p LEFT JOIN laws m ON m.id = l.id
     WHERE l.several IS NOT NULL AND l.gone = ''
), alike AS (
    SELECT list_id, grouped, attempts, due, gone, person, turn, why, ARRAY[coalesce(told, '||') || '|-1'] AS told, n
      FROM of_one
    UNION ALL
    SELECT list_id, grouped, attempts, due, '', person, turn, '', told, count(*) FROM of_several GROUP BY 1, 2, 3, 4, 6, 7, 9
)
SELECT a.*, g.id AS zone_group, g.country, g.region, g.zones, l.priority, (l.settings -> 'assigned')::text AS assigned,
       (l.settings - 'assigned' - 'quota')::text AS settings,
       (SELECT coalesce(jsonb_object_agg(register, edition), '{}') FROM do_not_call_editions
         WHERE state = 'active')::text AS editions
  FROM alike a JOIN zone_groups g ON g.id = a.grouped JOIN call_lists l ON l.id = a.list_id
"""
"""$1 campaign, $2 the most attempts, $3 now, $4 whether agents dial by hand, $5 as many characters of numbers as $6 has, $6
beginnings of other numbers, $7 the places of their zones. `told`: of each number in turn: our own list, registers, consent,
place of its zones (-1: those of the contact). `marks`: what is told of those few numbers of which anything is; `blocks` hold
id, place (fewer than 100) and last four digits of each number in one integer."""


class Contacts(NamedTuple):
    """Whom a dry run calls: for the question's fields of the same names."""

    pools: tuple[Pool, ...]
    dropped: tuple[Dropped, ...]
    times: tuple[tuple[Span, ...] | None, ...]
    rules: tuple[Rules, ...]
    assignments: tuple[Assignment, ...]
    crews: tuple[Crew, ...]
    limited: tuple[Limited, ...]


async def contacts_of(
    database: Database,
    campaign: Campaign,
    mode: str,
    profile: Profile | None,
    people: Sequence[Agent],
    now: datetime,
    zone: str = "UTC",
    also_for: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> Contacts:
    """Returns who may be called, and who drops out, on the active lists of a campaign; without a `profile` no law is
    asked. `people`: who is meant to work for it, `also_for` which other campaigns, by login; `zone`: whose midnight ends a
    day of a quota."""
    most = campaign.settings.max_attempts
    async with patiently(database, WITHIN) as db:  # a long list takes its time
        limited = await _limited(db, campaign.id, now, zone)
        others: list[Any] = await db.fetch(OTHERS, campaign.id, ALIKE, timeout=WITHIN + 5.0)
        zones, places = await asyncio.to_thread(_zones_of, others)
        rows: list[Any] = await db.fetch(
            COUNTED, campaign.id, most, now, mode == "manual", ALIKE, list(places), list(places.values()),
            timeout=WITHIN + 5.0,
        )  # fmt: skip
    sorting = _Sorting(campaign.settings, mode, profile, people, zones, now, limited, also_for)
    return await asyncio.to_thread(sorting.of, rows)


async def waiting_of(database: Database, campaigns: Sequence[int]) -> dict[int, tuple[int, float]]:
    """How many contacts of each campaign wait to be called, and how often they have been on average."""
    if not campaigns:
        return {}
    async with patiently(database, WITHIN) as db:
        rows: list[Any] = await db.fetch(WAITING, list(campaigns), timeout=WITHIN + 5.0)
    return {row["campaign_id"]: (row["n"], float(row["attempts"])) for row in rows}


async def _limited(db: Queryable, campaign: int, now: datetime, zone: str) -> dict[int, Limited]:
    """The campaign's lists with quotas, and what of them is reached."""
    found = {}
    for row in await db.fetch(WITH_QUOTAS, campaign):
        limits = []
        for quota in list_settings(row["settings"]).quota:
            limits.append(
                Limit(
                    counts=quota.counts,
                    per=quota.per,
                    most=quota.most,
                    disposition=quota.disposition,
                    so_far=await reached(db, row["id"], quota, now, zone),
                )
            )
        found[row["id"]] = Limited(name=row["name"], limits=tuple(limits))
    return found


def _zones_of(others: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    """The sets of zones that there are of other numbers, and the place among them of each beginning."""
    known, found = Places(), {row["beginning"]: row["number"] for row in others}
    zones: dict[tuple[str, ...], int] = {}
    places = {
        beginning: zones.setdefault(known.of(number).zones, len(zones)) for beginning, number in found.items()
    }
    return list(zones), places


class _Number(NamedTuple):
    """What is told of a number: on which list of ours, on which registers, consent; its zones if not the contact's."""

    scope: str
    registers: tuple[str, ...]
    given: bool | None
    zones: int

    @classmethod
    def of(cls, told: str) -> _Number:
        scope, registers, given, zones = told.split("|")
        return cls(
            scope,
            tuple(registers.split(",")) if registers else (),
            given in ("t", "true") if given else None,
            int(zones),
        )


class _Sorting:
    """Makes pools of the rows of the query: contacts who are called by the same agents, at the same times, in the same
    course; and says who drops out. Pure."""

    def __init__(
        self,
        settings: CampaignSettings,
        mode: str,
        profile: Profile | None,
        people: Sequence[Agent],
        zones: Sequence[tuple[str, ...]],
        now: datetime,
        limited: Mapping[int, Limited],
        also_for: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._limited, self._also_for = limited, also_for
        self._places = {id: place for place, id in enumerate(limited)}
        self._ended = {
            id
            for id, one in limited.items()
            if any(limit.per == "total" and limit.so_far >= limit.most for limit in one.limits)
        }
        self._settings, self._mode, self._profile = settings, mode, profile
        self._people, self._zones, self._now = people, zones, now
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._times: dict[tuple[Span, ...] | None, int] = {}
        self._rules: dict[Rules, int] = {}
        self._of_list: dict[str, CampaignSettings] = {}
        self._opens: dict[tuple[int, int], int] = {}
        self._refusals: dict[tuple[int, _Number], tuple[str, str]] = {}
        self._assigned: dict[str | None, int] = {}
        self._assignments: list[tuple[Assignment, frozenset[str]]] = []

    def of(self, rows: Sequence[Mapping[str, Any]]) -> Contacts:
        ready: dict[tuple[Any, ...], Counter[int]] = {}
        due: dict[tuple[Any, ...], Counter[tuple[int, int]]] = {}
        for row in rows:
            if row["gone"]:
                why = row["why"] or SAYS.get(row["gone"], "must not be called")
                self._dropped[row["gone"], why] += row["n"]
                continue
            alike = self._alike(row)
            if alike is None:
                continue
            if row["due"] is not None:
                due.setdefault(alike, Counter())[int(row["due"].timestamp()), row["attempts"]] += row["n"]
            else:
                ready.setdefault(alike, Counter())[row["attempts"]] += row["n"]
        pools = []
        for alike in {**ready, **due}:
            opens, place, rules, whose, priority, limited = alike
            many = ready.get(alike, Counter())
            pools.append(
                Pool(
                    open=opens,
                    place=place,
                    rules=rules,
                    whose=whose,
                    priority=priority,
                    limited=limited,
                    ready=tuple(many[tries] for tries in range(max(many) + 1)) if many else (),
                    due=tuple((at, tries, n) for (at, tries), n in sorted(due.get(alike, {}).items())),
                )
            )
        told = [Dropped(code=code, says=says, count=n) for (code, says), n in self._dropped.most_common()]
        return Contacts(
            tuple(pools),
            tuple(told),
            tuple(self._times) or (None,),
            tuple(self._rules),
            tuple(one for one, _ in self._assignments),
            self._crews(),
            tuple(self._limited.values()),
        )

    def _alike(self, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """What its pool is known by; None: it drops out."""
        numbers = [_Number.of(told) for told in row["told"]]
        current = numbers[row["turn"]]
        if (refusal := self._refused(row, current))[0]:
            self._dropped[refusal] += row["n"]
            return None
        whose = self._whose(row["assigned"])
        if whose is None or row["list_id"] in self._ended:
            gone = "not_theirs" if whose is None else "quota_reached"
            self._dropped[gone, SAYS[gone]] += row["n"]
            return None
        opens = tuple(REFUSED if self._refused(row, one)[0] else self._open(row, one) for one in numbers)
        if opens[row["turn"]] == REFUSED:
            self._dropped["never_open", SAYS["never_open"]] += row["n"]
            return None
        rules = self._rules_of(row["settings"], len(numbers), row["person"])
        limited = self._places.get(row["list_id"], NO_QUOTA)
        return opens, row["turn"], rules, whose, row["priority"], limited

    # ------------------------------------------------------------------------------------------ the law

    def _zones_there(self, row: Mapping[str, Any], number: _Number) -> tuple[str, ...]:
        """As a claim sees it: of another number than its own the zones are both numbers' together."""
        if number.zones < 0:
            return tuple(row["zones"])
        found = self._zones[number.zones]
        return tuple(sorted({*row["zones"], *found})) if found else ()

    def _refused(self, row: Mapping[str, Any], number: _Number) -> tuple[str, str]:
        if self._profile is None:
            return "", ""
        alike = row["zone_group"], number
        if alike not in self._refusals:
            zones = self._zones_there(row, number)
            if not zones and self._mode != "manual":
                self._refusals[alike] = "no_zone", SAYS["no_zone"]
            else:
                region = row["region"] if number.zones < 0 else ""
                self._refusals[alike] = _refused(
                    row, number, zones, region, self._mode, self._profile, self._now
                )
        return self._refusals[alike]

    def _open(self, row: Mapping[str, Any], number: _Number) -> int:
        """The place of the times at which this number may be called; REFUSED: never."""
        alike = row["zone_group"], number.zones
        if alike not in self._opens:
            spans = _times(
                self._zones_there(row, number),
                row["country"],
                row["region"] if number.zones < 0 else "",
                self._profile,
                self._now,
            )
            self._opens[alike] = REFUSED if spans == () else self._times.setdefault(spans, len(self._times))
        return self._opens[alike]

    def _rules_of(self, kept: str, numbers: int, person: bool) -> int:
        if kept not in self._of_list:
            self._of_list[kept] = list_settings(kept).over(self._settings)
        profile = self._profile
        rules = Rules(
            settings=self._of_list[kept].model_dump_json(exclude_defaults=True),
            numbers=numbers,
            person=person or numbers > 1,
            per_number=_windows(profile.per_number) if profile is not None else (),
            per_person=_windows(profile.per_person) if profile is not None else (),
            rests=(
                (0.0, 0.0)
                if profile is None or self._mode in AGENT_WAITS
                else (profile.rest_after_abandoned_h, profile.rest_after_machine_h)
            ),
            alone=self._mode == "agentless",
        )
        return self._rules.setdefault(rules, len(self._rules))

    # ------------------------------------------------------------------------------------------ whose

    def _whose(self, kept: str | None) -> int | None:
        """The place of an assignment; ALL where everybody may call it, None where nobody may."""
        if kept not in self._assigned:
            assigned = assigned_of(kept)
            may = frozenset(agent.login for agent in self._people if may_call(assigned, agent))
            everybody = assigned.to_all or len(may) == len(self._people)
            if self._mode == "agentless" or (everybody and (may or assigned.to_all)):
                self._assigned[kept] = ALL
            elif not may:
                self._assigned[kept] = NOBODY
            else:
                same = next((n for n, (_, logins) in enumerate(self._assignments) if logins == may), None)
                if same is None:
                    same = len(self._assignments)
                    self._assignments.append((Assignment(told=assigned.told(), agents=len(may)), may))
                self._assigned[kept] = same
        found = self._assigned[kept]
        return None if found == NOBODY else found

    def _crews(self) -> tuple[Crew, ...]:
        """The campaign's people by which of the assigned lists they may call, and for which others they work."""
        if not self._assignments and not self._also_for:
            return ()
        many = Counter(
            (
                tuple(n for n, (_, logins) in enumerate(self._assignments) if agent.login in logins),
                self._also_for.get(agent.login, ()),
            )
            for agent in self._people
        )
        return tuple(
            Crew(share=n / len(self._people), may=may, rivals=rivals) for (may, rivals), n in many.items()
        )


def _windows(limit: Attempts) -> tuple[tuple[int, int], ...]:
    return tuple((hours, most) for _, hours, most in limit.windows())


def _refused(
    row: Mapping[str, Any],
    number: _Number,
    zones: tuple[str, ...],
    region: str,
    mode: str,
    profile: Profile,
    now: datetime,
) -> tuple[str, str]:
    """What the law says of contacts that are alike: the rule that refuses, and in words; "" if none but time does."""
    editions = {
        register: date.fromisoformat(day) for register, day in msgspec.json.decode(row["editions"]).items()
    }
    today = now.astimezone(UTC).date()
    lists = [(number.scope, today)] if number.scope else []
    lists += [(register, editions.get(register, today)) for register in number.registers]
    known = Known(
        mode=mode,
        listed=tuple(Listed(list=name, since=since) for name, since in lists),
        editions=editions,
        consent=ConsentState(id=0, given=number.given, purpose="", at=now, source="")
        if number.given is not None
        else None,
    )
    candidate = Candidate(
        contact=0,
        list=0,
        list_version=0,
        e164="",
        zone_group=row["zone_group"],
        country=row["country"],
        region=region,
        zones=zones,
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
        (f"law:{step.rule}", _plainly(step.rule, step.says, number.given)) if step is not None else ("", "")
    )


def _plainly(rule: str, says: str, given: bool | None) -> str:
    """A step in words that hold for all alike: it names no day of an entry."""
    if rule == "do_not_call":
        return "on a do-not-call list of ours"
    if rule == "consent" and given is False:
        return "consent was withdrawn"
    return says


def _times(
    zones: tuple[str, ...], country: str, region: str, profile: Profile | None, now: datetime
) -> tuple[Span, ...] | None:
    """When these zones are open together; None: always (no law, or dialed by hand to who knows where)."""
    if profile is None or not zones:
        return None
    try:
        found = open_times(profile, country, region, zones, now, LONGEST_DAYS + 1)
    except UnknownZone:
        return ()
    return tuple((int(a.timestamp()), int(b.timestamp())) for a, b in found)
