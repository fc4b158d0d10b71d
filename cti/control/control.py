"""Carries out what is wished for a call: checks, acts on the PBX, and waits for the facts that prove it.

Before each step the other party is on hold or talking, never in the air; when a step fails half-way the parties are
brought together again and the error says so. Who may ask is not decided here.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

from cti.ami import ActionRefused, AmiError
from cti.ami_events import fields_of
from cti.calls import Calls
from cti.commands import CommandError
from cti.control.moves import CONNECTED, HOLD, NotPossible, Phase, Scene, require, scene, state_of
from cti.control.targets import Target, Targets
from cti.control.waits import Waits
from cti.facts import CallCleared, CallView, ConnectionView, Fact

T = TypeVar("T")
Finder = Callable[[Targets], Awaitable[Target]]

PROOF = 3.0
"""Seconds that the switch is given to show what an action did."""

RINGS = 5.0
"""Seconds until a called phone must have been reached: the answer comes once it rings."""

AUTO_ANSWER = [
    "PJSIP_HEADER(add,Call-Info)=<sip:click-to-dial>;answer-after=0",
    "PJSIP_HEADER(add,Alert-Info)=<sip:click-to-dial>;info=alert-autoanswer;delay=0",
]
"""What makes phones take a call by themselves that their own agent has asked for; those that do not know it just ring."""

TONE_GAP = 0.08
"""Seconds of silence between two tones."""

LOOK_AGAIN = 0.1
"""Seconds between two looks at a file that is to be written."""

WAV_HEAD = 44
"""Bytes of a WAV file without sound."""

RECORDING = "recording"
"""The entry in a call's data that says whether it is recorded: on, paused, or absent."""

NOBODY = "nobody"
"""Who is waited for in [cti-hold] when that wait is over: the channel ends there after the next conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One PBX as call control needs it. `caller_id`: what number a call to the outside shows, by agent and number."""

    name: str
    calls: Calls
    send: Callable[[str, Mapping[str, str]], Awaitable[Mapping[str, str]]]
    originate: Callable[[Mapping[str, str]], Awaitable[Mapping[str, str]]]
    query: Callable[[str, Mapping[str, str]], Awaitable[Sequence[bytes]]]
    up: Callable[[], bool]
    targets: Targets
    caller_id: Callable[[str, str], str]
    ring_seconds: int = 30
    auto_answer: bool = False
    recordings: str = ""
    recordings_seen_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswer:
    """What became of a call. `view` is None once the agent is no longer in it; `agent` is whose connection was meant;
    `slot` is where a call was parked."""

    call: str
    agent: str | None
    view: CallView | None
    slot: str | None = None


@dataclass(slots=True)
class Recording:
    """A recording that runs. `channel`: where Asterisk taps the call; `id` Asterisk's own."""

    port: Port
    channel: str
    id: str
    file: str
    paused: bool = False


@dataclass(slots=True)
class _Act:
    """One command at work on one call."""

    port: Port
    call: str
    agent: str
    scene: Scene


class Control:
    """Call control of all PBXs."""

    def __init__(
        self,
        ports: Mapping[str, Port],
        *,
        waits: Waits,
        phone_of: Callable[[str, str], str | None],
        publish: Callable[[Iterable[Fact]], None],
    ) -> None:
        self._publish = publish
        self._recordings: dict[str, Recording] = {}
        self._ports = ports
        self._waits = waits
        self._phone_of = phone_of
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # ------------------------------------------------------------------------------------------ hold

    async def hold(self, call: str, agent: str) -> CallAnswer:
        """The other party hears music, the agent nothing."""
        async with self._act(call, agent, "hold") as act:
            await self._park_aside(act, act.scene.customer)
            return self._answer(act)

    async def retrieve(self, call: str, agent: str) -> CallAnswer:
        """The talk goes on."""
        async with self._act(call, agent, "retrieve") as act:
            await self._bring_back(act, act.scene.customer)
            return self._answer(act)

    # ------------------------------------------------------------------------------------------ end

    async def clear_connection(self, call: str, agent: str) -> CallAnswer:
        """The agent leaves. Whom they hold alone goes too: nobody is left in the music."""
        async with self._act(call, agent) as act:
            now = act.scene
            if now.phase in (Phase.HELD, Phase.ASKING):
                for other in now.others:
                    await self._end(act, other)
            await self._end(act, now.me)
            await self._prove(
                act, lambda view: state_of(view, now.me.id) is None, "you are still in the call"
            )
            return self._answer(act)

    def known(self, call: str) -> None:
        """Raises CommandError if there is no such call, or its PBX cannot be reached."""
        self._find(call)

    def told(self, call: str, agent: str) -> CallAnswer:
        """The call as it stands, for an agent in it."""
        _, view = self._find(call)
        mine = any(c.agent == agent for c in view.connections)
        return CallAnswer(call=call, agent=agent if mine else None, view=view if mine else None)

    async def clear(self, call: str) -> CallAnswer:
        """Everybody leaves."""
        port, view = self._find(call)
        async with self._lock(call):
            gone = False
            for connection in view.connections:
                channel = port.calls.channel_of(call, connection.id)
                if channel is not None:
                    with suppress(ActionRefused):
                        await self._send(port, "Hangup", Channel=channel, Cause="16")
            gone = await self._until(port, call, lambda now: now is None, PROOF)
            if not gone:
                raise CommandError("not_confirmed", f"the call still has {self._seen(port, call)}")
            return CallAnswer(call=call, agent=None, view=None)

    # ------------------------------------------------------------------------------------------ transfer

    async def transfer(self, call: str, agent: str, find: Finder) -> CallAnswer:
        """Hands the other party on; the agent leaves. Whoever is not taken comes back to the agent's phone."""
        async with self._act(call, agent, "transfer") as act:
            target = await self._target(act, find)
            now, port = act.scene, act.port
            known = {c.id for c in now.view.connections}
            customer = self._channel(act, now.customer)
            await self._mark(
                act,
                customer,
                partner=NOBODY,
                back=now.me.device,
                then="",
                ring=port.ring_seconds,
            )
            where = "cti-queue" if target.queue else "cti-transfer"
            await self._show_caller_id(act, customer, target)
            if now.phase is Phase.TALKING:
                mine = self._channel(act, now.me)
                await self._send(port, "BlindTransfer", Channel=mine, Context=where, Exten=target.exten)
            else:
                await self._send(
                    port, "Redirect", Channel=customer, Context=where, Exten=target.exten, Priority="1"
                )
                await self._end(act, now.me)
            await self._went_on(act, target, known, now.customer.id)
            return self._answer(act)

    async def _went_on(self, act: _Act, target: Target, known: set[str], customer: str) -> None:
        """Waits until the target rings, or says what became of the caller instead."""
        me = act.scene.me.id
        queue = f"{act.port.name}:{target.exten}"
        tried: set[str] = set()

        def look(view: CallView | None) -> str | None:
            if view is None or state_of(view, customer) is None:
                return "gone"
            if state_of(view, me) is not None:
                return None
            if target.queue:
                return "rings" if view.queue == queue and view.queued_since is not None else None
            new = [c for c in view.connections if c.id not in known]
            if tried and tried.isdisjoint(c.id for c in new):
                return "failed"
            tried.update(c.id for c in new)
            return "rings" if any(c.state in RINGS_OR_THROUGH for c in new) else None

        came = await self._find_out(act.port, act.call, look, RINGS)
        if came == "rings" or (came is None and tried):
            return
        if came == "gone":
            raise CommandError("caller_gone", "the caller hung up meanwhile")
        if came == "failed":
            why = f"{target.exten} did not take it: the caller comes back"
            raise CommandError("target_not_reached", why)
        raise CommandError(
            "not_confirmed", f"{target.exten} does not ring; the call has {self._seen(act.port, act.call)}"
        )

    # ------------------------------------------------------------------------------------------ consultation

    async def consult(self, call: str, agent: str, find: Finder) -> CallAnswer:
        """Asks somebody while the other party is on hold. If the target is not reached, the parties talk on."""
        async with self._act(call, agent, "consult") as act:
            target = await self._target(act, find)
            now, port = act.scene, act.port
            known = {c.id for c in now.view.connections}
            customer, mine = self._channel(act, now.customer), self._channel(act, now.me)
            await self._mark(
                act,
                customer,
                partner=mine,
                back=now.me.device,
                then=target.exten,
                ring=port.ring_seconds,
            )
            await self._mark(act, mine, partner=customer, ring=port.ring_seconds)
            await self._show_caller_id(act, mine, target)
            asking = {"Context": "cti-consult", "Exten": target.exten, "Priority": "1"}
            if now.phase is Phase.TALKING:
                await self._send(
                    port,
                    "Redirect",
                    **_both(customer, ("cti-hold", "music"), mine, ("cti-consult", target.exten)),
                )
            else:
                await self._send(port, "Redirect", Channel=mine, **asking)
            await self._is_asked(act, target, known)
            return self._answer(act)

    async def _is_asked(self, act: _Act, target: Target, known: set[str]) -> None:
        me, customer = act.scene.me.id, act.scene.customer.id
        tried: set[str] = set()

        def look(view: CallView | None) -> str | None:
            if state_of(view, customer) is None:
                return "gone"
            if state_of(view, me) is None or view is None:
                return "left"
            new = [c for c in view.connections if c.id not in known]
            tried.update(c.id for c in new)
            if any(c.state in RINGS_OR_THROUGH for c in new):
                return "rings"
            if (
                tried
                and not new
                and state_of(view, me) is CONNECTED
                and state_of(view, customer) is CONNECTED
            ):
                return "back"
            return None

        came = await self._find_out(act.port, act.call, look, RINGS)
        if came == "rings":
            return
        if came == "gone":
            raise CommandError("caller_gone", "the caller hung up meanwhile")
        if came == "left":
            raise CommandError("not_confirmed", "your phone hung up meanwhile")
        if came == "back":
            raise CommandError(
                "target_not_reached", f"{target.exten} could not be reached; you talk with the caller again"
            )
        if not tried:
            await self._bring_back(act, act.scene.customer)
            raise CommandError(
                "target_not_reached", f"{target.exten} does not ring; you talk with the caller again"
            )

    async def alternate(self, call: str, agent: str) -> CallAnswer:
        """Changes between the two parties: who is talked with goes on hold, the other is talked with."""
        async with self._act(call, agent, "alternate") as act:
            now = act.scene
            talked, waiting = now.connected[0], now.held[0]
            await self._park_aside(act, talked)
            try:
                await self._bring_back(act, waiting, then=talked)
            except CommandError as error:
                await self._bring_back(act, talked)
                raise CommandError(
                    error.code, f"{error.message}; you talk with the same party as before"
                ) from None
            return self._answer(act)

    async def complete(self, call: str, agent: str) -> CallAnswer:
        """Brings the two parties together; the agent leaves. While the asked one still rings, the caller hears that."""
        async with self._act(call, agent, "complete") as act:
            now = act.scene
            customer, mine = self._channel(act, now.customer), self._channel(act, now.me)
            if now.phase is Phase.ASKING:
                await self._let_go(act, customer)
                return self._answer(act)
            asked = self._channel(act, now.consulted)
            await self._mark(act, mine, partner=NOBODY)
            await self._mark(act, asked, partner=NOBODY, back="", then="", queue="")
            await self._mark(act, customer, partner=NOBODY, back="", then="")
            await self._bridge(act, customer, asked)
            both = now.customer.id, now.consulted.id
            await self._prove(
                act,
                lambda view: (
                    all(state_of(view, one) is CONNECTED for one in both)
                    and state_of(view, now.me.id) is None
                ),
                "the two do not talk yet",
            )
            return self._answer(act)

    async def _let_go(self, act: _Act, customer: str) -> None:
        """The agent leaves while the asked one rings: [cti-return] calls that one again, now for the caller."""
        now = act.scene
        await self._end(act, now.me)
        asked = [c.id for c in now.called]
        await self._prove(
            act,
            lambda view: all(state_of(view, one) is None for one in (now.me.id, *asked)),
            "your phone has not let go",
        )
        await self._send(
            act.port, "Redirect", Channel=customer, Context="cti-return", Exten="s", Priority="1"
        )

        def look(view: CallView | None) -> bool:
            rest = [c for c in view.connections if c.id not in (now.me.id, now.customer.id)] if view else []
            return state_of(view, now.me.id) is None and any(c.state in RINGS_OR_THROUGH for c in rest)

        if not await self._until(act.port, act.call, look, RINGS):
            raise CommandError("not_confirmed", f"the call has {self._seen(act.port, act.call)}")

    async def cancel(self, call: str, agent: str) -> CallAnswer:
        """Ends the consultation: whoever was asked leaves, the agent talks with the other party again."""
        async with self._act(call, agent, "cancel") as act:
            now = act.scene
            asked = now.consulted
            if state_of(now.view, now.customer.id) is not CONNECTED:
                await self._bring_back(act, now.customer)
            await self._end(act, asked)
            await self._prove(
                act, lambda view: state_of(view, asked.id) is None, "whoever was asked is still there"
            )
            return self._answer(act)

    # ------------------------------------------------------------------------------------------ making calls

    async def make(self, pbx: str, agent: str, find: Finder) -> CallAnswer:
        """Calls the agent's own phone; once it is answered, the target. Answered when the phone rings or is up."""
        port = self._port(pbx)
        device = self._phone_of(pbx, agent)
        if device is None:
            raise CommandError("no_phone", f"{agent} has no phone on {pbx}: an administrator gives one")
        async with self._lock(f"make {agent}"):
            busy = next(
                (view for view in port.calls.views() if any(c.agent == agent for c in view.connections)), None
            )
            if busy is not None:
                raise CommandError("wrong_state", "you are in a call: end it, or consult somebody in it")
            try:
                target = await self._sought(port, find)
            except NotPossible as error:
                raise CommandError(error.code, str(error)) from None
            id = f"cti-{uuid4().hex}"
            call = f"{pbx}:{id}"
            shown = port.caller_id(agent, target.exten)
            variables = [f"CTI_AGENT={agent}", *([f"__CTI_CALLERID={shown}"] if shown else [])]
            if port.auto_answer:
                variables += AUTO_ANSWER
            where = "cti-queue" if target.queue else "cti-agent"
            await self._originate(
                port,
                {
                    "Channel": device,
                    "Context": where,
                    "Exten": target.exten,
                    "Priority": "1",
                    "CallerID": f"<{target.exten}>",
                    "Timeout": str(port.ring_seconds * 1000),
                    "ChannelId": id,
                    "Variable": variables,
                },
            )
            seen: list[str] = []

            def look(view: CallView | None) -> str | None:
                mine = [c for c in view.connections if c.agent == agent] if view else []
                if mine:
                    seen.append(mine[0].state)
                    return "rings" if mine[0].state in RINGS_OR_THROUGH else None
                return "refused" if seen else None

            came = await self._find_out(port, call, look, RINGS)
            if came == "refused" or (came is None and not seen):
                raise CommandError(
                    "phone_not_reached",
                    "your own phone cannot be reached or is busy: look at it, then try again",
                )
            if came is None:
                with suppress(CommandError):
                    await self._send(port, "Hangup", Channel=id, Cause="16")
                raise CommandError("phone_not_reached", f"your own phone does not ring within {RINGS:g} s")
            return CallAnswer(call=call, agent=agent, view=port.calls.view(call))

    # ------------------------------------------------------------------------------------------ conference

    async def join(self, call: str, agent: str) -> CallAnswer:
        """Makes a conference of a consultation: all three talk with one another."""
        async with self._act(call, agent, "join") as act:
            now, room = act.scene, _room()
            asked = now.connected[0] if now.connected[0].id != now.customer.id else now.held[0]
            await self._invite(act, now.customer, room)
            await self._invite(act, now.me, room)
            await self._invite(act, asked, room)
            mine = self._channel(act, now.me)
            talked, waiting = self._channel(act, now.connected[0]), self._channel(act, now.held[0])
            into = ("cti-conference", room)
            await self._send(act.port, "Redirect", **_both(mine, into, talked, into))
            await self._send(
                act.port, "Redirect", Channel=waiting, Context="cti-conference", Exten=room, Priority="1"
            )
            await self._all_in(act, (now.me.id, now.customer.id, asked.id))
            return self._answer(act)

    async def add(self, call: str, agent: str, find: Finder) -> CallAnswer:
        """Calls somebody into the conference; a call of two becomes one first. Answered once the target rings."""
        async with self._act(call, agent, "add") as act:
            target = await self._target(act, find)
            now, port = act.scene, act.port
            if target.queue:
                raise NotPossible(
                    "no_such_target", "a queue cannot join a conference: name a number or an agent"
                )
            room = now.view.conference
            if room is None:
                room = _room()
                await self._invite(act, now.customer, room)
                await self._invite(act, now.me, room)
                into = ("cti-conference", room)
                both = _both(self._channel(act, now.customer), into, self._channel(act, now.me), into)
                await self._send(port, "Redirect", **both)
                await self._all_in(act, (now.me.id, now.customer.id))
            known = {c.id for c in (port.calls.view(call) or now.view).connections}
            id = f"cti-{uuid4().hex}"
            port.calls.adopt(call, id)
            shown = port.caller_id(agent, target.exten)
            await self._originate(
                port,
                {
                    "Channel": f"Local/{target.exten}@{target.context}",
                    "Context": "cti-conference",
                    "Exten": room,
                    "Priority": "1",
                    "CallerID": f"<{now.view.ani or now.me.number or ''}>",
                    "Timeout": str(port.ring_seconds * 1000),
                    "ChannelId": id,
                    "Variable": ["CTI_PARTY=marked", *([f"__CTI_CALLERID={shown}"] if shown else [])],
                },
            )
            tried: set[str] = set()

            def look(view: CallView | None) -> str | None:
                if view is None or state_of(view, now.me.id) is None:
                    return "left"
                new = [c for c in view.connections if c.id not in known]
                if tried and not new:
                    return "failed"
                tried.update(c.id for c in new)
                real = [c for c in new if not c.device.startswith("Local/")]
                return "rings" if any(c.state in RINGS_OR_THROUGH for c in real) else None

            came = await self._find_out(port, call, look, RINGS)
            if came == "left":
                raise CommandError("not_confirmed", "your phone has left the conference meanwhile")
            if came == "failed" or not tried:
                why = f"{target.exten} could not be reached; the others talk on"
                raise CommandError("target_not_reached", why)
            return self._answer(act)

    async def remove(self, call: str, agent: str, party: str) -> CallAnswer:
        """Takes one party out of the conference."""
        async with self._act(call, agent, "change the conference") as act:
            other = self._party(act, party)
            await self._end(act, other)
            await self._prove(act, lambda view: state_of(view, other.id) is None, "they are still there")
            return self._answer(act)

    async def mute(self, call: str, agent: str, party: str, muted: bool) -> CallAnswer:
        """Whether the others hear a party of the conference; proven by what the conference lists."""
        async with self._act(call, agent, "change the conference") as act:
            other, room = self._party(act, party, me=True), act.scene.view.conference or ""
            names = act.port.calls.names_of(call, other.id)
            rows = await self._in_room(act.port, room)
            inside = next((name for name in rows if name in names or (name[:-2] + ";1") in names), None)
            if inside is None:
                raise NotPossible("caller_gone", "this party is not in the conference any more")
            action = "ConfbridgeMute" if muted else "ConfbridgeUnmute"
            await self._send(act.port, action, Conference=room, Channel=inside)
            if (await self._in_room(act.port, room)).get(inside) is not muted:
                raise CommandError("not_confirmed", "the conference does not show it")
            return self._answer(act)

    async def hand_over(self, call: str, agent: str) -> CallAnswer:
        """Leaves a conference in which others go on talking."""
        async with self._act(call, agent, "change the conference") as act:
            now = act.scene
            if len(now.connected) < 2:
                raise NotPossible(
                    "wrong_state", "nobody would be left to talk with the caller: hang up instead"
                )
            await self._end(act, now.me)
            rest = [other.id for other in now.connected]
            await self._prove(
                act,
                lambda view: (
                    state_of(view, now.me.id) is None
                    and all(state_of(view, one) is CONNECTED for one in rest)
                ),
                "the others do not talk on",
            )
            return self._answer(act)

    def _party(self, act: _Act, party: str, *, me: bool = False) -> ConnectionView:
        found = next((c for c in act.scene.others if c.id == party), None)
        if found is None and me and act.scene.me.id == party:
            return act.scene.me
        if found is None:
            raise NotPossible("no_such_party", "nobody else in this call has this connection id")
        return found

    async def _invite(self, act: _Act, who: ConnectionView, room: str) -> None:
        """Says on a channel how it sits in the room: the customer never stays there alone."""
        channel = self._channel(act, who)
        first = who.id == act.scene.customer.id
        await self._mark(act, channel, partner=NOBODY, back="", then="")
        await self._set(act.port, channel, {"CTI_PARTY": "end_marked" if first else "marked"})

    async def _all_in(self, act: _Act, parties: tuple[str, ...]) -> None:
        await self._prove(
            act,
            lambda view: (
                view is not None
                and view.conference is not None
                and all(state_of(view, one) is CONNECTED for one in parties)
            ),
            "the conference does not stand",
        )

    async def _in_room(self, port: Port, room: str) -> dict[str, bool]:
        """Who is in a conference room: channel name → muted."""
        try:
            rows = await port.query("ConfbridgeList", {"Conference": room})
        except AmiError as error:
            raise command_error(port, "ConfbridgeList", error) from None
        listed = [fields_of(row) for row in rows]
        return {row["Channel"]: row.get("Muted", "No") == "Yes" for row in listed if "Channel" in row}

    # ------------------------------------------------------------------------------------------ tones, parking, ringing

    async def dtmf(self, call: str, agent: str, digits: str) -> CallAnswer:
        """Sends tones to the other party, one after another."""
        async with self._act(call, agent, "send tones") as act:
            for other in act.scene.connected:
                channel = self._channel(act, other)
                for digit in digits:
                    await self._send(act.port, "PlayDTMF", Channel=channel, Digit=digit, Duration="100")
                    await asyncio.sleep(TONE_GAP)
            return self._answer(act)

    async def park(self, call: str, agent: str) -> CallAnswer:
        """The other party waits in a parking slot, the agent leaves; the slot is in the answer."""
        async with self._act(call, agent, "park") as act:
            now, port = act.scene, act.port
            channel = self._channel(act, now.customer)
            await self._mark(
                act, channel, partner=NOBODY, back=now.me.device, then="", ring=port.ring_seconds
            )
            await self._send(port, "Park", Channel=channel)
            await self._prove(
                act,
                lambda view: (
                    view is not None and view.parked_at is not None and state_of(view, now.me.id) is None
                ),
                "it is not parked",
            )
            view = port.calls.view(call)
            return CallAnswer(call=call, agent=agent, view=None, slot=view.parked_at if view else None)

    async def pick_up(self, call: str, agent: str) -> CallAnswer:
        """Calls the agent's phone and brings it together with a parked call."""
        port, view = self._find(call)
        slot = view.parked_at
        if slot is None:
            raise CommandError("wrong_state", "this call is not parked")

        async def find(targets: Targets) -> Target:
            return await targets.number(slot)

        return await self.make(port.name, agent, find)

    async def deflect(self, call: str, agent: str, find: Finder) -> CallAnswer:
        """Sends a call that rings at the agent's phone elsewhere, unanswered."""
        async with self._act(call, agent, "deflect") as act:
            target = await self._target(act, find)
            now, port = act.scene, act.port
            caller = next((c for c in now.others if c.state in CALLING), None)
            if caller is None:
                raise NotPossible("caller_gone", "the caller has hung up meanwhile")
            channel = self._channel(act, caller)
            known = {c.id for c in now.view.connections}
            await self._mark(act, channel, partner=NOBODY, back="", then="", ring=port.ring_seconds)
            await self._show_caller_id(act, channel, target)
            where = "cti-queue" if target.queue else "cti-transfer"
            await self._send(
                port, "Redirect", Channel=channel, Context=where, Exten=target.exten, Priority="1"
            )
            await self._went_on(act, target, known, caller.id)
            return self._answer(act)

    async def answer(self, call: str, agent: str) -> CallAnswer:
        """Makes the ringing phone answer, if it honours `Event: talk`."""
        async with self._act(call, agent, "answer") as act:
            channel = self._channel(act, act.scene.me)
            await self._send(act.port, "PJSIPNotify", Channel=channel, Variable="Event=talk")
            me = act.scene.me.id
            if not await self._until(
                act.port,
                call,
                lambda view: state_of(view, me) is CONNECTED or state_of(view, me) is None,
                PROOF,
            ):
                why = "your phone was asked to answer and still rings: it does not honour this, answer at the phone"
                raise CommandError("phone_did_not_answer", why)
            if state_of(act.port.calls.view(call), me) is None:
                raise CommandError("caller_gone", "it has stopped ringing meanwhile")
            return self._answer(act)

    # ------------------------------------------------------------------------------------------ recording

    async def record(self, call: str, agent: str) -> CallAnswer:
        """Starts to record the call, at the customer's channel, so that the recording goes on through transfers."""
        async with self._act(call, agent, "record") as act:
            if call in self._recordings:
                raise NotPossible("wrong_state", "this call is being recorded")
            port = act.port
            channel = self._channel(act, act.scene.customer)
            name = re.sub(r"[^0-9A-Za-z.-]", "-", f"{call}-{uuid4().hex[:6]}") + ".wav"
            file = f"{port.recordings.rstrip('/')}/{name}" if port.recordings else name
            answer = await self._send(port, "MixMonitor", Channel=channel, File=file)
            recording = Recording(port, channel, answer.get("MixMonitorID", ""), file)
            if not await self._is_written(port, name):
                with suppress(CommandError):
                    await self._stop_recording(recording)
                why = f"{port.name} wrote no recording: look at the folder and its rights ({file})"
                raise CommandError("recording_failed", why)
            self._recordings[call] = recording
            self._say(act.port, call, "on", agent)
            return self._answer(act)

    async def pause(self, call: str, agent: str, paused: bool) -> CallAnswer:
        """Leaves out of the recording what is said now (card numbers), or goes on with it."""
        async with self._act(call, agent, "record") as act:
            recording = self._recording(call)
            if recording.paused is paused:
                raise NotPossible(
                    "wrong_state", f"the recording is {'paused' if paused else 'running'} already"
                )
            state = "1" if paused else "0"
            await self._send(
                act.port, "MixMonitorMute", Channel=recording.channel, Direction="both", State=state
            )
            recording.paused = paused
            self._say(act.port, call, "paused" if paused else "on", agent)
            return self._answer(act)

    async def stop_recording(self, call: str, agent: str) -> CallAnswer:
        """Ends the recording."""
        async with self._act(call, agent) as act:
            await self._stop_recording(self._recording(call))
            self._recordings.pop(call, None)
            self._say(act.port, call, "", agent)
            return self._answer(act)

    async def _stop_recording(self, recording: Recording) -> None:
        id = {"MixMonitorID": recording.id} if recording.id else {}
        await self._send(recording.port, "StopMixMonitor", Channel=recording.channel, **id)

    def _recording(self, call: str) -> Recording:
        found = self._recordings.get(call)
        if found is None:
            raise NotPossible("wrong_state", "this call is not being recorded")
        return found

    def forget(self, fact: CallCleared) -> None:
        """Lets go of what was kept about a call that is over."""
        self._recordings.pop(fact.call, None)

    def _say(self, port: Port, call: str, what: str, by: str) -> None:
        self._publish(port.calls.set_data(call, {RECORDING: what}, by=by, at=time.time()))

    async def _is_written(self, port: Port, name: str) -> bool:
        """Whether the file has sound in it by now; True where this machine cannot look."""
        if not port.recordings_seen_at:
            return True
        path = Path(port.recordings_seen_at) / name
        for _ in range(int(PROOF / LOOK_AGAIN)):
            if await asyncio.to_thread(_size, path) > WAV_HEAD:
                return True
            await asyncio.sleep(LOOK_AGAIN)
        return False

    # ------------------------------------------------------------------------------------------ steps

    async def _park_aside(self, act: _Act, other: ConnectionView) -> None:
        """Takes the agent and one they talk with apart: music for the one, silence for the agent."""
        now, port = act.scene, act.port
        theirs, mine = self._channel(act, other), self._channel(act, now.me)
        first = other.id == now.customer.id
        await self._mark(
            act,
            theirs,
            partner=mine,
            back=now.me.device if first else "",
            then="",
            queue=None if first else "",
        )
        await self._mark(act, mine, partner=theirs)
        await self._send(
            port, "Redirect", **_both(theirs, ("cti-hold", "music"), mine, ("cti-hold", "silent"))
        )
        await self._prove(
            act,
            lambda view: state_of(view, other.id) is HOLD and state_of(view, now.me.id) is HOLD,
            "it is not on hold",
        )

    async def _bring_back(self, act: _Act, other: ConnectionView, then: ConnectionView | None = None) -> None:
        """Brings the agent and one who is on hold together; `then` is whom the agent still holds when that one goes."""
        now = act.scene
        theirs, mine = self._channel(act, other), self._channel(act, now.me)
        await self._mark(act, mine, partner=self._channel(act, then) if then else NOBODY)
        await self._mark(act, theirs, partner=NOBODY, then="")
        try:
            await self._bridge(act, theirs, mine)
            await self._prove(
                act,
                lambda view: state_of(view, other.id) is CONNECTED and state_of(view, now.me.id) is CONNECTED,
                "you are not together",
            )
        except CommandError:
            with suppress(
                CommandError
            ):  # still apart: whoever hangs up must not leave the other in the music
                await self._mark(act, theirs, partner=mine)
                await self._mark(act, mine, partner=theirs)
            raise

    async def _bridge(self, act: _Act, one: str, two: str) -> None:
        await self._send(act.port, "Bridge", Channel1=one, Channel2=two, Tone="no")

    async def _end(self, act: _Act, connection: ConnectionView) -> None:
        channel = act.port.calls.channel_of(act.call, connection.id)
        if channel is not None:
            with suppress(CommandError):  # gone by itself
                await self._send(act.port, "Hangup", Channel=channel, Cause="16")

    async def _mark(
        self,
        act: _Act,
        channel: str,
        *,
        partner: str | None = None,
        back: str | None = None,
        then: str | None = None,
        queue: str | None = None,
        ring: int | None = None,
    ) -> None:
        """Writes on a channel what the dialplan does with it by itself when the server is away."""
        if queue is None and back and act.scene.view.queue:
            queue = act.scene.view.queue.partition(":")[2]
        wanted = {"CTI_PARTNER": partner, "CTI_BACK": back, "CTI_THEN": then, "CTI_QUEUE": queue}
        wanted["__CTI_RING"] = str(ring) if ring is not None else None
        await self._set(
            act.port, channel, {name: value for name, value in wanted.items() if value is not None}
        )

    async def _set(self, port: Port, channel: str, values: Mapping[str, str]) -> None:
        await asyncio.gather(
            *(
                self._send(port, "Setvar", Channel=channel, Variable=name, Value=value)
                for name, value in values.items()
            )
        )

    async def _show_caller_id(self, act: _Act, channel: str, target: Target) -> None:
        shown = act.port.caller_id(act.agent, target.exten) if target.outside else ""
        if shown:
            await self._set(act.port, channel, {"__CTI_CALLERID": shown})

    # ------------------------------------------------------------------------------------------ finding and proving

    @asynccontextmanager
    async def _act(self, call: str, agent: str, wish: str | None = None) -> AsyncIterator[_Act]:
        """One command on one call at a time; each looks at the call when its turn has come."""
        async with self._lock(call):
            port, view = self._find(call)
            now = scene(view, agent)
            if now is None:
                raise CommandError("not_your_call", f"{agent} is not in this call")
            act = _Act(port, call, agent, now)
            try:
                if wish is not None:
                    require(wish, now)
                yield act
            except NotPossible as error:
                raise CommandError(error.code, str(error)) from None

    def _lock(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def _port(self, pbx: str) -> Port:
        port = self._ports.get(pbx)
        if port is None:
            raise CommandError(
                "no_such_pbx", f"there is no PBX {pbx!r}: there are {', '.join(sorted(self._ports))}"
            )
        if not port.up():
            raise CommandError("pbx_down", f"{pbx} cannot be reached at the moment: nothing was done")
        return port

    def _find(self, call: str) -> tuple[Port, CallView]:
        name = call.partition(":")[0]
        if name not in self._ports:
            raise CommandError("unknown_call", "there is no such call, or it is over")
        port = self._port(name)
        view = port.calls.view(call)
        if view is None:
            raise CommandError("unknown_call", "there is no such call, or it is over")
        return port, view

    async def _target(self, act: _Act, find: Finder) -> Target:
        target = await self._sought(act.port, find)
        if not target.queue and target.exten == act.scene.me.device.partition("/")[2]:
            raise NotPossible("no_such_target", "that is your own phone")
        return target

    async def _sought(self, port: Port, find: Finder) -> Target:
        try:
            return await find(port.targets)
        except AmiError as error:
            raise command_error(port, "ShowDialPlan", error) from None

    def _channel(self, act: _Act, connection: ConnectionView) -> str:
        channel = act.port.calls.channel_of(act.call, connection.id)
        if channel is None:
            raise NotPossible("caller_gone", "one of the parties has hung up meanwhile")
        return channel

    async def _send(self, port: Port, action: str, **headers: str) -> Mapping[str, str]:
        try:
            return await port.send(action, headers)
        except AmiError as error:
            raise command_error(port, action, error) from None

    async def _originate(self, port: Port, headers: Mapping[str, Any]) -> None:
        try:
            await port.originate(headers)
        except AmiError as error:
            raise command_error(port, "Originate", error) from None

    async def _until(
        self, port: Port, call: str, true: Callable[[CallView | None], bool], limit: float
    ) -> bool:
        return bool(await self._find_out(port, call, lambda view: True if true(view) else None, limit))

    async def _find_out(
        self, port: Port, call: str, look: Callable[[CallView | None], T | None], limit: float
    ) -> T | None:
        def again() -> T | None:
            if not port.up():
                raise CommandError(
                    "pbx_down", f"{port.name} broke off in the middle: the facts tell what happened"
                )
            return look(port.calls.view(call))

        return await self._waits.until(call, again, limit)

    async def _prove(self, act: _Act, true: Callable[[CallView | None], bool], missing: str) -> None:
        if await self._until(act.port, act.call, true, PROOF):
            return
        view = act.port.calls.view(act.call)
        if state_of(view, act.scene.me.id) is None and act.scene.others:
            raise CommandError(
                "not_confirmed", f"your phone has left the call; it has {self._seen(act.port, act.call)}"
            )
        raise CommandError("not_confirmed", f"{missing}: the call has {self._seen(act.port, act.call)}")

    def _seen(self, port: Port, call: str) -> str:
        view = port.calls.view(call)
        if view is None:
            return "ended"
        return ", ".join(f"{c.device} {c.state}" for c in view.connections) or "nobody in it"

    def _answer(self, act: _Act) -> CallAnswer:
        view = act.port.calls.view(act.call)
        mine = view is not None and any(c.agent == act.agent for c in view.connections)
        return CallAnswer(call=act.call, agent=act.agent, view=view if mine else None)


CALLING: frozenset[str] = frozenset({"initiated", "queued", "connected"})
RINGS_OR_THROUGH: frozenset[str] = frozenset({"alerting", "connected", "hold"})


def _both(one: str, to: tuple[str, str], other: str, there: tuple[str, str]) -> dict[str, str]:
    """The headers of a Redirect that takes two channels apart at the same moment."""
    return {
        "Channel": one,
        "Context": to[0],
        "Exten": to[1],
        "Priority": "1",
        "ExtraChannel": other,
        "ExtraContext": there[0],
        "ExtraExten": there[1],
        "ExtraPriority": "1",
    }


RIGHTS = {
    "PJSIPNotify": "system",
    "MixMonitor": "system",
    "MuteAudio": "system",
    "ConfbridgeStartRecord": "system",
}
"""Action → the right in write= that it needs beyond those of asterisk-config/include/manager_cti.conf."""


def command_error(port: Port, action: str, error: AmiError) -> CommandError:
    """An AMI error in the words of who asked."""
    if isinstance(error, ActionRefused):
        said = str(error).lower()
        if "permission" in said:
            right = RIGHTS.get(action, "call")
            return CommandError(
                "no_right",
                f"{port.name} does not let this server use {action}: add `{right}` to write= in manager.conf",
            )
        if (
            "no such channel" in said
            or "does not exist" in said
            or "not found" in said
            or "channel not" in said
        ):
            return CommandError("caller_gone", "one of the parties has hung up meanwhile")
        return CommandError("refused", f"{port.name} refused {action}: {error}")
    kind = type(error).__name__
    if kind in ("NotConnected", "Busy"):
        return CommandError("pbx_down", f"{port.name} cannot be reached at the moment: nothing was done")
    if kind == "BadValue":
        return CommandError("bad_args", "a value holds characters that cannot be sent to the PBX")
    return CommandError(
        "not_confirmed", f"{port.name} did not answer {action} in time: the facts tell whether it happened"
    )


def _room() -> str:
    """A conference room that nobody else has: digits only, as [cti-conference] wants it."""
    return f"9{secrets.randbelow(10**9):09d}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
