"""A contact of a list as whoever decides on a call sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One contact (`contact`: its id) of one list, and the number that would be dialed.

    `zones`: IANA names of every time zone that the number may lie in, empty where unknown; `country` ISO 3166-1, `region`
    ISO 3166-2 without the country, "" where unknown. `person` names one person over several numbers and rows; "" where
    only the number tells. `attempts` were made so far, on all its numbers.
    """

    contact: int
    list: int
    list_version: int
    e164: str
    zone_group: int
    country: str
    region: str
    zones: tuple[str, ...]
    name: str = ""
    person: str = ""
    language: str = ""
    account: int | None = None
    other_numbers: tuple[str, ...] = ()
    attempts: int = 0
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether there are other numbers: who it is counts over all of them, also where no customer number says so."""
        return bool(self.other_numbers)


def candidate_of(row: Any, e164: str) -> Candidate:
    """A row of `list_contacts` with `list_version` and its zone group's columns, for a call to that number."""
    data = msgspec.json.decode(row["data"])
    return Candidate(
        contact=row["id"],
        list=row["list_id"],
        list_version=row["list_version"],
        e164=e164,
        zone_group=row["zone_group"],
        country=row["country"],
        region=row["region"],
        zones=tuple(row["zones"]),
        name=row["name"],
        person=row["person"],
        language=row["language"],
        account=row["account_id"],
        other_numbers=tuple(row["other_numbers"]),
        attempts=row["attempts"],
        data={key: str(value) for key, value in data.items()} if isinstance(data, dict) else {},
    )
