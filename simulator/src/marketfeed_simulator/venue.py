"""What tells the two venues of this dialect apart: limits, weights, keys, pings. Values only.

Sources: binance-us/binance-us-api-docs (2023-09-06) and binance/binance-spot-api-docs (July 2026). Where the
older document is silent (connection attempts), its venue has the stricter value of the newer one.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """The rules that a venue plays by; durations in seconds."""

    name: str
    ping_interval_seconds: float
    pong_deadline_seconds: float
    """From a ping without its pong to the end of the connection."""
    echo_required: bool
    """Only a pong with a ping's own payload counts; otherwise any pong does."""
    life_seconds: float = 24 * 3600
    shutdown_notice_seconds: float = 0
    """How long before a connection's end `serverShutdown` is sent; 0 sends none."""
    streams_per_connection: int = 1024
    messages_per_second: int = 5
    attempts: int = 300
    attempts_window_seconds: float = 300
    weight_limit: int
    """Request weight a minute and address."""
    request_limit: int
    """Requests in five minutes and address, whatever they weigh."""
    weights: Mapping[str, int]
    """Endpoint to weight."""
    history_needs_key: bool
    """historicalTrades wants an X-MBX-APIKEY header."""
    text_ids: bool
    """A request's id may be a negative number, a string of up to 36 characters or null."""
    microseconds: bool
    """Times are given in microseconds to whoever asks (timeUnit, X-MBX-TIME-UNIT)."""
    order_ids: bool
    """Trades carry the buyer's and the seller's order id (b, a)."""
    aggregate_window_seconds: float
    """The longest startTime to endTime of aggTrades; 0 for no bound."""
    ban_seconds: float = 120
    """The first ban; each further one is twice as long, three days at most."""


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
