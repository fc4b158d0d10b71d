"""Conferences: three and more in one room."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from uuid import uuid4

from cti.ami import AmiError
from cti.ami_events import fields_of
from cti.commands import CommandError
from cti.control.moves import CONNECTED, NotPossible, state_of
from cti.control.ports import CallAnswer, Port, both, command_error
from cti.control.steps import NOBODY, RINGS, RINGS_OR_THROUGH, Act, Finder, Steps
from cti.control.targets import phone_number
from cti.facts import CallView, ConnectionView

DIGITS = frozenset("+*#0123456789")


class Conferring(Steps):
    """Join, add, remove, mute, hand over."""

    async def join(self, call: str, agent: str) -> CallAnswer:
        """Makes a conference of a consultation: all three talk with one another."""
        async with self._act(call, agent, "join") as act:
            now, room = act.scene, _room()
            asked = now.connected[0] if now.connected[0].id != now.customer.id else now.held[0]
            self._invite(act, now.customer)
            self._invite(act, now.me)
            self._invite(act, asked)
            mine = self._channel(act, now.me)
            talked, waiting = self._channel(act, now.connected[0]), self._channel(act, now.held[0])
            into = ("cti-conference", room)
            await self._do(act, "Redirect", **both(mine, into, talked, into))
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
            if any(target.exten in (phone_number(c.device), c.number) for c in now.others):
                raise NotPossible("wrong_state", f"{target.exten} is in this call already, or rings")
            room = now.view.conference
            if room is None:
                room = _room()
                self._invite(act, now.customer)
                self._invite(act, now.me)
                into = ("cti-conference", room)
                pair = both(self._channel(act, now.customer), into, self._channel(act, now.me), into)
                await self._do(act, "Redirect", **pair)
                await self._all_in(act, (now.me.id, now.customer.id))
            known = {c.id for c in (port.calls.view(call) or now.view).connections}
            id = f"cti-{uuid4().hex}"
            port.calls.adopt(call, id)
            shown = port.caller_id(agent, target.exten)
            await self._originate(
                port,
                {
                    "Channel": f"Local/{target.exten}@cti-reach",
                    "Context": "cti-conference",
                    "Exten": room,
                    "Priority": "1",
                    "CallerID": f"<{''.join(c for c in now.view.ani or '' if c in DIGITS)}>",
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
            if rows[inside] is muted:
                how = "muted" if muted else "heard"
                raise NotPossible("wrong_state", f"this party is {how} already")
            action = "ConfbridgeMute" if muted else "ConfbridgeUnmute"
            await self._send(act.port, action, Conference=room, Channel=inside)
            if (await self._in_room(act.port, room)).get(inside) is not muted:
                raise CommandError("not_confirmed", "the conference does not show it")
            await self._prove(
                act,
                lambda view: (
                    view is not None and any(c.id == other.id and c.muted is muted for c in view.connections)
                ),
                "no event tells it",
            )
            return self._answer(act)

    async def ask_who_is_muted(self, pbx: str) -> None:
        """Takes over who is muted in the conferences of a PBX; its list of channels does not tell."""
        port = self._ports[pbx]
        for room in {view.conference for view in port.calls.views() if view.conference is not None}:
            with suppress(CommandError):
                rows = await self._in_room(port, room)
                self._publish(port.calls.set_muted(rows, time.time()))

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

    def _party(self, act: Act, party: str, *, me: bool = False) -> ConnectionView:
        found = next((c for c in act.scene.others if c.id == party), None)
        if found is None and me and act.scene.me.id == party:
            return act.scene.me
        if found is None:
            raise NotPossible("no_such_party", "nobody else in this call has this connection id")
        return found

    def _invite(self, act: Act, who: ConnectionView) -> None:
        """Notes how a party will sit in the room: the customer never stays there alone."""
        sits = "end_marked" if who.id == act.scene.customer.id else "marked"
        self._mark(act, self._channel(act, who), partner=NOBODY, back="", then="", party=sits)

    async def _all_in(self, act: Act, parties: tuple[str, ...]) -> None:
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


def _room() -> str:
    """A conference room that nobody else has: digits only, as [cti-conference] wants it."""
    return f"9{secrets.randbelow(10**9):09d}"
