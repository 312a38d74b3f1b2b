"""One valid message of each type for the tests of the wire contract."""

from typing import Any

import pytest


@pytest.fixture
def trade_fields() -> dict[str, Any]:
    """Return the JSON fields of a trade, all of them; a new copy for each test."""
    return {
        "venue": "binance_us",
        "symbol": "BTCUSDT",
        "trade_id": 3_700_000_001,
        "price": "60001.12000000",
        "qty": "0.00120000",
        "buyer_is_maker": True,
        "trade_time_us": 1_723_161_600_000_000,
        "event_time_us": 1_723_161_600_001_000,
        "received_time_us": 1_723_161_600_001_234,
        "origin": "stream",
        "schema_version": 1,
        "id_series": 0,
    }


@pytest.fixture
def book_ticker_fields() -> dict[str, Any]:
    """Return the JSON fields of a quote, all of them; a new copy for each test."""
    return {
        "venue": "binance_us",
        "symbol": "BTCUSDT",
        "update_id": 50_000_000_001,
        "bid_price": "60001.11000000",
        "bid_qty": "1.50000000",
        "ask_price": "60001.12000000",
        "ask_qty": "0.00000000",
        "event_time_us": None,
        "received_time_us": 1_723_161_600_001_234,
        "schema_version": 1,
        "id_series": 0,
    }
