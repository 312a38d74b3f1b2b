"""Parameters of the two venues: limits, weights, keys, pings.

Sources: binance-us/binance-us-api-docs (2023-09-06) and binance/binance-spot-api-docs (July 2026). Where the older
document has no value (connection attempts), the stricter value of the newer one is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """Limits and protocol variants of a venue; durations in seconds."""

    name: str
    ping_interval_seconds: float
    pong_deadline_seconds: float
    """Time from an unanswered ping to the close of the connection."""
    echo_required: bool
    """A pong must repeat the ping's payload; otherwise any pong counts."""
    life_seconds: float = 24 * 3600
    shutdown_notice_seconds: float = 0
    """Time from `serverShutdown` to the end of the connection; 0 sends none."""
    streams_per_connection: int = 1024
    messages_per_second: int = 5
    attempts: int = 300
    attempts_window_seconds: float = 300
    weight_limit: int
    """Request weight per minute and address."""
    request_limit: int
    """Requests per five minutes and address, of any weight."""
    weights: Mapping[str, int]
    """Endpoint to weight."""
    history_needs_key: bool
    """historicalTrades requires an X-MBX-APIKEY header."""
    text_ids: bool
    """Request ids may be negative numbers, strings of up to 36 characters or null."""
    microseconds: bool
    """Times in microseconds are available on request (timeUnit, X-MBX-TIME-UNIT)."""
    order_ids: bool
    """Trades carry the buyer's and the seller's order id (b, a)."""
    aggregate_window_seconds: float
    """Maximum range from startTime to endTime of aggTrades; 0 for no limit."""
    ban_seconds: float = 120
    """Duration of the first ban; each further ban is twice as long, at most three days."""


BINANCE_US = Venue(
    name="binance_us",
    ping_interval_seconds=180,
    pong_deadline_seconds=600,
    echo_required=False,
    weight_limit=1200,
    request_limit=5000,
    weights={
        "ping": 1,
        "time": 1,
        "exchangeInfo": 10,
        "trades": 1,
        "historicalTrades": 5,
        "aggTrades": 1,
        "ticker/bookTicker": 2,
        "depth": 5,
    },
    history_needs_key=True,
    text_ids=False,
    microseconds=False,
    order_ids=True,
    aggregate_window_seconds=3600,
)

BINANCE = Venue(
    name="binance",
    ping_interval_seconds=20,
    pong_deadline_seconds=60,
    echo_required=True,
    shutdown_notice_seconds=600,
    weight_limit=6000,
    request_limit=61000,
    weights={
        "ping": 1,
        "time": 1,
        "exchangeInfo": 20,
        "trades": 25,
        "historicalTrades": 25,
        "aggTrades": 4,
        "ticker/bookTicker": 2,
        "depth": 5,
    },
    history_needs_key=False,
    text_ids=True,
    microseconds=True,
    order_ids=False,
    aggregate_window_seconds=0,
)

VENUES: Mapping[str, Venue] = {venue.name: venue for venue in (BINANCE_US, BINANCE)}
