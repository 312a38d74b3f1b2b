"""Plan for a feed: symbols to shards, children, and what is pending. Pure and idempotent."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from marketfeed_operator.api import Spec
from marketfeed_operator.assign import ShardAssignment, assign, moves, transition
from marketfeed_operator.desired import Child, Feed, config_hash, desired, migration_job
from marketfeed_operator.desired.base import Object
from marketfeed_operator.kinds import DEPLOYMENT, JOB, SERVICE_ACCOUNT, STATEFUL_SET
from marketfeed_operator.names import COMPONENT, DESIRED_HASH, RETENTION, shard_of
from marketfeed_operator.observed import JobState, Observed, PodReport
from marketfeed_wire.assignment import hash_of


@dataclass(frozen=True)
class Plan:
    """Desired state of this pass.

    Attributes:
        children: desired children, in the order of creation.
        assignments: symbols that each shard reads.
        target: symbols assigned to each shard.
        moving: symbol -> (from, to), for those whose shard just changed.
        waiting_shards: number of shards whose rollout waits for others to finish.
        pending: number of workloads that are not created or changed yet although they differ: these shards, and
            consumers that wait.
        migration: state of the migration for this feed's consumers.
        job: name of the migration Job; "" for none.
    """

    children: tuple[Child, ...]
    assignments: Mapping[int, ShardAssignment]
    target: Mapping[int, Set[str]]
    moving: Mapping[str, tuple[int, int]]
    waiting_shards: int
    pending: int
    migration: JobState
    job: str


def resolve(spec: Spec, observed: Observed, assigned: Set[str]) -> Set[str] | None:
    """Return the symbols of the feed; None while the venue's list is unknown.

    A selected symbol stays selected while it matches the selector, whatever precedes it in the alphabet.

    Args:
        spec: spec of the feed.
        observed: its observed state, with the venue's symbol list.
        assigned: symbols that are assigned already.
    """
    if spec.symbols is not None:
        return frozenset(spec.symbols)
    chosen = spec.symbol_selector
    listing = observed.listing
    if chosen is None or listing is None or listing.symbols is None:
        # The list is unknown: symbols in use stay in use.
        return frozenset(assigned) or None
    fitting = sorted(
        symbol
        for symbol, (status, quote_asset) in listing.symbols.items()
        if status == chosen.status and (not chosen.quote_assets or quote_asset in chosen.quote_assets)
    )
    selected_before = [symbol for symbol in fitting if symbol in assigned]
    new = [symbol for symbol in fitting if symbol not in assigned]
    return frozenset([*selected_before, *new][: chosen.maximum])


def plan(feed: Feed, observed: Observed) -> Plan | None:
    """Return the plan; None while the symbols are unknown."""
    now = assignments(observed)
    assigned = frozenset(symbol for shard in now.values() for symbol in shard.owned)
    symbols = resolve(feed.spec, observed, assigned)
    if symbols is None:
        return None
    target = assign(
        {shard: assignment.owned for shard, assignment in now.items()}, symbols, feed.spec.shard_size
    )
    following = transition(now, target, live_symbols(now, observed))
    job = migration_job(feed)
    state: JobState = "None"
    if job is not None:
        found = observed.children.get(job.key)
        state = found.job if found is not None else "Running"
    desired_children = desired(feed, following, observed.kinds, migrated=state not in ("Running", "Failed"))
    children, waiting = _limit_rollouts(
        [
            _hold_for_predecessor(
                feed, _hold_for_migration(child, state, observed), desired_children, observed
            )
            for child in desired_children
        ],
        observed,
        feed.spec.ingestion.max_updating_shards,
    )
    return Plan(
        children=tuple(children),
        assignments=following,
        target=target,
        moving=moves(now, target),
        waiting_shards=waiting,
        pending=_count_pending(desired_children, children, observed),
        migration=state,
        job=job.name if job is not None else "",
    )


def assignments(observed: Observed) -> dict[int, ShardAssignment]:
    """Return the stored assignments."""
    found = {}
    for (_, _, name), facts in observed.children.items():
        shard = shard_of(name)
        if facts.assignment is not None and shard is not None:
            found[shard] = facts.assignment
    return found


def by_shard(observed: Observed) -> dict[int, list[PodReport]]:
    """Return the reports of each shard's pods; shards without a report are left out."""
    found = defaultdict[int, list[PodReport]](list)
    for pod in observed.pods:
        if pod.shard is not None and (report := observed.reports.get(pod.uid)) is not None:
            found[pod.shard].append(report)
    return dict(found)


def live_symbols(now: Mapping[int, ShardAssignment], observed: Observed) -> dict[int, frozenset[str]]:
    """Return the symbols that each shard's workers report as live: all of its file, or none.

    With two pods both have to report them: the old shard drops a symbol only when the new one is equally redundant.
    """
    reports, live = by_shard(observed), {}
    for shard, assignment in now.items():
        shard_reports = reports.get(shard)
        if shard_reports and all(
            report.assignment == hash_of(assignment.symbols) for report in shard_reports
        ):
            live[shard] = assignment.symbols
    return live


def _hold_for_migration(child: Child, state: JobState, observed: Observed) -> Child:
    """Hold consumers until the schema matches their image: the old ones continue with the old schema.

    The migration Job itself is left unchanged: its pod template is immutable, and it runs once.
    """
    if child.kind is JOB:
        found = observed.children.get(child.key)
        return (
            child.held() if found is not None and found.desired_hash != _desired_hash(child.body) else child
        )
    return child.held() if child.kind is STATEFUL_SET and state in ("Running", "Failed") else child


def _hold_for_predecessor(
    feed: Feed, child: Child, desired_children: Sequence[Child], observed: Observed
) -> Child:
    """Hold consumers that an upgrade has renamed until those of the old name are gone: never both at once."""
    if child.kind is not STATEFUL_SET or child.body is None:
        return child
    component = child.body["metadata"]["labels"][COMPONENT]
    names = {each.key for each in desired_children}
    older = any(
        key[0] == STATEFUL_SET.kind
        and facts.component == component
        and key not in names
        and facts.belongs_to(feed.uid)
        for key, facts in observed.children.items()
    )
    return child.held() if older else child


def _limit_rollouts(children: list[Child], observed: Observed, at_once: int) -> tuple[list[Child], int]:
    """Hold rollouts of shards above `at_once`: a faulty setting then affects a few shards only."""
    rolling = sum(
        1
        for child in children
        if child.kind is DEPLOYMENT
        and (facts := observed.children.get(child.key)) is not None
        and not facts.rolled
    )
    result, waiting = [], 0
    for child in children:
        if not _rolls(child, observed):
            result.append(child)
        elif rolling < at_once or not observed.children[child.key].rolled:
            # A shard that is not ready loses nothing by a rollout, which may fix it.
            rolling += observed.children[child.key].rolled
            result.append(child)
        else:
            waiting += 1
            result.append(child.held())
    return result, waiting


def _count_pending(desired_children: Sequence[Child], children: Sequence[Child], observed: Observed) -> int:
    """Return the number of held children that differ from the stored ones. A migration Job is never changed."""
    return sum(
        1
        for child, planned in zip(desired_children, children, strict=True)
        if planned.body is None
        and child.kind is not JOB
        and (
            (found := observed.children.get(child.key)) is None
            or found.desired_hash != _desired_hash(child.body)
        )
    )


def _rolls(child: Child, observed: Observed) -> bool:
    """Return whether applying the child would restart existing pods."""
    facts = observed.children.get(child.key)
    return child.kind is DEPLOYMENT and facts is not None and facts.config_hash != config_hash(child.body)


def _desired_hash(body: Object | None) -> str:
    return "" if body is None else str(body["metadata"]["annotations"][DESIRED_HASH])


def obsolete(desired_children: tuple[Child, ...], observed: Observed, uid: str) -> list[tuple[str, str, str]]:
    """Return the existing children that are not desired. Topics are kept: deleting them would delete their data.

    Only objects that the feed with that `uid` created, whatever their labels. Retention runs belong to their CronJob.
    A ServiceAccount is kept while a workload uses it: a workload whose rollout is pending could not start pods
    without it.

    Args:
        desired_children: the desired children.
        observed: observed state of the feed.
        uid: uid of the feed.
    """
    keep = {child.key for child in desired_children}
    # A completed migration is kept until the next one replaces it.
    accounts = {facts.account for facts in observed.children.values()}
    has_job = any(key[0] == JOB.kind and key in observed.children for key in keep)
    return [
        key
        for key in observed.children
        if key not in keep
        and observed.children[key].belongs_to(uid)
        and not (key[0] == SERVICE_ACCOUNT.kind and key[2] in accounts)
        and key[0] != "KafkaTopic"
        and (key[0] != JOB.kind or has_job or not _has_job(desired_children))
        and not (key[0] == JOB.kind and observed.children[key].component == RETENTION)
    ]


def _has_job(desired_children: tuple[Child, ...]) -> bool:
    return any(child.kind is JOB for child in desired_children)
