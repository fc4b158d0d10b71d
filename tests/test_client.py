"""The client: old snapshot + facts = new snapshot, and a line that breaks loses and doubles nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from cti.bus import serialise
from cti.client import Client, CommandFailed, Picture, Refused
from cti.hub import pack
from cti.people import Actor
from tests.recorded import FOLDER, model, records
from tests.web_stage import ANNA, Stage, Ticket, all_know, eventually

TRACES = sorted(path.stem for path in (FOLDER / "22").glob("*.txt"))


def plain(value: Any) -> Any:
    return msgspec.json.decode(pack(value))


TOLD_LATE = {"17_answer_by_ami": {"queued_since"}, "18_conference_three": {"conference", "answered"}}
"""What the model changes in these traces without a fact of its own; the next fact with a view brings it."""


def by_id(calls: list[Any], but: set[str]) -> dict[str, Any]:
    """Calls by id, their connections by id. A party's number and name are those of the newest fact with a view."""
    return {
        call["id"]: {name: call[name] for name in call if name not in but}
        | {
            "connections": {
                one["id"]: {name: one[name] for name in one if name not in ("number", "name")}
                for one in call["connections"]
            }
        }
        for call in calls
    }


@pytest.mark.parametrize("trace", TRACES)
def test_folding_the_facts_of_a_trace_gives_the_calls_of_the_model_at_every_step(trace: str) -> None:
    calls, picture, seq = model(), Picture(me="root"), 0
    for record in records(trace):
        for fact in calls.apply(record):
            seq += 1
            picture.fold(msgspec.json.decode(serialise(seq, fact)[0]))
        but = TOLD_LATE.get(trace, set())
        assert by_id(list(picture.calls.values()), but) == by_id(plain(calls.views()), but), f"after {record}"


@pytest.mark.parametrize("trace", TRACES)
def test_an_agents_picture_holds_own_calls_only_and_none_for_ever(trace: str) -> None:
    calls, seq = model(), 0
    pictures = {
        login: Picture(me=login, mine_only=True) for login in ("agent1101", "agent1102", "carol", "alice")
    }
    for record in records(trace):
        for fact in calls.apply(record):
            seq += 1
            touched = pack(fact).decode()
            for login, picture in pictures.items():
                if login in touched or login in calls.agents_in(getattr(fact, "call", "")):
                    picture.fold(msgspec.json.decode(serialise(seq, fact)[0]))
        for login, picture in pictures.items():
            mine = {view.id for view in calls.views() if any(c.agent == login for c in view.connections)}
            assert set(picture.calls) == mine, f"{login} after {record}"


def test_queues_fold() -> None:
    picture = Picture()
    at = "2026-11-21T10:00:00Z"

    def fact(kind: str, **data: Any) -> None:
        picture.fold({"seq": 1, "type": f"queue.{kind}", "at": at, "data": {"queue": "main:sales", **data}})

    fact("added", pbx="main", name="sales")
    fact("caller_joined", call="c1", position=1, waiting=1)
    fact("caller_joined", call="c2", position=2, waiting=2)
    fact("caller_joined", call="vip", position=1, waiting=3)
    fact("caller_left", call="c1", reason="answered", waited=3.0, waiting=2)
    member = {
        "interface": "PJSIP/1", "name": "Anna", "agent": "anna", "penalty": 0, "paused": False,
        "pause_reason": None, "status": "not_in_use",
    }  # fmt: skip
    fact("member_joined", **member)
    fact("member_paused", interface="PJSIP/1", agent="anna", paused=True, reason="Lunch")
    fact("member_status_changed", interface="PJSIP/1", agent="anna", status="in_use", penalty=2)
    queue = picture.queues["main:sales"]
    assert [(one["call"], one["position"]) for one in queue["waiting"]] == [("vip", 1), ("c2", 2)]
    paused = {"paused": True, "pause_reason": "Lunch", "status": "in_use", "penalty": 2}
    assert queue["members"] == [member | paused]
    fact("member_left", interface="PJSIP/1", agent="anna")
    assert queue["members"] == []
    fact("removed")
    assert picture.queues == {}
    fact("caller_joined", call="c9", position=1, waiting=1)
    assert picture.queues == {}


class Text(BaseModel):
    text: str


@asynccontextmanager
async def following(client: Client) -> AsyncIterator[list[dict[str, Any]]]:
    """Runs a client; the list grows with its frames."""
    seen: list[dict[str, Any]] = []

    async def follow() -> None:
        async for frame in client.follow():
            seen.append(frame)

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage().serve() as stage:
        yield stage


async def anna() -> str:
    return "anna-token"


async def test_a_broken_line_is_resumed_and_every_fact_comes_once(stage: Stage) -> None:
    client = Client(stage.url + "/ws", anna)
    async with following(client) as seen:
        await eventually(lambda: client.connected and client.snapshots)
        for round in range(3):
            stage.bus.publish([all_know(f"live {round}")])
            await eventually(lambda: seen[-1].get("seq") == stage.bus.seq)
            next(iter(stage.hub)).wire.abort()
            stage.bus.publish([all_know(f"lost {round}"), all_know(f"lost too {round}")])
            await eventually(lambda r=round: client.resumes == r + 1 and seen[-1].get("seq") == stage.bus.seq)
        facts = [frame["seq"] for frame in seen if "data" in frame and frame["type"] == "pbx.status_changed"]
        assert facts == list(range(101, 110))
        assert client.snapshots == 1
        assert client.picture.pbxs["main"]["why"] == "lost too 2"


async def test_a_quiet_client_moves_its_mark_forward_by_ping(stage: Stage) -> None:
    client = Client(stage.url + "/ws", anna, heartbeat=0.05)
    stage.topics["anna"] = frozenset({"agent:anna"})
    async with following(client) as seen:
        await eventually(lambda: client.snapshots)
        stage.bus.publish([all_know() for _ in range(50)])
        await eventually(lambda: seen[-1]["type"] == "result" and seen[-1]["data"]["seq"] == 150)
        next(iter(stage.hub)).wire.abort()
        await eventually(lambda: client.resumes == 1)
        assert stage.resumed_after == [150]


async def test_a_command_in_a_breaking_line_is_carried_out_once_and_answered(stage: Stage) -> None:
    done: list[str] = []
    gate = asyncio.Event()

    async def note(actor: Actor, args: Text) -> dict[str, str]:
        done.append(args.text)
        await gate.wait()
        return {"noted": args.text}

    stage.commands.add("call.note", Text, note, summary="Notes.")
    client = Client(stage.url + "/ws", anna)
    async with following(client):
        await eventually(lambda: client.connected)
        asked = asyncio.create_task(client.ask("call.note", text="rang twice"))
        await eventually(lambda: done)
        next(iter(stage.hub)).wire.abort()
        await eventually(lambda: client.resumes == 1)
        gate.set()
        assert await asked == {"noted": "rang twice"}
        assert done == ["rang twice"]
        with pytest.raises(CommandFailed) as failed:
            await client.ask("call.nonsense")
        assert failed.value.code == "unknown_op"


async def test_who_is_not_wanted_stops_coming_back(stage: Stage) -> None:
    async def wrong() -> str:
        return "wrong"

    with pytest.raises(Refused) as refused:
        async for _ in Client(stage.url + "/ws", wrong).follow():
            pass
    assert refused.value.code == 4401
    async with following(Client(stage.url + "/ws", anna)):
        await eventually(lambda: len(stage.hub))
        older = Client(stage.url + "/ws", anna, phone=True)
        task = asyncio.create_task(_exhaust(older))
        await eventually(lambda: older.connected)
        async with stage.client(phone=True):
            with pytest.raises(Refused) as replaced:
                await asyncio.wait_for(task, 5)
            assert replaced.value.code == 4409


async def test_an_expired_token_is_renewed_by_itself(stage: Stage) -> None:
    given = iter(["first", "second", "third"])

    async def token() -> str:
        name = next(given)
        stage.tokens[name] = Ticket(stage.tokens["anna-token"].actor)
        return name

    client = Client(stage.url + "/ws", token)
    async with following(client):
        await eventually(lambda: client.connected)
        stage.hub.close("anna")
        await eventually(lambda: client.resumes == 1)


async def test_facts_go_on_while_a_new_token_is_not_to_be_had(stage: Stage) -> None:
    gate, asked = asyncio.Event(), 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked > 1:
            await gate.wait()
        lasts = timedelta(seconds=60 if asked == 1 else 3600)  # 90 s before the end the server says so
        stage.tokens[f"token {asked}"] = Ticket(ANNA, datetime.now(UTC) + lasts)
        return f"token {asked}"

    client = Client(stage.url + "/ws", token)
    async with following(client) as seen:
        await eventually(lambda: asked == 2)
        stage.bus.publish([all_know("meanwhile")])
        await eventually(lambda: seen[-1].get("seq") == stage.bus.seq)
        gate.set()
        (session,) = stage.hub
        await eventually(lambda: session.grant is stage.tokens.get("token 2"))
        assert client.resumes == 0


async def _exhaust(client: Client) -> None:
    async for _ in client.follow():
        pass
