"""Settings of the worker from environment variables."""

from collections.abc import Callable
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from marketfeed_service.kafka import KafkaSettings, TopicName
from marketfeed_service.settings import CommaSeparated, parse_time_us
from marketfeed_wire import BOOK_TICKER, GAPS, PROGRESS, REJECTED, TRADES, is_name
from marketfeed_workers.connection.rotation import parse_window
from marketfeed_workers.venues.registry import DEFAULT, VENUES


def _symbols(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [symbol for symbol in value if not is_name(symbol) or symbol != symbol.upper()]
    if wrong:
        raise ValueError(f"not a symbol in capitals: {', '.join(map(repr, wrong))}")
    repeated = sorted({symbol for symbol in value if value.count(symbol) > 1})
    if repeated:
        raise ValueError(f"named twice: {', '.join(repeated)}")
    return value


def _streams(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [kind for kind in value if kind not in ("trade", "bookTicker")]
    if wrong or not value:
        raise ValueError(f"not a stream: {', '.join(map(repr, wrong))}" if wrong else "no stream is named")
    return value


def _address(text: str) -> str:
    parts = urlsplit(text)
    if text and not parts.hostname:
        raise ValueError("it has no host")
    if parts.username is not None:
        raise ValueError("it has a user name, and addresses are logged")
    (parts.hostname or "").encode("idna")  # raises ValueError
    if parts.port == 0:
        raise ValueError("port 0 is not a valid port")
    for mark, part in (("?", "a query"), ("#", "a fragment")):
        if mark in text:
            raise ValueError(f"it has {part} ({mark}): give the base only, the rest is added")
    return text


def _base_without(*added: str) -> Callable[[str], str]:
    """Return a check that a base address does not have the path that is added to it."""

    def check(text: str) -> str:
        path = urlsplit(_address(text)).path
        for part in added:
            if f"{path}/".find(f"/{part}/") >= 0:
                raise ValueError(f"its path has /{part}, which is added: give the base only")
        return text

    return check


def _header_value(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("it has characters that are invalid in an HTTP header, such as a line break")
    return key


def _window(text: str) -> str:
    parse_window(text)
    return text


def _start_point(text: str) -> str:
    if text and not text.isdecimal():
        parse_time_us(text)
    return text


class WorkerSettings(KafkaSettings):
    """Settings of ``marketfeed-worker``."""

    venue: str = Field(DEFAULT, pattern=f"^({'|'.join(VENUES)})$", description=" or ".join(VENUES))
    shard: str = Field("0", description="name of this worker in metrics and logs, if several share a feed")
    binance_ws_base: Annotated[str, AfterValidator(_base_without("ws", "stream"))] = Field(
        "",
        pattern=r"^(|wss?://\S+)$",
        description="WebSocket base URL, ws:// or wss://; empty for the venue's own",
    )
    binance_rest_base: Annotated[str, AfterValidator(_base_without("api"))] = Field(
        "",
        pattern=r"^(|https?://\S+)$",
        description="REST base URL, http:// or https://; empty for the venue's own",
    )
    binance_symbols: Annotated[CommaSeparated, AfterValidator(_symbols)] = Field(
        (), description="symbols to subscribe, in capitals: BTCUSDT,ETHUSDT; this or SYMBOLS_FILE"
    )
    binance_streams: Annotated[CommaSeparated, AfterValidator(_streams)] = Field(
        ("trade", "bookTicker"), description="streams of each symbol: trade, bookTicker, or both"
    )
    symbols_file: str = Field(
        "",
        description="assignment file with the symbols, written by the operator; changes are applied while running",
    )
    ws_shard_size: int = Field(50, ge=1, le=512, description="symbols per WebSocket connection, 1 to 512")
    ws_transport: Literal["picows", "websockets"] = Field(
        "picows", description="WebSocket library: picows (fast) or websockets"
    )
    ws_open_timeout_seconds: float = Field(
        10, gt=0, le=120, description="timeout of a connection attempt in seconds"
    )
    ws_idle_timeout_seconds: float = Field(
        30,
        gt=0,
        le=600,
        description="seconds without a frame after which a connection is closed; a ping is sent at half of it",
    )
    ws_rotate_after_seconds: float = Field(
        23 * 3600, gt=0, le=7 * 86_400, description="age in seconds at which a connection is rotated"
    )
    ws_rotate_window: Annotated[str, AfterValidator(_window)] = Field(
        "", description="preferred time of day (UTC) of rotations, such as 02:00-04:30; empty for any"
    )
    ws_warm_timeout_seconds: float = Field(
        30,
        gt=0,
        le=600,
        description="seconds for a new connection to deliver each stream in a rotation before REST is queried",
    )
    ready_quiet_seconds: float = Field(
        5,
        ge=0,
        le=3600,
        description="seconds after which a stream without any message is verified over REST; it is ready if the venue "
        "has nothing newer",
    )
    ready_ack_seconds: float = Field(
        5,
        ge=1,
        le=60,
        description="age in seconds of the oldest unacknowledged message above which the worker is not ready",
    )
    validate_on_start: bool = Field(
        True,
        description="skip symbols that the venue does not list, until it does; halted ones are subscribed: "
        "true or false",
    )
    validate_only: bool = Field(False, description="only validate the symbols, print a table, exit 0 or 1")

    binance_api_key: Annotated[SecretStr, AfterValidator(_header_value)] = Field(
        SecretStr(""),
        description="API key for the venue's historical trades; without it older gaps can only be verified, not filled",
    )
    backfill_from: Annotated[str, AfterValidator(_start_point)] = Field(
        "",
        description="start of symbols without a checkpoint: a trade id, or a time such as 2026-01-31T00:00:00Z",
    )
    gap_hold_seconds: float = Field(
        10,
        ge=0,
        le=600,
        description="maximum seconds that trades wait in the reorder buffer for missing ones",
    )
    gap_hold_trades: int = Field(
        50_000,
        ge=0,
        le=5_000_000,
        description="maximum number of trades in the reorder buffers of all symbols",
    )
    venue_budget_share: int = Field(
        1,
        ge=1,
        le=1000,
        description="number of workers that share this address's request and connection limits",
    )

    market_trades_topic: TopicName = Field(TRADES, description="topic of trades")
    market_book_topic: TopicName = Field(BOOK_TICKER, description="topic of top-of-book quotes")
    market_progress_topic: TopicName = Field(PROGRESS, description="compacted topic of checkpoints")
    market_gaps_topic: TopicName = Field(GAPS, description="compacted topic of gaps in trade ids")
    market_rejected_topic: TopicName = Field(
        REJECTED,
        description="topic of messages rejected as impossible, for example by their time",
    )
    kafka_create_topics: bool = Field(True, description="create missing topics: true or false")
    kafka_topic_partitions: int = Field(4, ge=1, le=1000, description="partitions of created topics")
    kafka_topic_retention_hours: int = Field(
        168,
        ge=1,
        le=87_600,
        description="retention of created topics of trades and quotes, in hours",
    )
    progress_interval_seconds: float = Field(
        1,
        gt=0,
        le=600,
        description="interval of checkpoints in seconds; a restart publishes at most this much again",
    )
    kafka_acks: Literal["all", "1", "0"] = Field(
        "all", description="all, 1 or 0; below all a broker failure loses acknowledged messages"
    )
    kafka_linger_ms: float = Field(
        5, ge=0, le=10_000, description="time in milliseconds that a batch waits for more messages"
    )
    kafka_compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "lz4", description="none, gzip, snappy, lz4 or zstd"
    )
    kafka_queue_max_messages: int = Field(
        100_000,
        ge=1_000,
        le=5_000_000,
        description="number of unacknowledged messages at which reading is paused",
    )
    kafka_queue_max_bytes: int = Field(
        64 * 2**20,
        ge=2**20,
        le=2**31 - 1,
        description="unacknowledged bytes at which reading is paused",
    )

    def topics(self) -> tuple[str, ...]:
        """Return every topic that the worker publishes to."""
        return (
            self.market_trades_topic,
            self.market_book_topic,
            self.market_progress_topic,
            self.market_gaps_topic,
            self.market_rejected_topic,
        )

    @model_validator(mode="after")
    def _one_source_of_symbols(self) -> Self:
        if bool(self.binance_symbols) == bool(self.symbols_file):
            raise ValueError(
                "BINANCE_SYMBOLS and SYMBOLS_FILE are both set: set only one of them"
                if self.binance_symbols
                else "BINANCE_SYMBOLS is not set: set it to the symbols to subscribe, such as BTCUSDT,ETHUSDT"
            )
        return self

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        names = [f"market_{name}_topic" for name in ("trades", "book", "progress", "gaps", "rejected")]
        topics = [getattr(self, name) for name in names]
        for name, topic in zip(names, topics, strict=True):
            if topics.count(topic) > 1:
                raise ValueError(
                    f"{name.upper()}={topic!r} is also the name of another topic: they must differ"
                )
        return self
