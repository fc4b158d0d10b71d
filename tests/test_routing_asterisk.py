"""Routing on a real Asterisk: a call comes in over SIP, is asked about, and lands where the rules say; with the server
frozen or gone, where the dialplan says.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.call_desk import put_rules
from tests.centre import ADMIN, Centre

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER = "+447700900999"
SALES = {"id": "sales", "numbers": ["5550100"], "queue": "sales"}
BACK = {"id": "back", "then": {"callback": {"within": 600, "countries": ["GB"]}}}
DIRECT = {"anna": 1, "ben": 2, "cleo": 3}


async def rules(centre: Centre, *list: dict[str, Any], **more: Any) -> None:
    """Make these the rules; they are active when this returns."""
    status, told = await put_rules(centre, {"entries": [SALES], "rules": list, **more})
    assert status == 200, told
    await asked(centre)


async def asked(centre: Centre) -> None:
    """Wait until the dialplan asks."""
    deadline = time.monotonic() + 10
    while (await centre.admin("Getvar", Variable="CTI_ROUTING"))["Value"] != "on":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def waiting(centre: Centre, count: int = 1, within: float = 15.0) -> list[dict[str, str]]:
    """Wait until so many callers are in queues of Asterisk: their rows of QueueStatus."""
    deadline = time.monotonic() + within
    while True:
        rows = [row for row in await centre.rows("QueueStatus") if row.get("Event") == "QueueEntry"]
        if len(rows) == count:
            return rows
        assert time.monotonic() < deadline, rows
        await asyncio.sleep(0.03)


async def customer(centre: Centre, where: str) -> dict[str, Any]:
    """A sample customer whose first number is theirs alone."""
    rows = await centre.fetch(
        f"""SELECT min(p.e164) AS e164, a.id, a.class, a.language FROM phones p JOIN accounts a ON a.id = p.account_id
            WHERE (SELECT count(*) FROM phones q WHERE q.e164 = p.e164) = 1 AND {where}
            GROUP BY a.id ORDER BY a.id LIMIT 1"""
    )
    return rows[0]


# ------------------------------------------------------------------------------------------ where a call lands


async def test_the_customer_decides_queue_and_priority(centre: Centre) -> None:
    vip = await customer(centre, "a.class = 'A'")
    await rules(
        centre,
        {"id": "vip", "when": {"customer": {"class": ["A"]}}, "then": {"queue": "support", "priority": 7}},
    )
    sven = await centre.screen("sven")
    await centre.call("sales", STRANGER)
    [plain] = await waiting(centre)
    assert plain["Queue"] == "sales"
    await centre.call("sales", vip["e164"])
    rows = {row["Queue"]: row for row in await waiting(centre, 2)}
    assert set(rows) == {"sales", "support"}
    assert rows["support"]["Priority"] == "7"
    queued = await sven.wait_for("call.queued", queue="main:support")
    data = await sven.until(lambda: sven.picture.calls[queued["data"]["call"]]["data"].get("Route"))
    assert data == "sales+vip"


async def test_who_has_priority_is_taken_before_those_who_wait(centre: Centre) -> None:
    await rules(
        centre,
        {"id": "urgent", "when": {"withheld": False, "caller_country": ["DE"]}, "then": {"priority": 5}},
    )
    await centre.call("sales", STRANGER)
    await waiting(centre)
    await centre.call("sales", "+4930231250001")
    rows = await waiting(centre, 2)
    assert {row["CallerIDNum"]: row["Position"] for row in rows} == {STRANGER: "2", "+4930231250001": "1"}


async def test_a_number_that_no_entry_has_goes_its_default_way(centre: Centre) -> None:
    await rules(centre, {"id": "all", "then": {"queue": "emergency"}})
    await centre.call("billing", STRANGER)
    [row] = await waiting(centre)
    assert row["Queue"] == "billing"


async def test_rules_are_active_at_the_next_call(centre: Centre) -> None:
    for queue in ("support", "billing", "emergency"):
        await rules(centre, {"id": "all", "then": {"queue": queue}})
        id = await centre.call("sales", STRANGER)
        [row] = await waiting(centre)
        assert row["Queue"] == queue
        await centre.hang_up(id)
        await waiting(centre, 0)


async def test_a_full_queue_and_a_closed_entry_send_the_call_on(centre: Centre) -> None:
    closed = {"zone": "Europe/London", "hours": []}
    shut = {
        "id": "shut",
        "numbers": ["5550200"],
        "queue": "support",
        "calendar": "never",
        "closed": {"queue": "emergency"},
    }
    await rules(
        centre,
        entries=[SALES, shut],
        calendars={"never": closed},
        queues={"sales": {"limit": 1, "full": {"queue": "billing"}}},
    )
    for number in ("sales", "sales", "support"):
        await centre.call(number, STRANGER)
    rows = await waiting(centre, 3)
    assert sorted(row["Queue"] for row in rows) == ["billing", "emergency", "sales"]


async def test_a_closed_entry_without_a_queue_says_so_and_ends(centre: Centre) -> None:
    shut = {**SALES, "calendar": "never", "closed": {"sounds": ["vm-goodbye"]}}
    await rules(centre, entries=[shut], calendars={"never": {"zone": "UTC"}})
    sara = await centre.screen("olga")
    await centre.call("sales", STRANGER)
    call = (await sara.wait_for("call.originated"))["data"]["call"]
    await sara.wait_for("call.cleared", call=call)
    assert not sara.all("call.queued")


# ------------------------------------------------------------------------------------------ skills, ageing, overflow


async def test_levels_widen_while_a_caller_waits(centre: Centre) -> None:
    dora, emil = await centre.screen("dora"), await centre.screen("emil")
    await assign(centre, "emil", "main:support", 1)
    try:
        await centre.log_on(dora, emil)
        await centre.call("support", "+442071838750")
        await dora.wait_for("call.established", agent="dora")  # who knows most is busy
        levels = {"best": 0, "worst": 0, "widen_every": 5}
        await rules(centre, {"id": "all", "then": {"queue": "support", "levels": levels}})
        began = time.monotonic()
        await centre.call("sales", STRANGER)
        assert [row["Queue"] for row in await waiting(centre)] == ["support"]
        await emil.wait_for("call.delivered", within=20, agent="emil")
        assert time.monotonic() - began > 4.5
    finally:
        await assign(centre, "emil", "main:support", 0)


async def test_without_levels_every_agent_is_asked(centre: Centre) -> None:
    emil = await centre.screen("emil")
    await assign(centre, "emil", "main:support", 9)
    try:
        await centre.log_on(emil)
        await rules(centre, {"id": "all", "then": {"queue": "support"}})
        await centre.call("sales", STRANGER)
        await emil.wait_for("call.established", agent="emil")
    finally:
        await assign(centre, "emil", "main:support", 0)


async def test_priority_rises_with_the_wait(centre: Centre) -> None:
    ages = {"sales": {"ageing": {"every": 5, "by": 2, "most": 2}}}
    await rules(centre, queues=ages)
    await centre.call("sales", STRANGER)
    assert (await waiting(centre))[0]["Priority"] == "0"
    deadline = time.monotonic() + 30
    seen = set()
    while "2" not in seen:
        seen.add((await waiting(centre))[0]["Priority"])
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.1)
    assert seen <= {"0", "2"}


async def test_who_waits_too_long_overflows(centre: Centre) -> None:
    queues = {"sales": {"seconds": 2, "timed_out": {"queue": "billing", "seconds": 30}}}
    await rules(centre, queues=queues)
    olga = await centre.screen("olga")
    await centre.call("sales", STRANGER)
    await olga.wait_for("call.queued", queue="main:sales")
    await olga.wait_for("call.queued", queue="main:billing")
    [row] = await waiting(centre)
    assert row["Queue"] == "billing"


# ------------------------------------------------------------------------------------------ own and last agents


async def assign(centre: Centre, login: str, queue: str, penalty: int) -> None:
    """Let an agent work in one more queue, at this level."""
    status, user = await centre.rest("GET", f"/api/v1/users/{login}", ADMIN)
    assert status == 200
    queues = [one for one in user["queues"] if one["queue"] != queue]
    tag = await etag(centre, login)
    status, told = await centre.rest(
        "PATCH",
        f"/api/v1/users/{login}",
        ADMIN,
        json={"queues": [*queues, {"queue": queue, "penalty": penalty}]},
        headers={"If-Match": tag},
    )
    assert status == 200, told


async def etag(centre: Centre, login: str) -> str:
    """The version of a user."""
    headers = {"Authorization": f"Bearer {await centre.token(ADMIN)}"}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{centre.url}/api/v1/users/{login}", headers=headers) as answer,
    ):
        return answer.headers["ETag"]


async def own_agent(centre: Centre, account: int, login: str) -> None:
    """Make somebody the customer's own agent, as the CRM would."""
    await centre.fetch("UPDATE accounts SET own_agent = $2 WHERE id = $1 RETURNING id", account, login)


PREFER_OWN = {
    "id": "own",
    "when": {"customer": {"known": True}},
    "then": {"prefer": [{"agent": "own", "seconds": 3}, {"agent": "last", "seconds": 3}]},
}


@pytest_asyncio.fixture(loop_scope="module")
async def known(centre: Centre) -> AsyncIterator[dict[str, Any]]:
    """A customer whose own agent is ben; everybody in sales has a number in the direct queue."""
    for login, number in DIRECT.items():
        await assign(centre, login, "main:direct", number)
    await rules(centre, PREFER_OWN, direct_queue="direct")
    someone = await customer(centre, "a.class = 'B'")
    await own_agent(centre, someone["id"], "ben")
    yield someone
    await own_agent(centre, someone["id"], "")
    for login in DIRECT:
        await assign(centre, login, "main:sales", 0)
        await unassign(centre, login, "main:direct")


async def log_on(centre: Centre, *logins: str, count: int) -> list[Any]:
    """Log agents on and wait until the PBX has them as members of all their queues, and the server knows it."""
    screens = [await centre.screen(login) for login in logins]
    for screen in screens:
        await screen.ask("agent.log_on", ready=True)
    for screen in screens:
        await screen.agent_is("ready")
        await screen.until(
            lambda screen=screen: len(screen.picture.agents[screen.login]["queues"]) == count,
            what="all queues",
        )
    return screens


async def test_the_own_agent_is_tried_first(centre: Centre, known: dict[str, Any]) -> None:
    anna, ben, cleo = await log_on(centre, "anna", "ben", "cleo", count=2)
    await centre.call("sales", known["e164"])
    told = await ben.wait_for("call.established", agent="ben")
    assert told["data"]["queue"] == "main:direct"
    assert not anna.all("call.delivered")
    assert not cleo.all("call.delivered")
    await ben.agent_is("busy")


async def test_an_own_agent_who_does_not_answer_leaves_the_call_to_the_queue(
    centre: Centre, known: dict[str, Any]
) -> None:
    anna, ben = await log_on(centre, "anna", "ben", count=2)
    await centre.phone("1102", mode="silent")
    await centre.call("sales", known["e164"])
    await ben.wait_for("call.delivered", agent="ben", queue="main:direct")
    told = await anna.wait_for("call.established", agent="anna", within=20)
    assert told["data"]["queue"] == "main:sales"


async def test_an_own_agent_who_is_not_ready_is_not_tried(centre: Centre, known: dict[str, Any]) -> None:
    own = {**PREFER_OWN, "then": {"prefer": [{"agent": "own", "seconds": 3}]}}
    await rules(centre, own, direct_queue="direct")
    anna, ben = await log_on(centre, "anna", "ben", count=2)
    await ben.ask("agent.not_ready", reason="Break")
    await ben.agent_is("not_ready")
    await centre.call("sales", known["e164"])
    told = await anna.wait_for("call.established", agent="anna")
    assert told["data"]["queue"] == "main:sales"
    status, then = await centre.rest(
        "POST", "/api/v1/routing/what-if", ADMIN, json={"from": known["e164"], "to": "5550100"}
    )
    assert status == 200, then
    why = {step["id"]: step["why"] for step in then["decision"]["explanation"] if step["what"] == "agent"}
    assert why["ben"] == "the own agent is not ready"


async def unassign(centre: Centre, login: str, queue: str) -> None:
    """Take an agent out of a queue."""
    status, user = await centre.rest("GET", f"/api/v1/users/{login}", ADMIN)
    assert status == 200
    status, told = await centre.rest(
        "PATCH",
        f"/api/v1/users/{login}",
        ADMIN,
        json={"queues": [one for one in user["queues"] if one["queue"] != queue]},
        headers={"If-Match": await etag(centre, login)},
    )
    assert status == 200, told


# ------------------------------------------------------------------------------------------ without an answer


@pytest_asyncio.fixture(loop_scope="module")
async def apart(centre: Centre) -> AsyncIterator[Centre]:
    """The centre, its server for once a process of its own."""
    await centre.stop_server()
    await centre.start_process()
    yield centre
    if centre.process is not None:
        await centre.process.kill()
        centre.process = None
    await centre.start_server()


async def test_a_server_that_is_frozen_or_killed_costs_a_call_a_moment_and_its_rules(apart: Centre) -> None:
    await rules(apart, {"id": "all", "then": {"queue": "support"}})
    await apart.call("sales", STRANGER)
    assert [row["Queue"] for row in await waiting(apart)] == ["support"]
    process = apart.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert await took_to_sales(apart, 2) < 3.0
    finally:
        os.kill(process.pid, signal.SIGCONT)
    await apart.ready()
    await apart.call("sales", STRANGER)  # thawed: asked again, and a late answer has moved nobody
    rows = await waiting(apart, 3)
    assert sorted(row["Queue"] for row in rows) == ["sales", "support", "support"]
    await process.kill()
    assert await took_to_sales(apart, 4) < 3.0
    await process.start()
    await apart.ready()
    await asked(apart)
    await apart.call("sales", STRANGER)
    rows = await waiting(apart, 5)
    assert sorted(row["Queue"] for row in rows) == ["sales", "sales", "support", "support", "support"]
    await (await apart.ami("world")).send("Hangup", {"Channel": "/.*/", "Cause": "16"})
    await waiting(apart, 0)
    assert await process.stop() == 0
    assert (await apart.admin("Getvar", Variable="CTI_ROUTING"))["Value"] == "off"


async def test_a_callback_that_was_asked_for_comes_with_the_server_down(apart: Centre) -> None:
    process = apart.process
    assert process is not None
    await rules(apart, BACK)
    await apart.call("sales", "+447700900121", CHOICE="1")
    deadline = time.monotonic() + 20
    while not any(row["Channel"].startswith("Local/") for row in await apart.channels()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.03)
    await process.kill()
    await waiting(apart)
    await apart.admin("QueueAdd", Queue="sales", Interface="PJSIP/1101")
    while True:
        up = {
            row["Channel"].rpartition("-")[0]
            for row in await apart.channels()
            if row["ChannelStateDesc"] == "Up"
        }
        if {"PJSIP/1101", "PJSIP/trunk"} <= up:
            break
        assert time.monotonic() < deadline + 20, up
        await asyncio.sleep(0.03)
    await apart.admin("QueueRemove", Queue="sales", Interface="PJSIP/1101")


async def took_to_sales(centre: Centre, count: int) -> float:
    """Seconds until a call to sales waits in its default queue, as one of so many who wait anywhere."""
    before = [row["Queue"] for row in await waiting(centre, count - 1)]
    began = time.monotonic()
    await centre.call("sales", STRANGER)
    after = [row["Queue"] for row in await waiting(centre, count)]
    assert sorted(after) == sorted([*before, "sales"])
    return time.monotonic() - began


# ------------------------------------------------------------------------------------------ what strangers may try


async def test_hostile_numbers_and_false_questions_do_no_harm(centre: Centre) -> None:
    await rules(centre, {"id": "all", "then": {"queue": "support"}})
    for name, number in (
        ('x,y)"}${HANGUP}', "+44,1;drop"),
        ("|", "&&\\n"),
        ("", "anonymous"),
        ("ü" * 60, "9" * 60),
    ):
        id = await centre.call("sales", number, name.replace('"', ""))
        [row] = await waiting(centre)
        assert row["Queue"] == "support"
        await centre.hang_up(id)
        await waiting(centre, 0)
    server = centre.server
    assert server is not None
    before = dict(server.questions.outcomes)
    for ask in ("1", "-1", "9" * 50, "${X}"):  # made by an AMI client, not by a channel
        await centre.admin(
            "UserEvent", UserEvent="CtiRoute", Ask=ask, Dialed="5550100", Uniqueid="", Channel="PJSIP/x"
        )
    await centre.call("sales", STRANGER)
    await waiting(centre)
    after = dict(server.questions.outcomes)
    assert after["answered"] == before["answered"] + 1
    assert after["failed"] <= before["failed"] + 4


async def test_more_questions_than_allowed_go_their_default_way(centre: Centre) -> None:
    await rules(centre, {"id": "all", "then": {"queue": "support"}})
    server = centre.server
    assert server is not None
    most, server.questions._most = server.questions._most, 0
    try:
        await centre.call("sales", STRANGER)
        [row] = await waiting(centre)
        assert row["Queue"] == "sales"
        assert server.questions.outcomes["too_many"] >= 1
    finally:
        server.questions._most = most


# ------------------------------------------------------------------------------------------ called back


async def test_a_callback_keeps_its_place_and_is_joined_to_the_agent(centre: Centre) -> None:
    await rules(centre, BACK)
    olga = await centre.screen("olga")
    first = "+447700900121"
    await centre.call("sales", first, CHOICE="1")
    await waiting(centre)
    await centre.call("sales", "+447700900131")
    await waiting(centre, 2)
    called = await olga.wait_for("call.queued", where=lambda data: data["view"]["ani"] == first)
    await olga.wait_for("call.cleared", call=called["data"]["call"], within=20)
    rows = await waiting(centre, 2)
    places = {row["CallerIDNum"]: row["Position"] for row in rows}
    assert places == {first: "1", "+447700900131": "2"}  # the place was kept
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    pop = await anna.wait_for("pop.shown", within=20)
    assert pop["data"]["view"]["e164"] == first
    call = pop["data"]["view"]["call"]

    def joined() -> bool:
        """The agent, and the customer by the carrier's line, both talk on this call."""
        shown = olga.picture.calls.get(call, {})
        talking = [c for c in shown.get("connections", []) if c["state"] == "connected"]
        devices = {c["device"] for c in talking}
        return {"PJSIP/1101", "PJSIP/trunk"} <= devices

    await olga.until(joined, within=20, what="agent and customer joined")
    [still] = await waiting(centre)
    assert still["CallerIDNum"] == "+447700900131"


async def test_the_key_does_nothing_where_no_callback_is_offered(centre: Centre) -> None:
    await rules(centre, BACK)
    stranger = "+48221234567"  # from a country that is not called back, and nobody's customer
    await centre.call("sales", "+447700900131")
    await waiting(centre)
    await centre.call("sales", stranger, CHOICE="1")
    await waiting(centre, 2)
    await centre.call("sales", "+447700900132")
    olga = await centre.screen("olga")
    await waiting(centre, 3)
    await olga.wait_for(
        "call.queued", within=20, where=lambda data: data["view"]["ani"] == stranger
    )  # joined again, at the same place
    rows = await waiting(centre, 3)
    assert {row["CallerIDNum"]: row["Position"] for row in rows}[stranger] == "2"
