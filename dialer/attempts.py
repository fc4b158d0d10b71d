"""One attempt to reach a contact: what the switch has told of its call, and what became of it. Pure: no I/O, no clock.

What is told comes in any order: an attempt only collects it, `state` and `outcome` follow from all that is known, so the
order cannot matter. Times are seconds of any one clock, as the caller has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Literal


class Stage(IntEnum):
    """How far an attempt has come; it never goes back."""

    COMMITTED = 0
    DIALED = 1
    RINGING = 2
    ANSWERED = 3
    CONNECTED = 4
    ENDED = 5

    @property
    def word(self) -> str:
        """As in the column `attempts.state`."""
        return self.name.lower()


class Outcome(StrEnum):
    """What became of an attempt. `connected`: talked with an agent; `answered`: a person, who went before an agent was due,
    or to whom the message was played in mode agentless; `abandoned`: a person for whom no agent was there in time;
    `agent_error`: connected, and the agent's side broke off at once; `cancelled`: given up by us while it rang; `failed`: no
    call came about; `unknown`: it was dialed, and how it went on nobody has seen."""

    CONNECTED = "connected"
    ANSWERED = "answered"
    ABANDONED = "abandoned"
    AGENT_ERROR = "agent_error"
    MACHINE = "machine"
    FAX = "fax"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    CONGESTION = "congestion"
    INVALID_NUMBER = "invalid_number"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Detail(StrEnum):
    """What became of the message for an answering machine; `no_sound` also of that for a person. `message_left`: played to
    its end; `message_cut`: the machine hung up before its end; `message_unseen`: begun, and its end nobody saw;
    `gone_before`: it hung up before the message; `no_pause`: its greeting did not end in time; `no_sound`: the PBX could
    not play it."""

    LEFT = "message_left"
    CUT = "message_cut"
    UNSEEN = "message_unseen"
    GONE_BEFORE = "gone_before"
    NO_PAUSE = "no_pause"
    NO_SOUND = "no_sound"


class CountsAs(StrEnum):
    """How the law counts an answer, the one definition of it: whatever tells of abandoned calls counts by this.

    A live answer is one by a person. `in_time`: an agent was there within the wait that the profile gives (its rule
    `answer_wait`, tightened by the campaign), or it is a call that a message is meant for; `early`: the person hung up
    before the wait was over. Abandoned are two: `late`: an agent was there, but after the wait; `nobody`: none was, also
    where the message was played, and where nobody saw how it went on. `machine`: no live answer, says the detection.
    """

    IN_TIME = "in_time"
    EARLY = "early"
    LATE = "late"
    NOBODY = "nobody"
    MACHINE = "machine"


LOST = frozenset({CountsAs.LATE, CountsAs.NOBODY})
"""Live answers that are abandoned calls; as `lost_answer` in the database."""

HEARD_BEFORE = 0.8
"""Seconds of silence after the greeting by which AMD knows a person: they count as waited (asterisk-config/pbx/amd.conf)."""

WaitFrom = Literal["answer", "greeting"]
"""The moment from which the wait for an agent counts where machines are told apart; else it is the answer."""

LEAST_AFTER_AMD = 0.3
"""Seconds of the wait that AMD leaves to find an agent with an open line."""

LONGEST_AMD = 6.0
"""Seconds after the answer at which AMD ends in any case: where no sound comes at all it would never do so by itself."""

LEAST_AMD = 0.1

LOOK_SHORT_OF = 1.1
"""Seconds before the end of the wait at which the dialplan tries the queue by itself: a queue waits whole seconds."""


def amd_may_take(wait: float, wait_from: WaitFrom, *, leaves: float = LEAST_AFTER_AMD) -> float:
    """Seconds after the answer at which AMD ends, whatever it knows by then: who is no machine for sure is a person.
    `leaves`: seconds that it must leave of a wait that counts from the answer."""
    if wait_from == "greeting":
        return LONGEST_AMD
    return min(LONGEST_AMD, max(LEAST_AMD, wait - leaves))


def left_to_connect(wait: float, *, amd: bool, wait_from: WaitFrom) -> float:
    """Seconds of the wait that are left to find an agent once a person is known to be there, at least."""
    if not amd:
        return wait
    if wait_from == "answer":
        return max(0.0, wait - amd_may_take(wait, wait_from))
    return max(LEAST_AFTER_AMD, wait - HEARD_BEFORE)


class Told(StrEnum):
    """What can be told of an attempt's call; in brackets what comes with it."""

    SENT = "sent"
    APPEARED = "appeared"
    RINGS = "rings"
    UP = "up"
    DIAL_ENDED = "dial_ended"  # (DialStatus)
    ORIGINATE_ENDED = "originate_ended"  # (OriginateResponse Reason as text, "ok" for success)
    AMD = "amd"  # (AMDSTATUS)
    AMD_CAUSE = "amd_cause"  # (AMDCAUSE)
    GREETING = "greeting"  # of a machine that is to hear the message: its end is waited for
    NO_PAUSE = "no_pause"  # (WAITSTATUS)
    LEFT = "left"  # (PLAYBACKSTATUS)
    CONNECTED = "connected"  # (agent)
    AGENT_LEFT = "agent_left"
    NOBODY = "nobody"
    MESSAGE = "message"
    NO_MESSAGE = "no_message"  # its sound was not there
    OPTED_OUT = "opted_out"
    FAR_END = "far_end"
    GIVEN_UP = "given_up"  # (RANG_OUT, or nothing)
    REFUSED = "refused"  # (why)
    GONE = "gone"  # (Q.850 cause)
    LOST = "lost"


RANG_OUT = "rang_out"
"""What is said of a call that was given up since nobody had answered in the campaign's ring time."""

SHORT_TALK = 2.0
"""Seconds within which the agent's side breaking off is an agent error, not a talk."""

BY_CAUSE = {
    1: Outcome.INVALID_NUMBER,  # unallocated; SIP 404
    2: Outcome.CONGESTION,  # no route to the network
    3: Outcome.INVALID_NUMBER,  # no route to the destination
    17: Outcome.BUSY,
    18: Outcome.NO_ANSWER,
    19: Outcome.NO_ANSWER,
    20: Outcome.NO_ANSWER,  # absent
    21: Outcome.REJECTED,
    22: Outcome.INVALID_NUMBER,  # number changed
    27: Outcome.CONGESTION,  # out of order
    28: Outcome.INVALID_NUMBER,  # not a whole number
    34: Outcome.CONGESTION,
    38: Outcome.CONGESTION,
    41: Outcome.CONGESTION,
    42: Outcome.CONGESTION,
    44: Outcome.CONGESTION,
    58: Outcome.FAILED,
    88: Outcome.FAILED,
}
"""Q.850 cause of the Hangup of a call that was not answered → outcome. Source: ITU-T Q.850 and tests/traces/22/20."""

BY_STATUS = {
    "BUSY": Outcome.BUSY,
    "CONGESTION": Outcome.CONGESTION,
    "NOANSWER": Outcome.NO_ANSWER,
    "CANCEL": Outcome.CANCELLED,
    "CHANUNAVAIL": Outcome.FAILED,
    "INVALIDARGS": Outcome.FAILED,
}
"""DialEnd's DialStatus → outcome, where the cause says nothing."""

BY_REASON = {"3": Outcome.NO_ANSWER, "5": Outcome.BUSY, "8": Outcome.CONGESTION}
"""OriginateResponse's Reason → outcome, where neither says anything: the PBX's own time-out sends no DialEnd."""

ALIVE = frozenset({Outcome.CONNECTED, Outcome.ANSWERED, Outcome.ABANDONED, Outcome.AGENT_ERROR})
"""Outcomes of calls that a person answered."""


@dataclass(slots=True, eq=False)
class Attempt:
    """What is known of one attempt's call. `wait`: seconds that somebody who has answered may wait for an agent, `wait_from`
    when; `alone`: no agent is meant to come (mode agentless); `amd`: whether machines are told apart."""

    id: str
    wait: float = 2.0
    wait_from: WaitFrom = "answer"
    alone: bool = False
    amd: bool = False
    at: dict[Told, float] = field(default_factory=dict)
    said: dict[Told, str] = field(default_factory=dict)

    def tell(self, what: Told, at: float, info: str = "") -> bool:
        """Takes note; whether it is news. Of a thing told twice the earlier telling stays, in whatever order they come."""
        known = self.at.get(what)
        if known is not None and (known, self.said.get(what, "")) <= (at, info):
            return False
        self.at[what] = at
        if info:
            self.said[what] = info
        else:
            self.said.pop(what, None)
        return known is None

    # ------------------------------------------------------------------------------------------ what follows from it

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        at = self.at
        if self.over:
            return Stage.ENDED
        if Told.CONNECTED in at:
            return Stage.CONNECTED
        if Told.UP in at:
            return Stage.ANSWERED
        if Told.RINGS in at:
            return Stage.RINGING
        if Told.SENT in at or Told.APPEARED in at:
            return Stage.DIALED
        return Stage.COMMITTED

    @property
    def over(self) -> bool:
        """Whether its call is no more, or never was."""
        ends = (Told.GONE, Told.LOST, Told.REFUSED)
        return any(end in self.at for end in ends) or self.said.get(Told.ORIGINATE_ENDED, "ok") != "ok"

    @property
    def settled(self) -> bool:
        """Whether nothing that is still to come can change the outcome. An Originate that failed is not enough: its answer
        overtakes the events of a call that was over within milliseconds, and they say why."""
        at = self.at
        if Told.LOST in at or Told.REFUSED in at:
            return True
        return Told.GONE in at and (Told.DIAL_ENDED in at or Told.ORIGINATE_ENDED in at or Told.UP in at)

    @property
    def ended(self) -> float:
        """When its call was over, at the earliest telling."""
        ends = (Told.GONE, Told.LOST, Told.REFUSED, Told.ORIGINATE_ENDED)
        return min((self.at[what] for what in ends[:3] if what in self.at), default=self.at.get(ends[3], 0.0))

    @property
    def agent(self) -> str | None:
        """Who talked with the person."""
        return self.said.get(Told.CONNECTED)

    @property
    def cause(self) -> int | None:
        """Q.850 cause of the end, None where none was told."""
        said = self.said.get(Told.GONE, "")
        return int(said) if said.isdecimal() else None

    @property
    def machine(self) -> bool:
        """Whether a machine or a fax was heard; a server that came later may only have seen what followed from it."""
        if self.said.get(Told.AMD, "") in ("MACHINE", "FAX"):
            return True
        return any(what in self.at for what in (Told.GREETING, Told.NO_PAUSE, Told.LEFT))

    @property
    def detail(self) -> Detail | None:
        """What became of the message for a machine; None where none was meant for it. Of a person only that it could not be
        played."""
        at = self.at
        if not self.machine:
            return Detail.NO_SOUND if Told.NO_MESSAGE in at else None
        if Told.LEFT in at:
            return Detail.LEFT if self.said.get(Told.LEFT) == "SUCCESS" else Detail.NO_SOUND
        if Told.NO_PAUSE in at:
            return Detail.NO_PAUSE
        if Told.MESSAGE in at:
            return Detail.CUT if Told.GONE in at else Detail.UNSEEN
        return Detail.GONE_BEFORE if Told.GREETING in at else None

    @property
    def played(self) -> Told | None:
        """What tells that the message was played, be it to a machine or a person; None where it was not."""
        if self.detail is Detail.NO_SOUND:
            return None
        return next((what for what in (Told.MESSAGE, Told.LEFT) if what in self.at), None)

    @property
    def detected_in(self) -> float | None:
        """Seconds from the answer until it was known who or what had answered; None where that was not looked for."""
        up, known = self.at.get(Told.UP), self.at.get(Told.AMD)
        return max(0.0, known - up) if up is not None and known is not None else None

    @property
    def person(self) -> bool:
        """Whether it is known, or taken for granted, that a person has answered."""
        return Told.UP in self.at and not self.machine and (not self.amd or Told.AMD in self.at)

    @property
    def counted_from(self) -> WaitFrom:
        """The moment from which the wait of this call counts."""
        return self.wait_from if self.amd else "answer"

    @property
    def wait_began(self) -> float | None:
        """When the wait for an agent began: at the answer; where it counts from the end of the greeting, then, once it is
        known that it is a person. Of a call that has lasted longer than detection can and of which nobody saw what that
        found, at the answer."""
        up = self.at.get(Told.UP)
        if up is None or self.machine:
            return None
        if self.counted_from == "answer":
            return up
        known = self.at.get(Told.AMD)
        if known is not None:
            return max(up, known - HEARD_BEFORE)
        return up if self.at.get(Told.GONE, up) - up > LONGEST_AMD else None

    @property
    def waited(self) -> float | None:
        """Seconds from the beginning of the wait to the agent, or to the end; None while it goes on or where nobody
        answered."""
        since = self.wait_began
        if since is None:
            return None
        if Told.CONNECTED in self.at:
            return max(0.0, self.at[Told.CONNECTED] - since)
        ends = [self.at[what] for what in (Told.NOBODY, Told.GONE, Told.LOST) if what in self.at]
        return max(0.0, min(ends) - since) if ends else None

    @property
    def counts_as(self) -> CountsAs | None:
        """How the law counts it; None if nobody has answered, and until that is decided."""
        at = self.at
        if Told.UP not in at or self.said.get(Told.AMD) == "FAX":
            return None
        if self.machine:
            return CountsAs.MACHINE
        if Told.CONNECTED in at:
            since = self.wait_began if self.wait_began is not None else at[Told.UP]
            return CountsAs.LATE if at[Told.CONNECTED] - since > self.wait else CountsAs.IN_TIME
        if self.alone and Told.NO_MESSAGE not in at:
            return CountsAs.IN_TIME if Told.MESSAGE in at else CountsAs.EARLY if self.over else None
        if Told.NOBODY in at or Told.MESSAGE in at:
            return CountsAs.NOBODY
        if not self.over:
            return None
        waited = self.waited
        in_time = Told.GONE in at and (waited is None or waited < self.wait)
        return CountsAs.EARLY if in_time else CountsAs.NOBODY

    def outcome(self) -> Outcome:
        """What became of it, from all that was told; asked once it is over."""
        at = self.at
        if Told.CONNECTED in at:
            return self._of_talk()
        if Told.UP in at:
            return self._of_answer()
        if Told.GIVEN_UP in at:
            return Outcome.NO_ANSWER if self.said.get(Told.GIVEN_UP) == RANG_OUT else Outcome.CANCELLED
        return self._of_ringing()

    def _of_talk(self) -> Outcome:
        at = self.at
        left = at.get(Told.AGENT_LEFT)
        broke = left is not None and left - at[Told.CONNECTED] < SHORT_TALK and Told.FAR_END not in at
        return Outcome.AGENT_ERROR if broke else Outcome.CONNECTED

    def _of_answer(self) -> Outcome:
        at = self.at
        if self.machine:
            return Outcome.FAX if self.said.get(Told.AMD) == "FAX" else Outcome.MACHINE
        if self.alone:
            return Outcome.ABANDONED if Told.NO_MESSAGE in at else Outcome.ANSWERED
        if Told.NOBODY in at:
            return Outcome.ABANDONED
        if Told.GONE not in at:
            return Outcome.UNKNOWN
        waited = self.waited
        return Outcome.ABANDONED if waited is not None and waited >= self.wait else Outcome.ANSWERED

    def _of_ringing(self) -> Outcome:
        status, cause = self.said.get(Told.DIAL_ENDED, ""), self.cause
        if status == "ANSWER":
            return Outcome.UNKNOWN  # answered, and nobody saw how it went on
        if cause is not None and cause in BY_CAUSE:
            return BY_CAUSE[cause]
        if status in BY_STATUS:
            return BY_STATUS[status]
        reason = self.said.get(Told.ORIGINATE_ENDED, "")
        if reason in BY_REASON:
            return BY_REASON[reason]
        if Told.REFUSED in self.at or reason not in ("", "ok"):
            return Outcome.FAILED
        return Outcome.UNKNOWN
