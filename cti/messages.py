"""Messages to agents: written down before they are told, kept until each has read them.

What is unread is also held in memory, for snapshots; the database is the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cti.facts import Fact
from cti.people import Actor
from cti.supervision import MessageRead, MessageSent, MessageView

if TYPE_CHECKING:
    from cti.database import Pool

UNREAD_AT_MOST = 200
"""Unread messages of one agent; who does not read so many is not sent more."""


class Unread(Exception):
    """An agent has too many unread messages; the message says who."""


class NoSuchMessage(Exception):
    """There is no such unread message for this agent."""


class Messages:
    """Messages that somebody has not read yet."""

    def __init__(self, pool: Callable[[], Pool]) -> None:
        self._pool = pool
        self._unread: dict[str, dict[int, MessageView]] = {}

    async def load(self) -> None:
        """Reads what is unread; called once, at the start."""
        rows = await self._pool().fetch(
            """SELECT m.id, m.at, r.agent, m.sender, m.sender_name, m.team, m.text
               FROM message_receipts r JOIN messages m ON m.id = r.message
               WHERE r.read IS NULL ORDER BY m.id"""
        )
        for row in rows:
            self._keep(MessageView(**dict(row)))

    def unread(self) -> list[MessageView]:
        """All unread messages, an agent's in the order they were sent."""
        return [view for views in self._unread.values() for view in views.values()]

    async def send(
        self, sender: Actor, agents: Sequence[str], team: str | None, text: str, at: datetime
    ) -> tuple[int, Iterable[Fact]]:
        """Writes a message down; returns its id and what to tell. Raises Unread."""
        full = [agent for agent in agents if len(self._unread.get(agent, ())) >= UNREAD_AT_MOST]
        if full:
            raise Unread(f"{', '.join(full[:5])}: {UNREAD_AT_MOST} messages unread; more cannot be sent")
        row = await self._pool().fetchrow(
            """WITH sent AS (INSERT INTO messages (at, sender, sender_name, team, text)
                             VALUES ($1, $2, $3, $4, $5) RETURNING id),
                    told AS (INSERT INTO message_receipts (message, agent)
                             SELECT id, agent FROM sent, unnest($6::text[]) AS agent)
               SELECT id FROM sent""",
            *(at, sender.login, sender.name, team, text, list(agents)),
        )
        assert row is not None
        id: int = row["id"]
        for agent in agents:
            self._keep(
                MessageView(
                    id=id,
                    at=at,
                    agent=agent,
                    sender=sender.login,
                    sender_name=sender.name,
                    team=team,
                    text=text,
                )
            )
        sent = MessageSent(
            at=at,
            message=id,
            sender=sender.login,
            sender_name=sender.name,
            agents=tuple(agents),
            team=team,
            text=text,
        )
        return id, [sent]

    async def read(self, agent: str, message: int, at: datetime) -> Iterable[Fact]:
        """Notes that an agent has read a message; returns what to tell. Raises NoSuchMessage."""
        view = self._unread.get(agent, {}).get(message)
        if view is None:
            raise NoSuchMessage
        await self._pool().execute(
            "UPDATE message_receipts SET read = $3 WHERE message = $1 AND agent = $2 AND read IS NULL",
            *(message, agent, at),
        )
        mine = self._unread.get(agent, {})
        if mine.pop(message, None) is None:
            return []  # read in another tab meanwhile
        if not mine:
            self._unread.pop(agent, None)
        return [MessageRead(at=at, message=message, sender=view.sender, agent=agent)]

    def _keep(self, view: MessageView) -> None:
        self._unread.setdefault(view.agent, {})[view.id] = view


async def expire(pool: Pool, older_than: datetime) -> None:
    """Lets go of messages that were sent before, and of requests for help that ended before."""
    await pool.execute("DELETE FROM messages WHERE at < $1", older_than)
    await pool.execute("DELETE FROM help_requests WHERE ended < $1", older_than)
