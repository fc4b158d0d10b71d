"""Who works for which campaign: one at a time, by priority, evenly among equals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cti.facts import AgentState
from cti.views import AgentView
from dialer.calling.hands import Hands, eligible, takes_calls
from dialer.management.settings import Campaign, CampaignSettings

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def agent(**given: Any) -> AgentView:
    how: dict[str, Any] = {
        "agent": "anna",
        "name": "Anna",
        "team": "sales",
        "state": AgentState.READY,
        "reason": None,
        "since": NOW,
        "by": "anna",
        "why": "",
        "pending": None,
        "until": None,
        "call": None,
        "device": "PJSIP/1101",
        "reachable": True,
        "queues": ("main:sales",),
        "off_hook": True,
        "lines": {"main": "open"},
    }
    return AgentView(**how | given)


def campaign(id: int = 1, priority: int = 0, **settings: Any) -> Campaign:
    return Campaign(
        id=id,
        name=f"c{id}",
        mode="predictive",
        state="running",
        profile="test",
        priority=priority,
        settings=CampaignSettings(**{"queue": "main:sales"} | settings),
        version=1,
    )


@pytest.mark.parametrize(
    ("view", "of", "may"),
    [
        (agent(), campaign(), True),
        (agent(off_hook=False), campaign(), True),
        (agent(queues=()), campaign(), False),
        (agent(state=AgentState.LOGGED_OFF), campaign(), False),
        (agent(state=AgentState.UNKNOWN), campaign(), False),
        (agent(), campaign(team="sales"), True),
        (agent(), campaign(team="Sales Team"), True),
        (agent(), campaign(team="service"), False),
        (agent(queues=()), campaign(queue="", team="sales"), True),
        (agent(queues=(), off_hook=False), campaign(queue="", team="sales"), False),
        (agent(), campaign(queue=""), False),
    ],
)
def test_who_may_get_its_calls(view: AgentView, of: Campaign, may: bool) -> None:
    assert eligible(view, of, lambda team: "Sales Team" if team == "sales" else "") is may


def test_who_would_be_reached_now() -> None:
    assert takes_calls(agent(), "main")
    assert not takes_calls(agent(), "other")
    assert not takes_calls(agent(lines={"main": "calling"}), "main")
    assert not takes_calls(agent(reachable=False), "main")
    assert not takes_calls(agent(state=AgentState.WRAP_UP), "main")
    assert takes_calls(agent(off_hook=False, lines={}), "main")


def test_the_highest_priority_first_and_the_next_when_it_has_nobody_to_call() -> None:
    hands, low, high = Hands(), campaign(1, 0), campaign(2, 9)
    hungry = {1, 2}
    assert hands.lend("anna", [low, high], hungry.__contains__) == 2
    hungry.discard(2)
    assert hands.lend("anna", [low, high], hungry.__contains__) == 1
    hungry.add(2)
    assert hands.lend("anna", [low, high], hungry.__contains__) == 2
    assert hands.lend("anna", [], hungry.__contains__) is None
    assert hands.lent == {}


def test_equals_share_evenly_and_nobody_is_moved_without_need() -> None:
    hands, both = Hands(), {1: campaign(1), 2: campaign(2)}
    for login in "abcd":
        hands.lend(login, both.values(), lambda id: True)
    assert [hands.number(1), hands.number(2)] == [2, 2]
    assert hands.even_out(both, lambda id: True, lambda login: both.values()) is None
    hands.lent = dict.fromkeys("abcd", 1)
    moved = hands.even_out(both, lambda id: True, lambda login: [both[1]] if login == "a" else both.values())
    assert moved == ("b", 2)
    assert hands.even_out(both, lambda id: id == 1, lambda login: both.values()) is None
    assert hands.lend("b", both.values(), lambda id: True) == 1  # as good as the other: stays
