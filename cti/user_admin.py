"""What `cti users` and `cti migrate` do in the database: one connection for one command, everything in one transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cti import audit, users
from cti.api_keys import create_api_key, list_api_keys, revoke_api_key
from cti.database import connection
from cti.passwords import BadInput, Passwords
from cti.people import QueueAssignment, Role
from cti.phone_passwords import remove_phone_password, set_phone_password
from cti.tokens import signing_key

if TYPE_CHECKING:
    from cti.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be so about a user; None: as it is. `phones`: PBX → interface, an empty one takes it away."""

    name: str | None = None
    role: Role | None = None
    team: str | None = None
    unit: str | None = None
    position: str | None = None
    supervises: tuple[str, ...] | None = None
    phones: tuple[tuple[str, str], ...] = ()
    queues: tuple[QueueAssignment, ...] | None = None


def read_phone(text: str) -> tuple[str, str]:
    """`main=PJSIP/1001` as (PBX, interface). Raises BadInput."""
    pbx, equals, interface = text.partition("=")
    if not equals or not pbx:
        raise BadInput("phone", f"{text} is not a phone: write it as PBX=INTERFACE, such as main=PJSIP/1001.")
    return pbx, interface


def read_queue(text: str) -> QueueAssignment:
    """`main:sales` or `main:sales:5` (with a penalty). Raises BadInput."""
    pbx, _, rest = text.partition(":")
    name, colon, penalty = rest.rpartition(":")
    if colon and penalty.isdigit():
        return QueueAssignment(queue=users.check_queue(f"{pbx}:{name}"), penalty=int(penalty))
    return QueueAssignment(queue=users.check_queue(text))


@asynccontextmanager
async def _change(
    dsn: str, action: str, target: str, detail: Mapping[str, Any] | None = None
) -> AsyncIterator[Connection]:
    """A transaction that ends with a line in the audit; a running server notices what it changed within seconds. Raises
    DatabaseUnavailable."""
    async with connection(dsn, name="cti users") as db, db.transaction():
        yield db
        await audit.record(db, audit.COMMAND_LINE, action, target, detail)


async def add(dsn: str, login: str, password: str | None, wanted: Wanted) -> None:
    """Adds a user with everything given. Raises BadInput, NotThere, DatabaseUnavailable; nothing is half done."""
    passwords = Passwords()
    try:
        role = wanted.role or Role.AGENT
        async with _change(dsn, "user.created", login, {"role": role}) as db:
            await users.create_user(
                db,
                passwords,
                login=login,
                name=wanted.name or login,
                role=role,
                password=password,
            )
            await _put(db, login, wanted)
    finally:
        passwords.close()


async def change(dsn: str, login: str, wanted: Wanted) -> None:
    """Changes what is given of a user. Raises as `add`."""
    fields = sorted(
        field.name for field in dataclasses.fields(wanted) if getattr(wanted, field.name) not in (None, ())
    )
    async with _change(dsn, "user.changed", login, {"fields": fields}) as db:
        await users.change_user(db, login, name=wanted.name, role=wanted.role)
        await _put(db, login, wanted)


async def _put(db: Connection, login: str, wanted: Wanted) -> None:
    if wanted.team is not None:
        await users.set_team(db, login, wanted.team or None)
    if wanted.unit is not None or wanted.position is not None:
        await users.set_place(db, login, unit=wanted.unit, position=wanted.position)
    if wanted.supervises is not None:
        await users.set_supervised(db, login, wanted.supervises)
    for pbx, interface in wanted.phones:
        await users.set_interface(db, login, pbx, interface or None)
    if wanted.queues is not None:
        await users.set_queues(db, login, wanted.queues)


async def set_password(dsn: str, login: str, password: str) -> None:
    """Gives a user another password and ends their sessions. Raises BadInput, NotThere, DatabaseUnavailable."""
    passwords = Passwords()
    try:
        async with _change(dsn, "user.changed", login, {"fields": ["password"]}) as db:
            await users.set_password(db, passwords, login, password)
    finally:
        passwords.close()


async def set_browser_phone(
    dsn: str, login: str, pbx: str, password: str | None, secret_key: str
) -> tuple[str, str]:
    """Makes the user's phone one in the browser; returns its SIP user and password. Raises BadInput, NotThere."""
    async with _change(dsn, "phone.password_set", login, {"pbx": pbx}) as db:
        key = await signing_key(db, secret_key)
        return await set_phone_password(db, key, login, pbx, password)


async def remove_browser_phone(dsn: str, login: str, pbx: str) -> bool:
    """Makes it an ordinary phone again; False if it was one."""
    async with _change(dsn, "phone.password_removed", login, {"pbx": pbx}) as db:
        return await remove_phone_password(db, login, pbx)


def pjsip_lines(user: str, login: str, password: str) -> tuple[str, ...]:
    """The lines of pjsip.conf for a phone in the browser, by the templates of pjsip_cti.conf."""
    return (
        f"[{user}](cti-browser-phone)",
        f"auth={user}",
        f"aors={user}",
        f'callerid="{login}" <{user}>',
        f"[{user}](cti-browser-auth)",
        f"username={user}",
        f"password={password}",
        f"[{user}](cti-browser-aor)",
    )


async def set_disabled(dsn: str, login: str, disabled: bool) -> None:
    """Shuts a user out, or lets them in again. Raises NotThere, DatabaseUnavailable."""
    async with _change(dsn, "user.changed", login, {"fields": ["disabled"], "disabled": disabled}) as db:
        await users.set_disabled(db, login, disabled)


async def put_team(dsn: str, team: str, name: str, queues: Sequence[str] | None) -> None:
    """Adds or renames a team; with `queues` these become its queues. Raises BadInput, DatabaseUnavailable."""
    async with _change(dsn, "team.put", team, {"queues": queues}) as db:
        await users.put_team(db, team, name)
        if queues is not None:
            await users.set_team_queues(db, team, queues)


async def make_key(
    dsn: str, name: str, role: Role, teams: Sequence[str], days: int | None
) -> tuple[str, str]:
    """Makes a key for a program; returns its id, and itself, which is kept nowhere. Raises BadInput, NotThere."""
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    async with _change(dsn, "key.created", name, {"role": role, "teams": list(teams)}) as db:
        about, key = await create_api_key(
            db, name=name, created_by=audit.COMMAND_LINE.login, role=role, teams=teams, expires=expires
        )
    return about.id, key


async def end_key(dsn: str, id: str) -> None:
    """Ends a key for good; a running server closes what is connected with it within seconds. Raises NotThere."""
    async with _change(dsn, "key.revoked", id) as db:
        await revoke_api_key(db, id)


async def keys(dsn: str) -> list[dict[str, Any]]:
    """All keys, ended ones too, for `cti users keys`. Raises DatabaseUnavailable."""
    found: list[Any] = []
    async with connection(dsn, name="cti users") as db:
        while page := await list_api_keys(db, after=found[-1].id if found else "", limit=500):
            found += page
    return [{**dataclasses.asdict(key), "role": key.role.value} for key in found]


def key_table(rows: Iterable[dict[str, Any]], now: datetime) -> list[tuple[str, ...]]:
    """The keys as rows of text under their heads."""

    def day(at: datetime | None) -> str:
        return "-" if at is None else f"{at:%Y-%m-%d}"

    def ended(row: dict[str, Any]) -> str:
        if row["revoked"]:
            return "revoked"
        return "expired" if row["expires"] and row["expires"] <= now else ""

    return [
        ("id", "name", "role", "teams", "made", "by", "ends", "last used", ""),
        *(
            (
                row["id"],
                row["name"],
                row["role"],
                ", ".join(row["teams"]) or "all",
                day(row["created"]),
                row["created_by"],
                day(row["expires"]),
                day(row["last_used"]),
                ended(row),
            )
            for row in rows
        ),
    ]


async def everybody(dsn: str) -> list[dict[str, Any]]:
    """All users with their phones and queues, for `cti users list`. Raises DatabaseUnavailable."""
    async with connection(dsn, name="cti users") as db:
        agents, _ = await users.load_directory(db)
        works = {agent.login: agent for agent in agents}
        found: list[users.User] = []
        while page := await users.list_users(db, after=found[-1].login if found else "", limit=500):
            found += page
    return [
        {
            "login": user.login,
            "name": user.name,
            "role": user.role.value,
            "team": user.team,
            "unit": works[user.login].unit if user.login in works else "",
            "position": works[user.login].position if user.login in works else "",
            "supervises": list(user.supervises),
            "disabled": user.disabled,
            "phones": dict(works[user.login].interfaces) if user.login in works else {},
            "queues": [
                {"queue": assignment.queue, "penalty": assignment.penalty}
                for assignment in (works[user.login].queues if user.login in works else ())
            ],
        }
        for user in found
    ]


def table(rows: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The users as rows of text under their heads."""
    heads = ("login", "name", "role", "team", "unit", "position", "leads", "phones", "queues", "")
    return [
        heads,
        *(
            (
                row["login"],
                row["name"],
                row["role"],
                row["team"] or "-",
                row["unit"] or "-",
                row["position"] or "-",
                ", ".join(row["supervises"]) or "-",
                ", ".join(f"{pbx}={phone}" for pbx, phone in row["phones"].items()) or "-",
                ", ".join(
                    queue["queue"] + (f":{queue['penalty']}" if queue["penalty"] else "")
                    for queue in row["queues"]
                )
                or "-",
                "disabled" if row["disabled"] else "",
            )
            for row in rows
        ),
    ]
