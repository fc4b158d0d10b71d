"""A call floor for tests: directory, models, audience, snapshots and bus, wired as the server wires them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from cti.agents import Agents, WrapUp
from cti.ami_events import MemberRemoved, MemberSeen, Record
from cti.audience import Audience, subscriptions
from cti.bus import Bus, Envelope
from cti.calls import Calls
from cti.client import Picture
from cti.facts import AgentStateChanged, CallFact, Fact, PbxResynced, PbxStatusChanged
from cti.hub import pack
from cti.people import Actor, Agent, Directory, QueueAssignment, Role, Team
from cti.queues import Queues
from cti.reasons import Reason
from cti.snapshot import Snapshots
from cti.views import PbxView, Snapshot
from tests.recorded import AGENTS

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
REASONS = (Reason(name="Break"), Reason(name="Lunch"))
HALF_A_MINUTE = WrapUp(seconds=30.0)
RED, BLUE = "red", "blue"


def after(seconds: float) -> datetime:
    """So many seconds past noon."""
    return NOON + timedelta(seconds=seconds)


def person(
    login: str, team: str | None = RED, queues: Iterable[str] = ("main:sales",), **phones: str
) -> Agent:
    """An agent; `main="PJSIP/1001"` is a phone at that PBX."""
    assigned = tuple(QueueAssignment(queue=queue, penalty=n) for n, queue in enumerate(queues))
    return Agent(login=login, name=login.title(), team=team, interfaces=phones, queues=assigned)


def recorded_people() -> list[Agent]:
    """The agents of the recorded traces: 11xx and 10xx are red and work in sales, the others blue and in support."""
    people = []
    for device, login in AGENTS.items():
        red = login.startswith(("agent1", "alice"))
        interface = device + "/n" if device.startswith("Local/") else device
        team, queue = (RED, "main:sales") if red else (BLUE, "main:support")
        people.append(person(login, team, (queue,), main=interface))
    return people


def teams() -> list[Team]:
    return [
        Team(id=RED, name="Red", queues=frozenset({"main:sales"})),
        Team(id=BLUE, name="Blue", queues=frozenset({"main:support"})),
    ]


ROOT = Actor(login="root", name="Root", role=Role.ADMIN)
RUTH = Actor(login="ruth", name="Ruth", role=Role.SUPERVISOR, teams=frozenset({RED}))
BORIS = Actor(login="boris", name="Boris", role=Role.SUPERVISOR, teams=frozenset({BLUE}))


def actor(login: str) -> Actor:
    """An agent as a client."""
    return Actor(login=login, name=login.title(), role=Role.AGENT)


class Floor:
    """Everybody and everything between the PBXs' records and the clients' frames."""

    def __init__(
        self,
        people: Sequence[Agent],
        *,
        pbxs: Sequence[str] = ("main",),
        wrap_up: WrapUp = HALF_A_MINUTE,
        up: bool = True,
    ) -> None:
        self.directory = Directory()
        self.directory.load(people, teams())
        self.agents = Agents(self.directory, wrap_up=wrap_up, reasons=REASONS, pbxs=pbxs)
        self.calls: dict[str, Calls] = {}
        self.queues: dict[str, Queues] = {}
        self.links: dict[str, PbxView] = {}
        for pbx in pbxs:
            self._pbx(pbx)
        self.audience = Audience(self.directory, agents_in=self._agents_in)
        self.bus = Bus(audience=self.audience)
        self.told: list[Envelope] = []
        self.bus.carry(self.told.append)
        self.bus.carry(self._react)
        self.snapshots = Snapshots(
            directory=self.directory,
            agents=self.agents,
            calls=lambda: [view for calls in self.calls.values() for view in calls.views()],
            queues=lambda: [view for queues in self.queues.values() for view in queues.views()],
            pbxs=self.links.values,
            pops=lambda login: (),
            teams_of_call=self.audience.teams_of_call,
        )
        if up:
            for pbx in pbxs:
                self.link(pbx, up=True, at=NOON)

    def _pbx(self, pbx: str) -> None:
        def agent_at(device: str) -> str | None:
            return self.directory.agent_at(pbx, device)

        self.calls[pbx] = Calls(
            pbx,
            agent_at=agent_at,
            is_trunk=lambda device: device == "PJSIP/trunk",
            inbound_contexts=("from-trunk",),
        )
        self.queues[pbx] = Queues(pbx, agent_at=agent_at)
        self.links[pbx] = PbxView(id=pbx, phase="connecting", code="", why="", since=NOON)

    def _agents_in(self, call: str) -> tuple[str, ...]:
        calls = self.calls.get(call.partition(":")[0])
        return calls.agents_in(call) if calls else ()

    def _react(self, envelope: Envelope) -> None:
        fact = envelope.fact
        if isinstance(fact, CallFact) and (queues := self.queues.get(fact.call.partition(":")[0])):
            self.bus.publish(queues.hear(fact))
        self.bus.publish(self.agents.hear(fact))

    # ------------------------------------------------------------------------------------------ what happens

    def publish(self, facts: Iterable[Fact]) -> list[Fact]:
        """Publishes and returns all facts that came of it."""
        before = len(self.told)
        self.bus.publish(facts)
        assert self.bus.failures == 0
        return [envelope.fact for envelope in self.told[before:]]

    def feed(self, records: Iterable[Record], pbx: str = "main") -> list[Fact]:
        """Folds records as the switch does."""
        facts: list[Fact] = []
        for record in records:
            members = isinstance(record, MemberSeen | MemberRemoved)
            model = self.queues[pbx] if members else self.calls[pbx]
            facts += self.publish(model.apply(record))
        return facts

    def link(self, pbx: str, *, up: bool, at: datetime) -> list[Fact]:
        """The link to a PBX goes down, or has come up and everything was asked for."""
        phase = "up" if up else "down"
        self.links[pbx] = PbxView(id=pbx, phase=phase, code="", why="", since=at)
        facts: list[Fact] = [PbxStatusChanged(at=at, pbx=pbx, phase=phase, code="", why="")]
        if up:
            facts.append(PbxResynced(at=at, pbx=pbx, reason="reconnected", calls=0, differences={}))
        return self.publish(facts)

    def changes(self, login: str) -> list[AgentStateChanged]:
        """All changes of an agent's state that were told."""
        facts = [envelope.fact for envelope in self.told]
        return [f for f in facts if isinstance(f, AgentStateChanged) and f.agent == login]

    def state(self, login: str) -> str:
        """An agent's state, with reason and what is pending."""
        view = self.agents.view(login, NOON)
        assert view is not None
        words = [
            view.state.value,
            view.reason and f"({view.reason})",
            view.pending and f"then {view.pending}",
        ]
        return " ".join(word for word in words if word)


# ---------------------------------------------------------------------------------------- what a client makes of it


def as_json(value: Any) -> Any:
    """What a client reads of it."""
    return msgspec.json.decode(pack(value))


class Viewer:
    """A client of the official fold: its picture, and the frames it was sent."""

    def __init__(self, floor: Floor, who: Actor) -> None:
        self.floor, self.who = floor, who
        self.topics = subscriptions(who, floor.directory)
        self.picture = Picture(me=who.login, mine_only=who.role is Role.AGENT)
        self.picture.show(as_json(floor.snapshots(who)))
        self.seen: list[Fact] = []
        floor.bus.carry(self._carry)

    def _carry(self, envelope: Envelope) -> None:
        if envelope.topics & self.topics:
            self.seen.append(envelope.fact)
            frame = msgspec.json.decode(envelope.frame)
            self.picture.fold(frame)
            self._fold_also(frame["type"], frame["data"])

    def _fold_also(self, kind: str, data: dict[str, Any]) -> None:
        """An agent's queues change with the agent's memberships; who is merged into a call has left the other one."""
        if kind == "call.merged" and (left := self.picture.calls.get(data["merged"])) is not None:
            parts = [part for part in left["connections"] if part["id"] != data["connection"]["id"]]
            self.picture.calls[left["id"]] = left | {"connections": parts}
            if self.picture.mine_only and not any(part["agent"] == self.who.login for part in parts):
                del self.picture.calls[left["id"]]
        agent = self.picture.agents.get(data.get("agent") or "")
        if agent is not None and kind in ("queue.member_joined", "queue.member_left"):
            others = set(agent["queues"]) - {data["queue"]}
            agent["queues"] = sorted(others | ({data["queue"]} if kind == "queue.member_joined" else set()))

    def folded(self) -> dict[str, Any]:
        """The picture in a form that can be compared: order only where it means something."""
        return _comparable(
            list(self.picture.calls.values()),
            list(self.picture.agents.values()),
            list(self.picture.queues.values()),
            list(self.picture.pbxs.values()),
        )

    def fresh(self) -> dict[str, Any]:
        """The same of a new snapshot."""
        now: Snapshot = self.floor.snapshots(self.who)
        data = as_json(now)
        return _comparable(data["calls"], data["agents"], data["queues"], data["pbxs"])


def _comparable(
    calls: list[dict[str, Any]],
    agents: list[dict[str, Any]],
    queues: list[dict[str, Any]],
    pbxs: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "calls": {
            c["id"]: c | {"connections": {part["id"]: part for part in c["connections"]}} for c in calls
        },
        "agents": {a["agent"]: a for a in agents},
        "queues": {
            q["id"]: q | {"members": {m["interface"]: m for m in q["members"]}, "waiting": q["waiting"]}
            for q in queues
        },
        "pbxs": {p["id"]: p for p in pbxs},
    }
