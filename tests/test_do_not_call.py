"""Do-not-call lists, national registers, consents, and what a claim reads of them: on a real PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from dialer.compliance import judge
from dialer.law import do_not_call
from dialer.law.consents import Word, WrongConsent, record, words_of
from dialer.law.do_not_call import NoSuchEntry, WrongEntry
from dialer.law.known import KNOWN, NEVER_ENDING, NoSuchCampaign, check_all, known_for
from dialer.law.profiles import Attempts
from dialer.law.registers import Lines, WrongRegister
from tests.law_desk import GB, NOON, NUMBER, LawDesk, candidate, law_desk


@pytest.fixture
async def desk(tables: str) -> AsyncIterator[LawDesk]:
    async with law_desk(tables) as desk:
        yield desk


# ------------------------------------------------------------------------------------------------ our own lists


async def test_an_entry_holds_at_once_where_it_is_meant_to(desk: LawDesk) -> None:
    spring = await desk.campaign("spring", company="Acme")
    autumn = await desk.campaign("autumn", company="Other")
    await desk.register("02079460999\n")

    async def refused(of: int) -> bool:
        verdict = (await check_all(desk.pool, [candidate()], of, GB, NOON))[1]
        assert {step.rule for step in verdict.steps if not step.ok} <= {"do_not_call"}
        return not verdict.allowed

    assert [await refused(spring), await refused(autumn)] == [False, False]
    one = await do_not_call.add(desk.pool, number=NUMBER, scope="campaign", campaign=autumn, by="anna")
    assert [await refused(spring), await refused(autumn)] == [False, True]
    two = await do_not_call.add(
        desk.pool, number=NUMBER, scope="company", company=" ACME", by="anna", reason="asked to"
    )
    assert [await refused(spring), await refused(autumn)] == [True, True]
    await do_not_call.remove(desk.pool, one.id, by="olga", why="a mistake")
    await do_not_call.remove(desk.pool, two.id, by="olga", why="a mistake")
    assert [await refused(spring), await refused(autumn)] == [False, False]
    await do_not_call.add(desk.pool, number=NUMBER, scope="everywhere", by="anna")
    assert [await refused(spring), await refused(autumn)] == [True, True]
    found = await do_not_call.entries_of(desk.pool, NUMBER)
    assert [(entry.scope, entry.removed_by) for entry in found] == [
        ("everywhere", None),
        ("company", "olga"),
        ("campaign", "olga"),
    ]
    with pytest.raises(NoSuchEntry):
        await do_not_call.remove(desk.pool, one.id, by="olga", why="again")


async def test_the_same_entry_is_kept_once_and_lasts_as_long_as_ever_asked(desk: LawDesk) -> None:
    soon, later = datetime.now(UTC) + timedelta(days=60), datetime.now(UTC) + timedelta(days=90)

    async def add(expires: datetime | None) -> do_not_call.DoNotCallEntry:
        return await do_not_call.add(desk.pool, number=NUMBER, scope="everywhere", by="anna", expires=expires)

    first = await add(soon)
    assert [(await add(e)).expires for e in (later, soon, None, soon)] == [later, later, None, None]
    assert (await add(None)).id == first.id
    assert len(await do_not_call.entries(desk.pool, before=None, limit=10)) == 1


async def test_an_expired_entry_holds_no_longer_but_did(desk: LawDesk) -> None:
    of = await desk.campaign()
    await desk.pool.execute(
        """INSERT INTO do_not_call (number, scope, added, added_by, expires)
           VALUES (442079460151, 'everywhere', '2026-10-01Z', 'anna', '2026-11-01Z')"""
    )
    then = datetime(2026, 10, 20, tzinfo=UTC)
    assert (await known_for(desk.pool, [candidate()], of, NOON))[1].listed == ()
    assert (await known_for(desk.pool, [candidate()], of, then, as_of=True))[1].listed[0].list == "everywhere"
    before = datetime(2026, 9, 1, tzinfo=UTC)
    assert (await known_for(desk.pool, [candidate()], of, before, as_of=True))[1].listed == ()


async def test_a_wrong_entry_is_refused(desk: LawDesk) -> None:
    for given, complaint in (
        ({"number": "02079460151"}, "E.164"),
        ({"number": "+0442079460151"}, "E.164"),
        ({"number": "+4420794601511234"}, "E.164"),
        ({"scope": "company"}, "for which company"),
        ({"scope": "campaign"}, "in which campaign"),
        ({"scope": "campaign", "campaign": 99}, "no such campaign"),
        ({"expires": datetime(2026, 1, 1, tzinfo=UTC)}, "past"),
    ):
        with pytest.raises(WrongEntry, match=complaint):
            await do_not_call.add(desk.pool, **{"number": NUMBER, "scope": "everywhere", "by": "x", **given})


# ------------------------------------------------------------------------------------------------ registers


@pytest.mark.parametrize(
    ("country", "line", "number"),
    [
        ("US", "2125550123", 12125550123),
        ("US", "212,5550123", 12125550123),
        ("US", '"(212) 555-0123"', 12125550123),
        ("US", "1-212-555-0123", 12125550123),
        ("US", "+1 212 555 0123", 12125550123),
        ("GB", "02079460151", 442079460151),
        ("GB", "2079460151", 442079460151),
        ("GB", "442079460151", 442079460151),
        ("GB", "00442079460151", 442079460151),
        ("GB", "Smith;020 7946 0151;London", 442079460151),
        ("FR", "01.23.45.67.89", 33123456789),
        ("PL", "22 123 45 67", 48221234567),
        ("US", "12345", None),
        ("US", "no number here", None),
        ("GB", "", None),
    ],
)
def test_lines_as_registers_write_them(country: str, line: str, number: int | None) -> None:
    lines = Lines(country)
    text = f"phone number\n{line}\n".encode()
    assert list(lines.numbers(text, last=True)) == ([number] if number else [])
    assert lines.read.refused == (1 if line and number is None else 0)


def test_a_file_may_be_cut_anywhere() -> None:
    text = "".join(f"0207946{n:04}\r\n" for n in range(200)).encode()
    for size in (1, 7, 100, 5000):
        lines = Lines("GB")
        found: list[int] = []
        for at in range(0, len(text), size):
            found += lines.numbers(text[at : at + size])
        found += lines.numbers(b"", last=True)
        assert found == [442079460000 + n for n in range(200)]


async def test_a_register_is_loaded_and_replaced_in_one_moment(desk: LawDesk) -> None:
    rng = random.Random(7)
    dense = [f"0207946{n:04}" for n in range(0, 10_000, 3)]
    sparse = [f"07{rng.randrange(10**9):09}" for _ in range(5_000)]
    lines = dense + sparse + dense[:50] + ["nonsense"]
    rng.shuffle(lines)
    told, read = await desk.register("number\n" + "\n".join(lines))
    assert (told.state, told.numbers, told.refused) == ("active", len({*dense, *sparse}), 1)
    assert "no number of this country" in read.samples[0]

    async def on(national: str) -> list[str]:
        return [e.register for e in await do_not_call.registers_with(desk.pool, f"+44{national[1:]}")]

    assert await on(dense[-1]) == ["gb-tps"]
    assert all([await on(number) == ["gb-tps"] for number in rng.sample(sparse, 20)])
    assert await on("02079460001") == []
    with pytest.raises(
        WrongRegister, match=r"holds 1 numbers and the edition of 2037-11-10.* 8,3\d\d: .*--smaller"
    ):
        await desk.register("02079460001\n", date(2037, 11, 20))
    assert await on(dense[-1]) == ["gb-tps"]
    newer, _ = await desk.register("02079460001\n", date(2037, 11, 20), smaller=True)
    assert (await on("02079460001"), await on(dense[-1])) == (["gb-tps"], [])
    assert [(e.id, e.state) for e in await do_not_call.editions(desk.pool)] == [
        (newer.id, "active"),
        (told.id, "replaced"),
    ]
    assert await desk.pool.fetchval("SELECT count(*) FROM do_not_call_blocks") == 1


async def test_a_wrong_file_leaves_the_edition_in_force(desk: LawDesk) -> None:
    told, _ = await desk.register("02079460001\n")
    for text, given, complaint in (
        ("", {}, "holds no numbers"),
        ("02079460002\n" + "what\n" * 9, {}, "9 of 10 lines hold no number of GB"),
        ("02079460002\n", {"edition": date(2037, 10, 1)}, "2037-11-10 is in force: 2037-10-01 is older"),
        ("02079460002\n", {"country": "ZZ"}, "no country"),
        ("02079460002\n", {"register": "GB TPS"}, "small letters"),
        ("0" * 200_000, {}, "no file of numbers"),
    ):
        with pytest.raises(WrongRegister, match=complaint):
            await desk.register(text, **given)
        assert [e.id for e in await do_not_call.editions(desk.pool)] == [told.id]
    assert await do_not_call.registers_with(desk.pool, "+442079460001")
    assert await desk.pool.fetchval("SELECT count(*) FROM do_not_call_blocks") == 1


async def test_a_stale_register_stops_calls_until_it_is_renewed(desk: LawDesk) -> None:
    of = await desk.campaign()

    async def verdict() -> Any:
        return (await check_all(desk.pool, [candidate()], of, GB, NOON))[1]

    assert "no edition of the register gb-tps is loaded" in (await verdict()).why_not
    await desk.register("02079460999\n", date(2037, 10, 20))
    assert "35 days old: older than the 28 days allowed" in (await verdict()).why_not
    await desk.register("02079460999\n", date(2037, 11, 20))
    assert (await verdict()).allowed
    await desk.register("02079460151\n", date(2037, 11, 21))
    assert (await verdict()).why_not == "on the register gb-tps, edition of 2037-11-21"


# ------------------------------------------------------------------------------------------------ consents


SAID = datetime(2025, 11, 24, 12, tzinfo=UTC)


def said(given: bool, days_ago: int, **more: Any) -> Word:
    return Word(
        **{"number": NUMBER, "given": given, "source": "form", "at": SAID - timedelta(days=days_ago), **more}
    )


async def test_the_last_word_on_consent_counts(desk: LawDesk) -> None:
    of = await desk.campaign()

    async def state(**given: Any) -> tuple[bool, str] | None:
        consent = (await known_for(desk.pool, [candidate(**given)], of, NOON))[1].consent
        return (consent.given, consent.purpose) if consent else None

    assert await state() is None
    past = SAID - timedelta(days=4)
    await record(
        desk.pool,
        [said(True, 30), said(True, 20, purpose="surveys"), said(True, 1, channel="sms")],
        by="anna",
    )
    assert await state() == (True, "marketing")
    await record(desk.pool, [said(False, 10, purpose="surveys")], by="anna")
    assert await state() == (True, "marketing")
    alone = await desk.campaign("alone", mode="agentless", purpose="Marketing")

    async def to_recorded_calls() -> bool | None:
        consent = (await known_for(desk.pool, [candidate()], alone, NOON))[1].consent
        return consent.given if consent else None

    assert await to_recorded_calls() is None  # consent to calls is none to a machine's
    await record(desk.pool, [said(True, 9, channel="recorded")], by="anna")
    assert (await to_recorded_calls(), await state()) == (True, (True, "marketing"))
    machines = await desk.campaign("machines", machine_message="custom/offer")
    about = (await known_for(desk.pool, [candidate()], machines, NOON))[1]
    assert about.consent is not None
    assert about.recorded is not None
    assert (about.consent.id, about.recorded.id) == (1, 5)
    assert (await known_for(desk.pool, [candidate()], of, NOON))[1].recorded is None  # it leaves none
    await record(desk.pool, [said(False, 3, purpose="")], by="anna")
    assert (await to_recorded_calls(), await state()) == (False, (False, ""))
    then = (await known_for(desk.pool, [candidate()], of, past, as_of=True))[1].consent
    assert then is not None
    assert then.given
    await record(desk.pool, [said(True, 2, purpose="Marketing ")], by="anna")
    assert await state() == (True, "Marketing ")
    await record(desk.pool, [said(False, 1, number="", person="c-7")], by="anna")
    assert await state() == (True, "Marketing ")  # nobody said that the number is this person's
    assert await state(person="c-7") == (False, "marketing")
    assert len(await words_of(desk.pool, number=NUMBER)) == 7
    assert len(await words_of(desk.pool, number=NUMBER, person="c-7")) == 8


async def test_whose_word_holds_for_whom(desk: LawDesk) -> None:
    of, other = await desk.campaign(), "+442079460777"

    async def consented(number: str, person: str) -> bool:
        known = (await known_for(desk.pool, [candidate(1, number, person=person)], of, NOON))[1]
        return known.consent is not None and known.consent.given

    async def all_of_them() -> list[bool]:
        return [
            await consented(n, p) for n, p in ((NUMBER, "ada"), (NUMBER, "bob"), (NUMBER, ""), (other, "ada"))
        ]

    await record(desk.pool, [said(True, 9, person="ada")], by="x")
    assert await all_of_them() == [True, False, True, False]  # bob shares the telephone, not the consent
    await record(desk.pool, [said(True, 8, number="", person="ada")], by="x")
    assert await all_of_them() == [True, False, True, True]
    await record(desk.pool, [said(False, 7, person="ada")], by="x")
    assert await all_of_them() == [False, False, False, False]


async def test_the_same_word_is_kept_once(desk: LawDesk) -> None:
    word = said(True, 30)
    assert len(await record(desk.pool, [word, word], by="import")) == 1
    assert await record(desk.pool, [word], by="import") == []


async def test_a_wrong_consent_is_refused_and_none_is_kept(desk: LawDesk) -> None:
    for wrong, complaint in (
        ({"number": ""}, "whose consent"),
        ({"number": "0207"}, "E.164"),
        ({"purpose": ""}, "given for something"),
        ({"source": " "}, "how it was given"),
        ({"at": datetime(2026, 1, 1)}, "with its zone"),  # noqa: DTZ001
        ({"at": datetime.now(UTC) + timedelta(days=1)}, "in the past"),
        ({"channel": "telex"}, "one of call"),
    ):
        with pytest.raises((WrongConsent, WrongEntry), match=complaint):
            await record(desk.pool, [said(True, 1), said(True, 1, **wrong)], by="x")
    assert await words_of(desk.pool, number=NUMBER) == []


# ------------------------------------------------------------------------------------------------ what a claim reads


async def test_attempts_are_counted_for_number_and_person(desk: LawDesk) -> None:
    of = await desk.campaign()
    await desk.attempt(1, of, NOON - timedelta(hours=80), "abandoned", answered=NOON - timedelta(hours=80))
    await desk.attempt(2, of, NOON - timedelta(hours=5), "machine")
    await desk.attempt(3, of, NOON - timedelta(hours=4), "failed", dialed=None)  # never left this house
    await desk.attempt(4, of, NOON - timedelta(hours=3), person="c-7", e164="+442079460777")
    await desk.attempt(5, of, NOON - timedelta(days=30, hours=1))
    number = (await known_for(desk.pool, [candidate()], of, NOON))[1]
    assert [NOON - at for at in number.attempts_of_number] == [timedelta(hours=5), timedelta(hours=80)]
    assert (number.attempts_of_person, number.under_way) == ((), False)
    assert number.last_abandoned == NOON - timedelta(hours=80) + timedelta(seconds=20)
    assert number.last_machine == NOON - timedelta(hours=5) + timedelta(seconds=20)
    person = (await known_for(desk.pool, [candidate(person="c-7")], of, NOON))[1]
    assert len(person.attempts_of_person) == 1
    # Whose several numbers stand in one row of a list is one person, customer number or not.
    await desk.attempt(6, of, NOON - timedelta(hours=2), "machine", e164="+442079460888", contact_id=9)
    both = candidate(9, other_numbers=("+442079460888",))
    row = (await known_for(desk.pool, [both], of, NOON))[9]
    assert [NOON - at for at in row.attempts_of_person] == [timedelta(hours=2)]
    assert row.last_machine == NOON - timedelta(hours=2) + timedelta(seconds=20)
    once = replace(GB, per_person=Attempts(day=1), rest_after_machine_h=0.0)
    refused = [step.rule for step in judge(once, both, row, NOON).steps if not step.ok]
    assert "attempts_per_person" in refused
    then = (await known_for(desk.pool, [candidate()], of, NOON - timedelta(hours=6), as_of=True))[1]
    assert (len(then.attempts_of_number), then.last_machine) == (2, None)  # it was 30 days ago then


async def test_nobody_is_called_twice_at_once(desk: LawDesk) -> None:
    of = await desk.campaign()
    await desk.register("02079460999\n")
    await desk.attempt(1, of, NOON - timedelta(seconds=10), None)
    verdict = (await check_all(desk.pool, [candidate()], of, GB, NOON))[1]
    assert "is being called at this moment" in verdict.why_not
    assert verdict.not_before == NOON + timedelta(minutes=10)
    batch = [candidate(n, f"+44207946020{n % 3}", person="p" if n in (4, 5) else "") for n in range(6)]
    verdicts = await check_all(desk.pool, batch, of, GB, NOON)
    assert [n for n, verdict in verdicts.items() if verdict.allowed] == [0, 1, 2]


async def test_two_servers_never_allow_one_number(desk: LawDesk) -> None:
    of = await desk.campaign()
    await desk.register("02079460999\n")
    async with desk.pool.acquire() as one, desk.pool.acquire() as other, one.transaction():
        first = await check_all(one, [candidate(1), candidate(3, "+442079460303")], of, GB, NOON)
        async with other.transaction():
            second = await check_all(other, [candidate(2), candidate(4, "+442079460404")], of, GB, NOON)
        assert [first[1].allowed, first[3].allowed] == [True, True]
        assert [second[2].allowed, second[4].allowed] == [False, True]
        assert "another server" in second[2].why_not
        assert second[2].not_before == NOON + timedelta(minutes=10)
    assert (await check_all(desk.pool, [candidate(2)], of, GB, NOON))[2].allowed


async def test_there_must_be_such_a_campaign(desk: LawDesk) -> None:
    with pytest.raises(NoSuchCampaign):
        await check_all(desk.pool, [candidate()], 77, GB, NOON)
    assert await check_all(desk.pool, [], 77, GB, NOON) == {}


async def test_a_claim_reads_by_indexes_alone(desk: LawDesk) -> None:
    of = await desk.campaign()
    await desk.pool.execute(
        """INSERT INTO attempts (id, campaign_id, e164, person, pbx, mode, profile, owner, state, committed, dialed, outcome)
           SELECT 'at-' || md5(n::text), $1, '+44207' || (1000000 + n % 7000),
                  CASE WHEN n % 2 = 0 THEN 'p' || n ELSE '' END,
                  'main', 'predictive', 'GB', 'x', 'ended', now() - n * interval '30 seconds', now(), 'no_answer'
           FROM generate_series(1, 15000) n""",
        of,
    )
    await desk.pool.execute(
        """INSERT INTO do_not_call (number, scope, added_by)
           SELECT 442071000000 + n, 'everywhere', 'x' FROM generate_series(1, 8000) n"""
    )
    await desk.pool.execute(
        """INSERT INTO consents (number, person, channel, purpose, given, source, at, noted_by)
           SELECT 442071000000 + n, 'p' || n, 'call', 'marketing', true, 'x', now(), 'x'
           FROM generate_series(1, 8000) n"""
    )
    await desk.register("".join(f"07{n * 7919 % 10**9:09}\n" for n in range(20_000)))
    await desk.pool.execute("ANALYZE")
    numbers = [f"+44207{1000000 + n}" for n in range(100)]
    # A prepared statement's plan as a claim gets it, with values in place of parameters.
    async with desk.pool.acquire() as db:
        rows = await db.fetch(
            "EXPLAIN " + KNOWN, numbers, ["p2"] * 100, of, NOON, NEVER_ENDING, [0, *range(1, 100)]
        )
    plan = "\n".join(row[0] for row in rows)
    assert not {"attempts", "do_not_call", "do_not_call_blocks", "consents"} & {
        line.split("Seq Scan on ")[1].split()[0] for line in plan.splitlines() if "Seq Scan on" in line
    }, plan
    for index in (
        "attempts_of_number",
        "attempts_of_person",
        "attempts_of_contact",
        "do_not_call_blocks_pkey",
        "do_not_call_of_number",
        "consents_once",
        "consents_of_person",
    ):
        assert index in plan, f"{index}\n{plan}"


async def test_a_lookup_asks_the_register_by_its_index(desk: LawDesk) -> None:
    await desk.register("".join(f"07{n * 7919 % 10**9:09}\n" for n in range(20_000)))
    plan = str(
        await desk.pool.fetch(
            """EXPLAIN SELECT 1 FROM do_not_call_editions e JOIN do_not_call_blocks b
               ON b.edition = e.id AND b.block = 447000000000 / 10000 WHERE e.state = 'active'"""
        )
    )
    assert "do_not_call_blocks_pkey" in plan
