"""JSON from outside: what is taken for JSON, and what well-formed JSON the server still refuses. No I/O."""

from __future__ import annotations

import re
from typing import Any

import msgspec

DEEPEST = 32
"""Levels of lists and objects that a command or a request may be nested."""

LARGEST = 1 << 64
"""Whole numbers stay below it, either way."""

_MANY_DIGITS = re.compile(rb"\d{19}")


def read_json(text: bytes) -> Any:
    """Returns the value of a JSON text (RFC 8259); raises ValueError, which says what is wrong with it.

    Refused as well: NaN, numbers too large for a double or, if whole, for 64 bits, lone surrogates, nesting without end.
    """
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if _MANY_DIGITS.search(text) and _too_large(value):
        raise ValueError("a whole number is too large")
    return value


def _too_large(value: Any) -> bool:
    rest = [value]
    while rest:
        match rest.pop():
            case dict() as inner:
                rest += inner.values()
            case list() as inner:
                rest += inner
            case int() as number if abs(number) >= LARGEST:
                return True
    return False


def too_deep(value: Any, levels: int = DEEPEST) -> bool:
    """Whether lists and objects are nested more than `levels` deep."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True


def has_nul(value: Any) -> bool:
    """Whether any text in it holds U+0000, which PostgreSQL's text cannot keep. `value` must not be too deep."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or has_nul(inner) for key, inner in value.items())
    if isinstance(value, list):
        return any(has_nul(inner) for inner in value)
    return False
