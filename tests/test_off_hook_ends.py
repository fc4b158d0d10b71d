"""Open lines that end, who may open them, and restarts of the server with a line and with a call on it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.call_desk import TRUNK, alone, become, refused, states
from tests.centre import Centre
from tests.line_desk import (
    FREE,
    GONE,
    LINE,
    PHONE,
    connecting_fails,
    devices,
    house,
    in_talk_on_line,
    line_free,
    off_hook,
    on_the_line,
    queue_sees,
    tidied,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOUSE, TIDIED = house, tidied


async def administrator_sets(centre: Centre, off_hook: bool) -> None:
    """Change over REST how anna works."""
    headers = {"Authorization": f"Bearer {await centre.token('olga')}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(centre.url + "/api/v1/users/anna") as answer:
            etag = answer.headers["ETag"]
        wanted = {"off_hook": off_hook}
        async with http.patch(
            centre.url + "/api/v1/users/anna", json=wanted, headers={"If-Match": etag}
        ) as answer:
            assert (answer.status, (await answer.json())["off_hook"]) == (200, off_hook)


async def test_the_phone_is_hung_up_during_a_call(centre: Centre) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    await centre.phone_hangs_up("1101")
    await anna.wait_for("call.cleared", call=call)
    await anna.agent_is("not_ready", reason="Line closed", reachable=False, lines={})
    await alone(centre, TRUNK)
    await queue_sees(centre, GONE, paused=True)


async def test_the_phone_is_hung_up_with_a_caller_on_hold(centre: Centre) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    sara = await centre.screen("sara")
    await anna.ask("call.hold", call=call)
    await centre.phone_hangs_up("1101")
    await anna.agent_is("not_ready", reason="Line closed", reachable=False)
    await sara.until(lambda: states(sara, call) == {TRUNK: "queued"}, what="back in the queue", within=20)


async def test_a_phone_that_does_not_answer(centre: Centre) -> None:
    anna = await centre.screen("anna")
    await anna.ask("agent.set_off_hook", off_hook=True)
    for mode, code in (("reject", "phone_not_reached"), ("busy", "phone_not_reached")):
        await centre.phone("1101", mode=mode)
        await anna.ask("agent.log_on", ready=True)
        shown = await anna.agent_is("not_ready", reason="Line closed", pending=None)
        assert "could not be opened" in shown["why"] or "phone was called" in shown["why"]
        assert await refused(anna, "agent.line_open") == code
        await anna.ask("agent.log_off")
    await centre.phone("1101", mode="silent")
    await anna.ask("agent.log_on", ready=True)
    await anna.agent_is("not_ready", reason="Line closed", pending="ready", lines={"main": "calling"})
    await anna.agent_is("not_ready", reason="Line closed", pending=None, lines={}, within=20)
    await anna.as_told()
    await devices(centre, {})


async def test_on_hook_again(centre: Centre) -> None:
    anna = await off_hook(centre)
    await anna.ask("agent.set_off_hook", off_hook=False)
    await devices(centre, {})
    await centre.member("anna")
    await anna.agent_is("ready", off_hook=False, lines={}, reachable=True)
    assert [r["Location"] for r in await centre.queue_members()] == [PHONE]
    assert await refused(anna, "agent.line_open") == "wrong_state"
    assert await refused(anna, "agent.set_off_hook", off_hook=False) == "wrong_state"


async def test_who_may(centre: Centre) -> None:
    anna = await off_hook(centre)
    ben, sara, sven, olga = [await centre.screen(login) for login in ("ben", "sara", "sven", "olga")]
    for op in ("agent.line_open", "agent.line_close"):
        assert await refused(ben, op, agent="anna") == "not_your_agent"
        assert await refused(sven, op, agent="anna") == "not_your_agent"
        assert await refused(olga, op) == "not_an_agent"
    assert await refused(ben, "agent.set_off_hook", agent="anna", off_hook=False) == "not_your_agent"
    assert await refused(ben, "agent.line_open") == "not_logged_on"
    await ben.ask("agent.log_on")
    assert await refused(ben, "agent.line_open") == "wrong_state"  # on-hook
    assert await refused(ben, "agent.line_close") == "wrong_state"
    assert await refused(ben, "agent.set_off_hook") == "bad_args"
    answer = await sara.ask("agent.line_close", agent="anna")
    assert (answer["state"], answer["reason"], answer["lines"]) == ("not_ready", "Line closed", {})
    await sara.ask("agent.line_open", agent="anna")
    await anna.agent_is("not_ready", lines={"main": "open"})
    status, body = await centre.rest("POST", "/api/v1/commands/agent.ready", "anna", json={})
    assert (status, body["data"]["state"]) == (200, "ready"), body
    status, body = await centre.rest("GET", "/api/v1/agents", "anna")
    assert [(a["off_hook"], a["lines"]) for a in body["items"] if a["agent"] == "anna"] == [
        (True, {"main": "open"})
    ]
    rows = await centre.fetch("SELECT DISTINCT action FROM audit WHERE action LIKE 'agent.line%'")
    async with asyncio.timeout(8):
        while {row["action"] for row in rows} != {"agent.line_open", "agent.line_close"}:
            await asyncio.sleep(0.05)
            rows = await centre.fetch("SELECT DISTINCT action FROM audit WHERE action LIKE 'agent.line%'")


async def test_not_during_a_call(centre: Centre) -> None:
    anna, _, _ = await in_talk_on_line(centre)
    assert await refused(anna, "agent.line_close") == "wrong_state"
    assert await refused(anna, "agent.line_open") == "wrong_state"
    assert await refused(anna, "agent.set_off_hook", off_hook=False) == "wrong_state"


async def test_an_administrator_sets_it_and_never_cuts_a_call(centre: Centre) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    await administrator_sets(centre, False)
    await anna.wait_for("agent.off_hook_changed", agent="anna", off_hook=False)
    await on_the_line(centre)
    await anna.ask("call.hangup", call=call)
    await anna.agent_is("ready", off_hook=False, lines={}, reachable=True)
    await devices(centre, {})
    await administrator_sets(centre, True)
    await anna.agent_is("ready", off_hook=True, lines={"main": "open"})
    await queue_sees(centre, FREE)


async def test_the_pbx_is_away(centre: Centre) -> None:
    anna = await off_hook(centre)
    link = centre._server.links["main"]
    centre.pbx.freeze()
    try:
        assert link._protocol is not None
        assert link._protocol.transport is not None
        link._protocol.transport.abort()
        await anna.wait_for("pbx.status_changed", where=lambda data: data["phase"] != "up")
        await anna.agent_is("unknown")
        for op in ("agent.line_close", "agent.line_open"):
            assert await refused(anna, op) in ("pbx_down", "wrong_state")
        assert await connecting_fails(centre, "main:1.1") == "pbx_down"
    finally:
        centre.pbx.thaw()
    await anna.agent_is("ready", lines={"main": "open"}, within=20)
    await anna.as_told()


async def test_the_server_dies_as_by_a_power_cut(centre: Centre) -> None:
    anna = await off_hook(centre)
    await queue_sees(centre, FREE)
    await centre.stop_server()
    process = await centre.start_process()
    try:
        await anna.close()
        anna = await centre.screen("anna")
        await anna.agent_is("ready", lines={"main": "open"})
        await centre.call("sales", talk=120)
        call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
        await process.kill()
        await on_the_line(centre)
        process = await centre.start_process()
        await anna.close()
        anna = await centre.screen("anna")
        assert states(anna, call) == {TRUNK: "connected", LINE: "connected"}
        await anna.agent_is("busy", call=call, lines={"main": "open"})
        await anna.ask("call.hangup", call=call)
        await line_free(centre, anna)
    finally:
        await process.stop()


async def test_the_server_is_killed_with_the_line_open_and_with_a_call_on_it(centre: Centre) -> None:
    anna = await off_hook(centre)
    await centre.stop_server()
    await centre.start_server()
    await anna.close()
    anna = await centre.screen("anna")
    await anna.agent_is("ready", lines={"main": "open"}, reachable=True)
    assert anna.picture.calls == {}
    await centre.call("sales", talk=120)
    call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
    await centre.stop_server()
    await centre.start_server()
    await anna.close()
    anna = await centre.screen("anna")
    assert states(anna, call) == {TRUNK: "connected", LINE: "connected"}
    await anna.agent_is("busy", call=call, lines={"main": "open"})
    await anna.ask("call.hold", call=call)
    await anna.ask("call.retrieve", call=call)
    await become(centre, TRUNK, LINE)
    await anna.ask("call.hangup", call=call)
    await line_free(centre, anna)
    await anna.as_told()


async def test_a_queue_call_is_answered_on_the_line_while_no_server_runs(centre: Centre) -> None:
    anna = await off_hook(centre)
    await queue_sees(centre, FREE)
    await centre.stop_server()
    customer = await centre.call("sales", talk=120)
    await on_the_line(centre, within=10)
    await centre.hang_up(customer)
    await queue_sees(centre, FREE)
    await centre.call("sales", talk=120)
    await on_the_line(centre, within=10)
    await centre.start_server()
    await anna.close()
    anna = await centre.screen("anna")
    (call,) = anna.picture.calls
    assert states(anna, call) == {TRUNK: "connected", LINE: "connected"}
    await anna.agent_is("busy", call=call)
    await anna.ask("call.hangup", call=call)
    await line_free(centre, anna)


async def test_the_line_ends_while_no_server_runs(centre: Centre) -> None:
    anna = await off_hook(centre)
    await centre.stop_server()
    await centre.phone_hangs_up("1101")
    await devices(centre, {})
    await queue_sees(centre, GONE)  # Asterisk's queue offers nothing to it
    await centre.start_server()
    await anna.close()
    anna = await centre.screen("anna")
    await anna.agent_is("not_ready", reason="Line closed", lines={}, reachable=False, pending=None)
    await queue_sees(centre, GONE, paused=True)
