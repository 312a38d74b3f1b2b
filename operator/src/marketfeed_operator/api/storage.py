"""Parts of the spec about the database and the consumers that write to it."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.pods import Resources
from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import Port, SecretKey, SecretName

Days = Annotated[int, Field(ge=1, le=99_999)]


def _cron_field(value: str) -> str:
    """Of values as in `value`, the expression for what one field of cron may be: lists, ranges and steps of them."""
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
"""What a CronJob takes, in lower case."""
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
    """What is deleted, and when; a table that is not named is kept for ever."""

    trades_days: Days | None = Field(
        default=None, description="Days that trades are kept, by their time at the venue."
    )
    book_tickers_days: Days | None = Field(
        default=None, description="Days that quotes are kept, by the time they were received."
    )
    candles_days: Days | None = Field(
        default=None, description="Days that one-minute candles are kept; they do not need their trades."
    )
    dead_letters_days: Days | None = Field(
        default=None, description="Days that messages are kept which could not be stored."
    )
    schedule: str = Field(
        default="23 3 * * *",
        max_length=100,
        description="When it is deleted, as the five fields of cron, in UTC; without a word once a day.",
    )

    rules = (
        Rule(
            "has(self.tradesDays) || has(self.bookTickersDays) || has(self.candlesDays) || has(self.deadLettersDays)",
            "retention names no table: give at least one of tradesDays, bookTickersDays, candlesDays and "
            "deadLettersDays, or no retention to keep everything",
            lambda self: (
                (self.trades_days, self.book_tickers_days, self.candles_days, self.dead_letters_days)
                != (None, None, None, None)
            ),
        ),
        Rule(
            f"self.schedule.matches('^({_CRON})$')",
            "retention.schedule is no schedule: give the five fields of cron in UTC (minute, hour, day of the month, "
            "month, day of the week) like 23 3 * * *",
            lambda self: re.fullmatch(_CRON, self.schedule) is not None,
        ),
        Rule(
            _FORWARD_CEL,
            "retention.schedule has a range that ends before it begins: give two, like fri-sat,sun-mon for fri-mon",
            lambda self: _ranges_go_forward(self.schedule),
        ),
    )


class DatabaseTls(Declared):
    """How the database's certificate is verified."""

    ca_secret_name: SecretName = Field(
        description="Secret with the CA that the database's certificate is verified with. Where the address says "
        "nothing else, sslmode is verify-full."
    )
    ca_key: SecretKey = Field(default="ca.crt", description="Key of the CA in that Secret.")


class Storage(Declared):
    """The database that consumers write to."""

    engine: Literal["postgresql", "cockroachdb"] = Field(description="The database's kind.")
    dsn_secret_name: SecretName = Field(description="Secret with the connection string, postgresql://….")
    dsn_key: SecretKey = Field(
        default="DATABASE_URL", description="Key of the connection string in that Secret."
    )
    port: Port | None = Field(
        default=None,
        description="The database's port, for the network policy; none means 5432, or 26257 for CockroachDB.",
    )
    tls: DatabaseTls | None = Field(
        default=None,
        description="How the database's certificate is verified; none means what the address says.",
    )
    retention: Retention | None = Field(
        default=None,
        description="What is deleted from the database's tables once it is so many days old, whichever feed wrote it; "
        "none deletes nothing.",
    )


class Autoscaling(Declared):
    """Replicas by consumer lag; needs KEDA."""

    min_replicas: int = Field(default=1, ge=1, le=1000, description="Fewest replicas.")
    max_replicas: int = Field(ge=1, le=1000, description="Most replicas.")
    lag_threshold: int = Field(
        default=5000,
        ge=1,
        le=100_000_000,
        description="Messages behind, for each replica, above which one is added.",
    )
    trigger_authentication: SecretName | None = Field(
        default=None, description="KEDA's TriggerAuthentication, where Kafka asks who is there."
    )

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "autoscaling.minReplicas must not be above autoscaling.maxReplicas",
            lambda self: self.min_replicas <= self.max_replicas,
        ),
    )


class Batch(Declared):
    """Bounds of one transaction."""

    max_rows: int = Field(
        default=20_000, ge=1, le=1_000_000, description="Messages in one transaction at most."
    )
    max_ms: int = Field(
        default=1_000, ge=1, le=60_000, description="How long a batch may go on filling, in milliseconds."
    )
    linger_ms: int = Field(
        default=10,
        ge=0,
        le=60_000,
        description="How long a batch waits when there is nothing to read, in milliseconds.",
    )


class Consumer(Declared):
    """The consumers of one topic."""

    replicas: int | None = Field(default=None, ge=0, le=1000, description="Pods; none means 1.")
    autoscaling: Autoscaling | None = Field(default=None, description="Pods by lag, instead of replicas.")
    batch: Batch = Field(default=Batch(), description="Bounds of one transaction.")
    resources: Resources | None = Field(default=None, description="Compute resources of each pod.")

    rules = (
        Rule(
            "!(has(self.replicas) && has(self.autoscaling))",
            "give replicas or autoscaling, not both",
            lambda self: self.replicas is None or self.autoscaling is None,
        ),
    )


class Consumers(Declared):
    """The consumers, by topic; a topic without an entry has one."""

    trades: Consumer | None = Field(
        default=None, description="Consumers of the trades; none means one pod. replicas: 0 stores none."
    )
    book_ticker: Consumer | None = Field(
        default=None, description="Consumers of the quotes; none means one pod. replicas: 0 stores none."
    )
