"""AMI parse and fold: what an event costs, from bytes to facts, beside stock panoramisk on the same bytes.

Run: python -m benchmarks.ami_parse. Ways, taken in turns on the same chunks:

    stock        panoramisk's AMIProtocol and Manager, one callback for every event that does nothing
    stock_ours   the same, callbacks for the events that we fold and no others
    parse        our protocol and parsers: bytes to records
    fold         and the models: records to facts (calls, connections, queues)
    bus          and the bus: each fact with its audience, its one frame, and the listeners that keep queues and agents

Streams: `recorded` (what Asterisk 22 said in the scenarios of tests/traces), `full` (simulated calls as an unfiltered
user hears them), `lean` (as one with asterisk-config/include/manager_cti.conf does). CPU time of this process; the best
of the rounds. A ratio is stock / ours; the goal is 5 for `fold` on `full`, the stream that stock panoramisk is used with.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from panoramisk.ami_protocol import AMIProtocol as StockProtocol
from panoramisk.manager import Manager

from benchmarks.machine import machine
from cti.agents import Agents, Session, WrapUp
from cti.ami_events import PARSERS, Parser
from cti.ami_protocol import AmiProtocol, ComplaintBook, LinkStats
from cti.audience import Audience
from cti.bus import Bus
from cti.calls import Calls
from cti.facts import Fact, PbxResynced
from cti.people import Agent, Directory, QueueAssignment, Team
from cti.queues import Queues
from cti.simulator.pbx import Pbx
from cti.simulator.plan import Plan
from cti.switch import Switch

GREETING = b"Asterisk Call Manager/11.0.0\r\n"
BOOTED = b"Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 1\r\nLastReload: 1\r\nStatus: Fully Booted\r\n\r\n"
TRACES = Path(__file__).parents[1] / "tests" / "traces" / "22"
ODD = (
    "28_",
    "29_",
    "30_",
    "31_",
    "90_",
    "91_",
    "92_",
)  # broken streams and several sessions: no measure of a busy hour
PHONES = 300
START = datetime(2026, 1, 1, tzinfo=UTC)

Way = Callable[[list[bytes]], int]


def recorded() -> bytes:
    """What Asterisk sent in the recorded scenarios, one after the other."""
    found = []
    for path in sorted(TRACES.glob("*.txt")):
        if path.name.startswith(ODD):
            continue
        for block in re.split(rb"\n\n(?=#[<>!=])", path.read_bytes().strip()):
            head, _, body = block.partition(b"\n")
            if head.startswith(b"#< ") and body.startswith(b"Event: "):
                found.append(body.strip(b"\n").replace(b"\n", b"\r\n") + b"\r\n\r\n")
    return b"".join(found)


def simulated(seconds: float, calls_per_second: float) -> tuple[bytes, bytes]:
    """So many seconds of a call centre with 300 agents: (full, lean)."""
    now = [1_800_000_000.0]
    plan = Plan(
        calls_per_second=calls_per_second, agents=PHONES, static_members=True, greeting=0.2, ring=(0.1, 0.4),
        talk=(0.2, 1.0), patience=(1.0, 5.0), ring_limit=2.0, seed=1,
    )  # fmt: skip
    pbx = Pbx(plan, clock=lambda: now[0])
    pbx.hears_full = pbx.hears_lean = True
    full, lean = [], []
    while now[0] < 1_800_000_000.0 + seconds:
        now[0] += 0.005
        pbx.advance()
        f, e = pbx.take()
        full.append(f)
        lean.append(e)
    return b"".join(full), b"".join(lean)


def chunks(stream: bytes, size: int = 64 << 10) -> list[bytes]:
    """As a busy socket hands it over."""
    return [stream[at : at + size] for at in range(0, len(stream), size)]


# ------------------------------------------------------------------------------------------------ the ways


def _nothing(manager: Any, event: Any) -> None:
    """The stock callback."""


def stock(patterns: Iterable[str]) -> Way:
    patterns = list(patterns)

    def run(pieces: list[bytes]) -> int:
        manager = Manager(loop=asyncio.get_running_loop())
        for pattern in patterns:
            manager.register_event(pattern, _nothing)
        protocol = StockProtocol()
        protocol.connection_made(_Deaf())
        protocol.factory = manager
        protocol.encoding = "utf-8"
        protocol.data_received(GREETING)
        for piece in pieces:
            protocol.data_received(piece)
        return 0

    return run


class _Deaf(asyncio.Transport):
    """A transport that goes nowhere."""

    def write(self, data: object) -> None:
        """Swallows it."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing to close."""


def logged_in(
    on_records: Callable[[list[object]], None], parsers: Mapping[bytes, Parser] = PARSERS
) -> AmiProtocol:
    """Our protocol as it is after a login: what is fed to it becomes records."""
    protocol = AmiProtocol(
        parsers=parsers, on_records=on_records, on_booted=lambda: None, on_lost=lambda exc: None,
        stats=LinkStats(), complaints=ComplaintBook("bench"), buffer_max=8 << 20, at_a_time=1 << 30,
    )  # fmt: skip
    protocol.connection_made(_Deaf())
    protocol.data_received(GREETING)
    protocol.authenticated = True
    protocol.data_received(BOOTED)
    return protocol


def ours(on_records: Callable[[list[object]], None]) -> Callable[[list[bytes]], None]:
    def run(pieces: list[bytes]) -> None:
        protocol = logged_in(on_records)
        for piece in pieces:
            protocol.data_received(piece)

    return run


def parse(pieces: list[bytes]) -> int:
    count = 0

    def take(records: list[object]) -> None:
        nonlocal count
        count += len(records)

    ours(take)(pieces)
    return count


def directory() -> Directory:
    """300 agents in ten teams, who work in both queues; those of the recordings are among them."""
    found = Directory()
    queues = ("main:sales", "main:support")
    people = [
        Agent(
            login=f"a{n}", name=f"Agent {n}", team=f"t{n % 10}", interfaces={"main": f"PJSIP/{1001 + n}"},
            queues=tuple(QueueAssignment(queue=queue) for queue in queues),
        )
        for n in range(PHONES)
    ]  # fmt: skip
    locals_ = ("1009", "1101", "1102", "1202", "1501", "2101", "2202", "3101", "6101", "6501")
    people += [
        Agent(login=f"l{n}", name=n, team="t0", interfaces={"main": f"Local/{n}@sim-agent/n"})
        for n in locals_
    ]
    found.load(people, [Team(id=f"t{n}", name=f"Team {n}", queues=frozenset(queues)) for n in range(10)])
    return found


def models(people: Directory, publish: Callable[[Iterable[Fact]], None]) -> Switch:
    def agent_at(device: str) -> str | None:
        return people.agent_at("main", device)

    calls = Calls(
        "main",
        agent_at=agent_at,
        is_trunk=frozenset({"PJSIP/trunk"}).__contains__,
        inbound_contexts=("from-trunk",),
    )
    return Switch("main", calls=calls, queues=Queues("main", agent_at=agent_at), publish=publish)


def fold(people: Directory) -> Way:
    def run(pieces: list[bytes]) -> int:
        count = 0

        def publish(facts: Iterable[Fact]) -> None:
            nonlocal count
            count += sum(1 for _ in facts)

        switch = models(people, publish)
        ours(switch.on_records)(pieces)  # type: ignore[arg-type]  # our parsers make records, nothing else
        return count

    return run


def every(kind: type[Fact]) -> list[type[Fact]]:
    """All classes of facts below this one."""
    return [kind, *(found for below in kind.__subclasses__() for found in every(below))]


def bus(people: Directory) -> Way:
    def run(pieces: list[bytes]) -> int:
        hub = Bus(audience=lambda fact: audience(fact))
        switch = models(people, hub.publish)
        audience = Audience(people, agents_in=switch.calls.agents_in)
        agents = Agents(people, wrap_up=WrapUp(), reasons=())
        for kind in every(Fact):
            hub.listen(kind, agents.hear)
        sent = 0

        def carry(envelope: Any) -> None:
            nonlocal sent
            sent += len(envelope.frame)

        hub.carry(carry)
        hub.publish([PbxResynced(at=START, pbx="main", reason="connected", calls=0, differences={})])
        for login in people.agents:
            session = Session(
                agent=login, logged_on=True, ready=True, reason=None, since=START, wrap_until=None
            )
            hub.publish(agents.restore(session, START))
        ours(switch.on_records)(pieces)  # type: ignore[arg-type]  # our parsers make records, nothing else
        if hub.failures:
            raise RuntimeError(f"{hub.failures} listeners failed")
        return hub.seq

    return run


# ------------------------------------------------------------------------------------------------ measuring


def cpu(way: Way, pieces: list[bytes]) -> tuple[float, int]:
    gc.collect()
    began = time.process_time()
    made = way(pieces)
    return time.process_time() - began, made


async def measure(rounds: int, seconds: float, calls_per_second: float) -> dict[str, Any]:
    logging.getLogger("panoramisk").setLevel(logging.WARNING)
    people = directory()
    ways: dict[str, Way] = {
        "stock": stock(["*"]),
        "stock_ours": stock(name.decode() for name in PARSERS),
        "parse": parse,
        "fold": fold(people),
        "bus": bus(people),
    }
    full, lean = simulated(seconds, calls_per_second)
    streams = {"recorded": recorded(), "full": full, "lean": lean}
    result: dict[str, Any] = {}
    for stream_name, stream in streams.items():
        pieces, events = chunks(stream), stream.count(b"Event: ")
        best = dict.fromkeys(ways, float("inf"))
        made = dict.fromkeys(ways, 0)
        for _ in range(rounds):
            for name, way in ways.items():
                took, made[name] = cpu(way, pieces)
                best[name] = min(best[name], took)
        result[stream_name] = {
            "events": events,
            "megabytes": round(len(stream) / 1e6, 1),
            "records": made["parse"],
            "facts": made["bus"],
            "ways": {
                name: {
                    "cpu_us_an_event": round(took / events * 1e6, 2),
                    "events_a_second": round(events / took),
                    "ratio_to_stock": round(best["stock"] / took, 2),
                    "ratio_to_stock_ours": round(best["stock_ours"] / took, 2),
                }
                for name, took in best.items()
            },
        }
        result[stream_name]["cpu_us_a_fact"] = round(best["bus"] / max(1, made["bus"]) * 1e6, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="simulated time")
    parser.add_argument("--calls-per-second", type=float, default=100.0)
    args = parser.parse_args()
    where = machine()
    streams = asyncio.run(measure(args.rounds, args.seconds, args.calls_per_second))
    ratios = {name: stream["ways"]["fold"]["ratio_to_stock"] for name, stream in streams.items()}
    verdict = {"fold_at_least_5_times_stock_on_full": ratios["full"] >= 5, "fold_to_stock": ratios}
    print(json.dumps({"benchmark": "ami_parse", "machine": where, "streams": streams, "goal": verdict}))


if __name__ == "__main__":
    main()
