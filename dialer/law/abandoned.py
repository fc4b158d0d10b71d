"""The arithmetic of abandoned calls, for all who tell of them: the share, and how many more may be lost. Pure.

What is an abandoned call is decided once, in `dialer/attempts.py` (`CountsAs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dialer.law.profiles import Profile


def error_share(profile: Profile) -> float:
    """The share of detected machines that are people and count as abandoned calls by this law."""
    return profile.amd_error_share if profile.amd_errors_count else 0.0


def lost_share(live: float, abandoned: float, errors: float = 0.0) -> float | None:
    """The share of 1 of the live answers that is lost; `errors`: people taken for machines, live answers too. None where
    nobody has answered."""
    answers = live + errors
    return (abandoned + errors) / answers if answers > 0 else None


def spare(live: float, abandoned: float, errors: float, cap: float) -> int:
    """How many more live answers may be lost: each is a live answer too. Negative: so many too many."""
    if cap >= 1:
        return 1_000_000
    room = (cap * (live + errors) - abandoned - errors) / (1 - cap)
    return int(room + 1e-9) if room >= 0 else -int(-room + 1 - 1e-9)
