"""Commands: from the frame a client sends to the answer that says what happened, on a real Asterisk with real SIP phones.

Run: python -m benchmarks.command. The server is a process of its own; one agent's call is put on hold and retrieved by
command, and in turns by bare AMI actions on the same channels, until the events that prove it arrive: `ratio` is command
over bare. `action` is the smallest AMI action there is (Setvar), `ping` a command that asks Asterisk nothing. Milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks import scratch
from benchmarks.bare_link import bare_link
from benchmarks.machine import machine, percentile
from cti.ami import LinkPhase
from cti.ami_events import BridgeEntered, MusicChanged, Record
from cti.embedded.asterisk import find_or_provision
from cti.embedded.place import home
from tests.centre import Centre, centre_of

PAUSE = 0.12
"""Seconds between two measured things: below the rate of commands allowed, and all echoes have died away."""


class Bare:
    """A client of AMI that does by hand what the commands do."""

    def __init__(self, centre: Centre) -> None:
        self._seen: set[tuple[str, str]] = set()
        self._news = asyncio.Event()
        self.link = bare_link(centre, self._heard)

    def _heard(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, MusicChanged) and record.on:
                self._seen.add(("music", record.uniqueid))
            elif isinstance(record, BridgeEntered):
                self._seen.add(("bridge", record.uniqueid))
        self._news.set()

    async def _until(self, *wanted: tuple[str, str]) -> None:
        async with asyncio.timeout(5):
            while not self._seen.issuperset(wanted):
                self._news.clear()
                await self._news.wait()

    async def action(self, channel: str) -> None:
        await self.link.send("Setvar", {"Channel": channel, "Variable": "BARE", "Value": "1"})

    async def hold(self, customer: str, agent: str) -> None:
        self._seen.clear()
        place = {"Context": "cti-hold", "Exten": "music", "Priority": "1", "ExtraPriority": "1"}
        other = {"ExtraContext": "cti-hold", "ExtraExten": "silent", "ExtraChannel": agent}
        await self.link.send("Redirect", {"Channel": customer, **place, **other})
        await self._until(("music", customer))

    async def retrieve(self, customer: str, agent: str) -> None:
        self._seen.clear()
        await self.link.send("Bridge", {"Channel1": customer, "Channel2": agent, "Tone": "no"})
        await self._until(("bridge", customer), ("bridge", agent))


async def measure(rounds: int) -> dict[str, Any]:
    installation = find_or_provision(home(), lambda line: print(line, file=sys.stderr))
    with scratch.postgres() as postgres:
        async with centre_of(installation, postgres, server=False) as centre:
            await centre.start_process(CTI_LOG_LEVEL="warning")
            return await _measured(centre, rounds)


async def _measured(centre: Centre, rounds: int) -> dict[str, Any]:
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    await centre.call("sales", talk=3600)
    call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]
    at = {c["device"]: c["id"].partition(":")[2] for c in anna.picture.calls[call]["connections"]}
    customer, agent = at["PJSIP/trunk"], at["PJSIP/1101"]
    bare = Bare(centre)
    running = asyncio.create_task(bare.link.run())
    await centre.eventually(lambda: bare.link.status.phase is LinkPhase.UP, what="AMI")
    took: dict[str, list[float]] = {}

    async def timed(name: str, do: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.sleep(PAUSE)
        began = time.perf_counter()
        await do()
        took.setdefault(name, []).append((time.perf_counter() - began) * 1000)

    try:
        for number in range(rounds + 3):
            if number == 3:
                took.clear()  # the first ones warm up
            await timed("ping", lambda: anna.ask("ping"))
            await timed("action", lambda: bare.action(customer))
            await timed("hold", lambda: anna.ask("call.hold", call=call))
            await timed("retrieve", lambda: anna.ask("call.retrieve", call=call))
            await timed("bare_hold", lambda: bare.hold(customer, agent))
            await timed("bare_retrieve", lambda: bare.retrieve(customer, agent))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    figures = {
        name: {"p50_ms": round(percentile(values, 0.5), 2), "p99_ms": round(percentile(values, 0.99), 2)}
        for name, values in took.items()
    }
    return {
        "rounds": rounds,
        **figures,
        "ratio": {
            name: {
                share: round(figures[name][share] / figures[f"bare_{name}"][share], 2)
                for share in ("p50_ms", "p99_ms")
            }
            for name in ("hold", "retrieve")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    where = machine()
    with contextlib.redirect_stdout(sys.stderr):
        result = asyncio.run(measure(rounds))
    print(json.dumps({"benchmark": "command", "machine": where, **result}, indent=1))


if __name__ == "__main__":
    main()
