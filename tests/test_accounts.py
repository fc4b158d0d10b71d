"""Accounts on a real PostgreSQL: found by number, phone or name; changed by one person at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import ValidationError

from crm.accounts import (
    AccountChange,
    ChangedMeanwhile,
    NewAccount,
    NewContact,
    NewPhone,
    NumberTaken,
    UnknownAccount,
    UnknownPart,
    WrongNumber,
    add_alert,
    add_contact,
    add_phone,
    create,
    get,
    open_items_of,
    remove_phone,
    search,
    update,
)
from crm.paging import WrongCursor


@pytest.fixture
async def pool(migrated: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(migrated, min_size=1, max_size=6) as pool:
        yield pool


async def names(pool: Any, text: str, **more: Any) -> list[str]:
    return [account.name for account in (await search(pool, text, **more)).items]


async def test_written_read_and_numbered(pool: Any) -> None:
    made = await create(pool, NewAccount(name=" Ada \r\n Lovelace ", country="GB", timezone="Europe/London"))
    assert (made.name, made.number, made.version, made.classification) == (
        "Ada Lovelace",
        f"A{made.id:08d}",
        1,
        "C",
    )
    detail = await get(pool, made.id)
    assert detail.account == made
    assert (detail.contacts, detail.phones, detail.open_items, detail.alerts) == ((), (), (), ())
    with pytest.raises(UnknownAccount):
        await get(pool, 999)
    await create(pool, NewAccount(name="B", number="C-1"))
    with pytest.raises(NumberTaken):
        await create(pool, NewAccount(name="C", number="C-1"))


async def test_two_people_change_one_account_and_one_of_them_is_told(pool: Any) -> None:
    made = await create(pool, NewAccount(name="Ada", city="London"))
    changes = [AccountChange(version=1, name="Ada L."), AccountChange(version=1, name="A. Lovelace")]
    done = await asyncio.gather(*(update(pool, made.id, c) for c in changes), return_exceptions=True)
    assert sum(isinstance(d, ChangedMeanwhile) for d in done) == 1
    now = (await get(pool, made.id)).account
    assert (now.version, now.city) == (2, "London")
    assert now.name in ("Ada L.", "A. Lovelace")
    assert (await update(pool, made.id, AccountChange(version=2, city=""))).city == ""
    with pytest.raises(UnknownAccount):
        await update(pool, 999, AccountChange(version=1))


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "x" * 201}, {"name": "\0\r\n"}, {"name": "A", "country": "Germany"},
     {"name": "A", "kind": "dog"},
     {"name": "A", "timezone": "Mars/Base"}, {"name": "A", "email": "no"}, {"name": "A", "extra": 1},
     {"name": "A", "language": "e n"}, {"name": "A", "number": "x" * 41}],
)  # fmt: skip
def test_wrong_accounts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewAccount(**wrong)


async def test_phones_are_read_in_any_form_and_belong_once(pool: Any) -> None:
    firm = await create(pool, NewAccount(name="Firm", kind="company"))
    uwe = await add_contact(pool, firm.id, NewContact(name="Uwe", main=True))
    phone = await add_phone(pool, firm.id, NewPhone(number="030 23125-111", region="DE", contact_id=uwe.id))
    assert (phone.e164, phone.contact_id, phone.prefix) == ("+493023125111", uwe.id, None)
    with pytest.raises(NumberTaken):
        await add_phone(pool, firm.id, NewPhone(number="+493023125111", contact_id=uwe.id))
    board = await add_phone(
        pool, firm.id, NewPhone(number="030 23125-0", region="DE", kind="switchboard", extension_digits=1)
    )
    assert (board.e164, board.prefix) == ("+4930231250", "+493023125")
    for number in ("anonymous", "1001", "x", "+1", "9" * 60):
        with pytest.raises(WrongNumber):
            await add_phone(pool, firm.id, NewPhone(number=number, region="DE"))
    with pytest.raises(UnknownAccount):
        await add_phone(pool, 999, NewPhone(number="+493023125111"))
    with pytest.raises(UnknownPart):
        await add_phone(pool, firm.id, NewPhone(number="+493023125112", contact_id=999))
    with pytest.raises(ValidationError):
        NewPhone(number="+493023125112", kind="mobile", extension_digits=2)
    assert [p.id for p in (await get(pool, firm.id)).phones] == [board.id, phone.id]
    await remove_phone(pool, firm.id, phone.id)
    with pytest.raises(UnknownPart):
        await remove_phone(pool, firm.id, phone.id)


async def test_there_is_one_main_contact(pool: Any) -> None:
    firm = await create(pool, NewAccount(name="Firm", kind="company"))
    await add_contact(pool, firm.id, NewContact(name="First", main=True))
    await add_contact(pool, firm.id, NewContact(name="Second", main=True))
    assert [(c.name, c.main) for c in (await get(pool, firm.id)).contacts] == [
        ("Second", True),
        ("First", False),
    ]
    with pytest.raises(UnknownAccount):
        await add_contact(pool, 999, NewContact(name="X"))


async def test_alerts_and_open_items_are_read(pool: Any) -> None:
    made = await create(pool, NewAccount(name="Ada"))
    await add_alert(pool, made.id, "warning", "Hard of\0 hearing", None)
    with pytest.raises(UnknownAccount):
        await add_alert(pool, 999, "info", "x", None)
    await pool.execute(
        "INSERT INTO open_items (account_id, kind, subject, amount, currency) VALUES ($1, 'order', 'Chairs', 5, 'EUR')",
        made.id,
    )
    detail = await get(pool, made.id)
    assert [(a.severity, a.text) for a in detail.alerts] == [("warning", "Hard of hearing")]
    assert [(i.subject, i.amount) for i in detail.open_items] == [("Chairs", "5.00")]
    assert await open_items_of(pool, [made.id, 999]) == {made.id: 1}


async def test_search_by_name_number_and_phone(pool: Any) -> None:
    for name, number in (
        ("Ada Lovelace", "C-100"),
        ("Grace Hopper", "C-101"),
        ("100% Österreich_", "X-1"),
        ("Ada", "C-2"),
    ):
        await create(pool, NewAccount(name=name, number=number))
    grace = (await search(pool, "hopper")).items[0]
    await add_phone(pool, grace.id, NewPhone(number="+442079460001"))
    assert await names(pool, "ada") == ["Ada", "Ada Lovelace"]
    assert await names(pool, "LOVE") == ["Ada Lovelace"]
    assert await names(pool, "C-10") == ["Ada Lovelace", "Grace Hopper"]
    assert await names(pool, "ö") == []
    assert await names(pool, "öster") == ["100% Österreich_"]
    assert await names(pool, "100%") == ["100% Österreich_"]
    assert await names(pool, "h_pper") == []
    assert await names(pool, "%%%") == []
    assert await names(pool, "g") == ["Grace Hopper"]
    assert await names(pool, "(020) 7946 0001", region="GB") == ["Grace Hopper"]
    assert await names(pool, "+442079460009") == []
    assert len(await names(pool, "")) == 4
    assert await names(pool, "\0'; DROP TABLE accounts; --" + "x" * 10_000) == []


async def test_search_pages_have_no_gap_and_no_repeat(pool: Any) -> None:
    await pool.execute(
        "INSERT INTO accounts (number, name) SELECT 'N' || n, 'Müller ' || (n % 7) FROM generate_series(1, 60) n"
    )
    for text in ("", "müller", "mü", "N"):
        seen: list[int] = []
        cursor = None
        while True:
            page = await search(pool, text, limit=11, cursor=cursor)
            seen += [account.id for account in page.items]
            if (cursor := page.cursor) is None:
                break
        assert len(seen) == len(set(seen)) == (60 if text != "N" else 0), text
    for wrong in ("x", "W10", "WzEsMl0", "bnVsbA"):
        with pytest.raises(WrongCursor):
            await search(pool, "", cursor=wrong)


async def test_search_plans_use_the_indexes(pool: Any) -> None:
    await pool.execute(
        "INSERT INTO accounts (number, name) SELECT 'N' || n, md5(n::text) || ' ' || md5((n + 1)::text) "
        "FROM generate_series(1, 20000) n"
    )
    await pool.execute("VACUUM ANALYZE accounts")
    part = str(
        await pool.fetch("EXPLAIN SELECT id FROM accounts WHERE lower(name) LIKE '%abcde%' LIMIT 20000")
    )
    assert "accounts_by_part_of_name" in part
    number = str(
        await pool.fetch(
            "EXPLAIN SELECT id FROM accounts WHERE number COLLATE \"C\" BETWEEN 'N12' AND 'N12' || chr(1114111)"
        )
    )
    assert "accounts_by_number_beginning" in number
    begins = str(
        await pool.fetch(
            """EXPLAIN SELECT id FROM accounts WHERE lower(name) COLLATE "C" BETWEEN 'ab' AND 'ab' || chr(1114111)
               AND (lower(name) COLLATE "C", id) > ('' COLLATE "C", 0::bigint)
               ORDER BY lower(name) COLLATE "C", id LIMIT 50"""
        )
    )
    assert "accounts_by_name" in begins
    assert "Sort" not in begins
