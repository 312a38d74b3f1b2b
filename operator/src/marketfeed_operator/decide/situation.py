"""All that a status is decided by."""

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
    """All that conditions are decided by.

    Attributes:
        spec: None when it is not sound; `problems` then says why.
        plan: None when there is none: the spec is not sound, or the symbols are not known yet.
        failure: what the API server refused in this pass, "" when nothing.
        failure_reason: the reason of the condition that says so.
        conflicts: objects of others that have the name of a child.
        fault: what the operator itself failed at, "" when at nothing.
        applied: everything that this generation wants was applied.
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
        """The newest generation that was applied in full, as the status held it before."""
        return self.feed.status.get("observedGeneration")

    def troubled_workloads(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """((kind, name), (reason, message)) of what gets no further of the wanted workloads and retention's newest run.

        A Job that has failed is reported as what it is for.
        """
        wanted = self.plan.children if self.plan is not None else ()
        found = []
        for child in wanted:
            facts = self.observed.children.get(child.key)
            if child.kind is CRON_JOB and child.body is not None and child.body["spec"].get("suspend"):
                continue  # by the operator itself, until the schema fits
            trouble = None if facts is None else facts.trouble or self.observed.refusals.get(facts.uid)
            if facts is not None and trouble is not None and facts.job != "Failed":
                found.append(((child.kind.kind, child.name), trouble))
        for run in self.retention_runs()[-1:] if self.retention() is not None else ():
            trouble = run.trouble or self.observed.refusals.get(run.uid)
            if trouble is not None and run.job == "Running":
                found.append(((run.key[0], run.key[2]), trouble))
        return found

    def unisolated(self) -> list[str]:
        """Components that are to have a network policy of the feed, and have none."""
        wanted = self.plan.children if self.plan is not None else ()
        return [
            component_of(child)
            for child in wanted
            if child.kind is NETWORK_POLICY and child.key not in self.observed.children
        ]

    def has_workload(self, component: str) -> bool:
        """Whether a workload of that component is there."""
        return any(
            key[0] in (DEPLOYMENT.kind, STATEFUL_SET.kind, JOB.kind, CRON_JOB.kind)
            and facts.component == component
            for key, facts in self.observed.children.items()
        )

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

    def retention(self) -> str | None:
        """Name of the CronJob that deletes what is old; None where everything is kept."""
        wanted = self.plan.children if self.plan is not None else ()
        return next((child.name for child in wanted if child.kind is CRON_JOB), None)

    def retention_runs(self) -> list[ChildFacts]:
        """The Jobs that are left of it, the newest last."""
        found = [
            facts
            for facts in self.observed.children.values()
            if facts.key[0] == JOB.kind and facts.component == RETENTION
        ]
        return sorted(found, key=lambda facts: (facts.created, facts.key))


def refused_symbols(at: Situation) -> dict[str, str]:
    """Symbols of the feed that workers have left out -> why, in order.

    A worker on its way out, or one whose file has not reached it yet, still tells of symbols that the feed has no more.
    """
    wanted = None if at.plan is None else {symbol for each in at.plan.target.values() for symbol in each}
    found = {
        symbol: why
        for report in at.observed.reports.values()
        for symbol, why in report.refused.items()
        if wanted is None or symbol in wanted
    }
    return dict(sorted(found.items()))
