"""The calls that campaigns have under way: placed, followed by what the switch tells, given to agents, ended and written.

Knows neither lists nor law nor how many calls are wanted. An attempt lives here from the Originate to its outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog

from cti.ami import ActionRefused, AmiError, BadValue, Busy, NotConnected
from cti.ami_events import DialerTold, Record
from cti.commands import CommandError
from cti.facts import (
    AgentState,
    CallEstablished,
    CallView,
    ConnectionCleared,
    ConnectionState,
    Fact,
    PbxResynced,
)
from cti.views import AgentView
from dialer.attempts import Outcome, Stage, Told
from dialer.calling.attempt_writer import AttemptWriter
from dialer.calling.hands import eligible, takes_calls
from dialer.calling.live import Live, told_by
from dialer.calling.running import Running
from dialer.calling.switchboard import AgentsPort, PbxPort, originate_headers
from dialer.calling.trunks import Trunks
from dialer.facts import AttemptAnswered, AttemptConnected, AttemptDialed, AttemptEnded
from dialer.lists import may_call

log = structlog.get_logger(__name__)

SETTLES_WITHIN = 1.0
"""Seconds that a call's last events may come after its end."""

UNSEEN = 5.0
"""Seconds after which an attempt whose call the switch does not have is taken to be over."""

FIRST_SECOND = 1.5
"""Seconds after the answer within which a far end that hangs up counts against the trunk."""

OF_TRUNKS = frozenset({Outcome.CONGESTION, Outcome.FAILED, Outcome.REJECTED})
"""Outcomes that count against the trunk where no phone rang: a carrier that wants no calls of ours rejects them all."""

WROTE = (
    Told.RINGS,
    Told.UP,
    Told.AMD,
    Told.NOBODY,
    Told.MESSAGE,
    Told.NO_MESSAGE,
    Told.LEFT,
    Told.CONNECTED,
    Told.OPTED_OUT,
)
"""What is written down as soon as it is told; the rest with the end."""

THROUGH = frozenset({ConnectionState.CONNECTED, ConnectionState.HOLD, ConnectionState.QUEUED})
TRY_ANOTHER = frozenset({"agent_taken", "line_closed", "agent_not_free", "not_confirmed"})
"""Codes of a connecting that failed for the agent's part: the customer may be given to somebody else."""


class CallDesk:
    """All calls under way of this server's campaigns. `running`: these by id; `kick`: asks for a decision at once."""

    def __init__(
        self,
        *,
        running: Mapping[int, Running],
        pbxs: Mapping[str, PbxPort],
        agents: AgentsPort,
        trunks: Trunks,
        writer: AttemptWriter,
        publish: Callable[[Iterable[Fact]], None],
        set_data: Callable[[str, dict[str, str], str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        kick: Callable[[], None],
    ) -> None:
        self._running = running
        self._pbxs = pbxs
        self._agents = agents
        self._trunks = trunks
        self._writer = writer
        self._publish = publish
        self._set_data = set_data
        self._spawn = spawn
        self._kick = kick
        self._live: dict[str, Live] = {}
        self._taking: set[str] = set()

    def __contains__(self, attempt: str) -> bool:
        return attempt in self._live

    def of(self, campaign: int) -> list[Live]:
        """The campaign's calls under way."""
        return [live for live in self._live.values() if live.campaign == campaign]

    def under_way(self, campaign: int) -> int:
        """How many calls it has under way."""
        return sum(live.campaign == campaign for live in self._live.values())

    def close(self) -> None:
        """No more is decided on; calls go on at the switch."""
        for live in self._live.values():
            if live.settles is not None:
                live.settles.cancel()

    # ------------------------------------------------------------------------------------------ placed and given up

    def place(self, run: Running, live: Live) -> None:
        """Dials an attempt that is committed; its trunk's slot is taken."""
        self._live[live.attempt.id] = live
        live.attempt.tell(Told.SENT, asyncio.get_running_loop().time())
        self._writer.note(live)
        run.pace.call(live, live.attempt.at[Told.SENT])
        self._publish([AttemptDialed(**self._about(run, live), trunk=live.trunk)])
        self._spawn(self._dial(run, live))

    async def _dial(self, run: Running, live: Live) -> None:
        if not run.holds(asyncio.get_running_loop().time()):
            live.why = "not dialed: this server stood still, and another may have taken over"
            self._tell(live, Told.REFUSED)
            return
        plan = self._trunks.plan(live.trunk)
        assert plan is not None, live.trunk
        views = (self._agents.view(agent) for agent in run.pace.agents)
        headers = originate_headers(
            run.campaign,
            attempt=live.attempt.id,
            channel=plan.channel(live.e164),
            caller_id=live.caller_id,
            off_hook=any(view is not None and view.off_hook for view in views),
            drop=live.drop,
        )
        try:
            await self._pbxs[live.pbx].originate(headers)
        except (ActionRefused, BadValue, NotConnected, Busy) as error:
            live.why = str(error)[:200]
            log.warning("a call was not placed", campaign=run.id, attempt=live.attempt.id, error=live.why)
            self._tell(live, Told.REFUSED)
        except AmiError:
            log.info("whether a call was placed is not known yet", attempt=live.attempt.id)

    def give_up(self, attempt: str, why: str = "") -> None:
        """Ends a call that has not been answered. `why`: RANG_OUT, where nobody has answered in the time there is."""
        live = self._live.get(attempt)
        if live is not None and live.attempt.stage <= Stage.RINGING and Told.GIVEN_UP not in live.attempt.at:
            live.attempt.tell(Told.GIVEN_UP, asyncio.get_running_loop().time(), why)
            self._spawn(self._hang_up(live))

    async def _hang_up(self, live: Live) -> None:
        with suppress(AmiError):
            await self._pbxs[live.pbx].send("Hangup", {"Channel": live.attempt.id, "Cause": "16"})

    # ------------------------------------------------------------------------------------------ taken up

    def take_up(self, live: Live) -> None:
        """An attempt of a former process: followed on where the switch has its call, else ended as far as it is known."""
        self._live[live.attempt.id] = live
        view = self._pbxs[live.pbx].view(live.call) if live.pbx in self._pbxs else None
        if view is None:
            live.why = "ended while no server watched"
            self._tell(live, Told.LOST)
            return
        live.slot = live.taken_up = True
        self._trunks.take_up(live.trunk)
        self._see(live, view)
        log.info("an attempt is taken up", campaign=live.campaign, attempt=live.attempt.id)

    def _see(self, live: Live, view: CallView) -> None:
        """Takes over what the switch shows of a call whose events were missed."""
        own = next((c for c in view.connections if c.id.partition(":")[2] == live.attempt.id), None)
        self._tell(live, Told.APPEARED)
        if own is not None and own.state is ConnectionState.ALERTING:
            self._tell(live, Told.RINGS)
        if own is not None and own.state in THROUGH:
            self._tell(live, Told.UP)
        agent = next((c.agent for c in view.connections if c.agent and c.state in THROUGH), None)
        if agent is not None:
            self._connected(live, agent)
        elif len(view.connections) == 1 and Told.UP in live.attempt.at:
            self._waits(live)

    def resynced(self, fact: PbxResynced) -> None:
        """A PBX's state was asked for again: what it has no call for any more is over."""
        port = self._pbxs.get(fact.pbx)
        now = asyncio.get_running_loop().time()
        for live in [live for live in self._live.values() if live.pbx == fact.pbx and port is not None]:
            view = port.view(live.call) if port is not None else None
            if view is not None:
                self._see(live, view)
            elif Told.APPEARED in live.attempt.at or now - live.attempt.at.get(Told.SENT, now) > UNSEEN:
                live.why = live.why or "its end was not seen"
                self._tell(live, Told.LOST)

    def sweep(self, now: float) -> None:
        """Ends attempts whose calls the switch did not have at two looks: their last events were lost. A call that goes on
        after its answer says of its trunk that it works, however long it goes on."""
        for live in list(self._live.values()):
            if not live.through and now - live.attempt.at.get(Told.UP, now) > FIRST_SECOND:
                live.through = True
                self._trunks.got_through(live.trunk)
            port = self._pbxs[live.pbx]
            if now - live.attempt.at.get(Told.SENT, now) < UNSEEN or not port.up() or live.attempt.over:
                continue
            if port.view(live.call) is not None:
                live.unseen = False
            elif live.unseen:
                live.why = live.why or "its end was not seen"
                self._tell(live, Told.LOST)
            else:
                live.unseen = True

    # ------------------------------------------------------------------------------------------ told

    def hear_record(self, pbx: str, record: Record) -> None:
        """Takes what the switch tells of a channel; of any but ours that is a look into a dictionary."""
        id = getattr(record, "uniqueid", None) or getattr(record, "dialled", None)
        live = self._live.get(id) if isinstance(id, str) else None
        if live is None or live.pbx != pbx:
            return
        for what, info in told_by(record):
            self._tell(live, what, info)
        if isinstance(record, DialerTold) and record.what == "waiting":
            self._waits(live)

    def hear(self, fact: CallEstablished | ConnectionCleared) -> None:
        """Takes the facts that tell of agents in our calls."""
        live = self.of_call(fact.call)
        if live is None or fact.agent is None:
            return
        if isinstance(fact, CallEstablished):
            self._connected(live, fact.agent)
        elif live.attempt.agent == fact.agent and fact.reason != "lost":
            live.attempt.tell(Told.AGENT_LEFT, asyncio.get_running_loop().time())

    def of_call(self, call: str) -> Live | None:
        """The attempt whose call this is."""
        pbx, _, id = call.partition(":")
        live = self._live.get(id)
        return live if live is not None and live.pbx == pbx else None

    def _tell(self, live: Live, what: Told, info: str = "") -> None:
        now = asyncio.get_running_loop().time()
        run = self._running.get(live.campaign)
        if live.done or not live.attempt.tell(what, now, info):
            return
        if what in WROTE:
            self._writer.note(live)
        if what is Told.APPEARED and live.data:
            self._set_data(live.call, dict(live.data), "dialer")
        if what in (Told.NOBODY, Told.CONNECTED):
            live.waiting = False
        if run is not None:
            if what is Told.UP:
                run.answered += 1
                rang = live.between(Told.RINGS, Told.UP)
                self._publish([AttemptAnswered(**self._about(run, live), rang=rang)])
            run.pace.call(live, now)
        if live.attempt.over:
            self._over(live)
        elif what in (Told.UP, Told.AMD, Told.CONNECTED, Told.NOBODY):
            self._kick()

    def _connected(self, live: Live, agent: str) -> None:
        self._tell(live, Told.UP)
        if live.done or Told.CONNECTED in live.attempt.at:
            return
        theirs = may_call(live.assigned, self._agents.person(agent))
        if not theirs:
            ours = agent in self._taking
            how = (
                f"given to {agent}: no open line of theirs was free"
                if ours
                else f"the queue gave it to {agent}"
            )
            live.why = f"list assigned to {live.assigned.told()}"[:110] + f"; {how}"
        self._tell(live, Told.CONNECTED, agent)
        run = self._running.get(live.campaign)
        if run is not None:
            waited = live.attempt.waited
            about = self._about(run, live)
            self._publish([AttemptConnected(**about, agent=agent, waited=waited, theirs=theirs)])

    # ------------------------------------------------------------------------------------------ over

    def _over(self, live: Live) -> None:
        """Its call is over; it is settled when all that may still be told has been."""
        live.waiting = False
        self._free_slot(live)
        if live.attempt.settled:
            self._finish(live)
        elif live.settles is None:
            live.settles = asyncio.get_running_loop().call_later(SETTLES_WITHIN, self._finish, live)

    def _free_slot(self, live: Live) -> None:
        if live.slot:
            live.slot = False
            self._trunks.over(live.trunk)

    def _finish(self, live: Live) -> None:
        if live.done:
            return
        live.done, live.waiting = True, False
        del self._live[live.attempt.id]
        if live.settles is not None:
            live.settles.cancel()
        now = asyncio.get_running_loop().time()
        attempt, outcome = live.attempt, live.attempt.outcome()
        self._free_slot(live)
        self._judge_trunk(live, outcome, now)
        self._writer.note(live)
        self._kick()
        run = self._running.get(live.campaign)
        if run is None:
            return
        run.outcomes[outcome.value] += 1
        run.pace.ended(live, outcome, now)
        rang = live.between(Told.RINGS, Told.UP if Told.UP in attempt.at else Told.GONE)
        ended = AttemptEnded(
            **self._about(run, live),
            outcome=outcome,
            detail=attempt.detail.value if attempt.detail is not None else "",
            cause=attempt.cause,
            rang=rang,
            waited=attempt.waited,
            talked=live.between(Told.CONNECTED, Told.GONE),
            agent=attempt.agent,
            message_played=attempt.played is not None,
            opted_out=Told.OPTED_OUT in attempt.at,
        )
        self._publish([ended])

    def _judge_trunk(self, live: Live, outcome: Outcome, now: float) -> None:
        """Whether the trunk did its work: one that is congested or refuses without a ring did not, nor did an answer that
        ends at once."""
        at = live.attempt.at
        if outcome is Outcome.UNKNOWN or Told.REFUSED in at:
            return
        after_answer = live.between(Told.UP, Told.FAR_END)
        hollow = after_answer is not None and after_answer < FIRST_SECOND
        if hollow or (outcome in OF_TRUNKS and Told.RINGS not in at):
            rest = self._trunks.failed(now, live.trunk)
            if rest:
                log.warning("a trunk rests", trunk=live.trunk, seconds=rest, outcome=outcome.value)
        elif not live.through:
            self._trunks.got_through(live.trunk)

    def _about(self, run: Running, live: Live) -> dict[str, Any]:
        return {
            "at": datetime.now(UTC),
            "attempt": live.attempt.id,
            "campaign": run.id,
            "contact": live.contact,
            "call": live.call,
            "teams": run.teams,
        }

    # ------------------------------------------------------------------------------------------ given to agents

    def _waits(self, live: Live) -> None:
        """This customer waits in the dialplan for an agent."""
        attempt = live.attempt
        if attempt.stage is Stage.ANSWERED and not attempt.machine and Told.NOBODY not in attempt.at:
            live.waiting = True
            self.match()

    def match(self) -> None:
        """Gives those who wait to free agents with open lines: by the campaign's priority, then who has waited longest,
        to who has been free longest of those whom the list is assigned to; to others only where none of those is free."""
        waiting = [live for live in self._live.values() if live.waiting and not live.connecting]
        if not waiting:
            return
        waiting.sort(key=lambda live: (-self._priority(live), live.attempt.wait_began or 0.0))
        free = [
            view
            for view in self._agents.all()
            if view.off_hook and view.agent not in self._taking and view.state is AgentState.READY
        ]
        free.sort(key=lambda view: view.since)
        sought = [live for live in self._live.values() if live.seeks_agent and not live.assigned.to_all]
        for live in waiting:
            suits = [view for view in free if self._suits(live, view)]
            if suits:
                view = min(suits, key=lambda view: self._keeps(live, view, sought)) if sought else suits[0]
                free.remove(view)
                self._taking.add(view.agent)
                live.connecting = True
                self._spawn(self._connect(live, view))

    def _suits(self, live: Live, view: AgentView) -> bool:
        run = self._running.get(live.campaign)
        return (
            run is not None
            and live.tried.get(view.agent) != view.since
            and takes_calls(view, live.pbx)
            and eligible(view, run.campaign, self._agents.team_name)
        )

    def _keeps(self, live: Live, view: AgentView, sought: Sequence[Live]) -> tuple[bool, int]:
        """How much is against giving this agent the call: whether the list is for others, and how many other calls under
        way are of lists that are for this agent."""
        person = self._agents.person(view.agent)
        others = sum(may_call(one.assigned, person) for one in sought if one is not live)
        return not may_call(live.assigned, person), others

    def gives_to(self, agent: str) -> bool:
        """Whether a call is being given to this agent at this moment."""
        return agent in self._taking

    def _priority(self, live: Live) -> int:
        run = self._running.get(live.campaign)
        return run.campaign.priority if run is not None else 0

    async def _connect(self, live: Live, view: AgentView) -> None:
        try:
            await self._agents.connect(live.call, view.agent)
        except CommandError as error:
            log.info("a customer could not be given to an agent", agent=view.agent, code=error.code)
            if error.code in TRY_ANOTHER:
                live.tried[view.agent] = view.since  # not again before something has changed for them
            else:
                live.waiting = False  # in the queue by now, or gone: the dialplan says when they wait again
        finally:
            self._taking.discard(view.agent)
            live.connecting = False
            self._kick()
