"""A contact of a list as whoever decides on a call sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
