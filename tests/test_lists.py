"""Call lists over real HTTP on a real PostgreSQL: files, contacts, merging and splitting, who may what, before a launch."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from crm import target_group_rest
from cti.customers_for_lists import CustomersForLists
from cti.database import Database
from cti.openapi import SUPERVISORS, Route
from cti.people import Actor, Agent, Directory, Role, Team
from dialer import lists
from dialer.call_lists import contacts, imports
from dialer.call_lists import rest as lists_rest
from dialer.call_lists.before_launch import before_launch, by_law, contacts_of
from dialer.call_lists.contacts import ContactFilter
from dialer.call_lists.import_desk import ImportDesk
from dialer.call_lists.quotas import KEPT, NEAR, Quotas
from dialer.calling.claims import Claims
from dialer.calling.picking import BY_INDEX, WHOLE, Place, Wanted, judged, search
from dialer.candidate import Candidate
from dialer.law import do_not_call
from dialer.law.desk import LawDesk
from dialer.law.known import check_all
from dialer.law.profiles import load
from dialer.law.why import why
from dialer.lists import Assigned, ListEdit, ListSettings, NewList, Quota, may_call, oversees
from dialer.management.settings import CampaignSettings, RetryRule
from dialer.verdict import Step, Verdict
from tests.list_files import consent, customers, gb, sheet, started
from tests.test_sheets import workbook
from tests.web_stage import Stage, Ticket

if TYPE_CHECKING:
    from cti.database import Pool

BOB = Actor(login="bob", name="Bob", role=Role.SUPERVISOR, teams=frozenset({"service"}))


@dataclass
class House:
    """The routes, and what stands behind them."""

    pool: Pool
    dsn: str
    stage: Stage
    http: aiohttp.ClientSession
    desk: ImportDesk

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        who: str = "root",
        match: int | None = None,
        status: int = 200,
    ) -> Any:
        headers = {"Authorization": f"Bearer {who}-token"}
        if match is not None:
            headers["If-Match"] = f'"{match}"'
        sent: dict[str, Any] = {"json": body} if not isinstance(body, bytes) else {"data": io.BytesIO(body)}
        if body is None:
            sent = {}
        async with self.http.request(
            method, self.stage.url + "/api/v1" + path, headers=headers, **sent
        ) as answer:
            text = await answer.text()
            assert answer.status == status, text
            return json.loads(text) if text and answer.content_type.endswith("json") else text

    async def done(self, id: int) -> Any:
        """Waits until an import is through."""
        async with asyncio.timeout(100):
            while (view := await self.ask("GET", f"/list-imports/{id}"))["state"] == "running":
                await asyncio.sleep(0.02)
        return view


@pytest.fixture
async def pool(migrated: str) -> AsyncIterator[Pool]:
    db = Database(migrated, size=6)
    await db.open()
    yield db.pool
    await db.close()


async def overseen(_actor: Actor, campaigns: Collection[int]) -> Collection[int]:
    return campaigns


@pytest.fixture
async def house(pool: Pool, migrated: str) -> AsyncIterator[House]:
    directory = Directory()
    directory.load(
        [Agent(login="anna", name="Anna", team="sales")],
        [Team(id="sales", name="S"), Team(id="service", name="V")],
    )
    desk = ImportDesk(lambda: pool, migrated, every=0.2)
    working = asyncio.create_task(desk.run())
    stage = Stage()
    stage.tokens["bob-token"] = Ticket(BOB)
    routes: list[Route] = [
        *lists_rest.routes(
            pool=lambda: pool,
            directory=directory,
            desk=desk,
            theirs=overseen,
            law=by_law(lambda: pool, load),
            profiles=load,
            target_groups=CustomersForLists(lambda: pool),
            largest=2 << 20,
        ),
        *target_group_rest.routes(pool=lambda: pool),
    ]
    app = stage.app(*routes, translate={**lists_rest.TRANSLATE, **target_group_rest.TRANSLATE})
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(stage.serve(app))
        http = await opened.enter_async_context(aiohttp.ClientSession())
        yield House(pool, migrated, stage, http, desk)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


# ------------------------------------------------------------------------------------------------------ files


async def test_a_file_from_upload_to_repair_and_undo(house: House) -> None:
    content = (
        b"Name;Telefon;Ort\n"
        + b"".join(f"P{n};0171 55{n:05d};Bonn\n".encode() for n in range(50))
        + b"X;12;=1+1\n"
    )
    sent = await house.ask("POST", "/list-imports?file=may.csv&country=DE", content, who="sue", status=201)
    assert sent["guess"]["columns"] == ["name", "phone", "data:city"]
    assert sent["preview"][0]["number"] == "+491715500000"
    id = sent["about"]["id"]
    await house.ask(
        "GET", f"/list-imports/{id}", who="bob", status=404
    )  # not started: only theirs who sent it
    shown = await house.ask(
        "POST", f"/list-imports/{id}/preview", {"settings": sent["settings"] | {"country": "GB"}}, who="sue"
    )
    assert shown["items"][0]["code"] == "bad_number"
    begun = await house.ask(
        "POST",
        f"/list-imports/{id}/start",
        {"name": "May", "settings": sent["settings"]},
        who="sue",
        status=202,
    )
    done = await house.done(id)
    assert (done["state"], done["added"], done["bad"], done["list"]) == ("done", 50, 1, begun["list"])
    rows = await house.ask("GET", f"/list-imports/{id}/bad-rows", who="sue")
    assert [(row["row"], row["code"]) for row in rows["items"]] == [(52, "bad_number")]
    given = await house.ask("GET", f"/list-imports/{id}/bad-rows.csv", who="sue")
    assert list(csv.reader(io.StringIO(given.lstrip("\ufeff")), delimiter=";"))[1][:3] == ["X", "12", "'=1+1"]
    undone = await house.ask("POST", f"/list-imports/{id}/undo", who="sue")
    assert (undone["removed"], undone["stayed"]) == (50, 0)
    actions = await house.pool.fetch("SELECT actor, action FROM audit ORDER BY id")
    assert [tuple(row) for row in actions] == [
        ("sue", "list_import.uploaded"),
        ("sue", "list_import.started"),
        ("sue", "list_import.bad_rows_read"),
        ("sue", "list_import.bad_rows_read"),
        ("sue", "list_import.undone"),
    ]


async def test_a_workbook_over_http_and_what_is_no_table(house: House, tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"a": [["x"]], "b": [["Name", "Mobile"], ["Zoë", 447911000001]]})
    sent = await house.ask(
        "POST", "/list-imports?file=a.xlsx&country=GB&sheet=b", path.read_bytes(), status=201
    )
    assert sent["about"]["format"]["sheets"] == ["a", "b"]
    assert sent["preview"][0]["number"] == "+447911000001"
    for content, says in (
        (b"", "empty"),
        (b"PK\x03\x04junk", "damaged"),
        (b"\x00\x01\x02" * 50, "neither CSV"),
    ):
        told = await house.ask("POST", "/list-imports?file=x&country=GB", content, status=422)
        assert (told["code"], says in told["detail"]) == ("not_a_sheet", True)
    told = await house.ask("POST", "/list-imports?file=x&country=GB", b"a,b\n" * (1 << 20), status=413)
    assert told["code"] == "too_large"
    assert await house.pool.fetchval("SELECT count(*) FROM list_imports") == 1  # nothing is left of those


async def test_an_import_that_a_server_left_is_gone_on_with(house: House) -> None:
    view = await started(house.pool, sheet(0, 300))  # nobody wakes the desk
    assert (await house.done(view.id))["added"] == 300


# ------------------------------------------------------------------------------------------------------ lists


async def test_a_list_from_its_making_to_its_end(house: House) -> None:
    made = await house.ask("POST", "/lists", {"name": "spring", "priority": 3}, who="sue", status=201)
    at = f"/lists/{made['id']}"
    assert (made["version"], made["contacts"]) == (1, {})
    assert (await house.ask("POST", "/lists", {"name": "spring"}, status=409))["code"] == "name_taken"
    assert (await house.ask("PATCH", at, {"campaign": 9}, match=1, status=409))["code"] == "no_campaign"
    settings = {
        "assigned": {"teams": ["sales"]},
        "recycling": {"busy": {"after_minutes": [10], "at_most": 2}},
        "quota": [{"counts": "connected", "most": 100, "per": "day"}],
    }
    changed = await house.ask("PATCH", at, {"settings": settings, "script": "Hello"}, match=1)
    assert changed["settings"]["recycling"]["busy"]["after_minutes"] == [10]
    typo = {"settings": {"assigned": {"teams": ["sales", "sails"], "agents": ["anna", "ana"]}}}
    refused = await house.ask("PATCH", at, typo, match=2, status=409)
    assert refused["detail"] == "there is no team sails, no agent ana"
    assert (await house.ask("PATCH", at, {"name": "x"}, match=1, status=412))["code"] == "changed_meanwhile"
    await house.ask("PATCH", at, {"name": "x"}, status=428)
    # bob leads another team; an agent sees no lists at all
    await house.ask("GET", at, who="bob", status=404)
    await house.ask("DELETE", at, who="bob", match=2, status=404)
    await house.ask("GET", "/lists", who="anna", status=403)
    assert (await house.ask("GET", "/lists", who="bob"))["items"] == []
    assert len((await house.ask("GET", "/lists", who="sue"))["items"]) == 1
    mine = {"name": "y", "settings": {"assigned": {"teams": ["sales"]}}}
    assert (await house.ask("POST", "/lists", mine, who="bob", status=403))["code"] == "forbidden"

    await imports.run(house.dsn, (await started(house.pool, sheet(0, 5))).id)
    await house.pool.execute("UPDATE list_contacts SET state = 'in_hand' WHERE e164 = $1", gb(1))
    assert (await house.ask("DELETE", at, match=3, status=409))["code"] == "in_use"
    await house.pool.execute("UPDATE list_contacts SET state = 'open'")
    await house.ask("DELETE", at, match=3, status=204)
    assert await house.pool.fetchval("SELECT count(*) FROM list_contacts") == 0


def test_lists_are_for_supervisors_and_administrators() -> None:
    house = lists_rest.routes(pool=lambda: None, directory=Directory(), desk=None, theirs=overseen)  # type: ignore[arg-type,return-value]
    groups = target_group_rest.routes(pool=lambda: None)  # type: ignore[arg-type,return-value]
    assert {route.roles for route in (*house, *groups)} == {SUPERVISORS}


async def test_pages_and_searches_of_a_long_list(house: House) -> None:
    await imports.run(house.dsn, (await started(house.pool, sheet(0, 250))).id)
    seen: list[str] = []
    cursor = None
    while True:
        asked = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        page = await house.ask("POST", "/lists/1/contacts/search", asked)
        seen += [one["e164"] for one in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == [gb(n) for n in range(250)]
    await house.pool.execute(
        "UPDATE list_contacts SET state = 'done', attempts = 2 WHERE e164 = ANY($1)", [gb(7), gb(8)]
    )

    async def found(**asked: Any) -> list[str]:
        return [one["name"] for one in (await house.ask("POST", "/lists/1/contacts/search", asked))["items"]]

    assert await found(q="p24") == ["P24", *(f"P24{n}" for n in range(10))]
    assert await found(q="+44 7911 000013") == ["P13"]
    assert await found(q="07911 00024") == [f"P24{n}" for n in range(10)]
    assert await found(q="%") == []
    assert await found(state="done") == await found(attempted=True) == ["P7", "P8"]
    assert await found(data={"city": "Leeds"}, q="P9", zone="europe/london") == [
        "P9",
        *(f"P9{n}" for n in range(10)),
    ]
    assert await found(country="DE") == []
    await house.ask("POST", "/lists/1/contacts/search", {"cursor": "nonsense"}, status=422)


Fill = Callable[..., Awaitable[int]]


@pytest.fixture
def fill(pool: Pool, migrated: str) -> Fill:
    async def into(name: str, first: int, last: int) -> int:
        view = await imports.run(migrated, (await started(pool, sheet(first, last), name)).id)
        assert view.list is not None
        return view.list

    return into


async def numbers(pool: Pool, list_id: int) -> list[str]:
    rows = await pool.fetch("SELECT e164 FROM list_contacts WHERE list_id = $1 ORDER BY e164", list_id)
    return [row["e164"] for row in rows]


async def test_lists_are_merged_and_the_better_contact_stays(house: House, fill: Fill) -> None:
    one, two, three = await fill("one", 0, 10), await fill("two", 5, 15), await fill("three", 20, 22)
    await house.pool.execute(
        "UPDATE list_contacts SET state = 'done' WHERE list_id = $1 AND e164 = $2", two, gb(6)
    )
    await house.pool.execute(
        "UPDATE list_contacts SET name = '' WHERE list_id = $1 AND e164 = $2", one, gb(7)
    )
    version = (await lists.read(house.pool, one)).version
    merged = await house.ask("POST", f"/lists/{one}/merge", {"lists": [two, three]}, match=version)
    assert merged == {"moved": 12, "removed": 5, "lists": [two, three]}
    assert await numbers(house.pool, one) == [gb(n) for n in [*range(15), 20, 21]]
    kept = {row["e164"]: row for row in await house.pool.fetch("SELECT * FROM list_contacts")}
    assert (kept[gb(6)]["state"], kept[gb(7)]["name"]) == ("done", "P7")
    await house.ask("GET", f"/lists/{two}", status=404)
    again = (await lists.read(house.pool, one)).version
    assert (await house.ask("POST", f"/lists/{one}/merge", {"lists": [one]}, match=again, status=409))[
        "code"
    ] == "same_list"
    undone = (await house.ask("GET", f"/list-imports?list={one}"))["items"]
    assert len(undone) == 3  # the imports of the merged lists can still be undone


async def test_a_list_is_split_evenly_and_by_a_filter(house: House, fill: Fill) -> None:
    one = await fill("one", 0, 11)
    await house.pool.execute("UPDATE list_contacts SET state = 'in_hand' WHERE e164 = $1", gb(4))
    split = await house.ask("POST", f"/lists/{one}/split", {"parts": 3}, match=2)
    second, third = split["lists"]
    assert [len(await numbers(house.pool, id)) for id in (one, second, third)] == [5, 3, 3]
    assert gb(4) in await numbers(house.pool, one)
    assert (await lists.read(house.pool, second)).name == "one 2/3"
    off = await house.ask(
        "POST", f"/lists/{one}/split", {"filter": {"state": "in_hand"}, "name": "busy"}, match=3, status=409
    )
    assert off["code"] == "nobody"  # who is being called stays
    off = await house.ask("POST", f"/lists/{second}/split", {"filter": {"q": "P1"}, "name": "ones"}, match=1)
    assert off["moved"] == 1
    assert (await house.ask("POST", f"/lists/{one}/split", {"parts": 2, "name": "x"}, match=3, status=422))[
        "code"
    ] == ("bad_value")


async def test_duplicates_across_lists_and_of_one_person(house: House, fill: Fill) -> None:
    one, two = await fill("one", 0, 10), await fill("two", 0, 10)
    await house.pool.execute(
        "UPDATE list_contacts SET state = 'blocked' WHERE list_id = $1 AND e164 = $2", two, gb(0)
    )
    await house.pool.execute("UPDATE list_contacts SET state = 'in_hand' WHERE e164 = $1", gb(1))
    told = await house.ask("POST", "/lists/dedupe", {"lists": [one, two]})
    assert told["removed"] == 9  # of the two in hand neither
    assert gb(0) not in await numbers(house.pool, one)
    await house.pool.execute(
        "UPDATE list_contacts SET state = 'open', person = 'K1' WHERE e164 = ANY($1)", [gb(2), gb(3)]
    )
    assert (await house.ask("POST", "/lists/dedupe", {"lists": [one], "same": "person"}))["removed"] == 1


async def test_used_up_contacts_are_called_again(house: House, fill: Fill) -> None:
    one = await fill("one", 0, 4)
    for n, outcome in enumerate(("busy", "no_answer", "fax")):
        await house.pool.execute(
            "UPDATE list_contacts SET state = 'exhausted', attempts = 6, last_outcome = $2 WHERE e164 = $1",
            gb(n),
            outcome,
        )
    told = await house.ask("POST", f"/lists/{one}/recycle", {"outcomes": ["busy", "no_answer"]}, match=2)
    assert told == {"opened": 2}
    states = await house.pool.fetch("SELECT state, attempts FROM list_contacts ORDER BY e164")
    assert [tuple(row) for row in states] == [("open", 0), ("open", 0), ("exhausted", 6), ("open", 0)]


async def test_a_list_is_not_deleted_under_a_call_that_is_claimed_meanwhile(pool: Pool, fill: Fill) -> None:
    one = await fill("one", 0, 3)
    await pool.execute(
        "INSERT INTO campaigns (id, name, mode, profile, created_by, changed_by) VALUES (1, 'c', 'manual', 'GB', '', '')"
    )

    async def delete() -> int:
        async with pool.acquire() as db, db.transaction():
            return await lists.delete(db, one, version=2)

    async with pool.acquire() as db:
        async with db.transaction():
            await db.execute("UPDATE list_contacts SET state = 'in_hand' WHERE e164 = $1", gb(1))
            deleting = asyncio.create_task(delete())
            async with asyncio.timeout(100):
                while not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                    await asyncio.sleep(0.01)
            await db.execute(
                """INSERT INTO attempts (id, campaign_id, list_id, contact_id, e164, pbx, mode, profile, owner, committed)
                   SELECT 'at-' || repeat('0', 32), 1, list_id, id, e164, 'main', 'manual', 'GB', 'x', now()
                   FROM list_contacts WHERE state = 'in_hand'"""
            )
        with pytest.raises(lists.NotPossible, match="under way"):
            await deleting
    assert len(await numbers(pool, one)) == 3


async def test_two_merges_at_once_and_an_import_in_the_middle(pool: Pool, migrated: str, fill: Fill) -> None:
    one, two = await fill("one", 0, 50), await fill("two", 50, 100)
    running = await started(pool, sheet(100, 3000), "one")

    async def merge(target: int, source: int) -> Any:
        async with pool.acquire() as db, db.transaction():
            return await contacts.merge(db, target, [source], version=2, by="sue")

    found = await asyncio.gather(
        imports.run(migrated, running.id, batch=100), merge(one, two), merge(two, one), return_exceptions=True
    )
    refused = [one for one in found if isinstance(one, Exception)]
    assert all(
        isinstance(one, lists.NoList | lists.ChangedMeanwhile | lists.NotPossible) for one in refused
    ), refused
    assert await pool.fetchval("SELECT count(*) FROM list_contacts") == 3000


# ------------------------------------------------------------------------------------------------ before a launch


async def test_before_a_launch_everybody_is_counted_with_the_reason(house: House, fill: Fill) -> None:
    pool = house.pool
    content = sheet(0, 20) + f"No,12,\nTwice,{gb(1)},\n".encode() + b"Sat,+80012345678,\n"
    one = (await imports.run(house.dsn, (await started(pool, content, "one")).id)).list
    assert one is not None
    for n, state in enumerate(("in_hand", "done", "exhausted", "skipped")):
        await pool.execute("UPDATE list_contacts SET state = $2 WHERE e164 = $1", gb(n), state)
    await pool.execute(
        "UPDATE list_contacts SET state = 'blocked', why = 'asked us not to' WHERE e164 = $1", gb(4)
    )
    await pool.execute(
        "UPDATE list_contacts SET not_before = now() + interval '1 day' WHERE e164 = $1", gb(5)
    )
    await pool.execute("UPDATE list_contacts SET attempts = 6 WHERE e164 = $1", gb(6))
    told = await house.ask("GET", f"/lists/{one}/before-launch")
    assert (told["total"], told["can"], told["later"]) == (21, 13, 1)
    assert told["hindrances"] == ["the list belongs to no campaign"]
    assert {reason["code"]: reason["count"] for reason in told["reasons"]} == {
        "callable": 13, "later": 1, "attempts_used_up": 2, "blocked": 1, "done": 1, "in_hand": 1, "no_zone": 1,
        "skipped": 1, "row:bad_number": 1, "row:duplicate": 1,
    }  # fmt: skip
    page = await house.ask("GET", f"/lists/{one}/before-launch/no_zone")
    assert [row["e164"] for row in page["items"]] == ["+80012345678"]
    page = await house.ask("GET", f"/lists/{one}/before-launch/callable?limit=10")
    rest = await house.ask("GET", f"/lists/{one}/before-launch/callable?cursor={page['next']}")
    assert len(page["items"] + rest["items"]) == 13
    await house.ask("GET", f"/lists/{one}/before-launch/Nonsense", status=404)


async def test_the_law_is_asked_before_a_launch(pool: Pool, fill: Fill) -> None:
    one = await fill("one", 0, 10)
    settings = CampaignSettings(hours={}).model_dump_json()  # never open: every contact is refused by it
    await pool.execute(
        """INSERT INTO campaigns (id, name, mode, profile, settings, created_by, changed_by)
           VALUES (1, 'c', 'progressive', (SELECT $1), $2::jsonb, '', '')""",
        *(next(name for name in load() if "gb" in name.lower() or "uk" in name.lower()), settings),
    )
    await lists.change(pool, one, ListEdit(campaign=1), version=2, by="sue")
    law = by_law(lambda: pool, load)
    told = await before_launch(pool, one, law)
    assert (told.can, told.asked, told.whole) == (0, 10, True)
    refused = [reason for reason in told.reasons if reason.code.startswith("law:")]
    assert sum(reason.count for reason in refused) == 10
    page = await contacts_of(pool, one, refused[0].code, law, limit=4)
    assert len(page) == 4
    some = await before_launch(pool, one, law, most=3)
    assert (some.whole, some.can, some.asked) == (False, 0, 3)
    assert {reason.code: reason.count for reason in some.reasons} == {refused[0].code: 3, "not_asked": 7}
    # What hours refuse today is not all: who must not be called at all is told as such, at night too.
    await do_not_call.add(pool, number=gb(2), scope="everywhere", by="sue")
    told = await before_launch(pool, one, law)
    assert {reason.code: reason.count for reason in told.reasons} == {
        refused[0].code: 9,
        "law:do_not_call": 1,
    }
    assert [row.e164 for row in await contacts_of(pool, one, "law:do_not_call", law)] == [gb(2)]
    assert await contacts_of(pool, one, "callable", law) == []
    left = await contacts_of(pool, one, "not_asked", law, limit=4, most=3)
    assert [row.e164 for row in left] == [gb(n) for n in range(3, 7)]
    left = await contacts_of(pool, one, "not_asked", law, after=left[-1].id, most=3)
    assert [row.e164 for row in left] == [gb(n) for n in range(7, 10)]


async def test_a_long_list_is_counted_beyond_the_pools_limit_and_what_takes_too_long_is_said(
    migrated: str, pool: Pool, fill: Fill
) -> None:
    """The statement waits here for somebody's lock, for longer than the pool lets any."""
    one = await fill("one", 0, 10)
    limits: Any = {"command_timeout": 0.3, "server_settings": {"statement_timeout": "200"}}
    async with (
        asyncpg.create_pool(migrated, min_size=1, max_size=2, **limits) as hasty,
        pool.acquire() as other,
    ):
        lock = other.transaction()
        await lock.start()
        await other.execute("LOCK TABLE list_bad_rows")
        with pytest.raises(lists.NotPossible, match="could not be counted in") as no:
            await before_launch(hasty, one, within=0.1)
        assert no.value.code == "too_long"
        told = asyncio.create_task(before_launch(hasty, one))
        done, _ = await asyncio.wait({told}, timeout=0.6)
        assert not done
        await lock.rollback()
        assert (await told).total == 10


# ------------------------------------------------------------------------------------------------ target groups


async def test_a_target_group_becomes_a_list(house: House) -> None:
    pool = house.pool
    for n, (name, country, klass, status) in enumerate(
        [
            ("Ann", "GB", "A", "active"),
            ("Bea", "GB", "A", "closed"),
            ("Cid", "DE", "B", "active"),
            ("Dan", "GB", "A", "active"),
        ]
    ):
        await pool.execute(
            "INSERT INTO accounts (id, number, name, country, class, status, city) VALUES ($1, $2, $3, $4, $5, $6, 'Ely')",
            *(n + 1, f"S{n}", name, country, klass, status),
        )
        if name != "Dan":
            await pool.execute("INSERT INTO phones (e164, account_id) VALUES ($1, $2)", gb(n), n + 1)
    await pool.execute("INSERT INTO phones (e164, account_id, kind) VALUES ('+442079460018', 1, 'work')")
    await pool.execute("INSERT INTO open_items (account_id, kind, subject) VALUES (3, 'complaint', 'x')")
    wanted = {"countries": ["GB"], "classes": ["A"], "last_contact_days": 30}
    made = await house.ask(
        "POST", "/target-groups", {"name": "best", "conditions": wanted}, who="sue", status=201
    )
    assert await house.ask("GET", f"/target-groups/{made['id']}/count") == {
        "customers": 2, "with_phone": 1, "numbers": 2,
    }  # fmt: skip
    assert await house.ask("POST", "/target-groups/count", {"no_open_items": ["complaint"]}) == {
        "customers": 2, "with_phone": 1, "numbers": 2,
    }  # fmt: skip
    begun = await house.ask(
        "POST",
        "/list-imports/from-target-group",
        {"group": made["id"], "name": "best", "country": "GB"},
        status=202,
    )
    done = await house.done(begun["id"])
    assert (done["added"], done["bad"]) == (1, 1)  # Dan has no phone
    (row,) = (await house.ask("POST", f"/lists/{done['list']}/contacts/search", {}))["items"]
    assert (row["name"], row["account"], row["person"], row["data"]) == (
        "Ann",
        1,
        "S0",
        {"city": "Ely", "class": "A"},
    )
    assert {row["e164"], *row["other_numbers"]} == {gb(0), "+442079460018"}
    await house.ask(
        "POST", "/list-imports/from-target-group", {"group": 99, "name": "x", "country": "GB"}, status=404
    )
    await house.ask("PUT", f"/target-groups/{made['id']}", {"name": "b", "conditions": {}}, match=1)
    await house.ask("DELETE", f"/target-groups/{made['id']}", match=1, status=412)
    await house.ask("DELETE", f"/target-groups/{made['id']}", match=2, status=204)


async def test_a_target_group_is_looked_at_and_imported_with_consent(house: House, fill: Fill) -> None:
    pool = house.pool
    listed, there = gb(3), gb(100)
    people = [("Ann", gb(0)), ("Bea", gb(1)), ("Cid", gb(2)), ("Dan", listed), ("Eve", gb(0)), ("Fay", None)]
    await customers(pool, *people, ("Gus", there), ("Hal", "+447911"))
    for person, given in (("S0", True), ("S1", False), ("S3", True), ("S4", True), ("S6", True)):
        await consent(pool, person, given=given, purpose="renewal")
    await consent(pool, "S2", given=True, purpose="other")
    await do_not_call.add(pool, number=listed, scope="everywhere", by="sue")
    spring = await pool.fetchval(
        """INSERT INTO campaigns (name, mode, profile, settings, created_by, changed_by)
           VALUES ('Spring', 'manual', 'default', '{"purpose": "renewal"}', '', '') RETURNING id"""
    )
    may = await fill("May", 100, 101)
    group = (
        await house.ask("POST", "/target-groups", {"name": "A", "conditions": {"classes": ["A"]}}, status=201)
    )["id"]
    looked = "/list-imports/from-target-group/preview"
    wanted = {"group": group, "list": may, "country": "GB"}
    told = await house.ask("POST", looked, wanted, who="sue")
    assert (told["customers"], told["with_phone"], told["numbers"]) == (8, 7, 7)
    assert (told["campaign"], told["needed"], told["twice"], told["there"], told["usable"]) == (
        None,
        None,
        1,
        1,
        4,
    )
    told = await house.ask("POST", looked, wanted | {"campaign": spring}, who="sue")
    counted = ("consented", "withdrawn", "nothing", "do_not_call", "twice", "there", "usable", "asked")
    assert [told[name] for name in counted] == [4, 1, 1, 1, 1, 1, 1, 8]
    assert (told["purpose"], told["needed"], told["whole"]) == ("renewal", True, True)
    assert {reason["code"]: reason["count"] for reason in told["reasons"]} == {
        "duplicate": 2, "law:consent": 2, "law:do_not_call": 1, "row:bad_number": 1, "row:no_number": 1,
    }  # fmt: skip
    assert await pool.fetchval("SELECT count(*) FROM list_imports") == 1  # nothing is written by looking

    from_group = "/list-imports/from-target-group"
    asked = {"group": group, "country": "GB", "duplicates": "active", "campaign": spring}
    begun = await house.ask("POST", from_group, asked | {"name": "June"}, who="sue", status=202)
    done = await house.done(begun["id"])
    assert (done["added"], done["bad"], done["duplicates"]) == (2, 6, 2)
    june = done["list"]
    assert (await house.ask("GET", f"/lists/{june}"))["campaign"] == spring
    assert await numbers(pool, june) == [
        gb(0),
        listed,
    ]  # do-not-call lists change: the law looks before each call
    rows = (await house.ask("GET", f"/list-imports/{begun['id']}/bad-rows"))["items"]
    reasons = {row["cells"][0]: (row["code"], row["says"]) for row in rows}
    assert reasons["Bea"][0] == "withdrawn"
    assert reasons["Bea"][1].startswith("consent to calls for renewal withdrawn on 20")
    assert reasons["Cid"] == ("no_consent", "no consent to calls for renewal: it is needed")
    assert {reasons[name][0] for name in ("Eve", "Gus")} == {"duplicate"}
    await consent(pool, "S2", given=True, purpose="renewal")  # by now; the list says which campaign
    again = await house.ask("POST", from_group, {"group": group, "country": "GB", "list": june}, status=202)
    assert (await house.done(again["id"]))[
        "added"
    ] == 2  # Cid, and Gus, whom only the list's own numbers count for
    autumn = await pool.fetchval(
        """INSERT INTO campaigns (name, mode, profile, created_by, changed_by)
           VALUES ('Autumn', 'manual', 'nowhere', '', '') RETURNING id"""
    )
    for more, code in (
        ({"list": june, "campaign": autumn}, "other_campaign"),
        ({"list": may, "campaign": 99}, "no_campaign"),
        ({"list": may, "campaign": autumn}, "no_profile"),
    ):
        refused = await house.ask("POST", looked, {"group": group, "country": "GB", **more}, status=409)
        assert refused["code"] == code
    assert (await house.ask("POST", looked, wanted | {"group": 99}, status=404))["code"] == "not_found"


async def test_contacts_to_pick_are_looked_through_part_by_part(house: House, fill: Fill) -> None:
    pool = house.pool
    one, two = await fill("one", 0, 30), await fill("two", 30, 60)
    await pool.execute("UPDATE list_contacts SET name = 'Ann Lee' WHERE e164 = ANY($1)", [gb(3), gb(40)])
    await pool.execute("UPDATE list_contacts SET state = 'done' WHERE e164 = $1", gb(3))
    now = datetime.now(UTC)

    async def found(limit: int = 10, most: int = 12, **wanted: Any) -> list[list[str]]:
        after, pages = Place(), []
        while True:
            rows, more = await search(pool, [one, two], Wanted(**wanted), after, limit, now, most=most)
            pages.append([row["e164"] for row in rows])
            if more is None:
                return pages
            after = Place.of(more.text)

    everybody = await found()
    assert [number for part in everybody for number in part] == [gb(n) for n in range(60)]
    assert max(map(len, everybody)) == 10
    assert [part for part in await found(q="le") if part] == [[gb(3)], [gb(40)]]
    assert len(await found(q="le")) == 6  # twelve contacts at a time, however few fit
    assert await found(q="lee") == [[gb(3), gb(40)]]  # of three letters on the index has them
    assert await found(q="lee", limit=1) == [[gb(3)], [gb(40)], []]
    assert await found(most=1000, q="ann", callable=True) == [[gb(40)]]
    assert await found(most=1000, q="nn") == [[]]
    assert await found(most=1000, q="%") == [[]]
    assert await found(most=1000, q="+44 7911 0000 5") == [[gb(n) for n in range(50, 60)], []]
    assert await found(most=1000, limit=99, data={"city": "lee"}) == [[gb(n) for n in range(60)]]
    assert await found(most=1000, data={"city": "eeds"}) == await found(most=1000, data={"no": "x"}) == [[]]


async def test_a_name_is_found_by_the_index_in_a_long_list(house: House, fill: Fill) -> None:
    one = await fill("one", 0, 1)
    await house.pool.execute(
        """INSERT INTO list_contacts (list_id, e164, zone_group, name)
           SELECT list_id, '+4420' || (70000000 + n), zone_group, md5(n::text) || ' ' || md5((n + 1)::text)
             FROM list_contacts, generate_series(1, 20000) n WHERE list_id = $1""",
        one,
    )
    await house.pool.execute("VACUUM ANALYZE list_contacts")
    wanted, now = ContactFilter(q="abcde"), datetime.now(UTC)
    values = one, None, "%abcde%", None, None, None, None, None, None, "{}", None, 0, 100
    plans = [
        await house.pool.fetch(f"EXPLAIN {contacts.page_query(wanted)}", *values),
        await house.pool.fetch(f"EXPLAIN {BY_INDEX}", one, 0, WHOLE, "abcde", None, [], [], False, now, 10),
    ]
    for plan in plans:
        told = "\n".join(row[0] for row in plan)
        assert "list_contacts_by_part_of_name" in told, told
        assert "Seq Scan on list_contacts" not in told, told


async def test_contacts_to_pick_are_shown_with_what_holds_of_each_now(house: House, fill: Fill) -> None:
    pool, now = house.pool, datetime.now(UTC)
    one = await fill("one", 0, 6)
    soon, later = now + timedelta(hours=1), now + timedelta(hours=9)
    for n, state, not_before in (
        (1, "open", soon),
        (2, "open", later),
        (3, "open", soon),
        (4, "blocked", None),
    ):
        await pool.execute(
            """UPDATE list_contacts SET state = $2, not_before = coalesce($3, not_before), why = 'busy', attempts = 2
               WHERE e164 = $1""",
            *(gb(n), state, not_before),
        )
    no = Step(rule="hours", ok=False, says="closed")
    said = {
        gb(2): Verdict(steps=(no,), not_before=soon),
        gb(3): Verdict(steps=(no,)),
        gb(5): Verdict(steps=(no,), not_before=later),
    }

    async def judge(campaign: int, candidates: Sequence[Candidate]) -> list[Verdict]:
        return [said.get(candidate.e164, Verdict(steps=())) for candidate in candidates]

    rows, _ = await search(pool, [one], Wanted(), Place(), 50, now)
    law = LawDesk(load, check_all, clock=monotonic)
    claims = Claims(lambda: pool, check_all=law.check_all, open_groups=law.open_groups, clock=monotonic)
    shown = await judged(rows, 1, judge, claims.next_number, now)
    at = f"{soon:%Y-%m-%d %H:%M} UTC: busy"
    assert [(found.can, found.why, found.not_before) for found in shown] == [
        (True, "", None),
        (False, f"not before {at}", soon),
        (False, f"not before {later:%Y-%m-%d %H:%M} UTC: busy", later),
        (False, f"not before {at}", None),  # the law's no does not end by time alone
        (False, "must not be called: busy", None),
        (False, "closed", later),
    ]
    assert (shown[0].name, shown[0].list, shown[0].data, shown[1].attempts) == (
        "P0",
        "one",
        {"city": "Leeds"},
        2,
    )


async def test_lists_for_nobody_who_works_for_the_campaign_are_told(pool: Pool, fill: Fill) -> None:
    one = await fill("one", 0, 2)
    campaign = await pool.fetchval(
        """INSERT INTO campaigns (name, mode, state, profile, settings, created_by, changed_by)
           VALUES ('c', 'progressive', 'running', 'GB', '{"queue": "main:sales"}', '', '') RETURNING id"""
    )
    await pool.execute("INSERT INTO users (login, name, role, unit) VALUES ('ann', 'A', 'agent', 'north')")
    await pool.execute("INSERT INTO users (login, name, role) VALUES ('bea', 'B', 'agent')")
    await pool.execute("INSERT INTO agent_queues (login, queue) VALUES ('ann', 'main:sales')")
    now = datetime.now(UTC)
    for version, assigned, callers in ((2, Assigned(agents=["bea"]), 0), (3, Assigned(units=["north"]), 1)):
        settings = ListSettings(assigned=assigned)
        await lists.change(
            pool, one, ListEdit(campaign=campaign, settings=settings), version=version, by="sue"
        )
        told = await before_launch(pool, one)
        assert told.callers == callers
        for_nobody = "the list is assigned to nobody who works for the campaign (bea)"
        assert told.hindrances == ((for_nobody,) if not callers else ())
        (contact,) = (await why(pool, gb(0), now, now, profiles=load)).contacts
        step = next(step for step in contact.steps if step.rule == "assigned")
        assert (step.ok, step.says == for_nobody) == (bool(callers), not callers)
    await lists.change(pool, one, ListEdit(settings=ListSettings()), version=4, by="sue")
    assert (await before_launch(pool, one)).callers is None
    (contact,) = (await why(pool, gb(0), now, now, profiles=load)).contacts
    assert all(step.rule != "assigned" for step in contact.steps)


# ------------------------------------------------------------------------------------------------ rules of a list


def test_who_calls_and_who_oversees_a_list() -> None:
    directory = Directory()
    directory.load([Agent(login="anna", name="A", team="sales")], [])
    anna = Agent(login="anna", name="A", team="sales", unit="north", position="senior")
    assert may_call(Assigned(), anna)
    assert may_call(Assigned(), None)
    assert may_call(Assigned(teams=["sales"]), anna)
    assert may_call(Assigned(units=["north"]), anna)
    assert may_call(Assigned(positions=["senior"]), anna)
    assert not may_call(Assigned(units=["north"]), None)
    assert not may_call(Assigned(agents=["ben"], teams=["service"]), anna)
    assert not may_call(Assigned(positions=["x"]), Agent(login="ben", name="B"))
    assert oversees(BOB, Assigned(), directory)
    assert oversees(BOB, Assigned(teams=["service"], agents=["anna"]), directory)
    assert not oversees(BOB, Assigned(agents=["anna"]), directory)
    assert not oversees(BOB, Assigned(units=["north"]), directory)
    north = Agent(login="bea", name="B", team="service", unit="north")
    directory.load([north], [])
    assert oversees(BOB, Assigned(units=["north"], agents=["anna"]), directory)
    assert not oversees(BOB, Assigned(positions=["north"]), directory)
    assert oversees(BOB, Assigned(positions=["north"]), directory, True)
    assert not oversees(BOB, Assigned(), directory, False)
    assert oversees(BOB, Assigned(teams=["service"]), directory, False)


def test_a_lists_own_rules_come_before_the_campaigns() -> None:
    campaign = CampaignSettings(max_attempts=5)
    own = ListSettings(recycling={"busy": RetryRule(after_minutes=(7,), at_most=1)}, max_attempts=9)
    both = own.over(campaign)
    busy = both.retry("busy")
    assert busy is not None
    assert busy.after_minutes == (7,)
    assert both.retry("no_answer") == campaign.retry("no_answer")
    assert both.max_attempts == 5  # a list may lower it, not raise it
    assert ListSettings(max_attempts=2).over(campaign).max_attempts == 2
    assert ListSettings().over(campaign) is campaign
    assert ContactFilter().empty
    assert NewList(name="x").settings == ListSettings()


async def test_a_list_rests_when_its_quota_is_reached(pool: Pool, migrated: str, fill: Fill) -> None:
    one = await fill("one", 0, 5)
    await pool.execute(
        "INSERT INTO campaigns (id, name, mode, profile, created_by, changed_by) VALUES (1, 'c', 'manual', 'GB', '', '')"
    )
    quotas = [
        Quota(counts="connected", per="day", most=2),
        Quota(counts="disposition", disposition="sold", most=1),
    ]
    edit = ListEdit(campaign=1, settings=ListSettings(quota=quotas))
    await lists.change(pool, one, edit, version=2, by="sue")
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)

    async def attempt(n: int, at: datetime, disposition: str | None = None) -> None:
        await pool.execute(
            """INSERT INTO attempts (id, campaign_id, list_id, e164, pbx, mode, profile, owner, committed, connected,
                   disposition)
               VALUES ('at-' || lpad($1::text, 32, '0'), 1, $2, $3, 'main', 'manual', 'GB', 'x', $4, $4, $5)""",
            *(str(n), one, gb(n), at, disposition),
        )

    await attempt(1, noon - timedelta(days=1))
    await attempt(2, noon)
    assert await quotas_now(pool, noon) == {}
    await attempt(3, noon)
    rests = await quotas_now(pool, noon)
    assert rests == {one: datetime(2026, 11, 20, 23, tzinfo=UTC)}  # midnight in Berlin
    assert (await lists.read(pool, one)).quota_until == rests[one]
    assert await quotas_now(pool, noon + timedelta(days=1)) == {}
    await attempt(4, noon, "sold")
    assert (await quotas_now(pool, noon + timedelta(days=1)))[one].year == 9999
    assert "a quota of the list is reached" in (await before_launch(pool, one)).hindrances
    await lists.change(pool, one, ListEdit(settings=ListSettings()), version=3, by="sue")
    assert await quotas_now(pool, noon) == {}
    assert (await lists.read(pool, one)).quota_until is None


async def quotas_now(pool: Pool, now: datetime) -> dict[int, datetime]:
    return await Quotas(zone="Europe/Berlin", clock=lambda: 0.0).look(pool, now)


async def test_a_quota_is_not_passed_by_calls_under_way(pool: Pool, fill: Fill) -> None:
    """What is left is counted at each claim: whoever is being called, or has just talked, may be one more of them."""
    one, other = await fill("one", 0, 5), await fill("other", 0, 5)
    await pool.execute(
        "INSERT INTO campaigns (id, name, mode, profile, created_by, changed_by) VALUES (1, 'c', 'manual', 'GB', '', '')"
    )
    quotas = [Quota(counts="connected", most=3), Quota(counts="disposition", disposition="sold", most=2)]
    for list_id in (one, other):
        settings = ListSettings(quota=quotas if list_id == one else [Quota(counts="attempts", most=2 * NEAR)])
        await lists.change(pool, list_id, ListEdit(campaign=1, settings=settings), version=2, by="sue")
    noon, second = datetime(2026, 11, 20, 12, tzinfo=UTC), [0.0]
    kept = Quotas(zone="Europe/Berlin", clock=lambda: second[0])

    async def attempt(n: int, outcome: str | None, ago: float, disposition: str | None = None) -> None:
        at, ended = noon - timedelta(minutes=ago + 1), noon - timedelta(minutes=ago)
        await pool.execute(
            """INSERT INTO attempts (id, campaign_id, list_id, e164, pbx, mode, profile, owner, committed, connected,
                   ended, state, outcome, disposition)
               VALUES ('at-' || lpad($1::text, 32, '0'), 1, $2, $3, 'main', 'manual', 'GB', 'x', $4, $5, $6, $7, $8, $9)""",
            *(str(n), one, gb(n), at, at if outcome == "connected" else None, ended if outcome else None),
            *("ended" if outcome else "ringing", outcome, disposition),
        )

    assert await kept.room(pool, [one, other], noon) == {one: 2, other: 2 * NEAR}
    await kept.look(pool, noon)
    assert await kept.room(pool, [one, other], noon) == {one: 2}  # the other's is far away
    await attempt(1, "busy", 1)
    await attempt(2, "connected", 60)
    await attempt(3, None, 0)
    assert await kept.room(pool, [one], noon) == {one: 1}  # one talked, one is being called
    await attempt(4, "connected", 1)
    assert await kept.room(pool, [one], noon) == {one: 0}
    await pool.execute("UPDATE attempts SET state = 'ended', outcome = 'busy' WHERE outcome IS NULL")
    assert await kept.room(pool, [one], noon) == {one: 1}
    assert await kept.room(pool, [one], noon + timedelta(hours=1)) == {one: 1}
    await lists.change(pool, one, ListEdit(settings=ListSettings()), version=3, by="sue")
    second[0] += KEPT
    assert await kept.room(pool, [one], noon) == {}
