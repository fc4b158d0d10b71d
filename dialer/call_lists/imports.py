"""Imports: a file's rows made contacts of a list. Resumable, since how far it has come is written with the rows; undoable,
since every contact knows its import; what cannot be taken is kept with its reason, to be repaired and imported again.

`run` is the work itself, for a process of its own: it never holds more than a part of the file and a batch of rows.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import msgspec
from pydantic import ValidationError

from cti.commands import sentence
from cti.database import DatabaseUnavailable, connection, explain
from cti.frozen import Frozen
from cti.plain_text import plain
from dialer.call_lists.columns import Guess, guess
from dialer.call_lists.rows import Bad, Contact, ImportSettings, RowReader
from dialer.call_lists.sheets import Format, Line, csv_line, read_csv
from dialer.call_lists.zones import ZoneGroups
from dialer.candidate import Candidate
from dialer.law.known import NoSuchCampaign, known_for
from dialer.lists import NotPossible, held, touched

if TYPE_CHECKING:
    from cti.database import Connection, Queryable

BATCH = 5_000
"""Rows written in one transaction."""

LARGEST_FILE = 512 << 20
"""Bytes of a file that is taken."""

SAMPLE = 200
"""Rows that the columns are guessed from."""

SHOWN = 20
"""Rows of a preview."""

REASON = "Why not taken"
"""The column that rows given back have more."""

COLUMNS = ("list_id", "import_id", "import_row", "name", "e164", "other_numbers", "person", "account_id", "language",
           "zone_group", "data", "priority")  # fmt: skip

OURS = Format(kind="csv")
"""How files are written that we make ourselves: `as_csv`."""

_LOCK = 0x0C71_0002 << 32


class NoImport(Exception):
    """There is no such import, or it is not of a list of yours."""


class Busy(Exception):
    """Another process is working on this import."""


class ImportView(Frozen, frozen=True, kw_only=True):
    """An import. `state`: uploading, ready (waits to be started), running, done, failed (`why`), cancelled, undone. `done`:
    rows of the file that are through; `added`, `bad` (of which `duplicates`): what became of them. After an undo
    `removed` contacts are gone and `stayed` were kept, for they have been called."""

    id: int
    list: int | None
    file: str
    state: str
    why: str
    bytes: int
    bytes_done: int
    done: int
    added: int
    bad: int
    duplicates: int
    removed: int
    stayed: int
    header: tuple[str, ...]
    format: Format
    settings: ImportSettings | None
    created: datetime
    created_by: str
    started: datetime | None
    ended: datetime | None

    @property
    def share(self) -> float:
        """How much of the file is through, from 0 to 1."""
        return 1.0 if self.state == "done" else min(1.0, self.bytes_done / self.bytes) if self.bytes else 0.0


# ------------------------------------------------------------------------------------------------ the file comes in


async def begin(db: Queryable, file: str, by: str) -> int:
    """Begins an upload and returns the import's id; then `add_part` in order, then `uploaded`."""
    return int(
        await db.fetchval(
            "INSERT INTO list_imports (file, state, created_by) VALUES ($1, 'uploading', $2) RETURNING id",
            plain(file, 200) or "file",
            by,
        )
    )


async def add_part(db: Queryable, id: int, part: int, content: bytes) -> None:
    """Keeps the next part of the file, counted from 0."""
    await db.execute(
        "INSERT INTO list_import_parts (import_id, part, bytes) VALUES ($1, $2, $3)", id, part, content
    )


async def uploaded(db: Queryable, id: int, how: Format, size: int) -> ImportView:
    """The file is there as CSV in this format. Keeps the names of its columns."""
    header = await _sample(db, id, how, 1)
    await db.execute(
        """UPDATE list_imports SET state = 'ready', bytes = $2, format = $3::jsonb, header = $4
           WHERE id = $1 AND state = 'uploading'""",
        *(id, size, msgspec.json.encode(how).decode(), _header(header)),
    )
    return await read(db, id)


def _header(lines: Sequence[Line]) -> list[str]:
    return [plain(cell, 100) for cell in lines[0].cells] if lines else []


async def forget(db: Queryable, id: int) -> None:
    """Drops an upload that has not been started, with its file; nothing happens where it has."""
    await db.execute("DELETE FROM list_imports WHERE id = $1 AND state IN ('uploading', 'ready')", id)


async def sample(db: Queryable, view: ImportView, rows: int = SAMPLE) -> list[Line]:
    """The first rows of an import's file; none once the import is over and the file gone."""
    return await _sample(db, view.id, view.format, rows)


async def _sample(db: Queryable, id: int, how: Format, rows: int) -> list[Line]:
    parts = [
        bytes(row["bytes"])
        for row in await db.fetch(
            "SELECT bytes FROM list_import_parts WHERE import_id = $1 AND part < 2 ORDER BY part", id
        )
    ]
    return list(itertools.islice(read_csv(parts, how), rows))


def guess_settings(lines: Sequence[Line], country: str) -> tuple[Guess, ImportSettings | None]:
    """What the columns probably mean; no settings where no column looks like a phone number."""
    found = guess([line.cells for line in lines if not line.broken], country)
    if not found.sure:
        return found, None
    return found, ImportSettings(columns=list(found.columns), header=found.header, country=country)


class PreviewRow(Frozen, frozen=True, kw_only=True):
    """A row and what would become of it: a number to call with all else, or why it cannot be taken. Whether the number is
    in a list already is only seen when it is written."""

    row: int
    cells: tuple[str, ...]
    why_not: str = ""
    code: str = ""
    name: str = ""
    number: str = ""
    other_numbers: tuple[str, ...] = ()
    person: str = ""
    country: str = ""
    region: str = ""
    zones: tuple[str, ...] = ()
    language: str = ""
    priority: int = 0
    data: dict[str, str] = msgspec.field(default_factory=dict)


def preview(lines: Sequence[Line], settings: ImportSettings, rows: int = SHOWN) -> list[PreviewRow]:
    """What would become of the first rows."""
    reader = RowReader(settings)
    return [_previewed(line, reader.read(line)) for line in lines[1 if settings.header else 0 :][:rows]]


def _previewed(line: Line, found: Contact | Bad) -> PreviewRow:
    cells = tuple(plain(cell, 200) for cell in line.cells)
    if isinstance(found, Bad):
        return PreviewRow(row=line.number, cells=cells, why_not=found.says, code=found.code)
    return PreviewRow(
        row=line.number,
        cells=cells,
        name=found.name,
        number=found.e164,
        other_numbers=tuple(found.others),
        person=found.person,
        country=found.group.country,
        region=found.group.region,
        zones=found.group.zones,
        language=found.language,
        priority=found.priority,
        data=msgspec.json.decode(found.data),
    )


# ------------------------------------------------------------------------------------------------ what is asked and told


_READ = """SELECT id, list_id, file, state, why, bytes, bytes_done, done, added, bad, duplicates, removed, stayed, header,
    format, settings, created, created_by, started, ended FROM list_imports """


async def read(db: Queryable, id: int) -> ImportView:
    """One import; raises NoImport."""
    row = await db.fetchrow(_READ + "WHERE id = $1", id)
    if row is None:
        raise NoImport
    return _view(row)


async def of_list(
    db: Queryable, list_id: int | None, *, by: str | None = None, before: int | None = None, limit: int = 100
) -> list[ImportView]:
    """Imports of one list, of all, or those begun `by` somebody; the newest first, those with an id below `before`."""
    rows = await db.fetch(
        _READ
        + """WHERE ($1::bigint IS NULL OR list_id = $1) AND ($2::bigint IS NULL OR id < $2) AND state <> 'uploading'
               AND ($4::text IS NULL OR created_by = $4)
             ORDER BY id DESC LIMIT $3""",
        *(list_id, before, limit, by),
    )
    return [_view(row) for row in rows]


async def start(db: Queryable, id: int, list_id: int, settings: ImportSettings) -> ImportView:
    """Lets an uploaded file be imported into a list, by whoever works on imports; raises NoImport or NotPossible."""
    view = await read(db, id)
    if len(settings.columns) > 200 or not view.bytes:
        raise NotPossible("not_ready", "the file has not been uploaded whole")
    started = await db.fetchval(
        """UPDATE list_imports SET state = 'running', list_id = $2, settings = $3::jsonb, started = now(), why = ''
           WHERE id = $1 AND state = 'ready' RETURNING id""",
        *(id, list_id, settings.model_dump_json()),
    )
    if started is None:
        raise NotPossible("wrong_state", f"this import is {view.state}: it can be started once")
    return await read(db, id)


async def cancel(db: Queryable, id: int) -> ImportView:
    """Ends a running import where it is: what has been added stays until it is undone. Raises NoImport, NotPossible."""
    view = await read(db, id)
    ended = await db.fetchval(
        """UPDATE list_imports SET state = 'cancelled', ended = now() WHERE id = $1 AND state IN ('ready', 'running')
           RETURNING id""",
        id,
    )
    if ended is None and view.state != "cancelled":
        raise NotPossible("wrong_state", f"this import is {view.state} already")
    await db.execute("DELETE FROM list_import_parts WHERE import_id = $1", id)
    return await read(db, id)


async def give_up(db: Queryable, id: int, why: str) -> None:
    """A running import has failed for good: what has been added stays until it is undone."""
    await db.execute(
        "UPDATE list_imports SET state = 'failed', why = $2, ended = now() WHERE id = $1 AND state = 'running'",
        *(id, plain(why, 500)),
    )


async def undo(db: Connection | Any, id: int, by: str) -> ImportView:
    """Takes the contacts of an import out again, from whatever lists they are in now; those that have been called, or are
    being called, stay and are counted. In a transaction of its own; raises NoImport, NotPossible."""
    async with db.transaction():
        row = await db.fetchrow("SELECT state, list_id FROM list_imports WHERE id = $1 FOR UPDATE", id)
        if row is None:
            raise NoImport
        if row["state"] not in ("done", "failed", "cancelled", "undone"):
            raise NotPossible("wrong_state", f"this import is {row['state']}: cancel it first, then undo it")
        await db.execute("SET LOCAL statement_timeout = 0")
        removed = await db.fetchval(
            """WITH gone AS (
                   DELETE FROM list_contacts c WHERE c.import_id = $1 AND c.state <> 'in_hand' AND c.attempts = 0
                       AND c.last_attempt IS NULL AND NOT EXISTS (SELECT FROM attempts a WHERE a.contact_id = c.id)
                   RETURNING 1)
               SELECT count(*) FROM gone""",
            id,
            timeout=900,
        )
        stayed = await db.fetchval("SELECT count(*) FROM list_contacts WHERE import_id = $1", id, timeout=900)
        await db.execute(
            """UPDATE list_imports SET state = 'undone', removed = removed + $2, stayed = $3, ended = coalesce(ended, now())
               WHERE id = $1""",
            *(id, removed, stayed),
        )
        await db.execute("DELETE FROM list_import_parts WHERE import_id = $1", id)
        if row["list_id"] is not None:
            await touched(db, row["list_id"], by)
    return await read(db, id)


class BadRow(Frozen, frozen=True, kw_only=True):
    """A row that was not taken. `code`: bad_number, no_number, duplicate, ...; `says`: why, for people."""

    row: int
    code: str
    says: str
    cells: tuple[str, ...]


async def bad_rows(
    db: Queryable, id: int, *, after: int = 0, limit: int = 100, code: str | None = None
) -> list[BadRow]:
    """Rows that were not taken, in the order of the file, those after row `after`; of one code if given."""
    rows = await db.fetch(
        """SELECT row, code, says, cells FROM list_bad_rows
           WHERE import_id = $1 AND row > $2 AND ($3::text IS NULL OR code = $3) ORDER BY row LIMIT $4""",
        *(id, after, code, limit),
    )
    return [BadRow(row=r["row"], code=r["code"], says=r["says"], cells=tuple(r["cells"])) for r in rows]


async def bad_rows_csv(db: Queryable, view: ImportView, *, code: str | None = None) -> AsyncIterator[bytes]:
    """The rows that were not taken as CSV, in UTF-8 with its mark, as spreadsheets like it: the file's own columns, and the
    reason as one more, which the next import passes over. No cell of it is a formula."""
    separator = view.format.separator if view.format.separator in ",;\t|" else ","
    columns = view.settings.columns if view.settings else []
    width = max(len(view.header), len(columns))
    header = list(view.header) if view.settings is None or view.settings.header else []
    if REASON in header:  # repaired once and still not right: it says why anew
        width = header.index(REASON)
    names = [header[n] if n < len(header) else _name(columns[n], n) for n in range(width)]
    yield b"\xef\xbb\xbf" + csv_line([*names, REASON], separator)
    after = 0
    while rows := await bad_rows(db, view.id, after=after, limit=1000, code=code):
        after = rows[-1].row
        yield b"".join(
            csv_line(
                [*(row.cells[n] if n < len(row.cells) else "" for n in range(width)), row.says], separator
            )
            for row in rows
        )


def _name(column: str, n: int) -> str:
    return column.removeprefix("data:").replace("_", " ") or f"column {n + 1}"


async def expire(db: Queryable, before: datetime) -> None:
    """Lets go of files that nobody started to import, and of rows not taken by imports that ended before this time."""
    await db.execute(
        "DELETE FROM list_imports WHERE state = 'uploading' AND created < now() - interval '1 day'"
    )
    await db.execute("DELETE FROM list_imports WHERE state = 'ready' AND created < now() - interval '7 days'")
    await db.execute(
        "DELETE FROM list_bad_rows WHERE import_id IN (SELECT id FROM list_imports WHERE ended < $1)", before
    )


async def waiting(db: Queryable) -> list[int]:
    """Running imports that no process works on, the oldest first."""
    rows = await db.fetch(
        """SELECT id FROM list_imports i WHERE state = 'running' AND NOT EXISTS (
               SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND (l.classid::bigint << 32 | l.objid::bigint) = $1::bigint + i.id)
           ORDER BY id""",
        _LOCK,
    )
    return [row["id"] for row in rows]


def _view(row: asyncpg.Record) -> ImportView:
    values = dict(row)
    kept = msgspec.json.decode(values.pop("settings"))
    try:
        settings = ImportSettings.model_validate(kept) if kept else None
    except ValidationError:
        settings = None
    how = values.pop("format")
    return ImportView(
        **{name: value for name, value in values.items() if name not in ("list_id", "header")},
        list=values["list_id"],
        header=tuple(values["header"]),
        format=msgspec.json.decode(how, type=Format) if how != "{}" else Format(kind="csv"),
        settings=settings,
    )


# ------------------------------------------------------------------------------------------------------ the work


class _Batch(NamedTuple):
    """Rows on their way: `last` is the number of the last one; `read`: bytes of the file that have been read."""

    contacts: list[Contact]
    bad: list[Bad]
    last: int
    read: int


class _Stopped(Exception):
    """The import is not running any more, or another process has gone on with it."""


async def run(
    dsn: str, id: int, told: Callable[[ImportView], None] = lambda view: None, batch: int = BATCH
) -> ImportView:
    """Works on a running import until it is through, and returns how it stands; `told` hears of every batch.

    Goes on where a former process has got to. Raises Busy if another one works on it, DatabaseUnavailable when the
    database goes away (call again: nothing is lost, nothing is there twice), NoImport.
    """
    try:
        async with (
            connection(dsn, name="cti import", jit="off") as writer,
            connection(dsn, name="cti import file") as reader,
        ):
            if not await writer.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK + id):
                raise Busy("another process is working on this import")
            view = await read(writer, id)
            if view.state != "running":
                return view
            try:
                await _work(writer, reader, view, told, batch)
            except _Stopped:
                pass
            except NoSuchCampaign:
                await _end(writer, id, "failed", "the campaign whose consent is asked for is gone")
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValidationError) as error:
                why = sentence(error) if isinstance(error, ValidationError) else str(error)
                await _end(writer, id, "failed", plain(why, 500))
            return await read(writer, id)
    except (DatabaseUnavailable, Busy, NoImport):
        raise
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise explain(error, dsn) from error


async def _work(
    writer: Connection, reader: Connection, view: ImportView, told: Callable[[ImportView], None], size: int
) -> None:
    if view.settings is None or view.list is None:
        await _end(
            writer, view.id, "failed", "the settings of this import cannot be read: import the file again"
        )
        return
    batches = _batches(_parts(reader, view.id, asyncio.get_running_loop()), view, size)
    groups = ZoneGroups(writer)
    upcoming = asyncio.create_task(asyncio.to_thread(next, batches, None))
    done = view.done
    try:
        while (found := await upcoming) is not None:
            # The next rows are read while PostgreSQL writes these.
            upcoming = asyncio.create_task(asyncio.to_thread(next, batches, None))
            await _write(writer, view, found, groups, done)
            done = found.last
            told(await read(writer, view.id))
    finally:
        upcoming.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await upcoming
    await _end(writer, view.id, "done", "")


def _parts(reader: Connection, id: int, loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """The file's parts for a thread, each fetched when it is its turn."""
    for part in itertools.count():
        asked = reader.fetchval(
            "SELECT bytes FROM list_import_parts WHERE import_id = $1 AND part = $2", id, part
        )
        found = asyncio.run_coroutine_threadsafe(asked, loop).result()
        if found is None:
            return
        yield bytes(found)


def _batches(parts: Iterator[bytes], view: ImportView, size: int) -> Iterator[_Batch]:
    assert view.settings is not None
    passed = 0

    def counted() -> Iterator[bytes]:
        nonlocal passed
        for part in parts:
            passed += len(part)
            yield part

    reader = RowReader(view.settings)
    lines = read_csv(counted(), view.format)
    if view.settings.header:
        next(lines, None)
    contacts: list[Contact] = []
    bad: list[Bad] = []
    for line in lines:
        if line.number <= view.done:
            continue
        found = reader.read(line)
        if isinstance(found, Contact):
            contacts.append(found)
        else:
            bad.append(found)
        if len(contacts) + len(bad) >= size:
            yield _Batch(contacts, bad, line.number, passed)
            contacts, bad = [], []
    if contacts or bad:
        last = max(rows[-1].row for rows in (contacts, bad) if rows)
        yield _Batch(contacts, bad, last, passed)


async def _write(writer: Connection, view: ImportView, batch: _Batch, groups: ZoneGroups, done: int) -> None:
    """Writes a batch and how far the import has come, in one transaction; raises _Stopped."""
    assert view.settings is not None
    ids = await groups.ids({contact.group for contact in batch.contacts})
    async with writer.transaction():
        if view.list is not None:
            await held(
                writer, view.list
            )  # whoever merges or imports into the same list waits for the next batch
        contacts, twice = await _without_duplicates(writer, view, batch.contacts)
        contacts, unwilling = await _with_consent(writer, view, contacts)
        bad = batch.bad + twice + unwilling
        moved = await writer.fetchval(
            """UPDATE list_imports SET done = $3, bytes_done = $4, added = added + $5, bad = bad + $6,
                   duplicates = duplicates + $7
               WHERE id = $1 AND done = $2 AND state = 'running' RETURNING id""",
            *(view.id, done, batch.last, min(batch.read, view.bytes), len(contacts), len(bad), len(twice)),
        )
        if moved is None:
            raise _Stopped
        await writer.copy_records_to_table(
            "list_contacts",
            columns=COLUMNS,
            records=[_record(view, contact, ids[contact.group]) for contact in contacts],
        )
        if bad:
            await writer.copy_records_to_table(
                "list_bad_rows",
                columns=("import_id", "row", "code", "says", "cells"),
                records=[
                    (view.id, row, code, plain(says, 200), _kept(cells)) for row, code, says, cells in bad
                ],
            )


def _record(view: ImportView, contact: Contact, group: int) -> tuple[Any, ...]:
    return (
        view.list, view.id, contact.row, contact.name, contact.e164, contact.others, contact.person, contact.account,
        contact.language, group, contact.data, contact.priority,
    )  # fmt: skip


def _kept(cells: Sequence[str]) -> list[str]:
    return [cell[:2000].replace("\0", "").encode("utf-8", "replace").decode() for cell in cells]


async def numbers_there(
    db: Queryable, contacts: Sequence[Contact], list_id: int | None, where: str, import_id: int | None = None
) -> dict[str, Any]:
    """Which of their numbers are on lists already, and where: on this list, or on active ones or all, as `duplicates` of the
    settings says."""
    if where == "keep":
        return {}
    rows = await db.fetch(
        """SELECT DISTINCT ON (c.e164) c.e164, c.list_id IS NOT DISTINCT FROM $2::bigint AS own,
               c.import_id = $3::bigint AS same, c.import_row, l.name
           FROM list_contacts c JOIN call_lists l ON l.id = c.list_id
           WHERE c.e164 = ANY($1) AND (c.list_id = $2 OR $4 = 'all' OR ($4 = 'active' AND l.active))
           ORDER BY c.e164, c.list_id = $2 DESC, c.import_id = $3 DESC NULLS LAST, c.id""",
        *([contact.e164 for contact in contacts], list_id, import_id, where),
    )
    return {row["e164"]: row for row in rows}


def candidate_from(contact: Contact) -> Candidate:
    """A contact to be, as the law looks at whom it is, not at the hour: no zones. Its row stands for the id that it has not
    yet."""
    return Candidate(
        contact=contact.row,
        list=0,
        list_version=0,
        e164=contact.e164,
        zone_group=0,
        country=contact.group.country,
        region=contact.group.region,
        zones=(),
        person=contact.person,
    )


async def _with_consent(
    writer: Connection, view: ImportView, contacts: list[Contact]
) -> tuple[list[Contact], list[Bad]]:
    """The contacts who may be called as far as consent goes, and the others as rows not taken; all, where nobody asks."""
    asked = view.settings.consent if view.settings is not None else None
    if asked is None or not contacts:
        return contacts, []
    candidates = [candidate_from(contact) for contact in contacts]
    known = await known_for(writer, candidates, asked.campaign, datetime.now(UTC))
    kept: list[Contact] = []
    unwilling: list[Bad] = []
    for contact in contacts:
        about = known[contact.row]
        if about.consent is not None and not about.consent.given:
            says = f"consent to calls for {about.consent.purpose or 'any purpose'} withdrawn on {about.consent.at:%Y-%m-%d}"
            unwilling.append(Bad(contact.row, "withdrawn", says, contact.cells))
        elif about.consent is None and asked.needed:
            says = f"no consent to calls for {about.purpose}: it is needed"
            unwilling.append(Bad(contact.row, "no_consent", says, contact.cells))
        else:
            kept.append(contact)
    return kept, unwilling


async def _without_duplicates(
    writer: Connection, view: ImportView, contacts: list[Contact]
) -> tuple[list[Contact], list[Bad]]:
    """The contacts whose numbers are not there yet, and the others as rows not taken."""
    assert view.settings is not None
    where = view.settings.duplicates
    if where == "keep":
        return contacts, []
    there = await numbers_there(writer, contacts, view.list, where, view.id)
    first: dict[str, int] = {}
    kept: list[Contact] = []
    twice: list[Bad] = []
    for contact in contacts:
        found = there.get(contact.e164)
        if found is None and contact.e164 not in first:
            first[contact.e164] = contact.row
            kept.append(contact)
            continue
        if found is None:
            says = f"the same number as in row {first[contact.e164]}"
        elif found["same"]:
            says = f"the same number as in row {found['import_row']}"
        else:
            says = (
                "the number is in this list already"
                if found["own"]
                else f"the number is in list {found['name']}"
            )
        twice.append(Bad(contact.row, "duplicate", says, contact.cells))
    return kept, twice


async def _end(writer: Connection, id: int, state: str, why: str) -> None:
    async with writer.transaction():
        list_id = await writer.fetchval(
            """UPDATE list_imports SET state = $2, why = $3, ended = now(),
                   bytes_done = CASE WHEN $2 = 'done' THEN bytes ELSE bytes_done END
               WHERE id = $1 AND state = 'running' RETURNING list_id""",
            *(id, state, why),
        )
        await writer.execute("DELETE FROM list_import_parts WHERE import_id = $1", id)
        if list_id is not None:
            by = await writer.fetchval("SELECT created_by FROM list_imports WHERE id = $1", id)
            await touched(writer, list_id, by)
