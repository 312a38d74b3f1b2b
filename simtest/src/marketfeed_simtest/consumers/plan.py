"""The session of a seed: symbols, processes, settings and faults. A plan is drawn, printed, shrunk, run again."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from marketfeed_simtest.consumers import faults
from marketfeed_simtest.consumers.faults import TOPICS, EachFault, begins
from marketfeed_simtest.plan import draw_faults

_STATEMENTS: Final = (
    "COMMIT",
    "COMMIT",
    "COMMIT",
    "INSERT INTO consumer_offsets",
    "COPY trades",
    "COPY book_tickers",
    "INSERT INTO high_water_marks",
    "UPDATE consumer_offsets",
)


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A session.

    Attributes:
        groups: consumer groups that read the same topics into the same database.
        processes: number of processes of each group.
        rates: symbol -> trades and quotes per second.
        batch_rows, linger_ms: BATCH_MAX_ROWS and BATCH_LINGER_MS of the consumers.
        history: number of earlier trades that each symbol begins with.
        duration_seconds: time within which faults may begin; all faults are removed after it.
    """

    seed: int
    partitions: int = 2
    processes: int = 1
    groups: int = 1
    rates: tuple[tuple[float, float], ...] = ((4.0, 2.0),)
    batch_rows: int = 200
    linger_ms: int = 10
    history: int = 30
    duration_seconds: float = 30
    faults: list[EachFault] = []


def as_json(plan: Plan) -> str:
    """Return the plan as one line."""
    return msgspec.json.encode(plan).decode()


def from_json(text: str | bytes) -> Plan:
    """Return the plan of a line.

    Raises:
        msgspec.ValidationError: the line is no plan.
    """
    return msgspec.json.decode(text, type=Plan)


def draw(seed: int) -> Plan:
    """Return the plan of a seed."""
    rng = random.Random(f"consumers {seed}")  # noqa: S311 - a test that can be repeated
    pick = rng.choice
    duration = pick((15, 25, 40))
    symbols = pick((1, 1, 2, 3))
    processes = pick((1, 1, 2, 2, 3))
    return Plan(
        seed=seed,
        partitions=pick((1, 2, 2, 3)),
        processes=processes,
        groups=pick((1, 1, 1, 1, 2)),
        rates=tuple((pick((1.0, 4.0, 12.0)), pick((0.0, 2.0, 6.0))) for _ in range(symbols)),
        batch_rows=pick((1, 7, 50, 200, 200)),
        linger_ms=pick((0, 10, 200)),
        history=pick((1, 30, 60)),
        duration_seconds=duration,
        faults=sorted(
            [
                *draw_faults(rng, _kinds(rng, symbols, processes), (0, 2, 4, 8, 12, 16), 1, duration),
                *_new_series(seed, symbols, duration),
            ],
            key=begins,
        ),
    )


def _new_series(seed: int, symbols: int, duration: float) -> list[EachFault]:
    """Draw restarts of ids, in one session of four; drawn separately, so that the other faults do not change."""
    rng = random.Random(f"series {seed}")  # noqa: S311 - a test that can be repeated
    return [
        faults.Series(
            after_seconds=round(rng.uniform(2, duration), 2),
            symbol=rng.randrange(symbols),
            first_id=rng.choice((0, 1, 500)),
        )
        for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 1, 2)))
    ]


def _kinds(
    rng: random.Random, symbols: int, processes: int
) -> Mapping[str, tuple[int, Callable[[], EachFault]]]:
    """Return name -> weight and function that draws one."""
    pick = rng.choice

    def symbol() -> int:
        return rng.randrange(symbols)

    def process() -> int:
        return rng.randrange(processes)

    def topic() -> str:
        return pick(("trades", "trades", *TOPICS[1:]))

    return {
        "crash": (3, lambda: faults.Crash(process=process(), pause_seconds=pick((0.2, 1, 3)))),
        "restart": (2, lambda: faults.Restart(process=process(), pause_seconds=pick((0.2, 1, 3)))),
        "freeze": (1, lambda: faults.Freeze(process=process(), seconds=pick((1, 4, 12)))),
        "isolate": (2, lambda: faults.Isolate(process=process(), seconds=pick((2, 9, 15)))),
        "scale": (3, lambda: faults.Scale(processes=pick((1, 2, 3, 4)))),
        "lose_commits": (1, lambda: faults.LoseCommits(process=process(), seconds=pick((2, 10)))),
        "outage": (1, lambda: faults.Outage(seconds=pick((1, 5, 12)))),
        "elect": (1, lambda: faults.Elect(topic=topic())),
        "cut": (2, lambda: faults.Cut(topic=topic(), records=pick((1, 5, 40)))),
        "recreate": (1, lambda: faults.Recreate(topic=topic(), seconds=pick((0, 0, 3, 8)))),
        "expire": (1, lambda: faults.Expire(topic=topic(), kept=pick((0, 3, 40)))),
        "repeat": (3, lambda: faults.Repeat(symbol=symbol(), count=pick((1, 5, 40)))),
        "differ": (
            2,
            lambda: faults.Repeat(
                symbol=symbol(), count=pick((1, 5)), differing=True, quotes=pick((False, True))
            ),
        ),
        "gap": (2, lambda: _gap(pick, symbol())),
        "old": (1, lambda: faults.Old(symbol=symbol(), count=pick((1, 20)))),
        "poison": (
            3,
            lambda: faults.Poison(
                symbol=symbol(),
                what=pick(("trade", "named", "quote", "gap", "refused", "refused", "reported")),
                count=pick((1, 1, 2)),
            ),
        ),
        "transaction": (
            1,
            lambda: faults.Transaction(symbol=symbol(), count=pick((1, 20)), commits=pick((True, False))),
        ),
        "burst": (1, lambda: faults.Burst(symbol=symbol(), count=pick((60, 300)))),
        "statement": (5, lambda: _statement(pick)),
        "database_down": (2, lambda: faults.DatabaseDown(seconds=pick((0.5, 3, 12)))),
        "database_slow": (
            2,
            lambda: faults.DatabaseSlow(step_seconds=pick((0.05, 0.5, 2)), seconds=pick((3, 10))),
        ),
        **_command_kinds(pick, topic),
    }


def _command_kinds(
    pick: Callable[[Any], Any], topic: Callable[[], str]
) -> dict[str, tuple[int, Callable[[], EachFault]]]:
    tables = ("trades", "trades", "book_tickers", "candles_1m", "dead_letters")
    return {
        "retain": (3, lambda: faults.Retain(table=pick(tables), kept_hours=pick((0, 1, 24, 72)))),
        "rebuild": (2, lambda: faults.Rebuild(table=pick(("candles_1m", "top_of_book")))),
        "audit": (1, lambda: faults.Audit(deep=pick((True, False)))),
        "reset": (1, lambda: faults.Reset(topic=topic())),
    }


def _gap(pick: Callable[[Any], Any], symbol: int) -> faults.Gap:
    fill = pick((None, 1, 6))
    absent = fill is None and pick((True, False))
    return faults.Gap(symbol=symbol, count=pick((1, 3, 20)), fill_seconds=fill, absent=absent)


def _statement(pick: Callable[[Any], Any]) -> faults.Statement:
    statement = pick(_STATEMENTS)
    hows = ("refused", "refused", "cut_before") + (
        ("done_but_error", "cut_after", "cut_after") if statement == "COMMIT" else ()
    )
    how = pick(hows)
    states = ("40001", "40001", "40003", "57P01", "57014", "53100") if how == "refused" else ("40003",)
    return faults.Statement(statement=statement, how=how, sqlstate=pick(states), count=pick((1, 1, 2, 4)))


def smaller(plan: Plan) -> Iterator[Plan]:
    """Yield smaller plans, the smallest first."""
    replace = msgspec.structs.replace
    size = len(plan.faults) // 2 or len(plan.faults)
    while size >= 1:
        for start in range(0, len(plan.faults), size):
            yield replace(plan, faults=plan.faults[:start] + plan.faults[start + size :])
        size //= 2
    if len(plan.rates) > 1:
        kept = [one for one in plan.faults if getattr(one, "symbol", 0) < len(plan.rates) - 1]
        yield replace(plan, rates=plan.rates[:-1], faults=kept)
    plain = {"groups": 1, "processes": 1, "partitions": 1, "history": 1, "linger_ms": 10, "batch_rows": 200}
    for name, value in plain.items():
        if getattr(plan, name) != value:
            yield replace(plan, **{name: value})
    if plan.duration_seconds > 15 and all(begins(one) < 15 for one in plan.faults):
        yield replace(plan, duration_seconds=15)
