"""Looks at the live state once a second and tells what alarms it calls for. The rules come from the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog

from cti.alarms import Alarms, Kept, Kind, Now, Rule
from cti.facts import Fact

if TYPE_CHECKING:
    from cti.database import Queryable

log = structlog.get_logger(__name__)

LOOKS = 1.0
"""Seconds between two looks."""

LEVELS = 15.0
"""Seconds between two readings of today's service levels, which come from the database."""


class AlarmWatch:
    """Evaluates the alarms. `floor` makes what one look measures by; `levels`: queue → today's service level in percent."""

    def __init__(
        self,
        alarms: Alarms,
        *,
        floor: Callable[[Callable[[str], float | None]], Now],
        levels: Callable[[], Awaitable[dict[str, float]]],
        db: Callable[[], Queryable],
        publish: Callable[[Iterable[Fact]], None],
        now: Callable[[], datetime],
    ) -> None:
        self._alarms = alarms
        self._floor = floor
        self._levels = levels
        self._db = db
        self._publish = publish
        self._now = now
        self._level: dict[str, float] = {}
        self._level_at = -LEVELS
        self._kept: dict[str, Kept] = {}
        self._news = asyncio.Event()
        self._keeping = asyncio.Lock()

    def _level_of(self, queue: str) -> float | None:
        return self._level.get(queue)

    async def refresh(self) -> None:
        """Takes over the rules as they are in the database now."""
        self._publish(self._alarms.load(await load_rules(self._db()), self._now()))

    async def restore(self, away: Callable[[str, datetime], None]) -> None:
        """Takes up what was raised before a restart; called once, when the rules are loaded. `away(pbx, since)` is told of
        PBXs that were out of reach already."""
        kept = await load_kept(self._db())
        self._kept = {one.id: one for one in kept}
        self._publish(self._alarms.restore(kept, self._now()))
        for rule, view in self._alarms.standing():
            if view.pbx is not None:
                away(view.pbx, view.since - timedelta(seconds=rule.threshold))

    def hear(self, _fact: Fact) -> None:
        """An alarm has changed: written down at once."""
        self._news.set()

    async def keep(self) -> None:
        """Writes down what is raised as it is now, if that has changed; raises what the database raises."""
        async with self._keeping:  # an older state must not be written over a newer one
            await self._keep()

    async def _keep(self) -> None:
        now = {
            view.id: Kept(
                id=view.id,
                rule=rule.id,
                rule_version=rule.version,
                agent=view.agent,
                pbx=view.pbx,
                value=view.value,
                since=view.since,
                acknowledged_by=view.acknowledged_by,
                acknowledged=view.acknowledged,
            )
            for rule, view in self._alarms.standing()
        }
        if now == self._kept:
            return
        changed = [one for id, one in now.items() if self._kept.get(id) != one]
        await save_kept(self._db(), changed, [id for id in self._kept if id not in now])
        self._kept = now

    async def run(self) -> None:
        """Looks, until cancelled. One look that fails does not end it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_again_and_again())
            group.create_task(self._write_again_and_again())

    async def _write_again_and_again(self) -> None:
        failing = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOKS):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.keep()
                failing = False
            except Exception as error:
                if not failing:
                    log.warning("alarms cannot be written", why=type(error).__name__)
                failing = True
                await asyncio.sleep(LOOKS)

    async def flush(self) -> None:
        """Writes down what has changed, if there is a database."""
        with suppress(Exception):
            async with asyncio.timeout(2.0):
                await self.keep()

    async def _look_again_and_again(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(LOOKS)
            try:
                if self._alarms.wants(Kind.SERVICE_LEVEL) and monotonic() - self._level_at >= LEVELS:
                    self._level_at = monotonic()
                    self._level = await self._levels()
                self._publish(self._alarms.look(self._floor(self._level_of), self._now()))
                failing = False
            except Exception:
                if not failing:
                    log.exception("alarms could not be evaluated")
                failing = True


async def load_kept(db: Queryable) -> list[Kept]:
    """The alarms that were raised when they were last written."""
    rows = await db.fetch(
        """SELECT id, rule, rule_version, agent, pbx, value, since, acknowledged_by, acknowledged FROM alarms
           ORDER BY since, id"""
    )
    return [Kept(**dict(row)) for row in rows]


async def save_kept(db: Queryable, changed: Iterable[Kept], gone: Iterable[str]) -> None:
    """Writes these, and removes those that are over."""
    kept = list(changed)
    if kept:
        await db.execute(
            """INSERT INTO alarms (id, rule, rule_version, agent, pbx, value, since, acknowledged_by, acknowledged)
               SELECT * FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::text[], $5::text[],
                                    $6::double precision[], $7::timestamptz[], $8::text[], $9::timestamptz[])
               ON CONFLICT (id) DO UPDATE
               SET acknowledged_by = excluded.acknowledged_by, acknowledged = excluded.acknowledged""",
            *([getattr(one, field.name) for one in kept] for field in fields(Kept)),
        )
    await db.execute("DELETE FROM alarms WHERE id = ANY ($1::text[])", list(gone))


FIELDS = tuple(field.name for field in fields(Rule))


async def load_rules(db: Queryable) -> list[Rule]:
    """All rules, in the order they were made."""
    return [_rule(row) for row in await db.fetch("SELECT * FROM alarm_rules ORDER BY id")]


async def read_rule(db: Queryable, id: int) -> Rule | None:
    """One rule."""
    row = await db.fetchrow("SELECT * FROM alarm_rules WHERE id = $1", id)
    return _rule(row) if row is not None else None


async def add_rule(db: Queryable, rule: Rule, by: str) -> Rule:
    """Writes a new rule down; its id and version are given here."""
    row = await db.fetchrow(
        """INSERT INTO alarm_rules (name, kind, queue, team, pbx, reason, threshold, raise_after, clear_after, margin,
                                     enabled, changed_by)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING *""",
        *_values(rule),
        by,
    )
    assert row is not None
    return _rule(row)


async def change_rule(db: Queryable, rule: Rule, by: str) -> Rule | None:
    """Writes a rule over the version it says; None if there is another by now, or none."""
    row = await db.fetchrow(
        """UPDATE alarm_rules SET version = version + 1, name = $1, kind = $2, queue = $3, team = $4, pbx = $5,
                reason = $6, threshold = $7, raise_after = $8, clear_after = $9, margin = $10, enabled = $11,
                changed_by = $12, changed = now()
            WHERE id = $13 AND version = $14 RETURNING *""",
        *_values(rule),
        by,
        rule.id,
        rule.version,
    )
    return _rule(row) if row is not None else None


async def remove_rule(db: Queryable, id: int, version: int) -> bool:
    """Removes a rule of this version; False if there is another by now, or none."""
    row = await db.fetchrow(
        "DELETE FROM alarm_rules WHERE id = $1 AND version = $2 RETURNING id", id, version
    )
    return row is not None


def _values(rule: Rule) -> tuple[Any, ...]:
    return (
        *(rule.name, rule.kind.value, rule.queue, rule.team, rule.pbx, rule.reason),
        *(rule.threshold, rule.raise_after, rule.clear_after, rule.margin, rule.enabled),
    )


def _rule(row: Any) -> Rule:
    return Rule(**{**{name: row[name] for name in FIELDS}, "kind": Kind(row["kind"])})
