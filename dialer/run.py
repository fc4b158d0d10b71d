"""Runs campaigns: one loop that asks each one's pacing, claims contacts, places calls, and gives who answers to an agent.

Told by the switch (records and facts) and by the agents; asks pacing each tick, the campaigns with the highest priority
first. What is not safe to do is not done: nothing is placed while the link is down or its events are late, while the
database or the campaign's lease is away, or while nobody is at work. Calls under way go on by the dialplan in any case.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from cti.ami import ActionRefused, AmiError, BadValue, Busy, NotConnected
from cti.ami_events import (
    ChannelAppeared,
    ChannelGone,
    ChannelState,
    ChannelStateChanged,
    DialEnded,
    DialerTold,
    DialProgressed,
    HangupRequested,
    OriginateEnded,
    Record,
)
from cti.commands import CommandError
from cti.facts import (
    AgentLineChanged,
    AgentOffHookChanged,
    AgentReachabilityChanged,
    AgentState,
    AgentStateChanged,
    CallEstablished,
    CallView,
    ConnectionCleared,
    ConnectionState,
    Fact,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
    QueueMemberLeft,
)
from cti.views import AgentView
from dialer import attempt_store
from dialer.attempts import Attempt, Outcome, Stage, Told
from dialer.campaign_settings import DIALED_BY_ITSELF, Campaign, CampaignLive, CampaignSettings
from dialer.claims import Claimed, Claims, Lease
from dialer.facts import AttemptAnswered, AttemptConnected, AttemptDialed, AttemptEnded, CampaignPaced
from dialer.hands import AWAY, Hands, eligible, takes_calls
from dialer.pacing import RING_UNSAID, Mode, Pacing, PacingConfig
from dialer.switchboard import AgentsPort, PbxPort, originate_headers
from dialer.trunks import CallerIds, Trunks

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

LOOK_EVERY = 2.0
"""Seconds between two looks at the campaigns' rows."""

SETTLES_WITHIN = 1.0
"""Seconds that a call's last events may come after its end."""

UNSEEN = 5.0
"""Seconds after which an attempt whose call the switch does not have is taken to be over."""

WRITE_EVERY = 0.2
"""Seconds between two writings of how attempts stand."""

TOLD_EVERY = 5.0
"""Seconds between two tellings of how a campaign goes."""

REMEMBERED = 5_000
"""Attempts of the window from which pacing learns at a start."""

CLOCKS_APART = 30.0
"""Seconds that this server's clock and the database's may differ: calling hours are kept by it."""

FIRST_SECOND = 1.5
"""Seconds after the answer within which a far end that hangs up counts against the trunk."""


@dataclass(slots=True, eq=False)
class Live:
    """An attempt under way. `mono` and `wall`: the moment it was committed, by both clocks."""

    attempt: Attempt
    campaign: int
    contact: int | None
    e164: str
    pbx: str
    mono: float
    wall: datetime
    trunk: str = ""
    caller_id: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    connecting: bool = False
    waiting: bool = False
    slot: bool = False
    paced: set[str] = field(default_factory=set)
    tried: dict[str, float] = field(default_factory=dict)
    queue: str | None = None
    over: asyncio.TimerHandle | None = None

    @property
    def call(self) -> str:
        """Its call's id."""
        return f"{self.pbx}:{self.attempt.id}"

    def when(self, what: Told) -> datetime | None:
        """The time of day at which something happened, by the clock as it was when the attempt was committed."""
        at = self.attempt.at.get(what)
        return self.wall + timedelta(seconds=at - self.mono) if at is not None else None


@dataclass(slots=True, eq=False)
class Running:
    """A campaign that this server runs, or would if it had the lease."""

    campaign: Campaign
    pbx: str
    pacing: Pacing
    lease: Lease | None = None
    leased_until: float = 0.0
    ready: bool = False
    placing: asyncio.Task[None] | None = None
    empty: bool = False
    held: str = "not_here"
    asked: deque[tuple[float, int]] = field(default_factory=deque)
    told: dict[str, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    teams: tuple[str, ...] = ()
    told_at: float = 0.0
    told_view: tuple[Any, ...] = ()
    stale: bool = False

    @property
    def id(self) -> int:
        """The campaign's id."""
        return self.campaign.id

    @property
    def alone(self) -> bool:
        """Whether no agents are meant to talk."""
        return self.campaign.mode == "agentless"


class Dialer:
    """Runs campaigns on this server (`campaign_settings.Runner`)."""

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        healthy: Callable[[], bool],
        claims: Claims,
        pbxs: Mapping[str, PbxPort],
        agents: AgentsPort,
        trunks: Trunks,
        caller_ids: CallerIds,
        publish: Callable[[Iterable[Fact]], None],
        set_data: Callable[[str, dict[str, str], str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        opted_out: Callable[[str, int, str], Coroutine[Any, Any, None]] | None = None,
        tighten: Callable[[Campaign], CampaignSettings] = lambda campaign: campaign.settings,
        tick_s: float = 0.5,
        lease_s: float = 10.0,
        owner: str = "",
    ) -> None:
        """`opted_out`: (number, campaign, attempt) of somebody who pressed the key; `tighten`: the campaign's settings
        within its profile's limits; `healthy`: whether the database answers."""
        self._pool = pool
        self._healthy = healthy
        self._claims = claims
        self._pbxs = pbxs
        self._agents = agents
        self.trunks = trunks
        self._caller_ids = caller_ids
        self._publish = publish
        self._set_data = set_data
        self._spawn = spawn
        self._opted_out = opted_out
        self._tighten = tighten
        self._tick_s = tick_s
        self._lease_s = lease_s
        self.owner = owner or f"{socket.gethostname()[:40]}:{os.getpid()}:{os.urandom(3).hex()}"
        self.running: dict[int, Running] = {}
        self._live: dict[str, Live] = {}
        self._hands = Hands()
        self._taking: set[str] = set()
        self._unwritten: dict[str, Live] = {}
        self._write_now = asyncio.Event()
        self._kick = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = asyncio.Lock()
        self._clocks_apart = False
        self._stopping = False
        self._whys: dict[str, str] = {}

    # ------------------------------------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Begins to run what is to run; what a former process left in flight is settled before its campaign dials."""
        self._stopping = False
        self._tasks = [self._spawn(self._watch()), self._spawn(self._loop()), self._spawn(self._writer())]

    async def stop(self) -> None:
        """Places no more, writes how attempts stand, and lets others pace. Calls under way go on at the switch."""
        self._stopping = True
        placing = [run.placing for run in self.running.values() if run.placing is not None]
        for task in (*self._tasks, *placing):
            task.cancel()
        await asyncio.gather(*self._tasks, *placing, return_exceptions=True)
        self._tasks = []
        for live in self._live.values():
            if live.over is not None:
                live.over.cancel()
        with suppress(Exception):
            await self._write()
        for run in self.running.values():
            if run.lease is not None:
                with suppress(Exception):
                    await self._claims.give_back(run.lease)
                run.lease = None

    async def refresh(self, campaign_id: int) -> None:
        """Reads the campaign's row again."""
        self._claims.forget(campaign_id)
        if (run := self.running.get(campaign_id)) is not None:
            run.empty = False
        await self._read()
        self._kick.set()

    # ------------------------------------------------------------------------------------------ campaigns

    async def _watch(self) -> None:
        while True:
            try:
                if self._healthy():
                    await self._read()
                    await self._hold_leases()
                    await self._look_for_contacts()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("campaigns could not be read", error=type(error).__name__)
            except Exception:
                log.exception("campaigns could not be read")
            await asyncio.sleep(min(LOOK_EVERY, self._lease_s / 4))

    async def _read(self) -> None:
        async with self._reading:
            rows = await self._pool().fetch(
                """
                SELECT id, name, mode, state, profile, settings, priority, version, now() AS now FROM campaigns
                 WHERE state IN ('running', 'draining', 'paused') OR id = ANY($1)
                """,
                list(self.running),
            )
            for row in rows:
                self._take_in(row)
                self._clocks_apart = abs((row["now"] - datetime.now(UTC)).total_seconds()) > CLOCKS_APART

    def _take_in(self, row: Any) -> None:
        known = self.running.get(row["id"])
        if known is not None and (known.campaign.version, known.campaign.state) == (
            row["version"],
            row["state"],
        ):
            return
        if row["mode"] not in DIALED_BY_ITSELF:
            return
        try:
            campaign = Campaign(
                id=row["id"],
                name=row["name"],
                mode=row["mode"],
                state=row["state"],
                profile=row["profile"],
                priority=row["priority"],
                version=row["version"],
                settings=CampaignSettings.model_validate_json(row["settings"]),
            )
            settings = self._tighten(campaign)
        except ValueError as error:
            log.error("a campaign's settings cannot be used", campaign=row["id"], error=str(error)[:300])
            return
        if known is None and campaign.state not in ("running", "draining"):
            return
        campaign = Campaign(**{name: getattr(campaign, name) for name in CAMPAIGN} | {"settings": settings})
        pbx = settings.pbx or settings.queue.partition(":")[0] or next(iter(self._pbxs), "")
        if pbx not in self._pbxs:
            log.error("a campaign's PBX is not known", campaign=campaign.id, pbx=pbx)
            return
        if known is None:
            known = self.running[campaign.id] = Running(campaign, pbx, _pacing(campaign, self._tick_s))
        else:
            same = known.campaign.settings == settings and known.campaign.mode == campaign.mode
            known.campaign, known.pbx = campaign, pbx
            known.stale = known.stale or not same
        known.teams = self._teams(campaign)
        known.empty = False
        self._claims.forget(campaign.id)
        self._all_agents()
        self._kick.set()

    def _teams(self, campaign: Campaign) -> tuple[str, ...]:
        """The teams whose supervisors see the campaign."""
        found = (
            set(self._agents.teams_of_queue(campaign.settings.queue)) if campaign.settings.queue else set()
        )
        if campaign.settings.team:
            found.add(campaign.settings.team)
        return tuple(sorted(found))

    async def _hold_leases(self) -> None:
        loop = asyncio.get_running_loop()
        for run in list(self.running.values()):
            wanted = run.campaign.state in ("running", "draining") or self._in_flight(run.id)
            if not wanted:
                if run.lease is not None:
                    await self._claims.give_back(run.lease)
                    run.lease, run.ready = None, False
                continue
            began = loop.time()
            lease = await self._claims.lease(run.id, self.owner, self._lease_s)
            if lease is None:
                run.lease, run.ready = None, False
                continue
            anew = run.lease is None or run.lease.token != lease.token
            run.lease = lease
            # Counted from before it was asked for: never longer than the database grants it.
            run.leased_until = began + self._lease_s
            if anew or run.stale:
                run.ready = False
                await self._begin(run)
            elif not run.ready:
                await self._begin(run)

    async def _look_for_contacts(self) -> None:
        """Campaigns that had nobody to call: whether they have again. And whether those that drain are through."""
        for run in list(self.running.values()):
            if run.lease is None:
                continue
            if run.empty and run.campaign.state == "running":
                if await self._claims.anybody(run.campaign, datetime.now(UTC)):
                    run.empty = False
                    self._all_agents()
                    self._kick.set()
            elif run.campaign.state == "draining" and run.ready and not self._in_flight(run.id):
                await attempt_store.drained(self._pool(), run.id)

    async def _begin(self, run: Running) -> None:
        """Settles what was left in flight and tells pacing what the window holds; then the campaign may dial."""
        port = self._pbxs[run.pbx]
        if not port.up():
            return
        if run.placing is not None and not run.placing.done():
            await asyncio.wait({run.placing})
        await self._take_up(run, port)
        run.stale = False
        run.pacing = _pacing(run.campaign, self._tick_s)
        await self._teach(run)
        run.told.clear()
        self._all_agents()
        run.ready = True
        self._kick.set()
        log.info("campaign is paced here", campaign=run.id, mode=run.campaign.mode)

    async def _teach(self, run: Running) -> None:
        """Replays the last attempts of the window to pacing, and then tells what is under way."""
        settings = run.campaign.settings
        rows = await attempt_store.recent(self._pool(), run.id, settings.abandonment_window_h, REMEMBERED)
        now = asyncio.get_running_loop().time()
        events: list[tuple[float, int, str, str, Any]] = []
        run.outcomes = Counter(row["outcome"] for row in rows)
        run.answered = sum(row["answered"] is not None for row in rows)
        for row in rows:
            events += _replayed(row, now, amd=settings.amd)
        events.sort(key=lambda event: event[:2])
        for number, (at, _, kind, ident, info) in enumerate(events):
            run.pacing.observe(at, kind, ident, info)
            if number % 500 == 499:
                await asyncio.sleep(0)
        for live in self._of(run.id):
            live.paced.clear()
            self._pace_call(run, live)

    async def _take_up(self, run: Running, port: PbxPort) -> None:
        """What a former process had in flight: taken up where the switch has its call, else ended as far as it is known."""
        loop = asyncio.get_running_loop()
        never: list[str] = []
        for row in await attempt_store.open_attempts(self._pool(), run.id):
            if row["id"] in self._live or row["id"] in self._unwritten:
                continue
            if row["owner"] == self.owner and row["state"] == "committed":
                never.append(row["id"])  # the claim's answer was lost, so it was never dialed
                continue
            live = self._remembered(row, loop.time())
            self._live[live.attempt.id] = live
            view = port.view(live.call)
            if view is not None:
                log.info("an attempt is taken up", campaign=run.id, attempt=live.attempt.id)
                live.slot = True
                self.trunks.take_up(live.trunk)
                self._see(live, view)
            else:
                live.attempt.tell(Told.LOST, loop.time())
                self._finish(live, why="ended while no server watched")
        await self._claims.withdraw(never)
        await self._write()

    def _remembered(self, row: Any, now: float) -> Live:
        run = self.running[row["campaign_id"]]
        attempt = self._attempt(row["id"], run.campaign)
        live = Live(
            attempt=attempt,
            campaign=run.id,
            contact=row["contact_id"],
            e164=row["e164"],
            pbx=row["pbx"],
            mono=now,
            wall=datetime.now(UTC),
            trunk=row["trunk"],
            caller_id=row["caller_id"],
            queue=row["queue"],
        )
        for column, told in REMEMBERED_AS.items():
            if row[column] is not None:
                at = now - max(0.0, (live.wall - row[column]).total_seconds())
                attempt.tell(told, at, (row["agent"] or "") if told is Told.CONNECTED else "")
        if row["amd"]:
            attempt.tell(Told.AMD, attempt.at.get(Told.UP, now), row["amd"])
        if row["message_played"] is not None:
            attempt.tell(Told.NOBODY, attempt.at.get(Told.MESSAGE, now))
        attempt.tell(Told.SENT, attempt.at.get(Told.SENT, now))
        return live

    @staticmethod
    def _attempt(id: str, campaign: Campaign) -> Attempt:
        s = campaign.settings
        return Attempt(id, wait=s.answer_wait_s, alone=campaign.mode == "agentless", amd=s.amd)

    # ------------------------------------------------------------------------------------------ each tick

    async def _loop(self) -> None:
        loop = asyncio.get_running_loop()
        swept = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tick_s):
                    await self._kick.wait()
            self._kick.clear()
            try:
                now = loop.time()
                self._match()
                for run in sorted(self.running.values(), key=lambda run: -run.campaign.priority):
                    self._tick(run, now)
                if now - swept >= 1.0:
                    swept = now
                    self._sweep(now)
            except Exception:
                log.exception("a decision of the dialer failed")
            await asyncio.sleep(
                min(0.02, self._tick_s / 4)
            )  # events come in bursts: one decision for all of them

    def why_held(self, run: Running, now: float) -> str:
        """Why nothing may be placed, in one word; "" where it may."""
        port = self._pbxs[run.pbx]
        if run.campaign.state != "running":
            return run.campaign.state
        if not self._healthy():
            return "database"
        if run.lease is None or not run.ready or now >= run.leased_until:
            return "not_here"
        if not port.up():
            return "pbx_down"
        if not port.usable():
            return "late"
        if self._clocks_apart:
            return "clock"
        wanted = run.campaign.settings.trunks
        if not self.trunks.of(run.pbx, wanted):
            return "no_trunk"
        if self.trunks.all_rest(now, run.pbx, wanted):
            return "trunks_rest"
        if not run.alone and not self._at_work(run):
            return "no_agents"
        if run.empty:
            return "nothing_to_call"
        return ""

    def _at_work(self, run: Running) -> bool:
        return any(kind in ("ready", "talk", "wrap") for kind in run.told.values())

    def _tick(self, run: Running, now: float) -> None:
        held = run.held = self.why_held(run, now)
        if run.ready and not run.alone:
            self._give_up(run, now)
        if not held:
            self._place(run, now)
        self._tell(run, now)

    def _give_up(self, run: Running, now: float) -> None:
        ids = list(run.pacing.calls_to_give_up(now))
        if run.campaign.state not in ("running", "draining"):
            ids = [live.attempt.id for live in self._of(run.id)]
        for id in ids:
            live = self._live.get(str(id))
            if live is None or live.attempt.stage > Stage.RINGING or Told.GIVEN_UP in live.attempt.at:
                continue
            at = live.attempt.at
            rang = at.get(Told.RINGS, at.get(Told.SENT, now) + RING_UNSAID)
            if now - rang < run.campaign.settings.min_ring_s:
                continue
            live.attempt.tell(Told.GIVEN_UP, now)
            self._spawn(self._hang_up(live))

    async def _hang_up(self, live: Live) -> None:
        with suppress(AmiError):
            await self._pbxs[live.pbx].send("Hangup", {"Channel": live.attempt.id, "Cause": "16"})

    def _place(self, run: Running, now: float) -> None:
        if run.placing is not None and not run.placing.done():
            return
        if run.alone:
            s = run.campaign.settings
            under_way = self._in_flight(run.id)
            wanted = min(s.max_lines - under_way, max(1, int(s.calls_per_second * self._tick_s)))
            if sum(n for at, n in run.asked if now - at < 1.0) + wanted > max(1.0, s.calls_per_second):
                wanted = 0
        else:
            wanted = run.pacing.calls_to_place(now)
        if wanted <= 0:
            return
        slots = self.trunks.take(now, run.pbx, run.campaign.settings.trunks, wanted)
        if not slots:
            run.held = "no_lines"
            return
        run.asked.append((now, len(slots)))
        run.placing = self._spawn(self._claim_and_dial(run, slots))

    async def _claim_and_dial(self, run: Running, slots: list[str]) -> None:
        loop = asyncio.get_running_loop()
        lease, free = run.lease, list(slots)
        assert lease is not None
        try:
            claim = await self._claims.claim(
                run.campaign, lease, len(slots), now=datetime.now(UTC), pbx=run.pbx
            )
            if not claim.held:
                run.lease, run.ready = None, False
            if claim.empty:
                run.empty = True
                self._all_agents()
            withdrawn: list[str] = []
            for one in claim.attempts:
                if self._stopping or self.why_held(run, loop.time()) not in ("", "nothing_to_call"):
                    withdrawn.append(one.id)
                    continue
                self._begin_call(run, one, free.pop(0), loop.time())
            await self._claims.withdraw(withdrawn)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.warning("contacts could not be claimed", campaign=run.id, error=type(error).__name__)
            run.ready = False  # whether it was committed is looked up before anything else is dialed
        finally:
            self.trunks.unused(free)

    def _begin_call(self, run: Running, one: Claimed, trunk: str, now: float) -> None:
        candidate = one.candidate
        live = Live(
            attempt=self._attempt(one.id, run.campaign),
            campaign=run.id,
            contact=candidate.contact,
            e164=candidate.e164,
            pbx=run.pbx,
            mono=now,
            wall=datetime.now(UTC),
            trunk=trunk,
            data=_call_data(run.campaign, one),
            slot=True,
            queue=run.campaign.settings.queue or None,
        )
        wanted = [(c.number, c.prefixes) for c in run.campaign.settings.caller_ids]
        live.caller_id = self._caller_ids.show(run.id, wanted, candidate.e164)
        self._live[one.id] = live
        self._spawn(self._dial(run, live))

    async def _dial(self, run: Running, live: Live) -> None:
        loop = asyncio.get_running_loop()
        plan = self.trunks.plan(live.trunk)
        assert plan is not None
        headers = originate_headers(
            run.campaign,
            attempt=live.attempt.id,
            channel=plan.channel(live.e164),
            caller_id=live.caller_id,
            off_hook=any(
                (view := self._agents.view(agent)) is not None and view.off_hook for agent in run.told
            ),
        )
        live.attempt.tell(Told.SENT, loop.time())
        self._note(live)
        self._publish([AttemptDialed(**self._about(run, live), trunk=live.trunk)])
        self._pace_call(run, live)
        try:
            await self._pbxs[live.pbx].originate(headers)
        except (ActionRefused, BadValue, NotConnected, Busy) as error:
            log.warning(
                "a call was not placed", campaign=run.id, attempt=live.attempt.id, error=str(error)[:200]
            )
            live.attempt.tell(Told.REFUSED, loop.time())
            self._finish(live, why=str(error)[:200])
        except AmiError:
            log.info("whether a call was placed is not known yet", attempt=live.attempt.id)

    # ------------------------------------------------------------------------------------------ told by the switch

    def hear_record(self, pbx: str, record: Record) -> None:
        """Takes what the switch tells of a channel; of any but ours it is a look into a dictionary."""
        id = getattr(record, "uniqueid", None) or getattr(record, "dialled", None)
        live = self._live.get(id) if isinstance(id, str) else None
        if live is None or live.pbx != pbx:
            return
        now = asyncio.get_running_loop().time()
        for what, info in _told_by(record):
            self._told(live, what, now, info)
        if isinstance(record, DialerTold) and record.what == "waiting":
            self.waiting(live)

    def _told(self, live: Live, what: Told, now: float, info: str = "") -> None:
        news = live.attempt.tell(what, now, info)
        run = self.running.get(live.campaign)
        if not news or run is None:
            return
        match what:
            case Told.APPEARED:
                if live.data:
                    self._set_data(live.call, dict(live.data), "dialer")
            case Told.RINGS | Told.UP | Told.AMD | Told.NOBODY | Told.MESSAGE | Told.CONNECTED:
                self._note(live)
        if what is Told.UP:
            run.answered += 1
            facts = AttemptAnswered(**self._about(run, live), rang=_between(live, Told.RINGS, Told.UP))
            self._publish([facts])
        if what is Told.OPTED_OUT and self._opted_out is not None:
            self._spawn(self._opted_out(live.e164, live.campaign, live.attempt.id))
        if what in (Told.NOBODY, Told.CONNECTED):
            live.waiting = False
        self._pace_call(run, live)
        if live.attempt.over:
            self._over(live)
        elif what in (Told.UP, Told.AMD, Told.CONNECTED):
            self._kick.set()

    def waiting(self, live: Live) -> None:
        """The dialplan says that this customer waits for an agent."""
        if live.attempt.stage is Stage.ANSWERED and not live.attempt.machine:
            live.waiting = True
            self._match()

    def _over(self, live: Live) -> None:
        """Its call is over; it is settled when all that may still be told has been."""
        live.waiting = False
        if live.slot:
            live.slot = False
            self.trunks.over(live.trunk)
        if live.attempt.settled:
            self._finish(live)
        elif live.over is None:
            live.over = asyncio.get_running_loop().call_later(SETTLES_WITHIN, self._finish, live)

    def _finish(self, live: Live, why: str = "") -> None:
        if self._live.pop(live.attempt.id, None) is None:
            return
        if live.over is not None:
            live.over.cancel()
        now = asyncio.get_running_loop().time()
        live.waiting = False
        if live.slot:
            live.slot = False
            self.trunks.over(live.trunk)
        outcome = live.attempt.outcome()
        run = self.running.get(live.campaign)
        self._judge_trunk(live, outcome, now)
        self._unwritten[live.attempt.id] = live
        live.tried.clear()
        self._whys[live.attempt.id] = why
        self._write_now.set()
        if run is None:
            return
        run.outcomes[outcome] += 1
        self._pace_end(run, live, outcome, now)
        attempt = live.attempt
        self._publish(
            [
                AttemptEnded(
                    **self._about(run, live),
                    outcome=outcome,
                    cause=attempt.cause,
                    rang=_between(live, Told.RINGS, Told.UP) or _between(live, Told.RINGS, Told.GONE),
                    waited=attempt.waited,
                    talked=_between(live, Told.CONNECTED, Told.GONE),
                    agent=attempt.agent,
                    message_played=Told.MESSAGE in attempt.at,
                    opted_out=Told.OPTED_OUT in attempt.at,
                )
            ]
        )

    def _judge_trunk(self, live: Live, outcome: Outcome, now: float) -> None:
        """Whether the trunk did its work: congestion without a ring did not, nor did an answer that ends at once."""
        at = live.attempt.at
        if outcome is Outcome.UNKNOWN or Told.REFUSED in at:
            return
        hollow = (
            Told.UP in at
            and Told.FAR_END in at
            and at[Told.FAR_END] - at[Told.UP] < FIRST_SECOND
            and Told.OPTED_OUT not in at
        )
        if hollow or (outcome in (Outcome.CONGESTION, Outcome.FAILED) and Told.RINGS not in at):
            rest = self.trunks.failed(now, live.trunk)
            if rest:
                log.warning("a trunk rests", trunk=live.trunk, seconds=rest, outcome=outcome.value)
        else:
            self.trunks.got_through(live.trunk)

    def _see(self, live: Live, view: CallView) -> None:
        """Takes over what the switch shows of a call whose events were missed."""
        now = asyncio.get_running_loop().time()
        own = next((c for c in view.connections if c.id.partition(":")[2] == live.attempt.id), None)
        live.attempt.tell(Told.APPEARED, now)
        if own is not None and own.state is ConnectionState.ALERTING:
            self._told(live, Told.RINGS, now)
        if own is not None and own.state in THROUGH:
            self._told(live, Told.UP, now)
        agent = next((c.agent for c in view.connections if c.agent and c.state in THROUGH), None)
        if agent is not None:
            self._told(live, Told.CONNECTED, now, agent)
        elif len(view.connections) == 1 and Told.UP in live.attempt.at:
            self.waiting(live)

    def hear(self, fact: Fact) -> None:
        """Takes facts about calls, agents and links."""
        match fact:
            case CallEstablished() if fact.agent is not None:
                live = self._live_call(fact.call)
                if live is not None:
                    self._connected(live, fact.agent)
            case ConnectionCleared() if fact.agent is not None:
                live = self._live_call(fact.call)
                if live is not None and live.attempt.agent == fact.agent:
                    now = asyncio.get_running_loop().time()
                    live.attempt.tell(Told.AGENT_LEFT, now)
            case PbxResynced():
                self._resynced(fact)
            case PbxStatusChanged():
                self._kick.set()
            case (
                AgentStateChanged()
                | AgentLineChanged()
                | AgentOffHookChanged()
                | AgentReachabilityChanged()
                | QueueMemberJoined()
                | QueueMemberLeft()
            ):
                if fact.agent is not None and self.running:
                    self._agent(fact.agent)
                    self._kick.set()

    def _live_call(self, call: str) -> Live | None:
        pbx, _, id = call.partition(":")
        live = self._live.get(id)
        return live if live is not None and live.pbx == pbx else None

    def _connected(self, live: Live, agent: str) -> None:
        now = asyncio.get_running_loop().time()
        if Told.UP not in live.attempt.at:
            self._told(live, Told.UP, now)
        if Told.CONNECTED in live.attempt.at:
            return
        self._told(live, Told.CONNECTED, now, agent)
        run = self.running.get(live.campaign)
        if run is not None:
            self._publish(
                [AttemptConnected(**self._about(run, live), agent=agent, waited=live.attempt.waited)]
            )

    def _resynced(self, fact: PbxResynced) -> None:
        port = self._pbxs.get(fact.pbx)
        if port is None:
            return
        now = asyncio.get_running_loop().time()
        for live in [live for live in self._live.values() if live.pbx == fact.pbx]:
            view = port.view(live.call)
            sent = live.attempt.at.get(Told.SENT, now)
            if view is not None:
                self._see(live, view)
            elif Told.APPEARED in live.attempt.at or now - sent > UNSEEN:
                self._told(live, Told.LOST, now)
        self._all_agents()
        self._kick.set()

    def _sweep(self, now: float) -> None:
        """Ends attempts whose calls the switch does not have: their last events were lost."""
        for live in list(self._live.values()):
            port = self._pbxs[live.pbx]
            sent = live.attempt.at.get(Told.SENT)
            if sent is None or now - sent < UNSEEN or not port.up() or live.attempt.over:
                continue
            if port.view(live.call) is None:
                seen = live.paced
                if "unseen" in seen:
                    self._told(live, Told.LOST, now)
                seen.add("unseen")
            else:
                live.paced.discard("unseen")

    # ------------------------------------------------------------------------------------------ agents

    def _all_agents(self) -> None:
        views = list(self._agents.all())
        for agent in {*self._hands.lent, *(view.agent for view in views)}:
            self._agent(agent)
        campaigns = {id: run.campaign for id, run in self.running.items() if run.campaign.state == "running"}
        for _ in range(len(views)):
            moved = self._hands.even_out(campaigns, self._hungry)
            if moved is None:
                break
            self._hands.lent.pop(moved)
            self._agent(moved)

    def _hungry(self, campaign: int) -> bool:
        run = self.running.get(campaign)
        return run is not None and run.campaign.state == "running" and run.lease is not None and not run.empty

    def _agent(self, agent: str) -> None:
        """Tells each campaign's pacing how this agent is for it: at work for the one they are lent to, away for others."""
        now = asyncio.get_running_loop().time()
        view = self._agents.view(agent)
        live = self._talks_in(view) if view is not None else None
        if live is not None and live.campaign in self.running:
            mine: int | None = self._hands.lent.setdefault(agent, live.campaign)
        elif view is None or view.state in AWAY:
            self._hands.lent.pop(agent, None)
            mine = None
        else:
            may = [
                run.campaign
                for run in self.running.values()
                if run.campaign.state in ("running", "draining")
                and not run.alone
                and eligible(view, run.campaign, run.pbx, self._agents.team_name)
            ]
            mine = self._hands.lend(agent, may, self._hungry)
        for run in self.running.values():
            self._pace_agent(run, agent, view if run.id == mine else None, live, now)

    def _talks_in(self, view: AgentView) -> Live | None:
        if view.call is None:
            return None
        live = self._live_call(view.call)
        return live if live is not None and live.attempt.agent == view.agent else None

    def _pace_agent(
        self, run: Running, agent: str, view: AgentView | None, live: Live | None, now: float
    ) -> None:
        old = run.told.get(agent)
        new = None if view is None else self._kind(run, view, live, old)
        if new == old:
            return
        observe = run.pacing.observe
        if old is None:
            observe(now, "login", agent)
        if new is None:
            observe(now, "logout", agent)
            del run.told[agent]
            return
        run.told[agent] = new
        if new == "talk":
            assert live is not None
            observe(now, "talk", agent, live.attempt.id)
        else:
            observe(now, new, agent)

    def _kind(self, run: Running, view: AgentView, live: Live | None, old: str | None) -> str:
        match view.state:
            case AgentState.READY:
                return "ready" if takes_calls(view, run.pbx) else "break"
            case AgentState.RESERVED if old is not None and self._live_call(view.call or "") is not None:
                return old
            case AgentState.BUSY | AgentState.RESERVED:
                return "talk" if live is not None and live.campaign == run.id else "break"
            case AgentState.WRAP_UP:
                return "wrap" if old in ("talk", "wrap") else "break"
        return "break"

    # ------------------------------------------------------------------------------------------ who has answered

    def _match(self) -> None:
        """Gives those who wait to free agents with open lines, who has waited longest to who has been free longest."""
        waiting = [live for live in self._live.values() if live.waiting and not live.connecting]
        if not waiting:
            return
        waiting.sort(key=lambda live: (-self._priority(live), live.attempt.greeted or 0.0))
        free = [
            view
            for view in self._agents.all()
            if view.off_hook and view.agent not in self._taking and view.state is AgentState.READY
        ]
        free.sort(key=lambda view: view.since)
        for live in waiting:
            run = self.running.get(live.campaign)
            if run is None:
                continue
            choice = next(
                (
                    view
                    for view in free
                    if view.agent not in live.tried
                    and takes_calls(view, live.pbx)
                    and eligible(view, run.campaign, run.pbx, self._agents.team_name)
                ),
                None,
            )
            if choice is None:
                continue
            free.remove(choice)
            self._taking.add(choice.agent)
            live.connecting = True
            self._spawn(self._connect(live, choice.agent))

    def _priority(self, live: Live) -> int:
        run = self.running.get(live.campaign)
        return run.campaign.priority if run is not None else 0

    async def _connect(self, live: Live, agent: str) -> None:
        try:
            await self._agents.connect(live.call, agent)
        except CommandError as error:
            log.info("a customer could not be given to an agent", agent=agent, code=error.code)
            if error.code in ("agent_taken", "line_closed", "agent_not_free", "not_confirmed"):
                live.tried[agent] = asyncio.get_running_loop().time()
        finally:
            self._taking.discard(agent)
            live.connecting = False
            self._kick.set()

    # ------------------------------------------------------------------------------------------ what pacing hears

    def _pace_call(self, run: Running, live: Live) -> None:
        """Tells pacing what is new of a call, once each, in its order."""
        now = asyncio.get_running_loop().time()
        attempt, told, observe = live.attempt, live.paced, run.pacing.observe
        id = attempt.id
        if Told.SENT in attempt.at and "dial" not in told:
            told.add("dial")
            observe(now, "dial", id)
        if Told.RINGS in attempt.at and "ring" not in told:
            told.add("ring")
            observe(now, "ring", id)
        if Told.UP in attempt.at and "answer" not in told:
            told.add("answer")
            observe(now, "answer", id)
        if attempt.amd and Told.AMD in attempt.at and "amd" not in told:
            told.add("amd")
            observe(now, "amd", id, "machine" if attempt.machine else "human")
        if run.alone:
            return
        if attempt.greeted is not None and told.isdisjoint(("queue", "connect", "abandon")):
            told.add("queue")
            observe(now, "queue", id)
        if Told.CONNECTED in attempt.at and told.isdisjoint(("connect", "abandon")):
            told.add("connect")
            observe(now, "connect", id, (attempt.agent, attempt.waited or 0.0))
        elif Told.NOBODY in attempt.at and told.isdisjoint(("connect", "abandon")):
            told.add("abandon")
            observe(now, "abandon", id, attempt.waited or 0.0)

    def _pace_end(self, run: Running, live: Live, outcome: Outcome, now: float) -> None:
        if not live.paced.isdisjoint(("connect", "abandon")):
            return
        observe, id = run.pacing.observe, live.attempt.id
        if outcome is Outcome.ABANDONED and not run.alone:
            observe(now, "abandon", id, live.attempt.waited or 0.0)
        else:
            observe(now, "end", id, END.get(outcome, "cancel"))

    # ------------------------------------------------------------------------------------------ written and told

    def _note(self, live: Live) -> None:
        self._unwritten[live.attempt.id] = live

    async def _writer(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY):
                    await self._write_now.wait()
            self._write_now.clear()
            if not self._unwritten or not self._healthy():
                await asyncio.sleep(WRITE_EVERY / 4)
                continue
            try:
                await self._write()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("attempts could not be written yet", error=type(error).__name__)
                await asyncio.sleep(1.0)
            except Exception:
                log.exception("attempts could not be written")
                await asyncio.sleep(1.0)
            await asyncio.sleep(WRITE_EVERY / 4)

    async def _write(self) -> None:
        taken, self._unwritten = self._unwritten, {}
        if not taken:
            return
        settings = {id: (run.campaign.settings, run.alone) for id, run in self.running.items()}
        try:
            rows = [self._row(live) for live in taken.values()]
            await attempt_store.write(self._pool(), rows, settings, datetime.now(UTC))
        except BaseException:
            self._unwritten = taken | self._unwritten
            raise
        for id, live in taken.items():
            if id not in self._live and self._unwritten.get(id) is not live:
                self._whys.pop(id, None)

    def _row(self, live: Live) -> attempt_store.AttemptRow:
        attempt = live.attempt
        over = attempt.id not in self._live
        ended = live.wall + timedelta(seconds=max(0.0, attempt.ended - live.mono)) if over else None
        return attempt_store.AttemptRow(
            id=attempt.id,
            campaign=live.campaign,
            state="ended" if over else min(attempt.stage, Stage.CONNECTED).word,
            trunk=live.trunk,
            caller_id=live.caller_id,
            dialed=live.when(Told.SENT),
            ringing=live.when(Told.RINGS),
            answered=live.when(Told.UP),
            connected=live.when(Told.CONNECTED),
            ended=ended,
            agent=attempt.agent,
            queue=live.queue,
            waited=attempt.waited,
            outcome=attempt.outcome().value if over else None,
            cause=attempt.cause,
            amd=attempt.said.get(Told.AMD),
            message_played=live.when(Told.MESSAGE),
            opted_out=Told.OPTED_OUT in attempt.at,
            why=self._whys.get(attempt.id, ""),
        )

    def _of(self, campaign: int) -> list[Live]:
        return [live for live in self._live.values() if live.campaign == campaign]

    def _in_flight(self, campaign: int) -> int:
        return sum(live.campaign == campaign for live in self._live.values())

    def _about(self, run: Running, live: Live) -> dict[str, Any]:
        return {
            "at": datetime.now(UTC),
            "attempt": live.attempt.id,
            "campaign": run.id,
            "contact": live.contact,
            "call": live.call,
            "teams": run.teams,
        }

    def _tell(self, run: Running, now: float) -> None:
        if now - run.told_at < TOLD_EVERY:
            return
        view = self.view(run.id)
        assert view is not None
        said = (view.state, view.held, view.agents, view.calls, view.outcomes)
        if said != run.told_view:
            run.told_at, run.told_view = now, said
            self._publish([CampaignPaced(at=view.at, campaign=run.id, teams=run.teams, view=view)])

    def view(self, campaign_id: int) -> CampaignLive | None:
        """How it stands."""
        run = self.running.get(campaign_id)
        if run is None:
            return None
        now = asyncio.get_running_loop().time()
        while run.asked and now - run.asked[0][0] > 60.0:
            run.asked.popleft()
        stages = Counter(min(live.attempt.stage, Stage.CONNECTED).word for live in self._of(run.id))
        lost, live_answers = run.outcomes["abandoned"], run.outcomes["abandoned"] + run.outcomes["connected"]
        cap = run.campaign.settings.abandonment_cap
        why = run.pacing.why(now) if not run.alone else "as many as lines and calls a second allow"
        return CampaignLive(
            campaign=run.id,
            state=run.campaign.state,
            mode=run.campaign.mode,
            here=run.lease is not None,
            owner=self.owner if run.lease is not None else "",
            at=datetime.now(UTC),
            agents=dict(Counter(AGENT_WORDS[kind] for kind in run.told.values())),
            calls=dict(stages),
            attempts=sum(run.outcomes.values()) + sum(stages.values()),
            answered=run.answered,
            connected=run.outcomes["connected"],
            abandoned=lost,
            may_be_lost=max(0, int(cap * live_answers - lost + 1.0)),
            pace=sum(n for _, n in run.asked),
            held=run.held,
            why=HELD.get(run.held, run.held) if run.held else why,
            outcomes=dict(run.outcomes),
            trunks=self.trunks.words(now),
        )


OF_ATTEMPTS: frozenset[type[Record]] = frozenset(
    {
        ChannelAppeared,
        ChannelStateChanged,
        DialProgressed,
        DialEnded,
        OriginateEnded,
        HangupRequested,
        ChannelGone,
        DialerTold,
    }
)
"""The classes of records that `hear_record` wants."""

OF_CAMPAIGNS: tuple[type[Fact], ...] = (
    CallEstablished,
    ConnectionCleared,
    PbxResynced,
    PbxStatusChanged,
    AgentStateChanged,
    AgentLineChanged,
    AgentOffHookChanged,
    AgentReachabilityChanged,
    QueueMemberJoined,
    QueueMemberLeft,
)
"""The facts that `hear` wants."""

CAMPAIGN = ("id", "name", "mode", "state", "profile", "priority", "settings", "version")
THROUGH = frozenset({ConnectionState.CONNECTED, ConnectionState.HOLD, ConnectionState.QUEUED})
AGENT_WORDS = {"ready": "free", "talk": "talking", "wrap": "wrapping_up", "break": "away", "login": "away"}
HELD = {
    "paused": "paused: no calls are placed",
    "draining": "draining: calls under way go on, no more are placed",
    "stopped": "stopped",
    "database": "the database does not answer: nothing is placed until it does",
    "not_here": "another server paces this campaign, or it is not ready yet",
    "pbx_down": "the PBX cannot be reached: nothing is placed until its state is known",
    "late": "the PBX's events come late: nothing is placed until they come in time",
    "clock": "this server's clock and the database's differ: calling hours cannot be kept; set the clock",
    "no_trunk": "no trunk is set up for this PBX (CTI_DIALER__TRUNKS), or none by the names in the settings",
    "trunks_rest": "every trunk has failed several times in a row and rests",
    "no_agents": "no agent is at work",
    "nothing_to_call": "nobody in the lists may be called now",
    "no_lines": "all channels or calls a second of the trunks are in use",
}
"""Why nothing is placed, in a sentence."""

END = {
    Outcome.BUSY: "busy",
    Outcome.NO_ANSWER: "noanswer",
    Outcome.MACHINE: "machine",
    Outcome.FAX: "fax",
    Outcome.CONGESTION: "failed",
    Outcome.INVALID_NUMBER: "failed",
    Outcome.REJECTED: "busy",
    Outcome.FAILED: "failed",
}
"""Outcome → what pacing hears; the others are cancelled to it."""

REMEMBERED_AS = {
    "dialed": Told.SENT,
    "ringing": Told.RINGS,
    "answered": Told.UP,
    "connected": Told.CONNECTED,
    "message_played": Told.MESSAGE,
}
"""Column of `attempts` → what was told."""


def _pacing(campaign: Campaign, tick_s: float) -> Pacing:
    s = campaign.settings
    modes: dict[str, Mode] = {
        "progressive": "progressive",
        "power": "power",
        "predictive": "predictive",
        "predictive-strict": "predictive-strict",
    }
    return Pacing(
        PacingConfig(
            mode=modes.get(campaign.mode, "progressive"),
            abandonment_cap=s.abandonment_cap,
            window_s=s.abandonment_window_h * 3600.0,
            answer_wait_s=s.answer_wait_s,
            min_ring_s=s.min_ring_s,
            ring_timeout_s=s.ring_timeout_s,
            calls_per_second=s.calls_per_second,
            max_lines=s.max_lines,
            tick_s=tick_s,
            amd=s.amd,
            ratio=s.ratio,
            few_agents=s.few_agents,
        )
    )


def _replayed(row: Any, now: float, *, amd: bool) -> list[tuple[float, int, str, str, Any]]:
    """What pacing would have heard of an attempt that has ended."""
    id, outcome = row["id"], row["outcome"]
    events: list[tuple[float, str, Any]] = [(row["dialed"], "dial", None)]
    if row["ringing"] is not None:
        events.append((row["ringing"], "ring", None))
    if row["answered"] is not None:
        events.append((row["answered"], "answer", None))
    if amd and row["amd"] is not None:
        events.append(
            (row["answered"] or row["ended"], "amd", "machine" if outcome == "machine" else "human")
        )
    if outcome in ("connected", "agent_error"):
        at = row["connected"] if row["connected"] is not None else row["ended"]
        events.append((at, "connect", (row["agent"], row["waited"] or 0.0)))
    elif outcome == "abandoned":
        events.append((row["ended"], "abandon", row["waited"] or 0.0))
    else:
        events.append((row["ended"], "end", END.get(Outcome(outcome), "cancel")))
    return [(now - max(0.0, age), place, kind, id, info) for place, (age, kind, info) in enumerate(events)]


def _told_by(record: Record) -> Sequence[tuple[Told, str]]:
    """What a record tells of an attempt's call."""
    match record:
        case ChannelAppeared():
            return [(Told.APPEARED, "")]
        case ChannelStateChanged(state=ChannelState.RINGING | ChannelState.RING):
            return [(Told.RINGS, "")]
        case ChannelStateChanged(state=ChannelState.UP):
            return [(Told.UP, "")]
        case DialProgressed(status="RINGING"):
            return [(Told.RINGS, "")]
        case DialEnded():
            return [(Told.DIAL_ENDED, record.status)]
        case OriginateEnded():
            return [(Told.ORIGINATE_ENDED, "ok" if record.success else str(record.reason))]
        case HangupRequested():
            return [(Told.FAR_END, "")]
        case ChannelGone():
            return [(Told.GONE, str(record.cause))]
        case DialerTold():
            told = TOLD_BY_DIALPLAN.get(record.what)
            return [(told, record.value if told is Told.AMD else "")] if told is not None else []
    return []


TOLD_BY_DIALPLAN = {
    "amd": Told.AMD,
    "nobody": Told.NOBODY,
    "message": Told.MESSAGE,
    "opt_out": Told.OPTED_OUT,
}


def _between(live: Live, one: Told, other: Told) -> float | None:
    at = live.attempt.at
    return max(0.0, at[other] - at[one]) if one in at and other in at else None


def _call_data(campaign: Campaign, one: Claimed) -> dict[str, str]:
    """What the agent's screen gets with the call: who it is, from which list, what to say. At most 512 characters each."""
    c = one.candidate
    data = {
        "campaign": campaign.name,
        "list": one.list_name,
        "contact": str(c.contact),
        "attempt": one.id,
        "name": c.name,
        "language": c.language,
        "script": one.script,
    }
    if c.account is not None:
        data["account_id"] = str(c.account)
    for name, value in list(c.data.items())[:20]:
        data.setdefault(name[:64], str(value))
    return {name: value[:512] for name, value in data.items() if value}
