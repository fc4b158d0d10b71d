"""Memory of the whole server over many calls: what `cti serve` holds must not grow with the calls it has seen.

Run: python -m benchmarks.server_memory [--calls N]. The real server with its database and journal, over the real wire: a
simulator (in this process) makes calls for 300 agents as fast as the server keeps up with (how late its facts come says
whether it does), each caller one of 50,000 customers. One websocket client sees everything; agents come and go every
second. The server's resident memory is sampled; after a warm-up its slope is computed (least squares, in megabytes a
million calls). At the end, when all calls are over, nothing may be held. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import re
import sys
import time
from base64 import b64encode
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import structlog
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.machine import machine
from benchmarks.memory import slope
from benchmarks.screen_pop import AGENTS, FIRST_EXTENSION, SECRET, SIGNING_KEY, cpu_of, database, server
from crm.sample_data import synthetic_number
from cti.embedded.place import remove_folder, scratch_folder
from cti.people import Actor, Role
from cti.simulator import Caller, Plan, Simulator, User
from cti.tokens import Tokens

CUSTOMERS = 50_000
LATE, EARLY = 1.0, 0.3
"""Seconds between an event and its fact at the client above which the server is behind, or below which it could do more."""

MOST_WAITING = 8000
"""Facts waiting for the database above which the calls come too fast: they are memory too, but not a leak."""

WARM_UP = 150_000
"""Calls before which memory may grow: thousands of ended calls are remembered, caches and rings fill."""

SLOPE_MOST = 8.0
"""Megabytes a million calls above which memory is not flat: less than a sample's noise."""

_AT = re.compile(rb'"at":"([^"]{19,35})"')

PONG = bytes((0x8A, 0x80, 0, 0, 0, 0))


def resident_of(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Client(asyncio.Protocol):
    """A websocket client that takes whatever comes, and looks at no more of it than when the newest fact happened."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.transport: asyncio.Transport | None = None
        self.newest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        key = b64encode(os.urandom(16)).decode()
        hello = json.dumps({"op": "hello", "id": "1", "token": self._token}).encode()
        self.transport.write(
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: cti.v1\r\n\r\n".encode()
            + bytes((0x81, 0x80 | 126))
            + len(hello).to_bytes(2, "big")
            + bytes(4)
            + hello
        )

    def data_received(self, data: bytes) -> None:
        self.newest = data

    def lag(self) -> float | None:
        """Seconds since the event of the newest fact that has come."""
        found = _AT.findall(self.newest)
        return time.time() - datetime.fromisoformat(found[-1].decode()).timestamp() if found else None

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None


def token(login: str, role: Role) -> str:
    maker = Tokens("", None, key=SIGNING_KEY.encode(), access=timedelta(hours=12))  # type: ignore[arg-type]  # it only signs
    return maker.issue(Actor(login=login, name=login, role=role), "00000000-0000-4000-8000-000000000000")[0]


async def come_and_go(port: int, watching: Client) -> None:
    """Somebody who watches all, kept alive; and every second another agent, who leaves again."""
    loop = asyncio.get_running_loop()
    number = 0
    while watching.transport is not None:
        watching.transport.write(PONG)
        _, agent = await loop.create_connection(
            functools.partial(Client, token(f"a{number % AGENTS}", Role.AGENT)), "127.0.0.1", port
        )
        await asyncio.sleep(1.0)
        if agent.transport is not None:
            agent.transport.abort()
        number += 1


async def figures(session: aiohttp.ClientSession, port: int) -> dict[str, float]:
    """What the server says of itself."""
    async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        text = await answer.text()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def drive(
    simulator: Simulator, port: int, pid: int, calls: int, every: int, pace: float
) -> dict[str, Any]:
    pbx = simulator.pbx
    points: list[tuple[int, int]] = []
    began, cpu_began, due = time.monotonic(), cpu_of(pid), 0
    _, watching = await asyncio.get_running_loop().create_connection(
        lambda: Client(token("bench", Role.ADMIN)), "127.0.0.1", port
    )
    clients = asyncio.create_task(come_and_go(port, watching))
    most: dict[str, float] = {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        pbx.set_pace(pace)
        while pbx.ended < calls:
            await asyncio.sleep(1.0)
            now = await figures(session, port)
            late = watching.lag()
            for name, value in now.items():
                most[name] = max(value, most.get(name, 0.0))
            if clients.done():
                state = "runs" if Path(f"/proc/{pid}/cmdline").exists() else "has ended"
                why = clients.exception() if clients.done() else None
                raise RuntimeError(f"a client has lost the server ({why!r}); it {state}")
            waiting = now["cti_journal_buffered"]
            if late is None or late > LATE or waiting > MOST_WAITING:
                pace = max(20.0, pace * 0.8)
            elif late < EARLY and waiting < MOST_WAITING / 4:
                pace = min(1000.0, pace * 1.1)
            pbx.set_pace(pace)
            if pbx.ended >= due:
                points.append((pbx.ended, resident_of(pid)))
                said = f"{pbx.ended} calls, {points[-1][1] / 1e6:.1f} MB, {time.monotonic() - began:.0f} s, {pace:.0f}/s"
                print(said, file=sys.stderr, flush=True)
                due += every
        pbx.set_pace(0)
        ended, seconds = pbx.ended, time.monotonic() - began
        cpu = cpu_of(pid) - cpu_began
        clients.cancel()
        if watching.transport is not None:
            watching.transport.abort()
        await asyncio.gather(clients, return_exceptions=True)
        left: dict[str, float] = {}
        for _ in range(300):
            await asyncio.sleep(0.2)
            now = await figures(session, port)
            names = ("cti_calls", "cti_clients", "cti_journal_buffered", "cti_interactions_unwritten")
            left = {name: now[name] for name in names if now[name]}
            if not left and not pbx.calls:
                break
    points.append((pbx.ended, resident_of(pid)))
    settled = [point for point in points if point[0] >= min(WARM_UP, ended // 2)]
    growth = slope(settled)
    bad = (
        "cti_journal_dropped_total",
        "cti_listener_failures_total",
        "cti_ami_reconnects_total",
        "cti_drift_total",
    )
    return {
        "calls": pbx.ended,
        "facts": int(now["cti_facts_total"]),
        "seconds": round(seconds),
        "calls_a_second": round(ended / seconds),
        "server_cpu_us_a_call": round(cpu / ended * 1e6),
        "megabytes": {
            "after_warm_up": round(settled[0][1] / 1e6, 2),
            "at_the_end": round(points[-1][1] / 1e6, 2),
            "most": round(max(size for _, size in points) / 1e6, 2),
            "slope_a_million_calls": round(growth, 2),
        },
        "samples": [[done, round(size / 1e6, 2)] for done, size in points],
        "most": {name: most[name] for name in ("cti_calls", "cti_journal_buffered", "cti_interactions_unwritten")},
        "went_wrong": {name: now[name] for name in bad if now.get(name)},
        "held_at_the_end": left,
        "goal": {"nothing_held": not left, "flat": growth < SLOPE_MOST if ended >= 2 * WARM_UP else None},
    }  # fmt: skip


async def measure(calls: int, every: int, pace: float, folder: Path) -> dict[str, Any]:
    callers = tuple(Caller(number=synthetic_number(n)[1:], name=f"Customer {n}") for n in range(CUSTOMERS))
    plan = Plan(
        agents=AGENTS, first_extension=FIRST_EXTENSION, static_members=True, callers=callers, greeting=0.0,
        ring=(0.05, 0.1), talk=(0.05, 0.15), patience=(0.3, 4.0), ring_limit=1.0, no_answer=0.02, refused=0.02, seed=1,
    )  # fmt: skip
    simulator = Simulator(plan, port=0, users={"cti": User(secret=SECRET, lean=True)})
    with contextlib.ExitStack() as ended:
        dsn = await asyncio.to_thread(ended.enter_context, database(CUSTOMERS))
        async with simulator:
            running = server(simulator.port, dsn, folder / "log")
            port, pid = await asyncio.to_thread(running.__enter__)
            try:
                return await drive(simulator, port, pid, calls, every, pace)
            finally:
                await asyncio.to_thread(running.__exit__, None, None, None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=10_000, help="calls between two samples")
    parser.add_argument("--pace", type=float, default=200.0, help="calls a second to begin with")
    args = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    where = machine()
    folder = scratch_folder("cti-bench-")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(measure(args.calls, args.every, args.pace, folder))
    except Exception:
        sys.stderr.write((folder / "log").read_text(errors="replace")[-20_000:])
        raise
    finally:
        remove_folder(folder)
    print(json.dumps({"benchmark": "server_memory", "machine": where, **result}))


if __name__ == "__main__":
    main()
