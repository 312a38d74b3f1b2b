"""Kafka part of the spec: cluster, credentials and topics."""

from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.patterns import PatternRule
from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import SERVERS_PATTERN, DnsLabel, Port, SecretKey, SecretName

Servers = Annotated[
    str,
    Field(min_length=3, max_length=2048),
    PatternRule(
        SERVERS_PATTERN,
        "bootstrap servers are HOST:PORT[,HOST:PORT...], an IPv6 address in brackets, ports from 1 to 65535",
    ),
]
UserName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    PatternRule(r"^[^\x00-\x1f\x7f]+$", "a user name must not contain control characters"),
]
TopicName = Annotated[
    str,
    Field(min_length=1, max_length=249),
    PatternRule(
        r"^[.]{0,2}[A-Za-z0-9_-][A-Za-z0-9._-]*$",
        "a topic name consists of letters, digits, . _ and -, and is not . or ..",
    ),
]
"""As in Kafka, which refuses . and .."""
ClusterName = Annotated[str, Field(min_length=1, max_length=47, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""Limit of Strimzi's Service NAME-kafka-bootstrap, which is a DNS label."""


class StrimziCluster(Declared):
    """Kafka cluster managed by Strimzi."""

    name: ClusterName = Field(description="Name of the Kafka resource.")
    namespace: DnsLabel | None = Field(
        default=None, description="Namespace of the Kafka resource; defaults to the feed's namespace."
    )
    port: Port | None = Field(
        default=None,
        description="Port of the listener; defaults to the internal listener in the status of the Kafka "
        "resource that matches credentials.tls, and to 9093 (TLS) or 9092 while the status has none.",
    )


class Sasl(Declared):
    """SASL credentials for Kafka, with the password in a Secret."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="SASL mechanism."
    )
    username: UserName | None = Field(default=None, description="User name in plain text.")
    secret_name: SecretName = Field(
        description="Name of the Secret with the password; for a Strimzi KafkaUser the name of the user."
    )
    username_key: SecretKey | None = Field(
        default=None, description="Key of the user name in the Secret, instead of username."
    )
    password_key: SecretKey = Field(default="password", description="Key of the password in the Secret.")

    rules = (
        Rule(
            "has(self.username) != has(self.usernameKey)",
            "give exactly one of sasl.username and sasl.usernameKey",
            lambda self: (self.username is None) != (self.username_key is None),
        ),
    )


class Tls(Declared):
    """TLS to Kafka, and the client certificate where the brokers require one."""

    ca_secret_name: SecretName | None = Field(
        default=None,
        description="Name of the Secret with the brokers' CA; defaults to the system's CAs. Strimzi: "
        "<cluster>-cluster-ca-cert.",
    )
    ca_key: SecretKey = Field(default="ca.crt", description="Key of the CA in the Secret.")
    client_secret_name: SecretName | None = Field(
        default=None,
        description="Name of the Secret with the client certificate and key; for a Strimzi KafkaUser the "
        "name of the user.",
    )
    certificate_key: SecretKey = Field(
        default="user.crt", description="Key of the certificate in the Secret."
    )
    key_key: SecretKey = Field(default="user.key", description="Key of the private key in the Secret.")


class Credentials(Declared):
    """Credentials of workers and consumers for Kafka."""

    sasl: Sasl | None = Field(default=None, description="SASL user name and password.")
    tls: Tls | None = Field(default=None, description="TLS settings; {} uses the system's CAs.")

    rules = (
        Rule(
            "!has(self.sasl) || self.sasl.mechanism != 'PLAIN' || has(self.tls)",
            "sasl.mechanism PLAIN without tls sends the password in clear text: add tls, or use "
            "SCRAM-SHA-512",
            lambda self: self.sasl is None or self.sasl.mechanism != "PLAIN" or self.tls is not None,
        ),
    )


class Topic(Declared):
    """Kafka topic."""

    name: TopicName = Field(description="Name of the topic.")
    partitions: int = Field(
        default=6, ge=1, le=10_000, description="Number of partitions, with manageTopics."
    )
    replicas: int = Field(default=3, ge=1, le=32, description="Replication factor.")
    retention_hours: int = Field(default=168, ge=1, le=87_600, description="Retention of messages, in hours.")

    rules = (
        Rule(
            "self.name != oldSelf.name || self.partitions >= oldSelf.partitions",
            "partitions cannot be decreased in Kafka. Keep the number, or change the name of the topic",
            None,
        ),
    )


class TradesTopic(Topic):
    """Topic of trades."""

    name: TopicName = Field(default="market.trades.raw", description="Name of the topic.")


class BookTickerTopic(Topic):
    """Topic of top-of-book quotes."""

    name: TopicName = Field(default="market.book_ticker.raw", description="Name of the topic.")
    retention_hours: int = Field(default=24, ge=1, le=87_600, description="Retention of messages, in hours.")


class LedgerTopic(Declared):
    """Compacted topic with the workers' state."""

    name: TopicName = Field(description="Name of the topic.")
    partitions: int = Field(
        default=1, ge=1, le=10_000, description="Number of partitions, with manageTopics."
    )
    replicas: int = Field(default=3, ge=1, le=32, description="Replication factor.")


class ProgressTopic(LedgerTopic):
    """Topic of checkpoints: the last acknowledged trade of each symbol."""

    name: TopicName = Field(default="market.progress", description="Name of the topic.")


class GapsTopic(LedgerTopic):
    """Topic of gaps and their resolutions."""

    name: TopicName = Field(default="market.gaps", description="Name of the topic.")


class RejectedTopic(Topic):
    """Topic of raw messages that workers rejected."""

    name: TopicName = Field(default="market.rejected.raw", description="Name of the topic.")
    partitions: int = Field(
        default=1, ge=1, le=10_000, description="Number of partitions, with manageTopics."
    )


_ALIKE: Final = (
    "[self.trades.name, self.bookTicker.name, self.progress.name, self.gaps.name, self.rejected.name]"
    ".map(n, n.replace('.', '_'))"
)
"""The topic names as Kafka compares them: its metric names replace . with _."""


class Topics(Declared):
    """Topics of the feed."""

    trades: TradesTopic = Field(default=TradesTopic(), description="Trades.")
    book_ticker: BookTickerTopic = Field(
        default=BookTickerTopic(), description="Topic of top-of-book quotes."
    )
    progress: ProgressTopic = Field(
        default=ProgressTopic(),
        description="Topic of checkpoints: the last acknowledged trade of each symbol.",
    )
    gaps: GapsTopic = Field(default=GapsTopic(), description="Topic of gaps and their resolutions.")
    rejected: RejectedTopic = Field(
        default=RejectedTopic(), description="Topic of raw messages that workers rejected."
    )

    rules = (
        Rule(
            f"{_ALIKE}.all(n, {_ALIKE}.exists_one(m, m == n))",
            "the names of kafka.topics must differ, and by more than . and _, which collide in Kafka: each "
            "topic holds one kind of message",
            lambda self: (
                len(
                    {
                        each.name.replace(".", "_")
                        for each in (self.trades, self.book_ticker, self.progress, self.gaps, self.rejected)
                    }
                )
                == 5
            ),
        ),
        Rule(
            "![self.trades.name, self.bookTicker.name, self.progress.name, self.gaps.name, "
            "self.rejected.name]"
            ".exists(n, n.startsWith('__'))",
            "a name of kafka.topics begins with __, which is reserved for Kafka's internal topics",
            lambda self: (
                not any(
                    each.name.startswith("__")
                    for each in (self.trades, self.book_ticker, self.progress, self.gaps, self.rejected)
                )
            ),
        ),
    )


class Kafka(Declared):
    """Kafka cluster, topics and producer settings."""

    cluster: StrimziCluster | None = Field(default=None, description="Kafka cluster managed by Strimzi.")
    bootstrap_servers: Servers | None = Field(
        default=None,
        description="Bootstrap servers of any other cluster, host:port[,host:port…]; an IPv6 address in "
        "brackets.",
    )
    credentials: Credentials | None = Field(
        default=None, description="Credentials of workers and consumers for Kafka."
    )
    topics: Topics = Field(default=Topics(), description="Topics of the feed.")
    acks: Literal["all", "1", "0"] = Field(
        default="all",
        description="Required acknowledgements (acks). Below all, the loss of a broker loses acknowledged "
        "messages.",
    )
    linger_ms: int = Field(
        default=5,
        ge=0,
        le=10_000,
        description="Maximum wait for further messages of a producer batch (linger.ms), in milliseconds.",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="lz4", description="Compression of producer batches (compression.type)."
    )
    manage_topics: bool = Field(
        default=False,
        description="Whether the operator declares the topics as KafkaTopics. They are kept when the feed "
        "is deleted.",
    )

    rules = (
        Rule(
            "has(self.cluster) != has(self.bootstrapServers)",
            "give exactly one of kafka.cluster and kafka.bootstrapServers",
            lambda self: (self.cluster is None) != (self.bootstrap_servers is None),
        ),
        Rule(
            "!self.manageTopics || has(self.cluster)",
            "kafka.manageTopics needs kafka.cluster: topics are declared to Strimzi",
            lambda self: not self.manage_topics or self.cluster is not None,
        ),
    )
