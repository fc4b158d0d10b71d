"""A decision as the dialplan reads it: a few channel variables. The other half is extensions_cti_routing.conf.

Three lines of comma-parted words; the first one is set last, since the dialplan goes on as soon as it is there.
"""

from __future__ import annotations

import re

from routing.decide import Decision

ANYONE = 2_147_483_647
"""As QUEUE_MAX_PENALTY: no limit."""

_WORD = re.compile(r"[A-Za-z0-9_./&+@-]*", re.ASCII)


def variables(decision: Decision, ask: str) -> tuple[tuple[str, str], ...]:
    """Returns the variables (name, value) that answer question number `ask`, in the order in which to set them.

    Raises ValueError for a word that the dialplan could not take; rules that were checked have none.
    """
    first = f"CTI_ROUTE_{ask}"
    if decision.action == "default":
        return ((first, "default"),)
    to = {"queue": decision.queue, "place": decision.place, "voicemail": decision.voicemail}.get(
        decision.action, ""
    )
    levels, preferred, then = decision.levels, decision.preferred, decision.overflow
    what: tuple[object, ...] = (
        decision.action,
        to,
        decision.priority,
        levels.best if levels else 0,
        levels.worst if levels else ANYONE,
        levels.widen_every if levels else None,
        decision.seconds,
    )
    how: tuple[object, ...] = (
        preferred.queue if preferred else None,
        preferred.number if preferred else None,
        preferred.seconds if preferred else None,
        "&".join(decision.sounds),
        decision.place_in_queue,
        decision.wait_minutes,
        decision.language,
        "+".join((decision.entry, *decision.rules))[:200],
        decision.callback,
        decision.callback_within if decision.callback else None,
        1 if decision.callback and decision.callback_when_quiet else None,
    )
    after: tuple[object, ...] = ("", "", "", "")
    if then is not None:
        kind = (
            "queue" if then.queue else "place" if then.place else "voicemail" if then.voicemail else "sounds"
        )
        after = (kind, then.queue or then.place or then.voicemail, then.seconds, "&".join(then.sounds))
    return ((f"{first}B", _line(how)), (f"{first}C", _line(after)), (first, _line(what)))


def _line(words: tuple[object, ...]) -> str:
    told = ["" if word is None else str(word) for word in words]
    for word in told:
        if not _WORD.fullmatch(word):
            raise ValueError(f"{word!r} cannot be told to the dialplan")
    return ",".join(told)
