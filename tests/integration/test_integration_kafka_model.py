"""simtest's model of Kafka and Apache Kafka with the real client: one list of scenarios, the same reports from both.

A report is what a worker can observe: delivery reports, raised errors, and the records that a reader finds.
"""

import random
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from integration_kafka import ApacheKafka, require_kafka

from marketfeed_devtools.waiting import until
from marketfeed_service.settings import read
from marketfeed_simtest.clock import Clock
from marketfeed_simtest.kafka_log import Cluster
from marketfeed_simtest.kafka_producer import ProducerModel
from marketfeed_workers.kafka import recovery
from marketfeed_workers.kafka.producer_config import producer_config
from marketfeed_workers.kafka.publisher import _PURGED
from marketfeed_workers.settings import WorkerSettings

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

PARTITIONS = 3
KEYS = tuple(f"KEY{number}".encode() for number in range(6))
TOO_LARGE = 20_000
"""Size in bytes that the topics of these scenarios reject: their limit is smaller."""


class Rig(Protocol):
    """Interface of a scenario to Kafka."""

    def producer(self) -> Any:
        """Return a client as the worker creates it."""

    def wait(self, producer: Any, until_true: Callable[[], bool]) -> None:
        """Poll until a condition holds."""

    def contents(self) -> dict[bytes, list[bytes | None]]:
        """Return key -> its values, in the order of the topic."""

    def compacted(self) -> dict[bytes, bytes]:
        """Return key -> the newest value that a starting worker reads, for a ledger topic."""

    def away(self) -> None:
        """Freeze the brokers."""

    def back(self) -> None:
        """Resume the brokers."""


class Reports:
    """The client's delivery reports."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes, str]] = []

    def of(self, value: bytes) -> Callable[[KafkaError | None, Any], None]:
        def note(error: KafkaError | None, message: Any) -> None:
            how = "ok" if error is None else "given back" if error.code() in _PURGED else "refused"
            self.seen.append((message.key(), value, how))

        return note

    def by_key(self) -> dict[bytes, list[tuple[bytes, str]]]:
        return {key: [(value, how) for each, value, how in self.seen if each == key] for key in KEYS}


class ModelRig:
    topic = "scenario"

    def __init__(self) -> None:
        self.clock = Clock()
        self.cluster = Cluster(self.clock, random.Random(1), PARTITIONS)  # noqa: S311 - a test that can be repeated
        self.producers: list[ProducerModel] = []

    def producer(self) -> Any:
        made = _Refusing(self, len(self.producers) + 1)
        self.producers.append(made)
        return made

    def wait(self, producer: Any, until_true: Callable[[], bool]) -> None:
        for _ in range(1000):
            if until_true():
                return
            producer.poll(0.1)
        raise AssertionError("the condition did not hold in time")

    def contents(self) -> dict[bytes, list[bytes | None]]:
        records = self.cluster.records(self.topic)
        return {key: [each.value for each in records if each.key == key] for key in KEYS}

    def compacted(self) -> dict[bytes, bytes]:
        return {value.partition(b" ")[0]: value for value in self.cluster.compacted(self.topic)}

    def away(self) -> None:
        self.cluster.outage(3600)

    def back(self) -> None:
        self.cluster.down_until = self.clock.seconds


class _Refusing(ProducerModel):
    """The model, whose brokers reject too large records, as those of the other rig do."""

    def __init__(self, rig: ModelRig, life: int) -> None:
        super().__init__(rig.cluster, {}, life)
        self._rig = rig

    def produce_batch(self, topic: str, records: list[dict[str, Any]]) -> int:
        before = [each for each in records if len(each["value"]) <= TOO_LARGE]
        if len(before) == len(records):
            return super().produce_batch(topic, records)
        at = next(place for place, each in enumerate(records) if len(each["value"]) > TOO_LARGE)
        taken = super().produce_batch(topic, records[:at])
        self._rig.clock.advance(60)  # everything before it is written
        self.step()
        self._rig.cluster.refused_topics.add(topic)
        return taken + super().produce_batch(topic, records[at:])


class KafkaRig:
    def __init__(self, kafka: ApacheKafka) -> None:
        self.kafka = kafka
        self.topic = f"scenario-{secrets.token_hex(4)}"
        kafka.new_topic(
            self.topic, PARTITIONS, **{"max.message.bytes": str(TOO_LARGE), "cleanup.policy": "compact"}
        )
        self.settings = read(WorkerSettings, {"BINANCE_SYMBOLS": "BTCUSDT", "KAFKA_BROKER": kafka.address})

    def producer(self) -> Any:
        return Producer(producer_config(self.settings))

    def wait(self, producer: Any, until_true: Callable[[], bool]) -> None:
        def holds() -> bool:
            if until_true():
                return True
            producer.poll(0.1)
            return False

        until(holds, "the condition", 60)

    def contents(self) -> dict[bytes, list[bytes | None]]:
        found: dict[bytes, list[bytes | None]] = {key: [] for key in KEYS}
        consumer = Consumer(
            {"bootstrap.servers": self.kafka.address, "group.id": "scenario", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(self.topic, each, OFFSET_BEGINNING) for each in range(PARTITIONS)])
        unread = set(range(PARTITIONS))
        while unread:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is not None:
                unread.discard(message.partition())
            else:
                found[message.key() or b""].append(message.value())
        consumer.close()
        return found

    def compacted(self) -> dict[bytes, bytes]:
        values = recovery.read_whole_topic(self.settings, self.topic, time.monotonic() + 60)
        return {value.partition(b" ")[0]: value for value in values}

    def away(self) -> None:
        self.kafka.freeze()

    def back(self) -> None:
        self.kafka.thaw()


def batch(reports: Reports, first: int, count: int, *, every: int = 1) -> list[dict[str, Any]]:
    """Produce records over all keys; every `every`-th of them has a delivery report."""
    records = []
    for number in range(first, first + count):
        key = KEYS[number * 7 % len(KEYS)]
        value = key + b" %d" % number
        record: dict[str, Any] = {"key": key, "value": value}
        if number % every == 0:
            record["callback"] = reports.of(value)
        records.append(record)
    return records


def order_is_kept_within_a_key(rig: Any) -> Any:
    reports, producer = Reports(), rig.producer()
    for first in range(0, 300, 60):
        assert producer.produce_batch(rig.topic, batch(reports, first, 60)) == 60
    rig.wait(producer, lambda: len(reports.seen) == 300)
    return reports.by_key(), rig.contents(), len(producer)


def only_records_with_a_callback_are_reported(rig: Any) -> Any:
    reports, producer = Reports(), rig.producer()
    producer.produce_batch(rig.topic, batch(reports, 0, 120, every=5))
    rig.wait(producer, lambda: len(reports.seen) == 24 and len(producer) == 0)
    return reports.by_key(), rig.contents()


def outage_delays_all_reports(rig: Any) -> Any:
    reports, producer = Reports(), rig.producer()
    producer.produce_batch(rig.topic, batch(reports, 0, 12))
    rig.wait(producer, lambda: len(reports.seen) == 12)
    rig.away()
    try:
        producer.produce_batch(rig.topic, batch(reports, 12, 30))
        for _ in range(10):
            producer.poll(0.05)
        meanwhile = len(reports.seen), len(producer)
    finally:
        rig.back()
    rig.wait(producer, lambda: len(reports.seen) == 42)
    return meanwhile, reports.by_key(), rig.contents()


def rejected_record_ends_the_client(rig: Any) -> Any:
    reports, producer = Reports(), rig.producer()
    producer.produce_batch(rig.topic, batch(reports, 0, 12))
    rig.wait(producer, lambda: len(reports.seen) == 12)
    key = KEYS[0]
    large = key + b" " + secrets.token_hex(TOO_LARGE).encode()
    one: dict[str, Any] = {"key": key, "value": large, "callback": reports.of(large)}
    producer.produce_batch(rig.topic, [one])
    raised = []
    for _ in range(600):
        try:
            producer.poll(0.1)
        except KafkaException as error:
            raised.append(error.args[0].name())
        if any(value == large for _, value, _ in reports.seen):
            break
    late = batch(reports, 12, 3)
    try:
        taken = producer.produce_batch(rig.topic, late)
        producer.poll(0.1)
    except KafkaException as error:
        raised.append(error.args[0].name())
    errors = {each["_error"].name() for each in late if "_error" in each}
    how = [how for _, value, how in reports.seen if value == large]
    return bool(raised), taken, errors, how, rig.contents()


def recovery_reads_the_newest_value_of_each_key(rig: Any) -> Any:
    reports, producer = Reports(), rig.producer()
    for first in range(0, 60, 12):
        producer.produce_batch(rig.topic, batch(reports, first, 12))
        rig.wait(producer, lambda seen=first + 12: len(reports.seen) == seen)
    return rig.compacted()


def clients_write_side_by_side(rig: Any) -> Any:
    reports, first, second = Reports(), rig.producer(), rig.producer()
    for start in range(0, 120, 12):
        first.produce_batch(rig.topic, batch(reports, start, 6))
        second.produce_batch(rig.topic, batch(reports, 1000 + start, 6))
    rig.wait(first, lambda: len(first) == 0)
    rig.wait(second, lambda: len(reports.seen) == 120)
    contents = rig.contents()
    numbers = {key: [int(value.split()[1]) for value in values] for key, values in contents.items()}
    return {
        key: ([each for each in order if each < 1000], [each for each in order if each >= 1000])
        for key, order in numbers.items()
    }


SCENARIOS = (
    order_is_kept_within_a_key,
    only_records_with_a_callback_are_reported,
    outage_delays_all_reports,
    rejected_record_ends_the_client,
    recovery_reads_the_newest_value_of_each_key,
    clients_write_side_by_side,
)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    require_kafka()
    with ApacheKafka(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_kafka_model_reports_what_kafka_reports(kafka: ApacheKafka, scenario: Callable[[Any], Any]) -> None:
    rig = KafkaRig(kafka)
    until(lambda: rig.topic in kafka.admin.list_topics(timeout=5).topics, "the topic")
    real, model = scenario(rig), scenario(ModelRig())
    assert model == real
