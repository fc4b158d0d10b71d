"""Views: the present state as clients see it, in the snapshot and over REST. Shapes only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from cti.campaigns import CampaignNow, CampaignView, OfferView
from cti.facts import AgentState, CallView
from cti.frozen import Frozen
from cti.other_work import BlendingView, WorkView
from cti.reasons import Reason
from cti.supervision import AlarmView, HelpView, MessageView, SupervisionView
from cti.wrap_up import WrapUp


class AgentView(Frozen, frozen=True, gc=False, kw_only=True):
    """An agent now. `call` is the one they are offered or talking on. `off_hook`: calls are connected to a line that stays
    open; `lines`: PBX → calling or open."""

    agent: str
    name: str
    team: str | None
    state: AgentState
    reason: str | None
    since: datetime
    by: str
    why: str
    pending: str | None
    until: datetime | None
    call: str | None
    device: str | None
    reachable: bool
    queues: tuple[str, ...]
    off_hook: bool = False
    lines: dict[str, str] = msgspec.field(default_factory=dict)


class WaitingView(Frozen, frozen=True, gc=False, kw_only=True):
    """A caller in a queue; `since` is when they joined it."""

    call: str
    position: int
    since: datetime


class MemberView(Frozen, frozen=True, gc=False, kw_only=True):
    """A member of a queue as Asterisk has it.

    `status`: not_in_use, in_use, busy, ringing, ring_in_use, on_hold, unavailable, invalid, unknown.
    """

    interface: str
    name: str
    agent: str | None
    penalty: int
    paused: bool
    pause_reason: str | None
    status: str


class QueueView(Frozen, frozen=True, gc=False, kw_only=True):
    """A queue now: who waits (in order) and who could take them."""

    id: str
    pbx: str
    name: str
    waiting: tuple[WaitingView, ...]
    members: tuple[MemberView, ...]


class PbxView(Frozen, frozen=True, gc=False, kw_only=True):
    """The link to a PBX now. `phase`: connecting, up, down, stopped."""

    id: str
    phase: str
    code: str
    why: str
    since: datetime


class DatabaseView(Frozen, frozen=True, gc=False, kw_only=True):
    """Whether the database answers; what does not work while it does not, and since when it is so."""

    up: bool
    why: str
    since: datetime


class Snapshot(Frozen, frozen=True, gc=False, kw_only=True):
    """All that one viewer may see at one moment; facts with a higher seq change it. `pops`: their open screen pops.
    `reasons`: why agents may be not ready; a state's reason that is not among them was given at the PBX. `wrap_up`: what
    follows queue calls; the rule without a queue is for all that have none of their own. `supervisions`: who listens to
    whom. `call_backs`: promises to call back, open or taken. `messages`: those that you have not read. `help`: open requests
    for it. `work`: what is to be done besides calls: of an agent, what they are offered or do. `blending`: what each agent
    may be offered of it now. `campaigns`: what is dialed; `campaigns_now`: how it goes, for
    supervisors; `offers`: contacts that agents are asked to call."""

    at: datetime
    calls: tuple[CallView, ...]
    agents: tuple[AgentView, ...]
    queues: tuple[QueueView, ...]
    pbxs: tuple[PbxView, ...]
    database: DatabaseView | None = None
    pops: tuple[Any, ...] = ()
    reasons: tuple[Reason, ...] = ()
    wrap_up: tuple[WrapUp, ...] = ()
    supervisions: tuple[SupervisionView, ...] = ()
    messages: tuple[MessageView, ...] = ()
    help: tuple[HelpView, ...] = ()
    alarms: tuple[AlarmView, ...] = ()
    work: tuple[WorkView, ...] = ()
    blending: tuple[BlendingView, ...] = ()
    call_backs: tuple[Any, ...] = ()
    campaigns: tuple[CampaignView, ...] = ()
    campaigns_now: tuple[CampaignNow, ...] = ()
    offers: tuple[OfferView, ...] = ()
