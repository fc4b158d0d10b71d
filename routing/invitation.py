"""Tells each PBX whether there is somebody to ask: without rules, and after an orderly stop, no call loses a moment.

It is one global variable of the dialplan, said again after every break and now and then, since Asterisk forgets it when
it restarts. A server that was killed leaves it standing: calls then wait for the dialplan's time limit and go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from cti.facts import Fact, PbxResynced, PbxStatusChanged

VARIABLE = "CTI_ROUTING"
AGAIN_AFTER = 20.0

Send = Callable[[str, Mapping[str, str]], Awaitable[object]]


class Invitation:
    """Keeps every PBX told."""

    def __init__(self, *, send: Mapping[str, Send], wanted: Callable[[], bool]) -> None:
        self._send, self._wanted = send, wanted
        self._wake = asyncio.Event()

    def changed(self) -> None:
        """The rules have changed: whether to ask may be another answer now."""
        self._wake.set()

    def hear(self, fact: Fact) -> list[Fact]:
        """A PBX has come back."""
        if isinstance(fact, PbxResynced) or (isinstance(fact, PbxStatusChanged) and fact.phase == "up"):
            self._wake.set()
        return []

    async def run(self) -> None:
        """Tells, until cancelled."""
        while True:
            self._wake.clear()
            await self._tell("on" if self._wanted() else "off")
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_AFTER):
                    await self._wake.wait()

    async def withdraw(self) -> None:
        """Tells every PBX that nobody is here any more; takes a second at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._tell("off")

    async def _tell(self, value: str) -> None:
        async def one(send: Send) -> None:
            with suppress(Exception):  # a PBX that is away is told when it comes back
                await send("Setvar", {"Variable": VARIABLE, "Value": value})

        await asyncio.gather(*(one(send) for send in self._send.values()))
