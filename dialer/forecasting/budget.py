"""How many live answers may still be lost: what was answered and abandoned over the window of the law. No clock, no
I/O."""

from __future__ import annotations

from collections import deque
from math import sqrt


class Budget:
    """Live answers and abandoned calls over a window, by the minute.

    Machines that came to an agent are no live answers; among the abandoned calls the same share is taken to be
    machines, and what that guess may be wrong by is not spent.
    """

    def __init__(self, window: float, cap: float) -> None:
        self.window = window
        self._cap = cap
        self._minutes: deque[list[float]] = deque()
        self.connected = 0
        self.abandoned = 0
        self._machines = 0

    def _minute(self, now: float) -> list[float]:
        if not self._minutes or now - self._minutes[-1][0] >= 60.0:
            self._minutes.append([now, 0, 0, 0])
        return self._minutes[-1]

    def connect(self, now: float) -> None:
        """Somebody who answered came to an agent."""
        self._minute(now)[1] += 1
        self.connected += 1

    def abandon(self, now: float) -> None:
        """Somebody who answered did not."""
        self._minute(now)[2] += 1
        self.abandoned += 1

    def machine(self, now: float) -> None:
        """What came to an agent was a machine."""
        if self._machines < self.connected:
            self._minute(now)[3] += 1
            self._machines += 1

    def expire(self, now: float) -> None:
        """Forgets what is older than the window."""
        minutes = self._minutes
        while minutes and minutes[0][0] < now - self.window:
            _, connected, abandoned, machines = minutes.popleft()
            self.connected -= int(connected)
            self.abandoned -= int(abandoned)
            self._machines -= int(machines)

    @property
    def people(self) -> float:
        """The share of people among those who came to an agent."""
        return (self.connected - self._machines + 1.0) / (self.connected + 1.0) if self._machines > 0 else 1.0

    @property
    def answers(self) -> float:
        """Live answers."""
        return (self.connected + self.abandoned) * self.people

    @property
    def lost(self) -> float:
        """Live answers abandoned."""
        people = self.people
        return self.abandoned * people + sqrt(self.abandoned * people * (1.0 - people))

    def left(self) -> float:
        """How many more may be lost; below 0 when the cap is broken."""
        return self._cap * self.answers - self.lost
