"""The bus: order, numbers, what listeners cause, and that one failure never stops the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
import pytest

from crm.facts import PopWithdrawn
from cti.bus import MOST_WAITING, Bus, Envelope
from cti.facts import CallDataChanged, Fact, PbxResynced, PbxStatusChanged

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, UTC)


def status(why: str = "") -> PbxStatusChanged:
    return PbxStatusChanged(at=NOON, pbx="main", phase="up", code="", why=why)


def resynced() -> PbxResynced:
    return PbxResynced(at=NOON, pbx="main", reason="connected", calls=0, differences={})


@pytest.fixture
def carried() -> list[Envelope]:
    return []


@pytest.fixture
def bus(carried: list[Envelope]) -> Bus:
    made = Bus(audience=lambda fact: frozenset({"all"}), last_seq=41)
    made.carry(carried.append)
    return made


def test_facts_are_numbered_on_from_the_last_and_framed_once(bus: Bus, carried: list[Envelope]) -> None:
    bus.publish([status("a"), status("b")])
    assert [envelope.seq for envelope in carried] == [42, 43]
    assert msgspec.json.decode(carried[0].frame) == {
        "seq": 42,
        "type": "pbx.status_changed",
        "at": "2026-11-21T12:00:00.123456Z",
        "data": {"pbx": "main", "phase": "up", "code": "", "why": "a"},
    }
    assert msgspec.json.decode(carried[0].data) == {"pbx": "main", "phase": "up", "code": "", "why": "a"}


def test_what_a_listener_returns_comes_after_the_fact_that_caused_it(
    bus: Bus, carried: list[Envelope]
) -> None:
    def react(fact: PbxStatusChanged) -> Iterable[Fact]:
        return [resynced()] if fact.why == "first" else []

    bus.listen(PbxStatusChanged, react)
    bus.publish([status("first"), status("second")])
    assert [e.fact.TYPE for e in carried] == ["pbx.status_changed", "pbx.status_changed", "pbx.resynced"]


def test_publishing_from_inside_a_listener_only_lines_up(bus: Bus, carried: list[Envelope]) -> None:
    def react(_fact: PbxStatusChanged) -> None:
        bus.publish([resynced()])
        assert len(carried) == 1

    bus.listen(PbxStatusChanged, react)
    bus.publish([status()])
    assert [e.fact.TYPE for e in carried] == ["pbx.status_changed", "pbx.resynced"]


def test_one_that_fails_stops_nobody(bus: Bus, carried: list[Envelope]) -> None:
    heard: list[str] = []

    def broken(_fact: Fact) -> None:
        raise RuntimeError("broken")

    bus.carry(broken)  # type: ignore[arg-type]
    bus.listen(PbxStatusChanged, broken)
    bus.listen(PbxStatusChanged, lambda fact: heard.append(fact.why))
    bus.publish([status("a"), status("b")])
    assert heard == ["a", "b"]
    assert len(carried) == 2
    assert bus.failures == 4


def test_a_fact_that_cannot_be_written_is_left_out_and_takes_no_number(
    bus: Bus, carried: list[Envelope]
) -> None:
    unwritable = CallDataChanged(at=NOON, call="main:1", changed={"x": "\ud800"}, by="ivr")
    bus.publish([status("a"), unwritable, status("b")])
    assert [envelope.seq for envelope in carried] == [42, 43]
    assert bus.failures == 1


def test_a_remover_removes_once(bus: Bus) -> None:
    heard: list[str] = []
    remove = bus.listen(PbxStatusChanged, lambda fact: heard.append(fact.why))
    bus.publish([status("a")])
    remove()
    remove()
    bus.publish([status("b")])
    assert heard == ["a"]


def urgent(why: str) -> PopWithdrawn:
    """A fact that overtakes."""
    return PopWithdrawn(at=NOON, agent="anna", call="main:1", pop="p1", reason=why)


async def test_what_is_lined_up_is_published_in_later_turns_in_order(
    bus: Bus, carried: list[Envelope]
) -> None:
    bus.line_up([status("a"), status("b")])
    assert (carried, bus.waiting) == ([], 2)
    bus.line_up([status("c")])
    while bus.waiting:
        await asyncio.sleep(0)
    assert [envelope.fact.why for envelope in carried] == ["a", "b", "c"]  # type: ignore[attr-defined]
    assert [envelope.seq for envelope in carried] == [42, 43, 44]


async def test_a_long_line_leaves_turns_to_others(bus: Bus, carried: list[Envelope]) -> None:
    bus.line_up([status(str(n)) for n in range(400)])
    turns = 0
    while bus.waiting:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1
    assert [envelope.fact.why for envelope in carried] == [str(n) for n in range(400)]  # type: ignore[attr-defined]


async def test_a_line_that_is_too_long_is_published_at_once(bus: Bus, carried: list[Envelope]) -> None:
    bus.line_up(status() for _ in range(MOST_WAITING + 1))
    assert (len(carried), bus.waiting) == (MOST_WAITING + 1, 0)


async def test_publishing_comes_after_what_is_lined_up(bus: Bus, carried: list[Envelope]) -> None:
    bus.line_up([status("lined up")])
    bus.publish([])
    assert not carried
    bus.publish([resynced()])
    assert [e.fact.TYPE for e in carried] == ["pbx.status_changed", "pbx.resynced"]


async def test_settling_publishes_what_waits_and_says_up_to_where(bus: Bus, carried: list[Envelope]) -> None:
    bus.line_up([status("a"), status("b")])
    assert bus.settle() == 43
    assert len(carried) == 2
    assert bus.settle() == 43


async def test_who_listens_at_once_hears_before_the_fact_is_out_and_what_is_ahead_overtakes(
    bus: Bus, carried: list[Envelope]
) -> None:
    def react(fact: PbxStatusChanged) -> Iterable[Fact]:
        return [urgent(fact.why), resynced()] if fact.why == "b" else []

    bus.listen(PbxStatusChanged, react, at_once=True)
    bus.line_up([status("a"), status("b"), status("c")])
    assert [(e.seq, e.fact.TYPE) for e in carried] == [(42, "pop.withdrawn")]
    bus.settle()
    assert [e.fact.TYPE for e in carried[1:]] == [
        "pbx.status_changed",
        "pbx.status_changed",
        "pbx.resynced",
        "pbx.status_changed",
    ]
    assert [e.seq for e in carried] == [42, 43, 44, 45, 46]


async def test_what_is_ahead_of_a_fact_being_told_of_comes_after_it(
    bus: Bus, carried: list[Envelope]
) -> None:
    bus.listen(PbxStatusChanged, lambda fact: [urgent(fact.why)])
    bus.line_up([status("a"), status("b")])
    bus.settle()
    assert [e.fact.TYPE for e in carried] == ["pbx.status_changed", "pop.withdrawn"] * 2


async def test_what_fails_at_once_stops_nobody(bus: Bus, carried: list[Envelope]) -> None:
    def broken(_fact: Fact) -> None:
        raise RuntimeError("broken")

    bus.listen(PbxStatusChanged, broken, at_once=True)
    bus.line_up([status("a")])
    bus.line_up([status("b")])
    bus.settle()
    assert len(carried) == 2
    assert bus.failures == 2
