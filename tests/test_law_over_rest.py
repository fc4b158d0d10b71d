"""The dialer's law over REST, as a command in a call, and on the command line: who may, what holds at once."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cti.__main__ import main
from cti.commands import CommandError
from cti.embedded.postgres import Postgres
from cti.people import Actor, Role
from dialer.attempts import Told
from dialer.calling import attempt_store
from dialer.calling.live import Live, new_attempt
from dialer.calling.pace import Pace
from dialer.law.abandoned import error_share
from dialer.law.ledger import by_minute
from dialer.law.profiles import load as load_profiles
from dialer.management import screen
from dialer.management.settings import Campaign, CampaignSettings
from tests.centre import PASSWORD
from tests.law_desk import NUMBER
from tests.quiet_house import House, quiet_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANNA = Actor(login="anna", name="Anna", role=Role.AGENT)
OLGA = Actor(login="olga", name="Olga", role=Role.ADMIN)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_house(postgres_server: Postgres) -> AsyncIterator[House]:
    async with quiet_house(postgres_server) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(the_house: House) -> House:
    # Not truncated: the server reads meanwhile, and a campaign with the number of an older one would have its sums.
    await the_house.desk.pool.execute(
        "TRUNCATE do_not_call, consents RESTART IDENTITY; DELETE FROM attempts; DELETE FROM list_contacts;"
        "DELETE FROM call_lists; DELETE FROM campaigns"
    )
    return the_house


async def test_profiles_are_shown_with_source_and_date(house: House) -> None:
    status, told = await house.ask("GET", "/dialer/profiles", "sara")
    assert status == 200
    assert [view["name"] for view in told["items"]] == ["DE", "FR", "GB", "ID", "PL", "US", "default"]
    status, us = await house.ask("GET", "/dialer/profiles/US")
    rules = {rule["rule"]: rule for rule in us["rules"]}
    assert rules["abandonment"]["says"] == "at most 3.00% of live answers in 720 hours"
    assert rules["abandonment"]["checked"] is False
    assert rules["consent"]["confirm"] == "confirm with your counsel"
    assert (await house.ask("GET", "/dialer/profiles/XX"))[0] == 404
    status, tried = await house.ask(
        "POST", "/dialer/profiles/GB/try", json={"settings": {"attempts_per_day": 2}}
    )
    assert [rule["by"] for rule in tried["rules"] if rule["rule"] == "attempts_per_number"] == ["campaign"]
    status, told = await house.ask("POST", "/dialer/profiles/GB/try", json={"settings": {"min_ring_s": 5}})
    assert (status, told["code"]) == (422, "too_loose")
    assert "profile GB allows at least 15" in told["detail"]


async def test_entries_are_added_found_and_taken_back_and_that_is_audited(house: House) -> None:
    status, entry = await house.ask(
        "POST",
        "/dialer/do-not-call",
        "sara",
        json={"number": "020 7946 0151", "region": "GB", "reason": "asked"},
    )
    assert (status, entry["number"], entry["added_by"], entry["scope"]) == (201, NUMBER, "sara", "everywhere")
    status, found = await house.ask("POST", "/dialer/do-not-call/find", json={"number": NUMBER})
    assert [one["id"] for one in found["entries"]] == [entry["id"]]
    path = f"/dialer/do-not-call/{entry['id']}/remove"
    assert (await house.ask("POST", path, json={"why": ""}))[0] == 422
    status, removed = await house.ask("POST", path, json={"why": "a mistake"})
    assert (status, removed["removed_by"], removed["removed_why"]) == (200, "olga", "a mistake")
    assert (await house.ask("POST", path, json={"why": "again"}))[0] == 404
    status, told = await house.ask("GET", "/dialer/do-not-call?limit=1")
    assert ([one["id"] for one in told["items"]], told["next"]) == ([entry["id"]], None)
    trail = await house.trail("do_not_call.added", "do_not_call.removed")
    assert [(one["actor"], one["action"], one["detail"]["entry"]) for one in trail[-2:]] == [
        ("sara", "do_not_call.added", entry["id"]),
        ("olga", "do_not_call.removed", entry["id"]),
    ]
    assert NUMBER not in str(trail)


async def test_what_is_wrong_is_said_and_changes_nothing(house: House) -> None:
    for path, body, complaint in (
        ("/dialer/do-not-call", {"number": "12"}, "no country has such a number"),
        ("/dialer/do-not-call", {"number": NUMBER, "scope": "company"}, "for which company"),
        ("/dialer/do-not-call", {"number": NUMBER, "expires": "2020-01-01T00:00:00Z"}, "past"),
        ("/dialer/consents", {"given": True, "source": "form"}, "whose consent"),
        (
            "/dialer/consents",
            {"number": NUMBER, "given": True, "source": "form", "at": "9999-01-01T00:00:00Z"},
            "9000",
        ),
        ("/dialer/consents/find", {}, "whose consents"),
        ("/dialer/why", {"number": "nobody"}, "no country has such a number"),
    ):
        status, told = await house.ask("POST", path, json=body)
        assert (status, complaint in told["detail"]) == (422, True), told
    assert await house.desk.pool.fetchval("SELECT count(*) FROM do_not_call") == 0


async def test_a_file_of_refusals_is_listed_at_once(house: House) -> None:
    path, lines = (
        "/dialer/do-not-call/import",
        b"Nummer;Grund\n0207 946 0151;asked\n+442079460152;\nnobody;x\n",
    )
    status, told = await house.ask(
        "POST", path + "?country=GB&scope=company&company=Acme", "sara", data=lines
    )
    assert (status, told) == (
        200,
        {"new": 2, "known": 0, "refused": 1, "samples": ["line 4: no number of this country"]},
    )
    _, told = await house.ask("POST", path + "?country=GB&scope=company&company=Acme", data=lines)
    assert (told["new"], told["known"]) == (0, 2)
    _, found = await house.ask("POST", "/dialer/do-not-call/find", json={"number": NUMBER})
    assert [(one["company"], one["added_by"]) for one in found["entries"]] == [("Acme", "sara")]
    for wrong, why in (("country=ZZ", "no country"), ("country=GB&scope=company", "for which company")):
        status, told = await house.ask("POST", f"{path}?{wrong}", data=lines)
        assert (status, why in told["detail"]) == (422, True), told
    status, told = await house.ask("POST", path + "?country=GB", data=b"x\n")
    assert (status, "holds no numbers" in told["detail"]) == (422, True)
    assert [one["detail"]["new"] for one in await house.trail("do_not_call.imported")][-2:] == [2, 0]


async def test_supervisors_have_what_is_of_their_campaigns_alone(house: House) -> None:
    ours = await house.desk.campaign("a", queue="main:sales")
    alien = await house.desk.campaign("b", queue="main:support")
    for of, seen in ((ours, 200), (alien, 404)):
        for method, what in (("GET", "abandonment"), ("GET", "evidence.csv"), ("POST", "recheck")):
            status, _ = await house.ask(method, f"/campaigns/{of}/{what}", "sara", raw=True)
            assert status == seen, (of, what)
    told = []
    for name, of in (("May", ours), ("June", alien), ("July", None)):
        status, made = await house.ask("POST", "/lists", json={"name": name, "campaign": of})
        assert status == 201, made
        told.append(made)
    _, seen_by_sara = await house.ask("GET", "/lists", "sara")
    assert [one["name"] for one in seen_by_sara["items"]] == ["July", "May"]
    assert (await house.ask("GET", f"/lists/{told[1]['id']}", "sara"))[0] == 404
    status, said = await house.ask("POST", "/lists", "sara", json={"name": "August", "campaign": alien})
    assert (status, said["code"]) == (409, "no_campaign")
    july, match = f"/lists/{told[2]['id']}", str(told[2]["version"])
    headers = {"If-Match": f'"{match}"'}
    status, said = await house.ask("PATCH", july, "sara", json={"campaign": alien}, headers=headers)
    assert (status, said["code"]) == (409, "no_campaign")
    assert (await house.ask("PATCH", july, "sara", json={"campaign": ours}, headers=headers))[0] == 200
    assert (await house.ask("GET", july, "sven"))[0] == 404
    assert (await house.ask("GET", f"/lists/{told[1]['id']}", "sven"))[0] == 200


async def test_agents_may_do_none_of_it(house: House) -> None:
    for method, path, body in (
        ("GET", "/dialer/profiles", None),
        ("GET", "/dialer/do-not-call", None),
        ("POST", "/dialer/do-not-call", {"number": NUMBER}),
        ("POST", "/dialer/do-not-call/1/remove", {"why": "x"}),
        ("POST", "/dialer/do-not-call/import?country=GB", None),
        ("POST", "/dialer/consents", {"number": NUMBER, "given": True, "source": "x"}),
        ("POST", "/dialer/why", {"number": NUMBER}),
        ("GET", "/campaigns/1/evidence.csv", None),
    ):
        status, told = await house.ask(method, path, "anna", json=body)
        assert (status, told["code"]) == (403, "forbidden"), path


async def test_consents_over_rest(house: House) -> None:
    said = {"number": NUMBER, "person": "c-7", "given": True, "source": "form", "at": "2025-01-01T00:00:00Z"}
    assert await house.ask("POST", "/dialer/consents", json=said) == (201, {"kept": True})
    assert await house.ask("POST", "/dialer/consents", json=said) == (201, {"kept": False})
    _, found = await house.ask("POST", "/dialer/consents/find", json={"person": "c-7"})
    assert [(one["number"], one["given"], one["purpose"]) for one in found["items"]] == [
        (NUMBER, True, "marketing")
    ]


async def test_consents_come_by_file_and_with_lists(house: House) -> None:
    rows = (
        f"number;given;source;at\n{NUMBER};sí;Hörerbrief;2025-01-01\n0207 946 0152;perhaps;form;2025-01-01\n"
    )
    path = "/dialer/consents/import"
    status, told = await house.ask("POST", path + "?region=GB", "sara", data=rows.encode("cp1252"))
    refused = [{"line": 3, "why": "given: yes or no"}]
    assert (status, told) == (200, {"kept": 1, "known": 0, "not_kept": 1, "refused": refused})
    _, found = await house.ask("POST", "/dialer/consents/find", json={"number": NUMBER})
    assert [(one["source"], one["noted_by"]) for one in found["items"]] == [("Hörerbrief", "sara")]
    for wrong, why in ((b"given,at\nyes,2025-01-01\n", "missing: source"), (b"PK\x03\x04 x", "workbook")):
        status, told = await house.ask("POST", path, data=wrong)
        assert (status, why in told["detail"]) == (422, True), told
    _, may = await house.ask("POST", "/lists", json={"name": "May"})
    await house.desk.pool.execute(
        """WITH z AS (INSERT INTO zone_groups (country, zones) VALUES ('GB', '{Europe/London}')
                      ON CONFLICT (country, region, zones) DO UPDATE SET country = excluded.country RETURNING id)
           INSERT INTO list_contacts (list_id, e164, zone_group, data)
           SELECT $1, c.e164, z.id, jsonb_build_object('opted', c.said) FROM z, (VALUES
               ('+442079460161', '2025-05-01'), ('+442079460162', 'yes'), ('+442079460163', 'maybe')) AS c (e164, said)""",
        may["id"],
    )
    path, said = f"/lists/{may['id']}/consents", {"source": "web form", "column": "opted"}
    status, told = await house.ask("POST", path, "sara", json=said)
    assert (status, told["kept"], told["not_kept"]) == (200, 1, 2)
    assert "says no time" in told["refused"][0]["why"]
    _, told = await house.ask("POST", path, json={**said, "at": "2025-06-01T00:00:00Z"})
    assert (told["kept"], told["known"], told["not_kept"]) == (1, 1, 1)
    assert (await house.ask("POST", path, "anna", json=said))[0] == 403
    assert [one["detail"]["kept"] for one in await house.trail("consent.imported")][-3:] == [1, 1, 1]


async def test_evidence_abandonment_and_why_over_rest(house: House) -> None:
    of = await house.desk.campaign("spring", message="custom/sorry")
    now = datetime.now(UTC)
    for n in range(3):
        at = now - timedelta(hours=n + 2)
        await house.desk.attempt(n, of, at, "abandoned" if n == 0 else "answered", answered=at, ringing=at)
    status, told = await house.ask("GET", f"/campaigns/{of}/abandonment")
    assert (status, told["live"], told["abandoned"], told["cap"]) == (200, 3, 1, 0.03)
    assert "1 too many" in told["says"]
    status, text = await house.ask("GET", f"/campaigns/{of}/evidence.csv", "sara", raw=True)
    assert [row["outcome"] for row in csv.DictReader(io.StringIO(text))] == [
        "answered",
        "answered",
        "abandoned",
    ]
    since = (now - timedelta(hours=3, minutes=1)).isoformat().replace("+00:00", "Z")
    status, text = await house.ask("GET", f"/campaigns/{of}/evidence.jsonl?since={since}", raw=True)
    assert [json.loads(line)["outcome"] for line in text.splitlines()] == ["answered", "abandoned"]
    assert (await house.ask("GET", "/campaigns/999/evidence.csv"))[0] == 404
    assert (await house.ask("GET", "/campaigns/999/abandonment"))[0] == 404
    assert await house.ask("POST", f"/campaigns/{of}/recheck") == (200, {"contacts": 0})
    assert [one["detail"]["form"] for one in await house.trail("evidence.exported")][-2:] == ["csv", "jsonl"]
    status, told = await house.ask("POST", "/dialer/why", json={"number": NUMBER})
    assert (status, told["says"]) == (200, "it is on no list; it has been called before, 3 in all")
    assert len(told["attempts"]) == 3


# ------------------------------------------------------------------------------------------------ the command


async def test_a_customer_is_listed_from_the_call_at_once(house: House) -> None:
    of = await house.desk.campaign("spring", company="Acme")
    call = "main:" + await house.desk.attempt(7, of, datetime.now(UTC), "answered")
    execute = house.server.commands.execute
    with pytest.raises(CommandError) as caught:
        await execute(ANNA, "call.do_not_call", {"call": call})
    assert caught.value.code == "not_your_call"
    entry = await execute(
        OLGA, "call.do_not_call", {"call": call, "scope": "company", "reason": "asked to", "days": 60}
    )
    assert (entry.number, entry.scope, entry.company, entry.call) == (NUMBER, "company", "Acme", call)
    assert timedelta(days=59) < entry.expires - datetime.now(UTC) < timedelta(days=61)
    entry = await execute(OLGA, "call.do_not_call", {"call": call, "scope": "campaign"})
    assert entry.campaign == of
    # Who asks is a person: with the other numbers of the contact, and of the same customer on another list.
    contacts = await house.desk.pool.fetch(
        """WITH l AS (INSERT INTO call_lists (name, created_by, changed_by) VALUES ('May', 'x', 'x') RETURNING id),
                z AS (INSERT INTO zone_groups (country, zones) VALUES ('GB', '{Europe/London}')
                      ON CONFLICT (country, region, zones) DO UPDATE SET country = excluded.country RETURNING id)
           INSERT INTO list_contacts (list_id, e164, other_numbers, person, zone_group)
           SELECT l.id, c.e164, c.others, c.person, z.id FROM l, z, (VALUES
               ($1, ARRAY['+442079460152'], 'c-7'), ('+442079460153', '{}', 'c-7'), ('+442079460154', '{}', 'c-8'))
               AS c (e164, others, person) RETURNING id""",
        NUMBER,
    )
    again = await house.desk.attempt(
        8, of, datetime.now(UTC), "answered", contact_id=contacts[0]["id"], person="c-7"
    )
    entry = await execute(OLGA, "call.do_not_call", {"call": f"main:{again}"})
    assert (entry.number, entry.scope) == (NUMBER, "everywhere")
    _, found = await house.ask("GET", "/dialer/do-not-call?limit=3")
    assert sorted((one["number"], one["scope"]) for one in found["items"]) == [
        (number, "everywhere") for number in (NUMBER, "+442079460152", "+442079460153")
    ]
    with pytest.raises(CommandError) as caught:
        await execute(OLGA, "call.do_not_call", {"call": "main:17.4"})
    assert caught.value.code == "no_number"
    assert await house.server.trail.flush()
    outcomes = [one["detail"]["outcome"] for one in await house.trail("call.do_not_call")]
    assert outcomes == ["not_your_call", "ok", "ok", "ok", "no_number"]


# ------------------------------------------------------------------------------------------------ the command line


@pytest.fixture
def cti(
    the_house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs the command in a thread of its own, over REST as somebody who logs in, but for registers, which are loaded into
    the database; gives back exit code, standard output and error."""

    def run(who: str, *arguments: str) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["cti", "dialer", *arguments])
            if arguments[:2] == ("register", "load"):
                patch.setenv("CTI_DATABASE_URL", the_house.dsn)
            else:
                patch.setenv("CTI_URL", the_house.server.url)
                patch.setenv("CTI_LOGIN", who)
                patch.setenv("CTI_PASSWORD", PASSWORD)
            with pytest.raises(SystemExit) as ended:
                main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    async def threaded(*arguments: str, who: str = "olga") -> tuple[int, str, str]:
        return await asyncio.to_thread(run, who, *arguments)

    return threaded


async def test_the_law_on_the_command_line(house: House, cti: Callable[..., Any], tmp_path: Path) -> None:
    code, out, _ = await cti("profiles", "FR")
    assert code == 0
    assert "mon-fri 10:00-13:00 and 14:00-20:00; sat-sun never" in out
    assert "confirm with your counsel" in out
    assert (await cti("profiles", "XX"))[0] == 2

    assert (await cti("do-not-call", "add", NUMBER, "--reason", "asked to"))[:2] == (
        0,
        "Entry 1: it is not called from now on.\n",
    )
    assert "1: everywhere, since" in (await cti("do-not-call", "find", "02079460151", "--region", "gb"))[1]
    code, _, err = await cti("do-not-call", "add", "12")
    assert (code, "no country has such a number" in err) == (2, True)

    refusals = tmp_path / "refusals.txt"
    refusals.write_text(f"{NUMBER}\n02079460153\n")
    code, out, _ = await cti("do-not-call", "import", str(refusals), "--country", "gb")
    assert (code, out) == (0, "1 numbers are not called from now on, 1 were listed before.\n")
    assert (await cti("do-not-call", "import", str(tmp_path), "--country", "gb"))[0] == 2
    assert (await cti("do-not-call", "add", NUMBER, "--until", "2020-01-01"))[0] == 2

    file = tmp_path / "tps.txt"
    file.write_text("number\n02079460151\n02079460152\nnonsense\n")
    load_it = ("register", "load", str(file), "--register", "gb-tps", "--country", "gb", "--edition")
    code, out, err = await cti(*load_it, "2025-11-01")
    assert (code, "gb-tps: 2 numbers of 2025-11-01 are in force." in out, "1 of 4 lines" in out) == (
        0,
        True,
        True,
    ), err
    assert (await cti(*load_it, "2025-10-01"))[0] == 2
    assert (await cti(*load_it, "soon"))[0] == 2
    assert "gb-tps  2025-11-01  active  2 numbers" in (await cti("register", "list"))[1]
    assert "register gb-tps" in (await cti("do-not-call", "find", NUMBER))[1]

    consents = tmp_path / "consents.csv"
    rows = f"number;given;source;at\n{NUMBER};sí;Hörerbrief;2025-01-01\n{NUMBER};maybe;form;2025-01-01\n"
    consents.write_bytes(rows.encode("cp1252"))
    code, out, _ = await cti("consent", "import", str(consents))
    assert (code, out.splitlines()[0]) == (0, "1 kept, 0 on record before, 1 refused.")
    assert "line 3: given: yes or no" in out
    assert "marketing: given (Hörerbrief)" in (await cti("consent", "find", NUMBER))[1]

    for nothing in (
        ("consent", "import", "nothing.csv"),
        ("register", "load", "nothing.txt", *load_it[3:], "2025-11-02"),
    ):
        code, _, err = await cti(*nothing)
        assert (code, "cannot be read" in err) == (2, True), err
    new = {"name": "spring", "mode": "predictive", "profile": "GB", "settings": {"team": "sales"}}
    of = (await house.ask("POST", "/campaigns", "sara", json=new))[1]["view"]["id"]
    at = datetime.now(UTC) - timedelta(hours=1)
    await house.desk.attempt(1, of, at, "answered", answered=at)
    assert "0 of 1 live answers lost" in (await cti("abandonment", "spring"))[1]
    target = tmp_path / "evidence.csv"
    assert (await cti("evidence", "spring", "--out", str(target)))[0] == 0
    assert len(target.read_text().splitlines()) == 2
    assert (await cti("evidence", "autumn"))[0] == 1
    code, out, _ = await cti("why", NUMBER)
    assert code == 0
    for part in (
        "it is on no list; it has been called before, 1 in all",
        "Do not call, everywhere",
        "On the register gb-tps",
        "spring",
    ):
        assert part in out
    assert json.loads((await cti("why", NUMBER, "--json"))[1])["number"] == NUMBER

    code, _, err = await cti("do-not-call", "add", NUMBER, "--campaign", "spring", who="sara")
    assert code == 0, err
    assert (await house.trail("do_not_call.added"))[-1]["actor"] == "sara"
    assert "removed by sara: by mistake" not in (await cti("do-not-call", "find", NUMBER))[1]
    (entry,) = (
        one
        for one in json.loads((await cti("do-not-call", "find", NUMBER, "--json"))[1])["entries"]
        if one["scope"] == "campaign"
    )
    assert (await cti("do-not-call", "remove", str(entry["id"]), "--why", "by mistake", who="sara"))[0] == 0
    assert "removed by sara: by mistake" in (await cti("do-not-call", "find", NUMBER))[1]
    assert (await cti("recheck", "spring", who="sara"))[:2] == (0, "0 contacts are open again.\n")
    for ask in (("evidence", "spring"), ("abandonment", "spring"), ("recheck", "spring")):
        code, out, err = await cti(*ask, who="sven")  # of another team
        assert (code, out, "there is no campaign spring" in err) == (1, "", True)
    code, _, err = await cti("profiles", who="anna")
    assert (code, "this is for admin, supervisor; you are agent" in err) == (1, True)

    list_id = await house.desk.pool.fetchval(
        """WITH made AS (INSERT INTO call_lists (name, created_by, changed_by) VALUES ('May', '', '') RETURNING id)
           INSERT INTO list_contacts (list_id, name, e164, zone_group, data)
           SELECT id, 'Ann', $1, (SELECT min(id) FROM zone_groups), '{"consent": "2025-02-03"}' FROM made
           RETURNING list_id""",
        NUMBER,
    )
    for which in ("May", str(list_id)):
        code, out, err = await cti("consent", "from-list", which, "--source", "web form", who="sara")
        assert code == 0, err
    assert out == "0 kept, 1 on record before, 0 refused.\n"
    assert "marketing: given (web form)" in (await cti("consent", "find", NUMBER))[1]


# ------------------------------------------------------------------------------------------------ one number

ANSWER = ((Told.SENT, 0.0, ""), (Told.RINGS, 1.0, ""), (Told.UP, 6.0, ""))
HUMAN = (*ANSWER, (Told.AMD, 7.0, "HUMAN"))  # who greeted until 6.2
END = (Told.GONE, 20.0, "16")
STORIES: tuple[tuple[int, tuple[tuple[Told, float, str], ...]], ...] = (
    (60, (*HUMAN, (Told.CONNECTED, 7.1, "anna"), END)),
    (2, (*HUMAN, (Told.CONNECTED, 7.1, "anna"), (Told.AGENT_LEFT, 8.0, ""), END)),
    (3, (*HUMAN, (Told.FAR_END, 7.5, ""), (Told.GONE, 7.5, "16"))),
    (2, (*ANSWER, (Told.GONE, 6.5, "16"))),  # gone before it was known who it is
    (3, (*HUMAN, (Told.CONNECTED, 8.3, "ben"), END)),
    (1, (*HUMAN, (Told.CONNECTED, 8.3, "ben"))),  # late, and talks still
    (2, (*HUMAN, (Told.NOBODY, 8.2, ""), (Told.MESSAGE, 8.2, ""), END)),
    (1, (*HUMAN, (Told.NOBODY, 8.2, ""), (Told.MESSAGE, 8.2, ""), (Told.OPTED_OUT, 9.0, ""), END)),
    (1, (*HUMAN, (Told.GONE, 8.3, "16"))),
    (1, (*HUMAN, (Told.LOST, 9.0, ""))),
    (1, HUMAN),  # waits: not decided yet
    (1, ANSWER),
    (40, (*ANSWER, (Told.AMD, 8.0, "MACHINE"), END)),
    (2, (*ANSWER, (Told.AMD, 8.0, "FAX"), END)),
    (9, (*ANSWER[:2], (Told.DIAL_ENDED, 9.0, "BUSY"), (Told.GONE, 9.0, "17"))),
)
"""How often, and what is told of the call."""

LIVE, LATE, NOBODY, MACHINES = 76, 4, 5, 40


async def told_and_written(house: House, of: Campaign) -> list[Live]:
    """Attempts of a minute ago, as the dialer writes them."""
    loop, now = asyncio.get_running_loop(), datetime.now(UTC)
    found = []
    for story in [story for times, story in STORIES for _ in range(times)]:
        number = 1000 + len(found)
        e164 = f"+44207946{number}"
        id = await house.desk.attempt(
            number, of.id, now - timedelta(seconds=60), None, e164=e164, state="committed"
        )
        live = Live(
            attempt=new_attempt(id, of), campaign=of.id, contact=None, e164=e164, pbx="main",
            mono=loop.time() - 60, wall=now - timedelta(seconds=60),
        )  # fmt: skip
        for what, at, info in story:
            live.attempt.tell(what, live.mono + at, info)
        live.done = live.attempt.over
        found.append(live)
    settings = {of.id: (of.settings, False)}
    await attempt_store.write(house.desk.pool, [live.row() for live in found], settings, now)
    return found


@pytest.mark.parametrize(("law", "errors"), [("US", 0.0), ("GB", 0.4)])
async def test_whoever_tells_of_abandoned_calls_tells_the_same(
    house: House, cti: Callable[..., Any], law: str, errors: float
) -> None:
    """Ledger, live view, report, CSV, command line, evidence and pacing, of the same attempts."""
    new = {
        "name": f"one number {law}",
        "mode": "predictive",
        "profile": law,
        "settings": {"amd": True, "team": "sales"},
    }
    status, made = await house.ask("POST", "/campaigns", json=new)
    assert status == 201, made
    id = made["view"]["id"]
    settings = CampaignSettings(amd=True, abandonment_cap=0.03, abandonment_window_h=24)
    of = Campaign(
        id=id, name=new["name"], mode="predictive", state="draft", profile=law, priority=0, settings=settings, version=1
    )  # fmt: skip
    calls = await told_and_written(house, of)
    lost = LATE + NOBODY
    share = (lost + errors) / (LIVE + errors)
    spare = -math.ceil((lost + errors - 0.03 * (LIVE + errors)) / 0.97)

    _, ledger = await house.ask("GET", f"/campaigns/{id}/abandonment")
    counted = {
        name: ledger[name]
        for name in ("live", "abandoned", "late", "nobody", "machines", "amd_errors", "spare")
    }
    assert counted == {
        "live": LIVE, "abandoned": lost, "late": LATE, "nobody": NOBODY, "machines": MACHINES, "amd_errors": errors,
        "spare": spare,
    }  # fmt: skip
    assert ledger["share"] == pytest.approx(share, abs=1e-6)
    code, out, _ = await cti("abandonment", str(new["name"]), "--json")
    assert code == 0
    assert {name: json.loads(out)[name] for name in counted} == counted

    _, goes = await house.ask("GET", f"/campaigns/{id}/now")
    assert (goes["live"], goes["late"], goes["nobody"], goes["amd_errors"]) == (LIVE, LATE, NOBODY, errors)
    assert (goes["lost"], goes["may_be_lost"]) == (lost + errors, spare)
    assert f"{-spare} calls too many are lost" in goes["budget"]
    assert f"{share:.1%} abandoned of {LIVE + errors:g} who answered" in goes["budget"]
    names = ("live", "abandoned", "late", "nobody", "machines", "amd_errors")
    quarter = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    span = {
        "from": f"{quarter - timedelta(hours=1):%Y-%m-%dT%H:%MZ}",
        "to": f"{quarter + timedelta(hours=2):%Y-%m-%dT%H:%MZ}",
    }
    _, report = await house.ask("GET", "/campaign_figures", params={"campaign": str(id), **span})
    (row,) = report["items"]
    for sums in (goes["last_half_hour"], row["sums"]):
        assert {name: sums[name] for name in names} == {name: counted[name] for name in names}
    assert row["abandonment"] == ledger["share"]
    _, text = await house.ask(
        "GET", "/campaign_figures", raw=True, params={"campaign": str(id), **span, "format": "csv"}
    )
    (line,) = csv.DictReader(io.StringIO(text))
    assert {name: float(line[name]) for name in (*names, "abandonment")} == {
        **{name: counted[name] for name in names},
        "abandonment": ledger["share"],
    }
    assert f"{lost} abandoned ({share:.1%} of those who answered, {LATE} of them late" in screen.told(
        row["sums"]
    )
    (_, shown) = screen.table([row])
    assert [str(lost), str(LATE), str(NOBODY)] == shown.split()[-8:-5]

    _, text = await house.ask("GET", f"/campaigns/{id}/evidence.csv", raw=True)
    kinds = Counter(row["counts_as"] for row in csv.DictReader(io.StringIO(text)))
    assert (kinds["late"], kinds["nobody"], kinds["machine"]) == (LATE, NOBODY, MACHINES)
    assert kinds["in_time"] + kinds["early"] + kinds["late"] + kinds["nobody"] == LIVE

    loop = asyncio.get_running_loop()
    heard, begun = (Pace(of, 0.5, error_share(load_profiles()[law])) for _ in range(2))
    for live in calls:
        heard.call(live, loop.time())
        if live.done:
            heard.ended(live, live.attempt.outcome(), loop.time())
    rows = await attempt_store.recent(
        house.desk.pool, id, 24, 50
    )  # fewer than there are: the budget is whole all the same
    minutes = await by_minute(house.desk.pool, id, 24)
    list(begun.replay(rows, minutes, loop.time(), amd=True))
    for live in calls:
        live.paced.clear()
        if not live.done:
            begun.call(live, loop.time())
    for pace in (heard, begun):
        live_answers, abandoned, may = pace.pacing.stands(loop.time())
        assert (live_answers, abandoned, may) == (
            pytest.approx(LIVE + errors),
            pytest.approx(lost + errors),
            spare,
        )
