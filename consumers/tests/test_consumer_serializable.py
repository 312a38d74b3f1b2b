"""Serializability under random schedules.

Two consumers of one group that both believe to own its partitions, a consumer of another group that stores the same
topics elsewhere in time, retention, a rebuild and an auditor work at once on the same symbols, each step in an order
that a seed decides. Sometimes a consumer continues from an offset that is not the stored one.

Whenever the auditor looks, and at the end, everything derived is what the rows say; at the end the rows are the topic,
less what retention took, and each trade of the topic counts once in its candle, also those that retention took. A
commit that had no right to succeed fails the test by itself. What it is worth was tried by taking out, one at a time by
hand: the comparison of the epoch, that of the offset, the look at what the two found, the raising of the epoch by a
claim, the comparison of a mark's version, the look at what that found, SERIALIZABLE itself, the one transaction of a
rebuild, and its regard for what retention has deleted. Each of these fails nearly every seed.
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from consumer_market import BEGIN_US, quote, trade
from consumer_session import Message, Session
from consumer_support import DERIVED_CANDLES, MARKS_DIFFER, MISSING_DIFFER, TOPS_DIFFER, rows

from marketfeed_consumers.admin import rebuild, retention
from marketfeed_consumers.admin.retention import Limit
from marketfeed_consumers.database import connections as databases
from marketfeed_consumers.errors import Abandoned, Fenced, StaleRanges
from marketfeed_consumers.kafka.decode import Batch
from marketfeed_consumers.planning.plan import Plan

pytestmark = pytest.mark.integration
FIRST_SEED = int(os.environ.get("MARKETFEED_CHAOS_FIRST_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("MARKETFEED_CHAOS_SEEDS", "2")))

SYMBOLS = ("AAA", "BBB", "CCC")
IDS = 120


def timed_trade(trade_id: int, symbol: str) -> Message:
    """Twelve per minute, so that there are many candles and retention deletes some of them completely."""
    return trade(trade_id, symbol, trade_time_us=BEGIN_US + trade_id * 5_000_000)


def trades_topic(rng: random.Random) -> list[Message]:
    """Return trades out of order, duplicates, gaps that close late or never, and invalid messages."""
    ids = [(i, s) for i in range(IDS) for s in SYMBOLS if rng.random() > 0.05]
    late = [one for one in ids if rng.random() < 0.1]
    flow = [one for one in ids if one not in late] + late + rng.sample(ids, 60)
    order = sorted(range(len(flow)), key=lambda at: at + rng.randrange(12))
    log: list[Message] = [timed_trade(*flow[at]) for at in order]
    for _ in range(5):
        log.insert(rng.randrange(len(log)), b"{")
    return log


def quotes_topic(rng: random.Random) -> list[Message]:
    return [quote(rng.randrange(300), rng.choice(SYMBOLS)) for _ in range(100)]


@dataclass
class World:
    """The test's own state, to compare with the database.

    Attributes:
        epochs: group -> the epochs of its acquired leases.
        wrong: what must not have happened.
        limits: table -> the highest limit of a run of retention.
    """

    url: str
    topics: dict[str, list[Message]]
    lock: threading.Lock = field(default_factory=threading.Lock)
    epochs: dict[str, set[int]] = field(default_factory=dict)
    wrong: list[object] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=lambda: {"trades": 0, "book_tickers": 0})


class Believer:
    """A consumer that continues as if it owned the partitions, even if it was fenced."""

    def __init__(self, world: World, name: str, group: str, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.session = Session(world.url, name, group=group, at=yielding(rng))
        self.fencing_reason = self.refused = self.stale = 0

    def acquire_leases(self) -> None:
        self.session.acquire_leases()
        epoch, group = min(self.session.owner.epochs.values()), self.session.owner.group
        with self.world.lock:
            given = self.world.epochs.setdefault(group, set())
            if epoch in given:
                self.world.wrong.append(f"epoch {epoch} of {group} was given twice")
            given.add(epoch)

    def step(self) -> bool:
        """Store the next few messages; return whether there were any."""
        session = self.session
        topic = self.rng.choice(list(self.world.topics))
        stored = session.next[topic]
        if self.rng.random() < 0.15:
            session.next[topic] = self._another_offset(topic, stored)
        messages = self._messages()
        if not messages:
            return False
        batch = session.batch(messages)
        is_lost = session.next[topic] != stored and (topic, 0) in batch.next_offsets
        plan = session.planned(batch)
        session.next[topic] = stored
        self._store(batch, plan, is_lost)
        return True

    def _another_offset(self, topic: str, stored: int) -> int:
        end = len(self.world.topics[topic])
        return self.rng.choice([at for at in range(max(0, stored - 9), min(end, stored + 9)) if at != stored])

    def _store(self, batch: Batch, plan: Plan, is_lost: bool) -> None:
        session, world = self.session, self.world
        mine = min(session.owner.epochs.values())
        newest = max(world.epochs[session.owner.group])  # a later lease may be too late for this batch
        try:
            session.writer.submit_write(plan, session.owner).result(30)
        except (StaleRanges, Abandoned):
            self.stale += 1
            assert self.stale < 100, "what the marks say is wrong, however often it is read"
            return
        except Fenced:
            self.fencing_reason += not is_lost
            self.refused += is_lost
            self.acquire_leases()  # owner again
            return
        if mine < newest:
            world.wrong.append(f"{session.name} committed under epoch {mine}, after {newest} was claimed")
        if is_lost:
            world.wrong.append(
                f"{session.name} had lost count and committed all the same: {batch.next_offsets}"
            )
        self.stale = 0
        session.next |= {topic: offset for (topic, _), offset in batch.next_offsets.items()}

    def _messages(self) -> Sequence[Message]:
        own = self.world.topics
        trades, quotes = (own[topic][self.session.next[topic] :] for topic in ("trades", "book"))
        few = self.rng.randint(1, 25)
        return [*trades[:few], *quotes[: self.rng.randint(0 if trades else 1, 8)]]


@pytest.mark.parametrize("seed", SEEDS)
def test_serializable_schedules_keep_derived_tables_consistent(
    database: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 6)
    rng = random.Random(seed)  # noqa: S311 - a schedule
    world = World(database, {"trades": trades_topic(rng), "book": quotes_topic(rng)})
    names = (("first", "group"), ("second", "group"), ("third", "another group"))
    believers = [Believer(world, *name, random.Random(rng.random())) for name in names]  # noqa: S311
    for one in believers:
        one.acquire_leases()
    stop = threading.Event()
    try:
        with ThreadPoolExecutor(6) as threads:
            helpers = [
                threads.submit(repeat, stop, lambda: world.wrong.extend(look(database))),
                threads.submit(repeat, stop, lambda: rebuild_once(database, random.Random(seed))),  # noqa: S311
                threads.submit(repeat, stop, lambda: retain_once(world, limits_of(rng))),
            ]
            try:
                for future in [threads.submit(work, one) for one in believers]:
                    future.result(120)
            finally:
                stop.set()
            for future in helpers:
                future.result(60)
    finally:
        for one in believers:
            one.session.writer.close()
    assert world.wrong == []
    assert sum(one.fencing_reason for one in believers) > 0, "they never met"
    assert sum(one.refused for one in believers) > 0, "none ever lost count"
    assert look(database) == []
    check_rows(world)


def check_rows(world: World) -> None:
    """Check that rows equal the topic without expired ones, and offsets and dead letters match the topic."""
    url, topics = world.url, world.topics
    retain_once(world, world.limits)  # late old rows are deleted by the next run
    trades = {(t.symbol, t.trade_id): t for t in topics["trades"] if not isinstance(t, bytes)}  # type: ignore[union-attr]
    newest = {symbol: max(i for own, i in trades if own == symbol) for symbol in SYMBOLS}
    assert rows(url, "SELECT symbol, trade_id FROM trades ORDER BY 1, 2") == sorted(
        key
        for key, t in trades.items()
        if t.trade_time_us >= world.limits["trades"] or key[1] == newest[key[0]]  # type: ignore[union-attr]
    )
    counted = rows(url, "SELECT symbol, open_time_us, trade_count FROM candles_1m")
    minutes = Counter((key[0], t.trade_time_us // 60_000_000) for key, t in trades.items())  # type: ignore[union-attr]
    assert {(symbol, open_us // 60_000_000): count for symbol, open_us, count in counted} == minutes
    quotes = {(q.symbol, q.update_id): q.received_time_us for q in topics["book"]}  # type: ignore[union-attr]
    held = set(rows(url, "SELECT symbol, update_id FROM book_tickers"))
    assert held <= set(quotes)
    assert held >= {key for key, time_us in quotes.items() if time_us >= world.limits["book_tickers"]}
    ends = [("book", len(topics["book"])), ("trades", len(topics["trades"]))]
    for group in world.epochs:
        held = rows(url, "SELECT topic, next_offset, consumer_group FROM consumer_offsets ORDER BY topic")
        assert [(topic, offset) for topic, offset, owner in held if owner == group] == ends
    assert rows(url, "SELECT kafka_offset FROM dead_letters ORDER BY 1") == [
        (offset,) for offset, message in enumerate(topics["trades"]) if isinstance(message, bytes)
    ]


def yielding(rng: random.Random) -> Callable[[str], None]:
    """Yield to other threads at random failpoints of a transaction."""
    pause = threading.Event()
    return lambda _: None if rng.random() < 0.6 else [pause.wait(rng.random() * 0.004), None][1]


def work(believer: Believer) -> None:
    while believer.step():
        pass


def repeat(stop: threading.Event, action: Callable[[], None]) -> None:
    while not stop.is_set():
        action()


CANDLES_DIFFER = f"""
WITH derived AS ({DERIVED_CANDLES}), differing AS (
    (TABLE derived EXCEPT ALL TABLE candles_1m) UNION ALL (TABLE candles_1m EXCEPT ALL TABLE derived)
)
SELECT d.* FROM differing AS d LEFT JOIN retention_state AS r
    ON r.table_name = 'trades' AND (r.venue, r.symbol, r.id_series) = (d.venue, d.symbol, d.id_series)
WHERE d.open_time_us >= coalesce(r.expired_before_time_us, 0)
"""  # noqa: S608 - a constant
"""Candles of minutes without expired trades that differ from the SQL aggregate of the rows."""


def look(url: str) -> list[tuple[Any, ...]]:
    """Run the auditor's queries in one snapshot."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        try:
            return [
                row
                for query in (CANDLES_DIFFER, MARKS_DIFFER, MISSING_DIFFER, TOPS_DIFFER)
                for row in connection.execute(query).fetchall()
            ]
        except psycopg.errors.SerializationFailure:
            return []


def rebuild_once(url: str, rng: random.Random) -> None:
    connection, _ = databases.connect(url)
    with connection:
        retry_conflicts = databases.retry_conflicts(connection, rng)
        for _ in rebuild.candles(connection, rebuild.Scope(), retry_conflicts):
            pass
        for _ in rebuild.tops(connection, rebuild.Scope(), retry_conflicts):
            pass


def retain_once(world: World, limits: dict[str, int]) -> None:
    """Run retention up to `limits`."""
    connection, _ = databases.connect(world.url)
    with connection:
        retry_conflicts = databases.retry_conflicts(connection, random.Random(1))  # noqa: S311 - jitter
        for table, before_us in limits.items():
            with world.lock:
                world.limits[table] = max(world.limits[table], before_us)
            for _ in retention.expire(
                connection,
                table,
                Limit(before_us, BEGIN_US + 86_400_000_000),
                retry_conflicts,
                lambda _: None,
            ):
                pass


def limits_of(rng: random.Random) -> dict[str, int]:
    return {
        "book_tickers": quote(rng.randrange(60)).received_time_us,
        "trades": BEGIN_US + rng.randrange(IDS // 2) * 5_000_000,
    }
