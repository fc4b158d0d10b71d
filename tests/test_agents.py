"""Agents: one state each, right or unknown; every change told once; wishes made in a call come true after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs

from cti.agents import Agents, NotPossible, Session, WrapUp
from cti.facts import (
    AgentReachabilityChanged,
    AgentState,
    AgentStateChanged,
    CallCleared,
    CallDelivered,
    CallDiverted,
    CallEstablished,
    CallFact,
    CallHeld,
    CallMerged,
    CallOffered,
    CallOriginated,
    CallRetrieved,
    CallView,
    ConnectionCleared,
    ConnectionState,
    ConnectionView,
    Direction,
    Fact,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
    QueueMemberLeft,
    QueueMemberPaused,
    QueueMemberStatusChanged,
)
from cti.people import Agent, Directory
from tests.floor import HALF_A_MINUTE, NOON, REASONS, Floor, after, person, recorded_people
from tests.recorded import records

S = ConnectionState
ANNA = person("anna", main="PJSIP/1001")


class Stage:
    """Agents alone, hearing facts as calls tell them; keeps what was told."""

    def __init__(
        self,
        *people: Agent,
        wrap_up: WrapUp = HALF_A_MINUTE,
        up: tuple[str, ...] = ("main",),
        pbxs: tuple[str, ...] | None = None,
    ) -> None:
        self.directory = Directory()
        self.directory.load(people or (ANNA,), ())
        self.agents = Agents(self.directory, wrap_up=wrap_up, reasons=REASONS, pbxs=pbxs)
        self.told: list[AgentStateChanged] = []
        self.second = 0.0
        self.agents.view("anna", NOON)
        for pbx in up:
            self.pbx_up(pbx)

    @property
    def now(self) -> datetime:
        return after(self.second)

    def keep(self, facts: list[Fact]) -> list[AgentStateChanged]:
        changes = [fact for fact in facts if isinstance(fact, AgentStateChanged)]
        self.told += changes
        return changes

    def do(
        self, verb: str, *args: Any, login: str = "anna", by: str = "anna", **more: Any
    ) -> list[AgentStateChanged]:
        return self.keep(getattr(self.agents, verb)(login, *args, by=by, at=self.now, **more))

    def on(self, *, ready: bool = True) -> Stage:
        self.do("log_on", ready=ready)
        return self

    def tick(self, seconds: float = 0.0) -> list[AgentStateChanged]:
        self.second += seconds
        return self.keep(self.agents.tick(self.now))

    def pbx_up(self, pbx: str = "main") -> list[AgentStateChanged]:
        return self.hear(PbxResynced(at=self.now, pbx=pbx, reason="reconnected", calls=0, differences={}))

    def pbx_lost(self, pbx: str = "main") -> list[AgentStateChanged]:
        return self.hear(PbxStatusChanged(at=self.now, pbx=pbx, phase="down", code="closed", why="gone"))

    def hear(self, *facts: Fact) -> list[AgentStateChanged]:
        return [change for fact in facts for change in self.keep(self.agents.hear(fact))]

    def leg(
        self, state: ConnectionState, call: str = "main:1", login: str = "anna", leg: str = ""
    ) -> ConnectionView:
        return ConnectionView(
            id=leg or f"{call}-{login}", device="PJSIP/1001", state=state, since=self.now, agent=login
        )

    def view(self, call: str = "main:1", *legs: ConnectionView) -> CallView:
        return CallView(
            id=call, pbx=call.partition(":")[0], direction=Direction.INBOUND, ani=None, ani_name=None, dnis=None,
            started=self.now, connections=legs,
        )  # fmt: skip

    def offered(
        self, call: str = "main:1", queue: str | None = "main:sales", **leg: str
    ) -> list[AgentStateChanged]:
        party = self.leg(S.INITIATED, call, **leg)
        return self.hear(
            CallOffered(
                at=self.now,
                call=call,
                connection=party,
                agent=party.agent,
                queue=queue,
                view=self.view(call, party),
            )
        )

    def rings(self, call: str = "main:1", queue: str | None = "main:sales") -> list[AgentStateChanged]:
        party = self.leg(S.ALERTING, call)
        return self.hear(CallDelivered(at=self.now, call=call, connection=party, agent="anna", queue=queue))

    def answers(
        self, call: str = "main:1", queue: str | None = "main:sales", **leg: str
    ) -> list[AgentStateChanged]:
        party = self.leg(S.CONNECTED, call, **leg)
        return self.hear(
            CallEstablished(
                at=self.now, call=call, connection=party, agent=party.agent, queue=queue, waited=None, rang=None,
                view=self.view(call, party),
            )
        )  # fmt: skip

    def missed(self, call: str = "main:1", reason: str = "no_answer") -> list[AgentStateChanged]:
        party = self.leg(S.NULL, call)
        return self.hear(
            CallDiverted(
                at=self.now, call=call, connection=party, agent="anna", queue="main:sales", reason=reason, rang=6.0,
                view=self.view(call),
            )
        )  # fmt: skip

    def dials(self, call: str = "main:9") -> list[AgentStateChanged]:
        party = self.leg(S.INITIATED, call)
        return self.hear(
            CallOriginated(at=self.now, call=call, connection=party, view=self.view(call, party))
        )

    def holds(self, call: str = "main:1") -> list[AgentStateChanged]:
        return self.hear(
            CallHeld(at=self.now, call=call, connection=self.leg(S.HOLD, call), agent="anna", by="phone")
        )

    def retrieves(self, call: str = "main:1") -> list[AgentStateChanged]:
        party = self.leg(S.CONNECTED, call)
        return self.hear(
            CallRetrieved(at=self.now, call=call, connection=party, agent="anna", by="phone", held=1.0)
        )

    def leaves(
        self, call: str = "main:1", *, leg: str = "", reason: str = "normal"
    ) -> list[AgentStateChanged]:
        party = self.leg(S.NULL, call, leg=leg)
        return self.hear(
            ConnectionCleared(
                at=self.now,
                call=call,
                connection=party,
                agent="anna",
                cause=16,
                reason=reason,
                talked=1.0,
                held=0.0,
            )
        )

    def over(self, call: str = "main:1", outcome: str = "answered") -> list[AgentStateChanged]:
        return self.hear(
            CallCleared(
                at=self.now, call=call, outcome=outcome, cause=16, duration=1.0, waited=0.0, talked=1.0, held=0.0,
                queue=None, agents=("anna",), merged_into=None,
            )
        )  # fmt: skip

    def member(
        self, status: str | None, queue: str = "main:sales", interface: str = "PJSIP/1001"
    ) -> list[Fact]:
        if status is None:
            return self.agents.hear(
                QueueMemberLeft(at=self.now, queue=queue, interface=interface, agent="anna")
            )
        return self.agents.hear(
            QueueMemberJoined(
                at=self.now, queue=queue, interface=interface, name="Anna", agent="anna", penalty=0, paused=False,
                pause_reason=None, status=status,
            )
        )  # fmt: skip

    @property
    def state(self) -> str:
        view = self.agents.view("anna", self.now)
        assert view is not None
        words = [
            view.state.value,
            f"({view.reason})" if view.reason else "",
            f"then {view.pending}" if view.pending else "",
        ]
        return " ".join(word for word in words if word)


# ------------------------------------------------------------------------------------------ every state, every trigger

STATES: dict[str, Callable[[Stage], Any]] = {
    "logged_off": lambda s: None,
    "not_ready (Lunch)": lambda s: (s.on(), s.do("make_not_ready", "Lunch")),
    "ready": lambda s: s.on(),
    "reserved": lambda s: (s.on(), s.offered()),
    "busy": lambda s: (s.on(), s.offered(), s.answers()),
    "wrap_up": lambda s: (s.on(), s.offered(), s.answers(), s.leaves(), s.over()),
    "unknown": lambda s: (s.on(), s.pbx_lost()),
}

TRIGGERS: dict[str, Callable[[Stage], Any]] = {
    "log on": lambda s: s.do("log_on", ready=False),
    "log on, ready": lambda s: s.do("log_on", ready=True),
    "log off": lambda s: s.do("log_off"),
    "ready": lambda s: s.do("make_ready"),
    "not ready": lambda s: s.do("make_not_ready", "Break"),
    "finish wrap-up": lambda s: s.do("finish_wrap_up"),
    "extend wrap-up": lambda s: s.do("extend_wrap_up", 60.0),
    "time": lambda s: s.tick(31.0),
    "offered": lambda s: s.offered("main:2"),
    "missed": lambda s: s.missed(),
    "answers": lambda s: s.answers(),
    "dials": lambda s: s.dials(),
    "leaves": lambda s: s.leaves(),
    "call lost": lambda s: s.over(outcome="lost"),
    "paused at pbx": lambda s: s.keep(s.agents.found_paused("anna", True, "Meal", at=s.now)),
    "unpaused at pbx": lambda s: s.keep(s.agents.found_paused("anna", False, None, at=s.now)),
    "pbx lost": lambda s: s.pbx_lost(),
    "pbx back": lambda s: s.pbx_up(),
}

LOST = "unknown (the link to the PBX main is down)"
NO = "not possible"

EXPECTED: dict[str, dict[str, str]] = {
    "logged_off": {
        "log on": "not_ready", "log on, ready": "ready", "log off": "logged_off", "ready": NO, "not ready": NO,
        "finish wrap-up": NO, "extend wrap-up": NO, "time": "logged_off", "offered": "logged_off",
        "missed": "logged_off", "answers": "logged_off", "dials": "logged_off", "leaves": "logged_off",
        "call lost": "logged_off", "paused at pbx": "logged_off", "unpaused at pbx": "logged_off",
        "pbx lost": "logged_off", "pbx back": "logged_off",
    },
    "not_ready (Lunch)": {
        "log on": "not_ready (Lunch)", "log on, ready": "ready", "log off": "logged_off", "ready": "ready",
        "not ready": "not_ready (Break)", "finish wrap-up": NO, "extend wrap-up": NO, "time": "not_ready (Lunch)",
        "offered": "reserved then not_ready: Lunch", "missed": "not_ready (Lunch)",
        "answers": "busy then not_ready: Lunch", "dials": "busy then not_ready: Lunch",
        "leaves": "not_ready (Lunch)", "call lost": "not_ready (Lunch)", "paused at pbx": "not_ready (Meal)",
        "unpaused at pbx": "ready", "pbx lost": LOST + " then not_ready: Lunch", "pbx back": "not_ready (Lunch)",
    },
    "ready": {
        "log on": "ready", "log on, ready": "ready", "log off": "logged_off", "ready": "ready",
        "not ready": "not_ready (Break)", "finish wrap-up": NO, "extend wrap-up": NO, "time": "ready",
        "offered": "reserved", "missed": "ready", "answers": "busy", "dials": "busy", "leaves": "ready",
        "call lost": "ready", "paused at pbx": "not_ready (Meal)", "unpaused at pbx": "ready", "pbx lost": LOST,
        "pbx back": "ready",
    },
    "reserved": {
        "log on": "reserved", "log on, ready": "reserved", "log off": "reserved then logged_off", "ready": "reserved",
        "not ready": "reserved then not_ready: Break", "finish wrap-up": NO, "extend wrap-up": NO, "time": "reserved",
        "offered": "reserved", "missed": "ready", "answers": "busy", "dials": "busy", "leaves": "ready",
        "call lost": "ready", "paused at pbx": "reserved then not_ready: Meal", "unpaused at pbx": "reserved",
        "pbx lost": LOST, "pbx back": "reserved",
    },
    "busy": {
        "log on": "busy", "log on, ready": "busy", "log off": "busy then logged_off", "ready": "busy",
        "not ready": "busy then not_ready: Break", "finish wrap-up": NO, "extend wrap-up": NO, "time": "busy",
        "offered": "busy", "missed": "wrap_up", "answers": "busy", "dials": "busy", "leaves": "wrap_up",
        "call lost": "wrap_up", "paused at pbx": "busy then not_ready: Meal", "unpaused at pbx": "busy",
        "pbx lost": LOST, "pbx back": "busy",
    },
    "wrap_up": {
        "log on": "wrap_up", "log on, ready": "wrap_up", "log off": "logged_off", "ready": "ready",
        "not ready": "not_ready (Break)", "finish wrap-up": "ready", "extend wrap-up": "wrap_up", "time": "ready",
        "offered": "reserved", "missed": "wrap_up", "answers": "busy", "dials": "busy", "leaves": "wrap_up",
        "call lost": "wrap_up", "paused at pbx": "wrap_up then not_ready: Meal", "unpaused at pbx": "ready",
        "pbx lost": LOST, "pbx back": "wrap_up",
    },
    "unknown": {
        "log on": LOST, "log on, ready": LOST, "log off": "logged_off", "ready": LOST,
        "not ready": LOST + " then not_ready: Break", "finish wrap-up": NO, "extend wrap-up": NO, "time": LOST,
        "offered": LOST, "missed": LOST, "answers": LOST, "dials": LOST, "leaves": LOST, "call lost": LOST,
        "paused at pbx": LOST + " then not_ready: Meal", "unpaused at pbx": LOST, "pbx lost": LOST, "pbx back": "ready",
    },
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_state_and_every_trigger(state: str, trigger: str) -> None:
    stage = Stage()
    STATES[state](stage)
    assert stage.state.startswith(state)
    before, wanted = stage.state, EXPECTED[state][trigger]
    stage.told.clear()
    if wanted == NO:
        with pytest.raises(NotPossible):
            TRIGGERS[trigger](stage)
        wanted = before
    else:
        TRIGGERS[trigger](stage)
    assert stage.state == wanted
    if stage.state != before:
        assert len(stage.told) == 1
        assert stage.told[0].old == state.partition(" ")[0]


# ------------------------------------------------------------------------------------------ in the middle of a call


def test_wishes_in_a_call_come_true_after_it_and_after_wrap_up() -> None:
    stage = Stage().on()
    stage.answers()
    stage.do("make_not_ready", "Lunch")
    assert stage.state == "busy then not_ready: Lunch"
    stage.leaves()
    assert stage.state == "wrap_up then not_ready: Lunch"
    stage.tick(31)
    assert stage.state == "not_ready (Lunch)"
    stage.tick(600)
    assert stage.state == "not_ready (Lunch)"


def test_log_off_in_a_call_waits_for_its_end_and_can_be_taken_back() -> None:
    stage = Stage().on()
    stage.offered()
    stage.do("log_off", by="ruth")
    stage.answers()
    assert stage.state == "busy then logged_off"
    assert stage.agents.wants("anna") == (True, True, "Not ready")
    (change,) = stage.leaves()
    assert (stage.state, change.by) == ("logged_off", "ruth")  # no wrap-up for who has gone home
    assert stage.agents.wants("anna") == (False, False, None)
    stage.on()
    stage.answers()
    stage.do("log_off")
    stage.do("make_ready")
    stage.leaves()
    assert stage.state == "wrap_up"


def test_wrap_up_follows_queue_calls_only() -> None:
    stage = Stage().on()
    for queue, state in ((None, "ready"), ("main:sales", "wrap_up")):
        stage.offered(queue=queue)
        stage.answers(queue=queue)
        stage.leaves()
        assert stage.state == state
    stage.do("make_ready")
    stage.dials()
    stage.answers("main:9", queue=None)
    stage.leaves("main:9")
    assert stage.state == "ready"  # the wrap-up that was cut short does not come again
    stage.offered()
    stage.missed()
    assert stage.state == "ready"


def test_an_agent_who_calls_a_queue_is_a_caller_there() -> None:
    stage = Stage(ANNA, person("ben", main="PJSIP/1002")).on()
    stage.dials("main:5")
    anna, ben = stage.leg(S.CONNECTED, "main:5"), stage.leg(S.CONNECTED, "main:5", "ben")
    stage.hear(
        CallEstablished(
            at=stage.now, call="main:5", connection=ben, agent="ben", queue="main:sales", waited=1.0, rang=1.0,
            view=stage.view("main:5", anna, ben),
        )
    )  # fmt: skip
    stage.leaves("main:5")
    assert stage.state == "ready"


def test_wrap_up_begins_when_the_last_call_is_over() -> None:
    stage = Stage().on()
    stage.answers("main:1")
    stage.holds("main:1")
    stage.dials("main:2")  # a consultation
    assert stage.agents.view("anna", stage.now).call == "main:2"  # type: ignore[union-attr]
    stage.leaves("main:1")
    assert stage.state == "busy"
    (change,) = stage.leaves("main:2")
    assert (stage.state, change.call) == ("wrap_up", "main:1")


def test_a_call_in_wrap_up_does_not_stop_its_clock() -> None:
    stage = Stage().on()
    stage.answers("main:1")
    (wrap,) = stage.leaves("main:1")
    stage.second = 10
    stage.offered("main:2", queue=None)
    stage.answers("main:2", queue=None)
    assert stage.agents.wants("anna") == (True, True, "Wrap-up")
    stage.second = 20
    (back,) = stage.leaves("main:2")
    assert (back.new, back.until, back.call) == (AgentState.WRAP_UP, wrap.until, "main:1")
    stage.answers("main:3", queue=None)
    assert stage.tick(15) == []  # over, while on another call
    (ready,) = stage.leaves("main:3")
    assert (ready.new, ready.since) == (AgentState.READY, after(35))


def test_wrap_up_ends_by_time_by_hand_or_later_and_as_configured() -> None:
    stage = Stage(wrap_up=WrapUp(seconds=30.0, then_ready=False)).on()
    stage.answers()
    (wrap,) = stage.leaves()
    assert wrap.until == after(30)
    (longer,) = stage.do("extend_wrap_up", 60.0)
    assert (longer.old, longer.new, longer.until, longer.since) == (
        "wrap_up",
        "wrap_up",
        after(90),
        wrap.since,
    )
    assert stage.tick(89.0) == []
    (over,) = stage.tick(5.0)
    assert (over.new, over.at, over.since) == (AgentState.NOT_READY, after(90), after(90))
    stage.do("make_ready")
    stage.answers()
    stage.leaves()
    stage.do("finish_wrap_up")
    assert stage.state == "not_ready"
    none = Stage(wrap_up=WrapUp(seconds=0.0)).on()
    none.answers()
    none.leaves()
    assert none.state == "ready"


def test_the_call_shown_is_the_one_spoken_on() -> None:
    stage = Stage().on()

    def call() -> str | None:
        view = stage.agents.view("anna", stage.now)
        assert view is not None
        return view.call

    stage.answers("main:1")
    stage.offered("main:2")
    assert call() == "main:1"
    stage.holds("main:1")
    stage.answers("main:2")
    assert call() == "main:2"
    stage.holds("main:2")
    stage.retrieves("main:1")
    assert call() == "main:1"
    assert {change.since for change in stage.told if change.new is AgentState.BUSY} == {after(0)}


def test_two_connections_in_one_call_end_one_by_one() -> None:
    """After an attended transfer both of the agent's legs may be in the call for a moment."""
    stage = Stage().on()
    stage.answers("main:1", leg="main:1-a")
    stage.dials("main:2")
    moved = stage.leg(S.CONNECTED, "main:1", leg="main:2-anna")
    stage.hear(
        CallMerged(
            at=stage.now, call="main:1", connection=moved, merged="main:2", view=stage.view("main:1", moved)
        )
    )
    stage.over("main:2", outcome="merged")
    stage.leaves("main:1", leg="main:1-a")
    assert stage.state == "busy"
    stage.leaves("main:1", leg="main:2-anna")
    assert stage.state == "wrap_up"
    assert not stage.agents._agents["anna"].parties


def test_another_agents_merge_takes_nothing_from_this_one() -> None:
    stage = Stage(ANNA, person("ben", main="PJSIP/1002")).on()
    stage.answers("main:1")
    stage.dials("main:2")
    ben = stage.leg(S.CONNECTED, "main:1", "ben", leg="main:2-ben")
    view = stage.view("main:1", stage.leg(S.HOLD, "main:1"), ben)
    stage.hear(CallMerged(at=stage.now, call="main:1", connection=ben, merged="main:2", view=view))
    stage.leaves("main:1")
    assert stage.state == "busy"  # her own consultation leg still lives
    stage.leaves("main:2")
    assert stage.state == "wrap_up"


def test_a_call_that_vanishes_leaves_no_trace() -> None:
    stage = Stage().on()
    stage.answers("main:1")
    stage.over("main:1", outcome="lost")  # no ConnectionCleared was ever told
    assert stage.state == "wrap_up"
    assert stage.leaves("main:1") == []
    stage.do("make_ready")
    stage.offered("main:2")
    stage.over("main:2", outcome="lost")
    assert stage.state == "ready"


# ------------------------------------------------------------------------------------------ PBX links, restarts


def test_unknown_until_the_pbx_was_asked_the_first_time() -> None:
    stage = Stage(up=()).on()
    assert stage.state.startswith("unknown")
    stage.hear(PbxStatusChanged(at=stage.now, pbx="main", phase="up", code="", why=""))
    assert stage.state.startswith("unknown")  # connected is not asked yet
    stage.pbx_up()
    assert stage.state == "ready"


def test_a_short_break_of_the_link_does_not_begin_the_lunch_anew() -> None:
    stage = Stage().on()
    stage.do("make_not_ready", "Lunch")
    stage.second = 600
    (lost,) = stage.pbx_lost()
    assert (lost.new, lost.since) == (AgentState.UNKNOWN, after(600))
    assert stage.pbx_lost() == []
    stage.second = 605
    (back,) = stage.pbx_up()
    assert (back.new, back.reason, back.since, back.at) == (
        AgentState.NOT_READY,
        "Lunch",
        after(0),
        after(605),
    )
    stage.pbx_lost()
    stage.do("make_ready")
    stage.second = 610
    (other,) = stage.pbx_up()
    assert (other.new, other.since) == (AgentState.READY, after(610))


def test_a_call_lost_with_the_pbx_is_cleared_before_the_agent_is_known_again() -> None:
    stage = Stage().on()
    stage.answers()
    stage.pbx_lost()
    stage.do("make_not_ready", "Break")
    stage.second = 20
    assert stage.leaves(reason="lost") == []
    (known,) = stage.pbx_up()
    assert (known.old, known.new, known.pending) == (
        AgentState.UNKNOWN,
        AgentState.WRAP_UP,
        "not_ready: Break",
    )
    assert stage.tick(31)[0].new is AgentState.NOT_READY


def test_log_off_while_the_pbx_is_lost_is_done_at_once() -> None:
    stage = Stage().on()
    stage.answers()
    stage.pbx_lost()
    stage.do("log_off")
    assert stage.state == "logged_off"
    stage.pbx_up()
    stage.leaves()
    assert stage.state == "logged_off"


def test_two_pbxs_what_one_tells_is_true_though_the_other_is_lost() -> None:
    both = person("anna", main="PJSIP/1001", west="PJSIP/7")
    stage = Stage(both, up=("main", "west")).on()
    stage.pbx_lost("west")
    assert stage.state == "unknown (the link to the PBX west is down)"
    stage.answers("main:1")
    assert stage.state == "busy"
    stage.leaves("main:1")
    stage.pbx_up("west")
    assert stage.state == "wrap_up"
    stage.do("make_ready")
    stage.answers("west:1", queue=None)
    stage.pbx_lost("west")
    assert stage.state.startswith("unknown")
    stage.offered("main:2")
    assert stage.state == "reserved"
    stage.missed("main:2")
    stage.pbx_up("west")
    assert stage.state == "busy"


def test_phones_at_a_pbx_that_is_not_configured_do_not_count() -> None:
    stage = Stage(person("anna", main="PJSIP/1001", closed="PJSIP/1"), pbxs=("main",)).on()
    assert stage.state == "ready"


@pytest.mark.parametrize(
    ("before", "later", "state"),
    [
        (lambda s: s.do("make_not_ready", "Lunch"), 5, "not_ready (Lunch)"),
        (lambda s: None, 5, "ready"),
        (lambda s: (s.answers(), s.leaves()), 5, "wrap_up"),
        (lambda s: (s.answers(), s.leaves()), 60, "ready"),
        (lambda s: (s.answers(), s.leaves(), s.do("make_not_ready", "Break")), 60, "not_ready (Break)"),
        (lambda s: s.do("log_off"), 5, "logged_off"),
        (lambda s: (s.answers(), s.do("log_off")), 5, "logged_off"),
        (lambda s: s.answers(), 5, "wrap_up"),  # the call ended while no server ran
        (lambda s: s.answers(queue=None), 5, "ready"),
    ],
)
def test_a_session_survives_a_restart(before: Callable[[Stage], Any], later: float, state: str) -> None:
    stage = Stage().on()
    stage.second = 10
    before(stage)
    kept = stage.agents.session("anna", stage.now)
    was = stage.agents.view("anna", stage.now)
    again = Stage(up=())
    again.second = 10 + later
    again.keep(again.agents.restore(kept, again.now))
    assert again.state.partition(" ")[0] in ("unknown", "logged_off")
    again.second += 1
    again.pbx_up()
    again.tick()
    assert again.state == state
    view = again.agents.view("anna", again.now)
    assert view is not None
    assert was is not None
    if view.state is was.state:
        assert (view.since, view.until) == (was.since, was.until)  # as if nothing had been


def test_a_log_off_that_was_pending_at_a_restart_still_comes() -> None:
    stage = Stage().on()
    stage.answers()
    stage.do("log_off")
    again = Stage(up=())
    again.keep(again.agents.restore(stage.agents.session("anna", stage.now), again.now))
    again.hear(CallOriginated(at=NOON, call="main:1", connection=stage.leg(S.CONNECTED), view=stage.view()))
    again.pbx_up()
    assert again.state == "busy then logged_off"
    again.leaves()
    assert again.state == "logged_off"


def test_a_session_of_somebody_who_is_no_agent_is_over_and_never_raises() -> None:
    stage = Stage()
    gone = stage.agents.session("gone", stage.now)
    assert gone == Session(
        agent="gone", logged_on=False, ready=False, reason=None, since=NOON, wrap_until=None,
        state=AgentState.LOGGED_OFF,
    )  # fmt: skip
    assert stage.agents.restore(gone, stage.now) == []


def test_clocks_that_differ_make_no_time_run_backwards() -> None:
    """Asterisk's clock is five minutes behind ours: wrap-up still takes its time, no state begins before the last one."""
    stage = Stage()
    stage.second = 300
    stage.tick()
    stage.on()
    stage.second = 0
    stage.answers()
    (wrap,) = stage.leaves()
    stage.second = 310
    assert stage.tick() == []
    stage.tick(21)
    assert stage.state == "ready"
    assert wrap.until == after(330)
    begins = [change.since for change in stage.told]
    assert begins == sorted(begins)


# ------------------------------------------------------------------------------------------ phones, people, pauses


def unplugged(stage: Stage, status: str = "unavailable") -> list[Fact]:
    return stage.agents.hear(
        QueueMemberStatusChanged(
            at=stage.now,
            queue="main:sales",
            interface="PJSIP/1001",
            agent="anna",
            status=status,
            penalty=0,
        )
    )


def test_reachable_while_one_phone_of_the_agent_is() -> None:
    stage = Stage().on(ready=False)
    assert stage.member("not_in_use") == []
    (gone,) = unplugged(stage)
    assert isinstance(gone, AgentReachabilityChanged)
    assert not gone.reachable
    (back,) = stage.member("in_use", "main:support")
    assert isinstance(back, AgentReachabilityChanged)
    assert back.reachable
    view = stage.agents.view("anna", NOON)
    assert view is not None
    assert view.queues == ("main:sales", "main:support")
    assert len(stage.member(None, "main:support")) == 1
    assert len(stage.member(None)) == 1
    assert stage.agents.view("anna", NOON).reachable  # type: ignore[union-attr]


def test_ready_at_a_phone_that_cannot_be_rung_is_not_ready_until_it_can() -> None:
    stage = Stage().on()
    stage.member("not_in_use")
    stage.second = 10
    reachability, off = unplugged(stage)
    assert isinstance(reachability, AgentReachabilityChanged)
    assert isinstance(off, AgentStateChanged)
    assert stage.state == "not_ready (Phone unreachable) then ready"
    assert (off.by, off.why) == ("pbx", "the phone PJSIP/1001 cannot be reached; ready as anna asked")
    assert stage.agents.wants("anna") == (True, False, None)  # Asterisk itself passes such a phone over
    stage.pbx_lost()
    stage.pbx_up()
    assert stage.state == "not_ready (Phone unreachable) then ready"
    _, on = unplugged(stage, "not_in_use")
    assert isinstance(on, AgentStateChanged)
    assert (on.new, on.by, on.why) == (
        AgentState.READY,
        "pbx",
        "the phone PJSIP/1001 can be reached; ready as anna asked",
    )
    stage.do("make_not_ready", "Lunch")
    unplugged(stage)
    assert stage.state == "not_ready (Lunch)"


def test_who_has_logged_on_at_the_pbx_itself_is_shown_as_the_pbx_has_them() -> None:
    stage = Stage()

    def paused(paused: bool, reason: str | None, queue: str = "main:sales") -> None:
        stage.hear(
            QueueMemberPaused(
                at=stage.now, queue=queue, interface="PJSIP/1001", agent="anna", paused=paused, reason=reason
            )
        )

    stage.keep(stage.member("not_in_use"))
    view = stage.agents.view("anna", stage.now)
    assert view is not None
    assert (stage.state, view.by, view.why) == ("ready", "pbx", "is a member of the queue main:sales")
    assert stage.agents.known() == []  # none of our business there
    assert stage.agents.at_pbx_only("anna")
    paused(True, "Tea")
    assert stage.state == "not_ready (Tea)"
    stage.keep(stage.member("not_in_use", "main:support"))
    assert stage.state == "ready"  # one queue may call
    paused(True, None, "main:support")
    stage.offered()
    assert stage.state == "reserved"
    stage.answers()
    assert stage.state == "busy"
    stage.leaves()
    assert stage.state == "not_ready (Tea)"  # wrap-up there is Asterisk's own
    paused(False, None)
    stage.keep(unplugged(stage))
    assert stage.state == "ready"  # the other queue's phone
    stage.keep(stage.member(None, "main:support"))
    assert stage.state == "not_ready (Phone unreachable) then ready"
    stage.pbx_lost()
    assert stage.state.startswith("unknown")
    stage.pbx_up()
    stage.keep(stage.member(None))
    assert stage.state == "logged_off"
    assert stage.told[-1].by == "pbx"
    stage.keep(stage.member("not_in_use"))
    stage.on(ready=False)
    assert (stage.state, stage.agents.known()) == ("not_ready", ["anna"])  # from now on ours
    stage.do("log_off")
    assert stage.state == "logged_off"
    with pytest.raises(NotPossible, match="is not logged on"):
        stage.do("make_ready")


def test_found_paused_at_the_pbx_is_taken_over() -> None:
    stage = Stage().on()
    (paused,) = stage.keep(stage.agents.found_paused("anna", True, None, at=stage.now))
    assert (stage.state, paused.by, paused.why) == (
        "not_ready (Paused at the PBX)",
        "pbx",
        "paused at the PBX",
    )
    assert stage.keep(stage.agents.found_paused("anna", True, None, at=stage.now)) == []
    stage.keep(stage.agents.found_paused("anna", False, None, at=stage.now))
    assert stage.state == "ready"


def test_an_agent_removed_while_logged_on_and_talking() -> None:
    stage = Stage().on()
    stage.member("in_use")
    stage.answers()
    stage.directory.load((), ())
    assert stage.agents.views(stage.now) == []
    assert stage.tick(1.0) == []
    for verb in ("log_on", "log_off", "make_ready"):
        with pytest.raises(NotPossible, match="not an agent"):
            stage.do(verb, **({"ready": True} if verb == "log_on" else {}))
    (off,) = stage.keep(stage.agents.people_changed(stage.now))
    assert off.new is AgentState.LOGGED_OFF
    assert stage.agents.wants("anna") == (False, False, None)
    assert stage.leaves() == []
    stage.member(None)
    assert stage.agents.known() == []  # nothing is left of them
    stage.directory.load((ANNA,), ())
    stage.on()
    assert stage.state == "ready"


def test_dismissed_in_mid_call_and_back_at_another_phone_they_still_talk() -> None:
    stage = Stage().on()
    stage.answers()
    (off,) = stage.keep(stage.agents.dismiss("anna", at=stage.now, why="another phone"))
    assert (off.new, off.by, off.why) == (AgentState.LOGGED_OFF, "system", "another phone")
    stage.directory.load((person("anna", main="PJSIP/5"),), ())
    stage.on()
    assert stage.state == "busy"
    stage.leaves()
    assert stage.state == "wrap_up"
    stage.keep(stage.agents.dismiss("anna", at=stage.now, why="gone"))
    assert stage.agents.known() == []
    assert stage.agents.dismiss("nobody", at=stage.now, why="gone") == []


def test_a_change_of_people_leaves_the_others_as_they_are() -> None:
    stage = Stage().on()
    stage.directory.load((replace(ANNA, name="Anna B."), person("ben", main="PJSIP/1002")), ())
    assert stage.agents.people_changed(stage.now) == []
    assert [view.name for view in stage.agents.views(stage.now)] == ["Anna B.", "Ben"]


def test_an_agent_nobody_has_heard_of_does_not_change_from_look_to_look() -> None:
    stage = Stage()
    assert stage.agents.view("anna", after(1)) == stage.agents.view("anna", after(2))
    assert stage.agents.view("nobody", NOON) is None


def test_refusals_say_what_to_do() -> None:
    stage = Stage()
    with pytest.raises(NotPossible, match="anna is not logged on"):
        stage.do("make_ready")
    stage.on()
    with pytest.raises(NotPossible, match="use one of: Break, Lunch") as unknown:
        stage.do("make_not_ready", "Fishing")
    assert unknown.value.code == "unknown_reason"
    with pytest.raises(NotPossible, match="not in wrap-up"):
        stage.do("extend_wrap_up", 10.0)
    assert stage.state == "ready"


# ------------------------------------------------------------------------------------------ recorded calls

ONE_CALL = ["ready", "reserved", "busy", "wrap_up"]
STORIES: dict[str, tuple[str, list[str]]] = {
    "02": ("agent1101", ONE_CALL),
    "04": ("agent1101", ["ready"]),
    "05": ("agent2101", ["ready", *["reserved", "ready"] * 3]),
    "07": (
        "carol",
        [*ONE_CALL, *["reserved", "wrap_up"] * 2],
    ),  # the recorded agent was not paused in wrap-up
    "12": ("agent1101", ONE_CALL),
    "13": ("agent1101", ONE_CALL),
    "15": ("agent1101", ONE_CALL),
}


@pytest.mark.parametrize("trace", STORIES)
def test_recorded_calls_tell_the_agents_states(trace: str) -> None:
    login, story = STORIES[trace]
    floor = Floor(recorded_people())
    floor.publish(floor.agents.log_on(login, ready=True, by=login, at=NOON))
    floor.feed(records(trace))
    states = [change.new.value for change in floor.changes(login)]
    once = [state for n, state in enumerate(states) if n == 0 or states[n - 1] != state]
    assert once == story
    assert all(a.old == (b.new if b else "logged_off") for a, b in _pairs(floor.changes(login)))
    assert not floor.agents._agents[login].parties


def _pairs(changes: list[AgentStateChanged]) -> list[tuple[AgentStateChanged, AgentStateChanged | None]]:
    return [(change, changes[n - 1] if n else None) for n, change in enumerate(changes)]


# ------------------------------------------------------------------------------------------ whatever happens

PEOPLE = [
    person("anna", main="PJSIP/1"),
    person("ben", main="PJSIP/2", west="PJSIP/2"),
    person("cleo", west="PJSIP/3"),
]
LOGIN = st.sampled_from([p.login for p in PEOPLE])
WITHOUT = ("asked to be ready without the disposition", "unpaused at the PBX without the disposition")
TALK = st.sampled_from([S.INITIATED, S.ALERTING, S.QUEUED, S.CONNECTED, S.HOLD, S.FAIL])


class AnyDay(RuleBasedStateMachine):
    """Random calls, wishes, links, pauses and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Directory()
        self.directory.load(PEOPLE, ())
        self.start()
        self.legs: dict[str, tuple[str, str, ConnectionState]] = {}
        self.calls: set[str] = set()
        self.known: dict[str, tuple[str, str]] = {}
        self.wanted: dict[str, str | None] = dict.fromkeys((p.login for p in PEOPLE), None)
        self.clock = 0.0
        self.number = 0

    def start(self) -> None:
        self.agents = Agents(
            self.directory,
            wrap_up=WrapUp(seconds=30.0),
            wrap_ups=(
                WrapUp(queue="main:support", seconds=20.0, mandatory=True),
                WrapUp(queue="main:billing", seconds=10.0, then_ready=False),
            ),
            reasons=REASONS,
            pbxs=("main", "west"),
        )
        self.views = {p.login: self.agents.view(p.login, NOON) for p in PEOPLE}
        self.last_since: dict[str, datetime] = {}
        self.down = {"main", "west"}

    def told(self, facts: list[Fact]) -> None:
        for fact in facts:
            assert isinstance(fact, AgentStateChanged | AgentReachabilityChanged)
            old = self.views[fact.agent]
            assert old is not None
            if isinstance(fact, AgentReachabilityChanged):
                self.views[fact.agent] = structs.replace(old, reachable=fact.reachable)
                continue
            if fact.new is AgentState.UNKNOWN and fact.old is not AgentState.UNKNOWN:
                self.known[fact.agent] = (old.by, old.why)
            self.nobody_becomes_ready_silently(fact)
            assert old.state is fact.old
            same = ("reason", "pending", "call", "until")
            assert fact.new is not fact.old or any(getattr(fact, n) != getattr(old, n) for n in same), (
                "told twice"
            )
            assert fact.since <= fact.at
            if fact.old is not AgentState.UNKNOWN:  # what was only unknown for a while goes on since it began
                assert fact.since >= self.last_since.get(fact.agent, fact.since)
            self.last_since[fact.agent] = fact.since
            self.views[fact.agent] = structs.replace(
                old, state=fact.new, since=fact.since, reason=fact.reason, by=fact.by, why=fact.why, call=fact.call,
                pending=fact.pending, until=fact.until, device=fact.device,
            )  # fmt: skip

    def nobody_becomes_ready_silently(self, fact: AgentStateChanged) -> None:
        """Who becomes ready was asked to be by a person or at the PBX, and has not asked for anything else since; the fact
        says who."""
        assert fact.by
        assert fact.why
        if fact.new is not AgentState.READY or fact.old is AgentState.READY:
            return
        who = self.wanted[fact.agent]
        assert who is not None, f"nobody wanted {fact}"
        itself = {"asked to be ready", "logged on", "unpaused at the PBX", *WITHOUT}
        wish = "; ready as set at the PBX" if who == "pbx" else f"; ready as {who} asked"
        again = fact.old is AgentState.UNKNOWN and (fact.by, fact.why) == self.known.get(fact.agent)
        assert again or (fact.by == who and fact.why in itself) or fact.why.endswith(wish), (who, fact)

    def at(self) -> datetime:
        self.clock += 0.5
        return after(self.clock)

    def connection(self, leg: str, state: ConnectionState) -> ConnectionView:
        return ConnectionView(id=leg, device="PJSIP/x", state=state, since=NOON, agent=self.legs[leg][0])

    def view(self, call: str) -> CallView:
        legs = tuple(self.connection(leg, s) for leg, (_, c, s) in self.legs.items() if c == call)
        return CallView(
            id=call, pbx=call.partition(":")[0], direction=Direction.INBOUND, ani=None, ani_name=None, dnis=None,
            started=NOON, connections=legs,
        )  # fmt: skip

    @rule(login=LOGIN, own=st.booleans(), second=st.booleans())
    def comes(self, login: str, own: bool, second: bool) -> None:
        pbx = sorted(self.directory.agents[login].interfaces)[-1 if second else 0]
        self.number += 1
        call = f"{pbx}:{self.number}"
        self.calls.add(call)
        leg = f"{call}.{login}"
        self.legs[leg] = (login, call, S.INITIATED)
        party = self.connection(leg, S.INITIATED)
        fact: CallFact = CallOriginated(at=self.at(), call=call, connection=party, view=self.view(call))
        if not own:
            fact = CallOffered(
                at=fact.at, call=call, connection=party, agent=login, queue="main:sales", view=self.view(call)
            )
        self.told(self.agents.hear(fact))

    @rule(
        login=LOGIN,
        queue=st.sampled_from(["main:sales", "main:support", "main:billing"]),
        asked=st.sampled_from(["", "ready", "break", "extend"]),
    )
    def whole_queue_call(self, login: str, queue: str, asked: str) -> None:
        """From the offer to its end, with something asked for meanwhile or right after it."""
        before = set(self.legs)
        self.comes(login, False, False)
        (leg,) = set(self.legs) - before
        call = self.legs[leg][1]
        self.legs[leg] = (login, call, S.CONNECTED)
        party = self.connection(leg, S.CONNECTED)
        self.told(
            self.agents.hear(
                CallEstablished(
                    at=self.at(), call=call, connection=party, agent=login, queue=queue, waited=None, rang=None,
                    view=self.view(call),
                )
            )
        )  # fmt: skip
        if asked in ("ready", "break"):
            self.wishes(login, asked, "")
        del self.legs[leg]
        self.told(
            self.agents.hear(
                ConnectionCleared(
                    at=self.at(), call=call, connection=structs.replace(party, state=S.NULL), agent=login, cause=16,
                    reason="normal", talked=0.0, held=0.0,
                )
            )
        )  # fmt: skip
        if asked == "extend":
            self.wishes(login, "extend", "ruth")

    @precondition(lambda self: self.legs)
    @rule(data=st.data(), login=LOGIN)
    def joins(self, data: st.DataObject, login: str) -> None:
        """Another agent, or the same one once more, is rung for a call that is there."""
        _, call, _ = self.legs[data.draw(st.sampled_from(sorted(self.legs)))]
        if call.partition(":")[0] not in self.directory.agents[login].interfaces:
            return
        self.number += 1
        leg = f"{call}.{login}.{self.number}"
        self.legs[leg] = (login, call, S.INITIATED)
        party = self.connection(leg, S.INITIATED)
        self.told(
            self.agents.hear(
                CallOffered(
                    at=self.at(), call=call, connection=party, agent=login, queue=None, view=self.view(call)
                )
            )
        )

    @precondition(lambda self: self.legs)
    @rule(
        data=st.data(),
        state=TALK,
        queue=st.sampled_from([None, "main:sales", "main:support", "main:billing"]),
    )
    def goes_on(self, data: st.DataObject, state: ConnectionState, queue: str | None) -> None:
        leg = data.draw(st.sampled_from(sorted(self.legs)))
        login, call, _ = self.legs[leg]
        self.legs[leg] = (login, call, state)
        party = self.connection(leg, state)
        if state is S.CONNECTED:
            self.told(
                self.agents.hear(
                    CallEstablished(
                        at=self.at(), call=call, connection=party, agent=login, queue=queue, waited=None, rang=None,
                        view=self.view(call),
                    )
                )
            )  # fmt: skip
        else:
            self.told(
                self.agents.hear(CallHeld(at=self.at(), call=call, connection=party, agent=login, by="phone"))
            )

    @precondition(lambda self: len(self.legs) > 1)
    @rule(data=st.data())
    def merges(self, data: st.DataObject) -> None:
        leg = data.draw(st.sampled_from(sorted(self.legs)))
        login, merged, state = self.legs[leg]
        targets = sorted({c for _, c, _ in self.legs.values() if c != merged and c[:4] == merged[:4]})
        if not targets:
            return
        call = data.draw(st.sampled_from(targets))
        self.legs[leg] = (login, call, state)
        party = self.connection(leg, state)
        self.told(
            self.agents.hear(
                CallMerged(at=self.at(), call=call, connection=party, merged=merged, view=self.view(call))
            )
        )

    @precondition(lambda self: self.legs)
    @rule(data=st.data(), lost=st.booleans())
    def ends(self, data: st.DataObject, lost: bool) -> None:
        """A connection goes; or the whole call, and nothing is told of its connections."""
        leg = data.draw(st.sampled_from(sorted(self.legs)))
        login, call, _ = self.legs[leg]
        if not lost:
            party = self.connection(leg, S.NULL)
            del self.legs[leg]
            self.told(
                self.agents.hear(
                    ConnectionCleared(
                        at=self.at(), call=call, connection=party, agent=login, cause=16, reason="normal", talked=0.0,
                        held=0.0,
                    )
                )
            )  # fmt: skip
            return
        agents = tuple({a for a, c, _ in self.legs.values() if c == call})
        self.legs = {id: leg for id, leg in self.legs.items() if leg[1] != call}
        self.told(
            self.agents.hear(
                CallCleared(
                    at=self.at(), call=call, outcome="lost", cause=0, duration=1.0, waited=0.0, talked=0.0, held=0.0,
                    queue=None, agents=agents, merged_into=None,
                )
            )
        )  # fmt: skip

    @rule(
        login=LOGIN,
        wish=st.sampled_from(["on", "on ready", "off", "ready", "break", "finish", "extend"]),
        by=st.sampled_from(["", "ruth"]),
    )
    def wishes(self, login: str, wish: str, by: str) -> None:
        agents, at = self.agents, self.at()
        by = by or login
        verbs: dict[str, Callable[[], list[Fact]]] = {
            "on": lambda: agents.log_on(login, ready=False, by=by, at=at),
            "on ready": lambda: agents.log_on(login, ready=True, by=by, at=at),
            "off": lambda: agents.log_off(login, by=by, at=at),
            "ready": lambda: agents.make_ready(login, by=by, at=at),
            "break": lambda: agents.make_not_ready(login, "Break", by=by, at=at),
            "finish": lambda: agents.finish_wrap_up(login, by=by, at=at),
            "extend": lambda: agents.extend_wrap_up(login, 30.0, by=by, at=at),
        }
        there = self.logged_on(login)
        with contextlib.suppress(NotPossible):
            facts = verbs[wish]()
            if wish in ("ready", "on ready"):
                self.wanted[login] = by
            elif wish in ("break", "off") or (wish == "on" and not there):
                self.wanted[login] = None
            self.told(facts)

    def logged_on(self, login: str) -> bool:
        return self.agents.wants(login)[0]

    @rule(login=LOGIN, paused=st.booleans())
    def pause_at_the_pbx(self, login: str, paused: bool) -> None:
        if self.logged_on(login):
            self.wanted[login] = None if paused else "pbx"
        self.told(self.agents.found_paused(login, paused, None, at=self.at()))

    @rule(login=LOGIN, status=st.sampled_from(["not_in_use", "unavailable", None]))
    def phone(self, login: str, status: str | None) -> None:
        """A phone of somebody with a session comes, goes, leaves its queue."""
        if not self.agents.knows(login):
            return
        queue, old = "main:sales", self.views[login]
        assert old is not None
        self.views[login] = structs.replace(old, queues=(queue,) if status else ())
        if status is None:
            self.told(
                self.agents.hear(QueueMemberLeft(at=self.at(), queue=queue, interface="PJSIP/x", agent=login))
            )
            return
        self.told(
            self.agents.hear(
                QueueMemberStatusChanged(
                    at=self.at(), queue=queue, interface="PJSIP/x", agent=login, status=status, penalty=0
                )
            )
        )

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), login=LOGIN)
    def says_how_it_ended(self, data: st.DataObject, login: str) -> None:
        call = data.draw(st.sampled_from(sorted(self.calls)))
        self.told(self.agents.disposed(login, call, by=login, at=self.at()))
        assert login not in self.agents.owing(call)

    @rule(seconds=st.sampled_from([0.5, 10.0, 40.0]))
    def time_goes(self, seconds: float) -> None:
        self.clock += seconds
        self.told(self.agents.tick(after(self.clock)))

    @rule(pbx=st.sampled_from(["main", "west"]), up=st.sampled_from([True, True, True, False]))
    def link(self, pbx: str, up: bool) -> None:
        """A link goes, or both are there again: most of the time a PBX can be asked."""
        if up and self.down:
            pbx = sorted(self.down)[0]
        if up:
            self.down.discard(pbx)
            self.told(
                self.agents.hear(PbxResynced(at=self.at(), pbx=pbx, reason="r", calls=0, differences={}))
            )
        else:
            self.down.add(pbx)
            self.told(
                self.agents.hear(PbxStatusChanged(at=self.at(), pbx=pbx, phase="down", code="", why=""))
            )

    @rule()
    def restart(self) -> None:
        kept = [self.agents.session(p.login, after(self.clock)) for p in PEOPLE]
        for view in self.agents.views(NOON):
            if view.state is not AgentState.UNKNOWN:
                self.known[view.agent] = (view.by, view.why)
        self.start()
        for session in kept:
            facts = self.agents.restore(session, self.at())
            self.views[session.agent] = self.agents.view(session.agent, NOON)
            assert len(facts) <= 1
        for leg, (_login, call, _) in self.legs.items():
            party = self.connection(leg, self.legs[leg][2])
            self.told(
                self.agents.hear(
                    CallOriginated(at=self.at(), call=call, connection=party, view=self.view(call))
                )
            )
        for pbx in ("main", "west"):
            self.link(pbx, True)

    @invariant()
    def ready_means_ready(self) -> None:
        for view in self.agents.views(NOON):
            if view.state is AgentState.READY:
                assert view.reachable
                assert self.agents.wants(view.agent) == (True, False, None)
                assert not [call for call in self.calls if view.agent in self.agents.owing(call)]

    @invariant()
    def views_are_the_fold_of_what_was_told(self) -> None:
        for login, folded in self.views.items():
            assert self.agents.view(login, NOON) == folded

    @invariant()
    def the_state_is_right_or_unknown(self) -> None:
        for view in self.agents.views(NOON):
            at_work = [
                (call, state) for who, call, state in self.legs.values()
                if who == view.agent and call.partition(":")[0] not in self.down
            ]  # fmt: skip
            talks = [call for call, state in at_work if state in (S.CONNECTED, S.HOLD)]
            if view.state in (AgentState.READY, AgentState.NOT_READY, AgentState.WRAP_UP):
                assert not at_work
                assert not self.down & set(self.directory.agents[view.agent].interfaces)
            elif view.state is AgentState.RESERVED:
                assert at_work
                assert not talks
                assert view.call in {call for call, _ in at_work}
            elif view.state is AgentState.BUSY:
                assert view.call in {call for call, _ in at_work}
            elif view.state is AgentState.UNKNOWN:
                assert not at_work
            assert (view.until is None) or view.state is AgentState.WRAP_UP

    @invariant()
    def nothing_leaks(self) -> None:
        for login, agent in self.agents._agents.items():
            assert set(agent.parties) == {leg for leg, (who, *_) in self.legs.items() if who == login}


AnyDay.TestCase.settings = settings(max_examples=80, stateful_step_count=50, database=None)
TestAnyDay = AnyDay.TestCase
