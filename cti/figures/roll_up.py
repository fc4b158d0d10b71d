"""The roll-up: keeps the figures' sums up with the journal, and says how far they are.

The adding up is done in the database (cti/migrations/0030_figures.sql), position and sums in one transaction: a process
killed in the middle leaves nothing out and counts nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from cti.database import Pool, Queryable
    from cti.settings import FiguresSettings

log = structlog.get_logger(__name__)

BATCH = 5_000
"""Facts summed up in one transaction."""

EVERY = 1.0
"""Seconds between two looks for new facts."""

PAUSES = (1.0, 2.0, 5.0, 15.0)


async def set_targets(db: Queryable, targets: Mapping[str, tuple[float, float]]) -> None:
    """Sets queue → (answer within, short abandon) in seconds, for facts summed up from now on. `""` is the rule for queues
    not named and must be there; what is not named has no target of its own any more."""
    rows = [(queue, within, short) for queue, (within, short) in targets.items()]
    await db.execute(
        """WITH given AS (SELECT * FROM unnest($1::text[], $2::real[], $3::real[])
                              AS t (queue, answer_within, short_abandon)),
                gone AS (DELETE FROM figures_targets WHERE queue <> '' AND queue NOT IN (SELECT queue FROM given))
           INSERT INTO figures_targets SELECT queue, answer_within, short_abandon FROM given
           ON CONFLICT (queue) DO UPDATE SET answer_within = excluded.answer_within,
                                             short_abandon = excluded.short_abandon""",
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
    )


async def set_limits(db: Queryable, limits: Mapping[str, timedelta]) -> None:
    """Sets how long agents may be not ready for a reason, for facts summed up from now on; the others have no limit."""
    await db.execute(
        """WITH given AS (SELECT * FROM unnest($1::text[], $2::interval[]) AS t (reason, lasts)),
                gone AS (DELETE FROM figures_limits WHERE reason NOT IN (SELECT reason FROM given))
           INSERT INTO figures_limits SELECT reason, lasts FROM given
           ON CONFLICT (reason) DO UPDATE SET lasts = excluded.lasts""",
        list(limits),
        list(limits.values()),
    )


def targets_of(settings: FiguresSettings) -> dict[str, tuple[float, float]]:
    """The targets that the settings say, as `set_targets` takes them."""
    own = {id: (target.answer_within, target.short_abandon) for id, target in settings.queues.items()}
    return {**own, "": (settings.answer_within, settings.short_abandon)}


async def roll_up(db: Queryable, most: int = BATCH) -> int:
    """Sums up the next facts, at most so many, all or nothing; returns how many it was."""
    return int(await db.fetchval("SELECT figures_roll_up($1)", most))


async def fold(db: Queryable) -> bool:
    """Folds a day that is over into one row for each queue and agent; returns whether there was one to be folded."""
    return bool(await db.fetchval("SELECT figures_fold()"))


async def set_zone(db: Queryable, zone: str) -> None:
    """Sets the time zone whose days are folded: the call centre's."""
    await db.execute("SELECT figures_set_zone($1)", zone)


async def compute_again(db: Queryable, first: datetime, last: datetime) -> None:
    """Computes the figures from `first` to before `last`, quarters of an hour, again from the journal. Raises
    asyncpg.InvalidParameterValueError when the journal does not have that time any more."""
    await db.execute("SELECT figures_again($1, $2)", first, last)


class RollUp:
    """The task that sums up. `behind`: facts at least that are not in the sums yet; `failing`: why it does not get on."""

    def __init__(self, pool: Pool, *, every: float = EVERY, batch: int = BATCH) -> None:
        self._pool = pool
        self._every = every
        self._batch = batch
        self.facts = 0
        self.failing: str | None = None

    async def run(self) -> None:
        """Sums up what comes, until cancelled; an outage is waited out."""
        failures = 0
        while True:
            try:
                done = await roll_up(self._pool, self._batch)
                if done < self._batch and await fold(self._pool):
                    continue
            except Exception as error:
                self.failing = f"{type(error).__name__}: {error}"[:200]
                if failures == 0:
                    log.warning("figures cannot be summed up", why=self.failing)
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
                continue
            failures, self.failing = 0, None
            self.facts += done
            if done < self._batch:
                await asyncio.sleep(self._every)

    async def catch_up(self) -> None:
        """Sums up all that is in the journal now."""
        while (done := await roll_up(self._pool, self._batch)) == self._batch:
            self.facts += done
        self.facts += done
