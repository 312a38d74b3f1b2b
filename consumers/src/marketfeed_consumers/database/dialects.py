"""PostgreSQL and CockroachDB: one table of what differs between them, each difference with its reason.

Everything that is not named here is the same SQL on both. `docs/cockroachdb.md` lists the sentences of
CockroachDB's documentation that its column relies on.
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Dialect:
    """One database's ways. Fields are SQL, unless they say otherwise.

    Attributes:
        name: as `version()` calls it.
        name_type: type of the venue and symbol columns. PostgreSQL compares text by the database's locale,
            several times slower than by bytes and different from machine to machine; CockroachDB's STRING is
            compared by bytes anyway, and COLLATE would make it a type of its own.
        hot_row_storage: storage of tables whose rows are updated by every transaction. PostgreSQL keeps the new
            version on the same page, and out of the index, when the page has room (HOT); CockroachDB has no pages
            of that kind.
        transaction: begins each transaction, in the same round trip as BEGIN: the settings that our statements and
            the reading of their results rely on. Never of a session: behind a pooler the next transaction has another
            one, and ours is somebody else's. DEFAULT is what role and database say, whatever another client of the
            pooler has set in the session.
        sharded_key: put behind a key that only grows, so that writes spread. CockroachDB splits a table into
            ranges by key and one symbol's growing ids would all land in the last; PostgreSQL has nothing to split.
        snapshot: begins a transaction that only reads and is in no writer's way. A snapshot of PostgreSQL's takes no
            locks; CockroachDB's reading of the present can make writers wait or try again, its reading of a moment
            ago cannot.
        check_deferred: run at the end of a transaction that is only tried, since what a deferred constraint refuses is
            told at COMMIT only. CockroachDB defers none.
        migration_lock_made: run once before, in no transaction.
        migration_lock: takes the lock of the one migration that runs until its transaction ends; gives true, gives
            false, or fails with LockNotAvailable. CockroachDB's advisory locks are no-ops.
        migration_holder: who has it: pid, name, seconds.
        migration_idle: lets the transaction that holds it be idle for as long as the steps take.
        lock_timeout: begins each transaction of a migration, {milliseconds} put in. In PostgreSQL whoever comes after
            a step that waits for its lock queues behind it; CockroachDB changes a schema online, in jobs of its own,
            that wait for nobody's lock.
    """

    name: Literal["postgresql", "cockroachdb"]
    name_type: str
    hot_row_storage: str
    transaction: tuple[str, ...]
    sharded_key: str
    snapshot: str
    check_deferred: str
    migration_lock_made: tuple[str, ...]
    migration_lock: str
    migration_holder: str
    migration_idle: str
    lock_timeout: str


POSTGRESQL: Final = Dialect(
    name="postgresql",
    name_type='text COLLATE "C"',
    hot_row_storage="WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)",
    transaction=(
        # A sequential scan of a small table takes a predicate lock on the whole of it, and then every other
        # consumer's change of its own row in there can be a serialization failure for one of the two.
        "SET LOCAL enable_seqscan = off",
        "SET LOCAL array_nulls = on",
        "SET LOCAL standard_conforming_strings = on",
        "SET LOCAL bytea_output = hex",
        "SET LOCAL datestyle = ISO",
        "SET LOCAL intervalstyle = postgres",
        "SET LOCAL timezone = UTC",
        "SET LOCAL extra_float_digits = 1",
        "SET LOCAL search_path TO DEFAULT",
        "SET LOCAL statement_timeout TO DEFAULT",
        "SET LOCAL lock_timeout TO DEFAULT",
        "SET LOCAL idle_in_transaction_session_timeout TO DEFAULT",
    ),
    sharded_key="",
    snapshot="",
    check_deferred="SET CONSTRAINTS ALL IMMEDIATE",
    migration_lock_made=(),
    migration_lock="SELECT pg_try_advisory_xact_lock(7271664410250101)",
    migration_holder="""
        SELECT l.pid, a.application_name, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
        FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.classid::bigint << 32 | l.objid::bigint = 7271664410250101
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """,
    migration_idle="""
        SELECT set_config(name, '0', true) FROM pg_settings
        WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')
    """,
    lock_timeout="SET LOCAL lock_timeout = '{milliseconds}ms'",
)

COCKROACHDB: Final = Dialect(
    name="cockroachdb",
    name_type="STRING",
    hot_row_storage="",
    transaction=(),
    sharded_key="USING HASH",
    snapshot="SET TRANSACTION AS OF SYSTEM TIME follower_read_timestamp()",
    check_deferred="",
    migration_lock_made=(
        "CREATE TABLE IF NOT EXISTS marketfeed_migration_lock (id INT PRIMARY KEY)",
        "INSERT INTO marketfeed_migration_lock VALUES (1) ON CONFLICT DO NOTHING",
    ),
    migration_lock="SELECT true FROM marketfeed_migration_lock WHERE id = 1 FOR UPDATE NOWAIT",
    migration_holder="",
    migration_idle="SET LOCAL idle_in_transaction_session_timeout = 0",
    lock_timeout="",
)


def dialect_of(version: str) -> Dialect:
    """The dialect of a server by what its ``SELECT version()`` says."""
    return COCKROACHDB if "CockroachDB" in version else POSTGRESQL
