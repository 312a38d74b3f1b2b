"""What ``marketfeed demo`` and ``marketfeed replay`` take from the environment: parts of the user's own."""

from pydantic import Field, SecretStr, field_validator

from marketfeed_chassis.settings import Settings
from marketfeed_consumers.settings import check_database_url
from marketfeed_wire import BOOK_TICKER, TRADES
from marketfeed_workers.venues.registry import VENUES

_TOPIC = r"^[A-Za-z0-9._-]{1,249}$"


class OwnParts(Settings):
    """Every other variable of the services (SASL and TLS settings, for example) is handed on to them as it is."""

    kafka_broker: str = Field(
        "",
        pattern=r"^(|[^\s:,]+:\d+(,[^\s:,]+:\d+)*)$",
        description="bootstrap servers of your own, host:port[,host:port…]; unset starts an embedded broker",
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="postgresql://… of a database of your own; unset starts an embedded PostgreSQL",
    )
    venue: str = Field(
        "binance_us",
        pattern=f"^({'|'.join(VENUES)})$",
        description=f"venue whose protocol is spoken: {', '.join(VENUES)}",
    )
    market_trades_topic: str = Field(TRADES, pattern=_TOPIC, description="topic of trades")
    market_book_topic: str = Field(BOOK_TICKER, pattern=_TOPIC, description="topic of top-of-book quotes")
    market_progress_topic: str = Field(
        "",
        pattern=f"^$|{_TOPIC}",
        description="topic of progress; unset takes the usual one for a live venue",
    )
    market_gaps_topic: str = Field(
        "", pattern=f"^$|{_TOPIC}", description="topic of gaps; unset takes the usual one for a live venue"
    )

    market_rejected_topic: str = Field(
        "",
        pattern=f"^$|{_TOPIC}",
        description="topic of rejected messages; unset takes the usual one for a live venue",
    )

    @property
    def any(self) -> bool:
        """Whether what passes stays somewhere after the run."""
        return bool(self.kafka_broker or self.database_url.get_secret_value())

    @field_validator("database_url")
    @classmethod
    def _is_a_database_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url:
            check_database_url(url)
        return value
