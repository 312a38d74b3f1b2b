"""The sessions that mutants of the consumer run: plans for one situation each, then drawn seeds."""

from collections.abc import Iterator
from typing import Final

from marketfeed_simtest.consumers.faults import (
    Audit,
    Crash,
    Cut,
    DatabaseDown,
    DatabaseSlow,
    Expire,
    Gap,
    Isolate,
    Old,
    Poison,
    Poisonous,
    Rebuild,
    Recreate,
    Repeat,
    Retain,
    Scale,
    Series,
    Statement,
    Transaction,
)
from marketfeed_simtest.consumers.plan import Plan, draw
from marketfeed_simtest.consumers.postgres import databases
from marketfeed_simtest.consumers.session import run

FIRST_SEED: Final = 70_000
_POISONS: Final[tuple[Poisonous, ...]] = ("trade", "refused", "quote", "gap", "named", "reported", "refused")
_BUSY: Final = ((12.0, 6.0), (4.0, 2.0))

SITUATIONS: Final[dict[str, Plan]] = {
    "nothing happens": Plan(seed=1, rates=_BUSY),
    "COMMIT fails in every way": Plan(
        seed=2,
        rates=_BUSY,
        faults=[
            Statement(after_seconds=3, count=2),
            Statement(after_seconds=6, how="cut_before"),
            Statement(after_seconds=9, how="cut_after"),
            Statement(after_seconds=12, how="done_but_error", sqlstate="40003"),
            Statement(after_seconds=15, how="refused", sqlstate="40003"),
            Statement(after_seconds=18, how="cut_before", count=3),
            Statement(after_seconds=21, how="refused", sqlstate="57014", count=2),
        ],
    ),
    "a commit is not heard of, then a timeout": Plan(
        seed=20261615,
        partitions=1,
        rates=((1.0, 6.0),),
        history=1,
        duration_seconds=15,
        faults=[
            Statement(after_seconds=4.12, how="cut_after"),
            Statement(after_seconds=4.24, statement="INSERT INTO consumer_offsets", sqlstate="57014"),
        ],
    ),
    "partitions move while the database is slow": Plan(
        seed=3,
        rates=_BUSY,
        partitions=3,
        faults=[
            DatabaseSlow(after_seconds=2, step_seconds=0.3, seconds=20),
            Scale(after_seconds=4, processes=3),
            Scale(after_seconds=8, processes=1),
            Scale(after_seconds=12, processes=2),
            DatabaseSlow(after_seconds=14, step_seconds=2, seconds=12),
            Scale(after_seconds=18, processes=3),
            Crash(after_seconds=20),
        ],
    ),
    "partitions move while marks are read": Plan(
        seed=6,
        rates=_BUSY,
        batch_rows=50,
        duration_seconds=40,
        faults=[
            DatabaseSlow(after_seconds=2, step_seconds=0.3, seconds=38),
            *(
                Scale(after_seconds=at, processes=processes)
                for at, processes in (
                    *((3, 1), (6.16, 2), (10.3, 1), (10.83, 3), (11.73, 1), (19.62, 2)),
                    *((25.44, 1), (25.66, 3), (26.27, 3)),
                )
            ),
        ],
    ),
    "a process does not reach Kafka": Plan(
        seed=4,
        rates=_BUSY,
        processes=2,
        faults=[
            DatabaseSlow(after_seconds=4, step_seconds=2, seconds=20),
            Isolate(after_seconds=5, seconds=15),
            Isolate(after_seconds=22, process=1, seconds=9),
        ],
    ),
    "a log is cut": Plan(seed=5, rates=_BUSY, faults=[Cut(after_seconds=8, records=5)]),
    "a log is cut and grows again while no consumer reads": Plan(
        seed=6,
        rates=_BUSY,
        partitions=1,
        faults=[
            Scale(after_seconds=8, processes=0),
            Cut(after_seconds=8.4, records=40),
            Scale(after_seconds=25, processes=1),
        ],
    ),
    "a topic is created again": Plan(seed=7, rates=_BUSY, faults=[Recreate(after_seconds=8)]),
    "topics without a record are created again": Plan(
        seed=18,
        faults=[Recreate(after_seconds=5, topic=topic) for topic in ("trade_gaps", "dead_letters")],
        duration_seconds=15,
    ),
    "a topic is created again while no consumer reads": Plan(
        seed=8,
        rates=_BUSY,
        history=1,
        faults=[
            Scale(after_seconds=4, processes=0),
            Recreate(after_seconds=6),
            Scale(after_seconds=24, processes=1),
        ],
    ),
    "Kafka has deleted what was not read": Plan(
        seed=9,
        rates=_BUSY,
        faults=[
            Scale(after_seconds=4, processes=0),
            Expire(after_seconds=12, kept=3),
            Scale(after_seconds=14, processes=1),
        ],
    ),
    "poison messages": Plan(
        seed=10,
        rates=_BUSY,
        faults=[
            *(
                Poison(after_seconds=3 + 2 * number, what=what, count=2)
                for number, what in enumerate(_POISONS)
            ),
            Transaction(after_seconds=20, count=20),
            Transaction(after_seconds=22, commits=False),
        ],
    ),
    "a control record is the last": Plan(
        seed=11, rates=((0.0, 2.0),), faults=[Transaction(after_seconds=14, count=3)], duration_seconds=15
    ),
    "gaps, duplicates and other content": Plan(
        seed=12,
        rates=_BUSY,
        faults=[
            Gap(after_seconds=3, count=5),
            Gap(after_seconds=8, count=5, fill_seconds=6),
            Repeat(after_seconds=12, count=40),
            Repeat(after_seconds=15, count=5, differing=True),
            Repeat(after_seconds=17, count=5, differing=True, quotes=True),
            Gap(after_seconds=19, count=3, absent=True),
            Old(after_seconds=20),
            Audit(after_seconds=26),
        ],
    ),
    "a gap only": Plan(seed=13, faults=[Gap(after_seconds=3), Audit(after_seconds=20)]),
    "other content only": Plan(
        seed=19, duration_seconds=15, faults=[Repeat(after_seconds=5, differing=True)]
    ),
    "retention, then candles recomputed": Plan(
        seed=14,
        rates=_BUSY,
        faults=[
            Retain(after_seconds=4, kept_hours=24),
            Retain(after_seconds=6, table="book_tickers", kept_hours=24),
            Rebuild(after_seconds=8),
            Rebuild(after_seconds=9, table="top_of_book"),
            Retain(after_seconds=15, kept_hours=0),
            Retain(after_seconds=17, table="candles_1m", kept_hours=24),
            Rebuild(after_seconds=20),
        ],
    ),
    "retention of everything": Plan(
        seed=20,
        rates=_BUSY,
        duration_seconds=40,
        faults=[
            Poison(after_seconds=3, what="named"),
            Poison(after_seconds=4, what="trade", count=2),
            Gap(after_seconds=5, count=4),
            Repeat(after_seconds=7, count=3, differing=True),
            Retain(after_seconds=12, table="dead_letters", kept_hours=0),
            Retain(after_seconds=13, table="candles_1m", kept_hours=24),
            Retain(after_seconds=14, table="candles_1m", kept_hours=0),
            Retain(after_seconds=24, kept_hours=0),
            Retain(after_seconds=32, table="dead_letters", kept_hours=0),
        ],
    ),
    "ids begin again": Plan(
        seed=21,
        rates=_BUSY,
        history=60,
        duration_seconds=40,
        faults=[
            Series(after_seconds=6),
            Gap(after_seconds=9, count=3),
            Repeat(after_seconds=14, count=20),
            Repeat(after_seconds=16, count=3, differing=True),
            Old(after_seconds=18),
            Rebuild(after_seconds=22),
            Series(after_seconds=26, symbol=1, first_id=0),
            Gap(after_seconds=28, symbol=1, count=3, absent=True),
            Audit(after_seconds=36),
            Rebuild(after_seconds=39.95, table="top_of_book"),  # behind the last quote
        ],
    ),
    "two groups, one database": Plan(
        seed=15,
        rates=_BUSY,
        groups=2,
        faults=[
            DatabaseSlow(after_seconds=5, step_seconds=0.1, seconds=10),
            Repeat(after_seconds=9, count=40),
        ],
    ),
    "the database is away": Plan(
        seed=16,
        rates=_BUSY,
        processes=2,
        faults=[
            DatabaseDown(after_seconds=5, seconds=12),
            Scale(after_seconds=7, processes=1),
            DatabaseDown(after_seconds=20, seconds=1),
        ],
    ),
}


_IN_POSTGRES: Final = (
    "nothing happens",
    "ids begin again",
    "gaps, duplicates and other content",
    "retention of everything",
    "poison messages",
    "retention, then candles recomputed",
    "two groups, one database",
    "partitions move while the database is slow",
    "a process does not reach Kafka",
)
"""Situations that together run each of the consumer's statements."""


def postgres_sessions(seeds: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the sessions: name, and the violations; a twentieth of the drawn ones, which are much slower."""
    with databases() as make_database:
        for name in _IN_POSTGRES:
            yield name, run(SITUATIONS[name], make_database)[0].violations
        for seed in range(FIRST_SEED, FIRST_SEED + seeds // 20):
            yield f"seed {seed}", run(draw(seed), make_database)[0].violations


def sessions(seeds: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the sessions: name, and the violations."""
    for name, plan in SITUATIONS.items():
        yield name, run(plan)[0].violations
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        yield f"seed {seed}", run(draw(seed))[0].violations
