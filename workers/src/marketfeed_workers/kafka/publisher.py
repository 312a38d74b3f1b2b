"""Publishing: the only module that produces to Kafka.

It counts acknowledged messages, not those handed to the client. The client's queue is bounded by the messages and bytes
counted here, and not by the library's limits: a message is never rejected because the queue is full; instead reading
the sockets is paused while the publisher is `full`.

Failures:

    broker unreachable, leader change     messages are in flight, reading is paused; nothing is lost
    authentication failed while running   the same; see `last_error`
    message permanently rejected          see `fatal_error`; the client stops, so that the topic has no gap; the process
                                          exits and the next one continues after the last acknowledged message
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from marketfeed_service import logs
from marketfeed_wire import key_for
from marketfeed_workers.counters import StreamCounters
from marketfeed_workers.kafka.delivery_report import DeliveryReport, Record
from marketfeed_workers.kafka.producer_config import CLIENT_BATCH_BYTES, producer_config
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.gaps import max_ranges
from marketfeed_workers.stream.series_key import split_series_key

log = logs.get(__name__)


_FLUSH_STEP_SECONDS: Final = 0.1

_PURGED: Final = {
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError._FATAL,
    KafkaError._GAPLESS_GUARANTEE,
}
"""Errors of messages that the client did not send because one before them was rejected."""

# The client logs at each start that this property is experimental.
logging.getLogger("librdkafka").addFilter(
    lambda record: "enable.gapless.guarantee is experimental" not in record.getMessage()
)

_value_of: Final[Callable[["Record"], bytes]] = itemgetter("value")
_key_of: Final[Callable[["Record"], bytes]] = itemgetter("key")


class Publisher:
    """A producer that tracks acknowledgements.

    Attributes:
        acknowledged_trade_ids: `series_key` of symbol and id series -> last acknowledged trade id.
        fatal_error: why Kafka permanently rejected a message; "" otherwise. The process must exit then: the next one
            continues after the last acknowledged trade id, so that nothing is lost.
        last_error: last error of the client's connections to Kafka; "" after the next acknowledgement.
        max_ranges: maximum number of ranges of a gap record that the topics accept.
        reports_by_key: only the last message of each key in a read has a delivery report, which covers those before it.
        errors: librdkafka's name of a connection error -> count.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        now_us: Callable[[], int],
        max_batch_bytes: int | None = None,
        *,
        make_producer: Callable[[dict[str, Any]], Producer] = Producer,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.acknowledged_trade_ids: dict[str, int] = {}
        self.fatal_error = ""
        self.last_error = ""
        self._locked_out = logs.Episode(
            log, "Kafka credentials refused", "Kafka credentials accepted", monotonic
        )
        self.errors: Counter[str] = Counter()
        self._now_us = now_us
        self._pending = 0
        self._pending_bytes = 0
        self._in_flight_reads: dict[DeliveryReport, float] = {}
        self._oldest: float | None = None
        self._max_messages = settings.kafka_queue_max_messages
        self._max_bytes = settings.kafka_queue_max_bytes
        self.max_ranges = max_ranges(max_batch_bytes or CLIENT_BATCH_BYTES)
        self._failed_keys: set[bytes] = set()
        self._streams: dict[str, StreamCounters] = {}
        self._blamed: set[str] = set()
        self.reports_by_key = settings.kafka_acks == "all"
        self._config = {**producer_config(settings, max_batch_bytes), "error_cb": self._on_error}
        self._make_producer = make_producer
        self._monotonic = monotonic
        self._producer = make_producer(self._config)

    @property
    def pending(self) -> int:
        """Number of messages in flight."""
        return self._pending

    @property
    def oldest_unacknowledged_seconds(self) -> float:
        """Age of the oldest unacknowledged message, 0 if there is none. For any thread."""
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, self._monotonic() - oldest)

    @property
    def full(self) -> bool:
        """Whether reading the sockets should be paused."""
        return self._pending >= self._max_messages or self._pending_bytes >= self._max_bytes

    @property
    def has_room(self) -> bool:
        """Whether reading may resume: half of the capacity is free (hysteresis)."""
        return self._pending * 2 <= self._max_messages and self._pending_bytes * 2 <= self._max_bytes

    @property
    def is_near_capacity(self) -> bool:
        """Whether the queue is three quarters full: quotes should be conflated."""
        return self._pending * 4 >= self._max_messages * 3 or self._pending_bytes * 4 >= self._max_bytes * 3

    @property
    def auth_failed(self) -> bool:
        """Whether authentication failed, and nothing was acknowledged since."""
        return self._locked_out.active

    def publish(
        self,
        stream: StreamCounters,
        records: list[Record],
        _read_time_us: int,
        last_trade_ids: dict[str, int],
        on_acknowledged: Callable[[], None] | None = None,
    ) -> None:
        """Produce the messages of one read to one topic, in order.

        A message that the client does not queue (too large, or after a fatal error of the client) counts as rejected.

        Args:
            stream: counters of the topic.
            records: the messages.
            _read_time_us: time of the read.
            last_trade_ids: `series_key` -> newest trade id in `records`; empty for other messages.
            on_acknowledged: called when all of them are acknowledged.
        """
        size_bytes = sum(map(len, map(_value_of, records)))
        keys = list(map(_key_of, records))
        self._streams[stream.topic] = stream
        self._pending += len(keys)
        self._pending_bytes += size_bytes
        # One report per key suffices: a key is in one partition, and with a gapless partition nothing after a rejected
        # message is ever acknowledged.
        reported = list(dict(zip(keys, records, strict=True)).values()) if self.reports_by_key else records
        receipt = DeliveryReport(
            self, stream, keys, len(reported), size_bytes, last_trade_ids, on_acknowledged
        )
        self._in_flight_reads[receipt] = self._monotonic()
        for record in reported:
            record["callback"] = receipt
        if self._producer.produce_batch(stream.topic, records) != len(keys):
            for record in records:
                if "_error" in record:
                    receipt.on_not_queued(record)

    def poll(self, seconds: float = 0) -> None:
        """Process acknowledgements; wait up to `seconds` for the first."""
        try:
            self._producer.poll(seconds)
        except KafkaException as error:  # fatal error of the client
            self._blame(error.args[0].str())
            self._fail(error.args[0].str())
        self._oldest = next(iter(self._in_flight_reads.values()), None)

    def flush(self, timeout_seconds: float) -> int:
        """Wait for all reports; return the number of messages still in flight after the timeout."""
        # Not the client's flush: that calls back after an exception in a callback, which Python forbids.
        deadline = self._monotonic() + timeout_seconds
        while self._pending and (remaining := deadline - self._monotonic()) > 0:
            self.poll(min(remaining, _FLUSH_STEP_SECONDS))
        return self._pending

    def replace_producer(self, timeout_seconds: float) -> None:
        """Purge the queue after a fatal error and create a new producer, for the last checkpoints."""
        self._producer.purge(in_flight=False)
        self.flush(timeout_seconds)
        self._producer = self._make_producer(self._config)

    def on_failed(self, error: KafkaError, stream: StreamCounters, key: bytes) -> None:
        """Record a permanently rejected message; log the first one.

        Messages purged by the client are not counted: the next process publishes them.
        """
        self._failed_keys.add(key)
        if error.code() in _PURGED:
            return
        if stream.topic not in self._blamed:
            stream.failed += 1
        self._fail(f"{stream.topic}: {error.str()}")

    def _blame(self, reason: str) -> None:
        """Attribute a fatal error of the client to its topic: the rejected message may have no report."""
        for topic, stream in self._streams.items():
            if f" {topic} [" in reason:
                self._blamed.add(topic)
                stream.failed = stream.failed or 1

    def _fail(self, reason: str) -> None:
        if not self.fatal_error:
            self.fatal_error = f"message permanently rejected by Kafka: {reason}"
            log.error("message permanently rejected by Kafka", reason=reason)

    def _on_error(self, error: KafkaError) -> None:
        """Handle an error of the client's connections; the client retries."""
        self.errors[error.name()] += 1
        if error.code() == KafkaError._AUTHENTICATION:
            self.last_error = f"Kafka authentication failed: {error.str()}"
            self._locked_out.begin(reason=error.str())
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:  # less specific than the errors before
            self.last_error = error.str()

    def settle(
        self,
        receipt: DeliveryReport,
        stream: StreamCounters,
        size: int,
        size_bytes: int,
        last_trade_ids: dict[str, int],
    ) -> None:
        """Complete a read whose messages were all reported."""
        began = self._in_flight_reads.pop(receipt)
        self._pending -= size
        self._pending_bytes -= size_bytes
        stream.socket_to_ack.observe(int((self._monotonic() - began) * 1e6), size)
        if self.last_error:
            self.last_error = ""
            self._locked_out.end()
        # A symbol's messages are in one partition, which is acknowledged in order: the newest id of a completed read
        # covers all older ones of the symbol. Whole reads may complete in another order.
        known = self.acknowledged_trade_ids
        refused = self._failed_keys
        for symbol, trade_id in last_trade_ids.items():
            if trade_id > known.get(symbol, -1) and not (
                refused and key_for(split_series_key(symbol)[0]) in refused
            ):
                known[symbol] = trade_id
