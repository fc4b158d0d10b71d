"""From a call's question to its answer, as the call itself sees it: a real Asterisk, 100 calls a second.

    python -m benchmarks.routing [--accounts N] [--rate N] [--seconds N] [--rules N]

Asterisk's own clock is read in the dialplan before the question and after the answer. `server` is `cti serve` with its
database, looking up each caller and deciding by the rules; beside it two bare baselines that only answer a constant, each
in a process of its own: `bare_ami` by the same event and variable, `bare_agi` by FastAGI (where res_agi can be loaded).
`decide` is the decision alone, in microseconds. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import structlog

from benchmarks import scratch
from crm.sample_data import load_synthetic, synthetic_number
from cti.ami import AmiLink, LinkPhase
from cti.ami_events import PARSERS, RouteAsked, fields_of
from cti.database import connection, migrate
from cti.embedded.asterisk import AsteriskFailed, find_or_provision
from cti.embedded.place import free_ports, home
from cti.embedded.sample_pbx import SamplePbx
from routing.answer import variables
from routing.decide import CallFacts, Customer, Decision, Floor, decide
from routing.document import read_document, rule_set
from routing.store import add

DIALPLAN = """
[bench-route]
exten => _X.,1,Set(BENCH=${{STRFTIME(,,%s%6q)}})
 same => n,Gosub(cti-route,s,1(${{EXTEN}}))
 same => n,UserEvent(Bench,Took: none)
 same => n,Hangup()
[bench-agi]
exten => _X.,1,Set(BENCH=${{STRFTIME(,,%s%6q)}})
 same => n,AGI(agi://127.0.0.1:{agi}/route)
 same => n,Goto(cti-places,bench,1)
[cti-places](+)
exten => bench,1,UserEvent(Bench,Took: $[${{STRFTIME(,,%s%6q)}}-${{BENCH}}])
 same => n,Hangup()
"""


def document(rules: int) -> dict[str, Any]:
    """So many rules that do not match, with conditions of all kinds, and one at the end that does."""
    kinds: tuple[dict[str, Any], ...] = (
        {"customer": {"class": ["Z"]}},
        {"customer": {"has_open": ["complaint"], "class": ["Q"]}},
        {"caller_country": ["NZ"]},
        {"open": "night"},
        {"time": [{"days": ["sun"], "from": "03:00", "to": "03:01", "zone": "Pacific/Auckland"}]},
        {"waiting": {"queue": "sales", "more_than": 5000}},
    )
    never = [
        {"id": f"r{n}", "when": kinds[n % len(kinds)], "then": {"priority": n}} for n in range(rules - 1)
    ]
    return {
        "entries": [{"id": f"e{n}", "numbers": [f"44207946{n:04}"], "queue": "sales"} for n in range(100)]
        + [{"id": "bench", "numbers": ["5550100"], "queue": "sales"}],
        "calendars": {
            "night": {
                "zone": "Europe/Berlin",
                "hours": [{"days": ["mon"], "from": "03:00", "to": "03:01"}],
            }
        },
        "rules": [*never, {"id": "all", "then": {"target": {"place": "bench"}}}],
    }


def told(took: list[float]) -> dict[str, float]:
    """Milliseconds at the median, the 99th percentile and the worst."""
    took.sort()
    if not took:
        return {"calls": 0}
    return {
        "calls": len(took),
        "p50_ms": round(took[len(took) // 2], 2),
        "p99_ms": round(took[int(len(took) * 0.99)], 2),
        "max_ms": round(took[-1], 2),
    }


# ------------------------------------------------------------------------------------------------ who answers


async def answer_by_ami(port: int, user: str, secret: str) -> None:
    """The bare AMI baseline: every question gets the same answer."""
    constant = variables(Decision(action="place", place="bench"), "1")
    tasks: set[asyncio.Task[object]] = set()

    def on_records(records: list[object]) -> None:
        for record in records:
            if type(record) is RouteAsked:
                for name, value in constant:
                    headers = {"Channel": record.channel, "Variable": name, "Value": value}
                    task: asyncio.Task[object] = asyncio.ensure_future(link.send("Setvar", headers))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)

    link = AmiLink(
        pbx="bench",
        host="127.0.0.1",
        port=port,
        username=user,
        secret=secret,
        parsers=PARSERS,
        on_records=on_records,
        on_status=lambda status: None,
    )
    await link.run()


async def answer_by_agi(port: int) -> None:
    """The bare FastAGI baseline."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(5):
                while (await reader.readline()).strip():
                    pass
                writer.write(b'SET VARIABLE CTI_DO "place"\n')
                await reader.readline()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


# ------------------------------------------------------------------------------------------------ who asks


class Callers:
    """Calls that ask: Local channels, so many a second."""

    def __init__(self, pbx: SamplePbx) -> None:
        self._took: list[float] = []
        self.unanswered = 0
        self.link = AmiLink(
            pbx="callers",
            host="127.0.0.1",
            port=pbx.ami_port,
            username=pbx.admin_username,
            secret=pbx.admin_secret,
            parsers={b"UserEvent": self._heard},
            on_records=lambda records: None,
            on_status=lambda status: None,
        )

    def _heard(self, raw: bytes) -> None:
        f = fields_of(raw)
        if f.get("UserEvent") == "Bench":
            if f["Took"] == "none":
                self.unanswered += 1
            else:
                self._took.append(float(f["Took"]) / 1000)

    async def call(self, context: str, rate: float, seconds: float, accounts: int) -> dict[str, Any]:
        """What became of them."""
        self._took, self.unanswered = [], 0
        chance, count = random.Random(1), int(rate * seconds)
        began, tasks = time.perf_counter(), []
        for place in range(count):
            await asyncio.sleep(max(0.0, began + place / rate - time.perf_counter()))
            headers = {
                "Channel": f"Local/5550100@{context}/n",
                "Application": "Wait",
                "Data": "1",
                "CallerID": synthetic_number(chance.randrange(accounts)),
            }
            tasks.append(asyncio.create_task(self.link.originate(headers, timeout=30)))
        await asyncio.gather(*tasks)
        deadline = time.perf_counter() + 10
        while len(self._took) + self.unanswered < count and time.perf_counter() < deadline:
            await asyncio.sleep(0.05)
        return {**told(self._took), "unanswered": count - len(self._took)}


async def until(true: Any, what: str, within: float = 30.0) -> None:
    """Wait for something."""
    deadline = time.monotonic() + within
    while not await true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.05)


async def measure(pbx: SamplePbx, dsn: str, given: argparse.Namespace, agi_port: int) -> dict[str, Any]:
    """Everything, one after the other."""
    await migrate(dsn)
    async with connection(dsn, name="bench") as db:
        await load_synthetic(db, given.accounts, interactions=given.accounts // 2)
        await db.execute("VACUUM ANALYZE")
        await add(db, document(given.rules), after=0, by="bench", note="")
    callers = Callers(pbx)
    link = asyncio.create_task(callers.link.run())
    result: dict[str, Any] = {
        "accounts": given.accounts, "rules": given.rules, "rate": given.rate, "decide": alone(given.rules),
    }  # fmt: skip

    async def up() -> bool:
        return callers.link.status.phase is LinkPhase.UP

    async def asks() -> bool:
        return (await callers.link.send("Getvar", {"Variable": "CTI_ROUTING"})).get("Value") == "on"

    await until(up, "AMI")
    await callers.link.send("Events", {"EventMask": "user"})  # else watching costs more than what is watched
    rate, seconds, accounts = given.rate, given.seconds, given.accounts
    try:
        port = free_ports(1)[0]
        environment = {
            "CTI_DATABASE_URL": dsn,
            "CTI_PORT": str(port),
            "CTI_LOG_LEVEL": "warning",
            "CTI_PBX__MAIN__PORT": str(pbx.ami_port),
            "CTI_PBX__MAIN__USERNAME": pbx.username,
            "CTI_PBX__MAIN__SECRET": pbx.secret,
        }
        with running(["-m", "cti", "serve"], environment):

            async def ready() -> bool:
                with contextlib.suppress(aiohttp.ClientError):
                    async with (
                        aiohttp.ClientSession() as http,
                        http.get(f"http://127.0.0.1:{port}/readyz") as answer,
                    ):
                        return answer.status == 200
                return False

            await until(ready, "the server")
            await until(asks, "the server asks for questions")
            await callers.call("bench-route", rate, 1, accounts)
            result["server"] = await callers.call("bench-route", rate, seconds, accounts)
        await callers.link.send("Setvar", {"Variable": "CTI_ROUTING", "Value": "on"})
        with running(["-m", "benchmarks.routing", "--ami", str(pbx.ami_port), pbx.username, pbx.secret], {}):
            await asyncio.sleep(1.5)
            await callers.call("bench-route", rate, 1, accounts)
            result["bare_ami"] = await callers.call("bench-route", rate, seconds, accounts)
        with running(["-m", "benchmarks.routing", "--agi", str(agi_port)], {}):
            await asyncio.sleep(1.0)
            await callers.call("bench-agi", rate, 1, accounts)
            result["bare_agi"] = await callers.call("bench-agi", rate, seconds, accounts)
    finally:
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
    return result


@contextlib.contextmanager
def running(arguments: list[str], environment: dict[str, str]) -> Any:
    """A Python process of its own for as long as it is needed."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **environment},
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def alone(rules: int) -> dict[str, float]:
    """The decision by itself."""
    made = rule_set(read_document(document(rules)), 1)
    who = Customer(account=1, classification="C", language="en", country="US", status="active")
    now, took = datetime.now(UTC), []
    for _ in range(2000):
        began = time.perf_counter()
        decide(made, CallFacts(dialed="5550100", ani="+1", country="US"), who, now, Floor())
        took.append((time.perf_counter() - began) * 1e6)
    took.sort()
    return {"p50_us": round(took[1000], 1), "p99_us": round(took[1980], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--rules", type=int, default=50)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--ami", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--agi", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if given.ami:
        asyncio.run(answer_by_ami(int(given.ami[0]), given.ami[1], given.ami[2]))
    if given.agi:
        asyncio.run(answer_by_agi(given.agi))
    if given.ami or given.agi:
        return
    with scratch.postgres() as server, scratch.folder() as folder, contextlib.ExitStack() as ended:
        installation = find_or_provision(home(), lambda text: print(text, file=sys.stderr))
        pbx = SamplePbx(installation, folder, "")
        ended.callback(pbx.stop)
        pbx.start()
        agi_port = free_ports(1)[0]
        dialplan = next(folder.rglob("extensions.conf"))
        dialplan.write_text(dialplan.read_text() + DIALPLAN.format(agi=agi_port))
        for command in ("module load res_speech.so", "module load res_agi.so", "dialplan reload"):
            with contextlib.suppress(AsteriskFailed):
                pbx.cli(command)
        result = asyncio.run(measure(pbx, server.create_database("bench"), given, agi_port))
        result["asterisk"] = installation.version
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result)).decode() + "\n")


if __name__ == "__main__":
    main()
