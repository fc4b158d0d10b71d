"""A campaign's pacing, told what happens: calls, agents, and at a start what the window already holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cti.facts import AgentState
from cti.views import AgentView
from dialer.attempts import CountsAs, Outcome, Told, left_to_connect
from dialer.calling.hands import takes_calls
from dialer.calling.live import Live
from dialer.management.settings import Campaign
from dialer.pacing import RING_UNSAID, Mode, Pacing, PacingConfig

MODES: dict[str, Mode] = {
    "power": "power",
    "predictive": "predictive",
    "predictive-strict": "predictive-strict",
}
"""Campaign's mode → pacing's; any other is progressive."""

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

Event = tuple[float, int, str, str, Any]


class Pace:
    """One campaign's pacing. `agents`: what it was told of each agent at work for it: ready, talk, wrap or break.
    `error_share`: of the detected machines, that are people and count as lost by its law; `legal_window_h`: hours over
    which the law counts abandoned calls, whatever shorter window the pace looks at."""

    def __init__(
        self, campaign: Campaign, tick_s: float, error_share: float = 0.0, legal_window_h: float = 0.0
    ) -> None:
        s = campaign.settings
        self.alone = campaign.mode == "agentless"
        self.min_ring, self.ring_timeout = s.min_ring_s, s.ring_timeout_s
        self.agents: dict[str, str] = {}
        self.pacing = Pacing(
            PacingConfig(
                mode=MODES.get(campaign.mode, "progressive"),
                abandonment_cap=s.abandonment_cap,
                window_s=s.abandonment_window_h * 3600.0,
                legal_window_s=legal_window_h * 3600.0,
                answer_wait_s=left_to_connect(s.answer_wait_s, amd=s.amd, wait_from=s.wait_from),
                error_share=error_share,
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

    @property
    def at_work(self) -> bool:
        """Whether an agent takes calls, talks or writes up."""
        return any(kind != "break" for kind in self.agents.values())

    def rang_enough(self, live: Live, now: float) -> bool:
        """Whether a call that is not answered has rung as long as it must."""
        at = live.attempt.at
        return now - at.get(Told.RINGS, at.get(Told.SENT, now) + RING_UNSAID) >= self.min_ring

    def rang_out(self, live: Live, now: float) -> bool:
        """Whether nobody has answered a call in the time there is; the ring time counts from the dialing, but a call that
        began to ring late rings as long as it must."""
        sent = live.attempt.at.get(Told.SENT, now)
        return now - sent >= self.ring_timeout and self.rang_enough(live, now)

    # ------------------------------------------------------------------------------------------ calls

    def call(self, live: Live, now: float) -> None:
        """Tells what is new of a call, each thing once, in its order."""
        attempt, told = live.attempt, live.paced
        for what, kind in ((Told.SENT, "dial"), (Told.RINGS, "ring"), (Told.UP, "answer")):
            if what in attempt.at:
                self._once(live, now, kind)
        if attempt.amd and Told.AMD in attempt.at:
            self._once(live, now, "amd", _heard(attempt.counts_as, machine=attempt.machine))
        if self.alone or not told.isdisjoint(("connect", "abandon")):
            return
        if attempt.person:
            self._once(live, now, "queue")
        if Told.CONNECTED in attempt.at:
            late = attempt.counts_as is CountsAs.LATE
            self._once(live, now, "connect", (attempt.agent, attempt.waited or 0.0, late))
        elif Told.NOBODY in attempt.at:
            self._once(live, now, "abandon", attempt.waited or 0.0)

    def _once(self, live: Live, now: float, kind: str, info: Any = None) -> None:
        if kind not in live.paced:
            live.paced.add(kind)
            self.pacing.observe(now, kind, live.attempt.id, info)

    def ended(self, live: Live, outcome: Outcome, now: float) -> None:
        """Tells that a call is over, unless its end was told with the agent or the loss."""
        if not live.paced.isdisjoint(("connect", "abandon")):
            return
        match live.attempt.counts_as:
            case CountsAs.NOBODY:
                self._once(live, now, "abandon", live.attempt.waited or 0.0)
            case CountsAs.EARLY:
                self._once(live, now, "end", "early")
            case _:
                self._once(live, now, "end", END.get(outcome, "cancel"))

    # ------------------------------------------------------------------------------------------ agents

    def out_of_sight(self, login: str) -> None:
        """Nobody sees for now how the agent is: what they do now is not as long as it seems."""
        self.pacing.unseen(login)

    def agent(self, login: str, view: AgentView | None, pbx: str, live: Live | None, now: float) -> None:
        """Tells how an agent is now; None: not at work for this campaign. `live`: the attempt they talk in, of any
        campaign; or are offered."""
        old = self.agents.get(login)
        new = None if view is None else _kind(view, pbx, old, talks=live is not None)
        if new == old:
            return
        if old is None:
            self.pacing.observe(now, "login", login)
        if new is None:
            del self.agents[login]
            self.pacing.observe(now, "logout", login)
            return
        self.agents[login] = new
        # Until it is told how the call came to the agent, it is not told that it did: a late one is lost.
        told = new == "talk" and live is not None and "connect" in live.paced
        self.pacing.observe(now, new, login, live.attempt.id if told and live is not None else None)
        if new == "talk" and live is not None and live.taken_up:
            self.pacing.unseen(login)  # it has begun long ago

    # ------------------------------------------------------------------------------------------ what has been

    def replay(
        self, rows: Iterable[Any], counted: Iterable[tuple[float, int, int, int]], now: float, *, amd: bool
    ) -> Iterator[None]:
        """Tells attempts of the window that have ended, from how long ago each thing was; pauses where others may have their
        turn. `counted`: what the ledger has of the whole window, (how long ago, live answers, abandoned, machines): the
        budgets are that."""
        events: list[Event] = []
        for row in rows:
            events += _replayed(row, now, amd=amd)
            if row["talked"] is not None:
                self.pacing.talked(max(0.0, row["talked"]))
        events.sort(key=lambda event: event[:2])
        for number, (at, _, kind, ident, info) in enumerate(events, 1):
            self.pacing.observe(at, kind, ident, info)
            if number % 500 == 0:
                yield
        self.pacing.hold(now, [(now - ago, *counts) for ago, *counts in counted])  # type: ignore[misc]


def _kind(view: AgentView, pbx: str, old: str | None, *, talks: bool) -> str:
    match view.state:
        case AgentState.READY:
            return "ready" if takes_calls(view, pbx) else "break"
        case AgentState.BUSY if talks:
            return "talk"
        case AgentState.RESERVED if talks:
            return old or "ready"
        case AgentState.WRAP_UP if old in ("talk", "wrap"):
            return "wrap"
    return "break"


def _heard(counts_as: CountsAs | str | None, *, machine: bool) -> str:
    """What pacing is told of the detection."""
    return "machine" if counts_as == CountsAs.MACHINE else "fax" if machine else "human"


def _replayed(row: Any, now: float, *, amd: bool) -> Sequence[Event]:
    id, outcome = row["id"], row["outcome"]
    events: list[tuple[float, str, Any]] = [(row["dialed"], "dial", None)]
    if row["ringing"] is not None:
        events.append((row["ringing"], "ring", None))
    if row["answered"] is not None:
        events.append((row["answered"], "answer", None))
        if amd and row["amd"] is not None:
            said = _heard(row["counts_as"], machine=outcome in ("machine", "fax"))
            events.append((row["answered"] - (row["amd_s"] or 0.0), "amd", said))
    if outcome in ("connected", "agent_error"):
        at = row["connected"] if row["connected"] is not None else row["ended"]
        late = row["counts_as"] == CountsAs.LATE
        events.append((at, "connect", (row["agent"], row["waited"] or 0.0, late)))
    elif row["counts_as"] == CountsAs.NOBODY:
        events.append((row["ended"], "abandon", row["waited"] or 0.0))
    else:
        events.append((row["ended"], "end", END.get(Outcome(outcome), "cancel")))
    return [(now - max(0.0, age), place, kind, id, info) for place, (age, kind, info) in enumerate(events)]
