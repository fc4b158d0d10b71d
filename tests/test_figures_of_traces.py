"""What figures need of each call's facts: the end of an agent's part and a transfer say which queue the call came from."""

from datetime import timedelta

import pytest

from cti.ami_events import ChannelGone, channel_rows
from cti.facts import (
    CallCleared,
    CallEstablished,
    CallTransferred,
    ConnectionCleared,
    QueueCallerJoined,
    QueueCallerLeft,
)
from cti.queues import Queues
from tests.recorded import AGENTS, FOLDER, messages, model, told

DESKS = {**AGENTS, **{f"PJSIP/{n}": f"agent{n}" for n in (1101, 1102, 1202)}}
TRACES = sorted(path.stem for path in (FOLDER / "22").glob("*.txt"))


@pytest.mark.parametrize("name", TRACES)
def test_the_end_of_a_part_says_the_queue_it_was_answered_from(name: str) -> None:
    answered: dict[str, str | None] = {}
    for fact in told(name, agents=DESKS):
        match fact:
            case CallEstablished() if fact.queue is not None or fact.connection.id not in answered:
                answered[fact.connection.id] = fact.queue
            case ConnectionCleared():
                assert fact.queue == answered.get(fact.connection.id)
            case CallTransferred() if fact.by is not None:
                assert fact.queue == answered.get(fact.by.id)


@pytest.mark.parametrize(
    ("name", "transfers"),
    [
        ("08_blind_transfer_action", [("agent1101", "main:sales")]),
        (
            "09_blind_transfer_redirect",
            [("agent1101", "main:sales")],
        ),  # told after the agent's part has ended
        ("44_attended_transfer_by_phone", [("agent1101", "main:sales")]),
        ("45_blind_transfer_by_phone", [("agent1101", "main:sales")]),
        ("03_inbound_answered_caller_hangup", []),
    ],
)
def test_a_transfer_says_the_queue(name: str, transfers: list[tuple[str, str]]) -> None:
    found = [fact for fact in told(name, agents=DESKS) if isinstance(fact, CallTransferred)]
    assert [(f.by.agent, f.queue) for f in found if f.by is not None and f.by.agent] == transfers


@pytest.mark.parametrize("name", TRACES)
def test_every_visit_to_a_queue_ends_once(name: str) -> None:
    """Offered is counted when a visit ends: every visit of a call that is over has ended, and its wait leads back to when it
    began."""
    queues = Queues("main", agent_at=lambda device: None)
    facts = told(name)
    over = {fact.call for fact in facts if isinstance(fact, CallCleared)}
    heard = [of for fact in facts for of in queues.hear(fact)]
    joined = [(f.queue, f.call, f.at) for f in heard if isinstance(f, QueueCallerJoined) and f.call in over]
    ended = [
        (f.queue, f.call, f.at - timedelta(microseconds=round(f.waited * 1e6)))
        for f in heard
        if isinstance(f, QueueCallerLeft) and f.call in over
    ]
    assert sorted(joined) == sorted(ended)


def test_after_a_restart_in_mid_call_the_end_of_the_part_still_says_the_queue() -> None:
    rows = [raw for raw in messages("25") if b"\r\nActionID: " in raw]
    channels = channel_rows(rows)
    calls = model()
    now = 1_795_289_400.0
    calls.rebuild(channels, [], [], now)
    facts = [
        fact
        for row in channels
        for fact in calls.apply(ChannelGone(now + 30, row.uniqueid, row.linkedid, 16))
        if isinstance(fact, ConnectionCleared)
    ]
    assert {(fact.agent, fact.queue) for fact in facts} == {("agent1101", "main:sales"), (None, None)}
