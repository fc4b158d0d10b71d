"""Access tokens and sessions: nobody gets in with anything but ours, and an ended log-in ends everywhere."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwe, jws, jwt
from joserfc.jwk import OctKey, RSAKey

from cti import audit, users
from cti.database import Database
from cti.passwords import Passwords
from cti.people import Actor, Role
from cti.tokens import Access, Revoked, TokenExpired, TokenInvalid, Tokens, signing_key

KEY = b"k" * 64
SUE = Actor(login="sue", name="Sue Pärr", role=Role.SUPERVISOR, teams=frozenset({"sales", "service"}))


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **time_: float) -> None:
        self.now += timedelta(**time_)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def pool(tables: str) -> AsyncIterator[Any]:
    """A pool on tables with one user, sue."""
    db = Database(tables)
    await db.open()
    await db.pool.execute("TRUNCATE users, teams, secrets CASCADE")
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    await users.create_user(db.pool, passwords, login="sue", name="Sue Pärr", role=Role.SUPERVISOR)
    await users.put_team(db.pool, "sales", "Sales")
    await users.put_team(db.pool, "service", "Service")
    await users.set_supervised(db.pool, "sue", ["sales", "service"])
    passwords.close()
    yield db.pool
    await db.close()


@pytest.fixture
async def tokens(tables: str, pool: Any, clock: Clock) -> AsyncIterator[Tokens]:
    made = Tokens(tables, pool, key=KEY, now=clock)
    yield made
    await made.close()


async def until(true: Callable[[], Any], *, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.01)


def refused(tokens: Tokens, token: str) -> bool:
    try:
        tokens.verify(token)
    except TokenExpired:
        return False
    except TokenInvalid:
        return True
    return False


# --- access tokens --------------------------------------------------------------------------------------------------


def no_pool() -> Any:
    return None


@pytest.fixture
def alone(clock: Clock) -> Tokens:
    """Tokens that are never asked for anything of the database."""
    return Tokens("postgresql://nowhere", no_pool(), key=KEY, now=clock)


def test_a_token_says_who_it_is(alone: Tokens, clock: Clock) -> None:
    token, expires = alone.issue(SUE, "s1")
    assert alone.verify(token) == SUE
    access = alone.read(token)
    assert access.sid == "s1"
    assert access.expires == expires
    assert timedelta(minutes=14) < expires - clock.now <= timedelta(minutes=15)
    clock.pass_by(minutes=14)
    assert alone.verify(token) == SUE
    clock.pass_by(minutes=1, seconds=1)
    with pytest.raises(TokenExpired):
        alone.verify(token)


def claims(**other: Any) -> dict[str, Any]:
    now = time.time()
    given = {
        "iss": "cti", "kind": "access", "sub": "sue", "name": "Sue", "role": "admin", "teams": [], "via": "password",
        "sid": "s1", "iat": now, "exp": now + 600,
    }  # fmt: skip
    return {name: value for name, value in (given | other).items() if value is not ...}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def plain(header: dict[str, Any], signature: str = "") -> str:
    return ".".join((b64(json.dumps(header).encode()), b64(json.dumps(claims()).encode()), signature))


def forged() -> list[str]:
    key = OctKey.import_key(KEY)
    stranger = OctKey.import_key(b"x" * 64)
    ours = jwt.encode({"alg": "HS256"}, claims(), key)
    header, payload, signature = ours.split(".")
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private = RSAKey.import_key(
        rsa_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return [
        plain({"alg": "none"}),
        plain({"alg": "None"}),
        plain({"alg": "nOnE", "typ": "JWT"}),
        plain({"alg": "none"}, signature),
        plain({"alg": "HS256"}),
        plain({"alg": ""}, signature),
        plain({}, signature),
        plain({"alg": ["HS256"]}, signature),
        f"{b64(json.dumps({'alg': 'none'}).encode())}.{payload}.{signature}",
        jwt.encode({"alg": "HS512"}, claims(), key, algorithms=["HS512"]),
        jwt.encode({"alg": "HS384"}, claims(), key, algorithms=["HS384"]),
        jwt.encode({"alg": "RS256"}, claims(), private),
        jwt.encode({"alg": "HS256"}, claims(), OctKey.import_key(b64(public).encode())),
        jwt.encode({"alg": "HS256"}, claims(), stranger),
        jwt.encode({"alg": "HS256", "jwk": stranger.as_dict()}, claims(), stranger),
        jwe.encrypt_compact({"alg": "dir", "enc": "A256CBC-HS512"}, json.dumps(claims()), key),
        f"{header}.{b64(json.dumps(claims(sub='root')).encode())}.{signature}",
        f"{header}.{payload}.{b64(b'0' * 32)}",
        f"{header}.{payload}",
        ours + ".x",
        ours[:-5],
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_no_other_algorithm_key_or_form_gets_in(alone: Tokens) -> None:
    good = jwt.encode({"alg": "HS256"}, claims(), OctKey.import_key(KEY))
    assert alone.verify(good).login == "sue"
    assert [token for token in forged() if not refused(alone, token)] == []


@pytest.mark.parametrize(
    "other",
    [
        {"exp": ...}, {"exp": None}, {"exp": "9999999999"}, {"exp": 1e400}, {"exp": -1e300}, {"exp": float("nan")},
        {"exp": {}}, {"iat": ...}, {"iat": 4102444800}, {"iss": ...}, {"iss": "other"}, {"kind": "refresh"},
        {"kind": ...}, {"sub": 1}, {"sub": None}, {"role": "god"}, {"role": None}, {"teams": "sales"}, {"teams": None},
        {"teams": [[]]}, {"teams": 7}, {"sid": None}, {"sid": ...}, {"name": ["x"]}, {"via": 1},
    ],
    ids=str,
)  # fmt: skip
def test_claims_of_another_shape_are_refused(alone: Tokens, other: dict[str, Any]) -> None:
    payload = json.dumps(claims(**other)).encode()
    key = OctKey.import_key(KEY)
    assert refused(alone, jws.serialize_compact({"alg": "HS256"}, payload, key))


@pytest.mark.parametrize(
    "junk",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "\x00",
        "\ud800.\ud800.\ud800",
        "é.é.é",
        "x" * 10_000_000,
        "[" * 3000,
        "Bearer x",
    ],
    ids=lambda junk: repr(junk[:10]),
)
def test_junk_is_refused_at_once(alone: Tokens, junk: str) -> None:
    before = time.process_time()
    assert refused(alone, junk)
    assert time.process_time() - before < 0.2


def test_too_many_ended_sessions_end_all_running_tokens_instead_of_filling_memory() -> None:
    now = datetime.now(UTC)
    revoked = Revoked(timedelta(minutes=15), most=3)

    def access(sid: str, issued: datetime) -> Access:
        return Access(actor=SUE, sid=sid, issued=issued, expires=issued + timedelta(minutes=15))

    for sid in ("a", "b", "c"):
        revoked.add(sid, now)
        revoked.add(sid, now)
    assert not revoked.covers(access("d", now - timedelta(minutes=1)))
    revoked.add("e", now + timedelta(seconds=1))
    assert len(revoked) == 1
    assert revoked.covers(access("d", now - timedelta(minutes=1)))
    assert revoked.covers(access("a", now - timedelta(minutes=1)))
    assert not revoked.covers(access("d", now + timedelta(seconds=2)))
    revoked.add("f", now + timedelta(minutes=17))
    assert len(revoked) == 1, "those whose tokens have all expired are forgotten"


async def test_the_signing_key_is_made_once_by_whoever_is_first(pool: Any) -> None:
    keys = await asyncio.gather(*(signing_key(pool) for _ in range(5)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 64
    assert await signing_key(pool, "c" * 32) == b"c" * 32
    with pytest.raises(ValueError, match="at least 32"):
        await signing_key(pool, "short")


# --- sessions -------------------------------------------------------------------------------------------------------


async def test_a_session_goes_on_with_one_use_refresh_tokens(tokens: Tokens, clock: Clock, pool: Any) -> None:
    first = await tokens.begin(SUE, address="192.0.2.7")
    assert tokens.verify(first.access) == SUE
    (begun,) = await audit.list_entries(pool)
    assert (begun.actor, begun.action, begun.address) == ("sue", "session.begun", "192.0.2.7")
    clock.pass_by(minutes=20)
    with pytest.raises(TokenExpired):
        tokens.verify(first.access)
    second = await tokens.refresh(first.refresh)
    assert second.sid == first.sid
    assert second.refresh != first.refresh
    assert second.session_expires == first.session_expires
    assert tokens.verify(second.access) == SUE
    stored = str(await pool.fetch("SELECT * FROM refresh_tokens"))
    assert first.refresh not in stored
    assert second.refresh not in stored
    clock.pass_by(hours=12)
    with pytest.raises(TokenExpired, match="log in again"):
        await tokens.refresh(second.refresh)


async def test_a_stolen_refresh_token_ends_the_session_of_thief_and_owner(
    tokens: Tokens, clock: Clock
) -> None:
    first = await tokens.begin(SUE)
    second = await tokens.refresh(first.refresh)
    clock.pass_by(seconds=11)
    with pytest.raises(TokenInvalid, match="used twice"):
        await tokens.refresh(first.refresh)
    with pytest.raises(TokenInvalid, match="ended"):
        await tokens.refresh(second.refresh)
    for pair in (first, second):
        with pytest.raises(TokenInvalid, match="ended"):
            tokens.verify(pair.access)


async def test_two_tabs_that_renew_at_once_both_go_on(tokens: Tokens, clock: Clock) -> None:
    first = await tokens.begin(SUE)
    pairs = await asyncio.gather(*(tokens.refresh(first.refresh) for _ in range(3)))
    clock.pass_by(seconds=30)
    for pair in pairs:
        assert tokens.verify((await tokens.refresh(pair.refresh)).access) == SUE


async def test_used_refresh_tokens_do_not_pile_up(tokens: Tokens, pool: Any) -> None:
    pair = await tokens.begin(SUE)
    for _ in range(210):
        pair = await tokens.refresh(pair.refresh)
    assert await pool.fetchval("SELECT count(*) FROM refresh_tokens") <= 201


@pytest.mark.parametrize("junk", ["", "x", "\x00", "\ud800", "é" * 1000])
async def test_junk_refreshes_nothing(tokens: Tokens, junk: str) -> None:
    with pytest.raises(TokenInvalid):
        await tokens.refresh(junk)
    await tokens.revoke(junk)


async def test_a_refresh_brings_the_rights_of_today(tokens: Tokens, pool: Any, clock: Clock) -> None:
    first = await tokens.begin(SUE)
    await pool.execute("UPDATE users SET name = 'Sue New' WHERE login = 'sue'")
    assert (await tokens.refresh(first.refresh)).actor.name == "Sue New"


async def disable(pool: Any) -> None:
    await users.set_disabled(pool, "sue", True)


async def demote(pool: Any) -> None:
    await users.change_user(pool, "sue", role=Role.AGENT)


async def take_team(pool: Any) -> None:
    await users.set_supervised(pool, "sue", ["sales"])


async def change_password(pool: Any) -> None:
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    await users.set_password(pool, passwords, "sue", "another long password")
    passwords.close()


async def by_hand(pool: Any) -> None:
    await pool.execute("UPDATE sessions SET revoked = now()")


async def delete(pool: Any) -> None:
    await pool.execute("DELETE FROM users WHERE login = 'sue'")


@pytest.mark.parametrize("change", [disable, demote, take_team, change_password, by_hand, delete])
async def test_running_tokens_end_within_moments_of_the_change(
    tokens: Tokens, pool: Any, change: Callable[[Any], Any]
) -> None:
    await tokens.start()
    pair = await tokens.begin(SUE)
    access = tokens.read(pair.access)
    assert tokens.still_valid(access)
    await change(pool)
    await until(lambda: not tokens.still_valid(access))
    with pytest.raises(TokenInvalid, match="ended"):
        tokens.verify(pair.access)
    with pytest.raises(TokenInvalid):
        await tokens.refresh(pair.refresh)


async def test_logging_out_with_the_refresh_token_ends_its_session(tokens: Tokens) -> None:
    pair = await tokens.begin(SUE)
    await tokens.end("not one of ours")
    assert not refused(tokens, pair.access)
    await tokens.end(pair.refresh)
    assert refused(tokens, pair.access)
    with pytest.raises(TokenInvalid):
        await tokens.refresh(pair.refresh)


async def test_logging_out_ends_one_session_and_an_administrator_ends_all(tokens: Tokens) -> None:
    pairs = [await tokens.begin(SUE) for _ in range(3)]
    await tokens.revoke(pairs[0].sid)
    await tokens.revoke(pairs[0].sid)
    assert [refused(tokens, pair.access) for pair in pairs] == [True, False, False]
    assert await tokens.revoke_all("sue") == 2
    assert all(refused(tokens, pair.access) for pair in pairs)


async def test_what_ended_while_the_connection_was_lost_is_learnt_afterwards(
    tables: str, tokens: Tokens, pool: Any, clock: Clock
) -> None:
    await tokens.start()
    pair = await tokens.begin(SUE)
    conn = await asyncpg.connect(tables)
    async with conn.transaction():
        await conn.execute("SET LOCAL session_replication_role = replica")  # no trigger: the notice is lost
        await conn.execute("UPDATE sessions SET revoked = now()")
    assert not refused(tokens, pair.access)
    await conn.execute(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE application_name = 'cti ended sessions' AND datname = current_database()"""
    )
    await conn.close()
    await until(lambda: refused(tokens, pair.access))


async def test_a_server_that_starts_later_knows_what_has_ended(
    tables: str, tokens: Tokens, pool: Any
) -> None:
    pair = await tokens.begin(SUE)
    await tokens.revoke(pair.sid)
    later = Tokens(tables, pool, key=KEY)
    assert not refused(later, pair.access)
    await later.start()
    assert refused(later, pair.access)
    await later.close()


async def test_old_sessions_are_forgotten(tokens: Tokens, pool: Any) -> None:
    await tokens.begin(SUE)
    await tokens.begin(SUE)
    await pool.execute(
        "UPDATE sessions SET expires = now() - interval '2 days' WHERE sid = (SELECT sid FROM sessions LIMIT 1)"
    )
    assert await tokens.forget_old() == 1
    assert await pool.fetchval("SELECT count(*) FROM sessions") == 1
