"""Our own do-not-call lists from a file, as another dialer or a company hands them over; in force portion by portion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

from cti.frozen import Frozen
from dialer.law.do_not_call import Scope, put
from dialer.law.registers import Lines, WrongRegister

if TYPE_CHECKING:
    from array import array

    from cti.database import Queryable

AT_ONCE = 5_000
"""Numbers written by one statement."""


class Taken(Frozen, frozen=True, gc=False, kw_only=True):
    """What became of a file: `new` entries, numbers `known` before, `refused` lines without a number and the first of
    them."""

    new: int
    known: int
    refused: int
    samples: list[str]


async def take_in(
    db: Queryable,
    parts: AsyncIterator[bytes],
    *,
    country: str,
    scope: Scope,
    by: str,
    company: str = "",
    campaign: int | None = None,
    reason: str = "",
    expires: datetime | None = None,
    column: int = 0,
) -> Taken:
    """Lists the numbers of a file, one a line or a column of a CSV file; numbers without + or 00 are of `country`. May be
    run again: each is listed once. Raises WrongRegister for what is no file of numbers, and WrongEntry."""
    lines = Lines(country.upper(), column)
    new = known = 0

    async def keep(found: array[int]) -> None:
        nonlocal new, known
        for begin in range(0, len(found), AT_ONCE):
            rows = await put(
                db, found[begin : begin + AT_ONCE], scope=scope, by=by, company=company, campaign=campaign, reason=reason,
                expires=expires,
            )  # fmt: skip
            new += sum(row["new"] for row in rows)
            known += sum(not row["new"] for row in rows)

    async for part in parts:
        await keep(await asyncio.to_thread(lines.numbers, part))
    await keep(lines.numbers(b"", last=True))
    read = lines.read
    if not new and not known:
        raise WrongRegister("the file holds no numbers" + (f": {read.samples[0]}" if read.samples else ""))
    return Taken(new=new, known=known, refused=read.refused, samples=read.samples)
