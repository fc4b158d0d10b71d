"""Supervisors on a real Asterisk with real SIP phones: listen, whisper, barge, take over, and each way it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from cti import users
from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.call_desk import ANNA, CLEO, TRUNK, apps, become, in_talk, refused, states
from tests.centre import Centre, Screen, centre_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SARA = "PJSIP/1109"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    async with centre_of(
        asterisk_installation,
        postgres_server,
        server=False,
        main={"ring_seconds": 3},
        wrap_up={"seconds": 60},
    ) as centre:
        db = await asyncpg.connect(centre.dsn)
        try:
            await users.set_interface(db, "sara", "main", SARA)
        finally:
            await db.close()
        await centre.start_server()
        yield centre


@pytest_asyncio.fixture(loop_scope="module")
async def centre(the_centre: Centre) -> AsyncIterator[Centre]:
    yield the_centre
    await the_centre.quiet()
    assert the_centre.server is not None
    assert not len(the_centre.server.supervising)


async def spying(centre: Centre) -> list[str]:
    """What supervisors' channels do, as Asterisk says: the arguments of ChanSpy."""
    rows = await centre.channels()
    return [row["ApplicationData"] for row in rows if row["Application"] == "ChanSpy"]


async def no_spies(centre: Centre, within: float = 8.0) -> None:
    """Wait until nobody listens, as Asterisk says."""
    async with asyncio.timeout(within):
        while await spying(centre) or SARA in await apps(centre):
            await asyncio.sleep(0.05)


def without_since(shown: Any) -> Any:
    """A call without times."""
    return [{k: v for k, v in c.items() if k != "since"} for c in shown["connections"]]


async def both(centre: Centre) -> tuple[Screen, Screen, str, str]:
    """Anna in talk with a customer, and Sara's screen."""
    anna, call, customer = await in_talk(centre)
    sara = await centre.screen("sara")
    anna.mark()
    return anna, sara, call, customer


async def test_listen_whisper_barge_stop(centre: Centre) -> None:
    anna, sara, call, _ = await both(centre)
    before = without_since(sara.picture.calls[call])
    answer = await sara.ask("supervisor.listen", agent="anna")
    assert (answer["supervisor"], answer["agent"], answer["call"]) == ("sara", "anna", call)
    assert answer["mode"] == "listen"
    (channel,) = await spying(centre)
    assert channel.startswith(f"{ANNA}-")
    assert channel.endswith(",qES")
    assert (await sara.wait_for("supervision.started", agent="anna"))["data"]["mode"] == "listen"
    for mode, option in (("whisper", "qwES"), ("barge", "qBES"), ("listen", "qES")):
        answer = await sara.ask(f"supervisor.{mode}", agent="anna")
        assert answer["mode"] == mode
        (channel,) = await spying(centre)
        assert channel.endswith(f",{option}"), mode
        await sara.wait_for("supervision.changed", mode=mode)
        assert await refused(sara, f"supervisor.{mode}", agent="anna", call=call) == "wrong_state"
    shown = (await sara.ask("state.get"))["data"]
    assert [(s["supervisor"], s["agent"], s["mode"]) for s in shown["supervisions"]] == [
        ("sara", "anna", "listen")
    ]
    await sara.as_told()
    # the customer's call, the supervisor and the agent are shown as if nobody listened
    assert without_since(sara.picture.calls[call]) == before
    assert list(sara.picture.calls) == [call]
    assert [c["id"] for c in shown["calls"]] == [call]
    assert sara.picture.agents["anna"]["state"] == "busy"
    assert not anna.all("supervision.*")
    assert (await anna.ask("state.get"))["data"]["supervisions"] == []
    await sara.ask("supervisor.stop")
    assert (await sara.wait_for("supervision.ended"))["data"]["reason"] == "stopped"
    await no_spies(centre)
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}
    assert not anna.all("supervision.*")
    assert not anna.all("call.*")
    assert await refused(sara, "supervisor.stop") == "wrong_state"
    rows = await audited(centre, 7)
    assert {"supervisor.listen", "supervisor.whisper", "supervisor.barge", "supervisor.stop"} <= rows


async def audited(centre: Centre, least: int) -> set[str]:
    """The operations of supervisors in the audit."""
    async with asyncio.timeout(8):
        while True:
            rows = await centre.fetch("SELECT action FROM audit WHERE action LIKE 'supervisor.%'")
            if len(rows) >= least:
                return {row["action"] for row in rows}
            await asyncio.sleep(0.05)


async def test_it_ends_with_the_call(centre: Centre) -> None:
    _, sara, _, customer = await both(centre)
    await sara.ask("supervisor.whisper", agent="anna")
    await centre.hang_up(customer)
    assert (await sara.wait_for("supervision.ended"))["data"]["reason"] == "call_ended"
    await no_spies(centre)


async def test_it_ends_when_the_agent_hangs_up(centre: Centre) -> None:
    _, sara, _, _ = await both(centre)
    await sara.ask("supervisor.barge", agent="anna")
    await centre.phone_hangs_up("1101")
    assert (await sara.wait_for("supervision.ended"))["data"]["reason"] == "call_ended"
    await no_spies(centre)


async def test_the_supervisor_hangs_up(centre: Centre) -> None:
    anna, sara, call, _ = await both(centre)
    await sara.ask("supervisor.listen", agent="anna")
    await centre.phone_hangs_up("1109")
    assert (await sara.wait_for("supervision.ended"))["data"]["reason"] == "hung_up"
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}


async def test_it_goes_on_through_a_hold(centre: Centre) -> None:
    anna, sara, call, _ = await both(centre)
    await sara.ask("supervisor.listen", agent="anna")
    await anna.ask("call.hold", call=call)
    await anna.ask("call.retrieve", call=call)
    assert len(await spying(centre)) == 1
    assert not sara.all("supervision.ended")


async def test_take_over(centre: Centre) -> None:
    anna, sara, call, _ = await both(centre)
    await sara.ask("supervisor.whisper", agent="anna")
    answer = await sara.ask("supervisor.take_over", agent="anna", within=30)
    assert {c["device"]: c["state"] for c in answer["view"]["connections"]} == {
        TRUNK: "connected",
        SARA: "connected",
    }
    await become(centre, TRUNK, SARA)
    assert ANNA not in await apps(centre)
    assert (await sara.wait_for("supervision.ended"))["data"]["reason"] == "taken_over"
    moved = await sara.wait_for("call.transferred", call=call)
    assert moved["data"]["by"]["agent"] == "anna"
    await anna.agent_is("wrap_up")
    assert call not in anna.picture.calls
    await sara.as_told("transferred_by")
    assert await refused(sara, "supervisor.take_over", agent="anna") == "not_in_a_call"
    await sara.ask("call.hangup", call=call)
    await sara.wait_for("call.cleared", call=call)
    assert not await centre.channels()


async def test_take_over_at_once(centre: Centre) -> None:
    anna, sara, call, customer = await both(centre)
    answer = await sara.ask("supervisor.take_over", agent="anna", call=call, within=30)
    assert {c["agent"] for c in answer["view"]["connections"]} == {None, "sara"}
    await become(centre, TRUNK, SARA)
    await anna.agent_is("wrap_up")
    await centre.hang_up(customer)
    await sara.wait_for("call.cleared", call=call)
    record = await centre.interaction_of(call)
    assert record["agents"] == ["anna", "sara"]
    await no_spies(centre)


async def test_take_over_of_a_caller_on_hold(centre: Centre) -> None:
    anna, sara, call, _ = await both(centre)
    await anna.ask("call.hold", call=call)
    answer = await sara.ask("supervisor.take_over", agent="anna", within=30)
    assert {c["device"]: c["state"] for c in answer["view"]["connections"]} == {
        TRUNK: "connected",
        SARA: "connected",
    }
    await become(centre, TRUNK, SARA)
    await anna.agent_is("wrap_up")
    await centre.phone_hangs_up("1109")
    await sara.wait_for("call.cleared", call=call)
    async with asyncio.timeout(8):
        while await centre.channels():
            await asyncio.sleep(0.05)


async def test_with_a_consultation(centre: Centre) -> None:
    """It goes on through it; only a call with one other party can be taken over."""
    anna, sara, call, _ = await both(centre)
    await anna.ask("call.consult", call=call, to="1103")
    await anna.until(lambda: states(anna, call).get(CLEO) == "connected", what="Cleo answers")
    await sara.ask("supervisor.listen", agent="anna")
    assert await refused(sara, "supervisor.take_over", agent="anna") == "wrong_state"
    assert len(await spying(centre)) == 1
    await anna.ask("call.complete", call=call)
    assert (await sara.wait_for("supervision.ended"))["data"]["reason"] == "call_ended"
    await become(centre, TRUNK, CLEO)
    await no_spies(centre)


async def test_a_comparison_with_the_pbx_passes_over_supervisors(centre: Centre) -> None:
    _, sara, call, _ = await both(centre)
    await sara.ask("supervisor.listen", agent="anna")
    assert centre.server is not None
    switch = centre.server.switches["main"]
    before = dict(switch.drift), switch.calls.unknown, switch.calls.sizes()
    await switch._resync("test")
    assert (dict(switch.drift), switch.calls.unknown, switch.calls.sizes()) == before
    assert list(sara.picture.calls) == [call]
    assert (await sara.ask("state.get"))["data"]["supervisions"][0]["agent"] == "anna"


async def test_who_may_not(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    ben, sven, olga = [await centre.screen(login) for login in ("ben", "sven", "olga")]
    for op in ("listen", "whisper", "barge", "take_over"):
        assert await refused(ben, f"supervisor.{op}", agent="anna") == "forbidden"
        assert await refused(sven, f"supervisor.{op}", agent="anna", call=call) == "not_your_agent"
        assert await refused(olga, f"supervisor.{op}", agent="anna") == "no_phone"
    assert await refused(ben, "supervisor.stop") == "forbidden"
    sara = await centre.screen("sara")
    assert await refused(sara, "supervisor.listen", agent="nobody") == "not_an_agent"
    assert await refused(sara, "supervisor.listen", agent="sara") == "not_your_agent"
    assert await refused(sara, "supervisor.listen", agent="ben") == "not_in_a_call"
    assert await refused(sara, "supervisor.listen", agent="anna", call="main:1.1") == "not_in_a_call"
    assert await refused(sara, "supervisor.take_over", agent="ben") == "not_in_a_call"
    assert not await spying(centre)
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}


async def test_the_phone_is_not_picked_up(centre: Centre) -> None:
    anna, sara, call, _ = await both(centre)
    for mode in ("reject", "busy", "silent"):
        await centre.phone("1109", mode=mode)
        assert await refused(sara, "supervisor.listen", agent="anna") == "phone_not_reached", mode
    assert await refused(sara, "supervisor.take_over", agent="anna") == "phone_not_reached"
    assert not sara.all("supervision.*")
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}
    await no_spies(centre)


async def test_the_call_ends_while_the_phone_rings(centre: Centre) -> None:
    _, sara, _, customer = await both(centre)
    await centre.phone("1109", mode="silent")
    asked = asyncio.create_task(refused(sara, "supervisor.listen", agent="anna"))
    await centre.channel_of("1109")
    await centre.hang_up(customer)
    assert await asked == "not_in_a_call"
    await no_spies(centre)


async def test_stopped_while_the_phone_rings(centre: Centre) -> None:
    _, sara, _, _ = await both(centre)
    await centre.phone("1109", mode="silent")
    asked = asyncio.create_task(refused(sara, "supervisor.listen", agent="anna"))
    await centre.channel_of("1109")
    await sara.ask("supervisor.stop")
    assert await asked == "stopped"
    assert not sara.all("supervision.*")
    await no_spies(centre)


async def test_one_call_at_a_time(centre: Centre) -> None:
    anna, sara, call, _ = await both(centre)
    await sara.ask("supervisor.listen", agent="anna")
    await in_talk(centre, "ben")
    assert await refused(sara, "supervisor.listen", agent="ben") == "wrong_state"
    assert await refused(sara, "supervisor.take_over", agent="ben") == "wrong_state"
    await sara.ask("supervisor.stop")
    await sara.ask("supervisor.listen", agent="ben")
    assert states(anna, call) == {TRUNK: "connected", ANNA: "connected"}


async def test_the_same_command_twice_at_once(centre: Centre) -> None:
    _, sara, _, _ = await both(centre)
    asked = [asyncio.create_task(sara.ask("supervisor.listen", agent="anna")) for _ in range(2)]
    await asyncio.wait(asked)
    assert sorted("" if task.exception() is None else "refused" for task in asked) == ["", "refused"]
    assert getattr(asked[1].exception(), "code", "") == "wrong_state"
    assert len(await spying(centre)) == 1


async def test_a_restart_of_the_server_ends_what_nobody_knows(centre: Centre) -> None:
    _, sara, call, _ = await both(centre)
    await sara.ask("supervisor.listen", agent="anna")
    await centre.stop_server()
    assert len(await spying(centre)) == 1
    await centre.start_server()
    await no_spies(centre)
    sara = await centre.screen("sara")
    assert (await sara.ask("state.get"))["data"]["supervisions"] == []
    assert states(sara, call) == {TRUNK: "connected", ANNA: "connected"}
    await sara.ask("supervisor.listen", agent="anna")


async def test_the_agent_is_told_where_the_settings_say_so(centre: Centre) -> None:
    await centre.stop_server()
    await centre.start_server(supervision={"announce": True})
    try:
        anna, sara, _, _ = await both(centre)
        await sara.ask("supervisor.listen", agent="anna")
        assert (await anna.wait_for("supervision.started"))["data"]["supervisor"] == "sara"
        assert (await anna.ask("state.get"))["data"]["supervisions"][0]["supervisor"] == "sara"
    finally:
        await centre.stop_server()
        await centre.start_server()


async def test_the_pbx_is_down(centre: Centre) -> None:
    _, sara, _, _ = await both(centre)
    await sara.ask("supervisor.listen", agent="anna")
    await asyncio.to_thread(centre.pbx.kill)
    await sara.wait_for("pbx.status_changed", where=lambda data: data["phase"] != "up")
    assert await refused(sara, "supervisor.stop") == "pbx_down"
    assert await refused(sara, "supervisor.listen", agent="anna") == "pbx_down"
    assert await refused(sara, "supervisor.take_over", agent="anna") == "pbx_down"
    await asyncio.to_thread(centre.pbx.start)
    assert (await sara.wait_for("supervision.ended", within=20))["data"]["reason"] == "lost"
    assert (await sara.ask("state.get"))["data"]["supervisions"] == []
