"""The kinds of faults of a session, with their weights and the values that are drawn."""

import random
from collections.abc import Callable, Mapping
from typing import Any

from marketfeed_simtest import faults
from marketfeed_simtest.faults import EachFault
from marketfeed_simulator import faults as venue_faults


def fault_kinds(
    rng: random.Random, names: tuple[str, ...]
) -> Mapping[str, tuple[int, Callable[[], EachFault]]]:
    """Return name -> weight and function that draws one; two names may be of one kind of fault."""
    pick = rng.choice

    def seconds() -> float:
        return pick((1, 3, 8, 20, 60))

    def symbol() -> tuple[str, ...]:
        return (pick(names),)

    def streams() -> tuple[str, ...]:
        one = pick(names).lower() + pick(("@trade", "@bookTicker", "@*"))
        return pick(((one,), ("*@trade",), ()))

    def one_stream() -> tuple[str, ...]:
        return (pick(names).lower() + pick(("@trade", "@bookTicker")),)

    def struck() -> dict[str, Any]:
        return {
            "streams": streams(),
            "count": pick((1, 3, 20, 300)),
            "chance": pick((0.1, 0.5, 1.0)),
            "seed": rng.randrange(1000),
        }

    return {
        **_frame_kinds(rng, struck),
        "cut": (3, lambda: venue_faults.Cut(reset=pick((True, False)), lose_frames=pick((0, 5)))),
        "close": (2, lambda: venue_faults.Close(code=pick((1000, 1001, 1008)))),
        "notice": (1, lambda: venue_faults.ServerShutdown(close_after_seconds=pick((1, 5)))),
        "half_open": (2, lambda: venue_faults.HalfOpen(seconds=pick((20, 60, 200)))),
        "stall": (1, lambda: venue_faults.Stall(seconds=pick((1, 5, 20, 60, 200)))),
        "stall_stream": (
            2,
            lambda: venue_faults.Stall(streams=one_stream(), seconds=pick((20, 100, 200))),
        ),
        "no_stream_data": (
            1,
            lambda: venue_faults.Drop(streams=one_stream(), count=None, seconds=pick((20, 100, 200))),
        ),
        "refuse": (
            2,
            lambda: venue_faults.Refuse(status=pick((429, 500, 503)), count=pick((1, 3, 6))),
        ),
        "region_refused": (1, lambda: _refusal(pick)),
        "handshake_hangs": (1, lambda: venue_faults.Refuse(status=503, count=pick((1, 2)), delay_seconds=15)),
        "rest_error": (
            3,
            lambda: venue_faults.RestError(
                status=pick((500, 503, 429, 418)), count=pick((1, 3, 10)), html=pick((True, False))
            ),
        ),
        "rest_cut": (2, lambda: venue_faults.RestError(cut=True, count=pick((1, 5, 30)))),
        "rest_page": (1, lambda: venue_faults.RestError(status=200, html=True, count=pick((1, 5)))),
        "rest_delay": (2, lambda: venue_faults.RestDelay(seconds=pick((0.5, 3, 12)), count=pick((1, 10)))),
        "rest_lag": (1, lambda: venue_faults.RestLag(seconds=pick((0.5, 2)))),
        "rate_limit": (1, lambda: venue_faults.RateLimit(seconds=pick((5, 30, 60)))),
        "ban": (1, lambda: venue_faults.Ban(seconds=pick((5, 30, 60)))),
        "skip_ids": (
            3,
            lambda: venue_faults.SkipIds(symbols=symbol(), count=pick((1, 5, 50, 2500, 200_000))),
        ),
        "restart_ids": (1, lambda: venue_faults.RestartIds(symbols=symbol(), last_id=pick((0, 500)))),
        "odd_rows": (1, lambda: venue_faults.OddRows(symbols=symbol(), count=pick((1, 3)))),
        "wrong_unit": (1, venue_faults.WrongUnit),
        "burst": (1, lambda: venue_faults.Burst(factor=pick((5, 20)), seconds=pick((2, 10)))),
        "halt": (1, lambda: venue_faults.Halt(symbols=symbol(), seconds=pick((5, 40)))),
        "clock_skew": (1, lambda: venue_faults.ClockSkew(milliseconds=pick((-3000, 3000)))),
        "crash": (3, lambda: faults.Crash(pause_seconds=pick((1, 1, 3, 10)))),
        "restart": (2, lambda: faults.Restart(pause_seconds=pick((1, 3)))),
        "overlap": (2, lambda: faults.Overlap(seconds=pick((1, 5, 20)))),
        "clock_step": (2, lambda: faults.ClockStep(seconds=pick((-3600, -60, -1, 1, 60, 3600)))),
        "freeze": (1, lambda: faults.Freeze(seconds=pick((2, 12, 40)))),
        "kafka_outage": (2, lambda: faults.KafkaOutage(seconds=seconds())),
        "kafka_slow": (
            1,
            lambda: faults.KafkaSlow(
                delay_seconds=pick((0.05, 0.5, 2)),
                topics=pick(((), (), ("gaps",), ("progress",), ("trades",))),
            ),
        ),
        "assign": (
            1,
            lambda: faults.Assign(
                symbols=tuple(name for name in names if rng.random() < 0.6), broken=rng.random() < 0.2
            ),
        ),
        "kafka_refuses": (
            1,
            lambda: faults.KafkaRefuses(topic=pick(("trades", "book_ticker", "progress", "gaps"))),
        ),
    }


def _refusal(pick: Callable[[Any], Any]) -> EachFault:
    """Draw 451 or 403, at the handshake or over REST."""
    status, count = pick((451, 403)), pick((1, 3))
    if pick((True, False)):
        return venue_faults.Refuse(status=status, count=count)
    return venue_faults.RestError(status=status, count=count)


def _frame_kinds(
    rng: random.Random, struck: Callable[[], dict[str, Any]]
) -> dict[str, tuple[int, Callable[[], EachFault]]]:
    pick = rng.choice
    return {
        "drop": (3, lambda: venue_faults.Drop(**struck())),
        "duplicate": (1, lambda: venue_faults.Duplicate(**struck(), copies=pick((1, 3)))),
        "reorder": (2, lambda: venue_faults.Reorder(**struck(), distance=pick((1, 3, 6)))),
        "corrupt": (
            2,
            lambda: venue_faults.Corrupt(
                **struck(), how=pick(("truncated", "not_json", "not_utf8", "missing_field", "bad_price"))
            ),
        ),
    }
