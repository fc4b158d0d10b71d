"""Campaigns that agents dial, on a real Asterisk: offered, called, skipped, asked for, and taken up after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.call_desk import TRUNK, refused, shown_outside, states
from tests.centre import ADMIN, Centre, Refusal
from tests.dialer_house import CALLER_IDS, at_work, campaign, dialing_house, ended, number, quieted, state

pytestmark = pytest.mark.asyncio(loop_scope="module")


CUSTOMER = "+447700900121"
UNREACHED = "+447700900129"  # the last digit says that nobody answers there
TOO_SHORT = number("human")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    async with dialing_house(asterisk_installation, postgres_server) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def centre(house: Centre) -> AsyncIterator[Centre]:
    yield house
    await quieted(house)


async def contact(centre: Centre, id: int) -> dict[str, object]:
    (row,) = await centre.fetch(
        "SELECT state, why, attempts, last_outcome FROM list_contacts WHERE id = $1", id
    )
    return row


async def test_an_agent_sees_the_contact_calls_and_the_attempt_says_how_it_went(centre: Centre) -> None:
    (anna,) = await at_work(centre, "anna", off_hook=False)
    sara, ben = await centre.screen("sara"), await centre.screen("ben")
    never = {"code": "never", "label": "No calls", "category": "do_not_call", "do_not_call": "campaign"}
    says = {"wrap_up": {"mandatory": True}, "dispositions": [never]}
    by_hand = [{"number": CALLER_IDS[1], "prefixes": ["+4477"]}, {"number": CALLER_IDS[0]}]
    says["caller_ids"] = by_hand
    id = await campaign(centre, [CUSTOMER], mode="preview", data={"debt": "12.50"}, **says)
    offer = (await anna.wait_for("offer.made", within=20))["data"]["view"]
    assert (offer["campaign"], offer["name"], offer["data"], offer["script"], offer["attempt"]) == (
        *(id, "Customer 0", {"debt": "12.50"}, "Say hello.", 1),
    )
    await sara.wait_for("offer.made", offer=offer["offer"])
    assert not ben.all("offer.*")
    assert (await contact(centre, offer["contact"]))["state"] == "in_hand"
    await anna.as_told()
    await sara.as_told()
    assert await refused(ben, "campaign.accept", offer=offer["offer"]) == "no_such_offer"
    told = await anna.ask("campaign.accept", offer=offer["offer"])
    assert (told["state"], told["agent"]) == ("calling", "anna")
    await anna.wait_for("call.established", call=told["call"])
    data = (await anna.wait_for("call.data_changed", call=told["call"]))["data"]["changed"]
    assert (data["attempt"], data["script"], data["debt"]) == (offer["offer"], "Say hello.", "12.50")
    await anna.until(lambda: states(anna, told["call"]).get(TRUNK) == "connected", what="the contact")
    assert await shown_outside(centre) == CALLER_IDS[1]
    await anna.ask("call.hangup", call=told["call"])
    over = (await anna.wait_for("offer.ended", offer=offer["offer"], within=20))["data"]
    assert (over["reason"], over["outcome"]) == ("called", "connected")
    await anna.agent_is("wrap_up", pending="disposition", call=told["call"])
    assert await refused(anna, "call.dispose", call=told["call"], disposition="Sale") == "unknown_disposition"
    await anna.ask("call.dispose", call=told["call"], disposition="never")
    assert await centre.fetch("SELECT campaign_id, scope, added_by FROM do_not_call") == [
        {"campaign_id": id, "scope": "campaign", "added_by": "anna"}
    ]
    await anna.agent_is("ready")
    (attempt,) = await ended(centre, id, 1)
    assert (attempt["outcome"], attempt["agent"], attempt["mode"]) == ("connected", "anna", "preview")
    assert attempt["caller_id"] == CALLER_IDS[1]
    assert attempt["disposition"] == "never"
    assert (
        attempt["committed"]
        <= attempt["dialed"]
        <= attempt["answered"]
        <= attempt["connected"]
        <= attempt["ended"]
    )
    assert await contact(centre, offer["contact"]) == {
        "state": "blocked", "why": "asked not to be called again", "attempts": 1, "last_outcome": "connected",
    }  # fmt: skip
    status, now = await centre.rest("GET", f"/api/v1/campaigns/{id}/now", "sara")
    assert (status, now["today"]["connected"], now["today"]["in_flight"]) == (200, 1, 0)
    await anna.as_told()


async def test_who_is_not_reached_comes_again_and_who_is_skipped_or_has_no_number_does_not(
    centre: Centre,
) -> None:
    (anna,) = await at_work(centre, "anna", off_hook=False)
    id = await campaign(centre, [UNREACHED, CUSTOMER, TOO_SHORT], mode="preview")
    first = (await anna.wait_for("offer.made", within=20))["data"]["view"]
    told = await anna.ask("campaign.accept", offer=first["offer"])
    await anna.until(
        lambda: anna.all("call.delivered", call=told["call"], agent=None), what="the contact's phone rings"
    )
    await anna.ask("call.hangup", call=told["call"])
    over = (await anna.wait_for("offer.ended", offer=first["offer"], within=20))["data"]
    assert over["outcome"] == "cancelled"
    (attempt,) = await ended(centre, id, 1)
    assert (attempt["outcome"], attempt["answered"]) == ("cancelled", None)
    again = await contact(centre, first["contact"])
    assert (again["state"], again["attempts"]) == ("open", 1)
    await anna.agent_is("ready", within=20)
    second = (await following(anna, first))["view"]
    told = await anna.ask("campaign.skip", offer=second["offer"], reason="knows us already")
    assert told["offer"] == second["offer"]
    skipped = await contact(centre, second["contact"])
    assert (skipped["state"], skipped["why"], skipped["attempts"]) == ("skipped", "anna: knows us already", 0)
    third = (await following(anna, second))["view"]
    assert await refused(anna, "campaign.accept", offer=third["offer"]) == "no_such_target"
    assert (await contact(centre, third["contact"]))["state"] == "blocked"
    assert len(await ended(centre, id, 1)) == 1


async def following(screen, before):  # type: ignore[no-untyped-def]
    """The offer after this one."""
    await screen.until(
        lambda: [one for one in screen.picture.offers.values() if one["offer"] != before["offer"]],
        within=20,
        what="another offer",
    )
    return {"view": next(one for one in screen.picture.offers.values() if one["offer"] != before["offer"])}


async def test_in_mode_manual_agents_ask_for_the_next(centre: Centre) -> None:
    (anna,) = await at_work(centre, "anna", off_hook=False)
    id = await campaign(centre, [number("human", 2), number("human", 3)], mode="manual")
    await centre.eventually(
        lambda: any(one.campaign.id == id for one in centre._server.dialing.campaigns.records())
    )
    assert not anna.all("offer.*")
    clocks = centre.server.dialing.dialer.clocks  # type: ignore[union-attr]
    clocks.now, believed = lambda: datetime.now(UTC) - timedelta(hours=1), clocks.now
    assert await refused(anna, "campaign.next", campaign=id) == "not_allowed"
    clocks.now = believed
    offer = await anna.ask("campaign.next", campaign=id)
    assert offer["state"] == "offered"
    assert await refused(anna, "campaign.next") == "wrong_state"
    await anna.ask("campaign.skip", offer=offer["offer"], reason="not now", later=True)
    assert (await contact(centre, offer["contact"]))["state"] == "open"
    other = await anna.ask("campaign.next")
    assert other["contact"] != offer["contact"]
    await state(centre, id, "paused")
    over = (await anna.wait_for("offer.ended", offer=other["offer"], within=20))["data"]
    assert over["reason"] == "campaign_ended"
    assert (await contact(centre, other["contact"]))["attempts"] == 0
    assert await refused(anna, "campaign.next") == "no_such_campaign"


async def test_in_mode_manual_agents_look_through_the_contacts_and_pick_one(centre: Centre) -> None:
    anna, ben, cleo = await at_work(centre, "anna", "ben", "cleo", off_hook=False)
    no, other = number("human", 5), number("human", 6)
    id = await campaign(
        centre,
        [CUSTOMER, no, other],
        mode="manual",
        data={"debt": "12.50"},
        agents=["anna", "cleo"],
        purpose="renewal",
    )
    await centre.fetch(
        """INSERT INTO consents (number, channel, purpose, given, source, at, noted_by)
           VALUES ($1, 'call', 'renewal', false, 'letter', now(), 'sara') RETURNING id""",
        int(no),
    )
    records = centre._server.dialing.campaigns.records
    await centre.eventually(lambda: any(one.campaign.id == id for one in records()))
    found = await anna.ask("campaign.contacts", q="custom", data={"debt": "12"}, limit=2)
    assert [(one["number"], one["can"]) for one in found["items"]] == [(CUSTOMER, True), (no, False)]
    assert "withdrawn" in found["items"][1]["why"]
    rest = await anna.ask("campaign.contacts", campaign=id, limit=2, cursor=found["next"])
    assert ([one["number"] for one in rest["items"]], rest["next"]) == ([other], None)
    assert (await ben.ask("campaign.contacts", campaign=id))["items"] == []
    first, second, third = (one["contact"] for one in found["items"] + rest["items"])
    assert await refused(ben, "campaign.pick", contact=first) == "no_such_contact"
    assert await refused(anna, "campaign.pick", contact=second) == "not_allowed"
    told = await asyncio.gather(
        *(who.ask("campaign.pick", contact=first) for who in (anna, cleo)), return_exceptions=True
    )
    (lost,) = [one for one in told if isinstance(one, Refusal)]
    (won,) = [one for one in told if not isinstance(one, BaseException)]
    assert (lost.code, won["state"], won["contact"]) == ("being_called", "calling", first)
    caller = anna if won["agent"] == "anna" else cleo
    assert await refused(caller, "campaign.pick", contact=third) == "wrong_state"
    await caller.until(lambda: states(caller, won["call"]).get(TRUNK) == "connected", what="the contact")
    await caller.ask("call.hangup", call=won["call"])
    over = (await caller.wait_for("offer.ended", offer=won["offer"], within=20))["data"]
    assert over["outcome"] == "connected"
    (attempt,) = await ended(centre, id, 1)
    assert (attempt["agent"], attempt["mode"], attempt["number_of"]) == (won["agent"], "manual", 1)
    after = await caller.ask("campaign.contacts", campaign=id)
    assert [one["can"] for one in after["items"]] == [False, False, True]
    assert after["items"][0]["why"].startswith("has been reached")
    await state(centre, id, "paused")
    await centre.eventually(lambda: all(one.campaign.state != "running" for one in records()))
    assert await refused(cleo, "campaign.contacts", campaign=id) == "no_such_campaign"
    await caller.as_told()


async def test_what_a_server_that_died_had_offered_is_offered_again(centre: Centre) -> None:
    (anna,) = await at_work(centre, "anna", off_hook=False)
    id = await campaign(centre, [number("human", 4)], mode="preview")
    offer = (await anna.wait_for("offer.made", within=20))["data"]["view"]
    desk = centre._server.dialing.preview
    desk._offers.clear()  # as a server knows that has just begun
    desk._leases.clear()
    await centre.fetch(
        "UPDATE campaign_leases SET owner = 'gone', until = now() WHERE campaign_id = $1 RETURNING 1", id
    )
    again = await following(anna, offer)
    assert again["view"]["contact"] == offer["contact"]
    rows = await centre.fetch("SELECT id FROM attempts WHERE campaign_id = $1", id)
    assert [row["id"] for row in rows] == [again["view"]["offer"]]
    status, _ = await centre.rest("POST", f"/api/v1/campaigns/{id}/stop", ADMIN, json={})
    assert status == 200
    await anna.wait_for("offer.ended", offer=again["view"]["offer"], within=20)
    await asyncio.sleep(0)
