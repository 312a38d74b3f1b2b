"""Sessions that few seeds would reach: each draws a situation, with everything that can be drawn within it.

Seeds from `FIRST_SEED` on select them, so that no other seed's plan changes with additions here.
"""

import datetime
import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from marketfeed_simtest import faults
from marketfeed_simtest.clock import START_SECONDS
from marketfeed_simtest.faults import EachFault, begins, kind_of
from marketfeed_simulator import faults as venue_faults

FIRST_SEED: Final = 10**12


class Base(msgspec.Struct, frozen=True):
    """The part of a drawn plan that a situation uses."""

    names: Sequence[str]
    faults: list[EachFault]
    duration_seconds: float


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the plan that a situation sets."""

    faults: list[EachFault]
    settings: dict[str, str] = {}
    duration_seconds: float
    head_start_seconds: float = 0.0
    has_key: bool | None = None
    recent_trades: int | None = None
    rates: dict[str, tuple[float, float]] | None = None


def situation(seed: int, base: Base) -> Situation:
    """Return the situation of one of the rare seeds."""
    rng = random.Random(f"rare {seed}")  # noqa: S311 - a test that can be repeated
    kinds: tuple[Callable[[random.Random, Base], Situation], ...] = (
        _beginning_in_the_past,
        _mixed_order_while_kafka_is_slow,
        _gaps_that_rest_has_not_any_more,
        _acknowledged_by_the_leader_alone,
    )
    return kinds[seed % len(kinds)](rng, base)


def _sorted(drawn: list[EachFault]) -> list[EachFault]:
    return sorted(drawn, key=begins)


def _later(drawn: list[EachFault], seconds: float) -> list[EachFault]:
    return [msgspec.structs.replace(each, after_seconds=begins(each) + seconds) for each in drawn]


def _beginning_in_the_past(rng: random.Random, base: Base) -> Situation:
    """Draw a BACKFILL_FROM from before the worker's first start."""
    head_start = rng.choice((10.0, 30.0, 90.0))
    since = START_SECONDS + round(rng.uniform(0.0, head_start - 2), 3)
    moment = datetime.datetime.fromtimestamp(since, tz=datetime.UTC)
    drawn = [each for each in base.faults if kind_of(each) not in ("restart_ids", "assign")]
    return Situation(
        faults=_later(drawn, head_start),
        settings={"backfill_from": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")},
        duration_seconds=base.duration_seconds + head_start,
        head_start_seconds=head_start,
    )


def _mixed_order_while_kafka_is_slow(rng: random.Random, base: Base) -> Situation:
    """Draw permanently reordered messages, with acknowledgements slower than that."""
    pick = rng.choice
    seconds = pick((30, 50, 80))
    name = pick(base.names)
    streams = pick(((f"{name.lower()}@trade",), ("*@trade",)))
    drawn: list[EachFault] = [
        faults.KafkaSlow(
            after_seconds=3.0, delay_seconds=pick((0.3, 0.5, 1.0)), topics=pick(((), ("trades",)))
        ),
        venue_faults.Reorder(
            after_seconds=4.0,
            streams=streams,
            count=None,
            chance=pick((0.2, 0.5)),
            distance=pick((3, 6)),
            seconds=seconds,
        ),
    ]
    if pick((True, False)):
        drawn.append(venue_faults.RestError(after_seconds=4.0, cut=True, count=1000))
    for _ in range(pick((2, 5, 8))):
        at = round(rng.uniform(6, 4 + seconds), 2)
        drawn.append(venue_faults.Drop(after_seconds=at, streams=streams, count=pick((1, 2, 5))))
    if pick((True, False)):
        end = pick((faults.Crash, faults.Restart))
        drawn.append(end(after_seconds=round(rng.uniform(10, 4 + seconds), 2)))
    rates = {each: (pick((5.0, 10.0)), pick((0.0, 5.0))) for each in base.names}
    settings = {"gap_hold_seconds": pick(("1", "5"))}
    return Situation(faults=_sorted(drawn), settings=settings, duration_seconds=seconds + 10.0, rates=rates)


def _gaps_that_rest_has_not_any_more(rng: random.Random, base: Base) -> Situation:
    """Draw gaps without a key during an outage of REST, most of which have left its history afterwards."""
    pick = rng.choice
    name = base.names[0]
    streams = (f"{name.lower()}@trade",)
    step, count = pick((3, 6, 9)), pick((3, 4, 6))
    drawn: list[EachFault] = [
        venue_faults.RestError(after_seconds=2.0, cut=True, count=pick((12, 20, 40))),
        *(
            venue_faults.Drop(after_seconds=4.0 + step * number, streams=streams, count=pick((5, 12)))
            for number in range(count)
        ),
    ]
    if pick((True, False)):
        drawn += [
            each for each in base.faults if kind_of(each) in ("crash", "restart", "rest_delay", "rest_lag")
        ]
    return Situation(
        faults=_sorted(drawn),
        settings={"gap_hold_seconds": pick(("1", "5"))},
        duration_seconds=pick((120.0, 240.0)),
        has_key=False,
        recent_trades=pick((60, 100, 150, 200)),
        rates={each: (pick((5.0, 7.0, 10.0)), 0.0) for each in base.names[:2]},
    )


def _acknowledged_by_the_leader_alone(_: random.Random, base: Base) -> Situation:
    """Draw KAFKA_ACKS=1 without a broker failure: each message has its own delivery report."""
    drawn = [each for each in base.faults if kind_of(each) != "kafka_refuses"]
    return Situation(faults=drawn, settings={"kafka_acks": "1"}, duration_seconds=base.duration_seconds)
