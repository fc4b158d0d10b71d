"""AMI on one connection: bytes in, whole messages out, actions answered. It never connects, retries or judges.

A subclass of panoramisk's `AMIProtocol` which keeps the class's place in `Manager` (the factory, `send()`, the
table `responses`) and replaces what happens to each byte:

- messages stay raw; an event is known by its first line alone, and one that nobody wants is never decoded;
- a chunk is searched once, however the stream was cut, and what waits for its end is bounded;
- no exception of a parser or a listener reaches the connection;
- a pending action ends in exactly one way: answered, timed out or lost. Nothing is kept to be sent again.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol

log = structlog.get_logger(__name__)

Parser = Callable[[bytes], "object | None"]
Headers = Mapping[str, "str | Sequence[str]"]

END = b"\r\n\r\n"
GREETING = b"Asterisk Call Manager"
GREETING_MAX = 256
LINE_MAX = 1000  # Asterisk refuses a line of 1024 bytes and more than 128 headers
HEADERS_MAX = 120
PENDING_MAX = 5000
ABANDONED_MAX = 50  # lists given up whose late rows are still told from live events
ROWS_MAX_BYTES = 64 << 20
WRITE_MAX = 1 << 20  # bytes waiting for Asterisk to read them: more means that it does not read
REPEAT_LOG_AFTER = 60.0  # seconds before the same fault is logged again

_NAME = re.compile(r"[A-Za-z0-9-]+\Z")
_FORBIDDEN = re.compile(r"[\r\n\0]")
_RESERVED = frozenset({"action", "actionid"})
_FAILED = frozenset({"error", "fail", "failure", "failed"})


class AmiError(Exception):
    """An action could not be carried out; the subclass says whether Asterisk may have seen it."""


class NotConnected(AmiError):
    """The link is not up; nothing was sent."""


class BadValue(AmiError, ValueError):
    """The action cannot be put on the wire safely; nothing was sent."""


class Busy(AmiError):
    """Too many actions are unanswered, or Asterisk does not read; nothing was sent."""


class ActionRefused(AmiError):
    """Asterisk answered with an error, in its own words; `response` holds all headers."""

    def __init__(self, message: str, response: dict[str, str]) -> None:
        super().__init__(message)
        self.message = message
        self.response = response


class ActionTimeout(AmiError):
    """No answer in time; whether Asterisk carried the action out is unknown."""


class LinkLost(AmiError):
    """The connection went before the answer came; whether Asterisk carried the action out is unknown."""


@dataclass(slots=True)
class LinkStats:
    """What one link has seen since the process started; every number only rises."""

    messages: int = 0
    bytes: int = 0
    dropped: int = 0  # events that no parser is named for
    parser_errors: int = 0
    listener_errors: int = 0
    oversize: int = 0  # connections given up because of a message without an end
    reconnects: int = 0  # connections tried after the first
    unanswered: int = 0  # actions that timed out
    late: int = 0  # answers and list rows that came after their action had ended


class ComplaintBook:
    """Says a fault at most once a minute for each key; bounded by the number of keys its owner uses."""

    def __init__(self, pbx: str) -> None:
        self._log = log.bind(pbx=pbx)
        self._said: dict[str, float] = {}

    def write(self, key: str, exc: Exception) -> None:
        """Log the type and place of the fault, never its text: that may hold a caller's number."""
        now = time.monotonic()
        if now - self._said.get(key, -REPEAT_LOG_AFTER) < REPEAT_LOG_AFTER:
            return
        self._said[key] = now
        frames = traceback.extract_tb(exc.__traceback__, limit=-1)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        self._log.error("ami handler failed", handler=key, error=type(exc).__name__, where=where)


@dataclass(slots=True, eq=False)
class Pending:
    """One action on its way: its future gets the Response's headers, or the rows when it asked for a list."""

    name: str
    future: asyncio.Future[dict[str, str]] | asyncio.Future[list[bytes]]
    wants_rows: bool
    rows: list[bytes] = field(default_factory=list)
    size: int = 0
    started: bool = False  # the list's own Response has come
    abandoned: bool = False  # timed out: its rows are still swallowed until the list ends

    def fail(self, exc: AmiError) -> None:
        if not self.future.done():
            self.future.set_exception(exc)
            self.future.exception()  # whoever waited may be gone: asyncio need not complain


def text(raw: bytes) -> str:
    """Decode UTF-8, anything else byte by byte as Latin-1; never fails."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_headers(raw: bytes) -> dict[str, str]:
    """Split one message into headers; a header that repeats (Output of Command) is joined with line feeds."""
    headers: dict[str, str] = {}
    for line in raw.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            continue
        key, word = text(name), text(value[1:] if value[:1] == b" " else value)
        headers[key] = f"{headers[key]}\n{word}" if key in headers else word
    return headers


def header(raw: bytes, name: bytes) -> bytes:
    """Return a header's first value by its exact name, empty when absent."""
    mark = b"\r\n" + name + b": "
    start = raw.find(mark)
    if start < 0:
        return b""
    start += len(mark)
    end = raw.find(b"\r\n", start)
    return raw[start:] if end < 0 else raw[start:end]


def check_action(action: str, headers: Headers) -> dict[str, str | list[str]]:
    """Return the headers as they go on the wire, or raise BadValue.

    CR, LF and NUL are refused wherever they stand: Asterisk ends a line at either of the first two, so one of them
    in a value would add headers or whole actions.
    """
    if not _NAME.match(action):
        raise BadValue("the action's name may hold letters, digits and hyphens only")
    out: dict[str, str | list[str]] = {}
    seen = set(_RESERVED)
    lines = 2
    given: Mapping[Any, Any] = headers  # what comes from outside need not keep the types
    for name, value in given.items():
        if not isinstance(name, str) or not _NAME.match(name):
            raise BadValue(f"{action}: a header's name may hold letters, digits and hyphens only")
        if name.lower() in seen:
            raise BadValue(f"{action}: the header {name} is given twice or is set by the link itself")
        seen.add(name.lower())
        if not isinstance(value, Sequence) or isinstance(value, bytes):
            raise BadValue(f"{action}: {name} must be text")
        values = [value] if isinstance(value, str) else list(value)
        for one in values:
            if not isinstance(one, str):
                raise BadValue(f"{action}: {name} must be text")
            if _FORBIDDEN.search(one):
                raise BadValue(f"{action}: {name} holds a line break or a NUL")
            try:
                size = len(name) + 2 + len(one.encode("utf-8", "surrogateescape"))
            except UnicodeEncodeError:
                raise BadValue(f"{action}: {name} holds a character that has no UTF-8 form") from None
            if size >= LINE_MAX:
                raise BadValue(f"{action}: {name} is {size} bytes long, Asterisk takes less than {LINE_MAX}")
        lines += len(values)
        out[name] = values[0] if isinstance(value, str) else values
    if lines > HEADERS_MAX:
        raise BadValue(f"{action}: {lines} headers, Asterisk takes at most {HEADERS_MAX}")
    return out


class AmiProtocol(AMIProtocol):  # type: ignore[misc]  # panoramisk has no types
    """One AMI connection's stream.

    `on_records` gets what the parsers made of the messages, in order, of some `at_a_time` messages in one turn of the loop
    (more where many wait): of a burst of events the first are told to people, and answers to what they made necessary are
    read, before the last are looked at; meanwhile nothing more is read. It is first called after `on_booted`. `on_booted`
    and `on_lost` are each called at most once, from inside the event loop's callback, so that whoever listens sees the
    state change before the next record or answer.
    """

    def __init__(
        self,
        *,
        parsers: Mapping[bytes, Parser],
        on_records: Callable[[list[object]], None],
        on_booted: Callable[[], None],
        on_lost: Callable[[Exception | None], None],
        stats: LinkStats,
        complaints: ComplaintBook,
        buffer_max: int,
        at_a_time: int,
    ) -> None:
        self.responses: dict[str, Pending] = {}
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.version: str | None = None
        self._loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self.booted: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.authenticated = False
        self.heard = False  # set by every chunk; whoever watches the connection clears it
        self.fault = ""  # "wrong_host" or "too_large": why this side gave the connection up
        self.first_bytes = b""
        self._wanted: dict[bytes, Parser] = {b"Event: " + name: parse for name, parse in parsers.items()}
        self._booted_parser = self._wanted.pop(b"Event: FullyBooted", None)
        # Until Asterisk is fully booted nothing else is wanted; then the table is filled where it stands.
        self._parsers: dict[bytes, Parser] = {b"Event: FullyBooted": self._fully_booted}
        self._on_records, self._on_booted, self._on_lost = on_records, on_booted, on_lost
        self._stats, self._complaints, self._buffer_max = stats, complaints, buffer_max
        self._at_a_time = at_a_time
        self._unread: list[bytes] = []  # messages that wait for their turn, the last one first
        self._paused = False  # nothing is read from the connection until they have been
        self._tail = bytearray()
        self._lists = 0  # entries of `responses` that take rows
        self._token = f"cti-{secrets.token_hex(6)}-"
        self._mark = b"\r\nActionID: " + self._token.encode()
        self._count = 0

    # -- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.responses = {}

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unread and not self.closed:
            self._read(len(self._unread))
        self.closed = True
        self.authenticated = False
        self._tail = bytearray()
        self.forget_all()
        if not self.lost.done():
            self.lost.set_result(None)
            self._on_lost(exc)

    def close(self) -> None:
        """Fail what is pending and close; nothing is kept for a later connection."""
        self.forget_all()
        if self.transport is not None and not self.closed:
            self.transport.close()
        self.closed = True

    def abort(self, fault: str = "") -> None:
        """Drop the connection without waiting for the other side."""
        self.fault = self.fault or fault
        if self.transport is not None:
            self.transport.abort()
        self.closed = True

    # -- bytes in -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        if self._unread:  # the transport had this already when it was told to pause
            self._read(len(self._unread))
        self.heard = True
        stats = self._stats
        stats.bytes += len(data)
        tail = self._tail
        if tail:
            # Only the seam and the new bytes are searched: what waits in the tail has been searched before.
            if END not in tail[-3:] + data[:3] and END not in data and self.version is not None:
                tail += data
                self._check_size()
                return
            tail += data
            data = bytes(tail)
            self._tail = bytearray()
        if self.version is None:
            rest = self._greeting(data)
            if not rest:
                return
            data = rest
        messages = data.split(END)
        last = messages.pop()
        if last:
            self._tail = bytearray(last)
        messages.reverse()
        self._unread = messages
        self._in_turn()
        self._check_size()

    def _in_turn(self) -> None:
        """Reads the next few messages; the others after whoever waits for the loop."""
        if self.closed or self.transport is None:
            return
        # a backlog must not live on turns that cost more than what is read in them
        self._read(max(self._at_a_time, len(self._unread) // 4))
        if self._unread:
            if not self._paused:
                self._paused = True
                self.transport.pause_reading()
            self._loop.call_soon(self._in_turn)
        elif self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _read(self, most: int) -> None:
        """Reads the next messages and tells of them."""
        stats = self._stats
        records: list[object] = []
        add = records.append
        find_parser = self._parsers.get
        dropped = 0
        unread = self._unread
        here = unread[-1 : -most - 1 : -1]
        del unread[-most:]
        for raw in here:
            if self._lists and self._mark in raw and raw.startswith(b"Event: ") and self._list_row(raw):
                continue
            end = raw.find(b"\r\n")
            parse = find_parser(raw[:end])
            if parse is None:
                if end > 0 and raw.startswith(b"Event: "):
                    dropped += 1
                    continue
                parse = self._unusual(raw)
                if parse is None:
                    continue
                raw = raw.lstrip(b"\r\n")
            try:
                record = parse(raw)
            except Exception as exc:
                stats.parser_errors += 1
                self._complaints.write(text(raw[7 : raw.find(b"\r\n")]), exc)
                continue
            if record is not None:
                add(record)
        stats.messages += len(here)
        stats.dropped += dropped
        if records:
            try:
                self._on_records(records)
            except Exception as exc:
                stats.listener_errors += 1
                self._complaints.write("on_records", exc)

    def _check_size(self) -> None:
        if len(self._tail) > self._buffer_max:
            self._stats.oversize += 1
            self._tail = bytearray()
            self.abort("too_large")

    def _greeting(self, data: bytes) -> bytes:
        """Take the first line off; empty while it has not come whole, or when it is not Asterisk's."""
        self.first_bytes = data[:GREETING_MAX]
        line, end, rest = data.partition(b"\r\n")
        if not data.startswith(GREETING[: len(data)]) or (not end and len(data) > GREETING_MAX):
            self.abort("wrong_host")
            return b""
        if not end:
            self._tail = bytearray(data)
            return b""
        self.version = text(line.partition(b"/")[2]).strip()
        if not self.greeted.done():
            self.greeted.set_result(None)
        return rest

    def _unusual(self, raw: bytes) -> Parser | None:
        """Deal with all that does not start with a known event's line; return a parser where one is due after all."""
        raw = raw.lstrip(b"\r\n")
        if raw.startswith(b"Response: "):
            self._response(raw)
            return None
        for line in raw.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"event":
                parse = self._parsers.get(b"Event: " + value.strip())
                if parse is None:
                    self._stats.dropped += 1
                return parse
        return None

    def _fully_booted(self, raw: bytes) -> object | None:
        if self.authenticated and not self.booted.done():
            self.booted.set_result(None)
            self._parsers.update(self._wanted)
            self._on_booted()
        return self._booted_parser(raw) if self._booted_parser else None

    # -- answers --------------------------------------------------------------------------------------------------

    def _response(self, raw: bytes) -> None:
        headers = read_headers(raw)
        action_id = headers.get("ActionID", "").partition("\n")[0]
        failed = headers["Response"].partition("\n")[0].lower() in _FAILED
        pending = self.responses.get(action_id)
        if pending is None or pending.abandoned:
            self._stats.late += action_id.startswith(self._token)
            if pending is not None and failed:
                self.forget(action_id)
            return
        words = headers.get("Message", "")
        if failed:
            self.forget(action_id)
            pending.fail(ActionRefused(words or "Asterisk gave no reason", headers))
        elif not pending.wants_rows:
            self.forget(action_id)
            if pending.name == "Login":
                self.authenticated = True
            if not pending.future.done():
                pending.future.set_result(headers)  # type: ignore[arg-type]
        elif pending.started:
            return  # a Success among the rows ends nothing
        elif headers.get("EventList", "").lower() == "start" or "will follow" in words.lower():
            pending.started = True
        else:
            self._end_list(action_id, pending)  # Asterisk has no list for this action

    def _list_row(self, raw: bytes) -> bool:
        """Take a row of a list that was asked for; False for an event that an action of ours merely caused."""
        action_id = text(header(raw, b"ActionID"))
        pending = self.responses.get(action_id)
        if pending is None or not pending.wants_rows:
            return False
        mark = header(raw, b"EventList").lower()
        name = raw[7 : raw.find(b"\r\n")]
        if mark == b"complete" or (not mark and name.endswith(b"Complete")):
            self._end_list(action_id, pending)
        elif mark == b"cancelled":
            self.forget(action_id)
            pending.fail(ActionRefused("Asterisk broke the list off", read_headers(raw)))
        elif pending.abandoned:
            self._stats.late += 1
        else:
            pending.rows.append(raw)
            pending.size += len(raw)
            if pending.size > ROWS_MAX_BYTES:
                self.abandon(action_id)
                pending.fail(ActionRefused("the list is too long", {}))
        return True

    def _end_list(self, action_id: str, pending: Pending) -> None:
        self.forget(action_id)
        if not pending.future.done():
            pending.future.set_result(pending.rows)  # type: ignore[arg-type]

    # -- actions out ----------------------------------------------------------------------------------------------

    def prepare(self, action: str, headers: Headers) -> Action:
        """Build panoramisk's Action with an ActionID that no other connection has used; raises BadValue."""
        checked = check_action(action, headers)
        self._count += 1
        return Action({"Action": action, "ActionID": f"{self._token}{self._count}", **checked})

    def send(self, data: Action, as_list: bool | None = False) -> asyncio.Future[object]:
        """Write one prepared action and return the future of its answer: headers, or rows where `as_list`.

        Raises NotConnected or Busy, and then nothing was written.
        """
        transport = self.transport
        if transport is None or self.closed or transport.is_closing():
            raise NotConnected("the connection to Asterisk is closed")
        if len(self.responses) >= PENDING_MAX:
            raise Busy(f"{PENDING_MAX} actions are waiting for Asterisk's answer")
        if transport.get_write_buffer_size() > WRITE_MAX:
            raise Busy("Asterisk does not read what it is sent")
        future = asyncio.get_running_loop().create_future()
        self.responses[data["ActionID"]] = Pending(data["Action"], future, bool(as_list))
        self._lists += bool(as_list)
        transport.write(str(data).encode("utf-8", "surrogateescape"))
        return future

    def forget(self, action_id: str) -> None:
        """Take an action off the table; what still comes for it counts as late."""
        pending = self.responses.pop(action_id, None)
        if pending is not None and pending.wants_rows:
            self._lists -= 1

    def abandon(self, action_id: str) -> None:
        """Give an action up. A list stays known until its end, so that its late rows do not pass for live events."""
        pending = self.responses.get(action_id)
        if pending is None or not pending.wants_rows:
            self.forget(action_id)
            return
        pending.abandoned, pending.rows = True, []
        given_up = [key for key, other in self.responses.items() if other.abandoned]
        for key in given_up[:-ABANDONED_MAX]:
            self.forget(key)

    def forget_all(self) -> None:
        """Fail every action that waits; a connection that is gone answers nothing, and nothing is sent again."""
        waiting, self.responses, self._lists = self.responses, {}, 0
        for pending in waiting.values():
            pending.fail(
                LinkLost(f"connection lost before {pending.name} was answered: its outcome is unknown")
            )
