"""Commands: what a client may ask for, checked and carried out once. Knows nothing of websockets or HTTP.

A command is answered with what really happened. The same id sent again by the same actor within a minute, from
whichever connection or tab, is not carried out twice: it gets the first one's answer, also while that still runs.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

import msgspec
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from cti.json_in import DEEPEST, has_nul, too_deep
from cti.people import Actor, Role

log = structlog.get_logger(__name__)

A = TypeVar("A", bound=BaseModel)
Clock = Callable[[], float]

EVERYBODY = frozenset(Role)
REMEMBERED_SECONDS = 60.0
REMEMBERED_AT_MOST = 50_000


class CommandError(Exception):
    """A command was not carried out, or not wholly. `code` is for programs, `message` says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NoArgs(BaseModel):
    """The arguments of a command that takes none."""

    model_config = ConfigDict(extra="forbid")


class Pong(BaseModel):
    """The server is there; `seq` is the number of its newest fact."""

    seq: int


Handler = Callable[[Actor, Any], Awaitable[Any]]
Audit = Callable[[Actor, str, Mapping[str, Any], str], None]
"""Writes down who did what: actor, op, arguments, and `ok` or the error's code. Must not block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One thing a client may ask for. `lane`: commands of one actor in one lane are carried out in the order given."""

    op: str
    summary: str
    args: type[BaseModel]
    result: type | None
    roles: frozenset[Role]
    handler: Handler
    changes: bool
    lane: str | None
    limit: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: `data` when `error` is None."""

    data: Any = None
    error: CommandError | None = None


class Bucket:
    """A token bucket: `rate` a second on average, `burst` at once."""

    __slots__ = ("_burst", "_clock", "_level", "_rate", "_then")

    def __init__(self, rate: float, burst: float, clock: Clock = monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._level = burst
        self._then = clock()

    def take(self) -> bool:
        """Takes one if there is one; False, and nothing taken, if not."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._then) * self._rate)
        self._then = now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    @property
    def full(self) -> bool:
        """Whether nothing was taken for so long that it may be forgotten."""
        return self._level + (self._clock() - self._then) * self._rate >= self._burst


@dataclass(slots=True)
class _Remembered:
    op: str
    fingerprint: bytes
    since: float
    task: asyncio.Task[Outcome]


@dataclass(slots=True)
class _Lane:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Commands:
    """The register of commands, and what carries them out.

    Bounded: per actor `rate` a second with `burst` at once and `at_once` running; `REMEMBERED_AT_MOST` answers kept.
    """

    def __init__(
        self,
        *,
        audit: Audit,
        rate: float = 20.0,
        burst: float = 60.0,
        at_once: int = 32,
        clock: Clock = monotonic,
    ) -> None:
        self._audit = audit
        self._rate = rate
        self._burst = burst
        self._at_once = at_once
        self._clock = clock
        self._commands: dict[str, Command] = {}
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        self._buckets: dict[str, Bucket] = {}
        self._running: dict[str, set[asyncio.Task[Outcome]]] = defaultdict(set)
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._closed = False

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def __getitem__(self, op: str) -> Command:
        return self._commands[op]

    def add(
        self,
        op: str,
        args: type[A],
        handler: Callable[[Actor, A], Awaitable[Any]],
        *,
        summary: str,
        result: type | None = None,
        roles: Iterable[Role] = EVERYBODY,
        changes: bool = True,
        lane: str | None = None,
        limit: float = 10.0,
    ) -> None:
        """Registers a command; raises ValueError if `op` is taken.

        `changes`: it is audited and its id remembered. `limit`: seconds until it counts as timed out. `lane`: a name;
        commands of one actor in the same lane never overtake one another.
        """
        if op in self._commands:
            raise ValueError(f"the command {op} is registered twice")
        self._commands[op] = Command(
            op=op,
            summary=summary,
            args=args,
            result=result,
            roles=frozenset(roles),
            handler=handler,
            changes=changes,
            lane=lane,
            limit=limit,
        )

    async def execute(self, actor: Actor, op: str, args: Any, *, id: str | None = None) -> Any:
        """Carries the command out and returns its data; raises CommandError, which says what to do.

        Cancelling the caller does not cancel the command: whoever asks again with the same id gets its answer.
        """
        command = self._permitted(actor, op)
        given = self._checked(command, args)
        if id is None or not command.changes:
            return _told(await asyncio.shield(self._start(actor, command, given)))
        key = (actor.login, id)
        fingerprint = _fingerprint(op, args)
        self._forget()
        known = self._remembered.get(key)
        if known is None:
            task = self._start(actor, command, given)
            known = self._remembered[key] = _Remembered(op, fingerprint, self._clock(), task)
        elif known.op != op or known.fingerprint != fingerprint:
            raise CommandError(
                "id_reused",
                f"the id {id!r} was used for another command less than a minute ago: take a new one",
            )
        return _told(await asyncio.shield(known.task))

    async def close(self, seconds: float = 5.0) -> None:
        """Takes no more commands, waits up to `seconds` for those that run, then cancels the rest."""
        self._closed = True
        tasks = {task for tasks in self._running.values() for task in tasks}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _permitted(self, actor: Actor, op: str) -> Command:
        command = self._commands.get(op)
        if command is None:
            near = difflib.get_close_matches(op[:64], self._commands, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise CommandError("unknown_op", f"there is no command {op[:64]!r}{hint}")
        if actor.role not in command.roles:
            allowed = ", ".join(sorted(command.roles))
            raise CommandError("forbidden", f"{op} is for {allowed}; you are {actor.role}")
        return command

    def _checked(self, command: Command, args: Any) -> BaseModel:
        if too_deep(args):
            raise CommandError("bad_args", f"args of {command.op}: nested more than {DEEPEST} levels deep")
        if has_nul(args):
            raise CommandError("bad_args", f"args of {command.op}: text must not hold the character U+0000")
        try:
            return command.args.model_validate(args)
        except ValidationError as error:
            raise CommandError("bad_args", f"args of {command.op}: {sentence(error, command.args)}") from None

    def _start(self, actor: Actor, command: Command, args: BaseModel) -> asyncio.Task[Outcome]:
        if self._closed:
            raise CommandError(
                "restarting", "the server is going down: connect again and send it with the same id"
            )
        bucket = self._buckets.get(actor.login)
        if bucket is None:
            self._buckets = {login: b for login, b in self._buckets.items() if not b.full}
            bucket = self._buckets[actor.login] = Bucket(self._rate, self._burst, self._clock)
        if not bucket.take():
            raise CommandError(
                "rate_limited", f"more than {self._rate:g} commands a second: wait, then send it again"
            )
        running = self._running[actor.login]
        if len(running) >= self._at_once:
            raise CommandError("busy", f"{self._at_once} of your commands still run: wait for an answer")
        task = asyncio.create_task(self._carry_out(actor, command, args), name=f"command {command.op}")
        running.add(task)
        task.add_done_callback(lambda done: self._ended(actor.login, done))
        return task

    def _ended(self, login: str, task: asyncio.Task[Outcome]) -> None:
        running = self._running[login]
        running.discard(task)
        if not running:
            del self._running[login]

    async def _carry_out(self, actor: Actor, command: Command, args: BaseModel) -> Outcome:
        outcome = await self._in_lane(actor, command, args)
        if command.changes:
            try:
                told = outcome.error.code if outcome.error else "ok"
                self._audit(actor, command.op, args.model_dump(mode="json", exclude_unset=True), told)
            except Exception:
                log.exception("audit failed", op=command.op)
        return outcome

    async def _in_lane(self, actor: Actor, command: Command, args: BaseModel) -> Outcome:
        if command.lane is None:
            return await self._within_limit(actor, command, args)
        key = (actor.login, command.lane)
        lane = self._lanes.setdefault(key, _Lane())
        lane.users += 1
        try:
            try:
                async with asyncio.timeout(command.limit):
                    await lane.lock.acquire()
            except TimeoutError:
                message = f"{command.op} was not carried out: an earlier command has not come back yet"
                return Outcome(error=CommandError("busy", message))
            try:
                return await self._within_limit(actor, command, args)
            finally:
                lane.lock.release()
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[key]

    async def _within_limit(self, actor: Actor, command: Command, args: BaseModel) -> Outcome:
        try:
            async with asyncio.timeout(command.limit) as limit:
                return Outcome(await command.handler(actor, args))
        except CommandError as error:
            return Outcome(error=error)
        except TimeoutError:
            if limit.expired():
                message = f"no answer to {command.op} within {command.limit:g} s: what the facts say is what happened"
                return Outcome(error=CommandError("timed_out", message))
            log.exception("command failed", op=command.op)
        except Exception:
            log.exception("command failed", op=command.op)
        message = f"{command.op} failed inside the server; its log says why"
        return Outcome(error=CommandError("internal", message))

    def _forget(self) -> None:
        oldest_kept = self._clock() - REMEMBERED_SECONDS
        while self._remembered:
            key, entry = next(iter(self._remembered.items()))
            full = len(self._remembered) >= REMEMBERED_AT_MOST
            if not entry.task.done() or (entry.since > oldest_kept and not full):
                break
            del self._remembered[key]


def add_basics(
    commands: Commands, *, seq: Callable[[], int], snapshot: Callable[[Actor], Any], shape: type | None = None
) -> None:
    """Registers `ping` and `state.get`. `shape`: the type of what `snapshot` returns, for the documents."""

    async def ping(_actor: Actor, _args: NoArgs) -> Pong:
        return Pong(seq=seq())

    async def state_get(actor: Actor, _args: NoArgs) -> Any:
        return {"seq": seq(), "data": snapshot(actor)}

    commands.add(
        "ping", NoArgs, ping, summary="Asks whether the server is there.", result=Pong, changes=False
    )
    commands.add(
        "state.get",
        NoArgs,
        state_get,
        summary="Asks for all you may see, as in the snapshot frame; facts with a higher seq change it.",
        result=shape,
        changes=False,
    )


def sentence(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Returns what is wrong, field by field, without repeating what was given; which fields `model` has, if one is not
    among them."""
    faults = []
    found = error.errors(include_input=False, include_url=False)[:5]
    for fault in found:
        place = ".".join(str(part) for part in fault["loc"])
        faults.append(f"{place}: {_fault(fault)}" if place else _fault(fault))
    if model is not None and any(one["type"] == "extra_forbidden" and len(one["loc"]) == 1 for one in found):
        fields = ", ".join(field.alias or name for name, field in model.model_fields.items())
        faults.append(f"the fields are {fields}" if fields else "there are no fields")
    return "; ".join(faults)


def _fault(fault: ErrorDetails) -> str:
    """One fault in our words, where pydantic's are about Python."""
    given = fault.get("ctx", {})
    is_text = fault["type"].startswith("string") or given.get("field_type") == "Value"
    match fault["type"]:
        case "missing":
            return "missing"
        case "extra_forbidden":
            return "there is no such field"
        case "value_error":
            return str(given.get("error", fault["msg"]))
        case "too_short" | "string_too_short" if is_text:
            least = given["min_length"]
            return "must not be empty" if least == 1 else f"must have at least {least} characters"
        case "too_long" | "string_too_long" if is_text:
            return f"may have at most {given['max_length']} characters"
    return fault["msg"]


def _fingerprint(op: str, args: Any) -> bytes:
    packed = msgspec.json.encode(args, order="deterministic")
    return hashlib.sha256(op.encode() + b"\0" + packed).digest()


def _told(outcome: Outcome) -> Any:
    if outcome.error is not None:
        raise CommandError(outcome.error.code, outcome.error.message)
    return outcome.data
