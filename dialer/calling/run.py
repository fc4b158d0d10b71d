"""Runs campaigns: asks each one's pacing twice a second, claims contacts and has them dialed; the highest priority first.

What is not safe to do is not done: nothing is placed while the link is down or its events are late, while the database or
the campaign's lease is away, while clocks differ, or while nobody is at work. Calls under way go on by the dialplan in any
case. Any number of servers may run it on one database: one of them paces a campaign, by a lease (`dialer.calling.claims`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from cti.ami_events import Record
from cti.database import AWAY as DATABASE_AWAY
from cti.facts import (
    AgentLineChanged,
    AgentOffHookChanged,
    AgentReachabilityChanged,
    AgentStateChanged,
    CallEstablished,
    ConnectionCleared,
    Fact,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
    QueueMemberLeft,
)
from dialer.calling import attempt_store
from dialer.calling.attempt_writer import AttemptWriter
from dialer.calling.call_desk import CallDesk
from dialer.calling.claims import Claims
from dialer.calling.hands import AWAY, Hands, eligible
from dialer.calling.live import claimed, remembered
from dialer.calling.pace import Pace
from dialer.calling.running import Running
from dialer.calling.switchboard import AgentsPort, PbxPort
from dialer.calling.trunks import CallerIds, Trunks
from dialer.law import ledger
from dialer.management.settings import DIALED_BY_ITSELF, Campaign, CampaignLive, CampaignSettings

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

LOOK_EVERY = 2.0
"""Seconds between two looks at the campaigns' rows, at most."""

REMEMBERED = 5_000
"""Attempts of the window from which pacing learns at a start."""

CLOCKS_APART = 30.0
"""Seconds that this server's clock and the database's may differ: calling hours are kept by it."""

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
        within: Callable[[Campaign], CampaignSettings] = lambda campaign: campaign.settings,
        error_share: Callable[[Campaign], float] = lambda campaign: 0.0,
        tick_s: float = 0.5,
        lease_s: float = 10.0,
        owner: str = "",
    ) -> None:
        """`healthy`: whether the database answers; `within`: a campaign's settings within its profile's limits, or
        ValueError; `error_share`: of the machines detected, that are people and count as lost by its law."""
        self._pool = pool
        self._healthy = healthy
        self._claims = claims
        self._pbxs = pbxs
        self._agents = agents
        self.trunks = trunks
        self._caller_ids = caller_ids
        self._spawn = spawn
        self._within = within
        self._error_share = error_share
        self._tick_s = tick_s
        self._lease_s = lease_s
        self.owner = owner or f"{socket.gethostname()[:40]}:{os.getpid()}:{os.urandom(3).hex()}"
        self.running: dict[int, Running] = {}
        self._hands = Hands()
        self._kick = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = asyncio.Lock()
        self._clocks_apart = False
        self._complained: dict[int, int] = {}
        self._stopping = False
        self.writer = AttemptWriter(
            pool,
            healthy=healthy,
            settings=lambda: {id: (run.campaign.settings, run.alone) for id, run in self.running.items()},
        )
        self.calls = CallDesk(
            running=self.running,
            pbxs=pbxs,
            agents=agents,
            trunks=trunks,
            writer=self.writer,
            publish=publish,
            set_data=set_data,
            spawn=spawn,
            kick=self._kick.set,
        )

    # ------------------------------------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Begins to run what is to run; what a former process left in flight is settled before its campaign dials."""
        self._stopping = False
        self._tasks = [self._spawn(work) for work in (self._watch(), self._loop(), self.writer.run())]

    async def stop(self) -> None:
        """Places no more, writes how attempts stand, and lets others pace. Calls under way go on at the switch."""
        self._stopping = True
        placing = [run.placing for run in self.running.values() if run.placing is not None]
        await asyncio.gather(*placing, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self.calls.close()
        with suppress(*DATABASE_AWAY):
            await self.writer.flush()
            for run in self.running.values():
                lease = run.lease
                run.lose()
                if lease is not None:
                    await self._claims.give_back(lease)

    async def refresh(self, campaign_id: int) -> None:
        """Reads the campaign's row again."""
        self._claims.forget(campaign_id)
        if (run := self.running.get(campaign_id)) is not None:
            run.empty = False
        await self._read()
        self._kick.set()

    def view(self, campaign_id: int) -> CampaignLive | None:
        """How it stands."""
        run = self.running.get(campaign_id)
        now = asyncio.get_running_loop().time()
        return run.view(self.calls.of(run.id), self.trunks.words(now), now) if run is not None else None

    # ------------------------------------------------------------------------------------------ campaigns

    async def _watch(self) -> None:
        """Reads rows, renews leases, looks for contacts."""
        while True:
            try:
                if self._healthy():
                    await self._read()
                    for run in list(self.running.values()):
                        await self._hold(run)
                        await self._look_for_contacts(run)
            except DATABASE_AWAY as error:
                log.warning("campaigns cannot be read", error=type(error).__name__)
            except Exception:
                log.exception("campaigns cannot be read")
            await asyncio.sleep(min(LOOK_EVERY, self._lease_s / 4))

    async def _read(self) -> None:
        async with self._reading:
            rows = await self._pool().fetch(
                """
                SELECT id, name, mode, state, profile, settings, priority, version, now() AS now,
                       EXISTS (SELECT FROM attempts a WHERE a.campaign_id = c.id AND a.state <> 'ended') AS under_way
                  FROM campaigns c
                 WHERE state IN ('running', 'draining') OR id = ANY($1)
                    OR id IN (SELECT campaign_id FROM attempts WHERE state <> 'ended')
                """,
                list(self.running),
            )
            for row in rows:
                self._clocks_apart = abs((row["now"] - datetime.now(UTC)).total_seconds()) > CLOCKS_APART
                self._take_in(row)
                if (run := self.running.get(row["id"])) is not None:
                    run.under_way = row["under_way"]

    def _take_in(self, row: Any) -> None:
        known = self.running.get(row["id"])
        now = (row["version"], row["state"])
        if known is not None and (known.campaign.version, known.campaign.state) == now:
            return
        if row["mode"] not in DIALED_BY_ITSELF:
            if known is not None:  # by hand from now on: what is under way goes on
                known.campaign = replace(known.campaign, state="stopped", version=row["version"])
            return
        try:
            settings = CampaignSettings.model_validate_json(row["settings"])
            names = ("id", "name", "mode", "state", "profile", "priority", "version")
            campaign = Campaign(**{name: row[name] for name in names}, settings=settings)
            campaign = replace(campaign, settings=self._within(campaign))
        except ValueError as error:
            if self._complained.get(row["id"]) != row["version"]:
                self._complained[row["id"]] = row["version"]
                log.error(
                    "a campaign cannot be run by its settings", campaign=row["id"], error=str(error)[:300]
                )
            if known is not None:
                known.campaign = replace(known.campaign, state="stopped", version=row["version"])
            return
        s = campaign.settings
        pbx = s.pbx or s.queue.partition(":")[0] or next(iter(self._pbxs), "")
        if pbx not in self._pbxs:
            if self._complained.get(campaign.id) != campaign.version:
                self._complained[campaign.id] = campaign.version
                log.error("a campaign's PBX is not known", campaign=campaign.id, pbx=pbx)
            return
        if known is None:
            known = self.running[campaign.id] = Running(campaign, pbx, self._pace(campaign))
        else:
            same = (known.campaign.settings, known.campaign.mode) == (s, campaign.mode)
            known.stale = known.stale or not same
            known.campaign, known.pbx = campaign, pbx
        known.teams = self._teams(s)
        known.empty = False
        self._claims.forget(campaign.id)
        self._all_agents()
        self._kick.set()

    def _pace(self, campaign: Campaign) -> Pace:
        return Pace(campaign, self._tick_s, self._error_share(campaign))

    def _teams(self, settings: CampaignSettings) -> tuple[str, ...]:
        """The teams whose supervisors see the campaign's attempts."""
        if settings.team:
            return (settings.team,)
        return tuple(sorted(self._agents.teams_of_queue(settings.queue))) if settings.queue else ()

    async def _hold(self, run: Running) -> None:
        """Takes or renews the campaign's lease while it is wanted; begins anew when it was another's meanwhile."""
        under_way = run.under_way or self.calls.under_way(run.id)
        if run.campaign.state not in ("running", "draining") and not under_way:
            lease = run.lease
            run.lose()
            if lease is not None:
                await self._claims.give_back(lease)
            return
        # Counted from before it is asked for: never longer than the database grants it.
        asked = asyncio.get_running_loop().time()
        lease = await self._claims.lease(run.id, self.owner, self._lease_s)
        if lease is None:
            run.lose()
            return
        anew = run.lease is None or run.lease.token != lease.token
        run.lease, run.leased_until = lease, asked + self._lease_s
        if anew or run.stale or not run.ready:
            await self._begin(run)

    async def _begin(self, run: Running) -> None:
        """Settles what was left in flight and tells pacing what the window holds; then the campaign may dial."""
        run.ready = False
        if not self._pbxs[run.pbx].up():
            return
        if run.placing is not None and not run.placing.done():
            await asyncio.wait({run.placing})
        await self._take_up(run)
        run.stale = False
        await self._learn(run)
        run.ready = True
        self._kick.set()
        log.info("campaign is paced here", campaign=run.id, mode=run.campaign.mode)

    async def _take_up(self, run: Running) -> None:
        never: list[str] = []
        now = asyncio.get_running_loop().time()
        for row in await attempt_store.open_attempts(self._pool(), run.id):
            if row["id"] in self.calls or row["id"] in self.writer:
                continue
            if row["owner"] == self.owner and row["state"] == "committed":
                never.append(row["id"])  # the claim's answer was lost, so it was never dialed
            else:
                self.calls.take_up(remembered(run.campaign, row, now))
        await self._claims.withdraw(never)
        await self.writer.flush()

    async def _learn(self, run: Running) -> None:
        """A new pace, told the last attempts of the window, and then what is under way."""
        settings = run.campaign.settings
        rows = await attempt_store.recent(self._pool(), run.id, settings.abandonment_window_h, REMEMBERED)
        counted = await ledger.by_minute(self._pool(), run.id, settings.abandonment_window_h)
        now = asyncio.get_running_loop().time()
        pace = self._pace(run.campaign)
        for _ in pace.replay(rows, counted, now, amd=settings.amd):
            await asyncio.sleep(0)
        run.pace = pace
        run.outcomes = Counter(row["outcome"] for row in rows)
        run.answered = sum(row["answered"] is not None for row in rows)
        now = asyncio.get_running_loop().time()
        for live in self.calls.of(run.id):
            live.paced.clear()
            pace.call(live, now)
        self._all_agents()

    async def _look_for_contacts(self, run: Running) -> None:
        """A campaign that had nobody to call: whether it has again."""
        if (
            run.empty
            and run.campaign.state == "running"
            and run.lease is not None
            and await self._claims.anybody(run.campaign, datetime.now(UTC))
        ):
            run.empty = False
            self._all_agents()
            self._kick.set()

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
                self.calls.match()
                for run in sorted(self.running.values(), key=lambda run: -run.campaign.priority):
                    self._tick(run, now)
                if now - swept >= 1.0:
                    swept = now
                    self.calls.sweep(now)
            except Exception:
                log.exception("a decision of the dialer failed")
            # Events come in bursts: one decision for all of them.
            await asyncio.sleep(min(0.1, self._tick_s / 2))

    def _held(self, run: Running, now: float) -> str:
        """Why nothing may be placed, in one word; "" where it may."""
        port, wanted = self._pbxs[run.pbx], run.campaign.settings.trunks
        checks = (
            (run.campaign.state, run.campaign.state != "running"),
            ("database", not self._healthy()),
            ("not_here", run.lease is None or not run.ready or now >= run.leased_until),
            ("pbx_down", not port.up()),
            ("late", not port.usable()),
            ("clock", self._clocks_apart),
            ("no_trunk", not self.trunks.of(run.pbx, wanted)),
            ("trunks_rest", self.trunks.all_rest(now, run.pbx, wanted)),
            ("no_agents", not run.alone and not run.pace.at_work),
            ("nothing_to_call", run.empty),
        )
        return next((why for why, so in checks if so), "")

    def _tick(self, run: Running, now: float) -> None:
        run.held = self._held(run, now)
        self._give_up(run, now)
        if not run.held and (run.placing is None or run.placing.done()):
            self._place(run, now)

    def _give_up(self, run: Running, now: float) -> None:
        """Ends calls whose answer would find nobody; all that have rung long enough once the campaign is stopped."""
        if run.campaign.state == "stopped":
            ids: Iterable[Any] = [
                live.attempt.id for live in self.calls.of(run.id) if run.pace.rang_enough(live, now)
            ]
        else:
            ids = () if run.alone or not run.ready else list(run.pace.pacing.calls_to_give_up(now))
        for id in ids:
            self.calls.give_up(id)

    def _place(self, run: Running, now: float) -> None:
        s = run.campaign.settings
        if run.alone:
            earned = int(max(1.0, s.calls_per_second)) - run.placed(now, max(1.0, 1.0 / s.calls_per_second))
            wanted = min(s.max_lines - self.calls.under_way(run.id), earned)
        else:
            wanted = run.pace.pacing.calls_to_place(now)
        if wanted <= 0:
            return
        slots = self.trunks.take(now, run.pbx, s.trunks, wanted)
        if not slots:
            run.held = "no_lines"
            return
        run.asked.append((now, len(slots)))
        run.placing = self._spawn(self._claim_and_dial(run, slots))

    async def _claim_and_dial(self, run: Running, slots: list[str]) -> None:
        """Claims a contact for each slot of a trunk and dials it, if it still may be dialed when it has been claimed."""
        loop = asyncio.get_running_loop()
        lease, now, withdrawn = run.lease, datetime.now(UTC), []
        assert lease is not None
        try:
            claim = await self._claims.claim(run.campaign, lease, len(slots), now=now, pbx=run.pbx)
            for one in claim.attempts:
                if self._stopping or self._held(run, loop.time()):
                    withdrawn.append(one.id)
                    continue
                numbers = [(c.number, c.prefixes) for c in run.campaign.settings.caller_ids]
                shown = self._caller_ids.show(run.id, numbers, one.candidate.e164)
                live = claimed(run.campaign, one, run.pbx, slots.pop(0), shown, loop.time())
                self.calls.place(run, live)
            if not claim.held:
                run.lose()
            if claim.empty:
                run.empty = True
                self._all_agents()
            await self._claims.withdraw(withdrawn)
        except DATABASE_AWAY as error:
            log.warning("contacts could not be claimed", campaign=run.id, error=type(error).__name__)
            run.ready = False  # whether it was committed is looked up before anything else is dialed
        finally:
            self.trunks.unused(slots)

    # ------------------------------------------------------------------------------------------ told

    def hear_record(self, pbx: str, record: Record) -> None:
        """Takes what the switch tells of a channel."""
        self.calls.hear_record(pbx, record)

    def hear(self, fact: Fact) -> None:
        """Takes facts about calls, agents and links."""
        match fact:
            case CallEstablished() | ConnectionCleared():
                self.calls.hear(fact)
            case PbxResynced():
                self.calls.resynced(fact)
                self._all_agents()
                self._kick.set()
            case PbxStatusChanged():
                self._kick.set()
            case _:
                agent = getattr(fact, "agent", None)
                if agent is not None and self.running:
                    self._agent(agent)
                    self.calls.match()
                    self._kick.set()

    async def disposed(self, call: str, disposition: str) -> None:
        """An agent has said how a call ended; nothing for a call that no campaign placed."""
        id = call.partition(":")[2]
        if id.startswith("at-"):
            await attempt_store.dispose(self._pool(), id, disposition)

    # ------------------------------------------------------------------------------------------ agents

    def _all_agents(self) -> None:
        views = list(self._agents.all())
        for agent in {*self._hands.lent, *(view.agent for view in views)}:
            self._agent(agent)
        campaigns = {run.id: run.campaign for run in self.running.values() if run.campaign.state == "running"}
        for _ in views:
            moved = self._hands.even_out(campaigns, self._hungry, self._may)
            if moved is None:
                break
            self._hands.lent[moved[0]] = moved[1]
            self._agent(moved[0])

    def _hungry(self, campaign: int) -> bool:
        """Whether the campaign would call somebody, had it agents."""
        run = self.running.get(campaign)
        return run is not None and run.campaign.state == "running" and run.lease is not None and not run.empty

    def _may(self, agent: str) -> list[Campaign]:
        view = self._agents.view(agent)
        if view is None or view.state in AWAY:
            return []
        return [
            run.campaign
            for run in self.running.values()
            if run.campaign.state in ("running", "draining")
            and not run.alone
            and eligible(view, run.campaign, self._agents.team_name)
        ]

    def _agent(self, agent: str) -> None:
        """Tells each campaign's pacing how this agent is for it: at work for the one they are lent to, away for others."""
        now = asyncio.get_running_loop().time()
        view = self._agents.view(agent)
        live = self.calls.of_call(view.call) if view is not None and view.call is not None else None
        if view is not None and live is not None and live.campaign in self.running:
            mine: int | None = live.campaign
            self._hands.lent[agent] = live.campaign
        else:
            mine = self._hands.lend(agent, self._may(agent), self._hungry)
        for run in self.running.values():
            run.pace.agent(agent, view if run.id == mine else None, run.pbx, live, now)
