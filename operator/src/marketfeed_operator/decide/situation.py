"""Input of the conditions and the status."""

from collections.abc import Sequence
from dataclasses import dataclass

from marketfeed_operator.api import Spec
from marketfeed_operator.desired import component_of
from marketfeed_operator.kinds import CRON_JOB, DEPLOYMENT, JOB, NETWORK_POLICY, STATEFUL_SET
from marketfeed_operator.names import RETENTION, shard_name
from marketfeed_operator.observed import ChildFacts, FeedFacts, Observed
from marketfeed_operator.plan import Plan


@dataclass(frozen=True)
class Situation:
    """Everything that the conditions are computed from.

    Attributes:
        spec: None when it is invalid; `problems` has the reasons.
        plan: None when the spec is invalid or the symbols are not known yet.
        failure: refusal of the API server in this pass, or "".
        failure_reason: condition reason of that refusal.
        conflicts: messages about objects that have the name of a child and belong to something else.
        fault: internal error of the operator in this pass, or "".
        applied: this generation was applied completely.
    """

    feed: FeedFacts
    spec: Spec | None
    problems: Sequence[str]
    observed: Observed
    plan: Plan | None
    failure: str = ""
    failure_reason: str = "ApplyFailed"
    conflicts: Sequence[str] = ()
    fault: str = ""
    applied: bool = False

    @property
    def applied_generation(self) -> int | None:
        """Newest generation that was fully applied, from the stored status."""
        return self.feed.status.get("observedGeneration")

    def troubled_workloads(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """Return ((kind, name), (reason, message)) of the desired workloads, and of the latest retention run, that
        are stuck.

        A failed Job is reported as the migration or retention that it runs.
        """
        desired_children = self.plan.children if self.plan is not None else ()
        found = []
        for child in desired_children:
            facts = self.observed.children.get(child.key)
            if child.kind is CRON_JOB and child.body is not None and child.body["spec"].get("suspend"):
                continue  # suspended by the operator itself, until the schema matches
            trouble = None if facts is None else facts.trouble or self.observed.refusals.get(facts.uid)
            if facts is not None and trouble is not None and facts.job != "Failed":
                found.append(((child.kind.kind, child.name), trouble))
        for run in self.retention_runs()[-1:] if self.retention() is not None else ():
            trouble = run.trouble or self.observed.refusals.get(run.uid)
            if trouble is not None and run.job == "Running":
                found.append(((run.key[0], run.key[2]), trouble))
        return found

    def unisolated(self) -> list[str]:
        """Return the components whose desired network policy does not exist."""
        desired_children = self.plan.children if self.plan is not None else ()
        return [
            component_of(child)
            for child in desired_children
            if child.kind is NETWORK_POLICY and child.key not in self.observed.children
        ]

    def has_workload(self, component: str) -> bool:
        """Return whether a workload of that component exists."""
        return any(
            key[0] in (DEPLOYMENT.kind, STATEFUL_SET.kind, JOB.kind, CRON_JOB.kind)
            and facts.component == component
            for key, facts in self.observed.children.items()
        )

    def shards(self) -> list[ChildFacts | None]:
        """Return the Deployments of the desired shards; None for one that does not exist."""
        if self.plan is None:
            return []
        return [
            self.observed.child(DEPLOYMENT.kind, self.feed.namespace, shard_name(self.feed.name, shard))
            for shard in sorted(self.plan.assignments)
        ]

    def stateful_sets(self) -> list[tuple[str, ChildFacts | None]]:
        """Return (name, facts) of the desired StatefulSet of each topic."""
        if self.plan is None:
            return []
        return [
            (child.name, self.observed.children.get(child.key))
            for child in self.plan.children
            if child.kind is STATEFUL_SET
        ]

    def retention(self) -> str | None:
        """Return the name of the retention CronJob; None when everything is kept."""
        desired_children = self.plan.children if self.plan is not None else ()
        return next((child.name for child in desired_children if child.kind is CRON_JOB), None)

    def retention_runs(self) -> list[ChildFacts]:
        """Return the remaining Jobs of the retention CronJob, oldest first."""
        found = [
            facts
            for facts in self.observed.children.values()
            if facts.key[0] == JOB.kind and facts.component == RETENTION
        ]
        return sorted(found, key=lambda facts: (facts.created, facts.key))


def refused_symbols(at: Situation) -> dict[str, str]:
    """Return the feed's symbols that workers refused -> reason, sorted.

    A worker that is terminating, or has not read its new file yet, may report symbols that the feed no longer has.
    """
    desired_children = (
        None if at.plan is None else {symbol for each in at.plan.target.values() for symbol in each}
    )
    found = {
        symbol: why
        for report in at.observed.reports.values()
        for symbol, why in report.refused.items()
        if desired_children is None or symbol in desired_children
    }
    return dict(sorted(found.items()))
