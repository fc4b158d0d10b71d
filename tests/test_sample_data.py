"""The invented customers: believable, harmless, and written once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from zoneinfo import available_timezones

import asyncpg

from crm.ani import CallerLookup
from crm.sample_data import insert_samples, load_synthetic, sample_customers, synthetic_number
from cti.numbers import read_caller

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)

FREE_FOR_FICTION = {
    "US": ("+1???55501",),
    "GB": ("+442079460", "+441614960", "+441214960", "+447700900"),
    "DE": ("+493023125", "+4969900", "+49406696", "+4922147", "+49899999", "+4917139200"),
    "FR": ("+3319900", "+3346571", "+3353649", "+3363998"),
    "AU": ("+6125550", "+6135550", "+6175550", "+61491570"),
    "SE": ("+468465004", "+4670174"),
}
"""Where the regulator keeps numbers free, what every sample number must begin with (? is any digit)."""


def test_a_hundred_customers_of_many_countries_always_the_same() -> None:
    customers = sample_customers()
    assert customers == sample_customers()
    assert len(customers) == len({c.number for c in customers}) == len({c.name for c in customers}) == 100
    assert len({c.country for c in customers}) >= 12
    assert len({c.language for c in customers}) >= 9
    assert {c.timezone for c in customers} <= available_timezones()
    companies = [c for c in customers if c.kind == "company"]
    assert len(companies) >= 20
    assert all(len(c.people) >= 2 and c.phones[0].prefix for c in companies)
    assert sum(bool(c.items) for c in customers) > 30
    assert sum(bool(c.alerts) for c in customers) > 8
    assert sum(bool(c.interactions) for c in customers) > 60


def test_every_number_is_one_of_its_country_and_free_for_fiction_where_there_are_such() -> None:
    for customer in sample_customers():
        assert customer.phones
        for phone in customer.phones:
            caller = read_caller(phone.e164, "US")
            assert (caller.e164, caller.country) == (phone.e164, customer.country)
            kept = FREE_FOR_FICTION.get(customer.country)
            if kept:
                assert any(
                    all(k in ("?", d) for k, d in zip(start, phone.e164, strict=False)) for start in kept
                ), phone.e164
    owners = Counter(phone.e164 for customer in sample_customers() for phone in customer.phones)
    assert max(owners.values()) >= 2, "some number has several owners"


async def test_inserted_once_by_any_number_of_programs(migrated: str) -> None:

    async def insert() -> int:
        connection = await asyncpg.connect(migrated)
        try:
            return await insert_samples(connection, now=NOW)
        finally:
            await connection.close()

    assert sorted(await asyncio.gather(insert(), insert(), insert())) == [0, 0, 100]
    connection = await asyncpg.connect(migrated)
    try:
        counted = await _counts(connection)
        assert await insert_samples(connection, now=NOW) == 0
        assert await _counts(connection) == counted
        assert counted["accounts"] == 100
        assert min(counted.values()) > 10
        assert await connection.fetchval("SELECT count(*) FROM accounts WHERE last_contact > $1", NOW) == 0
    finally:
        await connection.close()


async def _counts(connection: Any) -> dict[str, int]:
    row = await connection.fetchrow(
        """SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM contacts) AS contacts,
               (SELECT count(*) FROM phones) AS phones, (SELECT count(*) FROM open_items) AS items,
               (SELECT count(*) FROM alerts) AS alerts, (SELECT count(*) FROM interactions) AS interactions,
               (SELECT count(*) FROM interaction_notes) AS notes"""
    )
    return dict(row)


async def test_every_sample_customer_is_recognised_by_their_number(migrated: str) -> None:
    connection = await asyncpg.connect(migrated)
    await insert_samples(connection, now=NOW)
    await connection.close()
    async with CallerLookup(migrated, limit=10) as lookup:
        for customer in sample_customers():
            found = await lookup.find(customer.phones[0].e164, customer.country)
            assert customer.number in {c.account.number for c in found.candidates}
        firm = next(c for c in sample_customers() if c.kind == "company")
        desk = await lookup.find(f"{firm.phones[0].prefix}99", firm.country)
        assert (desk.how, desk.candidates[0].account.number) == ("switchboard", firm.number)


async def test_synthetic_customers_are_many_and_found(migrated: str) -> None:
    connection = await asyncpg.connect(migrated)
    await load_synthetic(connection, 3_000, interactions=500)
    assert await connection.fetchval("SELECT count(*) FROM phones") == 3_000
    assert (
        await connection.fetchval("INSERT INTO accounts (number, name) VALUES ('x', 'x') RETURNING id")
        > 3_000
    )
    await connection.close()
    assert all(read_caller(synthetic_number(n), "US").valid for n in (0, 1, 999_999, 1_234_567, 9_999_999))
    async with CallerLookup(migrated, limit=10) as lookup:
        found = await lookup.find(synthetic_number(7), "US")
        assert found.candidates[0].account.number == "S00000007"
