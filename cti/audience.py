"""Audience: which topics a fact goes to, and which topics somebody listens to. Where the two meet, they may see it.

    agent:<login>   that person                        team:<id>     supervisors of that team
    mates:<id>      the agents of that team            queue:<id>    agents who work in that queue (no personal data)
    all             everybody                          admin         administrators: on every fact

An agent sees the calls they are offered or talk on, and hears when these are over; supervisors see their teams' agents and
every call that was ever with one of them or in one of their queues, to its end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from typing import Any

from cti.campaigns import CampaignFact, CampaignGoes, CampaignView
from cti.facts import (
    AgentLineChanged,
    AgentOffHookChanged,
    AgentReachabilityChanged,
    AgentStateChanged,
    CallCleared,
    CallFact,
    CallView,
    ConnectionView,
    DatabaseStatusChanged,
    Fact,
    JournalGap,
    PbxResynced,
    PbxStatusChanged,
    QueueMemberJoined,
    QueueMemberLeft,
)
from cti.other_work import WorkFact, WorkView
from cti.people import Actor, Directory, Role
from cti.supervision import AlarmFact, AlarmView, MessageRead, MessageSent, SupervisionFact
from cti.voicemail import VoicemailWaiting

ADMIN = "admin"
ALL = "all"
EVERYBODY = frozenset({ADMIN, ALL})

OF_AGENTS = (AgentStateChanged, AgentReachabilityChanged, AgentLineChanged, AgentOffHookChanged)

REMEMBERED = 5000
"""Ended calls whose teams are remembered: the record of a call is told after its end."""

KNOWN = 20_000
"""Topics that are kept once they were worked out."""

NOBODY: frozenset[str] = frozenset()


def subscriptions(actor: Actor, directory: Directory) -> frozenset[str]:
    """The topics this person or program listens to."""
    if actor.is_admin or (actor.role is Role.INTEGRATION and not actor.teams):
        return frozenset({ADMIN})
    topics = {ALL}
    if actor.role is Role.AGENT:
        topics.add(f"agent:{actor.login}")
        agent = directory.agents.get(actor.login)
        if agent is not None:
            topics |= {f"queue:{assignment.queue}" for assignment in agent.queues}
            if agent.team is not None:
                topics.add(f"mates:{agent.team}")
        return frozenset(topics)
    if actor.login in directory.agents or actor.role is Role.SUPERVISOR:
        topics.add(f"agent:{actor.login}")
    for id in actor.teams:
        topics |= {f"team:{id}", f"mates:{id}"}
        team = directory.teams.get(id)
        if team is not None:
            topics |= {f"queue:{queue}" for queue in team.queues}
    return frozenset(topics)


@lru_cache(maxsize=KNOWN)
def _of_people(agents: frozenset[str], teams: frozenset[str]) -> frozenset[str]:
    """The topics of what these agents, and the supervisors of these teams, may see. The same people are met again and again,
    and whoever looks a fact's topics up elsewhere finds the same object."""
    return frozenset({ADMIN, *(f"agent:{agent}" for agent in agents), *(f"team:{team}" for team in teams)})


class Audience:
    """Computes topics. Remembers, for each live call and those that ended last, which teams have had to do with it."""

    def __init__(
        self, directory: Directory, *, agents_in: Callable[[str], Iterable[str]], announce: bool = False
    ) -> None:
        self._directory = directory
        self._announce = announce
        self._agents_in = agents_in
        self._call_teams: dict[str, frozenset[str]] = {}
        self._ended_teams: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._known: dict[Hashable, frozenset[str]] = {}
        self._ways: dict[type[Fact], Callable[[Any], frozenset[str]]] = {}

    def __len__(self) -> int:
        return len(self._call_teams)

    def people_changed(self) -> None:
        """Forgets what was worked out from teams as they were."""
        self._known.clear()

    def teams_of_call(self, call: str) -> frozenset[str]:
        """The teams whose supervisors may see the call."""
        return self._call_teams.get(call, NOBODY)

    def __call__(self, fact: Fact) -> frozenset[str]:
        """The topics of a fact."""
        kind = type(fact)
        way = self._ways.get(kind)
        if way is None:
            way = self._ways[kind] = self._way(kind)
        return way(fact)

    def _way(self, kind: type[Fact]) -> Callable[[Any], frozenset[str]]:
        """What computes the topics of facts of this class."""
        ways: tuple[tuple[tuple[type[Fact], ...], Callable[[Any], frozenset[str]]], ...] = (
            ((CallFact,), self._of_call),
            (OF_AGENTS, self._of_agent),
            ((SupervisionFact,), self._of_supervision),
            ((AlarmFact,), self.of_alarm),
            ((VoicemailWaiting,), self._of_voicemail),
            ((WorkFact,), lambda fact: self.of_work(fact.view, fact.agent)),
            ((CampaignGoes,), lambda fact: self.of_campaign(fact.view, agents=False)),
            ((CampaignFact,), lambda fact: self.of_campaign(fact.view, agents=True)),
            ((MessageSent, MessageRead), self._of_message),
            ((PbxStatusChanged, PbxResynced, DatabaseStatusChanged, JournalGap), lambda fact: EVERYBODY),
        )
        for kinds, way in ways:
            if issubclass(kind, kinds):
                return way
        by_name = {"attempt": self._of_attempt, "queue": self._of_queue, "call_back": self._of_call_back}
        return by_name.get(kind.TYPE.partition(".")[0], self._of_other)

    def _keep(self, key: Hashable, topics: Iterable[str]) -> frozenset[str]:
        """Keeps what was worked out from teams as they are."""
        if len(self._known) >= KNOWN:
            self._known.clear()
        found = self._known[key] = frozenset(topics)
        return found

    def _of_agent(self, fact: AgentStateChanged) -> frozenset[str]:
        """The agent, their colleagues and supervisors."""
        key = ("agent", fact.agent)
        found = self._known.get(key)
        if found is not None:
            return found
        team = self._directory.team_of(fact.agent)
        theirs = () if team is None else (f"team:{team}", f"mates:{team}")
        return self._keep(key, (ADMIN, f"agent:{fact.agent}", *theirs))

    def _of_voicemail(self, fact: VoicemailWaiting) -> frozenset[str]:
        return frozenset({ADMIN, *(f"team:{team}" for team in self._directory.teams)})

    @staticmethod
    def _of_message(fact: MessageSent | MessageRead) -> frozenset[str]:
        agents = fact.agents if isinstance(fact, MessageSent) else (fact.agent,)
        return frozenset({ADMIN, f"agent:{fact.sender}", *(f"agent:{agent}" for agent in agents)})

    def _of_queue(self, fact: Any) -> frozenset[str]:
        """Those who work in the queue; of a member that agent and their supervisors too, and the colleagues who see which
        queues the agent is in."""
        agent = getattr(fact, "agent", None)
        mates = isinstance(fact, QueueMemberJoined | QueueMemberLeft)
        key = ("queue", fact.queue, agent, mates)
        found = self._known.get(key)
        if found is not None:
            return found
        topics = [ADMIN, f"queue:{fact.queue}"]
        if agent is not None:
            topics.append(f"agent:{agent}")
            if (team := self._directory.team_of(agent)) is not None:
                topics += [f"team:{team}", f"mates:{team}"] if mates else [f"team:{team}"]
        return self._keep(key, topics)

    def _of_call_back(self, fact: Any) -> frozenset[str]:
        """As any fact; and the team that it is promised for."""
        team = getattr(fact, "team", None)
        if team is None:
            return self._of_other(fact)
        mates = {f"mates:{team}"} if getattr(fact, "for_team", False) else set()
        return self._of_other(fact) | {f"team:{team}"} | mates

    def _of_other(self, fact: Fact) -> frozenset[str]:
        """The agent that it names and their supervisors, or those who have to do with its call."""
        if (agent := getattr(fact, "agent", None)) is not None:
            if (found := self._known.get(agent)) is not None:
                return found
            team = self._directory.team_of(agent)
            return self._keep(agent, (ADMIN, f"agent:{agent}", *(() if team is None else (f"team:{team}",))))
        if (call := getattr(fact, "call", None)) is not None:
            return self._of_record(fact, call)
        return frozenset({ADMIN})

    @staticmethod
    def _of_attempt(fact: Fact) -> frozenset[str]:
        """The supervisors of the teams that work for the campaign, and the agent it is about."""
        topics = {ADMIN, *(f"team:{team}" for team in getattr(fact, "teams", ()))}
        if (agent := getattr(fact, "agent", None)) is not None:
            topics.add(f"agent:{agent}")
        return frozenset(topics)

    def _of_supervision(self, fact: SupervisionFact) -> frozenset[str]:
        """Who listens to an agent: the team's supervisors; the agent only where the settings say so."""
        topics = {ADMIN, f"agent:{fact.supervisor}"}
        if (team := self._directory.team_of(fact.agent)) is not None:
            topics.add(f"team:{team}")
        if self._announce:
            topics.add(f"agent:{fact.agent}")
        return frozenset(topics)

    def of_alarm(self, alarm: AlarmFact | AlarmView) -> frozenset[str]:
        """The supervisors of the queue, team or agent; of a PBX all."""
        teams = {alarm.team, self._directory.team_of(alarm.agent) if alarm.agent is not None else None}
        if alarm.queue is not None:
            teams |= self._directory.teams_of_queue(alarm.queue)
        if alarm.pbx is not None:
            teams |= self._directory.teams.keys()
        return frozenset({ADMIN, *(f"team:{team}" for team in teams if team is not None)})

    def of_work(self, view: WorkView, agent: str | None) -> frozenset[str]:
        """Whom it is offered to, or was, their supervisors, and those of its skill."""
        agents = {one for one in (agent, view.agent) if one is not None}
        teams = {team for one in agents if (team := self._directory.team_of(one)) is not None}
        teams |= self._directory.teams_of_queue(view.skill)
        return frozenset({ADMIN, *(f"agent:{one}" for one in agents), *(f"team:{team}" for team in teams)})

    def of_campaign(self, view: CampaignView, *, agents: bool) -> frozenset[str]:
        """The supervisors of its team, or of its queue, and its agents if they are meant too."""
        teams = {view.team} if view.team else set(self._directory.teams_of_queue(view.queue))
        topics = {ADMIN, *(f"team:{team}" for team in teams)}
        if agents and view.queue:
            topics.add(f"queue:{view.queue}")
        elif agents and view.team:
            topics.add(f"mates:{view.team}")
        return frozenset(topics)

    def _of_record(self, fact: Fact, call: str) -> frozenset[str]:
        """A record about a call (a note, its interaction): those who work or worked on it, and their supervisors."""
        agents = {*self._agents_in(call), *getattr(fact, "agents", ())}
        if author := getattr(fact, "author", None):
            agents.add(author)
        theirs = frozenset(agents)
        met = self._call_teams.get(call, NOBODY) | self._ended_teams.get(call, NOBODY)
        return _of_people(theirs, met | self._teams_of(theirs, None))

    def _of_call(self, fact: CallFact) -> frozenset[str]:
        """The agents who have to do with what happened, and the supervisors of all teams that ever had."""
        call, view = fact.call, getattr(fact, "view", None)
        agents, queue = self._parties(fact, view)
        met = self._call_teams.get(call, NOBODY)
        if not (teams := self._teams_of(agents, queue)) <= met:
            met |= teams
        if isinstance(fact, CallCleared):
            self._call_teams.pop(call, None)
            self._ended_teams[call] = met
            if len(self._ended_teams) > REMEMBERED:
                self._ended_teams.popitem(last=False)
        elif view is not None:  # whatever else is said of a call may come after its end
            self._call_teams[call] = met
        return _of_people(agents, met)

    def _parties(self, fact: CallFact, view: CallView | None) -> tuple[frozenset[str], str | None]:
        """(the agents who have to do with what happened, its queue)."""
        agents = set(self._agents_in(fact.call))
        queue = getattr(fact, "queue", None)
        if isinstance(fact, CallCleared):
            agents.update(fact.agents)
            return frozenset(agents), queue
        for name in ("connection", "by"):
            connection = getattr(fact, name, None)
            if isinstance(connection, ConnectionView) and connection.agent:
                agents.add(connection.agent)
        if view is not None:
            queue = queue or view.queue
            agents.update([c.agent for c in view.connections if c.agent])
        return frozenset(agents), queue

    def _teams_of(self, agents: frozenset[str], queue: str | None) -> frozenset[str]:
        """The teams of these agents, and those whose supervisors watch the queue."""
        key = (agents, queue)
        found = self._known.get(key)
        if found is not None:
            return found
        teams = {team for agent in agents if (team := self._directory.team_of(agent)) is not None}
        return self._keep(key, teams if queue is None else teams | self._directory.teams_of_queue(queue))
