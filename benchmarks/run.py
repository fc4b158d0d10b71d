"""All benchmarks, one after the other, with short settings; one JSON object on the standard output.

Run: python -m benchmarks (or make bench). Each runs in a process of its own, so that none warms another's caches. One
that fails is named in the result and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.machine import machine

BENCHMARKS: dict[str, tuple[list[str], float]] = {
    "ami_parse": (["--seconds", "2", "--rounds", "3"], 180),
    "fanout": ([], 180),
    "ani_lookup": (["--accounts", "200000", "--calls", "2000"], 180),
    "screen_pop": (["--accounts", "200000", "--seconds", "6", "--busy-seconds", "10"], 300),
    "memory": (["--calls", "20000"], 240),
    "routing": (["--accounts", "100000", "--seconds", "6"], 180),
    "command": (["--rounds", "40"], 120),
    "off_hook": (["--rounds", "20"], 150),
    "figures": (["--calls", "500000", "--days", "100"], 240),
    "dialing_law": (["--lines", "500000", "--register", "50000000", "--attempts", "100000"], 240),
    "claims": (["--contacts", "15000", "--seconds", "3"], 120),
    "originate": (["--seconds", "6"], 150),
    "list_import": (["--rows", "100000"], 240),
    "dry_run": (["--contacts", "100000", "--seconds", "5"], 180),
    "pacing": (["--seeds", "1", "--hours", "0.4", "--repeats", "2"], 300),
}
"""Name → its short settings, and the seconds after which it is given up."""


def run(name: str, settings: list[str], limit: float) -> dict[str, Any]:
    """What one benchmark prints, with how long it took; `failed` says why there is nothing else."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *settings],
            capture_output=True,
            timeout=limit,
            check=False,
        )
        if done.returncode:
            return {"failed": done.stderr.decode(errors="replace").strip()[-1000:]}
        result: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit:g} s"}
    except ValueError:
        return {"failed": "it did not print one JSON object"}
    return {**result, "took_s": round(time.monotonic() - began, 1), "settings": settings}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(BENCHMARKS)}")
    wanted = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in wanted if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {', '.join(unknown)}")
    where = machine()
    results = {}
    for name in wanted:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = run(name, *BENCHMARKS[name])
    print(json.dumps({"machine": where, "benchmarks": results}, indent=1))
    return int(any("failed" in result for result in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
