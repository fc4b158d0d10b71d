"""A call floor on real links: AmiLink, Switch and Membership around the models, and a caller's side to make calls with."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from cti.agents import WrapUp
from cti.ami import AmiLink, LinkStatus
from cti.ami_events import PARSERS, Record
from cti.corrections import telling_corrections
from cti.embedded.sample_pbx import SamplePbx
from cti.facts import CallCleared, Fact, PbxResynced, PbxStatusChanged
from cti.membership import Membership
from cti.people import Agent
from cti.switch import LinkState, Switch
from tests.floor import HALF_A_MINUTE, Floor, person

TICK = 0.1


class LiveFloor(Floor):
    """A floor whose records come over AMI. `spoil` sees each chunk of records first and returns what of it is heard."""

    def __init__(
        self,
        people: Sequence[Agent],
        *,
        pbxs: Sequence[str] = ("main",),
        wrap_up: WrapUp = HALF_A_MINUTE,
        resync_every: float = 60.0,
    ) -> None:
        super().__init__(people, pbxs=pbxs, wrap_up=wrap_up, up=False)
        self._changed = asyncio.Event()
        self.bus.carry(lambda _: self._changed.set())
        self.links_of: dict[str, AmiLink] = {}
        self.sent: list[tuple[float, str, dict[str, str]]] = []
        self.spoil: Callable[[list[Record]], list[Record]] = lambda chunk: chunk
        self.switches = {
            pbx: Switch(
                pbx,
                calls=self.calls[pbx],
                queues=self.queues[pbx],
                publish=telling_corrections(self.bus.publish, self.agents),
                resync_every=resync_every,
            )
            for pbx in pbxs
        }
        self.membership = Membership(
            directory=self.directory,
            agents=self.agents,
            queues=self.queues,
            send={pbx: self._sender(pbx) for pbx in pbxs},
            up=lambda pbx: self.switches[pbx].synced,
            publish=self.bus.publish,
        )
        self.bus.carry(lambda envelope: self.membership.hear(envelope.fact))
        self._tasks: list[asyncio.Task[None]] = []

    def _sender(self, pbx: str) -> Any:
        async def send(action: str, headers: Any) -> dict[str, str]:
            self.sent.append((time.monotonic(), action, dict(headers)))
            return await self.links_of[pbx].send(action, headers)

        return send

    def add_link(self, pbx: str, port: int, username: str, secret: str, **options: Any) -> None:
        """Connects a switch to an AMI port."""
        switch = self.switches[pbx]

        def on_status(status: LinkStatus) -> None:
            switch.on_link(LinkState(status.phase.value, status.code, status.why, status.since))

        link = AmiLink(
            pbx=pbx,
            host="127.0.0.1",
            port=port,
            username=username,
            secret=secret,
            parsers=PARSERS,
            on_records=lambda chunk: switch.on_records(self.spoil(chunk)),  # type: ignore[arg-type]
            on_status=on_status,
            **({"ping_every": 1.0, "ping_timeout": 1.0, "backoff_max": 0.1} | options),
        )
        switch.link = self.links_of[pbx] = link
        self._tasks += [asyncio.create_task(link.run()), asyncio.create_task(switch.run())]

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for switch in self.switches.values():
                switch.tick()
            self.bus.publish(self.agents.tick(now()))

    async def __aenter__(self) -> LiveFloor:
        self._tasks += [asyncio.create_task(self.membership.run()), asyncio.create_task(self._ticks())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        assert self.bus.failures == 0

    # ------------------------------------------------------------------------------------------ waiting and looking

    async def until(self, condition: Callable[[], Any], within: float = 10.0) -> float:
        """Waits until a published fact makes the condition true; returns the seconds it took."""
        started = time.monotonic()
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
        return time.monotonic() - started

    async def synced(self, pbx: str = "main", within: float = 20.0) -> float:
        return await self.until(lambda: self.switches[pbx].synced, within)

    def facts(self, kind: type[Fact], since: int = 0) -> list[Any]:
        return [envelope.fact for envelope in self.told[since:] if type(envelope.fact) is kind]

    def resyncs(self) -> list[tuple[str, dict[str, int]]]:
        return [(fact.reason, fact.differences) for fact in self.facts(PbxResynced)]

    def phases(self) -> list[str]:
        return [fact.phase for fact in self.facts(PbxStatusChanged)]

    def cleared(self) -> Counter[str]:
        """How often the end of each call was told."""
        return Counter(fact.call for fact in self.facts(CallCleared))

    def log_on(self, logins: Iterable[str], *, ready: bool = True) -> None:
        for login in logins:
            self.publish(self.agents.log_on(login, ready=ready, by=login, at=now()))

    def member(self, queue: str, login: str) -> tuple[bool, str | None] | None:
        """How Asterisk has the agent in a queue: (paused, why), None for no member."""
        for member in self.queues[queue.partition(":")[0]].members(queue).values():
            if member.agent == login:
                return member.paused, member.pause_reason
        return None


def now() -> datetime:
    return datetime.now(UTC)


def simulated(
    number: int, queues: Iterable[str] = ("main:sales",), pbx: str = "main", team: str = "red"
) -> Agent:
    """An agent played by the PBX's own dialplan: 1xxx answers after a second, 2xxx never, 5xxx hangs up after three more."""
    return person(f"agent{number}", team, queues, **{pbx: f"Local/{number}@sim-agent/n"})


@asynccontextmanager
async def live(
    pbx: SamplePbx, people: Sequence[Agent], *, name: str = "main", **options: Any
) -> AsyncIterator[LiveFloor]:
    """A floor connected to a PBX as the server would be, with its user and rights."""
    async with LiveFloor(people, pbxs=(name,), **options) as floor:
        floor.add_link(name, pbx.ami_port, pbx.username, pbx.secret)
        await floor.synced(name)
        yield floor


class Callers:
    """Makes calls at a PBX over an AMI session of its own."""

    def __init__(self, link: AmiLink) -> None:
        self._link = link
        self.made = 0

    async def call(self, *, talk: float, exten: str = "5550100") -> None:
        """Somebody calls from outside and hangs up after `talk` seconds."""
        self.made += 1
        await self._link.originate(
            {
                "Channel": f"Local/{talk:g}@sim-caller/n",
                "Context": "from-trunk",
                "Exten": exten,
                "Priority": "1",
                "CallerID": f"Somebody <1555{self.made:07d}>",
            }
        )

    async def send(self, action: str, **headers: str) -> dict[str, str]:
        return await self._link.send(action, headers)


@asynccontextmanager
async def callers(pbx: SamplePbx) -> AsyncIterator[Callers]:
    """The caller's side of a PBX."""
    up = asyncio.Event()
    link = AmiLink(
        pbx="callers",
        host="127.0.0.1",
        port=pbx.ami_port,
        username=pbx.admin_username,
        secret=pbx.admin_secret,
        parsers={},
        on_records=lambda _: None,
        on_status=lambda status: up.set() if status.phase.value == "up" else None,
    )
    task = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(10):
            await up.wait()
        yield Callers(link)
    finally:
        task.cancel()
        await asyncio.wait({task})
