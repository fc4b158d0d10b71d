"""The screen pop: on the right agent's screen, once, in time, and off it again when it is not theirs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crm.accounts import NewAccount, NewPhone, UnknownAccount, add_phone, create
from crm.ani import CallerLookup, Identification, LookupUnavailable
from crm.facts import InteractionIdentified, PopShown, PopUpdated, PopWithdrawn
from crm.pop_url import NAMES, PopUrl, WrongTemplate
from crm.screen_pop import (
    ON_SCREEN,
    TRANSITIONS,
    NotYourCall,
    PopState,
    ScreenPops,
    Trigger,
    UnknownCall,
    pop_id,
)
from crm.views import AccountCard, Candidate, PopView
from cti.bus import Bus
from cti.facts import (
    AgentState,
    AgentStateChanged,
    CallCleared,
    CallDataChanged,
    CallDiverted,
    CallerChanged,
    CallEstablished,
    CallMerged,
    CallOffered,
    CallOriginated,
    CallQueued,
    CallTransferred,
    CallView,
    ConnectionCleared,
    ConnectionState,
    ConnectionView,
    Direction,
    Fact,
)
from cti.hub import pack
from cti.numbers import read_caller
from cti.people import Actor, Role

from .recorded import told
from .test_ani import eventually, wire

START = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
ANNA = Actor(login="anna", name="Anna", role=Role.AGENT)
BEN = Actor(login="ben", name="Ben", role=Role.AGENT)
ADMIN = Actor(login="root", name="Root", role=Role.ADMIN)
SALES = "main:sales"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def account(number: int, name: str = "", how: str = "exact") -> Candidate:
    card = AccountCard(
        id=number,
        number=f"C-{number}",
        name=name or f"Customer {number}",
        kind="person",
        classification="A",
        status="active",
        language="en",
        country="GB",
        timezone="Europe/London",
        email="",
        city="London",
        last_contact=None,
    )
    return Candidate(how=how, account=card)


class Desk:
    """A bus with screen pops on it, and what every agent's client has on its screen by following the facts."""

    def __init__(self, owners: dict[str, list[int]] | None = None, **more: Any) -> None:
        self.owners = owners if owners is not None else {"+442079460001": [1]}
        self.asked: list[tuple[str | None, str | None, int | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False
        self.now = START
        self.told: list[Fact] = []
        self.screens: dict[str, dict[str, PopView]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.bus = Bus(audience=lambda fact: frozenset())
        self.pops = self.start(**more)

    def start(self, **more: Any) -> ScreenPops:
        """Puts fresh screen pops on the bus, as after a start of the server."""
        self.bus = Bus(audience=lambda fact: frozenset())
        self.bus.carry(lambda envelope: self._hear(envelope.fact))
        self.pops = ScreenPops(
            find=more.pop("find", self.find),
            publish=lambda facts: self.bus.publish(facts),
            region_of=lambda pbx: "GB",
            clock=lambda: self.now,
            spawn=self.spawn,
            url=PopUrl("https://crm.example/pop/{account_number}?tel={e164}&name={name}"),
            retries=more.pop("retries", (0.01,)),
            **more,
        )
        for kind, reaction in self.pops.reactions().items():
            self.bus.listen(kind, reaction)
        return self.pops

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def find(
        self,
        text: str | None,
        region: str,
        *,
        account_number: str | None = None,
        account_id: int | None = None,
    ) -> Identification:
        self.asked.append((text, account_number, account_id))
        await self.gate.wait()
        if self.down:
            raise LookupUnavailable
        caller = read_caller(text, region)
        found = [account(n) for n in self.owners.get(caller.e164 or "", ())]
        if account_number is not None:
            found = [c for c in found if c.account.number != account_number]
            found.insert(0, account(int(account_number.removeprefix("C-")), how="account_number"))
        if account_id is not None and account_id < 100:
            found = [c for c in found if c.account.id != account_id]
            found.insert(0, account(account_id, how="chosen"))
        how = found[0].how if found else ("none" if caller.e164 else caller.kind.value)
        return Identification(caller=caller, how=how, candidates=tuple(found))

    def _hear(self, fact: Fact) -> None:
        self.told.append(fact)
        match fact:
            case PopShown():
                screen = self.screens.setdefault(fact.agent, {})
                assert fact.pop not in screen, "shown twice"
                assert (fact.view.id, fact.view.agent) == (fact.pop, fact.agent)
                screen[fact.pop] = fact.view
            case PopUpdated():
                assert fact.pop in self.screens[fact.agent], "an update of what is not on the screen"
                self.screens[fact.agent][fact.pop] = fact.view
            case PopWithdrawn():
                del self.screens[fact.agent][fact.pop]
            case _:
                return
        pack(fact)

    def happen(self, *facts: Fact) -> None:
        """Publishes facts one by one; each screen must then be what the snapshot says."""
        for fact in facts:
            self.bus.publish([fact])
        for agent in {*self.screens, "anna", "ben", "cleo"}:
            now = {pop.id: replace(pop, waited=0.0) for pop in self.pops.for_agent(agent)}
            assert now == {id: replace(pop, waited=0.0) for id, pop in self.screens.get(agent, {}).items()}

    async def settled(self) -> None:
        """Waits until every look-up is answered."""
        for _ in range(20):
            await asyncio.sleep(0)
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=5)

    def on(self, agent: str) -> PopView:
        (view,) = self.screens.get(agent, {}).values()
        return view

    def empty(self, agent: str) -> bool:
        return not self.screens.get(agent)

    def of(self, kind: type[Fact], agent: str) -> list[Any]:
        return [fact for fact in self.told if type(fact) is kind and getattr(fact, "agent", "") == agent]


class Scene:
    """The facts of one call, as the call model tells them."""

    def __init__(self, call: str = "main:1", *, ani: str | None = "+442079460001", **view: Any) -> None:
        self.customer = ConnectionView(
            id=f"{call}-c", device="PJSIP/trunk", state=ConnectionState.CONNECTED, since=START
        )
        self.view = CallView(
            id=call,
            pbx="main",
            direction=view.pop("direction", Direction.INBOUND),
            ani=ani,
            ani_name=view.pop("name", "BOB"),
            dnis=view.pop("dnis", "5550100"),
            started=START,
            connections=view.pop("connections", (self.customer,)),
            **view,
        )
        self.call = call

    def leg(
        self, agent: str | None, n: int = 1, state: ConnectionState = ConnectionState.INITIATED
    ) -> ConnectionView:
        return ConnectionView(
            id=f"{self.call}-{agent}-{n}", device=f"PJSIP/{agent}{n}", state=state, since=START, agent=agent
        )

    def originated(self, t: float = 0) -> Fact:
        first = self.view.connections[0]
        return CallOriginated(at=at(t), call=self.call, connection=first, view=self.view)

    def queued(self, t: float = 1) -> Fact:
        self.view = replace(self.view, queue=SALES, queued_since=at(t))
        return CallQueued(
            at=at(t), call=self.call, connection=self.customer, queue=SALES, position=1, view=self.view
        )

    def offered(self, agent: str | None, t: float = 5, n: int = 1, queue: str | None = SALES) -> Fact:
        return CallOffered(
            at=at(t), call=self.call, connection=self.leg(agent, n), agent=agent, queue=queue, view=self.view
        )

    def established(self, agent: str | None, t: float = 8, n: int = 1, queue: str | None = SALES) -> Fact:
        leg = self.leg(agent, n, ConnectionState.CONNECTED)
        return CallEstablished(
            at=at(t),
            call=self.call,
            connection=leg,
            agent=agent,
            queue=queue,
            waited=7.0,
            rang=3.0,
            view=self.view,
        )

    def diverted(self, agent: str, reason: str, t: float = 9, n: int = 1) -> Fact:
        return CallDiverted(
            at=at(t),
            call=self.call,
            connection=self.leg(agent, n),
            agent=agent,
            queue=SALES,
            reason=reason,
            rang=4.0,
            view=self.view,
        )

    def left(self, agent: str | None, t: float = 60, n: int = 1, reason: str = "normal") -> Fact:
        leg = self.leg(agent, n, ConnectionState.NULL)
        return ConnectionCleared(
            at=at(t),
            call=self.call,
            connection=leg,
            agent=agent,
            cause=16,
            reason=reason,
            talked=52.0,
            held=0.0,
        )

    def cleared(self, t: float = 60, outcome: str = "answered", into: str | None = None) -> Fact:
        return CallCleared(
            at=at(t), call=self.call, outcome=outcome, cause=16, duration=t, waited=7.0, talked=52.0, held=0.0,
            queue=SALES, agents=(), merged_into=into,
        )  # fmt: skip


def wrap_up_over(agent: str, t: float = 90, new: AgentState = AgentState.READY) -> Fact:
    return AgentStateChanged(
        at=at(t), agent=agent, old=AgentState.WRAP_UP, new=new, since=at(t), reason=None,
        by="timer", why="", call=None, pending=None,
        until=None, device=None,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ the journey


async def test_looked_up_before_any_phone_rings_shown_when_offered_to_that_agent_only() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated())
    await desk.settled()
    assert desk.asked == [("+442079460001", None, None)]
    assert not desk.screens
    desk.happen(call.queued(1), call.offered("anna", 5))
    view = desk.on("anna")
    assert [c.account.id for c in view.candidates] == [1]
    assert (view.lookup, view.state, view.how) == ("complete", "offered", "exact")
    assert (view.number, view.e164, view.formatted) == ("+442079460001", "+442079460001", "+44 20 7946 0001")
    assert (view.name, view.dnis, view.queue, view.direction) == ("BOB", "5550100", SALES, Direction.INBOUND)
    assert (view.waited, view.waiting_since) == (4.0, at(1))
    assert view.url == "https://crm.example/pop/C-1?tel=%2B442079460001&name=BOB"
    assert desk.empty("ben")
    assert len(desk.asked) == 1


async def test_a_slow_answer_delays_no_pop_and_completes_it() -> None:
    desk, call = Desk(), Scene()
    desk.gate.clear()
    desk.happen(call.originated(), call.queued(), call.offered("anna"))
    await asyncio.sleep(0)
    assert (desk.on("anna").lookup, desk.on("anna").candidates) == ("pending", ())
    assert desk.on("anna").e164 == "+442079460001"
    desk.gate.set()
    await desk.settled()
    assert desk.on("anna").lookup == "complete"
    assert desk.on("anna").candidates[0].account.id == 1
    assert [type(f) for f in desk.told if hasattr(f, "pop")] == [PopShown, PopUpdated]


async def test_ring_all_pops_on_all_and_stays_with_who_answers() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.queued(), *(call.offered(a) for a in ("anna", "ben", "cleo")))
    assert not any(desk.empty(a) for a in ("anna", "ben", "cleo"))
    desk.happen(call.established("ben"))
    assert desk.empty("anna")
    assert desk.empty("cleo")
    assert [w.reason for w in desk.of(PopWithdrawn, "anna")] == ["answered_elsewhere"]
    assert (desk.on("ben").state, desk.on("ben").waiting_since, desk.on("ben").waited) == (
        "talking",
        None,
        7.0,
    )
    desk.happen(call.diverted("anna", "answered_elsewhere"), call.diverted("cleo", "answered_elsewhere"))
    assert len(desk.of(PopWithdrawn, "anna")) == 1


async def test_two_devices_of_one_agent_are_one_pop() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna", n=1), call.offered("anna", n=2))
    assert len(desk.of(PopShown, "anna")) == 1
    desk.happen(call.diverted("anna", "unreachable", n=1))
    assert not desk.empty("anna")
    desk.happen(call.established("anna", n=2), call.left("anna", n=1))
    assert desk.on("anna").state == "talking"
    desk.happen(call.left("anna", n=2))
    assert desk.on("anna").state == "ended"


async def test_not_answered_is_withdrawn_and_the_next_offer_is_the_same_pop() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.queued(), call.offered("anna", 5), call.offered("anna", 6))
    first = desk.on("anna").id
    assert len(desk.of(PopShown, "anna")) == 1
    desk.happen(call.diverted("anna", "no_answer", 12))
    assert desk.empty("anna")
    assert desk.of(PopWithdrawn, "anna")[0].reason == "no_answer"
    desk.happen(call.offered("anna", 15))
    assert desk.on("anna").id == first == pop_id("main:1", "anna")
    assert len(desk.of(PopShown, "anna")) == 2


async def test_the_caller_who_leaves_takes_the_pop_along() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.queued(), call.offered("anna"), call.cleared(outcome="abandoned"))
    assert desk.empty("anna")
    assert desk.of(PopWithdrawn, "anna")[0].reason == "caller_gone"
    await desk.settled()
    assert len(desk.pops) == 0


@pytest.mark.parametrize("agent_leaves_first", [True, False])
async def test_who_talked_keeps_it_until_wrap_up_is_over(agent_leaves_first: bool) -> None:
    desk, call = Desk(), Scene()
    end = [call.left("anna"), call.cleared()] if agent_leaves_first else [call.cleared(), call.left("anna")]
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"), *end)
    await desk.settled()
    assert (desk.on("anna").state, desk.on("anna").ended) == ("ended", at(60))
    desk.happen(wrap_up_over("ben"))
    assert not desk.empty("anna")
    desk.happen(wrap_up_over("anna"))
    assert desk.empty("anna")
    assert desk.of(PopWithdrawn, "anna")[0].reason == "call_ended"
    assert len(desk.pops) == 0


async def test_the_next_pop_replaces_an_ended_one_but_never_one_whose_call_lasts() -> None:
    desk = Desk()
    one, two, three = Scene("main:1"), Scene("main:2"), Scene("main:3")
    desk.happen(one.originated(), one.offered("anna"), one.established("anna"))
    desk.happen(two.originated(), two.offered("anna"), two.established("anna"), two.cleared())
    assert {v.state for v in desk.screens["anna"].values()} == {"talking", "ended"}
    desk.happen(three.originated(), three.offered("anna"))
    assert {v.call for v in desk.screens["anna"].values()} == {"main:1", "main:3"}
    assert desk.of(PopWithdrawn, "anna")[0].reason == "replaced"


async def test_dismissed_by_its_agent_only_and_only_when_over() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"))
    pop = desk.on("anna").id
    assert desk.pops.dismiss(ANNA, pop) == []
    desk.happen(call.cleared())
    assert desk.pops.dismiss(BEN, pop) == []
    desk.bus.publish(desk.pops.dismiss(ANNA, pop))
    assert desk.empty("anna")
    assert desk.pops.dismiss(ANNA, pop) == []


async def test_logging_off_clears_what_is_over() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"), call.cleared())
    desk.happen(wrap_up_over("anna", new=AgentState.LOGGED_OFF))
    assert desk.empty("anna")


# -------------------------------------------------------------------------------------------- transfers


async def test_blind_transfer_moves_the_pop() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"))
    by = call.leg("anna", state=ConnectionState.CONNECTED)
    desk.happen(CallTransferred(at=at(30), call="main:1", kind="blind", by=by, target="ben", view=call.view))
    assert desk.on("anna").state == "ended"
    desk.happen(call.left("anna", 30, reason="transferred"), call.offered("ben", 31, queue=None))
    assert (desk.on("ben").transferred_by, desk.on("ben").state) == ("anna", "offered")
    assert desk.on("anna").transferred_by is None
    desk.happen(call.established("ben", 33, queue=None), call.cleared(99))
    assert [desk.on(a).state for a in ("anna", "ben")] == ["ended", "ended"]


async def test_who_has_the_pop_already_is_told_from_whom_the_call_was_taken_over() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"))
    desk.happen(call.established("sara", 30, queue=None))
    assert desk.on("sara").transferred_by is None
    by = call.leg("anna", state=ConnectionState.CONNECTED)
    taken = CallTransferred(at=at(31), call="main:1", kind="by_server", by=by, target=None, view=call.view)
    desk.happen(taken)
    assert (desk.on("sara").transferred_by, desk.on("sara").state) == ("anna", "talking")
    told = len(desk.of(PopUpdated, "sara"))
    desk.happen(taken)
    assert len(desk.of(PopUpdated, "sara")) == told  # nothing new, nothing said


def consultation(main: Scene, by: str = "anna") -> Scene:
    scene = Scene(
        "main:2", ani="1001", direction=Direction.INTERNAL, consult_of=main.call, connections=(), dnis="1002"
    )
    scene.view = replace(scene.view, connections=(scene.leg(by),))
    return scene


async def test_the_consulted_agent_sees_the_customer_and_keeps_the_pop_through_the_transfer() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"))
    await desk.settled()
    consult = consultation(call)
    desk.happen(consult.originated(20), consult.established("anna", 20, queue=None))
    assert len(desk.of(PopShown, "anna")) == 1
    desk.happen(consult.offered("ben", 21, queue=None))
    view = desk.on("ben")
    assert (view.call, view.consulted_by, view.e164, view.candidates[0].account.id) == (
        "main:1",
        "anna",
        "+442079460001",
        1,
    )
    desk.happen(consult.established("ben", 25, queue=None))
    assert desk.on("anna").state == "talking"
    ben = consult.leg("ben", state=ConnectionState.CONNECTED)
    desk.happen(
        CallTransferred(
            at=at(40), call="main:1", kind="attended", by=call.leg("anna"), target="1002", view=call.view
        ),
        CallMerged(at=at(40), call="main:1", connection=ben, merged="main:2", view=call.view),
        call.left("anna", 40, reason="transferred"),
        consult.left("anna", 40, reason="transferred"),
        consult.cleared(40, outcome="merged", into="main:1"),
    )
    assert [desk.on(a).state for a in ("anna", "ben")] == ["ended", "talking"]
    assert len(desk.of(PopShown, "ben")) == 1
    desk.happen(wrap_up_over("anna"))
    ben_left = replace(call.left("ben", 80), connection=ben)  # type: ignore[type-var]
    desk.happen(ben_left, call.cleared(80))
    assert desk.on("ben").state == "ended"
    desk.happen(wrap_up_over("ben"))
    assert len(desk.pops) == 0
    assert len(desk.asked) == 1


async def test_a_consultation_that_comes_to_nothing_takes_the_pop_back() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"))
    consult = consultation(call)
    desk.happen(
        consult.originated(20),
        consult.offered("ben", 21, queue=None),
        consult.diverted("ben", "no_answer", 26),
    )
    assert desk.empty("ben")
    desk.happen(consult.left("anna", 26), consult.cleared(26, outcome="unanswered"))
    assert desk.on("anna").state == "talking"
    desk.happen(call.left("anna"), call.cleared(), wrap_up_over("anna"))
    assert len(desk.pops) == 0


async def test_the_customer_hangs_up_while_colleagues_consult() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"))
    consult = consultation(call)
    desk.happen(
        consult.originated(20),
        consult.offered("ben", 21, queue=None),
        consult.established("ben", 22, queue=None),
    )
    desk.happen(call.left("anna", 30), call.cleared(30))
    assert [desk.on(a).state for a in ("anna", "ben")] == ["ended", "talking"]
    desk.happen(consult.left("ben", 40), consult.cleared(40))
    assert desk.on("ben").state == "ended"
    desk.happen(wrap_up_over("anna"), wrap_up_over("ben"))
    assert len(desk.pops) == 0


async def test_a_consultation_told_before_its_call_is_completed_when_the_call_is_told() -> None:
    desk, call = Desk(), Scene()
    consult = consultation(call)
    desk.happen(consult.originated(20), consult.offered("ben", 21, queue=None))
    assert desk.on("ben").number == ""
    desk.happen(call.originated(22))
    await desk.settled()
    assert desk.on("ben").candidates[0].account.id == 1


async def test_a_parked_call_pops_for_who_fetches_it() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"), call.left("anna", 20))
    fetch = Scene("main:9", ani="1002", direction=Direction.INTERNAL, dnis="701", connections=())
    fetch.view = replace(fetch.view, connections=(fetch.leg("ben"),))
    ben = fetch.leg("ben", state=ConnectionState.CONNECTED)
    desk.happen(
        fetch.originated(30),
        CallMerged(at=at(31), call="main:1", connection=ben, merged="main:9", view=call.view),
        fetch.cleared(31, outcome="merged", into="main:1"),
    )
    assert (desk.on("ben").state, desk.on("ben").e164) == ("talking", "+442079460001")
    desk.happen(replace(call.left("ben", 80), connection=ben), call.cleared(80))  # type: ignore[type-var]
    assert desk.on("ben").state == "ended"


async def test_calls_between_colleagues_pop_nothing() -> None:
    desk = Desk()
    call = Scene(ani="1001", direction=Direction.INTERNAL, dnis="1002")
    desk.happen(
        call.originated(),
        call.offered("ben", queue=None),
        call.established("ben", queue=None),
        call.cleared(),
    )
    assert desk.told[0].TYPE == "call.originated"
    assert not desk.screens
    assert len(desk.pops) == 0
    assert desk.asked == []


# --------------------------------------------------------------------------------------------- outbound


async def test_who_dials_a_customer_gets_their_pop() -> None:
    desk = Desk(outside_number=lambda pbx, dialled: dialled.removeprefix("9"))
    call = Scene(ani="1001", direction=Direction.INTERNAL, dnis="9+442079460001", connections=())
    call.view = replace(call.view, connections=(call.leg("anna"),))
    desk.happen(call.originated())  # seen as outbound only when the trunk is dialled
    assert desk.empty("anna")
    call.view = replace(call.view, direction=Direction.OUTBOUND)
    desk.happen(call.offered(None, 2, queue=None))
    await desk.settled()
    view = desk.on("anna")
    assert (view.direction, view.e164, view.candidates[0].account.id) == (
        Direction.OUTBOUND,
        "+442079460001",
        1,
    )
    assert view.url == "https://crm.example/pop/C-1?tel=%2B442079460001&name="
    desk.happen(call.established("anna", queue=None), call.left("anna"), call.cleared())
    assert desk.on("anna").state == "ended"
    assert len(desk.of(PopShown, "anna")) == 1


async def test_who_dials_and_gets_nobody_keeps_the_pop_to_write_that_down() -> None:
    desk = Desk()
    call = Scene(direction=Direction.OUTBOUND, dnis="020 7946 0001", connections=())
    call.view = replace(call.view, connections=(call.leg("anna"),))
    desk.happen(call.originated(), call.left("anna", 20), call.cleared(20, outcome="unanswered"))
    assert desk.on("anna").state == "ended"


async def test_click_to_dial_that_its_own_agent_does_not_take_is_withdrawn() -> None:
    desk = Desk()
    call = Scene(direction=Direction.OUTBOUND, dnis="020 7946 0001", connections=())
    call.view = replace(call.view, connections=(call.leg("anna"),))
    desk.happen(call.originated(), call.diverted("anna", "no_answer"), call.cleared(20, outcome="unanswered"))
    assert desk.empty("anna")
    assert len(desk.pops) == 0


# -------------------------------------------------------------------------------------------- what comes


async def test_the_ivr_asks_for_the_customer_number_and_that_leads() -> None:
    desk, call = Desk({"+442079460001": [1, 2]}), Scene()
    desk.happen(call.originated())
    await desk.settled()
    changed = {"CustomerNumber": " C-7 ", "Menu": "2"}
    desk.happen(CallDataChanged(at=at(2), call="main:1", changed=changed, by="ivr"), call.offered("anna"))
    await desk.settled()
    view = desk.on("anna")
    assert [(c.account.id, c.how) for c in view.candidates] == [
        (7, "account_number"),
        (1, "exact"),
        (2, "exact"),
    ]
    assert view.data == {"CustomerNumber": "C-7", "Menu": "2"}
    assert [f for f in desk.told if isinstance(f, InteractionIdentified)][-1].account_id == 7


async def test_data_known_from_the_start_is_asked_for_once() -> None:
    desk, call = Desk(), Scene(data={"CUSTOMER_NUMBER": "C-7"})
    desk.happen(call.originated(), call.offered("anna"))
    await desk.settled()
    assert desk.asked == [("+442079460001", "C-7", None)]


async def test_a_corrected_caller_is_looked_up_again() -> None:
    desk, call = Desk({"+442079460001": [1], "+442079460002": [2]}), Scene()
    desk.happen(call.originated(), call.offered("anna"))
    await desk.settled()
    desk.happen(CallerChanged(at=at(6), call="main:1", ani="02079460002", ani_name="Carol"))
    await desk.settled()
    assert (desk.on("anna").name, desk.on("anna").candidates[0].account.id) == ("Carol", 2)


async def test_an_unambiguous_owner_is_told_once_and_an_ambiguous_one_not() -> None:
    desk, call = Desk({"+442079460001": [1, 2]}), Scene()
    desk.happen(call.originated(), call.offered("anna"))
    await desk.settled()
    assert not [f for f in desk.told if isinstance(f, InteractionIdentified)]
    alone, other = Desk(), Scene()
    alone.happen(other.originated(), other.offered("anna"), other.originated(9))
    await alone.settled()
    told = [f for f in alone.told if isinstance(f, InteractionIdentified)]
    assert [(f.account_id, f.how, f.by) for f in told] == [(1, "exact", "lookup")]


async def test_withheld_and_unknown_callers_pop_too() -> None:
    desk, call = Desk(), Scene(ani="anonymous", name=None)
    desk.happen(call.originated(), call.offered("anna"))
    await desk.settled()
    assert (desk.on("anna").kind, desk.on("anna").withheld, desk.on("anna").how) == (
        "withheld",
        True,
        "withheld",
    )
    nobody = Scene("main:2", ani=None)
    desk.happen(nobody.originated(), nobody.offered("ben"))
    assert (desk.on("ben").kind, desk.on("ben").number) == ("unknown", "")


HOSTILE = [
    '"><script>alert(1)</script>',
    "Robert'); DROP TABLE accounts;--",
    "a\r\nSet-Cookie: x=1",
    "\u202egpj.exe",
    "😀" * 5_000,
    "x" * 10_000,
    "\ud800",
    "../../../etc",
    "//evil.example/",
    "javascript:alert(1)",
    "@evil.example",
    "\\evil.example",
    "?a=b&c=d#e",
    "%2e%2e%2f",
    ".",
    "..",
    "\0",
]


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isascii() or "\ud800" not in text])
async def test_hostile_text_is_carried_as_bounded_text(text: str) -> None:
    desk, call = Desk(), Scene(ani=text, name=text, dnis=text, data={text: text, "CustomerNumber2": text})
    desk.happen(call.originated(), call.offered("anna"))
    await desk.settled()
    view = desk.on("anna")
    for shown in (view.number, view.name or "", view.dnis or "", *view.data, *view.data.values()):
        assert len(shown) <= 512
        assert not any(ord(c) < 32 or c in "\u202e\ud800" for c in shown)
    assert len(pack(view)) < 10_000
    assert view.url is None or view.url.startswith("https://crm.example/pop/")


# ----------------------------------------------------------------------------------------------- the URL

_TEMPLATE = "https://crm.example:8443/app/{account_number}/show?tel={e164}&n={name}#{queue}"


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from(sorted(NAMES)), st.one_of(st.text(max_size=60), st.sampled_from(HOSTILE)))
)
@example({"account_number": ".."})
@example({"account_number": "../..", "name": "&tel=1#x"})
def test_no_value_changes_where_the_address_leads(values: dict[str, str | None]) -> None:
    url = PopUrl(_TEMPLATE).fill(values)
    if url is None:
        assert set(values["account_number"] or "") == {"."}
        return
    made = urlsplit(url)
    assert (made.scheme, made.netloc) == ("https", "crm.example:8443")
    assert made.path.split("/")[1::2] == ["app", "show"]
    assert ".." not in made.path.split("/")
    assert set(parse_qs(made.query, keep_blank_values=True)) == {"tel", "n"}
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url


@pytest.mark.parametrize(
    "template",
    ["javascript:alert('{name}')", "ftp://x/{e164}", "https://{name}/", "https://{name}.crm.example/", "https:///x",
     "//crm.example/{e164}", "https://crm.example/{password}", "https://crm.example/{e164!r}", "https://crm.example/{0}",
     "https://crm.example/{e164:>9}", "https://crm.example/{", "https://u:p@crm.example/", "https://crm.example/{}",
     "https://[x/{e164}"],
)  # fmt: skip
def test_a_template_that_could_lead_elsewhere_is_refused(template: str) -> None:
    with pytest.raises(WrongTemplate):
        PopUrl(template)


def test_no_template_no_address() -> None:
    assert PopUrl("").fill({"e164": "+1"}) is None


# ----------------------------------------------------------------------------------------------- identify


async def test_an_agent_picks_another_candidate_for_everybody_on_the_call() -> None:
    committed: list[tuple[Any, ...]] = []

    async def choose(*what: Any) -> None:
        committed.append(what[1:])

    desk, call = Desk({"+442079460001": [1, 2]}, choose=choose), Scene()
    desk.happen(call.originated(), call.offered("anna"), call.established("anna"))
    consult = consultation(call)
    desk.happen(consult.originated(20), consult.offered("ben", 21, queue=None))
    await desk.settled()
    (mine,) = await desk.pops.identify(ANNA, "main:1", 2, remember=True)
    assert mine.candidates[0].account.id == 2
    assert committed == [("main:1", 2, None, "+442079460001")]
    for agent in ("anna", "ben"):
        view = desk.on(agent)
        assert (view.candidates[0].account.id, view.how, view.chosen_by) == (2, "chosen", "anna")
    told = [f for f in desk.told if isinstance(f, InteractionIdentified)]
    assert [(f.account_id, f.how, f.by) for f in told] == [(2, "chosen", "anna")]
    await desk.pops.identify(BEN, "main:2", 5)  # by the consultation's id, an account that was no candidate
    assert desk.on("anna").candidates[0].account.id == 5
    desk.happen(CallDataChanged(at=at(30), call="main:1", changed={"CustomerNumber": "C-7"}, by="anna"))
    await desk.settled()
    assert desk.on("anna").candidates[0].account.id == 5, "what a person said outranks the IVR"


async def test_identify_is_refused_with_nothing_changed() -> None:
    async def choose(*what: Any) -> None:
        raise ConnectionError("the database is away")

    desk, call = Desk(choose=choose), Scene()
    desk.happen(call.originated(), call.offered("anna"))
    await desk.settled()
    told = len(desk.told)
    with pytest.raises(UnknownCall):
        await desk.pops.identify(ANNA, "main:77", 1)
    with pytest.raises(NotYourCall):
        await desk.pops.identify(BEN, "main:1", 1)
    with pytest.raises(NotYourCall):
        await desk.pops.identify(Actor(login="sue", name="Sue", role=Role.SUPERVISOR), "main:1", 1)
    with pytest.raises(UnknownAccount):
        await desk.pops.identify(ADMIN, "main:1", 1000)
    with pytest.raises(ConnectionError):
        await desk.pops.identify(ANNA, "main:1", 2)
    assert len(desk.told) == told
    assert desk.on("anna").candidates[0].account.id == 1


# ------------------------------------------------------------------------------------------------ faults


async def test_after_a_restart_the_same_pops_are_shown_again_under_the_same_ids() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.queued(), call.offered("anna"), call.established("anna"))
    consult = consultation(call)
    desk.happen(consult.originated(20), consult.offered("ben", 21, queue=None))
    before = {agent: set(screen) for agent, screen in desk.screens.items()}
    desk.screens.clear()
    desk.start()
    anna = call.leg("anna", state=ConnectionState.CONNECTED)
    call.view = replace(call.view, connections=(call.customer, anna), answered=at(8))
    ringing = consult.leg("ben", state=ConnectionState.ALERTING)
    consult.view = replace(
        consult.view, connections=(consult.leg("anna", state=ConnectionState.CONNECTED), ringing)
    )
    desk.happen(call.originated(100), consult.originated(100), consult.offered("ben", 100, queue=None))
    assert {agent: set(screen) for agent, screen in desk.screens.items()} == before
    assert [desk.on(a).state for a in ("anna", "ben")] == ["talking", "offered"]
    await desk.settled()
    assert desk.on("anna").lookup == "complete"


async def test_facts_told_twice_show_nothing_twice() -> None:
    desk, call = Desk(), Scene()
    facts = [
        call.originated(),
        call.queued(),
        call.offered("anna"),
        call.established("anna"),
        call.left("anna"),
    ]
    desk.happen(*(fact for fact in facts for _ in range(3)))
    assert len(desk.of(PopShown, "anna")) == 1
    desk.happen(call.cleared(), call.cleared())
    assert desk.on("anna").state == "ended"


async def test_while_the_look_up_is_unavailable_it_is_said_and_asked_again_until_the_call_is_forgotten() -> (
    None
):
    desk, call, gone = Desk(), Scene(), Scene("main:2")
    desk.down = True
    desk.happen(call.originated(), call.offered("anna"), gone.originated(), gone.offered("ben"))
    await eventually(lambda: desk.on("anna").lookup == "unavailable" and len(desk.asked) > 6)
    assert len(desk.of(PopUpdated, "anna")) == 1, "said once, not at every attempt"
    desk.happen(gone.cleared(outcome="abandoned"))
    desk.down = False
    await desk.settled()
    assert desk.on("anna").lookup == "complete"
    assert not desk.tasks
    assert len(desk.pops) == 1


async def test_what_is_kept_is_bounded() -> None:
    desk = Desk(most_matters=50)
    for n in range(200):
        call = Scene(f"main:{n}")
        desk.happen(call.originated(), call.offered(f"agent{n % 10}"))
    assert len(desk.pops) == 50
    assert desk.pops.forgotten == 150


async def test_a_million_calls_leave_nothing_behind() -> None:
    desk = Desk()
    desk.bus.carry(lambda envelope: desk.told.clear())
    for n in range(2_000):
        call, agent = Scene(f"main:{n}"), f"agent{n % 20}"
        desk.happen(
            call.originated(), call.offered(agent), call.established(agent), call.left(agent), call.cleared()
        )
        if n % 50 == 0:
            await desk.settled()
    await desk.settled()
    assert len(desk.pops) <= 20  # the last ended one of each agent
    assert sum(len(screen) for screen in desk.screens.values()) == len(desk.pops)


@pytest.mark.parametrize("seed", range(60))
async def test_any_order_of_facts_keeps_screens_and_snapshot_the_same(seed: int) -> None:
    chance = random.Random(seed)
    desk, call = Desk(), Scene()
    consult = consultation(call)
    facts: list[Fact] = [call.originated(), call.queued(), consult.originated(9)]
    for scene, agent in product((call, consult), ("anna", "ben", "cleo")):
        for n in (1, 2):
            facts += [
                scene.offered(agent, n=n, queue=SALES if scene is call else None),
                scene.established(agent, n=n, queue=SALES if scene is call else None),
                scene.diverted(agent, chance.choice(["no_answer", "busy", "answered_elsewhere"]), n=n),
                scene.left(agent, n=n),
            ]
    facts += [wrap_up_over(a) for a in ("anna", "ben", "cleo")]
    facts.append(
        CallTransferred(
            at=at(30), call="main:1", kind="blind", by=call.leg("anna"), target=None, view=call.view
        )
    )
    facts.append(
        CallMerged(at=at(31), call="main:1", connection=consult.leg("ben"), merged="main:2", view=call.view)
    )
    chance.shuffle(facts)
    desk.happen(*facts, *chance.sample(facts, 10))
    desk.happen(call.cleared(), consult.cleared())
    await desk.settled()
    assert all(v.state == "ended" for screen in desk.screens.values() for v in screen.values())
    for agent in ("anna", "ben", "cleo"):
        desk.happen(wrap_up_over(agent, 99))
        assert desk.empty(agent)
    assert len(desk.pops) == 0


def test_every_state_and_trigger() -> None:
    for state, trigger in product(PopState, Trigger):
        new = TRANSITIONS[state].get(trigger)
        if state is PopState.CLOSED:
            assert new is None
        if trigger is Trigger.CLOSE and new is not None:
            assert new is PopState.CLOSED
            assert state not in (PopState.OFFERED, PopState.TALKING), (
                "a pop whose call lasts cannot be closed"
            )
        if state is PopState.TALKING and new is not None:
            assert new in ON_SCREEN, "who talked keeps the pop"


# ------------------------------------------------------------------------- calls recorded from Asterisk

_PHONES = {
    "PJSIP/1101": "anna",
    "PJSIP/1102": "ben",
    "PJSIP/1103": "cleo",
    "PJSIP/1150": "dora",
    "Local/1150@both-phones": "dora",
    "Local/1101@sim-agent": "anna",
    "Local/1202@sim-agent": "ben",
    "Local/2101@sim-agent": "cleo",
    "Local/2202@sim-agent": "cleo",
    "Local/3101@sim-agent": "dora",
}

RECORDED = {
    "04": "",
    "05": "cleo+ cleo-no_answer dora+ dora-busy cleo+ cleo-no_answer cleo+ cleo-no_answer dora+ dora-busy anna+ anna*",
    "10": "anna+ ben+anna anna* ben*",
    "11": "anna+ ben+anna ben* cleo+anna cleo-no_answer anna*",
    "12": "anna+ ben+anna anna* ben*",
    "23": "anna+ anna* anna-replaced anna+ anna*",
    "40": "anna+ cleo+ ben+ cleo-answered_elsewhere anna-answered_elsewhere ben*",
    "44": "anna+ ben+anna anna* ben*",
    "45": "anna+ anna* ben+ ben*",
    "46": "anna+ ben+anna anna* ben*",
    "47": "",
    "50": "dora+ dora* dora-replaced dora+ dora*",
    "52": "anna+ anna-no_answer ben+ ben*",
    "53": "anna+ anna-caller_gone anna+ ben+ anna-caller_gone ben-caller_gone anna+ anna-caller_gone",
    "56": "anna+ ben+anna ben* anna*",
    "58": "anna+ anna*",
    "60": "anna+ anna*",
    "61": "anna+ anna*",
}
"""Trace → who was shown (`+`, and by whom consulted), who ended (`*`), from whom it was withdrawn (`-` and why)."""


@pytest.mark.parametrize(("trace", "story"), RECORDED.items())
async def test_recorded_calls_pop_where_they_should(trace: str, story: str) -> None:
    desk = Desk()
    for fact in told(trace, agents=_PHONES):
        desk.happen(fact)
        await asyncio.sleep(0)
    await desk.settled()
    seen: list[str] = []
    for pop in desk.told:
        match pop:
            case PopShown():
                seen.append(f"{pop.agent}+{pop.view.consulted_by or ''}")
            case PopWithdrawn():
                seen.append(f"{pop.agent}-{pop.reason}")
            case PopUpdated() if pop.view.state == "ended" and pop.view.ended == pop.at:
                seen.append(f"{pop.agent}*")
    assert " ".join(seen) == story
    for agent in {*_PHONES.values()}:
        desk.happen(wrap_up_over(agent, 9_999))
    assert not any(desk.screens.values())
    assert len(desk.pops) == 0


async def test_who_dials_out_on_a_recorded_call_has_the_customer_while_talking() -> None:
    desk = Desk()
    for fact in told("60", agents=_PHONES):
        if fact.TYPE == "call.connection_cleared":
            break
        desk.happen(fact)
    assert (desk.on("anna").state, desk.on("anna").direction) == ("talking", Direction.OUTBOUND)


# --------------------------------------------------------------------------------- on a real PostgreSQL


@pytest.mark.parametrize("way_to_ask", ["find", "ask"])
async def test_the_database_stops_for_a_moment_the_pop_comes_with_the_number_and_is_completed(
    migrated: str, way_to_ask: str
) -> None:
    async with asyncpg.create_pool(migrated, min_size=1, max_size=2) as pool:
        ada = await create(pool, NewAccount(name="Ada"))
        await add_phone(pool, ada.id, NewPhone(number="+442079460001"))
    async with wire(migrated) as way, CallerLookup(way.dsn, pauses=(0.02,), limit=5) as lookup:
        desk = Desk(find=lookup.find, ask=lookup.ask if way_to_ask == "ask" else None)
        first, second = Scene("main:1"), Scene("main:2")
        desk.happen(first.originated(), first.offered("anna"))
        await eventually(lambda: desk.on("anna").lookup == "complete")
        await way.down()
        await eventually(lambda: not lookup.available)
        desk.happen(second.originated(), second.offered("ben"))
        await eventually(lambda: desk.on("ben").lookup == "unavailable")
        assert (desk.on("ben").e164, desk.on("ben").candidates) == ("+442079460001", ())
        await way.up()
        await eventually(lambda: desk.on("ben").lookup == "complete")
        assert desk.on("ben").candidates[0].account.name == "Ada"
        assert desk.on("ben").candidates == desk.on("anna").candidates


def _types(facts: Iterable[Fact]) -> list[str]:
    return [fact.TYPE for fact in facts]


async def test_the_wire_names_are_the_protocol() -> None:
    desk, call = Desk(), Scene()
    desk.happen(call.originated(), call.offered("anna"))
    await desk.settled()
    desk.happen(call.diverted("anna", "no_answer"))
    told = [t for t in _types(desk.told) if not t.startswith("call.")]
    assert told == ["pop.shown", "interaction.identified", "pop.updated", "pop.withdrawn"]
