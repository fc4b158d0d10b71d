"""The websocket `/ws`: lets a client in, answers its commands, and takes whatever it may send. RFC 6455, `cti.v1`.

aiohttp shakes hands and parses; every byte towards the client is written by `cti.hub`, one whole frame a write, so
nothing can come between the parts of a frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from cti.commands import Bucket, CommandError, Commands, sentence
from cti.database import AWAY
from cti.hub import CLOSE, PONG, SEATS_PER_AGENT, Grant, Hub, Session, Wire, farewell, frame, pack
from cti.json_in import has_nul, read_json, too_deep
from cti.problems import Problem
from cti.protocol import (
    BAD_FRAME,
    FORBIDDEN,
    LARGEST_FRAME,
    NOT_AUTHENTICATED,
    RESTARTING,
    SUBPROTOCOL,
    CloseCode,
    CommandFrame,
    Hello,
    RenewArgs,
    Resume,
)

log = structlog.get_logger(__name__)


class Missed(Protocol):
    """The frames a client has missed, in order: all up to number `seq`."""

    @property
    def seq(self) -> int: ...

    @property
    def frames(self) -> Sequence[bytes]: ...


Resumer = Callable[[str, int, frozenset[str]], Awaitable[Missed | None]]
"""Returns what was published in this epoch after this number for these topics; None if that cannot be proved complete."""

COOKIE = "cti_access"
FRAMES_A_SECOND, FRAMES_AT_ONCE = 50.0, 250.0
FRAMES_OVER_LIMIT = 250
ANSWERS_AT_ONCE = 64
LOOK_UP_FAILED = "the database does not answer, so who you are cannot be looked up: come back in a moment"


class NotAuthenticated(Exception):
    """The token is not good; the message says why and what to do."""


Authenticate = Callable[[str], Awaitable[Grant]]
"""Returns what a token is good for; raises NotAuthenticated."""

OfConnection = Callable[[Session, dict[str, object]], object]
"""Carries out a command that means this very connection, with its arguments unchecked; raises CommandError."""


class _Refused(Exception):
    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Socket(web.WebSocketResponse[bool]):
    """aiohttp's websocket with its own closing switched off: the goodbye, the code and the waiting are ours."""

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        return False


class Websocket:
    """The handler of `/ws`. Bounded: clients not yet let in, commands waiting for answers, frames a second.

    `began_after`: the number of the last fact of the server that ran before; who resumes from there gets a snapshot too.
    `gone`: told when the connection of a client that was let in has ended, however.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        commands: Commands,
        authenticate: Authenticate,
        resume: Resumer,
        seq: Callable[[], int],
        began_after: int = 0,
        allowed_origins: Collection[str] = (),
        of_connection: Mapping[str, OfConnection] | None = None,
        gone: Callable[[Session], None] = lambda session: None,
        hello_seconds: float = 10.0,
        look_up_seconds: float = 5.0,
        resume_seconds: float = 10.0,
        grace_seconds: float = 2.0,
        strangers: int = 1000,
    ) -> None:
        self._hub = hub
        self._commands = commands
        self._authenticate = authenticate
        self._resume = resume
        self._seq = seq
        self._began_after = began_after
        self._allowed_origins = frozenset(allowed_origins)
        self._of_connection = dict(of_connection or {})
        self._gone = gone
        self._hello_seconds = hello_seconds
        self._look_up_seconds = look_up_seconds
        self._resume_seconds = resume_seconds
        self._grace = grace_seconds
        self._strangers_allowed = strangers
        self._strangers = 0
        self._open: set[asyncio.Transport] = set()
        self._all_gone = asyncio.Event()
        self._stopping = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serves one client from handshake to close."""
        self._refuse(request)
        socket = _Socket(
            protocols=(SUBPROTOCOL,),
            compress=False,
            autoping=False,
            autoclose=False,
            max_msg_size=LARGEST_FRAME,
            decode_text=False,
        )
        try:
            await socket.prepare(request)
        except ConnectionResetError:  # gone before it was let in
            return socket
        wire = request.transport
        if wire is None:
            return socket
        self._open.add(wire)
        try:
            await self._serve(request, socket, wire)
        finally:
            self._open.discard(wire)
            if not self._open:
                self._all_gone.set()
        return socket

    async def stop(self) -> None:
        """Takes no more clients, sends everybody 1012, and returns when they are gone, at most the grace time later."""
        self._stopping = True
        self._hub.stop()
        if self._open:
            self._all_gone.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await self._all_gone.wait()
        for wire in self._open:
            wire.abort()

    def _refuse(self, request: web.Request) -> None:
        if self._stopping:
            raise Problem(503, "restarting", "the server is going down: connect again in a moment")
        if request.query_string:
            raise Problem(
                400,
                "no_query",
                "this address takes no query string: send the token in the hello frame, never in a URL",
            )
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise Problem(
                426,
                "websocket_only",
                "this address speaks websocket only",
                headers={"Upgrade": "websocket", "Connection": "Upgrade"},
            )
        offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if SUBPROTOCOL not in offered:
            raise Problem(400, "subprotocol", f"ask for the websocket subprotocol {SUBPROTOCOL}")
        if self._strangers >= self._strangers_allowed:
            raise Problem(503, "too_many", "too many clients are logging in at once: try again in a moment")

    async def _serve(self, request: web.Request, socket: _Socket, wire: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        self._strangers += 1
        try:
            async with asyncio.timeout(self._hello_seconds):
                hello = await self._hello(socket)
            grant = await self._let_in(request, hello)
        except _Refused as refusal:
            farewell(wire, refusal.code, refusal.reason)
            await self._linger(socket, wire)
            return
        except TimeoutError:
            farewell(wire, NOT_AUTHENTICATED, f"no hello within {self._hello_seconds:g} s")
            await self._linger(socket, wire)
            return
        except ConnectionError:
            return
        finally:
            self._strangers -= 1
        session = Session(
            grant=grant,
            wire=wire,
            allowance=self._hub.buffer,
            claimed=hello.phone,
            on_close=lambda: _in_any_case(loop, self._grace, wire),
        )
        if not self._hub.join(session):
            farewell(wire, FORBIDDEN, f"you have {SEATS_PER_AGENT} clients open already: close one")
            await self._linger(socket, wire)
            return
        answers: set[asyncio.Task[None]] = set()
        try:
            await self._start(session, hello.resume)
            await self._listen(session, socket, answers)
        finally:
            self._hub.leave(session)
            session.gone()
            if not self._stopping:
                self._gone(session)
            wire.close()

    async def _let_in(self, request: web.Request, hello: Hello) -> Grant:
        """Checks the token; raises _Refused. Who cannot be looked up now is told to come back, not that they are nobody."""
        token = hello.token or self._ambient_token(request)
        if not token:
            raise _Refused(
                NOT_AUTHENTICATED,
                "no token: send one in hello, in the Authorization header, or in the session cookie from our own origin",
            )
        try:
            async with asyncio.timeout(self._look_up_seconds):
                return await self._authenticate(token)
        except NotAuthenticated as error:
            raise _Refused(NOT_AUTHENTICATED, str(error)) from None
        except AWAY as error:
            log.warning("who a client is could not be looked up", why=type(error).__name__)
            raise _Refused(RESTARTING, LOOK_UP_FAILED) from None

    async def _hello(self, socket: _Socket) -> Hello:
        """Waits for the hello; raises _Refused, or ConnectionError when the client is gone."""
        while True:
            message = await socket.receive()
            if message.type in (WSMsgType.PING, WSMsgType.PONG):
                continue
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
                raise ConnectionError
            try:
                return Hello.model_validate(_parsed(message))
            except ValidationError as error:
                raise _Refused(BAD_FRAME, f"the first frame must be hello: {sentence(error)}") from None

    def _ambient_token(self, request: web.Request) -> str | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        # A cookie comes along whichever page opened the socket, so it counts from our own pages only.
        return cookie(request, COOKIE) if same_origin(request, self._allowed_origins) else None

    async def _start(self, session: Session, resume: Resume | None) -> None:
        """Sends welcome and either the facts that were missed or a snapshot; then facts flow."""
        upto = self._seq()
        topics = session.topics
        if (
            resume is None
            or resume.seq > upto
            or resume.epoch != self._hub.epoch_for(session.actor, session.topics)
        ):
            self._hub.show(session)
            return
        session.held = []
        missed: Missed | None = None
        try:
            async with asyncio.timeout(self._resume_seconds):
                missed = await self._resume(self._hub.epoch, resume.seq, topics)
        except Exception as error:
            log.warning("resume failed; a snapshot is sent", error=type(error).__name__)
        if session.closed is not None:
            return
        if (
            missed is None
            or missed.seq < upto
            or session.overflowed
            or session.topics != topics
            or sum(map(len, missed.frames)) > self._hub.buffer
        ):
            self._hub.show(session)
            return
        self._hub.welcome(session, seq=missed.seq, resumed=True)
        for fact in missed.frames:
            if not session.write(frame(fact)):
                return
        session.release(after=missed.seq)
        if resume.seq <= self._began_after:
            # What ended while no server looked was told by no fact: after what was missed, all that is now.
            self._hub.show(session)

    async def _listen(self, session: Session, socket: _Socket, answers: set[asyncio.Task[None]]) -> None:
        bucket = Bucket(FRAMES_A_SECOND, FRAMES_AT_ONCE)
        over = 0
        while True:
            message = await socket.receive()
            session.heard = self._hub.clock()
            if message.type in (WSMsgType.CLOSED, WSMsgType.CLOSING):
                return
            if message.type is WSMsgType.CLOSE:
                if session.closed is None:
                    code = message.data if message.data else 1000
                    session.write(frame(int(code).to_bytes(2, "big"), CLOSE))
                return
            if session.closed is not None:
                if message.type is WSMsgType.ERROR:
                    await self._linger(socket, session.wire, deaf=True)
                    return
                continue
            if bucket.take():
                over = 0
            else:
                over += 1
                if over > FRAMES_OVER_LIMIT:
                    session.close(BAD_FRAME, f"more than {FRAMES_A_SECOND:g} frames a second: slow down")
                elif message.type is WSMsgType.TEXT:
                    self._complain(session, message.data)
                continue
            if message.type is WSMsgType.PING:
                session.write(frame(message.data, PONG))
            elif message.type is not WSMsgType.PONG:
                try:
                    self._take(session, _parsed(message), answers)
                except _Refused as refusal:
                    session.close(refusal.code, refusal.reason)

    def _take(self, session: Session, given: dict[str, object], answers: set[asyncio.Task[None]]) -> None:
        try:
            command = CommandFrame.model_validate(given)
        except ValidationError as error:
            known_id = given.get("id")
            if isinstance(known_id, str) and 0 < len(known_id) <= 64:
                _answer(session, known_id, CommandError("bad_frame", sentence(error)))
            else:
                _complaint(session, "bad_frame", f"a command needs op and id: {sentence(error)}")
            return
        if command.op == "hello":
            _answer(session, command.id, CommandError("already_greeted", "hello comes once a connection"))
        elif len(answers) >= ANSWERS_AT_ONCE:
            message = f"{ANSWERS_AT_ONCE} of your commands wait for an answer: wait for one"
            _answer(session, command.id, CommandError("busy", message))
        else:
            task = asyncio.create_task(self._carry_out(session, command))
            answers.add(task)
            task.add_done_callback(answers.discard)

    async def _carry_out(self, session: Session, command: CommandFrame) -> None:
        try:
            if command.op == "auth.renew":
                data: object = await self._renew(session, command)
            elif command.op in self._of_connection:
                data = self._of_connection[command.op](session, command.args)
            else:
                data = await self._commands.execute(session.actor, command.op, command.args, id=command.id)
        except CommandError as error:
            _answer(session, command.id, error)
        except Exception:
            log.exception("command failed", op=command.op)
            _answer(session, command.id, CommandError("internal", "the server failed; its log says why"))
        else:
            _answer(session, command.id, data)

    async def _renew(self, session: Session, command: CommandFrame) -> dict[str, object]:
        try:
            token = RenewArgs.model_validate(command.args).token
            grant = await self._authenticate(token)
        except ValidationError as error:
            raise CommandError("bad_args", f"args of auth.renew: {sentence(error)}") from None
        except NotAuthenticated as error:
            raise CommandError("not_authenticated", str(error)) from None
        except AWAY:
            raise CommandError("database_unavailable", LOOK_UP_FAILED) from None
        if grant.actor.login != session.actor.login:
            raise CommandError("forbidden", "this token is another user's: open a new connection for them")
        self._hub.renew(session, grant)
        return {"expires": grant.expires}

    def _complain(self, session: Session, raw: bytes) -> None:
        try:
            given = read_json(raw)
        except ValueError:
            given = None
        known_id = given.get("id") if isinstance(given, dict) else None
        message = f"more than {FRAMES_A_SECOND:g} frames a second: slow down, or be closed"
        if isinstance(known_id, str) and 0 < len(known_id) <= 64:
            _answer(session, known_id, CommandError("rate_limited", message))
        else:
            _complaint(session, "rate_limited", message)

    async def _linger(self, socket: _Socket, wire: Wire, deaf: bool = False) -> None:
        """Reads on until the client has closed too, so that what we said last arrives; then hangs up."""
        try:
            async with asyncio.timeout(self._grace):
                while not deaf:
                    message = await socket.receive()
                    deaf = message.type is WSMsgType.ERROR
                    if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
                        return
                # aiohttp parses nothing after a broken frame and tells nobody of the end
                while not wire.is_closing():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            wire.abort()


def _in_any_case(loop: asyncio.AbstractEventLoop, seconds: float, wire: Wire) -> None:
    loop.call_later(seconds, wire.abort)


def cookie(request: web.Request, name: str) -> str | None:
    """Returns the value of a cookie, None if there is none or the header cannot be read."""
    try:
        jar = SimpleCookie(request.headers.get("Cookie", ""))
    except CookieError:
        return None
    morsel = jar.get(name)
    return morsel.value if morsel is not None and morsel.value else None


def same_origin(request: web.Request, allowed: Collection[str]) -> bool:
    """Whether a page of our own, or of an allowed origin, made the request. A browser always says so; no word is a no.

    Source: RFC 6454 (Origin), the Fetch standard (Sec-Fetch-Site).
    """
    origin = request.headers.get("Origin")
    if origin is None:
        return request.headers.get("Sec-Fetch-Site") == "same-origin"
    if origin in allowed:
        return True
    try:
        return urlsplit(origin).netloc.lower() == request.host.lower() != ""
    except ValueError:
        return False


def _parsed(message: object) -> dict[str, object]:
    """Returns the object in a text frame; raises _Refused for everything that is not one."""
    kind, data = getattr(message, "type", None), getattr(message, "data", None)
    if kind is WSMsgType.ERROR:
        raise _Refused(BAD_FRAME, f"not a frame we take: {data}; at most {LARGEST_FRAME} bytes of UTF-8 text")
    if kind is not WSMsgType.TEXT or not isinstance(data, bytes):
        raise _Refused(BAD_FRAME, "frames are text, not binary")
    try:
        value = read_json(data)
    except ValueError as error:
        raise _Refused(BAD_FRAME, f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _Refused(BAD_FRAME, 'a frame is a JSON object, such as {"op":"ping","id":"1"}')
    if too_deep(value):
        raise _Refused(BAD_FRAME, "nested too deep")
    if has_nul(value):
        raise _Refused(BAD_FRAME, "text must not hold the character U+0000")
    return value


def _answer(session: Session, id: str, told: object) -> None:
    if isinstance(told, CommandError):
        error = {"code": told.code, "message": told.message}
        session.send({"type": "result", "id": id, "ok": False, "error": error})
        return
    session.write(frame(pack({"type": "result", "id": id, "ok": True, "data": {} if told is None else told})))


def _complaint(session: Session, code: str, message: str) -> None:
    session.send({"type": "error", "error": {"code": code, "message": message}})
