"""Environment of the services: the contract with `marketfeed-worker` and `marketfeed-consumer`.

Every name is listed in the ``--help`` of those commands; a test compares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from marketfeed_operator.api.kafka import Credentials, Kafka
from marketfeed_operator.desired.base import Feed, Object
from marketfeed_operator.desired.streams import consumer_spec
from marketfeed_operator.observed import KafkaListener
from marketfeed_wire.assignment import FILE_NAME

ASSIGNMENT_FOLDER: Final = PurePosixPath("/etc/marketfeed/assignment")
MAX_SHARD_SIZE: Final = 512
TLS_FOLDER: Final = PurePosixPath("/etc/marketfeed/kafka")
DATABASE_TLS_FOLDER: Final = PurePosixPath("/etc/marketfeed/database")


@dataclass
class ContainerContext:
    """Environment variables, volumes and mounts of a container."""

    env: list[Object] = field(default_factory=list)
    volumes: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    """Names of the referenced Secrets: a container keeps the values that it read at startup."""

    def set(self, name: str, value: object) -> None:
        """Add a variable, unless `value` is None or empty."""
        if value is None or value == "":
            return
        text = str(value).lower() if isinstance(value, bool) else str(value)
        # The kubelet expands $(NAME) with other variables, including those from Secrets.
        self.env.append({"name": name, "value": text.replace("$", "$$")})

    def from_secret(self, name: str, secret: str, key: str) -> None:
        """Add a variable with a value from a Secret.

        Args:
            name: name of the variable.
            secret: name of the Secret.
            key: key in the Secret.
        """
        self.env.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
        self.secrets.add(secret)

    def from_field(self, name: str, path: str) -> None:
        """Add a variable with a value from a pod field."""
        self.env.append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})

    def mount(self, name: str, folder: PurePosixPath, source: Object) -> None:
        """Add a read-only volume mount.

        Args:
            name: name of the volume.
            folder: mount path.
            source: volume source, as in a pod spec.
        """
        self.volumes.append({"name": name, **source})
        self.mounts.append({"name": name, "mountPath": str(folder), "readOnly": True})

    def mount_secret(self, name: str, folder: PurePosixPath, secret: str) -> None:
        """Mount the keys of a Secret as files, read-only.

        Args:
            name: name of the volume.
            folder: mount path.
            secret: name of the Secret.
        """
        self.mount(name, folder, {"secret": {"secretName": secret}})
        self.secrets.add(secret)


def bootstrap_servers(feed: Feed) -> str:
    """Return the bootstrap servers: for a Strimzi cluster those of its status, by default the name of its Service."""
    kafka = feed.spec.kafka
    if kafka.cluster is None:
        return kafka.bootstrap_servers or ""
    encrypted = kafka.credentials is not None and kafka.credentials.tls is not None
    port = kafka.cluster.port or (9093 if encrypted else 9092)
    if (listener := _listener(feed.kafka_listeners, kafka.cluster.port, port, encrypted)) is not None:
        return listener.bootstrap_servers
    namespace = kafka.cluster.namespace or feed.namespace
    return f"{kafka.cluster.name}-kafka-bootstrap.{namespace}.svc:{port}"


def _listener(
    listeners: Sequence[KafkaListener], named: int | None, usual: int, encrypted: bool
) -> KafkaListener | None:
    """Return the listener on the port `named`; without one, an internal listener with or without TLS as configured.

    Of several matching listeners, the one on the usual port, otherwise the first declared.
    """
    if named is not None:
        return next((listener for listener in listeners if listener.port == named), None)
    fitting = [listener for listener in listeners if listener.internal and listener.tls == encrypted]
    return min(fitting, key=lambda listener: listener.port != usual, default=None)


def _service(feed: Feed, context: ContainerContext) -> None:
    context.set("LOG_LEVEL", feed.spec.logging.level)
    context.set("LOG_FORMAT", feed.spec.logging.format)
    context.set("METRICS_PORT", feed.defaults.metrics_port)
    context.set("DRAIN_DEADLINE_SECONDS", feed.defaults.drain_seconds)


def _kafka(feed: Feed, context: ContainerContext) -> None:
    kafka = feed.spec.kafka
    context.set("KAFKA_BROKER", bootstrap_servers(feed))
    context.set("MARKET_TRADES_TOPIC", kafka.topics.trades.name)
    context.set("MARKET_BOOK_TOPIC", kafka.topics.book_ticker.name)
    context.set("MARKET_GAPS_TOPIC", kafka.topics.gaps.name)
    context.set("MARKET_REJECTED_TOPIC", kafka.topics.rejected.name)
    if kafka.credentials is not None:
        _credentials(kafka.credentials, context)


def _credentials(credentials: Credentials, context: ContainerContext) -> None:
    sasl, tls = credentials.sasl, credentials.tls
    name = ("SASL_SSL" if tls else "SASL_PLAINTEXT") if sasl else ("SSL" if tls else "PLAINTEXT")
    context.set("KAFKA_SECURITY_PROTOCOL", name)
    if sasl is not None:
        context.set("KAFKA_SASL_MECHANISM", sasl.mechanism)
        if sasl.username_key is not None:
            context.from_secret("KAFKA_SASL_USERNAME", sasl.secret_name, sasl.username_key)
        else:
            context.set("KAFKA_SASL_USERNAME", sasl.username)
        context.from_secret("KAFKA_SASL_PASSWORD", sasl.secret_name, sasl.password_key)
    if tls is not None and tls.ca_secret_name is not None:
        folder = TLS_FOLDER / "ca"
        context.mount_secret("kafka-ca", folder, tls.ca_secret_name)
        context.set("KAFKA_SSL_CA_LOCATION", folder / tls.ca_key)
    if tls is not None and tls.client_secret_name is not None:
        folder = TLS_FOLDER / "client"
        context.mount_secret("kafka-client", folder, tls.client_secret_name)
        context.set("KAFKA_SSL_CERTIFICATE_LOCATION", folder / tls.certificate_key)
        context.set("KAFKA_SSL_KEY_LOCATION", folder / tls.key_key)


def _producer(kafka: Kafka, context: ContainerContext) -> None:
    context.set("MARKET_PROGRESS_TOPIC", kafka.topics.progress.name)
    context.set("KAFKA_ACKS", kafka.acks)
    context.set("KAFKA_LINGER_MS", kafka.linger_ms)
    context.set("KAFKA_COMPRESSION", kafka.compression)
    # With topics managed by Strimzi, services must not create them: they would have other settings.
    context.set("KAFKA_CREATE_TOPICS", not kafka.manage_topics)
    context.set("KAFKA_TOPIC_PARTITIONS", min(1000, kafka.topics.trades.partitions))


def worker(feed: Feed, shard: str) -> ContainerContext:
    """Return the environment of a shard's workers.

    Neither the symbols nor the share of the venue's rate limits are in it: they are in a file that changes while the
    workers run.
    """
    spec, context = feed.spec, ContainerContext()
    _service(feed, context)
    context.set("VENUE", spec.venue)
    context.set("SHARD", shard)
    if spec.endpoints is not None:
        context.set("BINANCE_WS_BASE", spec.endpoints.websocket)
        context.set("BINANCE_REST_BASE", spec.endpoints.rest)
    context.set("SYMBOLS_FILE", ASSIGNMENT_FOLDER / FILE_NAME)
    # One connection for the whole shard, including draining symbols. Not spec.shardSize: a change of it moves symbols
    # between running workers, and must not restart them.
    context.set("WS_SHARD_SIZE", MAX_SHARD_SIZE)
    if set(spec.streams) != {"trade", "bookTicker"}:
        context.set("BINANCE_STREAMS", ",".join(sorted(spec.streams)))
    context.set("VALIDATE_ON_START", spec.ingestion.validate_on_start)
    if (rotation := spec.ingestion.rotation) is not None:
        context.set("WS_ROTATE_AFTER_SECONDS", rotation.after_minutes * 60)
        context.set("WS_ROTATE_WINDOW", rotation.quiet_window_utc)
    _kafka(feed, context)
    _producer(spec.kafka, context)
    context.mount("assignment", ASSIGNMENT_FOLDER, {"configMap": {"name": shard}})
    return context


def database_job(feed: Feed) -> ContainerContext:
    """Return the environment of Jobs that use only the database: migration and retention."""
    context = ContainerContext()
    context.set("LOG_LEVEL", feed.spec.logging.level)
    context.set("LOG_FORMAT", feed.spec.logging.format)
    _database(feed, context)
    return context


def consumer_group(feed: Feed, stream: str) -> str:
    """Return the consumer group: one per topic and feed, so that a rebalance of one does not stop another."""
    suffix = {"trade": "trades", "bookTicker": "book"}[stream]
    return f"marketfeed.{feed.namespace}.{feed.name}.{suffix}"


def consumer(feed: Feed, stream: str) -> ContainerContext:
    """Return the environment of a stream's consumers; those of trades also store gaps and their resolutions."""
    spec, context = feed.spec, ContainerContext()
    topics = spec.kafka.topics
    _service(feed, context)
    _kafka(feed, context)
    _database(feed, context)
    context.set("KAFKA_GROUP", consumer_group(feed, stream))
    # The pod's name is stable over restarts: static membership instead of a rebalance.
    context.from_field("KAFKA_GROUP_INSTANCE_ID", "metadata.name")
    context.set(
        "CONSUMER_TOPICS",
        f"{topics.trades.name},{topics.gaps.name},{topics.rejected.name}"
        if stream == "trade"
        else topics.book_ticker.name,
    )
    if (declared := consumer_spec(feed, stream)) is not None:
        context.set("BATCH_MAX_ROWS", declared.batch.max_rows)
        context.set("BATCH_MAX_MS", declared.batch.max_ms)
        context.set("BATCH_LINGER_MS", declared.batch.linger_ms)
    return context


def _database(feed: Feed, context: ContainerContext) -> None:
    if (storage := feed.spec.storage) is not None:
        context.from_secret("DATABASE_URL", storage.dsn_secret_name, storage.dsn_key)
        if storage.tls is not None:
            # libpq's own variables: defaults for parameters that the connection string does not set.
            context.mount_secret("database-ca", DATABASE_TLS_FOLDER, storage.tls.ca_secret_name)
            context.set("PGSSLROOTCERT", DATABASE_TLS_FOLDER / storage.tls.ca_key)
            context.set("PGSSLMODE", "verify-full")
