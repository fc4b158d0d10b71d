"""What must hold for the call model whatever comes: a model that checks itself after every record, and the fold with
which a client keeps its picture.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from cti.ami_events import ChannelRow, ParkedRow, Record, WaitingRow
from cti.calls import Calls
from cti.facts import (
    CallCleared,
    CallDataChanged,
    CallerChanged,
    CallFact,
    CallMerged,
    CallOffered,
    CallOriginated,
    CallTransferred,
    CallView,
    ConnectionState,
    ConnectionView,
    Fact,
)
from cti.legs import TRANSITIONS
from tests.recorded import model

NULL = ConnectionState.NULL


def folded(calls: dict[str, CallView], fact: Fact) -> None:
    """Brings a client's calls up to a fact, by the rules of the protocol and nothing else.

    A view replaces the call; else a connection replaces the one of its id, and one that is null goes; changed data is
    merged in (empty values go); a caller's number is replaced; a cleared call goes; a connection that came over has left
    the call it came from.
    """
    if not isinstance(fact, CallFact):
        return
    if isinstance(fact, CallMerged) and fact.merged in calls:
        calls[fact.merged] = without(calls[fact.merged], fact.connection.id)
    view: CallView | None = getattr(fact, "view", None)
    connection: ConnectionView | None = getattr(fact, "connection", None)
    if view is not None:
        calls[fact.call] = view
    elif isinstance(fact, CallCleared):
        del calls[fact.call]
    elif isinstance(fact, CallDataChanged):
        data = {**calls[fact.call].data, **fact.changed}
        calls[fact.call] = replace(calls[fact.call], data={n: v for n, v in data.items() if v != ""})
    elif isinstance(fact, CallerChanged):
        calls[fact.call] = replace(calls[fact.call], ani=fact.ani, ani_name=fact.ani_name)
    elif connection is not None and connection.state is NULL:
        calls[fact.call] = without(calls[fact.call], connection.id)
    elif connection is not None:
        known = calls[fact.call].connections
        assert any(c.id == connection.id for c in known), (
            f"{fact.TYPE} of a connection the client has not heard of"
        )
        now = tuple(connection if c.id == connection.id else c for c in known)
        calls[fact.call] = replace(calls[fact.call], connections=now)


def without(call: CallView, connection: str) -> CallView:
    return replace(call, connections=tuple(c for c in call.connections if c.id != connection))


class Watched:
    """A call model and a client of it; after each step everything that must always hold is asserted."""

    def __init__(
        self, agents: dict[str, str] | None = None, calls: Calls | None = None, *, steady: bool = True
    ) -> None:
        self.steady = steady  # whether time only goes forward in what it will hear
        self.calls = model(agents) if calls is None else calls
        self.client: dict[str, CallView] = {view.id: view for view in self.calls.views()}
        self.states: dict[tuple[str, str], ConnectionState] = {
            (view.id, c.id): c.state for view in self.client.values() for c in view.connections
        }
        self.cleared: set[str] = set()
        self.heard: list[Fact] = []

    def apply(self, record: Record) -> list[Fact]:
        return self.check(self.calls.apply(record))

    def tick(self, now: float) -> list[Fact]:
        return self.check(self.calls.tick(now))

    def rebuild(
        self, channels: list[ChannelRow], waiting: list[WaitingRow], parked: list[ParkedRow], now: float
    ) -> tuple[list[Fact], dict[str, int]]:
        facts, differences = self.calls.rebuild(channels, waiting, parked, now)
        return self.check(facts), differences

    def check(self, facts: list[Fact]) -> list[Fact]:
        for fact in facts:
            assert isinstance(fact, CallFact), fact
            assert fact.call not in self.cleared, f"{fact.TYPE} after the end of {fact.call}"
            self._numbers(fact)
            self._moves(fact)
            folded(self.client, fact)
            if isinstance(fact, CallCleared):
                left = [c for (call, c) in self.states if call == fact.call]
                assert not left, f"{fact.call} ended and {left} did not"
                self.cleared.add(fact.call)
        self.heard += facts
        told = {view.id: view for view in self.calls.views()}
        if told != self.client:
            raise AssertionError(difference(told, self.client, facts))
        return facts

    def _numbers(self, fact: CallFact) -> None:
        for name in ("talked", "held", "waited", "rang", "duration"):
            value = getattr(fact, name, None)
            assert value is None or value >= 0, f"{name} = {value} in {fact}"
        if isinstance(fact, CallCleared) and self.steady:
            for name in ("talked", "held", "waited"):
                assert getattr(fact, name) <= fact.duration + 0.001, f"{name} in {fact}"

    def _moves(self, fact: CallFact) -> None:
        if isinstance(fact, CallMerged):
            came = self.states.pop((fact.merged, fact.connection.id), None)
            assert came is not None, f"{fact.connection.id} was never in {fact.merged}"
            self.states[fact.call, fact.connection.id] = came
        begins = isinstance(fact, (CallOriginated, CallOffered))
        seen: list[ConnectionView] = []
        view: CallView | None = getattr(fact, "view", None)
        if view is not None:
            seen += view.connections
        connection: ConnectionView | None = getattr(fact, "connection", None)
        if connection is not None:
            seen.append(connection)
        for now in seen:
            key = fact.call, now.id
            before = self.states.get(key, NULL)
            assert now.state is before or now.state in TRANSITIONS[before], (
                f"{before} → {now.state} by {fact.TYPE}"
            )
            assert before is not NULL or now.state is NULL or (begins and now.id == fact.connection.id), (  # type: ignore[attr-defined]
                f"{now.id} begins with {fact.TYPE}"
            )
            if now.state is NULL:
                self.states.pop(key, None)
            else:
                self.states[key] = now.state
        if view is not None and not isinstance(fact, CallTransferred):
            missing = {c for call, c in self.states if call == fact.call} - {c.id for c in view.connections}
            assert missing <= {connection.id if connection else ""}, (
                f"{missing} left without a word by {fact.TYPE}"
            )


def difference(model_says: dict[str, Any], client_says: dict[str, Any], facts: list[Fact]) -> str:
    """Where two pictures differ, field by field."""
    lines = [f"after {[fact.TYPE for fact in facts]}"]
    for id in sorted(model_says.keys() | client_says.keys()):
        one, two = model_says.get(id), client_says.get(id)
        if one is None or two is None:
            lines.append(f"{id}: only {'the client' if one is None else 'the model'} has it")
            continue
        for name in one.__dataclass_fields__:
            if getattr(one, name) != getattr(two, name):
                lines.append(f"{id}.{name}: model {getattr(one, name)!r}, client {getattr(two, name)!r}")
    return "\n".join(lines)
