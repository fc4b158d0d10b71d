"""Whose a call is, for what may be done with it after, and for whom one may speak. Pure look-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cti.people import Actor, Directory, Role


class WhoseCall:
    """A call is an agent's while they are in it, while it is on their screen, and once they have had it.

    `agents_in(call)`: who is in it now; `shown_to(login)`: the calls on a screen; `had_by(call)`: who has had it, as far
    as is remembered; `teams_of(call)`: the teams whose supervisors may see it.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        agents_in: Callable[[str], Iterable[str]],
        shown_to: Callable[[str], Iterable[str]],
        had_by: Callable[[str], Iterable[str]],
        teams_of: Callable[[str], frozenset[str]],
    ) -> None:
        self._directory = directory
        self._agents_in = agents_in
        self._shown_to = shown_to
        self._had_by = had_by
        self._teams_of = teams_of

    def works_on(self, actor: Actor, call: str) -> bool:
        """Whether a call is, or has just been, somebody's or their team's."""
        if actor.is_admin or actor.login in self._agents_in(call) or call in self._shown_to(actor.login):
            return True
        had = set(self._had_by(call))
        if actor.login in had:
            return True
        return actor.role is Role.SUPERVISOR and (
            any(self.oversees(actor, agent) for agent in had) or bool(actor.teams & self._teams_of(call))
        )

    def oversees(self, actor: Actor, agent: str) -> bool:
        """Whether the agent is in one of the actor's teams."""
        return self._directory.team_of(agent) in actor.teams

    def speaks_for(self, actor: Actor, agent: str) -> bool:
        """Whether the actor may say in the agent's place how a call of theirs ended."""
        return actor.is_admin or (actor.role is Role.SUPERVISOR and self.oversees(actor, agent))
