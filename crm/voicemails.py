"""Messages that callers leave become notes on the record of their call, so that whoever speaks to them next sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import asyncpg
import structlog

from crm.interactions import UnknownInteraction
from cti.people import Actor, Role
from cti.voicemail import CallVoicemailLeft

log = structlog.get_logger(__name__)

SYSTEM = Actor(login="system", name="CTI server", role=Role.ADMIN, via="system")
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
UNWRITTEN_MOST = 1000


class VoicemailNotes:
    """Writes a note for each message; while the database is away it waits. `add_note(actor, text, call)`."""

    def __init__(self, add_note: Callable[[Actor, str, str], Awaitable[object]]) -> None:
        self._add_note = add_note
        self._due: deque[CallVoicemailLeft] = deque(maxlen=UNWRITTEN_MOST)
        self._wake = asyncio.Event()

    def hear(self, fact: CallVoicemailLeft) -> None:
        """A message was left."""
        self._due.append(fact)
        self._wake.set()

    async def run(self) -> None:
        """Writes, until cancelled."""
        failures = 0
        while True:
            if not self._due:
                self._wake.clear()
                await self._wake.wait()
            fact = self._due[0]
            try:
                await self._add_note(SYSTEM, f"Left a message in mailbox {fact.mailbox}.", fact.call)
            except UnknownInteraction:
                pass  # a call inside the house: nobody's record
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if failures == 0:
                    log.warning("a voicemail cannot be noted", why=type(error).__name__)
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
                continue
            failures = 0
            if self._due and self._due[0] is fact:
                self._due.popleft()
