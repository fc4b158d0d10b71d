"""Which column of a table means what: guessed from its header, in several languages, and from what stands in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cti.frozen import Frozen
from dialer.call_lists import words
from dialer.call_lists.rows import FIELDS, NumberReader
from dialer.call_lists.zones import zone_name

MOST_CUSTOM = 40
"""Columns kept as custom fields at most."""

LONGEST_AREA = 7
"""Digits of an area code at most, its country's code included."""

FEW = 5
"""Cells, below which the header counts for more than what stands in them."""

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d.*|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_AS_PHONE = re.compile(r"'?(\+|00|0|\()[\d\s()./+-]{5,}")
_WORDS = re.compile(r"[^\d@]{2,}")
_KNOWN_DATA = frozenset(
    {"consent", "company", "email", "street", "postcode", "city", "fax", "title", "birthday"}
)


class Guess(Frozen, frozen=True, kw_only=True):
    """What a table's columns mean. `columns`: for each column a field (`phone`, `name`, ...), `data:KEY` for a custom field
    of the script, or "" for none. `header`: whether the first row names the columns. `sure`: a number column was found."""

    header: bool
    columns: tuple[str, ...]
    sure: bool


def guess(table: Sequence[Sequence[str]], region: str) -> Guess:
    """Guesses from the first rows of a table (20 to 200 are enough). `region`: the country of national numbers."""
    width = max((len(row) for row in table), default=0)
    if not width:
        return Guess(header=False, columns=(), sure=False)
    first = [cell.strip() for cell in table[0]] + [""] * (width - len(table[0]))
    numbers = NumberReader(region)
    header = _is_header(first, table[1:], numbers)
    body = table[1:] if header else table
    columns = [[row[n].strip() for row in body if n < len(row) and row[n].strip()] for n in range(width)]
    named = [_meaning(cell) if header else "" for cell in first]
    told = [_content(cells, numbers) for cells in columns]
    chosen = [
        _agreed(meaning, content, cells) for meaning, content, cells in zip(named, told, columns, strict=True)
    ]
    if "phone" not in chosen:
        _likeliest_phone(chosen, named, columns, numbers)
    if not header:
        _name_by_content(chosen, columns)
    return Guess(header=header, columns=tuple(_once(chosen, first if header else [])), sure="phone" in chosen)


def field_key(text: str) -> str:
    """The key of a custom field for a header: letters, digits and _, at most 40, beginning with a letter."""
    found = re.sub(r"[^a-z0-9]+", "_", words.key(text)).strip("_")[:40].strip("_")
    return found if found[:1].isalpha() else f"field_{found}".rstrip("_")


def _meaning(header: str) -> str:
    key = words.key(header)
    known = words.headers()
    if found := known.get(key):
        return found
    bare = re.sub(r"\s*\d+$", "", key)  # `phone 2`, `telefon3`
    if found := known.get(bare):
        return found
    tokens = bare.split()
    for size in (3, 2, 1):  # `phone (daytime)`, `kunden telefonnummer`
        for place in range(len(tokens) - size, -1, -1):
            found = known.get(" ".join(tokens[place : place + size]))
            if found and (size > 1 or found in ("phone", "fax", "email", "country", "zone", "language")):
                return found
    return ""


def _is_header(first: Sequence[str], rest: Sequence[Sequence[str]], numbers: NumberReader) -> bool:
    if any(_AS_PHONE.fullmatch(cell) or _EMAIL.fullmatch(cell) or numbers.valid(cell) for cell in first):
        return False
    if any(_meaning(cell) for cell in first):
        return True
    if any(any(c.isdigit() for c in cell) for cell in first) or not any(first):
        return False
    return any(any(c.isdigit() for c in cell) for row in rest[:20] for cell in row)


def _content(cells: Sequence[str], numbers: NumberReader) -> str:
    """What the cells say by themselves; "" if nothing certain."""
    if not cells:
        return ""
    sample = cells[:60]

    def share(good: Sequence[object]) -> float:
        return sum(map(bool, good)) / len(sample)

    if share([_EMAIL.fullmatch(cell) for cell in sample]) > 0.7:
        return "email"
    if share([_DATE.fullmatch(cell) for cell in sample]) > 0.7:
        return ""
    written = share([_AS_PHONE.fullmatch(cell) for cell in sample])
    if written > 0.5 and share([numbers.valid(cell) for cell in sample]) > 0.5:
        return "phone"
    if share(["/" in cell and zone_name(cell) for cell in sample]) > 0.7:
        return "zone"
    distinct = set(sample)
    if share([len(c) == 2 and c.isupper() and words.country(c) for c in sample]) > 0.9 and len(sample) > 1:
        return "country"
    if len(distinct) < len(sample) / 2 and share([len(c) > 3 and words.country(c) for c in sample]) > 0.8:
        return "country"
    if share([len(c) == 2 and c.islower() and words.language(c) for c in sample]) > 0.9 and len(sample) > 1:
        return "language"
    return ""


def _agreed(named: str, content: str, cells: Sequence[str]) -> str:
    """The header's word, unless what stands in the column says otherwise."""
    if content == "phone" and named in ("fax", "person", "birthday", "postcode"):
        return named
    if content in ("phone", "email") and named != content:
        return content
    sample = cells[:60]
    if named == "phone" and sample:  # `mobile: yes`; a few numbers may all be wrong
        digits = max(sum(c.isdigit() for c in cell) for cell in sample)
        return "data" if digits == 0 or (digits < 5 and len(sample) >= FEW) else named
    if named == "area" and sample:
        return named if all(0 < sum(c.isdigit() for c in cell) <= LONGEST_AREA for cell in sample) else "data"
    if named == "priority" and sample:  # high, low: a word for people
        return named if len(sample) < FEW or any(cell.isdecimal() for cell in sample) else "data"
    if named in ("country", "zone", "language") and sample:
        read = {"country": words.country, "zone": zone_name, "language": words.language}[named]
        told = any(read(cell) for cell in sample)
        return named if told or (len(sample) < FEW and named != "language") else "data"
    return named or content


def _likeliest_phone(
    chosen: list[str], named: Sequence[str], columns: Sequence[Sequence[str]], numbers: NumberReader
) -> None:
    """Where neither a header nor its form tells, the column whose digits are most often a number's."""

    def valid(n: int) -> float:
        sample = columns[n][:60]
        return sum(numbers.valid(cell) for cell in sample) / len(sample) if sample else 0.0

    others = ("area", "fax", "person", "birthday", "postcode")
    candidates = [n for n in range(len(columns)) if named[n] not in others]
    best = max(candidates, key=valid, default=None)
    if best is not None and valid(best) > 0.5:
        chosen[best] = "phone"


def _name_by_content(chosen: list[str], columns: Sequence[Sequence[str]]) -> None:
    """Without a header the first column of words with many different values is the name."""
    for n, cells in enumerate(columns):
        sample = cells[:60]
        if chosen[n] or not sample or not all(_WORDS.fullmatch(cell) for cell in sample):
            continue
        if len(sample) == 1 or len(set(sample)) > len(sample) / 2:
            chosen[n] = "name"
            return


def _once(chosen: Sequence[str], header: Sequence[str]) -> list[str]:
    """Fields but `phone` can be only one column's; the others become custom fields, named as in the table."""
    taken: set[str] = set()
    keys: set[str] = set()
    found: list[str] = []
    if (
        "name" in chosen and "first_name" not in chosen and "last_name" in chosen
    ):  # fr: nom, prénom; es: nombre
        chosen = ["first_name" if meaning == "name" else meaning for meaning in chosen]
    for n, meaning in enumerate(chosen):
        if meaning == "reason":  # our own, of rows given back
            found.append("")
            continue
        if meaning in FIELDS and (meaning == "phone" or meaning not in taken):
            taken.add(meaning)
            found.append(meaning)
            continue
        title = header[n] if n < len(header) else ""
        name = (
            meaning
            if meaning in _KNOWN_DATA and meaning not in keys
            else field_key(title or f"column {n + 1}")
        )
        base, more = name, 2
        while name in keys:
            name, more = f"{base[:36]}_{more}", more + 1
        if len(keys) >= MOST_CUSTOM:
            found.append("")
            continue
        keys.add(name)
        found.append(f"data:{name}")
    if "first_name" in taken and "last_name" not in taken and "name" not in taken:
        found[found.index("first_name")] = "name"  # `nombre`, `nome` alone is the whole name
    if "last_name" in taken and "first_name" not in taken and "name" not in taken:
        found[found.index("last_name")] = "name"
    return found
