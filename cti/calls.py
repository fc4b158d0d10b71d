"""Calls: what AMI says about channels, folded into calls with connections (CSTA, ECMA-269). Pure: records in, facts out.

One `Calls` holds the calls of one PBX. A *leg* is a connection: a channel, or the two halves of a Local channel as one.
What a leg's state is follows from what is known of it (ringing, up, in which bridge with whom, in a queue, on hold);
`_settle` derives it after each record and says each change as a fact, so no order of events can leave a state behind.

Rules that hold for any order of events:
- only a channel's appearance makes a leg, and only once; records about unknown channels change nothing and are counted;
- states move along `TRANSITIONS` only;
- talk time is the time in a bridge with another party, never negative;
- a call ends once, when its last leg is gone; its Linkedid is never taken for the same call again.
"""

from __future__ import annotations

from collections.abc import Iterable

from cti.ami_events import (
    BridgeEntered,
    BridgeLeft,
    CallerJoinedQueue,
    CallParked,
    CallUnparked,
    ChannelAppeared,
    ChannelRow,
    ChannelState,
    ChannelStateChanged,
    ConferenceJoined,
    ParkedRow,
    Record,
    WaitingRow,
    device_of_channel,
    made_by_originate,
)
from cti.call_records import CallRecords
from cti.legs import (
    BRIDGES_OF,
    LEFT_ALONE_AFTER,
    LEFT_QUEUE_AFTER,
    Facts,
    Leg,
    in_no_call,
)

HOLDING = "cti-hold"
"""The dialplan context in which the server keeps those on hold (asterisk-config/include/extensions_cti.conf)."""


class Calls(CallRecords):
    """The calls of one PBX. `apply` folds a record and returns what happened; nothing here waits, reads a clock or fails."""

    @property
    def handles(self) -> frozenset[type[Record]]:
        """The classes of records that `apply` folds."""
        return frozenset(self._fold)

    def apply(self, record: Record) -> Facts:
        """Folds one record; returns what happened, in order. Records about unknown channels change nothing."""
        fold = self._fold.get(type(record))
        return fold(record) if fold else []

    def tick(self, now: float) -> Facts:
        """Settles what only time can tell: a caller who gave up a queue without hanging up was timed out by it; an agent's
        waiting leg that outlives the customer's waits again."""
        facts: Facts = []
        for leg, since in tuple(self._left_alone.values()):
            if now - since >= LEFT_ALONE_AFTER:
                facts += self._return(leg, now)
        for leg in tuple(self._leaving.values()):
            if leg.gave_up_at is not None and not leg.hangs_up and now - leg.gave_up_at >= LEFT_QUEUE_AFTER:
                facts += self._given_back(leg, leg.gave_up_at, "timed_out")
        return facts

    def set_data(self, call: str, values: dict[str, str], *, by: str, at: float) -> Facts:
        """Attaches correlator data to a call; an empty value removes one. Nothing for an unknown call or no change."""
        found = self._calls.get(self._key(call))
        return self._change_data(found, values, by, at) if found else []

    def waited(self, call: str) -> float:
        """Seconds that the caller has waited in queues before now, waits that go on left out."""
        found = self._calls.get(self._key(call))
        return found.waited if found else 0.0

    def handed_on(self, call: str, connection: str, target: str, *, at: float) -> Facts:
        """An agent hands on a caller who is on hold: the server does it, so nobody else will tell."""
        found = self._calls.get(self._key(call))
        leg = found.legs.get(self._key(connection)) if found else None
        if found is None or leg is None or leg.transferred:
            return []
        leg.transferred = True
        return [self._transferred(found, leg, "by_server", target, at)]

    def adopt(self, call: str, linkedid: str) -> None:
        """Channels that will come with this Linkedid are the call's own: somebody is called to join it."""
        found = self._calls.get(self._key(call))
        if found is not None and self._current(linkedid) is None:
            self._call_also(linkedid, found)

    def expect(self, call: str, uniqueid: str, channel: str) -> None:
        """The channel by which a supervisor listens becomes a connection of the call as soon as it is in a conversation."""
        self._expected[uniqueid] = self._key(call), channel

    def expect_no_more(self, uniqueid: str) -> None:
        """The supervisor does not take the call over."""
        self._expected.pop(uniqueid, None)

    def rebuild(
        self,
        channels: list[ChannelRow],
        waiting: list[WaitingRow],
        parked: list[ParkedRow],
        now: float,
        touched: frozenset[str] = frozenset(),
    ) -> tuple[Facts, dict[str, int]]:
        """Brings the model to what the switch says it has. Returns the facts, and how often what was found wrong:
        `missed` channels that had come, `ghosts` that had gone, `bridges`, `states`, `waits`, `parkings`, `lines` that
        differed.

        `touched`: uniqueids that events spoke of while the lists were on their way; the lists may be older or newer than
        what the model knows of these, so they are not judged.
        """
        wrong = dict.fromkeys(("missed", "ghosts", "bridges", "states", "waits", "parkings"), 0)
        facts, wrong["lines"] = self.lines.rebuild(channels, now, touched)
        there = {row.uniqueid: row for row in channels}
        gone = [u for u in self._legs if u not in there and u not in touched]
        wrong["ghosts"] = sum(not self._legs[uniqueid].cleared for uniqueid in gone)
        for uniqueid in gone:
            facts += self._drop(uniqueid, now, 0, lost=True)
        known = frozenset(self._legs)
        for row in sorted(channels, key=lambda c: (-c.age, c.uniqueid != c.linkedid, c.uniqueid)):
            if in_no_call(row.uniqueid, row.linkedid):
                continue
            if row.uniqueid not in self._legs and row.uniqueid not in touched:
                wrong["missed"] += 1
                facts += self._found(row, now)
        judged = [leg for leg in self._connections() if touched.isdisjoint(leg.ends)]
        facts += self._rebuild_waits(judged, waiting, now, wrong, known)
        slots = {row.uniqueid: row for row in parked}
        for leg in judged:
            if leg.slot is not None and slots.keys().isdisjoint(leg.ends):
                wrong["parkings"] += 1
                unparked = CallUnparked(now, leg.ends[0], leg.call.key, leg.slot, "retrieved", None)
                facts += self._unparked(unparked)
        for row in channels:
            if row.uniqueid not in touched:
                differs = self._rebuild_channel(row, row.uniqueid in slots, now, facts)
                for kind in differs if row.uniqueid in known else ():
                    wrong[kind] += 1
        for leg in judged:
            found = next((slots[end] for end in leg.ends if end in slots), None)
            if found is not None and leg.slot is None and not leg.cleared:
                wrong["parkings"] += leg.ends[0] in known
                facts += self._parked(CallParked(now, leg.ends[0], leg.call.key, found.lot, found.slot))
        return facts, wrong

    def _found(self, row: ChannelRow, now: float) -> Facts:
        """A channel found on the switch, as if its appearance had been heard when it came."""
        first = row.uniqueid == row.linkedid and not made_by_originate(row.uniqueid)
        came = first and self._is_trunk(device_of_channel(row.channel))
        state = ChannelState.RING if came and row.state is ChannelState.UP else row.state
        number_dialed = row.variables.get("CTI_DID", row.exten)
        appeared = ChannelAppeared(
            now - row.age,
            row.uniqueid,
            row.linkedid,
            row.channel,
            state,
            row.number,
            row.name,
            number_dialed,
            row.context,
            row.variables,
        )
        facts = self._appeared(appeared)
        leg, argument = self._legs.get(row.uniqueid), row.data.partition(",")[0]
        if leg is not None and not leg.local:
            facts += [*self._publish(leg, now), *self._settle(leg.call, now)]
        if leg is not None and row.application == "Queue":
            leg.call.served_by = self._queue_id(argument)
        if leg is not None and row.context == HOLDING and not row.bridge and row.state is ChannelState.UP:
            leg.set_aside, leg.music = True, row.exten != "silent"
            facts += self._settle(leg.call, now)
        if leg is not None and row.application == "AppQueue":
            leg.answered_from = leg.call.served_by
        if leg is not None and row.application == "ConfBridge":
            facts += self._conference_joined(ConferenceJoined(now, row.uniqueid, row.linkedid, argument))
        return facts

    def _connections(self) -> Iterable[Leg]:
        return {id(leg): leg for leg in self._legs.values()}.values()

    def _rebuild_waits(
        self,
        judged: Iterable[Leg],
        waiting: list[WaitingRow],
        now: float,
        wrong: dict[str, int],
        known: frozenset[str],
    ) -> Facts:
        facts: Facts = []
        waits = {row.uniqueid: row for row in waiting}
        for leg in judged:
            row = next((waits[end] for end in leg.ends if end in waits), None)
            if row is None and leg.queue is not None and not leg.connecting and leg.gave_up_at is None:
                wrong["waits"] += 1
                facts += self._given_back(leg, now, "left")
            elif row is not None and leg.queue != self._queue_id(row.queue):
                wrong["waits"] += leg.ends[0] in known
                joined = CallerJoinedQueue(
                    now - row.waited, row.uniqueid, leg.call.key, row.queue, row.position, {}
                )
                facts += self._joined_queue(joined)
        return facts

    def _rebuild_channel(self, row: ChannelRow, parked: bool, now: float, facts: Facts) -> list[str]:
        """Brings one channel to what its row says; adds to the facts and returns what differed."""
        leg = self._legs.get(row.uniqueid)
        if leg is None or leg.cleared:
            return []
        differs: list[str] = []
        if leg.ends[0] == row.uniqueid and row.state is ChannelState.UP and not leg.up:
            differs.append("states")
            leg.up = True
            facts += [*self._publish(leg, now), *self._settle(leg.call, now)]
        if leg.ends[0] == row.uniqueid and row.state is ChannelState.RINGING and not leg.rings:
            differs.append("states")
            facts += self._state_changed(ChannelStateChanged(now, row.uniqueid, row.linkedid, row.state))
        held = leg.bridges.get(row.uniqueid)
        bridge = None if leg.slot is not None or row.bridge == leg.aside else row.bridge
        if held != bridge:
            differs.append("bridges")
            if held is not None:
                facts += self._bridge_left(BridgeLeft(now, row.uniqueid, row.linkedid, held))
            if bridge is not None:
                application = "Park" if parked else row.application
                technology, kind = BRIDGES_OF.get(application, ("simple_bridge", "basic"))
                entered = BridgeEntered(now, row.uniqueid, row.linkedid, bridge, technology, kind)
                facts += self._bridge_entered(entered)
        return differs
