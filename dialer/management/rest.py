"""REST routes of campaigns: made, changed, started and ended, how they go, what they came to, and dry runs.

For supervisors (the campaigns of their teams) and administrators; agents see theirs by the websocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import available_timezones

import msgspec
from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from cti.campaigns import CampaignNow, CampaignView
from cti.commands import sentence
from cti.figures.desk import FiguresAsked, WrongQuestion, range_of
from cti.figures.report import Interval
from cti.openapi import SUPERVISORS, Route
from cti.people import Actor, Directory
from cti.plain_text import Plain
from cti.problems import Problem
from cti.rest.pages import Page, Paging, page
from cti.rest.serving import Asked, Reply, Translate
from dialer.campaigns import NotPossible, Record, Schedule, Step, told
from dialer.forecasting.dry_run_contacts import contacts_of, waiting_of
from dialer.forecasting.dry_run_history import history_of
from dialer.forecasting.plans import Plan, Plans
from dialer.forecasting.question import History, Question, Shift
from dialer.forecasting.sharing import shared
from dialer.law.abandoned import error_share
from dialer.lists import works_for
from dialer.management.charts import chart
from dialer.management.desk import CampaignDesk, Law
from dialer.management.detection import Detection, detection
from dialer.management.figures import By, CampaignFigures, csv_of, error_shares, read
from dialer.management.live_view import LiveView
from dialer.management.settings import Campaign, CampaignMode, CampaignSettings, CampaignState
from dialer.management.store import ChangedMeanwhile, NotThere
from routing.hours import DAYS, Span

if TYPE_CHECKING:
    from cti.database import Pool

STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True)

Name = Annotated[Plain, Field(min_length=1, max_length=100)]
Profile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{2,40}$")]
Disposition = Annotated[Plain, Field(min_length=1, max_length=100)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Hours = Annotated[
    str,
    StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"),
]
Id = Annotated[int, Field(ge=1, lt=1 << 62)]


class CampaignNew(BaseModel):
    """A campaign to be made, a draft. What is left out of `settings` is as the profile and the product have it."""

    model_config = STRICT

    name: Name
    mode: CampaignMode
    profile: Profile = Field(description="the country profile whose law is kept: US, GB, FR …")
    priority: int = Field(default=0, ge=0, le=100, description="higher ones get agents and lines first")
    settings: CampaignSettings = Field(default_factory=CampaignSettings)
    conversions: list[Disposition] = Field(
        default_factory=list, max_length=100, description="dispositions that count as a success"
    )


class CampaignEdit(BaseModel):
    """What is to be different; what is left out stays. In `settings` each name that is given is set, null takes it back to
    what it would be if it had never been said."""

    model_config = STRICT

    name: Name | None = None
    mode: CampaignMode | None = None
    profile: Profile | None = None
    priority: Annotated[int, Field(ge=0, le=100)] | None = None
    settings: dict[Annotated[str, StringConstraints(max_length=60)], Any] | None = Field(
        default=None, max_length=100
    )
    conversions: list[Disposition] | None = Field(default=None, max_length=100)


class ScheduleBody(BaseModel):
    """When the server starts and ends the campaign by itself: on these days, at the beginning and end of each of these spans
    in this time zone. The calling hours of those who are called are kept besides."""

    model_config = STRICT

    zone: Annotated[str, StringConstraints(max_length=64)]
    days: list[Day] = Field(min_length=1, max_length=7)
    hours: list[Hours] = Field(min_length=1, max_length=10, description="09:00-12:30; may end at 24:00")
    first: date | None = Field(default=None, description="not before this day")
    last: date | None = Field(default=None, description="not after this day: after its last span it drains")
    at_end: Literal["pause", "drain", "stop"] = "pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class InTheWay:
    """Something that keeps a campaign from starting. `says` what it is and what to do."""

    code: str
    says: str


class CampaignRead(BaseModel):
    """A campaign as a whole. `schedule_told`: its schedule in one line."""

    view: CampaignView
    settings: CampaignSettings
    conversions: list[str]
    created: datetime
    created_by: str
    schedule: ScheduleBody | None
    schedule_told: str


class Obstacles(BaseModel):
    """All that keeps it from starting as things are; empty: it can start. `warnings`: it may start, and this should be
    known."""

    items: list[InTheWay]
    warnings: list[InTheWay]


class StepAsked(BaseModel):
    """Why, for whoever reads the trail."""

    model_config = STRICT

    why: Annotated[Plain, Field(max_length=200)] = ""


class CampaignsAsked(Paging):
    """Which campaigns."""

    state: CampaignState | None = None


class FiguresOf(FiguresAsked):
    """Figures of campaigns, and in which form. Calls count when they were placed."""

    campaign: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}(,[0-9]{1,18}){0,19}$")] | None = Field(
        default=None, description="ids, with commas between them; all of yours if left out"
    )
    by: By = By.TOTAL
    format: Literal["json", "csv", "svg"] | None = Field(
        default=None, description="outranks the Accept header; svg is a chart"
    )
    interval: Literal[Interval.TOTAL] = Field(default=Interval.TOTAL, description="only total: say `by`")


class DetectionOf(FiguresAsked):
    """Detection of answering machines in which calls."""

    interval: Literal[Interval.TOTAL] = Field(default=Interval.TOTAL, description="only total")


class CampaignReport(BaseModel):
    """Figures of calls placed from `first` to before `last`."""

    first: datetime
    last: datetime
    time_zone: str
    by: By
    items: list[CampaignFigures]


class ShiftBody(BaseModel):
    """So many agents on these days in these hours, in the plan's zone."""

    model_config = STRICT

    days: list[Day] = Field(default=["mon", "tue", "wed", "thu", "fri"], min_length=1, max_length=7)
    hours: Hours
    agents: int = Field(ge=0, le=5000)


class PlanAsked(BaseModel):
    """A dry run: what would come of it. Without a `rota` the campaign's schedule (or Monday to Friday, 09:00-17:00) with all
    agents that it has. The goal is `finish_by` with at most `abandonment` (a share of 1) lost."""

    model_config = STRICT

    finish_by: AwareDatetime | None = None
    abandonment: float | None = Field(default=None, gt=0, le=0.5)
    rota: list[ShiftBody] | None = Field(default=None, min_length=1, max_length=50)
    agents: int | None = Field(default=None, ge=1, le=5000, description="in place of all agents it has")
    ring_timeout_s: float | None = Field(default=None, ge=3, le=120)
    mode: CampaignMode | None = None
    zone: Annotated[str, StringConstraints(max_length=64)] | None = None
    variants: bool = Field(
        default=True, description="also what more or fewer agents, and another ring time, would change"
    )
    seconds: float = Field(default=30.0, ge=1, le=120, description="that it may take, about")


class PlanList(BaseModel):
    """The dry runs of a campaign on this server, the newest first."""

    items: list[Plan]


class OneCampaign(BaseModel):
    """The campaign that the address names."""

    campaign: Id


class OnePlan(OneCampaign):
    """The dry run that the address names."""

    plan: Annotated[str, StringConstraints(pattern=r"^p[0-9a-f]{16}$")]


def routes(
    *,
    pool: Callable[[], Pool],
    desk: CampaignDesk,
    live: LiveView,
    plans: Plans,
    directory: Directory,
    law: Callable[[Campaign], Law],
    zone: str,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Route]:
    """Returns the routes. `zone`: the call centre's."""

    def whole(record: Record, status: int = 200) -> Reply:
        schedule = record.schedule
        value = CampaignRead(
            view=desk.view(record),
            settings=record.campaign.settings,
            conversions=sorted(record.conversions),
            created=record.created,
            created_by=record.created_by,
            schedule=_body_of(schedule) if schedule is not None else None,
            schedule_told=told(schedule) if schedule is not None else "none",
        )
        return Reply(value=value, status=status, version=record.campaign.version)

    async def listed(asked: Asked) -> dict[str, Any]:
        wanted: CampaignsAsked = asked.query
        records = {one.campaign.id: one for one in desk.records() if desk.oversees(asked.who, one)}
        views = desk.views(lambda view: view.id in records and wanted.state in (None, view.state))
        return page(views, lambda view: f"{view.name} {view.id}", wanted)

    async def read_one(asked: Asked) -> Reply:
        return whole(await desk.read(asked.who, asked.params.campaign))

    async def add(asked: Asked) -> Reply:
        new: CampaignNew = asked.body
        campaign = Campaign(
            id=0,
            name=new.name,
            mode=new.mode,
            state="draft",
            profile=new.profile,
            priority=new.priority,
            settings=new.settings,
            version=1,
        )
        return whole(await desk.add(asked.who, campaign, new.conversions), 201)

    async def change(asked: Asked) -> Reply:
        body: CampaignEdit = asked.body
        record = await desk.change(
            asked.who, asked.params.campaign, _version(asked), lambda old: edited(old, body), body.conversions
        )
        return whole(record)

    async def remove(asked: Asked) -> None:
        await desk.remove(asked.who, asked.params.campaign, _version(asked))

    def stepper(step: Step) -> Callable[[Asked], Awaitable[Reply]]:
        async def do(asked: Asked) -> Reply:
            return whole(await desk.step(asked.who, asked.params.campaign, step, asked.body.why))

        return do

    async def in_the_way(asked: Asked) -> Obstacles:
        found, besides = await desk.before_start(await desk.read(asked.who, asked.params.campaign))
        return Obstacles(
            items=[InTheWay(code=one.code, says=one.says) for one in found],
            warnings=[InTheWay(code=one.code, says=one.says) for one in besides],
        )

    async def set_schedule(asked: Asked) -> Reply:
        schedule = schedule_of(asked.body)
        return whole(await desk.schedule(asked.who, asked.params.campaign, _version(asked), schedule))

    async def end_schedule(asked: Asked) -> Reply:
        return whole(await desk.schedule(asked.who, asked.params.campaign, _version(asked), None))

    async def goes(asked: Asked) -> CampaignNow:
        return await live.of(await desk.read(asked.who, asked.params.campaign))

    async def figures(asked: Asked) -> CampaignReport | web.Response:
        wanted: FiguresOf = asked.query
        mine = {one.campaign.id: one.campaign for one in desk.records() if desk.oversees(asked.who, one)}
        names = {id: campaign.name for id, campaign in mine.items()}
        if wanted.campaign is not None:
            ids = [int(id) for id in wanted.campaign.split(",")]
            if missing := [str(id) for id in ids if id not in names]:
                raise Problem(404, "not_found", f"there is no campaign {', '.join(missing)} of yours")
            names = {id: names[id] for id in ids}
        span = range_of(wanted, zone, now())
        errors = error_shares({id: law(mine[id]).profile for id in names})
        rows = await read(pool(), names, span.first, span.last, wanted.by, span.zone, errors)
        form = _form(asked)
        if form == "json":
            return CampaignReport(
                first=span.first, last=span.last, time_zone=span.zone.key, by=wanted.by, items=rows
            )
        text = await asyncio.to_thread(csv_of if form == "csv" else chart, rows, wanted.by)
        return web.Response(
            text=text,
            content_type="text/csv" if form == "csv" else "image/svg+xml",
            charset="utf-8",
            headers={"Content-Disposition": f'attachment; filename="campaigns-{wanted.by.value}.{form}"'},
        )

    async def detected(asked: Asked) -> Detection:
        record = await desk.read(asked.who, asked.params.campaign)
        span = range_of(asked.query, zone, now())
        return await detection(pool(), record.campaign.id, record.campaign.name, span.first, span.last)

    async def begin_plan(asked: Asked) -> Plan:
        record = await desk.read(asked.who, asked.params.campaign)
        return plans.begin(record.campaign.id, asked.who.login, question_of(record, asked.body, asked.who))

    def question_of(record: Record, wanted: PlanAsked, who: Actor) -> Callable[[], Awaitable[Question]]:
        """The question, for which a long list is counted; what is wrong with what was asked is said before."""
        campaign, schedule = record.campaign, record.schedule
        settings, rules = campaign.settings, law(campaign)
        where = wanted.zone or (schedule.zone if schedule is not None else zone)
        _known_zone(where)
        workers = [agent for agent in directory.agents.values() if works_for(agent, settings)]
        if not (settings.team or settings.queue):
            workers = []
        people = wanted.agents if wanted.agents is not None else len(workers)
        rota: tuple[Shift, ...]
        if wanted.rota is not None:
            rota = tuple(
                _shift([DAYS.index(day) for day in one.days], _span(one.hours), one.agents)
                for one in wanted.rota
            )
        elif schedule is not None:
            rota = tuple(_shift(sorted(schedule.days), span, people) for span in schedule.spans)
        else:
            rota = (_shift(range(5), Span(start=9 * 60, end=17 * 60), people),)
        mode, profile, given = wanted.mode or campaign.mode, rules.profile, settings.model_fields_set
        question = Question(
            mode=mode,
            now=now(),
            zone=where,
            rota=rota,
            pools=(),
            history=History(),
            rules=(),
            max_attempts=settings.max_attempts,
            cap=min(rules.cap, settings.abandonment_cap),
            window_h=rules.window_h,
            error_share=error_share(profile) if profile is not None else 0.0,
            answer_wait=profile.answer_wait_s if profile is not None else settings.answer_wait_s,
            wait_from=profile.wait_from if profile is not None else settings.wait_from,
            min_ring=profile.min_ring_s if profile is not None else settings.min_ring_s,
            ring_timeout=wanted.ring_timeout_s or settings.ring_timeout_s,
            calls_per_second=settings.calls_per_second,
            max_lines=settings.max_lines,
            ratio=settings.ratio,
            few_agents=settings.few_agents,
            amd=settings.amd if profile is None or "amd" in given else profile.amd_usual,
            finish_by=wanted.finish_by,
            abandonment=wanted.abandonment,
            seconds=wanted.seconds,
            variants=wanted.variants,
            office_hours=wanted.rota is None and schedule is None,
        )

        async def whole() -> Question:
            others = shared(campaign, mode, workers, directory.agents.values(), desk.records(), question.now)
            contacts = await contacts_of(
                *(pool(), campaign, mode, profile, workers, question.now, zone, others.of_agent)
            )
            waiting = await waiting_of(pool(), [one.campaign.id for one in others.records])
            history = await history_of(
                *(pool(), campaign.id, settings.queue, where, question.now),
                rule=desk.wrap_up(campaign),
                own_rule=settings.wrap_up.seconds is not None,
            )
            return msgspec.structs.replace(
                question,
                history=history,
                people=len(workers),
                rivals=others.rivals(waiting, lambda other: desk.oversees(who, other)),
                elsewhere=others.elsewhere,
                rank=others.rank,
                house_zone=zone,
                **contacts._asdict(),
            )

        return whole

    async def found_plan(asked: Asked) -> Plan:
        record = await desk.read(asked.who, asked.params.campaign)
        plan = plans.read(asked.params.plan)
        if plan is None or plan.campaign != record.campaign.id:
            raise Problem(404, "not_found", "there is no such dry run, or it is too long ago: ask again")
        return plan

    async def plan_list(asked: Asked) -> PlanList:
        record = await desk.read(asked.who, asked.params.campaign)
        return PlanList(items=plans.of(record.campaign.id))

    async def cancel_plan(asked: Asked) -> None:
        plan = await found_plan(asked)
        await plans.cancel(plan.id)

    base = "/api/v1/campaigns"
    one = base + "/{campaign}"

    def route(
        method: str, path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, **more: Any
    ) -> Route:
        if "{campaign}" in path:
            more.setdefault("params", OneCampaign)
        more = {"roles": SUPERVISORS, "errors": frozenset({409, 503}), **more}
        return Route(method=method, path=path, handler=handler, summary=summary, tag="Campaigns", **more)

    steps = {
        Step.START: "Starts it, or goes on with it; refused with all that is in the way.",
        Step.PAUSE: "No new calls; those under way go on.",
        Step.DRAIN: "No new calls, and stopped when the last one is over.",
        Step.STOP: "Ends it: no new calls, and those that ring are given up.",
    }
    return [
        route("GET", base, listed, "Campaigns.", query=CampaignsAsked, result=Page[CampaignView]),
        route(
            "POST", base, add, "Makes a campaign, a draft.", body=CampaignNew, result=CampaignRead, status=201
        ),
        route(
            "GET",
            "/api/v1/campaign_figures",
            figures,
            "What campaigns came to: JSON, CSV or a chart.",
            query=FiguresOf,
            result=CampaignReport,
            also="text/csv",
            errors=frozenset({404, 503}),
        ),
        route("GET", one, read_one, "One campaign.", result=CampaignRead),
        route(
            "PATCH",
            one,
            change,
            "Changes a campaign; what runs goes on by it.",
            body=CampaignEdit,
            result=CampaignRead,
            versioned=True,
        ),
        route("DELETE", one, remove, "Removes one that has called nobody.", status=204, versioned=True),
        *(
            route("POST", f"{one}/{step.value}", stepper(step), says, body=StepAsked, result=CampaignRead)
            for step, says in steps.items()
        ),
        route("GET", one + "/obstacles", in_the_way, "All that keeps it from starting.", result=Obstacles),
        route(
            "PUT",
            one + "/schedule",
            set_schedule,
            "When it starts and ends by itself.",
            body=ScheduleBody,
            result=CampaignRead,
            versioned=True,
        ),
        route(
            "DELETE",
            one + "/schedule",
            end_schedule,
            "It does not start and end by itself any more.",
            result=CampaignRead,
            versioned=True,
        ),
        route("GET", one + "/now", goes, "How it goes at this moment.", result=CampaignNow),
        route(
            "GET",
            one + "/detection",
            detected,
            "How its detection of answering machines does, and the messages left on them.",
            query=DetectionOf,
            result=Detection,
        ),
        route("GET", one + "/plans", plan_list, "Its dry runs.", result=PlanList),
        route(
            "POST",
            one + "/plans",
            begin_plan,
            "Begins a dry run: what would come of it.",
            body=PlanAsked,
            result=Plan,
            status=202,
        ),
        route(
            "GET",
            one + "/plans/{plan}",
            found_plan,
            "A dry run, and its answer.",
            params=OnePlan,
            result=Plan,
        ),
        route("DELETE", one + "/plans/{plan}", cancel_plan, "Ends a dry run.", params=OnePlan, status=204),
    ]


def edited(old: Campaign, body: CampaignEdit) -> Campaign:
    """The campaign with what is to be different; raises NotPossible for settings that cannot be."""
    settings = old.settings
    if body.settings is not None:
        said = settings.model_dump(mode="json", exclude_unset=True)
        said |= body.settings
        settings = settings_of({name: value for name, value in said.items() if value is not None})
    return replace(
        old,
        name=body.name or old.name,
        mode=body.mode or old.mode,
        profile=body.profile or old.profile,
        priority=old.priority if body.priority is None else body.priority,
        settings=settings,
    )


def settings_of(said: dict[str, Any]) -> CampaignSettings:
    """Settings from JSON; raises NotPossible, which says what is wrong."""
    try:
        return CampaignSettings.model_validate(said)
    except ValidationError as error:
        raise NotPossible("bad_value", f"settings: {sentence(error)}") from None


def schedule_of(body: ScheduleBody) -> Schedule:
    """The schedule that is meant; raises a 422 problem for one that cannot be."""
    _known_zone(body.zone)
    spans = sorted((_span(text) for text in body.hours), key=lambda span: span.start)
    for before, after in pairwise(spans):
        if after.start < before.end:
            raise Problem(422, "bad_value", "hours: two of them overlap")
    if body.first is not None and body.last is not None and body.last < body.first:
        raise Problem(422, "bad_value", "last: must not be before first")
    return Schedule(
        zone=body.zone,
        days=frozenset(DAYS.index(day) for day in body.days),
        spans=tuple(spans),
        first=body.first,
        last=body.last,
        at_end=Step(body.at_end),
    )


def _body_of(schedule: Schedule) -> ScheduleBody:
    return ScheduleBody.model_validate(
        {
            "zone": schedule.zone,
            "days": [DAYS[n] for n in sorted(schedule.days)],
            "hours": [f"{_clock(span.start)}-{_clock(span.end)}" for span in schedule.spans],
            "first": schedule.first,
            "last": schedule.last,
            "at_end": schedule.at_end.value,
        }
    )


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _span(text: str) -> Span:
    start, end = (int(part[:2]) * 60 + int(part[3:]) for part in text.split("-"))
    if end <= start:
        raise Problem(422, "bad_value", f"hours: {text} ends before it begins")
    return Span(start=start, end=end)


def _shift(days: Sequence[int], span: Span, agents: int) -> Shift:
    return Shift(days=tuple(days), start=span.start, end=span.end, agents=agents)


def _known_zone(name: str) -> None:
    if name not in available_timezones():
        raise Problem(
            422, "bad_value", f"zone: there is no time zone {name}; take a name such as Europe/London"
        )


def _version(asked: Asked) -> int:
    match = asked.match or ""
    if not match.isdecimal() or len(match) > 9:
        raise ChangedMeanwhile
    return int(match)


def _form(asked: Asked) -> str:
    if asked.query.format is not None:
        return str(asked.query.format)
    accepts = asked.request.headers.get("Accept", "")
    if "application/json" in accepts:
        return "json"
    return "csv" if "text/csv" in accepts else "svg" if "image/svg" in accepts else "json"


_STATUS = {"forbidden": 403, "busy": 429}
_WRONG = frozenset({"against_the_law", "unknown_profile", "unknown_team", "bad_value"})


def _not_possible(error: Exception) -> Problem:
    code = getattr(error, "code", "wrong_state")
    return Problem(422 if code in _WRONG else _STATUS.get(code, 409), code, str(error))


TRANSLATE: dict[type[Exception], Translate] = {
    NotThere: lambda error: Problem(404, "not_found", "there is no such campaign, or it is not one of yours"),
    ChangedMeanwhile: lambda error: Problem(
        412, "changed_meanwhile", "somebody else has changed the campaign: read it again"
    ),
    NotPossible: _not_possible,
    WrongQuestion: lambda error: Problem(422, "bad_value", str(error)),
}
"""What is refused over REST, in its words; for `application(translate=...)`."""
