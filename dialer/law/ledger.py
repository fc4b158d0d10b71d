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
from dialer.law.profiles import Profile

if TYPE_CHECKING:
    from cti.database import Queryable

HOUR = timedelta(hours=1)
SETTLED_AFTER = timedelta(hours=1)
"""An hour is summed when it has been over for so long and no attempt of it is open: its events have then come."""


class Abandonment(Frozen, frozen=True, gc=False, kw_only=True):
    """How a campaign stands over the legal window that ends `at`. Shares of 1.

    `live`: answers by people. `abandoned`: nobody was there for them; `late`: somebody was, but after the wait that the law
    gives; `amd_errors`: people taken for machines, as estimated, where the law counts them. `share`: all three of the live
    answers. `spare`: how many more may be lost now; negative: lost too many. `until`: when that changes by time alone, since
    old calls leave the window; null if not within it.
    """

    campaign: int
    at: datetime
    since: datetime
    live: int
    abandoned: int
    late: int
    machines: int
    amd_errors: float
    share: float
    cap: float
    spare: int
    until: datetime | None
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """What fell into an hour, or the part of it that is inside the window."""

    hour: datetime
    live: int = 0
    abandoned: int = 0
    late: int = 0
    machines: int = 0


COUNTED = """
SELECT date_trunc('hour', answered) AS hour,
       count(*) FILTER (WHERE outcome IS NULL OR outcome NOT IN ('machine', 'fax'))::integer AS live,
       count(*) FILTER (WHERE outcome = 'abandoned'
                           OR (outcome IN ('agent_error', 'failed', 'unknown') AND connected IS NULL))::integer AS abandoned,
       count(*) FILTER (WHERE connected IS NOT NULL AND waited > $4
                          AND coalesce(outcome, '') NOT IN ('machine', 'fax', 'abandoned'))::integer AS late,
       count(*) FILTER (WHERE outcome = 'machine')::integer AS machines
FROM attempts
WHERE campaign_id = $1 AND answered IS NOT NULL AND answered >= $2 AND answered < $3
GROUP BY 1 ORDER BY 1
"""
"""$1 campaign, $2 from, $3 before, $4 seconds of the legal wait. By `attempts_answered` alone."""


async def abandonment(
    db: Queryable, campaign_id: int, profile: Profile, now: datetime, *, sum_up: bool = True
) -> Abandonment:
    """Returns how the campaign stands. `profile`: its own, tightened. `sum_up`: hours that are over are summed first."""
    if sum_up:
        await sum_hours(db, campaign_id, profile.answer_wait_s, now)
    since = now - timedelta(hours=profile.abandonment_window_h)
    return stand(campaign_id, profile, await sums(db, campaign_id, profile.answer_wait_s, since, now), now)


async def sums(db: Queryable, campaign_id: int, wait_s: float, since: datetime, now: datetime) -> list[Sum]:
    """Returns what was answered from `since` to `now`, by hour; hours that are not whole, counted from the attempts."""
    first_whole = _hour(since) if since == _hour(since) else _hour(since) + HOUR
    until = await db.fetchval("SELECT until FROM abandonment_sums WHERE campaign_id = $1", campaign_id)
    last_whole = max(first_whole, min(until or first_whole, _hour(now)))
    head = await db.fetch(COUNTED, campaign_id, since, min(first_whole, now), wait_s)
    whole = await db.fetch(
        """SELECT hour, live, abandoned, late, machines FROM abandonment_hours
           WHERE campaign_id = $1 AND hour >= $2 AND hour < $3 ORDER BY hour""",
        campaign_id,
        first_whole,
        last_whole,
    )
    tail = await db.fetch(COUNTED, campaign_id, last_whole, now + HOUR, wait_s)
    return [Sum(**dict(row)) for row in (*head, *whole, *tail)]


async def sum_hours(db: Queryable, campaign_id: int, wait_s: float, now: datetime) -> None:
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
        if not await _sum_portion(db, campaign_id, wait_s, begin, portion):
            return
        begin = portion


async def _sum_portion(
    db: Queryable, campaign_id: int, wait_s: float, begin: datetime, end: datetime
) -> bool:
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
        wait_s,
    )
    return moved is not None


# ------------------------------------------------------------------------------------------------ pure


def stand(campaign_id: int, profile: Profile, hours: Iterable[Sum], now: datetime) -> Abandonment:
    """Returns how a campaign stands, from what was answered in its window by hour."""
    window = timedelta(hours=profile.abandonment_window_h)
    hours = sorted(hours, key=lambda one: one.hour)
    totals = [sum(getattr(one, name) for one in hours) for name in ("live", "abandoned", "late", "machines")]
    spare = _spare(profile, *totals)
    until: datetime | None = None
    left = list(totals)
    for one in hours:
        left = [a - b for a, b in zip(left, (one.live, one.abandoned, one.late, one.machines), strict=True)]
        if _spare(profile, *left) != spare:
            until = max(one.hour + HOUR + window, now)
            break
    live, abandoned, late, machines = totals
    errors = _amd_errors(profile, machines)
    lost, answers = abandoned + late + errors, live + errors
    share = lost / answers if answers else 0.0
    return Abandonment(
        campaign=campaign_id,
        at=now,
        since=now - window,
        live=live,
        abandoned=abandoned,
        late=late,
        machines=machines,
        amd_errors=round(errors, 2),
        share=round(share, 6),
        cap=profile.abandonment_cap,
        spare=spare,
        until=until,
        says=_says(profile, live, lost, share, spare, until),
    )


def _amd_errors(profile: Profile, machines: int) -> float:
    return machines * profile.amd_error_share if profile.amd_errors_count else 0.0


def _spare(profile: Profile, live: int, abandoned: int, late: int, machines: int) -> int:
    """How many more live answers may be lost: each is a live answer too. Negative: so many too many."""
    errors = _amd_errors(profile, machines)
    lost, answers, cap = abandoned + late + errors, live + errors, profile.abandonment_cap
    if cap >= 1:
        return 1_000_000
    room = (cap * answers - lost) / (1 - cap)
    return int(room + 1e-9) if room >= 0 else -int(-room + 1 - 1e-9)


def _says(profile: Profile, live: int, lost: float, share: float, spare: int, until: datetime | None) -> str:
    window = profile.abandonment_window_h
    span = f"{window / 24:g} days" if window >= 48 else f"{window:g} hours"
    stands = f"{lost:g} of {live} live answers lost in {span}, {share:.2%} of {profile.abandonment_cap:.2%} allowed"
    when = f" until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if until else ""
    if spare > 0:
        return f"{stands}: {spare} more may be lost{when}"
    if spare == 0:
        return f"{stands}: none may be lost{when}"
    return f"{stands}: {-spare} too many{when}"


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
