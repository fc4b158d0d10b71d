"""Agents who work for several campaigns: how many of them a dry run's campaign has while others run, or are scheduled to.
They are lent by the rules that really lend them (`dialer/calling/hands.py`). Pure, without a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cti.people import Agent
from dialer.calling.hands import Hands
from dialer.campaigns import Record, Schedule, Step, next_step
from dialer.forecasting.question import LONGEST_DAYS, Band, Crew, Rival, Span
from dialer.lists import works_for
from dialer.management.settings import DIALED_BY_ITSELF, Campaign, CampaignMode, CampaignSettings

MOST_RIVALS = 20
"""Other campaigns that are looked at; of more those that come first."""

MOST_PLAYED = 200
"""People of whom it is worked out to whom each is lent; more are taken to be lent in the same shares."""

OURS = -1
"""In place of a rival: the campaign itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Who shares the agents of a campaign: `records` of rivals and when each runs; `of_agent`: for which of them somebody
    works, by their places; `elsewhere`: people who work for rivals alone. The higher the rank, the sooner agents are lent:
    `ranks` of the rivals, `rank` of the campaign itself."""

    records: tuple[Record, ...]
    times: tuple[tuple[Span, ...] | None, ...]
    ranks: tuple[int, ...]
    rank: int
    of_agent: Mapping[str, tuple[int, ...]]
    elsewhere: tuple[Band, ...]

    def rivals(
        self, contacts: Mapping[int, tuple[int, float]], named: Callable[[Record], bool]
    ) -> tuple[Rival, ...]:
        """Them as a question has them. `contacts`: of each campaign's, who wait to be called and how often they have been on
        average; `named`: whether a campaign's name may be told."""
        found = []
        for one, times, rank in zip(self.records, self.times, self.ranks, strict=True):
            waiting, before = contacts.get(one.campaign.id, (0, 0.0))
            found.append(
                Rival(
                    name=one.campaign.name if named(one) else "another campaign",
                    priority=one.campaign.priority,
                    rank=rank,
                    times=times,
                    contacts=waiting,
                    attempts_left=max(1.0, one.campaign.settings.max_attempts - before),
                )
            )
        return tuple(found)


def shared(
    campaign: Campaign,
    mode: CampaignMode,
    workers: Iterable[Agent],
    agents: Collection[Agent],
    records: Iterable[Record],
    now: datetime,
) -> Shared:
    """Who shares this campaign's agents (`workers`), directly or by way of another campaign, and runs or is scheduled to.

    Calls come first: one that dials by itself takes agents from those whose agents dial, not the other way round. What
    agents ask for themselves (`manual`) takes nobody."""
    people = {agent.login for agent in workers} if mode != "agentless" else set()
    theirs: dict[int, frozenset[str]] = {}
    found: dict[int, tuple[Record, tuple[Span, ...] | None]] = {}
    for record in records:
        other = record.campaign
        if other.id == campaign.id or not _takes_agents(other, mode):
            continue
        if (times := _at_work(record, now)) != ():
            found[other.id] = record, times
            theirs[other.id] = frozenset(a.login for a in agents if works_for(a, other.settings))
    reached: set[int] = set()
    known = set(people)
    while fresh := {id for id, logins in theirs.items() if id not in reached and logins & known}:
        reached |= fresh
        known = known.union(*(theirs[id] for id in fresh))
    order = sorted(reached, key=lambda id: _order(found[id][0].campaign), reverse=True)[:MOST_RIVALS]
    keys, ours = [_order(found[id][0].campaign) for id in order], _order(replace(campaign, mode=mode))
    ranked = sorted({*keys, ours})
    of_agent = {
        login: tuple(n for n, id in enumerate(order) if login in theirs[id])
        for login in {login for id in order for login in theirs[id]}
    }
    elsewhere = Counter(places for login, places in of_agent.items() if login not in people)
    return Shared(
        records=tuple(found[id][0] for id in order),
        times=tuple(found[id][1] for id in order),
        ranks=tuple(ranked.index(key) for key in keys),
        rank=ranked.index(ours),
        of_agent=of_agent,
        elsewhere=tuple(Band(agents=many, rivals=places) for places, many in sorted(elsewhere.items())),
    )


def _takes_agents(other: Campaign, mode: str) -> bool:
    if not (other.settings.queue or other.settings.team) or other.mode == "agentless":
        return False
    return other.mode in DIALED_BY_ITSELF or (other.mode == "preview" and mode not in DIALED_BY_ITSELF)


def _order(campaign: Campaign) -> tuple[int, int, int]:
    """The higher, the sooner agents are lent to it; those alike share. Offers go by priority, then to the older."""
    if campaign.mode in DIALED_BY_ITSELF:
        return 1, campaign.priority, 0
    return 0, campaign.priority, -campaign.id


def _at_work(record: Record, now: datetime) -> tuple[Span, ...] | None:
    """When it runs in the time that is looked ahead, by its state and its schedule; None: always."""
    runs = record.campaign.state == "running"
    if record.schedule is None:
        return None if runs else ()
    return _runs(record.schedule, now, runs=runs)


def _runs(schedule: Schedule, now: datetime, *, runs: bool) -> tuple[Span, ...]:
    found: list[Span] = []
    at, last = now, now + timedelta(days=LONGEST_DAYS)
    began = now if runs else None
    while at < last and (coming := next_step(schedule, at)) is not None:
        at, step = coming
        if step is Step.START:
            began = began or at
        elif began is not None:
            found.append((int(began.timestamp()), int(at.timestamp())))
            began = None
    if began is not None and began < last:
        found.append((int(began.timestamp()), int(last.timestamp())))
    return tuple(found)


# ------------------------------------------------------------------------------------------------ to whom they are lent


@dataclass(frozen=True, slots=True)
class Lent:
    """Of each crew the share that works for the campaign, and how many people each rival has."""

    crews: tuple[float, ...]
    rivals: tuple[float, ...]


class Lending:
    """To whom people are lent, by which rivals have somebody to call. `people`: the campaign's own."""

    def __init__(
        self,
        people: int,
        crews: Sequence[Crew],
        elsewhere: Sequence[Band],
        rivals: Sequence[Rival],
        rank: int,
    ) -> None:
        self._ranks = [rival.rank for rival in rivals]
        self._rank = rank
        groups = [(crew.share * people, (OURS, *crew.rivals)) for crew in crews]
        groups += [(float(band.agents), band.rivals) for band in elsewhere]
        whole = sum(many for many, _ in groups)
        self._scale = max(1.0, whole / MOST_PLAYED)
        self._groups = [(max(1, round(many / self._scale)), places) for many, places in groups]
        self._crews = len(crews)
        self._known: dict[frozenset[int], Lent] = {}

    def of(self, hungry: frozenset[int]) -> Lent:
        """While these rivals have somebody to call."""
        if hungry not in self._known:
            self._known[hungry] = self._lend(hungry)
        return self._known[hungry]

    def _lend(self, hungry: frozenset[int]) -> Lent:
        campaigns = {place: _stub(place, self._ranks[place]) for place in hungry}
        campaigns[OURS] = _stub(OURS, self._rank)
        may: dict[str, list[Campaign]] = {}
        hands = Hands()
        for group, (many, places) in enumerate(self._groups):
            theirs = [campaigns[place] for place in places if place in campaigns]
            for n in range(many if theirs else 0):
                may[f"{group} {n}"] = theirs
                hands.lend(f"{group} {n}", theirs, _everybody)
        before: dict[str, int] = {}
        while hands.lent != before:  # until nobody is moved any more
            before = dict(hands.lent)
            for agent, theirs in may.items():
                hands.lend(agent, theirs, _everybody)
        ours = Counter(int(agent.split()[0]) for agent, to in hands.lent.items() if to == OURS)
        return Lent(
            crews=tuple(ours[group] / self._groups[group][0] for group in range(self._crews)),
            rivals=tuple(self._scale * hands.number(place) for place in range(len(self._ranks))),
        )


def _everybody(_campaign: int) -> bool:
    return True


def _stub(id: int, rank: int) -> Campaign:
    return Campaign(
        id=id,
        name="",
        mode="progressive",
        state="running",
        profile="",
        priority=rank,
        settings=CampaignSettings(),
        version=1,
    )
