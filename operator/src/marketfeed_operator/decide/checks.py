"""Checks behind the conditions. Each checks one thing, and returns a finding only when it is not as expected.

Reasons are API: alerts use them.
"""

from collections.abc import Callable
from typing import Final

from marketfeed_operator.decide.situation import Situation, refused_symbols
from marketfeed_operator.kinds import KAFKA, KAFKA_TOPIC, SCALED_OBJECT
from marketfeed_operator.names import MIGRATION, RETENTION

Finding = tuple[str, str]
"""Reason and message."""

Check = Callable[[Situation], Finding | None]


def _fault(at: Situation) -> Finding | None:
    if not at.fault:
        return None
    return (
        "ReconcileFailed",
        "reconciliation failed with an internal error and is retried; other feeds are not affected: "
        f"{at.fault}",
    )


def _invalid_spec(at: Situation) -> Finding | None:
    if not at.problems:
        return None
    return ("InvalidSpec" if at.spec is None else "NotPermitted", "; ".join(at.problems))


def _not_applied(at: Situation) -> Finding | None:
    paused = at.spec is not None and at.spec.paused
    if at.applied or at.applied_generation == at.feed.generation or (paused and at.applied_generation):
        return None
    if at.plan is not None and at.plan.pending and not paused:
        return None  # see `_pending`, whose message is more specific
    if paused:
        return ("SpecPaused", "spec.paused is true, and no generation of this feed was applied before")
    return ("Applying", f"generation {at.feed.generation} of the spec is not fully applied")


def _not_isolated(at: Situation) -> Finding | None:
    if at.spec is not None and at.spec.paused:
        components = [each for each in at.unisolated() if at.has_workload(each)]
        then = "spec.paused is true, so they are not created, and running pods are not isolated"
    else:
        applied = at.applied or at.applied_generation == at.feed.generation
        components = at.unisolated() if at.failure or applied else []  # otherwise they are being created
        then = "until they are, no workload of these is created or changed, and running pods are not isolated"
    if not components:
        return None
    return (
        "NotIsolated",
        f"declared network policies are not in force for {', '.join(components)}: {then}",
    )


def _pending(at: Situation) -> Finding | None:
    if at.plan is None or not at.plan.pending or at.applied_generation == at.feed.generation:
        return None
    if at.spec is not None and at.spec.paused:
        return None
    return (
        "Applying",
        f"generation {at.feed.generation} of the spec is not fully applied: {at.plan.pending} workloads pending",
    )


def _name_conflict(at: Situation) -> Finding | None:
    if not at.conflicts:
        return None
    more = f" (and {len(at.conflicts) - 1} more)" if len(at.conflicts) > 1 else ""
    return ("NameConflict", f"{at.conflicts[0]}{more}")


def _namespace_unavailable(at: Situation) -> Finding | None:
    problem = at.observed.scope_problem
    if not problem:
        return None
    return (
        "NamespaceUnavailable",
        f"namespace {at.feed.namespace} cannot be listed or watched, so changes in it may be missed: "
        f"{problem}",
    )


def _several_operators(at: Situation) -> Finding | None:
    if not at.observed.other_operator:
        return None
    return (
        "SeveralOperators",
        f"operator {at.observed.other_operator} is also configured for namespace {at.feed.namespace} and is "
        "idle there: install one operator per namespace",
    )


def _operator_failing(at: Situation) -> Finding | None:
    failing = [f"{loop}: {reason}" for loop, reason in sorted(at.observed.operator_problems.items())]
    if at.observed.lease_problem:
        failing.append(f"lease of namespace {at.feed.namespace}: {at.observed.lease_problem}")
    return (
        ("OperatorDegraded", f"a background loop of the operator fails: {'; '.join(failing)}")
        if failing
        else None
    )


def _workloads_in_trouble(at: Situation) -> Finding | None:
    troubled = at.troubled_workloads()
    if not troubled:
        return None
    (kind, name), (reason, message) = troubled[0]
    more = f" (and {len(troubled) - 1} more workloads)" if len(troubled) > 1 else ""
    return (reason, f"{kind} {name}: {message}{more}")


def _reports_rejected(at: Situation) -> Finding | None:
    names = {pod.uid: pod.name for pod in at.observed.pods}
    rejected = [
        f"{names[uid]}: {why}" for uid, why in sorted(at.observed.report_problems.items()) if uid in names
    ]
    if not rejected:
        return None
    more = f" (and {len(rejected) - 1} more pods)" if len(rejected) > 1 else ""
    return ("StatusRejected", f"the response of /status of {rejected[0]}{more} is invalid")


def _symbols_unknown_yet(at: Situation) -> Finding | None:
    if at.plan is not None or at.problems or at.spec is None or at.spec.symbol_selector is None:
        return None
    listing = at.observed.listing
    why = f": {listing.problem}" if listing is not None and listing.problem else ""
    return ("ResolvingSymbols", f"the symbols of the venue are not listed yet{why}")


def _no_symbols(at: Situation) -> Finding | None:
    if at.plan is None or at.plan.target:
        return None
    return ("NoSymbols", "symbolSelector matches no symbol of the venue")


def _apply_failed(at: Situation) -> Finding | None:
    return (at.failure_reason, at.failure) if at.failure else None


def _migration_failed(at: Situation) -> Finding | None:
    if at.plan is None or at.plan.migration != "Failed":
        return None
    return (
        "MigrationFailed",
        f"Job {at.plan.job} failed, so consumers are not (re)started: read its log, fix the cause, then "
        "delete the Job to run it again",
    )


def _migration_running(at: Situation) -> Finding | None:
    if at.plan is None or at.plan.migration != "Running":
        return None
    return (
        "Migrating",
        f"Job {at.plan.job} migrates the database schema; consumers start after it",
    )


def _retention_failed(at: Situation) -> Finding | None:
    """Report a failure until a run succeeds, also while the next one is running: otherwise the condition would
    alternate.
    """
    ended = [run for run in at.retention_runs() if run.job != "Running"]
    if at.retention() is None or not ended or ended[-1].job != "Failed":
        return None
    return (
        "RetentionFailed",
        f"Job {ended[-1].key[2]} failed, so expired rows are still stored: read its log and fix the cause. "
        f"The next run follows the schedule, or kubectl create job --from=cronjob/{at.retention()} NAME",
    )


def _shards_not_ready(at: Situation) -> Finding | None:
    shards = at.shards()
    ready = sum(1 for facts in shards if facts is not None and facts.desired <= facts.ready)
    if ready == len(shards):
        return None
    return ("ShardsNotReady", f"{ready} of {len(shards)} shards are ready")


def _consumers_not_ready(at: Situation) -> Finding | None:
    waiting = [
        f"{name} ({facts.ready} of {facts.desired})" if facts is not None else f"{name} (not created yet)"
        for name, facts in at.stateful_sets()
        if facts is None or facts.ready < facts.desired
    ]
    return ("ConsumersNotReady", f"consumers are not ready: {', '.join(waiting)}") if waiting else None


def _moving(at: Situation) -> Finding | None:
    number = sum(len(assignment.draining) for assignment in at.plan.assignments.values()) if at.plan else 0
    if not number:
        return None
    return (
        "MovingSymbols",
        f"{number} symbols are still read by their old shards until they are live in the new ones",
    )


def _rolling(at: Situation) -> Finding | None:
    found = [
        facts for facts in [*at.shards(), *(facts for _, facts in at.stateful_sets())] if facts is not None
    ]
    rolling_out = sum(1 for facts in found if not facts.rolled)
    waiting = at.plan.waiting_shards if at.plan else 0
    if not rolling_out and not waiting:
        return None
    then = f", {waiting} shards are pending" if waiting else ""
    return ("RollingOut", f"{rolling_out} of {len(found)} workloads are rolling out{then}")


def _pods_in_trouble(at: Situation) -> Finding | None:
    # A pod that has terminated for good (evicted, for example) matters until it is replaced. Those of Jobs are
    # covered by the Job.
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


def _venue_silent(at: Situation) -> Finding | None:
    listing = at.observed.listing
    if listing is None or not listing.problem:
        return None
    kept = "; the symbols selected before are still read" if listing.symbols is not None or at.plan else ""
    return ("VenueUnreachable", f"{listing.problem}{kept}")


def _no_autoscaler(at: Situation) -> Finding | None:
    if at.spec is None or at.spec.consumers is None or SCALED_OBJECT.kind in at.observed.kinds:
        return None
    consumers = (at.spec.consumers.trades, at.spec.consumers.book_ticker)
    if not any(consumer and consumer.autoscaling for consumer in consumers):
        return None
    return (
        "AutoscalerMissing",
        "autoscaling needs KEDA, and this cluster has no ScaledObject CRD: minReplicas are used",
    )


def _kind_unreadable(at: Situation) -> Finding | None:
    used = {child.kind.kind for child in at.plan.children} if at.plan is not None else set()
    if at.spec is not None and at.spec.kafka.cluster is not None:
        used.add(KAFKA.kind)
    found = [f"{kind}: {why}" for kind, why in sorted(at.observed.unreadable_kinds.items()) if kind in used]
    if not found:
        return None
    return (
        "KindUnavailable",
        f"resources that this feed uses cannot be listed, so changes to them may be missed: {found[0]}",
    )


def _no_strimzi(at: Situation) -> Finding | None:
    if at.spec is None or not at.spec.kafka.manage_topics or KAFKA_TOPIC.kind in at.observed.kinds:
        return None
    return (
        "StrimziMissing",
        "kafka.manageTopics needs Strimzi, and this cluster has no KafkaTopic CRD (kafka.strimzi.io/v1): "
        "no topic is declared",
    )


def _symbols_refused(at: Situation) -> Finding | None:
    refused = refused_symbols(at)
    if not refused:
        return None
    first = ", ".join(f"{symbol} ({why})" for symbol, why in list(refused.items())[:5])
    more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
    return ("SymbolsUnknown", f"the venue does not trade {first}{more}: the others are read")


READY: Final[tuple[Check, ...]] = (
    # What the user must fix comes first: nothing else can succeed before.
    _fault, _invalid_spec, _not_isolated, _apply_failed, _symbols_unknown_yet, _not_applied, _no_symbols,
    # Then in the order of the data flow: shards before consumers.
    _migration_failed, _shards_not_ready, _migration_running, _pending, _consumers_not_ready,
)  # fmt: skip
PROGRESSING: Final[tuple[Check, ...]] = (_symbols_unknown_yet, _migration_running, _rolling, _moving)
DEGRADED: Final[tuple[Check, ...]] = (
    _fault, _invalid_spec, _name_conflict, _apply_failed, _not_isolated, _namespace_unavailable, _migration_failed,
    _retention_failed, _workloads_in_trouble, _pods_in_trouble, _venue_silent, _no_strimzi, _no_autoscaler,
    _symbols_refused, _kind_unreadable, _reports_rejected, _several_operators, _operator_failing,
)  # fmt: skip
