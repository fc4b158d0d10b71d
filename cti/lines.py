"""Open lines: phones of agents who work off-hook, as Asterisk has them. Pure: records in, facts out.

An agent's phone is called once and stays connected to the dialplan (`[cti-line-open]`). That channel is nobody's call: the
model of calls passes over it, and here is kept whether it rings, is open, or is gone. Each call reaches it through a Local
channel `Local/<phone>@cti-line`, which is the agent's connection in that call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cti.ami_events import (
    ChannelAppeared,
    ChannelRow,
    ChannelState,
    ChannelStateChanged,
    device_of_channel,
)
from cti.facts import AgentLineChanged, Fact, LineState
from cti.legs import LINES, REASONS, moment
from cti.people import line_of

Facts = list[Fact]

_PHONE = re.compile(r"[0-9A-Za-z_]{2,64}")


def line_id(device: str) -> str | None:
    """The Uniqueid that the open line of a phone has, given to it by Originate: a phone has one at most. It ends with a
    dot, since Asterisk's Bridge takes the beginning of an id for the whole. None for a phone whose name will not do."""
    phone = phone_of(device)
    return f"{LINES}{phone}." if phone is not None else None


def phone_of(device: str) -> str | None:
    """The extension by which [cti-line] knows a phone: `PJSIP/1101` → `1101`."""
    technology, _, rest = device.partition("/")
    phone = rest.partition("@")[0].partition("/")[0]
    return phone if technology != "Local" and _PHONE.fullmatch(phone) else None


@dataclass(slots=True)
class _Line:
    agent: str
    device: str
    state: LineState
    rings: bool = False
    ending: str = ""


class Lines:
    """The open lines of one PBX."""

    def __init__(self, pbx: str, *, agent_at: Callable[[str], str | None]) -> None:
        self._pbx = pbx
        self._agent_at = agent_at
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def channel(self, agent: str) -> str | None:
        """Uniqueid of the agent's line while it rings or is open."""
        return next((id for id, line in self._lines.items() if line.agent == agent), None)

    def device(self, agent: str) -> str | None:
        """What calls the agent's line, while it is open: `Local/1101@cti-line`."""
        for line in self._lines.values():
            if line.agent == agent and line.state is LineState.OPEN:
                return line_of(line.device)
        return None

    def reached_by(self, uniqueid: str) -> str | None:
        """What calls the line with this channel: `Local/1101@cti-line`; None for any other channel."""
        line = self._lines.get(uniqueid)
        return line_of(line.device) if line is not None else None

    def is_open(self, phone: str) -> bool:
        """Whether the line of the phone with this extension is open."""
        line = self._lines.get(f"{LINES}{phone}.")
        return line is not None and line.state is LineState.OPEN

    def ending(self, agent: str, why: str) -> None:
        """The line is about to be ended by us: `why` is then the reason that is told."""
        for line in self._lines.values():
            if line.agent == agent:
                line.ending = why

    # ------------------------------------------------------------------------------------------ records

    def appeared(self, r: ChannelAppeared) -> Facts:
        """The phone is being called."""
        device = device_of_channel(r.channel)
        agent = self._agent_at(device)
        if agent is None or r.uniqueid in self._lines:
            return []
        state = LineState.OPEN if r.state is ChannelState.UP else LineState.CALLING
        line = self._lines[r.uniqueid] = _Line(agent, device, state)
        return [self._changed(line, r.at, "opened" if state is LineState.OPEN else "called")]

    def changed(self, r: ChannelStateChanged) -> Facts:
        """The phone rings, or has answered."""
        line = self._lines.get(r.uniqueid)
        if line is None or line.state is LineState.OPEN:
            return []
        if r.state is ChannelState.RINGING and not line.rings:
            line.rings = True
            return [self._changed(line, r.at, "rings")]
        if r.state is not ChannelState.UP:
            return []
        line.state = LineState.OPEN
        return [self._changed(line, r.at, "opened")]

    def gone(self, uniqueid: str, at: float, cause: int, *, lost: bool = False) -> Facts:
        """The phone was hung up, or did not answer."""
        line = self._lines.pop(uniqueid, None)
        if line is None:
            return []
        reason = line.ending or (
            "hung_up" if line.state is LineState.OPEN else REASONS.get(cause, "no_answer")
        )
        line.state = LineState.CLOSED
        return [self._changed(line, at, "lost" if lost and not line.ending else reason)]

    def rebuild(self, rows: Iterable[ChannelRow], now: float, touched: frozenset[str]) -> tuple[Facts, int]:
        """Takes over what the PBX lists; returns the facts, and how often it was otherwise than known."""
        facts: Facts = []
        there = {row.uniqueid: row for row in rows if row.uniqueid.startswith(LINES)}
        for uniqueid in [id for id in self._lines if id not in there and id not in touched]:
            facts += self.gone(uniqueid, now, 0, lost=True)
        for row in there.values():
            if row.uniqueid in touched:
                continue
            found = (now - row.age, row.uniqueid, row.linkedid)
            if row.uniqueid not in self._lines:
                facts += self.appeared(
                    ChannelAppeared(
                        *found, row.channel, row.state, row.number, row.name, row.exten, row.context, {}
                    )
                )
            else:
                facts += self.changed(ChannelStateChanged(now, row.uniqueid, row.linkedid, row.state))
        return facts, len(facts)

    def _changed(self, line: _Line, at: float, reason: str) -> AgentLineChanged:
        return AgentLineChanged(
            at=moment(at), agent=line.agent, pbx=self._pbx, device=line.device, line=line.state, reason=reason
        )
