"""REST over real HTTP: who may do what on every route, problems, pages, versions, idempotency, cookies, the CRM's nouns."""

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import aiohttp
import asyncpg
import pytest
import schemathesis
from aiohttp.test_utils import make_mocked_request
from pydantic import BaseModel

import crm.rest
from crm.ani import Identification
from crm.interactions import Interactions
from cti.commands import CommandError
from cti.database import Database
from cti.numbers import read_caller
from cti.openapi import ADMINS, Route
from cti.passwords import Passwords
from cti.people import Actor, Directory, Role
from cti.problems import Problem
from cti.rest import admin, sessions
from cti.rest.pages import decode, encode
from cti.rest.proxies import Proxies
from cti.rest.serving import LARGEST_BODY, Asked, Reply
from cti.users import load_directory
from tests.probing import run_schemathesis
from tests.web_stage import ANNA, CRM, NOON, ROOT, SUE, Stage, Ticket, all_know, waiting

JSON = {"Content-Type": "application/json"}


class Hold(BaseModel):
    call: str


class Thing(BaseModel):
    name: str


@dataclass
class Given:
    actor: Actor
    access: str
    refresh: str
    access_expires: datetime
    refresh_expires: datetime


class Doorman:
    """Logs in anna with the password `right`; refresh tokens are good once."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.refreshes: set[str] = set()
        self.addresses: list[str] = []
        self.count = 0

    def give(self) -> Given:
        self.count += 1
        now = datetime.now(UTC)
        given = Given(
            ANNA,
            f"access{self.count}",
            f"refresh{self.count}",
            now + timedelta(minutes=15),
            now + timedelta(hours=12),
        )
        self.refreshes.add(given.refresh)
        self.stage.tokens[given.access] = Ticket(ANNA, given.access_expires)
        return given

    async def log_in(self, login: str, password: str, address: str) -> Given:
        self.addresses.append(address)
        if (login, password) != ("anna", "right"):
            raise Problem(401, "wrong_password", "the name or the password is wrong")
        return self.give()

    async def refresh(self, token: str) -> Given:
        if token not in self.refreshes:
            raise Problem(401, "not_authenticated", "log in again")
        self.refreshes.remove(token)
        return self.give()

    async def log_out(self, token: str) -> None:
        self.refreshes.discard(token)


class House:
    """The routes of these tests' own: a thing with a version, one that breaks, one for administrators, one that is slow."""

    def __init__(self) -> None:
        self.name, self.version, self.made = "old", 1, 0
        self.gate = asyncio.Event()
        self.gate.set()

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Any, **more: Any) -> Route:
            return Route(method=method, path=path, handler=handler, summary="A thing.", tag="Things", **more)

        return [
            route("GET", "/api/v1/thing", self.read, result=Thing),
            route("PUT", "/api/v1/thing", self.change, body=Thing, result=Thing, versioned=True),
            route("POST", "/api/v1/things", self.make, body=Thing, result=Thing, status=201, idempotent=True),
            route("GET", "/api/v1/broken", self.broken),
            route("GET", "/api/v1/database", self.database),
            route("DELETE", "/api/v1/thing", self.delete, roles=ADMINS, status=204),
        ]

    async def read(self, asked: Asked) -> Reply:
        return Reply(value=Thing(name=self.name), version=self.version)

    async def change(self, asked: Asked) -> Reply:
        if asked.match != str(self.version):
            raise Problem(412, "changed_meanwhile", "somebody else has changed it: read it again")
        self.name, self.version = asked.body.name, self.version + 1
        return Reply(value=Thing(name=self.name), version=self.version)

    async def make(self, asked: Asked) -> Thing:
        await self.gate.wait()
        if asked.body.name == "bad":
            raise Problem(409, "taken", "this is taken")
        self.made += 1
        return Thing(name=f"{asked.body.name}{self.made}")

    async def broken(self, asked: Asked) -> None:
        raise RuntimeError("secret detail")

    async def database(self, asked: Asked) -> None:
        raise asyncpg.InterfaceError("pool is closed")

    async def delete(self, asked: Asked) -> None:
        return None


@dataclass
class Site:
    stage: Stage
    house: House
    doorman: Doorman
    http: aiohttp.ClientSession

    async def ask(
        self,
        method: str,
        path: str,
        token: str | None = "anna-token",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        sent = ({"Authorization": f"Bearer {token}"} if token else {}) | (headers or {})
        async with self.http.request(method, self.stage.url + path, headers=sent, **more) as response:
            body = await response.read()
            content = (
                await response.json(content_type=None) if body and "json" in response.content_type else body
            )
            return response.status, content, response


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    stage, house = Stage(), House()
    doorman = Doorman(stage)

    async def hold(actor: Actor, args: Hold) -> dict[str, str]:
        if args.call == "theirs":
            raise CommandError("not_your_call", "this call is another agent's")
        return {"held": args.call}

    stage.commands.add("call.hold", Hold, hold, summary="Holds a call.")
    stage.commands.add("queue.close", Hold, hold, summary="Closes.", roles={Role.ADMIN})
    app = stage.app(
        *house.routes(),
        *sessions.routes(
            log_in=doorman.log_in, refresh=doorman.refresh, log_out=doorman.log_out, secure=False,
            allowed_origins=("https://crm.example.com",),
        ),
    )  # fmt: skip
    async with stage.serve(app), aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Site(stage, house, doorman, http)


# -------------------------------------------------------------------------------- every route × every role


async def test_every_route_lets_in_its_roles_and_nobody_else(site: Site) -> None:
    _, document, _ = await site.ask("GET", "/api/openapi.json")
    tokens = {
        "agent": "anna-token",
        "supervisor": "sue-token",
        "admin": "root-token",
        "integration": "crm-token",
    }
    tried = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            roles = operation.get("x-roles")
            address = (
                path.replace("{id}", "1")
                .replace("{login}", "anna")
                .replace("{op}", "x")
                .replace("{phone}", "1")
            )
            for role, token in tokens.items():
                status, problem, _ = await site.ask(method.upper(), address, token, json={})
                allowed = roles is None or role in roles
                code = problem.get("code") if isinstance(problem, dict) else ""
                assert (code == "forbidden") is (not allowed), f"{role}: {method} {path}: {status} {problem}"
                tried += 1
            status, problem, response = await site.ask(method.upper(), address, None, json={})
            if roles is not None:
                assert (status, problem["code"]) == (401, "not_authenticated"), f"{method} {path}"
                assert response.headers["WWW-Authenticate"] == "Bearer"
            else:
                assert status != 403
    assert tried > 80


# ------------------------------------------------------------------------------------------- state


async def test_the_state_is_what_the_asker_may_see(site: Site) -> None:
    assert (await site.ask("GET", "/api/v1/me"))[1] == {
        "login": "anna", "name": "Anna Berg", "role": "agent", "teams": ["sales"],
    }  # fmt: skip
    _, state, _ = await site.ask("GET", "/api/v1/state")
    assert (state["seq"], [a["agent"] for a in state["data"]["agents"]]) == (100, ["anna"])
    _, agents, _ = await site.ask("GET", "/api/v1/agents?state=ready&limit=1")
    assert ([a["agent"] for a in agents["items"]], agents["next"]) == (["anna"], None)
    assert (await site.ask("GET", "/api/v1/agents?state=busy"))[1]["items"] == []
    assert (await site.ask("GET", "/api/v1/agents/anna"))[1]["state"] == "ready"
    for path in ("agents/ben", "calls/main:1.1", "queues/main:none", "calls/main:1.1/facts"):
        status, problem, _ = await site.ask("GET", f"/api/v1/{path}")
        assert (status, problem["code"]) == (404, "not_found")


async def test_the_feed_tells_what_the_asker_may_see_and_where_to_read_on(site: Site) -> None:
    site.stage.bus.publish([waiting("main:sales"), waiting("main:service", "main:2.2"), all_know()])
    _, feed, _ = await site.ask("GET", "/api/v1/facts?after=100", "sue-token")
    assert ([fact["seq"] for fact in feed["items"]], feed["next"]) == ([101, 103], 103)
    _, feed, _ = await site.ask("GET", "/api/v1/facts?after=101&limit=1", "crm-token")
    assert ([fact["seq"] for fact in feed["items"]], feed["next"]) == ([102], 102)
    _, feed, _ = await site.ask("GET", "/api/v1/facts?type=pbx.status_changed", "crm-token")
    assert [fact["type"] for fact in feed["items"]] == ["pbx.status_changed"]
    _, found, _ = await site.ask("GET", "/api/v1/calls/main:1.1/facts", "sue-token")
    assert [fact["seq"] for fact in found["items"]] == [101]
    assert (await site.ask("GET", "/api/v1/calls/main:2.2/facts", "sue-token"))[0] == 404


@pytest.mark.parametrize(
    "path",
    ["facts?after=-1", "facts?after=x", "facts?limit=0", "facts?limit=99999", "facts?after=99999999999999999999",
     "facts?x=1", "facts?limit=1&limit=2", "agents?cursor=!!", "agents?cursor=WzFd", "agents?limit=1000",
     "agents?state=asleep"],
)  # fmt: skip
async def test_wrong_parameters_are_told(site: Site, path: str) -> None:
    status, problem, response = await site.ask("GET", f"/api/v1/{path}", "sue-token")
    assert status == 422
    assert response.content_type == "application/problem+json"
    assert problem["detail"]


# ---------------------------------------------------------------------------------------- commands


async def test_commands_are_the_websockets_own(site: Site) -> None:
    status, done, _ = await site.ask("POST", "/api/v1/commands/call.hold", json={"call": "1"})
    assert (status, done) == (200, {"data": {"held": "1"}})
    for op, args, token, expected in (
        ("call.hold", {"call": "theirs"}, "anna-token", (403, "not_your_call")),
        ("call.hold", {}, "anna-token", (422, "bad_value")),
        ("call.hodl", {}, "anna-token", (404, "unknown_op")),
        ("queue.close", {"call": "1"}, "anna-token", (403, "forbidden")),
        ("queue.close", {"call": "1"}, "root-token", (200, None)),
    ):
        status, told, _ = await site.ask("POST", f"/api/v1/commands/{op}", token, json=args)
        assert (status, told.get("code")) == expected
    assert ("anna", "call.hold", "not_your_call") in site.stage.audited


async def test_an_idempotency_key_carries_out_once_and_answers_alike(site: Site) -> None:
    async def make(name: str, key: str | None, token: str = "anna-token") -> tuple[int, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        status, told, _ = await site.ask("POST", "/api/v1/things", token, headers, json={"name": name})
        return status, told

    site.house.gate.clear()
    both = [asyncio.create_task(make("a", "k1")) for _ in range(5)]
    await asyncio.sleep(0.05)
    site.house.gate.set()
    assert await asyncio.gather(*both) == [(201, {"name": "a1"})] * 5
    assert await make("a", "k1") == (201, {"name": "a1"})
    assert (await make("b", "k1"))[1]["code"] == "key_reused"
    assert await make("a", "k1", "sue-token") == (201, {"name": "a2"})
    assert await make("a", None) == (201, {"name": "a3"})
    assert (await make("bad", "k2"))[0] == 409
    assert (await make("bad", "k2"))[0] == 409
    assert (await make("a", "x" * 200))[0] == 422


# --------------------------------------------------------------------------------- versions, problems


async def test_two_who_edit_at_once_do_not_overwrite_each_other(site: Site) -> None:
    _, _, read = await site.ask("GET", "/api/v1/thing")
    etag = read.headers["ETag"]
    assert (await site.ask("PUT", "/api/v1/thing", json={"name": "x"}))[0] == 428
    status, _, first = await site.ask(
        "PUT", "/api/v1/thing", headers={"If-Match": etag}, json={"name": "new"}
    )
    assert (status, first.headers["ETag"]) == (200, '"2"')
    status, problem, _ = await site.ask(
        "PUT", "/api/v1/thing", headers={"If-Match": etag}, json={"name": "mine"}
    )
    assert (status, problem["code"], site.house.name) == (412, "changed_meanwhile", "new")
    assert (await site.ask("GET", "/api/v1/thing", headers={"If-None-Match": '"2"'}))[0] == 304


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "no_such_address"),
        ("PATCH", "/api/v1/thing", {}, 405, "method_not_allowed"),
        ("POST", "/api/v1/things", {"data": b"{", "headers": JSON}, 400, "bad_json"),
        ("POST", "/api/v1/things", {"data": b'"\xff"', "headers": JSON}, 400, "bad_json"),
        ("POST", "/api/v1/things", {"data": b"[" * 2000, "headers": JSON}, 400, "bad_json"),
        ("POST", "/api/v1/things", {"data": b'{"a":' * 60 + b"1" + b"}" * 60, "headers": JSON}, 400, "bad_json"),
        ("POST", "/api/v1/things", {"data": b'{"name":"a\\u0000"}', "headers": JSON}, 422, "bad_value"),
        ("POST", "/api/v1/things", {"data": b"name=x"}, 415, "not_json"),
        ("POST", "/api/v1/things", {"json": [1]}, 422, "bad_value"),
        ("POST", "/api/v1/things", {"data": io.BytesIO(b" " * (LARGEST_BODY + 1)), "headers": JSON}, 413, "too_large"),
        ("GET", "/api/v1/calls/%00", {}, 400, "bad_value"),
        ("GET", "/api/v1/calls/a%0Ab", {}, 400, "bad_value"),
        ("GET", "/api/v1/calls/%FF%FE", {}, 404, "not_found"),
        ("GET", "/api/v1/broken", {}, 500, "internal"),
        ("GET", "/api/v1/database", {}, 503, "unavailable"),
        ("GET", "/ws", {}, 426, "websocket_only"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_a_problem_with_the_right_number(
    site: Site, method: str, path: str, sent: dict[str, Any], status: int, code: str
) -> None:
    got, problem, response = await site.ask(method, path, **sent)
    assert (got, problem["code"], problem["status"]) == (status, code, status)
    assert response.content_type == "application/problem+json"
    assert "secret" not in str(problem)
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_security_headers_are_everywhere_and_no_cors(site: Site) -> None:
    for path in ("/api/", "/api/v1/me", "/healthz", "/nowhere"):
        _, _, response = await site.ask("GET", path, headers={"Origin": "https://evil.example"})
        for name in ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control"):
            assert name in response.headers
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
    assert (await site.ask("OPTIONS", "/api/v1/me"))[0] == 405


# ---------------------------------------------------------------------------------- sessions and cookies


@pytest.mark.parametrize(
    ("told", "client"),
    [
        ([], "127.0.0.1"),
        (["203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7:40000"], "203.0.113.7"),
        (["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (
            ["198.51.100.9, 203.0.113.7", "10.1.2.3"],
            "203.0.113.7",
        ),  # what a client says of itself comes first
        (["2001:db8::7"], "2001:db8::7"),
        (["[2001:db8::7]:443"], "2001:db8::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["10.1.2.3"], "10.1.2.3"),
        (["203.0.113.7, nonsense"], "127.0.0.1"),
        (["203.0.113.7, nonsense, 10.1.2.3"], "10.1.2.3"),
        (["", ","], "127.0.0.1"),
    ],
)
async def test_a_client_behind_proxies_of_ours_is_known_by_its_own_address(
    site: Site, told: list[str], client: str
) -> None:
    headers = [("X-Forwarded-For", text) for text in told]
    async with site.http.post(
        site.stage.url + "/api/v1/sessions", json={"login": "anna", "password": "right"}, headers=headers
    ) as response:
        assert response.status == 201
    assert site.doorman.addresses == [client]


def test_who_is_no_proxy_of_ours_is_not_believed() -> None:
    asked = make_mocked_request("GET", "/", {"X-Forwarded-For": "203.0.113.7"}).clone(remote="198.51.100.1")
    assert Proxies().seen_through(asked) is asked
    assert Proxies([ip_network("10.0.0.0/8")]).seen_through(asked) is asked


async def test_a_program_logs_in_refreshes_once_and_logs_out(site: Site) -> None:
    status, problem, _ = await site.ask(
        "POST", "/api/v1/sessions", None, json={"login": "anna", "password": "wrong"}
    )
    assert (status, problem["code"]) == (401, "wrong_password")
    status, given, response = await site.ask(
        "POST", "/api/v1/sessions", None, json={"login": "anna", "password": "right"}
    )
    assert (status, given["user"]["login"]) == (201, "anna")
    assert "Set-Cookie" not in response.headers
    assert (await site.ask("GET", "/api/v1/me", given["access_token"]))[0] == 200
    body = {"refresh_token": given["refresh_token"]}
    status, next_one, _ = await site.ask("POST", "/api/v1/sessions/refresh", None, json=body)
    assert status == 200
    assert (await site.ask("POST", "/api/v1/sessions/refresh", None, json=body))[0] == 401
    body = {"refresh_token": next_one["refresh_token"]}
    assert (await site.ask("POST", "/api/v1/sessions/log-out", None, json={}))[0] == 401
    assert (await site.ask("POST", "/api/v1/sessions/log-out", None, json=body))[0] == 204
    assert (await site.ask("POST", "/api/v1/sessions/refresh", None, json=body))[0] == 401


async def test_a_browsers_tokens_stay_in_cookies_that_other_sites_cannot_use(site: Site) -> None:
    status, given, response = await site.ask(
        "POST", "/api/v1/sessions", None, json={"login": "anna", "password": "right", "cookie": True}
    )
    assert (status, given["access_token"], given["refresh_token"]) == (201, None, None)
    cookies = response.headers.getall("Set-Cookie")
    assert all("HttpOnly" in one and "SameSite=Strict" in one for one in cookies)
    jar = "; ".join(one.partition(";")[0] for one in cookies)
    own, foreign = {"Origin": site.stage.url}, {"Origin": "https://evil.example"}
    allowed = {"Origin": "https://crm.example.com"}
    hold = "/api/v1/commands/call.hold"

    async def ask(method: str, path: str, headers: dict[str, str]) -> int:
        return (await site.ask(method, path, None, {"Cookie": jar, **headers}, json={"call": "1"}))[0]

    assert await ask("GET", "/api/v1/me", {}) == 200
    assert await ask("POST", hold, own) == 200
    assert await ask("POST", hold, allowed) == 200
    assert await ask("POST", hold, {"Sec-Fetch-Site": "same-origin"}) == 200
    assert await ask("POST", hold, foreign) == 403
    assert await ask("POST", hold, {}) == 403
    refresh = "/api/v1/sessions/refresh"
    assert (await site.ask("POST", refresh, None, {"Cookie": jar, **foreign}, json={}))[0] == 403
    status, _, response = await site.ask("POST", refresh, None, {"Cookie": jar, **own}, json={})
    assert (status, len(response.headers.getall("Set-Cookie"))) == (200, 2)
    assert (await site.ask("POST", refresh, None, {"Cookie": "cti_refresh=; =;;", **own}, json={}))[0] == 401


# --------------------------------------------------------------------------------------------- health


async def test_readiness_says_which_part_is_wrong(site: Site) -> None:
    assert (await site.ask("GET", "/healthz", None))[:2] == (200, {"alive": True})
    assert (await site.ask("GET", "/readyz", None))[0] == 200

    def broken() -> str | None:
        raise ZeroDivisionError

    site.stage.checks |= {"database": lambda: None, "pbx main": lambda: "no answer", "bad": broken}
    status, told, _ = await site.ask("GET", "/readyz", None)
    assert (status, told["ready"], told["parts"]["pbx main"]) == (503, False, "no answer")
    assert "ZeroDivisionError" in told["parts"]["bad"]
    assert (await site.ask("GET", "/metrics", None))[0] == 200


def test_cursors_come_back_as_they_went_and_no_others_do() -> None:
    assert decode(encode("main:1"), str) == "main:1"
    assert decode(encode(["a", 7]), str, int) == ["a", 7]
    for wrong in ("", "?", "e30", encode(7), encode(["a"]), encode("a\0b"), "é", encode(1 << 64), "W" * 512):
        with pytest.raises(Problem):
            decode(wrong, str)
    for beyond in (1 << 63, -(1 << 63), 1 << 64):
        with pytest.raises(Problem):
            decode(encode(beyond), int)


# ------------------------------------------------------------------------------------------------ CRM


@dataclass
class People:
    """The people's side: what was changed and who was logged out."""

    db: Database
    directory: Directory
    changed: list[str | None]

    async def refresh(self, login: str | None) -> None:
        self.changed.append(login)
        self.directory.load(*await load_directory(self.db.pool))

    async def end_sessions(self, login: str) -> int:
        return 1


def house_routes(db: Database, stage: Stage, people: People, passwords: Passwords) -> list[Route]:
    """The routes of accounts, interactions and people, on a real database."""
    interactions = Interactions(db.pool, publish=stage.bus.publish, region_of=lambda _pbx: "US")

    async def find(number: str, region: str) -> Identification:
        return Identification(caller=read_caller(number, region), how="none")

    return [
        *crm.rest.routes(
            pool=lambda: db.pool,
            find=find,
            add_note=lambda actor, text, about: interactions.add_note(actor, text, interaction=about),
            edit_note=lambda actor, note, text, version: interactions.edit_note(
                actor, note, text, version=version
            ),
            audit=lambda actor, op, args, told: stage.audited.append((actor.login, op, told)),
        ),
        *admin.routes(
            pool=lambda: db.pool,
            passwords=passwords,
            directory=people.directory,
            changed=people.refresh,
            end_sessions=people.end_sessions,
        ),
    ]


@pytest.fixture
async def big(migrated: str) -> AsyncIterator[tuple[Site, People]]:
    db = Database(migrated, size=4)
    await db.open()
    stage, people, passwords = Stage(), People(db, Directory(), []), Passwords()
    doorman = Doorman(stage)
    app = stage.app(
        *house_routes(db, stage, people, passwords),
        *sessions.routes(
            log_in=doorman.log_in, refresh=doorman.refresh, log_out=doorman.log_out, secure=True
        ),
        translate={**crm.rest.TRANSLATE, **admin.TRANSLATE},
    )
    async with stage.serve(app), aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        await db.pool.execute(
            """INSERT INTO interactions (call, pbx, started, touched, direction)
               VALUES ('main:1.1', 'main', $1, $1, 'inbound')""",
            NOON,
        )
        yield Site(stage, House(), doorman, http), people
    await db.close()
    passwords.close()


@pytest.fixture
def crm_site(big: tuple[Site, People]) -> Site:
    return big[0]


async def test_an_account_is_made_found_changed_and_called(crm_site: Site) -> None:
    ask = crm_site.ask
    key = {"Idempotency-Key": "k"}
    new = {"name": "Żółw & Söhne <b>", "kind": "company", "country": "DE"}
    status, account, made = await ask("POST", "/api/v1/accounts", headers=key, json=new)
    assert (status, account["name"]) == (201, new["name"])
    assert (await ask("POST", "/api/v1/accounts", headers=key, json=new))[1] == account
    assert (await ask("POST", "/api/v1/accounts", json=new | {"number": account["number"]}))[1][
        "code"
    ] == "taken"
    path = made.headers["Location"]

    _, found, _ = await ask("POST", "/api/v1/accounts/search", json={"text": "söhne"})
    assert [one["id"] for one in found["items"]] == [account["id"]]

    status, phone, _ = await ask(
        "POST", f"{path}/phones", json={"number": "030 901820", "region": "DE", "kind": "work"}
    )
    assert (status, phone["e164"]) == (201, "+4930901820")
    status, problem, _ = await ask("POST", f"{path}/phones", json={"number": "12", "region": "DE"})
    assert (status, problem["code"]) == (422, "bad_number")
    assert (await ask("POST", f"{path}/contacts", json={"name": "Ida", "main": True}))[0] == 201

    _, detail, read = await ask("GET", path)
    assert ([c["name"] for c in detail["contacts"]], len(detail["phones"])) == (["Ida"], 1)
    etag = read.headers["ETag"]
    status, changed, _ = await ask("PATCH", path, headers={"If-Match": etag}, json={"classification": "A"})
    assert (status, changed["classification"], changed["name"]) == (200, "A", new["name"])
    status, problem, _ = await ask("PATCH", path, headers={"If-Match": etag}, json={"classification": "B"})
    assert (status, problem["code"]) == (412, "changed_meanwhile")
    assert (await ask("PATCH", path, headers={"If-Match": '"x"'}, json={"name": "y"}))[0] == 412
    assert (await ask("DELETE", f"{path}/phones/{phone['id']}"))[0] == 204
    assert (await ask("DELETE", f"{path}/phones/{phone['id']}"))[0] == 404
    assert (await ask("GET", "/api/v1/accounts/99999"))[0] == 404
    assert (await ask("GET", "/api/v1/accounts/x"))[0] == 404
    assert ("anna", "account.change", "ok") in crm_site.stage.audited


async def test_notes_are_written_once_and_edited_by_version(crm_site: Site) -> None:
    ask = crm_site.ask
    status, note, _ = await ask(
        "POST", "/api/v1/interactions/1/notes", headers={"Idempotency-Key": "n"}, json={"text": "Rang"}
    )
    assert status == 201
    await ask("POST", "/api/v1/interactions/1/notes", headers={"Idempotency-Key": "n"}, json={"text": "Rang"})
    path, first = f"/api/v1/notes/{note['id']}", {"If-Match": '"1"'}
    assert (await ask("PATCH", path, "ben-token", first, json={"text": "Mine"}))[1]["code"] == "not_your_note"
    assert (await ask("PATCH", path, headers=first, json={"text": "Rang twice"}))[0] == 200
    assert (await ask("PATCH", path, headers=first, json={"text": "Late"}))[0] == 412
    _, interaction, _ = await ask("GET", "/api/v1/interactions/1")
    assert [one["text"] for one in interaction["notes"]] == ["Rang twice"]
    assert (await ask("POST", "/api/v1/interactions/7/notes", json={"text": "x"}))[0] == 404
    assert (await ask("POST", "/api/v1/interactions/1/notes", json={"text": ""}))[0] == 422


async def test_a_number_is_looked_up_in_a_body_never_in_an_address(crm_site: Site) -> None:
    status, told, _ = await crm_site.ask("POST", "/api/v1/lookup", json={"number": "(202) 555-0143"})
    assert (status, told["e164"], told["candidates"]) == (200, "+12025550143", [])
    _, document, _ = await crm_site.ask("GET", "/api/openapi.json")
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names = {one["name"] for one in operation.get("parameters", ()) if one["in"] != "header"}
            assert not names & {"number", "e164", "ani", "name", "text", "q", "phone_number", "email"}, path


async def test_users_are_added_changed_by_version_and_every_change_is_in_the_trail(
    big: tuple[Site, People],
) -> None:
    site, people = big

    async def ask(method: str, path: str, **more: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
        return await site.ask(method, f"/api/v1{path}", "root-token", **more)

    assert (await ask("PUT", "/teams/sales", json={"name": "Sales", "queues": ["main:sales"]}))[0] == 200
    new = {
        "login": "zoe", "name": "Zoé", "password": "correct horse battery", "team": "sales",
        "phones": {"main": "PJSIP/1003"}, "queues": [{"queue": "main:sales", "penalty": 2}],
    }  # fmt: skip
    status, user, made = await ask("POST", "/users", json=new)
    assert (status, user["team"], user["phones"], user["queues"]) == (
        201, "sales", {"main": "PJSIP/1003"}, [{"queue": "main:sales", "penalty": 2}],
    )  # fmt: skip
    assert "password" not in str(user)
    assert people.directory.agent_at("main", "PJSIP/1003") == "zoe"
    for wrong in (
        new,
        new | {"login": "Bad Login"},
        {"login": "x", "name": "X", "team": "none"},
        new | {"password": "a"},
    ):
        status, problem, _ = await ask("POST", "/users", json=wrong)
        assert status in (404, 422), problem
    assert (await ask("GET", "/users/x"))[0] == 404  # a half-added user would be worse than none

    etag = {"If-Match": made.headers["ETag"]}
    status, user, _ = await ask(
        "PATCH", "/users/zoe", headers=etag, json={"name": "Zoe B", "phones": {"main": None}}
    )
    assert (status, user["name"], user["phones"]) == (200, "Zoe B", {})
    assert (await ask("PATCH", "/users/zoe", headers=etag, json={"name": "Late"}))[1][
        "code"
    ] == "changed_meanwhile"
    assert (await ask("PATCH", "/users/nobody", headers=etag, json={"name": "X"}))[0] == 404
    assert (await ask("POST", "/users/zoe/log-out"))[0] == 204
    assert people.changed == [None, "zoe", "zoe", "zoe"]

    status, key, _ = await ask("POST", "/api-keys", json={"name": "CRM"})
    assert (status, key["key"].startswith("cti_")) == (201, True)
    assert (await ask("DELETE", f"/api-keys/{key['about']['id']}"))[0] == 204
    assert (await ask("DELETE", "/api-keys/none"))[0] == 404
    assert (await ask("POST", "/api-keys", json={"name": "CRM", "teams": ["none"]}))[0] == 404
    _, keys, _ = await ask("GET", "/api-keys")
    assert (len(keys["items"]), key["key"] in str(keys)) == (1, False)

    actions: list[str] = []
    cursor = ""
    while True:
        _, trail, _ = await ask("GET", f"/audit?limit=2{cursor}")
        actions += [one["action"] for one in trail["items"]]
        assert "battery" not in str(trail)
        if trail["next"] is None:
            break
        cursor = f"&cursor={trail['next']}"
    assert actions == [
        "key.revoked",
        "key.created",
        "user.logged_out",
        "user.changed",
        "user.created",
        "team.put",
    ]


MANY = [f"main:q{n}" for n in (7, 3, 11, 1, 9, 5, 2, 10, 8, 4, 6, 0)]


async def test_what_has_no_order_of_its_own_is_listed_by_name(big: tuple[Site, People]) -> None:
    site, _ = big
    assert (await site.ask("PUT", "/api/v1/teams/sales", "root-token", json={"name": "S", "queues": MANY}))[
        1
    ]["queues"] == sorted(MANY)
    _, teams, _ = await site.ask("GET", "/api/v1/teams", "root-token")
    assert teams["items"] == [{"id": "sales", "name": "S", "queues": sorted(MANY)}]
    of = [queue.removeprefix("main:") for queue in MANY]
    for team in of:
        assert (await site.ask("PUT", f"/api/v1/teams/{team}", "root-token", json={"name": team}))[0] == 200
    _, key, _ = await site.ask("POST", "/api/v1/api-keys", "root-token", json={"name": "CRM", "teams": of})
    _, keys, _ = await site.ask("GET", "/api/v1/api-keys", "root-token")
    assert key["about"]["teams"] == keys["items"][0]["teams"] == sorted(of)


PACKED = """
from cti.hub import pack
from cti.people import Team
from cti.rest.admin import TeamRead
print(pack(TeamRead.of(Team(id="sales", name="Sales", queues=frozenset({queues})))).decode())
"""


def test_another_process_says_the_same_bytes() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", PACKED.format(queues=MANY)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] != b""


async def test_no_answer_is_a_set_in_the_order_of_a_processs_own(crm_site: Site) -> None:
    """A set is written in the order of the process's hash seed: what is told has a list instead."""
    _, document, _ = await crm_site.ask("GET", "/api/openapi.json")
    assert {"TeamRead", "ApiKey"} <= document["components"]["schemas"].keys()
    assert [
        name for name, shape in document["components"]["schemas"].items() if "uniqueItems" in str(shape)
    ] == []


async def test_the_version_of_a_user_is_of_what_is_told_not_of_how_it_lies_in_the_table(
    big: tuple[Site, People],
) -> None:
    site, people = big

    async def version() -> str:
        people.directory.load(*await load_directory(people.db.pool))  # as another process does at its start
        _, _, read = await site.ask("GET", "/api/v1/users/zoe", "root-token")
        return read.headers["ETag"]

    phones = {"a": "PJSIP/1", "b": "PJSIP/2", "c": "PJSIP/3"}
    new = {"login": "zoe", "name": "Zoe", "phones": phones}
    assert (await site.ask("POST", "/api/v1/users", "root-token", json=new))[0] == 201
    first = await version()
    await people.db.pool.execute("UPDATE agent_interfaces SET interface = interface WHERE pbx = 'a'")
    # So small a table is read as it lies, once its size is known.
    await people.db.pool.execute("ANALYZE agent_interfaces")
    assert await version() == first


async def test_an_administrator_cannot_lock_themselves_out(big: tuple[Site, People]) -> None:
    site, _ = big
    body = {"login": "root", "name": "Root", "role": "admin"}
    _, _, made = await site.ask("POST", "/api/v1/users", "root-token", json=body)
    for edit in ({"disabled": True}, {"role": "agent"}):
        etag = {"If-Match": made.headers["ETag"]}
        status, problem, _ = await site.ask("PATCH", "/api/v1/users/root", "root-token", etag, json=edit)
        assert (status, problem["code"]) == (409, "yourself")


async def test_every_route_of_the_house_lets_in_its_roles_and_nobody_else(big: tuple[Site, People]) -> None:
    await test_every_route_lets_in_its_roles_and_nobody_else(big[0])


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_schemathesis_finds_no_fault_in_the_house(big: tuple[Site, People]) -> None:
    """Generated requests on a real database: never a 5xx, and every answer is one that the document tells of."""
    url = big[0].stage.url
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, url + "/api/openapi.json")
    failures = await asyncio.to_thread(run_schemathesis, schema, "root-token", 5)
    assert not failures, "\n\n".join(failures)


def test_the_actors_of_these_tests_cover_every_role() -> None:
    assert {actor.role for actor in (ANNA, SUE, ROOT, CRM)} == set(Role)
