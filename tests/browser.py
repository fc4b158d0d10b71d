"""A real browser for tests: headless Chromium with a microphone that beeps, and the page /phone in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    ViewportSize,
    async_playwright,
)

from cti.rest.phone import PAGE
from tests.centre import PASSWORD, Centre
from tests.conftest import NO_BROWSER, required

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
SCREEN: ViewportSize = {"width": 1280, "height": 800}
PLACES = ("chromium", "chromium-browser", "google-chrome")


def chromium_program() -> str:
    """The browser of this machine; skips the test, loudly, where there is none, or where the page was not built."""
    named = os.environ.get("CTI_CHROMIUM") or next(filter(None, map(shutil.which, PLACES)), None)
    why = ""
    if named is None:
        why = "Chromium is missing (Debian: apt-get install chromium)"
    elif not (PAGE / "phone.js").is_file():
        why = "the page was not built (Debian: apt-get install nodejs npm, then make setup)"
    if why:
        if required("CTI_REQUIRE_BROWSER"):
            pytest.fail(f"{NO_BROWSER}{why}", pytrace=False)
        pytest.skip(f"{NO_BROWSER}{why}")
    assert named is not None
    return named


@contextlib.asynccontextmanager
async def browser_of(
    playwright: Playwright, program: str, *, microphone: bool = True
) -> AsyncIterator[Browser]:
    """A browser whose user always allows the microphone, or never."""
    allows = "--use-fake-ui-for-media-stream" if microphone else "--use-fake-ui-for-media-stream=deny"
    browser = await playwright.chromium.launch(executable_path=program, args=[*FLAGS, allows])
    try:
        yield browser
    finally:
        await browser.close()


@contextlib.asynccontextmanager
async def a_browser() -> AsyncIterator[tuple[Playwright, Browser]]:
    """Playwright, and a browser with a microphone."""
    program = chromium_program()
    async with async_playwright() as playwright, browser_of(playwright, program) as browser:
        yield playwright, browser


class PhonePage:
    """The page /phone as its agent uses it."""

    def __init__(self, centre: Centre, page: Page, login: str) -> None:
        self.centre = centre
        self.page = page
        self.login = login
        self.faults: list[str] = []
        page.on(
            "dialog", lambda dialog: asyncio.ensure_future(dialog.accept())
        )  # leave, in the middle of a call
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on(
            "console",
            lambda said: self.faults.append(said.text) if said.type == "error" else None,
        )

    async def open(self) -> None:
        """Go there and log in, if nobody is logged in yet."""
        await self.page.goto(f"{self.centre.url}/phone")
        await self.page.wait_for_selector("#log-in:visible, #desk:visible")
        if await self.page.is_visible("#log-in"):
            await self.page.fill("#login", self.login)
            await self.page.fill("#password", PASSWORD)
            await self.page.press("#password", "Enter")

    async def registered(self, within: float = 20.0) -> None:
        """Wait until it says that it is the phone."""
        await self.shows("#line", "You are the phone", within)

    async def shows(self, where: str, text: str, within: float = 15.0) -> None:
        """Wait until an element shows this text."""
        await self.until(lambda: self.said(where), lambda said: text in said, f"{where}: {text}", within)

    async def said(self, where: str) -> str:
        """What an element shows; "" if it is hidden."""
        shown = self.page.locator(where)
        return await shown.inner_text() if await shown.is_visible() else ""

    async def press(self, button: str) -> None:
        """Press a button by its name."""
        await self.page.get_by_role("button", name=button, exact=True).click()

    async def until(
        self, look: Callable[[], Any], true: Callable[[Any], bool], what: str, within: float = 15.0
    ) -> Any:
        """Wait until what is looked at is as it should be."""
        deadline = time.monotonic() + within
        while not true(seen := await look()):
            if time.monotonic() > deadline:
                whole = await self.page.inner_text("body")
                raise AssertionError(
                    f"{self.login}: not {what}; it is {seen!r}. The page:\n{whole}\n{self.faults}"
                )
            await asyncio.sleep(0.05)
        return seen

    async def traffic(self) -> dict[str, int]:
        """Bytes of sound so far."""
        told: dict[str, int] | None = await self.page.evaluate("ctiPhoneTraffic()")
        return told or {"received": 0, "sent": 0}

    async def hears_and_is_heard(self, within: float = 10.0) -> None:
        """Wait until sound has come and gone since now."""
        before = await self.traffic()
        await self.until(
            self.traffic,
            lambda now: now["received"] > before["received"] + 500 and now["sent"] > before["sent"] + 500,
            f"sound both ways (from {before})",
            within,
        )


@contextlib.asynccontextmanager
async def phone_page(centre: Centre, where: Browser | BrowserContext, login: str) -> AsyncIterator[PhonePage]:
    """The page, opened and logged in: in a browser as somebody else has it, or in one where somebody may be logged in."""
    own = await where.new_context(viewport=SCREEN) if isinstance(where, Browser) else where
    page = await own.new_page()
    try:
        phone = PhonePage(centre, page, login)
        await phone.open()
        yield phone
    finally:
        await page.close()
        if own is not where:
            await own.close()
