"""The clients in docs/, run as they stand there against the real server: they print the pop of a real call."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.centre import CHECKOUT, Centre, centre_of
from tests.conftest import required

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS = CHECKOUT / "docs" / "clients"
LONGEST = 40
"""Lines: what is to be written in an afternoon fits on a screen."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def centre(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    async with centre_of(asterisk_installation, postgres_server) as made:
        yield made


def node() -> list[str]:
    """How to run JavaScript that has a WebSocket."""
    found = shutil.which("node")
    version = (
        subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
        if found
        else "v0"
    )
    major = int(version.strip().lstrip("v").split(".")[0])
    if found is None or major < 20:
        why = "NO NODE: Node.js 20 or later runs the JavaScript client of the documentation"
        if required("CTI_REQUIRE_NODE"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    return [found, *(["--experimental-websocket"] if major < 22 else [])]


@pytest.mark.parametrize("client", ["client.py", "client.mjs"])
async def test_a_client_from_the_documentation_prints_the_pop_and_comes_back_after_a_restart(
    centre: Centre, client: str, tmp_path: Path
) -> None:
    program = CLIENTS / client
    assert len(program.read_text().splitlines()) <= LONGEST
    run = [sys.executable] if client.endswith(".py") else node()
    (customer,) = await centre.fetch(
        """SELECT p.e164, a.name FROM phones p JOIN accounts a ON a.id = p.account_id
           WHERE p.e164 LIKE '+447%' AND (SELECT count(*) FROM phones q WHERE q.e164 = p.e164) = 1
           ORDER BY p.e164 LIMIT 1"""
    )
    anna = await centre.screen("anna")
    printed = tmp_path / "printed.txt"
    with printed.open("wb") as out:
        process = subprocess.Popen(
            [*run, str(program)],
            env={
                **os.environ,
                "CTI_URL": centre.url.replace("http", "ws") + "/ws",
                "CTI_TOKEN": await centre.token("anna"),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        await centre.eventually(
            lambda: centre.server.hub.tabs("anna") == 2, within=15, what=printed.read_text
        )
        await centre.log_on(anna)
        for round in (1, 2):
            caller = await centre.call(number=customer["e164"])
            call = (await anna.wait_for("call.established", agent="anna"))["data"]["call"]

            def told(times: int = round) -> bool:
                lines = [line for line in printed.read_text().splitlines() if customer["name"] in line]
                return len(lines) >= times and all("main:sales" in line and "+44 7" in line for line in lines)

            await centre.eventually(told, what=printed.read_text())
            await centre.hang_up(caller)
            await anna.wait_for("call.cleared", call=call)
            await anna.agent_is("ready")
            if round == 1:  # a restart of the server, and it is there again
                before = printed.read_text().count(customer["name"])
                await centre.stop_server()
                await anna.gone()
                await centre.start_server()
                await anna.connect()
                anna.mark()
                await centre.eventually(
                    lambda: centre.server.hub.tabs("anna") == 2, within=15, what=printed.read_text
                )
                assert (
                    printed.read_text().count(customer["name"]) <= before + 1
                )  # no pops of calls that are over
        assert process.poll() is None, printed.read_text()
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        await centre.quiet()
