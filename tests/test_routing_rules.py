"""The rules over REST: read, changed, refused, restored, tried; by whom, and in how many versions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest_asyncio

from cti.database import connection
from cti.embedded.place import free_ports
from cti.embedded.postgres import Postgres
from cti.server import Server
from cti.settings import load
from routing.store import ChangedMeanwhile, add
from tests.centre import KEY, PASSWORD, database_of_centre

BASE = "/api/v1/routing"
ENTRY = {"id": "main", "numbers": ["5550100"], "queue": "sales"}
VIP = {"id": "vip", "when": {"customer": {"class": ["A"]}}, "then": {"priority": 9}}


class House:
    """A server whose PBX is nowhere, with its database, and the people who use it."""

    def __init__(self, server: Server, dsn: str) -> None:
        self.server, self.dsn = server, dsn
        self._tokens: dict[str, str] = {}

    async def ask(
        self, method: str, path: str, login: str | None = "olga", match: object = None, **more: Any
    ) -> tuple[int, Any, str]:
        """Status, body, ETag."""
        headers = {} if match is None else {"If-Match": str(match)}
        async with aiohttp.ClientSession(self.server.url) as http:
            if login is not None and login not in self._tokens:
                async with http.post(
                    "/api/v1/sessions", json={"login": login, "password": PASSWORD}
                ) as answer:
                    self._tokens[login] = (await answer.json())["access_token"]
            if login is not None:
                headers["Authorization"] = f"Bearer {self._tokens[login]}"
            async with http.request(method, BASE + path, headers=headers, **more) as answer:
                body = await answer.json(content_type=None) if answer.content_length else None
                return answer.status, body, answer.headers.get("ETag", "")

    async def put(
        self, *rules: dict[str, Any], match: object = 0, note: str = "", **more: Any
    ) -> tuple[int, Any, str]:
        document = {"entries": [ENTRY], "rules": list(rules), **more}
        return await self.ask("PUT", "/rules", match=match, json={"rules": document, "note": note})


@pytest_asyncio.fixture
async def house(postgres_server: Postgres) -> AsyncIterator[House]:
    dsn = await database_of_centre(postgres_server)
    nowhere, port = free_ports(2)
    server = Server(
        load(
            database_url=dsn,
            port=port,
            secret_key=KEY,
            log_level="warning",
            pbx={"main": {"host": "127.0.0.1", "port": nowhere, "secret": "x", "region": "GB"}},
        )
    )
    try:
        await server.start()
        yield House(server, dsn)
    finally:
        await server.stop()
        await asyncio.to_thread(postgres_server.drop_database, dsn.rpartition("/")[2])


async def test_rules_are_read_changed_and_kept_in_versions(house: House) -> None:
    status, told, tag = await house.ask("GET", "/rules")
    assert (status, told["about"]["version"], tag) == (200, 0, '"0"')
    assert told["rules"]["entries"] == []
    status, told, tag = await house.put(VIP, match=tag, note="the first")
    assert (status, told["about"]["version"], told["about"]["made_by"], tag) == (200, 1, "olga", '"1"')
    assert [rule.id for rule in house.server.book.active.rules] == ["vip"]  # by the time of the answer
    status, told, tag = await house.put(match=tag, note="none")
    assert (status, tag) == (200, '"2"')
    status, told, _ = await house.ask("GET", "/versions?limit=1")
    assert [(v["version"], v["note"]) for v in told["items"]] == [(2, "none")]
    status, told, _ = await house.ask("GET", f"/versions?cursor={told['next']}")
    assert [(v["version"], v["note"]) for v in told["items"]] == [(1, "the first")]
    status, told, _ = await house.ask("GET", "/versions/1")
    assert told["rules"]["rules"][0]["id"] == "vip"
    status, told, tag = await house.ask("POST", "/versions/1/restore", match=2, json={})
    assert (status, told["about"]["version"], told["about"]["note"]) == (200, 3, "version 1 again")
    assert [rule.id for rule in house.server.book.active.rules] == ["vip"]
    assert (await house.ask("GET", "/versions/9"))[0] == 404
    async with connection(house.dsn, name="test") as db:
        trail = await db.fetch("SELECT actor, action, target FROM audit ORDER BY id")
    changes = [tuple(row) for row in trail if row["target"] == "routing"]
    assert changes == [
        ("olga", "routing.rules_changed", "routing"),
        ("olga", "routing.rules_changed", "routing"),
        ("olga", "routing.rules_restored", "routing"),
    ]


async def test_two_who_edit_at_once_do_not_undo_each_other(house: House) -> None:
    answers = await asyncio.gather(*(house.put(VIP, match=0, note=str(n)) for n in range(5)))
    assert sorted(status for status, _, _ in answers) == [200, 412, 412, 412, 412]
    assert (await house.put(match="nonsense"))[0] == 412
    status, told, _ = await house.ask("PUT", "/rules", json={"rules": {}})
    assert (status, told["code"]) == (428, "version_needed")
    async with connection(house.dsn, name="test") as db:
        try:
            await add(db, {}, after=0, by="x", note="")
        except ChangedMeanwhile:
            return
    raise AssertionError("a version was written over")


async def test_wrong_rules_change_nothing_and_say_where(house: House) -> None:
    assert (await house.put(VIP))[0] == 200
    for rules, where in (
        (
            {"rules": [{"id": "r", "when": {"open": "c"}, "then": {"priority": 1}}]},
            "rules.0.when.open: there is no calendar c",
        ),
        ({"rules": [{"id": "r", "then": {"queue": "a,b"}}]}, "rules.rules.0.then.queue"),
        ({"calendars": {"c": {"zone": "Nowhere"}}}, "Nowhere is not a time zone"),
        ({"entries": "x"}, "rules.entries"),
    ):
        for method, path in (("PUT", "/rules"), ("POST", "/check")):
            status, told, _ = await house.ask(method, path, match=1, json={"rules": rules})
            assert status == 422
            assert where in told["detail"], told
    assert (await house.ask("GET", "/rules"))[2] == '"1"'
    assert [rule.id for rule in house.server.book.active.rules] == ["vip"]
    assert (await house.ask("POST", "/check", json={"rules": {"entries": [ENTRY]}}))[0] == 204
    assert (await house.ask("GET", "/rules"))[2] == '"1"'


async def test_who_may(house: House) -> None:
    assert (await house.ask("GET", "/rules", None))[0] == 401
    for login, reads, writes in (("anna", 403, 403), ("sara", 200, 403), ("olga", 200, 200)):
        assert (await house.ask("GET", "/rules", login))[0] == reads
        assert (await house.ask("GET", "/versions", login))[0] == reads
        assert (await house.ask("POST", "/what-if", login, json={"to": "1"}))[0] == reads
        status, _, _ = await house.ask("PUT", "/rules", login, match=0, json={"rules": {"entries": [ENTRY]}})
        assert status == writes
        assert (await house.ask("POST", "/versions/1/restore", login, match=1, json={}))[0] == writes


async def test_what_another_process_has_written_is_active_within_a_second(house: House) -> None:
    assert (await house.put())[0] == 200
    async with connection(house.dsn, name="test") as db:
        await add(db, {"entries": [ENTRY], "rules": [VIP]}, after=1, by="cli", note="")
        began = time.monotonic()
    while house.server.book.active.version != 2:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.01)
    took = time.monotonic() - began
    async with connection(house.dsn, name="test") as db:  # what cannot be read does not end what works
        await add(db, {"from_the_future": True}, after=2, by="cli", note="")
    await asyncio.sleep(0)
    await house.server.book.refresh()
    assert house.server.book.active.version == 2
    assert took < 3  # half a second between two looks, and a loaded machine


async def test_what_would_happen(house: House) -> None:
    async with connection(house.dsn, name="test") as db:
        vip = await db.fetchrow(
            """SELECT min(p.e164) AS e164, a.id FROM phones p JOIN accounts a ON a.id = p.account_id
               WHERE a.class = 'A' AND (SELECT count(*) FROM phones q WHERE q.e164 = p.e164) = 1
               GROUP BY a.id ORDER BY a.id LIMIT 1"""
        )
    assert vip is not None
    office = {"zone": "Europe/Berlin", "hours": [{"days": ["mon"], "from": "09:00", "to": "17:00"}]}
    entry = {**ENTRY, "calendar": "office", "closed": {"sounds": ["vm-goodbye"]}}
    draft = {"entries": [entry], "calendars": {"office": office}, "rules": [VIP]}

    async def tried(number: str, at: str, **more: Any) -> dict[str, Any]:
        asked = {"from": number, "to": "5550100", "at": at, "rules": draft, **more}
        status, told, _ = await house.ask("POST", "/what-if", "sara", json=asked)
        assert status == 200, told
        return told  # type: ignore[no-any-return]

    # The PBX is out of reach: it is not known to have any queue, and the explanation says so.
    open_ = await tried(vip["e164"], "2026-11-23T09:00:00+01:00")
    steps = {(s["what"], s["id"]): s for s in open_["decision"]["explanation"]}
    assert open_["customer"] == vip["id"]
    assert steps["rule", "vip"]["matched"]
    assert steps["hours", "office"]["matched"]
    assert steps["queue", "sales"]["why"] == "the PBX has no queue sales: the dialplan's own way"
    shut = await tried(vip["e164"], "2026-11-23T08:59:59+01:00")
    assert (shut["decision"]["action"], shut["decision"]["closed"]) == ("sounds", True)
    stranger = await tried("+447700900999", "2026-11-23T09:00:00+01:00")
    assert stranger["customer"] is None
    assert stranger["why_unknown"] == "nobody has this number"
    assert not {(s["what"], s["id"]): s for s in stranger["decision"]["explanation"]}["rule", "vip"][
        "matched"
    ]
    _, told, _ = await house.ask("POST", "/what-if", json={"to": "5550100"})
    assert told["decision"]["action"] == "default"  # by the active rules: none
    midday = "2026-11-23T09:00:00"
    for wrong in (
        {"to": "1", "pbx": "moon"},
        {"to": ""},
        {"to": "1", "at": midday},
        {"to": "1", "at": "0001-01-01T00:00:00Z"},
    ):
        assert (await house.ask("POST", "/what-if", json=wrong))[0] == 422
