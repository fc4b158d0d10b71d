"""The bus: gives each fact its number, tells those who react, then hands it to those who carry it out of the house.

A listener that fails is logged and the others still hear the fact. A listener *returns* further facts; only the bus
publishes. Facts are published in the order in which they were given, either in the caller's turn of the event loop
(`publish`) or in the next turns, a few at a time (`line_up`). Those who listen `at_once` hear a fact when it is lined up,
and a fact that is `AHEAD` overtakes what waits: a screen pop does not wait until all else is told, written and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TypeVar, cast

import msgspec
import structlog

from cti.facts import Fact
from cti.frozen import Frozen

log = structlog.get_logger(__name__)

F = TypeVar("F", bound=Fact)
Listener = Callable[[F], Iterable[Fact] | None]
Topics = frozenset[str]

_encode = msgspec.json.Encoder().encode

A_TURN = 0.0003
"""Seconds for which facts that wait are published in one turn of the loop; then links are read and answers taken."""

FEW = 500
"""Facts that may wait in peace; of more, a fiftieth of them goes out in one turn however long that takes."""

MOST_WAITING = 20_000
"""Facts that may wait; beyond it they are published at once, and whoever brings more of them waits meanwhile."""


class Envelope(Frozen, frozen=True, gc=False):
    """A published fact: its place in the stream, who may see it, and its one serialised frame (UTF-8 JSON)."""

    seq: int
    fact: Fact
    topics: Topics
    frame: bytes
    data: bytes


Carrier = Callable[[Envelope], None]


def serialise(seq: int, fact: Fact) -> tuple[bytes, bytes]:
    """Returns (frame, data) of a fact: the frame as `cti.v1` sends it, the data object alone as the journal keeps it."""
    body = _encode(fact)
    cut = body.index(b",")  # `at` is every fact's first field and holds no comma
    data = b"{" + body[cut + 1 :]
    frame = b'{"seq":%d,"type":"%s",%s,"data":%s}' % (seq, fact.TYPE.encode(), body[1:cut], data)
    return frame, data


class Bus:
    """Publishes facts in the order they are given; what listeners return is published after the fact that caused it."""

    def __init__(self, *, audience: Callable[[Fact], Topics], last_seq: int = 0) -> None:
        self._audience = audience
        self._seq = last_seq
        self._listeners: dict[type[Fact], tuple[Listener[Fact], ...]] = {}
        self._at_once: dict[type[Fact], tuple[Listener[Fact], ...]] = {}
        self._carriers: list[Carrier] = []
        self._waiting: deque[Fact] = deque()
        self._publishing = False
        self._carrying = False
        self._turn: asyncio.Handle | None = None
        self.failures = 0

    @property
    def seq(self) -> int:
        """The number of the newest published fact."""
        return self._seq

    @property
    def waiting(self) -> int:
        """How many facts are lined up."""
        return len(self._waiting)

    def listen(self, kind: type[F], listener: Listener[F], *, at_once: bool = False) -> Callable[[], None]:
        """Calls `listener` with each fact of exactly this class; returns what removes it again.

        `at_once`: as soon as the fact is lined up, before it has a number and before anybody else knows of it.
        """
        whom = self._at_once if at_once else self._listeners
        mine = cast("Listener[Fact]", listener)  # it is only ever called with an F
        whom[kind] = (*whom.get(kind, ()), mine)

        def remove() -> None:
            whom[kind] = tuple(other for other in whom[kind] if other != mine)

        return remove

    def carry(self, carrier: Carrier) -> Callable[[], None]:
        """Hands `carrier` every envelope, in order; returns what removes it again."""
        self._carriers.append(carrier)
        return lambda: self._carriers.remove(carrier) if carrier in self._carriers else None

    def publish(self, facts: Iterable[Fact]) -> None:
        """Publishes the facts, after those that wait, and whatever they caused. Called from inside a listener, it only
        lines them up."""
        before = len(self._waiting)
        self._take(facts)
        if len(self._waiting) > before:
            self.settle()

    def line_up(self, facts: Iterable[Fact]) -> None:
        """Publishes the facts, after those that wait, in the next turns of the loop."""
        self._take(facts)
        if len(self._waiting) > MOST_WAITING:
            self.settle()
        elif self._waiting and self._turn is None and not self._publishing:
            self._turn = asyncio.get_running_loop().call_soon(self._in_turn)

    def settle(self) -> int:
        """Publishes all that waits; returns the number of the newest fact: what anybody can see now has been told up to
        there. Called from inside a listener, it only returns it."""
        if not self._publishing:
            self._publish_until(None)
        return self._seq

    def _in_turn(self) -> None:
        self._turn = None
        self._publish_until(perf_counter() + A_TURN * max(1.0, len(self._waiting) / FEW))
        if self._waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._in_turn)

    def _publish_until(self, end: float | None) -> None:
        waiting = self._waiting
        self._publishing = True
        try:
            while waiting:
                self._publish_one(waiting.popleft())
                if end is not None and perf_counter() >= end:
                    return
        finally:
            self._publishing = False

    def _take(self, facts: Iterable[Fact]) -> None:
        """Lines the facts up, tells those who listen at once, and publishes what is ahead."""
        for fact in facts:
            if fact.AHEAD and not self._carrying:
                self._publish_one(fact)
            else:
                self._waiting.append(fact)
            if (listeners := self._at_once.get(type(fact))) is not None:
                self._tell(listeners, fact)

    def _publish_one(self, fact: Fact) -> None:
        try:
            topics = self._audience(fact)
            frame, data = serialise(self._seq + 1, fact)
        except Exception:
            self.failures += 1
            log.exception("a fact could not be published", fact=fact.TYPE)
            return
        self._seq += 1
        envelope = Envelope(self._seq, fact, topics, frame, data)
        self._carrying = True
        for carrier in self._carriers:
            try:
                carrier(envelope)
            except Exception:
                self.failures += 1
                log.exception("carrier failed", fact=fact.TYPE)
        self._carrying = False
        if (listeners := self._listeners.get(type(fact))) is not None:
            self._tell(listeners, fact)

    def _tell(self, listeners: tuple[Listener[Fact], ...], fact: Fact) -> None:
        for listener in listeners:
            try:
                caused = listener(fact)
            except Exception:
                self.failures += 1
                log.exception("listener failed", fact=fact.TYPE)
                continue
            if caused:
                self._take(caused)
