"""The journal on a real PostgreSQL: complete, in order, once; and no lie whatever dies."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from cti import journal_store as store
from cti.bus import Bus, Envelope
from cti.database import migrate
from cti.embedded.place import remove_folder
from cti.embedded.postgres import Postgres
from cti.facts import CallDataChanged, Fact, PbxStatusChanged, QueueCallerJoined
from cti.journal import Journal, JournalInUse
from cti.journal_ring import Ring
from tests.folders import quick_folder

QUEUES = tuple(f"main:q{i}" for i in range(5))
PROCESS = Path(__file__).with_name("journal_process.py")


def waiting(number: int) -> Fact:
    return QueueCallerJoined(
        at=datetime.now(UTC),
        queue=QUEUES[number % 5],
        call=f"main:{number // 10}",
        position=number,
        waiting=1,
    )


def attached(call: str, **data: str) -> Fact:
    return CallDataChanged(at=datetime.now(UTC), call=call, changed=data, by="ivr")


def audience(fact: Fact) -> frozenset[str]:
    if isinstance(fact, QueueCallerJoined):
        return frozenset({f"queue:{fact.queue}", "admin"})
    return frozenset({"all", "admin"})


class Server:
    """A bus with a journal behind it, as the server has them, and what its clients saw live."""

    def __init__(self, dsn: str, **options: Any) -> None:
        self.gaps: list[tuple[int, int, int]] = []
        self.fenced: list[str] = []
        self.sent: list[Envelope] = []
        self.journal = Journal(
            dsn,
            **{
                "buffer_max": 100_000,
                "flush_every": 0.01,
                "on_gap": lambda *gap: self.gaps.append(gap),
                "on_fenced": self.fenced.append,
            }
            | options,
        )
        self.bus = Bus(audience=audience)

    async def start(self) -> int:
        base = await self.journal.start()
        self.bus = Bus(audience=audience, last_seq=base)
        self.bus.carry(self.journal.carry)
        self.bus.carry(self.sent.append)
        return base

    def publish(self, facts: Iterable[Fact]) -> None:
        self.bus.publish(facts)

    async def written(self) -> None:
        await self.journal.flushed(self.bus.seq)

    def frames(self, after: int, *topics: str) -> list[bytes]:
        return [e.frame for e in self.sent if e.seq > after and e.topics & set(topics)]


@asynccontextmanager
async def serving(dsn: str, **options: Any) -> AsyncIterator[Server]:
    server = Server(dsn, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.journal.close()


async def until(true: Callable[[], Any], *, within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.01)


async def fetch(dsn: str, query: str, *args: Any) -> list[asyncpg.Record]:
    conn = await asyncpg.connect(dsn)
    try:
        return list(await conn.fetch(query, *args))
    finally:
        await conn.close()


@pytest.fixture
async def dsn(migrated: str) -> str:
    return migrated


@pytest.fixture(scope="module")
def spare_postgres() -> Any:
    folder = quick_folder("cti-pg-")
    server = Postgres(folder / "data", durable=False)
    yield server
    server.stop()
    remove_folder(folder)


@pytest.fixture
def own_postgres(spare_postgres: Postgres) -> Postgres:
    """A PostgreSQL that nobody else uses, to be stopped and killed; runs when the test begins."""
    spare_postgres.start()
    return spare_postgres


# --- complete, in order, once ---------------------------------------------------------------------------------------


async def test_fifty_thousand_facts_are_written_in_order_and_once(dsn: str) -> None:
    async with serving(dsn) as server:
        for start in range(0, 50_000, 500):
            server.publish(waiting(i) for i in range(start, start + 500))
            await asyncio.sleep(0)
        await server.journal.flushed(50_000, timeout=60)
        rows = await fetch(dsn, "SELECT seq, type, call, topics, data FROM journal ORDER BY seq")
        assert [r["seq"] for r in rows] == list(range(1, 50_001))
        envelope = server.sent[1234]
        row = rows[1234]
        assert row["data"].encode() == envelope.data
        assert set(row["topics"]) == envelope.topics
        assert row["call"] == "main:123"
        assert server.journal.buffered == 0
        assert server.journal.lag == 0.0


async def test_numbers_go_on_after_a_clean_end(dsn: str) -> None:
    async with serving(dsn) as first:
        first.publish(waiting(i) for i in range(10))
        epoch = first.journal.epoch
    async with serving(dsn) as second:
        assert second.bus.seq == 10
        assert second.journal.epoch == epoch
        resumed = await second.journal.resume(epoch, 4, {"admin"})
        assert resumed is not None
        assert resumed.frames == first.frames(4, "admin")


async def test_resume_gives_the_very_bytes_that_were_sent_from_memory_and_from_the_table(dsn: str) -> None:
    facts = [
        attached("main:1", name='Zoë \\ "quoted" \t\r\n\x00 \U0001f600 <b>'),
        PbxStatusChanged(at=datetime(2026, 1, 1, tzinfo=UTC), pbx="main", phase="up", code="", why="it's up"),
        PbxStatusChanged(
            at=datetime(2026, 1, 1, 1, 2, 3, 40, tzinfo=UTC), pbx="x", phase="up", code="1e5", why="1.0"
        ),
        waiting(1),
    ]
    async with serving(dsn, ring=2) as server:
        server.publish(facts)
        await server.written()
        from_table = await server.journal.resume(server.journal.epoch, 0, {"admin"})
        assert from_table is not None
        sent = server.frames(0, "admin")
        assert from_table.frames[1:] == sent[1:]
        assert from_table.frames[0] == sent[0].replace(b"\\u0000", "\ufffd".encode())
        from_memory = await server.journal.resume(server.journal.epoch, 2, {"admin"})
        assert from_memory is not None
        assert from_memory.frames == sent[2:]


@pytest.mark.parametrize("ring", [50, 100_000])
async def test_live_and_resumed_frames_together_are_all_frames(dsn: str, ring: int) -> None:
    """For any moment of the break and of the return, with the writer busy, the database slower than the bus, and more
    facts arriving while the resume is under way."""
    chance = random.Random(20261121)
    subscriptions = [{"admin"}, {"queue:main:q1"}, {"queue:main:q2", "all"}, {"nobody"}]
    async with serving(dsn, ring=ring, flush_every=0.005, batch_max=64) as server:
        running = True

        async def publish() -> None:
            number = 0
            while running:
                server.publish(waiting(number + i) for i in range(chance.randrange(1, 40)))
                number += 40
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.004)))

        publishing = asyncio.create_task(publish())
        try:
            for _ in range(60):
                topics = chance.choice(subscriptions)
                await asyncio.sleep(chance.random() * 0.03)
                seen = max(0, server.bus.seq - chance.randrange(0, 400))
                resumed = await server.journal.resume(server.journal.epoch, seen, topics)
                after = server.bus.seq
                assert resumed is not None
                assert seen <= resumed.seq <= after
                live = [e.frame for e in server.sent if e.seq > resumed.seq and e.topics & topics]
                assert resumed.frames + live == server.frames(seen, *topics)
        finally:
            running = False
            await publishing


async def test_facts_of_a_call_include_what_is_not_written_yet(dsn: str) -> None:
    async with serving(dsn, flush_every=0.01) as server:
        server.publish([attached("main:7", a="1"), attached("main:8", a="1")])
        await server.written()
        server.publish([attached("main:7", b="2")])
        facts = await server.journal.facts_of("main:7")
        assert [f.data["changed"] for f in facts] == [{"a": "1"}, {"b": "2"}]
        assert [f.seq for f in facts] == [1, 3]
        assert facts[0].topics == ("admin", "all")


async def test_integrators_read_on_page_by_page_and_rare_types_need_no_full_read(dsn: str) -> None:
    async with serving(dsn, scan_max=100) as server:
        for start in range(0, 1000, 100):
            server.publish(waiting(i) for i in range(start, start + 99))
            server.publish([attached("main:1", at=str(start))])
        await server.written()
        seq, seen, pages = 0, [], 0
        while True:
            page = await server.journal.since(seq, limit=7)
            if page.seq == seq:
                break
            seen += [f.seq for f in page.facts]
            seq = page.seq
        assert seen == list(range(1, 1001))
        seq, seen = 0, []
        while True:
            page = await server.journal.since(seq, limit=3, types=["call.data_changed"])
            pages += 1
            if page.seq == seq:
                break
            seen += [f.seq for f in page.facts]
            seq = page.seq
        assert seen == list(range(100, 1001, 100))
        assert pages <= 16


# --- what cannot be proven complete is refused ----------------------------------------------------------------------


async def test_resume_is_refused_for_another_epoch_a_future_number_and_too_much(dsn: str) -> None:
    async with serving(dsn) as server:
        server.publish(waiting(i) for i in range(50))
        epoch = server.journal.epoch
        assert await server.journal.resume("00000000-0000-0000-0000-000000000000", 10, {"admin"}) is None
        assert await server.journal.resume("nonsense", 10, {"admin"}) is None
        assert await server.journal.resume(epoch, 51, {"admin"}) is None
        assert await server.journal.resume(epoch, -1, {"admin"}) is None
        assert await server.journal.resume(epoch, 10, {"admin"}, limit=39) is None
        assert await server.journal.resume(epoch, 10, {"admin"}, limit=40) is not None
        assert (await server.journal.resume(epoch, 50, {"admin"})).frames == []  # type: ignore[union-attr]


async def test_too_far_behind_is_refused_without_reading_the_table(dsn: str) -> None:
    async with serving(dsn, ring=10, scan_max=100) as server:
        server.publish(waiting(i) for i in range(500))
        await server.written()
        assert await server.journal.resume(server.journal.epoch, 399, {"queue:main:q1"}) is None
        assert await server.journal.resume(server.journal.epoch, 400, {"queue:main:q1"}) is not None


async def test_a_full_buffer_drops_the_oldest_notes_the_gap_and_never_resumes_across_it(
    own_postgres: Postgres,
) -> None:
    dsn = own_postgres.create_database("full")
    await migrate(dsn)
    async with serving(dsn, buffer_max=1000, ring=100, batch_max=200) as server:
        server.publish(waiting(i) for i in range(100))
        await server.written()
        own_postgres.kill()
        server.publish(waiting(i) for i in range(300))
        await until(lambda: not server.journal.connected)
        in_flight_up_to = 300  # one batch of 200 was taken out of the buffer and is tried again first
        for start in range(300, 3000, 100):
            server.publish(waiting(i) for i in range(start, start + 100))
            await asyncio.sleep(0)
        epoch = server.journal.epoch
        assert server.journal.dropped == 3000 - 1000 - 200
        assert server.journal.lag > 0
        assert await server.journal.resume(epoch, 3050, {"admin"}) is not None  # memory alone answers
        assert await server.journal.resume(epoch, 50, {"admin"}) is None
        own_postgres.start()
        await until(lambda: server.gaps)
        await server.written()
        gap = (in_flight_up_to + 1, 2100, 1800)
        assert server.gaps == [gap]
        rows = [r["seq"] for r in await fetch(dsn, "SELECT seq FROM journal ORDER BY seq")]
        assert rows == [*range(1, 301), *range(2101, 3101)]
        assert [tuple(r) for r in await fetch(dsn, "SELECT first, last, lost FROM journal_gaps")] == [gap]
        assert await server.journal.resume(epoch, 2099, {"admin"}) is None
        assert await server.journal.resume(epoch, 50, {"admin"}) is None
        across = await server.journal.resume(epoch, 2100, {"admin"})
        assert across is not None
        assert across.frames == server.frames(2100, "admin")
    async with serving(dsn) as again:
        assert again.bus.seq == 3100
        assert await again.journal.resume(epoch, 2099, {"admin"}) is None
        assert await again.journal.resume(epoch, 2100, {"admin"}) is not None


# --- faults of the database -----------------------------------------------------------------------------------------


async def test_postgresql_stopped_and_started_again_loses_nothing(own_postgres: Postgres) -> None:
    dsn = own_postgres.create_database("away")
    await migrate(dsn)
    async with serving(dsn, batch_max=100, flush_every=0.002) as server:
        running = True

        async def publish() -> None:
            number = 0
            while running:
                server.publish(waiting(number + i) for i in range(20))
                number += 20
                await asyncio.sleep(0.002)

        publishing = asyncio.create_task(publish())
        for end in (own_postgres.stop, own_postgres.kill):
            await until(lambda: server.journal.connected and server.journal.flushed_seq > 500)
            await asyncio.to_thread(end)
            await until(lambda: not server.journal.connected)
            held = server.bus.seq
            await until(lambda held=held: server.bus.seq > held + 1000)
            assert server.journal.buffered > 900
            await asyncio.to_thread(own_postgres.start)
            await server.journal.flushed(server.bus.seq, timeout=30)
        running = False
        await publishing
        await server.written()
        rows = await fetch(dsn, "SELECT seq FROM journal ORDER BY seq")
        assert [r["seq"] for r in rows] == list(range(1, server.bus.seq + 1))
        assert server.gaps == []
        assert server.journal.dropped == 0


async def test_connections_cut_at_any_moment_neither_lose_nor_double(dsn: str) -> None:
    """The server ends the writer's connection again and again, also between COMMIT and its answer."""
    chance = random.Random(7)
    async with serving(dsn, batch_max=50, flush_every=0.001) as server:
        killer = await asyncpg.connect(dsn)
        for start in range(0, 6000, 60):
            server.publish(waiting(i) for i in range(start, start + 60))
            await asyncio.sleep(chance.random() * 0.004)
            if start % 180 == 0:
                await killer.execute(
                    """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE application_name = 'cti journal' AND datname = current_database()"""
                )
        await server.journal.flushed(6000, timeout=30)
        rows = await killer.fetch("SELECT seq FROM journal ORDER BY seq")
        await killer.close()
        assert [r["seq"] for r in rows] == list(range(1, 6001))
        assert server.gaps == []


async def test_rows_that_the_database_confirmed_and_lost_are_a_gap(dsn: str) -> None:
    """A standby that had not heard of them took over."""
    async with serving(dsn, ring=10) as server:
        server.publish(waiting(i) for i in range(100))
        await server.written()
        await fetch(dsn, "DELETE FROM journal WHERE seq > 60")
        await fetch(
            dsn,
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name = 'cti journal' AND datname = current_database()""",
        )
        server.publish(waiting(i) for i in range(100))
        await until(lambda: server.gaps)
        await server.written()
        assert server.gaps == [(61, 100, 40)]
        assert await server.journal.resume(server.journal.epoch, 50, {"admin"}) is None
        assert await server.journal.resume(server.journal.epoch, 100, {"admin"}) is not None


async def test_a_frozen_postgresql_holds_up_nobody(own_postgres: Postgres) -> None:
    dsn = own_postgres.create_database("frozen")
    await migrate(dsn)
    async with serving(dsn, ring=10) as server:
        server.publish(waiting(i) for i in range(100))
        await server.written()
        own_postgres.freeze()
        try:
            before = time.monotonic()
            server.publish(waiting(i) for i in range(5000))
            assert time.monotonic() - before < 2
            resumed = await asyncio.wait_for(
                server.journal.resume(server.journal.epoch, 5095, {"admin"}), timeout=1
            )
            assert resumed is not None
        finally:
            own_postgres.thaw()
        await server.written()
        assert (await fetch(dsn, "SELECT count(*) FROM journal"))[0][0] == 5100


async def test_a_row_the_database_will_never_take_does_not_hold_up_the_others(dsn: str) -> None:
    await fetch(dsn, "ALTER TABLE journal ADD CHECK (data->>'by' IS DISTINCT FROM 'poison')")
    async with serving(dsn, ring=10) as server:
        server.publish(waiting(i) for i in range(700))
        server.publish([CallDataChanged(at=datetime.now(UTC), call="main:1", changed={}, by="poison")])
        server.publish(waiting(i) for i in range(700))
        await until(lambda: server.gaps)
        await server.written()
        assert server.gaps == [(701, 701, 1)]
        assert server.journal.rejected == 1
        rows = [r["seq"] for r in await fetch(dsn, "SELECT seq FROM journal ORDER BY seq")]
        assert rows == [*range(1, 701), *range(702, 1402)]
        assert await server.journal.resume(server.journal.epoch, 690, {"admin"}) is None


async def test_nul_and_hostile_text_are_written_cleaned_and_counted(dsn: str) -> None:
    name = "\x00Robert'); DROP TABLE journal;--\\u0000\\\x00\t\n\r\\N\\."
    async with serving(dsn) as server:
        server.publish([attached("main:\x00\\\t1", name=name), attached('main:"{},"', name="x" * 100_000)])
        await server.written()
        rows = await fetch(dsn, "SELECT call, data->'changed'->>'name' AS name FROM journal ORDER BY seq")
        assert rows[0]["name"] == name.replace("\x00", "\ufffd")
        assert rows[0]["call"] == "main:\ufffd\\\t1"
        assert len(rows[1]["name"]) == 100_000
        assert server.journal.cleaned == 1
        assert server.journal.rejected == 0


async def test_a_full_disk_is_waited_out(dsn: str) -> None:
    await fetch(
        dsn,
        """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$""",
    )
    await fetch(
        dsn, "CREATE TRIGGER full_disk BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    async with serving(dsn) as server:
        server.publish(waiting(i) for i in range(100))
        await until(lambda: not server.journal.connected)
        assert server.journal.buffered == 100
        await fetch(dsn, "DROP TRIGGER full_disk ON journal")
        await server.written()
        assert server.gaps == []
        assert server.journal.rejected == 0


async def test_what_cannot_be_written_at_the_end_makes_it_an_unclean_end(own_postgres: Postgres) -> None:
    dsn = own_postgres.create_database("ending")
    await migrate(dsn)
    server = Server(dsn, lease=1.0)
    await server.start()
    server.publish(waiting(i) for i in range(10))
    await server.written()
    own_postgres.stop()
    server.publish(waiting(i) for i in range(10))
    before = time.monotonic()
    await server.journal.close(timeout=0.5)
    assert time.monotonic() - before < 3
    own_postgres.start()
    async with serving(dsn, lease=0.5) as again:
        assert again.bus.seq >= 1_000_010
        assert await again.journal.resume(server.journal.epoch, 15, {"admin"}) is None
        assert await again.journal.resume(server.journal.epoch, 10, {"admin"}) is not None


# --- one writer, and its death --------------------------------------------------------------------------------------


@asynccontextmanager
async def process(
    dsn: str, *, count: int = 0, flush_every: float = 0.01, lease: float = 10.0
) -> AsyncIterator[Any]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROCESS), dsn, str(count), str(flush_every), str(lease)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def line(child: Any) -> list[str]:
    return (await asyncio.wait_for(child.stdout.readline(), 20)).decode().split()


async def test_after_kill_9_the_seen_but_unwritten_is_refused_and_the_written_is_complete(dsn: str) -> None:
    async with process(dsn, count=400, flush_every=30) as child:
        started = await line(child)
        while (told := await line(child)) != ["full"]:
            published = int(told[0])
        child.kill()
        await child.wait()
    assert published == 400
    flushed = (await fetch(dsn, "SELECT coalesce(max(seq), 0) FROM journal"))[0][0]
    assert flushed < 100
    epoch = started[2]
    before = time.monotonic()
    async with serving(dsn) as server:
        assert time.monotonic() - before < 5, "a dead process on the same machine is not waited for"
        assert server.bus.seq == 1_000_000 + flushed
        assert server.journal.epoch == epoch
        for seen in (flushed + 1, 200, 400, 999_999):
            assert await server.journal.resume(epoch, seen, {"admin"}) is None
        server.publish(waiting(i) for i in range(10))
        for seen in (flushed, 1_000_000 + flushed):
            resumed = await server.journal.resume(epoch, seen, {"admin"})
            assert resumed is not None
            assert resumed.frames == server.frames(0, "admin")


async def test_kill_9_at_any_moment_again_and_again(dsn: str) -> None:
    chance = random.Random(99)
    seen: list[tuple[int, int]] = []
    for _ in range(4):
        async with process(dsn, flush_every=0.005) as child:
            started = await line(child)
            for _ in range(chance.randrange(20, 200)):
                told = await line(child)
            child.kill()
            rest = (await child.communicate())[0].decode().splitlines()
            told = next((r.split() for r in reversed(rest) if r.count(" ") == 1), told)
            assert int(started[1]) >= max((published for published, _ in seen), default=0)
            seen.append((int(told[0]), int(told[1])))
    async with serving(dsn, ring=10) as server:
        rows = await fetch(dsn, "SELECT seq, at, type, data FROM journal ORDER BY seq")
        holes = await fetch(dsn, "SELECT after_seq, base_seq FROM journal_boots ORDER BY base_seq")
        numbers = [r["seq"] for r in rows]
        expected: list[int] = []
        for boot, following in pairwise(holes):
            expected += range(boot["base_seq"] + 1, following["after_seq"] + 1)
        assert numbers == expected, "within a life nothing is missing and nothing doubled"
        frames = {r["seq"]: store.frame(r["seq"], r["at"], r["type"], r["data"]) for r in rows}
        for published, flushed in seen:
            resumed = await server.journal.resume(server.journal.epoch, flushed, {"admin"}, limit=100_000)
            assert resumed is not None
            assert resumed.frames == [frames[n] for n in numbers if n > flushed]
            if published not in frames:
                assert await server.journal.resume(server.journal.epoch, published, {"admin"}) is None


async def test_a_second_server_is_refused_while_the_first_lives(dsn: str) -> None:
    async with process(dsn, count=20, lease=1.0) as child:
        await line(child)
        with pytest.raises(JournalInUse, match=f"process {child.pid}.*stop it first"):
            await Server(dsn, lease=1.0).start()


async def test_a_frozen_server_is_replaced_and_writes_no_more(dsn: str) -> None:
    async with process(dsn, count=20, lease=0.6, flush_every=0.02) as child:
        while await line(child) != ["full"]:
            pass
        rows = 0
        while rows < 20:
            rows = (await fetch(dsn, "SELECT count(*) FROM journal"))[0][0]
        os.kill(child.pid, signal.SIGSTOP)
        try:
            async with serving(dsn) as server:
                assert server.bus.seq == 1_000_020
                server.publish(waiting(i) for i in range(10))
                await server.written()
                os.kill(child.pid, signal.SIGCONT)
                assert await line(child) == ["fenced"]
                assert (await fetch(dsn, "SELECT count(*) FROM journal"))[0][0] == 30
        finally:
            os.kill(child.pid, signal.SIGCONT)


async def test_the_one_that_is_replaced_is_told_and_keeps_no_facts(dsn: str) -> None:
    first = Server(dsn, lease=0.9)
    await first.start()
    first.publish(waiting(i) for i in range(10))
    await first.written()
    await fetch(dsn, "UPDATE journal_state SET token = token + 1, holder = 'elsewhere'")
    first.publish(waiting(i) for i in range(10))
    await until(lambda: first.fenced)
    assert "taken over" in first.fenced[0]
    first.publish(waiting(i) for i in range(10))
    assert first.journal.buffered == 0
    await first.journal.close()
    assert (await fetch(dsn, "SELECT clean FROM journal_state"))[0][0] is False


async def test_after_a_long_silence_the_numbers_leap_further(dsn: str) -> None:
    """What a process may have published while it could not write is never given out again, however long that was."""
    server = Server(dsn)
    await server.start()
    await server.journal.close()
    await fetch(
        dsn,
        """UPDATE journal_state SET clean = false, expires = now() - interval '1 hour', published = 5000,
           renewed = now() - interval '1 hour'""",
    )
    async with serving(dsn) as again:
        assert again.bus.seq == 5000 + 181 * 1_000_000


async def test_a_copy_of_the_database_is_another_epoch(own_postgres: Postgres) -> None:
    dsn = own_postgres.create_database("original")
    await migrate(dsn)
    async with serving(dsn) as server:
        server.publish(waiting(i) for i in range(10))
    copy = own_postgres.create_database("duplicate", template="original")
    async with serving(copy) as other:
        assert other.bus.seq == 10
        assert other.journal.epoch != server.journal.epoch
        assert await other.journal.resume(server.journal.epoch, 5, {"admin"}) is None
    async with serving(dsn) as again:
        assert again.journal.epoch == server.journal.epoch


# --- age ------------------------------------------------------------------------------------------------------------


async def test_old_facts_leave_by_partition_and_the_rest_by_row(dsn: str) -> None:
    width = 1 << 22
    async with serving(dsn) as server:
        server.publish(waiting(i) for i in range(10))
    # As if the following days had been written later, in the next partition.
    await fetch(dsn, "UPDATE journal_days SET day = day - 40")
    await fetch(dsn, "UPDATE journal_state SET published = $1", width + 100)
    async with serving(dsn) as server:
        server.publish(waiting(i) for i in range(10))
    await fetch(dsn, "UPDATE journal_days SET day = day - 20 WHERE first > 10")
    async with serving(dsn, ring=5, scan_max=1 << 23) as server:
        server.publish(waiting(i) for i in range(10))
        await server.written()
        epoch = server.journal.epoch
        assert await server.journal.resume(epoch, 5, {"admin"}, limit=10**6) is not None
        assert await server.journal.expire(90) == (0, 0)
        assert await server.journal.expire(30) == (1, 0)
        assert await server.journal.resume(epoch, 5, {"admin"}) is None
        assert await server.journal.resume(epoch, width + 100, {"admin"}) is not None
        assert await server.journal.expire(10) == (0, 10)
        assert await server.journal.resume(epoch, width + 105, {"admin"}) is None
        kept = await server.journal.resume(epoch, width + 110, {"admin"})
        assert kept is not None
        assert kept.frames == server.frames(0, "admin")
    async with serving(dsn) as server:
        assert server.bus.seq == width + 120
        assert await server.journal.resume(epoch, width + 105, {"admin"}) is None
        await server.journal.expire(-1)
    async with serving(dsn) as server:
        assert server.bus.seq == width + 120, "numbers go on even when every fact has left"
        server.publish(waiting(i) for i in range(10))
        await server.written()


async def test_partitions_are_made_as_the_numbers_grow(dsn: str) -> None:
    await fetch(dsn, "UPDATE journal_state SET published = $1", (1 << 22) * 3 - 50)
    async with serving(dsn) as server:
        server.publish(waiting(i) for i in range(100))
        await server.written()
        resumed = await server.journal.resume(server.journal.epoch, server.bus.seq - 100, {"admin"})
        assert resumed is not None
        assert len(resumed.frames) == 100


# --- plans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "args"),
    [
        (store.READ_TOPICS, (20_000, 29_000, ["queue:main:q1"], 10_000)),
        (store.READ_CALL, ("main:77", 100)),
        (store.READ_SINCE, (20_000, 29_000, 100)),
        (store.READ_SINCE_TYPES, (20_000, 29_000, 100, ["call.data_changed"], 5000)),
        (store.READ_NEWEST, (1000,)),
        ("SELECT max(seq) FROM journal", ()),
    ],
)
async def test_reads_use_an_index_and_never_sort(dsn: str, query: str, args: tuple[Any, ...]) -> None:
    conn = await asyncpg.connect(dsn)
    await conn.execute("SELECT journal_make_room(1, 5000000)")
    await conn.execute(
        """INSERT INTO journal SELECT n * 200, now(), 'queue.caller_joined', 'main:' || n / 10,
               ARRAY['queue:main:q' || n % 50, 'admin'], '{}' FROM generate_series(1, 30000) n"""
    )
    await conn.execute("ANALYZE journal")
    await conn.execute("SET plan_cache_mode = force_generic_plan")
    plan = msgspec.json.decode(await conn.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *args))
    await conn.close()
    nodes: list[str] = []

    def walk(node: dict[str, Any]) -> None:
        if node.get("Relation Name") != "journal_p000000002":  # made ahead, empty: read as it likes
            nodes.append(node["Node Type"])
        for child in node.get("Plans", ()):
            walk(child)

    walk(plan[0]["Plan"])
    assert "Seq Scan" not in nodes
    assert "Sort" not in nodes or query == store.READ_CALL  # of one call's few facts
    assert any(n.startswith("Index") for n in nodes)


# --- the pure parts -------------------------------------------------------------------------------------------------


def test_the_ring_is_whole_above_its_floor() -> None:
    ring = Ring(3)
    for seq in (10, 20, 30, 40, 50):
        ring.add(seq, frozenset({"a" if seq % 20 else "b"}), b"%d" % seq)
    assert len(ring) == 3
    assert ring.floor == 20
    assert ring.between(20, 50, frozenset("ab")) == [b"30", b"40", b"50"]
    assert ring.between(30, 40, frozenset("ab")) == [b"40"]
    assert ring.between(20, 50, frozenset("a")) == [b"30", b"50"]
    assert ring.between(50, 50, frozenset("ab")) == []


@pytest.mark.parametrize(
    "text", ["\x00", "\x00\x00", "\\\x00", "\\u0000", "\\\\\x00\\u0000", "a\x00b\\", "plain", '"\x00"']
)
def test_nul_is_replaced_and_nothing_else(text: str) -> None:
    cleaned = msgspec.json.decode(store.without_nul(msgspec.json.encode({"x": text})))
    assert cleaned == {"x": text.replace("\x00", "\ufffd")}


def test_carry_costs_next_to_nothing() -> None:
    async def measure() -> float:
        journal = Journal("postgresql://nowhere", buffer_max=1000, ring=1000)
        envelope = Envelope(1, waiting(1), frozenset({"admin"}), b"{}", b"{}")
        best = 1.0
        for _ in range(5):
            before = time.perf_counter()
            for _ in range(2000):
                journal.carry(envelope)
            best = min(best, (time.perf_counter() - before) / 2000)
        return best

    assert asyncio.run(measure()) < 20e-6


def test_only_a_process_that_is_known_to_be_gone_counts_as_dead() -> None:
    me = store.Holder.me()
    assert not me.surely_dead
    machine, pid, started = me.process.split(" ")
    assert store.Holder("x", f"{machine} {pid} 1{started}").surely_dead
    assert not store.Holder("x", f"another/{pid} {pid} {started}").surely_dead
    assert not store.Holder("x", "").surely_dead
