"""Whose call a campaign's call is: the contact behind it, for who promises to call back and for the call that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dialer.calling.claims import Claimed
from dialer.calling.live import data_of
from dialer.candidate import candidate_of
from dialer.verdict import Verdict

if TYPE_CHECKING:
    from cti.database import Queryable


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledContact:
    """The contact of an attempt, and the number that was dialed. `zone`: theirs, "" where it may be one of several. `data`:
    what the agent's screen gets with a call to them."""

    attempt: str
    campaign: int
    e164: str
    name: str
    zone: str
    account: int | None
    data: Mapping[str, str]


async def contact_of(db: Queryable, call: str) -> CalledContact | None:
    """The contact whom a campaign's call reached, or a call that an agent made for one; None for any other call, and where
    the contact is gone."""
    row = await db.fetchrow(
        """
        SELECT c.*, a.id AS attempt, a.campaign_id, a.e164 AS dialed, p.name AS campaign, l.name AS list_name, l.script,
               l.version AS list_version, z.country, z.region, z.zones
          FROM attempts a
          JOIN campaigns p ON p.id = a.campaign_id
          JOIN list_contacts c ON c.id = a.contact_id
          JOIN call_lists l ON l.id = c.list_id
          JOIN zone_groups z ON z.id = c.zone_group
         WHERE a.id = $1 OR a.call = $2
         ORDER BY a.committed DESC LIMIT 1
        """,
        *(call.partition(":")[2], call),
    )
    if row is None:
        return None
    one = Claimed(
        id=row["attempt"],
        candidate=candidate_of(row, row["dialed"]),
        verdict=Verdict(steps=()),
        number_of=row["attempts"],
        script=row["script"],
        list_name=row["list_name"],
    )
    zones = row["zones"]
    return CalledContact(
        attempt=one.id,
        campaign=row["campaign_id"],
        e164=row["dialed"],
        name=row["name"],
        zone=zones[0] if len(zones) == 1 else "",
        account=row["account_id"],
        data=data_of(row["campaign"], row["campaign_id"], one),
    )


async def belongs(db: Queryable, attempt: str, call: str) -> None:
    """A call is made for an attempt: how it ended, as the agent says, is how the attempt did."""
    await db.execute("UPDATE attempts SET call = $2 WHERE id = $1", attempt, call)
