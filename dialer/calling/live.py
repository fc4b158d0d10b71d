"""An attempt under way, and what the switch's records say of it. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cti.ami_events import (
    ChannelAppeared,
    ChannelGone,
    ChannelState,
    ChannelStateChanged,
    DialEnded,
    DialerTold,
    DialProgressed,
    HangupRequested,
    OriginateEnded,
    Record,
)
from dialer.attempts import Attempt, Detail, Outcome, Stage, Told
from dialer.calling.attempt_store import AttemptRow
from dialer.calling.claims import Claimed
from dialer.lists import Assigned, assigned_of
from dialer.management.settings import Campaign

OF_ATTEMPTS: frozenset[type[Record]] = frozenset(
    {
        ChannelAppeared,
        ChannelStateChanged,
        DialProgressed,
        DialEnded,
        OriginateEnded,
        HangupRequested,
        ChannelGone,
        DialerTold,
    }
)
"""The classes of records that tell of attempts."""

TOLD_BY_DIALPLAN = {
    "amd": Told.AMD,
    "nobody": Told.NOBODY,
    "message": Told.MESSAGE,
    "no_message": Told.NO_MESSAGE,
    "opt_out": Told.OPTED_OUT,
    "greeting": Told.GREETING,
    "no_pause": Told.NO_PAUSE,
    "left": Told.LEFT,
}
"""`DialerTold.what` → what it tells; besides them `waiting`."""

REMEMBERED_AS = {
    "dialed": Told.SENT,
    "ringing": Told.RINGS,
    "answered": Told.UP,
    "connected": Told.CONNECTED,
    "message_played": Told.MESSAGE,
}
"""Column of `attempts` → what was told."""

WITH_VALUE = frozenset({Told.AMD, Told.NO_PAUSE, Told.LEFT})
"""What the dialplan tells with a value that counts."""

WORDS = {
    Detail.LEFT: "the message {sound} was left on the machine",
    Detail.CUT: "the machine hung up before the end of the message {sound}",
    Detail.UNSEEN: "the message {sound} began on the machine; its end was not seen",
    Detail.GONE_BEFORE: "the machine hung up before the message {sound}",
    Detail.NO_PAUSE: "the machine's greeting did not end in time: no message",
    Detail.NO_SOUND: "the PBX could not play the message {sound}: is it there?",
}
"""What became of the message for a machine, as it stands with the attempt."""


@dataclass(slots=True, eq=False)
class Live:
    """An attempt under way. `mono` and `wall`: the moment it was committed, by both clocks: times of day follow from the
    clock that never falls, so a clock that jumps changes none. `slot`: it holds a channel of its trunk; `through`: it has
    shown that the trunk works. `taken_up`: it began under another server. `tried`: agents who could not be given it, as they
    were since then. `drop`: the sound that a machine is left, `message`: that for people; "": none."""

    attempt: Attempt
    campaign: int
    contact: int | None
    e164: str
    pbx: str
    mono: float
    wall: datetime
    trunk: str = ""
    caller_id: str = ""
    queue: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    slot: bool = False
    through: bool = False
    waiting: bool = False
    connecting: bool = False
    unseen: bool = False
    drop: str = ""
    message: str = ""
    done: bool = False
    why: str = ""
    taken_up: bool = False
    paced: set[str] = field(default_factory=set)
    tried: dict[str, datetime] = field(default_factory=dict)
    assigned: Assigned = field(default_factory=Assigned)  # to whom its list is
    settles: asyncio.TimerHandle | None = None

    @property
    def call(self) -> str:
        """Its call's id."""
        return f"{self.pbx}:{self.attempt.id}"

    @property
    def seeks_agent(self) -> bool:
        """Whether it may still come to somebody at work, and nobody has it yet."""
        at = self.attempt.at
        over = self.done or self.attempt.over or self.attempt.machine
        return not (over or self.connecting or Told.CONNECTED in at or Told.NOBODY in at)

    def between(self, one: Told, other: Told) -> float | None:
        """Seconds from one to the other; None unless both were told."""
        at = self.attempt.at
        return max(0.0, at[other] - at[one]) if one in at and other in at else None

    def _day(self, at: float) -> datetime:
        return self.wall + timedelta(seconds=at - self.mono)

    def when(self, what: Told) -> datetime | None:
        """The time of day at which something was told."""
        at = self.attempt.at.get(what)
        return self._day(at) if at is not None else None

    def row(self) -> AttemptRow:
        """As it is written down."""
        attempt, over = self.attempt, self.done
        detail, played = attempt.detail, attempt.played
        return AttemptRow(
            id=attempt.id,
            campaign=self.campaign,
            state="ended" if over else min(attempt.stage, Stage.CONNECTED).word,
            trunk=self.trunk,
            caller_id=self.caller_id,
            dialed=self.when(Told.SENT),
            ringing=self.when(Told.RINGS),
            answered=self.when(Told.UP),
            connected=self.when(Told.CONNECTED),
            ended=self._day(max(attempt.ended, self.mono)) if over else None,
            agent=attempt.agent,
            queue=self.queue,
            waited=attempt.waited,
            wait_s=attempt.wait if Told.UP in attempt.at else None,
            wait_from=attempt.counted_from if Told.UP in attempt.at else None,
            outcome=attempt.outcome().value if over else None,
            counts_as=attempt.counts_as if over or not attempt.over else None,
            cause=attempt.cause,
            amd=attempt.said.get(Told.AMD),
            amd_cause=attempt.said.get(Told.AMD_CAUSE),
            amd_s=attempt.detected_in,
            detail=detail.value if detail is not None and (over or detail is Detail.NO_SOUND) else "",
            message_played=self.when(played) if played is not None else None,
            opted_out=Told.OPTED_OUT in attempt.at,
            why=self.why or self._of_message() or self._of_failure(),
            end_unseen=over and Told.LOST in attempt.at and Told.GONE not in attempt.at,
        )

    def _of_failure(self) -> str:
        """Why no call came about, as far as the switch says it."""
        attempt = self.attempt
        if not self.done or attempt.outcome() is not Outcome.FAILED:
            return ""
        said = [
            f"{name} {value}"
            for name, value in (
                ("its Originate ended with reason", attempt.said.get(Told.ORIGINATE_ENDED)),
                ("DialStatus", attempt.said.get(Told.DIAL_ENDED)),
                ("cause", attempt.cause),
            )
            if value is not None
        ]
        made = (
            ""
            if Told.APPEARED in attempt.at
            else " made no channel: does the trunk's `dial` name a real one?"
        )
        return f"the PBX{made or ' could not place the call'} ({', '.join(said) or 'it says nothing more'})"

    def _of_message(self) -> str:
        """What became of the message for a machine, once it is over."""
        detail = self.attempt.detail if self.done else None
        sound = self.drop if self.attempt.machine else self.message
        return WORDS[detail].format(sound=sound) if detail is not None else ""


def new_attempt(id: str, campaign: Campaign) -> Attempt:
    """An attempt of which nothing is known yet."""
    s = campaign.settings
    return Attempt(
        id, wait=s.answer_wait_s, wait_from=s.wait_from, alone=campaign.mode == "agentless", amd=s.amd
    )


def claimed(
    campaign: Campaign, one: Claimed, pbx: str, trunk: str, caller_id: str, now: float, drop: str = ""
) -> Live:
    """An attempt that is about to be dialed."""
    return Live(
        attempt=new_attempt(one.id, campaign),
        campaign=campaign.id,
        contact=one.candidate.contact,
        e164=one.candidate.e164,
        pbx=pbx,
        mono=now,
        wall=datetime.now(UTC),
        trunk=trunk,
        caller_id=caller_id,
        queue=campaign.settings.queue or None,
        data=call_data(campaign, one),
        drop=drop,
        message=campaign.settings.message or "",
        assigned=one.assigned,
        slot=True,
    )


def remembered(campaign: Campaign, row: Any, now: float) -> Live:
    """An attempt that a former process had in flight, as far as it was written down."""
    attempt = new_attempt(row["id"], campaign)
    live = Live(
        attempt=attempt,
        campaign=campaign.id,
        contact=row["contact_id"],
        e164=row["e164"],
        pbx=row["pbx"],
        mono=now,
        wall=datetime.now(UTC),
        trunk=row["trunk"],
        caller_id=row["caller_id"],
        queue=row["queue"],
        drop=campaign.settings.machine_message or "",
        message=campaign.settings.message or "",
        assigned=assigned_of(row["assigned"]),
    )
    for column, told in REMEMBERED_AS.items():
        if row[column] is not None:
            at = now - max(0.0, (live.wall - row[column]).total_seconds())
            attempt.tell(told, at, (row["agent"] or "") if told is Told.CONNECTED else "")
    if row["amd"]:
        attempt.tell(Told.AMD, attempt.at.get(Told.UP, now), row["amd"])
    if row["message_played"] is not None and not attempt.machine:
        attempt.tell(Told.NOBODY, attempt.at.get(Told.MESSAGE, now))
    if row["opted_out"]:
        attempt.tell(Told.OPTED_OUT, attempt.at.get(Told.MESSAGE, now))
    attempt.tell(Told.SENT, attempt.at.get(Told.SENT, now))
    return live


def told_by(record: Record) -> Sequence[tuple[Told, str]]:
    """What a record tells of an attempt's call. Early media is no answer: only the channel that is up is."""
    match record:
        case ChannelAppeared():
            return [(Told.APPEARED, "")]
        case ChannelStateChanged(state=ChannelState.RINGING | ChannelState.RING):
            return [(Told.RINGS, "")]
        case ChannelStateChanged(state=ChannelState.UP):
            return [(Told.UP, "")]
        case DialProgressed(status="RINGING"):
            return [(Told.RINGS, "")]
        case DialEnded():
            return [(Told.DIAL_ENDED, record.status)]
        case OriginateEnded():
            return [(Told.ORIGINATE_ENDED, "ok" if record.success else str(record.reason))]
        case HangupRequested():
            return [(Told.FAR_END, "")]
        case ChannelGone():
            return [(Told.GONE, str(record.cause))]
        case DialerTold():
            told = TOLD_BY_DIALPLAN.get(record.what)
            if told is None:
                return []
            heard = [(told, record.value if told in WITH_VALUE else "")]
            return [*heard, (Told.AMD_CAUSE, record.cause)] if record.cause else heard
    return []


def call_data(campaign: Campaign, one: Claimed) -> dict[str, str]:
    """What the agent's screen gets with the call: who it is, from which list, what to say. At most 512 characters each."""
    return data_of(campaign.name, campaign.id, one)


def data_of(campaign: str, id: int, one: Claimed) -> dict[str, str]:
    """The same, by the campaign's name and id."""
    c = one.candidate
    data = {
        "campaign": campaign,
        "campaign_id": str(id),
        "list": one.list_name,
        "contact": str(c.contact),
        "attempt": one.id,
        "name": c.name,
        "language": c.language,
        "script": one.script,
        "account_id": str(c.account) if c.account is not None else "",
    }
    for name, value in list(c.data.items())[:20]:
        data.setdefault(name[:64], str(value))
    return {name: value[:512] for name, value in data.items() if value}
