"""Parts of the spec about Kafka: where it is, how the services prove who they are, and its topics."""

from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import SERVERS_PATTERN, DnsLabel, Port, SecretKey, SecretName
from marketfeed_operator.api.worded import Worded

Servers = Annotated[
    str,
    Field(min_length=3, max_length=2048),
    Worded(
        SERVERS_PATTERN,
        "bootstrap servers are HOST:PORT[,HOST:PORT...], an IPv6 address in brackets, ports from 1 to 65535",
    ),
]
UserName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Worded(r"^[^\x00-\x1f\x7f]+$", "a user name holds no control characters"),
]
TopicName = Annotated[
    str,
    Field(min_length=1, max_length=249),
    Worded(
        r"^[.]{0,2}[A-Za-z0-9_-][A-Za-z0-9._-]*$",
        "the name of a topic has letters, digits, . _ and -, and is not . or ..",
    ),
]
"""As Kafka takes it, which refuses . and .."""
ClusterName = Annotated[str, Field(min_length=1, max_length=47, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""Short enough for Strimzi's Service NAME-kafka-bootstrap, which is a label in DNS."""


class StrimziCluster(Declared):
    """A Kafka cluster that Strimzi runs."""

    name: ClusterName = Field(description="Name of the Kafka resource.")
    namespace: DnsLabel | None = Field(default=None, description="Its namespace; none means the feed's own.")
    port: Port | None = Field(
        default=None,
        description="Port of the listener; none means the internal one that has TLS or not as the credentials say, "
        "as the Kafka resource's status tells, and 9093 or 9092 before it does.",
    )


class Sasl(Declared):
    """User name and password for Kafka, the password by reference."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="SASL mechanism."
    )
    username: UserName | None = Field(default=None, description="User name in clear text.")
    secret_name: SecretName = Field(
        description="Secret with the password; for a Strimzi KafkaUser its own name."
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
    """Encryption to Kafka, and the client's certificate where the brokers ask for one."""

    ca_secret_name: SecretName | None = Field(
        default=None,
        description="Secret with the brokers' CA; none means the system's CAs. Strimzi: <cluster>-cluster-ca-cert.",
    )
    ca_key: SecretKey = Field(default="ca.crt", description="Key of the CA in that Secret.")
    client_secret_name: SecretName | None = Field(
        default=None,
        description="Secret with the client's certificate and key; for a Strimzi KafkaUser its own name.",
    )
    certificate_key: SecretKey = Field(
        default="user.crt", description="Key of the certificate in that Secret."
    )
    key_key: SecretKey = Field(default="user.key", description="Key of the private key in that Secret.")


class Credentials(Declared):
    """How the services prove who they are to Kafka."""

    sasl: Sasl | None = Field(default=None, description="User name and password.")
    tls: Tls | None = Field(default=None, description="Encryption; {} takes the system's CAs.")

    rules = (
        Rule(
            "!has(self.sasl) || self.sasl.mechanism != 'PLAIN' || has(self.tls)",
            "sasl.mechanism PLAIN without tls sends the password in clear text: add tls, or use SCRAM-SHA-512",
            lambda self: self.sasl is None or self.sasl.mechanism != "PLAIN" or self.tls is not None,
        ),
    )


class Topic(Declared):
    """One Kafka topic."""

    name: TopicName = Field(description="Name of the topic.")
    partitions: int = Field(
        default=6, ge=1, le=10_000, description="Partitions, where the operator manages the topic."
    )
    replicas: int = Field(default=3, ge=1, le=32, description="Copies of each partition.")
    retention_hours: int = Field(
        default=168, ge=1, le=87_600, description="How long messages are kept, in hours."
    )

    rules = (
        Rule(
            "self.name != oldSelf.name || self.partitions >= oldSelf.partitions",
            "partitions cannot be decreased: Kafka cannot. Keep the number, or give the topic another name",
            None,
        ),
    )


class TradesTopic(Topic):
    """The topic of trades."""

    name: TopicName = Field(default="market.trades.raw", description="Name of the topic.")


class BookTickerTopic(Topic):
    """The topic of top-of-book quotes."""

    name: TopicName = Field(default="market.book_ticker.raw", description="Name of the topic.")
    retention_hours: int = Field(
        default=24, ge=1, le=87_600, description="How long messages are kept, in hours."
    )


class LedgerTopic(Declared):
    """A compacted topic that workers keep their books in."""

    name: TopicName = Field(description="Name of the topic.")
    partitions: int = Field(
        default=1, ge=1, le=10_000, description="Partitions, where the operator manages it."
    )
    replicas: int = Field(default=3, ge=1, le=32, description="Copies of each partition.")


class ProgressTopic(LedgerTopic):
    """How far each symbol's trades are acknowledged."""

    name: TopicName = Field(default="market.progress", description="Name of the topic.")


class GapsTopic(LedgerTopic):
    """What became of missing trades."""

    name: TopicName = Field(default="market.gaps", description="Name of the topic.")


class RejectedTopic(Topic):
    """Messages that workers have rejected."""

    name: TopicName = Field(default="market.rejected.raw", description="Name of the topic.")
    partitions: int = Field(
        default=1, ge=1, le=10_000, description="Partitions, where the operator manages the topic."
    )


_ALIKE: Final = (
    "[self.trades.name, self.bookTicker.name, self.progress.name, self.gaps.name, self.rejected.name]"
    ".map(n, n.replace('.', '_'))"
)
"""The names of the topics as Kafka compares them: its metrics have _ for both."""


class Topics(Declared):
    """The topics that the feed publishes to."""

    trades: TradesTopic = Field(default=TradesTopic(), description="Trades.")
    book_ticker: BookTickerTopic = Field(default=BookTickerTopic(), description="Top-of-book quotes.")
    progress: ProgressTopic = Field(
        default=ProgressTopic(), description="How far each symbol's trades are acknowledged."
    )
    gaps: GapsTopic = Field(default=GapsTopic(), description="What became of missing trades.")
    rejected: RejectedTopic = Field(
        default=RejectedTopic(), description="Messages that workers have rejected, as they came."
    )

    rules = (
        Rule(
            f"{_ALIKE}.all(n, {_ALIKE}.exists_one(m, m == n))",
            "the names of kafka.topics must differ, and by more than . and _, which Kafka takes for the same: each "
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
            "![self.trades.name, self.bookTicker.name, self.progress.name, self.gaps.name, self.rejected.name]"
            ".exists(n, n.startsWith('__'))",
            "a name of kafka.topics begins with __, which is for topics of Kafka's own",
            lambda self: (
                not any(
                    each.name.startswith("__")
                    for each in (self.trades, self.book_ticker, self.progress, self.gaps, self.rejected)
                )
            ),
        ),
    )


class Kafka(Declared):
    """Where messages are published, and how safely."""

    cluster: StrimziCluster | None = Field(default=None, description="A cluster that Strimzi runs.")
    bootstrap_servers: Servers | None = Field(
        default=None,
        description="Bootstrap servers of any other cluster, host:port[,host:port…]; an IPv6 address in brackets.",
    )
    credentials: Credentials | None = Field(default=None, description="How the services prove who they are.")
    topics: Topics = Field(default=Topics(), description="The topics.")
    acks: Literal["all", "1", "0"] = Field(
        default="all", description="Acknowledgements; below all, a broker's loss loses acknowledged messages."
    )
    linger_ms: int = Field(
        default=5, ge=0, le=10_000, description="How long a batch waits for more, in milliseconds."
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="lz4", description="How batches are compressed."
    )
    manage_topics: bool = Field(
        default=False,
        description="Whether the operator declares the topics as KafkaTopics. They stay when the feed is deleted.",
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
