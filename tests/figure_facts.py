"""Facts as a day in a call centre tells them, written by hand or by chance; and their sums, added up in plain Python."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from cti import journal_store
from cti.bus import Envelope, serialise
from cti.facts import (
    AgentState,
    AgentStateChanged,
    CallDiverted,
    CallTransferred,
    CallView,
    ConnectionCleared,
    ConnectionState,
    ConnectionView,
    Direction,
    Fact,
    QueueCallerLeft,
)

QUARTER = timedelta(minutes=15)
TABLES = ("figures_queues", "figures_agents", "figures_states")


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def _connection(agent: str | None, at: datetime, state: ConnectionState) -> ConnectionView:
    return ConnectionView(id=f"main:{agent}.1", device=f"PJSIP/{agent}", state=state, since=at, agent=agent)


def _view(call: str, at: datetime) -> CallView:
    return CallView(
        id=call, pbx="main", direction=Direction.INBOUND, ani=None, ani_name=None, dnis=None, started=at
    )


def visit(joined: datetime, queue: str, waited: float, reason: str, call: str = "main:1") -> Fact:
    """A caller came to a queue and left it after so many seconds."""
    at = joined + seconds(waited)
    waits = (at - joined).total_seconds()
    return QueueCallerLeft(at=at, queue=queue, call=call, reason=reason, waited=waits, waiting=0)


def part(
    ended: datetime,
    agent: str | None,
    talked: float,
    held: float = 0.0,
    queue: str | None = None,
    call: str = "main:1",
    reason: str = "normal",
) -> Fact:
    """A party's part of a call is over."""
    return ConnectionCleared(
        at=ended,
        call=call,
        connection=_connection(agent, ended, ConnectionState.NULL),
        agent=agent,
        cause=16,
        reason=reason,
        talked=talked,
        held=held,
        queue=queue,
    )


def not_taken(
    at: datetime, agent: str | None, queue: str, reason: str = "no_answer", rang: float = 15.0
) -> Fact:
    """A phone rang for a call and did not take it."""
    return CallDiverted(
        at=at,
        call="main:1",
        connection=_connection(agent, at, ConnectionState.NULL),
        agent=agent,
        queue=queue,
        reason=reason,
        rang=rang,
        view=_view("main:1", at),
    )


def handed_on(at: datetime, agent: str | None, queue: str | None, kind: str = "blind") -> Fact:
    """Somebody handed a call on."""
    by = _connection(agent, at, ConnectionState.CONNECTED) if agent else None
    return CallTransferred(
        at=at, call="main:1", kind=kind, by=by, target="2000", view=_view("main:1", at), queue=queue
    )


class Shift:
    """An agent's states one after another: `to` says what came when, as the model would tell it."""

    def __init__(self, agent: str, facts: list[Fact]) -> None:
        self.agent = agent
        self._facts = facts
        self._now = (AgentState.LOGGED_OFF, None)
        self._since: datetime | None = None
        self.before_unknown: tuple[AgentState, str | None, datetime] | None = None

    def to(
        self,
        at: datetime,
        state: str,
        reason: str | None = None,
        call: str | None = None,
        *,
        old: str | None = None,
        since: datetime | None = None,
        pending: str | None = None,
    ) -> None:
        """From `at` on the agent is in this state. `old`: as told, when it is not the one told before."""
        new = AgentState(state)
        if since is None and (new, reason) == self._now:
            since = self._since
        state_before, reason_before = self._now
        if new is not AgentState.UNKNOWN:
            self.before_unknown = None
        elif state_before is not AgentState.UNKNOWN and self._since is not None:
            self.before_unknown = (state_before, reason_before, self._since)
        self._since = since or at
        self._facts.append(
            AgentStateChanged(
                at=at,
                agent=self.agent,
                old=AgentState(old) if old else self._now[0],
                new=new,
                since=self._since,
                reason=reason,
                by=self.agent,
                why="",
                call=call,
                pending=pending,
                until=None,
                device=None,
            )
        )
        self._now = (new, reason)


async def journal(db: asyncpg.Connection[asyncpg.Record], facts: Iterable[Fact], after: int = 0) -> int:
    """Put the facts into the journal as its writer does, one transaction; gives back the last number."""
    seq = after
    rows = []
    for fact in facts:
        seq += 1
        frame, data = serialise(seq, fact)
        envelope = Envelope(seq, fact, frozenset({"admin"}), frame, data)
        rows.append(journal_store.row(envelope, journal_store.without_nul(data)))

    async def source() -> Any:
        yield b"".join(rows)

    await journal_store.make_room(db, after + 1, seq)
    async with db.transaction():
        await db.copy_to_table("journal", source=source(), columns=journal_store.COLUMNS, format="text")
    return seq


async def sums(db: asyncpg.Connection[asyncpg.Record]) -> dict[str, list[tuple[Any, ...]]]:
    """All that is summed up, to be compared."""
    return {
        table: [tuple(row) for row in await db.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4")]
        for table in TABLES
    }


async def forget(db: asyncpg.Connection[asyncpg.Record]) -> None:
    """As if nothing had ever been summed up."""
    await db.execute(
        "TRUNCATE figures_queues, figures_agents, figures_states, figures_agent_now, figures_stay_now, figures_days,"
        " figures_waiting"
    )
    await db.execute("UPDATE figures_position SET seq = 0, at = '-infinity'")


# ---------------------------------------------------------------------------------- by chance, and added up by hand


def by_chance(chance: random.Random, count: int, began: datetime) -> list[Fact]:
    """A floor's facts: all kinds, some late, some at the same moment."""
    facts: list[Fact] = []
    shifts = {agent: Shift(agent, facts) for agent in ("anna", "ben", "cleo")}
    now = began
    while len(facts) < count:
        now += timedelta(microseconds=chance.choice((0, 1, chance.randrange(400_000_000))))
        at = now - seconds(chance.choice((0, 0, 0, 3600.5, 90_000)))  # told late
        agent, queue = chance.choice(list(shifts)), chance.choice(("main:sales", "main:support"))
        call = f"main:{chance.randrange(40)}"
        match chance.randrange(6):
            case 0 | 1:
                reason = chance.choice(
                    ("answered", "abandoned", "timed_out", "overflowed", "left", "transferred", "lost")
                )
                facts.append(visit(at, queue, round(chance.random() * 40, 6), reason, call))
            case 2:
                served = chance.choice((queue, None))
                facts.append(part(at, chance.choice((agent, None)), chance.choice((0, chance.random() * 900)),
                                  chance.choice((0.0, 12.25)), served, call))  # fmt: skip
            case 3:
                reason = chance.choice(("no_answer", "busy", "answered_elsewhere", "rejected", "caller_gone"))
                facts.append(not_taken(at, chance.choice((agent, None)), queue, reason))
            case 4:
                facts.append(handed_on(at, chance.choice((agent, None)), chance.choice((queue, None))))
            case _:
                state = chance.choice(list(AgentState))
                reason = chance.choice(("Lunch", "Break")) if state is AgentState.NOT_READY else None
                called = call if state in (AgentState.WRAP_UP, AgentState.BUSY) else None
                shift = shifts[agent]
                if shift.before_unknown is not None and chance.random() < 0.5:
                    state, reason, since = shift.before_unknown
                    shift.to(now, state, reason, called, since=since)
                else:
                    shift.to(now, state, reason, called)
    return facts


def added_up(
    facts: Iterable[Fact],
    *,
    within: float = 20.0,
    short: float = 5.0,
    limits: Mapping[str, timedelta] | None = None,
) -> dict[str, dict[Any, Counter[str]]]:
    """The same sums as the database makes, by another way: one fact after another in plain Python."""
    queues: dict[Any, Counter[str]] = defaultdict(Counter)
    agents: dict[Any, Counter[str]] = defaultdict(Counter)
    states: dict[Any, Counter[str]] = defaultdict(Counter)
    last: dict[str, tuple[AgentStateChanged, datetime]] = {}
    served: dict[tuple[str, str], str] = {}
    over: set[tuple[str, str, datetime]] = set()
    limits = limits or {}
    for fact in facts:
        match fact:
            case QueueCallerLeft():
                waited = round(fact.waited * 1e6)
                row = queues[slot(fact.at - timedelta(microseconds=waited)), fact.queue]
                row["offered"] += 1
                row["longest_wait"] = max(row["longest_wait"], waited)
                if fact.reason == "answered":
                    row.update(answered=1, answer_wait=waited, in_time=waited <= within * 1e6)
                elif fact.reason == "abandoned" and waited < short * 1e6:
                    row.update(short=1)
                elif fact.reason == "abandoned":
                    row.update(abandoned=1, abandon_wait=waited)
                elif fact.reason in ("timed_out", "overflowed", "lost"):
                    row.update([fact.reason])
                else:
                    row.update(left_else=1)
            case ConnectionCleared():
                if fact.agent is None:
                    continue
                if fact.queue is not None:
                    served[fact.call, fact.agent] = fact.queue
                if fact.talked + fact.held > 0:
                    agents[slot(fact.at), fact.agent, fact.queue or ""].update(
                        handled=1, talk=round(fact.talked * 1e6), hold=round(fact.held * 1e6)
                    )
            case CallDiverted() if fact.agent is not None:
                row = agents[slot(fact.at), fact.agent, fact.queue or ""]
                row.update(
                    not_answered=fact.reason == "no_answer",
                    refused=fact.reason in ("rejected", "busy", "unreachable", "congestion"),
                )
            case CallTransferred() if fact.by is not None and fact.by.agent is not None:
                agents[slot(fact.at), fact.by.agent, fact.queue or ""].update(transferred=1)
            case AgentStateChanged():
                until = fact.at
                if fact.agent in last:
                    before, began = last[fact.agent]
                    until = max(began, fact.at)
                    reason = before.reason if before.new is AgentState.NOT_READY else None
                    state = (before.new.value, reason or "")
                    if before.new is AgentState.NOT_READY and (reason or "") in limits:
                        goes_over = before.since + limits[reason or ""]
                        stay = (fact.agent, reason or "", before.since)
                        if began <= goes_over < until and stay not in over:
                            over.add(stay)
                            states[slot(goes_over), fact.agent, *state]["over_times"] += 1
                        cut = max(began, goes_over)
                        while cut < until:
                            edge = min(until, slot(cut) + QUARTER)
                            states[slot(cut), fact.agent, *state]["over_lasted"] += _us(edge - cut)
                            cut = edge
                    if before.new is not AgentState.LOGGED_OFF:
                        cut = began
                        while cut < until:
                            edge = min(until, slot(cut) + QUARTER)
                            states[slot(cut), fact.agent, *state]["lasted"] += _us(edge - cut)
                            cut = edge
                    if before.new is AgentState.WRAP_UP and until > began:
                        queue = served.get((before.call or "", fact.agent), "")
                        agents[slot(min(before.since, began)), fact.agent, queue]["wrap_up"] += _us(
                            until - began
                        )
                last[fact.agent] = (fact, until)
                if fact.new is AgentState.NOT_READY:
                    key = (slot(until), fact.agent, "not_ready", fact.reason or "")
                    states[key]["times"] += fact.since >= fact.at
                    stay = (fact.agent, fact.reason or "", fact.since)
                    limit = limits.get(fact.reason or "")
                    if limit is not None and fact.since + limit < until and stay not in over:
                        over.add(stay)
                        states[key]["over_times"] += 1
    for (when, _, queue), work in agents.items():
        if queue and +work:
            queues[when, queue].update(work)
    return {
        name: {key: +row for key, row in table.items() if +row}
        for name, table in (
            ("figures_queues", queues),
            ("figures_agents", agents),
            ("figures_states", states),
        )
    }


async def as_counters(db: asyncpg.Connection[asyncpg.Record]) -> dict[str, dict[Any, Counter[str]]]:
    """What the database has summed up, in the shape of `added_up`."""
    keys = {"figures_queues": 2, "figures_agents": 3, "figures_states": 4}
    found: dict[str, dict[Any, Counter[str]]] = {}
    for table, width in keys.items():
        rows = await db.fetch(f"SELECT * FROM {table}")
        found[table] = {
            tuple(row.values())[:width]: +Counter(dict(list(row.items())[width:])) for row in rows
        }
        found[table] = {key: row for key, row in found[table].items() if row}
    return found


def slot(at: datetime) -> datetime:
    """The quarter of an hour that a moment is in."""
    return datetime.fromtimestamp(at.timestamp() // 900 * 900, UTC)


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
