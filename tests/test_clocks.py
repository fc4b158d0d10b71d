"""A time of day that cannot be believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dialer.calling.clocks import APART, Clocks

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize("jump", [-3600.0, -APART - 1, APART + 1, 3600.0])
def test_a_clock_that_differs_or_jumps_is_noticed_at_once_and_one_that_goes_on_is_believed(
    jump: float,
) -> None:
    passed, off = 0.0, 0.0
    clocks = Clocks(lambda: 5.0 + passed, lambda: NOON + timedelta(seconds=passed + off))
    assert clocks.apart()  # nobody has looked
    clocks.looked(NOON + timedelta(seconds=APART - 2))
    assert not clocks.apart()
    clocks.looked(NOON)
    passed = 7200.0
    assert not clocks.apart()
    off = jump
    assert clocks.apart()
    off = 0.0
    assert not clocks.apart()
    clocks.looked(NOON + timedelta(seconds=passed + jump))  # it is the database's that jumps
    assert clocks.apart()
