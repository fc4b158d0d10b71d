"""What tests of the dialer's law share: a migrated database, and campaigns, contacts and attempts in it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from dialer.candidate import Candidate
from dialer.law.profiles import load
from dialer.law.registers import load_edition

GB = load()["GB"]
NUMBER = "+442079460151"
NOON = datetime(2037, 11, 24, 12, 0, tzinfo=UTC)
"""A Tuesday, later than whatever the database's clock says."""


class LawDesk:
    """A database with nothing in it."""

    def __init__(self, pool: Any, dsn: str) -> None:
        self.pool, self.dsn = pool, dsn

    async def campaign(self, name: str = "spring", mode: str = "predictive", **settings: Any) -> int:
        return int(
            await self.pool.fetchval(
                """INSERT INTO campaigns (name, mode, profile, settings, created_by, changed_by)
                   VALUES ($1, $2, 'GB', $3, 'sara', 'sara') RETURNING id""",
                name,
                mode,
                msgspec.json.encode(settings).decode(),
            )
        )

    async def attempt(
        self, id: int, of: int, at: datetime, outcome: str | None = "no_answer", **given: Any
    ) -> str:
        counts_as = {"abandoned": "nobody", "answered": "early", "connected": "in_time", "machine": "machine"}
        row = {
            "id": f"at-{id:032x}",
            "campaign_id": of,
            "e164": NUMBER,
            "pbx": "main",
            "mode": "predictive",
            "profile": "GB",
            "owner": "here",
            "committed": at,
            "dialed": at,
            "ended": at + timedelta(seconds=20) if outcome else None,
            "outcome": outcome,
            "state": "ended" if outcome else "dialed",
            "counts_as": counts_as.get(outcome or "") if "answered" in given else None,
            **given,
        }
        columns = ", ".join(row)
        values = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await self.pool.execute(f"INSERT INTO attempts ({columns}) VALUES ({values})", *row.values())
        return str(row["id"])

    async def register(self, text: str | bytes, edition: date = date(2037, 11, 10), **given: Any) -> Any:
        file = io.BytesIO(text.encode() if isinstance(text, str) else text)
        how: dict[str, Any] = {
            "register": "gb-tps",
            "country": "GB",
            "edition": edition,
            "by": "olga",
            **given,
        }
        return await load_edition(self.dsn, file, **how)


@asynccontextmanager
async def law_desk(dsn: str) -> AsyncIterator[LawDesk]:
    """A desk with a database that has our tables, emptied."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=6, server_settings={"jit": "off"}) as pool:
        await pool.execute(
            """TRUNCATE campaigns, call_lists, list_contacts, zone_groups, attempts, do_not_call, do_not_call_editions,
               do_not_call_blocks, consents, abandonment_hours, abandonment_sums RESTART IDENTITY CASCADE"""
        )
        yield LawDesk(pool, dsn)


def candidate(contact: int = 1, e164: str = NUMBER, **given: Any) -> Candidate:
    return Candidate(
        **{
            "contact": contact,
            "list": 1,
            "list_version": 1,
            "e164": e164,
            "zone_group": 1,
            "country": "GB",
            "region": "",
            "zones": ("Europe/London",),
            **given,
        }
    )
