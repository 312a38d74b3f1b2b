"""Collects the facts that the closing report rests on: from the venue, the services and, by SQL, the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from marketfeed_cli.observe import Ledger, SymbolLedger
from marketfeed_cli.ranges import IdRange
from marketfeed_cli.report import Facts, Latency, StreamFacts, SymbolFacts
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

NO_LATENCY = Latency(None, None)


@dataclass(frozen=True)
class Testimony:
    """What the parts of a run said at its end.

    Attributes:
        ledger: what the venue produced; None when it does not tell, or went on after the worker stopped.
        started_us: no row of this run was received before.
    """

    ledger: Ledger | None
    worker: WorkerStatus
    consumers: Mapping[str, ConsumerStatus]
    trades_topic: str
    book_topic: str
    started_us: int


# A run of consecutive ids has one difference between id and row number.
_COMMITTED = """
SELECT min(trade_id), max(trade_id) FROM (
    SELECT trade_id, trade_id - row_number() OVER (ORDER BY trade_id) AS island FROM (
        SELECT DISTINCT trade_id FROM trades
        WHERE venue = %(venue)s AND symbol = %(symbol)s AND trade_id BETWEEN %(first)s AND %(last)s) AS ids) AS runs
GROUP BY island ORDER BY 1
"""
_TRADES = """
SELECT count(*), count(DISTINCT (id_series, trade_id)) FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND trade_id BETWEEN %(first)s AND %(last)s
"""
_REPAIRED = """
SELECT count(*) FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND trade_id BETWEEN %(first)s AND %(last)s AND origin = 'backfill'
"""
_ABSENT = """
SELECT absent FROM trade_gaps
WHERE venue = %(venue)s AND symbol = %(symbol)s AND first_id <= %(last)s AND last_id >= %(first)s
"""
_TRADES_SINCE = """
SELECT min(trade_id), max(trade_id) FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND received_time_us >= %(since)s
"""
_QUOTES = """
SELECT count(*), count(DISTINCT (id_series, update_id)) FROM book_tickers
WHERE venue = %(venue)s AND symbol = %(symbol)s AND update_id BETWEEN %(first)s AND %(last)s
"""
_QUOTES_SINCE = """
SELECT count(*), count(DISTINCT (id_series, update_id)) FROM book_tickers
WHERE venue = %(venue)s AND symbol = %(symbol)s AND received_time_us >= %(since)s
"""


async def collect(dsn: str, said: Testimony) -> Facts:
    """The facts of a run whose consumers have stored everything."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        database = _Database(connection, said.worker.venue, said.started_us)
        symbols: dict[str, SymbolFacts] = {}
        trades, quotes, repaired = _Count(), _Count(), 0
        for symbol in said.worker.symbols:
            sent = said.ledger.symbols.get(symbol) if said.ledger else None
            expected = await _expected(database, said, symbol, sent)
            symbols[symbol] = SymbolFacts(
                expected=expected,
                absent=await _absent(database, symbol, expected, sent),
                committed=await database.committed(symbol, expected),
                latency=_symbol_latency(said, symbol),
            )
            trades += await database.count_trades(symbol, expected)
            repaired += await database.count_repaired(symbol, expected)
            quotes += await database.count_quotes(symbol, sent)
    return Facts(
        trades=_stream(said, said.trades_topic, "trades", trades),
        quotes=_stream(said, said.book_topic, "book_tickers", quotes),
        symbols=symbols,
        repaired=repaired,
        dead_letters=sum(consumer.dead_letters for consumer in said.consumers.values()),
        failed=sum(said.worker.failed.values()),
    )


@dataclass(frozen=True)
class _Count:
    rows: int = 0
    keys: int = 0

    def __add__(self, other: "_Count") -> "_Count":
        return _Count(self.rows + other.rows, self.keys + other.keys)


@dataclass(frozen=True)
class _Database:
    """Questions about this run's rows of one venue."""

    connection: psycopg.AsyncConnection[tuple[Any, ...]]
    venue: str
    since: int

    async def committed(self, symbol: str, ids: IdRange | None) -> list[IdRange]:
        if ids is None:
            return []
        rows = await self._rows(_COMMITTED, symbol, first=ids.first, last=ids.last)
        return [IdRange(first, last) for first, last in rows]

    async def seen_ids(self, symbol: str) -> IdRange | None:
        """From the lowest to the highest trade id that was received since the run began."""
        ((first, last),) = await self._rows(_TRADES_SINCE, symbol, since=self.since)
        return None if first is None else IdRange(first, last)

    async def count_trades(self, symbol: str, ids: IdRange | None) -> _Count:
        if ids is None:
            return _Count()
        (row,) = await self._rows(_TRADES, symbol, first=ids.first, last=ids.last)
        return _Count(*row)

    async def count_repaired(self, symbol: str, ids: IdRange | None) -> int:
        if ids is None:
            return 0
        ((rows,),) = await self._rows(_REPAIRED, symbol, first=ids.first, last=ids.last)
        return int(rows)

    async def absent(self, symbol: str, ids: IdRange) -> list[IdRange]:
        rows = await self._rows(_ABSENT, symbol, first=ids.first, last=ids.last)
        return [IdRange(*each) for (absent,) in rows for each in absent]

    async def count_quotes(self, symbol: str, sent: SymbolLedger | None) -> _Count:
        if sent is None:
            (row,) = await self._rows(_QUOTES_SINCE, symbol, since=self.since)
        else:
            # In a database of the user's own the same recording may have been stored before; then those rows count.
            (row,) = await self._rows(_QUOTES, symbol, first=sent.first_update_id, last=sent.last_update_id)
        return _Count(*row)

    async def _rows(self, query: LiteralString, symbol: str, **values: int | None) -> list[tuple[Any, ...]]:
        cursor = await self.connection.execute(query, {"venue": self.venue, "symbol": symbol, **values})
        return await cursor.fetchall()


async def _expected(
    database: _Database, said: Testimony, symbol: str, sent: SymbolLedger | None
) -> IdRange | None:
    """The ids that must be there: the venue's own account, or else from the first seen to the last read."""
    if sent is not None and sent.first_trade_id is not None and sent.last_trade_id is not None:
        return IdRange(sent.first_trade_id, sent.last_trade_id)
    if said.ledger is not None:
        return None
    seen = await database.seen_ids(symbol)
    last_read = said.worker.symbols[symbol].last_trade_id
    if seen is None:
        return None if last_read is None else IdRange(last_read, last_read)
    return IdRange(seen.first, max(seen.last, last_read or 0))


async def _absent(
    database: _Database, symbol: str, expected: IdRange | None, sent: SymbolLedger | None
) -> list[IdRange]:
    """The ids that the venue does not have: by its own account, or else by the proof that the worker found."""
    if sent is not None:
        return [IdRange(*each) for each in sent.absent_trade_ids]
    return await database.absent(symbol, expected) if expected else []


def _stream(said: Testimony, topic: str, table: str, counted: _Count) -> StreamFacts:
    consumer = said.consumers.get(topic)
    return StreamFacts(
        sent=_sent(said, table),
        received=said.worker.received.get(topic, 0),
        acknowledged=said.worker.acknowledged.get(topic, 0),
        committed=counted.rows,
        duplicates=counted.rows - counted.keys,
        repeats=consumer.duplicates.get(table, 0) if consumer else 0,
        latency=Latency(consumer.latency_p50_us, consumer.latency_p99_us) if consumer else NO_LATENCY,
    )


def _sent(said: Testimony, table: str) -> int | None:
    if said.ledger is None:
        return None
    read = [entry for symbol, entry in said.ledger.symbols.items() if symbol in said.worker.symbols]
    return sum(entry.trades if table == "trades" else entry.quotes for entry in read)


def _symbol_latency(said: Testimony, symbol: str) -> Latency:
    consumer = said.consumers.get(said.trades_topic)
    stored = consumer.symbols.get(symbol) if consumer else None
    return Latency(stored.latency_p50_us, stored.latency_p99_us) if stored else NO_LATENCY
