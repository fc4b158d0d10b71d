"""Compliance: whether a call may be placed, decided in one place, at the last moment, rule by rule. Pure.

What must be known of the contacts is read for a whole batch by `dialer/law/known.py`. The same verdict, with all its steps,
is what an attempt keeps as evidence and what "why was it (not) called" shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from dialer.candidate import Candidate
from dialer.law.calling_hours import Hours, UnknownZone, hours_at, opens_next
from dialer.law.profiles import Attempts, Profile
from dialer.verdict import Step, Verdict

HOUSE = "do-not-call list of this call centre"
AGENT_WAITS = frozenset({"manual", "preview"})
"""Modes in which an agent is there before the call is placed: the rests that unmanned calls cost do not apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A do-not-call entry that applies. `list`: everywhere, company, campaign, or a national register's name."""

    list: str
    since: date
    until: datetime | None = None
    reason: str = ""

    @property
    def national(self) -> bool:
        """Whether it is of a national register."""
        return self.list not in ("everywhere", "company", "campaign")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentState:
    """The last word on consent to be called for a purpose, in mode agentless with a recorded message. `id`: its record."""

    id: int
    given: bool
    purpose: str
    at: datetime
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """Somebody has promised to call them at a time. `keeper`: which agent, or which team."""

    due: datetime
    keeper: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a number and its person at a moment, for one campaign.

    `attempts_*`: when attempts were made within 30 days, the newest first. `editions`: the date of the edition of each
    national register that is loaded. `under_way`: the number, or another of the person, is being called. `promised`: they
    are called back by somebody, the latest such promise. `recorded`: the last word on recorded messages, where the campaign
    leaves them on machines.
    """

    mode: str = "predictive"
    purpose: str = "marketing"
    listed: tuple[Listed, ...] = ()
    editions: Mapping[str, date] = field(default_factory=dict)
    consent: ConsentState | None = None
    recorded: ConsentState | None = None
    attempts_of_number: tuple[datetime, ...] = ()
    attempts_of_person: tuple[datetime, ...] = ()
    last_abandoned: datetime | None = None
    last_machine: datetime | None = None
    under_way: bool = False
    promised: Promised | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneGroup:
    """Contacts of one country and region whose numbers may lie in the same zones: a row of `zone_groups`."""

    id: int
    country: str
    region: str
    zones: tuple[str, ...]


SOON = timedelta(minutes=10)
"""After this a number is looked at again that is being called now."""

KEPT_BY = timedelta(minutes=15)
"""After a call back is due: it is looked again whether it was kept."""

LOADED = timedelta(minutes=15)
"""After this it is looked again whether an edition of a register has been loaded."""


class _Steps:
    """The steps so far, and when what refuses may end."""

    def __init__(self) -> None:
        self.taken: list[Step] = []
        self.ends: list[datetime | None] = []

    def add(self, rule: str, ok: bool, says: str, source: str, again: datetime | None = None) -> None:
        self.taken.append(Step(rule=rule, ok=ok, says=says, source=source))
        if not ok:
            self.ends.append(again)


def judge(profile: Profile, candidate: Candidate, known: Known, now: datetime) -> Verdict:
    """Says whether this number may be dialed now, every rule looked at, in the order in which people ask.

    Never raises for what a contact holds: what cannot be understood is not called.
    """
    steps = _Steps()
    _country(steps, profile, candidate)
    _hours(steps, profile, candidate, known, now)
    _do_not_call(steps, profile, known, now)
    consent = _consent(steps, profile, known)
    recorded = _recorded(steps, profile, known)
    source = profile.source("attempts_per_number")
    _attempts(
        steps, "attempts_per_number", profile.per_number, known.attempts_of_number, "number", source, now
    )
    if candidate.person or candidate.several:
        source = profile.source("attempts_per_person")
        _attempts(
            steps, "attempts_per_person", profile.per_person, known.attempts_of_person, "person", source, now
        )
    _rests(steps, profile, known, now)
    if known.promised is not None:
        says = f"{known.promised.keeper} has promised to call back on {_moment(known.promised.due)}: kept or cancelled first"
        again = max(known.promised.due, now) + KEPT_BY
        steps.add("promised", False, says, "who was promised a call gets that call", again)
    if known.under_way:
        says = "the number, or another of this person, is being called at this moment"
        steps.add("under_way", False, says, "nobody is called twice at once", now + SOON)
    return Verdict(
        steps=tuple(steps.taken),
        not_before=_not_before(steps, profile, candidate, now),
        consent=consent,
        recorded=recorded,
    )


def _not_before(steps: _Steps, profile: Profile, candidate: Candidate, now: datetime) -> datetime | None:
    """When all that refuses has ended and calling hours are open; None where time alone does not help."""
    ends = [end for end in steps.ends if end is not None]
    if not ends or len(ends) < len(steps.ends):
        return None
    latest = max(now, *ends)
    if not candidate.zones:  # dialed by hand: who dials sees to the hour
        return latest
    try:
        return opens_next(profile, candidate.country, candidate.region, candidate.zones, latest)
    except UnknownZone:
        return None


def _country(steps: _Steps, profile: Profile, candidate: Candidate) -> None:
    where = candidate.country or "an unknown country"
    if not profile.countries:
        steps.add(
            "country", True, f"the number lies in {where}; the profile is for any", f"profile {profile.name}"
        )
    elif candidate.country in profile.countries:
        steps.add("country", True, f"the number lies in {where}", f"profile {profile.name}")
    else:
        others = ", ".join(profile.countries)
        says = f"the number lies in {where}, the profile {profile.name} is for {others}: call it in another campaign"
        steps.add("country", False, says, f"profile {profile.name}")


def _hours(steps: _Steps, profile: Profile, candidate: Candidate, known: Known, now: datetime) -> None:
    source = profile.source("calling_hours")
    if not candidate.zones:
        by_hand = known.mode == "manual"
        says = "the number's time zone is not known: " + (
            "the agent who dials it sees to the hour" if by_hand else "not called automatically"
        )
        steps.add("calling_hours", by_hand, says, source)
        return
    try:
        hours = hours_at(profile, candidate.country, candidate.region, candidate.zones, now)
    except UnknownZone as error:
        steps.add("calling_hours", False, f"{error}: not called automatically", source)
        return
    if hours.holiday:
        source = profile.source("holidays")
    steps.add("holidays" if hours.holiday else "calling_hours", hours.open, hours.says, source, hours.again)


def _do_not_call(steps: _Steps, profile: Profile, known: Known, now: datetime) -> None:
    ours = [entry for entry in known.listed if not entry.national]
    for entry in ours:
        whose = {
            "everywhere": "the do-not-call list",
            "company": "the company's do-not-call list",
            "campaign": "the campaign's do-not-call list",
        }[entry.list]
        until = f" until {entry.until:%Y-%m-%d %H:%M} UTC" if entry.until else ""
        reason = f" ({entry.reason})" if entry.reason else ""
        says = f"on {whose} since {entry.since}{until}{reason}"
        steps.add("do_not_call", False, says, HOUSE, entry.until)
    if not ours:
        steps.add("do_not_call", True, "on no do-not-call list of ours", HOUSE)
    overridden = profile.consent_overrides and known.consent is not None and known.consent.given
    source = profile.source("do_not_call")
    for register in profile.registers:
        rule = f"register_{register}"
        edition = known.editions.get(register)
        hit = next((entry for entry in known.listed if entry.list == register), None)
        if overridden:
            says = f"{'on' if hit else 'not on'} the register {register}, and has consented"
            steps.add(rule, True, says, source)
        elif hit is not None:
            steps.add(rule, False, f"on the register {register}, edition of {hit.since}", source)
        elif edition is None:
            says = f"no edition of the register {register} is loaded: cti dialer register load"
            steps.add(rule, False, says, source, now + LOADED)
        else:
            age = (now.astimezone(UTC).date() - edition).days
            fresh = age <= profile.scrub_days
            says = f"not on the register {register}, edition of {edition}, {age} days old" + (
                "" if fresh else f": older than the {profile.scrub_days} days allowed, load a newer one"
            )
            steps.add(rule, fresh, says, source, now + LOADED)
    for entry in known.listed:
        if entry.national and entry.list not in profile.registers:
            # Loaded by the operator though the profile names it not: it was loaded to be kept.
            says = f"on the register {entry.list}, edition of {entry.since}"
            steps.add(
                f"register_{entry.list}",
                overridden,
                says + (", and has consented" if overridden else ""),
                source,
            )


def _consent(steps: _Steps, profile: Profile, known: Known) -> str:
    """The step, and the consent relied upon."""
    recorded, needed = known.mode == "agentless", profile.needs_consent(known.mode)
    source = profile.source("recorded" if recorded else "consent")
    state = known.consent
    if state is None:
        what = "recorded calls" if recorded else "calls"
        says = f"no consent to {what} for {known.purpose}" + ("" if needed else ": none is needed")
        steps.add("consent", not needed, says, source)
        return ""
    day = state.at.astimezone(UTC).date()
    if not state.given:
        steps.add(
            "consent",
            False,
            f"consent to calls for {state.purpose or 'any purpose'} withdrawn on {day}",
            source,
        )
        return ""
    cited = _cited(state)
    steps.add("consent", True, f"consented: {cited}", source)
    return cited[:500]


def _recorded(steps: _Steps, profile: Profile, known: Known) -> bool:
    """Whether they have consented to recorded messages; it refuses no call, but says whose machine may be left one."""
    if known.mode == "agentless":
        return known.consent is not None and known.consent.given
    if known.recorded is None or not known.recorded.given:
        return False
    says = f"consented to recorded messages: {_cited(known.recorded)}"
    steps.add("recorded", True, says, profile.source("machine_message"))
    return True


def _cited(state: ConsentState) -> str:
    return f"no. {state.id} of {state.at.astimezone(UTC).date()} for {state.purpose}: {state.source}"


def _attempts(
    steps: _Steps,
    rule: str,
    limits: Attempts,
    made: Sequence[datetime],
    whose: str,
    source: str,
    now: datetime,
) -> None:
    windows = list(limits.windows())
    if not windows:
        steps.add(rule, True, f"{len(made)} attempts to this {whose} in 30 days; no limit", source)
    for name, hours, most in windows:
        since = now - timedelta(hours=hours)
        count = sum(1 for at in made if at > since)
        if count < most:
            steps.add(rule, True, f"{count} of {most} attempts to this {whose} in {name}", source)
        else:
            # Free again when the attempt that fills the limit has left the window.
            again = made[most - 1] + timedelta(hours=hours)
            says = (
                f"{count} attempts to this {whose} in {name}, {most} are allowed; again from {_moment(again)}"
            )
            steps.add(rule, False, says, source, again)


def _rests(steps: _Steps, profile: Profile, known: Known, now: datetime) -> None:
    for rule, hours, last, what in (
        ("rest_after_abandoned", profile.rest_after_abandoned_h, known.last_abandoned, "an abandoned call"),
        ("rest_after_machine", profile.rest_after_machine_h, known.last_machine, "a detected machine"),
    ):
        if not hours:
            continue
        source = profile.source(rule)
        end = last + timedelta(hours=hours) if last is not None else None
        if last is None or end is None or end <= now:
            steps.add(rule, True, f"no rest after {what} is running", source)
        elif known.mode in AGENT_WAITS:
            steps.add(rule, True, f"{what} on {_moment(last)}; an agent waits for this call", source)
        else:
            says = f"{hours:g} hours of rest after {what} on {_moment(last)}: until {_moment(end)}"
            steps.add(rule, False, says, source, end)


def _moment(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


# ------------------------------------------------------------------------------------------------ zone groups


class OpenGroups:
    """Which zone groups may be called now. Keeps each answer for the minute, or until it opens or closes within it."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._known: dict[ZoneGroup, tuple[Hours, datetime]] = {}

    def at(self, groups: Iterable[ZoneGroup], now: datetime) -> dict[int, Hours]:
        """Returns for each group's id whether it is open, until when, or when again. Groups without a zone are closed."""
        now = now.astimezone(UTC)
        told: dict[int, Hours] = {}
        for group in groups:
            kept = self._known.get(group)
            if kept is None or not kept[1] <= now < _good_until(*kept):
                kept = self._known[group] = self._look(group, now), now
            told[group.id] = kept[0]
        return told

    def _look(self, group: ZoneGroup, now: datetime) -> Hours:
        try:
            return hours_at(self._profile, group.country, group.region, group.zones, now)
        except UnknownZone as error:
            return Hours(open=False, says=str(error))


def open_groups(profile: Profile, groups: Iterable[ZoneGroup], now: datetime) -> dict[int, Hours]:
    """Returns for each group's id whether it may be called at `now`, until when, or when again. Keeps nothing; a loop asks
    an `OpenGroups`."""
    return OpenGroups(profile).at(groups, now)


def _good_until(hours: Hours, since: datetime) -> datetime:
    minute = since.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return min(minute, hours.until or hours.again or minute)
