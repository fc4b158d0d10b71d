"""What becomes of contacts whom an attempt has not reached: when they are called again, on which of their numbers, until
they are used up. Played through the rules that really decide it (`dialer/calling/outcomes.py`), with the outcomes of the
history and the attempts that the law allows. Pure; the same rules give the same course every time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cti.frozen import Frozen
from dialer.attempts import Detail, Outcome
from dialer.calling.outcomes import after, alive
from dialer.management.settings import CampaignSettings

LIVES = 2000
"""Contacts that are played for a course."""

MOST_WAYS = 6
"""Different waits that are kept after each attempt; rarer ones count as the nearest of them."""

USUAL = {
    Outcome.NO_ANSWER: 0.82,
    Outcome.BUSY: 0.08,
    Outcome.CONGESTION: 0.03,
    Outcome.INVALID_NUMBER: 0.02,
    Outcome.REJECTED: 0.02,
    Outcome.CANCELLED: 0.03,
}
"""How attempts end that reach nobody, where nothing is known; detected machines besides."""

USUAL_WEIGHT = 60.0
"""As how many attempts of the history the usual counts."""

START = datetime(2026, 1, 1, tzinfo=UTC)


class Rules(Frozen, frozen=True, gc=False, kw_only=True):
    """By what some contacts are called again. `settings`: the campaign's as they hold for the list, as JSON; `numbers`: how
    many the contacts have that may be dialed; `person`: whether it is known who they are, over all numbers. Law: (hours,
    attempts allowed in them) for a number and for a person, hours of rest after an abandoned call and after a machine."""

    settings: str
    numbers: int = 1
    person: bool = False
    per_number: tuple[tuple[int, int], ...] = ()
    per_person: tuple[tuple[int, int], ...] = ()
    rests: tuple[float, float] = (0.0, 0.0)
    alone: bool = False


class Way(Frozen, frozen=True, gc=False):
    """So many minutes after an attempt a share of those whom it did not reach is called on the number of this place."""

    minutes: int
    place: int
    share: float


class Course(Frozen, frozen=True, gc=False, kw_only=True):
    """What follows attempts that reached nobody, by attempts made before and by the place of the number that was dialed;
    what the shares lack of 1 is not called again."""

    steps: tuple[tuple[tuple[Way, ...], ...], ...]

    @property
    def most(self) -> int:
        """Attempts to a contact at most."""
        return len(self.steps)


def course_of(
    rules: Rules, outcomes: Mapping[str, int], *, machines: float = 0.0, lives: int = LIVES
) -> Course:
    """The course of contacts with these rules. `outcomes`: how attempts of the history ended that reached nobody;
    `machines`: the share that detected machines are of them where nothing is known."""
    settings = CampaignSettings.model_validate_json(rules.settings)
    kinds, weights = _chances(outcomes, machines)
    dice = random.Random(7)  # noqa: S311  # it plays people, it keeps no secret
    most = settings.max_attempts
    ways: list[list[Counter[tuple[int, int]]]] = [
        [Counter() for _ in range(rules.numbers)] for _ in range(most)
    ]
    made = [[0] * rules.numbers for _ in range(most)]
    for _ in range(lives if most > 1 else 0):
        _live(rules, settings, dice.choices(kinds, weights, k=most), ways, made)
    return Course(
        steps=tuple(
            tuple(_kept(ways[tries][place], made[tries][place]) for place in range(rules.numbers))
            for tries in range(most)
        )
    )


def _chances(outcomes: Mapping[str, int], machines: float) -> tuple[list[Outcome], list[float]]:
    weights = {kind: USUAL_WEIGHT * (1 - machines) * share for kind, share in USUAL.items()}
    weights[Outcome.MACHINE] = USUAL_WEIGHT * machines
    for name, count in outcomes.items():
        kind = Outcome(name)
        weights[kind] = weights.get(kind, 0.0) + count
    return list(weights), list(weights.values())


def _live(
    rules: Rules,
    settings: CampaignSettings,
    outcomes: Sequence[Outcome],
    ways: list[list[Counter[tuple[int, int]]]],
    made: list[list[int]],
) -> None:
    """One contact who is never reached."""
    numbers, dead = [str(place) for place in range(rules.numbers)], list[str]()
    so_far: Counter[str] = Counter()
    calls: list[tuple[float, str]] = []
    now, turn = 0.0, 0
    leaves_messages = settings.machine_message is not None and settings.machine_message_to == "all"
    for tries, outcome in enumerate(outcomes):
        left = alive(numbers[0], numbers, dead)
        dialed = left[turn % len(left)]
        detail = Detail.LEFT if outcome is Outcome.MACHINE and leaves_messages else ""
        so_far[outcome] += 1
        calls.append((now, dialed))
        made[tries][int(dialed)] += 1
        follows = after(
            settings,
            outcome,
            dialed=dialed,
            numbers=left,
            turn=turn,
            attempts=tries + 1,
            so_far=so_far,
            now=START,
            alone=rules.alone,
            detail=detail,
        )
        if follows.state != "open" or follows.not_before is None:
            return
        if follows.dead:
            dead.append(follows.dead)
        left, turn = alive(numbers[0], numbers, dead), follows.turn
        coming = left[turn % len(left)]
        due = now + (follows.not_before - START).total_seconds() / 60
        rest = (
            rules.rests[outcome is Outcome.MACHINE]
            if outcome in (Outcome.ABANDONED, Outcome.MACHINE)
            else 0.0
        )
        due = max(due, now + 60 * rest, _lawful(rules.per_number, [at for at, one in calls if one == coming]))
        if rules.person:
            due = max(due, _lawful(rules.per_person, [at for at, _ in calls]))
        ways[tries][int(dialed)][round(due - now), int(coming)] += 1
        now = due


def _lawful(limits: Sequence[tuple[int, int]], made: Sequence[float]) -> float:
    """From which minute on one more attempt is inside all limits."""
    return max((made[-most] + hours * 60 for hours, most in limits if len(made) >= most), default=0.0)


def _kept(found: Counter[tuple[int, int]], made: int) -> tuple[Way, ...]:
    kept = dict(found.most_common(MOST_WAYS))
    for (minutes, place), count in found.items():
        if (minutes, place) not in kept:
            like = min(kept, key=lambda way: (way[1] != place, abs(way[0] - minutes)))
            kept[like] += count
    return tuple(Way(minutes, place, count / made) for (minutes, place), count in sorted(kept.items()))
