"""Campaigns: every state and step, schedules over clock changes, all that keeps one from starting; kept in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import asyncpg
import pytest

from dialer.campaigns import (
    AT_WORK,
    TRANSITIONS,
    ListNow,
    NotPossible,
    Schedule,
    Step,
    Surroundings,
    after,
    campaign_of,
    changed_fields,
    due_step,
    may_change,
    next_step,
    obstacles,
    steps_of,
    told,
    warnings,
)
from dialer.management import store
from dialer.management.settings import CampaignSettings, CampaignState
from routing.hours import Span
from tests.campaign_attempts import Attempt, a_campaign, a_list, emptied, write

if TYPE_CHECKING:
    Db = asyncpg.Connection[asyncpg.Record]

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
CAN = {
    ("draft", "start"): "running",
    ("running", "pause"): "paused",
    ("running", "drain"): "draining",
    ("running", "stop"): "stopped",
    ("paused", "start"): "running",
    ("paused", "drain"): "draining",
    ("paused", "stop"): "stopped",
    ("draining", "start"): "running",
    ("draining", "pause"): "paused",
    ("draining", "stop"): "stopped",
    ("draining", "finish"): "stopped",
    ("stopped", "start"): "running",
}


def campaign(**more: Any) -> Any:
    values: dict[str, Any] = {
        "id": 1, "name": "Spring", "mode": "predictive", "state": "draft", "profile": "DE", "priority": 0, "version": 1,
        "settings": {"queue": "main:sales", "message": "sorry"},
    } | more  # fmt: skip
    return campaign_of(**values)


# ------------------------------------------------------------------------------------------ states


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("state", get_args(CampaignState))
def test_every_state_and_step(state: CampaignState, step: Step) -> None:
    if (state, step.value) in CAN:
        assert after(state, step) == CAN[state, step.value]
    else:
        with pytest.raises(NotPossible, match=f"is {state}") as refused:
            after(state, step)
        assert refused.value.code == "wrong_state"


def test_all_states_are_in_the_table() -> None:
    assert set(TRANSITIONS) == set(get_args(CampaignState)) >= AT_WORK


def test_what_may_change_when() -> None:
    old = campaign(state="running")
    quick = {"settings": {"queue": "main:sales", "message": "sorry", "ring_timeout_s": 30}, "priority": 7}
    assert may_change(old, campaign(state="running", **quick)) == {"ring_timeout_s", "priority"}
    for more in ({"mode": "power"}, {"settings": {"queue": "main:other", "message": "sorry"}}):
        with pytest.raises(NotPossible, match="pause it first"):
            may_change(old, campaign(state="running", **more))
        for state in ("draft", "paused", "stopped"):
            assert may_change(campaign(state=state), campaign(state=state, **more))
    assert changed_fields(old, old) == frozenset()


# ------------------------------------------------------------------------------------------ what a start needs


def there(**more: Any) -> Surroundings:
    values: dict[str, Any] = {
        "pbxs": frozenset({"main"}),
        "queue_known": True,
        "team_known": True,
        "trunks": {"main": frozenset({"carrier"})},
        "verified": frozenset({"+49301234567"}),
        "agents": 4,
        "at_work": 2,
        "lists": (ListNow(id=1, name="Fair", active=True, contacts=10, open=10),),
    }
    return Surroundings(**(values | more))


def codes(wanted: Any, around: Surroundings) -> list[str]:
    return [one.code for one in obstacles(wanted, around)]


def test_what_is_complete_can_start() -> None:
    assert codes(campaign(), there()) == []
    assert codes(campaign(mode="agentless", settings={"message": "offer"}), there(agents=0)) == []
    assert codes(campaign(mode="preview"), there(trunks={})) == []
    on_machines = {"queue": "main:sales", "message": "sorry", "machine_message": "offer"}
    assert codes(campaign(settings=on_machines), there(amd_usual=True)) == []
    assert codes(campaign(settings=on_machines | {"amd": False}), there(amd_usual=True)) == ["no_amd"]


def test_all_obstacles_are_told_at_once() -> None:
    wanted = campaign(
        settings={
            "queue": "main:sales",
            "trunks": ["nowhere"],
            "caller_ids": [{"number": "+49309999999"}],
            "machine_message": "offer",
        }
    )
    around = there(
        queue_known=False,
        lists=(),
        unlawful=("min_ring_s 5 is less than the law's 15",),
        missing_sounds=("offer",),
    )
    found = obstacles(wanted, around)
    assert [one.code for one in found] == [
        *("unknown_queue", "unknown_trunk", "unverified_caller_id", "against_the_law", "no_amd"),
        *("no_sound", "no_list"),
    ]
    assert all(one.says for one in found)


@pytest.mark.parametrize(
    ("more", "around", "code"),
    [
        ({"settings": {"message": "sorry"}}, {}, "no_agents"),
        ({}, {"agents": 0}, "no_agents"),
        ({"settings": {"team": "sales", "message": "x"}}, {"team_known": False}, "unknown_team"),
        ({"mode": "agentless", "settings": {}}, {}, "no_message"),
        ({"settings": {"team": "sales"}}, {"pbxs": frozenset({"a", "b"})}, "no_pbx"),
        ({"settings": {"team": "sales", "pbx": "third"}}, {}, "unknown_pbx"),
        (
            {"settings": {"queue": "other:sales", "pbx": "main"}},
            {"pbxs": frozenset({"main", "other"})},
            "other_pbx",
        ),
        ({}, {"trunks": {}}, "no_trunk"),
        ({}, {"missing_sounds": ("sorry",)}, "no_sound"),
        ({"settings": {"team": "sales", "message": "x", "machine_message": "x"}}, {}, "no_amd"),
        ({}, {"unlawful": None}, "unknown_profile"),
        ({}, {"lists": (ListNow(id=1, name="Fair", active=False, contacts=9, open=9),)}, "no_list"),
        ({}, {"lists": (ListNow(id=1, name="Fair", active=True, contacts=9, open=0),)}, "list_used_up"),
        (
            {},
            {"lists": (ListNow(id=1, name="Fair", active=True, contacts=9, open=9, assigned="ben"),)},
            "list_for_nobody",
        ),
    ],
)
def test_each_obstacle(more: dict[str, Any], around: dict[str, Any], code: str) -> None:
    assert codes(campaign(**more), there(**around)) == [code]


def test_who_would_see_no_number_of_ours_is_told_before_a_start() -> None:
    nobody = there(verified=frozenset())
    assert [one.code for one in warnings(campaign(), nobody)] == ["no_caller_id"]
    assert warnings(campaign(mode="preview"), nobody) == []  # agents dial as they always do
    paris = {
        "queue": "main:sales",
        "message": "x",
        "caller_ids": [{"number": "+49301234567", "prefixes": ["+331"]}],
    }
    (told,) = warnings(campaign(settings=paris), there())
    assert "do not begin with +331" in told.says
    paris["caller_ids"] += [{"number": "+49301234567"}]
    assert warnings(campaign(settings=paris), there()) == []


def test_lists_for_some_are_warned_of_where_others_get_their_calls() -> None:
    fair = ListNow(id=1, name="Fair", active=True, contacts=9, open=9)
    for_ben = replace(fair, assigned="ben")
    around = there(lists=(fair, for_ben, replace(for_ben, theirs=1), replace(for_ben, theirs=1, others=2)))
    assert codes(campaign(), around) == []
    assert [one.code for one in warnings(campaign(), around)] == ["list_for_nobody", "list_by_queue"]
    assert "ben" in warnings(campaign(), around)[1].says
    detects = campaign(settings={"queue": "main:sales", "amd": True})
    for how, says in (
        ("answer", "it has 1.7 s (0.9 s where"),
        ("greeting", "counts from the end of the greeting"),
    ):
        (told,) = warnings(detects, there(wait_from=how))
        assert told.code == "amd_wait"
        assert says in told.says
        assert warnings(campaign(), there(wait_from=how)) == []
    assert [one.code for one in warnings(campaign(mode="manual"), around)] == ["list_for_nobody"]
    by_team = campaign(settings={"team": "sales", "message": "sorry"})
    assert [one.code for one in warnings(by_team, around)] == ["list_for_nobody"]
    alone = campaign(mode="agentless", settings={"message": "offer"})
    assert warnings(alone, around) == codes(alone, there(lists=(for_ben,))) == []
    assert warnings(campaign(), there(lists=(for_ben,))) == []  # it is what keeps it from starting


# ------------------------------------------------------------------------------------------ schedules


OFFICE = Schedule(
    zone="Europe/Berlin",
    days=frozenset(range(5)),
    spans=(Span(start=9 * 60, end=12 * 60), Span(start=13 * 60, end=18 * 60)),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_day_has_its_steps_in_its_zone() -> None:
    assert steps_of(OFFICE, date(2026, 3, 4)) == [
        (at("2026-03-04T08:00"), Step.START),
        (at("2026-03-04T11:00"), Step.PAUSE),
        (at("2026-03-04T12:00"), Step.START),
        (at("2026-03-04T17:00"), Step.PAUSE),
    ]
    assert steps_of(OFFICE, date(2026, 3, 7)) == []


def test_the_clocks_change_and_the_schedule_with_them() -> None:
    sunday = replace(OFFICE, days=frozenset({6}), spans=(Span(start=150, end=600),))
    assert steps_of(sunday, date(2026, 3, 29)) == [  # there is no 02:30 on that day
        (at("2026-03-29T01:30"), Step.START),
        (at("2026-03-29T08:00"), Step.PAUSE),
    ]
    assert next_step(OFFICE, at("2026-03-27T20:00")) == (at("2026-03-30T07:00"), Step.START)


def test_spans_that_meet_are_one() -> None:
    whole = replace(OFFICE, spans=(Span(start=540, end=720), Span(start=720, end=1080)))
    assert [step for _, step in steps_of(whole, date(2026, 3, 4))] == [Step.START, Step.PAUSE]


def test_it_ends_with_its_last_day_and_drains_then() -> None:
    short = replace(OFFICE, first=date(2026, 3, 5), last=date(2026, 3, 7))  # a Saturday: Friday is the last
    assert next_step(short, at("2026-03-01T00:00")) == (at("2026-03-05T08:00"), Step.START)
    assert next_step(short, at("2026-03-06T12:30")) == (at("2026-03-06T17:00"), Step.DRAIN)
    assert next_step(short, at("2026-03-06T17:00")) is None
    assert next_step(replace(short, at_end=Step.STOP), at("2026-03-06T12:30")) == (
        at("2026-03-06T17:00"),
        Step.STOP,
    )


def test_of_steps_that_were_missed_only_the_last_counts() -> None:
    assert due_step(OFFICE, at("2026-03-04T07:59"), at("2026-03-04T08:00")) == (
        at("2026-03-04T08:00"),
        Step.START,
    )
    assert due_step(OFFICE, at("2026-03-04T08:00"), at("2026-03-04T10:59")) is None
    assert due_step(OFFICE, at("2026-03-02T07:00"), at("2026-03-05T09:00")) == (
        at("2026-03-05T08:00"),
        Step.START,
    )
    assert due_step(OFFICE, at("2020-01-01T00:00"), at("2026-03-08T09:00")) == (
        at("2026-03-06T17:00"),
        Step.PAUSE,
    )


def test_a_schedule_is_told_in_a_line() -> None:
    assert told(replace(OFFICE, last=date(2026, 3, 31))) == (
        "mon,tue,wed,thu,fri 09:00-12:00,13:00-18:00 Europe/Berlin, then pause, to 2026-03-31"
    )


# ------------------------------------------------------------------------------------------ the database


@pytest.fixture
async def db(tables: str) -> AsyncIterator[Db]:
    async with emptied(tables) as conn:
        yield conn


async def test_a_campaign_is_written_with_its_version_and_read_as_it_was_written(db: Db) -> None:
    id = await store.add(db, campaign(), "sue")
    made = await store.read(db, id)
    assert made.campaign == campaign(id=id)
    assert (made.created_by, made.schedule, made.conversions) == ("sue", None, frozenset())
    with pytest.raises(NotPossible) as taken:
        await store.add(db, campaign(), "sue")
    assert taken.value.code == "name_taken"
    new = campaign(
        id=id, priority=5, name="Autumn", mode="power", settings={"queue": "main:sales", "ratio": 2}
    )
    await store.change(db, new, "root")
    assert (await store.read(db, id)).campaign == replace(new, version=2)
    with pytest.raises(store.ChangedMeanwhile):
        await store.change(db, new, "sue")
    await store.add(db, campaign(), "sue")
    with pytest.raises(NotPossible):
        await store.change(db, replace(new, version=2, name="Spring"), "sue")
    assert [one.campaign.name for one in await store.everyone(db)] == ["Autumn", "Spring"]


async def test_of_two_who_step_at_once_one_does(db: Db) -> None:
    id = await a_campaign(db, state="draft")
    await store.step(db, id, "draft", "running", "sue", "by hand")
    with pytest.raises(store.ChangedMeanwhile):
        await store.step(db, id, "draft", "running", "root", "by hand")
    kept = await store.read(db, id)
    assert (kept.campaign.state, kept.why, kept.campaign.version) == ("running", "by hand", 2)


async def test_a_schedule_is_kept_and_goes_with_its_campaign(db: Db) -> None:
    id = await a_campaign(db, state="draft")
    whole = replace(OFFICE, first=date(2026, 3, 1), last=date(2026, 3, 31), at_end=Step.STOP)
    await store.set_schedule(db, id, whole, NOON, "sue")
    kept = await store.read(db, id)
    assert (kept.schedule, kept.schedule_by, kept.done, kept.campaign.version) == (whole, "sue", NOON, 2)
    await store.schedule_done(db, id, NOON + timedelta(hours=1))
    assert (await store.read(db, id)).done == NOON + timedelta(hours=1)
    await store.set_schedule(db, id, None, NOON, "sue")
    assert (await store.read(db, id)).schedule is None
    await store.set_schedule(db, id, whole, NOON, "sue")
    await store.remove(db, id, 4)
    with pytest.raises(store.NotThere):
        await store.read(db, id)


async def test_what_called_somebody_is_not_removed(db: Db) -> None:
    id = await a_campaign(db)
    await write(db, [Attempt(id, NOON, "busy"), Attempt(id, NOON, None), Attempt(id, NOON, None)])
    with pytest.raises(NotPossible) as kept:
        await store.remove(db, id, 1)
    assert kept.value.code == "has_attempts"
    assert await store.under_way(db, [id, 99]) == {id: {"ringing": 2}, 99: {}}


async def test_lists_are_counted(db: Db) -> None:
    id = await a_campaign(db)
    first = await a_list(db, id, 10)
    await a_list(db, id, 0, name="Empty")
    await a_list(db, None, 5, name="Another's")
    await db.execute("UPDATE list_contacts SET state = 'done', attempts = 1 WHERE e164 LIKE '%1'")
    assert [
        (one.name, one.contacts, one.open) for one in await store.lists_of(db, id, CampaignSettings(), [])
    ] == [
        ("Fair", 10, 9),
        ("Empty", 0, 0),
    ]
    assert await store.contacts_of(db, [id]) == {id: {"open": 9, "untried": 10, "done": 1}}
    assert first
