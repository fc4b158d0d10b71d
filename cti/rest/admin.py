"""Users, teams, keys for programs, and the audit trail: for administrators.

Each change and its line in the audit trail are one transaction, committed before the answer; then `changed` is told, so
that whoever is logged in sees what they may see from now on.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from cti import api_keys, audit, users
from cti.api_keys import ApiKey
from cti.audit import Entry
from cti.hub import pack
from cti.openapi import ADMINS, Route
from cti.passwords import BadInput, Busy, Passwords
from cti.people import Directory, QueueAssignment, Role, Team
from cti.problems import Problem
from cti.rest.pages import Page, Paging, decode, encode
from cti.rest.serving import Asked, Reply, Translate

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection

Login = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=120)]
QueueId = Annotated[str, StringConstraints(min_length=3, max_length=120)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=1024)]

STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Assignment(BaseModel):
    """A queue an agent works in; lower penalties are called first."""

    model_config = STRICT

    queue: QueueId
    penalty: int = Field(default=0, ge=0, le=1000)


class UserEdit(BaseModel):
    """What is to be different; what is left out stays. `phones`: PBX name → interface, as `PJSIP/1001`; null for none."""

    model_config = STRICT

    name: Name | None = None
    role: Role | None = None
    disabled: bool | None = None
    password: Secret | None = None
    team: Login | None = None
    unit: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None,
        description='unit or department they work in, "" for none; call lists may be assigned to it',
    )
    position: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description='what they work as, "" for none; call lists may be assigned to it'
    )
    supervises: list[Login] | None = Field(default=None, max_length=1000)
    phones: dict[Login, Annotated[str, StringConstraints(max_length=128)] | None] | None = Field(
        default=None, max_length=100
    )
    queues: list[Assignment] | None = Field(default=None, max_length=1000)
    off_hook: bool | None = Field(
        default=None, description="an agent's phone is called once and the line stays open"
    )


class NewUser(UserEdit):
    """A user to be added. Without a password they cannot log in until one is set."""

    login: Login
    name: Name
    role: Role = Role.AGENT


class UserRead(BaseModel):
    """A user. `locked_until`: after too many wrong passwords."""

    login: str
    name: str
    role: Role
    disabled: bool
    created: datetime
    locked_until: datetime | None
    team: str | None
    unit: str
    position: str
    supervises: list[str]
    phones: dict[str, str]
    queues: list[Assignment]
    off_hook: bool


class TeamPut(BaseModel):
    """A team: its name, and the queues whose waiting calls its supervisors see."""

    model_config = STRICT

    name: Name
    queues: list[QueueId] = Field(default_factory=list, max_length=1000)


class TeamRead(BaseModel):
    """A team, and in the order of their ids the queues whose waiting calls its supervisors see."""

    id: str
    name: str
    queues: list[str]

    @classmethod
    def of(cls, team: Team) -> TeamRead:
        """The team as it is shown: the same bytes whichever process shows it, which a set would not give."""
        return cls(id=team.id, name=team.name, queues=sorted(team.queues))


class NewKey(BaseModel):
    """A key for a program. `teams`: what it may see of; none for everything. `expires`: null for never."""

    model_config = STRICT

    name: Name
    role: Role = Role.INTEGRATION
    teams: list[Login] = Field(default_factory=list, max_length=1000)
    expires: AwareDatetime | None = None


class KeyMade(BaseModel):
    """A key, shown this once: what is kept of it is a hash."""

    key: str
    about: ApiKey


class AuditAsked(Paging):
    """Which entries."""

    actor: Login | None = None
    action: Annotated[str, StringConstraints(max_length=100)] | None = None
    target: Annotated[str, StringConstraints(max_length=100)] | None = None


def routes(
    *,
    pool: Callable[[], Pool],
    passwords: Passwords,
    directory: Directory,
    changed: Callable[[str | None], Awaitable[None]],
    end_sessions: Callable[[str], Awaitable[int]],
) -> list[Route]:
    """Returns the routes. `changed(login)` reads the people again and tells who is concerned (None: everybody);
    `end_sessions(login)` logs a user out everywhere and says how many log-ins ended."""

    @asynccontextmanager
    async def trailed(
        asked: Asked, action: str, target: str, detail: dict[str, Any] | None = None
    ) -> AsyncIterator[PoolConnection]:
        async with pool().acquire(timeout=5) as connection, connection.transaction():
            yield connection
            await audit.record(connection, asked.who, action, target, detail, asked.request.remote)

    # ---------------------------------------------------------------------------------------- users

    async def user_list(asked: Asked) -> dict[str, Any]:
        found, after = await _read_on(
            asked.query, lambda after, limit: users.list_users(pool(), after=after, limit=limit)
        )
        return {"items": [_shown(user) for user in found], "next": encode(after.login) if after else None}

    async def user_read(asked: Asked) -> Reply:
        shown = await _user(asked.params["login"])
        return Reply(value=shown, version=_fingerprint(shown))

    async def user_create(asked: Asked) -> Reply:
        new: NewUser = asked.body
        async with trailed(asked, "user.created", new.login, {"role": new.role}) as connection:
            await users.create_user(
                connection, passwords, login=new.login, name=new.name, role=new.role, password=new.password
            )
            await _apply(
                connection, new.login, new, new.model_fields_set - {"login", "name", "role", "password"}
            )
        await changed(new.login)
        shown = await _user(new.login)
        return Reply(
            value=shown, version=_fingerprint(shown), headers={"Location": f"/api/v1/users/{new.login}"}
        )

    async def user_change(asked: Asked) -> Reply:
        login, edit = asked.params["login"], asked.body
        fields = set(edit.model_fields_set)
        if login == asked.who.login and fields & {"role", "disabled"}:
            raise Problem(409, "yourself", "another administrator must change your role or disable you")
        async with trailed(asked, "user.changed", login, {"fields": sorted(fields)}) as connection:
            await connection.execute("SELECT FROM users WHERE login = $1 FOR UPDATE", login)
            if asked.match != _fingerprint(await _user(login)):
                raise Problem(412, "changed_meanwhile", "somebody else has changed it: read it again")
            await _apply(connection, login, edit, fields)
        await changed(login)
        shown = await _user(login)
        return Reply(value=shown, version=_fingerprint(shown))

    async def user_log_out(asked: Asked) -> None:
        login = asked.params["login"]
        await _user(login)
        async with trailed(asked, "user.logged_out", login):
            await end_sessions(login)
        await changed(login)

    async def user_unlock(asked: Asked) -> None:
        login = asked.params["login"]
        await _user(login)
        async with trailed(asked, "user.unlocked", login) as connection:
            await users.unlock(connection, login)

    async def _apply(connection: PoolConnection, login: str, edit: UserEdit, fields: set[str]) -> None:
        if fields & {"name", "role"}:
            await users.change_user(connection, login, name=edit.name, role=edit.role)
        if edit.password is not None and "password" in fields:
            await users.set_password(connection, passwords, login, edit.password)
        if edit.disabled is not None and "disabled" in fields:
            await users.set_disabled(connection, login, edit.disabled)
        if "team" in fields:
            await users.set_team(connection, login, edit.team)
        if edit.unit is not None or edit.position is not None:
            await users.set_place(connection, login, unit=edit.unit, position=edit.position)
        if edit.supervises is not None and "supervises" in fields:
            await users.set_supervised(connection, login, edit.supervises)
        for pbx, interface in (edit.phones or {}).items():
            await users.set_interface(connection, login, pbx, interface)
        if edit.queues is not None and "queues" in fields:
            wanted = [QueueAssignment(queue=one.queue, penalty=one.penalty) for one in edit.queues]
            await users.set_queues(connection, login, wanted)
        if edit.off_hook is not None and "off_hook" in fields:
            await users.set_off_hook(connection, login, edit.off_hook)

    async def _user(login: str) -> UserRead:
        found = await users.get_user(pool(), login)
        if found is None:
            raise Problem(404, "not_found", "there is no such user")
        return _shown(found)

    def _shown(user: users.User) -> UserRead:
        agent = directory.agents.get(user.login)
        return UserRead(
            login=user.login,
            name=user.name,
            role=user.role,
            disabled=user.disabled,
            created=user.created,
            locked_until=user.locked_until,
            team=user.team,
            unit=agent.unit if agent else "",
            position=agent.position if agent else "",
            supervises=list(user.supervises),
            phones=dict(agent.interfaces) if agent else {},
            queues=[Assignment(queue=one.queue, penalty=one.penalty) for one in agent.queues]
            if agent
            else [],
            off_hook=agent.off_hook if agent else False,
        )

    # ---------------------------------------------------------------------------------------- teams

    async def team_list(asked: Asked) -> dict[str, Any]:
        after = decode(asked.query.cursor, str) if asked.query.cursor else ""
        rest = [directory.teams[id] for id in sorted(directory.teams) if id > after]
        part = rest[: asked.query.limit]
        shown = [TeamRead.of(team) for team in part]
        return {"items": shown, "next": encode(part[-1].id) if len(rest) > len(part) else None}

    async def team_put(asked: Asked) -> TeamRead:
        id, wanted = asked.params["id"], asked.body
        async with trailed(asked, "team.put", id, {"queues": wanted.queues}) as connection:
            await users.put_team(connection, id, wanted.name)
            await users.set_team_queues(connection, id, wanted.queues)
        await changed(None)
        return TeamRead.of(Team(id=id, name=wanted.name, queues=frozenset(wanted.queues)))

    async def team_delete(asked: Asked) -> None:
        async with trailed(asked, "team.removed", asked.params["id"]) as connection:
            await users.remove_team(connection, asked.params["id"])
        await changed(None)

    # ------------------------------------------------------------------------------------ keys, audit

    async def key_list(asked: Asked) -> dict[str, Any]:
        found, after = await _read_on(
            asked.query, lambda after, limit: api_keys.list_api_keys(pool(), after=after, limit=limit)
        )
        return {"items": found, "next": encode(after.id) if after else None}

    async def key_create(asked: Asked) -> KeyMade:
        new: NewKey = asked.body
        async with trailed(
            asked, "key.created", new.name, {"role": new.role, "teams": new.teams}
        ) as connection:
            about, key = await api_keys.create_api_key(
                connection,
                name=new.name,
                created_by=asked.who.login,
                role=new.role,
                teams=new.teams,
                expires=new.expires,
            )
        return KeyMade(key=key, about=about)

    async def key_revoke(asked: Asked) -> None:
        id = asked.params["id"]
        async with trailed(asked, "key.revoked", id) as connection:
            await api_keys.revoke_api_key(connection, id)
        await changed(f"key:{id}")

    async def audit_list(asked: Asked) -> dict[str, Any]:
        wanted: AuditAsked = asked.query
        before = decode(wanted.cursor, int) if wanted.cursor else None
        found = await audit.list_entries(
            pool(),
            before=before,
            limit=wanted.limit + 1,
            actor=wanted.actor,
            action=wanted.action,
            target=wanted.target,
        )
        part = found[: wanted.limit]
        return {"items": part, "next": encode(part[-1].id) if len(found) > len(part) else None}

    away, taken = frozenset({503}), frozenset({409, 503})

    def route(
        method: str,
        path: str,
        handler: Callable[[Asked], Awaitable[Any]],
        summary: str,
        tag: str,
        **more: Any,
    ) -> Route:
        more.setdefault("errors", taken if method == "POST" else away)
        return Route(
            method=method,
            path=f"/api/v1{path}",
            handler=handler,
            summary=summary,
            tag=tag,
            roles=ADMINS,
            **more,
        )

    people, keys = "Users and teams", "API keys"
    return [
        route("GET", "/users", user_list, "All users.", people, query=Paging, result=Page[UserRead]),
        route(
            "POST",
            "/users",
            user_create,
            "Adds a user.",
            people,
            body=NewUser,
            result=UserRead,
            status=201,
            idempotent=True,
            errors=frozenset({404, 409, 503}),
        ),
        route("GET", "/users/{login}", user_read, "One user.", people, result=UserRead),
        route(
            "PATCH",
            "/users/{login}",
            user_change,
            "Changes a user: name, role, password, team, phones, queues; disables them.",
            people,
            body=UserEdit,
            result=UserRead,
            versioned=True,
            errors=taken,
        ),
        route(
            "POST", "/users/{login}/log-out", user_log_out, "Ends all log-ins of a user.", people, status=204
        ),
        route("POST", "/users/{login}/unlock", user_unlock, "Forgets failed log-ins.", people, status=204),
        route("GET", "/teams", team_list, "All teams.", people, query=Paging, result=Page[TeamRead]),
        route(
            "PUT", "/teams/{id}", team_put, "Adds or changes a team.", people, body=TeamPut, result=TeamRead
        ),
        route("DELETE", "/teams/{id}", team_delete, "Removes a team; its people stay.", people, status=204),
        route(
            "GET", "/api-keys", key_list, "All keys, ended ones too.", keys, query=Paging, result=Page[ApiKey]
        ),
        route(
            "POST",
            "/api-keys",
            key_create,
            "Makes a key.",
            keys,
            body=NewKey,
            result=KeyMade,
            status=201,
            errors=frozenset({404, 409, 503}),
        ),
        route("DELETE", "/api-keys/{id}", key_revoke, "Ends a key for good.", keys, status=204),
        route(
            "GET",
            "/audit",
            audit_list,
            "Who did what, the newest first.",
            "Audit",
            query=AuditAsked,
            result=Page[Entry],
        ),
    ]


async def _read_on(asked: Paging, read: Callable[[str, int], Awaitable[list[Any]]]) -> tuple[list[Any], Any]:
    """Returns a page, and its last item if there is more."""
    after = decode(asked.cursor, str) if asked.cursor else ""
    found = await read(after, asked.limit + 1)
    part = found[: asked.limit]
    return part, part[-1] if len(found) > len(part) else None


def _fingerprint(shown: UserRead) -> str:
    return hashlib.sha256(pack(shown.model_dump(exclude={"locked_until"}))).hexdigest()[:16]


def _bad_input(error: Exception) -> Problem:
    field = getattr(error, "field", "")
    return Problem(422, "bad_value", f"{field}: {error}" if field else str(error))


TRANSLATE: dict[type[Exception], Translate] = {
    BadInput: _bad_input,
    Busy: lambda _error: Problem(
        503, "busy", "very much is being logged in at this moment: try again in a few seconds"
    ),
    users.NotThere: lambda error: Problem(404, "not_found", str(error)),
}
"""What the people's own refusals are called over REST; for `application(translate=...)`."""
