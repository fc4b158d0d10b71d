"""`cti lists` as a campaign manager types it, at a server over REST: preview, import, repair, undo, merge, split; who may
what; what mistakes say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from cti.embedded.postgres import Postgres
from tests.centre import PASSWORD
from tests.list_files import consent, customers, gb, sheet
from tests.quiet_house import House, quiet_house
from tests.test_cli import Ended, Run, cti  # noqa: F401  # the fixture
from tests.test_sheets import workbook

pytestmark = pytest.mark.asyncio(loop_scope="module")

Lists = Callable[..., Awaitable[Ended]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_house(postgres_server: Postgres) -> AsyncIterator[House]:
    async with quiet_house(postgres_server) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(the_house: House) -> House:
    """The server of all these tests, without lists, groups and customers."""
    await the_house.desk.pool.execute(
        """DELETE FROM campaigns;
           TRUNCATE call_lists, list_contacts, list_imports, target_groups, accounts, phones, consents
           RESTART IDENTITY CASCADE"""
    )
    return the_house


@pytest.fixture
def lists(cti: Run, house: House) -> Lists:  # noqa: F811
    """Runs the command as sara, who leads the team sales, or as `who`."""

    async def run(*arguments: str, who: str = "sara", **given: str) -> Ended:
        proof = {"CTI_API_KEY": await house.token(who)} if not given else {"CTI_LOGIN": who, **given}
        return await asyncio.to_thread(cti, "lists", *arguments, **{"CTI_URL": house.server.url, **proof})

    return run


async def test_from_a_spreadsheet_to_a_list_and_back(lists: Lists, tmp_path: Path) -> None:
    assert "no lists yet" in (await lists()).stdout
    file = tmp_path / "may.csv"
    file.write_bytes(
        "Vorname;Nachname;Tel.;Ort\nJürgen;Groß;030 1234567;Köln\nAnn;Lee;12;Ulm\n".encode("cp1252")
    )
    shown = await lists("import", str(file), "--list", "May", "--country", "DE")
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
    assert "no lists yet" in (await lists()).stdout

    done = await lists("import", str(file), "--list", "May", "--country", "de", "--yes")
    assert done.stdout.splitlines() == [
        "1 contacts added (import 2).",
        "1 rows were not taken: cti lists bad-rows 2 -o repair.csv",
    ]
    assert "May" in (await lists()).stdout
    assert json.loads((await lists("--json")).stdout)[0]["contacts"] == {"open": 1}
    one = json.loads((await lists("show", "May", "--json")).stdout)
    assert one["before_launch"]["hindrances"] == ["the list belongs to no campaign"]
    assert "bad_number" in (await lists("show", "May")).stdout

    repair = tmp_path / "repair.csv"
    assert "1 rows" in (await lists("bad-rows", "2", "-o", str(repair))).stdout
    text = repair.read_text(encoding="utf-8-sig")
    assert text.splitlines()[1] == "Ann;Lee;12;Ulm;'12' is no number that exists (read in DE)"
    repair.write_text(text.replace(";12;", ";030 7654321;"), encoding="utf-8-sig")
    assert (
        "1 contacts added"
        in (await lists("import", str(repair), "--list", "May", "--country", "DE", "--yes")).stdout
    )
    assert [row["file"] for row in json.loads((await lists("imports", "May", "--json")).stdout)] == [
        "repair.csv",
        "may.csv",
    ]

    assert (await lists("undo", "3")).returncode == 2  # asks, and nobody is there
    assert (await lists("undo", "3", "--yes")).stdout == "1 contacts are gone.\n"
    assert json.loads((await lists("--json")).stdout)[0]["contacts"] == {"open": 1}


async def test_columns_can_be_said_and_workbooks_read(lists: Lists, tmp_path: Path) -> None:
    file = workbook(
        tmp_path / "k.xlsx", {"a": [["Who", "Mobile", "Office"], ["Zoë", 447911000001, "020 7946 0018"]]}
    )
    told = await lists("import", str(file), "--list", "x", "--country", "GB", "--map", "Who=data:who", "--map", "2=none",
                 "--map", "Office=phone", "--yes", "--json")  # fmt: skip
    view = json.loads(told.stdout)
    assert (view["state"], view["settings"]["columns"]) == ("done", ["data:who", "", "phone"])


async def test_lists_are_changed_merged_split_and_deleted(lists: Lists, house: House, tmp_path: Path) -> None:
    for name, first in (("one", 0), ("two", 5)):
        (tmp_path / name).write_bytes(sheet(first, first + 10))
        assert (
            await lists("import", str(tmp_path / name), "--list", name, "--country", "GB", "--yes")
        ).returncode == 0
    assert (await lists("create", "three")).stdout == "List three is there, number 3.\n"
    (tmp_path / "script").write_text("Good morning")
    set_ = await lists(
        "set", "one", "--priority", "7", "--inactive", "--team", "sales", "--script", str(tmp_path / "script")
    )
    assert set_.stdout == "Changed one.\n"
    one = json.loads((await lists("show", "one", "--json")).stdout)
    assert (one["priority"], one["active"], one["script"]) == (7, False, "Good morning")
    assert one["settings"]["assigned"]["teams"] == ["sales"]
    rules = ("--quota", "connected=50/day", "--quota", "disposition:Sale=20", "--recycling", "busy=15,30*4")
    assert (await lists("set", "one", *rules, "--recycling", "fax=never")).returncode == 0
    own = json.loads((await lists("set", "one", "--recycling", "fax=", "--json")).stdout)["settings"]
    assert [(one["counts"], one["disposition"], one["most"], one["per"]) for one in own["quota"]] == [
        ("connected", "", 50, "day"),
        ("disposition", "Sale", 20, "total"),
    ]
    busy = own["recycling"]["busy"]
    assert (list(own["recycling"]), busy["after_minutes"], busy["at_most"]) == (["busy"], [15, 30], 4)
    assert json.loads((await lists("set", "one", "--quota", "", "--json")).stdout)["settings"]["quota"] == []
    await house.desk.pool.execute(
        f"UPDATE list_contacts SET state = 'exhausted', last_outcome = 'busy' WHERE e164 = '{gb(1)}'"
    )
    assert (
        await lists("recycle", "one", "no_answer", "busy", "--yes")
    ).stdout == "1 contacts are open again.\n"
    shown = (await lists("contacts", "one", "--where", f"q={gb(1)}")).stdout
    assert gb(1) in shown
    assert gb(2) not in shown
    assert "more than these 3" in (await lists("contacts", "one", "--limit", "3")).stdout
    assert "10 contacts moved, 5 duplicates removed" in (await lists("merge", "one", "two", "--yes")).stdout
    assert "7 contacts moved into 1 new list(s)" in (await lists("split", "one", "--parts", "2")).stdout
    moved = await lists("split", "one", "--into", "few", "--where", "q=P1", "--where", "data:city=Leeds")
    assert "new list" in moved.stdout
    assert (await lists("dedupe", "one", "few", "--yes")).stdout == "0 duplicates removed.\n"
    assert "contacts are gone" in (await lists("delete", "few", "--yes")).stdout


async def test_a_list_is_made_of_customers_who_have_consented(lists: Lists, house: House) -> None:
    async with house.desk.pool.acquire() as db:
        await customers(db, ("Ann", gb(0)), ("Bea", gb(1)), ("Cid", None))
        await consent(db, "S0", given=True, purpose="renewal")
    settings = {"team": "sales", "purpose": "renewal"}
    new = {"name": "Spring", "mode": "manual", "profile": "default", "settings": settings}
    status, spring = await house.ask("POST", "/campaigns", "sara", json=new)
    assert status == 201, spring
    assert "no target groups yet" in (await lists("groups")).stdout
    saved = await lists("groups", "save", "Best", "--class", "A", "--country", "gb")
    assert saved.stdout == "Group Best, number 1: 3 customers, 2 with a phone.\n"
    assert "classes A; countries GB" in (await lists("groups")).stdout
    told = (await lists("groups", "preview", "Best", "--campaign", "Spring", "--country", "GB")).stdout
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
    assert "1 contacts added" in (await lists(*given, "--yes")).stdout
    assert "no consent to calls for renewal" in (await lists("bad-rows", "1")).stdout
    (may,) = json.loads((await lists("--json")).stdout)
    assert (may["campaign"], may["contacts"]) == (spring["view"]["id"], {"open": 1})
    view = json.loads(
        (await lists("groups", "preview", "1", "--list", "May", "--country", "GB", "--json")).stdout
    )
    assert (view["campaign"], view["there"], view["usable"]) == (
        spring["view"]["id"],
        1,
        0,
    )  # the list says which campaign
    assert (
        "3 customers" in (await lists("groups", "save", "Best", "--last-contact-days", "7")).stdout
    )  # in its place
    for arguments, code, sentence in (
        (("preview", "x", "--country", "GB"), 2, "there is no target group x"),
        (("preview", "Best"), 2, "say the country"),
        (("preview", "Best", "--country", "GB", "--campaign", "x"), 1, "there is no campaign x"),
        (("save", "Best", "--status", "dead"), 2, "statuses"),
    ):
        ended = await lists("groups", *arguments)
        assert sentence in ended.stderr, arguments
        assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)
    assert "is gone; lists made of it stay" in (await lists("groups", "remove", "Best", "--yes")).stdout
    assert "no target groups yet" in (await lists("groups")).stdout


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
    (["import", "{empty}", "--list", "x", "--country", "GB", "--yes"], 2, "empty: the file is empty"),
    (["show", "nobody"], 2, "there is no list nobody"),
    (["undo", "77", "--yes"], 2, "no such import"),
    (["resume", "77"], 2, "there is no such import"),
    (["split", "x"], 2, "say --parts N"),
    (["split", "{list}", "--into", "y", "--where", "colour=red"], 2, "colour"),
    (["--login", "sara", "show", "x"], 2, "write --login after the command show"),
    (["bad-rows", "77", "-o", "{file}"], 2, "no such import"),
    (["merge", "a", "b"], 2, "say --yes"),
    (["recycle", "{list}", "sleepy", "--yes"], 2, "outcomes"),
    (["set", "{list}", "--quota", "connected=many"], 2, "write it like connected=50/day"),
    (["set", "{list}", "--recycling", "busy"], 2, "write it like busy=15,30"),
    (["set", "{list}", "--recycling", "sleepy=5"], 2, "recycling"),
    (
        ["set", "{list}", "--team", "nobody", "--agent", "zoe"],
        1,
        "assign the list to a team or agents of yours",
    ),
]


async def test_mistakes_are_a_sentence_and_change_nothing(lists: Lists, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(sheet(0, 3))
    (tmp_path / "empty").write_bytes(b"")
    names = {"file": tmp_path / "file", "empty": tmp_path / "empty", "list": "There"}
    assert (await lists("create", "There")).returncode == 0
    for arguments, code, sentence in MISTAKES:
        ended = await lists(*(argument.format(**names) for argument in arguments))
        assert sentence in ended.stderr, arguments
        assert "Traceback" not in ended.stderr
        assert ended.returncode == code, arguments
    assert (tmp_path / "file").read_bytes() == sheet(0, 3)
    assert json.loads((await lists("imports", "--json")).stdout) == []  # what was sent has been taken back
    (there,) = json.loads((await lists("--json")).stdout)
    assert (there["version"], there["contacts"]) == (1, {})


async def test_whoever_logs_in_works_with_their_rights_and_that_is_audited(
    lists: Lists, house: House, tmp_path: Path
) -> None:
    (tmp_path / "may.csv").write_bytes(sheet(0, 3))
    given = ("import", str(tmp_path / "may.csv"), "--list", "May", "--country", "GB", "--yes")
    done = await lists(*given, CTI_PASSWORD=PASSWORD)
    assert done.stdout == "3 contacts added (import 1).\n", done.stderr
    assert (await lists("set", "May", "--team", "sales", CTI_PASSWORD=PASSWORD)).stdout == "Changed May.\n"
    trail = await house.trail("list_import.uploaded", "list_import.started", "list.changed")
    assert [one["actor"] for one in trail][-3:] == ["sara"] * 3

    assert json.loads((await lists("--json", who="sven")).stdout) == []  # of another team
    assert json.loads((await lists("imports", "--json", who="sven")).stdout) == []
    for asked in (
        ("show", "May"),
        ("show", "1"),
        ("set", "May", "--inactive"),
        ("delete", "May", "--yes"),
        ("contacts", "May"),
        ("imports", "May"),
        ("merge", "May", "1", "--yes"),
    ):
        refused = await lists(*asked, who="sven")
        assert (refused.returncode, refused.stdout) == (2, ""), asked
        assert "or it is not one of yours" in refused.stderr
    for asked in (("undo", "1", "--yes"), ("bad-rows", "1"), ("resume", "1")):
        assert (
            "there is no such import (1), or it is not one of yours"
            in (await lists(*asked, who="sven")).stderr
        )
    assert "another list is called May" in (await lists(*given, who="sven")).stderr
    for asked in ((), given, ("show", "May"), ("groups",)):
        refused = await lists(*asked, who="anna")
        assert (refused.returncode, refused.stdout) == (1, ""), asked
        assert "this is for admin, supervisor; you are agent" in refused.stderr
    assert json.loads((await lists("--json", who="olga")).stdout)[0]["contacts"] == {"open": 3}
    assert [one["id"] for one in json.loads((await lists("imports", "--json", who="olga")).stdout)] == [1]

    wrong = await lists("show", "May", CTI_PASSWORD="not this one")
    assert (wrong.returncode, "password" in wrong.stderr) == (1, True)
    nobody = await lists("show", "May", CTI_URL="http://127.0.0.1:9", CTI_PASSWORD=PASSWORD)
    assert (nobody.returncode, "No CTI server at http://127.0.0.1:9" in nobody.stderr) == (1, True)


async def test_a_server_goes_on_with_an_import_that_nobody_looks_at_any_more(
    lists: Lists, house: House, tmp_path: Path
) -> None:
    (tmp_path / "long.csv").write_bytes(sheet(0, 11_000))
    environment = {**os.environ, "CTI_URL": house.server.url, "CTI_API_KEY": await house.token("sara")}
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cti", "lists", "import", str(tmp_path / "long.csv"), "--list", "x"),
        *("--country", "GB", "-y"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(100):
        while not await house.desk.pool.fetchval(
            "SELECT count(*) FROM list_imports WHERE started IS NOT NULL"
        ):
            await asyncio.sleep(0.02)
        if running.returncode is None:
            running.send_signal(signal.SIGINT)
        _, told = await running.communicate()
    if running.returncode:  # else it was through before
        assert running.returncode == 130
        assert b"the server goes on with it; cti lists resume 1 looks again" in told
        assert b"Traceback" not in told
        assert "11,000 contacts added" in (await lists("resume", "1")).stdout
    assert (await lists("resume")).stdout == "No import is under way.\n"
    (one,) = json.loads((await lists("--json")).stdout)
    assert one["contacts"] == {"open": 11_000}
