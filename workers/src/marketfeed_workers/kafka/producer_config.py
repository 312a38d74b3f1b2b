"""Properties of the Kafka producer."""

from typing import Any, Final

from marketfeed_service.kafka import client_config
from marketfeed_workers.settings import WorkerSettings

CLIENT_BATCH_BYTES: Final = 1_000_000
"""librdkafka's default of message.max.bytes and batch.size; larger batches are not faster here."""


def producer_config(settings: WorkerSettings, max_batch_bytes: int | None = None) -> dict[str, Any]:
    """Return the librdkafka properties of the producer; all topics accept batches of `max_batch_bytes`."""
    is_exact = settings.kafka_acks == "all"
    config = {
        **client_config(settings),
        "client.id": f"marketfeed-worker-{settings.shard}",
        "acks": settings.kafka_acks,
        "enable.idempotence": is_exact,
        # A deleted topic must not be created again with the broker's default policy.
        "allow.auto.create.topics": False,
        "linger.ms": settings.kafka_linger_ms,
        "compression.type": settings.kafka_compression,
        # No timeout: during an outage the queue fills up and reading is paused.
        "message.timeout.ms": 0,
        # Bounded by `Publisher.full`: the library would reject messages instead of pausing the sockets.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2**31 - 1,
    }
    if is_exact:
        # After a permanently rejected batch nothing is sent any more: the topic ends there without a gap, and the next
        # process continues from there. Otherwise it would publish all messages after the gap again, out of order.
        config["enable.gapless.guarantee"] = True
    if max_batch_bytes is not None and max_batch_bytes < CLIENT_BATCH_BYTES:
        config["batch.size"] = config["message.max.bytes"] = max_batch_bytes
    return config
