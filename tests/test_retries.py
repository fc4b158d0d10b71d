"""When a contact is called again, by the real claim and the real law on a real PostgreSQL: by what became of an attempt, by
what the agent said of it, and within the law's limits; to the second, by a clock that is set by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from dialer.calling import dispositions
from dialer.calling.attempt_store import AttemptRow, write
from dialer.calling.claims import Claimed, Claims
from dialer.law import desk, profiles
from dialer.law.known import check_all
from dialer.management.settings import Campaign, CampaignSettings
from tests.law_desk import law_desk

LONDON, ANGELES = ZoneInfo("Europe/London"), ZoneInfo("America/Los_Angeles")
SECOND, RINGS = timedelta(seconds=1), timedelta(seconds=20)
NUMBER = "+442079460151"
LAWS = {  # whom, not when, is for other tests
    name: replace(law, consent_needed=False, registers=()) for name, law in profiles.load().items()
}


@dataclass
class Dialed:
    """A campaign with one contact; calls take 20 seconds. `now`: the server's clock."""

    pool: asyncpg.Pool[asyncpg.Record]
    campaign: Campaign
    contact: int
    now: datetime

    def __post_init__(self) -> None:
        clock = lambda: self.now.timestamp()  # noqa: E731
        law = desk.LawDesk(lambda: LAWS, check_all, clock=clock)
        self.claims = Claims(
            lambda: self.pool, check_all=law.check_all, open_groups=law.open_groups, clock=clock
        )

    async def claim(self, now: datetime) -> Claimed | None:
        """The contact, if it may be called at this moment."""
        self.now = now
        lease = await self.claims.lease(self.campaign.id, "one", 3600)
        assert lease is not None
        found = await self.claims.claim(self.campaign, lease, 5, now=now, pbx="main")
        return found.attempts[0] if found.attempts else None

    async def ends(self, one: Claimed, outcome: str, *, said: str = "") -> None:
        """The attempt is over 20 seconds later; the agent has said something of it while it lasted."""
        if said:
            await self.says(one, said)
        self.now += RINGS
        row = AttemptRow(
            id=one.id,
            campaign=self.campaign.id,
            state="ended",
            dialed=self.now - RINGS,
            ended=self.now,
            outcome=outcome,
        )
        settings = {self.campaign.id: (self.campaign.settings, False)}
        await write(self.pool, [row], settings, self.now)

    async def says(self, one: Claimed, word: str) -> None:
        """As the command does it, in one transaction."""
        call = f"main:{one.id}"
        async with self.pool.acquire() as db, db.transaction():
            assert word in {one.code for one in await dispositions.choice(db, call) or ()}
            await db.execute("UPDATE attempts SET disposition = $2 WHERE id = $1", one.id, word)
            await dispositions.follows(db, call, word, "anna", self.now)

    async def called_at(self, *moments: datetime, outcome: str = "busy") -> None:
        """At each of these moments the contact may be called, and not a second before; each time it comes to this."""
        for moment in moments:
            assert await self.claim(moment - SECOND) is None, moment
            one = await self.claim(moment)
            assert one is not None, (moment, await self.stands())
            await self.ends(one, outcome)

    async def stands(self) -> tuple[str, str]:
        row = await self.pool.fetchrow("SELECT state, why FROM list_contacts WHERE id = $1", self.contact)
        assert row is not None
        return row["state"], row["why"]


@asynccontextmanager
async def dialed(
    url: str,
    settings: dict[str, Any],
    *,
    profile: str = "GB",
    country: str = "GB",
    zones: tuple[str, ...] = ("Europe/London",),
) -> AsyncIterator[Dialed]:
    async with law_desk(url) as at:
        id = await at.campaign(mode="predictive", **settings)
        await at.pool.execute("UPDATE campaigns SET profile = $2 WHERE id = $1", id, profile)
        group = await at.pool.fetchval(
            "INSERT INTO zone_groups (country, zones) VALUES ($1, $2) RETURNING id", country, zones
        )
        contact = await at.pool.fetchval(
            """WITH l AS (INSERT INTO call_lists (name, campaign_id, created_by, changed_by)
                          VALUES ('l', $1, 't', 't') RETURNING id)
               INSERT INTO list_contacts (list_id, e164, zone_group) SELECT id, $2, $3 FROM l RETURNING id""",
            *(id, NUMBER, group),
        )
        campaign = Campaign(
            id=id,
            name="spring",
            mode="predictive",
            state="running",
            profile=profile,
            priority=0,
            settings=CampaignSettings.model_validate(settings),
            version=1,
        )
        yield Dialed(at.pool, campaign, contact, datetime(2037, 11, 24, tzinfo=UTC))


async def test_busy_is_tried_again_by_its_spacing_and_the_laws_attempts_a_day(tables: str) -> None:
    async with dialed(tables, {}) as at:
        tuesday = datetime(2037, 11, 24, 9, tzinfo=LONDON)
        day = timedelta(days=1)
        one = await at.claim(tuesday)
        assert one is not None
        await at.ends(one, "busy")
        again = tuesday + RINGS + timedelta(minutes=15)
        half_an_hour_later = again + RINGS + timedelta(minutes=30)
        await at.called_at(again, half_an_hour_later)
        in_two_hours = half_an_hour_later + RINGS + timedelta(hours=2)
        assert await at.claim(in_two_hours) is None  # three in 24 hours are all that the profile allows
        assert "3 attempts to this number in 24 hours" in (await at.stands())[1]
        await at.called_at(tuesday + day, tuesday + 2 * day + RINGS, tuesday + 3 * day + 2 * RINGS)
        assert await at.stands() == ("exhausted", "6 attempts made")
        assert await at.claim(tuesday + 90 * day) is None


async def test_it_waits_for_the_last_of_its_zones_also_over_a_change_of_the_clocks(tables: str) -> None:
    """Nobody at 20:30 in New York: an hour later it is too late there, and in the morning too early in Los Angeles, whose
    clocks have gone forward meanwhile. A week later the attempts of a week are free again at a time of night."""
    zones = ("America/Los_Angeles", "America/New_York")
    own = {
        "retries": {"no_answer": {"after_minutes": [60], "at_most": 9}},
        "attempts_per_week": 2,
    }
    async with dialed(tables, own, profile="US", country="US", zones=zones) as at:
        saturday = datetime(2037, 3, 7, 17, 30, tzinfo=ANGELES)  # 20:30 in New York
        one = await at.claim(saturday)
        assert one is not None
        await at.ends(one, "no_answer")
        sunday = datetime(2037, 3, 8, 8, tzinfo=ANGELES)
        assert sunday.astimezone(UTC) - saturday.astimezone(UTC) == timedelta(hours=13, minutes=30)
        for closed in (saturday + timedelta(minutes=59), saturday + timedelta(minutes=61)):
            assert await at.claim(closed) is None
        await at.called_at(sunday, outcome="no_answer")
        week = timedelta(days=7)
        assert await at.claim(saturday.astimezone(UTC) + week) is None
        await at.called_at(sunday + week, outcome="no_answer")


async def test_the_attempts_of_a_week_and_of_thirty_days_are_free_again_to_the_second(tables: str) -> None:
    own = {
        "retries": {"no_answer": {"after_minutes": [60], "at_most": 9}},
        "attempts_per_week": 2,
        "attempts_per_30_days": 3,
    }
    async with dialed(tables, own) as at:
        noon = datetime(2037, 11, 24, 12, tzinfo=LONDON)
        one = await at.claim(noon)
        assert one is not None
        await at.ends(one, "no_answer")
        await at.called_at(noon + RINGS + timedelta(hours=1), outcome="no_answer")
        await at.called_at(noon + timedelta(days=7), noon + timedelta(days=30), outcome="no_answer")
        assert "3 attempts to this number" not in (await at.stands())[1]


LATER = {"code": "later", "label": "Wants another call", "category": "call_back", "again_after_minutes": 240}
WORDS = [
    {"code": "sale", "label": "Sale", "category": "conversion"},
    {"code": "wrong", "label": "Somebody else", "category": "no_contact"},
    {"code": "never", "label": "No calls", "category": "do_not_call"},
    LATER,
]


@pytest.mark.parametrize("in_the_call", [True, False])
async def test_what_the_agent_says_decides_when_the_contact_is_called_again(
    tables: str, in_the_call: bool
) -> None:
    """Whether it is said before the call's end or after; the last word counts, and attempts and hours hold."""
    async with dialed(tables, {"dispositions": WORDS, "max_attempts": 3}) as at:
        noon = datetime(2037, 11, 24, 12, tzinfo=LONDON)

        async def talks(moment: datetime, *words: str) -> datetime:
            one = await at.claim(moment)
            assert one is not None, await at.stands()
            await at.ends(one, "connected", said=words[0] if in_the_call else "")
            for word in words[in_the_call:]:
                await at.says(one, word)
            return at.now

        over = await talks(noon, "later")
        due = (over if not in_the_call else noon + RINGS) + timedelta(hours=4)
        assert await at.stands() == ("open", "said: Wants another call")
        assert await at.claim(due - SECOND) is None
        over = await talks(due, "sale", "wrong")
        assert (await at.stands())[0] == "open"
        assert await at.claim(over + timedelta(days=1) - SECOND) is None
        await talks(over + timedelta(days=1), "later")
        assert await at.stands() == ("exhausted", "said: Wants another call; 3 attempts made")


async def test_who_does_not_want_calls_is_listed_at_once_and_a_promise_is_kept_by_who_gave_it(
    tables: str,
) -> None:
    async with dialed(tables, {"dispositions": WORDS, "company": "Acme"}) as at:
        noon = datetime(2037, 11, 24, 12, tzinfo=LONDON)
        one = await at.claim(noon)
        assert one is not None
        promise = await at.pool.fetchval(
            """INSERT INTO call_backs (number, due, zone, agent, for_team, call, created, created_by)
               VALUES ($1, $2, 'Europe/London', 'anna', false, $3, now(), 'anna') RETURNING id""",
            *(NUMBER, noon + timedelta(hours=1), f"main:{one.id}"),
        )
        await at.ends(one, "connected", said="later")
        assert await at.stands() == ("done", "said: Wants another call; a call is promised")
        await at.pool.execute("UPDATE call_backs SET state = 'done' WHERE id = $1", promise)
        await at.says(one, "later")
        assert (await at.stands())[0] == "open"
        two = await at.claim(at.now + timedelta(hours=4))
        assert two is not None
        await at.says(one, "sale")  # of an earlier call: somebody is calling them by now
        assert (await at.stands())[0] == "in_hand"
        await at.says(two, "never")
        row = await at.pool.fetchrow("SELECT * FROM do_not_call")
        assert row is not None
        assert (f"+{row['number']}", row["company"], row["reason"]) == (NUMBER, "Acme", "No calls")
        assert (row["added_by"], row["call"]) == ("anna", two.id)
        await at.ends(two, "connected")
        assert await at.stands() == ("blocked", "asked not to be called again")
        await at.says(two, "sale")  # the list stands until somebody who may takes the number off it
        assert (await at.stands())[0] == "blocked"
        await at.pool.execute("DELETE FROM call_backs")
