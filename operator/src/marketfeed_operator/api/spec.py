"""The spec of a MarketFeed, as frozen types. The CRD is generated from these, see `crd`."""

from typing import Annotated, Literal

from pydantic import Field

from marketfeed_operator.api.kafka import Kafka
from marketfeed_operator.api.network import NetworkPolicy
from marketfeed_operator.api.pods import Image, Logging, PodTemplate, Resources, ServiceAccount
from marketfeed_operator.api.rules import Declared, Rule, keys_rule
from marketfeed_operator.api.storage import Consumers, Storage
from marketfeed_operator.api.values import LabelValue
from marketfeed_operator.api.venue import Endpoints, Symbol, SymbolSelector
from marketfeed_operator.api.worded import Worded

Stream = Literal["trade", "bookTicker"]
Window = Annotated[
    str,
    Field(max_length=11),
    Worded(
        r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$",
        "a window is HH:MM-HH:MM in UTC, such as 02:00-04:30",
    ),
]


class Rotation(Declared):
    """When connections are renewed before the venue ends them; the new one is up before the old one goes."""

    after_minutes: int = Field(
        default=1380, ge=1, le=1430, description="Age at which a connection is renewed, in minutes."
    )
    quiet_window_utc: Window | None = Field(
        default=None,
        description="Time of day, HH:MM-HH:MM in UTC, to which renewals are moved where their age allows.",
    )


class Ingestion(Declared):
    """The workers, one Deployment a shard."""

    replicas: int = Field(
        default=1,
        ge=1,
        le=2,
        description="Pods of each shard. 2 is hot-hot: both read the same symbols, and consumers store each message "
        "once.",
    )
    resources: Resources | None = Field(default=None, description="Compute resources of each pod.")
    validate_on_start: bool = Field(
        default=True,
        description="Whether workers ask the venue for its symbols first and leave out those it does not trade.",
    )
    rotation: Rotation | None = Field(
        default=None, description="When connections are renewed; none means the worker's default."
    )
    venue_budget_share: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="How many workers reach the venue from one address, and so share its budgets of requests and "
        "connection attempts; none means all workers of this feed. Changes restart nothing.",
    )
    max_updating_shards: int = Field(
        default=2,
        ge=1,
        le=100,
        description="Shards that may be restarted at the same time when settings change.",
    )


class Monitoring(Declared):
    """What Prometheus is told."""

    pod_monitor: bool = Field(
        default=True, description="Whether a PodMonitor is made, where the cluster knows that kind."
    )
    labels: dict[str, LabelValue] | None = Field(
        default=None,
        max_length=32,
        description="Labels of the PodMonitor, for Prometheus to select it by, for example release: prometheus.",
    )
    interval_seconds: int = Field(
        default=30, ge=5, le=3600, description="How often metrics are read, in seconds."
    )

    rules = (keys_rule("labels", "monitoring.labels"),)


class Images(Declared):
    """Other images than those that the operator was installed with."""

    worker: Image | None = Field(default=None, description="Image of the workers.")
    consumer: Image | None = Field(default=None, description="Image of the consumers and of the migration.")


class Spec(Declared):
    """What is to be there."""

    venue: Literal["binance_us", "binance"] = Field(description="The venue that is read.")
    endpoints: Endpoints | None = Field(
        default=None,
        description="Where the venue is, instead of its own addresses: a proxy, or the simulator.",
    )
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1, max_length=5000)] | None = Field(
        default=None,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="The symbols that are read, in capitals.",
    )
    symbol_selector: SymbolSelector | None = Field(
        default=None, description="Symbols by what the venue says of them, instead of symbols."
    )
    streams: tuple[Stream, ...] = Field(
        default=("trade", "bookTicker"),
        min_length=1,
        max_length=2,
        # Not a set: server-side apply would keep what the default had put into it and nobody owns.
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="Streams that are read of each symbol.",
    )
    shard_size: int = Field(
        default=50,
        ge=1,
        le=512,
        description="Most symbols of one shard, which is one pod with one connection. A change moves symbols and "
        "restarts nothing.",
    )
    ingestion: Ingestion = Field(default=Ingestion(), description="The workers, one Deployment a shard.")
    kafka: Kafka = Field(description="Where messages are published, and how safely.")
    storage: Storage | None = Field(
        default=None,
        description="The database that consumers write to; none means that the feed ends at Kafka.",
    )
    consumers: Consumers | None = Field(
        default=None,
        description="The consumers, by topic; none means one pod for each stream, where there is a storage.",
    )
    logging: Logging = Field(default=Logging(), description="How the services log.")
    monitoring: Monitoring = Field(default=Monitoring(), description="What Prometheus is told.")
    images: Images | None = Field(
        default=None, description="Other images than those that the operator was installed with."
    )
    paused: bool = Field(
        default=False,
        description="Whether the operator leaves everything of this feed as it is. Its pods go on.",
    )
    network_policy: NetworkPolicy = Field(
        default=NetworkPolicy(), description="Network policies of the feed's pods."
    )
    service_account: ServiceAccount | None = Field(default=None, description="Identity of the feed's pods.")
    template: PodTemplate = Field(default=PodTemplate(), description="What is added to each pod of the feed.")

    def secret_names(self) -> frozenset[str]:
        """The Secrets that the feed's pods read, all in its own namespace."""
        credentials, named = self.kafka.credentials, [self.storage and self.storage.dsn_secret_name]
        if credentials is not None and credentials.sasl is not None:
            named.append(credentials.sasl.secret_name)
        if credentials is not None and credentials.tls is not None:
            named += [credentials.tls.ca_secret_name, credentials.tls.client_secret_name]
        if self.storage is not None and self.storage.tls is not None:
            named.append(self.storage.tls.ca_secret_name)
        return frozenset(name for name in named if name)

    rules = (
        Rule(
            "has(self.symbols) != has(self.symbolSelector)",
            "give exactly one of symbols and symbolSelector",
            lambda self: (self.symbols is None) != (self.symbol_selector is None),
        ),
        Rule(
            "self.streams.all(s, self.streams.exists_one(t, t == s))",
            "streams names one twice: each stream once",
            lambda self: len(set(self.streams)) == len(self.streams),
        ),
        Rule(
            "self.venue == oldSelf.venue",
            "venue cannot be changed: make another MarketFeed for the other venue",
            None,
        ),
        Rule(
            "!has(self.consumers) || has(self.storage)",
            "consumers need storage: say where rows are stored",
            lambda self: self.consumers is None or self.storage is not None,
        ),
        Rule(
            "!has(self.consumers) || !has(self.consumers.trades) || 'trade' in self.streams",
            "consumers.trades needs the stream trade: add it to streams or remove the consumers",
            lambda self: self.consumers is None or self.consumers.trades is None or "trade" in self.streams,
        ),
        Rule(
            "!has(self.consumers) || !has(self.consumers.bookTicker) || 'bookTicker' in self.streams",
            "consumers.bookTicker needs the stream bookTicker: add it to streams or remove the consumers",
            lambda self: (
                self.consumers is None or self.consumers.book_ticker is None or "bookTicker" in self.streams
            ),
        ),
        Rule(
            "!self.kafka.manageTopics || !has(self.consumers) || !has(self.consumers.trades) || "
            "!has(self.consumers.trades.replicas) || "
            "self.consumers.trades.replicas <= self.kafka.topics.trades.partitions",
            "consumers.trades.replicas is above kafka.topics.trades.partitions: the surplus would be idle",
            lambda self: _fits(self, "trades"),
        ),
        Rule(
            "!self.kafka.manageTopics || !has(self.consumers) || !has(self.consumers.bookTicker) || "
            "!has(self.consumers.bookTicker.replicas) || "
            "self.consumers.bookTicker.replicas <= self.kafka.topics.bookTicker.partitions",
            "consumers.bookTicker.replicas is above kafka.topics.bookTicker.partitions: the surplus would be idle",
            lambda self: _fits(self, "book_ticker"),
        ),
    )


def _fits(spec: Spec, topic: Literal["trades", "book_ticker"]) -> bool:
    consumer = None if spec.consumers is None else getattr(spec.consumers, topic)
    if not spec.kafka.manage_topics or consumer is None or consumer.replicas is None:
        return True
    return bool(consumer.replicas <= getattr(spec.kafka.topics, topic).partitions)
