"""Quotas and recycling rules of a list as they are typed at the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_QUOTA = re.compile(r"(attempts|connected|disposition:(?P<word>.+))=(?P<most>[0-9]{1,8})(?P<day>/day)?")
_RULE = re.compile(r"(?P<outcome>[a-z_]+)=(?P<minutes>[0-9]{1,6}(,[0-9]{1,6})*)?(\*(?P<most>[0-9]{1,2}))?")


class NotUnderstood(ValueError):
    """What was typed is no rule; the message says how to write it."""


def quotas_said(said: Sequence[str]) -> list[dict[str, Any]]:
    """Returns `connected=50/day`, `attempts=1000`, `disposition:Sale=20` as quotas; nothing for "". Raises NotUnderstood."""
    found = []
    for text in said:
        if not text:
            continue
        match = _QUOTA.fullmatch(text)
        if match is None:
            raise NotUnderstood(
                f"--quota {text}: write it like connected=50/day, attempts=1000 or disposition:Sale=20"
            )
        counts = "disposition" if match["word"] else match[1]
        found.append(
            {
                "counts": counts,
                "disposition": match["word"] or "",
                "per": "day" if match["day"] else "total",
                "most": int(match["most"]),
            }
        )
    return found


def recycling_said(said: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rules with those that were said: `busy=15,30*4` (minutes after the first, the second ..., four times at
    most), `fax=never`, `busy=` as the campaign has it. Raises NotUnderstood."""
    rules = dict(before)
    for text in said:
        outcome, _, rule = text.partition("=")
        if rule == "never":
            rules[outcome] = {"after_minutes": [1], "at_most": 0}
            continue
        match = _RULE.fullmatch(text)
        if match is None or (match["most"] and not match["minutes"]):
            raise NotUnderstood(
                f"--recycling {text}: write it like busy=15,30 (minutes), busy=15,30*4 (four times at most), busy=never, or "
                "busy= for the campaign's rule"
            )
        if match["minutes"] is None:
            rules.pop(outcome, None)
            continue
        made: dict[str, Any] = {"after_minutes": [int(one) for one in match["minutes"].split(",")]}
        rules[outcome] = made | ({"at_most": int(match["most"])} if match["most"] else {})
    return rules
