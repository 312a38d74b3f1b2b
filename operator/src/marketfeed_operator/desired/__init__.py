"""Desired children of a feed, in the order of creation, from the feed and the symbols of its shards.

Each kind has a module with a pure function that returns an object or None. Objects with the feed's label that are not
in the list are deleted, so that disabling an option removes what it created.
"""

from collections.abc import Mapping, Set

from marketfeed_operator.assign import ShardAssignment
from marketfeed_operator.desired.base import Child, Defaults, Feed, Object, component_of, config_hash, digest
from marketfeed_operator.desired.budgets import consumer_budget, ingestion_budget
from marketfeed_operator.desired.config_map import config_map, stored_assignment
from marketfeed_operator.desired.cron_job import retention_cron_job
from marketfeed_operator.desired.deployment import deployment
from marketfeed_operator.desired.job import migration_job
from marketfeed_operator.desired.kafka_topic import kafka_topics
from marketfeed_operator.desired.network_policies import (
    consumer_policy,
    ingestion_policy,
    migration_policy,
    retention_policy,
)
from marketfeed_operator.desired.pod_monitor import pod_monitor
from marketfeed_operator.desired.scaled_object import scaled_object
from marketfeed_operator.desired.service import service
from marketfeed_operator.desired.service_account import service_account
from marketfeed_operator.desired.stateful_set import stateful_set
from marketfeed_operator.desired.streams import consumer_spec, stored_streams
from marketfeed_operator.kinds import SCALED_OBJECT

__all__ = [
    "Child",
    "Defaults",
    "Feed",
    "Object",
    "component_of",
    "config_hash",
    "consumer_spec",
    "desired",
    "digest",
    "migration_job",
    "stored_assignment",
    "stored_streams",
]


def desired(
    feed: Feed, shards: Mapping[int, ShardAssignment], kinds: Set[str], *, migrated: bool = True
) -> list[Child]:
    """Return all desired children, in the order of creation.

    Args:
        shards: symbols of each shard.
        kinds: optional kinds that the cluster serves.
        migrated: the database schema matches the consumers' image.
    """
    children: list[Child | None] = [
        service_account(feed),
        ingestion_policy(feed),
        ingestion_budget(feed),
        *kafka_topics(feed),
        pod_monitor(feed),
        migration_policy(feed),
        migration_job(feed),
        retention_policy(feed),
        retention_cron_job(feed, suspended=not migrated),
    ]
    for shard in sorted(shards):
        # ConfigMaps first: pods wait for a missing ConfigMap, but workers do not wait for a missing file.
        children += [config_map(feed, shard, shards[shard], len(shards)), deployment(feed, shard)]
    for stream in ("trade", "bookTicker"):
        scaler = scaled_object(feed, stream)
        autoscaled = scaler is not None and SCALED_OBJECT.kind in kinds
        children += [
            consumer_policy(feed, stream),
            consumer_budget(feed, stream),
            service(feed, stream),
            stateful_set(feed, stream, autoscaled=autoscaled),
            scaler,
        ]
    return [
        child
        for child in children
        if child is not None and (not child.kind.optional or child.kind.kind in kinds)
    ]
