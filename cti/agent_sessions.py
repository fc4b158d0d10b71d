"""What of an agent must survive a restart of the server: whether they were logged on, where, and in which state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cti.facts import AgentState

if TYPE_CHECKING:
    from cti.database import Queryable


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSession:
    """An agent's working day as last known. `queues`: those they are logged into; `wrap_until`: end of the wrap-up time."""

    login: str
    logged_on: bool
    state: AgentState
    since: datetime
    reason: str | None = None
    device: str | None = None
    queues: tuple[str, ...] = ()
    wrap_until: datetime | None = None


async def save_agent_sessions(db: Queryable, sessions: Iterable[AgentSession]) -> None:
    """Keeps these as the last known; of agents that are no users any more nothing is kept. All or nothing."""
    latest = {session.login: session for session in sessions}
    ordered = [latest[login] for login in sorted(latest)]  # the same order everywhere: no deadlock
    await db.executemany(
        """INSERT INTO agent_sessions (login, logged_on, state, reason, since, device, queues, wrap_until)
           SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE EXISTS (SELECT FROM users WHERE login = $1)
           ON CONFLICT (login) DO UPDATE SET
               logged_on = excluded.logged_on, state = excluded.state, reason = excluded.reason,
               since = excluded.since, device = excluded.device, queues = excluded.queues,
               wrap_until = excluded.wrap_until, changed = now()""",
        [
            (s.login, s.logged_on, s.state.value, s.reason, s.since, s.device, list(s.queues), s.wrap_until)
            for s in ordered
        ],
    )


async def load_agent_sessions(db: Queryable) -> dict[str, AgentSession]:
    """Returns the last known of every agent who is not disabled, by login."""
    rows = await db.fetch(
        """SELECT s.login, s.logged_on, s.state, s.reason, s.since, s.device, s.queues, s.wrap_until
           FROM agent_sessions s JOIN users u USING (login) WHERE NOT u.disabled"""
    )
    return {
        row["login"]: AgentSession(
            login=row["login"],
            logged_on=row["logged_on"],
            state=AgentState(row["state"]),
            reason=row["reason"],
            since=row["since"],
            device=row["device"],
            queues=tuple(row["queues"]),
            wrap_until=row["wrap_until"],
        )
        for row in rows
    }
