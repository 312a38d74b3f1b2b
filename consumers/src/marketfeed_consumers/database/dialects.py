"""The differences between PostgreSQL and CockroachDB, each with its reason.

All other SQL is the same on both. `docs/cockroachdb.md` lists the sentences of CockroachDB's documentation that its
values rely on.
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Dialect:
    """The dialect of a database. Fields are SQL unless stated otherwise.

    Attributes:
        name: the database's name.
        name_type: type of the venue and symbol columns. PostgreSQL compares text by the database's locale,
            several times slower than by bytes and different from machine to machine; CockroachDB's STRING is
            compared by bytes anyway, and COLLATE would make it a type of its own.
        hot_row_storage: storage of tables whose rows are updated by every transaction. PostgreSQL keeps the new
            version on the same page, and out of the index, when the page has room (HOT); CockroachDB has no pages
            of that kind.
        transaction: executed at the begin of each transaction, in the same round trip as BEGIN: settings that the
            statements and the parsing of their results rely on. Local to the transaction: behind a pooler the next
            transaction may run in another session. DEFAULT is the setting of role and database, whatever another
            client of the pooler has set in the session.
        sharded_key: appended to a monotonic key, to distribute writes. CockroachDB splits a table into ranges by key,
            and one symbol's increasing ids would all go to the last range; PostgreSQL has no ranges.
        snapshot: begins a read-only transaction that does not block writers. A PostgreSQL snapshot takes no locks;
            CockroachDB's reads of current data can block writers or make them retry, its follower reads cannot.
        check_deferred: executed at the end of a transaction that is rolled back, as deferred constraints are otherwise
            checked at COMMIT only. CockroachDB has no deferred constraints.
        migration_lock_made: executed once before, outside transactions.
        migration_lock: acquires the migration lock until the transaction ends; returns true or false, or fails with
            LockNotAvailable. CockroachDB's advisory locks are no-ops.
        migration_holder: returns the holder of the lock: pid, name, seconds.
        migration_idle: disables the idle timeouts of the transaction that holds the lock.
        lock_timeout: begins each transaction of a migration, with {milliseconds}. In PostgreSQL other statements queue
            behind a step that waits for its lock; CockroachDB changes a schema online, in jobs that wait for no locks.
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
        # A sequential scan takes a predicate lock on the whole table, so that other consumers' changes of their own
        # rows cause serialization failures.
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
    """Return the dialect of a server by the result of ``SELECT version()``."""
    return COCKROACHDB if "CockroachDB" in version else POSTGRESQL
