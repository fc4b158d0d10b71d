"""Callbacks that callers are promised: written down as work before the caller hears so, or not promised at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from cti.ami_events import PromiseAsked
from cti.other_work import WorkView
from routing.callback import may_be_called
from routing.questions import CallerFacts

log = structlog.get_logger(__name__)

Send = Callable[[str, Mapping[str, str]], Awaitable[object]]

LIMIT = 1.5
"""Seconds in which a promise is made; the dialplan waits for two and then keeps the caller's place instead."""

MOST = 100
"""Promises being made at a time; more keep their place."""

KIND, SOURCE = "callback", "promise"


class Add(Protocol):
    """`WorkDesk.add`."""

    def __call__(
        self,
        *,
        kind: str,
        skill: str,
        title: str,
        source: str,
        ref: str,
        priority: int,
        due: datetime,
        number: str,
        account: int | None,
        data: dict[str, str],
    ) -> Awaitable[WorkView]: ...  # pragma: no cover - a protocol


class Promises:
    """Answers the callers of all PBXs."""

    def __init__(
        self,
        *,
        add: Add,
        cancel: Callable[[str, str], Awaitable[object]],
        caller_facts: Callable[[str, str], Awaitable[CallerFacts]],
        known_queue: Callable[[str], bool],
        send: Mapping[str, Send],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        now: Callable[[], datetime],
    ) -> None:
        self._add, self._cancel, self._caller_facts = add, cancel, caller_facts
        self._known_queue, self._send, self._spawn, self._now = known_queue, send, spawn, now
        self._open = 0
        self.outcomes = {"made": 0, "refused": 0, "failed": 0}

    def ask(self, pbx: str, asked: PromiseAsked) -> None:
        """Takes up a question; returns at once."""
        queue = f"{pbx}:{asked.queue}"
        if self._open >= MOST or not may_be_called(asked.number) or not self._known_queue(queue):
            self.outcomes["refused"] += 1
            return
        self._open += 1
        self._spawn(self._make(pbx, queue, asked))

    async def _make(self, pbx: str, queue: str, asked: PromiseAsked) -> None:
        made: WorkView | None = None
        try:
            async with asyncio.timeout(LIMIT):
                about = await self._caller_facts(asked.number, pbx)
                now = self._now()
                made = await self._add(
                    kind=KIND,
                    skill=queue,
                    title=f"Callback promised at {now:%H:%M} UTC",
                    source=SOURCE,
                    ref=f"{pbx}:{asked.linkedid}",
                    priority=asked.priority,
                    due=now + timedelta(seconds=asked.within),
                    number=asked.number,
                    account=about.customer.account if about.customer else None,
                    data={"Callback": "promised", "CallbackOf": f"{pbx}:{asked.linkedid}"},
                )
                headers = {
                    "Channel": asked.channel,
                    "Variable": f"CTI_PROMISED_{asked.ask}",
                    "Value": "yes",
                }
                await self._send[pbx]("Setvar", headers)
        except Exception as error:
            self.outcomes["failed"] += 1
            gone = "channel" in str(error).lower()  # the caller hung up: they asked for it, and are called
            log.warning("a callback was not promised", pbx=pbx, why=type(error).__name__, kept=gone)
            if made is not None and not gone:
                await self._take_back(made.id)
            return
        finally:
            self._open -= 1
        self.outcomes["made"] += 1

    async def _take_back(self, id: str) -> None:
        """The caller keeps their place instead: not called twice."""
        try:
            await self._cancel(id, "system")
        except Exception as error:
            log.warning("a callback was not taken back", why=type(error).__name__)
