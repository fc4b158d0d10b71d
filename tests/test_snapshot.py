"""Old snapshot + the facts a viewer receives = new snapshot, for every kind of viewer, over recorded calls and by chance."""

from __future__ import annotations

import contextlib
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cti.agents import NotPossible
from cti.ami_events import Record
from cti.people import Actor
from tests.floor import BORIS, ROOT, RUTH, Floor, Viewer, actor, after, recorded_people
from tests.recorded import FOLDER, records

TRACES = sorted(path.stem for path in (FOLDER / "22").glob("*.txt"))
VIEWERS = (ROOT, RUTH, BORIS, actor("agent1101"), actor("agent2101"), actor("carol"))


def compare(viewers: list[Viewer], when: object) -> None:
    for viewer in viewers:
        assert viewer.folded() == viewer.fresh(), f"{viewer.who.login} after {when}"


@pytest.mark.parametrize("trace", TRACES)
def test_old_snapshot_and_facts_are_the_new_snapshot(trace: str) -> None:
    floor = Floor(recorded_people())
    viewers = [Viewer(floor, who) for who in VIEWERS]
    for record in records(trace):
        if floor.feed([record]):
            compare(viewers, record)


@cache
def a_day() -> list[Record]:
    """Recorded calls of all kinds, one after the other."""
    names = ("02", "05", "06", "08", "10", "11", "13", "18", "23")
    return [record for name in names for record in records(name)]


LOGINS = ("agent1101", "agent1102", "agent2101", "carol")
WISHES = ("on", "off", "ready", "break", "finish", "extend", "tick")
HAPPENINGS = st.one_of(
    st.tuples(st.just("hear"), st.integers(1, 40)),
    st.tuples(st.just("miss"), st.integers(1, 5)),
    st.tuples(st.sampled_from(WISHES), st.sampled_from(LOGINS)),
    st.tuples(st.just("link"), st.booleans()),
)


@settings(max_examples=40)
@given(st.lists(HAPPENINGS, min_size=5, max_size=40), st.integers(0, 400))
def test_it_holds_whatever_happens_in_whatever_order(
    happenings: list[tuple[str, int | str | bool]], start: int
) -> None:
    floor = Floor(recorded_people())
    viewers = [Viewer(floor, who) for who in VIEWERS]
    day = iter(a_day()[start:])
    for second, (what, value) in enumerate(happenings):
        now = after(second)
        if what in ("hear", "miss"):
            chunk = [record for _, record in zip(range(int(value)), day, strict=False)]
            floor.feed(chunk if what == "hear" else [])
        elif what == "link":
            floor.link("main", up=bool(value), at=now)
        else:
            wish(floor, what, str(value), second)
        compare(viewers, (what, value))


def wish(floor: Floor, what: str, login: str, second: float) -> None:
    """Carries a wish out as the commands do, if it is possible."""
    agents, now = floor.agents, after(second)
    with contextlib.suppress(NotPossible):
        floor.publish(
            {
                "on": lambda: agents.log_on(login, ready=True, by=login, at=now),
                "off": lambda: agents.log_off(login, by=login, at=now),
                "ready": lambda: agents.make_ready(login, by=login, at=now),
                "break": lambda: agents.make_not_ready(login, "Break", by="ruth", at=now),
                "finish": lambda: agents.finish_wrap_up(login, by=login, at=now),
                "extend": lambda: agents.extend_wrap_up(login, 20.0, by=login, at=now),
                "tick": lambda: agents.tick(now),
            }[what]()
        )


def test_a_snapshot_holds_what_the_viewer_may_see_and_no_more() -> None:
    floor = Floor(recorded_people())
    answered = next(n for n, r in enumerate(records("02")) if type(r).__name__ == "BridgeEntered")
    floor.feed(records("02")[: answered + 2])

    def seen(who: Actor) -> tuple[int, set[str], set[str]]:
        snapshot = floor.snapshots(who)
        return len(snapshot.calls), {a.agent for a in snapshot.agents}, {q.id for q in snapshot.queues}

    red = {p.login for p in recorded_people() if p.team == "red"}
    blue = {p.login for p in recorded_people() if p.team == "blue"}
    known = {view.id for view in floor.queues["main"].views()}
    assert "main:sales" in known
    assert seen(ROOT) == (1, red | blue, known)
    assert seen(RUTH) == (1, red, {"main:sales"})
    assert seen(BORIS) == (0, blue, known & {"main:support"})
    assert seen(actor("agent1101")) == (1, red, {"main:sales"})
    assert seen(actor("agent1102")) == (0, red, {"main:sales"})
    assert seen(actor("nobody")) == (0, set(), set())
    assert [pbx.phase for pbx in floor.snapshots(actor("nobody")).pbxs] == ["up"]
