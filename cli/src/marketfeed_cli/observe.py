"""What the parts of a run tell about themselves over HTTP, and what the database holds while it grows."""

from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import msgspec
import psycopg

from marketfeed_chassis.bodies import BadBody, decoded
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

T = TypeVar("T")

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=5)
MAX_STATUS_BYTES = 32 * 2**20
"""A ledger of a long run, or the status of a worker with 5,000 symbols, has a few."""


class SymbolLedger(msgspec.Struct):
    """What the simulator's market produced of one symbol (its ``GET /control/ledger``)."""

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
    """What the simulator's market produced, and whether it is at its end."""

    finished: bool
    symbols: dict[str, SymbolLedger]


@dataclass(frozen=True)
class Price:
    """The newest prices of a symbol that are in the database."""

    last: str | None
    bid: str | None
    ask: str | None


async def fetch(session: aiohttp.ClientSession, url: str, body: type[T]) -> T | None:
    """The JSON that `url` answers; None when nobody answers there, or answers something else."""
    try:
        async with session.get(url, timeout=REQUEST_TIMEOUT, allow_redirects=False) as response:
            return await decoded(
                response, lambda found: msgspec.json.decode(found, type=body), max_bytes=MAX_STATUS_BYTES
            )
    except (BadBody, aiohttp.ClientError, TimeoutError, OSError):
        return None


async def worker_status(session: aiohttp.ClientSession, base: str) -> WorkerStatus | None:
    """The worker's own report; None when it does not answer."""
    return await fetch(session, f"{base}/status", WorkerStatus)


async def consumer_status(session: aiohttp.ClientSession, base: str) -> ConsumerStatus | None:
    """The consumer's own report; None when it does not answer."""
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
    """The newest committed prices of each symbol."""
    rows = await (await connection.execute(_PRICES, {"venue": venue, "symbols": symbols})).fetchall()
    return {str(symbol): Price(last, bid, ask) for symbol, last, bid, ask in rows}
