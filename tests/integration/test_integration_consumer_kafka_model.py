"""simtest's model of Kafka for consumers, and Apache Kafka with the real client: the same reports from both.

A report is what a consumer can observe: assigned and revoked partitions, returned offsets, the error that ends
reading, responses of the admin client. Not tested: a member that is frozen or cut off (the real client's heartbeats
have their own thread).
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from integration_kafka import ApacheKafka, cut_log, require_kafka

from marketfeed_consumers.kafka import admin_requests as consumer_kafka
from marketfeed_consumers.kafka.admin_requests import OffsetRange, consumer_config
from marketfeed_consumers.kafka.leases import Lease
from marketfeed_consumers.kafka.truncation import LOG_LOST, find_truncated
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_devtools.waiting import until
from marketfeed_service.settings import read
from marketfeed_simtest.clock import Clock
from marketfeed_simtest.consumers.clients import Admin, Client, Reach
from marketfeed_simtest.consumers.group import Group
from marketfeed_simtest.consumers.tasks import Tasks
from marketfeed_simtest.consumers.topics import Brokers

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

PARTITIONS = 3
WAIT_SECONDS = 60.0


class Rig(Protocol):
    """Interface of a scenario to Kafka."""

    topic: str
    admin: Any

    def client(self, config: dict[str, Any] | None = None) -> Any:
        """Return a client as the consumer creates it."""

    def config(self) -> dict[str, Any]:
        """Return the properties of the client."""

    def send(self, partition: int, count: int) -> None:
        """Publish records to one partition."""

    def transaction(self, partition: int, count: int, *, commits: bool) -> None:
        """Publish records in a transaction, and end it."""

    def cut(self, partition: int, offset: int) -> None:
        """Truncate a partition's log to `offset`, as after a power loss."""

    def expire(self, partition: int, offset: int) -> None:
        """Delete the records before `offset`."""

    def recreate(self) -> None:
        """Delete the topic and create it again."""


class ModelRig:
    topic = "scenario"

    def __init__(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        self.brokers = Brokers(self.clock, _rng(), (self.topic,), PARTITIONS)
        self.group = Group(self.tasks, self.brokers)
        self.reach = Reach(self.brokers)
        self.admin = Admin(self.tasks, self.brokers, self.reach)
        self._keys = {self.brokers.partition_of(b"%d" % number): b"%d" % number for number in range(99)}

    def run(self, scenario: Callable[[Any], Any]) -> Any:
        found: list[Any] = []
        with self.tasks.installed():
            task = self.tasks.spawn("scenario", lambda: found.append(scenario(self)))
            while not task.is_done:
                self.tasks.run_until(self.clock.seconds + 1)
            self.tasks.end()
        if task.error is not None:
            raise task.error
        return found[0]

    def client(self, config: dict[str, Any] | None = None) -> Any:
        del config
        return Client(self.tasks, self.brokers, self.group, self.reach, lambda *_: None)

    def config(self) -> dict[str, Any]:
        return {}

    def send(self, partition: int, count: int) -> None:
        for _ in range(count):
            self.brokers.append(self.topic, self._keys[partition], b"a record")

    def transaction(self, partition: int, count: int, *, commits: bool) -> None:
        for _ in range(count):
            self.brokers.append(
                self.topic, self._keys[partition], b"a record", "record" if commits else "aborted"
            )
        self.brokers.append(self.topic, self._keys[partition], None, "control")

    def cut(self, partition: int, offset: int) -> None:
        for number, log in enumerate(self.brokers.topics[self.topic].logs):
            if number == partition:
                log.cut(offset)
            else:
                log.elect()  # the broker was killed
        self.brokers.changed()

    def expire(self, partition: int, offset: int) -> None:
        self.brokers.topics[self.topic].logs[partition].delete_before(offset)
        self.brokers.changed()

    def recreate(self) -> None:
        self.brokers.delete(self.topic)
        self.brokers.create(self.topic)


def _rng() -> Any:
    import random

    return random.Random(1)  # noqa: S311 - a test that can be repeated


class KafkaRig:
    def __init__(self, kafka: ApacheKafka, folder: Path) -> None:
        self.kafka = kafka
        self.folder = folder
        self.topic = f"scenario-{secrets.token_hex(4)}"
        self.group = f"group-{secrets.token_hex(4)}"
        self.admin: AdminClient = kafka.admin
        self.producer = Producer({"bootstrap.servers": kafka.address, "linger.ms": 0, "log_level": 0})
        self._create()

    def _create(self) -> None:
        self.kafka.new_topic(self.topic, PARTITIONS)
        until(lambda: self.topic in self.admin.list_topics(timeout=5).topics, "the topic")

    def run(self, scenario: Callable[[Any], Any]) -> Any:
        return scenario(self)

    def client(self, config: dict[str, Any] | None = None) -> Any:
        return Consumer(config or self.config())

    def config(self) -> dict[str, Any]:
        settings = read(
            ConsumerSettings,
            {
                "DATABASE_URL": "postgresql://nobody@database.invalid/market",
                "KAFKA_BROKER": self.kafka.address,
                "KAFKA_GROUP": self.group,
                "KAFKA_SESSION_TIMEOUT_MS": "6000",
            },
        )
        return {**consumer_config(settings, lambda _: None), "log_level": 0}

    def send(self, partition: int, count: int) -> None:
        for number in range(count):
            self.producer.produce(self.topic, b"a record", b"key", partition)
            if number % 5 == 4:  # in batches at whose bounds a log can be truncated
                assert self.producer.flush(30) == 0
        assert self.producer.flush(30) == 0

    def transaction(self, partition: int, count: int, *, commits: bool) -> None:
        end = bounds(self)[partition].high + count + 1
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.address,
                "transactional.id": secrets.token_hex(4),
                "log_level": 0,
            }
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        for _ in range(count):
            producer.produce(self.topic, b"a record", b"key", partition)
        assert producer.flush(30) == 0
        (producer.commit_transaction if commits else producer.abort_transaction)(30)
        # The broker acknowledges before it has written the control record.
        until(lambda: bounds(self)[partition].high == end, "the transaction's control record")

    def cut(self, partition: int, offset: int) -> None:
        cut_log(self.kafka, self.folder, self.topic, partition, offset)

    def expire(self, partition: int, offset: int) -> None:
        for answer in self.admin.delete_records([TopicPartition(self.topic, partition, offset)]).values():
            answer.result()

    def recreate(self) -> None:
        for answer in self.admin.delete_topics([self.topic]).values():
            answer.result()
        until(lambda: self.topic not in self.admin.list_topics(timeout=5).topics, "the topic to be gone")
        self._create()
        self.producer = Producer({"bootstrap.servers": self.kafka.address, "linger.ms": 0, "log_level": 0})


class Member:
    """A client and its rebalance events; `positions` are the offsets that the database would hold."""

    def __init__(self, rig: Any, positions: dict[int, int] | None = None) -> None:
        self.positions = {} if positions is None else positions
        self.owned: set[int] = set()
        self.events: list[str] = []
        self.read: list[tuple[int, int]] = []
        self.strays = 0
        self.ends: list[tuple[int, int]] = []
        self.errors: list[tuple[int, int]] = []
        self.topic = rig.topic
        self.client = rig.client()
        self.client.subscribe(
            [rig.topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=lambda *_: self.events.append("lost"),
        )

    def _assigned(self, client: Any, partitions: Sequence[TopicPartition]) -> None:
        self.owned |= {one.partition for one in partitions}
        if partitions:
            self.events.append(f"assigned {len(partitions)}")
        client.incremental_assign(
            [
                TopicPartition(self.topic, one.partition, self.positions.get(one.partition, 0))
                for one in partitions
            ]
        )

    def _revoked(self, client: Any, partitions: Sequence[TopicPartition]) -> None:
        self.owned -= {one.partition for one in partitions}
        self.events.append(f"revoked {len(partitions)}")
        client.incremental_unassign(partitions)

    def consume(self, count: int, seconds: float = 0.1) -> None:
        """Read the records of one call."""
        for message in self.client.consume(count, seconds):
            partition, error = message.partition(), message.error()
            if error is None:
                self.strays += partition not in self.owned
                self.read.append((partition, message.offset()))
                self.positions[partition] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self.ends.append((partition, message.offset()))
            else:
                self.errors.append((partition, error.code()))

    def close(self) -> None:
        """Leave the group."""
        self.client.close()


def pump(members: Sequence[Member], is_so: Callable[[], bool], count: int = 50) -> None:
    """Let members read, one after the other, until a condition holds."""

    def holds() -> bool:
        if is_so():
            return True
        for member in members:
            member.consume(count)
        return False

    def states() -> str:
        return f"the condition: {[(one.events, one.read[-1:], one.errors) for one in members]}"

    until(holds, states, WAIT_SECONDS)


def bounds(rig: Any) -> dict[int, OffsetRange]:
    """Return the bounds of the partitions, as the consumer requests them."""
    found = consumer_kafka.bounds(rig.admin, [(rig.topic, number) for number in range(PARTITIONS)])
    return {number: held for (_, number), held in found.items()}


def truncation_refusal(rig: Any, offsets: dict[int, int], leader_epoch: int) -> list[int]:
    """Return the partitions that a start would refuse."""
    claimed = [
        Lease(rig.topic, number, 2, offset, leader_epoch=leader_epoch) for number, offset in offsets.items()
    ]
    found = find_truncated(rig.config(), claimed, lambda: False, rig.client)
    return sorted(number for _, number in found)


def rebalance_between_members(rig: Any) -> Any:
    first = Member(rig)
    pump([first], lambda: len(first.owned) == PARTITIONS)
    second = Member(rig)
    pump([first, second], lambda: bool(second.owned) and len(first.owned | second.owned) == PARTITIONS)
    shared = first.owned & second.owned
    events = list(first.events), list(second.events)
    second.close()
    pump([first], lambda: len(first.owned) == PARTITIONS)
    first.close()
    return shared, events, first.events[-2:], second.events


def rebalance_within_a_batch(rig: Any) -> Any:
    for number in range(PARTITIONS):
        rig.send(number, 200)
    positions: dict[int, int] = {}
    first = Member(rig, positions)
    pump([first], lambda: len(first.read) >= 30, count=10)
    second = Member(rig, positions)
    pump([first, second], lambda: bool(second.owned), count=1)
    for number in range(PARTITIONS):  # on a slow machine the first has read everything before the rebalance
        rig.send(number, 200)
    pump([first, second], lambda: sum(positions.values()) == 400 * PARTITIONS, count=10)
    times = Counter([*first.read, *second.read])
    first.close()
    second.close()
    return first.strays, second.strays, len(times), set(times.values()), bool(second.read)


def redelivery_of_records_that_were_not_stored(rig: Any) -> Any:
    """The offsets in the database, not those committed to Kafka, are where reading begins."""
    rig.send(0, 10)
    first = Member(rig)
    pump([first], lambda: len(first.read) == 10)
    first.client.commit(offsets=[TopicPartition(rig.topic, 0, 7)], asynchronous=True)
    first.close()
    second = Member(rig, {0: 4})
    pump([second], lambda: len(second.read) == 6)
    second.close()
    return first.read, second.read


def records_of_transactions(rig: Any) -> Any:
    rig.send(0, 3)
    rig.transaction(0, 5, commits=True)
    rig.send(0, 2)
    rig.transaction(0, 4, commits=False)
    member = Member(rig)
    pump([member], lambda: (0, 16) in member.ends)
    member.close()
    return member.read, bounds(rig)[0]


def end_of_partition_is_reported_once(rig: Any) -> Any:
    rig.send(0, 5)
    member = Member(rig)
    pump([member], lambda: (0, 5) in member.ends)
    for _ in range(5):
        member.consume(10)
    rig.send(0, 5)
    pump([member], lambda: (0, 10) in member.ends)
    member.close()
    return [one for one in member.ends if one[0] == 0], member.read


def pause_loses_nothing(rig: Any) -> Any:
    rig.send(0, 60)
    member = Member(rig)
    pump([member], lambda: len(member.read) >= 5, count=5)
    member.client.pause(member.client.assignment())
    before = len(member.read)
    for _ in range(5):
        assert member.client.poll(0.1) is None
    member.client.resume(member.client.assignment())
    pump([member], lambda: (0, 60) in member.ends)
    member.close()
    return before < 60, member.read


def truncation_of_a_log(rig: Any) -> Any:
    for number in (0, 1):
        rig.send(number, 20)
    member = Member(rig)
    pump([member], lambda: {(0, 20), (1, 20)} <= set(member.ends))
    epoch = bounds(rig)[0].leader_epoch
    rig.cut(0, 10)
    short = truncation_refusal(rig, {0: 20, 1: 20}, epoch)
    before_the_cut = truncation_refusal(rig, {0: 10, 1: 10}, epoch)
    pump([member], lambda: bool(member.errors))
    rig.send(0, 30)
    grown = truncation_refusal(rig, {0: 20, 1: 20}, epoch)
    held = bounds(rig)
    member.close()
    broken = {(number, code in LOG_LOST) for number, code in member.errors}
    return short, before_the_cut, grown, broken, len(member.read), held[0][:2], held[0].leader_epoch > epoch


def retention_deletes_records(rig: Any) -> Any:
    rig.send(0, 20)
    rig.expire(0, 12)
    member = Member(rig, {0: 5})
    pump([member], lambda: bool(member.errors))
    member.close()
    return member.errors, member.read, bounds(rig)[0][:2]


def topic_created_again(rig: Any) -> Any:
    rig.send(0, 20)
    (before,) = consumer_kafka.topic_ids(rig.admin, [rig.topic]).values()
    epoch = bounds(rig)[0].leader_epoch
    rig.recreate()
    (after,) = consumer_kafka.topic_ids(rig.admin, [rig.topic]).values()
    empty = bounds(rig)[0][:2]
    member = Member(rig, {0: 20})
    pump([member], lambda: bool(member.errors))
    member.close()
    rig.send(0, 30)
    # Grown past the offset: only its id differs from the previous topic, neither offset nor epoch.
    return before != after, empty, member.errors, truncation_refusal(rig, {0: 20}, epoch), bounds(rig)[0][:2]


SCENARIOS = (
    rebalance_between_members,
    rebalance_within_a_batch,
    redelivery_of_records_that_were_not_stored,
    records_of_transactions,
    end_of_partition_is_reported_once,
    pause_loses_nothing,
    retention_deletes_records,
    topic_created_again,
    truncation_of_a_log,
)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApacheKafka, Path]]:
    require_kafka()
    folder = tmp_path_factory.mktemp("kafka")
    with ApacheKafka(folder) as started:
        yield started, folder


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_kafka_model_of_consumers_reports_what_kafka_reports(
    kafka: tuple[ApacheKafka, Path], scenario: Callable[[Any], Any]
) -> None:
    model = ModelRig().run(scenario)
    assert model == KafkaRig(*kafka).run(scenario)
