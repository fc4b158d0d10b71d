"""Lists in pages: a page's `next` is an opaque word that asks for the page after it."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.json_in import read_json
from cti.problems import Problem

T = TypeVar("T")
Cursor = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class Paging(BaseModel):
    """How much of a list, and after what."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=100, ge=1, le=500, description="at most so many items")
    cursor: Cursor | None = Field(default=None, description="`next` of the page before")


class Page(BaseModel, Generic[T]):
    """Part of a list. `next` is null on the last page."""

    items: list[T]
    next: str | None


def encode(key: Any) -> str:
    """Returns a key (numbers, texts, lists of them) as a cursor."""
    return urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode(cursor: str, *shape: type) -> Any:
    """Returns the key in a cursor, a list of values of these types, one value if one; raises a 422 problem."""
    try:
        key = read_json(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, UnicodeEncodeError):
        key = None
    values = key if len(shape) > 1 and isinstance(key, list) else [key]
    right = len(values) == len(shape) and all(
        type(value) is kind for value, kind in zip(values, shape, strict=True)
    )
    if not right or any(
        "\0" in value if isinstance(value, str) else abs(value) >= 1 << 63 for value in values
    ):
        raise Problem(422, "bad_cursor", "this cursor is not one of ours: begin again without one")
    return key


def page(items: Iterable[T], key: Callable[[T], str], asked: Paging) -> dict[str, Any]:
    """Returns one page of a list that is held in memory, ordered by `key`, which must be unique."""
    after = decode(asked.cursor, str) if asked.cursor else None
    ordered = sorted(items, key=key)
    rest = [item for item in ordered if after is None or key(item) > after]
    part = rest[: asked.limit]
    return {"items": part, "next": encode(key(part[-1])) if len(rest) > len(part) else None}
