"""Alarms on thresholds: the core by itself, and on a working call centre as supervisors and administrators see them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from cti.alarms import Alarms, Kind, Now, Rule
from cti.facts import AgentState, Fact
from cti.supervision import AlarmCleared, AlarmRaised
from cti.views import AgentView
from tests.call_desk import in_talk, refused
from tests.centre import Centre

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


# ------------------------------------------------------------------------------------------ the core


class Floor:
    """What is measured, set by hand; the clock goes on by a second at each look."""

    def __init__(self, *rules: Rule) -> None:
        self.waits: list[float] | None = []
        self.ready: int | None = 5
        self.level: float | None = None
        self.agents: list[AgentView] = []
        self.down = {"main": 0.0, "other": 0.0}
        self.now = NOON
        ids = itertools.count(1)
        self.alarms = Alarms(new_id=lambda: f"a{next(ids)}")
        self.alarms.load(rules, self.now)
        self.floor = Now(
            waits=lambda queue: self.waits,
            ready=lambda queue: self.ready,
            service_level=lambda queue: self.level,
            agents=lambda team: self.agents,
            pbxs=lambda: self.down,
            down=lambda pbx: self.down[pbx],
        )

    def look(self, times: int = 1) -> list[Fact]:
        """Look once a second; all facts."""
        facts: list[Fact] = []
        for _ in range(times):
            self.now += timedelta(seconds=1)
            facts += self.alarms.look(self.floor, self.now)
        return facts


def rule(kind: Kind, threshold: float, **more: Any) -> Rule:
    """A rule about the sales queue or team."""
    about = {"queue": "main:sales"} if kind in list(Kind)[:4] else {"team": "sales"}
    about = {} if kind is Kind.PBX_DOWN else about
    given = {"id": 1, "version": 1, "name": "Sales", "clear_after": 0.0, **about, **more}
    return Rule(kind=kind, threshold=threshold, **given)


def agent(login: str, state: AgentState, since: datetime = NOON, reason: str | None = None) -> AgentView:
    """An agent of the sales team."""
    return AgentView(
        agent=login,
        name=login,
        team="sales",
        state=state,
        reason=reason,
        since=since,
        by=login,
        why="",
        pending=None,
        until=None,
        call=None,
        device=None,
        reachable=True,
        queues=("main:sales",),
    )


def kinds(facts: list[Fact]) -> list[str]:
    """What happened, in order."""
    return [fact.TYPE for fact in facts]


def test_a_threshold_is_passed_and_left() -> None:
    floor = Floor(rule(Kind.LONGEST_WAIT, 30))
    floor.waits = [30.0, 10.0]
    assert not floor.look()  # at the threshold is not above it
    floor.waits = [31.0, 12.0]
    (raised,) = floor.look()
    assert isinstance(raised, AlarmRaised)
    assert (raised.value, raised.threshold, raised.queue) == (31.0, 30, "main:sales")
    assert not floor.look(5)
    assert [view.id for view in floor.alarms.views()] == ["a1"]
    floor.waits = []
    (cleared,) = floor.look()
    assert isinstance(cleared, AlarmCleared)
    assert (cleared.alarm, cleared.reason, cleared.lasted) == ("a1", "over", 6.0)
    assert floor.alarms.views() == []
    floor.waits = [31.0]
    assert [view.TYPE for view in floor.look()] == ["alarm.raised"]
    assert floor.alarms.views()[0].id == "a2"


def test_what_moves_about_a_threshold_does_not_flap() -> None:
    floor = Floor(rule(Kind.CALLERS_WAITING, 3, raise_after=3, clear_after=5, margin=1))
    for waiting in (4, 3, 4, 4, 3, 4, 4, 2):  # never three seconds in a row
        floor.waits = [1.0] * waiting
        assert not floor.look()
    floor.waits = [1.0] * 4
    assert kinds(floor.look(10)) == ["alarm.raised"]
    for waiting in (3, 4, 3, 2, 2, 4, 2, 2, 2, 2, 3):  # back by the margin for less than five seconds
        floor.waits = [1.0] * waiting
        assert not floor.look()
    floor.waits = [1.0] * 2
    assert kinds(floor.look(10)) == ["alarm.cleared"]


@pytest.mark.parametrize("kind", [Kind.SERVICE_LEVEL, Kind.READY_AGENTS])
def test_too_little_is_bad_too(kind: Kind) -> None:
    floor = Floor(rule(kind, 3, margin=1))

    def become(value: int | None) -> list[str]:
        floor.ready, floor.level = value, value
        return kinds(floor.look())

    assert become(3) == []
    assert become(2) == ["alarm.raised"]
    assert become(3) == []
    assert become(4) == ["alarm.cleared"]


def test_what_is_not_known_changes_nothing() -> None:
    floor = Floor(rule(Kind.LONGEST_WAIT, 30, raise_after=3))
    floor.waits = None
    assert not floor.look(10)
    floor.waits = [31.0]
    assert kinds(floor.look(4)) == ["alarm.raised"]
    floor.waits = None
    assert not floor.look(100)
    assert len(floor.alarms.views()) == 1


def test_agents_are_watched_each_by_themselves() -> None:
    floor = Floor(
        rule(Kind.NOT_READY, 10, reason="Break"), replace(rule(Kind.WRAP_UP, 5), id=2, name="Wrap-up")
    )
    floor.agents = [
        agent("anna", AgentState.NOT_READY, reason="Break"),
        agent("ben", AgentState.NOT_READY, reason="Lunch"),
        agent("cleo", AgentState.WRAP_UP),
        agent("dora", AgentState.NOT_READY, since=NOON + timedelta(seconds=5), reason="Break"),
    ]
    facts = floor.look(12)
    assert [(f.agent, f.rule) for f in facts if isinstance(f, AlarmRaised)] == [("cleo", 2), ("anna", 1)]
    floor.agents[0] = agent("anna", AgentState.UNKNOWN)
    assert not floor.look()
    floor.agents[0] = agent("anna", AgentState.READY)
    (cleared,) = floor.look()
    assert isinstance(cleared, AlarmCleared)
    assert cleared.agent == "anna"
    assert [view.agent for view in floor.alarms.views()] == ["cleo"]
    floor.agents = []  # the team has nobody any more
    assert kinds(floor.look()) == ["alarm.cleared"]


def test_each_pbx_by_itself() -> None:
    floor = Floor(rule(Kind.PBX_DOWN, 10))
    floor.down["other"] = 11.0
    assert [f.pbx for f in floor.look() if isinstance(f, AlarmRaised)] == ["other"]


def test_rules_that_change_clear_their_alarms() -> None:
    first = rule(Kind.CALLERS_WAITING, 0)
    second = replace(first, id=2)
    floor = Floor(first, second)
    floor.waits = [1.0]
    assert kinds(floor.look()) == ["alarm.raised", "alarm.raised"]
    (cleared,) = floor.alarms.load([replace(first, version=2, threshold=1), second], floor.now)
    assert isinstance(cleared, AlarmCleared)
    assert (cleared.rule, cleared.reason) == (1, "rule_changed")
    assert not floor.look()
    assert kinds(floor.alarms.load([replace(second, enabled=False)], floor.now)) == ["alarm.cleared"]
    assert floor.alarms.load([], floor.now) == []


def test_an_alarm_is_acknowledged_once() -> None:
    floor = Floor(rule(Kind.CALLERS_WAITING, 0))
    floor.waits = [1.0]
    floor.look()
    assert kinds(floor.alarms.acknowledge("a1", "sara", floor.now)) == ["alarm.acknowledged"]
    assert floor.alarms.views()[0].acknowledged_by == "sara"
    with pytest.raises(ValueError, match="sara"):
        floor.alarms.acknowledge("a1", "olga", floor.now)
    with pytest.raises(KeyError):
        floor.alarms.acknowledge("a2", "olga", floor.now)


# ------------------------------------------------------------------------------------------ at work


@pytest_asyncio.fixture(loop_scope="module")
async def centre(the_centre: Centre) -> AsyncIterator[Centre]:
    yield the_centre
    await the_centre.quiet()
    for known in (await the_centre.rest("GET", RULES, "olga"))[1]["items"]:
        headers = {"If-Match": f'"{known["version"]}"'}
        await the_centre.rest("DELETE", f"{RULES}/{known['id']}", "olga", headers=headers)


RULES = "/api/v1/alarms/rules"
at_work = pytest.mark.asyncio(loop_scope="module")


async def add(centre: Centre, login: str = "olga", **given: Any) -> tuple[int, Any]:
    """Add a rule; status and answer."""
    return await centre.rest("POST", RULES, login, json={"name": "Alarm", "clear_after": 0, **given})


@at_work
async def test_callers_wait_and_supervisors_are_alarmed(centre: Centre) -> None:
    sara, sven, olga, anna = [await centre.screen(login) for login in ("sara", "sven", "olga", "anna")]
    status, made = await add(
        centre, "sara", name="Sales waits", kind="callers_waiting", queue="main:sales", threshold=0
    )
    assert status == 201, made
    customer = await centre.call("sales")
    raised = (await sara.wait_for("alarm.raised"))["data"]
    assert (raised["name"], raised["queue"], raised["value"]) == ("Sales waits", "main:sales", 1.0)
    await olga.wait_for("alarm.raised", alarm=raised["alarm"])
    (shown,) = (await sara.ask("state.get"))["data"]["alarms"]
    assert (shown["id"], shown["acknowledged_by"]) == (raised["alarm"], None)
    assert [a["id"] for a in (await centre.rest("GET", "/api/v1/alarms", "sara"))[1]["items"]] == [
        shown["id"]
    ]
    assert (await centre.rest("GET", "/api/v1/alarms", "sven"))[1]["items"] == []
    assert (await sven.ask("state.get"))["data"]["alarms"] == []
    assert await refused(sven, "alarm.acknowledge", alarm=shown["id"]) == "no_such_alarm"
    assert await refused(anna, "alarm.acknowledge", alarm=shown["id"]) == "forbidden"
    assert (await sara.ask("alarm.acknowledge", alarm=shown["id"]))["acknowledged_by"] == "sara"
    assert (await olga.wait_for("alarm.acknowledged"))["data"]["by"] == "sara"
    await olga.as_told()
    assert await refused(olga, "alarm.acknowledge", alarm=shown["id"]) == "already_acknowledged"
    await centre.hang_up(customer)
    assert (await sara.wait_for("alarm.cleared", alarm=shown["id"]))["data"]["reason"] == "over"
    assert await refused(sara, "alarm.acknowledge", alarm=shown["id"]) == "no_such_alarm"
    assert not sven.all("alarm.*")
    assert not anna.all("alarm.*")


@at_work
async def test_agents_states_and_a_rule_that_is_removed(centre: Centre) -> None:
    sara, anna = await centre.screen("sara"), await centre.screen("anna")
    await centre.log_on(anna, ready=False)
    _, few = await add(centre, "sara", kind="ready_agents", team="sales", threshold=1)
    assert (await sara.wait_for("alarm.raised", kind="ready_agents"))["data"]["value"] == 0
    await anna.ask("agent.ready")
    await sara.wait_for("alarm.cleared", rule=few["id"])
    await add(centre, "sara", kind="not_ready", team="sales", threshold=0, reason="Break")
    await anna.ask("agent.not_ready", reason="Lunch")
    await sara.wait_for("alarm.raised", rule=few["id"], where=lambda data: data["alarm"] != "")
    assert not sara.all("alarm.raised", kind="not_ready")
    await anna.ask("agent.not_ready", reason="Break")
    raised = await sara.wait_for("alarm.raised", kind="not_ready")
    assert raised["data"]["agent"] == "anna"
    rule = raised["data"]["rule"]
    status, _ = await centre.rest("DELETE", f"{RULES}/{rule}", "sara", headers={"If-Match": '"1"'})
    assert status == 204
    assert (await sara.wait_for("alarm.cleared", rule=rule))["data"]["reason"] == "rule_changed"


@at_work
async def test_service_level_of_today(centre: Centre) -> None:
    await centre.stop_server()
    await centre.start_server(figures={"answer_within": 0})  # no answer is in time
    anna, call, _ = await in_talk(centre)
    await anna.ask("call.hangup", call=call)
    sara = await centre.screen("sara")
    server = centre.server
    assert server is not None
    await server.journal.flushed(server.bus.seq)
    await server.roll_up.catch_up()  # today's level is read once in 15 seconds: with the call in it already
    await add(centre, "sara", kind="service_level", queue="main:sales", threshold=50)
    raised = await sara.wait_for("alarm.raised", kind="service_level", within=40)
    assert raised["data"]["value"] < 50


@at_work
async def test_rules_are_changed_by_who_may_and_by_version(centre: Centre) -> None:
    given = {"name": "Long", "kind": "longest_wait", "queue": "main:support", "threshold": 30}
    assert (await add(centre, "sara", **given))[0] == 403
    assert (await add(centre, "anna", **given))[0] == 403
    status, made = await add(centre, "sven", **given)
    assert status == 201
    one = f"{RULES}/{made['id']}"
    assert (await centre.rest("GET", one, "sara"))[0] == 404
    assert (await centre.rest("GET", RULES, "sara"))[1]["items"] == []
    assert (await centre.rest("GET", one, "sven"))[1] == made
    new = {**given, "threshold": 60}
    assert (await centre.rest("PUT", one, "sven", json=new))[0] == 428
    status, changed = await centre.rest("PUT", one, "sven", json=new, headers={"If-Match": '"1"'})
    assert (status, changed["version"], changed["threshold"]) == (200, 2, 60)
    assert (await centre.rest("PUT", one, "olga", json=new, headers={"If-Match": '"1"'}))[0] == 412
    assert (await centre.rest("DELETE", one, "olga", headers={"If-Match": '"1"'}))[0] == 412
    elsewhere = {**new, "queue": "main:sales"}
    assert (await centre.rest("PUT", one, "sven", json=elsewhere, headers={"If-Match": '"2"'}))[0] == 403
    assert (await centre.rest("DELETE", one, "sara", headers={"If-Match": '"2"'}))[0] == 404
    assert (await centre.rest("DELETE", one, "olga", headers={"If-Match": '"2"'}))[0] == 204
    assert (await centre.rest("GET", one, "olga"))[0] == 404
    assert (await add(centre, "sven", kind="pbx_down", threshold=10))[0] == 403
    rows = await centre.fetch("SELECT action FROM audit WHERE action LIKE 'alarms.%' AND actor = 'sven'")
    assert {row["action"] for row in rows} == {"alarms.rule_added", "alarms.rule_changed"}


@at_work
@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "longest_wait", "threshold": 1},
        {"kind": "longest_wait", "threshold": 1, "team": "sales"},
        {"kind": "wrap_up", "threshold": 1, "queue": "main:sales"},
        {"kind": "ready_agents", "threshold": 1, "queue": "main:sales", "team": "sales"},
        {"kind": "pbx_down", "threshold": 1, "pbx": "elsewhere"},
        {"kind": "wrap_up", "threshold": 1, "team": "nowhere"},
        {"kind": "wrap_up", "threshold": 1, "team": "sales", "reason": "Break"},
        {"kind": "wrap_up", "threshold": -1, "team": "sales"},
        {"kind": "strange", "threshold": 1, "team": "sales"},
        {"kind": "wrap_up", "threshold": 1, "team": "sales", "name": "\x1b[2J"},
    ],
)
async def test_rules_that_cannot_be(centre: Centre, wrong: dict[str, Any]) -> None:
    assert (await add(centre, **wrong))[0] == 422


@at_work
async def test_a_pbx_that_is_gone(centre: Centre) -> None:
    sara = await centre.screen("sara")
    await add(centre, kind="pbx_down", threshold=1)
    await asyncio.to_thread(centre.pbx.kill)
    raised = await sara.wait_for("alarm.raised", kind="pbx_down", within=20)
    assert raised["data"]["pbx"] == "main"
    await asyncio.to_thread(centre.pbx.start)
    await sara.wait_for("alarm.cleared", alarm=raised["data"]["alarm"], within=20)


@at_work
async def test_alarms_outlast_a_restart(centre: Centre) -> None:
    """One that is on stays on with its first time, and acknowledged; nobody is told again. One whose rule has changed
    meanwhile is cleared, one that is over is cleared once that is known."""
    sara = await centre.screen("sara")
    ids = {}
    for name, given in {
        "wait": {"kind": "callers_waiting", "queue": "main:sales", "threshold": 0},
        "few": {"kind": "ready_agents", "team": "sales", "threshold": 1},
        "changed": {"kind": "ready_agents", "queue": "main:sales", "threshold": 1},
    }.items():
        status, made = await add(centre, "sara", name=name, **given)
        assert status == 201, made
        ids[name] = made["id"]
    customer = await centre.call("sales")
    raised = {name: (await sara.wait_for("alarm.raised", rule=id))["data"] for name, id in ids.items()}
    await sara.ask("alarm.acknowledge", alarm=raised["wait"]["alarm"])
    before = {one["id"]: one for one in (await sara.ask("state.get"))["data"]["alarms"]}
    assert len(before) == 3
    await centre.stop_server()
    await centre.fetch("UPDATE alarm_rules SET version = 2 WHERE id = $1 RETURNING id", ids["changed"])
    await centre.start_server()
    seen = await centre.screen("sara", connect=False)
    await seen.connect()
    after = {one["id"]: one for one in (await seen.ask("state.get"))["data"]["alarms"]}
    for name in ("wait", "few"):
        alarm = raised[name]["alarm"]
        assert after[alarm] == before[alarm]
    assert after[raised["wait"]["alarm"]]["acknowledged_by"] == "sara"
    assert await refused(seen, "alarm.acknowledge", alarm=raised["wait"]["alarm"]) == "already_acknowledged"
    assert raised["changed"]["alarm"] not in after
    await centre.hang_up(customer)
    await seen.wait_for("alarm.cleared", alarm=raised["wait"]["alarm"])
    again = [f["data"]["rule"] for f in seen.all("alarm.raised")]
    assert ids["wait"] not in again
    assert ids["few"] not in again
    told = await centre.fetch("SELECT data->>'rule' AS rule, type FROM journal WHERE type LIKE 'alarm.%'")
    assert sum(r["type"] == "alarm.raised" and r["rule"] == str(ids["few"]) for r in told) == 1
    server = centre._server
    await server.alarm_watch.flush()
    assert raised["few"]["alarm"] in {row["id"] for row in await centre.fetch("SELECT id FROM alarms")}
    assert raised["wait"]["alarm"] not in {row["id"] for row in await centre.fetch("SELECT id FROM alarms")}


@at_work
async def test_a_killed_server_forgets_no_alarm_and_a_pbx_stays_gone(centre: Centre) -> None:
    """What was acknowledged a moment ago is there after a crash; a PBX that is still away is not told of anew."""
    olga = await centre.screen("olga")
    _, made = await add(centre, kind="pbx_down", threshold=1)
    await asyncio.to_thread(centre.pbx.kill)
    raised = (await olga.wait_for("alarm.raised", rule=made["id"], within=20))["data"]
    await olga.ask("alarm.acknowledge", alarm=raised["alarm"])
    first = centre._server
    async with asyncio.timeout(10):
        while not await centre.fetch("SELECT id FROM alarms WHERE acknowledged_by = 'olga'"):
            await asyncio.sleep(0.05)
    await centre.stop_server()
    await centre.start_server(synced=False)
    again = await centre.screen("olga", connect=False)
    await again.connect()
    (shown,) = [a for a in (await again.ask("state.get"))["data"]["alarms"] if a["rule"] == made["id"]]
    assert (shown["id"], shown["acknowledged_by"]) == (raised["alarm"], "olga")
    await asyncio.sleep(2.5)  # several looks
    assert not again.all("alarm.*", rule=made["id"])
    await asyncio.to_thread(centre.pbx.start)
    await again.wait_for("alarm.cleared", alarm=raised["alarm"], within=20)
    assert first is not centre._server
