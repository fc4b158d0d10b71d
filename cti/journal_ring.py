"""The newest frames, in memory: what most clients that come back have missed. Bounded; knows how far back it is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Ring:
    """The last `size` frames in the order of their numbers.

    It is whole above `floor`: every frame with a greater number that was ever added is there.
    """

    def __init__(
        self, size: int, *, floor: int = 0, frames: Iterable[tuple[int, frozenset[str], bytes]] = ()
    ) -> None:
        self._size = size
        frames = list(frames)
        # Three deques, not one of tuples: the garbage collector has nothing to look through.
        self._numbers = deque(number for number, _, _ in frames)
        self._topics = deque(topics for _, topics, _ in frames)
        self._frames = deque(frame for _, _, frame in frames)
        self.floor = floor

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, seq: int, topics: frozenset[str], frame: bytes) -> None:
        """Takes the next frame, in place of the oldest when full."""
        if len(self._frames) >= self._size:
            self.floor = self._numbers.popleft()
            self._topics.popleft()
            self._frames.popleft()
        self._numbers.append(seq)
        self._topics.append(topics)
        self._frames.append(frame)

    def between(self, after: int, up_to: int, topics: frozenset[str]) -> list[bytes]:
        """Returns the frames with after < number <= up_to that one of the topics may see, in order; costs as much as it
        reaches back."""
        found: list[bytes] = []
        rows = zip(reversed(self._numbers), reversed(self._topics), reversed(self._frames), strict=True)
        for seq, seen_by, frame in rows:
            if seq <= after:
                break
            if seq <= up_to and not topics.isdisjoint(seen_by):
                found.append(frame)
        found.reverse()
        return found
