"""Every command about a call, by a table of what it is answered where it cannot be done; and what needs the right
`system` in AMI: recording begun by command, phones answered from the screen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cti import users
from cti.database import connection
from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.call_commands_table import DONE, FAMILIES, NOT_ASKED, TABLE, Row
from tests.call_desk import ANNA, BEN, TRUNK, become, consulting, in_talk, put_rules, refused, states
from tests.centre import CHECKOUT, Centre, Refusal, Screen, centre_of
from tests.conftest import SCENARIOS, Sipp
from tests.sip_party import Conduct, Party

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCS = CHECKOUT / "docs"


async def tidied(centre: Centre) -> None:
    """Between two tests: nobody is held to have asked too much in the one before."""
    await centre.quiet()
    centre._server.commands._buckets.clear()


TIDIED = tidied


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    async with centre_of(asterisk_installation, postgres_server, server=False) as centre:
        centre.main.update(
            username=centre.pbx.admin_username,
            secret=centre.pbx.admin_secret,
            recordings_seen_at=str(centre.pbx.run_dir / "spool" / "monitor"),
            auto_answer=True,
        )
        async with connection(centre.dsn, name="test") as db:
            await users.set_interface(db, "sara", "main", "PJSIP/1109")
        await centre.start_server()
        yield centre


async def test_a_recording_is_known_after_a_restart(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    started = asyncio.create_task(anna.ask("recording.start", call=call))
    await anna.until(lambda: anna.picture.calls[call]["data"].get("recording") == "starting")
    await anna.ask("call.hold", call=call)  # does not wait for the first sound in the file
    assert anna.picture.calls[call]["data"]["recording"] == "starting"
    await anna.ask("call.retrieve", call=call)
    await started

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


# ------------------------------------------------------------------------------------------ each command


async def told(screen: Screen, row: Row, call: str, **more: Any) -> str:
    """What a command is answered with: a code, or that it was done. Who asks too much in a second asks again, as told."""
    args = {**row.args, **more}
    if row.op not in ("call.make", "supervisor.stop"):
        args["call"] = call
    if "party" in args:
        shown = screen.picture.calls.get(call, {"connections": []})["connections"]
        args["party"] = next((c["id"] for c in shown if c["device"] == args["party"]), "main:1.1")
    while True:
        try:
            await screen.ask(row.op, **args)
        except Refusal as refusal:
            said = refusal
        else:
            return DONE
        assert len(said.message) > 15, said
        if said.code != "rate_limited":
            return said.code
        await asyncio.sleep(0.1)


async def all_told(screens: dict[str, Screen], call: str, column: str, **more: Any) -> None:
    """Ask everything that has something in this column of the table, and compare; `screens`: who asks, by family."""
    wrong = []
    for row in TABLE:
        wanted = getattr(row, column)
        if wanted != NOT_ASKED:
            screen = screens.get(row.op.partition(".")[0]) or screens["call"]
            given = {"agent": "anna"} if wanted == "not_your_agent" else {}
            answer = await told(screen, row, call, **given)
            if answer != wanted:
                wrong.append(f"{row.op}: {answer} instead of {wanted}")
    assert not wrong, "\n".join(wrong)


async def test_every_command_about_a_call_has_its_row(centre: Centre) -> None:
    ops = {command.op for command in centre._server.commands if command.op.startswith(FAMILIES)}
    assert ops == {row.op for row in TABLE}
    assert len(TABLE) == len(ops)
    documents = "".join(
        (DOCS / name).read_text() for name in ("call-control.md", "protocol.md", "supervisors.md")
    )
    codes = {
        getattr(row, column) for row in TABLE for column in ("others", "alone", "over", "down", "again")
    } - {DONE, NOT_ASKED}
    assert [code for code in codes if f"`{code}`" not in documents] == []


async def test_what_was_written_and_shown_of_a_call(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    ben = await centre.screen("ben")
    (pop,) = anna.picture.pops
    for screen in (ben, anna):  # somebody else's; of a call that is still on
        assert not (await screen.ask("pop.dismiss", pop=pop))["dismissed"]
    note = await anna.ask("call.note", call=call, text="Wants it on Monday")
    given = {"note": note["id"], "version": note["version"], "text": "Wants it on Tuesday"}
    assert await refused(ben, "note.edit", **given) == "not_your_note"
    assert (await anna.ask("note.edit", **given))["text"] == "Wants it on Tuesday"
    assert await refused(anna, "note.edit", **given) == "changed_meanwhile"
    assert await refused(anna, "note.edit", **{**given, "note": 1 << 40}) == "unknown_note"
    await anna.ask("call.hangup", call=call)
    assert (await anna.ask("pop.dismiss", pop=pop))["dismissed"]
    assert not (await anna.ask("pop.dismiss", pop=pop))["dismissed"]
    sara = await centre.screen("sara")
    assert {row["team"] for row in (await sara.ask("figures.teams"))["items"]} <= {"sales"}


async def test_in_the_call_of_somebody_else(centre: Centre) -> None:
    _, call, _ = await in_talk(centre)
    ben, sven = await centre.screen("ben"), await centre.screen("sven")
    await all_told({"call": ben, "supervisor": sven}, call, "others")


async def test_after_the_caller_has_left(centre: Centre) -> None:
    anna, call, customer = await in_talk(centre)
    sara = await centre.screen("sara")
    await anna.ask("call.hold", call=call)
    await centre.admin(
        "Setvar", Channel=await centre.channel_of("1101"), Variable="CTI_PARTNER", Value=""
    )  # the phone does not hang up by itself meanwhile
    await centre.hang_up(customer)
    await anna.until(lambda: TRUNK not in states(anna, call), what="the caller gone")
    await all_told({"call": anna}, call, "alone")
    await sara.ask("call.hangup", call=call)
    await anna.wait_for("call.cleared", call=call)
    await all_told({"call": anna, "supervisor": sara}, call, "over")


async def test_while_the_pbx_is_away(centre: Centre) -> None:
    anna, call, _ = await in_talk(centre)
    sara = await centre.screen("sara")
    centre.pbx.freeze()
    try:
        protocol = centre._server.links["main"]._protocol
        assert protocol is not None
        assert protocol.transport is not None
        protocol.transport.abort()
        await anna.wait_for("pbx.status_changed", where=lambda data: data["phase"] != "up")
        await all_told({"call": anna, "supervisor": sara}, call, "down")
    finally:
        centre.pbx.thaw()
    await centre.eventually(lambda: centre._server.switches["main"].synced, what="synced", within=20)
    await sara.ask("call.hold", call=call)
    await sara.ask("call.retrieve", call=call)
    await become(centre, TRUNK, ANNA)


async def test_in_the_wrong_state(centre: Centre) -> None:
    anna, call = await ringing(centre)
    for row in TABLE:
        if row.wrong == "ringing":
            assert await told(anna, row, call) == "wrong_state", row.op
    ben, call, _ = await in_talk(centre, "ben")
    for row in TABLE:
        if row.wrong == "talk":
            assert await told(ben, row, call) == "wrong_state", row.op


async def ringing(centre: Centre) -> tuple[Screen, str]:
    """A customer's call rings at Anna's phone, which nobody answers."""
    await centre.phone("1101", mode="silent")
    anna = await centre.screen("anna")
    await centre.log_on(anna)
    await centre.call("sales", talk=60)
    return anna, (await anna.wait_for("call.delivered", agent="anna"))["data"]["call"]


async def three(anna: Screen, call: str, state: str) -> None:
    """Wait until customer, Anna and Ben are in the call: the customer as given, the others through."""
    wanted = {TRUNK: state, ANNA: "connected", BEN: "connected"}
    await anna.until(lambda: states(anna, call) == wanted, what="the three of them")


@pytest.mark.parametrize("scene", dict.fromkeys(row.at for row in TABLE))
async def test_the_same_command_twice(centre: Centre, sipp: Sipp, scene: str) -> None:
    """Done, and then asked once more: it is not done twice, or does no harm."""
    call = ""
    if scene == "ringing":
        screen, call = await ringing(centre)
    elif scene == "a phone that honours talk":
        screen = await centre.screen("finn")
        await centre.log_on(screen)
        sipp.play(centre.pbx, SCENARIOS / "uas_talk.xml", host="127.0.0.1", port=centre.pbx.uas_port)
        await centre.call("billing", talk=60)
        call = (await screen.wait_for("call.delivered", agent="finn"))["data"]["call"]
    elif scene == "no call":
        screen = await centre.screen("anna")
    elif scene in ("conference", "completion"):
        screen, _, call, _ = await consulting(centre)
    else:
        screen, call, _ = await in_talk(centre)
    if scene == "supervision":
        screen = await centre.screen("sara")
    if scene == "escalation":
        await put_rules(centre, {"escalations": [{"id": "up", "to": "billing"}]})
        await centre.admin("QueueAdd", Queue="billing", Interface="PJSIP/1112")
        await centre.phone("1112", mode="silent")
        known = centre._server.switches["main"].queues
        await centre.eventually(lambda: known.members("main:billing"), what="somebody at work there")
    try:
        for row in TABLE:
            if row.at != scene:
                continue
            if row.op == "call.alternate":
                await three(screen, call, "hold")
            elif row.op == "conference.mute":
                await three(screen, call, "connected")
            elif row.op == "conference.add":
                await become(centre, TRUNK, ANNA)
            first = await told(screen, row, call)
            assert first == (row.again if scene == "a desk phone" else DONE), (row.op, first)
            if row.op == "call.make":
                call = next(iter(screen.picture.calls))
            again = await told(screen, row, call)
            assert again == row.again, (row.op, again)
    finally:
        if scene == "escalation":
            await centre.admin("QueueRemove", Queue="billing", Interface="PJSIP/1112")
    if scene == "talk":
        (file,) = Path(centre.main["recordings_seen_at"]).glob(
            f"*{call.rpartition('.')[0].rpartition(':')[2]}*.wav"
        )
        assert file.stat().st_size > 1000
        assert "recording" not in screen.picture.calls[call]["data"]
