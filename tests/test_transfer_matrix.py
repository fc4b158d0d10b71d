"""Who leaves a transfer, and when: nobody is ever left in the air. A table, played on a real Asterisk, once with the server
there and once with the server gone from the moment the transfer stands.

Anna (initiator) talks with a customer (transferee) and turns to Ben (recipient). Eight such calls are played at a time:
five with somebody who is asked by number, three with a queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from cti.ami_events import fields_of
from cti.ami_protocol import AmiError
from cti.embedded.asterisk import Installation
from cti.embedded.postgres import Postgres
from tests.centre import ADMIN, SEATS, TEAMS, Centre, Screen, centre_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

INITIATORS = ("ben", "cleo", "emil", "hana", "ivo")
RECIPIENTS = ("1112", "1150", "1151", "1152", "1153")
SEAT = {seat.login: seat for seat in SEATS}


@dataclass(frozen=True, slots=True)
class Row:
    """`how` the transfer stands when `who` leaves; `left` talk with one another in the end (t, i, r; none: all is over)."""

    how: str
    who: str
    left: str


TABLE = (
    # a consultation whose target still rings
    Row("ringing", "initiator", "tr"),
    Row("ringing", "recipient", "ti"),
    Row("ringing", "transferee", "ir"),
    # completed while the target still rings: the customer hears that
    Row("ringback", "recipient", "ti"),
    Row("ringback", "transferee", ""),
    Row("ringback", "nobody", "tr"),
    # a blind transfer whose target rings
    Row("blind", "recipient", "ti"),
    Row("blind", "transferee", ""),
    Row("blind", "nobody", "tr"),
    # a consultation that is talked in
    Row("answered", "initiator", "tr"),
    Row("answered", "recipient", "ti"),
    Row("answered", "transferee", "ir"),
    # talking with the customer again, the recipient on hold
    Row("alternated", "initiator", ""),
    Row("alternated", "recipient", "ti"),
    # completed
    Row("completed", "recipient", ""),
    Row("completed", "transferee", ""),
    Row("completed", "nobody", "tr"),
)


QUEUE_TABLE = (
    # a queue is asked: the initiator waits in it while somebody's phone rings
    Row("queue asked", "initiator", "tr"),
    Row("queue asked", "recipient", "ir"),  # who refuses is called again by the queue
    Row("queue asked", "transferee", "ir"),
    Row("queue asked in vain", "nobody", "ti"),
    # whoever of the queue has taken it
    Row("queue answered", "initiator", "tr"),
    Row("queue answered", "recipient", "ti"),
    Row("queue answered", "transferee", "ir"),
    Row("queue completed", "recipient", ""),
    Row("queue completed", "nobody", "tr"),
    # escalated, a phone of the second level rings
    Row("escalated", "nobody", "tr"),
    Row("escalated", "recipient", "tr"),
    Row("escalated", "transferee", ""),
)
QUEUE_INITIATORS = ("anna", "dora", "gus")
QUEUE_RECIPIENTS = ("1109", "1110", "1111")
"""Phones of nobody: members of the second level of each initiator's team, made by the PBX."""

BATCHES = max(-(-len(TABLE) // len(INITIATORS)), -(-len(QUEUE_TABLE) // len(QUEUE_INITIATORS)))


@dataclass(slots=True)
class Lane:
    """One transfer in play."""

    row: Row
    initiator: str
    asked: str
    queue: str = ""
    screen: Screen = field(init=False)
    call: str = ""
    customer: str = ""

    @property
    def team(self) -> str:
        return SEAT[self.initiator].team

    @property
    def rings(self) -> bool:
        """Whether the one who is asked does not answer before somebody leaves."""
        return self.row.how in ("ringing", "ringback", "blind", "queue asked", "escalated")

    @property
    def devices(self) -> dict[str, str]:
        return {"t": "PJSIP/trunk", "i": f"PJSIP/{SEAT[self.initiator].phone}", "r": f"PJSIP/{self.asked}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def centre(asterisk_installation: Installation, postgres_server: Postgres) -> AsyncIterator[Centre]:
    async with centre_of(asterisk_installation, postgres_server, main={"ring_seconds": 6}) as centre:
        yield centre


async def stand(centre: Centre, lane: Lane) -> None:
    """Bring a transfer to where the row begins."""
    screen, call, how = lane.screen, lane.call, lane.row.how
    await centre.phone(lane.asked, delay="600" if lane.rings else "0")
    if how == "blind":
        await screen.ask("call.transfer", call=call, to=lane.asked)
        return
    await screen.ask("call.consult", call=call, to=lane.asked)
    if how == "ringing":
        return
    if how == "ringback":
        await screen.ask("call.complete", call=call)
        return
    await screen.wait_for(
        "call.established", call=call, where=lambda data: data["connection"]["device"] == lane.devices["r"]
    )
    if how == "alternated":
        await screen.ask("call.alternate", call=call)
    elif how == "completed":
        await screen.ask("call.complete", call=call)


async def stand_by_queue(centre: Centre, lane: Lane) -> None:
    """Bring a transfer by a queue to where the row begins."""
    screen, call, how = lane.screen, lane.call, lane.row.how
    mode = "silent" if how == "queue asked in vain" else ""
    await centre.phone(lane.asked, delay="600" if lane.rings else "0", mode=mode)
    if how == "escalated":
        await screen.ask("call.escalate", call=call, reason="The table says so")
        return
    await screen.ask("call.consult", call=call, to_queue=f"main:{lane.queue}", wait=5 if mode else 30)
    if lane.rings or mode:
        return
    await screen.wait_for(
        "call.established", call=call, where=lambda data: data["connection"]["device"] == lane.devices["r"]
    )
    if how == "queue completed":
        await screen.ask("call.complete", call=call)


async def leave(centre: Centre, lane: Lane) -> None:
    """Somebody hangs up, and is gone; then the one who is asked answers, if it still rings or whenever it rings again."""
    if lane.rings:
        await rung(centre, lane)
    await gone(centre, lane)
    if lane.rings:
        await centre.phone(lane.asked)
        at = await phone_in_the_world(centre, lane)
        if at is not None:
            link = await centre.ami("world")
            with suppress(AmiError):  # it has stopped ringing just now
                await link.send(
                    "Redirect",
                    {"Channel": at, "Context": "desk-phone", "Exten": lane.asked, "Priority": "1"},
                )


async def phone_in_the_world(centre: Centre, lane: Lane) -> str | None:
    """The channel of the one who is asked, at their phone; None while it does not ring."""
    for row in await (await centre.ami("world")).query("CoreShowChannels"):
        told = fields_of(row)
        if told.get("Context") == "desk-phone" and told.get("Exten") == lane.asked:
            return told["Channel"]
    return None


async def rung(centre: Centre, lane: Lane) -> None:
    """Wait until the phone of the one who is asked rings."""
    async with asyncio.timeout(10):
        while await phone_in_the_world(centre, lane) is None:
            await asyncio.sleep(0.05)


async def gone(centre: Centre, lane: Lane) -> None:
    """Who leaves hangs up, and is out of the call."""
    device = lane.devices.get(lane.row.who[0])
    if device is None:
        return
    left = [row["Uniqueid"] for row in await rows_of(centre, lane) if row["Channel"].startswith(device + "-")]
    assert left, f"{lane.row}: was not there"
    if lane.row.who == "transferee":
        await centre.hang_up(lane.customer)
    else:
        await centre.phone_hangs_up(device.partition("/")[2])
    async with asyncio.timeout(10):
        while any(row["Uniqueid"] in left for row in await rows_of(centre, lane)):
            await asyncio.sleep(0.05)


async def rows_of(centre: Centre, lane: Lane) -> list[dict[str, str]]:
    """The channels of the call."""
    return [row for row in await centre.channels() if row["Linkedid"] == lane.call.partition(":")[2]]


async def talking(centre: Centre, lane: Lane) -> set[str]:
    """Who of the call talk with one another now, as Asterisk says."""
    rows = await rows_of(centre, lane)
    joined: dict[str, set[str]] = {}
    for row in rows:
        if row["BridgeId"]:
            joined.setdefault(row["BridgeId"], set()).add(row["Channel"])
    halves: dict[str, list[str]] = {
        row["Channel"][:-1]: [] for row in rows if row["Channel"].startswith("Local/")
    }
    for bridge, channels in joined.items():
        for channel in channels:
            if channel[:-1] in halves:
                halves[channel[:-1]].append(bridge)
    for ends in halves.values():
        if len(ends) == 2 and ends[0] != ends[1]:
            one, other = ends
            union = joined[one] | joined[other]
            for bridge, channels in joined.items():
                if channels <= union:
                    joined[bridge] = union
    names = {device: name for name, device in lane.devices.items()}
    for channels in joined.values():
        parties = {names[d] for channel in channels if (d := channel.rpartition("-")[0]) in names}
        if len(parties) > 1:
            return parties
    return set("alone") if rows else set()


async def comes_to(centre: Centre, lane: Lane) -> str:
    """Wait for the row's end; what was wrong, or ""."""
    wanted = set(lane.row.left)
    deadline = asyncio.get_running_loop().time() + 20
    while (now := await talking(centre, lane)) != wanted:
        if asyncio.get_running_loop().time() > deadline:
            return f"{lane.row}: {sorted(now)}"
        await asyncio.sleep(0.1)
    return ""


async def in_talk(centre: Centre, lanes: list[Lane]) -> None:
    """The initiators of a team talk with a customer each, one after the other, and want no further call."""
    for lane in lanes:
        screen = lane.screen = await centre.screen(lane.initiator)
        await centre.log_on(screen)
        queue = SEAT[lane.initiator].queues[0].partition(":")[2]
        lane.customer = await centre.call(queue, talk=120)
        lane.call = (await screen.wait_for("call.established", agent=lane.initiator))["data"]["call"]
        await screen.ask("agent.not_ready", reason="Break")


async def play(centre: Centre, lanes: list[Lane], server: str) -> None:
    """Those who leave do, with the server or without; then the table's right."""
    if server == "down":
        await centre.stop_server()
    await asyncio.gather(*(leave(centre, lane) for lane in lanes))
    wrong = [said for said in await asyncio.gather(*(comes_to(centre, lane) for lane in lanes)) if said]
    await asyncio.sleep(0.5)  # what the dialplan still has in mind
    wrong += [
        f"{lane.row}: did not stay" for lane in lanes if await talking(centre, lane) != set(lane.row.left)
    ]
    assert not wrong, "\n".join(wrong)
    if server == "down":
        await centre.start_server()
    for lane in lanes:
        await told(centre, lane)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second_levels(centre: Centre) -> AsyncIterator[tuple[str, ...]]:
    """A second level for each initiator's team, and the rules that lead there."""
    queues = centre.pbx.run_dir / "etc" / "queues.conf"
    names = tuple(f"second{n}" for n in range(len(QUEUE_INITIATORS)))
    queues.write_text(queues.read_text() + "".join(f"\n[{name}](q)\n" for name in names))
    await centre.admin("Command", Command="module reload app_queue.so")
    known = centre._server.switches["main"].queues
    await centre.eventually(lambda: all(known.knows(f"main:{name}") for name in names), what="the new queues")
    escalations = [
        {"id": name, "teams": [SEAT[login].team], "to": name}
        for name, login in zip(names, QUEUE_INITIATORS, strict=True)
    ]
    status, told = await centre.rest(
        "PUT",
        "/api/v1/routing/rules",
        ADMIN,
        json={"rules": {"escalations": escalations}},
        headers={"If-Match": "0"},
    )
    assert status == 200, told
    yield names


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("server", ["up", "down"])
async def test_nobody_is_left_in_the_air(
    centre: Centre, second_levels: tuple[str, ...], server: str, batch: int
) -> None:
    rows = TABLE[batch * len(INITIATORS) :][: len(INITIATORS)]
    queue_rows = QUEUE_TABLE[batch * len(QUEUE_INITIATORS) :][: len(QUEUE_INITIATORS)]
    by_number = [Lane(*one) for one in zip(rows, INITIATORS, RECIPIENTS, strict=False)]
    by_queue = [
        Lane(*one) for one in zip(queue_rows, QUEUE_INITIATORS, QUEUE_RECIPIENTS, second_levels, strict=True)
    ]
    lanes = by_number + by_queue
    known = centre._server.switches["main"].queues
    for lane in by_queue:
        await centre.admin("QueueAdd", Queue=lane.queue, Interface=f"PJSIP/{lane.asked}")
    await centre.eventually(
        lambda: all(known.members(f"main:{one}") for one in second_levels), what="members"
    )
    try:
        await asyncio.gather(*(in_talk(centre, [one for one in lanes if one.team == team]) for team in TEAMS))
        await asyncio.gather(
            *(stand(centre, lane) for lane in by_number), *(stand_by_queue(centre, lane) for lane in by_queue)
        )
        await play(centre, lanes, server)
    finally:
        for lane in by_queue:
            await centre.admin("QueueRemove", Queue=lane.queue, Interface=f"PJSIP/{lane.asked}")
        await centre.quiet()


async def told(centre: Centre, lane: Lane) -> None:
    """Wait until the server tells what is so."""
    wanted = set(lane.row.left)
    await centre.eventually(
        lambda: through(centre, lane) == wanted, what=lambda: f"{lane.row} {through(centre, lane)}"
    )


def through(centre: Centre, lane: Lane) -> set[str]:
    """Who is connected in the call as the server tells."""
    view = centre._server.switches["main"].calls.view(lane.call)
    names = {device: name for name, device in lane.devices.items()}
    return {names.get(c.device, "?") for c in view.connections if c.state == "connected"} if view else set()
