"""What follows an attempt: the contact is done, or called again later, perhaps on another number, or used up. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dialer.attempts import Detail, Outcome
from dialer.management.settings import CampaignDisposition, CampaignSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What becomes of the contact: its state as in `list_contacts`, why, and from when it may be called again. `turn` counts
    on to the number that is next; `dead` is a number that is none."""

    state: str
    why: str = ""
    not_before: datetime | None = None
    turn: int = 0
    dead: str = ""


FINAL = frozenset({Outcome.CONNECTED})
"""Outcomes after which the contact is done, whatever the settings say."""


MESSAGE_LEFT = "message_left"
"""What a machine that was left a message is called where rules are kept, instead of `machine`."""

HEARD = frozenset({Detail.LEFT, Detail.UNSEEN})
"""Details of a message that was left, or may have been: nobody is called twice for the same message by mistake."""


def kind_of(outcome: str, detail: str) -> str:
    """By which name the rule for an attempt is kept: its outcome, or `message_left`."""
    return MESSAGE_LEFT if outcome == Outcome.MACHINE and detail in HEARD else outcome


def alive(e164: str, others: Sequence[str], dead: Sequence[str]) -> list[str]:
    """The contact's numbers that may be dialed, its own first."""
    return [number for number in dict.fromkeys((e164, *others)) if number not in dead]


def number_of_turn(e164: str, others: Sequence[str], dead: Sequence[str], turn: int) -> str:
    """The number that is next; the contact's own where none is left."""
    numbers = alive(e164, others, dead)
    return numbers[turn % len(numbers)] if numbers else e164


def said(
    settings: CampaignSettings,
    disposition: CampaignDisposition,
    *,
    turn: int,
    attempts: int,
    promised: bool,
    now: datetime,
) -> Next:
    """What follows what an agent has said of the talk, in place of what would follow its outcome. `promised`: somebody has
    promised the contact a call, and keeps that themselves."""
    told = f"said: {disposition.label}"
    match disposition.follows:
        case "do_not_call":
            return Next(state="blocked", why="asked not to be called again", turn=turn)
        case "again" if promised:
            return Next(state="done", why=f"{told}; a call is promised", turn=turn)
        case "again" if attempts >= settings.max_attempts:
            return Next(state="exhausted", why=f"{told}; {attempts} attempts made", turn=turn)
        case "again":
            not_before = now + timedelta(minutes=disposition.minutes)
            return Next(state="open", why=told, not_before=not_before, turn=turn)
    return Next(state="done", why=told, turn=turn)


def after(
    settings: CampaignSettings,
    outcome: Outcome,
    *,
    dialed: str,
    numbers: Sequence[str],
    turn: int,
    attempts: int,
    so_far: Mapping[str, int],
    now: datetime,
    alone: bool = False,
    detail: str = "",
    opted_out: bool = False,
) -> Next:
    """What follows this outcome of an attempt to `dialed`.

    `numbers`: those of the contact that are not known to be dead; `turn`: which one is next; `attempts`: made so far, this
    one included; `so_far`: how often each kind of outcome came about, this one included; `alone`: mode agentless; `detail`:
    what became of the message for a machine.
    """
    if opted_out:
        return Next(state="blocked", why="asked not to be called again", turn=turn)
    if outcome in FINAL or (alone and outcome is Outcome.ANSWERED):
        return Next(state="done", why="", turn=turn)
    kind = kind_of(outcome, detail)
    rule = settings.retry(kind)
    if rule is None and kind == MESSAGE_LEFT:
        return Next(state="exhausted", why="a message was left on the answering machine", turn=turn)
    if rule is None:
        return Next(state="done", why="", turn=turn)
    times = so_far.get(kind, 1)
    is_dead = outcome in (Outcome.INVALID_NUMBER, Outcome.FAX) and rule.at_most == 0
    left = [number for number in numbers if number != dialed] if is_dead else list(numbers)
    dead = dialed if is_dead else ""
    if not left:
        why = "no number left: " + (
            "no such number" if outcome is Outcome.INVALID_NUMBER else "a fax answers"
        )
        return Next(state="exhausted", why=why, turn=turn, dead=dead)
    if attempts >= settings.max_attempts:
        return Next(state="exhausted", why=f"{attempts} attempts made", turn=turn, dead=dead)
    if not is_dead and times >= rule.at_most:
        return Next(state="exhausted", why=f"{times} times {kind.replace('_', ' ')}", turn=turn)
    # A dead number leaves the round: the one after it has its place.
    onward = turn if is_dead else turn + (1 if rule.other_number and len(left) > 1 else 0)
    wait = rule.after_minutes[min(times, len(rule.after_minutes)) - 1]
    if (is_dead or onward != turn) and onward < len(left):
        wait = min(wait, OTHER_NUMBER_MINUTES)
    return Next(
        state="open", not_before=now + timedelta(minutes=wait), turn=onward % max(len(left), 1), dead=dead
    )


OTHER_NUMBER_MINUTES = 10
"""Minutes until another number of the same contact is tried, while the round through them is not complete."""
