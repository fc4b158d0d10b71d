"""`cti lists` as a campaign manager types it: preview, import, resume, repair, undo, merge, split; what mistakes say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cti.database import connection
from tests.list_files import consent, customers, gb, sheet
from tests.test_cli import Ended, Run, cti  # noqa: F401  # the fixture
from tests.test_sheets import workbook


@pytest.fixture
def lists(cti: Run, migrated: str) -> Callable[..., Ended]:  # noqa: F811
    return lambda *arguments, **given: cti("lists", *arguments, CTI_DATABASE_URL=migrated, **given)


def test_from_a_spreadsheet_to_a_list_and_back(lists: Callable[..., Ended], tmp_path: Path) -> None:
    assert "no lists yet" in lists().stdout
    file = tmp_path / "may.csv"
    file.write_bytes(
        "Vorname;Nachname;Tel.;Ort\nJürgen;Groß;030 1234567;Köln\nAnn;Lee;12;Ulm\n".encode("cp1252")
    )
    shown = lists("import", str(file), "--list", "May", "--country", "DE")
    assert shown.returncode == 2
    assert "say --yes" in shown.stderr
    for told in (
        "cp1252, separator ';'",
        "Nachname",
        "last_name",
        "+49301234567",
        "Jürgen Groß",
        "'12' is no number",
    ):
        assert told in shown.stderr
    assert "no lists yet" in lists().stdout

    done = lists("import", str(file), "--list", "May", "--country", "de", "--yes")
    assert done.stdout.splitlines() == [
        "1 contacts added (import 1).",
        "1 rows were not taken: cti lists bad-rows 1 -o repair.csv",
    ]
    assert "May" in lists().stdout
    assert json.loads(lists("--json").stdout)[0]["contacts"] == {"open": 1}
    one = json.loads(lists("show", "May", "--json").stdout)
    assert one["before_launch"]["hindrances"] == ["the list belongs to no campaign"]
    assert "bad_number" in lists("show", "May").stdout

    repair = tmp_path / "repair.csv"
    assert "1 rows" in lists("bad-rows", "1", "-o", str(repair)).stdout
    text = repair.read_text(encoding="utf-8-sig")
    assert text.splitlines()[1] == "Ann;Lee;12;Ulm;'12' is no number that exists (read in DE)"
    repair.write_text(text.replace(";12;", ";030 7654321;"), encoding="utf-8-sig")
    assert (
        "1 contacts added" in lists("import", str(repair), "--list", "May", "--country", "DE", "--yes").stdout
    )
    assert [row["file"] for row in json.loads(lists("imports", "May", "--json").stdout)] == [
        "repair.csv",
        "may.csv",
    ]

    assert lists("undo", "2").returncode == 2  # asks, and nobody is there
    assert lists("undo", "2", "--yes").stdout == "1 contacts are gone.\n"
    assert json.loads(lists("--json").stdout)[0]["contacts"] == {"open": 1}


def test_columns_can_be_said_and_workbooks_read(lists: Callable[..., Ended], tmp_path: Path) -> None:
    file = workbook(
        tmp_path / "k.xlsx", {"a": [["Who", "Mobile", "Office"], ["Zoë", 447911000001, "020 7946 0018"]]}
    )
    told = lists("import", str(file), "--list", "x", "--country", "GB", "--map", "Who=data:who", "--map", "2=none",
                 "--map", "Office=phone", "--yes", "--json")  # fmt: skip
    view = json.loads(told.stdout)
    assert (view["state"], view["settings"]["columns"]) == ("done", ["data:who", "", "phone"])


def test_lists_are_changed_merged_split_and_deleted(
    lists: Callable[..., Ended], migrated: str, tmp_path: Path
) -> None:
    async def ran(statement: str) -> None:
        async with connection(migrated, name="test") as db:
            await db.execute(statement)

    asyncio.run(ran("INSERT INTO teams (id, name) VALUES ('sales', 'Sales')"))
    for name, first in (("one", 0), ("two", 5)):
        (tmp_path / name).write_bytes(sheet(first, first + 10))
        assert (
            lists("import", str(tmp_path / name), "--list", name, "--country", "GB", "--yes").returncode == 0
        )
    assert lists("create", "three").stdout == "List three is there, number 3.\n"
    (tmp_path / "script").write_text("Good morning")
    set_ = lists(
        "set", "one", "--priority", "7", "--inactive", "--team", "sales", "--script", str(tmp_path / "script")
    )
    assert set_.stdout == "Changed one.\n"
    one = json.loads(lists("show", "one", "--json").stdout)
    assert (one["priority"], one["active"], one["script"]) == (7, False, "Good morning")
    assert one["settings"]["assigned"]["teams"] == ["sales"]
    rules = ("--quota", "connected=50/day", "--quota", "disposition:Sale=20", "--recycling", "busy=15,30*4")
    assert lists("set", "one", *rules, "--recycling", "fax=never").returncode == 0
    own = json.loads(lists("set", "one", "--recycling", "fax=", "--json").stdout)["settings"]
    assert [(one["counts"], one["disposition"], one["most"], one["per"]) for one in own["quota"]] == [
        ("connected", "", 50, "day"),
        ("disposition", "Sale", 20, "total"),
    ]
    busy = own["recycling"]["busy"]
    assert (list(own["recycling"]), busy["after_minutes"], busy["at_most"]) == (["busy"], [15, 30], 4)
    assert json.loads(lists("set", "one", "--quota", "", "--json").stdout)["settings"]["quota"] == []
    asyncio.run(
        ran(f"UPDATE list_contacts SET state = 'exhausted', last_outcome = 'busy' WHERE e164 = '{gb(1)}'")
    )
    assert lists("recycle", "one", "no_answer", "busy", "--yes").stdout == "1 contacts are open again.\n"
    shown = lists("contacts", "one", "--where", f"q={gb(1)}").stdout
    assert gb(1) in shown
    assert gb(2) not in shown
    assert "more than these 3" in lists("contacts", "one", "--limit", "3").stdout
    assert "10 contacts moved, 5 duplicates removed" in lists("merge", "one", "two", "--yes").stdout
    assert "7 contacts moved into 1 new list(s)" in lists("split", "one", "--parts", "2").stdout
    moved = lists("split", "one", "--into", "few", "--where", "q=P1", "--where", "data:city=Leeds")
    assert "new list" in moved.stdout
    assert lists("dedupe", "one", "few", "--yes").stdout == "0 duplicates removed.\n"
    assert "contacts are gone" in lists("delete", "few", "--yes").stdout


def test_a_list_is_made_of_customers_who_have_consented(lists: Callable[..., Ended], migrated: str) -> None:
    async def there_are() -> None:
        async with connection(migrated, name="test") as db:
            await customers(db, ("Ann", gb(0)), ("Bea", gb(1)), ("Cid", None))
            await consent(db, "S0", given=True, purpose="renewal")
            await db.execute(
                """INSERT INTO campaigns (name, mode, profile, settings, created_by, changed_by)
                   VALUES ('Spring', 'manual', 'default', '{"purpose": "renewal"}', '', '')"""
            )

    asyncio.run(there_are())
    assert "no target groups yet" in lists("groups").stdout
    saved = lists("groups", "save", "Best", "--class", "A", "--country", "gb")
    assert saved.stdout == "Group Best, number 1: 3 customers, 2 with a phone.\n"
    assert "classes A; countries GB" in lists("groups").stdout
    told = lists("groups", "preview", "Best", "--campaign", "Spring", "--country", "GB").stdout
    assert "Consent to calls for renewal (needed by the campaign's profile)" in told
    for line in (
        "1  usable",
        "1  law:consent",
        "1  row:no_number",
        "1  have consented",
        "1  have said nothing",
    ):
        assert line in told
    given = ["groups", "import", "Best", "--list", "May", "--campaign", "Spring", "--country", "GB"]
    assert "1 contacts added" in lists(*given, "--yes").stdout
    assert "no consent to calls for renewal" in lists("bad-rows", "1").stdout
    (may,) = json.loads(lists("--json").stdout)
    assert (may["campaign"], may["contacts"]) == (1, {"open": 1})
    view = json.loads(lists("groups", "preview", "1", "--list", "May", "--country", "GB", "--json").stdout)
    assert (view["campaign"], view["there"], view["usable"]) == (1, 1, 0)  # the list says which campaign
    assert "3 customers" in lists("groups", "save", "Best", "--last-contact-days", "7").stdout  # in its place
    for arguments, code, sentence in (
        (("preview", "x", "--country", "GB"), 2, "there is no target group x"),
        (("preview", "Best"), 2, "say the country"),
        (("preview", "Best", "--country", "GB", "--campaign", "x"), 1, "there is no campaign x"),
        (("save", "Best", "--status", "dead"), 2, "statuses"),
    ):
        ended = lists("groups", *arguments)
        assert sentence in ended.stderr, arguments
        assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)
    assert "is gone; lists made of it stay" in lists("groups", "remove", "Best", "--yes").stdout
    assert "no target groups yet" in lists("groups").stdout


MISTAKES: list[tuple[list[str], int, str]] = [
    (["import", "/no/such.csv", "--list", "x", "--country", "GB", "--yes"], 2, "is no file"),
    (["import", "{file}", "--list", "x", "--yes"], 2, "say the country"),
    (["import", "{file}", "--list", "x", "--country", "QQ", "--yes"], 2, "number plan"),
    (
        ["import", "{file}", "--list", "x", "--country", "GB", "--map", "nmae=name", "--yes"],
        2,
        "no column nmae",
    ),
    (
        ["import", "{file}", "--list", "x", "--country", "GB", "--map", "city=shoe", "--yes"],
        2,
        "shoe is no field",
    ),
    (
        ["import", "{file}", "--list", "x", "--country", "GB", "--map", "phone=none", "--yes"],
        2,
        "no column looks like",
    ),
    (
        ["import", "{file}", "--list", "x", "--country", "GB", "--zone", "Mars", "--yes"],
        2,
        "not a time zone",
    ),
    (["import", "{empty}", "--list", "x", "--country", "GB", "--yes"], 1, "the file is empty"),
    (["show", "nobody"], 2, "there is no list nobody"),
    (["undo", "77", "--yes"], 2, "no such import"),
    (["resume", "77"], 2, "there is no import 77"),
    (["split", "x"], 2, "say --parts N"),
    (["merge", "a", "b"], 2, "say --yes"),
    (["recycle", "a", "sleepy", "--yes"], 2, "outcomes"),
    (["set", "{list}", "--quota", "connected=many"], 2, "write it like connected=50/day"),
    (["set", "{list}", "--recycling", "busy"], 2, "write it like busy=15,30"),
    (["set", "{list}", "--recycling", "sleepy=5"], 2, "recycling"),
    (["set", "{list}", "--team", "nobody", "--agent", "zoe"], 1, "there is no team nobody, no agent zoe"),
]


def test_mistakes_are_a_sentence_and_change_nothing(lists: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(sheet(0, 3))
    (tmp_path / "empty").write_bytes(b"")
    names = {"file": tmp_path / "file", "empty": tmp_path / "empty", "list": "There"}
    assert lists("create", "There").returncode == 0
    for arguments, code, sentence in MISTAKES:
        ended = lists(*(argument.format(**names) for argument in arguments))
        assert sentence in ended.stderr, arguments
        assert "Traceback" not in ended.stderr
        assert ended.returncode == code, arguments
    (there,) = json.loads(lists("--json").stdout)
    assert (there["version"], there["contacts"]) == (1, {})


def test_an_import_stopped_with_ctrl_c_is_resumed(
    lists: Callable[..., Ended], migrated: str, tmp_path: Path
) -> None:
    (tmp_path / "long.csv").write_bytes(sheet(0, 11_000))
    running = subprocess.Popen(
        [sys.executable, "-m", "cti", "lists", "import", str(tmp_path / "long.csv"), "--list", "x", "--country", "GB", "-y"],
        env={**os.environ, "CTI_DATABASE_URL": migrated}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not json.loads(lists("imports", "--json").stdout or "[]") and time.monotonic() < deadline:
        time.sleep(0.02)
    while (
        not any(view["done"] for view in json.loads(lists("imports", "--json").stdout))
        and running.poll() is None
    ):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=100)
    if running.returncode:  # else it was through before
        assert running.returncode == 130
        assert b"cti lists resume 1" in told
        assert b"Traceback" not in told
        assert "11,000 contacts added" in lists("resume").stdout
    (one,) = json.loads(lists("--json").stdout)
    assert one["contacts"] == {"open": 11_000}
