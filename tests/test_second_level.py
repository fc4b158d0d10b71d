"""Second level on a real Asterisk: a queue is asked about a caller, and a call is escalated with all that is known of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.call_desk import ANNA, BEN, TRUNK, alone, become, in_talk, put_rules, refused, states
from tests.centre import ADMIN, Centre, Refusal, Screen

pytestmark = pytest.mark.asyncio(loop_scope="module")
CENTRE = {"main": {"ring_seconds": 4}}

DORA, EMIL = "PJSIP/1104", "PJSIP/1105"
SUPPORT = "main:support"
UP = {
    "id": "up",
    "queues": ["sales"],
    "to": "support",
    "priority": 7,
    "seconds": 5,
    "otherwise": "emergency",
}


async def rules(centre: Centre, **document: Any) -> None:
    """Make these the rules; they are active when this returns."""
    status, told = await put_rules(centre, document)
    assert status == 200, told


async def waits_in(centre: Centre) -> list[tuple[str, str, str]]:
    """Who waits in queues of Asterisk: queue, device, priority."""
    rows = [row for row in await centre.rows("QueueStatus") if row.get("Event") == "QueueEntry"]
    return [(row["Queue"], row["Channel"].rpartition("-")[0], row["Priority"]) for row in rows]


async def come_to_wait(centre: Centre, *wanted: tuple[str, str, str], within: float = 15) -> None:
    """Wait until just these wait."""
    async with asyncio.timeout(within):
        while sorted(await waits_in(centre)) != sorted(wanted):
            await asyncio.sleep(0.05)


# ------------------------------------------------------------------------------------------ a queue is asked


async def asking(centre: Centre) -> tuple[Screen, Screen, str, str]:
    """Anna talks with whoever of support has taken it (Dora), her caller hears music."""
    anna, call, customer = await in_talk(centre)
    dora = await centre.screen("dora")
    await centre.log_on(dora)
    await anna.ask("call.set_data", call=call, data={"Serial": "S-17"})
    await anna.ask("call.consult", call=call, to_queue=SUPPORT)
    await dora.wait_for("call.established", call=call, agent="dora")
    await anna.until(
        lambda: states(anna, call) == {TRUNK: "hold", ANNA: "connected", DORA: "connected"}, what="consulting"
    )
    return anna, dora, call, customer


async def test_whoever_of_a_queue_answers_is_asked_and_takes_it(centre: Centre) -> None:
    anna, dora, call, _ = await asking(centre)
    pop = (await dora.wait_for("pop.shown", call=call))["data"]["view"]
    assert (pop["consulted_by"], pop["data"]["Serial"]) == ("anna", "S-17")
    assert pop["e164"] == "+442071838750"
    established = (await dora.wait_for("call.established", agent="dora"))["data"]
    assert established["queue"] == SUPPORT
    assert not [f for f in anna.all("call.established", agent="anna") if f["data"]["queue"] == SUPPORT]
    assert anna.picture.calls[call]["queue"] == "main:sales"
    assert anna.picture.agents["anna"]["state"] == "busy"
    await become(centre, ANNA, DORA)
    await anna.ask("call.alternate", call=call)
    await become(centre, ANNA, TRUNK)
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected", DORA: "hold"}
    await anna.ask("call.alternate", call=call)
    await become(centre, ANNA, DORA)
    await anna.ask("call.complete", call=call)
    await become(centre, TRUNK, DORA)
    await alone(centre, ANNA)
    told = await dora.until(
        lambda: next((p for p in dora.picture.pops.values() if p["transferred_by"]), None),
        what="told by whom",
    )
    assert told["transferred_by"] == "anna"
    await dora.as_told()


async def test_a_consultation_with_a_queue_is_cancelled(centre: Centre) -> None:
    anna, _, call, _ = await asking(centre)
    await anna.ask("call.cancel", call=call)
    await become(centre, ANNA, TRUNK)
    await alone(centre, DORA)
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}
    await anna.ask("call.hold", call=call)
    await anna.ask("call.retrieve", call=call)


async def test_nobody_takes_it_and_the_agent_is_back_with_the_caller(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    dora = await centre.screen("dora")
    await centre.phone("1104", mode="silent")
    await centre.log_on(dora)
    olga = await centre.screen(ADMIN)
    answer = await anna.ask("call.consult", call=call, to_queue=SUPPORT, wait=5)
    shown = {c["device"]: c["state"] for c in answer["view"]["connections"]}
    assert shown[TRUNK] == "hold"
    await dora.wait_for("pop.shown", call=call)
    assert anna.picture.agents["anna"]["state"] == "busy"
    assert olga.picture.queues[SUPPORT]["waiting"]
    diverted = await olga.wait_for("call.diverted", call=call, queue=SUPPORT, agent=None, within=20)
    assert diverted["data"]["reason"] == "timed_out"
    await become(centre, ANNA, TRUNK)
    await anna.until(lambda: states(anna, call) == {TRUNK: "connected", ANNA: "connected"}, what="back")
    assert not olga.picture.queues[SUPPORT]["waiting"]
    await dora.until(lambda: not dora.picture.pops, what="the pop withdrawn")
    await anna.as_told()


async def test_waiting_in_the_queue_is_cancelled_or_completed(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    dora = await centre.screen("dora")
    await centre.phone("1104", mode="silent")
    await centre.log_on(dora)
    await anna.ask("call.consult", call=call, to_queue=SUPPORT)
    assert await refused(anna, "call.consult", call=call, to_queue=SUPPORT) == "wrong_state"
    await anna.ask("call.cancel", call=call)
    await become(centre, ANNA, TRUNK)
    assert not await waits_in(centre)
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}
    await anna.ask("call.consult", call=call, to_queue=SUPPORT, priority=3)
    await come_to_wait(centre, ("support", ANNA, "3"))
    await anna.ask("call.complete", call=call)
    await come_to_wait(centre, ("support", TRUNK, "3"))
    await alone(centre, ANNA)


@pytest.mark.parametrize("how", ["completed", "completed, the queue full", "put down"])
async def test_a_caller_who_is_handed_to_the_queue_in_the_agents_place_keeps_it(
    centre: Centre, how: str
) -> None:
    anna, call, _ = await in_talk(centre)
    olga = await centre.screen(ADMIN)
    dora = await centre.screen("dora")
    await centre.phone("1104", mode="silent")
    await centre.log_on(dora)
    await centre.dial("1110", "6200")
    await come_to_wait(centre, ("support", "PJSIP/1110", "0"))
    await anna.ask("call.consult", call=call, to_queue=SUPPORT)
    await centre.dial("1111", "6200")
    before, behind = ("support", "PJSIP/1110", "0"), ("support", "PJSIP/1111", "0")
    await come_to_wait(centre, before, ("support", ANNA, "0"), behind)
    queues = centre.pbx.run_dir / "etc" / "queues.conf"
    written = queues.read_text()
    assert written.count("[support](q)\n") == 1
    try:
        if how == "completed, the queue full":
            queues.write_text(written.replace("[support](q)\n", "[support](q)\nmaxlen=3\n"))
            await centre.admin("Command", Command="module reload app_queue.so")
        if how == "put down":
            urgent = ("support", BEN, "9")  # two come ahead, one of them goes on when the agent has gone
            await centre.admin(
                "Originate",
                Channel="PJSIP/1102",
                Context="cti-second",
                Exten="support",
                Priority="1",
                Async="true",
                Variable="CTI_SECOND_PRIO=9",
            )
            await come_to_wait(centre, urgent, before, ("support", ANNA, "0"), behind)
            known = centre._server.switches["main"].queues
            await centre.eventually(lambda: known.waiting(SUPPORT) == 4, what="four wait")
            await centre.phone_hangs_up("1101")
            await centre.phone_hangs_up("1102")
            await come_to_wait(centre, before, ("support", TRUNK, "0"), behind)
        else:
            answer = await anna.ask("call.complete", call=call)
            assert answer["view"] is None
        await alone(centre, ANNA)
        assert await waits_in(centre) == [before, ("support", TRUNK, "0"), behind]
    finally:
        queues.write_text(written)
        await centre.admin("Command", Command="module reload app_queue.so")
    for screen in (olga, await centre.screen(ADMIN)):  # one that saw all of it, one that comes now
        await screen.until(
            lambda of=screen: [w["call"] for w in of.picture.queues[SUPPORT]["waiting"]][1] == call,
            what="its place",
        )
        await screen.as_told()


async def test_a_queue_that_takes_nobody_is_refused_before_anything_changes(centre: Centre) -> None:
    await rules(
        centre,
        calendars={"never": {"zone": "UTC"}},
        queues={"support": {"limit": 0}, "billing": {"calendar": "never"}},
    )
    anna, call, _ = await in_talk(centre)
    assert await refused(anna, "call.consult", call=call, to_queue=SUPPORT) == "nobody_there"
    assert await refused(anna, "call.consult", call=call, to_queue="main:none") == "no_such_target"
    assert await refused(anna, "call.consult", call=call, to_queue="main:billing") == "queue_closed"
    dora = await centre.screen("dora")
    await centre.log_on(dora)
    assert await refused(anna, "call.consult", call=call, to_queue=SUPPORT) == "queue_full"
    assert await refused(dora, "call.consult", call=call, to_queue=SUPPORT) == "not_your_call"
    await dora.ask("agent.not_ready", reason="Break")
    await centre.member("dora", paused=True)
    await centre.eventually(
        lambda: centre._server.switches["main"].queues.members(SUPPORT)["PJSIP/1104"].paused
    )
    assert await refused(anna, "call.consult", call=call, to_queue=SUPPORT) == "nobody_there"
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}
    await become(centre, ANNA, TRUNK)
    await rules(centre)


async def test_asterisk_refuses_and_the_agent_is_back_with_the_caller(centre: Centre) -> None:
    """The queue looks well as far as anybody here can see, and Asterisk itself says that it is full."""
    queues = centre.pbx.run_dir / "etc" / "queues.conf"
    written = queues.read_text()
    queues.write_text(written + "\n[narrow](q)\nmaxlen=1\n")
    known = centre._server.switches["main"].queues
    try:
        await centre.admin("Command", Command="module reload app_queue.so")
        await centre.eventually(lambda: known.knows("main:narrow"), what="the new queue")
        await centre.admin("QueueAdd", Queue="narrow", Interface="PJSIP/1111")
        await centre.eventually(lambda: known.members("main:narrow"), what="its member")
        await centre.phone("1111", mode="silent")
        await centre.dial("1110", "6200")
        await come_to_wait(centre, ("support", "PJSIP/1110", "0"))
        await centre.admin(
            "Redirect",
            Channel=await centre.channel_of("1110"),
            Context="cti-queue",
            Exten="narrow",
            Priority="1",
        )
        await come_to_wait(centre, ("narrow", "PJSIP/1110", "0"))
        anna, call, _ = await in_talk(centre)
        with pytest.raises(Refusal) as told:
            await anna.ask("call.consult", call=call, to_queue="main:narrow")
        assert told.value.code == "target_not_reached"
        assert "you talk with the caller again" in told.value.message
        await become(centre, ANNA, TRUNK)
        await anna.ask("call.hold", call=call)
        await anna.ask("call.retrieve", call=call)
    finally:
        await centre.admin("QueueRemove", Queue="narrow", Interface="PJSIP/1111")
        queues.write_text(written)
        await centre.admin("Command", Command="module reload app_queue.so")


# ------------------------------------------------------------------------------------------ escalation


async def test_a_call_is_escalated_with_all_that_is_known_of_it(centre: Centre) -> None:
    await rules(centre, escalations=[UP])
    anna, call, _ = await in_talk(centre)
    dora = await centre.screen("dora")
    await centre.phone("1104", delay="1")
    await centre.log_on(dora)
    await anna.ask("call.set_data", call=call, data={"Serial": "S-17"})
    answer = await anna.ask("call.escalate", call=call, reason="Line drops", note="Router restarted twice")
    assert answer["view"] is None
    await alone(centre, ANNA)
    await anna.agent_is("ready")
    pop = (await dora.wait_for("pop.shown", call=call))["data"]["view"]
    assert {name: value for name, value in pop["data"].items() if not name.startswith("CTI_")} == {
        "Serial": "S-17",
        "EscalatedBy": "anna",
        "EscalatedFrom": "sales",
        "EscalationReason": "Line drops",
        "EscalationNote": "Router restarted twice",
    }
    assert (pop["transferred_by"], pop["queue"]) == ("anna", SUPPORT)
    fact = (await dora.wait_for("call.established", agent="dora"))["data"]
    assert fact["queue"] == SUPPORT
    sven = await centre.screen("sven")
    await become(centre, TRUNK, DORA)
    await dora.ask("call.hangup", call=call)
    row = await centre.interaction_of(call)
    assert row["agents"] == ["anna", "dora"]
    status, shown = await centre.rest("GET", f"/api/v1/interactions/{row['id']}", ADMIN)
    assert status == 200
    [up] = shown["escalations"]
    assert (up["agent"], up["queue"], up["from_queue"]) == ("anna", SUPPORT, "main:sales")
    assert (up["reason"], up["note"], up["priority"]) == ("Line drops", "Router restarted twice", 7)
    assert sven.picture.me == "sven"


async def test_a_consultation_with_a_queue_is_a_visit_there_and_nowhere_else(centre: Centre) -> None:
    async def visits() -> dict[str, dict[str, Any]]:
        server = centre._server
        await server.journal.flushed(server.bus.seq)
        await server.roll_up.catch_up()
        _, told = await centre.rest("GET", "/api/v1/figures/queues", ADMIN)
        return {item["queue"]: item for item in told["items"]}

    await rules(centre)
    before = await visits()
    anna, dora, call, customer = await asking(centre)
    await anna.ask("call.cancel", call=call)
    await centre.hang_up(customer)
    row = await centre.interaction_of(call)
    after = await visits()
    for queue in (SUPPORT, "main:sales"):
        for figure in ("offered", "answered", "handled"):
            was = before.get(queue, {}).get(figure, 0)
            assert after[queue][figure] == was + 1, (queue, figure)
    assert (row["outcome"], set(row["agents"])) == ("answered", {"anna", "dora"})
    assert dora.picture.me == "dora"


async def counted(centre: Centre, agent: str) -> dict[str, Any]:
    """An agent's figures of today, once they have been summed up."""
    server = centre._server
    await server.journal.flushed(server.bus.seq)
    await server.roll_up.catch_up()
    status, told = await centre.rest("GET", f"/api/v1/figures/agents?agent={agent}", ADMIN)
    assert status == 200, told
    return dict(told["items"][0])


@pytest.mark.parametrize("held", [False, True])
async def test_an_escalation_counts_as_transferred(centre: Centre, held: bool) -> None:
    await rules(centre, escalations=[UP])
    before = (await counted(centre, "anna"))["transferred"]
    anna, call, _ = await in_talk(centre)
    emil = await centre.screen("emil")
    await centre.log_on(emil)
    if held:
        await anna.ask("call.hold", call=call)
    await anna.ask("call.escalate", call=call, reason="Line drops")
    await emil.wait_for("call.established", call=call, agent="emil")
    await become(centre, TRUNK, "PJSIP/1105")
    assert len(anna.all("call.transferred", call=call)) == 1
    await emil.ask("call.hangup", call=call)
    await alone(centre, TRUNK)
    assert (await counted(centre, "anna"))["transferred"] == before + 1


async def test_an_escalation_that_cannot_be_changes_nothing(centre: Centre) -> None:
    await rules(centre)
    anna, call, customer = await in_talk(centre)
    ben = await centre.screen("ben")
    args = {"call": call, "reason": "Line drops"}
    assert await refused(anna, "call.escalate", **args) == "no_second_level"
    never = {"never": {"zone": "UTC"}}
    await rules(centre, escalations=[{**UP, "note": "required"}])
    assert await refused(anna, "call.escalate", **args) == "note_missing"
    assert await refused(anna, "call.escalate", **args, note="  ") == "note_missing"
    assert await refused(anna, "call.escalate", **args, note="x") == "nobody_there"
    assert await refused(anna, "call.escalate", call=call, reason="") == "bad_args"
    assert await refused(anna, "call.escalate", **args, note="x", priority=9) == "forbidden"
    assert await refused(ben, "call.escalate", **args, note="x") == "not_your_call"
    emil = await centre.screen("emil")
    await centre.log_on(emil)
    await rules(centre, escalations=[UP], calendars=never, queues={"support": {"calendar": "never"}})
    assert await refused(anna, "call.escalate", **args) == "queue_closed"
    await rules(centre, escalations=[UP], queues={"support": {"limit": 0}})
    assert await refused(anna, "call.escalate", **args) == "queue_full"
    await rules(centre, escalations=[{**UP, "teams": ["rescue"]}])
    assert await refused(anna, "call.escalate", **args) == "no_second_level"
    sven = await centre.screen("sven")
    await rules(centre, escalations=[UP])
    assert await refused(sven, "call.escalate", **args, agent="anna") == "not_your_agent"
    assert "EscalatedBy" not in anna.picture.calls[call]["data"]
    await become(centre, ANNA, TRUNK)
    sara = await centre.screen("sara")
    await sara.ask("call.escalate", **args, agent="anna", priority=12)
    await emil.wait_for("call.established", call=call, agent="emil")
    assert await refused(anna, "call.escalate", **args) in ("not_your_call", "unknown_call")
    await centre.hang_up(customer)
    await alone(centre, TRUNK)
    assert await refused(anna, "call.escalate", **args) == "unknown_call"
    await centre._server.trail.flush()
    rows = await centre.fetch("SELECT * FROM audit WHERE action = 'call.escalate' ORDER BY id DESC LIMIT 3")
    assert {row["actor"] for row in rows} >= {"anna", "sara"}


async def test_whom_nobody_takes_goes_on_as_the_rule_says_without_the_server(centre: Centre) -> None:
    await rules(centre, escalations=[UP])
    anna, call, _ = await in_talk(centre)
    dora = await centre.screen("dora")
    await centre.phone("1104", mode="silent")
    await centre.log_on(dora)
    await anna.ask("call.escalate", call=call, reason="Line drops")
    await come_to_wait(centre, ("support", TRUNK, "7"))
    await centre.stop_server()
    try:
        await come_to_wait(centre, ("emergency", TRUNK, "7"))
    finally:
        await centre.start_server()


async def test_a_former_rules_levels_do_not_bind_the_next_queue(centre: Centre) -> None:
    """A routing rule asks for agents of one level only; transferred on, the caller is everybody's."""
    anna, call, _ = await in_talk(centre)
    emil = await centre.screen("emil")
    await centre.log_on(emil)
    channel = next(r["Channel"] for r in await centre.channels() if r["Channel"].startswith(TRUNK))
    for name in ("QUEUE_MIN_PENALTY", "QUEUE_MAX_PENALTY"):
        await centre.admin("Setvar", Channel=channel, Variable=name, Value="17")
    await anna.ask("call.transfer", call=call, to_queue=SUPPORT)
    await emil.wait_for("call.established", call=call, agent="emil")


async def test_with_the_pbx_gone_and_the_caller_gone_it_is_said(centre: Centre) -> None:
    await rules(centre, escalations=[UP])
    anna, call, customer = await in_talk(centre)
    args = {"call": call, "reason": "Line drops"}
    assert await refused(anna, "call.escalate", call="main:1.1", reason="x") == "unknown_call"
    assert await refused(anna, "call.escalate", call="other:1.1", reason="x") == "unknown_call"
    assert await refused(anna, "call.consult", call=call, to_queue=SUPPORT, to="1102") == "bad_args"
    assert await refused(anna, "call.consult", call=call, to_queue=SUPPORT, wait=1) == "bad_args"
    dora = await centre.screen("dora")
    await centre.phone("1104", mode="silent")
    await centre.log_on(dora)
    await anna.ask("call.consult", call=call, to_queue=SUPPORT)
    assert await refused(anna, "call.escalate", **args) == "wrong_state"
    await centre.hang_up(customer)  # while the agent waits in the queue
    await alone(centre, TRUNK)
    await anna.until(lambda: TRUNK not in states(anna, call), what="the caller gone")
    assert await refused(anna, "call.cancel", call=call) in ("caller_gone", "wrong_state")
    await anna.ask("call.hangup", call=call)
    await alone(centre, ANNA)
    assert not await waits_in(centre)
    await anna.agent_is("ready")
    await asyncio.to_thread(centre.pbx.kill)
    try:
        await centre.eventually(lambda: not centre._server.switches["main"].synced, what="gone", within=20)
        assert await refused(anna, "call.escalate", **args) == "pbx_down"
        assert await refused(anna, "call.consult", call=call, to_queue=SUPPORT) == "pbx_down"
    finally:
        await asyncio.to_thread(centre.pbx.start)
        await centre.eventually(lambda: centre._server.switches["main"].synced, what="synced", within=30)


async def test_over_a_restart_the_agent_who_waits_in_a_queue_is_seen_so(centre: Centre) -> None:
    """The server comes back while an agent asks a queue: who is on hold and who waits is as it was."""
    anna, call, _ = await in_talk(centre)
    dora = await centre.screen("dora")
    await centre.phone("1104", mode="silent")
    await centre.log_on(dora)
    await anna.ask("call.consult", call=call, to_queue=SUPPORT, wait=60)
    await centre.stop_server()
    await centre.start_server()
    again = await centre.screen("anna", connect=False)
    await again.connect()
    await again.until(lambda: states(again, call).get(ANNA) == "queued", what="queued")
    assert states(again, call)[TRUNK] == "hold"
    assert again.picture.agents["anna"]["state"] == "busy"
    await again.ask("call.cancel", call=call)
    await become(centre, ANNA, TRUNK)


async def test_who_came_from_no_queue_comes_back_to_the_agent(centre: Centre) -> None:
    await rules(centre, escalations=[{"id": "any", "to": "support", "seconds": 5}])
    anna, dora = await centre.screen("anna"), await centre.screen("dora")
    await centre.phone("1104", mode="silent")
    await centre.log_on(anna, dora)
    await centre.dial("1110", "1101")
    call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
    await anna.ask("call.escalate", call=call, reason="Not mine")
    await alone(centre, ANNA)
    await come_to_wait(centre, ("support", "PJSIP/1110", "0"))
    await become(centre, "PJSIP/1110", ANNA, within=25)
