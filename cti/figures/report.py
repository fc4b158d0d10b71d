"""Reports: figures per queue, agent or team and interval, read from the sums. docs/figures.md defines each figure.

A report costs what its sums cost, which are per quarter of an hour and queue or agent, however many calls there were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

import asyncpg

if TYPE_CHECKING:
    from cti.database import Queryable

T = TypeVar("T")

MOST_ROWS = 20_000
"""Rows of one report; one that would have more is refused."""

ROWS_IN_THE_LOOP = 200
"""More rows than these are made into figures by a thread, so that no call waits for a report."""

QUARTER = timedelta(minutes=15)


class TooLarge(ValueError):
    """The report would have too many rows; the message says what to do."""


class Interval(StrEnum):
    """By how much of time a report has a row."""

    QUARTER = "15m"
    HALF = "30m"
    HOUR = "60m"
    DAY = "day"
    TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From `first` to before `last`, both on a quarter of an hour, in the days of a time zone."""

    first: datetime
    last: datetime
    interval: Interval
    zone: ZoneInfo

    def __post_init__(self) -> None:
        for edge in (self.first, self.last):
            if edge.timestamp() % QUARTER.total_seconds():
                raise ValueError("a report begins and ends with a quarter of an hour")
        if self.last <= self.first:
            raise ValueError("a report must end after it begins")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """First-call resolution: of `contacts` known customers, how many needed no other contact; `rate` is their share."""

    contacts: int
    resolved: int
    rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """A queue in an interval. Times in seconds; None where nothing was there to divide by."""

    start: datetime
    queue: str
    offered: int
    answered: int
    answered_in_time: int
    abandoned: int
    short_abandoned: int
    timed_out: int
    overflowed: int
    left_otherwise: int
    lost: int
    service_level: float | None
    average_speed_of_answer: float | None
    average_abandon_wait: float | None
    longest_wait: float
    handled: int
    talk: float
    hold: float
    wrap_up: float
    average_handle_time: float | None
    transferred: int
    not_answered: int
    refused: int
    first_call_resolution: Resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """Not ready for one reason: how often it began, how long it was (seconds), how often and how long beyond its limit."""

    times: int
    lasted: float
    over_limit: int
    over_limit_lasted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFigures:
    """An agent in an interval, over all queues. Times in seconds; None where nothing was there to divide by."""

    start: datetime
    agent: str
    handled: int
    handled_of_queues: int
    talk: float
    hold: float
    wrap_up: float
    average_handle_time: float | None
    transferred: int
    not_answered: int
    refused: int
    logged_on: float
    ready: float
    reserved: float
    busy: float
    wrapping_up: float
    not_ready: float
    unknown: float
    occupancy: float | None
    paid: float
    unpaid: float
    over_limit: int
    over_limit_lasted: float
    reasons: dict[str, Stay] = field(default_factory=dict)
    first_call_resolution: Resolution = field(
        default_factory=lambda: Resolution(contacts=0, resolved=0, rate=None)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamFigures:
    """A team in an interval: all its present agents together."""

    start: datetime
    team: str
    agents: int
    handled: int
    handled_of_queues: int
    talk: float
    hold: float
    wrap_up: float
    average_handle_time: float | None
    transferred: int
    not_answered: int
    refused: int
    logged_on: float
    ready: float
    reserved: float
    busy: float
    wrapping_up: float
    not_ready: float
    unknown: float
    occupancy: float | None
    paid: float
    unpaid: float
    over_limit: int
    over_limit_lasted: float
    reasons: dict[str, Stay]
    first_call_resolution: Resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFigures:
    """Other work of a kind for a queue's agents, brought in an interval. Times in seconds; None where nothing was there to
    divide by."""

    start: datetime
    queue: str
    kind: str
    brought: int
    open: int
    overdue: int
    done: int
    done_in_time: int
    failed: int
    cancelled: int
    service_level: float | None
    average_time_to_begin: float | None
    average_time_to_end: float | None
    average_handle_time: float | None
    oldest_open: float


_START = """CASE $3::text WHEN 'total' THEN $1::timestamptz WHEN 'day' THEN greatest(date_trunc('day', slot, $4), $1)
    ELSE date_bin(replace($3, 'm', ' minutes')::interval, slot + (slot AT TIME ZONE $4 - slot AT TIME ZONE 'UTC'),
                  '2000-01-01 00:00:00+00') - (slot AT TIME ZONE $4 - slot AT TIME ZONE 'UTC') END"""
"""The start of the interval that a quarter of an hour is in. Bins of minutes are cut in local time, the offset of each
quarter's own moment: the hour that comes twice when summer time ends is two intervals."""

_DAYS = """days AS (
    SELECT (d::date::timestamp AT TIME ZONE $4) AS begins, ((d::date + 1)::timestamp AT TIME ZONE $4) AS ends
    FROM generate_series(($1::timestamptz AT TIME ZONE $4)::date::timestamp, ($2::timestamptz AT TIME ZONE $4)::date,
                         interval '1 day') AS g (d)
    WHERE $3 IN ('day', 'total')
), folded AS (
    SELECT d.begins FROM days d JOIN figures_days f ON f.slot = d.begins AND NOT f.dirty
    WHERE d.begins >= $1 AND d.ends <= $2 AND (SELECT zone FROM figures_position) = $4
), parts AS (
    SELECT greatest(d.begins, $1) AS begins, least(d.ends, $2) AS ends FROM days d
    WHERE d.begins < $2 AND d.begins NOT IN (SELECT begins FROM folded)
    UNION ALL SELECT $1, $2 WHERE $3 NOT IN ('day', 'total')
)"""
"""Which days of the range are there as one row, and which parts must be summed up from their quarters of an hour."""


def _from(table: str, days: str, where: str) -> str:
    return f"""(
        SELECT q.* FROM parts p JOIN {table} q ON q.slot >= p.begins AND q.slot < p.ends WHERE {where}
        UNION ALL SELECT q.* FROM folded d JOIN {days} q ON q.slot = d.begins WHERE {where})"""  # noqa: S608 - constants


_OF_QUEUES = "q.queue <> '' AND ($5::text[] IS NULL OR q.queue = ANY ($5))"

QUEUES = f"""
WITH {_DAYS}, visits AS (
    SELECT start, queue, sum(offered) AS offered, sum(answered) AS answered, sum(in_time) AS in_time,
           sum(answer_wait) AS answer_wait, max(longest_wait) AS longest_wait, sum(abandoned) AS abandoned,
           sum(short) AS short, sum(abandon_wait) AS abandon_wait, sum(timed_out) AS timed_out,
           sum(overflowed) AS overflowed, sum(left_else) AS left_else, sum(lost) AS lost, sum(handled) AS handled,
           sum(talk) AS talk, sum(hold) AS hold, sum(wrap_up) AS wrap_up, sum(transferred) AS transferred,
           sum(not_answered) AS not_answered, sum(refused) AS refused
    FROM (SELECT *, {_START} AS start FROM {_from("figures_queues", "figures_queue_days", _OF_QUEUES)} r) s
    GROUP BY start, queue
), known AS (
    SELECT start, queue, sum(contacts) AS contacts, sum(resolved) AS resolved
    FROM (SELECT *, {_START} AS start
          FROM {_from("figures_resolutions", "figures_resolution_days", _OF_QUEUES)} r) s
    GROUP BY start, queue
)
SELECT * FROM visits FULL JOIN known USING (start, queue)
ORDER BY start, queue LIMIT $6
"""  # noqa: S608 - a constant in a constant

_OF_AGENTS = "q.agent <> '' AND ($5::text[] IS NULL OR q.agent = ANY ($5))"

AGENTS = f"""
WITH {_DAYS}, groups AS (SELECT * FROM unnest($5::text[], $6::text[]) AS g (agent, who)),
work AS (
    SELECT start, who, sum(handled) AS handled, sum(handled) FILTER (WHERE queue <> '') AS handled_of_queues,
           sum(talk) AS talk, sum(hold) AS hold, sum(wrap_up) AS wrap_up,
           sum(talk + hold) FILTER (WHERE queue <> '') AS queue_time,
           sum(transferred) AS transferred, sum(not_answered) AS not_answered, sum(refused) AS refused
    FROM (SELECT a.*, {_START} AS start, coalesce(g.who, a.agent) AS who
          FROM {_from("figures_agents", "figures_agent_days", _OF_AGENTS)} a LEFT JOIN groups g USING (agent)) s
    GROUP BY start, who
), open AS (
    -- What is going on counts as far as the time that has passed; a state told a day ago is not taken for still true.
    SELECT slot, n.agent, n.state, n.reason, o.lasted, 0::bigint AS times,
           coalesce(n.since + l.lasts >= n.at AND figures_slot(n.since + l.lasts) = slot
                    AND n.since + l.lasts < least($7::timestamptz, $2::timestamptz), false)::integer AS over_times,
           coalesce(least(o.lasted, greatest(0, figures_us(o.ends - (n.since + l.lasts)))), 0) AS over_lasted
    FROM figures_agent_now n
    LEFT JOIN figures_limits l ON n.state = 'not_ready' AND l.reason = n.reason
    CROSS JOIN LATERAL generate_series(figures_slot(greatest(n.at, $1)), least($7, $2) - interval '1 microsecond',
                                       interval '15 minutes') AS slots (slot)
    CROSS JOIN LATERAL (SELECT e.ends, figures_us(e.ends - greatest(n.at, slot)) AS lasted
                        FROM (SELECT least($7, slot + interval '15 minutes') AS ends) e) o
    WHERE n.state <> 'logged_off' AND n.at > $7 - interval '1 day' AND ($5::text[] IS NULL OR n.agent = ANY ($5))
), spent AS (
    SELECT start, who, state, reason, sum(lasted) AS lasted, sum(times) AS times, sum(over_times) AS over_times,
           sum(over_lasted) AS over_lasted
    FROM (SELECT a.*, {_START} AS start, coalesce(g.who, a.agent) AS who
          FROM (SELECT slot, agent, state, reason, lasted, times, over_times, over_lasted
                FROM {_from("figures_states", "figures_state_days", _OF_AGENTS)} r
                UNION ALL SELECT * FROM open) a
          LEFT JOIN groups g USING (agent)) s
    GROUP BY start, who, state, reason
), states AS (
    SELECT start, who, sum(lasted) AS logged_on,
           sum(lasted) FILTER (WHERE state = 'ready') AS ready,
           sum(lasted) FILTER (WHERE state = 'reserved') AS reserved,
           sum(lasted) FILTER (WHERE state = 'busy') AS busy,
           sum(lasted) FILTER (WHERE state = 'wrap_up') AS wrapping_up,
           sum(lasted) FILTER (WHERE state = 'not_ready') AS not_ready,
           sum(lasted) FILTER (WHERE state = 'unknown') AS unknown,
           array_agg(reason ORDER BY reason) FILTER (WHERE state = 'not_ready') AS reasons,
           array_agg(ARRAY[lasted, times, over_times, over_lasted]::bigint[] ORDER BY reason)
               FILTER (WHERE state = 'not_ready') AS reasons_sums
    FROM spent GROUP BY start, who
), known AS (
    SELECT start, who, sum(contacts) AS contacts, sum(resolved) AS resolved
    FROM (SELECT a.*, {_START} AS start, coalesce(g.who, a.agent) AS who
          FROM {_from("figures_resolutions", "figures_resolution_days", _OF_AGENTS)} a
          LEFT JOIN groups g USING (agent)) s
    GROUP BY start, who
)
SELECT * FROM work FULL JOIN states USING (start, who) FULL JOIN known USING (start, who)
ORDER BY start, who LIMIT $8
"""  # noqa: S608 - a constant in a constant


WORK = f"""
SELECT start, queue, kind, count(*) AS brought,
       count(*) FILTER (WHERE open) AS open,
       count(*) FILTER (WHERE open AND due < $6) AS overdue,
       count(*) FILTER (WHERE state = 'done') AS done,
       count(*) FILTER (WHERE state = 'done' AND since <= due) AS in_time,
       count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE state IN ('done', 'failed') AND due IS NOT NULL OR open AND due < $6) AS judged,
       count(begun) AS begun, sum(figures_us(begun - created)) AS to_begin,
       sum(figures_us(since - created)) FILTER (WHERE state = 'done') AS to_end,
       count(*) FILTER (WHERE begun IS NOT NULL AND NOT open) AS handled,
       sum(worked * 1000000) FILTER (WHERE begun IS NOT NULL AND NOT open) AS worked,
       max(figures_us($6 - created)) FILTER (WHERE open) AS oldest
FROM (SELECT w.*, {_START} AS start
      FROM (SELECT i.*, i.skill AS queue, figures_slot(i.created) AS slot, i.state IN ('waiting', 'accepted') AS open
            FROM work_items i
            WHERE i.created >= $1 AND i.created < $2 AND ($5::text[] IS NULL OR i.skill = ANY ($5))) w) s
GROUP BY start, queue, kind ORDER BY start, queue, kind LIMIT $7
"""  # noqa: S608 - a constant in a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far the sums are: all facts up to `seq`, the newest of which happened at `at`."""

    seq: int
    at: datetime | None


async def position(db: Queryable) -> Position:
    """Returns how far the sums are."""
    row = await db.fetchrow("SELECT seq, nullif(at, '-infinity') AS at FROM figures_position")
    assert row is not None, "the migration puts the row there"
    return Position(seq=row["seq"], at=row["at"])


async def of_queues(
    db: Queryable, range: Range, queues: Collection[str] | None, *, most: int = MOST_ROWS
) -> list[QueueFigures]:
    """The figures of these queues (None: all), by start and queue; queues without any are left out. Raises TooLarge."""
    rows = await _rows(db, most, QUEUES, *_of(range), None if queues is None else sorted(queues), most + 1)
    return await _made(rows, lambda row: _queue(row, range.zone))


async def of_work(
    db: Queryable, range: Range, queues: Collection[str] | None, *, now: datetime, most: int = MOST_ROWS
) -> list[WorkFigures]:
    """The figures of other work for these queues' agents (None: all), by start, queue and kind. Raises TooLarge."""
    who = None if queues is None else sorted(queues)
    rows = await _rows(db, most, WORK, *_of(range), who, now, most + 1)
    return await _made(rows, lambda row: _work(row, range.zone))


async def of_agents(
    db: Queryable,
    range: Range,
    agents: Collection[str] | None,
    *,
    now: datetime,
    unpaid: Collection[str] = (),
    most: int = MOST_ROWS,
) -> list[AgentFigures]:
    """The figures of these agents (None: all), by start and agent, states that last counted until `now`. `unpaid`: reasons
    for being not ready whose time is not paid. Raises TooLarge."""
    who = None if agents is None else sorted(agents)
    rows = await _rows(db, most, AGENTS, *_of(range), who, who or [], now, most + 1)
    return await _made(rows, lambda row: AgentFigures(agent=row["who"], **_worked(row, range.zone, unpaid)))


async def of_teams(
    db: Queryable,
    range: Range,
    teams: Mapping[str, Collection[str]],
    *,
    now: datetime,
    unpaid: Collection[str] = (),
    most: int = MOST_ROWS,
) -> list[TeamFigures]:
    """The figures of teams (team → its agents), by start and team; `unpaid` as above. Raises TooLarge."""
    pairs = [(agent, team) for team, agents in sorted(teams.items()) for agent in sorted(agents)]
    members, theirs = [agent for agent, _ in pairs], [team for _, team in pairs]
    rows = await _rows(db, most, AGENTS, *_of(range), members, theirs, now, most + 1)
    return await _made(
        rows,
        lambda row: TeamFigures(
            team=row["who"], agents=len(teams[row["who"]]), **_worked(row, range.zone, unpaid)
        ),
    )


async def _rows(db: Queryable, most: int, query: str, *args: Any) -> list[asyncpg.Record]:
    try:
        rows = await db.fetch(query, *args)
    except (asyncpg.QueryCanceledError, TimeoutError):
        raise TooLarge(
            "the report takes too long: take a shorter time, or days of the call centre's zone"
        ) from None
    if len(rows) > most:
        raise TooLarge(
            f"the report would have more than {most} rows: take a shorter time or longer intervals"
        )
    return rows


async def _made(rows: list[asyncpg.Record], make: Callable[[asyncpg.Record], T]) -> list[T]:
    if len(rows) <= ROWS_IN_THE_LOOP:
        return [make(row) for row in rows]
    return await asyncio.to_thread(lambda: [make(row) for row in rows])


def _of(range: Range) -> tuple[datetime, datetime, str, str]:
    return range.first, range.last, range.interval.value, range.zone.key


def _queue(row: asyncpg.Record, zone: ZoneInfo) -> QueueFigures:
    answered, abandoned = row["answered"] or 0, row["abandoned"] or 0
    offered, short, handled = row["offered"] or 0, row["short"] or 0, row["handled"] or 0
    talk, hold, wrap_up = row["talk"] or 0, row["hold"] or 0, row["wrap_up"] or 0
    return QueueFigures(
        start=row["start"].astimezone(zone),
        queue=row["queue"],
        offered=int(offered),
        answered=int(answered),
        answered_in_time=int(row["in_time"] or 0),
        abandoned=int(abandoned),
        short_abandoned=int(short),
        timed_out=int(row["timed_out"] or 0),
        overflowed=int(row["overflowed"] or 0),
        left_otherwise=int(row["left_else"] or 0),
        lost=int(row["lost"] or 0),
        service_level=_share(row["in_time"] or 0, offered - short),
        average_speed_of_answer=_mean(row["answer_wait"] or 0, answered),
        average_abandon_wait=_mean(row["abandon_wait"] or 0, abandoned),
        longest_wait=_seconds(row["longest_wait"]),
        handled=int(handled),
        talk=_seconds(talk),
        hold=_seconds(hold),
        wrap_up=_seconds(wrap_up),
        average_handle_time=_mean(talk + hold + wrap_up, handled),
        transferred=int(row["transferred"] or 0),
        not_answered=int(row["not_answered"] or 0),
        refused=int(row["refused"] or 0),
        first_call_resolution=_resolution(row),
    )


def _work(row: asyncpg.Record, zone: ZoneInfo) -> WorkFigures:
    return WorkFigures(
        start=row["start"].astimezone(zone),
        queue=row["queue"],
        kind=row["kind"],
        brought=row["brought"],
        open=row["open"],
        overdue=row["overdue"],
        done=row["done"],
        done_in_time=row["in_time"],
        failed=row["failed"],
        cancelled=row["cancelled"],
        service_level=_share(row["in_time"], row["judged"]),
        average_time_to_begin=_mean(row["to_begin"], row["begun"]),
        average_time_to_end=_mean(row["to_end"], row["done"]),
        average_handle_time=_mean(row["worked"], row["handled"]),
        oldest_open=_seconds(row["oldest"]),
    )


def _worked(row: asyncpg.Record, zone: ZoneInfo, unpaid: Collection[str]) -> dict[str, Any]:
    busy, wrapping_up = row["busy"] or 0, row["wrapping_up"] or 0
    at_work = busy + wrapping_up + (row["ready"] or 0) + (row["reserved"] or 0)
    of_queues, wrap_up = row["handled_of_queues"] or 0, row["wrap_up"] or 0
    reasons = dict(zip(row["reasons"] or (), row["reasons_sums"] or (), strict=True))
    not_paid = sum(lasted for reason, (lasted, *_) in reasons.items() if reason in unpaid)
    return {
        "start": row["start"].astimezone(zone),
        "handled": int(row["handled"] or 0),
        "handled_of_queues": int(of_queues),
        "talk": _seconds(row["talk"]),
        "hold": _seconds(row["hold"]),
        "wrap_up": _seconds(wrap_up),
        "average_handle_time": _mean((row["queue_time"] or 0) + wrap_up, of_queues),
        "transferred": int(row["transferred"] or 0),
        "not_answered": int(row["not_answered"] or 0),
        "refused": int(row["refused"] or 0),
        "logged_on": _seconds(row["logged_on"]),
        "ready": _seconds(row["ready"]),
        "reserved": _seconds(row["reserved"]),
        "busy": _seconds(busy),
        "wrapping_up": _seconds(wrapping_up),
        "not_ready": _seconds(row["not_ready"]),
        "unknown": _seconds(row["unknown"]),
        "occupancy": _share(busy + wrapping_up, at_work),
        "paid": _seconds((row["logged_on"] or 0) - not_paid),
        "unpaid": _seconds(not_paid),
        "over_limit": sum(over for _, _, over, _ in reasons.values()),
        "over_limit_lasted": _seconds(sum(lasted for *_, lasted in reasons.values())),
        "reasons": {
            reason or "none given": Stay(
                times=times, lasted=_seconds(lasted), over_limit=over, over_limit_lasted=_seconds(over_lasted)
            )
            for reason, (lasted, times, over, over_lasted) in reasons.items()
        },
        "first_call_resolution": _resolution(row),
    }


def _resolution(row: asyncpg.Record) -> Resolution:
    contacts, resolved = int(row["contacts"] or 0), int(row["resolved"] or 0)
    return Resolution(contacts=contacts, resolved=resolved, rate=_share(resolved, contacts))


def _seconds(microseconds: Any) -> float:
    return int(microseconds or 0) / 1e6


def _mean(microseconds: Any, count: Any) -> float | None:
    return round(float(microseconds) / 1e6 / float(count), 3) if count else None


def _share(part: Any, whole: Any) -> float | None:
    return round(float(part) / float(whole), 4) if whole > 0 else None
