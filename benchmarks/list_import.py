"""How long the import of a call list takes, beside a bare COPY of the very same rows; and how much memory.

Run: python -m benchmarks.list_import [--rows N] [--bad SHARE]

A CSV is made as campaign managers send it: five countries, numbers written in many ways, some not numbers, names with
accents, two custom fields. `import` is all of it: the file into the database, then a process of its own that reads, checks,
looks for duplicates and writes contacts. `copy` writes the contacts that came of it, read back before, to the same
tables in a fresh database by one COPY from ready binary bytes: no reading, no checking, no transaction but one. `numbers`:
microseconds of CPU a row for reading a number and its zones, beside `phonenumbers` alone on some of them. `peak_mb` is the
process's largest resident memory. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import phonenumbers
from phonenumbers import timezone

from benchmarks import scratch
from benchmarks.machine import machine
from cti import logs
from cti.database import connection, migrate
from dialer import lists
from dialer.call_lists import imports
from dialer.call_lists.rows import ImportSettings, NumberReader
from dialer.call_lists.sheets import PART, Sniffer
from dialer.lists import NewList

FIRST = ("Anna", "Jürgen", "Zoë", "François", "Łukasz", "María", "Giulia", "Sanne", "Peter", "Ingrid")
LAST = ("Müller", "Smith", "Dupont", "Kowalski", "García", "Rossi", "de Vries", "O'Neill", "Groß", "Novak")


def number(rng: random.Random) -> tuple[str, str]:
    """A number as somebody might have typed it, and its country."""
    kind = rng.randrange(5)
    if kind == 0:
        return "GB", rng.choice(("07{:03d} {:06d}", "+447{:03d}{:06d}", "0044 7{:03d} {:06d}")).format(
            rng.choice((400, 401, 411, 500, 511, 700, 711, 720, 733, 770, 800, 855, 900, 911, 951, 970)),
            rng.randrange(10**6),
        )
    if kind == 1:
        return "DE", rng.choice(("0{}/{:07d}", "+49 {} {:07d}", "0049{}{:07d}", "+49{}{:07d}")).format(
            rng.choice(("30", "40", "89", "221", "151", "160", "171", "176")),
            rng.randrange(2 * 10**6, 9 * 10**6),
        )
    if kind == 2:
        return "FR", rng.choice(("0{} {:02d} {:02d} {:02d} {:02d}", "+33{}{:02d}{:02d}{:02d}{:02d}")).format(
            rng.choice("16"), rng.randrange(20, 60), *(rng.randrange(100) for _ in range(3))
        )
    if kind == 3:
        return "US", rng.choice(("({}) {}-{:04d}", "+1{}{}{:04d}", "{}-{}-{:04d}")).format(
            rng.choice((212, 213, 305, 312, 415, 512, 602, 702, 808, 907)),
            rng.randrange(220, 990),
            rng.randrange(10**4),
        )
    return "PL", rng.choice(("{} {:03d} {:03d}", "+48{}{:03d}{:03d}")).format(
        rng.choice((501, 512, 601, 602, 603, 660, 691, 722, 788)), rng.randrange(1000), rng.randrange(1000)
    )


def sheet(rows: int, bad: float, seed: int = 1) -> Iterator[bytes]:
    """The CSV in parts."""
    rng = random.Random(seed)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerow(("Vorname", "Nachname", "Telefonnummer", "Land", "Kundennummer", "Ort", "Tarif"))
    for n in range(rows):
        country, shown = number(rng)
        if rng.random() < bad:
            shown = rng.choice(("", "12345", "unknown", "4,9E+11", "0800", "+99 1"))
        writer.writerow(
            (
                rng.choice(FIRST),
                rng.choice(LAST),
                shown,
                country,
                f"K{n:07d}",
                "Köln",
                rng.choice(("S", "M", "L")),
            )
        )
        if text.tell() > PART:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


async def imported(dsn: str, rows: int, bad: float) -> dict[str, Any]:
    """The import, from the file's bytes to the last row."""
    parts = list(sheet(rows, bad))
    began = time.monotonic()
    async with connection(dsn, name="bench") as db:
        made = await lists.create(db, NewList(name="bench"), "bench")
        id = await imports.begin(db, "bench.csv", "bench")
        sniffer = Sniffer()
        for part, content in enumerate(parts):
            sniffer.feed(content)
            await imports.add_part(db, id, part, content)
        view = await imports.uploaded(db, id, sniffer.format, sniffer.size)
        guessed, settings = imports.guess_settings(await imports.sample(db, view), "GB")
        assert isinstance(settings, ImportSettings), guessed
        await imports.start(db, id, made.id, settings)
    uploaded = time.monotonic() - began
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dialer.call_lists.import_worker", "run", str(id),
        env={**os.environ, "CTI_DATABASE_URL": dsn}, stdout=subprocess.PIPE,
    )  # fmt: skip
    answer, _ = await worker.communicate()
    took = time.monotonic() - began
    told = json.loads(answer)
    async with connection(dsn, name="bench") as db:
        view = await imports.read(db, id)
    if view.state != "done":
        raise RuntimeError(f"the import has not come through: {told}")
    return {
        "seconds": round(took, 2),
        "upload_seconds": round(uploaded, 2),
        "rows_a_second": round(rows / took),
        "worker_cpu_seconds": told["cpu_s"],
        "peak_mb": told["peak_mb"],
        "file_mb": round(sum(map(len, parts)) / 1e6, 1),
        "columns": settings.columns,
        "added": view.added,
        "bad": view.bad,
        "duplicates": view.duplicates,
    }


async def copied(source: str, target: str, folder: Path) -> dict[str, Any]:
    """The rows that came of it, by one COPY into the same tables of a fresh database."""
    columns = ", ".join(imports.COLUMNS)
    file = folder / "rows"
    async with connection(source, name="bench") as db:
        groups = await db.fetch("SELECT id, country, region, zones FROM zone_groups")
        await db.copy_from_query(
            f"SELECT {columns} FROM list_contacts ORDER BY id", output=file, format="binary"
        )
    async with connection(target, name="bench") as db:
        await lists.create(db, NewList(name="bench"), "bench")
        await db.executemany(
            "INSERT INTO zone_groups (id, country, region, zones) VALUES ($1, $2, $3, $4)",
            [tuple(g) for g in groups],
        )
        began = time.monotonic()
        await db.copy_to_table("list_contacts", source=file, columns=list(imports.COLUMNS), format="binary")
        took = time.monotonic() - began
    return {"seconds": round(took, 2)}


def numbers(rows: int) -> dict[str, float]:
    """CPU of one number, read with its zones: ours, and `phonenumbers` alone."""
    rng = random.Random(2)
    some = [number(rng) for _ in range(rows)]
    reader = NumberReader("GB")
    began = time.process_time()
    found = [reader.read(text, country) for country, text in some]
    ours = time.process_time() - began
    few = some[: max(1, rows // 20)]
    began = time.process_time()
    for (country, text), one in zip(few, found, strict=False):
        parsed = phonenumbers.parse(text, country)
        valid = phonenumbers.is_valid_number(parsed)
        e164 = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
        zones = timezone.time_zones_for_number(parsed)
        if (one is not None) != valid or (one and (one[0] != e164 or one[1].zones != tuple(sorted(zones)))):
            raise RuntimeError("the two do not agree")
    theirs = time.process_time() - began
    return {
        "ours_us": round(ours / rows * 1e6, 2),
        "phonenumbers_us": round(theirs / len(few) * 1e6, 2),
        "share_found": round(sum(one is not None for one in found) / rows, 3),
    }


async def measure(first: str, second: str, rows: int, bad: float, folder: Path) -> dict[str, Any]:
    await migrate(first)
    await migrate(second)
    ours = await imported(first, rows, bad)
    theirs = await copied(first, second, folder)
    return {
        "rows": rows,
        "import": ours,
        "copy": theirs,
        "ratio": round(ours["seconds"] / theirs["seconds"], 2),
        "numbers": numbers(min(rows, 100_000)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bad", type=float, default=0.01, help="share of rows without a number that exists")
    given = parser.parse_args()
    where = machine()
    logs.none()
    with scratch.folder() as folder, scratch.postgres() as server:
        first, second = server.create_database("bench"), server.create_database("bare")
        result = asyncio.run(measure(first, second, given.rows, given.bad, folder))
    print(json.dumps({"benchmark": "list_import", "machine": where, **result}))


if __name__ == "__main__":
    main()
