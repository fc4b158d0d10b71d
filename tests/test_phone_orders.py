"""Which client is an agent's phone in the browser, orders to it, and its password: without a browser."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cti import users
from cti.browser_phones import BrowserPhones
from cti.commands import CommandError
from cti.passwords import BadInput, Passwords
from cti.people import Actor, Agent, Directory, Role
from cti.phone_passwords import (
    PhonePassword,
    Unreadable,
    phone_passwords,
    remove_phone_password,
    set_phone_password,
)
from cti.problems import Problem
from cti.rest import phone as rest_phone
from cti.rest.serving import Asked
from cti.settings import PbxSettings
from cti.users import NotThere

ANNA = Actor(login="anna", name="Anna Berg", role=Role.AGENT)
BEN = Actor(login="ben", name="Ben Okafor", role=Role.AGENT)
ON = {"registered": ["main"], "in_call": False}


@dataclass(eq=False)
class Tab:
    """A client; what it is sent stays in `frames`."""

    actor: Actor = ANNA
    closed: object = None
    frames: list[dict[str, Any]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, value: Any) -> bool:
        self.frames.append(value)
        self.came.set()
        return True

    async def order(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            await self.came.wait()
        data: dict[str, Any] = self.frames[-1]["data"]
        return data


@dataclass
class House:
    """Phones in the browser of Anna, and which tab is the phone."""

    seats: dict[str, Tab] = field(default_factory=dict)
    opened: list[tuple[str, str]] = field(default_factory=list)
    order_seconds: float = 5.0

    def __post_init__(self) -> None:
        directory = Directory()
        directory.load(
            [
                Agent(
                    login="anna",
                    name="Anna",
                    interfaces={"main": "PJSIP/1", "east": "PJSIP/2"},
                    in_browser=frozenset({"main"}),
                ),
                Agent(login="ben", name="Ben", interfaces={"main": "PJSIP/3"}),
            ],
            [],
        )
        self.phones = BrowserPhones(
            directory=directory,
            phone_seat=self.seats.get,
            opened=lambda pbx, login: self.opened.append((pbx, login)),
            order_seconds=self.order_seconds,
        )

    def order(self, do: str = "answer") -> asyncio.Task[None]:
        return asyncio.create_task(self.phones.order("anna", "main", do, call="main:1", connection="main:2"))


async def code_of(work: Any) -> str:
    with pytest.raises(CommandError) as caught:
        await work
    return caught.value.code


async def test_an_order_goes_to_the_phone_and_its_answer_counts() -> None:
    house, tab, other = House(), Tab(), Tab()
    house.seats["anna"] = tab
    house.phones.state(tab, ON)
    assert len(house.phones) == 1
    ordered = house.order()
    data = await tab.order()
    assert (data["do"], data["call"], data["connection"]) == ("answer", "main:1", "main:2")
    house.phones.done(Tab(BEN), {"order": data["order"]})  # somebody else's word
    house.phones.done(tab, {"order": "unknown"})
    assert not ordered.done()
    house.phones.done(tab, {"order": data["order"]})
    await ordered
    house.phones.done(tab, {"order": data["order"]})  # twice does no harm
    assert other.frames == []


@pytest.mark.parametrize(
    ("told", "code"),
    [("no_such_call", "not_at_this_phone"), ("no_microphone", "no_microphone"), ("failed", "phone_failed")],
)
async def test_what_the_page_could_not_do_is_an_error(told: str, code: str) -> None:
    house, tab = House(), Tab()
    house.seats["anna"] = tab
    house.phones.state(tab, ON)
    ordered = house.order()
    house.phones.done(tab, {"order": (await tab.order())["order"], "code": told})
    assert await code_of(ordered) == code


async def test_a_page_that_does_not_react_is_given_up() -> None:
    house, tab = House(order_seconds=0.05), Tab()
    house.seats["anna"] = tab
    house.phones.state(tab, ON)
    assert await code_of(house.order()) == "phone_did_not_answer"
    house.phones.done(tab, {"order": tab.frames[-1]["data"]["order"]})  # too late


async def test_only_a_page_that_is_the_phone_and_on_gets_orders() -> None:
    house, tab, screen = House(), Tab(), Tab()
    assert await code_of(house.order()) == "phone_not_open"
    house.seats["anna"] = screen  # a screen that is no phone, but the oldest client
    assert await code_of(house.order()) == "phone_not_open"
    house.seats["anna"] = tab
    with pytest.raises(CommandError, match="another client"):
        house.phones.state(screen, ON)
    house.phones.state(tab, {"registered": [], "in_call": False, "problem": "no_permission"})
    with pytest.raises(CommandError, match="microphone") as caught:
        await house.phones.ready("anna", "main")
    assert caught.value.code == "phone_not_registered"
    with pytest.raises(CommandError) as wrong:
        house.phones.state(tab, {"registered": "main"})
    assert wrong.value.code == "bad_args"
    assert house.phones.has("anna", "main")
    assert not house.phones.has("anna", "east")
    assert not house.phones.has("ben", "main")


async def test_an_order_waits_for_a_page_that_is_coming_back() -> None:
    house, before, after = House(), Tab(), Tab()
    house.seats["anna"] = before
    house.phones.state(before, ON)
    before.closed = "gone"
    del house.seats["anna"]
    ordered = house.order()
    await asyncio.sleep(0)
    house.seats["anna"] = after
    house.phones.state(after, {"registered": [], "in_call": False})
    house.phones.state(after, ON)
    house.phones.done(after, {"order": (await after.order())["order"]})
    await ordered
    assert before.frames == []


async def test_a_page_without_a_call_is_told_of_as_opened_once() -> None:
    house, tab = House(), Tab()
    house.seats["anna"] = tab
    house.phones.state(tab, {"registered": [], "in_call": False})
    assert house.opened == []
    house.phones.state(tab, ON)
    house.phones.state(tab, {"registered": ["main"], "in_call": True})
    house.phones.state(tab, ON)
    assert house.opened == [("main", "anna")]
    again = house.seats["anna"] = Tab()
    house.phones.state(
        again, {"registered": ["main"], "in_call": True}
    )  # connected again in the middle of a call
    assert house.opened == [("main", "anna")]


# ------------------------------------------------------------------------------------------------ passwords


KEY = b"k" * 32


@pytest.fixture
async def db(migrated: str) -> Any:
    conn = await asyncpg.connect(migrated)
    passwords = Passwords()
    try:
        for login in ("anna", "ben"):
            await users.create_user(conn, passwords, login=login, name=login)
        await users.set_interface(conn, "anna", "main", "PJSIP/1201")
        yield conn
    finally:
        passwords.close()
        await conn.close()


async def test_a_phones_password_is_sealed_and_opens_with_the_key_alone(db: Any) -> None:
    user, made = await set_phone_password(db, KEY, "anna", "main")
    assert user == "1201"
    assert len(made) >= 24
    assert await phone_passwords(db, KEY, "anna") == [PhonePassword(pbx="main", user="1201", password=made)]
    assert made not in repr(await phone_passwords(db, KEY, "anna"))
    assert made.encode() not in await db.fetchval("SELECT password FROM browser_phones")
    with pytest.raises(Unreadable, match="CTI_SECRET_KEY"):
        await phone_passwords(db, b"x" * 32, "anna")
    assert (await users.load_directory(db))[0][0].in_browser == {"main"}


async def test_another_phone_does_not_inherit_the_password(db: Any) -> None:
    await set_phone_password(db, KEY, "anna", "main", "a password of its own")
    await users.set_interface(db, "anna", "main", "PJSIP/1202")
    assert await phone_passwords(db, KEY, "anna") == []
    assert (await users.load_directory(db))[0][0].in_browser == frozenset()
    await db.execute("UPDATE browser_phones SET interface = 'PJSIP/1202'")  # somebody at the tables
    with pytest.raises(Unreadable):
        await phone_passwords(db, KEY, "anna")
    assert await remove_phone_password(db, "anna", "main")
    assert not await remove_phone_password(db, "anna", "main")


async def test_wrong_passwords_and_phones_are_refused(db: Any) -> None:
    for password in ("short", "x" * 129, "line\nbreak in it", "not äscii at all"):
        with pytest.raises(BadInput):
            await set_phone_password(db, KEY, "anna", "main", password)
    with pytest.raises(NotThere, match="--phone"):
        await set_phone_password(db, KEY, "ben", "main")
    await users.set_interface(db, "ben", "main", "Local/1@agents/n")
    with pytest.raises(BadInput, match="PJSIP"):
        await set_phone_password(db, KEY, "ben", "main")


# ------------------------------------------------------------------------------------------------ the page


def route(path: str, page: Path, **more: Any) -> Any:
    async def none(*_: Any) -> Any:
        return []

    given = {"passwords": none, "given": none} | more
    pbx = PbxSettings(secret="s", phone_url="wss://pbx.example:8089/ws")  # type: ignore[arg-type]
    return next(r for r in rest_phone.routes(pbxs={"main": pbx}, page=page, **given) if r.path == path)


def asked(**given: Any) -> Any:
    return Asked(
        **({"grant": None, "params": None, "query": None, "body": None, "match": None, "key": None} | given)
    )


async def test_a_page_that_was_not_built_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"Node\.js") as caught:
        await route("/phone", tmp_path).handler(asked(request=None))
    assert caught.value.status == 404


async def test_the_page_may_connect_to_the_server_and_the_pbxs_only(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>")
    response = await route("/phone", tmp_path).handler(asked(request=None))
    policy = response.headers["Content-Security-Policy"]
    assert "connect-src 'self' wss://pbx.example:8089;" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


async def test_a_program_gets_no_phones_password(tmp_path: Path) -> None:
    @dataclass
    class Grant:
        actor: Actor
        expires: None = None

    program = Actor(login="key:1", name="CRM", role=Role.ADMIN, via="api_key")
    with pytest.raises(Problem) as caught:
        await route("/api/v1/me/phone", tmp_path).handler(asked(grant=Grant(program), request=None))
    assert caught.value.status == 403
