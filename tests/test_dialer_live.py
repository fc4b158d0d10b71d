"""Campaigns on a real Asterisk: from a row in the database to a conversation."""

from __future__ import annotations

import asyncio

import pytest

from tests.centre import Centre
from tests.dialer_house import (
    CALLER_IDS,
    as_asterisk_says,
    at_work,
    attempts,
    campaign,
    dialing_house,
    ended,
    number,
    quieted,
    shows,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
HOUSE = dialing_house
TIDIED = quieted


async def test_each_contact_is_called_once_and_talks(centre: Centre) -> None:
    anna, *_ = await at_work(centre, "anna", "ben", "cleo")
    olga = await centre.screen("olga")
    wanted = {
        number("human", 0, 2): "connected",
        number("human", 1, 3): "connected",
        number("busy"): "busy",
        number("unknown"): "invalid_number",
        number("rejects"): "rejected",
        number("congested"): "congestion",
        number("silent"): "no_answer",
    }
    id = await campaign(centre, list(wanted), mode="power", ratio=3, data={"tariff": "gold"})
    rows = await ended(centre, id, len(wanted))
    assert {row["e164"]: row["outcome"] for row in rows} == wanted
    assert len(rows) == len(wanted)
    await as_asterisk_says(centre, rows)
    talked = [row for row in rows if row["outcome"] == "connected"]
    assert all(row["agent"] in ("anna", "ben", "cleo") and row["waited"] < 2 for row in talked)
    assert {row["caller_id"] for row in rows} == set(CALLER_IDS)
    assert all(row["dialed"] <= row["ringing"] <= row["answered"] <= row["connected"] for row in talked)
    told = await olga.wait_for("attempt.connected", campaign=id)
    assert [f["type"] for f in olga.all("attempt.*", attempt=told["data"]["attempt"])][:3] == [
        "attempt.dialed",
        "attempt.answered",
        "attempt.connected",
    ]
    pops = [pop for screen in centre.screens for pop in screen.all("pop.shown")]
    assert {pop["data"]["call"] for pop in pops} == {f"main:{row['id']}" for row in talked}
    shown = pops[0]["data"]["view"]["data"]
    assert shown["tariff"] == "gold"
    assert shown["script"] == "Say hello."
    assert shown["list"].startswith("list of campaign")
    agent = next(screen for screen in centre.screens if screen.login == talked[0]["agent"])
    await agent.ask("call.dispose", call=f"main:{talked[0]['id']}", disposition="Sale")
    async with asyncio.timeout(10):
        while [row["disposition"] for row in await attempts(centre, id) if row["id"] == talked[0]["id"]] != [
            "Sale"
        ]:
            await asyncio.sleep(0.05)
    contacts = await centre.fetch(
        "SELECT e164, state, why FROM list_contacts c WHERE list_id = $1", rows[0]["list_id"]
    )
    states = {row["e164"]: row["state"] for row in contacts}
    assert [states[row["e164"]] for row in talked] == ["done", "done"]
    assert states[number("unknown")] == "exhausted"
    assert states[number("silent")] == "open"
    assert anna.picture.agents["anna"]["state"] in ("ready", "wrap_up")


async def test_detection_and_on_hook_agents_and_no_agents_at_once(centre: Centre) -> None:
    """Three campaigns: machines told from people, an agent who works on-hook, and a message without agents."""
    await at_work(centre, "dora")
    await at_work(centre, "anna", off_hook=False)
    world = await centre.ami("world")
    await world.send("Command", {"Command": "dialplan set global CUSTOMER_HELLO hello&silence/2"})
    human, machine = number("human", 0, 1), number("machine", 0, 1)
    try:
        told = await campaign(
            centre, [number("human", 0, 4), number("busy", 0, 7)], mode="agentless", queue=""
        )
        heard = await campaign(
            centre, [human, machine], mode="power", ratio=2, amd=True, queue="main:support"
        )
        id = await campaign(centre, [number("human", 1, 2)])
        rows = [*await ended(centre, id, 1), *await ended(centre, told, 2), *await ended(centre, heard, 2)]
    finally:
        await world.send("Command", {"Command": "dialplan set global CUSTOMER_HELLO beep"})
    by_number = {row["e164"]: row for row in rows}
    talked = by_number[number("human", 1, 2)]
    assert (talked["outcome"], talked["agent"], talked["queue"]) == ("connected", "anna", "main:sales")
    assert by_number[number("busy", 0, 7)]["outcome"] == "busy"
    message = by_number[number("human", 0, 4)]
    assert (message["outcome"], message["message_played"] is not None) == ("answered", True)
    person = by_number[human]
    assert (person["outcome"], person["agent"], person["amd"]) == ("connected", "dora", "HUMAN")
    assert person["waited"] < 1.2
    assert (by_number[machine]["outcome"], by_number[machine]["amd"]) == ("machine", "MACHINE")
    await as_asterisk_says(centre, rows)


async def test_a_list_for_some_is_called_one_for_one_and_comes_to_others_rather_than_to_nobody(
    centre: Centre,
) -> None:
    olga = await centre.screen("olga")
    _, ben, _ = await at_work(centre, "anna", "ben", "cleo")
    late = [number("human", 3, 1), number("human", 0, 1)]
    id = await campaign(centre, late, mode="power", ratio=3, ring_timeout_s=9, agents=["ben"])
    await shows(centre, id, lambda view: bool(view.calls), "a call")
    await ben.ask("agent.not_ready", reason="Break")
    (row,) = await ended(centre, id, 1)  # one call, since of three who are free only ben may have it
    assert (row["outcome"], row["agent"] in ("anna", "cleo")) == ("connected", True)
    assert row["why"] == f"list assigned to ben; given to {row['agent']}: no open line of theirs was free"
    told = await olga.wait_for("attempt.connected", attempt=row["id"])
    assert told["data"]["theirs"] is False
    view = await shows(centre, id, lambda view: view.held == "not_theirs", "waiting for ben")
    assert view.why.startswith("those whom the lists are assigned to are not free")
    assert len(await attempts(centre, id)) == 1
    await ben.ask("agent.ready")
    _, row = await ended(centre, id, 2)
    assert (row["outcome"], row["agent"], row["why"]) == ("connected", "ben", "")


async def test_a_paused_campaign_of_a_dead_server_is_settled_too(centre: Centre) -> None:
    """An attempt of a server that is gone, in a campaign that does not run: it ends, and its contact is free again."""
    id = await campaign(centre, [number("human", 0, 1)], state="paused")
    await centre.fetch(
        """
        WITH contact AS (
            UPDATE list_contacts SET state = 'in_hand', attempts = 1
             WHERE list_id = (SELECT id FROM call_lists WHERE campaign_id = $1) RETURNING id, list_id, e164)
        INSERT INTO attempts
               (id, campaign_id, list_id, contact_id, e164, pbx, mode, profile, owner, state, committed, dialed)
        SELECT 'at-' || repeat('a', 32), $1, list_id, id, e164, 'main', 'progressive', 'test', 'gone', 'dialed',
               now(), now()
          FROM contact RETURNING id
        """,
        id,
    )
    (row,) = await ended(centre, id, 1)
    assert (row["outcome"], row["why"]) == ("unknown", "ended while no server watched")
    (contact,) = await centre.fetch(
        "SELECT state, not_before > now() AS later FROM list_contacts WHERE id = $1", row["contact_id"]
    )
    assert (contact["state"], contact["later"]) == ("open", True)
