"""A campaign that this server runs: its row, its lease, its pace, and what it came to. Shapes and arithmetic only."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dialer.attempts import Stage
from dialer.calling.claims import Claimed, Lease
from dialer.calling.live import Live
from dialer.calling.pace import Pace
from dialer.management.settings import Campaign, CampaignLive

AGENT_WORDS = {"ready": "free", "talk": "talking", "wrap": "wrapping_up", "break": "away"}
HELD = {
    "paused": "no calls are placed",
    "draining": "calls under way go on, no more are placed",
    "stopped": "stopped",
    "draft": "not started",
    "database": "the database does not answer: nothing is placed until it does",
    "not_here": "another server paces this campaign, or it is not ready yet",
    "pbx_down": "the PBX cannot be reached: nothing is placed until its state is known",
    "late": "the PBX's events come late: nothing is placed until they come in time",
    "clock": "this server's clock and the database's differ: calling hours cannot be kept; set the clock",
    "no_trunk": "no trunk is set up for this PBX (CTI_DIALER__TRUNKS), or none by the names in the settings",
    "trunks_rest": "every trunk has failed several times in a row and rests",
    "no_agents": "no agent is at work",
    "nothing_to_call": "nobody in the lists may be called now",
    "not_theirs": "those whom the lists are assigned to are not free: nobody else is called for",
    "no_lines": "all channels or calls a second of the trunks are in use",
}
"""Why nothing is placed, in a sentence."""


@dataclass(slots=True, eq=False)
class Running:
    """`ready`: what was in flight before is settled, so it may dial. `empty`: nobody in its lists may be called now;
    `passed_over`: somebody may, but on lists that are assigned to agents who are not free (looked at `again`).
    `stale`: its settings have changed since its pace was made. `under_way`: attempts of it, of any server, have not
    ended. `asked`: (when, how many) calls of the last minute. `placing`: contacts are being claimed; `sending`: those that
    were are dialed one after the other, `due` (by attempt) not yet. `tokens`: calls that the calls a second allow by now."""

    campaign: Campaign
    pbx: str
    pace: Pace
    teams: tuple[str, ...] = ()
    lease: Lease | None = None
    leased_until: float = 0.0
    ready: bool = False
    stale: bool = False
    under_way: bool = False
    empty: bool = False
    passed_over: bool = False
    again: float = 0.0
    held: str = "not_here"
    placing: asyncio.Task[None] | None = None
    sending: set[asyncio.Task[None]] = field(default_factory=set)
    due: dict[str, Claimed] = field(default_factory=dict)
    tokens: float = 1.0
    earned_at: float | None = None
    asked: deque[tuple[float, int]] = field(default_factory=deque)
    outcomes: Counter[str] = field(default_factory=Counter)
    answered: int = 0

    @property
    def id(self) -> int:
        """The campaign's id."""
        return self.campaign.id

    @property
    def alone(self) -> bool:
        """Whether no agents are meant to talk."""
        return self.campaign.mode == "agentless"

    @property
    def for_nobody(self) -> bool:
        """Whether whoever answers would find no agent at work: none is lent to it."""
        return not self.alone and not self.pace.at_work

    def holds(self, now: float) -> bool:
        """Whether this server may pace it at this moment, by a clock that goes on while the server is stopped."""
        return self.lease is not None and now < self.leased_until

    def lose(self) -> None:
        """Another may pace it now."""
        self.lease, self.ready = None, False

    def earned(self, now: float, tick_s: float) -> int:
        """How many calls the campaign's calls a second allow by now; not more than those since this was last asked."""
        rate = self.campaign.settings.calls_per_second
        since = min(now - self.earned_at, 2.0) if self.earned_at is not None else tick_s
        self.earned_at = now
        self.tokens = min(self.tokens + rate * since, max(1.0, rate * max(tick_s, since)))
        return int(self.tokens + 1e-6)

    def placed(self, now: float, seconds: float) -> int:
        """How many calls were asked for in the last so many seconds, a minute at most."""
        while self.asked and now - self.asked[0][0] > 60.0:
            self.asked.popleft()
        return sum(calls for at, calls in self.asked if now - at < seconds)

    def view(self, under_way: Iterable[Live], trunks: dict[str, str], now: float) -> CampaignLive:
        """How it stands."""
        stages = Counter(min(live.attempt.stage, Stage.CONNECTED).word for live in under_way)
        live, lost, spare = self.pace.pacing.stands(now)
        pace = "as many as lines and calls a second allow" if self.alone else self.pace.pacing.why(now)
        return CampaignLive(
            campaign=self.id,
            state=self.campaign.state,
            mode=self.campaign.mode,
            here=self.lease is not None,
            owner=self.lease.owner if self.lease is not None else "",
            at=datetime.now(UTC),
            agents=dict(Counter(AGENT_WORDS[kind] for kind in self.pace.agents.values())),
            calls=dict(stages),
            attempts=sum(self.outcomes.values()) + sum(stages.values()),
            answered=self.answered,
            connected=self.outcomes["connected"],
            live=live,
            lost=lost,
            may_be_lost=spare,
            pace=self.placed(now, 60.0),
            held=self.held,
            why=HELD.get(self.held, self.held) if self.held else pace,
            outcomes=dict(self.outcomes),
            trunks=trunks,
        )
