"""Which trunk takes a call, who rests and comes back, and which number is shown."""

from __future__ import annotations

from dialer.calling.trunks import FAILS, RESTS, CallerIds, TrunkPlan, Trunks


def trunks(*plans: dict[str, object]) -> Trunks:
    return Trunks([TrunkPlan(**{"pbx": "main", "dial": "PJSIP/{number}@x"} | plan) for plan in plans])  # type: ignore[arg-type]


def test_calls_a_second_and_channels_are_kept() -> None:
    house = trunks({"name": "a", "calls_per_second": 4, "channels": 5})
    taken = [(now, name) for now in (t / 10 for t in range(1, 31)) for name in house.take(now, "main")]
    assert len(taken) == 5
    assert taken[-1][0] - taken[1][0] >= 0.7
    house.over("a")
    assert house.take(4.0, "main", most=9) == ["a"]
    assert house.take(5.0, "other") == []


def test_the_best_first_equal_ones_in_turn_and_as_the_campaign_wants() -> None:
    house = trunks(
        {"name": "dear", "calls_per_second": 100},
        {"name": "one", "priority": 5, "calls_per_second": 100, "channels": 2},
        {"name": "two", "priority": 5, "calls_per_second": 100, "channels": 2},
    )
    assert house.take(1.0, "main", most=5) == ["one", "two", "one", "two", "dear"]
    assert house.take(1.0, "main", ("dear", "gone")) == ["dear"]


def test_one_call_goes_at_once_and_several_one_after_the_other() -> None:
    house = trunks({"name": "a", "calls_per_second": 10}, {"name": "b", "calls_per_second": 1000})
    assert [round(house.turn("a", 5.0) - 5.0, 3) for _ in range(4)] == [0.0, 0.07, 0.17, 0.27]
    assert house.turn("a", 9.0) == 9.0
    assert [round(house.turn("b", 5.0, 0.01) - 5.0, 3) for _ in range(6)] == [0.0, 0.0, 0.0, 0.0, 0.01, 0.02]
    assert house.turn("gone", 5.0) == 5.0


def test_what_was_not_used_is_given_back() -> None:
    house = trunks({"name": "a", "calls_per_second": 2, "channels": 1})
    names = house.take(1.0, "main")
    house.unused(names)
    assert house.take(1.0, "main") == ["a"]


def test_a_failing_trunk_rests_longer_each_time_and_is_tried_by_one_call() -> None:
    house = trunks({"name": "a", "calls_per_second": 100, "channels": 50})
    now = 1.0
    for _ in range(FAILS):
        (name,) = house.take(now, "main")
        house.over(name)
        rest = house.failed(now, name)
        now += 0.1
    assert rest == RESTS[0]
    assert house.all_rest(now, "main")
    for longer in (*RESTS[1:], RESTS[-1]):
        assert house.take(now, "main") == []
        now += rest
        assert house.take(now, "main", most=10) == ["a"]  # one tries
        house.over("a")
        rest = house.failed(now, "a")
        assert rest == longer
    now += rest
    house.take(now, "main")
    house.over("a")
    house.got_through("a")
    assert len(house.take(now + 1, "main", most=10)) == 10
    assert not house.all_rest(now, "main")


def test_another_trunk_takes_over_while_one_rests() -> None:
    house = trunks(
        {"name": "a", "priority": 1, "calls_per_second": 100}, {"name": "b", "calls_per_second": 100}
    )
    for _ in range(FAILS):
        house.take(1.0, "main")
        house.over("a")
        house.failed(1.0, "a")
    assert house.take(1.1, "main", most=2) == ["b", "b"]
    assert house.words(1.1)["a"].startswith("rests")


def test_numbers_shown_by_region_in_turn_and_verified_only() -> None:
    shown = CallerIds(["+4420", "+4421", "+331"])
    wanted = [("+4420", ()), ("+4421", ()), ("+331", ("+33",)), ("+999", ("+4420",))]
    assert [shown.show(1, wanted, "+44207") for _ in range(3)] == ["+4420", "+4421", "+4420"]
    assert shown.show(1, wanted, "+33123") == "+331"
    assert shown.show(2, [], "+1") in {"+331", "+4420", "+4421"}
    assert CallerIds([]).show(1, wanted, "+1") == ""
