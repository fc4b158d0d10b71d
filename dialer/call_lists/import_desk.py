"""Imports at the server: started ones are worked on, one after the other, each by a process of its own; what a former
process has left is gone on with. Any number of servers may do so on one database: an import has one process at a time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from dialer.call_lists import imports
from dialer.call_lists.sheets import Format, NotASheet

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

EVERY = 5.0
"""Seconds between two looks for imports that somebody else has started or left."""

LONGEST_PAUSE = 60.0
UNPACKING_TAKES = 300.0
"""Seconds after which a workbook that is still not read is given up."""

MOST_UNPACKING = 2


MOST_CRASHES = 5
"""Times that the process of an import may break down at the same row before the import is given up."""


class WorkerFailed(Exception):
    """The process that was to read a file has failed; trying again may help. `crashed`: it could not even say why."""

    def __init__(self, message: str, *, crashed: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed


class ImportDesk:
    """Works on imports. `run` goes on until cancelled; `wake` says that there is something to do."""

    def __init__(self, pool: Callable[[], Pool], dsn: str, *, every: float = EVERY) -> None:
        self._pool = pool
        self._dsn = dsn
        self._every = every
        self._woken = asyncio.Event()
        self._unpacking = asyncio.Semaphore(MOST_UNPACKING)
        self._failures = 0
        self._crashes: dict[int, tuple[int, int]] = {}

    def wake(self) -> None:
        """An import has been started."""
        self._woken.set()

    async def run(self) -> None:
        """Works on imports, until cancelled; the process that is at work is then ended, and the import goes on later."""
        while True:
            pause = self._every if not self._failures else min(LONGEST_PAUSE, 2.0**self._failures)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            self._woken.clear()
            try:
                ids = await imports.waiting(self._pool())
                well = [await self._go_on(id) for id in ids]
            except Exception as error:
                well = [False]
                log.warning("imports cannot be looked for", why=f"{type(error).__name__}: {error}"[:200])
            self._failures = 0 if all(well) else min(self._failures + 1, 10)

    async def _go_on(self, id: int) -> bool:
        """Works on one import; False if that has to be tried again."""
        try:
            await self._work("run", str(id))
        except Exception as error:
            log.warning("an import does not go on", id=id, why=f"{type(error).__name__}: {error}"[:200])
            if isinstance(error, WorkerFailed) and error.crashed:
                await self._count_crash(id)
            return False
        self._crashes.pop(id, None)
        return True

    async def _count_crash(self, id: int) -> None:
        with suppress(Exception):
            done = await self._pool().fetchval("SELECT done FROM list_imports WHERE id = $1", id)
            at, times = self._crashes.get(id, (done, 0))
            times = times + 1 if at == done else 1
            self._crashes[id] = done, times
            if times >= MOST_CRASHES:
                del self._crashes[id]
                await imports.give_up(
                    self._pool(), id, f"the process broke down {times} times after row {done}"
                )

    async def unpack(self, id: int, sheet: str = "") -> tuple[Format, int]:
        """Makes CSV of an uploaded workbook; returns format and size. Raises NotASheet, WorkerFailed, TimeoutError."""
        async with self._unpacking, asyncio.timeout(UNPACKING_TAKES):
            told = await self._work("unpack", str(id), *([sheet] if sheet else []))
        if "error" in told:
            raise NotASheet(told["error"])
        return msgspec.convert(told["format"], Format), int(told["size"])

    async def _work(self, *arguments: str) -> dict[str, Any]:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dialer.call_lists.import_worker",
            *arguments,
            env={**os.environ, "CTI_DATABASE_URL": self._dsn},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, errors = await worker.communicate()
        except BaseException:
            with suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()
            raise
        try:
            told: dict[str, Any] = msgspec.json.decode(out)
        except msgspec.DecodeError:
            last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            log.error("the process of an import has failed", code=worker.returncode, last=last[0][:300])
            raise WorkerFailed(
                f"the process that reads the file has failed ({worker.returncode})", crashed=True
            ) from None
        if worker.returncode:
            raise WorkerFailed(str(told.get("error", "")))
        return told
