"""Users, teams, phones and queues: the tables behind `cti.people`. Each function is one change or one look.

Logging in is `cti.login`, keys for programs are `cti.api_keys`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import msgspec

from cti.passwords import SHORTEST, BadInput, Passwords, check_password
from cti.people import Actor, Agent, QueueAssignment, Role, Team

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

__all__ = ["BadInput", "NotThere", "User"]

_LOGIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_INTERFACE = re.compile(r"[A-Za-z0-9]+/[^\s,&|]{1,120}")
_QUEUE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}:[^\s:][^\s]{0,79}")
_HUMAN_ROLES = (Role.AGENT, Role.SUPERVISOR, Role.ADMIN)


class NotThere(LookupError):
    """No such user, team or key; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user as the tables have them; never their password."""

    login: str
    name: str
    role: Role
    disabled: bool
    created: datetime
    locked_until: datetime | None
    team: str | None
    supervises: tuple[str, ...]


def check_login(login: str, field: str = "login") -> str:
    """Returns the login (or a team's id) or raises BadInput."""
    if not _LOGIN.fullmatch(login):
        raise BadInput(
            field,
            "Small letters, digits, dot, dash and underscore, at most 64, beginning with a letter or digit.",
        )
    return login


def check_name(name: str, field: str = "name") -> str:
    """Returns the name without spaces around it, or raises BadInput."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= 120 or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise BadInput(field, "A name of 1 to 120 characters, without control characters.")
    return name


def check_queue(queue: str) -> str:
    """Returns the queue's id or raises BadInput."""
    if not _QUEUE.fullmatch(queue):
        raise BadInput("queue", "A queue is written as <pbx>:<name>, such as main:support.")
    return queue


async def create_user(
    db: Queryable,
    passwords: Passwords,
    *,
    login: str,
    name: str,
    role: Role = Role.AGENT,
    password: str | None = None,
    shortest: int = SHORTEST,
) -> None:
    """Adds a user; without a password they cannot log in until one is set. Raises BadInput, also when the login is taken."""
    check_login(login)
    name = check_name(name)
    if role not in _HUMAN_ROLES:
        raise BadInput("role", "A user is an agent, a supervisor or an admin; a program gets an API key.")
    hashed = None
    if password is not None:
        check_password(password, shortest=shortest)
        hashed = await passwords.hash(password)
    added = await db.fetchval(
        """INSERT INTO users (login, name, role, password_hash) VALUES ($1, $2, $3, $4)
           ON CONFLICT DO NOTHING RETURNING true""",
        login,
        name,
        role,
        hashed,
    )
    if added is None:
        raise BadInput("login", f"There is already a user {login}.")


async def set_password(
    db: Queryable, passwords: Passwords, login: str, password: str, *, shortest: int = SHORTEST
) -> None:
    """Gives the user another password, ends their sessions and lifts a lock. Raises BadInput, NotThere."""
    check_password(password, shortest=shortest)
    hashed = await passwords.hash(password)
    _found(
        await db.fetchval(
            "UPDATE users SET password_hash = $2 WHERE login = $1 RETURNING true", login, hashed
        ),
        f"There is no user {login}.",
    )
    await unlock(db, login)


async def set_disabled(db: Queryable, login: str, disabled: bool) -> None:
    """Shuts the user out and ends their sessions, or lets them in again. Raises NotThere."""
    _found(
        await db.fetchval("UPDATE users SET disabled = $2 WHERE login = $1 RETURNING true", login, disabled),
        f"There is no user {login}.",
    )


async def change_user(
    db: Queryable, login: str, *, name: str | None = None, role: Role | None = None
) -> None:
    """Changes what is given; another role ends the user's sessions. Raises BadInput, NotThere."""
    if name is not None:
        name = check_name(name)
    if role is not None and role not in _HUMAN_ROLES:
        raise BadInput("role", "A user is an agent, a supervisor or an admin.")
    _found(
        await db.fetchval(
            """UPDATE users SET name = coalesce($2, name), role = coalesce($3, role)
               WHERE login = $1 RETURNING true""",
            login,
            name,
            role,
        ),
        f"There is no user {login}.",
    )


async def unlock(db: Queryable, login: str) -> None:
    """Forgets the user's failed log-ins."""
    await db.execute("DELETE FROM login_failures WHERE login_hash = sha256(convert_to($1, 'UTF8'))", login)


_USER = """SELECT u.login, u.name, u.role, u.disabled, u.created,
                  CASE WHEN f.locked_until > now() THEN f.locked_until END AS locked_until,
                  (SELECT m.team FROM team_members m WHERE m.login = u.login AND NOT m.supervisor) AS team,
                  ARRAY(SELECT m.team FROM team_members m WHERE m.login = u.login AND m.supervisor ORDER BY 1) AS supervises
           FROM users u LEFT JOIN login_failures f ON f.login_hash = sha256(convert_to(u.login, 'UTF8'))"""


async def get_user(db: Queryable, login: str) -> User | None:
    """Returns the user, or None."""
    row = await db.fetchrow(_USER + " WHERE u.login = $1", login)
    return None if row is None else _user(row)


async def list_users(db: Queryable, *, after: str = "", limit: int = 100) -> list[User]:
    """Returns users in the order of their logins, those after `after`."""
    rows = await db.fetch(_USER + " WHERE u.login > $1 ORDER BY u.login LIMIT $2", after, limit)
    return [_user(row) for row in rows]


def _user(row: asyncpg.Record) -> User:
    return User(
        login=row["login"],
        name=row["name"],
        role=Role(row["role"]),
        disabled=row["disabled"],
        created=row["created"],
        locked_until=row["locked_until"],
        team=row["team"],
        supervises=tuple(row["supervises"]),
    )


async def actor_of(db: Queryable, login: str) -> Actor | None:
    """Returns what the user may do now; None if there is no such user or they are disabled.

    `teams` are those they supervise, whatever team they work in themselves.
    """
    row = await db.fetchrow(_USER + " WHERE u.login = $1 AND NOT u.disabled", login)
    if row is None:
        return None
    return Actor(login=login, name=row["name"], role=Role(row["role"]), teams=frozenset(row["supervises"]))


async def put_team(db: Queryable, team: str, name: str) -> None:
    """Adds the team or renames it. Raises BadInput."""
    check_login(team, "team")
    await db.execute(
        "INSERT INTO teams (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        team,
        check_name(name),
    )


async def remove_team(db: Queryable, team: str) -> None:
    """Removes the team; its people stay, without a team. Raises NotThere."""
    _found(
        await db.fetchval("DELETE FROM teams WHERE id = $1 RETURNING true", team), f"There is no team {team}."
    )


async def set_team_queues(db: Queryable, team: str, queues: Collection[str]) -> None:
    """Makes these the queues whose waiting calls the team's supervisors see. Raises BadInput, NotThere."""
    wanted = sorted({check_queue(queue) for queue in queues})
    try:
        await db.execute(
            """WITH gone AS (DELETE FROM team_queues WHERE team = $1 AND queue <> ALL ($2::text[]))
               INSERT INTO team_queues (team, queue) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING""",
            team,
            wanted,
        )
    except asyncpg.ForeignKeyViolationError:
        raise NotThere(f"There is no team {team}.") from None


async def set_team(db: Queryable, login: str, team: str | None) -> None:
    """Moves an agent to another team, or to none. Raises NotThere."""
    try:
        await db.execute(
            """WITH gone AS (DELETE FROM team_members WHERE login = $1 AND NOT supervisor AND team IS DISTINCT FROM $2)
               SELECT""",
            login,
            team,
        )
        if team is not None:
            await db.execute(
                "INSERT INTO team_members (team, login, supervisor) VALUES ($2, $1, false) ON CONFLICT DO NOTHING",
                login,
                team,
            )
    except asyncpg.ForeignKeyViolationError:
        raise NotThere(f"There is no user {login} or no team {team}.") from None


async def set_supervised(db: Queryable, login: str, teams: Collection[str]) -> None:
    """Makes these the teams the user leads; a change ends the user's sessions. Raises NotThere."""
    try:
        await db.execute(
            """WITH gone AS (DELETE FROM team_members WHERE login = $1 AND supervisor AND team <> ALL ($2::text[]))
               INSERT INTO team_members (team, login, supervisor) SELECT unnest($2::text[]), $1, true
               ON CONFLICT DO NOTHING""",
            login,
            sorted(set(teams)),
        )
    except asyncpg.ForeignKeyViolationError:
        raise NotThere(f"There is no user {login}, or one of the teams does not exist.") from None


async def set_interface(db: Queryable, login: str, pbx: str, interface: str | None) -> None:
    """Gives the agent their phone on a PBX, such as `PJSIP/1001`, or takes it away. Raises BadInput, NotThere."""
    if interface is None:
        await db.execute("DELETE FROM agent_interfaces WHERE login = $1 AND pbx = $2", login, pbx)
        return
    if not _INTERFACE.fullmatch(interface):
        raise BadInput("interface", "A phone is written as in a queue's member list, such as PJSIP/1001.")
    try:
        await db.execute(
            """INSERT INTO agent_interfaces (login, pbx, interface) VALUES ($1, $2, $3)
               ON CONFLICT (login, pbx) DO UPDATE SET interface = excluded.interface""",
            login,
            pbx,
            interface,
        )
    except asyncpg.UniqueViolationError:
        raise BadInput("interface", f"{interface} on {pbx} is another agent's phone.") from None
    except asyncpg.ForeignKeyViolationError:
        raise NotThere(f"There is no user {login}.") from None


async def set_off_hook(db: Queryable, login: str, off_hook: bool) -> None:
    """Says whether the agent works off-hook: their line stays open and calls are connected to it. Raises NotThere."""
    _found(
        await db.fetchval("UPDATE users SET off_hook = $2 WHERE login = $1 RETURNING true", login, off_hook),
        f"There is no user {login}.",
    )


async def set_place(
    db: Queryable, login: str, *, unit: str | None = None, position: str | None = None
) -> None:
    """Says in which unit (department) they work, and as what; "" for none, None: as it is. Raises BadInput, NotThere."""
    for field, value in (("unit", unit), ("position", position)):
        if value and len(check_name(value, field)) > 64:
            raise BadInput(field, "At most 64 characters.")
    _found(
        await db.fetchval(
            """UPDATE users SET unit = coalesce($2, unit), position = coalesce($3, position)
               WHERE login = $1 RETURNING true""",
            login,
            unit and check_name(unit, "unit"),
            position and check_name(position, "position"),
        ),
        f"There is no user {login}.",
    )


async def set_queues(db: Queryable, login: str, queues: Iterable[QueueAssignment]) -> None:
    """Makes these the queues the agent works in. Raises BadInput, NotThere."""
    wanted = {check_queue(q.queue): q.penalty for q in queues}
    if any(not 0 <= penalty <= 1000 for penalty in wanted.values()):
        raise BadInput("penalty", "A penalty is a number from 0 to 1000.")
    try:
        await db.execute(
            """WITH gone AS (DELETE FROM agent_queues WHERE login = $1 AND queue <> ALL ($2::text[]))
               INSERT INTO agent_queues (login, queue, penalty)
               SELECT $1, * FROM unnest($2::text[], $3::int[])
               ON CONFLICT (login, queue) DO UPDATE SET penalty = excluded.penalty""",
            login,
            list(wanted),
            list(wanted.values()),
        )
    except asyncpg.ForeignKeyViolationError:
        raise NotThere(f"There is no user {login}.") from None


async def load_directory(db: Pool | Queryable) -> tuple[list[Agent], list[Team]]:
    """Reads all agents and teams, as of one moment, for `cti.people.Directory`."""
    return directory_of(await read_directory(db))


class WrittenDirectory(NamedTuple):
    """All agents and teams as the database writes them, JSON: the same text means that nothing has changed."""

    agents: str
    teams: str


async def read_directory(db: Pool | Queryable) -> WrittenDirectory:
    """Reads all agents and teams, as of one moment.

    An agent is who is not disabled and has the role, or a phone (a supervisor may take calls).
    """
    found = await db.fetchrow(
        """SELECT
             (SELECT coalesce(json_agg(json_build_object(
                  'login', u.login, 'name', u.name, 'off_hook', u.off_hook, 'unit', u.unit, 'position', u.position,
                  'team', (SELECT m.team FROM team_members m WHERE m.login = u.login AND NOT m.supervisor),
                  'interfaces', (SELECT coalesce(json_object_agg(i.pbx, i.interface ORDER BY i.pbx), '{}')
                                 FROM agent_interfaces i WHERE i.login = u.login),
                  'in_browser', ARRAY(SELECT b.pbx FROM browser_phones b
                                      JOIN agent_interfaces i USING (login, pbx, interface) WHERE b.login = u.login),
                  'queues', (SELECT coalesce(json_agg(json_build_array(q.queue, q.penalty) ORDER BY q.queue), '[]')
                             FROM agent_queues q WHERE q.login = u.login)) ORDER BY u.login), '[]')
              FROM users u WHERE NOT u.disabled
                AND (u.role = 'agent' OR EXISTS (SELECT FROM agent_interfaces i WHERE i.login = u.login))) AS agents,
             (SELECT coalesce(json_agg(json_build_object(
                  'id', t.id, 'name', t.name,
                  'queues', ARRAY(SELECT q.queue FROM team_queues q WHERE q.team = t.id)) ORDER BY t.id), '[]')
              FROM teams t) AS teams"""
    )
    assert found is not None
    return WrittenDirectory(*found)


def directory_of(written: WrittenDirectory) -> tuple[list[Agent], list[Team]]:
    """The agents and teams that were read."""
    agents = [
        Agent(
            login=agent["login"],
            name=agent["name"],
            team=agent["team"],
            interfaces=agent["interfaces"],
            queues=tuple(QueueAssignment(queue=queue, penalty=penalty) for queue, penalty in agent["queues"]),
            off_hook=agent["off_hook"],
            in_browser=frozenset(agent["in_browser"]),
            unit=agent["unit"],
            position=agent["position"],
        )
        for agent in msgspec.json.decode(written.agents)
    ]
    teams = [
        Team(id=team["id"], name=team["name"], queues=frozenset(team["queues"]))
        for team in msgspec.json.decode(written.teams)
    ]
    return agents, teams


def _found(answer: object, otherwise: str) -> None:
    if answer is None:
        raise NotThere(otherwise)
