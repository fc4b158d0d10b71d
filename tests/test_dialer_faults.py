"""What goes wrong while a campaign runs, on a real Asterisk: nobody is dialed twice, nobody is lost, outcomes stay true."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cti.embedded.place import free_ports
from dialer.calling.attempt_store import messages_on_machines
from dialer.calling.call_desk import FIRST_SECOND
from tests.centre import Centre, ServerProcess
from tests.dialer_house import (
    CALLER_IDS,
    TRUNK,
    as_asterisk_says,
    at_work,
    attempts,
    campaign,
    cdr_of,
    dialing_house,
    ended,
    keep_cdr,
    number,
    quieted,
    seconds_of,
    shows,
    state,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
HOUSE = dialing_house

AWAY = float(os.environ.get("CTI_TEST_AWAY", "0"))
"""Seconds for which the database is away, at least; by itself as long as a call. CTI_TEST_AWAY=30 for the whole of it."""


async def tidied(centre: Centre) -> None:
    if centre.process is not None:
        await centre.process.kill()
        centre.process = None
    if centre.server is None:
        await centre.start_server()
    await quieted(centre)


TIDIED = tidied


async def each_once(centre: Centre, campaign: int, numbers: Sequence[str]) -> list[dict[str, Any]]:
    """Asserts that each number was dialed once, by the database and by Asterisk, and that no contact is lost."""
    rows = await attempts(centre, campaign)
    assert Counter(row["e164"] for row in rows) == Counter(numbers)
    channels = cdr_of(centre)
    known = [row["id"] for row in rows if row["id"] in channels]
    assert len(known) >= len(rows) - sum(row["outcome"] in ("unknown", "failed") for row in rows)
    contacts = await centre.fetch(
        "SELECT state, attempts FROM list_contacts WHERE list_id = $1", rows[0]["list_id"]
    )
    assert {row["attempts"] for row in contacts} == {1}
    assert "in_hand" not in {row["state"] for row in contacts}
    return rows


async def until(centre: Centre, id: int, true: Any, what: str, within: float = 40.0) -> None:
    """Waits until the campaign's attempts are so."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not true(rows := await attempts(centre, id)):
        shown = [(row["e164"], row["state"], row["outcome"]) for row in rows]
        assert loop.time() < deadline, f"not {what}: {shown}"
        await asyncio.sleep(0.05)


async def test_asterisk_is_restarted(centre: Centre) -> None:
    """One talks and one rings when it dies. It goes on with those who are left as soon as an agent is ready again."""
    screens = await at_work(centre, "anna", "ben")
    numbers = [number("human", 0, 30), number("silent", 0, 1), number("human", 0, 2), number("busy", 0, 2)]
    id = await campaign(centre, numbers, min_ring_s=8, ring_timeout_s=9)
    await shows(centre, id, lambda view: view.calls == {"connected": 1, "ringing": 1}, "one talks, one rings")
    centre.pbx.kill()
    await shows(centre, id, lambda view: view.held == "pbx_down", "held")
    await asyncio.to_thread(centre.pbx.start)
    keep_cdr(centre)
    await ended(centre, id, 2)
    await asyncio.gather(*(screen.ask("agent.ready") for screen in screens))
    rows = await ended(centre, id, 4)
    outcomes = ("connected", "unknown", "connected", "busy")
    assert {row["e164"]: row["outcome"] for row in rows} == dict(zip(numbers, outcomes, strict=True))
    states = await centre.fetch(
        "SELECT e164, state FROM list_contacts WHERE list_id = $1", rows[0]["list_id"]
    )
    left = ("done", "open", "done", "open")
    assert {row["e164"]: row["state"] for row in states} == dict(zip(numbers, left, strict=True))
    # Of the first two it has no record: it died before their ends.
    assert cdr_of(centre).keys().isdisjoint(row["id"] for row in rows[:2])
    await as_asterisk_says(centre, rows[2:])


async def test_the_database_is_away(centre: Centre) -> None:
    """Calls under way go on and come to an agent; nothing is placed; what happened is written when it is back."""
    await at_work(centre, "anna")
    numbers = [number("human", 1, 1), number("busy", 0)]
    id = await campaign(centre, numbers, min_ring_s=8, ring_timeout_s=9)
    await shows(centre, id, lambda view: view.calls.get("ringing") == 1, "ringing")
    name = centre.dsn.rpartition("/")[2]
    away = centre.dsn.rpartition("/")[0] + "/postgres"
    gone = asyncio.get_running_loop().time()
    await execute(away, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await execute(away, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    try:
        await shows(centre, id, lambda view: view.held in ("database", "not_here"), "held")
        await shows(centre, id, lambda view: view.connected == 1, "talked")
        await shows(centre, id, lambda view: not view.calls, "over")
        await asyncio.sleep(max(0.0, gone + AWAY - asyncio.get_running_loop().time()))
        view = await shows(centre, id, lambda view: view.held in ("database", "not_here"), "held still")
        assert view.attempts == 1
    finally:
        await execute(away, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    rows = await ended(centre, id, 2)
    assert [row["outcome"] for row in rows] == ["connected", "busy"]
    assert rows[0]["connected"] < rows[0]["ended"] < rows[1]["committed"]
    await each_once(centre, id, numbers)
    await as_asterisk_says(centre, rows)


async def execute(dsn: str, query: str, *args: Any) -> None:
    db = await asyncpg.connect(dsn)
    try:
        await db.execute(query, *args)
    finally:
        await db.close()


async def test_a_trunk_that_refuses_everything_rests_and_a_carrier_that_answers_for_nobody(
    centre: Centre,
) -> None:
    """One that is congested and one that rejects rest both, and work again as soon as an answer lasts."""
    (anna,) = await at_work(centre, "anna")
    refusing = {"congested": "congestion", "rejects": "rejected"}
    id = await campaign(centre, [number(kind, 0, n) for n in range(6) for kind in refusing])
    view = await shows(centre, id, lambda view: view.held == "trunks_rest", "rests")
    assert sum(view.outcomes.values()) <= 8
    assert "rests" in view.trunks["carrier"]
    await state(centre, id, "stopped")
    rows = await ended(centre, id, 5)
    assert {row["outcome"] for row in rows} == set(refusing.values())
    await as_asterisk_says(centre, rows)
    trunks = centre.server.dialing.dialer.trunks  # type: ignore[union-attr]
    trunks._trunks["carrier"].until = 0.0  # it has rested
    (ben,) = await at_work(centre, "ben")
    tried = await campaign(centre, [number("human", 0, 60), number("human", 0, 61)])
    view = await shows(centre, tried, lambda view: view.calls == {"connected": 2}, "two talks")
    await state(centre, tried, "stopped")
    await centre.admin("Hangup", Channel="/^PJSIP.trunk-/", Cause="16")
    one, other = await ended(centre, tried, 2)
    assert (other["committed"] - one["answered"]).total_seconds() > FIRST_SECOND
    await as_asterisk_says(centre, [one, other])
    await ben.ask("agent.log_off")
    await anna.agent_is("ready", lines={"main": "open"})
    trunks.got_through("carrier")
    hollow = await campaign(centre, [number("human", after, 0) for after in (0, 1, 2)])
    rows = await ended(centre, hollow, 3)
    assert {row["outcome"] for row in rows} <= {"answered", "connected", "agent_error"}
    await as_asterisk_says(centre, rows)
    assert trunks._trunks["carrier"].fails == 3


class JumpingClock:
    """The time of day of a server's process, moved while it runs (tests/jumping_clock.c)."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler to make the clock of")
        self._file, library = folder / "clock", folder / "jumping_clock.so"
        source = Path(__file__).with_name("jumping_clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self.jump(0)
        self.environment = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Sets it to so many seconds from the true time."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("<q", seconds))


async def goes(centre: Centre, campaign: int, true: Callable[[Any], bool], what: str) -> Any:
    """Waits until a server's live view fits, asked over REST by somebody who logs in anew: tokens end when clocks jump."""
    deadline, now = asyncio.get_running_loop().time() + 20, None
    while now is None or not true(now):
        assert asyncio.get_running_loop().time() < deadline, f"not {what}: {now}"
        centre.forget_tokens()
        status, now = await centre.rest("GET", f"/api/v1/campaigns/{campaign}/now", "olga")
        assert status == 200, now
        await asyncio.sleep(0.1)
    return now


async def test_the_clock_jumps(centre: Centre, tmp_path: Path) -> None:
    """An hour forward while it rings, then back to an hour before: nothing more is placed until it is right again, the call
    under way goes on to its agent, and its times are the true ones."""
    clock = JumpingClock(tmp_path)
    await at_work(centre, "anna")
    await centre.stop_server()
    await centre.start_process(**process_settings(centre), **clock.environment)
    numbers = [number("human", 2, 1), number("busy", 0)]
    began = datetime.now(UTC)
    id = await campaign(centre, numbers, min_ring_s=8, ring_timeout_s=9)
    await until(centre, id, lambda rows: any(row["state"] == "ringing" for row in rows), "ringing")
    clock.jump(3600)
    await goes(centre, id, lambda now: "clock" in now["why"], "held for the clock")
    await until(centre, id, lambda rows: rows[0]["state"] == "connected", "a talk")
    clock.jump(-3600)
    await until(centre, id, lambda rows: rows[0]["state"] == "ended", "over")
    await goes(centre, id, lambda now: "clock" in now["why"], "held for the clock")
    assert len(await attempts(centre, id)) == 1
    clock.jump(0)
    rows = await ended(centre, id, len(numbers))
    centre.forget_tokens()
    assert [row["outcome"] for row in rows] == ["connected", "busy"]
    for row in rows:
        times = [
            row[name]
            for name in ("committed", "dialed", "ringing", "answered", "connected", "ended")
            if row[name]
        ]
        assert began <= times[0] <= times[-1] <= datetime.now(UTC)
        assert times == sorted(times)
    await each_once(centre, id, numbers)
    await as_asterisk_says(centre, rows)


async def test_events_come_late(centre: Centre) -> None:
    """The PBX stands still for a moment: nothing is placed until its events come in time, then it goes on."""
    await at_work(centre, "anna")
    id = await campaign(
        centre, [number("busy", 0, n) for n in range(1, 4)] + [number("busy", 1, n) for n in range(9)]
    )
    await shows(centre, id, lambda view: view.outcomes.get("busy", 0) >= 1, "dialing")
    centre.pbx.freeze()
    try:
        view = await shows(centre, id, lambda view: view.held in ("late", "pbx_down"), "held")
        assert "nothing is placed" in view.why
        placed = len(await attempts(centre, id))
        await asyncio.sleep(0.5)  # five decisions
        assert len(await attempts(centre, id)) == placed
    finally:
        centre.pbx.thaw()
    await shows(centre, id, lambda view: view.held == "" and view.attempts > placed, "going on")
    await state(centre, id, "paused")
    rows = await ended(centre, id, placed)
    assert len({row["contact_id"] for row in rows}) == len(rows)
    assert {row["outcome"] for row in rows} <= {"busy", "unknown"}
    await as_asterisk_says(centre, rows)


async def test_all_agents_leave_at_once(centre: Centre) -> None:
    """Whoever answers then hears the message within two seconds and may opt out by a key; nobody else is called."""
    screens = await at_work(centre, "anna", "ben", "cleo")
    out = number("opts_out", 2, 3)
    numbers = [out, number("silent"), *(number("human", 2, n) for n in range(1, 8))]
    id = await campaign(centre, numbers, mode="power", ratio=1.5, min_ring_s=4, ring_timeout_s=9)
    await shows(centre, id, lambda view: view.calls.get("ringing", 0) >= 3, "ringing")
    await asyncio.gather(*(screen.ask("agent.log_off") for screen in screens))
    placed = len(await attempts(centre, id))
    rows = await ended(centre, id, placed)
    assert len(rows) == placed < len(numbers)
    lost = [row for row in rows if row["outcome"] == "abandoned"]
    assert len(lost) >= 2
    (silent,) = [
        row for row in rows if row["e164"] == number("silent")
    ]  # given up, and no sooner than it may be
    assert silent["outcome"] == "cancelled"
    assert (silent["ended"] - silent["ringing"]).total_seconds() >= 4
    for row in lost:
        assert 1.5 <= (row["message_played"] - row["answered"]).total_seconds() <= 3.0
    view = await shows(centre, id, lambda view: view.held == "no_agents", "held")
    assert view.lost == len(lost)
    await as_asterisk_says(centre, rows)
    (pressed,) = [row for row in rows if row["e164"] == out]
    assert pressed["opted_out"] is True
    (contact,) = await centre.fetch(
        "SELECT state, why FROM list_contacts WHERE id = $1", pressed["contact_id"]
    )
    assert (contact["state"], contact["why"]) == ("blocked", "asked not to be called again")
    listed = await centre.fetch("SELECT number, scope, call FROM do_not_call")
    assert listed == [{"number": int(out[1:]), "scope": "everywhere", "call": pressed["id"]}]


def process_settings(centre: Centre) -> dict[str, str]:
    """What a server of its own needs to dial as the house does."""
    return {
        "CTI_DIALER__TRUNKS": json.dumps([TRUNK]),
        "CTI_DIALER__CALLER_IDS": json.dumps(CALLER_IDS),
        "CTI_DIALER__TICK_S": "0.1",
        "CTI_DIALER__LEASE_S": "1",
        "CTI_DIALER__PROFILES": centre.settings["dialer"]["profiles"],
    }


async def as_a_service(server: ServerProcess, within: float = 60.0) -> None:
    """Starts it again whenever it ends before it serves, as a service manager does."""
    async with asyncio.timeout(within):
        while True:
            try:
                return await server.start(within)
            except AssertionError:
                await asyncio.sleep(0.2)


async def test_a_server_stands_still_another_goes_on_in_its_place_and_it_comes_back(centre: Centre) -> None:
    """Two of `cti serve` on one database, the second waiting for its turn. The first is stopped with a talk and calls that
    ring, and goes on when the other has taken up what there was and dials: it dials nobody any more, and ends."""
    await at_work(centre, "anna", "ben")
    await centre.stop_server()
    told = process_settings(centre) | {"CTI_DIALER__LEASE_S": "3"}
    one = await centre.start_process(**told)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    other = centre.another_process("second", url, **told | {"CTI_PORT": str(port)})
    waits = asyncio.create_task(as_a_service(other))
    try:
        later = [number("busy", 1), number("human", 2, 2), number("rejects", 1), number("busy", 2)]
        numbers = [number("human", 0, n) for n in (5, 6)] + later + [number("human", 1, 1), number("busy", 3)]
        id = await campaign(centre, numbers, mode="power", ratio=2, min_ring_s=8, ring_timeout_s=9)
        await until(centre, id, lambda rows: any(row["state"] == "connected" for row in rows), "a talk")
        one.freeze()
        before = {row["id"] for row in await attempts(centre, id)}
        assert len(before) < len(numbers)
        await waits
        assert "waiting for the journal's lease" in other.log
        await until(centre, id, lambda rows: len(rows) > len(before), "a call of the other")
        one.thaw()
        assert await one.ends() != 0
        assert "another server has taken" in one.log
        rows = await ended(centre, id, len(numbers), within=60)
        owners = {row["id"]: int(row["owner"].split(":")[1]) for row in rows}
        assert {owner for id, owner in owners.items() if id in before} == {one.pid}
        assert {owner for id, owner in owners.items() if id not in before} == {other.pid}
        await each_once(centre, id, numbers)
        await as_asterisk_says(centre, rows)
        # Of a call that ended meanwhile nobody hears why; it counts as dialed.
        outcomes = Counter(row["outcome"] for row in rows)
        assert outcomes.keys() <= {"connected", "busy", "rejected", "no_answer", "unknown"}
        assert outcomes["connected"] >= 1, outcomes
    finally:
        waits.cancel()
        await one.kill()
        await other.kill()


async def test_the_server_is_killed(centre: Centre) -> None:
    """Calls in a talk and ringing when the power goes, and a machine that greets: they go on, it is left its message, and
    the server that starts then takes them up. And one that rings when a server is stopped in order: it rings on."""
    await at_work(centre, "anna", "ben")
    rings_on = await campaign(centre, [number("human", 4, 9)], mode="agentless", queue="", ring_timeout_s=9)
    await until(centre, rings_on, lambda rows: any(row["state"] == "ringing" for row in rows), "ringing")
    numbers = [number("human", 0, 6), number("human", 3, 1), number("busy", 3), number("rejects", 1)]
    await centre.stop_server()
    id = await campaign(centre, numbers, mode="power", ratio=2, min_ring_s=8, ring_timeout_s=9)
    on_machines = {
        "amd": True,
        "machine_message": "vm-intro",
        "machine_message_to": "all",
        "machine_silence_s": 1,
    }
    alone = {"mode": "agentless", "queue": "", "profile": "greeting"}
    drop = await campaign(centre, [number("machine", 0, 20)], **alone, **on_machines)
    told = process_settings(centre)
    server = await centre.start_process(**told)
    await until(centre, id, lambda rows: any(row["state"] == "connected" for row in rows), "a talk")
    await until(centre, drop, lambda rows: any(row["answered"] for row in rows), "a machine")
    await server.kill()
    talking = {row["id"] for row in await attempts(centre, id) if row["state"] == "connected"}
    await centre.start_process(**told)
    rows = await ended(centre, id, len(numbers), within=60)
    await each_once(centre, id, numbers)
    (left,) = await ended(centre, drop, 1, within=60)
    (rang,) = await ended(centre, rings_on, 1, within=60)
    await as_asterisk_says(centre, [*rows, left, rang])
    assert cdr_of(centre)[rang["id"]] == ["ANSWERED"], rang
    assert {row["outcome"] for row in rows if row["id"] in talking} <= {"connected"}
    unseen = {
        row["id"] for row in rows if row["why"] in ("ended while no server watched", "its end was not seen")
    }
    assert {row["id"] for row in rows if row["end_unseen"]} == unseen
    # Greeting, a second of silence, and a message of 5.6 s; how much of it the new server saw depends on its start.
    assert seconds_of(centre, left["id"]) >= 9
    if left["outcome"] == "machine":
        assert left["detail"] in ("message_left", "message_unseen")
    else:
        assert left["outcome"] == "unknown"
    db = await asyncpg.connect(centre.dsn)
    try:
        had = await messages_on_machines(db, drop, [left["contact_id"]])
    finally:
        await db.close()
    assert had == {left["contact_id"]: 1}  # and it is left no other
