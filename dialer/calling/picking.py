"""Contacts that an agent may pick in mode manual: looked through part by part, each with what the law says of it now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BaseModel, Field

from cti.campaigns import ContactToCall
from cti.people import Agent
from cti.plain_text import Plain
from dialer.call_lists.before_launch import Judge
from dialer.call_lists.contacts import INDEXED, Key, as_number, literal
from dialer.calling.claims import COLUMNS
from dialer.calling.standing import stands, waits
from dialer.candidate import Candidate
from dialer.lists import STRICT, assigned_of, may_call
from dialer.verdict import Verdict

if TYPE_CHECKING:
    from cti.database import Queryable

AT_ONCE = 50_000
"""Contacts looked through for one page at most, where no index finds them."""

WHOLE = 1 << 62
"""Above every contact's id."""


class Wanted(BaseModel):
    """Which contacts: all that fit everything given. `q`: the beginning of the name or of a part of it, or of a number (at
    least 4 digits; without a + also a part of it); `data`: custom fields that begin so."""

    model_config = STRICT

    q: Annotated[Plain, Field(max_length=100)] = ""
    data: dict[Key, Annotated[Plain, Field(max_length=200)]] = Field(default_factory=dict, max_length=5)
    callable: bool = Field(default=False, description="only contacts that are open and whose time has come")


class Place(NamedTuple):
    """Where a search goes on: after this contact of this list."""

    list: int = 0
    contact: int = 0

    @classmethod
    def of(cls, cursor: str) -> Place:
        """From `text`."""
        id, _, contact = cursor.partition("-")
        return cls(int(id), int(contact))

    @property
    def text(self) -> str:
        """As a client keeps it."""
        return f"{self.list}-{self.contact}"


async def lists_for(db: Queryable, campaign: int, agent: Agent | None) -> list[int]:
    """The campaign's active lists that this agent may call, in the order of their ids."""
    rows = await db.fetch(
        """SELECT id, (settings -> 'assigned')::text AS assigned FROM call_lists
            WHERE campaign_id = $1 AND active ORDER BY id""",
        campaign,
    )
    return [row["id"] for row in rows if may_call(assigned_of(row["assigned"]), agent)]


PART = """
    SELECT max(id) AS last, count(*) AS many
      FROM (SELECT id FROM list_contacts WHERE list_id = $1 AND id > $2 ORDER BY list_id, id LIMIT $3) AS part
"""

FITTING = f"""
    SELECT {COLUMNS}, c.state, c.why, nullif(c.not_before, '-infinity') AS not_before, c.last_attempt, c.last_outcome,
           l.quota_until
      FROM list_contacts c JOIN call_lists l ON l.id = c.list_id JOIN zone_groups z ON z.id = c.zone_group
     WHERE c.list_id = $1 AND c.id > $2 AND c.id <= $3
       AND {{named}}
       AND ($5::text IS NULL OR c.e164 LIKE $5 OR EXISTS (SELECT FROM unnest(c.other_numbers) o WHERE o LIKE $5))
       AND NOT EXISTS (SELECT FROM unnest($6::text[], $7::text[]) AS f (key, start)
                        WHERE NOT coalesce(lower(c.data ->> f.key) LIKE f.start || '%', false))
       AND (NOT $8 OR (c.state = 'open' AND c.not_before <= $9))
     ORDER BY {{order}} LIMIT $10
"""  # noqa: S608

_NAME = "c.name <> '' AND (lower(c.name) LIKE $4 || '%' OR lower(c.name) LIKE '% ' || $4 || '%')"
WHOEVER = FITTING.format(named="$4::text IS NULL", order="c.list_id, c.id")
NAMED = FITTING.format(named=_NAME, order="c.list_id, c.id")
BY_INDEX = FITTING.format(named=_NAME, order="c.id + 0")
"""No index gives its order: so the one of parts of names finds, and what it finds is sorted."""


async def search(
    db: Queryable,
    lists: Sequence[int],
    wanted: Wanted,
    after: Place,
    limit: int,
    now: datetime,
    *,
    most: int = AT_ONCE,
) -> tuple[list[Any], Place | None]:
    """Rows that fit, `limit` at most, and where to go on; None if that is all. Looks through `most` contacts; through all
    for a name that the index finds."""
    number = as_number(wanted.q) if wanted.q else None
    name = literal(wanted.q.lower()) if wanted.q and number is None else None
    starts = {key: literal(value.lower()) for key, value in wanted.data.items()}
    by_index = name is not None and len(wanted.q) >= INDEXED
    found: list[Any] = []
    left = most
    for id in lists:
        if id < after.list:
            continue
        begun, last = after.contact if id == after.list else 0, WHOLE
        if not by_index:
            part = await db.fetchrow(PART, id, begun, left)
            assert part is not None
            if not part["many"]:
                continue
            last, left = part["last"], left - part["many"]
        query = BY_INDEX if by_index else WHOEVER if name is None else NAMED
        found += await db.fetch(
            query, id, begun, last, name, number, list(starts), list(starts.values()),
            wanted.callable, now, limit - len(found),
        )  # fmt: skip
        if len(found) >= limit:
            return found, Place(id, found[-1]["id"])
        if left <= 0:
            return found, Place(id, last)
    return found, None


async def judged(
    rows: Sequence[Any],
    campaign: int,
    judge: Judge,
    next_number: Callable[[Any], Candidate],
    now: datetime,
) -> list[ContactToCall]:
    """The contacts as they are shown, each with what holds of it at this moment; the law is asked once for all."""
    candidates = [next_number(row) for row in rows]
    verdicts = await judge(campaign, candidates) if candidates else []
    return [
        _shown(row, one, verdict, now) for row, one, verdict in zip(rows, candidates, verdicts, strict=True)
    ]


def _shown(row: Any, candidate: Candidate, verdict: Verdict, now: datetime) -> ContactToCall:
    why, not_before = stands(row["state"], row["why"]), None
    if not why:
        rests = waits(row, now)
        why = rests or verdict.why_not
        ends = [row["not_before"]] if rests and row["not_before"] is not None else []
        if not verdict.allowed:
            ends.append(verdict.not_before)
        known = [end for end in ends if end is not None]
        not_before = max(known) if ends and len(known) == len(ends) else None
    return ContactToCall(
        contact=candidate.contact,
        list=row["list_name"],
        name=candidate.name,
        number=candidate.e164,
        language=candidate.language,
        data={name: str(value)[:512] for name, value in list(candidate.data.items())[:20]},
        attempts=candidate.attempts,
        last_attempt=row["last_attempt"],
        last_outcome=row["last_outcome"],
        can=not why,
        why=why,
        not_before=not_before,
    )
