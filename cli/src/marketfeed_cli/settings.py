"""Settings of ``marketfeed demo`` and ``marketfeed replay``: Kafka and database of the user."""

from pydantic import Field, SecretStr, field_validator

from marketfeed_consumers.settings import check_database_url
from marketfeed_service.settings import Settings
from marketfeed_wire import BOOK_TICKER, TRADES
from marketfeed_workers.venues.registry import VENUES

_TOPIC = r"^[A-Za-z0-9._-]{1,249}$"


class RunSettings(Settings):
    """Settings of a run; all other settings of the services (such as SASL and TLS) are passed on unchanged."""

    kafka_broker: str = Field(
        "",
        pattern=r"^(|[^\s:,]+:\d+(,[^\s:,]+:\d+)*)$",
        description="bootstrap servers, host:port[,host:port…]; unset starts an embedded broker",
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="postgresql://… of the database; unset starts an embedded PostgreSQL",
    )
    venue: str = Field(
        "binance_us",
        pattern=f"^({'|'.join(VENUES)})$",
        description=f"venue and protocol: {', '.join(VENUES)}",
    )
    market_trades_topic: str = Field(TRADES, pattern=_TOPIC, description="topic of trades")
    market_book_topic: str = Field(BOOK_TICKER, pattern=_TOPIC, description="topic of top-of-book quotes")
    market_progress_topic: str = Field(
        "",
        pattern=f"^$|{_TOPIC}",
        description="topic of checkpoints; unset uses the default topic for a live venue",
    )
    market_gaps_topic: str = Field(
        "", pattern=f"^$|{_TOPIC}", description="topic of gaps; unset uses the default topic for a live venue"
    )

    market_rejected_topic: str = Field(
        "",
        pattern=f"^$|{_TOPIC}",
        description="topic of rejected messages; unset uses the default topic for a live venue",
    )

    @property
    def is_persistent(self) -> bool:
        """Whether messages or rows persist after the run."""
        return bool(self.kafka_broker or self.database_url.get_secret_value())

    @field_validator("database_url")
    @classmethod
    def _is_a_database_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url:
            check_database_url(url)
        return value
