"""What a dry run is asked: contacts, agents, history and limits. Data only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from cti.frozen import Frozen
from dialer.attempts import WaitFrom
from dialer.forecasting.courses import Rules

LONGEST_DAYS = 60
"""Days of the rota that are looked ahead."""

NEVER_OPEN = "calling hours there and the rota never meet"

Span = tuple[int, int]
"""From, to before, in seconds since 1970."""

ALL = -1
"""In place of an assignment: everybody of the campaign."""

NO_QUOTA = -1
"""In place of a list with quotas."""

REFUSED = -1
"""In place of open times: the law refuses this number, and with it the contact."""


class Shift(Frozen, frozen=True, gc=False, kw_only=True):
    """So many agents on these weekdays (0 is Monday), from and to minutes after midnight, in the question's zone."""

    days: tuple[int, ...]
    start: int
    end: int
    agents: int


class History(Frozen, frozen=True, gc=False, kw_only=True):
    """What is known of the list. `tried`, `answered`: attempts that are over and those somebody or a machine answered, by
    hour of the day in the question's zone (24 each), and by which attempt to the contact it was (`tried_of`: the first, the
    second…); `unreached`: how many ended by which outcome that reached nobody; seconds with how many calls each mean is
    of. `usual_wrap`: seconds of wrap-up where few calls tell, by the campaign's rule. `said`: of how many talks agents said
    what, by disposition."""

    tried: tuple[int, ...] = (0,) * 24
    answered: tuple[int, ...] = (0,) * 24
    live: int = 0
    to_answer: float = 9.0
    to_answer_of: int = 0
    talk: float = 90.0
    talk_spread: float = 0.9
    talk_of: int = 0
    wrap: float = 20.0
    wrap_of: int = 0
    usual_wrap: float = 20.0
    unreached: tuple[tuple[str, int], ...] = ()
    tried_of: tuple[int, ...] = ()
    answered_of: tuple[int, ...] = ()
    said: tuple[tuple[str, int], ...] = ()


class Assignment(Frozen, frozen=True, gc=False, kw_only=True):
    """Lists that only some of the campaign's people may call. `told`: who, in words; so many `agents`."""

    told: str
    agents: int


class Crew(Frozen, frozen=True, gc=False, kw_only=True):
    """A share of the agents who may all call the same of the assigned lists (their places in `Question.assignments`) and
    work for the same other campaigns (their places in `Question.rivals`)."""

    share: float
    may: tuple[int, ...] = ()
    rivals: tuple[int, ...] = ()


class Rival(Frozen, frozen=True, gc=False, kw_only=True):
    """Another campaign that takes agents. `rank`: the higher, the sooner agents are lent to it, those alike share; `times`:
    when it runs, None: always; `contacts` wait to be called, each `attempts_left` times at most, on average."""

    name: str
    priority: int
    rank: int
    times: tuple[Span, ...] | None = None
    contacts: int = 0
    attempts_left: float = 1.0


class Band(Frozen, frozen=True, gc=False, kw_only=True):
    """So many people who work for these rivals, by their places in `Question.rivals`, and not for the campaign."""

    agents: int
    rivals: tuple[int, ...]


class Limit(Frozen, frozen=True, gc=False, kw_only=True):
    """A quota of a list: `most` attempts, connected calls or calls with a `disposition`, in a day or at all; `so_far` of
    them were before."""

    counts: Literal["attempts", "connected", "disposition"]
    per: Literal["day", "total"]
    most: int
    disposition: str = ""
    so_far: int = 0

    @property
    def told(self) -> str:
        """In words."""
        what = {"attempts": "attempts", "connected": "talks"}.get(self.counts, f"times {self.disposition}")
        return f"{self.most} {what}" + (" a day" if self.per == "day" else "")


class Limited(Frozen, frozen=True, gc=False, kw_only=True):
    """A list with quotas, by name: the first that is reached ends the calling."""

    name: str
    limits: tuple[Limit, ...]


class Pool(Frozen, frozen=True, gc=False, kw_only=True):
    """Contacts that are alike. `ready`: how many have had 0, 1, 2… attempts and may be called at once; `due`: (when,
    attempts so far, how many) of the others.

    `open`: for each of their numbers, when it may be called: its place in `Question.times`, or REFUSED; `place`: the number
    that is next; `rules`: by which they are called again, a place in `Question.rules`; `whose`: to whom their list is
    assigned, a place in `Question.assignments`, or ALL; `priority`: of their list; `limited`: the list, where it has quotas,
    a place in `Question.limited`, or NO_QUOTA.
    """

    open: tuple[int, ...] = (0,)
    place: int = 0
    rules: int = 0
    whose: int = ALL
    priority: int = 0
    limited: int = NO_QUOTA
    ready: tuple[int, ...] = ()
    due: tuple[tuple[int, int, int], ...] = ()

    @property
    def contacts(self) -> int:
        """How many there are."""
        return sum(self.ready) + sum(count for _, _, count in self.due)


class Dropped(Frozen, frozen=True, gc=False, kw_only=True):
    """So many contacts are not called, and why. `code`: done, skipped, blocked, attempts_used_up, no_zone, never_open,
    not_theirs, quota_reached, or `law:` and the rule that refuses."""

    code: str
    says: str
    count: int


class OpenHour(Frozen, frozen=True, gc=False, kw_only=True):
    """An hour of the rota, or the part of one: how many of the contacts are in zones that are open then, a share of 1."""

    begin: datetime
    share: float


class Question(Frozen, frozen=True, gc=False, kw_only=True):
    """What is asked. `pools`: the contacts that may be called; `dropped`: the others. `times`: when zones are open, in
    order; None: always. `crews`: who may call which lists, and for which other campaigns they work; empty: all may, and for
    none. `people`: how many they are; `rivals`, `elsewhere`: who else takes of them, and who works for those alone; `rank`:
    the campaign's own among them. `limited`: lists with quotas, whose day ends at midnight in `house_zone`. `finish_by`,
    `abandonment`: the goal, if there is one; the `cap` is what the law or the settings allow; `error_share` of the detected
    machines are people who count as lost. `seconds`: that the answer may take. `office_hours`: nobody said when the agents
    work, so the rota is the usual one."""

    mode: str
    now: datetime
    zone: str
    rota: tuple[Shift, ...]
    pools: tuple[Pool, ...]
    history: History
    rules: tuple[Rules, ...]
    times: tuple[tuple[Span, ...] | None, ...] = (None,)
    assignments: tuple[Assignment, ...] = ()
    crews: tuple[Crew, ...] = ()
    people: int = 0
    rivals: tuple[Rival, ...] = ()
    elsewhere: tuple[Band, ...] = ()
    rank: int = 0
    limited: tuple[Limited, ...] = ()
    house_zone: str = "UTC"
    dropped: tuple[Dropped, ...] = ()
    max_attempts: int = 6
    cap: float = 0.03
    window_h: float = 24.0
    error_share: float = 0.0
    answer_wait: float = 2.0
    wait_from: WaitFrom = "answer"
    min_ring: float = 15.0
    ring_timeout: float = 24.0
    calls_per_second: float = 10.0
    max_lines: int = 1000
    ratio: float = 1.5
    few_agents: int = 3
    amd: bool = False
    finish_by: datetime | None = None
    abandonment: float | None = None
    seconds: float = 30.0
    variants: bool = True
    office_hours: bool = False
