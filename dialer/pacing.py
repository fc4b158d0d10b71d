"""Pacing: how many calls to place now, so that agents talk and hardly anybody picks up to silence.

Each tick it looks half a minute ahead. From the calls under way (how long each has been dialing or ringing) it knows
how many people will have answered by then; from the agents (how long each has been talking or writing up) how many
will be free. Another call is placed while the chance that its answer would find nobody free, within the seconds that
the law gives, is below a limit. The limit moves so that these chances average the share that may be lost, corrected
by what really was lost, and falls with what is left of the budget. Estimates are learnt while it runs, start
cautious, and carry their own uncertainty.

Pure: no I/O, no clock of its own; driven by `observe`, `calls_to_place` and `calls_to_give_up`. The idea that age
decides is public (Samuelson, Interfaces 29:5, 1999; US 4,933,964 and US 5,640,445, expired).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import exp, inf, sqrt
from typing import Any, Literal

from dialer.forecasting.budget import Budget
from dialer.forecasting.forecast import Forecast
from dialer.forecasting.outlook import AHEAD, Outlook, weighed
from dialer.law.abandoned import lost_share

Mode = Literal["progressive", "power", "predictive", "predictive-strict"]

ASKED_FOR = 2.5
"""Seconds after which a call that was asked for and not dialed is no longer expected, if anything was heard since."""

UNHEARD = 30.0
"""The same when nothing was heard at all."""

RING_UNSAID = 6.0
"""Seconds of setting up granted to a call of which nobody said that it rings, before its ringing is counted."""

STRICT_WINDOW = 1800.0
DAY = 86400.0

SPOKEN_OF = AHEAD.index(13)
"""Which of the seconds ahead `why` speaks of."""

IN_HAND = 0.7
"""Calls of the budget that are kept in hand, against a bad end of a short run."""

MANY_AGENTS = 30
OVERDRAWN = 0.05
"""So many agents and more go on with great care, instead of with one call each, while not more calls than this share
of the agents were lost beyond the budget: so it recovers soonest."""

GRANTED = 30.0
"""Calls that may be lost over the law's window, by when none is granted beyond them any more: to whom 3 % of a few answers
are less than a call, one is."""

SPENT = "the budget is spent, so one call for each free agent"

THIN = (20, 4)
"""Calls ended and calls answered before anything is predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingConfig:
    """How to pace. Shares are of 1, times in seconds.

    `abandonment_cap` of the live answers over `window_s`, and over `legal_window_s`, where the law's window is longer
    (0: it is not); `answer_wait_s`: a person who answered may wait so long for
    an agent, once it is known to be a person; `error_share` of the detected machines are people who count as lost, by
    law; `min_ring_s`: no call is given up before it rang so long; `ratio`: calls for each free agent in power mode;
    `few_agents`: with fewer agents at work it paces progressively.
    """

    mode: Mode = "predictive"
    abandonment_cap: float = 0.03
    window_s: float = 86400.0
    legal_window_s: float = 0.0
    answer_wait_s: float = 2.0
    error_share: float = 0.0
    min_ring_s: float = 15.0
    ring_timeout_s: float = 24.0
    calls_per_second: float = 10.0
    max_lines: int = 1000
    tick_s: float = 0.5
    amd: bool = False
    ratio: float = 1.5
    few_agents: int = 3


@dataclass(slots=True, eq=False)
class _Call:
    """`stage`: dial, ring, amd, queue or over; `since`: when it came to it; `risk`: the chance, when it was placed,
    that its answer would be lost."""

    stage: str
    since: float
    dialed: float
    risk: float


@dataclass(slots=True, eq=False)
class _Agent:
    """`state`: login, ready, break, talk or wrap; `call`: the last one talked to. `seen`: it is known how long the state
    lasts."""

    state: str
    since: float
    call: Hashable = None
    seen: bool = True


@dataclass(slots=True)
class _Asked:
    """Calls asked for at a time, and not dialed yet."""

    at: float
    calls: int
    risk: float


class Pacing:
    """Decides how many calls to place. See the module; `observe` takes every event in order, with times that never
    fall."""

    def __init__(self, config: PacingConfig) -> None:
        self.config = config
        self._calls: dict[Hashable, _Call] = {}
        self._agents: dict[Hashable, _Agent] = {}
        self._number = {"login": 0, "ready": 0, "break": 0, "talk": 0, "wrap": 0}
        self._since: dict[str, dict[Hashable, float]] = {"talk": {}, "wrap": {}}  # who has begun first first
        self._asked: deque[_Asked] = deque()
        cap = config.abandonment_cap
        self._strict = config.mode == "predictive-strict"
        self._forecast = Forecast(
            config.ring_timeout_s, config.answer_wait_s, amd=config.amd, doubts_drops=self._strict
        )
        self._aim = cap * (0.5 if self._strict else 0.885)
        self._budgets = [Budget(config.window_s, cap, config.error_share)]
        if self._strict and config.window_s > STRICT_WINDOW:
            self._budgets.append(Budget(STRICT_WINDOW, cap, config.error_share))
        self._short = self._budgets[-1]
        self._law: Budget | None = None
        if config.legal_window_s > config.window_s:
            self._law = Budget(config.legal_window_s, cap, config.error_share)
            self._budgets.append(self._law)
        self._limit = 4.0 * self._aim
        self._risked, self._lost = 8.0, 9.0
        self._ended = self._answered = 0
        self._events = 0
        self._heard = -inf
        self._pulse, self._pulse_at = 0.0, -inf
        self._tokens, self._decided = 1.0, -inf
        self._swept = -inf
        self._outlook: tuple[float, int, int, Outlook] | None = None
        self._giving_up: set[Hashable] = set()
        self._why: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------ what happens

    def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None:
        """Takes an event. Unknown calls, agents and kinds are ignored: pacing never fails on what it hears."""
        self._events += 1
        self._pulse = self._pulse * exp((self._pulse_at - now) / 30.0) + 1.0 / 30.0
        self._heard = self._pulse_at = now
        match kind:
            case "dial":
                self._dial(now, ident)
            case "ring" | "answer" | "end" | "amd" | "queue" | "connect" | "abandon":
                if (call := self._calls.get(ident)) is not None:
                    self._call(now, kind, ident, call, info)
                if kind == "connect" and isinstance(info, tuple) and info:
                    self._talks(now, info[0], ident, new=call is not None)
            case "login" | "ready" | "break" | "talk" | "wrap" | "logout":
                self._agent(now, kind, ident, info)
            case "disp":
                if isinstance(info, tuple) and info and info[-1] == "machine":
                    for budget in self._budgets:
                        budget.machine(now)

    def _dial(self, now: float, ident: Hashable) -> None:
        if (former := self._calls.pop(ident, None)) is not None:
            self._forecast.left(former.stage, former.since, now, None)
        risk = 0.0
        if self._asked:
            asked = self._asked[0]
            risk = asked.risk
            asked.calls -= 1
            if not asked.calls:
                self._asked.popleft()
        self._calls[ident] = _Call("dial", now, now, risk)
        self._forecast.entered("dial", now)

    def _call(self, now: float, kind: str, ident: Hashable, call: _Call, info: Any) -> None:
        unanswered = call.stage in ("dial", "ring")
        match kind:
            case "ring":
                if call.stage == "dial":
                    self._move(call, "ring", now, "ring")
            case "answer":
                if unanswered:
                    self._move(call, "amd" if self.config.amd else "queue", now, "answer")
            case "amd":
                human = info == "human"
                said = "human" if human else "machine"
                self._move(call, "queue" if human else "over", now, "answer" if unanswered else said)
                if info == "machine":
                    for budget in self._budgets:
                        budget.detected(now)
            case "queue":
                self._move(call, "queue", now, "answer" if unanswered else "human")
            case "connect" | "abandon":
                late = kind == "connect" and isinstance(info, tuple) and info[2:] == (True,)
                self._settle(now, ident, call, lost=kind == "abandon", late=late)
            case _:
                self._ended += unanswered
                self._forecast.left(
                    call.stage, call.since, now, None if info in ("cancel", "early") else "end"
                )
                if info == "early":
                    for budget in self._budgets:
                        budget.connect(now)
                del self._calls[ident]
                if ident in self._giving_up:
                    self._given_up(now, ident)

    def _move(self, call: _Call, stage: str, now: float, how: str) -> None:
        if how == "answer":
            self._answered += 1
            self._ended += 1
        if call.stage != stage:
            self._forecast.left(call.stage, call.since, now, how)
            self._forecast.entered(stage, now)
            call.stage, call.since = stage, now

    def _settle(self, now: float, ident: Hashable, call: _Call, *, lost: bool, late: bool = False) -> None:
        """A person who answered has come to an agent, in time or too late, or is lost."""
        if call.stage in ("dial", "ring"):
            self._move(call, "queue", now, "answer")
        elif lost and call.stage == "queue":
            self._forecast.patience(now - call.since)
        self._forecast.left(call.stage, call.since, now, None)
        del self._calls[ident]
        for budget in self._budgets:
            if lost or late:
                budget.abandon(now)
            else:
                budget.connect(now)
        fade = 0.9995
        self._risked = self._risked * fade + call.risk
        self._lost = self._lost * fade + (lost or late)

    def _agent(self, now: float, kind: str, ident: Hashable, info: Any) -> None:
        agent = self._agents.get(ident)
        if kind == "logout":
            if agent is not None:
                self._left(ident, agent, "logout", now)
                del self._agents[ident]
        elif kind == "talk":
            call = self._calls.get(info) if isinstance(info, Hashable) else None
            if call is not None:
                self._settle(now, info, call, lost=False)
            self._talks(now, ident, info, new=call is not None)
        elif agent is not None:
            self._enter(ident, agent, kind, now)
        elif kind != "wrap":
            self._agents[ident] = _Agent(kind, now)
            self._number[kind] += 1

    def _talks(self, now: float, ident: Hashable, call: Hashable, *, new: bool) -> None:
        """Said by the call and by the agent, in any order: a talk that is known, perhaps over, does not begin again.

        `new`: the call was open until now; names of calls may come again.
        """
        agent = self._agents.get(ident)
        if agent is not None and (new or agent.call != call or call is None):
            agent.call = call
            self._enter(ident, agent, "talk", now)

    def _enter(self, ident: Hashable, agent: _Agent, state: str, now: float) -> None:
        if agent.state != state:
            self._left(ident, agent, state, now)
            self._number[state] += 1
            if state in self._since:
                self._since[state][ident] = now
            agent.state, agent.since, agent.seen = state, now, True

    def _left(self, ident: Hashable, agent: _Agent, to: str, now: float) -> None:
        self._number[agent.state] -= 1
        if agent.state in self._since:
            del self._since[agent.state][ident]
        if agent.seen:
            self._forecast.agent_left(agent.state, agent.since, now, to)

    def unseen(self, ident: Hashable) -> None:
        """The beginning, or the end, of what this agent does now is not seen: nothing is learnt of how long it lasts."""
        if (agent := self._agents.get(ident)) is not None:
            agent.seen = False

    def _at_work(self) -> int:
        return self._number["ready"] + self._number["talk"] + self._number["wrap"]

    def hold(self, now: float, minutes: Sequence[tuple[float, int, int, int]]) -> None:
        """Forgets what it has counted of answers for what the ledger has: (when, live answers, abandoned of them, machines
        detected), the oldest first."""
        for budget in self._budgets:
            budget.hold(minutes)
            budget.expire(now)

    def stands(self, now: float) -> tuple[float, float, int]:
        """Live answers in the window, how many of them are lost, and how many more may be."""
        budget = self._budgets[0]
        budget.expire(now)
        return budget.answers, budget.lost, budget.spare()

    # ------------------------------------------------------------------------------------------ what is decided

    def calls_to_place(self, now: float) -> int:
        """How many calls to place now, within the lines and the calls a second of the configuration."""
        config = self.config
        self._expire(now)
        free, talking, at_work = self._number["ready"], self._number["talk"], self._at_work()
        open_calls = len(self._calls) + sum(asked.calls for asked in self._asked)
        one_each = max(0, free - open_calls)
        most = max(0, min(self._earned(now), config.max_lines - open_calls - talking))
        self._why = {"free": free, "at_work": at_work, "open": open_calls}
        risk = 0.0
        if at_work == 0:
            count, why = 0, "no agent is at work"
        elif config.mode == "progressive":
            count, why = one_each, "one call for each free agent"
        elif config.mode != "power" and at_work < config.few_agents:
            count, why = one_each, "few agents, so one call for each free one"
        elif self._stale(now):
            count, why = one_each, "events are late, so one call for each free agent"
        elif config.mode == "power" and any(self._room(now, budget) <= 0.0 for budget in self._budgets):
            count, why = one_each, SPENT
        elif config.mode == "power":
            count = max(0, round(config.ratio * free) - open_calls)
            why = "a fixed ratio of calls to free agents"
        elif self._ended < THIN[0] or self._answered < THIN[1]:
            count, why = one_each, "little is known yet, so one call for each free agent"
        else:
            count, why, risk = self._predicted(now, one_each, most)
        placed = min(count, most)
        if count > most:
            why = "held by the lines or by the calls a second"
        self._why |= {"placed": placed, "reason": why}
        if placed > 0:
            self._tokens -= placed
            self._asked.append(_Asked(now, placed, risk))
        return placed

    def talked(self, seconds: float) -> None:
        """Somebody talked so long before this pacing began: talks are as long as they were."""
        self._forecast.talked(seconds)

    def not_placed(self, calls: int) -> None:
        """Of the calls asked for last, so many are not dialed after all: they are expected no longer, and others may be."""
        while calls > 0 and self._asked:
            last = self._asked[-1]
            back = min(calls, last.calls)
            last.calls -= back
            calls -= back
            self._tokens += back
            if not last.calls:
                self._asked.pop()

    def _expire(self, now: float) -> None:
        asked = self._asked
        while asked and now - asked[0].at > (
            ASKED_FOR if self._heard >= asked[0].at + ASKED_FOR else UNHEARD
        ):
            asked.popleft()
        if now - self._swept < 5.0:
            return
        self._swept = now
        # While nothing is heard, nothing is known to be over.
        oldest = 2.0 * self.config.ring_timeout_s + 30.0
        for ident, call in self._dialed_before(self._heard - oldest):
            if call.since < self._heard - oldest:
                # Its end was never told.
                del self._calls[ident]
                self._forecast.left(call.stage, call.since, now, None)

    def _dialed_before(self, then: float) -> list[tuple[Hashable, _Call]]:
        """Calls are kept in the order in which they were dialed."""
        return list(takewhile(lambda item: item[1].dialed < then, self._calls.items()))

    def _earned(self, now: float) -> int:
        """How many calls the calls a second allow by now."""
        config = self.config
        since = min(now - self._decided, 2.0) if self._decided > -inf else config.tick_s
        self._decided = now
        most = max(1.0, config.calls_per_second * max(config.tick_s, since))
        self._tokens = min(self._tokens + config.calls_per_second * since, most)
        return int(self._tokens + 1e-6)

    def _stale(self, now: float) -> bool:
        """Whether nothing was heard although, at the pace of events, much should have been; or although calls should
        have ended."""
        silent = now - self._heard
        if silent < 5.0 or not (self._calls or self._asked):
            return False
        if silent * self._pulse > 25.0:
            return True
        oldest = next((call.dialed for call in self._calls.values()), now)
        return silent > 10.0 and now - oldest > self.config.ring_timeout_s + 15.0

    def _predicted(self, now: float, one_each: int, most: int) -> tuple[int, str, float]:
        outlook = self._look_ahead(now)
        share = self._share(now, outlook)
        if self._strict:
            self._aim = self._strict_aim()
        limit = min(self._limit * share, 0.6)
        self._why |= {"limit": limit, "outlook": outlook}
        if share <= 0.0:
            return one_each, SPENT, 0.0
        count = self._up_to(outlook, limit, max(most, 1))
        why = "another answer would find nobody too often"
        if count < one_each:
            count, why = one_each, "one call for each free agent"
        placed = min(count, most)
        if not placed:
            return count, why, 0.0
        first = outlook.chance_lost(0)
        risk = first if placed == 1 else 0.5 * (first + outlook.chance_lost(placed - 1))
        if count < most or risk > limit:
            aim = self._aim * share * min(self._risked / self._lost, 2.0)
            weight = 0.15 * placed * outlook.chance_answered
            self._limit *= exp(min(weight, 0.3) * (aim - risk) / max(aim, risk))
            self._limit = min(max(self._limit, 0.5 * self._aim), 15.0 * self._aim)
        return count, why, risk

    def _strict_aim(self) -> float:
        """The share to lose so that neither chance nor a sudden step of the answer rate breaks the cap of a window with so
        many answers. What a step costs cannot be taken back; what the caution costs is less than a point of utilisation."""
        cap = self.config.abandonment_cap
        return cap * min(max(1.0 - 3.0 / sqrt(cap * self._short.answers + 1.0), 0.2), 0.5)

    @staticmethod
    def _up_to(outlook: Outlook, limit: float, most: int) -> int:
        """How many calls may be placed until the answer to another would be lost with more than that chance."""
        if outlook.chance_lost(0) > limit:
            return 0
        low, high = 1, 2
        while high <= most and outlook.chance_lost(high - 1) <= limit:
            low, high = high, high * 2
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if outlook.chance_lost(middle - 1) <= limit:
                low = middle
            else:
                high = middle
        return low

    def _share(self, now: float, outlook: Outlook) -> float:
        """By how much the limit is moved for what has been lost: 1 when that is as it should be, 0 when the budget is
        spent."""
        at_work = self._at_work()
        at_risk = outlook.at_risk()
        # Where many agents work, calls are lost several at a time.
        clump = 0.3 * sqrt(at_work)
        share, narrow = 2.0, 1.0
        for budget in self._budgets:
            room = self._room(now, budget)
            if room <= -OVERDRAWN * at_work or (room <= 0.0 and at_work < MANY_AGENTS):
                return 0.0
            care = min(max((room - 0.5 * at_risk) / (1.6 + 0.5 * clump), 0.2), 1.0) ** 2
            if budget is self._law:
                # How much is to be lost is a matter of the day; of the law's window, that it is not spent.
                return share * min(care / narrow, 1.0)
            answers = budget.answers
            ahead = self._aim * answers - budget.lost - IN_HAND
            most = 0.0 if self._strict else min(0.7, answers / 400.0)
            share = min(share, exp(min(max(ahead / (2.0 + clump + 0.04 * sqrt(answers)), -1.5), most)))
            share *= care
            narrow *= care
        return share

    def _room(self, now: float, budget: Budget) -> float:
        """How many more calls may be lost, as the pace has it; a call more than the cap allows may be."""
        budget.expire(now)
        cap, answers = self.config.abandonment_cap, budget.answers
        if budget is self._law:
            return budget.left() + max(0.0, 1.0 - cap * answers / GRANTED)
        room = budget.left() + 1.0
        # What is left now is left of a window that slides: answers without loss will fall out of it.
        return room - 0.2 * cap * answers if self._strict else room

    def calls_to_give_up(self, now: float) -> Iterable[Hashable]:
        """Calls that rang as long as they must, and whose answer would probably find nobody."""
        config = self.config
        if self._at_work() == 0:
            return [ident for _, ident in self._long_enough(now)]
        if config.mode not in ("predictive", "predictive-strict") or self._ended < THIN[0]:
            return ()
        if not self._forecast.any_older(now, config.min_ring_s):
            return ()
        outlook = self._look_ahead(now)
        limit = min(max(3.5 * self._limit * self._share(now, outlook), 0.4), 0.7)
        if outlook.chance_lost_soon() <= limit:
            return ()
        gone: list[Hashable] = []
        rows: dict[int, list[float]] = {}  # calls of the same age are alike
        for call, ident in self._long_enough(now)[:20]:
            if outlook.chance_lost_soon() <= limit:
                break
            row = self._forecast.row_of(call.stage, now - call.since)
            if row not in rows:
                rows[row] = weighed(self._forecast.chances(row))
            outlook.without(rows[row])
            gone.append(ident)
        self._giving_up = set(gone)
        return gone

    def _given_up(self, now: float, ident: Hashable) -> None:
        """The end of a call that was given up is no news: the outlook reckons without it already."""
        self._giving_up.discard(ident)
        if self._outlook is not None and self._outlook[:2] == (now, self._events - 1):
            self._outlook = (now, self._events, *self._outlook[2:])

    def _long_enough(self, now: float) -> list[tuple[_Call, Hashable]]:
        """Calls that rang so long that they may be given up, the oldest first."""
        least = self.config.min_ring_s
        unsaid, dialed_before = least + RING_UNSAID, now - least + 1e-9
        found = []
        for ident, call in self._calls.items():  # in the order in which they were dialed
            if call.dialed >= dialed_before:
                break
            rung, stage = now - call.since, call.stage
            if rung >= least and (stage == "ring" or (stage == "dial" and rung >= unsaid)):
                found.append((call, ident))
        found.sort(key=lambda pair: pair[0].since)
        return found

    def _look_ahead(self, now: float) -> Outlook:
        asked = sum(asked.calls for asked in self._asked)
        if self._outlook is not None and self._outlook[:3] == (now, self._events, asked):
            return self._outlook[3]
        since = self._since
        outlook = self._forecast.outlook(
            now, asked, self._number["ready"], since["talk"].values(), since["wrap"].values()
        )
        self._outlook = now, self._events, asked, outlook
        return outlook

    def why(self, now: float) -> str:
        """The last decision in words and numbers, as of then; how much may still be lost, as of now."""
        w = self._why
        if not w:
            return "nothing has been decided yet"
        about = [f"placing {w['placed']}: {w['free']} of {w['at_work']} agents free"]
        under_way = f"{w['open']} calls under way"
        if (outlook := w.get("outlook")) is not None:
            about[0] += f", {outlook.freed.mean[SPOKEN_OF]:.0f} more expected within {AHEAD[SPOKEN_OF]} s"
            under_way += f" of which about {outlook.answers.mean[-1]:.0f} will be answered"
        about += [under_way, w["reason"]]
        for budget in self._budgets:
            budget.expire(now)
            answers = round(budget.answers)
            share = lost_share(budget.answers, budget.lost) or 0.0
            span = _span(budget.window)
            left = budget.spare()
            may = f"{left} more may be lost" if left >= 0 else f"{-left} too many"
            about.append(f"{share:.1%} abandoned of {answers} answers, {may} {span}")
        return "; ".join(about)


def _span(window: float) -> str:
    if window == DAY:
        return "today"
    return f"within {window / DAY:g} days" if window > DAY else f"within {window / 60.0:.0f} minutes"
