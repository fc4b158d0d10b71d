"""All commands about a call, and what each is answered with where it cannot be done. A command that has no row here fails
`tests/test_control_rights.py`, which plays the table on a real Asterisk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.call_desk import BEN

FAMILIES = ("call.", "conference.", "recording.", "supervisor.")
"""How the names begin of commands about a call."""

DONE = "done"
"""It can be done there, so it is."""


DONE = "done"
"""It can be done there, so it is."""

NOT_ASKED = ""
"""It would end what is tried, and goes through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One command with its arguments besides `call`, and the codes it is answered with.

    `wrong`: the stage at which it is in the wrong state, "" if it never is. `others`: in the call of somebody else.
    `alone`: the caller has left and the agent is still there. `over`: the call has ended. `down`: the PBX is away.
    `again`: asked once more, in the scene `at`, where it was just done: rows of one scene follow one another in one call.
    """

    op: str
    args: dict[str, Any] = field(default_factory=dict)
    wrong: str = "ringing"
    others: str = "not_your_call"
    alone: str = "caller_gone"
    over: str = "unknown_call"
    down: str = "pbx_down"
    at: str = "talk"
    again: str = "wrong_state"


def of_records(op: str, **args: Any) -> Row:
    """A command about what is known of a call: that needs no caller and no PBX."""
    return Row(op=op, args=args, wrong="", alone=DONE, over=DONE, down=DONE, again=DONE)


def of_supervisors(op: str, *, again: str = "wrong_state") -> Row:
    """A supervisor's command about a call of an agent."""
    return Row(
        op=op,
        args={"agent": "anna"},
        wrong="",
        others="not_your_agent",
        alone=NOT_ASKED,
        over="not_in_a_call",
        at="supervision",
        again=again,
    )


TABLE = (
    Row(op="recording.start"),
    Row(op="recording.pause", wrong="talk"),
    Row(op="recording.resume", wrong="talk"),
    Row(op="recording.stop", wrong="talk", alone="wrong_state"),
    Row(op="call.set_data", args={"data": {"order": "4711"}}, wrong="", alone=DONE, again=DONE),
    of_records("call.note", text="Wants it on Monday"),
    of_records("call.dispose", disposition="Solved"),
    of_records("call.identify", account=1),
    of_records("call.do_not_call", reason="asked for it", scope="everywhere"),
    of_records("call.call_back", at="2027-01-05T10:00:00Z"),
    Row(op="call.dtmf", args={"digits": "1"}, again=DONE),
    Row(op="call.hold"),
    Row(op="call.retrieve", wrong="talk"),
    Row(op="call.consult", args={"to": "1102"}),
    Row(op="call.alternate", wrong="talk", again=DONE),
    Row(op="call.cancel", wrong="talk"),
    Row(op="call.park", again="not_your_call"),
    Row(op="call.pick_up", wrong="talk", others="not_your_agent", alone="wrong_state"),
    Row(op="conference.add", args={"to": "1102"}),
    Row(op="conference.mute", args={"party": BEN}, wrong="talk"),
    Row(op="conference.remove", args={"party": BEN}, wrong="talk", again="no_such_party"),
    Row(op="call.conference", wrong="talk", at="conference"),
    Row(op="conference.hand_over", wrong="talk", at="conference", again="not_your_call"),
    Row(op="call.complete", wrong="talk", at="completion", again="not_your_call"),
    Row(op="call.transfer", args={"to": "1102"}, at="transfer", again="not_your_call"),
    Row(op="call.escalate", args={"reason": "Line drops"}, at="escalation", again="not_your_call"),
    Row(op="call.clear", wrong="", alone=NOT_ASKED, at="clearing", again="unknown_call"),
    Row(op="call.deflect", args={"to": "1102"}, wrong="talk", at="ringing", again="not_your_call"),
    Row(op="call.answer", wrong="talk", at="a phone that honours talk"),
    Row(
        op="call.make",
        args={"to": "1102"},
        wrong="talk",
        others="not_your_agent",
        alone="wrong_state",
        over=NOT_ASKED,
        at="no call",
    ),
    Row(op="call.hangup", wrong="", alone=NOT_ASKED, at="no call", again="unknown_call"),
    Row(op="call.mute", at="a desk phone", again="not_in_browser"),
    of_supervisors("supervisor.listen"),
    of_supervisors("supervisor.whisper"),
    of_supervisors("supervisor.barge"),
    Row(
        op="supervisor.stop",
        wrong="",
        others="wrong_state",
        alone=NOT_ASKED,
        over="wrong_state",
        down="wrong_state",
        at="supervision",
    ),
    of_supervisors("supervisor.take_over", again="not_in_a_call"),
)
