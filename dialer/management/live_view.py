"""How campaigns go at this moment: put together every few seconds from the attempts, the agents and what paces them.

Counted by the same reading as reports (`dialer/management/figures.py`), so the numbers are the same; told only when they
have changed. A reading that takes long is made less often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

import msgspec
import structlog

from cti.campaigns import CampaignGoes, CampaignNow
from cti.facts import Fact
from cti.views import AgentView
from dialer.campaigns import AT_WORK, Record
from dialer.law.ledger import Abandonment, abandonment
from dialer.management import figures as campaign_figures
from dialer.management import store as campaign_store
from dialer.management.desk import CampaignDesk, Law
from dialer.management.settings import Campaign, CampaignLive

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

EVERY = 5.0
CONTACTS_EVERY = 30.0
"""Seconds between two views, and between two counts of the contacts."""

QUARTER = 900.0
STAGES = ("committed", "dialed", "ringing", "answered", "connected")


class Paces(Protocol):
    """Of what dials, as much as is needed here (`dialer.management.settings.Runner`)."""

    def view(self, campaign_id: int) -> CampaignLive | None:
        """How the pace stands here."""


class LiveView:
    """The live view of all campaigns at work. `zone`: whose midnight begins the day."""

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        desk: CampaignDesk,
        law: Callable[[Campaign], Law],
        agents: Callable[[], Iterable[AgentView]],
        runner: Callable[[], Paces | None],
        zone: ZoneInfo,
        publish: Callable[[Iterable[Fact]], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool, self._desk, self._law, self._agents = pool, desk, law, agents
        self._runner, self._zone, self._publish, self._now = runner, zone, publish, now
        self._told: dict[int, CampaignNow] = {}
        self._contacts: dict[int, dict[str, int]] = {}
        self._contacts_at = -CONTACTS_EVERY

    def told(self) -> list[CampaignNow]:
        """What was told last of those at work."""
        return list(self._told.values())

    async def of(self, record: Record) -> CampaignNow:
        """How a campaign goes now, counted for whoever asks."""
        contacts = await campaign_store.contacts_of(self._pool(), [record.campaign.id])
        (view,) = await self._views([record], contacts)
        return view

    async def run(self) -> None:
        """Tells how campaigns go, until cancelled."""
        failing = False
        while True:
            began = monotonic()
            try:
                await self.look()
                failing = False
            except Exception as error:
                if not failing:
                    log.warning("campaigns' live view fails", why=f"{type(error).__name__}: {error}"[:200])
                failing = True
            await asyncio.sleep(max(EVERY, 20 * (monotonic() - began)))

    async def look(self) -> None:
        """Tells of each campaign at work how it goes, if that has changed."""
        records = [one for one in self._desk.records() if one.campaign.state in AT_WORK]
        ids = [one.campaign.id for one in records]
        before, self._told = self._told, {id: self._told[id] for id in ids if id in self._told}
        ended = [one for one in self._desk.records() if one.campaign.id in before.keys() - set(ids)]
        if not records and not ended:
            return
        began = monotonic()
        if began - self._contacts_at >= CONTACTS_EVERY or not self._contacts.keys() >= set(ids):
            self._contacts = await campaign_store.contacts_of(self._pool(), ids)
            self._contacts_at = monotonic() + 20 * (monotonic() - began)
        facts: list[Fact] = []
        everything = [*records, *ended]
        for record, view in zip(everything, await self._views(everything, self._contacts), strict=True):
            id = record.campaign.id
            known = before.get(id)
            if known is None or msgspec.structs.replace(known, at=view.at, until=view.until) != view:
                facts.append(CampaignGoes(at=view.at, campaign=id, view=self._desk.view(record), now=view))
            if record.campaign.state in AT_WORK:
                self._told[id] = view
        self._publish(facts)

    async def _views(
        self, records: Sequence[Record], contacts: Mapping[int, dict[str, int]]
    ) -> list[CampaignNow]:
        now, pool = self._now(), self._pool()
        ids = [one.campaign.id for one in records]
        soon = now + timedelta(days=1)
        under_way = await campaign_store.under_way(pool, ids)
        local = now.astimezone(self._zone)
        midnight = datetime.combine(local.date(), time(), self._zone).astimezone(UTC)
        profiles = {one.campaign.id: self._law(one.campaign).profile for one in records}
        errors = campaign_figures.error_shares(profiles)
        today = await campaign_figures.totals(pool, ids, midnight, soon, errors)
        lately = await campaign_figures.totals(pool, ids, quarter(now - timedelta(minutes=30)), soon, errors)
        found = []
        for record in records:
            id, profile = record.campaign.id, profiles[record.campaign.id]
            stands = await abandonment(pool, id, profile, now) if profile is not None else None
            paced = self._paced(id)
            calls = under_way[id] if paced is None or not paced.here else paced.calls
            found.append(
                CampaignNow(
                    campaign=id,
                    at=now,
                    state=record.campaign.state,
                    agents=self._agents_of(record.campaign),
                    lines=sum(calls.values()),
                    calls={stage: calls.get(stage, 0) for stage in STAGES},
                    today=today[id].sums,
                    last_half_hour=lately[id].sums,
                    dispositions=today[id].dispositions,
                    converted=today[id].converted,
                    live=stands.live if stands else 0,
                    lost=stands.abandoned + stands.amd_errors if stands else 0.0,
                    late=stands.late if stands else 0,
                    nobody=stands.nobody if stands else 0,
                    amd_errors=stands.amd_errors if stands else 0.0,
                    cap=stands.cap if stands else 0.0,
                    may_be_lost=stands.spare if stands else 0,
                    until=stands.until if stands else None,
                    budget=budget_told(stands, local) if stands else "there is no such country profile",
                    contacts=contacts.get(id, {}),
                    pace=paced.pace if paced is not None else 0,
                    why=_why(record, paced),
                    trunks=paced.trunks if paced is not None else {},
                )
            )
        return found

    def _paced(self, id: int) -> CampaignLive | None:
        runner = self._runner()
        return runner.view(id) if runner is not None else None

    def _agents_of(self, campaign: Campaign) -> dict[str, int]:
        queue, team = campaign.settings.queue, campaign.settings.team
        found: dict[str, int] = {}
        for view in self._agents():
            if (not queue or queue in view.queues) and (not team or view.team == team) and (queue or team):
                found[view.state.value] = found.get(view.state.value, 0) + 1
        return dict(sorted(found.items()))


def quarter(moment: datetime) -> datetime:
    """The quarter of an hour that a moment lies in."""
    return datetime.fromtimestamp(moment.timestamp() // QUARTER * QUARTER, UTC)


def budget_told(stands: Abandonment, now: datetime) -> str:
    """How many more calls may be lost, until when, and of what; times as `now` has them."""
    when = ""
    if stands.until is not None:
        local = stands.until.astimezone(now.tzinfo)
        when = f" until {local.strftime('%H:%M' if local.date() == now.date() else '%a %d %b %H:%M')}"
    if stands.spare < 0:
        told = f"{-stands.spare} calls too many are lost{when}"
    else:
        more = {0: "no more calls", 1: "1 more call"}.get(stands.spare, f"{stands.spare} more calls")
        told = f"{more} may be lost{when}"
    answers = stands.live + stands.amd_errors
    return f"{told}: {stands.share:.1%} abandoned of {answers:g} who answered, {stands.cap:.1%} allowed"


def _why(record: Record, paced: CampaignLive | None) -> str:
    if record.campaign.state not in AT_WORK:
        return record.why
    if paced is None:
        return "not dialed by this server"
    return f"{paced.held}: {paced.why}" if paced.held and paced.held not in paced.why else paced.why
