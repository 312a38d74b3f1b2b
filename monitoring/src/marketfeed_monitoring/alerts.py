"""Every alert, in one table: what it asks, for how long, and what it tells.

Thresholds and windows are in `config`; the address of the runbook page is added by `rules`, from the alert's name, so
that none can lack it.
"""

from dataclasses import dataclass
from typing import Final, Literal

from marketfeed_monitoring import config
from marketfeed_monitoring.promql import FEED, WORKER, up

Severity = Literal["critical", "warning"]
"""critical: data is lost or stands still, wake somebody. warning: it will, or a part of it does."""

_SYMBOL: Final = "namespace, feed, venue, symbol"
_PARTITION: Final = "namespace, feed, topic, partition"
_WHERE: Final = "{{ with $labels.feed }}feed {{ . }}, {{ end }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert.

    Attributes:
        group: the rules that it stands among.
        wait: Prometheus' `for`; "0m" fires at once.
        reason: why the window, the threshold and `wait` are what they are; a comment in the rendered file.
        summary: one line, with what is affected.
        description: what it means and where to look first.
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
  sum without (verdict) (marketfeed_consumer_audit_missing_trades{{verdict=~"unresolved|rejected"}})
) > 0
or
min by ({_SYMBOL}) (marketfeed_trade_ids_missing) > 0
""",
        wait=config.MISSING_FOR,
        reason="A repair takes seconds, one that waits for request weight some minutes: what is missing "
        "for longer does "
        "not come by itself. The database is asked first; workers, so that it is told without consumers as "
        "well, and "
        "of several workers that read a symbol the one that misses least.",
        summary=f"{_WHERE}{{{{ $labels.symbol }}}}: {{{{ $value }}}} trades are missing",
        description="Trade ids were jumped over, were not repaired and are not proven absent at the venue. "
        "Without help "
        "the data stays incomplete.",
    ),
    Alert(
        name="MarketfeedFeedStale",
        group="data",
        severity="critical",
        expr=f"max by ({WORKER}, symbol, stream) (marketfeed_stream_ready) == 0",
        wait=config.STALE_FOR,
        reason="A stream that is silent though the venue has newer data, or of which that cannot be verified. "
        "An idle market is ready: the worker asks REST. Of several workers that read a symbol the best counts. "
        "The wait leaves reconnects, rotations and rollouts out.",
        summary=f"{_WHERE}shard {{{{ $labels.shard }}}}: the {{{{ $labels.stream }}}} stream of "
        "{{ $labels.symbol }} does not deliver",
        description="The stream is stalled, or silent while REST does not respond. Missed trades are backfilled "
        "over REST as long as it responds; missed quotes are lost.",
    ),
    Alert(
        name="MarketfeedMessagesRejected",
        group="data",
        severity="warning",
        expr=f"sum by ({WORKER}, reason) (increase(marketfeed_messages_rejected_total[{config.REJECTED_WINDOW}])) > 0",
        wait="0m",
        reason="Each is a message of the venue that cannot be true, so one is enough and nothing is waited for. "
        "The window keeps the alert up long enough to be seen.",
        summary=f"{_WHERE}shard {{{{ $labels.shard }}}}: messages were rejected ({{{{ $labels.reason }}}})",
        description="They are kept as they came on the topic of rejected messages and in the table dead_letters. "
        "Their trade ids are gaps, which REST may fill.",
    ),
    Alert(
        name="MarketfeedConflictingMessages",
        group="data",
        severity="warning",
        expr=f"sum by ({FEED}, table, symbol)"
        f" (increase(marketfeed_consumer_conflicts_total[{config.IDENTITY_WINDOW}])) > 0",
        wait="0m",
        reason="One is enough: the venue, or whoever else writes to the topics, says two things of one id. The window "
        "keeps the alert up long enough to be seen.",
        summary=f"{_WHERE}{{{{ $labels.symbol }}}}: messages contradict rows of {{{{ $labels.table }}}}",
        description="The stored rows were left as they are; the messages are in trade_conflicts or quote_conflicts.",
    ),
    Alert(
        name="MarketfeedIdSeriesBegun",
        group="data",
        severity="warning",
        expr=f"max by (namespace, feed, venue, symbol, stream)"
        f" (increase(marketfeed_id_series_begun_total[{config.IDENTITY_WINDOW}])) > 0",
        wait="0m",
        reason="A venue begins ids again when a test network is reset or a symbol is listed anew; queries by id need "
        "to know. Of several workers that read a symbol each begins the series, so the highest counts.",
        summary=f"{_WHERE}{{{{ $labels.symbol }}}}: the venue has begun the ids of its {{{{ $labels.stream }}}} "
        "stream again",
        description="The symbol goes on in a new id series. Gaps of the old one that were still open stay unresolved.",
    ),
    Alert(
        name="MarketfeedTradesHeld",
        group="data",
        severity="warning",
        expr=f"min by ({_SYMBOL}) (marketfeed_trades_held) > 0",
        wait=config.HELD_FOR,
        reason="A worker holds trades back while it is not known whether the venue has begun their ids again. REST "
        "says so within seconds, and without REST ten trades decide: it is a quiet symbol, and REST that does not "
        "respond. Of several workers that read a symbol the one that publishes counts.",
        summary=f"{_WHERE}{{{{ $labels.symbol }}}}: {{{{ $value }}}} trades are held back",
        description="Their ids may begin again, and the venue's REST side does not say. They are published as soon as "
        "it responds, or when ten have come.",
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
        reason="No worker of the shard is ready, or none answers. A pod that is rescheduled is back within "
        "a minute; the "
        "venue gives missed trades back only so far, so the wait is short.",
        summary=f"{_WHERE}shard {{{{ or $labels.shard $labels.job }}}}: no worker is ready",
        description="Its symbols are not read, or not completely. What is missed is fetched later as far "
        "as the venue "
        "still gives it.",
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
        reason="Kafka refuses messages, or messages wait and none is acknowledged. Nothing is lost "
        "meanwhile: sockets are "
        "not read, and what is missed then is repaired. A broker that fails over is back within seconds.",
        summary=f"{_WHERE}shard {{{{ $labels.shard }}}}: Kafka does not take messages",
        description="Ingestion stands still until Kafka acknowledges again.",
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
        reason="451 (region) and 403 (firewall) are retried every few minutes only, 418 is a ban that "
        "doubles with each "
        "further request: all three ask for a person, so nothing is waited for. The window keeps a series "
        "of bans one "
        "alert.",
        summary=f"{_WHERE}shard {{{{ $labels.shard }}}}: the venue refuses us ({{{{ or $labels.reason "
        '"connection" }})',
        description="The venue has answered 451, 403 or 418. The connection in question is retried "
        "every few minutes, or when the ban ends.",
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
        reason="The venue counts by minutes, so the highest value of each minute counts. Workers stop at "
        "0.9 of the limit "
        "and wait. A long backfill uses up single minutes by design; five in a row is a budget that is too "
        "small.",
        summary=f"{_WHERE}{{{{ $labels.venue }}}}: {{{{ $value | humanizePercentage }}}} of the request "
        f"weight is used",
        description="Repair of gaps and checks of silent symbols are about to wait for the venue's next "
        "minute, one after "
        "the other.",
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
        reason="A lag that shrinks is a consumer that catches up, and a small one is a batch on its way. "
        "The slope is "
        "taken over a window that one burst does not turn into a trend.",
        summary=f"{_WHERE}topic {{{{ $labels.topic }}}}: {{{{ $value | humanize }}}} messages behind, and "
        f"growing",
        description="Consumers store less than workers publish. Nothing is lost until Kafka's retention "
        "deletes what was "
        "not read.",
    ),
    Alert(
        name="MarketfeedConsumerDown",
        group="persistence",
        severity="critical",
        expr=f"max by (namespace, feed, component, job) ({up('consumer')}) == 0",
        wait=config.CONSUMER_DOWN_FOR,
        reason="No consumer of the component answers, so that its lag is not even told. Consumers hold no "
        "state and are "
        "back as soon as their pod is.",
        summary=f"{_WHERE}{{{{ or $labels.component $labels.job }}}}: no consumer answers",
        description="Nothing of its topics is stored. Kafka keeps the messages as long as its retention "
        "says.",
    ),
    Alert(
        name="MarketfeedKafkaUnreachable",
        group="persistence",
        severity="critical",
        expr=f"max by ({FEED}, component, job) (marketfeed_consumer_kafka_reachable) == 0",
        wait=config.KAFKA_FOR,
        reason="No consumer of the component gets a response from Kafka; where one does it is not Kafka. Brokers that "
        "restart one after another are back within a minute or two.",
        summary=f"{_WHERE}{{{{ or $labels.component $labels.job }}}}: Kafka does not respond to consumers",
        description="Nothing of its topics is stored, and the lag is not known. Consumers go on by themselves when "
        "Kafka responds.",
    ),
    Alert(
        name="MarketfeedTopicMissing",
        group="persistence",
        severity="critical",
        expr=f"max by ({FEED}, topic) (marketfeed_consumer_topic_exists) == 0",
        wait=config.KAFKA_FOR,
        reason="A topic that a consumer subscribes to is not there: its name is wrong, or it was deleted. A new "
        "installation's workers create it within a minute.",
        summary=f"{_WHERE}topic {{{{ $labels.topic }}}} does not exist",
        description="Nothing of it is stored. Messages that were in a deleted topic and not stored are lost.",
    ),
    Alert(
        name="MarketfeedDatabaseUnavailable",
        group="persistence",
        severity="critical",
        expr=f"max by ({FEED}, component, job) (marketfeed_consumer_paused) > 0",
        wait=config.DATABASE_FOR,
        reason="A database that fails over is back within a minute or two. Consumers go on trying for as "
        "long as it takes.",
        summary=f"{_WHERE}{{{{ or $labels.component $labels.job }}}}: the database takes no rows",
        description="The consumer holds its batch and reads nothing more. Kafka keeps the messages as long "
        "as its retention "
        "says.",
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
        reason="Serialization failures (SQLSTATE class 40) for each commit. One now and then is "
        "SERIALIZABLE at work; one "
        "for every two commits, for as long as this, is two writers in each other's way. No commit at all "
        "divides by "
        "zero, which is more than any threshold.",
        summary=f"{_WHERE}{{{{ $value | humanize }}}} retries for each commit",
        description="Transactions meet others all the time and are done again. Rows are right, and late.",
    ),
    Alert(
        name="MarketfeedDeadLetters",
        group="persistence",
        severity="warning",
        expr=f"sum by ({FEED}, topic)"
        f" (increase(marketfeed_consumer_dead_letters_total[{config.DEAD_LETTER_WINDOW}])) > 0",
        wait="0m",
        reason="Each is a message that is not where it should be, so one is enough and nothing is waited "
        "for. The window "
        "keeps the alert up long enough to be seen.",
        summary=f"{_WHERE}topic {{{{ $labels.topic }}}}: messages could not be stored",
        description="They are in the table dead_letters with the reason, and consumers have gone on behind "
        "them.",
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
        "deleted. The next daily run settles the first by itself; neither loses data, so a day is soon enough.",
        summary=f"{_WHERE}table {{{{ $labels.table }}}}: retention does not delete everything that is old",
        description="A run of retention did not come to its end, or rows have a time that cannot be and are kept.",
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
label_replace(sum by (job) (marketfeed_operator_leader) == 0, "problem", "no process leads", "", "")
or
label_replace(
  max by (job) (marketfeed_operator_watch_age_seconds) > {config.WATCH_AGE_SECONDS},
  "problem", "a watch receives nothing", "", ""
)
or
label_replace(
  min by (job, namespace) (marketfeed_operator_namespace_available) == 0,
  "problem", "a namespace is unavailable", "", ""
)
or
label_replace(
  max by (job, loop) (marketfeed_operator_loop_failing) == 1, "problem", "a part of the operator fails", "", ""
)
or
label_replace(
  time() - max by (namespace, name) (marketfeed_operator_last_success_timestamp_seconds)
    > {config.FEED_SUCCESS_SECONDS},
  "problem", "a feed fails again and again", "", ""
)
or
label_replace(max by (job) ({up("operator")}) == 0, "problem", "no process answers", "", "")
""",
        wait=config.OPERATOR_FOR,
        reason="Every feed is looked at once a minute, so there always is something that succeeds, and the "
        "API server sends a bookmark on each watch. A new leader needs 15 s and a listing, a rollout a minute.",
        summary="the operator does not do its work: {{ $labels.problem }}"
        "{{ with $labels.name }} ({{ $labels.namespace }}/{{ . }}){{ end }}",
        description="Changes of MarketFeeds are not carried out and nothing is repaired. Workers and "
        "consumers that run "
        "go on.",
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
        reason="A rollout of many shards or a migration takes minutes. A paused feed is not looked after "
        "on purpose. It "
        "also tells of shards and consumers whose pods are not even there, for which no series exists.",
        summary="feed {{ $labels.namespace }}/{{ $labels.name }} is not ready",
        description="Something that the feed wants does not run. Its conditions say what.",
    ),
)
