"""What goes wrong while a campaign runs, on a real Asterisk: nobody is dialed twice, nobody is lost, outcomes stay true."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

import dialer.calling.run
from cti.facts import Fact
from dialer.calling.run import Dialer
from dialer.management.settings import CampaignLive
from tests.centre import Centre
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
    shows,
    state,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
HOUSE = dialing_house


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
    await at_work(centre, "anna", "ben")
    numbers = [number("human", 0, 30), number("silent", 0, 1), number("human", 0, 31), number("busy", 0, 2)]
    id = await campaign(centre, numbers[:2], mode="power", ratio=2, min_ring_s=8, ring_timeout_s=9)
    await shows(centre, id, lambda view: view.calls == {"connected": 1, "ringing": 1}, "one talks, one rings")
    centre.pbx.kill()
    await shows(centre, id, lambda view: view.held == "pbx_down", "held")
    await asyncio.to_thread(centre.pbx.start)
    keep_cdr(centre)
    rows = await ended(centre, id, 2)
    assert {row["e164"]: row["outcome"] for row in rows} == dict(
        zip(numbers, ("connected", "unknown"), strict=False)
    )
    states = await centre.fetch(
        "SELECT e164, state FROM list_contacts WHERE list_id = $1", rows[0]["list_id"]
    )
    assert {row["e164"]: row["state"] for row in states} == {numbers[0]: "done", numbers[1]: "open"}


async def test_the_database_is_away(centre: Centre) -> None:
    """Calls under way go on and come to an agent; nothing is placed; what happened is written when it is back."""
    await at_work(centre, "anna")
    numbers = [number("human", 1, 1), number("busy", 0)]
    id = await campaign(centre, numbers, min_ring_s=8, ring_timeout_s=9)
    await shows(centre, id, lambda view: view.calls.get("ringing") == 1, "ringing")
    name = centre.dsn.rpartition("/")[2]
    away = centre.dsn.rpartition("/")[0] + "/postgres"
    await execute(away, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await execute(away, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    try:
        await shows(centre, id, lambda view: view.held in ("database", "not_here"), "held")
        await shows(centre, id, lambda view: view.connected == 1, "talked")
        view = await shows(centre, id, lambda view: not view.calls, "over")
        assert view.pace == 1
    finally:
        await execute(away, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    rows = await ended(centre, id, 2)
    assert [row["outcome"] for row in rows] == ["connected", "busy"]
    assert rows[0]["connected"] < rows[0]["ended"] < rows[1]["committed"]
    await each_once(centre, id, numbers)
    await as_asterisk_says(centre, rows)


async def execute(dsn: str, query: str, *args: Any) -> None:
    import asyncpg

    db = await asyncpg.connect(dsn)
    try:
        await db.execute(query, *args)
    finally:
        await db.close()


async def test_a_trunk_that_refuses_everything_rests_and_a_carrier_that_answers_for_nobody(
    centre: Centre,
) -> None:
    await at_work(centre, "anna")
    numbers = [number("congested", 0, n) for n in range(12)]
    id = await campaign(centre, numbers)
    view = await shows(centre, id, lambda view: view.held == "trunks_rest", "rests")
    assert view.outcomes["congestion"] <= 8
    assert "rests" in view.trunks["carrier"]
    await state(centre, id, "stopped")
    rows = await ended(centre, id, 5)
    assert {row["outcome"] for row in rows} == {"congestion"}
    await as_asterisk_says(centre, rows)
    centre.server.dialing.dialer.trunks.got_through("carrier")  # type: ignore[union-attr]
    hollow = await campaign(centre, [number("human", after, 0) for after in (0, 1, 2)])
    rows = await ended(centre, hollow, 3)
    assert {row["outcome"] for row in rows} <= {"answered", "connected", "agent_error"}
    await as_asterisk_says(centre, rows)
    trunks = centre.server.dialing.dialer.trunks  # type: ignore[union-attr]
    assert trunks._trunks["carrier"].fails == 3


async def test_the_clock_jumps(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours forward while it rings: nothing more is placed, times of the call under way stay right."""
    await at_work(centre, "anna")
    id = await campaign(centre, [number("human", 1, 1), number("busy", 0)], min_ring_s=8, ring_timeout_s=9)
    await shows(centre, id, lambda view: view.calls.get("ringing") == 1, "ringing")

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(hours=2)

    with monkeypatch.context() as jump:
        jump.setattr(dialer.calling.run, "datetime", Jumped)
        await shows(centre, id, lambda view: view.held == "clock", "held for the clock")
        await shows(centre, id, lambda view: view.connected == 1 and not view.calls, "talked")
        assert len(await attempts(centre, id)) == 1
    rows = await ended(centre, id, 2)
    assert [row["outcome"] for row in rows] == ["connected", "busy"]
    assert rows[0]["ended"] - rows[0]["committed"] < timedelta(minutes=1)


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
    await state(centre, id, "stopped")
    rows = await ended(centre, id, placed)
    assert len({row["contact_id"] for row in rows}) == len(rows)
    assert {row["outcome"] for row in rows} <= {"busy", "unknown"}


async def test_all_agents_leave_at_once(centre: Centre) -> None:
    """Whoever answers then hears the message within two seconds and may opt out by a key; nobody else is called."""
    screens = await at_work(centre, "anna", "ben", "cleo")
    out = number("opts_out", 2, 3)
    numbers = [out, *(number("human", 2, n) for n in range(1, 8))]
    id = await campaign(centre, numbers, mode="power", ratio=1.5, min_ring_s=8, ring_timeout_s=9)
    await shows(centre, id, lambda view: view.calls.get("ringing", 0) >= 3, "ringing")
    await asyncio.gather(*(screen.ask("agent.log_off") for screen in screens))
    placed = len(await attempts(centre, id))
    rows = await ended(centre, id, placed)
    assert len(rows) == placed < len(numbers)
    lost = [row for row in rows if row["outcome"] == "abandoned"]
    assert len(lost) >= 2
    for row in lost:
        assert 1.5 <= (row["message_played"] - row["answered"]).total_seconds() <= 3.0
    view = await shows(centre, id, lambda view: view.held == "no_agents", "held")
    assert view.abandoned == len(lost)
    await as_asterisk_says(centre, rows)
    (pressed,) = [row for row in rows if row["e164"] == out]
    assert pressed["opted_out"] is True
    (contact,) = await centre.fetch(
        "SELECT state, why FROM list_contacts WHERE id = $1", pressed["contact_id"]
    )
    assert (contact["state"], contact["why"]) == ("blocked", "asked not to be called again")
    listed = await centre.fetch("SELECT number, scope, call FROM do_not_call")
    assert listed == [{"number": int(out[1:]), "scope": "everywhere", "call": pressed["id"]}]


class Both:
    """Two dialers in the place of one: both hear the same switch and read the same campaigns."""

    def __init__(self, *dialers: Dialer) -> None:
        self.dialers = dialers

    def hear_record(self, pbx: str, record: Any) -> None:
        for one in self.dialers:
            one.hear_record(pbx, record)

    def hear(self, fact: Fact) -> None:
        for one in self.dialers:
            one.hear(fact)

    async def refresh(self, campaign_id: int) -> None:
        for one in self.dialers:
            await one.refresh(campaign_id)

    def view(self, campaign_id: int) -> CampaignLive | None:
        views = [one.view(campaign_id) for one in self.dialers]
        return next((view for view in views if view is not None and view.here), views[0])


async def test_two_dialers_on_one_campaign(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both run and one paces; when that stops with calls under way, the other takes them up and goes on."""
    await at_work(centre, "anna", "ben")
    server = centre.server
    assert server is not None
    first, second = server.dialing.dialer, server.dialing.make_dialer()
    assert first.owner != second.owner
    with monkeypatch.context() as both:
        both.setattr(server.dialing, "dialer", Both(first, second))
        await second.start()
        numbers = [number("human", 0, n) for n in (1, 5)] + [
            number("busy", 1),
            number("human", 1, 2),
            number("rejects", 1),
        ]
        id = await campaign(centre, numbers, mode="power", ratio=2, min_ring_s=8, ring_timeout_s=9)
        await until(centre, id, lambda rows: any(row["state"] == "connected" for row in rows), "a talk")
        await until(centre, id, lambda rows: len(rows) >= 3, "several")
        owners = {row["owner"] for row in await attempts(centre, id)}
        assert len(owners) == 1
        paces, waits = (first, second) if owners == {first.owner} else (second, first)
        assert paces.view(id) is not None
        assert waits.view(id).here is False  # type: ignore[union-attr]
        await paces.stop()
        rows = await ended(centre, id, len(numbers))
        await each_once(centre, id, numbers)
        await as_asterisk_says(centre, rows)
        # Of a call that ends in the moment of the change nobody hears why; it counts as dialed.
        outcomes = Counter(row["outcome"] for row in rows)
        assert outcomes.keys() <= {"connected", "busy", "rejected", "unknown"}
        assert outcomes["connected"] >= 1, outcomes
        await waits.stop()
    if paces is first or waits is first:
        await first.start()


async def test_the_server_is_killed(centre: Centre) -> None:
    """Calls in a talk and ringing when the power goes: they are taken up by the server that starts then."""
    await at_work(centre, "anna", "ben")
    numbers = [number("human", 0, 6), number("human", 3, 1), number("busy", 3), number("rejects", 1)]
    await centre.stop_server()
    id = await campaign(centre, numbers, mode="power", ratio=2, min_ring_s=8, ring_timeout_s=9)
    told = {
        "CTI_DIALER__TRUNKS": json.dumps([TRUNK]),
        "CTI_DIALER__CALLER_IDS": json.dumps(CALLER_IDS),
        "CTI_DIALER__TICK_S": "0.1",
        "CTI_DIALER__LEASE_S": "1",
        "CTI_DIALER__PROFILES": centre.settings["dialer"]["profiles"],
    }
    server = await centre.start_process(**told)
    await until(centre, id, lambda rows: any(row["state"] == "connected" for row in rows), "a talk")
    await server.kill()
    talking = {row["id"] for row in await attempts(centre, id) if row["state"] == "connected"}
    await centre.start_process(**told)
    rows = await ended(centre, id, len(numbers), within=60)
    await each_once(centre, id, numbers)
    await as_asterisk_says(centre, rows)
    assert {row["outcome"] for row in rows if row["id"] in talking} == {"connected"}
