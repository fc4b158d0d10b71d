"""One call centre for tests: a database, a PBX with the world around it, the server, people with phones, their screens.

    async with centre_of(installation, postgres) as centre:
        anna = await centre.screen("anna")
        await anna.ask("agent.log_on", ready=True)
        await centre.call(number="+442071838750")
        pop = await anna.wait_for("pop.shown")

The server runs in this process, or as a process of its own that can be killed. A screen is a plain websocket client
that knows no more than docs/protocol.md says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp
import asyncpg

from crm.sample_data import insert_samples
from cti import users
from cti.ami import AmiLink, LinkPhase
from cti.client import Picture
from cti.database import migrate
from cti.embedded.asterisk import Installation
from cti.embedded.place import free_ports, remove_folder, scratch_folder
from cti.embedded.postgres import Postgres
from cti.embedded.sample_pbx import Behaviour, SamplePbx, World
from cti.passwords import Passwords
from cti.people import QueueAssignment, Role
from cti.server import Server
from cti.settings import Settings, load
from tests.folders import quick_folder

Frame = dict[str, Any]

PASSWORD = "a long test password"
KEY = "0123456789abcdef0123456789abcdef-of-the-tests"
CHECKOUT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Seat:
    """Somebody's place: team, phone and queues."""

    login: str
    team: str
    phone: str
    queues: tuple[str, ...]


SEATS = (
    Seat("anna", "sales", "1101", ("main:sales",)),
    Seat("ben", "sales", "1102", ("main:sales",)),
    Seat("cleo", "sales", "1103", ("main:sales",)),
    Seat("dora", "service", "1104", ("main:support",)),
    Seat("emil", "service", "1105", ("main:support",)),
    Seat("finn", "service", "1003", ("main:billing",)),
    Seat("gus", "rescue", "1106", ("main:emergency",)),
    Seat("hana", "rescue", "1107", ("main:emergency",)),
    Seat("ivo", "rescue", "1108", ("main:emergency",)),
)
TEAMS = {
    "sales": ("sara", ("main:sales",)),
    "service": ("sven", ("main:support", "main:billing")),
    "rescue": ("rita", ("main:emergency",)),
}
"""Each team with its supervisor and the queues they watch."""

ADMIN = "olga"
DID = {
    "sales": "5550100",
    "support": "5550200",
    "billing": "5550300",
    "emergency": "5550400",
    "menu": "5550500",
}

BRISK = Behaviour(
    ring_seconds=3,
    wait_seconds=60,
    overflow_seconds=4,
    park_seconds=4,
    menu_seconds=4,
    phone_delay="0",
    customer_delay="0",
)

_TEMPLATES: WeakKeyDictionary[Postgres, str] = WeakKeyDictionary()


async def database_of_centre(postgres: Postgres) -> str:
    """Make a database with everybody in it and the sample customers, and give back its dsn."""
    if postgres not in _TEMPLATES:
        name = f"centre_{os.urandom(4).hex()}"
        dsn = await asyncio.to_thread(postgres.create_database, name)
        await migrate(dsn)
        db = await asyncpg.connect(dsn)
        try:
            await _engage(db)
            await insert_samples(db, now=datetime.now(UTC))
        finally:
            await db.close()
        _TEMPLATES[postgres] = name
    return await asyncio.to_thread(
        postgres.create_database, f"centre_{os.urandom(6).hex()}", _TEMPLATES[postgres]
    )


async def _engage(db: asyncpg.Connection[asyncpg.Record]) -> None:
    passwords = Passwords()
    try:
        for team, (supervisor, queues) in TEAMS.items():
            await users.put_team(db, team, team.title())
            await users.set_team_queues(db, team, queues)
            await _user(db, passwords, supervisor, Role.SUPERVISOR)
            await users.set_supervised(db, supervisor, [team])
        for seat in SEATS:
            await _user(db, passwords, seat.login, Role.AGENT)
            await users.set_team(db, seat.login, seat.team)
            await users.set_interface(db, seat.login, "main", f"PJSIP/{seat.phone}")
            await users.set_queues(db, seat.login, [QueueAssignment(queue=queue) for queue in seat.queues])
        await _user(db, passwords, ADMIN, Role.ADMIN)
    finally:
        passwords.close()


async def _user(db: asyncpg.Connection[asyncpg.Record], passwords: Passwords, login: str, role: Role) -> None:
    await users.create_user(db, passwords, login=login, name=login.title(), role=role, password=PASSWORD)


class Refusal(Exception):
    """A command was answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def fits(frame: Frame, type: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a frame is of this type (`call.*`: any of calls) and its data, or the view in it, say what is wanted."""
    kind = frame.get("type", "")
    if kind != type and not (type.endswith(".*") and kind.startswith(type[:-1])):
        return False
    data = frame.get("data") or {}
    view = data.get("view") or {}
    return all(data.get(name, view.get(name)) == value for name, value in wanted.items())


@dataclass(eq=False)
class Screen:
    """A client of one user. `frames` is all that was received, each with the moment (time.time()) it came."""

    url: str
    login: str
    token: str
    frames: list[tuple[float, Frame]] = field(default_factory=list)
    picture: Picture = field(default_factory=Picture)
    welcome: Frame = field(default_factory=dict)
    seq: int = 0
    close_code: int | None = None
    _mark: int = 0
    _http: aiohttp.ClientSession | None = None
    _socket: aiohttp.ClientWebSocketResponse | None = None
    _reader: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _answers: dict[str, asyncio.Future[Frame]] = field(default_factory=dict)

    async def connect(self, *, resume: bool = False, within: float = 10.0) -> Frame:
        """Connect and greet; returns the welcome, after which the snapshot or what was missed has been read too."""
        assert self._reader is None or self._reader.done()
        self._http = self._http or aiohttp.ClientSession()
        before = len(self.frames)
        self.close_code = None
        self._socket = await self._http.ws_connect(
            self.url.replace("http", "ws", 1) + "/ws", protocols=("cti.v1",), max_msg_size=1 << 28
        )
        hello: Frame = {"op": "hello", "id": "h", "token": self.token}
        if resume:
            hello["resume"] = {"epoch": self.welcome["epoch"], "seq": self.seq}
        await self._socket.send_json(hello)
        reader = self._reader = asyncio.create_task(self._read(self._socket))

        def came(kind: str) -> bool | None:
            if any(frame["type"] == kind for _, frame in self.frames[before:]):
                return True
            assert not reader.done(), f"{self.login}: no {kind}, closed: {self.close_code}"
            return None

        await self._until(lambda: came("welcome"), within, "welcome")
        if not self.welcome["resumed"]:
            await self._until(lambda: came("snapshot"), within, "snapshot")
        return self.welcome

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with suppress(ConnectionError):
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._take(json.loads(message.data))
        self.close_code = socket.close_code
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the line broke"))
        self._news.set()

    def _take(self, frame: Frame) -> None:
        self.frames.append((time.time(), frame))
        kind = frame["type"]
        if kind == "welcome":
            self.welcome = frame
            self.picture.me = frame["agent"]["login"]
            self.picture.mine_only = frame["agent"]["role"] == "agent"
        elif kind == "snapshot":
            self.seq = frame["seq"]
            self.picture.show(frame["data"])
        elif kind == "result":
            answer = self._answers.pop(frame["id"], None)
            if answer is not None and not answer.done():
                answer.set_result(frame)
        elif "seq" in frame:
            assert frame["seq"] > self.seq, f"{self.login}: {frame['seq']} after {self.seq}"
            self.seq = frame["seq"]
            self.picture.fold(frame)
        self._news.set()

    async def ask(self, op: str, *, id: str | None = None, within: float = 15.0, **args: Any) -> Any:
        """Send a command and give back its data; raises Refusal, or ConnectionError when the line breaks."""
        assert self._socket is not None
        id = id or uuid.uuid4().hex
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"op": op, "id": id, "args": args})
        async with asyncio.timeout(within):
            frame = await answer
        if not frame["ok"]:
            raise Refusal(frame["error"]["code"], frame["error"]["message"])
        return frame["data"]

    async def send_raw(self, text: str) -> None:
        """Send any text as a frame."""
        assert self._socket is not None
        await self._socket.send_str(text)

    # ------------------------------------------------------------------------------------ what was received

    def mark(self) -> None:
        """Look only at what comes from now on."""
        self._mark = len(self.frames)

    def all(self, type: str, **wanted: Any) -> list[Frame]:
        """The frames since the mark that fit, in order."""
        return [frame for _, frame in self.frames[self._mark :] if fits(frame, type, wanted)]

    def arrival(self, frame: Frame) -> float:
        """When a frame came, as time.time()."""
        return next(at for at, known in self.frames if known is frame)

    def facts(self) -> list[Frame]:
        """All numbered facts ever received, in order."""
        return [
            frame
            for _, frame in self.frames
            if "seq" in frame and frame["type"] not in ("welcome", "snapshot")
        ]

    async def wait_for(
        self,
        type: str,
        within: float = 10.0,
        where: Callable[[Frame], bool] = lambda data: True,
        **wanted: Any,
    ) -> Frame:
        """The first frame since the mark that fits, waited for if need be."""

        def look() -> Frame | None:
            return next((frame for frame in self.all(type, **wanted) if where(frame.get("data") or {})), None)

        return await self._until(look, within, f"{type} {wanted or ''}")

    async def until(self, true: Callable[[], Any], within: float = 10.0, what: str = "") -> Any:
        """Wait until a condition holds that frames bring about; gives back what it says."""
        return await self._until(lambda: true() or None, within, what)

    async def _until(self, look: Callable[[], Any], within: float, what: str) -> Any:
        deadline = asyncio.get_running_loop().time() + within
        while (found := look()) is None:
            self._news.clear()
            remaining = deadline - asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(remaining):
                    await self._news.wait()
            except TimeoutError:
                seen = [_short(frame) for _, frame in self.frames[self._mark :]][-40:]
                raise AssertionError(
                    f"{self.login}: no {what} within {within:g} s (closed: {self.close_code}). Since the mark:\n  "
                    + "\n  ".join(seen)
                ) from None
        return found

    async def agent_is(
        self, state: str, login: str | None = None, within: float = 10.0, **wanted: Any
    ) -> Frame:
        """Wait until an agent (oneself) is shown in this state, with these fields; gives back how they are shown."""
        who = login or self.login

        def look() -> Frame | None:
            shown = self.picture.agents.get(who, {})
            right = shown.get("state") == state and all(shown.get(n) == v for n, v in wanted.items())
            return shown if right else None

        try:
            return await self._until(look, within, f"{who} {state} {wanted or ''}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nshown: {self.picture.agents.get(who)}") from None

    async def as_told(self, *but: str) -> None:
        """Assert that the picture folded from snapshot and facts is the one the server has now (`but` some fields)."""
        answer = await self.ask("state.get")
        while self.seq > answer["seq"]:  # a fact came after it
            answer = await self.ask("state.get")
        now = Picture(me=self.picture.me, mine_only=self.picture.mine_only)
        now.show(answer["data"])
        nouns = (
            "calls",
            "queues",
            "pbxs",
            "agents",
            "pops",
            "supervisions",
            "messages",
            "help",
            "alarms",
            "call_backs",
            "work",
            "blending",
        )
        for noun in nouns:
            told, is_so = (_settled(getattr(picture, noun), but) for picture in (self.picture, now))
            for id in {*told, *is_so}:
                assert told.get(id) == is_so.get(id), (
                    f"{self.login} was told otherwise of {noun} {id}:\n{told.get(id)}\nis:\n{is_so.get(id)}"
                )

    # ------------------------------------------------------------------------------------ endings

    def cut(self) -> None:
        """Break the line without a word, as a cable does that is pulled."""
        assert self._socket is not None
        assert self._socket._conn is not None
        transport = self._socket._conn.transport
        if transport is not None:
            transport.abort()

    async def gone(self, within: float = 10.0) -> int | None:
        """Wait until the line is closed; the close code, None for a broken line."""
        if self._reader is not None:
            async with asyncio.timeout(within):
                await asyncio.wait([self._reader])
        return self.close_code

    async def close(self) -> None:
        """Go home."""
        if self._socket is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._socket.close(), 2)
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
            self._http = None


def _short(frame: Frame) -> str:
    text = (
        json.dumps({k: v for k, v in (frame.get("data") or {}).items() if k not in ("view", "connection")})
        if isinstance(frame.get("data"), dict)
        else ""
    )
    return f"{frame.get('seq', '')} {frame['type']} {text[:200]}"


def _settled(nouns: dict[str, Frame], but: tuple[str, ...]) -> dict[str, Frame]:
    """Without what is written anew at every look (the wait counted in a pop) or has no order (parties, members)."""

    def plain(noun: Frame) -> Frame:
        kept = {name: value for name, value in noun.items() if name not in ("waited", "since", "at", *but)}
        for name in ("connections", "members"):
            if name in kept:
                kept[name] = sorted(
                    ({k: v for k, v in part.items() if k != "since"} for part in kept[name]),
                    key=lambda part: str(part.get("id", part.get("interface"))),
                )
        return kept

    return {id: plain(noun) for id, noun in nouns.items()}


class ServerProcess:
    """`cti serve` as a process of its own."""

    def __init__(self, environment: Mapping[str, str], log: Path, url: str) -> None:
        self._environment = environment
        self._log = log
        self.url = url
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    async def start(self, within: float = 30.0) -> None:
        """Start it and wait until it serves."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cti", "serve"],
                cwd=CHECKOUT,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with aiohttp.ClientSession() as http, asyncio.timeout(within):
            while True:
                assert self._process.poll() is None, self.log
                with suppress(aiohttp.ClientError):
                    async with http.get(self.url + "/healthz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)

    def memory(self) -> int:
        """Resident bytes."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    async def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def stop(self, within: float = 20.0) -> int:
        """End it in order; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return await self.ends(within)

    def freeze(self) -> None:
        """It stands still, as on a machine that is paused."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)

    async def ends(self, within: float = 20.0) -> int:
        """Waits until it has ended by itself; its exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, within)


@dataclass(eq=False)
class Centre:
    """The call centre. `pbx` and `world` are real Asterisks."""

    pbx: SamplePbx
    world: World
    postgres: Postgres
    dsn: str
    port: int
    folder: Path
    settings: dict[str, Any]
    main: dict[str, Any] = field(default_factory=dict)
    server: Server | None = None
    process: ServerProcess | None = None
    screens: list[Screen] = field(default_factory=list)
    _tokens: dict[str, str] = field(default_factory=dict)
    _links: dict[str, tuple[AmiLink, asyncio.Task[None]]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self.port}"

    # ------------------------------------------------------------------------------------ the server

    def _pbx_settings(self) -> dict[str, Any]:
        return {
            "host": self.pbx.host,
            "port": self.pbx.ami_port,
            "username": self.pbx.username,
            "secret": self.pbx.secret,
            "region": "GB",
            "outside_prefix": "9",
            **self.main,
        }

    def make_settings(self, **more: Any) -> Settings:
        """The settings of the server, with some given."""
        given: dict[str, Any] = {
            "database_url": self.dsn,
            "port": self.port,
            "secret_key": KEY,
            "wrap_up": {"seconds": 0},
            "routing": {"lookup_seconds": 0.2},  # a machine full of tests is no fault of the rules
            "pbx": {"main": self._pbx_settings()},
            "log_level": "warning",
            **self.settings,
            **more,
        }
        return load(**given)

    async def start_server(self, *, synced: bool = True, **more: Any) -> Server:
        """Start the server in this process and wait until it knows the PBX."""
        self.server = Server(self.make_settings(**more))
        await self.server.start()
        if synced:
            await self.eventually(
                lambda: all(s.synced for s in self._server.switches.values()), what="synced"
            )
        return self.server

    @property
    def _server(self) -> Server:
        assert self.server is not None
        return self.server

    async def stop_server(self) -> None:
        """Stop the server in order."""
        server, self.server = self.server, None
        if server is not None:
            await server.stop()

    async def start_process(self, **more: str) -> ServerProcess:
        """Start the server as a process of its own and wait until it knows the PBX."""
        self.process = self.another_process("server", self.url, **more)
        await self.process.start()
        await self.ready()
        return self.process

    def another_process(self, name: str, url: str, **more: str) -> ServerProcess:
        """A server as a process of its own, not started."""
        environment = {
            "CTI_DATABASE_URL": self.dsn,
            "CTI_PORT": str(self.port),
            "CTI_SECRET_KEY": KEY,
            "CTI_WRAP_UP__SECONDS": "0",
            "CTI_LOG_LEVEL": "info",
            **{f"CTI_PBX__MAIN__{name.upper()}": str(value) for name, value in self._pbx_settings().items()},
            **more,
        }
        return ServerProcess(environment, self.folder / f"{name}.log", url)

    async def ready(self, within: float = 20.0) -> None:
        """Wait until the server says that all is well."""
        async with asyncio.timeout(within):
            while (await self.health())[0] != 200:
                await asyncio.sleep(0.05)

    async def health(self) -> tuple[int, str]:
        """What /readyz says."""
        async with aiohttp.ClientSession() as http, http.get(self.url + "/readyz") as answer:
            return answer.status, await answer.text()

    # ------------------------------------------------------------------------------------ people

    async def token(self, login: str) -> str:
        """An access token, got with a password as anybody would; kept."""
        if login not in self._tokens:
            async with (
                aiohttp.ClientSession() as http,
                http.post(
                    self.url + "/api/v1/sessions", json={"login": login, "password": PASSWORD}
                ) as answer,
            ):
                assert answer.status in (200, 201), await answer.text()
                self._tokens[login] = (await answer.json())["access_token"]
        return self._tokens[login]

    async def screen(self, login: str, *, connect: bool = True) -> Screen:
        """A new client of this user, connected, marked after its snapshot."""
        screen = Screen(self.url, login, await self.token(login))
        self.screens.append(screen)
        if connect:
            await screen.connect()
            screen.mark()
        return screen

    def forget_tokens(self) -> None:
        """Whoever asks next logs in anew."""
        self._tokens.clear()

    async def rest(self, method: str, path: str, login: str, **more: Any) -> tuple[int, Any]:
        """Ask over REST; status and body."""
        headers = {"Authorization": f"Bearer {await self.token(login)}", **more.pop("headers", {})}
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.url + path, headers=headers, **more) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    async def log_on(self, *screens: Screen, ready: bool = True) -> None:
        """Log these agents on and wait until Asterisk has them as members of their queues."""
        for screen in screens:
            await screen.ask("agent.log_on", ready=ready)
        for screen in screens:
            await self.member(screen.login, paused=not ready)

    async def member(self, login: str, *, there: bool = True, paused: bool = False, reason: str = "") -> None:
        """Wait until Asterisk itself has the agent in their queues like this, and a server of ours has heard of it."""
        seat = next(seat for seat in SEATS if seat.login == login)
        interface = f"PJSIP/{seat.phone}"

        def heard() -> bool:
            queues = self.server.switches["main"].queues if self.server else None
            known = queues.memberships(interface).values() if queues else ()
            if queues is None or not there:
                return not known
            return len(known) == len(seat.queues) and all(m.paused == paused for m in known)

        async def agrees() -> bool:
            rows = [row for row in await self.queue_members() if row["Location"] == interface]
            if not there:
                return not rows
            return len(rows) == len(seat.queues) and all(
                (row["Paused"] == "1") == paused
                and (not paused or not reason or row["PausedReason"] == reason)
                for row in rows
            )

        deadline = time.monotonic() + 10
        while not (await agrees() and heard()):
            assert time.monotonic() < deadline, (login, there, paused, reason, await self.queue_members())
            await asyncio.sleep(0.03)

    # ------------------------------------------------------------------------------------ the switch and the world

    async def ami(self, where: str) -> AmiLink:
        """An AMI connection of our own: `admin` of the PBX, or `world`."""
        if where not in self._links:
            at: SamplePbx | World = self.world if where == "world" else self.pbx
            user = (self.world.username, self.world.secret)
            if where == "admin":
                user = (self.pbx.admin_username, self.pbx.admin_secret)
            link = AmiLink(
                pbx=where,
                host=at.host,
                port=at.ami_port,
                username=user[0],
                secret=user[1],
                parsers={},
                on_records=lambda records: None,
                on_status=lambda status: None,
                backoff_max=0.5,
            )
            self._links[where] = (link, asyncio.create_task(link.run()))
        link = self._links[where][0]
        await self.eventually(lambda: link.status.phase is LinkPhase.UP, what=f"AMI of {where}", within=20)
        return link

    async def admin(self, action: str, **headers: str) -> dict[str, str]:
        """An AMI action at the PBX by its administrator."""
        return await (await self.ami("admin")).send(action, headers)

    async def rows(self, action: str, **headers: str) -> list[dict[str, str]]:
        """The rows of a list action at the PBX."""
        listed = await (await self.ami("admin")).query(action, headers)
        return [_fields(row) for row in listed]

    async def queue_members(self) -> list[dict[str, str]]:
        """The members of all queues as Asterisk has them."""
        return [row for row in await self.rows("QueueStatus") if row.get("Event") == "QueueMember"]

    async def channels(self) -> list[dict[str, str]]:
        """The channels of the PBX."""
        return [row for row in await self.rows("CoreShowChannels") if row.get("Event") == "CoreShowChannel"]

    async def phone(self, *phones: str, mode: str = "", delay: str = "", talk: str = "") -> None:
        """Say how desk phones behave: `mode` answer, silent, busy, reject; seconds of `delay` and `talk`."""
        link = await self.ami("world")
        for phone in phones:
            for key, value in (("mode", mode), ("delay", delay), ("talk", talk)):
                what = f"put phone {phone}/{key} {value}" if value else f"del phone {phone}/{key}"
                with suppress(Exception):  # a key that is not there cannot be deleted
                    await link.send("Command", {"Command": f"database {what}"})

    async def call(
        self,
        queue: str = "sales",
        number: str = "+442071838750",
        name: str = "Ada Lovelace",
        *,
        talk: float = 60,
        **variables: str,
    ) -> str:
        """A customer calls in; gives back the id of their channel in the world, for `hang_up`."""
        id = f"customer-{uuid.uuid4().hex[:12]}"
        given = ",".join(f"{key}={value}" for key, value in {"TALK": f"{talk:g}", **variables}.items())
        await (await self.ami("world")).originate(
            {
                "Channel": f"PJSIP/{DID.get(queue, queue)}@carrier",
                "Context": "customer",
                "Exten": "talk",
                "Priority": "1",
                "CallerID": f'"{name}" <{number}>' if name else f"<{number}>",
                "ChannelId": id,
                "Variable": given,
            }
        )
        return id

    async def dial(self, phone: str, number: str, *, talk: float = 60) -> str:
        """A desk phone dials; gives back the id of its channel in the world."""
        id = f"dialler-{uuid.uuid4().hex[:12]}"
        await (await self.ami("world")).originate(
            {
                "Channel": f"PJSIP/{number}@phone-{phone}",
                "Context": "customer",
                "Exten": "talk",
                "Priority": "1",
                "ChannelId": id,
                "Variable": f"TALK={talk:g}",
            }
        )
        return id

    async def hang_up(self, id: str) -> None:
        """This customer, or whoever dialled, hangs up."""
        with suppress(Exception):  # gone already
            await (await self.ami("world")).send("Hangup", {"Channel": id, "Cause": "16"})

    async def phone_hangs_up(self, phone: str) -> None:
        """The agent puts the receiver down, or rejects the call; once it has begun to ring, as people do."""
        deadline = time.monotonic() + 5.0
        while not any(
            row["Channel"].startswith(f"PJSIP/{phone}-") and row["ChannelStateDesc"] != "Down"
            for row in await self.channels()
        ):
            assert time.monotonic() < deadline, f"{phone} does not ring"
            await asyncio.sleep(0.03)
        await self.admin("Hangup", Channel=f"/^PJSIP.{phone}-/", Cause="16")

    async def channel_of(self, phone: str, within: float = 5.0) -> str:
        """The name of the phone's channel at the PBX."""
        deadline = time.monotonic() + within
        while True:
            names = [row["Channel"] for row in await self.channels()]
            found = [name for name in names if name.startswith(f"PJSIP/{phone}-")]
            if found:
                return found[0]
            assert time.monotonic() < deadline, f"{phone} has no channel: {names}"
            await asyncio.sleep(0.03)

    async def set_global(self, name: str, value: str) -> None:
        """Change a global of the PBX's dialplan."""
        await self.admin("Command", Command=f"dialplan set global {name} {value}")

    async def quiet(self) -> None:
        """Between two tests: nobody calls, nobody is logged on, phones behave, screens are closed."""
        for screen in self.screens:
            await screen.close()
        self.screens.clear()
        server = self._server
        for _ in range(50):
            if await self.channels():
                for where in ("world", "admin"):
                    with suppress(Exception):  # nobody there
                        await (await self.ami(where)).send("Hangup", {"Channel": "/.*/", "Cause": "16"})
            if not await self.channels() and not any(len(s.calls) for s in server.switches.values()):
                break
            await asyncio.sleep(0.1)
        now = datetime.now(UTC)
        for seat in SEATS:
            server.bus.publish(server.agents.log_off(seat.login, by="test", at=now))
        for seat in SEATS:
            for pop in server.pops.for_agent(seat.login):
                await self._drop_pop(seat.login, pop.id)
        await self.eventually(lambda: not server.interactions.unwritten, what="interactions written")
        deadline = time.monotonic() + 5
        while await self.queue_members():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.03)
        await (await self.ami("world")).send("Command", {"Command": "database deltree phone"})

    async def _drop_pop(self, login: str, pop: str) -> None:
        from cti.people import Actor

        self._server.bus.publish(
            self._server.pops.dismiss(Actor(login=login, name=login, role=Role.AGENT), pop)
        )

    # ------------------------------------------------------------------------------------ reading and waiting

    async def fetch(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Rows of the database."""
        db = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await db.fetch(query, *args)]
        finally:
            await db.close()

    async def interaction_of(self, call: str, within: float = 20.0) -> dict[str, Any]:
        """The record of a call once it is closed; asserts that there is one only."""
        deadline = time.monotonic() + within
        while True:
            rows = await self.fetch("SELECT * FROM interactions WHERE call = $1", call)
            if rows and rows[0]["ended"] is not None:
                assert len(rows) == 1
                return rows[0]
            assert time.monotonic() < deadline, (call, rows)
            await asyncio.sleep(0.05)

    @staticmethod
    async def eventually(
        true: Callable[[], Any], *, what: str | Callable[[], str] = "", within: float = 10.0
    ) -> None:
        """Wait until a condition holds; `what` is said if it does not."""
        deadline = time.monotonic() + within
        while not true():
            said = what if isinstance(what, str) or time.monotonic() < deadline else what()
            assert time.monotonic() < deadline, f"not within {within:g} s: {said}"
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End everything that belongs to the test."""
        for screen in self.screens:
            await screen.close()
        await self.stop_server()
        if self.process is not None:
            await self.process.kill()
        for link, task in self._links.values():
            del link
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _fields(row: bytes | Mapping[str, str]) -> dict[str, str]:
    if not isinstance(row, bytes):
        return dict(row)
    lines = (line.partition(": ") for line in row.decode(errors="replace").split("\r\n") if line)
    return {name: value for name, _, value in lines}


@contextlib.asynccontextmanager
async def centre_of(
    installation: Installation,
    postgres: Postgres,
    *,
    behaviour: Behaviour = BRISK,
    server: bool = True,
    name: str = "",
    main: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Centre]:
    """A call centre that works; everything started here is ended. `settings` are the server's, `main` those of its PBX."""
    folders = [quick_folder("cti-e2e-"), quick_folder("cti-e2e-")]
    log = Path(scratch_folder("cti-e2e-log-"))
    pbx = SamplePbx(installation, folders[0], name, behaviour)
    world = World(installation, folders[1], pbx, replace(behaviour))
    dsn = await database_of_centre(postgres)
    around = asyncio.create_task(asyncio.to_thread(world.start))
    try:
        await asyncio.to_thread(pbx.start)
        centre = Centre(pbx, world, postgres, dsn, free_ports(1)[0], log, dict(settings), main or {})
        try:
            if server:
                await centre.start_server()
            await around
            yield centre
        finally:
            await centre.close()
    finally:
        await asyncio.wait([around])
        for asterisk in (world, pbx):  # nobody waits for them to end in order
            await asyncio.to_thread(asterisk.kill)
        for folder in [*folders, log]:
            remove_folder(folder)
        with suppress(Exception):
            await asyncio.to_thread(postgres.drop_database, dsn.rpartition("/")[2])


def moment(text: str) -> datetime:
    """A time as facts carry it."""
    return datetime.fromisoformat(text)


def apart(earlier: str, later: str) -> float:
    """Seconds between two times as facts carry them."""
    return (moment(later) - moment(earlier)) / timedelta(seconds=1)
