"""The canary: how late the events of a PBX are. Whoever decides on live state asks whether they are timely first.

A link can be up, answer every ping, and still tell of the world of some seconds ago: events queue up inside Asterisk, on
the wire or here, and answers do not pass through the same queue. So every second one event is sent round: the AMI action
UserEvent makes Asterisk tell all its clients, us among them, and what lies between asking and hearing is how late events
are at this moment. One that does not come is as late as it has been away. Ordinary events tell too, by their Timestamp:
the smallest difference between its clock and ours that was seen is taken for the difference of the clocks.

Needed of the AMI user: `user` in read= and in write=. Without it nothing is measured, which is said once in the log.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from cti.ami import ActionRefused, AmiError, Parser

log = structlog.get_logger(__name__)

NAME = b"CtiCanary"
CALM = 3
"""Canaries in a row that must come in time before events count as timely again."""

GIVEN_UP = 30.0
"""Seconds after which a canary that did not come is taken for lost, and the next one is sent."""

LOOKS = 5
"""How often a canary's time is looked at between two of them."""

CLOCKS_FROM = 120
"""Differences between the clocks that are kept; the smallest counts, so a clock that is set right is noticed in minutes."""


class Timeliness(StrEnum):
    """How an event stream stands. `unmeasured`: no canary has ever come back."""

    UNMEASURED = "unmeasured"
    TIMELY = "timely"
    LATE = "late"


@dataclass(slots=True)
class Stream:
    """What is known of a PBX's event stream. Pure: times are given, in seconds.

    Late from the moment that something is `late_after` old; timely again when `CALM` canaries in a row came in half of it,
    and nothing else was late meanwhile.
    """

    late_after: float
    state: Timeliness = Timeliness.UNMEASURED
    delay: float = 0.0
    sent_at: float | None = None
    calm: int = 0
    ever: bool = False
    _clocks: deque[float] = field(default_factory=lambda: deque(maxlen=CLOCKS_FROM))
    _clock: float | None = None

    def sent(self, now: float) -> None:
        """A canary is on its way."""
        self.sent_at = now

    def heard(self, now: float, *, wall: float | None = None, stamp: float | None = None) -> None:
        """The canary came back. `wall`: our clock, `stamp`: Asterisk's, when it sent the event; None without Timestamp."""
        if self.sent_at is None:
            return
        age, self.sent_at, self.ever = now - self.sent_at, None, True
        if wall is not None and stamp is not None:
            self._clocks.append(wall - stamp)
            self._clock = min(self._clocks)
        self.delay = age
        self._judge(age)
        if age <= self.late_after / 2:
            self.calm += 1
            if self.state is not Timeliness.LATE or self.calm >= CALM:
                self.state = Timeliness.TIMELY

    def event(self, wall: float, stamp: float) -> None:
        """An ordinary event came that Asterisk had sent at `stamp`."""
        if self._clock is not None and (age := wall - stamp - self._clock) >= self.late_after:
            self.delay = max(self.delay, age)
            self._judge(age)

    def look(self, now: float) -> None:
        """Looks at the canary that is away. One that never came back, when none ever has, tells nothing."""
        if self.sent_at is not None and self.ever:
            age = now - self.sent_at
            if age >= self.late_after:
                self.delay = age
            self._judge(age)

    def forget(self) -> None:
        """The connection is another one: a canary that is away stays there. What was late must prove itself anew."""
        self.sent_at, self.calm = None, 0

    def _judge(self, age: float) -> None:
        if age > self.late_after / 2:
            self.calm = 0
        if age >= self.late_after:
            self.state = Timeliness.LATE


Send = Callable[[str, Mapping[str, str]], Awaitable[Mapping[str, str]]]

_TOKEN = re.compile(rb"\r\nToken: ?([^\r\n]*)")
_STAMP = re.compile(rb"\r\nTimestamp: ?([0-9.]+)")


class Canary:
    """Measures one PBX while it is up. `on_change(delay)`: seconds by which events are late now, None when no more.
    `refused`: Asterisk does not let this user send the event."""

    def __init__(
        self,
        pbx: str,
        *,
        send: Send,
        is_up: Callable[[], bool],
        on_change: Callable[[float | None], None],
        every: float = 1.0,
        late_after: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.pbx = pbx
        self.stream = Stream(late_after)
        self._send = send
        self._is_up = is_up
        self._on_change = on_change
        self._every = every
        self._clock = clock
        self._wall = wall
        self._token = b""
        self._told = False
        self.refused = False

    @property
    def late(self) -> bool:
        """Whether events are late now."""
        return self.stream.state is Timeliness.LATE

    @property
    def delay(self) -> float:
        """Seconds that the last canary took, or that the present one has been away if that is too long."""
        return self.stream.delay

    def parser(self, ordinary: Parser) -> Parser:
        """A parser of UserEvent for the link: hears canaries, leaves all others to `ordinary`."""

        def parse(raw: bytes) -> object:
            if NAME not in raw:
                return ordinary(raw)
            token = _TOKEN.search(raw)
            if token is not None and self._token and token[1] == self._token:
                self._token = b""
                stamp = _STAMP.search(raw)
                self.stream.heard(self._clock(), wall=self._wall(), stamp=float(stamp[1]) if stamp else None)
                self._tell()
            return None

        return parse

    def event(self, stamp: float) -> None:
        """An ordinary event has come which Asterisk sent at `stamp`; 0 when it did not say."""
        if stamp > 0:
            self.stream.event(self._wall(), stamp)
            if self.stream.state is Timeliness.LATE and not self._told:
                self._tell()

    async def run(self) -> None:
        """Sends canaries and looks after them, until cancelled."""
        was_up = False
        next_at = 0.0
        while True:
            await asyncio.sleep(self._every / LOOKS)
            up, now = self._is_up(), self._clock()
            if up != was_up or not up:
                was_up = up
                self.stream.forget()
                self._token = b""
                self.refused = False
                self._told = self._told and up
                continue
            self.stream.look(now)
            self._tell()
            away = self.stream.sent_at
            if now >= next_at and not self.refused and (away is None or now - away >= GIVEN_UP):
                next_at = now + self._every
                await self._send_one()

    async def _send_one(self) -> None:
        self._token = secrets.token_hex(8).encode()
        self.stream.sent(self._clock())
        try:
            async with asyncio.timeout(self._every):
                await self._send("UserEvent", {"UserEvent": NAME.decode(), "Token": self._token.decode()})
        except ActionRefused as error:
            self.refused = True
            self.stream.forget()
            log.warning(
                "how late events are cannot be measured: give the AMI user `user` in write=",
                pbx=self.pbx,
                why=str(error),
            )
        except (AmiError, TimeoutError):
            pass  # sent or not: the event that comes, or does not, tells

    def _tell(self) -> None:
        late = self.stream.state is Timeliness.LATE
        if late != self._told:
            self._told = late
            level = log.warning if late else log.info
            level(
                "events are late" if late else "events are timely again",
                pbx=self.pbx,
                seconds=round(self.delay, 2),
            )
            self._on_change(self.delay if late else None)
