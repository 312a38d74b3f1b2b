"""The worker on an Apache Kafka that fails: leaders change, the broker is unreachable or frozen.

Each test ends with a comparison of the topic and the venue's ledger: every trade, once, in order.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient
from integration_kafka import ApacheKafka, KafkaCluster, require_kafka
from integration_ledger import (
    assert_quotes_rise,
    ended_whole,
    flowing,
    newest_ids,
    resident_bytes,
)
from integration_pipeline import Pipeline, worker_status

from marketfeed_cli.process import Parts
from marketfeed_consumers.kafka.admin_requests import bounds, collect_ends, request_ends
from marketfeed_devtools.waiting import until, until_async

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

MARKET = ("generate", "--trade-rate", "200", "--quote-rate", "400")
OUTAGE_SECONDS = 30
MOST_GROWTH_BYTES = 64 * 2**20
"""Bound of the growth: a queue of 2,000 messages, socket buffers and the allocator's reserve."""


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """Yield a broker, which is restarted after each test."""
    require_kafka()
    with ApacheKafka(tmp_path_factory.mktemp("kafka")) as started:
        yield started


def make_pipeline(kafka: ApacheKafka, parts: Parts, tmp_path: Path, name: str) -> Pipeline:
    pipeline = Pipeline(parts, tmp_path, kafka.address, "", name)
    pipeline.create_topics(kafka, 2)
    return pipeline


@pytest.mark.timeout(600)  # three brokers start, and two of them twice
async def test_leader_change_loses_and_duplicates_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, parts: Parts
) -> None:
    require_kafka()
    with KafkaCluster(tmp_path_factory.mktemp("brokers")) as cluster:
        pipeline = Pipeline(parts, tmp_path, cluster.address, "", "leaders")
        pipeline.create_topics(cluster, 3)
        await pipeline.venue(*MARKET)
        worker, url = await pipeline.worker()
        await until_async(lambda: worker_status(url).ready, "the worker to be ready")
        since = newest_ids(pipeline)
        await flowing(pipeline, url, 500)
        for number in (
            signal.SIGTERM,
            signal.SIGKILL,
        ):  # a leader that resigns in order, and one that is killed
            leaders = cluster.leaders(pipeline.topics["MARKET_TRADES_TOPIC"])
            assert -1 not in leaders.values()
            gone = max(leaders.values())
            cluster.brokers[gone].stop(number)
            await flowing(pipeline, url, 1000)
            after = cluster.leaders(pipeline.topics["MARKET_TRADES_TOPIC"])
            assert gone not in after.values(), "another leader"
            cluster.brokers[gone].start()
            cluster.await_in_sync(*pipeline.topics.values())
        account = await ended_whole(pipeline, worker, url, cluster.address, since)
        quotes = assert_quotes_rise(pipeline, cluster.address)
        assert quotes == account.acknowledged[pipeline.topics["MARKET_BOOK_TOPIC"]]
        assert not any(account.failed.values())


def test_leader_epochs_from_before_a_kill_are_refreshed_where_a_consumer_reads_bounds(
    kafka: ApacheKafka,
) -> None:
    """A consumer that was assigned partitions ended with "Leader epoch is older than broker epoch" at every restart."""
    topic, partitions = "epochs", [("epochs", 0), ("epochs", 1)]
    kafka.new_topic(topic, len(partitions))
    producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0})
    for _, number in partitions:
        producer.produce(topic, b"once", partition=number)
    assert producer.flush(60) == 0
    admin = AdminClient({"bootstrap.servers": kafka.address, "log_level": 0})
    before = bounds(admin, partitions)
    assert [before[one][:2] for one in partitions] == [(0, 1), (0, 1)]
    kafka.stop(signal.SIGKILL)
    kafka.start()

    def refusals() -> set[int]:
        asked = request_ends(admin, partitions, latest=True)
        return {error.args[0].code() for future in asked.values() if (error := future.exception())}

    until(lambda: refusals() == {KafkaError.FENCED_LEADER_EPOCH}, "the client's metadata to be stale")
    assert refusals() == {KafkaError.FENCED_LEADER_EPOCH}, "and it is not refreshed"
    after = bounds(admin, partitions)
    assert [after[one][:2] for one in partitions] == [(0, 1), (0, 1)]
    assert all(after[one].leader_epoch > before[one].leader_epoch for one in partitions)
    assert not collect_ends(admin, request_ends(admin, partitions, latest=True)).errors


async def test_broker_outage_of_half_a_minute_loses_nothing(
    kafka: ApacheKafka, tmp_path: Path, parts: Parts
) -> None:
    pipeline = make_pipeline(kafka, parts, tmp_path, "away")
    await pipeline.venue(*MARKET)
    worker, url = await pipeline.worker(KAFKA_QUEUE_MAX_MESSAGES="2000")
    await until_async(lambda: worker_status(url).ready, "the worker to be ready")
    since = newest_ids(pipeline)
    await flowing(pipeline, url, 500)
    before_bytes = resident_bytes(worker)
    kafka.stop(signal.SIGKILL)
    gone_at = time.monotonic()
    most_pending = 0

    def is_over() -> bool:
        nonlocal most_pending
        most_pending = max(most_pending, worker_status(url).pending)
        return time.monotonic() >= gone_at + OUTAGE_SECONDS

    await until_async(is_over, "the end of the outage")
    status = worker_status(url)
    assert not status.ready
    assert status.reason.startswith("waiting for Kafka to acknowledge")
    assert most_pending < 2000 + 1000, "the queue, and one read on top of it"
    assert resident_bytes(worker) - before_bytes < MOST_GROWTH_BYTES
    kafka.start()
    await flowing(pipeline, url, 1000)
    await ended_whole(pipeline, worker, url, kafka.address, since)
    assert_quotes_rise(pipeline, kafka.address)


async def test_back_pressure_of_a_full_queue_pauses_sockets_and_bounds_memory(
    kafka: ApacheKafka, tmp_path: Path, parts: Parts
) -> None:
    pipeline = make_pipeline(kafka, parts, tmp_path, "full")
    await pipeline.venue(*MARKET)
    worker, url = await pipeline.worker(KAFKA_QUEUE_MAX_MESSAGES="1000")
    await until_async(lambda: worker_status(url).ready, "the worker to be ready")
    since = newest_ids(pipeline)
    await flowing(pipeline, url, 500)
    before_bytes = resident_bytes(worker)
    kafka.freeze()  # its connections stay open, it only stops responding
    try:
        await until_async(lambda: "acknowledge" in worker_status(url).reason, "the socket to be paused")
        received, seen = worker_status(url).received, newest_ids(pipeline)
        await until_async(
            lambda: all(newest >= seen[symbol] + 1000 for symbol, newest in newest_ids(pipeline).items()),
            "the market to continue",
        )
        assert worker_status(url).received == received, "nothing was read meanwhile"
        assert worker_status(url).pending < 1000 + 1000
        assert resident_bytes(worker) - before_bytes < MOST_GROWTH_BYTES
    finally:
        kafka.thaw()
    await flowing(pipeline, url, 1000)
    await ended_whole(pipeline, worker, url, kafka.address, since)
    assert_quotes_rise(pipeline, kafka.address)
