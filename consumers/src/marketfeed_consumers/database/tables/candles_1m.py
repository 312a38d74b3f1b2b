"""candles_1m: one row per symbol and minute, computed from the stored trades.

The key is (venue, symbol, open_time_us, id_series): a minute in which the symbol's ids restart has a candle of each
series; the views of wider candles merge them.
"""

from typing import Final

from marketfeed_consumers.planning.candles import Candle

NAME: Final = "candles_1m"
COLUMNS: Final = Candle._fields

MERGE: Final = f"""
INSERT INTO candles_1m AS held ({", ".join(COLUMNS)})
SELECT * FROM unnest(%s::text[], %s::text[], %s::int[], %s::bigint[], %s::numeric[], %s::numeric[], %s::numeric[],
    %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::bigint[], %s::bigint[], %s::bigint[])
ON CONFLICT (venue, symbol, open_time_us, id_series) DO UPDATE SET
    open = CASE WHEN excluded.first_trade_id < held.first_trade_id THEN excluded.open ELSE held.open END,
    high = greatest(held.high, excluded.high),
    low = least(held.low, excluded.low),
    close = CASE WHEN excluded.last_trade_id > held.last_trade_id THEN excluded.close ELSE held.close END,
    volume = held.volume + excluded.volume,
    quote_volume = held.quote_volume + excluded.quote_volume,
    buy_volume = held.buy_volume + excluded.buy_volume,
    trade_count = held.trade_count + excluded.trade_count,
    first_trade_id = least(held.first_trade_id, excluded.first_trade_id),
    last_trade_id = greatest(held.last_trade_id, excluded.last_trade_id)
"""  # noqa: S608 - names of columns, all ours
"""Merge candles of new trades into the stored ones; takes one array per column."""
