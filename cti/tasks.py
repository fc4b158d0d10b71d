"""Tasks of the server's own: held on to while they run, their failures logged, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Tasks:
    """What runs beside everything else."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[None], None] = {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begins a task; if it fails that is logged, and nothing else is disturbed."""
        task = asyncio.create_task(work)
        self._running[task] = None
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the server failed", task=task.get_name(), exc_info=error)

    async def end(self, some: Iterable[asyncio.Task[None]] | None = None) -> None:
        """Cancels these (None: all) and waits until they have ended."""
        ending = tuple(self._running if some is None else some)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


async def again_and_again(look: Callable[[], Awaitable[object]], every: float, failing: str) -> None:
    """Looks each `every` seconds until cancelled. `failing`: what the log says, once in a row of failures."""
    before = False
    while True:
        await asyncio.sleep(every)
        try:
            await look()
            before = False
        except Exception as error:
            if not before:
                log.warning(failing, why=f"{type(error).__name__}: {error}"[:200])
            before = True
