"""Pacing: how many calls to place now, so that agents talk and hardly anybody picks up to silence.

Each tick it looks some thirty seconds ahead, second by second. From the calls under way (how long each has been dialing or
ringing) it knows how many people will have answered by then; from the agents (how long each has been talking or writing up)
how many will be free. Another call is placed while the chance that its answer would find nobody free, within the seconds that
the law gives, is below a limit; the limit itself moves so that the share abandoned stays just inside the cap, and closes when
the budget of the window is spent. Estimates are learnt while it runs, start cautious, and carry their own uncertainty.

Pure: no I/O, no clock of its own; driven by `observe`, `calls_to_place` and `calls_to_give_up`. The idea that age decides is
public (Samuelson, Interfaces 29:5, 1999; US 4,933,964 and US 5,640,445, expired).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import erf, exp, sqrt
from operator import mul, sub
from typing import Any, Literal

from dialer.estimates import Hazard, Level, convolved

Mode = Literal["progressive", "power", "predictive", "predictive-strict"]

HORIZON = 27
"""Seconds looked ahead."""

DIAL_BINS = tuple(float(n) for n in range(32))
TALK_BINS = (*range(0, 20, 2), *range(20, 60, 5), *range(60, 180, 15), *range(180, 600, 60), 600, 900, 1500)
WRAP_BINS = (*range(0, 20, 2), *range(20, 60, 5), *range(60, 180, 15), 180, 300)

ASKED_FOR = 2.5
"""Seconds after which a call that was asked for and not dialed is no longer expected."""

RING_UNSAID = 5.0
"""Seconds of setting up granted to a call of which nobody said that it rings, before its ringing is counted."""

STRICT_WINDOW = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingConfig:
    """How to pace. Shares are of 1, times in seconds.

    `abandonment_cap` of the live answers over `window_s`; `answer_wait_s`: a person who answered may wait so long for an agent;
    `min_ring_s`: no call is given up before it rang so long; `ratio`: calls for each free agent in power mode;
    `few_agents`: with fewer agents at work it paces progressively.
    """

    mode: Mode = "predictive"
    abandonment_cap: float = 0.03
    window_s: float = 86400.0
    answer_wait_s: float = 2.0
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
    """`stage`: dial, ring, amd, queue or talk; `since`: when it came to it; `expected`: answers expected of it in earlier stages."""

    stage: str
    since: float
    dialed: float
    expected: float = 0.0


@dataclass(slots=True, eq=False)
class _Agent:
    """`state`: login, ready, break, talk, wrap or disp."""

    state: str
    since: float
    talked_since: float = 0.0


def _tail(x: float) -> float:
    """The chance that a standard normal value is above x."""
    return 0.5 - 0.5 * erf(x * 0.7071067811865476)


class Budget:
    """Live answers and abandoned calls over a window, by the minute."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._minutes: deque[list[float]] = deque()
        self.answers = 0
        self.abandoned = 0

    def add(self, now: float, abandoned: bool) -> None:
        """A person who answered was connected, or was not."""
        if not self._minutes or now - self._minutes[-1][0] >= 60.0:
            self._minutes.append([now, 0, 0])
        minute = self._minutes[-1]
        minute[1] += 1
        minute[2] += abandoned
        self.answers += 1
        self.abandoned += abandoned
        self.expire(now)

    def expire(self, now: float) -> None:
        """Forgets what is older than the window."""
        minutes = self._minutes
        while minutes and minutes[0][0] < now - self._window:
            _, answers, abandoned = minutes.popleft()
            self.answers -= int(answers)
            self.abandoned -= int(abandoned)


class Pacing:
    """Decides how many calls to place. See the module; `observe` takes every event in order, with times that never fall."""

    def __init__(self, config: PacingConfig) -> None:
        self.config = config
        self._calls: dict[Hashable, _Call] = {}
        self._agents: dict[Hashable, _Agent] = {}
        self._asked: deque[tuple[float, int]] = deque()
        self._outstanding = 0
        bins = len(DIAL_BINS)
        self._dialing = Hazard(
            DIAL_BINS,
            {"answer": [0.012] * bins, "ring": [0.15] * bins, "end": [0.03] * bins},
            confidence=15.0,
            memory=3000.0,
        )
        self._ringing = Hazard(
            DIAL_BINS, {"answer": [0.04] * bins, "end": [0.01] * bins}, confidence=20.0, memory=3000.0
        )
        self._talking = Hazard(TALK_BINS, {"end": [1 / 90] * len(TALK_BINS)}, confidence=60.0, memory=800.0)
        self._wrapping = Hazard(WRAP_BINS, {"end": [1 / 25] * len(WRAP_BINS)}, confidence=40.0, memory=800.0)
        self._level = Level(prior=8.0, memory=80.0, patience=60.0)
        self._human, self._human_weight = 0.7, 5.0
        self._amd_seconds = 1.8
        self._stays = 0.98
        self._budget = Budget(config.window_s)
        self._recent = Budget(min(STRICT_WINDOW, config.window_s))
        self._limit = 0.12
        self._heard = 0.0
        self._tables_at = -1e9
        self._agents_at = -1e9
        self._dial_rows: list[list[float]] = []
        self._ring_rows: list[list[float]] = []
        self._chances: list[tuple[float, ...]] = []
        self._chances_squared: list[tuple[float, ...]] = []
        self._dial_sums: list[float] = [0.0] * bins
        self._ring_sums: list[float] = [0.0] * bins
        self._talk_rates: list[float] = []
        self._wrap_rates: list[float] = []
        self._talk_rows: dict[int, list[float]] = {}
        self._wrap_rows: dict[int, list[float]] = {}
        self._why: dict[str, Any] = {}
        self._outlook: _Outlook | None = None

    # ------------------------------------------------------------------------------------------ what happens

    def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None:
        """Takes an event. Unknown calls, agents and kinds are ignored: pacing never fails on what it hears."""
        self._heard = now
        match kind:
            case "dial":
                self._calls[ident] = _Call("dial", now, now)
                if self._outstanding > 0:
                    self._outstanding -= 1
            case "ring" | "answer" | "end" | "amd" | "queue" | "connect" | "abandon":
                if (call := self._calls.get(ident)) is not None:
                    self._call(now, kind, ident, call, info)
            case "login" | "ready" | "break" | "talk" | "wrap" | "disp" | "logout":
                self._agent(now, kind, ident)

    def _call(self, now: float, kind: str, ident: Hashable, call: _Call, info: Any) -> None:
        age = now - call.since
        match kind:
            case "ring":
                if call.stage == "dial":
                    self._dialing.ended(age, "ring")
                    call.expected = self._sum(self._dial_sums, age)
                    call.stage, call.since = "ring", now
            case "answer":
                self._rang(call, age, answered=True)
                call.stage, call.since = "amd" if self.config.amd else "queue", now
            case "amd":
                self._human_weight = min(self._human_weight + 1.0, 200.0)
                self._human += ((info == "human") - self._human) / self._human_weight
                self._amd_seconds += (min(age, 6.0) - self._amd_seconds) * 0.02
                call.stage, call.since = "queue" if info == "human" else "over", now
            case "queue":
                call.stage, call.since = "queue", now
            case "connect" | "abandon":
                if call.stage in ("dial", "ring"):
                    self._rang(call, age, answered=True)
                del self._calls[ident]
                self._live(now, kind == "abandon")
                if kind == "connect" and isinstance(info, tuple) and (agent := self._agents.get(info[0])):
                    self._enter(agent, "talk", now)
            case "end":
                self._rang(call, age, answered=False, censored=info == "cancel")
                del self._calls[ident]

    def _rang(self, call: _Call, age: float, *, answered: bool, censored: bool = False) -> None:
        if call.stage not in ("dial", "ring"):
            return
        dialing = call.stage == "dial"
        hazard, sums = (
            (self._dialing, self._dial_sums) if dialing else (self._ringing, self._ring_sums)
        )
        hazard.ended(age, "answer" if answered else None if censored else "end")
        self._level.ended(call.expected + self._sum(sums, age), answered)

    @staticmethod
    def _sum(sums: list[float], age: float) -> float:
        """The answers expected up to an age."""
        last = len(sums) - 1
        whole = min(int(age), last)
        return sums[whole] + (sums[min(whole + 1, last)] - sums[whole]) * min(age - whole, 1.0)

    def _live(self, now: float, abandoned: bool) -> None:
        self._budget.add(now, abandoned)
        self._recent.add(now, abandoned)
        aim = self._aim()
        self._limit *= exp(0.2 * aim) if not abandoned else exp(-0.2 * (1 - aim))
        self._limit = min(max(self._limit, 0.01), 0.7)

    def _aim(self) -> float:
        return self.config.abandonment_cap * (0.7 if self.config.mode == "predictive-strict" else 0.93)

    def _agent(self, now: float, kind: str, ident: Hashable) -> None:
        agent = self._agents.get(ident)
        if agent is None:
            if kind != "logout":
                self._agents[ident] = _Agent(kind, now)
            return
        if kind == "logout":
            self._left(agent, now, stays=False)
            del self._agents[ident]
            return
        if kind == "disp":
            return
        if kind in ("ready", "break"):
            self._left(agent, now, stays=kind == "ready")
        self._enter(agent, kind, now)

    def _left(self, agent: _Agent, now: float, *, stays: bool) -> None:
        if agent.state == "wrap":
            self._wrapping.ended(now - agent.since, "end")
        elif agent.state == "talk":
            self._talking.ended(now - agent.since, "end")
            self._wrapping.ended(0.0, "end")
        else:
            return
        self._stays += (stays - self._stays) * 0.01

    def _enter(self, agent: _Agent, state: str, now: float) -> None:
        if agent.state == state:
            return
        if agent.state == "talk" and state == "wrap":
            self._talking.ended(now - agent.since, "end")
        agent.state, agent.since = state, now

    # ------------------------------------------------------------------------------------------ what is decided

    def calls_to_place(self, now: float) -> int:
        """How many calls to place now, within the lines and the calls a second of the configuration."""
        config = self.config
        while self._asked and self._asked[0][0] < now - ASKED_FOR:
            self._asked.popleft()
            if not self._asked:
                self._outstanding = 0
        free = sum(agent.state == "ready" for agent in self._agents.values())
        at_work = free + sum(agent.state in ("talk", "wrap", "disp") for agent in self._agents.values())
        open_calls = sum(call.stage != "talk" for call in self._calls.values()) + self._outstanding
        one_each = max(0, free - open_calls)
        most = self._most(now, open_calls)
        if at_work == 0:
            count, why = 0, "no agent is at work"
        elif config.mode == "progressive":
            count, why = one_each, "one call for each free agent"
        elif config.mode == "power":
            count, why = max(0, round(config.ratio * free) - open_calls), "a fixed ratio"
        elif at_work < config.few_agents:
            count, why = one_each, "few agents: one call for each free one"
        elif self._stale(now):
            count, why = one_each, "events are late: one call for each free agent"
        else:
            count, why = self._predicted(now, one_each, most)
        placed = min(count, most)
        self._why |= {"free": free, "at_work": at_work, "open": open_calls, "placed": placed, "reason": why}
        if placed > 0:
            self._asked.append((now, placed))
            self._outstanding += placed
        return placed

    def _most(self, now: float, open_calls: int) -> int:
        config = self.config
        talking = sum(agent.state == "talk" for agent in self._agents.values())
        a_tick = max(1, int(config.calls_per_second * max(config.tick_s, 0.1)))
        return max(0, min(a_tick, config.max_lines - open_calls - talking))

    def _stale(self, now: float) -> bool:
        """Whether calls are under way that should long have ended, or nothing was heard although something must have been."""
        if not self._calls:
            return False
        oldest = min(call.dialed for call in self._calls.values())
        return now - self._heard > 10.0 and now - oldest > self.config.ring_timeout_s + 15.0

    def _predicted(self, now: float, one_each: int, most: int) -> tuple[int, str]:
        outlook = self._look_ahead(now)
        limit = self._limit_now(now, outlook.at_risk)
        self._why |= {"limit": limit, "level": self._level.factor, "error": self._level.error}
        if limit <= 0.0:
            return one_each, "the budget is spent: one call for each free agent"
        low, high = 0, 1
        if outlook.chance_lost(0) > limit:
            return one_each, "calls under way will keep everybody busy"
        while high <= most and outlook.chance_lost(high) <= limit:
            low, high = high, high * 2
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if outlook.chance_lost(middle) <= limit:
                low = middle
            else:
                high = middle
        return max(low, one_each), "another answer would wait too long too often"

    def _limit_now(self, now: float, at_risk: float) -> float:
        """The chance of being lost up to which a further call may be placed."""
        config = self.config
        self._budget.expire(now)
        self._recent.expire(now)
        limit = self._limit
        cap = config.abandonment_cap
        for budget in (self._budget, self._recent) if config.mode == "predictive-strict" else (self._budget,):
            room = cap * budget.answers + 1.0 - budget.abandoned - at_risk
            limit *= min(1.0, max(0.0, room / (1.0 + 0.1 * sqrt(budget.answers))))
        ahead = self._aim() * self._budget.answers - self._budget.abandoned
        return limit * exp(max(-1.0, min(1.0, ahead / (3.0 + sqrt(0.03 * self._budget.answers)))))

    def calls_to_give_up(self, now: float) -> Iterable[Hashable]:
        """Calls that rang as long as they must, and whose answer would probably find nobody."""
        config = self.config
        if config.mode not in ("predictive", "predictive-strict"):
            return ()
        long_enough = [
            (call.since, ident)
            for ident, call in self._calls.items()
            if (call.stage == "ring" and now - call.since >= config.min_ring_s)
            or (call.stage == "dial" and now - call.since >= config.min_ring_s + RING_UNSAID)
        ]
        if not long_enough:
            return ()
        outlook = self._look_ahead(now)
        limit = max(2.0 * self._limit_now(now, outlook.at_risk), 0.05)
        long_enough.sort(key=lambda pair: pair[0])
        gone: list[Hashable] = []
        for _, ident in long_enough[:20]:
            if outlook.chance_lost_soon() <= limit:
                break
            call = self._calls[ident]
            outlook.without(self._row(call, now))
            gone.append(ident)
        return gone

    def why(self, now: float) -> str:
        """The last decision in a sentence, with its numbers."""
        w = self._why
        if not w:
            return "nothing has been decided yet"
        share = self._budget.abandoned / self._budget.answers if self._budget.answers else 0.0
        left = self.config.abandonment_cap * self._budget.answers - self._budget.abandoned
        return (
            f"{w['placed']} placed: {w['reason']}. {w['free']} of {w['at_work']} agents free, {w['open']} calls under way; "
            f"abandoned {share:.1%} of {self._budget.answers} answers, {max(0.0, left):.0f} more may be lost"
        )

    # ------------------------------------------------------------------------------------------ looking ahead

    def _row(self, call: _Call, now: float) -> list[float]:
        rows = self._dial_rows if call.stage == "dial" else self._ring_rows
        return rows[min(int(now - call.since), len(rows) - 1)]

    def _look_ahead(self, now: float) -> _Outlook:
        if self._outlook is not None and self._outlook.at == now and self._outlook.heard == (
            self._dialing.version, self._ringing.version, len(self._calls), self._outstanding,
        ):  # fmt: skip
            return self._outlook
        size = len(DIAL_BINS)
        dialing, ringing = [0] * size, [0] * size
        dialing[0] = self._outstanding
        waiting, judged, expected = 0, [], 0.0
        dial_sums, ring_sums = self._dial_sums, self._ring_sums
        for call in self._calls.values():
            age = now - call.since
            whole = int(age)
            if whole >= size:
                whole = size - 1
            if call.stage == "ring":
                ringing[whole] += 1
                expected += call.expected + ring_sums[whole]
            elif call.stage == "dial":
                dialing[whole] += 1
                expected += dial_sums[whole]
            elif call.stage == "amd":
                judged.append(age)
            elif call.stage == "queue":
                waiting += 1
        self._level.under_way(expected)
        if now - self._tables_at >= 2.0:
            self._tables_at = now
            self._call_tables(dialing, ringing)
        counts = dialing + ringing
        answers = [sum(map(mul, counts, chances)) for chances in self._chances]
        squares = [sum(map(mul, counts, chances)) for chances in self._chances_squared]
        new = self._dial_rows[0]
        uncertain = [self._level.error * a for a in answers]
        if self.config.amd:
            answers, squares, new, uncertain = self._judged(answers, squares, new, uncertain, judged)
        outlook = _Outlook(now, answers, squares, new, uncertain, self._level.error)
        outlook.heard = (
            self._dialing.version,
            self._ringing.version,
            len(self._calls),
            self._outstanding,
        )
        self._agents_ahead(now, outlook, waiting)
        self._outlook = outlook
        return outlook

    def _judged(
        self,
        answers: list[float],
        squares: list[float],
        new: list[float],
        uncertain: list[float],
        judged: list[float],
    ) -> tuple[list[float], list[float], list[float], list[float]]:
        """Of the answers only the people, and after the seconds that telling them from machines takes."""
        human, delay = self._human, max(1, round(self._amd_seconds))
        nothing = [0.0] * delay
        answers = [human * a for a in (nothing + answers)[: HORIZON + 1]]
        squares = [human * human * s for s in (nothing + squares)[: HORIZON + 1]]
        new = [human * p for p in (nothing + new)[: HORIZON + 1]]
        uncertain = [human * u for u in (nothing + uncertain)[: HORIZON + 1]]
        mean = self._amd_seconds
        for age in judged:
            begun = min(max((age - 0.5 * mean) / mean, 0.0), 0.95)
            for k in range(HORIZON + 1):
                done = min(max((age + k - 0.5 * mean) / mean, 0.0), 1.0)
                p = human * (max(done - begun, 0.0)) / (1 - begun)
                answers[k] += p
                squares[k] += p * p
        return answers, squares, new, uncertain

    def _agents_ahead(self, now: float, outlook: _Outlook, waiting: int) -> None:
        wait = int(self.config.answer_wait_s)
        free, talking, wrapping = 0, [0] * len(TALK_BINS), [0] * len(WRAP_BINS)
        busy = 0
        for agent in self._agents.values():
            if agent.state == "ready":
                free += 1
            elif agent.state == "talk":
                talking[self._talking.bin_of(now - agent.since)] += 1
                busy += 1
            elif agent.state == "wrap":
                wrapping[self._wrapping.bin_of(now - agent.since)] += 1
                busy += 1
        if now - self._agents_at >= 5.0:
            self._agents_at = now
            self._agent_rates(talking, wrapping)
        length = HORIZON + 1
        freed, spread = [0.0] * length, [0.0] * length
        for counts, row_of in ((talking, self._talk_row), (wrapping, self._wrap_row)):
            for n, count in enumerate(counts):
                if count:
                    part = row_of(n)[wait : wait + length]
                    freed = [f + count * p for f, p in zip(freed, part, strict=True)]
                    spread = [s + count * p * (1 - p) for s, p in zip(spread, part, strict=True)]
        renewed = self._talk_row(0)
        arrivals = [outlook.answers[0], *map(sub, outlook.answers[1:], outlook.answers)]
        back = [sum(map(mul, arrivals[: n + 1], renewed[n + wait :: -1])) for n in range(length)]
        outlook.agents(free, waiting, freed, spread, back)

    def _call_tables(self, dialing: list[int], ringing: list[int]) -> None:
        """How likely a call of each age has been answered after each of the next seconds."""
        level = self._level.factor
        rates = self._ringing.rates(ringing)
        ring = rates["answer"], rates["end"]
        rates = self._dialing.rates(dialing)
        dial = rates["answer"], rates["end"], rates["ring"]
        row = [0.0] * (HORIZON + 1)
        rows = []
        for answer, end in zip(reversed(ring[0]), reversed(ring[1]), strict=True):
            answer *= level
            total = answer + end
            over = 1.0 - exp(-total)
            answered, stays = over * answer / total, 1.0 - over
            row = [0.0, *(answered + stays * p for p in row[:-1])]
            rows.append(row)
        rows.reverse()
        self._ring_rows = rows
        rung = rows[0]
        row, rows = [0.0] * (HORIZON + 1), []
        for answer, end, rings in zip(*(reversed(rates) for rates in dial), strict=True):
            answer *= level
            total = answer + end + rings
            over = 1.0 - exp(-total)
            answered, goes_on, stays = over * answer / total, over * rings / total, 1.0 - over
            row = [0.0, *(answered + goes_on * q + stays * p for p, q in zip(row[:-1], rung[:-1], strict=True))]
            rows.append(row)
        rows.reverse()
        self._dial_rows = rows
        # Turned: for each second ahead the chances of all ages, those dialing and then those ringing.
        self._chances = list(zip(*self._dial_rows, *self._ring_rows, strict=True))
        self._chances_squared = [tuple(map(mul, chances, chances)) for chances in self._chances]
        for sums, answer_rates in ((self._dial_sums, dial[0]), (self._ring_sums, ring[0])):
            total = 0.0
            for n, rate in enumerate(answer_rates):
                sums[n] = total
                total += rate

    def _agent_rates(self, talking: list[int], wrapping: list[int]) -> None:
        """Learns the rates anew; what was worked out from the old ones goes."""
        self._talk_rates = self._talking.rates(talking)["end"]
        self._wrap_rates = self._wrapping.rates(wrapping)["end"]
        self._talk_rows.clear()
        self._wrap_rows.clear()

    def _wrap_row(self, n: int) -> list[float]:
        """How likely an agent writing up, in the n-th bin, is free after each of the next seconds."""
        row = self._wrap_rows.get(n)
        if row is None:
            ended = _ended(WRAP_BINS, self._wrap_rates, n)
            row = self._wrap_rows[n] = [self._stays * p for p in ended]
        return row

    def _talk_row(self, n: int) -> list[float]:
        """The same of one who talks."""
        row = self._talk_rows.get(n)
        if row is None:
            row = self._talk_rows[n] = convolved(_ended(TALK_BINS, self._talk_rates, n), self._wrap_row(0))
        return row


def _ended(edges: Sequence[float], rates: list[float], n: int) -> list[float]:
    """The chance that what is in the n-th bin of age has ended after each of the next seconds."""
    found, left, age, last = [], 1.0, edges[n], len(edges) - 1
    for second in range(HORIZON + 8):
        found.append(1.0 - left)
        while n < last and edges[n + 1] <= age + second + 0.5:
            n += 1
        left *= exp(-rates[n])
    return found


class _Outlook:
    """The next seconds as they look: answers that will come, agents who will be there."""

    def __init__(
        self,
        at: float,
        answers: list[float],
        squares: list[float],
        new: list[float],
        uncertain: list[float],
        error: float,
    ) -> None:
        self.at = at
        self.heard: tuple[int, ...] = ()
        self.answers = answers
        self._squares = squares
        self._new = new
        self._uncertain = uncertain
        self._error = error
        total = new[-1] or 1.0
        self._when = [(new[n] - new[n - 1]) / total if n else 0.0 for n in range(len(new))]
        self.at_risk = 0.0

    def agents(
        self, free: int, waiting: int, freed: list[float], spread: list[float], back: list[float]
    ) -> None:
        """Takes what the agents will do: who is free now, how many will be, and by how much that may be wrong."""
        self._room = [free - waiting + f + b for f, b in zip(freed, back, strict=True)]
        self._spread = spread
        self.at_risk = self._expected_lost()

    def _expected_lost(self) -> float:
        """How many of the answers to come will find nobody, as it looks now."""
        most = 0.0
        for k in range(1, len(self.answers), 3):
            mean = self.answers[k] - self._room[k]
            deviation = sqrt(self.answers[k] - self._squares[k] + self._spread[k] + self._uncertain[k] ** 2 + 1e-9)
            x = mean / deviation
            if x > -4.0:
                density = exp(-0.5 * x * x) * 0.3989422804014327
                most = max(most, deviation * density + mean * _tail(-x))
        return most

    def chance_lost(self, more: int) -> float:
        """The chance that the answer to one more call after `more` new ones finds no agent in time."""
        lost = 0.0
        error = self._error
        for k in range(1, len(self.answers)):
            part = self._when[k]
            if part < 1e-4:
                continue
            p = self._new[k]
            mean = self.answers[k] + more * p
            own = self._uncertain[k] + error * more * p
            variance = self.answers[k] - self._squares[k] + more * p * (1 - p) + self._spread[k] + own * own
            # One more needs an agent beyond those whom the others take: room - others >= 1, at the half between.
            x = (self._room[k] - mean - 0.5) / sqrt(variance + 1e-9)
            if x < 5.0:
                lost += part * _tail(x)
        return lost

    def chance_lost_soon(self) -> float:
        """The chance that an answer in the next seconds finds no agent in time."""
        lost = 0.0
        for k in (1, 2, 3, 4):
            deviation = sqrt(self.answers[k] - self._squares[k] + self._spread[k] + self._uncertain[k] ** 2 + 1e-9)
            lost += 0.25 * _tail((self._room[k] - self.answers[k] - 0.5) / deviation)
        return lost

    def without(self, row: list[float]) -> None:
        """Takes a call back out of it."""
        self.answers = [max(0.0, a - p) for a, p in zip(self.answers, row, strict=True)]
        self._squares = [max(0.0, s - p * p) for s, p in zip(self._squares, row, strict=True)]
