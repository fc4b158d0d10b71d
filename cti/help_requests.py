"""Agents' requests for help: at most one open an agent, told at once, written a moment later.

An agent can call for help with the database down; while it is away the changes wait, one entry a request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from cti.backlog import Backlog
from cti.facts import AgentState, AgentStateChanged, Fact
from cti.refusals import Refused
from cti.supervision import HelpAccepted, HelpClosed, HelpRequested, HelpView

if TYPE_CHECKING:
    from cti.database import Pool


class NotPossible(Refused):
    """It cannot be done now: a code for programs, a sentence that says why."""


@dataclass(frozen=True, slots=True)
class _Row:
    view: HelpView
    ended: datetime | None = None
    ended_by: str | None = None
    outcome: str | None = None


class HelpRequests:
    """The open requests."""

    def __init__(self, pool: Callable[[], Pool]) -> None:
        self._pool = pool
        self._open: dict[str, HelpView] = {}
        self._due: dict[str, _Row] = {}
        self._backlog = Backlog("requests for help")

    async def load(self) -> None:
        """Reads the open requests; called once, at the start."""
        rows = await self._pool().fetch(
            """SELECT id, agent, call, text, since, taken_by, taken FROM help_requests
               WHERE ended IS NULL ORDER BY since"""
        )
        self._open = {row["id"]: HelpView(**dict(row)) for row in rows}

    def views(self) -> list[HelpView]:
        """The open requests, the oldest first."""
        return list(self._open.values())

    def of(self, agent: str) -> HelpView | None:
        """The agent's open request."""
        return next((view for view in self._open.values() if view.agent == agent), None)

    def known(self, id: str) -> HelpView:
        """An open request; raises NotPossible."""
        view = self._open.get(id)
        if view is None:
            raise NotPossible("no_such_request", "there is no such request for help, or it is over")
        return view

    def ask(self, agent: str, call: str | None, text: str, at: datetime) -> list[Fact]:
        """An agent asks for help."""
        if self.of(agent) is not None:
            raise NotPossible("wrong_state", "you have asked for help already: withdraw that first")
        view = HelpView(id=f"h{uuid4().hex[:16]}", agent=agent, call=call, text=text, since=at)
        self._open[view.id] = view
        self._write(_Row(view))
        return [HelpRequested(at=at, help=view.id, agent=agent, call=call, text=text)]

    def accept(self, id: str, by: str, at: datetime) -> list[Fact]:
        """A supervisor takes care of it."""
        view = self.known(id)
        if view.taken_by is not None:
            who = "you take" if view.taken_by == by else f"{view.taken_by} takes"
            raise NotPossible("already_accepted", f"{who} care of this already")
        view = msgspec.structs.replace(view, taken_by=by, taken=at)
        self._open[id] = view
        self._write(_Row(view))
        return [HelpAccepted(at=at, help=id, agent=view.agent, by=by)]

    def close(self, id: str, by: str, reason: str, at: datetime) -> list[Fact]:
        """The request is over."""
        view = self.known(id)
        del self._open[id]
        self._write(_Row(view, at, by, reason))
        return [HelpClosed(at=at, help=id, agent=view.agent, by=by, reason=reason)]

    def hear(self, fact: AgentStateChanged) -> list[Fact]:
        """Who logs off needs no help any more."""
        if fact.new is not AgentState.LOGGED_OFF or (view := self.of(fact.agent)) is None:
            return []
        return self.close(view.id, fact.by, "logged_off", fact.at)

    # ------------------------------------------------------------------------------------------ writing

    def _write(self, row: _Row) -> None:
        self._due.pop(row.view.id, None)
        self._due[row.view.id] = row
        self._backlog.more()

    async def run(self) -> None:
        """Writes what is due, in order, until cancelled."""
        while True:
            if not self._due:
                await self._backlog.idle()
            id, row = next(iter(self._due.items()))
            try:
                await self._save(row)
            except Exception as error:
                await self._backlog.failed(type(error).__name__)
            else:
                self._backlog.succeeded()
                if self._due.get(id) is row:
                    del self._due[id]

    async def _save(self, row: _Row) -> None:
        view = row.view
        await self._pool().execute(
            """INSERT INTO help_requests (id, agent, call, text, since, taken_by, taken, ended, ended_by, outcome)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
               ON CONFLICT (id) DO UPDATE SET taken_by = excluded.taken_by, taken = excluded.taken,
                   ended = excluded.ended, ended_by = excluded.ended_by, outcome = excluded.outcome""",
            *(view.id, view.agent, view.call, view.text, view.since, view.taken_by, view.taken),
            *(row.ended, row.ended_by, row.outcome),
        )

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything is written; False if it is not after `timeout` seconds."""
        return await self._backlog.flush(timeout)
