"""Imports of call lists into a real PostgreSQL: what becomes of rows, and what survives a kill or an outage; undoing."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from pydantic import ValidationError

from cti.database import Database, DatabaseUnavailable
from cti.embedded.postgres import Postgres
from dialer import lists
from dialer.call_lists import imports
from dialer.call_lists.import_desk import ImportDesk
from dialer.call_lists.imports import ImportView
from dialer.call_lists.rows import ImportSettings, whole
from dialer.call_lists.sheets import csv_line
from dialer.call_lists.zones import Group, Places, ZoneGroups
from dialer.lists import NewList, NotPossible
from tests.list_files import gb, sheet, started, upload
from tests.test_sheets import workbook

if TYPE_CHECKING:
    from pathlib import Path

    from cti.database import Pool


@pytest.fixture
async def pool(migrated: str) -> AsyncIterator[Pool]:
    db = Database(migrated, size=4)
    await db.open()
    yield db.pool
    await db.close()


async def contacts(db: Any, list_id: int | None) -> list[dict[str, Any]]:
    rows = await db.fetch(
        """SELECT c.*, g.country, g.region, g.zones FROM list_contacts c JOIN zone_groups g ON g.id = c.zone_group
           WHERE list_id = $1 ORDER BY c.id""",
        list_id,
    )
    return [dict(row) | {"data": json.loads(row["data"])} for row in rows]


async def bad(db: Any, view: ImportView) -> list[tuple[int, str]]:
    return [(row.row, row.code) for row in await imports.bad_rows(db, view.id)]


GERMAN = """Vorname;Nachname;Tel. privat;Handy;Land;Sprache;Zeitzone;Bundesland;Kundennr.;Tarif;Priorität
Jürgen;Groß;030 1234567;0171 5550199;Deutschland;deutsch;;Bayern;K1;Gold;5
Anne;Dupont;01 42 68 53 00;;Frankreich;FR;;;K2;Silber;
Al;Smith;(212) 555-0147;;USA;en;America/Los_Angeles;;K3;;
Ivy;Kahananui;+1 808 555 0147;;;en;;;K4;;
""".encode("cp1252")


async def test_a_list_as_it_comes_from_a_spreadsheet(pool: Pool, migrated: str) -> None:
    view = await started(pool, GERMAN, country="DE")
    told: list[ImportView] = []
    done = await imports.run(migrated, view.id, told.append)
    assert (done.state, done.added, done.bad, done.done, done.share) == ("done", 4, 0, 5, 1.0)
    assert told[-1].added == 4
    one, two, three, four = await contacts(pool, view.list)
    assert (one["name"], one["e164"], one["other_numbers"]) == (
        "Jürgen Groß",
        "+49301234567",
        ["+491715550199"],
    )
    assert (one["country"], one["region"], one["zones"]) == ("DE", "BY", ["Europe/Berlin"])
    assert (one["person"], one["language"], one["data"], one["priority"]) == (
        "K1",
        "de",
        {"tarif": "Gold"},
        5,
    )
    assert (two["e164"], two["country"], two["zones"]) == ("+33142685300", "FR", ["Europe/Paris"])
    assert (three["e164"], three["zones"]) == (
        "+12125550147",
        ["America/Los_Angeles"],
    )  # the contact's own wins
    assert four["zones"] == ["Pacific/Honolulu"]
    assert await pool.fetchval("SELECT count(*) FROM list_import_parts") == 0
    assert (
        await lists.read(pool, one["list_id"])
    ).version == 2  # attempts are kept with the version they were made from


def test_numbers_lie_wherever_they_may_ring() -> None:
    places = Places()
    assert places.of("+61412345678").zones[0] == "Australia/Adelaide"  # a mobile: anywhere in the country
    assert "Australia/Perth" in places.of("+61412345678").zones
    # Indonesia has three, and its mobile numbers tell none.
    assert places.of("+6281234567890").zones == ("Asia/Jakarta", "Asia/Jayapura", "Asia/Makassar")
    assert places.of("+61292001234").zones == ("Australia/Sydney",)
    assert places.of("+12125550147").zones == ("America/New_York",)
    assert "Pacific/Honolulu" in Places(anywhere=True).of("+12125550147").zones
    assert places.of("+80012345678") == ("", (), True, False)  # of no country: nobody knows where it rings
    assert places.of("+449098790000").dear
    assert not places.of("+44123").valid


async def test_what_goes_wrong_when_files_are_written_loses_nobody(pool: Pool, migrated: str) -> None:
    """Cells beyond the header, zeros between, UTF-16 as Excel saves it, numbers that a spreadsheet has made floats of."""

    async def taken(content: bytes) -> list[Any]:
        view = await imports.run(migrated, (await started(pool, content)).id)
        assert (view.state, view.bad) == ("done", 0)
        return [(one["name"], one["e164"], one["data"]) for one in await contacts(pool, view.list)]

    wide = f"name;phone\nAnn;{gb(1)}\nBob;{gb(2)};x;y;z\nCleo;{gb(3)}\n".encode()
    more = {"column_3": "x", "column_4": "y", "column_5": "z"}
    assert await taken(wide) == [("Ann", gb(1), {}), ("Bob", gb(2), more), ("Cleo", gb(3), {})]
    zeros = f"name;phone\nA\0nn;{gb(4)}\nBob;{gb(5)[:6]}\0{gb(5)[6:]}\n".encode()
    assert [one[:2] for one in (await taken(zeros))[3:]] == [("Ann", gb(4)), ("Bob", gb(5))]
    wide_letters = f"Nom;Téléphone\nZoë;{gb(6)}\n".encode("utf-16")
    assert [one[:2] for one in (await taken(wide_letters))[5:]] == [("Zoë", gb(6))]
    fine = f"{gb(8)[1]}.{gb(8)[2:]}E+11"
    floats = f"name,phone,customer number\nDan,{gb(7)[1:]}.0,1001.0\nEve,{fine},1002\n".encode()
    assert [one[:2] for one in (await taken(floats))[6:]] == [("Dan", gb(7)), ("Eve", gb(8))]
    people = await pool.fetch("SELECT person FROM list_contacts ORDER BY id DESC LIMIT 2")
    assert [row["person"] for row in people] == ["1002", "1001"]
    assert whole("030.0") == "030"
    assert whole("493012345.0") == "493012345"  # a zero more would be somebody else's number
    assert whole("4.4791E+11") == "4.4791E+11"


async def test_rows_that_cannot_be_taken_are_kept_with_the_reason(pool: Pool, migrated: str) -> None:
    content = (
        "name,phone,country,timezone,priority\n"
        f"ok,{gb(1)},,,\nnone,,,,\nwrong,12345,,,\nexcel,4.41235E+11,,,\npremium,+449098790000,,,\n"
        f"land,{gb(2)},Atlantis,,\nzone,{gb(3)},,Europe/Atlantis,\nprio,{gb(4)},,,high\n"
        f'twice,07911 000001,,,\nopen,"{gb(5)}\nlast,{gb(6)},,,\n'
    ).encode()
    view = await imports.run(migrated, (await started(pool, content)).id)
    assert (view.state, view.added, view.bad, view.duplicates) == ("done", 2, 9, 1)
    assert await bad(pool, view) == [
        (3, "no_number"),
        (4, "bad_number"),
        (5, "shortened"),
        (6, "special"),
        (7, "country"),
        (8, "zone"),
        (9, "priority"),
        (10, "duplicate"),
        (11, "broken"),
    ]
    says = {row.code: row.says for row in await imports.bad_rows(pool, view.id)}
    assert says["duplicate"] == "the same number as in row 2"
    assert says["bad_number"] == "'12345' is no number that exists (read in GB)"
    assert [row.row for row in await imports.bad_rows(pool, view.id, after=10, code="broken")] == [11]


async def test_bad_rows_are_repaired_in_a_spreadsheet_and_imported_again(pool: Pool, migrated: str) -> None:
    evil = "=cmd|' /C calc'!A0"
    content = (
        b"name;phone;note\n"
        + csv_line(["x"], ";").replace(b"x", b'"Smith; John";12;')
        + (f"Evil;+44;{evil}\n".encode() + "Zoë;99;@SUM(A1)\n".encode())
    )
    view = await imports.run(
        migrated, (await started(pool, content, columns=["name", "phone", "data:note"])).id
    )
    assert view.bad == 3
    given = b"".join([part async for part in imports.bad_rows_csv(pool, view)])
    assert given.startswith(b"\xef\xbb\xbf")
    table = list(csv.reader(io.StringIO(given.decode("utf-8-sig")), delimiter=";"))
    assert table[0] == ["name", "phone", "note", imports.REASON]
    assert table[1][0] == "Smith; John"
    assert table[2][2] == "'" + evil
    assert all(not cell.startswith(("=", "@", "-")) for row in table for cell in row)
    repaired = given.decode("utf-8-sig").replace(";12;", f";{gb(1)};").replace(";+44;", f";{gb(2)};")
    again = await imports.run(migrated, (await started(pool, repaired.encode("utf-8-sig"))).id)
    assert (again.added, again.bad) == (2, 1)
    assert again.settings is not None
    assert again.settings.columns == ["name", "phone", "data:note", ""]
    assert [one["data"] for one in await contacts(pool, again.list)] == [{}, {"note": evil}]
    twice = b"".join([part async for part in imports.bad_rows_csv(pool, again)]).decode("utf-8-sig")
    assert twice.splitlines()[0] == f"name;phone;note;{imports.REASON}"  # once, not twice


async def test_duplicates_within_the_file_the_list_and_other_lists(pool: Pool, migrated: str) -> None:
    first = await imports.run(migrated, (await started(pool, sheet(0, 10), "old")).id)
    assert first.added == 10
    again = await imports.run(migrated, (await started(pool, sheet(5, 15), "old")).id)
    assert (again.added, again.duplicates) == (5, 5)
    assert (await imports.bad_rows(pool, again.id))[0].says == "the number is in this list already"
    other = await imports.run(migrated, (await started(pool, sheet(10, 20), "new")).id)
    assert other.added == 10
    third = await started(pool, sheet(0, 30), "third", duplicates="all")
    third = await imports.run(migrated, third.id)
    assert (third.added, third.duplicates) == (10, 20)
    assert {row.says for row in await imports.bad_rows(pool, third.id)} == {
        "the number is in list old",
        "the number is in list new",
    }
    await pool.execute("UPDATE call_lists SET active = false WHERE name = 'old'")
    fourth = await imports.run(
        migrated, (await started(pool, sheet(0, 30), "fourth", duplicates="active")).id
    )
    assert fourth.added == 10  # those only in the inactive list
    keep = await imports.run(
        migrated, (await started(pool, sheet(0, 3) + sheet(0, 3), "k", duplicates="keep")).id
    )
    assert (keep.added, keep.bad) == (6, 1)  # the second header is a row without a number


# ------------------------------------------------------------------------------------------------ killed, away, undone


async def test_a_killed_process_loses_and_doubles_nothing(pool: Pool, migrated: str) -> None:
    rows = 8_000
    view = await started(pool, sheet(0, rows), part=50_000)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dialer.call_lists.import_worker", "run", str(view.id),
        env={**os.environ, "CTI_DATABASE_URL": migrated}, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(100):
        while worker.returncode is None and (await imports.read(pool, view.id)).done == 0:
            await asyncio.sleep(0.005)
    if worker.returncode is None:
        worker.send_signal(signal.SIGKILL)
    await worker.wait()
    half = await imports.read(pool, view.id)
    if half.state == "running":  # else it was through before
        async with asyncio.timeout(100):  # until PostgreSQL has noticed
            while await imports.waiting(pool) != [view.id]:
                await asyncio.sleep(0.02)
        half = await imports.read(pool, view.id)
        assert half.done > 0
        assert await pool.fetchval("SELECT count(*) FROM list_contacts") == half.added
    done = await imports.run(migrated, view.id)
    assert (done.state, done.added, done.bad, done.done) == ("done", rows, 0, rows + 1)
    found = await pool.fetch("SELECT e164, import_row FROM list_contacts ORDER BY import_row")
    assert [tuple(row) for row in found] == [(gb(n), n + 2) for n in range(rows)]


async def test_two_processes_never_work_on_one_import(pool: Pool, migrated: str) -> None:
    view = await started(pool, sheet(0, 3000))
    found = await asyncio.gather(
        *(imports.run(migrated, view.id, batch=100) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(one, ImportView) for one in found) == 1
    assert sum(isinstance(one, imports.Busy) for one in found) == 2
    assert await pool.fetchval("SELECT count(*) FROM list_contacts") == 3000


async def test_an_outage_of_the_database_in_the_middle(
    postgres_server: Postgres, migrated: str, pool: Pool
) -> None:
    view = await started(pool, sheet(0, 4000))

    def cut(told: ImportView) -> None:
        if told.done < 1000:
            killed.append(asyncio.ensure_future(pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cti import%'"
            )))  # fmt: skip

    killed: list[asyncio.Future[Any]] = []
    with pytest.raises(DatabaseUnavailable):
        await imports.run(migrated, view.id, cut, batch=200)
    await asyncio.gather(*killed)
    half = await imports.read(pool, view.id)
    assert half.state == "running"
    assert 0 < half.added == await pool.fetchval("SELECT count(*) FROM list_contacts")
    done = await imports.run(migrated, view.id)
    assert (done.state, done.added) == ("done", 4000)


async def test_what_the_database_refuses_fails_the_import_with_the_reason(pool: Pool, migrated: str) -> None:
    view = await started(pool, sheet(0, 10))
    await pool.execute("ALTER TABLE list_contacts ADD CHECK (name <> 'P7')")
    failed = await imports.run(migrated, view.id)
    assert failed.state == "failed"
    assert "list_contacts" in failed.why
    assert failed.added == 0
    assert await pool.fetchval("SELECT count(*) FROM list_contacts") == 0


async def test_a_full_disk_is_waited_for(pool: Pool, migrated: str) -> None:
    view = await started(pool, sheet(0, 300))
    await pool.execute(
        """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN IF NEW.name = 'P150' THEN RAISE 'no space left' USING ERRCODE = 'disk_full'; END IF; RETURN NEW; END $$"""
    )
    await pool.execute(
        "CREATE TRIGGER t BEFORE INSERT ON list_contacts FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    with pytest.raises(DatabaseUnavailable, match="no space left"):
        await imports.run(migrated, view.id, batch=100)
    half = await imports.read(pool, view.id)
    assert (half.state, half.added) == ("running", 100)
    await pool.execute("DROP TRIGGER t ON list_contacts")
    done = await imports.run(migrated, view.id)
    assert (done.state, done.added) == ("done", 300)


async def test_a_process_that_always_breaks_down_is_given_up_and_harms_no_other(
    pool: Pool, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dialer.call_lists.import_desk.MOST_CRASHES", 1)
    monkeypatch.setattr("dialer.call_lists.import_desk.LONGEST_PAUSE", 0.05)
    broken, whole = await started(pool, sheet(0, 10), "broken"), await started(pool, sheet(0, 10), "whole")
    await pool.execute("UPDATE list_imports SET format = '{\"kind\": 5}' WHERE id = $1", broken.id)
    desk = ImportDesk(lambda: pool, migrated, every=0.05)
    working = asyncio.create_task(desk.run())
    states = {}
    async with asyncio.timeout(100):
        while states != {broken.id: "failed", whole.id: "done"}:
            await asyncio.sleep(0.02)
            states = dict(await pool.fetch("SELECT id, state FROM list_imports"))
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    why = await pool.fetchval("SELECT why FROM list_imports WHERE id = $1", broken.id)
    assert why.startswith("the process broke down")


async def test_cancelled_in_the_middle_then_undone(pool: Pool, migrated: str) -> None:
    view = await started(pool, sheet(0, 5000))
    cancels: list[asyncio.Future[Any]] = []

    def cancel(told: ImportView) -> None:
        if not cancels:
            cancels.append(asyncio.ensure_future(imports.cancel(pool, view.id)))

    ended = await imports.run(migrated, view.id, cancel, batch=100)
    assert ended.state == "cancelled"
    assert 0 < ended.added < 5000
    async with pool.acquire() as db:
        undone = await imports.undo(db, view.id, "sue")
    assert (undone.state, undone.removed, undone.stayed) == ("undone", ended.added, 0)
    assert await contacts(pool, view.list) == []


async def test_undo_keeps_whoever_has_been_called_and_says_so(pool: Pool, migrated: str) -> None:
    view = await imports.run(migrated, (await started(pool, sheet(0, 10))).id)
    ids = [one["id"] for one in await contacts(pool, view.list)]
    await pool.execute("UPDATE list_contacts SET state = 'in_hand' WHERE id = $1", ids[0])
    await pool.execute("UPDATE list_contacts SET attempts = 1, last_attempt = now() WHERE id = $1", ids[1])
    await pool.execute(
        "INSERT INTO campaigns (id, name, mode, profile, created_by, changed_by) VALUES (1, 'c', 'manual', 'GB', '', '')"
    )
    await pool.execute(
        """INSERT INTO attempts (id, campaign_id, contact_id, e164, pbx, mode, profile, owner, committed)
           VALUES ('at-' || repeat('0', 32), 1, $1, $2, 'main', 'manual', 'GB', 'x', now())""",
        *(ids[2], gb(2)),
    )
    async with pool.acquire() as db:
        undone = await imports.undo(db, view.id, "sue")
        assert (undone.removed, undone.stayed) == (7, 3)
        assert [one["id"] for one in await contacts(pool, view.list)] == ids[:3]
        await pool.execute("UPDATE list_contacts SET state = 'open' WHERE id = $1", ids[0])
        again = await imports.undo(db, view.id, "sue")  # what stayed only because it was in hand
        assert (again.removed, again.stayed) == (8, 2)
        running = await started(pool, sheet(0, 1), "other")
        with pytest.raises(NotPossible, match="cancel it first"):
            await imports.undo(db, running.id, "sue")
        with pytest.raises(imports.NoImport):
            await imports.undo(db, 999, "sue")


# ------------------------------------------------------------------------------------------------ around it


async def test_a_workbook_is_unpacked_by_a_process_of_its_own(
    pool: Pool, migrated: str, tmp_path: Path
) -> None:
    path = workbook(
        tmp_path / "k.xlsx", {"a": [["Name", "Mobile"], ["Ann", 447911000001], ["Bob", "07911 000002"]]}
    )
    content = path.read_bytes()
    id = await imports.begin(pool, "k.xlsx", "sue")
    for n, place in enumerate(range(0, len(content), 300)):
        await imports.add_part(pool, id, n, content[place : place + 300])
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dialer.call_lists.import_worker", "unpack", str(id),
        env={**os.environ, "CTI_DATABASE_URL": migrated}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await worker.communicate()
    assert worker.returncode == 0
    answer = json.loads(told)
    assert answer["format"]["sheet"] == "a"
    assert await pool.fetchval("SELECT string_agg(bytes, '' ORDER BY part) FROM list_import_parts") == (
        b"Name,Mobile\nAnn,447911000001\nBob,07911 000002\n"
    )


async def test_a_preview_says_what_each_row_would_become(pool: Pool) -> None:
    view = await upload(pool, GERMAN + b"Max;M;12;;;;;;;;\n")
    lines = await imports.sample(pool, view)
    found, settings = imports.guess_settings(lines, "DE")
    assert found.header
    assert settings is not None
    rows = imports.preview(lines, settings)
    assert [(row.row, row.number, row.why_not[:15]) for row in rows] == [
        (2, "+49301234567", ""),
        (3, "+33142685300", ""),
        (4, "+12125550147", ""),
        (5, "+18085550147", ""),
        (6, "", "'12' is no numb"),
    ]
    assert (rows[0].name, rows[0].zones, rows[0].data) == (
        "Jürgen Groß",
        ("Europe/Berlin",),
        {"tarif": "Gold"},
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"columns": ["name"]}, "no column is a phone number"),
        ({"columns": ["phone", "name", "name"]}, "name is said of two columns"),
        ({"columns": ["phone", "shoe"]}, "shoe is no field"),
        ({"columns": ["phone", "data:Sh oe"]}, "columns"),
        ({"columns": ["phone"], "country": "XX"}, "no country of this code"),
        ({"columns": ["phone"], "zone": "Mars/Base"}, "not a time zone"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ImportSettings.model_validate({"country": "GB"} | wrong)


async def test_an_import_is_started_once_and_old_files_are_let_go_of(pool: Pool, migrated: str) -> None:
    view = await started(pool, sheet(0, 3))
    assert view.settings is not None
    assert view.list is not None
    with pytest.raises(NotPossible, match="this import is running"):
        await imports.start(pool, view.id, view.list, view.settings)
    await imports.run(migrated, view.id)
    left = await upload(pool, sheet(0, 3))
    half = await imports.begin(pool, "half.csv", "sue")
    await pool.execute(
        "UPDATE list_imports SET created = now() - interval '8 days' WHERE id = ANY($1)", [left.id, half]
    )
    await imports.expire(pool, (await pool.fetchval("SELECT now() + interval '1 day'")))
    assert [one.id for one in await imports.of_list(pool, None)] == [view.id]


async def test_zone_groups_are_made_once_by_whoever_is_first(pool: Pool) -> None:
    groups = {Group("GB", "", ("Europe/London",)), Group("DE", "BY", ("Europe/Berlin",)), Group("", "", ())}
    found = await asyncio.gather(*(ZoneGroups(pool).ids(groups) for _ in range(4)))
    assert all(one == found[0] for one in found)
    assert await pool.fetchval("SELECT count(*) FROM zone_groups") == 3


async def test_paging_and_looking_up_use_indexes(pool: Pool, migrated: str) -> None:
    await imports.run(migrated, (await started(pool, sheet(0, 2000), "one")).id)
    await imports.run(migrated, (await started(pool, sheet(2000, 4000), "two")).id)
    await pool.execute("ANALYZE list_contacts")
    for query in (
        "SELECT * FROM list_contacts c WHERE list_id = 1 AND id > 100 ORDER BY list_id, id LIMIT 100",
        "SELECT * FROM list_contacts WHERE e164 = ANY('{+447911000001,+447911000002}')",
    ):
        plan = "\n".join(row[0] for row in await pool.fetch("EXPLAIN " + query))
        assert "Index Scan" in plan or "Bitmap Index Scan" in plan, plan
        assert "Sort" not in plan


async def test_an_empty_list_name_and_a_lost_list(pool: Pool) -> None:
    with pytest.raises(ValidationError):
        NewList(name=" ")
    with pytest.raises(lists.NoList):
        await lists.read(pool, 1)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await imports.start(
            pool, (await upload(pool, sheet(0, 1))).id, 77, ImportSettings(columns=["phone"], country="GB")
        )
