"""The Kafka side: how the consumer is configured, and what a topic is known by."""

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
"""Within which Kafka waits for a rebalance callback; longer where the session is."""
_DESCRIBE_SECONDS: Final = 10.0
_REFRESH_SECONDS: Final = 1.0
STALE: Final = (KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError._NOENT)
"""The client sent a leader epoch from before a broker's restart, or has metadata from a moment at which the broker did
not know its topics yet. It does not refresh it by itself after this error of ListOffsets, so every later request would
get it, too: seen on librdkafka 2.16 after a broker was killed."""
_STALE_SECONDS: Final = 5.0
"""For how long metadata is refreshed again and again: brokers learn of a new leader one after another."""
_STALE_PAUSE_SECONDS: Final = 0.1
_64_BITS: Final = 2**64 - 1


def consumer_config(settings: ConsumerSettings, on_error: Any) -> dict[str, Any]:
    """The properties of the consumer; holds secrets, so never log it."""
    config = {
        **client_config(settings),
        "group.id": settings.kafka_group,
        "client.id": "marketfeed-consumer",
        "session.timeout.ms": settings.kafka_session_timeout_ms,
        "heartbeat.interval.ms": min(3000, settings.kafka_session_timeout_ms // 3),
        # The client refuses one that is shorter than the session's.
        "max.poll.interval.ms": max(MAX_POLL_INTERVAL_MS, settings.kafka_session_timeout_ms),
        "partition.assignment.strategy": "cooperative-sticky",
        # Offsets are the database's; Kafka is told them afterwards, as a hint for lag tools.
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Never skip or reread on its own: an offset that Kafka does not have is for a person to decide about.
        "auto.offset.reset": "error",
        # Control records and aborted ones are never handed out: only the partition's end says that they were passed.
        "enable.partition.eof": True,
        # By far the dearest default there is: after its queue was full, librdkafka waits this long before it
        # fetches again, 1000 ms of every few by default.
        "fetch.queue.backoff.ms": 1,
        "queued.min.messages": 100_000,
        "queued.max.messages.kbytes": 32 * 1024,
        # Kafka answers as soon as there is one record, so this costs no latency there, only how often a quiet topic
        # is asked about. librdkafka's mock broker lets every question that finds nothing wait for so long.
        "fetch.wait.max.ms": settings.kafka_fetch_wait_ms,
        "allow.auto.create.topics": False,
        # How soon a topic or partition is noticed that did not exist when we subscribed.
        "topic.metadata.refresh.interval.ms": 10_000,
        "error_cb": on_error,
    }
    if settings.kafka_group_instance_id:
        config["group.instance.id"] = settings.kafka_group_instance_id
    return config


def topic_ids(admin: AdminClient, topics: Sequence[str]) -> dict[str, str]:
    """Topic -> the id that Kafka gave it when it was created, "" where the broker does not tell.

    An id tells a topic from another of the same name that was deleted before it.

    Raises:
        StartupError: no broker answers, or one that has ids does not tell that of a topic.
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
    """Whether the brokers can tell of topics: the controller does, and librdkafka's mock cluster has none.

    Raises:
        KafkaException: no broker answers.
    """
    metadata = admin.list_topics(timeout=_DESCRIBE_SECONDS)
    return metadata.controller_id in metadata.brokers


def unavailable(what: str, topic: str, error: KafkaError) -> StartupError:
    """The one line about something of `topic` that Kafka was asked for."""
    return StartupError(
        f"Kafka does not tell the {what} of {topic}: {error.str()}; "
        "check KAFKA_BROKER, that the topic is there, and that this user may describe it"
    )


def request_topic_ids(
    admin: AdminClient, topics: Sequence[str], seconds: float = _DESCRIBE_SECONDS
) -> Mapping[str, Any]:
    """Topic -> a future for `topic_id_of`."""
    asked: Mapping[str, Any] = admin.describe_topics(TopicCollection(list(topics)), request_timeout=seconds)
    return asked


def topic_id_of(future: Any) -> str:
    """The id that a done future of `request_topic_ids` tells; "" where Kafka gave none, or knows no such topic now."""
    return "" if future.exception() else _topic_id(future)


def _topic_id(future: Any) -> str:
    identity = future.result().topic_id
    high, low = identity.get_most_significant_bits(), identity.get_least_significant_bits()
    number = (high & _64_BITS) << 64 | low & _64_BITS
    return f"{number:032x}" if number else ""


class End(NamedTuple):
    """An end of a partition; `leader_epoch` is -1 where it is not told."""

    offset: int
    leader_epoch: int


class OffsetRange(NamedTuple):
    """What a partition holds: `low` up to, but not including, `high`; `leader_epoch` is -1 where it is not told."""

    low: int
    high: int
    leader_epoch: int


def request_ends(
    admin: AdminClient, partitions: Iterable[Partition], *, latest: bool, seconds: float = _DESCRIBE_SECONDS
) -> Mapping[Any, Any]:
    """TopicPartition -> a future for the first offset that it still has, or for the one after its last.

    The futures are for `collect_ends`.
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
        found: partition -> its end.
        errors: partition -> why there is none.
        stale: whether all of the errors came of old metadata, which has been refreshed: the next request gets an end.
    """

    found: dict[Partition, End]
    errors: dict[Partition, KafkaError]
    stale: bool = False


def collect_ends(admin: AdminClient, asked: Mapping[Any, Any]) -> Ends:
    """Return what the futures of `request_ends` tell; waits for them, and for the metadata where that is stale."""
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
        # The one request here that is waited for even by who must not wait, once after a change of leaders.
        with suppress(KafkaException):
            admin.list_topics(timeout=_REFRESH_SECONDS)
    return ends._replace(stale=bool(codes) and codes.issubset(STALE))


def bounds(admin: AdminClient, partitions: Sequence[Partition]) -> dict[Partition, OffsetRange]:
    """What the partitions hold now.

    Raises:
        KafkaException: the broker does not tell.
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
    """What a future of `request_ends` tells; None where it tells nothing. Waits for it.

    A request that timed out is no exception there, but an offset that cannot be.
    """
    if future.exception() is not None or future.result().offset < 0:
        return None
    end = future.result()
    return End(end.offset, -1 if end.leader_epoch is None else end.leader_epoch)


def assigned(
    admin: AdminClient, partitions: Sequence[TopicPartition], ids: Mapping[str, str]
) -> list[AssignedPartition]:
    """The partitions as the broker knows them.

    Raises:
        KafkaException: it does not answer.
    """
    found = bounds(admin, [(one.topic, one.partition) for one in partitions])
    return [
        AssignedPartition(*partition, ids.get(partition[0], ""), *held) for partition, held in found.items()
    ]
