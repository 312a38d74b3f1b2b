"""Conditions and status: from what is wanted and what is there to what a user reads. Pure; clocks are passed in.

Each condition is an ordered list of checks; the first that speaks gives reason (a constant) and message (a
sentence). Reasons are part of the API: people alert on them.

    Ready        everything that is wanted runs
    Progressing  something is under way, by itself, to its end
    Degraded     something needs a person, or will; data may well still flow
    Paused       spec.paused
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from marketfeed_operator.api import Condition, Spec, Status
from marketfeed_operator.api.status import (
    MAX_SHARDS_LISTED,
    MAX_SYMBOLS_LISTED,
    ConsumerSetStatus,
    ConsumersStatus,
    MigrationStatus,
    ShardsStatus,
    ShardStatus,
    SymbolsStatus,
)
from marketfeed_operator.kinds import DEPLOYMENT, KAFKA_TOPIC, SCALED_OBJECT, STATEFUL_SET
from marketfeed_operator.names import COMPONENT, FEED, consumer_component, consumer_name, shard_name
from marketfeed_operator.observed import ChildFacts, FeedFacts, Observed, PodReport
from marketfeed_operator.plan import Plan
from marketfeed_wire.assignment import hash_of

Verdict = tuple[str, str]
"""Reason and message."""


@dataclass(frozen=True)
class Situation:
    """All that conditions are decided by.

    Attributes:
        spec: None when it is not sound; `problems` then says why.
        plan: None when there is none: the spec is not sound, or the symbols are not known yet.
        failure: what the API server refused in this pass, "" when nothing.
    """

    feed: FeedFacts
    spec: Spec | None
    problems: Sequence[str]
    observed: Observed
    plan: Plan | None
    failure: str = ""

    def shards(self) -> list[ChildFacts | None]:
        """The Deployments of the wanted shards; None for one that is not there."""
        if self.plan is None:
            return []
        return [
            self.observed.child(DEPLOYMENT.kind, self.feed.namespace, shard_name(self.feed.name, shard))
            for shard in sorted(self.plan.readings)
        ]

    def stateful_sets(self) -> list[tuple[str, ChildFacts | None]]:
        """(name, facts) of each topic's consumers that are wanted."""
        if self.plan is None:
            return []
        return [
            (child.name, self.observed.children.get(child.key))
            for child in self.plan.children
            if child.kind is STATEFUL_SET
        ]


Check = Callable[[Situation], Verdict | None]


def _invalid_spec(at: Situation) -> Verdict | None:
    return ("InvalidSpec", "; ".join(at.problems)) if at.problems else None


def _symbols_unknown_yet(at: Situation) -> Verdict | None:
    if at.plan is not None or at.problems:
        return None
    listing = at.observed.listing
    why = f": {listing.problem}" if listing is not None and listing.problem else ""
    return ("ResolvingSymbols", f"the venue has not said which symbols there are{why}")


def _no_symbols(at: Situation) -> Verdict | None:
    if at.plan is None or at.plan.target:
        return None
    return ("NoSymbols", "no symbol of the venue fits symbolSelector")


def _apply_failed(at: Situation) -> Verdict | None:
    return ("ApplyFailed", at.failure) if at.failure else None


def _migration_failed(at: Situation) -> Verdict | None:
    if at.plan is None or at.plan.migration != "Failed":
        return None
    return (
        "MigrationFailed",
        f"Job {at.plan.job} failed, so consumers are not (re)started: read its log, mend the cause, "
        f"then delete the Job to run it again",
    )


def _migration_running(at: Situation) -> Verdict | None:
    if at.plan is None or at.plan.migration != "Running":
        return None
    return (
        "Migrating",
        f"Job {at.plan.job} brings the database's schema up to date; consumers start after it",
    )


def _shards_not_ready(at: Situation) -> Verdict | None:
    shards = at.shards()
    ready = sum(1 for facts in shards if facts is not None and facts.wanted <= facts.ready)
    if ready == len(shards):
        return None
    return ("ShardsNotReady", f"{ready} of {len(shards)} shards are ready")


def _consumers_not_ready(at: Situation) -> Verdict | None:
    waiting = [
        f"{name} ({facts.ready} of {facts.wanted})" if facts is not None else f"{name} (not there yet)"
        for name, facts in at.stateful_sets()
        if facts is None or facts.ready < facts.wanted
    ]
    return ("ConsumersNotReady", f"consumers are not ready: {', '.join(waiting)}") if waiting else None


def _moving(at: Situation) -> Verdict | None:
    number = sum(len(reading.leaving) for reading in at.plan.readings.values()) if at.plan else 0
    if not number:
        return None
    return ("MovingSymbols", f"{number} symbols stay in their old shards until the new ones have them live")


def _rolling(at: Situation) -> Verdict | None:
    found = [
        facts for facts in [*at.shards(), *(facts for _, facts in at.stateful_sets())] if facts is not None
    ]
    under_way = sum(1 for facts in found if not facts.rolled)
    waiting = at.plan.waiting_shards if at.plan else 0
    if not under_way and not waiting:
        return None
    then = f", {waiting} shards wait for their turn" if waiting else ""
    return ("RollingOut", f"{under_way} of {len(found)} workloads are not yet what they are to be{then}")


def _pods_in_trouble(at: Situation) -> Verdict | None:
    troubled = [pod for pod in at.observed.pods if pod.trouble]
    if not troubled:
        return None
    more = f" (and {len(troubled) - 1} more pods)" if len(troubled) > 1 else ""
    return ("PodsFailing", f"{troubled[0].name}: {troubled[0].trouble}{more}")


def _venue_silent(at: Situation) -> Verdict | None:
    listing = at.observed.listing
    if listing is None or not listing.problem:
        return None
    kept = "; the symbols taken before are still read" if listing.symbols is not None or at.plan else ""
    return ("VenueUnreachable", f"{listing.problem}{kept}")


def _no_autoscaler(at: Situation) -> Verdict | None:
    if at.spec is None or at.spec.consumers is None or SCALED_OBJECT.kind in at.observed.kinds:
        return None
    consumers = (at.spec.consumers.trades, at.spec.consumers.book_ticker)
    if not any(consumer and consumer.autoscaling for consumer in consumers):
        return None
    return (
        "AutoscalerMissing",
        "autoscaling needs KEDA, whose kind ScaledObject this cluster does not know: minReplicas are run",
    )


def _no_strimzi(at: Situation) -> Verdict | None:
    if at.spec is None or not at.spec.kafka.manage_topics or KAFKA_TOPIC.kind in at.observed.kinds:
        return None
    return (
        "StrimziMissing",
        "kafka.manageTopics needs Strimzi, whose kind KafkaTopic (kafka.strimzi.io/v1) this cluster does not know: "
        "no topic is declared",
    )


def _symbols_refused(at: Situation) -> Verdict | None:
    refused = refused_symbols(at.observed)
    if not refused:
        return None
    first = ", ".join(f"{symbol} ({why})" for symbol, why in list(refused.items())[:5])
    more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
    return ("SymbolsUnknown", f"the venue does not trade {first}{more}: the others are read")


READY: Final[tuple[Check, ...]] = (
    # What the user has to mend comes first: while it stands nothing else can be expected to come right.
    _invalid_spec, _apply_failed, _symbols_unknown_yet, _no_symbols,
    # Then along the data's way: shards before consumers.
    _migration_failed, _shards_not_ready, _migration_running, _consumers_not_ready,
)  # fmt: skip
PROGRESSING: Final[tuple[Check, ...]] = (_symbols_unknown_yet, _migration_running, _rolling, _moving)
DEGRADED: Final[tuple[Check, ...]] = (
    _invalid_spec, _apply_failed, _migration_failed, _pods_in_trouble, _venue_silent, _no_strimzi, _no_autoscaler,
    _symbols_refused,
)  # fmt: skip


def refused_symbols(observed: Observed) -> dict[str, str]:
    """Symbols that workers have left out -> why, in order."""
    found = {symbol: why for report in observed.reports.values() for symbol, why in report.refused.items()}
    return dict(sorted(found.items()))


def decide(at: Situation, now: datetime) -> Status:
    """The status to be told at `now`; a condition keeps its time while its status stays."""
    status = Status(
        observed_generation=at.feed.generation,
        conditions=tuple(_conditions(at, now)),
        symbols=_symbols(at),
        shards=_shards(at),
        consumers=_consumers(at),
        migration=MigrationStatus(job=at.plan.job, state=at.plan.migration) if at.plan else None,
    )
    if at.plan is None:  # what was told stays true until there is a new plan
        before = at.feed.status
        kept = {
            name: before[name] for name in ("symbols", "shards", "consumers", "migration") if name in before
        }
        return _restored(status, kept)
    return status


def _restored(status: Status, kept: dict[str, Any]) -> Status:
    return Status.model_validate(
        {**status.model_dump(by_alias=True, exclude_none=True), **kept}, strict=False
    )


def _conditions(at: Situation, now: datetime) -> list[Condition]:
    before = {found.get("type"): found for found in at.feed.status.get("conditions", [])}
    paused = at.spec is not None and at.spec.paused
    not_ready, under_way, degraded = (_first(checks, at) for checks in (READY, PROGRESSING, DEGRADED))
    told: list[tuple[Any, bool, Verdict]] = [
        ("Ready", not_ready is None, not_ready or ("AllReady", "every shard and every consumer is ready")),
        (
            "Progressing",
            under_way is not None and not paused,
            under_way if under_way and not paused else ("Settled", "nothing is under way"),
        ),
        ("Degraded", degraded is not None, degraded or ("AsExpected", "nothing needs attention")),
        (
            "Paused",
            paused,
            ("SpecPaused", "spec.paused is true: nothing of this feed is changed, its pods go on")
            if paused
            else ("NotPaused", "the feed is kept as declared"),
        ),
    ]
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = []
    for kind, holds, (reason, message) in told:
        state = "True" if holds else "False"
        known = before.get(kind, {})
        since = known.get("lastTransitionTime") if known.get("status") == state else None
        conditions.append(
            Condition(
                type=kind,
                status="True" if holds else "False",
                reason=reason,
                message=message[:1024],
                last_transition_time=since or moment,
                observed_generation=at.feed.generation,
            )
        )
    return conditions


def _first(checks: Sequence[Check], at: Situation) -> Verdict | None:
    return next((verdict for check in checks if (verdict := check(at)) is not None), None)


def _symbols(at: Situation) -> SymbolsStatus | None:
    if at.plan is None:
        return None
    refused = list(refused_symbols(at.observed))
    return SymbolsStatus(
        resolved=sum(len(symbols) for symbols in at.plan.target.values()),
        unknown=tuple(refused[:MAX_SYMBOLS_LISTED]),
        unknown_count=len(refused),
    )


def _shards(at: Situation) -> ShardsStatus | None:
    if at.plan is None:
        return None
    items = []
    for shard, facts in zip(sorted(at.plan.readings), at.shards(), strict=True):
        reading = at.plan.readings[shard]
        told = [
            at.observed.reports[pod.uid]
            for pod in at.observed.pods
            if pod.shard == shard and pod.uid in at.observed.reports
        ]
        items.append(
            ShardStatus(
                name=shard_name(at.feed.name, shard),
                symbols=len(reading.symbols),
                hash=hash_of(reading.symbols),
                applied=_common(report.assignment for report in told),
                ready=facts.ready if facts else 0,
                last_trade_time=_minute(told),
                # Two pods that read the same miss the same: the worse of them counts.
                missing_trades=max((report.missing_trades for report in told), default=0),
            )
        )
    found = at.shards()
    return ShardsStatus(
        desired=len(items),
        ready=sum(1 for facts in found if facts is not None and facts.wanted <= facts.ready),
        updated=sum(1 for facts in found if facts is not None and facts.rolled),
        moving_symbols=sum(len(reading.leaving) for reading in at.plan.readings.values()),
        missing_trades=sum(item.missing_trades for item in items),
        items=tuple(items[:MAX_SHARDS_LISTED]),
    )


def _common(hashes: Any) -> str:
    found = set(hashes)
    return found.pop() if len(found) == 1 else ""


def _minute(told: Sequence[PodReport]) -> str | None:
    """The newest trade, to the minute: a status that changes each second would be a write each second."""
    times = [report.last_trade_time_us for report in told if report.last_trade_time_us is not None]
    if not times:
        return None
    return datetime.fromtimestamp(max(times) // 60_000_000 * 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _consumers(at: Situation) -> ConsumersStatus | None:
    if at.plan is None or at.spec is None or not at.stateful_sets():
        return None
    sets = {
        "trade": _consumer_set(at, "trade", at.spec.kafka.topics.trades.name),
        "bookTicker": _consumer_set(at, "bookTicker", at.spec.kafka.topics.book_ticker.name),
    }
    there = [found for found in sets.values() if found is not None]
    lags = [found.lag for found in there if found.lag is not None]
    return ConsumersStatus(
        desired=sum(found.desired for found in there),
        ready=sum(found.ready for found in there),
        lag=sum(lags) if lags else None,
        trades=sets["trade"],
        book_ticker=sets["bookTicker"],
    )


def _consumer_set(at: Situation, stream: str, topic: str) -> ConsumerSetStatus | None:
    name, component = consumer_name(at.feed.name, stream), consumer_component(stream)
    if name not in {wanted for wanted, _ in at.stateful_sets()}:
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
        replicas=facts.there if facts else 0,
        desired=facts.wanted if facts else _declared_replicas(at.spec, stream),
        ready=facts.ready if facts else 0,
        lag=sum(lags) if lags else None,
        selector=f"{FEED}={at.feed.name},{COMPONENT}={component}",
    )


def _declared_replicas(spec: Spec | None, stream: str) -> int:
    consumers = spec.consumers if spec is not None else None
    declared = consumers and (consumers.trades if stream == "trade" else consumers.book_ticker)
    if not declared:
        return 1
    if declared.autoscaling is not None:
        return declared.autoscaling.min_replicas
    return 1 if declared.replicas is None else declared.replicas
