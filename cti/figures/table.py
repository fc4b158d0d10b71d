"""Figures as a table: CSV for spreadsheets, one row for each item of a report, the same numbers as in JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from cti.figures.report import AgentFigures, QueueFigures, Resolution, Stay, TeamFigures, WorkFigures

Row = QueueFigures | AgentFigures | TeamFigures | WorkFigures


_OF_A_REASON = {
    "": "lasted",
    " times": "times",
    " over_limit": "over_limit",
    " over_limit_lasted": "over_limit_lasted",
}
_NO_STAY = Stay(times=0, lasted=0.0, over_limit=0, over_limit_lasted=0.0)


def csv_of(items: Sequence[Row], kind: type[Row]) -> str:
    """Returns the items as CSV (RFC 4180, first the names). Reasons and resolution are columns of their own; what cannot be
    told is empty. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    reasons = sorted({reason for item in items for reason in getattr(item, "reasons", ())})
    out = io.StringIO()
    write = csv.writer(out)
    write.writerow(_text(name) for name in _names(kind, reasons))
    for item in items:
        write.writerow(_text(value) for value in _values(item, reasons))
    return out.getvalue()


_OF_PEOPLE = (
    *("handled", "average_handle_time", "not_answered"),
    *("logged_on", "occupancy", "over_limit", "over_limit_lasted"),
)

_IN_SHORT = {
    QueueFigures: [
        "queue",
        "offered",
        "answered",
        "abandoned",
        "service_level",
        "average_speed_of_answer",
        "average_handle_time",
    ],
    AgentFigures: ["agent", *_OF_PEOPLE],
    WorkFigures: [
        *("queue", "kind", "brought", "open", "overdue", "done", "service_level"),
        *("average_time_to_begin", "average_handle_time"),
    ],
    TeamFigures: ["team", "agents", *_OF_PEOPLE],
}


def lines_of(items: Sequence[Row], kind: type[Row]) -> list[str]:
    """Returns the main figures as lines for people, in columns; nothing when there are none."""
    if not items:
        return []
    names = _IN_SHORT[kind]
    told = [["from", *(name.replace("average_", "").replace("_", " ") for name in names)]]
    for item in items:
        told.append(
            [item.start.strftime("%Y-%m-%d %H:%M"), *(_short(name, getattr(item, name)) for name in names)]
        )
    widths = [max(len(row[column]) for row in told) for column in range(len(told[0]))]
    return [
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in told
    ]


def _short(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("service_level", "occupancy"):
        return f"{value:.0%}"
    return f"{value:.0f} s" if isinstance(value, float) else str(value)


def _names(kind: type[Row], reasons: Iterable[str]) -> list[str]:
    names: list[str] = []
    for each in fields(kind):
        if each.name == "reasons":
            names += [f"not_ready {reason}{what}" for reason in reasons for what in _OF_A_REASON]
        elif each.name == "first_call_resolution":
            names += ["first_call_contacts", "first_call_resolved", "first_call_resolution"]
        else:
            names.append(each.name)
    return names


def _values(item: Row, reasons: Iterable[str]) -> list[Any]:
    values: list[Any] = []
    for each in fields(item):
        value = getattr(item, each.name)
        if each.name == "reasons":
            for stay in (value.get(reason, _NO_STAY) for reason in reasons):
                values += [getattr(stay, name) for name in _OF_A_REASON.values()]
        elif isinstance(value, Resolution):
            values += [value.contacts, value.resolved, value.rate]
        else:
            values.append(value)
    return values


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")  # as JSON has it
    if isinstance(value, str) and value[:1] in "=+-@\t\r":
        return "'" + value if value else value
    return value
