"""``marketfeed replay`` and ``marketfeed demo``, run repeatedly on the user's own Kafka and database."""

import gzip
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from integration_kafka import ApacheKafka

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

FRAMES = 5_000


@pytest.fixture
def short_recording(recording: Path, tmp_path: Path) -> Path:
    file = tmp_path / "short.frames"
    with gzip.open(recording) as lines, file.open("wb") as short:
        short.writelines(islice(lines, FRAMES))
    return file


def report(*arguments: str, **environment: str) -> dict[str, Any]:
    """Return the report of a run that ends with exit code 0."""
    run = subprocess.run(
        [sys.executable, "-m", "marketfeed_cli", *arguments, "--output", "json"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout))


def topics(kafka: ApacheKafka) -> set[str]:
    names = AdminClient({"bootstrap.servers": kafka.address}).list_topics(timeout=10).topics
    return {name for name in names if not name.startswith("__")}


def test_replay_repeated_on_own_kafka_and_database_adds_nothing(
    apache_kafka: ApacheKafka, database: str, short_recording: Path
) -> None:
    own = {
        "KAFKA_BROKER": apache_kafka.address,
        "DATABASE_URL": database,
        "MARKET_TRADES_TOPIC": "again.trades",
        "MARKET_BOOK_TOPIC": "again.quotes",
    }
    first = report("replay", str(short_recording), **own)
    after_first = topics(apache_kafka)
    second = report("replay", str(short_recording), **own)
    stages = ("acknowledged", "committed", "duplicates_skipped")
    for stream in ("trades", "quotes"):
        sent = first[stream]["sent"]
        assert [first[stream][stage] for stage in stages] == [sent, sent, 0]
        assert [second[stream][stage] for stage in stages] == [sent] * 3
    assert first["trades"]["sent"] + first["quotes"]["sent"] == FRAMES
    assert {"again.trades", "again.quotes"} <= after_first
    assert topics(apache_kafka) == after_first, "a run leaves its own ledger topics behind"
    assert not any(name.startswith(("market.progress", "market.gaps")) for name in after_first)


def test_demo_repeated_on_an_own_database_adds_its_trades(database: str) -> None:
    arguments = ("demo", "--source", "simulated", "--seconds", "2", "--symbols", "BTCUSDT")
    committed = [report(*arguments, DATABASE_URL=database)["trades"]["committed"] for _ in range(2)]
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (sum(committed),)
    assert min(committed) > 0
