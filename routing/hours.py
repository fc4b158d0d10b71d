"""Opening hours: whether a calendar is open at a moment, and when it opens next. Pure; knows zones, not countries' laws.

Hours are wall-clock time of the calendar's zone, so they follow summer time by themselves: 08:00 is 08:00 on the day the
clocks change too. An hour that happens twice in autumn is open twice; one that is left out in spring is never asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
LOOK_AHEAD = 400
"""Days in which a next opening is looked for: more than a year, for a calendar that opens on one day of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Minutes after midnight. An `end` that is not after `start` is on the next day."""

    start: int
    end: int

    @property
    def overnight(self) -> bool:
        """Whether it ends on the day after it began."""
        return self.end <= self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Holiday:
    """A day off: one date (`on`), one each year (`month`, `day`), or so many days from (western) Easter Sunday."""

    name: str
    on: date | None = None
    month: int = 0
    day: int = 0
    easter: int | None = None

    def falls_on(self, when: date) -> bool:
        """Whether it is this day."""
        if self.on is not None:
            return self.on == when
        if self.easter is not None:
            return easter_sunday(when.year) + timedelta(days=self.easter) == when
        return (self.month, self.day) == (when.month, when.day)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialDay:
    """A date with hours of its own; none of them: closed."""

    name: str
    hours: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """When a place is open. `week`: spans by weekday, Monday first. A special day outranks a holiday, that the week."""

    id: str
    zone: ZoneInfo
    week: tuple[tuple[Span, ...], ...]
    holidays: tuple[Holiday, ...] = ()
    days: Mapping[date, SpecialDay] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Whether it is open, and why. `opens`: the next opening of a closed one, in its zone; None if there is none."""

    open: bool
    why: str
    opens: datetime | None = None


def easter_sunday(year: int) -> date:
    """The western Easter Sunday (the anonymous Gregorian algorithm, Nature 1876)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


def opening(calendar: Calendar, now: datetime, *, look_ahead: bool = True) -> Opening:
    """Says whether the calendar is open at `now` (aware), and if not and wanted, when it opens. Never raises for a moment
    in the years 2 to 9990."""
    local = now.astimezone(calendar.zone)
    minute = local.hour * 60 + local.minute
    today, why = _hours(calendar, local.date())
    yesterday, _ = _hours(calendar, local.date() - timedelta(days=1))
    inside = any(s.start <= minute and (s.overnight or minute < s.end) for s in today)
    if inside or any(s.overnight and minute < s.end for s in yesterday):
        return Opening(open=True, why=f"{calendar.id} is open: {_told(local)}, {why}")
    closed = f"{calendar.id} is closed: {_told(local)}, {why}"
    if not look_ahead:
        return Opening(open=False, why=closed)
    opens = next_opening(calendar, now)
    then = f"opens {_told(opens)}" if opens else "no opening in the coming year"
    return Opening(open=False, why=f"{closed}; {then}", opens=opens)


def next_opening(calendar: Calendar, after: datetime) -> datetime | None:
    """The first moment after `after` at which hours begin, in the calendar's zone."""
    if not any(calendar.week) and not calendar.days:
        return None
    first = after.astimezone(calendar.zone).date()
    for ahead in range(LOOK_AHEAD):
        when = first + timedelta(days=ahead)
        for start in sorted(span.start for span in _hours(calendar, when)[0]):
            begins = datetime.combine(when, time(*divmod(start, 60)), calendar.zone)
            # There and back through UTC: a moment that the clocks leave out becomes the one they show instead.
            begins = begins.astimezone(UTC).astimezone(calendar.zone)
            if begins > after:
                return begins
    return None


def within(days: frozenset[int], span: Span, zone: ZoneInfo, now: datetime) -> bool:
    """Whether `now` lies in this span of one of these weekdays (0 is Monday); overnight it belongs to the day it began."""
    local = now.astimezone(zone)
    minute, day = local.hour * 60 + local.minute, local.weekday()
    if not span.overnight:
        return day in days and span.start <= minute < span.end
    return (day in days and minute >= span.start) or ((day - 1) % 7 in days and minute < span.end)


def _hours(calendar: Calendar, when: date) -> tuple[tuple[Span, ...], str]:
    special = calendar.days.get(when)
    if special is not None:
        return special.hours, special.name
    for holiday in calendar.holidays:
        if holiday.falls_on(when):
            return (), holiday.name
    return calendar.week[when.weekday()], DAYS[when.weekday()]


def _told(when: datetime) -> str:
    return when.strftime("%a %Y-%m-%d %H:%M %Z")


def spans(hours: tuple[Span, ...]) -> Iterator[str]:
    """The spans as people write them."""
    for span in hours:
        yield f"{span.start // 60:02}:{span.start % 60:02}-{span.end // 60:02}:{span.end % 60:02}"
