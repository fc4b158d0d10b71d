"""Country profiles: the law's numbers as data (`dialer/law/countries/*.toml`), each with its source and date; and what a
campaign makes of one. A campaign may tighten a profile, never loosen it. No I/O but reading the files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cti.commands import sentence
from dialer.attempts import WaitFrom
from dialer.management.settings import CampaignSettings

SHIPPED = Path(__file__).parent / "countries"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
COUNSEL = "confirm with your counsel"

Span = tuple[int, int]
"""Minutes after midnight, local time: from the first to before the second; 1440 is the day's end."""

MachineMessage = Literal["never", "consented", "always"]
"""Whose answering machines may be left a message: nobody's, only of who has consented, or all."""


class WrongProfile(Exception):
    """A file is no profile; the message says which, where and why."""


class TooLoose(ValueError):
    """A campaign wants more than its profile allows; the message says of each limit what is allowed, and by which rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where a limit comes from. `checked`: the text of the law was read, not only what others write of it; else `confirm
    with your counsel`. `by`: "law", or "campaign" where a campaign has set a tighter one."""

    source: str
    as_of: date
    checked: bool
    by: str = "law"

    @property
    def cited(self) -> str:
        """The source as it stands in evidence."""
        return f"{self.source} (as of {self.as_of}{'' if self.checked else '; ' + COUNSEL})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """How many attempts in any 24 hours, 7 days and 30 days; None: no limit. Such windows hold every calendar day too."""

    day: int | None = None
    week: int | None = None
    days_30: int | None = None

    def windows(self) -> Iterator[tuple[str, int, int]]:
        """Each limit: its name, its hours, and how many."""
        for name, hours, most in (
            ("24 hours", 24, self.day),
            ("7 days", 168, self.week),
            ("30 days", 720, self.days_30),
        ):
            if most is not None:
                yield name, hours, most


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A country's rules, or what a campaign has made of them. Shares of 1, seconds, hours and days as the names say.

    `countries`: ISO 3166-1 codes it is for; empty: any. `week`: calling hours by weekday, Monday first, in the local time
    of who is called. `amd_errors_count`: people taken for machines count as abandoned, `amd_error_share` of the machines
    where nothing was measured. `wait_from_greeting`: the wait for an agent begins when the person's greeting is over, not
    with the answer. `amd_usual`: whether answering machines are detected if the campaign does not say.
    `machine_message`: whose machines may be left a message. `recorded_needs_consent`, `recorded_opt_out`: whether people are
    played a recorded message (mode agentless) only with their consent to that, and only with a key that ends it for good.
    `rest_after_*`: not called again by itself for so long. `registers`: national do-not-call registers of which an edition
    no older than `scrub_days` must be loaded. `rules`: the source of each limit by its section in the file.
    """

    name: str
    title: str
    countries: tuple[str, ...]
    revised: date
    notes: tuple[str, ...]
    week: tuple[tuple[Span, ...], ...]
    closed_on_holidays: bool
    abandonment_cap: float
    abandonment_window_h: float
    amd_errors_count: bool
    amd_error_share: float
    answer_wait_s: float
    wait_from_greeting: bool
    min_ring_s: float
    message_required: bool
    per_number: Attempts
    per_person: Attempts
    rest_after_abandoned_h: float
    rest_after_machine_h: float
    amd_usual: bool
    machine_message: MachineMessage
    consent_needed: bool
    recorded_needs_consent: bool
    recorded_opt_out: bool
    registers: tuple[str, ...]
    scrub_days: int
    consent_overrides: bool
    keep_days: int
    rules: Mapping[str, Rule]

    @property
    def wait_from(self) -> WaitFrom:
        """From when the wait for an agent counts where machines are detected."""
        return "greeting" if self.wait_from_greeting else "answer"

    def source(self, section: str) -> str:
        """Where the limit of a section comes from."""
        return self.rules[section].cited

    def needs_consent(self, mode: str) -> bool:
        """Whether only who has consented is called in this mode: to calls, or in mode agentless to recorded ones."""
        return self.recorded_needs_consent if mode == "agentless" else self.consent_needed


# ------------------------------------------------------------------------------------------------ files

_SPAN = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_Hours = tuple[str, ...]
_Few = Annotated[int, Field(ge=1, le=100)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1, max_length=300)
    as_of: date
    checked: bool


class _CallingHours(_Section):
    mon: _Hours = ()
    tue: _Hours = ()
    wed: _Hours = ()
    thu: _Hours = ()
    fri: _Hours = ()
    sat: _Hours = ()
    sun: _Hours = ()

    @field_validator(*DAYS)
    @classmethod
    def _readable(cls, written: _Hours) -> _Hours:
        spans_of(written)
        return written


class _Holidays(_Section):
    closed: bool


class _Abandonment(_Section):
    cap: float = Field(ge=0, le=1)
    window_hours: float = Field(gt=0, le=24 * 90)
    amd_errors_count: bool
    amd_error_share: float = Field(ge=0, le=1)


class _AnswerWait(_Section):
    seconds: float = Field(gt=0, le=60)
    from_greeting: bool = False


class _MinRing(_Section):
    seconds: float = Field(ge=0, le=120)


class _Message(_Section):
    required: bool


class _Attempts(_Section):
    day: _Few | None = None
    week: _Few | None = None
    days_30: _Few | None = None


class _Rest(_Section):
    hours: float = Field(ge=0, le=24 * 90)


class _Amd(_Section):
    usual: bool


class _MachineMessage(_Section):
    allowed: MachineMessage


class _Consent(_Section):
    needed: bool


class _Recorded(_Section):
    needed: bool
    opt_out: bool


class _DoNotCall(_Section):
    registers: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")], ...]
    scrub_days: int = Field(ge=1, le=3650)
    consent_overrides: bool


class _Records(_Section):
    keep_days: int = Field(ge=1, le=36500)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{1,39}$")
    title: str = Field(min_length=1, max_length=100)
    countries: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2}$")], ...]
    revised: date
    notes: tuple[str, ...] = ()
    calling_hours: _CallingHours
    holidays: _Holidays
    abandonment: _Abandonment
    answer_wait: _AnswerWait
    min_ring: _MinRing
    message: _Message
    attempts_per_number: _Attempts
    attempts_per_person: _Attempts
    rest_after_abandoned: _Rest
    rest_after_machine: _Rest
    amd: _Amd
    machine_message: _MachineMessage
    consent: _Consent
    recorded: _Recorded | None = None
    do_not_call: _DoNotCall
    records: _Records

    @model_validator(mode="after")
    def _strict(self) -> _File:
        if self.recorded is None:  # older than the section
            said = "not said by this profile: as strict as can be"
            strict = _Recorded(source=said, as_of=self.revised, checked=False, needed=True, opt_out=True)
            return self.model_copy(update={"recorded": strict})
        return self


def load(*folders: Path) -> dict[str, Profile]:
    """Returns the profiles that come with the product, and those in `folders`, which outrank them, by name.

    Raises WrongProfile; what is wrong with one file is never passed over, since calls would be placed by it.
    """
    found: dict[str, Profile] = {}
    for folder in (SHIPPED, *folders):
        if not folder.is_dir():
            raise WrongProfile(f"{folder} is no folder with profiles")
        for path in sorted(folder.glob("*.toml")):
            profile = read(path)
            found[profile.name] = profile
    return found


def read(path: Path) -> Profile:
    """Returns the profile in a file. Raises WrongProfile."""
    try:
        file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise WrongProfile(f"{path.name}: {error}") from None
    except ValidationError as error:
        raise WrongProfile(f"{path.name}: {sentence(error)}") from None
    sections = {
        name: part for name in _File.model_fields if isinstance(part := getattr(file, name), _Section)
    }
    recorded = file.recorded
    assert recorded is not None
    return Profile(
        name=file.name,
        title=file.title,
        countries=file.countries,
        revised=file.revised,
        notes=file.notes,
        week=tuple(spans_of(getattr(file.calling_hours, day)) for day in DAYS),
        closed_on_holidays=file.holidays.closed,
        abandonment_cap=file.abandonment.cap,
        abandonment_window_h=file.abandonment.window_hours,
        amd_errors_count=file.abandonment.amd_errors_count,
        amd_error_share=file.abandonment.amd_error_share,
        answer_wait_s=file.answer_wait.seconds,
        wait_from_greeting=file.answer_wait.from_greeting,
        min_ring_s=file.min_ring.seconds,
        message_required=file.message.required,
        per_number=_attempts(file.attempts_per_number),
        per_person=_attempts(file.attempts_per_person),
        rest_after_abandoned_h=file.rest_after_abandoned.hours,
        rest_after_machine_h=file.rest_after_machine.hours,
        amd_usual=file.amd.usual,
        machine_message=file.machine_message.allowed,
        consent_needed=file.consent.needed,
        recorded_needs_consent=recorded.needed,
        recorded_opt_out=recorded.opt_out,
        registers=file.do_not_call.registers,
        scrub_days=file.do_not_call.scrub_days,
        consent_overrides=file.do_not_call.consent_overrides,
        keep_days=file.records.keep_days,
        rules={
            name: Rule(source=part.source, as_of=part.as_of, checked=part.checked)
            for name, part in sections.items()
        },
    )


def _attempts(part: _Attempts) -> Attempts:
    return Attempts(day=part.day, week=part.week, days_30=part.days_30)


def spans_of(written: Sequence[str]) -> tuple[Span, ...]:
    """Returns `("10:00-13:00", "14:00-20:00")` as spans in their order. Raises ValueError for what is none, and for spans
    that meet, overlap or go over midnight."""
    spans: list[Span] = []
    for text in written:
        match = _SPAN.fullmatch(text)
        a, b, c, d = (int(part) for part in match.groups()) if match else (0, 0, 0, 0)
        if not a * 60 + b < c * 60 + d <= 1440:
            raise ValueError(f"{text!r} is no span of a day: write it like 09:00-12:30")
        spans.append((a * 60 + b, c * 60 + d))
    spans.sort()
    for one, next_one in pairwise(spans):
        if next_one[0] <= one[1]:
            raise ValueError(f"{told((one, next_one))} touch one another: write them as one")
    return tuple(spans)


def told(spans: Sequence[Span]) -> str:
    """Returns spans as people write them; "never" for none."""
    times = (f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in spans)
    return " and ".join(times) or "never"


# ------------------------------------------------------------------------------------------------ tightening


def tighten(profile: Profile, settings: CampaignSettings) -> Profile:
    """Returns the rules a campaign works by: the profile's, where it has set none of its own.

    Only what its settings say counts: where a default of theirs is looser than the profile, the profile stands. Raises
    TooLoose, which names each limit that is looser than the profile's and what is allowed.
    """
    usual = CampaignSettings()
    given = settings.model_fields_set
    change: dict[str, Any] = {}
    sections: set[str] = set()
    faults: list[str] = []

    def take(section: str, **values: Any) -> None:
        change.update(values)
        sections.add(section)

    def fault(name: str, allowed: str, section: str) -> None:
        faults.append(f"{name}: profile {profile.name} allows {allowed} ({profile.source(section)})")

    if "hours" in given and settings.hours is not None:
        week = []
        for day, allowed in zip(DAYS, profile.week, strict=True):
            try:
                spans = spans_of(settings.hours.get(day, ()))  # type: ignore[call-overload]
            except ValueError as error:
                faults.append(f"hours.{day}: {error}")
                spans = ()
            for span in spans:
                if not any(a <= span[0] and span[1] <= b for a, b in allowed):
                    fault(f"hours.{day}: {told([span])} is too much", told(allowed), "calling_hours")
            week.append(spans)
        if tuple(week) != profile.week:
            take("calling_hours", week=tuple(week))
    if settings.consent_only and not profile.consent_needed:
        take("consent", consent_needed=True)
    if settings.consent_only and not profile.recorded_needs_consent:
        take("recorded", recorded_needs_consent=True)
    for name, section in (
        ("rest_after_abandoned_h", "rest_after_abandoned"),
        ("rest_after_machine_h", "rest_after_machine"),
    ):
        wanted, limit = getattr(settings, name), getattr(profile, name)
        if wanted is not None and wanted < limit:
            fault(f"{name}: {wanted:g}", f"at least {limit:g}", section)
        elif wanted is not None and wanted != limit:
            take(section, **{name: wanted})
    if settings.not_on_holidays and not profile.closed_on_holidays:
        take("holidays", closed_on_holidays=True)
    for name, section, most in (
        ("abandonment_cap", "abandonment", True),
        ("answer_wait_s", "answer_wait", True),
        ("min_ring_s", "min_ring", False),
    ):
        if name not in given:
            continue
        wanted, limit = getattr(settings, name), getattr(profile, name)
        if (wanted > limit) if most else (wanted < limit):
            if wanted == getattr(usual, name):
                continue
            fault(f"{name}: {wanted:g}", f"at {'most' if most else 'least'} {limit:g}", section)
        elif wanted != limit:
            take(section, **{name: wanted})
    if "wait_from" in given and settings.wait_from != profile.wait_from:
        if settings.wait_from == "greeting":
            fault("wait_from: greeting", "only answer", "answer_wait")
        else:
            take("answer_wait", wait_from_greeting=False)
    if "abandonment_window_h" in given:
        wanted, limit = settings.abandonment_window_h, profile.abandonment_window_h
        parts = limit / wanted
        if wanted == usual.abandonment_window_h and wanted > limit:
            pass
        elif wanted > limit or abs(parts - round(parts)) > 1e-9:
            # Only a window that fills the legal one evenly proves that the legal one is kept.
            fault(f"abandonment_window_h: {wanted:g}", f"{limit:g} or a whole part of it", "abandonment")
        elif wanted != limit:
            take("abandonment", abandonment_window_h=wanted)
    for window, name in (
        ("day", "attempts_per_day"),
        ("week", "attempts_per_week"),
        ("days_30", "attempts_per_30_days"),
    ):
        wanted_most = getattr(settings, name)
        if wanted_most is None:
            continue
        for field, section in (
            ("per_number", "attempts_per_number"),
            ("per_person", "attempts_per_person"),
        ):
            attempts = change.get(field, getattr(profile, field))
            limit_of = getattr(attempts, window)
            if limit_of is not None and wanted_most > limit_of:
                fault(f"{name}: {wanted_most}", f"at most {limit_of}", section)
            elif wanted_most != limit_of:
                take(section, **{field: replace(attempts, **{window: wanted_most})})
    if settings.machine_message is not None:
        whose, allowed_to = settings.machine_message_to, profile.machine_message
        if allowed_to == "never":
            fault("machine_message", "none", "machine_message")
        elif whose == "all" and allowed_to == "consented":
            fault("machine_message_to: all", "only consented", "machine_message")
        elif whose == "consented" and allowed_to == "always":
            take("machine_message", machine_message=whose)
    if faults:
        raise TooLoose("; ".join(dict.fromkeys(faults)))
    rules = {
        name: replace(rule, source=f"set by the campaign; {rule.source}", by="campaign")
        if name in sections
        else rule
        for name, rule in profile.rules.items()
    }
    return replace(profile, rules=rules, **change)


def before_start(profile: Profile, mode: str, settings: CampaignSettings) -> list[str]:
    """Returns what a campaign lacks before it may start, by its profile: sentences that say what to do; empty if nothing."""
    lacking: list[str] = []
    speaks = mode in ("progressive", "power", "predictive", "predictive-strict", "agentless")
    if speaks and profile.message_required and settings.message is None:
        lacking.append(
            "message: name the sound for people whom no agent can be given; it says who called and on which number to call "
            f"back ({profile.source('message')})"
        )
    if mode == "agentless" and profile.recorded_opt_out and not settings.opt_out_key:
        lacking.append(
            "opt_out_key: who hears a recorded message must be able to end such calls by a key: name it, and say it in "
            f"the message ({profile.source('recorded')})"
        )
    return lacking


def rules_told(profile: Profile) -> Iterator[tuple[str, str, Rule]]:
    """Each rule in the words of the trade: its section, what it says with its numbers, and where it comes from."""
    p = profile
    hours = "; ".join(_days_told(p.week))
    counted = " (people taken for machines count too)" if p.amd_errors_count else ""
    registers = (
        f"national register {', '.join(p.registers)}, an edition of the last {p.scrub_days} days"
        + ("; who has consented may be called" if p.consent_overrides else "")
        if p.registers
        else "no national register"
    )
    says = {
        "calling_hours": f"local time of who is called, in every zone the number may lie in: {hours}",
        "holidays": "nobody is called on public holidays"
        if p.closed_on_holidays
        else "holidays are as other days",
        "abandonment": f"at most {p.abandonment_cap:.2%} of live answers in {p.abandonment_window_h:g} hours{counted}",
        "answer_wait": f"an agent within {p.answer_wait_s:g} s of the "
        f"{'end of the greeting' if p.wait_from_greeting else 'answer'}, else the call is abandoned",
        "min_ring": f"calls ring at least {p.min_ring_s:g} s",
        "message": "who is abandoned hears who called" if p.message_required else "no message is required",
        "attempts_per_number": _attempts_told(p.per_number, "number"),
        "attempts_per_person": _attempts_told(p.per_person, "person"),
        "rest_after_abandoned": _rest_told(p.rest_after_abandoned_h, "an abandoned call"),
        "rest_after_machine": _rest_told(p.rest_after_machine_h, "an answering machine was detected"),
        "amd": f"answering machines are {'' if p.amd_usual else 'not '}detected unless the campaign says so",
        "machine_message": {
            "never": "no message is left on answering machines",
            "consented": "a message is left only on answering machines of who has consented",
            "always": "a message may be left on any answering machine",
        }[p.machine_message],
        "consent": "only who has consented"
        if p.consent_needed
        else "no consent is needed; who withdrew it is not called",
        "recorded": "recorded messages (mode agentless): "
        + ("only to who has consented to them" if p.recorded_needs_consent else "no consent is needed")
        + (", with a key to refuse more of them" if p.recorded_opt_out else ""),
        "do_not_call": registers,
        "records": f"records are kept for {p.keep_days} days",
    }
    for section, rule in p.rules.items():
        yield section, says[section], rule


def _days_told(week: Sequence[tuple[Span, ...]]) -> Iterator[str]:
    """Days with the same hours together: `mon-fri 08:00-20:00`."""
    for spans, group in groupby(range(len(week)), key=lambda day: week[day]):
        days = list(group)
        name = DAYS[days[0]] if len(days) == 1 else f"{DAYS[days[0]]}-{DAYS[days[-1]]}"
        yield f"{name} {told(spans)}"


def _attempts_told(attempts: Attempts, whose: str) -> str:
    limits = ", ".join(f"{most} in {name}" for name, _, most in attempts.windows())
    return f"attempts to a {whose}: at most {limits}" if limits else f"attempts to a {whose}: no limit"


def _rest_told(hours: float, what: str) -> str:
    return (
        f"{hours:g} hours after {what}, unless an agent waits for the call"
        if hours
        else f"no rest after {what}"
    )
