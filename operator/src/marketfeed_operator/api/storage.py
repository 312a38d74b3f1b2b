"""Storage part of the spec: the database and the consumers that write to it."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.pods import Resources
from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import Port, SecretKey, SecretName

Days = Annotated[int, Field(ge=1, le=99_999)]


def _cron_field(value: str) -> str:
    """Return the regular expression of one cron field: lists, ranges and steps of `value`."""
    part = f"([*]|({value})(-({value}))?)(/[1-9][0-9]?)?"
    return f"{part}(,{part})*"


_DAYS: Final = "sun|mon|tue|wed|thu|fri|sat"
_MONTHS: Final = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_CRON: Final = " ".join(
    _cron_field(value)
    for value in (
        "[0-5]?[0-9]",
        "[01]?[0-9]|2[0-3]",
        "0?[1-9]|[12][0-9]|3[01]",
        f"0?[1-9]|1[0-2]|{_MONTHS}",
        f"[0-6]|{_DAYS}",
    )
)
"""As in a CronJob, in lower case."""
_NUMBERS: Final = [
    *zip(_MONTHS.split("|"), range(1, 13), strict=True), *zip(_DAYS.split("|"), range(7), strict=True),
]  # fmt: skip
_NUMBERED_CEL: Final = "self.schedule" + "".join(
    f".replace('{name}', '{number}')" for name, number in _NUMBERS
)
_FORWARD_CEL: Final = (
    f"{_NUMBERED_CEL}.split(' ').all(f, f.split(',').all(r, !r.matches('^[0-9]+-[0-9]+(/[0-9]+)?$') || "
    "int(r.split('/')[0].split('-')[0]) <= int(r.split('/')[0].split('-')[1])))"
)


def _ranges_go_forward(schedule: str) -> bool:
    for name, number in _NUMBERS:
        schedule = schedule.replace(name, str(number))
    return all(int(first) <= int(last) for first, last in re.findall("([0-9]+)-([0-9]+)", schedule))


class Retention(Declared):
    """Retention of stored rows; tables without a value are kept indefinitely."""

    trades_days: Days | None = Field(default=None, description="Retention of trades, in days, by trade time.")
    book_tickers_days: Days | None = Field(
        default=None, description="Retention of quotes, in days, by receive time."
    )
    candles_days: Days | None = Field(
        default=None,
        description="Retention of one-minute candles, in days; independent of the retention of trades.",
    )
    dead_letters_days: Days | None = Field(default=None, description="Retention of dead letters, in days.")
    schedule: str = Field(
        default="23 3 * * *",
        max_length=100,
        description="Schedule of the deletion, five cron fields in UTC; defaults to once a day.",
    )

    rules = (
        Rule(
            "has(self.tradesDays) || has(self.bookTickersDays) || has(self.candlesDays) || "
            "has(self.deadLettersDays)",
            "retention has no value: set at least one of tradesDays, bookTickersDays, candlesDays and "
            "deadLettersDays, or remove retention to keep everything",
            lambda self: (
                (self.trades_days, self.book_tickers_days, self.candles_days, self.dead_letters_days)
                != (None, None, None, None)
            ),
        ),
        Rule(
            f"self.schedule.matches('^({_CRON})$')",
            "retention.schedule is not a schedule: use the five cron fields in UTC (minute, hour, day of "
            "the month, month, day of the week), like 23 3 * * *",
            lambda self: re.fullmatch(_CRON, self.schedule) is not None,
        ),
        Rule(
            _FORWARD_CEL,
            "retention.schedule has a range that ends before it begins: use two, like fri-sat,sun-mon for "
            "fri-mon",
            lambda self: _ranges_go_forward(self.schedule),
        ),
    )


class DatabaseTls(Declared):
    """TLS verification of the database."""

    ca_secret_name: SecretName = Field(
        description="Name of the Secret with the CA of the database's certificate. sslmode defaults to "
        "verify-full."
    )
    ca_key: SecretKey = Field(default="ca.crt", description="Key of the CA in the Secret.")


class Storage(Declared):
    """Database that consumers write to."""

    engine: Literal["postgresql", "cockroachdb"] = Field(description="Database engine.")
    dsn_secret_name: SecretName = Field(
        description="Name of the Secret with the connection string, postgresql://…."
    )
    dsn_key: SecretKey = Field(
        default="DATABASE_URL", description="Key of the connection string in the Secret."
    )
    port: Port | None = Field(
        default=None,
        description="Port of the database, for the network policy; defaults to 5432, or 26257 for "
        "CockroachDB.",
    )
    tls: DatabaseTls | None = Field(
        default=None,
        description="TLS verification of the database; defaults to the parameters of the connection string.",
    )
    retention: Retention | None = Field(
        default=None,
        description="Retention of stored rows, for all rows of the tables, including those of other feeds; "
        "by default rows are kept indefinitely.",
    )


class Autoscaling(Declared):
    """Autoscaling by consumer lag. Requires KEDA."""

    min_replicas: int = Field(default=1, ge=1, le=1000, description="Minimum number of replicas.")
    max_replicas: int = Field(ge=1, le=1000, description="Maximum number of replicas.")
    lag_threshold: int = Field(
        default=5000,
        ge=1,
        le=100_000_000,
        description="Consumer lag per replica, in messages, above which a replica is added.",
    )
    trigger_authentication: SecretName | None = Field(
        default=None, description="Name of KEDA's TriggerAuthentication, when Kafka requires authentication."
    )

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "autoscaling.minReplicas must not be above autoscaling.maxReplicas",
            lambda self: self.min_replicas <= self.max_replicas,
        ),
    )


class Batch(Declared):
    """Limits of one database transaction."""

    max_rows: int = Field(
        default=20_000, ge=1, le=1_000_000, description="Maximum number of messages per transaction."
    )
    max_ms: int = Field(
        default=1_000, ge=1, le=60_000, description="Maximum time to fill a batch, in milliseconds."
    )
    linger_ms: int = Field(
        default=10,
        ge=0,
        le=60_000,
        description="Maximum wait for further messages when none are available, in milliseconds.",
    )


class Consumer(Declared):
    """Consumers of one topic."""

    replicas: int | None = Field(default=None, ge=0, le=1000, description="Number of pods; defaults to 1.")
    autoscaling: Autoscaling | None = Field(
        default=None, description="Autoscaling by consumer lag, instead of replicas."
    )
    batch: Batch = Field(default=Batch(), description="Limits of one database transaction.")
    resources: Resources | None = Field(default=None, description="Compute resources of each pod.")

    rules = (
        Rule(
            "!(has(self.replicas) && has(self.autoscaling))",
            "set replicas or autoscaling, not both",
            lambda self: self.replicas is None or self.autoscaling is None,
        ),
    )


class Consumers(Declared):
    """Consumers by topic; a topic without a value has one."""

    trades: Consumer | None = Field(
        default=None, description="Consumers of trades; defaults to one pod. replicas: 0 disables storing."
    )
    book_ticker: Consumer | None = Field(
        default=None, description="Consumers of quotes; defaults to one pod. replicas: 0 disables storing."
    )
