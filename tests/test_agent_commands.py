"""Commands of agents and their supervisors: what they answer, whom they are for, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from cti.agent_commands import add_agent_commands
from cti.commands import CommandError, Commands
from cti.facts import AgentStateChanged
from cti.people import Actor, Role
from cti.views import AgentView
from tests.floor import BORIS, RED, ROOT, RUTH, Floor, actor, recorded_people
from tests.recorded import records

ANNA = actor("agent1101")
CRM = Actor(login="crm", name="CRM", role=Role.INTEGRATION, via="api_key")
RED_CRM = Actor(login="crm", name="CRM", role=Role.INTEGRATION, teams=frozenset({RED}), via="api_key")
NEW = Actor(login="new", name="New", role=Role.SUPERVISOR)


class Desk:
    """The commands on a floor of people."""

    def __init__(self) -> None:
        self.floor = Floor(recorded_people())
        self.audited: list[tuple[str, str, str]] = []
        self.commands = Commands(audit=self.audit)
        add_agent_commands(
            self.commands,
            agents=self.floor.agents,
            directory=self.floor.directory,
            publish=self.floor.bus.publish,
        )

    def audit(self, who: Actor, op: str, args: Mapping[str, Any], told: str) -> None:
        self.audited.append((who.login, op, told))

    async def do(self, who: Actor, op: str, **args: Any) -> AgentView:
        view = await self.commands.execute(who, f"agent.{op}", args)
        assert isinstance(view, AgentView)
        return view

    async def refused(self, who: Actor, op: str, **args: Any) -> CommandError:
        before = len(self.floor.told)
        with pytest.raises(CommandError) as caught:
            await self.do(who, op, **args)
        assert len(self.floor.told) == before  # nothing has changed
        return caught.value

    def changes(self, login: str = "agent1101") -> list[AgentStateChanged]:
        return self.floor.changes(login)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_working_day(desk: Desk) -> None:
    told = [
        await desk.do(ANNA, "log_on"),
        await desk.do(ANNA, "ready"),
        await desk.do(ANNA, "not_ready", reason="Lunch"),
        await desk.do(ANNA, "log_on"),  # another tab: nothing changes
        await desk.do(ANNA, "ready"),
        await desk.do(ANNA, "log_off"),
    ]
    assert [(view.state, view.reason) for view in told] == [
        ("not_ready", None), ("ready", None), ("not_ready", "Lunch"), ("not_ready", "Lunch"), ("ready", None),
        ("logged_off", None),
    ]  # fmt: skip
    assert [change.by for change in desk.changes()] == ["agent1101"] * 5
    assert desk.audited[0] == ("agent1101", "agent.log_on", "ok")


async def test_what_is_asked_for_in_a_call_is_answered_as_pending(desk: Desk) -> None:
    await desk.do(ANNA, "log_on", ready=True)
    talk = [type(r).__name__ for r in records("02")].index("BridgeEntered") + 2
    desk.floor.feed(records("02")[:talk])
    view = await desk.do(ANNA, "not_ready", reason="Break")
    assert (view.state, view.pending) == ("busy", "not_ready: Break")
    view = await desk.do(ANNA, "log_off")
    assert (view.state, view.pending) == ("busy", "logged_off")
    assert (await desk.do(ANNA, "ready")).pending is None
    desk.floor.agents.tick(datetime.now(UTC))
    desk.floor.feed(records("02")[talk:])
    view = await desk.do(ANNA, "extend_wrap_up", seconds=60)
    assert view.state == "wrap_up"
    assert view.until is not None
    assert 85 < (view.until - view.since).total_seconds() < 95
    assert (await desk.do(ANNA, "finish_wrap_up")).state == "ready"


@pytest.mark.parametrize("who", [RUTH, ROOT, CRM, RED_CRM])
async def test_who_may_act_for_an_agent(desk: Desk, who: Actor) -> None:
    view = await desk.do(who, "log_on", agent="agent1101", ready=True)
    assert (view.agent, view.state, view.by) == ("agent1101", "ready", who.login)


@pytest.mark.parametrize(
    ("who", "op", "args", "code", "says"),
    [
        (actor("agent1102"), "log_off", {"agent": "agent1101"}, "not_your_agent", "your own state only"),
        (BORIS, "log_on", {"agent": "agent1101"}, "not_your_agent", "agent1101 is not in a team of yours"),
        (NEW, "log_on", {"agent": "agent1101"}, "not_your_agent", "not in a team of yours"),
        (RUTH, "log_on", {"agent": "ghost"}, "not_your_agent", "ghost is not in a team of yours"),
        (ROOT, "log_on", {"agent": "ghost"}, "not_an_agent", "ghost is not an agent: no phone is assigned"),
        (RED_CRM, "log_on", {"agent": "agent2101"}, "not_your_agent", "agent2101 is not in a team of yours"),
        (RUTH, "log_on", {}, "not_an_agent", "ruth is not an agent"),
        (ANNA, "ready", {}, "not_logged_on", "log on first"),
        (ANNA, "not_ready", {}, "bad_args", "reason: missing"),
        (ANNA, "not_ready", {"reason": ""}, "bad_args", "must not be empty"),
        (ANNA, "not_ready", {"reason": "x" * 65}, "bad_args", "at most 64 characters"),
        (ANNA, "log_on", {"ready": "perhaps"}, "bad_args", "ready: Input should be a valid boolean"),
        (ANNA, "log_on", {"queue": "sales"}, "bad_args", "queue: there is no such field"),
        (ANNA, "extend_wrap_up", {"seconds": -1}, "bad_args", "greater than 0"),
        (ANNA, "extend_wrap_up", {"seconds": 601}, "bad_args", "less than or equal to 600"),
        (ANNA, "extend_wrap_up", {"seconds": float("nan")}, "bad_args", "seconds"),
        (ANNA, "log_on", {"agent": ""}, "bad_args", "agent"),
    ],
)
async def test_refusals_say_what_is_wrong(
    desk: Desk, who: Actor, op: str, args: dict[str, Any], code: str, says: str
) -> None:
    error = await desk.refused(who, op, **args)
    assert error.code == code
    assert says in error.message


async def test_refusals_of_the_moment(desk: Desk) -> None:
    await desk.do(ANNA, "log_on")
    unknown = await desk.refused(ANNA, "not_ready", reason="Fishing")
    assert (unknown.code, "use one of: Break, Lunch" in unknown.message) == ("unknown_reason", True)
    for op, args in (("finish_wrap_up", {}), ("extend_wrap_up", {"seconds": 5})):
        assert (await desk.refused(ANNA, op, **args)).code == "not_in_wrap_up"


async def test_somebody_removed_while_logged_on_is_told_so(desk: Desk) -> None:
    await desk.do(ANNA, "log_on", ready=True)
    desk.floor.directory.load([p for p in recorded_people() if p.login != "agent1101"], ())
    for op in ("ready", "log_on", "log_off"):
        assert (await desk.refused(ANNA, op)).code == "not_an_agent"
