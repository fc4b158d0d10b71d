"""What holds for the call model in any order of events: of recorded calls reshuffled, thinned and doubled, and of made-up
lives of a PBX, sane and insane. The rules themselves are in call_rules.py; they are asserted after every single record.
"""

from __future__ import annotations

import dataclasses
import random
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cti.ami_events import (
    BlindlyTransferred,
    BridgeEntered,
    BridgeGone,
    BridgeLeft,
    CallerGaveUpQueue,
    CallerIdChanged,
    CallerJoinedQueue,
    CallerLeftQueue,
    CallParked,
    CallUnparked,
    ChannelAppeared,
    ChannelGone,
    ChannelRenamed,
    ChannelState,
    ChannelStateChanged,
    ConferenceJoined,
    ConferenceLeft,
    DataCollected,
    DialBegun,
    DialEnded,
    DialProgressed,
    HangupRequested,
    LocalPaired,
    MemberCalled,
    MemberConnected,
    MemberDidNotAnswer,
    MusicChanged,
    PhoneHeld,
    QueueOutcome,
    Record,
    TransferCompleted,
)
from cti.calls import REMEMBERED
from cti.facts import CallCleared, CallEstablished
from tests.call_rules import Watched
from tests.recorded import AGENTS, FOLDER, model, records

PHONES = {f"PJSIP/{number}": f"agent{number}" for number in (1101, 1102, 1103, 1104, 1150)}
LOCALS = {"Local/1104@from-agent": "agent1104", "Local/1150@both-phones": "agent1150"}
KNOWN = {**AGENTS, **PHONES}
MAPS = {"phones": KNOWN, "locals too": {**KNOWN, **LOCALS}, "nobody": {}}

TRACES = sorted(path.stem for path in (FOLDER / "22").glob("*.txt"))
WHOLE = [name for name in TRACES if name[:2] not in {"17", "25", "27", "28", "90", "91", "92"}]
"""Those at whose end all channels are gone."""


@cache
def recorded(name: str) -> tuple[Record, ...]:
    """A trace's records about calls, those that Asterisk repeats for nobody's use left out."""
    handled = model().handles
    return tuple(record for record in records(name) if type(record) in handled)


@pytest.mark.parametrize("who", MAPS)
@pytest.mark.parametrize("name", TRACES)
def test_rules_hold_at_every_record_of_every_trace(name: str, who: str) -> None:
    watched = Watched(MAPS[who])
    for record in recorded(name):
        watched.apply(record)
    if name in WHOLE:
        watched.tick(recorded(name)[-1].at + 10 if recorded(name) else 0.0)
        assert not any(watched.calls.sizes().values()), watched.calls.sizes()


# ------------------------------------------------------------------------------------------------ other orders


def channels_of(record: Record) -> frozenset[str]:
    """The channels and bridges a record is about: records about the same keep their order."""
    names = (
        "uniqueid",
        "dialled",
        "dialler",
        "transferer",
        "second_transferer",
        "transferee",
        "target",
        "one",
        "two",
    )
    found = {value for name in (*names, "retriever") if (value := getattr(record, name, None))}
    return frozenset(found)


TOPICS: dict[type[Record], str] = {
    **dict.fromkeys((BridgeEntered, BridgeLeft, BridgeGone), "bridge"),
    **dict.fromkeys((DialBegun, DialProgressed, DialEnded), "dial"),
    **dict.fromkeys((CallerJoinedQueue, CallerLeftQueue, CallerGaveUpQueue, QueueOutcome), "queue"),
    **dict.fromkeys((MemberCalled, MemberConnected, MemberDidNotAnswer), "member"),
    **dict.fromkeys((CallParked, CallUnparked), "parking"),
}
BIRTH_AND_DEATH = (ChannelAppeared, ChannelGone)


AT_ONCE = 0.02
"""Seconds between events that may be said in any order: within them Asterisk's threads race."""


def may_swap(first: Record, second: Record) -> bool:
    """Whether Asterisk could have said these two the other way round."""
    if abs(first.at - second.at) > AT_ONCE or HangupRequested in (type(first), type(second)):
        return False  # a hangup's request causes what follows it
    shared = channels_of(first) & channels_of(second)
    bridges = getattr(first, "bridge", None), getattr(second, "bridge", None)
    if bridges[0] is not None and bridges[0] == bridges[1]:
        return False
    if not shared:
        return not (isinstance(first, BIRTH_AND_DEATH) and isinstance(second, BIRTH_AND_DEATH))
    if isinstance(first, BIRTH_AND_DEATH) or isinstance(second, BIRTH_AND_DEATH):
        return False
    return TOPICS.get(type(first), "channel") != TOPICS.get(type(second), "channel")


def reordered(found: tuple[Record, ...], chance: random.Random, swaps: int) -> list[Record]:
    """Neighbours swapped here and there, where they may be; times stay where they are in the stream."""
    times = [record.at for record in found]
    order = list(found)
    for _ in range(swaps):
        at = chance.randrange(len(order) - 1)
        if may_swap(order[at], order[at + 1]):
            order[at], order[at + 1] = order[at + 1], order[at]
    return [dataclasses.replace(record, at=at) for record, at in zip(order, times, strict=True)]


def outline(watched: Watched) -> dict[str, tuple[str, tuple[str, ...], str | None]]:
    """What a call's end says, by call."""
    cleared = [fact for fact in watched.heard if isinstance(fact, CallCleared)]
    return {fact.call: (fact.outcome, tuple(sorted(fact.agents)), fact.queue) for fact in cleared}


seeds = st.integers(0, 2**32 - 1)
many = settings(max_examples=250, deadline=None)


@many
@given(st.sampled_from(WHOLE), seeds, st.sampled_from([1, 5, 20]))
def test_any_order_that_asterisk_may_choose_tells_the_same_calls(name: str, seed: int, swaps: int) -> None:
    found = recorded(name)
    assume(len(found) > 2)
    straight, watched = Watched(KNOWN), Watched(KNOWN)
    for record in found:
        straight.apply(record)
    for record in reordered(found, random.Random(seed), swaps * len(found)):
        watched.apply(record)
    for each in (straight, watched):
        each.tick(found[-1].at + 10)
        assert not any(each.calls.sizes().values()), each.calls.sizes()
    assert outline(watched) == outline(straight)


def mangled(found: tuple[Record, ...], chance: random.Random) -> list[Record]:
    """One in ten lost, one in ten said twice, some late, and at times all in any order."""
    wild: list[Record] = []
    for record in found:
        fate = chance.randrange(10)
        wild += [record] * (0 if fate == 0 else 2 if fate == 1 else 1)
        if fate == 2:
            wild.insert(-chance.randrange(1, 8), wild.pop())
    if chance.random() < 0.2:
        chance.shuffle(wild)
    times = sorted(record.at for record in wild)
    return [dataclasses.replace(record, at=at) for record, at in zip(wild, times, strict=True)]


@many
@given(st.sampled_from(WHOLE), seeds, st.sampled_from(list(MAPS)))
def test_rules_hold_when_events_are_lost_doubled_or_out_of_order(name: str, seed: int, who: str) -> None:
    found = recorded(name)
    assume(found)
    watched = Watched(MAPS[who])
    for record in mangled(found, random.Random(seed)):
        watched.apply(record)
    watched.tick(found[-1].at + 10)
    watched.rebuild([], [], [], found[-1].at + 20)
    assert not any(watched.calls.sizes().values()), watched.calls.sizes()


def test_hangups_alone_empty_the_model() -> None:
    """Whatever was lost on the way: once every channel is said to be gone, nothing is kept."""
    for name in WHOLE:
        found = recorded(name)
        for cut in range(1, len(found), 7):
            watched = Watched(KNOWN)
            for record in found[:cut]:
                watched.apply(record)
            for record in found[cut:]:
                if isinstance(record, ChannelGone):
                    watched.apply(record)
            watched.tick(found[-1].at + 10)
            assert not any(watched.calls.sizes().values()), (name, cut, watched.calls.sizes())


# ------------------------------------------------------------------------------------------------ made-up lives

UNIQUEIDS = [f"1.{n}" for n in range(6)]
BRIDGES = ["b1", "b2", "b3"]
DEVICES = [
    "PJSIP/trunk-1",
    "PJSIP/1101-2",
    "PJSIP/1102-3",
    "PJSIP/9999-4",
    "Local/1104@from-agent-00000001;1",
    "Local/1104@from-agent-00000001;2",
    "Local/5@x-00000002;1",
    "Local/5@x-00000002;2",
]
ids = st.sampled_from(UNIQUEIDS)
some_id = st.none() | ids
bridges = st.sampled_from(BRIDGES)
queues = st.sampled_from(["sales", "support"])
states = st.sampled_from(list(ChannelState))
texts = st.none() | st.sampled_from(["15551234567", "O'Neil", "<b>x</b>", "\r\nEvent: X", "\U0001f600"])
values = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["", "1", "2"]), max_size=2)
clock = st.floats(0, 100, allow_nan=False)

KINDS: list[st.SearchStrategy[Record]] = [
    st.builds(
        ChannelAppeared,
        clock,
        ids,
        ids,
        st.sampled_from(DEVICES),
        states,
        texts,
        texts,
        st.sampled_from(["", "s", "5550100"]),
        st.sampled_from(["from-trunk", "from-agent"]),
        values,
    ),
    st.builds(ChannelStateChanged, clock, ids, ids, states),
    st.builds(ChannelGone, clock, ids, ids, st.sampled_from([0, 1, 16, 17, 19, 26, 34, 127])),
    st.builds(HangupRequested, clock, ids, ids),
    st.builds(CallerIdChanged, clock, ids, ids, texts, texts),
    st.builds(ChannelRenamed, clock, ids, st.sampled_from(DEVICES)),
    st.builds(LocalPaired, clock, ids, ids),
    st.builds(DialBegun, clock, some_id, ids, st.none() | st.just("15550001")),
    st.builds(DialProgressed, clock, ids, st.sampled_from(["RINGING", "PROGRESS"])),
    st.builds(
        DialEnded, clock, some_id, ids, st.sampled_from(["ANSWER", "BUSY", "NOANSWER", "CANCEL", "ODD"])
    ),
    st.builds(
        BridgeEntered,
        clock,
        ids,
        ids,
        bridges,
        st.sampled_from(["simple_bridge", "softmix", "holding_bridge"]),
        st.sampled_from(["basic", "base", "parking"]),
    ),
    st.builds(BridgeLeft, clock, ids, ids, bridges),
    st.builds(BridgeGone, clock, bridges),
    st.builds(PhoneHeld, clock, ids, ids, st.booleans()),
    st.builds(MusicChanged, clock, ids, ids, st.booleans()),
    st.builds(CallerJoinedQueue, clock, ids, ids, queues, st.integers(1, 3), values),
    st.builds(CallerLeftQueue, clock, ids, ids, queues),
    st.builds(CallerGaveUpQueue, clock, ids, ids, queues),
    st.builds(QueueOutcome, clock, ids, ids, st.sampled_from(["TIMEOUT", "LEAVEEMPTY", ""])),
    st.builds(MemberCalled, clock, ids, ids, ids, queues, st.just("PJSIP/1101")),
    st.builds(MemberConnected, clock, ids, ids, ids, queues, st.just("PJSIP/1101")),
    st.builds(MemberDidNotAnswer, clock, ids, ids, ids, queues, st.just("PJSIP/1101")),
    st.builds(BlindlyTransferred, clock, ids, some_id, st.just("1102")),
    st.builds(TransferCompleted, clock, ids, ids, some_id, some_id),
    st.builds(CallParked, clock, ids, ids, st.just("default"), st.sampled_from(["701", "702"])),
    st.builds(
        CallUnparked,
        clock,
        ids,
        ids,
        st.just("701"),
        st.sampled_from(["retrieved", "timed_out", "given_up"]),
        some_id,
    ),
    st.builds(ConferenceJoined, clock, ids, ids, st.just("8001")),
    st.builds(ConferenceLeft, clock, ids, ids, st.just("8001")),
    st.builds(DataCollected, clock, ids, ids, values),
]
garbage = st.one_of(KINDS)


def test_garbage_is_of_every_kind() -> None:
    assert len(KINDS) == len(model().handles)


@settings(max_examples=400, deadline=None)
@given(st.lists(garbage, max_size=60), st.sampled_from(list(MAPS.values())), st.booleans())
def test_rules_hold_for_garbage(rubbish: list[Record], agents: dict[str, str], in_order: bool) -> None:
    """Any records at all, also with times that go back: no exception, no illegal move, nothing kept at the end."""
    watched = Watched(agents, steady=in_order)
    if in_order:
        rubbish = [dataclasses.replace(record, at=float(n)) for n, record in enumerate(rubbish)]
    for n, record in enumerate(rubbish):
        watched.apply(record)
        if n % 10 == 9:
            watched.tick(record.at)
    watched.tick(1000.0)
    for uniqueid in UNIQUEIDS:
        watched.apply(ChannelGone(1001.0, uniqueid, uniqueid, 16))
    assert not any(watched.calls.sizes().values()), watched.calls.sizes()


def test_ended_calls_are_remembered_within_bounds() -> None:
    calls = model()
    for n in range(REMEMBERED + 500):
        calls.apply(
            ChannelAppeared(
                float(n),
                f"{n}.1",
                f"{n}.1",
                "PJSIP/trunk-1",
                ChannelState.RING,
                "1",
                None,
                "5",
                "from-trunk",
                {},
            )
        )
        calls.apply(ChannelGone(float(n), f"{n}.1", f"{n}.1", 16))
    assert len(calls._ended) == REMEMBERED
    assert not any(calls.sizes().values())


def test_a_call_that_comes_back_after_its_end_is_another_call() -> None:
    watched = Watched()
    appeared = ChannelAppeared(
        1.0, "1.1", "1.1", "PJSIP/trunk-1", ChannelState.RING, "1", None, "5", "from-trunk", {}
    )
    late = ChannelAppeared(
        3.0, "1.2", "1.1", "PJSIP/1001-1", ChannelState.DOWN, "1", None, "s", "from-agent", {}
    )
    for record in (
        appeared,
        ChannelGone(2.0, "1.1", "1.1", 16),
        late,
        dataclasses.replace(appeared, at=4.0),
        ChannelGone(5.0, "1.1", "1.1", 16),
        ChannelGone(5.0, "1.2", "1.1", 16),
    ):
        watched.apply(record)
    ends = [fact.call for fact in watched.heard if isinstance(fact, CallCleared)]
    assert len(ends) == len(set(ends)) == 2
    assert not any(watched.calls.sizes().values())
    assert not any(isinstance(fact, CallEstablished) for fact in watched.heard)
