"""Where a number may ring: its country and every IANA time zone it may lie in; and the rows of `zone_groups` for them.

What the number plans say (Google's, `phonenumbers`), kept for each beginning of numbers once it is known: within one
beginning the last digits decide nothing, as their patterns show.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import available_timezones

import phonenumbers
from phonenumbers import PhoneMetadata
from phonenumbers.tzdata import TIMEZONE_DATA, TIMEZONE_LONGEST_PREFIX

from cti.number_plan import planned
from dialer.call_lists.beginnings import Beginnings, NotPlain, State, pattern, ways

if TYPE_CHECKING:
    from cti.database import Queryable

_DEAR = ("premium_rate", "shared_cost", "pager", "uan", "voicemail")
_OTHER = ("toll_free", "voip", "personal_number")
_GEOGRAPHIC_MOBILES = frozenset({52, 54, 55, 86})
"""Country codes whose mobile numbers follow geography. Source: libphonenumber, GEO_MOBILE_COUNTRIES; but for Indonesia's
(62), of which that holds for fixed wireless only: its mobile numbers tell none of the three zones."""

_NOT_ZONES = ("posix/", "right/", "SystemV/", "Etc/", "US/Pacific-New")


class Place(NamedTuple):
    """Where a number may ring. `country` ISO 3166-1, "" for a number of no country; `zones` sorted, empty where unknown;
    `valid`: its range is assigned; `dear`: of a kind behind which no customer sits (premium rate, pager)."""

    country: str
    zones: tuple[str, ...]
    valid: bool
    dear: bool


NOWHERE = Place("", (), False, False)


class Places:
    """Says where E.164 numbers may ring. Its memory is bounded.

    `anywhere`: numbers that may be mobile ones are taken to be anywhere in their country, also where they have area
    codes (North America); without it they are where their area code is, as the number plan has it.
    """

    def __init__(self, *, anywhere: bool = False) -> None:
        self._anywhere = anywhere
        self._plans: dict[str, Beginnings[Place] | None] = {}

    def of(self, e164: str) -> Place:
        """Where this number may ring; a text that is no E.164 number is not valid."""
        digits = e164[1:]
        if not (digits.isascii() and digits.isdecimal()):
            return NOWHERE
        beginning = digits[:3]
        try:
            plan = self._plans[beginning]
        except KeyError:
            plan = self._plans[beginning] = self._plan(beginning)
        return plan.of(digits) if plan is not None else self._look(digits)

    def _plan(self, beginning: str) -> Beginnings[Place] | None:
        """The number plan of a country code; the codes that begin so share it. None where it is not plain."""
        code = _code_of(beginning)
        known = self._plans.get(f"+{code}")
        if not code or known is not None:
            return known
        try:
            made = Beginnings(_deciding(code), self._look)
        except NotPlain:
            return None
        self._plans[f"+{code}"] = made
        return made

    def _look(self, digits: str) -> Place:
        plan = planned(digits)
        if plan is not None:
            country, valid = plan.country, plan.valid
        else:
            try:
                number = phonenumbers.parse(f"+{digits}", None)
            except phonenumbers.NumberParseException:
                return NOWHERE
            if phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) != f"+{digits}":
                return NOWHERE
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


@cache  # as many as there are country codes
def _deciding(code: int) -> tuple[State, ...]:
    """Every pattern that decides about a number with this country code, the code in front; raises NotPlain."""
    found: dict[State, None] = {}
    for name in phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]:
        rules = _metadata(name, code)
        if rules is None:
            continue
        for kind in ("general_desc", "fixed_line", "mobile", *_DEAR, *_OTHER):
            described = getattr(rules, kind)
            if described is not None and described.national_number_pattern:
                found[pattern(f"{code}(?:{described.national_number_pattern})")] = None
        if rules.leading_digits is not None:
            found[pattern(f"{code}(?:{rules.leading_digits})", beginning=True)] = None
    main = _metadata(phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code][0], code)
    if main is not None and main.national_prefix_for_parsing:
        # A number that seems to begin with a trunk prefix is looked at whole: what is left decides.
        general = main.general_desc.national_number_pattern if main.general_desc else ""
        for way in ways(main.national_prefix_for_parsing):
            if way.endswith("$"):
                found[pattern(f"{code}(?:{way[:-1]})")] = None
                continue
            found[pattern(f"{code}(?:{way})(?:{general or '[0-9]'})")] = None
            found[pattern(f"{code}(?:{way})", beginning=True)] = None
    for prefix in TIMEZONE_DATA:
        if prefix.startswith(str(code)):
            found[pattern(prefix, beginning=True)] = None
    return tuple(found)


def _code_of(digits: str) -> int:
    for length in (1, 2, 3):
        if digits[:length].isdecimal() and int(digits[:length]) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            return int(digits[:length])
    return 0


def _lengths(name: str, code: int) -> tuple[int, ...]:
    rules = _metadata(name, code)
    return tuple(rules.general_desc.possible_length) if rules and rules.general_desc else ()


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


# ------------------------------------------------------------------------------------------------ a state's zones

_OF_STATES = """America/New_York: US-CT US-DE US-DC US-FL US-GA US-IN US-KY US-ME US-MD US-MA US-MI US-NH US-NJ US-NY US-NC
US-OH US-PA US-RI US-SC US-TN US-VT US-VA US-WV|America/Chicago: US-AL US-AR US-FL US-IL US-IN US-IA US-KS US-KY US-LA US-MI
US-MN US-MS US-MO US-NE US-ND US-OK US-SD US-TN US-TX US-WI|America/Denver: US-AZ US-CO US-ID US-KS US-MT US-NE US-NV US-NM
US-ND US-OR US-SD US-TX US-UT US-WY|America/Phoenix: US-AZ|America/Los_Angeles: US-CA US-ID US-NV US-OR US-WA
|America/Anchorage: US-AK|America/Adak: US-AK|Pacific/Honolulu: US-HI|America/St_Johns: CA-NL|America/Halifax: CA-NB CA-NL
CA-NS CA-PE CA-QC|America/Toronto: CA-NU CA-ON CA-QC|America/Winnipeg: CA-MB CA-NU CA-ON|America/Regina: CA-SK
|America/Edmonton: CA-AB CA-BC CA-NT CA-NU CA-SK|America/Vancouver: CA-BC|America/Whitehorse: CA-YT"""


@cache
def _zones_of_states() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for entry in _OF_STATES.split("|"):
        zone, states = entry.split(":")
        for state in states.split():
            found.setdefault(state, set()).add(zone.strip())
    return {state: frozenset(zones) for state, zones in found.items()}


@cache  # as many as there are sets of zones in the number plan, and states
def with_state(zones: tuple[str, ...], country: str, state: str) -> tuple[str, ...]:
    """The zones of a number whose owner lives in this state: also those of the state, where its country has several. A
    number moves along with its owner. No zones stay none."""
    return tuple(sorted({*zones, *_zones_of_states().get(f"{country}-{state}", ())})) if zones else ()


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


class ZoneGroups:
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
