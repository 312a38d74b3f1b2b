"""The worker's topics: there before the first message, with the policies that their meaning needs.

A topic that is created gets each policy by name, whatever the broker's defaults are. One that exists is checked:

    trades, quotes compacted          only each symbol's last trade would stay: refused
    a ledger that is not compacted    what it holds would be forgotten with time: refused
    a batch limit below our messages  refused
    fewer replicas than min.insync    no message would ever be acknowledged: refused
    trades kept for less than a day   a consumer that is away for longer loses data: a warning
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
    # A broker that cannot create topics by request may still create them when they are asked for (the embedded one).
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._TIMED_OUT,
    KafkaError.TOPIC_ALREADY_EXISTS,
}
_UNAUTHORIZED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)

MIN_BATCH_BYTES: Final = 16_384
"""What a topic must take at least: the longest message with room to spare (a gap's note is cut to what they take)."""

_BATCH_RESERVE_BYTES: Final = 512
"""For a batch's own header: how exactly a client counts it differs with the protocol's version."""


def required_topics(settings: WorkerSettings) -> dict[str, dict[str, str]]:
    """The worker's topics, and the configuration that each is created with."""
    data = market_data_policy(settings.kafka_topic_retention_hours)
    return {
        settings.market_trades_topic: data,
        settings.market_book_topic: data,
        settings.market_progress_topic: LEDGER_POLICY,
        settings.market_gaps_topic: LEDGER_POLICY,
        settings.market_rejected_topic: data,
    }


def ensure_topics(settings: WorkerSettings, monotonic: Callable[[], float] = time.monotonic) -> int | None:
    """Make sure that every topic is there; the largest batch in bytes that each of them takes, None if not known.

    Raises:
        StartupError: one is missing and could not be created, or cannot do what it is for; the message names it.
    """
    admin = AdminClient(client_config(settings))
    required = required_topics(settings)
    try:
        cluster = admin.list_topics(timeout=_REQUEST_TIMEOUT_SECONDS)
    except KafkaException as error:
        raise StartupError(
            f"the topics cannot be listed: {error.args[0].str()}; check KAFKA_BROKER, and Kafka"
        ) from None
    # Both requests below go to the controller. The embedded broker has none, and each would wait for its timeout.
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
    """Check every topic's policies; the smallest max.message.bytes, which limits whole batches, None if not known."""
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
        # Not every user may, not every broker can. The client's own limit, a topic's by default, is then taken.
        log.warning(
            "topic policies not checked; give this user DescribeConfigs to have them checked",
            reason=error.args[0].str(),
        )
        return None
    return min(limits) - _BATCH_RESERVE_BYTES


def _check_policy(
    topic: str, required: Mapping[str, str], found: Mapping[str, str | None], replicas: int | None
) -> int:
    """The largest batch that the topic takes.

    Raises:
        StartupError: it cannot do what it is for.
    """
    policy, limit = found.get(_CLEANUP) or "", int(found.get("max.message.bytes") or 0)
    if policy != required[_CLEANUP]:
        raise StartupError(
            f"topic {topic} has {_CLEANUP}={policy}, and would "
            + (
                "keep only the last message of each symbol"
                if required[_CLEANUP] == "delete"
                else "forget with time how far symbols were read and which trades are missing"
            )
            + f"; set it to {required[_CLEANUP]} (kafka-configs.sh --alter --entity-type topics --entity-name {topic} "
            f"--add-config {_CLEANUP}={required[_CLEANUP]}), or name another topic"
        )
    if limit < MIN_BATCH_BYTES:
        raise StartupError(
            f"topic {topic} takes batches of at most max.message.bytes={limit}, which is too little for our "
            f"messages; set it to {MIN_BATCH_BYTES} or more"
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
            response.result()  # bounded by the request's own time-out
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() in _UNAUTHORIZED:
                raise StartupError(
                    f"topic {topic} is not to be seen by this user, and it may not be created: {reason.str()}; where "
                    "the topic exists give the user Describe and Write, otherwise create it, or give the user Create"
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
                f"topic {topic} is not to be seen by this user: {response.error.str()}; give the user Describe and "
                "Write on it"
            )
        if monotonic() > deadline:
            reason = response.error.str() if response.error is not None else "it has no partitions"
            raise StartupError(
                f"topic {topic} is not there ({reason}); create it, or set KAFKA_CREATE_TOPICS=true"
            )
        time.sleep(0.2)
