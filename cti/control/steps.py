"""The steps call control is made of: finding who is who, acting on the PBX, waiting for the facts that prove it.

Before each step the other party is on hold or talking, never in the air; when a step fails half-way the parties are
brought together again and the error says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from cti.ami import AmiError
from cti.command_refusals import refusing
from cti.commands import CommandError
from cti.control.acting import Acting
from cti.control.moves import CONNECTED, HOLD, NotPossible, Scene, require, scene, state_of
from cti.control.ports import CallAnswer, InBrowser, Port, both, command_error
from cti.control.targets import Target, Targets, phone_number
from cti.facts import CallView, ConnectionView

T = TypeVar("T")
Finder = Callable[[Targets], Awaitable[Target]]

PROOF = 3.0
"""Seconds that the switch is given to show what an action did."""

JOINS = 1.0
"""Seconds within which an agent is through to who has just answered them."""

RINGS = 5.0
"""Seconds until a called phone must have been reached: the answer comes once it rings."""

RINGS_OR_THROUGH: frozenset[str] = frozenset({"alerting", "connected", "hold"})

NOBODY = "nobody"
"""Who is waited for in [cti-hold] when that wait is over: the channel ends there after the next conversation."""


@dataclass(slots=True)
class Act:
    """One command at work on one call. `marks`: channel, variable and value to be written before the next action."""

    port: Port
    call: str
    agent: str
    scene: Scene
    marks: list[tuple[str, str, str]] = field(default_factory=list)


class Steps(Acting):
    """What the parts of call control share."""

    async def _park_aside(self, act: Act, other: ConnectionView) -> None:
        """Takes the agent and one they talk with apart: music for the one, silence for the agent."""
        now = act.scene
        theirs, mine = self._channel(act, other), self._channel(act, now.me)
        first = other.id == now.customer.id
        self._mark(
            act,
            theirs,
            partner=mine,
            back=now.me.device if first else "",
            then="",
            queue=None if first else "",
        )
        self._mark(act, mine, partner=theirs)
        await self._do(act, "Redirect", **both(theirs, ("cti-hold", "music"), mine, ("cti-hold", "silent")))
        await self._prove(
            act,
            lambda view: state_of(view, other.id) is HOLD and state_of(view, now.me.id) is HOLD,
            "it is not on hold",
        )

    async def _bring_back(self, act: Act, other: ConnectionView, then: ConnectionView | None = None) -> None:
        """Brings the agent and one who is on hold together; `then` is whom the agent still holds when that one goes."""
        now = act.scene
        theirs, mine = self._channel(act, other), self._channel(act, now.me)
        self._mark(act, mine, partner=self._channel(act, then) if then else NOBODY)
        self._mark(act, theirs, partner=NOBODY, then="")
        try:
            await self._bridge(act, theirs, mine)
            await self._prove(
                act,
                lambda view: state_of(view, other.id) is CONNECTED and state_of(view, now.me.id) is CONNECTED,
                "you are not together",
            )
        except CommandError:
            # Still apart: whoever hangs up must not leave the other in the music.
            with suppress(CommandError):
                self._mark(act, theirs, partner=mine)
                self._mark(act, mine, partner=theirs)
            raise

    async def _bridge(self, act: Act, one: str, two: str) -> None:
        await self._do(act, "Bridge", Channel1=one, Channel2=two, Tone="no")

    async def _end(self, act: Act, connection: ConnectionView) -> None:
        """Hangs up one party; nothing happens if they have gone by themselves."""
        await self._hang_up(act.port, act.call, connection)

    async def _hang_up(self, port: Port, call: str, connection: ConnectionView) -> None:
        channel = port.calls.channel_of(call, connection.id)
        if channel is not None:
            try:
                await self._send(port, "Hangup", Channel=channel, Cause="16")
            except CommandError as error:
                if error.code != "caller_gone":
                    raise

    def _mark(
        self,
        act: Act,
        channel: str,
        *,
        partner: str | None = None,
        back: str | None = None,
        then: str | None = None,
        queue: str | None = None,
        ring: int | None = None,
        party: str | None = None,
        caller_id: str = "",
    ) -> None:
        """Notes what is to be written on a channel before the next action: what the dialplan does with it by itself when
        the server is away."""
        if queue is None and back and act.scene.view.queue:
            queue = act.scene.view.queue.partition(":")[2]
        wanted = {
            "CTI_PARTNER": partner,
            "CTI_BACK": f"{back}/n" if back and back.endswith("@cti-line") else back,
            "CTI_THEN": then,
            "CTI_QUEUE": queue,
            "CTI_PARTY": party,
            "__CTI_RING": str(ring) if ring is not None else None,
            "__CTI_CALLERID": caller_id or None,
        }
        act.marks += [(channel, name, value) for name, value in wanted.items() if value is not None]

    async def _do(self, act: Act, action: str, **headers: str) -> Mapping[str, str]:
        """Writes what was noted, then acts. All is sent at once: Asterisk takes it in order, and one wait is enough."""
        written = self._marks_of(act)
        done = await asyncio.gather(*written, self._send(act.port, action, **headers), return_exceptions=True)
        for outcome in reversed(done):
            if isinstance(outcome, BaseException):
                raise outcome
        answer: Mapping[str, str] = done[-1]  # type: ignore[assignment]  # errors were raised above
        return answer

    def _marks_of(self, act: Act) -> list[Coroutine[Any, Any, Mapping[str, str]]]:
        marks, act.marks = act.marks, []
        by_channel: dict[str, dict[str, str]] = {}
        for channel, name, value in marks:
            by_channel.setdefault(channel, {})[name] = value
        return [
            self._send(act.port, "Setvar", Channel=channel, **_together(values))
            for channel, values in by_channel.items()
        ]

    async def _write(self, act: Act) -> None:
        """Writes what was noted and does nothing else; a channel that has gone needs none of it."""
        await asyncio.gather(*self._marks_of(act), return_exceptions=True)

    def _handed_on(self, act: Act, target: Target) -> None:
        """Says that the agent hands the party on hold to a queue; of one who talks, Asterisk says it."""
        now = act.scene
        self._publish(
            act.port.calls.handed_on(act.call, now.me.id, target.exten, at=datetime.now(UTC).timestamp())
        )

    def _caller_id(self, act: Act, target: Target) -> str:
        return act.port.caller_id(act.agent, target.exten) if target.outside else ""

    @asynccontextmanager
    async def _act(self, call: str, agent: str, wish: str | None = None) -> AsyncIterator[Act]:
        """One command on one call at a time; each looks at the call when its turn has come."""
        async with self._lock(call):
            port, view = self._find(call)
            now = scene(view, agent)
            if now is not None and now.joining:
                await self._until(port, call, lambda view: not _joining(view, agent), JOINS)
                now = scene(self._find(call)[1], agent)
            if now is None:
                raise CommandError("not_your_call", f"{agent} is not in this call")
            act = Act(port, call, agent, now)
            with refusing():
                if wish is not None:
                    require(wish, now)
                yield act

    def _in_browser(self, act: Act) -> InBrowser | None:
        """The phones in the browser, if the agent is in this call with theirs."""
        return self._browser_of(act.agent, act.port.name, act.scene.me)

    def _browser_of(self, agent: str, pbx: str, me: ConnectionView) -> InBrowser | None:
        there = self._browser is not None and self._browser.has(agent, pbx)
        phone = (self._phone_of(pbx, agent) or "").removesuffix("/n")
        return self._browser if there and phone == me.device else None

    async def _order(self, act: Act, browser: InBrowser, do: str) -> None:
        """Lets the agent's phone in the browser do something with this call; of a call on an open line, with the line."""
        line = act.port.calls.lines.channel(act.agent) if on_a_line(act.scene.me) else None
        connection = f"{act.port.name}:{line}" if line is not None else act.scene.me.id
        await browser.order(act.agent, act.port.name, do, call=act.call, connection=connection)

    def _find(self, call: str) -> tuple[Port, CallView]:
        name = call.partition(":")[0]
        if name not in self._ports:
            raise CommandError("unknown_call", "there is no such call, or it is over")
        port = self._port(name)
        view = port.calls.view(call)
        if view is None:
            raise CommandError("unknown_call", "there is no such call, or it is over")
        return port, view

    async def _target(self, act: Act, find: Finder) -> Target:
        target = await self._sought(act.port, find)
        if not target.queue and target.exten == phone_number(act.scene.me.device):
            raise NotPossible("no_such_target", "that is your own phone")
        return target

    async def _sought(self, port: Port, find: Finder) -> Target:
        try:
            return await find(port.targets)
        except AmiError as error:
            raise command_error(port, "ShowDialPlan", error) from None

    def _channel(self, act: Act, connection: ConnectionView) -> str:
        channel = act.port.calls.channel_of(act.call, connection.id)
        if channel is None:
            raise NotPossible("caller_gone", "one of the parties has hung up meanwhile")
        return channel

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

    async def _prove(self, act: Act, true: Callable[[CallView | None], bool], missing: str) -> None:
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

    def _answer(self, act: Act) -> CallAnswer:
        view = act.port.calls.view(act.call)
        mine = view is not None and any(c.agent == act.agent for c in view.connections)
        return CallAnswer(call=act.call, agent=act.agent, view=view if mine else None)


def _joining(view: CallView | None, agent: str) -> bool:
    now = scene(view, agent) if view is not None else None
    return now is not None and now.joining


def on_a_line(me: ConnectionView) -> bool:
    """Whether an agent is in a call with the open line of their phone."""
    return me.device.endswith("@cti-line")


def _together(values: Mapping[str, str]) -> dict[str, str]:
    """The headers of a Setvar for several variables at once; none of the values holds a comma."""
    names = ",".join(values)
    return {"Variable": names if len(values) == 1 else f"ARRAY({names})", "Value": ",".join(values.values())}
