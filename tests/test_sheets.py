"""Files as people have them: separators, encodings, quotes, broken rows, Excel; and cells that want to be formulas."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from dialer.call_lists.sheets import (
    LONGEST_LINE,
    MOST_COLUMNS,
    Format,
    Line,
    NotASheet,
    Sniffer,
    as_csv,
    csv_line,
    open_workbook,
    read_csv,
    safe,
    unsafe,
)


def parts(content: bytes, size: int) -> Iterator[bytes]:
    for place in range(0, len(content), size):
        yield content[place : place + size]


def sniffed(content: bytes, size: int = 5) -> Format:
    sniffer = Sniffer()
    for part in parts(content, size):
        sniffer.feed(part)
    return sniffer.format


def rows(content: bytes, size: int = 3) -> list[Line]:
    return list(read_csv(parts(content, size), sniffed(content)))


GERMAN = "Name;Telefon;Ort\r\nJürgen Groß;030 1234567;Köln\r\nIngeborg Häßler;0171 5550199;Übersee\r\n"
CZECH = "Jméno;Telefon\nJiří Dvořák;601 123 456\nZdeněk Čapek;601 123 457\n"
HUNGARIAN = "Név;Telefon\nŐry Ödön;06 20 123 4567\nSzűcs Győző;06 20 123 4568\n"
TURKISH = "Ad Soyad;Telefon;Şehir\nAyşe Yılmaz;0532 123 45 67;İstanbul\n"
RUSSIAN = "Имя;Телефон;Город\nИван;+7 495 123-45-67;Москва\n"
GREEK = "Όνομα;Τηλέφωνο\nΓιώργος;2101234567\n"
MIXED = "Name;Telefon\nMüller;030 1234567\nSøren;030 1234568\nFrançois;030 1234569\nPeña;030 1234560\n"
POLISH = "Imię;Telefon\nŁukasz Żądło;601 234 567\nŚwiętosława Król;602 234 567\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((GERMAN, e) for e in ("utf-8", "utf-8-sig", "cp1252", "latin-1", "cp850", "mac_roman")),
        *((GERMAN, e) for e in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        *((POLISH, e) for e in ("utf-8", "cp1250", "iso8859-2", "utf-16")),
        *((CZECH, e) for e in ("cp1250", "iso8859-2", "cp852")),
        *(
            (HUNGARIAN, "cp1250"),
            (TURKISH, "cp1254"),
            (RUSSIAN, "cp1251"),
            (GREEK, "cp1253"),
            (MIXED, "cp1252"),
        ),
    ],
)
def test_an_encoding_is_found_whatever_the_parts_the_file_comes_in(text: str, encoding: str) -> None:
    content = text.encode(encoding)
    expected = [line.split(";") for line in text.splitlines()]
    for size in (1, 2, 7, 1 << 20):
        assert [line.cells for line in rows(content, size)] == expected


def test_letters_that_come_late_in_the_file_decide_too() -> None:
    content = b"Name;Tel\n" + b"Smith;1\n" * 60_000 + "Jürgen Köhler;2\n".encode("cp1252")
    assert sniffed(content, 1 << 16).encoding == "cp1252"
    assert rows(content, 1 << 16)[-1].cells == ["Jürgen Köhler", "2"]


def test_utf8_with_a_broken_byte_stays_utf8() -> None:
    content = ("Jürgen;Köln\n" * 50).encode() + b"\xff;x\n"
    assert sniffed(content).encoding == "utf-8"
    assert rows(content)[-1].cells == ["\ufffd", "x"]


@pytest.mark.parametrize("separator", list(",;\t|"))
def test_a_separator_is_found(separator: str) -> None:
    lines = [["Name", "Betrag, netto; brutto", "Telefon"], ["A", "1.234", "030"], ["B", "2", "031"]]
    text = "".join(
        separator.join(f'"{c}"' if set(c) & set(",;") else c for c in line) + "\n" for line in lines
    )
    assert [line.cells for line in rows(text.encode())] == lines


def test_what_stands_above_the_header_is_passed_over() -> None:
    above = b"Kundenliste Mai 2026\n\n;;Stand 24.05.\n"
    table = b"Name;Ort;Telefon\nGro\xc3\x9f;Ulm;0731 1234567\nKlein;Ulm;0731 1234568\n"
    assert sniffed(above + table).skip == 3
    found = rows(above + table)
    assert [(line.number, line.cells[0]) for line in found] == [(4, "Name"), (5, "Groß"), (6, "Klein")]
    for plain in (table, b"0731 1234567\n0731 1234568\n", b";;0731 1234567\nGro\xc3\x9f;Ulm;0731 1234568\n"):
        assert sniffed(plain).skip == 0


def test_a_separator_that_is_said_counts_and_one_column_needs_none() -> None:
    assert [line.cells for line in rows(b"sep=:\r\na:b\r\n1,2:3,4\r\n")] == [["a", "b"], ["1,2", "3,4"]]
    assert [line.cells for line in rows(b"+441234567890\n+441234567891")] == [
        ["+441234567890"],
        ["+441234567891"],
    ]


def test_quotes_line_breaks_and_line_ends_of_every_kind() -> None:
    content = b'a;b\r"x ""y""";"1\r\n2"\n\n5" pipe;z\r\n"last";'
    assert rows(content) == [
        Line(1, ["a", "b"]),
        Line(2, ['x "y"', "1\n2"]),
        Line(4, ['5" pipe', "z"]),  # an empty row counts, as in a spreadsheet
        Line(5, ["last", ""]),
    ]


def test_backslashes_before_quotes_as_databases_write_them() -> None:
    assert rows(b'"a \\"b\\"",1\n"c",2\n')[0].cells == ['a "b"', "1"]


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    content = b'n,t\nA,"open\n' + b"".join(b"R%d,%d\n" % (n, n) for n in range(2000))
    found = rows(content, 1000)
    assert found[1] == Line(2, ["A", "open"], "a quote is not closed")
    assert [line.cells for line in found[2:]] == [[f"R{n}", str(n)] for n in range(2000)]
    assert found[-1].number == 2002


def test_rows_without_end_and_with_too_many_cells_are_told_and_skipped() -> None:
    content = b"a,b\n" + b"x" * (LONGEST_LINE * 5) + b"\n" + b"," * MOST_COLUMNS + b"\nc,d\n"
    found = rows(content, 1 << 15)
    assert [(line.number, line.broken) for line in found[1:]] == [
        (2, "the row is too long"),
        (3, f"more than {MOST_COLUMNS} cells"),
        (4, ""),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\r\n ", "empty"),
        (b"%PDF-1.7\x00\x01\x02\x03\x00" * 20, "neither CSV nor Excel"),
    ],
)
def test_what_is_no_table_is_refused_with_what_to_do(content: bytes, says: str) -> None:
    with pytest.raises(NotASheet, match=says):
        _ = sniffed(content)


# ------------------------------------------------------------------------------------------------------ Excel


def workbook(path: Path, sheets: dict[str, list[list[object]]], hidden: str = "") -> Path:
    """An .xlsx as small as one can be."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        names = list(sheets)
        overrides = "".join(
            f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType='
            '"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
            for n in range(1, len(names) + 1)
        )
        packed.writestr(
            "[Content_Types].xml",
            '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType='
            '"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
            + overrides
            + "</Types>",
        )
        relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
        packed.writestr(
            "_rels/.rels",
            '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            f'<Relationship Id="r1" Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        packed.writestr(
            "xl/_rels/workbook.xml.rels",
            '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            + "".join(
                f'<Relationship Id="r{n}" Type="{relations}/worksheet" Target="worksheets/sheet{n}.xml"/>'
                for n in range(1, len(names) + 1)
            )
            + "</Relationships>",
        )
        shown = {name: ' state="hidden"' if name == hidden else "" for name in names}
        listed = "".join(
            f'<sheet name="{escape(name)}" sheetId="{n}" r:id="r{n}"{shown[name]}/>'
            for n, name in enumerate(names, 1)
        )
        packed.writestr(
            "xl/workbook.xml",
            '<?xml version="1.0"?><workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" '
            f'xmlns:r="{relations}"><sheets>{listed}</sheets></workbook>',
        )
        for n, name in enumerate(names, 1):
            data = "".join(
                f'<row r="{at}">' + "".join(_cell(value) for value in row) + "</row>"
                for at, row in enumerate(sheets[name], 1)
            )
            packed.writestr(
                f"xl/worksheets/sheet{n}.xml",
                '<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
                f"<sheetData>{data}</sheetData></worksheet>",
            )
    return path


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return f'<c t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int | float):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'


def test_a_workbook_is_read_as_it_was_typed(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "list.xlsx",
        {
            "secret": [["do not read"]],
            "empty": [],
            "Kunden": [["Name", "Telefon", "n"], ["Jürgen", 4915112345678, 1.5], ["", "030 12", True]],
        },
        hidden="secret",
    )
    how, found = open_workbook(path)
    assert (how.kind, how.sheet, how.sheets) == ("excel", "Kunden", ("empty", "Kunden"))
    table = list(found)
    assert table == [["Name", "Telefon", "n"], ["Jürgen", "4915112345678", "1.5"], ["", "030 12", "true"]]
    again = list(read_csv(as_csv(table), Format(kind="csv")))
    assert [line.cells for line in again] == table
    with pytest.raises(NotASheet, match="no sheet of this name; there are empty, Kunden"):
        open_workbook(path, "Sheet1")


def test_workbooks_that_cannot_be_read_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = workbook(tmp_path / "empty.xlsx", {"a": []})
    with pytest.raises(NotASheet, match="empty"):
        open_workbook(empty)
    whole = workbook(tmp_path / "whole.xlsx", {"a": [["x"] * 50] * 50}).read_bytes()
    (tmp_path / "half.xlsx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NotASheet, match="damaged"):
        open_workbook(tmp_path / "half.xlsx")
    monkeypatch.setattr("dialer.call_lists.sheets.LARGEST_WORKBOOK", 10_000)
    workbook(tmp_path / "bomb.xlsx", {"a": [["0"] * 100] * 100})
    with pytest.raises(NotASheet, match="too large"):
        open_workbook(tmp_path / "bomb.xlsx")


# ------------------------------------------------------------------------------------------------------ giving back


@pytest.mark.parametrize(
    "cell", ["=1+1", "@SUM(A1)", "-2+3+cmd|' /C calc'!A0", "+A1", "\t=1", "\r=1", "＝1", "+1+cmd|x"]
)
def test_no_cell_that_is_given_back_is_a_formula(cell: str) -> None:
    assert safe(cell) == "'" + cell
    written = io.StringIO(csv_line([cell, "x"]).decode(), newline="").read()
    assert not written.lstrip('"').startswith(tuple("=+-@\t\r＝"))


@pytest.mark.parametrize("cell", ["+44 20 7946 0018", "+1 (212) 555-0100", "Jürgen", "", "'tis", "030/123"])
def test_phone_numbers_and_names_stay_as_they_are(cell: str) -> None:
    assert safe(cell) == cell
    assert unsafe(safe(cell)) == cell


def test_what_was_made_safe_is_read_back_as_it_was() -> None:
    for cell in ("=1+1", "-5", "@home", "+A1"):
        assert unsafe(safe(cell)) == cell
    assert unsafe("'0301234567") == "0301234567"  # a spreadsheet's sign for a number kept as text
