"""The link's supervision against a peer that can be told to misbehave: every trouble has one code and one sentence."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from cti.ami import (
    ActionRefused,
    ActionTimeout,
    AmiLink,
    BadValue,
    LinkLost,
    LinkPhase,
    NotConnected,
    just_started,
)
from tests.ami_peer import BOOTED, SECRET, Headers, Peer, Session, Watcher, error, event, linked, ok

UP, DOWN, STOPPED = LinkPhase.UP, LinkPhase.DOWN, LinkPhase.STOPPED


def silent(session: Session, headers: Headers) -> None:
    """Never answer."""


# -- coming up ------------------------------------------------------------------------------------------------------


async def test_up_with_the_secret_never_on_the_wire() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        status = await watcher.status(UP)
        assert (status.why, status.code, status.retry_in, status.pbx) == ("", "", None, "lab")
        assert watcher.phases == ["connecting", "up"]
        assert SECRET.encode() not in peer.raw
        assert (await link.send("Ping"))["Ping"] == "Pong"


async def test_a_pbx_without_md5_gets_the_secret_in_the_clear() -> None:
    async with Peer() as peer:
        peer.on["Challenge"] = lambda session, headers: error(headers, "Invalid/unknown command")
        async with linked(peer.port) as (_, watcher, _):
            await watcher.status(UP)
            assert peer.asked("Login")[0]["Secret"] == SECRET


async def test_up_is_told_before_the_first_record_and_nothing_before_up_is() -> None:
    async with Peer() as peer:
        peer.booted = event("Newchannel", Uniqueid="early") + BOOTED + event("Newchannel", Uniqueid="1")
        order: list[str] = []
        async with linked(
            peer.port,
            on_status=lambda status: order.append(status.phase.value),
            on_records=lambda records: order.extend(bytes(r).decode()[-1] for r in records),
        ) as (link, _, _):
            await peer.until(lambda: bool(peer.asked("Login")))
            while link.status.phase is not UP:
                await asyncio.sleep(0)
            await link.send("Ping")
        assert order[:3] == ["connecting", "up", "1"]


async def test_cancelling_logs_off_and_closes() -> None:
    async with Peer() as peer:
        async with linked(peer.port) as (link, watcher, task):
            await watcher.status(UP)
            pending = asyncio.create_task(link.send("Originate", {"Channel": "Local/1"}))
            peer.on["Originate"] = silent
            await peer.until(lambda: bool(peer.asked("Originate")))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(LinkLost):
                await pending
            assert link.status.phase is STOPPED
            with pytest.raises(NotConnected):
                await link.send("Ping")
        await peer.until(lambda: peer.session.gone)
        assert peer.asked("Logoff")
        assert watcher.phases == ["connecting", "up", "stopped"]


async def test_a_link_runs_once_at_a_time_and_may_run_again() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, task):
        await watcher.status(UP)
        with pytest.raises(RuntimeError):
            await link.run()
        task.cancel()
        await asyncio.wait({task})
        again = asyncio.create_task(link.run())
        await watcher.until(lambda: watcher.phases.count("up") == 2)
        again.cancel()
        await asyncio.wait({again})


async def test_two_links_share_nothing() -> None:
    async with (
        Peer() as one,
        Peer() as two,
        linked(one.port, pbx="one") as (_, at_one, _),
        linked(two.port, pbx="two") as (link_two, at_two, _),
    ):
        await at_one.status(UP)
        await at_two.status(UP)
        one.session.drop()
        await at_one.status(DOWN)
        assert link_two.status.phase is UP
        two.session.write(event("Newchannel", Uniqueid="2"))
        await at_two.until(lambda: bool(at_two.records))
        assert at_one.records == []


# -- not coming up --------------------------------------------------------------------------------------------------


async def test_a_wrong_password_stops_the_link_after_one_login() -> None:
    async with Peer() as peer, linked(peer.port, secret="wrong-secret") as (link, _, task):
        await asyncio.wait_for(task, 5)
        status = link.status
        assert (status.phase, status.code, status.retry_in) == (STOPPED, "wrong_password", None)
        for word in ("cti", "manager.conf", "secret", "permit/deny"):
            assert word in status.why
        assert "wrong-secret" not in status.why
        assert len(peer.asked("Login")) == 1
        assert len(peer.sessions) == 1


async def test_a_password_that_worked_is_tried_again_a_few_times_only() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, task):
        await watcher.status(UP)
        peer.on["Login"] = lambda session, headers: error(headers, "Authentication failed")
        peer.session.drop()
        await asyncio.wait_for(task, 5)
        assert link.status.code == "wrong_password"
        assert len(peer.asked("Login")) == 4


async def test_a_login_refused_for_another_reason_is_tried_again() -> None:
    async with Peer() as peer:
        peer.on["Login"] = lambda session, headers: error(headers, "Login Already In Use")
        async with linked(peer.port) as (_, watcher, _):
            status = await watcher.status(DOWN, "login_refused")
            assert "Login Already In Use" in status.why
            del peer.on["Login"]
            await watcher.status(UP)


async def test_nobody_listens_then_somebody_does() -> None:
    peer = Peer()
    await peer.start()
    await peer.stop()
    async with linked(peer.port) as (link, watcher, _):
        status = await watcher.status(DOWN, "unreachable")
        assert "Nothing listens" in status.why
        assert status.retry_in is not None
        assert 0 < status.retry_in <= 0.05
        with pytest.raises(NotConnected, match="Nothing listens"):
            await link.send("Ping")
        await peer.start()
        await watcher.status(UP)
        # While it tries, it stays down: the screen does not flicker.
        assert set(watcher.phases[1:-1]) == {"down"}
        await peer.stop()


async def test_an_unknown_host_name_says_so() -> None:
    async with linked(5038, host="no-such-host.invalid", connect_timeout=10.0) as (_, watcher, _):
        assert "no-such-host.invalid" in (await watcher.status(DOWN, "unreachable")).why


@pytest.mark.parametrize(("host", "port"), [("bad..host", 5038), ("127.0.0.1", 99999)])
async def test_an_impossible_address_stops_the_link(host: str, port: int) -> None:
    async with linked(port, host=host) as (link, _, task):
        await asyncio.wait_for(task, 5)
        assert (link.status.phase, link.status.code) == (STOPPED, "unreachable")


async def test_something_else_listens() -> None:
    async with Peer() as peer:
        peer.greeting = b"SSH-2.0-OpenSSH_9.2p1\r\n"
        async with linked(peer.port) as (_, watcher, _):
            status = await watcher.status(DOWN, "wrong_host")
            assert "not an Asterisk Manager Interface" in status.why
            assert "SSH-2.0" in status.why
            assert str(peer.port) in status.why
            assert peer.raw == b""  # neither name nor secret was shown to it


async def test_a_port_that_says_nothing() -> None:
    async with Peer() as peer:
        peer.greeting = None
        async with linked(peer.port, connect_timeout=0.2) as (_, watcher, _):
            assert "says nothing" in (await watcher.status(DOWN, "frozen")).why


async def test_a_port_that_closes_before_the_greeting() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server, linked(server.sockets[0].getsockname()[1]) as (_, watcher, _):
        assert "without a greeting" in (await watcher.status(DOWN, "closed")).why


async def test_a_login_that_is_not_answered() -> None:
    async with Peer() as peer:
        peer.on["Login"] = silent
        async with linked(peer.port, login_timeout=0.2) as (_, watcher, _):
            assert "does not answer the login" in (await watcher.status(DOWN, "frozen")).why


async def test_a_connection_closed_in_the_login() -> None:
    async with Peer() as peer:
        peer.on["Login"] = lambda session, headers: session.drop()
        async with linked(peer.port) as (_, watcher, _):
            assert "during the login" in (await watcher.status(DOWN, "closed")).why


async def test_fully_booted_never_comes_for_lack_of_a_right() -> None:
    async with Peer() as peer:
        peer.booted = b""
        peer.on["CoreStatus"] = lambda session, headers: error(headers, "Permission denied")
        async with linked(peer.port, boot_timeout=0.1) as (link, watcher, _):
            status = await watcher.status(DOWN, "missing_right")
            for word in ("`system`", "`read=`", "[cti]", "manager.conf"):
                assert word in status.why
            with pytest.raises(NotConnected):
                await link.send("Ping")
            peer.booted = BOOTED  # the operator mends it
            await watcher.status(UP)


async def test_an_asterisk_that_still_boots_is_told_from_a_missing_right() -> None:
    now = datetime.now()  # noqa: DTZ005
    async with Peer() as peer:
        peer.booted = b""
        peer.on["CoreStatus"] = lambda session, headers: ok(
            headers, CoreStartupDate=f"{now:%Y-%m-%d}", CoreStartupTime=f"{now:%H:%M:%S}"
        )
        async with linked(peer.port, boot_timeout=0.1) as (_, watcher, _):
            assert "starting" in (await watcher.status(DOWN, "not_booted")).why
    assert not just_started({}, now)
    assert not just_started({"CoreStartupDate": "x", "CoreStartupTime": "y"}, now)
    assert not just_started({"CoreStartupDate": "2020-01-01", "CoreStartupTime": "00:00:00"}, now)


async def test_fully_booted_that_comes_late_brings_the_link_up() -> None:
    async with Peer() as peer:
        peer.booted = b""

        def booted_now(session: Session, headers: Headers) -> bytes:
            return BOOTED + error(headers, "Permission denied")

        peer.on["CoreStatus"] = booted_now
        async with linked(peer.port, boot_timeout=0.1) as (link, watcher, _):
            await watcher.status(UP)
            await link.send("Ping")
            assert watcher.phases == ["connecting", "up"]


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=lab"
    )
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return key, cert


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


async def test_tls_with_a_trusted_certificate(certificate: tuple[Path, Path]) -> None:
    trust = ssl.create_default_context(cafile=certificate[1])
    async with (
        Peer(server_context(certificate)) as peer,
        linked(peer.port, tls=trust) as (link, watcher, _),
    ):
        await watcher.status(UP)
        assert not peer.asked("Challenge")  # inside TLS the secret may travel
        assert (await link.send("Ping"))["Ping"] == "Pong"


async def test_tls_with_a_certificate_nobody_vouches_for(certificate: tuple[Path, Path]) -> None:
    async with Peer(server_context(certificate)) as peer, linked(peer.port, tls=True) as (_, watcher, _):
        status = await watcher.status(DOWN, "tls")
        assert "not trusted" in status.why
        assert peer.seen == []


async def test_tls_to_a_plain_port() -> None:
    async with Peer() as peer, linked(peer.port, tls=True) as (_, watcher, _):
        status = await watcher.status(DOWN, "tls")
        assert "does not speak TLS" in status.why
        assert "tlsbindaddr" in status.why


async def test_plain_to_a_tls_port(certificate: tuple[Path, Path]) -> None:
    async with (
        Peer(server_context(certificate)) as peer,
        linked(peer.port, connect_timeout=0.4) as (_, watcher, _),
    ):
        await watcher.until(lambda: any(s.phase is DOWN for s in watcher.statuses))
        status = watcher.statuses[1]
        assert status.code == "tls"
        assert "TLS" in status.why
        assert SECRET.encode() not in peer.raw


# -- going down -----------------------------------------------------------------------------------------------------


async def test_the_link_is_down_the_moment_the_connection_goes() -> None:
    async with Peer() as peer, linked(peer.port, backoff_max=5.0) as (link, watcher, _):
        await watcher.status(UP)
        seen: list[tuple[LinkPhase, str]] = []

        async def ask() -> None:
            with pytest.raises(LinkLost):
                await link.send("Originate", {"Channel": "Local/1"})
            seen.append((link.status.phase, link.status.code))

        peer.on["Originate"] = silent
        task = asyncio.create_task(ask())
        await peer.until(lambda: bool(peer.asked("Originate")))
        peer.session.drop()
        await task
        assert seen == [(DOWN, "closed")]
        with pytest.raises(NotConnected):
            await link.send("Ping")
        assert link.status.retry_in is not None
        assert link.status.retry_in <= 0.4  # the first wait is short


async def test_a_half_closed_connection_is_a_lost_one() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        peer.session.writer.write_eof()
        await watcher.status(DOWN, "closed")
        await watcher.status(UP, after=3)
        assert (await link.send("Ping"))["Ping"] == "Pong"


async def test_a_fault_on_this_side_is_told_and_does_not_end_the_link() -> None:
    async with Peer() as peer, linked(peer.port, secret=7) as (_, watcher, task):
        assert "TypeError" in (await watcher.status(DOWN, "internal")).why
        assert not task.done()


async def test_fifty_actions_pending_when_the_connection_goes() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        peer.on["Originate"] = peer.on["QueueStatus"] = silent
        calls = [
            asyncio.create_task(link.originate({"Channel": f"Local/{n}"}, timeout=30.0)) for n in range(49)
        ]
        rows = asyncio.create_task(link.query("QueueStatus", timeout=30.0))
        await peer.until(lambda: len(peer.asked("Originate")) == 49 and bool(peer.asked("QueueStatus")))
        peer.session.drop()
        results = await asyncio.gather(*calls, rows, return_exceptions=True)
        assert all(isinstance(result, LinkLost) for result in results)
        await watcher.status(UP, after=3)
        assert (await link.send("Ping"))["Ping"] == "Pong"
        assert len(peer.asked("Originate")) == 49  # none was sent again
        assert len(peer.asked("QueueStatus")) == 1


async def test_an_unanswered_originate_is_never_sent_again() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        peer.on["Originate"] = silent
        call = asyncio.create_task(link.originate({"Channel": "PJSIP/4912345@trunk", "Async": "false"}))
        await peer.until(lambda: bool(peer.asked("Originate")))
        for _ in range(3):
            before = len(watcher.statuses)
            peer.session.drop()
            await watcher.status(UP, after=before)
            await link.send("Ping")
        with pytest.raises(LinkLost):
            await call
        assert len(peer.asked("Originate")) == 1
        assert peer.asked("Originate")[0]["Async"] == "true"
        assert peer.raw.count(b"Originate") == 1


async def test_a_list_cut_off_by_a_disconnect_is_never_given_in_part() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)

        def half(session: Session, headers: Headers) -> bytes:
            start = ok(headers, "Queue status will follow", EventList="start")
            return start + event("QueueParams", Queue="sales", ActionID=headers["ActionID"])

        peer.on["QueueStatus"] = half
        rows = asyncio.create_task(link.query("QueueStatus", timeout=30.0))
        await peer.until(lambda: bool(peer.asked("QueueStatus")))
        await link.send("Ping")  # the half list has come by now
        peer.session.drop()
        with pytest.raises(LinkLost):
            await rows


async def test_a_frozen_pbx_is_noticed_and_the_link_comes_back() -> None:
    async with Peer() as peer, linked(peer.port, ping_every=0.1, ping_timeout=0.2) as (link, watcher, _):
        await watcher.status(UP)
        started = asyncio.get_running_loop().time()
        peer.frozen, answered = True, len(peer.asked("Ping"))
        status = await watcher.status(DOWN, "frozen")
        assert len(peer.asked("Ping")) == answered + 1  # one unanswered ping and no sign of life are enough
        assert asyncio.get_running_loop().time() - started < 2.0
        assert "frozen" in status.why
        with pytest.raises(NotConnected):
            await link.send("Ping")
        peer.frozen = False
        await watcher.status(UP, after=len(watcher.statuses) - 1)


async def test_a_pbx_that_sends_events_but_no_answers_is_given_up_too() -> None:
    async with Peer() as peer, linked(peer.port, ping_every=0.05, ping_timeout=0.1) as (_, watcher, _):
        await watcher.status(UP)

        def busy(session: Session, headers: Headers) -> None:
            asyncio.get_running_loop().call_later(0.02, session.write, event("Newchannel", Uniqueid="1"))

        peer.on["Ping"] = busy
        await watcher.status(DOWN, "frozen")
        assert len(peer.asked("Ping")) >= 3
        assert len(watcher.records) >= 2


async def test_ten_megabytes_without_an_end() -> None:
    async with Peer() as peer, linked(peer.port, buffer_max=1 << 20) as (link, watcher, _):
        await watcher.status(UP)
        peer.session.write(b"Event: Newchannel\r\nData: " + b"x" * (10 << 20))
        status = await watcher.status(DOWN, "too_large")
        assert "1024 KiB" in status.why
        assert link.stats().oversize == 1
        assert link.stats().bytes < 3 << 20
        await watcher.status(UP, after=len(watcher.statuses) - 1)


async def test_a_flood_of_small_messages_comes_whole_and_in_order() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        flood = b"".join(event("Newchannel", Uniqueid=str(n)) + event("VarSet") for n in range(50_000))
        peer.session.write(flood)
        await watcher.until(lambda: len(watcher.records) == 50_000, within=20)
        ids = [int(bytes(r).rpartition(b" ")[2]) for r in watcher.records]
        assert ids == list(range(50_000))
        assert link.stats().dropped >= 50_000


async def test_listeners_that_raise_do_not_end_the_link() -> None:
    def broken(what: object) -> None:
        raise RuntimeError("listener")

    async with Peer() as peer, linked(peer.port, on_status=broken, on_records=broken) as (link, _, _):
        await peer.until(lambda: bool(peer.asked("Login")))
        while link.status.phase is not UP:
            await asyncio.sleep(0)
        peer.session.write(event("Newchannel", Uniqueid="1"))
        await link.send("Ping")
        assert link.stats().listener_errors == 1


# -- actions --------------------------------------------------------------------------------------------------------


async def test_a_refusal_carries_asterisks_own_words() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        peer.on["QueueAdd"] = lambda session, headers: error(
            headers, "Unable to add interface: Already there"
        )
        with pytest.raises(ActionRefused, match="Already there") as refused:
            await link.send("QueueAdd", {"Queue": "sales", "Interface": "PJSIP/1003"})
        assert refused.value.response["Response"] == "Error"
        with pytest.raises(ActionRefused):
            await link.query("QueueAdd", {"Queue": "sales"})
        peer.on["QueueAdd"] = lambda session, headers: ok(headers, "Added interface to queue")
        assert (await link.send("QueueAdd"))["Message"] == "Added interface to queue"


async def test_no_answer_in_time_leaves_nothing_behind_and_a_late_one_is_ignored() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        asked: list[Headers] = []
        peer.on["Getvar"] = lambda session, headers: asked.append(headers)
        with pytest.raises(ActionTimeout):
            await link.send("Getvar", {"Variable": "A"}, timeout=0.05)
        peer.session.write(ok(asked[0], Value="late"))
        assert (await link.send("Ping"))["Ping"] == "Pong"
        assert (link.stats().unanswered, link.stats().late) == (1, 1)
        assert link._protocol is not None
        assert link._protocol.responses == {}


async def test_a_caller_that_stops_waiting_leaves_nothing_behind() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        peer.on["Getvar"] = silent
        waiting = asyncio.create_task(link.send("Getvar", {"Variable": "A"}))
        await peer.until(lambda: bool(peer.asked("Getvar")))
        waiting.cancel()
        await asyncio.wait({waiting})
        assert link._protocol is not None
        assert link._protocol.responses == {}


async def test_answers_out_of_order_reach_whoever_asked() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        asked: list[Headers] = []
        peer.on["Getvar"] = lambda session, headers: asked.append(headers)
        waiting = [asyncio.create_task(link.send("Getvar", {"Variable": str(n)})) for n in range(20)]
        await peer.until(lambda: len(asked) == 20)
        peer.session.write(b"".join(ok(headers, Value=headers["Variable"]) for headers in reversed(asked)))
        assert [answer["Value"] for answer in await asyncio.gather(*waiting)] == [str(n) for n in range(20)]


async def test_an_injected_line_never_reaches_the_wire() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        for bad in ("x\r\n\r\nAction: Command\r\nCommand: core stop now", "x\nApplication: System", "x\0"):
            with pytest.raises(BadValue):
                await link.originate({"Channel": bad})
        with pytest.raises(BadValue):
            await link.send("Originate", {"Channel\r\nApplication": "System"})
        await link.send("Ping")
        assert {headers["Action"] for headers in peer.seen} == {"Challenge", "Login", "Ping"}


async def test_privileges_are_the_actions_asterisk_lists() -> None:
    async with Peer() as peer, linked(peer.port) as (link, watcher, _):
        await watcher.status(UP)
        peer.on["ListCommands"] = lambda session, headers: ok(
            headers,
            Ping="Keepalive command.  (Priv: <none>)",
            QueueStatus="Show queue status.  (Priv: <none>)",
        )
        assert await link.privileges() == {"Ping", "QueueStatus"}


async def test_no_action_before_the_link_runs() -> None:
    watcher = Watcher()
    link = AmiLink(
        pbx="lab",
        host="127.0.0.1",
        port=1,
        username="cti",
        secret="x",
        parsers={},
        on_records=watcher.on_records,
        on_status=watcher.on_status,
    )
    assert link.status.phase is STOPPED
    with pytest.raises(NotConnected):
        await link.send("Ping")


async def test_waits_grow_to_the_limit_and_vary() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    async with linked(port, backoff_max=0.02) as (_, watcher, _):
        await watcher.until(lambda: len(watcher.statuses) > 12)
        waits = [s.retry_in for s in watcher.statuses if s.retry_in is not None]
        assert all(0 < wait <= 0.02 for wait in waits)
        assert (
            len({s.since for s in watcher.statuses if s.phase is DOWN}) == 1
        )  # down since then, not since now
