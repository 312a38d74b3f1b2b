"""One-minute candles of trades, mergeable in any order.

Open and close are the prices of the lowest and the highest trade id, not of the first and last to arrive. Each trade is
counted once, as only trades that are new to the table are passed in. So a candle does not depend on batches, on the
order of arrival or on a late backfill.
"""

from collections.abc import Sequence
from itertools import compress
from operator import mul
from typing import Final, NamedTuple

from marketfeed_consumers.planning import decimals
from marketfeed_consumers.planning.stored_ranges import Key
from marketfeed_wire import Trade

MINUTE_US: Final = 60_000_000


class Candle(NamedTuple):
    """The candle of one symbol and minute; the fields are the columns of candles_1m.

    Prices and volumes are decimal strings. `buy_volume` is the volume of trades whose taker bought.
    """

    venue: str
    symbol: str
    id_series: int
    open_time_us: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    buy_volume: str
    trade_count: int
    first_trade_id: int
    last_trade_id: int


def candles(key: Key, trades: Sequence[Trade]) -> list[Candle]:
    """Return the candles of `trades`, which are of one symbol and id series, ascending by id, without duplicates."""
    times = [trade.trade_time_us for trade in trades]
    if min(times) // MINUTE_US == max(times) // MINUTE_US:
        return [_candle(key, times[0] // MINUTE_US, trades)]
    minutes: dict[int, list[Trade]] = {}
    for trade, time_us in zip(trades, times, strict=True):
        minutes.setdefault(time_us // MINUTE_US, []).append(trade)
    return [_candle(key, minute, minutes[minute]) for minute in sorted(minutes)]


def _candle(key: Key, minute: int, trades: Sequence[Trade]) -> Candle:
    prices, price_scale = decimals.scaled([trade.price for trade in trades])
    quantities, qty_scale = decimals.scaled([trade.qty for trade in trades])
    volume = sum(quantities)
    sold = sum(compress(quantities, [trade.buyer_is_maker for trade in trades]))
    return Candle(
        venue=key[0],
        symbol=key[1],
        id_series=key[2],
        open_time_us=minute * MINUTE_US,
        open=trades[0].price,
        high=decimals.text(max(prices), price_scale),
        low=decimals.text(min(prices), price_scale),
        close=trades[-1].price,
        volume=decimals.text(volume, qty_scale),
        quote_volume=decimals.text(sum(map(mul, prices, quantities)), price_scale + qty_scale),
        buy_volume=decimals.text(volume - sold, qty_scale),
        trade_count=len(trades),
        first_trade_id=trades[0].trade_id,
        last_trade_id=trades[-1].trade_id,
    )
