"""Conditions and status: from what is wanted and what is there to what a user reads. Pure; clocks are passed in.

Each condition is an ordered list of checks; the first that speaks gives reason (a constant) and message (a
sentence). Reasons are part of the API: people alert on them.

    Ready        everything that is wanted runs
    Progressing  something is under way, by itself, to its end
    Degraded     something needs a person, or will; data may well still flow
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
    """The status to be told at `now`; a condition keeps its time while its status stays."""
    status = Status(
        observed_generation=at.feed.generation if at.applied else at.applied_generation,
        conditions=tuple(conditions(at, now)),
        symbols=symbols(at),
        shards=shards(at),
        consumers=consumers(at),
        migration=MigrationStatus(job=at.plan.job, state=at.plan.migration) if at.plan else None,
        retention=retention(at),
    )
    if at.plan is None:  # what was told stays true until there is a new plan
        before = at.feed.status
        parts = ("symbols", "shards", "consumers", "migration", "retention")
        kept = {name: before[name] for name in parts if name in before}
        return _restored(status, kept)
    return status


def _restored(status: Status, kept: dict[str, Any]) -> Status:
    told = status.model_dump(by_alias=True, exclude_none=True)
    try:
        return Status.model_validate({**told, **kept}, strict=False)
    except ValidationError:  # somebody else wrote into the status
        return status
