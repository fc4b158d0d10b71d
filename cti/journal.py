"""The journal: every published fact to PostgreSQL, off the hot path, and back from it for a client that was away.

It never makes the caller wait and never fails in its face. While the database is away facts are kept in memory; when
that is full the oldest are given up and a gap is noted, so that nobody is ever told a lie about what is complete.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import structlog

from cti import journal_store as store
from cti.bus import Envelope
from cti.database import AWAY, DatabaseUnavailable, connect, connection, explain
from cti.journal_ring import Ring
from cti.journal_store import Fenced, Gap, Holder, JournalFact, JournalInUse, Past

if TYPE_CHECKING:
    from cti.database import Connection, Pool

__all__ = ["Journal", "JournalFact", "JournalInUse", "Page", "Resumed"]

T = TypeVar("T")

log = structlog.get_logger(__name__)

_SLICE = 50
"""Rows made ready between two turns of the event loop."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_WRITE_TIMEOUT = 20.0
_READ_TIMEOUT = 5.0


_REJECTED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""What PostgreSQL says of a row that it will never take, however often it is sent."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """All frames a client missed, in order; go on with the first fact whose number is above `seq`."""

    frames: list[bytes]
    seq: int


@dataclass(frozen=True, slots=True)
class Page:
    """Facts in order; read on with `seq`, which may be above the last fact's when others were looked through."""

    facts: list[JournalFact]
    seq: int


class Journal:
    """Writes what the bus publishes and reads it back.

    `buffer_max`: facts kept while the database is away. `ring`: facts kept to answer a resume without the database.
    `lease`: seconds after which another server may take over from one that is no longer heard of. `on_gap(first, last,
    lost)` is called when facts were given up; `on_fenced(why)` when another server has taken the journal over: this
    one must stop, as nothing it publishes is written any more; `on_trouble()` when writing begins to fail.
    """

    def __init__(
        self,
        dsn: str,
        *,
        buffer_max: int,
        flush_every: float = 0.05,
        batch_max: int = 2000,
        on_gap: Callable[[int, int, int], None] = lambda first, last, lost: None,
        on_fenced: Callable[[str], None] = lambda why: None,
        on_trouble: Callable[[], None] = lambda: None,
        ring: int = 20_000,
        lease: float = 10.0,
        scan_max: int = 200_000,
    ) -> None:
        self._dsn = dsn
        self._buffer_max = buffer_max
        self._flush_every = flush_every
        self._batch_max = batch_max
        self._on_gap = on_gap
        self._on_fenced = on_fenced
        self._on_trouble = on_trouble
        self._ring_max = ring
        self._lease = lease
        self._scan_max = scan_max

        self._buffer: deque[Envelope] = deque()
        self._in_flight: list[Envelope] = []
        self._gap: Gap | None = None
        self._ring = Ring(ring)
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._moved = asyncio.Event()

        self._conn: Connection | None = None
        self._reader: Pool | None = None
        self._writer: asyncio.Task[None] | None = None
        self._token = 0
        self._room = 0
        self._size = batch_max
        self._base = 0
        self._last_row = 0
        self._old_gap = 0
        self._past = Past((), 0, 0)
        self._hole_ends: list[int] = []
        self._progress = 0.0

        self.epoch = ""
        self.seq = 0
        self.flushed_seq = 0
        self.dropped = 0
        self.rejected = 0
        self.cleaned = 0
        self.fenced = False
        self.connected = False

    # --- figures ----------------------------------------------------------------------------------------------------

    @property
    def buffered(self) -> int:
        """How many facts are not yet written."""
        return len(self._in_flight) + len(self._buffer)

    @property
    def lag(self) -> float:
        """Seconds since something was last written while facts wait for it; 0 when none waits."""
        return time.monotonic() - self._progress if self.buffered else 0.0

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Takes the right to write and returns the number to go on from: the next fact is that plus one.

        Raises JournalInUse when another server is alive and writes; a dead one's right is taken as soon as its death is
        certain: at once on the same machine, after its lease from another. Raises DatabaseUnavailable.
        """
        conn = await self._connect()
        try:
            claim = await self._claim(conn)
            self._past = await store.read_past(conn)
            newest = await store.read_newest(conn, self._ring_max + 1)
            self._room = await store.make_room(conn, claim.base + 1, claim.base + 1)
        except BaseException as error:
            conn.terminate()
            if isinstance(error, asyncpg.PostgresError | OSError):
                raise explain(error, self._dsn) from error
            raise
        floor = newest.pop(0)[0] if len(newest) > self._ring_max else max(0, self._past.kept_from - 1)
        self._ring = Ring(self._ring_max, floor=floor, frames=newest)
        self._last_row = newest[-1][0] if newest else 0
        self._old_gap = self._past.last_gap
        self._hole_ends = [hole.base for hole in self._past.holes]
        self._conn, self._token, self.epoch, self._base = conn, claim.token, claim.epoch, claim.base
        self.seq = self.flushed_seq = claim.base
        self.connected = True
        self._reader = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=2,
            timeout=_READ_TIMEOUT,
            command_timeout=_READ_TIMEOUT,
            server_settings={"application_name": "cti journal reader", "timezone": "UTC", "jit": "off"},
        )
        self._writer = asyncio.create_task(self._write_until_closed(), name="journal writer")
        log.info("journal open", after=claim.after, continues_at=claim.base, clean=claim.after == claim.base)
        return claim.base

    async def _connect(self) -> Connection:
        return await connect(
            self._dsn,
            name="cti journal",
            jit="off",
            statement_timeout="15000",
            lock_timeout="5000",
            idle_in_transaction_session_timeout="5000",
        )

    async def _claim(self, conn: Connection) -> store.Claim:
        me = Holder.me()
        seen = None
        while True:
            answer = await store.claim(conn, me, self._lease)
            if isinstance(answer, store.Claim):
                return answer
            holder, remaining, expires = answer
            if seen is not None and expires > seen:
                raise JournalInUse(
                    f"Another server ({holder.name}) writes the journal of this database: "
                    "stop it first, or give this one a database of its own."
                )
            if seen is None:
                log.warning(
                    "waiting for the journal's lease", holder=holder.name, seconds=round(remaining, 1)
                )
            seen = expires
            await asyncio.sleep(min(remaining + 0.01, 0.25))

    async def close(self, *, timeout: float = 10.0) -> None:
        """Writes down what is left, for at most `timeout` seconds, and gives up the right to write. May be called twice."""
        self._closing.set()
        self._wake.set()
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await asyncio.wait([writer])
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
            await self._release()
        conn, self._conn = self._conn, None
        self.connected = False
        if conn is not None:
            with suppress(Exception):
                await conn.close(timeout=2)
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.terminate()

    async def _release(self) -> None:
        if self.fenced:
            return
        if self.buffered or self._gap is not None or self._conn is None:
            log.error("journal closed with facts not written", lost=self.buffered)
            return
        try:
            async with asyncio.timeout(5):
                await store.release(self._conn, self._token, self.seq)
        except Exception as error:
            log.error("journal not closed cleanly", why=str(explain(error, self._dsn)))

    # --- writing ----------------------------------------------------------------------------------------------------

    def carry(self, envelope: Envelope) -> None:
        """Takes an envelope from the bus; returns at once."""
        seq = envelope.seq
        self.seq = seq
        self._ring.add(seq, envelope.topics, envelope.frame)
        if self.fenced:
            return
        buffer = self._buffer
        if len(buffer) >= self._buffer_max:
            lost = buffer.popleft().seq
            self.dropped += 1
            gap = self._gap
            self._gap = Gap(lost, lost, 1) if gap is None else Gap(gap.first, lost, gap.lost + 1)
        elif not buffer:
            if not self._in_flight:
                self._progress = time.monotonic()
            self._wake.set()
        buffer.append(envelope)

    async def flushed(self, seq: int, *, timeout: float = 10.0) -> None:
        """Waits until the fact with this number is written, or known to be lost. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while self.flushed_seq < seq:
                self._moved.clear()
                await self._moved.wait()

    async def _write_until_closed(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                if self._conn is None:
                    self._conn = await self._reconnect()
                    self._set_connected(True, "")
                    pause = _FIRST_PAUSE
                if await self._write_some():
                    pause = _FIRST_PAUSE
                elif self._closing.is_set():
                    return
                else:
                    await self._rest()
            except Fenced:
                self._give_up()
                return
            except Exception as error:
                self._forget_connection()
                if not isinstance(error, AWAY):
                    log.exception("journal writer failed")
                self._set_connected(False, str(explain(error, self._dsn)))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._closing.wait()
                        await asyncio.sleep(_FIRST_PAUSE)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _set_connected(self, connected: bool, why: str) -> None:
        if connected and not self.connected:
            log.info("journal writes again", buffered=self.buffered)
        elif not connected and self.connected:
            log.error("journal cannot write; facts are kept in memory", why=why, room=self._buffer_max)
            self._tell(self._on_trouble)
        self.connected = connected

    def _forget_connection(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.terminate()

    def _give_up(self) -> None:
        self.fenced = True
        self._forget_connection()
        self._set_connected(False, "another server has taken the journal over")
        self._in_flight.clear()
        self._buffer.clear()
        why = "Another server has taken over the journal of this database; this one must stop."
        log.critical("journal taken over by another server")
        self._tell(self._on_fenced, why)

    @staticmethod
    def _tell(listener: Callable[..., None], *args: object) -> None:
        try:
            listener(*args)
        except Exception:
            log.exception("journal listener failed")

    async def _reconnect(self) -> Connection:
        """Connects, makes sure that nothing of the lost connection can still commit, and learns what it had written."""
        conn = await self._connect()
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT):
                self._token = await store.renew(conn, self._token, self._lease, self.seq, retake=True)
                written = await store.written_up_to(conn)
                kept = await store.kept_from(conn)
                self._room = 0
        except BaseException:
            conn.terminate()
            raise
        if written < self._last_row and self._last_row >= kept:
            # The server came back without rows it had confirmed: a standby took over, or its disk lied.
            self._lose(Gap(written + 1, self._last_row, self._last_row - written))
            log.error("the database lost facts it had confirmed", first=written + 1, last=self._last_row)
        self._last_row = written
        self._settle([envelope for envelope in self._in_flight if envelope.seq <= written])
        return conn

    async def _rest(self) -> None:
        """Waits for facts, and then a moment for more of them; keeps the lease alive meanwhile."""
        self._wake.clear()
        if self._buffer or self._gap is not None:
            self._wake.set()
        try:
            async with asyncio.timeout(self._lease / 3):
                await self._wake.wait()
        except TimeoutError:
            assert self._conn is not None
            async with asyncio.timeout(_WRITE_TIMEOUT):
                await store.renew(self._conn, self._token, self._lease, self.seq)
            return
        if len(self._buffer) < self._batch_max and not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._flush_every):
                    await self._closing.wait()

    async def _write_some(self) -> bool:
        """Writes the oldest of what waits: the batch under way, then the gap behind it, then the next batch."""
        if self._in_flight:
            await self._write_batch()
            return True
        if self._gap is not None:
            await self._write_gap()
            return True
        if self._buffer:
            count = min(self._batch_max, len(self._buffer))
            self._in_flight = [self._buffer.popleft() for _ in range(count)]
            await self._write_batch()
            # A trickle is written in one batch each flush_every, not in a batch a fact.
            return bool(self._in_flight) or count == self._batch_max or self._closing.is_set()
        return False

    async def _write_batch(self) -> None:
        assert self._conn is not None
        batch = self._in_flight[: self._size]
        first, last = batch[0].seq, batch[-1].seq
        try:
            rows = await self._rows(batch)
            async with asyncio.timeout(_WRITE_TIMEOUT):
                if last >= self._room:
                    self._room = await store.make_room(self._conn, first, last)
                await store.write(self._conn, self._token, self._lease, rows, first, self.seq)
        except asyncpg.UniqueViolationError:
            raise  # written already: connecting again finds out how far
        except (*_REJECTED, _Unwritable) as error:
            if len(batch) > 1:
                self._size = max(1, len(batch) // 2)
                return
            self.rejected += 1
            log.error("fact rejected by the database", fact=batch[0].fact.TYPE, why=type(error).__name__)
            self._lose(Gap(first, first, 1))
            self._settle(batch)
            return
        self._size = min(self._batch_max, self._size * 2)
        self._last_row = last
        self._settle(batch)

    async def _rows(self, batch: Sequence[Envelope]) -> bytes:
        parts: list[bytes] = []
        for start in range(0, len(batch), _SLICE):
            if start:
                await asyncio.sleep(0)
            for envelope in batch[start : start + _SLICE]:
                try:
                    data = store.without_nul(envelope.data)
                    if data is not envelope.data:
                        self.cleaned += 1
                    parts.append(store.row(envelope, data))
                except Exception as error:
                    raise _Unwritable from error
        return b"".join(parts)

    def _settle(self, done: Sequence[Envelope]) -> None:
        if done:
            del self._in_flight[: len(done)]
            self._progress = time.monotonic()
            self._reached(done[-1].seq)

    def _reached(self, seq: int) -> None:
        self.flushed_seq = max(self.flushed_seq, seq)
        self._moved.set()

    def _lose(self, gap: Gap) -> None:
        self._gap = gap.joined(self._gap)

    async def _write_gap(self) -> None:
        assert self._conn is not None
        gap, self._gap = self._gap, None
        assert gap is not None
        self._past = replace(self._past, last_gap=max(self._past.last_gap, gap.last))
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT):
                await store.write_gap(self._conn, self._token, self._lease, gap, self.seq)
        except BaseException:
            self._lose(gap)
            raise
        self._reached(gap.last)
        log.error("facts lost to the journal", first=gap.first, last=gap.last, lost=gap.lost)
        self._tell(self._on_gap, gap.first, gap.last, gap.lost)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def resume(
        self, epoch: str, seq: int, topics: Collection[str], *, limit: int = 10_000
    ) -> Resumed | None:
        """Returns the frames with a number above `seq` that one of the topics may see, up to the newest, in order.

        None when that cannot be proven complete: another epoch, a number from the future or one whose fact died with a
        process, a gap, more than `limit` frames, older than what is kept, or no database while memory does not reach
        back. Frames are the bytes that were sent live. Facts published while it read are above `Resumed.seq`.
        """
        if epoch != self.epoch or not self._resumable(seq):
            return None
        up_to = self.seq
        try:
            frames = await self._collect(seq, up_to, frozenset(topics), limit)
        except AWAY as error:
            log.warning("resume not possible", why=str(explain(error, self._dsn)))
            return None
        return None if frames is None or len(frames) > limit else Resumed(frames, up_to)

    def _resumable(self, seq: int) -> bool:
        if not 0 <= seq <= self.seq or seq < self._past.kept_from - 1:
            return False
        index = bisect_right(self._hole_ends, seq)
        return index == len(self._past.holes) or seq <= self._past.holes[index].after

    async def _collect(self, seq: int, up_to: int, wanted: frozenset[str], limit: int) -> list[bytes] | None:
        if seq >= self._ring.floor and (seq >= self._base or seq >= self._old_gap):
            # What this process published is all in the ring down to its floor, written or not, lost or not; what was
            # read back at the start has the gaps of the table.
            return self._ring.between(seq, up_to, wanted)
        # In one turn of the loop: where the table ends, and from memory what follows.
        written = max(seq, min(self.flushed_seq, up_to))
        tail = self._tail(written, up_to, wanted)
        if self._reader is None or self._rows_between(seq, written) > self._scan_max:
            return None
        async with self._reader.acquire(timeout=_READ_TIMEOUT) as conn:
            frames = await store.read_topics(conn, seq, written, wanted, limit + 1)
            kept = await store.kept_from(conn)
        if seq < kept - 1 or self._has_gap_after(seq):
            return None
        return frames + tail

    def _rows_between(self, seq: int, up_to: int) -> int:
        """The most rows there can be: numbers leapt over at the start of a process do not count."""
        leapt = sum(h.base - max(h.after, seq) for h in self._past.holes if seq < h.base <= up_to)
        return up_to - seq - leapt

    def _has_gap_after(self, seq: int) -> bool:
        return self._past.last_gap > seq or (self._gap is not None and self._gap.last > seq)

    def _tail(self, written: int, up_to: int, wanted: frozenset[str]) -> list[bytes]:
        if written >= self._ring.floor:
            return self._ring.between(written, up_to, wanted)
        return [
            e.frame for e in self._unwritten() if written < e.seq <= up_to and not wanted.isdisjoint(e.topics)
        ]

    def _unwritten(self) -> Iterable[Envelope]:
        return chain(self._in_flight, self._buffer)

    async def facts_of(self, call: str, *, limit: int = 1000) -> list[JournalFact]:
        """Returns the facts of a call in order, at most `limit`, also those not yet written. Raises DatabaseUnavailable."""
        unwritten = [e for e in self._unwritten() if getattr(e.fact, "call", None) == call]
        facts = await self._read(lambda pool: store.read_call(pool, call, limit))
        last = facts[-1].seq if facts else -1
        facts.extend(store.journal_fact(e) for e in unwritten if e.seq > last)
        return facts[:limit]

    async def since(self, seq: int, *, limit: int = 1000, types: Collection[str] | None = None) -> Page:
        """Returns written facts above `seq` in order, of the given types or all. Raises DatabaseUnavailable.

        A page may be empty though more follow (rare types): read on until `Page.seq` no longer grows. Gaps are facts
        themselves (`journal.gap`).
        """
        up_to = self.flushed_seq
        if seq >= up_to:
            return Page([], seq)
        facts, reached = await self._read(
            lambda pool: store.read_since(pool, seq, up_to, limit, types, self._scan_max)
        )
        return Page(facts, reached)

    async def _read(self, read: Callable[[Pool], Awaitable[T]]) -> T:
        if self._reader is None:
            raise DatabaseUnavailable("The journal is not open.")
        try:
            async with asyncio.timeout(2 * _READ_TIMEOUT):
                return await read(self._reader)
        except AWAY as error:
            raise explain(error, self._dsn) from error

    async def expire(self, keep_days: int) -> tuple[int, int]:
        """Deletes facts written more than `keep_days` days ago; returns (partitions dropped, rows deleted).

        Raises DatabaseUnavailable, also when long-running readers were in the way; try again later.
        """
        try:
            async with connection(
                self._dsn, name="cti journal retention", statement_timeout="600000"
            ) as conn:
                row = await conn.fetchrow(
                    "SELECT * FROM journal_expire((now() AT TIME ZONE 'UTC')::date - $1::int)", keep_days
                )
                kept = await store.kept_from(conn)
        except AWAY as error:
            raise explain(error, self._dsn) from error
        assert row is not None
        self._past = replace(self._past, kept_from=kept)
        log.info("journal expired", partitions=row["dropped"], rows=row["deleted"])
        return row["dropped"], row["deleted"]


class _Unwritable(Exception):
    """A fact that cannot be made into a row."""
