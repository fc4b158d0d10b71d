"""Voicemail: facts that a caller has left a message, and of how many wait in a mailbox. Shapes only."""

from __future__ import annotations

from typing import ClassVar

from cti.facts import CallFact, CallView, Fact


class CallVoicemailLeft(CallFact, frozen=True, gc=False, kw_only=True):
    """The caller has left a message in a mailbox (`100@default`). AMI: UserEvent CtiVoicemail, after VoiceMail()."""

    TYPE: ClassVar[str] = "call.voicemail_left"
    mailbox: str
    view: CallView


class VoicemailWaiting(Fact, frozen=True, gc=False, kw_only=True):
    """How many messages wait in a mailbox, not yet heard (`new`) and heard (`old`). For supervisors. AMI: MessageWaiting."""

    TYPE: ClassVar[str] = "voicemail.waiting"
    pbx: str
    mailbox: str
    new: int
    old: int
