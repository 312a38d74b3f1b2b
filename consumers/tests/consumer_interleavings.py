"""Interleavings of trades, gaps, backfills, retention, rebuilds and audits, compared with an oracle in SQL.

A case is one symbol's story, a JSON object: what its venue had (`market`), and step by step what is published of it.
Many cases are played at once, each in a symbol of its own, in one database: all share the steps' time and what is done
after each step (`then`), and differ in what is published when.

The oracle is the plain definition: a trade younger than the limit that was published is in the table, and the audit
calls complete only where that is so. It is evaluated by the queries in consumer_oracle.py over a log of all that was
published, written here before the consumer sees it, and over the tables as a reader sees them; nothing of the
consumer's own is asked what is stored, missing, old or expired.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final

import psycopg
from consumer_market import quote, record, trade
from consumer_oracle import CHECKS, NAMED, SCHEMA

from marketfeed_consumers.admin import audit, completeness, rebuild, retention
from marketfeed_consumers.admin.audit_report import Report
from marketfeed_consumers.admin.retention import Limit
from marketfeed_consumers.database import connections
from marketfeed_consumers.database.dialects import POSTGRESQL
from marketfeed_consumers.kafka.decode import batch_of
from marketfeed_consumers.kafka.leases import AssignedPartition
from marketfeed_consumers.planning.plan import plan, ranges_keys
from marketfeed_consumers.storage.transaction import Owner
from marketfeed_consumers.storage.writer import Writer
from marketfeed_wire import Gap, encode

TABLES: Final = {"trades": "trades", "book": "book_tickers", "gaps": "trade_gaps"}
VENUE: Final = "binance_us"
DAY_US: Final = 86_400_000_000
NOW_US: Final = 1_790_000_000_000_000
"""Time of the end of each case."""
IMPOSSIBLE: Final = (
    0,
    NOW_US // 1_000,
    NOW_US // 1_000_000,
    NOW_US + 3650 * DAY_US,
    NOW_US + 30 * DAY_US,
    253_370_764_799_999_999,
)
"""Zero, wrong units (milliseconds, seconds), years and weeks ahead, and the maximum time."""

Case = dict[str, Any]


def symbol_of(number: int) -> str:
    return f"S{number:03}USDT"


# --- generating cases -----------------------------------------------------------------------------------------------


def group(seed: int, size: int) -> list[Case]:
    """Return the `size` cases of one seed."""
    shared = random.Random(f"{seed}")  # noqa: S311 - a story
    days = shared.choice([3, 10, 30, 90])
    steps = shared.randint(5, 14)
    nows = sorted(NOW_US - shared.randrange(days * DAY_US) for _ in range(steps))
    thens = [_then(shared, days) for _ in range(steps)]
    return [
        _case(random.Random(f"{seed} {number}"), seed, symbol_of(number), days, nows, thens)  # noqa: S311
        for number in range(size)
    ]


def _then(shared: random.Random, days: int) -> list[list[Any]]:
    """Return the actions after a step: retention (whole, begun, continued, killed), a rebuild; audits always."""
    done: list[list[Any]] = []
    for _ in range(shared.choice([0, 1, 1, 2, 3])):
        kept_us = shared.choice([1, max(1, days // 3), max(1, days // 2), days, days + 5]) * DAY_US
        table = shared.choices(
            ["trades", "book_tickers", "candles_1m", "dead_letters"], weights=[6, 2, 1, 2]
        )[0]
        done.append(
            shared.choices(
                [
                    ["retain", table, kept_us],
                    ["begin", table, kept_us],
                    ["continue", shared.randint(1, 30)],
                    ["kill"],
                    ["rebuild"],
                ],
                weights=[8, 3, 5, 1, 2],
            )[0]
        )
    return done


def _case(
    rng: random.Random,
    seed: int,
    symbol: str,
    days: int,
    nows: Sequence[int],
    thens: Sequence[list[list[Any]]],
) -> Case:
    market = _market(rng, days)
    absent = {i for i in range(market[0][0], market[-1][0]) if i not in dict(market)}
    feed = _feed(rng, market)
    parts: list[list[list[Any]]] = [[] for _ in nows]
    for at, item in feed:
        parts[min(int(at * len(nows)), len(nows) - 1)].append(item)
    for first, last in _runs(sorted(absent)):
        if rng.random() < 0.7:  # the worker confirmed it absent at some time
            parts[rng.randrange(len(nows))].append(["a", first, last])
    steps = [
        {"now": now, "publish": part, "then": then}
        for now, part, then in zip(nows, parts, thens, strict=True)
    ]
    return {"seed": seed, "symbol": symbol, "market": [list(one) for one in market], "steps": steps}


def _market(rng: random.Random, days: int) -> list[tuple[int, int]]:
    """Return (id, time) of all trades of the venue, ascending by id; times mostly ascending, too."""
    count = rng.choice([1, 2, 5, 20, 40, 40])
    begin, span = NOW_US - days * 2 * DAY_US, days * 2 * DAY_US
    times = sorted(begin + rng.randrange(span) for _ in range(count))
    kind = rng.choice(["in order", "in order", "jitter", "jumbled", "any"])
    if kind == "jitter":
        times = [time + rng.randrange(-600_000_000, 600_000_000) for time in times]
    elif kind == "jumbled":
        low, high = sorted(rng.randrange(count + 1) for _ in range(2))
        times[low:high] = rng.sample(times[low:high], high - low)
    elif kind == "any":
        times = [begin + rng.randrange(span) for _ in range(count)]
    wrong = rng.choice([0.0, 0.0, 0.05, 0.3])
    trade_id, market = rng.choice([0, 1, 1000, 2**62]), []
    for time in times:
        trade_id += 1 if rng.random() < 0.97 else rng.randint(2, 9)
        market.append((trade_id, rng.choice(IMPOSSIBLE) if rng.random() < wrong else time))
    return market


def _feed(rng: random.Random, market: Sequence[tuple[int, int]]) -> list[tuple[float, list[Any]]]:
    """Return (position from 0 to 1, message): trades roughly in order; some late, missing, duplicate, or invalid."""
    count = len(market)
    lost = [False] * count
    for _ in range(rng.randint(0, 3)):
        at, length = rng.randrange(count), rng.randint(1, max(1, count // 2))
        lost[at : at + length] = [True] * len(lost[at : at + length])
    feed: list[tuple[float, list[Any]]] = []
    refused = rng.choice([0.0, 0.0, 0.1])
    for at, (trade_id, time_us) in enumerate(market):
        when = (at + rng.random()) / count
        if lost[at]:
            when = rng.choice([1.0, when + (1 - when) * rng.random(), 2.0])
            if when == 2.0:
                continue  # never
        kind = "x" if rng.random() < refused else "t"
        feed.append((when, [kind, trade_id, time_us]))
        if rng.random() < 0.1:
            feed.append((rng.random(), ["t", trade_id, time_us]))
        quoted = ["q", trade_id, time_us if rng.random() < 0.95 else rng.choice(IMPOSSIBLE)]
        feed += [(moment, quoted) for moment in (when, rng.random()) if rng.random() < 0.3]
    return sorted(feed, key=lambda one: one[0])


def _runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for one in ids:
        if runs and one == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], one)
        else:
            runs.append((one, one))
    return runs


# --- running them ---------------------------------------------------------------------------------------------------


class Stage:
    """A database with the schema and the oracle's tables, on which groups of cases run one after the other.

    Attributes:
        counts: what was done, by name: a check of that the stories do happen.
    """

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(1)  # noqa: S311 - jitter
        self._now_us = 0
        self._writer = Writer(url, clock_us=lambda: self._now_us, rng=self._rng)
        stack.callback(self._writer.close)
        self._ours, self._retaining, self._rebuilding = (
            stack.enter_context(connections.connect(url)[0]) for _ in range(3)
        )
        self._oracle = stack.enter_context(psycopg.connect(url, autocommit=True))
        self._oracle.execute(SCHEMA)
        self._run: Iterator[Any] | None = None

    def play(self, cases: Sequence[Case], *, small_steps: bool) -> list[str]:
        """Run the cases, which have the same steps; return the violations by symbol."""
        self._reset()
        step_rows, young_rows = retention.STEP_ROWS, retention.YOUNG_ROWS
        if small_steps:
            retention.STEP_ROWS, retention.YOUNG_ROWS = 3, 12  # type: ignore[misc]
        try:
            return self._play(cases, small_steps)
        finally:
            retention.STEP_ROWS, retention.YOUNG_ROWS = step_rows, young_rows  # type: ignore[misc]
            self._kill()

    def _reset(self) -> None:
        self._oracle.execute(
            "TRUNCATE trades, book_tickers, candles_1m, top_of_book, high_water_marks, missing_trades, trade_gaps, "
            "dead_letters, retention_state, consumer_offsets, oracle.market, oracle.published, oracle.absent, "
            "oracle.runs"
        )
        self._seq = 0
        self._next = dict.fromkeys(TABLES, 0)
        leases = self._writer.submit_acquire(
            "group", "me", [AssignedPartition(t, 0, "", 0, 10**9) for t in TABLES]
        ).result(60)
        epochs = {(one.topic, one.partition): one.epoch for one in leases}
        self._owner = Owner("group", epochs, dict.fromkeys(TABLES, ""))

    def _play(self, cases: Sequence[Case], small_steps: bool) -> list[str]:
        with self._oracle.cursor().copy("COPY oracle.market FROM STDIN") as copy:
            for case in cases:
                for trade_id, time_us in case["market"]:
                    copy.write_row((case["symbol"], trade_id, time_us))
        for number, step in enumerate(cases[0]["steps"]):
            self._now_us = step["now"]
            for part in range(2):  # so that the messages of one step are in several batches
                self._publish([(case["symbol"], case["steps"][number]["publish"][part::2]) for case in cases])
            for then in [*step["then"], ["look"]]:
                self._seq += 1
                wrong = self._do(then, small_steps)
                if wrong:
                    return [f"step {number}, after {then}: {one}" for one in wrong]
        return []

    def _publish(self, parts: Sequence[tuple[str, Sequence[list[Any]]]]) -> None:
        self._seq += 1
        messages: list[tuple[str, Any]] = []
        with self._oracle.cursor().copy("COPY oracle.published FROM STDIN") as copy:
            for symbol, items in parts:
                for kind, one, other in items:
                    self.counts[kind] += 1
                    if kind == "a":
                        gap = Gap(
                            venue=VENUE, symbol=symbol, first_id=one, last_id=other, state="absent", missing=[],
                            absent=[[one, other]], proof="aggTrades", detected_time_us=0,
                            updated_time_us=self._now_us,
                        )  # fmt: skip
                        messages.append(("gaps", gap))
                        continue
                    copy.write_row((self._seq, symbol, kind, one, other, self._now_us))
                    if kind == "q":
                        messages.append(("book", quote(one, symbol, received_time_us=other)))
                    else:
                        made = trade(
                            one,
                            symbol,
                            trade_time_us=other,
                            event_time_us=None,
                            received_time_us=self._now_us,
                        )
                        value = encode(made)
                        if kind == "x":
                            value = value.replace(b'"price":"', b'"price":"1E')
                        messages.append(("trades", value if kind == "x" else made))
        absent = [(symbol, *item[1:]) for symbol, items in parts for item in items if item[0] == "a"]
        for row in absent:
            self._oracle.execute("INSERT INTO oracle.absent SELECT %s, generate_series(%s::bigint, %s)", row)
        self._store(messages)

    def _store(self, messages: Sequence[tuple[str, Any]]) -> None:
        offsets, records = dict(self._next), []
        for topic, message in messages:
            records.append(record(message, offsets[topic], topic))
            offsets[topic] += 1
        if not records:
            return
        batch = batch_of(records, TABLES)
        known = self._writer.submit_load(ranges_keys(batch)).result(60)
        made = plan(batch, known, {(topic, 0): at for topic, at in self._next.items()})
        self._writer.submit_write(made, self._owner).result(60)
        self._next = offsets

    def _do(self, then: list[Any], small_steps: bool) -> list[str]:
        self.counts[then[0]] += 1
        match then:
            case ["retain", table, kept_us]:
                self._kill()
                self._begin(table, kept_us)
                self._continue(None)
                if table == "trades" and not small_steps:
                    return self._check("old rows are left by retention", CHECKS["left"], {})
            case ["begin", table, kept_us]:
                self._kill()
                self._begin(table, kept_us)
                self._continue(1)
            case ["continue", steps]:
                self._continue(steps)
            case ["kill"]:
                self._kill()
            case ["rebuild"]:
                retry_conflicts = connections.retry_conflicts(self._rebuilding, self._rng)
                for _ in rebuild.candles(self._rebuilding, rebuild.Scope(), retry_conflicts):
                    pass
            case ["look"]:
                return self._look()
        return []

    def _begin(self, table: str, kept_us: int) -> None:
        limit = Limit(self._now_us - kept_us, self._now_us)
        self._oracle.execute(
            "INSERT INTO oracle.runs VALUES (%s, %s, %s, NULL, false)", [table, limit.before_us, self._seq]
        )
        retry_conflicts = connections.retry_conflicts(self._retaining, self._rng)
        self._run = (
            retention.expire_dead_letters(self._retaining, limit, retry_conflicts)
            if table == "dead_letters"
            else retention.expire(self._retaining, table, limit, retry_conflicts, lambda _: None)
        )

    def _continue(self, steps: int | None) -> None:
        if self._run is None:
            return
        for number, done in enumerate(self._run, 1):
            self.counts["deleted"] += done.deleted
            self.counts["impossible"] += done.impossible
            if number == steps:
                return
        self._oracle.execute("UPDATE oracle.runs SET is_complete = true WHERE end_seq IS NULL")
        self._kill()

    def _kill(self) -> None:
        """End the run at its current step."""
        if self._run is not None:
            self._run.close()  # type: ignore[attr-defined] - a generator
            self._run = None
            self._retaining.rollback()
            self._oracle.execute("UPDATE oracle.runs SET end_seq = %s WHERE end_seq IS NULL", [self._seq])

    def _look(self) -> list[str]:
        """Compare everything with the oracle."""
        wrong: list[str] = []
        for name in ("lost", "invented", "candles", "quotes lost", "quotes invented"):
            wrong += self._check(name, CHECKS[name], {})
        scope = audit.Scope()
        whole = audit.audit(self._ours, POSTGRESQL, scope, now_us=self._now_us)
        named = _open_ids(whole)
        must, may = (self._ids(NAMED[name], {"now": self._now_us}) for name in ("must", "may"))
        self.counts["named"] += len(must)
        self.counts["audits complete"] += whole.is_complete
        wrong += [f"{symbol}: the audit does not name {ids}" for symbol, ids in _differ(must, named)]
        wrong += [f"{symbol}: the audit names {ids} as missing" for symbol, ids in _differ(named, may)]
        if whole.is_complete and must:
            wrong.append(f"{min(must)[0]}: the audit says complete")
        wrong += self._check(
            "is called complete", CHECKS["not complete"], {"now": self._now_us, "named": _rows(named)}
        )
        since_us = self._now_us - self._rng.randrange(20 * DAY_US)
        since = _open_ids(
            audit.audit(self._ours, POSTGRESQL, audit.Scope(since_us=since_us), now_us=self._now_us)
        )
        floor_us = since_us - since_us % audit.HOUR_US
        must_since = self._ids(NAMED["since"], {"now": self._now_us, "since": floor_us}) & must
        wrong += [
            f"{symbol}: the audit since {since_us} does not name {ids}"
            for symbol, ids in _differ(must_since, since)
        ]
        wrong += [
            f"{symbol}: the audit since {since_us} names {ids}" for symbol, ids in _differ(since, named)
        ]
        deep = audit.audit(self._ours, POSTGRESQL, scope, deep=True, now_us=self._now_us)
        wrong += [
            f"{hour.symbol}: the deep audit counts {hour}"
            for hour in deep.hours
            if hour.uncounted or hour.duplicates
        ]
        connections.begin_read_only(self._ours, POSTGRESQL)
        figures, _ = completeness.figures(self._ours, self._now_us)
        stored = dict(self._oracle.execute("SELECT symbol, count(*) FROM trades GROUP BY 1").fetchall())
        for one in figures:
            count = sum(1 for symbol, _ in named if symbol == one.symbol)
            if one.missing["unresolved"] + one.missing["rejected"] != count or one.stored != stored.get(
                one.symbol, 0
            ):
                wrong.append(
                    f"{one.symbol}: the figures are {one}, {stored.get(one.symbol)} stored, {count} missing"
                )
        return wrong

    def _check(self, name: str, query: str, values: dict[str, Any]) -> list[str]:
        found = self._oracle.execute(query, values).fetchall()
        return [f"{row[0]}: {name}: {row[1:]}" for row in found]

    def _ids(self, query: str, values: dict[str, Any]) -> set[tuple[str, int]]:
        return {(symbol, trade_id) for symbol, trade_id in self._oracle.execute(query, values)}


def _open_ids(report: Report) -> set[tuple[str, int]]:
    return {
        (hour.symbol, i)
        for hour in report.hours
        for span in hour.missing
        if span.is_open
        for i in range(span.first_id, span.last_id + 1)
    }


def _rows(named: set[tuple[str, int]]) -> str:
    return json.dumps([list(one) for one in sorted(named)])


def _differ(these: set[tuple[str, int]], those: set[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    rest = sorted(these - those)
    return [
        (symbol, [i for own, i in rest if own == symbol]) for symbol in sorted({symbol for symbol, _ in rest})
    ]


# --- shrinking a failing case --------------------------------------------------------------------------------------


def smallest(case: Case, fails: Callable[[Case], bool], tries: int = 300) -> Case:
    """Return the case with as many messages, actions and steps removed as it still fails without."""
    shrunk = True
    while shrunk and tries > 0:
        shrunk = False
        for smaller in _smaller(case):
            tries -= 1
            if tries < 0:
                break
            if fails(smaller):
                case, shrunk = smaller, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    steps = case["steps"]
    for at in range(len(steps)):
        if len(steps) > 1:
            yield {**case, "steps": steps[:at] + steps[at + 1 :]}
    for at, step in enumerate(steps):
        for name in ("then", "publish"):
            items = step[name]
            size = len(items)
            while size:
                for start in range(0, len(items), size):
                    less = {**step, name: items[:start] + items[start + size :]}
                    yield {**case, "steps": [*steps[:at], less, *steps[at + 1 :]]}
                size //= 2
