"""The bus: gives each fact its number, tells those who react, then hands it to those who carry it out of the house.

Everything happens in the caller's turn of the event loop: no task, no await, no queue that could grow. A listener
that fails is logged and the others still hear the fact. A listener *returns* further facts; only the bus publishes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import structlog

from cti.facts import Fact
from cti.frozen import Frozen

log = structlog.get_logger(__name__)

F = TypeVar("F", bound=Fact)
Listener = Callable[[F], Iterable[Fact] | None]
Topics = frozenset[str]

_encode = msgspec.json.Encoder().encode


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
        self._listeners: dict[type[Fact], list[Listener[Fact]]] = defaultdict(list)
        self._carriers: list[Carrier] = []
        self._waiting: deque[Fact] = deque()
        self._publishing = False
        self.failures = 0

    @property
    def seq(self) -> int:
        """The number of the newest published fact."""
        return self._seq

    def listen(self, kind: type[F], listener: Listener[F]) -> Callable[[], None]:
        """Calls `listener` with each fact of exactly this class; returns what removes it again."""
        listeners = self._listeners[kind]
        listeners.append(listener)  # type: ignore[arg-type]  # a listener of F is only ever called with an F

        def remove() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return remove

    def carry(self, carrier: Carrier) -> Callable[[], None]:
        """Hands `carrier` every envelope, in order; returns what removes it again."""
        self._carriers.append(carrier)
        return lambda: self._carriers.remove(carrier) if carrier in self._carriers else None

    def publish(self, facts: Iterable[Fact]) -> None:
        """Publishes the facts, then whatever they caused. Called from inside a listener, it only lines them up."""
        self._waiting.extend(facts)
        if self._publishing:
            return
        self._publishing = True
        try:
            while self._waiting:
                self._publish_one(self._waiting.popleft())
        finally:
            self._publishing = False

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
        for carrier in self._carriers:
            try:
                carrier(envelope)
            except Exception:
                self.failures += 1
                log.exception("carrier failed", fact=fact.TYPE)
        for listener in tuple(self._listeners.get(type(fact), ())):
            try:
                caused = listener(fact)
            except Exception:
                self.failures += 1
                log.exception("listener failed", fact=fact.TYPE)
                continue
            if caused is not None:
                self._waiting.extend(caused)
