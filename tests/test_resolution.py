"""First-call resolution, by hand: who came back within the days, and who did not."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from crm.resolution import settle
from cti.database import Database
from cti.figures.report import Interval, Range, Resolution, of_agents, of_queues

FIRST = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
ZONE = ZoneInfo("UTC")


@pytest.fixture
async def db(migrated: str) -> AsyncIterator[Database]:
    opened = Database(migrated)
    await opened.open()
    yield opened
    await opened.close()


async def contact(
    db: Database,
    call: str,
    account: int | None,
    started: datetime,
    *,
    outcome: str = "answered",
    direction: str = "inbound",
    agents: tuple[str, ...] = ("anna",),
) -> None:
    await db.pool.execute(
        """INSERT INTO accounts (id, number, name) OVERRIDING SYSTEM VALUE VALUES ($1::bigint, 'A' || $1::bigint, 'x')
           ON CONFLICT DO NOTHING""",
        account or 999,
    )
    await db.pool.execute(
        """INSERT INTO interactions (call, pbx, direction, started, ended, touched, queue, agents, outcome, account_id)
           VALUES ($1, 'main', $2, $3, $3, $3, 'main:sales', $4, $5, $6)""",
        call,
        direction,
        started,
        list(agents),
        outcome,
        account,
    )


async def test_who_came_back_was_not_helped_at_once(db: Database) -> None:
    day = timedelta(days=1)
    await contact(db, "a1", 1, FIRST)  # came back after exactly seven days: not resolved
    await contact(db, "a2", 1, FIRST + 7 * day)  # and then no more: resolved
    await contact(db, "b1", 2, FIRST)  # came back a second too late to count: resolved
    await contact(
        db, "b2", 2, FIRST + 7 * day + timedelta(seconds=1), agents=("anna", "ben")
    )  # by Ben, in the end
    await contact(db, "c1", 3, FIRST)  # gave up waiting the next time: that is a contact too
    await contact(db, "c2", 3, FIRST + day, outcome="abandoned")
    await contact(db, "d1", 4, FIRST)  # we called them: no contact of theirs
    await contact(db, "d2", 4, FIRST + day, direction="outbound")
    await contact(db, "e1", None, FIRST)  # nobody knows who it was
    await contact(db, "e2", None, FIRST + day)

    week = FIRST + 8 * day
    assert await settle(db.pool, days=7, now=week - timedelta(hours=10)) == []
    assert await settle(db.pool, days=7, now=week) == [date(2026, 3, 2)]
    assert await settle(db.pool, days=7, now=week) == []
    range = Range(first=FIRST - timedelta(hours=9), last=FIRST + 20 * day, interval=Interval.TOTAL, zone=ZONE)
    (sales,) = await of_queues(db.pool, range, ["main:sales"])
    assert sales.first_call_resolution == Resolution(contacts=4, resolved=2, rate=0.5)

    done = await settle(db.pool, days=7, now=FIRST + 40 * day)
    assert (done[0], len(done)) == (date(2026, 3, 3), 31)
    anna, ben = await of_agents(db.pool, range, ["anna", "ben"], now=week)
    assert anna.first_call_resolution == Resolution(contacts=5, resolved=3, rate=0.6)
    assert ben.first_call_resolution == Resolution(contacts=1, resolved=1, rate=1.0)
