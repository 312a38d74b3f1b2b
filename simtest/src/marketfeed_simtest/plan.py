"""The session of a seed: a market, settings and a list of faults. A plan is data: drawn, printed, run again."""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from marketfeed_simtest import faults, rare
from marketfeed_simtest.fault_kinds import fault_kinds
from marketfeed_simtest.faults import EachFault, HostFault, begins, kind_of
from marketfeed_simulator import faults as venue_faults

F = TypeVar("F", bound=msgspec.Struct)
RESTARTS_APART_SECONDS: Final = 120.0
"""Minimum time between restarts of a symbol's ids: two that reach the worker together count as one."""
SYMBOLS_FILE: Final = "/session/assignment.json"
SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "ADAUSDT", "XLMUSDT")

PLAIN: Final[dict[str, str]] = {
    "gap_hold_seconds": "10",
    "gap_hold_trades": "50000",
    "ws_idle_timeout_seconds": "30",
    "ws_rotate_after_seconds": "82800",
    "ws_warm_timeout_seconds": "30",
    "ws_shard_size": "50",
    "kafka_queue_max_messages": "100000",
    "progress_interval_seconds": "1",
    "binance_streams": "trade,bookTicker",
}
"""Default settings of the worker."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A session.

    Attributes:
        has_key: whether the worker has an API key, with which REST returns old trades by id.
        recent_trades: number of the newest trades that REST returns without one.
        slow_subscriptions: whether a stream's data may begin up to a second after its subscription.
        quantum_seconds: interval at whose multiples the venue sends due messages.
        poll_seconds: `World.poll_seconds`.
        rates: symbol -> trades and quotes per second.
        settings: settings of the worker that differ from `PLAIN`.
        duration_seconds: time within which faults may begin; all faults are removed after it.
        head_start_seconds: time that the venue runs before the first process starts.
    """

    seed: int
    venue: str = "binance_us"
    has_key: bool = True
    recent_trades: int = 1000
    slow_subscriptions: bool = False
    quantum_seconds: float = 0.05
    poll_seconds: float = 0.02
    rates: dict[str, tuple[float, float]]
    settings: dict[str, str] = {}
    duration_seconds: float = 30
    head_start_seconds: float = 0
    faults: list[EachFault] = []

    def environment(self) -> dict[str, str]:
        """Return the worker's environment variables."""
        settings = {**PLAIN, **self.settings}
        is_assigned = any(isinstance(fault, faults.Assign) for fault in self.faults)
        return {
            "BINANCE_SYMBOLS": "" if is_assigned else ",".join(self.rates),
            "SYMBOLS_FILE": SYMBOLS_FILE if is_assigned else "",
            "VENUE": self.venue,
            "BINANCE_API_KEY": "k" * 64 if self.has_key else "",
            "KAFKA_BROKER": "kafka.invalid:9092",
            "DRAIN_DEADLINE_SECONDS": "20",
            **{name.upper(): value for name, value in settings.items()},
        }


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
    if seed >= rare.FIRST_SEED:
        return _with_situation(draw(seed - rare.FIRST_SEED), seed)
    rng = random.Random(f"plan {seed}")  # noqa: S311 - a test that can be repeated
    pick = rng.choice
    names = SYMBOLS[: pick((1, 1, 2, 2, 3, 4))]
    duration = pick((20, 40, 40, 60, 60, 120, 240))
    drawn = {
        "gap_hold_seconds": pick(("1", "5", "10")),
        "gap_hold_trades": pick(("50000", "50000", "40")),
        "ws_idle_timeout_seconds": pick(("4", "10", "30")),
        "ws_rotate_after_seconds": pick(("82800", "82800", "60", "45")),
        "ws_warm_timeout_seconds": pick(("5", "30")),
        "ws_shard_size": pick(("50", "1")),
        "kafka_queue_max_messages": pick(("100000", "1000")),
        "progress_interval_seconds": pick(("1", "1", "5")),
        "binance_streams": pick(("trade,bookTicker", "trade,bookTicker", "trade")),
    }
    return Plan(
        seed=seed,
        venue=pick(("binance_us", "binance_us", "binance")),
        has_key=rng.random() < 0.4,
        recent_trades=pick((1000, 1000, 200, 60)),
        slow_subscriptions=rng.random() < 0.25,
        quantum_seconds=pick((0.02, 0.05, 0.1, 0.2)),
        poll_seconds=0.02 if rng.random() < 0.1 else 0.25,
        rates={name: (pick((0.5, 2, 5, 10)), pick((0, 2, 5, 20))) for name in names},
        settings={name: value for name, value in drawn.items() if PLAIN[name] != value},
        duration_seconds=duration,
        faults=_without_double_restarts(
            sorted(draw_faults(rng, fault_kinds(rng, names), (0, 2, 4, 8, 12, 20), 2, duration), key=begins)
        ),
    )


def _with_situation(plan: Plan, seed: int) -> Plan:
    """Return a plan changed by one of the rare seeds."""
    found = rare.situation(seed, rare.Base(tuple(plan.rates), plan.faults, plan.duration_seconds))
    settings = {**plan.settings, **found.settings}
    return msgspec.structs.replace(
        plan,
        seed=seed,
        has_key=plan.has_key if found.has_key is None else found.has_key,
        recent_trades=found.recent_trades or plan.recent_trades,
        rates=found.rates or plan.rates,
        settings={name: value for name, value in settings.items() if PLAIN.get(name) != value},
        duration_seconds=found.duration_seconds,
        head_start_seconds=found.head_start_seconds,
        faults=found.faults,
    )


def draw_faults(
    rng: random.Random,
    kinds: Mapping[str, tuple[int, Callable[[], F]]],
    counts: Sequence[int],
    first_seconds: float,
    last_seconds: float,
) -> list[F]:
    """Draw a few kinds of fault per session, each possibly many times: defects that need repetition appear sooner.

    Args:
        kinds: name -> weight and function that draws a fault.
        counts: possible numbers of faults.
        first_seconds, last_seconds: bounds of their start times.
    """
    enabled = rng.sample(sorted(kinds), rng.choice((2, 3, 4, 6)))
    weights = [kinds[name][0] for name in enabled]
    drawn: list[F] = []
    for _ in range(rng.choice(counts)):
        name = rng.choices(enabled, weights)[0]
        at = round(rng.uniform(first_seconds, last_seconds), 2)
        drawn.append(msgspec.structs.replace(kinds[name][1](), after_seconds=at))
    return drawn


def _without_double_restarts(drawn: list[EachFault]) -> list[EachFault]:
    """Return `drawn` without a second restart of ids before the first one can have been detected."""
    kept: list[EachFault] = []
    newest: dict[tuple[str, ...], float] = {}
    for fault in drawn:
        if isinstance(fault, venue_faults.RestartIds):
            if begins(fault) < newest.get(fault.symbols, -math.inf) + RESTARTS_APART_SECONDS:
                continue
            newest[fault.symbols] = begins(fault)
        kept.append(fault)
    return kept


_NO_GAPS: Final = frozenset(
    {
        "duplicate",
        "refuse",
        "rest_error",
        "rest_delay",
        "rest_lag",
        "rate_limit",
        "ban",
        "odd_rows",
        "burst",
        "halt",
        "clock_skew",
        "clock_step",
        "freeze",
        "kafka_outage",
        "kafka_slow",
    }
)
"""Kinds of faults that neither lose nor reorder messages between venue and worker."""
_PONG_SECONDS: Final = 45.0
"""The venue closes a connection without a pong for a minute; pings are read, and answered, with all other frames."""
_OUTAGE_PAUSE_SECONDS: Final = 10.0
"""Within a pause of this length between two outages not all messages are acknowledged, and reads may stay paused."""


def gaps_since(plan: Plan) -> float:
    """Return the time in seconds from which gaps are possible: earlier faults cause none."""
    causes = [begins(fault) for fault in plan.faults if kind_of(fault) not in _NO_GAPS]
    if "backfill_from" in plan.settings:
        causes.append(0.0)  # trades from before the first start are a gap until they are backfilled
    if plan.slow_subscriptions and "ws_rotate_after_seconds" in plan.settings:
        # Messages before a new connection's first data are lost where the old one had none.
        causes.append(0.0)
    causes += _long_outages(plan)
    return min(causes, default=math.inf)


def _long_outages(plan: Plan) -> list[float]:
    """Return the starts of Kafka outages so long that the venue closes the connection, whose reads are paused."""
    spans = sorted(
        (begins(each), begins(each) + each.seconds)
        for each in plan.faults
        if isinstance(each, faults.KafkaOutage)
    )
    starts, since, until = [], -math.inf, -math.inf
    for start, end in spans:
        if start > until + _OUTAGE_PAUSE_SECONDS:
            since = start
        until = max(until, end)
        if until - since > _PONG_SECONDS:
            starts.append(since)
    return starts


def scenario(plan: Plan) -> dict[str, Any]:
    """Return the venue's part of a plan, as a scenario file of the simulator."""
    return {"faults": [msgspec.to_builtins(each) for each in plan.faults if not isinstance(each, HostFault)]}


def shrink(plan: Plan, fails: Callable[[Plan], bool]) -> tuple[Plan, int]:
    """Shrink a failing plan to few faults and symbols and default settings; return it and the number of tries.

    `fails` runs a plan and returns whether it fails.
    """
    return smallest(plan, fails, _smaller)


P = TypeVar("P")


def smallest(plan: P, fails: Callable[[P], bool], smaller: Callable[[P], Iterator[P]]) -> tuple[P, int]:
    """Return the first failing plan of `smaller`, repeated until none fails, and the number of tries.

    Args:
        plan: failing plan.
        fails: function that runs a plan and returns whether it fails.
        smaller: function that yields smaller plans.
    """
    tries, done = 0, False
    while not done:
        done = True
        for candidate in smaller(plan):
            tries += 1
            if fails(candidate):
                plan, done = candidate, False
                break
    return plan, tries


def _smaller(plan: Plan) -> Iterator[Plan]:
    replace = msgspec.structs.replace
    size = len(plan.faults) // 2
    while size >= 1:
        for start in range(0, len(plan.faults), size):
            yield replace(plan, faults=plan.faults[:start] + plan.faults[start + size :])
        size //= 2
    for name in plan.rates if len(plan.rates) > 1 else ():
        rates = {other: rate for other, rate in plan.rates.items() if other != name}
        left = [
            each
            for each in plan.faults
            if isinstance(each, faults.Assign) or name not in getattr(each, "symbols", ())
        ]
        yield replace(plan, rates=rates, faults=left)
    for name in plan.settings:
        yield replace(plan, settings={key: value for key, value in plan.settings.items() if key != name})
    if plan.duration_seconds > 30 and all(begins(each) < 30 for each in plan.faults):
        yield replace(plan, duration_seconds=30)
    defaults = {
        "recent_trades": 1000,
        "slow_subscriptions": False,
        "poll_seconds": 0.02,
        "quantum_seconds": 0.05,
        "has_key": True,
    }
    for name, value in defaults.items():
        if getattr(plan, name) != value:
            yield replace(plan, **{name: value})
