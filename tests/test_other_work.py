"""Other work on a real Asterisk: offered when calls are few, taken away when they come back; callbacks kept as promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.call_desk import put_rules, refused
from tests.centre import ADMIN, Centre, Screen

pytestmark = pytest.mark.asyncio(loop_scope="module")

CUSTOMER = "+447700900121"
UNREACHED = "+447700900129"  # the last digit says that nobody answers there
SALES = {"id": "sales", "numbers": ["5550100"], "queue": "sales"}
QUIET = {
    "id": "quiet",
    "queues": ["sales"],
    "kinds": ["callback", "email"],
    "free_agents": 1,
    "quiet_for": 0,
    "interrupted_by_calls": ["email"],
    "offer_seconds": 30,
    "attempts": 2,
    "again_after": 10,
}


@pytest_asyncio.fixture(loop_scope="module")
async def centre(the_centre: Centre) -> AsyncIterator[Centre]:
    yield the_centre
    await the_centre.quiet()
    for item in (await the_centre.rest("GET", "/api/v1/work", ADMIN))[1]["items"]:
        await the_centre.rest("DELETE", f"/api/v1/work/{item['id']}", ADMIN)
    await rules(the_centre)


async def rules(centre: Centre, *blending: dict[str, Any], **more: Any) -> None:
    """Make these the rules; they are active when this returns."""
    status, told = await put_rules(centre, {"blending": list(blending), **more})
    assert status == 200, told


async def bring(centre: Centre, login: str = ADMIN, **given: Any) -> dict[str, Any]:
    """A module brings something to be done."""
    new = {"kind": "email", "skill": "main:sales", "title": "Answer a mail", "ref": "m1", **given}
    status, item = await centre.rest("POST", "/api/v1/work", login, json=new)
    assert status == 201, item
    return dict(item)


async def may(centre: Centre, login: str) -> tuple[list[str], str]:
    """What an agent may be offered now, and why, as a supervisor reads it."""
    status, told = await centre.rest("GET", "/api/v1/blending", "sara")
    assert status == 200, told
    one = next((one for one in told["items"] if one["agent"] == login), None)
    return (one["may"], one["why"]) if one else ([], "")


async def ready(centre: Centre, login: str = "anna") -> Screen:
    """An agent at work."""
    screen = await centre.screen(login)
    await centre.log_on(screen)
    await screen.agent_is("ready")
    return screen


# ------------------------------------------------------------------------------------------ when it is quiet


async def test_work_is_offered_when_it_is_quiet_and_done(centre: Centre) -> None:
    anna, sara, olga = await ready(centre), await centre.screen("sara"), await centre.screen(ADMIN)
    item = await bring(centre, ref="m-quiet", data={"From": "ada@example.org"})
    await sara.wait_for("work.added", work=item["id"])
    assert not anna.all("work.*")
    await rules(centre, QUIET)
    offered = (await anna.wait_for("work.offered", work=item["id"]))["data"]
    assert offered["view"]["data"] == {"From": "ada@example.org"}
    assert "quiet" in offered["why"]
    told = (await sara.wait_for("blending.changed", agent="anna"))["data"]
    assert told["may"] == ["callback", "email"]
    assert await may(centre, "anna") == (["callback", "email"], told["why"])
    accepted = await anna.ask("work.accept", work=item["id"])
    assert (accepted["state"], accepted["interrupted_by_calls"]) == ("accepted", True)
    await anna.agent_is("ready")  # calls interrupt it
    await anna.as_told()
    await sara.as_told()
    await olga.as_told()
    done = await anna.ask("work.complete", work=item["id"], outcome="answered by mail")
    assert (done["state"], done["outcome"]) == ("done", "answered by mail")
    await sara.wait_for("work.completed", work=item["id"])
    told = (await sara.ask("figures.work", queue="main:sales"))["items"]
    assert [(row["queue"], row["kind"]) for row in told] == [("main:sales", "email")]
    status, over_rest = await centre.rest("GET", "/api/v1/figures/work?queue=main:sales", "sara")
    assert (status, over_rest["items"][0]["brought"]) == (200, told[0]["brought"])
    assert (await centre.rest("GET", "/api/v1/figures/work", "anna"))[0] == 403
    assert await refused(sara, "figures.work", queue="main:support") == "forbidden"
    assert await refused(anna, "work.complete", work=item["id"], outcome="x") == "no_such_work"
    assert (await centre.rest("GET", f"/api/v1/work/{item['id']}", "sara"))[1]["state"] in (
        "done",
        "accepted",
    )
    assert (await bring(centre, ref="m-quiet"))["id"] == item["id"]  # the same again is the same
    await anna.as_told()


async def test_calls_come_first(centre: Centre) -> None:
    """Somebody waits: nothing is offered, and what was offered goes; what calls may interrupt goes on after the call."""
    await rules(centre, {**QUIET, "interrupted_by_calls": []})
    anna = await ready(centre)
    item = await bring(centre, ref="m-first")
    await anna.wait_for("work.offered", work=item["id"])
    customer = await centre.call("sales", CUSTOMER)
    gone = (await anna.wait_for("work.returned", work=item["id"]))["data"]
    assert gone["reason"] == "calls_came_back"
    assert await refused(anna, "work.accept", work=item["id"]) in ("not_yours", "wrong_state")
    await anna.agent_is("busy")
    await centre.eventually(lambda: centre._server.work.items()[0].state == "waiting")
    assert (await may(centre, "anna"))[0] == []
    anna.mark()
    await centre.hang_up(customer)
    await anna.wait_for("work.offered", work=item["id"])
    # accepted, and not to be interrupted: Asterisk has the agent paused, and the next caller waits
    await anna.ask("work.accept", work=item["id"])
    await anna.agent_is("not_ready", reason="Other work")
    await centre.member("anna", paused=True, reason="Other work")
    await centre.call("sales", CUSTOMER)
    sara = await centre.screen("sara")
    await sara.until(lambda: sara.picture.queues["main:sales"]["waiting"], what="a caller waits")
    assert await refused(anna, "agent.not_ready", reason="Nonsense") in ("unknown_reason", "bad_args")
    assert not anna.all("call.offered")
    await anna.ask("work.give_back", work=item["id"])
    await anna.wait_for("call.established", agent="anna")
    await anna.as_told()


async def test_accepted_work_that_calls_interrupt_goes_on_after_the_call(centre: Centre) -> None:
    await rules(centre, QUIET)
    anna = await ready(centre)
    item = await bring(centre, ref="m-on")
    await anna.wait_for("work.offered", work=item["id"])
    await anna.ask("work.accept", work=item["id"])
    customer = await centre.call("sales", CUSTOMER)
    await anna.wait_for("call.established", agent="anna")
    assert anna.picture.work[item["id"]]["state"] == "accepted"
    await centre.hang_up(customer)
    await anna.agent_is("ready")
    other = await bring(centre, ref="m-next")
    await asyncio.sleep(1.5)  # a look: who has work is offered no other
    assert not anna.all("work.offered", work=other["id"])
    await rules(centre, {**QUIET, "at_once": 2, "at_most": 1})  # two at a time, of one agent
    await anna.wait_for("work.offered", work=other["id"])
    await asyncio.sleep(1.5)  # another look takes nothing back
    await anna.ask("work.accept", work=other["id"])
    await anna.ask("work.complete", work=item["id"], outcome="done")
    await anna.ask("agent.log_off")
    await anna.wait_for("work.returned", work=other["id"])


async def test_so_many_must_be_free_and_for_so_long(centre: Centre) -> None:
    await rules(centre, {**QUIET, "free_agents": 2, "quiet_for": 3, "at_most": 1})
    anna = await ready(centre)
    item = await bring(centre, ref="m-many")
    await centre.eventually(lambda: centre._server.work.blending())
    deadline = asyncio.get_running_loop().time() + 10
    while (await may(centre, "anna")) != ([], "fewer than 2 of sales are free"):
        assert asyncio.get_running_loop().time() < deadline, await may(centre, "anna")
        await asyncio.sleep(0.1)
    ben = await ready(centre, "ben")
    await anna.wait_for(
        "blending.changed", agent="anna", where=lambda d: "has not been quiet" in (d["why"] or "")
    )
    assert not anna.all("work.offered")
    both = [anna, ben]
    deadline = asyncio.get_running_loop().time() + 10
    while not (got := [screen for screen in both if screen.all("work.offered")]):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    second = await bring(centre, ref="m-many-2")
    await asyncio.sleep(1.5)  # looks: at most one
    assert not any(screen.all("work.offered", work=second["id"]) for screen in both)
    [first] = got
    other = ben if first is anna else anna
    await first.ask("work.decline", work=item["id"])
    taken = await other.wait_for("work.offered")
    assert taken["data"]["work"] in (item["id"], second["id"])


# ------------------------------------------------------------------------------------------ customers are called


async def test_a_customer_is_called_and_the_agent_is_back(centre: Centre) -> None:
    await rules(centre, QUIET)
    anna = await ready(centre)
    item = await bring(centre, kind="callback", ref="c-1", number=CUSTOMER, data={"Offer": "4711"})
    await anna.wait_for("work.offered", work=item["id"])
    accepted = await anna.ask("work.accept", work=item["id"])
    call = accepted["call"]
    await anna.agent_is("busy")
    pop = (await anna.wait_for("pop.shown"))["data"]["view"]
    assert (pop["e164"], pop["direction"]) == (CUSTOMER, "outbound")
    await anna.until(lambda: anna.picture.calls[call]["data"].get("Offer") == "4711", what="its data")
    await anna.until(
        lambda: [c["state"] for c in anna.picture.calls[call]["connections"]] == ["connected"] * 2,
        what="talk",
    )
    assert await refused(anna, "work.complete", work=item["id"], outcome="x") == "wrong_state"
    assert await refused(anna, "work.give_back", work=item["id"]) == "wrong_state"
    await anna.ask("call.hangup", call=call)
    completed = (await anna.wait_for("work.completed", work=item["id"]))["data"]
    assert completed["outcome"] == "reached"
    await anna.agent_is("ready")
    await centre.member("anna", paused=False)
    await centre._server.work.flush()
    [row] = await centre.fetch("SELECT state, outcome FROM work_items WHERE id = $1", item["id"])
    assert (row["state"], row["outcome"]) == ("done", "reached")


async def test_a_customer_who_does_not_answer_is_tried_again_and_no_more(centre: Centre) -> None:
    await rules(centre, QUIET)
    anna = await ready(centre)
    item = await bring(centre, kind="callback", ref="c-2", number=UNREACHED)
    for attempt in (1, 2):
        await anna.wait_for("work.offered", work=item["id"], within=25)
        call = (await anna.ask("work.accept", work=item["id"]))["call"]
        await anna.until(lambda call=call: len(anna.picture.calls.get(call, {}).get("connections", ())) == 2)
        await anna.ask("call.hangup", call=call)
        if attempt == 1:
            back = (await anna.wait_for("work.returned", work=item["id"]))["data"]
            assert (back["reason"], back["view"]["attempts"]) == ("not_reached", 1)
            anna.mark()
    ended = (await anna.wait_for("work.ended", work=item["id"]))["data"]
    assert ended["reason"] == "failed"
    await anna.agent_is("ready")


async def test_a_phone_that_cannot_be_rung_costs_no_attempt(centre: Centre) -> None:
    await rules(centre, QUIET)
    anna = await ready(centre)
    await centre.phone("1101", mode="reject")
    item = await bring(centre, kind="callback", ref="c-3", number=CUSTOMER)
    await anna.wait_for("work.offered", work=item["id"])
    code = await refused(anna, "work.accept", work=item["id"])
    assert code == "phone_not_reached"
    back = (await anna.wait_for("work.returned", work=item["id"]))["data"]
    assert (back["reason"], back["view"]["attempts"]) == ("not_possible", 0)
    await anna.agent_is("ready")


async def test_a_promise_is_kept_when_it_is_quiet(centre: Centre) -> None:
    """A caller who waits presses 1, hears that they will be called and hangs up; when it is quiet, an agent calls them."""
    promise = {"id": "later", "then": {"callback": {"within": 3600, "countries": ["GB"], "when_quiet": True}}}
    await rules(centre, {**QUIET, "quiet_for": 1}, entries=[SALES], rules=[promise])
    sara = await centre.screen("sara")
    async with asyncio.timeout(10):
        while (await centre.admin("Getvar", Variable="CTI_ROUTING"))["Value"] != "on":
            await asyncio.sleep(0.02)
    await centre.call("sales", CUSTOMER, CHOICE="1")
    added = (await sara.wait_for("work.added", within=20))["data"]["view"]
    assert (added["kind"], added["number"], added["skill"]) == ("callback", CUSTOMER, "main:sales")
    call = added["data"]["CallbackOf"]
    await sara.wait_for("call.cleared", call=call, within=20)
    rows = [row for row in await centre.rows("QueueStatus") if row.get("Event") == "QueueEntry"]
    assert not rows  # nobody keeps a place
    anna = await ready(centre)
    await anna.wait_for("work.offered", work=added["id"], within=20)
    call = (await anna.ask("work.accept", work=added["id"]))["call"]
    await anna.until(
        lambda: [c["state"] for c in anna.picture.calls[call]["connections"]] == ["connected"] * 2,
        what="talk",
    )
    await anna.ask("call.hangup", call=call)
    await anna.wait_for("work.completed", work=added["id"])


async def test_what_is_overdue_is_offered_though_it_is_not_quiet(centre: Centre) -> None:
    await rules(centre, {**QUIET, "free_agents": 5})
    anna = await ready(centre)
    past = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    item = await bring(centre, ref="m-due", due=past)
    offered = (await anna.wait_for("work.offered", work=item["id"]))["data"]
    assert offered["why"] == "it is past its time"


async def test_work_outlasts_a_restart(centre: Centre) -> None:
    await rules(centre, {**QUIET, "interrupted_by_calls": []})
    anna = await ready(centre)
    item = await bring(centre, ref="m-restart")
    await anna.wait_for("work.offered", work=item["id"])
    await anna.ask("work.accept", work=item["id"])
    await anna.agent_is("not_ready", reason="Other work")
    await centre.stop_server()
    await centre.start_server()
    again = await centre.screen("anna", connect=False)
    await again.connect()
    await again.agent_is("not_ready", reason="Other work")
    assert again.picture.work[item["id"]]["state"] == "accepted"
    await again.ask("work.complete", work=item["id"], outcome="done")
    await again.agent_is("ready")


# ------------------------------------------------------------------------------------------ who may, and what is refused


async def test_who_may_do_what(centre: Centre) -> None:
    await rules(centre, QUIET)
    anna, ben = await ready(centre), await centre.screen("ben")
    item = await bring(centre, ref="m-who")
    await anna.wait_for("work.offered", work=item["id"])
    assert not ben.all("work.*")
    for op, more in (("accept", {}), ("decline", {}), ("complete", {"outcome": "x"}), ("give_back", {})):
        assert await refused(ben, f"work.{op}", work=item["id"], **more) == "not_yours"
        assert await refused(anna, f"work.{op}", work="w0", **more) == "no_such_work"
    assert await refused(anna, "work.complete", work=item["id"], outcome="x") == "wrong_state"
    await anna.ask("work.accept", work=item["id"])
    assert await refused(anna, "work.accept", work=item["id"]) == "wrong_state"
    assert await refused(anna, "work.decline", work=item["id"]) == "wrong_state"
    sara, sven = await centre.screen("sara"), await centre.screen("sven")
    assert await refused(ben, "work.give_back", work=item["id"], agent="anna") == "not_your_agent"
    assert await refused(sven, "work.give_back", work=item["id"], agent="anna") == "not_your_agent"
    assert (await centre.rest("GET", f"/api/v1/work/{item['id']}", "sven"))[0] == 404
    assert (await centre.rest("GET", "/api/v1/work", "sven"))[1] == {"items": [], "total": 0}
    assert (await centre.rest("GET", "/api/v1/work?state=accepted", "sara"))[1]["total"] == 1
    assert (await centre.rest("GET", "/api/v1/work", "anna"))[0] == 403
    assert (await centre.rest("GET", "/api/v1/blending", "anna"))[0] == 403
    assert "anna" not in {
        one["agent"] for one in (await centre.rest("GET", "/api/v1/blending", "sven"))[1]["items"]
    }
    assert (await sara.ask("work.give_back", work=item["id"], agent="anna"))["state"] == "waiting"
    assert (await centre.rest("DELETE", f"/api/v1/work/{item['id']}", "sven"))[0] == 404
    assert (await centre.rest("DELETE", f"/api/v1/work/{item['id']}", "sara"))[0] == 204
    assert (await centre.rest("DELETE", f"/api/v1/work/{item['id']}", "sara"))[0] in (404, 409)
    await sara.wait_for("work.ended", work=item["id"])
    for wrong in (
        {"skill": "main:none"},
        {"skill": "sales"},
        {"kind": "X"},
        {"number": "5550100"},
        {"number": "+4490911234567"},
        {"title": ""},
        {"data": {"a b": "c"}},
        {"priority": -1},
        {"due": "tomorrow"},
    ):
        new = {"kind": "email", "skill": "main:sales", "title": "A mail", "ref": "x", **wrong}
        assert (await centre.rest("POST", "/api/v1/work", ADMIN, json=new))[0] == 422, wrong
    new = {"kind": "email", "skill": "main:support", "title": "A mail", "ref": "x"}
    assert (await centre.rest("POST", "/api/v1/work", "sara", json=new))[0] == 403
    await centre._server.trail.flush()
    told = {
        row["action"] for row in await centre.fetch("SELECT action FROM audit WHERE action LIKE 'work.%'")
    }
    assert told >= {"work.added", "work.cancelled", "work.accept", "work.give_back"}


async def test_with_the_pbx_gone_nothing_is_offered(centre: Centre) -> None:
    await rules(centre, QUIET)
    anna = await ready(centre)
    await anna.until(lambda: anna.picture.blending.get("anna", {}).get("may"), what="may do other work")
    item = await bring(centre, kind="callback", ref="c-gone", number=CUSTOMER)
    await anna.wait_for("work.offered", work=item["id"])
    await asyncio.to_thread(centre.pbx.kill)
    try:
        await anna.wait_for("work.returned", work=item["id"], within=20)
        assert await refused(anna, "work.accept", work=item["id"]) in ("not_yours", "wrong_state")
        await anna.until(lambda: anna.picture.blending["anna"]["may"] == [], what="none while it is unknown")
    finally:
        await asyncio.to_thread(centre.pbx.start)
        await centre.eventually(lambda: centre._server.switches["main"].synced, what="synced", within=30)
