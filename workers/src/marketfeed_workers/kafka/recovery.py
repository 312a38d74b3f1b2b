"""What the worker remembers in Kafka: reading it at start, and telling progress while it runs.

Both topics are compacted and small: one message a symbol, one a gap. They are read whole.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from marketfeed_service import logs
from marketfeed_service.errors import StartupError
from marketfeed_service.kafka import client_config
from marketfeed_wire import (
    DecodeError,
    Gap,
    Progress,
    QuoteProgress,
    decode_gap,
    decode_progress,
    decode_quote_progress,
)
from marketfeed_workers.settings import WorkerSettings

log = logs.get(__name__)

_METADATA_SECONDS: Final = 5.0


@dataclass(slots=True)
class RecoveredState:
    """What earlier processes of this venue have told."""

    progress: dict[str, int] = field(default_factory=dict)
    """Symbol -> the last trade id that Kafka acknowledged."""
    acknowledged_time_us: dict[str, int] = field(default_factory=dict)
    """Symbol -> when it did."""
    gaps: dict[str, dict[int, Gap]] = field(default_factory=lambda: defaultdict(dict))
    """Symbol -> first id -> the newest word on that gap, of the newest series that has one there."""
    checkpoints: dict[str, Progress] = field(default_factory=dict)
    """Symbol -> its newest checkpoint."""
    quotes: dict[str, QuoteProgress] = field(default_factory=dict)
    """Symbol -> the newest checkpoint of its quotes."""

    def newest_series(self, symbol: str) -> int:
        """Return the newest id series of the symbol's trades that either topic has a record of."""
        checkpoint = self.checkpoints.get(symbol)
        told = [] if checkpoint is None else [checkpoint.id_series]
        told += [gap.id_series for gap in self.gaps.get(symbol, {}).values()]
        return max(told, default=0)

    def _add_quote_checkpoint(self, venue: str, value: bytes) -> None:
        progress = decode_quote_progress(value)
        known = self.quotes.get(progress.symbol)
        if progress.venue == venue and (
            known is None or (progress.id_series, progress.update_id) >= (known.id_series, known.update_id)
        ):
            self.quotes[progress.symbol] = progress

    def add_checkpoint(self, venue: str, value: bytes) -> None:
        """A record of the progress topic."""
        if b'"update_id"' in value:
            self._add_quote_checkpoint(venue, value)
            return
        progress = decode_progress(value)
        known = self.checkpoints.get(progress.symbol)
        # Of two workers of a symbol one may still publish the series that has ended, or be behind. Records of several
        # keys, and so of several partitions, come in any order.
        if progress.venue == venue and (
            known is None or (progress.id_series, progress.trade_id) >= (known.id_series, known.trade_id)
        ):
            self.checkpoints[progress.symbol] = progress
            self.progress[progress.symbol] = progress.trade_id
            self.acknowledged_time_us[progress.symbol] = progress.acknowledged_time_us

    def add_gap(self, venue: str, value: bytes) -> None:
        """A record of the gaps topic."""
        gap = decode_gap(value)
        known = self.gaps[gap.symbol].get(gap.first_id)
        if gap.venue == venue and (known is None or gap.id_series >= known.id_series):
            self.gaps[gap.symbol][gap.first_id] = gap


def recover_state(
    settings: WorkerSettings,
    read_topic: Callable[[WorkerSettings, str, float], Iterator[bytes]] | None = None,
) -> RecoveredState:
    """Read both topics to their ends.

    Raises:
        StartupError: one cannot be read, or that took longer than START_DEADLINE_SECONDS.
    """
    state = RecoveredState()
    deadline = time.monotonic() + settings.start_deadline_seconds
    handlers = {
        settings.market_progress_topic: state.add_checkpoint,
        settings.market_gaps_topic: state.add_gap,
    }
    for topic, apply in handlers.items():
        try:
            for value in (read_topic or read_whole_topic)(settings, topic, deadline):
                _apply(apply, settings.venue, topic, value)
        except KafkaException as error:
            # Never taken for a topic without records: what it remembers would be missed without a word.
            raise StartupError(
                f"topic {topic} cannot be read: {error.args[0].str()}; check that this user may, and Kafka"
            ) from None
    return state


class SharedRecovery:
    """Kafka's memory as of now: those that need it while it is being read share the next reading.

    A venue that begins the ids of all its symbols again at once costs two readings, not one a symbol.
    """

    def __init__(self, read: Callable[[], RecoveredState]) -> None:
        """`read` is called in a thread."""
        self._read = read
        self._lock = asyncio.Lock()
        self._calls = count(1)
        self._begun = 0
        self._recovered_state = RecoveredState()

    async def __call__(self) -> RecoveredState:
        """Return what both topics hold, read to ends that are no older than this call.

        Raises:
            StartupError: see `recover_state`.
        """
        call = next(self._calls)
        async with self._lock:
            if self._begun < call:
                begun = next(self._calls)
                self._recovered_state = await asyncio.to_thread(self._read)
                self._begun = begun
            return self._recovered_state


def _apply(apply: Callable[[str, bytes], None], venue: str, topic: str, value: bytes) -> None:
    try:
        apply(venue, value)
    except DecodeError as error:
        log.warning("ledger record skipped", topic=topic, reason=str(error))


def read_whole_topic(settings: WorkerSettings, topic: str, deadline: float) -> Iterator[bytes]:
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
