"""Facts of the dialer: attempts dialed, answered, connected, ended. No numbers, no names."""

from __future__ import annotations

from typing import ClassVar

from cti.facts import Fact


class AttemptFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about one attempt of a campaign. `call` is its call's id; `teams`: whose supervisors may see it."""

    attempt: str
    campaign: int
    contact: int | None
    call: str
    teams: tuple[str, ...]


class AttemptDialed(AttemptFact, frozen=True, gc=False, kw_only=True):
    """A call is placed to a contact; the attempt was committed before. AMI: Originate."""

    TYPE: ClassVar[str] = "attempt.dialed"
    trunk: str


class AttemptAnswered(AttemptFact, frozen=True, gc=False, kw_only=True):
    """Somebody or something has answered. `rang`: seconds. AMI: Newstate Up."""

    TYPE: ClassVar[str] = "attempt.answered"
    rang: float | None


class AttemptConnected(AttemptFact, frozen=True, gc=False, kw_only=True):
    """The contact talks with an agent. `waited`: seconds from the greeting. `theirs`: whether the agent is one of those whom
    the list is assigned to; others get the call only where none of those was free. Follows call.established."""

    TYPE: ClassVar[str] = "attempt.connected"
    agent: str
    waited: float | None
    theirs: bool = True


class AttemptEnded(AttemptFact, frozen=True, gc=False, kw_only=True):
    """An attempt is over. `outcome`: connected, answered, abandoned, agent_error, machine, fax, busy, no_answer, congestion,
    invalid_number, rejected, cancelled, failed, unknown. `detail`: of a machine, what became of the message for it
    (message_left, message_cut, message_unseen, gone_before, no_pause, no_sound), else "". Seconds: `rang`, `waited` for an
    agent, `talked`. `cause`: Q.850. AMI: DialEnd, Hangup."""

    TYPE: ClassVar[str] = "attempt.ended"
    outcome: str
    detail: str
    cause: int | None
    rang: float | None
    waited: float | None
    talked: float | None
    agent: str | None
    message_played: bool
    opted_out: bool
