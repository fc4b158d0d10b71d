"""The websocket `cti.v1`, with a real server and real clients: who hears what, resuming, seats, and hostile input."""

import asyncio
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
import asyncpg
import pytest

from cti.json_in import read_json
from cti.people import Actor
from cti.protocol import CLOSE_CODES, Goodbye, Result, Seat, SnapshotFrame, Welcome
from tests.web_stage import ANNA, ROOT, Stage, Ticket, all_know, eventually, waiting


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage().serve() as stage:
        yield stage


# ------------------------------------------------------------------------------------- hello and facts


async def test_hello_is_answered_with_welcome_and_snapshot_of_one_moment(stage: Stage) -> None:
    async with stage.client() as anna:
        welcome = Welcome.model_validate(anna.welcome)
        assert (welcome.seq, welcome.resumed, welcome.agent.login) == (100, False, "anna")
        assert welcome.phone
        assert welcome.tabs == 1
        assert SnapshotFrame.model_validate(anna.snapshot).data.agents[0].agent == "anna"
        assert anna.snapshot["seq"] == 100


async def test_each_hears_what_is_for_them_once_and_in_order(stage: Stage) -> None:
    async with (
        stage.client("anna-token") as anna,
        stage.client("ben-token") as ben,
        stage.client("root-token") as root,
    ):
        stage.bus.publish([waiting("main:sales"), waiting("main:service"), all_know()])
        assert [(await anna.next())["seq"] for _ in range(2)] == [101, 103]
        assert [(await ben.next())["seq"] for _ in range(2)] == [102, 103]
        assert [(await root.next())["seq"] for _ in range(3)] == [101, 102, 103]


async def test_a_listener_of_several_topics_hears_a_fact_once(stage: Stage) -> None:
    stage.topics["root"] = frozenset({"admin", "all", "queue:main:sales"})
    async with stage.client("root-token") as root:
        stage.bus.publish([waiting("main:sales"), all_know()])
        assert [(await root.next())["seq"] for _ in range(2)] == [101, 102]


@pytest.mark.parametrize("size", [0, 10, 100, 125, 126, 127, 4000, 65_300, 65_600, 200_000])
async def test_frames_of_every_length_arrive_whole(stage: Stage, size: int) -> None:
    async with stage.client() as anna:
        stage.bus.publish([all_know("x" * size), all_know("é☎😀")])
        assert (await anna.next())["data"]["why"] == "x" * size
        assert (await anna.next())["data"]["why"] == "é☎😀"


async def test_pings_results_and_facts_never_mix(stage: Stage) -> None:
    async with stage.client() as anna:
        for turn in range(30):
            await anna.ws.ping(b"p" * 100)
            await anna.send(op="ping", id=f"p{turn}")
            stage.bus.publish([all_know("y" * 3000)])
        seen = [await anna.next() for _ in range(60)]
        assert sorted(f["id"] for f in seen if f["type"] == "result") == sorted(f"p{n}" for n in range(30))
        assert [f["seq"] for f in seen if "seq" in f] == list(range(101, 131))


# --------------------------------------------------------------------------------------- letting in


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/ws?token=anna-token", {}, 400, "no_query"),
        ("/ws", {"Sec-WebSocket-Protocol": "graphql-ws"}, 400, "subprotocol"),
        ("/ws", {}, 400, "subprotocol"),
    ],
)
async def test_a_wrong_handshake_is_refused_with_a_reason(
    stage: Stage, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    key = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with aiohttp.ClientSession() as http, http.get(stage.url + path, headers=key | headers) as response:
        assert response.status == status
        assert (await response.json(content_type=None))["code"] == code


async def test_plain_http_is_told_to_upgrade(stage: Stage) -> None:
    async with aiohttp.ClientSession() as http, http.get(stage.url + "/ws") as response:
        assert response.status == 426


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer anna-token"},
        {"Cookie": "cti_access=anna-token", "Origin": "SAME"},
    ],
)
async def test_the_token_may_come_with_the_handshake(stage: Stage, headers: dict[str, str]) -> None:
    headers = {name: stage.url if value == "SAME" else value for name, value in headers.items()}
    async with stage.client(None, headers=headers) as anna:
        assert anna.welcome["agent"]["login"] == "anna"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", ""])
async def test_a_cookie_counts_from_our_own_pages_only(stage: Stage, origin: str) -> None:
    async with stage.plain({"Cookie": "cti_access=anna-token", "Origin": origin}) as client:
        await client.send(op="hello", id="1")
        assert (await client.closed())[0] == 4401


async def test_a_wrong_token_and_none_are_4401_and_say_what_to_do(stage: Stage) -> None:
    async with stage.plain() as client:
        await client.send(op="hello", id="1", token="wrong")
        assert await client.closed() == (4401, "this token is not known: log in")
    async with stage.plain() as client:
        await client.send(op="hello", id="1")
        code, reason = await client.closed()
        assert code == 4401
        assert "Authorization" in reason


@pytest.mark.parametrize("how", ["broken", "silent"])
async def test_who_cannot_be_looked_up_now_is_asked_to_come_back(how: str) -> None:
    stage = Stage()
    known = stage.authenticate

    async def authenticate(token: str) -> Ticket:
        if token != "crm-token":
            return await known(token)
        if how == "silent":
            await asyncio.Event().wait()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    stage.authenticate = authenticate  # type: ignore[method-assign]
    stage.websocket = stage.make_websocket(look_up_seconds=0.2)
    async with stage.serve(), stage.client() as anna, stage.plain() as client:
        await client.send(op="hello", id="1", token="crm-token")
        code, reason = await client.closed()
        assert (code, "come back in a moment" in reason) == (1012, True)
        renewed = await anna.ask("auth.renew", token="crm-token") if how == "broken" else None
        assert renewed is None or renewed["error"]["code"] == "database_unavailable"


async def test_who_says_nothing_is_sent_away_and_holds_nothing() -> None:
    stage = Stage()
    stage.websocket = stage.make_websocket(hello_seconds=0.2, strangers=2)
    async with stage.serve(), stage.plain() as one, stage.plain():
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with stage.plain():
                pass
        assert refused.value.status == 503
        code, reason = await one.closed()
        assert code == 4401
        assert "hello" in reason
        async with stage.client() as anna:
            assert anna.welcome["type"] == "welcome"


# ---------------------------------------------------------------------------------------------- resume


async def test_a_client_resumes_without_loss_or_doubles_while_facts_flow(stage: Stage) -> None:
    async with stage.client() as anna:
        epoch = anna.welcome["epoch"]
        stage.bus.publish([all_know("1"), all_know("2")])
        assert [(await anna.next())["seq"] for _ in range(2)] == [101, 102]
    stage.bus.publish([all_know("3"), waiting("main:service"), all_know("5")])
    stage.journal_gate = asyncio.Event()
    async with stage.plain() as again:
        await again.send(op="hello", id="1", token="anna-token", resume={"epoch": epoch, "seq": 101})
        await asyncio.wait_for(stage.journal_asked.wait(), 5)
        stage.bus.publish([all_know("6"), waiting("main:service"), all_know("8")])
        stage.journal_gate.set()
        welcome = await again.next()
        assert welcome["resumed"] is True
        assert welcome["epoch"] == epoch
        stage.bus.publish([all_know("9")])
        assert [(await again.next())["seq"] for _ in range(6)] == [102, 103, 105, 106, 108, 109]


@pytest.mark.parametrize(
    "reason", ["other epoch", "from the future", "journal lost", "too much", "rights changed", "other user"]
)
async def test_what_cannot_be_proved_complete_gets_a_snapshot(stage: Stage, reason: str) -> None:
    async with stage.client() as anna:
        epoch, seq = anna.welcome["epoch"], 100
    token = "anna-token"
    match reason:
        case "other epoch":
            epoch = "e0.123456789abc"
        case "from the future":
            seq = 10_000
        case "journal lost":
            stage.journal_lost = True
        case "too much":
            stage.bus.publish([all_know("z" * 10_000) for _ in range(150)])
        case "rights changed":
            stage.topics["anna"] |= {"queue:main:service"}
        case "other user":
            token = "ben-token"
            stage.topics["ben"] = stage.topics["anna"]
    async with stage.client(token, resume={"epoch": epoch, "seq": seq}) as again:
        assert again.welcome["resumed"] is False
        assert again.snapshot["seq"] == stage.bus.seq
        stage.bus.publish([all_know()])
        assert (await again.next())["seq"] == stage.bus.seq


async def test_a_flood_while_resuming_ends_in_a_snapshot_not_in_memory(stage: Stage) -> None:
    async with stage.client() as anna:
        epoch = anna.welcome["epoch"]
    stage.journal_gate = asyncio.Event()
    async with stage.plain() as again:
        await again.send(op="hello", id="1", token="anna-token", resume={"epoch": epoch, "seq": 100})
        await asyncio.wait_for(stage.journal_asked.wait(), 5)
        stage.bus.publish([all_know("z" * 100_000) for _ in range(30)])
        session = next(iter(stage.hub))
        assert session.held == []
        stage.journal_gate.set()
        assert (await again.next())["resumed"] is False
        assert (await again.next())["seq"] == 130


async def test_a_change_of_rights_brings_a_new_welcome_and_snapshot(stage: Stage) -> None:
    async with stage.client() as anna, stage.client("ben-token") as ben:
        stage.topics["anna"] = frozenset({"agent:anna", "queue:main:service", "all"})
        stage.hub.refresh()
        welcome = await anna.next()
        assert welcome["type"] == "welcome"
        assert welcome["epoch"] != anna.welcome["epoch"]
        assert (await anna.next())["type"] == "snapshot"
        stage.bus.publish([waiting("main:sales"), waiting("main:service")])
        assert (await anna.next())["seq"] == 102
        assert (await ben.next())["seq"] == 102


# ---------------------------------------------------------------------------------------- commands


async def test_commands_are_answered_and_a_wrong_one_says_what_is_wrong(stage: Stage) -> None:
    async with stage.client() as anna:
        pong = await anna.ask("ping", id="a")
        assert Result.model_validate(pong).data == {"seq": 100}
        state = await anna.ask("state.get", id="b")
        assert state["data"]["data"]["agents"][0]["agent"] == "anna"
        unknown = await anna.ask("call.hodl", id="c")
        assert unknown["ok"] is False
        assert unknown["error"]["code"] == "unknown_op"
        bad = await anna.ask("ping", id="d", loud=True)
        assert bad["error"]["code"] == "bad_args"
        assert "loud" in bad["error"]["message"]
        assert (await anna.ask("hello", id="e"))["error"]["code"] == "already_greeted"


async def test_a_frame_that_is_no_command_is_complained_about_and_the_line_stays(stage: Stage) -> None:
    async with stage.client() as anna:
        await anna.send(op="ping")
        assert (await anna.next())["type"] == "error"
        await anna.send(op=7, id="x")
        assert (await anna.next())["error"]["code"] == "bad_frame"
        await anna.send(op="ping", id="y" * 65)
        assert (await anna.next())["type"] == "error"
        assert (await anna.ask("ping"))["ok"] is True


# ------------------------------------------------------------------------------------------- seats


async def test_tabs_share_the_stream_and_exactly_one_is_the_phone(stage: Stage) -> None:
    async with stage.client() as first:
        async with stage.client() as second:
            assert (second.welcome["phone"], second.welcome["tabs"]) == (False, 2)
            seat = Seat.model_validate(await first.next())
            assert (seat.data.phone, seat.data.tabs) == (True, 2)
            stage.bus.publish([all_know()])
            assert (await first.next())["seq"] == (await second.next())["seq"] == 101
            async with stage.client(phone=True) as third:
                assert third.welcome["phone"] is True
                assert (await first.next())["data"] == {"phone": False, "tabs": 3}
                assert (await second.next())["data"] == {"phone": False, "tabs": 3}
            assert (await first.next())["data"] == {"phone": True, "tabs": 2}
            assert (await second.next())["data"] == {"phone": False, "tabs": 2}
        assert (await first.next())["data"] == {"phone": True, "tabs": 1}


async def test_a_newer_claim_replaces_the_older_phone_and_spares_the_tabs(stage: Stage) -> None:
    async with stage.client() as tab, stage.client(phone=True) as old:
        async with stage.client(phone=True) as new:
            assert new.welcome["phone"] is True
            assert (await old.closed())[0] == 4409
            assert (await tab.ask("ping"))["ok"] is True
        async with stage.client("ben-token", phone=True) as ben:
            assert ben.welcome["tabs"] == 1


async def test_too_many_clients_of_one_agent_are_refused(stage: Stage) -> None:
    async with asyncio.timeout(20):
        clients = [stage.client() for _ in range(16)]
        for client in clients:
            await client.__aenter__()
        async with stage.plain() as one_more:
            await one_more.send(op="hello", id="1", token="anna-token")
            assert (await one_more.closed())[0] == 4403
        for client in reversed(clients):
            await client.__aexit__(None, None, None)
    await eventually(lambda: len(stage.hub) == 0)


# ------------------------------------------------------------------------------------ tokens and time


async def test_an_expiring_token_is_announced_can_be_renewed_and_ends(stage: Stage) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    stage.tokens["short"] = Ticket(ANNA, soon)
    stage.tokens["long"] = Ticket(ANNA, soon + timedelta(hours=1))
    async with stage.client("short") as anna:
        notice = await anna.until("token_expiring")
        assert datetime.fromisoformat(notice["data"]["at"]) == soon
        assert (await anna.ask("auth.renew", id="1", token="ben-token"))["error"]["code"] == "forbidden"
        assert (await anna.ask("auth.renew", id="2", token="no"))["error"]["code"] == "not_authenticated"
        assert (await anna.ask("auth.renew", id="3", token="long"))["ok"] is True
        next(iter(stage.hub)).grant = Ticket(ANNA, datetime.now(UTC))
        code, reason = await anna.closed()
        assert code == 4401
        assert "expired" in reason


async def test_a_revoked_user_is_out_within_seconds(stage: Stage) -> None:
    async with stage.client() as anna, stage.client("ben-token") as ben:
        stage.revoked.add("anna")
        assert (await anna.closed())[0] == 4401
        stage.hub.close("ben", reason="disabled by the administrator")
        assert await ben.closed() == (4401, "disabled by the administrator")
    assert len(stage.hub) == 0


async def test_renewing_with_other_rights_shows_the_new_view(stage: Stage) -> None:
    promoted = Actor(login="anna", name="Anna Berg", role=ROOT.role)
    stage.tokens["promoted"] = Ticket(promoted)
    async with stage.client() as anna:
        stage.topics["anna"] = frozenset({"admin"})
        await anna.send(op="auth.renew", id="1", args={"token": "promoted"})
        assert (await anna.next())["agent"]["role"] == "admin"
        assert (await anna.next())["type"] == "snapshot"


async def test_the_silent_are_pinged_then_dropped_and_answerers_stay() -> None:
    stage = Stage(heartbeat=0.3)
    async with stage.serve(), stage.client() as anna, aiohttp.ClientSession() as http:
        mute = await http.ws_connect(stage.url + "/ws", protocols=("cti.v1",), autoping=False)
        await mute.send_str('{"op":"hello","id":"1","token":"ben-token"}')
        await eventually(lambda: len(stage.hub) == 2)
        reader = asyncio.create_task(anna.closed(60))
        await eventually(lambda: stage.hub.counts.silent == 1)
        assert [session.actor.login for session in stage.hub] == ["anna"]
        assert not reader.done()
        reader.cancel()
        await mute.close()


async def test_stopping_sends_everybody_1012_to_come_back(stage: Stage) -> None:
    async with stage.client() as anna, stage.client("ben-token") as ben:
        stop = asyncio.create_task(stage.websocket.stop())
        goodbye = Goodbye.model_validate(await anna.until("goodbye"))
        assert goodbye.come_back
        assert (await anna.closed())[0] == 1012
        assert (await ben.closed())[0] == 1012
        await stop
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with stage.plain():
                pass
        assert refused.value.status == 503


def test_the_table_of_close_codes_is_the_promised_one() -> None:
    assert sorted(CLOSE_CODES) == [1012, 4400, 4401, 4403, 4408, 4409]


# ----------------------------------------------------------------------------------------- hostile


HOSTILE = {
    "not json": b"{",
    "empty": b"",
    "not an object": b"[1,2]",
    "a number": b"1" * 500,
    "a million deep": b"[" * 60_000,
    "1000 levels": b'{"op":"ping","id":"1","args":' + b'{"a":' * 1000 + b"1" + b"}" * 1001,
    "50 levels": b'{"op":"ping","id":"1","args":' + b'{"a":' * 50 + b"1" + b"}" * 51,
    "invalid utf-8": b'{"op":"ping","id":"\xff\xfe"}',
    "lone surrogate": b'{"op":"ping","id":"\\ud800"}',
    "nul": b'{"op":"ping","id":"\\u0000"}',
    "huge int": b'{"op":"ping","id":"1","args":{"n":' + b"9" * 400 + b"}}",
    "too large": b'{"op":"ping","id":"' + b"a" * 70_000 + b'"}',
}


def raw_frame(payload: bytes, opcode: int = 1, fin: bool = True) -> bytes:
    """A client's frame, masked with zeroes."""
    size = len(payload)
    first = (0x80 if fin else 0) | opcode
    if size < 126:
        return struct.pack("!BB", first, 0x80 | size) + b"\0\0\0\0" + payload
    if size < 1 << 16:
        return struct.pack("!BBH", first, 0x80 | 126, size) + b"\0\0\0\0" + payload
    return struct.pack("!BBQ", first, 0x80 | 127, size) + b"\0\0\0\0" + payload


@pytest.mark.parametrize("greeted", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_frames_close_with_4400_and_a_reason(stage: Stage, name: str, greeted: bool) -> None:
    async with stage.client() as witness:
        async with stage.client("ben-token") if greeted else stage.plain() as bad:
            transport = bad.ws._conn.transport if bad.ws._conn else None
            assert transport is not None
            transport.write(raw_frame(HOSTILE[name]))
            code, reason = await bad.closed()
            assert code == 4400, reason
            assert reason
        assert (await witness.ask("ping"))["ok"] is True
    await eventually(lambda: len(stage.hub) == 0)


@pytest.mark.parametrize(
    "raw",
    [
        raw_frame(b"{}", opcode=2),
        raw_frame(b"{}", opcode=0),
        raw_frame(b"{}", opcode=3),
        b"\xf1\x80\0\0\0\0",
        raw_frame(b"x" * 126, opcode=9),
        raw_frame(b"a" * 40_000, fin=False) + raw_frame(b"a" * 40_000, opcode=0),
    ],
    ids=["binary", "continuation of nothing", "reserved opcode", "reserved bits", "long ping", "many parts"],
)
async def test_frames_against_the_rfc_close_with_4400(stage: Stage, raw: bytes) -> None:
    async with stage.client() as bad:
        bad.ws._conn.transport.write(raw)  # type: ignore[union-attr]
        assert (await bad.closed())[0] == 4400
    await eventually(lambda: len(stage.hub) == 0)


async def test_a_flood_is_answered_with_rate_limited_then_closed(stage: Stage) -> None:
    async with stage.client() as anna, stage.client("ben-token") as flood:
        for n in range(1500):
            await flood.send(op="nonsense", id=str(n))
            if flood.ws.closed:
                break
        codes = set()
        while True:
            try:
                frame = await flood.next()
            except ConnectionError:
                break
            if frame["type"] == "result":
                codes.add(frame["error"]["code"])
        assert "rate_limited" in codes
        assert flood.ws.close_code == 4400
        assert (await anna.ask("ping"))["ok"] is True


async def test_a_client_that_never_reads_is_closed_with_4408_and_memory_stays_flat() -> None:
    stage = Stage(buffer=1 << 16)
    async with stage.serve(), stage.client() as anna:
        host, port = stage.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: cti.v1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(raw_frame(b'{"op":"hello","id":"1","token":"ben-token"}'))
        await eventually(lambda: len(stage.hub) == 2)
        deaf = next(session for session in stage.hub if session.actor.login == "ben")
        for _ in range(3000):
            stage.bus.publish([all_know("z" * 4000)])
            assert deaf.wire.get_write_buffer_size() < (1 << 16) + 16_000
            assert (await anna.next())["type"] == "pbx.status_changed"
            if deaf.closed:
                break
        assert deaf.closed is CLOSE_CODES[4408]
        assert [session.actor.login for session in stage.hub] == ["anna"]
        await eventually(lambda: deaf.wire.get_write_buffer_size() == 0)  # aborted after the grace time
        writer.transport.abort()


async def test_a_merely_slow_client_reads_its_4408_and_resumes() -> None:
    stage = Stage(buffer=1 << 18)
    async with stage.serve(), stage.client() as slow:
        session = next(iter(stage.hub))
        sent = 0
        while not session.closed:  # all in one turn of the loop: the client cannot read meanwhile
            stage.bus.publish([all_know("z" * 4000)])
            sent += 1
        last, code = 0, 0
        try:
            while True:
                last = (await slow.next()).get("seq", last)
        except ConnectionError:
            code = slow.ws.close_code or 0
        assert code == 4408
        async with stage.client(resume={"epoch": slow.welcome["epoch"], "seq": last}) as again:
            assert again.welcome["resumed"] is True
            assert (await again.next())["seq"] == last + 1


async def test_a_snapshot_larger_than_the_buffer_does_not_close_its_client() -> None:
    stage = Stage(buffer=1 << 14, padding="s" * 3_000_000)
    async with stage.serve(), stage.plain() as client:
        await client.send(op="hello", id="1", token="anna-token")
        await eventually(lambda: len(stage.hub) == 1)
        stage.bus.publish([all_know()])
        assert (await client.next())["type"] == "welcome"
        assert (await client.next())["type"] == "snapshot"
        assert (await client.next())["seq"] == 101


async def test_a_connection_cut_in_mid_frame_leaves_nothing_behind(stage: Stage) -> None:
    async with stage.client() as anna:
        anna.ws._conn.transport.write(raw_frame(b'{"op":"ping","id":"1"}')[:9])  # type: ignore[union-attr]
        anna.ws._conn.transport.abort()  # type: ignore[union-attr]
        await eventually(lambda: len(stage.hub) == 0)
    stage.bus.publish([all_know()])
    assert stage.bus.failures == 0


async def test_one_broken_wire_does_not_keep_the_fact_from_the_others(stage: Stage) -> None:
    class Broken:
        def write(self, data: bytes) -> None:
            raise OSError("gone")

        def get_write_buffer_size(self) -> int:
            return 0

        def is_closing(self) -> bool:
            return False

        def abort(self) -> None: ...

    async with stage.client() as anna, stage.client("ben-token") as ben:
        next(session for session in stage.hub if session.actor.login == "anna").wire = Broken()
        stage.bus.publish([all_know()])
        assert (await ben.next())["seq"] == 101
        assert stage.bus.failures == 0
        assert stage.hub.counts.failed == 1
        del anna


@pytest.mark.parametrize(
    "raw",
    [
        *(b"NaN", b"[-Infinity]", b"1e999", b"1" * 400, b"1" * 5000, b'{"a":[-%d]}' % (1 << 64)),
        *(b'"\\ud800"', b'"\\ud83dx"', b'"\xff"', b'"a\nb"'),
        *(b"", b"[1] x", b"\xef\xbb\xbf[]", b"[" * 100_000),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_what_is_no_json_for_the_frames_is_refused_in_one_way(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_json(raw)


def test_long_digits_in_texts_and_the_largest_numbers_are_taken() -> None:
    assert read_json(b'{"a":[%d,"%s"]}' % ((1 << 64) - 1, b"1" * 40)) == {"a": [(1 << 64) - 1, "1" * 40]}
