"""A process of its own for the work on one file, so that the server goes on undisturbed and its memory stays small.

`python -m dialer.call_lists.import_worker run 12` imports, `... unpack 12 [SHEET]` makes CSV of an uploaded workbook.
The database's address is in CTI_DATABASE_URL. One line of JSON on the standard output says what became of it. Exit code 0:
what was to be done is done, or the file is at fault and it says why; 1: try again, nothing is lost.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from cti.database import DatabaseUnavailable, connection
from dialer.call_lists import imports
from dialer.call_lists.sheets import Format, NotASheet, as_csv, open_workbook

NICENESS = 10


async def unpack(dsn: str, id: int, sheet: str) -> tuple[Format, int]:
    """Replaces an uploaded workbook by one of its sheets as CSV; returns the format and the size. Raises NotASheet."""
    async with connection(dsn, name="cti import file") as db:
        with tempfile.NamedTemporaryFile(prefix="cti-import-", suffix=".xlsx") as file:
            for part in range(1 << 30):
                content = await db.fetchval(
                    "SELECT bytes FROM list_import_parts WHERE import_id = $1 AND part = $2", id, part
                )
                if content is None:
                    break
                file.write(content)
            file.flush()
            how, rows = open_workbook(Path(file.name), sheet)
            size = 0
            async with db.transaction():
                await db.execute("DELETE FROM list_import_parts WHERE import_id = $1", id)
                for part, content in enumerate(as_csv(rows)):
                    size += len(content)
                    await imports.add_part(db, id, part, content)
    return how, size


def main() -> int:
    """Does what the arguments say."""
    os.nice(NICENESS)
    what, id, dsn = sys.argv[1], int(sys.argv[2]), os.environ["CTI_DATABASE_URL"]
    told: dict[str, Any]
    code = 0
    try:
        if what == "unpack":
            how, size = asyncio.run(unpack(dsn, id, sys.argv[3] if len(sys.argv) > 3 else ""))
            told = {"format": msgspec.to_builtins(how), "size": size}
        else:
            view = asyncio.run(imports.run(dsn, id))
            used = resource.getrusage(resource.RUSAGE_SELF)
            told = {"state": view.state, "done": view.done, "peak_mb": round(used.ru_maxrss / 1024, 1)}
            told["cpu_s"] = round(used.ru_utime + used.ru_stime, 2)
    except NotASheet as error:
        told = {"error": str(error)}
    except (DatabaseUnavailable, imports.Busy, imports.NoImport, OSError) as error:
        told, code = {"error": str(error) or type(error).__name__}, 1
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
