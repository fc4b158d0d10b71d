"""Fan-out: what it costs to hand one fact to 1,000 websocket clients, beside a bare loop that writes a ready frame.

Run: python -m benchmarks.fanout. Clients are real websocket connections over loopback, read by another process.
Both ways run in the same process on the same transports, in turns; CPU time is this process's own (user + system).
Prints one JSON object; `ratio` is hub / bare.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import uvloop
from aiohttp import web

from cti.bus import Envelope, serialise
from cti.commands import Commands
from cti.facts import PbxStatusChanged
from cti.hub import Hub, frame
from cti.people import Actor, Role
from cti.websocket import Websocket


def read_all(port: int, clients: int) -> None:
    """The other process: connects so many clients, then reads and throws away."""
    selector = selectors.DefaultSelector()
    for number in range(clients):
        connection = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            (
                f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: cti.v1\r\n\r\n"
            ).encode()
        )
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        hello = json.dumps({"op": "hello", "id": "1", "token": f"user{number}"}).encode()
        size = bytes((0x81, 0x80 | len(hello)))
        connection.sendall(size + bytes(4) + hello)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
    buffer = bytearray(1 << 20)
    while True:
        for key, _ in selector.select():
            if key.fileobj.recv_into(buffer) == 0:  # type: ignore[union-attr]
                return


class Grant:
    """A token that never ends."""

    def __init__(self, login: str) -> None:
        self.actor = Actor(login=login, name=login, role=Role.AGENT)
        self.expires = None


def cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(clients: int, facts: int, rounds: int, size: int) -> dict[str, Any]:
    hub = Hub(
        subscriptions=lambda actor: frozenset({"all", f"agent:{actor.login}"}),
        snapshot=lambda _actor: {},
        seq=lambda: 0,
        epoch="bench",
        buffer=1 << 24,
        heartbeat=3600,
        now=lambda: datetime.now(UTC),
        version="0",
    )

    async def authenticate(token: str) -> Grant:
        return Grant(token)

    async def resume(epoch: str, after: int, topics: frozenset[str]) -> None:
        return None

    websocket = Websocket(
        hub=hub,
        commands=Commands(audit=lambda *_: None),
        authenticate=authenticate,
        resume=resume,
        seq=lambda: 0,
    )
    app = web.Application()
    app.router.add_get("/ws", websocket.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    port = runner.addresses[0][1]
    reader = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fanout", "--read", str(port), "--clients", str(clients)]
    )
    try:
        deadline = time.monotonic() + 60
        while len(hub) < clients:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(hub)} of {clients} clients came")
            await asyncio.sleep(0.05)
        transports = [session.wire for session in hub]
        fact = PbxStatusChanged(at=datetime.now(UTC), pbx="main", phase="up", code="ok", why="x" * size)
        packed, data = serialise(1, fact)
        envelope = Envelope(1, fact, frozenset({"all", "admin"}), packed, data)
        ready = frame(packed)

        async def drained() -> None:
            while any(transport.get_write_buffer_size() for transport in transports):
                await asyncio.sleep(0.001)

        async def bare() -> float:
            before = cpu()
            for _ in range(facts):
                for transport in transports:
                    transport.write(ready)
                await asyncio.sleep(0)
            await drained()
            return (cpu() - before) / facts

        async def through_hub() -> float:
            before = cpu()
            for _ in range(facts):
                hub.carry(envelope)
                await asyncio.sleep(0)
            await drained()
            return (cpu() - before) / facts

        await bare()
        await through_hub()
        pairs = []
        for turn in range(rounds):
            if turn % 2:
                hub_cpu, bare_cpu = await through_hub(), await bare()
            else:
                bare_cpu, hub_cpu = await bare(), await through_hub()
            pairs.append((bare_cpu, hub_cpu))
        assert len(hub) == clients, "a client was lost on the way"
    finally:
        reader.kill()
        reader.wait()
        hub.stop()
        await runner.cleanup()
    bare_ms = statistics.median(pair[0] for pair in pairs) * 1000
    hub_ms = statistics.median(pair[1] for pair in pairs) * 1000
    return {
        "benchmark": "fanout",
        "clients": clients,
        "frame_bytes": len(ready),
        "facts": facts * rounds,
        "bare_cpu_ms_per_fact": round(bare_ms, 3),
        "hub_cpu_ms_per_fact": round(hub_ms, 3),
        "hub_cpu_us_per_client": round(hub_ms * 1000 / clients, 2),
        "ratio": round(statistics.median(pair[1] / pair[0] for pair in pairs), 3),
        "target": 1.3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--facts", type=int, default=50, help="facts a round")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, default=800, help="bytes of text in the fact")
    parser.add_argument("--read", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, given.clients + 200)), hard))
    if given.read:
        read_all(given.read, given.clients)
        return
    print(json.dumps(uvloop.run(measure(given.clients, given.facts, given.rounds, given.size))))


if __name__ == "__main__":
    main()
