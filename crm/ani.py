"""Who is calling: a number to the accounts and contacts it may belong to, complete for a screen pop, in one query.

The look-up has database connections of its own, so no report and no import can keep a caller waiting; requests that
come while a query runs go together into the next one. A slow or dead database costs a call nothing: `find` says
LookupUnavailable within its time limit, or at once while no connection stands, and the connections come back by
themselves. Nothing is cached: what was saved a moment ago is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import structlog

from crm.views import AccountCard, AlertCard, Candidate, ContactCard, InteractionCard, OpenItemCard
from cti.numbers import Caller, Kind, read_caller
from cti.plain_text import plain

log = structlog.get_logger(__name__)

if TYPE_CHECKING:
    from asyncpg.prepared_stmt import PreparedStatement

    Connection = asyncpg.Connection[asyncpg.Record]
    Statement = PreparedStatement[asyncpg.Record]

Connect = Callable[[], Awaitable["Connection"]]

_STRIKES = 3
"""So many queries in a row that ran out of time open the breaker: the connection is given up and made anew."""


class LookupUnavailable(Exception):
    """The customer data cannot be read at present; ask again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """What is known about a caller. `how` is that of the first candidate; without one: none (a number nobody has), or
    what the caller's text is (withheld, unknown, internal, alphanumeric, invalid). `took_ms`: the whole look-up."""

    caller: Caller
    how: str
    candidates: tuple[Candidate, ...] = ()
    took_ms: float = 0.0

    @property
    def settled(self) -> Candidate | None:
        """The one customer it must be, or None where several accounts are as likely as each other."""
        if not self.candidates:
            return None
        first = self.candidates[0]
        equals = [c for c in self.candidates if c.how == first.how]
        return first if all(c.account.id == first.account.id for c in equals) else None

    @property
    def settled_contact(self) -> ContactCard | None:
        """The one person it must be, or None."""
        settled = self.settled
        if settled is None:
            return None
        people = {c.contact.id for c in self.candidates if c.how == settled.how and c.contact is not None}
        return settled.contact if len(people) == 1 else None


Answer = Identification | LookupUnavailable
Done = Callable[[Answer], None]


@dataclass(slots=True)
class _Request:
    """Somebody who waits. `done` is None once they were told, or do not care any more."""

    caller: Caller
    number: str | None
    account: int | None
    began: float
    done: Done | None
    timer: asyncio.TimerHandle | None = None

    def tell(self, answer: Answer) -> None:
        """Gives the answer, if it is still waited for. What the asker makes of it disturbs nobody."""
        done = self.forget()
        if done is not None:
            try:
                done(answer)
            except Exception:
                log.exception("caller look-up: an answer could not be taken")

    def forget(self) -> Done | None:
        done, self.done = self.done, None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return done


SESSION = """
    SELECT set_config('TimeZone', 'UTC', false), set_config('jit', 'off', false),
           set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
           set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
           set_config('statement_timeout', $1, false)
"""
"""The one plan wanted, nested loops over indexes, also when it was made while the tables were still empty."""

FIND = """
SELECT asked.i, best.how, json_build_object(
    'account', json_build_object(
        'id', a.id, 'number', a.number, 'name', a.name, 'kind', a.kind, 'classification', a.class,
        'status', a.status, 'language', a.language, 'country', a.country, 'timezone', a.timezone,
        'email', a.email, 'city', a.city, 'last_contact', a.last_contact,
        'own_agent', a.own_agent),
    'contact', best.contact_id,
    'contacts', (SELECT json_agg(c) FROM (
        SELECT id, name, role, main, email, language FROM contacts WHERE account_id = a.id
        ORDER BY id IS NOT DISTINCT FROM best.contact_id DESC, main DESC, id LIMIT 10) c),
    'interactions', (SELECT json_agg(n) FROM (
        SELECT id, channel, direction, started, ended, queue, agents, talked, outcome, disposition,
            (SELECT left(text, 500) FROM interaction_notes WHERE interaction_id = interactions.id
             ORDER BY id DESC LIMIT 1) AS note
        FROM interactions WHERE account_id = a.id AND ended IS NOT NULL
        ORDER BY started DESC, id DESC LIMIT $4) n),
    'open_items', (SELECT json_agg(o) FROM (
        SELECT id, kind, reference, subject, status, due, amount::text AS amount, currency
        FROM open_items WHERE account_id = a.id AND status NOT IN ('done', 'cancelled')
        ORDER BY due, id LIMIT 10) o),
    'alerts', (SELECT json_agg(w) FROM (
        SELECT severity, text FROM alerts
        WHERE account_id = a.id AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now())
        ORDER BY array_position('{critical,warning,info}', severity), id LIMIT 5) w)
)::text
FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS asked(e164, number, account, i)
CROSS JOIN LATERAL (
    SELECT o AS account, hit.contact_id, hit.how FROM (
        SELECT account_id, contact_id, (array_agg(how ORDER BY rank))[1] AS how, min(rank) AS rank
        FROM (
            SELECT c.id AS account_id, (SELECT min(contact_id) FROM phones WHERE e164 = asked.e164 AND account_id = c.id)
                AS contact_id, c.how, c.rank
            FROM (SELECT id, 'chosen' AS how, 0 AS rank FROM accounts WHERE id = asked.account
                UNION ALL SELECT id, 'account_number', 1 FROM accounts WHERE number = asked.number) c
          UNION ALL
            (SELECT account_id, contact_id, 'exact', 2 FROM phones WHERE e164 = asked.e164 LIMIT 50)
          UNION ALL
            (SELECT account_id, contact_id, 'switchboard', 20 - length(prefix) FROM phones
             WHERE prefix = ANY(ARRAY[left(asked.e164, -1), left(asked.e164, -2), left(asked.e164, -3),
                                      left(asked.e164, -4)])
               AND NOT EXISTS (SELECT FROM phones WHERE e164 = asked.e164) LIMIT 50)
        ) found GROUP BY account_id, contact_id
    ) hit
    JOIN accounts o ON o.id = hit.account_id
    ORDER BY hit.rank, o.status = 'closed', date_trunc('day', o.last_contact) DESC NULLS LAST,
        (SELECT count(*) FROM open_items WHERE account_id = o.id AND status NOT IN ('done', 'cancelled')) DESC,
        (SELECT main FROM contacts WHERE id = hit.contact_id) DESC NULLS LAST,
        o.last_contact DESC NULLS LAST, o.id, hit.contact_id
    LIMIT 8
) best
CROSS JOIN LATERAL (SELECT (best.account).*) a
"""
"""All about everybody who may be calling. $1 E.164, $2 account numbers, $3 account ids (one of each a request, or
NULL), $4 how many earlier interactions. An exact owner shuts out switchboards; of these the longest prefix leads.
Equals are ranked by day of the last contact, then open items, then the account's main contact before others."""


class _Line:
    """A connection with its prepared query, one at a time on its way.

    A query is started in the turn of the loop in which it is asked for, and its rows are given to `answered` in the turn
    in which asyncpg has them: no task stands between, for in a busy loop each costs another turn. `ended` is set to
    what ended the line: the connection was lost, too slow, or not of this schema any more.
    """

    def __init__(
        self,
        connection: Connection,
        statement: Statement,
        *,
        interactions: int,
        patience: float,
        answered: Callable[[_Line, Sequence[_Request], Sequence[asyncpg.Record]], None],
        free: Callable[[_Line], None],
    ) -> None:
        self._connection = connection
        self._statement = statement
        self._interactions = interactions
        self._patience = patience
        self._answered = answered
        self._free = free
        self._loop = asyncio.get_running_loop()
        self._requests: Sequence[_Request] = ()
        self._query: Coroutine[Any, Any, Sequence[asyncpg.Record]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._strikes = 0
        self.ended: asyncio.Future[BaseException] = self._loop.create_future()
        connection.add_termination_listener(
            lambda _: self.end(ConnectionResetError("the database closed the connection"))
        )

    def start(self, requests: Sequence[_Request]) -> None:
        """Sends the query for these. Only on a line that is free."""
        self._requests = requests
        self._timer = self._loop.call_later(self._patience, self._too_slow)
        self._query = self._statement.fetch(
            [r.caller.e164 for r in requests],
            [r.number for r in requests],
            [r.account for r in requests],
            self._interactions,
        )
        self._step()

    def end(self, why: BaseException) -> None:
        """Gives the line up; whoever waits for it is told."""
        requests = self._settled()
        if not self.ended.done():
            self.ended.set_result(why)
        _refuse(requests, why)

    def _step(self, waiter: asyncio.Future[Any] | None = None) -> None:
        """Runs the query's coroutine to its next wait, as a task would."""
        query = self._query
        if query is None:  # the line was given up meanwhile
            if waiter is not None and not waiter.cancelled():
                waiter.exception()
            return
        try:
            waits = query.send(None)
        except StopIteration as finished:
            requests = self._settled()
            self._strikes = 0
            self._answered(self, requests, finished.value)
        except (Exception, asyncio.CancelledError) as error:
            if waiter is None:  # it could not even be sent; who asks is told only after having asked
                self._loop.call_soon(self._failed, error)
            else:
                self._failed(error)
        else:
            waits.add_done_callback(self._step)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, asyncpg.QueryCanceledError):
            self._strikes += 1
            if self._strikes < _STRIKES:
                _refuse(self._settled(), error)
                self._free(self)
                return
        self.end(error)

    def _too_slow(self) -> None:
        self._timer = None
        self.end(TimeoutError(f"no answer within {self._patience:g} s"))

    def _settled(self) -> Sequence[_Request]:
        requests, self._requests, self._query = self._requests, (), None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return requests


class CallerLookup:
    """Finds callers, many at once. Use as `async with CallerLookup(dsn) as lookup:` or by `start` and `close`."""

    def __init__(
        self,
        dsn: str,
        *,
        connections: int = 2,
        limit: float = 0.25,
        patience: float = 1.0,
        waiting: int = 4000,
        batch: int = 64,
        interactions: int = 5,
        pauses: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
        connect: Connect | None = None,
    ) -> None:
        """Seconds: `limit` is how long `find` takes at most, `patience` how long one query may take before its
        connection is given up, `pauses` the waits between attempts to connect (the last one repeats)."""
        self._connect = connect or (lambda: asyncpg.connect(dsn, timeout=5))
        self._connections = connections
        self._limit = limit
        self._patience = patience
        self._longest_queue = waiting
        self._batch = batch
        self._interactions = interactions
        self._pauses = tuple(pauses)
        self._queue: deque[_Request] = deque()
        self._lines: list[_Line] = []
        self._free: list[_Line] = []
        self._tried = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def available(self) -> bool:
        """Whether a connection stands at this moment."""
        return bool(self._lines)

    async def start(self) -> None:
        """Starts the connections and waits for the first attempt to end, well or not. Never raises for a dead database."""
        self._tasks = [
            asyncio.create_task(self._keep(), name=f"caller-lookup-{n}") for n in range(self._connections)
        ]
        await self._tried.wait()

    async def close(self) -> None:
        """Ends the connections; whoever still waits is told LookupUnavailable."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._refuse_all()

    async def __aenter__(self) -> CallerLookup:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def find(
        self,
        text: str | None,
        region: str,
        *,
        account_number: str | None = None,
        account_id: int | None = None,
        limit: float | None = None,
    ) -> Identification:
        """Says who may be calling from `text`, best first; `region` as for `read_caller`.

        `account_number` (given by the caller) and `account_id` (chosen by a person) lead the candidates where such
        an account exists. Raises LookupUnavailable after `limit` seconds (the constructor's if None), at once while
        there is no database; the query then goes on and harms nobody. Any number may be asked for at once.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        asked = self._begin(text, region, account_number, account_id, limit, functools.partial(_fill, future))
        answer: Answer
        if isinstance(asked, _Request):
            try:
                answer = await future
            finally:
                asked.forget()
        else:
            answer = asked
        if isinstance(answer, LookupUnavailable):
            raise answer
        return answer

    def ask(
        self,
        text: str | None,
        region: str,
        done: Done,
        *,
        account_number: str | None = None,
        account_id: int | None = None,
        limit: float | None = None,
    ) -> None:
        """As `find`, for whoever cannot spare the turns of the loop that a task takes: the query is sent before this
        returns, and `done` gets the answer, or the LookupUnavailable, in the turn in which it is there. Never raises,
        and never calls `done` before it has returned; calls it once."""
        asked = self._begin(text, region, account_number, account_id, limit, done)
        if not isinstance(asked, _Request):
            asyncio.get_running_loop().call_soon(done, asked)

    def _begin(
        self,
        text: str | None,
        region: str,
        account_number: str | None,
        account_id: int | None,
        limit: float | None,
        done: Done,
    ) -> _Request | Answer:
        """Returns the request that is on its way, or the answer where the database is not needed or not there."""
        began = time.perf_counter()
        request = _Request(
            caller=read_caller(text, region),
            number=plain(account_number, 40) or None,
            account=account_id if account_id is not None and 0 < account_id < 1 << 63 else None,
            began=began,
            done=done,
        )
        if request.caller.e164 is None and request.number is None and request.account is None:
            return _identification(request, ())
        if not self._lines:
            return LookupUnavailable("no connection to the database")
        if len(self._queue) >= self._longest_queue:
            return LookupUnavailable("too many look-ups are waiting for the database")
        limit = self._limit if limit is None else limit
        request.timer = asyncio.get_running_loop().call_later(limit, _out_of_time, request, limit)
        self._queue.append(request)
        if self._free:
            self._send(self._free.pop())
        return request

    # ------------------------------------------------------------------------------------ connections

    async def _keep(self) -> None:
        """Keeps one connection at work for ever, whatever happens to it."""
        failures = 0
        while True:
            connection: Connection | None = None
            line: _Line | None = None
            try:
                async with asyncio.timeout(max(self._patience, 5.0)):
                    connection = await self._connect()
                    await connection.fetch(SESSION, str(int(self._patience * 1000)))
                    statement = await connection.prepare(FIND)
                    # Its first run plans it and reads catalogues: tens of milliseconds that no caller shall wait.
                    await statement.fetch(["+"], [None], [None], self._interactions)
                line = _Line(
                    connection,
                    statement,
                    interactions=self._interactions,
                    patience=self._patience + 0.5,  # first the database itself has the time to end it
                    answered=self._answered,
                    free=self._send,
                )
                self._lines.append(line)
                if failures:
                    log.info("caller look-up: the database is back")
                failures = 0
                self._tried.set()
                self._send(line)
                why = await line.ended
                raise why if isinstance(why, Exception) else ConnectionAbortedError("the query was cancelled")
            except Exception as error:
                if not failures:
                    log.warning("caller look-up: no database", why=f"{type(error).__name__}: {error}"[:200])
            finally:
                if line is not None:
                    self._lines.remove(line)
                    if line in self._free:
                        self._free.remove(line)
                    line.end(ConnectionAbortedError("the look-up was closed"))
                if connection is not None:
                    connection.terminate()
                if not self._lines:
                    self._refuse_all()
            self._tried.set()
            pause = self._pauses[min(failures, len(self._pauses) - 1)]
            failures += 1
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the attempts, no secret

    def _send(self, line: _Line) -> None:
        """Gives a free line the next requests, or keeps it for the next that comes."""
        requests: list[_Request] = []
        while self._queue and len(requests) < self._batch:
            request = self._queue.popleft()
            if request.done is not None:  # else its asker has given up
                requests.append(request)
        if requests:
            line.start(requests)
        else:
            self._free.append(line)

    def _answered(self, line: _Line, requests: Sequence[_Request], rows: Sequence[asyncpg.Record]) -> None:
        self._send(line)  # the database works on the next ones while these are told
        found: list[list[Candidate]] = [[] for _ in requests]
        for place, how, body in rows:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                found[place - 1].append(candidate(how, msgspec.json.decode(body)))
        for request, candidates in zip(requests, found, strict=True):
            request.tell(_identification(request, tuple(candidates)))

    def _refuse_all(self) -> None:
        waiting = tuple(self._queue)
        self._queue.clear()
        _refuse(waiting, None)


def _fill(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def _out_of_time(request: _Request, limit: float) -> None:
    request.tell(LookupUnavailable(f"the database did not answer within {limit:g} s"))


def _refuse(requests: Sequence[_Request], cause: BaseException | None) -> None:
    for request in requests:
        refusal = LookupUnavailable("the database did not answer")
        refusal.__cause__ = cause
        request.tell(refusal)


def _identification(request: _Request, candidates: tuple[Candidate, ...]) -> Identification:
    caller = request.caller
    nobody = "none" if caller.kind is Kind.IDENTIFIED else caller.kind.value
    how = candidates[0].how if candidates else nobody
    took = round((time.perf_counter() - request.began) * 1000, 3)
    return Identification(caller=caller, how=how, candidates=candidates, took_ms=took)


def candidate(how: str, body: dict[str, Any]) -> Candidate:
    """Builds a candidate from one row of FIND."""
    account = body["account"]
    account["last_contact"] = _moment(account["last_contact"])
    contacts = tuple(ContactCard(**row) for row in body["contacts"] or ())
    return Candidate(
        how=how,
        account=AccountCard(**account),
        contact=next((contact for contact in contacts if contact.id == body["contact"]), None),
        contacts=contacts,
        interactions=tuple(_interaction(row) for row in body["interactions"] or ()),
        open_items=tuple(_open_item(row) for row in body["open_items"] or ()),
        alerts=tuple(AlertCard(**row) for row in body["alerts"] or ()),
    )


def _interaction(row: dict[str, Any]) -> InteractionCard:
    row["started"] = _moment(row["started"])
    row["ended"] = _moment(row["ended"])
    row["agents"] = tuple(row["agents"])
    return InteractionCard(**row)


def _open_item(row: dict[str, Any]) -> OpenItemCard:
    row["due"] = date.fromisoformat(row["due"]) if row["due"] else None
    return OpenItemCard(**row)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
