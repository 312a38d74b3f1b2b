"""Execute a plan: apply every child, then delete obsolete ones, within the limit of one pass."""

from dataclasses import dataclass, field
from typing import Final

from marketfeed_operator.apply import Applier
from marketfeed_operator.desired import Child, component_of
from marketfeed_operator.errors import ApiError, Forbidden, Invalid, NameConflict, NotFound
from marketfeed_operator.kinds import (
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    JOB,
    NETWORK_POLICY,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
)
from marketfeed_operator.observed import ChildKey, FeedFacts, Observed
from marketfeed_operator.plan import Plan, obsolete
from marketfeed_service import logs

log = logs.get(__name__)

MAX_CHANGES: Final = 100
"""Changed children per pass: a feed of thousands of shards takes several passes, alternating with other feeds."""


@dataclass
class Execution:
    """Result of one pass.

    Attributes:
        refusal: first refusal, for the status and the log.
        conflicts: messages about objects that have the name of a child and belong to something else.
        changes: number of children that were created, changed or deleted.
        cut_short: the limit of the pass was reached; the rest follows after other feeds.
        stopped: no further requests in this pass.
        missing: children that workloads depend on and that could not be created: see `_waits`.
    """

    refusal: ApiError | None = None
    conflicts: list[str] = field(default_factory=list)
    changes: int = 0
    cut_short: bool = False
    stopped: bool = False
    missing: list[Child] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything planned is applied, apart from pending workloads."""
        return self.refusal is None and not self.cut_short

    def refused(self, error: ApiError, *, stop: bool = False) -> None:
        """Record a refusal."""
        self.refusal = self.refusal or error
        self.stopped |= stop


class Executor:
    """Executes plans."""

    def __init__(self, applier: Applier) -> None:
        self._applier = applier

    async def execute(self, facts: FeedFacts, planned: Plan, observed: Observed) -> Execution:
        """Apply and delete; the refusal of one child does not prevent the others.

        Args:
            facts: the feed.
            planned: its plan.
            observed: its observed state.
        """
        done = Execution()
        for child in planned.children:
            if self._ends(done):
                return done
            if not any(_waits(child, missing) for missing in done.missing):
                await self._apply(child, facts, observed, done)
        for key in obsolete(planned.children, observed, facts.uid):
            if self._ends(done):
                return done
            await self._delete(key, facts, observed, done)
        return done

    @staticmethod
    def _ends(done: Execution) -> bool:
        done.cut_short |= done.changes >= MAX_CHANGES
        return done.stopped or done.cut_short

    async def _apply(self, child: Child, facts: FeedFacts, observed: Observed, done: Execution) -> None:
        what = f"{child.kind.kind} {child.name}"
        try:
            outcome = await self._applier.apply(child, observed, facts.uid)
        except NotFound as error:
            if (
                not child.kind.optional
            ):  # the namespace is being deleted, or an optional kind's CRD is gone: the next audit detects it
                done.refused(error, stop=True)
        except NameConflict as error:
            done.conflicts.append(f"{error}")
            if not child.shared:
                done.refused(error)
                done.missing.append(child)
        except (Invalid, Forbidden) as error:
            done.refused(_about(error, what))
            if child.kind is NETWORK_POLICY and child.key not in observed.children:
                done.missing.append(child)
        except ApiError as error:
            done.refused(_about(error, what), stop=True)
        else:
            if outcome.result not in ("noop", "held", "foreign"):
                done.changes += 1
                log.info(
                    "child changed",
                    result=outcome.result,
                    feed="/".join(facts.key),
                    kind=child.kind.kind,
                    name=child.name,
                )

    async def _delete(self, key: ChildKey, facts: FeedFacts, observed: Observed, done: Execution) -> None:
        try:
            await self._applier.delete(key, observed.children[key])
        except ApiError as error:
            done.refused(error)
        else:
            done.changes += 1
            log.info("child deleted", feed="/".join(facts.key), kind=key[0], name=key[2])


def _waits(workload: Child, missing: Child) -> bool:
    """Return whether a workload's pods would start without `missing`, or with an object that belongs to something
    else.

    Without their network policy pods would not be isolated; a foreign ServiceAccount would be their identity, and a
    foreign ConfigMap their assignment.
    """
    if workload.kind not in (DEPLOYMENT, STATEFUL_SET, JOB, CRON_JOB) or workload.body is None:
        return False
    if missing.kind is NETWORK_POLICY:
        return component_of(workload) == component_of(missing)
    return missing.kind is SERVICE_ACCOUNT or (missing.kind is CONFIG_MAP and workload.name == missing.name)


def _about(error: ApiError, what: str) -> ApiError:
    return type(error)(error.status, f"{what}: {error}", error.retry_after_seconds)
