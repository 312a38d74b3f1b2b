"""Sampling of a running pipeline for the screen."""

import time
from collections import deque
from typing import Any, Final

import psycopg

from marketfeed_cli import observe, throttle
from marketfeed_cli.observe import Ledger, Price
from marketfeed_cli.report import Latency
from marketfeed_cli.screen import Flow, Snapshot, SymbolLine
from marketfeed_cli.stack import Stack
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

RATE_WINDOW_SECONDS: Final = 5.0
_NO_PRICE: Final = Price(None, None, None)


class Sampler:
    """Takes snapshots of a pipeline.

    Args:
        stack: The pipeline.
        connection: Connection to the database in autocommit mode.
        total_seconds: Duration of the run; None for a replay.
    """

    def __init__(
        self, stack: Stack, connection: psycopg.AsyncConnection[Any], *, total_seconds: float | None
    ) -> None:
        self._stack = stack
        self._connection = connection
        self._total_seconds = total_seconds
        self._began = time.monotonic()
        self._trades: deque[tuple[float, dict[str, int]]] = deque()

    @property
    def seconds(self) -> float:
        """Elapsed time since the start of sampling."""
        return time.monotonic() - self._began

    async def sample(self) -> Snapshot | None:
        """Return a snapshot of the pipeline; None if the worker does not respond."""
        worker = await self._stack.worker_status()
        if worker is None:
            return None
        consumers = await self._stack.consumer_statuses()
        symbols = list(worker.symbols)
        prices = await observe.prices(self._connection, worker.venue, symbols)
        trades, quotes = self._stack.trades_topic, self._stack.book_topic
        return Snapshot(
            seconds=self.seconds,
            total_seconds=self._total_seconds,
            trades=_flow(worker, consumers, trades),
            quotes=_flow(worker, consumers, quotes),
            missing=sum(symbol.missing for symbol in worker.symbols.values()),
            symbols=self._lines(symbols, consumers.get(trades), prices),
            note=worker.reason,
        )

    def _lines(
        self, symbols: list[str], consumer: ConsumerStatus | None, prices: dict[str, Price]
    ) -> list[SymbolLine]:
        stored = consumer.symbols if consumer else {}
        rows = {symbol: stored[symbol].rows if symbol in stored else 0 for symbol in symbols}
        now = self.seconds
        self._trades.append((now, rows))
        while len(self._trades) > 1 and now - self._trades[0][0] > RATE_WINDOW_SECONDS:
            self._trades.popleft()
        since, before = self._trades[0]
        elapsed = max(now - since, 1e-9)
        return [
            SymbolLine(
                symbol=symbol,
                price=prices.get(symbol, _NO_PRICE),
                trades=rows[symbol],
                trades_per_second=(rows[symbol] - before.get(symbol, 0)) / elapsed,
                latency=(
                    Latency(stored[symbol].latency_p50_us, stored[symbol].latency_p99_us)
                    if symbol in stored
                    else Latency(None, None)
                ),
            )
            for symbol in symbols
        ]


def frames_done(ledger: Ledger, consumers: dict[str, ConsumerStatus]) -> int:
    """Return the number of frames that are stored, or skipped because they are duplicates or of other streams."""
    skipped = sum(entry.repeated_frames + entry.other_frames for entry in ledger.symbols.values())
    return skipped + sum(throttle.processed(consumer) for consumer in consumers.values())


def _flow(worker: WorkerStatus, consumers: dict[str, ConsumerStatus], topic: str) -> Flow:
    consumer = consumers.get(topic)
    return Flow(
        received=worker.received.get(topic, 0),
        acknowledged=worker.acknowledged.get(topic, 0),
        committed=throttle.processed(consumer) - consumer.dead_letters if consumer else 0,
    )
