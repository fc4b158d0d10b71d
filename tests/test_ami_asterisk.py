"""The link against a real Asterisk: log in, ask, be killed, freeze, restart, lack rights."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from cti.ami import ActionRefused, LinkLost, LinkPhase, NotConnected
from cti.doctor import examine
from cti.doctor_findings import Target
from cti.embedded.place import free_ports
from cti.embedded.sample_pbx import SamplePbx
from cti.settings import tls_context
from tests.ami_peer import event_name, linked

pytestmark = pytest.mark.asterisk

UP, DOWN, STOPPED = LinkPhase.UP, LinkPhase.DOWN, LinkPhase.STOPPED
Factory = Callable[..., SamplePbx]
EVENTS = (b"Newchannel", b"Hangup", b"OriginateResponse", b"QueueMemberAdded", b"DeviceStateChange")


def admin(of: SamplePbx, /, **changes: object) -> dict[str, object]:
    return {
        "username": of.admin_username,
        "secret": of.admin_secret,
        "parsers": dict.fromkeys(EVENTS, bytes),
        "login_timeout": 5.0,
        "boot_timeout": 5.0,
        "backoff_max": 0.5,
        **changes,
    }


async def test_log_in_ask_and_list_as_the_servers_own_user(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory("pbx")
    async with linked(pbx.ami_port, **admin(pbx, username=pbx.username, secret=pbx.secret)) as (
        link,
        watcher,
        _,
    ):
        await watcher.status(UP)
        assert (await link.send("Ping"))["Ping"] == "Pong"
        rows = await link.query("QueueStatus")
        assert b"QueueParams" in {event_name(row) for row in rows}
        assert await link.query("CoreShowChannels") == []
        with pytest.raises(ActionRefused):
            await link.query("ConfbridgeListRooms")  # Asterisk answers an empty list with an error
        with pytest.raises(ActionRefused):
            await link.send("Command", {"Command": "core show version"})  # least rights
        allowed = await link.privileges()
        assert {"QueueStatus", "Originate", "Redirect", "CoreShowChannels", "Ping"} <= allowed
        assert "Command" not in allowed


async def test_queue_add_and_what_follows(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory()
    async with linked(pbx.ami_port, **admin(pbx)) as (link, watcher, _):
        await watcher.status(UP)
        queue = next(row for row in await link.query("QueueStatus") if event_name(row) == b"QueueParams")
        name = queue.partition(b"\r\nQueue: ")[2].partition(b"\r\n")[0].decode()
        member = {"Queue": name, "Interface": "Local/9999@nowhere", "MemberName": "Zoë Łukasz"}
        answer = await link.send("QueueAdd", member)
        assert answer["Message"] == "Added interface to queue"
        await watcher.until(lambda: any(event_name(r) == b"QueueMemberAdded" for r in watcher.records))
        added = next(r for r in watcher.records if event_name(r) == b"QueueMemberAdded")
        assert "MemberName: Zoë Łukasz".encode() in bytes(added)
        with pytest.raises(ActionRefused, match="Already there"):
            await link.send("QueueAdd", member)


async def test_originate_is_answered_at_once_and_its_outcome_comes_as_an_event(
    asterisk_factory: Factory,
) -> None:
    pbx = asterisk_factory()
    async with linked(pbx.ami_port, **admin(pbx)) as (link, watcher, _):
        await watcher.status(UP)
        answer = await link.originate(
            {"Channel": "PJSIP/1@no-such-endpoint", "Application": "Wait", "Data": "1", "ChannelId": "mine-1"}
        )
        assert answer["Message"] == "Originate successfully queued"
        await watcher.until(lambda: any(event_name(r) == b"OriginateResponse" for r in watcher.records))
        outcome = next(r for r in watcher.records if event_name(r) == b"OriginateResponse")
        assert f"ActionID: {answer['ActionID']}".encode() in bytes(outcome)
        with pytest.raises(ActionRefused, match="Channel not specified"):
            await link.originate({"Application": "Wait"})


async def test_killed_and_started_again_the_link_is_up_by_itself(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory()
    async with linked(pbx.ami_port, **admin(pbx)) as (link, watcher, task):
        await watcher.status(UP)
        await asyncio.to_thread(pbx.kill)
        status = await watcher.status(DOWN)
        assert status.code == "closed"
        with pytest.raises(NotConnected):
            await link.send("Ping")
        await watcher.status(DOWN, "unreachable")
        await asyncio.to_thread(pbx.start)
        await watcher.until(lambda: watcher.phases.count("up") == 2, within=20)
        assert (await link.send("Ping"))["Ping"] == "Pong"
        assert not task.done()


async def test_stopped_in_order_with_an_action_pending(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory()
    async with linked(pbx.ami_port, **admin(pbx)) as (link, watcher, _):
        await watcher.status(UP)
        # This one holds the session until Asterisk ends: no answer, no events.
        waiting = asyncio.create_task(link.send("Command", {"Command": "core stop gracefully"}, timeout=30.0))
        with pytest.raises(LinkLost):
            await waiting
        assert (await watcher.status(DOWN)).code == "closed"


async def test_frozen_then_thawed(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory()
    times = {"ping_every": 0.5, "ping_timeout": 0.5, "connect_timeout": 0.5}
    async with linked(pbx.ami_port, **admin(pbx, **times)) as (link, watcher, _):
        await watcher.status(UP)
        pbx.freeze()
        started = time.monotonic()
        await watcher.status(DOWN, "frozen")
        assert time.monotonic() - started < 3.0
        with pytest.raises(NotConnected):
            await link.send("Ping")
        again = len(watcher.statuses)
        await watcher.status(DOWN, "frozen", after=again)  # it takes connections, but says nothing
        pbx.thaw()
        await watcher.status(UP, after=again)
        assert (await link.send("Ping"))["Ping"] == "Pong"


async def test_a_restart_from_the_command_line(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory()
    async with linked(pbx.ami_port, **admin(pbx)) as (link, watcher, _):
        await watcher.status(UP)
        await asyncio.to_thread(pbx.stop)
        await watcher.status(DOWN)
        await asyncio.to_thread(pbx.start)
        await watcher.until(lambda: watcher.phases.count("up") == 2, within=20)
        assert link.stats().reconnects >= 1


@pytest.mark.parametrize(
    ("username", "secret"), [("cti", "wrong"), ("nobody", "x"), ("barred", "barred-secret")]
)
async def test_a_login_that_only_a_person_can_mend(
    asterisk_factory: Factory, username: str, secret: str
) -> None:
    pbx = asterisk_factory()
    async with linked(pbx.ami_port, **admin(pbx, username=username, secret=secret)) as (link, watcher, task):
        await asyncio.wait_for(task, 10)
        assert (link.status.phase, link.status.code) == (STOPPED, "wrong_password")
        assert f"[{username}]" in link.status.why
        assert watcher.phases == ["connecting", "stopped"]


async def test_a_user_without_the_read_class_system(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory()
    who = {"username": "weak", "secret": "weak-secret", "boot_timeout": 0.5}
    async with linked(pbx.ami_port, **admin(pbx, **who)) as (_, watcher, _):
        status = await watcher.status(DOWN, "missing_right")
        assert "`read=` line of [weak]" in status.why


async def test_another_port_of_asterisk_is_not_the_manager(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory()
    async with linked(pbx.http_port, **admin(pbx, connect_timeout=2.0)) as (_, watcher, _):
        await watcher.status(DOWN, "wrong_host")
    async with linked(pbx.ami_port, **admin(pbx, tls=True)) as (_, watcher, _):
        assert "does not speak TLS" in (await watcher.status(DOWN, "tls")).why


async def test_tls_as_asterisk_speaks_it(asterisk_factory: Factory) -> None:
    pbx = asterisk_factory()
    folder = pbx.run_dir
    cert, key = folder / "ami.pem", folder / "ami.key"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=lab"
    )
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    key.chmod(0o644)
    cert.chmod(0o644)
    port = free_ports(1)[0]
    manager = folder / "etc" / "manager.conf"
    lines = (
        f"[general]\ntlsenable=yes\ntlsbindaddr=127.0.0.1:{port}\ntlscertfile={cert}\ntlsprivatekey={key}\n"
    )
    manager.write_text(manager.read_text().replace("[general]\n", lines, 1))
    pbx.cli("manager reload")
    async with linked(port, **admin(pbx, tls=tls_context(str(cert)))) as (link, watcher, _):
        await watcher.status(UP)
        assert (await link.send("Ping"))["Ping"] == "Pong"
    at = Target(name="main", host=pbx.host, port=port, username=pbx.username, tls=True)
    trusting = await examine(replace(at, tls_ca=str(cert)), pbx.secret, test_call=False)
    assert trusting.usable
    refusing = await examine(at, pbx.secret)
    (finding,) = refusing.chapters[0][1]
    assert (finding.id, "setting tls_ca" in finding.says) == ("tls", True)
    async with linked(port, **admin(pbx)) as (_, watcher, _):
        await watcher.until(lambda: any(s.phase is DOWN for s in watcher.statuses))
        status = next(s for s in watcher.statuses if s.phase is DOWN)
        assert status.code == "tls"
        assert "TLS" in status.why


async def test_two_pbxs_at_once(asterisk_factory: Factory) -> None:
    one, two = asterisk_factory("one"), asterisk_factory("two")
    async with (
        linked(one.ami_port, **admin(one, pbx="one")) as (link_one, at_one, _),
        linked(two.ami_port, **admin(two, pbx="two")) as (link_two, at_two, _),
    ):
        await at_one.status(UP)
        await at_two.status(UP)
        await asyncio.to_thread(one.kill)
        await at_one.status(DOWN)
        assert (await link_two.send("Ping"))["Ping"] == "Pong"
        assert at_two.phases == ["connecting", "up"]
        assert link_one.status.pbx == "one"
