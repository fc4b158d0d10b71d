"""What tests of open lines share: a house with agents who work off-hook, and asking Asterisk itself how their lines are."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import asyncpg
import pytest

from cti import users
from cti.commands import CommandError
from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.call_desk import apps
from tests.centre import BRISK, Centre, Refusal, Screen, centre_of

PHONE, LINE = "PJSIP/1101", "Local/1101@cti-line"
AT_QUEUE = LINE + "/n"
FREE, IN_USE, GONE = "1", "2", "5"
"""Device states, as Asterisk's queues list them."""


@asynccontextmanager
async def house(installation: Installation, postgres: Postgres) -> AsyncIterator[Centre]:
    """A call centre in which a supervisor has a phone too."""
    at_once = replace(BRISK, wrap_seconds=0)
    async with centre_of(
        installation, postgres, behaviour=at_once, server=False, main={"ring_seconds": 6}
    ) as centre:
        db = await asyncpg.connect(centre.dsn)
        try:
            await users.set_interface(db, "sara", "main", "PJSIP/1109")
        finally:
            await db.close()
        await centre.start_server()
        yield centre


async def tidied(centre: Centre) -> None:
    """Between two tests: no calls, nobody off-hook, no lines."""
    if centre.server is None:
        await centre.start_server()
    olga = await centre.screen("olga")
    for call in list(olga.picture.calls):
        with suppress(Refusal):
            await olga.ask("call.clear", call=call)
    for login in ("anna", "ben", "finn"):
        if olga.picture.agents[login]["off_hook"]:
            await olga.ask("agent.set_off_hook", agent=login, off_hook=False)
    await centre.quiet()
    await devices(centre, {})


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


async def on_the_line(centre: Centre, within: float = 5.0) -> None:
    """Wait until the phone is in a bridge with the Local channel that stands for it in a call, as Asterisk says.

    The Local channel meets the customer some milliseconds before its other half meets the phone.
    """
    async with asyncio.timeout(within):
        while True:
            rows = await centre.channels()
            bridges = {row["Channel"].rpartition("-")[0]: row["BridgeId"] for row in rows if row["BridgeId"]}
            halves = {row["BridgeId"] for row in rows if row["Channel"].startswith(LINE)}
            if PHONE in bridges and bridges[PHONE] in halves:
                return
            await asyncio.sleep(0.05)


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
