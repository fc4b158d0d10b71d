"""How long it takes to know who is calling, among a million numbers; beside the bare query no look-up can beat.

    python benchmarks/ani_lookup.py [--accounts N] [--calls N] [DSN of a database]

The database is empty, or one that an earlier run has loaded. Without a DSN it starts the embedded PostgreSQL for itself.
Prints one JSON object: milliseconds at the median and the 99th percentile, calls a second and the process's CPU for each
way, all in the same run on the same rows: `bare` is one prepared `SELECT account_id FROM phones WHERE e164 = $1` with
nothing else, `find` the whole look-up. `turns`: how many turns of the event loop pass from the call to the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import structlog
import uvloop

from benchmarks import scratch
from crm.ani import CallerLookup
from crm.sample_data import load_synthetic, synthetic_number
from cti.database import migrate


async def alone(
    calls: dict[str, Callable[[str], Awaitable[object]]], some: Callable[[], list[str]]
) -> dict[str, Any]:
    """One after another, the ways taking turns call by call, so that all meet the same noise of the machine."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    cpu = dict.fromkeys(calls, 0.0)
    lists = zip(*(some() for _ in calls), strict=True)
    for place, numbers in enumerate(lists):
        for (name, call), number in zip(calls.items(), numbers, strict=True):
            start, used = time.perf_counter(), time.process_time()
            await call(number)
            if place >= 200:
                took[name].append(time.perf_counter() - start)
                cpu[name] += time.process_time() - used
    return {name: _told(took[name], sum(took[name]), cpu[name]) for name in calls}


async def together(
    call: Callable[[str], Awaitable[object]], numbers: list[str], at_once: int
) -> dict[str, float]:
    """So many callers at once, each new one when another is known."""
    took: list[float] = []
    todo = iter(numbers)

    async def caller() -> None:
        for number in todo:
            start = time.perf_counter()
            await call(number)
            took.append(time.perf_counter() - start)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return _told(took, time.perf_counter() - began, time.process_time() - cpu)


async def paced(
    call: Callable[[str], Awaitable[object]], numbers: list[str], rate: float
) -> dict[str, float]:
    """So many calls a second, whatever the answers take."""
    took: list[float] = []

    async def one(number: str) -> None:
        start = time.perf_counter()
        await call(number)
        took.append(time.perf_counter() - start)

    began, cpu = time.perf_counter(), time.process_time()
    tasks = set()
    for place, number in enumerate(numbers):
        wait = began + place / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return _told(took, time.perf_counter() - began, time.process_time() - cpu)


def _told(took: list[float], seconds: float, cpu: float) -> dict[str, float]:
    took.sort()
    return {
        "p50_ms": round(took[len(took) // 2] * 1e3, 3),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1e3, 3),
        "max_ms": round(took[-1] * 1e3, 3),
        "per_second": round(len(took) / seconds),
        "cpu_us_each": round(cpu / len(took) * 1e6, 1),
    }


async def turns(call: Callable[[str], Awaitable[object]], numbers: list[str]) -> dict[str, float]:
    """In how many turns of the loop a look-up is done where each lasts so long that the database never keeps it waiting."""
    loop, passed = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal passed, handle
        passed += 1
        time.sleep(0.003)
        handle = loop.call_soon(turn)

    handle = loop.call_soon(turn)
    counted = []
    for number in numbers:
        await asyncio.sleep(0)
        before = passed
        await call(number)
        counted.append(passed - before)
    handle.cancel()
    counted.sort()
    return {"median": counted[len(counted) // 2], "most": counted[-1]}


async def measure(dsn: str, accounts: int, calls: int) -> dict[str, Any]:
    """Loads the accounts, if they are not there, and measures."""
    await migrate(dsn)
    connection = await asyncpg.connect(dsn)
    began = time.perf_counter()
    if await connection.fetchval("SELECT count(*) FROM phones") != accounts:
        await load_synthetic(connection, accounts, interactions=accounts // 2)
        await connection.execute("VACUUM ANALYZE")
    loaded = time.perf_counter() - began
    chance = random.Random(1)

    def some(count: int = calls) -> list[str]:
        return [synthetic_number(chance.randrange(accounts)) for _ in range(count)]

    bare = await connection.prepare("SELECT account_id FROM phones WHERE e164 = $1")
    result: dict[str, Any] = {"accounts": accounts, "calls": calls, "load_s": round(loaded, 1)}
    async with CallerLookup(dsn, limit=10) as lookup:

        async def find(number: str) -> None:
            found = await lookup.find(number, "US")
            if not found.candidates:
                raise RuntimeError(f"{number} was not found")

        async def nobody(number: str) -> None:
            await lookup.find("+1" + number[-10:].replace("740", "212", 1), "US")

        async def ask(number: str) -> None:
            told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            lookup.ask(number, "US", told.set_result)
            await told  # one turn more than the answer takes

        result |= await alone({"bare": lambda n: bare.fetch(n), "find": find, "find_nobody": nobody}, some)
        result["turns"] = {
            "bare": await turns(lambda n: bare.fetch(n), some(50)),
            "find": await turns(find, some(50)),
            "ask_and_a_future": await turns(ask, some(50)),
        }
        result["find_50_at_once"] = await together(find, some(), 50)
        result["find_200_a_second"] = await paced(find, some(min(calls, 1000)), 200)
        result["find_1000_a_second"] = await paced(find, some(min(calls, 5000)), 1000)
    await connection.close()
    result["find_p50_to_bare"] = round(result["find"]["p50_ms"] / result["bare"]["p50_ms"], 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dsn", nargs="?")
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=5_000)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with contextlib.ExitStack() as ended:
        dsn = given.dsn
        if not dsn:
            dsn = ended.enter_context(scratch.postgres()).create_database("bench")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop that the server runs on
            result = runner.run(measure(dsn, given.accounts, given.calls))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result)).decode() + "\n")


if __name__ == "__main__":
    main()
