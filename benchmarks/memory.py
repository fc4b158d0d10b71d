"""Memory over many calls: AMI bytes to screen pops, in one process, as fast as it goes; what it holds must not grow.

Run: python -m benchmarks.memory [--calls N] or --million. Simulated calls of 300 agents (answered, refused, not
answered, abandoned) go as bytes through protocol, parsers, calls, queues, agents, bus, audience and screen pops; each
caller is another customer. The process's resident memory is sampled; after a warm-up its slope is computed
(least squares, in megabytes a million calls). At the end, when all calls are over, nothing may be held.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from benchmarks.ami_parse import directory, every, logged_in, models
from benchmarks.machine import machine, resident
from crm.ani import Identification
from crm.pop_url import PopUrl
from crm.screen_pop import ScreenPops
from crm.views import AccountCard, Candidate
from cti.agents import Agents, Session, WrapUp
from cti.audience import Audience
from cti.bus import Bus
from cti.facts import CallFact, Fact, PbxResynced
from cti.numbers import read_caller
from cti.simulator.pbx import Pbx
from cti.simulator.plan import Caller, Plan

AGENTS = 300
CUSTOMERS = 100_000
STEP = 0.05
"""Simulated seconds between two looks at what is due."""

WARM_UP = 30_000
"""Calls before which memory may grow: the models remember some thousand ended calls, and caches fill. A run of less than
three times as many does not say whether it is flat."""

SLOPE_MOST = 8.0
"""Megabytes a million calls above which memory is not flat: less than a sample's noise."""


def slope(points: list[tuple[int, int]]) -> float:
    """Bytes a call, by least squares."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


async def find(
    text: str | None, region: str, *, account_number: str | None = None, account_id: int | None = None
) -> Identification:
    """The look-up of the server without its database: every number is a customer's."""
    account = AccountCard(
        id=1, number="S1", name="Customer", kind="person", classification="A", status="active", language="en",
        country="GB", timezone="Europe/London", email="", city="", last_contact=None,
    )  # fmt: skip
    caller = read_caller(text, region)
    return Identification(caller=caller, how="exact", candidates=(Candidate(how="exact", account=account),))


async def measure(count: int, samples: int, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    now = [1_800_000_000.0]
    callers = tuple(Caller(number=f"4474{n:08d}", name=f"Customer {n}") for n in range(CUSTOMERS))
    plan = Plan(
        calls_per_second=250, last_call=count, agents=AGENTS, static_members=True, callers=callers, greeting=0.1,
        ring=(0.1, 0.4), talk=(0.2, 0.8), patience=(0.3, 4.0), ring_limit=1.0, no_answer=0.05, refused=0.05, seed=1,
    )  # fmt: skip
    pbx = Pbx(plan, clock=lambda: now[0])
    pbx.hears_lean = True
    people = directory()
    bus = Bus(audience=lambda fact: audience(fact))
    switch = models(people, bus.publish)
    audience = Audience(people, agents_in=switch.calls.agents_in)
    agents = Agents(people, wrap_up=WrapUp(seconds=0.5), reasons=())
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def clock() -> datetime:
        return datetime.fromtimestamp(now[0], UTC)

    pops = ScreenPops(
        find=find, publish=bus.publish, region_of=lambda pbx: "GB", clock=clock, spawn=spawn, url=PopUrl("")
    )
    for kind in every(CallFact):
        bus.listen(kind, switch.queues.hear)
    for kind in every(Fact):
        bus.listen(kind, agents.hear)
    for fact, reaction in pops.reactions().items():
        bus.listen(fact, reaction)
    shown = 0

    def carry(envelope: Any) -> None:
        nonlocal shown
        shown += envelope.fact.TYPE == "pop.shown"

    bus.carry(carry)
    bus.publish([PbxResynced(at=clock(), pbx="main", reason="connected", calls=0, differences={})])
    for login in people.agents:
        session = Session(
            agent=login, logged_on=True, ready=True, reason=None, since=clock(), wrap_until=None
        )
        bus.publish(agents.restore(session, clock()))
    feed = logged_in(switch.on_records).data_received  # type: ignore[arg-type]  # our parsers make records, nothing else
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # as `cti serve` has it
    points: list[tuple[int, int]] = []
    next_sample, began, cpu_began = 0, time.monotonic(), time.process_time()
    quiet = 0
    while quiet < 3 / STEP:
        quiet = quiet + 1 if pbx.arrived >= count and not pbx.calls else 0
        now[0] += STEP
        pbx.advance()
        _, lean = pbx.take()
        if lean:
            feed(lean)
        switch.tick()
        bus.publish(agents.tick(clock()))
        await asyncio.sleep(0)
        if bus.failures:
            raise RuntimeError("a listener failed: see the log above")
        if pbx.ended >= next_sample:
            points.append((pbx.ended, resident()))
            say(f"{pbx.ended} calls, {points[-1][1] / 1e6:.1f} MB, {time.monotonic() - began:.0f} s")
            next_sample += max(1, count // samples)
    gc.collect()
    warm = [point for point in points if point[0] >= min(WARM_UP, count // 2)]
    growth = slope(warm)
    left = {**switch.calls.sizes(), "audience": len(audience), "pops": len(pops), "tasks": len(tasks)}
    return {
        "calls": pbx.ended,
        "events": pbx.lean_events,
        "facts": bus.seq,
        "pops_shown": shown,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_us_a_call": round((time.process_time() - cpu_began) / max(1, pbx.ended) * 1e6),
        "megabytes": {
            "after_warm_up": round(warm[0][1] / 1e6, 2),
            "at_the_end": round(resident() / 1e6, 2),
            "most": round(max(size for _, size in points) / 1e6, 2),
            "slope_a_million_calls": round(growth, 2),
        },
        "samples": [[calls, round(size / 1e6, 2)] for calls, size in points],
        "held_at_the_end": {name: number for name, number in left.items() if number},
        "goal": {
            "nothing_held": not any(left.values()),
            "flat": growth < SLOPE_MOST if count >= 3 * WARM_UP else None,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--million", action="store_true", help="one million calls; takes an hour or more")
    parser.add_argument("--samples", type=int, default=50)
    args = parser.parse_args()
    where = machine()
    count = 1_000_000 if args.million else args.calls
    result = asyncio.run(measure(count, args.samples, lambda line: print(line, file=sys.stderr, flush=True)))
    print(json.dumps({"benchmark": "memory", "machine": where, **result}))


if __name__ == "__main__":
    main()
