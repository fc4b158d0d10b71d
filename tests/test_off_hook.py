"""Agents who work off-hook, on a real Asterisk with real SIP phones: one open line, a beep, and the caller is there."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.call_desk import BEN, TRUNK, alone, apps, become, refused, states
from tests.centre import Centre, Refusal
from tests.line_desk import (
    FREE,
    GONE,
    IN_USE,
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
    waiting_customer,
)
from tests.sip_party import Conduct, Party

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOUSE, TIDIED = house, tidied


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
    await on_the_line(centre)
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
    """Without the server's help. Of two at the same instant both may be turned away, never both let in."""
    await off_hook(centre)
    calls = [(await waiting_customer(centre)).partition(":")[2] for _ in range(2)]
    place = {"Context": "cti-line-connect", "Exten": "1101", "Priority": "1"}

    async def doing() -> list[str]:
        return sorted(r["Application"] for r in await centre.channels() if r["Uniqueid"] in calls)

    async with asyncio.timeout(30):
        while await doing() != ["Dial", "Wait"]:
            if await doing() == ["Wait", "Wait"]:
                await asyncio.gather(*(centre.admin("Redirect", Channel=call, **place) for call in calls))
            await asyncio.sleep(0.3)
            rows = [r for r in await centre.channels() if r["Uniqueid"] in calls]
            assert sum(bool(r["BridgeId"]) for r in rows) <= 1
    await on_the_line(centre)
    assert (
        sum(row["Channel"].startswith(LINE) for row in await centre.channels()) == 2
    )  # the two halves of one


async def test_a_line_that_asterisk_remembers_from_before_its_own_restart(centre: Centre) -> None:
    """Custom device states outlive Asterisk, lines do not: the first call finds out and goes to the phone itself."""
    ben, cleo = await centre.screen("ben"), await centre.screen("cleo")
    await centre.admin("Setvar", Variable="DEVICE_STATE(Custom:cti-line-1102)", Value="NOT_INUSE")
    answer = await cleo.ask("call.make", to_agent="ben")
    await ben.wait_for("call.delivered", agent="ben", call=answer["call"])
    state = await centre.admin("Getvar", Variable="DEVICE_STATE(Custom:cti-line-1102)")
    assert state["Value"] == "UNAVAILABLE"
    await become(centre, BEN, "PJSIP/1103")
