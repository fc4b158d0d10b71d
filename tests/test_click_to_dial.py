"""Click to dial on a real Asterisk: the agent's phone first, then the target, with the caller id that the rules say."""

from __future__ import annotations

import pytest

from tests.call_desk import (
    ANNA,
    BEN,
    CALLER_IDS,
    alone,
    become,
    refused,
    shown_outside,
)
from tests.centre import Centre

pytestmark = pytest.mark.asyncio(loop_scope="module")


CENTRE = {"main": {"ring_seconds": 3, "caller_ids": CALLER_IDS}}


async def test_click_to_dial(centre: Centre) -> None:
    anna, ben = await centre.screen("anna"), await centre.screen("ben")
    answer = await anna.ask("call.make", to="11 02")
    call = answer["call"]
    assert answer["agent"] == "anna"
    await anna.wait_for("call.established", call=call, agent="anna")
    await ben.wait_for("call.established", call=call, agent="ben")
    await become(centre, ANNA, BEN)
    assert await refused(anna, "call.make", to="1103") == "wrong_state"
    await anna.ask("call.hold", call=call)
    await anna.ask("call.retrieve", call=call)
    await anna.ask("call.hangup", call=call)
    await ben.wait_for("call.cleared", call=call)
    await alone(centre, BEN)


async def test_click_to_dial_refused(centre: Centre) -> None:
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    assert await refused(anna, "call.make", to="5555") == "no_such_target"
    assert await refused(anna, "call.make", to="1102", agent="ben") == "not_your_agent"
    assert await refused(sara, "call.make", to="1102") == "no_phone"
    assert await refused(sara, "call.make", to="1102", agent="dora") == "not_your_agent"
    assert await refused(anna, "call.make", to="1102", pbx="moon") == "no_such_pbx"
    await centre.phone("1101", mode="reject")
    assert await refused(anna, "call.make", to="1102") == "phone_not_reached"
    assert not await centre.channels()


@pytest.mark.parametrize(
    ("login", "number", "shown"),
    [
        ("anna", "9442079460123", "442079460153"),
        ("anna", "0033199001122", "442079460152"),
        ("dora", "+33199001122", "442079460151"),
    ],
)
async def test_the_caller_id_is_chosen_by_rule(centre: Centre, login: str, number: str, shown: str) -> None:
    agent = await centre.screen(login)
    await agent.ask("call.make", to=number)
    assert await shown_outside(centre) == shown
