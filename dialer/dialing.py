"""The dialer put together: what runs campaigns, who looks after them, and what their lists, law and plans are asked through.

It does nothing by itself before `tasks` run, and places no call before a link is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog

from cti.agents import Agents
from cti.ami_events import Record
from cti.campaigns import CampaignNow, CampaignView
from cti.commands import Commands
from cti.database import AWAY
from cti.facts import AgentStateChanged, CallView, Fact
from cti.openapi import Route
from cti.people import Directory
from cti.rest.serving import Translate
from cti.settings import DialerSettings
from cti.wrap_up import Disposition, of_campaign
from dialer.call_lists import rest as lists_rest
from dialer.call_lists.before_launch import by_law
from dialer.call_lists.import_desk import ImportDesk
from dialer.call_lists.quotas import Quotas
from dialer.calling import dispositions
from dialer.calling.claims import Claims
from dialer.calling.commands import add_campaign_commands
from dialer.calling.contact_of_call import CalledContact, belongs, contact_of
from dialer.calling.preview import OF_CALLS, PreviewDesk
from dialer.calling.run import OF_CAMPAIGNS, Dialer
from dialer.calling.sounds import Sounds
from dialer.calling.switchboard import AgentsPort, PbxPort
from dialer.calling.trunks import CallerIds, TrunkPlan, Trunks
from dialer.campaigns import pbx_of
from dialer.forecasting.plans import Plans
from dialer.law import rest as law_rest
from dialer.law.desk import LawDesk
from dialer.law.known import check_all
from dialer.law.profiles import load as load_profiles
from dialer.management import figures as campaign_figures
from dialer.management import rest as campaign_rest
from dialer.management.desk import CampaignDesk, House, law_by
from dialer.management.live_view import LiveView
from dialer.management.settings import Campaign

if TYPE_CHECKING:
    from cti.database import Pool, Queryable
    from dialer.call_lists.target_group import TargetGroups

log = structlog.get_logger(__name__)

TRANSLATE: dict[type[Exception], Translate] = {
    **campaign_rest.TRANSLATE,
    **law_rest.TRANSLATE,
    **lists_rest.TRANSLATE,
}
"""What the dialer's own refusals are called over REST."""


MOST_KEPT = 10_000
"""Calls that keep a promise of which it is known whose they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the dialer needs of the house. `zone`: that of the figures; `connect`, `call`: a customer to an open line, an
    agent's phone to a number, who sees the last one ("": by the PBX's rules); `view`: a call by its id."""

    settings: DialerSettings
    zone: str
    dsn: str
    pool: Callable[[], Pool]
    healthy: Callable[[], bool]
    directory: Directory
    agents: Agents
    pbxs: Mapping[str, PbxPort]
    knows_queue: Callable[[str], bool]
    connect: Callable[[str, str], Awaitable[object]]
    call: Callable[[str, str, str, str], Awaitable[str]]
    view: Callable[[str], CallView | None]
    publish: Callable[[Iterable[Fact]], None]
    set_data: Callable[[str, dict[str, str], str], None]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    target_groups: TargetGroups


class Dialing:
    """All parts of the dialer on one server."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._kept: dict[str, int] = {}  # calls that keep a promise → the campaign it was made in
        ours, clock = around.settings, asyncio.get_running_loop().time
        self.profiles = load_profiles(*([Path(ours.profiles)] if ours.profiles else []))
        self._law = LawDesk(lambda: self.profiles, check_all, clock=clock)
        self._caller_ids = CallerIds(ours.caller_ids)
        self._quotas = Quotas(zone=around.zone, clock=clock)
        self._claims = Claims(
            around.pool,
            check_all=self._law.check_all,
            open_groups=self._law.open_groups,
            clock=clock,
            room=self._quotas.room,
        )
        self.dialer = self.make_dialer()
        self._law_of = law_by(self.profiles)
        self._sounds = Sounds(around.pbxs, clock=clock)
        self.campaigns = CampaignDesk(
            pool=around.pool,
            house=House(
                directory=around.directory,
                pbxs=lambda: around.pbxs,
                knows_queue=around.knows_queue,
                trunks=_trunks(ours),
                verified=frozenset(ours.caller_ids),
                law=self._law_of,
                missing_sounds=self._sounds.missing,
                logged_on=lambda login: around.agents.session(login, datetime.now(UTC)).logged_on,
                wrap_up=around.agents.wrap_up_of,
            ),
            runner=lambda: self.dialer,
            publish=around.publish,
        )
        self.preview = PreviewDesk(
            pool=around.pool,
            healthy=around.healthy,
            claims=self._claims,
            check=self._law.check_all,
            judge=by_law(around.pool, lambda: self.profiles),
            campaigns=lambda: [record.campaign for record in self.campaigns.records()],
            agents=self._agent_views,
            person=around.directory.agents.get,
            team_name=self._team_name,
            pbx_of=lambda campaign: pbx_of(campaign.settings, around.pbxs),
            call=around.call,
            shows=self._shown_by_hand,
            view=around.view,
            set_data=around.set_data,
            publish=around.publish,
            owner=f"{self.dialer.owner}:hand",
            clocks_apart=self.dialer.clocks.apart,
        )
        self._live = LiveView(
            pool=around.pool,
            desk=self.campaigns,
            law=self._law_of,
            agents=self._agent_views,
            runner=lambda: self.dialer,
            zone=ZoneInfo(around.zone),
            publish=around.publish,
        )
        self._plans = Plans(now=lambda: datetime.now(UTC))
        self._imports = ImportDesk(around.pool, around.dsn)

    def make_dialer(self) -> Dialer:
        """What runs campaigns; several may run on one database, one of them paces each campaign."""
        around, ours = self._around, self._around.settings
        return Dialer(
            pool=around.pool,
            healthy=around.healthy,
            claims=self._claims,
            pbxs=around.pbxs,
            agents=AgentsPort(
                all=self._agent_views,
                view=lambda login: around.agents.view(login, datetime.now(UTC)),
                team_name=self._team_name,
                teams_of_queue=around.directory.teams_of_queue,
                connect=around.connect,
                person=around.directory.agents.get,
            ),
            trunks=Trunks([TrunkPlan(**dict(trunk)) for trunk in ours.trunks]),
            caller_ids=self._caller_ids,
            publish=around.publish,
            set_data=around.set_data,
            spawn=around.spawn,
            within=self._law.within,
            error_share=self._law.error_share,
            legal_window_h=self._law.legal_window_h,
            tick_s=ours.tick_s,
            lease_s=ours.lease_s,
        )

    def _shown_by_hand(self, campaign: Campaign, e164: str) -> str:
        """The number that a contact sees whom an agent calls for this campaign; "": by the PBX's rules, it names none."""
        own = [(one.number, one.prefixes) for one in campaign.settings.caller_ids]
        return self._caller_ids.show(campaign.id, own, e164) if own else ""

    def _agent_views(self) -> Any:
        return self._around.agents.views(datetime.now(UTC))

    def _team_name(self, id: str | None) -> str:
        team = self._around.directory.teams.get(id) if id is not None else None
        return team.name if team is not None else ""

    # ------------------------------------------------------------------------------------------ running

    async def load(self) -> None:
        """Takes up what campaigns there are."""
        await self.campaigns.load()

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """All that runs beside the calls, until cancelled."""
        around = self._around
        return [
            self.campaigns.run(),
            self.preview.run(),
            self._live.run(),
            campaign_figures.keep_rolling_up(around.pool()),
            self.dialer.start(),
            self._imports.run(),
            self._quotas.keep_looking(around.pool),
        ]

    async def stop(self) -> None:
        """Places no more calls; those under way go on at the switch."""
        await self.dialer.stop()

    async def flush(self) -> None:
        """Waits a moment until everything is written."""
        await self.preview.flush()

    async def close(self) -> None:
        """Ends what runs in processes of its own."""
        await self._plans.close()

    # ------------------------------------------------------------------------------------------ told and shown

    def reactions(self) -> list[tuple[type[Fact], Callable[[Any], None]]]:
        """What is to be heard of, and who hears it."""
        return [
            *((kind, self.preview.hear_call) for kind in OF_CALLS),
            (AgentStateChanged, self.preview.hear_agent),
            *((kind, self._hear) for kind in OF_CAMPAIGNS),
        ]

    def hear_record(self, pbx: str, record: Record) -> None:
        """Takes what the switch tells of a channel."""
        self.dialer.hear_record(pbx, record)
        self._sounds.hear_record(record)

    async def contact_of(self, call: str) -> CalledContact | None:
        """The contact of a campaign's call; None for any other call. Raises what the database does."""
        return await contact_of(self._around.pool(), call)

    def campaign_of(self, call: str, login: str) -> str | None:
        """The campaign in whose call this agent talks with a contact, as wrap-up writes it; None in any other call."""
        live = self.dialer.calls.of_call(call)
        if live is not None and live.attempt.agent in (None, login):
            return of_campaign(live.campaign)
        id = self.preview.campaign_of(call, login) or self._kept.get(call)
        return of_campaign(id) if id is not None else None

    async def dispositions(self, db: Queryable, call: str) -> Sequence[Disposition] | None:
        """What may be said of a campaign's call; None of any other, and where the campaign leaves it to the queue."""
        return await dispositions.choice(db, call)

    async def disposed(self, db: Queryable, call: str, disposition: str, by: str) -> None:
        """Does what comes of what an agent says of a call, in the transaction that keeps it."""
        await dispositions.follows(db, call, disposition, by, datetime.now(UTC))

    async def calls_back(self, promised_in: str, call: str) -> None:
        """A call keeps what was promised in another; if that was a campaign's, this one belongs to its attempt, and the
        agent sees what they saw then."""
        try:
            contact = await self.contact_of(promised_in)
            if contact is not None:
                self._kept[call] = contact.campaign
                while len(self._kept) > MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._around.set_data(call, dict(contact.data), "dialer")
                await belongs(self._around.pool(), contact.attempt, call)
        except AWAY as error:
            log.warning("a call back goes without its contact", call=call, error=type(error).__name__)

    def _hear(self, fact: Fact) -> None:
        self.dialer.hear(fact)

    def views(self, sees: Callable[[CampaignView], bool]) -> list[CampaignView]:
        """The campaigns that somebody sees."""
        return self.campaigns.views(sees)

    def now(self, sees: Callable[[CampaignView], bool]) -> list[CampaignNow]:
        """How the campaigns go whose going somebody sees."""
        seen = {view.id for view in self.campaigns.views(sees)}
        return [now for now in self._live.told() if now.campaign in seen]

    # ------------------------------------------------------------------------------------------ asked

    def add_commands(self, commands: Commands) -> None:
        """Registers what agents ask of campaigns."""
        add_campaign_commands(commands, desk=self.preview)

    def routes(self) -> list[Route]:
        """Campaigns, law and lists over REST."""
        around = self._around
        return [
            *campaign_rest.routes(
                pool=around.pool,
                desk=self.campaigns,
                live=self._live,
                plans=self._plans,
                directory=around.directory,
                law=self._law_of,
                zone=around.zone,
            ),
            *law_rest.routes(pool=around.pool, profiles=lambda: self.profiles, theirs=self.campaigns.theirs),
            *lists_rest.routes(
                pool=around.pool,
                directory=around.directory,
                desk=self._imports,
                theirs=self.campaigns.theirs,
                law=by_law(around.pool, lambda: self.profiles),
                profiles=lambda: self.profiles,
                target_groups=around.target_groups,
            ),
        ]


def _trunks(settings: DialerSettings) -> dict[str, frozenset[str]]:
    """PBX → the names of its trunks."""
    names: dict[str, set[str]] = {}
    for trunk in settings.trunks:
        names.setdefault(trunk.pbx, set()).add(trunk.name)
    return {pbx: frozenset(of) for pbx, of in names.items()}
