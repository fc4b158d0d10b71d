"""Agent states: what is known of an agent, and the table that makes one state of it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from cti.facts import AgentState, ConnectionState, LineState
from cti.frozen import Frozen
from cti.reasons import LINE_CLOSED, OTHER_WORK, PAUSED_AT_THE_PBX, PHONE_UNREACHABLE
from cti.wrap_up import Worked, Wrapping

UNREACHABLE = frozenset({"unavailable", "invalid"})
"""Member statuses of a phone that Asterisk does not ring."""


_TALKS = frozenset({ConnectionState.CONNECTED, ConnectionState.HOLD, ConnectionState.QUEUED})


@dataclass(slots=True)
class Party:
    """An agent's connection in a call. `dials`: the agent made the call, and is busy from the first digit on. `queue`: the
    one the agent answered it from. `disposed`: the agent has said how the call ended. An agent whose connection is queued
    asks a queue about their caller, and waits on the line."""

    call: str
    state: ConnectionState
    dials: bool = False
    queue: str | None = None
    disposed: bool = False

    @property
    def talks(self) -> bool:
        """Whether it is more than an offer."""
        return self.dials or self.state in _TALKS


@dataclass(frozen=True, slots=True)
class Membership:
    """An agent's phone as a member of a queue at the PBX."""

    status: str
    paused: bool = False
    pause_reason: str | None = None


class Shown(Frozen, frozen=True, gc=False):
    """What everybody has been told of an agent."""

    state: AgentState
    reason: str | None = None
    pending: str | None = None
    call: str | None = None
    until: datetime | None = None

    def goes_on_as(self, other: Shown) -> bool:
        """Whether the other is the same state, still going on."""
        return (self.state, self.reason, self.call) == (other.state, other.reason, other.call)


LOGGED_OFF = Shown(AgentState.LOGGED_OFF)


class Known(Frozen, frozen=True, gc=False):
    """What was shown before it became unknown: since when, and who or what had made it, and why."""

    shown: Shown
    since: datetime
    by: str
    why: str


@dataclass(slots=True)
class AgentNow:
    """One agent. `in_session`: has logged on or off here, ever. `asked_by`: who wanted the present `ready` and `reason`.
    `off_hook`, `lines`: whether calls come to a line that stays open, and how it is, by PBX.
    `parties`: connections by id, the newest last. `worked`: queue calls to be wrapped up once on no other. `left_over`:
    those of before a restart of which the PBX has not told yet. `at_other_work`: of a kind that calls do not interrupt."""

    login: str
    name: str
    in_session: bool = False
    logged_on: bool = False
    ready: bool = False
    reason: str | None = None
    asked_by: str = "system"
    log_off_by: str | None = None
    at_other_work: bool = False
    parties: dict[str, Party] = field(default_factory=dict)
    worked: dict[str, Worked] = field(default_factory=dict)
    left_over: dict[str, Worked] = field(default_factory=dict)
    wrapping: Wrapping | None = None
    lost: frozenset[str] = frozenset()
    shown: Shown = LOGGED_OFF
    since: datetime | None = None
    known: Known | None = None
    by: str = "system"
    why: str = "not logged on since the server started"
    members: dict[tuple[str, str], Membership] = field(default_factory=dict)
    off_hook: bool = False
    lines: dict[str, LineState] = field(default_factory=dict)

    @property
    def talking(self) -> str | None:
        """The call the agent talks on, at a PBX that can be asked: the newest, one on hold only if there is no other."""
        calls = [party for party in self._heard() if party.talks]
        spoken = [party for party in calls if party.state is not ConnectionState.HOLD]
        return (spoken or calls)[-1].call if calls else None

    @property
    def offered(self) -> str | None:
        """The newest call that is offered to the agent, at a PBX that can be asked."""
        calls = [party for party in self._heard() if not party.talks]
        return calls[-1].call if calls else None

    def _heard(self) -> list[Party]:
        return [party for party in self.parties.values() if party.call.partition(":")[0] not in self.lost]

    @property
    def at_pbx_only(self) -> bool:
        """Whether the agent has logged on at the PBX itself and has never had a session here."""
        return not self.in_session and bool(self.members)

    @property
    def present(self) -> bool:
        """Whether the agent is at work: logged on here, or at the PBX itself."""
        return self.logged_on or self.at_pbx_only

    @property
    def wants_calls(self) -> bool:
        """What the agent has asked for; of one who is there at the PBX only: whether a queue may call them."""
        if self.at_pbx_only:
            return any(not member.paused for member in self.members.values())
        return self.ready

    @property
    def reachable(self) -> bool:
        """Whether one of the phones can be rung, as far as the queues say; of who works off-hook: whether a line is open."""
        if self.off_hook:
            return LineState.OPEN in self.lines.values()
        return not self.members or any(m.status not in UNREACHABLE for m in self.members.values())

    @property
    def idle_reason(self) -> str | None:
        """Why no calls can come while on none."""
        if self.wants_calls and self.at_other_work:
            return OTHER_WORK
        if self.wants_calls:
            return LINE_CLOSED if self.off_hook else PHONE_UNREACHABLE
        if self.at_pbx_only:
            return next((m.pause_reason for m in self.members.values() if m.pause_reason), PAUSED_AT_THE_PBX)
        return self.reason

    @property
    def wish(self) -> str:
        """What was asked for, and by whom: `ready as anna asked`."""
        what = "ready" if self.wants_calls else "not ready"
        if self.at_pbx_only or self.asked_by == "pbx":
            return f"{what} as set at the PBX"
        return f"{what} as the rules say" if self.asked_by == "system" else f"{what} as {self.asked_by} asked"


STATES: tuple[tuple[AgentState, Callable[[AgentNow], bool]], ...] = (
    (AgentState.LOGGED_OFF, lambda a: not a.present),
    (AgentState.BUSY, lambda a: a.talking is not None),
    (AgentState.RESERVED, lambda a: a.offered is not None),
    (AgentState.UNKNOWN, lambda a: bool(a.lost)),
    (AgentState.WRAP_UP, lambda a: a.wrapping is not None),
    (AgentState.READY, lambda a: a.wants_calls and a.reachable and not a.at_other_work),
    (AgentState.NOT_READY, lambda a: True),
)
"""The first condition that holds is the agent's state. What one PBX tells is true though another one is lost."""

OCCUPIED = frozenset({AgentState.BUSY, AgentState.RESERVED, AgentState.WRAP_UP, AgentState.UNKNOWN})
"""The states after which comes what was asked for meanwhile."""


def state_of(a: AgentNow) -> AgentState:
    """The agent's state by the table."""
    return next(state for state, holds in STATES if holds(a))


def pending_of(a: AgentNow, state: AgentState) -> str | None:
    """What comes after the state: `disposition` is owed first, then what was asked for; None for nothing special."""
    if state is AgentState.NOT_READY and a.wants_calls:
        return "ready"
    if state not in OCCUPIED or a.at_pbx_only:
        return None
    wish = None
    if a.log_off_by is not None:
        wish = "logged_off"
    elif not a.ready:
        wish = f"not_ready: {a.reason}" if a.reason else "not_ready"
    if a.wrapping is None or not a.wrapping.owed:
        return wish
    return "disposition" if wish is None else f"disposition; {wish}"
