"""The sessions that every mutant runs: plans for one situation each, then drawn seeds, then crashes.

Over 300 lines because the plans are one list of data.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from marketfeed_simtest.crash_points import CrashTally, crash_everywhere
from marketfeed_simtest.faults import (
    ClockStep,
    Crash,
    KafkaOutage,
    KafkaRefuses,
    KafkaSlow,
    Restart,
)
from marketfeed_simtest.plan import Plan, draw
from marketfeed_simtest.session import run
from marketfeed_simulator.faults import (
    Burst,
    Close,
    Corrupt,
    Cut,
    Drop,
    Duplicate,
    Halt,
    OddRows,
    RateLimit,
    Refuse,
    Reorder,
    RestartIds,
    RestError,
    SkipIds,
    Stall,
    WrongUnit,
)

FIRST_SEED: Final = 70_000
_BUSY: Final = {"BTCUSDT": (10.0, 20.0)}
_ONE: Final = ("btcusdt@trade",)

SITUATIONS: Final[dict[str, Plan]] = {
    "nothing happens, but rotations": Plan(
        seed=1, rates=_BUSY, duration_seconds=80, settings={"ws_rotate_after_seconds": "45"}
    ),
    "milliseconds and microseconds": Plan(seed=2, venue="binance", rates=_BUSY),
    "gaps that REST fills": Plan(
        seed=3,
        rates=_BUSY,
        faults=[
            Drop(after_seconds=5, streams=_ONE, count=3),
            SkipIds(after_seconds=9, symbols=("BTCUSDT",), count=5),
            Drop(after_seconds=14, streams=_ONE, count=30),
            Restart(after_seconds=20),
        ],
    ),
    "gaps that outlast their hold": Plan(
        seed=4,
        rates=_BUSY,
        duration_seconds=60,
        settings={"gap_hold_seconds": "1"},
        faults=[
            RestError(after_seconds=5, cut=True, count=8),
            Drop(after_seconds=6, streams=_ONE, count=3),
            Crash(after_seconds=9),
            RestError(after_seconds=20, cut=True, count=60),
            Drop(after_seconds=21, streams=_ONE, count=3),
            ClockStep(after_seconds=30, seconds=-3600),
        ],
    ),
    "a crash before the first checkpoint": Plan(
        seed=12, rates=_BUSY, faults=[Crash(after_seconds=0.6), Crash(after_seconds=2.2)]
    ),
    "gaps that outlast their hold while Kafka is slow": Plan(
        seed=13,
        rates=_BUSY,
        settings={"gap_hold_seconds": "1"},
        faults=[
            KafkaSlow(after_seconds=3, delay_seconds=0.5),
            RestError(after_seconds=4, cut=True, count=300),
            *(Drop(after_seconds=5 + 2 * number, streams=_ONE, count=2) for number in range(10)),
        ],
    ),
    "gaps without a key": Plan(
        seed=5,
        has_key=False,
        recent_trades=60,
        rates={"ETHUSDT": (2.0, 5.0)},
        duration_seconds=60,
        settings={"gap_hold_trades": "40"},
        faults=[
            Burst(after_seconds=40, factor=20, seconds=10),
            Corrupt(after_seconds=40.1, streams=("*@trade",), count=300),
        ],
    ),
    "Kafka is slow and the order is mixed": Plan(
        seed=6,
        rates=_BUSY,
        faults=[
            KafkaSlow(after_seconds=4, delay_seconds=0.3),
            Reorder(after_seconds=5, streams=_ONE, count=300, chance=0.5, distance=6),
            Duplicate(after_seconds=10, count=30, copies=2),
            Reorder(after_seconds=12, streams=("*@bookTicker",), count=100, distance=3),
            Crash(after_seconds=20),
        ],
    ),
    "Kafka is away": Plan(
        seed=7,
        rates={"BTCUSDT": (10.0, 20.0), "ETHUSDT": (10.0, 20.0)},
        duration_seconds=80,
        settings={"kafka_queue_max_messages": "1000"},
        faults=[KafkaOutage(after_seconds=5, seconds=40)],
    ),
    "Kafka refuses": Plan(
        seed=8,
        rates=_BUSY,
        faults=[
            KafkaRefuses(after_seconds=8, topic="trades"),
            KafkaRefuses(after_seconds=18, topic="gaps"),
            Drop(after_seconds=18.1, streams=_ONE, count=3),
        ],
    ),
    "streams stall": Plan(
        seed=9,
        rates=_BUSY,
        duration_seconds=150,
        faults=[
            Stall(after_seconds=30, streams=_ONE, seconds=100),
            Drop(after_seconds=31, streams=_ONE, count=None, seconds=110),
            RestError(after_seconds=31, cut=True, count=500),
        ],
    ),
    "the venue returns 429": Plan(
        seed=10,
        rates=_BUSY,
        faults=[
            RateLimit(after_seconds=5, seconds=90),
            Drop(after_seconds=6, streams=_ONE, count=3),
            Drop(after_seconds=16, streams=_ONE, count=3),
        ],
        duration_seconds=110,
    ),
    "one broker is slow": Plan(
        seed=14,
        rates=_BUSY,
        settings={"gap_hold_seconds": "1"},
        faults=[
            KafkaSlow(after_seconds=3, delay_seconds=2, topics=("gaps",)),
            RestError(after_seconds=4, cut=True, count=300),
            *(Drop(after_seconds=5 + 4 * number, streams=_ONE, count=2) for number in range(5)),
        ],
    ),
    "the order stays mixed while Kafka is slow": Plan(
        seed=15,
        rates=_BUSY,
        duration_seconds=90,
        settings={"gap_hold_seconds": "1"},
        faults=[
            KafkaSlow(after_seconds=4, delay_seconds=0.5),
            RestError(after_seconds=4, cut=True, count=1000),
            Reorder(after_seconds=5, streams=_ONE, count=None, chance=0.5, distance=6, seconds=80),
            *(Drop(after_seconds=20 + 9 * number, streams=_ONE, count=2) for number in range(5)),
        ],
    ),
    "the clock is set": Plan(
        seed=16,
        rates={"BTCUSDT": (10.0, 20.0), "ETHUSDT": (5.0, 0.0)},
        duration_seconds=200,
        faults=[
            ClockStep(after_seconds=8, seconds=-3600),
            RestError(after_seconds=10, cut=True, count=20),
            Drop(after_seconds=11, streams=_ONE, count=3),
            Stall(after_seconds=30, seconds=150),
        ],
    ),
    "the clock is set back during a hold": Plan(
        seed=24,
        rates=_BUSY,
        duration_seconds=50,
        faults=[
            RestError(after_seconds=5, cut=True, count=1000),
            Drop(after_seconds=6, streams=_ONE, count=3),
            ClockStep(after_seconds=9, seconds=-3600),
        ],
    ),
    "gaps that REST has not any more beside a fresh one": Plan(
        seed=25,
        has_key=False,
        recent_trades=150,
        rates={"BTCUSDT": (7.0, 0.0)},
        duration_seconds=240,
        settings={"gap_hold_seconds": "1", "binance_streams": "trade"},
        faults=[
            RestError(after_seconds=2, cut=True, count=12),
            *(Drop(after_seconds=4 + 3 * number, streams=_ONE, count=12) for number in range(4)),
        ],
    ),
    "ids begin again": Plan(
        seed=17,
        rates=_BUSY,
        duration_seconds=40,
        faults=[RestartIds(after_seconds=15, symbols=("BTCUSDT",), last_id=500)],
    ),
    "the wrong unit": Plan(
        seed=18,
        venue="binance",
        rates=_BUSY,
        duration_seconds=20,
        faults=[WrongUnit(after_seconds=5), Close(after_seconds=6)],
    ),
    "odd rows beside gaps": Plan(
        seed=19,
        rates=_BUSY,
        faults=[
            OddRows(after_seconds=5, symbols=("BTCUSDT",), count=3),
            Drop(after_seconds=5, streams=_ONE, count=20),
        ],
    ),
    "the venue refuses": Plan(
        seed=20,
        rates=_BUSY,
        duration_seconds=20,
        faults=[Refuse(after_seconds=5, status=451, count=1), Cut(after_seconds=6)],
    ),
    "a long gap": Plan(
        seed=21,
        rates=_BUSY,
        faults=[SkipIds(after_seconds=8, symbols=("BTCUSDT",), count=200_000)],
    ),
    "a start while a symbol is halted": Plan(
        seed=22,
        has_key=False,
        recent_trades=60,
        rates={"BTCUSDT": (5.0, 5.0), "ETHUSDT": (5.0, 5.0)},
        duration_seconds=70,
        faults=[
            Halt(after_seconds=20, symbols=("BTCUSDT",), seconds=40),
            Restart(after_seconds=25),
        ],
    ),
    "rotations while a stream has not begun": Plan(
        seed=23,
        rates={"ETHUSDT": (5.0, 0.0)},
        duration_seconds=80,
        settings={"ws_rotate_after_seconds": "25", "ws_warm_timeout_seconds": "5"},
    ),
    "ids begin again while no worker reads": Plan(
        seed=41,
        rates=_BUSY,
        faults=[
            Crash(after_seconds=20, pause_seconds=5),
            RestartIds(after_seconds=21, symbols=("BTCUSDT",), last_id=0),
        ],
    ),
    "a symbol is halted while Kafka is away": Plan(
        seed=42,
        quantum_seconds=0.5,
        rates={"BTCUSDT": (10.0, 40.0), "ETHUSDT": (10.0, 40.0)},
        duration_seconds=90,
        settings={"kafka_queue_max_messages": "1000"},
        faults=[
            KafkaOutage(after_seconds=15, seconds=40),
            *(
                Halt(after_seconds=23.2 + number / 2, symbols=("BTCUSDT",), seconds=0.4)
                for number in range(10)
            ),
        ],
    ),
    "the wrong unit after ids began again": Plan(
        seed=43,
        venue="binance",
        rates=_BUSY,
        duration_seconds=110,
        faults=[
            RestartIds(after_seconds=8, symbols=("BTCUSDT",), last_id=0),
            WrongUnit(after_seconds=90),
            Close(after_seconds=91),
        ],
    ),
    "ids begin again and the first trades are lost": Plan(
        seed=49,
        rates=_BUSY,
        duration_seconds=40,
        faults=[
            RestartIds(after_seconds=15, symbols=("BTCUSDT",), last_id=500),
            Drop(after_seconds=15, streams=_ONE, count=5),
        ],
    ),
    "a busy market": Plan(
        seed=44, rates={"BTCUSDT": (300.0, 5.0)}, duration_seconds=45, quantum_seconds=0.2, poll_seconds=0.25
    ),
    "a burst behind a gap that REST does not fill": Plan(
        seed=45,
        rates={"BTCUSDT": (20.0, 5.0)},
        settings={"gap_hold_trades": "40"},
        faults=[
            Drop(after_seconds=10, streams=_ONE, count=2),
            RestError(after_seconds=10, cut=True, count=100),
            Burst(after_seconds=10.2, factor=20, seconds=8),
        ],
    ),
    "the venue limits connections": Plan(
        seed=46,
        rates=_BUSY,
        duration_seconds=40,
        faults=[Refuse(after_seconds=5, status=429, count=1, retry_after_seconds=20), Cut(after_seconds=6)],
    ),
    "a connection ends while its replacement is rate limited": Plan(
        seed=47,
        rates=_BUSY,
        duration_seconds=60,
        settings={"ws_rotate_after_seconds": "20"},
        faults=[
            Refuse(after_seconds=10, status=429, count=1, retry_after_seconds=30),
            Cut(after_seconds=32),
        ],
    ),
    "more gaps than the venue's weight allows": Plan(
        seed=48,
        venue="binance",
        rates={
            "BTCUSDT": (10.0, 0.0),
            "ETHUSDT": (10.0, 0.0),
            "ADAUSDT": (10.0, 0.0),
            "XLMUSDT": (10.0, 0.0),
        },
        duration_seconds=90,
        faults=[Drop(after_seconds=5, streams=("*@trade",), count=None, chance=0.4, seconds=80)],
    ),
    "gaps that are held for their whole time": Plan(
        seed=51,
        rates=_BUSY,
        duration_seconds=50,
        faults=[
            RestError(after_seconds=5, cut=True, count=1000),
            Drop(after_seconds=6, streams=_ONE, count=3),
            Drop(after_seconds=30, streams=_ONE, count=2),
        ],
    ),
    "a start in the past": Plan(
        seed=50,
        rates=_BUSY,
        duration_seconds=100,
        head_start_seconds=70,
        settings={"backfill_from": "2026-09-21T14:13:25Z"},
        faults=[
            Crash(after_seconds=70.5),
            Drop(after_seconds=80, streams=_ONE, count=3),
            Restart(after_seconds=90),
        ],
    ),
    "a stop while Kafka is slow": Plan(
        seed=11,
        rates=_BUSY,
        faults=[
            KafkaSlow(after_seconds=4, delay_seconds=1),
            Restart(after_seconds=12, pause_seconds=3),
        ],
    ),
}


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan that once found a defect, and the invariant that it violated; it violates none any more."""

    name: str
    invariant: str
    plan: Plan


FOUND: Final[list[Found]] = msgspec.json.decode(
    Path(__file__).with_name("found.json").read_bytes(), type=list[Found]
)


def fixed() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the fixed sessions: name, and the violations."""
    for name, plan in SITUATIONS.items():
        yield name, run(plan)[0].violations
    for found in FOUND:
        yield found.name, run(found.plan)[0].violations


def sessions(seeds: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield all sessions that a mutant runs: name, and the violations."""
    yield from fixed()
    for seed in range(FIRST_SEED, FIRST_SEED + seeds // 2):
        yield f"seed {seed}", run(draw(seed))[0].violations
    for seed in (1, 14) if seeds else ():
        tally = CrashTally()
        crash_everywhere(seed, stride=4, jobs=2, tally=tally)
        for each in tally.broken:
            yield f"seed {seed}, crash {each.number} when {each.point}", each.violations
    for seed in range(FIRST_SEED + seeds // 2, FIRST_SEED + seeds):
        yield f"seed {seed}", run(draw(seed))[0].violations
