"""What became of an attempt follows from what was told of it, in whatever order; and what follows for the contact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.attempts import (
    ALIVE,
    LOOK_SHORT_OF,
    RANG_OUT,
    Attempt,
    CountsAs,
    Detail,
    Outcome,
    Stage,
    Told,
    amd_may_take,
    left_to_connect,
)
from dialer.calling.outcomes import after, kind_of, number_of_turn
from dialer.management.settings import CampaignSettings

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
BEGIN = [(Told.SENT, 0.0, ""), (Told.APPEARED, 0.1, "")]
RANG = [*BEGIN, (Told.RINGS, 1.0, "")]
UP = [*RANG, (Told.UP, 6.0, ""), (Told.DIAL_ENDED, 6.0, "ANSWER"), (Told.ORIGINATE_ENDED, 6.0, "ok")]
TALK = [*UP, (Told.CONNECTED, 6.4, "anna")]

Story = list[tuple[Told, float, str]]
STORIES: dict[str, tuple[Outcome, Story]] = {
    "busy": (Outcome.BUSY, [*RANG, (Told.DIAL_ENDED, 4, "BUSY"), (Told.GONE, 4, "17")]),
    "SIP 503": (Outcome.CONGESTION, [*BEGIN, (Told.DIAL_ENDED, 1, "CONGESTION"), (Told.GONE, 1, "34")]),
    "SIP 404": (Outcome.INVALID_NUMBER, [*BEGIN, (Told.DIAL_ENDED, 1, "NOANSWER"), (Told.GONE, 1, "1")]),
    "SIP 480": (Outcome.NO_ANSWER, [*BEGIN, (Told.DIAL_ENDED, 1, "NOANSWER"), (Told.GONE, 1, "19")]),
    "SIP 603": (Outcome.REJECTED, [*RANG, (Told.DIAL_ENDED, 1, "NOANSWER"), (Told.GONE, 1, "21")]),
    "our time-out": (Outcome.NO_ANSWER, [*RANG, (Told.ORIGINATE_ENDED, 20, "3"), (Told.GONE, 20, "0")]),
    "rang out": (
        Outcome.NO_ANSWER,
        [*RANG, (Told.GIVEN_UP, 25, RANG_OUT), (Told.DIAL_ENDED, 25, "NOANSWER"), (Told.GONE, 25, "16")],
    ),
    "given up": (
        Outcome.CANCELLED,
        [*RANG, (Told.GIVEN_UP, 18, ""), (Told.DIAL_ENDED, 18, "NOANSWER"), (Told.GONE, 18, "16")],
    ),
    "no such endpoint": (Outcome.FAILED, [(Told.SENT, 0, ""), (Told.ORIGINATE_ENDED, 1, "0")]),
    "the answer overtakes the call": (
        Outcome.INVALID_NUMBER,
        [(Told.SENT, 0, ""), (Told.ORIGINATE_ENDED, 1, "0"), (Told.APPEARED, 1, ""), (Told.GONE, 1, "1")],
    ),
    "refused by AMI": (Outcome.FAILED, [(Told.SENT, 0, ""), (Told.REFUSED, 1, "")]),
    "talk": (Outcome.CONNECTED, [*TALK, (Told.FAR_END, 60, ""), (Told.AGENT_LEFT, 60, ""), (Told.GONE, 60, "16")]),
    "agent hangs up": (Outcome.CONNECTED, [*TALK, (Told.AGENT_LEFT, 60, ""), (Told.GONE, 60, "16")]),
    "the agent's line breaks": (Outcome.AGENT_ERROR, [*TALK, (Told.AGENT_LEFT, 7, ""), (Told.GONE, 7, "16")]),
    "nobody came": (Outcome.ABANDONED, [*UP, (Told.NOBODY, 8, ""), (Told.MESSAGE, 8, ""), (Told.GONE, 12, "16")]),
    "left after the wait": (Outcome.ABANDONED, [*UP, (Told.GONE, 8.5, "16")]),
    "left at once": (Outcome.ANSWERED, [*UP, (Told.FAR_END, 7, ""), (Told.GONE, 7, "16")]),
    "no end was seen": (Outcome.UNKNOWN, [*RANG, (Told.LOST, 9, "")]),
    "no end of an answer was seen": (Outcome.UNKNOWN, [*UP, (Told.LOST, 9, "")]),
    "the talk's end was not seen": (Outcome.CONNECTED, [*TALK, (Told.LOST, 9, "")]),
}  # fmt: skip


def told(story: Story, **how: Any) -> Attempt:
    attempt = Attempt("at-1", wait=2.0, **how)
    for what, at, info in story:
        attempt.tell(what, at, info)
    return attempt


@pytest.mark.parametrize("name", STORIES)
def test_what_became_of_it(name: str) -> None:
    outcome, story = STORIES[name]
    attempt = told(story)
    assert attempt.over
    assert attempt.stage is Stage.ENDED
    assert attempt.outcome() is outcome
    assert (attempt.outcome() in ALIVE) <= (Told.UP in attempt.at)


def test_an_originate_that_failed_may_still_be_explained() -> None:
    """OriginateResponse overtakes the events of a call that is over within milliseconds."""
    (_, story) = STORIES["the answer overtakes the call"]
    first = told(story[:2])
    assert first.over
    assert not first.settled
    assert told(story).settled


DROPS: dict[str, tuple[Detail | None, Story]] = {
    "hung up at once": (None, []),
    "left": (Detail.LEFT, [(Told.MESSAGE, 12, ""), (Told.LEFT, 20, "SUCCESS"), (Told.GONE, 20, "16")]),
    "the machine hangs up": (Detail.CUT, [(Told.MESSAGE, 12, ""), (Told.FAR_END, 14, ""), (Told.GONE, 14, "16")]),
    "nobody saw its end": (Detail.UNSEEN, [(Told.MESSAGE, 12, ""), (Told.LOST, 14, "")]),
    "it talks on": (Detail.NO_PAUSE, [(Told.NO_PAUSE, 30, "TIMEOUT"), (Told.GONE, 30, "16")]),
    "gone in its greeting": (Detail.GONE_BEFORE, [(Told.FAR_END, 9, ""), (Told.GONE, 9, "16")]),
    "no such sound": (Detail.NO_SOUND, [(Told.MESSAGE, 12, ""), (Told.LEFT, 12, "FAILED"), (Told.GONE, 12, "16")]),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPS)
def test_what_became_of_the_message_for_a_machine(name: str) -> None:
    detail, story = DROPS[name]
    begins: Story = [] if detail is None else [(Told.GREETING, 8, "")]
    attempt = told(
        [*UP, (Told.AMD, 8, "MACHINE"), (Told.AMD_CAUSE, 8, "MAXWORDS-4-3"), *begins, *story], amd=True
    )
    assert (attempt.outcome(), attempt.detail, attempt.detected_in) == (Outcome.MACHINE, detail, 2)
    later = told([*UP, *begins, *story], amd=True)  # as a server sees it that was not there at the decision
    if begins:
        assert (later.outcome(), later.detail) == (Outcome.MACHINE, detail)


@given(st.sampled_from(sorted(STORIES)), st.randoms(use_true_random=False), st.integers(0, 3))
def test_in_any_order_and_told_twice(name: str, chance: object, twice: int) -> None:
    outcome, story = STORIES[name]
    mixed = [*story, *story[:twice]]
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    right, other = told(story), told(mixed)
    assert other.outcome() is outcome
    assert (other.at, other.said, other.stage, other.waited, other.ended, other.agent) == (
        right.at,
        right.said,
        right.stage,
        right.waited,
        right.ended,
        right.agent,
    )


TELLINGS = st.tuples(st.sampled_from(Told), st.floats(0, 100), st.sampled_from(["", "17", "BUSY", "ok", "0"]))


@given(st.lists(TELLINGS, unique_by=lambda telling: telling[0]))
def test_it_never_goes_back_and_never_fails(story: Story) -> None:
    attempt, stage, over = Attempt("at-1"), Stage.COMMITTED, False
    for what, at, info in story:
        attempt.tell(what, at, info)
        assert attempt.stage >= stage
        assert attempt.over >= over
        stage, over = attempt.stage, attempt.over
    assert isinstance(attempt.outcome(), Outcome)
    assert attempt.waited is None or attempt.waited >= 0


def test_with_detection() -> None:
    machine = [*UP, (Told.AMD, 8.7, "MACHINE"), (Told.GONE, 9, "16")]
    assert told(machine, amd=True).outcome() is Outcome.MACHINE
    greeting = {"amd": True, "wait_from": "greeting"}
    human = told([*UP, (Told.AMD, 8.0, "HUMAN"), (Told.CONNECTED, 8.3, "anna")], **greeting)
    assert human.waited == pytest.approx(
        0.3 + 0.8
    )  # detection takes so long to know that the greeting is over
    assert (human.counts_as, human.counted_from) == (CountsAs.IN_TIME, "greeting")
    late = told([*UP, (Told.AMD, 8.0, "HUMAN"), (Told.CONNECTED, 9.3, "anna")], **greeting)
    assert late.counts_as is CountsAs.LATE
    unsure = told([*UP, (Told.GONE, 7.5, "16")], **greeting)
    assert (unsure.waited, unsure.counts_as) == (None, CountsAs.EARLY)
    unseen = told([*UP, (Told.GONE, 12.5, "16")], **greeting)
    assert (unseen.waited, unseen.counts_as, unseen.outcome()) == (6.5, CountsAs.NOBODY, Outcome.ABANDONED)
    assert told(UP, amd=True).counts_as is None
    assert told([*UP, (Told.AMD, 6.5, "FAX"), (Told.GONE, 7, "16")]).outcome() is Outcome.FAX


def test_where_the_wait_counts_from_the_answer_detection_is_part_of_it() -> None:
    """The same calls: who comes to an agent 2.3 s after the answer was lost, and so is who went after 2 s, known or not."""
    late = told([*UP, (Told.AMD, 8.0, "HUMAN"), (Told.CONNECTED, 8.3, "anna")], amd=True)
    assert (late.waited, late.counts_as, late.counted_from) == (
        pytest.approx(2.3),
        CountsAs.LATE,
        "answer",
    )
    in_time = told([*UP, (Told.AMD, 7.7, "NOTSURE"), (Told.CONNECTED, 7.9, "anna")], amd=True)
    assert in_time.counts_as is CountsAs.IN_TIME
    for known in ([], [(Told.AMD, 7.7, "HUMAN")]):
        early = told([*UP, *known, (Told.GONE, 7.9, "16")], amd=True)
        assert (early.counts_as, early.outcome()) == (CountsAs.EARLY, Outcome.ANSWERED)
        gone = told([*UP, *known, (Told.GONE, 8.1, "16")], amd=True)
        assert (gone.counts_as, gone.outcome()) == (CountsAs.NOBODY, Outcome.ABANDONED)
    assert not told(UP, amd=True).person
    assert (
        told(UP, amd=False, wait_from="greeting").counted_from == "answer"
    )  # no detection, no end of a greeting
    assert [amd_may_take(wait, "answer") for wait in (0.2, 2.0, 12.0)] == [0.1, 1.7, 6.0]
    assert amd_may_take(2.0, "answer", leaves=LOOK_SHORT_OF) == pytest.approx(0.9)
    assert amd_may_take(2.0, "greeting") == 6.0
    assert left_to_connect(2.0, amd=True, wait_from="answer") == pytest.approx(0.3)
    assert left_to_connect(2.0, amd=True, wait_from="greeting") == pytest.approx(1.2)
    assert left_to_connect(2.0, amd=False, wait_from="greeting") == 2.0


def test_without_agents_who_hears_the_message_is_answered() -> None:
    heard = [*UP, (Told.MESSAGE, 6.1, ""), (Told.GONE, 20, "16")]
    assert told(heard, alone=True).outcome() is Outcome.ANSWERED
    assert told(heard, alone=True).counts_as is CountsAs.IN_TIME
    assert told([*UP, (Told.GONE, 6.05, "16")], alone=True).counts_as is CountsAs.EARLY
    silence = told([*heard, (Told.NO_MESSAGE, 6.1, "")], alone=True)
    assert (silence.counts_as, silence.outcome(), silence.detail) == (
        CountsAs.NOBODY,
        Outcome.ABANDONED,
        Detail.NO_SOUND,
    )


COUNTED = {
    "talk": CountsAs.IN_TIME,
    "agent hangs up": CountsAs.IN_TIME,
    "the agent's line breaks": CountsAs.IN_TIME,
    "the talk's end was not seen": CountsAs.IN_TIME,
    "nobody came": CountsAs.NOBODY,
    "left after the wait": CountsAs.NOBODY,
    "no end of an answer was seen": CountsAs.NOBODY,
    "left at once": CountsAs.EARLY,
}


@pytest.mark.parametrize("name", STORIES)
def test_how_the_law_counts_it(name: str) -> None:
    _, story = STORIES[name]
    assert told(story).counts_as is COUNTED.get(name)
    # What is decided while the call goes on is what is decided in the end.
    decided = [one for n in range(len(story)) if (one := told(story[:n]).counts_as) is not None]
    assert set(decided) <= {COUNTED.get(name)}


def test_an_agent_at_the_end_of_the_wait_is_in_time_and_after_it_late() -> None:
    assert told([*UP, (Told.CONNECTED, 8.0, "anna")]).counts_as is CountsAs.IN_TIME
    assert told([*UP, (Told.CONNECTED, 8.01, "anna")]).counts_as is CountsAs.LATE
    assert told([*UP, (Told.CONNECTED, 8.01, "anna"), (Told.GONE, 60, "16")]).outcome() is Outcome.CONNECTED


# ------------------------------------------------------------------------------------------------ what follows


def follows(outcome: Outcome, *, numbers: tuple[str, ...] = ("+1",), attempts: int = 1, **more: object):  # type: ignore[no-untyped-def]
    settings, detail = more.pop("settings", CampaignSettings()), more.get("detail", "")
    so_far = {kind_of(outcome, str(detail)): more.pop("times", 1)}
    given = {"dialed": numbers[0], "numbers": numbers, "turn": 0, "now": NOON} | more
    return after(settings, outcome, attempts=attempts, so_far=so_far, **given)  # type: ignore[arg-type]


def test_spacing_grows_over_hours_and_days() -> None:
    waits = [
        (follows(Outcome.NO_ANSWER, times=times).not_before - NOON) / timedelta(hours=1)
        for times in (1, 2, 3, 4)
    ]
    assert waits == [3, 24, 24, 48]


def test_who_talked_is_done_and_who_pressed_the_key_is_never_called_again() -> None:
    assert follows(Outcome.CONNECTED).state == "done"
    assert follows(Outcome.ANSWERED, alone=True).state == "done"
    never = follows(Outcome.ANSWERED, opted_out=True)
    assert (never.state, never.why) == ("blocked", "asked not to be called again")


def test_after_a_message_on_a_machine_nobody_calls_again_unless_told_to() -> None:
    left = follows(Outcome.MACHINE, detail="message_left")
    assert (left.state, left.why) == ("exhausted", "a message was left on the answering machine")
    assert follows(Outcome.MACHINE, detail="message_unseen") == left
    cut = follows(Outcome.MACHINE, detail="message_cut")
    assert (cut.state, cut.not_before) == ("open", NOON + timedelta(hours=4))
    again = CampaignSettings.model_validate(
        {"retries": {"message_left": {"after_minutes": [2880], "at_most": 2}}}
    )
    later = follows(Outcome.MACHINE, detail="message_left", settings=again)
    assert (later.state, later.not_before) == ("open", NOON + timedelta(days=2))
    twice = follows(Outcome.MACHINE, detail="message_left", settings=again, times=2)
    assert (twice.state, twice.why) == ("exhausted", "2 times message left")


def test_attempts_used_up() -> None:
    assert follows(Outcome.BUSY, attempts=6).state == "exhausted"
    used = follows(Outcome.REJECTED, attempts=3, times=2)
    assert (used.state, used.why) == ("exhausted", "2 times rejected")


def test_other_numbers_are_tried_next_then_the_first_again_later() -> None:
    two = ("+1", "+2")
    first = follows(Outcome.NO_ANSWER, numbers=two)
    assert (first.turn, first.not_before) == (1, NOON + timedelta(minutes=10))
    second = follows(Outcome.NO_ANSWER, numbers=two, dialed="+2", turn=1, times=2, attempts=2)
    assert (second.turn, second.not_before) == (0, NOON + timedelta(days=1))


def test_a_dead_number_leaves_the_round() -> None:
    dead = follows(Outcome.INVALID_NUMBER, numbers=("+1", "+2"))
    assert (dead.state, dead.dead, dead.turn) == ("open", "+1", 0)
    assert dead.not_before == NOON + timedelta(minutes=10)  # the other has not had its turn yet
    all_had_theirs = follows(Outcome.INVALID_NUMBER, numbers=("+1", "+2"), dialed="+2", turn=1)
    assert (all_had_theirs.dead, all_had_theirs.turn) == ("+2", 0)
    assert all_had_theirs.not_before == NOON + timedelta(days=1)
    assert number_of_turn("+1", ["+2"], ["+1"], 0) == "+2"
    last = follows(Outcome.INVALID_NUMBER)
    assert (last.state, last.why) == ("exhausted", "no number left: no such number")
