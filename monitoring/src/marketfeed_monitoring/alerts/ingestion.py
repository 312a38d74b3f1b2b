"""Alerts about workers, the venue and publishing."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.alerts.model import WHERE, Alert
from marketfeed_monitoring.promql import WORKER, up

INGESTION: Final[tuple[Alert, ...]] = (
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
        summary=f"{WHERE}shard {{{{ or $labels.shard $labels.job }}}}: no worker is ready",
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
        summary=f"{WHERE}shard {{{{ $labels.shard }}}}: publishing to Kafka is stalled",
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
        summary=f"{WHERE}shard {{{{ $labels.shard }}}}: the venue refuses requests ({{{{ or $labels.reason "
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
        summary=f"{WHERE}{{{{ $labels.venue }}}}: {{{{ $value | humanizePercentage }}}} of the request "
        f"weight is used",
        description="Backfills and stream verifications are about to be delayed to the next minute of the venue's "
        "rate limit.",
    ),
)
