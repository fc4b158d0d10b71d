"""Campaigns in the database: read, written with their version, their schedules, and how many attempts are under way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from cti.people import Agent
from dialer.campaigns import ListNow, NotPossible, Record, Schedule, Step, campaign_of
from dialer.lists import assigned_of, whose
from dialer.management.settings import Campaign, CampaignSettings, CampaignState
from routing.hours import Span

if TYPE_CHECKING:
    from cti.database import Queryable

SELECT = """SELECT c.id, c.name, c.mode, c.state, c.profile, c.settings::text AS settings, c.priority, c.created,
       c.created_by, c.changed, c.changed_by, c.state_since, c.state_why, c.version, s.schedule::text AS schedule, s.done,
       s.changed_by AS schedule_by,
       (SELECT array_agg(disposition) FROM campaign_conversions v WHERE v.campaign_id = c.id) AS conversions
  FROM campaigns c LEFT JOIN campaign_schedules s ON s.campaign_id = c.id """


class ChangedMeanwhile(Exception):
    """Somebody else has changed the campaign since it was read: read it again."""


class NotThere(Exception):
    """There is no such campaign."""


async def read(db: Queryable, id: int) -> Record:
    """One campaign; raises NotThere."""
    row = await db.fetchrow(SELECT + "WHERE c.id = $1", id)
    if row is None:
        raise NotThere
    return _record(row)


async def locked(db: Queryable, id: int) -> Record:
    """One campaign, which nobody else changes until the transaction is over; raises NotThere."""
    row = await db.fetchrow(SELECT + "WHERE c.id = $1 FOR UPDATE OF c", id)
    if row is None:
        raise NotThere
    return _record(row)


async def everyone(db: Queryable) -> list[Record]:
    """All campaigns, in the order of their names."""
    return [_record(row) for row in await db.fetch(SELECT + "ORDER BY c.name, c.id")]


async def add(db: Queryable, campaign: Campaign, by: str) -> int:
    """Writes a new campaign, a draft; returns its id. Raises NotPossible if there is one of that name."""
    try:
        return int(
            await db.fetchval(
                """INSERT INTO campaigns (name, mode, profile, settings, priority, created_by, changed_by)
                   VALUES ($1, $2, $3, $4::jsonb, $5, $6, $6) RETURNING id""",
                *(campaign.name, campaign.mode, campaign.profile, _settings(campaign), campaign.priority, by),
            )
        )
    except asyncpg.UniqueViolationError:
        raise _taken(campaign.name) from None


async def change(db: Queryable, campaign: Campaign, by: str) -> None:
    """Writes a campaign over the version it says. Raises ChangedMeanwhile, or NotPossible for a name that is taken."""
    try:
        found = await db.fetchval(
            """UPDATE campaigns SET name = $3, mode = $4, profile = $5, settings = $6::jsonb, priority = $7,
                   changed = now(), changed_by = $8, version = version + 1
               WHERE id = $1 AND version = $2 RETURNING version""",
            *(campaign.id, campaign.version, campaign.name, campaign.mode, campaign.profile),
            *(_settings(campaign), campaign.priority, by),
        )
    except asyncpg.UniqueViolationError:
        raise _taken(campaign.name) from None
    if found is None:
        raise ChangedMeanwhile


async def step(db: Queryable, id: int, old: CampaignState, new: CampaignState, by: str, why: str) -> None:
    """Writes a new state over the old one; raises ChangedMeanwhile if it is another by now."""
    found = await db.fetchval(
        """UPDATE campaigns SET state = $3, state_since = now(), state_why = $4, changed = now(), changed_by = $5,
               version = version + 1
           WHERE id = $1 AND state = $2 RETURNING version""",
        *(id, old, new, why, by),
    )
    if found is None:
        raise ChangedMeanwhile


async def set_why(db: Queryable, id: int, why: str) -> None:
    """Writes why it is as it is, without changing that."""
    await db.execute("UPDATE campaigns SET state_why = $2 WHERE id = $1 AND state_why <> $2", id, why)


async def set_conversions(db: Queryable, id: int, dispositions: Iterable[str]) -> None:
    """Says which dispositions count as a success, in place of those said before."""
    await db.execute("DELETE FROM campaign_conversions WHERE campaign_id = $1", id)
    await db.execute(
        "INSERT INTO campaign_conversions SELECT $1, unnest($2::text[])", id, sorted(set(dispositions))
    )


async def set_schedule(db: Queryable, id: int, schedule: Schedule | None, now: datetime, by: str) -> None:
    """Sets when it starts and ends by itself from `now` on, or that it does not; its version rises."""
    await db.execute("DELETE FROM campaign_schedules WHERE campaign_id = $1", id)
    if schedule is not None:
        await db.execute(
            "INSERT INTO campaign_schedules (campaign_id, schedule, done, changed_by) VALUES ($1, $2::jsonb, $3, $4)",
            *(id, msgspec.json.encode(_written(schedule)).decode(), now, by),
        )
    await db.execute(
        "UPDATE campaigns SET changed = now(), changed_by = $2, version = version + 1 WHERE id = $1", id, by
    )


async def schedule_done(db: Queryable, id: int, upto: datetime) -> None:
    """Notes that the steps up to then were carried out."""
    await db.execute("UPDATE campaign_schedules SET done = $2 WHERE campaign_id = $1", id, upto)


async def remove(db: Queryable, id: int, version: int) -> None:
    """Removes a campaign of which nothing is on record. Raises ChangedMeanwhile, or NotPossible if there is: attempts, or
    who asked not to be called for it."""
    try:
        found = await db.fetchval(
            "DELETE FROM campaigns WHERE id = $1 AND version = $2 RETURNING id", id, version
        )
    except asyncpg.ForeignKeyViolationError as error:
        told = "people asked not to be" if error.table_name == "do_not_call" else "people were"
        raise NotPossible(
            "has_attempts",
            f"{told} called for it: what is on record is kept, so it can be stopped, not removed",
        ) from None
    if found is None:
        raise ChangedMeanwhile


async def under_way(db: Queryable, ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many attempts that are not over each campaign has, by their stage."""
    rows = await db.fetch(
        """SELECT campaign_id, state, count(*) AS n FROM attempts
            WHERE state <> 'ended' AND campaign_id = ANY ($1::bigint[]) GROUP BY 1, 2""",
        ids,
    )
    found: dict[int, dict[str, int]] = {id: {} for id in ids}
    for row in rows:
        found[row["campaign_id"]][row["state"]] = row["n"]
    return found


async def lists_of(
    db: Queryable, id: int, settings: CampaignSettings, agents: Collection[Agent]
) -> tuple[ListNow, ...]:
    """The campaign's lists, those asked first first, and how many may still be called. `agents`: who works here."""
    rows = await db.fetch(
        """SELECT l.id, l.name, l.active, n.contacts, n.open, (l.settings -> 'assigned')::text AS assigned
             FROM call_lists l,
                  LATERAL (SELECT count(*) AS contacts, count(*) FILTER (WHERE state IN ('open', 'in_hand')) AS open
                             FROM list_contacts c WHERE c.list_id = l.id) AS n
            WHERE l.campaign_id = $1 ORDER BY l.priority DESC, l.id""",
        id,
    )
    return tuple(_list_now(row, settings, agents) for row in rows)


def _list_now(row: Any, settings: CampaignSettings, agents: Collection[Agent]) -> ListNow:
    values = dict(row)
    assigned = assigned_of(values.pop("assigned"))
    if assigned.to_all:
        return ListNow(**values)
    theirs, others = whose(assigned, settings, agents)
    on_hook = sum(not agent.off_hook for agent in others)
    return ListNow(**values, assigned=assigned.told(), theirs=len(theirs), others=on_hook)


async def contacts_of(db: Queryable, ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """The contacts of each campaign's lists by state; `untried`: those of all states whom nobody has ever called."""
    rows = await db.fetch(
        """SELECT l.campaign_id, c.state, count(*) AS n, count(*) FILTER (WHERE c.last_attempt IS NULL) AS untried
             FROM call_lists l JOIN list_contacts c ON c.list_id = l.id
            WHERE l.campaign_id = ANY ($1::bigint[]) GROUP BY 1, 2""",
        ids,
    )
    found: dict[int, dict[str, int]] = {id: {} for id in ids}
    for row in rows:
        found[row["campaign_id"]][row["state"]] = row["n"]
        known = found[row["campaign_id"]]
        known["untried"] = known.get("untried", 0) + row["untried"]
    return found


def _taken(name: str) -> NotPossible:
    return NotPossible("name_taken", f"there is a campaign {name} already: choose another name")


def _settings(campaign: Campaign) -> str:
    # What was said, counts; a default may give way.
    return campaign.settings.model_dump_json(exclude_unset=True)


def _record(row: Any) -> Record:
    return Record(
        campaign=campaign_of(
            id=row["id"],
            name=row["name"],
            mode=row["mode"],
            state=row["state"],
            profile=row["profile"],
            priority=row["priority"],
            version=row["version"],
            settings=msgspec.json.decode(row["settings"]),
        ),
        created=row["created"],
        created_by=row["created_by"],
        changed=row["changed"],
        changed_by=row["changed_by"],
        since=row["state_since"],
        why=row["state_why"],
        schedule=_schedule(msgspec.json.decode(row["schedule"])) if row["schedule"] else None,
        schedule_by=row["schedule_by"] or "",
        done=row["done"],
        conversions=frozenset(row["conversions"] or ()),
    )


def _written(schedule: Schedule) -> dict[str, Any]:
    return {
        "zone": schedule.zone,
        "days": sorted(schedule.days),
        "spans": [[span.start, span.end] for span in schedule.spans],
        "first": schedule.first and schedule.first.isoformat(),
        "last": schedule.last and schedule.last.isoformat(),
        "at_end": schedule.at_end.value,
    }


def _schedule(kept: Mapping[str, Any]) -> Schedule:
    return Schedule(
        zone=kept["zone"],
        days=frozenset(kept["days"]),
        spans=tuple(Span(start=start, end=end) for start, end in kept["spans"]),
        first=date.fromisoformat(kept["first"]) if kept["first"] else None,
        last=date.fromisoformat(kept["last"]) if kept["last"] else None,
        at_end=Step(kept["at_end"]),
    )
