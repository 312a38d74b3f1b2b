"""The JSON response of ``GET /status`` of a worker and of a consumer.

Read by the operator, the command line and the tests. Times are microseconds since the Unix epoch; ``None`` means
"not yet".
"""

from typing import Literal

import msgspec

ConnectionState = Literal["connecting", "streaming", "waiting", "refused", "closed"]


class ConnectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One WebSocket connection of a worker."""

    id: int
    state: ConnectionState
    streams: int
    connected_time_us: int | None
    last_frame_time_us: int | None
    reconnects: int
    reason: str
    """Why the connection is not streaming; "" if it is."""


StreamState = Literal["waiting", "live", "idle", "stalled", "unverified"]
"""``waiting``: no message since the subscription; ``live``: messages arrive; ``idle``: no messages, and the venue has
no newer data; ``stalled``: no messages, and the venue has newer data; ``unverified``: no messages for longer than
usual, and REST does not respond. A worker is ready if each stream is live or idle."""


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of a symbol."""

    state: StreamState
    silent_seconds: float
    """Seconds since the last message, or since the subscription."""
    bound_seconds: float
    """Seconds without a message after which the stream is checked against REST."""


class SymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one symbol in a worker."""

    trades: int
    quotes: int
    last_trade_id: int | None
    last_trade_time_us: int | None
    missing: int
    """Trade ids in open and unresolved gaps."""
    duplicates: int
    streams: dict[str, StreamStatus] = {}
    """The subscribed streams, ``trades`` and ``quotes``."""
    id_series: int = 0
    """Number of times that the venue has restarted the symbol's trade ids."""
    quote_series: int = 0
    """Number of times that the venue has restarted the update ids of its quotes."""
    conflicts: int = 0
    """Trades received again with another time, price, quantity or side."""
    unproven: int = 0
    """Trades with already published ids that were published again, because the first copy is not in memory."""
    held: int = 0
    """Buffered trades, until it is verified whether the venue has restarted the ids."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process."""

    version: str
    venue: str
    shard: str
    ready: bool
    reason: str
    """Why the worker is not ready; "" if it is."""
    symbols: dict[str, SymbolStatus]
    refused_symbols: dict[str, str]
    """Assigned symbols that are not subscribed -> the reason."""
    connections: list[ConnectionStatus]
    received: dict[str, int]
    """Topic -> messages received from the venue."""
    acknowledged: dict[str, int]
    """Topic -> messages that Kafka has acknowledged."""
    failed: dict[str, int]
    """Topic -> messages that Kafka has rejected with a permanent error."""
    pending: int
    """In-flight messages: produced and not acknowledged yet."""
    rejected: dict[str, int] = {}
    """Reason -> rejected messages with implausible content; "impossible_time"."""
    unexpected: int = 0
    """Messages of symbols or streams that are not assigned to this worker."""
    oldest_unacknowledged_seconds: float = 0.0
    """Age of the oldest in-flight message; 0 if there is none."""
    assignment: str = ""
    """Hash of the applied assignment file (see `assignment`); "" before that, or without a file."""


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One partition that a consumer owns."""

    topic: str
    partition: int
    next_offset: int
    """The committed offset in the database."""
    end_offset: int | None
    """The log end offset in the broker's last response."""


class StoredSymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one symbol that this consumer process has committed."""

    rows: int
    latency_p50_us: int | None
    latency_p99_us: int | None
    """Wire to commit: from the worker's socket read to the database's response to COMMIT."""
    conflicts: int = 0
    """Messages with the id of a stored row and another content."""
    id_series: int = 0
    """The newest series of its trade ids that this process has stored."""


class RetentionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The stored state of `marketfeed-consumer retain` for a table."""

    deleted_rows: int
    impossible_rows: int
    """Rows that the newest run kept because their times are impossible."""
    unfinished_symbols: int
    """Symbols that the newest run has not completed."""
    finished_time_us: int
    """When a run last completed a symbol; 0 if none has."""


class ConsumerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer process."""

    version: str
    group: str
    ready: bool
    reason: str
    partitions: list[PartitionStatus]
    inserted: dict[str, int]
    """Table -> rows that this process has inserted."""
    duplicates: dict[str, int]
    """Table -> duplicates skipped: messages already stored with the same content."""
    conflicts: dict[str, int] = msgspec.field(default_factory=dict)
    """Table -> messages with the id of a stored row and another content; see trade_conflicts and quote_conflicts."""
    unverifiable: dict[str, int] = msgspec.field(default_factory=dict)
    """Table -> duplicates of expired rows, whose content could not be compared."""
    expired: dict[str, int] = msgspec.field(default_factory=dict)
    """Table -> late messages older than the retention limit, which were not stored."""
    retention: dict[str, RetentionStatus] = msgspec.field(default_factory=dict)
    """By table; reported by the process that collects the audit's figures."""
    dead_letters: int
    symbols: dict[str, StoredSymbolStatus]
    latency_p50_us: int | None
    latency_p99_us: int | None
