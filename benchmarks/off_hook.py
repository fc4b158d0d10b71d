"""From a called customer's answer to the bridge with an agent who works off-hook, on a real Asterisk with real SIP phones.

Run: python -m benchmarks.off_hook [--rounds N]. A customer is called over the carrier, answers, and waits in the dialplan.
`connect` is the server: it hears the answer, gives the customer to the agent's open line, and the dialplan bridges them.
`bare` is one AMI client that does nothing else: it hears the answer and sends Bridge of that leg and a phone's waiting one.
In turns, in the same run; both from Asterisk's own times, of the customer's Newstate Up and of the phone's BridgeEnter.
`queue` is a call that comes in: from joining the queue to the bridge; 30 ms of it are the moment in which the screen pop
overtakes the call. Milliseconds; `ratio` is connect over bare.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from benchmarks import scratch
from benchmarks.bare_link import bare_link
from benchmarks.machine import machine, percentile
from cti.ami import LinkPhase
from cti.ami_events import (
    BridgeEntered,
    CallerJoinedQueue,
    ChannelGone,
    ChannelState,
    ChannelStateChanged,
    Record,
)
from cti.embedded.asterisk import find_or_provision
from cti.embedded.place import home
from cti.facts import CallEstablished
from tests.centre import Centre, centre_of

PAUSE = 0.4
"""Seconds between two calls: the beep of the one before is over."""

LINE, BARE = "cti-line-1101.", "bench-waiting-leg."
LONGEST = 60.0
"""Seconds of measuring at most; what is not measured by then is left out."""


class Ear:
    """An AMI client of its own: hears when what happens, and bridges by hand where it is told to."""

    def __init__(self, centre: Centre) -> None:
        self.answered: dict[str, float] = {}
        self.bridged: dict[str, float] = {}
        self.joined = 0.0
        self.gone: set[str] = set()
        self.news = asyncio.Event()
        self.link = bare_link(centre, self._heard)
        self._sent: set[asyncio.Task[object]] = set()

    def _heard(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, ChannelStateChanged) and record.state is ChannelState.UP:
                self.answered[record.uniqueid] = record.at
                if record.uniqueid.startswith("bare-"):
                    headers = {"Channel1": record.uniqueid, "Channel2": BARE, "Tone": "no"}
                    task = asyncio.create_task(self.link.send("Bridge", headers))
                    self._sent.add(task)
            elif isinstance(record, BridgeEntered):
                self.bridged[record.uniqueid] = record.at
            elif isinstance(record, CallerJoinedQueue):
                self.joined = record.at
            elif isinstance(record, ChannelGone):
                self.gone.add(record.uniqueid)
        self.news.set()

    async def until(self, true: Callable[[], bool], limit: float = 10.0) -> None:
        async with asyncio.timeout(limit):
            while not true():
                self.news.clear()
                await self.news.wait()


async def measure(rounds: int) -> dict[str, Any]:
    installation = find_or_provision(home(), lambda line: print(line, file=sys.stderr))
    with scratch.postgres() as postgres:
        async with centre_of(installation, postgres) as centre:
            return await _measured(centre, rounds)


async def _measured(centre: Centre, rounds: int) -> dict[str, Any]:
    server = centre.server
    assert server is not None
    anna = await centre.screen("anna")
    await anna.ask("agent.set_off_hook", off_hook=True)
    await anna.ask("agent.log_on", ready=True)
    await anna.agent_is("ready", lines={"main": "open"})
    ear = Ear(centre)
    running = asyncio.create_task(ear.link.run())
    await centre.eventually(lambda: ear.link.status.phase is LinkPhase.UP, what="AMI")
    await ear.link.originate(
        {"Channel": "PJSIP/1102", "Context": "cti-answer", "Exten": "s", "Priority": "1", "ChannelId": BARE}
    )
    await ear.until(lambda: BARE in ear.answered)
    failures: list[str] = []

    async def connect(call: str) -> None:
        try:
            await server.off_hook.connect(call, "anna")
        except Exception as error:
            failures.append(f"{error}"[:200])

    def answered(fact: CallEstablished) -> None:
        if fact.call.startswith("main:connect-") and fact.agent is None:
            server._tasks.spawn(connect(fact.call))

    server.bus.listen(CallEstablished, answered)
    took: dict[str, list[float]] = {"bare": [], "connect": [], "queue": []}
    ends = time.monotonic() + LONGEST

    async def called(name: str, line: str) -> None:
        id = f"{name}-{uuid.uuid4().hex}."
        ear.bridged.pop(line, None)
        await ear.link.originate(
            {
                "Channel": "PJSIP/1000300@trunk",
                "Context": "cti-dialer",
                "Exten": "wait",
                "Priority": "1",
                "ChannelId": id,
            }
        )
        await ear.until(lambda: line in ear.bridged and id in ear.answered)
        took[name].append((ear.bridged[line] - ear.answered[id]) * 1000)
        await asyncio.sleep(PAUSE / 2)
        await ear.link.send("Hangup", {"Channel": id, "Cause": "16"})
        await ear.until(lambda: id in ear.gone)
        await asyncio.sleep(PAUSE)

    async def queued() -> None:
        ear.bridged.pop(LINE, None)
        customer = await centre.call("sales", talk=60)
        await ear.until(lambda: LINE in ear.bridged)
        took["queue"].append((ear.bridged[LINE] - ear.joined) * 1000)
        await asyncio.sleep(PAUSE / 2)
        await centre.hang_up(customer)
        await anna.agent_is("ready")
        await asyncio.sleep(PAUSE)

    try:
        for number in range(rounds + 2):
            if number == 2:  # the first ones warm up
                took = {name: [] for name in took}
            if time.monotonic() > ends:
                break
            await called("bare", BARE)
            await anna.agent_is("ready")
            await called("connect", LINE)
            if number % 4 == 0:
                await anna.agent_is("ready")
                await queued()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    figures = {
        name: {
            "calls": len(values),
            "p50_ms": round(percentile(values, 0.5), 2),
            "p99_ms": round(percentile(values, 0.99), 2),
        }
        for name, values in took.items()
        if values
    }
    shares = ("p50_ms", "p99_ms")
    ratio = {share: round(figures["connect"][share] / figures["bare"][share], 2) for share in shares}
    return {**figures, "ratio": ratio, "failures": failures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    where = machine()
    with contextlib.redirect_stdout(sys.stderr):
        result = asyncio.run(measure(rounds))
    print(json.dumps({"benchmark": "off_hook", "machine": where, "rounds": rounds, **result}, indent=1))


if __name__ == "__main__":
    main()
