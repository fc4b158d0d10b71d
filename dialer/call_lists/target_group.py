"""Customers by a saved query, as the source of a list: a narrow port to who keeps customers; their rows made a file."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol


class NoGroup(Exception):
    """There is no such target group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """One customer of a target group. `number`: how the account is called in the CRM; `phones` in E.164, the best first."""

    account: int
    number: str
    name: str
    phones: tuple[str, ...]
    country: str = ""
    zone: str = ""
    language: str = ""
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSize:
    """How many customers are in a group at this moment, how many of them have a phone, and how many numbers that are."""

    customers: int
    with_phone: int
    numbers: int


class TargetGroups(Protocol):
    """What knows target groups."""

    async def name(self, group: int) -> str:
        """What the group is called; raises NoGroup."""

    async def size(self, group: int) -> GroupSize:
        """How many are in it now; raises NoGroup."""

    def rows(self, group: int) -> AsyncIterator[list[TargetRow]]:
        """The customers of a group at this moment, in batches."""


DATA = ("city", "class", "email")
"""Custom fields that a contact from a target group has."""

COLUMNS = [
    "name",
    "phone",
    "person",
    "account",
    "country",
    "zone",
    "language",
    *(f"data:{key}" for key in DATA),
]


async def rows_of_group(groups: TargetGroups, group: int) -> tuple[AsyncIterator[bytes], list[str], str]:
    """A target group as a file in parts, what its columns mean, and the group's name; raises NoGroup."""
    return _parts(groups, group), list(COLUMNS), await groups.name(group)


def cells_of(row: TargetRow) -> list[str]:
    """A customer as a row of that file."""
    fields = (
        row.name,
        " ; ".join(row.phones),
        row.number,
        str(row.account),
        row.country,
        row.zone,
        row.language,
    )
    return [*fields, *(row.data.get(key, "") for key in DATA)]


async def _parts(groups: TargetGroups, group: int) -> AsyncIterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    async for rows in groups.rows(group):
        writer.writerows(cells_of(row) for row in rows)
        yield text.getvalue().encode("utf-8", "replace")
        text.seek(0)
        text.truncate()
    if text.tell():
        yield text.getvalue().encode("utf-8", "replace")
