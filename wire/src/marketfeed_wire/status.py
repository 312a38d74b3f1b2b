"""What ``GET /status`` of a worker and of a consumer answers, as JSON.

The operator, the command line and the tests read these; nothing else of a service is looked at from outside.
Times are microseconds since the Unix epoch; ``None`` means "not yet".
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
    """Why the connection is not streaming; "" while it is."""


StreamState = Literal["waiting", "live", "idle", "stalled", "unverified"]
"""``waiting``: has not delivered since it was subscribed; ``live``: delivers; ``idle``: silent, and the venue has
nothing newer; ``stalled``: silent, and the venue has newer data; ``unverified``: silent for longer than usual, and REST
does not respond. A worker is ready when each stream is live or idle."""


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of a symbol."""

    state: StreamState
    silent_seconds: float
    """How long it has delivered nothing, counted from its subscription at most."""
    bound_seconds: float
    """After how many seconds of silence the venue is asked over REST whether it has anything newer."""


class SymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has seen of one symbol."""

    trades: int
    quotes: int
    last_trade_id: int | None
    last_trade_time_us: int | None
    missing: int
    """Trade ids that were jumped over and have not been published since."""
    duplicates: int
    streams: dict[str, StreamStatus] = {}
    """``trades`` and ``quotes``, those that are read."""
    id_series: int = 0
    """Of its trade ids: how often the venue has begun them again."""
    quote_series: int = 0
    """Likewise of its quotes' update ids."""
    conflicts: int = 0
    """Trades that came again with another time, price, quantity or side."""
    unproven: int = 0
    """Trades with known ids that were published, because nothing was left to compare them with."""
    held: int = 0
    """Trades that are held back until it is known whether the ids begin again."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process."""

    version: str
    venue: str
    shard: str
    ready: bool
    reason: str
    """Why the worker is not ready; "" when it is."""
    symbols: dict[str, SymbolStatus]
    refused_symbols: dict[str, str]
    """Symbols that were asked for and left out -> the reason."""
    connections: list[ConnectionStatus]
    received: dict[str, int]
    """Topic -> messages read from the venue."""
    acknowledged: dict[str, int]
    """Topic -> messages that Kafka has acknowledged."""
    failed: dict[str, int]
    """Topic -> messages that Kafka has refused for good."""
    pending: int
    """Messages handed to the Kafka client and not answered for yet."""
    rejected: dict[str, int] = {}
    """Reason -> messages that cannot be true and were kept as they came; "impossible_time"."""
    unexpected: int = 0
    """Messages of symbols or streams that this worker does not read."""
    oldest_unacknowledged_seconds: float = 0.0
    """Age of the oldest message that Kafka has not acknowledged; 0 when there is none."""
    assignment: str = ""
    """Hash of the assignment file that is applied (see `assignment`); "" without such a file, or not yet."""


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One partition that a consumer owns."""

    topic: str
    partition: int
    next_offset: int
    """The offset that the database says is next."""
    end_offset: int | None
    """The partition's end as the broker last told it."""


class StoredSymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What this consumer process has committed of one symbol."""

    rows: int
    latency_p50_us: int | None
    latency_p99_us: int | None
    """Wire to commit: from the worker's socket read to the database's answer to COMMIT."""
    conflicts: int = 0
    """Messages that say something else of what is stored."""
    id_series: int = 0
    """The newest series of its trade ids that this process has stored."""


class RetentionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `marketfeed-consumer retain` has done to a table, as the database has it."""

    deleted_rows: int
    impossible_rows: int
    """Rows that the newest run kept because their times cannot be."""
    unfinished_symbols: int
    """Symbols of which the newest run has not come to the end."""
    finished_time_us: int
    """When a run came to the end of a symbol last; 0 when none has."""


class ConsumerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer process."""

    version: str
    group: str
    ready: bool
    reason: str
    partitions: list[PartitionStatus]
    inserted: dict[str, int]
    """Table -> rows that this process has added."""
    duplicates: dict[str, int]
    """Table -> messages that were stored already, with the same content, and changed nothing."""
    conflicts: dict[str, int] = msgspec.field(default_factory=dict)
    """Table -> messages that say something else of what is stored; see trade_conflicts and quote_conflicts."""
    unverifiable: dict[str, int] = msgspec.field(default_factory=dict)
    """Table -> messages that repeat what has expired, so that their content could not be compared."""
    expired: dict[str, int] = msgspec.field(default_factory=dict)
    """Table -> late messages older than what is kept, which were not stored."""
    retention: dict[str, RetentionStatus] = msgspec.field(default_factory=dict)
    """By table; from the process that takes the audit's figures."""
    dead_letters: int
    symbols: dict[str, StoredSymbolStatus]
    latency_p50_us: int | None
    latency_p99_us: int | None
