"""Campaigns, lists and attempts written straight into the database, and what they come to by another reckoning."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from cti.campaigns import CampaignSums
from cti.database import connection

if TYPE_CHECKING:
    from cti.database import Queryable


@asynccontextmanager
async def emptied(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection, with no campaign, list or attempt in the tables."""
    async with connection(url, name="test", jit="off") as db:
        await db.execute("TRUNCATE campaigns, call_lists, campaign_sums, campaign_sums_again CASCADE")
        await db.execute("UPDATE campaign_sums_position SET upto = '-infinity'")
        yield db


ENDS = ("no_answer", "busy", "machine", "abandoned", "answered", "answered", "failed", "fax")
DISPOSITIONS = ("Sale", "Not interested", "Call later", None)


@dataclass
class Attempt:
    """One row of `attempts`, as far as figures look at it."""

    campaign: int
    committed: datetime
    outcome: str | None
    list: int | None = None
    number_of: int = 1
    agent: str | None = None
    disposition: str | None = None
    ring: float = 0.0
    wait: float = 0.0
    talk: float = 0.0
    opted_out: bool = False
    late: bool = False
    end_unseen: bool = False
    id: str = field(default_factory=lambda: f"at-{random.getrandbits(128):032x}")

    @property
    def number(self) -> str:
        """One of its own: no number is in two calls at once."""
        return f"+49{int(self.id[3:], 16) % 10**11 + 10**11}"[:15]

    @property
    def picked_up(self) -> bool:
        return self.outcome in ("machine", "abandoned", "answered", "fax")

    @property
    def row(self) -> tuple[Any, ...]:
        rang = self.committed + timedelta(seconds=1)
        over = rang + timedelta(seconds=self.ring)
        connected = over + timedelta(seconds=self.wait) if self.outcome == "answered" else None
        ended = (connected or over) + timedelta(seconds=self.talk)
        state = "ended" if self.outcome else "ringing"
        counts_as = {"answered": "in_time", "abandoned": "nobody", "machine": "machine"}.get(
            self.outcome or ""
        )
        return (
            *(self.id, self.campaign, self.list, self.number, "main", "predictive", "DE", "here"),
            *(self.number_of, state, self.committed, self.committed, rang),
            *(over if self.picked_up else None, connected, ended if self.outcome else None),
            *(self.agent, self.wait if connected else None, self.outcome),
            *("machine" if self.outcome == "machine" else None, self.opted_out, self.disposition),
            "late" if self.late else counts_as,
            self.end_unseen,
        )


COLUMNS = (
    *(
        "id",
        "campaign_id",
        "list_id",
        "e164",
        "pbx",
        "mode",
        "profile",
        "owner",
        "number_of",
        "state",
        "committed",
    ),
    *(
        "dialed",
        "ringing",
        "answered",
        "connected",
        "ended",
        "agent",
        "waited",
        "outcome",
        "amd",
        "opted_out",
    ),
    "disposition",
    "counts_as",
    "end_unseen",
)


async def write(db: Any, attempts: Sequence[Attempt]) -> None:
    """Writes attempts as they are."""
    await db.copy_records_to_table("attempts", columns=COLUMNS, records=[one.row for one in attempts])


async def a_campaign(db: Queryable, name: str = "Spring", **more: Any) -> int:
    """A campaign, as a row."""
    values = {"mode": "predictive", "profile": "DE", "state": "running"} | more
    return int(
        await db.fetchval(
            """INSERT INTO campaigns (name, mode, profile, state, created_by, changed_by)
               VALUES ($1, $2, $3, $4, 'sue', 'sue') RETURNING id""",
            *(name, values["mode"], values["profile"], values["state"]),
        )
    )


async def a_list(db: Queryable, campaign: int | None, contacts: int = 0, name: str = "Fair") -> int:
    """A list with so many contacts, German and of one time zone."""
    list_id = await db.fetchval(
        "INSERT INTO call_lists (name, campaign_id, created_by, changed_by) VALUES ($1, $2, 'sue', 'sue') RETURNING id",
        *(name, campaign),
    )
    zones = await db.fetchval(
        """INSERT INTO zone_groups (country, zones) VALUES ('DE', '{Europe/Berlin}')
           ON CONFLICT (country, region, zones) DO UPDATE SET region = excluded.region RETURNING id"""
    )
    await db.execute(
        """INSERT INTO list_contacts (list_id, name, e164, zone_group)
           SELECT $1, 'Contact ' || n, '+4930' || (1000000 + n), $2 FROM generate_series(1, $3::integer) n""",
        *(list_id, zones, contacts),
    )
    return int(list_id)


def by_chance(
    chance: random.Random, campaigns: Sequence[int], count: int, first: datetime, hours: float
) -> list[Attempt]:
    """Attempts of all kinds, some not over yet."""
    found = []
    for _ in range(count):
        outcome = chance.choice((*ENDS, None))
        talked = outcome == "answered"
        found.append(
            Attempt(
                campaign=chance.choice(campaigns),
                committed=first + timedelta(milliseconds=chance.randrange(int(hours * 3_600_000))),
                outcome=outcome,
                list=chance.choice((1, 2, None)),
                number_of=chance.choice((1, 1, 2, 3, 14)),
                agent=chance.choice(("anna", "ben")) if talked else None,
                disposition=chance.choice(DISPOSITIONS) if talked else None,
                ring=chance.randrange(30_000) / 1000,
                wait=chance.choice((0.0, 0.5, 1.25)) if talked else 0.0,
                late=talked and chance.random() < 0.03,
                talk=chance.randrange(300_000) / 1000 if talked else 0.0,
                end_unseen=talked and chance.random() < 0.05,
                opted_out=chance.random() < 0.02,
            )
        )
    return found


def added_up(attempts: Sequence[Attempt], won: frozenset[str] = frozenset()) -> CampaignSums:
    """Their sums, by plain adding up."""
    return CampaignSums(
        attempts=len(attempts),
        in_flight=sum(one.outcome is None for one in attempts),
        answered=sum(one.picked_up for one in attempts),
        live=sum(one.outcome in ("abandoned", "answered") for one in attempts),
        connected=sum(one.outcome == "answered" for one in attempts),
        abandoned=sum(one.outcome == "abandoned" or one.late for one in attempts),
        late=sum(one.late for one in attempts),
        nobody=sum(one.outcome == "abandoned" for one in attempts),
        machines=sum(one.outcome == "machine" for one in attempts),
        opted_out=sum(one.opted_out for one in attempts),
        conversions=sum(one.disposition in won for one in attempts),
        ring_seconds=round(sum(one.ring for one in attempts if one.outcome), 3),
        wait_seconds=round(sum(one.wait for one in attempts if one.outcome == "answered"), 3),
        talks=sum(one.outcome == "answered" and not one.end_unseen for one in attempts),
        talk_seconds=round(sum(one.talk for one in attempts if not one.end_unseen), 3),
    )


def counted(attempts: Sequence[Attempt], key: Callable[[Attempt], str]) -> Counter[str]:
    """How many attempts of each key."""
    return Counter(key(one) for one in attempts)
