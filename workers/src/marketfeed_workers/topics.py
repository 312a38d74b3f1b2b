"""The worker's topics: there before the first message, the ledgers compacted."""

import time
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from marketfeed_chassis import logs
from marketfeed_chassis.errors import StartupError
from marketfeed_chassis.kafka import client_config
from marketfeed_workers.settings import WorkerSettings

log = logs.get(__name__)

_ANSWER_SECONDS: Final = 5.0
_CREATE_SECONDS: Final = 3.0
# A broker that cannot create topics by request may still create them when they are asked for (the embedded one does).
_CANNOT_CREATE: Final = {
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._TIMED_OUT,
}


def ensure_topics(settings: WorkerSettings) -> None:
    """Make sure that every topic is there.

    Raises:
        StartupError: one is missing and could not be created; the message names it.
    """
    admin = AdminClient(client_config(settings))
    wanted = {
        settings.market_trades_topic: {},
        settings.market_book_topic: {},
        settings.market_progress_topic: {"cleanup.policy": "compact"},
        settings.market_gaps_topic: {"cleanup.policy": "compact"},
    }
    present = admin.list_topics(timeout=_ANSWER_SECONDS).topics
    missing = [topic for topic in wanted if topic not in present]
    if missing and settings.kafka_create_topics:
        _create(
            admin,
            [NewTopic(topic, settings.kafka_topic_partitions, config=wanted[topic]) for topic in missing],
        )
    deadline = time.monotonic() + settings.start_deadline_seconds
    for topic in missing:
        _await_topic(admin, topic, deadline)


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
