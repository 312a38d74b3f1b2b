"""More defects of one line: those that an outside reader found the oracle blind for, by what it did not look at."""

from typing import Final

from marketfeed_simtest.mutants import Mutant

OUTSIDE_MUTANTS: Final[tuple[Mutant, ...]] = (
    # identity and exact content of trades
    Mutant(
        "C1: a fetched trade is of another venue",
        "venues/binance_spot/rest.py",
        "            self._venue, symbol, row.id, row.price, ",
        '            "bitstamp", symbol, row.id, row.price, ',
    ),
    Mutant(
        "C1: streamed times lose their microseconds",
        "venues/binance_spot/mapper.py",
        "trade.T * time_unit_us,",
        "trade.T * time_unit_us // 1000 * 1000,",
    ),
    Mutant(
        "C1: streamed trades have no event time",
        "venues/binance_spot/mapper.py",
        "trade.E * time_unit_us if trade.E is not None else None,",
        "None,",
    ),
    Mutant(
        "C1: a fetched trade says that it was streamed",
        "venues/binance_spot/rest.py",
        'None, self._now_us(), "backfill",',
        'None, self._now_us(), "stream",',
    ),
    # quotes
    Mutant(
        "C2: quotes of a new id series say that they are of the old one",
        "pipeline.py",
        "        flow.encode_quote = encoder(flow.quote_series)\n",
        "",
    ),
    Mutant(
        "C2: a start forgets the newest update id",
        "flow.py",
        "            self.last_update_id = quotes.update_id\n",
        "",
    ),
    Mutant(
        "C2: under pressure the oldest quote of a read is kept",
        "pipeline.py",
        "{quote.symbol: quote for quote in quotes}",
        "{quote.symbol: quote for quote in reversed(quotes)}",
    ),
    # rejected messages
    Mutant(
        "C7: rejected messages are not kept",
        "pipeline.py",
        "        self._publisher.publish(self._counters.rejected, [record], now_us, {})\n",
        "",
    ),
    Mutant(
        "C7: rejected messages lose their last bytes",
        "pipeline.py",
        "raw=raw[:MAX_RAW_BYTES],",
        "raw=raw[:-1],",
    ),
    Mutant(
        "C7: rejected messages are all of the first id series",
        "pipeline.py",
        "            received_time_us=now_us,\n            id_series=flow.id_series,\n",
        "            received_time_us=now_us,\n",
    ),
)
