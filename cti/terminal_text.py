"""Text from outside made harmless to a terminal: no escapes, no controls, nothing that turns the line round; and how wide
text is there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: object, limit: int = 2000, *, spaces: bool = False) -> str:
    """Returns `text` in one line of printable characters, at most `limit`; "" for None. Never raises.

    Runs of white space become one space unless `spaces` are to be kept. Characters that join or colour others (zero
    width joiners, variation selectors) go as well: terminals disagree about their width, and a table would tear.
    """
    if text is None:
        return ""
    head = str(text)[: limit * 4]
    if not (head.isascii() and head.isprintable()):
        head = "".join(_kept(character) for character in head)
    return (head if spaces else " ".join(head.split()))[:limit]


def _kept(character: str) -> str:
    if character in "\t\r\n\x0b\x0c\x85\u2028\u2029":
        return " "
    if "\ufe00" <= character <= "\ufe0f" or unicodedata.category(character) in _DROPPED:
        return ""
    return character


def fit(text: str, width: int) -> str:
    """Returns `text` cut to `width` terminal cells, the last being … where something was cut."""
    if width <= 0:
        return ""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Returns `text` cut or filled up with spaces to exactly `width` terminal cells."""
    shown = fit(text, width)
    space = " " * (width - cell_len(shown))
    return space + shown if right else shown + space


def columns(rows: Sequence[Sequence[str]], *, numbers_from: int | None = None) -> list[str]:
    """Returns rows as lines with their cells in columns, cleaned; from that column on, cells end below one another."""
    cleaned = [[plain(cell, 200) for cell in row] for row in rows]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*cleaned, strict=True)]
    first = len(widths) if numbers_from is None else numbers_from
    return [
        "  ".join(
            padded(cell, wide, right=n >= first)
            for n, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cleaned
    ]
