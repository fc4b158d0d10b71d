"""Awaiting what the facts of a call will show, with a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cti.facts import CallFact, CallMerged, Fact

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Wait:
    look: Callable[[], Any]
    found: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def again(self) -> None:
        if self.found.done():
            return
        try:
            seen = self.look()
        except Exception as error:
            self.found.set_exception(error)
        else:
            if seen is not None:
                self.found.set_result(seen)


class Waits:
    """Looks again whenever a fact of an awaited call is published. `hear` is the listener."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[_Wait]] = {}

    def __len__(self) -> int:
        return sum(len(waits) for waits in self._waiting.values())

    def hear(self, fact: Fact) -> None:
        """Looks again for those who await something of this call; for all, at a fact of no call (a PBX broke off)."""
        if not self._waiting:
            return
        if not isinstance(fact, CallFact):
            told = [wait for waits in self._waiting.values() for wait in waits]
        else:
            told = [*self._waiting.get(fact.call, ())]
            if isinstance(fact, CallMerged):
                told += self._waiting.get(fact.merged, ())
        for wait in told:
            wait.again()

    async def until(self, call: str, look: Callable[[], T | None], limit: float) -> T | None:
        """Returns what `look` finds as soon as it finds something, or None after `limit` seconds; raises what it raises."""
        wait = _Wait(look)
        wait.again()
        if wait.found.done():
            found: T = wait.found.result()
            return found
        waits = self._waiting.setdefault(call, set())
        waits.add(wait)
        try:
            async with asyncio.timeout(limit):
                found = await wait.found
                return found
        except TimeoutError:
            return None
        finally:
            waits.discard(wait)
            if not waits and self._waiting.get(call) is waits:
                del self._waiting[call]
