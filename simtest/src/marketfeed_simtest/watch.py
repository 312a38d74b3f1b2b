"""The oracle's checks while a session runs: the endpoints once a second, and the recovery after the last fault."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from marketfeed_simtest.clock import Clock
from marketfeed_simtest.ending import metric
from marketfeed_simtest.faults import begins
from marketfeed_simtest.kafka_log import Cluster
from marketfeed_simtest.life import Life
from marketfeed_simtest.oracle import Oracle
from marketfeed_simtest.plan import Plan
from marketfeed_simtest.truth import TrueQuote, TrueTrade
from marketfeed_simtest.venue_model import VenueModel
from marketfeed_workers.stream.recent_trades import MAX_TRADES

BACKFILL_SECONDS: Final = 60.0
"""Time after which an id that REST can return or prove absent must not be missing, after the last fault."""
WELL_SECONDS: Final = 150.0
"""Time limit of the recovery after the last fault."""
READY_SECONDS: Final = 90.0
BEHIND_LOOKS: Final = 5
"""Number of checks, one per second, within which a stream that delivers again may still lack earlier messages."""
STALLED_SECONDS: Final = 20.0
"""Detection time: a busy stream's stall is detected after 3 s and two REST responses; or it is unverified."""
HELD_SECONDS: Final = 10.0
"""Time beyond GAP_HOLD_SECONDS for which a ready worker may buffer trades."""
LIVE_SECONDS: Final = 60.0
METRIC_LOOKS: Final = 3
COLLECTION_LOOKS: Final = 5
KAFKA_LOOKS: Final = 8
"""Number of checks, one per second, within which an outage of the brokers may be undetected."""
MOST_ENTRIES: Final = 2_000
"""Maximum size of a collection of the worker that has no bound of its own."""
WAITING_ENTRIES: Final = 500
"""Trades that may arrive between two checks of the reorder buffer's bound, in the busiest session."""
READ_ENTRIES: Final = 2_000
"""Messages of one read, on top of a bound."""


class Watch:
    """Checks the process that serves now; `life` returns the newest."""

    def __init__(
        self,
        oracle: Oracle,
        clock: Clock,
        cluster: Cluster,
        venue: VenueModel,
        plan: Plan,
        life: Callable[[], Life],
        lives: Mapping[int, Life],
    ) -> None:
        self._oracle = oracle
        self._clock = clock
        self._venue = venue
        self._plan = plan
        self._life = life
        self._lives = lives
        self._environment = plan.environment()
        self._cluster = cluster
        self._looks = 0
        self._taken_up: dict[tuple[int, str], float] = {}
        self._looks_without_kafka = 0
        self._behind_looks: Counter[tuple[str, str]] = Counter()
        self._was_ready: set[int] = set()
        self._last_times: dict[tuple[int, str, int], int] = {}
        self._struck_at = min(map(begins, plan.faults), default=plan.duration_seconds)
        self._progress_seconds = float(plan.environment()["PROGRESS_INTERVAL_SECONDS"])
        self._kinds = plan.environment()["BINANCE_STREAMS"]

    async def run(self) -> None:
        """Check once a second, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            self._check_ready()
            self._check_checkpoints()
            self._check_status()
            self._check_probes()
            self._looks += 1
            if self._looks % COLLECTION_LOOKS == 0:
                self.check_collections()

    def _check_probes(self) -> None:
        """Compare the probes and the metric of readiness with the status."""
        life = self._life()
        status, health, registry = life.status(), life.health, life.registry
        if status is None or health is None or registry is None:
            return
        ready, reason = health.readyz()
        if (ready, reason) != (status.ready, status.reason):
            self._oracle.violate(
                "probes_differ", f"/readyz: {ready} {reason}; status: {status.reason or 'ready'}"
            )
        now = self._clock.seconds
        alive, why = health.livez()
        if (
            not alive
            and not self._oracle.excuses.between(now - LIVE_SECONDS, now) > self._oracle.excuses.slow_seconds
        ):
            self._oracle.violate("probes_differ", f"/livez: {why}")
        if self._looks % METRIC_LOOKS == 0:
            reported = metric(registry, "marketfeed_worker_ready")
            if reported != status.ready:
                self._oracle.violate(
                    "wrong_metric", f"marketfeed_worker_ready is {reported:.0f}, status: {status.ready}"
                )

    def _check_ready(self) -> None:
        status = self._life().status()
        if status is None or not status.ready:
            return
        for symbol, each in status.symbols.items():
            self._taken_up.setdefault((self._life().number, symbol), self._clock.seconds)
            trades, quotes = self._plan.rates[symbol]
            if "trade" in self._kinds:
                # Trades are buffered behind the gap, or until a restart of ids is decided.
                held = self._oracle.hold_seconds + HELD_SECONDS if each.missing or each.held else 0.0
                self._check_current(symbol, "trade", self._trades_behind(symbol), trades, held)
            if "bookTicker" in self._kinds:
                self._check_current(symbol, "bookTicker", self._quotes_behind(symbol), quotes, 0.0)

    def _check_checkpoints(self) -> None:
        life = self._life()
        if not (life.is_serving and self._cluster.is_up):
            return
        for symbol, known in self._oracle.symbols.items():
            uncovered = known.latest.uncovered if known.latest is not None else deque()
            while uncovered and uncovered[0][2] < life.number:
                uncovered.popleft()  # of a process that has ended, or is ending: the newest one has its own
            if not uncovered:
                continue
            number, written, _ = uncovered[0]
            age = self._clock.seconds - written
            excused = self._oracle.excuses.between(written, self._clock.seconds)
            if age > self._progress_seconds + 8 + excused:
                self._oracle.violate(
                    "checkpoint_behind",
                    f"{symbol} {number} is in the topic for {age:.0f} s, not in the checkpoint",
                )

    def _check_status(self) -> None:
        """Compare the status with the previous one, and with the brokers."""
        self._looks_without_kafka = 0 if self._cluster.is_up else self._looks_without_kafka + 1
        status = self._life().status()
        if status is None:
            return
        number = self._life().number
        if status.ready and self._looks_without_kafka > KAFKA_LOOKS:
            self._oracle.violate("ready_without_kafka", f"for {self._looks_without_kafka} s, and ready")
        if self._clock.seconds < self._struck_at and number in self._was_ready and not status.ready:
            self._oracle.violate("unready_without_fault", status.reason)
        if status.ready:
            self._was_ready.add(number)
        for symbol, each in status.symbols.items():
            reported, key = each.last_trade_time_us, (number, symbol, each.id_series)
            if reported is not None and reported < self._last_times.get(key, reported):
                self._oracle.violate(
                    "last_time_backwards", f"{symbol}: {reported} after {self._last_times[key]}"
                )
            self._last_times[key] = reported or 0
        for life, symbol in list(self._taken_up):
            if life == number and symbol not in status.symbols:
                del self._taken_up[life, symbol]  # it was removed, and begins again when it is added

    def _check_current(self, symbol: str, kind: str, behind: float, rate: float, held: float) -> None:
        now = self._clock.seconds
        # A slow stream that loses half of its messages appears slower still, and its stall is detected that much later.
        allowed = max(STALLED_SECONDS, 120 / (rate or 1)) + self._oracle.excuses.between(now - behind, now)
        looks = self._behind_looks[symbol, kind] = (
            self._behind_looks[symbol, kind] + 1 if behind > allowed else 0
        )
        if looks > BEHIND_LOOKS + held:
            self._oracle.violate(
                "ready_while_stalled", f"{symbol}@{kind} is {behind:.0f} s behind, and ready"
            )

    def _trades_behind(self, symbol: str) -> float:
        """Return the seconds since the oldest trade after the newest one in the topic."""
        true, known = self._venue.truth.symbol(symbol), self._oracle.symbols[symbol]
        oldest: TrueTrade | None = None
        for trade in reversed(true.trades):
            if (trade.series, trade.id) in known.stored:
                break
            oldest = trade
        return self._since(symbol, oldest)

    def _quotes_behind(self, symbol: str) -> float:
        true, newest = self._venue.truth.symbol(symbol), self._oracle.quotes.last(symbol)
        oldest: TrueQuote | None = None
        for quote in reversed(true.quotes):
            if (quote.series, quote.id) <= newest:
                break
            oldest = quote
        return self._since(symbol, oldest)

    def _since(self, symbol: str, oldest: TrueTrade | TrueQuote | None) -> float:
        """Return the time for which this process could have received the oldest trade that is not in the topic."""
        if oldest is None:
            return 0.0
        life = self._life()
        taken_up = self._taken_up.get((life.number, symbol), life.began)
        return self._clock.seconds - max(oldest.seconds, taken_up)

    async def until_well(self) -> None:
        """Wait until every gap is final; a gap that could have been backfilled for too long is a violation."""
        unready = 0.0
        reachable: dict[tuple[str, int], float] = defaultdict(float)
        deadline = self._clock.seconds + WELL_SECONDS
        while self._clock.seconds < deadline:
            await asyncio.sleep(1.0)
            status = self._life().status()
            if status is None:
                continue
            unready = 0.0 if status.ready else unready + 1
            if unready > READY_SECONDS:
                self._oracle.violate("not_ready", f"no fault for {unready:.0f} s: {status.reason}")
            well = status.ready
            for symbol in self._plan.rates:
                well = self._is_well(symbol, reachable) and well
            if well:
                return
        self._check_progress()

    def _is_well(self, symbol: str, reachable: dict[tuple[str, int], float]) -> bool:
        """Return whether no gap of a symbol can be backfilled any more."""
        if "trade" not in self._kinds:
            return True
        reach = self._venue.reachable_from(symbol, has_key=self._plan.has_key)
        well = self._trades_behind(symbol) < 3
        for number in self._missing(symbol):
            key = symbol, number
            if number < reach or key in self._venue.odd_rows:
                held = reachable.pop(key, 0.0)
                if number < reach and held > 15:
                    self._oracle.violate(
                        "not_backfilled",
                        f"{symbol} {number}: REST could return it for {held:.0f} s, and cannot any more",
                    )
                continue
            well = False
            reachable[key] += 1
            if reachable[key] > BACKFILL_SECONDS:
                self._oracle.violate(
                    "not_backfilled",
                    f"{symbol} {number}: REST could return it or prove it absent for {BACKFILL_SECONDS:.0f} s",
                )
        return well

    def _missing(self, symbol: str) -> Iterable[int]:
        """Return the ids that should be in the topic and are not, and one of each range that is reported missing."""
        series = self._venue.truth.symbol(symbol).series
        one = self._oracle.symbols[symbol].standing_for(series)
        if one is None or one.begins is None:
            return []
        two_seconds_ago = self._clock.seconds - 2
        waiting = [
            number
            for number, trade in self._oracle.unstored(symbol, series).items()
            if number >= one.begins and trade.seconds < two_seconds_ago
        ]
        reported = [first for gap, _ in one.gaps.values() for first, _ in gap.missing]
        return sorted({*waiting, *reported})

    def _check_progress(self) -> None:
        life = self._life()
        if life.status() is None:
            self._oracle.violate("not_ready", f"no fault for {WELL_SECONDS:.0f} s and no process serves")
            return
        for symbol in self._plan.rates:
            behind = self._trades_behind(symbol)
            if behind > 30 and "trade" in self._kinds:
                self._oracle.violate("no_progress", f"{symbol} is {behind:.0f} s behind")

    def check_collections(self) -> None:
        """Check that no collection of the worker is large."""
        for life in self._lives.values():
            if life.health is not None and life.is_running:
                for place, size in collections_of(life.health):
                    if size > self._bound_of(place):
                        self._oracle.violate("unbounded_collection", f"{place} holds {size} entries")

    def _bound_of(self, place: str) -> int:
        """Return the product's own bound of a collection, by its name."""
        queue = int(self._environment["KAFKA_QUEUE_MAX_MESSAGES"])
        own = {
            "_reads": MAX_TRADES,
            "_index": MAX_TRADES,
            "buffered": int(self._environment["GAP_HOLD_TRADES"]),
            "_in_flight_reads": queue,
        }
        name = place.rpartition(".")[2].removesuffix("[…]")
        if name == "buffered":
            return own[name] + WAITING_ENTRIES
        return own.get(name, MOST_ENTRIES - READ_ENTRIES) + READ_ENTRIES


def collections_of(root: object) -> list[tuple[str, int]]:
    """Yield every collection reachable from `root` through objects of the product, and its size."""
    found: list[tuple[str, int]] = []
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [(type(root).__name__, root)]
    while todo:
        place, each = todo.pop()
        if id(each) in seen or isinstance(each, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            found.append((place, len(each)))
            todo += [(f"{place}[…]", value) for value in list(each.values())[:50]]
        elif isinstance(each, (list, tuple, set, frozenset)) or type(each).__name__ == "deque":
            found.append((place, sum(len(one) if isinstance(one, list) else 1 for one in each)))
            todo += [(f"{place}[…]", value) for value in list(each)[:50]]
        elif type(each).__module__.startswith("marketfeed_workers"):
            todo += [(f"{place}.{name}", value) for name, value in _attributes(each)]
    return found


def _attributes(each: object) -> Iterable[tuple[str, Any]]:
    names = list(getattr(each, "__dict__", {}))
    for kind in type(each).__mro__:
        slots = getattr(kind, "__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [(name, getattr(each, name)) for name in names if hasattr(each, name)]
