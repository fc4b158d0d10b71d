"""How many digits of a number decide what it is: the patterns of a number plan, followed digit by digit only as far as
they tell numbers apart. Pure.

A plan's patterns say little about the last digits: what was found out about one number holds for all that begin as it
does. So a million numbers need a few thousand looks at the plan. Method: partial derivatives of regular expressions
(Antimirov, 1996), remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Node = tuple[Any, ...]
State = frozenset[Node]

_ALL = (1 << 10) - 1
_EMPTY: Node = ("empty",)
_REST: Node = ("rest",)  # any digits, also none


class NotPlain(ValueError):
    """The pattern uses more than digits, classes, groups, alternatives and counts."""


def pattern(text: str, *, beginning: bool = False) -> State:
    """Reads a pattern of digits; `beginning`: what follows it may be anything. Raises NotPlain."""
    reader = _Reader(text)
    node = reader.alternatives()
    if reader.at != len(text):
        raise NotPlain(text)
    return frozenset({_cat(node, _REST) if beginning else node})


def ways(text: str) -> list[str]:
    """The alternatives of a pattern that stand outside of all groups."""
    depth, begin, found = 0, 0, []
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and depth == 0:
            found.append(text[begin:place])
            begin = place + 1
    return [*found, text[begin:]]


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def alternatives(self) -> Node:
        ways = [self.sequence()]
        while self._next("|"):
            ways.append(self.sequence())
        return ways[0] if len(ways) == 1 else ("alt", tuple(ways))

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            parts.append(self._counted(self._one()))
        node = _EMPTY
        for part in reversed(parts):
            node = _cat(part, node)
        return node

    def _one(self) -> Node:
        if self._next("(?:") or (not self.text.startswith("(?", self.at) and self._next("(")):
            node = self.alternatives()
            if not self._next(")"):
                raise NotPlain(self.text)
            return node
        if self._next("\\d"):
            return ("set", _ALL)
        if self._next("["):
            return ("set", self._class())
        character = self.text[self.at]
        if not character.isdecimal():
            raise NotPlain(self.text)
        self.at += 1
        return ("set", 1 << int(character))

    def _class(self) -> int:
        end = self.text.index("]", self.at)
        inside, mask, place = self.text[self.at : end], 0, 0
        self.at = end + 1
        while place < len(inside):
            if inside.startswith("\\d", place):
                mask, place = mask | _ALL, place + 2
                continue
            first = last = inside[place]
            if inside[place + 1 : place + 2] == "-":
                last = inside[place + 2]
                place += 2
            place += 1
            if not (first.isdecimal() and last.isdecimal()):
                raise NotPlain(self.text)
            for digit in range(int(first), int(last) + 1):
                mask |= 1 << digit
        return mask

    def _counted(self, node: Node) -> Node:
        low, high = 1, 1
        if self._next("?"):
            low = 0
        elif self._next("{"):
            end = self.text.index("}", self.at)
            least, _, most = self.text[self.at : end].partition(",")
            self.at = end + 1
            low, high = int(least), int(most or least)
        elif self.text[self.at : self.at + 1] in ("*", "+"):
            raise NotPlain(self.text)
        counted = _EMPTY
        for number in range(high, 0, -1):
            counted = _cat(node, counted)
            if number > low:
                counted = ("alt", (counted, _EMPTY))
        return counted

    def _next(self, wanted: str) -> bool:
        found = self.text.startswith(wanted, self.at)
        self.at += len(wanted) if found else 0
        return found


def _cat(first: Node, then: Node) -> Node:
    if first == _EMPTY:
        return then
    return first if then == _EMPTY else ("cat", first, then)


@lru_cache(maxsize=50_000)
def _ends(node: Node) -> bool:
    match node[0]:
        case "set":
            return False
        case "cat":
            return _ends(node[1]) and _ends(node[2])
        case "alt":
            return any(_ends(way) for way in node[1])
        case _:
            return True


@lru_cache(maxsize=50_000)
def _after(node: Node, digit: int) -> State:
    match node[0]:
        case "set":
            return frozenset({_EMPTY}) if node[1] >> digit & 1 else frozenset()
        case "cat":
            found = {_cat(one, node[2]) for one in _after(node[1], digit)}
            return frozenset(found | _after(node[2], digit) if _ends(node[1]) else found)
        case "alt":
            return frozenset().union(*(_after(way, digit) for way in node[1]))
        case "rest":
            return frozenset({_REST})
        case _:
            return frozenset()


def _step(state: State, digit: int) -> State:
    return frozenset().union(*(_after(node, digit) for node in state)) if state else state


@lru_cache(maxsize=50_000)
def _decided(state: State, left: int) -> bool | None:
    """Whether the pattern matches, whatever the digits that are left; None where they decide it."""
    if not state or _REST in state:
        return bool(state)
    if left == 0:
        return any(_ends(node) for node in state)
    first = _decided(_step(state, 0), left - 1)
    if first is None:
        return None
    for digit in range(1, 10):
        if _decided(_step(state, digit), left - 1) is not first:
            return None
    return first


class _Branch:
    __slots__ = ("children", "left", "open")

    def __init__(self, still_open: tuple[State, ...], left: int) -> None:
        self.open = still_open
        self.left = left
        self.children: list[Any] = [None] * 10


class Beginnings(Generic[T]):
    """What holds for numbers of one plan, looked up once for each beginning that decides it."""

    def __init__(self, patterns: Iterable[State], look: Callable[[str], T], most: int = 50_000) -> None:
        """`look(digits)` is asked for one number of each beginning; its answer may depend on nothing but the length and
        which of the patterns match. At most about so many beginnings are kept."""
        self._patterns = tuple(patterns)
        self._look = look
        self._roots: dict[int, Any] = {}
        self._most = most
        self._kept = 0

    def of(self, digits: str) -> T:
        """What holds for this number (ASCII digits)."""
        node = self._roots.get(len(digits))
        if node is None:
            if self._kept >= self._most:
                self._roots.clear()
                self._kept = 0
            node = self._roots[len(digits)] = self._node(self._patterns, len(digits), digits)
        for digit in digits:
            if node.__class__ is not _Branch:
                break
            n = ord(digit) - 48
            child = node.children[n]
            if child is None:
                states = tuple(_step(state, n) for state in node.open)
                child = node.children[n] = self._node(states, node.left - 1, digits)
            node = child
        found: T = node[0]
        if self._kept >= self._most:
            self._roots.clear()
            self._kept = 0
        return found

    def _node(self, states: tuple[State, ...], left: int, digits: str) -> Any:
        self._kept += 1
        still_open = tuple(dict.fromkeys(state for state in states if _decided(state, left) is None))
        return _Branch(still_open, left) if still_open else (self._look(digits),)
