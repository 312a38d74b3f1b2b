"""What is there, as small frozen values: what `observe` found and `decide` and `plan` work on."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from marketfeed_operator.assign import Reading

Key = tuple[str, str]
"""Namespace and name of a MarketFeed."""
ChildKey = tuple[str, str, str]
"""Kind, namespace and name of a child."""
JobState = Literal["None", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True)
class FeedFacts:
    """A MarketFeed as it is stored; whether its spec is sound is not known yet."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    deleting: bool = False
    """It is on its way out, and waits until its children have gone (``kubectl delete --cascade=foreground``)."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return (self.namespace, self.name)


@dataclass(frozen=True)
class ChildFacts:
    """A child as it is stored.

    Attributes:
        digest: changes with whatever somebody else may have changed in it.
        config_hash: of its pod template.
        secret_versions: that its pods were started with, as in their annotation.
        wanted, there, updated, ready: its pods.
        settled: its controller has seen the newest spec.
        replicas_ours: `spec.replicas` is owned by the operator.
        component: that its label names.
        owner: uid of its controlling owner; "" for none.
        ours: it was applied under the operator's field manager.
        account: ServiceAccount of its pod template; "" where it has none.
        trouble: (reason, message) by which its own controller says that it gets no further; None when it does.
        created: when it was made, in ISO 8601 to the second.
    """

    key: ChildKey
    feed: Key
    uid: str
    resource_version: str
    digest: str
    desired_hash: str = ""
    config_hash: str = ""
    wanted: int = 0
    there: int = 0
    updated: int = 0
    ready: int = 0
    settled: bool = True
    secret_versions: str = ""
    replicas_ours: bool = False
    component: str = ""
    owner: str = ""
    ours: bool = False
    account: str = ""
    trouble: tuple[str, str] | None = None
    created: str = ""
    job: JobState = "None"
    reading: Reading | None = None

    def belongs_to(self, uid: str) -> bool:
        """Whether the feed of that uid may change and delete it: it has made it.

        One without an owner is left of a feed that was deleted with ``--cascade=orphan``, and is adopted.
        """
        return self.ours and self.owner in ("", uid)

    @property
    def rolled(self) -> bool:
        """Every pod is at the newest template and ready."""
        return (
            self.settled
            and self.updated >= self.wanted
            and self.ready >= self.wanted
            and self.there <= self.wanted
        )


@dataclass(frozen=True)
class PodFacts:
    """A pod of a feed; `trouble` is why it cannot run, in one sentence, "" when it can; `ended`, that it never will
    again."""

    namespace: str
    name: str
    uid: str
    feed: Key
    component: str
    shard: int | None
    ip: str
    ready: bool
    trouble: str = ""
    ended: bool = False


@dataclass(frozen=True)
class PodReport:
    """What a pod's /status said last, cut down to what is told of it."""

    assignment: str = ""
    last_trade_time_us: int | None = None
    missing_trades: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    lag: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Listing:
    """What the venue says of its symbols.

    Attributes:
        symbols: symbol -> (status, quote asset); None when the venue has not answered yet.
        problem: why the last question was not answered; "" when it was.
        skipped: entries of the last response that could not be read.
    """

    symbols: Mapping[str, tuple[str, str]] | None
    problem: str = ""
    skipped: int = 0


@dataclass(frozen=True)
class KafkaListener:
    """A listener of a Kafka cluster that Strimzi runs.

    Attributes:
        port: inside the cluster.
        internal: it is meant for clients in this Kubernetes cluster.
        bootstrap_servers: where Strimzi says that it is, host:port[,host:port…].
    """

    port: int
    tls: bool
    internal: bool
    bootstrap_servers: str


@dataclass(frozen=True)
class Observed:
    """Everything that one reconciliation knows of a feed's surroundings."""

    children: Mapping[ChildKey, ChildFacts] = field(default_factory=dict)
    pods: Sequence[PodFacts] = ()
    reports: Mapping[str, PodReport] = field(default_factory=dict)
    """Pod uid -> its report."""
    listing: Listing | None = None
    """Asked for only where a symbolSelector needs it."""
    kinds: Set[str] = frozenset()
    """Optional kinds that the cluster serves."""
    kafka_listeners: Sequence[KafkaListener] = ()
    """Of the cluster in spec.kafka.cluster; none where Strimzi has not said."""
    secret_versions: Mapping[str, str] = field(default_factory=dict)
    """Name -> version, of the Secrets that the feed's pods read; without those that cannot be looked at."""
    refusals: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Uid of a workload -> (reason, message) of why its pods are not created."""
    report_problems: Mapping[str, str] = field(default_factory=dict)
    """Pod uid -> why its /status cannot be used."""
    scope_problem: str = ""
    """Why the feed's namespace cannot be watched; "" when it is."""
    other_operator: str = ""
    """Another installation of the operator that would serve the feed's namespace too; "" for none."""
    unreadable_kinds: Mapping[str, str] = field(default_factory=dict)
    """Optional kind -> why its objects in the feed's namespace cannot be listed."""
    claim_problem: str = ""
    """Why the claim on the feed's namespace cannot be renewed; "" when it is."""
    operator_problems: Mapping[str, str] = field(default_factory=dict)
    """Side loop of the operator -> why it fails; concerns every feed."""

    def child(self, kind: str, namespace: str, name: str) -> ChildFacts | None:
        """A child; None when it is not there."""
        return self.children.get((kind, namespace, name))
