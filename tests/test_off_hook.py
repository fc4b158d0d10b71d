"""Agents who work off-hook, on a real Asterisk with real SIP phones: one open line, a beep, and the caller is there."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from cti import users
from cti.commands import CommandError
from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.call_desk import BEN, TRUNK, alone, apps, become, refused, states
from tests.centre import Centre, Refusal, Screen, centre_of
from tests.sip_party import Conduct, Party

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE, LINE = "PJSIP/1101", "Local/1101@cti-line"
AT_QUEUE = LINE + "/n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    async with centre_of(
        asterisk_installation, postgres_server, server=False, main={"ring_seconds": 6}
    ) as centre:
        db = await asyncpg.connect(centre.dsn)
        try:
            await users.set_interface(db, "sara", "main", "PJSIP/1109")
        finally:
            await db.close()
        await centre.start_server()
        yield centre


@pytest_asyncio.fixture(loop_scope="module")
async def centre(the_centre: Centre) -> AsyncIterator[Centre]:
    yield the_centre
    if the_centre.server is None:
        await the_centre.start_server()
    olga = await the_centre.screen("olga")
    for call in list(olga.picture.calls):
        with suppress(Refusal):
            await olga.ask("call.clear", call=call)
    for login in ("anna", "ben", "finn"):
        if olga.picture.agents[login]["off_hook"]:
            await olga.ask("agent.set_off_hook", agent=login, off_hook=False)
    await the_centre.quiet()
    await devices(the_centre, {})


async def devices(centre: Centre, wanted: dict[str, str], within: float = 8.0) -> None:
    """Wait until the PBX has just these phones' channels, doing this."""
    async with asyncio.timeout(within):
        while (seen := {d: a for d, a in (await apps(centre)).items() if d.startswith("PJSIP/1")}) != wanted:
            await asyncio.sleep(0.05)
    assert seen == wanted


async def off_hook(centre: Centre, login: str = "anna", *, ready: bool = True) -> Screen:
    """An agent who has chosen to work off-hook and has logged on: the line is open."""
    screen = await centre.screen(login)
    await screen.ask("agent.set_off_hook", off_hook=True)
    await screen.ask("agent.log_on", ready=ready)
    await screen.agent_is("ready" if ready else "not_ready", lines={"main": "open"}, reachable=True)
    return screen


async def queue_sees(centre: Centre, status: str, *, paused: bool = False, within: float = 8.0) -> None:
    """Wait until Asterisk's queue has anna's line, and nothing else of hers, with this device state."""
    async with asyncio.timeout(within):
        while True:
            rows = [r for r in await centre.queue_members() if "1101" in r["Location"]]
            if [(r["Location"], r["StateInterface"], r["Status"], r["Paused"]) for r in rows] == [
                (AT_QUEUE, "Custom:cti-line-1101", status, str(int(paused)))
            ]:
                return
            await asyncio.sleep(0.05)


FREE, IN_USE, GONE = "1", "2", "5"


async def test_the_line_is_opened_and_a_queue_call_comes_without_ringing(centre: Centre) -> None:
    anna = await off_hook(centre)
    await queue_sees(centre, FREE)
    assert (await apps(centre))[PHONE] == "Wait"
    assert anna.picture.calls == {}
    assert anna.picture.agents["anna"]["off_hook"] is True
    anna.mark()
    customer = await centre.call("sales", talk=120)
    told = await anna.wait_for("call.established", agent="anna")
    call = told["data"]["call"]
    pop = await anna.wait_for("pop.shown", call=call)
    assert pop["seq"] < told["seq"]
    assert not anna.all("call.delivered")
    assert states(anna, call) == {TRUNK: "connected", LINE: "connected"}
    assert await on_the_line(centre)
    await anna.agent_is("busy", call=call)
    await queue_sees(centre, IN_USE)
    assert list(anna.picture.calls) == [call]
    await anna.as_told()
    await centre.hang_up(customer)
    await anna.wait_for("call.cleared", call=call)
    await anna.agent_is("ready")
    await queue_sees(centre, FREE)
    await devices(centre, {PHONE: "Wait"})
    assert anna.picture.calls == {}
    assert not anna.all("agent.line_changed")
    await anna.as_told()


async def on_the_line(centre: Centre) -> bool:
    """Whether the phone is in a bridge with the Local channel that stands for it in a call, as Asterisk says."""
    rows = await centre.channels()
    bridges = {row["Channel"].rpartition("-")[0]: row["BridgeId"] for row in rows if row["BridgeId"]}
    halves = {row["BridgeId"] for row in rows if row["Channel"].startswith(LINE)}
    return PHONE in bridges and bridges[PHONE] in halves


async def test_the_phone_hung_up(centre: Centre) -> None:
    anna = await off_hook(centre)
    await centre.phone_hangs_up("1101")
    shown = await anna.agent_is("not_ready", reason="Line closed", reachable=False, lines={})
    assert shown["pending"] is None
    assert "hung up at the phone" in shown["why"]
    await queue_sees(centre, GONE, paused=True)
    assert await refused(anna, "agent.line_close") == "wrong_state"
    await anna.ask("agent.line_open")
    await anna.agent_is("not_ready", lines={"main": "open"}, reachable=True)
    assert await refused(anna, "agent.line_open") == "wrong_state"
    await anna.ask("agent.ready")
    await anna.agent_is("ready")
    await queue_sees(centre, FREE)
    await centre.phone_hangs_up("1101")
    await anna.agent_is("not_ready", reason="Line closed")
    await anna.ask("agent.ready")  # opens the line by itself
    await anna.agent_is("ready", lines={"main": "open"})
    await anna.as_told()
    await anna.ask("agent.log_off")
    await devices(centre, {})
    await anna.agent_is("logged_off", lines={})


async def in_talk_on_line(centre: Centre, *, talk: float = 120) -> tuple[Screen, str, str]:
    """Anna, off-hook, talks with a customer: her screen, the call's id, the customer's id in the world."""
    anna = await off_hook(centre)
    await queue_sees(centre, FREE)
    customer = await centre.call("sales", talk=talk)
    told = await anna.wait_for("call.established", agent="anna")
    return anna, told["data"]["call"], customer


async def line_free(centre: Centre, anna: Screen) -> None:
    """Wait until the line waits again and anna's screen shows no call."""
    await anna.until(lambda: not anna.picture.calls, what="no call")
    await queue_sees(centre, FREE)
    assert (await apps(centre))[PHONE] == "Wait"
    assert anna.picture.agents["anna"]["lines"] == {"main": "open"}
    await anna.agent_is("ready")


# ------------------------------------------------------------------------------------------ calls on the line


async def test_calls_one_after_the_other_however_short(centre: Centre) -> None:
    anna = await off_hook(centre)
    for round in range(4):  # the beep of one is not over when the next arrives
        customer = await centre.call("sales", number=f"+44207183875{round}", talk=120)
        told = await anna.wait_for("call.established", agent="anna")
        anna.mark()
        await centre.hang_up(customer)
        await anna.wait_for("call.cleared", call=told["data"]["call"])
        anna.mark()
    await line_free(centre, anna)


async def test_hold_retrieve_hang_up(centre: Centre) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    await anna.ask("call.hold", call=call)
    assert states(anna, call) == {TRUNK: "hold", LINE: "hold"}
    await anna.ask("call.retrieve", call=call)
    await become(centre, TRUNK, LINE)
    assert states(anna, call) == {TRUNK: "connected", LINE: "connected"}
    await anna.ask("call.hangup", call=call)
    await line_free(centre, anna)
    await alone(centre, TRUNK)


async def test_the_caller_hangs_up_on_hold_and_after_it(centre: Centre) -> None:
    anna, call, customer = await in_talk_on_line(centre)
    await anna.ask("call.hold", call=call)
    await centre.hang_up(customer)
    await line_free(centre, anna)
    anna.mark()
    customer = await centre.call("sales", talk=120)
    call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
    await anna.ask("call.hold", call=call)
    await anna.ask("call.retrieve", call=call)
    await centre.hang_up(customer)
    await line_free(centre, anna)


@pytest.mark.parametrize("held", [False, True])
async def test_blind_transfer(centre: Centre, held: bool) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    ben = await centre.screen("ben")
    if held:
        await anna.ask("call.hold", call=call)
    await anna.ask("call.transfer", call=call, to_agent="ben")
    await line_free(centre, anna)
    await ben.wait_for("call.established", call=call, agent="ben")
    await become(centre, TRUNK, BEN)


async def test_a_transfer_that_is_not_taken_comes_back_to_the_line(centre: Centre) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    await centre.phone("1102", mode="reject")
    anna.mark()
    with suppress(Refusal):
        await anna.ask("call.transfer", call=call, to_agent="ben")
    await anna.until(lambda: states(anna, call) == {TRUNK: "connected", LINE: "connected"}, what="back")
    await become(centre, TRUNK, LINE)
    assert not anna.all("call.delivered", agent="anna")


async def test_consult_alternate_complete(centre: Centre) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    ben = await centre.screen("ben")
    await anna.ask("call.consult", call=call, to_agent="ben")
    await ben.wait_for("call.established", call=call, agent="ben")
    await anna.until(
        lambda: states(anna, call) == {TRUNK: "hold", LINE: "connected", BEN: "connected"}, what="consulting"
    )
    await anna.ask("call.alternate", call=call)
    assert states(anna, call) == {TRUNK: "connected", LINE: "connected", BEN: "hold"}
    await anna.ask("call.alternate", call=call)
    await anna.ask("call.complete", call=call)
    await line_free(centre, anna)
    await become(centre, TRUNK, BEN)
    await ben.as_told("transferred_by")


async def test_consult_and_cancel_conference_and_hand_over(centre: Centre) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    ben = await centre.screen("ben")
    await anna.ask("call.consult", call=call, to_agent="ben")
    await ben.wait_for("call.established", call=call, agent="ben")
    await anna.ask("call.cancel", call=call)
    assert states(anna, call) == {TRUNK: "connected", LINE: "connected"}
    await alone(centre, BEN)
    ben.mark()
    await anna.ask("conference.add", call=call, to_agent="ben")
    await ben.wait_for("call.established", call=call, agent="ben")
    await anna.until(lambda: states(anna, call).get(BEN) == "connected", what="three")
    await anna.ask("conference.hand_over", call=call)
    await line_free(centre, anna)
    assert states(ben, call) == {TRUNK: "connected", BEN: "connected"}


async def test_somebody_asks_and_transfers_to_an_agent_who_works_off_hook(centre: Centre) -> None:
    anna = await off_hook(centre, ready=False)
    ben = await centre.screen("ben")
    await centre.log_on(ben)
    await centre.call("sales", talk=120)
    call = (await ben.wait_for("call.established", agent="ben"))["data"]["call"]
    anna.mark()
    await ben.ask("call.consult", call=call, to_agent="anna")
    await anna.wait_for("call.established", call=call, agent="anna")
    assert not anna.all("call.delivered")
    assert states(anna, call) == {TRUNK: "hold", BEN: "connected", LINE: "connected"}
    cleo = await centre.screen("cleo")
    assert await refused(cleo, "call.make", to_agent="anna") == "target_busy"
    await ben.ask("call.complete", call=call)
    await become(centre, TRUNK, LINE)
    await anna.ask("call.park", call=call)
    await devices(centre, {PHONE: "Wait"})


async def test_click_to_dial_from_the_line(centre: Centre) -> None:
    anna = await off_hook(centre)
    answer = await anna.ask("call.make", to="1102")
    call = answer["call"]
    await anna.until(lambda: states(anna, call).get(BEN) == "connected", what="through")
    assert not anna.all("call.delivered", agent="anna")
    await queue_sees(centre, IN_USE)
    await anna.ask("call.hold", call=call)
    await anna.ask("call.retrieve", call=call)
    await become(centre, LINE, BEN)
    await anna.ask("call.hangup", call=call)
    await line_free(centre, anna)
    await anna.as_told()


async def test_a_supervisor_listens(centre: Centre) -> None:
    _, call, _ = await in_talk_on_line(centre)
    sara = await centre.screen("sara")
    assert sara.picture.agents["anna"]["lines"] == {"main": "open"}
    assert list(sara.picture.calls) == [call]
    for mode in ("listen", "whisper"):
        answer = await sara.ask(f"supervisor.{mode}", agent="anna")
        assert (answer["agent"], answer["call"], answer["mode"]) == ("anna", call, mode)
        spied = [r["ApplicationData"] for r in await centre.channels() if r["Application"] == "ChanSpy"]
        assert [one.partition("-0")[0] for one in spied] == [LINE]
    await sara.as_told()
    await sara.ask("supervisor.stop")


async def test_hold_at_the_phone(centre: Centre) -> None:
    party = await Party("127.0.0.1", centre.pbx.uas_port, (centre.pbx.host, centre.pbx.sip_port)).open()
    party.conduct["1003"] = Conduct(rings=0)
    party.sounds = True
    try:
        finn = await off_hook(centre, "finn")
        phone = await party.leg_of("1003")
        customer = await centre.call("billing", talk=120)
        call = (await finn.wait_for("call.established", agent="finn"))["data"]["call"]
        device = "Local/1003@cti-line"
        await phone.hold()
        held = await finn.wait_for("call.held", call=call)
        assert held["data"]["by"] == "phone"
        await phone.retrieve()
        await finn.wait_for("call.retrieved", call=call)
        assert states(finn, call) == {TRUNK: "connected", device: "connected"}
        await centre.hang_up(customer)
        await finn.wait_for("call.cleared", call=call)
        assert not phone.ended.is_set()
        await finn.agent_is("ready", lines={"main": "open"})
        phone.bye()
        await finn.agent_is("not_ready", reason="Line closed")
        await finn.as_told()
    finally:
        await party.close()


# ------------------------------------------------------------------------------------------ the line ends


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


async def test_an_administrator_sets_it_and_never_cuts_a_call(centre: Centre) -> None:
    anna, call, _ = await in_talk_on_line(centre)
    await administrator_sets(centre, False)
    await anna.wait_for("agent.off_hook_changed", agent="anna", off_hook=False)
    assert await on_the_line(centre)
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


# ------------------------------------------------------------------------------------------ restarts


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
        assert await on_the_line(centre)
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
    async with asyncio.timeout(10):
        while not await on_the_line(centre):
            await asyncio.sleep(0.05)
    await centre.hang_up(customer)
    await queue_sees(centre, FREE)
    await centre.call("sales", talk=120)
    async with asyncio.timeout(10):
        while not await on_the_line(centre):
            await asyncio.sleep(0.05)
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


# ------------------------------------------------------------------------------------------ a call for the line


async def waiting_customer(centre: Centre, **variables: str) -> str:
    """A customer whom we have called has answered and waits in the dialplan; the call's id."""
    id = f"attempt-{uuid.uuid4().hex[:8]}"
    await (await centre.ami("admin")).originate(
        {
            "Channel": "PJSIP/1000060@trunk",
            "Context": "cti-dialer",
            "Exten": "wait",
            "Priority": "1",
            "ChannelId": id,
            "Variable": [f"{name}={value}" for name, value in variables.items()],
        }
    )
    calls = centre._server.switches["main"].calls
    await centre.eventually(
        lambda: (view := calls.view(f"main:{id}")) is not None and view.connections[0].state == "connected",
        what="the customer has answered",
    )
    return f"main:{id}"


async def connecting_fails(centre: Centre, call: str, agent: str = "anna") -> str:
    with pytest.raises(CommandError) as caught:
        await centre._server.off_hook.connect(call, agent)
    return caught.value.code


async def test_a_waiting_customer_is_given_to_the_line(centre: Centre) -> None:
    anna = await off_hook(centre)
    call = await waiting_customer(centre)
    answer = await centre._server.off_hook.connect(call, "anna")
    assert answer.view is not None
    assert {c.device: c.state for c in answer.view.connections} == {TRUNK: "connected", LINE: "connected"}
    await become(centre, TRUNK, LINE)
    pop = await anna.wait_for("pop.shown", call=call)
    assert pop["data"]["view"]["direction"] == "outbound"
    assert await connecting_fails(centre, call) == "wrong_state"  # twice
    other = await waiting_customer(centre)
    assert await connecting_fails(centre, other) == "agent_not_free"
    assert await connecting_fails(centre, other, "ben") == "line_closed"
    assert await connecting_fails(centre, "main:nobody") == "unknown_call"
    await anna.ask("call.hangup", call=call)
    await line_free(centre, anna)
    await centre._server.off_hook.connect(other, "anna")
    await anna.as_told()


async def test_two_at_once_for_one_line(centre: Centre) -> None:
    anna = await off_hook(centre)
    calls = [await waiting_customer(centre) for _ in range(3)]
    came = await asyncio.gather(
        *(centre._server.off_hook.connect(call, "anna") for call in calls), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in came) == ["CallAnswer", "CommandError", "CommandError"]
    rows = await centre.channels()
    assert sum(row["Channel"].startswith(PHONE) for row in rows) == 1
    assert sum(row["Channel"].startswith(LINE) for row in rows) == 2  # one call: the two halves
    assert len(anna.picture.calls) == 1


async def test_asterisk_lets_one_call_only_on_the_line(centre: Centre) -> None:
    await off_hook(centre)
    calls = [await waiting_customer(centre) for _ in range(2)]
    await asyncio.gather(
        *(
            centre.admin("Redirect", Channel=call[5:], Context="cti-line-connect", Exten="1101", Priority="1")
            for call in calls
        )
    )
    async with asyncio.timeout(10):
        while True:
            doing = [
                row["Application"] for row in await centre.channels() if row["Channel"].startswith(TRUNK)
            ]
            if sorted(doing) == ["Dial", "Wait"]:
                break
            await asyncio.sleep(0.05)
    assert await on_the_line(centre)


async def test_a_line_that_asterisk_remembers_from_before_its_own_restart(centre: Centre) -> None:
    """Custom device states outlive Asterisk, lines do not: the first call finds out and goes to the phone itself."""
    ben, cleo = await centre.screen("ben"), await centre.screen("cleo")
    await centre.admin("Setvar", Variable="DEVICE_STATE(Custom:cti-line-1102)", Value="NOT_INUSE")
    answer = await cleo.ask("call.make", to_agent="ben")
    await ben.wait_for("call.delivered", agent="ben", call=answer["call"])
    state = await centre.admin("Getvar", Variable="DEVICE_STATE(Custom:cti-line-1102)")
    assert state["Value"] == "UNAVAILABLE"
    await become(centre, BEN, "PJSIP/1103")
