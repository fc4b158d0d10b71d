"""`cti demo`: a whole call centre on this machine, set up, run and shown; knows all parts, and nothing imports it.

Everything is kept in one folder (`.local/demo` in a checkout), so the second start is quick and goes on where the first
ended. What it starts it stops, by process id; what a killed run has left is cleared away first.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import aiohttp
from rich.console import Console
from rich.text import Text

from crm.sample_data import insert_samples, sample_customers
from cti import demo_campaign, demo_people, demo_routing, demo_traffic, logs
from cti.ami import AmiLink, LinkPhase, LinkStatus
from cti.client import Client
from cti.database import DatabaseUnavailable, MigrationFailed, connection, migrate
from cti.demo_people import ADMIN, BROWSER, IN_BROWSER, LEAD, PBX, ROBOTS, STAFF, YOU
from cti.demo_traffic import Customer, PlannedCall
from cti.embedded.asterisk import AsteriskFailed, AsteriskUnavailable, find_or_provision
from cti.embedded.place import LONGEST_SOCKET_FOLDER, home, lives, reachable, remove_folder
from cti.embedded.postgres import Postgres, PostgresFailed
from cti.embedded.sample_pbx import LIVELY, SamplePbx, World
from cti.journal import JournalInUse
from cti.reasons import Chooser
from cti.rest.phone import page_is_there
from cti.server import Server
from cti.settings import Settings, only
from cti.simulator import Caller, Plan, Simulator, User
from cti.watch import Login, Watch, websocket_url

USUAL_PORT = 8600
PORTS_TRIED = 40
DATABASE = "cti_demo"
T = TypeVar("T")


class DemoFailed(Exception):
    """The demo cannot run; the message is one sentence that says why and what helps."""


class _Stopped(Exception):
    """Ctrl-C while starting."""


@dataclass(frozen=True, slots=True)
class Switch:
    """The PBX of the demo, whichever it is: where its AMI is, what it is called, and how a customer calls it."""

    what: str
    real: bool
    port: int
    secret: str
    trunk: str
    place: Callable[[PlannedCall], Awaitable[None]]
    phone_url: str = ""
    phone_password: str | None = None
    recordings: str = ""


def run(*, headless: bool, seconds: float | None, simulator: bool, port: int | None, fresh: bool) -> None:
    """Runs the demo until Ctrl-C, SIGTERM, or for so many seconds. Raises DemoFailed."""
    demo = Demo(headless=headless, seconds=seconds, simulator=simulator, port=port, fresh=fresh)
    asyncio.run(demo.run())


def folder_for_demo() -> Path:
    """The demo's folder, made if need be: near the checkout, or where paths are short enough for sockets."""
    near = home() / "demo"
    longest = near / "world" / "run"
    if len(os.fsencode(longest)) <= LONGEST_SOCKET_FOLDER and reachable(near / "x"):
        near.mkdir(exist_ok=True)
        return near
    mark = hashlib.sha256(os.fsencode(near)).hexdigest()[:8]
    far = Path("/var/tmp") / f"cti-demo-{os.geteuid()}-{mark}"  # noqa: S108 - ownership is checked below
    far.mkdir(mode=0o755, exist_ok=True)
    if far.is_symlink() or far.lstat().st_uid != os.geteuid():
        raise DemoFailed(f"{far} belongs to somebody else; set CTI_HOME to a folder of your own.")
    return far


def end_leftovers(folder: Path) -> None:
    """Ends the servers that a killed demo has left over this folder, whichever of them this run will need."""
    for file in (folder / "world" / "pid", folder / "pbx" / "pid", folder / "postgres" / "postmaster.pid"):
        try:
            pid = int(file.read_text().splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if os.fsencode(file.parent) not in command:  # the number has gone to a stranger
            continue
        for how, patience in ((signal.SIGINT, 10.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            deadline = time.monotonic() + patience
            while lives(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            if not lives(pid):
                break


def free_port(wanted: int | None) -> int:
    """The port to serve on: the one wanted, else the usual one or the next that is free. Raises DemoFailed."""
    if wanted is not None:
        if not _is_free(wanted):
            raise DemoFailed(f"Port {wanted} is taken by another program; choose another one with --port.")
        return wanted
    for port in range(USUAL_PORT, USUAL_PORT + PORTS_TRIED):
        if _is_free(port):
            return port
    raise DemoFailed(
        f"No port from {USUAL_PORT} to {USUAL_PORT + PORTS_TRIED - 1} is free; name one with --port."
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Demo:
    """One run of the demo."""

    def __init__(
        self, *, headless: bool, seconds: float | None, simulator: bool, port: int | None, fresh: bool
    ) -> None:
        self._headless = headless
        self._seconds = seconds
        self._simulator = simulator
        self._wanted_port = port
        self._fresh = fresh
        self._stop = asyncio.Event()
        self._began = time.monotonic()
        self._lock: IO[str] | None = None
        self._chance = random.Random()  # noqa: S311  # no secret hangs on it

    # ------------------------------------------------------------------------------------------ from start to end

    async def run(self) -> None:
        """Sets up, shows, and takes down again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        self.folder = folder_for_demo()
        self._take_lock()
        self._make_folder()
        started = False
        try:
            async with contextlib.AsyncExitStack() as ending:
                top = await self._start(ending)
                started = True
                await self._show(ending, top)
                self._say("Stopping everything ...")
        except _Stopped:
            self._say("Stopped before everything was set up.")
        except MigrationFailed as error:  # data of another version of this project
            raise DemoFailed(f"{error} To begin anew: cti demo --fresh") from None
        except (PostgresFailed, DatabaseUnavailable, JournalInUse) as error:
            raise DemoFailed(str(error)) from None
        if started:
            self._say(f"Everything is stopped. The data is kept in {_short(self.folder)} for the next time.")

    def _say(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def _done(self, what: str, since: float) -> None:
        self._say(f"  ✓ {what} ({time.monotonic() - since:.1f} s)")

    def _take_lock(self) -> None:
        """One demo at a time in one folder; the lock is let go when the process ends, however it does."""
        lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            who = lock.read().strip() or "another process"
            lock.close()
            raise DemoFailed(
                f"A demo is running here already ({who}): look at it with `cti watch`."
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        self._lock = lock

    def _make_folder(self) -> None:
        end_leftovers(self.folder)
        if self._fresh:
            for below in ("postgres", "pbx", "world", "logs"):
                remove_folder(self.folder / below)
            (self.folder / "log-ins.json").unlink(missing_ok=True)
        for below in ("pbx", "world", "logs"):
            (self.folder / below).mkdir(exist_ok=True)
        old = self.folder / "logs" / "server.log"
        if old.is_file() and old.stat().st_size > 10_000_000:
            old.replace(old.with_suffix(".log.1"))
        log = old.open("a", encoding="utf-8")
        logs.set_up(json=True, level="info", to=log)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of `work`, which is waited for in any case; raises _Stopped when somebody wants to stop meanwhile."""
        outcome = await work
        if self._stop.is_set():
            raise _Stopped
        return outcome

    # ------------------------------------------------------------------------------------------ starting

    async def _start(self, ending: contextlib.AsyncExitStack) -> tuple[str, ...]:
        """Everything but the view; returns what to know at the top of the screen."""
        port = free_port(self._wanted_port)
        self._say("Setting up a call centre on this machine. Ctrl-C ends it.")
        found = self._find_pbx()
        dsn, installation = await self._unless_stopped(self._both(self._postgres(ending), found))
        self.passwords = demo_people.passwords_in(self.folder / "log-ins.json")
        await self._unless_stopped(self._fill(dsn))
        switch = await self._unless_stopped(self._switch(ending, installation))
        async with connection(dsn, name="cti demo") as db:
            await demo_people.move_in_with_browser(db, self.passwords, switch.phone_password)
            if switch.real:
                await demo_people.give_lead_a_phone(db)
            if switch.real and await demo_campaign.prepare(db, self._chance):
                self._say(f"  ✓ Campaign {demo_campaign.NAME}: {demo_campaign.CONTACTS} invented contacts")
        server = await self._unless_stopped(self._server(ending, dsn, port, switch))
        robots = asyncio.create_task(
            demo_people.employ(
                server.url, self.passwords, _reasons(server.settings), self._chance, dialing=switch.real
            )
        )
        ending.push_async_callback(_end, robots)
        customers = [
            Customer(phone.e164, customer.name)
            for customer in sample_customers()
            for phone in customer.phones
        ]
        traffic = asyncio.create_task(self._traffic(server, switch, customers))
        ending.push_async_callback(_end, traffic)
        self._server_running = server
        self._say(
            f"Ready after {time.monotonic() - self._began:.0f} s. Calls arrive: the first pops come in a few seconds."
        )
        return self._told(server.url, switch, port)

    @staticmethod
    async def _both(one: Awaitable[T], other: Awaitable[Any]) -> tuple[T, Any]:
        """Two things at once; when one fails the other is waited for before its error is raised."""
        later = asyncio.ensure_future(other)
        try:
            first = await one
        finally:
            await asyncio.gather(later, return_exceptions=True)
        return first, later.result()

    async def _postgres(self, ending: contextlib.AsyncExitStack) -> str:
        since = time.monotonic()
        server = Postgres(self.folder / "postgres")
        ending.push_async_callback(asyncio.to_thread, server.stop)
        await asyncio.to_thread(server.start)
        async with connection(server.dsn, name="cti demo", timeout=15.0) as db:
            there = await db.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE)
        if there is None:
            await asyncio.to_thread(server.create_database, DATABASE)
        self._done("PostgreSQL", since)
        return server.dsn_of(DATABASE)

    async def _find_pbx(self) -> Any:
        """An Asterisk, or None: then the simulator is taken, and the screen says why."""
        self._why_simulator = "you asked for it"
        if self._simulator:
            return None
        try:
            return await asyncio.to_thread(find_or_provision, home(), lambda line: self._say(f"  {line}"))
        except AsteriskUnavailable as why:
            self._why_simulator = str(why)
            return None

    async def _fill(self, dsn: str) -> None:
        since = time.monotonic()
        await migrate(dsn)
        async with connection(dsn, name="cti demo") as db:
            await demo_people.move_in(db, self.passwords)
            # Their windows were closed with the demo before.
            await db.execute("DELETE FROM agent_sessions WHERE login = ANY ($1::text[])", [YOU, BROWSER])
            added = await insert_samples(
                db, now=datetime.now(UTC), pbx=PBX, agents=tuple(person.login for person in ROBOTS)
            )
            await demo_routing.write_rules(db)
            await demo_people.write_alarms(db)
        what = f"{added} invented customers" if added else "Customers of the last time"
        self._done(f"{what}, {len(STAFF)} agents in {len(demo_people.TEAMS)} teams", since)

    async def _switch(self, ending: contextlib.AsyncExitStack, installation: Any) -> Switch:
        since = time.monotonic()
        if installation is not None:
            try:
                switch = await self._asterisk(ending, installation)
            except (AsteriskFailed, ValueError) as why:
                self._why_simulator = f"Asterisk does not start: {str(why).splitlines()[0]}"
            else:
                self._done(f"A real {switch.what}, and the world around it over SIP", since)
                return switch
        switch = await self._simulated(ending)
        self._done(f"{switch.what}, not a real Asterisk ({self._why_simulator.rstrip('.')})", since)
        return switch

    async def _asterisk(self, ending: contextlib.AsyncExitStack, installation: Any) -> Switch:
        pbx = SamplePbx(installation, self.folder / "pbx", "", LIVELY)
        ending.push_async_callback(asyncio.to_thread, pbx.stop)
        await asyncio.to_thread(pbx.start)
        world = World(installation, self.folder / "world", pbx, LIVELY)
        ending.push_async_callback(asyncio.to_thread, world.stop)
        await asyncio.to_thread(world.start)
        up = asyncio.Event()

        def on_status(status: LinkStatus) -> None:
            if status.phase is LinkPhase.UP:
                up.set()

        link = AmiLink(
            pbx="world",
            host=world.host,
            port=world.ami_port,
            username=world.username,
            secret=world.secret,
            parsers={},
            on_records=lambda _records: None,
            on_status=on_status,
        )
        linking = asyncio.create_task(link.run())
        ending.push_async_callback(_end, linking)
        async with asyncio.timeout(15.0):
            await up.wait()
        await demo_campaign.phones_stay(link.send)

        async def place(call: PlannedCall) -> None:
            await link.originate(
                {
                    "Channel": f"PJSIP/{call.dialled}@carrier",
                    "CallerID": f'"{_quoted(call.name)}" <{call.number}>'
                    if call.name
                    else f"<{call.number}>",
                    "Context": "customer",
                    "Exten": "talk",
                    "Priority": "1",
                    "Timeout": "60000",
                    "Variable": f"TALK={call.patience}",
                }
            )

        what = installation.version.split("+")[0]
        return Switch(
            what,
            True,
            pbx.ami_port,
            pbx.secret,
            "PJSIP/trunk",
            place,
            f"ws://{pbx.host}:{pbx.http_port}/ws",
            f"{pbx.phone_secret}{IN_BROWSER.phone}",
            str(pbx.run_dir / "spool" / "monitor"),
        )

    async def _simulated(self, ending: contextlib.AsyncExitStack) -> Switch:
        secret = "simulated"  # noqa: S105  # a port of this process, on loopback
        plan = Plan(
            agents=len(STAFF),
            first_extension=int(STAFF[0].phone),
            queues={
                demo_routing.DIRECT: demo_routing.DIRECT,
                **{
                    dialled: queue
                    for queue, numbers in demo_traffic.NUMBERS_DIALLED.items()
                    for dialled in numbers
                },
            },
            talk=(12.0, 50.0),
            patience=(30.0, 90.0),
            ring=(1.0, 5.0),
        )
        simulator = Simulator(plan, users={"cti": User(secret=secret)})
        await ending.enter_async_context(simulator)

        async def place(call: PlannedCall) -> None:
            simulator.pbx.arrive(Caller(number=call.number, name=call.name or "<unknown>"), call.dialled)

        return Switch("AMI simulator", False, simulator.port, secret, "PJSIP/trunk", place)

    async def _server(self, ending: contextlib.AsyncExitStack, dsn: str, port: int, switch: Switch) -> Server:
        since = time.monotonic()
        settings = only(
            database_url=dsn,
            port=port,
            pbx={
                PBX: {
                    "host": "127.0.0.1",
                    "port": switch.port,
                    "username": "cti",
                    "secret": switch.secret,
                    "region": demo_traffic.REGION,
                    "trunks": [switch.trunk],
                    "inbound_contexts": ["from-trunk"],
                    "outside_prefix": "9",
                    "phone_url": switch.phone_url,
                    "recordings_seen_at": switch.recordings,
                }
            },
            wrap_up={"seconds": 15.0, "after": "ready"},
            not_ready_reasons=[
                {"name": "Break", "limit": 10},
                {"name": "Lunch", "paid": False, "limit": 30},
                {"name": "Back office", "limit": 0.5},
                "Training",
            ],
            dialer={
                "trunks": (
                    [{"name": "carrier", "pbx": PBX, "dial": "PJSIP/{number}@trunk", "channels": 60}]
                    if switch.real
                    else []
                ),
                "caller_ids": [demo_campaign.CALLER_ID],
                "profiles": str(demo_campaign.profile_folder(self.folder / "profiles")),
            },
        )
        server = Server(settings)
        ending.push_async_callback(server.stop)
        try:
            await server.start()
        except OSError as error:
            raise DemoFailed(f"The server cannot listen on port {port}: {error.strerror or error}.") from None
        self._done(f"The CTI server at {server.url}", since)
        return server

    async def _traffic(self, server: Server, switch: Switch, customers: list[Customer]) -> None:
        await asyncio.sleep(2.0)  # the robots are at their desks
        await demo_traffic.run(
            switch.place,
            customers,
            waiting=lambda: sum(
                len(queue.waiting) for one in server.switches.values() for queue in one.queues.views()
            ),
            chance=self._chance,
        )

    # ------------------------------------------------------------------------------------------ showing

    def _told(self, url: str, switch: Switch, port: int) -> tuple[str, ...]:
        """What a newcomer has to know, in lines that fit 80 columns."""
        pbx = f"real {switch.what}" if switch.real else f"{switch.what}, no real Asterisk"
        at = "" if port == USUAL_PORT else f" --url {url}"
        browser = (f"Take calls in the browser: {url}/phone as {BROWSER} {self.passwords[BROWSER]}",)
        return (
            f"{url} · {pbx} · logs in {_short(self.folder / 'logs')}",
            f"Log-ins: {LEAD} {self.passwords[LEAD]} (sees all) · {YOU} {self.passwords[YOU]} (takes calls)",
            *(browser if switch.real and page_is_there() else ()),
            f"Another terminal: {_command()} watch{at} --login {LEAD}   or: --login {YOU} --log-on",
            *(
                (f"The campaign: {_command()} campaigns watch{at} --login {LEAD} '{demo_campaign.NAME}'",)
                if switch.real
                else ()
            ),
            f"REST: {url}/api/ · administrator: {ADMIN} {self.passwords[ADMIN]}",
        )

    async def _show(self, ending: contextlib.AsyncExitStack, top: tuple[str, ...]) -> None:
        self._say("")
        for line in top:
            self._say(line)
        self._say("")
        stopping = asyncio.create_task(self._stop.wait())
        ending.push_async_callback(_end, stopping)
        waited: set[asyncio.Task[Any]] = {stopping}
        server_ends = asyncio.create_task(self._server_running.stopped.wait())
        ending.push_async_callback(_end, server_ends)
        waited.add(server_ends)
        if not self._headless:
            view = asyncio.create_task(self._view(top))
            ending.push_async_callback(_end, view)
            waited.add(view)
        await asyncio.wait(waited, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        if not self._headless and view.done() and not view.cancelled() and (error := view.exception()):
            raise DemoFailed(f"The view ended: {error}.")
        if server_ends.done() and self._server_running.why_stopped:
            raise DemoFailed(self._server_running.why_stopped)

    async def _view(self, top: tuple[str, ...]) -> None:
        """The supervisor's view, over REST and websocket as from any other terminal."""
        url = self._server_running.url
        out = Console(highlight=False)
        async with aiohttp.ClientSession() as http:
            session = Login(http, url, LEAD, self.passwords[LEAD])
            await session.begin()
            client = Client(websocket_url(url), session.token, name="cti demo")
            lines = tuple(Text(line, "on grey15", no_wrap=True) for line in top[:-1])
            await Watch(client, url=url, out=out, top=lines).run()


def _reasons(settings: Settings) -> list[str]:
    """What an agent may choose for a break."""
    return [r.name for r in settings.not_ready_reasons if r.chosen_by is Chooser.AGENTS]


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _quoted(name: str) -> str:
    """A name as it may stand in an AMI header's quotes: Asterisk takes no line ends, and quotes end it."""
    return name.replace('"', "'").replace("\r", " ").replace("\n", " ").replace("\\", "/")[:200]


def _short(path: Path) -> str:
    """A path as seen from here, if that is shorter."""
    with contextlib.suppress(ValueError):
        near = os.path.relpath(path)
        return near if len(near) < len(str(path)) else str(path)
    return str(path)


def _command() -> str:
    """How `cti` is called here: by its name when that finds this very program, else by its path."""
    mine = Path(sys.argv[0])
    on_path = shutil.which("cti")
    if on_path and mine.exists() and Path(on_path).resolve() == mine.resolve():
        return "cti"
    return _short(mine) if mine.name == "cti" else f"{Path(sys.executable).name} -m cti"
