"""Phones in the browser: which client is an agent's phone, how that is, and the orders it is given.

A client that is the phone (`cti.hub`) says with `phone.state` how it is; what must be done at the phone itself goes
there as an order, and `phone.done` tells what became of it. What it did to the call is seen on the switch, not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import uuid4

from pydantic import ValidationError

from cti.commands import CommandError, sentence
from cti.people import Actor, Directory
from cti.protocol import PhoneDoneArgs, PhoneStateArgs

ORDER_SECONDS = 5.0
"""Seconds that a page has to carry out an order: a microphone may be slow to open."""

RETURN_SECONDS = 2.5
"""Seconds that an order waits for a page that is just being loaded again, or connects again."""

WHY: dict[str, str] = {
    "not_secure": "its page was not opened under https",
    "no_permission": "its page may not use the microphone",
    "no_microphone": "it has no microphone",
    "microphone_busy": "another program has its microphone",
    "pbx_unreachable": "it does not reach the PBX",
    "refused_by_pbx": "the PBX refuses its password",
}


class Seat(Protocol):
    """A client's connection, as the hub keeps it."""

    @property
    def actor(self) -> Actor: ...

    @property
    def closed(self) -> object: ...

    def send(self, value: Any) -> bool: ...


@dataclass(slots=True)
class _Phone:
    seat: Seat
    registered: frozenset[str] = frozenset()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    login: str
    done: asyncio.Future[str | None]


class BrowserPhones:
    """The phones of the moment. Bounded: one an agent; orders by their time.

    `phone_seat(login)`: the client that is the agent's phone now. `opened(pbx, login)`: told when a page has just begun to
    be the phone on that PBX and has no call: of one that it had before it was loaded again, it knows nothing any more.
    `left(pbx, login)`: told when the line to a page that was the phone on that PBX has ended.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        phone_seat: Callable[[str], Seat | None],
        opened: Callable[[str, str], None],
        left: Callable[[str, str], None] = lambda pbx, login: None,
        order_seconds: float = ORDER_SECONDS,
    ) -> None:
        self._directory = directory
        self._phone_seat = phone_seat
        self._opened = opened
        self._left = left
        self._order_seconds = order_seconds
        self._phones: dict[str, _Phone] = {}
        self._orders: dict[str, _Order] = {}
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return sum(1 for login in self._phones if self._phone(login) is not None)

    # ------------------------------------------------------------------------------------ what pages say

    def state(self, seat: Seat, args: dict[str, object]) -> None:
        """`phone.state`: how the phone in this client is."""
        told = _checked(PhoneStateArgs, "phone.state", args)
        login = seat.actor.login
        if self._phone_seat(login) is not seat:
            raise CommandError("not_the_phone", "another client of yours is the phone now")
        known = self._phones.get(login)
        fresh = known is None or known.seat is not seat
        if known is None or fresh:
            known = self._phones[login] = _Phone(seat)
        before, known.registered, known.problem = known.registered, frozenset(told.registered), told.problem
        if not told.in_call:
            for pbx in known.registered - before:
                self._opened(pbx, login)
        self._announce()

    def gone(self, seat: Seat) -> None:
        """A client's connection has ended: its tab was closed or loaded again, or the network broke."""
        known = self._phones.get(seat.actor.login)
        if known is not None and known.seat is seat:
            for pbx in known.registered:
                self._left(pbx, seat.actor.login)

    def done(self, seat: Seat, args: dict[str, object]) -> None:
        """`phone.done`: what became of an order."""
        told = _checked(PhoneDoneArgs, "phone.done", args)
        order = self._orders.get(told.order)
        if order is None or order.login != seat.actor.login:
            return  # it came too late, and the facts have told
        if not order.done.done():
            order.done.set_result(told.code)

    # ------------------------------------------------------------------------------------ orders

    def has(self, agent: str, pbx: str) -> bool:
        """Whether this agent's phone on this PBX is one in the browser."""
        known = self._directory.agents.get(agent)
        return known is not None and pbx in known.in_browser

    def there(self, agent: str, pbx: str) -> bool:
        """Whether the page is open and registered."""
        return self._missing(agent, pbx) is None

    async def ready(self, agent: str, pbx: str) -> None:
        """Waits a moment for a page that is just coming back; raises CommandError unless the phone is there."""
        try:
            async with asyncio.timeout(RETURN_SECONDS if agent in self._phones else 0):
                while self._missing(agent, pbx) is not None:
                    await self._news.wait()
        except TimeoutError:
            if (missing := self._missing(agent, pbx)) is not None:
                raise missing from None

    async def order(self, agent: str, pbx: str, do: str, *, call: str, connection: str) -> None:
        """Lets the phone do something with its part of a call; raises CommandError unless it says that it did."""
        await self.ready(agent, pbx)
        phone = self._phone(agent)
        if phone is None:
            raise _not_open(agent)
        id = uuid4().hex
        order = _Order(agent, asyncio.get_running_loop().create_future())
        self._orders[id] = order
        try:
            until = datetime.now(UTC) + timedelta(seconds=self._order_seconds)
            data = {"order": id, "do": do, "call": call, "connection": connection, "until": until}
            phone.seat.send({"type": "phone", "data": data})
            async with asyncio.timeout(self._order_seconds):
                code = await order.done
        except TimeoutError:
            why = f"the phone in the browser of {agent} does not react: its tab or its computer may be asleep; answer there"
            raise CommandError("phone_did_not_answer", why) from None
        finally:
            del self._orders[id]
        if code == "no_such_call":
            raise CommandError(
                "not_at_this_phone",
                f"the phone in the browser of {agent} has no such call: it is at another tab or device",
            )
        if code == "no_microphone":
            raise CommandError(
                "no_microphone",
                f"the browser of {agent} has no microphone for this page: allow it there, then try again",
            )
        if code is not None:
            raise CommandError("phone_failed", f"the phone in the browser of {agent} could not do it")

    def _phone(self, login: str) -> _Phone | None:
        """The phone, if its page is the one that is the phone now."""
        phone = self._phones.get(login)
        if phone is None or phone.seat.closed is not None or self._phone_seat(login) is not phone.seat:
            return None
        return phone

    def _missing(self, agent: str, pbx: str) -> CommandError | None:
        phone = self._phone(agent)
        if phone is None:
            return _not_open(agent)
        if pbx in phone.registered:
            return None
        why = WHY.get(phone.problem or "", "it is just being connected")
        return CommandError("phone_not_registered", f"the phone in the browser of {agent} is not on: {why}")

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _not_open(agent: str) -> CommandError:
    return CommandError(
        "phone_not_open", f"the phone of {agent} is the page /phone, and that is not open: open it"
    )


def _checked(model: Any, op: str, args: dict[str, object]) -> Any:
    try:
        return model.model_validate(args)
    except ValidationError as error:
        raise CommandError("bad_args", f"args of {op}: {sentence(error)}") from None
