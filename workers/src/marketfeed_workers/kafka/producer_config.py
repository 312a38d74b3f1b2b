"""Properties of the Kafka producer."""

from typing import Any, Final

from marketfeed_service.kafka import client_config
from marketfeed_workers.settings import WorkerSettings

CLIENT_BATCH_BYTES: Final = 1_000_000
"""librdkafka's default for message.max.bytes and batch.size; larger ones gain nothing here."""


def producer_config(settings: WorkerSettings, max_batch_bytes: int | None = None) -> dict[str, Any]:
    """The librdkafka properties of the producer; `max_batch_bytes`: the largest batch that each topic takes."""
    is_exact = settings.kafka_acks == "all"
    config = {
        **client_config(settings),
        "client.id": f"marketfeed-worker-{settings.shard}",
        "acks": settings.kafka_acks,
        "enable.idempotence": is_exact,
        # A topic that was deleted must not come back with whatever policy the broker gives new topics.
        "allow.auto.create.topics": False,
        "linger.ms": settings.kafka_linger_ms,
        "compression.type": settings.kafka_compression,
        # Never give a message up: a broker that is away fills the queue, and then the sockets are not read.
        "message.timeout.ms": 0,
        # The bound is our own (`full`), because the library refuses a message where we stop reading a socket.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2**31 - 1,
    }
    if is_exact:
        # Where a batch is refused for good nothing after it is sent: the topic ends there, without a hole, and the
        # next process goes on from there. Without this it would repeat, out of order, all that came after the hole.
        config["enable.gapless.guarantee"] = True
    if max_batch_bytes is not None and max_batch_bytes < CLIENT_BATCH_BYTES:
        config["batch.size"] = config["message.max.bytes"] = max_batch_bytes
    return config
