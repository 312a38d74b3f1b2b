"""Serializability by what it would take to break it.

Two writers that both believe to own the partition, retention, a rebuild and an auditor work at once on the same
symbols, each step in an order that a seed decides. Afterwards, and whenever the auditor looks, everything derived is
what the rows say: a lost update or a write skew in any of them would show.
"""

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from consumer_market import quote, trade
from consumer_session import Session
from consumer_support import CANDLES_DIFFER, MARKS_DIFFER, MISSING_DIFFER, TOPS_DIFFER, differences, rows

from marketfeed_consumers import database as databases
from marketfeed_consumers import rebuild, retention
from marketfeed_consumers.decode import Batch
from marketfeed_consumers.errors import Abandoned, Fenced, StaleKnowledge

pytestmark = pytest.mark.integration
SEEDS = int(os.environ.get("MARKETFEED_CHAOS_SEEDS", "2"))
SYMBOLS = ("AAA", "BBB", "CCC")


def messages(chance: random.Random) -> list[object]:
    """The topic: trades out of order, repeated, with holes that close late, and quotes."""
    ids = [(i, s) for s in SYMBOLS for i in range(120) if chance.random() > 0.05]
    late = [one for one in ids if chance.random() < 0.1]
    flow = [one for one in ids if one not in late] + late + chance.sample(ids, 60)
    chance_order = sorted(range(len(flow)), key=lambda at: at + chance.randrange(12))
    log: list[object] = [trade(*flow[at]) for at in chance_order]
    for _ in range(100):
        log.insert(chance.randrange(len(log)), quote(chance.randrange(300), chance.choice(SYMBOLS)))
    return log


class Believer:
    """A consumer that goes on as if the partitions were its own, whatever happened meanwhile."""

    def __init__(self, session: Session, log: list[object], chance: random.Random) -> None:
        self.session, self.log, self.chance = session, log, chance
        self.stored = self.fenced = 0

    def step(self) -> bool:
        """Store the next few messages; whether there were any."""
        session = self.session
        batch = self._next()
        if not batch.records:
            return False
        try:
            session.writer.submit_write(session.planned(batch), session.owner).result(30)
        except (StaleKnowledge, Abandoned):
            return True
        except Fenced:
            self.fenced += 1
            session.claim()  # it believes so again
            return True
        session.next |= {topic: offset for (topic, _), offset in batch.next_offsets.items()}
        self.stored += len(batch.records)
        return True

    def _next(self) -> Batch:
        trades = [one for one in self.log if hasattr(one, "trade_id")][self.session.next["trades"] :]
        quotes = [one for one in self.log if hasattr(one, "update_id")][self.session.next["book"] :]
        few = self.chance.randint(1, 25)
        return self.session.batch([*trades[:few], *quotes[: self.chance.randint(0, 8)]])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_the_schedule_what_is_derived_is_what_the_rows_say(database: str, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a schedule
    log = messages(chance)
    believers = [
        Believer(Session(database, name, at=yielding(chance)), log, random.Random(chance.random()))  # noqa: S311
        for name in ("first", "second")
    ]
    for one in believers:
        one.session.claim()
    stop = threading.Event()
    found: list[object] = []
    try:
        with ThreadPoolExecutor(5) as threads:
            helpers = [
                threads.submit(repeat, stop, lambda: found.extend(look(database))),
                threads.submit(repeat, stop, lambda: rebuild_once(database, random.Random(seed))),  # noqa: S311
                threads.submit(repeat, stop, lambda: retain_once(database, random.Random(seed + 1))),  # noqa: S311
            ]
            workers = [threads.submit(work, one) for one in believers]
            for future in workers:
                future.result(120)
            stop.set()
            for future in helpers:
                future.result(60)
    finally:
        stop.set()
        for one in believers:
            one.session.writer.close()
    assert found == []
    assert sum(one.fenced for one in believers) > 0, "they never met"
    assert differences(database) == {}
    trades_sent = sum(hasattr(one, "trade_id") for one in log)
    assert rows(database, "SELECT topic, next_offset FROM consumer_offsets ORDER BY topic") == [
        ("book", len(log) - trades_sent),
        ("trades", trades_sent),
    ]
    assert rows(database, "SELECT symbol, max(trade_id) FROM trades GROUP BY 1 ORDER BY 1") == [
        (symbol, max(one.trade_id for one in log if hasattr(one, "trade_id") and one.symbol == symbol))  # type: ignore[attr-defined]
        for symbol in SYMBOLS
    ]


def yielding(chance: random.Random) -> Callable[[str], None]:
    """Give way at random points of a transaction, so that others come in between."""
    pause = threading.Event()
    return lambda _: None if chance.random() < 0.6 else [pause.wait(chance.random() * 0.004), None][1]


def work(believer: Believer) -> None:
    while believer.step():
        pass


def repeat(stop: threading.Event, action: Callable[[], None]) -> None:
    while not stop.is_set():
        action()


def look(url: str) -> list[object]:
    """The auditor: all in one snapshot."""
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


def rebuild_once(url: str, chance: random.Random) -> None:
    connection, _ = databases.connect(url)
    with connection:
        again = databases.again(connection, chance)
        for _ in rebuild.candles(connection, rebuild.Scope(), again):
            pass
        for _ in rebuild.tops(connection, rebuild.Scope(), again):
            pass


def retain_once(url: str, chance: random.Random) -> None:
    """Retention with nothing old enough but one quote: it moves marks under the writers all the same."""
    connection, _ = databases.connect(url)
    with connection:
        again = databases.again(connection, chance)
        for _ in retention.expire(connection, "book_tickers", quote(30).received_time_us, again):
            pass
