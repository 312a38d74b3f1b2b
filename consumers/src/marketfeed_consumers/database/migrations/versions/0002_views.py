"""Views for people: the latest quote, the spread, candles of wider intervals, volume by venue.

Intervals begin at `time - time % width`: whole numbers divide to whole numbers in PostgreSQL and to decimals in
CockroachDB, but the remainder is the same in both.
"""

from typing import Final

from alembic import op

revision = "0002"
down_revision = "0001"

_TIME: Final = "timestamptz 'epoch' + ({}) * interval '1 microsecond'"
_CANDLES: Final = {"candles_5m": 5, "candles_15m": 15, "candles_1h": 60, "candles_1d": 1440}


def upgrade() -> None:
    """Create them; they hold nothing themselves."""
    op.execute(
        f"""
        CREATE VIEW latest_quotes AS
        SELECT venue, symbol, update_id, bid_price, bid_qty, ask_price, ask_qty,
            (bid_price + ask_price) / 2 AS mid_price,
            ask_price - bid_price AS spread,
            CASE WHEN bid_price + ask_price > 0
                THEN (ask_price - bid_price) * 20000 / (bid_price + ask_price) END AS spread_bps,
            {_TIME.format("received_time_us")} AS received_time
        FROM top_of_book"""  # noqa: S608 - ours
    )
    for name, minutes in _CANDLES.items():
        op.execute(_candles(name, minutes))
    op.execute(
        f"""
        CREATE VIEW volume_by_venue AS
        SELECT venue, symbol, {_TIME.format("open_time_us - open_time_us % 86400000000")} AS day,
            sum(volume) AS volume, sum(quote_volume) AS quote_volume, sum(buy_volume) AS buy_volume,
            sum(trade_count) AS trade_count
        FROM candles_1m
        GROUP BY venue, symbol, open_time_us - open_time_us % 86400000000"""  # noqa: S608 - ours
    )


def _candles(name: str, minutes: int) -> str:
    width_us = minutes * 60_000_000
    return f"""
        CREATE VIEW {name} AS
        SELECT venue, symbol, {_TIME.format(f"min(open_time_us - open_time_us % {width_us})")} AS open_time,
            (array_agg(open ORDER BY first_trade_id))[1] AS open, max(high) AS high, min(low) AS low,
            (array_agg(close ORDER BY last_trade_id DESC))[1] AS close,
            sum(volume) AS volume, sum(quote_volume) AS quote_volume, sum(buy_volume) AS buy_volume,
            sum(trade_count) AS trade_count, min(first_trade_id) AS first_trade_id,
            max(last_trade_id) AS last_trade_id
        FROM candles_1m
        GROUP BY venue, symbol, open_time_us - open_time_us % {width_us}"""  # noqa: S608 - numbers, all ours
