"""Every threshold, window and address of the rules and dashboards, in one place.

Durations are Prometheus' own text ("5m"); each says beside it why it is what it is. Scrapes are expected at least every
30 s (`spec.monitoring.intervalSeconds` of a MarketFeed), so no window is shorter than four of them.
"""

from typing import Final

RUNBOOKS: Final = "docs/runbooks"
"""Where `runbook_url` points: the folder in this repository. Whoever installs the rules puts the address of a copy that
people can open in front of it."""

RATE_WINDOW: Final = "5m"
"""Of rates in alerts: ten scrapes at the slowest interval, so two lost ones change little."""

# Completeness and freshness
MISSING_FOR: Final = "10m"
"""A repair over REST takes seconds; one that waits for the next minute's weight, a few minutes. What is missing after
ten does not come by itself."""
REJECTED_WINDOW: Final = "15m"
"""How long one rejected message keeps the alert up: long enough to be seen."""
STALE_FOR: Final = "2m"
"""The worker finds a stalled stream by the stream's own history, verifies it over REST and replaces the connection,
which takes seconds for a busy stream. What is still not ready after two minutes was not fixed by that; a reconnect or a
rollout is over before."""
FRESH_SECONDS: Final = 60
"""Dashboards: the newest stored trade of the whole feed is younger while a liquid market is read."""
STALE_SECONDS: Final = 300

IDENTITY_WINDOW: Final = "1h"
"""A conflict or a new id series is one event: the window keeps its alert up long enough to be seen."""

HELD_FOR: Final = "2m"
"""REST decides about trades that are held back within five seconds, and ten trades in a row decide without it: what is
held for longer waits for REST, and for trades."""

# Workers
SHARD_DOWN_FOR: Final = "3m"
"""A pod that is rescheduled is back within a minute, and fetches what it missed. The venue gives old trades back only
so far, so this is the shortest `for` of all that are not about lost data itself."""
PUBLISH_WINDOW: Final = "2m"
PUBLISH_FOR: Final = "2m"
"""Messages wait for their acknowledgement without a time limit, and meanwhile sockets are not read. A broker that fails
over is back within seconds; four minutes of no acknowledgement at all are not a hiccup."""
WEIGHT_NEAR_END: Final = 0.8
"""Of the venue's weight a minute. Workers stop at 0.9 and wait for the next minute: above 0.8 repair is about to slow
down, and above 1 the venue would answer 429, then 418."""
WEIGHT_FOR: Final = "5m"
"""A long backfill uses up single minutes by design. Five in a row is a budget that is too small."""
REFUSED_WINDOW: Final = "10m"
"""How long one refusal keeps the alert up: bans begin at two minutes and double, so a window of that order shows a
series of them as one alert."""

# Consumers
LAG_MESSAGES: Final = 10_000
"""A consumer stores ten thousand messages in well under a second (docs/performance.md): fewer is a batch on its way."""
LAG_SLOPE_WINDOW: Final = "15m"
"""Over which lag must rise: shorter would see one burst as a trend."""
LAG_FOR: Final = "10m"
CONSUMER_DOWN_FOR: Final = "5m"
"""A consumer holds no state, so it is back as soon as its pod is; Kafka keeps what is not read meanwhile."""
RETRIES_PER_COMMIT: Final = 0.5
"""Serialization failures for each commit. A conflict now and then is SERIALIZABLE at work; one for every two commits
means that two writers are in each other's way all the time."""
RETRIES_FOR: Final = "10m"
DATABASE_FOR: Final = "5m"
"""A database fails over within a minute or two; meanwhile Kafka keeps the messages."""
KAFKA_FOR: Final = "5m"
"""Brokers that restart one after another, or a partition that changes its leader, are back within a minute or two; a
new installation's topics are created by its workers within one. Workers stand still meanwhile, and say so themselves
(PUBLISH_FOR)."""
DEAD_LETTER_WINDOW: Final = "15m"
"""How long one dead letter keeps the alert up; there is no `for`, because each one is a message that is not stored."""
RETENTION_FOR: Final = "24h"
"""Retention runs once a day, and a first run over a large table takes hours; what the next does not settle stays."""

# Operator
OPERATOR_WINDOW: Final = "10m"
"""Each feed is reconciled every 60 s (RESYNC_SECONDS), so ten minutes without a single success is ten times the longest
pause."""
OPERATOR_FOR: Final = "5m"
"""A new leader needs 15 s (LEASE_SECONDS) and its first listing; a rollout a minute."""
WATCH_AGE_SECONDS: Final = 300
"""A watch brings something once a minute, and one that brings nothing for 180 s fails /livez, which restarts the pod:
above 300 s that did not help."""
FEED_SUCCESS_SECONDS: Final = 900
"""Failures of one feed are tried again within minutes, so a quarter of an hour without a success is one that lasts."""
FEED_READY_FOR: Final = "15m"
"""A rollout of many shards, or a migration of a large schema, takes minutes and is reported as Progressing."""
