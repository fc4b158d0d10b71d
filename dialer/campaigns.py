"""Campaigns: their states as a table, their schedule, what may be changed when, and what keeps one from starting. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from cti.refusals import Refused
from dialer.attempts import HEARD_BEFORE, LOOK_SHORT_OF, WaitFrom, amd_may_take
from dialer.management.settings import (
    DIALED_BY_ITSELF,
    Campaign,
    CampaignMode,
    CampaignSettings,
    CampaignState,
)
from routing.hours import DAYS, Span


class Step(StrEnum):
    """What can be done to a campaign. `finish` is the server's: the last call of a draining one is over."""

    START = "start"
    PAUSE = "pause"
    DRAIN = "drain"
    STOP = "stop"
    FINISH = "finish"


TRANSITIONS: dict[CampaignState, dict[Step, CampaignState]] = {
    "draft": {Step.START: "running"},
    "running": {Step.PAUSE: "paused", Step.DRAIN: "draining", Step.STOP: "stopped"},
    "paused": {Step.START: "running", Step.DRAIN: "draining", Step.STOP: "stopped"},
    "draining": {
        Step.START: "running",
        Step.PAUSE: "paused",
        Step.STOP: "stopped",
        Step.FINISH: "stopped",
    },
    "stopped": {Step.START: "running"},
}
"""Every change of a campaign; a step that is not listed cannot be made."""

AT_WORK = frozenset[CampaignState]({"running", "draining"})
"""States in which calls may be under way that the campaign has to see to."""

FIXED_AT_WORK = frozenset({"mode", "profile", "queue", "team", "pbx", "amd"})
"""What cannot be changed while calls are under way: they were placed by it."""


class NotPossible(Refused):
    """A step or change cannot be made, and nothing was: a code for programs, a sentence that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Something that keeps a campaign from starting. `says` what it is and what to do."""

    code: str
    says: str


class CannotStart(NotPossible):
    """A campaign cannot start; `obstacles` are all the reasons at once."""

    def __init__(self, obstacles: Iterable[Obstacle]) -> None:
        self.obstacles = tuple(obstacles)
        super().__init__("cannot_start", "; ".join(one.says for one in self.obstacles))


def after(state: CampaignState, step: Step) -> CampaignState:
    """The state after a step; raises NotPossible, which says what can be done instead."""
    new = TRANSITIONS[state].get(step)
    if new is None:
        can = ", ".join(s.value for s in TRANSITIONS[state] if s is not Step.FINISH)
        there = "it is so already" if state in TARGETS[step] else f"you can {can} it"
        raise NotPossible(
            "wrong_state", f"the campaign is {state}: it cannot be told to {step.value}; {there}"
        )
    return new


TARGETS = {step: {states[step] for states in TRANSITIONS.values() if step in states} for step in Step}
"""The states that a step leads to."""

FROM = {step: frozenset(state for state, steps in TRANSITIONS.items() if step in steps) for step in Step}
"""The states that it can be made in."""


def changed_fields(old: Campaign, new: Campaign) -> frozenset[str]:
    """What differs, by name: fields of the campaign and of its settings."""
    fields = {
        name for name in ("name", "mode", "profile", "priority") if getattr(old, name) != getattr(new, name)
    }
    # A default that is said outranks one that is not.
    said = old.settings.model_fields_set ^ new.settings.model_fields_set
    before, now = old.settings.model_dump(), new.settings.model_dump()
    return frozenset(fields | said | {name for name in before if before[name] != now[name]})


def may_change(old: Campaign, new: Campaign) -> frozenset[str]:
    """Says what differs; raises NotPossible if some of it cannot be changed as things are."""
    changed = changed_fields(old, new)
    fixed = sorted(changed & FIXED_AT_WORK)
    if fixed and old.state in AT_WORK:
        raise NotPossible(
            "at_work",
            f"the campaign is {old.state}: {', '.join(fixed)} cannot be changed while its calls are under way; "
            "pause it first, and start it again afterwards",
        )
    return changed


# ------------------------------------------------------------------------------------------------ what a start needs


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNow:
    """A list of a campaign as it stands. `open`: contacts that may still be called, now or later. Of a list that is
    `assigned` to somebody, in words: how many of the campaign's agents are `theirs`, and how many `others` work on-hook."""

    id: int
    name: str
    active: bool
    contacts: int
    open: int
    assigned: str = ""
    theirs: int = 0
    others: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What there is for a campaign to work with. `trunks`: PBX → names. `agents`: how many people could talk for it, and
    `at_work`: how many of them are logged on. `unlawful`: what its profile does not allow, in words; None: there is no
    such profile. `not_on_record`: what the law wants there to be before anybody is called, and is not. `amd_usual`: whether
    the profile has machines detected where the campaign does not say; `answer_wait_s`, `wait_from`: how long somebody who
    has answered may wait for an agent, and from when that counts, by profile and settings. `missing_sounds`: sounds of its
    settings that the PBX has not."""

    pbxs: frozenset[str]
    queue_known: bool
    team_known: bool
    trunks: Mapping[str, frozenset[str]]
    verified: frozenset[str]
    agents: int
    at_work: int
    lists: tuple[ListNow, ...]
    unlawful: tuple[str, ...] | None = ()
    not_on_record: tuple[tuple[str, str], ...] = ()
    amd_usual: bool = False
    answer_wait_s: float = 2.0
    wait_from: WaitFrom = "answer"
    missing_sounds: tuple[str, ...] = ()


def pbx_of(settings: CampaignSettings, pbxs: Iterable[str]) -> str:
    """The PBX that dials: the one said, the queue's, or the only one; "" if that is not clear."""
    known = sorted(pbxs)
    return settings.pbx or settings.queue.partition(":")[0] or (known[0] if len(known) == 1 else "")


def obstacles(campaign: Campaign, there: Surroundings) -> list[Obstacle]:
    """All that keeps it from starting, in the order in which a manager would see to it; empty: it can start."""
    return [
        Obstacle(code=code, says=says)
        for code, says in (
            *_who_talks(campaign, there),
            *_lines(campaign, there),
            *_law(campaign, there),
            *_lists(there),
            *(_for_nobody(there) if _for_nobody_at_all(campaign, there) else ()),
        )
    ]


def _who_talks(campaign: Campaign, there: Surroundings) -> Iterator[tuple[str, str]]:
    settings = campaign.settings
    if campaign.mode == "agentless":
        if settings.message is None:
            yield (
                "no_message",
                "mode agentless plays a message and there is none: set `message` to a sound of the PBX",
            )
        return
    if not settings.queue and not settings.team:
        yield "no_agents", f"mode {campaign.mode} needs agents: set `queue` (main:sales) or `team`"
        return
    if settings.queue and not there.queue_known:
        yield (
            "unknown_queue",
            f"the PBX has no queue {settings.queue}: say it like main:sales, as `cti watch` shows it",
        )
    if settings.team and not there.team_known:
        yield "unknown_team", f"there is no team {settings.team}: `cti users list` shows the teams"
    known = (not settings.queue or there.queue_known) and (not settings.team or there.team_known)
    if known and not there.agents:
        where = f"work in {settings.queue}" if settings.queue else ""
        if settings.team:
            where += f"{' and ' if where else ''}are in team {settings.team}"
        yield (
            "no_agents",
            f"no agents {where}: assign some (cti users change LOGIN --queue …), or use mode agentless",
        )


def _lines(campaign: Campaign, there: Surroundings) -> Iterator[tuple[str, str]]:
    settings = campaign.settings
    pbx = pbx_of(settings, there.pbxs)
    if not pbx:
        yield (
            "no_pbx",
            f"there are several PBXs ({', '.join(sorted(there.pbxs))}): set `pbx` to the one that dials",
        )
    elif pbx not in there.pbxs:
        yield "unknown_pbx", f"there is no PBX {pbx}: there is {', '.join(sorted(there.pbxs))}"
    elif settings.queue and settings.queue.partition(":")[0] != pbx:
        yield "other_pbx", f"the queue {settings.queue} is not on {pbx}: answered calls could not get to it"
    elif campaign.mode in DIALED_BY_ITSELF:
        has = there.trunks.get(pbx, frozenset())
        if unknown := [name for name in settings.trunks if name not in has]:
            told = f"there is {', '.join(sorted(has))}" if has else "none is configured"
            yield (
                "unknown_trunk",
                f"{pbx} has no trunk {', '.join(unknown)} for dialing: {told} (CTI_DIALER__TRUNKS)",
            )
        elif not has:
            yield "no_trunk", f"no trunk is configured for dialing on {pbx}: set CTI_DIALER__TRUNKS"
    unverified = [one.number for one in settings.caller_ids if one.number not in there.verified]
    if unverified:
        yield (
            "unverified_caller_id",
            f"not verified, so not to be shown: {', '.join(unverified[:5])}; add what is yours to CTI_DIALER__CALLER_IDS",
        )


def _law(campaign: Campaign, there: Surroundings) -> Iterator[tuple[str, str]]:
    if there.unlawful is None:
        yield (
            "unknown_profile",
            f"there is no country profile {campaign.profile}: `cti dialer profiles` lists them",
        )
    else:
        for says in there.unlawful:
            yield "against_the_law", says
    settings = campaign.settings
    detects = settings.amd if "amd" in settings.model_fields_set else there.amd_usual
    if settings.machine_message is not None and not detects:
        yield "no_amd", "machine_message is for answering machines, but none is looked for: set `amd` too"
    for name in there.missing_sounds:
        yield (
            "no_sound",
            f"the PBX has no sound {name} in its language, nor in English: copy {name}.wav into its sounds folder",
        )


def _lists(there: Surroundings) -> Iterator[tuple[str, str]]:
    if not there.lists:
        yield "no_list", "it has no list: give it one (cti lists set LIST --campaign NAME)"
    elif not any(one.active for one in there.lists):
        yield "no_list", f"none of its lists is active: {', '.join(one.name for one in there.lists[:5])}"
    elif not any(one.open for one in there.lists if one.active):
        yield "list_used_up", "nobody on its lists is left to be called: import or recycle contacts"


def warnings(campaign: Campaign, there: Surroundings) -> list[Obstacle]:
    """What does not keep it from starting, and should be known: registers that are missing, how long who answers may wait,
    lists that nobody calls, or others than they are for."""
    told = [*there.not_on_record, *_caller_id(campaign, there), *_detection_and_wait(campaign, there)]
    alone = campaign.mode == "agentless"
    if not alone and not _for_nobody_at_all(campaign, there):
        told += _for_nobody(there)
    queue = campaign.settings.queue
    if queue and not alone and campaign.mode in DIALED_BY_ITSELF:
        told += [
            (
                "list_by_queue",
                f"the list {one.name} is assigned to {one.assigned}, but the queue {queue} gives answered calls to "
                f"{one.others} others too, who work on-hook: let them work off-hook, or take a queue of its own",
            )
            for one in _used(there)
            if one.theirs and one.others
        ]
    return [Obstacle(code=code, says=says) for code, says in told[:10]]


def _caller_id(campaign: Campaign, there: Surroundings) -> Iterator[tuple[str, str]]:
    """Who is called sees no number of ours, or not everybody does: the law wants one in most countries."""
    own = campaign.settings.caller_ids
    if campaign.mode in DIALED_BY_ITSELF and not own and not there.verified:
        yield (
            "no_caller_id",
            "no number is shown to those who are called but what the carrier makes of it: add yours to"
            " CTI_DIALER__CALLER_IDS",
        )
    elif own and all(one.prefixes for one in own):
        told = ", ".join(sorted({prefix for one in own for prefix in one.prefixes})[:8])
        yield (
            "no_caller_id",
            f"numbers that do not begin with {told} are shown none of the campaign's: add a caller id without prefixes",
        )


def _detection_and_wait(campaign: Campaign, there: Surroundings) -> Iterator[tuple[str, str]]:
    """From when the wait for an agent counts with detection of machines on, and what that means for it."""
    settings = campaign.settings
    detects = settings.amd if "amd" in settings.model_fields_set else there.amd_usual
    if not detects or campaign.mode not in DIALED_BY_ITSELF:
        return
    wait = there.answer_wait_s
    what = f"the wait for {'the message' if campaign.mode == 'agentless' else 'an agent'} ({wait:g} s) counts from the"
    if there.wait_from == "greeting":
        yield (
            "amd_wait",
            f"{what} end of the greeting, as the profile {campaign.profile} has it; detection of machines knows a person "
            f"{HEARD_BEFORE:g} s after that",
        )
    else:
        most, least = amd_may_take(wait, "answer"), amd_may_take(wait, "answer", leaves=LOOK_SHORT_OF)
        on_hook = "" if campaign.mode == "agentless" else f" ({least:g} s where nobody works off-hook)"
        yield (
            "amd_wait",
            f"{what} answer, what detection of machines takes included: it has {most:g} s{on_hook}, and who is no machine "
            "for sure by then is taken for a person; so it finds fewer machines",
        )


def _used(there: Surroundings) -> list[ListNow]:
    return [one for one in there.lists if one.active and one.open]


def _for_nobody(there: Surroundings) -> Iterator[tuple[str, str]]:
    for one in _used(there):
        if one.assigned and not one.theirs:
            yield (
                "list_for_nobody",
                f"the list {one.name} is assigned to nobody who works for the campaign ({one.assigned}): assign it anew "
                "(cti lists set LIST --agent …, or --to-all), or give them the campaign's queue and team",
            )


def _for_nobody_at_all(campaign: Campaign, there: Surroundings) -> bool:
    """Whether there are contacts, and no agent of the campaign may call any."""
    used = _used(there)
    return (
        campaign.mode != "agentless" and bool(used) and all(one.assigned and not one.theirs for one in used)
    )


# ------------------------------------------------------------------------------------------------ schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When the server starts and ends a campaign by itself: on these weekdays (0 is Monday) in these spans of `zone`, from
    the day `first` to the day `last`. `at_end` of each span: pause, drain or stop; after the last of all, drain."""

    zone: str
    days: frozenset[int]
    spans: tuple[Span, ...]
    first: date | None = None
    last: date | None = None
    at_end: Step = Step.PAUSE


LOOK_AHEAD = 400
"""Days in which the next step is looked for."""


def steps_of(schedule: Schedule, day: date) -> list[tuple[datetime, Step]]:
    """The steps of one day in the schedule's zone, in order; times in UTC. A span that begins as another ends goes on."""
    if (
        day.weekday() not in schedule.days
        or (schedule.first is not None and day < schedule.first)
        or (schedule.last is not None and day > schedule.last)
    ):
        return []
    zone, found = ZoneInfo(schedule.zone), []
    spans = sorted(schedule.spans, key=lambda span: span.start)
    begins, ends = {span.start for span in spans}, {span.end for span in spans}
    for span in spans:
        if span.start not in ends:
            found.append((_moment(day, span.start, zone), Step.START))
        if span.end not in begins:
            over = schedule.last is not None and span is spans[-1] and _is_last(schedule, day)
            end = Step.DRAIN if over and schedule.at_end is Step.PAUSE else schedule.at_end
            found.append((_moment(day, span.end, zone), end))
    return found


def _is_last(schedule: Schedule, day: date) -> bool:
    assert schedule.last is not None
    rest = (day + timedelta(days=n) for n in range(1, min((schedule.last - day).days, 7) + 1))
    return not any(later.weekday() in schedule.days for later in rest)


def _moment(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """In UTC. A time that the clocks leave out is the one they show instead."""
    later, minutes = divmod(minutes, 24 * 60)
    local = datetime.combine(day + timedelta(days=later), time(*divmod(minutes, 60)), zone)
    return local.astimezone(UTC)


def next_step(schedule: Schedule, now: datetime) -> tuple[datetime, Step] | None:
    """The first step after `now`; None if there is none in the coming year."""
    first = now.astimezone(ZoneInfo(schedule.zone)).date()
    if schedule.first is not None:
        first = max(first, schedule.first)
    for ahead in range(LOOK_AHEAD):
        for moment, step in steps_of(schedule, first + timedelta(days=ahead)):
            if moment > now:
                return moment, step
        if schedule.last is not None and first + timedelta(days=ahead) > schedule.last:
            break
    return None


def due_step(schedule: Schedule, done: datetime, now: datetime) -> tuple[datetime, Step] | None:
    """The last step after `done` whose time has come; those before it that were missed do not matter any more. Looks back
    a fortnight at most."""
    zone = ZoneInfo(schedule.zone)
    day, last = max(done, now - timedelta(days=14)).astimezone(zone).date(), now.astimezone(zone).date()
    found = None
    while day <= last:
        for moment, step in steps_of(schedule, day):
            if done < moment <= now:
                found = moment, step
        day += timedelta(days=1)
    return found


def told(schedule: Schedule) -> str:
    """The schedule in one line."""
    days = ",".join(DAYS[n] for n in sorted(schedule.days))
    spans = ",".join(f"{_clock(span.start)}-{_clock(span.end)}" for span in schedule.spans)
    whole = f"{days} {spans} {schedule.zone}, then {schedule.at_end.value}"
    if schedule.first is not None:
        whole += f", from {schedule.first}"
    return whole + (f", to {schedule.last}" if schedule.last is not None else "")


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


# ------------------------------------------------------------------------------------------------ as it is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A campaign with who changed it when, since when and why it is as it is, and its schedule. `done`: up to when the
    schedule's steps were carried out. `conversions`: the dispositions that count as a success."""

    campaign: Campaign
    created: datetime
    created_by: str
    changed: datetime
    changed_by: str
    since: datetime
    why: str
    schedule: Schedule | None = None
    schedule_by: str = ""
    done: datetime | None = None
    conversions: frozenset[str] = frozenset()


def campaign_of(
    *, id: int, name: str, mode: CampaignMode, state: CampaignState, profile: str, priority: int, version: int,
    settings: Mapping[str, Any],
) -> Campaign:  # fmt: skip
    """A campaign from what is written; raises pydantic's ValidationError."""
    return Campaign(
        id=id,
        name=name,
        mode=mode,
        state=state,
        profile=profile,
        priority=priority,
        version=version,
        settings=CampaignSettings.model_validate(settings),
    )
