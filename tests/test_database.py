"""Opening the database and bringing its schema up to date, with everything that can be wrong."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cti.database import MIGRATIONS, Database, DatabaseUnavailable, MigrationFailed, migrate, migrations_in
from cti.embedded.place import free_ports, remove_folder
from cti.embedded.postgres import Postgres
from tests.folders import quick_folder


def write(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(sql)
    return folder


async def tables(dsn: str) -> set[str]:
    conn = await asyncpg.connect(dsn)
    rows = await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await conn.close()
    return {row[0] for row in rows} - {"schema_migrations"}


# --- migrations -----------------------------------------------------------------------------------------------------


async def test_three_programs_at_once_apply_our_schema_once(database: str) -> None:
    applied = await asyncio.gather(*(migrate(database) for _ in range(3)))
    names = [m.name for m in migrations_in(MIGRATIONS)]
    assert sorted(applied, key=len) == [[], [], names]
    assert {"journal", "users", "audit"} <= await tables(database)
    assert await migrate(database) == []


async def test_files_are_applied_in_order_and_later_ones_later(database: str, tmp_path: Path) -> None:
    write(tmp_path, m0002_b="ALTER TABLE a ADD b int", m0001_a="CREATE TABLE a (x int)")
    assert await migrate(database, folder=tmp_path) == ["0001_a.sql", "0002_b.sql"]
    write(tmp_path, m0010_c="CREATE TABLE c (x int); -- several\nCREATE TABLE d (x text DEFAULT ';')")
    assert await migrate(database, folder=tmp_path) == ["0010_c.sql"]
    write(tmp_path, m0003_e="CREATE TABLE e (x int)")
    assert await migrate(database, folder=tmp_path) == ["0003_e.sql"], (
        "another part's numbers come in between"
    )
    assert await tables(database) == {"a", "c", "d", "e"}


async def test_a_changed_file_is_told_and_line_endings_are_no_change(database: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="CREATE TABLE a (x int);\n")
    await migrate(database, folder=tmp_path)
    (tmp_path / "0001_a.sql").write_bytes(b"CREATE TABLE a (x int);\r\n")
    assert await migrate(database, folder=tmp_path) == []
    write(tmp_path, m0001_a="CREATE TABLE a (x bigint);\n", m0002_b="CREATE TABLE b (x int)")
    with pytest.raises(MigrationFailed, match=r"0001_a\.sql was changed.*restore the file"):
        await migrate(database, folder=tmp_path)
    assert await tables(database) == {"a"}


async def test_a_database_of_a_newer_program_is_told(database: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="CREATE TABLE a (x int)", m0002_b="CREATE TABLE b (x int)")
    await migrate(database, folder=tmp_path)
    (tmp_path / "0002_b.sql").unlink()
    with pytest.raises(MigrationFailed, match=r"newer version.*0002_b\.sql.*upgrade"):
        await migrate(database, folder=tmp_path)


async def test_a_failing_file_changes_nothing_and_names_its_line(database: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        m0001_a="CREATE TABLE a (x int)",
        m0002_b="CREATE TABLE b (x int);\n\nCREATE TABLE c (x nonsense);",
    )
    with pytest.raises(MigrationFailed, match=r'^0002_b\.sql, line 3: type "nonsense" does not exist\.$'):
        await migrate(database, folder=tmp_path)
    assert await tables(database) == {"a"}
    write(tmp_path, m0002_b="CREATE TABLE b (x int);")
    assert await migrate(database, folder=tmp_path) == ["0002_b.sql"]


@pytest.mark.parametrize("name", ["1_a.sql", "0001-a.sql", "0001_A.sql", "a.sql"])
async def test_a_file_with_another_name_is_told(database: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationFailed, match=re.escape(name)):
        await migrate(database, folder=tmp_path)


async def test_a_number_is_used_once(database: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="SELECT 1", m0001_b="SELECT 1")
    with pytest.raises(MigrationFailed, match="same number"):
        await migrate(database, folder=tmp_path)


async def test_a_runner_that_hangs_is_waited_for_and_then_told(database: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="SELECT pg_sleep(0.4)")
    slow = asyncio.create_task(migrate(database, folder=tmp_path))
    conn = await asyncpg.connect(database)
    while not await conn.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"):
        await asyncio.sleep(0.005)
    await conn.close()
    with pytest.raises(DatabaseUnavailable, match="Another program"):
        await migrate(database, folder=tmp_path, timeout=0.05)
    assert await migrate(database, folder=tmp_path) == []
    assert await slow == ["0001_a.sql"]


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said", "passing"),
    [
        ((r"/t_\w+$", "/nothing"), r"no database at 127\.0\.0\.1:\d+/nothing; create it", False),
        ((r"//cti:[^@]*@", "//cti:wrongsecret@"), "user name or password", False),
        ((r"//cti:", "//stranger:"), "user name or password", False),
        ((r":\d+/", f":{free_ports(1)[0]}/"), r"cannot be reached \(Connection refused\)", True),
        ((r"@127\.0\.0\.1", "@name.invalid"), "cannot be reached", True),
        ((r"^postgresql", "mysql"), "not the address of a PostgreSQL", False),
        ((r"^.*$", ""), "not the address of a PostgreSQL", False),
        ((r":\d+/", ":99999999/"), "not the address of a PostgreSQL", False),
        ((r"$", "?sslmode=verify-full"), ".", None),
    ],
)
async def test_each_trouble_is_one_sentence_without_a_secret(
    database: str, change: tuple[str, str], said: str, passing: bool | None
) -> None:
    dsn = re.sub(*change, database, count=1)
    for attempt in (Database(dsn).open(), migrate(dsn)):
        with pytest.raises(DatabaseUnavailable, match=said) as caught:
            await attempt
        text = str(caught.value)
        assert "\n" not in text
        assert text.endswith(".")
        assert "wrongsecret" not in text
        assert re.sub(r".*//cti:([^@]*)@.*", r"\1", database) not in text
        if passing is not None:
            assert caught.value.passing is passing


async def test_an_old_postgresql_is_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti.database.OLDEST_POSTGRESQL", 99)
    with pytest.raises(DatabaseUnavailable, match=r"is version \d+; 99 or newer"):
        await Database(database).open(wait=10)


async def test_the_pool_serves_and_bounds_statements(database: str) -> None:
    db = Database(database, statement_timeout=0.2, application_name="cti test")
    with pytest.raises(DatabaseUnavailable, match="not open"):
        _ = db.pool
    await db.open()
    assert db.healthy
    assert await db.pool.fetchval("SHOW jit") == "off"
    assert await db.pool.fetchval("SHOW application_name") == "cti test"
    with pytest.raises(asyncpg.QueryCanceledError):
        await db.pool.execute("SELECT pg_sleep(5)")
    await db.close()
    await db.close()
    assert not db.healthy


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    folder = quick_folder("cti-pg-")
    server = Postgres(folder / "data", durable=False)
    server.start()
    yield server
    server.stop()
    remove_folder(folder)


async def until(true: Any, *, within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.01)


async def test_a_database_that_comes_up_later_and_goes_away_in_between(own_postgres: Postgres) -> None:
    dsn = own_postgres.dsn
    own_postgres.stop()
    db = Database(dsn, probe_every=0.05)
    with pytest.raises(DatabaseUnavailable):
        await db.open(wait=0.3)
    opening = asyncio.create_task(db.open(wait=30))
    await asyncio.sleep(0)
    await asyncio.to_thread(own_postgres.start)
    await opening
    assert db.healthy
    told: list[bool] = []
    db.on_change = lambda: told.append(db.healthy)
    await asyncio.to_thread(own_postgres.kill)
    await until(lambda: told == [False])
    await asyncio.to_thread(own_postgres.start)
    await until(lambda: told == [False, True])
    assert await db.pool.fetchval("SELECT 1") == 1
    await db.close()
