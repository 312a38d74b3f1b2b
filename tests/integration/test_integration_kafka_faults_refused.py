"""The worker on an Apache Kafka that rejects: credentials, and batches that are too large for a topic.

Each test that publishes ends with a comparison of the topic and the venue's ledger: every trade, once, in order.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration_kafka import ApacheKafka, require_kafka
from integration_ledger import (
    assert_quotes_rise,
    assert_whole,
    ended_whole,
    flowing,
    market_ended,
    metric,
    newest_ids,
)
from integration_pipeline import Pipeline, worker_status

from marketfeed_cli import services
from marketfeed_cli.process import Command, Part, Parts
from marketfeed_devtools.waiting import until_async
from marketfeed_service.errors import StartupError
from marketfeed_service.settings import read
from marketfeed_workers.kafka import topics
from marketfeed_workers.kafka.topics import ensure_topics, required_topics
from marketfeed_workers.settings import WorkerSettings

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

MARKET = ("generate", "--trade-rate", "200", "--quote-rate", "200")
USER, PASSWORD, OTHER_PASSWORD = "marketfeed", "right-Pa55word", "other-Pa55word"
REAUTHENTICATION_MS = "2000"
"""Lifetime of an authenticated connection: a changed password is required after that time."""

SMALL_BATCH_BYTES = "16384"


_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    require_kafka()
    folder = tmp_path_factory.mktemp("kafka")
    reauthentication = "listener.name.sasl_plaintext.scram-sha-512.connections.max.reauth.ms"
    with ApacheKafka(folder, settings={reauthentication: REAUTHENTICATION_MS}) as started:
        started.set_password(USER, PASSWORD)
        yield started


def make_pipeline(kafka: ApacheKafka, parts: Parts, tmp_path: Path, **trades_topic: str) -> Pipeline:
    pipeline = Pipeline(parts, tmp_path, kafka.address, "", f"refused{next(_numbers)}")
    pipeline.create_topics(kafka, 2, **trades_topic)
    return pipeline


def sasl(kafka: ApacheKafka, password: str) -> dict[str, str]:
    """Return the settings of a worker with SASL."""
    return {
        "KAFKA_BROKER": kafka.sasl_address,
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD": password,
    }


def worker_command(pipeline: Pipeline, tmp_path: Path, **variables: str) -> Command:
    """Start a worker that is not expected to become ready."""
    return services.worker({**pipeline.environment, **variables}, tmp_path / "never")


def log_of(part: Part) -> str:
    return part.log.read_text()


async def test_credentials_rejected_at_start_end_the_worker_at_once(
    kafka: ApacheKafka, parts: Parts, tmp_path: Path
) -> None:
    pipeline = make_pipeline(kafka, parts, tmp_path)
    await pipeline.venue(*MARKET)
    worker = parts.start(
        worker_command(pipeline, tmp_path, **sasl(kafka, OTHER_PASSWORD), START_DEADLINE_SECONDS="300")
    )
    await until_async(lambda: worker.exit_code is not None, "the worker to end, long before its deadline", 30)
    assert worker.exit_code == 1
    worker.stopped = True
    last = log_of(worker).splitlines()[-1]
    assert last.startswith(f"error: Kafka at {kafka.sasl_address} rejected the credentials: ")
    assert OTHER_PASSWORD not in log_of(worker)


async def test_credentials_rejected_while_running_are_reported_and_nothing_is_lost(
    kafka: ApacheKafka, parts: Parts, tmp_path: Path
) -> None:
    pipeline = make_pipeline(kafka, parts, tmp_path)
    await pipeline.venue(*MARKET)
    worker, url = await pipeline.worker(**sasl(kafka, PASSWORD), KAFKA_QUEUE_MAX_MESSAGES="2000")
    await until_async(lambda: worker_status(url).ready, "the worker to be ready")
    since = newest_ids(pipeline)
    await flowing(pipeline, url, 1000)
    kafka.set_password(USER, OTHER_PASSWORD)
    await until_async(
        lambda: "authentication failed" in worker_status(url).reason, "the rejection to be reported"
    )
    assert not worker_status(url).ready
    await until_async(lambda: worker_status(url).pending >= 2000, "the socket to be paused")
    assert worker_status(url).pending < 3000
    assert metric(url, "marketfeed_kafka_client_errors_total", error="_AUTHENTICATION") >= 1
    kafka.set_password(USER, PASSWORD)
    await flowing(pipeline, url, 1000)
    await ended_whole(pipeline, worker, url, kafka.address, since)
    assert_quotes_rise(pipeline, kafka.address)
    assert "Kafka credentials refused" in log_of(worker)
    for password in (PASSWORD, OTHER_PASSWORD):
        assert password not in log_of(worker)


async def test_batch_size_follows_the_topics_limit(kafka: ApacheKafka, parts: Parts, tmp_path: Path) -> None:
    pipeline = make_pipeline(kafka, parts, tmp_path, **{"max.message.bytes": SMALL_BATCH_BYTES})
    await pipeline.venue(*MARKET)
    worker, url = await pipeline.worker(KAFKA_COMPRESSION="none")
    await until_async(lambda: worker_status(url).ready, "the worker to be ready")
    since = newest_ids(pipeline)
    await large_batches(kafka, pipeline, url)
    account = await ended_whole(pipeline, worker, url, kafka.address, since)
    assert not any(account.failed.values())


async def test_batch_rejected_is_named_and_counted_and_the_next_worker_continues(
    kafka: ApacheKafka, parts: Parts, tmp_path: Path
) -> None:
    pipeline = make_pipeline(kafka, parts, tmp_path)
    trades_topic = pipeline.topics["MARKET_TRADES_TOPIC"]
    await pipeline.venue(*MARKET)
    worker, url = await pipeline.worker(KAFKA_COMPRESSION="none")
    await until_async(lambda: worker_status(url).ready, "the worker to be ready")
    since = newest_ids(pipeline)
    await flowing(pipeline, url, 500)
    kafka.alter_topic(trades_topic, **{"max.message.bytes": SMALL_BATCH_BYTES})
    worker.stopped = True  # its exit is expected
    kafka.freeze()
    await until_async(lambda: worker_status(url).pending > 2000, "a batch larger than the topic's limit")
    kafka.thaw()
    await until_async(lambda: worker.exit_code is not None, "the worker to end instead of leaving a gap")
    assert worker.exit_code == 1
    last = log_of(worker).splitlines()[-1]
    assert "worker stopped to prevent data loss" in last
    assert trades_topic in last
    assert "too large" in last.lower()
    # With a key, because without one a venue returns only its newest 1,000 trades.
    again, url = await pipeline.worker(KAFKA_COMPRESSION="none", BINANCE_API_KEY="k" * 64)
    await flowing(pipeline, url, 1000)
    await market_ended(pipeline, url)
    assert await pipeline.stop(again) == 0
    assert_whole(pipeline, kafka.address, since, once=False)


async def test_topic_with_a_too_small_batch_limit_is_reported_at_start(
    kafka: ApacheKafka, parts: Parts, tmp_path: Path
) -> None:
    pipeline = make_pipeline(kafka, parts, tmp_path, **{"max.message.bytes": "300"})
    await pipeline.venue(*MARKET)
    worker = parts.start(worker_command(pipeline, tmp_path))
    await until_async(lambda: worker.exit_code is not None, "the worker to end")
    worker.stopped = True
    assert worker.exit_code == 1
    last = log_of(worker).splitlines()[-1]
    assert f"topic {pipeline.topics['MARKET_TRADES_TOPIC']} has max.message.bytes=300" in last


@pytest.mark.parametrize(
    ("variable", "policy", "reason"),
    [
        ("MARKET_TRADES_TOPIC", "compact", "only the last message of each symbol"),
        ("MARKET_BOOK_TOPIC", "compact,delete", "only the last message of each symbol"),
        ("MARKET_PROGRESS_TOPIC", "delete", "delete checkpoints and gaps"),
        ("MARKET_GAPS_TOPIC", "compact,delete", "delete checkpoints and gaps"),
    ],
)
def test_topic_that_would_lose_data_is_refused_at_start(
    kafka: ApacheKafka, parts: Parts, tmp_path: Path, variable: str, policy: str, reason: str
) -> None:
    pipeline = make_pipeline(kafka, parts, tmp_path)
    topic = pipeline.topics[variable]
    settings = read(WorkerSettings, {**pipeline.environment, "BINANCE_SYMBOLS": "BTCUSDT"})
    assert ensure_topics(settings) is not None
    kafka.alter_topic(topic, **{"cleanup.policy": policy})
    with pytest.raises(StartupError) as caught:
        ensure_topics(settings)
    assert f"topic {topic} has cleanup.policy={policy}" in str(caught.value)
    assert reason in str(caught.value)
    assert "--add-config cleanup.policy=" in str(caught.value), "the next step is missing"


def test_topic_creation_sets_every_policy_whatever_the_brokers_defaults_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's defaults are each wrong for one of the topics."""
    warnings: list[str] = []
    monkeypatch.setattr(topics.log, "warning", lambda event, **_: warnings.append(event), raising=False)
    require_kafka()
    defaults = {
        "log.cleanup.policy": "compact",
        "log.retention.ms": "3600000",
        "log.retention.bytes": "1000000",
        "message.max.bytes": "2000",
        "compression.type": "gzip",
    }
    with ApacheKafka(tmp_path, settings=defaults) as broker:
        settings = read(
            WorkerSettings,
            {
                "KAFKA_BROKER": broker.address,
                "BINANCE_SYMBOLS": "BTCUSDT",
                "KAFKA_TOPIC_RETENTION_HOURS": "48",
            },
        )
        assert ensure_topics(settings) is not None
        for topic, policy in required_topics(settings).items():
            found = broker.topic_config(topic)
            assert {name: found[name] for name in policy} == policy
            is_ledger = topic in (settings.market_progress_topic, settings.market_gaps_topic)
            assert found["cleanup.policy"] == ("compact" if is_ledger else "delete")
        trades = settings.market_trades_topic
        broker.alter_topic(trades, **{"retention.ms": "3600000", "retention.bytes": "1000000"})
        warnings.clear()
        ensure_topics(settings)
        assert any("topic retention below a day" in each for each in warnings)
        assert any("topic retention limited by size" in each for each in warnings)
        broker.alter_topic(trades, **{"min.insync.replicas": "2"})
        with pytest.raises(StartupError, match=r"min\.insync\.replicas=2 and 1 replicas"):
            ensure_topics(settings)


async def large_batches(kafka: ApacheKafka, pipeline: Pipeline, url: str) -> None:
    """Queue messages behind a frozen broker: when it resumes the client sends full batches."""
    kafka.freeze()
    try:
        await until_async(lambda: worker_status(url).pending > 2000, "messages to queue")
    finally:
        kafka.thaw()
    await flowing(pipeline, url, 1000)
