"""What may be done with a call as it stands: planning alone, no switch."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti.control.moves import INSTEAD, POSSIBLE, SAYS, WORDS, NotPossible, Phase, require, scene
from cti.control.targets import outside_digits
from cti.facts import CallView, ConnectionState, ConnectionView, Direction

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def call(*parties: tuple[str, str], conference: str | None = None) -> CallView:
    """A call of these: (agent or device, state)."""
    connections = tuple(
        ConnectionView(
            id=f"main:{number}",
            device=f"PJSIP/{who}",
            state=ConnectionState(state),
            since=NOW,
            agent=who if who.islower() else None,
        )
        for number, (who, state) in enumerate(parties)
    )
    return CallView(
        id="main:0",
        pbx="main",
        direction=Direction.INBOUND,
        ani=None,
        ani_name=None,
        dnis=None,
        started=NOW,
        conference=conference,
        connections=connections,
    )


TABLE = (
    (Phase.RINGING, call(("TRUNK", "queued"), ("anna", "alerting"))),
    (Phase.RINGING, call(("TRUNK", "queued"), ("anna", "initiated"))),
    (Phase.DIALLING, call(("anna", "connected"), ("ben", "alerting"))),
    (Phase.DIALLING, call(("anna", "initiated"), ("ben", "alerting"))),
    (Phase.TALKING, call(("TRUNK", "connected"), ("anna", "connected"))),
    (Phase.HELD, call(("TRUNK", "hold"), ("anna", "hold"))),
    (Phase.HELD_AT_PHONE, call(("TRUNK", "connected"), ("anna", "hold"))),
    (Phase.ASKING, call(("TRUNK", "hold"), ("anna", "hold"), ("ben", "alerting"))),
    (Phase.HELD_AT_PHONE, call(("TRUNK", "hold"), ("anna", "hold"), ("ben", "connected"))),
    (Phase.CONSULTING, call(("TRUNK", "hold"), ("anna", "connected"), ("ben", "connected"))),
    (Phase.CONSULTING, call(("TRUNK", "connected"), ("anna", "connected"), ("ben", "hold"))),
    (Phase.CONFERENCE, call(("TRUNK", "connected"), ("anna", "connected"), ("ben", "connected"))),
    (Phase.CONFERENCE, call(("TRUNK", "connected"), ("anna", "connected"), conference="9")),
    (Phase.ALONE, call(("anna", "hold"))),
    (Phase.ALONE, call(("anna", "connected"), ("ben", "fail"))),
)


@pytest.mark.parametrize(("phase", "view"), TABLE)
def test_where_an_agent_stands(phase: Phase, view: CallView) -> None:
    now = scene(view, "anna")
    assert now is not None
    assert now.phase is phase
    assert now.joining is (phase is Phase.HELD_AT_PHONE and len(view.connections) > 2)
    for wish, phases in POSSIBLE.items():
        if phase in phases:
            require(wish, now)
        else:
            with pytest.raises(NotPossible, match=WORDS[wish]) as caught:
                require(wish, now)
            assert caught.value.code == ("caller_gone" if phase is Phase.ALONE else "wrong_state")
            instead = INSTEAD.get(wish, SAYS[phase]) if phase in (Phase.TALKING, Phase.HELD) else SAYS[phase]
            assert str(caught.value).endswith(instead)


def test_who_is_not_in_the_call_stands_nowhere() -> None:
    assert scene(call(("TRUNK", "connected"), ("anna", "connected")), "ben") is None


def test_the_customer_is_who_was_there_first_and_the_consulted_who_came_last() -> None:
    for states in (("hold", "connected"), ("connected", "hold")):
        now = scene(call(("TRUNK", states[0]), ("anna", "connected"), ("ben", states[1])), "anna")
        assert now is not None
        assert (now.customer.device, now.consulted.device) == ("PJSIP/TRUNK", "PJSIP/ben")


@given(
    st.lists(
        st.tuples(st.sampled_from(("TRUNK", "anna", "ben")), st.sampled_from(tuple(ConnectionState))),
        max_size=6,
    )
)
def test_every_call_is_somewhere_and_every_wish_has_an_answer(parties: list[tuple[str, str]]) -> None:
    now = scene(call(*parties), "anna")
    if now is None:
        return
    assert now.me.agent == "anna"
    for wish in POSSIBLE:
        try:
            require(wish, now)
        except NotPossible:
            continue
        if wish not in ("answer", "deflect"):
            assert now.customer


@pytest.mark.parametrize("dialed", ["+33199001122", "0033199001122", "90033199001122", "933199001122"])
def test_a_number_outside_is_the_same_however_it_is_dialed(dialed: str) -> None:
    assert outside_digits(dialed, "9") == "33199001122"
