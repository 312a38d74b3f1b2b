"""Migrations of the schema.

- What the release knows are exactly Alembic's steps, in one line.
- From each released version, with data in its tables: everything is still there and the new things answer.
- Two that migrate at once take turns.
- A step that the database refuses is one clear line, and what was done before it stays.
- A step whose table others use makes way for them, names who holds it, and is done once they are gone.
- A schema older than the release is refused by name; a newer one is read on.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.script import ScriptDirectory
from consumer_market import quote, trade
from consumer_session import Session
from consumer_support import differences, everything, rows
from psycopg import sql
from structlog.testing import capture_logs

from marketfeed_consumers.database import connections, schema
from marketfeed_consumers.database.migrations import upgrade
from marketfeed_devtools.waiting import until
from marketfeed_service.errors import StartupError

VERSIONS = schema.versions()
HEAD = VERSIONS[-1]


def test_migration_versions_are_ordered_by_file_name() -> None:
    script = ScriptDirectory.from_config(upgrade.config())
    steps = [step.revision for step in script.walk_revisions()]
    assert steps[::-1] == VERSIONS
    assert script.get_heads() == [HEAD]


def at_version(url: str, version: str) -> None:
    connection, dialect = connections.connect(url)
    connection.close()
    upgrade.to_version(url, dialect, version)


@pytest.mark.integration
@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_migration_from_a_released_version_keeps_its_data(server, version: str) -> None:
    """Filled by a consumer's transactions, so that every table of the old schema has rows."""
    url, model = server.new_database(), server.new_database()
    at_version(url, version)
    assert schema.stored_version(url) == version
    schema.migrate(model, 10)
    session = Session(model)
    session.acquire_leases()
    session.write(
        *(trade(i, s) for i in range(400) if i % 50 for s in ("A", "B")),
        *(quote(i, "A") for i in range(9)),
        b"junk",
    )
    session.writer.close()
    copy_tables(model, url)
    before = everything(model)
    assert all(before.values())
    with pytest.raises(StartupError, match=f"at version {version}, this release needs {HEAD}"):
        checked(url)
    assert schema.migrate(url, 10) == (version, HEAD)
    checked(url)
    assert everything(url) == before
    session = Session(url)
    session.acquire_leases()
    session.write(*(trade(i, "A") for i in range(400, 500)), trade(50, "B"))
    session.writer.close()
    assert differences(url) == {}
    ((count,),) = rows(url, "SELECT sum(trade_count)::bigint FROM candles_1d WHERE symbol = 'A'")
    assert count == 392 + 100
    assert rows(url, "SELECT symbol, update_id FROM latest_quotes") == [("A", 8)]


def copy_tables(source: str, target: str) -> None:
    """Copy all rows, in the columns of the older schema of `target`."""
    columns = """
        SELECT table_name, array_agg(column_name::text) FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name IN
            (SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE')
            AND table_name <> %s
        GROUP BY table_name
    """
    with psycopg.connect(source) as old, psycopg.connect(target) as new:
        for table, names in new.execute(columns, [schema.VERSION_TABLE]).fetchall():
            listed = sql.SQL(", ").join(map(sql.Identifier, names))
            copy = sql.SQL("COPY {} ({}) {}")
            out = copy.format(sql.Identifier(table), listed, sql.SQL("TO STDOUT"))
            into = copy.format(sql.Identifier(table), listed, sql.SQL("FROM STDIN"))
            with old.cursor().copy(out) as reading, new.cursor().copy(into) as writing:
                for piece in reading:
                    writing.write(piece)


def checked(url: str) -> None:
    connection, _ = connections.connect(url)
    with connection:
        schema.check(connection)


@pytest.mark.integration
@pytest.mark.parametrize("begin", [None, *VERSIONS])
def test_migration_runs_one_at_a_time(server, begin: str | None) -> None:
    url = server.new_database()
    if begin:
        at_version(url, begin)
    with ThreadPoolExecutor(4) as threads:
        moves = [future.result(60) for future in [threads.submit(schema.migrate, url, 30) for _ in range(4)]]
    assert {after for _, after in moves} == {HEAD}
    assert sorted(before or "" for before, _ in moves) == sorted([begin or "", HEAD, HEAD, HEAD])
    checked(url)


@pytest.mark.integration
def test_migration_step_that_fails_is_a_one_line_error(postgres) -> None:
    """A foreign view has the name of one of the schema; once it is dropped, the same command succeeds."""
    url = postgres.new_database()
    at_version(url, "0001")
    with psycopg.connect(url) as other:
        other.execute("CREATE VIEW candles_1d AS SELECT 1 AS mine")
    with pytest.raises(StartupError, match=r"the migration failed: .*candles_1d.*SQLSTATE 42P07"):
        schema.migrate(url, 10)
    assert schema.stored_version(url) == "0001"
    with psycopg.connect(url) as other:
        other.execute("DROP VIEW candles_1d")
    assert schema.migrate(url, 10) == ("0001", HEAD)


@pytest.mark.integration
def test_migration_without_permission_is_a_one_line_error(postgres) -> None:
    url = postgres.new_database()
    role = sql.Identifier(f"reader_{url.split('/')[3].split('?')[0]}")
    with psycopg.connect(url) as other:
        other.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    mine = url.replace("postgres@", f"{role.as_string()[1:-1]}@")
    with pytest.raises(StartupError, match=r"the migration failed: permission denied for schema public"):
        schema.migrate(mine, 10)


@pytest.mark.integration
def test_migration_leaves_a_newer_schema_unchanged(database: str) -> None:
    with psycopg.connect(database) as other:
        other.execute("UPDATE marketfeed_schema_version SET version_num = '9999'")
    checked(database)
    assert schema.migrate(database, 10) == ("9999", "9999")


@pytest.mark.integration
def test_migration_of_a_table_in_use_names_the_holder_and_lets_others_through(postgres) -> None:
    """Regression: it waited without bound and log, and readers and writers queued behind it."""
    url = postgres.new_database()
    at_version(url, "0002")
    holder = psycopg.connect(url, application_name="pg_dump")
    holder.execute("SELECT count(*) FROM trade_gaps")
    with (
        ThreadPoolExecutor(1) as threads,
        psycopg.connect(url, autocommit=True) as reader,
        capture_logs() as logged,
    ):
        reader.execute("SET lock_timeout = '5s'")
        migrating = threads.submit(schema.migrate, url, 60)

        def holder_lines() -> list[dict[str, object]]:
            reader.execute("SELECT count(*) FROM trade_gaps")  # waits no longer than the step
            return [line for line in logged if line["event"] == "waiting for a lock of the migration"]

        (line,) = until(holder_lines, "the holder to be named")
        assert line["tables"] == "trade_gaps"
        assert re.fullmatch(
            rf"held by pid {holder.info.backend_pid} \(pg_dump, idle in transaction, transaction open for \d+ s\) "
            r"on .*trade_gaps.*",
            str(line["holders"]),
        )
        assert not migrating.done()
        holder.rollback()
        assert migrating.result(60) == ("0002", HEAD)
    holder.close()


@pytest.mark.integration
def test_migration_gives_up_after_its_deadline_and_can_be_run_again(postgres) -> None:
    url = postgres.new_database()
    at_version(url, "0002")
    with psycopg.connect(url, application_name="report") as holder:
        holder.execute("SELECT count(*) FROM trade_gaps")
        with pytest.raises(
            StartupError, match=r"no lock on trade_gaps within 1 s; held by pid \d+ \(report, .*again"
        ):
            schema.migrate(url, 1)
    assert schema.stored_version(url) == "0002"
    assert schema.migrate(url, 10) == ("0002", HEAD)


@pytest.mark.integration
def test_migration_with_two_version_rows_is_one_clear_line(database: str) -> None:
    with psycopg.connect(database) as other:
        other.execute("INSERT INTO marketfeed_schema_version VALUES ('0002')")
    for action in (lambda: schema.migrate(database, 10), lambda: checked(database)):
        with pytest.raises(StartupError, match=f"has 2 versions, 0002, {HEAD}, and must have one") as caught:
            action()
        assert "\n" not in str(caught.value)
