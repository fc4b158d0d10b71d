"""The database: a pool of connections to PostgreSQL, and its schema brought up to date. Knows no table but its own.

Migrations are plain SQL files `NNNN_words.sql` in `cti/migrations`, forward only; each is applied once, in a
transaction of its own, and never changed after that.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import structlog

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record]
    PoolConnection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Queryable = Pool | Connection | PoolConnection

log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
OLDEST_POSTGRESQL = 16

_MIGRATION_LOCK = 0x0C71_0001
_MIGRATION_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_MIGRATION_WAIT = 60.0


class DatabaseUnavailable(Exception):
    """The database cannot be used; the message is one sentence with what to change. `passing`: it may heal by itself."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


AWAY = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(DatabaseUnavailable, OSError),
)
"""What a database raises that cannot do what was asked now: TimeoutError is an OSError; asyncpg calls a connection that is
ended in the middle of a question an internal error."""


class MigrationFailed(Exception):
    """The schema cannot be brought up to date; files applied before stay, the failing one changed nothing."""


def address_of(dsn: str) -> str:
    """Returns `host:port/database` of a DSN for messages and logs: never the user's name or password."""
    try:
        parts = urlsplit(dsn)
        host = parts.hostname or "the local socket"
        return f"{host}:{parts.port or 5432}/{parts.path.lstrip('/') or 'postgres'}"
    except ValueError:
        return "the database"


def explain(error: BaseException, dsn: str) -> DatabaseUnavailable:
    """Turns what a connection attempt raised into one sentence with what to do about it."""
    where = address_of(dsn)
    match error:
        case DatabaseUnavailable():
            return error
        case asyncpg.InvalidPasswordError():
            return DatabaseUnavailable(
                f"PostgreSQL at {where} refuses the user name or password; check both in CTI_DATABASE_URL."
            )
        case asyncpg.InvalidAuthorizationSpecificationError():
            return DatabaseUnavailable(
                f"PostgreSQL at {where} does not let this user in from here ({_said(error)}); check pg_hba.conf."
            )
        case asyncpg.InvalidCatalogNameError():
            return DatabaseUnavailable(f"There is no database at {where}; create it with createdb.")
        case asyncpg.CannotConnectNowError():
            return DatabaseUnavailable(
                f"PostgreSQL at {where} is starting up or shutting down.", passing=True
            )
        case asyncpg.TooManyConnectionsError():
            return DatabaseUnavailable(
                f"PostgreSQL at {where} has no connection left; raise max_connections or lower CTI_DATABASE_POOL.",
                passing=True,
            )
        case ssl.SSLError():
            return DatabaseUnavailable(
                f"No TLS connection to PostgreSQL at {where} ({error.reason}); check sslmode and its certificate."
            )
        case TimeoutError():
            return DatabaseUnavailable(
                f"PostgreSQL at {where} does not answer; check the address and the firewall.", passing=True
            )
        case OSError():
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or _said(error)
            return DatabaseUnavailable(
                f"PostgreSQL at {where} cannot be reached ({reason}); check that it runs and CTI_DATABASE_URL.",
                passing=True,
            )
        case asyncpg.PostgresConnectionError() | asyncpg.AdminShutdownError() | asyncpg.CrashShutdownError():
            return DatabaseUnavailable(f"The connection to PostgreSQL at {where} broke off.", passing=True)
        case asyncpg.PostgresError():
            return DatabaseUnavailable(f"PostgreSQL at {where} refused: {_said(error)}.")
        case asyncpg.InterfaceError() if not isinstance(error, ValueError):
            return DatabaseUnavailable(f"The connection to PostgreSQL at {where} broke off.", passing=True)
        case ValueError() | TypeError() | OverflowError():
            return _not_an_address()
        case _:
            return DatabaseUnavailable(f"PostgreSQL at {where} cannot be used: {_said(error)}.")


def _not_an_address() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "CTI_DATABASE_URL is not the address of a PostgreSQL database; "
        "it looks like postgresql://user:password@host:5432/database."
    )


def _said(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


@asynccontextmanager
async def connection(
    dsn: str, *, name: str, timeout: float = 5.0, **server: str
) -> AsyncIterator[Connection]:
    """Lends a connection of its own, for what must not share one. Raises DatabaseUnavailable if it cannot be had."""
    conn = await connect(dsn, name=name, timeout=timeout, **server)
    try:
        yield conn
    finally:
        with suppress(Exception):
            await conn.close(timeout=2)


async def connect(dsn: str, *, name: str, timeout: float = 5.0, **server: str) -> Connection:
    """Opens a connection that the caller closes; `server` are its settings. Raises DatabaseUnavailable."""
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise _not_an_address()
    try:
        async with asyncio.timeout(timeout):
            conn = await asyncpg.connect(
                dsn, server_settings={"application_name": name, "timezone": "UTC", **server}
            )
    except Exception as error:
        raise explain(error, dsn) from error
    try:
        _require_version(conn, dsn)
    except DatabaseUnavailable:
        await conn.close(timeout=2)
        raise
    return conn


def _require_version(conn: Connection | PoolConnection, dsn: str) -> None:
    version = conn.get_server_version()
    if version.major < OLDEST_POSTGRESQL:
        raise DatabaseUnavailable(
            f"PostgreSQL at {address_of(dsn)} is version {version.major}; {OLDEST_POSTGRESQL} or newer is needed."
        )


async def _as_it_is(_connection: object) -> None:
    """Nobody here changes a session's settings, listens or keeps locks: to have that undone would be a round trip lost."""


@asynccontextmanager
async def patiently(db: Queryable, seconds: float) -> AsyncIterator[Connection | PoolConnection]:
    """Lends a connection in a transaction whose statements may take so long, whatever the pool's limit is: for what counts
    millions of rows. Say the same `timeout` with each query, for the pool's own waits less. Who is in a transaction stays
    in it, with this limit to its end."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(db.acquire(timeout=5)) if isinstance(db, asyncpg.Pool) else db
        await stack.enter_async_context(one.transaction())
        await one.execute("SELECT set_config('statement_timeout', $1, true)", f"{seconds * 1000:.0f}")
        yield one


class Database:
    """A pool of connections that outlives restarts of PostgreSQL.

    `healthy` says whether the last probe was answered; probes run every `probe_every` seconds, more often while it is
    down and at once after `look`. `since` is when that last changed, and `on_change` is called then. Statements end after
    `statement_timeout` seconds, so no query holds a connection for ever.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size: int = 8,
        statement_timeout: float = 15.0,
        probe_every: float = 5.0,
        application_name: str = "cti",
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.since = datetime.now(UTC)
        self._look = asyncio.Event()
        self._dsn = dsn
        self._size = max(2, size)
        self._statement_timeout = statement_timeout
        self._probe_every = probe_every
        self._name = application_name
        self._pool: Pool | None = None
        self._prober: asyncio.Task[None] | None = None
        self.healthy = False

    @property
    def pool(self) -> Pool:
        """The pool; raises DatabaseUnavailable before `open` and after `close`."""
        if self._pool is None:
            raise DatabaseUnavailable("The database is not open.")
        return self._pool

    async def open(self, *, wait: float = 0.0) -> None:
        """Connects, trying again for `wait` seconds while PostgreSQL is out of reach or starting.

        Raises DatabaseUnavailable; what no waiting heals (wrong password, no such database, too old) at once.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        pause = 0.25
        while True:
            try:
                await self._open_once()
                break
            except DatabaseUnavailable as error:
                left = deadline - loop.time()
                if not error.passing or left <= 0:
                    raise
                log.warning("waiting for the database", why=str(error), seconds_left=round(left, 1))
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 2, 5.0)
        self.healthy = True
        self._prober = asyncio.create_task(self._probe(), name="database probe")

    async def _open_once(self) -> None:
        async with connection(self._dsn, name=self._name):
            pass  # tells a wrong password, an old server and the like apart before a pool hides them
        milliseconds = str(int(self._statement_timeout * 1000))
        try:
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=2,
                max_size=self._size,
                timeout=5.0,
                command_timeout=self._statement_timeout + 5.0,
                max_inactive_connection_lifetime=300.0,
                reset=_as_it_is,
                server_settings={
                    "application_name": self._name,
                    "timezone": "UTC",
                    "jit": "off",
                    "statement_timeout": milliseconds,
                    "idle_in_transaction_session_timeout": "30000",
                },
            )
        except Exception as error:
            raise explain(error, self._dsn) from error

    async def close(self) -> None:
        """Gives running queries five seconds, then ends them. May be called twice."""
        if self._prober is not None:
            self._prober.cancel()
            with suppress(asyncio.CancelledError):
                await self._prober
            self._prober = None
        pool, self._pool = self._pool, None
        self.healthy = False
        if pool is not None:
            try:
                async with asyncio.timeout(5):
                    await pool.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()

    def look(self) -> None:
        """Somebody has trouble with the database: probes it at once."""
        self._look.set()

    async def _probe(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    self._probe_every if self.healthy else min(1.0, self._probe_every)
                ):
                    await self._look.wait()
            try:
                async with asyncio.timeout(3):
                    await self.pool.fetchval("SELECT 1")
            except Exception as error:
                if self.healthy:
                    log.error("database lost", why=str(explain(error, self._dsn)))
                self._is(False)
            else:
                if not self.healthy:
                    log.info("database back")
                self._is(True)
            self._look.clear()

    def _is(self, healthy: bool) -> None:
        if healthy == self.healthy:
            return
        self.healthy, self.since = healthy, datetime.now(UTC)
        try:
            self.on_change()
        except Exception:
            log.exception("the database's state could not be told")


@dataclass(frozen=True, slots=True)
class Migration:
    """A file of the schema: its name, its text, and a checksum that line endings do not change."""

    name: str
    sql: str
    checksum: str


def migrations_in(folder: Path) -> list[Migration]:
    """Reads the migrations of a folder in their order; raises MigrationFailed if a name is wrong or a number taken twice."""
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        if not _MIGRATION_NAME.fullmatch(path.name):
            raise MigrationFailed(
                f"{path.name}: a migration is named NNNN_words.sql, in lower case letters and digits."
            )
        if found and found[-1].name[:4] == path.name[:4]:
            raise MigrationFailed(f"{path.name} and {found[-1].name} have the same number.")
        sql = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        found.append(Migration(path.name, sql, hashlib.sha256(sql.encode()).hexdigest()))
    return found


async def migrate(dsn: str, *, folder: Path = MIGRATIONS, timeout: float = _MIGRATION_WAIT) -> list[str]:
    """Brings the schema up to date; returns the names of the files it applied, none when it was up to date.

    Any number of programs may run it at once: one works, the others wait up to `timeout` seconds for it. Raises
    DatabaseUnavailable, or MigrationFailed when a file fails, an applied file was changed, or the database has been
    migrated by a newer program.
    """
    migrations = await asyncio.to_thread(migrations_in, folder)
    lock_timeout = str(max(1, int(timeout * 1000)))
    async with connection(
        dsn, name="cti migrate", lock_timeout=lock_timeout, client_min_messages="warning"
    ) as conn:
        try:
            await conn.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        except asyncpg.LockNotAvailableError:
            raise DatabaseUnavailable(
                f"Another program has been changing the schema of {address_of(dsn)} for more than {timeout:.0f} seconds.",
                passing=True,
            ) from None
        try:
            return await _apply(conn, migrations)
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
            raise explain(error, dsn) from error


async def _apply(conn: Connection, migrations: list[Migration]) -> list[str]:
    await conn.execute(
        """CREATE TABLE IF NOT EXISTS schema_migrations (
               name text PRIMARY KEY, checksum text NOT NULL, applied timestamptz NOT NULL DEFAULT now())"""
    )
    rows = await conn.fetch("SELECT name, checksum FROM schema_migrations")
    applied: dict[str, str] = {row["name"]: row["checksum"] for row in rows}
    if unknown := sorted(applied.keys() - {m.name for m in migrations}):
        raise MigrationFailed(
            f"The database has been migrated by a newer version of this program ({', '.join(unknown)}): upgrade it."
        )
    for migration in migrations:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationFailed(
                f"{migration.name} was changed after it had been applied to this database: "
                "restore the file and put the change into a new one."
            )
    done: list[str] = []
    for migration in migrations:
        if migration.name in applied:
            continue
        try:
            async with conn.transaction():
                await conn.execute(migration.sql)
                await conn.execute(
                    "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)",
                    migration.name,
                    migration.checksum,
                )
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError as error:
            raise MigrationFailed(
                f"{migration.name}{_line(migration.sql, error)}: {_said(error)}."
            ) from error
        log.info("migration applied", migration=migration.name)
        done.append(migration.name)
    return done


def _line(sql: str, error: asyncpg.PostgresError) -> str:
    position = getattr(error, "position", None)
    return f", line {sql.count(chr(10), 0, int(position)) + 1}" if position else ""
