"""Who was found not to be callable is looked at again once what stood in the way has gone, and nobody else is."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import pytest

from dialer.law import consents, do_not_call
from dialer.law.consents import Word
from dialer.law.registers import load_edition
from dialer.law.reopening import reopen

ADA, BOB = "+442079460151", "+442079460152"


@pytest.fixture
async def db(migrated: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(migrated)
    group = await connection.fetchval(
        "INSERT INTO zone_groups (country, zones) VALUES ('GB', '{Europe/London}') RETURNING id"
    )
    for name in ("spring", "autumn"):
        campaign = await connection.fetchval(
            """INSERT INTO campaigns (name, mode, profile, created_by, changed_by)
               VALUES ($1, 'predictive', 'GB', 'sara', 'sara') RETURNING id""",
            name,
        )
        of = await connection.fetchval(
            """INSERT INTO call_lists (name, campaign_id, created_by, changed_by) VALUES ($1, $2, 'sara', 'sara')
               RETURNING id""",
            name,
            campaign,
        )
        for number, person, state in ((ADA, "C1", "blocked"), (BOB, "C2", "blocked"), (ADA, "C1", "done")):
            await connection.execute(
                """INSERT INTO list_contacts (list_id, e164, person, zone_group, state, why)
                   VALUES ($1, $2, $3, $4, $5, $6)""",
                *(of, number, person, group, state, "why" if state == "blocked" else ""),
            )
    yield connection
    await connection.close()


async def opened(db: Any) -> list[tuple[str, str]]:
    rows = await db.fetch(
        """SELECT l.name, c.person FROM list_contacts c JOIN call_lists l ON l.id = c.list_id
           WHERE c.state = 'open' AND c.why = '' ORDER BY 1, 2"""
    )
    return [(row["name"], row["person"]) for row in rows]


async def test_who_is_taken_off_the_do_not_call_list(db: Any) -> None:
    entry = await do_not_call.add(db, number=ADA, scope="everywhere", by="olga", reason="asked")
    await do_not_call.remove(db, entry.id, by="olga", why="a mistake")
    assert await opened(db) == [("autumn", "C1"), ("spring", "C1")]
    await db.execute("UPDATE list_contacts SET other_numbers = ARRAY['+442079460188'] WHERE person = 'C2'")
    entry = await do_not_call.add(db, number="+442079460188", scope="everywhere", by="olga")
    await do_not_call.remove(db, entry.id, by="olga", why="a mistake")
    assert len(await opened(db)) == 4


async def test_who_has_consented_by_number_or_as_a_person(db: Any) -> None:
    word = {"channel": "call", "source": "form", "at": datetime(2026, 1, 2, tzinfo=UTC)}
    withdrawn = Word(number=BOB, given=False, purpose="", **word)
    letter = Word(person="C2", given=True, purpose="news", **{**word, "channel": "letter"})
    await consents.record(db, [withdrawn, letter], by="sara")
    assert await opened(db) == []
    await consents.record(db, [Word(person="C2", given=True, purpose="news", **word)], by="sara")
    assert await opened(db) == [("autumn", "C2"), ("spring", "C2")]
    await consents.record(db, [Word(number=ADA, given=True, purpose="news", **word)], by="sara")
    assert len(await opened(db)) == 4


async def test_all_when_a_register_has_a_new_edition(db: Any, migrated: str) -> None:
    await load_edition(
        migrated,
        io.BytesIO(b"02079460199\n"),
        register="gb-tps",
        country="GB",
        edition=date(2026, 11, 1),
        by="olga",
    )
    assert len(await opened(db)) == 4


async def test_those_of_one_campaign_however_many(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dialer.law.reopening.PORTION", 1)
    spring = await db.fetchval("SELECT id FROM campaigns WHERE name = 'spring'")
    assert await reopen(db, campaign=spring) == 2
    assert await opened(db) == [("spring", "C1"), ("spring", "C2")]
    assert await reopen(db, campaign=spring) == 0
