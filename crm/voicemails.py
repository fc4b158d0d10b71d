"""Messages that callers leave become notes on the record of their call, so that whoever speaks to them next sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import asyncpg

from crm.interactions import UnknownInteraction
from cti.backlog import Backlog
from cti.people import Actor, Role
from cti.voicemail import CallVoicemailLeft

SYSTEM = Actor(login="system", name="CTI server", role=Role.ADMIN, via="system")
UNWRITTEN_MOST = 1000


class VoicemailNotes:
    """Writes a note for each message; while the database is away it waits. `add_note(actor, text, call)`."""

    def __init__(self, add_note: Callable[[Actor, str, str], Awaitable[object]]) -> None:
        self._add_note = add_note
        self._due: deque[CallVoicemailLeft] = deque(maxlen=UNWRITTEN_MOST)
        self._backlog = Backlog("voicemails in the record of their calls")

    def hear(self, fact: CallVoicemailLeft) -> None:
        """A message was left."""
        self._due.append(fact)
        self._backlog.more()

    async def run(self) -> None:
        """Writes, until cancelled."""
        while True:
            if not self._due:
                await self._backlog.idle()
            fact = self._due[0]
            try:
                await self._add_note(SYSTEM, f"Left a message in mailbox {fact.mailbox}.", fact.call)
            except UnknownInteraction:
                pass  # a call inside the house: nobody's record
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                await self._backlog.failed(type(error).__name__)
                continue
            self._backlog.succeeded()
            if self._due and self._due[0] is fact:
                self._due.popleft()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything is written; False if it is not after `timeout` seconds."""
        return await self._backlog.flush(timeout)
