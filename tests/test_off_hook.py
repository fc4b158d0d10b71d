"""Agents who work off-hook, on a real Asterisk with real SIP phones: one open line, a beep, and the caller is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.call_desk import TRUNK, apps, refused, states
from tests.centre import Centre, Refusal, Screen, centre_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE, LINE = "PJSIP/1101", "Local/1101@cti-line"
AT_QUEUE = LINE + "/n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    async with centre_of(asterisk_installation, postgres_server, main={"ring_seconds": 6}) as centre:
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
    for login in ("anna", "ben"):
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
