"""What the dialer needs of a PBX and of the agents: narrow ports, and the headers of an Originate. No I/O of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cti.facts import CallView
from cti.people import Agent
from cti.views import AgentView
from dialer.attempts import LEAST_AFTER_AMD, LOOK_SHORT_OF, amd_may_take, left_to_connect
from dialer.calling.claims import Claimed
from dialer.management.settings import Campaign

LONGEST_SETUP = 32.0
"""Seconds that a call may take until it rings (SIP gives up after so many, RFC 3261 timer B). The PBX's own time-out is that
much later than the campaign's ring time, which counts from the dialing: a call that began to ring late must ring on as long
as the law wants. Until then the dialer gives it up; the PBX does if the server is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxPort:
    """One PBX. `usable`: its state is known and its events come in time; `up`: its state is known. `calls`: ids of the
    channels of calls that exist. `view`: a call by its id."""

    name: str
    originate: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, str]]]
    send: Callable[[str, Mapping[str, str]], Awaitable[Mapping[str, str]]]
    up: Callable[[], bool]
    usable: Callable[[], bool]
    view: Callable[[str], CallView | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsPort:
    """The agents. `connect` gives an answered call to an open line: `OffHook.connect`; what it cannot is a CommandError.
    `person`: who works under a login."""

    all: Callable[[], Iterable[AgentView]]
    view: Callable[[str], AgentView | None]
    team_name: Callable[[str | None], str]
    teams_of_queue: Callable[[str], Iterable[str]]
    connect: Callable[[str, str], Awaitable[object]]
    person: Callable[[str], Agent | None]


def drop_for(campaign: Campaign, one: Claimed, had: Mapping[int, int]) -> str:
    """The sound that a machine of this contact is left; "": none. `had`: contact → messages that its machines have had."""
    s = campaign.settings
    if s.machine_message is None or had.get(one.candidate.contact, 0) >= s.machine_messages:
        return ""
    return s.machine_message if s.machine_message_to == "all" or one.verdict.recorded else ""


def originate_headers(
    campaign: Campaign, *, attempt: str, channel: str, caller_id: str, off_hook: bool, drop: str = ""
) -> dict[str, Any]:
    """The Originate of an attempt. All that the dialplan must know rides on the channel: it goes on without this server.

    `off_hook`: agents with open lines are at work; otherwise who answers goes to the queue at once. `drop`: the sound that a
    machine is left.
    """
    s = campaign.settings
    queue = s.queue.partition(":")[2]
    wait = s.answer_wait_s
    alone = campaign.mode == "agentless"
    then = "message" if alone else "wait" if off_hook or not queue else "noamd"
    look = max(0.0, wait - LOOK_SHORT_OF) if queue else wait
    leaves = LEAST_AFTER_AMD if off_hook or not queue or alone else LOOK_SHORT_OF
    greeting = s.amd and s.wait_from == "greeting"
    variables = {
        "CTI_ATTEMPT": attempt,
        "CTI_WAIT": f"{wait:g}",
        "CTI_LOOK": f"{look:g}",
        "CTI_QUEUE": "" if alone else queue,
        "CTI_NEXT": then,
        "CTI_AMD_MOST": f"{amd_may_take(wait, s.wait_from, leaves=leaves):g}" if s.amd else "",
        "CTI_AMD_WAIT": f"{left_to_connect(wait, amd=True, wait_from='greeting'):g}" if greeting else "",
        "CTI_MESSAGE": s.message or "",
        "CTI_OPT_OUT": s.opt_out_key if s.message else "",
    }
    if s.amd and drop:
        variables |= {
            "CTI_DROP": drop,
            "CTI_DROP_SILENCE": str(int(s.machine_silence_s * 1000)),
            "CTI_DROP_WAIT": str(s.machine_wait_s),
        }
    headers: dict[str, Any] = {
        "Channel": channel,
        "Context": "cti-dialer",
        "Exten": "amd" if s.amd else then,
        "Priority": "1",
        "Timeout": str(int((s.ring_timeout_s + LONGEST_SETUP) * 1000)),
        "ChannelId": attempt,
        "Variable": [f"{name}={value}" for name, value in variables.items() if value],
    }
    if caller_id:
        headers["CallerID"] = f"<{caller_id}>"
    return headers
