"""A server process as far as the journal is concerned, to be killed by tests: publishes and tells what it has done.

Arguments: DSN, facts to publish before it waits (0: for ever), seconds between flushes. Writes a line `published flushed`
after each handful of facts, `full` when it waits, `refused ...` when another one is alive, `fenced` when taken over.
"""

import asyncio
import sys
from datetime import UTC, datetime

import structlog

from cti.bus import Bus
from cti.facts import Fact, QueueCallerJoined
from cti.journal import Journal, JournalInUse


async def main(dsn: str, count: int, flush_every: float, lease: float) -> None:
    fenced = asyncio.Event()
    journal = Journal(
        dsn,
        buffer_max=100_000,
        flush_every=flush_every,
        batch_max=500,
        lease=lease,
        on_fenced=lambda why: fenced.set(),
    )
    try:
        base = await journal.start()
    except JournalInUse as error:
        print("refused", error, flush=True)
        return
    print("started", base, journal.epoch, flush=True)
    bus = Bus(audience=_audience, last_seq=base)
    bus.carry(journal.carry)
    published = 0
    while not count or published < count:
        bus.publish(fact(published + i) for i in range(20))
        published += 20
        print(bus.seq, journal.flushed_seq, flush=True)
        await asyncio.sleep(0)
        if fenced.is_set():
            break
    if not fenced.is_set():
        print("full", flush=True)
        await fenced.wait()
    print("fenced", flush=True)


def fact(number: int) -> Fact:
    return QueueCallerJoined(
        at=datetime.now(UTC), queue=f"main:q{number % 5}", call=f"main:{number}", position=1, waiting=1
    )


def _audience(fact: Fact) -> frozenset[str]:
    assert isinstance(fact, QueueCallerJoined)
    return frozenset({f"queue:{fact.queue}", "admin"})


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
