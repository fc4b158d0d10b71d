"""The link to one Asterisk: connects, logs in, watches, reconnects, and carries actions. It never reads an event.

    link = AmiLink(pbx="berlin", host="10.0.0.5", port=5038, username="cti", secret=..., parsers=...,
                   on_records=fold, on_status=show)
    task = asyncio.create_task(link.run())
    await link.send("QueuePause", {"Interface": "PJSIP/1003", "Paused": "true"})

What is panoramisk's and what is not. Kept: `Manager`'s configuration, its `connect()` through `protocol_factory`,
its `send_action()`, and `Action` as the form on the wire. Replaced, because each would cost correctness: the byte
stream (see `cti.ami_protocol`); the login, which sends the secret in the clear before the greeting has been seen;
the pinger, which does not look at the reply; the reconnect timers, which go on after a refused password; and the
queue of unanswered actions, which would dial a customer twice. A `Manager` lives for one connection only, so no
state of an old connection can be taken for that of a new one.

Each action has one of four endings, and a caller may rely on the difference: an answer; `ActionRefused`, carried out
by nobody; `NotConnected`, `BadValue`, `Busy`, never sent; `ActionTimeout`, `LinkLost`, sent and of unknown outcome.
Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog
from panoramisk.manager import Manager

from cti.ami_protocol import (
    ActionRefused,
    ActionTimeout,
    AmiError,
    AmiProtocol,
    BadValue,
    Busy,
    ComplaintBook,
    Headers,
    LinkLost,
    LinkStats,
    NotConnected,
    Parser,
    text,
)

__all__ = [
    "ActionRefused",
    "ActionTimeout",
    "AmiError",
    "AmiLink",
    "BadValue",
    "Busy",
    "LinkLost",
    "LinkPhase",
    "LinkStats",
    "LinkStatus",
    "NotConnected",
    "Parser",
]

log = structlog.get_logger(__name__)

BACKOFF_FIRST = 0.2
STEADY_AFTER = 30.0  # seconds up after which the next trouble starts with the shortest wait again
LATER_REFUSALS = 2  # further logins when a password that has worked is refused after a restart
JUST_STARTED = 300.0  # an Asterisk younger than this may still be loading its modules
CLOSE_WAIT = 0.5
PINGS_MISSED_MAX = 3  # pings without an answer on a connection that still carries events
AT_A_TIME = 16  # messages read in one turn of the loop: a pop may wait for so many others, a millisecond

BACKOFF_AWAY = 5.0
"""Seconds at most between two attempts at a PBX that is away: it must not come back unnoticed."""


class LinkPhase(StrEnum):
    """Where a link stands; between two attempts, and during them, it stays DOWN."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """What an operator is told about a link. `since` is in seconds of the epoch and stays while the phase does."""

    pbx: str
    phase: LinkPhase
    since: float
    why: str = ""
    code: str = ""
    retry_in: float | None = None


class Trouble(Exception):
    """Why a connection is over: a code for programs, a sentence for the operator, and whether to try again."""

    def __init__(self, code: str, why: str, *, stop: bool = False) -> None:
        super().__init__(why)
        self.code, self.why, self.stop = code, why, stop


class _Door(Manager):  # type: ignore[misc]  # panoramisk has no types
    """panoramisk's Manager for one connection, without its login, pinger and reconnecting."""

    def connection_made(self, f: asyncio.Task[tuple[asyncio.Transport, AmiProtocol]]) -> None:
        if not f.cancelled() and f.exception() is None:
            self.protocol = f.result()[1]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to do: the protocol tells the link."""


def just_started(core_status: Mapping[str, str], now: datetime) -> bool:
    """Tell from CoreStatus whether Asterisk started minutes ago; False when it does not say or lives in another zone."""
    try:
        started = datetime.fromisoformat(f"{core_status['CoreStartupDate']}T{core_status['CoreStartupTime']}")
    except (KeyError, ValueError):
        return False
    return abs((now - started).total_seconds()) < JUST_STARTED


class AmiLink:
    """One supervised AMI connection to one Asterisk; several links share nothing.

    `on_records` gets, for each chunk received while the link is up, the records that `parsers` made of it, in order;
    events no parser is named for are dropped unparsed. `on_status` gets every change of `status`, the change to UP
    before the first record. Both are called inside the event loop and must be short; what they raise is logged and
    goes no further.
    """

    def __init__(
        self,
        *,
        pbx: str,
        host: str,
        port: int,
        username: str,
        secret: str,
        tls: bool | ssl.SSLContext = False,
        parsers: Mapping[bytes, Parser],
        on_records: Callable[[list[object]], None],
        on_status: Callable[[LinkStatus], None],
        connect_timeout: float = 5.0,
        login_timeout: float = 10.0,
        boot_timeout: float = 10.0,
        ping_every: float = 10.0,
        ping_timeout: float = 5.0,
        backoff_max: float = 30.0,
        buffer_max: int = 8 << 20,
    ) -> None:
        self._pbx, self._host, self._port = pbx, host, port
        self._username, self._secret, self._tls = username, secret, tls
        self._parsers, self._on_records, self._on_status = dict(parsers), on_records, on_status
        self._connect_timeout, self._login_timeout = connect_timeout, login_timeout
        self._boot_timeout = boot_timeout
        self._ping_every, self._ping_timeout = ping_every, ping_timeout
        self._backoff_max, self._buffer_max = backoff_max, buffer_max
        self._log = log.bind(pbx=pbx)
        self._stats = LinkStats()
        self._complaints = ComplaintBook(pbx)
        self._status = LinkStatus(pbx=pbx, phase=LinkPhase.STOPPED, since=time.time(), why="not started yet")
        self._running = False
        self._door: _Door | None = None
        self._protocol: AmiProtocol | None = None
        self._verdict: Trouble | None = None  # why this side is about to drop the connection
        self._probed = False  # the other side said nothing, so this side did
        self._failures = 0
        self._refusals = 0
        self._was_up = False

    @property
    def status(self) -> LinkStatus:
        return self._status

    def stats(self) -> LinkStats:
        """Return a copy of the counters."""
        return dataclasses.replace(self._stats)

    # -- supervision ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold the link until cancelled, or until only a person can help (STOPPED: `status.why` says how).

        Cancelling logs off and closes. Calling it again after it has returned starts anew.
        """
        if self._running:
            raise RuntimeError(f"the link to {self._pbx} is already running")
        self._running, self._was_up, self._failures, self._refusals = True, False, 0, 0
        self._publish(LinkPhase.CONNECTING)
        try:
            while True:
                await self._connection()
                if self._status.phase is LinkPhase.STOPPED:
                    return
                await asyncio.sleep(self._status.retry_in or 0.0)
                self._stats.reconnects += 1
        finally:
            self._running = False
            if self._status.phase is not LinkPhase.STOPPED:
                self._publish(LinkPhase.STOPPED, why="this server closed the link")

    async def _connection(self) -> None:
        """Live through one connection; on return the status says how it ended."""
        protocol = AmiProtocol(
            parsers=self._parsers,
            on_records=self._on_records,
            on_booted=self._booted,
            on_lost=self._lost,
            stats=self._stats,
            complaints=self._complaints,
            buffer_max=self._buffer_max,
            at_a_time=AT_A_TIME,
        )
        door = _Door(
            host=self._host,
            port=self._port,
            ssl=self._tls,
            protocol_factory=lambda: protocol,
            loop=asyncio.get_running_loop(),
        )
        self._door, self._protocol, self._verdict, self._probed = door, protocol, None, False
        try:
            await self._open(door, protocol)
            await self._login(protocol)
            await self._wait_booted(protocol)
            await self._watch(protocol)
            if self._status.phase is LinkPhase.UP:
                raise self._closed(protocol)
        except Trouble as trouble:
            self._fail(trouble)
        except AmiError:
            # The connection went in the middle of the login. Once up, `_lost` has said so already.
            if not protocol.booted.done():
                self._fail(self._verdict or self._closed(protocol))
        except Exception as exc:  # a fault of ours must not end the link for good
            self._complaints.write("link", exc)
            self._fail(
                Trouble(
                    "internal",
                    f"The link to {self._place} failed on this side ({type(exc).__name__}): see the log.",
                )
            )
        finally:
            self._door = self._protocol = None
            await self._close(protocol)

    async def _open(self, door: _Door, protocol: AmiProtocol) -> None:
        if not 0 < self._port < 65536:
            raise Trouble("unreachable", f"{self._place} has an impossible port: correct it.", stop=True)
        task: asyncio.Task[Any] = door.connect()
        try:
            async with asyncio.timeout(self._connect_timeout):
                await task
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from None
        except UnicodeError:
            raise Trouble("unreachable", f"{self._place} is no valid host name.", stop=True) from None
        patience = self._connect_timeout / 2
        if await self._either(protocol, protocol.greeted, patience):
            return
        # Not a word. A TLS port answers this with an alert or closes, a frozen Asterisk with silence; to AMI it is
        # nothing. It must be longer than the five bytes of a TLS record's header.
        if protocol.transport is not None and not protocol.closed:
            self._probed = True
            protocol.transport.write(b"\r\n" * 4)
        if await self._either(protocol, protocol.greeted, patience):
            return
        raise Trouble(
            "frozen",
            f"{self._place} accepts the connection but says nothing: Asterisk is frozen or overloaded, or another"
            " program holds this port.",
        )

    async def _either(self, protocol: AmiProtocol, wanted: asyncio.Future[Any], limit: float) -> bool:
        """Wait for a future; False when the time is over, Trouble when the connection goes first."""
        await asyncio.wait({wanted, protocol.lost}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return True
        if protocol.lost.done():
            raise self._verdict or self._closed(protocol)
        return False

    async def _login(self, protocol: AmiProtocol) -> None:
        headers = {"Username": self._username, "Secret": self._secret, "Events": "on"}
        try:
            async with asyncio.timeout(self._login_timeout):
                if not self._tls:
                    headers = await self._answer_challenge(protocol, headers)
                await self._ask(protocol, "Login", headers, self._login_timeout)
        except (TimeoutError, ActionTimeout):
            raise Trouble(
                "frozen",
                f"{self._place} greets but does not answer the login within {self._login_timeout:g} s: Asterisk is"
                " frozen or overloaded.",
            ) from None
        except BadValue as error:
            raise Trouble(
                "wrong_password", f"The AMI user name or secret cannot be sent: {error}.", stop=True
            ) from None
        except ActionRefused as error:
            raise self._refused(error) from None

    async def _answer_challenge(self, protocol: AmiProtocol, headers: dict[str, str]) -> dict[str, str]:
        """Answer MD5's challenge, so that the secret is not sent; an Asterisk without MD5 gets it in the clear."""
        try:
            challenge = (
                await self._ask(protocol, "Challenge", {"AuthType": "MD5"}, self._login_timeout)
            ).get("Challenge", "")
        except ActionRefused:
            challenge = ""
        if not challenge:
            self._log.warning("ami secret goes in the clear", reason="no MD5 challenge was offered")
            return headers
        key = hashlib.md5((challenge + self._secret).encode(), usedforsecurity=False).hexdigest()
        return {"AuthType": "MD5", "Username": self._username, "Key": key, "Events": "on"}

    def _refused(self, error: ActionRefused) -> Trouble:
        if "authentication failed" not in error.message.lower():
            return Trouble(
                "login_refused", f"{self._place} refuses the login of {self._username}: {error.message}."
            )
        self._refusals += 1
        return Trouble(
            "wrong_password",
            f"{self._place} refuses AMI user {self._username}: the name or secret is wrong, or its permit/deny lines"
            f" (acl) exclude this machine; correct [{self._username}] in manager.conf or this server's settings, run"
            " `manager reload` in Asterisk, then restart this server.",
            stop=not self._was_up or self._refusals > LATER_REFUSALS,
        )

    async def _wait_booted(self, protocol: AmiProtocol) -> None:
        """Wait for FullyBooted, which Asterisk sends to users with the read class `system` only."""
        if await self._either(protocol, protocol.booted, self._boot_timeout):
            return
        core: dict[str, str] | None = {}
        try:
            core = await self._ask(protocol, "CoreStatus", {}, self._ping_timeout)
        except ActionTimeout:
            core = None
        except ActionRefused:
            pass
        if protocol.booted.done():
            return
        if core is None:
            raise Trouble("frozen", f"{self._place} took the login and then fell silent: it is frozen.")
        if just_started(core, datetime.now()):  # noqa: DTZ005  # Asterisk tells its own wall clock's time
            raise Trouble("not_booted", f"{self._place} is starting and has not loaded all its modules yet.")
        raise Trouble(
            "missing_right",
            f"{self._place} lets {self._username} in but never reports FullyBooted: add `system` to the `read=` line"
            f" of [{self._username}] in manager.conf (and let no eventfilter drop FullyBooted), then run"
            " `manager reload`; if Asterisk has only just been started, wait.",
        )

    async def _watch(self, protocol: AmiProtocol) -> None:
        """Ping until the connection is lost; give it up when neither an answer nor any byte comes in time."""
        missed = 0
        while not protocol.lost.done():
            await asyncio.wait({protocol.lost}, timeout=self._ping_every)
            if protocol.lost.done():
                return
            protocol.heard = False
            try:
                await self._ask(protocol, "Ping", {}, self._ping_timeout)
                missed = 0
            except ActionRefused:
                missed = 0
            except (ActionTimeout, Busy) as error:
                if isinstance(error, Busy):  # nothing was sent: the deadline is still to be waited for
                    await asyncio.wait({protocol.lost}, timeout=self._ping_timeout)
                missed += 1
                if protocol.heard and missed < PINGS_MISSED_MAX:
                    continue  # busy, not frozen: events still come
                self._verdict = Trouble(
                    "frozen",
                    f"{self._place} does not answer pings (last one within {self._ping_timeout:g} s): Asterisk or"
                    " the network between is frozen.",
                )
                protocol.abort()
                await asyncio.wait({protocol.lost}, timeout=CLOSE_WAIT)
                return
            except AmiError:
                protocol.abort()  # half closed: what is left of it may hang for long
                await asyncio.wait({protocol.lost}, timeout=CLOSE_WAIT)
                return

    async def _close(self, protocol: AmiProtocol) -> None:
        """Leave nothing open, whatever state the connection is in."""
        transport = protocol.transport
        if transport is None:
            return
        try:
            if protocol.authenticated and not protocol.closed:
                transport.write(b"Action: Logoff\r\n\r\n")
            protocol.close()
            await asyncio.wait({protocol.lost}, timeout=CLOSE_WAIT)
        finally:
            if not protocol.lost.done():
                protocol.abort()

    # -- status ---------------------------------------------------------------------------------------------------

    def _booted(self) -> None:
        self._was_up, self._refusals = True, 0
        self._publish(LinkPhase.UP)

    def _lost(self, exc: Exception | None) -> None:
        """Called by the protocol the moment the connection is gone: a link that was up is down at once."""
        if self._status.phase is LinkPhase.UP and self._protocol is not None:
            self._fail(self._verdict or self._closed(self._protocol))

    def _fail(self, trouble: Trouble) -> None:
        if trouble.stop:
            self._publish(LinkPhase.STOPPED, why=trouble.why, code=trouble.code)
            return
        status = self._status
        if status.phase is LinkPhase.UP and time.time() - status.since > STEADY_AFTER:
            self._failures = 0
        self._failures += 1
        longest = min(self._backoff_max, BACKOFF_AWAY, BACKOFF_FIRST * 2 ** min(self._failures, 20))
        shortest = min(BACKOFF_FIRST, longest)
        if trouble.code in ("wrong_password", "wrong_host"):  # nothing that mends itself in a second
            shortest, longest = self._backoff_max / 2, self._backoff_max
        wait = random.uniform(shortest, longest)  # noqa: S311
        self._publish(LinkPhase.DOWN, why=trouble.why, code=trouble.code, retry_in=wait)

    def _publish(
        self, phase: LinkPhase, *, why: str = "", code: str = "", retry_in: float | None = None
    ) -> None:
        old = self._status
        since = old.since if phase is old.phase else time.time()
        self._status = LinkStatus(
            pbx=self._pbx, phase=phase, since=since, why=why, code=code, retry_in=retry_in
        )
        if (phase, code) != (old.phase, old.code):
            say = self._log.warning if code else self._log.info
            say("ami link", phase=phase.value, code=code, why=why)
        try:
            self._on_status(self._status)
        except Exception as exc:
            self._complaints.write("on_status", exc)

    # -- the sentences --------------------------------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return f"{self._pbx} ({self._host}:{self._port})"

    def _unreachable(self, error: OSError | TimeoutError) -> Trouble:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Trouble(
                "tls",
                f"{self._place} shows a TLS certificate that is not trusted ({error.verify_message}): give this"
                " server the certificate's authority (setting tls_ca), or Asterisk (manager.conf tlscertfile) a"
                " certificate for this host name.",
            )
        if isinstance(error, ssl.SSLError):
            return Trouble(
                "tls",
                f"{self._place} does not speak TLS ({error.reason or 'handshake failed'}): use the port of"
                " `tlsbindaddr` in manager.conf with tlsenable=yes, or switch TLS off for this link.",
            )
        if self._tls and isinstance(error, ConnectionResetError | ConnectionAbortedError):
            return Trouble(
                "tls", f"{self._place} breaks off the TLS handshake: is this the port of `tlsbindaddr`?"
            )
        if isinstance(error, socket.gaierror):
            return Trouble(
                "unreachable", f"The host name {self._host} of {self._pbx} is not known: correct the host."
            )
        if isinstance(error, TimeoutError):
            return Trouble(
                "unreachable",
                f"{self._place} does not answer within {self._connect_timeout:g} s: check the address, the network"
                f" and firewalls{', and that this is a TLS port' if self._tls else ''}.",
            )
        if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
            return Trouble(
                "unreachable",
                f"Nothing listens at {self._place}: start Asterisk, and check enabled=yes, bindaddr and port in"
                " manager.conf.",
            )
        return Trouble("unreachable", f"{self._place} cannot be reached: {error.strerror or error}.")

    def _closed(self, protocol: AmiProtocol) -> Trouble:
        """Say why a connection ended that nobody here meant to end."""
        if protocol.fault == "too_large":
            return Trouble(
                "too_large",
                f"{self._place} sent {self._buffer_max >> 10} KiB without the end of a message: something between"
                " garbles the stream.",
            )
        if protocol.version is None:
            if protocol.first_bytes[:2] == b"\x15\x03":
                return Trouble(
                    "tls", f"{self._place} is a TLS port: switch TLS on for this link, or use the plain one."
                )
            if protocol.first_bytes:
                shown = (
                    text(protocol.first_bytes[:40])
                    .partition("\r")[0]
                    .encode("ascii", "backslashreplace")
                    .decode()
                )
                return Trouble(
                    "wrong_host",
                    f"Something answers at {self._place} but it is not an Asterisk Manager Interface (it says"
                    f" {shown!r}): correct host and port.",
                )
            if self._probed:
                return Trouble(
                    "tls",
                    f"{self._place} waits in silence and closes at the first byte, as a TLS port does: switch TLS on"
                    " for this link, or use the plain port.",
                )
            return Trouble(
                "closed",
                f"{self._place} closes the connection without a greeting: Asterisk is starting or stopping, its"
                " authlimit (manager.conf) is used up, or this is not the port of its manager.",
            )
        if not protocol.booted.done():
            return Trouble(
                "closed", f"{self._place} closed the connection during the login; it may be restarting."
            )
        return Trouble(
            "closed",
            f"{self._place} closed the connection: Asterisk was stopped or restarted, or gave up on writing to us"
            " (writetimeout in manager.conf).",
        )

    # -- actions --------------------------------------------------------------------------------------------------

    async def send(
        self, action: str, headers: Headers | None = None, *, timeout: float = 5.0
    ) -> dict[str, str]:
        """Carry out one action and return Asterisk's answer, its headers by name as Asterisk spells them.

        Raises NotConnected, BadValue or Busy when nothing was sent, ActionRefused with Asterisk's own words,
        ActionTimeout or LinkLost when the outcome is unknown. Events the action causes come as records.
        """
        return await self._ask(self._up(action), action, headers or {}, timeout)

    async def query(
        self, action: str, headers: Headers | None = None, *, timeout: float = 10.0
    ) -> list[bytes]:
        """Carry out an action that answers with a list and return the raw rows, without Response and ...Complete.

        An action that Asterisk answers without a list gives an empty one. Rows are not handed to the parsers. Raises
        as `send()` does; a list cut off in the middle is never returned in part.
        """
        return await self._ask_rows(self._up(action), action, headers or {}, timeout)

    async def originate(self, headers: Headers, *, timeout: float = 5.0) -> dict[str, str]:
        """Ask Asterisk once to place a call; the answer says only that it will try.

        The outcome comes as records (OriginateResponse with the answer's ActionID, DialEnd, Hangup); give a ChannelId
        to know the call before the answer. After ActionTimeout or LinkLost the call may ring: look for its channel
        before dialing again. Raises as `send()` does.
        """
        fixed = {name: value for name, value in headers.items() if name.lower() != "async"}
        return await self.send("Originate", {**fixed, "Async": "true"}, timeout=timeout)

    async def privileges(self) -> set[str]:
        """Return the names of the actions that this AMI user may carry out (Asterisk: ListCommands)."""
        answer = await self.send("ListCommands", timeout=10.0)
        return set(answer) - {"Response", "ActionID", "Message"}

    def _up(self, action: str) -> AmiProtocol:
        protocol = self._protocol
        if protocol is None or self._status.phase is not LinkPhase.UP or protocol.closed:
            raise NotConnected(
                f"{action} was not sent: no connection to {self._pbx}. {self._status.why}".rstrip()
            )
        return protocol

    async def _ask(
        self, protocol: AmiProtocol, action: str, headers: Headers, timeout: float
    ) -> dict[str, str]:
        answer: dict[str, str] = await self._exchange(protocol, action, headers, timeout, as_list=False)
        return answer

    async def _ask_rows(
        self, protocol: AmiProtocol, action: str, headers: Headers, timeout: float
    ) -> list[bytes]:
        rows: list[bytes] = await self._exchange(protocol, action, headers, timeout, as_list=True)
        return rows

    async def _exchange(
        self, protocol: AmiProtocol, action: str, headers: Headers, timeout: float, *, as_list: bool
    ) -> Any:
        prepared = protocol.prepare(action, headers)
        if self._door is None or self._door.protocol is not protocol:
            raise NotConnected(f"{action} was not sent: no connection to {self._pbx}")
        answer: asyncio.Future[Any] = self._door.send_action(prepared, as_list=as_list)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            if answer.done() and not answer.cancelled():
                return answer.result()  # it came in the same turn of the loop
            self._stats.unanswered += 1
            raise ActionTimeout(
                f"{self._pbx} did not answer {action} within {timeout:g} s: its outcome is unknown"
            ) from None
        finally:
            # Answered or not: nothing stays on the table for an action nobody waits for.
            protocol.abandon(prepared["ActionID"])
