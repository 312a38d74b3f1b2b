"""Recovery of checkpoints and gaps from Kafka.

Both topics are compacted and small: a record per symbol and per gap. They are read completely.
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
    Checkpoint,
    DecodeError,
    Gap,
    QuoteCheckpoint,
    decode_checkpoint,
    decode_gap,
    decode_quote_checkpoint,
)
from marketfeed_workers.settings import WorkerSettings

log = logs.get(__name__)

_METADATA_SECONDS: Final = 5.0


@dataclass(slots=True)
class RecoveredState:
    """Checkpoints and gaps of earlier processes of this venue."""

    progress: dict[str, int] = field(default_factory=dict)
    """Symbol -> last acknowledged trade id."""
    acknowledged_time_us: dict[str, int] = field(default_factory=dict)
    """Symbol -> time of its acknowledgement."""
    gaps: dict[str, dict[int, Gap]] = field(default_factory=lambda: defaultdict(dict))
    """Symbol -> first id -> newest record of the gap, of the newest series with such a gap."""
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    """Symbol -> newest checkpoint."""
    quotes: dict[str, QuoteCheckpoint] = field(default_factory=dict)
    """Symbol -> newest checkpoint of its quotes."""

    def newest_series(self, symbol: str) -> int:
        """Return the newest id series of the symbol's trades in either topic."""
        checkpoint = self.checkpoints.get(symbol)
        published = [] if checkpoint is None else [checkpoint.id_series]
        published += [gap.id_series for gap in self.gaps.get(symbol, {}).values()]
        return max(published, default=0)

    def _add_quote_checkpoint(self, venue: str, value: bytes) -> None:
        progress = decode_quote_checkpoint(value)
        known = self.quotes.get(progress.symbol)
        if progress.venue == venue and (
            known is None or (progress.id_series, progress.update_id) >= (known.id_series, known.update_id)
        ):
            self.quotes[progress.symbol] = progress

    def add_checkpoint(self, venue: str, value: bytes) -> None:
        """Add a record of the checkpoint topic."""
        if b'"update_id"' in value:
            self._add_quote_checkpoint(venue, value)
            return
        progress = decode_checkpoint(value)
        known = self.checkpoints.get(progress.symbol)
        # One of two workers of a symbol may be behind, or still publish the series that has ended. Records of different
        # keys, and therefore partitions, are read in any order.
        if progress.venue == venue and (
            known is None or (progress.id_series, progress.trade_id) >= (known.id_series, known.trade_id)
        ):
            self.checkpoints[progress.symbol] = progress
            self.progress[progress.symbol] = progress.trade_id
            self.acknowledged_time_us[progress.symbol] = progress.acknowledged_time_us

    def add_gap(self, venue: str, value: bytes) -> None:
        """Add a record of the gap topic."""
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
        StartupError: a topic cannot be read within START_DEADLINE_SECONDS.
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
            # Must not count as an empty topic: its checkpoints and gaps would be lost silently.
            raise StartupError(
                f"topic {topic} cannot be read: {error.args[0].str()}; check Kafka and this user's permissions"
            ) from None
    return state


class SharedRecovery:
    """Recovery on demand: concurrent callers share the next read.

    An id reset of all symbols at once costs two reads, not one per symbol.
    """

    def __init__(self, read: Callable[[], RecoveredState]) -> None:
        """Args: `read`, which is called in a thread."""
        self._read = read
        self._lock = asyncio.Lock()
        self._calls = count(1)
        self._begun = 0
        self._recovered_state = RecoveredState()

    async def __call__(self) -> RecoveredState:
        """Return the content of both topics, read to ends that are not older than this call.

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
    """Yield the values of a topic from its beginning to its current end.

    Raises:
        StartupError: not finished by `deadline` (monotonic).
        KafkaException: the topic cannot be read.
    """
    consumer = Consumer(
        {
            **client_config(settings),
            "group.id": "marketfeed-worker-start",  # required by the client; nothing is committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "fetch.wait.max.ms": 20,  # delay of the end of a topic; 500 by default, at each start
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
