"""The bus: order, numbers, what listeners cause, and that one failure never stops the others."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
import pytest

from cti.bus import Bus, Envelope
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
