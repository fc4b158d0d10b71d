"""Consents from a CSV file: read row by row, kept portion by portion; refused rows are told with their reason."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from cti.numbers import read_caller
from dialer.law.consents import CHANNELS, Word, WrongConsent, checked, record
from dialer.law.do_not_call import WrongEntry

if TYPE_CHECKING:
    from cti.database import Queryable

COLUMNS = ("number", "person", "channel", "purpose", "given", "source", "evidence", "at")
PORTION = 2_000
YES = frozenset(
    {"yes", "y", "true", "1", "given", "oui", "ja", "j", "tak", "ya", "sí", "si", "sì", "wahr", "vrai"}
)
NO = frozenset({"no", "n", "false", "0", "withdrawn", "non", "nein", "nie", "nee", "tidak", "falsch", "faux"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A line of the file that was not kept, and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file: `kept` were new, `known` were on record before, `not_kept` refused; `refused`: the first of
    those."""

    kept: int
    known: int
    not_kept: int
    refused: tuple[RefusedRow, ...]


def read(file: TextIO, region: str, now: datetime) -> Iterator[Word | RefusedRow]:
    """Yields each row as a word on consent, or why it is none. Raises WrongConsent for a file without the needed columns.

    The first line names the columns: number or person, given (yes or no), source, at; and channel, purpose, evidence.
    """
    head = file.readline()
    separator = max(",;\t", key=head.count)
    names = [
        name.strip().lower().lstrip("\ufeff") for name in next(csv.reader([head], delimiter=separator), [])
    ]
    needed = [name for name in ("given", "source", "at") if name not in names]
    if needed or not {"number", "person"} & set(names):
        missing = ", ".join([*needed, *([] if {"number", "person"} & set(names) else ["number or person"])])
        raise WrongConsent(f"the first line must name the columns; missing: {missing}")
    rows = csv.reader(file, delimiter=separator)
    for cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        row = {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
        try:
            yield checked(_word(row, region), now)
        except (WrongConsent, WrongEntry) as error:
            yield RefusedRow(line=rows.line_num + 1, why=str(error))


def _word(row: dict[str, str], region: str) -> Word:
    number = ""
    if row.get("number"):
        number = read_caller(row["number"], region).e164 or ""
        if not number:
            raise WrongConsent("number: no country has such a number")
    said = row.get("given", "").lower()
    if said not in YES | NO:
        raise WrongConsent("given: yes or no")
    try:
        at = datetime.fromisoformat(row.get("at", ""))
    except ValueError:
        raise WrongConsent("at: a day or moment like 2026-11-22 or 2026-11-22T10:00:00Z") from None
    channel = next((one for one in CHANNELS if one == (row.get("channel") or "call").lower()), None)
    if channel is None:
        raise WrongConsent(f"channel: one of {', '.join(CHANNELS)}")
    withdrawn = said in NO
    return Word(
        number=number,
        person=row.get("person", ""),
        channel=channel,
        purpose=row.get("purpose", "") or ("" if withdrawn else "marketing"),
        given=not withdrawn,
        source=row.get("source", ""),
        evidence=row.get("evidence", ""),
        at=at if at.tzinfo else at.replace(tzinfo=UTC),
    )


async def import_file(
    db: Queryable, file: TextIO, *, region: str, by: str, most_refused: int = 1000
) -> Imported:
    """Keeps what can be kept of a file; may be run again: the same word is kept once. Raises WrongConsent for a file that
    is none; of refused rows the first `most_refused` are told."""
    portion: list[Word] = []
    kept = seen = not_kept = 0
    refused: list[RefusedRow] = []
    for one in read(file, region, datetime.now(UTC)):
        if isinstance(one, RefusedRow):
            not_kept += 1
            if len(refused) < most_refused:
                refused.append(one)
            continue
        portion.append(one)
        seen += 1
        if len(portion) >= PORTION:
            kept += len(await record(db, portion, by=by))
            portion = []
    if portion:
        kept += len(await record(db, portion, by=by))
    return Imported(kept=kept, known=seen - kept, not_kept=not_kept, refused=tuple(refused))
