"""The work desk: offers other work to agents when calls are few, and sees it through.

Any module brings items (`add`) and hears of them by facts. Calls always come first: an offer goes when the agent gets a call
or when somebody waits, and nobody is ever interrupted on a call. An item with a number is a call to a customer: accepted,
the agent's own phone is called, then the customer. What is accepted or promised is in the database before anybody is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import msgspec
import structlog

from cti.backlog import Backlog
from cti.commands import CommandError
from cti.facts import (
    AgentState,
    AgentStateChanged,
    CallCleared,
    CallFact,
    CallOffered,
    CallView,
    ConnectionView,
    Fact,
    QueueCallerJoined,
)
from cti.other_work import (
    BlendingChanged,
    BlendingView,
    WorkAccepted,
    WorkAdded,
    WorkCompleted,
    WorkEnded,
    WorkOffered,
    WorkReturned,
    WorkView,
)
from routing import work_store
from routing.blending import Permit, Quiet, Worker, WorkFloor
from routing.rules import Blending, RuleSet
from routing.work import ANYTHING, NotPossible, Step, again, matches, move

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

LOOKS = 1.0
"""Seconds between two looks; somebody who begins to wait is looked at once."""

MOST_OPEN = 20_000
NOT_AGAIN_AFTER = {"declined": 300.0, "unanswered": 120.0, "given_back": 60.0, "not_possible": 60.0}
"""Seconds for which an agent is passed over for an item that they did not do; who did not answer, for all items."""

AFTER_RESTART = 60.0
"""Seconds in which an agent may say how a call ended of which this server saw nothing."""


class AgentPort(Protocol):
    """What the desk needs of the agents' states."""

    def begin_other_work(self, login: str, what: str, *, at: datetime) -> list[Fact]:  # pragma: no cover
        """No calls until it ends."""
        ...

    def end_other_work(self, login: str, why: str, *, at: datetime) -> list[Fact]:  # pragma: no cover
        """Calls come again."""
        ...


class WorkDesk:
    """All items that are open, and what each agent may be offered."""

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        rules: Callable[[], RuleSet],
        floor: Callable[[Mapping[str, int]], WorkFloor],
        agents: AgentPort,
        call: Callable[[str, str, str], Awaitable[str]],
        view: Callable[[str], CallView | None],
        set_data: Callable[[str, dict[str, str], str], None],
        publish: Callable[[Iterable[Fact]], None],
        now: Callable[[], datetime],
    ) -> None:
        """`floor`: the agents as they are now, told who has other work (`_at_work`). `call(pbx, agent, number)` calls a
        customer for an agent and gives back the call's id, or raises CommandError. `view`: a call as it is, None when it is
        over."""
        self._pool, self._rules, self._floor, self._agents = pool, rules, floor, agents
        self._call, self._view, self._set_data = call, view, set_data
        self._publish, self._now = publish, now
        self._items: dict[str, WorkView] = {}
        self._of_call: dict[str, str] = {}
        self._tried: set[str] = set()
        self._held: set[str] = set()
        self._passed_over: dict[tuple[str, str], datetime] = {}
        self._quiet = Quiet()
        self._permits: dict[str, Permit] = {}
        self._shown: dict[str, BlendingView] = {}
        self._states: dict[str, AgentState] = {}
        self._due: dict[str, WorkView] = {}
        self._saving = asyncio.Lock()
        self._wake = asyncio.Event()
        self._backlog = Backlog("other work")

    # ------------------------------------------------------------------------------------------ what is asked

    def items(self) -> list[WorkView]:
        """What is open, the oldest first."""
        return sorted(self._items.values(), key=lambda item: (item.created, item.id))

    def blending(self) -> list[BlendingView]:
        """What each agent may be offered now; empty while no rule offers anything."""
        return [view for _, view in sorted(self._shown.items())]

    async def read(self, id: str) -> WorkView | None:
        """One item, also one that is over."""
        return self._items.get(id) or await work_store.read(self._pool(), id)

    # ------------------------------------------------------------------------------------------ modules bring work

    async def load(self) -> None:
        """Takes up what was open before a restart; called once, when agents' sessions are there."""
        now = self._now()
        for item in await work_store.still_open(self._pool()):
            if item.state == "accepted" and item.number is not None:
                item = msgspec.structs.replace(item, until=now + timedelta(seconds=AFTER_RESTART))
                if item.call is not None:
                    self._of_call[item.call] = item.id
                    self._tried.add(
                        item.call
                    )  # what was seen of it before is not known: better not called twice
            self._items[item.id] = item
            if item.state == "accepted" and item.agent is not None and not item.interrupted_by_calls:
                self._begin(item.agent, item)

    async def add(
        self,
        *,
        kind: str,
        skill: str,
        title: str,
        source: str,
        ref: str,
        priority: int = 0,
        level: int | None = None,
        due: datetime | None = None,
        number: str | None = None,
        account: int | None = None,
        data: dict[str, str] | None = None,
        not_before: datetime | None = None,
    ) -> WorkView:
        """Takes an item up; it is in the database when this returns. The same `ref` of a source is the same item. Raises
        NotPossible, or what the database raises."""
        if len(self._items) >= MOST_OPEN:
            raise NotPossible("too_many", f"{MOST_OPEN} items are open: see to some of them first")
        now = self._now()
        new = WorkView(
            id=f"w{uuid4().hex[:16]}",
            kind=kind,
            skill=skill,
            title=title,
            source=source,
            ref=ref,
            created=now,
            since=now,
            priority=priority,
            level=level,
            due=due,
            number=number,
            account=account,
            data=data or {},
            not_before=not_before,
        )
        item = await work_store.add(self._pool(), new)
        if item.id != new.id:
            return self._items.get(item.id, item)
        self._items[item.id] = item
        self._publish([WorkAdded(at=now, work=item.id, agent=None, view=item)])
        self._wake.set()
        return item

    async def cancel(self, id: str, by: str) -> WorkView:
        """Takes an item back; who does it already is told. Raises NotPossible for one that is over."""
        item = self._known(id)
        with self._holding(item):
            gone = move(item, Step.CANCEL, self._now(), until=None, outcome=f"cancelled by {by}")
            await self._save(gone)
            self._end(
                gone,
                [WorkEnded(at=gone.since, work=id, agent=item.agent, view=gone, reason="cancelled", by=by)],
            )
        return gone

    # ------------------------------------------------------------------------------------------ agents do it

    async def accept(self, agent: str, id: str) -> WorkView:
        """The agent does it from now on. Raises NotPossible, CommandError where the customer cannot be called, or what the
        database raises; then it is offered to them no longer, or still."""
        item = self._offered_to(agent, id)
        if self._states.get(agent) is not AgentState.READY:
            raise NotPossible("wrong_state", "a call came first: the offer has gone")
        rule = self._rule(item)
        interrupted = item.number is None and rule is not None and item.kind in rule.interrupted_by_calls
        with self._holding(item):
            done = move(item, Step.ACCEPT, self._now(), until=None, interrupted_by_calls=interrupted)
            await self._save(done)
            self._put(done, write=False)
            self._publish([WorkAccepted(at=done.since, work=id, agent=agent, view=done)])
            if not interrupted:
                self._begin(agent, done)
            if done.number is not None:
                done = await self._call_customer(done, agent, done.number)
        return done

    async def _call_customer(self, item: WorkView, agent: str, number: str) -> WorkView:
        try:
            call = await self._call(item.skill.partition(":")[0], agent, number)
        except CommandError:
            self._return(item, "not_possible")
            raise
        now = msgspec.structs.replace(item, call=call)
        self._of_call[call] = item.id
        self._put(now)
        self._set_data(call, {**item.data, "Work": item.id, "WorkTitle": item.title}, agent)
        if any(party.agent is None for party in self._parties(call)):  # called before it was noted
            self._tried.add(call)
        if not self._alive(call):  # over before it was noted
            self._put(msgspec.structs.replace(now, until=self._now() + timedelta(seconds=AFTER_RESTART)))
        return self._items.get(item.id, now)

    def decline(self, agent: str, id: str) -> WorkView:
        """The agent does not want it now; it is offered to somebody else. Raises NotPossible."""
        return self._return(self._offered_to(agent, id), "declined")

    def complete(self, agent: str, id: str, outcome: str) -> WorkView:
        """It is done. Raises NotPossible for what is not theirs, or while the call with the customer lasts."""
        item = self._done_by(agent, id)
        if item.call is not None and self._alive(item.call):
            raise NotPossible("wrong_state", "the call with the customer lasts: hang up first")
        return self._complete(item, outcome)

    def give_back(self, agent: str, id: str) -> WorkView:
        """It waits again, for somebody else. Raises NotPossible as `complete` does."""
        item = self._done_by(agent, id)
        if item.call is not None and self._alive(item.call):
            raise NotPossible("wrong_state", "the call with the customer lasts: hang up first")
        return self._return(item, "given_back")

    # ------------------------------------------------------------------------------------------ what happens

    def hear_call(self, fact: CallFact) -> None:
        """Notes whether a customer was tried, and what became of the call."""
        id = self._of_call.get(fact.call)
        if id is None:
            return
        if isinstance(fact, CallOffered) and fact.agent is None:
            self._tried.add(fact.call)
        elif isinstance(fact, CallCleared):
            del self._of_call[fact.call]
            tried = fact.call in self._tried
            self._tried.discard(fact.call)
            item = self._items.get(id)
            if item is None or item.state != "accepted":
                return
            if fact.merged_into is not None:
                self._of_call[fact.merged_into] = id
                self._put(msgspec.structs.replace(item, call=fact.merged_into))
            else:
                self._call_is_over(item, reached=fact.outcome == "answered" and tried, tried=tried)

    def _call_is_over(self, item: WorkView, *, reached: bool, tried: bool) -> None:
        rule = self._rule(item)
        if reached:
            wrap_up = rule.wrap_up if rule is not None else 0
            if not wrap_up:
                self._complete(item, "reached")
                return
            until = self._now() + timedelta(seconds=wrap_up)
            self._put(msgspec.structs.replace(item, until=until, outcome="reached"))
        elif not tried:
            self._return(item, "not_possible")
        elif (later := again(item, rule, self._now())) is not None:
            self._return(later, "not_reached")
        else:
            self._fail(item)

    def hear_agent(self, fact: AgentStateChanged) -> None:
        """A call comes first: an offer goes. Who logs off gives back what they had."""
        self._states[fact.agent] = fact.new
        for item in [item for item in self._items.values() if item.agent == fact.agent]:
            if item.id in self._held:
                continue
            if item.state == "offered" and fact.new is not AgentState.READY:
                calls = fact.new in (AgentState.RESERVED, AgentState.BUSY)
                self._return(item, "calls_came_back" if calls else "not_ready")
            elif fact.new is AgentState.LOGGED_OFF and not (item.call is not None and self._alive(item.call)):
                self._return(item, "logged_off")

    def hear_queue(self, _fact: QueueCallerJoined) -> None:
        """Somebody waits: looked at once."""
        self._wake.set()

    # ------------------------------------------------------------------------------------------ looking

    async def run(self) -> None:
        """Looks and writes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_again_and_again())
            group.create_task(self._write_again_and_again())

    async def _look_again_and_again(self) -> None:
        failing = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOKS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                self.look()
                failing = False
            except Exception:
                if not failing:
                    log.exception("other work could not be looked at")
                failing = True
            await asyncio.sleep(0.05)

    def look(self) -> None:
        """One look at the floor: offers that must go go, what is free is offered, and who may do what is told."""
        rules, now = self._rules(), self._now()
        if not rules.blending and not self._shown and not self._items:
            return
        floor = self._floor(self._at_work())
        self._states.update((worker.agent, worker.state) for worker in floor.workers)
        self._permits = self._quiet.look(rules, floor, now)
        self._take_back(now)
        free = (
            item for item in self._items.values() if item.state == "waiting" and item.id not in self._held
        )
        self._passed_over = {key: until for key, until in self._passed_over.items() if until > now}
        for match in matches(free, floor.workers, self._permits, now, self._passed_over):
            until = now + timedelta(seconds=match.rule.offer_seconds)
            item = move(match.item, Step.OFFER, now, agent=match.agent, until=until, rule=match.rule.id)
            self._put(item, write=False)
            self._publish([WorkOffered(at=now, work=item.id, agent=match.agent, view=item, why=match.why)])
        self._tell(floor.workers if rules.blending else (), now)

    def _at_work(self) -> dict[str, int]:
        """Who has other work; so many items, if all of them are such as calls interrupt, else 0."""
        theirs: dict[str, list[WorkView]] = {}
        for item in self._items.values():
            if item.agent is not None:
                theirs.setdefault(item.agent, []).append(item)
        return {
            agent: len(items) if all(i.state == "accepted" and i.interrupted_by_calls for i in items) else 0
            for agent, items in theirs.items()
        }

    def _take_back(self, now: datetime) -> None:
        for item in [one for one in self._items.values() if one.id not in self._held]:
            over = item.until is not None and item.until <= now
            if item.state == "offered":
                permit = self._permits.get(item.agent or "", Permit())
                late = item.due is not None and item.due <= now
                if not (item.kind in permit.kinds or (late and item.kind in permit.overdue)):
                    self._return(item, "calls_came_back")
                elif over:
                    self._return(item, "unanswered")
            elif item.state != "accepted" or (item.call is not None and self._alive(item.call)):
                continue
            elif self._states.get(item.agent or "") is AgentState.LOGGED_OFF:
                self._return(item, "logged_off")
            elif over:
                if item.outcome is not None:
                    self._complete(item, item.outcome)
                else:
                    self._return(item, "restarted")

    def _tell(self, workers: Iterable[Worker], now: datetime) -> None:
        facts: list[Fact] = []
        there = set()
        for worker in workers:
            there.add(worker.agent)
            permit = self._permits[worker.agent]
            may = tuple(permit.kinds)
            shown = self._shown.get(worker.agent)
            if shown is None or (shown.may, shown.why) != (may, permit.why):
                self._shown[worker.agent] = BlendingView(
                    agent=worker.agent, may=may, why=permit.why, since=now
                )
                facts.append(BlendingChanged(at=now, agent=worker.agent, may=may, why=permit.why))
        for gone in self._shown.keys() - there:
            del self._shown[gone]
            facts.append(BlendingChanged(at=now, agent=gone, may=(), why=None))
        if facts:
            self._publish(facts)

    # ------------------------------------------------------------------------------------------ steps

    def _alive(self, call: str) -> bool:
        return self._view(call) is not None

    def _parties(self, call: str) -> tuple[ConnectionView, ...]:
        view = self._view(call)
        return view.connections if view is not None else ()

    def _known(self, id: str) -> WorkView:
        item = self._items.get(id)
        if item is None:
            raise NotPossible("no_such_work", "there is no such work, or it is over")
        if id in self._held:
            raise NotPossible("wrong_state", "somebody is at it at this very moment: see how it stands now")
        return item

    def _offered_to(self, agent: str, id: str) -> WorkView:
        item = self._known(id)
        if item.agent != agent or item.state != "offered":
            code = "wrong_state" if item.agent == agent else "not_yours"
            raise NotPossible(code, "this is not offered to you, or no longer")
        return item

    def _done_by(self, agent: str, id: str) -> WorkView:
        item = self._known(id)
        if item.agent != agent or item.state != "accepted":
            code = "wrong_state" if item.agent == agent else "not_yours"
            raise NotPossible(code, f"this is not being done by {agent}: it has to be accepted first")
        return item

    def _rule(self, item: WorkView) -> Blending | None:
        return next((rule for rule in self._rules().blending if rule.id == item.rule), None)

    def _begin(self, agent: str, item: WorkView) -> None:
        with suppress(Exception):  # logged off at this very moment: hear_agent sees to it
            self._publish(self._agents.begin_other_work(agent, item.title, at=self._now()))

    def _free(self, agent: str | None, why: str) -> None:
        if agent is not None:
            self._publish(self._agents.end_other_work(agent, why, at=self._now()))

    def _return(self, item: WorkView, reason: str) -> WorkView:
        now = self._now()
        back = move(
            item,
            Step.RETURN,
            now,
            agent=None,
            until=None,
            call=None,
            outcome=None,
            interrupted_by_calls=False,
        )
        if item.agent is not None and reason in NOT_AGAIN_AFTER:
            which = (
                ANYTHING if reason == "unanswered" else item.id
            )  # nobody is there: not the next item's turn either
            self._passed_over[which, item.agent] = now + timedelta(seconds=NOT_AGAIN_AFTER[reason])
        if item.call is not None:
            self._of_call.pop(item.call, None)
        self._put(back, write=item.state == "accepted")
        self._publish([WorkReturned(at=now, work=item.id, agent=item.agent, view=back, reason=reason)])
        if item.state == "accepted":
            self._free(item.agent, f"other work is over: {reason.replace('_', ' ')}")
        return back

    def _complete(self, item: WorkView, outcome: str) -> WorkView:
        done = move(item, Step.COMPLETE, self._now(), until=None, outcome=outcome)
        self._write(done)
        self._end(
            done, [WorkCompleted(at=done.since, work=item.id, agent=item.agent, view=done, outcome=outcome)]
        )
        return done

    def _fail(self, item: WorkView) -> None:
        failed = move(
            item, Step.FAIL, self._now(), until=None, attempts=item.attempts + 1, outcome="not reached"
        )
        self._write(failed)
        self._end(
            failed,
            [
                WorkEnded(
                    at=failed.since, work=item.id, agent=item.agent, view=failed, reason="failed", by="system"
                )
            ],
        )

    def _end(self, item: WorkView, facts: list[Fact]) -> None:
        self._items.pop(item.id, None)
        if item.call is not None:
            self._of_call.pop(item.call, None)
        self._publish(facts)
        self._free(item.agent, f"other work is over: {item.state}")

    def _put(self, item: WorkView, *, write: bool = True) -> None:
        self._items[item.id] = item
        if write:
            self._write(item)

    @contextmanager
    def _holding(self, item: WorkView) -> Iterator[None]:
        """Nobody else changes the item while the database or the PBX is waited for."""
        self._held.add(item.id)
        try:
            yield
        finally:
            self._held.discard(item.id)
            self._wake.set()

    # ------------------------------------------------------------------------------------------ writing

    async def _save(self, item: WorkView) -> None:
        """Writes an item at once; what was to be written of it before is past."""
        async with self._saving:
            earlier = self._due.pop(item.id, None)
            try:
                async with asyncio.timeout(5):
                    await work_store.save(self._pool(), item)
            except BaseException:
                if earlier is not None:
                    self._write(earlier)
                raise

    def _write(self, item: WorkView) -> None:
        self._due.pop(item.id, None)
        self._due[item.id] = item
        self._backlog.more()

    async def _write_again_and_again(self) -> None:
        while True:
            if not self._due:
                await self._backlog.idle()
            id, item = next(iter(self._due.items()))
            try:
                async with self._saving:
                    if self._due.get(id) is item:
                        await work_store.save(self._pool(), item)
            except Exception as error:
                await self._backlog.failed(type(error).__name__)
            else:
                self._backlog.succeeded()
                if self._due.get(id) is item:
                    del self._due[id]

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything is written; False if it is not after `timeout` seconds."""
        return await self._backlog.flush(timeout)
