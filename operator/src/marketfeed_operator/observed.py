"""Observed state, as small frozen values: the output of `observe` and the input of `plan` and `decide`."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from marketfeed_operator.assign import ShardAssignment

Key = tuple[str, str]
"""Namespace and name of a MarketFeed."""
ChildKey = tuple[str, str, str]
"""Kind, namespace and name of a child."""
JobState = Literal["None", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True)
class FeedFacts:
    """Stored MarketFeed; its spec is not validated yet."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    deleting: bool = False
    """It is being deleted and waits for its children (``kubectl delete --cascade=foreground``)."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return (self.namespace, self.name)


@dataclass(frozen=True)
class ChildFacts:
    """Stored child.

    Attributes:
        digest: changes with any change by another party.
        config_hash: hash of its pod template.
        secret_versions: Secret versions that its pods were started with, from their annotation.
        desired, current, updated, ready: numbers of its pods.
        settled: its controller has observed the latest generation.
        replicas_ours: `spec.replicas` is owned by the operator.
        component: component label.
        owner: uid of its controlling owner; "" for none.
        ours: it was created or applied by the operator's field manager.
        account: ServiceAccount of its pod template; "" without one.
        trouble: (reason, message) of its controller when it is stuck; otherwise None.
        created: creation time, ISO 8601 to the second.
    """

    key: ChildKey
    feed: Key
    uid: str
    resource_version: str
    digest: str
    desired_hash: str = ""
    config_hash: str = ""
    desired: int = 0
    current: int = 0
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
    assignment: ShardAssignment | None = None

    def belongs_to(self, uid: str) -> bool:
        """Return whether the feed with that uid may change and delete it.

        One without an owner is left from a feed that was deleted with ``--cascade=orphan``, and is adopted.
        """
        return self.ours and self.owner in ("", uid)

    @property
    def rolled(self) -> bool:
        """All pods are updated and ready."""
        return (
            self.settled
            and self.updated >= self.desired
            and self.ready >= self.desired
            and self.current <= self.desired
        )


@dataclass(frozen=True)
class PodFacts:
    """Pod of a feed; `trouble` is why it cannot run, "" when it can; `ended`: it has terminated for good."""

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
    """Last report from a pod's /status, reduced to the fields in use."""

    assignment: str = ""
    last_trade_time_us: int | None = None
    missing_trades: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    lag: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Listing:
    """Symbol list of a venue.

    Attributes:
        symbols: symbol -> (status, quote asset); None before the first response.
        problem: why the last request failed; "" when it succeeded.
        skipped: number of invalid entries in the last response.
    """

    symbols: Mapping[str, tuple[str, str]] | None
    problem: str = ""
    skipped: int = 0


@dataclass(frozen=True)
class KafkaListener:
    """Listener of a Strimzi Kafka.

    Attributes:
        port: port inside the cluster.
        internal: it is meant for clients in this Kubernetes cluster.
        bootstrap_servers: address in the status, host:port[,host:port…].
    """

    port: int
    tls: bool
    internal: bool
    bootstrap_servers: str


@dataclass(frozen=True)
class Observed:
    """Observed state of a feed, the input of one reconciliation."""

    children: Mapping[ChildKey, ChildFacts] = field(default_factory=dict)
    pods: Sequence[PodFacts] = ()
    reports: Mapping[str, PodReport] = field(default_factory=dict)
    """Pod uid -> its report."""
    listing: Listing | None = None
    """Set only with a symbolSelector."""
    kinds: Set[str] = frozenset()
    """Optional kinds that the cluster serves."""
    kafka_listeners: Sequence[KafkaListener] = ()
    """Listeners of the cluster in spec.kafka.cluster; none before its status has them."""
    secret_versions: Mapping[str, str] = field(default_factory=dict)
    """Secret name -> version, of those that the feed's pods use and that may be read."""
    refusals: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Workload uid -> (reason, message) of refused pod creation."""
    report_problems: Mapping[str, str] = field(default_factory=dict)
    """Pod uid -> why its /status is invalid."""
    scope_problem: str = ""
    """Why the feed's namespace cannot be watched; "" when it can."""
    other_operator: str = ""
    """Another installation of the operator that competes for the feed's namespace; "" for none."""
    unreadable_kinds: Mapping[str, str] = field(default_factory=dict)
    """Optional kind -> why its objects in the feed's namespace cannot be listed."""
    lease_problem: str = ""
    """Why the lease of the feed's namespace cannot be renewed; "" when it can."""
    operator_problems: Mapping[str, str] = field(default_factory=dict)
    """Background loop of the operator -> why it fails; concerns all feeds."""

    def child(self, kind: str, namespace: str, name: str) -> ChildFacts | None:
        """Return a child; None when it does not exist.

        Args:
            kind: kind of the object.
            namespace: its namespace.
            name: its name.
        """
        return self.children.get((kind, namespace, name))
