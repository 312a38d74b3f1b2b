"""Binance US. Facts from the venue's API documents of 2023-09-06, or Binance's value where that is stricter."""

from marketfeed_workers.venues.binance_spot.rest_client import Weights
from marketfeed_workers.venues.binance_spot.venue import BinanceSpot
from marketfeed_workers.venues.venue import VenueFacts

VENUE = BinanceSpot(
    VenueFacts(
        name="binance_us",
        ws_base="wss://stream.binance.us:9443",
        rest_base="https://api.binance.us",
        trade_ids="contiguous",
        max_streams_per_connection=1024,
        max_streams_in_url=400,
        max_names_per_command=200,
        command_interval_seconds=0.3,
        connection_life_seconds=24 * 3600,
        connection_attempts=300,
        connection_attempts_window_seconds=300,
    ),
    time_unit_us=1000,
    weights=Weights(
        exchange_info=10,
        trades=1,
        historical_trades=5,
        agg_trades=1,
        book_ticker=2,
        depth=5,
        time=1,
        a_minute=1200,
    ),
    history_needs_key=True,
)
