"""When people may be called: the hours and holidays of a profile, in every time zone that a number may lie in. Pure.

Hours are what clocks show where the phone is, so each day's hours are turned into moments once, clock changes included:
an hour that happens twice in autumn is open twice, one that is left out in spring never was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dialer.law.profiles import Profile, told

LOOK_AHEAD = 40
"""Days in which the next opening is looked for."""

Interval = tuple[datetime, datetime]
"""From the first moment to before the second, UTC."""


class UnknownZone(ValueError):
    """No such time zone is known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Whether somebody may be called at a moment. `until`: when it closes, tomorrow night at the latest; `again`: when what
    is closed opens, None if that is not in sight. `says`: why, in local times. `holiday`: the one that closes it, "" if none
    does."""

    open: bool
    says: str
    until: datetime | None = None
    again: datetime | None = None
    holiday: str = ""


def hours_at(
    profile: Profile, country: str, region: str, zones: Sequence[str], now: datetime, *, ahead: bool = True
) -> Hours:
    """Says whether it is inside calling hours at `now` in every one of `zones`. No zone: closed, with no next opening.

    Raises UnknownZone. `ahead` False leaves out when it opens next.
    """
    if not zones:
        return Hours(open=False, says="the number's time zone is not known")
    now = now.astimezone(UTC)
    until: datetime | None = None
    for zone in zones:
        around = _merged(_around(profile, country, region, zone, now))
        inside = next((i for i in around if i[0] <= now < i[1]), None)
        if inside is None:
            holiday = _holiday_of(profile, country, region, now.astimezone(_zone(zone)).date())
            again = opens_next(profile, country, region, zones, now) if ahead else None
            return Hours(
                open=False, says=_closed(profile, zone, now, holiday, again), again=again, holiday=holiday
            )
        until = inside[1] if until is None else min(until, inside[1])
    where = ", ".join(_clock(zone, now) for zone in zones[:3]) + (" ..." if len(zones) > 3 else "")
    return Hours(open=True, says=f"inside calling hours: {where}", until=until)


def opens_next(
    profile: Profile, country: str, region: str, zones: Sequence[str], after: datetime
) -> datetime | None:
    """Returns the first moment from `after` on at which it is open in all zones; None if none comes in the next 40 days."""
    after = after.astimezone(UTC)
    for ahead in range(-1, LOOK_AHEAD):
        day = after + timedelta(days=ahead)
        common: list[Interval] | None = None
        for zone in zones:
            # A zone's calendar day may begin a day before or after the one in UTC.
            local = list(_merged(_around(profile, country, region, zone, day)))
            common = local if common is None else list(_common(common, local))
        begins = [max(a, after) for a, b in common or () if b > after]
        if begins:
            return min(begins)
    return None


def open_times(
    profile: Profile, country: str, region: str, zones: Sequence[str], since: datetime, days: int
) -> list[Interval]:
    """Returns when it is open in all zones, holidays left out, from `since` on for so many days. No zone: never. Raises
    UnknownZone."""
    since = since.astimezone(UTC)
    until = since + timedelta(days=days)
    common: list[Interval] | None = None
    for zone in zones:
        first = since.astimezone(_zone(zone)).date()
        local = [
            moments
            for day in (first + timedelta(days=ahead) for ahead in range(-1, days + 2))
            if not _holiday_of(profile, country, region, day)
            for moments in _moments(profile.week[day.weekday()], zone, day)
        ]
        local = list(_merged(local))
        common = local if common is None else list(_common(common, local))
    return [(max(a, since), min(b, until)) for a, b in common or () if b > since and a < until]


def _common(these: Sequence[Interval], those: Sequence[Interval]) -> Iterator[Interval]:
    """When both are open; each in its order, without overlaps."""
    n = m = 0
    while n < len(these) and m < len(those):
        begin, end = max(these[n][0], those[m][0]), min(these[n][1], those[m][1])
        if begin < end:
            yield begin, end
        if these[n][1] < those[m][1]:
            n += 1
        else:
            m += 1


def _around(profile: Profile, country: str, region: str, zone: str, moment: datetime) -> Iterator[Interval]:
    today = moment.astimezone(_zone(zone)).date()
    for ahead in (-1, 0, 1):
        day = today + timedelta(days=ahead)
        if not _holiday_of(profile, country, region, day):
            yield from _moments(profile.week[day.weekday()], zone, day)


def _merged(intervals: Iterable[Interval]) -> Iterator[Interval]:
    held: Interval | None = None
    for one in sorted(intervals):
        if held is not None and one[0] <= held[1]:
            held = held[0], max(held[1], one[1])
            continue
        if held is not None:
            yield held
        held = one
    if held is not None:
        yield held


@lru_cache(maxsize=50_000)
def _moments(spans: tuple[tuple[int, int], ...], zone: str, day: date) -> tuple[Interval, ...]:
    """The moments of a day at which its clocks show a time in `spans`."""
    place = _zone(zone)
    first, last = _first(place, day), _first(place, day + timedelta(days=1))
    edges = {first, last}
    if first.astimezone(place).utcoffset() != last.astimezone(place).utcoffset():
        edges.add(_change(place, first, last))
    for span in spans:
        for minute in span:
            if minute < 1440:
                shown = datetime.combine(day, time(*divmod(minute, 60)), place)
                edges |= {shown.astimezone(UTC), shown.replace(fold=1).astimezone(UTC)}
    ordered = sorted(edge for edge in edges if first <= edge <= last)
    open_parts = []
    for begin, end in pairwise(ordered):
        local = begin.astimezone(place)
        minute = local.hour * 60 + local.minute
        if local.date() == day and any(a <= minute < b for a, b in spans):
            open_parts.append((begin, end))
    return tuple(_merged(open_parts))


def _first(place: ZoneInfo, day: date) -> datetime:
    """The first moment of a day; where midnight is left out, the moment of the change."""
    midnight = datetime.combine(day, time(0), place)
    moment = midnight.astimezone(UTC)
    if moment.astimezone(place).replace(tzinfo=None) != midnight.replace(tzinfo=None):
        return _change(place, midnight.replace(fold=1).astimezone(UTC) - timedelta(hours=3), moment)
    return moment


def _change(place: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The moment between two at which the clocks were changed, to the second."""
    old = before.astimezone(place).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        if middle.astimezone(place).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after


@lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownZone(f"there is no time zone {name!r}") from None


# ------------------------------------------------------------------------------------------------ holidays


def _holiday_of(profile: Profile, country: str, region: str, day: date) -> str:
    if not profile.closed_on_holidays:
        return ""
    country = country or (profile.countries[0] if profile.countries else "")
    return holidays_of(country, region, day.year).get(day, "")


@lru_cache(maxsize=2_000)
def holidays_of(country: str, region: str, year: int) -> dict[date, str]:
    """Returns the public holidays of a country and region (ISO 3166-2 without the country), by the package `holidays`.

    Where the region is not known, or is none that holidays are told apart by (a county, a name), a holiday of any of them
    counts; where the country is not known, there are none.
    """
    import holidays

    kinds = holidays.list_supported_countries(include_aliases=False)
    if country not in kinds:
        return {}
    regions = kinds[country]
    wanted: Iterable[str | None] = (
        (region,) if region in regions else (None, *(one for one in regions if len(one) < 4))
    )
    found: dict[date, str] = {}
    for subdivision in wanted:
        for day, name in holidays.country_holidays(country, subdiv=subdivision, years=year).items():
            found.setdefault(day, str(name))
    return found


# ------------------------------------------------------------------------------------------------ in words


def _clock(zone: str, now: datetime) -> str:
    return f"{now.astimezone(_zone(zone)):%a %H:%M} in {zone}"


def _closed(profile: Profile, zone: str, now: datetime, holiday: str, again: datetime | None) -> str:
    local = now.astimezone(_zone(zone))
    hours = told(profile.week[local.weekday()])
    why = f"a public holiday ({holiday})" if holiday else f"calls there: {hours} on this day"
    then = f"; again {_told(again, zone)}" if again else ""
    return f"it is {_clock(zone, now)}, {why}{then}"


def _told(when: datetime, zone: str) -> str:
    return f"{when.astimezone(_zone(zone)):%a %d %b %H:%M} there"
