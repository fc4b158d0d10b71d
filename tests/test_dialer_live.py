"""Campaigns on a real Asterisk: from a row in the database to a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.centre import Centre
from tests.dialer_house import all_campaigns_stop, at_work, campaign, dialing_house, ended, number

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    asterisk_installation: Installation, postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Centre]:
    async with dialing_house(
        asterisk_installation, postgres_server, tmp_path_factory.mktemp("dialer")
    ) as centre:
        yield centre


@pytest_asyncio.fixture(loop_scope="module")
async def centre(house: Centre) -> AsyncIterator[Centre]:
    yield house
    await all_campaigns_stop(house)
    await house.quiet()


async def test_each_contact_is_called_once_and_talks(centre: Centre) -> None:
    await at_work(centre, "anna")
    wanted = {
        number("human", 0, 1): "connected",
        number("human", 1, 2): "connected",
        number("busy"): "busy",
        number("unknown"): "invalid_number",
        number("silent"): "no_answer",
    }
    id = await campaign(centre, list(wanted))
    rows = await ended(centre, id, 5)
    assert {row["e164"]: row["outcome"] for row in rows} == wanted
    assert len(rows) == 5
