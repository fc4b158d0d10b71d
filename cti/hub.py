"""The hub: hands each fact to the clients that may see it. One frame is built per fact, whoever reads it.

Everything here happens in one turn of the event loop: no await, no task, no queue per client. What a client has not
read yet waits in its transport, bounded by `buffer` bytes; a client that falls further behind is closed and resumes.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Protocol

import msgspec
import structlog
from pydantic import BaseModel

from cti.bus import Envelope
from cti.people import Actor
from cti.protocol import (
    NOT_AUTHENTICATED,
    REPLACED,
    RESTARTING,
    TOO_SLOW,
    CloseCode,
)

log = structlog.get_logger(__name__)

Topics = frozenset[str]
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

GONE = CloseCode(1006, "gone", "the connection ended without a word", True)
EXPIRY_NOTICE = timedelta(seconds=90)
SEATS_PER_AGENT = 16


class Grant(Protocol):
    """What a token was good for: who it is, and until when (None: no end)."""

    @property
    def actor(self) -> Actor: ...

    @property
    def expires(self) -> datetime | None: ...


class Wire(Protocol):
    """The part of asyncio's transport that a session writes to."""

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int: ...

    def is_closing(self) -> bool: ...

    def abort(self) -> None: ...


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Returns one whole unmasked websocket frame, FIN set. RFC 6455, 5.2."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def pack(value: Any) -> bytes:
    """Returns the JSON of a frame, UTF-8, times as the facts have them. A set has no order to be written in: give a list."""
    return _encode(value)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    raise NotImplementedError(f"{type(value).__name__} has no JSON")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


GATHERED_MOST = 64 * 1024
"""Bytes of facts that gather for one client in one turn of the loop before they are written without waiting for its end."""


REACHED_MOST = 5000
"""Sets of topics for which it is kept who listens to them."""


class Session:
    """One client's connection after its hello.

    While it resumes, facts are held back in `held`; live, those of one turn of the loop gather in `waiting` and go to the
    wire in one write. After `close` nothing more is
    written, and the connection is gone within the grace time whether the client reads or not.
    """

    __slots__ = (
        "actor",
        "allowance",
        "claimed",
        "closed",
        "grant",
        "heard",
        "held",
        "held_size",
        "noticed",
        "on_close",
        "overflowed",
        "phone",
        "pinged",
        "since",
        "topics",
        "waiting",
        "waiting_size",
        "wire",
    )

    def __init__(
        self,
        *,
        grant: Grant,
        wire: Wire,
        allowance: int,
        claimed: bool = False,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.grant = grant
        self.actor = grant.actor
        self.wire = wire
        self.allowance = allowance
        self.claimed = claimed
        self.phone = False
        self.topics: Topics = frozenset()
        self.held: list[tuple[int, bytes]] | None = None
        self.held_size = 0
        self.waiting: list[bytes] = []
        self.waiting_size = 0
        self.overflowed = False
        self.closed: CloseCode | None = None
        self.since = self.heard = self.pinged = monotonic()
        self.noticed = False
        self.on_close = on_close

    def gone(self) -> None:
        """The connection is no more: nothing is written from now on."""
        if self.closed is None:
            self.closed = GONE

    def write(self, framed: bytes) -> bool:
        """Writes a whole frame; closes the session instead, and says False, if the client lags too far behind."""
        if self.closed is not None or self.wire.is_closing():
            return False
        if self.wire.get_write_buffer_size() > self.allowance:
            self.close(TOO_SLOW)
            return False
        if self.waiting:
            framed = b"".join((*self.waiting, framed))
            self.waiting.clear()
            self.waiting_size = 0
        self.wire.write(framed)
        return True

    def send(self, value: Any) -> bool:
        """Writes a value as a text frame; see `write`."""
        return self.write(frame(pack(value)))

    def hold(self, seq: int, framed: bytes) -> None:
        """Keeps a fact back until what came before it has been sent; of too many, none (a snapshot is due then)."""
        if self.held is None or self.overflowed:
            return
        self.held.append((seq, framed))
        self.held_size += len(framed)
        if self.held_size > self.allowance:
            self.held, self.overflowed = [], True

    def release(self, after: int) -> None:
        """Sends the facts held back with a higher seq than `after`; from now on facts go straight out."""
        held, self.held, self.held_size = self.held or (), None, 0
        for seq, framed in held:
            if seq > after and not self.write(framed):
                return

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Says goodbye, sends the close frame, and takes nothing more. Done once; later calls do nothing."""
        if self.closed is not None:
            return
        if self.waiting and code is not TOO_SLOW and not self.wire.is_closing():
            self.wire.write(b"".join(self.waiting))
        self.waiting.clear()
        self.closed = code
        farewell(self.wire, code, reason)
        if self.on_close is not None:
            self.on_close()


def farewell(wire: Wire, code: CloseCode, reason: str = "") -> None:
    """Writes the goodbye frame and the close frame, whose reason holds at most 123 bytes. RFC 6455, 5.5.1."""
    if wire.is_closing():
        return
    reason = reason or code.meaning
    if code is not TOO_SLOW:  # it would only wait behind all that was not read
        wire.write(
            frame(pack({"type": "goodbye", "code": code.code, "reason": reason, "come_back": code.come_back}))
        )
    short = reason.encode()[:123].decode(errors="ignore").encode()
    wire.write(frame(struct.pack("!H", code.code) + short, CLOSE))


@dataclass(slots=True)
class Counts:
    """What the hub has done since it was made; for metrics."""

    facts: int = 0
    writes: int = 0
    too_slow: int = 0
    silent: int = 0
    failed: int = 0


class Hub:
    """Who listens to what. `subscriptions(actor)`: the topics of an actor's clients; `snapshot(actor)`: what they see."""

    def __init__(
        self,
        *,
        subscriptions: Callable[[Actor], Topics],
        snapshot: Callable[[Actor], Any],
        seq: Callable[[], int],
        epoch: str,
        buffer: int,
        heartbeat: float,
        still_valid: Callable[[Grant], bool] = lambda _grant: True,
        now: Callable[[], datetime],
        version: str,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._subscriptions = subscriptions
        self._snapshot = snapshot
        self._seq = seq
        self.epoch = epoch
        self._still_valid = still_valid
        self._now = now
        self._version = version
        self.clock = clock
        self._swept = clock()
        self._listeners: dict[str, set[Session]] = defaultdict(set)
        self._reached: dict[Topics, tuple[Session, ...]] = {}
        self._seats: dict[str, list[Session]] = {}
        self._due: list[Session] = []
        self._flushing = False
        self.buffer = buffer
        self.heartbeat = heartbeat
        self.counts = Counts()

    def __len__(self) -> int:
        return sum(len(seats) for seats in self._seats.values())

    def __iter__(self) -> Iterator[Session]:
        return iter([session for seats in self._seats.values() for session in seats])

    def tabs(self, login: str) -> int:
        """How many clients this user has open."""
        return len(self._seats.get(login, ()))

    def phone_of(self, login: str) -> Session | None:
        """The client of this user that is the phone; None if none is open."""
        return next((seat for seat in self._seats.get(login, ()) if seat.phone), None)

    def carry(self, envelope: Envelope) -> None:
        """Gives the fact to every client that listens to one of its topics, once to each. A carrier of the bus.

        What one turn of the loop publishes goes out in one write a client, when the turn is over.
        """
        sessions = self._reached.get(envelope.topics)
        if sessions is None:
            sessions = self._who_listens(envelope.topics)
        if not sessions:
            return
        framed = frame(envelope.frame)
        counts = self.counts
        counts.facts += 1
        for session in sessions:
            if session.closed is not None:
                continue
            if session.held is not None:
                session.hold(envelope.seq, framed)
                continue
            if not session.waiting:
                self._due.append(session)
            session.waiting.append(framed)
            session.waiting_size += len(framed)
            if session.waiting_size > GATHERED_MOST:
                self._write_out(session)
        counts.writes += len(sessions)
        if not self._flushing and self._due:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _who_listens(self, topics: Topics) -> tuple[Session, ...]:
        """Each client that listens to one of them, once; kept until somebody comes, goes or may see other things."""
        if len(self._reached) >= REACHED_MOST:
            self._reached.clear()
        found = self._reached[topics] = tuple(
            {one for topic in topics for one in self._listeners.get(topic, ())}
        )
        return found

    def _flush(self) -> None:
        self._flushing = False
        due, self._due = self._due, []
        for session in due:
            if session.waiting and session.closed is None:
                self._write_out(session)

    def _write_out(self, session: Session) -> None:
        """Writes what has gathered; a client that lags too far behind, or cannot be written to, is closed."""
        waiting, wire = session.waiting, session.wire
        framed = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        waiting.clear()
        session.waiting_size = 0
        try:
            if wire.is_closing():
                return
            if wire.get_write_buffer_size() <= session.allowance:
                wire.write(framed)
                return
            self.counts.too_slow += 1
            session.close(TOO_SLOW)
        except Exception:
            self.counts.failed += 1
            session.gone()
            log.exception("a client could not be written to")
        self.leave(session)

    def epoch_for(self, actor: Actor, topics: Topics) -> str:
        """The name of a stream: another one when the journal, the user or what the user may see is another."""
        view = "\n".join((actor.login, actor.role, *sorted(topics)))
        return f"{self.epoch}.{hashlib.sha256(view.encode()).hexdigest()[:12]}"

    def join(self, session: Session) -> bool:
        """Subscribes the session; False, and nothing done, if this user has too many clients open already.

        A session that claims the phone closes the one that claimed it before.
        """
        login = session.actor.login
        seats = self._seats.setdefault(login, [])
        if session.claimed:
            for other in [seat for seat in seats if seat.claimed]:
                other.close(REPLACED)
                self._drop(other)
        seats = self._seats.setdefault(login, [])
        if len(seats) >= SEATS_PER_AGENT:
            return False
        seats.append(session)
        self._listen(session, self._subscriptions(session.actor))
        self._choose_phone(login, newcomer=session)
        return True

    def leave(self, session: Session) -> None:
        """Takes the session out; nothing happens if it is out already."""
        if self._drop(session):
            self._choose_phone(session.actor.login)

    def refresh(self, login: str | None = None) -> None:
        """Looks again at what the clients of `login` (None: everybody) may see. Those for whom it changed get a welcome
        with a new epoch and a snapshot; nobody else notices."""
        for session in list(self) if login is None else list(self._seats.get(login, ())):
            topics = self._subscriptions(session.actor)
            if topics != session.topics and session.closed is None:
                self._unlisten(session)
                self._listen(session, topics)
                if session.held is None:
                    self.show(session)

    def renew(self, session: Session, grant: Grant) -> None:
        """Takes over a fresh grant of the same user; a changed role or team takes effect at once."""
        session.grant = grant
        session.noticed = False
        if session.actor != grant.actor:
            session.actor = grant.actor
            self.refresh(grant.actor.login)

    def show(self, session: Session) -> None:
        """Sends a welcome and a snapshot that stand for the same moment."""
        session.held, session.held_size = None, 0
        seq = self._seq()
        self.welcome(session, seq=seq, resumed=False)
        snapshot = b'{"type":"snapshot","seq":%d,"data":%s}' % (seq, pack(self._snapshot(session.actor)))
        # A snapshot may be larger than the buffer a client is allowed: it must not be what closes the client.
        session.allowance = self.buffer + len(snapshot)
        session.write(frame(snapshot))

    def welcome(self, session: Session, *, seq: int, resumed: bool) -> None:
        """Sends a welcome frame."""
        actor = session.actor
        session.send(
            {
                "type": "welcome",
                "epoch": self.epoch_for(actor, session.topics),
                "seq": seq,
                "resumed": resumed,
                "agent": {
                    "login": actor.login,
                    "name": actor.name,
                    "role": actor.role,
                    "teams": sorted(actor.teams),
                },
                "heartbeat": self.heartbeat,
                "phone": session.phone,
                "tabs": self.tabs(actor.login),
                "server": {"version": self._version, "time": self._now()},
            }
        )

    def close(self, login: str, code: CloseCode = NOT_AUTHENTICATED, reason: str = "") -> None:
        """Closes all clients of a user: logged out, disabled, rights taken away."""
        for session in list(self._seats.get(login, ())):
            session.close(code, reason)
            self.leave(session)

    def stop(self) -> None:
        """Closes everybody with 1012: they come back and resume."""
        for session in list(self):
            session.close(RESTARTING)
            self._drop(session)

    def sweep(self) -> None:
        """Pings the quiet, drops the silent, warns of and ends tokens that expire. To be called about once a second."""
        now = self.clock()
        late = now - self._swept > self.heartbeat / 2
        self._swept = now
        today = self._now()
        for session in self:
            if session.closed is not None:
                self.leave(session)
                continue
            if late:  # we were the silent one
                session.heard = now
            self._check_heart(session, now)
            self._check_token(session, today)

    def _check_heart(self, session: Session, now: float) -> None:
        quiet = now - session.heard
        if quiet > 2 * self.heartbeat:
            self.counts.silent += 1
            session.gone()
            session.wire.abort()
            self.leave(session)
        elif quiet >= self.heartbeat and now - session.pinged >= self.heartbeat:
            session.pinged = now
            session.write(frame(b"", PING))

    def _check_token(self, session: Session, now: datetime) -> None:
        expires = session.grant.expires
        if not self._still_valid(session.grant):
            session.close(NOT_AUTHENTICATED, "this log-in was ended: log in again")
        elif expires is None:
            return
        elif expires <= now:
            session.close(NOT_AUTHENTICATED, "the token has expired: get a new one and connect again")
        elif not session.noticed and expires - now <= EXPIRY_NOTICE:
            session.noticed = True
            session.send({"type": "token_expiring", "data": {"at": expires}})
        if session.closed is not None:
            self.leave(session)

    def _listen(self, session: Session, topics: Topics) -> None:
        session.topics = topics
        self._reached.clear()
        for topic in topics:
            self._listeners[topic].add(session)

    def _unlisten(self, session: Session) -> None:
        self._reached.clear()
        for topic in session.topics:
            listeners = self._listeners[topic]
            listeners.discard(session)
            if not listeners:
                del self._listeners[topic]
        session.topics = frozenset()

    def _drop(self, session: Session) -> bool:
        login = session.actor.login
        seats = self._seats.get(login, [])
        if session not in seats:
            return False
        self._unlisten(session)
        seats.remove(session)
        if not seats:
            del self._seats[login]
        return True

    def _choose_phone(self, login: str, newcomer: Session | None = None) -> None:
        """Makes exactly one the phone: the one that claims it, else the oldest; tells the others of the change."""
        seats = self._seats.get(login)
        if not seats:
            return
        phone = next((seat for seat in seats if seat.claimed), seats[0])
        for seat in seats:
            seat.phone = seat is phone
        for seat in seats:
            if seat is not newcomer and seat.held is None:
                seat.send({"type": "seat", "data": {"phone": seat.phone, "tabs": len(seats)}})
