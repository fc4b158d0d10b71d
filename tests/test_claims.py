"""Claims: each contact once with several processes, only by who holds the lease, only as the law says."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest_asyncio

from cti.people import Agent
from dialer.call_lists.quotas import Quotas
from dialer.calling.attempt_store import AttemptRow, write
from dialer.calling.claims import ANYBODY, TAKE, Claimed, Claims, Lease
from dialer.calling.for_whom import ForOne, Reach
from dialer.calling.standing import QUOTA_REACHED, NotClaimed
from dialer.candidate import Candidate
from dialer.management.settings import Campaign, CampaignSettings
from dialer.verdict import Step, Verdict
from tests.test_hands import for_free

if TYPE_CHECKING:
    from cti.database import Pool, Queryable
    from dialer.management.settings import CampaignMode

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
YES = Verdict(steps=(Step(rule="hours", ok=True, says="open", source="test"),), consent="c-1")


@dataclass
class World:
    """Some lists in a database, and a law that is told here."""

    pool: Pool
    campaign: Campaign
    groups: list[int]
    closed: set[int] = field(default_factory=set)
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def claims(self) -> Claims:
        """As one process has them."""
        room = Quotas(zone="UTC", clock=monotonic).room
        return Claims(
            lambda: self.pool, check_all=self._check, open_groups=self._open, clock=monotonic, room=room
        )

    async def _check(
        self, db: Queryable, candidates: Sequence[Candidate], campaign: Campaign, now: datetime
    ) -> Mapping[int, Verdict]:
        return {one.contact: self.verdicts.get(one.e164, YES) for one in candidates}

    async def _open(self, db: Queryable, campaign: Campaign, now: datetime) -> Collection[int]:
        return [group for group in self.groups if group not in self.closed]

    async def list(self, *numbers: str, priority: int = 0, group: int = 0, **columns: Any) -> int:
        """A list with these contacts; `columns` are theirs."""
        id: int = await self.pool.fetchval(
            "INSERT INTO call_lists (name, campaign_id, priority, created_by, changed_by) "
            "VALUES (gen_random_uuid()::text, $1, $2, 't', 't') RETURNING id",
            self.campaign.id,
            priority,
        )
        names = ["list_id", "e164", "zone_group", *columns]
        for place, number in enumerate(numbers):
            values = [c[place] if isinstance(c, tuple) else c for c in columns.values()]
            marks = ", ".join(f"${n}" for n in range(1, len(names) + 1))
            await self.pool.execute(
                f"INSERT INTO list_contacts ({', '.join(names)}) VALUES ({marks})",
                id,
                number,
                self.groups[group],
                *values,
            )
        return id

    async def contact(self, number: str) -> Any:
        """A contact's row, by its number."""
        return await self.pool.fetchrow("SELECT * FROM list_contacts WHERE e164 = $1", number)


@pytest_asyncio.fixture
async def world(tables: str) -> AsyncIterator[World]:
    async with asyncpg.create_pool(tables, min_size=1, max_size=12) as pool:
        await pool.execute("TRUNCATE campaigns, call_lists, zone_groups CASCADE")
        mode: CampaignMode = "progressive"
        id = await pool.fetchval(
            "INSERT INTO campaigns (name, mode, state, profile, created_by, changed_by) "
            "VALUES ('c', $1, 'running', 'test', 't', 't') RETURNING id",
            mode,
        )
        groups = [
            await pool.fetchval("INSERT INTO zone_groups (country, zones) VALUES ($1, $2) RETURNING id", *one)
            for one in (("GB", ["Europe/London"]), ("US", ["America/New_York"]))
        ]
        campaign = Campaign(
            id=id,
            name="c",
            mode=mode,
            state="running",
            profile="test",
            priority=0,
            settings=CampaignSettings(),
            version=1,
        )
        yield World(pool, campaign, groups)


async def lease_of(world: World, claims: Claims, owner: str = "one", seconds: float = 60) -> Lease:
    lease = await claims.lease(world.campaign.id, owner, seconds)
    assert lease is not None
    return lease


async def claim(
    world: World, claims: Claims, most: int, lease: Lease | None = None, reach: Reach | None = None
) -> Any:
    lease = lease or await lease_of(world, claims)
    return await claims.claim(world.campaign, lease, most, now=NOW, pbx="main", reach=reach)


async def test_no_more_are_claimed_than_a_quota_leaves(world: World) -> None:
    """However many claim at once; the next list is called instead, and the rest stays as it is."""
    one = await world.list(*(f"+4420{n:07d}" for n in range(30)), priority=5)
    await world.pool.execute(
        """UPDATE call_lists SET settings = '{"quota": [{"counts": "connected", "most": 12}]}' WHERE id = $1""",
        one,
    )
    await world.list("+442100001", "+442100002")
    claims = world.claims()
    lease = await lease_of(world, claims)
    found = await asyncio.gather(*(claim(world, world.claims(), 3, lease) for _ in range(6)))
    taken = [attempt.candidate.list for each in found for attempt in each.attempts]
    assert taken.count(one) == 12
    assert len(taken) == 14
    assert (await claim(world, claims, 3, lease)).empty
    assert await world.pool.fetchval("SELECT count(*) FROM list_contacts WHERE state = 'open'") == 18
    ids = [attempt.id for each in found for attempt in each.attempts if attempt.candidate.list == one]
    await world.pool.execute(
        "UPDATE attempts SET state = 'ended', outcome = 'busy' WHERE id = ANY($1)", ids[:5]
    )
    assert len((await claim(world, claims, 9, lease)).attempts) == 5


async def test_several_at_once_claim_each_contact_once(world: World) -> None:
    await world.list(*(f"+4420{n:07d}" for n in range(400)))
    processes = [world.claims() for _ in range(6)]
    lease = await lease_of(world, processes[0])
    got: Counter[int] = Counter()

    async def work(claims: Claims) -> None:
        tries = 0
        while tries < 3:
            found = await claim(world, claims, 7, lease)
            got.update(one.candidate.contact for one in found.attempts)
            tries = tries + 1 if found.empty else 0

    await asyncio.gather(*(work(claims) for claims in processes))
    assert len(got) == 400
    assert set(got.values()) == {1}
    rows = await world.pool.fetch("SELECT state, attempts FROM list_contacts")
    assert {(row["state"], row["attempts"]) for row in rows} == {("in_hand", 1)}
    attempts = await world.pool.fetch("SELECT * FROM attempts")
    assert len(attempts) == 400
    assert {(a["state"], a["consent"], a["mode"], a["number_of"]) for a in attempts} == {
        ("committed", "c-1", "progressive", 1)
    }
    assert json.loads(attempts[0]["checks"]) == [
        {"rule": "hours", "ok": True, "says": "open", "source": "test"}
    ]


async def test_only_who_holds_the_lease_claims_and_an_old_token_is_refused(world: World) -> None:
    await world.list("+442000001", "+442000002", "+442000003")
    one, other = world.claims(), world.claims()
    lease = await lease_of(world, one, "one", 0.2)
    assert await other.lease(world.campaign.id, "other", 60) is None
    assert len((await claim(world, one, 1, lease)).attempts) == 1
    await asyncio.sleep(0.3)  # it has run out, by the database's clock
    late = await claim(world, one, 1, lease)
    assert (late.attempts, late.held) == ((), False)
    taken = await lease_of(world, other, "other")
    assert taken.token == lease.token + 1
    assert await one.lease(world.campaign.id, "one", 60) is None
    assert not (await claim(world, one, 1, lease)).held
    assert len((await claim(world, other, 1, taken)).attempts) == 1
    again = await lease_of(world, other, "other")
    assert again.token == taken.token
    await other.give_back(taken)
    assert (await lease_of(world, one, "one")).token == taken.token + 1


async def test_a_takeover_waits_for_a_claim_that_is_under_way(world: World) -> None:
    await world.list("+442000001")
    claims = world.claims()
    lease = await lease_of(world, claims, "one", 0.3)
    async with world.pool.acquire() as db, db.transaction():
        await db.fetchval("SELECT true FROM campaign_leases WHERE until > now() FOR SHARE")
        await asyncio.sleep(0.4)
        taking = asyncio.create_task(claims.lease(world.campaign.id, "other", 60))
        done, _ = await asyncio.wait({taking}, timeout=0.3)
        assert not done
    taken = await taking
    assert taken is not None
    assert taken.token == lease.token + 1


async def test_lists_then_contacts_by_priority_then_who_has_waited_longest(world: World) -> None:
    soon = (NOW - timedelta(hours=1), NOW - timedelta(hours=3))
    await world.list("+442000001", "+442000002", not_before=soon)
    await world.list("+442000003", "+442000004", priority=5)
    await world.pool.execute("UPDATE list_contacts SET priority = 9 WHERE e164 = '+442000004'")
    claims = world.claims()
    order = []
    for _ in range(4):
        (one,) = (await claim(world, claims, 1)).attempts
        claims.forget(world.campaign.id)
        order.append(one.candidate.e164[-1])
    assert order == ["4", "3", "2", "1"]
    assert (await claim(world, claims, 1)).empty


async def test_who_sleeps_and_closed_zones_and_inactive_lists_are_left_alone(world: World) -> None:
    await world.list("+442000001", not_before=NOW + timedelta(seconds=1))
    await world.list("+12120000001", group=1)
    inactive = await world.list("+442000003")
    await world.pool.execute("UPDATE call_lists SET active = false WHERE id = $1", inactive)
    world.closed = {world.groups[1]}
    claims = world.claims()
    assert (await claim(world, claims, 5)).empty
    assert not await claims.anybody(world.campaign, NOW)
    world.closed = set()
    assert await claims.anybody(world.campaign, NOW)
    assert [one.candidate.e164 for one in (await claim(world, claims, 5)).attempts] == ["+12120000001"]


async def test_refused_ones_are_blocked_or_wait_with_the_reason(world: World) -> None:
    def no(says: str, until: datetime | None) -> Verdict:
        return Verdict(steps=(Step(rule="r", ok=False, says=says),), not_before=until)

    await world.list("+442000001", "+442000002", "+442000003")
    world.verdicts = {
        "+442000001": no("on the list", None),
        "+442000002": no("rests", NOW + timedelta(hours=5)),
    }
    found = await claim(world, world.claims(), 3)
    assert [one.candidate.e164 for one in found.attempts] == ["+442000003"]
    assert found.refused == {"on the list": 1, "rests": 1}
    blocked, waits = await world.contact("+442000001"), await world.contact("+442000002")
    assert (blocked["state"], blocked["why"], blocked["attempts"]) == ("blocked", "on the list", 0)
    assert (waits["state"], waits["why"], waits["not_before"]) == ("open", "rests", NOW + timedelta(hours=5))
    # Who has had as many attempts as the list has by now is not called once more.
    few = await world.list("+442000004", "+442000005")
    await world.pool.execute("""UPDATE call_lists SET settings = '{"max_attempts": 2}' WHERE id = $1""", few)
    await world.pool.execute("UPDATE list_contacts SET attempts = 2 WHERE e164 = '+442000004'")
    found = await claim(world, world.claims(), 3)
    assert [one.candidate.e164 for one in found.attempts] == ["+442000005"]
    assert found.refused == {"all attempts are used up": 1}
    assert (await world.contact("+442000004"))["state"] == "exhausted"


async def test_more_that_may_be_called_than_wanted_stay_as_they_are(world: World) -> None:
    await world.list(*(f"+44200000{n}" for n in range(10, 40)))
    found = await claim(world, world.claims(), 2)
    assert len(found.attempts) == 2
    rows = await world.pool.fetch("SELECT state, count(*) AS n FROM list_contacts GROUP BY state")
    assert {row["state"]: row["n"] for row in rows} == {"in_hand": 2, "open": 28}


async def test_a_number_or_person_is_never_in_two_calls_at_once(world: World) -> None:
    await world.list("+442000001", "+442000002")
    await world.list("+442000001", priority=3)
    await world.list("+442000005", "+442000006", person="p-1", priority=2)
    found = await claim(world, world.claims(), 9)
    numbers = sorted(one.candidate.e164 for one in found.attempts)
    assert len(numbers) == 3
    assert numbers[:2] == ["+442000001", "+442000002"]
    waiting = await world.pool.fetch("SELECT why, not_before FROM list_contacts WHERE state = 'open'")
    assert [row["why"] for row in waiting] == ["is in a call just now"] * 2
    assert all(row["not_before"] > NOW for row in waiting)


async def test_what_was_not_dialed_is_taken_back(world: World) -> None:
    await world.list("+442000001")
    claims = world.claims()
    (one,) = (await claim(world, claims, 1)).attempts
    await claims.withdraw([one.id])
    contact = await world.contact("+442000001")
    assert (contact["state"], contact["attempts"], contact["last_attempt"]) == ("open", 0, None)
    assert await world.pool.fetchval("SELECT count(*) FROM attempts") == 0
    assert len((await claim(world, claims, 1)).attempts) == 1


async def test_an_end_is_written_once_and_the_next_number_comes_next(world: World) -> None:
    await world.list("+442000001", other_numbers=["+442079460999"])
    claims = world.claims()
    (one,) = (await claim(world, claims, 1)).attempts
    settings = {world.campaign.id: (world.campaign.settings, False)}
    row = AttemptRow(
        id=one.id, campaign=world.campaign.id, state="ended", ended=NOW, outcome="invalid_number", cause=1
    )
    await write(world.pool, [row], settings, NOW)
    again = AttemptRow(id=one.id, campaign=world.campaign.id, state="ended", ended=NOW, outcome="connected")
    await write(world.pool, [again], settings, NOW)
    contact = await world.contact("+442000001")
    assert (contact["state"], contact["last_outcome"]) == ("open", "invalid_number")
    assert contact["dead_numbers"] == ["+442000001"]
    assert await world.pool.fetchval("SELECT outcome FROM attempts") == "invalid_number"
    await world.pool.execute("UPDATE list_contacts SET not_before = '-infinity'")
    (two,) = (await claim(world, claims, 1)).attempts
    assert two.candidate.e164 == "+442079460999"
    assert two.number_of == 2
    assert "Europe/London" in two.candidate.zones


async def test_a_claim_reads_by_the_index_and_sorts_nothing(world: World) -> None:
    id = await world.list("+442000001")
    await world.pool.execute(
        """
        INSERT INTO list_contacts (list_id, e164, zone_group, not_before, priority)
        SELECT $1, '+4430' || lpad(n::text, 7, '0'), $2, $3::timestamptz + make_interval(secs => n), n % 3
          FROM generate_series(1, 20000) n
        """,
        id,
        world.groups[0],
        NOW + timedelta(hours=1),
    )
    await world.pool.execute("ANALYZE list_contacts")
    for query, more in ((TAKE, [20, None]), (ANYBODY, [])):
        rows = await world.pool.fetch(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT TEXT) {query}", id, 0, world.groups, NOW, *more
        )
        plan = "\n".join(row[0] for row in rows)
        assert "list_contacts_open" in plan, plan
        assert "Sort" not in plan, plan
        assert "Rows Removed by Filter" not in plan, plan


# ------------------------------------------------------------------------------------------ lists assigned to some

ANNA, BEN, CLEO = (Agent(login=login, name=login) for login in ("anna", "ben", "cleo"))


async def assigned_list(world: World, agents: Sequence[str], *numbers: str, **more: Any) -> int:
    id = await world.list(*numbers, **more)
    await assign(world, id, agents)
    return id


async def assign(world: World, id: int, agents: Sequence[str]) -> None:
    settings = json.dumps({"assigned": {"agents": agents}})
    await world.pool.execute("UPDATE call_lists SET settings = $2 WHERE id = $1", id, settings)


async def test_an_agent_gets_only_contacts_of_lists_that_they_may_call(world: World) -> None:
    await assigned_list(world, ["ben"], "+442000001", "+442000002", priority=9)
    theirs = await assigned_list(world, ["anna", "cleo"], "+442000003", "+442000004")
    claims = world.claims()
    (one,) = (await claim(world, claims, 1, reach=ForOne(ANNA))).attempts
    assert (one.candidate.e164, one.assigned.agents) == ("+442000003", ["anna", "cleo"])
    states = await world.pool.fetch("SELECT state FROM list_contacts ORDER BY e164")
    assert [row["state"] for row in states] == ["open", "open", "in_hand", "open"]
    nobody = await claim(world, claims, 1, reach=ForOne(Agent(login="dora", name="D")))
    assert (nobody.attempts, nobody.empty, nobody.passed_over) == ((), False, True)
    await assign(
        world, theirs, ["ben"]
    )  # since it was looked at: nothing of it is claimed by what held before
    assert not (await claim(world, claims, 1, reach=ForOne(ANNA))).attempts
    claims.forget(world.campaign.id)
    assert len((await claim(world, claims, 9, reach=ForOne(BEN))).attempts) == 3


async def test_for_a_list_of_some_no_more_are_claimed_than_are_free(world: World) -> None:
    many = [f"+44200000{n}" for n in range(10, 60)]
    for n, agent in enumerate((ANNA, BEN, CLEO)):
        await assigned_list(world, [agent.login], *many[n * 10 : n * 10 + 10], priority=9)
    both = await assigned_list(world, ["anna", "ben"], *many[30:40], priority=5)
    everybody = await world.list(*many[40:])
    claims, at_work = world.claims(), [ANNA, BEN, CLEO]
    found = await claim(world, claims, 8, reach=for_free([ANNA, BEN], at_work, []))
    of = Counter(one.candidate.list for one in found.attempts)
    assert (of[everybody], of[both], sum(of.values())) == (6, 0, 8)
    waiting = [one.assigned for one in found.attempts if not one.assigned.to_all]
    assert sorted(one.agents for one in waiting) == [["anna"], ["ben"]]
    await world.pool.execute("UPDATE call_lists SET active = false WHERE id = $1", everybody)
    claims.forget(world.campaign.id)
    found = await claim(world, claims, 8, reach=for_free([ANNA, BEN], at_work, waiting))
    assert (found.attempts, found.empty, found.passed_over) == ((), False, True)
    found = await claim(world, claims, 8, reach=for_free([CLEO, ANNA], at_work, waiting))
    assert [one.assigned.agents for one in found.attempts] == [["cleo"]]
    found = await claim(world, claims, 8, reach=for_free([ANNA], [ANNA], []))
    assert len(found.attempts) == 8  # all who are at work may call it: paced as any other
    await world.pool.execute("UPDATE list_contacts SET not_before = $1", NOW + timedelta(hours=1))
    found = await claim(world, claims, 8, reach=for_free([], at_work, []))
    assert (found.empty, found.passed_over) == (
        True,
        False,
    )  # nobody's time has come: it is not for want of agents


# ------------------------------------------------------------------------------------------ picked by an agent


async def pick(world: World, claims: Claims, number: str, who: Agent = ANNA) -> Claimed | NotClaimed:
    lease = await lease_of(world, claims)
    id = (await world.contact(number))["id"]
    return await claims.pick(world.campaign, lease, id, now=NOW, pbx="main", reach=ForOne(who))


async def refusal(world: World, number: str, who: Agent = ANNA) -> tuple[str, str]:
    found = await pick(world, world.claims(), number, who)
    assert isinstance(found, NotClaimed)
    return found.code, found.says


async def test_a_picked_contact_is_claimed_once_however_many_pick_it(world: World) -> None:
    await assigned_list(world, ["anna"], "+442000001", "+442000002", group=1)
    world.closed = {world.groups[1]}  # what the law says of the hour, it says when it is asked
    found = await asyncio.gather(*(pick(world, world.claims(), "+442000001") for _ in range(8)))
    (one,) = [one for one in found if isinstance(one, Claimed)]
    assert (one.candidate.e164, one.number_of, one.verdict.consent) == ("+442000001", 1, "c-1")
    assert {one.code for one in found if isinstance(one, NotClaimed)} == {"being_called"}
    rows = await world.pool.fetch("SELECT id, state FROM attempts")
    assert [tuple(row) for row in rows] == [(one.id, "committed")]
    await world.claims().withdraw([one.id])
    assert isinstance(await pick(world, world.claims(), "+442000001"), Claimed)


async def quota_reached(db: Queryable, lists: Collection[int], now: datetime) -> dict[int, int]:
    return dict.fromkeys(lists, 0)


async def test_what_cannot_be_picked_is_refused_with_the_reason(world: World) -> None:
    numbers = [f"+44200000{n}" for n in range(1, 8)]
    id = await assigned_list(world, ["anna"], *numbers)
    assert (await refusal(world, numbers[0], BEN))[0] == "no_such_contact"
    await world.pool.execute(
        "UPDATE list_contacts SET state = 'done', why = 'bought' WHERE e164 = $1", numbers[0]
    )
    assert await refusal(world, numbers[0]) == (
        "not_open",
        "this contact cannot be called: has been reached: bought",
    )
    await world.pool.execute("UPDATE list_contacts SET attempts = 6 WHERE e164 = $1", numbers[5])
    assert await refusal(world, numbers[5]) == (
        "not_open",
        "this contact cannot be called: all attempts are used up",
    )
    soon = NOW + timedelta(hours=2)
    await world.pool.execute(
        "UPDATE list_contacts SET not_before = $2, why = 'busy' WHERE e164 = $1", numbers[1], soon
    )
    assert await refusal(world, numbers[1]) == ("not_yet", "not before 2026-11-24 14:00 UTC: busy")
    no = Step(rule="do_not_call", ok=False, says="on the list")
    world.verdicts = {
        numbers[2]: Verdict(steps=(no,)),
        numbers[3]: Verdict(
            steps=(Step(rule="under_way", ok=False, says="is being called"),), not_before=soon
        ),
    }
    assert await refusal(world, numbers[2]) == ("not_allowed", "on the list")
    assert (await world.contact(numbers[2]))["state"] == "blocked"
    assert (await refusal(world, numbers[3]))[0] == "being_called"
    left = await world.contact(numbers[3])
    assert (left["state"], left["why"]) == (
        "open",
        "",
    )  # as it was: the other call is no reason to put it off
    await world.list(numbers[4])
    other = await world.pool.fetchval("SELECT max(id) FROM list_contacts")
    claims = world.claims()
    lease = await lease_of(world, claims)
    picked = await claims.pick(world.campaign, lease, other, now=NOW, pbx="main", reach=ForOne(BEN))
    assert isinstance(picked, Claimed)
    mine = await world.pool.fetchval(
        "SELECT id FROM list_contacts WHERE e164 = $1 AND list_id = $2", numbers[4], id
    )
    twice = await claims.pick(world.campaign, lease, mine, now=NOW, pbx="main", reach=ForOne(ANNA))
    assert isinstance(twice, NotClaimed)
    assert twice.code == "being_called"  # the same number on another list is in a call
    full = Claims(
        lambda: world.pool,
        check_all=world._check,
        open_groups=world._open,
        clock=monotonic,
        room=quota_reached,
    )
    refused = await pick(world, full, numbers[5])
    assert isinstance(refused, NotClaimed)
    assert (refused.code, refused.says) == ("not_yet", QUOTA_REACHED)
    await world.pool.execute("UPDATE call_lists SET active = false WHERE id = $1", id)
    assert (await refusal(world, numbers[5]))[0] == "no_such_contact"
    await claims.give_back(lease)
    late = await claims.pick(world.campaign, lease, mine, now=NOW, pbx="main", reach=ForOne(ANNA))
    assert isinstance(late, NotClaimed)
    assert late.code == "not_here"
