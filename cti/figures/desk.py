"""The figures' desk: takes what somebody asks for, gives them what they may see. The same for REST, commands and `cti`.

Supervisors see the queues and agents of their teams, agents their own figures, administrators all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.figures.report import (
    AgentFigures,
    Interval,
    QueueFigures,
    Range,
    TeamFigures,
    WorkFigures,
    of_agents,
    of_queues,
    of_teams,
    of_work,
    position,
)
from cti.people import Actor, Directory, Role
from cti.views import QueueView

if TYPE_CHECKING:
    from cti.database import Queryable

F = TypeVar("F", QueueFigures, AgentFigures, TeamFigures, WorkFigures)

AT_ONCE = 2
"""Reports that are read at a time; the others wait, so that they never hold all of the pool's connections."""

LONGEST = {Interval.DAY: timedelta(days=800), Interval.TOTAL: timedelta(days=800)}
LONGEST_IN_PARTS = timedelta(days=93)

Moment = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class NotYours(Exception):
    """The figures asked for are of somebody whom the actor does not lead; the message says whom."""


class WrongQuestion(ValueError):
    """The report asked for is impossible; the message says what to ask for instead."""


class FiguresAsked(BaseModel):
    """Which figures. Days are those of the time zone."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    first: Moment = Field(
        default="today",
        alias="from",
        description="`2026-10-25`, `2026-10-25T09:00`, with an offset or not; today",
    )
    last: Moment | None = Field(
        default=None,
        alias="to",
        description="a day: to its end; a moment: to before it; `from`'s day if left out",
    )
    interval: Interval = Interval.TOTAL
    tz: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="time zone such as Europe/London; the call centre's if left out"
    )


class QueuesAsked(FiguresAsked):
    """Figures of queues."""

    queue: Id | None = Field(default=None, description="this one only, as `main:sales`")


class AgentsAsked(FiguresAsked):
    """Figures of agents."""

    agent: Id | None = Field(default=None, description="this one only")
    team: Id | None = Field(default=None, description="those who are in this team now")


class TeamsAsked(FiguresAsked):
    """Figures of teams."""

    team: Id | None = Field(default=None, description="this one only")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueNow:
    """Who waits at this moment; they are offered, and counted, when their wait has ended. Seconds."""

    queue: str
    waiting: int
    longest_waiting: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Generic[F]):
    """A report: figures of [`first`, `last`) by interval, of all facts up to number `seq`, the newest of `as_of`. `now`:
    callers who wait, for the queues of the report, when it goes up to the present."""

    first: datetime
    last: datetime
    interval: Interval
    time_zone: str
    seq: int
    as_of: datetime | None
    items: list[F]
    now: list[QueueNow]


class Desk:
    """Answers questions for figures. `zone`: the call centre's time zone. `queues`: all queues as they are now."""

    def __init__(
        self,
        *,
        pool: Callable[[], Queryable],
        directory: Directory,
        zone: str,
        queues: Callable[[], Iterable[QueueView]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        unpaid: Collection[str] = (),
    ) -> None:
        self._unpaid = frozenset(unpaid)
        self._pool = pool
        self._directory = directory
        self._zone = zone
        self._queues = queues
        self._now = now
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def service_levels(self) -> dict[str, float]:
        """Today's service level of each queue so far, in percent; queues of which nothing can be said are left out."""
        system = Actor(login="system", name="CTI server", role=Role.ADMIN, via="system")
        report = await self.queues(system, QueuesAsked())
        return {
            item.queue: item.service_level * 100 for item in report.items if item.service_level is not None
        }

    async def queues(self, actor: Actor, asked: QueuesAsked) -> Report[QueueFigures]:
        """Figures of queues. Raises NotYours, WrongQuestion, TooLarge."""
        now = self._now()
        range = range_of(asked, self._zone, now)
        queues = self._queues_asked(actor, asked)
        async with self._at_once:
            items = await of_queues(self._pool(), range, queues)
        waiting = [
            QueueNow(
                queue=view.id,
                waiting=len(view.waiting),
                longest_waiting=max(0.0, round((now - min(w.since for w in view.waiting)).total_seconds(), 3))
                if view.waiting
                else 0.0,
            )
            for view in self._queues()
            if queues is None or view.id in queues
        ]
        return await self._report(range, items, waiting if range.first <= now < range.last else [])

    async def work(self, actor: Actor, asked: QueuesAsked) -> Report[WorkFigures]:
        """Figures of other work, by the queues whose agents can do it. Raises NotYours, WrongQuestion, TooLarge."""
        now = self._now()
        range = range_of(asked, self._zone, now)
        queues = self._queues_asked(actor, asked)
        async with self._at_once:
            items = await of_work(self._pool(), range, queues, now=now)
        return await self._report(range, items, [])

    async def agents(self, actor: Actor, asked: AgentsAsked) -> Report[AgentFigures]:
        """Figures of agents. Raises NotYours, WrongQuestion, TooLarge."""
        now = self._now()
        range = range_of(asked, self._zone, now)
        agents = self._agents_of(actor)
        if asked.team is not None:
            if not self._sees_all(actor) and asked.team not in actor.teams:
                raise NotYours(f"{asked.team} is not a team of yours")
            self._require_team(asked.team)
            of_team = self._agents_in(asked.team)
            agents = of_team if agents is None else agents & of_team
        if asked.agent is not None:
            if agents is not None and asked.agent not in agents:
                raise NotYours(f"{asked.agent} is not an agent of your teams")
            agents = frozenset({asked.agent})
        async with self._at_once:
            items = await of_agents(self._pool(), range, agents, now=now, unpaid=self._unpaid)
        return await self._report(range, items, [])

    async def teams(self, actor: Actor, asked: TeamsAsked) -> Report[TeamFigures]:
        """Figures of teams. Raises NotYours, WrongQuestion, TooLarge."""
        now = self._now()
        range = range_of(asked, self._zone, now)
        teams = frozenset(self._directory.teams)
        if not self._sees_all(actor):
            teams = teams & actor.teams
        if asked.team is not None:
            if self._sees_all(actor):
                self._require_team(asked.team)
            if asked.team not in teams:
                raise NotYours(f"{asked.team} is not a team of yours")
            teams = frozenset({asked.team})
        members = {team: self._agents_in(team) for team in teams}
        async with self._at_once:
            items = await of_teams(self._pool(), range, members, now=now, unpaid=self._unpaid)
        return await self._report(range, items, [])

    async def _report(self, range: Range, items: list[F], now: list[QueueNow]) -> Report[F]:
        reached = await position(self._pool())
        return Report(
            first=range.first.astimezone(range.zone),
            last=range.last.astimezone(range.zone),
            interval=range.interval,
            time_zone=range.zone.key,
            seq=reached.seq,
            as_of=reached.at,
            items=items,
            now=now,
        )

    # ------------------------------------------------------------------------------------------ who may see what

    @staticmethod
    def _sees_all(actor: Actor) -> bool:
        return actor.is_admin or (actor.role is Role.INTEGRATION and not actor.teams)

    def _queues_of(self, actor: Actor) -> frozenset[str] | None:
        if self._sees_all(actor):
            return None
        if actor.role is Role.AGENT:
            raise NotYours(
                "figures of queues are for supervisors; you may see your own at /api/v1/figures/agents"
            )
        teams = (self._directory.teams.get(team) for team in actor.teams)
        return frozenset().union(*(team.queues for team in teams if team is not None))

    def _queues_asked(self, actor: Actor, asked: QueuesAsked) -> frozenset[str] | None:
        queues = self._queues_of(actor)
        if asked.queue is None:
            return queues
        if queues is not None and asked.queue not in queues:
            raise NotYours(f"{asked.queue} is not a queue of your teams")
        return frozenset({asked.queue})

    def _agents_of(self, actor: Actor) -> frozenset[str] | None:
        if self._sees_all(actor):
            return None
        own = frozenset({actor.login})
        if actor.role is Role.AGENT:
            return own
        led = (login for login, agent in self._directory.agents.items() if agent.team in actor.teams)
        return own.union(led)

    def _require_team(self, team: str) -> None:
        if team not in self._directory.teams:
            raise WrongQuestion(f"team: there is no team {team!r}")

    def _agents_in(self, team: str) -> frozenset[str]:
        return frozenset(login for login, agent in self._directory.agents.items() if agent.team == team)


# ------------------------------------------------------------------------------------------------ of what time


def range_of(asked: FiguresAsked, centre: str, now: datetime | None = None) -> Range:
    """The time a question is about; `centre`: the call centre's zone. Raises WrongQuestion."""
    now = now or datetime.now(UTC)
    name = asked.tz or centre
    if name not in available_timezones():
        raise WrongQuestion(f"tz: there is no time zone {name!r}; take a name such as Europe/London")
    zone = ZoneInfo(name)
    first, _ = _moment(asked.first, zone, now, "from")
    if asked.last is None:
        last = _next_day(first.astimezone(zone).date(), zone)
    else:
        last, a_day = _moment(asked.last, zone, now, "to")
        last = _next_day(last.astimezone(zone).date(), zone) if a_day else last
    if first.timestamp() % 900:
        raise WrongQuestion("from: reports begin with a quarter of an hour, such as 09:15")
    if last.timestamp() % 900:
        raise WrongQuestion("to: reports end with a quarter of an hour, such as 09:15")
    if last <= first:
        raise WrongQuestion("to: must be after from")
    longest = LONGEST.get(asked.interval, LONGEST_IN_PARTS)
    if last - first > longest:
        raise WrongQuestion(
            f"to: a report by {asked.interval.value} covers at most {longest.days} days; take a shorter time"
            + ("" if asked.interval in LONGEST else ", or `day`")
        )
    return Range(first=first, last=last, interval=asked.interval, zone=zone)


def _moment(text: str, zone: ZoneInfo, now: datetime, name: str) -> tuple[datetime, bool]:
    """The moment meant, and whether a whole day was meant."""
    try:
        if text == "today":
            return _midnight(now.astimezone(zone).date(), zone), True
        if len(text) == len("2026-10-25"):
            return _midnight(date.fromisoformat(text), zone), True
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return moment.astimezone(UTC), False
    except (ValueError, OverflowError):
        raise WrongQuestion(f"{name}: {text!r} is no moment; write 2026-10-25 or 2026-10-25T09:15") from None


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    if not 2000 <= day.year < 2100:
        raise ValueError("beyond what is kept")
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _next_day(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
