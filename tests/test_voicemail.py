"""Voicemail as the end of a queue, on a real Asterisk: the message is there, told, and on the caller's record."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.call_desk import put_rules
from tests.centre import ADMIN, Centre

pytestmark = pytest.mark.asyncio(loop_scope="module")

SALES = {"id": "sales", "numbers": ["5550100"], "queue": "sales"}
BOX = {"voicemail": "100@default"}


async def put(centre: Centre, **document: Any) -> tuple[int, Any]:
    """Offer these rules; status and answer."""
    return await put_rules(centre, {"entries": [SALES], **document})


async def asked(centre: Centre) -> None:
    """Wait until the dialplan asks; and have a decision made once, so that the first call's is not the first of all."""
    status, _ = await centre.rest(
        "POST", "/api/v1/routing/what-if", ADMIN, json={"from": "+447700900121", "to": "5550100"}
    )
    assert status == 200
    async with asyncio.timeout(10):
        while (await centre.admin("Getvar", Variable="CTI_ROUTING"))["Value"] != "on":
            await asyncio.sleep(0.02)


async def test_who_overflows_into_voicemail_is_not_lost(centre: Centre) -> None:
    status, told = await put(centre, queues={"sales": {"seconds": 1, "timed_out": BOX}})
    assert status == 200, told
    await asked(centre)
    sara, olga = await centre.screen("sara"), await centre.screen(ADMIN)
    customer = await centre.call("sales", "+447700900121", talk=60)
    call = (await olga.wait_for("call.queued", queue="main:sales"))["data"]["call"]
    await olga.wait_for("call.diverted", call=call, queue="main:sales", within=15)
    async with asyncio.timeout(20):
        while not any(row["Application"] == "VoiceMail" for row in await centre.channels()):
            await asyncio.sleep(0.05)
    folder = centre.pbx.run_dir / "spool" / "voicemail" / "default" / "100"
    world = await centre.ami("world")
    async with asyncio.timeout(30):  # the greeting, which # ends, and the tone; then it records
        await world.send("PlayDTMF", {"Channel": customer, "Digit": "#"})
        while not any(one.stat().st_size > 30_000 for one in folder.glob("**/*.wav")):
            await asyncio.sleep(0.1)
    await centre.hang_up(customer)
    left = (await sara.wait_for("call.voicemail_left", call=call))["data"]
    assert left["mailbox"] == "100@default"
    assert left["view"]["data"]["Voicemail"] == "100@default"
    waiting = (await sara.wait_for("voicemail.waiting", mailbox="100@default"))["data"]
    assert (waiting["pbx"], waiting["new"]) == ("main", 1)
    assert list((folder / "INBOX").glob("msg0000.*"))
    row = await centre.interaction_of(call)
    async with asyncio.timeout(10):
        while not (
            notes := (await centre.rest("GET", f"/api/v1/interactions/{row['id']}", ADMIN))[1]["notes"]
        ):
            await asyncio.sleep(0.05)
    assert [(note["author"], note["text"]) for note in notes] == [
        ("system", "Left a message in mailbox 100@default.")
    ]


async def test_who_leaves_no_message_leaves_nothing(centre: Centre) -> None:
    status, _ = await put(
        centre,
        entries=[{**SALES, "calendar": "never", "closed": {**BOX, "sounds": ["beep"]}}],
        calendars={"never": {"zone": "UTC"}},
    )
    assert status == 200
    await asked(centre)
    olga = await centre.screen(ADMIN)
    customer = await centre.call("sales", "+447700900131", talk=60)
    call = (await olga.wait_for("call.originated"))["data"]["call"]
    async with asyncio.timeout(20):
        while not any(row["Application"] == "VoiceMail" for row in await centre.channels()):
            await asyncio.sleep(0.03)
    await centre.hang_up(customer)
    await olga.wait_for("call.cleared", call=call)
    assert not olga.all("call.voicemail_left")


async def test_a_mailbox_that_cannot_be_had_is_refused_before_the_rules_are_active(centre: Centre) -> None:
    missing = {"sales": {"timed_out": {"voicemail": "999@default"}}}
    status, told = await put(centre, queues=missing)
    assert (status, told["code"]) == (422, "wrong_rules")
    assert "queues.sales.timed_out.voicemail: main has no mailbox 999@default" in told["detail"]
    status, _ = await centre.rest("POST", "/api/v1/routing/check", ADMIN, json={"rules": {"queues": missing}})
    assert status == 422
    both = {"sales": {"timed_out": {"voicemail": "100@default", "queue": "support"}}}
    assert (await put(centre, queues=both))[0] == 422
    assert (await put(centre, queues={"sales": {"timed_out": {"voicemail": "100"}}}))[0] == 422
    await asyncio.to_thread(centre.pbx.cli, "module unload app_voicemail.so")
    try:
        status, told = await put(centre, queues={"sales": {"timed_out": BOX}})
        assert status == 422
        assert "main has no voicemail: load app_voicemail.so" in told["detail"]
    finally:
        await asyncio.to_thread(centre.pbx.cli, "module load app_voicemail.so")
    assert (await put(centre, queues={"sales": {"timed_out": BOX}}))[0] == 200


async def test_a_mailbox_that_has_gone_since_leaves_the_call_its_default_way(centre: Centre) -> None:
    closed = {**SALES, "calendar": "never", "closed": BOX}
    assert (await put(centre, entries=[closed], calendars={"never": {"zone": "UTC"}}))[0] == 200
    await asked(centre)
    await asyncio.to_thread(centre.pbx.cli, "module unload app_voicemail.so")
    try:
        await centre.call("sales", "+447700900121")
        async with asyncio.timeout(15):
            while not any(row.get("Event") == "QueueEntry" for row in await centre.rows("QueueStatus")):
                await asyncio.sleep(0.03)
    finally:
        await asyncio.to_thread(centre.pbx.cli, "module load app_voicemail.so")
