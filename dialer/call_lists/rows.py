"""A row of a table made a contact of a list: number, place, name and custom fields read; or why that cannot be. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import msgspec
import phonenumbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from cti.number_plan import from_home
from cti.numbers import LONGEST_EXTENSION, Kind, read_caller
from cti.plain_text import plain
from dialer.call_lists import words
from dialer.call_lists.sheets import MOST_COLUMNS, Line, unsafe
from dialer.call_lists.zones import Group, Place, Places, with_state, zone_name

FIELDS = frozenset(
    {
        "phone",
        "area",
        "name",
        "first_name",
        "last_name",
        "person",
        "country",
        "region",
        "zone",
        "language",
        "priority",
    }
    | {"account"}
)
"""What a column may be besides `data:KEY`, a custom field of the script. Of `phone` there may be several; `area` holds the
area code of the one after it."""

MOST_NUMBERS = 10
LONGEST_VALUE = 1000

Column = Annotated[str, StringConstraints(pattern=r"^$|^[a-z_]{1,20}$|^data:[a-z][a-z0-9_]{0,39}$")]


def _with_a_plan(country: str) -> str:
    if not phonenumbers.country_code_for_region(country):
        raise ValueError("no country of this code has a number plan")
    return country


Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$"), AfterValidator(_with_a_plan)]


class ConsentFor(BaseModel):
    """Whose consent decides whether a row is taken: for the purpose of this campaign, and whether it is `needed`. One that
    was withdrawn always counts."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    campaign: int = Field(ge=1, lt=1 << 63)
    needed: bool


class ImportSettings(BaseModel):
    """How a file is to be read. `columns`: as in `Guess`; `country`: of national numbers where the row names none;
    `duplicates`: which numbers count as there already: those of this `list`, also those of other `active` lists, of `all`
    lists, or none (`keep`, then also within the file). `anywhere`: numbers that may be mobile may lie in every zone of
    their country. `consent`: rows without it are not taken; null: it is asked for before each call only."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    columns: list[Column] = Field(max_length=MOST_COLUMNS)
    header: bool = True
    country: Country
    language: Annotated[str, StringConstraints(pattern=r"^([a-z]{2}(-[A-Z]{2})?)?$")] = ""
    zone: Annotated[str, StringConstraints(max_length=64)] = ""
    priority: int = Field(default=0, ge=0, le=100)
    duplicates: Literal["list", "active", "all", "keep"] = "list"
    anywhere: bool = False
    consent: ConsentFor | None = None

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: list[str]) -> list[str]:
        for column in columns:
            if column and not column.startswith("data:") and column not in FIELDS:
                raise ValueError(f"{column} is no field: take one of {', '.join(sorted(FIELDS))} or data:KEY")
        once = [column for column in columns if column and column != "phone"]
        if twice := {column for column in once if once.count(column) > 1}:
            raise ValueError(f"{min(twice)} is said of two columns")
        if "phone" not in columns:
            raise ValueError("no column is a phone number: say which (phone)")
        return columns

    @field_validator("zone")
    @classmethod
    def _of_the_database(cls, zone: str) -> str:
        if zone and zone_name(zone) is None:
            raise ValueError("not a time zone such as Europe/Berlin")
        return zone_name(zone) or "" if zone else ""


class Contact(NamedTuple):
    """A contact to be. `data`: its custom fields as JSON; `cells`: the row as it stood in the file."""

    row: int
    name: str
    e164: str
    others: list[str]
    person: str
    account: int | None
    language: str
    group: Group
    data: str
    priority: int
    cells: list[str]


class Bad(NamedTuple):
    """A row that cannot be taken: `code` for programs, `says` for people."""

    row: int
    code: str
    says: str
    cells: list[str]


_encode = msgspec.json.Encoder().encode

_SHORTENED = re.compile(r"[0-9]([.,][0-9]+)?[eE]\+?[0-9]+")
_FLOAT = re.compile(r"(\+?[0-9]+)[.,]0+|([0-9])[.,]([0-9]+)[eE]\+?([0-9]{1,2})")
_DROPPED = str.maketrans("", "", " ()-./\xa0\u2011\u2010\u2013\u202f")
_SIGNS = re.compile(r"[;,|\n]")
_OR = re.compile(r"\s(?:or|oder|ou|o|lub|of)\s")
_SEVERAL = re.compile(r"\s*[;,|\n]\s*|\s+(?:/|or|oder|ou|o|lub|of)\s+")


class NumberReader:
    """Reads numbers as people write them, for one country by default; its memory is bounded."""

    def __init__(self, region: str, places: Places | None = None) -> None:
        self.places = places or Places()
        self._region = region
        self._homes: dict[str, tuple[str, str | None]] = {}

    def valid(self, text: str) -> bool:
        """Whether it is a number that exists."""
        return self.read(whole(unsafe(text)), self._region) is not None

    def read(self, text: str, region: str) -> tuple[str, Place] | None:
        """The E.164 number and where it may ring, or None. The same as `read_caller`, and faster for plain ones."""
        digits = text.translate(_DROPPED)
        if digits.isascii() and digits[1:].isdecimal():
            found: str | None = None
            if digits[0] == "+":
                found = digits
            elif digits.startswith("00"):
                found = "+" + digits[2:]
            elif digits[0].isdecimal() and (len(digits) > LONGEST_EXTENSION or digits[0] == "0"):
                home = self._homes.get(region)
                if home is None:
                    home = self._homes[region] = _home(region)
                code, trunk = home
                if digits.startswith(code):
                    found = "+" + digits if len(digits) >= 11 else None
                elif trunk is None:
                    national = from_home(digits, region)
                    found = "+" + national if national else None
                else:
                    found = f"+{code}{digits.removeprefix(trunk)}"
            if found is not None and 8 <= len(found) <= 16 and (place := self.places.of(found)).valid:
                return found, place
        caller = read_caller(text, region)
        if caller.kind is Kind.IDENTIFIED and caller.valid and caller.e164:
            return caller.e164, self.places.of(caller.e164)
        return None

    def with_area(self, text: str, area: str, region: str) -> str:
        """A number as it is dialed from elsewhere: with its area code in front, where it has none yet."""
        code = "".join(c for c in area if c.isdecimal() or c == "+")
        digits = "".join(c for c in text if c.isdecimal() or c == "+")
        if not code or digits.startswith(("+", "0", code.lstrip("0+"))):
            return text
        return f"{code}{digits}" if self.read(f"{code}{digits}", region) is not None else text

    def read_all(self, text: str, region: str) -> list[tuple[str, Place]]:
        """All numbers in a cell that may hold several; none if none exists."""
        if _SIGNS.search(text) is None:
            if (one := self.read(text, region)) is not None:
                return [one]
            if "/" not in text and not _OR.search(text):
                return []
        parts = [part for part in _SEVERAL.split(text[:500]) if part]
        found = [one for part in parts if (one := self.read(part, region)) is not None]
        if not found and (one := self.read(text, region)) is not None:
            return [one]
        return found


def whole(text: str) -> str:
    """A whole number that a program has written as a fraction (447911123456.0, 4.47911123456E+11) as it was; any other text,
    and one whose last digits are gone, as it is."""
    if (found := _FLOAT.fullmatch(text)) is None:
        return text
    digits, first, more, power = found.groups()
    if digits is not None:
        return str(digits)
    return f"{first}{more}" if len(more) == int(power) else text


def _home(region: str) -> tuple[str, str | None]:
    """A country's code, and what is dialled before numbers at home; None where that is more than some digits."""
    code = phonenumbers.country_code_for_region(region)
    rules = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    prefix = (rules.national_prefix_for_parsing or "") if rules is not None else ""
    return str(code), prefix if not prefix or prefix.isdecimal() else None


class RowReader:
    """Makes contacts of rows, by the import's settings."""

    def __init__(self, settings: ImportSettings) -> None:
        self._settings = settings
        self._numbers = NumberReader(settings.country, Places(anywhere=settings.anywhere))
        self._phones = [n for n, column in enumerate(settings.columns) if column == "phone"]
        place = {column: n for n, column in enumerate(settings.columns)}
        self._area = place.get("area", -1)
        self._of_area = next((n for n in self._phones if n > self._area), self._phones[0])
        self._country, self._zone, self._priority = (
            place.get(f, -1) for f in ("country", "zone", "priority")
        )
        self._name, self._first, self._last = (place.get(f, -1) for f in ("name", "first_name", "last_name"))
        self._language, self._region = (place.get(f, -1) for f in ("language", "region"))
        self._person, self._account = (place.get(f, -1) for f in ("person", "account"))
        self._data = [
            (n, column.removeprefix("data:"))
            for n, column in enumerate(settings.columns)
            if column.startswith("data:")
        ]

    def read(self, line: Line) -> Contact | Bad:
        """The contact of a row, or why there is none."""
        row, cells, broken = line
        if broken:
            return Bad(row, "broken", broken, cells)
        settings = self._settings
        region = settings.country
        if (n := self._country) >= 0 and (text := _cell(cells, n)):
            found = _country(text)
            if found is None:
                return Bad(row, "country", f"the country {text[:40]!r} is not known", cells)
            region = found
        zone = settings.zone
        if (n := self._zone) >= 0 and (text := _cell(cells, n)):
            known = zone_name(text)
            if known is None:
                return Bad(row, "zone", f"the time zone {text[:40]!r} is not known: say Europe/Berlin", cells)
            zone = known
        priority = settings.priority
        if (n := self._priority) >= 0 and (text := _cell(cells, n)):
            if not text.isdecimal() or int(text[:4]) > 100:
                return Bad(row, "priority", "a priority is a number from 0 to 100", cells)
            priority = int(text[:4])
        numbers: list[tuple[str, Place]] = []
        seen = ""
        for n in self._phones:
            if n < len(cells) and (text := whole(unsafe(cells[n].strip()))):
                if n == self._of_area and (area := _cell(cells, self._area)):
                    text = self._numbers.with_area(text, whole(area), region)
                seen = seen or text
                numbers += self._numbers.read_all(text, region)
        if not numbers:
            return self._no_number(row, seen, region, cells)
        e164, place = numbers[0]
        others: list[str] = []
        if len(numbers) > 1:
            numbers = [one for one in numbers if not one[1].dear] or numbers[:1]
            e164, place = numbers[0]
            others = list(dict.fromkeys(one for one, _ in numbers[1:MOST_NUMBERS] if one != e164))
        if place.dear:
            return Bad(row, "special", "a premium-rate or special number: not called", cells)
        name = _cell(cells, self._name) if self._name >= 0 else ""
        if not name and (self._first >= 0 or self._last >= 0):
            name = f"{_cell(cells, self._first)} {_cell(cells, self._last)}".strip()
        language = settings.language
        if (n := self._language) >= 0 and (text := _cell(cells, n)):
            language = words.language(text) or language
        where, state = place.country or region, ""
        if (n := self._region) >= 0 and (text := _cell(cells, n)):
            state = words.state(text, where)
        account = whole(_cell(cells, self._account)) if self._account >= 0 else ""
        data = {}
        for n, key in self._data:
            if n < len(cells) and (text := cells[n]) and (value := _plain(unsafe(text), LONGEST_VALUE)):
                data[key] = value
        return Contact(
            row,
            _plain(name, 200),
            e164,
            others,
            _plain(whole(_cell(cells, self._person)), 80) if self._person >= 0 else "",
            int(account) if account and account.isdecimal() and len(account) < 19 and int(account) else None,
            language,
            Group(where, state, (zone,) if zone else with_state(place.zones, where, state)),
            _encode(data).decode() if data else "{}",
            priority,
            cells,
        )

    @staticmethod
    def _no_number(row: int, seen: str, region: str, cells: list[str]) -> Bad:
        if not seen:
            return Bad(row, "no_number", "there is no phone number", cells)
        if _SHORTENED.fullmatch(seen):
            says = "a spreadsheet has cut the number's digits: format the column as text and export it again"
            return Bad(row, "shortened", says, cells)
        return Bad(
            row, "bad_number", f"{plain(seen, 40)!r} is no number that exists (read in {region})", cells
        )


_country = lru_cache(maxsize=1000)(words.country)


def _cell(cells: Sequence[str], n: int) -> str:
    return unsafe(cells[n].strip()) if 0 <= n < len(cells) else ""


def _plain(text: str, limit: int) -> str:
    """As `plain`; most texts are so already."""
    return text.strip()[:limit] if text.isprintable() else plain(text, limit)
