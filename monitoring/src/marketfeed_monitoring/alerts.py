"""The table of all alerts: query, duration, severity and annotations.

Thresholds and windows are in `config`. `rules` adds the URL of the runbook page, which it derives from the alert's
name, so that every alert has one.
"""

from dataclasses import dataclass
from typing import Final, Literal

from marketfeed_monitoring import config
from marketfeed_monitoring.promql import FEED, WORKER, up

Severity = Literal["critical", "warning"]
"""critical: data is lost or not processed; page the person on call. warning: handle within working hours."""

_SYMBOL: Final = "namespace, feed, venue, symbol"
_PARTITION: Final = "namespace, feed, topic, partition"
_WHERE: Final = "{{ with $labels.feed }}feed {{ . }}, {{ end }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alerting rule.

    Attributes:
        group: Name of the rule group.
        wait: Prometheus' `for`; "0m" fires at the first evaluation.
        reason: Reason for the window, the threshold and `wait`; rendered as a comment above the rule.
        summary: One line that names what is affected.
        description: Meaning of the alert and where to look first.
    """

    name: str
    group: Literal["data", "ingestion", "persistence", "operator"]
    severity: Severity
    expr: str
    wait: str
    reason: str
    summary: str
    description: str


ALERTS: Final[tuple[Alert, ...]] = (
    Alert(
        name="MarketfeedDataMissing",
        group="data",
        severity="critical",
        expr=f"""
max by ({_SYMBOL}) (
  sum without (resolution) (marketfeed_consumer_audit_missing_trades{{resolution=~"unresolved|rejected"}})
) > 0
or
min by ({_SYMBOL}) (marketfeed_trade_ids_missing) > 0
""",
        wait=config.MISSING_FOR,
        reason="A backfill takes seconds, or some minutes when it waits for request weight; ids that are missing for "
        "longer are not backfilled without intervention. The database comes first. The workers' count is for "
        "installations without consumers; of several workers that read a symbol, the lowest count applies.",
        summary=f"{_WHERE}{{{{ $labels.symbol }}}}: {{{{ $value }}}} trades are missing",
        description="Trade ids have gaps that were not backfilled and are not confirmed absent by the venue. "
        "The data stays incomplete without intervention.",
    ),
    Alert(
        name="MarketfeedFeedStale",
        group="data",
        severity="critical",
        expr=f"max by ({WORKER}, symbol, stream) (marketfeed_stream_ready) == 0",
        wait=config.STALE_FOR,
        reason="A stream without data although the venue has newer data (stalled), or whose state REST cannot verify. "
        "An idle market does not fire: the worker verifies it over REST. Of several workers that read a symbol, "
        "the best state applies. The wait excludes reconnects, rotations and rollouts.",
        summary=f"{_WHERE}shard {{{{ $labels.shard }}}}: the {{{{ $labels.stream }}}} stream of "
        "{{ $labels.symbol }} does not deliver",
        description="The stream is stalled, or has no data while REST does not respond. Missed trades are backfilled "
        "over REST as long as it responds; missed quotes are lost.",
    ),
    Alert(
        name="MarketfeedMessagesRejected",
        group="data",
        severity="warning",
        expr=f"sum by ({WORKER}, reason) (increase(marketfeed_messages_rejected_total[{config.REJECTED_WINDOW}])) > 0",
        wait="0m",
        reason="Each is a message of the venue with impossible content, so one is enough and there is no wait. "
        "The window keeps the alert visible after a single event.",
        summary=f"{_WHERE}shard {{{{ $labels.shard }}}}: messages were rejected ({{{{ $labels.reason }}}})",
        description="They are stored unchanged on the topic of rejected messages and in the table dead_letters. "
        "Their trade ids are gaps, which REST may backfill.",
    ),
    Alert(
        name="MarketfeedConflictingMessages",
        group="data",
        severity="warning",
        expr=f"sum by ({FEED}, table, symbol)"
        f" (increase(marketfeed_consumer_conflicts_total[{config.IDENTITY_WINDOW}])) > 0",
        wait="0m",
        reason="One is enough: the venue, or another producer on the topics, has sent two different messages with "
        "one id. The window keeps the alert visible after a single event.",
        summary=f"{_WHERE}{{{{ $labels.symbol }}}}: messages conflict with rows of {{{{ $labels.table }}}}",
        description="The stored rows are unchanged; the messages are in trade_conflicts or quote_conflicts.",
    ),
    Alert(
        name="MarketfeedIdSeriesBegun",
        group="data",
        severity="warning",
        expr=f"max by (namespace, feed, venue, symbol, stream)"
        f" (increase(marketfeed_id_series_begun_total[{config.IDENTITY_WINDOW}])) > 0",
        wait="0m",
        reason="A venue restarts ids when a test network is reset or a symbol is relisted; queries by id have to take "
        "it into account. Every worker that reads a symbol counts the new series, so the highest count applies.",
        summary=f"{_WHERE}{{{{ $labels.symbol }}}}: the venue has restarted the ids of its {{{{ $labels.stream }}}} "
        "stream",
        description="The symbol continues in a new id series. Gaps of the old series that were still open stay "
        "unresolved.",
    ),
    Alert(
        name="MarketfeedTradesHeld",
        group="data",
        severity="warning",
        expr=f"min by ({_SYMBOL}) (marketfeed_trades_held) > 0",
        wait=config.HELD_FOR,
        reason="A worker holds trades while it is undecided whether the venue has restarted their ids. REST decides "
        "within seconds, and without REST ten trades decide: the symbol trades rarely and REST does not respond. "
        "Of several workers that read a symbol, the one that publishes counts.",
        summary=f"{_WHERE}{{{{ $labels.symbol }}}}: {{{{ $value }}}} trades are held",
        description="The venue may have restarted their ids, and its REST API does not respond. They are published "
        "when it responds, or after ten trades.",
    ),
    Alert(
        name="MarketfeedShardDown",
        group="ingestion",
        severity="critical",
        expr=f"""
max by ({WORKER}) (marketfeed_worker_ready) == 0
or
max by (namespace, feed, shard, job) ({up("worker")}) == 0
""",
        wait=config.SHARD_DOWN_FOR,
        reason="No worker of the shard is ready, or none can be scraped. A rescheduled pod is back within a minute. "
        "The venue limits how far back missed trades can be fetched, so the wait is short.",
        summary=f"{_WHERE}shard {{{{ or $labels.shard $labels.job }}}}: no worker is ready",
        description="Its symbols are not read, or not completely. Missed trades are backfilled as far back as the "
        "venue provides them.",
    ),
    Alert(
        name="MarketfeedPublishFailing",
        group="ingestion",
        severity="critical",
        expr=f"""
sum by ({WORKER}) (increase(kafka_publish_failure_total[{config.RATE_WINDOW}])) > 0
or
(
  max by ({WORKER}) (min_over_time(marketfeed_publish_pending_messages[{config.PUBLISH_WINDOW}])) > 0
  and
  sum by ({WORKER}) (rate(kafka_publish_success_total[{config.PUBLISH_WINDOW}])) == 0
)
""",
        wait=config.PUBLISH_FOR,
        reason="Kafka rejects messages, or messages are in flight and none is acknowledged. Nothing is lost: "
        "sockets are not read meanwhile, and missed trades are backfilled. A broker failover takes seconds.",
        summary=f"{_WHERE}shard {{{{ $labels.shard }}}}: publishing to Kafka is stalled",
        description="Ingestion is paused until Kafka acknowledges messages again.",
    ),
    Alert(
        name="MarketfeedVenueRefusing",
        group="ingestion",
        severity="critical",
        expr=f"""
sum by ({WORKER}, reason) (
  increase(vendor_fetch_failure_total{{reason=~"region_refused|forbidden|banned"}}[{config.REFUSED_WINDOW}])
) > 0
or
max by ({WORKER}) (marketfeed_connection_refused) > 0
""",
        wait="0m",
        reason="451 (region) and 403 (firewall) are retried every few minutes only, and 418 is a ban that doubles with "
        "each further request. All three need a person, so there is no wait. The window merges a series of bans "
        "into one alert.",
        summary=f"{_WHERE}shard {{{{ $labels.shard }}}}: the venue refuses requests ({{{{ or $labels.reason "
        '"connection" }})',
        description="The venue responded with 451, 403 or 418. The connection is retried every few minutes, or when "
        "the ban ends.",
    ),
    Alert(
        name="MarketfeedWeightBudgetNearEnd",
        group="ingestion",
        severity="warning",
        expr=f"""
max by ({WORKER}) (max_over_time(marketfeed_request_weight_used[1m]))
/
(max by ({WORKER}) (marketfeed_request_weight_limit) > 0)
> {config.WEIGHT_NEAR_END}
""",
        wait=config.WEIGHT_FOR,
        reason="The venue counts by minutes, so the highest value of each minute applies. Workers stop at 0.9 of the "
        "limit and wait. A long backfill uses up single minutes by design; five in a row mean that the budget is "
        "too small.",
        summary=f"{_WHERE}{{{{ $labels.venue }}}}: {{{{ $value | humanizePercentage }}}} of the request "
        f"weight is used",
        description="Backfills and stream verifications are about to be delayed to the next minute of the venue's "
        "rate limit.",
    ),
    Alert(
        name="MarketfeedConsumerLagGrowing",
        group="persistence",
        severity="warning",
        expr=f"""
sum by ({FEED}, topic) (max by ({_PARTITION}) (marketfeed_consumer_lag_messages)) > {config.LAG_MESSAGES}
and
sum by ({FEED}, topic) (max by ({_PARTITION}) (deriv(marketfeed_consumer_lag_messages[{config.LAG_SLOPE_WINDOW}]))) > 0
""",
        wait=config.LAG_FOR,
        reason="A decreasing lag means that the consumer is catching up, and a small one is a batch in flight. The "
        "slope covers a window in which one burst is not a trend.",
        summary=f"{_WHERE}topic {{{{ $labels.topic }}}}: consumer lag is {{{{ $value | humanize }}}} messages and "
        "growing",
        description="Consumers store less than workers publish. Nothing is lost until Kafka's retention deletes unread "
        "messages.",
    ),
    Alert(
        name="MarketfeedConsumerDown",
        group="persistence",
        severity="critical",
        expr=f"max by (namespace, feed, component, job) ({up('consumer')}) == 0",
        wait=config.CONSUMER_DOWN_FOR,
        reason="No consumer of the component can be scraped, so its lag is unknown too. Consumers are stateless and "
        "resume as soon as their pod is back.",
        summary=f"{_WHERE}{{{{ or $labels.component $labels.job }}}}: no consumer is up",
        description="No message of its topics is stored. Kafka keeps the messages for the retention time of the topic.",
    ),
    Alert(
        name="MarketfeedKafkaUnreachable",
        group="persistence",
        severity="critical",
        expr=f"max by ({FEED}, component, job) (marketfeed_consumer_kafka_reachable) == 0",
        wait=config.KAFKA_FOR,
        reason="No consumer of the component gets a response from Kafka; if one does, the cause is not Kafka. Brokers "
        "that restart one after another are back within a minute or two.",
        summary=f"{_WHERE}{{{{ or $labels.component $labels.job }}}}: Kafka does not respond to consumers",
        description="No message of its topics is stored, and the lag is unknown. Consumers resume without intervention "
        "when Kafka responds.",
    ),
    Alert(
        name="MarketfeedTopicMissing",
        group="persistence",
        severity="critical",
        expr=f"max by ({FEED}, topic) (marketfeed_consumer_topic_exists) == 0",
        wait=config.KAFKA_FOR,
        reason="A topic that a consumer subscribes to does not exist: its name is wrong, or it was deleted. The "
        "workers of a new installation create it within a minute.",
        summary=f"{_WHERE}topic {{{{ $labels.topic }}}} does not exist",
        description="None of its messages is stored. Messages of a deleted topic that were not stored are lost.",
    ),
    Alert(
        name="MarketfeedDatabaseUnavailable",
        group="persistence",
        severity="critical",
        expr=f"max by ({FEED}, component, job) (marketfeed_consumer_paused) > 0",
        wait=config.DATABASE_FOR,
        reason="A database failover takes a minute or two. Consumers retry without a time limit.",
        summary=f"{_WHERE}{{{{ or $labels.component $labels.job }}}}: database writes are paused",
        description="The consumer keeps its batch and reads no further messages. Kafka keeps the messages for the "
        "retention time of the topic.",
    ),
    Alert(
        name="MarketfeedRetriesStorm",
        group="persistence",
        severity="warning",
        expr=f"""
sum by ({FEED}, job) (rate(marketfeed_consumer_database_errors_total{{sqlstate=~"40.+"}}[{config.RATE_WINDOW}]))
/
sum by ({FEED}, job) (rate(marketfeed_consumer_commit_seconds_count[{config.RATE_WINDOW}]))
> {config.RETRIES_PER_COMMIT}
""",
        wait=config.RETRIES_FOR,
        reason="Serialization failures (SQLSTATE class 40) per commit. Few are normal under SERIALIZABLE; one for "
        "every two commits over this time means that two writers conflict permanently. Without any commit the division "
        "by zero yields infinity, which exceeds every threshold.",
        summary=f"{_WHERE}{{{{ $value | humanize }}}} retries per commit",
        description="Transactions keep conflicting and are retried. Rows are correct but late.",
    ),
    Alert(
        name="MarketfeedDeadLetters",
        group="persistence",
        severity="warning",
        expr=f"sum by ({FEED}, topic)"
        f" (increase(marketfeed_consumer_dead_letters_total[{config.DEAD_LETTER_WINDOW}])) > 0",
        wait="0m",
        reason="Each is a message that is not in its table, so one is enough and there is no wait. The window keeps "
        "the alert visible after a single event.",
        summary=f"{_WHERE}topic {{{{ $labels.topic }}}}: messages could not be stored",
        description="They are in the table dead_letters with the reason; consumers have continued with the next "
        "message.",
    ),
    Alert(
        name="MarketfeedRetentionIncomplete",
        group="persistence",
        severity="warning",
        expr=f"""
max by ({FEED}, table) (marketfeed_consumer_retention_unfinished_symbols) > 0
or
sum by ({FEED}, table) (max by ({FEED}, table, venue, symbol) (marketfeed_consumer_retention_impossible_rows)) > 0
""",
        wait=config.RETENTION_FOR,
        reason="A run that is killed or fails leaves a symbol unfinished, and rows with an impossible time are never "
        "deleted. The next daily run resolves the former; neither loses data, so one day is soon enough.",
        summary=f"{_WHERE}table {{{{ $labels.table }}}}: retention does not delete all expired rows",
        description="A retention run did not finish, or rows have an impossible time and are kept.",
    ),
    Alert(
        name="MarketfeedOperatorNotReconciling",
        group="operator",
        severity="warning",
        expr=f"""
label_replace(
  sum by (job) (rate(marketfeed_operator_reconciles_total{{result="success"}}[{config.OPERATOR_WINDOW}])) == 0,
  "problem", "no reconciliation succeeds", "", ""
)
or
label_replace(sum by (job) (marketfeed_operator_leader) == 0, "problem", "no replica is the leader", "", "")
or
label_replace(
  max by (job) (marketfeed_operator_watch_age_seconds) > {config.WATCH_AGE_SECONDS},
  "problem", "a watch receives no events", "", ""
)
or
label_replace(
  min by (job, namespace) (marketfeed_operator_namespace_available) == 0,
  "problem", "a namespace is unavailable", "", ""
)
or
label_replace(
  max by (job, loop) (marketfeed_operator_loop_failing) == 1, "problem", "a loop keeps failing", "", ""
)
or
label_replace(
  time() - max by (namespace, name) (marketfeed_operator_last_success_timestamp_seconds)
    > {config.FEED_SUCCESS_SECONDS},
  "problem", "a feed keeps failing", "", ""
)
or
label_replace(max by (job) ({up("operator")}) == 0, "problem", "no replica is up", "", "")
""",
        wait=config.OPERATOR_FOR,
        reason="Every feed is reconciled once a minute, so there are always successes, and the API server sends a "
        "bookmark on each watch. A new leader takes 15 s and a listing, a rollout a minute.",
        summary="the operator is not reconciling: {{ $labels.problem }}"
        "{{ with $labels.name }} ({{ $labels.namespace }}/{{ . }}){{ end }}",
        description="Changes of MarketFeeds are not applied and drift is not corrected. Running workers and "
        "consumers are not affected.",
    ),
    Alert(
        name="MarketfeedFeedNotReady",
        group="operator",
        severity="warning",
        expr="""
max by (namespace, name) (marketfeed_operator_feed_ready) == 0
unless
max by (namespace, name) (marketfeed_operator_feed_paused) == 1
""",
        wait=config.FEED_READY_FOR,
        reason="A rollout of many shards or a migration takes minutes. A paused feed is excluded. The alert also "
        "covers shards and consumers without any pod, for which no series exists.",
        summary="feed {{ $labels.namespace }}/{{ $labels.name }} is not ready",
        description="A component of the feed is not ready. The feed's conditions name it.",
    ),
)
