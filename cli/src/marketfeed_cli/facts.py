"""Collection of the facts for the final report: from the venue, the services and the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from marketfeed_cli.observe import Ledger, SymbolLedger
from marketfeed_cli.report import Facts, Latency, StreamFacts, SymbolFacts
from marketfeed_service.id_ranges import IdRange
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

NO_LATENCY = Latency(None, None)


@dataclass(frozen=True)
class FinalStatus:
    """Final statuses of a run's components.

    Attributes:
        ledger: The venue's ledger; None if it has none, or continued after the worker stopped.
        started_us: Start of the run; no row of it was received before.
    """

    ledger: Ledger | None
    worker: WorkerStatus
    consumers: Mapping[str, ConsumerStatus]
    trades_topic: str
    book_topic: str
    started_us: int


# Consecutive ids have the same difference between id and row number (gaps and islands).
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
_BACKFILLED = """
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


async def collect(dsn: str, final: FinalStatus) -> Facts:
    """Return the facts of a run whose consumers have stored all messages."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        database = _Database(connection, final.worker.venue, final.started_us)
        symbols: dict[str, SymbolFacts] = {}
        trades, quotes, backfilled = _Count(), _Count(), 0
        for symbol in final.worker.symbols:
            sent = final.ledger.symbols.get(symbol) if final.ledger else None
            expected = await _expected(database, final, symbol, sent)
            symbols[symbol] = SymbolFacts(
                expected=expected,
                absent=await _absent(database, symbol, expected, sent),
                committed=await database.committed(symbol, expected),
                latency=_symbol_latency(final, symbol),
            )
            trades += await database.count_trades(symbol, expected)
            backfilled += await database.count_backfilled(symbol, expected)
            quotes += await database.count_quotes(symbol, sent)
    return Facts(
        trades=_stream(final, final.trades_topic, "trades", trades),
        quotes=_stream(final, final.book_topic, "book_tickers", quotes),
        symbols=symbols,
        backfilled=backfilled,
        dead_letters=sum(consumer.dead_letters for consumer in final.consumers.values()),
        failed=sum(final.worker.failed.values()),
    )


@dataclass(frozen=True)
class _Count:
    rows: int = 0
    keys: int = 0

    def __add__(self, other: "_Count") -> "_Count":
        return _Count(self.rows + other.rows, self.keys + other.keys)


@dataclass(frozen=True)
class _Database:
    """Queries of the rows of a run and venue."""

    connection: psycopg.AsyncConnection[tuple[Any, ...]]
    venue: str
    since: int

    async def committed(self, symbol: str, ids: IdRange | None) -> list[IdRange]:
        if ids is None:
            return []
        rows = await self._rows(_COMMITTED, symbol, first=ids.first, last=ids.last)
        return [IdRange(first, last) for first, last in rows]

    async def received_ids(self, symbol: str) -> IdRange | None:
        """Return the lowest and highest trade id received since the start of the run."""
        ((first, last),) = await self._rows(_TRADES_SINCE, symbol, since=self.since)
        return None if first is None else IdRange(first, last)

    async def count_trades(self, symbol: str, ids: IdRange | None) -> _Count:
        if ids is None:
            return _Count()
        (row,) = await self._rows(_TRADES, symbol, first=ids.first, last=ids.last)
        return _Count(*row)

    async def count_backfilled(self, symbol: str, ids: IdRange | None) -> int:
        if ids is None:
            return 0
        ((rows,),) = await self._rows(_BACKFILLED, symbol, first=ids.first, last=ids.last)
        return int(rows)

    async def absent(self, symbol: str, ids: IdRange) -> list[IdRange]:
        rows = await self._rows(_ABSENT, symbol, first=ids.first, last=ids.last)
        return [IdRange(*each) for (absent,) in rows for each in absent]

    async def count_quotes(self, symbol: str, sent: SymbolLedger | None) -> _Count:
        if sent is None:
            (row,) = await self._rows(_QUOTES_SINCE, symbol, since=self.since)
        else:
            # A user's database may contain the recording from an earlier run; these rows count as well.
            (row,) = await self._rows(_QUOTES, symbol, first=sent.first_update_id, last=sent.last_update_id)
        return _Count(*row)

    async def _rows(self, query: LiteralString, symbol: str, **values: int | None) -> list[tuple[Any, ...]]:
        cursor = await self.connection.execute(query, {"venue": self.venue, "symbol": symbol, **values})
        return await cursor.fetchall()


async def _expected(
    database: _Database, final: FinalStatus, symbol: str, sent: SymbolLedger | None
) -> IdRange | None:
    """Return the expected ids: from the venue's ledger, otherwise from the first stored to the last received id."""
    if sent is not None and sent.first_trade_id is not None and sent.last_trade_id is not None:
        return IdRange(sent.first_trade_id, sent.last_trade_id)
    if final.ledger is not None:
        return None
    stored = await database.received_ids(symbol)
    last_received = final.worker.symbols[symbol].last_trade_id
    if stored is None:
        return None if last_received is None else IdRange(last_received, last_received)
    return IdRange(stored.first, max(stored.last, last_received or 0))


async def _absent(
    database: _Database, symbol: str, expected: IdRange | None, sent: SymbolLedger | None
) -> list[IdRange]:
    """Return the absent ids: from the venue's ledger, otherwise from the gaps that the worker has resolved."""
    if sent is not None:
        return [IdRange(*each) for each in sent.absent_trade_ids]
    return await database.absent(symbol, expected) if expected else []


def _stream(final: FinalStatus, topic: str, table: str, counted: _Count) -> StreamFacts:
    consumer = final.consumers.get(topic)
    return StreamFacts(
        sent=_sent(final, table),
        received=final.worker.received.get(topic, 0),
        acknowledged=final.worker.acknowledged.get(topic, 0),
        committed=counted.rows,
        duplicates=counted.rows - counted.keys,
        duplicates_skipped=consumer.duplicates.get(table, 0) if consumer else 0,
        latency=Latency(consumer.latency_p50_us, consumer.latency_p99_us) if consumer else NO_LATENCY,
    )


def _sent(final: FinalStatus, table: str) -> int | None:
    if final.ledger is None:
        return None
    entries = [entry for symbol, entry in final.ledger.symbols.items() if symbol in final.worker.symbols]
    return sum(entry.trades if table == "trades" else entry.quotes for entry in entries)


def _symbol_latency(final: FinalStatus, symbol: str) -> Latency:
    consumer = final.consumers.get(final.trades_topic)
    stored = consumer.symbols.get(symbol) if consumer else None
    return Latency(stored.latency_p50_us, stored.latency_p99_us) if stored else NO_LATENCY
