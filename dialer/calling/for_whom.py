"""Which lists are called now: those that the agent who asks may call, or those for which agents are free. Pure.

A list that only some of a campaign's agents may call is called one for one: no more calls under way than there are free
agents of theirs who could take them, each agent counted once, whichever of several lists they may call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Protocol

from cti.people import Agent
from dialer.lists import Assigned, may_call


class Reach(Protocol):
    """How far a claim may reach into lists."""

    def room(self, assigned: Assigned, most: int) -> int | None:
        """How many more of a list with this assignment may be called now, `most` at most; None: no matter how many."""

    def take(self, assigned: Assigned) -> bool:
        """One more is called; False if that would be one too many."""


class ForOne:
    """Of an agent who dials: what they may call."""

    def __init__(self, agent: Agent | None) -> None:
        self._agent = agent

    def room(self, assigned: Assigned, most: int) -> int | None:
        """No limit for what they may call, nothing of the others."""
        return None if may_call(assigned, self._agent) else 0

    def take(self, assigned: Assigned) -> bool:
        """Whether they may call it."""
        return may_call(assigned, self._agent)


class ForFree:
    """Of a campaign that dials by itself. `at_work` are its agents, `free` those who could take a call now; `waiting`:
    whom the lists are assigned to of whose calls under way nobody has taken yet. They are asked for once, and only if there
    is a list that not everybody may call."""

    def __init__(
        self,
        free: Callable[[], Iterable[Agent]],
        at_work: Callable[[], Iterable[Agent]],
        waiting: Iterable[Assigned],
    ) -> None:
        self._who_is_free, self._who_is_at_work = free, at_work
        self._calls: list[list[str]] = []  # who of the free may take each call
        self._taken: dict[str, int] = {}  # agent → the call that is theirs
        for assigned in waiting:
            if not self._open(assigned):
                self._add(assigned)

    @cached_property
    def _free(self) -> list[Agent]:
        return list(self._who_is_free())

    @cached_property
    def _at_work(self) -> list[Agent]:
        return list(self._who_is_at_work())

    def room(self, assigned: Assigned, most: int) -> int | None:
        """As many as free agents can be found for; no limit where all who are at work may call it."""
        if self._open(assigned):
            return None
        calls, taken, found = len(self._calls), dict(self._taken), 0
        while found < most and self._add(assigned):
            found += 1
        del self._calls[calls:]
        self._taken = taken
        return found

    def take(self, assigned: Assigned) -> bool:
        """Whether there is still a free agent for it, who is its own from now on."""
        return self._open(assigned) or self._add(assigned)

    def _open(self, assigned: Assigned) -> bool:
        return assigned.to_all or all(may_call(assigned, agent) for agent in self._at_work)

    def _add(self, assigned: Assigned) -> bool:
        """Finds an agent for one more call; others' calls change hands for it where that helps (a matching that grows)."""
        if len(self._taken) == len(self._free):
            return False
        new = len(self._calls)
        self._calls.append([agent.login for agent in self._free if may_call(assigned, agent)])
        came: dict[str, int] = {}  # agent → the call that they were looked at for
        looking = deque([new])
        while looking:
            call = looking.popleft()
            for login in self._calls[call]:
                if login in came:
                    continue
                came[login] = call
                if login in self._taken:
                    looking.append(self._taken[login])
                    continue
                self._hand_on(login, came, new)
                return True
        self._calls.pop()
        return False

    def _hand_on(self, login: str, came: dict[str, int], new: int) -> None:
        """Each call on the way gets the agent that was found for it, and lets go of its former one."""
        former = {call: agent for agent, call in self._taken.items()}
        while True:
            call = came[login]
            self._taken[login] = call
            if call == new:
                return
            login = former[call]
