"""Status fields beside the conditions: symbols, shards, consumers."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from marketfeed_operator.api import Spec
from marketfeed_operator.api.status import (
    MAX_SHARDS_LISTED,
    MAX_SYMBOLS_LISTED,
    ConsumerSetStatus,
    ConsumersStatus,
    RetentionStatus,
    ShardsStatus,
    ShardStatus,
    SymbolsStatus,
)
from marketfeed_operator.decide.situation import Situation, refused_symbols
from marketfeed_operator.kinds import STATEFUL_SET
from marketfeed_operator.names import COMPONENT, FEED, consumer_component, consumer_name, shard_name
from marketfeed_operator.observed import PodReport
from marketfeed_operator.plan import by_shard
from marketfeed_operator.text import api_time, printable
from marketfeed_wire.assignment import hash_of

MAX_TOTAL: Final = 2**53
"""Integers of a status have 64 bits, and JSON readers such as jq keep 53."""


def symbols(at: Situation) -> SymbolsStatus | None:
    """Return the number of symbols and those that the venue does not trade; None without a plan."""
    if at.plan is None:
        return None
    refused = list(refused_symbols(at))
    return SymbolsStatus(
        resolved=sum(len(assigned) for assigned in at.plan.target.values()),
        unknown=tuple(refused[:MAX_SYMBOLS_LISTED]),
        unknown_count=len(refused),
    )


def shards(at: Situation) -> ShardsStatus | None:
    """Return the status of the shards, with at most `MAX_SHARDS_LISTED` items; None without a plan."""
    if at.plan is None:
        return None
    items, reports, found = [], by_shard(at.observed), at.shards()
    for shard, facts in zip(sorted(at.plan.assignments), found, strict=True):
        assignment, shard_reports = at.plan.assignments[shard], reports.get(shard, [])
        items.append(
            ShardStatus(
                name=shard_name(at.feed.name, shard),
                symbols=len(assignment.symbols),
                hash=hash_of(assignment.symbols),
                applied=_common(report.assignment for report in shard_reports),
                ready=facts.ready if facts else 0,
                last_trade_time=_minute(shard_reports),
                # Two pods of a shard read the same symbols and have the same gaps: the larger count is used.
                missing_trades=max((report.missing_trades for report in shard_reports), default=0),
            )
        )
    return ShardsStatus(
        desired=len(items),
        ready=sum(1 for facts in found if facts is not None and facts.desired <= facts.ready),
        updated=sum(1 for facts in found if facts is not None and facts.rolled),
        moving_symbols=sum(len(assignment.draining) for assignment in at.plan.assignments.values()),
        missing_trades=_total(item.missing_trades for item in items),
        items=tuple(items[:MAX_SHARDS_LISTED]),
    )


def _total(counts: Iterable[int]) -> int:
    """Return the sum of counts reported by any number of pods, capped to the range of a status field."""
    return min(sum(counts), MAX_TOTAL)


def _common(hashes: Iterable[str]) -> str:
    found = set(hashes)
    return found.pop() if len(found) == 1 else ""


def _minute(shard_reports: Sequence[PodReport]) -> str | None:
    """Return the newest trade time, to the minute: one that changes each second would cause a write each second."""
    times = [report.last_trade_time_us for report in shard_reports if report.last_trade_time_us is not None]
    if not times:
        return None
    return api_time(datetime.fromtimestamp(max(times) // 60_000_000 * 60, UTC))


def consumers(at: Situation) -> ConsumersStatus | None:
    """Return the consumers of each topic; None when nothing is stored."""
    if at.plan is None or at.spec is None or not at.stateful_sets():
        return None
    sets = {
        "trade": _consumer_set(at, "trade", at.spec.kafka.topics.trades.name),
        "bookTicker": _consumer_set(at, "bookTicker", at.spec.kafka.topics.book_ticker.name),
    }
    present = [found for found in sets.values() if found is not None]
    lags = [found.lag for found in present if found.lag is not None]
    return ConsumersStatus(
        desired=sum(found.desired for found in present),
        ready=sum(found.ready for found in present),
        lag=_total(lags) if lags else None,
        trades=sets["trade"],
        book_ticker=sets["bookTicker"],
    )


def _consumer_set(at: Situation, stream: str, topic: str) -> ConsumerSetStatus | None:
    name, component = consumer_name(at.feed.name, stream), consumer_component(stream)
    if name not in {configured for configured, _ in at.stateful_sets()}:
        return None
    facts = at.observed.child(STATEFUL_SET.kind, at.feed.namespace, name)
    lags = [
        report.lag
        for pod in at.observed.pods
        if pod.component == component
        and (report := at.observed.reports.get(pod.uid)) is not None
        and report.lag is not None
    ]
    return ConsumerSetStatus(
        topic=topic,
        replicas=facts.current if facts else 0,
        desired=facts.desired if facts else _declared_replicas(at.spec, stream),
        ready=facts.ready if facts else 0,
        lag=_total(lags) if lags else None,
        selector=f"{FEED}={at.feed.name},{COMPONENT}={component}",
    )


def retention(at: Situation) -> RetentionStatus | None:
    """Return the retention CronJob and its latest Job; None when everything is kept."""
    if (name := at.retention()) is None:
        return None
    if not (runs := at.retention_runs()):
        return RetentionStatus(cron_job=name)
    return RetentionStatus(cron_job=name, job=printable(runs[-1].key[2], 63), state=runs[-1].job)


def _declared_replicas(spec: Spec | None, stream: str) -> int:
    configured = spec.consumers if spec is not None else None
    declared = configured and (configured.trades if stream == "trade" else configured.book_ticker)
    if not declared:
        return 1
    if declared.autoscaling is not None:
        return declared.autoscaling.min_replicas
    return 1 if declared.replicas is None else declared.replicas
