"""A call centre that dials: real Asterisk, world and database, a profile without calling hours, a list, a campaign.

Numbers say how their customers behave (asterisk-config/world): `human(3, talk=2)` → +1000302x.
"""

from __future__ import annotations

import asyncio
import csv
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from cti.embedded.asterisk import Installation
from cti.embedded.place import give, remove_folder
from cti.embedded.postgres import Postgres
from dialer.law.profiles import SHIPPED
from dialer.management.settings import CampaignLive
from tests.centre import Centre, Screen, centre_of
from tests.folders import quick_folder

CALLER_IDS = ("+442079460101", "+442079460102")
TRUNK = {
    "name": "carrier",
    "pbx": "main",
    "dial": "PJSIP/{number}@trunk",
    "calls_per_second": 50,
    "channels": 50,
}
QUICK: dict[str, Any] = {
    "queue": "main:sales",
    "calls_per_second": 20,
    "min_ring_s": 1,
    "ring_timeout_s": 3,
    "answer_wait_s": 2,
    "message": "beep",
    "opt_out_key": "9",
}
KINDS = {
    "human": 10,
    "busy": 20,
    "silent": 30,
    "rings late": 39,
    "machine": 40,
    "congested": 50,
    "unknown": 60,
    "rejects": 70,
    "mute": 80,
    "opts_out": 90,
}


def number(kind: str, after: int = 0, talk: int = 1) -> str:
    """The number of a customer of this kind, who answers after so many seconds and talks so long."""
    return f"+{KINDS[kind]}{after:02d}{talk:03d}"


def lenient_profile(folder: Path) -> Path:
    """Writes a profile that lets the tests dial at any hour and again; everything else is as it comes. And `patient`, by
    which somebody who has answered may wait 12 seconds for an agent, and `greeting`, by which that counts from its end."""
    text = (SHIPPED / "default.toml").read_text()
    text = text.replace('name = "default"', 'name = "test"', 1)
    every = "\n".join(f'{day} = ["00:00-24:00"]' for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun"))
    text = re.sub(r"(\[calling_hours\]\n)(\w{3} = .*\n)+", rf"\1{every}\n", text)
    text = text.replace("closed = true", "closed = false").replace("needed = true", "needed = false")
    text = re.sub(r"(\[min_ring\]\nseconds = )\d+", r"\g<1>1", text)
    text = re.sub(r"\nday = 1\ndays_30 = 4", "\nday = 20\ndays_30 = 40", text)
    text = re.sub(r"(\[rest_after_\w+\]\nhours = )\d+", r"\g<1>0", text)
    text = re.sub(r"cap = 0.01", "cap = 0.03", text)
    text = text.replace('allowed = "never"', 'allowed = "always"')
    folder.mkdir(exist_ok=True)
    (folder / "test.toml").write_text(text)
    patient = text.replace('name = "test"', 'name = "patient"', 1)
    patient = re.sub(r"(\[answer_wait\]\nseconds = )2", r"\g<1>12", patient)
    (folder / "patient.toml").write_text(patient)
    greeting = text.replace('name = "test"', 'name = "greeting"', 1)
    (folder / "greeting.toml").write_text(
        re.sub(r"(\[answer_wait\]\nseconds = 2\n)", r"\1from_greeting = true\n", greeting)
    )
    return folder


@asynccontextmanager
async def dialing_house(
    installation: Installation, postgres: Postgres, *, server: bool = True
) -> AsyncIterator[Centre]:
    """The call centre; its PBX keeps a CDR file."""
    folder = quick_folder("cti-profiles-")
    dialer = {
        "trunks": [TRUNK],
        "caller_ids": CALLER_IDS,
        "tick_s": 0.1,
        "lease_s": 6,
        "profiles": str(lenient_profile(folder)),
    }
    main = {"ring_seconds": 6, "canary_every": 0.5, "events_late_after": 1.0}
    try:
        async with centre_of(installation, postgres, server=False, main=main, dialer=dialer) as centre:
            keep_cdr(centre)
            world = await centre.ami("world")
            for says in ("CUSTOMER_HELLO beep", "MACHINE_SAYS vm-theperson&vm-isunavail"):
                await world.send("Command", {"Command": f"dialplan set global {says}"})
            if server:
                await centre.start_server()
            yield centre
    finally:
        remove_folder(folder)


async def campaign(
    centre: Centre,
    numbers: Sequence[str],
    *,
    mode: str = "progressive",
    name: str = "",
    priority: int = 0,
    state: str = "running",
    data: Mapping[str, str] | None = None,
    agents: Sequence[str] = (),
    profile: str = "test",
    **settings: Any,
) -> int:
    """A campaign with one list of these numbers, assigned to these agents or to all, as it is in the database; gives back
    its id."""
    db = await asyncpg.connect(centre.dsn)
    try:
        name = name or f"campaign {time.monotonic_ns()}"
        id: int = await db.fetchval(
            """
            INSERT INTO campaigns (name, mode, state, profile, settings, priority, created_by, changed_by)
            VALUES ($1, $2, $3, $4, $5, $6, 'test', 'test') RETURNING id
            """,
            name,
            mode,
            state,
            profile,
            json.dumps(QUICK | settings),
            priority,
        )
        group = await db.fetchval(
            """
            INSERT INTO zone_groups (country, zones) VALUES ('GB', '{Europe/London}')
            ON CONFLICT (country, region, zones) DO UPDATE SET country = excluded.country RETURNING id
            """
        )
        list_id = await db.fetchval(
            "INSERT INTO call_lists (name, campaign_id, script, settings, created_by, changed_by) "
            "VALUES ($1, $2, 'Say hello.', $3, 'test', 'test') RETURNING id",
            f"list of {name}",
            id,
            json.dumps({"assigned": {"agents": list(agents)}}),
        )
        await db.executemany(
            "INSERT INTO list_contacts (list_id, name, e164, zone_group, data) VALUES ($1, $2, $3, $4, $5)",
            [
                (list_id, f"Customer {i}", one, group, json.dumps(dict(data or {})))
                for i, one in enumerate(numbers)
            ],
        )
        return id
    finally:
        await db.close()


async def state(centre: Centre, campaign: int, to: str) -> None:
    """Sets a campaign's state as a manager does, and tells the server."""
    await centre.fetch(
        "UPDATE campaigns SET state = $2, version = version + 1 WHERE id = $1 RETURNING id", campaign, to
    )
    if centre.server is not None:
        await centre.server.dialing.dialer.refresh(campaign)


async def attempts(centre: Centre, campaign: int) -> list[dict[str, Any]]:
    """A campaign's attempts, in order."""
    return await centre.fetch(
        "SELECT * FROM attempts WHERE campaign_id = $1 ORDER BY committed, id", campaign
    )


async def ended(centre: Centre, campaign: int, many: int, within: float = 40.0) -> list[dict[str, Any]]:
    """Waits until so many attempts have ended and none is under way; gives them back."""
    deadline = time.monotonic() + within
    while True:
        rows = await attempts(centre, campaign)
        if len(rows) >= many and all(row["state"] == "ended" for row in rows):
            return rows
        if time.monotonic() > deadline:
            shown = [(r["e164"], r["state"], r["outcome"], r["why"]) for r in rows]
            view = live(centre, campaign)
            raise AssertionError(f"not {many} ended within {within:g} s: {shown}\n{view}")
        await asyncio.sleep(0.1)


def live(centre: Centre, campaign: int) -> CampaignLive | None:
    """How the server shows the campaign."""
    return centre.server.dialing.dialer.view(campaign) if centre.server is not None else None


async def shows(
    centre: Centre, campaign: int, true: Callable[[CampaignLive], bool], what: str, within: float = 20.0
) -> CampaignLive:
    """Waits until the live view fits."""
    deadline = time.monotonic() + within
    while True:
        view = live(centre, campaign)
        if view is not None and true(view):
            return view
        assert time.monotonic() < deadline, f"not {what}: {view}"
        await asyncio.sleep(0.05)


async def at_work(centre: Centre, *logins: str, off_hook: bool = True) -> list[Screen]:
    """Agents who are logged on and ready."""
    screens = []
    for login in logins:
        screen = await centre.screen(login)
        if off_hook:
            await screen.ask("agent.set_off_hook", off_hook=True)
        await screen.ask("agent.log_on", ready=True)
        screens.append(screen)
    for screen in screens:
        lines = {"lines": {"main": "open"}} if off_hook else {}
        await screen.agent_is("ready", reachable=True, **lines)
    return screens


Told = Callable[[str, str], Awaitable[dict[str, str]]]


@asynccontextmanager
async def told_by_asterisk(centre: Centre) -> AsyncIterator[Told]:
    """What Asterisk itself tells from now on, by its own clock: `next("CtiDialer", attempt)` is the next event of that name
    (of a UserEvent: its own) that is about this attempt. No server of ours hears or says anything here."""
    reader, writer = await asyncio.open_connection(centre.pbx.host, centre.pbx.ami_port, limit=2**22)
    log_in = (
        f"Action: Login\r\nUsername: {centre.pbx.admin_username}\r\nSecret: {centre.pbx.admin_secret}\r\n\r\n"
    )
    writer.write(log_in.encode())
    await reader.readuntil(b"Authentication accepted")
    heard: list[dict[str, str]] = []

    def fits(event: Mapping[str, str], name: str, attempt: str) -> bool:
        named = name in (event.get("Event"), event.get("UserEvent"))
        return named and attempt in (event.get("Attempt"), event.get("Uniqueid"))

    async def next(name: str, attempt: str) -> dict[str, str]:
        async with asyncio.timeout(30):
            while True:
                for place, event in enumerate(heard):
                    if fits(event, name, attempt):
                        return heard.pop(place)
                block = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
                heard.append(dict(line.split(": ", 1) for line in block.splitlines() if ": " in line))

    try:
        yield next
    finally:
        writer.close()


async def all_campaigns_stop(centre: Centre) -> None:
    """Between two tests."""
    rows = await centre.fetch("SELECT id FROM campaigns WHERE state <> 'stopped'")
    for row in rows:
        await state(centre, row["id"], "stopped")
    with suppress(Exception):
        await centre.admin("Hangup", Channel="/^PJSIP.trunk-/", Cause="16")


# ------------------------------------------------------------------------------------------------ Asterisk's own record


def keep_cdr(centre: Centre) -> None:
    """Lets the PBX write its call records to a file."""
    folder = centre.pbx.run_dir / "log" / "cdr-csv"
    folder.mkdir(parents=True, exist_ok=True)
    give(folder)
    centre.pbx.cli("module load cdr_csv.so")


def cdr_of(centre: Centre) -> dict[str, list[str]]:
    """Asterisk's own record of each channel: its unique id → the dispositions of its records, in order."""
    rows: dict[str, list[str]] = {}
    for path in centre.pbx.run_dir.rglob("Master.csv"):
        with path.open(newline="") as file:
            for row in csv.reader(file):
                rows.setdefault(row[16], []).append(row[14])
    return rows


def seconds_of(centre: Centre, channel: str) -> int:
    """For how long a channel was up, by Asterisk's own record."""
    for path in centre.pbx.run_dir.rglob("Master.csv"):
        with path.open(newline="") as file:
            for row in csv.reader(file):
                if row[16] == channel:
                    return int(row[13])
    raise AssertionError(f"Asterisk has no record of {channel}")


ANSWERED = frozenset({"connected", "answered", "abandoned", "agent_error", "machine", "fax"})


async def as_asterisk_says(centre: Centre, rows: Sequence[Mapping[str, Any]]) -> None:
    """Asserts that each attempt was one call at Asterisk, answered or not as its outcome says."""
    deadline = time.monotonic() + 10
    while missing := {row["id"] for row in rows if row["outcome"] != "failed"} - cdr_of(centre).keys():
        assert time.monotonic() < deadline, f"Asterisk has no record of {missing}"
        await asyncio.sleep(0.1)
    records = cdr_of(centre)
    for row in rows:
        said = set(records.get(row["id"], ()))
        match row["outcome"]:
            case "unknown":
                continue
            case "busy":
                right = said == {"BUSY"}
            case "congestion":
                right = said <= {"CONGESTION", "FAILED"}
            case outcome if outcome in ANSWERED:
                right = "ANSWERED" in said
            case _:
                right = said <= {"NO ANSWER", "FAILED"}
        assert right, (row["outcome"], row["cause"], said)


async def quieted(centre: Centre) -> None:
    """Between two tests: no campaign runs, nobody is off-hook, nobody calls."""
    await all_campaigns_stop(centre)
    olga = await centre.screen("olga")
    for login in ("anna", "ben", "cleo", "dora"):
        if olga.picture.agents[login]["off_hook"]:
            await olga.ask("agent.set_off_hook", agent=login, off_hook=False)
    await centre.quiet()
