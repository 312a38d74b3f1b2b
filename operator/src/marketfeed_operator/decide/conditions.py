"""Conditions: for each type an ordered list of checks, the first finding of which gives reason and message."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from marketfeed_operator.api import Condition
from marketfeed_operator.decide.checks import DEGRADED, PROGRESSING, READY, Check, Finding
from marketfeed_operator.decide.situation import Situation
from marketfeed_operator.text import api_time


def conditions(at: Situation, now: datetime) -> list[Condition]:
    """Return the four conditions, always all and in this order; each keeps its transition time while its status is
    unchanged.
    """
    before = {found.get("type"): found for found in at.feed.status.get("conditions", [])}
    paused = at.spec is not None and at.spec.paused
    not_ready, in_progress, degraded = (_first(checks, at) for checks in (READY, PROGRESSING, DEGRADED))
    evaluated: list[tuple[Any, bool, Finding]] = [
        ("Ready", not_ready is None, not_ready or ("AllReady", "all shards and consumers are ready")),
        (
            "Progressing",
            in_progress is not None and not paused,
            in_progress if in_progress and not paused else ("Settled", "no rollout in progress"),
        ),
        ("Degraded", degraded is not None, degraded or ("AsExpected", "no problems detected")),
        (
            "Paused",
            paused,
            ("SpecPaused", "spec.paused is true: the feed is not reconciled, its pods keep running")
            if paused
            else ("NotPaused", "the feed is reconciled"),
        ),
    ]
    moment = api_time(now)
    decided = []
    for kind, holds, (reason, message) in evaluated:
        state: Literal["True", "False"] = "True" if holds else "False"
        known = before.get(kind, {})
        since = known.get("lastTransitionTime") if known.get("status") == state else None
        decided.append(
            Condition(
                type=kind,
                status=state,
                reason=reason,
                message=message[:1024],
                last_transition_time=since or moment,
                # Ready never refers to a generation that was not applied: for a paused feed, to the one before.
                observed_generation=(at.applied_generation or at.feed.generation)
                if kind == "Ready" and holds and not at.applied
                else at.feed.generation,
            )
        )
    return decided


def _first(checks: Sequence[Check], at: Situation) -> Finding | None:
    return next((finding for check in checks if (finding := check(at)) is not None), None)
