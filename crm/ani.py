"""Who is calling: a number to the accounts and contacts it may belong to, complete for a screen pop, in one query.

The look-up has database connections of its own, so no report and no import can keep a caller waiting; requests that
come while a query runs go together into the next one. A slow or dead database costs a call nothing: `find` says
LookupUnavailable within its time limit, or at once while no connection stands, and the connections come back by
themselves. Nothing is cached: what was saved a moment ago is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import asyncpg
import orjson
import structlog

from crm.numbers import Caller, Kind, read_caller
from crm.plain_text import plain
from crm.views import AccountCard, AlertCard, Candidate, ContactCard, InteractionCard, OpenItemCard

log = structlog.get_logger(__name__)

Connection = asyncpg.Connection
Connect = Callable[[], Awaitable["Connection[asyncpg.Record]"]]

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


@dataclass(slots=True)
class _Request:
    e164: str | None
    number: str | None
    account: int | None
    answer: asyncio.Future[tuple[Candidate, ...]] = field(repr=False)


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
    SELECT hit.account_id, hit.contact_id, hit.how, row_number() OVER () AS place FROM (
        SELECT account_id, contact_id, (array_agg(how ORDER BY rank))[1] AS how, min(rank) AS rank
        FROM (
            SELECT id AS account_id, (SELECT min(contact_id) FROM phones WHERE e164 = asked.e164 AND account_id = c.id)
                AS contact_id, 'chosen' AS how, 0 AS rank
            FROM accounts c WHERE id = asked.account
          UNION ALL
            SELECT id, (SELECT min(contact_id) FROM phones WHERE e164 = asked.e164 AND account_id = c.id),
                'account_number', 1
            FROM accounts c WHERE number = asked.number
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
    LEFT JOIN contacts p ON p.id = hit.contact_id
    ORDER BY hit.rank, o.status = 'closed', date_trunc('day', o.last_contact) DESC NULLS LAST,
        (SELECT count(*) FROM open_items WHERE account_id = o.id AND status NOT IN ('done', 'cancelled')) DESC,
        p.main DESC NULLS LAST, o.last_contact DESC NULLS LAST, o.id, p.id
    LIMIT 8
) best
JOIN accounts a ON a.id = best.account_id
"""
"""All about everybody who may be calling. $1 E.164, $2 account numbers, $3 account ids (one of each a request, or
NULL), $4 how many earlier interactions. An exact owner shuts out switchboards; of these the longest prefix leads.
Equals are ranked by day of the last contact, then open items, then the account's main contact before others."""


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
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self._up = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def available(self) -> bool:
        """Whether a connection stands at this moment."""
        return self._up > 0

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
        began = time.perf_counter()
        caller = read_caller(text, region)
        number = plain(account_number, 40) or None
        account = account_id if account_id is not None and 0 < account_id < 1 << 63 else None
        candidates: tuple[Candidate, ...] = ()
        if caller.e164 is not None or number is not None or account is not None:
            candidates = await self._ask(
                caller.e164, number, account, self._limit if limit is None else limit
            )
        nobody = "none" if caller.kind is Kind.IDENTIFIED else caller.kind.value
        how = candidates[0].how if candidates else nobody
        took = round((time.perf_counter() - began) * 1000, 3)
        return Identification(caller=caller, how=how, candidates=candidates, took_ms=took)

    async def _ask(
        self, e164: str | None, number: str | None, account: int | None, limit: float
    ) -> tuple[Candidate, ...]:
        if not self._up:
            raise LookupUnavailable("no connection to the database")
        if len(self._queue) >= self._longest_queue:
            raise LookupUnavailable("too many look-ups are waiting for the database")
        answer: asyncio.Future[tuple[Candidate, ...]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(e164, number, account, answer))
        self._wake.set()
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            raise LookupUnavailable(f"the database did not answer within {limit:g} s") from None

    # ------------------------------------------------------------------------------------ connections

    async def _keep(self) -> None:
        """Keeps one connection at work for ever, whatever happens to it."""
        failures = 0
        while True:
            connection: Connection[asyncpg.Record] | None = None
            served = False
            try:
                async with asyncio.timeout(max(self._patience, 5.0)):
                    connection = await self._connect()
                    await connection.fetch(SESSION, str(int(self._patience * 1000)))
                    connection.add_termination_listener(lambda _: self._wake.set())
                    statement = await connection.prepare(FIND)
                    # Its first run plans it and reads catalogues: tens of milliseconds that no caller shall wait.
                    await statement.fetch(["+"], [None], [None], self._interactions)
                self._up += 1
                served = True
                if failures:
                    log.info("caller look-up: the database is back")
                failures = 0
                self._tried.set()
                await self._serve(connection, statement)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if not failures:
                    log.warning("caller look-up: no database", why=f"{type(error).__name__}: {error}"[:200])
            finally:
                self._up -= served
                if connection is not None:
                    connection.terminate()
                if not self._up:
                    self._refuse_all()
            self._tried.set()
            pause = self._pauses[min(failures, len(self._pauses) - 1)]
            failures += 1
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the attempts, no secret

    async def _serve(
        self,
        connection: Connection[asyncpg.Record],
        statement: asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record],
    ) -> None:
        """Answers requests until the connection is lost, too slow, or not of this schema any more (raises)."""
        strikes = 0
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
                if connection.is_closed():
                    raise ConnectionResetError("the database closed the connection")
            requests = self._take()
            if not requests:
                continue
            try:
                async with asyncio.timeout(self._patience + 0.5):
                    rows = await statement.fetch(
                        [r.e164 for r in requests],
                        [r.number for r in requests],
                        [r.account for r in requests],
                        self._interactions,
                    )
            except asyncpg.QueryCanceledError as slow:
                _refuse(requests, slow)
                strikes += 1
                if strikes >= _STRIKES:
                    raise
                continue
            except BaseException as error:
                _refuse(requests, error)
                raise
            strikes = 0
            _answer(requests, rows)

    def _take(self) -> list[_Request]:
        requests: list[_Request] = []
        while self._queue and len(requests) < self._batch:
            request = self._queue.popleft()
            if not request.answer.done():  # else its asker has given up
                requests.append(request)
        return requests

    def _refuse_all(self) -> None:
        _refuse(self._queue, None)
        self._queue.clear()


def _refuse(requests: Sequence[_Request] | deque[_Request], cause: BaseException | None) -> None:
    for request in requests:
        if not request.answer.done():
            refusal = LookupUnavailable("the database did not answer")
            refusal.__cause__ = cause
            request.answer.set_exception(refusal)


def _answer(requests: Sequence[_Request], rows: Sequence[asyncpg.Record]) -> None:
    found: list[list[Candidate]] = [[] for _ in requests]
    for place, how, body in rows:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            found[place - 1].append(candidate(how, orjson.loads(body)))
    for request, candidates in zip(requests, found, strict=True):
        if not request.answer.done():
            request.answer.set_result(tuple(candidates))


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
