"""Originate to a real Asterisk at 100 calls a second: by a campaign, and by a bare AMI client at the same rate.

Run: python -m benchmarks.originate. The called numbers do not exist (the carrier answers 404), so that calls are short and
what is measured is the placing. `campaign` claims each contact, asks the law, commits the attempt, originates and writes the
outcome; `bare` sends Originate by the clock. `to_channel`: milliseconds from the sending to the event that says that the
channel exists; `a_second`: calls placed in each whole second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import uuid
from collections import Counter
from typing import Any

from benchmarks import scratch
from benchmarks.bare_link import bare_link
from benchmarks.machine import machine, percentile
from cti.ami import LinkPhase
from cti.ami_events import ChannelAppeared, Record
from cti.embedded.asterisk import find_or_provision
from cti.embedded.place import home
from dialer.attempts import Told
from tests.centre import Centre
from tests.dialer_house import TRUNK, attempts, campaign, dialing_house, number, state


def told(took: list[float], at: list[float]) -> dict[str, Any]:
    """What became of calls that were placed at these times, each with its milliseconds."""
    seconds = Counter(int(moment - at[0]) for moment in at)
    whole = [seconds[n] for n in range(int(at[-1] - at[0]))]
    return {
        "calls": len(at),
        "a_second": {"least": min(whole, default=0), "mean": round(sum(whole) / max(1, len(whole)), 1)},
        "to_channel_p50_ms": round(percentile(took, 0.5), 2),
        "to_channel_p99_ms": round(percentile(took, 0.99), 2),
    }


async def bare(centre: Centre, rate: int, seconds: float) -> dict[str, Any]:
    """Originate by the clock, and nothing else."""
    sent: dict[str, float] = {}
    took: list[float] = []

    def heard(records: list[Record]) -> None:
        for record in records:
            if isinstance(record, ChannelAppeared) and record.uniqueid in sent:
                took.append(1000 * (time.perf_counter() - sent[record.uniqueid]))

    link = bare_link(centre, heard)
    running = asyncio.create_task(link.run())
    await centre.eventually(lambda: link.status.phase is LinkPhase.UP, what="the bare link")
    began = time.perf_counter()
    placing: list[asyncio.Task[Any]] = []
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
        id = f"bare-{uuid.uuid4().hex}"
        sent[id] = time.perf_counter()
        placing.append(
            asyncio.create_task(
                link.originate(
                    {
                        "Channel": f"PJSIP/{number('unknown', 0, n % 1000)}@trunk",
                        "Context": "cti-dialer",
                        "Exten": "message",
                        "Priority": "1",
                        "ChannelId": id,
                    }
                )
            )
        )
    await asyncio.gather(*placing)
    await centre.eventually(lambda: len(took) == len(sent), what="all channels", within=20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return told(took, sorted(sent.values()))


class Watched:
    """The server's dialer, with a clock at the door."""

    def __init__(self, dialer: Any) -> None:
        self._dialer = dialer
        self.took: list[float] = []
        self.at: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialer, name)

    def hear_record(self, pbx: str, record: Record) -> None:
        live = self._dialer.calls.of_call(f"{pbx}:{getattr(record, 'uniqueid', '')}")
        if isinstance(record, ChannelAppeared) and live is not None:
            sent = live.attempt.at[Told.SENT]
            self.at.append(sent)
            self.took.append(1000 * (asyncio.get_running_loop().time() - sent))
        self._dialer.hear_record(pbx, record)


async def by_campaign(centre: Centre, rate: int, seconds: float) -> dict[str, Any]:
    """The same calls by an agentless campaign."""
    server = centre.server
    assert server is not None
    watched = Watched(server.dialing.dialer)
    server.dialing.dialer = watched  # type: ignore[assignment]
    many = int(rate * seconds)
    numbers = [number("unknown", n // 1000, n % 1000) for n in range(many)]
    id = await campaign(
        centre, numbers, mode="agentless", queue="", calls_per_second=rate, max_lines=2000, state="draft"
    )
    await state(centre, id, "running")
    async with asyncio.timeout(60 + 3 * seconds):
        while len(rows := await attempts(centre, id)) < many or any(row["state"] != "ended" for row in rows):
            await asyncio.sleep(0.5)
    assert len({row["contact_id"] for row in rows}) == len(rows) == many, "a contact was dialed twice"
    return {
        **told(watched.took, sorted(watched.at)),
        "outcomes": dict(Counter(row["outcome"] for row in rows)),
    }


async def measure(rate: int, seconds: float) -> dict[str, Any]:
    """Both, one after the other."""
    TRUNK.update(calls_per_second=rate, channels=1000)
    installation = find_or_provision(home(), lambda line: None)
    with scratch.postgres() as postgres:
        async with dialing_house(installation, postgres) as centre:
            return {
                "bare": await bare(centre, rate, seconds),
                "campaign": await by_campaign(centre, rate, seconds),
            }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=100, help="calls a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each")
    given = parser.parse_args()
    # Logs go to the standard error: the standard output holds one JSON object.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    figures = asyncio.run(measure(given.rate, given.seconds))
    json.dump({"benchmark": "originate", "machine": machine(), **vars(given), **figures}, out, indent=2)
    print(file=out)
    out.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
