"""Figures beside Asterisk's own queue_log, for the same calls on a real Asterisk; and who may ask for which."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import pytest
import pytest_asyncio

from cti.__main__ import main
from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.centre import BRISK, Centre, Refusal, Screen, centre_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = 2.0
LONDON = ZoneInfo("Europe/London")


@dataclass
class Logged:
    """What queue_log says of a queue."""

    events: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    hold_times: list[int] = field(default_factory=list)
    call_times: list[int] = field(default_factory=list)


def read_queue_log(path: Path) -> dict[str, Logged]:
    """time|call|queue|member|event|data..."""
    queues: dict[str, Logged] = defaultdict(Logged)
    for line in path.read_text().splitlines():
        _, _, queue, _, event, *data = line.split("|")
        logged = queues[f"main:{queue}"]
        logged.events[event] += 1
        match event:
            case "CONNECT":
                logged.hold_times.append(int(data[0]))
            case "COMPLETECALLER" | "COMPLETEAGENT":
                logged.call_times.append(int(data[1]))
            case "BLINDTRANSFER":
                logged.call_times.append(int(data[3]))
    return queues


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def centre(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    behaviour = replace(BRISK, wait_seconds=5, ring_seconds=2, overflow_seconds=3, wrap_seconds=0)
    figures = {"short_abandon": SHORT, "answer_within": 2, "time_zone": "Europe/London"}
    async with centre_of(
        asterisk_installation, postgres_server, behaviour=behaviour, wrap_up={"seconds": 0.5}, figures=figures
    ) as made:
        await a_busy_half_minute(made)
        yield made


async def a_busy_half_minute(centre: Centre) -> None:
    """Calls with every end that queue_log knows, side by side in four queues."""
    anna, ben, dora, gus, hana = [
        await centre.screen(login) for login in ("anna", "ben", "dora", "gus", "hana")
    ]
    await centre.log_on(anna, gus, hana)

    async def sales() -> None:
        first = await centre.call("sales", talk=60)  # answered; the customer hangs up
        await anna.agent_is("busy")
        await asyncio.sleep(1.5)
        await centre.hang_up(first)
        await anna.agent_is("ready")
        await centre.phone("1101", talk="1")  # answered; the agent hangs up
        await centre.call("sales", talk=60)
        await anna.agent_is("busy", within=15)
        await anna.agent_is("ready", within=15)
        await centre.phone("1101")
        await centre.call("sales", talk=12)  # answered, handed on to Ben's phone, who is on no queue
        await anna.agent_is("busy", within=15)
        await centre.admin(
            "BlindTransfer",
            Channel=await centre.channel_of("1101"),
            Context="from-agent",
            Exten="1102",
        )
        talks = await anna.agent_is("ready", within=15)
        assert talks
        await centre.phone("1101", mode="silent")  # rings in vain, until the queue gives the caller up
        await centre.call("sales", talk=60)
        await dora.until(lambda: dora.picture.calls, within=25)
        await dora.agent_is("busy", within=15)

    async def support() -> None:
        await centre.call("support", talk=60)  # nobody there: timed out
        await dora.wait_for("queue.caller_left", queue="main:support", within=20)
        await centre.log_on(dora)  # takes what sales gives up

    async def billing() -> None:
        soon = await centre.call("billing", talk=60)
        later = await centre.call("billing", talk=60)
        await asyncio.sleep(1)
        await centre.hang_up(soon)
        await asyncio.sleep(2.5)
        await centre.hang_up(later)

    async def emergency() -> None:
        await centre.phone("1107", delay="1.5")
        await centre.phone("1106", mode="reject")  # of two who are rung, one refuses and one answers
        await centre.call("emergency", talk=5)
        await hana.agent_is("busy")
        await hana.agent_is("ready", within=15)

    async with asyncio.timeout(90):
        await asyncio.gather(sales(), support(), billing(), emergency())
        await asyncio.sleep(1.2)
    await ben.close()
    for _ in range(50):
        if not await centre.channels():
            break
        await (await centre.ami("world")).send("Hangup", {"Channel": "/.*/", "Cause": "16"})
        await asyncio.sleep(0.1)
    server = centre.server
    assert server is not None
    await centre.eventually(lambda: not any(len(s.calls) for s in server.switches.values()), what="no calls")
    await dora.agent_is("ready", within=15)
    await server.journal.flushed(server.bus.seq)
    await server.roll_up.catch_up()


async def figures(centre: Centre, noun: str, login: str, **query: str) -> dict[str, Any]:
    """A report of yesterday to tomorrow: the test may run at midnight."""
    today = datetime.now(LONDON).date()
    days = {"from": str(today - timedelta(days=1)), "to": str(today + timedelta(days=1))}
    status, body = await centre.rest("GET", f"/api/v1/figures/{noun}", login, params={**days, **query})
    assert status == 200, body
    return body  # type: ignore[no-any-return]


async def test_queues_say_what_queue_log_says(centre: Centre) -> None:
    logged = read_queue_log(centre.pbx.run_dir / "log" / "queue_log")
    report = await figures(centre, "queues", "olga")
    told = {row["queue"]: row for row in report["items"]}
    assert told.keys() == {"main:sales", "main:support", "main:billing", "main:emergency"}
    for queue, row in told.items():
        log = logged[queue]
        assert row["offered"] == log.events["ENTERQUEUE"]
        assert row["answered"] == log.events["CONNECT"]
        assert row["abandoned"] + row["short_abandoned"] == log.events["ABANDON"]
        assert row["timed_out"] == log.events["EXITWITHTIMEOUT"]
        assert row["handled"] == len(log.call_times)
        assert row["transferred"] == log.events["BLINDTRANSFER"] + log.events["ATTENDEDTRANSFER"]
        # queue_log counts whole seconds between whole seconds: each is less than one off. Its call time runs from the
        # answer to the end of the agent's part, hold included, as talk and hold together do.
        waited = (row["average_speed_of_answer"] or 0) * row["answered"]
        assert waited == pytest.approx(sum(log.hold_times), abs=max(row["answered"], 0.01))
        assert row["talk"] + row["hold"] == pytest.approx(sum(log.call_times), abs=max(row["handled"], 0.01))
    sales = told["main:sales"]
    assert (sales["offered"], sales["answered"], sales["timed_out"], sales["transferred"]) == (4, 3, 1, 1)
    # A phone that rings in vain is one RINGNOANSWER; where the queue gives the caller up while it rings, Asterisk logs
    # RINGCANCELED and we nothing.
    assert sales["not_answered"] == logged["main:sales"].events["RINGNOANSWER"] >= 1
    assert told["main:emergency"]["refused"] == 1
    waits = await centre.fetch(
        """SELECT (data ->> 'waited')::float AS waited FROM journal WHERE type = 'queue.caller_left'
           AND data ->> 'queue' = 'main:billing' AND data ->> 'reason' = 'abandoned'"""
    )
    assert told["main:billing"]["short_abandoned"] == sum(row["waited"] < SHORT for row in waits)
    assert told["main:billing"]["abandoned"] == sum(row["waited"] >= SHORT for row in waits) >= 1
    assert told["main:support"]["answered"] == told["main:support"]["timed_out"] == 1
    assert sales["wrap_up"] == pytest.approx(3 * 0.5, abs=0.6)


async def rings_of(centre: Centre, agent: str) -> list[float]:
    """How long each call rang with the agent, in seconds, as the calls' facts tell it."""
    rings: list[float] = []
    began: datetime | None = None
    for row in await centre.fetch(
        """SELECT at, type FROM journal WHERE type LIKE 'call.%' AND data ->> 'agent' = $1 ORDER BY seq""",
        agent,
    ):
        if row["type"] == "call.offered":
            began = row["at"]
        elif began is not None and row["type"] in (
            "call.established",
            "call.diverted",
            "call.connection_cleared",
        ):
            rings.append((row["at"] - began).total_seconds())
            began = None
    return rings


async def test_agents_times_are_those_of_their_states(centre: Centre) -> None:
    report = await figures(centre, "agents", "olga")
    told = {row["agent"]: row for row in report["items"]}
    anna = told["anna"]
    assert (anna["handled"], anna["handled_of_queues"], anna["transferred"]) == (3, 3, 1)
    states = ("ready", "reserved", "busy", "wrapping_up", "not_ready", "unknown")
    assert anna["logged_on"] == pytest.approx(sum(anna[name] for name in states))
    assert anna["busy"] == pytest.approx(anna["talk"] + anna["hold"], abs=1)
    assert anna["wrapping_up"] == anna["wrap_up"]
    assert anna["not_ready"] == pytest.approx(sum(stay["lasted"] for stay in anna["reasons"].values()))
    assert anna["over_limit"] == sum(stay["over_limit"] for stay in anna["reasons"].values())
    # Her phone rang for two seconds in vain, at least once: how often, and whether the queue gives up while it rings,
    # depends on when Asterisk tries her first. She was reserved while it rang, in all.
    rings = await rings_of(centre, "anna")
    in_vain = rings[3:]
    assert in_vain
    assert in_vain[0] == pytest.approx(2.0, abs=0.5)
    assert anna["reserved"] == pytest.approx(sum(rings), abs=0.1)
    assert 0 < anna["occupancy"] < 1
    assert told["ben"]["handled_of_queues"] == 0
    assert told["ben"]["handled"] == 1


async def test_the_same_numbers_by_rest_csv_and_command(centre: Centre) -> None:
    sara = await centre.screen("sara")
    rest = await figures(centre, "queues", "sara", interval="15m")
    days = {"from": rest["first"][:10], "to": rest["last"][:10]}
    asked = await sara.ask("figures.queues", interval="15m", **days)
    assert rest["items"] == asked["items"]
    assert {row["queue"] for row in rest["items"]} == {"main:sales"}
    assert rest["now"] == [{"queue": "main:sales", "waiting": 0, "longest_waiting": 0.0}]
    assert rest["time_zone"] == "Europe/London"
    text, kind = await csv_of(centre, "queues", "sara", {"interval": "15m", **days}, {"Accept": "text/csv"})
    assert kind == "text/csv"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(rest["items"])
    for row, item in zip(rows, rest["items"], strict=True):
        for name, value in item.items():
            if name == "first_call_resolution":
                assert int(row["first_call_contacts"]) == value["contacts"]
            elif name == "start":
                assert row["start"] == value
            else:
                assert row[name] == ("" if value is None else str(value))
    text, _ = await csv_of(centre, "agents", "sara", {"format": "csv", **days}, {})
    assert [row["agent"] for row in csv.DictReader(io.StringIO(text))] == ["anna", "ben"]
    (team,) = (await figures(centre, "teams", "sara"))["items"]
    assert (team["team"], team["agents"], team["handled"]) == ("sales", 3, 4)


async def csv_of(
    centre: Centre, noun: str, login: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[str, str]:
    given = {"Authorization": f"Bearer {await centre.token(login)}", **headers}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{centre.url}/api/v1/figures/{noun}", params=query, headers=given) as answer,
    ):
        assert answer.status == 200
        return await answer.text(), answer.content_type


async def test_everybody_sees_their_own(centre: Centre) -> None:
    async def refused(noun: str, login: str, **query: str) -> tuple[int, str]:
        status, body = await centre.rest("GET", f"/api/v1/figures/{noun}", login, params=query)
        return status, body["code"]

    own = await figures(centre, "agents", "anna")
    assert [row["agent"] for row in own["items"]] == ["anna"]
    assert await refused("queues", "anna") == (403, "forbidden")
    assert await refused("teams", "anna") == (403, "forbidden")
    assert await refused("agents", "anna", agent="ben") == (403, "not_yours")
    assert await refused("agents", "anna", team="sales") == (403, "not_yours")
    assert await refused("queues", "sara", queue="main:support") == (403, "not_yours")
    assert await refused("agents", "sara", agent="dora") == (403, "not_yours")
    assert await refused("agents", "sara", team="service") == (403, "not_yours")
    assert await refused("teams", "sara", team="service") == (403, "not_yours")
    assert await refused("agents", "olga", team="nobody") == (422, "bad_value")
    assert await refused("teams", "olga", team="nobody") == (422, "bad_value")
    served = await figures(centre, "agents", "sven")
    assert [row["agent"] for row in served["items"]] == ["dora"]
    anna: Screen = await centre.screen("anna")
    with pytest.raises(Refusal) as refusal:
        await anna.ask("figures.agents", agent="ben")
    assert refusal.value.code == "forbidden"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"tz": "Mars/Base"}, "time zone"),
        ({"from": "yesterdayish"}, "no moment"),
        ({"from": "2026-02-30"}, "no moment"),
        ({"from": "2026-02-03T09:10"}, "quarter"),
        ({"from": "2026-02-03", "to": "2026-02-02"}, "after from"),
        ({"from": "2026-02-03", "to": "2026-08-02", "interval": "15m"}, "93 days"),
        ({"from": "2020-02-03", "to": "2026-08-02", "interval": "day"}, "800 days"),
        ({"interval": "7m"}, "interval"),
        ({"until": "today"}, "until"),
    ],
)
async def test_an_impossible_question_is_answered_with_what_to_ask(
    centre: Centre, query: dict[str, str], says: str
) -> None:
    status, body = await centre.rest("GET", "/api/v1/figures/queues", "olga", params=query)
    assert (status, body["code"]) == (422, "bad_value")
    assert says in body["detail"]


async def test_the_command_line_says_the_same(
    centre: Centre, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CTI_DATABASE_URL", centre.dsn)
    monkeypatch.setenv("CTI_FIGURES__TIME_ZONE", "Europe/London")

    def typed(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["cti", "figures", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    async def cti(*arguments: str, code: int = 0) -> str:
        assert await asyncio.to_thread(typed, *arguments) == code
        told = capsys.readouterr()
        return told.err if code else told.out

    rest = await figures(centre, "queues", "olga")
    days = ("--from", rest["first"][:10], "--to", str(datetime.now(LONDON).date() + timedelta(days=1)))
    assert json.loads(await cti("queues", *days, "--json"))["items"] == rest["items"]
    as_csv = list(csv.DictReader(io.StringIO(await cti("queues", *days, "--csv"))))
    assert [row["offered"] for row in as_csv] == [str(row["offered"]) for row in rest["items"]]
    lines = (await cti("queues", *days)).splitlines()
    assert lines[0].split()[:3] == ["from", "queue", "offered"]
    assert len(lines) == 1 + len(rest["items"])
    assert (await cti("teams", "--from", "2020-01-01")).strip() == "Nothing in that time."
    assert "quarter" in await cti("agents", "--from", "2020-01-01T00:01", code=2)
    assert "there is no team 'nobody'" in await cti("agents", "--team", "nobody", code=2)
    assert "write 2026-10-25" in await cti("again", "yesterday", "today", code=2)
    # computed anew with other targets: nothing is late any more, the rest stays
    before = (await figures(centre, "agents", "olga"))["items"]
    monkeypatch.setenv("CTI_FIGURES__ANSWER_WITHIN", "100")
    assert await cti("again", days[1], days[3]) == "Computed anew.\n"
    anew = (await figures(centre, "queues", "olga"))["items"]
    assert all(row["answered_in_time"] == row["answered"] for row in anew)
    assert [row["handled"] for row in anew] == [row["handled"] for row in rest["items"]]
    after = (await figures(centre, "agents", "olga"))["items"]
    assert [(row["agent"], row["handled"], row["wrap_up"]) for row in after] == [
        (row["agent"], row["handled"], row["wrap_up"]) for row in before
    ]
