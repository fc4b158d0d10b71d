"""Whether this server's time of day can be believed: calling hours are kept by it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

APART = 30.0
"""Seconds that this server's clock and the database's may differ."""


@dataclass(slots=True)
class Clocks:
    """This server's time of day beside the database's, as it was at the last look; between two looks a clock that never
    falls (`clock`, seconds) goes on in its place, so that a time of day that jumps is noticed at once."""

    clock: Callable[[], float]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _looked: tuple[datetime, float] | None = field(default=None, init=False)

    def looked(self, database: datetime) -> None:
        """The database's clock has just said so."""
        self._looked = database, self.clock()

    def apart(self) -> bool:
        """Whether they differ; also while nobody has looked."""
        if self._looked is None:
            return True
        database, at = self._looked
        expected = database + timedelta(seconds=self.clock() - at)
        return abs((self.now() - expected).total_seconds()) > APART
