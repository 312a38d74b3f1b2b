"""missing_trades: ranges of missing trade ids inside the span of a symbol; the key ends in first_trade_id.

The table is exact: it has a range if and only if none of its ids is in trades and both adjacent ids are.
"""

from typing import Final

NAME: Final = "missing_trades"

LOAD: Final = """
SELECT g.venue, g.symbol, g.id_series, g.first_trade_id, g.last_trade_id, g.after_time_us, g.before_time_us
FROM unnest(%s::text[], %s::text[], %s::int[]) AS asked (venue, symbol, id_series)
JOIN missing_trades AS g USING (venue, symbol, id_series)
ORDER BY g.venue, g.symbol, g.id_series, g.first_trade_id
"""

OPEN: Final = """
INSERT INTO missing_trades (venue, symbol, id_series, first_trade_id, last_trade_id, after_time_us, before_time_us,
    noticed_time_us)
SELECT n.*, %s::bigint
FROM unnest(%s::text[], %s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS n
"""

CLOSE: Final = """
DELETE FROM missing_trades AS g
USING unnest(%s::text[], %s::text[], %s::int[], %s::bigint[]) AS n (venue, symbol, id_series, first_trade_id)
WHERE g.venue = n.venue AND g.symbol = n.symbol AND g.id_series = n.id_series
    AND g.first_trade_id = n.first_trade_id
"""
