"""Messages for the tests, and Hypothesis strategies for many of them."""

from typing import Any

from confluent_kafka import Message as Record
from hypothesis import strategies as st

from marketfeed_wire import BookTicker, Trade, encode, key_for

BEGIN_US = 1_723_161_600_000_000


def trade(trade_id: int, symbol: str = "BTCUSDT", **fields: Any) -> Trade:
    """Return a trade with content derived from its id, half a second after the previous one."""
    time_us = BEGIN_US + trade_id * 500_000
    return Trade(
        **{
            "venue": "binance_us",
            "symbol": symbol,
            "trade_id": trade_id,
            "price": f"{60000 + trade_id * 7 % 11}.{trade_id % 100:02}000000",
            "qty": f"0.{trade_id % 97 + 1:08}",
            "buyer_is_maker": trade_id % 3 == 0,
            "trade_time_us": time_us,
            "event_time_us": time_us + 100 if trade_id % 2 else None,
            "received_time_us": time_us + 500,
            **fields,
        }
    )


def quote(update_id: int, symbol: str = "BTCUSDT", **fields: Any) -> BookTicker:
    """Return a quote with content derived from its id."""
    return BookTicker(
        **{
            "venue": "binance_us",
            "symbol": symbol,
            "update_id": update_id,
            "bid_price": f"{60000 + update_id % 13}.5",
            "bid_qty": "1.25000000",
            "ask_price": f"{60001 + update_id % 13}",
            "ask_qty": "0.5",
            "event_time_us": None,
            "received_time_us": BEGIN_US + update_id * 1000,
            **fields,
        }
    )


def record(
    message: Trade | BookTicker | bytes,
    offset: int,
    topic: str = "trades",
    partition: int = 0,
    leader_epoch: int = 0,
) -> Record:
    """A record as librdkafka returns it."""
    raw = isinstance(message, bytes)
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        key=b"junk" if raw else key_for(message.symbol),
        value=message if raw else encode(message),
        headers=None,
        error=None,
        timestamp=(0, 0),
        latency=0.0,
        leader_epoch=leader_epoch,
    )


ids = st.integers(0, 60)
id_lists = st.lists(ids, min_size=1, max_size=40)
batches_of_ids = st.lists(id_lists, min_size=1, max_size=6)
"""Trade ids of several batches of one symbol, in any order, with any duplicates."""
