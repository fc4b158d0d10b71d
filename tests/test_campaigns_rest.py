"""Campaigns over REST and `cti campaigns` on a real database: who may what, versions, refusals with all their reasons,
schedules carried out, how they go, and the same numbers in every form."""

from __future__ import annotations

import asyncio
import csv
import io
import math
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import aiohttp
import asyncpg
import msgspec
import pytest
from typer.testing import CliRunner

import dialer.management.rest
from cti.__main__ import app
from cti.audience import Audience
from cti.facts import AgentState, Fact
from cti.people import Agent, Directory, QueueAssignment, Team
from cti.views import AgentView
from dialer.forecasting.plans import Plans
from dialer.law import profiles
from dialer.management.desk import CampaignDesk, House, law_by
from dialer.management.live_view import LiveView
from tests.campaign_attempts import Attempt, a_list, added_up, by_chance, emptied, write
from tests.web_stage import Stage

NEW = {
    "name": "Spring",
    "mode": "predictive",
    "profile": "US",
    "settings": {"queue": "main:sales", "message": "who-called", "trunks": ["carrier"]},
}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Dials:
    """What would dial: is told to read campaigns again."""

    refreshed: list[int] = field(default_factory=list)

    async def refresh(self, campaign_id: int) -> None:
        self.refreshed.append(campaign_id)

    def view(self, _campaign_id: int) -> None:
        return None


@dataclass
class Office:
    """All that belongs to campaigns, served on a free port."""

    stage: Stage
    pool: asyncpg.Pool[asyncpg.Record]
    desk: CampaignDesk
    live: LiveView
    dials: Dials
    clock: Clock
    facts: list[Fact]
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: Any = None, *, who: str = "sue", version: Any = None, **query: str
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {who}-token"} | ({"If-Match": f'"{version}"'} if version else {})
        async with self.http.request(
            method, f"{self.stage.url}/api/v1{path}", json=body, params=query, headers=headers
        ) as answer:
            if answer.content_type in ("application/json", "application/problem+json"):
                return answer.status, await answer.json(content_type=None)
            return answer.status, await answer.text()

    async def made(self, **more: Any) -> int:
        status, told = await self.ask("POST", "/campaigns", {**NEW, **more})
        assert status == 201, told
        return int(told["view"]["id"])

    async def ready(self, **more: Any) -> int:
        """A campaign that could start."""
        id = await self.made(**more)
        async with self.pool.acquire() as db:
            await a_list(db, id, 10, name=f"List of {id}")
        return id

    async def step(self, id: int, step: str, **more: Any) -> tuple[int, Any]:
        return await self.ask("POST", f"/campaigns/{id}/{step}", {}, **more)

    async def state(self, id: int) -> str:
        return str((await self.ask("GET", f"/campaigns/{id}"))[1]["view"]["state"])

    async def cli(self, *words: str, key: str = "sue-token") -> tuple[int, str, str]:
        given = {"CTI_URL": self.stage.url, "CTI_API_KEY": key}
        told = await asyncio.to_thread(CliRunner().invoke, app, ["campaigns", *words], env=given)
        return told.exit_code, told.stdout, told.stderr


def at_work(login: str, state: AgentState, clock: Clock) -> AgentView:
    return AgentView(
        agent=login, name=login, team="sales", state=state, reason=None, since=clock(), by=login, why="", pending=None,
        until=None, call=None, device=None, reachable=True, queues=("main:sales",),
    )  # fmt: skip


async def sounds_missing(pbx: str, names: Iterable[str]) -> tuple[str, ...]:
    """As a PBX says it that has every sound but one."""
    return tuple(name for name in names if (pbx, name) == ("main", "gone"))


@asynccontextmanager
async def office(url: str) -> AsyncIterator[Office]:
    clock, facts, dials = Clock(), list[Fact](), Dials()
    directory = Directory()
    queues = (QueueAssignment(queue="main:sales"),)
    directory.load(
        [Agent(login=login, name=login, team="sales", queues=queues) for login in ("anna", "ben")],
        [Team(id="sales", name="Sales", queues=frozenset({"main:sales"})), Team(id="other", name="Other")],
    )
    law = law_by(profiles.load())
    async with emptied(url), asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        desk = CampaignDesk(
            pool=lambda: pool,
            house=House(
                directory=directory,
                pbxs=lambda: ("main",),
                knows_queue=lambda queue: queue in ("main:sales", "main:support"),
                trunks={"main": frozenset({"carrier"})},
                verified=frozenset({"+12125550100"}),
                law=law,
                missing_sounds=sounds_missing,
                logged_on=lambda login: login == "anna",
            ),
            runner=lambda: dials,
            publish=facts.extend,
            now=clock,
        )
        live = LiveView(
            pool=lambda: pool,
            desk=desk,
            law=law,
            agents=lambda: [at_work("anna", AgentState.READY, clock), at_work("ben", AgentState.BUSY, clock)],
            runner=lambda: dials,
            zone=ZoneInfo("America/New_York"),
            publish=facts.extend,
            now=clock,
        )
        plans = Plans(now=clock)
        stage = Stage()
        web = stage.app(
            *dialer.management.rest.routes(
                pool=lambda: pool, desk=desk, live=live, plans=plans, directory=directory, law=law,
                zone="America/New_York", now=clock,
            ),
            translate=dialer.management.rest.TRANSLATE,
        )  # fmt: skip
        async with stage.serve(web), aiohttp.ClientSession() as http:
            yield Office(stage, pool, desk, live, dials, clock, facts, http)
        await plans.close()


@pytest.fixture
async def here(tables: str) -> AsyncIterator[Office]:
    async with office(tables) as made:
        yield made


async def test_a_campaign_is_made_changed_by_its_version_and_removed(here: Office) -> None:
    id = await here.made(conversions=["Sale"])
    status, told = await here.ask("GET", f"/campaigns/{id}")
    assert (status, told["view"]["state"], told["conversions"], told["schedule"]) == (
        200,
        "draft",
        ["Sale"],
        None,
    )
    assert told["settings"]["queue"] == "main:sales"
    edit = {"settings": {"max_lines": 40, "trunks": None}, "priority": 9, "conversions": []}
    status, told = await here.ask("PATCH", f"/campaigns/{id}", edit, version=1)
    assert (status, told["settings"]["max_lines"], told["settings"]["trunks"]) == (200, 40, [])
    assert (told["view"]["priority"], told["view"]["version"], told["conversions"]) == (9, 2, [])
    assert (await here.ask("PATCH", f"/campaigns/{id}", edit, version=1))[0] == 412
    assert (await here.ask("PATCH", f"/campaigns/{id}", edit))[0] == 428
    for wrong in ({"max_lines": 0}, {"nonsense": 1}, {"min_ring_s": 50}):
        status, told = await here.ask("PATCH", f"/campaigns/{id}", {"settings": wrong}, version=2)
        assert (status, told["code"]) == (422, "bad_value"), told
    assert (await here.ask("POST", "/campaigns", NEW))[1]["code"] == "name_taken"
    refused = "INSERT INTO do_not_call (number, scope, campaign_id, added_by) VALUES (442079460151, 'campaign', $1, 'x')"
    await here.pool.execute(refused, id)
    status, told = await here.ask("DELETE", f"/campaigns/{id}", version=2)
    assert (status, "people asked not to be called for it" in told["detail"]) == (409, True)
    await here.pool.execute("DELETE FROM do_not_call WHERE campaign_id = $1", id)
    assert (await here.ask("DELETE", f"/campaigns/{id}", version=2))[0] == 204
    assert (await here.ask("GET", f"/campaigns/{id}"))[0] == 404
    assert [fact.TYPE for fact in here.facts] == ["campaign.added", "campaign.changed", "campaign.removed"]
    assert here.dials.refreshed == [id, id, id]
    trail = await here.pool.fetch("SELECT actor, action FROM audit ORDER BY id DESC LIMIT 3")
    assert [tuple(row) for row in trail] == [
        ("sue", "campaign.removed"),
        ("sue", "campaign.changed"),
        ("sue", "campaign.added"),
    ]


async def test_settings_that_loosen_the_law_are_refused_with_the_rule(here: Office) -> None:
    loose = {**NEW, "settings": {"queue": "main:sales", "min_ring_s": 5, "abandonment_cap": 0.08}}
    status, told = await here.ask("POST", "/campaigns", loose)
    assert (status, told["code"]) == (422, "against_the_law")
    assert "min_ring_s" in told["detail"]
    assert "abandonment_cap" in told["detail"]
    assert "16 CFR 310.4" in told["detail"]
    assert (await here.ask("POST", "/campaigns", {**NEW, "profile": "XX"}))[1]["code"] == "unknown_profile"
    assert (await here.ask("POST", "/campaigns", {**NEW, "settings": {"team": "nobody"}}, who="root"))[1][
        "code"
    ] == ("unknown_team")


async def test_supervisors_have_the_campaigns_of_their_teams_and_agents_none(here: Office) -> None:
    id = await here.made()
    status, told = await here.ask(
        "POST", "/campaigns", {**NEW, "name": "Theirs", "settings": {"team": "other"}}, who="root"
    )
    assert status == 201
    theirs = told["view"]["id"]
    assert [one["id"] for one in (await here.ask("GET", "/campaigns"))[1]["items"]] == [id]
    assert [one["id"] for one in (await here.ask("GET", "/campaigns", who="root"))[1]["items"]] == [
        id,
        theirs,
    ]
    for method, path, body in (
        ("GET", "", None),
        ("POST", "/stop", {}),
        ("PATCH", "", {"priority": 1}),
        ("DELETE", "", None),
        ("GET", "/now", None),
        ("GET", "/obstacles", None),
        ("POST", "/plans", {}),
    ):
        assert (await here.ask(method, f"/campaigns/{theirs}{path}", body, version=1))[0] == 404, path
        assert (await here.ask(method, f"/campaigns/{id}{path}", body, who="anna", version=1))[0] == 403, path
    assert (await here.ask("PATCH", f"/campaigns/{id}", {"settings": {"team": "other"}}, version=1))[0] == 403
    assert (await here.ask("GET", "/campaign_figures", campaign=str(theirs)))[0] == 404


async def test_a_start_is_refused_with_all_reasons_at_once(here: Office) -> None:
    settings = {
        "queue": "main:support",
        "trunks": ["nowhere"],
        "caller_ids": [{"number": "+12125559999"}],
    }
    status, told = await here.ask("POST", "/campaigns", {**NEW, "settings": settings}, who="root")
    id = told["view"]["id"]
    status, told = await here.step(id, "start", who="root")
    assert (status, told["code"]) == (409, "cannot_start")
    found = (await here.ask("GET", f"/campaigns/{id}/obstacles", who="root"))[1]["items"]
    assert [one["code"] for one in found] == [
        *("no_agents", "unknown_trunk", "unverified_caller_id", "against_the_law", "no_list"),
    ]
    assert all(one["says"] in told["detail"] for one in found)
    assert await here.pool.fetchval("SELECT state FROM campaigns WHERE id = $1", id) == "draft"


async def test_lists_assigned_to_some_are_warned_of_and_a_campaign_with_none_for_its_agents_does_not_start(
    here: Office,
) -> None:
    id = await here.ready()
    assign = """UPDATE call_lists SET settings = jsonb_build_object('assigned', jsonb_build_object('agents', $2::text[]))
                WHERE campaign_id = $1"""
    await here.pool.execute(assign, id, ["anna"])
    _, told = await here.ask("GET", f"/campaigns/{id}/obstacles")
    assert (told["items"], [one["code"] for one in told["warnings"]]) == (
        [],
        ["no_register", "amd_wait", "list_by_queue"],
    )  # ben is on-hook
    assert (
        "no edition of the register us-national is loaded, so nobody is called, but for"
        in told["warnings"][0]["says"]
    )
    assert "counts from the end of the greeting, as the profile US has it" in told["warnings"][1]["says"]
    await here.pool.execute(assign, id, ["zoe"])
    status, told = await here.step(id, "start")
    assert (status, "assigned to nobody who works for the campaign (zoe)" in told["detail"]) == (409, True)
    await here.pool.execute(assign, id, ["anna", "ben"])
    _, told = await here.ask("GET", f"/campaigns/{id}/obstacles")
    assert (told["items"], [one["code"] for one in told["warnings"]]) == ([], ["no_register", "amd_wait"])

    async def told_of(edition: date) -> list[str]:
        await here.pool.execute(
            """INSERT INTO do_not_call_editions (register, country, edition, state, loaded_by)
               VALUES ('us-national', 'US', $1, 'active', 'x')
               ON CONFLICT (register) WHERE state = 'active' DO UPDATE SET edition = excluded.edition""",
            edition,
        )
        return [one["says"] for one in (await here.ask("GET", f"/campaigns/{id}/obstacles"))[1]["warnings"]]

    try:
        assert len(await told_of(date(2026, 2, 20))) == 1
        assert (await told_of(date(2026, 2, 3)))[0].startswith("after 2026-03-06 nobody is called, but for")
        assert "of 2026-01-01 is older than the 31 days allowed" in (await told_of(date(2026, 1, 1)))[0]
    finally:
        await here.pool.execute("TRUNCATE do_not_call_editions")
    await here.pool.execute("UPDATE campaigns SET profile = 'DE', settings = settings || '{\"amd\": false}'")
    told = (await here.ask("GET", f"/campaigns/{id}/obstacles"))[1]["warnings"]
    assert [one["code"] for one in told] == ["no_consents"]
    assert "no consent to calls for marketing is on record" in told[0]["says"]


async def test_started_changed_while_it_runs_drained_and_stopped_when_the_last_call_is_over(
    here: Office,
) -> None:
    id = await here.ready()
    status, told = await here.step(id, "start")
    assert (status, told["view"]["state"], told["view"]["why"]) == (200, "running", "start by sue")
    assert (await here.step(id, "start"))[1]["code"] == "wrong_state"
    version = told["view"]["version"]
    status, told = await here.ask("PATCH", f"/campaigns/{id}", {"mode": "power"}, version=version)
    assert (status, told["code"]) == (409, "at_work")
    status, told = await here.ask(
        "PATCH", f"/campaigns/{id}", {"settings": {"max_lines": 7}}, version=version
    )
    assert status == 200
    (attempt,) = by_chance(random.Random(1), (id,), 1, here.clock(), 0.1)
    attempt.outcome = None
    await write(here.pool, [attempt])
    assert (await here.step(id, "drain"))[1]["view"]["state"] == "draining"
    await here.desk.look()
    assert await here.state(id) == "draining"
    await here.pool.execute("UPDATE attempts SET state = 'ended', outcome = 'busy', ended = now()")
    await here.desk.look()
    assert await here.state(id) == "stopped"
    changes = [msgspec.to_builtins(fact) for fact in here.facts if fact.TYPE == "campaign.state_changed"]
    assert [(one["old"], one["new"], one["by"]) for one in changes] == [
        ("draft", "running", "sue"),
        ("running", "draining", "sue"),
        ("draining", "stopped", "schedule"),
    ]


async def test_a_schedule_is_carried_out_also_by_another_server_and_waits_for_what_is_in_the_way(
    here: Office,
) -> None:
    id = await here.made()
    body = {
        "zone": "America/New_York",
        "days": ["wed", "thu"],
        "hours": ["09:00-12:00"],
        "last": "2026-03-05",
    }
    status, told = await here.ask("PUT", f"/campaigns/{id}/schedule", body, version=1)
    assert (status, told["view"]["next_step"], told["view"]["next_at"]) == (
        200,
        "start",
        "2026-03-04T14:00:00Z",
    )
    here.clock.now = datetime(2026, 3, 4, 14, 0, 5, tzinfo=UTC)
    await here.desk.look()
    told = (await here.ask("GET", f"/campaigns/{id}"))[1]["view"]
    assert told["state"] == "draft"
    assert "no list" in told["why"]
    async with here.pool.acquire() as db:
        await a_list(db, id, 3)
    await here.desk.look()
    assert await here.state(id) == "draft"  # tried again in a minute
    here.clock.now += timedelta(minutes=2)
    await here.desk.look()
    assert await here.state(id) == "running"
    await here.step(id, "pause")
    here.clock.now += timedelta(minutes=2)
    await here.desk.look()
    assert await here.state(id) == "paused"  # what a person did stands until the schedule's next step
    here.clock.now = datetime(
        2026, 3, 5, 16, 59, tzinfo=UTC
    )  # away meanwhile: one end and one beginning missed
    await here.desk.look()
    assert await here.state(id) == "running"
    here.clock.now = datetime(2026, 3, 5, 17, 0, tzinfo=UTC)
    await here.desk.look()
    assert await here.state(id) == "draining"  # the last of all
    for wrong in (
        {"hours": ["12:00-09:00"]},
        {"zone": "Mars/Base"},
        {"hours": ["09:00-12:00", "11:00-13:00"]},
        {"first": "2026-03-06"},
        {"days": []},
    ):
        version = (await here.ask("GET", f"/campaigns/{id}"))[1]["view"]["version"]
        assert (await here.ask("PUT", f"/campaigns/{id}/schedule", body | wrong, version=version))[
            0
        ] == 422, wrong


async def test_live_view_report_csv_and_chart_have_the_same_numbers(here: Office) -> None:
    id = await here.ready(conversions=["Sale"])
    await here.step(id, "start")
    attempts = by_chance(random.Random(4), (id,), 400, here.clock() - timedelta(hours=6), 6.0)
    for one in attempts:
        if one.outcome is None and random.Random(one.id).random() < 0.8:
            one.outcome = "busy"
    await write(here.pool, attempts)
    await here.live.look()
    (told,) = [fact.now for fact in here.facts if fact.TYPE == "campaign.goes"]
    now = (await here.ask("GET", f"/campaigns/{id}/now"))[1]
    assert msgspec.to_builtins(told.today) == now["today"]
    midnight = datetime(2026, 3, 4, 5, 0, tzinfo=UTC)
    today = [one for one in attempts if one.committed >= midnight]
    assert now["today"] == msgspec.to_builtins(added_up(today, frozenset({"Sale"})))
    assert now["agents"] == {"busy": 1, "ready": 1}
    assert now["calls"]["ringing"] == now["lines"] == sum(one.outcome is None for one in attempts)
    window = added_up(attempts)
    assert (now["live"], now["lost"], now["cap"]) == (window.live, window.abandoned, 0.03)
    lost = math.ceil((window.abandoned - 0.03 * window.live) / 0.97)
    assert now["budget"].startswith(f"{lost} calls too many are lost until Fri 03 Apr ")
    assert (now["contacts"], now["may_be_lost"]) == ({"open": 10, "untried": 10}, -lost)
    before = len(here.facts)
    await here.live.look()
    assert len(here.facts) == before  # nothing has changed, nothing is told
    report = (await here.ask("GET", "/campaign_figures", campaign=str(id), by="total"))[1]
    assert report["items"][0]["sums"] == now["today"]
    hours = (await here.ask("GET", "/campaign_figures", campaign=str(id), by="hour"))[1]["items"]
    text = (await here.ask("GET", "/campaign_figures", campaign=str(id), by="hour", format="csv"))[1]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["hour"] for row in rows] == [one["title"] for one in hours]
    for name in ("attempts", "answered", "live", "connected", "abandoned", "conversions"):
        assert [int(row[name]) for row in rows] == [one["sums"][name] for one in hours]
        assert sum(int(row[name]) for row in rows) == now["today"][name]
    picture = (await here.ask("GET", "/campaign_figures", campaign=str(id), by="hour", format="svg"))[1]
    titles = [
        one.text or "" for one in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}title")
    ]
    assert [title.rsplit(": ", 1)[1].split(", ")[0] for title in titles] == [
        f"{one['sums']['attempts']} calls" for one in hours
    ]


async def test_who_is_told_how_a_campaign_goes(here: Office) -> None:
    id = await here.ready()
    await here.step(id, "start")
    await here.live.look()
    directory = Directory()
    directory.load([], [Team(id="sales", name="Sales", queues=frozenset({"main:sales"}))])
    audience = Audience(directory, agents_in=lambda call: ())
    topics = {fact.TYPE: audience(fact) for fact in here.facts}
    assert topics["campaign.state_changed"] == {"admin", "team:sales", "queue:main:sales"}
    assert topics["campaign.goes"] == {"admin", "team:sales"}


async def test_the_command_line_does_all_of_it_and_says_what_is_wrong(here: Office) -> None:
    code, out, err = await here.cli(
        *("create", "Spring", "--mode", "predictive", "--profile", "US"),
        *("--set", "queue=main:sales", "--set", "message=who-called"),
    )
    assert (code, err) == (0, ""), err
    assert "a draft" in out
    code, out, err = await here.cli("start", "Spring")
    assert code == 1
    assert "no list" in err
    id = here.desk.records()[0].campaign.id
    async with here.pool.acquire() as db:
        await a_list(db, id, 5)
    code, out, err = await here.cli("start", "Spring", "--json")
    assert (code, msgspec.json.decode(out)["view"]["state"]) == (0, "running")
    assert (await here.cli("set", "Spring", "max_lines=33", "priority=4"))[0] == 0
    record = here.desk.records()[0].campaign
    assert (record.settings.max_lines, record.priority, record.settings.queue) == (33, 4, "main:sales")
    code, out, err = await here.cli("set", "Spring", "max_lines=0")
    assert (code, "max_lines" in err) == (2, True)
    code, out, err = await here.cli("watch", "Spring", "--for", "0.1")
    assert (code, "Spring running: agents 1 busy, 1 ready" in out) == (0, True), out + err
    code, out, err = await here.cli("report", "--csv")
    assert (code, out.splitlines()[0].split(",")[:3]) == (0, ["campaign", "name", "total"])
    code, out, err = await here.cli("pause", "Sprong")
    assert (code, "there is no campaign Sprong" in err) == (1, True)
    code, out, err = await here.cli("list", key="anna-token")
    assert (code, "you are agent" in err) == (1, True)


async def test_wrap_up_and_dispositions_are_the_campaigns_own_and_conversions_are_counted_by_them(
    here: Office,
) -> None:
    """Changed from the command line while it runs, told to clients, in the audit; and counted by the category they have."""
    id = await here.ready(conversions=["Trial"])
    await here.step(id, "start")
    code, out, err = await here.cli("wrap-up", "Spring")
    assert (code, out, err) == (0, "wrap-up: 30 s, a disposition may be given, then ready\n", "")
    code, out, err = await here.cli(
        "wrap-up", "Spring", "--seconds", "20", "--extension", "60", "--mandatory"
    )
    assert "wrap-up: 20 s, an agent may add 60 s, ends only with a disposition, then ready" in out, err
    later = ("--label", "Call again", "--category", "call_back", "--after", "240")
    assert (await here.cli("disposition", "Spring", "later", *later))[0] == 0
    assert (await here.cli("disposition", "Spring", "Sale", "--category", "conversion"))[0] == 0
    assert (await here.cli("disposition", "Spring", "gone", "--category", "finished"))[0] == 0
    code, out, err = await here.cli("disposition", "Spring", "never", "--category", "do_not_call")
    assert "never        never       do not call  not called any more: everywhere" in out
    assert "later        Call again  call back    called again after 4 hours" in out
    assert (await here.cli("disposition", "Spring", "Sale", "--label", "Sold"))[0] == 0
    assert (await here.cli("disposition", "Spring", "gone", "--remove"))[0] == 0
    for words, says in (
        (("Sale", "--after", "5"), "again_after_minutes is for dispositions after which is called again"),
        (("other",), "other is new: say its --category"),
        (("other", "--category", "won"), "Input should be"),
        (("gone", "--remove"), "there is no disposition gone: later, Sale, never"),
    ):
        code, out, err = await here.cli("disposition", "Spring", *words)
        assert (code > 0, says in err) == (True, True), err
    told = (await here.ask("GET", f"/campaigns/{id}"))[1]
    assert told["view"]["wrap_up"] == {
        "queue": "main:sales", "seconds": 20.0, "then_ready": True, "mandatory": True, "extension": 60.0,
        "dispositions": [
            {"code": "later", "label": "Call again", "category": "call_back"},
            {"code": "Sale", "label": "Sold", "category": "conversion"},
            {"code": "never", "label": "never", "category": "do_not_call"},
        ],
    }  # fmt: skip
    changes = [fact for fact in here.facts if fact.TYPE == "campaign.changed"]
    assert [len(fact.view.wrap_up.dispositions) for fact in changes] == [0, 1, 2, 3, 4, 4, 3]
    trail = await here.pool.fetch("SELECT detail FROM audit WHERE action = 'campaign.changed' ORDER BY id")
    assert [msgspec.json.decode(row["detail"])["changed"] for row in trail[-7:]] == [
        ["wrap_up"],
        *[["dispositions"]] * 6,
    ]
    said = {"Sale": 3, "Trial": 2, "later": 4, "never": 1}
    attempts = [
        Attempt(id, here.clock() - timedelta(hours=1), "answered", agent="anna", talk=60.0, disposition=word)
        for word, times in said.items()
        for _ in range(times)
    ]
    await write(here.pool, attempts)
    now = (await here.ask("GET", f"/campaigns/{id}/now"))[1]
    assert (now["today"]["conversions"], now["dispositions"]) == (5, said)
    assert now["converted"] == {"Sale": 3, "Trial": 2}
    total = (await here.ask("GET", "/campaign_figures", campaign=str(id)))[1]["items"][0]
    assert (total["conversion"], total["dispositions"], total["converted"]) == (0.5, said, now["converted"])
    assert total["categories"] == {"call_back": 4, "conversion": 3, "do_not_call": 1}
    by = {}
    for what in ("disposition", "category"):
        rows = (await here.ask("GET", "/campaign_figures", campaign=str(id), by=what))[1]["items"]
        by[what] = {row["title"]: (row["sums"]["attempts"], row["sums"]["conversions"]) for row in rows}
    assert by["disposition"] == {"Sold": (3, 3), "Trial": (2, 2), "Call again": (4, 0), "never": (1, 0)}
    assert by["category"] == {
        "none": (2, 2),
        "call back": (4, 0),
        "conversion": (3, 3),
        "do not call": (1, 0),
    }
    (row,) = csv.DictReader(io.StringIO((await here.cli("report", "Spring", "--csv"))[1]))
    assert (row["converted Sale"], row["disposition later"], row["category conversion"]) == ("3", "4", "3")
    out = (await here.cli("report", "Spring"))[1]
    assert "Spring: converted 3 Sold, 2 Trial; 4 Call again, 1 never" in out
    for what, head, row in (
        (
            "said",
            "campaign  hour              calls  Call again  Sold  Trial  never",
            ("10", "4", "3", "2", "1"),
        ),
        ("outcomes", "campaign  hour              calls  answered", ("10", "10")),
    ):
        lines = (await here.cli("report", "Spring", "--by", "hour", "--count", what))[1].splitlines()
        assert (lines[0], tuple(lines[1].split()[3:])) == (head, row)
    assert "--count is one of: outcomes, said" in (await here.cli("report", "--count", "x"))[2]
    out = (await here.cli("show", "Spring"))[1]
    assert "success: Trial, and those of the category conversion: Sale" in out
    await here.cli("wrap-up", "Spring", "--as-queue")
    assert (await here.ask("GET", f"/campaigns/{id}"))[1]["view"]["wrap_up"]["seconds"] == 30.0


async def test_a_plan_is_made_beside_the_server_read_by_its_name_and_ended_when_nobody_wants_it(
    here: Office,
) -> None:
    id = await here.ready(mode="power")
    status, told = await here.ask("POST", f"/campaigns/{id}/plans", {"seconds": 120, "agents": 300})
    assert (status, told["state"], told["doing"]) == (202, "running", "counting")
    assert (await here.ask("DELETE", f"/campaigns/{id}/plans/{told['id']}"))[0] == 204
    assert (await here.ask("GET", f"/campaigns/{id}/plans/{told['id']}"))[1]["state"] == "cancelled"
    code, out, err = await here.cli("plan", "Spring")
    assert (code, "10 the number lies in DE, the profile US is for US" in err) == (1, True), err
    await here.pool.execute("UPDATE zone_groups SET country = 'US', zones = '{America/Los_Angeles}'")
    await here.pool.execute(
        """INSERT INTO do_not_call_editions (register, country, edition, state, loaded_by)
           VALUES ('us-national', 'US', '2026-03-01', 'active', 'sue')"""
    )
    code, out, err = await here.cli(
        *(
            "plan",
            "Spring",
            "--by",
            "2026-03-04T20:00Z",
            "--abandonment",
            "2.5",
            "--for",
            "1",
            "--agents",
            "2",
        ),
    )
    assert code == 1, err
    assert "NOT in time" in out
    assert "10 contacts may be called, 10 never tried" in out
    assert "wrap-up 20 s, from 0 calls" in out
    assert "the zones are open in the rota's hours: 0% at Wed 09:00 to 100% at Wed 11:00" in out
    (answer,) = [
        one["answer"]
        for one in (await here.ask("GET", f"/campaigns/{id}/plans"))[1]["items"]
        if one["answer"]
    ]
    assert answer["expected"][0]["agents"] == 2
    assert (answer["callable"], answer["dropped"]) == (10, [])
    assert {one["doing"] for one in (await here.ask("GET", f"/campaigns/{id}/plans"))[1]["items"]} == {""}
    assert (await here.cli("wrap-up", "Spring", "--seconds", "0"))[0] == 0
    # The same agents work for another campaign, which comes first; the list's quota is nearly reached.
    autumn = await here.ready(name="Autumn", priority=9)
    await here.pool.execute("UPDATE campaigns SET state = 'running' WHERE id = $1", autumn)
    await here.pool.execute(
        """UPDATE call_lists SET settings = '{"quota": [{"counts": "attempts", "most": 4}]}' WHERE campaign_id = $1""",
        id,
    )
    await here.desk.refresh()
    out = (await here.cli("plan", "Spring", "--for", "1", "--agents", "2", "--no-changes"))[1]
    assert "ringing" not in out
    assert "wrap-up 0 s, from 0 calls" in out  # the campaign's own rule, whatever its queue's calls took
    assert f"list List of {id}: quota reached (4 attempts)" in out
    assert "9 of its contacts are not called any more" in out  # four were called, one was reached
    assert "Autumn (priority 9) comes first: 2 agents in its hours, until its 10 contacts are called" in out
    await here.pool.execute("DELETE FROM do_not_call_editions")
    empty = await here.made(name="Empty")
    code, out, err = await here.cli("plan", str(empty))
    assert (code, "nobody on its lists is left" in err) == (1, True)
    for wrong in (
        {"rota": []},
        {"zone": "Mars/Base"},
        {"rota": [{"hours": "12:00-09:00", "agents": 1}]},
        {"seconds": 0},
    ):
        assert (await here.ask("POST", f"/campaigns/{id}/plans", wrong))[0] == 422, wrong


async def test_detection_is_measured_by_verdict_and_cause(here: Office) -> None:
    id = await here.made()
    told = [("HUMAN", "HUMAN-800-800", 1.0 + n / 10, "connected", "") for n in range(4)]
    told += [("machine", "LONGGREETING-1500-1500", 2.5, "machine", "message_left")]
    told += [
        ("MACHINE", "MAXWORDS-4-3", 3.0, "machine", ""),
        ("NOTSURE", "TOOLONG-5000", 5.0, "answered", ""),
    ]
    attempts = [Attempt(campaign=id, committed=here.clock(), outcome=one[3]) for one in told]
    attempts.append(Attempt(campaign=id, committed=here.clock(), outcome="abandoned"))
    async with here.pool.acquire() as db:
        await write(db, attempts)
        for attempt, (amd, cause, seconds, _, detail) in zip(attempts, told, strict=False):
            await db.execute(
                """UPDATE attempts SET amd = $2, amd_cause = $3, amd_s = $4, detail = $5,
                          answered = coalesce(answered, ringing) WHERE id = $1""",
                *(attempt.id, amd, cause, seconds, detail),
            )
    status, found = await here.ask("GET", f"/campaigns/{id}/detection")
    assert (status, found["answered"], found["looked_at"], found["undecided"]) == (200, 8, 7, 1)
    assert (found["people"], found["machines"], found["not_sure"], found["faxes"]) == (4, 2, 1, 0)
    assert (found["talked"], found["hung_up"], found["messages"]) == (4, 1, {"message_left": 1})
    assert [(one["verdict"], one["cause"], one["calls"]) for one in found["verdicts"]] == [
        ("HUMAN", "HUMAN", 4),
        ("MACHINE", "LONGGREETING", 1),
        ("MACHINE", "MAXWORDS", 1),
        ("NOTSURE", "TOOLONG", 1),
    ]
    assert (found["verdicts"][0]["p50_s"], found["verdicts"][3]["p95_s"]) == (1.15, 5.0)
    code, out, _ = await here.cli("detection", NEW["name"])
    assert code == 0
    assert "detection decided on 7 of 8 answered calls, half of them within 1.3 s" in out
    assert "messages for machines: 1 message left" in out
    assert (await here.ask("GET", f"/campaigns/{id}/detection", who="anna"))[0] == 403
    code, out, _ = await here.cli("detection", NEW["name"], "--from", "2020-01-01")
    assert (code, "detection decided on none" in out) == (0, True)
    wrong = await here.ask("GET", f"/campaigns/{id}/detection", **{"from": "never"})
    assert (wrong[0], wrong[1]["code"]) == (422, "bad_value")
