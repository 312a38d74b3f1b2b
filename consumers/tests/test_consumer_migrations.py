"""The schema's versions.

- What the release knows are exactly Alembic's steps, in one line.
- From each released version, with data in its tables: everything is still there and the new things answer.
- Two that migrate at once take turns.
- A step that the database refuses is one clear line, and what was done before it stays.
- A schema older than the release is refused by name; a newer one is read on.
"""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.script import ScriptDirectory
from consumer_market import quote, trade
from consumer_session import Session
from consumer_support import differences, everything, rows
from psycopg import sql

from marketfeed_chassis.errors import StartupError
from marketfeed_consumers import database, schema
from marketfeed_consumers.migrations import upgrade

VERSIONS = schema.versions()
HEAD = VERSIONS[-1]


def test_the_file_names_tell_the_steps_and_their_order() -> None:
    script = ScriptDirectory.from_config(upgrade.config())
    steps = [step.revision for step in script.walk_revisions()]
    assert steps[::-1] == VERSIONS
    assert script.get_heads() == [HEAD]


def at_version(url: str, version: str) -> None:
    connection, dialect = database.connect(url)
    connection.close()
    upgrade.to_version(url, dialect, version)


@pytest.mark.integration
@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_a_released_version_is_brought_up_with_its_data(server, version: str) -> None:
    """Filled by a consumer's transactions, so every table of the old schema holds something."""
    url = server.new_database()
    at_version(url, version)
    assert schema.stored_version(url) == version
    old = Session(url)
    old.claim()
    old.write(
        *(trade(i, s) for i in range(400) if i % 50 for s in ("A", "B")),
        *(quote(i, "A") for i in range(9)),
        b"junk",
    )
    before = everything(url)
    assert all(before.values())
    with pytest.raises(StartupError, match=f"at version {version}, this release needs {HEAD}"):
        checked(url)
    assert schema.migrate(url, 10) == (version, HEAD)
    checked(url)
    assert everything(url) == before
    # The consumer that ran on the old schema goes on: migrations are online.
    old.write(*(trade(i, "A") for i in range(400, 500)), trade(50, "B"))
    old.writer.close()
    assert differences(url) == {}
    ((count,),) = rows(url, "SELECT sum(trade_count)::bigint FROM candles_1d WHERE symbol = 'A'")
    assert count == 392 + 100
    assert rows(url, "SELECT symbol, update_id FROM latest_quotes") == [("A", 8)]


def checked(url: str) -> None:
    connection, _ = database.connect(url)
    with connection:
        schema.check(connection)


@pytest.mark.integration
@pytest.mark.parametrize("begin", [None, *VERSIONS])
def test_two_that_migrate_at_once_take_turns(server, begin: str | None) -> None:
    url = server.new_database()
    if begin:
        at_version(url, begin)
    with ThreadPoolExecutor(4) as threads:
        moves = [future.result(60) for future in [threads.submit(schema.migrate, url, 30) for _ in range(4)]]
    assert {after for _, after in moves} == {HEAD}
    assert sorted(before or "" for before, _ in moves) == sorted([begin or "", HEAD, HEAD, HEAD])
    checked(url)


@pytest.mark.integration
def test_a_step_that_is_refused_is_told_in_one_line(postgres) -> None:
    """Somebody else's view stands where ours would go; once it is away, the same command does it."""
    url = postgres.new_database()
    at_version(url, "0001")
    with psycopg.connect(url) as other:
        other.execute("CREATE VIEW candles_1d AS SELECT 1 AS mine")
    with pytest.raises(StartupError, match=r"the migration was refused: .*candles_1d.*SQLSTATE 42P07"):
        schema.migrate(url, 10)
    assert schema.stored_version(url) == "0001"
    with psycopg.connect(url) as other:
        other.execute("DROP VIEW candles_1d")
    assert schema.migrate(url, 10) == ("0001", HEAD)


@pytest.mark.integration
def test_a_user_who_may_not_create_tables_is_told_so(postgres) -> None:
    url = postgres.new_database()
    role = sql.Identifier(f"reader_{url.split('/')[3].split('?')[0]}")
    with psycopg.connect(url) as other:
        other.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    mine = url.replace("postgres@", f"{role.as_string()[1:-1]}@")
    with pytest.raises(StartupError, match=r"the migration was refused: permission denied for schema public"):
        schema.migrate(mine, 10)


@pytest.mark.integration
def test_a_newer_schema_is_read_on_and_never_taken_back(database: str) -> None:
    with psycopg.connect(database) as other:
        other.execute("UPDATE marketfeed_schema_version SET version_num = '9999'")
    checked(database)
    assert schema.migrate(database, 10) == ("9999", "9999")
