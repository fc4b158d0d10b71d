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
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
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
    AgentState,
    AgentStateChanged,
    CallEstablished,
    ConnectionCleared,
    Fact,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
    QueueMemberLeft,
)
from dialer.attempts import RANG_OUT
from dialer.calling import attempt_store
from dialer.calling.attempt_writer import AttemptWriter
from dialer.calling.call_desk import CallDesk
from dialer.calling.claims import Claimed, Claims
from dialer.calling.clocks import Clocks
from dialer.calling.for_whom import ForFree
from dialer.calling.hands import AWAY, Hands, eligible, takes_calls
from dialer.calling.live import claimed as claimed_live
from dialer.calling.live import remembered
from dialer.calling.pace import Pace
from dialer.calling.running import Running
from dialer.calling.switchboard import AgentsPort, PbxPort, drop_for
from dialer.calling.trunks import CallerIds, Trunks
from dialer.law import ledger
from dialer.lists import may_call
from dialer.management.settings import DIALED_BY_ITSELF, Campaign, CampaignLive, CampaignSettings

if TYPE_CHECKING:
    from cti.database import Pool
    from cti.people import Agent
    from cti.views import AgentView

log = structlog.get_logger(__name__)

LOOK_EVERY = 2.0
"""Seconds between two looks at the campaigns' rows, at most."""

REMEMBERED = 5_000
"""Attempts of the window from which pacing learns at a start: more than it remembers of calls (3,000) and, where one in six
comes to an agent, of talks (800). What may still be lost is not counted from them, but by the ledger of the whole window."""

APART = 0.01
"""Seconds between two calls of one tick where the trunk would take more, and the tick is long enough for it."""

PASSED_OVER = 1.0
"""Seconds after which it is looked again whether those are free whom the lists are assigned to."""

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
        legal_window_h: Callable[[Campaign], float] = lambda campaign: 0.0,
        tick_s: float = 0.5,
        lease_s: float = 10.0,
        owner: str = "",
    ) -> None:
        """`healthy`: whether the database answers; `within`: a campaign's settings within its profile's limits, or
        ValueError; `error_share`: of the machines detected, that are people and count as lost by its law; `legal_window_h`:
        hours over which that counts."""
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
        self._legal_window_h = legal_window_h
        self._tick_s = tick_s
        self._lease_s = lease_s
        self.owner = owner or f"{socket.gethostname()[:40]}:{os.getpid()}:{os.urandom(3).hex()}"
        self.running: dict[int, Running] = {}
        self._hands = Hands()
        self._kick = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = asyncio.Lock()
        self.clocks = Clocks(asyncio.get_running_loop().time)
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
        sending = [task for run in self.running.values() for task in run.sending]
        await asyncio.gather(*sending, return_exceptions=True)
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
            self.clocks.looked(await self._pool().fetchval("SELECT clock_timestamp()"))
            rows = await self._pool().fetch(
                """
                SELECT id, name, mode, state, profile, settings, priority, version,
                       EXISTS (SELECT FROM attempts a WHERE a.campaign_id = c.id AND a.state <> 'ended') AS under_way
                  FROM campaigns c
                 WHERE state IN ('running', 'draining') OR id = ANY($1)
                    OR id IN (SELECT campaign_id FROM attempts WHERE state <> 'ended')
                """,
                list(self.running),
            )
            for row in rows:
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
        return Pace(campaign, self._tick_s, self._error_share(campaign), self._legal_window_h(campaign))

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
        if run.sending:
            await asyncio.wait(set(run.sending))
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
        window, legal = settings.abandonment_window_h, self._legal_window_h(run.campaign)
        counted = await ledger.for_pace(self._pool(), run.id, window, legal, datetime.now(UTC))
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
        """Whether a campaign that had nobody to call has again, and whom its lists are assigned to by now."""
        if run.campaign.state != "running" or run.lease is None:
            return
        if not run.empty:
            if await self._claims.look(run.id):
                self._all_agents()
        elif await self._claims.anybody(run.campaign, datetime.now(UTC)):
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
            ("not_here", not run.ready or not run.holds(now)),
            ("pbx_down", not port.up()),
            ("late", not port.usable()),
            ("clock", self.clocks.apart()),
            ("no_trunk", not self.trunks.of(run.pbx, wanted)),
            ("trunks_rest", self.trunks.all_rest(now, run.pbx, wanted)),
            ("nothing_to_call", run.empty),
            ("no_agents", run.for_nobody),
        )
        return next((why for why, so in checks if so), "")

    def _tick(self, run: Running, now: float) -> None:
        run.held = self._held(run, now)
        self._give_up(run, now)
        if not run.held and (run.placing is None or run.placing.done()):
            self._place(run, now)
        if not run.held and run.passed_over:
            run.held = "not_theirs"

    def _give_up(self, run: Running, now: float) -> None:
        """Ends calls that nobody has answered in time, and those whose answer would find nobody; all that have rung long
        enough once the campaign is stopped."""
        for live in self.calls.of(run.id):
            if run.pace.rang_out(live, now):
                self.calls.give_up(live.attempt.id, RANG_OUT)
        if run.campaign.state == "stopped":
            ids: Iterable[Any] = [
                live.attempt.id for live in self.calls.of(run.id) if run.pace.rang_enough(live, now)
            ]
        else:
            ids = () if run.alone or not run.ready else list(run.pace.pacing.calls_to_give_up(now))
        for id in ids:
            self.calls.give_up(id)

    def _place(self, run: Running, now: float) -> None:
        if run.passed_over and now < run.again:
            return
        s = run.campaign.settings
        if run.alone:
            free = s.max_lines - self.calls.under_way(run.id) - len(run.due)
            wanted = max(0, min(free, run.earned(now, self._tick_s)))
            run.tokens -= wanted
        else:
            wanted = run.pace.pacing.calls_to_place(now)
        if wanted <= 0:
            run.passed_over = False
            return
        slots = self.trunks.take(now, run.pbx, s.trunks, wanted)
        self._not_placed(run, wanted - len(slots))
        if not slots:
            run.held = "no_lines"
            return
        run.asked.append((now, len(slots)))
        run.placing = self._spawn(self._claim_and_dial(run, slots))

    async def _claim_and_dial(self, run: Running, slots: list[str]) -> None:
        """Claims a contact for each slot of a trunk, and has those who were claimed dialed one after the other."""
        lease, now = run.lease, datetime.now(UTC)
        assert lease is not None
        try:
            reach = self._reach(run)
            claim = await self._claims.claim(
                run.campaign, lease, len(slots), now=now, pbx=run.pbx, reach=reach
            )
            dropped = await self._messages_on_machines(run.campaign, claim.attempts)
            if not claim.held:
                run.lose()
            if claim.passed_over:
                run.again = asyncio.get_running_loop().time() + PASSED_OVER
                if run.asked:
                    run.asked[-1] = (run.asked[-1][0], 0)
            if claim.empty or claim.passed_over != run.passed_over:
                run.empty, run.passed_over = claim.empty, claim.passed_over
                self._all_agents()
            if claim.attempts:
                taken = [slots.pop(0) for _ in claim.attempts]
                self._send_later(run, list(zip(claim.attempts, taken, strict=True)), dropped)
        except DATABASE_AWAY as error:
            log.warning("contacts could not be claimed", campaign=run.id, error=type(error).__name__)
            run.ready = False  # whether it was committed is looked up before anything else is dialed
        finally:
            self.trunks.unused(slots)
            self._not_placed(run, len(slots))

    def _send_later(
        self, run: Running, claimed: list[tuple[Claimed, str]], dropped: Mapping[int, int]
    ) -> None:
        run.due |= {one.id: one for one, _ in claimed}
        now, apart = asyncio.get_running_loop().time(), min(self._tick_s / len(claimed), APART)
        turns = [(self.trunks.turn(trunk, now, apart), one, trunk) for one, trunk in claimed]
        task = self._spawn(self._send(run, sorted(turns, key=lambda turn: turn[0]), dropped))
        run.sending.add(task)
        task.add_done_callback(run.sending.discard)

    async def _send(
        self, run: Running, turns: list[tuple[float, Claimed, str]], dropped: Mapping[int, int]
    ) -> None:
        """Dials each in its turn: all at once, each would wait at the switch for those before it, and carriers count calls a
        second. Who may not be dialed any more when their turn has come goes back."""
        loop = asyncio.get_running_loop()
        withdrawn: list[str] = []
        try:
            while turns:
                at, one, trunk = turns[0]
                if (wait := at - loop.time()) > 0 and not self._stopping:
                    await asyncio.sleep(wait)
                del turns[0], run.due[one.id]
                # That nobody else may be called now says nothing of those who were claimed.
                held = self._held(run, loop.time()) not in ("", "nothing_to_call") or run.for_nobody
                if self._stopping or held:
                    withdrawn.append(one.id)
                    self.trunks.unused([trunk])
                    self._not_placed(run, 1)
                    continue
                numbers = [(c.number, c.prefixes) for c in run.campaign.settings.caller_ids]
                shown = self._caller_ids.show(run.id, numbers, one.candidate.e164)
                drop = drop_for(run.campaign, one, dropped)
                live = claimed_live(run.campaign, one, run.pbx, trunk, shown, loop.time(), drop)
                self.calls.place(run, live)
            await self._claims.withdraw(withdrawn)
        except DATABASE_AWAY as error:
            log.warning("attempts could not be taken back yet", campaign=run.id, error=type(error).__name__)
            run.ready = False  # they are taken back before anything else is dialed
        finally:
            for _, one, trunk in turns:
                run.ready = False
                del run.due[one.id]
                self.trunks.unused([trunk])

    @staticmethod
    def _not_placed(run: Running, calls: int) -> None:
        """So many calls that were wanted are not dialed."""
        if run.alone:
            run.tokens += calls
        else:
            run.pace.pacing.not_placed(calls)

    async def _messages_on_machines(self, campaign: Campaign, claimed: Sequence[Claimed]) -> dict[int, int]:
        """How many messages machines of these contacts have had; not looked up where none is left on any."""
        if not claimed or not campaign.settings.amd or campaign.settings.machine_message is None:
            return {}
        contacts = [one.candidate.contact for one in claimed]
        return await attempt_store.messages_on_machines(self._pool(), campaign.id, contacts)

    def _reach(self, run: Running) -> ForFree | None:
        """For whose free agents may be called; None where no agents are meant to talk."""
        if run.alone:
            return None

        def people(views: Iterable[AgentView]) -> Iterable[Agent]:
            return (found for view in views if (found := self._agents.person(view.agent)) is not None)

        def free() -> Iterable[Agent]:
            ready = (self._agents.view(agent) for agent, kind in run.pace.agents.items() if kind == "ready")
            views = (view for view in ready if view is not None and takes_calls(view, run.pbx))
            return people(view for view in views if not self.calls.gives_to(view.agent))

        def at_work() -> Iterable[Agent]:
            named = self._agents.team_name
            return people(view for view in self._agents.all() if eligible(view, run.campaign, named))

        waiting = [live.assigned for live in self.calls.of(run.id) if live.seeks_agent]
        waiting += [one.assigned for one in run.due.values()]
        return ForFree(free, at_work, waiting)

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

    # ------------------------------------------------------------------------------------------ agents

    def _all_agents(self) -> None:
        for agent in {*self._hands.lent, *(view.agent for view in self._agents.all())}:
            self._agent(agent)

    def _hungry(self, campaign: int) -> bool:
        """Whether the campaign would call somebody, had it agents."""
        run = self.running.get(campaign)
        return run is not None and run.campaign.state == "running" and run.lease is not None and not run.empty

    def _hungry_for(self, agent: str) -> Callable[[int], bool]:
        """Whether a campaign would call somebody for this agent."""
        person = self._agents.person(agent)

        def hungry(campaign: int) -> bool:
            lists = self._claims.assigned(campaign)
            theirs = not lists or any(may_call(assigned, person) for assigned in lists)
            return theirs and self._hungry(campaign)

        return hungry

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
            mine = self._hands.lend(agent, self._may(agent), self._hungry_for(agent))
        for run in self.running.values():
            if view is not None and view.state is AgentState.UNKNOWN:
                run.pace.out_of_sight(agent)
            run.pace.agent(agent, view if run.id == mine else None, run.pbx, live, now)
