"""What may be done with a call as it stands. Pure: a view of the call and a wish in, who is who or why not out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cti.facts import CallView, ConnectionState, ConnectionView
from cti.refusals import Refused

ALERTING, CONNECTED, FAIL, HOLD, INITIATED, QUEUED = (
    ConnectionState.ALERTING,
    ConnectionState.CONNECTED,
    ConnectionState.FAIL,
    ConnectionState.HOLD,
    ConnectionState.INITIATED,
    ConnectionState.QUEUED,
)


class NotPossible(Refused):
    """A wish cannot be fulfilled: a code for programs and a sentence that says what to do."""


class Phase(StrEnum):
    """Where an agent stands in a call."""

    RINGING = "ringing"
    DIALLING = "dialling"
    TALKING = "talking"
    HELD = "held"
    HELD_AT_PHONE = "held_at_phone"
    ASKING = "asking"
    CONSULTING = "consulting"
    CONFERENCE = "conference"
    ALONE = "alone"


SAYS: dict[Phase, str] = {
    Phase.RINGING: "it still rings: answer it first",
    Phase.DIALLING: "nobody has answered yet",
    Phase.TALKING: "you are talking with one party, and nobody is on hold",
    Phase.HELD: "it is on hold: retrieve it first",
    Phase.HELD_AT_PHONE: "it was put on hold at the phone: retrieve it there",
    Phase.ASKING: "a consultation is being set up: complete or cancel it first",
    Phase.CONSULTING: "there is a consultation: complete or cancel it first",
    Phase.CONFERENCE: "it is a conference",
    Phase.ALONE: "the other party has gone: hang up",
}

WORDS: dict[str, str] = {
    "answer": "answer this call",
    "hold": "put this call on hold",
    "retrieve": "retrieve this call",
    "mute": "mute the microphone in this call",
    "transfer": "transfer this call",
    "consult": "consult somebody in this call",
    "escalate": "escalate this call",
    "alternate": "alternate in this call",
    "complete": "complete a consultation",
    "cancel": "cancel a consultation",
    "join": "make a conference of a consultation",
    "add": "add somebody to this call",
    "change the conference": "change the conference",
    "send tones": "send tones",
    "park": "park this call",
    "deflect": "deflect this call",
    "record": "record this call",
}
"""Wish → what cannot be done."""

CONSULT_FIRST = "nobody is being asked: consult somebody first"
INSTEAD: dict[str, str] = {
    "answer": "it is answered already",
    "deflect": "it is answered already: transfer it",
    "hold": "it is on hold already",
    "retrieve": "nobody is on hold",
    "alternate": CONSULT_FIRST,
    "complete": CONSULT_FIRST,
    "cancel": CONSULT_FIRST,
    "join": CONSULT_FIRST,
    "change the conference": "it is no conference: add somebody first",
}
"""Wish → what to say to who talks, or holds, and wishes what fits neither."""

POSSIBLE: dict[str, frozenset[Phase]] = {
    "answer": frozenset({Phase.RINGING}),
    "hold": frozenset({Phase.TALKING}),
    "retrieve": frozenset({Phase.HELD}),
    "mute": frozenset(
        {Phase.TALKING, Phase.CONSULTING, Phase.CONFERENCE, Phase.HELD, Phase.ASKING, Phase.HELD_AT_PHONE}
    ),
    "transfer": frozenset({Phase.TALKING, Phase.HELD}),
    "consult": frozenset({Phase.TALKING, Phase.HELD}),
    "escalate": frozenset({Phase.TALKING, Phase.HELD}),
    "alternate": frozenset({Phase.CONSULTING}),
    "complete": frozenset({Phase.ASKING, Phase.CONSULTING}),
    "cancel": frozenset({Phase.ASKING, Phase.CONSULTING}),
    "join": frozenset({Phase.CONSULTING}),
    "add": frozenset({Phase.TALKING, Phase.CONFERENCE}),
    "change the conference": frozenset({Phase.CONFERENCE}),
    "send tones": frozenset({Phase.TALKING, Phase.CONSULTING, Phase.CONFERENCE}),
    "park": frozenset({Phase.TALKING}),
    "deflect": frozenset({Phase.RINGING}),
    "record": frozenset({Phase.TALKING, Phase.HELD, Phase.HELD_AT_PHONE, Phase.CONSULTING, Phase.CONFERENCE}),
}
"""Wish → phases in which it can be fulfilled."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A call as one agent stands in it. `others` in the order they came; `me` None for who is not in it."""

    view: CallView
    me: ConnectionView
    others: tuple[ConnectionView, ...]
    phase: Phase

    def _in(self, *states: ConnectionState) -> tuple[ConnectionView, ...]:
        return tuple(other for other in self.others if other.state in states)

    @property
    def connected(self) -> tuple[ConnectionView, ...]:
        """Who is through."""
        return self._in(CONNECTED)

    @property
    def held(self) -> tuple[ConnectionView, ...]:
        """Who is on hold."""
        return self._in(HOLD)

    @property
    def called(self) -> tuple[ConnectionView, ...]:
        """Who is being called."""
        return self._in(INITIATED, ALERTING)

    @property
    def customer(self) -> ConnectionView:
        """The first of the others: whom the call is with. Those asked come later."""
        return next(other for other in self.others if other.state in (CONNECTED, HOLD))

    @property
    def joining(self) -> bool:
        """Whether the agent may be about to be through to who was asked: that one has answered, another is on hold, and for
        an instant it looks as if the agent held both."""
        return self.phase is Phase.HELD_AT_PHONE and any(other.state is HOLD for other in self.others)

    @property
    def consulted(self) -> ConnectionView:
        """The last of the others: who was asked."""
        return next(other for other in reversed(self.others) if other.state is not FAIL)


def scene(view: CallView, agent: str) -> Scene | None:
    """How the agent stands in the call, or None if they are not in it."""
    mine = [c for c in view.connections if c.agent == agent and c.state is not FAIL]
    if not mine:
        return None
    me = next((c for c in mine if c.state in (CONNECTED, HOLD)), mine[-1])
    others = tuple(c for c in view.connections if c.id not in {c.id for c in mine})
    return Scene(view, me, others, _phase(view, me, others))


def _phase(view: CallView, me: ConnectionView, others: tuple[ConnectionView, ...]) -> Phase:
    states = [other.state for other in others]
    through, held = states.count(CONNECTED), states.count(HOLD)
    called = any(state in (INITIATED, ALERTING) for state in states)
    if me.state is ALERTING or (me.state is INITIATED and not called):
        return Phase.RINGING
    if view.conference is not None or through > 1:
        return Phase.CONFERENCE
    if me.state is HOLD and through:
        return Phase.HELD_AT_PHONE
    if held and through:
        return Phase.CONSULTING
    if held and (called or me.state is QUEUED):
        return Phase.ASKING
    if held:
        return Phase.HELD
    if called:
        return Phase.DIALLING
    return Phase.TALKING if through and me.state is CONNECTED else Phase.ALONE


def require(wish: str, now: Scene) -> None:
    """Raises NotPossible if the wish does not fit the call as it stands."""
    if now.phase not in POSSIBLE[wish]:
        code = "caller_gone" if now.phase is Phase.ALONE else "wrong_state"
        says = SAYS[now.phase]
        if now.phase in (Phase.TALKING, Phase.HELD):
            says = INSTEAD.get(wish, says)
        raise NotPossible(code, f"you cannot {WORDS[wish]} now: {says}")


def state_of(view: CallView | None, connection: str) -> ConnectionState | None:
    """The state of one connection; None when it has left the call."""
    for c in view.connections if view else ():
        if c.id == connection:
            return c.state
    return None
