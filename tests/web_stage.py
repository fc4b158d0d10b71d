"""A stage for websocket and REST tests: a real bus, hub and aiohttp server on a free port, and real clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from cti.asyncapi import fact_classes
from cti.bus import Bus, Envelope
from cti.commands import Commands, add_basics
from cti.facts import AgentState, Fact, PbxStatusChanged, QueueCallerJoined
from cti.hub import Hub
from cti.journal import Page, Resumed
from cti.journal_store import JournalFact
from cti.openapi import Route
from cti.people import Actor, Role
from cti.protocol import StateNow
from cti.rest import commands, health, state
from cti.rest.application import application
from cti.rest.proxies import Proxies
from cti.rest.serving import Translate
from cti.views import AgentView, Snapshot
from cti.websocket import NotAuthenticated, Websocket

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
ANNA = Actor(login="anna", name="Anna Berg", role=Role.AGENT, teams=frozenset({"sales"}))
BEN = Actor(login="ben", name="Ben Low", role=Role.AGENT, teams=frozenset({"service"}))
SUE = Actor(login="sue", name="Sue Parr", role=Role.SUPERVISOR, teams=frozenset({"sales"}))
ROOT = Actor(login="root", name="Root", role=Role.ADMIN)
CRM = Actor(login="crm", name="CRM", role=Role.INTEGRATION, via="api_key")


@dataclass
class Ticket:
    actor: Actor
    expires: datetime | None = None


def all_know(why: str = "as planned") -> PbxStatusChanged:
    """A fact for everybody."""
    return PbxStatusChanged(at=NOON, pbx="main", phase="up", code="ok", why=why)


def waiting(queue: str, call: str = "main:1.1") -> QueueCallerJoined:
    """A fact for the agents of one queue."""
    return QueueCallerJoined(at=NOON, queue=queue, call=call, position=1, waiting=1)


def audience(fact: Fact) -> frozenset[str]:
    """Whom the facts of these tests are for."""
    if isinstance(fact, QueueCallerJoined):
        return frozenset({f"queue:{fact.queue}", "admin"})
    agent = getattr(fact, "agent", None)
    return frozenset({f"agent:{agent}", "admin"} if agent else {"all", "admin"})


@dataclass
class Stage:
    """All parts, wired as the server does it."""

    topics: dict[str, frozenset[str]] = field(default_factory=dict)
    tokens: dict[str, Ticket] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    audited: list[tuple[str, str, str]] = field(default_factory=list)
    journal: list[Envelope] = field(default_factory=list)
    journal_gate: asyncio.Event | None = None
    journal_asked: asyncio.Event = field(default_factory=asyncio.Event)
    journal_lost: bool = False
    resumed_after: list[int] = field(default_factory=list)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    heartbeat: float = 20.0
    buffer: int = 1 << 20
    last_seq: int = 100
    padding: str = ""
    checks: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        self.tokens |= {actor.login + "-token": Ticket(actor) for actor in (ANNA, BEN, SUE, ROOT, CRM)}
        self.topics |= {
            "anna": frozenset({"agent:anna", "queue:main:sales", "all"}),
            "ben": frozenset({"agent:ben", "queue:main:service", "all"}),
            "sue": frozenset({"agent:anna", "agent:sue", "queue:main:sales", "all"}),
            "root": frozenset({"admin"}),
            "crm": frozenset({"admin"}),
        }
        self.bus = Bus(audience=audience, last_seq=self.last_seq)
        self.hub = Hub(
            subscriptions=lambda actor: self.topics[actor.login],
            snapshot=self.snapshot,
            seq=lambda: self.bus.seq,
            epoch="e1",
            buffer=self.buffer,
            heartbeat=self.heartbeat,
            still_valid=lambda grant: grant.actor.login not in self.revoked,
            now=self.now,
            version="1.0",
        )
        self.commands = Commands(
            audit=lambda actor, op, _args, told: self.audited.append((actor.login, op, told))
        )
        add_basics(self.commands, seq=lambda: self.bus.seq, snapshot=self.snapshot, shape=StateNow)
        self.bus.carry(self.journal.append)
        self.bus.carry(self.hub.carry)
        self.websocket = self.make_websocket()

    def make_websocket(self, **limits: Any) -> Websocket:
        return Websocket(
            hub=self.hub,
            commands=self.commands,
            authenticate=self.authenticate,
            resume=self.resume,
            seq=lambda: self.bus.seq,
            **({"grace_seconds": 0.5} | limits),
        )

    async def authenticate(self, token: str) -> Ticket:
        ticket = self.tokens.get(token)
        if ticket is None:
            raise NotAuthenticated("this token is not known: log in")
        return ticket

    def snapshot(self, actor: Actor) -> Snapshot:
        me = AgentView(
            agent=actor.login, name=actor.name, team=None, state=AgentState.READY, reason=None, since=NOON,
            by=actor.login, why=self.padding, pending=None, until=None, call=None, device=None, reachable=True,
            queues=(),
        )  # fmt: skip
        return Snapshot(at=NOON, calls=(), agents=(me,), queues=(), pbxs=())

    async def resume(self, epoch: str, after: int, topics: frozenset[str]) -> Resumed | None:
        self.journal_asked.set()
        self.resumed_after.append(after)
        if self.journal_gate is not None:
            await self.journal_gate.wait()
        found = [e.frame for e in self.journal if e.seq > after and topics & e.topics]
        return None if self.journal_lost or epoch != "e1" else Resumed(found, self.bus.seq)

    def app(
        self, *more: Route, translate: Mapping[type[Exception], Translate] | None = None
    ) -> web.Application:
        """The whole application, as the server builds it; `more` are the routes of other parts."""

        async def facts_of(call: str) -> list[JournalFact]:
            return [fact for fact in self.written() if fact.call == call]

        async def since(after: int, limit: int, types: Collection[str] | None) -> Page:
            found = [f for f in self.written() if f.seq > after and (types is None or f.type in types)][
                :limit
            ]
            return Page(found, found[-1].seq if len(found) == limit else max(after, self.bus.seq))

        routes = [
            *state.routes(
                snapshot=self.snapshot,
                seq=lambda: self.bus.seq,
                subscriptions=lambda actor: self.topics[actor.login],
                facts_of=facts_of,
                since=since,
            ),
            *commands.routes(self.commands),
            *health.routes(checks=self.checks, registry=CollectorRegistry()),
            *more,
        ]
        return application(
            routes=routes,
            websocket=self.websocket,
            commands=self.commands,
            facts=fact_classes(),
            authenticate=self.authenticate,
            version="1.0",
            allowed_origins=("https://crm.example.com",),
            proxies=Proxies([ip_network("127.0.0.0/8"), ip_network("10.1.0.0/16")]),
            translate=translate,
        )

    def written(self) -> list[JournalFact]:
        """What a journal would give back."""
        return [
            JournalFact(
                seq=e.seq, at=e.fact.at, type=e.fact.TYPE, call=getattr(e.fact, "call", None),
                topics=tuple(e.topics), data=msgspec.json.decode(e.data),
            )
            for e in self.journal
        ]  # fmt: skip

    @asynccontextmanager
    async def serve(self, app: web.Application | None = None) -> AsyncIterator[Stage]:
        if app is None:
            app = web.Application(middlewares=[problems])
            app.router.add_get("/ws", self.websocket.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        beat = asyncio.create_task(self._sweep())
        try:
            yield self
        finally:
            beat.cancel()
            await self.websocket.stop()
            await self.commands.close(1)
            await runner.cleanup()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.hub.sweep()

    @asynccontextmanager
    async def client(self, token: str | None = "anna-token", **hello: Any) -> AsyncIterator[Client]:
        """A client that has said hello and read its welcome (and snapshot)."""
        async with self.plain(headers=hello.pop("headers", None)) as client:
            await client.send(op="hello", id="h", **({"token": token} if token else {}), **hello)
            client.welcome = await client.next()
            if client.welcome["type"] == "welcome" and not client.welcome["resumed"]:
                client.snapshot = await client.next()
            yield client

    @asynccontextmanager
    async def plain(self, headers: dict[str, str] | None = None) -> AsyncIterator[Client]:
        """A client that has shaken hands and said nothing."""
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(
                self.url + "/ws", protocols=("cti.v1",), headers=headers, autoping=True, max_msg_size=1 << 26
            ) as ws,
        ):
            yield Client(ws)


class Client:
    """What a test does with a websocket; every wait ends by a deadline."""

    welcome: dict[str, Any]
    snapshot: dict[str, Any]

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def send(self, **frame: Any) -> None:
        await self.ws.send_str(msgspec.json.encode(frame).decode())

    async def next(self, seconds: float = 5.0) -> dict[str, Any]:
        message = await self.ws.receive(seconds)
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise ConnectionError(f"{message.type.name} {self.ws.close_code} {message.extra}")
        return msgspec.json.decode(message.data)

    async def until(self, type: str) -> dict[str, Any]:
        """The next frame of this type; those before it are passed over."""
        while True:
            frame = await self.next()
            if frame["type"] == type:
                return frame

    async def ask(self, op: str, id: str = "1", **args: Any) -> dict[str, Any]:
        await self.send(op=op, id=id, args=args)
        return await self.until("result")

    async def closed(self, seconds: float = 5.0) -> tuple[int, str]:
        """Reads until the server closes; the close code and what the goodbye said."""
        reason = ""
        async with asyncio.timeout(seconds):
            while True:
                message = await self.ws.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    frame = msgspec.json.decode(message.data)
                    reason = frame["reason"] if frame["type"] == "goodbye" else reason
                elif message.type in (
                    aiohttp.WSMsgType.CLOSE,
                    aiohttp.WSMsgType.CLOSED,
                    aiohttp.WSMsgType.CLOSING,
                    aiohttp.WSMsgType.ERROR,
                ):
                    return self.ws.close_code or 0, reason


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> Any:
    from cti.problems import Problem

    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
