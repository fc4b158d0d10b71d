"""How many live answers may still be lost: what was answered and abandoned over the window of the law. No clock, no
I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import sqrt

from dialer.law.abandoned import spare


class Budget:
    """Live answers and abandoned calls over a window, by the minute; `error_share` of the machines that were detected are
    people: live answers, and lost.

    Machines that came to an agent are no live answers; among the abandoned calls the same share is taken to be
    machines, and what that guess may be wrong by is not spent.
    """

    def __init__(self, window: float, cap: float, error_share: float = 0.0) -> None:
        self.window = window
        self._error_share = error_share
        self._cap = cap
        self._minutes: deque[list[float]] = deque()
        self.connected = 0
        self.abandoned = 0
        self._machines = 0
        self._detected = 0

    def _minute(self, now: float) -> list[float]:
        if not self._minutes or now - self._minutes[-1][0] >= 60.0:
            self._minutes.append([now, 0, 0, 0, 0])
        return self._minutes[-1]

    def hold(self, minutes: Iterable[tuple[float, int, int, int]]) -> None:
        """Forgets what it holds for what was counted elsewhere: (when, live answers, abandoned of them, machines detected),
        the oldest first."""
        self._minutes = deque([at, live - lost, lost, 0, detected] for at, live, lost, detected in minutes)
        self.connected = sum(int(minute[1]) for minute in self._minutes)
        self.abandoned = sum(int(minute[2]) for minute in self._minutes)
        self._detected = sum(int(minute[4]) for minute in self._minutes)
        self._machines = 0

    def connect(self, now: float) -> None:
        """A live answer that is not lost."""
        self._minute(now)[1] += 1
        self.connected += 1

    def abandon(self, now: float) -> None:
        """One that is."""
        self._minute(now)[2] += 1
        self.abandoned += 1

    def machine(self, now: float) -> None:
        """What came to an agent was a machine."""
        if self._machines < self.connected:
            self._minute(now)[3] += 1
            self._machines += 1

    def detected(self, now: float) -> None:
        """A machine was detected."""
        self._minute(now)[4] += 1
        self._detected += 1

    def expire(self, now: float) -> None:
        """Forgets what is older than the window."""
        minutes = self._minutes
        while minutes and minutes[0][0] < now - self.window:
            _, connected, abandoned, machines, detected = minutes.popleft()
            self.connected -= int(connected)
            self.abandoned -= int(abandoned)
            self._machines -= int(machines)
            self._detected -= int(detected)

    @property
    def people(self) -> float:
        """The share of people among those who came to an agent."""
        return (self.connected - self._machines + 1.0) / (self.connected + 1.0) if self._machines > 0 else 1.0

    @property
    def answers(self) -> float:
        """Live answers."""
        return (self.connected + self.abandoned) * self.people + self._detected * self._error_share

    @property
    def lost(self) -> float:
        """Live answers abandoned."""
        people = self.people
        of_answers = self.abandoned * people + sqrt(self.abandoned * people * (1.0 - people))
        return of_answers + self._detected * self._error_share

    def left(self) -> float:
        """How much may still be lost of the answers that there were; below 0 when the cap is broken."""
        return self._cap * self.answers - self.lost

    def spare(self) -> int:
        """How many more may be lost, as the ledger says it."""
        return spare(self.answers, self.lost, 0.0, self._cap)
