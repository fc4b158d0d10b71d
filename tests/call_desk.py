"""What tests of call control share: setting the stage, and asking Asterisk itself who talks with whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cti.ami_events import fields_of
from tests.centre import ADMIN, SEATS, Centre, Refusal, Screen

CALLER_IDS = [
    {"show": "442079460151", "team": "service"},
    {"show": "442079460152", "prefix": "33"},
    {"show": "442079460153", "team": "sales"},
]
"""Which number calls to the outside show; as a setting of the PBX."""

TRUNK, ANNA, BEN, CLEO = "PJSIP/trunk", "PJSIP/1101", "PJSIP/1102", "PJSIP/1103"


async def in_talk(centre: Centre, login: str = "anna") -> tuple[Screen, str, str]:
    """An agent who talks with a customer: their screen, the call's id, the customer's id in the world."""
    screen = await centre.screen(login)
    await centre.log_on(screen)
    queue = next(seat for seat in SEATS if seat.login == login).queues[0].partition(":")[2]
    customer = await centre.call(queue, talk=120)
    told = await screen.wait_for("call.established", agent=login)
    return screen, told["data"]["call"], customer


async def put_rules(centre: Centre, document: dict[str, Any]) -> tuple[int, Any]:
    """Offer these routing rules, in place of those that are active now; status and answer."""
    status, now = await centre.rest("GET", "/api/v1/routing/rules", ADMIN)
    assert status == 200, now
    headers = {"If-Match": str(now["about"]["version"])}
    return await centre.rest("PUT", "/api/v1/routing/rules", ADMIN, json={"rules": document}, headers=headers)


def states(screen: Screen, call: str) -> dict[str, str]:
    """Who is in the call as the screen shows it: device → state."""
    shown = screen.picture.calls.get(call)
    return {c["device"]: c["state"] for c in shown["connections"]} if shown else {}


async def apps(centre: Centre) -> dict[str, str]:
    """What each channel of the PBX does, as Asterisk says: device → application."""
    return {row["Channel"].rpartition("-")[0]: row["Application"] for row in await centre.channels()}


async def bridged(centre: Centre, *devices: str) -> bool:
    """Whether these devices are in one bridge, as Asterisk says; joined Local channels count as one."""
    rows = await centre.channels()
    at = {row["Channel"].rpartition("-")[0]: row["BridgeId"] for row in rows}
    if any(not at.get(device) for device in devices):
        return False
    joined: dict[str, set[str]] = {}
    for row in rows:
        if row["Channel"].startswith("Local/") and row["BridgeId"]:
            joined.setdefault(row["Channel"].rpartition(";")[0], set()).add(row["BridgeId"])
    reached = {at[devices[0]]}
    for _ in rows:
        for ends in joined.values():
            if ends & reached:
                reached |= ends
    return all(at[device] in reached for device in devices)


async def become(centre: Centre, *devices: str, within: float = 8.0) -> None:
    """Wait until these devices talk with one another, as Asterisk says."""
    async with asyncio.timeout(within):
        while not await bridged(centre, *devices):
            await asyncio.sleep(0.05)


async def alone(centre: Centre, device: str, within: float = 8.0) -> None:
    """Wait until the PBX has no channel of this device."""
    async with asyncio.timeout(within):
        while device in await apps(centre):
            await asyncio.sleep(0.05)


async def refused(screen: Screen, op: str, **args: Any) -> str:
    """The code a command is refused with."""
    with pytest.raises(Refusal) as caught:
        await screen.ask(op, **args)
    return caught.value.code


async def consulting(centre: Centre) -> tuple[Screen, Screen, str, str]:
    """Anna talks with Ben about her caller."""
    anna, call, customer = await in_talk(centre)
    ben = await centre.screen("ben")
    await anna.ask("call.consult", call=call, to_agent="ben")
    await ben.wait_for("call.established", call=call, agent="ben")
    await anna.until(
        lambda: states(anna, call) == {TRUNK: "hold", ANNA: "connected", BEN: "connected"}, what="consulting"
    )
    return anna, ben, call, customer


async def shown_outside(centre: Centre, within: float = 8.0) -> str:
    """The number that a called customer sees."""
    link = await centre.ami("world")
    async with asyncio.timeout(within):
        while True:
            rows = [fields_of(row) for row in await link.query("CoreShowChannels")]
            found = [row["CallerIDNum"] for row in rows if row.get("Context", "").startswith("kind-")]
            if found:
                return found[0]
            await asyncio.sleep(0.05)
