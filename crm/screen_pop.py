"""Screen pops: who is calling, on the right agent's screen before the phone rings, and off it again when it is not theirs.

A reactor: call facts in, pop facts out; the look-up runs beside it and delays nothing. Pops belong to a *matter*: a
call together with the consultation calls made about it, so whoever is consulted sees the customer, not the colleague.
All state is in memory and is rebuilt from call.originated facts; a pop's id is made from the matter and the agent, so
the same pop shown again after a restart is known to be the same.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import structlog

from crm.accounts import UnknownAccount as UnknownAccount
from crm.ani import Identification, LookupUnavailable
from crm.facts import InteractionIdentified, PopShown, PopUpdated, PopWithdrawn
from crm.pop_url import PopUrl
from crm.views import PopView
from cti.facts import (
    AgentState,
    AgentStateChanged,
    CallCleared,
    CallConferenced,
    CallDataChanged,
    CallDiverted,
    CallerChanged,
    CallEstablished,
    CallFailed,
    CallMerged,
    CallOffered,
    CallOriginated,
    CallParked,
    CallQueued,
    CallTransferred,
    CallUnparked,
    CallView,
    ConnectionCleared,
    ConnectionState,
    Direction,
    Fact,
)
from cti.numbers import Caller, Kind, read_caller
from cti.people import Actor, Role
from cti.plain_text import plain

log = structlog.get_logger(__name__)

MOST_DATA = 32
"""Entries of call data that a pop carries; each value at most 512 characters."""


REMEMBERED = 10_000
"""Ids of ended calls that are remembered as such."""


class PopState(StrEnum):
    """Where an agent's pop is. Withdrawn and closed pops are not on the screen; a closed one is forgotten."""

    OFFERED = "offered"
    TALKING = "talking"
    ENDED = "ended"
    WITHDRAWN = "withdrawn"
    CLOSED = "closed"


class Trigger(StrEnum):
    """What can happen to a pop."""

    OFFER = "offer"
    ANSWER = "answer"
    LOSE = "lose"
    END = "end"
    GIVE_UP = "give_up"
    CLOSE = "close"


TRANSITIONS: dict[PopState, dict[Trigger, PopState]] = {
    PopState.OFFERED: {
        Trigger.ANSWER: PopState.TALKING,
        Trigger.LOSE: PopState.WITHDRAWN,
        Trigger.END: PopState.WITHDRAWN,
        Trigger.GIVE_UP: PopState.ENDED,
    },
    PopState.TALKING: {
        Trigger.LOSE: PopState.ENDED,
        Trigger.END: PopState.ENDED,
        Trigger.GIVE_UP: PopState.ENDED,
    },
    PopState.ENDED: {
        Trigger.OFFER: PopState.OFFERED,
        Trigger.ANSWER: PopState.TALKING,
        Trigger.CLOSE: PopState.CLOSED,
    },
    PopState.WITHDRAWN: {
        Trigger.OFFER: PopState.OFFERED,
        Trigger.ANSWER: PopState.TALKING,
        Trigger.CLOSE: PopState.CLOSED,
    },
    PopState.CLOSED: {},
}
"""Every change of a pop; a trigger that is not listed changes nothing. GIVE_UP is for who dialled: they got nobody, and
still have to write that down."""

ON_SCREEN = frozenset({PopState.OFFERED, PopState.TALKING, PopState.ENDED})

_REASONS = {
    "abandoned": "caller_gone",
    "lost": "caller_gone",
    "normal": "caller_gone",
    "failed": "unreachable",
}
_CONNECTED = frozenset({ConnectionState.CONNECTED, ConnectionState.HOLD})
_ON_THE_LINE = _CONNECTED | {ConnectionState.QUEUED}


class NotYourCall(Exception):
    """Only an agent who has this call on the screen, a supervisor or an administrator may say whose call it is."""


class UnknownCall(Exception):
    """There is no such call, or it is over and nobody works on it any more."""


class Find(Protocol):
    """`CallerLookup.find`, with a time limit that suits a call that can wait for its answer (seconds, not milliseconds)."""

    def __call__(
        self,
        text: str | None,
        region: str,
        *,
        account_number: str | None = None,
        account_id: int | None = None,
    ) -> Awaitable[Identification]: ...


class Ask(Protocol):
    """`CallerLookup.ask`, with the same time limit: the answer without a task between."""

    def __call__(
        self,
        text: str | None,
        region: str,
        done: Callable[[Identification | LookupUnavailable], None],
        *,
        account_number: str | None = None,
        account_id: int | None = None,
    ) -> None: ...


Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Choose(Protocol):
    """Commits a person's choice of customer to the interaction (`Interactions.choose`), and the number if `remember`."""

    def __call__(
        self, actor: Actor, call: str, account_id: int, contact_id: int | None, remember: str | None
    ) -> Awaitable[None]: ...


@dataclass(slots=True)
class _Pop:
    """One agent's pop of one matter. `connections`: the agent's live ones, each with its call."""

    id: str
    agent: str
    shown: datetime
    state: PopState = PopState.WITHDRAWN
    connections: dict[str, str] = field(default_factory=dict)
    queue: str | None = None
    consulted_by: str | None = None
    ended: datetime | None = None


@dataclass(slots=True)
class _Matter:
    """A customer's call and what is known about it. `customer`: the text that is looked up."""

    call: str
    pbx: str
    direction: Direction
    started: datetime
    customer: str | None = None
    customer_known: bool = False
    name: str | None = None
    dnis: str | None = None
    queue: str | None = None
    waiting_since: datetime | None = None
    waited: float = 0.0
    data: dict[str, str] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    pops: dict[str, _Pop] = field(default_factory=dict)
    asked: tuple[str | None, str | None] | None = None
    answer: Identification | None = None
    lookup: str = "pending"
    chosen: int | None = None
    chosen_by: str | None = None
    transferred_by: str | None = None
    settled: tuple[int, int | None, str] | None = None


class ScreenPops:
    """Keeps the pops of all agents. Every method named after a fact takes it and returns the pop facts it causes."""

    def __init__(
        self,
        *,
        find: Find,
        publish: Callable[[Iterable[Fact]], None],
        region_of: Callable[[str], str],
        clock: Callable[[], datetime],
        spawn: Spawn,
        url: PopUrl,
        ask: Ask | None = None,
        choose: Choose | None = None,
        oversees: Callable[[Actor, str], bool] = lambda actor, agent: False,
        outside_number: Callable[[str, str], str] = lambda pbx, dialled: dialled,
        retries: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 5.0),
        most_matters: int = 20_000,
    ) -> None:
        """`region_of`: PBX → ISO 3166 country of its national numbers. `ask`: the shorter way to what `find` finds, which
        is then used only to ask again. `oversees`: whether a supervisor may act for this agent. `outside_number`: PBX
        and what an agent dialled → it without the prefix for an outside line. `retries`: seconds between look-ups while
        the customer data is unavailable; the last one repeats for as long as the call or a pop of it lasts.
        `most_matters`: beyond it the oldest is forgotten."""
        self._find = find
        self._publish = publish
        self._region_of = region_of
        self._clock = clock
        self._spawn = spawn
        self._url = url
        self._begin = ask
        self._choose = choose
        self._oversees = oversees
        self._outside_number = outside_number
        self._retries = tuple(retries)
        self._most = most_matters
        self._matters: OrderedDict[str, _Matter] = OrderedDict()
        self._of_call: dict[str, str] = {}
        self._agents: dict[str, dict[str, _Matter]] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self.forgotten = 0

    def reactions(self) -> dict[type[Fact], Callable[[Any], list[Fact]]]:
        """Returns what to listen to: fact class → the method that takes it."""
        return {
            CallOriginated: self.originated,
            CallQueued: self.queued,
            CallOffered: self.offered,
            CallEstablished: self.established,
            CallDiverted: self.diverted,
            CallFailed: self.failed,
            CallTransferred: self.transferred,
            CallMerged: self.merged,
            CallConferenced: self.viewed,
            CallParked: self.viewed,
            CallUnparked: self.viewed,
            ConnectionCleared: self.connection_cleared,
            CallDataChanged: self.data_changed,
            CallerChanged: self.caller_changed,
            CallCleared: self.cleared,
            AgentStateChanged: self.agent_state_changed,
        }

    def for_agent(self, login: str) -> tuple[PopView, ...]:
        """Returns what is on this agent's screen now, the oldest first."""
        now = self._clock()
        matters = self._agents.get(login, {}).values()
        shown = [(m, m.pops[login]) for m in matters if m.pops[login].state in ON_SCREEN]
        return tuple(self._view(m, pop, now) for m, pop in sorted(shown, key=lambda pair: pair[1].shown))

    def of_call(self, call: str) -> tuple[PopView, ...]:
        """Returns what is on anybody's screen of this call now, the oldest first."""
        matter, now = self._matter_of(call), self._clock()
        if matter is None:
            return ()
        shown = sorted(
            (pop for pop in matter.pops.values() if pop.state in ON_SCREEN), key=lambda pop: pop.shown
        )
        return tuple(self._view(matter, pop, now) for pop in shown)

    def __len__(self) -> int:
        return len(self._matters)

    # ------------------------------------------------------------------------------------- call facts

    def originated(self, fact: CallOriginated) -> list[Fact]:
        """The look-up starts. Agents who are already on the call (they dial, or it is found at a resync) get the pop."""
        matter, facts = self._met(fact.view, fact.at)
        if matter is None:
            return facts
        return facts + self._on_it(matter, fact.view, fact.at)

    def queued(self, fact: CallQueued) -> list[Fact]:
        """The wait begins, in this queue."""
        matter, facts = self._met(fact.view, fact.at)
        if matter is None or matter.call != fact.call or fact.connection.agent is not None:
            return facts
        known = (matter.queue, matter.waiting_since)
        matter.queue = fact.queue
        matter.waiting_since = matter.waiting_since or fact.at
        if known != (matter.queue, matter.waiting_since):
            facts += self._updates(matter, fact.at)
        return facts

    def offered(self, fact: CallOffered) -> list[Fact]:
        """The agent whose phone is about to ring sees the pop; who dials out sees the customer being dialled."""
        matter, facts = self._met(fact.view, fact.at)
        if matter is None:
            return facts
        if fact.agent is not None:
            facts += self._offer(matter, fact.agent, fact.connection.id, fact.view, fact.queue, fact.at)
        elif matter.direction is Direction.OUTBOUND:
            facts += self._on_it(matter, fact.view, fact.at)
        return facts

    def established(self, fact: CallEstablished) -> list[Fact]:
        """Whoever answered keeps the pop; the others whom the same queue offered the call lose it."""
        matter, facts = self._met(fact.view, fact.at)
        if matter is None:
            return facts
        if fact.agent is None:
            return facts
        waited_since = matter.waiting_since if fact.call == matter.call else None
        if waited_since is not None:
            waited = (fact.at - waited_since).total_seconds() if fact.waited is None else fact.waited
            matter.waited += max(0.0, waited)
            matter.waiting_since = None
        told: list[Fact] = []
        for pop in tuple(matter.pops.values()):
            if (
                pop.agent != fact.agent
                and pop.state is PopState.OFFERED
                and fact.queue
                and pop.queue == fact.queue
            ):
                pop.connections.clear()
                told += self._move(matter, pop, Trigger.LOSE, fact.at, "answered_elsewhere")
        # Without a pop the offer to the agent was missed, or it is the agent who dials.
        if fact.agent in matter.pops or matter.customer_known:
            told += self._answer(matter, fact.agent, fact.connection.id, fact.call, fact.at)
        if waited_since is not None:
            told += self._others(matter, told, fact.at)
        return facts + told

    def diverted(self, fact: CallDiverted) -> list[Fact]:
        """The agent did not take it."""
        facts = self._met(fact.view, fact.at)[1]
        return facts + self._left(fact.call, fact.agent, fact.connection.id, fact.reason, fact.at)

    def failed(self, fact: CallFailed) -> list[Fact]:
        """The agent's device could not be reached."""
        return self._left(fact.call, fact.agent, fact.connection.id, fact.reason, fact.at)

    def connection_cleared(self, fact: ConnectionCleared) -> list[Fact]:
        """The agent has left the call: from talking to wrap-up. A connection that goes on in another call stays."""
        if fact.reason == "merged":
            return []
        return self._left(fact.call, fact.agent, fact.connection.id, fact.reason, fact.at)

    def transferred(self, fact: CallTransferred) -> list[Fact]:
        """The call goes on to somebody else: who handed it on ends."""
        matter, facts = self._met(fact.view, fact.at)
        if matter is None:
            return facts
        if fact.by is not None and fact.by.agent is not None:
            if matter.transferred_by != fact.by.agent:  # who has it on the screen already is told, too
                matter.transferred_by = fact.by.agent
                others = [
                    p for p in matter.pops.values() if p.agent != fact.by.agent and p.state in ON_SCREEN
                ]
                facts += [self._fact(PopUpdated, matter, p, fact.at) for p in others]
            pop = matter.pops.get(fact.by.agent)
            if pop is not None:
                pop.connections.clear()
                facts += self._move(matter, pop, Trigger.LOSE, fact.at, "transferred")
        return facts

    def merged(self, fact: CallMerged) -> list[Fact]:
        """A party came over from another call: a colleague consulted about it keeps the pop, a new one gets it."""
        matter, facts = self._met(fact.view, fact.at)
        source = self._matter_of(fact.merged)
        if matter is None:
            if source is None:
                return facts
            matter = source  # the customer's call goes on under the other call's name
            self._of_call[fact.call] = source.call
            source.calls.add(fact.call)
        agent = fact.connection.agent
        if agent is None:
            return facts
        if source is not None and source is not matter and (left := source.pops.get(agent)) is not None:
            left.connections.pop(fact.connection.id, None)
            if not left.connections:
                facts += self._move(source, left, Trigger.LOSE, fact.at, "transferred")
        pop = matter.pops.get(agent)
        if pop is not None and pop.state in ON_SCREEN:
            pop.connections[fact.connection.id] = fact.call
            return facts
        if fact.connection.state in _CONNECTED:
            facts += self._answer(matter, agent, fact.connection.id, fact.call, fact.at)
        return facts

    def viewed(self, fact: CallConferenced | CallParked | CallUnparked) -> list[Fact]:
        """Nothing changes but what is known of the call."""
        return self._met(fact.view, fact.at)[1]

    def data_changed(self, fact: CallDataChanged) -> list[Fact]:
        """What the IVR collected reaches the screens; a customer number in it is looked up and then leads."""
        matter = self._matter_of(fact.call)
        if matter is None or not self._take_data(matter, fact.changed):
            return []
        self._ask(matter)
        return self._updates(matter, fact.at)

    def caller_changed(self, fact: CallerChanged) -> list[Fact]:
        """The switch corrected the caller: looked up again."""
        matter = self._matter_of(fact.call)
        if matter is None or matter.call != fact.call or matter.direction is Direction.OUTBOUND:
            return []
        before = (matter.customer, matter.name)
        matter.name = plain(fact.ani_name, 200) or None
        matter.customer = fact.ani[:512] if fact.ani else None
        matter.customer_known = True
        if before == (matter.customer, matter.name):
            return []
        self._ask(matter)
        return self._updates(matter, fact.at)

    def cleared(self, fact: CallCleared) -> list[Fact]:
        """The call is over: pops of those who talked stay until their wrap-up ends, the others go."""
        self._over[fact.call] = None
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
        matter = self._matter_of(fact.call)
        if matter is None:
            return []
        facts: list[Fact] = []
        matter.calls.discard(fact.call)
        waited = fact.call == matter.call and matter.waiting_since is not None
        if waited:
            matter.waiting_since = None
        for pop in tuple(matter.pops.values()):
            left = [c for c, call in pop.connections.items() if call == fact.call]
            for connection in left:
                del pop.connections[connection]
            if not pop.connections and (left or not matter.calls):
                dialled = matter.direction is Direction.OUTBOUND and fact.call == matter.call
                trigger = Trigger.GIVE_UP if dialled else Trigger.END
                facts += self._move(matter, pop, trigger, fact.at, "caller_gone")
        if waited:
            facts += self._others(matter, facts, fact.at)
        self._forget_if_done(matter)
        return facts

    def agent_state_changed(self, fact: AgentStateChanged) -> list[Fact]:
        """Wrap-up over, or the agent gone: the pops of their ended calls close."""
        if fact.new is AgentState.LOGGED_OFF:
            return self._close_ended(fact.agent, "logged_off", fact.at)
        if fact.old is AgentState.WRAP_UP and fact.new in (AgentState.READY, AgentState.NOT_READY):
            return self._close_ended(fact.agent, "call_ended", fact.at)
        return []

    # ------------------------------------------------------------------------------------ from people

    def dismiss(self, actor: Actor, pop_id: str) -> list[Fact]:
        """Takes an ended pop off the actor's screen; one whose call lasts stays. Returns nothing if there is none."""
        for matter in tuple(self._agents.get(actor.login, {}).values()):
            pop = matter.pops[actor.login]
            if pop.id == pop_id and pop.state is PopState.ENDED:
                return self._move(matter, pop, Trigger.CLOSE, self._clock(), "dismissed")
        return []

    async def identify(
        self, actor: Actor, call: str, account_id: int, *, remember: bool = False
    ) -> tuple[PopView, ...]:
        """Says that this account is the customer: committed to the interaction, then every pop of the call is updated.

        With `remember` the caller's number becomes one of the account's phones. Returns the actor's pops of the call.
        Raises UnknownCall, NotYourCall, UnknownAccount, LookupUnavailable; then nothing has changed.
        """
        matter = self._matter_of(call)
        if matter is None:
            raise UnknownCall(call)
        holders = [pop.agent for pop in matter.pops.values() if pop.state in ON_SCREEN]
        overseer = actor.role is Role.SUPERVISOR and any(self._oversees(actor, agent) for agent in holders)
        if not (actor.is_admin or overseer or actor.login in holders):
            raise NotYourCall(call)
        region = self._region_of(matter.pbx)
        number = _account_number(matter.data)
        found = await self._find(matter.customer, region, account_number=number, account_id=account_id)
        if not found.candidates or found.candidates[0].account.id != account_id:
            raise UnknownAccount(str(account_id))
        contact = found.candidates[0].contact
        contact_id = contact.id if contact else None
        if self._choose is not None:
            e164 = found.caller.e164 if remember else None
            await self._choose(actor, matter.call, account_id, contact_id, e164)
        matter.chosen, matter.chosen_by = account_id, actor.login
        matter.answer, matter.lookup = found, "complete"
        now = self._clock()
        settled = self._settle(matter, now)
        self._publish([*settled, *self._updates(matter, now)])
        return tuple(view for view in self.for_agent(actor.login) if view.call == matter.call)

    # ------------------------------------------------------------------------------------- the matter

    def _met(self, view: CallView, at: datetime) -> tuple[_Matter | None, list[Fact]]:
        """Finds or makes the call's matter, takes over what the view tells, starts the look-up. None: no customer."""
        if view.id in self._over:  # a straggler must not bring a call back to life
            return self._matter_of(view.id), []
        root = self._of_call.get(view.id)
        if root is None or (view.consult_of is not None and root == view.id):
            root = self._root(view)
            if root is None:
                return None, []
        facts: list[Fact] = []
        matter = self._matters.get(root)
        if matter is None:
            matter = _Matter(call=root, pbx=view.pbx, direction=view.direction, started=view.started)
            if root != view.id:  # consulted about a call that has not been told of yet
                matter.direction = Direction.INBOUND
            self._matters[root] = matter
            self._of_call[root] = root
            matter.calls.add(root)
            facts += self._bound(at)
        matter.calls.add(view.id)
        self._of_call[view.id] = root
        if view.id != root:
            return matter, facts
        known = (matter.customer, matter.name, matter.dnis, matter.queue, matter.waiting_since)
        matter.direction, matter.started = view.direction, view.started
        matter.dnis = plain(view.dnis, 64) or None
        matter.queue = view.queue or matter.queue
        if matter.waiting_since is None and view.answered is None:
            matter.waiting_since = view.queued_since
        outbound = view.direction is Direction.OUTBOUND
        customer = view.ani
        if outbound:
            customer = self._outside_number(view.pbx, view.dnis) if view.dnis else None
        if not outbound:
            matter.name = plain(view.ani_name, 200) or None
        if customer or not outbound:
            matter.customer = customer[:512] if customer else None
            matter.customer_known = True
        now = (matter.customer, matter.name, matter.dnis, matter.queue, matter.waiting_since)
        changed = self._take_data(matter, view.data) | (known != now)
        if matter.customer_known:
            self._ask(matter)
        return matter, facts + self._updates(matter, at) if changed else facts

    def _root(self, view: CallView) -> str | None:
        if view.consult_of is not None and view.consult_of != view.id:
            return self._of_call.get(view.consult_of, view.consult_of)
        return None if view.direction is Direction.INTERNAL else view.id

    def _matter_of(self, call: str) -> _Matter | None:
        root = self._of_call.get(call)
        return self._matters.get(root) if root is not None else None

    def _take_data(self, matter: _Matter, changed: dict[str, str]) -> bool:
        before = dict(matter.data)
        for key, value in changed.items():
            name = plain(str(key), 64)
            if name and (name in matter.data or len(matter.data) < MOST_DATA):
                matter.data[name] = plain(str(value), 512)
        return matter.data != before

    def _forget_if_done(self, matter: _Matter) -> None:
        if matter.calls or any(pop.state in ON_SCREEN for pop in matter.pops.values()):
            return
        self._forget(matter)

    def _forget(self, matter: _Matter) -> None:
        self._matters.pop(matter.call, None)
        for call in [c for c in {*matter.calls, matter.call} if self._of_call.get(c) == matter.call]:
            del self._of_call[call]
        for agent in matter.pops:
            held = self._agents.get(agent)
            if held is not None:
                held.pop(matter.call, None)
                if not held:
                    del self._agents[agent]

    def _bound(self, at: datetime) -> list[Fact]:
        facts: list[Fact] = []
        while len(self._matters) > self._most:
            oldest = next(iter(self._matters.values()))
            facts += [
                PopWithdrawn(at=at, agent=pop.agent, call=oldest.call, pop=pop.id, reason="call_ended")
                for pop in oldest.pops.values()
                if pop.state in ON_SCREEN
            ]
            self._forget(oldest)
            self.forgotten += 1
            if self.forgotten % 1000 == 1:
                log.warning("screen pops: more calls than can be kept", forgotten=self.forgotten)
        return facts

    # -------------------------------------------------------------------------------------- the pops

    def _on_it(self, matter: _Matter, view: CallView, at: datetime) -> list[Fact]:
        """Gives the pop to the agents already on a call: they dial it, or it is found at a resync."""
        facts: list[Fact] = []
        for connection in view.connections:
            if connection.agent is None or connection.agent in matter.pops or not matter.customer_known:
                continue
            if connection.state in _CONNECTED:
                facts += self._answer(matter, connection.agent, connection.id, view.id, at)
            elif connection.state is not ConnectionState.NULL:
                facts += self._offer(matter, connection.agent, connection.id, view, None, at)
        return facts

    def _offer(
        self, matter: _Matter, agent: str, connection: str, view: CallView, queue: str | None, at: datetime
    ) -> list[Fact]:
        consulting = _initiator(view) if view.id != matter.call else None
        asked_by_queue = any(c.agent and c.state is ConnectionState.QUEUED for c in view.connections)
        if (
            consulting is None
            and (queue is None or asked_by_queue)
            and matter.direction is not Direction.OUTBOUND
        ):
            consulting = _holding(view, agent, matter.transferred_by)
        if consulting == agent:
            return []  # who consults has the customer on the screen already
        pop = self._pop(matter, agent, at)
        pop.connections[connection] = view.id
        pop.queue = queue or pop.queue
        asked_by, pop.consulted_by = pop.consulted_by, consulting or pop.consulted_by
        told = self._move(matter, pop, Trigger.OFFER, at)
        if not told and pop.consulted_by != asked_by:
            told = [self._fact(PopUpdated, matter, pop, at)]
        return told

    def _answer(self, matter: _Matter, agent: str, connection: str, call: str, at: datetime) -> list[Fact]:
        pop = self._pop(matter, agent, at)
        pop.connections[connection] = call
        return self._move(matter, pop, Trigger.ANSWER, at)

    def _pop(self, matter: _Matter, agent: str, at: datetime) -> _Pop:
        pop = matter.pops.get(agent)
        if pop is None:
            pop = matter.pops[agent] = _Pop(pop_id(matter.call, agent), agent, at)
            self._agents.setdefault(agent, {})[matter.call] = matter
        return pop

    def _left(self, call: str, agent: str | None, connection: str, reason: str, at: datetime) -> list[Fact]:
        matter = self._matter_of(call)
        pop = matter.pops.get(agent) if matter is not None and agent is not None else None
        if matter is None or pop is None or pop.connections.pop(connection, None) is None or pop.connections:
            return []
        # The agent's own phone did not take the click-to-dial.
        own_phone = reason in ("no_answer", "rejected", "busy", "unreachable")
        if matter.direction is Direction.OUTBOUND and matter.call == call and not own_phone:
            return self._move(matter, pop, Trigger.GIVE_UP, at)
        return self._move(matter, pop, Trigger.LOSE, at, _REASONS.get(reason, reason))

    def _move(
        self, matter: _Matter, pop: _Pop, trigger: Trigger, at: datetime, reason: str = ""
    ) -> list[Fact]:
        """Moves a pop along the table and returns what its agent is told."""
        old = pop.state
        new = TRANSITIONS[old].get(trigger)
        if new is None or new is old:
            return []
        pop.state = new
        facts: list[Fact] = []
        if new in ON_SCREEN:
            pop.ended = at if new is PopState.ENDED else None
            if old in ON_SCREEN:
                facts.append(self._fact(PopUpdated, matter, pop, at))
            else:
                pop.shown = at
                facts += self._close_ended(pop.agent, "replaced", at, but=matter)
                facts.append(self._fact(PopShown, matter, pop, at))
        elif old in ON_SCREEN:
            facts.append(PopWithdrawn(at=at, agent=pop.agent, call=matter.call, pop=pop.id, reason=reason))
        if new is PopState.CLOSED:
            matter.pops.pop(pop.agent, None)
            held = self._agents.get(pop.agent, {})
            held.pop(matter.call, None)
            if not held:
                self._agents.pop(pop.agent, None)
        if new not in ON_SCREEN:
            self._forget_if_done(matter)
        return facts

    def _close_ended(
        self, agent: str, reason: str, at: datetime, *, but: _Matter | None = None
    ) -> list[Fact]:
        facts: list[Fact] = []
        for matter in tuple(self._agents.get(agent, {}).values()):
            pop = matter.pops[agent]
            if matter is not but and pop.state is PopState.ENDED:
                facts += self._move(matter, pop, Trigger.CLOSE, at, reason)
        return facts

    def _updates(self, matter: _Matter, at: datetime) -> list[Fact]:
        return [
            self._fact(PopUpdated, matter, pop, at) for pop in matter.pops.values() if pop.state in ON_SCREEN
        ]

    def _others(self, matter: _Matter, told: list[Fact], at: datetime) -> list[Fact]:
        """An update for each on a screen of whom `told` does not speak."""
        heard = {getattr(fact, "pop", None) for fact in told}
        return [
            self._fact(PopUpdated, matter, pop, at)
            for pop in matter.pops.values()
            if pop.state in ON_SCREEN and pop.id not in heard
        ]

    def _fact(
        self, kind: type[PopShown] | type[PopUpdated], matter: _Matter, pop: _Pop, at: datetime
    ) -> Fact:
        view = self._view(matter, pop, at)
        return kind(at=at, agent=pop.agent, call=matter.call, pop=pop.id, view=view)

    def _view(self, matter: _Matter, pop: _Pop, at: datetime) -> PopView:
        caller = self._caller(matter)
        candidates = matter.answer.candidates if matter.answer else ()
        first = candidates[0].account if candidates else None
        waited = matter.waited
        if matter.waiting_since is not None:
            waited += max(0.0, (at - matter.waiting_since).total_seconds())
        values = {
            "e164": caller.e164,
            "account_number": first.number if first else None,
            "account_id": str(first.id) if first else None,
            "call": matter.call,
            "queue": matter.queue,
            "dnis": matter.dnis,
            "ani": caller.text,
            "name": matter.name,
            "agent": pop.agent,
            "direction": matter.direction.value,
        }
        return PopView(
            id=pop.id,
            call=matter.call,
            pbx=matter.pbx,
            agent=pop.agent,
            state=pop.state.value,
            direction=matter.direction,
            number=caller.text,
            kind=caller.kind.value,
            withheld=caller.withheld,
            e164=caller.e164,
            formatted=caller.formatted,
            country=caller.country,
            name=matter.name,
            dnis=matter.dnis,
            queue=matter.queue,
            started=matter.started,
            waiting_since=matter.waiting_since,
            waited=round(waited, 3),
            shown=pop.shown,
            ended=pop.ended,
            lookup=matter.lookup,
            how=matter.answer.how if matter.answer else matter.lookup,
            candidates=candidates,
            chosen_by=matter.chosen_by,
            consulted_by=pop.consulted_by,
            transferred_by=matter.transferred_by if matter.transferred_by != pop.agent else None,
            url=self._url.fill(values),
            data=dict(matter.data),
        )

    def _caller(self, matter: _Matter) -> Caller:
        if not matter.customer_known:
            return Caller(kind=Kind.UNKNOWN, text="")
        return read_caller(matter.customer, self._region_of(matter.pbx))

    # ------------------------------------------------------------------------------------ the look-up

    def _ask(self, matter: _Matter) -> None:
        asked = (matter.customer, _account_number(matter.data))
        if asked != matter.asked:
            matter.asked = asked
            matter.lookup = "pending" if matter.answer is None else matter.lookup
            if self._begin is None:
                self._spawn(self._look_up(matter, asked))
            else:
                self._begin(
                    matter.customer,
                    self._region_of(matter.pbx),
                    functools.partial(self._told, matter, asked),
                    account_number=asked[1],
                    account_id=matter.chosen,
                )

    def _told(
        self,
        matter: _Matter,
        asked: tuple[str | None, str | None],
        answer: Identification | LookupUnavailable,
    ) -> None:
        if isinstance(answer, Identification):
            self._take_answer(matter, asked, answer)
        else:
            self._spawn(self._look_up(matter, asked, refused=True))

    def _take_answer(
        self, matter: _Matter, asked: tuple[str | None, str | None], answer: Identification
    ) -> None:
        if self._matters.get(matter.call) is matter and matter.asked == asked:
            matter.answer, matter.lookup = answer, "complete"
            now = self._clock()
            self._publish([*self._settle(matter, now), *self._updates(matter, now)])

    async def _look_up(
        self, matter: _Matter, asked: tuple[str | None, str | None], *, refused: bool = False
    ) -> None:
        """Asks until it is answered, something else is asked, or nobody cares any more. Publishes what it learns.
        `refused`: it was asked once and could not be answered."""
        region = self._region_of(matter.pbx)
        attempt = 0
        while self._matters.get(matter.call) is matter and matter.asked == asked:
            try:
                if refused and attempt == 0:
                    raise LookupUnavailable
                answer = await self._find(
                    matter.customer, region, account_number=asked[1], account_id=matter.chosen
                )
            except LookupUnavailable:
                pass
            except Exception:
                log.exception("caller look-up failed")
            else:
                self._take_answer(matter, asked, answer)
                return
            if matter.lookup == "pending" and self._matters.get(matter.call) is matter:
                matter.lookup = "unavailable"
                self._publish(self._updates(matter, self._clock()))
            await asyncio.sleep(self._retries[min(attempt, len(self._retries) - 1)])
            attempt += 1

    def _settle(self, matter: _Matter, at: datetime) -> list[Fact]:
        """Returns the fact that the customer is known, if that is so and news."""
        if matter.answer is None or (settled := matter.answer.settled) is None:
            return []
        contact = matter.answer.settled_contact
        now = (settled.account.id, contact.id if contact else None, settled.how)
        if now == matter.settled:
            return []
        matter.settled = now
        by = matter.chosen_by if settled.how == "chosen" and matter.chosen_by else "lookup"
        return [
            InteractionIdentified(
                at=at,
                call=matter.call,
                e164=matter.answer.caller.e164,
                account_id=now[0],
                contact_id=now[1],
                how=now[2],
                by=by,
            )
        ]


def pop_id(call: str, agent: str) -> str:
    """Returns the id of this agent's pop of this call: always the same, also from another process."""
    return "p" + hashlib.blake2s(f"{call}\0{agent}".encode(), digest_size=9).hexdigest()


def _initiator(view: CallView) -> str | None:
    """The agent who placed a consultation call: its first party."""
    return view.connections[0].agent if view.connections else None


def _holding(view: CallView, offered: str, transferred_by: str | None) -> str | None:
    """The agent who consults within the call itself: has the customer, and another agent's phone is about to ring."""
    for connection in view.connections:
        if connection.state in _ON_THE_LINE and connection.agent not in (None, offered, transferred_by):
            return connection.agent
    return None


_NUMBER_KEYS = frozenset({"customernumber", "customerno", "accountnumber", "accountno"})


def _account_number(data: dict[str, str]) -> str | None:
    for key, value in data.items():
        if "".join(c for c in key.casefold() if c.isalnum()) in _NUMBER_KEYS and value.strip():
            return value.strip()[:40]
    return None
