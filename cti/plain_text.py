"""Text made harmless to carry: no control characters, a bounded length. It escapes nothing; whoever shows the text
escapes it for the place where it is shown. What comes from outside is cleaned, what people write to one another is refused.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, invisible direction marks (they can make a name read backwards), halves of surrogate pairs (no UTF-8)."""

_KEPT = "\u200d"  # joins emoji and letters of some scripts; it can turn nothing round


def plain(text: str | None, limit: int) -> str:
    """Returns `text` in one line without control characters, at most `limit` characters; "" for None. Never raises.

    Only the first `limit * 4` characters are looked at, so a text of any length costs the same.
    """
    if not text:
        return ""
    head = text[: limit * 4]
    if head.isascii() and head.isprintable():
        return head.strip()[:limit]
    kept = [
        " " if character in "\t\r\n\x0b\x0c\x85\u2028\u2029" else character
        for character in head
        if character in "\t\r\n\x0b\x0c\x85\u2028\u2029"
        or character == _KEPT
        or unicodedata.category(character) not in _DROPPED
    ]
    return " ".join("".join(kept).split())[:limit]


def plain_lines(text: str, limit: int) -> str:
    """As `plain`, but line ends stay (as \\n): for notes that a person typed."""
    lines = text[: limit * 4].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    cleaned = (
        "".join(c for c in line if c in "\t" + _KEPT or unicodedata.category(c) not in _DROPPED).rstrip()
        for line in lines
    )
    return "\n".join(cleaned).strip()[:limit]


def _plain(text: str) -> str:
    """Text as people write it: no control characters but line breaks and tabs, which could disturb a screen."""
    if any(not character.isprintable() and character not in "\n\t\u200d" for character in text):
        raise ValueError("plain text only: no control characters")
    return text


Plain = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_plain)]
