"""Campaigns that agents dial: in mode preview each free agent is shown a contact and calls, or skips with a reason; in mode
manual they ask for the next one themselves, or look through the contacts and pick one.

A contact is claimed as by any campaign (`dialer.calling.claims`): the law is asked when it is offered and again when it is
called, the attempt is written before, nobody is offered to two. The call is a click to dial: the agent's own phone first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from cti.campaigns import ContactsToCall, OfferAccepted, OfferEnded, OfferMade, OfferView
from cti.commands import CommandError
from cti.database import AWAY
from cti.facts import (
    AgentState,
    AgentStateChanged,
    CallCleared,
    CallDelivered,
    CallDiverted,
    CallEstablished,
    CallFact,
    CallOffered,
    CallView,
    ConnectionCleared,
    Fact,
)
from cti.people import Agent
from cti.tasks import again_and_again
from cti.views import AgentView
from dialer.attempts import Told
from dialer.call_lists.before_launch import Judge
from dialer.calling import attempt_store, picking
from dialer.calling.attempt_writer import AttemptWriter
from dialer.calling.claims import Claimed, Claims, Lease
from dialer.calling.for_whom import ForOne
from dialer.calling.hands import eligible
from dialer.calling.live import Live, call_data, claimed, remembered
from dialer.calling.picking import Place, Wanted
from dialer.calling.running import HELD
from dialer.calling.standing import NO_CONTACT, NotClaimed
from dialer.campaigns import NotPossible
from dialer.candidate import Candidate
from dialer.lists import may_call
from dialer.management.settings import Campaign
from dialer.verdict import Verdict

if TYPE_CHECKING:
    from cti.database import Pool, Queryable

log = structlog.get_logger(__name__)

BY_HAND = frozenset({"preview", "manual"})
MANUAL = frozenset({"manual"})
LOOKS = 1.0
OFFERED = 60.0
"""Seconds between two looks, and that an offer stands."""

NOT_AGAIN = {"unanswered": 120.0, "not_possible": 30.0}
"""Seconds for which an agent is offered nothing after an offer that ended so."""

LEASE = 15.0
OF_CALLS: tuple[type[CallFact], ...] = (
    CallOffered,
    CallDelivered,
    CallEstablished,
    CallDiverted,
    ConnectionCleared,
    CallCleared,
)
"""The facts of calls that `hear_call` wants."""

OWN_COUNTS = frozenset({"under_way", "attempts_per_number", "attempts_per_person"})
"""Rules that were asked before the attempt was written, which counts by now itself."""

BY_DIVERSION = {"busy": "17", "no_answer": "19", "rejected": "21"}
"""Why the contact's phone did not take the call, as a cause of Q.850."""


class Checks(Protocol):
    """`dialer.law.desk.LawDesk.check_all`: what the law says of these calls now, by contact."""

    def __call__(
        self, db: Queryable, candidates: Sequence[Candidate], campaign: Campaign, now: datetime
    ) -> Awaitable[Mapping[int, Verdict]]: ...


@dataclass(slots=True, eq=False)
class _Offer:
    """`dialed`: the contact's side was begun; `leg`: its connection; `held`: a step is being done."""

    campaign: Campaign
    one: Claimed
    live: Live
    view: OfferView
    dialed: bool = False
    leg: str = ""
    held: bool = False
    cause: str = ""


class PreviewDesk:
    """The offers of this server's agents, at most one each. `run` looks, until cancelled."""

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        healthy: Callable[[], bool],
        claims: Claims,
        check: Checks,
        judge: Judge,
        campaigns: Callable[[], Iterable[Campaign]],
        agents: Callable[[], Iterable[AgentView]],
        person: Callable[[str], Agent | None],
        team_name: Callable[[str | None], str],
        pbx_of: Callable[[Campaign], str],
        call: Callable[[str, str, str, str], Awaitable[str]],
        shows: Callable[[Campaign, str], str],
        view: Callable[[str], CallView | None],
        set_data: Callable[[str, dict[str, str], str], None],
        publish: Callable[[Iterable[Fact]], None],
        owner: str,
        clocks_apart: Callable[[], bool] = lambda: False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`call(pbx, agent, number, shown)` calls a contact for an agent: gives back the call's id, or raises CommandError.
        `shows(campaign, number)`: what that number is shown, "" for the usual caller id.
        `check` is the law in a claim, `judge` the law asked without one; `person`: who works under a login; `clocks_apart`:
        whether the time of day, by which the law is asked, cannot be believed: then nobody is called."""
        self._pool, self._claims, self._check, self._judge = pool, claims, check, judge
        self._campaigns, self._agents, self._person, self._team_name = campaigns, agents, person, team_name
        self._pbx_of, self._call, self._view, self._set_data = pbx_of, call, view, set_data
        self._shows = shows
        self._publish, self._owner, self._now = publish, owner, now
        self._clocks_apart = clocks_apart
        self._offers: dict[str, _Offer] = {}  # by agent
        self._of_call: dict[str, _Offer] = {}
        self._leases: dict[int, Lease] = {}
        self._not_before: dict[str, datetime] = {}
        self._following: dict[int, Campaign] = {}
        self._writer = AttemptWriter(
            pool,
            healthy=healthy,
            settings=lambda: {id: (one.settings, False) for id, one in self._following.items()},
        )

    # ------------------------------------------------------------------------------------------ what is asked

    def views(self) -> list[OfferView]:
        """All offers."""
        return [offer.view for _, offer in sorted(self._offers.items())]

    def campaign_of(self, call: str, agent: str) -> int | None:
        """The campaign for which this agent made the call; None for any other call."""
        offer = self._of_call.get(call)
        return offer.campaign.id if offer is not None and offer.view.agent == agent else None

    async def accept(self, agent: str, id: str) -> OfferView:
        """The agent calls the contact. Raises NotPossible where the law or the agent's state does not allow it any more,
        CommandError where the call cannot be made, or what the database raises; the contact waits again then."""
        offer = self._of(agent, id, "offered")
        self._is_ready(agent)
        self._has_time_of_day()
        offer.held = True
        try:
            await self._still_allowed(offer)
            return await self._dial(offer)
        finally:
            offer.held = False

    def _has_time_of_day(self) -> None:
        if self._clocks_apart():
            raise NotPossible("not_allowed", f"nobody may be called: {HELD['clock']}")

    def _is_ready(self, agent: str) -> None:
        state = next((one.state for one in self._agents() if one.agent == agent), None)
        if state is not AgentState.READY:
            raise NotPossible("wrong_state", f"you are {state or 'not logged on'}: be ready, then call")

    async def _dial(self, offer: _Offer) -> OfferView:
        """Calls the contact of an offer that is held; raises as `accept`."""
        agent, id = offer.view.agent, offer.view.offer
        self._put(offer, state="calling", until=None)
        self._publish([OfferAccepted(at=self._now(), offer=id, agent=agent, view=offer.view)])
        try:
            call = await self._call(offer.live.pbx, agent, offer.live.e164, offer.live.caller_id)
        except CommandError as error:
            wrong_number = error.code == "no_such_target"
            await self._take_back(offer, "no_such_number" if wrong_number else "not_possible")
            if wrong_number:
                await self._put_away(offer, "blocked", error.message)
            raise
        self._put(offer, call=call)
        self._of_call[call] = offer
        with suppress(*AWAY):  # only what the agent says of the call hangs on it
            await self._pool().execute("UPDATE attempts SET call = $2 WHERE id = $1", id, call)
        self._set_data(call, call_data(offer.campaign, offer.one), agent)
        if (view := self._view(call)) is not None:
            for connection in view.connections:
                if connection.agent is None:
                    self._begun(offer, connection.id)
        else:  # over before it was noted
            await self._over(offer)
        return offer.view

    async def skip(self, agent: str, id: str, reason: str, *, later: bool) -> OfferView:
        """The agent does not call: the contact waits for somebody else, an hour `later`, or is skipped for good."""
        offer = self._of(agent, id, "offered")
        offer.held = True
        try:
            await self._claims.withdraw([id])
            self._claims.forget(offer.campaign.id)
            await self._put_away(offer, "open" if later else "skipped", f"{agent}: {reason}")
        finally:
            offer.held = False
        self._end(offer, "skipped")
        return offer.view

    async def _put_away(self, offer: _Offer, state: str, why: str) -> None:
        """The contact that has been given back is for nobody now; one that is left open, for an hour."""
        await self._pool().execute(
            """UPDATE list_contacts SET state = $2, why = $3,
                   not_before = CASE WHEN $2 = 'open' THEN greatest(not_before, $4) ELSE not_before END
                WHERE id = $1 AND state = 'open'""",
            *(offer.one.candidate.contact, state, why[:200], self._now() + timedelta(hours=1)),
        )

    async def next(self, agent: str, campaign: int | None) -> OfferView:
        """The agent asks for the next contact of a campaign in mode manual or preview, or of the one with the highest
        priority. Raises NotPossible."""
        if agent in self._offers:
            raise NotPossible("wrong_state", "you have a contact already: call it, or skip it with a reason")
        self._has_time_of_day()
        for one in self._mine(agent, campaign, BY_HAND):
            if await self._offer(one, agent):
                return self._offers[agent].view
        raise NotPossible("nobody_to_call", "there is nobody to be called now: try again later")

    def _mine(self, agent: str, campaign: int | None, modes: frozenset[str]) -> list[Campaign]:
        """The running campaigns of these modes that this agent dials for, or just this one of them; raises NotPossible where
        there is none."""
        view = next((one for one in self._agents() if one.agent == agent), None)
        mine = [
            one
            for one in self._running()
            if one.mode in modes
            and campaign in (None, one.id)
            and view is not None
            and eligible(view, one, self._team_name)
        ]
        if not mine:
            what = (
                "that agents dial" if modes is BY_HAND else "in which agents pick whom to call (mode manual)"
            )
            raise NotPossible("no_such_campaign", f"no campaign {what} is running for you")
        return mine

    async def search(
        self, agent: str, campaign: int | None, wanted: Wanted, after: Place, limit: int
    ) -> ContactsToCall:
        """Contacts that this agent may pick, of a campaign in mode manual or of the one with the highest priority; those
        after a place. Raises NotPossible."""
        one, now = self._mine(agent, campaign, MANUAL)[0], self._now()
        lists = await picking.lists_for(self._pool(), one.id, self._person(agent))
        rows, more = await picking.search(self._pool(), lists, wanted, after, limit, now)
        items = await picking.judged(rows, one.id, self._judge, self._claims.next_number, now)
        return ContactsToCall(campaign=one.id, items=items, next=more.text if more is not None else None)

    async def pick(self, agent: str, contact: int) -> OfferView:
        """The agent calls this contact of a campaign in mode manual. Raises NotPossible, also where somebody else is calling
        them or the law says no, and as `accept`; the contact is then as it was, or put off with the law's reason."""
        if agent in self._offers:
            raise NotPossible("wrong_state", "you have a contact already: call it, or skip it with a reason")
        self._is_ready(agent)
        self._has_time_of_day()
        mine = {one.id: one for one in self._mine(agent, None, MANUAL)}
        id = await self._pool().fetchval(
            "SELECT l.campaign_id FROM list_contacts c JOIN call_lists l ON l.id = c.list_id WHERE c.id = $1",
            contact,
        )
        if id not in mine:
            raise NotPossible(NO_CONTACT.code, NO_CONTACT.says)
        lease, pbx = await self._lease(mine[id])
        if lease is None:
            raise NotPossible("not_here", "another server sees to this campaign: try again in a moment")
        reach = ForOne(self._person(agent))
        one = await self._claims.pick(mine[id], lease, contact, now=self._now(), pbx=pbx, reach=reach)
        if isinstance(one, NotClaimed):
            raise NotPossible(one.code, one.says)
        offer = await self._make(mine[id], one, pbx, agent)
        if offer is None:
            raise NotPossible(
                "wrong_state", "you have another contact by now: call it, or skip it with a reason"
            )
        offer.held = True
        try:
            return await self._dial(offer)
        finally:
            offer.held = False

    def _of(self, agent: str, id: str, state: str) -> _Offer:
        offer = self._offers.get(agent)
        if offer is None or offer.view.offer != id:
            raise NotPossible("no_such_offer", "this contact is not offered to you, or no longer")
        if offer.view.state != state or offer.held:
            raise NotPossible("wrong_state", "this contact is being called already")
        return offer

    async def _still_allowed(self, offer: _Offer) -> None:
        async with self._pool().acquire() as db:
            found = await self._check(db, [offer.one.candidate], offer.campaign, self._now())
        verdict = found.get(offer.one.candidate.contact)
        # Its own attempt is written already and counts: only what else has changed is looked for.
        refused = [step for step in verdict.steps if not step.ok] if verdict is not None else []
        steps = [step for step in refused if step.rule not in OWN_COUNTS]
        if verdict is None or steps:
            await self._take_back(offer, "not_possible")
            raise NotPossible(
                "not_allowed", steps[0].says if steps else "this contact may not be called any more"
            )

    # ------------------------------------------------------------------------------------------ looking

    async def run(self) -> None:
        """Offers and writes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(again_and_again(self.look, LOOKS, "contacts cannot be offered"))
            group.create_task(self._writer.run())

    async def flush(self) -> None:
        """Writes what is new, and gives back what nobody has called."""
        with suppress(*AWAY):
            async with asyncio.timeout(2.0):
                await self._claims.withdraw(
                    [one.view.offer for one in self._offers.values() if one.view.state == "offered"]
                )
                await self._writer.flush()

    def _running(self) -> list[Campaign]:
        found = [one for one in self._campaigns() if one.mode in BY_HAND and one.state == "running"]
        return sorted(found, key=lambda one: (-one.priority, one.id))

    async def look(self) -> None:
        """One look: leases are kept, offers that must go go, and who is free is offered a contact."""
        running = {one.id: one for one in self._running()}
        now = self._now()
        for offer in list(self._offers.values()):
            if offer.view.state != "offered" or offer.held:
                continue
            if offer.campaign.id not in running:
                await self._take_back(offer, "campaign_ended")
            elif offer.view.until is not None and offer.view.until <= now:
                await self._take_back(offer, "unanswered")
        busy = {offer.campaign.id for offer in self._offers.values()}
        for id in running.keys() | busy:
            await self._hold(running.get(id) or self._following[id])
        for id in self._leases.keys() - running.keys() - busy:
            await self._claims.give_back(self._leases.pop(id))
        agents = [
            one for one in self._agents() if one.state is AgentState.READY and one.agent not in self._offers
        ]
        for id in running.keys() & self._leases.keys() if agents else ():
            await self._claims.look(id)
        for agent in agents if not self._clocks_apart() else ():
            if self._not_before.get(agent.agent, now) > now:
                continue
            for campaign in running.values():
                mine = campaign.mode == "preview" and eligible(agent, campaign, self._team_name)
                if (
                    mine
                    and self._has_list(agent.agent, campaign.id)
                    and await self._offer(campaign, agent.agent)
                ):
                    break

    def _has_list(self, agent: str, campaign: int) -> bool:
        """Whether the campaign has contacts on a list that this agent may call, as far as is known."""
        lists, person = self._claims.assigned(campaign), self._person(agent)
        return lists is None or any(may_call(assigned, person) for assigned in lists)

    async def _hold(self, campaign: Campaign) -> None:
        """Takes or renews the campaign's lease; settles first what a server that died has left."""
        had = self._leases.get(campaign.id)
        lease = await self._claims.lease(campaign.id, self._owner, LEASE)
        if lease is None:
            self._leases.pop(campaign.id, None)
            return
        self._following[campaign.id] = campaign
        if had is None or had.token != lease.token:
            await self._settle(campaign)
        self._leases[campaign.id] = lease

    async def _settle(self, campaign: Campaign) -> None:
        ours = {offer.view.offer for offer in self._offers.values()}
        never, loop = [], asyncio.get_running_loop()
        for row in await attempt_store.open_attempts(self._pool(), campaign.id):
            if row["id"] in ours or row["id"] in self._writer:
                continue
            if row["state"] == "committed":
                never.append(row["id"])
                continue
            live = remembered(campaign, row, loop.time())
            live.attempt.tell(Told.LOST, loop.time())
            live.done = True
            self._writer.note(live)
        await self._claims.withdraw(never)
        self._claims.forget(campaign.id)

    async def _offer(self, campaign: Campaign, agent: str) -> bool:
        """Offers the agent the campaign's next contact that they may call; False if there is none."""
        lease, pbx = await self._lease(campaign)
        if lease is None:
            return False
        reach = ForOne(self._person(agent))
        claim = await self._claims.claim(campaign, lease, 1, now=self._now(), pbx=pbx, reach=reach)
        if not claim.attempts:
            return False
        await self._make(campaign, claim.attempts[0], pbx, agent)
        return True

    async def _lease(self, campaign: Campaign) -> tuple[Lease | None, str]:
        """The right to claim for the campaign, if it is to be had and there is a PBX to call by; and that PBX."""
        if campaign.id not in self._leases:
            await self._hold(campaign)
        pbx = self._pbx_of(campaign)
        return (self._leases.get(campaign.id) if pbx else None), pbx

    async def _make(self, campaign: Campaign, one: Claimed, pbx: str, agent: str) -> _Offer | None:
        """What was claimed is the agent's offer; given back and None where they have got another one meanwhile."""
        if agent in self._offers:
            await self._claims.withdraw([one.id])
            return None
        shown = self._shows(campaign, one.candidate.e164)
        live = claimed(campaign, one, pbx, "", shown, asyncio.get_running_loop().time())
        live.slot = False
        view = OfferView(
            offer=one.id,
            campaign=campaign.id,
            campaign_name=campaign.name,
            agent=agent,
            state="offered",
            until=self._now() + timedelta(seconds=OFFERED),
            contact=one.candidate.contact,
            name=one.candidate.name,
            number=one.candidate.e164,
            language=one.candidate.language,
            list=one.list_name,
            script=one.script,
            attempt=one.number_of,
            data={name: str(value)[:512] for name, value in list(one.candidate.data.items())[:20]},
        )
        offer = self._offers[agent] = _Offer(campaign, one, live, view)
        self._publish([OfferMade(at=self._now(), offer=one.id, agent=agent, view=view)])
        return offer

    def _put(self, offer: _Offer, **changes: object) -> None:
        offer.view = msgspec.structs.replace(offer.view, **changes)

    async def _take_back(self, offer: _Offer, reason: str) -> None:
        """The contact waits again: nobody has called it."""
        offer.held = True
        try:
            await self._claims.withdraw([offer.view.offer])
            self._claims.forget(offer.campaign.id)
        finally:
            offer.held = False
        self._end(offer, reason)

    def _end(self, offer: _Offer, reason: str, outcome: str | None = None) -> None:
        agent = offer.view.agent
        if self._offers.get(agent) is offer:
            del self._offers[agent]
        if offer.view.call is not None:
            self._of_call.pop(offer.view.call, None)
        if reason in NOT_AGAIN:
            self._not_before[agent] = self._now() + timedelta(seconds=NOT_AGAIN[reason])
        else:
            self._not_before.pop(agent, None)
        self._publish(
            [OfferEnded(at=self._now(), offer=offer.view.offer, agent=agent, reason=reason, outcome=outcome)]
        )

    # ------------------------------------------------------------------------------------------ what happens

    def hear_agent(self, fact: AgentStateChanged) -> None:
        """Whoever is not ready any more has no offer: it goes at the next look."""
        offer = self._offers.get(fact.agent)
        if offer is not None and offer.view.state == "offered" and fact.new is not AgentState.READY:
            self._put(offer, until=self._now())
            self._not_before[fact.agent] = self._now()

    def hear_call(self, fact: CallFact) -> None:
        """Notes how the contact's side of a call goes."""
        offer = self._of_call.get(fact.call)
        if offer is None:
            return
        live, at = offer.live, asyncio.get_running_loop().time()
        match fact:
            case CallOffered(agent=None):
                self._begun(offer, fact.connection.id)
            case CallDelivered(agent=None):
                self._begun(offer, fact.connection.id)
                self._tell(offer, Told.RINGS)
            case CallEstablished() if fact.agent is None and fact.connection.agent is None:
                self._begun(offer, fact.connection.id)
                self._tell(offer, Told.UP)
                self._tell(offer, Told.CONNECTED, offer.view.agent)
            case CallDiverted(agent=None):
                offer.cause = BY_DIVERSION.get(fact.reason, "")
            case ConnectionCleared() if fact.connection.id == offer.leg:
                offer.cause = offer.cause or str(fact.cause)
                live.attempt.tell(Told.FAR_END, at)
            case ConnectionCleared() if offer.dialed and not (
                live.attempt.at.keys() & {Told.UP, Told.FAR_END}
            ):
                live.attempt.tell(Told.GIVEN_UP, at)
            case CallCleared() if fact.merged_into is not None:
                self._of_call[fact.merged_into] = self._of_call.pop(fact.call)
                self._put(offer, call=fact.merged_into)
            case CallCleared():
                task = asyncio.get_running_loop().create_task(self._over(offer))
                task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _begun(self, offer: _Offer, leg: str) -> None:
        offer.leg = leg
        if not offer.dialed:
            offer.dialed = True
            self._tell(offer, Told.SENT)

    def _tell(self, offer: _Offer, what: Told, info: str = "") -> None:
        if offer.live.attempt.tell(what, asyncio.get_running_loop().time(), info):
            self._writer.note(offer.live)

    async def _over(self, offer: _Offer) -> None:
        """The call is over."""
        if offer.live.done:
            return
        if not offer.dialed:  # the agent's own phone was all that rang
            with suppress(*AWAY):
                await self._take_back(offer, "not_possible")
            return
        live = offer.live
        live.attempt.tell(Told.GONE, asyncio.get_running_loop().time(), offer.cause or "16")
        live.done = True
        self._writer.note(live)
        self._end(offer, "called", live.attempt.outcome().value)
