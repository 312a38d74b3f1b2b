"""Behind PgBouncer in transaction mode: transactions use different sessions, which other clients share."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from consumer_market import quote, trade
from consumer_session import Session
from consumer_support import differences, rows, stored
from psycopg import sql
from structlog.testing import capture_logs

from marketfeed_cli.embedded import postgres as embedded
from marketfeed_consumers.database import connections as databases
from marketfeed_consumers.database import schema
from marketfeed_devtools.ports import free_ports
from marketfeed_devtools.skipping import skip_or_fail
from marketfeed_devtools.waiting import until
from marketfeed_service.errors import StartupError

pytestmark = pytest.mark.integration

SESSIONS = 3
"""PostgreSQL sessions, fewer than clients, so that they are shared."""
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
HOSTILE = (
    "SET array_nulls = off",
    "SET search_path = nowhere",
    "SET enable_seqscan = on",
    "SET standard_conforming_strings = off",
    "SET bytea_output = escape",
    "SET datestyle = German",
    "SET intervalstyle = sql_standard",
    "SET timezone = 'Asia/Kolkata'",
    "SET extra_float_digits = -5",
    "SET statement_timeout = '200ms'",
    "SET lock_timeout = '200ms'",
    "SET idle_in_transaction_session_timeout = '200ms'",
    "PREPARE _pg3_0 AS SELECT 1",
)
"""Settings that another client of the pooler leaves in a session."""
DEFAULTS = (
    "SET default_transaction_isolation = 'read committed'",
    "SET default_transaction_deferrable = on",
    "SET escape_string_warning = on",
)
"""Further settings that a database or role may have."""


class PgBouncer:
    """A running pooler; `url` converts the URL of a database of the server behind it."""

    def __init__(
        self, folder: Path, server: Path, password: str = "", auth_type: str = "scram-sha-256"
    ) -> None:
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            skip_or_fail("pgbouncer is not installed (Debian: pgbouncer)")
        (self.port,) = free_ports(1)
        self._program, self._ini, self._log = program, folder / "ini", folder / "log"
        self._password = f":{password}" if password else ""
        (folder / "users").write_text(f'"postgres" "{password}"\n')
        auth_type = auth_type if password else "trust"
        self._ini.write_text(
            f"[databases]\n* = host={server} port=5432 user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = {auth_type}\nauth_file = {folder / 'users'}\n"
            f"pool_mode = transaction\ndefault_pool_size = {SESSIONS}\nmax_client_conn = 100\n"
        )
        nobody = embedded.unprivileged_user()
        self._user = None if nobody is None else nobody[0]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self._ini)], user=self._user, stdout=log, stderr=log
            )
        until(self._answers, "PgBouncer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def url(self, direct: str) -> str:
        name = direct.split("/")[3].split("?")[0]
        return f"postgresql://postgres{self._password}@127.0.0.1:{self.port}/{name}"

    def spoil(self, direct: str) -> None:
        """Leave settings and a prepared statement in each of the sessions that clients share."""
        clients = []
        for _ in range(SESSIONS):  # each in its own transaction, so that each uses another session
            client = psycopg.connect(self.url(direct), autocommit=True, prepare_threshold=None)
            client.execute("BEGIN")
            clients.append(client)
        for client in clients:
            for statement in HOSTILE:
                client.execute(statement)
            client.execute("COMMIT")
            client.close()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with suppress(psycopg.OperationalError), psycopg.connect(self.url("///postgres"), connect_timeout=2):
            return True
        return False


def folder_of_pooler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pgbouncer")
    for parent in (folder, *folder.parents):  # runs as another user if started by root
        if parent.stat().st_uid == folder.stat().st_uid and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder


@pytest.fixture(scope="module")
def pgbouncer(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    made = PgBouncer(folder_of_pooler(tmp_path_factory), postgres.folder)
    yield made
    made.stop()


@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "plain"])
def test_pooler_that_rejects_the_password_ends_the_wait_at_once(
    postgres: Any, tmp_path_factory: pytest.TempPathFactory, auth_type: str
) -> None:
    """Its SQLSTATE is the same for every rejection; a database that does not exist is still waited for."""
    direct = postgres.new_database()
    pooler = PgBouncer(folder_of_pooler(tmp_path_factory), postgres.folder, "right", auth_type)
    try:
        with databases.wait_for_database(pooler.url(direct), 3600):
            pass
        wrong = pooler.url(direct).replace(":right@", ":wrong@")
        for url in (wrong, wrong.replace("postgres:", "nobody:")):
            with pytest.raises(StartupError, match="rejects this user or password"):
                databases._wait_for_database(url, 3600, lambda: False)
        with pytest.raises(StartupError, match="raise START_DEADLINE_SECONDS"):
            databases._wait_for_database(pooler.url("///not_made_yet"), 0.0, lambda: False)
    finally:
        pooler.stop()


def test_pooler_migrations_run_one_at_a_time_and_leave_no_lock(postgres: Any, pgbouncer: PgBouncer) -> None:
    """Regression: the session kept the lock, and every later migration waited for it without a log line."""
    direct = postgres.new_database()
    pgbouncer.spoil(direct)
    with ThreadPoolExecutor(3) as threads:
        moves = list(threads.map(lambda _: schema.migrate(pgbouncer.url(direct), 60), range(3)))
    head = schema.versions()[-1]
    assert sorted(moves, key=str) == sorted([(None, head), (head, head), (head, head)], key=str)
    assert rows(direct, LOCKS) == [(0,)]
    assert schema.migrate(direct, 10) == (head, head)


def test_migration_names_the_lock_holder_and_ends_at_its_deadline(postgres: Any) -> None:
    direct = postgres.new_database()
    holder, dialect = databases.connect(direct)
    with holder, capture_logs() as lines:
        assert schema._locked(holder, dialect)
        with pytest.raises(StartupError, match=r"another migration .* \(pid \d+, marketfeed-consumer, for"):
            schema.migrate(direct, 0.1)
        (line,) = [line for line in lines if line["event"] == "waiting for another migration"]
        assert "marketfeed-consumer" in line["holder"]
    assert schema.migrate(direct, 10)[0] is None


def test_pooler_session_settings_of_other_clients_have_no_effect(postgres: Any, pgbouncer: PgBouncer) -> None:
    direct = postgres.new_database()
    schema.migrate(direct, 10)
    pgbouncer.spoil(direct)
    mine = Session(pgbouncer.url(direct))
    try:
        mine.acquire_leases()
        for number in range(20):  # more often than psycopg's prepare threshold
            mine.write(
                *(trade(number * 3 + i) for i in range(2)),
                trade(number, "BACK\\SLASH"),
                quote(number),
                quote(0),
                b"junk\\\x00",
            )
        assert mine.writer.retries == {}
        connection, dialect = databases.connect(pgbouncer.url(direct))
        with connection:
            for statement in dialect.transaction:
                name = statement.split()[2]
                theirs = connection.execute(
                    "SELECT reset_val FROM pg_settings WHERE lower(name) = %s", [name]
                )
                expected = statement.partition(" = ")[2] or theirs.fetchone()[0]  # type: ignore[index] - a row
                (ours,) = connection.execute("SELECT current_setting(%s)", [name]).fetchone() or ("",)
                assert ours.split(",")[0] in (expected, expected.split(",")[0]), statement
    finally:
        mine.writer.close()
    assert differences(direct) == {}
    assert stored(direct, "trades") == 60
    assert stored(direct, "book_tickers") == 20
    assert rows(direct, "SELECT DISTINCT value FROM dead_letters") == [(b"junk\\\x00",)]


def test_database_session_settings_have_no_effect(postgres: Any) -> None:
    """Regression: with array_nulls = off every valid quote became a dead letter."""
    direct = postgres.new_database()
    schema.migrate(direct, 10)
    name = sql.Identifier(direct.split("/")[3].split("?")[0])
    with psycopg.connect(direct, autocommit=True) as owner:
        for statement in (*HOSTILE, *DEFAULTS):
            if statement.startswith("SET ") and not statement.startswith("SET search_path"):
                owner.execute(sql.SQL("ALTER DATABASE {} ").format(name) + sql.SQL(statement))  # type: ignore[arg-type]
    mine = Session(direct)
    try:
        mine.acquire_leases()
        for number in range(3):
            mine.write(trade(number), trade(number, "BACK\\SLASH"), quote(number), quote(0), b"junk\\\x00")
        assert mine.writer.retries == {}
    finally:
        mine.writer.close()
    assert differences(direct) == {}
    assert stored(direct, "trades") == 6
    assert stored(direct, "book_tickers") == 3


def test_pooler_session_is_unchanged_afterwards(postgres: Any, pgbouncer: PgBouncer) -> None:
    direct = postgres.new_database()
    schema.migrate(direct, 10)
    mine = Session(pgbouncer.url(direct))
    mine.acquire_leases()
    for number in range(8):
        mine.write(trade(number), trade(0), quote(number))
    mine.writer.close()
    with psycopg.connect(pgbouncer.url(direct), autocommit=True, prepare_threshold=None) as other:
        assert other.execute("SHOW enable_seqscan").fetchone() == ("on",)
        assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_pooler_restart_between_four_consumers_and_the_database_loses_nothing(
    start: Callable[..., Any],
    publish: Callable[..., None],
    postgres: Any,
    pgbouncer: PgBouncer,
    topic: str,
) -> None:
    direct = postgres.new_database()
    schema.migrate(direct, 10)
    pgbouncer.spoil(direct)
    symbols = [f"SYM{number}" for number in range(12)]
    publish(topic, *(trade(0, symbol) for symbol in symbols))
    options = {
        "DATABASE_URL": pgbouncer.url(direct),
        "CONSUMER_TOPICS": topic,
        "KAFKA_GROUP": uuid4().hex,
        "BATCH_MAX_ROWS": "50",
        "KAFKA_SESSION_TIMEOUT_MS": "4000",
        "AUDIT_INTERVAL_SECONDS": "0.2",
    }
    consumers = [start(**options) for _ in range(4)]
    until(lambda: all(one.status()["partitions"] for one in consumers), "each to own a partition", 60)
    publish(topic, *(trade(number, symbol) for number in range(1, 100) for symbol in symbols))
    pgbouncer.stop()
    pgbouncer.start()
    pgbouncer.spoil(direct)
    publish(topic, *(trade(number, symbol) for number in range(100, 200) for symbol in symbols))
    until(lambda: stored(direct, "trades") == 200 * len(symbols), "all trades", 60)
    assert [one.stop() for one in consumers] == [0] * 4, consumers[0].log.read_text()
    assert differences(direct) == {}
    assert stored(direct, "dead_letters") == 0
