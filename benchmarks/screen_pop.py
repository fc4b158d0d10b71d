"""Screen pop: from the AMI event that makes an offer possible to the pop at the client, beside a bare loop.

Run: python -m benchmarks.screen_pop. A simulator process makes calls for 300 agents to 1,000,000 numbers; in turns, at the
same rate, they go

    server   through `cti serve` as it is, database and journal and all, to a client who may see every pop (and so gets
             every other fact too)
    bare     through a loop with nothing but a lazy parser, one prepared query for each offer and one websocket send

to one websocket client in a process of its own. Latency is from the Timestamp of the Newchannel of the agent's leg, which
the simulator stamps as it writes it, to the moment at which the client has the pop. `shown` is the first pop.shown,
`complete` the first pop with the customer in it. Then both get 1,000 calls a second: `lag` is the median latency of each
second, and `backlog` whether it was still high at the end.
The first run loads the numbers into a PostgreSQL of its own, which is kept for the next. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import msgspec
import structlog
import uvloop
from aiohttp import web

import cti.database
from benchmarks.ami_parse import GREETING, logged_in
from benchmarks.machine import machine, percentile
from crm.resolution import settle
from crm.sample_data import load_synthetic, synthetic_number
from cti.database import migrate
from cti.embedded.place import free_ports, home, remove_folder, scratch_folder
from cti.embedded.postgres import Postgres
from cti.people import Actor, Role
from cti.settings import FiguresSettings
from cti.tokens import Tokens

AGENTS = 300
FIRST_EXTENSION = 1001
SECRET = "simulated"
SIGNING_KEY = "a key for benchmarks only, of no use elsewhere"
GOALS = {"p50": 2.0, "p99": 3.0}
LAG_MOST_MS = 250.0
"""Median latency in the last two seconds of the busy run above which the server has fallen behind."""


def conduct(pace: int) -> tuple[str, str]:
    """Seconds of ringing and of talk with which 300 agents suffice for so many calls a second."""
    return ("0.3-0.6", "0.3-0.8") if pace <= 250 else ("0.05-0.1", "0.05-0.15")


# ------------------------------------------------------------------------------------------------ the stage


@contextlib.contextmanager
def database(accounts: int) -> Iterator[str]:
    """A PostgreSQL with so many customers and the agents in it; its address."""
    migrations = sorted(Path(cti.database.__file__).parent.glob("migrations/*"))
    known = hashlib.sha256(b"".join(path.read_bytes() for path in migrations if path.is_file())).hexdigest()
    template = f"numbers_{accounts}_{known[:12]}_settled"
    server = Postgres(home() / "benchmarks" / "postgres", durable=False)
    server.start()
    try:
        try:
            asyncio.run(_present(server.dsn_of(template)))
        except asyncpg.InvalidCatalogNameError:
            dsn = server.create_database("loading")
            asyncio.run(_load(dsn, accounts))
            asyncio.run(_rename(server.dsn_of("postgres"), "loading", template))
        name = f"run_{os.getpid()}"
        try:
            yield server.create_database(name, template)
        finally:
            server.drop_database(name)
    finally:
        server.stop()


async def _present(dsn: str) -> None:
    await (await asyncpg.connect(dsn)).close()


async def _rename(dsn: str, old: str, new: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f'ALTER DATABASE "{old}" RENAME TO "{new}"')
    await connection.close()


async def _load(dsn: str, accounts: int) -> None:
    await migrate(dsn)
    connection = await asyncpg.connect(dsn)
    await load_synthetic(connection, accounts, interactions=accounts // 10)
    people = [(f"a{n}", f"Agent {n}", f"PJSIP/{FIRST_EXTENSION + n}") for n in range(AGENTS)]
    await connection.executemany(
        "INSERT INTO users (login, name, role) VALUES ($1, $2, 'agent')",
        [(login, name) for login, name, _ in people],
    )
    await connection.executemany(
        "INSERT INTO agent_interfaces (login, pbx, interface) VALUES ($1, 'main', $2)",
        [(login, interface) for login, _, interface in people],
    )
    await connection.executemany(
        "INSERT INTO agent_queues (login, queue) VALUES ($1, $2)",
        [(login, ("main:sales", "main:support")[n % 2]) for n, (login, _, _) in enumerate(people)],
    )
    await connection.executemany(
        "INSERT INTO agent_sessions (login, logged_on, ready, since) VALUES ($1, true, true, now())",
        [(login,) for login, _, _ in people],
    )
    await connection.close()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        # as in a house that has been at work for long
        while await settle(pool, days=FiguresSettings().first_call_days, now=datetime.now(UTC)):
            pass
        await pool.execute("VACUUM ANALYZE")


@contextlib.contextmanager
def process(command: list[str], *, log: Path, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, ended with the block; what it says goes to `log` where it is not read."""
    with log.open("ab") as errors:
        child = subprocess.Popen([sys.executable, *command], stderr=errors, **more)
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextlib.contextmanager
def simulator(pace: int, numbers: Path, log: Path) -> Iterator[tuple[int, int]]:
    """(port, process id)."""
    ring, talk = conduct(pace)
    command = [
        "-m", "cti.simulator", "--port", "0", "--secret", SECRET, "--calls-per-second", "0", "--agents", str(AGENTS),
        "--first-extension", str(FIRST_EXTENSION), "--static-members", "--numbers", str(numbers), "--greeting", "0",
        "--ring", ring, "--talk", talk, "--patience", "5-10", "--ring-limit", "1", "--seed", "1",
    ]  # fmt: skip
    with process(command, log=log, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        hello = json.loads(child.stdout.readline())
        yield int(hello["listening"].rpartition(":")[2]), child.pid


@contextlib.contextmanager
def server(ami: int, dsn: str, log: Path) -> Iterator[tuple[int, int]]:
    """The real one: (port, process id) once its PBX is up."""
    port = free_ports(1)[0]
    environment = {
        **os.environ,
        "CTI_DATABASE_URL": dsn,
        "CTI_PORT": str(port),
        "CTI_SECRET_KEY": SIGNING_KEY,
        "CTI_PBX__MAIN__PORT": str(ami),
        "CTI_PBX__MAIN__SECRET": SECRET,
        "CTI_PBX__MAIN__REGION": "GB",
        "CTI_WRAP_UP__SECONDS": "0",
        "CTI_LOG_LEVEL": "warning",
    }
    with process(["-m", "cti", "serve"], log=log, env=environment) as child:
        _until_ready(f"http://127.0.0.1:{port}/readyz", child, log)
        yield port, child.pid


def _until_ready(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"it did not come up: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def bare(ami: int, dsn: str, log: Path) -> Iterator[tuple[int, int]]:
    """The bare loop: (port, process id)."""
    port = free_ports(1)[0]
    command = ["-m", "benchmarks.screen_pop", "--as-bare", str(port), str(ami)]
    with process(command, log=log, stdout=subprocess.PIPE, env={**os.environ, "BENCHMARK_DSN": dsn}) as child:
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            raise RuntimeError(log.read_text(errors="replace")[-2000:])
        yield port, child.pid


def set_pace(ami: int, pace: int) -> None:
    """Lets the calls begin."""
    with socket.create_connection(("127.0.0.1", ami)) as connection:
        for action in (
            f"Login\r\nUsername: cti\r\nSecret: {SECRET}\r\nEvents: off",
            f"Simulator\r\nCallsPerSecond: {pace}",
        ):
            connection.sendall(f"Action: {action}\r\n\r\n".encode())
            while b"Response: Success" not in connection.recv(65536):
                pass


# ------------------------------------------------------------------------------------------------ the bare loop


async def bare_loop(port: int, ami: int, dsn: str) -> None:
    """Lazy parser, one prepared query, one send, and nothing else."""
    loop = asyncio.get_running_loop()
    connection = await asyncpg.connect(dsn)
    statement = await connection.prepare(
        """SELECT a.id, a.number, a.name, a.kind, a.class, a.language, a.country, a.timezone
           FROM phones p JOIN accounts a ON a.id = p.account_id WHERE p.e164 = $1"""
    )
    offers: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue()
    numbers: dict[bytes, bytes] = {}
    sockets: list[web.WebSocketResponse] = []

    def field(raw: bytes, mark: bytes) -> bytes:
        start = raw.find(mark) + len(mark)
        return raw[start : raw.find(b"\r\n", start)]

    def newchannel(raw: bytes) -> None:
        linked = field(raw, b"\r\nLinkedid: ")
        channel = field(raw, b"\r\nChannel: ")
        if channel.startswith(b"PJSIP/trunk"):
            numbers[linked] = field(raw, b"\r\nCallerIDNum: ")
        elif linked in numbers:
            offers.put_nowait((field(raw, b"\r\nTimestamp: ").decode(), channel.decode(), numbers[linked]))

    class Ami(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            login = f"Action: Login\r\nUsername: cti\r\nSecret: {SECRET}\r\n\r\n"
            cast("asyncio.Transport", transport).write(login.encode())
            self.lazy = logged_in(lambda records: None, {b"Newchannel": newchannel})
            self.greeted = False

        def data_received(self, data: bytes) -> None:
            self.lazy.data_received(data if self.greeted else data.removeprefix(GREETING))
            self.greeted = True

    async def websocket(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse(protocols=("cti.v1",))
        await answer.prepare(request)
        sockets.append(answer)
        async for _ in answer:
            pass
        return answer

    app = web.Application()
    app.router.add_get("/ws", websocket)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await loop.create_connection(Ami, "127.0.0.1", ami)
    print("ready", flush=True)
    while True:
        at, channel, number = await offers.get()
        row = await statement.fetchrow("+" + number.decode())
        pop = {
            "type": "pop.shown",
            "at": at,
            "data": {"agent": channel, "view": {"candidates": [dict(row)] if row else []}},
        }
        for socket_ in sockets:
            await socket_.send_str(msgspec.json.encode(pop).decode())


# ------------------------------------------------------------------------------------------------ the reading process


class Reader:
    """Reads websockets with as little work as can be, and notes when pops come."""

    def __init__(self) -> None:
        self.shown: dict[str, tuple[float, float]] = {}
        self.complete: dict[str, tuple[float, float]] = {}
        self.frames = 0
        self._selector = selectors.DefaultSelector()
        self._tails: dict[int, bytes] = {}

    def connect(self, port: int, token: str | None) -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = b64encode(os.urandom(16)).decode()
        connection.sendall(
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: cti.v1\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        if b" 101 " not in head[:32]:
            raise RuntimeError(head[:200].decode(errors="replace"))
        if token is not None:
            hello = json.dumps({"op": "hello", "id": "1", "token": token}).encode()
            connection.sendall(bytes((0x81, 0x80 | 126)) + len(hello).to_bytes(2, "big") + bytes(4) + hello)
        connection.setblocking(False)
        self._tails[connection.fileno()] = head.partition(b"\r\n\r\n")[2]
        self._selector.register(connection, selectors.EVENT_READ)

    def read_until(self, end: float) -> None:
        """Reads whatever comes until that moment."""
        while (left := end - time.time()) > 0:
            for key, _ in self._selector.select(left):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                data = connection.recv(1 << 20)
                now = time.time()
                if not data:
                    raise RuntimeError("the other side has closed the websocket")
                self._tails[key.fd] = self._frames(self._tails[key.fd] + data, now)

    def _frames(self, data: bytes, now: float) -> bytes:
        at = 0
        while len(data) - at >= 2:
            size, head = data[at + 1] & 0x7F, 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if len(data) - at < head:
                    break
                size = int.from_bytes(data[at + 2 : at + head], "big")
            if len(data) - at < head + size:
                break
            payload = data[at + head : at + head + size]
            at += head + size
            self.frames += 1
            if b'"type":"pop.' in payload[:60]:
                self._pop(msgspec.json.decode(payload), now)
        return data[at:]

    def _pop(self, frame: dict[str, Any], now: float) -> None:
        data = frame["data"]
        view = data.get("view")
        if view is None:
            return
        when = frame["at"]
        began = datetime.fromisoformat(when).timestamp() if "T" in when else float(when)
        name = data.get("pop") or f"{data['agent']} {when}"
        if frame["type"] == "pop.shown":
            self.shown.setdefault(name, (began, now - began))
        if name in self.shown and view["candidates"]:
            began = self.shown[name][0]
            self.complete.setdefault(name, (began, now - began))


def read(port: int, token: str | None, warm_up: float, seconds: float) -> dict[str, Any]:
    """Reads for so long; every pop offered after the warm-up."""
    reader = Reader()
    reader.connect(port, token)
    reader.read_until(time.time() + warm_up)
    begin = time.time()
    print("measuring", flush=True)
    reader.read_until(begin + seconds)
    end = begin + seconds

    def during(pops: dict[str, tuple[float, float]]) -> list[tuple[float, float]]:
        return [(at - begin, late) for at, late in pops.values() if begin <= at < end]

    return {"shown": during(reader.shown), "complete": during(reader.complete), "frames": reader.frames}


# ------------------------------------------------------------------------------------------------ measuring


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_run(way: str, pace: int, seconds: float, dsn: str, numbers: Path, log: Path) -> dict[str, Any]:
    with (
        simulator(pace, numbers, log) as (ami, simulator_pid),
        (server if way == "server" else bare)(ami, dsn, log) as (port, pid),
    ):
        order = {
            "port": port,
            "token": _token() if way == "server" else None,
            "warm_up": 2.0,
            "seconds": seconds,
        }
        with process(
            ["-m", "benchmarks.screen_pop", "--as-reader"],
            log=log,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write(json.dumps(order).encode() + b"\n")
            reader.stdin.flush()
            set_pace(ami, pace)
            if reader.stdout.readline() != b"measuring\n":
                raise RuntimeError(f"the reader failed: {log.read_text(errors='replace')[-2000:]}")
            before = {"simulator": cpu_of(simulator_pid), way: cpu_of(pid), "reader": cpu_of(reader.pid)}
            began = time.monotonic()
            answer = reader.stdout.readline()
            if not answer:
                raise RuntimeError("the reader failed")
            took = time.monotonic() - began
            pids = {"simulator": simulator_pid, way: pid}
            cores = {name: round((cpu_of(of) - before[name]) / took, 2) for name, of in pids.items()}
    found: dict[str, Any] = json.loads(answer)
    return {**found, "cores": cores}


def _token() -> str:
    """Of somebody who sees every pop."""
    maker = Tokens("", None, key=SIGNING_KEY.encode(), access=timedelta(hours=1))  # type: ignore[arg-type]  # it only signs
    actor = Actor(login="bench", name="Benchmark", role=Role.ADMIN)
    return maker.issue(actor, "00000000-0000-4000-8000-000000000000")[0]


def known(value: float) -> float | None:
    """Rounded; None for what was not measured."""
    return None if math.isnan(value) else round(value, 2)


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times as long; None where one was not measured."""
    return round(ours / theirs, 2) if ours is not None and theirs else None


def figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"pops": sum(len(run["shown"]) for run in runs)}
    for name in ("shown", "complete"):
        late = [latency * 1e3 for run in runs for _, latency in run[name]]
        found[name] = {
            f"p{round(share * 100)}_ms": known(percentile(late, share)) for share in (0.5, 0.9, 0.99)
        }
    found["frames"] = sum(run["frames"] for run in runs)
    found["cores"] = runs[-1]["cores"]
    return found


def lag(run: dict[str, Any], seconds: float) -> list[float | None]:
    """The median latency of each second, milliseconds; None where nothing came."""
    by_second: list[list[float]] = [[] for _ in range(int(seconds))]
    for at, late in run["shown"]:
        by_second[min(int(at), len(by_second) - 1)].append(late * 1e3)
    return [known(percentile(values, 0.5)) for values in by_second]


def measure(args: argparse.Namespace, log: Path) -> dict[str, Any]:
    with database(args.accounts) as dsn:
        numbers = log.with_name("numbers")
        step = max(1, args.accounts // 20_000)
        places = range(0, args.accounts, step)
        numbers.write_text(
            "".join(f"{synthetic_number(n)[1:]},Customer {n}\n" for n in places), encoding="utf-8"
        )
        runs: dict[str, list[dict[str, Any]]] = {"bare": [], "server": []}
        for _ in range(args.rounds):
            for way, done in runs.items():
                done.append(one_run(way, args.pace, args.seconds, dsn, numbers, log))
        ways = {way: figures(done) for way, done in runs.items()}
        ratios = {
            f"{name}_{share}": ratio(
                ways["server"][name][f"{share}_ms"], ways["bare"]["complete"][f"{share}_ms"]
            )
            for name in ("shown", "complete")
            for share in ("p50", "p99")
        }
        met = all((ratios[f"complete_{share}"] or math.inf) <= most for share, most in GOALS.items())
        result: dict[str, Any] = {
            "accounts": args.accounts,
            "calls_a_second": args.pace,
            "latency": {**ways, "server_to_bare": ratios, "goal_met": met},
        }
        if args.busy_seconds:
            busy: dict[str, Any] = {}
            for way in ("bare", "server"):
                run = one_run(way, 1000, args.busy_seconds, dsn, numbers, log)
                lags = lag(run, args.busy_seconds)
                last = [value for value in lags[-2:] if value is not None]
                behind = not last or max(last) > LAG_MOST_MS
                busy[way] = {**figures([run]), "lag_ms_by_second": lags, "backlog": behind}
            result["busy_1000_calls_a_second"] = {**busy, "goal_met": not busy["server"]["backlog"]}
        return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--pace", type=int, default=200, help="calls a second where latency is compared")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run at that pace")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--busy-seconds", type=float, default=20.0, help="at 1,000 calls a second; 0 leaves it out"
    )
    parser.add_argument("--as-bare", nargs=2, type=int, metavar=("PORT", "AMI"), help=argparse.SUPPRESS)
    parser.add_argument("--as-reader", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if args.as_bare:
        port, ami = args.as_bare
        uvloop.run(bare_loop(port, ami, os.environ["BENCHMARK_DSN"]))
        return
    if args.as_reader:
        print(json.dumps(read(**json.loads(sys.stdin.readline()))), flush=True)
        return
    where = machine()
    folder = scratch_folder("cti-bench-")
    try:
        result = measure(args, folder / "log")
    except Exception:
        sys.stderr.write((folder / "log").read_text(errors="replace")[-4000:])
        raise
    finally:
        remove_folder(folder)
    print(json.dumps({"benchmark": "screen_pop", "machine": where, **result}))


if __name__ == "__main__":
    main()
