"""Call control on a real Asterisk with real SIP phones: each command, what it does, and each way it can be refused."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.call_desk import (
    ANNA,
    BEN,
    CALLER_IDS,
    TRUNK,
    alone,
    apps,
    become,
    bridged,
    consulting,
    in_talk,
    refused,
    shown_outside,
    states,
)
from tests.centre import Centre, Refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")


CENTRE = {"main": {"ring_seconds": 3, "caller_ids": CALLER_IDS}}


# ------------------------------------------------------------------------------------------ hold and retrieve


async def test_hold_and_retrieve(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    anna.mark()
    answer = await anna.ask("call.hold", call=call)
    assert {c["device"]: c["state"] for c in answer["view"]["connections"]} == {TRUNK: "hold", ANNA: "hold"}
    doing = await apps(centre)
    assert doing[TRUNK] == "MusicOnHold"
    assert doing[ANNA] == "Wait"
    assert await refused(anna, "call.hold", call=call) == "wrong_state"
    answer = await anna.ask("call.retrieve", call=call)
    assert {c["device"]: c["state"] for c in answer["view"]["connections"]} == {
        TRUNK: "connected",
        ANNA: "connected",
    }
    assert await bridged(centre, TRUNK, ANNA)
    assert await refused(anna, "call.retrieve", call=call) == "wrong_state"
    held = [f["data"]["by"] for f in anna.all("call.held", agent="anna")]
    assert held == ["server"]
    for _ in range(2):  # again and again, with the channels as the first time left them
        await anna.ask("call.hold", call=call)
        await anna.ask("call.retrieve", call=call)
    await centre.phone_hangs_up("1101")
    await anna.wait_for("call.cleared", call=call)
    await alone(centre, TRUNK)


async def test_the_caller_leaves_during_hold(centre: Centre) -> None:
    anna, call, customer = await in_talk(centre)
    await anna.ask("call.hold", call=call)
    await centre.hang_up(customer)
    await anna.until(lambda: TRUNK not in states(anna, call), what="caller gone")
    assert await refused(anna, "call.retrieve", call=call) in ("caller_gone", "unknown_call")
    await alone(centre, ANNA)  # the phone is not left in silence
    assert await refused(anna, "call.retrieve", call=call) == "unknown_call"


async def test_the_phone_hangs_up_during_hold_and_is_rung_again(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    await anna.ask("call.hold", call=call)
    await centre.phone_hangs_up("1101")
    await become(centre, TRUNK, ANNA)


async def test_hanging_up_during_hold_ends_the_call(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    await anna.ask("call.hold", call=call)
    answer = await anna.ask("call.hangup", call=call)
    assert answer["view"] is None
    await anna.wait_for("call.cleared", call=call)
    await alone(centre, TRUNK)


# ------------------------------------------------------------------------------------------ leaving


async def test_hang_up_and_clear(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    answer = await anna.ask("call.hangup", call=call)
    assert answer["view"] is None
    await anna.wait_for("call.cleared", call=call)
    assert await refused(anna, "call.hangup", call=call) == "unknown_call"
    ben, call, _ = await in_talk(centre, "ben")
    await ben.ask("call.clear", call=call)
    assert not await centre.channels()
    assert await refused(ben, "call.clear", call=call) == "unknown_call"


# ------------------------------------------------------------------------------------------ who may


async def test_only_who_may(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    ben, sara, sven = [await centre.screen(login) for login in ("ben", "sara", "sven")]
    for op in ("call.hold", "call.retrieve", "call.hangup", "call.clear", "call.complete", "call.cancel"):
        assert await refused(ben, op, call=call) == "not_your_call", op
    assert await refused(ben, "call.transfer", call=call, to="1103") == "not_your_call"
    assert await refused(ben, "call.hold", call=call, agent="anna") == "not_your_agent"
    assert await refused(sven, "call.hold", call=call, agent="anna") == "not_your_agent"
    assert await refused(sven, "call.hold", call=call) == "not_your_call"
    assert await refused(sven, "call.clear", call=call) == "not_your_call"
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}
    await sara.ask("call.hold", call=call)
    await sara.ask("call.retrieve", call=call, agent="anna")
    await sara.ask("call.clear", call=call)
    await anna.wait_for("call.cleared", call=call)
    await centre._server.trail.flush()
    rows = await centre.fetch("SELECT * FROM audit ORDER BY id DESC LIMIT 20")
    told = [str(row) for row in rows]
    assert any("sara" in row and "call.clear" in row for row in told)
    assert any("ben" in row and "not_your_call" in row for row in told)


async def test_bad_arguments(centre: Centre) -> None:
    anna = await centre.screen("anna")
    for args in ({}, {"call": "x"}, {"call": "main:1", "to": "1", "to_agent": "ben"}, {"call": "main:1"}):
        assert await refused(anna, "call.transfer", **args) == "bad_args"
    assert await refused(anna, "call.hold", call="main:1.2") == "unknown_call"
    assert await refused(anna, "call.hold", call="elsewhere:1.2") == "unknown_call"


# ------------------------------------------------------------------------------------------ transfer


@pytest.mark.parametrize("held", [False, True])
async def test_blind_transfer(centre: Centre, held: bool) -> None:
    anna, call, _ = await in_talk(centre)
    ben = await centre.screen("ben")
    if held:
        await anna.ask("call.hold", call=call)
    answer = await anna.ask("call.transfer", call=call, to_agent="ben")
    assert answer["view"] is None
    assert ANNA not in await apps(centre)
    await ben.wait_for("call.established", call=call, agent="ben")
    await become(centre, TRUNK, BEN)
    assert call not in anna.picture.calls


async def test_a_wrong_target_leaves_the_caller_where_they_are(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    for to, code in (
        ("5555", "no_such_target"),
        ("abc", "no_such_target"),
        ("91", "no_such_target"),
        ("+4420", "no_such_target"),
        ("1101", "no_such_target"),
        ("1001", "target_unreachable"),
    ):
        assert await refused(anna, "call.transfer", call=call, to=to) == code, to
        assert await refused(anna, "call.consult", call=call, to=to) == code, to
    assert await refused(anna, "call.transfer", call=call, to_queue="main:nowhere") == "no_such_target"
    assert await refused(anna, "call.transfer", call=call, to_agent="sara") == "no_such_target"
    assert await bridged(centre, TRUNK, ANNA)
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}


@pytest.mark.parametrize("mode", ["busy", "reject", "silent"])
async def test_a_target_who_does_not_take_it_gives_the_caller_back(centre: Centre, mode: str) -> None:
    anna, call, _ = await in_talk(centre)
    await centre.phone("1102", mode=mode)
    with suppress(Refusal):  # it may be known at once that it failed
        await anna.ask("call.transfer", call=call, to="1102")
    await become(centre, TRUNK, ANNA, within=12)


async def test_transfer_to_a_queue(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    dora = await centre.screen("dora")
    await centre.log_on(dora)
    await anna.ask("call.transfer", call=call, to_queue="main:support")
    await dora.wait_for("call.established", call=call, agent="dora")
    assert ANNA not in await apps(centre)


async def test_transfer_to_the_outside(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    await anna.ask("call.transfer", call=call, to="9442079460123")
    assert await shown_outside(centre) == "442079460153"
    async with asyncio.timeout(8):
        while (
            sum(
                row["Channel"].startswith(TRUNK) and row["ChannelStateDesc"] == "Up"
                for row in await centre.channels()
            )
            < 2
        ):
            await asyncio.sleep(0.05)
    assert ANNA not in await apps(centre)


# ------------------------------------------------------------------------------------------ consultation


async def test_consult_and_complete(centre: Centre) -> None:
    anna, _ben, call, _ = await consulting(centre)
    assert await bridged(centre, ANNA, BEN)
    assert await refused(anna, "call.consult", call=call, to="1103") == "wrong_state"
    assert await refused(anna, "call.transfer", call=call, to="1103") == "wrong_state"
    answer = await anna.ask("call.complete", call=call)
    assert answer["view"] is None
    assert await bridged(centre, TRUNK, BEN)
    assert ANNA not in await apps(centre)
    assert await refused(anna, "call.complete", call=call) == "not_your_call"
    await centre.phone_hangs_up("1102")
    await alone(centre, TRUNK)


async def test_consult_and_cancel(centre: Centre) -> None:
    anna, ben, call, _ = await consulting(centre)
    await anna.ask("call.cancel", call=call)
    assert await bridged(centre, TRUNK, ANNA)
    await ben.wait_for("call.connection_cleared", agent="ben")
    assert BEN not in await apps(centre)
    assert await refused(anna, "call.cancel", call=call) == "wrong_state"
    await anna.ask("call.hangup", call=call)
    await alone(centre, TRUNK)


async def test_alternate(centre: Centre) -> None:
    anna, _ben, call, _ = await consulting(centre)
    await anna.ask("call.alternate", call=call)
    assert await bridged(centre, TRUNK, ANNA)
    assert states(anna, call)[BEN] == "hold"
    await anna.ask("call.alternate", call=call)
    assert await bridged(centre, BEN, ANNA)
    assert states(anna, call)[TRUNK] == "hold"
    await anna.ask("call.alternate", call=call)
    await anna.ask("call.complete", call=call)
    assert await bridged(centre, TRUNK, BEN)
    await alone(centre, ANNA)
