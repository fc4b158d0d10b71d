"""Agents' working sessions in the database: what of them must survive a restart of the server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from cti.agents import Session
from cti.facts import AgentState

if TYPE_CHECKING:
    from cti.database import Queryable


async def save_agent_sessions(db: Queryable, sessions: Iterable[Session]) -> None:
    """Keeps these as the last known; of agents that are no users any more nothing is kept. All or nothing."""
    latest = {session.agent: session for session in sessions}
    ordered = [latest[login] for login in sorted(latest)]  # the same order everywhere: no deadlock
    await db.execute(
        """INSERT INTO agent_sessions (login, logged_on, ready, reason, state, since, wrap_until, log_off_after,
               shown_reason, call, by, why, asked_by, log_off_by, wrap_call, wrap_queue, owed, worked,
               wrap_extended)
           SELECT s.* FROM unnest($1::text[], $2::boolean[], $3::boolean[], $4::text[], $5::text[], $6::timestamptz[],
                                  $7::timestamptz[], $8::boolean[], $9::text[], $10::text[], $11::text[], $12::text[],
                                  $13::text[], $14::text[], $15::text[], $16::text[], $17::jsonb[], $18::jsonb[],
                                  $19::float8[])
                AS s (login)
           JOIN users u USING (login)
           ON CONFLICT (login) DO UPDATE SET
               logged_on = excluded.logged_on, ready = excluded.ready, reason = excluded.reason,
               state = excluded.state, since = excluded.since, wrap_until = excluded.wrap_until,
               log_off_after = excluded.log_off_after, shown_reason = excluded.shown_reason, call = excluded.call,
               by = excluded.by, why = excluded.why, asked_by = excluded.asked_by, log_off_by = excluded.log_off_by,
               wrap_call = excluded.wrap_call, wrap_queue = excluded.wrap_queue, owed = excluded.owed,
               worked = excluded.worked, wrap_extended = excluded.wrap_extended, changed = now()""",
        [s.agent for s in ordered],
        [s.logged_on for s in ordered],
        [s.ready for s in ordered],
        [s.reason for s in ordered],
        [s.state for s in ordered],
        [s.since for s in ordered],
        [s.wrap_until for s in ordered],
        [s.log_off_after for s in ordered],
        [s.shown_reason for s in ordered],
        [s.call for s in ordered],
        [s.by for s in ordered],
        [s.why for s in ordered],
        [s.asked_by for s in ordered],
        [s.log_off_by for s in ordered],
        [s.wrap_call for s in ordered],
        [s.wrap_queue for s in ordered],
        [msgspec.json.encode(s.owed).decode() for s in ordered],
        [msgspec.json.encode(s.worked).decode() for s in ordered],
        [s.wrap_extended for s in ordered],
    )


async def load_agent_sessions(db: Queryable) -> dict[str, Session]:
    """Returns the last known of every agent who is not disabled, by login."""
    rows = await db.fetch(
        """SELECT s.login, s.logged_on, s.ready, s.reason, s.state, s.since, s.wrap_until, s.log_off_after,
               s.shown_reason, s.call, s.by, s.why, s.asked_by, s.log_off_by, s.wrap_call, s.wrap_queue,
               s.wrap_extended, s.owed::text AS owed, s.worked::text AS worked
           FROM agent_sessions s JOIN users u USING (login) WHERE NOT u.disabled"""
    )
    return {
        row["login"]: Session(
            agent=row["login"],
            logged_on=row["logged_on"],
            ready=row["ready"],
            reason=row["reason"],
            state=None if row["state"] is None else AgentState(row["state"]),
            since=row["since"],
            wrap_until=row["wrap_until"],
            log_off_after=row["log_off_after"],
            shown_reason=row["shown_reason"],
            call=row["call"],
            by=row["by"],
            why=row["why"],
            asked_by=row["asked_by"],
            log_off_by=row["log_off_by"],
            wrap_call=row["wrap_call"],
            wrap_queue=row["wrap_queue"],
            wrap_extended=row["wrap_extended"],
            owed=msgspec.json.decode(row["owed"]),
            worked={
                call: (queue, disposed)
                for call, (queue, disposed) in msgspec.json.decode(row["worked"]).items()
            },
        )
        for row in rows
    }
