"""Reasons: why an agent takes no calls, whether that time is paid, how long it may be, and who may choose it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from cti.frozen import Frozen

PHONE_UNREACHABLE = "Phone unreachable"
"""Shown of an agent who is ready and whose phones cannot be reached: Asterisk offers them nothing."""

PAUSED_AT_THE_PBX = "Paused at the PBX"
"""Shown of a pause made at the PBX without a reason."""

CONTESTED = "Contested at the PBX"
"""Given when another program keeps changing the agent's queue members."""


LINE_CLOSED = "Line closed"
"""Of an agent who works off-hook: the line was hung up or broke, or the phone did not answer."""

OTHER_WORK = "Other work"
"""Shown of an agent who does other work than calls from queues, which come after it."""


class Chooser(StrEnum):
    """Who may choose a reason: agents (and their supervisors), supervisors only, or only the system."""

    AGENTS = "agents"
    SUPERVISORS = "supervisors"
    SYSTEM = "system"


class Reason(Frozen, frozen=True, gc=False, kw_only=True):
    """A reason. `limit`: minutes after which it has lasted too long, None for no limit; nobody is made ready by it."""

    name: str
    paid: bool = True
    limit: float | None = None
    chosen_by: Chooser = Chooser.AGENTS


class NotAReason(Exception):
    """The reason may not be given; `code` for programs, the message says what may be."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Reasons:
    """The reasons of a house, those of the system among them. None configured: any text is a reason."""

    def __init__(self, reasons: Iterable[Reason]) -> None:
        configured = {reason.name: reason for reason in reasons}
        self._free = not any(reason.chosen_by is not Chooser.SYSTEM for reason in configured.values())
        for name in (PHONE_UNREACHABLE, LINE_CLOSED, PAUSED_AT_THE_PBX, CONTESTED, OTHER_WORK):
            own = configured.pop(name, Reason(name=name))
            # Nobody may choose what only the system can know.
            configured[name] = Reason(name=name, paid=own.paid, limit=own.limit, chosen_by=Chooser.SYSTEM)
        self._reasons = configured

    def all(self) -> tuple[Reason, ...]:
        """Every reason: as configured, the system's own last."""
        return tuple(self._reasons.values())

    def check(self, name: str, *, for_oneself: bool) -> None:
        """Raises NotAReason unless it may be chosen: by an agent `for_oneself`, or by a supervisor for an agent."""
        found = self._reasons.get(name)
        allowed = {Chooser.AGENTS} if for_oneself else {Chooser.AGENTS, Chooser.SUPERVISORS}
        if (found is None and self._free) or (found is not None and found.chosen_by in allowed):
            return
        choice = (
            ", ".join(r.name for r in self._reasons.values() if r.chosen_by in allowed) or "any other text"
        )
        if found is None:
            raise NotAReason("unknown_reason", f"there is no reason {name!r}; use one of: {choice}")
        whose = "a supervisor" if found.chosen_by is Chooser.SUPERVISORS else "the system"
        raise NotAReason("reason_not_yours", f"only {whose} gives the reason {name!r}; use one of: {choice}")
