"""Users, log-in and API keys on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from argon2 import PasswordHasher

from cti import audit, users
from cti.agent_sessions import load_agent_sessions, save_agent_sessions
from cti.agents import Session
from cti.api_keys import create_api_key, list_api_keys, revoke_api_key, verify_api_key
from cti.database import Database
from cti.facts import AgentState
from cti.login import Buckets, LogIn, Refused, place_of
from cti.passwords import BadInput, Busy, Passwords
from cti.people import Actor, Agent, Directory, QueueAssignment, Role, Team
from cti.users import NotThere

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
RIGHT = "correct horse battery"
OFFICE = "192.0.2.7"


@pytest.fixture
async def pool(tables: str) -> AsyncIterator[Any]:
    """A pool on empty tables."""
    conn = await asyncpg.connect(tables)
    await conn.execute(
        "SET session_replication_role = replica"
    )  # past the trigger that guards the audit trail
    await conn.execute("TRUNCATE users, teams, login_failures, api_keys, audit CASCADE")
    await conn.close()
    db = Database(tables, size=8)
    await db.open()
    yield db.pool
    await db.close()


@pytest.fixture
def passwords() -> Any:
    made = Passwords(QUICK)
    yield made
    made.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def anna(pool: Any, passwords: Passwords, **more: Any) -> None:
    await users.create_user(pool, passwords, login="anna", name="Anna Berg", password=RIGHT, **more)


# --- users ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("login", {"login": "Anna"}),
        ("login", {"login": ""}),
        ("login", {"login": "a" * 65}),
        ("login", {"login": "an na"}),
        ("login", {"login": "anna\n"}),
        ("login", {"login": "-anna"}),
        ("name", {"name": "  "}),
        ("name", {"name": "A\x00B"}),
        ("name", {"name": "\ud800"}),
        ("name", {"name": "x" * 121}),
        ("role", {"role": Role.INTEGRATION}),
        ("password", {"password": "short"}),
        ("password", {"password": "x" * 1025}),
    ],
)
async def test_wrong_input_is_a_sentence_about_its_field(
    pool: Any, passwords: Passwords, field: str, given: dict[str, Any]
) -> None:
    with pytest.raises(BadInput) as caught:
        await users.create_user(
            pool, passwords, **({"login": "anna", "name": "Anna", "password": RIGHT} | given)
        )
    assert caught.value.field == field
    assert str(caught.value).endswith(".")
    assert await users.list_users(pool) == []


async def test_a_login_is_taken_once(pool: Any, passwords: Passwords) -> None:
    await anna(pool, passwords)
    with pytest.raises(BadInput, match="already a user anna"):
        await anna(pool, passwords)


async def test_a_shorter_password_only_where_it_is_asked_for(pool: Any, passwords: Passwords) -> None:
    await users.create_user(pool, passwords, login="demo", name="Demo", password="demo", shortest=4)
    assert isinstance(await LogIn(pool, passwords).verify("demo", "demo", OFFICE), Actor)


async def test_hashes_are_argon2id_and_nothing_else_of_the_password_is_kept(pool: Any) -> None:
    passwords = Passwords()
    await anna(pool, passwords)
    stored = await pool.fetchval("SELECT password_hash FROM users")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    passwords.close()


async def test_unknown_users_and_teams_are_told(pool: Any, passwords: Passwords) -> None:
    with pytest.raises(NotThere, match="nobody"):
        await users.set_password(pool, passwords, "nobody", RIGHT)
    with pytest.raises(NotThere):
        await users.set_disabled(pool, "nobody", True)
    with pytest.raises(NotThere):
        await users.set_team(pool, "nobody", "sales")
    with pytest.raises(NotThere):
        await users.set_team_queues(pool, "sales", ["main:support"])
    with pytest.raises(BadInput):
        await users.set_team_queues(pool, "sales", ["support"])
    assert await users.get_user(pool, "nobody") is None
    assert await users.actor_of(pool, "nobody") is None


async def test_the_directory_is_what_the_tables_say(pool: Any, passwords: Passwords) -> None:
    await anna(pool, passwords)
    await users.create_user(pool, passwords, login="ben", name="Ben", password=RIGHT)
    await users.create_user(pool, passwords, login="gone", name="Gone", password=RIGHT)
    await users.create_user(pool, passwords, login="sue", name="Sue", role=Role.SUPERVISOR, password=RIGHT)
    await users.create_user(pool, passwords, login="root", name="Root", role=Role.ADMIN, password=RIGHT)
    await users.put_team(pool, "sales", "Sale")
    await users.put_team(pool, "sales", "Sales")
    await users.put_team(pool, "empty", "Empty")
    await users.set_team_queues(pool, "sales", ["main:old", "main:sales"])
    await users.set_team_queues(pool, "sales", ["main:sales", "main:vip"])
    await users.set_team(pool, "anna", "empty")
    await users.set_team(pool, "anna", "sales")
    await users.set_interface(pool, "anna", "main", "PJSIP/1")
    await users.set_interface(pool, "anna", "main", "PJSIP/1001")
    await users.set_interface(pool, "anna", "second", "Local/1101@agents/n")
    await users.set_interface(pool, "sue", "main", "PJSIP/1009")
    await users.set_queues(pool, "anna", [QueueAssignment(queue="main:old")])
    await users.set_queues(
        pool,
        "anna",
        [QueueAssignment(queue="main:sales"), QueueAssignment(queue="main:vip", penalty=5)],
    )
    await users.set_supervised(pool, "sue", ["sales", "empty"])
    await users.set_disabled(pool, "gone", True)
    with pytest.raises(BadInput, match="another agent's phone"):
        await users.set_interface(pool, "ben", "main", "PJSIP/1001")

    agents, teams = await users.load_directory(pool)
    assert agents == [
        Agent(
            login="anna",
            name="Anna Berg",
            team="sales",
            interfaces={"main": "PJSIP/1001", "second": "Local/1101@agents/n"},
            queues=(QueueAssignment(queue="main:sales"), QueueAssignment(queue="main:vip", penalty=5)),
        ),
        Agent(login="ben", name="Ben"),
        Agent(login="sue", name="Sue", interfaces={"main": "PJSIP/1009"}),
    ]
    assert teams == [
        Team(id="empty", name="Empty"),
        Team(id="sales", name="Sales", queues=frozenset({"main:sales", "main:vip"})),
    ]
    directory = Directory()
    directory.load(agents, teams)
    assert directory.agent_at("second", "Local/1101@agents") == "anna"
    assert (await users.actor_of(pool, "sue")).teams == {"sales", "empty"}  # type: ignore[union-attr]
    assert (await users.actor_of(pool, "anna")).teams == frozenset()  # type: ignore[union-attr]
    listed = await users.list_users(pool, after="anna", limit=2)
    assert [(u.login, u.disabled) for u in listed] == [("ben", False), ("gone", True)]

    await users.remove_team(pool, "sales")
    agents, teams = await users.load_directory(pool)
    assert agents[0].team is None
    assert [team.id for team in teams] == ["empty"]


async def test_the_last_known_of_an_agent_survives(pool: Any, passwords: Passwords) -> None:
    await anna(pool, passwords)
    since = datetime(2026, 11, 21, 10, tzinfo=UTC)
    first = Session(agent="anna", logged_on=True, ready=True, reason=None, since=since, wrap_until=None)
    second = Session(
        agent="anna",
        logged_on=True,
        ready=False,
        reason="Lunch",
        since=since,
        wrap_until=since + timedelta(seconds=30),
        state=AgentState.WRAP_UP,
        log_off_after=True,
        shown_reason="Phone unreachable",
        call="main:1",
        by="ruth",
        why="asked to be not ready: Lunch",
        asked_by="ruth",
        log_off_by="sue",
        wrap_call="main:1",
        wrap_queue="main:sales",
        wrap_extended=20.0,
        owed={"main:1": "main:sales"},
        worked={"main:2": ("main:support", True)},
    )
    stranger = Session(agent="nobody", logged_on=True, ready=True, reason=None, since=since, wrap_until=None)
    await save_agent_sessions(pool, [stranger, first, second])
    assert await load_agent_sessions(pool) == {"anna": second}
    await save_agent_sessions(pool, [first])
    assert await load_agent_sessions(pool) == {"anna": first}


# --- log-in ---------------------------------------------------------------------------------------------------------


async def test_the_right_password_opens(pool: Any, passwords: Passwords) -> None:
    await anna(pool, passwords, role=Role.SUPERVISOR)
    await users.put_team(pool, "sales", "Sales")
    await users.set_supervised(pool, "anna", ["sales"])
    log_in = LogIn(pool, passwords)
    actor = await log_in.verify(" Anna ", RIGHT, OFFICE)
    assert actor == Actor(login="anna", name="Anna Berg", role=Role.SUPERVISOR, teams=frozenset({"sales"}))


async def test_the_same_password_typed_with_other_code_points_opens(pool: Any, passwords: Passwords) -> None:
    await users.create_user(pool, passwords, login="zoe", name="Zoë", password="caf\u00e9 au lait 12")
    assert isinstance(await LogIn(pool, passwords).verify("zoe", "cafe\u0301 au lait 12", OFFICE), Actor)


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("anna", "wrong password!"),
        ("anna", ""),
        ("anna", RIGHT + "\x00"),
        ("anna", "x" * 1_000_000),
        ("anna", "\ud800"),
        ("nobody", RIGHT),
        ("", RIGHT),
        ("an\x00na", RIGHT),
        ("änna", RIGHT),
        ("\ud800", RIGHT),
        ("x" * 100_000, RIGHT),
        ("' OR 1=1 --", RIGHT),
        ("nopassword", RIGHT),
        ("nopassword", "nobody has this password"),
    ],
)
async def test_anything_else_is_refused_in_the_same_words(
    pool: Any, passwords: Passwords, login: str, password: str
) -> None:
    await anna(pool, passwords)
    await users.create_user(pool, passwords, login="nopassword", name="N")
    refused = await LogIn(pool, passwords).verify(login, password, OFFICE)
    assert refused == Refused("wrong", "The login or the password is wrong.")


async def test_known_and_unknown_logins_are_locked_alike(pool: Any, passwords: Passwords) -> None:
    await anna(pool, passwords)
    log_in = LogIn(pool, passwords)
    known = [await log_in.verify("anna", "wrong", OFFICE) for _ in range(7)]
    unknown = [await log_in.verify("nobody", "wrong", OFFICE) for _ in range(7)]
    assert known == unknown
    assert [r.code for r in known if isinstance(r, Refused)] == ["wrong"] * 5 + ["too_many"] * 2
    locked = await log_in.verify("anna", RIGHT, OFFICE)
    assert isinstance(locked, Refused)
    assert (locked.code, locked.retry_after) == ("too_many", 30)
    again = await LogIn(pool, passwords).verify("anna", RIGHT, "198.51.100.1")
    assert isinstance(again, Refused), "the lock survives a restart"
    assert (await users.get_user(pool, "anna")).locked_until is not None  # type: ignore[union-attr]
    await users.unlock(pool, "anna")
    assert isinstance(await log_in.verify("anna", RIGHT, OFFICE), Actor)


async def test_locks_grow_and_pass(pool: Any, passwords: Passwords) -> None:
    await anna(pool, passwords)
    log_in = LogIn(pool, passwords)
    waits = []
    for _ in range(12):
        await log_in.verify("anna", "wrong", OFFICE)
        waits.append(
            await pool.fetchval(
                "SELECT round(extract(epoch FROM locked_until - last_failed))::int FROM login_failures"
            )
        )
        await pool.execute("UPDATE login_failures SET locked_until = now()")
    assert waits == [0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900, 900]
    for _ in range(6):  # what is no user's name may be a password in the wrong field
        await log_in.verify("correct horse", "wrong", OFFICE)
    trail = await audit.list_entries(pool)
    assert {(one.action, one.target, one.address) for one in trail} == {("user.locked", "anna", OFFICE)}
    assert [one.detail["failures"] for one in trail] == [12, 11, 10, 9, 8, 7, 6, 5]
    await pool.execute("DELETE FROM login_failures WHERE login_hash <> sha256('anna')")
    assert isinstance(await log_in.verify("anna", RIGHT, OFFICE), Actor)
    assert await pool.fetchval("SELECT count(*) FROM login_failures") == 0


async def test_an_address_that_fails_is_slowed_down_whatever_logins_it_tries(
    pool: Any, passwords: Passwords
) -> None:
    await anna(pool, passwords)
    clock = Clock()
    log_in = LogIn(pool, passwords, by_address=Buckets(3, 1.0, clock=clock))
    for number in range(3):
        refused = await log_in.verify(f"guess{number}", "wrong", OFFICE)
        assert isinstance(refused, Refused)
        assert refused.code == "wrong"
    refused = await log_in.verify("anna", RIGHT, OFFICE)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry_after) == ("too_many", 1)
    assert isinstance(await log_in.verify("anna", RIGHT, "198.51.100.1"), Actor)
    clock.now += 1.1
    assert isinstance(await log_in.verify("anna", RIGHT, OFFICE), Actor)


async def test_a_whole_call_centre_logs_in_from_one_address(pool: Any, passwords: Passwords) -> None:
    for number in range(120):
        await users.create_user(pool, passwords, login=f"agent{number}", name="A", password=RIGHT)
    log_in = LogIn(pool, passwords, by_address=Buckets(10, 1.0))
    actors = await asyncio.gather(*(log_in.verify(f"agent{n}", RIGHT, OFFICE) for n in range(120)))
    assert all(isinstance(actor, Actor) for actor in actors)


async def test_a_rush_waits_in_a_bounded_line() -> None:
    passwords = Passwords(PasswordHasher(time_cost=2, memory_cost=4096, parallelism=1), at_once=1, waiting=3)
    answers = await asyncio.gather(*(passwords.verify(None, "x") for _ in range(10)), return_exceptions=True)
    assert [isinstance(a, Busy) for a in answers].count(True) == 6
    assert answers.count(False) == 4
    passwords.close()


async def test_a_disabled_user_learns_it_only_with_the_password(pool: Any, passwords: Passwords) -> None:
    await anna(pool, passwords)
    await users.set_disabled(pool, "anna", True)
    log_in = LogIn(pool, passwords)
    wrong, right = await log_in.verify("anna", "wrong", OFFICE), await log_in.verify("anna", RIGHT, OFFICE)
    assert (wrong.code, right.code) == ("wrong", "disabled")  # type: ignore[union-attr]


async def test_an_old_hash_is_renewed_and_ends_no_session(pool: Any, passwords: Passwords) -> None:
    await anna(pool, passwords)
    await pool.execute("INSERT INTO sessions (login, expires) VALUES ('anna', now() + interval '1 hour')")
    stronger = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    assert isinstance(await LogIn(pool, stronger).verify("anna", RIGHT, OFFICE), Actor)
    assert ",t=2," in await pool.fetchval("SELECT password_hash FROM users")
    assert isinstance(await LogIn(pool, stronger).verify("anna", RIGHT, OFFICE), Actor)
    assert await pool.fetchval("SELECT revoked FROM sessions") is None
    stronger.close()


def test_buckets_are_bounded_and_fill_up() -> None:
    clock = Clock()
    buckets = Buckets(2, 0.5, most=3, clock=clock)
    for key in "abcde":
        buckets.take(key)
        buckets.take(key)
        buckets.take(key)
    assert len(buckets) == 3
    assert buckets.wait("e") == 2.0
    assert buckets.wait("a") == 0.0
    clock.now += 1
    assert buckets.wait("e") == 1.0
    clock.now += 100
    buckets.take("e")
    assert buckets.wait("e") == 0.0


def test_an_ipv6_client_is_its_network() -> None:
    assert place_of("2001:db8:1:2:3:4:5:6") == place_of("2001:db8:1:2::1") != place_of("2001:db8:1:3::1")
    assert place_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert len(place_of("x" * 1000)) == 64


# --- API keys -------------------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_opens(pool: Any) -> None:
    await users.put_team(pool, "sales", "Sales")
    made, text = await create_api_key(pool, name="CRM", created_by="root", teams=["sales"])
    assert text.startswith(made.prefix + "_")
    holder = await verify_api_key(pool, text)
    assert holder is not None
    assert holder.actor == Actor(
        login=f"key:{made.id}", name="CRM", role=Role.INTEGRATION, teams=frozenset({"sales"}), via="api_key"
    )
    [listed] = await list_api_keys(pool)
    assert listed.last_used is not None
    assert text not in str(await pool.fetch("SELECT * FROM api_keys"))


async def test_keys_that_are_wrong_revoked_or_expired_do_not_open(pool: Any) -> None:
    made, text = await create_api_key(pool, name="CRM", created_by="root")
    last = "A" if text[-1] != "A" else "B"
    for wrong in (
        "",
        "cti_",
        text[:-1] + last,
        text + "A",
        text.upper(),
        text.replace(made.id, "0" * 12),
        "\x00",
    ):
        assert await verify_api_key(pool, wrong) is None
    await revoke_api_key(pool, made.id)
    await revoke_api_key(pool, made.id)
    assert await verify_api_key(pool, text) is None
    other, text = await create_api_key(
        pool, name="B", created_by="root", expires=datetime.now(UTC) + timedelta(days=1)
    )
    assert await verify_api_key(pool, text) is not None
    await pool.execute("UPDATE api_keys SET expires = now() WHERE id = $1", other.id)
    assert await verify_api_key(pool, text) is None
    with pytest.raises(NotThere):
        await revoke_api_key(pool, "000000000000")


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("name", {"name": ""}),
        ("role", {"role": Role.AGENT}),
        ("expires", {"expires": datetime(2020, 1, 1, tzinfo=UTC)}),
        ("expires", {"expires": datetime(2120, 1, 1)}),  # noqa: DTZ001 - a naive one is what is tested
        ("teams", {"teams": ["No Team"]}),
    ],
)
async def test_a_key_is_made_from_good_input_only(pool: Any, field: str, given: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        await create_api_key(pool, **({"name": "CRM", "created_by": "root"} | given))
    assert caught.value.field == field


# --- audit ----------------------------------------------------------------------------------------------------------

ROOT = Actor(login="root", name="Root", role=Role.ADMIN)


async def test_the_trail_is_read_newest_first_and_by_whom_and_what(pool: Any) -> None:
    ids = [
        await audit.record(pool, ROOT, "user.created", f"user{i}", {"role": "agent"}, OFFICE)
        for i in range(5)
    ]
    await audit.record(
        pool, Actor(login="sue", name="Sue", role=Role.SUPERVISOR), "call.monitored", "main:1.1"
    )
    newest = await audit.list_entries(pool, limit=2)
    assert [(e.actor, e.action) for e in newest] == [("sue", "call.monitored"), ("root", "user.created")]
    older = await audit.list_entries(pool, before=newest[-1].id)
    assert [e.id for e in older] == ids[3::-1]
    [found] = await audit.list_entries(pool, actor="root", action="user.created", target="user2")
    assert (found.detail, found.address, found.via) == ({"role": "agent"}, OFFICE, "password")


async def test_the_trail_cannot_be_changed(pool: Any) -> None:
    await audit.record(pool, ROOT, "user.created", "anna")
    for attempt in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await pool.execute(attempt)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="90 days"):
        await audit.expire(pool, datetime.now(UTC) - timedelta(days=10))
    await pool.execute(
        "INSERT INTO audit (at, actor, via, action) VALUES (now() - interval '200 days', 'old', 'system', 'x.y')"
    )
    assert await audit.expire(pool, datetime.now(UTC) - timedelta(days=100)) == 1
    assert [e.action for e in await audit.list_entries(pool)] == ["audit.expired", "user.created"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute("DELETE FROM audit")


async def test_no_secret_enters_the_trail(pool: Any) -> None:
    _, key = await create_api_key(pool, name="CRM", created_by="root")
    secrets = ["hunter2hunter2", key, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl", "s3cr3t"]
    detail = {
        "password": secrets[0],
        "new_password": secrets[0],
        "note": f"used {key} today",
        "deep": [{"Authorization": f"Bearer {secrets[2]}"}, {"headers": {"Set-Cookie": secrets[3]}}],
        "url": f"postgresql://cti:{secrets[3]}@db/cti",
        "text": f"token was {secrets[2]}",
        "api_key": secrets[3],
        "password_hash": "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA",
        "raw": secrets[3].encode(),
        "role": "agent",
        "has_password": True,
        "nul": "a\x00b",
        "big": 1 << 80,
        "odd": "\ud800",
    }
    await audit.record(pool, ROOT, "user.changed", "anna", detail, OFFICE)
    stored = str(await pool.fetch("SELECT detail::text FROM audit"))
    for secret in [*secrets, "argon2id"]:
        assert secret not in stored
    [entry] = await audit.list_entries(pool)
    assert entry.detail["role"] == "agent"
    assert entry.detail["password"] == audit.REMOVED
    assert entry.detail["nul"] == "a\ufffdb"


async def test_a_huge_or_endless_detail_is_cut(pool: Any) -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    await audit.record(pool, ROOT, "user.changed", "anna", endless)
    await audit.record(pool, ROOT, "user.changed", "x" * 10_000, {str(i): "y" * 1000 for i in range(100)})
    newest = (await audit.list_entries(pool))[0]
    assert newest.detail["too_long"] is True
    assert len(newest.target) < 1000
