"""REST routes of call backs: what is open or taken, and what was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field

from crm.call_backs import topics_of
from crm.views import CallBackView
from cti.openapi import Route
from cti.people import Actor, Directory
from cti.rest.pages import Page, Paging, decode, encode
from cti.rest.serving import Asked

if TYPE_CHECKING:
    from cti.database import Pool

Topics = frozenset[str]


class CallBacksAsked(Paging):
    """Which call backs."""

    ended: bool = Field(default=False, description="those that are done or cancelled, the newest first")


def routes(
    *,
    pool: Callable[[], Pool],
    views: Callable[[], list[CallBackView]],
    subscriptions: Callable[[Actor], Topics],
    directory: Directory,
) -> list[Route]:
    """Returns the routes. Everybody sees what their websocket would show them."""

    async def listed(asked: Asked) -> dict[str, Any]:
        wanted: CallBacksAsked = asked.query
        topics = subscriptions(asked.who)
        if wanted.ended:
            return await _ended(asked.who, wanted, topics)
        after = decode(wanted.cursor, str, int) if wanted.cursor else None
        found = [view for view in views() if not topics.isdisjoint(topics_of(view))]
        rest = [view for view in found if after is None or [view.due.isoformat(), view.id] > after]
        return _page(rest, wanted.limit, lambda view: view.due)

    async def _ended(actor: Actor, wanted: CallBacksAsked, topics: Topics) -> dict[str, Any]:
        after = decode(wanted.cursor, str, int) if wanted.cursor else None
        teams = sorted(actor.teams | {team} if (team := directory.team_of(actor.login)) else actor.teams)
        rows = await pool().fetch(
            """SELECT * FROM call_backs WHERE state IN ('done', 'cancelled')
                 AND ($1 OR agent = $2 OR team = ANY($3) AND (for_team OR team = ANY($4)))
                 AND ($5::timestamptz IS NULL OR (ended, id) < ($5, $6))
               ORDER BY ended DESC, id DESC LIMIT $7""",
            "admin" in topics,
            actor.login,
            teams,
            sorted(actor.teams),
            datetime.fromisoformat(after[0]) if after else None,
            after[1] if after else None,
            wanted.limit + 1,
        )
        return _page([CallBackView(**dict(row)) for row in rows], wanted.limit, lambda view: view.ended)

    return [
        Route(
            method="GET",
            path="/api/v1/call_backs",
            handler=listed,
            summary="Promises to call customers back: open and taken, the first due first; or ended.",
            tag="Call backs",
            query=CallBacksAsked,
            result=Page[CallBackView],
            errors=frozenset({503}),
        )
    ]


def _page(
    rows: list[CallBackView], limit: int, key: Callable[[CallBackView], datetime | None]
) -> dict[str, Any]:
    part, last = rows[:limit], rows[limit - 1] if len(rows) > limit else None
    at = key(last) if last is not None else None
    return {"items": part, "next": encode([at.isoformat(), last.id]) if last is not None and at else None}
