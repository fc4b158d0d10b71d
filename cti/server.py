"""Everything put together: what is made, started and ended, in which order. Only the `cti` command imports this. Who reacts
to what, and what is served, stands in `cti.wiring`.

Order of a start: database and people, journal and bus, models, customers' side, what goes out, the links last, so that
whatever a PBX tells first is heard by all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import web

from crm.ani import CallerLookup
from crm.call_back_commands import Customer as CalledCustomer
from crm.call_backs import CallBacks, topics_of
from crm.called_customer import customer_of
from crm.escalations import escalations
from crm.interactions import Interactions
from crm.pop_url import PopUrl
from crm.resolution import keep_settling
from crm.screen_pop import ScreenPops
from crm.voicemails import voicemail_notes
from cti import audit, users
from cti.access import Access
from cti.agent_sessions import load_agent_sessions, save_agent_sessions
from cti.agents import Agents
from cti.alarm_measures import AlarmMeasures
from cti.alarm_watch import AlarmWatch
from cti.alarms import Alarms
from cti.ami import AmiLink
from cti.ami_canary import Canary
from cti.ami_events import MailboxChanged, PromiseAsked, Record, RouteAsked
from cti.asyncapi import fact_classes
from cti.attendance import Attendance
from cti.audience import Audience, subscriptions
from cti.audit_trail import AuditTrail
from cti.browser_phones import BrowserPhones
from cti.bus import Bus
from cti.callers_for_routing import caller_facts
from cti.commands import Commands
from cti.control.acting import Means
from cti.control.control import Control
from cti.control.off_hook import OffHook
from cti.control.pages import Pages
from cti.control.places import Places
from cti.control.ports import CallAnswer, port_of
from cti.control.supervising import OF_SPIES, Supervising
from cti.control.waits import Waits
from cti.corrections import telling_corrections
from cti.customers_for_lists import CustomersForLists
from cti.database import Database, migrate
from cti.facts import (
    DatabaseStatusChanged,
    Fact,
    JournalGap,
    PbxResynced,
)
from cti.figures.desk import Desk
from cti.figures.roll_up import RollUp, set_limits, set_targets, set_zone, targets_of
from cti.help_requests import HelpRequests
from cti.housekeeping import keep_house
from cti.hub import Hub
from cti.journal import Journal
from cti.membership import AFTER_A_BREAK, Membership
from cti.messages import Messages
from cti.numbers import read_caller
from cti.other_work import BlendingView, WorkView
from cti.pbx import put_together
from cti.people import Actor, Directory
from cti.people_watch import PeopleWatch
from cti.phone_passwords import PhonePassword, phone_passwords
from cti.reasons import Reason
from cti.rest import application as rest
from cti.rest.proxies import Proxies
from cti.settings import Settings, WrongSettings, wrap_up_rule
from cti.snapshot import Snapshots
from cti.supervision import AlarmView
from cti.switch import Switch
from cti.tasks import Tasks
from cti.tokens import signing_key
from cti.views import DatabaseView, QueueView
from cti.voicemail import VoicemailWaiting
from cti.websocket import Websocket
from cti.whose_call import WhoseCall
from cti.wiring.commands import add_commands
from cti.wiring.reactions import react
from cti.wiring.routes import TRANSLATE, routes
from dialer.call_lists import imports as list_imports
from dialer.calling.live import OF_ATTEMPTS
from dialer.calling.switchboard import PbxPort
from dialer.dialing import Around, Dialing
from routing import work_store
from routing.book import RuleBook
from routing.desk import WorkDesk
from routing.floor import Floors
from routing.invitation import Invitation
from routing.promises import Promises
from routing.questions import Decided, Questions
from routing.second_level import RulesOfQueues
from routing.waiting import Ageing, OnTheWay
from routing.waiting import Waits as QueueWaits
from routing.work_floor import work_floor

log = structlog.get_logger(__name__)

VERSION = "0.1.0"
POP_PATIENCE = 10.0
"""Seconds that a look-up for a pop may take; the pop is shown without it meanwhile."""

WITHOUT_DATABASE = "the database does not answer: calls go on, notes, dispositions and look-ups have to wait"

WRITTEN_WITHIN = 2.0
"""Seconds within which what a person typed should be in the database, before they are answered."""

TICK = 0.25
"""Seconds between two looks at what only time can tell: wrap-ups that end, callers whom a queue gave up."""


class Server:
    """The running server. `start` returns when it serves; links to PBXs come up on their own after that."""

    def __init__(self, settings: Settings) -> None:
        if not settings.pbx:
            raise WrongSettings(
                "no PBX is configured: set CTI_PBX__MAIN__HOST, CTI_PBX__MAIN__USERNAME, CTI_PBX__MAIN__SECRET"
            )
        self.settings = settings
        self._dsn = settings.dsn
        self.stopped = asyncio.Event()
        self.why_stopped = ""
        self._tasks = Tasks()
        self._pbx_tasks: list[asyncio.Task[None]] = []
        self._cleanup = contextlib.AsyncExitStack()
        self._port = settings.port

    @property
    def url(self) -> str:
        """Where it is served."""
        return self.settings.public_url or f"http://{self.settings.listen}:{self._port}"

    @property
    def origins(self) -> tuple[str, ...]:
        """Where pages of ours are served from, besides the address that a browser names."""
        return (self.settings.public_url.rstrip("/"),) if self.settings.public_url else ()

    async def start(self, *, wait_for_database: float = 60.0) -> None:
        """Starts everything; raises DatabaseUnavailable, MigrationFailed, JournalInUse or OSError (port taken), and then
        nothing is left running."""
        try:
            await self._people(wait_for_database)
            await self._journal_and_bus()
            self._models()
            await self._customers()
            await self._routing()
            self._dialing()
            await self._sums()
            self.trail = AuditTrail(self.database.pool)
            self.commands = Commands(audit=self.trail.note)
            self._cleanup.push_async_callback(self.commands.close)
            add_commands(self)
            await self._doors()
            react(self)
            await self._take_up_sessions()
            self._links()
        except BaseException:
            await self.stop()
            raise
        log.info("serving", url=self.url, pbxs=sorted(self.switches), version=VERSION)

    # ------------------------------------------------------------------------------------------ people

    async def _people(self, wait: float) -> None:
        self.database = Database(self._dsn, size=self.settings.database_pool)
        self._cleanup.push_async_callback(self.database.close)
        await self.database.open(wait=wait)
        await migrate(self._dsn)
        self.directory = Directory()
        self.directory.load(*await users.load_directory(self.database.pool))

    async def choose_off_hook(self, login: str, off_hook: bool, by: str) -> None:
        await users.set_off_hook(self.database.pool, login, off_hook)
        await self.people_watch.refresh(chosen={login: by})

    async def people_changed(self, _login: str | None) -> None:
        await self.people_watch.refresh()

    # ------------------------------------------------------------------------------------------ journal and bus

    async def _journal_and_bus(self) -> None:
        self.journal = Journal(
            self._dsn,
            buffer_max=self.settings.journal_buffer,
            on_gap=lambda first, last, lost: self.bus.publish(
                [JournalGap(at=datetime.now(UTC), first=first, last=last, lost=lost)]
            ),
            on_fenced=self._give_up,
            on_trouble=self.database.look,
        )
        last = self._began_after = await self.journal.start()
        self._cleanup.push_async_callback(self.journal.close)
        self.audience = Audience(
            self.directory, agents_in=self.agents_in, announce=self.settings.supervision.announce
        )
        self.bus = Bus(audience=self.audience, last_seq=last)

    def _database_view(self) -> DatabaseView:
        up = self.database.healthy
        return DatabaseView(up=up, why="" if up else WITHOUT_DATABASE, since=self.database.since)

    def database_changed(self) -> None:
        view = self._database_view()
        self.bus.publish([DatabaseStatusChanged(at=view.since, up=view.up, why=view.why)])

    def _give_up(self, why: str) -> None:
        """Another server has taken over: this one must not go on as if it were the one."""
        self.why_stopped = why
        self.stopped.set()

    # ------------------------------------------------------------------------------------------ models

    def _models(self) -> None:
        self.agents = Agents(
            self.directory,
            wrap_up=wrap_up_rule(self.settings.wrap_up),
            wrap_ups=[
                wrap_up_rule(self.settings.wrap_up, queue) for queue in sorted(self.settings.wrap_up.queues)
            ],
            reasons=[Reason(**dict(reason)) for reason in self.settings.not_ready_reasons],
            pbxs=self.settings.pbx,
        )
        self.switches: dict[str, Switch] = {}
        self.links: dict[str, AmiLink] = {}
        self.canaries: dict[str, Canary] = {}
        for name, pbx in self.settings.pbx.items():
            made = put_together(
                name,
                pbx,
                agent_at=functools.partial(self.directory.agent_at, name),
                publish=telling_corrections(self.bus.publish, self.agents),
                first={
                    RouteAsked: lambda pbx, record: self.questions.ask(pbx, record),  # noqa: PLW0108  # made later
                    PromiseAsked: lambda pbx, record: self.promises.ask(pbx, record),  # noqa: PLW0108
                },
                then={
                    MailboxChanged: self._mailbox_changed,
                    **dict.fromkeys(OF_SPIES | OF_ATTEMPTS, self._channels_heard),
                },
            )
            self.switches[name], self.links[name], self.canaries[name] = made.switch, made.link, made.canary
        self.membership = Membership(
            directory=self.directory,
            agents=self.agents,
            queues={name: switch.queues for name, switch in self.switches.items()},
            send={name: link.send for name, link in self.links.items()},
            up=lambda pbx: self.switches[pbx].synced,
            publish=self.bus.publish,
        )
        self.waits = Waits()
        ports = {
            name: port_of(name, self.switches[name], self.links[name], self.directory, pbx)
            for name, pbx in self.settings.pbx.items()
        }
        self.browser_phones = BrowserPhones(
            directory=self.directory,
            phone_seat=lambda login: self.hub.phone_of(login),  # noqa: PLW0108  # it is made later
            opened=self._phone_opened,
            left=self._phone_left,
        )
        means = Means(
            ports=ports,
            waits=self.waits,
            phone_of=self._phone_of,
            publish=self.bus.publish,
            rules=RulesOfQueues(
                rules=lambda: self.book.active, team_of=self.directory.team_of, now=lambda: datetime.now(UTC)
            ),
            set_data=self.set_data,
            browser=self.browser_phones,
        )
        self.control = Control(means)
        self.places = Places(
            ports,
            waiting={name: switch.queues for name, switch in self.switches.items()},
            spawn=self._tasks.spawn,
        )
        self.off_hook = OffHook(means, directory=self.directory, agents=self.agents, spawn=self._tasks.spawn)
        self.pages = Pages(self.control, self.off_hook)
        self.supervising = Supervising(means, spawn=self._tasks.spawn)
        self.desk = Desk(
            pool=lambda: self.database.pool,
            directory=self.directory,
            zone=self.settings.figures.time_zone,
            queues=self._queue_views,
            unpaid=self.settings.unpaid_reasons,
        )
        self.alarm_measures = AlarmMeasures(self.switches, self.agents)
        self.alarms = Alarms(new_id=lambda: f"a{uuid4().hex[:16]}")
        self.alarm_watch = AlarmWatch(
            self.alarms,
            floor=self.alarm_measures,
            levels=self.desk.service_levels,
            db=lambda: self.database.pool,
            publish=self.bus.publish,
            now=lambda: datetime.now(UTC),
        )
        self.messages = Messages(lambda: self.database.pool)
        self.help_requests = HelpRequests(lambda: self.database.pool)
        self.attendance = Attendance(
            agents=self.agents, save=lambda sessions: save_agent_sessions(self.database.pool, sessions)
        )
        self.snapshots = Snapshots(
            directory=self.directory,
            agents=self.agents,
            calls=lambda: (view for switch in self.switches.values() for view in switch.calls.views()),
            queues=self._queue_views,
            pbxs=lambda: (switch.view for switch in self.switches.values()),
            database=self._database_view,
            pops=self._pops_of,
            teams_of_call=self.audience.teams_of_call,
            supervisions=self.supervising.views,
            messages=self.messages.unread,
            help_requests=self.help_requests.views,
            alarms=self._alarms_for,
            work=self._work_for,
            blending=self._blending,
            call_backs=lambda topics: [
                view for view in self.call_backs.views() if not topics.isdisjoint(topics_of(view))
            ],
            campaigns=lambda topics: self.dialing.views(
                lambda view: not topics.isdisjoint(self.audience.of_campaign(view, agents=True))
            ),
            campaigns_now=lambda topics: self.dialing.now(
                lambda view: not topics.isdisjoint(self.audience.of_campaign(view, agents=False))
            ),
            offers=lambda: self.dialing.preview.views(),  # noqa: PLW0108  # made later
            announce=self.settings.supervision.announce,
        )

    def _queue_views(self) -> Iterable[QueueView]:
        return (view for switch in self.switches.values() for view in switch.queues.views())

    async def written(self) -> bool:
        """Waits until all facts so far are in the journal; False while the database is away."""
        try:
            await self.journal.flushed(self.bus.seq, timeout=WRITTEN_WITHIN)
        except TimeoutError:
            return False
        return True

    def _channels_heard(self, pbx: str, record: Record) -> None:
        self.dialing.hear_record(pbx, record)
        if type(record) in OF_SPIES:
            self.supervising.hear_record(record)

    def _mailbox_changed(self, pbx: str, record: MailboxChanged) -> None:
        now = datetime.now(UTC)
        self.bus.publish(
            [VoicemailWaiting(at=now, pbx=pbx, mailbox=record.mailbox, new=record.new, old=record.old)]
        )

    def set_data(self, call: str, values: dict[str, str], by: str) -> None:
        switch = self.switches[call.partition(":")[0]]
        self.bus.publish(switch.calls.set_data(call, values, by=by, at=datetime.now(UTC).timestamp()))

    # ------------------------------------------------------------------------------------------ alarms

    def _alarms_for(self, topics: frozenset[str]) -> list[AlarmView]:
        views = self.alarms.views()
        return [view for view in views if not topics.isdisjoint(self.audience.of_alarm(view))]

    def raised_for(self, actor: Actor) -> list[AlarmView]:
        return self._alarms_for(subscriptions(actor, self.directory))

    def _work_for(self, topics: frozenset[str]) -> list[WorkView]:
        return [
            item
            for item in self.work.items()
            if not topics.isdisjoint(self.audience.of_work(item, item.agent))
        ]

    def _blending(self) -> list[BlendingView]:
        return self.work.blending()

    def _phone_of(self, pbx: str, login: str) -> str | None:
        agent = self.directory.agents.get(login)
        return self.off_hook.device(pbx, login) or agent.interfaces.get(pbx) if agent else None

    def _phone_opened(self, pbx: str, login: str) -> None:
        self._tasks.spawn(self.pages.opened(pbx, login))

    def _phone_left(self, pbx: str, login: str) -> None:
        self._tasks.spawn(self.pages.left(pbx, login))

    def agents_in(self, call: str) -> tuple[str, ...]:
        switch = self.switches.get(call.partition(":")[0])
        return switch.calls.agents_in(call) if switch else ()

    async def _take_up_sessions(self) -> None:
        await self.messages.load()
        await self.help_requests.load()
        await self.call_backs.load()
        await self.alarm_watch.refresh()
        await self.alarm_watch.restore(self.alarm_measures.was_away)
        # None is up yet: agents are unknown.
        self.bus.publish([switch.status() for switch in self.switches.values()])
        now = datetime.now(UTC)
        facts: list[Fact] = []
        for session in (await load_agent_sessions(self.database.pool)).values():
            facts += self.agents.restore(session, now)
        self.bus.publish(facts)
        await self.work.load()
        await self.dialing.load()

    # ------------------------------------------------------------------------------------------ the customers' side

    async def _customers(self) -> None:
        self.lookup = CallerLookup(self._dsn)
        self._cleanup.push_async_callback(self.lookup.close)
        await self.lookup.start()
        for pbx in self.settings.pbx.values():
            read_caller("0000", pbx.region)  # reads the country's number plan now, not at the first call
        self.whose_call = WhoseCall(
            directory=self.directory,
            agents_in=self.agents_in,
            shown_to=lambda login: (pop.call for pop in self.pops.for_agent(login)),
            had_by=lambda call: (*self.interactions.agents_of(call), *self.agents.wrapping_up(call)),
            teams_of=self.audience.teams_of_call,
        )
        self.interactions = Interactions(
            self.database.pool, publish=self.bus.publish, region_of=self.region_of
        )
        self.call_backs = CallBacks(
            lambda: self.database.pool,
            publish=self.bus.publish,
            is_away=lambda login: not self.agents.session(login, datetime.now(UTC)).logged_on,
            now=lambda: datetime.now(UTC),
        )
        self.escalations = escalations(lambda: self.database.pool)
        self.voicemail_notes = voicemail_notes(
            lambda actor, text, call: self.interactions.add_note(actor, text, call=call)
        )
        self.pops = ScreenPops(
            find=functools.partial(self.lookup.find, limit=POP_PATIENCE),
            ask=functools.partial(self.lookup.ask, limit=POP_PATIENCE),
            publish=self.bus.publish,
            region_of=self.region_of,
            clock=lambda: datetime.now(UTC),
            spawn=self._tasks.spawn,
            url=PopUrl(self.settings.pop_url),
            choose=self.interactions.choose,
            oversees=self.whose_call.oversees,
            outside_number=self._outside_number,
        )

    def _pops_of(self, login: str) -> Iterable[Any]:
        return self.pops.for_agent(login)

    async def customer_of(self, _actor: Actor, call: str) -> CalledCustomer:
        pbx = call.partition(":")[0]
        region = self.region_of(pbx) if pbx in self.settings.pbx else ""
        found = await customer_of(self.database.pool, call, region, self.pops.of_call(call))
        contact = await self.dialing.contact_of(call)
        if contact is None:
            return found
        return replace(  # a campaign knows whom it has dialed, and where they live
            found,
            number=contact.e164,
            name=found.name or contact.name,
            account=found.account or contact.account,
            zone=found.zone or contact.zone,
        )

    def calls_back(self, call: str, call_back: int, by: str) -> None:
        self.set_data(call, {"call_back": str(call_back)}, by)
        self._tasks.spawn(self.dialing.calls_back(self.call_backs.live(call_back).call, call))

    async def dial_customer(self, pbx: str, agent: str, number: str, shown: str = "") -> CallAnswer:
        return await self.control.make(pbx, agent, lambda targets: targets.number(number), shown)

    def region_of(self, pbx: str) -> str:
        return self.settings.pbx[pbx].region

    def _outside_number(self, pbx: str, dialled: str) -> str:
        return dialled.removeprefix(self.settings.pbx[pbx].outside_prefix)

    def disposed(self, actor: Actor, call: str, disposition: str) -> None:
        """Somebody has said how a call ended: they owe it no more, and neither do the agents they may speak for."""
        now = datetime.now(UTC)
        speaks_for = [login for login in self.agents.owing(call) if self.whose_call.speaks_for(actor, login)]
        for login in {actor.login, *speaks_for}:
            self.bus.publish(self.agents.disposed(login, call, by=actor.login, at=now))
            if login in self.directory.agents:
                self.attendance.note(login)

    # ------------------------------------------------------------------------------------------ routing

    async def _routing(self) -> None:
        send = {name: link.send for name, link in self.links.items()}
        self.book = RuleBook(lambda: self.database.pool, changed=lambda rules: self.invitation.changed())
        self.queue_waits, self.on_the_way = QueueWaits(), OnTheWay()
        self.floors = Floors(self.switches, self.agents, waits=self.queue_waits, on_the_way=self.on_the_way)
        self.ageing = Ageing(send=send)
        self.invitation = Invitation(send=send, wanted=lambda: bool(self.book.active.entries))
        ask = caller_facts(self.lookup, self.region_of, limit=self.settings.routing.lookup_seconds)
        self.questions = Questions(
            rules=lambda: self.book.active,
            caller_facts=ask,
            floor=self.floors,
            send=send,
            spawn=self._tasks.spawn,
            now=lambda: datetime.now(UTC),
            decided=self._decided,
            limit=self.settings.routing.limit_seconds,
            most=self.settings.routing.at_once,
        )
        self.work = WorkDesk(
            pool=lambda: self.database.pool,
            rules=lambda: self.book.active,
            floor=work_floor(self.switches, self.agents, self.directory, self.on_the_way.to),
            agents=self.agents,
            call=self._call_for_work,
            view=lambda call: self._switch_of(call).calls.view(call),
            set_data=self.set_data,
            publish=self.bus.publish,
            now=lambda: datetime.now(UTC),
        )
        self.promises = Promises(
            add=self.work.add,
            cancel=self.work.cancel,
            caller_facts=ask,
            known_queue=self.knows_queue,
            send=send,
            spawn=self._tasks.spawn,
            now=lambda: datetime.now(UTC),
        )
        await self.book.refresh()
        for name in self.switches:  # what is read at the first question only, is read now
            await ask("+12125550100", name)

    def _switch_of(self, call: str) -> Switch:
        return self.switches[call.partition(":")[0]]

    def knows_queue(self, queue: str) -> bool:
        switch = self.switches.get(queue.partition(":")[0])
        return switch is not None and switch.queues.knows(queue)

    async def _call_for_work(self, pbx: str, agent: str, number: str, shown: str = "") -> str:
        return (await self.dial_customer(pbx, agent, number, shown)).call

    def _decided(self, decided: Decided) -> None:
        self.on_the_way.decided(decided)
        self.ageing.decided(decided)

    # ------------------------------------------------------------------------------------------ dialer

    def _dialing(self) -> None:
        self.dialing = Dialing(
            Around(
                settings=self.settings.dialer,
                zone=self.settings.figures.time_zone,
                dsn=self._dsn,
                pool=lambda: self.database.pool,
                healthy=lambda: self.database.healthy,
                directory=self.directory,
                agents=self.agents,
                pbxs={name: self._port_of_dialer(name) for name in self.switches},
                knows_queue=self.knows_queue,
                connect=self.off_hook.connect,
                call=self._call_for_work,
                view=lambda call: self._switch_of(call).calls.view(call),
                publish=self.bus.publish,
                set_data=self.set_data,
                spawn=self._tasks.spawn,
                target_groups=CustomersForLists(lambda: self.database.pool),
            )
        )
        self.agents.follow_campaigns(self.dialing.campaigns.wrap_up_of, self.dialing.campaign_of)
        self._cleanup.push_async_callback(self.dialing.close)

    def _port_of_dialer(self, name: str) -> PbxPort:
        switch, link = self.switches[name], self.links[name]
        return PbxPort(
            name=name,
            originate=link.originate,
            send=link.send,
            up=lambda: switch.synced,
            usable=lambda: switch.timely,
            view=switch.calls.view,
        )

    # ------------------------------------------------------------------------------------------ figures

    async def _sums(self) -> None:
        await set_targets(self.database.pool, targets_of(self.settings.figures))
        await set_limits(self.database.pool, self.settings.reason_limits)
        await set_zone(self.database.pool, self.settings.figures.time_zone)
        self.roll_up = RollUp(self.database.pool)

    # ------------------------------------------------------------------------------------------ doors

    async def _doors(self) -> None:
        """Websocket and REST. The port is opened here: clients may come before the first PBX is up."""
        s = self.settings
        self.access = Access(self.database, settings=s)
        self._cleanup.push_async_callback(self.access.close)
        await self.access.start()
        self.hub = Hub(
            subscriptions=lambda actor: subscriptions(actor, self.directory),
            snapshot=self.snapshots,
            seq=lambda: self.bus.seq,
            epoch=self.journal.epoch,
            buffer=s.client_buffer,
            heartbeat=s.heartbeat,
            still_valid=self.access.still_valid,
            now=lambda: datetime.now(UTC),
            version=VERSION,
        )
        self.people_watch = PeopleWatch(
            pool=lambda: self.database.pool,
            directory=self.directory,
            audience=self.audience,
            agents=self.agents,
            switches=self.switches,
            membership=self.membership,
            hub=self.hub,
            publish=self.bus.publish,
        )
        self.websocket = Websocket(
            hub=self.hub,
            commands=self.commands,
            authenticate=self.access.authenticate,
            resume=self.journal.resume,
            seq=lambda: self.bus.seq,
            began_after=self._began_after,
            allowed_origins=self.origins,
            of_connection={
                "phone.state": self.browser_phones.state,
                "phone.done": self.browser_phones.done,
            },
            gone=self.browser_phones.gone,
        )
        app = rest.application(
            routes=routes(self),
            websocket=self.websocket,
            commands=self.commands,
            facts=fact_classes(),
            authenticate=self.access.authenticate,
            version=VERSION,
            allowed_origins=self.origins,
            proxies=Proxies(s.trusted_proxies),
            translate=TRANSLATE,
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        self._cleanup.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, s.listen, s.port, backlog=1024)
        await site.start()
        self._port = runner.addresses[0][1]

    async def phone_passwords(self, login: str) -> Sequence[PhonePassword]:
        key = await signing_key(self.database.pool, self.settings.secret_key.get_secret_value())
        return await phone_passwords(self.database.pool, key, login)

    async def phone_password_given(self, actor: Actor, pbxs: Sequence[str]) -> None:
        await audit.record(
            self.database.pool, actor, "phone.password_given", actor.login, {"pbxs": list(pbxs)}
        )

    # ------------------------------------------------------------------------------------------ after a resync

    def ask_what_lists_do_not_tell(self, fact: PbxResynced) -> None:
        if fact.reason in AFTER_A_BREAK:
            self._tasks.spawn(self.control.find_recordings(fact.pbx))
            self._tasks.spawn(self.control.ask_who_is_muted(fact.pbx))

    def settle_interactions(self, fact: PbxResynced) -> None:
        alive = [view.id for view in self.switches[fact.pbx].calls.views()]
        self.interactions.settle(fact.pbx, alive)

    # ------------------------------------------------------------------------------------------ running

    def _links(self) -> None:
        self._tasks.spawn(self._tick())
        self._tasks.spawn(self.people_watch.run())
        self._tasks.spawn(
            keep_house(
                self.database,
                self.journal,
                self.access.tokens,
                keep_journal_days=self.settings.keep_journal_days,
                keep_audit_days=self.settings.keep_audit_days,
                also=(
                    work_store.expire,
                    list_imports.expire,
                ),
            )
        )
        self._tasks.spawn(self.membership.run())
        self._tasks.spawn(self.attendance.run())
        self._tasks.spawn(self.help_requests.run())
        self._tasks.spawn(self.alarm_watch.run())
        self._tasks.spawn(self.interactions.run())
        self._tasks.spawn(self.escalations.run())
        self._tasks.spawn(self.voicemail_notes.run())
        self._tasks.spawn(self.call_backs.run())
        self._tasks.spawn(self.work.run())
        self._tasks.spawn(self.trail.run())
        self._tasks.spawn(self.book.run())
        self._tasks.spawn(self.invitation.run())
        self._tasks.spawn(self.ageing.run())
        self._tasks.spawn(self.roll_up.run())
        self._tasks.spawn(keep_settling(self.database.pool, days=self.settings.figures.first_call_days))
        for work in self.dialing.tasks():
            self._tasks.spawn(work)
        for name, link in self.links.items():
            self._pbx_tasks += [self._tasks.spawn(link.run()), self._tasks.spawn(self.switches[name].run())]
            if self.settings.pbx[name].canary_every > 0:
                self._pbx_tasks.append(self._tasks.spawn(self.canaries[name].run()))

    async def _tick(self) -> None:
        swept = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            try:
                for switch in self.switches.values():
                    switch.tick()
                self.bus.publish(self.agents.tick(datetime.now(UTC)))
                if loop.time() - swept >= 1.0:
                    swept = loop.time()
                    self.hub.sweep()
            except Exception:
                log.exception("a tick failed")

    async def stop(self) -> None:
        """Stops in order: no more from the PBXs, clients told to come back, everything written down. May be called twice."""
        if self._pbx_tasks:
            await self.dialing.stop()
            await self.invitation.withdraw()
        await self._tasks.end(self._pbx_tasks)
        if self._pbx_tasks:
            await asyncio.gather(
                self.interactions.flush(),
                self.escalations.flush(),
                self.voicemail_notes.flush(),
                self.work.flush(),
                self.dialing.flush(),
                self.attendance.flush(),
                self.help_requests.flush(),
                self.alarm_watch.flush(),
                self.trail.flush(),
            )
        await self._tasks.end()
        await self._cleanup.aclose()


async def serve(settings: Settings, *, ready: Callable[[Server], None] = lambda server: None) -> str:
    """Runs the server until SIGINT or SIGTERM, or until it must stop by itself; returns why in the latter case."""
    server = Server(settings)
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, server.stopped.set)
    await server.start()
    # What was loaded stays; facts and records die young: looking for cycles among them at every 700th is lost time,
    # and looking at 50,000 together a pause of 40 ms and more.
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    try:
        ready(server)
        await server.stopped.wait()
    finally:
        await server.stop()
    return server.why_stopped
