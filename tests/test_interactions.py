"""Interactions on a real PostgreSQL: one row a call, whatever is told twice, late, or by a process that died."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from crm.accounts import ChangedMeanwhile, NewAccount, create
from crm.facts import InteractionClosed, InteractionIdentified, InteractionNoted
from crm.interactions import (
    LONGEST_NOTE,
    Interactions,
    NotYourNote,
    UnknownInteraction,
    UnknownNote,
    WrongText,
    get_interaction,
    list_interactions,
)
from crm.paging import WrongCursor
from cti.bus import Bus
from cti.facts import CallerChanged, Direction, Fact

from .test_ani import eventually, wire
from .test_screen_pop import ADMIN, ANNA, BEN, SALES, Scene, at


@pytest.fixture
async def pool(migrated: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(migrated, min_size=1, max_size=4) as pool:
        yield pool


class House:
    """A bus with interactions on it and their writer at work."""

    def __init__(self, pool: Any, **more: Any) -> None:
        self.told: list[Fact] = []
        self.bus = Bus(audience=lambda fact: frozenset())
        self.bus.carry(lambda envelope: self.told.append(envelope.fact))
        self.log = Interactions(
            pool,
            publish=self.bus.publish,
            region_of=lambda pbx: "GB",
            pauses=(0.02,),
            **{"linger": 0.0, **more},
        )
        for kind, reaction in self.log.reactions().items():
            self.bus.listen(kind, reaction)

    def happen(self, *facts: Fact) -> None:
        self.bus.publish(facts)
        assert self.bus.failures == 0

    def of(self, kind: type[Fact]) -> list[Any]:
        return [fact for fact in self.told if type(fact) is kind]


@asynccontextmanager
async def house(pool: Any, *, writing: bool = True, **more: Any) -> AsyncIterator[House]:
    made = House(pool, **more)
    task = asyncio.create_task(made.log.run()) if writing else None
    try:
        yield made
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def rows(pool: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in await pool.fetch("SELECT * FROM interactions ORDER BY id")]


def known(call: str, account: int, how: str = "exact", by: str = "lookup") -> InteractionIdentified:
    return InteractionIdentified(
        at=at(3), call=call, e164="+442079460001", account_id=account, contact_id=None, how=how, by=by
    )


def journey(scene: Scene, account: int | None = None) -> list[Fact]:
    facts = [scene.originated(), scene.queued(), scene.offered("anna"), scene.established("anna")]
    if account is not None:
        facts.append(known(scene.call, account))
    return [*facts, scene.left("anna"), replace_agents(scene.cleared(), ("anna",))]


def replace_agents(fact: Any, agents: tuple[str, ...]) -> Fact:
    return replace(fact, agents=agents)


async def test_a_call_becomes_one_row_that_says_it_all(pool: Any) -> None:
    ada = (await create(pool, NewAccount(name="Ada"))).id
    async with house(pool) as home:
        home.happen(*journey(Scene(ani="020 7946 0001"), ada))
        assert await home.log.flush()
        (row,) = await rows(pool)
        assert (row["call"], row["pbx"], row["direction"], row["queue"], row["agents"]) == (
            "main:1", "main", "inbound", SALES, ["anna"],
        )  # fmt: skip
        assert (row["started"], row["ended"], row["outcome"]) == (at(0), at(60), "answered")
        assert (row["waited"], row["talked"], row["held"]) == (7.0, 52.0, 0.0)
        assert (row["ani"], row["e164"], row["dnis"]) == ("020 7946 0001", "+442079460001", "5550100")
        assert (row["account_id"], row["identified_how"], row["identified_by"]) == (ada, "exact", "lookup")
        (closed,) = home.of(InteractionClosed)
        assert (closed.interaction, closed.call, closed.account_id, closed.agents, closed.at) == (
            row["id"], "main:1", ada, ("anna",), at(60),
        )  # fmt: skip
        assert await pool.fetchval("SELECT last_contact FROM accounts") == at(60)


async def test_an_open_call_is_written_at_once_and_changed_while_it_lasts(pool: Any) -> None:
    async with house(pool) as home:
        call = Scene()
        home.happen(call.originated())
        assert await home.log.flush()
        (row,) = await rows(pool)
        assert (row["ended"], row["outcome"], row["agents"], row["queue"]) == (None, None, [], None)
        home.happen(call.queued(), call.established("anna"))
        home.happen(CallerChanged(at=at(9), call=call.call, ani="+442079460009", ani_name=None))
        assert await home.log.flush()
        (row,) = await rows(pool)
        assert (row["agents"], row["queue"], row["e164"], row["touched"]) == (
            ["anna"],
            SALES,
            "+442079460009",
            at(9),
        )


async def test_many_calls_are_written_in_batches(pool: Any) -> None:
    async with house(pool, linger=0.05) as home:
        home.happen(*(fact for n in range(2_000) for fact in journey(Scene(f"main:{n}"))))
        assert home.log.unwritten == 2_000
        assert await home.log.flush(20)
        assert await pool.fetchval("SELECT count(*) FROM interactions WHERE outcome = 'answered'") == 2_000
        assert len(home.of(InteractionClosed)) == 2_000
        assert home.log.unwritten == 0


async def test_outbound_calls_go_by_the_number_dialled_and_internal_ones_are_left_out(pool: Any) -> None:
    async with house(pool) as home:
        internal = Scene("main:1", ani="1001", direction=Direction.INTERNAL, dnis="1002")
        home.happen(*journey(internal))
        out = Scene("main:2", ani="1001", direction=Direction.INTERNAL, dnis="020 7946 0002")
        home.happen(out.originated())
        out.view = replace(out.view, direction=Direction.OUTBOUND)
        home.happen(out.offered(None, queue=None), out.established("anna", queue=None), out.cleared())
        assert await home.log.flush()
        (row,) = await rows(pool)
        assert (row["call"], row["direction"], row["e164"], row["agents"]) == (
            "main:2", "outbound", "+442079460002", ["anna"],
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
async def test_any_order_duplicates_and_restarts_make_one_right_row_a_call(pool: Any, seed: int) -> None:
    chance = random.Random(seed)
    accounts = [(await create(pool, NewAccount(name=f"A{n}"))).id for n in range(3)]
    scenes = [Scene(f"main:{n}") for n in range(6)]
    told: list[list[Fact]] = []
    for n, scene in enumerate(scenes):
        facts = journey(scene, accounts[n % 3])
        first, rest = facts[0], facts[1:]
        if chance.random() < 0.7:
            chance.shuffle(rest)
        facts = [first, *rest]
        facts += chance.sample(facts, chance.randint(0, 4))
        told.append(facts)
    alive: set[str] = set()
    while any(told):
        async with house(pool, batch=2) as home:
            # a process's life: the calls that last are told of again, then facts until it dies in mid-call
            home.happen(*(scene.originated() for scene in scenes if scene.call in alive))
            home.log.settle("main", set(alive))
            for _ in range(chance.randint(3, 15)):
                queue = chance.choice([q for q in told if q] or [[]])
                if not queue:
                    break
                fact = queue.pop(0)
                call = getattr(fact, "call", "")
                home.happen(fact)
                if fact.TYPE == "call.cleared":
                    alive.discard(call)
                elif fact.TYPE == "call.originated" and not any(
                    f.TYPE == "call.cleared" for f in _past(home.told, call)
                ):
                    alive.add(call)
                if chance.random() < 0.3:
                    await home.log.flush()
            alive -= {getattr(f, "call", "") for f in home.told if f.TYPE == "call.cleared"}
            assert await home.log.flush()
    async with house(pool) as home:
        home.log.settle("main", set())
        assert await home.log.flush()
    found = await rows(pool)
    assert sorted(row["call"] for row in found) == sorted(scene.call for scene in scenes)
    for row in found:
        assert row["ended"] is not None
        assert row["outcome"] in ("answered", "lost")
        assert row["ended"] >= row["started"]
        assert len(set(row["agents"])) == len(row["agents"])
    answered = [row for row in found if row["outcome"] == "answered"]
    assert all((row["ended"], row["talked"], row["agents"]) == (at(60), 52.0, ["anna"]) for row in answered)
    assert len(answered) >= 3


def _past(told: Iterable[Fact], call: str) -> list[Fact]:
    return [fact for fact in told if getattr(fact, "call", "") == call]


async def test_after_a_crash_lost_calls_are_closed_and_living_ones_go_on_in_their_row(pool: Any) -> None:
    ada = (await create(pool, NewAccount(name="Ada"))).id
    lives, died, elsewhere = Scene("main:1"), Scene("main:2"), Scene("other:3")
    elsewhere.view = replace(elsewhere.view, pbx="other")
    async with house(pool) as home:
        for call in (lives, died, elsewhere):
            home.happen(call.originated(), call.queued(), call.established("anna", 8))
        home.happen(known("main:1", ada))
        assert await home.log.flush()
        await home.log.choose(ANNA, "main:1", ada, None, None)
    async with house(pool) as home:
        home.happen(lives.originated(200))
        home.log.settle("main", {"main:1"})
        assert await home.log.flush()
        one, two, three = await rows(pool)
        assert (two["outcome"], two["ended"], two["agents"]) == ("lost", at(8), ["anna"])
        assert (one["ended"], three["ended"]) == (None, None)
        assert [f.call for f in home.of(InteractionClosed)] == ["main:2"]
        home.happen(lives.established("ben", 210), lives.cleared(300))
        assert await home.log.flush()
        one = (await rows(pool))[0]
        assert (one["agents"], one["outcome"], one["ended"], one["started"]) == (
            ["anna", "ben"],
            "answered",
            at(300),
            at(0),
        )
        assert (one["account_id"], one["identified_how"]) == (ada, "chosen")
    async with house(pool) as home:
        home.log.settle("main", set())
        assert await home.log.flush()
        assert home.of(InteractionClosed) == [], "what is closed is not closed again"


_CRASHING = """
import asyncio, sys, asyncpg
sys.path[:0] = {path!r}
from tests.test_interactions import House
from tests.test_screen_pop import ANNA, Scene
async def main():
    async with asyncpg.create_pool({dsn!r}, min_size=1, max_size=3) as pool:
        home = House(pool)
        asyncio.get_running_loop().create_task(home.log.run())
        n = 0
        while True:
            scene = Scene(f"main:{{n}}")
            home.happen(scene.originated(), scene.queued(), scene.established("anna"))
            if n % 2:
                home.happen(scene.cleared())
            note = await home.log.add_note(ANNA, f"note {{n}}", call=scene.call)
            print(n, note.id, flush=True)
            n += 1
asyncio.run(main())
"""


async def test_killed_with_minus_nine_nothing_acknowledged_is_lost_and_no_row_is_doubled(
    pool: Any, migrated: str
) -> None:
    code = _CRASHING.format(path=[os.getcwd()], dsn=migrated)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    acknowledged: dict[int, int] = {}
    async with asyncio.timeout(60):
        while len(acknowledged) < 60:
            n, note = (await process.stdout.readline()).split()
            acknowledged[int(n)] = int(note)
        process.send_signal(signal.SIGKILL)
        for line in (await process.stdout.read()).splitlines():
            if len(line.split()) == 2:
                acknowledged[int(line.split()[0])] = int(line.split()[1])
        await process.wait()
    notes = dict(await pool.fetch("SELECT id, text FROM interaction_notes"))
    assert {note: f"note {n}" for n, note in acknowledged.items()}.items() <= notes.items()
    async with house(pool) as home:
        home.log.settle("main", set())
        assert await home.log.flush()
    found = await rows(pool)
    assert len({row["call"] for row in found}) == len(found)
    assert all(row["outcome"] in ("answered", "lost") for row in found)
    assert sum(row["outcome"] == "lost" for row in found) >= 30


async def test_the_database_away_keeps_everything_and_writes_it_later(migrated: str) -> None:
    async with wire(migrated) as way, asyncpg.create_pool(way.dsn, min_size=1, max_size=2, timeout=1) as pool:
        ada = (await create(pool, NewAccount(name="Ada"))).id
        async with house(pool) as home:
            await way.down()
            home.happen(*(fact for n in range(50) for fact in journey(Scene(f"main:{n}"))))
            assert not await home.log.flush(0.2)
            assert home.log.unwritten == 50
            assert home.log.behind_since is not None
            with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)):
                await home.log.add_note(ANNA, "kept?", call="main:1")
            await way.up()
            assert await home.log.flush(20)
            assert home.log.behind_since is None
            assert await pool.fetchval("SELECT count(*) FROM interactions WHERE outcome = 'answered'") == 50
            assert await pool.fetchval("SELECT count(*) FROM interaction_notes") == 0
            home.happen(known("main:7", ada))  # the look-up's answer, later than all
            assert await home.log.flush()
            assert await pool.fetchval("SELECT account_id FROM interactions WHERE call = 'main:7'") == ada
            assert len(home.of(InteractionClosed)) == 50


async def test_a_person_s_choice_outranks_the_look_up_and_the_number_is_remembered(pool: Any) -> None:
    ada, bob = [(await create(pool, NewAccount(name=name))).id for name in ("Ada", "Bob")]
    async with house(pool) as home:
        call = Scene()
        home.happen(call.originated(), known("main:1", ada))
        await home.log.choose(ANNA, "main:1", bob, None, "+442079460001")
        await home.log.choose(ANNA, "main:1", bob, None, "+442079460001")
        home.happen(known("main:1", ada), call.cleared())
        assert await home.log.flush()
        (row,) = await rows(pool)
        assert (row["account_id"], row["identified_how"], row["identified_by"]) == (bob, "chosen", "anna")
        assert [tuple(r) for r in await pool.fetch("SELECT e164, account_id FROM phones")] == [
            ("+442079460001", bob)
        ]
        with pytest.raises(UnknownInteraction):
            await home.log.choose(ANNA, "main:99", bob, None, None)


async def test_an_account_deleted_meanwhile_spoils_no_batch(pool: Any) -> None:
    async with house(pool) as home:
        home.happen(*journey(Scene("main:1"), 999_999), *journey(Scene("main:2")))
        assert await home.log.flush()
        assert [(r["call"], r["account_id"], r["identified_how"]) for r in await rows(pool)] == [
            ("main:1", None, None),
            ("main:2", None, None),
        ]


async def test_hostile_numbers_and_queues_are_written_as_text(pool: Any) -> None:
    async with house(pool) as home:
        evil = "a\0b\r\n'; DROP TABLE interactions; --" + "x" * 10_000
        scene = Scene(ani=evil, dnis=evil, queue=evil)
        home.happen(scene.originated(), scene.cleared())
        assert await home.log.flush()
        (row,) = await rows(pool)
        assert row["ani"].startswith("ab '; DROP")
        assert len(row["ani"]) <= 128


async def test_a_note_is_committed_when_acknowledged_even_before_the_row_was_written(pool: Any) -> None:
    async with house(pool, writing=False) as home:
        call = Scene()
        home.happen(call.originated(), call.established("anna"))
        note = await home.log.add_note(ANNA, "  wants <b>tea</b>\r\n\0twice \u202e", call="main:1")
        assert note.text == "wants <b>tea</b>\ntwice"
        (row,) = await rows(pool)
        assert (row["agents"], row["ended"]) == (["anna"], None)
        (told,) = home.of(InteractionNoted)
        assert (told.call, told.interaction, told.note, told.version, told.author) == (
            "main:1",
            row["id"],
            note.id,
            1,
            "anna",
        )
        second = await home.log.add_note(BEN, "more", interaction=row["id"])
        full = await get_interaction(pool, row["id"])
        assert [n.text for n in full.notes] == [note.text, "more"]
        assert second.interaction == full.id


async def test_notes_are_changed_by_their_author_from_the_version_they_read(pool: Any) -> None:
    async with house(pool, writing=False) as home:
        home.happen(Scene().originated())
        note = await home.log.add_note(ANNA, "one", call="main:1")
        changed = await home.log.edit_note(ANNA, note.id, "two", version=1)
        assert (changed.version, changed.text, changed.created) == (2, "two", note.created)
        assert changed.changed is not None
        with pytest.raises(ChangedMeanwhile):
            await home.log.edit_note(ANNA, note.id, "three", version=1)
        with pytest.raises(NotYourNote):
            await home.log.edit_note(BEN, note.id, "three", version=2)
        with pytest.raises(UnknownNote):
            await home.log.edit_note(ANNA, 999, "three", version=1)
        assert (await home.log.edit_note(ADMIN, note.id, "three", version=2)).version == 3


async def test_wrong_notes_and_dispositions_are_refused(pool: Any) -> None:
    async with house(pool, writing=False) as home:
        home.happen(Scene().originated())
        for text in ("", " \r\n\0", "x" * (LONGEST_NOTE + 1), "x" * 1_000_000):
            with pytest.raises(WrongText):
                await home.log.add_note(ANNA, text, call="main:1")
        assert len((await home.log.add_note(ANNA, "x" * LONGEST_NOTE, call="main:1")).text) == LONGEST_NOTE
        for call, interaction in (("main:9", None), (None, 999), (None, 1 << 70), (None, None), ("\0", None)):
            with pytest.raises(UnknownInteraction):
                await home.log.add_note(ANNA, "x", call=call, interaction=interaction)
        for word in ("", "x" * 101):
            with pytest.raises(WrongText):
                await home.log.dispose(ANNA, "main:1", word)
        assert (await home.log.dispose(ANNA, "main:1", "Sold")).disposition == "Sold"


async def test_what_is_kept_in_memory_is_bounded(pool: Any) -> None:
    async with house(pool, writing=False, most=100) as home:
        home.happen(*(Scene(f"main:{n}").originated() for n in range(250)))
        assert (home.log.unwritten, home.log.dropped) == (100, 150)


async def test_an_account_s_interactions_are_paged_newest_first_without_gap_or_repeat(pool: Any) -> None:
    ada = (await create(pool, NewAccount(name="Ada"))).id
    await pool.execute(
        """INSERT INTO interactions (call, pbx, started, touched, account_id)
           SELECT 'm:' || n, 'm', '2026-01-01Z'::timestamptz + (n / 3) * interval '1.000001 s', now(), $1
           FROM generate_series(1, 50) n""",
        ada,
    )
    seen: list[int] = []
    cursor = None
    while True:
        page = await list_interactions(pool, ada, limit=7, cursor=cursor)
        seen += [interaction.id for interaction in page.items]
        if (cursor := page.cursor) is None:
            break
    order = await pool.fetch("SELECT id FROM interactions ORDER BY started DESC, id DESC")
    assert seen == [row["id"] for row in order]
    for wrong in (
        "",
        "x",
        "!!!!",
        "bnVsbA",
        "W10",
        "WzEsMl0x",
        "WzksIngiXQ",
        "Wzk5OTk5OTk5OTk5OTk5OTk5OSwxXQ",
        "A" * 5_000,
    ):
        with pytest.raises(WrongCursor):
            await list_interactions(pool, ada, cursor=wrong)


async def test_the_plans_of_the_hot_statements_use_their_indexes(pool: Any) -> None:
    ada = (await create(pool, NewAccount(name="Ada"))).id
    await pool.execute(
        """INSERT INTO interactions (call, pbx, started, touched, ended, account_id)
           SELECT 'm:' || n, 'm', now() - n * interval '1 min', now(), now(), $1 FROM generate_series(1, 20000) n""",
        ada,
    )
    await pool.execute("ANALYZE interactions")
    page = await pool.fetch(
        "EXPLAIN SELECT id FROM interactions WHERE account_id = $1 ORDER BY started DESC, id DESC LIMIT 50",
        ada,
    )
    assert "interactions_of_account" in str(page)
    assert "Sort" not in str(page)
    settle = await pool.fetch(
        "EXPLAIN UPDATE interactions SET outcome = 'lost' WHERE pbx = 'm' AND ended IS NULL"
    )
    assert "interactions_running" in str(settle)


async def test_flush_waits_for_what_was_told_while_writing(pool: Any) -> None:
    async with house(pool, linger=0.2) as home:
        for n in range(20):
            home.happen(*journey(Scene(f"main:{n}")))
            await asyncio.sleep(0)
        assert await home.log.flush()
        assert await pool.fetchval("SELECT count(*) FROM interactions WHERE ended IS NOT NULL") == 20
        home.happen(*journey(Scene("main:99")))
        await eventually(lambda: home.log.unwritten == 0)
