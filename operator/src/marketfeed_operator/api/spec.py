"""Spec of a MarketFeed, as frozen types. The CRD is generated from them, see `crd`."""

from typing import Annotated, Literal

from pydantic import Field

from marketfeed_operator.api.kafka import Kafka
from marketfeed_operator.api.network import NetworkPolicy
from marketfeed_operator.api.patterns import PatternRule
from marketfeed_operator.api.pods import Image, Logging, PodTemplate, Resources, ServiceAccount
from marketfeed_operator.api.rules import Declared, Rule, keys_rule
from marketfeed_operator.api.storage import Consumers, Storage
from marketfeed_operator.api.values import LabelValue
from marketfeed_operator.api.venue import Endpoints, Symbol, SymbolSelector

Stream = Literal["trade", "bookTicker"]
Window = Annotated[
    str,
    Field(max_length=11),
    PatternRule(
        r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$",
        "a window is HH:MM-HH:MM in UTC, such as 02:00-04:30",
    ),
]


class Rotation(Declared):
    """Rotation of venue connections before the venue closes them, make-before-break."""

    after_minutes: int = Field(
        default=1380, ge=1, le=1430, description="Age at which a connection is replaced, in minutes."
    )
    quiet_window_utc: Window | None = Field(
        default=None,
        description="Daily window, HH:MM-HH:MM in UTC, to which rotations are moved where the connection's "
        "age allows.",
    )


class Ingestion(Declared):
    """Workers, one Deployment per shard."""

    replicas: int = Field(
        default=1,
        ge=1,
        le=2,
        description="Number of pods per shard. 2 is hot-hot: both pods publish the same symbols, and "
        "consumers store each message once.",
    )
    resources: Resources | None = Field(default=None, description="Compute resources of each pod.")
    validate_on_start: bool = Field(
        default=True,
        description="Whether workers validate symbols against the venue at startup and skip those that it "
        "does not trade.",
    )
    rotation: Rotation | None = Field(
        default=None, description="Rotation of venue connections; defaults to the workers' settings."
    )
    venue_budget_share: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Number of workers that connect to the venue from one IP address and share its request "
        "weight and connection limits; defaults to all workers of this feed. A change restarts no pods.",
    )
    max_updating_shards: int = Field(
        default=2,
        ge=1,
        le=100,
        description="Maximum number of shards that are restarted at the same time during a rollout.",
    )


class Monitoring(Declared):
    """Prometheus monitoring."""

    pod_monitor: bool = Field(
        default=True, description="Whether to create a PodMonitor, if the cluster has its CRD."
    )
    labels: dict[str, LabelValue] | None = Field(
        default=None,
        max_length=32,
        description="Labels of the PodMonitor that Prometheus selects by, for example release: prometheus.",
    )
    interval_seconds: int = Field(default=30, ge=5, le=3600, description="Scrape interval, in seconds.")

    rules = (keys_rule("labels", "monitoring.labels"),)


class Images(Declared):
    """Images of the pods, instead of those configured in the operator."""

    worker: Image | None = Field(default=None, description="Image of the workers.")
    consumer: Image | None = Field(
        default=None, description="Image of the consumers and of the migration and retention Jobs."
    )


class Spec(Declared):
    """Desired state of the feed."""

    venue: Literal["binance_us", "binance"] = Field(description="Venue of the feed.")
    endpoints: Endpoints | None = Field(
        default=None,
        description="Base addresses of the venue, for a proxy or the simulator; defaults to the venue's own.",
    )
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1, max_length=5000)] | None = Field(
        default=None,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Symbols of the feed, in upper case.",
    )
    symbol_selector: SymbolSelector | None = Field(
        default=None, description="Selection of symbols from the venue's list, instead of symbols."
    )
    streams: tuple[Stream, ...] = Field(
        default=("trade", "bookTicker"),
        min_length=1,
        max_length=2,
        # Not a set: server-side apply would keep the default's item, which has no owner.
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="Streams of each symbol.",
    )
    shard_size: int = Field(
        default=50,
        ge=1,
        le=512,
        description="Maximum number of symbols per shard, which is one pod with one connection. A change "
        "moves symbols and restarts no pods.",
    )
    ingestion: Ingestion = Field(default=Ingestion(), description="Workers, one Deployment per shard.")
    kafka: Kafka = Field(description="Kafka cluster, topics and producer settings.")
    storage: Storage | None = Field(
        default=None,
        description="Database that consumers write to; empty means that the feed only publishes to Kafka.",
    )
    consumers: Consumers | None = Field(
        default=None,
        description="Consumers by topic; defaults to one pod per stream when storage is set.",
    )
    logging: Logging = Field(default=Logging(), description="Logging of workers and consumers.")
    monitoring: Monitoring = Field(default=Monitoring(), description="Prometheus monitoring.")
    images: Images | None = Field(
        default=None, description="Images of the pods, instead of those configured in the operator."
    )
    paused: bool = Field(
        default=False,
        description="Whether reconciliation is paused. The pods keep running.",
    )
    network_policy: NetworkPolicy = Field(
        default=NetworkPolicy(), description="Network policies of the feed's pods."
    )
    service_account: ServiceAccount | None = Field(
        default=None, description="ServiceAccount of the feed's pods."
    )
    template: PodTemplate = Field(default=PodTemplate(), description="Template of the feed's pods.")

    def secret_names(self) -> frozenset[str]:
        """Return the names of the Secrets that the feed's pods use, all in its own namespace."""
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
            "streams has duplicates: list each stream once",
            lambda self: len(set(self.streams)) == len(self.streams),
        ),
        Rule(
            "self.venue == oldSelf.venue",
            "venue is immutable: create another MarketFeed for the other venue",
            None,
        ),
        Rule(
            "!has(self.consumers) || has(self.storage)",
            "consumers need storage: set spec.storage",
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
            "consumers.bookTicker.replicas is above kafka.topics.bookTicker.partitions: the surplus would "
            "be idle",
            lambda self: _fits(self, "book_ticker"),
        ),
    )


def _fits(spec: Spec, topic: Literal["trades", "book_ticker"]) -> bool:
    consumer = None if spec.consumers is None else getattr(spec.consumers, topic)
    if not spec.kafka.manage_topics or consumer is None or consumer.replicas is None:
        return True
    return bool(consumer.replicas <= getattr(spec.kafka.topics, topic).partitions)
