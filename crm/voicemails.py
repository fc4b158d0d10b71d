"""Messages that callers leave become notes on the record of their call, so that whoever speaks to them next sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from crm.interactions import UnknownInteraction
from cti.backlog import InTurn
from cti.people import Actor, Role
from cti.voicemail import CallVoicemailLeft

SYSTEM = Actor(login="system", name="CTI server", role=Role.ADMIN, via="system")
UNWRITTEN_MOST = 1000


def voicemail_notes(add_note: Callable[[Actor, str, str], Awaitable[object]]) -> InTurn[CallVoicemailLeft]:
    """Writes a note for each message; while the database is away it waits. `add_note(actor, text, call)`."""

    async def write(fact: CallVoicemailLeft) -> None:
        with suppress(UnknownInteraction):  # a call inside the house: nobody's record
            await add_note(SYSTEM, f"Left a message in mailbox {fact.mailbox}.", fact.call)

    return InTurn("voicemails in the record of their calls", write, most=UNWRITTEN_MOST)
