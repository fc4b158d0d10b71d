"""Who sees what: agents their own calls, supervisors their teams', nobody anything that is left over."""

from __future__ import annotations

import msgspec
import pytest

from crm.facts import PopWithdrawn
from cti.asyncapi import fact_classes
from cti.audience import Audience, subscriptions
from cti.facts import (
    AgentReachabilityChanged,
    AgentStateChanged,
    CallDataChanged,
    CallFact,
    CallView,
    ConnectionCleared,
    ConnectionView,
    Fact,
    JournalGap,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
)
from cti.people import Actor, Directory, Role
from tests.floor import (
    BLUE,
    BORIS,
    NOON,
    RED,
    ROOT,
    RUTH,
    Floor,
    Viewer,
    actor,
    person,
    recorded_people,
    teams,
)
from tests.recorded import AGENTS, FOLDER, records

TRACES = sorted(path.stem for path in (FOLDER / "22").glob("*.txt"))
CUSTOMERS_OWN = {"ani", "ani_name", "number", "name", "dnis", "data", "changed", "view", "connection"}


def parties(fact: Fact) -> set[str]:
    """The agents a call fact says something of."""
    found: set[str] = set()
    for field in msgspec.structs.fields(fact):
        value = getattr(fact, field.name)
        if isinstance(value, ConnectionView) and value.agent:
            found.add(value.agent)
        if isinstance(value, CallView):
            found.update(c.agent for c in value.connections if c.agent)
    return found | set(getattr(fact, "agents", ()))


@pytest.mark.parametrize("trace", TRACES)
def test_an_agent_sees_their_own_calls_only(trace: str) -> None:
    """From being offered a call to leaving it, each time; then that it is over, and nothing else."""
    floor = Floor(recorded_people())
    viewers = {login: Viewer(floor, actor(login)) for login in AGENTS.values()}
    inside: dict[str, set[str]] = {login: set() for login in viewers}

    def watch(fact: Fact) -> None:
        if not isinstance(fact, CallFact):
            return
        for login, viewer in viewers.items():
            seen = bool(viewer.seen) and viewer.seen[-1] is fact
            concerned = login in parties(fact)
            if concerned:
                inside[login].add(fact.call)
            if seen:
                mine = fact.call in inside[login] or login in floor._agents_in(fact.call)
                assert mine, f"{login} saw {fact.TYPE} of somebody else's call"
            elif concerned:
                raise AssertionError(f"{login} did not see {fact.TYPE}")

    floor.bus.carry(lambda envelope: watch(envelope.fact))
    floor.feed(records(trace))


def test_ring_all_is_withdrawn_from_those_who_did_not_answer() -> None:
    people = [*recorded_people(), person("amy", main="PJSIP/1101"), person("bob", main="PJSIP/1102")]
    floor = Floor(people)
    amy, bob = Viewer(floor, actor("amy")), Viewer(floor, actor("bob"))
    last: dict[str, list[str]] = {"amy": [], "bob": []}
    most = {"amy": 0, "bob": 0}
    for record in records("40"):
        floor.feed([record])
        for viewer in (amy, bob):
            most[viewer.who.login] = max(most[viewer.who.login], len(viewer.picture.calls))
    for viewer in (amy, bob):
        last[viewer.who.login] = [f.TYPE for f in viewer.seen if isinstance(f, CallFact)]
        assert viewer.picture.calls == {}
    assert most == {"amy": 1, "bob": 1}
    winner, other = (
        (amy, bob) if "call.held" in last["amy"] or len(last["amy"]) > len(last["bob"]) else (bob, amy)
    )
    names = last[other.who.login]
    assert "call.diverted" in names
    after_withdrawal = names[names.index("call.diverted") + 1 :]
    assert set(after_withdrawal) <= {"call.cleared", "call.offered", "call.delivered", "call.diverted"}
    assert "call.established" in last[winner.who.login]


def test_supervisors_see_the_calls_of_their_teams_to_the_end() -> None:
    """A call of the red queue is answered by red and transferred to blue: red goes on seeing it, blue from then on."""
    floor = Floor(recorded_people())
    ruth, boris = Viewer(floor, RUTH), Viewer(floor, BORIS)
    floor.feed(records("08"))
    red = [f for f in ruth.seen if isinstance(f, CallFact)]
    blue = [f for f in boris.seen if isinstance(f, CallFact)]
    calls = {f.call for f in red}
    for call in calls:
        of_call = [e.fact for e in floor.told if isinstance(e.fact, CallFact) and e.fact.call == call]
        seen = [f for f in red if f.call == call]
        assert of_call[of_call.index(seen[0]) :] == seen  # from the first to the last without a gap
    assert {f.call for f in blue} < calls or not blue


def test_a_supervisor_of_another_team_sees_nothing_of_it() -> None:
    floor = Floor(recorded_people())
    boris = Viewer(floor, BORIS)
    floor.feed(records("02"))
    assert not [f for f in boris.seen if isinstance(f, CallFact)]
    assert not [f for f in boris.seen if getattr(f, "queue", None) == "main:sales"]


def test_queue_facts_carry_nothing_of_the_customer() -> None:
    for kind in fact_classes():
        if kind.TYPE.startswith("queue.") and kind is not QueueMemberJoined:
            fields = {field.name for field in msgspec.structs.fields(kind)}
            assert not fields & (CUSTOMERS_OWN - {"name"}), kind.TYPE
            assert "name" not in fields or kind.TYPE == "queue.added"
        if kind.TYPE.startswith("queue.caller"):
            assert {f.name for f in msgspec.structs.fields(kind)} <= {
                "at", "queue", "call", "position", "waiting", "reason", "waited",
            }  # fmt: skip


def test_a_queues_agents_hear_of_its_waiting_callers_and_others_do_not() -> None:
    floor = Floor(recorded_people())
    colleague, other = Viewer(floor, actor("agent1102")), Viewer(floor, actor("agent2101"))
    floor.feed(records("04"))
    assert {f.TYPE for f in colleague.seen} >= {"queue.caller_joined", "queue.caller_left"}
    assert not [f for f in colleague.seen if isinstance(f, CallFact)]
    assert other.seen == []


def test_states_go_to_the_agent_the_team_and_its_supervisors() -> None:
    floor = Floor(recorded_people())
    viewers = {v.login: Viewer(floor, v) for v in (ROOT, RUTH, BORIS, actor("agent1102"), actor("agent2101"))}
    (change,) = floor.publish(floor.agents.log_on("agent1101", ready=True, by="x", at=NOON))
    assert isinstance(change, AgentStateChanged)
    assert {login for login, viewer in viewers.items() if change in viewer.seen} == {
        "root",
        "ruth",
        "agent1102",
    }
    reach = AgentReachabilityChanged(at=NOON, agent="agent1101", device="x", reachable=False)
    assert floor.audience(reach) == {"admin", "agent:agent1101", f"team:{RED}", f"mates:{RED}"}


def test_a_pop_is_for_the_agent_and_who_supervises_them() -> None:
    floor = Floor(recorded_people())
    pop = PopWithdrawn(at=NOON, agent="agent1101", call="main:1", pop="p1", reason="dismissed")
    topics = floor.audience(pop)
    may = {
        who.login
        for who in (ROOT, RUTH, BORIS, *(actor(login) for login in AGENTS.values()))
        if topics & subscriptions(who, floor.directory)
    }
    assert may == {"root", "ruth", "agent1101"}


def test_news_of_links_and_of_the_journal_are_for_everybody() -> None:
    floor = Floor(recorded_people())
    for fact in (
        PbxStatusChanged(at=NOON, pbx="main", phase="down", code="", why=""),
        PbxResynced(at=NOON, pbx="main", reason="", calls=0, differences={}),
        JournalGap(at=NOON, first=1, last=2, lost=2),
    ):
        assert floor.audience(fact) == {"admin", "all"}


def test_every_fact_is_for_administrators_and_is_never_for_all_by_mistake() -> None:
    floor = Floor(recorded_people())
    for trace in ("02", "06", "23"):
        floor.feed(records(trace))
    assert len({e.fact.TYPE for e in floor.told}) > 10
    for envelope in floor.told:
        assert "admin" in envelope.topics
        assert ("all" in envelope.topics) == envelope.fact.TYPE.startswith(("pbx.", "journal."))


@pytest.mark.parametrize("trace", TRACES)
def test_nothing_is_remembered_of_calls_that_are_over(trace: str) -> None:
    floor = Floor(recorded_people())
    floor.feed(records(trace))
    assert len(floor.audience) == len(floor.calls["main"])
    ended = {e.fact.call for e in floor.told if e.fact.TYPE == "call.cleared"}  # type: ignore[attr-defined]
    gone = ConnectionView(id="main:x", device="d", state="null", since=NOON, agent="agent1101")  # type: ignore[arg-type]
    for call in ended:
        floor.publish([CallDataChanged(at=NOON, call=call, changed={"late": "1"}, by="crm")])
        late = ConnectionCleared(
            at=NOON,
            call=call,
            connection=gone,
            agent="agent1101",
            cause=16,
            reason="normal",
            talked=0,
            held=0,
        )
        assert "admin" in floor.audience(late)
    assert len(floor.audience) == len(floor.calls["main"])


# ------------------------------------------------------------------------------------------ what one listens to


@pytest.mark.parametrize(
    ("who", "topics"),
    [
        (ROOT, {"admin"}),
        (Actor(login="crm", name="CRM", role=Role.INTEGRATION), {"admin"}),
        (
            Actor(login="crm", name="CRM", role=Role.INTEGRATION, teams=frozenset({RED})),
            {"all", "team:red", "mates:red", "queue:main:sales"},
        ),
        (RUTH, {"all", f"agent:{RUTH.login}", "team:red", "mates:red", "queue:main:sales"}),
        (Actor(login="new", name="New", role=Role.SUPERVISOR), {"all", "agent:new"}),
        (Actor(login="agent1101", name="A", role=Role.SUPERVISOR), {"all", "agent:agent1101"}),
        (actor("agent1101"), {"all", "agent:agent1101", "mates:red", "queue:main:sales"}),
        (actor("agent2101"), {"all", "agent:agent2101", "mates:blue", "queue:main:support"}),
        (actor("nobody"), {"all", "agent:nobody"}),
    ],
)
def test_what_somebody_listens_to(who: Actor, topics: set[str]) -> None:
    directory = Directory()
    directory.load(recorded_people(), teams())
    assert subscriptions(who, directory) == topics


def test_an_agent_without_a_team_is_seen_by_administrators_alone() -> None:
    directory = Directory()
    directory.load([person("anna", team=None, main="PJSIP/1")], teams())
    audience = Audience(directory, agents_in=lambda call: ())
    reach = AgentReachabilityChanged(at=NOON, agent="anna", device="PJSIP/1", reachable=False)
    assert audience(reach) == {"admin", "agent:anna"}
    assert BLUE not in audience.teams_of_call("main:1")
