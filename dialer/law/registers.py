"""National do-not-call registers: a file of millions of numbers, streamed in; the new edition replaces the old at once.

Memory is flat: lines are read in portions, numbers go to a table of the session by COPY in the order of the file, and come
back sorted, ten thousand numbers at a time.
"""

from __future__ import annotations

import asyncio
import re
import sys
from array import array
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, BinaryIO

import phonenumbers

from cti.database import connection
from dialer.law.do_not_call import RegisterEdition
from dialer.law.reopening import reopen

if TYPE_CHECKING:
    from cti.database import Connection

BLOCK = 10_000
MANY = 600
"""Numbers of a block from which bits take less room than a list of them."""

PORTION = 1 << 22
"""Bytes of the file that are read at once."""

SAMPLES = 20
"""Refused lines that are shown."""

SHRINKS = 0.8
"""An edition with fewer of the former's numbers than this share is taken for a part of one."""

SMALL = 1_000
"""Numbers of an edition up to which it may shrink as it likes."""

_LOCK = 0x0C71_0D15


class WrongRegister(ValueError):
    """The file or what is said of it cannot be right; the message says what to do. The former edition stays in force."""


@dataclass(slots=True, kw_only=True)
class Read:
    """What was found in the file so far. `samples`: the first refused lines' numbers and why."""

    lines: int = 0
    refused: int = 0
    samples: list[str] = field(default_factory=list)


class Lines:
    """Reads numbers out of portions of a file, one a line, also as `212,5550123`; a heading is passed over.

    `country` ISO 3166-1: numbers without + or 00 are of that country. `column`: which one holds the number, from 1; 0: the
    first that could be one.
    """

    def __init__(self, country: str, column: int = 0) -> None:
        code = phonenumbers.country_code_for_region(country)
        metadata = phonenumbers.PhoneMetadata.metadata_for_region(country, None)
        if not code or metadata is None:
            raise WrongRegister(
                f"{country!r} is no country with telephone numbers: two letters, like US or GB"
            )
        general = metadata.general_desc
        self._code = str(code).encode()
        self._trunk = (metadata.national_prefix or "").encode()
        self._lengths = frozenset(general.possible_length) if general is not None else frozenset(range(5, 14))
        self._column = column
        self._rest = b""
        self.read = Read()

    def numbers(self, portion: bytes, *, last: bool = False) -> array[int]:
        """Returns the numbers of the lines that end in this portion; the rest waits for the next."""
        text = self._rest + portion
        if last:
            self._rest = b""
        else:
            end = max(text.rfind(b"\n"), text.rfind(b"\r"))
            text, self._rest = text[: end + 1], text[end + 1 :]
            if len(self._rest) > 100_000:
                raise WrongRegister("a line of more than 100,000 characters: this is no file of numbers")
        found: array[int] = array("q")
        for line in text.splitlines():
            self.read.lines += 1
            number = self._number(line)
            if number:
                found.append(number)
            elif line.strip() and not (self.read.lines == 1 and not _MANY_DIGITS.search(line)):
                self.read.refused += 1
                if len(self.read.samples) < SAMPLES:
                    self.read.samples.append(f"line {self.read.lines}: no number of this country")
        return found

    def _number(self, line: bytes) -> int:
        """The number in E.164 as an integer; 0 if there is none."""
        if not line.isdigit():
            line = self._cell(line)
            international = line.startswith((b"+", b"00"))
            digits = line.translate(None, b" +-./()\t")
            if not digits.isdigit():
                return 0
            if international:
                digits = digits.lstrip(b"0")
                return int(digits) if 7 <= len(digits) <= 15 else 0
            line = digits
        if line.startswith(b"00") and len(line) > 10:
            return int(line)
        trunk = self._trunk
        if trunk and line.startswith(trunk) and len(line) - len(trunk) in self._lengths:
            line = line[len(trunk) :]
        elif len(line) not in self._lengths:
            code = self._code
            if not (line.startswith(code) and len(line) - len(code) in self._lengths):
                return 0
            return int(line)
        return int(self._code + line)

    def _cell(self, line: bytes) -> bytes:
        cells = [cell.strip(b" \"'\t\xef\xbb\xbf") for cell in _SEPARATORS.split(line)]
        if self._column:
            return cells[self._column - 1] if len(cells) >= self._column else b""
        area, rest = (*cells, b"", b"")[:2]
        if (
            2 <= len(area) < 6
            and area.isdigit()
            and rest.isdigit()
            and len(area) + len(rest) in self._lengths
        ):
            return area + rest
        return next((cell for cell in cells if _MANY_DIGITS.search(cell)), b"")


_SEPARATORS = re.compile(rb"[,;\t|]")
_MANY_DIGITS = re.compile(rb"(?:[0-9][ ./()-]{0,2}){5}")


async def load_edition(
    dsn: str,
    file: BinaryIO,
    *,
    register: str,
    country: str,
    edition: date,
    by: str,
    column: int = 0,
    smaller: bool = False,
    progress: Callable[[int], None] = lambda _read: None,
) -> tuple[RegisterEdition, Read]:
    """Loads a file as the new edition of a register and puts it in force in one moment; the old one is then deleted.

    `progress` is told the bytes read so far. Raises WrongRegister, when it is older than the one in force,
    a file without numbers, or mostly of lines that are none, or with far fewer numbers than the one in force (a download
    that broke off, or a file of changes) unless it is said to be `smaller`; the edition before then stays. Two loads of one
    register: the second waits.
    """
    lines = Lines(country, column)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", register):
        raise WrongRegister("register: small letters, digits and hyphens, like us-national")
    async with connection(dsn, name="cti register", statement_timeout="0") as db:
        await db.execute("SELECT pg_advisory_lock($1, hashtext($2))", _LOCK, register)
        newest = await db.fetchrow(
            "SELECT edition, numbers FROM do_not_call_editions WHERE register = $1 AND state = 'active'",
            register,
        )
        if newest is not None and newest["edition"] > edition:
            raise WrongRegister(f"the edition of {newest['edition']} is in force: {edition} is older")
        await _forget_unfinished(db, register)
        await db.execute("CREATE TEMPORARY TABLE incoming (number bigint NOT NULL)")
        id = await db.fetchval(
            """INSERT INTO do_not_call_editions (register, country, edition, loaded_by) VALUES ($1, $2, $3, $4)
               RETURNING id""",
            register,
            country,
            edition,
            by,
        )
        try:
            await _take_in(db, file, lines, progress)
            count = await _write_blocks(db, id)
            _sound(lines.read, count, country)
            if newest is not None and not smaller:
                _whole(count, newest["numbers"], newest["edition"])
            return await _put_in_force(db, id, register, count, lines.read.refused), lines.read
        except BaseException:
            with suppress(Exception):  # what is left is removed before the next edition is loaded
                await _forget_unfinished(db, register)
            raise


def _sound(read: Read, count: int, country: str) -> None:
    """Raises WrongRegister for a file that cannot be a register."""
    if not count:
        raise WrongRegister("the file holds no numbers")
    if read.refused > read.lines / 2:
        told = "; ".join(read.samples[:3])
        raise WrongRegister(f"{read.refused:,} of {read.lines:,} lines hold no number of {country}: {told}")


def _whole(count: int, former: int, edition: date) -> None:
    """Raises WrongRegister for a file that is probably a part of an edition."""
    if former > SMALL and count < former * SHRINKS:
        raise WrongRegister(
            f"the file holds {count:,} numbers and the edition of {edition}, which is in force, {former:,}: is it a part of "
            "one, or the changes only? If the register is so much smaller now, say --smaller"
        )


async def _forget_unfinished(db: Connection, register: str) -> None:
    await db.execute(
        """DELETE FROM do_not_call_blocks WHERE edition IN
           (SELECT id FROM do_not_call_editions WHERE register = $1 AND state = 'loading')""",
        register,
    )
    await db.execute("DELETE FROM do_not_call_editions WHERE register = $1 AND state = 'loading'", register)


async def _take_in(db: Connection, file: BinaryIO, lines: Lines, progress: Callable[[int], None]) -> None:
    """Reads the file, portion by portion, off the loop."""
    done = 0
    while True:
        portion = await asyncio.to_thread(file.read, PORTION)
        found = await asyncio.to_thread(lines.numbers, portion, last=not portion)
        if found:
            await db.copy_to_table("incoming", source=_pgcopy(found), columns=["number"], format="binary")
        if not portion:
            return
        done += len(portion)
        progress(done)


async def _pgcopy(numbers: array[int]) -> AsyncIterator[bytes]:
    """The numbers as PostgreSQL's binary COPY has them: two bytes of column count, four of length, eight of number."""
    yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
    head = b"\x00\x01\x00\x00\x00\x08"
    for begin in range(0, len(numbers), 50_000):
        part = numbers[begin : begin + 50_000]
        if sys.byteorder == "little":
            part.byteswap()
        raw = part.tobytes()
        yield b"".join([head + raw[at : at + 8] for at in range(0, len(raw), 8)])
    yield b"\xff\xff"


async def _write_blocks(db: Connection, edition: int) -> int:
    """Makes blocks of what was taken in, sorted by the database; returns how many different numbers there are."""
    count = 0

    async with db.transaction():
        await db.execute("SET LOCAL work_mem = '64MB'")
        cursor = await db.cursor(
            """SELECT number / 10000 AS block, array_agg(DISTINCT (number % 10000)::smallint) AS few
               FROM incoming GROUP BY 1""",
        )
        while rows := await cursor.fetch(2_000):
            blocks = [(edition, row["block"], *_packed(row["few"])) for row in rows]
            count += sum(len(row["few"]) for row in rows)
            # A cursor is open: rows go in by one statement of this transaction.
            await db.execute(
                """INSERT INTO do_not_call_blocks (edition, block, few, bits)
                   SELECT $1, block, few::smallint[], bits
                   FROM unnest($2::bigint[], $3::text[], $4::bytea[]) AS b (block, few, bits)""",
                edition,
                [block for _, block, _, _ in blocks],
                [few for _, _, few, _ in blocks],
                [bits for _, _, _, bits in blocks],
            )
    await db.execute("DROP TABLE incoming")
    return count


def _packed(numbers: Iterable[int]) -> tuple[str | None, bytes | None]:
    """A block's numbers: as an array's text where they are few, else as bits."""
    listed = list(numbers)
    if len(listed) < MANY:
        return "{" + ",".join(map(str, listed)) + "}", None
    bits = bytearray(BLOCK // 8)
    for number in listed:
        bits[number >> 3] |= 1 << (number & 7)
    return None, bytes(bits)


async def _put_in_force(db: Connection, id: int, register: str, count: int, refused: int) -> RegisterEdition:
    async with db.transaction():
        await db.execute(
            "UPDATE do_not_call_editions SET state = 'replaced' WHERE register = $1 AND state = 'active'",
            register,
        )
        row = await db.fetchrow(
            """UPDATE do_not_call_editions SET state = 'active', numbers = $2, refused = $3, loaded = now()
               WHERE id = $1 RETURNING *""",
            id,
            count,
            refused,
        )
    assert row is not None
    for old in await db.fetch(
        "SELECT id FROM do_not_call_editions WHERE register = $1 AND state = 'replaced' ORDER BY id", register
    ):
        await db.execute("DELETE FROM do_not_call_blocks WHERE edition = $1", old["id"])
    await db.execute("ANALYZE do_not_call_blocks")
    await reopen(db)
    return RegisterEdition(**dict(row))
