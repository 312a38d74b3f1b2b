"""Configuration of the Kafka consumer, and requests by the admin client: topic ids, log start and end offsets."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.kafka.leases import AssignedPartition
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_service import logs
from marketfeed_service.errors import StartupError
from marketfeed_service.kafka import client_config

log = logs.get(__name__)

MAX_POLL_INTERVAL_MS: Final = 300_000
"""Maximum duration of a rebalance callback; longer if the session timeout is."""
_DESCRIBE_SECONDS: Final = 10.0
_REFRESH_SECONDS: Final = 1.0
STALE: Final = (
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError._NOENT,
)
"""Errors of stale metadata: the client sent a leader epoch of before a broker's restart, or has metadata of a topic
before it was recreated or loaded. After these errors of ListOffsets librdkafka does not refresh its metadata, so every
later request fails, too (seen with librdkafka 2.16 after a broker was killed)."""
_STALE_SECONDS: Final = 5.0
"""How long metadata is refreshed: brokers get the metadata of a new leader one after another."""
_STALE_PAUSE_SECONDS: Final = 0.1
_64_BITS: Final = 2**64 - 1


def consumer_config(settings: ConsumerSettings, on_error: Any) -> dict[str, Any]:
    """Return librdkafka's properties of the consumer; contains secrets, never log it."""
    config = {
        **client_config(settings),
        "group.id": settings.kafka_group,
        "client.id": "marketfeed-consumer",
        "session.timeout.ms": settings.kafka_session_timeout_ms,
        "heartbeat.interval.ms": min(3000, settings.kafka_session_timeout_ms // 3),
        # librdkafka rejects one below the session timeout.
        "max.poll.interval.ms": max(MAX_POLL_INTERVAL_MS, settings.kafka_session_timeout_ms),
        "partition.assignment.strategy": "cooperative-sticky",
        # The database has the committed offsets; they are committed to Kafka afterwards, for lag tools.
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Never skip or reread automatically: an operator decides about an offset that is not in the log.
        "auto.offset.reset": "error",
        # Control and aborted records are not delivered: only the end-of-partition event shows that they were passed.
        "enable.partition.eof": True,
        # After its queue was full, librdkafka waits this long before the next fetch: by default 1000 ms of every few
        # seconds, the most expensive default.
        "fetch.queue.backoff.ms": 1,
        "queued.min.messages": 100_000,
        "queued.max.messages.kbytes": 32 * 1024,
        # Kafka responds as soon as there is a record, so this adds no latency; it sets the request rate of an idle
        # topic. librdkafka's mock broker delays every empty response for this long.
        "fetch.wait.max.ms": settings.kafka_fetch_wait_ms,
        "allow.auto.create.topics": False,
        # How soon a topic or partition is discovered that was created after the subscription.
        "topic.metadata.refresh.interval.ms": 10_000,
        "error_cb": on_error,
    }
    if settings.kafka_group_instance_id:
        config["group.instance.id"] = settings.kafka_group_instance_id
    return config


def topic_ids(admin: AdminClient, topics: Sequence[str]) -> dict[str, str]:
    """Return topic -> topic id, "" if the broker has no topic ids.

    The id distinguishes a topic from a deleted topic of the same name.

    Raises:
        StartupError: no broker responds, or the id of a topic cannot be described.
    """
    try:
        has_ids = has_controller(admin)
    except KafkaException as error:
        raise unavailable("id", ", ".join(topics), error.args[0]) from None
    if not has_ids:
        log.warning("broker without topic ids")
        return dict.fromkeys(topics, "")
    ids = {}
    for topic, future in request_topic_ids(admin, topics).items():
        try:
            ids[topic] = _topic_id(future)
        except KafkaException as error:
            raise unavailable("id", topic, error.args[0]) from None
    return ids


def has_controller(admin: AdminClient) -> bool:
    """Return whether the cluster has a controller, which describes topics; librdkafka's mock cluster has none.

    Raises:
        KafkaException: no broker responds.
    """
    metadata = admin.list_topics(timeout=_DESCRIBE_SECONDS)
    return metadata.controller_id in metadata.brokers


def unavailable(what: str, topic: str, error: KafkaError) -> StartupError:
    """Return the error for `what` of `topic` that could not be requested.

    Args:
        what: what was requested, for the text.
        topic: the topic.
        error: Kafka's error.
    """
    return StartupError(
        f"cannot get the {what} of {topic} from Kafka: {error.str()}; "
        "check KAFKA_BROKER, that the topic exists, and that this user may describe it"
    )


def request_topic_ids(
    admin: AdminClient, topics: Sequence[str], seconds: float = _DESCRIBE_SECONDS
) -> Mapping[str, Any]:
    """Request the topic ids; return topic -> a future for `topic_id_of`.

    Args:
        admin: the admin client.
        topics: the topics.
        seconds: request timeout.
    """
    asked: Mapping[str, Any] = admin.describe_topics(TopicCollection(list(topics)), request_timeout=seconds)
    return asked


def topic_id_of(future: Any) -> str:
    """Return the topic id of a done future of `request_topic_ids`; "" without an id or topic."""
    return "" if future.exception() else _topic_id(future)


def _topic_id(future: Any) -> str:
    identity = future.result().topic_id
    high, low = identity.get_most_significant_bits(), identity.get_least_significant_bits()
    number = (high & _64_BITS) << 64 | low & _64_BITS
    return f"{number:032x}" if number else ""


class End(NamedTuple):
    """The log start or end offset of a partition; `leader_epoch` is -1 if unknown."""

    offset: int
    leader_epoch: int


class OffsetRange(NamedTuple):
    """The offsets of a partition: `low` up to, but not including, `high`; `leader_epoch` is -1 if unknown."""

    low: int
    high: int
    leader_epoch: int


def request_ends(
    admin: AdminClient, partitions: Iterable[Partition], *, latest: bool, seconds: float = _DESCRIBE_SECONDS
) -> Mapping[Any, Any]:
    """Request log start or end offsets; return TopicPartition -> a future for `collect_ends`.

    Args:
        admin: the admin client.
        partitions: the partitions.
        latest: whether to request log end offsets instead of log start offsets.
        seconds: request timeout.
    """
    which = OffsetSpec.latest() if latest else OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    asked: Mapping[Any, Any] = admin.list_offsets(
        {TopicPartition(*partition): which for partition in partitions},
        request_timeout=seconds,
    )
    return asked


class Ends(NamedTuple):
    """The responses to `request_ends`.

    Attributes:
        found: partition -> its offset.
        errors: partition -> error.
        stale: whether all errors are due to stale metadata, which has been refreshed: the next request should succeed.
    """

    found: dict[Partition, End]
    errors: dict[Partition, KafkaError]
    stale: bool = False


def collect_ends(admin: AdminClient, asked: Mapping[Any, Any]) -> Ends:
    """Return the responses to `request_ends`; waits for them, and for new metadata if it was stale."""
    ends = Ends({}, {})
    for one, future in asked.items():
        partition, end = (one.topic, one.partition), end_of(future)
        if end is not None:
            ends.found[partition] = end
        elif isinstance(error := future.exception(), KafkaException):
            ends.errors[partition] = error.args[0]
        else:
            ends.errors[partition] = KafkaError(
                KafkaError._TIMED_OUT, f"no response from the leader of {one.topic}[{one.partition}]"
            )
    codes = {error.code() for error in ends.errors.values()}
    if codes.intersection(STALE):
        # Blocks even the loop, once after a change of leaders.
        with suppress(KafkaException):
            admin.list_topics(timeout=_REFRESH_SECONDS)
    return ends._replace(stale=bool(codes) and codes.issubset(STALE))


def bounds(admin: AdminClient, partitions: Sequence[Partition]) -> dict[Partition, OffsetRange]:
    """Return the current log start and end offsets of the partitions.

    Raises:
        KafkaException: a request failed.
    """
    if not partitions:
        return {}
    lows, highs = (_all_ends(admin, partitions, latest=latest) for latest in (False, True))
    return {
        partition: OffsetRange(lows[partition].offset, highs[partition].offset, highs[partition].leader_epoch)
        for partition in partitions
    }


def _all_ends(admin: AdminClient, partitions: Sequence[Partition], *, latest: bool) -> dict[Partition, End]:
    deadline = time.monotonic() + _STALE_SECONDS
    ends = collect_ends(admin, request_ends(admin, partitions, latest=latest))
    while ends.stale and time.monotonic() < deadline:
        time.sleep(_STALE_PAUSE_SECONDS)
        ends = collect_ends(admin, request_ends(admin, partitions, latest=latest))
    for error in ends.errors.values():
        raise KafkaException(error)
    return ends.found


def end_of(future: Any) -> End | None:
    """Return the offset of a future of `request_ends`, or None; waits for it.

    A timed-out request is not an exception there, but a negative offset.
    """
    if future.exception() is not None or future.result().offset < 0:
        return None
    end = future.result()
    return End(end.offset, -1 if end.leader_epoch is None else end.leader_epoch)


def describe_partitions(
    admin: AdminClient, partitions: Sequence[TopicPartition], ids: Mapping[str, str]
) -> list[AssignedPartition]:
    """Return the partitions with the broker's metadata.

    Args:
        admin: the admin client.
        partitions: the partitions that the group has assigned.
        ids: topic -> topic id.

    Raises:
        KafkaException: a request failed.
    """
    found = bounds(admin, [(one.topic, one.partition) for one in partitions])
    return [
        AssignedPartition(*partition, ids.get(partition[0], ""), *held) for partition, held in found.items()
    ]
