"""The plain cases of the world's number plans, read straight from Google's rules: exactly what `phonenumbers` says, in a
fraction of its time. Whatever is not plain (leading zeros, carrier codes, rewritten local numbers) is left to it.

Pure. Kept for each country once read: its rules, compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import phonenumbers
from phonenumbers import PhoneMetadata, PhoneNumber, ValidationResult
from phonenumbers.phonemetadata import PhoneNumberDesc

LONGEST = 17
"""Digits of the longest national number that `phonenumbers` knows of."""

_KINDS = ("mobile", "fixed_line", "toll_free", "premium_rate", "shared_cost", "voip", "personal_number", "pager", "uan",
          "voicemail")  # fmt: skip


class Planned(NamedTuple):
    """A number as its plan has it. `country` is ISO 3166, of the code's main country where the number says no more, ""
    for a number of no country; `valid`: in a range that is assigned there; `formatted`: the international form."""

    country: str
    valid: bool
    formatted: str


@dataclass(frozen=True, slots=True)
class _Region:
    """One country's rules. `ranges`: length of a national number → whether it is in an assigned range."""

    international_prefix: re.Pattern[str] | None
    trunk_prefix: re.Pattern[str] | None
    rewrites: bool
    general: re.Pattern[str]
    lengths: frozenset[int]
    leading: re.Pattern[str] | None
    ranges: dict[int, Callable[[str], object]]

    def assigned(self, national: str) -> bool:
        inside = self.ranges.get(len(national))
        return inside is not None and inside(national) is not None

    def without_trunk_prefix(self, national: str) -> str | None:
        """Returns the number without its trunk prefix, or None where more than taking it away is to be done."""
        found = self.trunk_prefix.match(national) if self.trunk_prefix else None
        if found is None or found.end() == 0:
            return national
        if self.rewrites and found.groups() and found.groups()[-1] is not None:
            return None
        rest = national[found.end() :]
        return rest if self.general.fullmatch(rest) else None


@dataclass(frozen=True, slots=True)
class _Code:
    """What all countries of one country code share. `formats`: (beginning, whole, how it is written)."""

    main: _Region
    lengths: frozenset[int]
    regions: tuple[tuple[str, _Region], ...]
    formats: tuple[tuple[re.Pattern[str] | None, re.Pattern[str], str], ...]

    def place(self, national: str) -> tuple[str, bool]:
        """The country of a number, and whether it is in an assigned range there."""
        if len(self.regions) == 1:
            name, region = self.regions[0]
            return name, region.assigned(national)
        for name, region in self.regions:
            if region.leading is None:
                if region.assigned(national):
                    return name, True
            elif region.leading.match(national):
                return name, region.assigned(national)
        return self.regions[0][0], False

    def written(self, national: str) -> str:
        for beginning, whole, how in self.formats:
            if (beginning is None or beginning.match(national)) and whole.fullmatch(national):
                return whole.sub(how, national)
        return national


def planned(digits: str) -> Planned | None:
    """Returns what the plan says of a country code and national number (ASCII digits), or None: then ask `phonenumbers`.

    An answer means: `+digits` is a possible number, and it is its own E.164 form.
    """
    length = _code_length(digits)
    national = digits[length:]
    if not length or national[:1] == "0":
        return None
    code = _code(int(digits[:length]))
    if len(national) not in code.lengths or code.main.without_trunk_prefix(national) != national:
        return None
    country, valid = code.place(national)
    return Planned(
        country if country.isalpha() else "", valid, f"+{digits[:length]} {code.written(national)}"
    )


def from_home(digits: str, region: str) -> str | None:
    """Returns country code and national number of what was dialled or shown at home, or None: then ask `phonenumbers`."""
    code = phonenumbers.country_code_for_region(region)
    if not code or digits.startswith(str(code)):
        return None
    home = _region(region, code)
    if home.international_prefix is not None and home.international_prefix.match(digits):
        return None
    national = home.without_trunk_prefix(digits)
    if national is None or len(national) not in home.lengths or national[0] == "0":
        return None
    return f"{code}{national}"


def _code_length(digits: str) -> int:
    """How many digits the country code has; 0 without one. No code begins another."""
    if digits[:1] in ("", "0"):
        return 0
    for length in (1, 2, 3):
        if digits[:length].isdecimal() and int(digits[:length]) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            return length
    return 0


@cache  # as many as there are country codes
def _code(code: int) -> _Code:
    names = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]
    main = _metadata(names[0], code)
    assert main is not None  # every code has its rules
    several = (name for name in names if _metadata(name, code) is not None)
    possible = (
        length
        for length in range(1, LONGEST + 1)
        if phonenumbers.is_possible_number_with_reason(
            PhoneNumber(country_code=code, national_number=10 ** (length - 1))
        )
        == ValidationResult.IS_POSSIBLE
    )
    return _Code(
        main=_region(names[0], code),
        lengths=frozenset(possible),
        regions=tuple((name, _region(name, code)) for name in several),
        formats=tuple(
            (
                re.compile(rule.leading_digits_pattern[-1]) if rule.leading_digits_pattern else None,
                re.compile(rule.pattern or ""),
                rule.format or "",
            )
            for rule in main.intl_number_format or main.number_format
        ),
    )


@cache  # as many as there are countries
def _region(name: str, code: int) -> _Region:
    rules = _metadata(name, code)
    assert rules is not None  # asked only for countries that have them
    general = rules.general_desc
    assert general is not None
    return _Region(
        international_prefix=re.compile(rules.international_prefix) if rules.international_prefix else None,
        trunk_prefix=re.compile(rules.national_prefix_for_parsing)
        if rules.national_prefix_for_parsing
        else None,
        rewrites=bool(rules.national_prefix_transform_rule),
        general=re.compile(general.national_number_pattern or r"(?!)"),
        lengths=frozenset(general.possible_length),
        leading=re.compile(rules.leading_digits) if rules.leading_digits is not None else None,
        ranges={
            length: found
            for length in range(1, LONGEST + 1)
            if (found := _ranges(rules, general, length)) is not None
        },
    )


def _ranges(rules: PhoneMetadata, general: PhoneNumberDesc, length: int) -> Callable[[str], object] | None:
    """One pattern for all assigned ranges of numbers of this length."""
    if not _may_be(general, length):
        return None
    patterns = tuple(_patterns(rules, length))
    if not patterns:
        return None
    return re.compile(
        f"(?=(?:{general.national_number_pattern})\\Z)(?:{'|'.join(f'(?:{p})' for p in patterns)})"
    ).fullmatch


def _patterns(rules: PhoneMetadata, length: int) -> Iterator[str]:
    for kind in _KINDS:
        if kind == "mobile" and rules.same_mobile_and_fixed_line_pattern:
            continue
        described = getattr(rules, kind)
        if described is not None and _may_be(described, length):
            yield described.national_number_pattern


def _may_be(described: PhoneNumberDesc, length: int) -> bool:
    lengths = described.possible_length
    return bool(described.national_number_pattern) and (not lengths or length in lengths)


def _metadata(name: str, code: int) -> PhoneMetadata | None:
    found: PhoneMetadata | None = PhoneMetadata.metadata_for_region_or_calling_code(code, name)
    return found
