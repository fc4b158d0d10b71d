"""Who reacts to which fact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cti.asyncapi import fact_classes
from cti.facts import (
    AgentLineChanged,
    AgentOffHookChanged,
    AgentStateChanged,
    CallCleared,
    CallFact,
    CallOffered,
    ConnectionCleared,
    PbxResynced,
    PbxStatusChanged,
    QueueAdded,
    QueueCallerJoined,
    QueueCallerLeft,
    QueueMemberJoined,
    QueueMemberLeft,
    QueueMemberPaused,
    QueueMemberStatusChanged,
)
from cti.membership import OF_MEMBERS
from cti.second_level import CallEscalated
from cti.supervision import AlarmFact
from cti.voicemail import CallVoicemailLeft

if TYPE_CHECKING:
    from cti.server import Server


def react(server: Server) -> None:
    """Tells the bus who hears what; in the order in which they hear it."""
    listen = server.bus.listen
    server.bus.carry(server.journal.carry)
    server.bus.carry(server.hub.carry)
    server.database.on_change = server.database_changed
    for kind in fact_classes(CallFact):
        listen(kind, server.agents.hear)
        listen(kind, server.waits.hear)
        listen(kind, server.supervising.hear_call)
    for kind in (
        AgentLineChanged,
        AgentOffHookChanged,
        AgentStateChanged,
        ConnectionCleared,
        PbxStatusChanged,
    ):
        listen(kind, server.off_hook.hear)
    listen(AgentLineChanged, server.agents.hear)
    listen(PbxStatusChanged, server.waits.hear)
    listen(PbxStatusChanged, server.supervising.hear_pbx)
    listen(PbxStatusChanged, server.alarm_measures.hear)
    listen(CallCleared, server.control.forget)
    for kind in (QueueCallerJoined, QueueCallerLeft, CallCleared, PbxResynced):
        listen(kind, server.places.hear)
    for kind in (CallOffered, CallCleared):
        listen(kind, server.work.hear_call)
    listen(AgentStateChanged, server.work.hear_agent)
    listen(QueueCallerJoined, server.work.hear_queue)
    for kind in (
        PbxStatusChanged,
        PbxResynced,
        QueueMemberJoined,
        QueueMemberStatusChanged,
        QueueMemberPaused,
        QueueMemberLeft,
    ):
        listen(kind, server.agents.hear)
    for kind in (AgentStateChanged, PbxResynced, QueueAdded, *OF_MEMBERS):
        listen(kind, server.membership.hear)
    listen(AgentStateChanged, server.attendance.hear)
    listen(AgentStateChanged, server.help_requests.hear)
    for kind in fact_classes(AlarmFact):
        listen(kind, server.alarm_watch.hear)
    for kind, reaction in server.pops.reactions().items():
        listen(kind, reaction)
    for kind, note in server.interactions.reactions().items():
        listen(kind, note)
    listen(CallEscalated, server.escalations.put)
    listen(CallVoicemailLeft, server.voicemail_notes.put)
    listen(PbxResynced, server.settle_interactions)
    listen(PbxResynced, server.ask_what_lists_do_not_tell)
    for kind in (PbxStatusChanged, PbxResynced):
        listen(kind, server.invitation.hear)
    for kind, hear in server.dialing.reactions():
        listen(kind, hear)
    listen(QueueCallerJoined, server.ageing.joined)
    listen(QueueCallerLeft, server.ageing.left)
    listen(QueueCallerLeft, server.queue_waits.hear)
    for kind in (QueueCallerJoined, CallCleared):
        listen(kind, server.on_the_way.hear)
