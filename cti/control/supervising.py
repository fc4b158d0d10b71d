"""Carries out what supervisors wish: listen, whisper, barge, take over. Who may ask is not decided here.

The supervisor's own phone is called and put into ChanSpy on the agent's channel. That leg is nobody's call: the model of
calls passes over it (`cti.legs.SPIES`), so it appears in no call and no figure. It ends with the agent's part in the call,
by itself too when the server is away (ChanSpy's option E).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog

from cti.ami import AmiError
from cti.ami_events import BridgeEntered, ChannelGone, OriginateEnded, Record, SpyStarted, fields_of
from cti.commands import CommandError
from cti.control.acting import Acting, Means
from cti.control.moves import CONNECTED, HOLD, Phase, scene, state_of
from cti.control.ports import Port
from cti.control.ringing import AUTO_ANSWER
from cti.control.steps import PROOF
from cti.facts import CallFact, CallMerged, CallView, ConnectionView, Fact, PbxStatusChanged
from cti.legs import SPIES
from cti.supervision import Mode, SupervisionChanged, SupervisionEnded, SupervisionStarted, SupervisionView

log = structlog.get_logger(__name__)

OF_SPIES: frozenset[type[Record]] = frozenset({SpyStarted, BridgeEntered, ChannelGone, OriginateEnded})
"""The classes of records that `hear_record` wants."""

OPTIONS = {Mode.LISTEN: "qES", Mode.WHISPER: "qwES", Mode.BARGE: "qBES"}
"""ChanSpy's: q without announcing, E ends with the agent's channel, S never goes on to another; w is heard by the agent, B
by both."""

ANSWERED_WITHIN = 20.0
"""Seconds a supervisor has to pick up their phone, at most: below the limit of the command."""

WHY_NOT = {17: "is busy", 18: "was not answered", 19: "was not answered", 21: "was refused"}
"""Q.850 cause → what became of the supervisor's phone."""


@dataclass(slots=True, eq=False)
class Watch:
    """A supervisor's leg. `starts` counts how often it began to hear; `channel`: its name, once it hears; `ending`: why it
    is being ended."""

    port: Port
    id: str
    supervisor: str
    agent: str
    call: str
    mode: Mode
    since: datetime
    starts: int = 0
    told: bool = False
    channel: str = ""
    cause: int | None = None
    ending: str = ""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def gone(self) -> bool:
        """Whether the leg is no more."""
        return self.cause is not None

    @property
    def who(self) -> dict[str, str]:
        """Who hears whom in which call, as facts and views name it."""
        return {"supervisor": self.supervisor, "agent": self.agent, "call": self.call}

    @property
    def view(self) -> SupervisionView:
        """As clients see it."""
        return SupervisionView(**self.who, mode=self.mode, since=self.since)


class Supervising(Acting):
    """Supervisors' legs on all PBXs. At most one a supervisor."""

    def __init__(self, means: Means, *, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        super().__init__(means)
        self._spawn = spawn
        self._watches: dict[str, Watch] = {}
        self._by_id: dict[str, Watch] = {}

    def views(self) -> list[SupervisionView]:
        """Who hears whom now."""
        return [watch.view for watch in self._watches.values() if watch.told]

    def __len__(self) -> int:
        return len(self._by_id)

    # ------------------------------------------------------------------------------------------ what is wished

    async def watch(self, supervisor: str, agent: str, call: str | None, mode: Mode) -> SupervisionView:
        """Lets the supervisor hear, and be heard as `mode` says; done once it is so. Another mode is taken up in place."""
        async with self._lock(supervisor):
            return (await self._watched(supervisor, agent, call, mode, again=True)).view

    async def stop(self, supervisor: str) -> SupervisionView:
        """Hangs the supervisor's leg up, while it still rings too; answered once it is gone. Waits for no other command."""
        watch = self._watches.get(supervisor)
        if watch is None:
            raise CommandError("wrong_state", "you are listening to nobody")
        if watch.ending == "taken_over":
            raise CommandError("wrong_state", "you are taking the call over: hang up instead")
        self._reach(watch.port)
        await self._end(watch, "stopped")
        if not await self._until(watch, lambda: watch.gone, PROOF):
            why = (
                "your phone was told to hang up and has not yet: hang it up, or wait for the end of the call"
            )
            raise CommandError("not_confirmed", why)
        return watch.view

    async def take_over(self, supervisor: str, agent: str, call: str | None) -> CallView:
        """The supervisor's phone takes the other party, the agent is let go; until both are proven the agent talks on."""
        async with self._lock(supervisor):
            found = self._present(agent, call)
            self._talking(found[0], found[1].id, agent)
            watch = await self._watched(supervisor, agent, found[1].id, Mode.LISTEN, again=False)
            port, call = watch.port, watch.call
            now = self._talking(port, call, agent)
            customer, theirs = now.customer.id, now.me.id
            channel = self._channel(port, call, now.customer)
            released = {"CTI_PARTNER": "nobody", "CTI_BACK": "", "CTI_THEN": ""}
            for name, value in released.items():
                await self._send(port, "Setvar", Channel=channel, Variable=name, Value=value)
            await self._send(port, "Setvar", Channel=watch.id, Variable="CTI_PARTNER", Value=channel)
            mine = f"{port.name}:{watch.id}"
            port.calls.expect(call, watch.id, watch.channel)
            watch.ending = "taken_over"
            try:
                await self._send(
                    port, "Redirect", Channel=watch.id, Context="cti-take-over", Exten="s", Priority="1"
                )
                if not await self._until(watch, lambda: port.calls.talk(call, mine, customer), PROOF):
                    raise CommandError("not_confirmed", "you and the caller do not talk: look at the call")
            finally:
                port.calls.expect_no_more(watch.id)
                watch.ending = ""
            me = self._channel(port, call, now.me, there=False)
            if me is not None:
                with suppress(CommandError):  # gone by itself
                    await self._send(port, "Hangup", Channel=me, Cause="16")
            if not await self._proven(port, call, lambda view: state_of(view, theirs) is None):
                raise CommandError(
                    "not_confirmed", f"you talk with the caller, and {agent} is still in the call"
                )
            view = port.calls.view(call)
            if view is None or state_of(view, customer) is None:
                raise CommandError("caller_gone", "the caller hung up meanwhile")
            return view

    # ------------------------------------------------------------------------------------------ steps

    async def _watched(
        self, supervisor: str, agent: str, call: str | None, mode: Mode, *, again: bool
    ) -> Watch:
        """The supervisor's leg in this call, begun or brought into this mode (`again`) if need be."""
        port, view, connection = self._present(agent, call)
        watch = self._watches.get(supervisor)
        if watch is None:
            return await self._begin(port, supervisor, agent, view.id, connection, mode)
        if watch.agent != agent or watch.call != view.id:
            raise CommandError("wrong_state", f"you are with a call of {watch.agent}: stop that first")
        if again:
            if watch.mode is mode:
                raise CommandError("wrong_state", f"you are there already: mode {mode}")
            await self._change(watch, mode)
        return watch

    async def _begin(
        self, port: Port, supervisor: str, agent: str, call: str, connection: ConnectionView, mode: Mode
    ) -> Watch:
        device = self._phone_of(port.name, supervisor)
        if device is None:
            raise CommandError(
                "no_phone", f"you have no phone on {port.name}: an administrator gives you one"
            )
        if any(c.agent == supervisor for view in port.calls.views() for c in view.connections):
            raise CommandError("wrong_state", "you are in a call yourself: end it first")
        names = port.calls.names_of(call, connection.id)
        if not names:
            raise CommandError("not_in_a_call", f"{agent} has hung up meanwhile")
        watch = Watch(port, f"{SPIES}{uuid4().hex}", supervisor, agent, call, mode, datetime.now(UTC))
        variables = [f"CTI_SPY_CHANNEL={names[0]}", f"CTI_SPY_OPTIONS={OPTIONS[mode]}"]
        if port.auto_answer:
            variables += AUTO_ANSWER
        rings = min(float(port.ring_seconds), ANSWERED_WITHIN)
        self._watches[supervisor] = self._by_id[watch.id] = watch
        try:
            await self._originate(
                port,
                {
                    "Channel": device,
                    "Context": "cti-spy",
                    "Exten": "s",
                    "Priority": "1",
                    "CallerID": f"<{connection.device.partition('/')[2].partition('@')[0]}>",
                    "Timeout": str(int(rings * 1000)),
                    "ChannelId": watch.id,
                    "Variable": variables,
                },
            )
            await self._until(watch, lambda: watch.gone or watch.starts > 0, rings + PROOF)
        except BaseException:
            self._forget(watch, "lost")
            raise
        if watch.starts and not watch.gone:
            return watch
        cause = watch.cause
        if not watch.gone:
            with suppress(CommandError):
                await self._send(port, "Hangup", Channel=watch.id, Cause="16")
        self._forget(watch, "lost")
        if watch.ending == "stopped":
            raise CommandError("stopped", "you have stopped it before your phone was answered")
        if watch.ending == "call_ended" or self._connection_of(port, watch.call, agent) is None:
            raise CommandError("not_in_a_call", f"{agent}'s call ended before your phone was answered")
        why = WHY_NOT.get(cause or 0, "could not be reached, or nobody picked it up")
        raise CommandError("phone_not_reached", f"your own phone {why}: look at it, then try again")

    async def _change(self, watch: Watch, mode: Mode) -> None:
        """Sends the leg into ChanSpy again with other options; proven by its beginning anew."""
        port = watch.port
        former, starts = watch.mode, watch.starts
        await self._send(port, "Setvar", Channel=watch.id, Variable="CTI_SPY_OPTIONS", Value=OPTIONS[mode])
        watch.mode = mode
        try:
            await self._send(port, "Redirect", Channel=watch.id, Context="cti-spy", Exten="s", Priority="1")
            again = await self._until(watch, lambda: watch.gone or watch.starts > starts, PROOF)
        except CommandError:
            watch.mode = former
            raise
        if watch.gone:
            raise CommandError("not_in_a_call", "the call, or your own part in it, has ended meanwhile")
        if not again:
            watch.mode = former
            raise CommandError(
                "not_confirmed", f"your phone does not change to {mode}: stop, then begin again"
            )
        self._publish([self._changed(watch)])

    async def _end(self, watch: Watch, why: str) -> None:
        watch.ending = watch.ending or why
        with suppress(CommandError):  # gone by itself
            await self._send(watch.port, "Hangup", Channel=watch.id, Cause="16")

    # ------------------------------------------------------------------------------------------ what is heard

    def hear_record(self, record: Record) -> None:
        """Takes note of what the switch says of supervisors' legs; all else passes by."""
        match record:
            case SpyStarted():
                watch = self._by_id.get(record.spyer)
                if watch is not None:
                    self._started(watch, record)
            case BridgeEntered():
                watch = self._by_id.get(record.uniqueid)
                if watch is not None:
                    self._forget(watch, "taken_over")
            case ChannelGone():
                watch = self._by_id.get(record.uniqueid)
                if watch is not None:
                    watch.cause = record.cause
                    self._forget(watch, watch.ending or self._why_gone(watch))
            case OriginateEnded(success=False):
                watch = self._by_id.get(record.uniqueid)
                if watch is not None and not watch.starts:
                    watch.cause = watch.cause or 0
                    watch.news.set()

    def hear_call(self, fact: Fact) -> None:
        """A leg ends with the agent's part in the call, and follows it into another."""
        if not self._watches or not isinstance(fact, CallFact):
            return
        merged = fact.merged if isinstance(fact, CallMerged) else None
        for watch in [w for w in self._watches.values() if w.call in (fact.call, merged)]:
            watch.news.set()
            if watch.ending:
                continue
            if merged is not None and watch.call == merged and fact_agent(fact) == watch.agent:
                watch.call = fact.call
                if watch.told:
                    self._publish([self._changed(watch)])
            if self._connection_of(watch.port, watch.call, watch.agent) is None:
                watch.ending = "call_ended"
                self._spawn(self._end(watch, "call_ended"))

    def hear_pbx(self, fact: PbxStatusChanged) -> None:
        """After a break: legs that are gone are told, those that nobody knows any more are ended."""
        for watch in self._by_id.values():
            watch.news.set()
        port = self._ports.get(fact.pbx)
        if port is not None and fact.phase == "up":
            self._spawn(self._settle(port))

    async def _settle(self, port: Port) -> None:
        began = {id for id, watch in self._by_id.items() if watch.port is port}
        try:
            rows = [fields_of(row) for row in await port.query("CoreShowChannels", {})]
        except AmiError as error:
            log.warning("supervisors' channels could not be asked for", pbx=port.name, error=str(error))
            return
        spies = {
            row["Uniqueid"]
            for row in rows
            if row.get("Uniqueid", "").startswith(SPIES) and row.get("Linkedid", "").startswith(SPIES)
        }
        for id in began - spies:
            if (watch := self._by_id.get(id)) is not None and watch.starts:
                watch.cause = 0
                self._forget(watch, "lost")
        for id in spies - self._by_id.keys():
            if ";" not in id:  # the far half of a Local channel goes with its near half
                log.info("a supervisor's channel that nobody knows is ended", pbx=port.name)
                with suppress(CommandError):
                    await self._send(port, "Hangup", Channel=id, Cause="16")
        for watch in list(self._watches.values()):
            if watch.port is port and self._connection_of(port, watch.call, watch.agent) is None:
                await self._end(watch, "call_ended")

    def _started(self, watch: Watch, record: SpyStarted) -> None:
        watch.starts += 1
        watch.channel = record.channel or watch.channel
        watch.news.set()
        if not watch.told:
            watch.told = True
            if record.at:
                watch.since = datetime.fromtimestamp(record.at, UTC)
            self._publish([SupervisionStarted(at=watch.since, mode=watch.mode, **watch.who)])

    def _changed(self, watch: Watch) -> Fact:
        return SupervisionChanged(at=datetime.now(UTC), mode=watch.mode, since=watch.since, **watch.who)

    def _why_gone(self, watch: Watch) -> str:
        there = self._connection_of(watch.port, watch.call, watch.agent) is not None
        return "hung_up" if there else "call_ended"

    def _forget(self, watch: Watch, reason: str) -> None:
        """Said once: whoever listened does no longer."""
        watch.news.set()
        self._by_id.pop(watch.id, None)
        if self._watches.get(watch.supervisor) is not watch:
            return
        del self._watches[watch.supervisor]
        if watch.told:
            self._publish([SupervisionEnded(at=datetime.now(UTC), reason=reason, **watch.who)])

    # ------------------------------------------------------------------------------------------ finding and proving

    def _present(self, agent: str, call: str | None) -> tuple[Port, CallView, ConnectionView]:
        """Where the agent talks; raises CommandError if they do not, or the PBX cannot be reached."""
        ports = [self._ports[name] for name in self._ports if call is None or call.startswith(f"{name}:")]
        for port in ports:
            for view in port.calls.views():
                if call is not None and view.id != call:
                    continue
                for c in view.connections:
                    if c.agent == agent and c.state in (CONNECTED, HOLD):
                        self._reach(port)
                        return port, view, c
        mine = [port for port in ports if self._phone_of(port.name, agent) is not None]
        for port in mine:
            self._reach(port)
        raise CommandError("not_in_a_call", f"{agent} is not talking in {'this' if call else 'any'} call now")

    def _talking(self, port: Port, call: str, agent: str) -> Any:
        view = port.calls.view(call)
        now = scene(view, agent) if view is not None else None
        if now is None:
            raise CommandError("not_in_a_call", f"{agent} has hung up meanwhile")
        if now.phase not in (Phase.TALKING, Phase.HELD):
            why = "only a call with one other party can be taken over; this one rings, or has more parties"
            raise CommandError("wrong_state", why)
        return now

    def _connection_of(self, port: Port, call: str, agent: str) -> ConnectionView | None:
        view = port.calls.view(call)
        return next((c for c in view.connections if c.agent == agent), None) if view else None

    def _channel(self, port: Port, call: str, connection: ConnectionView, *, there: bool = True) -> Any:
        channel = port.calls.channel_of(call, connection.id)
        if channel is None and there:
            raise CommandError("caller_gone", "one of the parties has hung up meanwhile")
        return channel

    def _reach(self, port: Port) -> None:
        if not port.up():
            raise CommandError("pbx_down", f"{port.name} cannot be reached at the moment: nothing was done")

    async def _until(self, watch: Watch, true: Callable[[], bool], limit: float) -> bool:
        """Whether it becomes true of the leg within `limit` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while not true():
                    watch.news.clear()
                    await watch.news.wait()
                    if not watch.port.up() and not true():
                        self._reach(watch.port)
        return true()

    async def _proven(self, port: Port, call: str, true: Callable[[CallView | None], bool]) -> bool:
        def look() -> bool | None:
            self._reach(port)
            return True if true(port.calls.view(call)) else None

        return bool(await self._waits.until(call, look, PROOF))


def fact_agent(fact: CallFact) -> str | None:
    """The agent whose connection a fact tells of."""
    connection = getattr(fact, "connection", None)
    return connection.agent if isinstance(connection, ConnectionView) else None
