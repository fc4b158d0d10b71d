"""What campaigns came to, from the attempts: by hour, attempt, list, agent, outcome or disposition. One reading for the
live view, REST, CSV and charts (`campaign_read` in cti/migrations/0098_campaigns.sql), so their numbers are the same.

Everything counts in the quarter of an hour in which the call was placed.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog
from msgspec.structs import fields

from cti.campaigns import CampaignSums
from cti.figures.desk import WrongQuestion
from cti.frozen import Frozen
from dialer.law.abandoned import error_share, lost_share

if TYPE_CHECKING:
    from cti.database import Pool, Queryable
    from dialer.law.profiles import Profile

log = structlog.get_logger(__name__)

MOST_ROWS = 50_000
ROLL_UP_EVERY = 10.0
PAUSES = (1.0, 2.0, 5.0, 15.0)


class By(StrEnum):
    """What figures are told apart by. `clock`: hours of the day, all days together; `attempt`: how often the contact had
    been called; `category`: of the disposition, as the campaign has it now."""

    TOTAL = "total"
    HOUR = "hour"
    DAY = "day"
    CLOCK = "clock"
    ATTEMPT = "attempt"
    LIST = "list"
    AGENT = "agent"
    OUTCOME = "outcome"
    DISPOSITION = "disposition"
    CATEGORY = "category"


class CampaignFigures(Frozen, frozen=True, gc=False, kw_only=True):
    """One row: of a campaign, and of one `key` of what it is told apart by (`title` for people). Shares are of 1, None
    where there is nothing to share: `answer_rate` of the attempts that are over or answered, `abandonment` of the live
    answers as the law counts it (`abandoned` and `amd_errors`), `conversion` of the connected. Means in seconds.
    `outcomes`, `dispositions`, `categories` of dispositions: how often each; `converted`: those dispositions that count as a
    success. `labels`: what dispositions are called, where the campaign says it."""

    campaign: int
    name: str
    key: str
    title: str
    sums: CampaignSums
    answer_rate: float | None
    abandonment: float | None
    conversion: float | None
    mean_wait: float | None
    mean_talk: float | None
    outcomes: dict[str, int]
    dispositions: dict[str, int]
    categories: dict[str, int]
    converted: dict[str, int]
    labels: dict[str, str]


async def read(
    db: Queryable,
    campaigns: Mapping[int, str],
    first: datetime,
    last: datetime,
    by: By,
    zone: ZoneInfo,
    errors: Mapping[int, float] | None = None,
    *,
    most: int = MOST_ROWS,
) -> list[CampaignFigures]:
    """The figures of these campaigns (id → name) of calls placed from `first` to before `last`, quarters of an hour. Rows
    in order of campaign and key; of hours and days only those in which something was. `errors`: the share of detected
    machines that the law of a campaign counts as people lost (`error_shares`). Raises WrongQuestion where that is too much
    at once."""
    rows = await db.fetch(
        """SELECT g.campaign_id,
                  CASE $4 WHEN 'hour' THEN extract(epoch FROM date_trunc('hour', g.slot, $5))::bigint::text
                          WHEN 'day' THEN to_char(g.slot AT TIME ZONE $5, 'YYYY-MM-DD')
                          WHEN 'clock' THEN to_char(g.slot AT TIME ZONE $5, 'HH24')
                          WHEN 'attempt' THEN to_char(g.part::integer, 'FM00')
                          WHEN 'outcome' THEN g.outcome
                          WHEN 'disposition' THEN g.disposition
                          WHEN 'category' THEN coalesce(d.category, '')
                          ELSE g.part END AS key,
                  g.outcome, g.disposition, v.disposition IS NOT NULL AS converted, coalesce(d.category, '') AS category,
                  coalesce(d.label, '') AS label,
                  sum(g.attempts)::bigint AS attempts, sum(g.answered)::bigint AS answered, sum(g.live)::bigint AS live,
                  sum(g.connected)::bigint AS connected, sum(g.machines)::bigint AS machines,
                  sum(g.opted_out)::bigint AS opted_out, sum(g.abandoned)::bigint AS abandoned,
                  sum(g.late)::bigint AS late, sum(g.talks)::bigint AS talks,
                  sum(g.ring_ms) AS ring_ms, sum(g.wait_ms) AS wait_ms, sum(g.talk_ms) AS talk_ms
             FROM (SELECT s.campaign_id, s.outcome, s.disposition,
                          CASE WHEN $4 IN ('hour', 'day', 'clock') THEN s.slot END AS slot,
                          CASE $4 WHEN 'attempt' THEN s.number_of::text WHEN 'list' THEN s.list_id::text
                                  WHEN 'agent' THEN s.agent ELSE '' END AS part,
                          sum(s.attempts) AS attempts, sum(s.answered) AS answered, sum(s.live) AS live,
                          sum(s.connected) AS connected, sum(s.machines) AS machines, sum(s.opted_out) AS opted_out,
                          sum(s.abandoned) AS abandoned, sum(s.late) AS late, sum(s.talks) AS talks,
                          sum(s.ring_ms) AS ring_ms,
                          sum(s.wait_ms) AS wait_ms, sum(s.talk_ms) AS talk_ms
                     FROM campaign_read($1, $2, $3, $4 = 'agent') s GROUP BY 1, 2, 3, 4, 5) g
             LEFT JOIN (SELECT * FROM campaign_successes WHERE campaign_id = ANY ($1)) v
                    ON v.campaign_id = g.campaign_id AND v.disposition = g.disposition
             LEFT JOIN (SELECT * FROM campaign_dispositions WHERE campaign_id = ANY ($1)) d
                    ON d.campaign_id = g.campaign_id AND d.code = g.disposition
            GROUP BY 1, 2, 3, 4, 5, 6, 7
            LIMIT $6""",
        *(list(campaigns), first, last, by.value, zone.key, most + 1),
    )
    if len(rows) > most:
        raise WrongQuestion("that is too much at once: ask for a shorter time, or for fewer campaigns")
    parts: dict[tuple[int, str], list[Any]] = {}
    for row in rows:
        parts.setdefault((row["campaign_id"], row["key"]), []).append(row)
    if by is By.TOTAL:
        for id in campaigns:
            parts.setdefault((id, ""), [])
    titles = await _titles(db, by, {key for _, key in parts})
    return [
        _figures(
            id,
            campaigns[id],
            key,
            _title(by, key, parts[id, key], titles, zone),
            parts[id, key],
            (errors or {}).get(id, 0.0),
        )
        for id, key in sorted(parts, key=lambda part: (campaigns[part[0]], part))
    ]


def error_shares(profiles: Mapping[int, Profile | None]) -> dict[int, float]:
    """The share of detected machines that count as people lost, by campaign, from the profile of each."""
    return {id: error_share(profile) for id, profile in profiles.items() if profile is not None}


async def totals(
    db: Queryable,
    campaigns: Sequence[int],
    first: datetime,
    last: datetime,
    errors: Mapping[int, float] | None = None,
) -> dict[int, CampaignFigures]:
    """All of each campaign."""
    found = await read(db, dict.fromkeys(campaigns, ""), first, last, By.TOTAL, ZoneInfo("UTC"), errors)
    return {one.campaign: one for one in found}


def _figures(id: int, name: str, key: str, title: str, rows: Iterable[Any], error: float) -> CampaignFigures:
    total = dict.fromkeys(
        ("attempts", "answered", "live", "connected", "machines", "opted_out", "abandoned", "late", "talks"),
        0,
    )
    ring = wait = talk = in_flight = pending = conversions = 0
    outcomes: dict[str, int] = {}
    said: dict[str, Counter[str]] = {
        "dispositions": Counter(),
        "categories": Counter(),
        "converted": Counter(),
    }
    labels: dict[str, str] = {}
    for row in rows:
        for each in total:
            total[each] += row[each]
        ring, wait, talk = ring + row["ring_ms"], wait + row["wait_ms"], talk + row["talk_ms"]
        if row["outcome"]:
            outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + row["attempts"]
        else:
            in_flight += row["attempts"]
            pending += row["attempts"] - row["answered"]
        if word := row["disposition"]:
            said["dispositions"][word] += row["attempts"]
            if row["category"]:
                said["categories"][row["category"]] += row["attempts"]
                labels[word] = row["label"]
            if row["converted"]:
                said["converted"][word] += row["attempts"]
                conversions += row["attempts"]
    told = CampaignSums(
        **total,
        nobody=total["abandoned"] - total["late"],
        amd_errors=round(total["machines"] * error, 2),
        in_flight=in_flight,
        conversions=conversions,
        ring_seconds=ring / 1000,
        wait_seconds=wait / 1000,
        talk_seconds=talk / 1000,
    )
    lost = lost_share(told.live, told.abandoned, total["machines"] * error)
    return CampaignFigures(
        campaign=id,
        name=name,
        key=key,
        title=title,
        sums=told,
        answer_rate=_share(told.answered, told.attempts - pending),
        abandonment=None if lost is None else round(lost, 6),
        conversion=_share(told.conversions, told.connected),
        mean_wait=_share(told.wait_seconds, told.connected),
        mean_talk=_share(told.talk_seconds, told.talks),
        outcomes=dict(sorted(outcomes.items())),
        **{name: dict(sorted(counts.items())) for name, counts in said.items()},
        labels=labels,
    )


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole > 0 else None


async def _titles(db: Queryable, by: By, keys: Iterable[str]) -> dict[str, str]:
    if by is not By.LIST:
        return {}
    rows = await db.fetch(
        "SELECT id, name FROM call_lists WHERE id = ANY ($1::bigint[])", [int(key) for key in keys]
    )
    return {str(row["id"]): row["name"] for row in rows}


def _title(by: By, key: str, rows: Sequence[Any], titles: Mapping[str, str], zone: ZoneInfo) -> str:
    match by:
        case By.DISPOSITION if rows and rows[0]["label"]:
            return str(rows[0]["label"])
        case By.HOUR:
            return datetime.fromtimestamp(int(key), UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M")
        case By.CLOCK:
            return f"{key}:00"
        case By.ATTEMPT:
            return "10 and more" if key == "10" else str(int(key))
        case By.LIST:
            return titles.get(key, "no list" if key == "0" else f"list {key}, removed")
        case By.AGENT:
            return key or "nobody"
        case By.OUTCOME:
            return key or "under way"
        case By.DISPOSITION:
            return key or "none"
        case By.CATEGORY:
            return key.replace("_", " ") or "none"
        case By.TOTAL:
            return "all"
        case _:
            return key


# ------------------------------------------------------------------------------------------------ as a table


def csv_of(rows: Sequence[CampaignFigures], by: By) -> str:
    """The figures as CSV (RFC 4180, first the names): outcomes, dispositions, their categories and those that count as a
    success are columns of their own; what cannot be told is empty. A text that a spreadsheet would take for a formula gets
    an apostrophe before it."""
    out = io.StringIO()
    write = csv.writer(out)
    parts = [
        (word, of, sorted({name for row in rows for name in of(row)}))
        for word, of in (
            ("outcome", attrgetter("outcomes")),
            ("disposition", attrgetter("dispositions")),
            ("category", attrgetter("categories")),
            ("converted", attrgetter("converted")),
        )
    ]
    counted = [field.name for field in fields(CampaignSums)]
    shares = ["answer_rate", "abandonment", "conversion", "mean_wait", "mean_talk"]
    write.writerow(
        _plain(name)
        for name in (
            *("campaign", "name", by.value, *counted, *shares),
            *(f"{word} {name}" for word, _, names in parts for name in names),
        )
    )
    for row in rows:
        write.writerow(
            _plain(value)
            for value in (
                *(row.campaign, row.name, row.title),
                *(getattr(row.sums, name) for name in counted),
                *("" if getattr(row, name) is None else getattr(row, name) for name in shares),
                *(of(row).get(name, 0) for _, of, names in parts for name in names),
            )
        )
    return out.getvalue()


def _plain(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


# ------------------------------------------------------------------------------------------------ keeping the sums


async def roll_up(db: Queryable, now: datetime) -> bool:
    """Rolls up a part of what is old enough; whether there is more. What is read is the same before and after."""
    return bool(await db.fetchval("SELECT campaign_roll_up($1)", now))


async def keep_rolling_up(pool: Pool, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
    """Rolls up until cancelled; an outage is waited out. Several servers may do so at once."""
    failures = 0
    while True:
        try:
            more = await roll_up(pool, now())
            failures = 0
        except Exception as error:
            if not failures:
                log.warning(
                    "campaigns' figures cannot be rolled up", why=f"{type(error).__name__}: {error}"[:200]
                )
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1
            continue
        await asyncio.sleep(0.2 if more else ROLL_UP_EVERY)
