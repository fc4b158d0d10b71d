"""What compliance says of one call: whether it may be placed, why, and by which rule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One rule that was looked at. `says`: in plain words with its numbers; `source`: the law, or who set the limit."""

    rule: str
    ok: bool
    says: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that was looked at for one contact at one moment, in order, also what came after a refusal.

    `not_before`: when a refusal may end (calling hours open, a rest is over); None where time alone does not help.
    `consent`: the consent relied upon, "" where none is needed; `recorded`: whether they may hear a recorded message, on
    their machine too, by their consent to that.
    """

    steps: tuple[Step, ...]
    not_before: datetime | None = None
    consent: str = ""
    recorded: bool = False

    @property
    def allowed(self) -> bool:
        """Whether every rule agrees."""
        return all(step.ok for step in self.steps)

    @property
    def why_not(self) -> str:
        """What the first rule that does not agree says; "" if the call may be placed."""
        return next((step.says for step in self.steps if not step.ok), "")

    @property
    def forever(self) -> bool:
        """Whether the contact may not be called at all as things are: no time will come by itself."""
        return not self.allowed and self.not_before is None
