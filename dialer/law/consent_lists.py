"""Consents that came with a call list: a column of the imported file, taken as word given or withdrawn.

The list says who and when; how the consent was given, for what, and that it is true, says whoever takes it over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dialer.law.consent_files import NO, PORTION, YES, Imported, RefusedRow
from dialer.law.consents import Word, WrongConsent, checked, record

if TYPE_CHECKING:
    from cti.database import Queryable

MOST_REFUSED = 1_000

_DAY_FIRST = re.compile(r"(\d{1,2})[./](\d{1,2})[./](\d{4})")


class NoSuchList(LookupError):
    """There is no such list."""


def read(value: str, at: datetime | None) -> tuple[bool, datetime] | None:
    """Returns whether consent was given, and when, from a cell: a day or moment (given then), yes or no (at `at`); None for
    an empty one. Days are written 2026-11-22, 22.11.2026, or 22/11/2026 where that is plain; UTC. Raises WrongConsent."""
    text = value.strip()
    if not text:
        return None
    if text.lower() in YES | NO:
        if at is None:
            raise WrongConsent(f"{text!r} says no time: say when it was given")
        return text.lower() in YES, at
    if match := _DAY_FIRST.fullmatch(text):
        day, month, year = (int(part) for part in match.groups())
        if ("/" in text and day != month and month <= 12 and day <= 12) or month > 12:
            raise WrongConsent(f"{text!r}: which is the month? Write it like 2026-11-22")
        text = f"{year:04}-{month:02}-{day:02}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise WrongConsent("neither yes nor no nor a day") from None
    return True, moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def take_over(
    db: Queryable,
    list_id: int,
    *,
    source: str,
    by: str,
    purpose: str = "marketing",
    column: str = "consent",
    at: datetime | None = None,
    evidence: str = "",
    progress: Callable[[int], None] = lambda _done: None,
) -> Imported:
    """Keeps the consents in a custom field of a list's contacts, portion by portion; may be run again: each is kept once.

    `at`: when those who say only yes or no did so. Of refused contacts (`line`: the contact's id) the first 1,000 are told.
    Raises NoSuchList, and WrongConsent for what holds for all of them.
    """
    if not await db.fetchval("SELECT EXISTS (SELECT FROM call_lists WHERE id = $1)", list_id):
        raise NoSuchList(f"there is no list {list_id}")
    now = datetime.now(UTC)
    said = at or now
    checked(
        Word(person="x", given=True, purpose=purpose, source=source, evidence=evidence, at=said), now
    )  # complains once of what is the same for all
    kept = seen = done = after = not_kept = 0
    refused: list[RefusedRow] = []
    while True:
        rows = await db.fetch(
            """SELECT id, e164, person, data ->> $3 AS said FROM list_contacts
               WHERE list_id = $1 AND id > $2 ORDER BY id LIMIT $4""",
            list_id,
            after,
            column,
            PORTION,
        )
        words: list[Word] = []
        for row in rows:
            try:
                told = read(row["said"] or "", at)
                if told is None:
                    continue
                given, moment = told
                word = Word(
                    number=row["e164"],
                    person=row["person"],
                    purpose=purpose,
                    given=given,
                    source=source,
                    evidence=evidence or f"column {column} of the list {list_id}: {row['said']}"[:2000],
                    at=moment,
                )
                words.append(checked(word, now))
            except WrongConsent as error:
                not_kept += 1
                if len(refused) < MOST_REFUSED:
                    refused.append(RefusedRow(line=row["id"], why=str(error)))
        if words:
            seen += len(words)
            kept += len(await record(db, words, by=by))
        done += len(rows)
        progress(done)
        if len(rows) < PORTION:
            return Imported(kept=kept, known=seen - kept, not_kept=not_kept, refused=tuple(refused))
        after = rows[-1]["id"]
