"""Publishing: the only module that produces to Kafka.

Counts what Kafka acknowledged, never what was handed to the client. The client's queue is bounded by this module's
own account of messages and bytes, and not by the library's limits: a message is never refused for lack of room,
instead whoever reads the sockets asks `full` and stops reading.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from marketfeed_chassis import logs
from marketfeed_chassis.kafka import client_config
from marketfeed_workers.counters import StreamCounters
from marketfeed_workers.settings import WorkerSettings

log = logs.get(__name__)


_value_of: Final[Callable[["Record"], bytes]] = itemgetter("value")

Record = dict[str, Any]
"""One message for `Publisher.publish`, in the shape that the Kafka client takes: ``{"value": bytes, "key": bytes}``."""


class _Receipt:
    """What is known of the messages of one read: the delivery callback of all of them.

    One object a read and not a closure a message; the last acknowledgement settles the account.
    """

    __slots__ = (
        "_last_trade_ids",
        "_on_settled",
        "_owner",
        "_read_time_us",
        "_remaining",
        "_size",
        "_size_bytes",
        "_stream",
    )

    def __init__(
        self,
        owner: "Publisher",
        stream: StreamCounters,
        records: list[Record],
        size_bytes: int,
        read_time_us: int,
        last_trade_ids: dict[str, int],
        on_settled: Callable[[], None] | None,
    ) -> None:
        self._owner = owner
        self._stream = stream
        self._size = self._remaining = len(records)
        self._size_bytes = size_bytes
        self._read_time_us = read_time_us
        self._last_trade_ids = last_trade_ids
        self._on_settled = on_settled

    def __call__(self, error: KafkaError | None, _: Message | None) -> None:
        if error is None:
            self._stream.acknowledged += 1
        else:
            self._stream.failed += 1
            self._owner.on_refused(error, self._stream.topic)
        self._remaining -= 1
        if not self._remaining:
            self._owner.settle(
                self._stream, self._size, self._size_bytes, self._read_time_us, self._last_trade_ids
            )
            if self._on_settled is not None and not self._owner.refusal:
                self._on_settled()


class Publisher:
    """A producer that knows what it has delivered.

    Attributes:
        acknowledged_trade_ids: symbol -> the last trade id that Kafka has acknowledged.
        refusal: why Kafka refused a message for good, "" while it has not; what was refused is not lost as long
            as the process then ends, because the next one starts after the last acknowledged trade id.
    """

    def __init__(self, settings: WorkerSettings, now_us: Callable[[], int]) -> None:
        self.acknowledged_trade_ids: dict[str, int] = {}
        self.refusal = ""
        self._now_us = now_us
        self._pending = 0
        self._pending_bytes = 0
        self._max_messages = settings.kafka_queue_max_messages
        self._max_bytes = settings.kafka_queue_max_bytes
        self._producer = Producer(producer_config(settings))

    @property
    def pending(self) -> int:
        """Messages handed over and not answered for."""
        return self._pending

    @property
    def full(self) -> bool:
        """Whether sockets should not be read until acknowledgements come."""
        return self._pending >= self._max_messages or self._pending_bytes >= self._max_bytes

    @property
    def has_room(self) -> bool:
        """Whether sockets may be read again: half of the bound is free, so that reading does not stutter."""
        return self._pending * 2 <= self._max_messages and self._pending_bytes * 2 <= self._max_bytes

    @property
    def is_pressed(self) -> bool:
        """Whether room begins to be short: what can be left out without loss should be."""
        return self._pending * 4 >= self._max_messages * 3 or self._pending_bytes * 4 >= self._max_bytes * 3

    def publish(
        self,
        stream: StreamCounters,
        records: list[Record],
        read_time_us: int,
        last_trade_ids: dict[str, int],
        on_settled: Callable[[], None] | None = None,
    ) -> None:
        """Hand over the messages that one read brought for one topic, in order.

        `last_trade_ids` names the newest trade id of each symbol among them; empty for anything but trades.
        `on_settled` is called when Kafka has acknowledged them all. A message that the client itself does not take
        (too large, or the client has failed for good) counts as refused.
        """
        size_bytes = sum(map(len, map(_value_of, records)))
        self._pending += len(records)
        self._pending_bytes += size_bytes
        receipt = _Receipt(self, stream, records, size_bytes, read_time_us, last_trade_ids, on_settled)
        if self._producer.produce_batch(stream.topic, records, on_delivery=receipt) != len(records):
            for record in records:
                if "_error" in record:
                    receipt(record["_error"], None)

    def poll(self) -> None:
        """Take in the acknowledgements that have come, without waiting."""
        self._producer.poll(0)

    def flush(self, timeout_seconds: float) -> int:
        """Wait until everything is answered for; the number of messages that were not in time."""
        self._producer.flush(timeout_seconds)
        return self._pending

    def on_refused(self, error: KafkaError, topic: str) -> None:
        """Remember that a message was refused for good; the first one is logged."""
        if not self.refusal:
            self.refusal = f"Kafka refused a message for {topic}: {error.str()}"
            log.error("Kafka refused a message for good", topic=topic, reason=error.str())

    def settle(
        self,
        stream: StreamCounters,
        size: int,
        size_bytes: int,
        read_time_us: int,
        last_trade_ids: dict[str, int],
    ) -> None:
        """Close the account of one read."""
        self._pending -= size
        self._pending_bytes -= size_bytes
        stream.socket_to_ack.observe(max(0, self._now_us() - read_time_us), size)
        # A symbol's messages stand in one partition, and a partition is acknowledged in order: the newest id of a
        # settled read covers every older one of that symbol. Reads as a whole may settle in another order.
        if not self.refusal:
            known = self.acknowledged_trade_ids
            for symbol, trade_id in last_trade_ids.items():
                if trade_id > known.get(symbol, -1):
                    known[symbol] = trade_id


def producer_config(settings: WorkerSettings) -> dict[str, Any]:
    """The librdkafka properties of the producer."""
    return {
        **client_config(settings),
        "client.id": f"marketfeed-worker-{settings.shard}",
        "acks": settings.kafka_acks,
        "enable.idempotence": settings.kafka_acks == "all",
        "linger.ms": settings.kafka_linger_ms,
        "compression.type": settings.kafka_compression,
        # Never give a message up: a broker that is away fills the queue, and then the sockets are not read.
        "message.timeout.ms": 0,
        # The bound is our own (`full`), because the library refuses a message where we stop reading a socket.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2**31 - 1,
    }
