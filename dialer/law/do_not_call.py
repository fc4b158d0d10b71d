"""Our own do-not-call lists: who asked not to be called, everywhere, for one company or for one campaign."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

from cti.frozen import Frozen
from dialer.law.reopening import reopen_who

if TYPE_CHECKING:
    from cti.database import Queryable

Scope = Literal["everywhere", "company", "campaign"]


class WrongEntry(ValueError):
    """An entry cannot be kept as it was given; the message says what to change. Nothing was written."""


class NoSuchEntry(LookupError):
    """There is no such entry, or it was removed before."""


class DoNotCallEntry(Frozen, frozen=True, gc=False, kw_only=True):
    """A number that is not called: everywhere, for a `company` or for a campaign. `number` E.164. `expires` null: for ever.

    `call`: the call in which the customer asked for it. `removed`: it holds no longer, since then.
    """

    id: int
    number: str
    scope: Scope
    company: str
    campaign: int | None
    reason: str
    call: str
    added: datetime
    added_by: str
    expires: datetime | None
    removed: datetime | None
    removed_by: str | None
    removed_why: str


def digits_of(e164: str) -> int:
    """Returns an E.164 number as the tables keep it. Raises WrongEntry."""
    digits = e164.removeprefix("+")
    if (
        not (e164.startswith("+") and digits.isascii() and digits.isdigit() and 5 <= len(digits) <= 15)
        or digits[0] == "0"
    ):
        raise WrongEntry("number: write it in E.164, like +442079460151")
    return int(digits)


async def add(
    db: Queryable,
    *,
    number: str,
    scope: Scope,
    by: str,
    company: str = "",
    campaign: int | None = None,
    reason: str = "",
    call: str = "",
    expires: datetime | None = None,
) -> DoNotCallEntry:
    """Puts a number on a list, at once in force, and returns the entry. Again: the same entry, made to last longer if
    asked. Raises WrongEntry; who asked for company or campaign must name it.

    `call`: the call or attempt in which they asked for it: it was a person who did, so the other numbers that lists have of
    them are listed with it.
    """
    if expires is not None and expires <= datetime.now(UTC):
        raise WrongEntry("expires: this is past")
    asked = digits_of(number)
    theirs = [row["number"] for row in await db.fetch(THEIRS, call)] if call else []
    rows = await put(
        db, {asked, *theirs}, scope=scope, by=by, company=company, campaign=campaign, reason=reason, call=call,
        expires=expires,
    )  # fmt: skip
    return next(_entry(row) for row in rows if row["number"] == asked)


async def put(
    db: Queryable,
    numbers: Iterable[int],
    *,
    scope: Scope,
    by: str,
    company: str = "",
    campaign: int | None = None,
    reason: str = "",
    call: str = "",
    expires: datetime | None = None,
) -> list[Any]:
    """Puts numbers on a list, as the tables keep them; returns the entries' rows, `new` where there was none before. Raises
    WrongEntry."""
    if scope == "company" and not company.strip():
        raise WrongEntry("company: say for which company the number is not called")
    if scope == "campaign" and campaign is None:
        raise WrongEntry("campaign: say in which campaign the number is not called")
    try:
        return await db.fetch(
            """INSERT INTO do_not_call AS d (number, scope, company, campaign_id, reason, call, expires, added_by)
               SELECT n, $2, $3, $4::bigint, $5, $6, $7::timestamptz, $8 FROM unnest($1::bigint[]) AS n
               ON CONFLICT (number, scope, company, campaign_id) WHERE removed IS NULL DO UPDATE SET
                   expires = CASE WHEN d.expires IS NULL OR EXCLUDED.expires IS NULL THEN NULL
                                  ELSE greatest(d.expires, EXCLUDED.expires) END,
                   reason = CASE WHEN d.reason = '' THEN EXCLUDED.reason ELSE d.reason END,
                   added = CASE WHEN d.expires <= now() THEN now() ELSE d.added END
               RETURNING *, xmax = 0 AS new""",
            sorted(set(numbers)),
            scope,
            company.strip() if scope == "company" else "",
            campaign if scope == "campaign" else None,
            reason,
            call,
            expires,
            by,
        )
    except asyncpg.ForeignKeyViolationError:
        raise WrongEntry("campaign: there is no such campaign") from None


THEIRS = """
    WITH asked AS (SELECT contact_id, person FROM attempts
                    WHERE id IN ($1, split_part($1, ':', 2)) OR call = $1 ORDER BY committed DESC LIMIT 1)
    SELECT DISTINCT substr(n, 2)::bigint AS number
      FROM (SELECT c.e164, c.other_numbers FROM asked a JOIN list_contacts c ON c.id = a.contact_id
            UNION ALL
            SELECT c.e164, c.other_numbers FROM asked a JOIN list_contacts c ON c.person = a.person AND c.person <> '') c
     CROSS JOIN LATERAL unnest(c.e164 || c.other_numbers) AS n
     LIMIT 100
"""
"""All numbers that lists have of whom an attempt called: of the contact, and of whoever has the same customer number."""


async def remove(db: Queryable, id: int, *, by: str, why: str) -> DoNotCallEntry:
    """Takes an entry back; it stays on record. Raises NoSuchEntry."""
    row = await db.fetchrow(
        """UPDATE do_not_call SET removed = now(), removed_by = $2, removed_why = $3
           WHERE id = $1 AND removed IS NULL RETURNING *""",
        id,
        by,
        why,
    )
    if row is None:
        raise NoSuchEntry("there is no such entry, or it was removed")
    entry = _entry(row)
    await reopen_who(db, numbers=[entry.number])
    return entry


async def entries_of(db: Queryable, number: str) -> list[DoNotCallEntry]:
    """Returns all entries of a number there ever were, the newest first. Raises WrongEntry."""
    rows = await db.fetch(
        "SELECT * FROM do_not_call WHERE number = $1 ORDER BY id DESC LIMIT 1000", digits_of(number)
    )
    return [_entry(row) for row in rows]


async def entries(db: Queryable, *, before: int | None, limit: int) -> list[DoNotCallEntry]:
    """Returns entries in force or removed, the newest first, those with an id below `before`."""
    rows = await db.fetch(
        "SELECT * FROM do_not_call WHERE $1::bigint IS NULL OR id < $1 ORDER BY id DESC LIMIT $2",
        before,
        limit,
    )
    return [_entry(row) for row in rows]


def _entry(row: Any) -> DoNotCallEntry:
    return DoNotCallEntry(
        id=row["id"],
        number=f"+{row['number']}",
        scope=row["scope"],
        company=row["company"],
        campaign=row["campaign_id"],
        reason=row["reason"],
        call=row["call"],
        added=row["added"],
        added_by=row["added_by"],
        expires=row["expires"],
        removed=row["removed"],
        removed_by=row["removed_by"],
        removed_why=row["removed_why"],
    )


class RegisterEdition(Frozen, frozen=True, gc=False, kw_only=True):
    """An edition of a national register. `edition`: its date as the register gives it; only the active one is asked.

    `refused`: lines of the file that held no number.
    """

    id: int
    register: str
    country: str
    edition: date
    state: str
    numbers: int
    refused: int
    loaded: datetime
    loaded_by: str


async def editions(db: Queryable) -> list[RegisterEdition]:
    """Returns all editions that were loaded, the newest first, at most 1,000."""
    rows = await db.fetch("SELECT * FROM do_not_call_editions ORDER BY id DESC LIMIT 1000")
    return [RegisterEdition(**dict(row)) for row in rows]


async def registers_with(db: Queryable, number: str) -> list[RegisterEdition]:
    """Returns the active editions that hold a number. One look-up by index for each register. Raises WrongEntry."""
    rows = await db.fetch(
        """SELECT e.* FROM do_not_call_editions e
           JOIN do_not_call_blocks b ON b.edition = e.id AND b.block = $1::bigint / 10000
           WHERE e.state = 'active'
             AND CASE WHEN b.bits IS NULL THEN ($1::bigint % 10000)::smallint = ANY (b.few)
                      ELSE get_bit(b.bits, $1::bigint % 10000) = 1 END""",
        digits_of(number),
    )
    return [RegisterEdition(**dict(row)) for row in rows]
