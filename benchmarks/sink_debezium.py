"""Debezium's JDBC sink in Kafka Connect standalone with tuned settings, the peer of the sink benchmark.

It is idempotent (upsert by the same key), but has no offsets in the database, candles or high-water marks. Upsert with
UNNEST and large polls and batches were the fastest settings. UNNEST sends strings as text, which PostgreSQL does not
convert to numeric, so price and quantity are text columns, which are cheaper to write.
"""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg
import sink_stack

from marketfeed_devtools.ports import free_port

_FIELDS = {
    "venue": "string", "symbol": "string", "trade_id": "int64", "price": "string", "qty": "string",
    "buyer_is_maker": "boolean", "trade_time_us": "int64", "event_time_us": "int64", "received_time_us": "int64",
    "origin": "string",
}  # fmt: skip
_LAST_BATCHES = 10_000
"""Rows at the end that are excluded, because the last batch waits to fill."""
_SCHEMA = {
    "type": "struct",
    "fields": [
        {"field": name, "type": kind, "optional": name == "event_time_us"} for name, kind in _FIELDS.items()
    ],
}


def start(stack: ExitStack, folder: Path, broker: str, url: str, topic: str, tasks: int) -> int:
    """Start a worker whose connector writes `topic` to the table trades; return its process id.

    Args:
        stack: Stops the worker at its exit.
        folder: Folder for configuration and log.
        broker: Bootstrap address.
        url: URL of the database.
        topic: Topic of trades.
        tasks: Number of tasks.
    """
    with psycopg.connect(url) as connection:
        connection.execute("ALTER TABLE trades ALTER price TYPE text, ALTER qty TYPE text")
    libraries = sink_stack.jars("debezium")
    plugins = folder / "plugins"
    plugins.mkdir(exist_ok=True)
    if not (plugins / "debezium").exists():
        (plugins / "debezium").symlink_to(libraries)
    worker, connector = folder / "connect.properties", folder / "connector.properties"
    host, database = url.removeprefix("postgresql://postgres@").split("/")
    _write(
        worker,
        {
            "bootstrap.servers": broker,
            "listeners": f"http://127.0.0.1:{free_port()}",
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter.schemas.enable": "true",
            "value.converter.schema.content": json.dumps(_SCHEMA),
            "offset.storage.file.filename": str(folder / "connect.offsets"),
            "plugin.path": str(plugins),
            "plugin.discovery": "service_load",
            "connector.client.config.override.policy": "All",
        },
    )
    _write(
        connector,
        {
            "name": f"trades-{time.time_ns()}",
            "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
            "tasks.max": str(tasks),
            "topics": topic,
            "connection.url": f"jdbc:postgresql://{host}/{database}?reWriteBatchedInserts=true",
            "connection.username": "postgres",
            "connection.password": "",
            "insert.mode": "upsert",
            "primary.key.mode": "record_value",
            "primary.key.fields": "venue,symbol,trade_id",
            "schema.evolution": "none",
            "collection.name.format": "trades",
            "dialect.postgres.unnest.insert.enabled": "true",
            "batch.size": "5000",
            "consumer.override.max.poll.records": "5000",
            "consumer.override.fetch.min.bytes": "1000000",
            "consumer.override.max.partition.fetch.bytes": "8000000",
            "consumer.override.auto.offset.reset": "earliest",
        },
    )
    java: list[str | Path] = [
        "java",
        "-Xmx1g",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
        "-cp",
        f"{libraries}/*",
    ]
    command = [*java, "org.apache.kafka.connect.cli.ConnectStandalone", worker, connector]
    return stack.enter_context(sink_stack.running(command, folder / "connect.log"))


def _write(file: Path, properties: dict[str, str]) -> None:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


def drain(
    connection: psycopg.Connection[tuple[int]], rows: int, log: Path, seconds: float = 600
) -> tuple[int, float]:
    """Wait until `rows` are stored; return rows and seconds between the server's first and last row count.

    Args:
        connection: Connection to the database.
        rows: Expected number of rows.
        log: Log of the worker, for errors.
        seconds: Timeout.
    """
    first: tuple[int, float] | None = None
    deadline = time.monotonic() + seconds
    while True:
        row = connection.execute(
            "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'trades'"
        ).fetchone()
        count, now = (row[0] if row else 0), time.monotonic()
        if count and first is None:
            first = (count, now)
        if first is not None and count >= rows - _LAST_BATCHES:
            return count - first[0], now - first[1]
        if now > deadline:
            raise SystemExit(
                f"Debezium stored {count} of {rows} rows in {seconds:g} s:\n{log.read_text()[-3000:]}"
            )
        time.sleep(0.05)
