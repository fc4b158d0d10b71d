"""Wrap-up by rules: how long, what has to be said of the call, who may do without it; nobody comes out of it silently."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from cti.agents import NotPossible
from cti.facts import CallOriginated, CallView, ConnectionState, ConnectionView
from cti.people import Directory
from cti.reasons import Chooser, Reason
from cti.settings import WrongSettings, load, wrap_up_rule
from cti.wrap_up import Disposition, WrapUp, of_campaign
from tests.floor import after
from tests.test_agents import ANNA, Stage

SOLD = Disposition(code="sold", label="Sold")
LATER = Disposition(code="later", label="Call again")
WON = Disposition(code="won", label="Won", category="conversion")
SALES = WrapUp(queue="main:sales", seconds=30.0, mandatory=True, dispositions=(SOLD, LATER))
SUPPORT = WrapUp(queue="main:support", seconds=10.0, then_ready=False)
REASONS = (
    Reason(name="Lunch", paid=False, limit=30.0),
    Reason(name="Meeting", chosen_by=Chooser.SUPERVISORS),
    Reason(name="Alarm", chosen_by=Chooser.SYSTEM),
)


class House(Stage):
    """Anna alone, with the rules above; sales wants to know how each call ended."""

    def __init__(self, *, sales: WrapUp = SALES, up: tuple[str, ...] = ("main",)) -> None:
        from cti.agents import Agents

        self.directory = Directory()
        self.directory.load((ANNA,), ())
        self.agents = Agents(
            self.directory, wrap_up=WrapUp(seconds=20.0), wrap_ups=(sales, SUPPORT), reasons=REASONS
        )
        self.told = []
        self.second = 0.0
        for pbx in up:
            self.pbx_up(pbx)

    def works(self, call: str = "main:1", queue: str = "main:sales") -> House:
        self.offered(call, queue)
        self.answers(call, queue)
        self.leaves(call)
        return self

    def says(self, call: str = "main:1", by: str = "anna") -> list[Any]:
        return self.keep(self.agents.disposed("anna", call, by=by, at=self.now))


def ready(house: House) -> House:
    house.on()
    return house


def test_a_mandatory_disposition_outlasts_the_timer_and_is_shown_as_owed() -> None:
    house = ready(House()).works()
    assert house.state == "wrap_up then disposition"
    assert house.told[-1].until == after(30)
    assert house.agents.owing("main:1") == ["anna"]
    (over,) = house.tick(31)
    assert (over.new, over.until, over.by, over.pending) == ("wrap_up", None, "system", "disposition")
    assert over.why == "wrap-up time is over; how the call ended is still to be said"
    assert house.tick(3600) == []
    assert house.agents.wants("anna") == (True, True, "Wrap-up")
    (said,) = house.says()
    assert (said.new, said.by) == ("ready", "anna")
    assert said.why == "said how the call ended; ready as anna asked"
    assert house.agents.owing("main:1") == []


def test_a_disposition_given_in_time_leaves_the_rest_of_the_time() -> None:
    house = ready(House()).works()
    (said,) = house.says()
    assert (said.new, said.pending, said.until) == ("wrap_up", None, after(30))
    (over,) = house.tick(31)
    assert (over.new, over.why) == ("ready", "wrap-up time is over; ready as anna asked")


def test_a_disposition_given_during_the_call_is_not_owed_after_it() -> None:
    house = ready(House())
    house.answers()
    assert house.says() == []
    house.leaves()
    assert house.state == "wrap_up"
    assert house.tick(31)[0].new == "ready"


def test_who_owes_is_told_what_to_say_and_a_supervisor_may_let_them_go() -> None:
    house = ready(House()).works()
    for verb in ("make_ready", "finish_wrap_up"):
        with pytest.raises(
            NotPossible, match=r"call main:1 ended, .*: sold \(Sold\), later \(Call again\)"
        ) as no:
            house.do(verb)
        assert no.value.code == "disposition_owed"
    (on,) = house.do("finish_wrap_up", by="ruth")
    assert (on.new, on.by) == ("ready", "ruth")
    assert on.why == "finished wrap-up without the disposition; ready as anna asked"
    house.works("main:2")
    (on,) = house.do("make_ready", by="ruth")
    assert (on.new, on.by, on.why) == ("ready", "ruth", "asked to be ready without the disposition")
    house.works("main:3")
    (said,) = house.says("main:3", by="ruth")
    assert (said.pending, said.by) == (None, "ruth")


def test_a_break_asked_for_while_owing_comes_after_the_disposition() -> None:
    house = ready(House()).works()
    (asked,) = house.do("make_not_ready", "Lunch")
    assert (house.state, asked.until) == ("wrap_up then disposition; not_ready: Lunch", None)
    house.says()
    assert house.state == "not_ready (Lunch)"


def test_nobody_is_kept_from_going_home_and_what_was_owed_is_said() -> None:
    house = ready(House()).works()
    (off,) = house.do("log_off")
    assert (off.new, off.why) == ("logged_off", "logged off without the disposition")
    house.on()
    assert house.state == "ready"


def test_unpaused_at_the_pbx_ends_it_like_a_supervisor_would() -> None:
    house = ready(House()).works()
    (on,) = house.keep(house.agents.found_paused("anna", False, None, at=house.now))
    assert (on.new, on.by, on.why) == ("ready", "pbx", "unpaused at the PBX without the disposition")


def test_each_queue_has_its_time_and_its_state_after() -> None:
    house = ready(House()).works("main:1", "main:support")
    assert house.told[-1].until == after(10)
    (over,) = house.tick(11)
    assert (over.new, over.why) == ("not_ready", "wrap-up time is over; not ready as the rules say")
    house.do("make_ready")
    house.works("main:2", "main:other")
    assert house.told[-1].until == after(11 + 20)


def test_no_time_at_all_but_a_disposition() -> None:
    house = ready(House(sales=WrapUp(queue="main:sales", seconds=0.0, mandatory=True))).works()
    assert (house.state, house.told[-1].until) == ("wrap_up then disposition", None)
    with pytest.raises(NotPossible, match="any text"):
        house.do("make_ready")
    (longer,) = house.do("extend_wrap_up", 60.0)
    assert longer.until == after(60)
    house.says()
    assert house.tick(61)[0].new == "ready"


def test_more_time_does_not_take_back_a_break() -> None:
    house = ready(House())
    house.answers(queue="main:other")
    house.do("make_not_ready", "Lunch")
    house.leaves()
    house.do("extend_wrap_up", 30.0, by="ruth")
    (over,) = house.tick(51)
    assert (over.new, over.reason) == ("not_ready", "Lunch")
    assert over.why == "wrap-up time is over; not ready as anna asked"


def test_two_calls_owe_two_dispositions() -> None:
    house = ready(House())
    house.answers("main:1")
    house.holds("main:1")
    house.answers("main:2")
    house.leaves("main:1")
    house.leaves("main:2")
    house.tick(31)
    house.says("main:2")
    assert house.state == "wrap_up then disposition"
    house.says("main:1")
    assert house.state == "ready"


def test_what_is_owed_and_who_asked_survive_a_restart() -> None:
    house = House()
    house.do("log_on", ready=False, by="ruth")
    house.do("make_ready", by="ruth")
    house.works()
    before = house.agents.view("anna", house.now)
    kept = house.agents.session("anna", house.now)
    again = House(up=())
    again.second = 100
    again.keep(again.agents.restore(kept, again.now))
    assert again.state.startswith("unknown")
    again.pbx_up()
    after_ = again.agents.view("anna", again.now)
    assert before is not None
    assert after_ is not None
    same = ("state", "since", "by", "why", "call", "pending")
    assert [getattr(after_, n) for n in same] == [getattr(before, n) for n in same]
    (said,) = again.says()
    assert (said.new, said.why) == ("ready", "said how the call ended; ready as ruth asked")


def test_a_call_that_went_on_over_a_restart_is_wrapped_up_by_its_rule() -> None:
    house = ready(House())
    house.answers()
    kept = house.agents.session("anna", house.now)
    for goes_on in (True, False):
        again = House(up=())
        again.keep(again.agents.restore(kept, again.now))
        if goes_on:
            party = again.leg(ConnectionState.CONNECTED)
            again.hear(
                CallOriginated(
                    at=again.now, call="main:1", connection=party, view=again.view("main:1", party)
                )
            )
        again.pbx_up()
        if goes_on:
            assert again.state == "busy"
            again.leaves()
        assert again.state == "wrap_up then disposition", goes_on
        assert again.agents.session("anna", again.now).worked == {}


@pytest.mark.parametrize(
    ("reason", "by", "code"),
    [
        ("Lunch", "anna", None),
        ("Meeting", "anna", "reason_not_yours"),
        ("Meeting", "ruth", None),
        ("Alarm", "ruth", "reason_not_yours"),
        ("Phone unreachable", "anna", "reason_not_yours"),
        ("Fishing", "ruth", "unknown_reason"),
    ],
)
def test_who_may_give_which_reason(reason: str, by: str, code: str | None) -> None:
    house = ready(House())
    if code is None:
        house.do("make_not_ready", reason, by=by)
        assert house.state == f"not_ready ({reason})"
        return
    with pytest.raises(NotPossible, match="use one of: Lunch") as no:
        house.do("make_not_ready", reason, by=by)
    assert no.value.code == code
    assert house.state == "ready"


def test_what_may_be_said_of_a_call() -> None:
    house = ready(House()).works()
    assert house.agents.dispositions("anna", "main:1", "main:sales") == (SOLD, LATER)
    assert house.agents.dispositions("anna", "main:1", None) == (SOLD, LATER)  # she had it from sales
    assert house.agents.dispositions("ruth", "main:1", "main:sales") == (SOLD, LATER)
    assert house.agents.dispositions("anna", "main:2", "main:support") == ()  # any text
    assert house.agents.dispositions("anna", "main:2", None) == ()


class CampaignHouse(House):
    """Calls of Anna's that begin with main:at- are those of campaign 7."""

    def __init__(self, rule: WrapUp | None) -> None:
        super().__init__()
        self.rule = rule
        self.agents.follow_campaigns(
            lambda id: self.rule if id == 7 else None,
            lambda call, login: of_campaign(7) if call.startswith("main:at-") else None,
        )

    def view(self, call: str = "main:1", *legs: ConnectionView) -> CallView:
        customer = replace(legs[0], id=f"{call}-customer", agent=None, state=ConnectionState.CONNECTED)
        return super().view(call, *legs, customer)


def test_a_campaigns_calls_follow_its_rule_also_where_no_queue_gave_them() -> None:
    own = WrapUp(seconds=9.0, mandatory=True, dispositions=(WON, SOLD), extension=30.0)
    for queue in ("main:sales", None):
        house = CampaignHouse(own)
        ready(house)
        house.offered("main:at-1", queue)
        house.answers("main:at-1", queue)
        house.leaves("main:at-1")
        assert house.state == "wrap_up then disposition"
        assert house.agents.dispositions("anna", "main:at-1", "main:sales") == (WON, SOLD)
        with pytest.raises(NotPossible, match=r"won \(Won\), sold \(Sold\)"):
            house.do("make_ready")
        kept = house.agents.session("anna", house.now)
        again = CampaignHouse(own)
        again.keep(again.agents.restore(kept, again.now))
        assert again.agents.session("anna", again.now).owed == {"main:at-1": "#7"}
        house.says("main:at-1")
        assert house.state == "wrap_up"
        house.tick(10)
        assert house.state == "ready"
        house.rule = None  # the campaign is gone: the general rule holds
        house.works("main:at-2", "main:sales")
        assert house.state == "wrap_up"


def test_an_agent_adds_no_more_time_than_the_campaign_lets_them() -> None:
    house = CampaignHouse(WrapUp(seconds=5.0, extension=30.0))
    ready(house)
    house.works("main:at-1")
    house.do("extend_wrap_up", 20)
    before, house = house, CampaignHouse(house.rule)
    house.keep(house.agents.restore(before.agents.session("anna", before.now), before.now))  # a restart
    house.do("extend_wrap_up", 20)
    with pytest.raises(NotPossible, match="by 30 seconds in all") as no:
        house.do("extend_wrap_up", 1)
    assert no.value.code == "no_more_time"
    house.do("extend_wrap_up", 100, by="ruth")
    house.tick(5 + 30 + 99)
    assert house.state == "wrap_up"
    house.tick(2)
    assert house.state == "ready"


# ------------------------------------------------------------------------------------------ settings


def given(**more: Any) -> Any:
    return load(database_url="postgresql://x", **more)


def test_reasons_may_be_names_or_more() -> None:
    reasons = given(
        not_ready_reasons=["Break", {"name": "Lunch", "paid": False, "limit": 30, "chosen_by": "agents"}]
    ).not_ready_reasons
    assert [(r.name, r.paid, r.limit) for r in reasons] == [("Break", True, None), ("Lunch", False, 30.0)]
    with pytest.raises(WrongSettings, match="the reason 'Break' is there twice"):
        given(not_ready_reasons=["Break", "Break"])


def test_queues_take_the_general_rule_where_they_have_none() -> None:
    settings = given(
        wrap_up={
            "seconds": 15,
            "dispositions": {"done": "Done"},
            "queues": {
                "main:sales": {"mandatory": True, "dispositions": {"sold": "Sold"}},
                "main:x": {"seconds": 0},
            },
        }
    ).wrap_up
    assert wrap_up_rule(settings) == WrapUp(
        seconds=15.0, dispositions=(Disposition(code="done", label="Done"),)
    )
    assert wrap_up_rule(settings, "main:sales") == WrapUp(
        queue="main:sales", seconds=15.0, mandatory=True, dispositions=(SOLD,)
    )
    assert wrap_up_rule(settings, "main:x").seconds == 0
    with pytest.raises(WrongSettings, match="write it with its PBX, such as main:sales"):
        given(wrap_up={"queues": {"sales": {}}})
