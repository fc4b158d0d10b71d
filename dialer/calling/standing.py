"""Why a contact is not to be called now as its list has it, in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """Why one contact that was asked for cannot be called now: `code` for programs, `says` for people."""

    code: str
    says: str


NO_CONTACT = NotClaimed("no_such_contact", "there is no such contact on a list that you may call")
BEING_CALLED = NotClaimed(
    "being_called", "somebody is calling this contact at this moment: choose another one"
)
QUOTA_REACHED = "a quota of the list is reached, or would be by the calls under way"
STANDS_SO = {
    "in_hand": "is being called, or shown to somebody, at this moment",
    "done": "has been reached",
    "exhausted": "all attempts are used up",
    "blocked": "must not be called",
    "skipped": "an agent did not want to call",
}
"""State of a contact that is not open → in words."""


def stands(state: str, why: str) -> str:
    """Why a contact in this state is not called; "" for an open one."""
    said = STANDS_SO.get(state, "")
    return f"{said}: {why}" if said and why else said


def waits(row: Any, now: datetime) -> str | None:
    """Why an open contact is not to be called yet; None if its time has come. `row`: why, not_before, quota_until."""
    quota, not_before = row["quota_until"], row["not_before"]
    if quota is not None and quota > now:
        return QUOTA_REACHED
    if not_before is None or not_before <= now:
        return None
    return f"not before {not_before:%Y-%m-%d %H:%M} UTC" + (f": {row['why']}" if row["why"] else "")


def why_not_open(row: Any) -> NotClaimed:
    """Why a contact could not be taken. `row`: its state and why, None if there is none."""
    if row is None:
        return NO_CONTACT
    if row["state"] in ("open", "in_hand"):  # open: another claim holds it just now
        return BEING_CALLED
    return NotClaimed("not_open", f"this contact cannot be called: {stands(row['state'], row['why'])}")
