"""Who calls in the demo, in which form of their number, and how often. Decides only; who places the calls is given."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import phonenumbers
import structlog

log = structlog.get_logger(__name__)

REGION = "GB"
"""The country in which the demo's PBX stands: only its numbers may come without a country code."""

NUMBERS_DIALLED = {
    "sales": ("442079460101", "12125550110", "49302312511"),
    "support": ("442079460201", "12125550120", "49302312521"),
    "billing": ("442079460301", "33199030000"),
    "emergency": ("442079460401",),
}
"""Queue → the numbers that lead to it (asterisk-config/pbx/extensions.conf); some customers call from abroad."""

POPULARITY = (("sales", 40), ("support", 35), ("billing", 18), ("emergency", 7))

NAMES_THAT_HURT = (
    "<script>alert(1)</script>",
    "Robert'); DROP TABLE accounts;--",
    "\x1b[2J\x1b]0;owned\x07Escape",
    "\u202elaerton",
    "Zoë 🎉👩‍👩‍👧 Ünïcödé",
    "Very " * 30 + "Long",
    "=cmd|' /C calc'!A0",
)
"""Names as somebody with a SIP phone may send them; they must do no harm anywhere."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody who may call: their number in E.164 and the name that the carrier sends along."""

    e164: str
    name: str


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that is about to come: number and name as the carrier delivers them; `patience`, seconds after which the
    customer hangs up, waiting and talking together."""

    number: str
    name: str
    queue: str
    dialled: str
    patience: int


Place = Callable[[PlannedCall], Awaitable[None]]


def as_delivered(e164: str, chance: random.Random) -> str:
    """A number in one of the forms in which carriers deliver it: +44…, 44…, 0044…, and at home 020…"""
    digits = e164.removeprefix("+")
    forms = [e164, e164, digits, "00" + digits]
    parsed = phonenumbers.parse(e164)
    if phonenumbers.region_code_for_number(parsed) == REGION or parsed.country_code == 44:
        national = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
        forms += ["".join(c for c in national if c.isdigit())] * 3
    return chance.choice(forms)


def planned(customers: Sequence[Customer], chance: random.Random) -> Iterator[PlannedCall]:
    """Calls without end: mostly customers, some strangers, some who withhold their number, a few with hostile names."""
    queues = [queue for queue, _ in POPULARITY]
    weights = [weight for _, weight in POPULARITY]
    while True:
        queue = chance.choices(queues, weights)[0]
        dialled = chance.choice(NUMBERS_DIALLED[queue])
        patience = int(chance.triangular(18, 75, 34))
        kind = chance.random()
        if kind < 0.82:
            customer = chance.choice(customers)
            number, name = as_delivered(customer.e164, chance), customer.name
            if chance.random() < 0.5:
                name = ""
        elif kind < 0.90:
            number, name = as_delivered(f"+4477009{chance.randrange(100_000):05d}", chance), ""
        elif kind < 0.96:
            number, name = "anonymous", "Anonymous"
        else:
            number, name = (
                as_delivered(f"+4477009{chance.randrange(100_000):05d}", chance),
                chance.choice(NAMES_THAT_HURT),
            )
        yield PlannedCall(number, name, queue, dialled, patience)


def pause(chance: random.Random, waiting: int, elapsed: float, mean: float = 3.5) -> float:
    """Seconds until the next call: `mean` on average, in waves of four minutes, and fewer while many wait."""
    wave = 1.0 + 0.35 * math.sin(elapsed / 240.0 * 2 * math.pi)
    crowd = 1.0 if waiting < 5 else 1.0 + (waiting - 4) * 0.5
    return min(20.0, chance.expovariate(1.0) * 0.5 + 0.5) * mean * wave * crowd


async def run(
    place: Place,
    customers: Sequence[Customer],
    *,
    waiting: Callable[[], int],
    chance: random.Random,
    mean: float = 3.5,
) -> None:
    """Lets calls come until cancelled; one that cannot be placed is left out."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for call in planned(customers, chance):
        try:
            await place(call)
        except Exception as error:
            log.warning("a demo call could not be placed", error=str(error))
        await asyncio.sleep(pause(chance, waiting(), loop.time() - began, mean))
