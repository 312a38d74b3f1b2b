"""Publishing: the only module that produces to Kafka.

Counts what Kafka acknowledged, never what was handed to the client. The client's queue is bounded by this module's
own account of messages and bytes, and not by the library's limits: a message is never refused for lack of room,
instead whoever reads the sockets asks `full` and stops reading.

What can go wrong, and what becomes of it:

    broker away, leader changed, frozen   messages wait in the client, sockets are not read; nothing is lost
    credentials refused while running     the same, and `last_error` says so
    a message refused for good            `fatal_error` says so; the client takes nothing more, so that the topic has no
                                          gap; the process ends and the next one goes on after the last acknowledged
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from marketfeed_service import logs
from marketfeed_wire import key_for
from marketfeed_workers.counters import StreamCounters
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
"""What messages end with that the client itself did not send, because one before them was refused."""

# The client says at each start that this property, which we set knowingly, counts as experimental.
logging.getLogger("librdkafka").addFilter(
    lambda record: "enable.gapless.guarantee is experimental" not in record.getMessage()
)

_value_of: Final[Callable[["Record"], bytes]] = itemgetter("value")
_key_of: Final[Callable[["Record"], bytes]] = itemgetter("key")

Record = dict[str, Any]
"""One message for `Publisher.publish`, in the shape that the Kafka client takes: ``{"value": bytes, "key": bytes}``."""


class _DeliveryReport:
    """What is known of the messages of one read: the delivery callback of those that are reported on.

    One object a read and not a closure a message; the last report settles the account.
    """

    __slots__ = (
        "_keys",
        "_last_trade_ids",
        "_lost",
        "_on_acknowledged",
        "_owner",
        "_remaining",
        "_size_bytes",
        "_stream",
    )

    def __init__(
        self,
        owner: "Publisher",
        stream: StreamCounters,
        keys: list[bytes],
        reports: int,
        size_bytes: int,
        last_trade_ids: dict[str, int],
        on_acknowledged: Callable[[], None] | None,
    ) -> None:
        self._owner = owner
        self._stream = stream
        self._keys = keys  # of every message, also of those that no report is asked for
        self._lost: dict[bytes, int] = {}
        self._remaining = reports
        self._size_bytes = size_bytes
        self._last_trade_ids = last_trade_ids
        self._on_acknowledged = on_acknowledged

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            key = message.key() or b""
            self._owner.on_failed(error, self._stream, key)
            self._discount(key, self._owner.reports_by_key)
        self._on_report()

    def on_not_queued(self, record: Record) -> None:
        """The client did not take a message: no report will come of it."""
        key, is_reported = record["key"], "callback" in record
        self._owner.on_failed(record["_error"], self._stream, key)
        self._discount(key, self._owner.reports_by_key and is_reported)
        if is_reported:
            self._on_report()

    def _discount(self, key: bytes, with_all_before: bool) -> None:
        """Do not count a message, or none of its key: how many before it were acknowledged is not known then."""
        self._lost[key] = self._keys.count(key) if with_all_before else self._lost.get(key, 0) + 1

    def _on_report(self) -> None:
        self._remaining -= 1
        if not self._remaining:
            size = len(self._keys)
            self._stream.acknowledged += size - sum(self._lost.values())
            self._owner.settle(self, self._stream, size, self._size_bytes, self._last_trade_ids)
            if self._on_acknowledged is not None and not self._owner.fatal_error:
                self._on_acknowledged()


class Publisher:
    """A producer that knows what it has delivered.

    Attributes:
        acknowledged_trade_ids: symbol and id series, see `flow.series_key` -> the last trade id acknowledged.
        fatal_error: why message permanently rejected by Kafka, "" while it has not; what was refused is not lost as long
            as the process then ends, because the next one starts after the last acknowledged trade id.
        last_error: what the client's connections to Kafka last met, "" once Kafka has acknowledged something since.
        max_ranges: how many ranges of ids a note may tell so that the topics take it.
        reports_by_key: only the last message of each key in a read is reported on, and speaks for those before it.
        errors: name of an error of the client's connections, as librdkafka calls it -> how often it came.
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
        self._in_flight_reads: dict[_DeliveryReport, float] = {}
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
        """Messages handed over and not answered for."""
        return self._pending

    @property
    def oldest_unacknowledged_seconds(self) -> float:
        """Age of the oldest message that waits for its acknowledgement, 0 when none does. For any thread."""
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, self._monotonic() - oldest)

    @property
    def full(self) -> bool:
        """Whether sockets should not be read until acknowledgements come."""
        return self._pending >= self._max_messages or self._pending_bytes >= self._max_bytes

    @property
    def has_room(self) -> bool:
        """Whether sockets may be read again: half of the bound is free, so that reading does not stutter."""
        return self._pending * 2 <= self._max_messages and self._pending_bytes * 2 <= self._max_bytes

    @property
    def is_near_capacity(self) -> bool:
        """Whether room begins to be short: what can be left out without loss should be."""
        return self._pending * 4 >= self._max_messages * 3 or self._pending_bytes * 4 >= self._max_bytes * 3

    @property
    def auth_failed(self) -> bool:
        """Whether Kafka refuses the credentials, and has acknowledged nothing since."""
        return self._locked_out.active

    def publish(
        self,
        stream: StreamCounters,
        records: list[Record],
        _read_time_us: int,
        last_trade_ids: dict[str, int],
        on_acknowledged: Callable[[], None] | None = None,
    ) -> None:
        """Hand over the messages that one read brought for one topic, in order.

        `last_trade_ids` names the newest trade id of each symbol among them; empty for anything but trades.
        `on_acknowledged` is called when Kafka has acknowledged them all. A message that the client itself does not take
        (too large, or the client has failed for good) counts as refused.
        """
        size_bytes = sum(map(len, map(_value_of, records)))
        keys = list(map(_key_of, records))
        self._streams[stream.topic] = stream
        self._pending += len(keys)
        self._pending_bytes += size_bytes
        # The last message of each key speaks for those before it: one key goes to one partition, and where the client
        # keeps a partition without a gap nothing after a message that was refused is ever acknowledged.
        reported = list(dict(zip(keys, records, strict=True)).values()) if self.reports_by_key else records
        receipt = _DeliveryReport(
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
        """Take in the acknowledgements that have come, and wait up to `seconds` for the first."""
        try:
            self._producer.poll(seconds)
        except KafkaException as error:  # how the client tells of what it does not go on from
            self._blame(error.args[0].str())
            self._fail(error.args[0].str())
        self._oldest = next(iter(self._in_flight_reads.values()), None)

    def flush(self, timeout_seconds: float) -> int:
        """Wait until everything is answered for; the number of messages that were not in time."""
        # Not the client's own flush: that goes on calling back after it has failed, which Python forbids.
        deadline = self._monotonic() + timeout_seconds
        while self._pending and (remaining := deadline - self._monotonic()) > 0:
            self.poll(min(remaining, _FLUSH_STEP_SECONDS))
        return self._pending

    def replace_producer(self, timeout_seconds: float) -> None:
        """After a refusal: let go of what waits, and open a new client for the last word on progress."""
        self._producer.purge(in_flight=False)
        self.flush(timeout_seconds)
        self._producer = self._make_producer(self._config)

    def on_failed(self, error: KafkaError, stream: StreamCounters, key: bytes) -> None:
        """Remember that a message was refused for good; the first one is logged.

        Those that the client gives back because it takes nothing more are not refused, only left to the next start.
        """
        self._failed_keys.add(key)
        if error.code() in _PURGED:
            return
        if stream.topic not in self._blamed:
            stream.failed += 1
        self._fail(f"{stream.topic}: {error.str()}")

    def _blame(self, reason: str) -> None:
        """Count a refusal that the client tells of itself: no report may have been asked for what was refused."""
        for topic, stream in self._streams.items():
            if f" {topic} [" in reason:
                self._blamed.add(topic)
                stream.failed = stream.failed or 1

    def _fail(self, reason: str) -> None:
        if not self.fatal_error:
            self.fatal_error = f"message permanently rejected by Kafka: {reason}"
            log.error("message permanently rejected by Kafka", reason=reason)

    def _on_error(self, error: KafkaError) -> None:
        """The client tells what its connections meet, and logs it; it goes on trying by itself."""
        self.errors[error.name()] += 1
        if error.code() == KafkaError._AUTHENTICATION:
            self.last_error = f"Kafka refuses the credentials: {error.str()}"
            self._locked_out.begin(reason=error.str())
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:  # says less than the errors before it
            self.last_error = error.str()

    def settle(
        self,
        receipt: _DeliveryReport,
        stream: StreamCounters,
        size: int,
        size_bytes: int,
        last_trade_ids: dict[str, int],
    ) -> None:
        """Close the account of one read."""
        began = self._in_flight_reads.pop(receipt)
        self._pending -= size
        self._pending_bytes -= size_bytes
        stream.socket_to_ack.observe(int((self._monotonic() - began) * 1e6), size)
        if self.last_error:
            self.last_error = ""
            self._locked_out.end()
        # A symbol's messages stand in one partition, and a partition is acknowledged in order: the newest id of a
        # settled read covers every older one of that symbol. Reads as a whole may settle in another order.
        known = self.acknowledged_trade_ids
        refused = self._failed_keys
        for symbol, trade_id in last_trade_ids.items():
            if trade_id > known.get(symbol, -1) and not (
                refused and key_for(split_series_key(symbol)[0]) in refused
            ):
                known[symbol] = trade_id
