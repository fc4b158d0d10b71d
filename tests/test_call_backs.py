"""Call backs: promised in a call, reminded of, taken once, dialed; on a real Asterisk, and the times alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from crm.call_backs import NotPossible, when, zone_of
from tests.call_desk import in_talk, refused
from tests.centre import Centre, Refusal, Screen

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


# ------------------------------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("at", "zone", "instant"),
    [
        ("2026-03-02T09:30", "Europe/London", "2026-03-02T09:30+00:00"),
        ("2026-07-02T09:30", "Europe/London", "2026-07-02T08:30+00:00"),
        ("2026-03-02T09:30", "America/New_York", "2026-03-02T14:30+00:00"),
        ("2026-03-02T09:30+02:00", "America/New_York", "2026-03-02T07:30+00:00"),
        ("2026-10-25T01:30", "Europe/London", "2026-10-25T00:30+00:00"),  # comes twice: the first
        ("2026-03-02T09:30", "Asia/Kathmandu", "2026-03-02T03:45+00:00"),
    ],
)
def test_the_time_meant(at: str, zone: str, instant: str) -> None:
    assert when(datetime.fromisoformat(at), zone, NOW) == datetime.fromisoformat(instant)


@pytest.mark.parametrize(
    ("at", "zone", "code"),
    [
        ("2026-03-29T01:30", "Europe/London", "bad_time"),  # clocks go from 1 to 2
        ("2026-03-01T11:59", "Europe/London", "bad_time"),
        ("2027-03-03T12:00", "Europe/London", "bad_time"),
        ("2026-03-02T09:30", "Europe/Londn", "unknown_zone"),
        ("2026-03-02T09:30", "../etc/passwd", "unknown_zone"),
    ],
)
def test_no_such_time(at: str, zone: str, code: str) -> None:
    with pytest.raises(NotPossible) as caught:
        when(datetime.fromisoformat(at), zone, NOW)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("number", "zone"),
    [
        ("+442071838750", "Europe/London"),
        ("+447400123456", "Europe/London"),  # a mobile: of four zones whose clocks agree
        ("+4930123456", "Europe/Berlin"),
        ("+12125550143", "America/New_York"),
        ("+18005550143", None),
        ("nonsense", None),
    ],
)
def test_the_zone_of_a_number(number: str, zone: str | None) -> None:
    assert zone_of(number, NOW) == zone


# ------------------------------------------------------------------------------------------ the house


@pytest_asyncio.fixture(loop_scope="module")
async def centre(the_centre: Centre) -> AsyncIterator[Centre]:
    yield the_centre
    if the_centre.server is None:
        await the_centre.start_server()
    olga = await the_centre.screen("olga")
    for id in list(olga.picture.call_backs):
        await olga.ask("call_back.cancel", call_back=id)
    await the_centre.quiet()


live = pytest.mark.asyncio(loop_scope="module")
CENTRE = {"main": {"ring_seconds": 4}}


def later(seconds: float = 3600) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def promised(centre: Centre, at: str | None = None, **more: Any) -> tuple[Screen, str, dict[str, Any]]:
    """Anna has promised a call back to the customer she talks with: her screen, that call, the call back."""
    anna, call, _ = await in_talk(centre)
    await anna.wait_for("pop.updated", call=call, lookup="complete")
    made = await anna.ask("call.call_back", call=call, at=at or later(), **more)
    return anna, call, made


@live
async def test_a_promise_is_kept(centre: Centre) -> None:
    anna, call, made = await promised(centre, note="wants the offer", number="020 7183 8753")
    assert made["number"] == "+442071838753"
    assert made["zone"] == "Europe/London"
    assert (made["agent"], made["team"], made["for_team"]) == ("anna", "sales", False)
    assert (await anna.wait_for("call_back.promised"))["data"]["view"] == made
    rows = await centre.fetch("SELECT * FROM call_backs WHERE id = $1", made["id"])
    assert [(row["note"], row["created_by"], row["call"]) for row in rows] == [
        ("wants the offer", "anna", call)
    ]
    ben, sara, sven = [await centre.screen(login) for login in ("ben", "sara", "sven")]
    assert [list(s.picture.call_backs) for s in (anna, ben, sara, sven)] == [
        [made["id"]],
        [],
        [made["id"]],
        [],
    ]
    assert await refused(anna, "call_back.take", call_back=made["id"]) == "wrong_state"  # still in the call
    assert anna.picture.call_backs[made["id"]]["state"] == "open"
    await anna.ask("call.hangup", call=call)
    await anna.agent_is("ready")
    taken = await anna.ask("call_back.take", call_back=made["id"])
    assert (taken["call_back"]["state"], taken["call_back"]["taken_by"]) == ("taken", "anna")
    dialed = taken["call"]["call"]
    await anna.wait_for(
        "call.data_changed", call=dialed, where=lambda d: d["changed"] == {"call_back": str(made["id"])}
    )
    await anna.until(
        lambda: len([c for c in anna.picture.calls[dialed]["connections"] if c["state"] == "connected"]) == 2,
        what="the customer has answered",
    )
    assert anna.picture.calls[dialed]["dnis"] == "442071838753"
    await anna.ask("call.hangup", call=dialed)
    done = await anna.ask("call_back.done", call_back=made["id"], outcome="sold")
    assert (done["state"], done["outcome"], done["ended_by"]) == ("done", "sold", "anna")
    for screen in (anna, sara):
        await screen.until(lambda s=screen: not s.picture.call_backs, what="gone")
        await screen.as_told()
    assert await refused(anna, "call_back.done", call_back=made["id"]) == "no_such_call_back"
    assert await refused(anna, "call_back.take", call_back=made["id"]) == "no_such_call_back"
    status, body = await centre.rest("GET", "/api/v1/call_backs?ended=true&limit=1", "anna")
    assert (status, [item["id"] for item in body["items"]]) == (200, [made["id"]])
    actions = {"call.call_back", "call_back.take", "call_back.done"}
    async with asyncio.timeout(8):
        while not actions <= {r["action"] for r in await centre.fetch("SELECT action FROM audit")}:
            await asyncio.sleep(0.05)


@live
async def test_a_customer_who_does_not_want_to_be_called(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    entry = await anna.ask("call.do_not_call", call=call, reason="asked to", days=60)
    assert (entry["scope"], entry["call"], entry["added_by"]) == ("everywhere", call, "anna")
    (listed,) = await centre.fetch("SELECT number, reason FROM do_not_call WHERE id = $1", entry["id"])
    assert (f"+{listed['number']}", listed["reason"]) == (entry["number"], "asked to")
    assert await refused(anna, "call.do_not_call", call=call, scope="campaign") == "no_campaign"
    ben = await centre.screen("ben")
    assert await refused(ben, "call.do_not_call", call=call) == "not_your_call"


@live
async def test_just_after_the_call_and_wrong_input(centre: Centre) -> None:
    anna, call, customer = await in_talk(centre)
    await anna.wait_for("pop.updated", call=call, lookup="complete")
    ben = await centre.screen("ben")
    assert await refused(ben, "call.call_back", call=call, at=later()) == "not_your_call"
    assert await refused(anna, "call.call_back", call="main:9.9", at=later()) == "not_your_call"
    for more, code in (
        ({"at": later(-60)}, "bad_time"),
        ({"at": "2026-13-01T00:00"}, "bad_args"),
        ({"at": later(), "zone": "Nowhere"}, "unknown_zone"),
        ({"at": later(), "number": "12"}, "bad_number"),
        ({"at": later(), "team": "service"}, "not_your_team"),
        ({"at": later(), "team": "none"}, "no_such_team"),
        ({"at": later(), "agent": "ben"}, "not_your_agent"),
        ({"at": later(), "agent": "anna", "team": "sales"}, "bad_args"),
        ({"at": later(), "queue": "main:support"}, "not_your_queue"),
        ({"at": later(), "queue": "main:none"}, "no_such_queue"),
        ({"at": later(), "note": "x" * 501}, "bad_args"),
        ({"at": later(), "note": "a\x07b"}, "bad_args"),
    ):
        assert await refused(anna, "call.call_back", call=call, **more) == code, more
    await centre.hang_up(customer)
    await anna.wait_for("call.cleared", call=call)
    made = await anna.ask("call.call_back", call=call, at=later(), queue="main:sales", number="020 7946 0999")
    assert (made["number"], made["agent"], made["team"], made["for_team"]) == (
        "+442079460999",
        None,
        "sales",
        True,
    )
    assert list(ben.picture.call_backs) == [made["id"]]
    await ben.as_told()


@live
async def test_only_one_takes_it(centre: Centre) -> None:
    anna, call, made = await promised(centre, team="sales")
    await anna.ask("call.hangup", call=call)
    ben, cleo, sara, dora = [await centre.screen(login) for login in ("ben", "cleo", "sara", "dora")]
    came = await asyncio.gather(
        *(s.ask("call_back.take", call_back=made["id"]) for s in (anna, ben, cleo)), return_exceptions=True
    )
    codes = sorted(one.code if isinstance(one, Refusal) else "ok" for one in came)
    assert codes == ["already_taken", "already_taken", "ok"], came
    winner = next(s for s, one in zip((anna, ben, cleo), came, strict=True) if not isinstance(one, Refusal))
    loser = anna if winner is not anna else ben
    for op, more in (("release", {}), ("done", {}), ("cancel", {}), ("move", {"at": later()})):
        assert await refused(loser, f"call_back.{op}", call_back=made["id"], **more) == "already_taken"
    assert await refused(dora, "call_back.take", call_back=made["id"]) == "no_such_call_back"
    assert await refused(sara, "call_back.take", call_back=made["id"]) == "not_yours"
    for view in list(winner.picture.calls):
        await winner.ask("call.clear", call=view)
    await winner.agent_is("ready")
    again = await winner.ask("call_back.take", call_back=made["id"])  # nobody answered: once more
    assert again["call_back"]["tries"] == 2
    await winner.ask("call.clear", call=again["call"]["call"])
    moved = await winner.ask(
        "call_back.move", call_back=made["id"], at="2026-12-24T10:00", zone="Europe/Berlin"
    )
    assert (moved["state"], moved["due"], moved["taken_by"]) == ("open", "2026-12-24T09:00:00Z", None)
    assert await refused(winner, "call_back.release", call_back=made["id"]) == "wrong_state"
    await sara.ask("call_back.cancel", call_back=made["id"], reason="asked not to")
    for screen in (anna, ben, cleo, sara):
        await screen.until(lambda s=screen: not s.picture.call_backs, what="gone")


@live
async def test_a_phone_that_is_not_reached_gives_it_back(centre: Centre) -> None:
    anna, call, made = await promised(centre)
    await anna.ask("call.hangup", call=call)
    await centre.phone("1101", mode="reject")
    assert await refused(anna, "call_back.take", call_back=made["id"]) == "phone_not_reached"
    await anna.until(lambda: anna.picture.call_backs[made["id"]]["state"] == "open", what="open again")
    await anna.as_told()


@live
async def test_reminders_to_the_agent_or_the_team(centre: Centre) -> None:
    anna, call, made = await promised(centre, later(2))
    ben = await centre.screen("ben")
    due = await anna.wait_for("call_back.due", call_back=made["id"])
    assert due["data"]["for_team"] is False
    assert not ben.all("call_back.due")
    await anna.ask("call.hangup", call=call)
    await anna.ask("agent.log_off")  # she has not called: the team may
    told = await ben.wait_for("call_back.due", call_back=made["id"])
    assert told["data"]["for_team"] is True
    await ben.as_told()
    await ben.ask("agent.log_on", ready=False)
    taken = await ben.ask("call_back.take", call_back=made["id"])
    await ben.ask("call.clear", call=taken["call"]["call"])
    await ben.ask("call_back.done", call_back=made["id"])
    await anna.until(lambda: not anna.picture.call_backs, what="gone")


@live
async def test_somebody_else_keeps_it(centre: Centre) -> None:
    anna, call, made = await promised(centre)
    await anna.ask("call.hangup", call=call)
    ben, sara = await centre.screen("ben"), await centre.screen("sara")
    id = made["id"]
    assert await refused(anna, "call_back.hand_over", call_back=id, agent="ben") == "not_your_agent"
    assert await refused(anna, "call_back.hand_over", call_back=id, agent="ben", team="sales") == "bad_args"
    assert await refused(ben, "call_back.hand_over", call_back=id) == "no_such_call_back"
    given = await sara.ask("call_back.hand_over", call_back=id, agent="ben")
    assert (given["agent"], given["state"]) == ("ben", "open")
    await ben.until(lambda: ben.picture.call_backs.get(id), what="it is his")
    await anna.until(lambda: id not in anna.picture.call_backs, what="it is hers no longer")
    assert await refused(sara, "call_back.hand_over", call_back=id, agent="ben") == "wrong_state"
    await ben.ask("call_back.hand_over", call_back=id, team="sales")
    await anna.until(lambda: anna.picture.call_backs.get(id), what="it is the team's")
    assert sara.picture.call_backs[id]["for_team"]
    await sara.ask("call_back.cancel", call_back=id)


@live
async def test_over_a_restart_and_over_rest(centre: Centre) -> None:
    anna, call, made = await promised(centre)
    other = await anna.ask("call.call_back", call=call, at=later(7200))
    await anna.ask("call.hangup", call=call)
    taken = await anna.ask("call_back.take", call_back=made["id"])
    await anna.ask("call.clear", call=taken["call"]["call"])
    await centre.stop_server()
    await centre.start_server()
    await anna.close()
    anna = await centre.screen("anna")
    assert {id: view["state"] for id, view in anna.picture.call_backs.items()} == {
        made["id"]: "taken",
        other["id"]: "open",
    }
    status, first = await centre.rest("GET", "/api/v1/call_backs?limit=1", "anna")
    assert (status, [item["id"] for item in first["items"]]) == (200, [made["id"]])
    _, second = await centre.rest("GET", f"/api/v1/call_backs?limit=1&cursor={first['next']}", "anna")
    assert ([item["id"] for item in second["items"]], second["next"]) == ([other["id"]], None)
    assert (await centre.rest("GET", "/api/v1/call_backs", "ben"))[1]["items"] == []
    await anna.ask("call_back.release", call_back=made["id"])
    status, body = await centre.rest(
        "POST", "/api/v1/commands/call_back.done", "anna", json={"call_back": made["id"]}
    )
    assert (status, body["data"]["state"]) == (200, "done")


@live
async def test_the_database_or_the_pbx_is_away(centre: Centre) -> None:
    anna, call, made = await promised(centre)
    await anna.ask("call.hangup", call=call)
    server = centre._server
    away = await asyncpg.create_pool("postgresql://nobody@127.0.0.1:1/none", min_size=0)
    open_pool, server.call_backs._pool = server.call_backs._pool, lambda: away
    try:
        assert await refused(anna, "call.call_back", call=call, at=later()) == "database_unavailable"
        for op, more in (("take", {}), ("done", {}), ("move", {"at": later()})):
            assert (
                await refused(anna, f"call_back.{op}", call_back=made["id"], **more) == "database_unavailable"
            )
    finally:
        server.call_backs._pool = open_pool
        await away.close()
    link = server.links["main"]
    centre.pbx.freeze()
    try:
        assert link._protocol is not None
        assert link._protocol.transport is not None
        link._protocol.transport.abort()
        await anna.wait_for("pbx.status_changed", where=lambda data: data["phase"] != "up")
        assert await refused(anna, "call_back.take", call_back=made["id"]) == "pbx_down"
    finally:
        centre.pbx.thaw()
    await centre.eventually(lambda: server.switches["main"].synced, what="synced", within=20)
    assert anna.picture.call_backs[made["id"]]["state"] == "open"
