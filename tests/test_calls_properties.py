"""What holds for the call model in any order of events: of recorded calls reshuffled, thinned and doubled, and of made-up
lives of a PBX, sane and insane. The rules themselves are in call_rules.py; they are asserted after every single record.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

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
    ChannelRow,
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
    ParkedRow,
    PartyMuted,
    PhoneHeld,
    QueueOutcome,
    Record,
    TransferCompleted,
    VoicemailEnded,
    WaitingRow,
)
from cti.bus import serialise
from cti.client import Picture
from cti.facts import CallCleared, CallEstablished, ConnectionCleared, ConnectionState
from cti.hub import pack
from cti.legs import REMEMBERED
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


def as_sent(view: object) -> dict[str, Any]:
    """A call as JSON; in what order its connections are listed means nothing."""
    sent: dict[str, Any] = msgspec.json.decode(pack(view))
    sent["connections"].sort(key=lambda connection: str(connection["id"]))
    return sent


@pytest.mark.parametrize("name", WHOLE)
def test_our_own_client_has_the_models_picture_at_every_fact(name: str) -> None:
    calls, picture = model({**KNOWN, **LOCALS}), Picture()
    for record in recorded(name):
        for fact in calls.apply(record):
            frame, _ = serialise(1, fact)
            picture.fold(msgspec.json.decode(frame))
        theirs = {id: as_sent(call) for id, call in picture.calls.items()}
        assert theirs == {view.id: as_sent(view) for view in calls.views()}


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
    return [replace(record, at=at) for record, at in zip(order, times, strict=True)]


def outline(watched: Watched) -> dict[str, tuple[str, tuple[str, ...], str | None]]:
    """What a call's end says, by call."""
    cleared = [fact for fact in watched.heard if isinstance(fact, CallCleared)]
    return {fact.call: (fact.outcome, tuple(sorted(fact.agents)), fact.queue) for fact in cleared}


seeds = st.integers(0, 2**32 - 1)
many = settings(max_examples=150)


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
    return [replace(record, at=at) for record, at in zip(wild, times, strict=True)]


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
    st.builds(PartyMuted, clock, ids, ids, st.booleans()),
    st.builds(VoicemailEnded, clock, ids, ids, queues, queues),
]
garbage = st.one_of(KINDS)


def test_garbage_is_of_every_kind() -> None:
    assert len(KINDS) == len(model().handles)


@settings(max_examples=250)
@given(st.lists(garbage, max_size=60), st.sampled_from(list(MAPS.values())), st.booleans())
def test_rules_hold_for_garbage(rubbish: list[Record], agents: dict[str, str], in_order: bool) -> None:
    """Any records at all, also with times that go back: no exception, no illegal move, nothing kept at the end."""
    watched = Watched(agents, steady=in_order)
    if in_order:
        rubbish = [replace(record, at=float(n)) for n, record in enumerate(rubbish)]
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
        replace(appeared, at=4.0),
        ChannelGone(5.0, "1.1", "1.1", 16),
        ChannelGone(5.0, "1.2", "1.1", 16),
    ):
        watched.apply(record)
    ends = [fact.call for fact in watched.heard if isinstance(fact, CallCleared)]
    assert len(ends) == len(set(ends)) == 2
    assert not any(watched.calls.sizes().values())
    assert not any(isinstance(fact, CallEstablished) for fact in watched.heard)


# ------------------------------------------------------------------------------------------------ a small PBX


@dataclasses.dataclass
class Channel:
    """A channel of the made-up PBX. `talked` is the truth the model's talk times are held to."""

    uniqueid: str
    linkedid: str
    name: str
    up: bool = False
    rings: bool = False
    bridge: str | None = None
    holds: bool = False
    queue: str | None = None
    slot: str | None = None
    dialler: Channel | None = None
    member: bool = False
    talked: float = 0.0


picks = st.integers(0, 11)


class SmallPbx(RuleBasedStateMachine):
    """A PBX that only does what Asterisk could, at random; the model watches and must agree with what it did."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = Watched({f"PJSIP/110{n}": f"agent{n}" for n in range(4)})
        self.channels: dict[str, Channel] = {}
        self.past: dict[str, float] = {}
        self.now = 1000.0
        self.serial = 0

    # -- what Asterisk does

    def say(self, kind: type[Record], *values: object) -> None:
        self.watched.apply(kind(self.now, *values))

    def about(self, kind: type[Record], channel: Channel, *values: object) -> None:
        self.say(kind, channel.uniqueid, channel.linkedid, *values)

    def number(self) -> int:
        self.serial += 1
        return self.serial

    def begin(
        self, device: str, state: ChannelState, linkedid: str | None = None, exten: str = "s"
    ) -> Channel:
        uniqueid = f"1.{self.number():06}"
        name = f"{device}-{self.serial:08x}"
        channel = Channel(uniqueid, linkedid or uniqueid, name, up=state is ChannelState.UP)
        self.channels[uniqueid] = channel
        context = "from-trunk" if "trunk" in device else "from-agent"
        self.about(ChannelAppeared, channel, name, state, "1555", None, exten, context, {})
        return channel

    def answer(self, channel: Channel) -> None:
        if not channel.up:
            channel.up = True
            self.about(ChannelStateChanged, channel, ChannelState.UP)

    def ring(self, channel: Channel) -> None:
        channel.rings = True
        self.about(ChannelStateChanged, channel, ChannelState.RINGING)

    def enter(
        self, channel: Channel, bridge: str, technology: str = "simple_bridge", kind: str = "basic"
    ) -> None:
        members = [c for c in self.channels.values() if c.bridge == bridge]
        if kind == "basic":
            oldest = min([channel.linkedid, *(c.linkedid for c in members)])
            for each in (channel, *members):
                each.linkedid = oldest
        channel.bridge = bridge
        self.about(BridgeEntered, channel, bridge, technology, kind)

    def leave(self, channel: Channel) -> None:
        if channel.bridge is not None:
            bridge, channel.bridge, channel.holds = channel.bridge, None, False
            self.about(BridgeLeft, channel, bridge)
            if not [c for c in self.channels.values() if c.bridge == bridge]:
                self.say(BridgeGone, bridge)

    def pair(self, one: Channel, two: Channel) -> None:
        bridge = f"b{self.number()}"
        self.enter(one, bridge)
        self.enter(two, bridge)

    def hang_up(self, channel: Channel, cause: int = 16) -> None:
        if channel.uniqueid not in self.channels:
            return
        self.about(HangupRequested, channel)
        for dialled in [c for c in self.channels.values() if c.dialler is channel]:
            self.say(DialEnded, channel.uniqueid, dialled.uniqueid, "CANCEL")
            self.hang_up(dialled, 0)
        if channel.queue is not None:
            self.about(CallerGaveUpQueue, channel, channel.queue)
            self.about(CallerLeftQueue, channel, channel.queue)
        if channel.slot is not None:
            self.about(CallUnparked, channel, channel.slot, "given_up", None)
        self.leave(channel)
        del self.channels[channel.uniqueid]
        self.past[channel.uniqueid] = channel.talked
        self.about(ChannelGone, channel, cause)

    # -- who can do what

    def idle(self, channel: Channel) -> bool:
        rings = any(c.dialler is channel for c in self.channels.values())
        return channel.bridge is channel.queue is channel.slot is channel.dialler is None and not rings

    def some(self, pick: int, which: Callable[[Channel], bool]) -> Channel | None:
        found = [channel for channel in self.channels.values() if which(channel)]
        return found[pick % len(found)] if found else None

    # -- rules

    @rule(seconds=st.floats(0.01, 30))
    def time_passes(self, seconds: float) -> None:
        for channel in self.channels.values():
            others = [c for c in self.channels.values() if c is not channel and c.bridge == channel.bridge]
            together = channel.bridge is not None and channel.slot is None and not channel.holds
            if together and any(not other.holds for other in others):
                channel.talked += seconds
        self.now += seconds
        self.watched.tick(self.now)

    @precondition(lambda self: len(self.channels) < 12)
    @rule(answered=st.booleans())
    def a_customer_calls(self, answered: bool) -> None:
        caller = self.begin("PJSIP/trunk", ChannelState.RING, exten="5550100")
        if answered:
            self.answer(caller)

    @precondition(lambda self: len(self.channels) < 12)
    @rule(agent=st.integers(0, 3))
    def an_agent_goes_off_hook(self, agent: int) -> None:
        self.begin(f"PJSIP/110{agent}", ChannelState.RING, exten="1102")

    @precondition(lambda self: len(self.channels) < 12)
    @rule(
        pick=picks,
        device=st.sampled_from(["PJSIP/1101", "PJSIP/1102", "PJSIP/trunk"]),
        rings=st.booleans(),
    )
    def dial(self, pick: int, device: str, rings: bool) -> None:
        caller = self.some(pick, self.idle)
        if caller is None:
            return
        leg = self.begin(device, ChannelState.DOWN, caller.linkedid)
        leg.dialler = caller
        self.say(DialBegun, caller.uniqueid, leg.uniqueid, "15550001" if "trunk" in device else None)
        if rings:
            self.ring(leg)
            self.say(DialProgressed, leg.uniqueid, "RINGING")

    @rule(pick=picks, queue=st.sampled_from(["sales", "support"]))
    def join_a_queue(self, pick: int, queue: str) -> None:
        caller = self.some(pick, self.idle)
        if caller is None:
            return
        self.answer(caller)
        caller.queue = queue
        self.about(CallerJoinedQueue, caller, queue, 1, {})

    @precondition(lambda self: len(self.channels) < 12)
    @rule(pick=picks, agent=st.integers(0, 3))
    def the_queue_rings(self, pick: int, agent: int) -> None:
        caller = self.some(pick, lambda c: c.queue is not None)
        if caller is None:
            return
        leg = self.begin(f"PJSIP/110{agent}", ChannelState.DOWN, caller.linkedid)
        leg.dialler, leg.member = caller, True
        self.about(MemberCalled, caller, leg.uniqueid, caller.queue, f"PJSIP/110{agent}")
        self.say(DialBegun, caller.uniqueid, leg.uniqueid, None)
        self.ring(leg)

    @rule(pick=picks)
    def the_dialled_answers(self, pick: int) -> None:
        leg = self.some(pick, lambda c: c.dialler is not None)
        if leg is None:
            return
        caller = leg.dialler
        assert caller is not None
        self.answer(leg)
        self.say(DialEnded, caller.uniqueid, leg.uniqueid, "ANSWER")
        leg.dialler = None
        for rival in [c for c in self.channels.values() if c.dialler is caller]:
            self.say(DialEnded, caller.uniqueid, rival.uniqueid, "CANCEL")
            self.hang_up(rival, 26)
        if caller.queue is not None:
            self.about(CallerLeftQueue, caller, caller.queue)
            self.about(MemberConnected, caller, leg.uniqueid, caller.queue, "PJSIP/1101")
            caller.queue = None
        self.answer(caller)
        self.pair(leg, caller)

    @rule(pick=picks, how=st.sampled_from([("BUSY", 17), ("NOANSWER", 19), ("CONGESTION", 34)]))
    def the_dialled_does_not(self, pick: int, how: tuple[str, int]) -> None:
        leg = self.some(pick, lambda c: c.dialler is not None)
        if leg is None:
            return
        caller = leg.dialler
        assert caller is not None
        self.say(DialEnded, caller.uniqueid, leg.uniqueid, how[0])
        if leg.member:
            self.about(MemberDidNotAnswer, caller, leg.uniqueid, caller.queue or "sales", "PJSIP/1101")
        self.hang_up(leg, how[1])

    @rule(pick=picks)
    def the_queue_times_out(self, pick: int) -> None:
        caller = self.some(pick, lambda c: c.queue is not None)
        if caller is None:
            return
        for leg in [c for c in self.channels.values() if c.dialler is caller]:
            self.hang_up(leg, 0)
        self.about(CallerGaveUpQueue, caller, caller.queue)
        self.about(CallerLeftQueue, caller, caller.queue)
        caller.queue = None

    @rule(pick=picks)
    def hold_or_retrieve(self, pick: int) -> None:
        channel = self.some(pick, lambda c: c.bridge is not None and c.slot is None)
        if channel is None:
            return
        channel.holds = not channel.holds
        self.about(PhoneHeld, channel, channel.holds)
        for other in [c for c in self.channels.values() if c.bridge == channel.bridge and c is not channel]:
            self.about(MusicChanged, other, channel.holds)

    @rule(pick=picks)
    def the_server_parts_them(self, pick: int) -> None:
        channel = self.some(pick, lambda c: c.bridge is not None and c.slot is None)
        if channel is None:
            return
        both = [c for c in self.channels.values() if c.bridge == channel.bridge]
        for each in both:
            self.leave(each)
        for each in both:
            self.about(MusicChanged, each, True)

    @rule(pick=picks)
    def the_server_joins_two(self, pick: int) -> None:
        one = self.some(pick, lambda c: c.up and self.idle(c))
        if one is None:
            return
        two = self.some(pick, lambda c: c.up and self.idle(c) and c is not one)
        if two is None:
            return
        for each in (one, two):
            self.about(MusicChanged, each, False)
        self.pair(one, two)

    @rule(pick=picks)
    def blind_transfer(self, pick: int) -> None:
        transferer = self.some(pick, lambda c: c.bridge is not None and c.slot is None)
        if transferer is None:
            return
        others = [c for c in self.channels.values() if c.bridge == transferer.bridge and c is not transferer]
        if len(others) != 1:
            return
        self.say(BlindlyTransferred, transferer.uniqueid, others[0].uniqueid, "1102")
        self.leave(others[0])
        self.hang_up(transferer)

    @rule(pick=picks)
    def park(self, pick: int) -> None:
        channel = self.some(pick, lambda c: c.up and self.idle(c))
        if channel is None:
            return
        channel.slot = str(700 + self.number())
        self.enter(channel, f"parking{self.number()}", "holding_bridge", "parking")
        self.about(CallParked, channel, "default", channel.slot)

    @rule(pick=picks, reason=st.sampled_from(["retrieved", "timed_out"]))
    def unpark(self, pick: int, reason: str) -> None:
        channel = self.some(pick, lambda c: c.slot is not None)
        if channel is None:
            return
        self.about(CallUnparked, channel, channel.slot, reason, None)
        channel.slot = None
        self.leave(channel)

    @rule(pick=picks)
    def enter_the_conference(self, pick: int) -> None:
        channel = self.some(pick, lambda c: c.up and self.idle(c))
        if channel is None:
            return
        self.enter(channel, "room", "softmix", "base")
        self.about(ConferenceJoined, channel, "8001")

    @rule()
    def asked_for_everything(self) -> None:
        """What the switch lists is what the model has: nothing is wrong, nothing is told."""
        rows = []
        waiting = []
        for c in self.channels.values():
            state = ChannelState.UP if c.up else ChannelState.RINGING if c.rings else ChannelState.DOWN
            rows.append(
                ChannelRow(c.uniqueid, c.linkedid, c.name, state, "1555", None, "s", "x", "", c.bridge, 1, {})
            )
            if c.queue is not None:
                waiting.append(WaitingRow(c.queue, c.uniqueid, 1, 1))
        parked = [
            ParkedRow(c.uniqueid, "default", c.slot) for c in self.channels.values() if c.slot is not None
        ]
        facts, differences = self.watched.rebuild(rows, waiting, parked, self.now)
        assert not facts
        assert not any(differences.values()), differences

    @rule(pick=picks, together=st.booleans())
    def somebody_hangs_up(self, pick: int, together: bool) -> None:
        channel = self.some(pick, lambda c: True)
        if channel is None:
            return
        bridge = channel.bridge
        self.hang_up(channel)
        left = [c for c in self.channels.values() if bridge not in (None, "room") and c.bridge == bridge]
        for other in left:
            self.leave(other)
            if together:
                self.hang_up(other)

    # -- what must hold

    @invariant()
    def who_talk_together_are_in_one_call(self) -> None:
        call_of = {c.id: view.id for view in self.watched.calls.views() for c in view.connections}
        for channel in self.channels.values():
            for other in self.channels.values():
                if channel.bridge is not None and channel.bridge == other.bridge and channel.bridge != "room":
                    one, two = f"main:{channel.uniqueid}", f"main:{other.uniqueid}"
                    assert call_of[one] == call_of[two]

    @invariant()
    def states_are_true(self) -> None:
        states = {c.id: c.state for view in self.watched.calls.views() for c in view.connections}
        for channel in self.channels.values():
            state = states[f"main:{channel.uniqueid}"]
            peers = [c for c in self.channels.values() if c.bridge == channel.bridge and c is not channel]
            if channel.bridge is not None and channel.slot is None and peers:
                if channel.holds and channel.talked:
                    assert state is ConnectionState.HOLD
                elif not any(peer.holds for peer in (channel, *peers)):
                    assert state is ConnectionState.CONNECTED
            if channel.queue is not None:
                assert state is ConnectionState.QUEUED
            if channel.dialler is not None:
                assert state in (ConnectionState.INITIATED, ConnectionState.ALERTING)

    def teardown(self) -> None:
        for channel in tuple(self.channels.values()):
            self.hang_up(channel)
        self.watched.tick(self.now + 10)
        assert not any(self.watched.calls.sizes().values()), self.watched.calls.sizes()
        talked: dict[str, float] = dict.fromkeys(self.past, 0.0)
        for fact in self.watched.heard:
            if isinstance(fact, ConnectionCleared):
                talked[fact.connection.id.removeprefix("main:")] += fact.talked
        assert talked == pytest.approx(self.past, abs=0.001)


TestSmallPbx = SmallPbx.TestCase
TestSmallPbx.settings = settings(max_examples=80, stateful_step_count=40)
