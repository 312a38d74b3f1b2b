"""The worker's topics: there before the first message, the ledgers compacted, and how large a batch they take."""

import time
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from marketfeed_chassis import logs
from marketfeed_chassis.errors import StartupError
from marketfeed_chassis.kafka import client_config
from marketfeed_workers.settings import WorkerSettings

log = logs.get(__name__)

_ANSWER_SECONDS: Final = 5.0
_CREATE_SECONDS: Final = 3.0
_CLEANUP: Final = "cleanup.policy"
# A broker that cannot create topics by request may still create them when they are asked for (the embedded one does).
_CANNOT_CREATE: Final = {
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._TIMED_OUT,
}


LEAST_BATCH_BYTES: Final = 16_384
"""What a topic must take at least: the longest message with room to spare (a gap's note is cut to what they take)."""

_BATCH_RESERVE_BYTES: Final = 512
"""For a batch's own header: how exactly a client counts it differs with the protocol's version."""


def ensure_topics(settings: WorkerSettings) -> int | None:
    """Make sure that every topic is there; the largest batch in bytes that each of them takes, None if not known.

    Raises:
        StartupError: one is missing and could not be created, or takes only messages that are too small; the
            message names it.
    """
    admin = AdminClient(client_config(settings))
    wanted = {
        settings.market_trades_topic: {},
        settings.market_book_topic: {},
        settings.market_progress_topic: {_CLEANUP: "compact"},
        settings.market_gaps_topic: {_CLEANUP: "compact"},
    }
    try:
        present = admin.list_topics(timeout=_ANSWER_SECONDS).topics
    except KafkaException as error:
        raise StartupError(
            f"the topics cannot be listed: {error.args[0].str()}; check KAFKA_BROKER, and Kafka"
        ) from None
    missing = [topic for topic in wanted if topic not in present]
    if missing and settings.kafka_create_topics:
        _create(
            admin,
            [NewTopic(topic, settings.kafka_topic_partitions, config=wanted[topic]) for topic in missing],
        )
    deadline = time.monotonic() + settings.start_deadline_seconds
    for topic in missing:
        _await_topic(admin, topic, deadline)
    return _most_batch_bytes(admin, wanted)


def _most_batch_bytes(admin: AdminClient, wanted: dict[str, dict[str, str]]) -> int | None:
    """The smallest max.message.bytes of the topics, which limits whole batches; None where we may not ask.

    Warns of a topic that is to be compacted and forgets instead.
    """
    limits: dict[str, int] = {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in wanted]
    try:
        answers = admin.describe_configs(resources, request_timeout=_CREATE_SECONDS)
        for resource, answer in answers.items():
            found = answer.result()
            limits[resource.name] = int(found["max.message.bytes"].value)
            if wanted[resource.name].get(_CLEANUP, found[_CLEANUP].value) != found[_CLEANUP].value:
                log.warning(
                    "a topic does not keep what it is told: a worker that is away for longer begins anew; "
                    "set its cleanup.policy to compact",
                    topic=resource.name,
                    cleanup_policy=found[_CLEANUP].value,
                )
    except KafkaException as error:
        # Not every user may, not every broker can. The client's own limit, a topic's by default, is then taken.
        log.info("how large a batch the topics take is not known", reason=error.args[0].str())
        return None
    topic, limit = min(limits.items(), key=lambda each: each[1])
    if limit < LEAST_BATCH_BYTES:
        raise StartupError(
            f"topic {topic} takes batches of at most max.message.bytes={limit}, which is too little for our "
            f"messages; set it to {LEAST_BATCH_BYTES} or more"
        )
    return limit - _BATCH_RESERVE_BYTES


def _create(admin: AdminClient, topics: list[NewTopic]) -> None:
    for topic, answer in admin.create_topics(topics, request_timeout=_CREATE_SECONDS).items():
        try:
            answer.result()  # bounded by the request's own time-out
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() not in {KafkaError.TOPIC_ALREADY_EXISTS, *_CANNOT_CREATE}:
                raise StartupError(
                    f"topic {topic} could not be created: {reason.str()}; create it, or allow this user to"
                ) from None
        else:
            log.info("topic created", topic=topic)


def _await_topic(admin: AdminClient, topic: str, deadline: float) -> None:
    while True:
        answer = admin.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
        if answer.error is None and answer.partitions:
            return
        if time.monotonic() > deadline:
            reason = answer.error.str() if answer.error is not None else "it has no partitions"
            raise StartupError(
                f"topic {topic} is not there ({reason}); create it, or set KAFKA_CREATE_TOPICS=true"
            )
        time.sleep(0.2)
