"""The operator's settings: environment variables, read once."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from marketfeed_chassis.settings import MOST_DRAIN_SECONDS, CommaSeparated, ServiceSettings


def _namespaces(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [name for name in value if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)]
    if wrong:
        raise ValueError(f"not a namespace: {', '.join(map(repr, wrong))}")
    return value


class OperatorSettings(ServiceSettings):
    """Every variable that ``marketfeed-operator`` takes."""

    worker_image: str = Field(
        "marketfeed-worker:0.1.0",
        min_length=1,
        description="image of the workers, where a MarketFeed names none",
    )
    consumer_image: str = Field(
        "marketfeed-consumer:0.1.0",
        min_length=1,
        description="image of the consumers, where a MarketFeed names none",
    )
    image_pull_policy: str = Field(
        "IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="Always, IfNotPresent or Never"
    )
    pod_metrics_port: int = Field(
        8000, ge=1, le=65535, description="port of /metrics, /status and the probes in the feeds' pods"
    )
    pod_drain_seconds: int = Field(
        20,
        ge=1,
        le=MOST_DRAIN_SECONDS,
        description="how long a feed's pod may take to deliver what it has read: its DRAIN_DEADLINE_SECONDS",
    )
    watch_namespaces: Annotated[CommaSeparated, AfterValidator(_namespaces)] = Field(
        (), description="namespaces to serve, comma separated; empty serves all of them"
    )
    operator_namespace: str = Field(
        "",
        max_length=63,
        description="namespace of the lease; empty takes that of the pod, outside a cluster default",
    )
    operator_name: str = Field(
        "",
        max_length=253,
        description="what this process is called in the lease: the pod's name; empty makes one up",
    )
    leader_election: bool = Field(
        True, description="act only while holding the lease marketfeed-operator: true or false"
    )
    lease_seconds: float = Field(
        15, ge=2, le=600, description="how long a leader that is silent keeps the lease"
    )
    lease_retry_seconds: float = Field(
        2, ge=0.1, le=60, description="how often the lease is renewed or looked at"
    )
    concurrency: int = Field(8, ge=1, le=64, description="MarketFeeds that are worked on at the same time")
    resync_seconds: float = Field(
        60, ge=1, le=3600, description="how often each MarketFeed is worked on when nothing has happened"
    )
    audit_seconds: float = Field(
        300,
        ge=1,
        le=86_400,
        description="how often everything is listed and compared with what the watches brought",
    )
    report_seconds: float = Field(
        5, ge=0.1, le=600, description="how often the pods are asked for their status"
    )
    listing_seconds: float = Field(
        300, ge=1, le=86_400, description="how often venues are asked for their symbols, for a symbolSelector"
    )
    watch_secrets: bool = Field(
        False,
        description="restart a feed's pods when a Secret they read has changed: true or false; needs the right to get "
        "those Secrets, of which only the version is asked for",
    )
    secrets_seconds: float = Field(
        60, ge=0.1, le=86_400, description="how often the versions of Secrets are asked for"
    )
    watch_deadline_seconds: float = Field(
        180,
        ge=2,
        le=3600,
        description="how long a watch may receive nothing, or feeds be due without one that is reconciled, before "
        "/livez fails; a silent watch is opened anew after 70 s, or half of this",
    )
    claim_seconds: float = Field(
        30,
        ge=0.1,
        le=30,
        description="how often the claims on namespaces with MarketFeeds are renewed, by which two operators "
        "tell one another; one that is not renewed for 90 s may be taken over",
    )
    allowed_images: CommaSeparated = Field(
        (),
        description="prefixes of the images that a MarketFeed may name, comma separated: registry.example.com/market; "
        "empty allows every one",
    )
    allowed_priority_classes: CommaSeparated = Field(
        (), description="PriorityClasses that a MarketFeed may name, comma separated; empty allows every one"
    )
    topic_namespaces: CommaSeparated = Field(
        (),
        description="namespaces besides its own into which a MarketFeed may declare topics, comma separated; * is "
        "every one",
    )
    allow_own_endpoints: bool = Field(
        True, description="whether a MarketFeed may say where its venue is: true or false"
    )
    pod_run_as_user: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="user id of the feeds' pods; 0 leaves it to the image and the cluster",
    )
    pod_run_as_group: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="group id of the feeds' pods; 0 leaves it to the image and the cluster",
    )
    pod_fs_group: int = Field(
        0, ge=0, le=2**31 - 1, description="group id of the volumes of the feeds' pods; 0 sets none"
    )

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.lease_retry_seconds * 3 > self.lease_seconds:
            raise ValueError(
                f"LEASE_RETRY_SECONDS={self.lease_retry_seconds:g} must be at most a third of "
                f"LEASE_SECONDS={self.lease_seconds:g}: a leader would lose the lease to a single slow answer"
            )
        return self
