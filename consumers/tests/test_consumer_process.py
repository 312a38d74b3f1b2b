"""The consumer as a process: real Kafka protocol, real PostgreSQL."""

import os
import subprocess
import sys
from uuid import uuid4

import psycopg
import pytest
from consumer_market import quote, trade
from consumer_support import differences, rows, stored

from marketfeed_consumers.database import schema
from marketfeed_devtools.waiting import until

pytestmark = pytest.mark.integration


def test_process_stores_published_messages_and_reports_status(start, publish, topic, database):
    publish(
        topic, *(trade(i) for i in range(100, 200)), b"{not json", *(trade(i, "ETHUSDT") for i in range(50))
    )
    publish(f"{topic}-book", *(quote(i * 7) for i in range(60)))
    consumer = start()
    until(lambda: stored(database, "book_tickers") == 60, "the quotes")
    until(lambda: stored(database, "trades") == 150, "the trades")
    publish(topic, *(trade(i) for i in range(150, 250)))
    until(lambda: stored(database, "trades") == 200, "the rest")
    # A commit is counted at its response, when its rows are already visible.
    until(lambda: consumer.status()["inserted"]["trades"] >= 200, "the rest to be counted")
    status = consumer.status()
    assert status["inserted"] == {"trades": 200, "book_tickers": 60}
    assert status["duplicates"]["trades"] == 50
    assert status["dead_letters"] == 1
    assert status["symbols"]["BTCUSDT"]["rows"] == 150 + 60
    assert consumer.get("/readyz") == (200, "ok\n")
    metrics = consumer.get("/metrics")[1]
    assert 'marketfeed_consumer_rows_inserted_total{table="trades"} 200.0' in metrics
    assert f'marketfeed_consumer_dead_letters_total{{topic="{topic}"}} 1.0' in metrics
    assert f'marketfeed_consumer_dead_letters_total{{topic="{topic}-book"}} 0.0' in metrics
    assert 'marketfeed_consumer_database_errors_total{sqlstate="40001"}' in metrics
    assert consumer.stop() == 0, consumer.log.read_text()
    assert rows(database, "SELECT symbol, sum(trade_count) FROM candles_1m GROUP BY 1 ORDER BY 1") == [
        ("BTCUSDT", 150),
        ("ETHUSDT", 50),
    ]


SESSION_MS = "4000"
"""More than the 3 s for which the mock broker delays the first rebalance of a group."""


def test_rebalance_of_three_processes_of_which_one_is_killed(start, publish, topic, database):
    """Cooperative rebalance during production: each message is stored exactly once."""
    first = start(BATCH_MAX_ROWS="50", KAFKA_SESSION_TIMEOUT_MS=SESSION_MS, CONSUMER_TOPICS=topic)
    symbols = [f"SYM{i}" for i in range(12)]
    publish(topic, *(trade(i, symbol) for i in range(50) for symbol in symbols))
    until(lambda: stored(database, "trades") == 600, "the first trades")
    second = start(BATCH_MAX_ROWS="50", KAFKA_SESSION_TIMEOUT_MS=SESSION_MS, CONSUMER_TOPICS=topic)
    next_id = 50

    def more() -> None:
        nonlocal next_id
        publish(topic, *(trade(next_id, symbol) for symbol in symbols))
        next_id += 1

    def shared() -> bool:
        more()
        return bool(first.status()["partitions"]) and bool(second.status()["partitions"])

    until(shared, "both to own partitions", 60)
    owned = [{(p["topic"], p["partition"]) for p in one.status()["partitions"]} for one in (first, second)]
    assert not owned[0] & owned[1]
    second.kill()

    def reassigned() -> bool:
        more()
        return len(first.status()["partitions"]) == 4

    until(reassigned, "the reassignment", 60)
    until(lambda: stored(database, "trades") == next_id * 12, "all trades")
    assert first.stop() == 0
    assert differences(database) == {}
    assert "Fenced" not in first.log.read_text()


def test_rebalance_while_the_database_hangs(start, publish, topic, database):
    """Batches in flight that were not stored in time are read again by the next owner, and stored once."""
    options = {
        "CONSUMER_TOPICS": topic,
        "KAFKA_SESSION_TIMEOUT_MS": SESSION_MS,
        "DRAIN_DEADLINE_SECONDS": "1",
        "BATCH_MAX_ROWS": "50",
    }
    symbols = [f"SYM{i}" for i in range(12)]
    publish(topic, *(trade(i, symbol) for i in range(10) for symbol in symbols))
    first = start(**options)
    until(lambda: stored(database, "trades") == 120, "the first trades")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE trades IN EXCLUSIVE MODE")
        publish(topic, *(trade(i, symbol) for i in range(10, 60) for symbol in symbols))
        second = start(**options)
        until(lambda: "partition revoked" in first.log.read_text(), "the first to let partitions go")
        publish(topic, *(trade(i, symbol) for i in range(60, 70) for symbol in symbols))
        other.rollback()
    until(lambda: stored(database, "trades") == 70 * 12, "all trades")
    until(lambda: second.status()["partitions"], "the second to own partitions")
    owned = [{p["partition"] for p in one.status()["partitions"]} for one in (first, second)]
    assert sorted([*owned[0], *owned[1]]) == [0, 1, 2, 3]
    publish(topic, *(trade(i, symbol) for i in range(70, 80) for symbol in symbols))
    until(lambda: stored(database, "trades") == 80 * 12, "the trades after it")
    assert [first.stop(), second.stop()] == [0, 0], first.log.read_text() + second.log.read_text()
    assert differences(database) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(None, "no marketfeed schema yet; run: marketfeed-consumer migrate", id="no schema"),
        pytest.param(
            "UPDATE marketfeed_schema_version SET version_num = '0001'", "at version 0001", id="an older one"
        ),
    ],
)
def test_start_without_schema_is_a_one_line_error(start, postgres, change, words):
    url = postgres.new_database()
    if change:
        schema.migrate(url, 10)
        with psycopg.connect(url) as owner:
            owner.execute(change)
    consumer = start(DATABASE_URL=url)
    assert consumer.process.wait(30) == 1
    assert words in consumer.log.read_text().splitlines()[-1]


def test_start_waits_for_unreachable_dependencies_and_names_them(start):
    consumer = start(DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x", START_DEADLINE_SECONDS="1")
    assert consumer.process.wait(30) == 1
    log = consumer.log.read_text()
    assert "error: no connection to the database at 127.0.0.1:1/x within 1 s" in log
    assert "secret" not in log
    consumer = start(KAFKA_BROKER="127.0.0.1:1", START_DEADLINE_SECONDS="1")
    assert consumer.process.wait(30) == 1
    assert "error: no Kafka broker responded at 127.0.0.1:1" in consumer.log.read_text()


def test_start_waits_for_a_database_that_rejects_connections(start, postgres):
    """It may not be complete yet: an operator creates role, password and database one after the other."""
    name, url = f"later_{uuid4().hex}", postgres.new_database()
    schema.migrate(url, 10)
    made = url.split("/")[3].split("?")[0]
    refused = start(DATABASE_URL=postgres.url(name), START_DEADLINE_SECONDS="1")
    assert refused.process.wait(30) == 1
    last = refused.log.read_text().splitlines()[-1]
    assert last.startswith("error: no connection to the database at ")
    assert f'database "{name}" does not exist' in last
    waiting = start(DATABASE_URL=postgres.url(name))
    until(lambda: "does not exist" in waiting.log.read_text(), "the refusal")
    with psycopg.connect(postgres.url(), autocommit=True) as owner:
        owner.execute(f"CREATE DATABASE {name} TEMPLATE {made}")
    until(lambda: "waiting for the database" not in waiting.get("/readyz")[1], "the start to continue")
    assert waiting.stop() == 0, waiting.log.read_text()


def test_stop_while_waiting_for_the_database_is_no_failure(start):
    consumer = start(DATABASE_URL="postgresql://me@127.0.0.1:1/x")
    until(lambda: "waiting for the database" in consumer.log.read_text(), "a word")
    assert consumer.stop() == 0, consumer.log.read_text()


def test_stop_does_not_wait_for_leases_that_cannot_be_acquired(start, publish, topic, database):
    """Regression: it took more than two minutes; Kubernetes kills after 30 s."""
    publish(topic, trade(1))
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE consumer_offsets")
        consumer = start(
            CONSUMER_TOPICS=topic, KAFKA_SESSION_TIMEOUT_MS=SESSION_MS, DRAIN_DEADLINE_SECONDS="1"
        )
        until(lambda: rows(database, CLAIMS) == [(1,)], "the claim")
        assert consumer.stop() == 0, consumer.log.read_text()
        other.rollback()
    assert stored(database, "trades") == 0
    consumer = start(CONSUMER_TOPICS=topic)
    until(lambda: stored(database, "trades") == 1, "the trade")
    assert consumer.stop() == 0


CLAIMS = "SELECT count(*) FROM pg_locks WHERE relation = 'consumer_offsets'::regclass AND NOT granted"


def test_command_that_the_database_rejects_is_a_one_line_error(database):
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("CREATE ROLE weak LOGIN")
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak")
        owner.execute("INSERT INTO high_water_marks VALUES ('trades', 'v', 'S', 1, 1, 2, 0, 0, 2, 0)")
        for number in (1, 2):
            owner.execute("INSERT INTO trades VALUES ('v', 'S', %s, 1, 1, true, 0, 0, 0, 'stream')", [number])
    environment = {**os.environ, "DATABASE_URL": database.replace("postgres@", "weak@")}
    argv = [sys.executable, "-m", "marketfeed_consumers", "retain", "--trades-days", "1"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the database at ")
    assert "(SQLSTATE 42501)" in line


def test_writes_are_paused_while_the_database_is_unreachable(start, publish, topic, postgres, tmp_path):
    """The database refuses connections for a while: not ready, live, and afterwards complete."""
    url = postgres.new_database()
    schema.migrate(url, 10)
    name = url.split("/")[3].split("?")[0]
    consumer = start(DATABASE_URL=url, CONSUMER_TOPICS=topic)
    publish(topic, trade(0))
    until(lambda: stored(url, "trades") == 1, "the first trade")
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        publish(topic, *(trade(i) for i in range(1, 500)))
        until(lambda: consumer.get("/readyz")[0] == 503, "the consumer to be unready")
        assert "writes to the database failed" in consumer.get("/readyz")[1]
        assert consumer.get("/livez")[0] == 200
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    until(lambda: stored(url, "trades") == 500, "the rest", 60)
    until(lambda: consumer.get("/readyz")[0] == 200, "the consumer to be ready")
    assert differences(url) == {}
    assert consumer.stop() == 0
