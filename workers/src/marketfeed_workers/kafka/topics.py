"""Creation and validation of the worker's topics at startup.

A topic is created with explicit policies, independent of the broker's defaults. An existing topic is validated:

    trades, quotes compacted             error: only the last message of each symbol would be kept
    ledger not compacted                 error: checkpoints and gaps would expire
    batch limit below our messages       error
    fewer replicas than min.insync       error: no message would be acknowledged
    retention of trades below a day      warning: a consumer outage of more than that loses data
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from marketfeed_service import logs
from marketfeed_service.errors import StartupError
from marketfeed_service.kafka import client_config
from marketfeed_wire import LEDGER_POLICY, market_data_policy
from marketfeed_workers.settings import WorkerSettings

log = logs.get(__name__)

_REQUEST_TIMEOUT_SECONDS: Final = 5.0
_CREATE_SECONDS: Final = 3.0
_CLEANUP: Final = "cleanup.policy"
_MIN_RETENTION_MS: Final = 86_400_000
_TOLERATED_ON_CREATION: Final = {
    # A broker that cannot create topics by request may still create them on a metadata request (the embedded one).
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._TIMED_OUT,
    KafkaError.TOPIC_ALREADY_EXISTS,
}
_UNAUTHORIZED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)

MIN_BATCH_BYTES: Final = 16_384
"""Minimum batch size of a topic: the longest message with a reserve (gap records are shortened to fit)."""

_BATCH_RESERVE_BYTES: Final = 512
"""Reserve for the batch header, whose size depends on the protocol version."""


def required_topics(settings: WorkerSettings) -> dict[str, dict[str, str]]:
    """Return the worker's topics and the configuration for their creation."""
    data = market_data_policy(settings.kafka_topic_retention_hours)
    return {
        settings.market_trades_topic: data,
        settings.market_book_topic: data,
        settings.market_progress_topic: LEDGER_POLICY,
        settings.market_gaps_topic: LEDGER_POLICY,
        settings.market_rejected_topic: data,
    }


def ensure_topics(settings: WorkerSettings, monotonic: Callable[[], float] = time.monotonic) -> int | None:
    """Create missing topics and validate all; return the largest batch in bytes that all accept, None if unknown.

    Raises:
        StartupError: a topic cannot be created or has an invalid policy.
    """
    admin = AdminClient(client_config(settings))
    required = required_topics(settings)
    try:
        cluster = admin.list_topics(timeout=_REQUEST_TIMEOUT_SECONDS)
    except KafkaException as error:
        raise StartupError(
            f"the topics cannot be listed: {error.args[0].str()}; check KAFKA_BROKER, and Kafka"
        ) from None
    # Both requests below go to the controller. The embedded broker has none: they would time out.
    has_controller = cluster.controller_id in cluster.brokers
    missing = [topic for topic in required if topic not in cluster.topics]
    if missing and settings.kafka_create_topics and has_controller:
        _create(
            admin,
            [NewTopic(topic, settings.kafka_topic_partitions, config=required[topic]) for topic in missing],
        )
    deadline = monotonic() + settings.start_deadline_seconds
    for topic in missing:
        _await_topic(admin, topic, deadline, monotonic)
    if not has_controller:
        log.info("topic policies not checked: the broker names no controller")
        return None
    return _check(admin, required)


def _check(admin: AdminClient, required: Mapping[str, Mapping[str, str]]) -> int | None:
    """Validate every topic; return the smallest max.message.bytes, which limits batches, None if unknown."""
    limits: list[int] = []
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in required]
    try:
        topics = admin.list_topics(timeout=_REQUEST_TIMEOUT_SECONDS).topics
        responses = admin.describe_configs(resources, request_timeout=_CREATE_SECONDS)
        for resource, response in responses.items():
            found = {name: entry.value for name, entry in response.result().items()}
            partitions = topics[resource.name].partitions.values() if resource.name in topics else ()
            replicas = min((len(each.replicas) for each in partitions), default=None)
            limits.append(_check_policy(resource.name, required[resource.name], found, replicas))
    except KafkaException as error:
        # Missing permission or support: the client's default, which is also a topic's default, is used.
        log.warning(
            "topic policies not checked; give this user DescribeConfigs to have them checked",
            reason=error.args[0].str(),
        )
        return None
    return min(limits) - _BATCH_RESERVE_BYTES


def _check_policy(
    topic: str, required: Mapping[str, str], found: Mapping[str, str | None], replicas: int | None
) -> int:
    """Validate a topic and return the largest batch that it accepts.

    Args:
        topic: name of the topic.
        required: required configuration.
        found: configuration of the topic.
        replicas: number of replicas; None if unknown.

    Raises:
        StartupError: a policy is invalid.
    """
    policy, limit = found.get(_CLEANUP) or "", int(found.get("max.message.bytes") or 0)
    if policy != required[_CLEANUP]:
        raise StartupError(
            f"topic {topic} has {_CLEANUP}={policy}, and would "
            + (
                "keep only the last message of each symbol"
                if required[_CLEANUP] == "delete"
                else "delete checkpoints and gaps after some time"
            )
            + f"; set it to {required[_CLEANUP]} (kafka-configs.sh --alter --entity-type topics --entity-name {topic} "
            f"--add-config {_CLEANUP}={required[_CLEANUP]}), or name another topic"
        )
    if limit < MIN_BATCH_BYTES:
        raise StartupError(
            f"topic {topic} has max.message.bytes={limit}, which is too small; set it to {MIN_BATCH_BYTES} or more"
        )
    in_sync = int(found.get("min.insync.replicas") or 1)
    if replicas is not None and in_sync > replicas:
        raise StartupError(
            f"topic {topic} has min.insync.replicas={in_sync} and {replicas} replicas: no message would be "
            "acknowledged; raise its replicas, or lower min.insync.replicas"
        )
    if required[_CLEANUP] == "delete":
        _warn_of_short_retention(topic, found)
    return limit


def _warn_of_short_retention(topic: str, found: Mapping[str, str | None]) -> None:
    retention_ms = int(found.get("retention.ms") or -1)
    if 0 <= retention_ms < _MIN_RETENTION_MS:
        log.warning(
            "topic retention below a day",
            topic=topic,
            retention_hours=round(retention_ms / 3_600_000, 2),
        )
    if int(found.get("retention.bytes") or -1) >= 0:
        log.warning(
            "topic retention limited by size",
            topic=topic,
            retention_bytes=found["retention.bytes"],
        )


def _create(admin: AdminClient, topics: list[NewTopic]) -> None:
    for topic, response in admin.create_topics(topics, request_timeout=_CREATE_SECONDS).items():
        try:
            response.result()  # bounded by the timeout of the request
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() in _UNAUTHORIZED:
                raise StartupError(
                    f"topic {topic} is not visible to this user and cannot be created: {reason.str()}; if it exists "
                    "grant Describe and Write, otherwise create it or grant Create"
                ) from None
            if reason.code() not in _TOLERATED_ON_CREATION:
                raise StartupError(
                    f"topic {topic} could not be created: {reason.str()}; create it, or allow this user to"
                ) from None
        else:
            log.info("topic created", topic=topic)


def _await_topic(
    admin: AdminClient, topic: str, deadline: float, monotonic: Callable[[], float] = time.monotonic
) -> None:
    while True:
        response = admin.list_topics(topic, timeout=_REQUEST_TIMEOUT_SECONDS).topics[topic]
        if response.error is None and response.partitions:
            return
        if response.error is not None and response.error.code() in _UNAUTHORIZED:
            raise StartupError(
                f"topic {topic} is not visible to this user: {response.error.str()}; grant Describe and Write"
            )
        if monotonic() > deadline:
            reason = response.error.str() if response.error is not None else "no partitions"
            raise StartupError(
                f"topic {topic} does not exist ({reason}); create it, or set KAFKA_CREATE_TOPICS=true"
            )
        time.sleep(0.2)
