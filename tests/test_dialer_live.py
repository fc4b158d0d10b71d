"""Campaigns on a real Asterisk: from a row in the database to a conversation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dialer.attempts import HEARD_BEFORE
from dialer.calling.switchboard import originate_headers
from dialer.management.settings import Campaign, CampaignSettings
from tests.centre import ADMIN, Centre, Refusal
from tests.dialer_house import (
    CALLER_IDS,
    QUICK,
    TRUNK,
    Told,
    as_asterisk_says,
    at_work,
    attempts,
    campaign,
    dialing_house,
    ended,
    number,
    quieted,
    shows,
    state,
    told_by_asterisk,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
HOUSE = dialing_house
TIDIED = quieted

SAYS: dict[str, Any] = {
    "wrap_up": {"mandatory": True},
    "dispositions": [
        {"code": "sale", "label": "Sale", "category": "conversion"},
        {"code": "later", "label": "Call again", "category": "call_back"},
    ],
}
"""What agents must say of a campaign's talks."""


async def test_each_contact_is_called_once_and_talks(centre: Centre) -> None:
    await at_work(centre, "anna", "ben", "cleo")
    olga = await centre.screen("olga")
    wanted = {
        number("human", 0, 2): "connected",
        number("human", 1, 3): "connected",
        number("busy"): "busy",
        number("unknown"): "invalid_number",
        number("rejects"): "rejected",
        number("congested"): "congestion",
        number("silent"): "no_answer",
        number("rings late", 3): "no_answer",
    }
    id = await campaign(centre, list(wanted), mode="power", ratio=3, data={"tariff": "gold"}, **SAYS)
    rows = await ended(centre, id, len(wanted))
    assert {row["e164"]: row["outcome"] for row in rows} == wanted
    assert len(rows) == len(wanted)
    await as_asterisk_says(centre, rows)
    talked = [row for row in rows if row["outcome"] == "connected"]
    assert all(row["agent"] in ("anna", "ben", "cleo") and row["waited"] < 2 for row in talked)
    assert {(row["wait_s"], row["wait_from"]) for row in talked} == {(2, "answer")}
    # In vain it rang as long as the law has it, also where that began when its time was over.
    for row in (row for row in rows if row["outcome"] == "no_answer"):
        assert (row["ended"] - row["ringing"]).total_seconds() >= QUICK["min_ring_s"]
        assert (row["ended"] - row["dialed"]).total_seconds() >= QUICK["ring_timeout_s"]
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
    (view,) = [one for one in agent.picture.campaigns.values() if str(one["id"]) == shown["campaign_id"]]
    assert view["wrap_up"]["dispositions"] == [
        {"code": one["code"], "label": one["label"], "category": one["category"]}
        for one in SAYS["dispositions"]
    ]
    for row, word in zip(talked, ("sale", "later"), strict=True):
        screen = next(screen for screen in centre.screens if screen.login == row["agent"])
        await screen.agent_is("wrap_up", pending="disposition", call=f"main:{row['id']}")
        with pytest.raises(Refusal, match=r"use one of: sale \(Sale\), later \(Call again\)"):
            await screen.ask("call.dispose", call=f"main:{row['id']}", disposition="Sale")
        await screen.ask("call.dispose", call=f"main:{row['id']}", disposition=word)
        await screen.agent_is("ready")
    said = {row["id"]: row["disposition"] for row in await attempts(centre, id)}
    assert [said[row["id"]] for row in talked] == ["sale", "later"]
    _, now = await centre.rest("GET", f"/api/v1/campaigns/{id}/now", ADMIN)
    assert (now["dispositions"], now["converted"]) == ({"later": 1, "sale": 1}, {"sale": 1})
    contacts = await centre.fetch(
        "SELECT e164, state, why FROM list_contacts c WHERE list_id = $1", rows[0]["list_id"]
    )
    states = {row["e164"]: row["state"] for row in contacts}
    assert [states[row["e164"]] for row in talked] == ["done", "open"]
    assert states[number("unknown")] == "exhausted"
    assert states[number("silent")] == "open"


async def test_detection_and_on_hook_agents_and_no_agents_at_once(centre: Centre) -> None:
    """Five campaigns: machines told from people and left a message after their beep, an agent who works on-hook, a message
    without agents, machines that hang up in the middle of theirs or talk on and on, and one that is stopped while it rings.
    And calls of which no server knows: the dialplan alone keeps to the wait."""
    await at_work(centre, "dora")
    await at_work(centre, "anna", off_hook=False)
    world = await centre.ami("world")
    await world.send("Command", {"Command": "dialplan set global CUSTOMER_HELLO hello&silence/2"})
    human, machine = number("human", 0, 1), number("machine", 0, 9)
    hangs_up, talks_on = number("machine", 0, 1), number("opts_out", 0, 30)
    on_machines = {"amd": True, "machine_message_to": "all", "machine_silence_s": 1, "machine_wait_s": 5}
    again = {"retries": {"machine": {"after_minutes": [60]}}}
    try:
        told = await campaign(
            centre, [number("human", 0, 4), number("busy", 0, 7)], mode="agentless", queue=""
        )
        heard = await campaign(
            centre,
            [human, machine],
            mode="power",
            ratio=2,
            queue="main:support",
            profile="patient",
            answer_wait_s=12,
            machine_message="vm-goodbye",
            **on_machines,
        )
        cut = await campaign(
            centre,
            [hangs_up, talks_on],
            mode="agentless",
            queue="",
            profile="greeting",
            machine_message="demo-congrats",
            **on_machines,
            **again,
        )
        id = await campaign(centre, [number("human", 1, 2)])
        not_there = await campaign(
            centre, [number("human", 0, 5)], mode="agentless", queue="", message="custom/nothing"
        )
        halted = await campaign(
            centre, [number("silent", 0, 9)], mode="agentless", queue="", min_ring_s=3, ring_timeout_s=9
        )
        await shows(centre, halted, lambda view: view.calls.get("ringing") == 1, "ringing")
        for step in ("paused", "draining", "stopped"):
            await state(centre, halted, step)
        await asyncio.gather(
            *(
                the_dialplan_alone(centre, "at-" + letter * 32, called=called, knows=knows, **how)
                for letter, called, knows, how in (
                    ("a", number("human", 0, 30), "", {}),
                    ("b", number("mute", 0, 30), "NOTSURE TOOLONG-1.7", {"amd": True}),
                    ("c", number("human", 0, 31), "HUMAN", {"amd": True, "wait_from": "greeting"}),
                )
            )
        )
        rows = [
            row
            for one, many in ((id, 1), (told, 2), (heard, 2), (cut, 2), (halted, 1), (not_there, 1))
            for row in await ended(centre, one, many)
        ]
    finally:
        await world.send("Command", {"Command": "dialplan set global CUSTOMER_HELLO beep"})
        recorded = await world.send("Command", {"Command": "database show machine"})
    by_number = {row["e164"]: row for row in rows}
    talked = by_number[number("human", 1, 2)]
    assert (talked["outcome"], talked["agent"], talked["queue"]) == ("connected", "anna", "main:sales")
    assert by_number[number("busy", 0, 7)]["outcome"] == "busy"
    message = by_number[number("human", 0, 4)]
    assert (message["outcome"], message["message_played"] is not None) == ("answered", True)
    person = by_number[human]
    assert (person["outcome"], person["agent"], person["amd"]) == ("connected", "dora", "HUMAN")
    assert person["waited"] >= person["amd_s"]  # from the answer, what detection takes included
    assert (person["counts_as"], person["wait_s"], person["wait_from"]) == ("in_time", 12, "answer")
    unheard = by_number[number("human", 0, 5)]
    assert (unheard["outcome"], unheard["counts_as"], unheard["message_played"]) == (
        "abandoned",
        "nobody",
        None,
    )
    assert unheard["why"] == "the PBX could not play the message custom/nothing: is it there?"
    given_up = by_number[number("silent", 0, 9)]
    assert given_up["outcome"] == "cancelled"
    assert (given_up["ended"] - given_up["ringing"]).total_seconds() >= 3
    left = by_number[machine]
    assert (left["outcome"], left["amd"], left["detail"]) == ("machine", "MACHINE", "message_left")
    assert left["why"] == "the message vm-goodbye was left on the machine"
    assert left["amd_cause"].partition("-")[0] in ("LONGGREETING", "MAXWORDS")
    assert left["amd_s"] < (left["message_played"] - left["answered"]).total_seconds()
    assert [by_number[one]["detail"] for one in (hangs_up, talks_on)] == ["message_cut", "no_pause"]
    assert recorded["Output"].count("NOISE") == 2, recorded  # after the beep, not into the greeting
    status, found = await centre.rest("GET", f"/api/v1/campaigns/{heard}/detection", ADMIN)
    assert (status, found["looked_at"], found["people"], found["machines"], found["talked"]) == (
        200,
        2,
        1,
        1,
        1,
    )
    assert found["messages"] == {"message_left": 1}
    assert {one["verdict"] for one in found["verdicts"]} == {"HUMAN", "MACHINE"}
    assert all(0 < one["p50_s"] <= one["p95_s"] for one in found["verdicts"])
    contacts = await centre.fetch(
        "SELECT e164, state, why, last_outcome FROM list_contacts WHERE e164 = ANY ($1)",
        [machine, hangs_up, talks_on],
    )
    assert {row["e164"]: (row["state"], row["last_outcome"]) for row in contacts} == {
        machine: ("exhausted", "message_left"),
        hangs_up: ("open", "machine"),
        talks_on: ("open", "machine"),
    }
    await as_asterisk_says(centre, rows)


async def the_dialplan_alone(
    centre: Centre, attempt: str, *, called: str, knows: str, **settings: Any
) -> None:
    """A call as the dialer places it, and nobody comes: by Asterisk's own clock the message begins when the wait is over."""
    of = Campaign(
        id=1,
        name="alone",
        mode="power",
        state="running",
        profile="test",
        priority=0,
        settings=CampaignSettings(team="sales", message="beep", **settings),
        version=1,
    )
    channel = str(TRUNK["dial"]).replace("{number}", called)
    headers = originate_headers(of, attempt=attempt, channel=channel, caller_id="", off_hook=True)
    async with told_by_asterisk(centre) as next:
        await (await centre.ami("admin")).originate(headers)
        await message_in_time(next, attempt, knows=knows, from_greeting=of.settings.wait_from == "greeting")
    await centre.admin("Hangup", Channel=attempt)


async def message_in_time(next: Told, attempt: str, *, knows: str, from_greeting: bool = False) -> None:
    """Asserts by what Asterisk tells that nobody came in two seconds, and the message began; `knows`: what AMD said."""
    begins = float((await next("OriginateResponse", attempt))["Timestamp"])
    if knows:
        known = await next("CtiAmd", attempt)
        assert f"{known['Status']} {known['AmdCause']}".startswith(knows)
        if from_greeting:
            begins = float(known["Timestamp"]) - HEARD_BEFORE
    while (event := await next("CtiDialer", attempt))["Is"] != "nobody":
        assert event["Is"] == "waiting"
    lost, message = float(event["Timestamp"]), await next("CtiDialer", attempt)
    assert message["Is"] == "message"
    assert 1.9 <= lost - begins <= 2.9
    assert float(message["Timestamp"]) - lost <= 0.9


async def test_on_hook_agents_get_calls_from_the_queue_whoever_answers(centre: Centre) -> None:
    """Asterisk's queue chooses: anna's phone rings in vain, ben's is answered, and the attempt is his, with the time that
    the customer has waited; the contact is on his screen before the voice. Who waits there in vain counts as lost."""
    anna, ben = await at_work(centre, "anna", "ben", off_hook=False)
    olga = await centre.screen("olga")
    await ben.ask("agent.not_ready", reason="Break")
    await centre.phone("1101", mode="silent")
    one = number("human", 0, 12)
    id = await campaign(centre, [one], profile="patient", answer_wait_s=12, data={"tariff": "gold"}, **SAYS)
    await anna.agent_is("reserved")
    await ben.ask("agent.ready")
    talk = await ben.wait_for("call.established", agent="ben")
    await ben.ask("call.clear", call=talk["data"]["call"])
    (row,) = await ended(centre, id, 1)
    assert (row["outcome"], row["agent"], row["queue"]) == ("connected", "ben", "main:sales")
    assert row["counts_as"] == "in_time"
    waited = (row["connected"] - row["answered"]).total_seconds()
    assert waited == pytest.approx(row["waited"], abs=0.01)
    assert row["waited"] >= talk["data"]["waited"] - 0.1 >= 2.5  # anna's phone had three seconds
    missed = await olga.wait_for("call.diverted", agent="anna")
    assert (missed["data"]["call"], missed["data"]["reason"]) == (f"main:{row['id']}", "no_answer")
    told = await olga.wait_for("attempt.connected", attempt=row["id"])
    assert (told["data"]["agent"], told["data"]["waited"]) == ("ben", pytest.approx(row["waited"], abs=0.01))
    (pop,) = ben.all("pop.shown")
    assert ben.arrival(pop) <= ben.arrival(talk)
    shown = pop["data"]["view"]
    assert (shown["call"], shown["state"]) == (f"main:{row['id']}", "offered")
    wanted = {
        "tariff": "gold",
        "script": "Say hello.",
        "contact": str(row["contact_id"]),
        "name": "Customer 0",
    }
    assert wanted.items() <= shown["data"].items()
    await ben.agent_is("wrap_up", pending="disposition")
    await ben.ask("call.dispose", call=f"main:{row['id']}", disposition="sale")
    await ben.ask("agent.not_ready", reason="Break")
    await anna.ask("agent.ready")
    async with told_by_asterisk(centre) as next:
        in_vain = await campaign(centre, [number("mute", 0, 4)], amd=True, **SAYS)
        (lost,) = await ended(centre, in_vain, 1)
        await message_in_time(next, lost["id"], knows="NOTSURE TOOLONG-0.9")  # anna's phone rang meanwhile
    assert (lost["outcome"], lost["counts_as"], lost["agent"]) == ("abandoned", "nobody", None)
    assert (lost["amd"], lost["amd_cause"], lost["wait_s"]) == ("NOTSURE", "TOOLONG-0.9", 2)
    status, proof = await centre.rest("GET", f"/api/v1/campaigns/{in_vain}/evidence.jsonl", ADMIN)
    assert proof["ring_s"] >= 0
    assert {step["rule"] for step in proof["checks"]} >= {
        "calling_hours",
        "do_not_call",
        "attempts_per_number",
    }
    assert (proof["message_played"] > proof["answered"], proof["list_version"] >= 1) == (True, True)
    assert (status, proof["wait_from"], proof["to_agent_s"], proof["counts_as"]) == (
        200,
        "answer",
        None,
        "nobody",
    )
    assert lost["message_played"] is not None
    _, now = await centre.rest("GET", f"/api/v1/campaigns/{in_vain}/now", ADMIN)
    assert (now["live"], now["lost"], now["nobody"], now["today"]["abandoned"]) == (1, 1.0, 1, 1)
    await as_asterisk_says(centre, [row, lost])


async def test_a_call_promised_in_a_campaigns_call_is_kept_by_who_promised_it(centre: Centre) -> None:
    """Nobody else calls them meanwhile, the agent has the campaign's script again, and the attempt has what came of it."""
    (anna,) = await at_work(centre, "anna")
    world = await centre.ami("world")
    await world.send("Command", {"Command": "dialplan set global CUSTOMER_DELAY 0"})
    promised, busy = "+441632960185", number("busy", 0, 3)
    id = await campaign(centre, [promised], data={"tariff": "gold"}, name="Promises")
    call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
    due = datetime.now(UTC) + timedelta(seconds=3)
    view = await anna.ask("call.call_back", call=call, at=due.isoformat(), note="has a visitor")
    assert (view["number"], view["name"], view["zone"]) == (promised, "Customer 0", "Europe/London")
    assert (view["agent"], view["call"]) == ("anna", call)
    await anna.ask("call.dispose", call=call, disposition="Call later")
    await anna.ask("call.clear", call=call)
    await ended(centre, id, 1)
    await centre.fetch(
        """INSERT INTO list_contacts (list_id, name, e164, zone_group, priority)
           SELECT list_id, 'Twice in the list', n, zone_group, 10 FROM list_contacts, unnest($2::text[]) AS n
            WHERE e164 = $1 AND list_id = (SELECT id FROM call_lists WHERE campaign_id = $3) RETURNING id""",
        *(promised, [promised, busy], id),
    )
    rows = await ended(centre, id, 2)
    assert [row["e164"] for row in rows] == [promised, busy]
    (twice,) = await centre.fetch(
        "SELECT state, why FROM list_contacts WHERE e164 = $1 AND priority = 10", promised
    )
    assert twice["state"] == "open"
    assert "anna has promised to call back on" in twice["why"]
    await anna.wait_for("call_back.due", call_back=view["id"])
    taken = (await anna.ask("call_back.take", call_back=view["id"]))["call"]["call"]
    await anna.wait_for("call.established", call=taken)
    shown = {"call_back": str(view["id"]), "script": "Say hello.", "tariff": "gold", "campaign": "Promises"}
    await anna.until(lambda: shown.items() <= anna.picture.calls[taken]["data"].items(), what="the script")
    await anna.ask("call.dispose", call=taken, disposition="Sale")
    await anna.ask("call_back.done", call_back=view["id"], outcome="sold")
    async with asyncio.timeout(20):
        while (await attempts(centre, id))[0]["disposition"] != "Sale":
            await asyncio.sleep(0.05)
    assert await centre.fetch("SELECT * FROM promised_numbers") == []


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
    how = f"given to {row['agent']}: no open line of theirs was free", f"the queue gave it to {row['agent']}"
    assert row["why"] in [f"list assigned to ben; {one}" for one in how]  # the queue: the server was slow
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
    no_sounds = await campaign(
        centre, [], state="draft", message="custom/nothing", machine_message="vm-goodbye"
    )
    async with asyncio.timeout(30):  # campaigns are read again every second
        while (answer := await centre.rest("GET", f"/api/v1/campaigns/{no_sounds}/obstacles", ADMIN))[
            0
        ] == 404:
            await asyncio.sleep(0.1)
    told = {one["code"]: one["says"] for one in answer[1]["items"]}
    assert "the PBX has no sound custom/nothing in its language" in told["no_sound"]
    assert sum("has no sound" in one["says"] for one in answer[1]["items"]) == 1
    (contact,) = await centre.fetch(
        "SELECT state, not_before > now() AS later FROM list_contacts WHERE id = $1", row["contact_id"]
    )
    assert (contact["state"], contact["later"]) == ("open", True)
