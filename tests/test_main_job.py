"""The main job, end to end: a call on a real Asterisk pops the right customer on the right agent's screen.

Real Asterisks, real SIP, real PostgreSQL, real websocket clients: what is asserted is what a client sees.
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cti.embedded.place import free_ports
from tests.centre import Centre, Frame, Refusal, Screen, apart, fits, moment
from tests.conftest import SCENARIOS, Sipp
from tests.sip_party import Party

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRAP_UP = 1.5
CENTRE = {"wrap_up": {"seconds": WRAP_UP}}


async def looked_up(screen: Screen, call: str, within: float = 5.0) -> Frame:
    """The pop of a call on a screen once the customer data is in it."""
    return await screen.until(
        lambda: next(
            (p for p in screen.picture.pops.values() if p["call"] == call and p["lookup"] == "complete"), None
        ),
        within,
        f"complete pop of {call}",
    )


async def one_phone(centre: Centre, where: str = "true") -> dict[str, Any]:
    """A sample customer with a number that is theirs alone, in Great Britain."""
    rows = await centre.fetch(
        f"""SELECT p.e164, a.id, a.name, a.number FROM phones p JOIN accounts a ON a.id = p.account_id
            WHERE p.e164 LIKE '+447%' AND {where}
              AND (SELECT count(*) FROM phones q WHERE q.e164 = p.e164) = 1 ORDER BY p.e164"""
    )
    return rows[0]


# ------------------------------------------------------------------------------------------ before the phone rings


async def test_a_sip_call_pops_before_the_agents_phone_rings(
    centre: Centre, sipp: Sipp, tmp_path: Path
) -> None:
    finn, dora, sven, sara = [await centre.screen(login) for login in ("finn", "dora", "sven", "sara")]
    await centre.log_on(finn)
    customer = await one_phone(centre)
    seen_by_phone = tmp_path / "phone.txt"
    phone = sipp.play(
        centre.pbx,
        SCENARIOS / "uas_desk.xml",
        *("-d", "400", "-trace_msg", "-message_file", str(seen_by_phone)),
        host="127.0.0.1",
        port=centre.pbx.uas_port,
    )
    caller = sipp.caller(
        centre.pbx, did="442079460300", number=customer["e164"], talk=1, scenario="uac_told.xml"
    )
    pop = await finn.wait_for("pop.shown")
    view = pop["data"]["view"]
    assert (view["e164"], view["queue"], view["dnis"]) == (customer["e164"], "main:billing", "442079460300")
    await finn.wait_for("call.established", agent="finn")
    complete = await looked_up(finn, view["call"])
    assert [c["account"]["name"] for c in complete["candidates"]] == [customer["name"]]
    assert await caller.finished() == 0
    assert await phone.finished() == 0
    await finn.wait_for("call.cleared", call=view["call"])

    rang = ringing_at(seen_by_phone)
    assert finn.arrival(pop) < rang, f"the pop came {finn.arrival(pop) - rang:.6f} s after the phone rang"
    shown = finn.frames.index((finn.arrival(pop), pop))
    delivered = await finn.wait_for("call.delivered")
    assert shown < finn.frames.index((finn.arrival(delivered), delivered))

    call = view["call"]
    await sven.wait_for("call.cleared", call=call)  # finn's supervisor has seen all of it
    for type in (
        "call.originated",
        "call.queued",
        "call.offered",
        "pop.shown",
        "call.delivered",
        "call.established",
        "pop.shown",
    ):
        told = sven.all(type, call=call)
        assert len(told) == (0 if type == "call.originated" else 1), type
    for stranger in (dora, sara):  # another agent of the team, a supervisor of another team
        assert not stranger.all("call.*"), stranger.login
        assert not stranger.all("pop.*"), stranger.login
        assert not stranger.picture.calls
        assert not stranger.picture.pops
    for screen in (finn, sven, dora, sara):
        await screen.as_told()


def ringing_at(trace: Path) -> float:
    """When SIPp's phone sent 180, as time.time()."""
    text = trace.read_text(errors="replace")
    found = re.search(
        r"^-+ (\S+)[ \t]+(\S+)\nUDP message sent[^\n]*\n\n?SIP/2\.0 180", text.replace("\r", ""), re.M
    )
    assert found is not None, text[:600]
    return datetime.fromisoformat(f"{found[1]} {found[2]}").astimezone().timestamp()


# ------------------------------------------------------------------------------------------ who is calling


@pytest.mark.parametrize("form", ["+{}", "00{}", "0{}"])
async def test_a_known_customer_is_found_in_whatever_form_the_number_comes(centre: Centre, form: str) -> None:
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    customer = await one_phone(centre)
    digits = customer["e164"].removeprefix("+")
    number = form.format(digits.removeprefix("44") if form == "0{}" else digits)
    await centre.call(number=number, name="")
    call = (await anna.wait_for("pop.shown"))["data"]["call"]
    pop = await looked_up(anna, call)
    assert (pop["number"], pop["e164"], pop["kind"]) == (number, customer["e164"], "identified")
    assert [(c["how"], c["account"]["id"]) for c in pop["candidates"]] == [("exact", customer["id"])]


async def test_several_owners_of_a_number_are_all_offered(centre: Centre) -> None:
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    (shared,) = await centre.fetch(
        """SELECT e164, array_agg(DISTINCT account_id) AS owners FROM phones
           GROUP BY e164 HAVING count(DISTINCT account_id) > 1 ORDER BY e164 LIMIT 1"""
    )
    await centre.call(number=shared["e164"])
    pop = await looked_up(anna, (await anna.wait_for("pop.shown"))["data"]["call"])
    assert {c["account"]["id"] for c in pop["candidates"]} == set(shared["owners"])
    chosen = pop["candidates"][-1]["account"]["id"]
    answer = await anna.ask("call.identify", call=pop["call"], account=chosen)
    assert answer["pops"][0]["candidates"][0]["account"]["id"] == chosen
    await anna.until(lambda: anna.picture.pops[pop["id"]]["chosen_by"] == "anna")
    await centre.phone_hangs_up("1101")
    assert (await centre.interaction_of(pop["call"]))["account_id"] == chosen


async def test_an_unlisted_extension_is_found_by_its_companys_switchboard(centre: Centre) -> None:
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    (board,) = await centre.fetch(
        "SELECT prefix, account_id FROM phones WHERE prefix LIKE '+44%' ORDER BY prefix LIMIT 1"
    )
    await centre.call(number=board["prefix"] + "93")
    pop = await looked_up(anna, (await anna.wait_for("pop.shown"))["data"]["call"])
    assert [(c["how"], c["account"]["id"]) for c in pop["candidates"]] == [
        ("switchboard", board["account_id"])
    ]


@pytest.mark.parametrize(
    ("number", "kind", "withheld"),
    [
        ("+442071838750", "identified", False),
        ("anonymous", "withheld", True),
        ("hotline", "alphanumeric", False),
        ("unknown", "unknown", False),
    ],
)
async def test_a_caller_nobody_knows_pops_as_what_they_are(
    centre: Centre, number: str, kind: str, withheld: bool
) -> None:
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    await centre.call(number=number, name="")
    pop = await looked_up(anna, (await anna.wait_for("pop.shown"))["data"]["call"])
    assert (pop["kind"], pop["withheld"], pop["candidates"]) == (kind, withheld, [])
    assert pop["e164"] == (number if kind == "identified" else None)


HOSTILE = {
    "quotes": 'O\'Neil \\"the \\\\ hammer\\"',
    "html": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "sql": "Robert'); DROP TABLE accounts;--",
    "emoji": "Zoë 😀👩‍👩‍👧 Ω",
    "escaped line breaks": "Eve%0d%0aAction: Originate\\u000d\\u000aSecret: 1",
    "control characters": "Eve\x1b[2J\x07\x7f\x0b",
    "long": "x" * 1500,
    "10 kB": "y" * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_callers_name_is_shown_as_text_and_breaks_nothing(centre: Centre, name: str) -> None:
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    await centre.log_on(anna)
    world = await Party("127.0.0.2", free_ports(1)[0], (centre.pbx.host, centre.pbx.sip_port)).open()
    try:
        legs = [world.call("447700900123", "5550100", HOSTILE[name])]
        if name == "10 kB":  # which Asterisk may not take at all: then the next call pops
            legs.append(world.call("447700900124", "5550100", "after it"))
        shown = (await anna.wait_for("pop.shown"))["data"]["view"]
        pop = await looked_up(anna, shown["call"])
        told = pop["name"] or ""
        assert not re.search(r"[\x00-\x1f\x7f]", told)
        assert len(told) <= 200
        if name in ("html", "sql", "emoji"):
            assert told == HOSTILE[name]
        if name == "quotes":  # Asterisk hands on the backslashes of SIP's quoting
            assert re.sub(r"\\(.)", r"\1", told) == 'O\'Neil "the \\ hammer"'
        await anna.wait_for("call.established", agent="anna")
        for leg in legs:
            leg.bye()
        await anna.wait_for("call.cleared", call=shown["call"])
        await sara.wait_for("call.cleared", call=shown["call"])
        for screen in (anna, sara):
            await screen.as_told()
        assert (await centre.interaction_of(shown["call"]))["outcome"] == "answered"
    finally:
        await world.close()


async def test_a_name_with_a_line_break_in_it_adds_nothing_to_what_asterisk_says(centre: Centre) -> None:
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    world = await Party("127.0.0.2", free_ports(1)[0], (centre.pbx.host, centre.pbx.sip_port)).open()
    try:
        world.call(
            "447700900123", "5550100", "Eve\r\nEvent: Hangup\r\nUniqueid: 1"
        )  # no SIP at all, or headers
        world.call("447700900124", "5550100", "Adam")
        pop = await anna.wait_for("pop.shown")
        assert "\n" not in (pop["data"]["view"]["name"] or "")
        await anna.wait_for("call.established", agent="anna")
        await anna.as_told()
    finally:
        await world.close()


# ------------------------------------------------------------------------------------------ offered, taken, left


async def test_ring_all_pops_on_three_screens_and_stays_on_one(centre: Centre) -> None:
    await centre.phone("1106", delay="1")
    await centre.phone("1107", "1108", mode="silent")
    team = gus, hana, ivo = [await centre.screen(login) for login in ("gus", "hana", "ivo")]
    await centre.log_on(*team)
    await centre.call("emergency")
    pops = [await screen.wait_for("pop.shown") for screen in team]
    assert len({pop["data"]["call"] for pop in pops}) == 1
    assert len({pop["data"]["pop"] for pop in pops}) == 3
    for screen in team:
        await screen.agent_is("reserved")
    await gus.wait_for("call.established", agent="gus")
    for screen in (hana, ivo):
        gone = await screen.wait_for("pop.withdrawn")
        assert gone["data"]["reason"] == "answered_elsewhere"
        await screen.agent_is("ready")
        assert not screen.picture.calls
    assert [pop["state"] for pop in gus.picture.pops.values()] == ["talking"]
    assert len(gus.all("pop.shown")) == 1
    await centre.phone_hangs_up("1106")
    await gus.wait_for("call.cleared", outcome="answered")
    for screen in team:
        await screen.as_told()


async def test_ring_no_answer_takes_the_pop_to_the_next_agent(centre: Centre) -> None:
    await centre.phone("1101", mode="silent")
    anna, ben = await centre.screen("anna"), await centre.screen("ben")
    await centre.log_on(anna)
    await centre.call()
    await anna.wait_for("pop.shown")
    await centre.log_on(ben)
    gone = await anna.wait_for("pop.withdrawn")
    assert gone["data"]["reason"] == "no_answer"
    assert (await anna.wait_for("call.diverted"))["data"]["reason"] == "no_answer"
    await anna.until(lambda: not anna.picture.calls)
    pop = await ben.wait_for("pop.shown", within=15)
    assert pop["data"]["call"] == gone["data"]["call"]
    established = await ben.wait_for("call.established", agent="ben")
    assert established["data"]["waited"] > 3
    await ben.as_told()
    await anna.as_told()


async def test_a_caller_who_leaves_while_it_rings_takes_the_pop_with_them(centre: Centre) -> None:
    await centre.phone("1101", mode="silent")
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    await centre.log_on(anna)
    customer = await centre.call()
    call = (await anna.wait_for("pop.shown"))["data"]["call"]
    await anna.agent_is("reserved", call=call)
    await centre.hang_up(customer)
    gone = await anna.wait_for("pop.withdrawn")
    assert (gone["data"]["reason"], gone["data"]["call"]) == ("caller_gone", call)
    await anna.agent_is("ready")
    cleared = await sara.wait_for("call.cleared", call=call)
    assert (cleared["data"]["outcome"], cleared["data"]["talked"]) == ("abandoned", 0)
    left = await sara.wait_for("queue.caller_left", call=call)
    assert left["data"]["reason"] == "abandoned"
    record = await centre.interaction_of(call)
    assert (record["outcome"], record["agents"]) == ("abandoned", [])  # her phone only rang
    for screen in (anna, sara):
        await screen.as_told()


async def test_what_the_menu_collected_is_in_the_pop_and_identifies_the_account(centre: Centre) -> None:
    status, account = await centre.rest(
        "POST", "/api/v1/accounts", "olga", json={"number": "40711", "name": "Menu & Sons"}
    )
    assert status == 201, account
    await centre.log_on(await centre.screen("finn"))
    finn = centre.screens[-1]
    phone = await Party("127.0.0.1", centre.pbx.uas_port, (centre.pbx.host, centre.pbx.sip_port)).open()
    try:
        await centre.call("menu", number="+442071838750", CHOICE="3", NUMBER="40711")
        await finn.wait_for("pop.shown", within=20)
        view = await finn.until(
            lambda: next((p for p in finn.picture.pops.values() if p["candidates"]), None), what="the account"
        )
        assert view["data"]["CustomerNumber"] == "40711"
        assert view["data"]["Menu"] == "billing"
        assert view["data"]["CTI_DID"] == "5550500"  # a variable of the channel (manager.conf: channelvars)
        first = view["candidates"][0]
        assert (first["how"], first["account"]["id"]) == ("account_number", account["id"])
        await finn.wait_for("call.established", agent="finn")
        (await phone.leg_of("1003")).bye()
        await finn.wait_for("call.cleared")
        record = await centre.interaction_of(view["call"])
        assert (record["account_id"], record["identified_how"]) == (account["id"], "account_number")
    finally:
        await phone.close()


# ------------------------------------------------------------------------------------------ transfers


async def talking(centre: Centre, screen: Screen, phone: str) -> tuple[str, str, str]:
    """A customer talks with this agent: (call, customer to hang up, the phone's channel)."""
    customer = await centre.call()
    call = (await screen.wait_for("call.established", agent=screen.login))["data"]["call"]
    await screen.agent_is("busy", call=call)
    return call, customer, await centre.channel_of(phone)


async def test_a_blind_transfer_moves_the_pop(centre: Centre) -> None:
    await centre.phone("1102", delay="1")
    anna, ben, sara = [await centre.screen(login) for login in ("anna", "ben", "sara")]
    await centre.log_on(anna)
    call, customer, channel = await talking(centre, anna, "1101")
    await centre.log_on(ben, ready=False)
    await centre.admin("BlindTransfer", Channel=channel, Context="from-agent", Exten="1102")
    pop = await ben.wait_for("pop.shown")
    assert (pop["data"]["call"], pop["data"]["view"]["transferred_by"]) == (call, "anna")
    assert (pop["data"]["view"]["e164"], pop["data"]["view"]["state"]) == ("+442071838750", "offered")
    await ben.agent_is("reserved", call=call)
    handed_on = await sara.wait_for("call.transferred", call=call)
    assert (handed_on["data"]["kind"], handed_on["data"]["target"]) == ("blind", "1102")
    assert handed_on["data"]["by"]["agent"] == "anna"
    await anna.agent_is("wrap_up", call=call)
    await ben.wait_for("call.established", agent="ben")
    await ben.agent_is("busy", call=call)
    await anna.until(lambda: not anna.picture.calls)
    await centre.hang_up(customer)
    cleared = await sara.wait_for("call.cleared", call=call)
    assert cleared["data"]["outcome"] == "answered"
    assert sorted(cleared["data"]["agents"]) == ["anna", "ben"]
    assert len(ben.all("pop.shown")) == 1
    assert len(anna.all("pop.shown")) == 1
    for screen in (anna, ben, sara):
        await screen.as_told()
    record = await centre.interaction_of(call)
    assert sorted(record["agents"]) == ["anna", "ben"]


async def test_an_attended_transfer_pops_at_the_consultation(centre: Centre) -> None:
    await centre.phone("1102", delay="0.5")
    anna, ben, sara = [await centre.screen(login) for login in ("anna", "ben", "sara")]
    await centre.log_on(anna)
    call, customer, channel = await talking(centre, anna, "1101")
    await centre.admin("Atxfer", Channel=channel, Context="from-agent", Exten="1102")
    pop = await ben.wait_for("pop.shown")
    view = pop["data"]["view"]
    assert (view["call"], view["e164"], view["consulted_by"]) == (call, "+442071838750", "anna")
    await ben.wait_for("call.established", agent="ben")
    assert anna.picture.agents["anna"]["state"] == "busy"
    await centre.phone_hangs_up("1101")  # which hands the customer over
    handed_on = await sara.wait_for("call.transferred", within=15)
    assert (handed_on["data"]["call"], handed_on["data"]["kind"]) == (call, "attended")
    await anna.agent_is("wrap_up")
    await ben.until(lambda: [p["state"] for p in ben.picture.pops.values()] == ["talking"])
    await ben.until(lambda: list(ben.picture.calls) == [call])
    await centre.hang_up(customer)
    cleared = await sara.wait_for("call.cleared", call=call)
    assert (cleared["data"]["outcome"], sorted(cleared["data"]["agents"])) == ("answered", ["anna", "ben"])
    await ben.until(lambda: not ben.picture.calls)
    assert len(ben.all("pop.shown")) == 1
    await centre.eventually(lambda: not centre.server.switches["main"].calls.views(), what="all calls over")
    for screen in (anna, ben, sara):
        await screen.as_told()
    assert (
        len(await centre.fetch("SELECT call FROM interactions WHERE started >= $1", moment(view["started"])))
        == 1
    )


# ------------------------------------------------------------------------------------------ agents' states


async def test_states_that_an_agent_goes_through_and_asterisks_queues_agree(centre: Centre) -> None:
    anna, ben, sara = [await centre.screen(login) for login in ("anna", "ben", "sara")]
    with pytest.raises(Refusal) as refused:
        await anna.ask("agent.ready")
    assert refused.value.code == "not_logged_on"
    assert (await anna.ask("agent.log_on"))["state"] == "not_ready"
    await centre.member("anna", paused=True)
    assert (await anna.ask("agent.not_ready", reason="Lunch"))["reason"] == "Lunch"
    await centre.member("anna", paused=True, reason="Lunch")
    with pytest.raises(Refusal) as refused:
        await anna.ask("agent.not_ready", reason="Yoga")
    assert refused.value.code == "unknown_reason"
    assert (await anna.ask("agent.ready"))["state"] == "ready"
    await centre.member("anna", paused=False)
    await ben.agent_is("ready", "anna")  # a colleague sees it, and so does the supervisor
    await sara.agent_is("ready", "anna")

    customer = await centre.call()
    call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
    assert (await anna.agent_is("busy", call=call))["pending"] is None
    busy = await anna.ask("agent.not_ready", reason="Break")
    assert (busy["state"], busy["pending"]) == ("busy", "not_ready: Break")
    await anna.agent_is("busy", pending="not_ready: Break")
    await centre.hang_up(customer)
    wrapping = await anna.agent_is("wrap_up", call=call)
    assert wrapping["pending"] == "not_ready: Break"
    assert apart(wrapping["since"], wrapping["until"]) == pytest.approx(WRAP_UP, abs=0.2)
    await centre.member("anna", paused=True, reason="Wrap-up")
    await anna.agent_is("not_ready", reason="Break")
    await centre.member("anna", paused=True, reason="Break")
    await anna.wait_for("pop.withdrawn", reason="call_ended")

    await anna.ask("agent.ready")
    await centre.member("anna", paused=False)
    customer = await centre.call()
    anna.mark()
    await anna.wait_for("call.established", agent="anna")
    await centre.hang_up(customer)
    await anna.agent_is("wrap_up")
    await anna.ask("agent.extend_wrap_up", seconds=60)
    assert apart(anna.picture.agents["anna"]["since"], (await anna.agent_is("wrap_up"))["until"]) > 50
    assert (await anna.ask("agent.finish_wrap_up"))["state"] == "ready"
    await centre.member("anna", paused=False)

    assert (await sara.ask("agent.not_ready", agent="anna", reason="Meeting"))["by"] == "sara"
    await anna.agent_is("not_ready", reason="Meeting", by="sara")
    with pytest.raises(Refusal) as refused:
        await ben.ask("agent.ready", agent="anna")
    assert refused.value.code == "not_your_agent"
    assert (await anna.ask("agent.log_off"))["state"] == "logged_off"
    await centre.member("anna", there=False)
    await sara.agent_is("logged_off", "anna")
    for screen in (anna, ben, sara):
        await screen.as_told()


async def test_a_pause_made_at_the_switch_is_taken_over(centre: Centre) -> None:
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    await centre.admin("QueuePause", Interface="PJSIP/1101", Paused="true", Reason="Fire drill")
    await anna.agent_is("not_ready", reason="Fire drill", by="pbx")
    await centre.admin("QueuePause", Interface="PJSIP/1101", Paused="false")
    await anna.agent_is("ready")
    await centre.admin("QueueRemove", Queue="sales", Interface="PJSIP/1101")
    await centre.member("anna")  # put back: the agent is logged on


# ------------------------------------------------------------------------------------------ the record


async def test_the_interaction_tells_what_happened(centre: Centre) -> None:
    await centre.phone("1101", delay="1")
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    customer_of = await one_phone(centre, "a.kind = 'person'")
    customer = await centre.call(number=customer_of["e164"])
    originated = await sara.wait_for("call.queued")
    call = originated["data"]["call"]
    await asyncio.sleep(1.0)
    await centre.log_on(anna)
    established = await anna.wait_for("call.established", agent="anna")
    note = await anna.ask("call.note", call=call, text="Wants a larger one.\nSaid so twice.")
    await anna.wait_for("interaction.noted", note=note["id"])
    await asyncio.sleep(1.2)
    await centre.hang_up(customer)
    cleared = await anna.wait_for("call.cleared", call=call)
    closed = await anna.wait_for("interaction.closed", call=call)
    disposed = await anna.ask("call.dispose", call=call, disposition="Offer sent")  # in wrap-up
    assert disposed["disposition"] == "Offer sent"

    status, record = await centre.rest("GET", f"/api/v1/interactions/{closed['data']['interaction']}", "anna")
    assert status == 200
    assert (record["call"], record["direction"], record["outcome"]) == (call, "inbound", "answered")
    assert (record["account_id"], record["agents"], record["queue"]) == (
        customer_of["id"],
        ["anna"],
        "main:sales",
    )
    assert (record["e164"], record["dnis"]) == (customer_of["e164"], "5550100")
    assert [note["text"] for note in record["notes"]] == ["Wants a larger one.\nSaid so twice."]
    waited = apart(originated["at"], established["at"])
    assert waited > 2
    assert record["waited"] == pytest.approx(waited, abs=0.1)
    assert record["talked"] == pytest.approx(apart(established["at"], cleared["at"]), abs=0.1)
    assert record["talked"] > 1.2
    assert record["talked"] == pytest.approx(cleared["data"]["talked"], abs=0.001)
    assert apart(record["started"], record["ended"]) == pytest.approx(cleared["data"]["duration"], abs=0.01)

    status, listed = await centre.rest("GET", f"/api/v1/accounts/{customer_of['id']}/interactions", "anna")
    assert status == 200
    assert listed["items"][0]["call"] == call

    status, journal = await centre.rest("GET", f"/api/v1/calls/{call}/facts", "olga")
    assert status == 200, journal
    types = [fact["type"] for fact in journal["items"]]
    order = [
        "call.originated",
        "call.queued",
        "call.offered",
        "pop.shown",
        "call.delivered",
        "call.established",
    ]
    order += ["call.cleared", "interaction.closed"]
    assert [type for type in types if type in order] == order
    seqs = [fact["seq"] for fact in journal["items"]]
    assert seqs == sorted(set(seqs))


# ------------------------------------------------------------------------------------------ breaks


async def same_stream(steady: Screen, restless: Screen) -> None:
    """Both have received the same facts, each once and in order."""
    last = steady.facts()[-1]["seq"]
    await restless.until(lambda: restless.seq >= last, what=f"all up to {last}")
    first = restless.facts()[0]["seq"]
    expected = [fact for fact in steady.facts() if first <= fact["seq"] <= last]
    assert [f["seq"] for f in restless.facts() if f["seq"] <= last] == [f["seq"] for f in expected]
    assert [f for f in restless.facts() if f["seq"] <= last] == expected


async def test_a_client_that_is_cut_off_in_live_traffic_misses_and_doubles_nothing(centre: Centre) -> None:
    agents = [await centre.screen(login) for login in ("anna", "ben", "cleo")]
    steady, restless = await centre.screen("sara"), await centre.screen("sara")
    resumed = 0
    await centre.log_on(*agents)
    for place in range(6):
        await centre.call(number=f"+4477009001{place:02d}", talk=1.0)
        await asyncio.sleep(0.15)
        restless.cut()
        await restless.gone()
        await asyncio.sleep(0.2)
        welcome = await restless.connect(resume=True)
        resumed += welcome["resumed"]
    assert resumed == 6
    await centre.eventually(
        lambda: len(steady.all("interaction.closed")) == 6, within=20, what="six calls over"
    )
    await same_stream(steady, restless)
    await restless.as_told()


async def test_a_restart_of_the_server_in_mid_call_misses_and_doubles_nothing(centre: Centre) -> None:
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    await centre.log_on(anna)
    call, customer, _ = await talking(centre, anna, "1101")
    pop = next(iter(anna.picture.pops))
    before = {screen.login: screen.seq for screen in (anna, sara)}
    await centre.stop_server()
    assert [await screen.gone() for screen in (anna, sara)] == [1012, 1012]
    await centre.member("anna")  # the queues go on without us
    await centre.start_server(wrap_up={"seconds": WRAP_UP})
    for screen in (anna, sara):
        screen.mark()
        await screen.connect(resume=True)
        welcomes = screen.all("welcome")  # what was missed, and then what is
        assert welcomes[0]["resumed"], screen.login
        await screen.wait_for("snapshot")
        assert [welcome["resumed"] for welcome in screen.all("welcome")] == [True, False]
    await anna.until(lambda: list(anna.picture.calls) == [call], what="the call again")
    await anna.agent_is("busy", call=call)
    await anna.until(
        lambda: list(anna.picture.pops) == [pop] and anna.picture.pops[pop]["state"] == "talking"
    )
    await centre.hang_up(customer)
    cleared = await anna.wait_for("call.cleared", call=call)
    assert cleared["data"]["outcome"] == "answered"
    for screen in (anna, sara):
        await screen.as_told()
        assert screen.all("call.cleared", call=call) == [cleared]
        hers = next(session.topics for session in centre.server.hub if session.actor.login == screen.login)
        journal = centre.server.journal
        missed = await journal.resume(journal.epoch, before[screen.login], hers)
        assert missed is not None
        had = [fact for fact in screen.facts() if fact["seq"] > before[screen.login]]
        assert had == [fact for frame in missed.frames if (fact := json.loads(frame))["seq"] <= screen.seq]
    record = await centre.interaction_of(call)
    assert (record["outcome"], record["agents"]) == ("answered", ["anna"])
    assert record["talked"] == pytest.approx(cleared["data"]["talked"], abs=0.01)


# ------------------------------------------------------------------------------------------ hold, park, overflow


async def test_hold_by_a_phone_is_told_and_counted(centre: Centre) -> None:
    finn, sven = await centre.screen("finn"), await centre.screen("sven")
    await centre.log_on(finn)
    phone = await Party("127.0.0.1", centre.pbx.uas_port, (centre.pbx.host, centre.pbx.sip_port)).open()
    world = await Party("127.0.0.2", free_ports(1)[0], (centre.pbx.host, centre.pbx.sip_port)).open()
    try:
        customers = world.call("447700900123", "5550300", "Ada")
        await finn.wait_for("call.established", agent="finn")
        for leg, agent in ((await phone.leg_of("1003"), "finn"), (customers, None)):
            finn.mark()
            await leg.hold()
            held = await finn.wait_for("call.held")
            assert (held["data"]["by"], held["data"]["agent"]) == ("phone", agent)
            assert held["data"]["connection"]["state"] == "hold"
            await finn.agent_is("busy")
            await asyncio.sleep(0.5)
            await leg.retrieve()
            back = await finn.wait_for("call.retrieved")
            assert back["data"]["agent"] == agent
            assert back["data"]["held"] == pytest.approx(apart(held["at"], back["at"]), abs=0.05)
            assert back["data"]["held"] > 0.4
        customers.bye()
        cleared = await sven.wait_for("call.cleared")
        assert cleared["data"]["held"] == pytest.approx(0.5, abs=0.2)  # the longest party's
        record = await centre.interaction_of(cleared["data"]["call"])
        assert record["held"] == pytest.approx(cleared["data"]["held"], abs=0.01)
        for screen in (finn, sven):
            await screen.as_told()
    finally:
        await phone.close()
        await world.close()


async def test_a_parked_call_nobody_fetches_comes_back_to_the_queue(centre: Centre) -> None:
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    await centre.log_on(anna)
    call, customer, channel = await talking(centre, anna, "1101")
    customers = next(
        row["Channel"] for row in await centre.channels() if row["Channel"].startswith("PJSIP/trunk-")
    )
    await centre.admin("Park", Channel=customers, TimeoutChannel=channel)
    parked = await sara.wait_for("call.parked", call=call)
    assert sara.picture.calls[call]["parked_at"] == parked["data"]["slot"]
    await anna.until(lambda: not anna.picture.calls)
    back = await sara.wait_for("call.unparked", call=call, within=15)
    assert (back["data"]["reason"], back["data"]["slot"]) == ("timed_out", parked["data"]["slot"])
    await sara.wait_for("call.queued", call=call, where=lambda data: data["queue"] == "main:sales")
    sara.mark()
    await anna.agent_is("ready", within=5)
    await sara.wait_for("call.established", call=call, agent="anna", within=15)
    await centre.hang_up(customer)
    cleared = await sara.wait_for("call.cleared", call=call)
    assert cleared["data"]["outcome"] == "answered"
    for screen in (anna, sara):
        await screen.as_told()


async def test_a_caller_nobody_takes_spills_into_the_second_queue(centre: Centre) -> None:
    await centre.set_global("WAIT_SECONDS", "2")
    try:
        dora, sara, sven = [await centre.screen(login) for login in ("dora", "sara", "sven")]
        await centre.log_on(dora)
        await centre.call()
        joined = await sara.wait_for("queue.caller_joined")
        assert (joined["data"]["queue"], joined["data"]["waiting"]) == ("main:sales", 1)
        left = await sara.wait_for("queue.caller_left")
        assert left["data"]["reason"] in ("timed_out", "overflowed")
        assert left["data"]["waited"] == pytest.approx(2, abs=0.7)
        pop = await dora.wait_for("pop.shown")
        assert pop["data"]["view"]["queue"] == "main:support"
        established = await dora.wait_for("call.established", agent="dora")
        call = established["data"]["call"]
        assert (await sven.wait_for("queue.caller_joined"))["data"]["queue"] == "main:support"
        await sven.until(lambda: call in sven.picture.calls)
        assert (
            sara.picture.calls[call]["queue"] == "main:support"
        )  # once in her queue: she sees it to its end
        await centre.phone_hangs_up("1104")
        for screen in (sara, sven):
            cleared = await screen.wait_for("call.cleared", call=call)
            assert cleared["data"]["waited"] == pytest.approx(2, abs=1)
        for screen in (dora, sara, sven):
            await screen.as_told()
    finally:
        await centre.set_global("WAIT_SECONDS", "60")


async def test_a_caller_nobody_takes_at_all_is_told_so_and_counts_as_abandoned(centre: Centre) -> None:
    await centre.set_global("WAIT_SECONDS", "2")
    try:
        sven = await centre.screen("sven")
        await centre.call("billing")
        call = (await sven.wait_for("call.queued"))["data"]["call"]
        assert [w["call"] for w in sven.picture.queues["main:billing"]["waiting"]] == [call]
        left = await sven.wait_for("queue.caller_left", call=call)
        assert left["data"]["reason"] == "timed_out"
        assert sven.picture.queues["main:billing"]["waiting"] == []
        cleared = await sven.wait_for("call.cleared", call=call, within=15)
        assert cleared["data"]["outcome"] in ("abandoned", "unanswered")
        assert cleared["data"]["talked"] == 0
        assert (await centre.interaction_of(call))["outcome"] == cleared["data"]["outcome"]
        await sven.as_told()
    finally:
        await centre.set_global("WAIT_SECONDS", "60")


async def test_three_who_wait_are_listed_in_order_and_leave_it_one_by_one(centre: Centre) -> None:
    sara = await centre.screen("sara")
    customers = []
    for place in range(3):
        customers.append(await centre.call(number=f"+44770090020{place}"))
        await sara.until(lambda: len(sara.picture.queues["main:sales"]["waiting"]) == len(customers))
    waiting = [w["call"] for w in sara.picture.queues["main:sales"]["waiting"]]
    assert [sara.picture.calls[call]["ani"] for call in waiting] == [f"+44770090020{n}" for n in range(3)]
    await centre.hang_up(customers[1])
    left = await sara.wait_for("queue.caller_left")
    assert (left["data"]["call"], left["data"]["waiting"]) == (waiting[1], 2)
    assert [(w["call"], w["position"]) for w in sara.picture.queues["main:sales"]["waiting"]] == [
        (waiting[0], 1),
        (waiting[2], 2),
    ]
    anna = await centre.screen("anna")
    await anna.ask("agent.log_on", ready=True)
    await anna.wait_for("call.established", call=waiting[0])
    await sara.as_told()
    assert fits(
        sara.all("queue.caller_left", call=waiting[0])[0], "queue.caller_left", {"reason": "answered"}
    )
