"""Interactions: each call with a customer becomes one record (who, when, how long, by whom, how it ended, what was noted).

Facts fold into records in memory; a writer carries the changed ones to PostgreSQL in batches, so a call never waits
for the database, and a database that is away is caught up with later. Rows are upserted by the call's id: whatever is
told twice, after a restart too, is one row. What a person typed (a note, a disposition, a choice of customer) goes to
the database at once and is acknowledged only when committed.

Internal calls have no customer and become interactions only if somebody notes something on them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import structlog

from crm import escalations
from crm.accounts import ChangedMeanwhile as ChangedMeanwhile
from crm.escalations import Escalation
from crm.facts import InteractionClosed, InteractionIdentified, InteractionNoted
from crm.paging import MOST, Page, WrongCursor, cursor_of, key_of
from cti.database import AWAY
from cti.facts import (
    CallCleared,
    CallConferenced,
    CallDelivered,
    CallDiverted,
    CallerChanged,
    CallEstablished,
    CallFact,
    CallHeld,
    CallMerged,
    CallOffered,
    CallOriginated,
    CallParked,
    CallQueued,
    CallRetrieved,
    CallTransferred,
    CallUnparked,
    CallView,
    ConnectionState,
    Direction,
    Fact,
)
from cti.numbers import read_caller
from cti.people import Actor, Role
from cti.plain_text import plain, plain_lines
from cti.wrap_up import Disposition

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection, Queryable

log = structlog.get_logger(__name__)

LONGEST_NOTE = 4000
"""Characters of a note."""

KEPT_AWHILE = 5000
"""Finished records kept in memory so that a late answer still finds them."""

_TALKING = frozenset({ConnectionState.CONNECTED, ConnectionState.HOLD})
_SWITCH_SAYS = frozenset({"answered", "abandoned", "unanswered", "failed", "merged", "lost"})


class UnknownInteraction(Exception):
    """There is no such call or interaction."""


class UnknownNote(Exception):
    """There is no such note."""


class NotYourNote(Exception):
    """Only its author, a supervisor or an administrator may change a note."""


class WrongText(ValueError):
    """The text is empty or too long; the message says which and how long it may be."""


class WrongDisposition(ValueError):
    """The queue's calls end otherwise; the message names the codes there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note on an interaction. `changed` is None while it is as first written."""

    id: int
    interaction: int
    author: str
    text: str
    created: datetime
    changed: datetime | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """A contact with a customer. Seconds: `waited`, `talked`, `held`. `outcome` is None while the call lasts.
    `escalations`: how it went up to the second level, read with one interaction only."""

    id: int
    call: str
    pbx: str
    channel: str
    direction: str
    started: datetime
    ended: datetime | None
    queue: str | None
    agents: tuple[str, ...]
    waited: float
    talked: float
    held: float
    outcome: str | None
    ani: str | None
    e164: str | None
    dnis: str | None
    account_id: int | None
    contact_id: int | None
    identified_how: str | None
    identified_by: str | None
    disposition: str | None
    version: int
    notes: tuple[Note, ...] = ()
    escalations: tuple[Escalation, ...] = ()


Viewed = (
    CallOriginated
    | CallQueued
    | CallOffered
    | CallEstablished
    | CallDiverted
    | CallTransferred
    | CallMerged
    | CallConferenced
    | CallParked
    | CallUnparked
)
"""Facts that carry the whole call."""


@dataclass(slots=True)
class _Record:
    """A call as far as it will be written."""

    call: str
    pbx: str
    direction: Direction
    started: datetime
    touched: datetime
    ani: str | None = None
    e164: str | None = None
    dnis: str | None = None
    ended: datetime | None = None
    queue: str | None = None
    agents: dict[str, None] = field(default_factory=dict)
    waited: float = 0.0
    talked: float = 0.0
    held: float = 0.0
    outcome: str | None = None
    account_id: int | None = None
    contact_id: int | None = None
    identified_how: str | None = None
    identified_by: str | None = None
    announced: bool = False

    def row(self) -> dict[str, Any]:
        """The record as a row of UPSERT."""
        return {
            "call": self.call,
            "pbx": self.pbx,
            "direction": self.direction.value,
            "started": self.started,
            "touched": self.touched,
            "ended": self.ended,
            "queue": self.queue,
            "agents": list(self.agents),
            "waited": self.waited,
            "talked": self.talked,
            "held": self.held,
            "outcome": self.outcome,
            "ani": self.ani,
            "e164": self.e164,
            "dnis": self.dnis,
            "account_id": self.account_id,
            "contact_id": self.contact_id,
            "identified_how": self.identified_how,
            "identified_by": self.identified_by,
        }


UPSERT = """
INSERT INTO interactions AS i (call, pbx, direction, started, touched, ended, queue, agents, waited, talked, held,
    outcome, ani, e164, dnis, account_id, contact_id, identified_how, identified_by)
SELECT r.call, r.pbx, r.direction, r.started, r.touched, r.ended, r.queue, r.agents, r.waited, r.talked, r.held,
    r.outcome, r.ani, r.e164, r.dnis, a.id, c.id,
    CASE WHEN a.id IS NOT NULL THEN r.identified_how END, CASE WHEN a.id IS NOT NULL THEN r.identified_by END
FROM json_to_recordset($1::json) AS r(call text, pbx text, direction text, started timestamptz, touched timestamptz,
    ended timestamptz, queue text, agents text[], waited real, talked real, held real, outcome text, ani text,
    e164 text, dnis text, account_id bigint, contact_id bigint, identified_how text, identified_by text)
LEFT JOIN accounts a ON a.id = r.account_id
LEFT JOIN contacts c ON c.id = r.contact_id AND c.account_id = a.id
ORDER BY r.call
ON CONFLICT (call) DO UPDATE SET
    direction = EXCLUDED.direction,
    started = LEAST(i.started, EXCLUDED.started),
    touched = GREATEST(i.touched, EXCLUDED.touched),
    ended = CASE WHEN i.outcome <> 'lost' THEN i.ended ELSE EXCLUDED.ended END,
    outcome = CASE WHEN i.outcome <> 'lost' THEN i.outcome ELSE EXCLUDED.outcome END,
    queue = COALESCE(EXCLUDED.queue, i.queue),
    agents = i.agents || ARRAY(SELECT a FROM unnest(EXCLUDED.agents) a WHERE a <> ALL (i.agents)),
    waited = GREATEST(i.waited, EXCLUDED.waited),
    talked = GREATEST(i.talked, EXCLUDED.talked),
    held = GREATEST(i.held, EXCLUDED.held),
    ani = COALESCE(EXCLUDED.ani, i.ani),
    e164 = COALESCE(EXCLUDED.e164, i.e164),
    dnis = COALESCE(EXCLUDED.dnis, i.dnis),
    (account_id, contact_id, identified_how, identified_by) = (SELECT
        CASE WHEN kept THEN i.account_id ELSE EXCLUDED.account_id END,
        CASE WHEN kept THEN i.contact_id ELSE EXCLUDED.contact_id END,
        CASE WHEN kept THEN i.identified_how ELSE EXCLUDED.identified_how END,
        CASE WHEN kept THEN i.identified_by ELSE EXCLUDED.identified_by END
        FROM (SELECT EXCLUDED.account_id IS NULL
            OR (i.identified_how = 'chosen' AND EXCLUDED.identified_how IS DISTINCT FROM 'chosen') AS kept) k)
RETURNING id, call, account_id, agents, ended, outcome, started
"""
"""A closed row stays as it was closed (unless it was only taken for lost), a person's choice outranks the look-up's."""


class Interactions:
    """Folds call facts into interaction records and keeps them written down."""

    def __init__(
        self,
        pool: Pool,
        *,
        publish: Callable[[Iterable[Fact]], None],
        region_of: Callable[[str], str],
        linger: float = 0.25,
        batch: int = 500,
        most: int = 100_000,
        pauses: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 5.0),
    ) -> None:
        """`linger`: seconds a change waits for others to be written with it. `most`: calls kept in memory, beyond
        which the oldest is let go, counted in `dropped`. `pauses`: seconds between attempts while the database is away."""
        self._pool = pool
        self._publish = publish
        self._region_of = region_of
        self._linger = linger
        self._batch = batch
        self._most = most
        self._pauses = tuple(pauses)
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._dirty: OrderedDict[str, None] = OrderedDict()
        self._writing: tuple[str, ...] = ()
        self._cleared: OrderedDict[str, CallCleared] = OrderedDict()
        self._done: OrderedDict[str, _Record] = OrderedDict()
        self._settling: dict[str, frozenset[str]] = {}
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0
        self.behind_since: datetime | None = None

    def reactions(self) -> dict[type[Fact], Callable[[Any], None]]:
        """Returns what to listen to: fact class → the method that takes it."""
        viewed = (
            CallOriginated,
            CallQueued,
            CallOffered,
            CallTransferred,
            CallMerged,
            CallConferenced,
            CallParked,
        )
        touched = (CallDelivered, CallHeld, CallRetrieved)
        return {
            **dict.fromkeys(viewed, self.viewed),
            **dict.fromkeys(touched, self.touched),
            CallEstablished: self.established,
            CallDiverted: self.viewed,
            CallUnparked: self.viewed,
            CallerChanged: self.caller_changed,
            CallCleared: self.cleared,
            InteractionIdentified: self.identified,
        }

    def agents_of(self, call: str) -> tuple[str, ...]:
        """The agents who have had this call, of those still kept in memory (the last thousands)."""
        record = self._records.get(call) or self._done.get(call)
        return tuple(record.agents) if record is not None else ()

    @property
    def unwritten(self) -> int:
        """How many records are not in the database as they are here."""
        return len(self._dirty) + sum(call not in self._dirty for call in self._writing)

    # ------------------------------------------------------------------------------------------- facts

    def viewed(self, fact: Viewed) -> None:
        """Opens the record of a call with a customer, or brings it up to date."""
        record = self._records.get(fact.call)
        if record is None:
            if fact.view.direction is Direction.INTERNAL:
                return
            record = self._open(fact.view, fact.at)
        _take_view(record, fact.view)
        self._read_number(record)
        self._change(record, fact.at)

    def touched(self, fact: CallFact) -> None:
        """The call went on."""
        if (record := self._records.get(fact.call)) is not None:
            self._change(record, fact.at)

    def established(self, fact: CallEstablished) -> None:
        """An agent talks to the customer."""
        self.viewed(fact)
        if (record := self._records.get(fact.call)) is None:
            return
        if fact.agent is not None:
            record.agents.setdefault(fact.agent)
            record.queue = fact.queue or record.queue
        self._change(record, fact.at)

    def caller_changed(self, fact: CallerChanged) -> None:
        """The switch corrected the caller's number."""
        record = self._records.get(fact.call)
        if record is not None and record.direction is not Direction.OUTBOUND:
            record.ani = plain(fact.ani, 128) or None
            self._read_number(record)
            self._change(record, fact.at)

    def identified(self, fact: InteractionIdentified) -> None:
        """The customer is known."""
        record = self._records.get(fact.call)
        if record is None and (record := self._done.pop(fact.call, None)) is not None:
            self._records[fact.call] = record
        if record is None or (record.identified_how == "chosen" and fact.how != "chosen"):
            return
        record.account_id, record.contact_id = fact.account_id, fact.contact_id
        record.identified_how, record.identified_by = fact.how, fact.by
        record.e164 = record.e164 or fact.e164
        self._change(record, record.touched)

    def cleared(self, fact: CallCleared) -> None:
        """The call is over: the record is complete."""
        self._cleared[fact.call] = fact
        self._cleared.move_to_end(fact.call)
        if len(self._cleared) > 10_000:
            self._cleared.popitem(last=False)
        record = self._records.get(fact.call)
        if record is not None:
            _close(record, fact)
            self._change(record, fact.at)

    def settle(self, pbx: str, alive: Collection[str]) -> None:
        """Has the records closed whose calls are not on the PBX any more: outcome `lost`, ended when last heard of.

        Call it when the state of a PBX has been asked for after a start; `alive` are the ids of its calls. Done by the
        writer as soon as there is a database.
        """
        self._settling[pbx] = frozenset(alive)
        self._wake_writer()

    def _open(self, view: CallView, at: datetime) -> _Record:
        record = _Record(view.id, view.pbx, view.direction, view.started, max(at, view.started))
        self._records[view.id] = record
        if len(self._records) > self._most:
            oldest, _ = self._records.popitem(last=False)
            self._dirty.pop(oldest, None)
            self.dropped += 1
            if self.dropped % 1000 == 1:
                log.error("interactions: more unwritten calls than can be kept", dropped=self.dropped)
        if (cleared := self._cleared.get(view.id)) is not None:  # told in a wrong order, or again
            _close(record, cleared)
        return record

    def _read_number(self, record: _Record) -> None:
        text = record.dnis if record.direction is Direction.OUTBOUND else record.ani
        record.e164 = read_caller(text, self._region_of(record.pbx)).e164

    def _change(self, record: _Record, at: datetime) -> None:
        record.touched = max(record.touched, at)
        self._dirty[record.call] = None
        self._wake_writer()

    def _wake_writer(self) -> None:
        self._idle.clear()
        self._wake.set()

    # ---------------------------------------------------------------------------------------- the writer

    async def run(self) -> None:
        """Writes what has changed, for ever. One task runs it; cancel it after `flush`."""
        failures = 0
        while True:
            if not self._dirty and not self._settling:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            if len(self._dirty) < self._batch:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._linger):
                        await self._hurry.wait()
            try:
                await self._write()
            except AWAY as error:
                if not failures:
                    self.behind_since = datetime.now(UTC)
                    log.warning("interactions: no database", why=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(self._pauses[min(failures, len(self._pauses) - 1)])
                failures += 1
            else:
                if failures:
                    log.info("interactions: the database is back", unwritten=len(self._dirty))
                failures, self.behind_since = 0, None

    async def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything told so far is written; False if it is not after `timeout` seconds."""
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._hurry.clear()

    async def _write(self) -> None:
        calls = [call for call, _ in zip(self._dirty, range(self._batch), strict=False)]
        records = [self._records[call] for call in calls]
        for call in calls:
            del self._dirty[call]
        self._writing = tuple(calls)
        try:
            if records:
                await self._write_records(records)
            for pbx in tuple(self._settling):
                await self._settle_now(pbx)
        except BaseException:
            for record in records:
                if self._records.get(record.call) is record:
                    self._dirty[record.call] = None
            raise
        finally:
            self._writing = ()

    async def _write_records(self, records: Sequence[_Record]) -> None:
        try:
            await self._upsert(records)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            if len(records) == 1:
                log.error("interactions: a record cannot be written", why=type(error).__name__)
                self.dropped += 1
                self._records.pop(records[0].call, None)
                return
            for record in records:
                await self._write_records([record])

    async def _upsert(self, records: Sequence[_Record]) -> None:
        closed = {record.call: record for record in records if record.outcome is not None}
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            rows = await _upsert(connection, records)
            await _remember_contact(connection, [row["id"] for row in rows if row["call"] in closed])
        facts: list[Fact] = []
        for row in rows:
            record = closed.get(row["call"])
            if record is None:
                continue
            if record.call not in self._dirty and self._records.get(record.call) is record:
                del self._records[record.call]
                self._keep_awhile(record)
            if not record.announced:
                record.announced = True
                facts.append(_closed(row))
        if facts:
            self._publish(facts)

    def _keep_awhile(self, record: _Record) -> None:
        """Keeps a finished record for what comes late: the look-up's answer after the database was away."""
        self._done[record.call] = record
        if len(self._done) > KEPT_AWHILE:
            self._done.popitem(last=False)

    async def _settle_now(self, pbx: str) -> None:
        """Closes rows left open by a process that is no more."""
        known = self._settling[pbx] | {call for call, record in self._records.items() if record.pbx == pbx}
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            rows = await connection.fetch(
                """UPDATE interactions SET ended = touched, outcome = 'lost'
                   WHERE pbx = $1 AND ended IS NULL AND call <> ALL ($2::text[])
                   RETURNING id, call, account_id, agents, ended, outcome, started""",
                pbx,
                list(known),
            )
        del self._settling[pbx]
        if rows:
            log.info("interactions: calls that ended unseen were closed", pbx=pbx, lost=len(rows))
            self._publish([_closed(row) for row in rows])

    # ------------------------------------------------------------------------------------- from people

    async def add_note(
        self, actor: Actor, text: str, *, call: str | None = None, interaction: int | None = None
    ) -> Note:
        """Writes a note on a call or an interaction; it is committed when this returns.

        Raises WrongText, UnknownInteraction, or what asyncpg raises while the database is away: then nothing is kept.
        """
        body = _note_text(text)
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            about = await self._row_of(connection, call, interaction)
            row = await connection.fetchrow(
                """INSERT INTO interaction_notes (interaction_id, author, text) VALUES ($1, $2, $3)
                   RETURNING id, interaction_id AS interaction, author, text, created, changed, version""",
                about["id"],
                actor.login,
                body,
            )
        note = Note(**_one(row))
        self._publish([_noted(note, about)])
        return note

    async def edit_note(self, actor: Actor, note: int, text: str, *, version: int) -> Note:
        """Replaces a note's text if it still is at this version. Raises WrongText, UnknownNote, NotYourNote,
        ChangedMeanwhile; then nothing has changed."""
        body = _note_text(text)
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            old = await connection.fetchrow(
                """SELECT n.author, n.version, i.id, i.call, i.account_id
                   FROM interaction_notes n JOIN interactions i ON i.id = n.interaction_id
                   WHERE n.id = $1 FOR UPDATE OF n""",
                note,
            )
            if old is None:
                raise UnknownNote(str(note))
            if old["author"] != actor.login and actor.role not in (Role.ADMIN, Role.SUPERVISOR):
                raise NotYourNote(str(note))
            if old["version"] != version:
                raise ChangedMeanwhile(
                    f"the note is at version {old['version']} by now: read it again, then change it"
                )
            row = await connection.fetchrow(
                """UPDATE interaction_notes SET text = $2, changed = now(), version = version + 1 WHERE id = $1
                   RETURNING id, interaction_id AS interaction, author, text, created, changed, version""",
                note,
                body,
            )
        changed = Note(**_one(row))
        self._publish([_noted(changed, old)])
        return changed

    async def dispose(
        self,
        actor: Actor,
        call: str,
        disposition: str,
        *,
        choice: Callable[[str | None], Sequence[Disposition]] = lambda queue: (),
        of_campaign: Callable[[Queryable, str], Awaitable[Sequence[Disposition] | None]] | None = None,
        follows: Callable[[Queryable, str, str, str], Awaitable[None]] | None = None,
    ) -> Interaction:
        """Says how the contact ended, in the house's own words; committed when this returns. The last one said counts.

        `choice`: what may be said of a call that came through this queue, anything if it gives nothing; `of_campaign` the
        same of a campaign's call, None where the queue has the say. `follows` does what comes of it, or all is as before.
        Raises WrongText, WrongDisposition, UnknownInteraction.
        """
        word = plain(disposition, 101)
        if not word or len(word) > 100:
            raise WrongText("a disposition has 1 to 100 characters")
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            about = await self._row_of(connection, call, None)
            theirs = await of_campaign(connection, call) if of_campaign is not None else None
            allowed = choice(about["queue"]) if theirs is None else theirs
            if allowed and word not in {one.code for one in allowed}:
                codes = ", ".join(f"{one.code} ({one.label})" for one in allowed)
                raise WrongDisposition(f"there is no disposition {word!r} for this call; use one of: {codes}")
            await connection.execute(
                "UPDATE interactions SET disposition = $2, version = version + 1 WHERE id = $1",
                about["id"],
                word,
            )
            if follows is not None:
                await follows(connection, call, word, actor.login)
            found = await _interaction(connection, about["id"])
        log.info("disposition set", by=actor.login)
        return found

    async def choose(
        self, actor: Actor, call: str, account_id: int, contact_id: int | None, remember: str | None
    ) -> None:
        """Says that this account is the customer of the call, and with `remember` that this E.164 number is theirs.

        Committed when this returns. Raises UnknownInteraction; asyncpg.ForeignKeyViolationError if the account is gone.
        """
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            about = await self._row_of(connection, call, None)
            await connection.execute(
                """UPDATE interactions SET account_id = $2, contact_id = $3, identified_how = 'chosen',
                       identified_by = $4, version = version + 1 WHERE id = $1""",
                about["id"],
                account_id,
                contact_id,
                actor.login,
            )
            if remember is not None:
                await connection.execute(
                    """INSERT INTO phones (e164, account_id, kind) SELECT $1, $2, 'other'
                       WHERE NOT EXISTS (SELECT FROM phones WHERE e164 = $1 AND account_id = $2)
                       ON CONFLICT DO NOTHING""",
                    remember,
                    account_id,
                )
        if (record := self._records.get(call)) is not None:
            record.account_id, record.contact_id = account_id, contact_id
            record.identified_how, record.identified_by = "chosen", actor.login

    async def _row_of(
        self, connection: PoolConnection, call: str | None, interaction: int | None
    ) -> asyncpg.Record:
        """Returns id, call, account and queue of the row, which is written first if the writer has not come to it yet."""
        record = self._records.get(call) if call is not None else None
        if record is not None:
            await _upsert(connection, [record])
        row = await connection.fetchrow(
            "SELECT id, call, account_id, queue FROM interactions WHERE call = $1 OR id = $2",
            plain(call, 200) or None,
            interaction if interaction is not None and 0 < interaction < 1 << 63 else None,
        )
        if row is None:
            raise UnknownInteraction(call or str(interaction))
        return row


# ---------------------------------------------------------------------------------------------- reading


async def get_interaction(pool: Pool, interaction: int) -> Interaction:
    """Returns an interaction with its notes, the oldest note first. Raises UnknownInteraction."""
    async with pool.acquire(timeout=5) as connection:
        return await _interaction(connection, interaction)


async def list_interactions(
    pool: Pool, account_id: int, *, limit: int = 50, cursor: str | None = None
) -> Page[Interaction]:
    """Returns an account's interactions, the newest first, without notes. Raises WrongCursor."""
    limit = max(1, min(limit, MOST))
    started, last = None, 0
    if cursor is not None:
        moment, last_id = key_of(cursor, int, int)
        started, last = _moment(int(moment)), int(last_id)
    rows = await pool.fetch(
        """SELECT id, call, pbx, channel, direction, started, ended, queue, agents, waited, talked, held, outcome, ani,
               e164, dnis, account_id, contact_id, identified_how, identified_by, disposition, version
           FROM interactions
           WHERE account_id = $1 AND ($2::timestamptz IS NULL OR (started, id) < ($2, $3))
           ORDER BY started DESC, id DESC LIMIT $4""",
        account_id,
        started,
        last,
        limit + 1,
    )
    items = tuple(_of_row(row) for row in rows[:limit])
    more = len(rows) > limit
    after = cursor_of(_microseconds(items[-1].started), items[-1].id) if more else None
    return Page(items=items, cursor=after)


async def _interaction(connection: PoolConnection, interaction: int) -> Interaction:
    row = await connection.fetchrow(
        """SELECT id, call, pbx, channel, direction, started, ended, queue, agents, waited, talked, held, outcome, ani,
               e164, dnis, account_id, contact_id, identified_how, identified_by, disposition, version
           FROM interactions WHERE id = $1""",
        interaction,
    )
    if row is None:
        raise UnknownInteraction(str(interaction))
    notes = await connection.fetch(
        """SELECT id, interaction_id AS interaction, author, text, created, changed, version
           FROM interaction_notes WHERE interaction_id = $1 ORDER BY id LIMIT 500""",
        interaction,
    )
    up = await escalations.of_call(connection, row["call"])
    return _of_row(row, tuple(Note(**dict(note)) for note in notes), up)


def _of_row(
    row: asyncpg.Record, notes: tuple[Note, ...] = (), up: tuple[Escalation, ...] = ()
) -> Interaction:
    values = dict(row)
    values["agents"] = tuple(values["agents"])
    return Interaction(**values, notes=notes, escalations=up)


# ---------------------------------------------------------------------------------------------- details


async def _upsert(connection: PoolConnection, records: Sequence[_Record]) -> list[asyncpg.Record]:
    body = msgspec.json.encode([record.row() for record in records]).decode()
    rows: list[asyncpg.Record] = await connection.fetch(UPSERT, body)
    return rows


async def _remember_contact(connection: PoolConnection, interactions: list[int]) -> None:
    """Moves the accounts' last contact forward: it ranks those who share a number."""
    if interactions:
        await connection.execute(
            """UPDATE accounts SET last_contact = newest.ended FROM (
                   SELECT account_id, max(ended) AS ended FROM interactions
                   WHERE id = ANY ($1::bigint[]) AND outcome = 'answered' GROUP BY account_id ORDER BY account_id) newest
               WHERE accounts.id = newest.account_id
                 AND (accounts.last_contact IS NULL OR accounts.last_contact < newest.ended)""",
            interactions,
        )


def _take_view(record: _Record, view: CallView) -> None:
    record.direction = view.direction
    record.started = min(record.started, view.started)
    record.ani = plain(view.ani, 128) or record.ani
    record.dnis = plain(view.dnis, 128) or record.dnis
    record.queue = plain(view.queue, 128) or record.queue
    for party in view.connections:  # whose phone only rang has had nothing to do with the customer
        if party.agent is not None and (party.state in _TALKING or view.direction is Direction.OUTBOUND):
            record.agents.setdefault(party.agent)


def _close(record: _Record, fact: CallCleared) -> None:
    record.ended = max(fact.at, record.started)
    record.outcome = fact.outcome if fact.outcome in _SWITCH_SAYS else "failed"
    record.waited, record.talked, record.held = fact.waited, fact.talked, fact.held
    record.queue = record.queue or fact.queue


def _closed(row: asyncpg.Record) -> InteractionClosed:
    return InteractionClosed(
        at=row["ended"],
        call=row["call"],
        interaction=row["id"],
        account_id=row["account_id"],
        agents=tuple(row["agents"]),
        outcome=row["outcome"],
        started=row["started"],
    )


def _noted(note: Note, about: asyncpg.Record) -> InteractionNoted:
    return InteractionNoted(
        at=note.changed or note.created,
        call=about["call"],
        interaction=note.interaction,
        account_id=about["account_id"],
        note=note.id,
        version=note.version,
        author=note.author,
    )


def _note_text(text: str) -> str:
    body = plain_lines(text, LONGEST_NOTE + 1)
    if not body:
        raise WrongText("a note cannot be empty")
    if len(body) > LONGEST_NOTE or len(text) > LONGEST_NOTE * 4:
        raise WrongText(f"a note has at most {LONGEST_NOTE} characters")
    return body


def _one(row: asyncpg.Record | None) -> dict[str, Any]:
    if row is None:
        raise UnknownInteraction
    return dict(row)


def _moment(microseconds: int) -> datetime:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        raise WrongCursor("the cursor cannot be read") from None


def _microseconds(moment: datetime) -> int:
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000 + moment.microsecond
