"""Ways of pacing on the same customers: how busy agents are, how many people pick up to silence, what a decision costs.

    python -m benchmarks.pacing [--seeds N] [--hours N] [--traffic NAME...] [--picture]

Simulated (`dialer/simulation.py`); each way of pacing meets the same customers, seed by seed. Shares in percent with
a 95 % confidence interval of the mean over the seeds; `worst` is the worst seed. `decision` is the CPU time of one
tick's `calls_to_give_up` and `calls_to_place` at 300 agents and some 1,500 lines, each tick the least of several
equal runs, so that a busy machine counts little. Prints one JSON object; the table goes to the standard error.
`--picture` draws docs/pictures/pacing.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, percentile
from dialer.forecasting.other_pacing import AverageAdapt, FixedRatio, Progressive
from dialer.pacing import Mode, Pacing, PacingConfig
from dialer.simulation import Duration, Outcome, Paces, Simulation, Traffic

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "pacing.svg"

TRAFFIC = {
    "5 agents, 15 %": Traffic(
        agents=5, answer_rate=((0, 0.15),), talk=Duration(mean=150, spread=0.9), wrap=Duration(mean=20)
    ),
    "10 agents, 30 %": Traffic(agents=10, talk=Duration(mean=110, spread=0.9), wrap=Duration(mean=20)),
    "20 agents, drifting 20-45 %": Traffic(
        agents=20,
        answer_rate=((0, 0.2), (3600, 0.45), (7200, 0.2), (10800, 0.45), (14400, 0.2)),
        drifting=True,
        talk=Duration(mean=130, spread=0.9),
        wrap=Duration(mean=20),
    ),
    "50 agents, AMD, in steps": Traffic(
        agents=50,
        answer_rate=((0, 0.5), (2400, 0.25), (6000, 0.6), (9600, 0.3)),
        amd=True,
        machines=0.5,
        amd_false=0.03,
        talk=Duration(mean=80, spread=0.9),
    ),
    "100 agents, short calls": Traffic(agents=100, talk=Duration(mean=60, spread=0.9)),
    "300 agents": Traffic(agents=300, talk=Duration(mean=140, spread=0.9), wrap=Duration(mean=20)),
}

LARGE = Traffic(
    agents=300,
    seconds=300.0,
    answer_rate=((0, 0.07),),
    talk=Duration(mean=60, spread=0.9),
    lines=1500,
    calls_per_second=100.0,
)


def ours(mode: Mode) -> Callable[[Traffic], Paces]:
    """Pacing of that mode, told what a campaign is told."""

    def made(traffic: Traffic) -> Paces:
        return Pacing(
            PacingConfig(
                mode=mode,
                amd=traffic.amd,
                answer_wait_s=traffic.answer_wait,
                ring_timeout_s=traffic.ring_timeout,
                calls_per_second=traffic.calls_per_second,
                max_lines=traffic.lines,
                tick_s=traffic.tick,
            )
        )

    return made


WAYS: dict[str, Callable[[Traffic], Paces]] = {
    "progressive": lambda _: Progressive(),
    "ratio 2": lambda _: FixedRatio(2.0),
    "ratio 3": lambda _: FixedRatio(3.0),
    "average-adapt": lambda _: AverageAdapt(),
    "predictive": ours("predictive"),
    "predictive-strict": ours("predictive-strict"),
}


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half width of its 95 % interval (Student's t), and the highest, in percent."""
    few = (0.0, 12.71, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
    half = (
        (few[len(values) - 1] if len(values) <= len(few) else 2.1)
        * statistics.stdev(values)
        / math.sqrt(len(values))
        if len(values) > 1
        else 0.0
    )
    return {
        "mean": round(100 * statistics.fmean(values), 2),
        "plus_minus": round(100 * half, 2),
        "worst": round(100 * max(values), 2),
    }


def figures(outcomes: list[Outcome]) -> dict[str, Any]:
    """What the runs of one way on one traffic came to."""
    return {
        "utilisation": interval([outcome.utilisation for outcome in outcomes]),
        "abandonment": interval([outcome.abandonment for outcome in outcomes]),
        "worst_half_hour": round(100 * max(outcome.worst_window for outcome in outcomes), 2),
        "runs_over": sum(outcome.abandoned > 0.03 * outcome.answered + 1 for outcome in outcomes),
        "given_up": interval([outcome.given_up / max(outcome.placed, 1) for outcome in outcomes])["mean"],
        "answers": round(statistics.fmean(outcome.answered for outcome in outcomes)),
    }


class Timed:
    """Pacing whose decisions are timed."""

    def __init__(self, pace: Paces) -> None:
        self._pace = pace
        self._giving_up = 0.0
        self.seconds: list[float] = []
        self.open: list[int] = []
        self._open = 0

    def observe(self, now: float, kind: str, ident: Hashable, info: Any = None) -> None:
        self._open += (kind == "dial") - (kind in ("end", "connect", "abandon"))
        self._pace.observe(now, kind, ident, info)

    def calls_to_give_up(self, now: float) -> Iterable[Hashable]:
        begun = time.thread_time()
        gone = list(self._pace.calls_to_give_up(now))
        self._giving_up = time.thread_time() - begun
        return gone

    def calls_to_place(self, now: float) -> int:
        begun = time.thread_time()
        count = self._pace.calls_to_place(now)
        self.seconds.append(time.thread_time() - begun + self._giving_up)
        self.open.append(self._open)
        return count


def decisions(repeats: int) -> dict[str, float]:
    """Milliseconds a decision, at 300 agents, after a minute."""
    runs = []
    for _ in range(repeats):
        timed = Timed(ours("predictive")(LARGE))
        Simulation(LARGE, timed, seed=1).run()
        runs.append(timed)
    least = [min(ticks) for ticks in zip(*(run.seconds for run in runs), strict=True)][120:]
    return {
        "p50_ms": round(1000 * percentile(least, 0.5), 3),
        "p99_ms": round(1000 * percentile(least, 0.99), 3),
        "agents": LARGE.agents,
        "calls_under_way_median": percentile([float(n) for n in runs[0].open[120:]], 0.5),
        "repeats": repeats,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Utilisation and abandonment, one line a traffic and way."""
    lines = [
        f"{'traffic':29}{'pacing':19}{'utilisation':>14}{'abandoned':>15}{'worst':>7}{'30 min':>8}{'given up':>9}"
    ]
    for traffic, ways in results.items():
        for way, found in ways.items():
            busy, lost = found["utilisation"], found["abandonment"]
            lines.append(
                f"{traffic:29}{way:19}{busy['mean']:8.1f} ± {busy['plus_minus']:3.1f}"
                f"{lost['mean']:8.2f} ± {lost['plus_minus']:4.2f}{lost['worst']:7.2f}"
                f"{found['worst_half_hour']:8.2f}{found['given_up']:9.1f}"
            )
    return "\n".join(lines)


COLOURS = {
    "progressive": "#8a8f98",
    "ratio 2": "#c9b458",
    "ratio 3": "#d98e4a",
    "average-adapt": "#6f8fc9",
    "predictive": "#2f9e6e",
    "predictive-strict": "#7a5bb5",
}


def picture(results: dict[str, dict[str, Any]]) -> str:
    """Bars of utilisation, with the share abandoned beside each, red where it is over 3 %; an SVG."""
    bar, gap, left, wide = 16, 30, 210, 420
    parts, y = [], 40
    for traffic, ways in results.items():
        parts.append(f'<text x="10" y="{y + 12}" font-weight="bold">{traffic}</text>')
        for way, found in ways.items():
            busy, lost = found["utilisation"]["mean"], found["abandonment"]["mean"]
            ink, length = "#c0392b" if lost > 3.0 else "#333", busy / 100 * wide
            parts += [
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 3}" fill="{COLOURS[way]}"/>',
                f'<text x="{left + 6}" y="{y + 10}" fill="#fff">{way}</text>',
                f'<text x="{left + length + 6:.1f}" y="{y + 10}" fill="{ink}">{busy:.0f} %, lost {lost:.1f} %</text>',
            ]
            y += bar
        y += gap
    head = '<text x="10" y="20" font-size="14">Utilisation of agents, and live answers lost</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 {y}" font-family="sans-serif" font-size="11">'
        f'<rect width="780" height="{y}" fill="#fff"/>{head}{"".join(parts)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--tick", type=float, default=1.0)
    parser.add_argument("--traffic", nargs="*", default=list(TRAFFIC), choices=list(TRAFFIC), metavar="NAME")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of the run in which decisions are timed; 0: none"
    )
    parser.add_argument("--picture", action="store_true")
    asked = parser.parse_args()
    report: dict[str, Any] = {
        "benchmark": "pacing",
        "machine": machine(),
        "seeds": asked.seeds,
        "hours": asked.hours,
    }
    results: dict[str, dict[str, Any]] = {}
    for name in asked.traffic:
        traffic = replace(TRAFFIC[name], seconds=asked.hours * 3600, tick=asked.tick)
        results[name] = {}
        for way, made in WAYS.items():
            runs = [Simulation(traffic, made(traffic), seed=seed).run() for seed in range(1, asked.seeds + 1)]
            results[name][way] = figures(runs)
            print(name, way, file=sys.stderr)
    report["results"] = results
    if asked.repeats:
        report["decision"] = decisions(asked.repeats)
    print(table(results), file=sys.stderr)
    if asked.picture:
        PICTURE.write_text(picture(results), encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
