"""Everything wired on one page: what is made, who reacts to what, what is served. Only the `cti` command imports this.

Order of a start: database and people, journal and bus, models, customers' side, what goes out, the links last, so that
whatever a PBX tells first is heard by all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import web

import crm.rest
import routing.rest
from crm.ani import CallerLookup, LookupUnavailable
from crm.commands import add_crm_commands
from crm.interactions import Interactions
from crm.numbers import Kind, read_caller
from crm.pop_url import PopUrl
from crm.resolution import settle
from crm.screen_pop import ScreenPops
from cti import audit, messages, metrics, users
from cti.access import Access
from cti.agent_commands import add_agent_commands
from cti.agent_sessions import load_agent_sessions, save_agent_sessions
from cti.agents import Agents, Session
from cti.alarm_measures import AlarmMeasures
from cti.alarm_watch import AlarmWatch
from cti.alarms import Alarms
from cti.ami import AmiLink, LinkStatus
from cti.ami_canary import Canary
from cti.ami_events import PARSERS, RouteAsked
from cti.asyncapi import fact_classes
from cti.attendance import Attendance
from cti.audience import Audience, subscriptions
from cti.audit_trail import AuditTrail
from cti.browser_phones import BrowserPhones
from cti.bus import Bus
from cti.call_commands import add_call_commands
from cti.calls import Calls
from cti.commands import Commands, add_basics
from cti.control.control import Control
from cti.control.ports import port_of
from cti.control.supervising import OF_SPIES, Supervising
from cti.control.waits import Waits
from cti.database import Database, migrate
from cti.facts import (
    AgentStateChanged,
    CallCleared,
    CallFact,
    Fact,
    JournalGap,
    PbxResynced,
    PbxStatusChanged,
    QueueAdded,
    QueueCallerJoined,
    QueueCallerLeft,
    QueueMemberJoined,
    QueueMemberLeft,
    QueueMemberPaused,
    QueueMemberStatusChanged,
)
from cti.figures.commands import add_figures_commands
from cti.figures.desk import Desk, QueuesAsked
from cti.figures.roll_up import RollUp, set_targets, set_zone, targets_of
from cti.help_requests import HelpRequests
from cti.hub import Hub
from cti.journal import Journal
from cti.membership import OF_MEMBERS, Membership
from cti.message_commands import add_message_commands
from cti.messages import Messages
from cti.people import Actor, Directory, Role
from cti.phone_passwords import PhonePassword, phone_passwords
from cti.protocol import StateNow
from cti.queues import Queues
from cti.reasons import Reason
from cti.rest import admin, health, phone, sessions, state
from cti.rest import alarms as rest_alarms
from cti.rest import application as rest
from cti.rest import commands as rest_commands
from cti.rest import figures as rest_figures
from cti.settings import PbxSettings, Settings, WrongSettings, wrap_up_rule
from cti.snapshot import Snapshots
from cti.supervision import AlarmView
from cti.supervisor_commands import add_alarm_commands, add_supervisor_commands
from cti.switch import LinkState, Switch
from cti.tokens import signing_key
from cti.websocket import Websocket
from routing.book import RuleBook
from routing.decide import Customer
from routing.floor import Floors
from routing.invitation import Invitation
from routing.questions import CallerFacts, Decided, Questions
from routing.waiting import Ageing, OnTheWay
from routing.waiting import Waits as QueueWaits

log = structlog.get_logger(__name__)

VERSION = "0.1.0"
POP_PATIENCE = 10.0
"""Seconds that a look-up for a pop may take; the pop is shown without it meanwhile."""

HOUSE_EVERY = 6 * 3600.0
"""Seconds between two clean-ups of old data."""

SETTLE_EVERY = 3600.0
"""Seconds between two looks for days whose first-call resolution is known by now."""

PEOPLE_EVERY = 3.0
"""Seconds between two looks at the tables of users, teams and phones."""

TICK = 0.25
"""Seconds between two looks at what only time can tell: wrap-ups that end, callers whom a queue gave up."""


class Server:
    """The running server. `start` returns when it serves; links to PBXs come up on their own after that."""

    def __init__(self, settings: Settings) -> None:
        if not settings.pbx:
            raise WrongSettings(
                "no PBX is configured: set CTI_PBX__MAIN__HOST, CTI_PBX__MAIN__USERNAME, CTI_PBX__MAIN__SECRET"
            )
        if not settings.database_url.get_secret_value():
            raise WrongSettings(
                "no database is configured: set CTI_DATABASE_URL=postgresql://user:password@host/name"
            )
        self.settings = settings
        self.stopped = asyncio.Event()
        self.why_stopped = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._pbx_tasks: list[asyncio.Task[None]] = []
        self._cleanup = contextlib.AsyncExitStack()
        self._port = settings.port

    @property
    def url(self) -> str:
        """Where it is served."""
        return self.settings.public_url or f"http://{self.settings.listen}:{self._port}"

    async def start(self, *, wait_for_database: float = 60.0) -> None:
        """Starts everything; raises DatabaseUnavailable, MigrationFailed, JournalInUse or OSError (port taken), and then
        nothing is left running."""
        try:
            await self._people(wait_for_database)
            await self._journal_and_bus()
            self._models()
            await self._customers()
            await self._routing()
            await self._sums()
            self._commands()
            await self._doors()
            self._reactions()
            await self._take_up_sessions()
            self._links()
        except BaseException:
            await self.stop()
            raise
        log.info("serving", url=self.url, pbxs=sorted(self.switches), version=VERSION)

    # ------------------------------------------------------------------------------------------ people

    async def _people(self, wait: float) -> None:
        dsn = self.settings.database_url.get_secret_value()
        self.database = Database(dsn, size=self.settings.database_pool)
        self._cleanup.push_async_callback(self.database.close)
        await self.database.open(wait=wait)
        await migrate(dsn)
        self.directory = Directory()
        self.directory.load(*await users.load_directory(self.database.pool))

    async def refresh_people(self) -> None:
        """Reads agents, teams and phones again; when they have changed, brings everything in line that depends on them."""
        agents, teams = await users.load_directory(self.database.pool)
        if not self.directory.differs(agents, teams):
            return
        now = datetime.now(UTC)
        phones = {agent.login: agent.interfaces for agent in agents}
        gone = [
            login for login, agent in self.directory.agents.items() if phones.get(login) != agent.interfaces
        ]
        for login in gone:
            why = "the user's phone was changed or taken away"
            self.bus.publish(self.agents.dismiss(login, at=now, why=why))
        self.directory.load(agents, teams)
        self.audience.people_changed()
        self.bus.publish(self.agents.people_changed(now))
        for switch in self.switches.values():
            self.bus.publish(switch.queues.reassign(now.timestamp()))
        self.membership.people_changed()
        self.hub.refresh()

    async def _people_changed(self, _login: str | None) -> None:
        await self.refresh_people()

    async def _watch_people(self) -> None:
        """Notices within seconds what was changed by REST, by the `cti` command or by hand."""
        while True:
            await asyncio.sleep(PEOPLE_EVERY)
            try:
                await self.refresh_people()
            except Exception as error:
                log.debug("people could not be read", why=type(error).__name__)

    # ------------------------------------------------------------------------------------------ journal and bus

    async def _journal_and_bus(self) -> None:
        self.journal = Journal(
            self.settings.database_url.get_secret_value(),
            buffer_max=self.settings.journal_buffer,
            on_gap=lambda first, last, lost: self.bus.publish(
                [JournalGap(at=datetime.now(UTC), first=first, last=last, lost=lost)]
            ),
            on_fenced=self._give_up,
        )
        last = self._began_after = await self.journal.start()
        self._cleanup.push_async_callback(self.journal.close)
        self.audience = Audience(
            self.directory, agents_in=self._agents_in, announce=self.settings.supervision.announce
        )
        self.bus = Bus(audience=self.audience, last_seq=last)

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
            self.switches[name], self.links[name] = self._switch(name, pbx)
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
        )
        self.control = Control(
            ports,
            waits=self.waits,
            phone_of=self._phone_of,
            publish=self.bus.publish,
            browser=self.browser_phones,
        )
        self.supervising = Supervising(
            ports,
            waits=self.waits,
            phone_of=self._phone_of,
            publish=self.bus.publish,
            spawn=self._spawn,
        )
        self.alarm_measures = AlarmMeasures(self.switches, self.agents)
        self.alarms = Alarms(new_id=lambda: f"a{uuid4().hex[:16]}")
        self.alarm_watch = AlarmWatch(
            self.alarms,
            floor=self.alarm_measures,
            levels=self._service_levels,
            db=lambda: self.database.pool,
            publish=self.bus.publish,
            now=lambda: datetime.now(UTC),
        )
        self.messages = Messages(lambda: self.database.pool)
        self.help_requests = HelpRequests(lambda: self.database.pool)
        self.attendance = Attendance(agents=self.agents, save=self._save_sessions)
        self.snapshots = Snapshots(
            directory=self.directory,
            agents=self.agents,
            calls=lambda: (view for switch in self.switches.values() for view in switch.calls.views()),
            queues=lambda: (view for switch in self.switches.values() for view in switch.queues.views()),
            pbxs=lambda: (switch.view for switch in self.switches.values()),
            pops=self._pops_of,
            teams_of_call=self.audience.teams_of_call,
            supervisions=self.supervising.views,
            messages=self.messages.unread,
            help_requests=self.help_requests.views,
            alarms=self._alarms_for,
            announce=self.settings.supervision.announce,
        )

    def _switch(self, name: str, pbx: PbxSettings) -> tuple[Switch, AmiLink]:
        def agent_at(device: str) -> str | None:
            return self.directory.agent_at(name, device)

        calls = Calls(
            name,
            agent_at=agent_at,
            is_trunk=frozenset(pbx.trunks).__contains__,
            inbound_contexts=pbx.inbound_contexts,
        )
        queues = Queues(name, agent_at=agent_at)
        switch = Switch(
            name, calls=calls, queues=queues, publish=self.bus.publish, resync_every=pbx.resync_every
        )

        def on_status(status: LinkStatus) -> None:
            switch.on_link(LinkState(status.phase.value, status.code, status.why, status.since))

        async def send(action: str, headers: Mapping[str, str]) -> Mapping[str, str]:
            return await link.send(action, headers)

        canary = self.canaries[name] = Canary(
            name,
            send=send,
            is_up=lambda: switch.synced,
            on_change=switch.events_late,
            every=pbx.canary_every,
            late_after=pbx.events_late_after,
        )

        def on_records(records: list[Any]) -> None:
            canary.event(records[-1].at)
            for record in records:  # first of all: a caller waits for the answer, within milliseconds
                if type(record) is RouteAsked:
                    self.questions.ask(name, record)
            switch.on_records(records)
            for record in records:
                if type(record) in OF_SPIES:
                    self.supervising.hear_record(record)

        link = AmiLink(
            pbx=name,
            host=pbx.host,
            port=pbx.port,
            username=pbx.username,
            secret=pbx.secret.get_secret_value(),
            tls=pbx.tls,
            parsers={**PARSERS, b"UserEvent": canary.parser(PARSERS[b"UserEvent"])},
            on_records=on_records,
            on_status=on_status,
        )
        switch.link = link
        return switch, link

    def _set_data(self, call: str, values: dict[str, str], by: str) -> None:
        switch = self.switches[call.partition(":")[0]]
        self.bus.publish(switch.calls.set_data(call, values, by=by, at=datetime.now(UTC).timestamp()))

    # ------------------------------------------------------------------------------------------ alarms

    def _alarms_for(self, topics: frozenset[str]) -> list[AlarmView]:
        views = self.alarms.views()
        return [view for view in views if not topics.isdisjoint(self.audience.of_alarm(view))]

    def _raised_for(self, actor: Actor) -> list[AlarmView]:
        return self._alarms_for(subscriptions(actor, self.directory))

    async def _service_levels(self) -> dict[str, float]:
        system = Actor(login="system", name="CTI server", role=Role.ADMIN, via="system")
        report = await self.desk.queues(system, QueuesAsked())
        return {
            item.queue: item.service_level * 100 for item in report.items if item.service_level is not None
        }

    def _phone_of(self, pbx: str, login: str) -> str | None:
        agent = self.directory.agents.get(login)
        return agent.interfaces.get(pbx) if agent else None

    def healthy(self, pbx: str) -> bool:
        """Whether the PBX's state is known and its events come in time: to be asked before deciding on live state."""
        return pbx in self.switches and self.switches[pbx].timely

    def _phone_opened(self, pbx: str, login: str) -> None:
        self._spawn(self.control.take_up(pbx, login))

    def _agents_in(self, call: str) -> tuple[str, ...]:
        switch = self.switches.get(call.partition(":")[0])
        return switch.calls.agents_in(call) if switch else ()

    async def _save_sessions(self, sessions: Sequence[Session]) -> None:
        await save_agent_sessions(self.database.pool, sessions)

    async def _take_up_sessions(self) -> None:
        await self.messages.load()
        await self.help_requests.load()
        await self.alarm_watch.refresh()
        self.bus.publish(
            [switch.status() for switch in self.switches.values()]
        )  # none is up yet: agents are unknown
        now = datetime.now(UTC)
        facts: list[Fact] = []
        for session in (await load_agent_sessions(self.database.pool)).values():
            facts += self.agents.restore(session, now)
        self.bus.publish(facts)

    # ------------------------------------------------------------------------------------------ the customers' side

    async def _customers(self) -> None:
        dsn = self.settings.database_url.get_secret_value()
        self.lookup = CallerLookup(dsn)
        self._cleanup.push_async_callback(self.lookup.close)
        await self.lookup.start()
        for pbx in self.settings.pbx.values():
            read_caller("0000", pbx.region)  # reads the country's number plan now, not at the first call
        self.interactions = Interactions(
            self.database.pool, publish=self.bus.publish, region_of=self._region_of
        )
        self.pops = ScreenPops(
            find=functools.partial(self.lookup.find, limit=POP_PATIENCE),
            ask=functools.partial(self.lookup.ask, limit=POP_PATIENCE),
            publish=self.bus.publish,
            region_of=self._region_of,
            clock=lambda: datetime.now(UTC),
            spawn=self._spawn,
            url=PopUrl(self.settings.pop_url),
            choose=self.interactions.choose,
            oversees=lambda actor, agent: self.directory.team_of(agent) in actor.teams,
            outside_number=self._outside_number,
        )

    def _pops_of(self, login: str) -> Iterable[Any]:
        return self.pops.for_agent(login)

    def _region_of(self, pbx: str) -> str:
        return self.settings.pbx[pbx].region

    def _outside_number(self, pbx: str, dialled: str) -> str:
        return dialled.removeprefix(self.settings.pbx[pbx].outside_prefix)

    def _disposed(self, actor: Actor, call: str) -> None:
        """Somebody has said how a call ended: they owe it no more, and neither do the agents they may speak for."""
        now = datetime.now(UTC)
        speaks_for = [
            login
            for login in self.agents.owing(call)
            if actor.is_admin
            or (actor.role is Role.SUPERVISOR and self.directory.team_of(login) in actor.teams)
        ]
        for login in {actor.login, *speaks_for}:
            self.bus.publish(self.agents.disposed(login, call, by=actor.login, at=now))
            if login in self.directory.agents:
                self.attendance.note(login)

    def _works_on(self, actor: Actor, call: str) -> bool:
        """Whether a call is, or has just been, somebody's or their team's."""
        if actor.is_admin or actor.login in self._agents_in(call):
            return True
        if any(pop.call == call for pop in self.pops.for_agent(actor.login)):
            return True
        had = {*self.interactions.agents_of(call), *self.agents.wrapping_up(call)}
        if actor.login in had:
            return True
        if actor.role is Role.SUPERVISOR and any(
            self.directory.team_of(agent) in actor.teams for agent in had
        ):
            return True
        return actor.role is Role.SUPERVISOR and bool(actor.teams & self.audience.teams_of_call(call))

    # ------------------------------------------------------------------------------------------ routing

    async def _routing(self) -> None:
        send = {name: link.send for name, link in self.links.items()}
        self.book = RuleBook(lambda: self.database.pool, changed=lambda rules: self.invitation.changed())
        self.queue_waits, self.on_the_way = QueueWaits(), OnTheWay()
        self.floors = Floors(self.switches, self.agents, waits=self.queue_waits, on_the_way=self.on_the_way)
        self.ageing = Ageing(send=send)
        self.invitation = Invitation(send=send, wanted=lambda: bool(self.book.active.entries))
        self.questions = Questions(
            rules=lambda: self.book.active,
            caller_facts=self._caller_facts,
            floor=self.floors,
            send=send,
            spawn=self._spawn,
            now=lambda: datetime.now(UTC),
            decided=self._decided,
            limit=self.settings.routing.limit_seconds,
            most=self.settings.routing.at_once,
        )
        await self.book.refresh()

    def _decided(self, decided: Decided) -> None:
        self.on_the_way.decided(decided)
        self.ageing.decided(decided)

    async def _caller_facts(self, number: str, pbx: str, *, within: float | None = None) -> CallerFacts:
        """What routing may know of a caller, found within its time or not at all."""
        region = self._region_of(pbx)
        caller = read_caller(number, region)
        about = CallerFacts(
            e164=caller.e164 or "",
            country=caller.country,
            withheld=caller.kind is Kind.WITHHELD,
        )
        try:
            found = await self.lookup.find(
                number, region, limit=within or self.settings.routing.lookup_seconds
            )
        except LookupUnavailable as error:
            return replace(about, why=str(error))
        settled = found.settled
        if settled is None:
            why = "the number belongs to several customers" if found.candidates else "nobody has this number"
            return replace(about, why=why)
        account, today = settled.account, datetime.now(UTC).date()
        return replace(
            about,
            customer=Customer(
                account=account.id,
                classification=account.classification,
                language=account.language,
                country=account.country,
                status=account.status,
                open_items=frozenset(item.kind for item in settled.open_items),
                overdue_invoice=any(
                    item.kind == "invoice" and item.due is not None and item.due < today
                    for item in settled.open_items
                ),
                own_agent=account.own_agent or None,
                last_agents=tuple(
                    (login, contact.started)
                    for contact in settled.interactions
                    if contact.outcome == "answered"
                    for login in contact.agents[-1:]
                ),
            ),
        )

    # ------------------------------------------------------------------------------------------ figures

    async def _sums(self) -> None:
        await set_targets(self.database.pool, targets_of(self.settings.figures))
        await set_zone(self.database.pool, self.settings.figures.time_zone)
        self.roll_up = RollUp(self.database.pool)
        self.desk = Desk(
            pool=lambda: self.database.pool,
            directory=self.directory,
            zone=self.settings.figures.time_zone,
            queues=lambda: (view for switch in self.switches.values() for view in switch.queues.views()),
        )

    # ------------------------------------------------------------------------------------------ commands and doors

    def _commands(self) -> None:
        self.trail = AuditTrail(self.database.pool)
        self.commands = Commands(audit=self.trail.note)
        self._cleanup.push_async_callback(self.commands.close)
        add_basics(self.commands, seq=lambda: self.bus.seq, snapshot=self.snapshots, shape=StateNow)
        add_agent_commands(
            self.commands, agents=self.agents, directory=self.directory, publish=self.bus.publish
        )
        add_call_commands(
            self.commands,
            control=self.control,
            directory=self.directory,
            agents_in=self._agents_in,
            works_on=self._works_on,
            set_data=self._set_data,
        )
        add_supervisor_commands(self.commands, supervising=self.supervising, directory=self.directory)
        add_alarm_commands(
            self.commands,
            alarms=self.alarms,
            sees=lambda actor, view: view in self._raised_for(actor),
            publish=self.bus.publish,
        )
        add_message_commands(
            self.commands,
            messages=self.messages,
            help_requests=self.help_requests,
            directory=self.directory,
            agents_in=self._agents_in,
            logged_on=lambda login: self.agents.session(login, datetime.now(UTC)).logged_on,
            publish=self.bus.publish,
        )
        add_crm_commands(
            self.commands,
            pops=self.pops,
            interactions=self.interactions,
            works_on=self._works_on,
            publish=self.bus.publish,
            choice=self.agents.dispositions,
            disposed=self._disposed,
        )
        add_figures_commands(self.commands, self.desk)

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
        origins = (s.public_url.rstrip("/"),) if s.public_url else ()
        self.websocket = Websocket(
            hub=self.hub,
            commands=self.commands,
            authenticate=self.access.authenticate,
            resume=self.journal.resume,
            seq=lambda: self.bus.seq,
            began_after=self._began_after,
            allowed_origins=origins,
            of_connection={
                "phone.state": self.browser_phones.state,
                "phone.done": self.browser_phones.done,
            },
        )
        app = rest.application(
            routes=[
                *sessions.routes(
                    log_in=self.access.log_in,
                    refresh=self.access.refresh,
                    log_out=self.access.log_out,
                    secure=s.public_url.startswith("https://"),
                    allowed_origins=origins,
                ),
                *state.routes(
                    snapshot=self.snapshots,
                    seq=lambda: self.bus.seq,
                    subscriptions=lambda actor: subscriptions(actor, self.directory),
                    facts_of=self.journal.facts_of,
                    since=lambda after, limit, types: self.journal.since(after, limit=limit, types=types),
                ),
                *rest_commands.routes(self.commands),
                *rest_figures.routes(self.desk),
                *rest_alarms.routes(
                    pool=lambda: self.database.pool,
                    directory=self.directory,
                    pbxs=self.switches,
                    raised=self._raised_for,
                    changed=self.alarm_watch.refresh,
                ),
                *crm.rest.routes(
                    pool=lambda: self.database.pool,
                    find=lambda number, region: self.lookup.find(number, region, limit=2.0),
                    add_note=lambda actor, text, about: self.interactions.add_note(
                        actor, text, interaction=about
                    ),
                    edit_note=lambda actor, note, text, version: self.interactions.edit_note(
                        actor, note, text, version=version
                    ),
                    audit=self.trail.note,
                ),
                *routing.rest.routes(
                    pool=lambda: self.database.pool,
                    rules=lambda: self.book.active,
                    caller_facts=functools.partial(
                        self._caller_facts, within=2.0
                    ),  # a person waits, no caller
                    floor=self.floors,
                    pbxs=lambda: sorted(self.switches),
                    changed=self.book.refresh,
                ),
                *phone.routes(
                    pbxs=s.pbx,
                    passwords=self._phone_passwords,
                    given=self._phone_password_given,
                ),
                *admin.routes(
                    pool=lambda: self.database.pool,
                    passwords=self.access.passwords,
                    directory=self.directory,
                    changed=self._people_changed,
                    end_sessions=self.access.tokens.revoke_all,
                ),
                *health.routes(checks=self._checks(), registry=metrics.registry(self._figures())),
            ],
            websocket=self.websocket,
            commands=self.commands,
            facts=fact_classes(),
            authenticate=self.access.authenticate,
            version=VERSION,
            allowed_origins=origins,
            translate={
                **crm.rest.TRANSLATE,
                **routing.rest.TRANSLATE,
                **admin.TRANSLATE,
                **rest_figures.TRANSLATE,
                **phone.TRANSLATE,
            },
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        self._cleanup.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, s.listen, s.port, backlog=1024)
        await site.start()
        self._port = runner.addresses[0][1]

    async def _phone_passwords(self, login: str) -> Sequence[PhonePassword]:
        key = await signing_key(self.database.pool, self.settings.secret_key.get_secret_value())
        return await phone_passwords(self.database.pool, key, login)

    async def _phone_password_given(self, actor: Actor, pbxs: Sequence[str]) -> None:
        await audit.record(
            self.database.pool, actor, "phone.password_given", actor.login, {"pbxs": list(pbxs)}
        )

    def _checks(self) -> Mapping[str, Callable[[], str | None]]:
        def link(switch: Switch) -> Callable[[], str | None]:
            return lambda: None if switch.timely else switch.view.why or "its state is being asked for"

        return {
            **{f"pbx {name}": link(switch) for name, switch in self.switches.items()},
            "database": lambda: None if self.database.healthy else "the database does not answer",
            "journal": lambda: (
                None if self.journal.lag < 10 else f"the journal is {self.journal.lag:.0f} s behind"
            ),
        }

    def _figures(self) -> Iterable[metrics.Gauge]:
        switches, gauge = self.switches, metrics.Gauge
        return (
            gauge("cti_pbx_up", "1 while the PBX is connected and its state known",
                  lambda: {n: float(s.synced) for n, s in switches.items()}, "pbx"),
            gauge("cti_pbx_events_late", "1 while the PBX's events come too late",
                  lambda: {n: float(c.late) for n, c in self.canaries.items()}, "pbx"),
            gauge("cti_pbx_event_delay_seconds", "how long the last canary was on its way",
                  lambda: {n: c.delay for n, c in self.canaries.items()}, "pbx"),
            gauge("cti_calls", "calls now", lambda: {n: float(len(s.calls)) for n, s in switches.items()}, "pbx"),
            gauge("cti_ami_events_total", "AMI events folded",
                  lambda: {n: float(s.events) for n, s in switches.items()}, "pbx", counter=True),
            gauge("cti_ami_messages_total", "AMI messages received",
                  lambda: {n: float(link.stats().messages) for n, link in self.links.items()}, "pbx", counter=True),
            gauge("cti_ami_reconnects_total", "AMI connections made again",
                  lambda: {n: float(link.stats().reconnects) for n, link in self.links.items()}, "pbx", counter=True),
            gauge("cti_drift_total", "things found different when a PBX was asked again",
                  lambda: {n: float(sum(s.drift.values())) for n, s in switches.items()}, "pbx", counter=True),
            gauge("cti_drift_kinds_total", "the same by what it was: calls, connections, queues, members",
                  self._drift_by_kind, "kind", counter=True),
            gauge("cti_facts_total", "facts published", lambda: float(self.bus.seq), counter=True),
            gauge("cti_listener_failures_total", "reactions that failed", lambda: float(self.bus.failures), counter=True),
            gauge("cti_browser_phones", "phones in the browser that are open", lambda: float(len(self.browser_phones))),
            gauge("cti_clients", "websocket clients", lambda: float(len(self.hub))),
            gauge("cti_journal_buffered", "facts not yet written", lambda: float(self.journal.buffered)),
            gauge("cti_journal_lag_seconds", "since when facts wait", lambda: self.journal.lag),
            gauge("cti_journal_dropped_total", "facts given up", lambda: float(self.journal.dropped), counter=True),
            gauge("cti_interactions_unwritten", "interaction records not yet written",
                  lambda: float(self.interactions.unwritten)),
            gauge("cti_routing_questions_total", "calls that asked where to go, by what became of it",
                  lambda: {name: float(n) for name, n in self.questions.outcomes.items()}, "outcome", counter=True),
            gauge("cti_routing_version", "the active version of the routing rules",
                  lambda: float(self.book.active.version)),
            gauge("cti_figures_facts_total", "facts summed up in figures", lambda: float(self.roll_up.facts), counter=True),
            gauge("cti_figures_failing", "1 while figures cannot be summed up",
                  lambda: float(self.roll_up.failing is not None)),
            gauge("cti_database_healthy", "1 while the database answers", lambda: float(self.database.healthy)),
            gauge("cti_membership_failures_total", "queue member changes that Asterisk refused",
                  lambda: float(self.membership.failures), counter=True),
            gauge("cti_membership_contested_total", "agents whose queue members were left to another program",
                  lambda: float(self.membership.contested), counter=True),
        )  # fmt: skip

    def _drift_by_kind(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for switch in self.switches.values():
            for kind, count in switch.drift.items():
                sums[kind] = sums.get(kind, 0.0) + count
        return sums

    # ------------------------------------------------------------------------------------------ who reacts to what

    def _reactions(self) -> None:
        listen = self.bus.listen
        self.bus.carry(self.journal.carry)
        self.bus.carry(self.hub.carry)
        for kind in fact_classes(CallFact):
            listen(kind, self._queues_hear)
            listen(kind, self.agents.hear)
            listen(kind, self.waits.hear)
            listen(kind, self.supervising.hear_call)
        listen(PbxStatusChanged, self.waits.hear)
        listen(PbxStatusChanged, self.supervising.hear_pbx)
        listen(PbxStatusChanged, self.alarm_measures.hear)
        listen(CallCleared, self.control.forget)
        for kind in (
            PbxStatusChanged,
            PbxResynced,
            QueueMemberJoined,
            QueueMemberStatusChanged,
            QueueMemberPaused,
            QueueMemberLeft,
        ):
            listen(kind, self.agents.hear)
        for kind in (AgentStateChanged, PbxResynced, QueueAdded, *OF_MEMBERS):
            listen(kind, self.membership.hear)
        listen(AgentStateChanged, self.attendance.hear)
        listen(AgentStateChanged, self.help_requests.hear)
        for kind, reaction in self.pops.reactions().items():
            listen(kind, reaction)
        for kind, note in self.interactions.reactions().items():
            listen(kind, note)
        listen(PbxResynced, self._settle_interactions)
        for kind in (PbxStatusChanged, PbxResynced):
            listen(kind, self.invitation.hear)
        listen(QueueCallerJoined, self.ageing.joined)
        listen(QueueCallerLeft, self.ageing.left)
        listen(QueueCallerLeft, self.queue_waits.hear)
        for kind in (QueueCallerJoined, CallCleared):
            listen(kind, self.on_the_way.hear)

    def _queues_hear(self, fact: Fact) -> list[Fact]:
        switch = self.switches.get(fact.call.partition(":")[0]) if isinstance(fact, CallFact) else None
        return switch.queues.hear(fact) if switch else []

    def _settle_interactions(self, fact: PbxResynced) -> None:
        alive = [view.id for view in self.switches[fact.pbx].calls.views()]
        self.interactions.settle(fact.pbx, alive)

    # ------------------------------------------------------------------------------------------ running

    def _links(self) -> None:
        self._spawn(self._tick())
        self._spawn(self._watch_people())
        self._spawn(self._keep_house())
        self._spawn(self.membership.run())
        self._spawn(self.attendance.run())
        self._spawn(self.help_requests.run())
        self._spawn(self.alarm_watch.run())
        self._spawn(self.interactions.run())
        self._spawn(self.trail.run())
        self._spawn(self.book.run())
        self._spawn(self.invitation.run())
        self._spawn(self.ageing.run())
        self._spawn(self.roll_up.run())
        self._spawn(self._settle_contacts())
        for name, link in self.links.items():
            self._pbx_tasks += [self._spawn(link.run()), self._spawn(self.switches[name].run())]
            if self.settings.pbx[name].canary_every > 0:
                self._pbx_tasks.append(self._spawn(self.canaries[name].run()))

    async def _keep_house(self) -> None:
        """Lets go of what has been kept long enough: old facts, ended sessions, old audit entries."""
        while True:
            await asyncio.sleep(HOUSE_EVERY)
            try:
                await self.journal.expire(self.settings.keep_journal_days)
                left = datetime.now(UTC) - timedelta(days=self.settings.keep_journal_days)
                await messages.expire(self.database.pool, left)
                await self.access.tokens.forget_old()
                old = datetime.now(UTC) - timedelta(days=self.settings.keep_audit_days)
                await audit.expire(self.database.pool, old)
            except Exception as error:
                log.warning("old data could not be let go of", why=f"{type(error).__name__}: {error}"[:200])

    async def _settle_contacts(self) -> None:
        """Finds out, when the days for it are over, which contacts were the last that a matter needed."""
        while True:
            try:
                more = await settle(
                    self.database.pool, days=self.settings.figures.first_call_days, now=datetime.now(UTC)
                )
            except Exception as error:
                more = []
                log.warning("contacts could not be settled", why=f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(1.0 if more else SETTLE_EVERY)

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

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if task in self._tasks:
            self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the server failed", task=task.get_name(), exc_info=error)

    async def stop(self) -> None:
        """Stops in order: no more from the PBXs, clients told to come back, everything written down. May be called twice."""
        if self._pbx_tasks:
            await self.invitation.withdraw()
        await _end(self._pbx_tasks)
        if self._pbx_tasks:
            await asyncio.gather(
                self.interactions.flush(),
                self.attendance.flush(),
                self.help_requests.flush(),
                self.trail.flush(),
            )
        await _end(self._tasks)
        await self._cleanup.aclose()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = tuple(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def serve(settings: Settings, *, ready: Callable[[Server], None] = lambda server: None) -> str:
    """Runs the server until SIGINT or SIGTERM, or until it must stop by itself; returns why in the latter case."""
    server = Server(settings)
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, server.stopped.set)
    await server.start()
    # What was loaded stays; facts and records die young: looking for cycles among them at every 700th is lost time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        ready(server)
        await server.stopped.wait()
    finally:
        await server.stop()
    return server.why_stopped
