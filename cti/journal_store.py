"""The journal's tables: who may write, what has been written, reading it back. Each function is one conversation.

There is one writer. Its right is a lease with a fencing token: a batch commits only while the token is its own, so a
process that was frozen, or cut off, and replaced meanwhile cannot write a row, whatever it wakes up in the middle of.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from cti.bus import Envelope

if TYPE_CHECKING:
    from cti.database import Connection, PoolConnection, Queryable

LEAP = 1_000_000
"""How far the numbers leap after an unclean end, at least."""

LEAP_SECONDS = 20
"""One more leap for each such time since the dead process was last heard of: it cannot publish faster than that
(50,000 facts a second), so none of its numbers is ever given out a second time."""

COLUMNS = ("seq", "at", "type", "call", "topics", "data")


class JournalInUse(Exception):
    """Another server writes this journal; the message names it."""


class Fenced(Exception):
    """Another server has taken the journal over: this process may not write to it any more."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write, and where the numbers go on: facts up to `after` are written, the next number is `base` + 1."""

    token: int
    epoch: str
    after: int
    base: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Numbers strictly between the two may have been published by a process that did not live to write them down."""

    after: int
    base: int


@dataclass(frozen=True, slots=True)
class Gap:
    """`lost` facts between the numbers `first` and `last`, both included, are not in the journal."""

    first: int
    last: int
    lost: int

    def joined(self, other: Gap | None) -> Gap:
        """Returns the one gap that covers both."""
        if other is None:
            return self
        return Gap(min(self.first, other.first), max(self.last, other.last), self.lost + other.lost)


@dataclass(frozen=True, slots=True)
class Past:
    """What bounds a complete answer: holes in order, the end of the last gap, the oldest kept number."""

    holes: tuple[Hole, ...]
    last_gap: int
    kept_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFact:
    """A fact as the journal keeps it."""

    seq: int
    at: datetime
    type: str
    call: str | None
    topics: tuple[str, ...]
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that writes or wrote: `name` for people, `process` to tell on its own machine whether it still runs."""

    name: str
    process: str

    @classmethod
    def me(cls) -> Holder:
        """This process. `process` is empty where /proc does not tell."""
        name = f"{socket.gethostname()}, process {os.getpid()}"
        started = _started(os.getpid())
        machine = _machine()
        return cls(name, f"{machine} {os.getpid()} {started}" if started and machine else "")

    @property
    def surely_dead(self) -> bool:
        """Whether it ran on this machine (same boot, same process namespace) and does no more; False when not known."""
        machine, _, rest = self.process.partition(" ")
        pid, _, started = rest.partition(" ")
        if not pid.isdecimal() or machine != _machine():
            return False
        return _started(int(pid)) != started


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """The time a running process started, in the kernel's ticks; empty when there is none (a zombie runs no more)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in ("Z", "X") else fields[18]
    except (OSError, ValueError, IndexError):
        return ""


async def claim(conn: Connection, me: Holder, lease: float) -> Claim | tuple[Holder, float, datetime]:
    """Takes the right to write if it is free; else returns who has it, the seconds it has left, and until when.

    Free is a journal that was closed, whose lease has run out, or whose holder is surely dead. Tells an unclean end
    from a clean one and leaps over the numbers that the former process may have published.
    """
    async with conn.transaction():
        row = await conn.fetchrow(
            """SELECT holder, process, expires, clean, published, epoch::text AS epoch, origin,
                      extract(epoch FROM expires - clock_timestamp())::float8 AS remaining,
                      greatest(extract(epoch FROM clock_timestamp() - renewed), 0)::float8 AS silent,
                      (SELECT system_identifier::text FROM pg_control_system()) || '/'
                        || (SELECT timeline_id::text FROM pg_control_checkpoint()) || '/'
                        || (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS here
               FROM journal_state FOR UPDATE"""
        )
        assert row is not None, "the migration puts the row there"
        former = Holder(row["holder"], row["process"])
        if not row["clean"] and row["remaining"] > 0 and not former.surely_dead:
            return former, row["remaining"], row["expires"]
        written = await conn.fetchval(
            """SELECT greatest((SELECT max(seq) FROM journal), (SELECT max(last) FROM journal_gaps),
                               (SELECT max(base_seq) FROM journal_boots), (SELECT first - 1 FROM journal_kept), 0)"""
        )
        if row["clean"]:
            after = base = max(written, row["published"])
        else:
            after = written
            base = max(written, row["published"]) + LEAP * (1 + int(row["silent"] // LEAP_SECONDS))
        claimed = await conn.fetchrow(
            """UPDATE journal_state SET
                   token = token + 1, holder = $1, process = $2, clean = false, published = $3, renewed = now(),
                   expires = clock_timestamp() + make_interval(secs => $4),
                   epoch = CASE WHEN origin IS DISTINCT FROM $5 AND origin IS NOT NULL
                                THEN gen_random_uuid() ELSE epoch END,
                   origin = $5
               RETURNING token, epoch::text AS epoch""",
            me.name,
            me.process,
            base,
            lease,
            row["here"],
        )
        assert claimed is not None
        await conn.execute(
            "INSERT INTO journal_boots (base_seq, after_seq, holder) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            base,
            after,
            me.name,
        )
        return Claim(claimed["token"], claimed["epoch"], after, base)


async def renew(conn: Connection, token: int, lease: float, published: int, *, retake: bool = False) -> int:
    """Prolongs the lease and returns its token; raises Fenced if it is another's by now.

    `retake`, after a lost connection, changes the token, so that nothing which the old connection may still have under
    way can commit afterwards; waits for what is just committing.
    """
    renewed = await conn.fetchval(
        """UPDATE journal_state SET token = token + $4::int, published = greatest(published, $3), renewed = now(),
                  expires = clock_timestamp() + make_interval(secs => $2)
           WHERE token = $1 RETURNING token""",
        token,
        lease,
        published,
        int(retake),
    )
    if renewed is None:
        raise Fenced
    return int(renewed)


async def release(conn: Connection, token: int, published: int) -> None:
    """Gives the right back: everything up to `published` is in the journal or its gaps. Raises Fenced."""
    done = await conn.fetchval(
        """UPDATE journal_state SET clean = true, published = $2, renewed = now(), expires = now()
           WHERE token = $1 RETURNING true""",
        token,
        published,
    )
    if done is None:
        raise Fenced


async def written_up_to(conn: Connection) -> int:
    """Returns the highest number in the journal, 0 when it is empty."""
    return int(await conn.fetchval("SELECT coalesce(max(seq), 0) FROM journal"))


async def make_room(conn: Connection, first: int, last: int) -> int:
    """Makes the partitions that these numbers and those soon to come need; returns the first number without room."""
    return int(await conn.fetchval("SELECT journal_make_room($1, $2)", first, last))


async def write(conn: Connection, token: int, lease: float, rows: bytes, first: int, published: int) -> None:
    """Writes lines made by `row` (the first's number is `first`) and prolongs the lease, all or nothing. Raises Fenced."""

    async def source() -> Any:
        yield rows

    async with conn.transaction():
        await conn.copy_to_table("journal", source=source(), columns=COLUMNS, format="text")
        # After COPY, so that nobody frozen in the middle of sending rows holds the lease's row.
        await renew(conn, token, lease, published)
        await conn.execute(
            """INSERT INTO journal_days (day, first) SELECT (now() AT TIME ZONE 'UTC')::date, $1
               WHERE NOT EXISTS (SELECT FROM journal_days WHERE day = (now() AT TIME ZONE 'UTC')::date)
               ON CONFLICT DO NOTHING""",
            first,
        )


async def write_gap(conn: Connection, token: int, lease: float, gap: Gap, published: int) -> None:
    """Notes a gap. Raises Fenced."""
    async with conn.transaction():
        await renew(conn, token, lease, published)
        await conn.execute(
            """INSERT INTO journal_gaps (first, last, lost) VALUES ($1, $2, $3)
               ON CONFLICT (first) DO UPDATE SET last = greatest(journal_gaps.last, excluded.last),
                                                 lost = greatest(journal_gaps.lost, excluded.lost)""",
            gap.first,
            gap.last,
            gap.lost,
        )


async def read_past(conn: Queryable) -> Past:
    """Reads what bounds every resume."""
    boots = await conn.fetch(
        "SELECT after_seq, base_seq FROM journal_boots WHERE base_seq > after_seq + 1 ORDER BY base_seq"
    )
    row = await conn.fetchrow(
        "SELECT (SELECT coalesce(max(last), 0) FROM journal_gaps) AS gap, (SELECT first FROM journal_kept) AS kept"
    )
    assert row is not None
    return Past(tuple(Hole(r["after_seq"], r["base_seq"]) for r in boots), row["gap"], row["kept"])


async def kept_from(conn: Queryable) -> int:
    """Returns the number below which facts have been deleted by age."""
    return int(await conn.fetchval("SELECT first FROM journal_kept"))


READ_NEWEST = "SELECT seq, at, type, topics, data FROM journal ORDER BY seq DESC LIMIT $1"
READ_TOPICS = """SELECT seq, at, type, data FROM journal
                 WHERE seq > $1 AND seq <= $2 AND topics && $3::text[] ORDER BY seq LIMIT $4"""
READ_CALL = "SELECT seq, at, type, call, topics, data FROM journal WHERE call = $1 ORDER BY seq LIMIT $2"
READ_SINCE = (
    "SELECT seq, at, type, call, topics, data FROM journal WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3"
)
READ_SINCE_TYPES = """SELECT * FROM (SELECT seq, at, type, call, topics, data FROM journal
                                     WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $5) AS near
                      WHERE type = ANY($4::text[]) ORDER BY seq LIMIT $3"""
READ_WINDOW_END = "SELECT seq FROM journal WHERE seq > $1 AND seq <= $2 ORDER BY seq OFFSET $3 - 1 LIMIT 1"


async def read_newest(conn: Queryable, count: int) -> list[tuple[int, frozenset[str], bytes]]:
    """Reads the newest rows as (number, topics, frame), oldest first."""
    rows = await conn.fetch(READ_NEWEST, count)
    return [
        (row["seq"], frozenset(row["topics"]), frame(row["seq"], row["at"], row["type"], row["data"]))
        for row in reversed(rows)
    ]


async def read_topics(
    conn: Connection | PoolConnection, after: int, up_to: int, topics: Collection[str], limit: int
) -> list[bytes]:
    """Reads the frames of the facts with after < number <= up_to that one of the topics may see, at most `limit`."""
    frames: list[bytes] = []
    async with conn.transaction(readonly=True):
        # By cursor, so that many rows do not hold up the event loop.
        async for row in conn.cursor(READ_TOPICS, after, up_to, list(topics), limit, prefetch=200):
            frames.append(frame(row["seq"], row["at"], row["type"], row["data"]))
    return frames


async def read_call(conn: Queryable, call: str, limit: int) -> list[JournalFact]:
    """Reads the facts of one call, in order."""
    return [fact_of(row) for row in await conn.fetch(READ_CALL, call, limit)]


async def read_since(
    conn: Queryable, after: int, up_to: int, limit: int, types: Collection[str] | None, window: int
) -> tuple[list[JournalFact], int]:
    """Reads facts with after < number <= up_to, at most `limit`, and the number up to which nothing has been left out.

    With `types`, at most `window` rows are looked through, so that a rare type never means reading the whole journal.
    """
    if types is None:
        facts = [fact_of(row) for row in await conn.fetch(READ_SINCE, after, up_to, limit)]
        return facts, facts[-1].seq if len(facts) == limit else up_to
    facts = [
        fact_of(row) for row in await conn.fetch(READ_SINCE_TYPES, after, up_to, limit, list(types), window)
    ]
    if len(facts) == limit:
        return facts, facts[-1].seq
    end = await conn.fetchval(READ_WINDOW_END, after, up_to, window)
    return facts, end if end is not None else up_to


def fact_of(row: asyncpg.Record) -> JournalFact:
    """Turns a row of the table into a fact."""
    return JournalFact(
        seq=row["seq"],
        at=row["at"],
        type=row["type"],
        call=row["call"],
        topics=tuple(row["topics"]),
        data=msgspec.json.decode(row["data"]),
    )


def frame(seq: int, at: datetime, type_: str, data: str) -> bytes:
    """Returns the frame exactly as it was sent when the fact was published."""
    when = msgspec.json.encode(at.astimezone(UTC))
    return b'{"seq":%d,"type":"%s","at":%s,"data":%s}' % (seq, type_.encode(), when, data.encode())


# --- a row in the text form of COPY ---------------------------------------------------------------------------------

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_SPECIAL = re.compile(r"[\0-\x1f\\\"]")
_COPY_ESCAPES = {0: "\ufffd", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}


def _field(text: str) -> bytes:
    if _SPECIAL.search(text):
        text = text.translate(_COPY_ESCAPES)
    return text.encode("utf-8", "replace")


@lru_cache(maxsize=8192)
def _topics(topics: frozenset[str]) -> bytes:
    quoted = ('"' + topic.replace("\\", "\\\\").replace('"', '\\"') + '"' for topic in sorted(topics))
    return _field("{" + ",".join(quoted) + "}")


def without_nul(data: bytes) -> bytes:
    """Puts U+FFFD in place of each NUL in a JSON text, which PostgreSQL's json functions refuse; else the same object."""
    if b"\\u0000" not in data:
        return data
    return _NUL.sub(lambda found: found[1] + "\N{REPLACEMENT CHARACTER}".encode(), data)


def row(envelope: Envelope, data: bytes) -> bytes:
    """Returns the line that COPY takes for an envelope whose cleaned data is `data`."""
    fact, frame = envelope.fact, envelope.frame
    call = getattr(fact, "call", None)
    at = frame.index(b'"at":"') + 6  # it comes before the data, see cti.bus.serialise
    return b"%d\t%s\t%s\t%s\t%s\t%s\n" % (
        envelope.seq,
        frame[at : frame.index(b'"', at)],
        fact.TYPE.encode(),
        b"\\N" if call is None else _field(call),
        _topics(envelope.topics),
        data.replace(b"\\", b"\\\\") if b"\\" in data else data,
    )


def journal_fact(envelope: Envelope) -> JournalFact:
    """Turns an envelope that is not yet written into what reading it back will give."""
    return JournalFact(
        seq=envelope.seq,
        at=envelope.fact.at,
        type=envelope.fact.TYPE,
        call=getattr(envelope.fact, "call", None),
        topics=tuple(sorted(envelope.topics)),
        data=msgspec.json.decode(without_nul(envelope.data)),
    )
