"""Who works for which campaign: one at a time, by priority, evenly among equals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cti.facts import AgentState, Fact
from cti.people import Agent
from cti.views import AgentView
from dialer.attempts import Told
from dialer.calling.attempt_writer import AttemptWriter
from dialer.calling.call_desk import CallDesk
from dialer.calling.for_whom import ForFree, ForOne
from dialer.calling.hands import Hands, eligible, takes_calls
from dialer.calling.live import Live, new_attempt
from dialer.calling.pace import Pace
from dialer.calling.running import Running
from dialer.calling.switchboard import AgentsPort
from dialer.calling.trunks import Trunks
from dialer.facts import AttemptConnected
from dialer.lists import Assigned
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
    before = dict(hands.lent)
    for login in "abcd":
        hands.lend(login, both.values(), lambda id: True)
    assert hands.lent == before
    assert hands.lend("a", both.values(), lambda id: id == 1) == 1


def test_a_campaign_that_begins_gets_its_agents_as_they_come_free() -> None:
    """Whoever is in a call of the other is not asked again until it is over."""
    hands, both = Hands(dict.fromkeys("abcd", 1)), {1: campaign(1), 2: campaign(2)}
    assert hands.lend("a", [both[1]], lambda id: True) == 1
    assert hands.lend("c", both.values(), lambda id: True) == 2
    assert hands.lend("b", both.values(), lambda id: True) == 2
    assert hands.lend("d", both.values(), lambda id: True) == 1


# ------------------------------------------------------------------------------------------ lists that are for some


def for_free(free: Iterable[Agent], at_work: Iterable[Agent], waiting: Iterable[Assigned]) -> ForFree:
    """With these agents."""
    return ForFree(lambda: free, lambda: at_work, waiting)


A, B, C = (Agent(login=login, name=login, team="sales") for login in ("anna", "ben", "cleo"))
ALL = Assigned(teams=["sales"])


def only(*logins: str) -> Assigned:
    return Assigned(agents=list(logins))


def test_an_agent_who_dials_reaches_what_is_theirs() -> None:
    assert ForOne(A).room(only("anna"), 5) is None
    assert ForOne(A).room(only("ben"), 5) == 0
    assert ForOne(None).room(Assigned(), 5) is None
    assert not ForOne(None).take(ALL)


def test_a_list_for_some_is_called_one_for_one() -> None:
    reach = for_free([A, B], [A, B, C], [])
    assert reach.room(Assigned(), 9) is None
    assert reach.room(ALL, 9) is None  # all who are at work may call it: paced as any other
    assert reach.room(only("anna", "ben", "cleo"), 9) is None
    assert reach.room(only("anna", "ben"), 9) == 2
    assert reach.room(only("anna", "ben"), 1) == 1
    assert reach.room(only("cleo"), 9) == 0  # at work, not free
    assert [reach.take(only("anna", "ben")) for _ in range(3)] == [True, True, False]
    assert reach.take(Assigned())


def test_who_may_call_several_lists_is_counted_once_and_calls_under_way_count() -> None:
    reach = for_free([A, B], [A, B, C], [only("anna", "ben")])
    assert (reach.room(only("anna"), 9), reach.room(only("ben"), 9)) == (1, 1)
    assert reach.take(only("anna"))  # the call under way is ben's then
    assert (reach.room(only("ben"), 9), reach.room(only("anna", "ben"), 9)) == (0, 0)
    long = [Agent(login=f"a{n}", name="x") for n in range(60)]
    chain = [only(f"a{n}", f"a{n + 1}") for n in range(59)]
    reach = for_free(reversed(long), [*long, C], chain)
    assert reach.take(only("a30"))  # half of them change hands for it
    assert not any(reach.take(only(f"a{n}")) for n in range(60))
    gone = for_free([B], [A, B, C], [only("anna"), only("anna")])
    assert gone.room(only("anna", "ben"), 9) == 1  # anna has gone since: her calls take nobody else's place


async def test_who_answers_goes_to_those_whom_the_list_is_for_and_spares_them_for_such_calls() -> None:
    given: list[tuple[str, str]] = []
    facts: list[Fact] = []
    views = [
        agent(agent=login, since=NOW + timedelta(seconds=n))
        for n, login in enumerate(("anna", "ben", "cleo"))
    ]
    people = {person.login: person for person in (A, B, C)}

    async def connect(call: str, login: str) -> None:
        given.append((call, login))

    run = Running(campaign(), "main", Pace(campaign(), 0.5))
    desk = CallDesk(
        running={1: run},
        pbxs={},
        agents=AgentsPort(
            all=lambda: views,
            view=lambda login: next((view for view in views if view.agent == login), None),
            team_name=lambda team: "",
            teams_of_queue=lambda queue: (),
            connect=connect,
            person=people.get,
        ),
        trunks=Trunks([]),
        writer=AttemptWriter(lambda: None, healthy=lambda: False, settings=dict),  # type: ignore[arg-type,return-value]
        publish=facts.extend,
        set_data=lambda call, data, by: None,
        spawn=asyncio.create_task,
        kick=lambda: None,
    )

    def call(number: int, assigned: Assigned, *, answered: float | None) -> Live:
        attempt = new_attempt(f"at-{number:032x}", run.campaign)
        attempt.tell(Told.SENT, 0.0)
        if answered is not None:
            attempt.tell(Told.UP, answered)
        live = Live(attempt, 1, None, "+442000001", "main", 0.0, NOW, assigned=assigned)
        live.waiting = answered is not None
        desk._live[attempt.id] = live
        return live

    async def matched() -> list[str]:
        given.clear()
        desk.match()
        while desk._taking:
            await asyncio.sleep(0)
        return [login for _, login in sorted(given)]

    anybody, annas = call(1, Assigned(), answered=1.0), call(2, only("anna"), answered=2.0)
    assert await matched() == [
        "ben",
        "anna",
    ]  # anna has been free longest, and the second call is for her only
    del desk._live[annas.attempt.id]
    ringing = call(3, only("anna"), answered=None)
    assert await matched() == ["ben"]  # anna's call has not even been answered yet
    del desk._live[ringing.attempt.id]
    assert await matched() == ["anna"]  # no list is for some: who has been free longest
    del desk._live[anybody.attempt.id]
    of_two = call(4, only("anna", "ben"), answered=1.0)
    of_one = call(5, only("anna"), answered=2.0)
    assert await matched() == ["ben", "anna"]
    views = [view for view in views if view.agent == "cleo"]
    assert await matched() == ["cleo"]  # nobody else is free: rather cleo than nobody
    desk._connected(of_two, "ben")
    desk._connected(of_one, "cleo")
    assert (of_two.why, of_one.why) == ("", "list assigned to anna; the queue gave it to cleo")
    told = [fact for fact in facts if isinstance(fact, AttemptConnected)]
    assert [(fact.agent, fact.theirs) for fact in told] == [("ben", True), ("cleo", False)]
