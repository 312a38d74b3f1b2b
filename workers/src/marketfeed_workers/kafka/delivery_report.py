"""Delivery reports of the messages of one read."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, Message

from marketfeed_workers.counters import StreamCounters

if TYPE_CHECKING:
    from marketfeed_workers.kafka.publisher import Publisher

Record = dict[str, Any]
"""A message for `Publisher.publish` in the format of the Kafka client: ``{"value": bytes, "key": bytes}``."""


class DeliveryReport:
    """Delivery callback of the messages of one read, as one object per read instead of a closure per message.

    The last report completes the read.
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
        self._keys = keys  # of every message, also of those without a report
        self._lost: dict[bytes, int] = {}
        self._remaining = reports
        self._size_bytes = size_bytes
        self._last_trade_ids = last_trade_ids
        self._on_acknowledged = on_acknowledged

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """Handle the report of one message."""
        if error is not None:
            key = message.key() or b""
            self._owner.on_failed(error, self._stream, key)
            self._discount(key, self._owner.reports_by_key)
        self._on_report()

    def on_not_queued(self, record: Record) -> None:
        """Handle a message that the client did not queue: there will be no report."""
        key, is_reported = record["key"], "callback" in record
        self._owner.on_failed(record["_error"], self._stream, key)
        self._discount(key, self._owner.reports_by_key and is_reported)
        if is_reported:
            self._on_report()

    def _discount(self, key: bytes, with_all_before: bool) -> None:
        """Exclude a failed message from the count, or all of its key if it is unknown which before it were stored."""
        self._lost[key] = self._keys.count(key) if with_all_before else self._lost.get(key, 0) + 1

    def _on_report(self) -> None:
        self._remaining -= 1
        if not self._remaining:
            size = len(self._keys)
            self._stream.acknowledged += size - sum(self._lost.values())
            self._owner.settle(self, self._stream, size, self._size_bytes, self._last_trade_ids)
            if self._on_acknowledged is not None and not self._owner.fatal_error:
                self._on_acknowledged()
