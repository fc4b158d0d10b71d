"""Pages of long lists by keyset: a cursor says after which row to go on, so that no page is skipped or repeated."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from cti.json_in import read_json

T = TypeVar("T")

MOST = 200
"""Rows of the longest page."""


class WrongCursor(ValueError):
    """The cursor does not come from this list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Rows in order; `cursor` goes on after them, None at the end."""

    items: tuple[T, ...]
    cursor: str | None


def cursor_of(*key: str | int) -> str:
    """Makes an opaque cursor of a row's sort key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def key_of(cursor: str, *kinds: type) -> tuple[str | int, ...]:
    """Reads a cursor back; raises WrongCursor unless it holds values of these kinds."""
    try:
        if len(cursor) > 1000:
            raise WrongCursor("the cursor is too long")
        key = read_json(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        raise WrongCursor("the cursor cannot be read") from None
    if not isinstance(key, list) or len(key) != len(kinds):
        raise WrongCursor("the cursor is of another list")
    if any(type(value) is not kind for value, kind in zip(key, kinds, strict=True)):
        raise WrongCursor("the cursor is of another list")
    if any("\0" in value if isinstance(value, str) else not 0 <= value < 1 << 63 for value in key):
        raise WrongCursor("the cursor cannot be read")
    return tuple(key)
