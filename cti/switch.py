"""One PBX: its link, its calls and queues, and how the two are brought back together after a break.

While the state is being asked for, events that arrive are held back and folded afterwards; what was found different is
published with its reason and counted. The same comparison runs every minute, so a lost event is found and mended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import structlog

from cti.ami_events import (
    ChannelAppeared,
    ChannelGone,
    ConfigurationReloaded,
    MemberRemoved,
    MemberSeen,
    Record,
    channel_rows,
    parked_rows,
    queue_rows,
)
from cti.calls import Calls
from cti.facts import Fact, PbxResynced, PbxStatusChanged
from cti.legs import moment
from cti.queues import Queues
from cti.views import PbxView

log = structlog.get_logger(__name__)

HELD_BACK_MOST = 200_000
"""Records held back while the state is asked for; beyond it the link is too far behind and is asked again from the start."""


CAUGHT_UP_AT_ONCE = 100
"""Records that were held back and are folded without a pause; then links are read and clients served."""

OVERTAKING = 0.3
"""Seconds around a list within which Asterisk may have sent an event of what the list already or not yet shows."""

SECOND_LOOK = 3.0
"""Seconds after a break at which everything is compared once more: events held back may have hidden a difference."""

ASK_AGAIN_AFTER = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts to ask for the state while Asterisk does not tell it; the last one goes on."""


NAMED_AT_MOST = 20
"""Agents named in the log at one comparison."""

CHANNELS = (
    *("uniqueid", "dialled", "dialler", "one", "two", "retriever"),
    *("transferer", "second_transferer", "transferee", "target"),
)
"""Fields of records that name a channel."""


class Link(Protocol):
    """What a switch needs of the AMI link."""

    async def query(
        self, action: str, headers: Mapping[str, str] = ..., *, timeout: float = ...
    ) -> list[bytes]:  # pragma: no cover - a protocol
        """The rows of a list action."""
        ...


@dataclass(frozen=True, slots=True)
class LinkState:
    """What became of a link, in the words of `PbxStatusChanged`."""

    phase: str
    code: str
    why: str
    at: float


class Switch:
    """The state of one PBX. `on_records` and `on_link` are called by the link, in order, never at the same time."""

    def __init__(
        self,
        pbx: str,
        *,
        calls: Calls,
        queues: Queues,
        publish: Callable[[Iterable[Fact]], None],
        resync_every: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.pbx = pbx
        self.calls = calls
        self.queues = queues
        self.link: Link | None = None
        self._publish = publish
        self._resync_every = resync_every
        self._clock = clock
        self._state = LinkState("connecting", "", "", clock())
        self._held: list[Record] | None = None
        self._touched: set[str] | None = None
        self._resyncing: asyncio.Task[None] | None = None
        self._comparing = asyncio.Lock()
        self._second_look: asyncio.TimerHandle | None = None
        self._told = ("connecting", "", "")
        self._knew = False
        self.synced = False
        self.drift: dict[str, int] = {}
        self.events = 0
        self.newest_event = 0.0

    @property
    def view(self) -> PbxView:
        """The link as clients see it."""
        s = self._state
        phase = "connecting" if s.phase == "up" and not self.synced else s.phase
        return PbxView(id=self.pbx, phase=phase, code=s.code, why=s.why, since=moment(s.at))

    # ------------------------------------------------------------------------------------------ from the link

    def on_link(self, state: LinkState) -> None:
        """Takes note of the link's state. After each login everything is asked for before the PBX counts as up."""
        self._state = state
        self.synced = False
        self._held = [] if state.phase == "up" else None
        self._stop_asking()
        self._publish(self._news())
        if state.phase == "up":
            self.ask_again("reconnected" if self._knew else "connected")

    def _stop_asking(self) -> None:
        self._touched = None
        if self._resyncing is not None:
            self._resyncing.cancel()
            self._resyncing = None
        if self._second_look is not None:
            self._second_look.cancel()
            self._second_look = None

    def status(self) -> Fact:
        """The link's state as a fact; `at` is since when it is so, as in the view."""
        view = self.view
        return PbxStatusChanged(at=view.since, pbx=self.pbx, phase=view.phase, code=view.code, why=view.why)

    def _news(self) -> list[Fact]:
        """The link's state as a fact, if it is not the one last told."""
        view = self.view
        told, self._told = self._told, (view.phase, view.code, view.why)
        return [self.status()] if told != self._told else []

    def on_records(self, records: list[Record]) -> None:
        """Folds a chunk of records and publishes what they tell."""
        self.events += len(records)
        if self._touched is not None:
            for record in records:
                self._touched |= _names(record)
        if self._held is not None:
            self._held.extend(records)
            if len(self._held) > HELD_BACK_MOST:
                log.warning(
                    "too many events while the state was asked for", pbx=self.pbx, held=len(self._held)
                )
                self._held.clear()
                self.ask_again("too many events while the state was asked for")
            return
        self._fold(records)

    def _fold(self, records: list[Record]) -> None:
        for record in records:
            if record.at == 0.0:
                record = msgspec.structs.replace(record, at=self._clock())
            self.newest_event = record.at
            try:
                facts = self._fold_one(record)
            except Exception:
                log.exception("a record could not be folded", pbx=self.pbx, record=type(record).__name__)
                self.ask_again("a record could not be folded")
                continue
            if facts:
                self._publish(facts)

    def _fold_one(self, record: Record) -> list[Fact]:
        if isinstance(record, MemberSeen | MemberRemoved):
            return self.queues.apply(record)
        if isinstance(record, ConfigurationReloaded):
            self.ask_again("Asterisk reloaded its configuration")
            return []
        return self._with_queues(self.calls.apply(record))

    def _with_queues(self, facts: list[Fact]) -> list[Fact]:
        """The facts of calls, each followed by what it means for those who wait."""
        told: list[Fact] = []
        for fact in facts:
            told.append(fact)
            told += self.queues.hear(fact)
        return told

    def tick(self) -> None:
        """Settles what only time can tell."""
        if self.synced:
            facts = self._with_queues(self.calls.tick(self._clock()))
            if facts:
                self._publish(facts)

    def events_late(self, seconds: float | None) -> None:
        """Tells that events come so many seconds late, or are timely again (None). Counts while the state is known."""
        if not self.synced:
            return
        why = (
            f"its events come {seconds:.1f} s late: what is shown may be over already"
            if seconds is not None
            else ""
        )
        self._state = LinkState("up", "late" if why else "", why, self._clock())
        self._publish(self._news())

    @property
    def timely(self) -> bool:
        """Whether its state is known and its events come in time: ask before deciding on what is shown."""
        return self.synced and self._state.code != "late"

    # ------------------------------------------------------------------------------------------ asking again

    def ask_again(self, reason: str) -> None:
        """Begins a comparison with Asterisk; one that is running begins anew."""
        if self._resyncing is not None and self._resyncing is not asyncio.current_task():
            self._resyncing.cancel()
        self._resyncing = asyncio.get_running_loop().create_task(
            self._resync(reason), name=f"resync {self.pbx}"
        )

    async def _resync(self, reason: str) -> None:
        link = self.link
        if link is None:
            return
        for attempt in range(1_000_000):
            try:
                async with self._comparing:
                    await self._compare(link, reason)
                return
            except Exception as error:
                log.warning(
                    "the state could not be asked for", pbx=self.pbx, attempt=attempt + 1, error=str(error)
                )
                if self.synced:  # a regular comparison: the next one will do
                    self._touched = None
                    return
                self._say_why_not(error)
            await asyncio.sleep(ASK_AGAIN_AFTER[min(attempt, len(ASK_AGAIN_AFTER) - 1)])

    def _say_why_not(self, error: Exception) -> None:
        why = f"{self.pbx} is connected, but its state cannot be asked for: {error}"
        self._state = replace(self._state, code="not_readable", why=why)
        self._publish(self._news())

    async def _compare(self, link: Link, reason: str) -> None:
        """Asks for everything and takes it over.

        Lists and events overtake one another on their way: what events speak of around the time of the lists is left to
        the events. After a break they are held back meanwhile; in a regular comparison they are folded at once, so that
        nobody waits for it.
        """
        broken = self._held is not None
        self._touched = set()
        if not broken:
            await asyncio.sleep(OVERTAKING)
        queue_list = await link.query("QueueStatus")
        channel_list = await link.query("CoreShowChannels")
        parked_list = await self._parked_list(link)
        if not broken:
            await asyncio.sleep(OVERTAKING)
        now = self._clock()
        held, self._held = self._held or [], None
        touched, self._touched = frozenset(self._touched if not broken else _born_or_gone(held)), None
        queues, members, waiting = queue_rows(queue_list)
        channels = channel_rows(channel_list)
        alive = {row.uniqueid for row in channels}
        waiting = [row for row in waiting if row.uniqueid in alive]
        queue_facts, queue_wrong = self.queues.rebuild(queues, members, now, touched)
        call_facts, call_wrong = self.calls.rebuild(channels, waiting, parked_rows(parked_list), now, touched)
        wrong = {name: count for name, count in {**queue_wrong, **call_wrong}.items() if count}
        first, self.synced = not self.synced, True
        if self._knew:
            for name, count in wrong.items():
                self.drift[name] = self.drift.get(name, 0) + count
        self._knew = True
        facts: list[Fact] = [*queue_facts, *self._with_queues(call_facts)]
        if first:
            self._state = LinkState("up", "", "", now)
            facts[:0] = self._news()
        if first or wrong:
            resynced = PbxResynced(
                at=moment(now), pbx=self.pbx, reason=reason, calls=len(self.calls), differences=wrong
            )
            facts.append(resynced)
            log.info(
                "state compared with Asterisk",
                pbx=self.pbx,
                reason=reason,
                calls=len(self.calls),
                agents=_agents_in([*queue_facts, *call_facts]) if wrong else [],
                **wrong,
            )
        self._publish(facts)
        await self._catch_up(held)
        if first:
            self._second_look = asyncio.get_running_loop().call_later(SECOND_LOOK, self._look_again)

    async def _catch_up(self, held: list[Record]) -> None:
        """Folds what was held back, and what arrives meanwhile."""
        while held:
            self._held = []
            for start in range(0, len(held), CAUGHT_UP_AT_ONCE):
                self._fold(held[start : start + CAUGHT_UP_AT_ONCE])
                await asyncio.sleep(0)
            held = self._held
        self._held = None

    def _look_again(self) -> None:
        if self.synced and (self._resyncing is None or self._resyncing.done()):
            self.ask_again("second look after a break")

    @staticmethod
    async def _parked_list(link: Link) -> list[bytes]:
        """ParkedCalls; a PBX without the parking module knows no such action and has nothing parked."""
        try:
            return await link.query("ParkedCalls")
        except Exception as error:
            if "unknown" in str(error).lower() or "invalid" in str(error).lower():
                return []
            raise

    async def run(self) -> None:
        """Compares with Asterisk every `resync_every` seconds while the link is up, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._resync_every)
                if self.synced and (self._resyncing is None or self._resyncing.done()):
                    self.ask_again("regular comparison")
        finally:
            self._stop_asking()


def _agents_in(facts: Iterable[Fact]) -> list[str]:
    """The logins of those whom the differences are about, by name the first `NAMED_AT_MOST`."""
    agents: set[str] = set()
    for fact in facts:
        connection = getattr(fact, "connection", None)
        found = (getattr(fact, "agent", None), getattr(connection, "agent", None))
        agents |= {login for login in (*found, *getattr(fact, "agents", ())) if login}
    return sorted(agents)[:NAMED_AT_MOST]


def _names(record: Record) -> set[str]:
    """The channels, or the queue member, that a record speaks of."""
    if isinstance(record, MemberSeen | MemberRemoved):
        return {f"{record.queue}|{record.interface}"}
    return {id for name in CHANNELS if isinstance(id := getattr(record, name, None), str)}


def _born_or_gone(held: list[Record]) -> set[str]:
    """The channels whose beginning or end is among the records held back: these tell more than the list does."""
    return {record.uniqueid for record in held if isinstance(record, ChannelAppeared | ChannelGone)}
