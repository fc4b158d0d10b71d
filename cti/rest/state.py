"""What is happening now, and what has happened: me, state, calls, agents, queues, PBXs, facts.

Everybody sees what their websocket would show them, no more: the lists are parts of the asker's own snapshot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cti.facts import AgentState, CallView
from cti.openapi import Route
from cti.people import Actor, Role
from cti.problems import Problem
from cti.protocol import StateNow, WhoAmI
from cti.rest.pages import Page, Paging, page
from cti.rest.serving import Asked
from cti.views import AgentView, PbxView, QueueView, Snapshot

Topics = frozenset[str]


V = TypeVar("V", CallView, QueueView)


class WrittenFact(Protocol):
    """A fact as the journal gives it back."""

    @property
    def seq(self) -> int: ...
    @property
    def at(self) -> datetime: ...
    @property
    def type(self) -> str: ...
    @property
    def topics(self) -> Collection[str]: ...
    @property
    def data(self) -> dict[str, Any]: ...


class WrittenPage(Protocol):
    """Facts in order, and the number to read on with."""

    @property
    def seq(self) -> int: ...
    @property
    def facts(self) -> Sequence[WrittenFact]: ...


class FactRead(BaseModel):
    """A fact, as the websocket sent it."""

    seq: int
    type: str
    at: datetime
    data: dict[str, Any]


class FactFeed(BaseModel):
    """Facts in order. Ask again with `after` = `next`; it no longer grows when there is nothing more for now."""

    items: list[FactRead]
    next: int


class FactsAsked(BaseModel):
    """Where to read on in the feed of facts."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, lt=1 << 62, description="only facts with a higher seq")
    limit: int = Field(default=500, ge=1, le=5000)
    type: Annotated[str, StringConstraints(pattern=r"^[a-z_]+\.[a-z_]+$", max_length=64)] | None = Field(
        default=None, description="only facts of this type, such as call.cleared"
    )


class CallsAsked(Paging):
    """Which calls."""

    queue: str | None = None
    agent: str | None = None


class AgentsAsked(Paging):
    """Which agents."""

    team: str | None = None
    state: AgentState | None = None


def routes(
    *,
    snapshot: Callable[[Actor], Snapshot],
    seq: Callable[[], int],
    subscriptions: Callable[[Actor], Topics],
    facts_of: Callable[[str], Awaitable[Sequence[WrittenFact]]],
    since: Callable[[int, int, Collection[str] | None], Awaitable[WrittenPage]],
) -> list[Route]:
    """Returns the routes. `facts_of(call)` and `since(after, limit, types)` read the journal."""

    async def me(asked: Asked) -> WhoAmI:
        actor = asked.who
        return WhoAmI(login=actor.login, name=actor.name, role=actor.role, teams=sorted(actor.teams))

    async def state(asked: Asked) -> dict[str, Any]:
        return {"seq": seq(), "data": snapshot(asked.who)}

    async def calls(asked: Asked) -> dict[str, Any]:
        wanted: CallsAsked = asked.query
        found = [
            call
            for call in snapshot(asked.who).calls
            if wanted.queue in (None, call.queue)
            and (wanted.agent is None or any(part.agent == wanted.agent for part in call.connections))
        ]
        return page(found, lambda call: call.id, wanted)

    async def one_call(asked: Asked) -> CallView:
        return _the(snapshot(asked.who).calls, asked.params["id"], "call")

    async def facts_of_call(asked: Asked) -> dict[str, Any]:
        found = _visible(await facts_of(asked.params["id"]), asked.who)
        if not found:
            raise Problem(404, "not_found", "there is no such call that you may see")
        return {"items": found, "next": None}

    async def agents(asked: Asked) -> dict[str, Any]:
        wanted: AgentsAsked = asked.query
        found = [
            agent
            for agent in snapshot(asked.who).agents
            if wanted.team in (None, agent.team) and wanted.state in (None, agent.state)
        ]
        return page(found, lambda agent: agent.agent, wanted)

    async def one_agent(asked: Asked) -> AgentView:
        found = {agent.agent: agent for agent in snapshot(asked.who).agents}
        if asked.params["login"] not in found:
            raise Problem(404, "not_found", "there is no such agent that you may see")
        return found[asked.params["login"]]

    async def queues(asked: Asked) -> dict[str, Any]:
        return page(snapshot(asked.who).queues, lambda queue: queue.id, asked.query)

    async def one_queue(asked: Asked) -> QueueView:
        return _the(snapshot(asked.who).queues, asked.params["id"], "queue")

    async def pbxs(asked: Asked) -> dict[str, Any]:
        return page(snapshot(asked.who).pbxs, lambda pbx: pbx.id, asked.query)

    async def feed(asked: Asked) -> dict[str, Any]:
        wanted: FactsAsked = asked.query
        found = await since(wanted.after, wanted.limit, [wanted.type] if wanted.type else None)
        return {"items": _visible(found.facts, asked.who), "next": found.seq}

    def _visible(facts: Sequence[WrittenFact], actor: Actor) -> list[dict[str, Any]]:
        topics = subscriptions(actor)
        return [
            {"seq": fact.seq, "type": fact.type, "at": fact.at, "data": fact.data}
            for fact in facts
            if not topics.isdisjoint(fact.topics)
        ]

    readers = frozenset({Role.SUPERVISOR, Role.ADMIN, Role.INTEGRATION})
    unavailable = frozenset({503})
    return [
        _get("/api/v1/me", me, "Who is logged in.", "Me", WhoAmI),
        _get("/api/v1/state", state, "All that you may see, as in the websocket's snapshot.", "Me", StateNow),
        _get("/api/v1/calls", calls, "The calls of now.", "Calls", Page[CallView], query=CallsAsked),
        _get("/api/v1/calls/{id}", one_call, "One call, while it lasts.", "Calls", CallView),
        _get(
            "/api/v1/calls/{id}/facts",
            facts_of_call,
            "What happened to a call, also after its end.",
            "Calls",
            Page[FactRead],
            errors=unavailable,
        ),
        _get("/api/v1/agents", agents, "The agents.", "Agents", Page[AgentView], query=AgentsAsked),
        _get("/api/v1/agents/{login}", one_agent, "One agent.", "Agents", AgentView),
        _get("/api/v1/queues", queues, "The queues.", "Queues", Page[QueueView], query=Paging),
        _get("/api/v1/queues/{id}", one_queue, "One queue.", "Queues", QueueView),
        _get("/api/v1/pbxs", pbxs, "The links to the PBXs.", "PBXs", Page[PbxView], query=Paging),
        _get(
            "/api/v1/facts",
            feed,
            "All facts in order, to read on from where you stopped.",
            "Facts",
            FactFeed,
            query=FactsAsked,
            roles=readers,
            errors=unavailable,
        ),
    ]


def _get(
    path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, tag: str, result: Any, **more: Any
) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, tag=tag, result=result, **more)


def _the(found: Sequence[V], id: str, kind: str) -> V:
    for one in found:
        if one.id == id:
            return one
    raise Problem(404, "not_found", f"there is no such {kind} that you may see")
