"""The ledger of abandoned calls, evidence, and why a number was (not) called: on a real PostgreSQL."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialer.law import do_not_call
from dialer.law.consent_files import import_file
from dialer.law.consent_lists import NoSuchList, take_over
from dialer.law.consents import Word, WrongConsent, record, words_of
from dialer.law.evidence import AttemptEvidence, attempts_of, heading, wait_told, written
from dialer.law.known import check_all
from dialer.law.ledger import COUNTED, Abandonment, Sum, abandonment, for_pace, stand, sum_hours
from dialer.law.profiles import load
from dialer.law.why import why
from tests.law_desk import GB, NOON, NUMBER, LawDesk, candidate, law_desk

PROFILES = load()
US = PROFILES["US"]


@pytest.fixture
async def desk(tables: str) -> AsyncIterator[LawDesk]:
    async with law_desk(tables) as desk:
        yield desk


# ------------------------------------------------------------------------------------------------ ledger, pure


def hours(*counts: tuple[int, int]) -> list[Sum]:
    """(live, abandoned) of hours up to NOON, the oldest first."""
    first = NOON - timedelta(hours=len(counts))
    return [Sum(hour=first + timedelta(hours=n), live=a, abandoned=b) for n, (a, b) in enumerate(counts)]


def test_how_many_more_may_be_lost_and_until_when() -> None:
    told = stand(7, US, hours((1000, 27), (0, 0)), NOON)
    assert (told.live, told.abandoned, told.spare) == (1000, 27, 3)
    assert told.until == NOON + timedelta(days=30, hours=-1)
    assert told.says == (
        "27 of 1000 live answers lost in 30 days, 2.70% of 3.00% allowed: "
        "3 more may be lost until 2037-12-24 11:00 UTC"
    )
    told = stand(7, US, hours((1000, 30)), NOON)
    assert told.spare == 0
    assert "none may be lost" in told.says
    assert "2 too many" in stand(7, US, hours((1000, 31)), NOON).says
    assert (
        stand(7, US, [], NOON).says
        == "0 of 0 live answers lost in 30 days, 0.00% of 3.00% allowed: none may be lost"
    )


def test_late_agents_and_wrong_machines_count_where_the_law_counts_them() -> None:
    one = Sum(hour=NOON - timedelta(hours=1), live=1000, abandoned=15, late=5, machines=800)
    told = stand(7, US, [one], NOON)
    assert (told.share, told.late, told.nobody) == (0.015, 5, 10)
    told = stand(7, GB, [one], NOON)  # 1 % of the machines are taken for people
    assert (told.amd_errors, told.share) == (8.0, round(23 / 1008, 6))


@settings(max_examples=120)
@given(live=st.integers(0, 5000), lost=st.integers(0, 200), cap=st.sampled_from([0.0, 0.01, 0.03, 0.05]))
def test_what_may_be_lost_keeps_the_cap_and_one_more_would_not(live: int, lost: int, cap: float) -> None:
    lost = min(lost, live)
    spare = stand(1, replace(US, abandonment_cap=cap), hours((live, lost)), NOON).spare
    if spare >= 0:
        assert lost + spare <= cap * (live + spare) + 1e-6
        assert lost + spare + 1 > cap * (live + spare + 1) - 1e-6
    else:
        assert lost > cap * live


# ------------------------------------------------------------------------------------------------ ledger, stored


async def fill(desk: LawDesk, of: int, count: int = 4000, every: int = 600, until: datetime = NOON) -> None:
    """Attempts up to then: two of three answered, each twentieth of those abandoned, some by machines."""
    await desk.pool.execute(
        """INSERT INTO attempts (id, campaign_id, e164, pbx, mode, profile, owner, state, committed, dialed, answered,
                                 connected, waited, ended, outcome, counts_as)
           SELECT 'at-' || md5($1::bigint || '-' || n), $1::bigint, '+44207' || (1000000 + n), 'main', 'predictive', 'GB',
                  'x', 'ended', at, at,
                  CASE WHEN n % 3 <> 0 THEN at + interval '9 seconds' END,
                  CASE WHEN n % 3 <> 0 AND n % 20 > 1 THEN at + interval '10 seconds' END,
                  CASE WHEN n % 50 = 7 THEN 2.5 ELSE 1 END,
                  at + interval '60 seconds',
                  CASE WHEN n % 3 = 0 THEN 'no_answer' WHEN n % 20 = 0 THEN 'abandoned' WHEN n % 20 = 1 THEN 'machine'
                       ELSE 'connected' END,
                  CASE WHEN n % 3 = 0 THEN NULL WHEN n % 20 = 0 THEN 'nobody' WHEN n % 20 = 1 THEN 'machine'
                       WHEN n % 50 = 7 THEN 'late' ELSE 'in_time' END
           FROM (SELECT n, $2::timestamptz - n * $4 * interval '1 second' AS at FROM generate_series(1, $3) n) s""",
        of,
        until,
        count,
        every,
    )


def same(one: Abandonment, other: Abandonment) -> bool:
    return msgspec.structs.asdict(one) == msgspec.structs.asdict(other)


async def test_sums_of_hours_tell_what_counting_all_attempts_tells(desk: LawDesk) -> None:
    of, other = await desk.campaign("one"), await desk.campaign("other")
    await fill(desk, of)
    await fill(desk, other, 50)
    counted = await abandonment(desk.pool, of, US, NOON, sum_up=False)
    assert counted.live > 2000
    assert counted.abandoned > 100
    assert counted.late > 20
    assert counted.machines > 100
    assert same(await abandonment(desk.pool, of, US, NOON), counted)
    assert await desk.pool.fetchval("SELECT count(*) FROM abandonment_hours WHERE campaign_id = $1", of) > 600
    assert await desk.pool.fetchval(
        "SELECT until FROM abandonment_sums WHERE campaign_id = $1", of
    ) == NOON - timedelta(hours=1)
    # A window that begins and ends within an hour, summed or not.
    for minutes in (0, 17, 95):
        now = NOON + timedelta(minutes=minutes)
        for profile in (US, GB, replace(US, abandonment_window_h=1.5)):
            summed = await abandonment(desk.pool, of, profile, now)
            await desk.pool.execute("DELETE FROM abandonment_sums")
            plain = await abandonment(desk.pool, of, profile, now, sum_up=False)
            assert same(summed, plain), (minutes, profile.name)
            await desk.pool.execute("DELETE FROM abandonment_hours")


async def test_the_pace_is_told_the_laws_whole_window_each_answer_once(desk: LawDesk) -> None:
    of, now = await desk.campaign(), datetime.now(UTC)
    await fill(desk, of, until=now)
    for profile, hours, most in ((US, 24, 800), (US, 0.5, 800), (GB, 24, 200)):
        told = await for_pace(desk.pool, of, hours, profile.abandonment_window_h, now)
        ledger = await abandonment(desk.pool, of, profile, now)
        assert [sum(counts) for counts in list(zip(*told, strict=True))[1:]] == [
            ledger.live,
            ledger.abandoned,
            ledger.machines,
        ]
        ages = [ago for ago, *_ in told]
        assert ages == sorted(ages, reverse=True)
        assert len(told) < most


async def test_an_hour_with_an_open_call_is_not_summed(desk: LawDesk) -> None:
    of = await desk.campaign()
    await fill(desk, of, 300)
    at = NOON - timedelta(hours=5, minutes=30)
    call = await desk.attempt(1, of, at, None, answered=at, state="answered")
    before = await abandonment(desk.pool, of, US, NOON)
    assert await desk.pool.fetchval("SELECT until FROM abandonment_sums") == NOON - timedelta(hours=6)
    await desk.pool.execute(
        "UPDATE attempts SET state = 'ended', outcome = 'abandoned', counts_as = 'nobody' WHERE id = $1", call
    )
    after = await abandonment(desk.pool, of, US, NOON)
    assert (after.live, after.abandoned) == (before.live + 1, before.abandoned + 1)
    assert await desk.pool.fetchval("SELECT until FROM abandonment_sums") == NOON - timedelta(hours=1)


async def test_servers_that_sum_at_once_count_once(desk: LawDesk) -> None:
    import asyncio

    of = await desk.campaign()
    await fill(desk, of, 1000)
    await asyncio.gather(*(sum_hours(desk.pool, of, NOON) for _ in range(5)))
    await sum_hours(desk.pool, of, NOON)
    summed = await desk.pool.fetchrow(
        "SELECT sum(live) AS live, sum(abandoned) AS abandoned FROM abandonment_hours"
    )
    await desk.pool.execute("DELETE FROM abandonment_sums")
    counted = await abandonment(desk.pool, of, US, NOON - timedelta(hours=1), sum_up=False)
    until = await desk.pool.fetchrow(
        """SELECT count(*) FILTER (WHERE outcome <> 'machine') AS live,
                  count(*) FILTER (WHERE counts_as IN ('late', 'nobody')) AS abandoned
           FROM attempts WHERE answered < $1""",
        NOON - timedelta(hours=1),
    )
    assert dict(summed) == dict(until)
    assert counted.live >= until["live"]


async def test_the_ledger_reads_by_its_index_alone(desk: LawDesk) -> None:
    of = await desk.campaign()
    await fill(desk, of, 20_000, 60)
    await desk.pool.execute("VACUUM ANALYZE attempts")
    async with desk.pool.acquire() as db:
        rows = await db.fetch("EXPLAIN " + COUNTED, of, NOON - timedelta(hours=2), NOON)
    plan = "\n".join(row[0] for row in rows)
    assert "Index Only Scan using attempts_answered" in plan, plan


# ------------------------------------------------------------------------------------------------ evidence


async def test_evidence_is_complete_and_in_order(desk: LawDesk) -> None:
    of = await desk.campaign("=danger()")
    checks = [{"rule": "consent", "ok": True, "says": "consented, on paper", "source": "law"}]
    at = NOON - timedelta(days=1)
    await desk.attempt(
        1, of, at, "answered", ringing=at + timedelta(seconds=2), answered=at + timedelta(seconds=8.5),
        connected=at + timedelta(seconds=9.75), waited=1.25, agent="anna", consent="no. 4", list_version=3,
        wait_s=2.0, wait_from="greeting", counts_as="in_time",
        checks=msgspec.json.encode(checks).decode(), caller_id="+442079460000",
    )  # fmt: skip
    await desk.attempt(
        2, of, at + timedelta(seconds=1), "abandoned", ringing=at, answered=at, message_played=at
    )
    await desk.attempt(3, of, at - timedelta(days=9))
    found = [one async for portion in attempts_of(desk.pool, of) for one in portion]
    assert [one.attempt[-1] for one in found] == ["3", "1", "2"]
    one = found[1]
    assert (one.ring_s, one.to_agent_s, one.agent, one.list_version, one.checks) == (
        6.5,
        1.25,
        "anna",
        3,
        checks,
    )
    assert (one.wait_s, one.wait_from) == (2.0, "greeting")
    assert wait_told(one) == "an agent 1.25 s after the end of the greeting (at most 2 s)"
    assert (found[2].to_agent_s, found[2].message_played, wait_told(found[2])) == (None, at, "")
    some = [
        one
        async for portion in attempts_of(desk.pool, of, since=at, before=at + timedelta(seconds=1))
        for one in portion
    ]
    assert [one.attempt[-1] for one in some] == ["1"]
    text = (heading("csv") + written(found, "csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == list(AttemptEvidence.__struct_fields__)
    assert (rows[1]["ring_s"], rows[1]["caller_id"], rows[1]["campaign_name"]) == (
        "6.5",
        "+442079460000",
        "'=danger()",
    )
    assert msgspec.json.decode(rows[1]["checks"]) == checks
    lines = [msgspec.json.decode(line) for line in written(found, "jsonl").splitlines()]
    assert [line["outcome"] for line in lines] == ["no_answer", "answered", "abandoned"]


async def test_evidence_of_many_attempts_comes_in_portions(desk: LawDesk) -> None:
    of = await desk.campaign()
    await fill(desk, of, 2500)
    # Many at one moment: the next portion begins where the last one ended, not at the moment after.
    await desk.pool.execute(
        "UPDATE attempts SET committed = $1 WHERE committed < $2", NOON, NOON - timedelta(days=10)
    )
    portions = [portion async for portion in attempts_of(desk.pool, of)]
    assert [len(portion) for portion in portions] == [1000, 1000, 500]
    assert len({one.attempt for portion in portions for one in portion}) == 2500


# ------------------------------------------------------------------------------------------------ why


async def contact(desk: LawDesk, of: int | None, name: str = "autumn", **given: Any) -> int:
    group = await desk.pool.fetchval(
        """INSERT INTO zone_groups (country, region, zones) VALUES ('GB', '', '{Europe/London}')
           ON CONFLICT (country, region, zones) DO UPDATE SET country = EXCLUDED.country RETURNING id"""
    )
    listed = await desk.pool.fetchval(
        """INSERT INTO call_lists (name, campaign_id, created_by, changed_by)
           VALUES ($1, $2, 'sara', 'sara') RETURNING id""",
        name,
        of,
    )
    row = {"list_id": listed, "e164": NUMBER, "zone_group": group, **given}
    names, values = ", ".join(row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
    sql = f"INSERT INTO list_contacts ({names}) VALUES ({values}) RETURNING id"
    return int(await desk.pool.fetchval(sql, *row.values()))


async def ask(desk: LawDesk, at: datetime = NOON, number: str = NUMBER) -> Any:
    return await why(desk.pool, number, at, NOON, profiles=lambda: PROFILES)


async def test_why_a_number_is_not_called(desk: LawDesk) -> None:
    assert (await ask(desk)).says == "it is on no list"
    of = await desk.campaign("spring")
    id = await contact(desk, of)
    told = await ask(desk)
    assert told.says == "not called at 2037-11-24 12:00 UTC: list autumn: the campaign spring is draft"
    await desk.pool.execute("UPDATE campaigns SET state = 'running'")
    assert "no edition of the register gb-tps is loaded" in (await ask(desk)).says
    await desk.register("02079460999\n")
    told = await ask(desk)
    assert (
        told.says
        == f"it may be called at 2037-11-24 12:00 UTC: contact {id} of the list autumn waits for its turn"
    )
    assert [step.rule for step in told.contacts[0].steps[:4]] == ["list", "campaign", "contact", "time"]
    assert told.contacts[0].verdict.allowed
    night = await ask(desk, NOON + timedelta(hours=12))
    assert "it is Wed 00:00 in Europe/London" in night.says
    assert night.contacts[0].verdict.not_before == datetime(2037, 11, 25, 8, tzinfo=UTC)
    await desk.pool.execute("UPDATE list_contacts SET state = 'blocked', why = 'asked not to be called'")
    assert "the contact is blocked: asked not to be called" in (await ask(desk)).says
    await desk.pool.execute(
        "UPDATE list_contacts SET state = 'open', not_before = $1", NOON + timedelta(hours=3)
    )
    assert "not before 2037-11-24 15:00 UTC" in (await ask(desk)).says
    for change, says in (
        ("list_contacts SET not_before = '-infinity', attempts = 3", "waits for its turn"),
        (
            "call_lists SET settings = '{\"max_attempts\": 3}'",
            "all attempts are used up: 3 made, 3 by campaign and list",
        ),
        ("list_contacts SET attempts = 1, dead_numbers = ARRAY[e164]", "nobody can be reached on it"),
        (
            "call_lists SET quota_until = '2037-11-25'",
            "a quota of the list autumn is reached: it is not called until",
        ),
        (
            "call_lists SET quota_until = '9999-01-01'",
            "a quota of the list autumn is reached: it is not called;",
        ),
    ):
        await desk.pool.execute(f"UPDATE {change}")
        assert says in (told := f"{(await ask(desk)).says};"), told


async def test_why_at_a_moment_in_the_past(desk: LawDesk) -> None:
    of = await desk.campaign("spring")
    await desk.pool.execute("UPDATE campaigns SET state = 'running'")
    await desk.register("02079460999\n")
    await contact(desk, of, other_numbers=["+442079460333"], person="c-7")
    checks = [{"rule": "consent", "ok": True, "says": "none is needed", "source": "law"}]
    then = NOON - timedelta(hours=3)
    await desk.attempt(1, of, then, "no_answer", checks=msgspec.json.encode(checks).decode())
    told = await ask(desk, then + timedelta(seconds=5))
    assert told.says == "it was being called at 2037-11-24 09:00 UTC, by the campaign spring: no_answer"
    assert told.attempts[0].checks == checks
    assert "could have been called at 2037-11-24 07" not in (await ask(desk, NOON - timedelta(hours=5))).says
    assert "could have been called at 2037-11-24 10:00" in (await ask(desk, NOON - timedelta(hours=2))).says
    other = await ask(desk, number="+442079460333")
    assert [(c.primary, c.list_name) for c in other.contacts] == [(False, "autumn")]


async def test_why_tells_lists_and_consents_too(desk: LawDesk) -> None:
    await contact(desk, await desk.campaign(), person="c-7")
    await do_not_call.add(desk.pool, number=NUMBER, scope="everywhere", by="anna", reason="asked to")
    at = datetime(2025, 1, 1, tzinfo=UTC)
    await record(desk.pool, [Word(person="c-7", given=False, source="letter", at=at)], by="anna")
    await desk.register("02079460151\n", date(2037, 11, 20))
    told = await ask(desk)
    assert [entry.reason for entry in told.do_not_call] == ["asked to"]
    assert [edition.register for edition in told.registers] == ["gb-tps"]
    assert [word.source for word in told.consents] == ["letter"]
    refused = [step.rule for step in told.contacts[0].verdict.steps if not step.ok]
    assert refused == ["do_not_call", "register_gb-tps", "consent"]


async def test_settings_that_no_longer_fit_are_told(desk: LawDesk) -> None:
    await contact(desk, await desk.campaign(min_ring_s=5))
    told = await ask(desk)
    assert any("min_ring_s: 5: profile GB allows at least 15" in step.says for step in told.contacts[0].steps)
    assert told.contacts[0].verdict is None


# ------------------------------------------------------------------------------------------------ consents from a file


async def test_consents_are_imported_row_by_row(desk: LawDesk) -> None:
    text = (
        "\ufeffNumber;Person;Given;Source;At;Evidence\r\n"
        "020 7946 0151;;yes;web form;2025-05-01;ticked the box\r\n"
        ";c-7;no;letter;2025-06-01T10:00:00+02:00;\r\n"
        "123;;yes;web form;2025-05-01;\r\n"
        "020 7946 0152;;perhaps;web form;2025-05-01;\r\n"
        "020 7946 0153;;yes;;2025-05-01;\r\n"
        "020 7946 0154;;yes;form;soon;\r\n"
    )
    told = await import_file(desk.pool, io.StringIO(text, newline=""), region="GB", by="cti")
    assert (told.kept, told.known, told.not_kept) == (2, 0, 4)
    assert [(row.line, row.why.split(":")[0]) for row in told.refused] == [
        (4, "number"),
        (5, "given"),
        (6, "source"),
        (7, "at"),
    ]
    again = await import_file(desk.pool, io.StringIO(text, newline=""), region="GB", by="cti", most_refused=1)
    assert (again.kept, again.known, again.not_kept, len(again.refused)) == (0, 2, 4, 1)
    word = (await words_of(desk.pool, number=NUMBER))[0]
    assert (word.given, word.purpose, word.evidence) == (True, "marketing", "ticked the box")
    assert (await words_of(desk.pool, person="c-7"))[0].purpose == ""
    with pytest.raises(WrongConsent, match="missing: source, number or person"):
        await import_file(desk.pool, io.StringIO("given,at\nyes,2025-01-01\n"), region="GB", by="cti")


async def test_consents_that_came_with_a_list_are_taken_over(desk: LawDesk) -> None:
    first = await contact(desk, None, data='{"consent": "22.11.2025"}')
    of = await desk.pool.fetchval("SELECT list_id FROM list_contacts WHERE id = $1", first)
    for n, said in enumerate(("2025-05-01", "yes", "NO", "", "maybe", "11/22/2025")):
        await desk.pool.execute(
            """INSERT INTO list_contacts (list_id, e164, zone_group, data)
               SELECT list_id, $2, zone_group, jsonb_build_object('consent', $3::text) FROM list_contacts WHERE id = $1""",
            first,
            f"+4420794602{n:02}",
            said,
        )
    at = datetime(2025, 1, 1, tzinfo=UTC)
    told = await take_over(desk.pool, of, source="contract", by="cti", at=at)
    assert (told.kept, told.known, len(told.refused)) == (4, 0, 2)
    assert "neither yes nor no" in told.refused[0].why
    assert "which is the month" in told.refused[1].why
    assert (await words_of(desk.pool, number=NUMBER))[0].at == datetime(2025, 11, 22, tzinfo=UTC)
    kept = [(await words_of(desk.pool, number=f"+4420794602{n:02}"))[0] for n in range(3)]
    assert [(word.given, word.at.month, word.source) for word in kept] == [
        (True, 5, "contract"),
        (True, 1, "contract"),
        (False, 1, "contract"),
    ]
    again = await take_over(desk.pool, of, source="contract", by="cti", at=at)
    assert (again.kept, again.known) == (0, 4)
    assert (
        len((await take_over(desk.pool, of, source="contract", by="cti")).refused) == 4
    )  # yes and no: when?
    with pytest.raises(NoSuchList):
        await take_over(desk.pool, of + 1, source="contract", by="cti")
    with pytest.raises(WrongConsent, match="how it was given"):
        await take_over(desk.pool, of, source=" ", by="cti")


async def test_a_verdict_cites_the_consent_it_relies_on(desk: LawDesk) -> None:
    of = await desk.campaign()
    await desk.register("02079460151\n")
    at = datetime(2025, 1, 1, tzinfo=UTC)
    id = (await record(desk.pool, [Word(number=NUMBER, given=True, source="contract", at=at)], by="anna"))[0]
    verdict = (await check_all(desk.pool, [candidate()], of, GB, NOON))[1]
    assert verdict.allowed
    assert verdict.consent == f"no. {id} of 2025-01-01 for marketing: contract"
