"""Mailboxes that rules name, looked for at the PBX before the rules become active."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from cti.ami import ActionRefused, AmiError
from cti.ami_events import fields_of
from routing.document import RulesDoc, TargetDoc, WrongRules

Query = Callable[[str], Awaitable[Sequence[bytes]]]

LIMIT = 2.0
"""Seconds that a PBX has to tell its mailboxes; one that does not is not asked to."""

_UNKNOWN_ACTION = re.compile("invalid/unknown command|unknown", re.IGNORECASE)


class Mailboxes:
    """Asks the PBXs that are connected."""

    def __init__(self, query: Mapping[str, Query]) -> None:
        self._query = query

    async def check(self, doc: RulesDoc) -> None:
        """Raises WrongRules for a mailbox that a PBX cannot have or does not have. What a PBX out of reach has is not known
        and passes: the dialplan looks again, and a call for a mailbox that is not there goes its default way."""
        wanted = dict(_named(doc))
        if not wanted:
            return
        complaints: list[tuple[str, str]] = []
        for pbx in self._query:
            there = await self._at(pbx)
            for where, mailbox in wanted.items():
                if there is None or mailbox in there:
                    continue
                if there == frozenset(("no module",)):
                    what = f"{pbx} has no voicemail: load app_voicemail.so in modules.conf, or name a place of [cti-places]"
                else:
                    what = (
                        f"{pbx} has no mailbox {mailbox}: add it to voicemail.conf, then `voicemail reload`"
                    )
                complaints.append((where, what))
        if complaints:
            raise WrongRules(complaints)

    async def _at(self, pbx: str) -> frozenset[str] | None:
        """The mailboxes of a PBX; {"no module"} where it has no voicemail, None where it cannot be asked."""
        try:
            async with asyncio.timeout(LIMIT):
                rows = [fields_of(row) for row in await self._query[pbx]("VoicemailUsersList")]
        except ActionRefused as error:
            said = str(error).lower()
            if "no voicemail users" in said:
                return frozenset()
            return frozenset(("no module",)) if _UNKNOWN_ACTION.search(said) else None
        except (AmiError, TimeoutError):
            return None
        return frozenset(f"{row.get('VoiceMailbox', '')}@{row.get('VMContext', '')}" for row in rows)


def _named(doc: RulesDoc) -> Iterator[tuple[str, str]]:
    """Where the rules name a mailbox, and which."""
    for where, target in _targets(doc):
        if target is not None and target.voicemail is not None:
            yield where, target.voicemail


def _targets(doc: RulesDoc) -> Iterable[tuple[str, TargetDoc | None]]:
    for n, entry in enumerate(doc.entries):
        yield f"entries.{n}.closed.voicemail", entry.closed
    for name, queue in doc.queues.items():
        yield f"queues.{name}.full.voicemail", queue.full
        yield f"queues.{name}.timed_out.voicemail", queue.timed_out
    for n, rule in enumerate(doc.rules):
        yield f"rules.{n}.then.target.voicemail", rule.then.target
