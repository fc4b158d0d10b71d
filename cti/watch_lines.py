"""What `cti watch` says of each fact in one line, for a pipe or a log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from cti.client import Frame, Picture
from cti.terminal_text import plain
from cti.watch_screen import (
    STATES,
    agent_name,
    caller,
    clock,
    is_dialed,
    number_in,
    number_of,
    pop_name,
    where_of,
)

Say = Callable[[Frame, Picture], str]


def told(fact: Frame, picture: Picture) -> str:
    """A fact in one line for people, without its time; facts that have no words of their own show their ids."""
    say = SENTENCES.get(str(fact["type"]))
    if say is not None:
        try:
            return plain(say(fact["data"], picture), 400)
        except (KeyError, TypeError, IndexError):
            pass
    ids = [f"{name} {plain(fact['data'][name], 60)}" for name in _IDS if fact["data"].get(name)]
    return plain(f"{fact['type']}: {', '.join(ids)}" if ids else fact["type"], 400)


_IDS = ("call", "agent", "queue", "pbx", "reason")


def _who(data: Frame, picture: Picture) -> str:
    call = data.get("view") or picture.calls.get(data["call"])
    if call is None:
        return f"call {data['call']}"
    name, _ = caller(picture, call)
    return f"{plain(name, 40)} <{number_of(picture, call)}>"


def _party(data: Frame, picture: Picture) -> str:
    part = data.get("connection") or {}
    login = data.get("agent") or part.get("agent")
    return agent_name(picture, login) if login else str(part.get("device", "somebody"))


def _queue(data: Frame) -> str:
    return str(data.get("queue") or "").partition(":")[2] or "-"


def _call_back(data: Frame, picture: Picture) -> str:
    view = data["view"]
    keeper = agent_name(picture, view["agent"]) if view["agent"] else view["team"]
    due = datetime.fromisoformat(view["due"]).astimezone()
    return f"{plain(view['name'], 60) or view['number']}, {due:%Y-%m-%d %H:%M}, kept by {keeper or '-'}"


def _pop_line(data: Frame, picture: Picture) -> str:
    pop = data["view"]
    likeliest = (pop["candidates"] or [None])[0]
    name, _ = pop_name(pop)
    parts = [f"POP for {agent_name(picture, pop['agent'])}: {plain(name, 60)}"]
    if likeliest:
        parts.append(f"class {likeliest['account']['classification'] or '-'}")
        parts.append(f"{len(likeliest['open_items'])} open")
    parts.append(number_in(pop) or "no number")
    if pop["queue"]:
        parts.append(f"queue {_queue(pop)}")
    parts.append(f"campaign {where_of(pop)}" if is_dialed(pop) else f"waited {clock(float(pop['waited']))}")
    return ", ".join(parts)


SENTENCES: dict[str, Say] = {
    "call.originated": lambda d, p: (
        f"call {d['view']['direction']}: {_who(d, p)} to {d['view']['dnis'] or '-'}"
    ),
    "call.queued": lambda d, p: f"{_who(d, p)} waits in {_queue(d)}, position {d['position']}",
    "call.offered": lambda d, p: f"{_who(d, p)} is offered to {_party(d, p)}",
    "call.delivered": lambda d, p: f"{_party(d, p)} rings for {_who(d, p)}",
    "call.established": lambda d, p: f"{_party(d, p)} is through with {_who(d, p)}",
    "call.diverted": lambda d, p: f"{_who(d, p)} leaves {_party(d, p)}: {d['reason']}",
    "call.held": lambda d, p: f"{_party(d, p)} is on hold, {_who(d, p)}",
    "call.retrieved": lambda d, p: f"{_party(d, p)} is back from hold, {_who(d, p)}",
    "call.parked": lambda d, p: f"{_who(d, p)} is parked at {d['slot']}",
    "call.transferred": lambda d, p: (
        f"{_who(d, p)} is transferred ({d['kind']}) to {d['target'] or 'somebody'}"
    ),
    "call.escalated": lambda d, p: (
        f"{agent_name(p, d['agent'])} escalates {_who(d, p)} to {_queue(d)}: {d['reason']}"
    ),
    "call.voicemail_left": lambda d, p: f"{_who(d, p)} has left a message in {d['mailbox']}",
    "voicemail.waiting": lambda d, p: f"mailbox {d['mailbox']} of {d['pbx']}: {d['new']} new messages",
    "work.added": lambda d, p: f"work {d['view']['kind']}: {d['view']['title']}",
    "work.offered": lambda d, p: f"work for {agent_name(p, d['agent'])}: {d['view']['title']} ({d['why']})",
    "work.accepted": lambda d, p: f"{agent_name(p, d['agent'])} does: {d['view']['title']}",
    "work.returned": lambda d, p: f"work waits again: {d['view']['title']}, {d['reason']}",
    "work.completed": lambda d, p: f"work is done: {d['view']['title']}, {d['outcome']}",
    "work.ended": lambda d, p: f"work will not be done: {d['view']['title']}, {d['reason']}",
    "call.conferenced": lambda d, p: f"{_party(d, p)} joins room {d['room']}",
    "call.failed": lambda d, p: f"{_who(d, p)} did not reach {_party(d, p)}: {d['reason']}",
    "call.connection_cleared": lambda d, p: f"{_party(d, p)} leaves {_who(d, p)}: {d['reason']}",
    "call.cleared": lambda d, p: (
        f"call {d['call']} is over: {d['outcome']}, {clock(d['duration'])}, waited {clock(d['waited'])},"
        f" talked {clock(d['talked'])}"
    ),
    "agent.state_changed": lambda d, p: (
        f"{agent_name(p, d['agent'])}: {STATES.get(d['old'], (d['old'], '', 0))[0]} ->"
        f" {STATES.get(d['new'], (d['new'], '', 0))[0]}" + (f" ({d['reason']})" if d["reason"] else "")
    ),
    "agent.reachability_changed": lambda d, p: (
        f"the phone of {agent_name(p, d['agent'])} is {'back' if d['reachable'] else 'not reachable'}"
    ),
    "queue.caller_joined": lambda d, p: f"queue {_queue(d)}: {d['waiting']} waiting",
    "queue.caller_left": lambda d, p: (
        f"queue {_queue(d)}: {d['waiting']} waiting, one {d['reason']} after {clock(d['waited'])}"
    ),
    "pbx.status_changed": lambda d, p: (
        f"PBX {d['pbx']} is {d['phase']}" + (f": {d['why']}" if d["why"] else "")
    ),
    "database.status_changed": lambda d, p: (
        "the database is back" if d["up"] else f"the database is away: {d['why']}"
    ),
    "pbx.resynced": lambda d, p: (
        f"PBX {d['pbx']} compared ({d['reason']}): {d['calls']} calls,"
        f" {sum(d['differences'].values())} differences"
    ),
    "pop.shown": _pop_line,
    "pop.updated": lambda d, p: (
        f"pop of {agent_name(p, d['agent'])} is {d['view']['state']}: {plain(pop_name(d['view'])[0], 60)}"
    ),
    "supervision.started": lambda d, p: f"{d['supervisor']} is with {agent_name(p, d['agent'])}: {d['mode']}",
    "supervision.changed": lambda d, p: f"{d['supervisor']} is with {agent_name(p, d['agent'])}: {d['mode']}",
    "supervision.ended": lambda d, p: (
        f"{d['supervisor']} is no longer with {agent_name(p, d['agent'])}: {d['reason']}"
    ),
    "message.sent": lambda d, p: f"{d['sender_name']} writes to {', '.join(d['agents'][:5])}: {d['text']}",
    "message.read": lambda d, p: f"{agent_name(p, d['agent'])} has read message {d['message']}",
    "help.requested": lambda d, p: f"HELP for {agent_name(p, d['agent'])}: {d['text'] or '-'}",
    "help.accepted": lambda d, p: f"{d['by']} helps {agent_name(p, d['agent'])}",
    "help.closed": lambda d, p: f"help for {agent_name(p, d['agent'])}: {d['reason']} by {d['by']}",
    "alarm.raised": lambda d, p: f"ALARM {d['name']}: {d['value']:g}, threshold {d['threshold']:g}",
    "alarm.acknowledged": lambda d, p: f"alarm {d['alarm']} is seen to by {d['by']}",
    "alarm.cleared": lambda d, p: f"alarm {d['alarm']} is over after {clock(d['lasted'])}",
    "pop.withdrawn": lambda d, p: f"pop of {agent_name(p, d['agent'])} withdrawn: {d['reason']}",
    "agent.line_changed": lambda d, p: (
        f"the open line of {agent_name(p, d['agent'])} is {d['line']}: {d['reason'].replace('_', ' ')}"
    ),
    "agent.off_hook_changed": lambda d, p: (
        f"{agent_name(p, d['agent'])} works {'off-hook' if d['off_hook'] else 'on-hook'} now"
    ),
    "call.muted": lambda d, p: f"{_party(d, p)} is {'muted' if d['muted'] else 'heard again'}, {_who(d, p)}",
    "call.unparked": lambda d, p: f"{_who(d, p)} leaves slot {d['slot']}: {d['reason'].replace('_', ' ')}",
    "call.merged": lambda d, p: f"{_party(d, p)} comes to {_who(d, p)}",
    "call_back.promised": lambda d, p: f"call back promised: {_call_back(d, p)}",
    "call_back.due": lambda d, p: f"CALL BACK is due: {_call_back(d, p)}",
    "call_back.taken": lambda d, p: f"{agent_name(p, d['by'])} calls back: {_call_back(d, p)}",
    "call_back.released": lambda d, p: f"call back is open again: {_call_back(d, p)}",
    "call_back.handed_over": lambda d, p: (
        f"call back {d['call_back']} goes to"
        f" {agent_name(p, d['to_agent']) if d['to_agent'] else d['to_team']}, by {agent_name(p, d['by'])}"
    ),
    "call_back.received": lambda d, p: f"call back comes from {agent_name(p, d['by'])}: {_call_back(d, p)}",
    "call_back.moved": lambda d, p: f"call back is moved: {_call_back(d, p)}",
    "call_back.done": lambda d, p: (
        f"call back {d['call_back']} is done by {agent_name(p, d['by'])}: {d['outcome'] or '-'}"
    ),
    "call_back.cancelled": lambda d, p: (
        f"call back {d['call_back']} is cancelled by {agent_name(p, d['by'])}: {d['reason'] or '-'}"
    ),
    "campaign.added": lambda d, p: f"new campaign {d['view']['name']}",
    "campaign.changed": lambda d, p: f"campaign {d['view']['name']} is changed by {d['view']['changed_by']}",
    "campaign.removed": lambda d, p: f"campaign {d['view']['name']} is removed",
    "campaign.state_changed": lambda d, p: (
        f"campaign {d['view']['name']}: {d['old']} -> {d['new']} by {d['by']}"
        + (f", {d['why']}" if d["why"] else "")
    ),
    "offer.made": lambda d, p: (
        f"{agent_name(p, d['agent'])} is asked to call {d['view']['name'] or d['view']['number']}"
        f" for {d['view']['campaign_name']}"
    ),
    "offer.accepted": lambda d, p: (
        f"{agent_name(p, d['agent'])} calls {d['view']['name'] or d['view']['number']}"
    ),
    "offer.ended": lambda d, p: (
        f"{agent_name(p, d['agent'])}: {(d['outcome'] or d['reason']).replace('_', ' ')}"
    ),
    "journal.gap": lambda d, p: f"{d['lost']} facts could not be written down",
}
"""Facts in words. Those that are missing here are told by their ids."""

UNTOLD = frozenset(
    {
        "queue.member_status_changed",
        "queue.member_joined",
        "queue.member_left",
        "queue.member_paused",
        "blending.changed",
        "queue.added",
        "queue.removed",
        "attempt.dialed",
        "attempt.answered",
        "attempt.connected",
        "attempt.ended",
        "campaign.goes",
        "call.data_changed",
        "call.caller_changed",
        "interaction.identified",
        "interaction.closed",
        "interaction.noted",
    }
)
"""Facts that say again what a call or an agent's state says once, or that a table shows as it is now."""


def summary(picture: Picture) -> str:
    """The snapshot in one line."""
    waiting = sum(len(queue["waiting"]) for queue in picture.queues.values())
    links = [f"PBX {plain(pbx['id'], 32)} {plain(pbx['phase'], 12)}" for pbx in picture.pbxs.values()]
    counts = (
        _counted(len(picture.calls), "call"),
        f"{waiting} waiting in {_counted(len(picture.queues), 'queue')}",
        _counted(len(picture.agents), "agent"),
        _counted(len(picture.pops), "pop"),
        *(links or ["no PBX"]),
    )
    return "now: " + ", ".join(counts)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
