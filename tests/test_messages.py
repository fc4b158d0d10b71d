"""Words between supervisors and agents: messages with receipts, requests for help, states that a supervisor sets."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.call_desk import in_talk, refused
from tests.centre import Centre, Refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ------------------------------------------------------------------------------------------ messages


async def test_a_message_is_kept_until_it_is_read(centre: Centre) -> None:
    sara, ben, rita = [await centre.screen(login) for login in ("sara", "ben", "rita")]
    sent = await sara.ask("message.send", agent="anna", text="  <b>Please</b> call\nme back  ")
    assert sent["agents"] == ["anna"]
    anna = await centre.screen("anna")
    (unread,) = (await anna.ask("state.get"))["data"]["messages"]
    assert unread["id"] == sent["message"]
    assert (unread["sender"], unread["sender_name"]) == ("sara", "Sara")
    assert unread["text"] == "<b>Please</b> call\nme back"  # as written: screens show it as text
    second = await sara.ask("message.send", agent="anna", text="And again")
    await anna.wait_for("message.sent")
    await anna.as_told()
    told = await anna.wait_for("message.sent", message=second["message"])
    assert told["data"]["text"] == "And again"
    await anna.ask("message.read", message=second["message"])
    receipt = await sara.wait_for("message.read", message=second["message"])
    assert receipt["data"]["agent"] == "anna"
    assert await refused(anna, "message.read", message=second["message"]) == "no_such_message"
    assert await refused(ben, "message.read", message=sent["message"]) == "no_such_message"
    await centre.stop_server()
    await centre.start_server()
    anna = await centre.screen("anna")
    assert [m["id"] for m in (await anna.ask("state.get"))["data"]["messages"]] == [sent["message"]]
    await anna.ask("message.read", message=sent["message"])
    assert (await anna.ask("state.get"))["data"]["messages"] == []
    assert not ben.all("message.*")
    assert not rita.all("message.*")
    rows = await centre.fetch("SELECT detail::text AS detail FROM audit WHERE action = 'message.send'")
    assert rows
    assert not any("Please" in row["detail"] for row in rows)


async def test_a_message_to_a_team(centre: Centre) -> None:
    sara, anna, ben, dora = [await centre.screen(login) for login in ("sara", "anna", "ben", "dora")]
    sent = await sara.ask("message.send", team="sales", text="Meeting at noon")
    assert sorted(sent["agents"]) == ["anna", "ben", "cleo"]
    for screen in (anna, ben):
        assert (await screen.wait_for("message.sent"))["data"]["team"] == "sales"
    await anna.ask("message.read", message=sent["message"])
    assert not (await anna.ask("state.get"))["data"]["messages"]
    assert (await ben.ask("state.get"))["data"]["messages"]
    assert not dora.all("message.sent")
    await ben.ask("message.read", message=sent["message"])
    cleo = await centre.screen("cleo")
    await cleo.ask("message.read", message=sent["message"])


async def test_messages_that_are_not_sent(centre: Centre) -> None:
    sara, anna = [await centre.screen(login) for login in ("sara", "anna")]
    assert await refused(anna, "message.send", agent="ben", text="hi") == "forbidden"
    assert await refused(sara, "message.send", agent="dora", text="hi") == "not_your_agent"
    assert await refused(sara, "message.send", team="service", text="hi") == "not_your_team"
    assert await refused(sara, "message.send", team="nowhere", text="hi") == "no_such_team"
    assert await refused(sara, "message.send", agent="nobody", text="hi") == "not_an_agent"
    for wrong in (
        {"agent": "anna"},
        {"text": "hi"},
        {"agent": "anna", "team": "sales", "text": "hi"},
        {"agent": "anna", "text": "   "},
        {"agent": "anna", "text": "x" * 1001},
        {"agent": "anna", "text": "bell \x07"},
        {"agent": "anna", "text": "right to left \u202e"},
    ):
        assert await refused(sara, "message.send", **wrong) == "bad_args", wrong
    assert not anna.all("message.sent")


async def test_what_cannot_be_kept_is_not_sent_but_help_is_asked_for(centre: Centre) -> None:
    sara, anna = [await centre.screen(login) for login in ("sara", "anna")]
    await centre.log_on(anna)
    db = await asyncpg.connect(centre.dsn)
    try:
        await db.execute("ALTER TABLE messages RENAME TO away; ALTER TABLE help_requests RENAME TO away_too")
        assert await refused(sara, "message.send", agent="anna", text="hi") == "database_unavailable"
        asked = await anna.ask("help.request", text="?")
        await sara.wait_for("help.requested", help=asked["id"])
    finally:
        await db.execute("ALTER TABLE away RENAME TO messages; ALTER TABLE away_too RENAME TO help_requests")
        await db.close()
    assert not anna.all("message.sent")
    async with asyncio.timeout(10):
        while not await centre.fetch("SELECT FROM help_requests WHERE id = $1", asked["id"]):
            await asyncio.sleep(0.05)


# ------------------------------------------------------------------------------------------ help


async def test_help_about_a_call(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    sara, sven, ben, olga = [await centre.screen(login) for login in ("sara", "sven", "ben", "olga")]
    asked = await anna.ask("help.request", call=call, text="A discount?")
    told = await sara.wait_for("help.requested", agent="anna")
    assert told["data"] == {"help": asked["id"], "agent": "anna", "call": call, "text": "A discount?"}
    await olga.wait_for("help.requested")
    await anna.wait_for("help.requested")
    shown = (await sara.ask("state.get"))["data"]["help"]
    assert [(h["agent"], h["call"], h["taken_by"]) for h in shown] == [("anna", call, None)]
    assert await refused(anna, "help.request") == "wrong_state"
    assert await refused(sven, "help.accept", help=asked["id"]) == "not_your_agent"
    assert await refused(ben, "help.accept", help=asked["id"]) == "forbidden"
    assert await refused(ben, "help.close", help=asked["id"]) == "not_your_agent"
    assert await refused(sara, "help.accept", help="h0") == "no_such_request"
    answer = await sara.ask("help.accept", help=asked["id"])
    assert answer["taken_by"] == "sara"
    await sara.as_told()
    assert (await anna.wait_for("help.accepted"))["data"]["by"] == "sara"
    assert await refused(olga, "help.accept", help=asked["id"]) == "already_accepted"
    await sara.ask("help.close", help=asked["id"])
    assert (await anna.wait_for("help.closed"))["data"]["reason"] == "closed"
    assert await refused(sara, "help.close", help=asked["id"]) == "no_such_request"
    await anna.as_told()
    assert not ben.all("help.*")
    assert not sven.all("help.*")


async def test_help_is_kept_over_a_restart_and_ends_at_log_off(centre: Centre) -> None:
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    assert await refused(anna, "help.request") == "wrong_state"  # not logged on
    await centre.log_on(anna)
    assert await refused(anna, "help.request", call="main:1.1") == "not_your_call"
    asked = await anna.ask("help.request")
    await sara.ask("help.accept", help=asked["id"])
    await centre.stop_server()
    await centre.start_server()
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    (shown,) = (await anna.ask("state.get"))["data"]["help"]
    assert (shown["id"], shown["taken_by"]) == (asked["id"], "sara")
    await anna.ask("agent.log_off")
    assert (await sara.wait_for("help.closed", help=asked["id"]))["data"]["reason"] == "logged_off"
    async with asyncio.timeout(8):
        while not await centre.fetch(
            "SELECT FROM help_requests WHERE id = $1 AND outcome = 'logged_off'", asked["id"]
        ):
            await asyncio.sleep(0.05)


async def test_help_withdrawn(centre: Centre) -> None:
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    await centre.log_on(anna)
    asked = await anna.ask("help.request")
    await anna.ask("help.close", help=asked["id"])
    assert (await sara.wait_for("help.closed"))["data"]["reason"] == "withdrawn"
    again = await anna.ask("help.request")
    assert again["id"] != asked["id"]


# ------------------------------------------------------------------------------------------ states set by others


async def test_a_supervisor_sets_an_agents_state(centre: Centre) -> None:
    anna, sara, sven = [await centre.screen(login) for login in ("anna", "sara", "sven")]
    await centre.log_on(anna)
    await sara.ask("agent.not_ready", agent="anna", reason="Meeting", note="one minute, please")
    shown = await anna.agent_is("not_ready", reason="Meeting", by="sara")
    assert shown["why"] == "asked to be not ready: Meeting (one minute, please)"
    await centre.member("anna", paused=True, reason="Meeting")
    await sara.ask("agent.ready", agent="anna")
    await anna.agent_is("ready", by="sara")
    await sara.ask("agent.log_off", agent="anna", note="go home")
    assert (await anna.agent_is("logged_off", by="sara"))["why"] == "logged off (go home)"
    await centre.member("anna", there=False)
    for op in ("agent.log_off", "agent.ready"):
        assert await refused(sven, op, agent="anna") == "not_your_agent"
    with pytest.raises(Refusal, match="bad_args"):
        await sara.ask("agent.log_off", agent="anna", note="\x1b[2J")
    rows = await centre.fetch(
        "SELECT actor, target FROM audit WHERE action = 'agent.log_off' AND actor = 'sara'"
    )
    assert rows[0]["target"] == "anna"
