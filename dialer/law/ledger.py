"""The ledger of abandoned calls: the share of live answers a campaign lost in the legal window, and how many more it may.

It is counted from the attempts, so it survives restarts. Hours that are over are summed once; a window of 30 days over
millions of attempts is then some hundred rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cti.frozen import Frozen
from dialer.law.abandoned import error_share, lost_share, spare
from dialer.law.profiles import Profile

if TYPE_CHECKING:
    from cti.database import Queryable

HOUR = timedelta(hours=1)
SETTLED_AFTER = timedelta(hours=1)
"""An hour is summed when it has been over for so long and no attempt of it is open: its events have then come."""


class Abandonment(Frozen, frozen=True, gc=False, kw_only=True):
    """How a campaign stands over the legal window that ends `at`. Shares of 1.

    `live`: answers by people. `abandoned` of them, which is `late` (an agent was there, but after the wait that the law
    gives) and `nobody` (none was) together. `amd_errors`: people taken for machines, as estimated, where the law counts
    them; they come on top, as lost and as live answers. `share`: what is lost of the live answers. `spare`: how many more
    may be lost now; negative: lost too many. `until`: when that changes by time alone, since old calls leave the window;
    null if not within it.
    """

    campaign: int
    at: datetime
    since: datetime
    live: int
    abandoned: int
    late: int
    nobody: int
    machines: int
    amd_errors: float
    share: float
    cap: float
    spare: int
    until: datetime | None
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """What fell into an hour, or the part of it that is inside the window. `abandoned`: the `late` included."""

    hour: datetime
    live: int = 0
    abandoned: int = 0
    late: int = 0
    machines: int = 0


COUNTED = """
SELECT date_trunc('hour', answered) AS hour,
       count(*) FILTER (WHERE live_answer(counts_as))::integer AS live,
       count(*) FILTER (WHERE lost_answer(counts_as))::integer AS abandoned,
       count(*) FILTER (WHERE counts_as = 'late')::integer AS late,
       count(*) FILTER (WHERE counts_as = 'machine')::integer AS machines
FROM attempts
WHERE campaign_id = $1 AND answered IS NOT NULL AND answered >= $2 AND answered < $3
GROUP BY 1 ORDER BY 1
"""
"""$1 campaign, $2 from, $3 before. By `attempts_answered` alone."""


async def abandonment(
    db: Queryable, campaign_id: int, profile: Profile, now: datetime, *, sum_up: bool = True
) -> Abandonment:
    """Returns how the campaign stands. `profile`: its own, tightened. `sum_up`: hours that are over are summed first."""
    if sum_up:
        await sum_hours(db, campaign_id, now)
    since = now - timedelta(hours=profile.abandonment_window_h)
    return stand(campaign_id, profile, await sums(db, campaign_id, since, now), now)


async def sums(db: Queryable, campaign_id: int, since: datetime, now: datetime) -> list[Sum]:
    """Returns what was answered from `since` to `now`, by hour; hours that are not whole, counted from the attempts."""
    first_whole = _hour(since) if since == _hour(since) else _hour(since) + HOUR
    until = await db.fetchval("SELECT until FROM abandonment_sums WHERE campaign_id = $1", campaign_id)
    last_whole = max(first_whole, min(until or first_whole, _hour(now)))
    head = await db.fetch(COUNTED, campaign_id, since, min(first_whole, now))
    whole = await db.fetch(
        """SELECT hour, live, abandoned, late, machines FROM abandonment_hours
           WHERE campaign_id = $1 AND hour >= $2 AND hour < $3 ORDER BY hour""",
        campaign_id,
        first_whole,
        last_whole,
    )
    tail = await db.fetch(COUNTED, campaign_id, last_whole, now + HOUR)
    return [Sum(**dict(row)) for row in (*head, *whole, *tail)]


async def sum_hours(db: Queryable, campaign_id: int, now: datetime) -> None:
    """Sums the hours that are over. Any number of servers may ask at once; one does it, in portions of a day."""
    bounds = await db.fetchrow(
        """SELECT (SELECT until FROM abandonment_sums WHERE campaign_id = $1) AS until,
                  (SELECT min(answered) FROM attempts WHERE campaign_id = $1 AND answered IS NOT NULL) AS first,
                  (SELECT min(committed) FROM attempts WHERE campaign_id = $1 AND state <> 'ended') AS open""",
        campaign_id,
    )
    assert bounds is not None
    begin = bounds["until"] or bounds["first"]
    if begin is None:
        return
    begin, end = _hour(begin), _hour(min(now - SETTLED_AFTER, bounds["open"] or now))
    while begin < end:
        portion = min(begin + timedelta(days=1), end)
        if not await _sum_portion(db, campaign_id, begin, portion):
            return
        begin = portion


async def _sum_portion(db: Queryable, campaign_id: int, begin: datetime, end: datetime) -> bool:
    """Sums whole hours in one statement; False if another has come first, and then nothing is written."""
    moved = await db.fetchval(
        f"""WITH counted AS ({COUNTED}), mine AS (
            INSERT INTO abandonment_sums AS s (campaign_id, until) VALUES ($1, $3)
            ON CONFLICT (campaign_id) DO UPDATE SET until = EXCLUDED.until WHERE s.until = $2
            RETURNING until
        ), kept AS (
            INSERT INTO abandonment_hours (campaign_id, hour, live, abandoned, late, machines)
            SELECT $1, hour, live, abandoned, late, machines FROM counted WHERE EXISTS (SELECT FROM mine)
            ON CONFLICT (campaign_id, hour) DO NOTHING
        )
        SELECT until FROM mine""",  # noqa: S608  # a constant of this module
        campaign_id,
        begin,
        end,
    )
    return moved is not None


async def by_minute(db: Queryable, campaign_id: int, hours: float) -> list[tuple[float, int, int, int]]:
    """Returns what the last hours hold of calls that are over: (how many seconds ago it was answered, live answers,
    abandoned of them, machines), a minute each, the oldest first; by the database's clock. For the pace's budget."""
    rows = await db.fetch(
        """SELECT extract(epoch FROM now() - min(answered))::float8 AS ago,
                  count(*) FILTER (WHERE live_answer(counts_as))::integer AS live,
                  count(*) FILTER (WHERE lost_answer(counts_as))::integer AS abandoned,
                  count(*) FILTER (WHERE counts_as = 'machine')::integer AS machines
           FROM attempts
           WHERE campaign_id = $1 AND answered > now() - make_interval(secs => $2) AND state = 'ended'
           GROUP BY date_trunc('minute', answered) ORDER BY ago DESC""",
        campaign_id,
        hours * 3600.0,
    )
    return [(row["ago"], row["live"], row["abandoned"], row["machines"]) for row in rows]


async def for_pace(
    db: Queryable, campaign_id: int, hours: float, legal_hours: float, now: datetime
) -> list[tuple[float, int, int, int]]:
    """Returns what `by_minute` does of the last hours; before it, an hour each, the rest of the law's window."""
    if legal_hours <= hours:
        return await by_minute(db, campaign_id, hours)
    await sum_hours(db, campaign_id, now)
    begins = _hour(now - timedelta(hours=hours))
    older = await sums(db, campaign_id, now - timedelta(hours=legal_hours), now)
    return [
        ((now - one.hour - HOUR).total_seconds(), one.live, one.abandoned, one.machines)
        for one in older
        if one.hour < begins
    ] + await by_minute(db, campaign_id, (now - begins) / HOUR)


# ------------------------------------------------------------------------------------------------ pure


def stand(campaign_id: int, profile: Profile, hours: Iterable[Sum], now: datetime) -> Abandonment:
    """Returns how a campaign stands, from what was answered in its window by hour."""
    window = timedelta(hours=profile.abandonment_window_h)
    hours = sorted(hours, key=lambda one: one.hour)
    totals = [sum(getattr(one, name) for one in hours) for name in ("live", "abandoned", "late", "machines")]
    may = _may_be_lost(profile, *totals)
    until: datetime | None = None
    left = list(totals)
    for one in hours:
        left = [a - b for a, b in zip(left, (one.live, one.abandoned, one.late, one.machines), strict=True)]
        if _may_be_lost(profile, *left) != may:
            until = max(one.hour + HOUR + window, now)
            break
    live, abandoned, late, machines = totals
    errors = machines * error_share(profile)
    share = lost_share(live, abandoned, errors) or 0.0
    return Abandonment(
        campaign=campaign_id,
        at=now,
        since=now - window,
        live=live,
        abandoned=abandoned,
        late=late,
        nobody=abandoned - late,
        machines=machines,
        amd_errors=round(errors, 2),
        share=round(share, 6),
        cap=profile.abandonment_cap,
        spare=may,
        until=until,
        says=_says(profile, live + errors, abandoned + errors, share, may, until),
    )


def _may_be_lost(profile: Profile, live: int, abandoned: int, _late: int, machines: int) -> int:
    return spare(live, abandoned, machines * error_share(profile), profile.abandonment_cap)


def _says(profile: Profile, live: float, lost: float, share: float, may: int, until: datetime | None) -> str:
    window = profile.abandonment_window_h
    span = f"{window / 24:g} days" if window >= 48 else f"{window:g} hours"
    stands = f"{lost:g} of {live:g} live answers lost in {span}, {share:.2%} of {profile.abandonment_cap:.2%} allowed"
    when = f" until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if until else ""
    if may > 0:
        return f"{stands}: {may} more may be lost{when}"
    if may == 0:
        return f"{stands}: none may be lost{when}"
    return f"{stands}: {-may} too many{when}"


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
