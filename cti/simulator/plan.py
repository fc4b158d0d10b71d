"""What the simulated PBX is like and what its customers and agents do. Shapes only."""

from __future__ import annotations

from dataclasses import dataclass, field

Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A customer: the number as the carrier delivers it, and the name."""

    number: str
    name: str = "<unknown>"


SOME_CALLERS = (
    Caller(number="15551234567", name="Ada Lovelace"),
    Caller(number="15557654321", name="Grace Hopper"),
    Caller(number="442079460123", name="<unknown>"),
    Caller(number="anonymous", name="Anonymous"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the PBX is configured and how people behave. Spans are (least, most) in seconds, shares are of 1."""

    calls_per_second: float = 0.0
    """New inbound calls; they come at random moments (Poisson)."""
    most_calls: int = 5000
    """Calls at one time; further ones are not put through, as by a carrier without free lines."""
    last_call: int | None = None
    """How many inbound calls come at all; None: no end."""
    agents: int = 4
    """Phones PJSIP/<extension>, counted up from `first_extension`."""
    first_extension: int = 1001
    agent_names: tuple[str, ...] = ()
    queues: dict[str, str] = field(default_factory=lambda: {"5550100": "sales", "5550200": "support"})
    """Number dialled → queue."""
    static_members: bool = False
    """Whether the phones are members from the start, each of one queue in turn; else they are added over AMI."""
    callers: tuple[Caller, ...] = SOME_CALLERS
    greeting: float = 0.5
    """Seconds from the call's arrival to the queue."""
    ring: Span = (1.0, 4.0)
    talk: Span = (10.0, 60.0)
    patience: Span = (30.0, 120.0)
    ring_limit: float = 15.0
    """Seconds after which a queue gives up on a phone that rings."""
    retry: float = 1.0
    no_answer: float = 0.03
    """Share of offers that ring until `ring_limit`."""
    refused: float = 0.02
    """Share of offers that the phone refuses as busy."""
    agent_ends: float = 0.5
    """Share of talks that the agent ends."""
    customer_busy: float = 0.1
    """Share of customers whom an agent dials and who are busy."""
    seed: int | None = None
