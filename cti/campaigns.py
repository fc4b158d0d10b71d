"""Campaigns as clients see them: what is dialed, how it stands and how it goes. Facts and views only; `dialer` makes them
true.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from cti.facts import Fact
from cti.frozen import Frozen
from cti.wrap_up import WrapUp


class CampaignView(Frozen, frozen=True, gc=False, kw_only=True):
    """A campaign. `state`: draft, running, paused, draining (no new calls; stopped when the last is over), stopped. `since`
    it is so, and `why`. `queue`: whose agents work for it, of `team` only if that is not "". `next_step` (start, pause,
    drain, stop) comes by its schedule at `next_at`. `wrap_up`: what follows its talks, and with which dispositions."""

    id: int
    name: str
    mode: str
    state: str
    since: datetime
    why: str
    profile: str
    priority: int
    queue: str
    team: str
    version: int
    changed: datetime
    changed_by: str
    next_step: str | None = None
    next_at: datetime | None = None
    wrap_up: WrapUp


class CampaignSums(Frozen, frozen=True, gc=False, kw_only=True):
    """What attempts came to; times in seconds. `answered`: somebody or a machine picked up; `live`: people did; `connected`
    to an agent; `abandoned`: people for whom no agent was there in time, as the law counts them: `late`, an agent came after
    the wait, and `nobody`, none did. `amd_errors`: people taken for machines, as estimated, where the law counts them: lost
    too, and live answers. `in_flight`: not over yet. `talk_seconds` are of `talks`: calls that are over and whose end was
    seen."""

    attempts: int = 0
    in_flight: int = 0
    answered: int = 0
    live: int = 0
    connected: int = 0
    abandoned: int = 0
    late: int = 0
    nobody: int = 0
    amd_errors: float = 0.0
    machines: int = 0
    opted_out: int = 0
    conversions: int = 0
    talks: int = 0
    ring_seconds: float = 0.0
    wait_seconds: float = 0.0
    talk_seconds: float = 0.0


class CampaignNow(Frozen, frozen=True, gc=False, kw_only=True):
    """How a campaign goes at this moment. `agents` by state (ready, reserved, busy, wrap_up, not_ready …); `calls` under way
    by stage (committed, dialed, ringing, answered, connected), `lines` all of them; `today` since midnight and
    `last_half_hour`, by when calls were placed; `dispositions`: what was said of today's calls, by code, and those of them
    that count as a success, `converted`. `contacts` of its lists by state.

    `live` answers in the window of the law, `lost` of them: connected too `late`, to `nobody`, and on top `amd_errors`,
    people taken for machines where the law counts them (live answers too, but not in `live`). A share of `cap` being
    allowed, `may_be_lost` more may be, until `until`, when that changes by time alone; `budget` says so in words. `pace`:
    calls asked for in the last minute, and `why` so many.
    """

    campaign: int
    at: datetime
    state: str
    agents: dict[str, int]
    lines: int
    calls: dict[str, int]
    today: CampaignSums
    last_half_hour: CampaignSums
    dispositions: dict[str, int]
    converted: dict[str, int]
    live: int
    lost: float
    late: int
    nobody: int
    amd_errors: float
    cap: float
    may_be_lost: int
    until: datetime | None
    budget: str
    contacts: dict[str, int]
    pace: int
    why: str
    trunks: dict[str, str]


class OfferView(Frozen, frozen=True, gc=False, kw_only=True):
    """A contact that an agent is asked to call, in modes preview and manual: `offer` is the attempt's id. `state`: offered
    (`until` then) or calling, with `call` when it is there. `attempt`: which one it is of this contact. `data`: what the
    list says of them."""

    offer: str
    campaign: int
    campaign_name: str
    agent: str
    state: str
    until: datetime | None
    contact: int
    name: str
    number: str
    language: str
    list: str
    script: str
    attempt: int
    data: dict[str, str]
    call: str | None = None


class ContactToCall(Frozen, frozen=True, gc=False, kw_only=True):
    """A contact that an agent may pick in mode manual. `number` would be dialed. `can`: it may be called now; else `why`
    not, and from `not_before` it probably may (null: not by time alone)."""

    contact: int
    list: str
    name: str
    number: str
    language: str
    data: dict[str, str]
    attempts: int
    last_attempt: datetime | None
    last_outcome: str | None
    can: bool
    why: str
    not_before: datetime | None


class ContactsToCall(Frozen, frozen=True, gc=False, kw_only=True):
    """Contacts that were found. `next`: where to go on, null if that is all; a page may have few contacts or none and still
    not be the last, for a long list is looked through part by part."""

    campaign: int
    items: list[ContactToCall]
    next: str | None


class CampaignFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about a campaign, told to the agents of its queue and the supervisors of their teams."""

    campaign: int
    view: CampaignView


class CampaignAdded(CampaignFact, frozen=True, gc=False, kw_only=True):
    """There is a new campaign."""

    TYPE: ClassVar[str] = "campaign.added"


class CampaignChanged(CampaignFact, frozen=True, gc=False, kw_only=True):
    """It is to run in another way from now on: its settings or its schedule were changed."""

    TYPE: ClassVar[str] = "campaign.changed"


class CampaignStateChanged(CampaignFact, frozen=True, gc=False, kw_only=True):
    """It was started, paused, told to drain, or stopped; `by` a person, or `schedule`, or `system`, `why`."""

    TYPE: ClassVar[str] = "campaign.state_changed"
    old: str
    new: str
    by: str
    why: str


class CampaignRemoved(CampaignFact, frozen=True, gc=False, kw_only=True):
    """There is no such campaign any more; nobody was called for it."""

    TYPE: ClassVar[str] = "campaign.removed"


class CampaignGoes(CampaignFact, frozen=True, gc=False, kw_only=True):
    """How a campaign goes now, told every few seconds while it is at work; to supervisors only."""

    TYPE: ClassVar[str] = "campaign.goes"
    now: CampaignNow


class OfferFact(Fact, frozen=True, gc=False, kw_only=True):
    """A fact about a contact that an agent is asked to call; told to them and to their supervisors."""

    offer: str
    agent: str


class OfferMade(OfferFact, frozen=True, gc=False, kw_only=True):
    """The agent is asked to call a contact: campaign.accept or campaign.skip, until `view.until`."""

    TYPE: ClassVar[str] = "offer.made"
    view: OfferView


class OfferAccepted(OfferFact, frozen=True, gc=False, kw_only=True):
    """The agent calls: their own phone first, then the contact."""

    TYPE: ClassVar[str] = "offer.accepted"
    view: OfferView


class OfferEnded(OfferFact, frozen=True, gc=False, kw_only=True):
    """It is over. `reason`: called (the call is over, `outcome` as of any attempt), skipped, unanswered, not_ready,
    no_such_number, not_possible, campaign_ended."""

    TYPE: ClassVar[str] = "offer.ended"
    reason: str
    outcome: str | None
