"""Table of the worker's metrics: type, name with unit, help, labels. The values come from `metrics`."""

from typing import Final

from marketfeed_service.metrics import Declaration, counter, gauge, histogram

WORKER: Final = ("venue", "shard")
"""Labels of every metric."""

METRICS: Final[tuple[Declaration, ...]] = (
    counter("vendor_fetch_success", "Messages read from the venue.", (*WORKER, "stream")),
    counter(
        "vendor_fetch_failure",
        "Failures of fetching from the venue: closed or rejected connections, failed requests, skipped frames.",
        (*WORKER, "stream", "reason"),
    ),
    counter(
        "marketfeed_messages_rejected",
        "Messages rejected as impossible, for example by their time, and stored unchanged.",
        (*WORKER, "reason"),
    ),
    counter(
        "marketfeed_quotes_outdated",
        "Quotes skipped because a newer or equal update id was received before.",
        WORKER,
    ),
    counter(
        "marketfeed_quotes_conflated",
        "Quotes skipped under back-pressure in favour of a newer one of the same symbol.",
        WORKER,
    ),
    counter(
        "marketfeed_messages_unexpected", "Messages of symbols or streams that are not subscribed.", WORKER
    ),
    histogram(
        "marketfeed_venue_to_socket_seconds",
        "Latency from the venue's event time to the socket read, in seconds, corrected by the clock offset.",
        (*WORKER, "stream"),
    ),
    counter("kafka_publish_success", "Messages acknowledged by Kafka.", (*WORKER, "topic")),
    counter("kafka_publish_failure", "Messages permanently rejected by Kafka.", (*WORKER, "topic")),
    histogram(
        "marketfeed_socket_to_ack_seconds",
        "Latency from the socket read to Kafka's acknowledgement, in seconds.",
        (*WORKER, "topic"),
    ),
    gauge(
        "marketfeed_publish_pending_messages",
        "Messages in flight to Kafka: handed to the client and not acknowledged.",
        WORKER,
    ),
    gauge(
        "marketfeed_publish_oldest_unacknowledged_seconds",
        "Age of the oldest unacknowledged message, in seconds; 0 if there is none.",
        WORKER,
    ),
    counter(
        "marketfeed_kafka_client_errors",
        "Errors of the Kafka client's connections by librdkafka's name; the client retries.",
        (*WORKER, "error"),
    ),
    counter(
        "marketfeed_reads_paused", "Pauses of reading sockets because the queue to Kafka was full.", WORKER
    ),
    counter("marketfeed_trade_gaps_detected", "Gaps detected in trade ids.", WORKER),
    counter(
        "marketfeed_trade_gaps",
        "Gaps in trade ids by outcome: backfilled, absent at the venue, unresolved, reordered.",
        (*WORKER, "outcome"),
    ),
    counter("marketfeed_trades_backfilled", "Trades fetched over REST.", WORKER),
    counter(
        "marketfeed_symbol_messages", "Messages read from the venue by symbol.", (*WORKER, "symbol", "stream")
    ),
    gauge("marketfeed_trade_ids_missing", "Trade ids in gaps that are not backfilled.", (*WORKER, "symbol")),
    counter("marketfeed_trades_duplicate", "Duplicate trades skipped.", (*WORKER, "symbol")),
    counter(
        "marketfeed_trades_unproven",
        "Published trades with a known id: with other content, or without a copy left to compare.",
        (*WORKER, "symbol", "kind"),
    ),
    gauge(
        "marketfeed_trades_held",
        "Trades held until an id reset is confirmed or excluded.",
        (*WORKER, "symbol"),
    ),
    gauge(
        "marketfeed_id_series",
        "Id series of a stream: number of id resets by the venue.",
        (*WORKER, "symbol", "stream"),
    ),
    counter(
        "marketfeed_id_series_begun",
        "Id series begun by this worker after an id reset of the stream.",
        (*WORKER, "symbol", "stream"),
    ),
    gauge(
        "marketfeed_last_trade_time_seconds",
        "Time of the newest trade by the venue's clock, in seconds since the epoch.",
        (*WORKER, "symbol"),
    ),
    gauge(
        "marketfeed_stream_ready",
        "1 while a stream delivers or the venue has nothing newer, else 0.",
        (*WORKER, "symbol", "stream"),
    ),
    gauge(
        "marketfeed_stream_silent_seconds",
        "Time since the newest message or the subscription of a stream, in seconds.",
        (*WORKER, "symbol", "stream"),
    ),
    gauge("marketfeed_worker_ready", "1 if the worker is ready.", WORKER),
    gauge(
        "marketfeed_connection_streaming", "1 while a WebSocket connection is open.", (*WORKER, "connection")
    ),
    counter(
        "marketfeed_connection_reconnects",
        "Attempts to reopen a WebSocket connection.",
        (*WORKER, "connection"),
    ),
    gauge(
        "marketfeed_connection_refused",
        "1 for a connection that the venue rejects (451, 403); it is retried every few minutes.",
        (*WORKER, "connection"),
    ),
    gauge(
        "marketfeed_symbol_refused",
        "1 for an assigned symbol that is not subscribed or does not trade.",
        (*WORKER, "symbol", "reason"),
    ),
    counter("marketfeed_connection_rotations", "Connection rotations by reason.", (*WORKER, "reason")),
    counter(
        "marketfeed_control_frames_sent",
        "Frames sent to the venue, by kind: command, ping, pong. The venue limits them per connection.",
        (*WORKER, "kind"),
    ),
    gauge(
        "marketfeed_clock_offset_seconds", "Offset of the venue's clock from the host's, in seconds.", WORKER
    ),
    gauge(
        "marketfeed_request_weight_used",
        "Request weight used by this address in the current minute, as reported by the venue.",
        WORKER,
    ),
    gauge(
        "marketfeed_request_weight_limit",
        "The venue's limit on request weight per minute and address; 0 until it is known.",
        WORKER,
    ),
    gauge(
        "marketfeed_venue_blocked_seconds",
        "Remaining time of a rate limit or ban (429, 418), in seconds.",
        WORKER,
    ),
    gauge("marketfeed_connection_attempts_used", "Connection attempts in the venue's window.", WORKER),
    gauge(
        "marketfeed_connection_attempts_limit",
        "Limit on this worker's connection attempts in the venue's window.",
        WORKER,
    ),
)
