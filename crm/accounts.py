"""Accounts: find, read, create and change customers, their people, phones and open items.

Small functions over a pool; each is one transaction. Texts are checked by the pydantic models that REST takes in;
rows come back as frozen dataclasses. Two people may edit at once: a change names the version it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import available_timezones

import asyncpg
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from crm.paging import MOST, Page, cursor_of, key_of
from crm.views import AlertCard, ContactCard, OpenItemCard
from cti.numbers import read_caller
from cti.plain_text import plain

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection

SHORTEST_PREFIX = 7
"""Characters, the + included, that a switchboard's common beginning has at least."""


class UnknownAccount(Exception):
    """There is no such account."""


class UnknownPart(Exception):
    """The account has no such contact or phone."""


class ChangedMeanwhile(Exception):
    """Somebody else has changed it since it was read; read it again."""


class NumberTaken(Exception):
    """Another account has this account number, or the account has this phone already."""


class WrongNumber(ValueError):
    """The phone number is not one that can be dialled from anywhere; the message says what is wrong."""


# ------------------------------------------------------------------------------------------ what comes in


def _one_line(value: object) -> object:
    return plain(value, 1000) if isinstance(value, str) else value


def _zone(value: str) -> str:
    if value and value not in available_timezones():
        raise ValueError("not a time zone such as Europe/Berlin")
    return value


Line = BeforeValidator(_one_line)
Name = Annotated[str, Line, Field(min_length=1, max_length=200)]
Short = Annotated[str, Line, Field(max_length=100)]
Number = Annotated[str, Line, Field(min_length=1, max_length=40)]
Rating = Annotated[str, Line, Field(min_length=1, max_length=8)]
Language = Annotated[str, Field(pattern=r"^([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)?$", max_length=35)]
Country = Annotated[str, Field(pattern=r"^([A-Z]{2})?$")]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_zone)]
Email = Annotated[str, Line, Field(pattern=r"^([^@\s]+@[^@\s]+)?$", max_length=254)]
OwnAgent = Annotated[str, Line, Field(max_length=64, description="login of whoever looks after the customer")]
PhoneKind = Literal["mobile", "work", "home", "switchboard", "other"]
AccountKind = Literal["person", "company"]
Status = Literal["prospect", "active", "blocked", "closed"]


class NewAccount(BaseModel):
    """A customer to be written down. Without a `number` one is made."""

    model_config = ConfigDict(extra="forbid")

    number: Number | None = None
    name: Name
    kind: AccountKind = "person"
    classification: Rating = "C"
    status: Status = "active"
    language: Language = ""
    country: Country = ""
    timezone: Zone = ""
    email: Email = ""
    street: Annotated[str, Line, Field(max_length=200)] = ""
    postcode: Annotated[str, Line, Field(max_length=20)] = ""
    city: Short = ""
    own_agent: OwnAgent = ""


class AccountChange(BaseModel):
    """What is to be different; what is left out stays. `version` is the one the change was made from."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, lt=1 << 31)
    name: Name | None = None
    kind: AccountKind | None = None
    classification: Rating | None = None
    status: Status | None = None
    language: Language | None = None
    country: Country | None = None
    timezone: Zone | None = None
    email: Email | None = None
    street: Annotated[str, Line, Field(max_length=200)] | None = None
    postcode: Annotated[str, Line, Field(max_length=20)] | None = None
    city: Short | None = None
    own_agent: OwnAgent | None = None


class NewContact(BaseModel):
    """A person at an account."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    role: Short = ""
    main: bool = False
    email: Email = ""
    language: Language = ""


class NewPhone(BaseModel):
    """A phone of an account, or of a person there. `number` in any form, `region` if it may be a national one.

    `extension_digits` (1-4, switchboards only): so many digits at the end of `number` differ from desk to desk; with 0
    the number itself is what all extensions begin with.
    """

    model_config = ConfigDict(extra="forbid")

    number: Annotated[str, Field(min_length=1, max_length=64)]
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "US"
    kind: PhoneKind = "other"
    contact_id: int | None = Field(default=None, ge=1, lt=1 << 63)
    extension_digits: int | None = Field(default=None, ge=0, le=4)

    @model_validator(mode="after")
    def _only_switchboards(self) -> NewPhone:
        if self.extension_digits is not None and self.kind != "switchboard":
            raise ValueError("only a switchboard has extension_digits")
        return self


# ----------------------------------------------------------------------------------------- what goes out


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """A phone of an account. `prefix`: what all numbers of this switchboard begin with."""

    id: int
    e164: str
    kind: str
    contact_id: int | None
    prefix: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A customer's own data."""

    id: int
    number: str
    name: str
    kind: str
    classification: str
    status: str
    language: str
    country: str
    timezone: str
    email: str
    street: str
    postcode: str
    city: str
    own_agent: str
    last_contact: datetime | None
    created: datetime
    changed: datetime
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountDetail:
    """An account with its people (at most 200), phones (200), open items (200) and alerts of the moment (20)."""

    account: Account
    contacts: tuple[ContactCard, ...]
    phones: tuple[Phone, ...]
    open_items: tuple[OpenItemCard, ...]
    alerts: tuple[AlertCard, ...]


# ----------------------------------------------------------------------------------------------- finding


async def search(
    pool: Pool, text: str, *, region: str = "US", limit: int = 50, cursor: str | None = None
) -> Page[Account]:
    """Returns the accounts that `text` may mean: whose phone it is, whose number or name it begins or is in.

    A phone number gives its owners alone. Three letters and more are looked for inside names and at the beginning of
    account numbers, fewer at the beginning of names. In the order of names; an empty text lists all. Raises WrongCursor.
    """
    wanted = plain(text, 100)
    limit = max(1, min(limit, MOST))
    caller = read_caller(wanted, region)
    if wanted and caller.e164 is not None and cursor is None:
        owners = await _by_phone(pool, caller.e164, limit)
        if owners:
            return Page(items=owners, cursor=None)
    name, last = ("", 0) if cursor is None else key_of(cursor, str, int)
    lower = wanted.lower()
    query = _INSIDE if len(wanted) >= 3 else _BEGINNING
    rows = await pool.fetch(query, lower, wanted, name, last, limit + 1, f"%{_like(lower)}%")
    items = tuple(_account(row) for row in rows[:limit])
    more = len(rows) > limit
    return Page(items=items, cursor=cursor_of(rows[limit - 1]["sort"], items[-1].id) if more else None)


_INSIDE = """
WITH found AS MATERIALIZED (
    (SELECT id FROM accounts WHERE lower(name) LIKE $6 LIMIT 20000)
  UNION
    (SELECT id FROM accounts WHERE number COLLATE "C" BETWEEN $2 AND $2 || chr(1114111) LIMIT 20000)
)
SELECT lower(a.name) AS sort, a.id, number, name, kind, class AS classification, status, language, country, timezone,
    email, street, postcode, city, own_agent, last_contact, created, changed, version
FROM found JOIN accounts a USING (id)
WHERE (lower(a.name) COLLATE "C", a.id) > ($3 COLLATE "C", $4::bigint) AND $1::text IS NOT NULL
ORDER BY lower(a.name) COLLATE "C", a.id LIMIT $5
"""
"""$1 lower-case and $2 as typed, $3 and $4 the row before, $5 how many, $6 what names are LIKE. A word in more than
20,000 names gives 20,000 of them: nobody reads so far, and one word must not hold a connection."""

_BEGINNING = """
SELECT lower(name) AS sort, id, number, name, kind, class AS classification, status, language, country, timezone,
    email, street, postcode, city, own_agent, last_contact, created, changed, version
FROM accounts
WHERE lower(name) COLLATE "C" BETWEEN $1 AND $1 || chr(1114111)
  AND (lower(name) COLLATE "C", id) > ($3 COLLATE "C", $4::bigint) AND $2::text IS NOT NULL AND $6::text IS NOT NULL
ORDER BY lower(name) COLLATE "C", id LIMIT $5
"""
"""As _INSIDE, for one or two letters and for the whole list: names that begin so, read along their index."""


async def _by_phone(pool: Pool, e164: str, limit: int) -> tuple[Account, ...]:
    rows = await pool.fetch(
        """SELECT id, number, name, kind, class AS classification, status, language, country, timezone, email, street,
               postcode, city, own_agent, last_contact, created, changed, version
           FROM accounts WHERE id IN (SELECT account_id FROM phones WHERE e164 = $1)
           ORDER BY last_contact DESC NULLS LAST, id LIMIT $2""",
        e164,
        limit,
    )
    return tuple(_account(row) for row in rows)


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def get(pool: Pool, account_id: int) -> AccountDetail:
    """Returns an account with everything a screen shows of it but its interactions. Raises UnknownAccount."""
    async with (
        pool.acquire(timeout=5) as connection,
        connection.transaction(readonly=True, isolation="repeatable_read"),
    ):
        account = await _one(connection, account_id)
        contacts = await connection.fetch(
            """SELECT id, name, role, main, email, language FROM contacts WHERE account_id = $1
               ORDER BY main DESC, name, id LIMIT 200""",
            account_id,
        )
        phones = await connection.fetch(
            """SELECT id, e164, kind, contact_id, prefix FROM phones WHERE account_id = $1
               ORDER BY contact_id NULLS FIRST, id LIMIT 200""",
            account_id,
        )
        items = await connection.fetch(
            """SELECT id, kind, reference, subject, status, due, amount::text AS amount, currency FROM open_items
               WHERE account_id = $1 AND status NOT IN ('done', 'cancelled') ORDER BY due, id LIMIT 200""",
            account_id,
        )
        alerts = await connection.fetch(
            """SELECT severity, text FROM alerts
               WHERE account_id = $1 AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now())
               ORDER BY array_position('{critical,warning,info}', severity), id LIMIT 20""",
            account_id,
        )
    return AccountDetail(
        account=account,
        contacts=tuple(ContactCard(**dict(row)) for row in contacts),
        phones=tuple(Phone(**dict(row)) for row in phones),
        open_items=tuple(OpenItemCard(**dict(row)) for row in items),
        alerts=tuple(AlertCard(**dict(row)) for row in alerts),
    )


# ---------------------------------------------------------------------------------------------- changing


async def create(pool: Pool, new: NewAccount) -> Account:
    """Writes a new account; committed when this returns. Raises NumberTaken."""
    try:
        row = await pool.fetchrow(
            """INSERT INTO accounts (id, number, name, kind, class, status, language, country, timezone, email, street,
                   postcode, city, own_agent)
               SELECT id, COALESCE($1, 'A' || lpad(id::text, 8, '0')), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
               FROM nextval(pg_get_serial_sequence('accounts', 'id')) id
               RETURNING id, number, name, kind, class AS classification, status, language, country, timezone, email,
                   street, postcode, city, own_agent, last_contact, created, changed, version""",
            new.number,
            new.name,
            new.kind,
            new.classification,
            new.status,
            new.language,
            new.country,
            new.timezone,
            new.email,
            new.street,
            new.postcode,
            new.city,
            new.own_agent,
        )
    except asyncpg.UniqueViolationError:
        raise NumberTaken(new.number or "") from None
    return _account(row)


async def update(pool: Pool, account_id: int, change: AccountChange) -> Account:
    """Changes an account that still is at `change.version`. Raises UnknownAccount, ChangedMeanwhile."""
    row = await pool.fetchrow(
        """UPDATE accounts SET name = COALESCE($3, name), kind = COALESCE($4, kind), class = COALESCE($5, class),
               status = COALESCE($6, status), language = COALESCE($7, language), country = COALESCE($8, country),
               timezone = COALESCE($9, timezone), email = COALESCE($10, email), street = COALESCE($11, street),
               postcode = COALESCE($12, postcode), city = COALESCE($13, city),
               own_agent = COALESCE($14, own_agent), changed = now(), version = version + 1
           WHERE id = $1 AND version = $2
           RETURNING id, number, name, kind, class AS classification, status, language, country, timezone, email,
               street, postcode, city, own_agent, last_contact, created, changed, version""",
        account_id,
        change.version,
        change.name,
        change.kind,
        change.classification,
        change.status,
        change.language,
        change.country,
        change.timezone,
        change.email,
        change.street,
        change.postcode,
        change.city,
        change.own_agent,
    )
    if row is None:
        async with pool.acquire(timeout=5) as connection:
            now = await _one(connection, account_id)
        raise ChangedMeanwhile(
            f"the account is at version {now.version} by now: read it again, then change it"
        )
    return _account(row)


async def add_contact(pool: Pool, account_id: int, new: NewContact) -> ContactCard:
    """Adds a person to an account; a new main contact takes over from the former one. Raises UnknownAccount."""
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        if not await connection.fetchval("SELECT true FROM accounts WHERE id = $1 FOR UPDATE", account_id):
            raise UnknownAccount(str(account_id))
        if new.main:
            await connection.execute(
                "UPDATE contacts SET main = false, version = version + 1 WHERE account_id = $1 AND main",
                account_id,
            )
        row = await connection.fetchrow(
            """INSERT INTO contacts (account_id, name, role, main, email, language) VALUES ($1, $2, $3, $4, $5, $6)
               RETURNING id, name, role, main, email, language""",
            account_id,
            new.name,
            new.role,
            new.main,
            new.email,
            new.language,
        )
    return ContactCard(**_values(row))


async def add_phone(pool: Pool, account_id: int, new: NewPhone) -> Phone:
    """Adds a phone to an account, from then on its owner's calls are recognised.

    Raises WrongNumber, UnknownAccount, UnknownPart (the contact), NumberTaken (the account has it already).
    """
    caller = read_caller(new.number, new.region)
    if caller.e164 is None:
        raise WrongNumber(f"this is not a phone number of {new.region} nor an international one")
    prefix = None
    if new.extension_digits is not None:
        prefix = caller.e164[: len(caller.e164) - new.extension_digits]
        if len(prefix) < SHORTEST_PREFIX:
            raise WrongNumber("too few digits are left for a switchboard")
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        if not await connection.fetchval("SELECT true FROM accounts WHERE id = $1 FOR KEY SHARE", account_id):
            raise UnknownAccount(str(account_id))
        if new.contact_id is not None and not await connection.fetchval(
            "SELECT true FROM contacts WHERE id = $1 AND account_id = $2", new.contact_id, account_id
        ):
            raise UnknownPart(str(new.contact_id))
        row = await connection.fetchrow(
            """INSERT INTO phones (e164, account_id, contact_id, kind, prefix) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT DO NOTHING RETURNING id, e164, kind, contact_id, prefix""",
            caller.e164,
            account_id,
            new.contact_id,
            new.kind,
            prefix,
        )
        if row is None:
            raise NumberTaken(caller.e164)
    return Phone(**_values(row))


async def remove_phone(pool: Pool, account_id: int, phone_id: int) -> None:
    """Takes a phone from an account. Raises UnknownPart."""
    done = await pool.fetchval(
        "DELETE FROM phones WHERE id = $1 AND account_id = $2 RETURNING true", phone_id, account_id
    )
    if not done:
        raise UnknownPart(str(phone_id))


async def add_alert(
    pool: Pool,
    account_id: int,
    severity: Literal["info", "warning", "critical"],
    text: str,
    until: datetime | None,
) -> None:
    """Has everybody who gets this customer's pop see `text` first, from now `until` then. Raises UnknownAccount."""
    done = await pool.fetchval(
        """INSERT INTO alerts (account_id, severity, text, valid_to)
           SELECT id, $2, $3, $4 FROM accounts WHERE id = $1 RETURNING true""",
        account_id,
        severity,
        plain(text, 500),
        until,
    )
    if not done:
        raise UnknownAccount(str(account_id))


async def open_items_of(pool: Pool, accounts: Sequence[int]) -> dict[int, int]:
    """Returns how many open items each of these accounts has; those without any are left out."""
    rows = await pool.fetch(
        """SELECT account_id, count(*) AS items FROM open_items
           WHERE account_id = ANY ($1::bigint[]) AND status NOT IN ('done', 'cancelled') GROUP BY account_id""",
        list(accounts),
    )
    return {row["account_id"]: row["items"] for row in rows}


async def _one(connection: PoolConnection, account_id: int) -> Account:
    row = await connection.fetchrow(
        """SELECT id, number, name, kind, class AS classification, status, language, country, timezone, email, street,
               postcode, city, own_agent, last_contact, created, changed, version FROM accounts WHERE id = $1""",
        account_id,
    )
    if row is None:
        raise UnknownAccount(str(account_id))
    return _account(row)


def _account(row: asyncpg.Record | None) -> Account:
    values = _values(row)
    values.pop("sort", None)
    return Account(**values)


def _values(row: asyncpg.Record | None) -> dict[str, Any]:
    if row is None:
        raise UnknownAccount
    return dict(row)
