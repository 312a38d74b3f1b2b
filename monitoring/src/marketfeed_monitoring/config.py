"""Thresholds, windows and paths of the rules and dashboards.

Durations are in Prometheus' format ("5m"), each with its reason. A scrape interval of at most 30 s is assumed
(`spec.monitoring.intervalSeconds` of a MarketFeed), so no window is shorter than four scrapes.
"""

from typing import Final

RUNBOOKS: Final = "docs/runbooks"
"""Folder of the runbooks in this repository, the prefix of `runbook_url`. An installation should replace it with the
URL of a copy that its operators can open."""

RATE_WINDOW: Final = "5m"
"""Window of rates in alerts: ten scrapes at the longest interval, so two lost scrapes change little."""

# Completeness and freshness
MISSING_FOR: Final = "10m"
"""A backfill over REST takes seconds, or a few minutes when it waits for request weight. Ids that are missing after
ten minutes are not backfilled without intervention."""
REJECTED_WINDOW: Final = "15m"
"""Time for which one rejected message keeps the alert firing, so that it is noticed."""
STALE_FOR: Final = "2m"
"""The worker detects a stalled stream by its inter-arrival times, verifies it over REST and replaces the connection,
which takes seconds for a busy stream. A stream that is not ready after two minutes was not fixed by that; reconnects
and rollouts are shorter."""
FRESH_SECONDS: Final = 60
"""Dashboards: the newest stored trade of a feed with a liquid symbol is younger than this."""
STALE_SECONDS: Final = 300

IDENTITY_WINDOW: Final = "1h"
"""Time for which one conflict or new id series keeps its alert firing, so that it is noticed."""

HELD_FOR: Final = "2m"
"""Held trades are decided over REST within five seconds, or by ten trades in a row. Trades that are held longer wait
for both REST and further trades."""

# Workers
SHARD_DOWN_FOR: Final = "3m"
"""A rescheduled pod is back within a minute and backfills missed trades. The venue limits how far back it provides
trades, so the wait is short."""
PUBLISH_WINDOW: Final = "2m"
PUBLISH_FOR: Final = "2m"
"""In-flight messages have no time limit, and sockets are not read meanwhile. A broker failover takes seconds; four
minutes without any acknowledgement are a fault."""
WEIGHT_NEAR_END: Final = 0.8
"""Fraction of the venue's request weight per minute. Workers stop at 0.9 and wait for the next minute: above 0.8
backfills are about to be delayed, and above 1 the venue would respond with 429, then 418."""
WEIGHT_FOR: Final = "5m"
"""A long backfill uses up single minutes by design. Five in a row mean that the budget is too small."""
REFUSED_WINDOW: Final = "10m"
"""Time for which one refusal keeps the alert firing: bans begin at two minutes and double, so this window merges a
series of bans into one alert."""

# Consumers
LAG_MESSAGES: Final = 10_000
"""A consumer stores ten thousand messages in well under a second (docs/performance.md); a lower lag is a batch in
flight."""
LAG_SLOPE_WINDOW: Final = "15m"
"""Window of the lag's slope: in a shorter one a burst would be a trend."""
LAG_FOR: Final = "10m"
CONSUMER_DOWN_FOR: Final = "5m"
"""A consumer is stateless and resumes as soon as its pod is back; Kafka keeps the unread messages meanwhile."""
RETRIES_PER_COMMIT: Final = 0.5
"""Serialization failures per commit. Few are normal under SERIALIZABLE; one for every two commits means that two
writers conflict permanently."""
RETRIES_FOR: Final = "10m"
DATABASE_FOR: Final = "5m"
"""A database failover takes a minute or two; Kafka keeps the messages meanwhile."""
KAFKA_FOR: Final = "5m"
"""A rolling restart of brokers or a change of a partition's leader takes a minute or two; the workers of a new
installation create its topics within a minute. Workers have an alert of their own (PUBLISH_FOR)."""
DEAD_LETTER_WINDOW: Final = "15m"
"""Time for which one dead letter keeps the alert firing. There is no `for`, because each is a message that is not
stored."""
RETENTION_FOR: Final = "24h"
"""Retention runs once a day, and a first run over a large table takes hours. What the next run does not resolve needs
intervention."""

# Operator
OPERATOR_WINDOW: Final = "10m"
"""Each feed is reconciled every 60 s (RESYNC_SECONDS), so ten minutes without a success are ten resync intervals."""
OPERATOR_FOR: Final = "5m"
"""A new leader takes 15 s (LEASE_SECONDS) and its first listing; a rollout takes a minute."""
WATCH_AGE_SECONDS: Final = 300
"""A watch receives an event or bookmark once a minute. After 180 s without one /livez fails, which restarts the pod;
above 300 s the restart did not help."""
FEED_SUCCESS_SECONDS: Final = 900
"""Failures of a feed are retried within minutes, so a quarter of an hour without a success is a lasting failure."""
FEED_READY_FOR: Final = "15m"
"""A rollout of many shards, or a migration of a large schema, takes minutes and is reported as Progressing."""
