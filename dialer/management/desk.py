"""The campaigns' desk: makes, changes, starts and ends campaigns for people and by schedule, and tells how they go.

What is written down is in the database before anybody is told. The state is changed from the one that was read, so two
servers, or a person and the schedule, never both do a step. What dials (`Runner`) is told to read a campaign again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cti import audit
from cti.campaigns import (
    CampaignAdded,
    CampaignChanged,
    CampaignFact,
    CampaignRemoved,
    CampaignStateChanged,
    CampaignView,
)
from cti.facts import Fact
from cti.people import Actor, Directory, Role
from cti.tasks import again_and_again
from cti.wrap_up import WrapUp
from dialer.calling.dispositions import words_of
from dialer.campaigns import (
    AT_WORK,
    FROM,
    CannotStart,
    NotPossible,
    Obstacle,
    Record,
    Schedule,
    Step,
    Surroundings,
    after,
    due_step,
    may_change,
    next_step,
    obstacles,
    pbx_of,
    warnings,
)
from dialer.law.on_record import lacking
from dialer.law.profiles import Profile, TooLoose, before_start, tighten
from dialer.law.reopening import reopen
from dialer.lists import works_for
from dialer.management import store
from dialer.management.settings import Campaign
from dialer.management.store import ChangedMeanwhile, NotThere

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection

log = structlog.get_logger(__name__)

LOOKS = 1.0
"""Seconds between two looks at schedules, draining campaigns, and what other servers have changed."""

TRIED_AGAIN = timedelta(minutes=1)
"""After which a start by schedule that was not possible is tried again, while its time lasts."""

SYSTEM = Actor(login="schedule", name="schedule", role=Role.ADMIN, via="system")


class Runs(Protocol):
    """Of what dials, as much as is needed here (`dialer.management.settings.Runner`)."""

    async def refresh(self, campaign_id: int) -> None:
        """Reads the campaign again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """What a campaign's profile says of it. `unlawful`: what its settings want and the profile does not allow, None where
    there is no such profile. `profile`: as the campaign
    tightens it. `cap` of the live answers over `window_h` hours. `lacking`: what it
    must have before it starts."""

    profile: Profile | None
    cap: float
    window_h: float
    unlawful: tuple[str, ...] | None = ()
    lacking: tuple[str, ...] = ()


def law_by(profiles: Mapping[str, Profile]) -> Callable[[Campaign], Law]:
    """What these profiles say of campaigns."""

    def law(campaign: Campaign) -> Law:
        settings, profile = campaign.settings, profiles.get(campaign.profile)
        if profile is None:
            return Law(
                profile=None,
                cap=settings.abandonment_cap,
                window_h=settings.abandonment_window_h,
                unlawful=None,
                lacking=(),
            )
        lacking = tuple(before_start(profile, campaign.mode, settings))
        try:
            tight = tighten(profile, settings)
        except TooLoose as error:
            return Law(
                profile=profile,
                cap=profile.abandonment_cap,
                window_h=profile.abandonment_window_h,
                unlawful=tuple(str(error).split("; ")),
                lacking=lacking,
            )
        return Law(
            profile=tight, cap=tight.abandonment_cap, window_h=tight.abandonment_window_h, lacking=lacking
        )

    return law


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What the desk must know of the call centre. `trunks`: PBX → names; `verified`: caller ids that may be shown;
    `missing_sounds`: which of these sounds a PBX says it has not; `wrap_up`: what follows the calls of a queue."""

    directory: Directory
    pbxs: Callable[[], Iterable[str]]
    knows_queue: Callable[[str], bool]
    trunks: Mapping[str, frozenset[str]]
    verified: frozenset[str]
    law: Callable[[Campaign], Law]
    missing_sounds: Callable[[str, Iterable[str]], Awaitable[tuple[str, ...]]]
    logged_on: Callable[[str], bool]
    wrap_up: Callable[[str | None], WrapUp] = lambda queue: WrapUp(queue=queue)


class CampaignDesk:
    """All campaigns. `runner`: None while nothing dials."""

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        house: House,
        runner: Callable[[], Runs | None],
        publish: Callable[[Iterable[Fact]], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool, self._house, self._runner = pool, house, runner
        self._publish, self._now = publish, now
        self._records: dict[int, Record] = {}
        self._removing: set[int] = set()
        self._tried: dict[int, datetime] = {}
        self._reading = asyncio.Lock()
        self._wake = asyncio.Event()

    # ------------------------------------------------------------------------------------------ what is asked

    def records(self) -> list[Record]:
        """All campaigns as they were last read."""
        return list(self._records.values())

    def views(self, sees: Callable[[CampaignView], bool]) -> list[CampaignView]:
        """The campaigns that somebody sees, in the order of their names."""
        found = [view for one in self._records.values() if sees(view := self.view(one))]
        return sorted(found, key=lambda view: (view.name, view.id))

    def view(self, record: Record) -> CampaignView:
        """A campaign as clients see it."""
        campaign = record.campaign
        coming = next_step(record.schedule, self._now()) if record.schedule is not None else None
        return CampaignView(
            id=campaign.id,
            name=campaign.name,
            mode=campaign.mode,
            state=campaign.state,
            since=record.since,
            why=record.why,
            profile=campaign.profile,
            priority=campaign.priority,
            queue=campaign.settings.queue,
            team=campaign.settings.team,
            version=campaign.version,
            changed=record.changed,
            changed_by=record.changed_by,
            next_step=coming[1].value if coming else None,
            next_at=coming[0] if coming else None,
            wrap_up=self.wrap_up(campaign),
        )

    def wrap_up_of(self, id: int) -> WrapUp | None:
        """What follows the talks of a campaign; None if it is gone."""
        record = self._records.get(id)
        return self.wrap_up(record.campaign) if record is not None else None

    def wrap_up(self, campaign: Campaign) -> WrapUp:
        """What follows its talks, where it has no rule of its own by the queue's or the general one."""
        own, words = campaign.settings.wrap_up, words_of(campaign.settings)
        usual = self._house.wrap_up(campaign.settings.queue or None)
        return WrapUp(
            queue=usual.queue,
            seconds=usual.seconds if own.seconds is None else own.seconds,
            then_ready=usual.then_ready if own.after is None else own.after == "ready",
            mandatory=usual.mandatory if own.mandatory is None else own.mandatory,
            dispositions=words or usual.dispositions,
            extension=usual.extension if own.extension is None else own.extension,
        )

    def oversees(self, actor: Actor, record: Record) -> bool:
        """Whether they may see and change it: administrators all, supervisors those of their teams and queues, and what
        they made that is nobody's yet."""
        if actor.is_admin:
            return True
        settings = record.campaign.settings
        if actor.role is not Role.SUPERVISOR:
            return False
        if settings.team:
            return settings.team in actor.teams
        if settings.queue:
            return not self._house.directory.teams_of_queue(settings.queue).isdisjoint(actor.teams)
        return record.created_by == actor.login

    async def theirs(self, actor: Actor, ids: Collection[int]) -> frozenset[int]:
        """Which of these campaigns they may see and change; also of those that another server has just made."""
        if not actor.is_admin and not self._records.keys() >= set(ids):
            await self.refresh()
        return frozenset(
            id
            for id in ids
            if actor.is_admin or ((one := self._records.get(id)) is not None and self.oversees(actor, one))
        )

    async def read(self, actor: Actor, id: int) -> Record:
        """One campaign; raises NotThere, also for one that is not theirs."""
        record = await store.read(self._pool(), id)
        if not self.oversees(actor, record):
            raise NotThere
        return record

    async def before_start(self, record: Record) -> tuple[list[Obstacle], list[Obstacle]]:
        """All that keeps it from starting as things are, and what does not but should be known."""
        missing = await self._missing_sounds(record.campaign)
        there = await self._surroundings(record.campaign, missing)
        return obstacles(record.campaign, there), warnings(record.campaign, there)

    async def _missing_sounds(self, campaign: Campaign) -> tuple[str, ...]:
        settings = campaign.settings
        wanted = [name for name in (settings.message, settings.machine_message) if name is not None]
        pbx = pbx_of(settings, self._house.pbxs())
        return await self._house.missing_sounds(pbx, wanted) if wanted else ()

    async def _surroundings(self, campaign: Campaign, missing_sounds: tuple[str, ...]) -> Surroundings:
        house, settings = self._house, campaign.settings
        people = [login for login, agent in house.directory.agents.items() if works_for(agent, settings)]
        law = house.law(campaign)
        not_on_record: list[tuple[str, str]] = []
        if law.profile is not None:
            purpose, today = settings.purpose or "marketing", self._now().date()
            not_on_record = await lacking(self._pool(), law.profile, campaign.mode, purpose, today)
        return Surroundings(
            pbxs=frozenset(house.pbxs()),
            queue_known=not settings.queue or house.knows_queue(settings.queue),
            team_known=not settings.team or settings.team in house.directory.teams,
            trunks=house.trunks,
            verified=house.verified,
            agents=len(people),
            at_work=sum(house.logged_on(login) for login in people),
            lists=await store.lists_of(self._pool(), campaign.id, settings, house.directory.agents.values()),
            unlawful=None if law.unlawful is None else (*law.unlawful, *law.lacking),
            not_on_record=tuple(not_on_record),
            amd_usual=law.profile is not None and law.profile.amd_usual,
            answer_wait_s=(law.profile or settings).answer_wait_s,
            wait_from=(law.profile or settings).wait_from,
            missing_sounds=missing_sounds,
        )

    # ------------------------------------------------------------------------------------------ people change it

    async def add(self, actor: Actor, campaign: Campaign, conversions: Iterable[str] = ()) -> Record:
        """Makes a campaign, a draft. Raises NotPossible for what can never be."""
        self._may_be(actor, campaign)
        async with self._trailed(actor, "campaign.added", {"name": campaign.name}) as (db, detail):
            id = await store.add(db, campaign, actor.login)
            await store.set_conversions(db, id, conversions)
            detail["campaign"] = id
        return await self._told(id)

    async def change(
        self,
        actor: Actor,
        id: int,
        version: int,
        edit: Callable[[Campaign], Campaign],
        conversions: Iterable[str] | None = None,
    ) -> Record:
        """Changes what `edit` makes of it. Raises NotThere, ChangedMeanwhile, NotPossible, and what `edit` raises."""
        async with self._trailed(actor, "campaign.changed", {"campaign": id}) as (db, detail):
            record = await self._locked(db, actor, id, version)
            new = replace(edit(record.campaign), id=id, version=version, state=record.campaign.state)
            detail["changed"] = sorted(may_change(record.campaign, new))
            self._may_be(actor, new)
            if record.campaign.state in AT_WORK:
                self._stays_lawful(new)
            await store.change(db, new, actor.login)
            if conversions is not None:
                await store.set_conversions(db, id, conversions)
        # What blocked contacts may be allowed now; each claim asks the law.
        await reopen(self._pool(), campaign=id)
        return await self._told(id)

    async def step(self, actor: Actor, id: int, step: Step, why: str = "") -> Record:
        """Starts, pauses, drains or stops it. Raises NotThere, NotPossible; CannotStart says all that is in the way."""
        missing: tuple[str, ...] = ()
        if step is Step.START:  # asked of the PBX before the campaign is locked
            missing = await self._missing_sounds((await store.read(self._pool(), id)).campaign)
        async with self._trailed(actor, f"campaign.{step.value}", {"campaign": id, "why": why}) as (db, _):
            record = await store.locked(db, id)
            if not self.oversees(actor, record):
                raise NotThere
            old, new = record.campaign.state, after(record.campaign.state, step)
            if step is Step.START:
                there = await self._surroundings(record.campaign, missing)
                if in_the_way := obstacles(record.campaign, there):
                    raise CannotStart(in_the_way)
            told = why or (
                f"{step.value} by schedule" if actor is SYSTEM else f"{step.value} by {actor.login}"
            )
            await store.step(db, id, old, new, actor.login, told)
        if step is Step.START:
            await reopen(self._pool(), campaign=id)
        return await self._told(id)

    async def schedule(self, actor: Actor, id: int, version: int, schedule: Schedule | None) -> Record:
        """Says when it starts and ends by itself, or that it does not. Only steps that are still to come are carried out."""
        async with self._trailed(actor, "campaign.scheduled", {"campaign": id}) as (db, _):
            await self._locked(db, actor, id, version)
            await store.set_schedule(db, id, schedule, self._now(), actor.login)
        return await self._told(id)

    async def remove(self, actor: Actor, id: int, version: int) -> None:
        """Removes a campaign that has called nobody. Raises NotThere, ChangedMeanwhile, NotPossible."""
        async with self._trailed(actor, "campaign.removed", {"campaign": id}) as (db, detail):
            record = await self._locked(db, actor, id, version)
            if record.campaign.state in AT_WORK:
                raise NotPossible("at_work", f"the campaign is {record.campaign.state}: stop it first")
            detail["name"] = record.campaign.name
            await store.remove(db, id, version)
        await self.refresh()

    async def _locked(self, db: PoolConnection, actor: Actor, id: int, version: int) -> Record:
        record = await store.locked(db, id)
        if not self.oversees(actor, record):
            raise NotThere
        if record.campaign.version != version:
            raise ChangedMeanwhile
        return record

    def _may_be(self, actor: Actor, campaign: Campaign) -> None:
        """Raises NotPossible for whose it may not be, and for what its profile forbids whatever comes."""
        settings, directory = campaign.settings, self._house.directory
        if actor.role is Role.SUPERVISOR:
            if settings.team and settings.team not in actor.teams:
                raise NotPossible("forbidden", f"team: {settings.team} is not a team of yours")
            if settings.queue and not settings.team:
                theirs = directory.teams_of_queue(settings.queue)
                if theirs.isdisjoint(actor.teams):
                    raise NotPossible(
                        "forbidden", f"queue: {settings.queue} is not a queue of a team of yours"
                    )
        if settings.team and settings.team not in directory.teams:
            known = ", ".join(sorted(directory.teams)[:10])
            raise NotPossible(
                "unknown_team", f"team: there is no team {settings.team}; there is {known or 'none'}"
            )
        self._stays_lawful(campaign)

    def _stays_lawful(self, campaign: Campaign) -> None:
        law = self._house.law(campaign)
        if law.unlawful is None:
            raise NotPossible("unknown_profile", f"profile: there is no country profile {campaign.profile}")
        if law.unlawful:
            raise NotPossible("against_the_law", "; ".join(law.unlawful))

    @asynccontextmanager
    async def _trailed(
        self, actor: Actor, action: str, detail: dict[str, Any]
    ) -> AsyncIterator[tuple[PoolConnection, dict[str, Any]]]:
        """A transaction whose last line is that of the audit trail."""
        async with self._pool().acquire(timeout=5) as db, db.transaction():
            yield db, detail
            await audit.record(db, actor, action, str(detail.get("campaign", "")), detail)

    async def _told(self, id: int) -> Record:
        """After a change: everybody hears of it, what dials reads it again."""
        self._tried.pop(id, None)
        await self.refresh()
        record = self._records.get(id)
        return record if record is not None else await store.read(self._pool(), id)

    # ------------------------------------------------------------------------------------------ what happens by itself

    async def refresh(self) -> None:
        """Reads all campaigns again and tells what has changed, whoever changed it."""
        async with self._reading:
            found = {one.campaign.id: one for one in await store.everyone(self._pool())}
            facts, changed = self._differences(found)
            self._records = found
            self._publish(facts)
        runner = self._runner()
        if runner is not None:
            for id in changed:
                await runner.refresh(id)

    async def load(self) -> None:
        """Reads all campaigns, telling nothing: nobody has been told of others."""
        self._records = {one.campaign.id: one for one in await store.everyone(self._pool())}

    def _differences(self, found: Mapping[int, Record]) -> tuple[list[CampaignFact], list[int]]:
        facts: list[CampaignFact] = []
        changed: list[int] = []
        now = self._now()
        for id, record in found.items():
            former, view = self._records.get(id), self.view(record)
            if former == record:
                continue
            changed.append(id)
            if former is None:
                facts.append(CampaignAdded(at=now, campaign=id, view=view))
            elif former.campaign.state != record.campaign.state:
                facts.append(
                    CampaignStateChanged(
                        at=record.since,
                        campaign=id,
                        view=view,
                        old=former.campaign.state,
                        new=record.campaign.state,
                        by=record.changed_by,
                        why=record.why,
                    )
                )
            else:
                facts.append(CampaignChanged(at=now, campaign=id, view=view))
        for id in self._records.keys() - found.keys():
            facts.append(CampaignRemoved(at=now, campaign=id, view=self.view(self._records[id])))
            changed.append(id)
        return facts, changed

    async def run(self) -> None:
        """Carries schedules out, ends what has drained and hears of others' changes, until cancelled."""
        await again_and_again(self.look, LOOKS, "campaigns cannot be looked at")

    async def look(self) -> None:
        """One look."""
        await self.refresh()
        draining = [id for id, one in self._records.items() if one.campaign.state == "draining"]
        if draining:
            under_way = await store.under_way(self._pool(), draining)
            for id in draining:
                if not under_way[id]:
                    await self._by_itself(id, Step.FINISH, "the last call is over")
        now = self._now()
        for record in list(self._records.values()):
            if record.schedule is not None and record.done is not None:
                due = due_step(record.schedule, record.done, now)
                if due is not None and self._tried.get(record.campaign.id, now) <= now:
                    await self._carry_out(record, *due, now=now)

    async def _carry_out(self, record: Record, moment: datetime, step: Step, *, now: datetime) -> None:
        id = record.campaign.id
        if record.campaign.state not in FROM[step]:
            log.info(
                "a scheduled step has nothing to do",
                campaign=id,
                step=step.value,
                state=record.campaign.state,
            )
        else:
            try:
                if not await self._by_itself(id, step, f"{step.value} by schedule"):
                    return
            except CannotStart as refused:
                # Tried again until its end comes: what is in the way may be put right meanwhile.
                self._tried[id] = now + TRIED_AGAIN
                await store.set_why(self._pool(), id, f"cannot start by schedule: {refused}"[:1000])
                return
        await store.schedule_done(self._pool(), id, moment)
        self._tried.pop(id, None)

    async def _by_itself(self, id: int, step: Step, why: str) -> bool:
        """Does a step that nobody asked for just now; False if somebody else was quicker."""
        try:
            await self.step(SYSTEM, id, step, why)
        except (ChangedMeanwhile, NotThere):
            return False
        except CannotStart:
            raise
        except NotPossible:
            return False
        return True
