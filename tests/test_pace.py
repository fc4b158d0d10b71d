"""What pacing is told: calls in their order, agents as they are, and after a restart what the window already holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cti.facts import AgentState
from dialer.attempts import Outcome, Told
from dialer.calling.claims import Claimed
from dialer.calling.live import Live, new_attempt
from dialer.calling.pace import Pace
from dialer.calling.switchboard import drop_for, originate_headers
from dialer.candidate import Candidate
from dialer.law.desk import LawDesk
from dialer.law.profiles import load
from dialer.management.settings import Campaign, CampaignSettings
from dialer.verdict import Verdict
from tests.dialer_house import lenient_profile
from tests.test_hands import agent


def campaign(mode: str = "predictive", profile: str = "US", **settings: Any) -> Campaign:
    return Campaign(
        id=1,
        name="c",
        mode=mode,  # type: ignore[arg-type]
        state="running",
        profile=profile,
        priority=0,
        settings=CampaignSettings(**settings),
        version=1,
    )


def live(of: Campaign, id: str = "at-1") -> Live:
    return Live(
        attempt=new_attempt(id, of),
        campaign=1,
        contact=1,
        e164="+441",
        pbx="main",
        mono=0,
        wall=datetime.now(UTC),
    )


def row(id: str, outcome: str, age: float, **times: Any) -> dict[str, Any]:
    """An attempt of `age` seconds ago, as `attempt_store.recent` gives it."""
    usual = {"dialed": age, "ringing": age - 1, "answered": None, "connected": None, "ended": age - 20}
    counts_as = {"connected": "in_time", "abandoned": "nobody"}.get(outcome)
    usual |= {"outcome": outcome, "counts_as": counts_as, "agent": "anna", "waited": 0.1}
    usual |= {"amd": None, "amd_s": None} | times
    talked = usual["connected"] - usual["ended"] if usual["connected"] is not None else None
    return {"id": id, "talked": talked, **usual}


def test_what_was_lost_before_a_restart_still_counts() -> None:
    of = campaign(abandonment_window_h=24, calls_per_second=100)
    pace = Pace(of, 0.5)
    rows = [
        row(f"c{n}", "connected", 9000 - n, answered=8990 - n, connected=8990 - n, ended=8900 - n)
        for n in range(100)
    ]
    rows += [row(f"l{n}", "abandoned", 900 - n, answered=890 - n, ended=880 - n) for n in range(9)]
    rows += [row(f"n{n}", "no_answer", 800 - n) for n in range(300)]
    counted = [(9000.0, 100, 0, 0), (900.0, 9, 9, 0)]
    pauses = list(pace.replay(rows, counted, 100_000.0, amd=False))
    assert pauses  # others had their turn meanwhile
    pacing = pace.pacing
    for login in ("anna", "ben", "cleo", "dora"):
        pace.agent(login, agent(agent=login), "main", None, 100_000.0)
    assert pacing.calls_to_place(100_000.1) <= 4
    assert "8.3% abandoned of 109 answers, 6 too many" in pacing.why(100_000.1)
    assert "the budget is spent" in pacing.why(100_000.1)


def test_after_a_restart_talks_are_expected_to_be_as_long_as_they_were() -> None:
    def places(talk: float) -> int:
        pace = Pace(campaign(calls_per_second=100, max_lines=500), 0.5)
        rows = [row(f"n{n}", "no_answer", 9000 - n) for n in range(1000)]
        rows += [
            row(f"c{n}", "connected", 8000 - n, answered=7990 - n, connected=7990 - n, ended=7990 - n - talk)
            for n in range(300)
        ]
        list(pace.replay(rows, [(8000.0, 300, 0, 0)], 100_000.0, amd=False))
        for n in range(30):
            pace.pacing.observe(100_000.0, "login", f"a{n}")
            pace.pacing.observe(100_000.0, "talk", f"a{n}")
        return pace.pacing.calls_to_place(100_020.0)

    assert places(25.0) > 0
    assert places(300.0) == 0
    pace = Pace(campaign(), 0.5)
    told: list[float] = []
    pace.pacing.talked = told.append  # type: ignore[method-assign]
    whole = row("c", "connected", 8000, answered=7990, connected=7990, ended=7900)
    list(pace.replay([whole, whole | {"id": "gone", "talked": None}], [], 100_000.0, amd=False))
    assert told == [90.0]


@pytest.mark.parametrize("seen", [True, False])
def test_talks_whose_beginning_or_end_nobody_saw_teach_nothing(seen: bool) -> None:
    """Four hundred talks that a restart or a broken link cuts to five seconds, after talks of five minutes."""
    of = campaign(calls_per_second=100, max_lines=500)
    pace = Pace(of, 0.5)
    rows = [row(f"n{n}", "no_answer", 9000 - n) for n in range(1000)]
    rows += [row(f"c{n}", "connected", 8000, answered=7990, connected=7990, ended=7690) for n in range(300)]
    list(pace.replay(rows, [(8000.0, 300, 0, 0)], 100_000.0, amd=False))
    for n in range(400):
        one, at = live(of, f"at-{n}"), 100_000.0 + 10 * n
        one.taken_up = not seen and n % 2 == 0
        pace.agent("anna", agent(agent="anna"), "main", None, at)
        one.paced.add("connect")
        pace.agent("anna", agent(agent="anna", state=AgentState.BUSY), "main", one, at + 1)
        if not seen and n % 2:
            pace.out_of_sight("anna")
        pace.agent("anna", agent(agent="anna", state=AgentState.READY), "main", None, at + 6)
    for n in range(30):
        pace.pacing.observe(105_000.0, "login", f"a{n}")
        pace.pacing.observe(105_000.0, "talk", f"a{n}")
    pace.agent("anna", None, "main", None, 105_000.0)
    assert (pace.pacing.calls_to_place(105_001.0) > 0) is seen


def test_how_long_detection_took_is_learnt_too() -> None:
    pace = Pace(campaign(amd=True), 0.5)
    told: list[tuple[float, str]] = []
    pace.pacing.observe = lambda now, kind, ident, info=None: told.append((now, kind))  # type: ignore[method-assign]
    machine = row("m", "machine", 100, answered=90, ended=80, amd="MACHINE", amd_s=2.5)
    list(pace.replay([machine], [], 1000.0, amd=True))
    assert told[2:] == [(910.0, "answer"), (912.5, "amd"), (920.0, "end")]


def test_a_call_is_told_once_and_in_order_however_it_came() -> None:
    of = campaign()
    pace = Pace(of, 0.5)
    told: list[tuple[str, Any]] = []
    pace.pacing.observe = lambda now, kind, ident, info=None: told.append((kind, info))  # type: ignore[method-assign]
    one = live(of)
    for what, info in ((Told.UP, ""), (Told.SENT, ""), (Told.RINGS, ""), (Told.CONNECTED, "anna")):
        one.attempt.tell(what, 5.0, info)
    for _ in range(3):
        pace.call(one, 6.0)
    pace.ended(one, Outcome.CONNECTED, 60.0)
    assert told == [
        ("dial", None),
        ("ring", None),
        ("answer", None),
        ("queue", None),
        ("connect", ("anna", 0.0, False)),
    ]


def test_a_machine_never_queues_and_a_lost_one_is_abandoned_once() -> None:
    of = campaign(amd=True)
    pace = Pace(of, 0.5)
    told: list[str] = []
    pace.pacing.observe = lambda now, kind, ident, info=None: told.append(kind)  # type: ignore[method-assign]
    machine, person = live(of, "at-m"), live(of, "at-p")
    for one, said in ((machine, "MACHINE"), (person, "HUMAN")):
        for what in (Told.SENT, Told.UP):
            one.attempt.tell(what, 1.0)
        one.attempt.tell(Told.AMD, 3.0, said)
        pace.call(one, 3.0)
    pace.ended(machine, Outcome.MACHINE, 4.0)
    assert told == ["dial", "answer", "amd", "dial", "answer", "amd", "queue", "end"]
    person.attempt.tell(Told.NOBODY, 5.0)
    pace.call(person, 5.0)
    pace.ended(person, Outcome.ABANDONED, 9.0)
    assert told[8:] == ["abandon"]


def test_whose_machine_is_left_a_message() -> None:
    def drops(consent: bool = False, had: int = 0, **settings: Any) -> str:
        candidate = Candidate(
            contact=7, list=1, list_version=1, e164="+441", zone_group=1, country="GB", region="", zones=()
        )
        one = Claimed(
            id="at-1", candidate=candidate, verdict=Verdict(steps=(), recorded=consent), number_of=1
        )
        return drop_for(campaign(amd=True, **settings), one, {7: had})

    offer = {"machine_message": "offer"}
    assert drops(True) == ""
    assert (drops(**offer), drops(True, **offer), drops(True, had=1, **offer)) == ("", "offer", "")
    assert drops(machine_message_to="all", **offer) == "offer"
    assert drops(True, had=1, machine_messages=2, **offer) == "offer"
    of = campaign(amd=True, machine_wait_s=9, **offer)
    sent = originate_headers(of, attempt="at-1", channel="x", caller_id="", off_hook=True, drop="offer")
    assert {"CTI_DROP=offer", "CTI_DROP_SILENCE=2000", "CTI_DROP_WAIT=9"} <= set(sent["Variable"])
    sent = originate_headers(of, attempt="at-1", channel="x", caller_id="", off_hook=True)
    assert not any(variable.startswith("CTI_DROP") for variable in sent["Variable"])


def test_what_the_dialplan_is_told_of_the_wait_and_of_the_ring_time() -> None:
    def sent(*, off_hook: bool = True, **settings: Any) -> dict[str, Any]:
        of = campaign(queue="main:sales", ring_timeout_s=20, **settings)
        return originate_headers(of, attempt="at-1", channel="x", caller_id="", off_hook=off_hook)

    def waits(**how: Any) -> dict[str, str]:
        told = dict(variable.split("=") for variable in sent(**how)["Variable"])
        return {name: told[name] for name in ("CTI_WAIT", "CTI_AMD_MOST", "CTI_AMD_WAIT") if name in told}

    assert waits() == {"CTI_WAIT": "2"}
    assert waits(amd=True) == {"CTI_WAIT": "2", "CTI_AMD_MOST": "1.7"}
    assert waits(amd=True, off_hook=False) == {"CTI_WAIT": "2", "CTI_AMD_MOST": "0.9"}
    from_greeting = {"CTI_WAIT": "2", "CTI_AMD_MOST": "6", "CTI_AMD_WAIT": "1.2"}
    assert waits(amd=True, wait_from="greeting") == from_greeting
    assert waits(wait_from="greeting") == {"CTI_WAIT": "2"}
    assert sent()["Timeout"] == "52000"  # the dialer gives it up; the PBX only if the server is gone


def test_a_call_rings_as_long_as_it_must_however_late_it_began_to() -> None:
    of = campaign(min_ring_s=15, ring_timeout_s=20)
    pace, one, silent = Pace(of, 0.5), live(of), live(of, "at-2")
    for call in (one, silent):
        call.attempt.tell(Told.SENT, 100.0)
    one.attempt.tell(Told.RINGS, 112.0)
    assert [pace.rang_out(one, at) for at in (119.0, 120.5, 126.9, 127.0)] == [False, False, False, True]
    assert [pace.rang_enough(one, at) for at in (126.9, 127.0)] == [False, True]
    # Of a call of which nobody says that it rings, six seconds of setting up are taken for granted.
    assert [pace.rang_out(silent, at) for at in (120.0, 120.9, 121.0)] == [False, False, True]


def test_calls_that_are_not_dialed_are_expected_no_longer() -> None:
    """A line that was not free, a list that is through: the next decision is as if they had not been asked for."""
    pace = Pace(campaign("power", ratio=2, calls_per_second=100), 0.5)
    pace.agent("anna", agent(), "main", None, 1.0)
    assert pace.pacing.calls_to_place(1.0) == 2
    assert pace.pacing.calls_to_place(1.1) == 0
    pace.pacing.not_placed(1)
    assert pace.pacing.calls_to_place(1.2) == 1
    pace.pacing.not_placed(5)
    assert pace.pacing.calls_to_place(1.3) == 2


def test_an_agent_who_is_lent_away_logs_out_of_this_pace_only() -> None:
    of = campaign()
    pace = Pace(of, 0.5)
    pace.agent("anna", agent(), "main", None, 1.0)
    assert (pace.agents, pace.at_work) == ({"anna": "ready"}, True)
    pace.agent("anna", agent(reachable=False), "main", None, 2.0)
    assert (pace.agents, pace.at_work) == ({"anna": "break"}, False)
    pace.agent("anna", None, "main", None, 3.0)
    assert pace.agents == {}


def test_settings_within_the_profile(tmp_path: Path) -> None:
    async def nobody_asks(*_: Any) -> dict[int, Any]:
        return {}

    profiles = load(lenient_profile(tmp_path / "p"))

    def within(**how: Any) -> CampaignSettings:
        return LawDesk(lambda: profiles, nobody_asks, clock=lambda: 0.0).within(campaign(**how))

    strict = within(profile="default")
    assert (strict.abandonment_cap, strict.min_ring_s, strict.answer_wait_s, strict.amd) == (
        0.01,
        15,
        2,
        False,
    )
    assert strict.abandonment_window_h == 24
    tighter = within(profile="US", abandonment_cap=0.02, answer_wait_s=1)
    assert (tighter.abandonment_cap, tighter.answer_wait_s) == (0.02, 1)
    with pytest.raises(ValueError, match="allows"):
        within(profile="US", abandonment_cap=0.05)
    with pytest.raises(ValueError, match="no country profile"):
        within(profile="nowhere")
