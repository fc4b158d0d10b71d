"""Dry runs on a server: each in a process of its own, few at a time, ended when nobody wants them any more."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Literal
from uuid import uuid4

import msgspec
import structlog

from cti.database import AWAY
from cti.frozen import Frozen
from dialer.campaigns import NotPossible
from dialer.forecasting.dry_run import DryRun
from dialer.forecasting.question import Question

log = structlog.get_logger(__name__)

AT_ONCE = 2
KEPT = 100
"""Dry runs at a time, and answers kept."""

PATIENCE = 3.0
"""Times the seconds that an answer may take, after which the process is ended."""


class Plan(Frozen, frozen=True, gc=False, kw_only=True):
    """A dry run of a campaign. `state`: running, done, failed (`why`), cancelled; while it runs it is `doing` this: counting
    the contacts, then reckoning."""

    id: str
    campaign: int
    by: str
    asked: datetime
    state: Literal["running", "done", "failed", "cancelled"]
    doing: Literal["counting", "reckoning", ""] = ""
    why: str = ""
    answer: DryRun | None = None


class Plans:
    """The dry runs of this server. What ends with it is asked again."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._plans: dict[str, Plan] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, campaign: int, by: str, question: Callable[[], Awaitable[Question]]) -> Plan:
        """Begins a dry run; the question may take its time too. Raises NotPossible when too many run already."""
        if len(self._tasks) >= AT_ONCE:
            raise NotPossible("busy", f"{AT_ONCE} dry runs are under way: wait for one to end, or cancel it")
        plan = Plan(
            id=f"p{uuid4().hex[:16]}",
            campaign=campaign,
            by=by,
            asked=self._now(),
            state="running",
            doing="counting",
        )
        self._plans[plan.id] = plan
        while len(self._plans) > KEPT:
            oldest = next((id for id, one in self._plans.items() if one.state != "running"), None)
            if oldest is None:
                break
            del self._plans[oldest]
        self._tasks[plan.id] = asyncio.create_task(self._run(plan, question))
        return plan

    def read(self, id: str) -> Plan | None:
        """A dry run, also one that is over."""
        return self._plans.get(id)

    def of(self, campaign: int) -> list[Plan]:
        """Those of a campaign, the newest first."""
        return [one for one in reversed(self._plans.values()) if one.campaign == campaign]

    async def cancel(self, id: str) -> None:
        """Ends one that runs; nothing happens if it is over."""
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def close(self) -> None:
        """Ends all."""
        for id in list(self._tasks):
            await self.cancel(id)

    async def _run(self, plan: Plan, question: Callable[[], Awaitable[Question]]) -> None:
        end = over = msgspec.structs.replace(plan, doing="")
        try:
            counted = await _counted(question)
            self._plans[plan.id] = msgspec.structs.replace(plan, doing="reckoning")
            end = msgspec.structs.replace(over, state="done", answer=await run_apart(counted))
        except asyncio.CancelledError:
            end = msgspec.structs.replace(over, state="cancelled", why="it was not wanted any more")
        except Exception as error:
            end = msgspec.structs.replace(over, state="failed", why=str(error) or type(error).__name__)
            if not isinstance(error, NoAnswer):
                log.exception("a dry run failed", campaign=plan.campaign)
        finally:
            self._plans[plan.id] = end
            self._tasks.pop(plan.id, None)


class NoAnswer(Exception):
    """There is nothing to plan, or it took too long; the message says which."""


async def _counted(question: Callable[[], Awaitable[Question]]) -> Question:
    try:
        return await question()
    except AWAY as error:
        log.warning(
            "the contacts of a dry run cannot be counted", error=f"{type(error).__name__}: {error}"[:200]
        )
        raise NoAnswer(
            "the contacts of its lists could not be counted: the database is away or very busy; try again"
        ) from error


async def run_apart(question: Question) -> DryRun:
    """Answers a question in a process of its own, which does not outlive this. Raises NoAnswer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dialer.forecasting.dry_run",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE * question.seconds + 20.0):
            out, said = await process.communicate(msgspec.json.encode(question))
    except TimeoutError:
        raise NoAnswer(
            "it took too long: this machine is very busy; try again, or without changes (`variants` off, --no-changes)"
        ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == 3:
        raise NoAnswer(said.decode(errors="replace"))
    if process.returncode:
        raise RuntimeError(
            f"the dry run ended with {process.returncode}: {said.decode(errors='replace')[-2000:]}"
        )
    return msgspec.json.decode(out, type=DryRun)
