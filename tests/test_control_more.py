"""More call control on a real Asterisk: conference, tones, parking, deflecting, data."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.call_desk import (
    ANNA,
    BEN,
    TRUNK,
    alone,
    apps,
    become,
    bridged,
    consulting,
    in_talk,
    refused,
    states,
)
from tests.centre import Centre, Refusal, Screen

pytestmark = pytest.mark.asyncio(loop_scope="module")


CENTRE = {"main": {"ring_seconds": 4}}


def party(screen: Screen, call: str, device: str) -> str:
    """The connection id of a device in the call."""
    return next(str(c["id"]) for c in screen.picture.calls[call]["connections"] if c["device"] == device)


async def room_of(centre: Centre, call: str) -> list[dict[str, str]]:
    """Who is in the conference, as Asterisk lists it."""
    view = centre._server.switches["main"].calls.view(call)
    assert view is not None
    assert view.conference is not None
    return [
        row for row in await centre.rows("ConfbridgeList", Conference=view.conference) if "Channel" in row
    ]


# ------------------------------------------------------------------------------------------ conference


async def test_a_consultation_becomes_a_conference_and_is_handed_over(centre: Centre) -> None:
    anna, ben, call, _ = await consulting(centre)
    answer = await anna.ask("call.conference", call=call)
    assert {c["device"]: c["state"] for c in answer["view"]["connections"]} == dict.fromkeys(
        (TRUNK, ANNA, BEN), "connected"
    )
    assert len(await room_of(centre, call)) == 3
    assert await refused(anna, "call.conference", call=call) == "wrong_state"
    assert await refused(anna, "call.hold", call=call) == "wrong_state"
    await anna.ask("conference.hand_over", call=call)
    await alone(centre, ANNA)
    assert states(ben, call) == {TRUNK: "connected", BEN: "connected"}
    assert await refused(ben, "conference.hand_over", call=call) == "wrong_state"
    await ben.ask("call.hangup", call=call)
    await alone(centre, TRUNK)  # the caller does not stay in the room alone


def is_muted(screen: Screen, call: str) -> set[str]:
    """Who is muted, as a screen shows it."""
    return {c["device"] for c in screen.picture.calls[call]["connections"] if c["muted"]}


async def refused_mute(anna: Screen, call: str, muted: bool) -> str:
    """The code with which muting Ben is refused."""
    return await refused(anna, "conference.mute", call=call, party=party(anna, call, BEN), muted=muted)


async def test_who_is_muted_is_known_after_a_restart(centre: Centre) -> None:
    anna, ben, call, _ = await consulting(centre)
    await anna.ask("call.conference", call=call)
    await anna.ask("conference.mute", call=call, party=party(anna, call, BEN))
    await centre.stop_server()
    await centre.start_server()
    await asyncio.gather(anna.close(), ben.close())
    anna = await centre.screen("anna")
    await anna.until(lambda: is_muted(anna, call) == {BEN}, what="muted")
    await anna.ask("conference.mute", call=call, party=party(anna, call, BEN), muted=False)
    assert is_muted(anna, call) == set()
    await anna.ask("conference.mute", call=call, party=party(anna, call, TRUNK))
    assert is_muted(anna, call) == {TRUNK}
    await anna.as_told()


async def test_conference_add_mute_remove(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    ben = await centre.screen("ben")
    assert await refused(anna, "conference.add", call=call, to="5555") == "no_such_target"
    assert await refused(anna, "conference.mute", call=call, party="main:1") == "wrong_state"
    await anna.ask("conference.add", call=call, to_agent="ben")
    await ben.wait_for("call.conferenced", call=call)
    await anna.until(lambda: list(states(anna, call).values()).count("connected") == 3, what="three of them")
    assert len(await room_of(centre, call)) == 3
    for muted in (True, False):
        await anna.ask("conference.mute", call=call, party=party(anna, call, BEN), muted=muted)
        assert sum(row["Muted"] == "Yes" for row in await room_of(centre, call)) == muted
        for screen in (anna, ben):
            told = await screen.wait_for("call.muted", call=call, muted=muted)
            assert told["data"]["agent"] == "ben"
            shown = {BEN} if muted else set()
            await screen.until(lambda s=screen, m=shown: is_muted(s, call) == m, what="shown")
        assert await refused_mute(anna, call, muted) == "wrong_state"
        await anna.as_told()
    assert await refused(anna, "conference.remove", call=call, party="main:1") == "no_such_party"
    await anna.ask("conference.remove", call=call, party=party(anna, call, BEN))
    await alone(centre, BEN)
    await centre.phone("1103", mode="reject")
    assert await refused(anna, "conference.add", call=call, to="1103") == "target_not_reached"
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}
    await centre.phone_hangs_up("1101")
    await alone(centre, TRUNK)


# ------------------------------------------------------------------------------------------ tones, parking


async def test_tones_arrive_at_the_other_party(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    await (await centre.ami("world")).send("Command", {"Command": "logger add channel dtmf dtmf"})
    await anna.ask("call.dtmf", call=call, digits="12#")
    assert await refused(anna, "call.dtmf", call=call, digits="1x") == "bad_args"
    log = centre.world.instance.run_dir / "log" / "dtmf"
    async with asyncio.timeout(5):
        while not all(f"'{digit}'" in log.read_text() for digit in "12#"):
            await asyncio.sleep(0.05)
    await centre._server.trail.flush()
    rows = await centre.fetch("SELECT * FROM audit WHERE action = 'call.dtmf'")
    assert rows
    assert not any("12#" in str(row) for row in rows)


async def test_park_and_pick_up(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    ben = await centre.screen("ben")
    assert await refused(ben, "call.pick_up", call=call) == "wrong_state"
    await anna.ask("call.set_data", call=call, data={"order": "4711"})
    answer = await anna.ask("call.park", call=call)
    assert answer["slot"].startswith("70")
    assert ANNA not in await apps(centre)
    await ben.ask("call.pick_up", call=call)
    await become(centre, TRUNK, BEN)
    await ben.wait_for("call.merged", call=call)
    assert ben.picture.calls[call]["data"]["order"] == "4711"
    assert "parked_at" not in {name for name, value in ben.picture.calls[call].items() if value}


async def test_a_parked_call_that_nobody_fetches_comes_back(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    await anna.ask("call.park", call=call)
    await become(centre, TRUNK, ANNA, within=15)


# ------------------------------------------------------------------------------------------ while it rings


async def test_deflect(centre: Centre) -> None:
    await centre.phone("1101", mode="silent")
    anna, ben = await centre.screen("anna"), await centre.screen("ben")
    await centre.log_on(anna)
    await centre.call("sales", talk=60)
    call = (await anna.wait_for("call.delivered", agent="anna"))["data"]["call"]
    assert await refused(anna, "call.hold", call=call) == "wrong_state"
    assert await refused(anna, "call.deflect", call=call, to="5555") == "no_such_target"
    assert await refused(anna, "call.answer", call=call) == "no_right"  # the least rights do not include it
    await anna.ask("call.deflect", call=call, to_agent="ben")
    await ben.wait_for("call.established", call=call, agent="ben")
    await become(centre, TRUNK, BEN)
    assert await refused(ben, "call.deflect", call=call, to="1103") == "wrong_state"


async def test_a_colleagues_call_is_deflected_to_a_queue(centre: Centre) -> None:
    await centre.phone("1101", mode="silent")
    anna, dora = await centre.screen("anna"), await centre.screen("dora")
    await centre.log_on(dora)
    await centre.dial("1110", "1101")  # of no queue: rings at this phone alone
    call = (await anna.wait_for("call.delivered", agent="anna"))["data"]["call"]
    answer = await anna.ask("call.deflect", call=call, to_queue="main:support")
    assert answer["view"] is None
    await dora.wait_for("call.established", call=call, agent="dora")
    await become(centre, "PJSIP/1110", "PJSIP/1104")
    assert call not in anna.picture.calls


# ------------------------------------------------------------------------------------------ data


async def test_data_by_any_client_follows_the_call(centre: Centre) -> None:
    anna, ben, call, _ = await consulting(centre)
    cleo = await centre.screen("cleo")
    answer = await anna.ask("call.set_data", call=call, data={"order": "4711", "mood": "fine"})
    assert answer["saved"]
    query = (
        "SELECT data::text AS data FROM journal WHERE call = $1 AND type = 'call.data_changed' ORDER BY seq"
    )
    assert "4711" in (await centre.fetch(query, call))[-1]["data"], "acknowledged, so it is written"
    told = await ben.wait_for("call.data_changed", call=call)
    assert told["data"]["by"] == "anna"
    assert await refused(cleo, "call.set_data", call=call, data={"order": "1"}) == "not_your_call"
    assert await refused(anna, "call.set_data", call=call, data={}) == "bad_args"
    assert await refused(anna, "call.set_data", call=call, data={"a b": "1"}) == "bad_args"
    assert await refused(anna, "call.set_data", call="main:9.9", data={"a": "1"}) == "unknown_call"
    await anna.ask("call.complete", call=call)
    await ben.ask("call.set_data", call=call, data={"mood": ""})
    await ben.until(lambda: "mood" not in ben.picture.calls[call]["data"], what="mood removed")
    assert ben.picture.calls[call]["data"]["order"] == "4711"


# ------------------------------------------------------------------------------------------ recording


async def test_recording_needs_a_right_that_is_not_given_lightly(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    with pytest.raises(Refusal, match="system") as caught:
        await anna.ask("recording.start", call=call)
    assert caught.value.code == "no_right"
    for op in ("recording.pause", "recording.resume", "recording.stop"):
        assert await refused(anna, op, call=call) == "wrong_state"


# ------------------------------------------------------------------------------------------ twice, and over REST


async def test_the_same_command_twice_and_two_at_once(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    sara = await centre.screen("sara")
    first = await anna.ask("call.hold", id="h1", call=call)
    assert await anna.ask("call.hold", id="h1", call=call) == first  # resent: answered again, not done again
    assert await refused(anna, "call.hold", call=call) == "wrong_state"
    await anna.ask("call.retrieve", call=call)
    both = await asyncio.gather(
        anna.ask("call.hold", call=call), sara.ask("call.hold", call=call), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in both) == ["Refusal", "dict"]


async def test_over_rest(centre: Centre) -> None:
    _, call, _ = await in_talk(centre)
    status, body = await centre.rest("POST", "/api/v1/commands/call.hold", "anna", json={"call": call})
    assert status == 200, body
    status, body = await centre.rest("POST", "/api/v1/commands/call.hold", "anna", json={"call": call})
    assert status in (400, 409, 422), body
    assert body["code"] == "wrong_state"
    status, body = await centre.rest("POST", "/api/v1/commands/call.hold", "ben", json={"call": call})
    assert status == 403, json.dumps(body)


# ------------------------------------------------------------------------------------------ a server that restarts


async def test_what_was_on_hold_is_known_after_a_restart(centre: Centre) -> None:
    anna, held, _ = await in_talk(centre)
    await anna.ask("call.hold", call=held)
    await centre.stop_server()
    await centre.start_server()
    await anna.close()
    anna = await centre.screen("anna")
    assert states(anna, held) == {TRUNK: "hold", ANNA: "hold"}
    await anna.ask("call.retrieve", call=held)
    assert await bridged(centre, TRUNK, ANNA)
    await anna.as_told()


async def test_a_consultation_is_known_after_a_restart(centre: Centre) -> None:
    anna, ben, call, _ = await consulting(centre)
    await centre.stop_server()
    await centre.start_server()
    await asyncio.gather(anna.close(), ben.close())
    anna = await centre.screen("anna")
    assert states(anna, call) == {TRUNK: "hold", ANNA: "connected", BEN: "connected"}
    await anna.ask("call.alternate", call=call)
    await anna.ask("call.complete", call=call)
    assert await bridged(centre, TRUNK, BEN)
