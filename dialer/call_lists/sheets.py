"""Tables that people have on their disks, read as rows of text: CSV in any separator and encoding, and Excel workbooks.

A CSV is read as a stream: what is held is one part of it. Broken rows are told as such and the rest is read on.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import structs

from cti.frozen import Frozen
from dialer.call_lists import words

PART = 1 << 20
"""Bytes of a file that are read at once."""

LONGEST_LINE = 1 << 17
"""Characters of a row; a longer one is broken."""

MOST_LINES = 200
"""Lines that one row may have by line breaks in its cells; a quote that is not closed within them is a mistake."""

MOST_COLUMNS = 200
LARGEST_WORKBOOK = 1 << 30
"""Bytes of a workbook when unpacked."""

SEPARATORS = ",;\t|"
_HEAD = 1 << 18
_SAMPLE = 1 << 16
_ALPHABETS = tuple(
    frozenset(small + small.upper())
    for small in (
        "äöüß", "éèêëàâçîïôûùœ", "áéíóúñü", "àèéìíòóù", "ąćęłńóśźż", "åøæé", "åäöé", "áéíóúâêôãõàçü", "áčďéěíňóřšťúůýž",
        "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîșțşţ", "čćđšž", "çğıöşüâİ",
        "абвгдежзийклмнопрстуфхцчшщъыьэюяёєіїґ",
        "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋ",
    )
)  # fmt: skip
"""Letters beyond ASCII of the languages whose files are read."""

_LETTERS = frozenset().union(*_ALPHABETS)
_SIGNS = frozenset("€’‘–“”„…«»°§ \xa0ºª¿¡£№")
_EIGHT_BIT = ("cp1252", "cp1250", "iso8859-2", "cp1254", "cp1251", "cp1253", "mac_roman", "cp850", "cp852")

MOST_ABOVE = 20
"""Rows in which a header is looked for."""

STRAY = 4
"""Control characters that even a short table may have by mistake."""


class NotASheet(ValueError):
    """The file is no table that can be read; the message says what to do."""


class Format(Frozen, frozen=True, kw_only=True):
    """How a file is written. `sheets`: names of an Excel workbook's sheets, of which `sheet` is read; else empty."""

    kind: str
    encoding: str = "utf-8"
    separator: str = ","
    backslash: bool = False
    skip: int = 0
    sheet: str = ""
    sheets: tuple[str, ...] = ()


class Line(NamedTuple):
    """A row as it stands in the file. `number` counts from 1, the header and empty rows too, as spreadsheets do;
    `broken` says why the cells are not to be trusted, "" if they are."""

    number: int
    cells: list[str]
    broken: str = ""


# -------------------------------------------------------------------------------------------- what kind of file


@dataclass(slots=True)
class _Zeros:
    even: int = 0
    odd: int = 0


class Sniffer:
    """Finds out how a file is written while its bytes pass by: `feed` each part in order, then ask for the `format`."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._sample = bytearray()
        self._utf8: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
        self.size = 0

    def feed(self, part: bytes) -> None:
        """Takes the next part."""
        self.size += len(part)
        if len(self._head) < _HEAD:
            self._head += part[: _HEAD - len(self._head)]
        if self._utf8 is not None and not self.is_workbook:
            try:
                self._utf8.decode(part)
            except UnicodeDecodeError:
                self._utf8 = None
        if len(self._sample) < _SAMPLE and not part.isascii():
            for line in part.splitlines(keepends=True):
                if not line.isascii() and len(self._sample) < _SAMPLE:
                    self._sample += line[:2000]

    @property
    def is_workbook(self) -> bool:
        """Whether it is an Excel workbook, by its first bytes."""
        return self._head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"))

    @property
    def format(self) -> Format:
        """How the file is written; raises NotASheet. For a workbook, see `open_workbook`."""
        head = bytes(self._head)
        if not head.strip(b"\x00\xff\xfe\xef\xbb\xbf \r\n\t"):
            raise NotASheet("the file is empty: save or export it once more and send that")
        if self.is_workbook:
            return Format(kind="excel")
        encoding = self._encoding(head)
        text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head)
        text = text[:-1] if text.endswith("\r") else text
        controls = sum(text.count(c) for c in "\x00\x01\x02\x03\x04\x05\x06\x07\x0e\x0f\x10\x11\x12")
        if controls > STRAY + len(text) // 100:
            raise NotASheet("this is neither CSV nor Excel: save it as .csv or .xlsx and send that")
        backslash = '\\"' in text and '""' not in text.replace('\\"', "")
        declared = re.match(r'\ufeff?"?sep=(.)"?\r?\n?', text)
        if declared:  # what Excel itself writes and understands
            return Format(
                kind="csv", encoding=encoding, separator=declared.group(1), backslash=backslash, skip=1
            )
        how = Format(
            kind="csv",
            encoding=encoding,
            separator=_separator(text, backslash, len(head) == self.size),
            backslash=backslash,
        )
        first = _records(iter(text.splitlines(keepends=True)), how)
        return structs.replace(how, skip=_preamble(line.cells for line in _first(first, MOST_ABOVE)))

    def as_text(self) -> str:
        """The encoding in which it is read as text, line by line; raises NotASheet, also for a workbook."""
        how = self.format
        if how.kind != "csv":
            raise NotASheet("this is a workbook: save the sheet as CSV and send that")
        return "utf-8-sig" if how.encoding == "utf-8" else how.encoding

    def _encoding(self, head: bytes) -> str:
        for mark, name in (
            (codecs.BOM_UTF8, "utf-8-sig"),
            (codecs.BOM_UTF32_LE, "utf-32"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        ):
            if head.startswith(mark):
                return name
        zeros = _Zeros(even=head[::2].count(0), odd=head[1::2].count(0))
        if zeros.odd > len(head) // 5 and not zeros.even:
            return "utf-16-le"
        if zeros.even > len(head) // 5 and not zeros.odd:
            return "utf-16-be"
        if self._utf8 is not None:
            try:
                self._utf8.decode(b"", final=True)
            except UnicodeDecodeError:  # it ends in the middle of a character
                pass
            else:
                return "utf-8"
        sample = bytes(self._sample)
        as_utf8 = sample.decode("utf-8", "replace")
        wrong = as_utf8.count("\ufffd")
        if wrong * 20 <= sum(not c.isascii() for c in as_utf8):
            return "utf-8"  # with a mistake here and there
        return max(_EIGHT_BIT, key=lambda name: _plausible(sample, name))


def _plausible(sample: bytes, encoding: str) -> int:
    """How much the text looks like a language of Europe when it is read this way: letters that some language has, most of
    them of one, and no word of two scripts."""
    text = sample.decode(encoding, "replace")
    score, seen = 0, Counter[str]()
    for place, character in enumerate(text):
        if character.isascii():
            continue
        if character in _LETTERS:
            around = text[place - 1 : place] + text[place + 1 : place + 2]
            mixed = character > "\u0370" and any(c.isascii() and c.isalpha() for c in around)
            score += -3 if mixed else 3
            seen[character] += not mixed
        elif character == "\ufffd" or "\x80" <= character < "\xa0":
            score -= 9
        elif not character.isalpha():  # a sign in the middle of a word is no sign
            inside = text[place - 1 : place].isalpha() and text[place + 1 : place + 2].isalpha()
            score += -6 if inside else 1 if character in _SIGNS else -3
        else:
            score -= 2
    return score + 2 * max(sum(seen[letter] for letter in alphabet) for alphabet in _ALPHABETS)


def _preamble(rows: Iterable[list[str]]) -> int:
    """How many rows stand above the header, as reports have them: a title, a date. 0 where the first rows show none."""
    known = words.headers()
    for number, cells in enumerate(rows):
        filled = [cell for cell in cells if cell.strip()]
        if len(filled) > 1:
            named = sum(known.get(words.key(cell)) is not None for cell in filled)
            return number if named > 1 else 0
    return 0


def _separator(text: str, backslash: bool, whole: bool) -> str:
    best, found = (0.0, 0), ","
    lines = text.splitlines(keepends=True)
    if not whole and len(lines) > 1:
        lines.pop()
    for separator in SEPARATORS:
        how = Format(kind="csv", separator=separator, backslash=backslash)
        widths = Counter(len(line.cells) for line in _first(_records(iter(lines[:400]), how), 100))
        if not widths:
            continue
        width, rows = max(widths.items(), key=lambda item: (item[1] * (item[0] > 1), item[0]))
        if width > 1 and (score := (round(rows / sum(widths.values()), 1), width)) > best:
            best, found = score, separator
    return found


def _first(lines: Iterator[Line], most: int) -> Iterator[Line]:
    for _, line in zip(range(most), lines, strict=False):
        yield line


# ------------------------------------------------------------------------------------------------------ reading


def read_csv(parts: Iterable[bytes], how: Format) -> Iterator[Line]:
    """Yields the rows of a CSV file that comes in parts; empty rows are left out (but counted). Never raises for what is
    in the file: characters that are none become U+FFFD, rows that cannot be read are told as broken."""
    records = _records(_lines(parts, how.encoding), how)
    for line in records:
        if line.number > how.skip and (line.broken or any(line.cells)):
            yield line


def _lines(parts: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Yields lines with their ends; one that is too long comes in pieces of which only the last ends."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    rest = ""
    for part in parts:
        text = rest + decoder.decode(part)
        held = text.endswith("\r")  # its \n may come with the next part
        *whole, rest = _split(text[:-1] if held else text)
        rest += "\r" if held else ""
        yield from whole
        while len(rest) > LONGEST_LINE * 2:
            yield rest[: LONGEST_LINE * 2]
            rest = rest[LONGEST_LINE * 2 :]
    *whole, rest = _split(rest + decoder.decode(b"", final=True))
    yield from whole
    if rest:
        yield rest


def _split(text: str) -> list[str]:
    """Lines with their ends, the last without; only \\n, \\r\\n and \\r end a line."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + lines[-1:]


def _records(lines: Iterator[str], how: Format) -> Iterator[Line]:
    separator = how.separator
    again: deque[str] = deque()
    number = 0
    taken: list[str] = []
    ended = False

    def following() -> Iterator[str]:
        nonlocal ended
        while True:
            line = again.popleft() if again else next(lines, None)
            size = sum(len(one) for one in taken)
            if line is None or (taken and (len(taken) >= MOST_LINES or size > LONGEST_LINE)):
                if line is not None:
                    again.appendleft(line)
                ended = True
                return
            taken.append(line)
            yield line

    while True:
        line = again.popleft() if again else next(lines, None)
        if line is None:
            return
        number += 1
        if len(line) > LONGEST_LINE:
            while not line.endswith("\n") and (more := next(lines, None)) is not None:
                line = more
            yield Line(number, [], "the row is too long")
            continue
        if '"' not in line:
            yield _checked(number, line.removesuffix("\n").split(separator))
            continue
        again.appendleft(line)
        taken, ended = [], False
        reader = csv.reader(
            following(),
            delimiter=separator,
            doublequote=not how.backslash,
            escapechar="\\" if how.backslash else None,
        )
        try:
            cells = next(reader)
        except (csv.Error, StopIteration):
            cells, ended = [], True
        if ended:  # the quote is never closed: this line alone is at fault
            again.extendleft(reversed(taken[1:]))
            first = taken[0].removesuffix("\n") if taken else ""
            yield Line(
                number, first.replace('"', "").split(separator)[:MOST_COLUMNS], "a quote is not closed"
            )
        else:
            yield _checked(number, cells)


def _checked(number: int, cells: list[str]) -> Line:
    if len(cells) > MOST_COLUMNS:
        return Line(number, cells[:MOST_COLUMNS], f"more than {MOST_COLUMNS} cells")
    return Line(number, cells)


# ------------------------------------------------------------------------------------------------------ workbooks


def open_workbook(path: Path, sheet: str = "") -> tuple[Format, Iterator[list[str]]]:
    """Returns the format and the rows of a workbook's sheet, by default of the first that is visible and not empty.

    Raises NotASheet. The whole sheet is held in memory while it is read: do it in a process of its own.
    """
    import python_calamine as calamine

    _refuse_bomb(path)
    try:
        book = calamine.load_workbook(str(path))
        visible = [
            about.name
            for about in book.sheets_metadata
            if about.visible == calamine.SheetVisibleEnum.Visible
            and about.typ == calamine.SheetTypeEnum.WorkSheet
        ]
        if sheet and sheet not in book.sheet_names:
            raise NotASheet(f"there is no sheet of this name; there are {', '.join(visible[:20])}")
        for name in [sheet] if sheet else visible:
            found = book.get_sheet_by_name(name)
            if found.height or sheet:
                rows = _rows_of(found)
                above = list(islice(rows, MOST_ABOVE))
                how = Format(kind="excel", sheet=name, sheets=tuple(visible[:100]), skip=_preamble(above))
                return how, chain(above, rows)
    except calamine.PasswordError:
        raise NotASheet("the workbook has a password: save it without one") from None
    except (calamine.CalamineError, calamine.XmlError, calamine.ZipError, OSError) as error:
        raise NotASheet("the workbook is damaged: open it, save it anew and send that") from error
    raise NotASheet("all sheets of the workbook are empty: is it the right file?")


def _refuse_bomb(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as packed:
        entries = packed.infolist()
    if len(entries) > 10_000 or sum(entry.file_size for entry in entries) > LARGEST_WORKBOOK:
        raise NotASheet("the workbook is too large: save the sheet as CSV and send that")


def _rows_of(sheet: Any) -> Iterator[list[str]]:
    for _ in range((sheet.start or (0, 0))[0]):
        yield []
    for row in sheet.iter_rows():
        yield [_text(value) for value in row]


def _text(value: Any) -> str:
    """A cell's value as a person would have typed it."""
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e18:
            return str(int(value))
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return str(value)


def as_csv(rows: Iterable[list[str]]) -> Iterator[bytes]:
    """Yields rows as CSV in parts, in UTF-8 and with commas: what `read_csv` reads with the usual format."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        if row:
            writer.writerow(row)
        else:
            text.write("\n")
        if text.tell() >= PART:
            yield text.getvalue().encode("utf-8", "replace")
            text.seek(0)
            text.truncate()
    if text.tell():
        yield text.getvalue().encode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------------ giving back

_PHONE = re.compile(r"\+[0-9 ()./-]*")


def safe(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula. Source: OWASP, CSV injection. `unsafe` takes it back.

    Phone numbers stay as they are: a plus and digits can call nothing.
    """
    if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠") and not _PHONE.fullmatch(cell):
        return "'" + cell
    return cell


def unsafe(cell: str) -> str:
    """A cell as it was before `safe`; spreadsheets also keep numbers as text by this sign."""
    return (
        cell[1:]
        if cell[:1] == "'" and cell[1:2] in ("=", "+", "-", "@", "＝", "＋", "－", "＠", "0")
        else cell
    )


def csv_line(cells: Iterable[str], separator: str = ",") -> bytes:
    """One line of a CSV that a spreadsheet may open: no cell of it is a formula."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerow(safe(cell) for cell in cells)
    return text.getvalue().encode("utf-8", "replace")
