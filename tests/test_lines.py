"""Open lines without Asterisk: records in, facts out; and what they mean for the agent."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cti.agents import Agents, WrapUp
from cti.ami_events import ChannelAppeared, ChannelGone, ChannelRow, ChannelState, ChannelStateChanged
from cti.calls import Calls
from cti.facts import AgentLineChanged, AgentState, Fact, LineState, PbxResynced
from cti.lines import line_id, phone_of
from cti.people import Agent, Directory

LINE = "cti-line-1101."
AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


def calls() -> Calls:
    directory = people()
    return Calls(
        "main",
        agent_at=lambda device: directory.agent_at("main", device),
        is_trunk=lambda device: device == "PJSIP/trunk",
        inbound_contexts=("from-trunk",),
    )


def people(*, off_hook: bool = True) -> Directory:
    directory = Directory()
    directory.load(
        [Agent(login="anna", name="Anna", interfaces={"main": "PJSIP/1101"}, off_hook=off_hook)], []
    )
    return directory


def came(state: ChannelState = ChannelState.DOWN, channel: str = "PJSIP/1101-00000001") -> ChannelAppeared:
    return ChannelAppeared(1.0, LINE, LINE, channel, state, None, None, "1101", "cti-line-open", {})


def row(
    state: ChannelState,
    *,
    uniqueid: str = LINE,
    linkedid: str = LINE,
    channel: str = "PJSIP/1101-00000001",
    bridge: str | None = None,
) -> ChannelRow:
    return ChannelRow(
        uniqueid, linkedid, channel, state, None, None, "1101", "cti-line-open", "Wait", bridge, 5, {}, "20"
    )


def told(facts: list[Fact]) -> list[tuple[str, str]]:
    assert all(isinstance(fact, AgentLineChanged) and fact.agent == "anna" for fact in facts)
    return [(fact.line, fact.reason) for fact in facts if isinstance(fact, AgentLineChanged)]


@pytest.mark.parametrize(
    ("device", "id"),
    [
        ("PJSIP/1101", "cti-line-1101."),
        ("SIP/anna_b", "cti-line-anna_b."),
        ("PJSIP/1101/sip:1101@10.0.0.1", "cti-line-1101."),
        ("Local/1101@agents/n", None),
        ("PJSIP/a,b", None),
        ("PJSIP/${EVIL}", None),
        ("PJSIP/1", None),
        ("PJSIP/", None),
    ],
)
def test_the_id_of_a_line(device: str, id: str | None) -> None:
    assert line_id(device) == id
    assert (phone_of(device) is None) is (id is None)


def test_a_line_is_no_call() -> None:
    model = calls()
    assert told(model.apply(came())) == [("calling", "called")]
    assert told(model.apply(ChannelStateChanged(2.0, LINE, LINE, ChannelState.RINGING))) == [
        ("calling", "rings")
    ]
    assert model.apply(ChannelStateChanged(2.1, LINE, LINE, ChannelState.RINGING)) == []
    assert model.lines.device("anna") is None
    assert told(model.apply(ChannelStateChanged(3.0, LINE, LINE, ChannelState.UP))) == [("open", "opened")]
    assert model.lines.device("anna") == "Local/1101@cti-line"
    assert model.lines.is_open("1101")
    assert told(model.apply(ChannelGone(9.0, LINE, LINE, 16))) == [("closed", "hung_up")]
    assert model.apply(ChannelGone(9.1, LINE, LINE, 16)) == []
    assert (len(model), len(model.lines), model.unknown) == (0, 0, 0)
    assert not any(model.sizes().values())


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (17, "busy"),
        (19, "no_answer"),
        (20, "unreachable"),
        (21, "rejected"),
        (34, "congestion"),
        (0, "no_answer"),
    ],
)
def test_a_phone_that_does_not_open_it(cause: int, reason: str) -> None:
    model = calls()
    model.apply(came())
    assert told(model.apply(ChannelGone(2.0, LINE, LINE, cause))) == [("closed", reason)]


def test_one_that_is_ended_says_so() -> None:
    model = calls()
    model.apply(came(ChannelState.UP))
    model.lines.ending("anna", "closed")
    assert told(model.apply(ChannelGone(2.0, LINE, LINE, 16))) == [("closed", "closed")]


def test_a_strangers_line_is_passed_over() -> None:
    model = calls()
    assert model.apply(came(channel="PJSIP/9999-00000001")) == []
    assert model.apply(ChannelGone(2.0, LINE, LINE, 16)) == []
    assert (len(model), model.unknown) == (0, 0)


def test_it_is_found_and_missed_when_the_pbx_is_asked() -> None:
    model = calls()
    facts, wrong = model.rebuild([row(ChannelState.UP)], [], [], 10.0)
    assert (told(facts), wrong["lines"]) == ([("open", "opened")], 1)
    assert model.rebuild([row(ChannelState.UP)], [], [], 11.0)[0] == []
    assert model.rebuild([], [], [], 12.0, frozenset({LINE}))[0] == []
    facts, wrong = model.rebuild([], [], [], 13.0)
    assert (told(facts), wrong["lines"]) == ([("closed", "lost")], 1)
    model.apply(came())
    assert told(model.rebuild([row(ChannelState.UP)], [], [], 14.0)[0]) == [("open", "opened")]


def test_a_line_with_the_linkedid_of_a_call_is_still_no_call() -> None:
    """Three channels met in a bridge, and Asterisk gave all of them the Linkedid of the customer."""
    model = calls()
    model.apply(came(ChannelState.UP))
    facts, wrong = model.rebuild([row(ChannelState.UP, linkedid="at-1")], [], [], 10.0)
    assert (facts, sum(wrong.values()), len(model)) == ([], 0, 0)


@pytest.mark.parametrize("id", ["cti-spy-1", "cti-sound-1"])
def test_channels_that_serve_the_server_are_no_calls(id: str) -> None:
    """Neither as they come nor as a comparison finds them: by which supervisors listen, by which a sound is looked for."""
    model = calls()
    channel = "Local/s@somewhere-00000001;1"
    asked = ChannelAppeared(1.0, id, id, channel, ChannelState.DOWN, None, None, "s", "somewhere", {})
    assert model.apply(asked) == []
    assert (
        model.rebuild([row(ChannelState.UP, uniqueid=id, linkedid=id, channel=channel)], [], [], 2.0)[0] == []
    )
    assert len(model) == 0


def test_channels_with_the_linkedid_of_a_line_are_in_their_call() -> None:
    """Or that of the line: the customer is found at a rebuild all the same, and who is called then joins them."""
    model = calls()
    up = ChannelState.UP
    rows = [
        row(up, bridge="b"),
        row(up, uniqueid="1.1", channel="PJSIP/trunk-00000002", bridge="a"),
        row(up, uniqueid="1.2", channel="Local/1101@cti-line-00000003;1", bridge="a"),
        row(up, uniqueid="1.3", channel="Local/1101@cti-line-00000003;2", bridge="b"),
    ]
    model.rebuild(rows, [], [], 10.0)
    (call,) = model.views()
    assert {connection.agent for connection in call.connections} == {None, "anna"}
    asked = ChannelAppeared(
        11.0, "1.4", LINE, "PJSIP/1102-00000004", ChannelState.DOWN, None, None, "1102", "", {}
    )
    model.apply(asked)
    (call,) = model.views()
    assert (
        model.rebuild([*rows, row(ChannelState.DOWN, uniqueid="1.4", channel=asked.channel)], [], [], 12.0)[0]
        == []
    )


# ------------------------------------------------------------------------------------------ the agent


def line(state: LineState, reason: str = "", pbx: str = "main") -> AgentLineChanged:
    return AgentLineChanged(at=AT, agent="anna", pbx=pbx, device="PJSIP/1101", line=state, reason=reason)


def anna(*, ready: bool = True, reason: str | None = None) -> Agents:
    agents = Agents(people(), wrap_up=WrapUp(), reasons=[])
    agents.hear(PbxResynced(at=AT, pbx="main", reason="connected", calls=0, differences={}))
    agents.log_on("anna", ready=ready, by="anna", at=AT)
    if reason is not None:
        agents.make_not_ready("anna", reason, by="anna", at=AT)
    return agents


def shown(agents: Agents) -> tuple[AgentState, str | None, str | None, bool]:
    view = agents.view("anna", AT)
    assert view is not None
    return view.state, view.reason, view.pending, view.reachable


def test_ready_waits_for_the_line_and_ends_with_it() -> None:
    agents = anna()
    assert shown(agents) == (AgentState.NOT_READY, "Line closed", "ready", False)
    agents.hear(line(LineState.CALLING, "called"))
    assert shown(agents) == (AgentState.NOT_READY, "Line closed", "ready", False)
    agents.hear(line(LineState.OPEN, "opened"))
    assert shown(agents) == (AgentState.READY, None, None, True)
    agents.hear(line(LineState.CLOSED, "hung_up"))
    assert shown(agents) == (AgentState.NOT_READY, "Line closed", None, False)
    agents.hear(line(LineState.OPEN, "opened"))
    assert shown(agents) == (AgentState.NOT_READY, "Line closed", None, True)  # until somebody asks again


def test_a_break_stays_a_break() -> None:
    agents = anna(reason="Lunch")
    agents.hear(line(LineState.OPEN, "opened"))
    agents.hear(line(LineState.CLOSED, "hung_up"))
    assert shown(agents) == (AgentState.NOT_READY, "Lunch", None, False)


def test_of_two_lines_one_is_enough() -> None:
    agents = anna()
    agents.hear(line(LineState.OPEN, "opened"))
    agents.hear(line(LineState.OPEN, "opened", pbx="other"))
    agents.hear(line(LineState.CLOSED, "hung_up"))
    assert shown(agents)[0] is AgentState.READY
    agents.hear(line(LineState.CLOSED, "hung_up", pbx="other"))
    assert shown(agents) == (AgentState.NOT_READY, "Line closed", None, False)


def test_a_line_found_closed_after_a_restart() -> None:
    before = anna()
    before.hear(line(LineState.OPEN, "opened"))
    kept = before.session("anna", AT)
    after = Agents(people(), wrap_up=WrapUp(), reasons=[])
    after.restore(kept, AT)
    after.hear(PbxResynced(at=AT, pbx="main", reason="connected", calls=0, differences={}))
    assert shown(after) == (AgentState.NOT_READY, "Line closed", None, False)
    again = Agents(people(), wrap_up=WrapUp(), reasons=[])
    again.restore(kept, AT)
    again.hear(line(LineState.OPEN, "opened"))
    again.hear(PbxResynced(at=AT, pbx="main", reason="connected", calls=0, differences={}))
    assert shown(again) == (AgentState.READY, None, None, True)


def test_on_hook_agents_are_as_they_were() -> None:
    agents = Agents(people(off_hook=False), wrap_up=WrapUp(), reasons=[])
    agents.hear(PbxResynced(at=AT, pbx="main", reason="connected", calls=0, differences={}))
    agents.log_on("anna", ready=True, by="anna", at=AT)
    assert shown(agents) == (AgentState.READY, None, None, True)
    agents.hear(line(LineState.CLOSED, "hung_up"))
    assert shown(agents) == (AgentState.READY, None, None, True)
