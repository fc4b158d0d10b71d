"""Other work: who may be offered what, and what is offered to whom; the rules and the floor by themselves."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti.facts import AgentState
from cti.other_work import WorkView
from routing.blending import Permit, Quiet, Worker, WorkFloor
from routing.document import WrongRules, read_document, rule_set
from routing.rules import RuleSet
from routing.work import ANYTHING, OPEN, TRANSITIONS, NotPossible, Step, again, matches, move

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # a Monday
READY, BUSY = AgentState.READY, AgentState.BUSY
QUIET = {"id": "quiet", "queues": ["sales"], "kinds": ["callback"], "free_agents": 2, "quiet_for": 30}


def rules(*blending: dict[str, Any], **more: Any) -> RuleSet:
    return rule_set(read_document({"blending": list(blending), **more}), 1)


def worker(name: str, state: AgentState = READY, *queues: str, idle: float = 0, **more: Any) -> Worker:
    ids = frozenset(f"main:{queue}" for queue in queues or ("sales",))
    return Worker(agent=name, state=state, since=NOON - timedelta(seconds=idle), queues=ids, **more)


def floor(*workers: Worker, **waiting: int | None) -> WorkFloor:
    return WorkFloor(workers=workers, waiting=lambda queue: waiting.get(queue.partition(":")[2], 0))


def item(id: str = "w1", **more: Any) -> WorkView:
    values = {
        "kind": "callback",
        "skill": "main:sales",
        "title": "t",
        "source": "s",
        "ref": id,
        "data": {},
        **more,
    }
    return WorkView(id=id, created=NOON, since=NOON, **values)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_it_must_be_quiet_for_so_long() -> None:
    quiet, told = Quiet(), rules(QUIET)
    two = floor(worker("a"), worker("b"))
    assert not quiet.look(told, two, NOON)["a"].kinds
    assert quiet.look(told, two, after(29))["a"].why == "sales has not been quiet for 30 s yet"
    assert set(quiet.look(told, two, after(30))["a"].kinds) == {"callback"}
    crowded = quiet.look(told, floor(worker("a"), worker("b"), sales=1), after(31))["a"]
    assert (dict(crowded.kinds), crowded.why) == ({}, "somebody waits in sales: calls come first")
    assert not quiet.look(told, two, after(32))["a"].kinds  # counted from the beginning again
    assert quiet.look(told, two, after(62))["a"].kinds


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (floor(worker("a"), worker("b", BUSY)), "fewer than 2 of sales are free"),
        (floor(worker("a", BUSY), worker("b")), "talks"),
        (
            floor(worker("a", READY, "other"), worker("b")),
            "no rule offers other work to agents of these queues",
        ),
        (
            floor(worker("a"), worker("b"), sales=None),
            "it is not known now who waits in sales: calls come first",
        ),
        (
            floor(worker("a", READY, "sales", "support"), worker("b"), support=2),
            "somebody waits in support: calls come first",
        ),
    ],
)
def test_why_not(look: WorkFloor, why: str) -> None:
    quiet, told = Quiet(), rules({**QUIET, "quiet_for": 0})
    permit = quiet.look(told, look, NOON)["a"]
    assert (dict(permit.kinds), permit.why) == ({}, why)


def test_who_waits_for_one_agent_in_the_direct_queue_keeps_nobody_from_work() -> None:
    told = rules({**QUIET, "quiet_for": 0}, direct_queue="direct")
    look = floor(worker("a", READY, "sales", "direct"), worker("b", READY, "sales", "direct"), direct=3)
    assert Quiet().look(told, look, NOON)["a"].kinds


def test_hours_and_how_many_at_most() -> None:
    hours = {"zone": "UTC", "hours": [{"days": ["mon"], "from": "08:00", "to": "18:00"}]}
    told = rules({**QUIET, "quiet_for": 0, "calendar": "day", "at_most": 1}, calendars={"day": hours})
    quiet, two = Quiet(), floor(worker("a"), worker("b"))
    assert quiet.look(told, two, NOON)["a"].kinds
    night = quiet.look(told, two, NOON + timedelta(hours=10))["a"]
    assert not night.kinds
    assert not night.overdue  # customers sleep
    assert "closed" in night.why
    busy = floor(worker("a"), worker("b"), worker("c", work=True))
    assert quiet.look(told, busy, NOON)["a"].why == "1 of sales are at other work already"
    permits = quiet.look(told, two, NOON)
    assert len(matches([item("w1"), item("w2")], two.workers, permits, NOON, {})) == 1


def test_what_goes_to_whom() -> None:
    told = rules({**QUIET, "quiet_for": 0})
    people = (
        worker("new", idle=1),
        worker("idle", idle=90),
        worker("expert", READY, "sales", idle=50, levels={"main:sales": 0}),
        worker("learner", READY, "sales", idle=99, levels={"main:sales": 5}),
        worker("elsewhere", READY, "support", idle=500),
    )
    look = floor(*people)
    permits = Quiet().look(told, look, NOON)
    items = [
        item("later", not_before=after(60)),
        item("plain"),
        item("first", priority=5, level=2),
        item("soon", due=after(600)),
        item("strange", kind="fax"),
    ]
    found = [(m.item.id, m.agent) for m in matches(items, people, permits, NOON, {})]
    assert found == [("first", "idle"), ("soon", "learner"), ("plain", "expert")]
    declined = {("first", "idle"): after(60)}
    found = [(m.item.id, m.agent) for m in matches(items, people, permits, NOON, declined)]
    assert found[0] == ("first", "expert")


def test_what_is_overdue_need_not_wait_for_quiet() -> None:
    look = floor(worker("a"), sales=3)
    late = item(due=after(-1))
    for overdue, expected in ((True, ["a"]), (False, [])):
        permits = Quiet().look(rules({**QUIET, "overdue": overdue}), look, NOON)
        assert [m.agent for m in matches([late], look.workers, permits, NOON, {})] == expected
        assert not matches([item(due=after(1))], look.workers, permits, NOON, {})


def test_of_what_calls_interrupt_an_agent_may_have_several_at_a_time() -> None:
    told = rules(
        {
            **QUIET,
            "quiet_for": 0,
            "kinds": ["email", "callback"],
            "free_agents": 1,
            "at_most": 1,
            "interrupted_by_calls": ["email"],
            "at_once": 3,
        }
    )
    items = [item("call"), item("mail", kind="email"), item("mail2", kind="email")]

    def offered(**more: Any) -> list[str]:
        people = (worker("a", **more),)
        permits = Quiet().look(told, floor(*people), NOON)
        return [match.item.id for match in matches(items, people, permits, NOON, {})]

    assert offered() == ["call"]
    assert offered(work=True, beside=1) == ["mail"]  # one offer at a time; `at_most` is about agents
    assert offered(work=True, beside=2) == ["mail"]
    assert offered(work=True, beside=3) == []
    assert offered(work=True) == []  # is offered one now, or does what calls do not interrupt
    another = (worker("a", work=True, beside=1), worker("b"))
    permits = Quiet().look(told, floor(*another), NOON)
    assert (permits["b"].kinds, permits["b"].why) == ({}, "1 of sales are at other work already")
    assert set(permits["a"].kinds) == {"email", "callback"}  # an offer made is not taken back by itself


def test_what_has_waited_long_comes_before_what_is_more_important() -> None:
    told = rules({**QUIET, "quiet_for": 0, "ageing": {"every": 60, "by": 2, "most": 4}, "free_agents": 1})
    look = floor(worker("a"))
    items = [item("old"), msgspec.structs.replace(item("new", priority=3), created=after(100))]
    for at, first in ((after(100), "new"), (after(119), "new"), (after(120), "old"), (after(220), "new")):
        permits = Quiet().look(told, look, at)
        assert [match.item.id for match in matches(items, look.workers, permits, at, {})] == [first], at


def test_who_did_not_answer_is_offered_nothing_for_a_while() -> None:
    look = floor(worker("a", idle=9), worker("b"))
    permits = Quiet().look(rules({**QUIET, "quiet_for": 0}), look, NOON)
    found = matches([item("1"), item("2")], look.workers, permits, NOON, {(ANYTHING, "a"): after(1)})
    assert [(match.item.id, match.agent) for match in found] == [("1", "b")]


@given(
    states=st.lists(st.sampled_from(list(AgentState)), min_size=1, max_size=6),
    waits=st.one_of(st.none(), st.integers(0, 2)),
    work=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_nobody_on_a_call_nor_with_work_is_offered_any(
    states: list[AgentState], waits: int | None, work: list[bool]
) -> None:
    people = tuple(worker(str(n), state, work=work[n]) for n, state in enumerate(states))
    look = floor(*people, sales=waits)
    permits = Quiet().look(rules({**QUIET, "quiet_for": 0, "free_agents": 1}), look, NOON)
    found = matches([item(f"w{n}") for n in range(8)], people, permits, NOON, {})
    by_name = {one.agent: one for one in people}
    assert all(by_name[m.agent].state is READY and not by_name[m.agent].work for m in found)
    assert len({m.agent for m in found}) == len({m.item.id for m in found}) == len(found)
    if waits != 0:
        assert not found


def test_steps_are_those_of_the_table() -> None:
    for state, step in itertools.product(TRANSITIONS, Step):
        here = item(state=state)
        if step in TRANSITIONS[state]:
            assert move(here, step, NOON).state == TRANSITIONS[state][step]
        else:
            with pytest.raises(NotPossible):
                move(here, step, NOON)
    assert {state for state, steps in TRANSITIONS.items() if steps} == OPEN


def test_for_how_long_it_was_done_is_kept() -> None:
    first = move(move(item(), Step.OFFER, after(5)), Step.ACCEPT, after(10))
    back = move(first, Step.RETURN, after(70))
    second = move(move(back, Step.OFFER, after(80)), Step.ACCEPT, after(90))
    done = move(second, Step.COMPLETE, after(100))
    assert (first.begun, first.worked, back.worked) == (after(10), 0, 60)
    assert (done.begun, done.worked) == (after(10), 70)


def test_a_customer_is_tried_as_often_as_the_rule_says() -> None:
    rule = rules({**QUIET, "attempts": 2, "again_after": 60}).blending[0]
    first = again(item(), rule, NOON)
    assert first is not None
    assert (first.attempts, first.not_before) == (1, after(60))
    assert again(first, rule, NOON) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"blending": [QUIET, QUIET]}, "quiet is there already"),
        ({"blending": [{**QUIET, "calendar": "none"}]}, "there is no calendar none"),
        ({"blending": [{**QUIET, "interrupted_by_calls": ["email"]}]}, "email is not one of its kinds"),
        ({"blending": [{**QUIET, "kinds": []}]}, "blending.0.kinds"),
        (
            {"rules": [{"id": "x", "then": {"callback": {"when_quiet": True}}}]},
            "no blending offers the kind callback",
        ),
        ({"escalations": [{"id": "e", "queues": ["a1"], "to": "a1"}]}, "its own second level"),
        ({"escalations": [{"id": "e", "to": "a1", "otherwise": "a1"}]}, "where nobody has come"),
        ({"queues": {"a1": {"calendar": "none"}}}, "there is no calendar none"),
    ],
)
def test_rules_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongRules) as caught:
        rule_set(read_document(wrong), 1)
    assert said in str(caught.value)


def test_a_permit_of_nothing_says_nothing() -> None:
    assert not Permit().kinds
