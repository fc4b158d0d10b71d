"""Call lists: what a list is, and lists in the database. Their contacts and files: `dialer/call_lists/`.

Every change names the version it was made from; whoever comes second is told to read again. What is undone, merged or
deleted here are contacts; attempts are evidence and stay.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Container
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from cti.frozen import Frozen
from cti.people import Actor, Agent, Directory
from cti.plain_text import Plain
from cti.refusals import Refused
from dialer.management.settings import CampaignSettings, Retried, RetryRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import asyncpg

    from cti.database import Queryable

STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True)

Name = Annotated[Plain, Field(min_length=1, max_length=100)]
Word = Annotated[Plain, Field(min_length=1, max_length=64)]
Script = Annotated[Plain, Field(max_length=10_000)]
Priority = Annotated[int, Field(ge=0, le=100)]


class NoList(Exception):
    """There is no such list, or it is not one of yours."""


class ChangedMeanwhile(Exception):
    """Somebody else has changed the list: read it again."""


class NameTaken(Exception):
    """Another list has this name."""


class NotPossible(Refused):
    """As things are it cannot be done; the message says why. `code` is for programs."""


# ------------------------------------------------------------------------------------------ settings of a list


class Assigned(BaseModel):
    """Who calls the list: anybody in one of these, or everybody of the campaign where all are empty. `agents` are logins,
    `teams` ids of teams; units (departments) and positions are the house's own names."""

    model_config = STRICT

    units: list[Word] = Field(default_factory=list, max_length=100)
    teams: list[Word] = Field(default_factory=list, max_length=100)
    positions: list[Word] = Field(default_factory=list, max_length=100)
    agents: list[Word] = Field(default_factory=list, max_length=1000)

    @property
    def to_all(self) -> bool:
        """Whether everybody of the campaign may call it."""
        return not (self.units or self.teams or self.positions or self.agents)

    def told(self) -> str:
        """Whom, in words."""
        said = [
            *(f"team {one}" for one in self.teams),
            *(f"unit {one}" for one in self.units),
            *(f"position {one}" for one in self.positions),
            *self.agents,
        ]
        more = f" and {len(said) - 6} more" if len(said) > 6 else ""
        return ", ".join(said[:6]) + more if said else "everybody of the campaign"


class Quota(BaseModel):
    """When so many are reached, the list is not called any more: until midnight (`day`), or at all (`total`). Counted are
    attempts, connected calls, or calls with this disposition."""

    model_config = STRICT

    counts: Literal["attempts", "connected", "disposition"]
    disposition: Annotated[Plain, Field(max_length=100)] = ""
    per: Literal["day", "total"] = "total"
    most: int = Field(ge=1, le=10_000_000)


class ListSettings(BaseModel):
    """How a list is called. `recycling`: what follows an outcome, in place of the campaign's rule for it; `max_attempts`: of
    one contact, on all its numbers, null: as the campaign has it; `quota`: any that is reached ends the calling."""

    model_config = STRICT

    assigned: Assigned = Field(default_factory=Assigned)
    recycling: dict[Retried, RetryRule] = Field(default_factory=dict)
    max_attempts: int | None = Field(default=None, ge=1, le=100)
    quota: list[Quota] = Field(default_factory=list, max_length=20)

    def over(self, campaign: CampaignSettings) -> CampaignSettings:
        """The campaign's settings as they hold for contacts of this list."""
        if not self.recycling and self.max_attempts is None:
            return campaign
        most = min(self.max_attempts or campaign.max_attempts, campaign.max_attempts)
        return campaign.model_copy(
            update={"retries": {**campaign.retries, **self.recycling}, "max_attempts": most}
        )


def list_settings(kept: Any) -> ListSettings:
    """The settings as the database keeps them (JSON text, or what it says)."""
    return ListSettings.model_validate(msgspec.json.decode(kept) if isinstance(kept, str | bytes) else kept)


def assigned_of(kept: str | None) -> Assigned:
    """Whom a list is assigned to, from `settings -> 'assigned'`."""
    return Assigned.model_validate_json(kept) if kept else Assigned()


def may_call(assigned: Assigned, agent: Agent | None) -> bool:
    """Whether this agent is one of those whom the list is assigned to; None: somebody of whom nothing is known."""
    if assigned.to_all or agent is None:
        return assigned.to_all
    return (
        agent.login in assigned.agents
        or (agent.team is not None and agent.team in assigned.teams)
        or (bool(agent.unit) and agent.unit in assigned.units)
        or (bool(agent.position) and agent.position in assigned.positions)
    )


def works_for(agent: Agent, settings: CampaignSettings) -> bool:
    """Whether this agent is meant to talk for a campaign, at work or not: of its queue and its team."""
    return (not settings.team or agent.team == settings.team) and (
        not settings.queue or any(one.queue == settings.queue for one in agent.queues)
    )


def whose(
    assigned: Assigned, settings: CampaignSettings, agents: Iterable[Agent]
) -> tuple[list[Agent], list[Agent]]:
    """Who of a campaign's agents may call a list, and who may not."""
    people = [agent for agent in agents if works_for(agent, settings)]
    return (
        [agent for agent in people if may_call(assigned, agent)],
        [agent for agent in people if not may_call(assigned, agent)],
    )


def must_be_known(new: Assigned, before: Assigned, agents: Container[str], teams: Container[str]) -> None:
    """Raises NotPossible for agents and teams of `new` that there are not, unless they were named `before`."""
    missing = [f"team {one}" for one in new.teams if one not in teams and one not in before.teams]
    missing += [f"agent {one}" for one in new.agents if one not in agents and one not in before.agents]
    if missing:
        raise NotPossible("nobody_of_this_name", f"there is no {', no '.join(missing[:5])}")


Theirs = Callable[[Actor, Collection[int]], Awaitable[Collection[int]]]
"""Which of these campaigns somebody oversees."""


def oversees(actor: Actor, assigned: Assigned, directory: Directory, theirs: bool | None = None) -> bool:
    """Whether a supervisor may see and change the list: its campaign is one of `theirs` (None: it has none), or a team or
    an agent of theirs has it, be it by their unit or position, or it is nobody's yet."""
    if actor.is_admin or theirs:
        return True
    if assigned.to_all:
        return theirs is None
    return not actor.teams.isdisjoint(assigned.teams) or any(
        agent.team in actor.teams and may_call(assigned, agent) for agent in directory.agents.values()
    )


# ------------------------------------------------------------------------------------------ what comes in and goes out


class NewList(BaseModel):
    """A list to be made, empty."""

    model_config = STRICT

    name: Name
    active: bool = True
    campaign: int | None = Field(default=None, ge=1, lt=1 << 63)
    priority: Priority = 0
    script: Script = ""
    settings: ListSettings = Field(default_factory=ListSettings)


class ListEdit(BaseModel):
    """What is to be different; what is left out stays. `campaign` null: no campaign calls it."""

    model_config = STRICT

    name: Name | None = None
    active: bool | None = None
    campaign: int | None = Field(default=None, ge=1, lt=1 << 63)
    priority: Priority | None = None
    script: Script | None = None
    settings: ListSettings | None = None


class ListView(Frozen, frozen=True, kw_only=True):
    """A list. `contacts`: how many there are of each state (open, in_hand, done, exhausted, blocked, skipped).
    `quota_until`: a quota is reached, and the list rests until then (the year 9999: for good)."""

    id: int
    name: str
    active: bool
    campaign: int | None
    priority: int
    script: str
    settings: ListSettings
    created: datetime
    created_by: str
    changed: datetime
    changed_by: str
    version: int
    quota_until: datetime | None
    contacts: dict[str, int]

    @property
    def total(self) -> int:
        """How many contacts there are."""
        return sum(self.contacts.values())


# ------------------------------------------------------------------------------------------------------ the database

_COLUMNS = """l.id, l.name, l.active, l.campaign_id, l.priority, l.script, l.settings, l.created, l.created_by, l.changed,
    l.changed_by, l.version, l.quota_until"""


async def create(db: Queryable, new: NewList, by: str) -> ListView:
    """Makes an empty list; raises NameTaken, or NotPossible if there is no such campaign."""
    import asyncpg

    try:
        row = await db.fetchrow(
            f"""INSERT INTO call_lists AS l (name, active, campaign_id, priority, script, settings, created_by, changed_by)
                VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, $7) RETURNING {_COLUMNS}""",  # noqa: S608
            *(
                new.name,
                new.active,
                new.campaign,
                new.priority,
                new.script,
                new.settings.model_dump_json(),
                by,
            ),
        )
    except asyncpg.UniqueViolationError:
        raise NameTaken(f"another list is called {new.name}") from None
    except asyncpg.ForeignKeyViolationError:
        raise NotPossible("no_campaign", "there is no such campaign") from None
    assert row is not None
    return _view(row, {})


async def read(db: Queryable, id: int) -> ListView:
    """One list with its counts; raises NoList."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM call_lists l WHERE l.id = $1", id)  # noqa: S608
    if row is None:
        raise NoList
    return _view(row, (await _counts(db, [id])).get(id, {}))


async def all_lists(
    db: Queryable,
    *,
    after: str = "",
    limit: int = 100,
    campaign: int | None = None,
    name: str | None = None,
    counts: bool = True,
) -> list[ListView]:
    """Lists in the order of their names, those after `after`; of one campaign, or of this name, if given."""
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} FROM call_lists l
            WHERE l.name > $1 AND ($2::bigint IS NULL OR l.campaign_id = $2) AND ($4::text IS NULL OR l.name = $4)
            ORDER BY l.name LIMIT $3""",  # noqa: S608
        after,
        campaign,
        limit,
        name,
    )
    counted = await _counts(db, [row["id"] for row in rows]) if counts else {}
    return [_view(row, counted.get(row["id"], {})) for row in rows]


async def change(db: Queryable, id: int, edit: ListEdit, *, version: int, by: str) -> ListView:
    """Changes a list; raises NoList, ChangedMeanwhile, NameTaken or NotPossible, and then nothing is changed."""
    import asyncpg

    given = edit.model_fields_set
    try:
        changed = await db.fetchval(
            """UPDATE call_lists SET name = coalesce($3, name), active = coalesce($4, active),
                   campaign_id = CASE WHEN $5 THEN $6 ELSE campaign_id END, priority = coalesce($7, priority),
                   script = coalesce($8, script), settings = coalesce($9::jsonb, settings),
                   changed = now(), changed_by = $10, version = version + 1
               WHERE id = $1 AND version = $2 RETURNING id""",
            *(id, version, edit.name, edit.active, "campaign" in given, edit.campaign, edit.priority),
            *(edit.script, edit.settings.model_dump_json() if edit.settings else None, by),
        )
    except asyncpg.UniqueViolationError:
        raise NameTaken(f"another list is called {edit.name}") from None
    except asyncpg.ForeignKeyViolationError:
        raise NotPossible("no_campaign", "there is no such campaign") from None
    if changed is None:
        await read(db, id)
        raise ChangedMeanwhile
    return await read(db, id)


async def touched(db: Queryable, id: int, by: str) -> None:
    """The list's contacts have been changed by somebody: its version rises, which attempts are kept with."""
    await db.execute(
        "UPDATE call_lists SET changed = now(), changed_by = $2, version = version + 1 WHERE id = $1", id, by
    )


async def held(db: Queryable, id: int, version: int | None = None) -> asyncpg.Record:
    """Locks a list until the end of the transaction, so that its contacts are changed by one at a time; raises NoList,
    ChangedMeanwhile."""
    row = await db.fetchrow("SELECT id, name, version FROM call_lists WHERE id = $1 FOR NO KEY UPDATE", id)
    if row is None:
        raise NoList
    if version is not None and row["version"] != version:
        raise ChangedMeanwhile
    return row


async def delete(db: Queryable, id: int, *, version: int) -> int:
    """Deletes a list with its contacts and returns how many; in a transaction of the caller's. Refused while an attempt
    is under way or an import is running. What was attempted stays in the attempts."""
    await db.execute("SET LOCAL statement_timeout = 0")
    await held(db, id, version)
    if await db.fetchval(
        "SELECT EXISTS (SELECT FROM list_contacts WHERE list_id = $1 AND state = 'in_hand')", id
    ) or await _called(db, id):
        raise NotPossible("in_use", IN_USE)
    if await db.fetchval(
        "SELECT EXISTS (SELECT FROM list_imports WHERE list_id = $1 AND state = 'running')", id
    ):
        raise NotPossible("importing", "an import into this list is running: cancel it first")
    gone = await db.execute("DELETE FROM list_contacts WHERE list_id = $1", id, timeout=900)
    if await _called(db, id):  # claimed while we waited for the contacts: nothing is deleted
        raise NotPossible("in_use", IN_USE)
    await db.execute("DELETE FROM call_lists WHERE id = $1", id, timeout=900)
    return int(gone.rpartition(" ")[2])


IN_USE = "calls to contacts of this list are under way: deactivate it, then wait"


async def _called(db: Queryable, id: int) -> bool:
    return bool(
        await db.fetchval("SELECT EXISTS (SELECT FROM attempts WHERE list_id = $1 AND state <> 'ended')", id)
    )


async def _counts(db: Queryable, lists: list[int]) -> dict[int, dict[str, int]]:
    rows = await db.fetch(
        "SELECT list_id, state, count(*) AS n FROM list_contacts WHERE list_id = ANY($1) GROUP BY 1, 2", lists
    )
    counted: dict[int, dict[str, int]] = {}
    for row in rows:
        counted.setdefault(row["list_id"], {})[row["state"]] = row["n"]
    return counted


def _view(row: asyncpg.Record, counts: Mapping[str, int]) -> ListView:
    values = dict(row)
    return ListView(
        **{
            name: values[name]
            for name in ("id", "name", "active", "priority", "script", "created", "created_by")
        },
        **{name: values[name] for name in ("changed", "changed_by", "version", "quota_until")},
        campaign=values["campaign_id"],
        settings=list_settings(values["settings"]),
        contacts=dict(counts),
    )
