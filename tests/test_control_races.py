"""The caller hangs up at the very moment of a command: the answer says what became of it, and nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from tests.call_desk import consulting, in_talk
from tests.centre import Centre, Refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

GONE = {"caller_gone", "unknown_call", "not_your_call", "wrong_state", "not_confirmed", "target_not_reached"}


CENTRE = {"main": {"ring_seconds": 3}}


async def empty(centre: Centre, *phones: str, within: float = 12.0) -> None:
    """Wait until Asterisk has no channel and the server no call. Who is left at one of the phones puts it down, once it
    has begun to ring, as people do; each does so once."""
    left = set(phones)
    async with asyncio.timeout(within):
        while (rows := await centre.channels()) or len(centre._server.switches["main"].calls):
            there = {row["Channel"].partition("-")[0] for row in rows if row["ChannelStateDesc"] != "Down"}
            for phone in [phone for phone in left if f"PJSIP/{phone}" in there]:
                left.discard(phone)
                with suppress(Exception):  # gone by itself
                    await centre.admin("Hangup", Channel=f"/^PJSIP.{phone}-/", Cause="16")
            await asyncio.sleep(0.05)
    assert not len(centre._server.waits)


async def settled(asked: asyncio.Task[Any]) -> None:
    """Wait for the answer: done, or a reason that fits."""
    await asyncio.wait([asked])
    answer = asked.exception() or asked.result()
    assert isinstance(answer, dict) or (isinstance(answer, Refusal) and answer.code in GONE), answer


@pytest.mark.parametrize("later", [0.0, 0.004, 0.012])
@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("call.hold", {}),
        ("call.transfer", {"to": "1102"}),
        ("call.consult", {"to": "1102"}),
        ("call.park", {}),
        ("call.hangup", {}),
        ("conference.add", {"to": "1102"}),
    ],
)
async def test_the_caller_hangs_up_at_that_moment(
    centre: Centre, op: str, args: dict[str, Any], later: float
) -> None:
    anna, call, customer = await in_talk(centre)
    asked = asyncio.create_task(anna.ask(op, call=call, **args))
    await asyncio.sleep(later)
    await centre.hang_up(customer)
    await settled(asked)
    await empty(centre, "1101", "1102")  # who still talks with one another goes too


@pytest.mark.parametrize("op", ["call.complete", "call.cancel", "call.alternate", "call.conference"])
async def test_the_caller_hangs_up_while_a_consultation_ends(centre: Centre, op: str) -> None:
    anna, _ben, call, customer = await consulting(centre)
    asked = asyncio.create_task(anna.ask(op, call=call))
    await centre.hang_up(customer)
    await settled(asked)
    await empty(centre, "1101", "1102")


async def test_many_commands_in_one_call(centre: Centre) -> None:
    anna, call, customer = await in_talk(centre)
    for _ in range(2):
        await anna.ask("call.hold", call=call)
        await anna.ask("call.consult", call=call, to="1102")
        await anna.ask("call.cancel", call=call)
        await anna.ask("call.consult", call=call, to="1103")
        await anna.until(
            lambda: [c["state"] for c in anna.picture.calls[call]["connections"]].count("connected") == 2,
            what="talking with the asked one",
        )
        await anna.ask("call.alternate", call=call)
        await anna.ask("call.cancel", call=call)
    await anna.as_told()
    assert not anna.all("call.transferred")  # who was asked and let go has handed nothing on
    await centre.hang_up(customer)
    await empty(centre)
