"""Alerts about consumers, the database and retention."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.alerts.model import PARTITION, WHERE, Alert
from marketfeed_monitoring.promql import FEED, up

PERSISTENCE: Final[tuple[Alert, ...]] = (
    Alert(
        name="MarketfeedConsumerLagGrowing",
        group="persistence",
        severity="warning",
        expr=f"""
sum by ({FEED}, topic) (max by ({PARTITION}) (marketfeed_consumer_lag_messages)) > {config.LAG_MESSAGES}
and
sum by ({FEED}, topic) (max by ({PARTITION}) (deriv(marketfeed_consumer_lag_messages[{config.LAG_SLOPE_WINDOW}]))) > 0
""",
        wait=config.LAG_FOR,
        reason="A decreasing lag means that the consumer is catching up, and a small one is a batch in flight. The "
        "slope covers a window in which one burst is not a trend.",
        summary=f"{WHERE}topic {{{{ $labels.topic }}}}: consumer lag is {{{{ $value | humanize }}}} messages and "
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
        summary=f"{WHERE}{{{{ or $labels.component $labels.job }}}}: no consumer is up",
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
        summary=f"{WHERE}{{{{ or $labels.component $labels.job }}}}: Kafka does not respond to consumers",
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
        summary=f"{WHERE}topic {{{{ $labels.topic }}}} does not exist",
        description="None of its messages is stored. Messages of a deleted topic that were not stored are lost.",
    ),
    Alert(
        name="MarketfeedDatabaseUnavailable",
        group="persistence",
        severity="critical",
        expr=f"max by ({FEED}, component, job) (marketfeed_consumer_paused) > 0",
        wait=config.DATABASE_FOR,
        reason="A database failover takes a minute or two. Consumers retry without a time limit.",
        summary=f"{WHERE}{{{{ or $labels.component $labels.job }}}}: database writes are paused",
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
        summary=f"{WHERE}{{{{ $value | humanize }}}} retries per commit",
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
        summary=f"{WHERE}topic {{{{ $labels.topic }}}}: messages could not be stored",
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
        summary=f"{WHERE}table {{{{ $labels.table }}}}: retention does not delete all expired rows",
        description="A retention run did not finish, or rows have an impossible time and are kept.",
    ),
)
