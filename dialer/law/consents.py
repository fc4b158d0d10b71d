"""Consent to be contacted: each word given or withdrawn, by channel and purpose, with its source; the last one counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from cti.frozen import Frozen
from dialer.law.do_not_call import digits_of
from dialer.law.reopening import reopen_who

if TYPE_CHECKING:
    from cti.database import Queryable

Channel = Literal["call", "recorded", "sms", "email", "chat", "letter"]
"""`recorded`: calls that play a recorded message, without an agent. Who has withdrawn consent to calls, has to these too."""

CHANNELS: tuple[Channel, ...] = ("call", "recorded", "sms", "email", "chat", "letter")


class WrongConsent(ValueError):
    """A consent cannot be kept as it was given; the message says what to change. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Consent given or withdrawn: by a number (E.164), or by a person for all their numbers. Both: given by that person for
    that number, and nobody else's on it; withdrawn for either.

    `purpose` "" withdraws for every purpose. `source`: how it was said (a form, a call, a letter); `evidence`: its words, or
    where they are kept. `at`: when it was said.
    """

    number: str = ""
    person: str = ""
    channel: Channel = "call"
    purpose: str = "marketing"
    given: bool
    source: str
    evidence: str = ""
    at: datetime


class ConsentWord(Frozen, frozen=True, gc=False, kw_only=True):
    """A word on consent as it is on record. `number` "" : for all numbers of the person."""

    id: int
    number: str
    person: str
    channel: Channel
    purpose: str
    given: bool
    source: str
    evidence: str
    at: datetime
    noted: datetime
    noted_by: str


def checked(word: Word, now: datetime) -> Word:
    """Returns the word if it can be kept. Raises WrongConsent, or WrongEntry for the number."""
    if not word.number and not word.person:
        raise WrongConsent("number or person: say whose consent it is")
    if word.number:
        digits_of(word.number)
    if len(word.person) > 80:
        raise WrongConsent("person: at most 80 characters")
    if word.channel not in CHANNELS:
        raise WrongConsent(f"channel: one of {', '.join(CHANNELS)}")
    if word.given and not word.purpose:
        raise WrongConsent("purpose: consent is given for something; only a withdrawal may be for everything")
    if len(word.purpose) > 60:
        raise WrongConsent("purpose: at most 60 characters")
    if not 1 <= len(word.source.strip()) <= 200:
        raise WrongConsent("source: say in at most 200 characters how it was given: a form, a call, a letter")
    if len(word.evidence) > 2000:
        raise WrongConsent("evidence: at most 2000 characters")
    if word.at.tzinfo is None:
        raise WrongConsent("at: say the time with its zone, like 2026-11-22T10:00:00Z")
    if not datetime(1990, 1, 1, tzinfo=UTC) < word.at <= now + timedelta(minutes=5):
        raise WrongConsent("at: a time in the past, after 1990")
    return word


async def record(db: Queryable, words: Sequence[Word], *, by: str) -> list[int]:
    """Keeps words on consent, one for each; returns the ids of those that were new: the same word again is kept once.

    Raises WrongConsent or WrongEntry for the first that is wrong, and then none is kept. One statement for any number up to
    some ten thousand, so an import calls it portion by portion, in its own transaction if it likes.
    """
    now = datetime.now(UTC)
    kept = [checked(word, now) for word in words]
    rows = await db.fetch(
        """INSERT INTO consents (number, person, channel, purpose, given, source, evidence, at, noted_by)
           SELECT *, $9 FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[],
                                    $7::text[], $8::timestamptz[])
           ON CONFLICT (number, person, channel, purpose, given, at) DO NOTHING RETURNING id""",
        [digits_of(word.number) if word.number else None for word in kept],
        [word.person for word in kept],
        [word.channel for word in kept],
        [word.purpose for word in kept],
        [word.given for word in kept],
        [word.source.strip() for word in kept],
        [word.evidence for word in kept],
        [word.at for word in kept],
        by,
    )
    given = [word for word in kept if word.given and word.channel in ("call", "recorded")]
    if rows and given:
        numbers = [word.number for word in given if word.number]
        await reopen_who(db, numbers=numbers, persons=[word.person for word in given if word.person])
    return [row["id"] for row in rows]


async def words_of(db: Queryable, *, number: str = "", person: str = "") -> list[ConsentWord]:
    """Returns what is on record for a number, and for a person, the newest first, at most 1,000. Raises WrongEntry."""
    rows = await db.fetch(
        """SELECT * FROM (
               SELECT * FROM consents WHERE number = $1
               UNION
               SELECT * FROM consents WHERE person = $2 AND person <> ''
           ) c ORDER BY at DESC, id DESC LIMIT 1000""",
        digits_of(number) if number else None,
        person,
    )
    return [_word(row) for row in rows]


def _word(row: Any) -> ConsentWord:
    return ConsentWord(
        id=row["id"],
        number=f"+{row['number']}" if row["number"] is not None else "",
        person=row["person"],
        channel=row["channel"],
        purpose=row["purpose"],
        given=row["given"],
        source=row["source"],
        evidence=row["evidence"],
        at=row["at"],
        noted=row["noted"],
        noted_by=row["noted_by"],
    )
