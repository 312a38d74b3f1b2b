"""Settings of the operator, from environment variables."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from marketfeed_service.settings import MAX_DRAIN_SECONDS, CommaSeparated, ServiceSettings


def _namespaces(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [name for name in value if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)]
    if wrong:
        raise ValueError(f"not a namespace: {', '.join(map(repr, wrong))}")
    return value


class OperatorSettings(ServiceSettings):
    """Environment variables of ``marketfeed-operator``."""

    renamed: ClassVar[Mapping[str, str]] = {"CLAIM_SECONDS": "NAMESPACE_LEASE_SECONDS"}

    worker_image: str = Field(
        "marketfeed-worker:0.1.0",
        min_length=1,
        description="default image of workers",
    )
    consumer_image: str = Field(
        "marketfeed-consumer:0.1.0",
        min_length=1,
        description="default image of consumers",
    )
    image_pull_policy: str = Field(
        "IfNotPresent",
        pattern="^(Always|IfNotPresent|Never)$",
        description="image pull policy: Always, IfNotPresent or Never",
    )
    pod_metrics_port: int = Field(
        8000, ge=1, le=65535, description="port of /metrics, /status and the probes in the feeds' pods"
    )
    pod_drain_seconds: int = Field(
        20,
        ge=1,
        le=MAX_DRAIN_SECONDS,
        description="time that a feed's pod has on shutdown to publish or store the messages it has read: "
        "its DRAIN_DEADLINE_SECONDS",
    )
    watch_namespaces: Annotated[CommaSeparated, AfterValidator(_namespaces)] = Field(
        (), description="namespaces to serve, comma separated; empty serves all namespaces"
    )
    operator_namespace: str = Field(
        "",
        max_length=63,
        description="namespace of the leader lease; empty means the pod's namespace, or default outside a "
        "cluster",
    )
    operator_name: str = Field(
        "",
        max_length=253,
        description="identity of this process in the leader lease: the pod name; empty generates one",
    )
    leader_election: bool = Field(
        True, description="whether leader election by the lease marketfeed-operator is enabled: true or false"
    )
    lease_seconds: float = Field(15, ge=2, le=600, description="duration of the leader lease")
    lease_retry_seconds: float = Field(
        2, ge=0.1, le=60, description="interval at which the leader lease is renewed or acquired"
    )
    concurrency: int = Field(8, ge=1, le=64, description="maximum number of concurrent reconciliations")
    resync_seconds: float = Field(
        60, ge=1, le=3600, description="interval at which each MarketFeed is reconciled without an event"
    )
    audit_seconds: float = Field(
        300,
        ge=1,
        le=86_400,
        description="interval at which all objects are relisted and compared with the watch caches",
    )
    report_seconds: float = Field(
        5, ge=0.1, le=600, description="interval at which /status of the feeds' pods is read"
    )
    listing_seconds: float = Field(
        300,
        ge=1,
        le=86_400,
        description="interval at which the symbols of venues are listed for symbolSelectors",
    )
    watch_secrets: bool = Field(
        False,
        description="whether a feed's pods are restarted when a Secret that they use has changed: true or "
        "false; requires get on those Secrets, of which only the metadata is requested",
    )
    secrets_seconds: float = Field(
        60, ge=0.1, le=86_400, description="interval at which the resource versions of Secrets are read"
    )
    watch_deadline_seconds: float = Field(
        180,
        ge=2,
        le=3600,
        description="maximum time without a watch event, or with due feeds and none reconciled, before "
        "/livez fails; an inactive watch is reconnected after 70 s, or half of this",
    )
    namespace_lease_seconds: float = Field(
        30,
        ge=0.1,
        le=30,
        description="interval at which the operator's lease is renewed in each namespace with MarketFeeds, "
        "by which a second operator is detected; a lease that is not renewed for 90 s may be acquired by "
        "another operator",
    )
    allowed_images: CommaSeparated = Field(
        (),
        description="prefixes of the images that a MarketFeed may use, comma separated: "
        "registry.example.com/market; empty allows any",
    )
    allowed_priority_classes: CommaSeparated = Field(
        (), description="PriorityClasses that a MarketFeed may use, comma separated; empty allows any"
    )
    topic_namespaces: CommaSeparated = Field(
        (),
        description="namespaces, besides its own, in which a MarketFeed may declare topics, comma "
        "separated; * allows any",
    )
    allow_own_endpoints: bool = Field(
        True, description="whether a MarketFeed may set spec.endpoints: true or false"
    )
    pod_run_as_user: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="user ID of the feeds' pods; 0 leaves it to the image and the cluster",
    )
    pod_run_as_group: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="group ID of the feeds' pods; 0 leaves it to the image and the cluster",
    )
    pod_fs_group: int = Field(0, ge=0, le=2**31 - 1, description="fsGroup of the feeds' pods; 0 sets none")

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.lease_retry_seconds * 3 > self.lease_seconds:
            raise ValueError(
                f"LEASE_RETRY_SECONDS={self.lease_retry_seconds:g} must be at most a third of "
                f"LEASE_SECONDS={self.lease_seconds:g}: one slow response would cost the leader its lease"
            )
        return self
