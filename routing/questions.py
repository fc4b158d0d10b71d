"""The dialplan's questions: which call, asked when; each is answered at once or not at all.

A question comes as an event of the PBX's own connection and is answered by setting variables of its channel; nothing
listens for strangers. What takes longer than the dialplan waits is not sent any more; more questions at a time than the
limit are left to the dialplan's default way. One that fails harms no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import structlog

from routing.answer import variables
from routing.decide import CallFacts, Customer, Decision, Floor, decide
from routing.rules import RuleSet

log = structlog.get_logger(__name__)

Send = Callable[[str, Mapping[str, str]], Awaitable[object]]


class Question(Protocol):
    """A call at its entry, as the PBX tells it. `ask` is its number on that channel."""

    @property
    def linkedid(self) -> str: ...  # pragma: no cover - a protocol
    @property
    def channel(self) -> str: ...  # pragma: no cover - a protocol
    @property
    def ask(self) -> str: ...  # pragma: no cover - a protocol
    @property
    def dialed(self) -> str: ...  # pragma: no cover - a protocol
    @property
    def caller(self) -> str: ...  # pragma: no cover - a protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerFacts:
    """What the caller's number says by itself, and the customer if it is one's. `why`: what could not be found out."""

    e164: str = ""
    country: str = ""
    withheld: bool = False
    customer: Customer | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision that a call is about to get."""

    pbx: str
    call: str
    channel: str
    decision: Decision


class Questions:
    """Answers the questions of all PBXs."""

    def __init__(
        self,
        *,
        rules: Callable[[], RuleSet],
        caller_facts: Callable[[str, str], Awaitable[CallerFacts]],
        floor: Callable[[str], Floor],
        send: Mapping[str, Send],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        now: Callable[[], datetime],
        decided: Callable[[Decided], None] = lambda decided: None,
        limit: float = 0.3,
        most: int = 200,
    ) -> None:
        """`caller_facts(number, pbx)` finds out about a caller within its own time limit and never fails;
        `limit`: seconds after which a question is not answered any more; `most` questions at a time."""
        self._rules, self._caller_facts, self._floor = rules, caller_facts, floor
        self._send, self._spawn, self._now, self._decided = send, spawn, now, decided
        self._limit, self._most = limit, most
        self._open = 0
        self.outcomes = {"answered": 0, "default": 0, "too_many": 0, "late": 0, "failed": 0}
        self.slowest = 0.0

    def ask(self, pbx: str, question: Question) -> None:
        """Takes up a question; returns at once."""
        if self._open >= self._most:
            self.outcomes["too_many"] += 1
            return
        self._open += 1
        self._spawn(self._answer(pbx, question))

    async def _answer(self, pbx: str, question: Question) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._limit):
                rules = self._rules()
                about = await self._caller_facts(question.caller, pbx)
                call = CallFacts(
                    dialed=question.dialed,
                    ani=question.caller,
                    e164=about.e164,
                    pbx=pbx,
                    country=about.country,
                    withheld=about.withheld,
                )
                decision = decide(rules, call, about.customer, self._now(), self._floor(pbx))
                told = variables(decision, question.ask)
                self._decided(
                    Decided(
                        pbx=pbx,
                        call=f"{pbx}:{question.linkedid}",
                        channel=question.channel,
                        decision=decision,
                    )
                )
                # All are written to the socket in this turn and carried out in this order; the last one lets the call go.
                await asyncio.gather(*(self._set(pbx, question.channel, *one) for one in told))
        except TimeoutError:
            self.outcomes["late"] += 1
            return
        except Exception as error:
            self.outcomes["failed"] += 1
            log.warning("a routing question was not answered", pbx=pbx, why=f"{type(error).__name__}"[:200])
            return
        finally:
            self._open -= 1
        took = loop.time() - began
        self.slowest = max(self.slowest, took)
        self.outcomes["default" if decision.action == "default" else "answered"] += 1

    async def _set(self, pbx: str, channel: str, name: str, value: str) -> None:
        await self._send[pbx]("Setvar", {"Channel": channel, "Variable": name, "Value": value})
