"""A campaign as it is stored and as the dialer's loop takes it: its settings, itself, and what runs it. No I/O.

`CampaignSettings` is what `campaigns.settings` holds as JSON: a wrong value is refused when it is written. What the
country's profile allows is not known here: settings tighten it, `dialer/compliance.py` sees to it that they never loosen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cti.frozen import Frozen
from dialer.attempts import WaitFrom

CampaignMode = Literal[
    "manual", "preview", "progressive", "power", "predictive", "predictive-strict", "agentless"
]
CampaignState = Literal["draft", "running", "paused", "draining", "stopped"]
DIALED_BY_ITSELF = frozenset({"progressive", "power", "predictive", "predictive-strict", "agentless"})
"""Modes in which the server decides when to call. In the others an agent does."""

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Retried = Literal[
    "busy",
    "no_answer",
    "congestion",
    "rejected",
    "machine",
    "message_left",
    "abandoned",
    "agent_error",
    "failed",
    "cancelled",
    "unknown",
    "fax",
    "invalid_number",
    "answered",
]
Number = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{4,14}$", description="E.164 with its +")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$")]
Sound = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_/-]{0,99}$")]

_HOURS = re.compile(r"^([01][0-9]|2[0-3]):([0-5][0-9])-(([01][0-9]|2[0-3]):([0-5][0-9])|24:00)$")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RetryRule(_Model):
    """What follows an attempt with one outcome. The n-th such attempt to a contact in a row waits for the n-th of
    `after_minutes` (the last one stays), then the contact may be called again."""

    after_minutes: tuple[Annotated[int, Field(ge=1, le=60 * 24 * 90)], ...] = Field(
        min_length=1,
        max_length=20,
        description="minutes until the next attempt: after the first such outcome, the second...",
    )
    at_most: int = Field(
        default=10,
        ge=0,
        le=30,
        description="attempts with this outcome before the contact counts as used up; 0: never again",
    )
    other_number: bool = Field(
        default=False, description="whether another number of the contact is tried next, if there is one"
    )


def _usual_retries() -> dict[Retried, RetryRule]:
    hour, day = 60, 60 * 24
    return {
        "busy": RetryRule(after_minutes=(15, 30, 2 * hour, day), at_most=6),
        "no_answer": RetryRule(after_minutes=(3 * hour, day, day, 2 * day), at_most=6, other_number=True),
        "congestion": RetryRule(after_minutes=(10, 30, 2 * hour, day), at_most=6),
        "rejected": RetryRule(after_minutes=(day, 3 * day), at_most=2),
        "machine": RetryRule(after_minutes=(4 * hour, day, 2 * day), at_most=5, other_number=True),
        "abandoned": RetryRule(after_minutes=(3 * day,), at_most=2),
        "answered": RetryRule(after_minutes=(day, 3 * day), at_most=3),
        "agent_error": RetryRule(after_minutes=(hour,), at_most=3),
        "failed": RetryRule(after_minutes=(15, hour, day), at_most=4),
        "cancelled": RetryRule(after_minutes=(30, 2 * hour, day), at_most=6),
        "unknown": RetryRule(after_minutes=(2 * hour, day), at_most=3),
        "fax": RetryRule(after_minutes=(day,), at_most=0, other_number=True),
        "invalid_number": RetryRule(after_minutes=(day,), at_most=0, other_number=True),
    }


Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,63}$")]
Category = Literal["conversion", "contact", "no_contact", "do_not_call", "call_back", "finished"]
Then = Literal["finish", "again", "do_not_call"]

DAY = 60 * 24
USUALLY: dict[Category, tuple[Then, int]] = {
    "conversion": ("finish", DAY),
    "contact": ("finish", DAY),
    "no_contact": ("again", DAY),
    "do_not_call": ("do_not_call", DAY),
    "call_back": ("again", DAY),
    "finished": ("finish", DAY),
}
"""Category → what becomes of the contact, and after how many minutes it is called again, where that is it."""


class CampaignDisposition(_Model):
    """How a call of the campaign may have ended, as its agents say it, and what becomes of the contact then."""

    code: Code
    label: Annotated[str, Field(min_length=1, max_length=64)]
    category: Category = Field(
        description="conversion: counts as a success; contact: reached, no success; no_contact: somebody else or nobody was"
        " reached; do_not_call: does not want calls; call_back: wants another call; finished: there is nobody to reach"
    )
    then: Then | None = Field(
        default=None,
        description="finish: not called again by this campaign; again: called again after `again_after_minutes`, while"
        " attempts are left; do_not_call: also listed as not to be called, at once. null: by category, no_contact and"
        " call_back again, do_not_call as it says, others finish. While somebody has promised the contact a call, nobody"
        " else calls it again",
    )
    again_after_minutes: int | None = Field(
        default=None, ge=1, le=DAY * 90, description="minutes until it is called again; null: a day"
    )
    do_not_call: Literal["everywhere", "company", "campaign"] | None = Field(
        default=None,
        description="where it is not called; null: for the campaign's company, everywhere if it names none",
    )

    @property
    def follows(self) -> Then:
        """What becomes of the contact."""
        return self.then or USUALLY[self.category][0]

    @property
    def minutes(self) -> int:
        """Minutes until it is called again, where that is what follows."""
        return self.again_after_minutes or USUALLY[self.category][1]

    @model_validator(mode="after")
    def _sound(self) -> CampaignDisposition:
        if self.category == "do_not_call" and self.follows != "do_not_call":
            raise ValueError(
                f"{self.code}: who does not want calls is listed: leave `then` out, or do_not_call"
            )
        if self.again_after_minutes is not None and self.follows != "again":
            raise ValueError(
                f"{self.code}: again_after_minutes is for dispositions after which is called again"
            )
        if self.do_not_call is not None and self.follows != "do_not_call":
            raise ValueError(f"{self.code}: do_not_call says where a number is listed, and this lists none")
        return self


class CampaignWrapUp(_Model):
    """What follows the campaign's talks; what is left out is as the rule of its queue has it."""

    seconds: float | None = Field(default=None, ge=0, le=3600)
    extension: float | None = Field(
        default=None, ge=0, le=3600, description="seconds that an agent may add to one wrap-up in all"
    )
    mandatory: bool | None = Field(
        default=None, description="whether it does not end before the agent has said how the call ended"
    )
    after: Literal["ready", "not_ready"] | None = Field(default=None, description="how the agent is after it")


class CampaignCallerId(_Model):
    """A number that is shown to those who are called; several that fit take turns. Only numbers verified in the server's
    settings (`CTI_DIALER__CALLER_IDS`) are used."""

    number: Number
    prefixes: tuple[Annotated[str, Field(pattern=r"^\+[1-9][0-9]{0,9}$")], ...] = Field(
        default=(),
        max_length=200,
        description="shown to numbers that begin like this: +33, +1212; empty: to all others",
    )


class CampaignSettings(_Model):
    """How a campaign is run. Every field has a default, so `{}` is a campaign that only needs a queue or a team."""

    # who talks
    queue: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9_-]{1,40}:[A-Za-z0-9][A-Za-z0-9_.-]{1,79})?$",
        description="queue's id, `main:sales`: its agents work for the campaign; agents who work on-hook get the answered"
        " calls from it",
    )
    team: str = Field(
        default="", max_length=80, description="only agents of this team (its name); empty: all of the queue"
    )
    pbx: str = Field(
        default="", max_length=40, description="PBX that dials; empty: the queue's, or the only one"
    )

    # lines
    trunks: tuple[Name, ...] = Field(
        default=(),
        max_length=20,
        description="trunks of the server's settings, the first is tried first; empty: all of the PBX",
    )
    caller_ids: tuple[CampaignCallerId, ...] = Field(
        default=(), max_length=200, description="numbers shown; empty: those verified for the server, in turn"
    )
    max_lines: int = Field(
        default=100, ge=1, le=10_000, description="calls under way at once, talks included"
    )
    calls_per_second: float = Field(default=5.0, gt=0, le=200, description="calls placed a second at most")

    # how long
    ring_timeout_s: float = Field(
        default=24.0, ge=3, le=120, description="seconds a call rings before it is given up"
    )
    min_ring_s: float = Field(
        default=15.0, ge=1, le=60, description="seconds a call rings at least before pacing may give it up"
    )
    answer_wait_s: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="seconds that somebody who has answered waits for an agent; then the message, counted as abandoned",
    )

    wait_from: WaitFrom = Field(
        default="answer",
        description="from when that wait counts where machines are detected: the answer, what detection takes included, or"
        " the end of the person's greeting, where the profile allows it; unless said, as the profile has it",
    )

    # pace
    ratio: float = Field(default=1.5, ge=1, le=5, description="calls for each free agent in mode power")
    few_agents: int = Field(
        default=3, ge=1, le=100, description="with fewer agents at work it paces progressively"
    )
    abandonment_cap: float = Field(
        default=0.03, gt=0, le=0.1, description="share of live answers that may be abandoned over the window"
    )
    abandonment_window_h: float = Field(
        default=24.0, ge=0.5, le=24 * 30, description="hours of the window that the pace looks at"
    )

    # what is heard
    amd: bool = Field(
        default=False,
        description="whether answering machines are detected; takes people for machines now and then",
    )
    machine_message: Sound | None = Field(
        default=None,
        description="sound of the PBX left on a detected machine once its greeting has ended; null: it is hung up. Then it"
        " is not called again, unless `retries` has a rule for message_left",
    )
    machine_message_to: Literal["consented", "all"] = Field(
        default="consented",
        description="whose machines: only of who has consented to recorded calls for `purpose`, or all",
    )
    machine_messages: int = Field(
        default=1, ge=1, le=5, description="messages begun on machines of a contact at most; then hung up"
    )
    machine_silence_s: float = Field(
        default=2.0,
        ge=0.5,
        le=5,
        description="seconds of silence that end a greeting; more than a machine waits before its beep",
    )
    machine_wait_s: int = Field(
        default=25,
        ge=5,
        le=60,
        description="seconds that the end of a greeting is waited for at most; then hung up without a message",
    )
    message: Sound | None = Field(
        default=None,
        description="sound of the PBX played to whom no agent could be given, or in mode agentless to everybody who answers",
    )
    opt_out_key: str = Field(
        default="9",
        pattern=r"^[0-9*]?$",
        description="key pressed during the message: never called again; empty: none",
    )

    # what agents do after a talk
    wrap_up: CampaignWrapUp = Field(
        default_factory=CampaignWrapUp,
        description="wrap-up after its talks: {'seconds': 30, 'extension': 60, 'mandatory': true, 'after': 'ready'}; what is"
        " left out is as for its queue's calls",
    )
    dispositions: tuple[CampaignDisposition, ...] = Field(
        default=(),
        max_length=100,
        description="how its calls may have ended, and what becomes of the contact; empty: as the queue has it",
    )

    # whom and when
    max_attempts: int = Field(
        default=6, ge=1, le=100, description="attempts to a contact over all its numbers; then exhausted"
    )
    retries: dict[Retried, RetryRule] = Field(
        default_factory=dict, description="what follows an outcome, in place of the usual rule for it"
    )
    hours: dict[Weekday, tuple[str, ...]] | None = Field(
        default=None,
        description="calling hours in the local time of who is called, within the profile's: {'mon': ['09:00-12:00',"
        " '14:00-19:00']}; a day left out has none; null: the profile's",
    )
    attempts_per_day: int | None = Field(
        default=None, ge=1, le=50, description="attempts a day to a number and person; null: the profile's"
    )
    attempts_per_week: int | None = Field(default=None, ge=1, le=100, description="the same over 7 days")
    attempts_per_30_days: int | None = Field(default=None, ge=1, le=200, description="the same over 30 days")
    purpose: str = Field(
        default="marketing", max_length=60, description="what the calls are for: consent is looked up for it"
    )
    company: str = Field(
        default="",
        max_length=100,
        description="on whose behalf is called: who asked this company not to call is not called for it",
    )
    consent_only: bool = Field(
        default=False, description="only who has consented is called, also where the profile needs no consent"
    )
    rest_after_abandoned_h: float | None = Field(
        default=None,
        ge=0,
        le=24 * 90,
        description="hours without a call after an abandoned one; null: the profile's",
    )
    rest_after_machine_h: float | None = Field(
        default=None, ge=0, le=24 * 90, description="the same after a detected machine"
    )
    not_on_holidays: bool = Field(
        default=False, description="nobody is called on a public holiday, also where the profile allows it"
    )

    @field_validator("hours")
    @classmethod
    def _real_hours(
        cls, hours: dict[Weekday, tuple[str, ...]] | None
    ) -> dict[Weekday, tuple[str, ...]] | None:
        for spans in (hours or {}).values():
            for span in spans:
                if not _HOURS.match(span) or span[:5] >= span[6:]:
                    raise ValueError(f"{span!r} is no span of a day: write it like 09:00-12:30")
        return hours

    @model_validator(mode="after")
    def _sound(self) -> CampaignSettings:
        if self.min_ring_s > self.ring_timeout_s:
            raise ValueError("min_ring_s is longer than ring_timeout_s: calls would never ring so long")
        codes = [one.code for one in self.dispositions]
        if twice := sorted({code for code in codes if codes.count(code) > 1}):
            raise ValueError(f"dispositions: {', '.join(twice)} is there twice")
        for one in self.dispositions:
            if one.do_not_call == "company" and not self.company:
                raise ValueError(
                    f"{one.code}: the campaign names no company; set `company`, or list it everywhere"
                )
        return self

    def disposition(self, code: str | None) -> CampaignDisposition | None:
        """The disposition with this code, if it is one of the campaign's."""
        return next((one for one in self.dispositions if one.code == code), None)

    def retry(self, outcome: str) -> RetryRule | None:
        """What follows an outcome; None for one that is final."""
        for rules in (self.retries, _USUAL):
            for name, rule in rules.items():
                if name == outcome:
                    return rule
        return None


_USUAL = _usual_retries()


def spans_of(hours: tuple[str, ...]) -> list[tuple[time, time]]:
    """Spans of a day as times; one that ends at 24:00 ends at the last moment of the day."""
    return [
        (time.fromisoformat(s[:5]), time.max if s[6:] == "24:00" else time.fromisoformat(s[6:]))
        for s in hours
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A row of `campaigns`. `profile`: the country profile whose law is kept, by name."""

    id: int
    name: str
    mode: CampaignMode
    state: CampaignState
    profile: str
    priority: int
    settings: CampaignSettings
    version: int


class CampaignLive(Frozen, frozen=True, gc=False, kw_only=True):
    """What a running campaign is doing now. Times are seconds, shares of 1, counts over the pace's window.

    `here`: whether this server paces it (`owner`: who does). `agents`: by free, talking, wrapping_up, away. `calls`: calls
    under way by stage: committed, dialed, ringing, answered, connected. `live` answers, `lost` of them, and how many more
    may be, as the law counts. `pace`: calls asked for in the last minute. `held`: why nothing is placed, in one word
    (no_agents, late, pbx_down, no_lines, nothing_to_call, not_theirs, not_here, database, draining, ""). `why`: the pace in
    plain words.
    """

    campaign: int
    state: CampaignState
    mode: CampaignMode
    here: bool
    owner: str
    at: datetime
    agents: dict[str, int]
    calls: dict[str, int]
    attempts: int
    answered: int
    connected: int
    live: float
    lost: float
    may_be_lost: int
    pace: int
    held: str
    why: str
    outcomes: dict[str, int]
    trunks: dict[str, str]


class Runner(Protocol):
    """What runs campaigns on this server. One process may run it beside others on the same database."""

    async def start(self) -> None:
        """Settles what a former process left in flight, then runs every campaign that is to run."""

    async def stop(self) -> None:
        """Places no more calls and gives up the campaigns it paces; calls under way go on at the switch."""

    async def refresh(self, campaign_id: int) -> None:
        """Reads the campaign's row again: started, paused, draining, stopped or changed. Idempotent."""

    def view(self, campaign_id: int) -> CampaignLive | None:
        """How it stands; None while it is not running here and never has been since the start."""
