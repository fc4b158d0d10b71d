"""An agent whose phone is the browser: the real page in Chromium, a real Asterisk, the real server, sound both ways."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Playwright

from cti import users
from cti.control.taking_up import SILENT
from cti.database import connection
from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from cti.phone_passwords import set_phone_password
from tests.browser import SCREEN, PhonePage, a_browser, browser_of, chromium_program, phone_page
from tests.call_desk import ANNA, TRUNK, alone, apps, become
from tests.centre import BRISK, CHECKOUT, KEY, Centre, Refusal, Screen, centre_of
from tests.conftest import SCENARIOS, Sipp

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMIL = "PJSIP/1004"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_browser() -> AsyncIterator[tuple[Playwright, Browser]]:
    async with a_browser() as both:
        yield both


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_centre(
    the_browser: tuple[Playwright, Browser], asterisk_installation: Installation, postgres_server: Postgres
) -> AsyncIterator[Centre]:
    brisk = replace(BRISK, ring_seconds=12)
    reasons = ["Break", {"name": "Lunch", "paid": False, "limit": 30}, {"name": "Cigarette", "limit": 0.01}]
    async with centre_of(
        asterisk_installation, postgres_server, behaviour=brisk, server=False, not_ready_reasons=reasons
    ) as centre:
        centre.main["phone_url"] = f"ws://127.0.0.1:{centre.pbx.http_port}/ws"
        async with connection(centre.dsn, name="test") as db:
            await users.set_interface(db, "emil", "main", EMIL)
            await set_phone_password(db, KEY.encode(), "emil", "main", f"{centre.pbx.phone_secret}1004")
        await centre.start_server()
        yield centre


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(the_browser: tuple[Playwright, Browser]) -> AsyncIterator[BrowserContext]:
    """The browser of one person: whoever is logged in there stays so."""
    context = await the_browser[1].new_context(viewport=SCREEN)
    yield context
    await context.close()


class Tab:
    """Emil's page, which stays open from one test to the next."""

    def __init__(self, centre: Centre, desk: BrowserContext) -> None:
        self._open = functools.partial(phone_page, centre, desk, "emil")
        self._page: PhonePage | None = None
        self._stack = AsyncExitStack()

    async def page(self) -> PhonePage:
        """The page, as after it was loaded: nobody is logged on, no call, nothing has gone wrong."""
        if self._page is None:
            self._page = await self._stack.enter_async_context(self._open())
        await self._page.page.set_viewport_size(SCREEN)
        await self._page.registered()
        await self._page.shows("#state", "Logged off")
        await self._page.shows("#call-title", "No call")
        self._page.faults.clear()
        return self._page

    async def close(self) -> None:
        """Close it; the next who asks gets a new one."""
        self._page = None
        await self._stack.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_tab(the_centre: Centre, desk: BrowserContext) -> AsyncIterator[Tab]:
    tab = Tab(the_centre, desk)
    yield tab
    await tab.close()


@pytest_asyncio.fixture(loop_scope="module")
async def phone(centre: Centre, the_tab: Tab) -> AsyncIterator[PhonePage]:
    """Emil's page, which is the phone."""
    page = await the_tab.page()
    yield page
    assert page.faults == []


@pytest_asyncio.fixture(loop_scope="module")
async def tabs(centre: Centre, the_tab: Tab, desk: BrowserContext) -> BrowserContext:
    """Where Emil opens pages; none is open, and the PBX knows it."""
    await the_tab.close()
    async with asyncio.timeout(10):
        while (await centre.admin("Getvar", Variable=f"DEVICE_STATE({EMIL})"))["Value"] != "UNAVAILABLE":
            await asyncio.sleep(0.05)
    return desk


async def work(centre: Centre, phone: PhonePage) -> Screen:
    """Emil logs on at the page; gives back another client of his."""
    screen = await centre.screen("emil")
    if "Ready" not in await phone.said("#state"):
        await phone.press("Log on")
    await screen.agent_is("ready", within=15)
    return screen


async def rings(centre: Centre, phone: PhonePage, screen: Screen, **caller: Any) -> str:
    """A customer calls; the call's id once the page rings."""
    screen.mark()
    await centre.call("support", talk=120, **caller)
    told = await screen.wait_for("call.delivered", agent="emil", within=15)
    await phone.until(lambda: phone.said("#answer"), bool, "ringing")
    call: str = told["data"]["call"]
    return call


async def talks(centre: Centre, phone: PhonePage) -> tuple[Screen, str]:
    """Emil talks with a customer."""
    screen = await work(centre, phone)
    call = await rings(centre, phone, screen)
    await phone.press("Answer")
    await screen.wait_for("call.established", agent="emil", call=call)
    await phone.hears_and_is_heard()
    return screen, call


def sip_caller(sipp: Sipp, centre: Centre, talk: float) -> None:
    """A caller by SIPp who takes what Asterisk tells of the connected party as an UPDATE."""
    caller = (
        (SCENARIOS / "uac_in.xml")
        .read_text()
        .replace("Max-Forwards: 70", "Allow: INVITE, ACK, BYE, UPDATE\nMax-Forwards: 70", 1)
    )
    scenario = sipp.folder / "caller.xml"
    scenario.write_text(caller)
    who = ("-s", "5550200", "-key", "cnum", "+442071838750", "-key", "cname", "Ada Lovelace")
    sipp.play(centre.pbx, scenario, *who, "-d", str(int(talk * 1000)), "-aa")


async def test_a_call_pops_rings_and_is_answered_in_the_page(
    centre: Centre, phone: PhonePage, sipp: Sipp
) -> None:
    screen = await work(centre, phone)
    sip_caller(sipp, centre, talk=4.0)
    await phone.shows("#call-title", "Ada Lovelace")
    await phone.shows("#number", "+44 20 7183 8750")
    await phone.shows("#timer", "rings")  # the pop is there before
    await phone.until(lambda: phone.said("#answer"), bool, "ringing")
    await phone.page.focus("#answer")
    await phone.page.keyboard.press("Enter")
    told = await screen.wait_for("call.established", agent="emil")
    order = [f["type"] for f in screen.facts()]
    assert order.index("pop.shown") < order.index("call.delivered") < order.index("call.established")
    await become(centre, TRUNK, EMIL)
    await screen.wait_for("call.cleared", call=told["data"]["call"], within=20)  # the caller hangs up
    await phone.shows("#call-title", "No call")
    await screen.agent_is("ready")


async def test_any_client_answers_holds_mutes_and_hangs_up(centre: Centre, phone: PhonePage) -> None:
    screen = await work(centre, phone)
    call = await rings(centre, phone, screen)
    status, answer = await centre.rest("POST", "/api/v1/commands/call.answer", "emil", json={"call": call})
    assert status == 200, answer
    assert {c["device"]: c["state"] for c in answer["data"]["view"]["connections"]} == {
        TRUNK: "connected",
        EMIL: "connected",
    }
    await phone.hears_and_is_heard()
    heard = await centre.admin(
        "Getvar", Channel=await centre.channel_of("1004"), Variable="CHANNEL(rtp,dest)"
    )
    assert heard["Value"].startswith("127.0.0.1") or heard["Value"], heard
    await screen.ask("call.hold", call=call)
    assert (await apps(centre))[TRUNK] == "MusicOnHold"
    await phone.until(lambda: phone.said("#hold"), lambda said: said == "Retrieve", "shown as held")
    await phone.press("Retrieve")
    await phone.until(lambda: phone.said("#hold"), lambda said: said == "Hold", "retrieved")
    await become(centre, TRUNK, EMIL)
    await screen.ask("call.mute", call=call, muted=True)
    await phone.shows("#mute", "Unmute")
    await screen.ask("call.mute", call=call, muted=False)
    await phone.until(lambda: phone.said("#mute"), lambda said: said == "Mute", "not muted")
    await screen.ask("call.dtmf", call=call, digits="12#")
    await phone.press("Keypad")
    await phone.press("5")
    await phone.page.keyboard.press("Escape")
    await screen.ask("call.hangup", call=call)
    await phone.shows("#call-title", "No call")
    await alone(centre, EMIL)


async def test_held_by_the_phone_itself_and_retrieved_from_elsewhere(
    centre: Centre, phone: PhonePage
) -> None:
    screen, call = await talks(centre, phone)
    await phone.page.evaluate("ctiPhoneHold(true)")
    await screen.wait_for("call.held", call=call, by="phone")
    answer = await screen.ask("call.retrieve", call=call)
    assert {c["state"] for c in answer["view"]["connections"]} == {"connected"}
    await phone.press("Hang up")
    await screen.wait_for("call.cleared", call=call)


async def test_consult_complete_and_transfer(centre: Centre, phone: PhonePage) -> None:
    screen, call = await talks(centre, phone)
    anna = await centre.screen("anna")
    await screen.ask("call.consult", call=call, to_agent="anna")
    await anna.wait_for("call.established", call=call, agent="anna")
    await phone.hears_and_is_heard()
    await screen.ask("call.cancel", call=call)
    await become(centre, TRUNK, EMIL)
    await screen.ask("call.transfer", call=call, to_agent="anna")
    await phone.shows("#call-title", "No call")
    await become(centre, TRUNK, ANNA)


async def test_a_call_made_at_the_page_is_taken_there_by_itself(centre: Centre, phone: PhonePage) -> None:
    screen = await centre.screen("emil")
    await phone.page.fill("#to", "1101")
    await phone.press("Call")
    await screen.wait_for("call.established", agent="emil", within=15)
    await become(centre, EMIL, ANNA)
    await phone.shows("#call-title", "Anna Berg")  # who was called, not who calls
    await phone.hears_and_is_heard()
    await phone.press("Hang up")
    await alone(centre, EMIL)


async def test_a_page_loaded_again_in_a_call_takes_it_up(centre: Centre, phone: PhonePage) -> None:
    screen, call = await talks(centre, phone)
    before = await centre.channel_of("1004")
    await phone.page.reload()
    screen.mark()
    await screen.wait_for("call.established", agent="emil", call=call, within=20)
    await become(centre, TRUNK, EMIL)
    await phone.hears_and_is_heard()
    assert await centre.channel_of("1004") != before
    assert call in screen.picture.calls


async def test_a_tab_closed_in_a_call_keeps_the_caller_for_the_next_one(
    centre: Centre, tabs: BrowserContext
) -> None:
    async with phone_page(centre, tabs, "emil") as page:
        await page.registered()
        screen, call = await talks(centre, page)
    # nobody talks into a dead line, and no screen says that Emil talks
    await screen.agent_is("not_ready", reason="Phone unreachable", within=15)
    await alone(centre, EMIL)
    assert (await apps(centre))[TRUNK] == "MusicOnHold"
    screen.mark()
    async with phone_page(centre, tabs, "emil") as again:
        await screen.wait_for("call.established", agent="emil", call=call, within=20)
        await become(centre, TRUNK, EMIL)
        await again.hears_and_is_heard()
        await screen.agent_is("busy", call=call)
        await screen.ask("call.hold", call=call)
        dora = await centre.screen("dora")
        await centre.log_on(dora)
    # and nobody opens it again: the caller goes back to the queue, to the next agent
    await alone(centre, EMIL, within=20)
    waits = [row for row in await centre.channels() if row["Channel"].startswith(TRUNK)]
    assert [row["Exten"] for row in waits] == ["away"]
    await centre.admin("Setvar", Channel=waits[0]["Channel"], Variable="CTI_LOOKS", Value="7")
    await dora.wait_for("call.established", call=call, agent="dora", within=20)
    await dora.ask("call.hangup", call=call)
    assert (await centre.interaction_of(call))["agents"] == ["emil", "dora"]


async def test_a_page_that_lost_the_server_alone_keeps_its_call(centre: Centre, phone: PhonePage) -> None:
    screen, call = await talks(centre, phone)
    screen.mark()
    await phone.page.evaluate(
        "{ const open = WebSocket; window.WebSocket = function (url, how) {"
        " return new open(window.lost ? `${url}/nowhere` : url, how); }; window.lost = true; }"
    )
    seat = centre._server.hub.phone_of("emil")
    assert seat is not None
    seat.wire.abort()
    await phone.shows("#troubles", "No connection to the server")
    await asyncio.sleep(3 * SILENT)  # it has been listened to by then
    await phone.hears_and_is_heard()
    assert not screen.all("call.*")
    await phone.page.evaluate("window.lost = false")
    await phone.until(lambda: phone.said("#troubles"), lambda said: not said, "connected again", 30)
    await screen.ask("call.mute", call=call)
    await phone.shows("#mute", "Unmute")
    phone.faults = [fault for fault in phone.faults if "WebSocket" not in fault]


async def off_hook(centre: Centre, phone: PhonePage) -> Screen:
    """Emil works off-hook: the page has taken the line by itself."""
    screen = await centre.screen("emil")
    await screen.ask("agent.set_off_hook", off_hook=True)
    await phone.press("Log on")
    await screen.agent_is("ready", within=15, lines={"main": "open"})
    await phone.shows("#call-title", "Your line is open")
    return screen


async def next_caller(centre: Centre, screen: Screen) -> str:
    """A customer calls and is through on the line; the call's id."""
    screen.mark()
    await centre.call("support", talk=120)
    told = await screen.wait_for("call.established", agent="emil", within=15)
    call: str = told["data"]["call"]
    return call


async def test_the_open_line_of_an_agent_is_in_the_page(centre: Centre, phone: PhonePage) -> None:
    screen = await off_hook(centre, phone)
    call = await next_caller(centre, screen)
    await phone.shows("#call-title", "Ada Lovelace")
    assert not screen.all("call.delivered")  # nothing rings
    await phone.hears_and_is_heard()
    await screen.ask("call.mute", call=call)
    await phone.shows("#mute", "Unmute")
    await screen.ask("call.mute", call=call, muted=False)
    await phone.press("Hold")
    await phone.until(lambda: phone.said("#hold"), lambda said: said == "Retrieve", "held")
    await screen.ask("call.retrieve", call=call)
    await phone.until(lambda: phone.said("#hold"), lambda said: said == "Hold", "retrieved")
    await phone.press("Hang up")
    await screen.wait_for("call.cleared", call=call)
    await phone.shows("#call-title", "Your line is open")
    await screen.agent_is("ready", lines={"main": "open"})
    await phone.page.fill("#to", "1101")
    await phone.press("Call")
    await become(centre, EMIL, ANNA)
    await phone.press("Hang up")
    await alone(centre, ANNA)
    await screen.agent_is("ready", lines={"main": "open"})
    # loaded again, without a call and in one
    await phone.page.reload()
    await screen.wait_for("agent.line_changed", reason="renewed", within=15)
    await screen.agent_is("ready", within=15, lines={"main": "open"})  # nobody has to ask for it again
    call = await next_caller(centre, screen)
    await phone.hears_and_is_heard()
    screen.mark()
    await phone.page.reload()  # in a call
    await screen.wait_for("call.established", agent="emil", call=call, within=20)
    await phone.hears_and_is_heard()
    await become(centre, TRUNK, "Local/1004@cti-line")
    await phone.press("Hang up")
    await screen.agent_is("ready", within=15, lines={"main": "open"})
    await phone.press("Close the line")
    await screen.agent_is("not_ready", reason="Line closed", lines={})
    await screen.ask("agent.set_off_hook", off_hook=False)


async def test_no_caller_is_put_through_to_a_line_whose_page_was_closed(
    centre: Centre, tabs: BrowserContext
) -> None:
    async with phone_page(centre, tabs, "emil") as page:
        await page.registered()
        screen = await off_hook(centre, page)
        screen.mark()
    told = await screen.wait_for("agent.line_changed", line="closed")
    assert told["data"]["reason"] == "page_gone"
    shown = await screen.agent_is("not_ready", reason="Line closed", lines={})
    assert "page" in shown["why"]
    await alone(centre, EMIL)
    async with phone_page(centre, tabs, "emil") as page:
        await page.registered()
        await page.press("Ready")
        await screen.agent_is("ready", within=15, lines={"main": "open"})
        call = await next_caller(centre, screen)
        await page.hears_and_is_heard()
        screen.mark()
    await screen.agent_is("not_ready", reason="Line closed", lines={}, within=15)
    assert not screen.all("agent.state_changed", agent="emil", new="ready")  # not for a moment
    async with phone_page(centre, tabs, "emil") as page:
        await screen.wait_for("call.established", agent="emil", call=call, within=20)
        await page.hears_and_is_heard()
        await screen.ask("call.hangup", call=call)
        await screen.agent_is("not_ready", lines={"main": "open"})
        await screen.ask("agent.set_off_hook", off_hook=False)


async def test_two_tabs_exactly_one_is_the_phone(
    centre: Centre,
    phone: PhonePage,
    the_tab: Tab,
    desk: BrowserContext,
    the_browser: tuple[Playwright, Browser],
) -> None:
    screen = await work(centre, phone)
    async with phone_page(centre, desk, "emil") as second:
        await second.shows("#troubles", "Another tab is the phone now")
        assert "You are the phone" in await phone.said("#line")
        await second.press("Be the phone here")
        await second.registered()
        await phone.shows("#troubles", "Another tab is the phone now")
        await phone.shows("#line", "Not the phone")
        call = await rings(centre, second, screen)
        assert not await phone.page.is_visible("#answer")
        await screen.ask("call.answer", call=call)
        await second.hears_and_is_heard()
        assert len([c for c in await centre.channels() if c["Channel"].startswith(EMIL)]) == 1
        # somewhere else altogether, in the middle of the call: the call moves there
        async with phone_page(centre, the_browser[1], "emil") as third:
            await third.registered()
            await second.shows("#troubles", "Another tab is the phone now")
            await third.hears_and_is_heard(20)
            await second.until(lambda: second.page.title(), lambda title: title == "Phone", "without a call")
    await the_tab.close()


async def test_a_hostile_caller_name_is_only_text(centre: Centre, phone: PhonePage) -> None:
    """Beside it, in a page of the server's own, the client of the documentation prints the pop as it stands there."""
    screen = await work(centre, phone)
    printed: list[str] = []
    phone.page.on("console", lambda said: printed.append(said.text))
    client = (CHECKOUT / "docs" / "clients" / "client.mjs").read_text()
    await phone.page.evaluate(f"() => {{ {client} }}")
    await centre.eventually(lambda: centre.server.hub.tabs("emil") == 3, what="the client is in")
    hostile = "<img src=x onerror=alert(1)><b>Bob</b>"
    await rings(centre, phone, screen, name=hostile, number="+447700900123")
    await centre.eventually(
        lambda: any("+44 7700 900123 for main:" in line for line in printed), what=lambda: str(printed)
    )
    await phone.shows("#call-title", hostile)
    assert await phone.page.locator("#desk img, #desk b").count() == 0
    assert hostile in await phone.page.title()
    await phone.press("Decline")
    await phone.shows("#call-title", "No call")
    await phone.page.reload()  # without the client


async def test_it_fits_400_pixels_and_needs_no_mouse(centre: Centre, phone: PhonePage) -> None:
    await phone.page.set_viewport_size({"width": 400, "height": 800})
    screen = await work(centre, phone)
    call = await rings(centre, phone, screen, name="Very " * 30 + "Long")
    wide = await phone.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 400
    seen = set()
    for _ in range(12):
        await phone.page.keyboard.press("Tab")
        seen.add(await phone.page.evaluate("document.activeElement.id"))
    assert {"answer", "hang-up", "reason", "log-off", "leave"} <= seen
    await phone.page.focus("#hang-up")
    await phone.page.keyboard.press("Space")
    await screen.wait_for("call.diverted", call=call, reason="busy")
    # why one is not ready, whether that is paid, how long it has lasted and may last
    menu = await phone.page.locator("#reason option").all_inner_texts()
    assert menu == ["Not ready …", "Break", "Lunch (unpaid, 30 min)", "Cigarette (0.01 min)"]
    await phone.page.select_option("#reason", "Lunch")
    await phone.shows("#state", "Not ready: Lunch")
    await phone.until(
        lambda: phone.said("#pause"),
        re.compile(r"^Lunch · unpaid · 0:[0-5]\d of 30:00, 29:[0-5]\d left$").match,
        "time left",
    )
    await screen.ask("agent.not_ready", reason="Break")
    await phone.shows("#pause", "Break · paid · for 0:")
    await screen.ask("agent.not_ready", reason="Cigarette")
    await phone.shows("#pause", "too long")
    assert await phone.page.inner_text("#pause-over") == "Cigarette has lasted longer than 0:00"
    assert await phone.page.evaluate("document.documentElement.scrollWidth") <= 400


async def test_what_cannot_be_done_is_said(
    centre: Centre, tabs: BrowserContext, the_browser: tuple[Playwright, Browser]
) -> None:
    screen = await centre.screen("emil")

    async def refusal(op: str, **args: Any) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await screen.ask(op, **args)
        return caught.value

    async with AsyncExitStack() as stack:
        mute, why = await asyncio.gather(
            stack.enter_async_context(browser_of(the_browser[0], chromium_program(), microphone=False)),
            refusal("call.make", to="1101"),
        )
        assert why.code == "phone_not_open"
        page = await stack.enter_async_context(phone_page(centre, mute, "emil"))
        await page.shows("#troubles", "may not use the microphone")
        await page.shows("#line", "Phone off")
        why = await refusal("call.make", to="1101")
        assert why.code == "phone_not_registered"
        assert "microphone" in why.message
    async with phone_page(centre, tabs, "emil") as page:
        await page.registered()
        await work(centre, page)
        call = await rings(centre, page, screen)
        asleep = await tabs.new_cdp_session(page.page)
        await asleep.send("Debugger.enable")
        await asleep.send("Debugger.pause")
        since = time.monotonic()
        assert (await refusal("call.answer", call=call)).code == "phone_did_not_answer"
        assert time.monotonic() - since < 12
        await asleep.send("Debugger.disable")
        await screen.ask("call.answer", call=call)
        await page.hears_and_is_heard()


async def test_the_password_goes_to_the_agent_alone_and_is_written_down(centre: Centre) -> None:
    status, given = await centre.rest("GET", "/api/v1/me/phone", "emil")
    assert status == 200
    (mine,) = given["phones"]
    assert mine["uri"] == "sip:1004@127.0.0.1"
    assert mine["password"] == f"{centre.pbx.phone_secret}1004"
    assert (await centre.rest("GET", "/api/v1/me/phone", "anna"))[0] == 404
    written = await centre.fetch(
        "SELECT actor, action, detail::text AS detail FROM audit WHERE action LIKE 'phone.%'"
    )
    assert {(row["actor"], row["action"]) for row in written} == {("emil", "phone.password_given")}
    for row in await centre.fetch("SELECT password FROM browser_phones"):
        assert mine["password"].encode() not in row["password"]
    for table in ("audit", "journal"):
        kept = await centre.fetch(
            f"SELECT count(*) AS n FROM {table} t WHERE t::text LIKE '%' || $1 || '%'", mine["password"]
        )
        assert kept[0]["n"] == 0, table


async def test_the_page_registers_again_after_the_pbx_was_restarted(centre: Centre, phone: PhonePage) -> None:
    screen, _ = await talks(centre, phone)
    await asyncio.to_thread(centre.pbx.kill)
    await phone.shows("#line", "PBX not reachable")
    await asyncio.to_thread(centre.pbx.start)
    await phone.registered(30)
    await phone.shows("#call-title", "No call", 30)
    await screen.agent_is("ready", within=30)
    call = await rings(centre, phone, screen)
    await screen.ask("call.answer", call=call)
    await phone.hears_and_is_heard()
    phone.faults = [fault for fault in phone.faults if "WebSocket" not in fault]
