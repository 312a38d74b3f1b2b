"""The worker's settings: environment variables, read once."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from marketfeed_chassis.kafka import KafkaSettings
from marketfeed_chassis.settings import CommaSeparated
from marketfeed_wire import BOOK_TICKER, TRADES, is_name


def _symbols(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [symbol for symbol in value if not is_name(symbol) or symbol != symbol.upper()]
    if wrong:
        raise ValueError(f"not a symbol in capitals: {', '.join(map(repr, wrong))}")
    repeated = sorted({symbol for symbol in value if value.count(symbol) > 1})
    if repeated:
        raise ValueError(f"named twice: {', '.join(repeated)}")
    return value


class WorkerSettings(KafkaSettings):
    """Every variable that ``marketfeed-worker`` takes."""

    venue: Literal["binance_us", "binance"] = Field("binance_us", description="binance_us or binance")
    shard: str = Field("0", description="name of this worker in metrics and logs, where several share a feed")
    binance_ws_base: str = Field(
        "",
        pattern=r"^(|wss?://\S+)$",
        description="WebSocket base, ws:// or wss://; empty takes the venue's own",
    )
    binance_rest_base: str = Field(
        "",
        pattern=r"^(|https?://\S+)$",
        description="REST base, http:// or https://; empty takes the venue's own",
    )
    binance_symbols: Annotated[CommaSeparated, AfterValidator(_symbols)] = Field(
        min_length=1, description="symbols to read, in capitals: BTCUSDT,ETHUSDT"
    )
    ws_shard_size: int = Field(50, ge=1, le=512, description="symbols per WebSocket connection, 1 to 512")
    ws_transport: Literal["picows", "websockets"] = Field(
        "picows", description="WebSocket library: picows (fast) or websockets"
    )
    ws_open_timeout_seconds: float = Field(
        10, gt=0, le=120, description="how long one connection attempt may take"
    )
    ws_idle_timeout_seconds: float = Field(
        30,
        gt=0,
        le=600,
        description="silence after which a connection is pinged, and given up if nothing comes",
    )
    ready_quiet_seconds: float = Field(
        30,
        ge=0,
        le=3600,
        description="a stream that brings nothing for this long counts as quiet, not as missing",
    )
    validate_on_start: bool = Field(
        True, description="leave out symbols that the venue does not trade: true or false"
    )
    validate_only: bool = Field(False, description="only check the symbols, print a table, exit 0 or 1")

    market_trades_topic: str = Field(TRADES, min_length=1, description="topic of trades")
    market_book_topic: str = Field(BOOK_TICKER, min_length=1, description="topic of top-of-book quotes")
    kafka_acks: Literal["all", "1", "0"] = Field(
        "all", description="all, 1 or 0; below all a broker's loss loses acknowledged messages"
    )
    kafka_linger_ms: float = Field(5, ge=0, le=10_000, description="how long a batch waits for more messages")
    kafka_compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "lz4", description="none, gzip, snappy, lz4 or zstd"
    )
    kafka_queue_max_messages: int = Field(
        100_000,
        ge=1_000,
        le=5_000_000,
        description="unacknowledged messages at which sockets are no longer read",
    )
    kafka_queue_max_bytes: int = Field(
        64 * 2**20,
        ge=2**20,
        le=2**31 - 1,
        description="unacknowledged bytes at which sockets are no longer read",
    )

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        if self.market_trades_topic == self.market_book_topic:
            raise ValueError(
                f"MARKET_TRADES_TOPIC and MARKET_BOOK_TOPIC are both {self.market_book_topic!r}: they must differ"
            )
        return self
