"""Call backs: promises to call a customer at a time, kept by one agent or by a team. Committed before they are told.

Not the callback of a queue (routing), which keeps a caller's place there and is made by Asterisk when it is reached: a call
back has a time, somebody who promised it, and is dialed by a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import asyncpg
import structlog
from phonenumbers import NumberParseException, parse
from phonenumbers.timezone import time_zones_for_number

from crm.facts import (
    CallBackCancelled,
    CallBackDone,
    CallBackDue,
    CallBackHandedOver,
    CallBackMoved,
    CallBackPromised,
    CallBackReceived,
    CallBackReleased,
    CallBackTaken,
)
from crm.views import CallBackView
from cti.facts import Fact
from cti.refusals import Refused

if TYPE_CHECKING:
    from cti.database import Pool

log = structlog.get_logger(__name__)

FURTHEST = timedelta(days=366)
"""How far ahead a call may be promised."""

MOST_LIVE = 500
"""Open and taken call backs of one agent, or of one team."""

LOOK_EVERY = 1.0
"""Seconds between two looks at what is due."""

TRY_AGAIN = 5.0
"""Seconds after which a reminder that could not be written is tried again."""

FROM: dict[str, frozenset[str]] = {
    "take": frozenset({"open"}),
    "release": frozenset({"taken"}),
    "move": frozenset({"open", "taken"}),
    "hand over": frozenset({"open", "taken"}),
    "finish": frozenset({"open", "taken"}),
    "cancel": frozenset({"open", "taken"}),
}
"""Wish → states from which it may be fulfilled."""

ENDED = {"done": "it is done already", "cancelled": "it was cancelled"}


class NotPossible(Refused):
    """It cannot be done: a code for programs, a sentence that says what to do."""


def when(at: datetime, zone: str, now: datetime) -> datetime:
    """The instant meant by a time: one with an offset as it is, one without in the zone. Raises NotPossible for a time that
    does not exist (summer time begins), is over, or is too far ahead. Of a time that comes twice it is the first."""
    if zone not in available_timezones():
        raise NotPossible("unknown_zone", f"there is no time zone {zone!r}: name one as Europe/London")
    local = at if at.tzinfo is not None else at.replace(tzinfo=_zone(zone), fold=0)
    instant = local.astimezone(UTC)
    if at.tzinfo is None and instant.astimezone(_zone(zone)).replace(tzinfo=None) != at:
        raise NotPossible("bad_time", f"there is no such time in {zone}: clocks are put forward over it")
    if instant <= now:
        raise NotPossible("bad_time", "that time is over")
    if instant - now > FURTHEST:
        raise NotPossible("bad_time", f"that is more than {FURTHEST.days} days ahead")
    return instant


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise NotPossible("unknown_zone", f"there is no time zone {name!r}") from None


def zone_of(e164: str, now: datetime) -> str | None:
    """The time zone of a number; None where it may lie in zones whose clocks differ, or in none that is known."""
    try:
        zones = {zone for zone in time_zones_for_number(parse(e164, None)) if zone in available_timezones()}
    except NumberParseException:
        return None
    seasons = (now, now + timedelta(days=91), now + timedelta(days=182), now + timedelta(days=273))
    clocks = {tuple(at.astimezone(ZoneInfo(zone)).utcoffset() for at in seasons) for zone in zones}
    return max(zones) if len(clocks) == 1 else None


class CallBacks:
    """The promises that are open or taken. Each change is one statement that finds the state it needs or changes nothing."""

    def __init__(
        self,
        pool: Callable[[], Pool],
        *,
        publish: Callable[[Iterable[Fact]], None],
        is_away: Callable[[str], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._publish = publish
        self._is_away = is_away
        self._now = now
        self._live: dict[int, CallBackView] = {}
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Reads what is open or taken; called once, at the start."""
        rows = await self._pool().fetch(
            "SELECT * FROM call_backs WHERE state IN ('open', 'taken') ORDER BY due"
        )
        self._live = {row["id"]: CallBackView(**dict(row)) for row in rows}

    def views(self) -> list[CallBackView]:
        """What is open or taken, the first due first."""
        return sorted(self._live.values(), key=lambda view: (view.due, view.id))

    def live(self, id: int) -> CallBackView:
        """One that is open or taken; raises NotPossible."""
        found = self._live.get(id)
        if found is None:
            raise NotPossible("no_such_call_back", "there is no such call back, or it is done or cancelled")
        return found

    # ------------------------------------------------------------------------------------------ what people do

    async def promise(
        self,
        *,
        number: str,
        name: str,
        account: int | None,
        due: datetime,
        zone: str,
        agent: str | None,
        team: str | None,
        note: str,
        call: str,
        by: str,
    ) -> CallBackView:
        """Writes a promise down and tells it. `agent` None: any of `team` may take it."""
        self._has_room(agent, team)
        row = await self._pool().fetchrow(
            """INSERT INTO call_backs (number, name, account, due, zone, agent, team, for_team, note, call,
                                       created, created_by)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING *""",
            *(
                number,
                name[:200],
                account,
                due,
                zone,
                agent,
                team,
                agent is None,
                note,
                call,
                self._now(),
                by,
            ),
        )
        assert row is not None
        view = CallBackView(**dict(row))
        self._live[view.id] = view
        self._publish([CallBackPromised(at=self._now(), view=view, **_about(view))])
        return view

    def _has_room(self, agent: str | None, team: str | None) -> None:
        same = (v.agent == agent and (agent is not None or v.team == team) for v in self._live.values())
        if sum(same) >= MOST_LIVE:
            raise NotPossible("too_many", f"{MOST_LIVE} call backs are open: keep or cancel some first")

    async def take(self, id: int, by: str) -> tuple[CallBackView, bool]:
        """One person takes it; who has it already tries once more. Returns it, and whether it was taken just now."""
        async with self._lock(id):
            before = self.live(id)
            if before.state == "taken" and before.taken_by != by:
                raise NotPossible("already_taken", f"{before.taken_by} has taken it")
            row = await self._pool().fetchrow(
                """UPDATE call_backs SET state = 'taken', taken_by = $2, taken = $3, tries = tries + 1,
                                         version = version + 1
                   WHERE id = $1 AND (state = 'open' OR (state = 'taken' AND taken_by = $2)) RETURNING *""",
                *(id, by, self._now()),
            )
            if row is None:
                await self._read_again(id)
                raise NotPossible("already_taken", "somebody else was quicker")
            view = self._keep(row)
            self._publish([CallBackTaken(at=self._now(), by=by, view=view, **_about(view))])
            return view, before.state == "open"

    async def release(self, id: int, by: str) -> CallBackView:
        """Gives it back: it is open again."""
        view = await self._change(
            id,
            "release",
            "UPDATE call_backs SET state = 'open', taken_by = NULL, taken = NULL, version = version + 1"
            " WHERE id = $1 AND state = ANY($2) RETURNING *",
        )
        self._publish([CallBackReleased(at=self._now(), by=by, view=view, **_about(view))])
        return view

    async def move(self, id: int, due: datetime, zone: str, by: str) -> CallBackView:
        """Another time: open again, and its agent is reminded again."""
        view = await self._change(
            id,
            "move",
            """UPDATE call_backs SET state = 'open', taken_by = NULL, taken = NULL, due = $3, zone = $4,
                   reminded = NULL, version = version + 1
               WHERE id = $1 AND state = ANY($2) RETURNING *""",
            due,
            zone,
        )
        self._publish([CallBackMoved(at=self._now(), by=by, view=view, **_about(view))])
        return view

    async def hand_over(self, id: int, agent: str | None, team: str | None, by: str) -> CallBackView:
        """Somebody else keeps it from now on: `agent`, or with None any of `team`. It is open, and they are reminded."""
        before = self.live(id)
        if (before.agent, before.team) == (agent, team):
            raise NotPossible("wrong_state", f"{agent or team} keeps it already")
        self._has_room(agent, team)
        view = await self._change(
            id,
            "hand over",
            """UPDATE call_backs SET state = 'open', taken_by = NULL, taken = NULL, agent = $3, team = $4,
                   for_team = $3::text IS NULL, reminded = NULL, version = version + 1
               WHERE id = $1 AND state = ANY($2) RETURNING *""",
            agent,
            team,
        )
        now = self._now()
        self._publish(
            [
                CallBackHandedOver(at=now, by=by, to_agent=agent, to_team=team, **_about(before)),
                CallBackReceived(at=now, by=by, view=view, **_about(view)),
            ]
        )
        return view

    async def finish(self, id: int, by: str, outcome: str) -> CallBackView:
        """The promise is kept."""
        view = await self._end(id, "finish", "done", by, outcome)
        self._publish([CallBackDone(at=self._now(), by=by, outcome=outcome, **_about(view))])
        return view

    async def cancel(self, id: int, by: str, reason: str) -> CallBackView:
        """The promise is taken back."""
        view = await self._end(id, "cancel", "cancelled", by, reason)
        self._publish([CallBackCancelled(at=self._now(), by=by, reason=reason, **_about(view))])
        return view

    async def _end(self, id: int, wish: str, state: str, by: str, words: str) -> CallBackView:
        return await self._change(
            id,
            wish,
            """UPDATE call_backs SET state = $3, taken_by = NULL, ended = $4, ended_by = $5, outcome = $6,
                   version = version + 1
               WHERE id = $1 AND state = ANY($2) RETURNING *""",
            *(state, self._now(), by, words),
        )

    async def _change(self, id: int, wish: str, statement: str, *values: Any) -> CallBackView:
        async with self._lock(id):
            before = self.live(id)
            if before.state not in FROM[wish]:
                raise NotPossible("wrong_state", f"you cannot {wish} it now: it is {before.state}")
            row = await self._pool().fetchrow(statement, id, list(FROM[wish]), *values)
            if row is None:
                await self._read_again(id)
                raise NotPossible("wrong_state", "it has changed at this very moment: see how it stands now")
            return self._keep(row)

    def _keep(self, row: asyncpg.Record) -> CallBackView:
        view = CallBackView(**dict(row))
        if view.state in ENDED:
            self._live.pop(view.id, None)
        else:
            self._live[view.id] = view
        return view

    async def _read_again(self, id: int) -> None:
        row = await self._pool().fetchrow("SELECT * FROM call_backs WHERE id = $1", id)
        if row is None:
            self._live.pop(id, None)
        else:
            self._keep(row)

    def _lock(self, id: int) -> asyncio.Lock:
        lock = self._locks.get(id)
        if lock is None:
            lock = self._locks[id] = asyncio.Lock()
        return lock

    # ------------------------------------------------------------------------------------------ reminders

    async def run(self) -> None:
        """Reminds of what is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                for id in [view.id for view in self._live.values() if self._wants_reminder(view)]:
                    await self._remind(id)
            except Exception as error:
                log.warning("call backs could not be reminded of", why=type(error).__name__)
                await asyncio.sleep(TRY_AGAIN)

    def _wants_reminder(self, view: CallBackView) -> bool:
        if view.state != "open" or view.due > self._now():
            return False
        return view.reminded is None or (not view.for_team and self._goes_to_team(view))

    def _goes_to_team(self, view: CallBackView) -> bool:
        return view.team is not None and (view.agent is None or self._is_away(view.agent))

    async def _remind(self, id: int) -> None:
        async with self._lock(id):
            view = self._live.get(id)
            if view is None or not self._wants_reminder(view):
                return
            row = await self._pool().fetchrow(
                """UPDATE call_backs SET reminded = $2, for_team = for_team OR $3, version = version + 1
                   WHERE id = $1 AND state = 'open' RETURNING *""",
                *(id, self._now(), self._goes_to_team(view)),
            )
            if row is None:
                await self._read_again(id)
                return
            view = self._keep(row)
            self._publish([CallBackDue(at=self._now(), view=view, **_about(view))])


def _about(view: CallBackView) -> dict[str, Any]:
    return {"call_back": view.id, "agent": view.agent, "team": view.team, "for_team": view.for_team}


def topics_of(view: CallBackView) -> frozenset[str]:
    """Who may see it: its agent, the supervisors of the team, and with `for_team` all of the team."""
    topics = {"admin"}
    if view.agent is not None:
        topics.add(f"agent:{view.agent}")
    if view.team is not None:
        topics |= {f"team:{view.team}", f"mates:{view.team}"} if view.for_team else {f"team:{view.team}"}
    return frozenset(topics)


def kept_by(view: CallBackView, login: str, team: str | None) -> bool:
    """Whether this agent may call the customer."""
    return (
        view.agent == login
        or view.taken_by == login
        or (view.for_team and team is not None and view.team == team)
    )
