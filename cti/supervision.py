"""Supervision: who listens to whom. Facts and views only; `cti.control.supervising` makes them true."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from cti.facts import Fact
from cti.frozen import Frozen


class Mode(StrEnum):
    """How a supervisor is with a call: hears both; is heard by the agent too; is heard by both."""

    LISTEN = "listen"
    WHISPER = "whisper"
    BARGE = "barge"


class SupervisionView(Frozen, frozen=True, gc=False, kw_only=True):
    """A supervisor who is with an agent's call now."""

    supervisor: str
    agent: str
    call: str
    mode: Mode
    since: datetime


class SupervisionFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about a supervisor's presence in an agent's call. The agent is told only where the settings say so."""

    supervisor: str
    agent: str
    call: str


class SupervisionStarted(SupervisionFact, frozen=True, gc=False, kw_only=True):
    """The supervisor's phone hears the call from now on. AMI: ChanSpyStart."""

    TYPE: ClassVar[str] = "supervision.started"
    mode: Mode


class SupervisionChanged(SupervisionFact, frozen=True, gc=False, kw_only=True):
    """The supervisor hears and is heard in another way, or the agent's part went over to another call, `call`.
    AMI: ChanSpyStart."""

    TYPE: ClassVar[str] = "supervision.changed"
    mode: Mode
    since: datetime


class SupervisionEnded(SupervisionFact, frozen=True, gc=False, kw_only=True):
    """The supervisor hears the call no longer. `reason`: stopped, call_ended, hung_up (the supervisor's phone), taken_over,
    lost (found gone after a break). AMI: Hangup of the supervisor's channel."""

    TYPE: ClassVar[str] = "supervision.ended"
    reason: str


# ------------------------------------------------------------------------------------------------ messages


class MessageView(Frozen, frozen=True, gc=False, kw_only=True):
    """A message that an agent has not read yet. `team` when it went to all of a team. `text` is plain text, never markup."""

    id: int
    at: datetime
    agent: str
    sender: str
    sender_name: str
    team: str | None
    text: str


class MessageFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about a message; only its sender and its readers are told."""

    message: int
    sender: str


class MessageSent(MessageFact, frozen=True, gc=False, kw_only=True):
    """A message for `agents`; `team` when it went to all of a team. `text` is plain text, never markup."""

    TYPE: ClassVar[str] = "message.sent"
    sender_name: str
    agents: tuple[str, ...]
    team: str | None
    text: str


class MessageRead(MessageFact, frozen=True, gc=False, kw_only=True):
    """An agent has read a message."""

    TYPE: ClassVar[str] = "message.read"
    agent: str


# ------------------------------------------------------------------------------------------------ help


class HelpView(Frozen, frozen=True, gc=False, kw_only=True):
    """An open request for help. `taken_by`: the supervisor who takes care of it."""

    id: str
    agent: str
    call: str | None
    text: str
    since: datetime
    taken_by: str | None = None
    taken: datetime | None = None


class HelpFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about an agent's request for help."""

    help: str
    agent: str


class HelpRequested(HelpFact, frozen=True, gc=False, kw_only=True):
    """An agent asks for help, about a call or not. `since` is `at`."""

    TYPE: ClassVar[str] = "help.requested"
    call: str | None
    text: str


class HelpAccepted(HelpFact, frozen=True, gc=False, kw_only=True):
    """A supervisor takes care of it."""

    TYPE: ClassVar[str] = "help.accepted"
    by: str


class HelpClosed(HelpFact, frozen=True, gc=False, kw_only=True):
    """The request is over. `reason`: closed (by a supervisor), withdrawn (by the agent), logged_off."""

    TYPE: ClassVar[str] = "help.closed"
    by: str
    reason: str


# ------------------------------------------------------------------------------------------------ alarms


class AlarmView(Frozen, frozen=True, gc=False, kw_only=True):
    """An alarm that is raised. `value` is the one it was raised with; it is about a queue, a team, an agent or a PBX."""

    id: str
    rule: int
    name: str
    kind: str
    queue: str | None
    team: str | None
    agent: str | None
    pbx: str | None
    value: float
    threshold: float
    since: datetime
    acknowledged_by: str | None = None
    acknowledged: datetime | None = None


class AlarmFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about an alarm; the supervisors of the queue, team or agent are told, of a PBX all."""

    alarm: str
    rule: int
    queue: str | None
    team: str | None
    agent: str | None
    pbx: str | None


class AlarmRaised(AlarmFact, frozen=True, gc=False, kw_only=True):
    """A threshold is passed and has been for as long as its rule wants. Seconds, callers, agents or percent, by `kind`."""

    TYPE: ClassVar[str] = "alarm.raised"
    name: str
    kind: str
    value: float
    threshold: float


class AlarmAcknowledged(AlarmFact, frozen=True, gc=False, kw_only=True):
    """A supervisor has seen it and sees to it."""

    TYPE: ClassVar[str] = "alarm.acknowledged"
    by: str


class AlarmCleared(AlarmFact, frozen=True, gc=False, kw_only=True):
    """It is over. `reason`: over, rule_changed. `lasted`: seconds."""

    TYPE: ClassVar[str] = "alarm.cleared"
    reason: str
    lasted: float
