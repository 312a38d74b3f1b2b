"""The status of a MarketFeed: what the operator writes. Bounded in size whatever the number of symbols."""

from typing import Annotated, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared

MAX_SHARDS_LISTED = 200
"""Shards told of one by one; there can be 5,000."""
MAX_SYMBOLS_LISTED = 50
"""Unknown symbols named; their number is told besides."""

Count = Annotated[int, Field(ge=0)]


class Condition(Declared):
    """One aspect of the feed's state, as in every Kubernetes API."""

    type: Literal["Ready", "Progressing", "Degraded", "Paused"] = Field(description="The aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=64, description="Why, as a constant.")
    message: str = Field(max_length=1024, description="Why, as a sentence.")
    last_transition_time: str = Field(
        json_schema_extra={"format": "date-time"}, description="When status last changed."
    )
    observed_generation: int = Field(ge=0, description="Generation of the spec that this is about.")


class ShardStatus(Declared):
    """One shard."""

    name: str = Field(max_length=63, description="Name of its Deployment and ConfigMap.")
    symbols: Count = Field(description="Symbols assigned to it.")
    hash: str = Field(max_length=16, description="Hash of its assignment file.")
    applied: str = Field(
        max_length=16, description="Hash that its workers report as applied; empty until they do."
    )
    ready: Count = Field(description="Ready pods.")
    last_trade_time: str | None = Field(
        default=None,
        json_schema_extra={"format": "date-time"},
        description="Time of the newest trade seen by its workers, to the minute.",
    )
    missing_trades: Count = Field(
        default=0, description="Trade ids that were jumped over and are not published yet."
    )


class ShardsStatus(Declared):
    """All shards."""

    desired: Count = Field(description="Shards that are wanted.")
    ready: Count = Field(description="Shards with every pod ready.")
    updated: Count = Field(description="Shards with every pod at the newest settings.")
    moving_symbols: Count = Field(
        default=0, description="Symbols read by two shards until the new one has them live."
    )
    missing_trades: Count = Field(
        default=0, description="Trade ids jumped over and not published yet, in all shards."
    )
    items: tuple[ShardStatus, ...] = Field(
        default=(),
        max_length=MAX_SHARDS_LISTED,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description=f"Each shard, the first {MAX_SHARDS_LISTED}.",
    )


class ConsumerSetStatus(Declared):
    """The consumers of one topic."""

    topic: str = Field(description="The topic.")
    replicas: Count = Field(description="Pods there are.")
    desired: Count = Field(description="Pods that are wanted.")
    ready: Count = Field(description="Ready pods.")
    lag: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Messages not yet stored, as the consumers report; none when they do not."
    )
    selector: str = Field(
        default="", description="Label selector of the pods, for kubectl scale and autoscalers."
    )


class ConsumersStatus(Declared):
    """All consumers."""

    desired: Count = Field(description="Pods that are wanted, of every topic.")
    ready: Count = Field(description="Ready pods, of every topic.")
    lag: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Messages not yet stored, of every topic."
    )
    trades: ConsumerSetStatus | None = Field(default=None, description="Consumers of the trades.")
    book_ticker: ConsumerSetStatus | None = Field(default=None, description="Consumers of the quotes.")


class SymbolsStatus(Declared):
    """The symbols."""

    resolved: Count = Field(description="Symbols that are assigned to shards.")
    unknown: tuple[str, ...] = Field(
        default=(),
        max_length=MAX_SYMBOLS_LISTED,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description=f"Symbols that the venue does not trade, the first {MAX_SYMBOLS_LISTED}.",
    )
    unknown_count: Count = Field(default=0, description="How many symbols the venue does not trade.")


class MigrationStatus(Declared):
    """The database's schema."""

    job: str = Field(default="", max_length=63, description="The Job that brings the schema up to date.")
    state: Literal["None", "Running", "Succeeded", "Failed"] = Field(
        default="None", description="How far it is."
    )


class RetentionStatus(Declared):
    """The deleting of what is older than it is to be kept."""

    cron_job: str = Field(max_length=63, description="The CronJob that has it done.")
    job: str = Field(default="", max_length=63, description="Its newest Job; empty before the first.")
    state: Literal["None", "Running", "Succeeded", "Failed"] = Field(
        default="None", description="How far that is."
    )


class Status(Declared):
    """What is there."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that was last acted on."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Ready, Progressing, Degraded and Paused.",
    )
    symbols: SymbolsStatus | None = Field(default=None, description="The symbols.")
    shards: ShardsStatus | None = Field(default=None, description="The shards.")
    consumers: ConsumersStatus | None = Field(default=None, description="The consumers.")
    migration: MigrationStatus | None = Field(default=None, description="The database's schema.")
    retention: RetentionStatus | None = Field(
        default=None, description="The deleting of what is old; none where everything is kept."
    )
