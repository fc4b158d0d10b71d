"""Snapshot: all that one viewer may see at this moment, read from the models in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from cti.agents import Agents
from cti.audience import ADMIN, subscriptions
from cti.campaigns import CampaignNow, CampaignView, OfferView
from cti.facts import CallView
from cti.other_work import BlendingView, WorkView
from cti.people import Actor, Directory
from cti.supervision import AlarmView, HelpView, MessageView, SupervisionView
from cti.views import DatabaseView, PbxView, QueueView, Snapshot


class Snapshots:
    """Takes snapshots. The callables give the present calls, queues, links and the open screen pops of an agent."""

    def __init__(
        self,
        *,
        directory: Directory,
        agents: Agents,
        calls: Callable[[], Iterable[CallView]],
        queues: Callable[[], Iterable[QueueView]],
        pbxs: Callable[[], Iterable[PbxView]],
        pops: Callable[[str], Iterable[Any]],
        teams_of_call: Callable[[str], frozenset[str]],
        supervisions: Callable[[], Iterable[SupervisionView]] = lambda: (),
        announce: bool = False,
        messages: Callable[[], Iterable[MessageView]] = lambda: (),
        help_requests: Callable[[], Iterable[HelpView]] = lambda: (),
        alarms: Callable[[frozenset[str]], Iterable[AlarmView]] = lambda topics: (),
        database: Callable[[], DatabaseView | None] = lambda: None,
        work: Callable[[frozenset[str]], Iterable[WorkView]] = lambda topics: (),
        blending: Callable[[], Iterable[BlendingView]] = lambda: (),
        call_backs: Callable[[frozenset[str]], Iterable[Any]] = lambda topics: (),
        campaigns: Callable[[frozenset[str]], Iterable[CampaignView]] = lambda topics: (),
        campaigns_now: Callable[[frozenset[str]], Iterable[CampaignNow]] = lambda topics: (),
        offers: Callable[[], Iterable[OfferView]] = lambda: (),
    ) -> None:
        self._campaigns = campaigns
        self._campaigns_now = campaigns_now
        self._offers = offers
        self._call_backs = call_backs
        self._database = database
        self._work = work
        self._blending = blending
        self._alarms = alarms
        self._messages = messages
        self._help_requests = help_requests
        self._supervisions = supervisions
        self._announce = announce
        self._directory = directory
        self._agents = agents
        self._calls = calls
        self._queues = queues
        self._pbxs = pbxs
        self._pops = pops
        self._teams_of_call = teams_of_call

    def __call__(self, actor: Actor) -> Snapshot:
        """What the actor may see now; facts published after this call change it."""
        now = datetime.now(UTC)
        topics = subscriptions(actor, self._directory)
        agents = [view for view in self._agents.views(now) if self._sees_agent(topics, view.agent, view.team)]
        pops: list[Any] = []
        for view in agents:
            if f"agent:{view.agent}" in topics or ADMIN in topics or f"team:{view.team}" in topics:
                pops.extend(self._pops(view.agent))
        return Snapshot(
            at=now,
            calls=tuple(call for call in self._calls() if self._sees_call(topics, call)),
            agents=tuple(agents),
            queues=tuple(q for q in self._queues() if ADMIN in topics or f"queue:{q.id}" in topics),
            pbxs=tuple(self._pbxs()),
            database=self._database(),
            pops=tuple(pops),
            reasons=self._agents.reasons(),
            wrap_up=self._agents.wrap_ups(),
            messages=tuple(view for view in self._messages() if view.agent == actor.login),
            alarms=tuple(self._alarms(topics)),
            work=tuple(self._work(topics)),
            blending=tuple(view for view in self._blending() if self._sees_work_of(topics, view.agent)),
            call_backs=tuple(self._call_backs(topics)),
            campaigns=tuple(self._campaigns(topics)),
            campaigns_now=tuple(self._campaigns_now(topics)),
            offers=tuple(view for view in self._offers() if self._sees_work_of(topics, view.agent)),
            help=tuple(view for view in self._help_requests() if self._sees_help(topics, view)),
            supervisions=tuple(one for one in self._supervisions() if self._sees_supervision(topics, one)),
        )

    def _sees_work_of(self, topics: frozenset[str], agent: str) -> bool:
        team = self._directory.team_of(agent)
        return not topics.isdisjoint({ADMIN, f"agent:{agent}", f"team:{team}"})

    def _sees_help(self, topics: frozenset[str], view: HelpView) -> bool:
        team = self._directory.team_of(view.agent)
        return not topics.isdisjoint({ADMIN, f"agent:{view.agent}", f"team:{team}"})

    @staticmethod
    def _sees_agent(topics: frozenset[str], login: str, team: str | None) -> bool:
        return (
            ADMIN in topics
            or f"agent:{login}" in topics
            or f"mates:{team}" in topics
            or f"team:{team}" in topics
        )

    def _sees_supervision(self, topics: frozenset[str], one: SupervisionView) -> bool:
        if not topics.isdisjoint(
            {ADMIN, f"team:{self._directory.team_of(one.agent)}", f"agent:{one.supervisor}"}
        ):
            return True
        return self._announce and f"agent:{one.agent}" in topics

    def _sees_call(self, topics: frozenset[str], call: CallView) -> bool:
        if ADMIN in topics:
            return True
        if any(c.agent is not None and f"agent:{c.agent}" in topics for c in call.connections):
            return True
        return any(f"team:{team}" in topics for team in self._teams_of_call(call.id))
