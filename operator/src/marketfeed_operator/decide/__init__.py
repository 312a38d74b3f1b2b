"""Compute conditions and status from the desired and the observed state. Pure; clocks are passed in.

Each condition is an ordered list of checks; the first finding gives reason (a constant) and message (a sentence).
Reasons are API: alerts use them.

    Ready        all desired workloads are ready
    Progressing  a rollout, migration or handover is in progress
    Degraded     something requires attention, now or soon; data may still flow
    Paused       spec.paused
"""

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from marketfeed_operator.api import Status
from marketfeed_operator.api.status import MigrationStatus
from marketfeed_operator.decide.conditions import conditions
from marketfeed_operator.decide.situation import Situation
from marketfeed_operator.decide.summaries import consumers, retention, shards, symbols

__all__ = ["Situation", "decide"]


def decide(at: Situation, now: datetime) -> Status:
    """Return the status at `now`; a condition keeps its transition time while its status is unchanged."""
    status = Status(
        observed_generation=at.feed.generation if at.applied else at.applied_generation,
        conditions=tuple(conditions(at, now)),
        symbols=symbols(at),
        shards=shards(at),
        consumers=consumers(at),
        migration=MigrationStatus(job=at.plan.job, state=at.plan.migration) if at.plan else None,
        retention=retention(at),
    )
    if at.plan is None:  # the last status stays true until there is a new plan
        before = at.feed.status
        parts = ("symbols", "shards", "consumers", "migration", "retention")
        kept = {name: before[name] for name in parts if name in before}
        return _restored(status, kept)
    return status


def _restored(status: Status, kept: dict[str, Any]) -> Status:
    computed = status.model_dump(by_alias=True, exclude_none=True)
    try:
        return Status.model_validate({**computed, **kept}, strict=False)
    except ValidationError:  # the status was modified by something else
        return status
