"""Binance (global) spot. Facts from the venue's API documents of July 2026.

Times are requested in microseconds, by a parameter of the stream URL.
"""

from marketfeed_workers.venues.binance_spot.rest_client import Weights
from marketfeed_workers.venues.binance_spot.venue import BinanceSpot
from marketfeed_workers.venues.venue import VenueFacts

VENUE = BinanceSpot(
    VenueFacts(
        name="binance",
        ws_base="wss://stream.binance.com:9443",
        rest_base="https://api.binance.com",
        trade_ids="contiguous",
        max_streams_per_connection=1024,
        max_streams_in_url=400,
        max_names_per_command=200,
        command_interval_seconds=0.3,
        connection_life_seconds=24 * 3600,
        connection_attempts=300,
        connection_attempts_window_seconds=300,
    ),
    time_unit_us=1,
    weights=Weights(
        exchange_info=20,
        trades=25,
        historical_trades=25,
        agg_trades=4,
        book_ticker=2,
        depth=5,
        time=1,
        a_minute=6000,
    ),
    history_needs_key=False,
)
