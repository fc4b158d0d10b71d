"""The active rules, in memory: replaced as a whole within a second of being changed, by whichever process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from routing import store
from routing.document import WrongRules, read_document, rule_set
from routing.rules import RuleSet

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

LOOK_EVERY = 0.5
"""Seconds between two looks for a newer version."""


class RuleBook:
    """Holds the active rules. While the database is away, the last ones known stay active."""

    def __init__(
        self, pool: Callable[[], Pool], *, changed: Callable[[RuleSet], None] = lambda rules: None
    ) -> None:
        self._pool, self._changed = pool, changed
        self._unreadable = 0
        self.active = RuleSet()

    async def refresh(self) -> None:
        """Reads the active version if it is another one; raises what the database raises."""
        newest = await store.newest_version(self._pool())
        if newest in (self.active.version, self._unreadable):
            return
        version, written = await store.active(self._pool())
        try:
            rules = rule_set(read_document(written), version.version)
        except WrongRules as error:  # written by a newer server: what is known to work goes on
            self._unreadable = version.version
            log.error("the routing rules cannot be read", version=version.version, why=str(error)[:500])
            return
        self.active = rules
        log.info("routing rules are active", version=version.version, rules=len(rules.rules))
        self._changed(rules)

    async def run(self) -> None:
        """Looks for newer rules until cancelled."""
        away = False
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                async with asyncio.timeout(5):
                    await self.refresh()
                away = False
            except Exception as error:
                if not away:
                    log.warning("the routing rules cannot be looked at", why=type(error).__name__)
                away = True
