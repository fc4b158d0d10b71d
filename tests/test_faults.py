"""What goes wrong: the database away, a PBX killed or frozen, the server killed, clients and people that misbehave.

Each time the same is asked: a clear error to whoever asked, a clear state on the screen, nothing lost, and all well
again without a hand. Most of it happens to one and the same call centre, one fault after the other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import OctKey

from cti.embedded.asterisk import Installation
from cti.embedded.place import free_ports, give, remove_folder, scratch_folder
from cti.embedded.postgres import Postgres, PostgresFailed
from cti.facts import CallerChanged
from cti.server import Server
from tests.centre import KEY, SEATS, Centre, Refusal, Screen, centre_of, database_of_centre
from tests.folders import quick_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

AWAY = float(os.environ.get("CTI_TEST_AWAY", "6"))
"""Seconds for which the database is away, the PBX 1. CTI_TEST_AWAY=60 makes both a minute, too long for every day."""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that may be stopped."""
    folder = quick_folder("cti-pg-")
    server = Postgres(folder / "data", durable=False)
    try:
        server.start()
        yield server
    finally:
        server.thaw()
        server.stop()
        remove_folder(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(asterisk_installation: Installation, own_postgres: Postgres) -> AsyncIterator[Centre]:
    async with centre_of(asterisk_installation, own_postgres, heartbeat=1.0) as centre:
        yield centre


@pytest_asyncio.fixture(loop_scope="module")
async def centre(the_centre: Centre) -> AsyncIterator[Centre]:
    yield the_centre
    if the_centre.process is not None:
        await the_centre.process.kill()
        the_centre.process = None
    if the_centre.server is None:
        await the_centre.start_server()
    await the_centre.quiet()


async def well(centre: Centre, *screens: Screen) -> None:
    """All is well: the server says so, a call pops with its customer, and what is shown is what is."""
    await centre.ready()
    anna = screens[0]
    anna.mark()
    (customer,) = await centre.fetch(
        """SELECT p.e164, a.name FROM phones p JOIN accounts a ON a.id = p.account_id
           WHERE p.e164 LIKE '+447%' AND (SELECT count(*) FROM phones q WHERE q.e164 = p.e164) = 1
           ORDER BY p.e164 LIMIT 1"""
    )
    caller = await centre.call(number=customer["e164"])
    call = (await anna.wait_for("call.established", agent=anna.login))["data"]["call"]
    await anna.until(
        lambda: any(
            p["call"] == call and [c["account"]["name"] for c in p["candidates"]] == [customer["name"]]
            for p in anna.picture.pops.values()
        ),
        what="the customer's name",
    )
    await centre.hang_up(caller)
    await anna.wait_for("call.cleared", call=call, outcome="answered")
    assert (await centre.interaction_of(call))["outcome"] == "answered"
    await anna.agent_is("ready")
    for screen in screens:
        await screen.as_told("by", "why")


async def whole_journal(centre: Centre) -> list[Any]:
    """All facts written so far; asserts that none is known to be missing."""
    assert centre.server is not None
    await centre.server.journal.flushed(centre.server.bus.seq)
    facts, seq = [], 0
    while True:
        page = await centre.server.journal.since(seq)
        if page.seq == seq:
            break
        facts += page.facts
        seq = page.seq
    assert not [fact for fact in facts if fact.type == "journal.gap"]
    return facts


# ------------------------------------------------------------------------------------------ the database


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_without_a_database_calls_and_pops_go_on_and_all_is_made_up_for(
    centre: Centre, own_postgres: Postgres, how: str
) -> None:
    anna, ben, olga = [await centre.screen(login) for login in ("anna", "ben", "olga")]
    await centre.log_on(anna)
    (customer,) = await centre.fetch(
        """SELECT p.e164, a.name, a.id FROM phones p JOIN accounts a ON a.id = p.account_id
           WHERE p.e164 LIKE '+447%' AND (SELECT count(*) FROM phones q WHERE q.e164 = p.e164) = 1
           ORDER BY p.e164 LIMIT 1"""
    )
    first = await centre.call()
    known = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
    _, made = await centre.rest("POST", "/api/v1/api-keys", "olga", json={"name": "CRM"})
    program = Screen(centre.url, "crm", made["key"])
    centre.screens.append(program)
    await asyncio.to_thread(own_postgres.stop if how == "stopped" else own_postgres.freeze)
    away_since = time.monotonic()
    try:
        # an agent works on: logs on, gets a call, sees the number, is told that there is no more for now
        assert (await ben.ask("agent.log_on", ready=True))["state"] == "ready"
        await centre.member("ben")
        second = await centre.call(number=customer["e164"])
        pop = (await ben.wait_for("pop.shown"))["data"]["view"]
        assert how == "stopped" or pop["lookup"] == "pending", "the pop does not wait for the database"
        assert (pop["e164"], pop["candidates"]) == (customer["e164"], [])
        await ben.wait_for("call.established", agent="ben")
        await ben.until(
            lambda: [p["lookup"] for p in ben.picture.pops.values()] == ["unavailable"], what="unavailable"
        )
        # every screen says so
        await anna.wait_for("database.status_changed", within=60)
        assert not anna.picture.database["up"]
        assert "notes" in anna.picture.database["why"]
        # what is typed into a call is kept, and said not to be written yet
        answer = await anna.ask("call.set_data", call=known, data={"order": "4711"})
        assert (answer["saved"], answer["view"]["data"]["order"]) == (False, "4711")
        # who needs the database is told so
        for command, args in (
            ("call.note", {"text": "lost?"}),
            ("call.dispose", {"disposition": "Sold"}),
            ("call.identify", {"account": customer["id"]}),
        ):
            with pytest.raises(Refusal) as refused:
                await anna.ask(command, call=known, **args)
            assert refused.value.code == "database_unavailable", command
        status, problem = await centre.rest("GET", f"/api/v1/accounts/{customer['id']}", "anna")
        assert (status, problem["code"]) == (503, "unavailable")
        await centre.eventually(lambda: not centre.server.database.healthy, what="noticed", within=60)
        status, text = await centre.health()
        assert status == 503
        assert "database" in text
        # a program whose key cannot be looked up now is not told that it is no good
        with pytest.raises(AssertionError, match="closed: 1012"):
            await program.connect()
        # a call ends, another is abandoned, an agent takes a break
        await centre.hang_up(first)
        await anna.wait_for("call.cleared", call=known)
        assert (await anna.ask("agent.not_ready", reason="Break"))["state"] == "not_ready"
        await centre.member("anna", paused=True, reason="Break")
        third = await centre.call(number="+447700900999")
        given_up = (await olga.wait_for("call.queued", where=lambda d: d["view"]["ani"] == "+447700900999"))[
            "data"
        ]
        await centre.hang_up(third)
        await olga.wait_for("call.cleared", call=given_up["call"], outcome="abandoned")
        await asyncio.sleep(max(0.0, AWAY - (time.monotonic() - away_since)))
    finally:
        await asyncio.to_thread(own_postgres.start if how == "stopped" else own_postgres.thaw)

    # all is made up for
    complete = await ben.until(
        lambda: next((p for p in ben.picture.pops.values() if p["candidates"]), None), 15, "the customer"
    )
    assert (complete["id"], complete["candidates"][0]["account"]["name"]) == (pop["id"], customer["name"])
    await centre.ready(within=20)
    await anna.wait_for("database.status_changed", up=True)
    assert anna.picture.database["up"]
    assert (await program.connect())["agent"]["name"] == "CRM"
    for call in (known, given_up["call"]):
        record = await centre.interaction_of(call, within=15)
        assert record["outcome"] == ("answered" if call == known else "abandoned")
    assert (await anna.ask("call.note", call=known, text="found again"))["text"] == "found again"
    await centre.hang_up(second)
    assert (await centre.interaction_of(pop["call"]))["account_id"] == customer["id"]
    await centre.eventually(lambda: not centre.server.attendance.unwritten, what="sessions written")
    sessions = await centre.fetch(
        "SELECT login, state, reason FROM agent_sessions WHERE login IN ('anna', 'ben')"
    )
    assert {s["login"]: (s["state"], s["reason"]) for s in sessions} == {
        "anna": ("not_ready", "Break"),
        "ben": ("ready", None),
    }
    told = {fact["seq"] for fact in olga.facts()}
    assert told <= {fact.seq for fact in await whole_journal(centre)}
    await anna.ask("agent.ready")
    await ben.ask("agent.log_off")
    await well(centre, anna, ben, olga)


async def test_a_full_disk_under_the_database_is_an_outage_that_passes(
    centre: Centre, asterisk_installation: Installation
) -> None:
    disk = Path(scratch_folder("cti-disk-"))
    size = 160 << 20
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        remove_folder(disk)
        pytest.skip(f"no small disk can be made here: {mounted.stderr.decode().strip()}")
    disk.chmod(0o755)
    give(disk)
    postgres = Postgres(disk / "data", durable=False)
    server: Server | None = None
    ballast = disk / "ballast"
    try:
        await asyncio.to_thread(postgres.start)
        dsn = await database_of_centre(postgres)
        await centre.stop_server()
        server = centre.server = Server(centre.make_settings(database_url=dsn))
        await server.start()
        await centre.eventually(lambda: server.switches["main"].synced, what="synced")
        anna = await centre.screen("anna")
        await centre.log_on(anna)
        fill(ballast)
        began = time.monotonic()
        broken: list[str] = []
        while len(broken) < 3 and time.monotonic() - began < 40:
            anna.mark()
            caller = await centre.call()
            call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
            for _ in range(40):
                code = await refusal_of(anna.ask("call.note", call=call, text="x" * 4000))
                assert code in (None, "database_unavailable", "rate_limited"), code
                broken += [code] if code == "database_unavailable" else []
                await asyncio.sleep(0.05 if code else 0)
                if len(broken) >= 3:
                    break
            await centre.hang_up(caller)
            await anna.wait_for("call.cleared", call=call)
            await anna.agent_is("ready")
        assert broken, "the disk did not fill up"
        ballast.unlink()
        with contextlib.suppress(PostgresFailed):
            if not postgres.running:  # a service manager would
                await asyncio.to_thread(postgres.start)
        await centre.ready(within=30)
        rows = await _of(dsn, "SELECT count(*) AS open FROM interactions WHERE ended IS NULL")
        deadline = time.monotonic() + 15
        while rows[0]["open"] and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            rows = await _of(dsn, "SELECT count(*) AS open FROM interactions WHERE ended IS NULL")
        assert rows[0]["open"] == 0
        told = {fact["seq"] for fact in anna.facts()}
        assert told <= {fact.seq for fact in await whole_journal(centre)}
    finally:
        await centre.stop_server()
        await centre.admin("QueueRemove", Queue="sales", Interface="PJSIP/1101")
        await asyncio.to_thread(postgres.stop)
        subprocess.run(["umount", "-l", str(disk)], check=False)
        remove_folder(disk)
        centre._tokens.clear()


async def refusal_of(asked: Awaitable[Any]) -> str | None:
    """The code with which a command is refused, None if it is carried out."""
    try:
        await asked
    except Refusal as refused:
        return refused.code
    return None


def fill(file: Path) -> None:
    """Write a file until the disk is full."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, b"\0" * 65536)
    os.close(descriptor)


async def _of(dsn: str, query: str) -> list[dict[str, Any]]:
    import asyncpg

    db = await asyncpg.connect(dsn)
    try:
        return [dict(row) for row in await db.fetch(query)]
    finally:
        await db.close()


# ------------------------------------------------------------------------------------------ the PBX


async def test_a_pbx_killed_in_mid_call_comes_back_and_nobody_has_to_do_a_thing(centre: Centre) -> None:
    anna, ben, sara = [await centre.screen(login) for login in ("anna", "ben", "sara")]
    await centre.log_on(anna)
    await centre.call()
    call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
    await centre.log_on(ben, ready=False)
    await ben.ask("agent.not_ready", reason="Lunch")
    for screen in (anna, ben, sara):
        screen.mark()
    await asyncio.to_thread(centre.pbx.kill)
    for screen in (anna, ben, sara):
        down = await screen.wait_for("pbx.status_changed", phase="down")
        assert down["data"]["why"]
        for login in ("anna", "ben"):
            await screen.agent_is("unknown", login)
    assert (await ben.ask("agent.not_ready", reason="Meeting"))["state"] == "unknown"  # and is so afterwards
    status, text = await centre.health()
    assert (status, "pbx main" in text) == (503, True)
    await asyncio.sleep(AWAY if AWAY > 6 else 1)
    await asyncio.to_thread(centre.pbx.start)
    for screen in (anna, ben, sara):
        await screen.wait_for("pbx.status_changed", phase="up", within=20)
    cleared = await sara.wait_for("call.cleared", call=call)
    assert cleared["data"]["outcome"] == "lost"
    await anna.agent_is("ready")
    await ben.agent_is("not_ready", reason="Meeting")
    await centre.member("anna")  # dynamic members are lost by a restart: they have been put back
    await centre.member("ben", paused=True, reason="Meeting")
    await anna.until(lambda: not anna.picture.calls)
    record = await centre.interaction_of(call)
    assert (record["outcome"], record["agents"]) == ("lost", ["anna"])
    await well(centre, anna, ben, sara)
    assert (
        len(sara.all("call.cleared", call=call)) == 1
        or len([f for f in sara.facts() if f["type"] == "call.cleared" and f["data"]["call"] == call]) == 1
    )


async def test_a_frozen_pbx_is_noticed_and_shown(centre: Centre) -> None:
    anna, sara = await centre.screen("anna"), await centre.screen("sara")
    await centre.log_on(anna)
    await asyncio.to_thread(centre.pbx.freeze)
    try:
        down = await anna.wait_for("pbx.status_changed", phase="down", within=25)
        assert "main" in down["data"]["why"] or down["data"]["why"]
        await anna.agent_is("unknown")
    finally:
        await asyncio.to_thread(centre.pbx.thaw)
    await anna.wait_for("pbx.status_changed", phase="up", within=30)
    await anna.agent_is("ready")
    await well(centre, anna, sara)


async def test_a_wrong_password_for_one_pbx_is_said_and_the_other_one_works(
    centre: Centre, own_postgres: Postgres
) -> None:
    dsn = await database_of_centre(own_postgres)
    token = await centre.token("olga")
    await centre.stop_server()
    main = centre._pbx_settings()
    (closed,) = free_ports(1)
    wrong = {**main, "secret": "not-the-one"}
    away = {**main, "port": closed}
    port = free_ports(1)[0]
    server = Server(
        centre.make_settings(database_url=dsn, port=port, pbx={"main": main, "old": wrong, "far": away})
    )
    await server.start()
    try:
        await centre.eventually(lambda: server.switches["main"].synced, what="main")
        olga = Screen(server.url, "olga", token)
        centre.screens.append(olga)
        await olga.connect()
        await olga.until(lambda: olga.picture.pbxs["old"]["phase"] == "stopped", what="stopped")
        old, far = olga.picture.pbxs["old"], olga.picture.pbxs["far"]
        assert olga.picture.pbxs["main"]["phase"] == "up"
        assert "password" in old["why"] or "secret" in old["why"], old
        assert "restart" in old["why"], old  # a person has to change a setting: said so
        assert far["phase"] == "down"
        assert str(closed) in far["why"], far
        answer = await olga.ask("agent.log_on", agent="anna", ready=True)
        assert answer["state"] == "ready"  # her phone is at the one that works
        await centre.member("anna")
        olga.mark()
        caller = await centre.call()
        await olga.wait_for("pop.shown", agent="anna")
        await olga.wait_for("call.established", agent="anna")
        await centre.hang_up(caller)
        await olga.wait_for("call.cleared")
        await olga.ask("agent.log_off", agent="anna")
        await centre.member("anna", there=False)
        async with aiohttp.ClientSession() as http, http.get(server.url + "/readyz") as ready:
            assert ready.status == 503
            assert "pbx old" in await ready.text()
    finally:
        await server.stop()


# ------------------------------------------------------------------------------------------ the server


async def test_a_server_killed_in_a_busy_period_is_taken_up_where_it_was(
    centre: Centre, request: pytest.FixtureRequest
) -> None:
    await centre.stop_server()
    process = await centre.start_process()
    sellers = [seat for seat in SEATS if seat.team == "sales"] + [
        seat for seat in SEATS if seat.login in ("dora", "emil")
    ]
    screens = [await centre.screen(seat.login) for seat in sellers]
    anna, sara, olga = screens[0], await centre.screen("sara"), await centre.screen("olga")
    await centre.log_on(*screens)
    enough = asyncio.Event()

    async def traffic() -> None:
        for place in range(1000):
            queue = "sales" if place % 2 else "support"
            await centre.call(queue, number=f"+44207940{place:04d}", talk=2.0 + place % 5)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), 0.2)
                return

    calling = asyncio.create_task(traffic())
    request.addfinalizer(calling.cancel)
    await olga.until(lambda: len(olga.picture.calls) >= 10, 15, "ten calls")
    killed = time.time()
    await process.kill()
    for screen in (*screens, sara, olga):
        await screen.gone()
    talked = {row["BridgeId"] for row in await centre.channels() if row.get("BridgeId")}
    waiting_until = time.monotonic() + 10
    while not {row["BridgeId"] for row in await centre.channels() if row.get("BridgeId")} - talked:
        assert time.monotonic() < waiting_until, "nobody was put through while the server was away"
        await asyncio.sleep(0.1)
    members = Counter(row["Location"] for row in await centre.queue_members())
    assert set(members) == {f"PJSIP/{seat.phone}" for seat in sellers}
    await centre.start_process()
    for screen in (*screens, sara, olga):
        welcome = await screen.connect(resume=True)
        if not welcome["resumed"]:  # honest: then there is a snapshot
            assert screen.picture.agents
    olga.mark()
    await olga.until(lambda: len(olga.all("call.established")) >= 5, 20, "calls again")
    enough.set()
    await calling
    await olga.until(lambda: not olga.picture.calls, 40, "all calls over")
    for seat, screen in zip(sellers, screens, strict=True):
        await screen.agent_is("ready", within=15)
        await centre.member(seat.login)
        shown = {(f["data"]["call"], f["data"]["pop"]) for f in screen.facts() if f["type"] == "pop.shown"}
        assert len({call for call, _ in shown}) == len(shown), "one call, two pops"
        await screen.as_told("by", "why")
    await sara.as_told("by", "why")

    deadline = time.monotonic() + 15
    while (
        await centre.fetch("SELECT 1 FROM interactions WHERE ended IS NULL")
    ) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    rows = await centre.fetch(
        "SELECT call, outcome, ended, agents, ani FROM interactions WHERE ani LIKE '+44207940%'"
    )
    assert all(row["ended"] is not None for row in rows)
    assert len({row["call"] for row in rows}) == len(rows)
    callers = Counter(row["ani"] for row in rows)
    assert set(callers.values()) == {1}
    # Of a call that came and went while no server ran nothing is known; every other one has its record.
    first: dict[str, float] = {}
    for at, fact in olga.frames:
        if fact["type"].startswith("call."):
            first.setdefault(fact["data"]["call"], at)
    seen = {call for call, at in first.items() if not killed - 0.5 < at < killed}
    assert seen - {row["call"] for row in rows} == set()
    assert len(seen) >= 15
    cleared = Counter(
        fact["call"]
        for fact in await centre.fetch(
            "SELECT call FROM journal WHERE type = 'call.cleared' AND call IS NOT NULL"
        )
    )
    assert not [call for call in {row["call"] for row in rows} if cleared[call] > 1]
    for screen in screens[1:]:
        await screen.ask("agent.log_off")
        await centre.member(screen.login, there=False)
    await well(centre, anna, sara)
    assert await centre.process.stop() == 0


# ------------------------------------------------------------------------------------------ clients that misbehave


async def test_a_client_that_never_reads_is_dropped_and_disturbs_nobody(centre: Centre) -> None:
    anna = await centre.screen("anna")
    olga = await centre.screen("olga")
    reader = socket.create_connection(("127.0.0.1", centre.port))
    try:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(_greet, reader, await centre.token("olga"))
        hub = centre.server.hub
        await centre.eventually(lambda: hub.tabs("olga") == 2, what="both there")
        slow = hub.counts.too_slow
        most = 0
        for batch in range(400):
            centre.server.bus.publish(
                CallerChanged(at=datetime.now(UTC), call="main:none", ani=f"{batch}", ani_name="x" * 900)
                for _ in range(40)
            )
            await asyncio.sleep(0)
            most = max(most, *(session.wire.get_write_buffer_size() for session in hub))
            if batch % 20 == 0:
                await olga.ask("ping")
            if hub.counts.too_slow > slow:
                break
        assert hub.counts.too_slow == slow + 1
        assert most < centre.server.settings.client_buffer + 100_000
        await centre.eventually(lambda: hub.tabs("olga") == 1, what="dropped")
        assert olga.close_code is None
        assert await asyncio.to_thread(_end_of, reader) in (4408, None)  # told so if it still could be
        await centre.log_on(anna)
        await well(centre, anna)
    finally:
        reader.close()


def _greet(line: socket.socket, token: str) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    line.sendall(
        f"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: cti.v1\r\n\r\n".encode()
    )
    assert b"101" in line.recv(4096)
    payload = json.dumps({"op": "hello", "id": "1", "token": token}).encode()
    mask = os.urandom(4)
    head = struct.pack("!BBH", 0x81, 0x80 | 126, len(payload))
    line.sendall(head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)))


def _end_of(line: socket.socket) -> int | None:
    """The close code at the end of what was not read; None if the line was cut."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    line.settimeout(5)
    tail, ending = b"", time.monotonic() + 5
    try:
        while (more := line.recv(1 << 16)) and time.monotonic() < ending:
            tail = (tail + more)[-200:]
    except OSError:
        return None
    at = tail.rfind(b"\x88")
    return int.from_bytes(tail[at + 2 : at + 4], "big") if at >= 0 else None


NUL = r'{"op":"call.note","id":"1","args":{"call":"main:1.1","text":"x\u0000"}}'


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[1]",
        '"text"',
        "{",
        '{"op":"ping","id":"1","args":' + "[" * 100 + "]" * 100 + "}",
        "x" * 70_000,
        NUL,
    ],
    ids=["text", "list", "string", "cut", "deep", "oversize", "nul"],
)
async def test_a_frame_that_is_none_closes_its_client_only(centre: Centre, text: str) -> None:
    anna, other = await centre.screen("anna"), await centre.screen("anna")
    await anna.send_raw(text)
    assert await anna.gone() == 4400
    goodbye = anna.all("goodbye")[-1:]
    assert [(g["code"], g["come_back"]) for g in goodbye] == [(4400, False)]
    assert (await other.ask("ping"))["seq"] >= 0


async def test_commands_that_are_none_are_answered_and_nothing_else_happens(centre: Centre) -> None:
    anna = await centre.screen("anna")
    for op, args, code in (
        ("call.frobnicate", {}, "unknown_op"),
        ("agent.lgo_on", {}, "unknown_op"),
        ("agent.log_on", {"ready": "perhaps"}, "bad_args"),
        ("agent.log_on", {"nonsense": 1}, "bad_args"),
        ("agent.ready", {"agent": "dora"}, "not_your_agent"),
        ("call.note", {"call": "main:1.1", "text": "x"}, "not_your_call"),
    ):
        with pytest.raises(Refusal) as refused:
            await anna.ask(op, **args)
        assert refused.value.code == code, op
        assert refused.value.message
    await anna.send_raw('{"op":"ping"}')
    error = await anna.wait_for("error")
    assert error["error"]["code"] == "bad_frame"
    first = await anna.ask("agent.log_on", id="same")
    assert await anna.ask("agent.log_on", id="same") == first
    assert len(anna.all("agent.state_changed", agent="anna")) == 1


async def test_tokens_that_have_expired_or_are_no_good_let_nobody_in(centre: Centre) -> None:
    good = await centre.token("anna")
    key = OctKey.import_key(KEY.encode())
    claims = jwt.decode(good, key, algorithms=["HS256"]).claims
    past = int(time.time()) - 3600
    stale = jwt.encode({"alg": "HS256"}, {**claims, "iat": past - 900, "exp": past}, key)
    forged = jwt.encode({"alg": "HS256"}, {**claims, "role": "admin"}, OctKey.import_key(b"x" * 40))
    for token in (stale, forged, "garbage", ""):
        screen = Screen(centre.url, "anna", token)
        centre.screens.append(screen)
        with pytest.raises(AssertionError, match="closed: 4401"):
            await screen.connect()
        async with (
            aiohttp.ClientSession() as http,
            http.get(centre.url + "/api/v1/state", headers={"Authorization": f"Bearer {token}"}) as answer,
        ):
            assert answer.status == 401
    ending = jwt.encode({"alg": "HS256"}, {**claims, "exp": int(time.time()) + 2}, key)
    screen = Screen(centre.url, "anna", ending)
    centre.screens.append(screen)
    await screen.connect()
    assert screen.all("token_expiring") or await screen.wait_for("token_expiring")
    assert await screen.gone() == 4401  # it was not renewed
