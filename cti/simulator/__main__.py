"""`python -m cti.simulator`: an Asterisk Manager Interface without an Asterisk."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from cti.simulator.plan import SOME_CALLERS, Caller, Plan, Span
from cti.simulator.server import Simulator, User


def span(text: str) -> Span:
    """`2-5` or `3` as (least, most) seconds."""
    least, dash, most = text.partition("-")
    try:
        pair = float(least), float(most if dash else least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not seconds, as 3 or 2-5") from None
    if not 0 <= pair[0] <= pair[1]:
        raise argparse.ArgumentTypeError(f"{text!r}: the first number is the smaller one")
    return pair


def callers(path: Path) -> tuple[Caller, ...]:
    """One caller a line: the number, or the number, a comma and the name."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        number, _, name = line.partition(",")
        if number.strip():
            found.append(Caller(number=number.strip(), name=name.strip() or "<unknown>"))
    if not found:
        raise ValueError(f"{path} names no caller")
    return tuple(found)


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cti.simulator",
        description="An Asterisk Manager Interface without an Asterisk: queues, agents' phones and calls as an Asterisk 22 "
        "tells them. Prints one JSON line when it listens, and one with its counts when it ends.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=5038, help="0 for any free one")
    add("--user", default="cti")
    add("--secret", default="cti-secret", help="or the environment variable SIMULATOR_SECRET")
    add("--full", action="store_true", help="send what an unfiltered user hears, noise and all")
    add("--calls-per-second", type=float, default=0.5)
    add("--most-calls", type=int, default=5000, help="calls at one time")
    add("--last-call", type=int, help="how many calls come at all")
    add("--agents", type=int, default=10, help="phones PJSIP/<extension>")
    add("--first-extension", type=int, default=1001)
    add("--queues", default="5550100=sales,5550200=support", help="number=queue,number=queue")
    add("--static-members", action="store_true", help="the phones are members from the start")
    add("--numbers", type=Path, metavar="FILE", help="who calls: one number a line, or number,name")
    add("--greeting", type=float, default=0.5, help="seconds from arrival to the queue")
    add("--ring", type=span, default=(1.0, 4.0), metavar="SECONDS", help="as 3 or 2-5")
    add("--talk", type=span, default=(10.0, 60.0), metavar="SECONDS")
    add("--patience", type=span, default=(30.0, 120.0), metavar="SECONDS")
    add("--ring-limit", type=float, default=15.0)
    add("--no-answer", type=float, default=0.03, metavar="SHARE")
    add("--refused", type=float, default=0.02, metavar="SHARE")
    add("--seed", type=int, help="the same calls again")
    add("--lag", type=float, default=0.0, help="seconds that events are late")
    add("--split", action="store_true", help="cut what is sent at odd places")
    return parser.parse_args(given)


def plan(args: argparse.Namespace) -> Plan:
    queues = dict(pair.split("=", 1) for pair in args.queues.split(","))
    return Plan(
        calls_per_second=args.calls_per_second,
        most_calls=args.most_calls,
        last_call=args.last_call,
        agents=args.agents,
        first_extension=args.first_extension,
        queues=queues,
        static_members=args.static_members,
        callers=callers(args.numbers) if args.numbers else SOME_CALLERS,
        greeting=args.greeting,
        ring=args.ring,
        talk=args.talk,
        patience=args.patience,
        ring_limit=args.ring_limit,
        no_answer=args.no_answer,
        refused=args.refused,
        seed=args.seed,
    )


def say(what: dict[str, object]) -> None:
    """One JSON line on the standard output."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def run(args: argparse.Namespace) -> None:
    """Serves until it is told to stop (SIGINT, SIGTERM)."""
    secret = os.environ.get("SIMULATOR_SECRET", args.secret)
    users = {args.user: User(secret=secret, lean=not args.full)}
    simulator = Simulator(plan(args), host=args.host, port=args.port, users=users)
    simulator.splits = args.split
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with simulator:
        simulator.lag(args.lag)
        say({"listening": f"{args.host}:{simulator.port}", "what": "AMI simulator"})
        await stop.wait()
        pbx = simulator.pbx
        counts: dict[str, object] = {
            "calls": pbx.arrived,
            "turned_away": pbx.turned_away,
            "offers": pbx.offers,
            "events": pbx.events,
            "lean_events": pbx.lean_events,
            "bytes": simulator.bytes_sent,
        }
    say(counts)


def main(given: list[str]) -> int:
    args = arguments(given)
    try:
        asyncio.run(run(args))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the simulator cannot run: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
