"""The checks behind the conditions: each looks at one thing, and speaks only if it is not as it should be.

Their reasons are part of the API: people alert on them.
"""

from collections.abc import Callable
from typing import Final

from marketfeed_operator.decide.situation import Situation, refused_symbols
from marketfeed_operator.kinds import KAFKA, KAFKA_TOPIC, SCALED_OBJECT
from marketfeed_operator.names import MIGRATION, RETENTION

Verdict = tuple[str, str]
"""Reason and message."""

Check = Callable[[Situation], Verdict | None]


def _fault(at: Situation) -> Verdict | None:
    if not at.fault:
        return None
    return (
        "ReconcileFailed",
        f"the operator failed at this feed and tries again; other feeds are not concerned: {at.fault}",
    )


def _invalid_spec(at: Situation) -> Verdict | None:
    if not at.problems:
        return None
    return ("InvalidSpec" if at.spec is None else "NotPermitted", "; ".join(at.problems))


def _not_applied(at: Situation) -> Verdict | None:
    paused = at.spec is not None and at.spec.paused
    if at.applied or at.applied_generation == at.feed.generation or (paused and at.applied_generation):
        return None
    if at.plan is not None and at.plan.held_back and not paused:
        return None  # see `_held_back`: what they wait for says more
    if paused:
        return ("SpecPaused", "spec.paused is true, and nothing of this feed was applied before")
    return ("Applying", f"generation {at.feed.generation} of the spec is not applied in full yet")


def _not_isolated(at: Situation) -> Verdict | None:
    if at.spec is not None and at.spec.paused:
        components = [each for each in at.unisolated() if at.has_workload(each)]
        then = "spec.paused is true, so they are not created, and running pods are not isolated"
    else:
        applied = at.applied or at.applied_generation == at.feed.generation
        components = at.unisolated() if at.failure or applied else []  # else they are being created
        then = "until they are, no workload of these is created or changed, and running pods are not isolated"
    if not components:
        return None
    return (
        "NotIsolated",
        f"declared network policies are not in force for {', '.join(components)}: {then}",
    )


def _held_back(at: Situation) -> Verdict | None:
    if at.plan is None or not at.plan.held_back or at.applied_generation == at.feed.generation:
        return None
    if at.spec is not None and at.spec.paused:
        return None
    return (
        "Applying",
        f"generation {at.feed.generation} of the spec is not applied in full yet: {at.plan.held_back} workloads wait "
        "for their turn",
    )


def _name_conflict(at: Situation) -> Verdict | None:
    if not at.conflicts:
        return None
    more = f" (and {len(at.conflicts) - 1} more)" if len(at.conflicts) > 1 else ""
    return ("NameConflict", f"{at.conflicts[0]}{more}")


def _namespace_unavailable(at: Situation) -> Verdict | None:
    problem = at.observed.scope_problem
    if not problem:
        return None
    return (
        "NamespaceUnavailable",
        f"namespace {at.feed.namespace} cannot be listed or watched, so changes in it may go unnoticed: {problem}",
    )


def _several_operators(at: Situation) -> Verdict | None:
    if not at.observed.other_operator:
        return None
    return (
        "SeveralOperators",
        f"operator {at.observed.other_operator} would serve namespace {at.feed.namespace} too, and stands aside: "
        "install one operator for each namespace",
    )


def _operator_failing(at: Situation) -> Verdict | None:
    failing = [f"{loop}: {reason}" for loop, reason in sorted(at.observed.operator_problems.items())]
    if at.observed.claim_problem:
        failing.append(f"claim on namespace {at.feed.namespace}: {at.observed.claim_problem}")
    return ("OperatorDegraded", f"a part of the operator fails: {'; '.join(failing)}") if failing else None


def _workloads_in_trouble(at: Situation) -> Verdict | None:
    troubled = at.troubled_workloads()
    if not troubled:
        return None
    (kind, name), (reason, message) = troubled[0]
    more = f" (and {len(troubled) - 1} more workloads)" if len(troubled) > 1 else ""
    return (reason, f"{kind} {name}: {message}{more}")


def _reports_rejected(at: Situation) -> Verdict | None:
    names = {pod.uid: pod.name for pod in at.observed.pods}
    rejected = [
        f"{names[uid]}: {why}" for uid, why in sorted(at.observed.report_problems.items()) if uid in names
    ]
    if not rejected:
        return None
    more = f" (and {len(rejected) - 1} more pods)" if len(rejected) > 1 else ""
    return ("StatusRejected", f"the /status of {rejected[0]}{more} cannot be used")


def _symbols_unknown_yet(at: Situation) -> Verdict | None:
    if at.plan is not None or at.problems or at.spec is None or at.spec.symbol_selector is None:
        return None
    listing = at.observed.listing
    why = f": {listing.problem}" if listing is not None and listing.problem else ""
    return ("ResolvingSymbols", f"the venue has not said which symbols there are{why}")


def _no_symbols(at: Situation) -> Verdict | None:
    if at.plan is None or at.plan.target:
        return None
    return ("NoSymbols", "no symbol of the venue fits symbolSelector")


def _apply_failed(at: Situation) -> Verdict | None:
    return (at.failure_reason, at.failure) if at.failure else None


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


def _retention_failed(at: Situation) -> Verdict | None:
    """Told until a run succeeds, also while the next is at it: else it would come and go with each try."""
    ended = [run for run in at.retention_runs() if run.job != "Running"]
    if at.retention() is None or not ended or ended[-1].job != "Failed":
        return None
    return (
        "RetentionFailed",
        f"Job {ended[-1].key[2]} failed, so what is too old is still stored: read its log and mend the cause. The next "
        f"run is by the schedule, or kubectl create job --from=cronjob/{at.retention()} NAME",
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
    # A pod that has ended for good (evicted, say) matters until another does its work. Those of Jobs are the Jobs'
    # affair.
    waiting = _shards_not_ready(at) is not None or _consumers_not_ready(at) is not None
    troubled = [
        pod
        for pod in at.observed.pods
        if pod.trouble and (not pod.ended or (waiting and pod.component not in (MIGRATION, RETENTION)))
    ]
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


def _kind_unreadable(at: Situation) -> Verdict | None:
    used = {child.kind.kind for child in at.plan.children} if at.plan is not None else set()
    if at.spec is not None and at.spec.kafka.cluster is not None:
        used.add(KAFKA.kind)
    found = [f"{kind}: {why}" for kind, why in sorted(at.observed.unreadable_kinds.items()) if kind in used]
    if not found:
        return None
    return (
        "KindUnavailable",
        f"objects of a kind that this feed uses cannot be listed, so changes of them may go unnoticed: {found[0]}",
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
    refused = refused_symbols(at)
    if not refused:
        return None
    first = ", ".join(f"{symbol} ({why})" for symbol, why in list(refused.items())[:5])
    more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
    return ("SymbolsUnknown", f"the venue does not trade {first}{more}: the others are read")


READY: Final[tuple[Check, ...]] = (
    # What the user has to mend comes first: while it stands nothing else can be expected to come right.
    _fault, _invalid_spec, _not_isolated, _apply_failed, _symbols_unknown_yet, _not_applied, _no_symbols,
    # Then along the data's way: shards before consumers.
    _migration_failed, _shards_not_ready, _migration_running, _held_back, _consumers_not_ready,
)  # fmt: skip
PROGRESSING: Final[tuple[Check, ...]] = (_symbols_unknown_yet, _migration_running, _rolling, _moving)
DEGRADED: Final[tuple[Check, ...]] = (
    _fault, _invalid_spec, _name_conflict, _apply_failed, _not_isolated, _namespace_unavailable, _migration_failed,
    _retention_failed, _workloads_in_trouble, _pods_in_trouble, _venue_silent, _no_strimzi, _no_autoscaler,
    _symbols_refused, _kind_unreadable, _reports_rejected, _several_operators, _operator_failing,
)  # fmt: skip
