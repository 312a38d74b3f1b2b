"""Status of a run's components over HTTP, and newest prices in the database."""

from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import msgspec
import psycopg

from marketfeed_service.http_body import BadBody, decode_body
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

T = TypeVar("T")

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=5)
MAX_STATUS_BYTES = 32 * 2**20
"""The ledger of a long run or the status of a worker with 5,000 symbols has a few MiB."""


class SymbolLedger(msgspec.Struct):
    """Ledger of a symbol in the simulator's ``GET /control/ledger``."""

    trades: int
    first_trade_id: int | None
    last_trade_id: int | None
    absent_trade_ids: list[tuple[int, int]]
    quotes: int
    first_update_id: int | None
    last_update_id: int | None
    repeated_frames: int
    other_frames: int


class Ledger(msgspec.Struct):
    """Ledger of the simulator's market; `finished` is true at the end of a recording."""

    finished: bool
    symbols: dict[str, SymbolLedger]


@dataclass(frozen=True)
class Price:
    """Newest prices of a symbol in the database."""

    last: str | None
    bid: str | None
    ask: str | None


async def fetch(session: aiohttp.ClientSession, url: str, body: type[T]) -> T | None:
    """Return the decoded JSON response of `url`; None if there is no valid response.

    Args:
        session: HTTP session.
        url: URL.
        body: Type of the response.
    """
    try:
        async with session.get(url, timeout=REQUEST_TIMEOUT, allow_redirects=False) as response:
            return await decode_body(
                response, lambda found: msgspec.json.decode(found, type=body), max_bytes=MAX_STATUS_BYTES
            )
    except (BadBody, aiohttp.ClientError, TimeoutError, OSError):
        return None


async def worker_status(session: aiohttp.ClientSession, base: str) -> WorkerStatus | None:
    """Return the worker's status; None if it does not respond."""
    return await fetch(session, f"{base}/status", WorkerStatus)


async def consumer_status(session: aiohttp.ClientSession, base: str) -> ConsumerStatus | None:
    """Return the consumer's status; None if it does not respond."""
    return await fetch(session, f"{base}/status", ConsumerStatus)


_PRICES = """
SELECT s.symbol, t.price::text, q.bid_price::text, q.ask_price::text
FROM unnest(%(symbols)s::text[]) AS s (symbol)
LEFT JOIN LATERAL (SELECT price FROM trades WHERE venue = %(venue)s AND symbol = s.symbol
    ORDER BY trade_id DESC LIMIT 1) AS t ON true
LEFT JOIN LATERAL (SELECT bid_price, ask_price FROM book_tickers WHERE venue = %(venue)s AND symbol = s.symbol
    ORDER BY update_id DESC LIMIT 1) AS q ON true
"""


async def prices(
    connection: psycopg.AsyncConnection[tuple[str | None, ...]], venue: str, symbols: list[str]
) -> dict[str, Price]:
    """Return the newest committed prices of each symbol.

    Args:
        connection: Connection to the database.
        venue: Name of the venue.
        symbols: Symbols.
    """
    rows = await (await connection.execute(_PRICES, {"venue": venue, "symbols": symbols})).fetchall()
    return {str(symbol): Price(last, bid, ask) for symbol, last, bid, ask in rows}
