"""Status of a MarketFeed, written by the operator. Its size is bounded for any number of symbols."""

from typing import Annotated, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared

MAX_SHARDS_LISTED = 200
"""Shards listed individually; there can be 5,000."""
MAX_SYMBOLS_LISTED = 50
"""Unknown symbols listed by name; `unknownCount` has their number."""

Count = Annotated[int, Field(ge=0)]


class Condition(Declared):
    """Condition of the feed, as in the Kubernetes API conventions."""

    type: Literal["Ready", "Progressing", "Degraded", "Paused"] = Field(description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="Status of the condition.")
    reason: str = Field(
        max_length=64, description="Machine-readable reason of the last transition, in CamelCase."
    )
    message: str = Field(max_length=1024, description="Human-readable details.")
    last_transition_time: str = Field(
        json_schema_extra={"format": "date-time"}, description="Time of the last change of status."
    )
    observed_generation: int = Field(
        ge=0, description="Generation of the spec that the condition was computed from."
    )


class ShardStatus(Declared):
    """Status of one shard."""

    name: str = Field(max_length=63, description="Name of the shard's Deployment and ConfigMap.")
    symbols: Count = Field(description="Number of symbols assigned to the shard.")
    hash: str = Field(max_length=16, description="Hash of the desired assignment.")
    applied: str = Field(
        max_length=16,
        description="Hash of the assignment that the workers report as applied; empty until they report one.",
    )
    ready: Count = Field(description="Number of ready pods.")
    last_trade_time: str | None = Field(
        default=None,
        json_schema_extra={"format": "date-time"},
        description="Time of the newest trade received by the shard's workers, to the minute.",
    )
    missing_trades: Count = Field(default=0, description="Number of trade ids in open gaps.")


class ShardsStatus(Declared):
    """Status of all shards."""

    desired: Count = Field(description="Desired number of shards.")
    ready: Count = Field(description="Number of shards with all pods ready.")
    updated: Count = Field(description="Number of shards with all pods at the current configuration.")
    moving_symbols: Count = Field(
        default=0,
        description="Number of symbols that are read by two shards until the new one has them live.",
    )
    missing_trades: Count = Field(default=0, description="Number of trade ids in open gaps, in all shards.")
    items: tuple[ShardStatus, ...] = Field(
        default=(),
        max_length=MAX_SHARDS_LISTED,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description=f"Status of individual shards, at most {MAX_SHARDS_LISTED}.",
    )


class ConsumerSetStatus(Declared):
    """Status of the consumers of one topic."""

    topic: str = Field(description="Name of the topic.")
    replicas: Count = Field(description="Current number of pods.")
    desired: Count = Field(description="Desired number of pods.")
    ready: Count = Field(description="Number of ready pods.")
    lag: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Consumer lag in messages, as the consumers report; empty without a report."
    )
    selector: str = Field(
        default="", description="Label selector of the pods, for kubectl scale and autoscalers."
    )


class ConsumersStatus(Declared):
    """Status of all consumers."""

    desired: Count = Field(description="Desired number of pods, of all topics.")
    ready: Count = Field(description="Number of ready pods, of all topics.")
    lag: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Consumer lag in messages, of all topics."
    )
    trades: ConsumerSetStatus | None = Field(default=None, description="Consumers of trades.")
    book_ticker: ConsumerSetStatus | None = Field(default=None, description="Consumers of quotes.")


class SymbolsStatus(Declared):
    """Status of the symbols."""

    resolved: Count = Field(description="Number of symbols assigned to shards.")
    unknown: tuple[str, ...] = Field(
        default=(),
        max_length=MAX_SYMBOLS_LISTED,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description=f"Symbols that the venue does not trade, at most {MAX_SYMBOLS_LISTED}.",
    )
    unknown_count: Count = Field(default=0, description="Number of symbols that the venue does not trade.")


class MigrationStatus(Declared):
    """Status of the database migration."""

    job: str = Field(default="", max_length=63, description="Name of the migration Job.")
    state: Literal["None", "Running", "Succeeded", "Failed"] = Field(
        default="None", description="State of the migration Job."
    )


class RetentionStatus(Declared):
    """Status of the retention Job."""

    cron_job: str = Field(max_length=63, description="Name of the retention CronJob.")
    job: str = Field(
        default="", max_length=63, description="Name of its latest Job; empty before the first run."
    )
    state: Literal["None", "Running", "Succeeded", "Failed"] = Field(
        default="None", description="State of the latest Job."
    )


class Status(Declared):
    """Observed state of the feed."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that was last reconciled."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Conditions Ready, Progressing, Degraded and Paused.",
    )
    symbols: SymbolsStatus | None = Field(default=None, description="Status of the symbols.")
    shards: ShardsStatus | None = Field(default=None, description="Status of the shards.")
    consumers: ConsumersStatus | None = Field(default=None, description="Status of the consumers.")
    migration: MigrationStatus | None = Field(default=None, description="Status of the database migration.")
    retention: RetentionStatus | None = Field(
        default=None, description="Status of the retention Job; empty without spec.storage.retention."
    )
