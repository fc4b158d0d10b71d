"""Real servers for the tests: an Asterisk, the world around it, PostgreSQL, SIP phones played by SIPp.

Each is started once where that is enough and ended by its process id; ports are chosen free, so test runs may go
side by side.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_asyncio

from cti.database import migrate
from cti.embedded.asterisk import AsteriskUnavailable, Installation, find_or_provision
from cti.embedded.place import free_ports, home, remove_folder
from cti.embedded.postgres import Postgres, PostgresFailed
from cti.embedded.sample_pbx import Behaviour, SamplePbx, World
from tests.folders import quick_folder

if TYPE_CHECKING:
    from tests.centre import Centre

LONG = (
    "test_faults",
    "test_transfer_matrix",
    "test_demo",
    "test_dialer_faults",
    "test_switch",
    "test_browser_phone",
    "test_routing_asterisk",
    "test_main_job",
    "test_embedded",
    "test_figures_asterisk",
    "test_other_work",
    "test_agent_states_live",
)
"""Files of half a minute and more."""


hypothesis.settings.register_profile("house", deadline=None)  # a busy machine is not a wrong answer
hypothesis.settings.load_profile("house")

NO_ASTERISK = "NO REAL ASTERISK: "
NO_SIPP = "NO SIPP: "
NO_BROWSER = "NO BROWSER: "
SCENARIOS = Path(__file__).parent / "sipp"


def required(name: str) -> bool:
    """Tell whether a missing part fails the tests that need it instead of skipping them."""
    return os.environ.get("CI", "").lower() in {"true", "1"} or bool(os.environ.get(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files go first, then those with a real Asterisk: at the end they would leave the other workers idle.

    What Hypothesis finds it makes smaller for up to five minutes: ended in the middle of that by a time limit, it reports
    "inconsistent data generation" in place of what it found.
    """
    for item in items:
        found = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if found and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))
        if "asterisk_installation" in getattr(item, "fixturenames", ()):
            item.add_marker("asterisk")
    live = {item.path for item in items if item.get_closest_marker("asterisk")}
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: (places.get(item.path.stem, len(LONG)), item.path not in live))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for lead, what in (
        (NO_ASTERISK, "a real Asterisk"),
        (NO_SIPP, "a real SIPp"),
        (NO_BROWSER, "a real browser"),
    ):
        skipped = [r for r in terminalreporter.stats.get("skipped", ()) if lead in str(r.longrepr)]
        if skipped:
            terminalreporter.section(f"{len(skipped)} TESTS WITH {what.upper()} DID NOT RUN", red=True)
            reason = str(skipped[0].longrepr).split(lead, 1)[1].rstrip("')")
            terminalreporter.line(f"{lead}{reason}")


@pytest.fixture(scope="session")
def asterisk_installation() -> Installation:
    """An Asterisk program: found, or fetched once and kept."""
    try:
        return find_or_provision(home(), print)
    except AsteriskUnavailable as why:
        if required("CTI_REQUIRE_ASTERISK"):
            pytest.fail(f"{NO_ASTERISK}{why}", pytrace=False)
        pytest.skip(f"{NO_ASTERISK}{why}")


AsteriskFactory = Callable[..., SamplePbx]


@pytest.fixture
def asterisk_factory(asterisk_installation: Installation) -> Iterator[AsteriskFactory]:
    """Start PBXs of the test's own: `asterisk_factory("main")`, with how it behaves as keywords (see Behaviour).

    A name becomes Asterisk's systemname: it then leads every Uniqueid and adds SystemName to every event; "" gives
    plain ids. `start=False` gives one that is not started yet.
    """
    with contextlib.ExitStack() as ended:

        def make(name: str = "", *, start: bool = True, **behaviour: Any) -> SamplePbx:
            folder = quick_folder("cti-pbx-")
            ended.callback(remove_folder, folder)
            how = replace(Behaviour(), **behaviour)
            pbx = SamplePbx(asterisk_installation, folder, name, how)
            ended.callback(pbx.kill)
            return pbx.start() if start else pbx

        yield make


@dataclass(frozen=True, slots=True)
class Pair:
    """A PBX and the world around it, wired together over SIP."""

    pbx: SamplePbx
    world: World


@pytest.fixture(scope="module")
def asterisk_pair(asterisk_installation: Installation) -> Iterator[Pair]:
    """A PBX with customers and desk phones around it, one for all tests of a module."""
    how = Behaviour(ring_seconds=6, phone_delay="0", customer_delay="1")
    with contextlib.ExitStack() as ended:
        folders = [quick_folder("cti-pbx-"), quick_folder("cti-world-")]
        for folder in folders:
            ended.callback(remove_folder, folder)
        pbx = SamplePbx(asterisk_installation, folders[0], "", how)
        ended.callback(pbx.kill)
        world = World(asterisk_installation, folders[1], pbx.start(), how)
        ended.callback(world.kill)
        yield Pair(pbx, world.start())


# ------------------------------------------------------------------------------------------ PostgreSQL


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL of the test run's own (one for each worker); it does not wait for the disk."""
    folder = quick_folder("cti-pg-")
    server = Postgres(folder / "data", durable=False)
    try:
        server.start()
        yield server
    except PostgresFailed as why:
        pytest.fail(f"PostgreSQL: {why}", pytrace=False)
    finally:
        server.stop()
        remove_folder(folder)


@pytest.fixture
def database(postgres_server: Postgres) -> Iterator[str]:
    """The address of a fresh empty database, dropped after the test whoever is still connected."""
    name = f"t_{os.urandom(6).hex()}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def schema(postgres_server: Postgres) -> str:
    """The name of a database with our tables and nothing in them, to be copied."""
    asyncio.run(migrate(postgres_server.create_database("schema")))
    return "schema"


@contextlib.contextmanager
def copied(server: Postgres, schema: str) -> Iterator[str]:
    """The address of a fresh copy of a database, dropped in the end whoever is still connected."""
    name = f"t_{os.urandom(6).hex()}"
    yield server.create_database(name, schema)
    server.drop_database(name)


@pytest.fixture
def migrated(postgres_server: Postgres, schema: str) -> Iterator[str]:
    """The address of a fresh database with our tables."""
    with copied(postgres_server, schema) as url:
        yield url


@pytest.fixture(scope="module")
def tables(postgres_server: Postgres, schema: str) -> Iterator[str]:
    """The address of a database with our tables that a module's tests share: each begins by emptying what it uses."""
    with copied(postgres_server, schema) as url:
        yield url


# ------------------------------------------------------------------------------------------ a call centre


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(
    request: pytest.FixtureRequest, asterisk_installation: Installation, postgres_server: Postgres
) -> AsyncIterator["Centre"]:
    """A whole call centre, one for all tests of a module.

    Made as the module's CENTRE says (arguments of centre_of), or by its HOUSE (called as centre_of is).
    """
    from tests.centre import centre_of  # the whole server: only for those who need it

    make = getattr(request.module, "HOUSE", centre_of)
    how: dict[str, Any] = getattr(request.module, "CENTRE", {})
    async with make(asterisk_installation, postgres_server, **how) as centre:
        yield centre


@pytest_asyncio.fixture(loop_scope="module")
async def centre(request: pytest.FixtureRequest, the_centre: "Centre") -> AsyncIterator["Centre"]:
    """The module's call centre, brought to rest after each test; by the module's TIDIED where it has one."""
    yield the_centre
    tidied = getattr(request.module, "TIDIED", None)
    await (tidied(the_centre) if tidied is not None else the_centre.quiet())


# ------------------------------------------------------------------------------------------------ SIPp


@dataclass(frozen=True, slots=True)
class SippRun:
    """One SIPp process playing one scenario."""

    process: subprocess.Popen[bytes]
    port: int
    errors: Path

    async def finished(self, within: float = 30.0) -> int:
        """Wait for its end and give its exit code: 0 when the scenario was played through."""
        return await asyncio.to_thread(self.process.wait, within)

    def end(self) -> None:
        """End it now; nothing happens if it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Sipp:
    """Plays SIP callers and phones against a PBX; whatever it started is ended after the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: list[SippRun] = []

    def play(
        self,
        pbx: SamplePbx,
        scenario: Path,
        *arguments: str,
        host: str = "127.0.0.2",
        port: int = 0,
        calls: int = 1,
    ) -> SippRun:
        """Play a scenario file from host:port (0: a free one). SIPp itself gives up after two minutes."""
        port = port or free_ports(1)[0]
        errors = self.folder / f"sipp-{len(self._runs)}.log"
        command = ["sipp", "-sf", str(scenario), "-i", host, "-p", str(port), "-m", str(calls), "-nostdin"]
        command += ["-timeout", "120", "-trace_err", "-error_file", str(errors), *arguments]
        process = subprocess.Popen(
            [*command, f"{pbx.host}:{pbx.sip_port}"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._runs.append(SippRun(process, port, errors))
        return self._runs[-1]

    def caller(
        self,
        pbx: SamplePbx,
        did: str = "5550100",
        number: str = "+442071838750",
        name: str = "Ada Lovelace",
        talk: float = 30.0,
        scenario: str = "uac_in.xml",
    ) -> SippRun:
        """Call `did` from outside as `name` <`number`>; hang up `talk` seconds after the answer."""
        who = ("-s", did, "-key", "cnum", number, "-key", "cname", name, "-d", str(int(talk * 1000)))
        return self.play(pbx, SCENARIOS / scenario, *who)

    def phone(
        self, pbx: SamplePbx, ring: float = 0.5, scenario: str = "uas_agent.xml", calls: int = 1
    ) -> SippRun:
        """Be phone 1003: ring `ring` seconds, answer, stay until hung up on."""
        return self.play(
            pbx,
            SCENARIOS / scenario,
            "-d",
            str(int(ring * 1000)),
            host="127.0.0.1",
            port=pbx.uas_port,
            calls=calls,
        )

    def refusing_phone(self, pbx: SamplePbx, code: int, ring: float = 0.5) -> SippRun:
        """Be phone 1003 and refuse one call with a SIP status after `ring` seconds."""
        text = (SCENARIOS / "uas_refuse.xml").read_text().replace("SIP/2.0 486 ", f"SIP/2.0 {code} ")
        scenario = self.folder / f"refuse-{code}.xml"
        scenario.write_text(text)
        return self.play(pbx, scenario, "-d", str(int(ring * 1000)), host="127.0.0.1", port=pbx.uas_port)

    def register(
        self, pbx: SamplePbx, extension: str, contact_port: int, password: str | None = None
    ) -> SippRun:
        """Register a phone (1001, 1002) whose calls shall come to 127.0.0.1:`contact_port`."""
        secret = password or pbx.phone_secret + extension
        what = ("-s", extension, "-au", extension, "-ap", secret, "-key", "cport", str(contact_port))
        return self.play(pbx, SCENARIOS / "uac_register.xml", *what, host="127.0.0.1")

    def end_all(self) -> None:
        """End every run."""
        for run in self._runs:
            run.end()


@pytest.fixture
def sipp(tmp_path: Path) -> Iterator[Sipp]:
    """SIP callers and phones played by SIPp (Debian package sip-tester)."""
    if shutil.which("sipp") is None:
        why = f"{NO_SIPP}the program sipp is missing (Debian and Ubuntu: apt-get install sip-tester)"
        if required("CTI_REQUIRE_SIPP"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    played = Sipp(tmp_path)
    yield played
    played.end_all()
