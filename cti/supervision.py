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
