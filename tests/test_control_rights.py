"""What needs the right `system` in AMI: recording begun by command, phones answered from the screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.call_desk import in_talk, refused
from tests.centre import Centre, Screen, centre_of
from tests.conftest import SCENARIOS, Sipp
from tests.sip_party import Conduct, Party

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    async with centre_of(asterisk_installation, postgres_server, server=False) as centre:
        centre.main.update(
            username=centre.pbx.admin_username,
            secret=centre.pbx.admin_secret,
            recordings_seen_at=str(centre.pbx.run_dir / "spool" / "monitor"),
            auto_answer=True,
        )
        await centre.start_server()
        yield centre


async def test_recording_with_a_pause(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    folder = Path(centre.main["recordings_seen_at"])
    answer = await anna.ask("recording.start", call=call)
    assert answer["view"]["data"]["recording"] == "on"
    assert await refused(anna, "recording.start", call=call) == "wrong_state"
    (file,) = folder.glob("*.wav")
    await anna.ask("recording.pause", call=call)
    assert await refused(anna, "recording.pause", call=call) == "wrong_state"
    assert anna.picture.calls[call]["data"]["recording"] == "paused"
    await anna.ask("recording.resume", call=call)
    await anna.ask("recording.stop", call=call)
    assert "recording" not in anna.picture.calls[call]["data"]
    assert file.stat().st_size > 1000
    assert await refused(anna, "recording.stop", call=call) == "wrong_state"


async def test_a_recording_is_known_after_a_restart(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    await anna.ask("recording.start", call=call)

    async def restarted(shown: str | None) -> Screen:
        await centre.stop_server()
        await centre.start_server()
        await anna.close()
        screen = await centre.screen("anna")
        await screen.until(
            lambda: screen.picture.calls[call]["data"].get("recording") == shown, what=f"recording {shown}"
        )
        return screen

    anna = await restarted("on")
    assert await refused(anna, "recording.start", call=call) == "wrong_state"
    await anna.ask("recording.pause", call=call)
    anna = await restarted("paused")
    assert await refused(anna, "recording.pause", call=call) == "wrong_state"
    folder = Path(centre.main["recordings_seen_at"])
    (newest,) = sorted(folder.glob("*.wav"), key=lambda file: file.stat().st_mtime)[-1:]
    await anna.ask("recording.resume", call=call)
    anna = await restarted("on")
    await anna.ask("recording.stop", call=call)
    size = newest.stat().st_size
    assert size > 1000
    anna = await restarted(None)
    assert await refused(anna, "recording.stop", call=call) == "wrong_state"
    assert newest.stat().st_size == size  # it has really ended
    await anna.ask("recording.start", call=call)
    await anna.as_told()


async def test_a_recording_that_cannot_be_written_is_reported(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    folder = Path(centre.main["recordings_seen_at"])
    mode = folder.stat().st_mode
    moved = folder.rename(folder.with_name("elsewhere"))
    folder.write_text("in the way")
    try:
        assert await refused(anna, "recording.start", call=call) == "recording_failed"
    finally:
        folder.unlink()
        moved.rename(folder)
        folder.chmod(mode)
    assert "recording" not in anna.picture.calls[call]["data"]


# ------------------------------------------------------------------------------------------ answering


async def test_a_phone_that_honours_talk_is_answered_from_the_screen(centre: Centre, sipp: Sipp) -> None:
    finn = await centre.screen("finn")
    await centre.log_on(finn)
    sipp.play(centre.pbx, SCENARIOS / "uas_talk.xml", host="127.0.0.1", port=centre.pbx.uas_port)
    await centre.call("billing", talk=60)
    call = (await finn.wait_for("call.delivered", agent="finn"))["data"]["call"]
    answer = await finn.ask("call.answer", call=call)
    assert {c["state"] for c in answer["view"]["connections"]} == {"connected"}
    assert await refused(finn, "call.answer", call=call) == "wrong_state"


async def test_click_to_dial_asks_the_phone_to_answer_by_itself(centre: Centre) -> None:
    phone = await Party("127.0.0.1", centre.pbx.uas_port, (centre.pbx.host, centre.pbx.sip_port)).open()
    phone.conduct["1003"] = Conduct(rings=0.2)
    finn = await centre.screen("finn")
    answer = await finn.ask("call.make", to="1102")
    (leg,) = phone.arrived
    assert leg.request is not None
    assert "answer-after=0" in leg.request["call-info"]
    await finn.ask("call.hangup", call=answer["call"])
    await phone.close()


async def test_a_phone_that_does_not_answer_by_itself(centre: Centre) -> None:
    await centre.phone("1101", mode="silent")
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    await centre.call("sales", talk=60)
    call = (await anna.wait_for("call.delivered", agent="anna"))["data"]["call"]
    assert await refused(anna, "call.answer", call=call) in ("phone_did_not_answer", "caller_gone")
