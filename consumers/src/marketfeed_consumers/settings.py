"""The settings of the consumer; see `marketfeed-consumer --help`."""

from collections.abc import Mapping
from typing import Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn
from pydantic import Field, SecretStr, field_validator, model_validator

from marketfeed_service.kafka import KafkaSettings
from marketfeed_service.settings import CommandSettings, CommaSeparated
from marketfeed_wire import BOOK_TICKER, GAPS, REJECTED, TRADES

_TOPIC = r"^[A-Za-z0-9._-]{1,249}$"


class DatabaseSettings(CommandSettings):
    """The database's settings; the other commands need no more."""

    database_url: SecretStr = Field(
        description="postgresql://user:password@host:port/database, as libpq reads it; "
        "PostgreSQL or CockroachDB, sslmode and sslrootcert in its query string"
    )

    @field_validator("database_url")
    @classmethod
    def _is_a_database_url(cls, value: SecretStr) -> SecretStr:
        check_database_url(value.get_secret_value())
        return value


def check_database_url(url: str) -> None:
    """Check that libpq parses `url` as intended. libpq's own error texts are not shown, as they may contain passwords.

    Raises:
        ValueError: the URL is invalid, for example because of an @ in the password; the text contains no part of it.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("it must begin with postgresql://")
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except ProgrammingError:
        raise ValueError(
            f"libpq cannot parse it: {_ENCODED}, and only libpq options are allowed after the ?"
        ) from None
    ports = parts.get("port", "").split(",")
    if "@" in parts.get("host", "")[1:] + parts.get("dbname", "") or not all(
        not port or (port.isascii() and port.isdigit()) for port in ports
    ):
        raise ValueError(f"it contains more than one @, or a port that is not a number: {_ENCODED}")
    if not all(0 < int(port or 5432) < 65_536 for port in ports):
        raise ValueError("a port must be a number from 1 to 65535")
    if name := _refused_option(parts):
        raise ValueError(f"libpq rejects its value of {name}")


_WHOLE_NUMBERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)


def _refused_option(parts: Mapping[str, str]) -> str:
    """Return the option whose value libpq would reject when it connects, or "". Does not connect.

    libpq validates its options before it connects. So two attempts at a socket that does not exist, with and without
    the options, fail with the same text if the options are valid, whatever the language of the messages.
    """
    for name in _WHOLE_NUMBERS:
        if not parts.get(name, "0").strip().lstrip("+-").isdecimal():
            return name
    hosts = 1 + max(parts.get(name, "").count(",") for name in ("host", "hostaddr"))
    # Without a user libpq looks up the name of the process's user, which may not exist in a container.
    nowhere = {
        "host": ",".join(["/nonexistent"] * hosts), "port": ",".join(["5432"] * hosts), "user": "nobody"
    }  # fmt: skip
    options = {name: value for name, value in parts.items() if name not in ("host", "hostaddr", "port")}
    usual = _attempt(nowhere)
    if _attempt({**nowhere, **options}) == usual:
        return ""
    found = (name for name, value in options.items() if _attempt({**nowhere, name: value}) != usual)
    return next(found, "one of " + ", ".join(options))


def _attempt(options: Mapping[str, str]) -> bytes:
    connection = PGconn.connect_start(make_conninfo(**options).encode())
    try:
        return connection.error_message
    finally:
        connection.finish()


_ENCODED = "write %25, %40 and %2F for the characters % @ / in user and password"


class ConsumerSettings(DatabaseSettings, KafkaSettings):
    """The settings of `marketfeed-consumer run`."""

    kafka_group: str = Field("marketfeed", min_length=1, max_length=249, description="the consumer group")
    kafka_group_instance_id: str = Field(
        "",
        max_length=249,
        description="static membership: a name that is stable over restarts (the pod's name), so that a restart "
        "causes no rebalance",
    )
    kafka_session_timeout_ms: int = Field(
        45_000,
        ge=1_000,
        le=1_800_000,
        description="how long the group waits for a member's heartbeat before it reassigns its partitions, in ms",
    )
    kafka_fetch_wait_ms: int = Field(
        20,
        ge=1,
        le=60_000,
        description="how long the broker may hold a fetch request while it has no records, in ms: a longer wait makes "
        "fewer requests on idle topics",
    )
    consumer_topics: CommaSeparated = Field(
        (), description="topics to consume, of the MARKET_…_TOPIC ones, comma separated [all of them]"
    )
    market_trades_topic: str = Field(TRADES, pattern=_TOPIC, description="topic of the trades")
    market_book_topic: str = Field(BOOK_TICKER, pattern=_TOPIC, description="topic of the quotes")
    market_gaps_topic: str = Field(GAPS, pattern=_TOPIC, description="topic of the gaps in trade ids")
    market_rejected_topic: str = Field(
        REJECTED,
        pattern=_TOPIC,
        description="topic of messages that workers have rejected; they are stored as dead letters",
    )
    batch_max_rows: int = Field(
        20_000, ge=1, le=1_000_000, description="maximum number of messages in one transaction"
    )
    batch_max_ms: int = Field(
        1_000,
        ge=1,
        le=60_000,
        description="how long a batch may fill while there is more to read, in ms",
    )
    batch_linger_ms: int = Field(
        10,
        ge=0,
        le=60_000,
        description="how long a batch waits for more records when there is nothing more to read, in ms: "
        "a longer wait makes fewer transactions and adds latency",
    )

    audit_interval_seconds: float = Field(
        60,
        ge=0,
        le=86_400,
        description="interval of the audit's figures (missing trades, open gaps, completeness by symbol) in /metrics, "
        "collected by the process that owns the first partition of the trades' topic; 0: never",
    )

    @model_validator(mode="after")
    def _reads_what_it_knows(self) -> "ConsumerSettings":
        known = self.tables_by_topic()
        if len(known) < len(_TOPIC_FIELDS):
            raise ValueError(
                f"{' and '.join(name.upper() for name in _TOPIC_FIELDS)} must be different topics"
            )
        for topic in self.consumer_topics:
            if topic not in known:
                raise ValueError(
                    f"CONSUMER_TOPICS names {topic!r}, which is none of the topics with a table: {', '.join(known)}"
                )
        return self

    def tables_by_topic(self) -> dict[str, str]:
        """Return topic -> the table of its messages, for every topic that has one."""
        return {getattr(self, field): table for field, table in _TOPIC_FIELDS.items()}

    def required_topics(self) -> tuple[str, ...]:
        """Return the topics that must exist: workers of an earlier version have no topic of rejected messages."""
        return tuple(topic for topic in self.topics() if topic != self.market_rejected_topic)

    def topics(self) -> tuple[str, ...]:
        """Return the subscribed topics."""
        return self.consumer_topics or tuple(self.tables_by_topic())


_TOPIC_FIELDS = {
    "market_trades_topic": "trades",
    "market_book_topic": "book_tickers",
    "market_gaps_topic": "trade_gaps",
    "market_rejected_topic": "dead_letters",
}
