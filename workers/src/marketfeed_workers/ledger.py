"""What the worker remembers in Kafka: reading it at start, and telling progress while it runs.

Both topics are compacted and small: one message a symbol, one a gap. They are read whole.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from marketfeed_chassis import logs
from marketfeed_chassis.errors import StartupError
from marketfeed_chassis.kafka import client_config
from marketfeed_wire import DecodeError, Gap, Progress, decode_gap, decode_progress, encode, progress_key
from marketfeed_workers.counters import Counters
from marketfeed_workers.pipeline import Pipeline
from marketfeed_workers.publisher import Publisher
from marketfeed_workers.settings import WorkerSettings

log = logs.get(__name__)

_METADATA_SECONDS: Final = 5.0


@dataclass(slots=True)
class Memory:
    """What earlier processes of this venue have told."""

    progress: dict[str, int] = field(default_factory=dict)
    """Symbol -> the last trade id that Kafka acknowledged."""
    acknowledged_time_us: dict[str, int] = field(default_factory=dict)
    """Symbol -> when it did."""
    gaps: dict[str, dict[int, Gap]] = field(default_factory=lambda: defaultdict(dict))
    """Symbol -> first id -> the newest word on that gap."""

    def take_progress(self, venue: str, value: bytes) -> None:
        """A record of the progress topic."""
        progress = decode_progress(value)
        if progress.venue == venue:
            self.progress[progress.symbol] = progress.trade_id
            self.acknowledged_time_us[progress.symbol] = progress.acknowledged_time_us

    def take_gap(self, venue: str, value: bytes) -> None:
        """A record of the gaps topic."""
        gap = decode_gap(value)
        if gap.venue == venue:
            self.gaps[gap.symbol][gap.first_id] = gap


def read_memory(
    settings: WorkerSettings,
    read_topic: Callable[[WorkerSettings, str, float], Iterator[bytes]] | None = None,
) -> Memory:
    """Read both topics to their ends.

    Raises:
        StartupError: one cannot be read, or that took longer than START_DEADLINE_SECONDS.
    """
    memory = Memory()
    deadline = time.monotonic() + settings.start_deadline_seconds
    takers = {
        settings.market_progress_topic: memory.take_progress,
        settings.market_gaps_topic: memory.take_gap,
    }
    for topic, take in takers.items():
        try:
            for value in (read_topic or whole_topic)(settings, topic, deadline):
                _take(take, settings.venue, topic, value)
        except KafkaException as error:
            # Never taken for a topic without records: what it remembers would be missed without a word.
            raise StartupError(
                f"topic {topic} cannot be read: {error.args[0].str()}; check that this user may, and Kafka"
            ) from None
    return memory


def _take(take: Callable[[str, bytes], None], venue: str, topic: str, value: bytes) -> None:
    try:
        take(venue, value)
    except DecodeError as error:
        log.warning("a record of our own topic cannot be read; passed over", topic=topic, reason=str(error))


def whole_topic(settings: WorkerSettings, topic: str, deadline: float) -> Iterator[bytes]:
    """The values of a topic, from its beginning to the end that it has now.

    Raises:
        StartupError: that was not done at `deadline`, by the monotonic clock.
        KafkaException: it cannot be read.
    """
    consumer = Consumer(
        {
            **client_config(settings),
            "group.id": "marketfeed-worker-start",  # required by the client; nothing is ever committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "fetch.wait.max.ms": 20,  # the end of a topic is told that much later; 500 by default, at each start
        }
    )
    try:
        metadata = consumer.list_topics(topic, timeout=_METADATA_SECONDS).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        unread = set(metadata.partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in unread])
        while unread:
            if time.monotonic() > deadline:
                raise StartupError(
                    f"topic {topic} was not read within {settings.start_deadline_seconds:g} s; "
                    "raise START_DEADLINE_SECONDS, or check that it is compacted"
                )
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                value = message.value()
                if value is not None:
                    yield value
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
            else:
                raise KafkaException(error)
    finally:
        consumer.close()


class ProgressTeller:
    """Publishes how far each symbol is acknowledged."""

    def __init__(
        self,
        settings: WorkerSettings,
        pipeline: Pipeline,
        publisher: Publisher,
        counters: Counters,
        now_us: Callable[[], int],
    ) -> None:
        self._venue = settings.venue
        self._pipeline = pipeline
        self._publisher = publisher
        self._counters = counters
        self._now_us = now_us
        self._told: dict[str, int] = {}

    def tell(self) -> None:
        """Publish what has changed since it was last told."""
        self._pipeline.publish_gap_changes()
        now_us = self._now_us()
        records = []
        for symbol, acknowledged_id in self._publisher.acknowledged_trade_ids.items():
            trade_id = self._pipeline.checkpoint(symbol, acknowledged_id)
            if trade_id <= self._told.get(symbol, self._pipeline.resumed_id(symbol)):
                continue
            self._told[symbol] = trade_id
            progress = Progress(self._venue, symbol, trade_id, now_us)
            records.append({"value": encode(progress), "key": progress_key(self._venue, symbol)})
        if records:
            self._publisher.publish(self._counters.progress, records, now_us, {})
