"""Where a number may ring: its country and every IANA time zone it may lie in; and the rows of `zone_groups` for them.

What the number plans say (Google's, `phonenumbers`), kept for each beginning of numbers once it is known: within one
beginning the last digits decide nothing, as their patterns show.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol
from zoneinfo import available_timezones

import phonenumbers
from phonenumbers import PhoneMetadata
from phonenumbers.tzdata import TIMEZONE_DATA, TIMEZONE_LONGEST_PREFIX

from cti.number_plan import planned

if TYPE_CHECKING:
    from cti.database import Queryable

MOST_KEPT = 150_000
"""Beginnings of numbers whose place is kept; then all are forgotten, and memory stays flat."""

_DEAR = ("premium_rate", "shared_cost", "pager", "uan", "voicemail")
_OTHER = ("toll_free", "voip", "personal_number")
_GEOGRAPHIC_MOBILES = frozenset({52, 54, 55, 62, 86})
"""Country codes whose mobile numbers follow geography. Source: libphonenumber, GEO_MOBILE_COUNTRIES."""

_NOT_ZONES = ("posix/", "right/", "SystemV/", "Etc/", "US/Pacific-New")


class Place(NamedTuple):
    """Where a number may ring. `country` ISO 3166-1, "" for a number of no country; `zones` sorted, empty where unknown;
    `valid`: its range is assigned; `dear`: of a kind behind which no customer sits (premium rate, pager)."""

    country: str
    zones: tuple[str, ...]
    valid: bool
    dear: bool


class Places:
    """Says where E.164 numbers may ring. Its memory is bounded.

    `anywhere`: numbers that may be mobile ones are taken to be anywhere in their country, also where they have area
    codes (North America); without it they are where their area code is, as the number plan has it.
    """

    def __init__(self, *, anywhere: bool = False) -> None:
        self._anywhere = anywhere
        self._kept: dict[str, Place] = {}

    def of(self, e164: str) -> Place:
        """Where this number may ring; a text that is no E.164 number is not valid."""
        digits = e164[1:]
        beginning = f"{len(digits)}:{digits[: -_free(digits[:3]) or None]}"
        found = self._kept.get(beginning)
        if found is None:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            found = self._kept[beginning] = self._look(digits)
        return found

    def _look(self, digits: str) -> Place:
        plan = planned(digits)
        if plan is not None:
            country, valid = plan.country, plan.valid
        else:
            try:
                number = phonenumbers.parse(f"+{digits}", None)
            except phonenumbers.NumberParseException:
                return Place("", (), False, False)
            if phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) != f"+{digits}":
                return Place("", (), False, False)
            found = phonenumbers.region_code_for_number(number) or ""
            valid = phonenumbers.is_valid_number(number)
            country = found if found.isalpha() else ""
        code = _code_of(digits)
        kinds = _kinds(country or "001", code, digits[len(str(code)) :])
        local = "fixed" in kinds or ("mobile" in kinds and code in _GEOGRAPHIC_MOBILES)
        if not valid or kinds & {"dear", "other"} or (self._anywhere and "mobile" in kinds):
            local = False
        zones = _longest(digits, TIMEZONE_LONGEST_PREFIX) if local else _longest(str(code), len(str(code)))
        return Place(country, _known(zones), valid, "dear" in kinds)


def _longest(digits: str, longest: int) -> tuple[str, ...]:
    for length in range(min(longest, len(digits)), 0, -1):
        if (zones := TIMEZONE_DATA.get(digits[:length])) is not None:
            return tuple(zones)
    return ()


@cache  # as many as there are sets of zones in the number plan
def _known(zones: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(zones) - {"Etc/Unknown"}))


@cache  # by the first three digits at most
def _free(digits: str) -> int:
    """How many digits at the end decide nothing, for all numbers of this country code."""
    code = _code_of(digits)
    if not code:
        return 0
    free = 12
    for name in phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]:
        rules = _metadata(name, code)
        if rules is None:
            return 0
        for kind in ("general_desc", "fixed_line", "mobile", *_DEAR, *_OTHER):
            described = getattr(rules, kind)
            if described is not None and described.national_number_pattern:
                free = min(free, _free_at_end(described.national_number_pattern))
    longest = max((len(prefix) for prefix in TIMEZONE_DATA if prefix.startswith(str(code))), default=0)
    shortest = min(
        (n for name in phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code] for n in _lengths(name, code)),
        default=0,
    )
    return max(0, min(free, len(str(code)) + shortest - longest))


def _lengths(name: str, code: int) -> tuple[int, ...]:
    rules = _metadata(name, code)
    return tuple(rules.general_desc.possible_length) if rules and rules.general_desc else ()


def _free_at_end(pattern: str) -> int:
    """How many digits at the end of what the pattern matches may be any: those that each of its ways ends with."""
    return min(_ends(pattern))


def _ends(pattern: str) -> list[int]:
    """For each way through a pattern (alternatives, groups, classes, counts), the free digits at its end."""
    depth, begin, ways = 0, 0, []
    inside = False
    for place, character in enumerate(pattern):
        if character == "[":
            inside = True
        elif character == "]":
            inside = False
        elif inside:
            continue
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "|" and depth == 0:
            ways.append(pattern[begin:place])
            begin = place + 1
    ways.append(pattern[begin:])
    return [_end(way) for way in ways]


_AT_END = re.compile(r"(?:\\d|\[0-9\])(?:\{(\d+)(?:,(\d+))?\})?\Z")


def _end(way: str) -> int:
    free = 0
    while found := _AT_END.search(way):
        free += int(found.group(1) or 1)  # of {2,5} two are there at least
        way = way[: found.start()]
        if found.group(2):
            return free
    if way.endswith(")") and (inner := _last_group(way)) is not None:
        return free + min(_ends(inner))
    return free


def _last_group(way: str) -> str | None:
    """What stands in the group that ends the way, None where it is not a plain one."""
    depth = 0
    for place in range(len(way) - 1, -1, -1):
        if way[place] == ")":
            depth += 1
        elif way[place] == "(":
            depth -= 1
            if depth == 0:
                inner = way[place + 1 : -1]
                return (
                    inner.removeprefix("?:") if not inner.startswith("?") or inner.startswith("?:") else None
                )
    return None


def _code_of(digits: str) -> int:
    for length in (1, 2, 3):
        if digits[:length].isdecimal() and int(digits[:length]) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            return int(digits[:length])
    return 0


@cache  # as many as there are countries
def _patterns(name: str, code: int) -> tuple[tuple[str, re.Pattern[str], frozenset[int]], ...]:
    rules = _metadata(name, code)
    if rules is None:
        return ()
    found: list[tuple[str, re.Pattern[str], frozenset[int]]] = []
    for kind, told in (
        [(k, "dear") for k in _DEAR]
        + [(k, "other") for k in _OTHER]
        + [
            ("fixed_line", "fixed"),
            ("mobile", "mobile"),
        ]
    ):
        described = getattr(rules, kind)
        if described is not None and described.national_number_pattern:
            lengths = described.possible_length or _lengths(name, code)
            found.append((told, re.compile(described.national_number_pattern), frozenset(lengths)))
    return tuple(found)


def _kinds(country: str, code: int, national: str) -> frozenset[str]:
    return frozenset(
        kind
        for kind, pattern, lengths in _patterns(country, code)
        if len(national) in lengths and pattern.fullmatch(national)
    )


def _metadata(name: str, code: int) -> PhoneMetadata | None:
    found: PhoneMetadata | None = PhoneMetadata.metadata_for_region_or_calling_code(code, name)
    return found


# ------------------------------------------------------------------------------------------------ a contact's own zone


@cache
def _zone_names() -> dict[str, str]:
    return {
        name.casefold(): name
        for name in sorted(available_timezones())
        if not name.startswith(_NOT_ZONES) and ("/" in name or name == "UTC")
    }


def zone_name(text: str) -> str | None:
    """The IANA name that is meant (`europe/berlin`, `America/New York`), or None."""
    return _zone_names().get("_".join(text.split()).casefold())


# ------------------------------------------------------------------------------------------------------ zone groups


class Group(NamedTuple):
    """What a row of `zone_groups` says."""

    country: str
    region: str
    zones: tuple[str, ...]


class ZoneGroups(Protocol):
    """Gives the id of a group's row."""

    async def ids(self, groups: set[Group]) -> dict[Group, int]:
        """The ids of all these groups; missing rows are made."""


class StoredZoneGroups:
    """The rows of `zone_groups`, read and made once each."""

    def __init__(self, db: Queryable) -> None:
        self._db = db
        self._ids: dict[Group, int] = {}

    async def ids(self, groups: set[Group]) -> dict[Group, int]:
        """The ids of all these groups. Rows that are missing are made at once, by whoever is first; call it outside of a
        transaction, so that nobody waits for its end."""
        for group in sorted(groups - self._ids.keys()):
            self._ids[group] = await zone_group(self._db, group)
        return {group: self._ids[group] for group in groups}


async def zone_group(db: Queryable, group: Group) -> int:
    """The id of one group's row, which is made if it is missing."""
    values = (group.country, group.region, list(group.zones))
    for _ in range(3):
        found = await db.fetchval(
            "SELECT id FROM zone_groups WHERE country = $1 AND region = $2 AND zones = $3", *values
        )
        if found is not None:
            return int(found)
        await db.execute(
            "INSERT INTO zone_groups (country, region, zones) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            *values,
        )
    raise RuntimeError("a row of zone_groups was made and is not there")
