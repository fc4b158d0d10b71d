"""The canary: events that come late are noticed in seconds, told to everybody, and told again when they are timely."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from cti.ami import AmiLink, LinkPhase
from cti.ami_canary import Canary, Stream, Timeliness
from cti.ami_events import PARSERS
from cti.client import Picture
from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from cti.simulator.plan import Plan
from cti.simulator.server import Simulator, User
from cti.watch_screen import Seat, header
from tests.centre import centre_of

# ------------------------------------------------------------------------------------------------ the reckoning


def test_a_canary_that_is_away_too_long_makes_events_late_and_three_in_time_make_them_timely() -> None:
    stream = Stream(late_after=2.0)
    stream.sent(0.0)
    stream.look(5.0)
    assert stream.state is Timeliness.UNMEASURED  # none has ever come: the PBX may not send us such events
    stream.heard(5.0)
    assert stream.state is Timeliness.LATE  # it does, but how late
    for now in (6.0, 7.0):
        stream.sent(now)
        stream.heard(now + 0.01)
        assert stream.state is Timeliness.LATE
    stream.sent(8.0)
    stream.heard(8.01)
    assert stream.state is Timeliness.TIMELY

    stream.sent(9.0)
    stream.look(10.9)
    assert stream.state is Timeliness.TIMELY
    stream.look(11.0)
    assert (stream.state, stream.delay) == (Timeliness.LATE, 2.0)
    stream.look(14.0)
    assert stream.delay == 5.0


def test_between_half_and_whole_nothing_changes() -> None:
    stream = Stream(late_after=2.0)
    for now in range(0, 30, 3):
        stream.sent(now)
        stream.heard(now + 1.5)
        assert stream.state is not Timeliness.LATE
    stream.sent(30.0)
    stream.heard(32.5)
    for now in range(33, 60, 3):
        stream.sent(now)
        stream.heard(now + 1.5)
        assert stream.state is Timeliness.LATE


def test_ordinary_events_tell_it_too_whatever_the_clocks_difference() -> None:
    """Asterisk's clock is an hour behind ours."""
    stream = Stream(late_after=2.0)
    stream.event(wall=5000.0, stamp=1000.0)  # the clocks are not known yet
    assert stream.state is Timeliness.UNMEASURED
    stream.sent(0.0)
    stream.heard(0.02, wall=4600.02, stamp=1000.0)
    stream.event(wall=4610.0, stamp=1009.9)
    assert stream.state is Timeliness.TIMELY
    stream.event(wall=4620.0, stamp=1016.0)
    assert stream.state is Timeliness.LATE
    assert stream.delay == pytest.approx(3.98)


def test_what_was_late_must_prove_itself_after_a_new_connection() -> None:
    stream = Stream(late_after=2.0)
    stream.sent(0.0)
    stream.heard(3.0)
    stream.forget()
    assert stream.state is Timeliness.LATE
    stream.look(100.0)
    for now in (100.0, 101.0, 102.0):
        stream.sent(now)
        stream.heard(now + 0.1)
    assert stream.state is Timeliness.TIMELY


# ------------------------------------------------------------------------------------------------ on a link


@asynccontextmanager
async def watched(
    port: int, username: str, secret: str, **more: float
) -> AsyncIterator[tuple[Canary, AmiLink, list[float | None]]]:
    """A link with a canary."""
    told: list[float | None] = []
    holder: dict[str, AmiLink] = {}

    async def send(action: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        return await holder["link"].send(action, headers)

    canary = Canary(
        "main",
        send=send,
        is_up=lambda: holder["link"].status.phase is LinkPhase.UP,
        on_change=told.append,
        **{"every": 0.2, "late_after": 0.8, **more},
    )
    link = holder["link"] = AmiLink(
        pbx="main",
        host="127.0.0.1",
        port=port,
        username=username,
        secret=secret,
        parsers={**PARSERS, b"UserEvent": canary.parser(PARSERS[b"UserEvent"])},
        on_records=lambda records: canary.event(records[-1].at),  # type: ignore[attr-defined]
        on_status=lambda status: None,
        backoff_max=0.3,
    )
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(canary.run())]
    try:
        yield canary, link, told
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(true: Any, within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.02)


async def test_a_frozen_asterisk_is_late_and_thawed_it_is_timely(asterisk_factory: Any) -> None:
    pbx = asterisk_factory("")
    async with watched(pbx.ami_port, pbx.username, pbx.secret) as (canary, link, told):
        await until(lambda: canary.stream.state is Timeliness.TIMELY)
        pbx.freeze()
        try:
            await until(lambda: canary.late)
            assert link.status.phase is LinkPhase.UP  # the link itself has not noticed anything yet
            assert canary.delay >= 0.8
            await until(lambda: canary.delay >= 1.5)
        finally:
            pbx.thaw()
        await until(lambda: not canary.late)
        assert told[0] is not None
        assert told[0] >= 0.8
        assert told[-1] is None


async def test_late_events_of_a_pbx_that_answers_at_once_are_noticed() -> None:
    users = {"cti": User(secret="of the tests")}
    async with (
        Simulator(Plan(calls_per_second=5), users=users) as simulator,
        watched(simulator.port, "cti", "of the tests") as (canary, link, told),
    ):
        await until(lambda: canary.stream.state is Timeliness.TIMELY)
        simulator.lag(3.0)
        await until(lambda: canary.late)
        await link.send("Ping")  # answers come as ever
        await until(lambda: canary.delay >= 2.0)
        simulator.lag(0.0)
        await until(lambda: not canary.late)
        assert told[0] is not None
        assert told[-1] is None


async def test_a_user_who_may_not_send_events_is_not_taken_for_late(asterisk_factory: Any) -> None:
    pbx = asterisk_factory("")
    (rights,) = pbx.run_dir.rglob("manager_cti.conf")
    rights.write_text(rights.read_text().replace("write=call,agent,user,", "write=call,agent,"))
    pbx.cli("manager reload")
    async with watched(pbx.ami_port, pbx.username, pbx.secret) as (canary, link, told):
        await until(lambda: link.status.phase is LinkPhase.UP)
        await until(lambda: canary.refused)
        assert canary.stream.state is Timeliness.UNMEASURED
        assert not told


# ------------------------------------------------------------------------------------------------ on screens


def test_the_live_view_names_a_late_pbx() -> None:
    picture = Picture()
    now = datetime.now(UTC)
    why = "its events come 4.2 s late: what is shown may be over already"
    data = {"pbx": "main", "phase": "up", "code": "late", "why": why}
    picture.fold({"seq": 1, "type": "pbx.status_changed", "at": now.isoformat(), "data": data})
    lines = [line.plain for line in header(picture, Seat(now=now, name="Sue", url="http://x"), 150)]
    assert "main ● late" in lines[0]
    assert "4.2 s late" in lines[1]
    picture.fold(
        {
            "seq": 2,
            "type": "pbx.status_changed",
            "at": now.isoformat(),
            "data": {**data, "code": "", "why": ""},
        }
    )
    (line,) = [line.plain for line in header(picture, Seat(now=now, name="Sue", url="http://x"), 150)]
    assert "main ● up" in line


# ------------------------------------------------------------------------------------------------ in the server


async def test_everybody_is_told_while_asterisk_is_frozen(
    asterisk_installation: Installation, postgres_server: Postgres
) -> None:
    async with centre_of(asterisk_installation, postgres_server) as centre:
        anna = await centre.screen("anna")
        server = centre.server
        assert server is not None
        await centre.eventually(lambda: server.canaries["main"].stream.ever, what="a canary")
        assert server.switches["main"].timely
        assert (await centre.health())[0] == 200
        centre.pbx.freeze()
        try:
            late = await anna.wait_for("pbx.status_changed", code="late", within=20)
            assert late["data"]["phase"] == "up"
            assert "late" in late["data"]["why"]
            assert not server.switches["main"].timely
            status, body = await centre.health()
            assert status == 503
            assert "s late" in body
            again = await centre.screen("ben")
            assert again.picture.pbxs["main"]["code"] == "late"
            text = await _metrics(centre.url)
            assert 'cti_pbx_events_late{pbx="main"} 1.0' in text
        finally:
            centre.pbx.thaw()
        anna.mark()
        await anna.wait_for("pbx.status_changed", phase="up", code="", within=30)
        assert server.switches["main"].timely
        await anna.as_told()


async def _metrics(url: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(url + "/metrics") as answer:
        return await answer.text()
