"""Parts of the spec about the database and the consumers that write to it."""

from typing import Literal

from pydantic import Field

from marketfeed_operator.api.pods import Resources
from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import Port, SecretKey, SecretName


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
