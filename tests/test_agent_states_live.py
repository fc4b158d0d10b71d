"""Agent states on a real Asterisk, whatever is taken away and comes back: right within a second, or unknown, never wrong.

Every row of the table is one thing that happens to the house while agents are in known states. All that screens were
shown on the way is looked at: only what is listed as possible may have been seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from cti.embedded.asterisk import Installation
from cti.embedded.place import free_ports, remove_folder
from cti.embedded.postgres import Postgres
from cti.wrap_up import WrapUp
from tests.centre import Centre, Refusal, Screen, centre_of
from tests.conftest import SCENARIOS, AsteriskFactory, Sipp, SippRun
from tests.floor import person
from tests.folders import quick_folder
from tests.live_floor import LiveFloor, callers, now
from tests.sip_party import Party

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULES: dict[str, Any] = {
    "wrap_up": {
        "seconds": 0,
        "queues": {
            "main:support": {
                "seconds": 1,
                "mandatory": True,
                "dispositions": {"solved": "Solved", "later": "Call again"},
            }
        },
    },
    "not_ready_reasons": ["Break", {"name": "Lunch", "paid": False, "limit": 30}, "Meeting"],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(asterisk_installation: Installation) -> AsyncIterator[Centre]:
    folder = quick_folder("cti-pg-")
    postgres = Postgres(folder / "data", durable=False)  # its own: it is stopped
    try:
        await asyncio.to_thread(postgres.start)
        async with centre_of(asterisk_installation, postgres, heartbeat=1.0, **RULES) as centre:
            yield centre
    finally:
        await asyncio.to_thread(postgres.stop)
        remove_folder(folder)


@pytest_asyncio.fixture(loop_scope="module")
async def centre(the_centre: Centre) -> AsyncIterator[Centre]:
    yield the_centre
    if the_centre.server is None:
        await the_centre.start_server()
    await the_centre.quiet()


def shown(screen: Screen, login: str) -> list[tuple[str, str | None]]:
    """The states of an agent that the screen was told since its mark."""
    return [
        (frame["data"]["new"], frame["data"]["reason"])
        for frame in screen.all("agent.state_changed", agent=login)
    ]


# ------------------------------------------------------------------------------------------ the table


async def restart_server(centre: Centre) -> None:
    await centre.stop_server()
    await centre.start_server()


async def restart_asterisk(centre: Centre) -> None:
    await asyncio.to_thread(centre.pbx.kill)
    await asyncio.to_thread(centre.pbx.start)


async def restart_database(centre: Centre) -> None:
    await asyncio.to_thread(centre.postgres.stop)
    await asyncio.to_thread(centre.postgres.start)


async def reload_queues(centre: Centre) -> None:
    await centre.admin("Command", Command="module reload app_queue.so")


@dataclass(frozen=True, slots=True)
class Happening:
    """Something happens to the house. `calls_live`: whether calls outlive it. `unknown`: whether states may be unknown."""

    what: Callable[[Centre], Awaitable[None]]
    calls_live: bool
    unknown: bool


HAPPENINGS = {
    "the server restarts": Happening(restart_server, calls_live=True, unknown=True),
    "Asterisk restarts": Happening(restart_asterisk, calls_live=False, unknown=True),
    "the database restarts": Happening(restart_database, calls_live=True, unknown=False),
    "queues are reloaded": Happening(reload_queues, calls_live=True, unknown=False),
}


@pytest.mark.parametrize("name", HAPPENINGS)
async def test_states_are_right_or_unknown_whatever_restarts(centre: Centre, name: str) -> None:
    happening = HAPPENINGS[name]
    screens = {login: await centre.screen(login) for login in ("anna", "ben", "cleo", "dora", "emil", "olga")}
    anna, ben, _, dora, emil, olga = screens.values()
    await centre.log_on(dora)  # dora owes a disposition, emil is on the phone, the others are not
    await centre.call("support")
    called = (await dora.wait_for("call.established", agent="dora"))["data"]["call"]
    await centre.phone_hangs_up("1104")
    await olga.agent_is("wrap_up", "dora", until=None)
    await centre.log_on(emil)
    caller = await centre.call("support")
    call = (await emil.wait_for("call.established", agent="emil"))["data"]["call"]
    await centre.log_on(anna)
    await centre.log_on(ben, ready=False)
    sara = await centre.screen("sara")
    await sara.ask("agent.not_ready", agent="ben", reason="Lunch")
    before = {login: dict(olga.picture.agents[login]) for login in ("anna", "ben", "cleo", "dora", "emil")}
    await centre.eventually(lambda: not centre.server.attendance.unwritten, what="written")  # type: ignore[union-attr]
    for screen in screens.values():
        screen.mark()
    await happening.what(centre)
    up = time.monotonic()
    for screen in screens.values():
        if (
            screen.close_code is not None
            or centre.server is None
            or screen._reader is None
            or screen._reader.done()
        ):
            await screen.connect()
    await centre.ready()
    busy = "busy" if happening.calls_live else "wrap_up"
    for screen in (olga, *(s for s in (anna, ben, dora, emil))):
        for login, state in (("anna", "ready"), ("ben", "not_ready"), ("dora", "wrap_up"), ("emil", busy)):
            if login in screen.picture.agents:
                await screen.agent_is(state, login)
    took = time.monotonic() - up
    now = olga.picture.agents
    assert now["cleo"]["state"] == "logged_off"
    same = ("state", "reason", "since", "by", "why")
    for login in ("anna", "ben", "dora"):  # as if nothing had been: since when, by whom and why
        assert {n: now[login][n] for n in same} == {n: before[login][n] for n in same}, (name, took)
    assert now["ben"]["by"] == "sara"
    assert (now["dora"]["pending"], now["dora"]["until"]) == ("disposition", None)
    if happening.calls_live:
        assert {n: now["emil"][n] for n in same} == {n: before["emil"][n] for n in same}
    for login in ("anna", "ben", "cleo", "dora"):  # and nothing else was shown meanwhile
        seen = [state for state, _ in shown(olga, login)]
        assert set(seen) <= {before[login]["state"], *(["unknown"] if happening.unknown else [])}, (
            login,
            seen,
        )
    await centre.member("anna")
    await centre.member("ben", paused=True, reason="Lunch")
    await centre.member("dora", paused=True, reason="Wrap-up")
    for screen in (anna, olga):
        await screen.as_told("since")
    if happening.calls_live:
        await centre.hang_up(caller)
    await olga.agent_is("wrap_up", "emil", pending="disposition")
    assert (await dora.ask("call.dispose", call=called, disposition="solved"))["disposition"] == "solved"
    ready = await olga.agent_is("ready", "dora")
    assert (ready["by"], ready["why"]) == ("dora", "said how the call ended; ready as dora asked")
    with pytest.raises(Refusal, match=r"solved \(Solved\), later \(Call again\)") as refused:
        await emil.ask("call.dispose", call=call, disposition="bought")
    assert refused.value.code == "unknown_disposition"
    await emil.ask("call.dispose", call=call, disposition="later")
    await olga.agent_is("ready", "emil")


# ------------------------------------------------------------------------------------------ phones and browsers


def registers(sipp: Sipp, centre: Centre, port: int, *, expires: int) -> SippRun:
    """Phone 1001 registers, or with `expires` 0 says goodbye, as phones do."""
    text = (SCENARIOS / "uac_register.xml").read_text().replace("Expires: 300", f"Expires: {expires}")
    scenario = sipp.folder / f"register-{expires}.xml"
    scenario.write_text(text)
    what = ("-s", "1001", "-au", "1001", "-ap", centre.pbx.phone_secret + "1001", "-key", "cport", str(port))
    return sipp.play(centre.pbx, scenario, *what, host="127.0.0.1")


async def phone_of_finn(centre: Centre, interface: str) -> None:
    assert centre.server is not None
    await centre.fetch("UPDATE agent_interfaces SET interface = $1 WHERE login = 'finn'", interface)
    await centre.server.people_watch.refresh()


async def test_a_phone_unplugged_is_not_ready_and_is_rung_again_when_back(centre: Centre, sipp: Sipp) -> None:
    (port,) = free_ports(1)
    phone = await Party("127.0.0.1", port, (centre.pbx.host, centre.pbx.sip_port)).open()
    await phone_of_finn(centre, "PJSIP/1001")
    finn, olga = await centre.screen("finn"), await centre.screen("olga")
    try:
        await finn.ask("agent.log_on", ready=True)  # at a phone that was never plugged in
        off = await olga.agent_is("not_ready", "finn", reason="Phone unreachable", reachable=False)
        assert (off["by"], off["pending"]) == ("pbx", "ready")
        assert off["why"] == "the phone PJSIP/1001 cannot be reached; ready as finn asked"
        assert await registers(sipp, centre, port, expires=300).finished() == 0
        on = await olga.agent_is("ready", "finn", reachable=True)
        assert on["why"] == "the phone PJSIP/1001 can be reached; ready as finn asked"
        olga.mark()
        assert await registers(sipp, centre, port, expires=0).finished() == 0
        unplugged = time.time()
        off_fact = await olga.wait_for("agent.state_changed", agent="finn", reason="Phone unreachable")
        assert olga.arrival(off_fact) - unplugged < 3
        caller = await centre.call("billing")
        await olga.wait_for("queue.caller_joined")
        assert await registers(sipp, centre, port, expires=300).finished() == 0
        await olga.wait_for("call.established", agent="finn", within=20)
        assert shown(olga, "finn")[:2] == [("not_ready", "Phone unreachable"), ("ready", None)]
        offers = [olga.frames.index((olga.arrival(f), f)) for f in olga.all("call.offered", agent="finn")]
        back = olga.all("agent.reachability_changed", agent="finn", reachable=True)[0]
        assert min(offers) > olga.frames.index(
            (olga.arrival(back), back)
        )  # nothing was offered to a dead phone
        await centre.hang_up(caller)
        await olga.agent_is("ready", "finn")
        await finn.ask("agent.log_off")
        await olga.agent_is("logged_off", "finn")
    finally:
        await phone.close()
        await phone_of_finn(centre, "PJSIP/1003")


async def test_two_browsers_of_one_agent_show_the_same_and_either_may_ask(centre: Centre) -> None:
    one, two = await centre.screen("anna"), await centre.screen("anna")
    await one.ask("agent.log_on", ready=True)
    await two.agent_is("ready", "anna")
    await two.ask("agent.not_ready", reason="Lunch")
    await one.agent_is("not_ready", "anna", reason="Lunch")
    await asyncio.gather(one.ask("agent.ready"), two.ask("agent.not_ready", reason="Break"))
    await one.as_told()
    await two.as_told()
    assert one.picture.agents["anna"] == two.picture.agents["anna"]
    reasons = {r["name"]: r for r in (await one.ask("state.get"))["data"]["reasons"]}
    assert (reasons["Lunch"]["paid"], reasons["Lunch"]["limit"]) == (False, 30.0)
    assert reasons["Phone unreachable"]["chosen_by"] == "system"
    with pytest.raises(Refusal) as refused:
        await one.ask("agent.not_ready", reason="Phone unreachable")
    assert refused.value.code == "reason_not_yours"


async def test_who_logs_on_at_the_pbx_is_shown_and_left_there(centre: Centre) -> None:
    sara = await centre.screen("sara")
    await centre.fetch("DELETE FROM agent_sessions WHERE login = 'cleo'")
    await centre.stop_server()
    await centre.start_server()
    await sara.connect()
    assert sara.picture.agents["cleo"]["state"] == "logged_off"
    await centre.admin("QueueAdd", Queue="sales", Interface="PJSIP/1103", MemberName="Cleo")
    there = await sara.agent_is("ready", "cleo")
    assert there["by"] == "pbx"
    await centre.admin("QueuePause", Queue="sales", Interface="PJSIP/1103", Paused="true", Reason="Tea")
    await sara.agent_is("not_ready", "cleo", reason="Tea")
    await centre.admin("QueuePause", Queue="sales", Interface="PJSIP/1103", Paused="false")
    await sara.agent_is("ready", "cleo")
    caller = await centre.call()
    await sara.agent_is("busy", "cleo")
    await restart_server(centre)
    await sara.connect()
    await sara.agent_is("busy", "cleo")  # nothing was written down of her, and she is still where she was
    await centre.hang_up(caller)
    await sara.agent_is("ready", "cleo")
    await centre.member("cleo")
    assert not await centre.fetch("SELECT 1 FROM agent_sessions WHERE login = 'cleo'")
    await centre.admin("QueueRemove", Queue="sales", Interface="PJSIP/1103")
    gone = await sara.agent_is("logged_off", "cleo")
    assert gone["by"] == "pbx"


# ------------------------------------------------------------------------------------------ two PBXs


async def test_one_agent_at_two_pbxs_is_one_agent(asterisk_factory: AsteriskFactory) -> None:
    """In a call at one she is paused at the other; one killed: what the other tells is shown, else unknown."""
    main, west = asterisk_factory("main"), asterisk_factory("west")
    phone = "Local/1101@sim-agent/n"
    anna = person("anna", queues=("main:sales", "west:sales"), main=phone, west=phone)
    async with LiveFloor([anna], pbxs=("main", "west"), wrap_up=WrapUp(seconds=1.0)) as floor:
        for name, pbx in (("main", main), ("west", west)):
            floor.add_link(name, pbx.ami_port, pbx.username, pbx.secret)
        await floor.synced("main")
        await floor.synced("west")
        floor.log_on(["anna"])

        def at_both(*wanted: object) -> bool:
            return all(floor.member(f"{name}:sales", "anna") == wanted for name in ("main", "west"))

        def begins(word: str) -> Callable[[], bool]:
            return lambda: floor.state("anna").startswith(word)

        await floor.until(lambda: floor.state("anna") == "ready" and at_both(False, None))
        async with callers(west) as outside:
            await outside.call(talk=3)
            await floor.until(begins("busy"))
            assert floor.agents.view("anna", now()).call.startswith("west:")  # type: ignore[union-attr]
            await floor.until(lambda: at_both(True, "Wrap-up"))
            await floor.until(lambda: floor.state("anna") == "ready" and at_both(False, None))
        main.cli("queue pause member Local/1101@sim-agent/n queue sales reason Tea")  # at one of them
        await floor.until(lambda: floor.state("anna") == "not_ready (Tea)" and at_both(True, "Tea"))
        floor.publish(floor.agents.make_ready("anna", by="anna", at=now()))
        await floor.until(lambda: at_both(False, None))
        west.kill()
        await floor.until(begins("unknown"))
        async with callers(main) as outside:
            await outside.call(talk=60)
            await floor.until(begins("busy"))  # what main tells is true
            west.start()
            await floor.synced("west")
            assert floor.state("anna") == "busy"
            main.kill()
            await floor.until(begins("unknown"))
        main.start()
        await floor.synced("main")
        await floor.until(begins("wrap_up"))  # the call was lost with main; it is wrapped up all the same
        await floor.until(lambda: floor.state("anna") == "ready" and at_both(False, None))
        last = floor.changes("anna")[-1]
        assert (last.by, last.why) == ("system", "wrap-up time is over; ready as anna asked")
