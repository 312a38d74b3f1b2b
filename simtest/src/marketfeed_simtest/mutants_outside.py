"""More one-line defects: those that an independent review found undetected by the oracle."""

from typing import Final

from marketfeed_simtest.mutants import Mutant

OUTSIDE_MUTANTS: Final[tuple[Mutant, ...]] = (
    # identity and exact content of trades
    Mutant(
        "C1: a backfilled trade is of another venue",
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
        "C1: a backfilled trade has the origin stream",
        "venues/binance_spot/rest.py",
        'None, self._now_us(), "backfill",',
        'None, self._now_us(), "stream",',
    ),
    # quotes
    Mutant(
        "C2: quotes of a new id series have the old number",
        "stream/quote_publisher.py",
        "        flow.encode_quote = encoder(flow.quote_series)\n",
        "",
    ),
    Mutant(
        "C2: a start loses the newest update id",
        "stream/symbol_flow.py",
        "            self.last_update_id = quotes.update_id\n",
        "",
    ),
    Mutant(
        "C2: under pressure the oldest quote of a read is kept",
        "stream/quote_publisher.py",
        "{quote.symbol: quote for quote in quotes}",
        "{quote.symbol: quote for quote in reversed(quotes)}",
    ),
    # rejected messages
    Mutant(
        "C7: rejected messages are not kept",
        "stream/rejected_messages.py",
        "        self._publisher.publish(self._counters.rejected, [record], now_us, {})\n",
        "",
    ),
    Mutant(
        "C7: rejected messages lose their last bytes",
        "stream/rejected_messages.py",
        "raw=raw[:MAX_RAW_BYTES],",
        "raw=raw[:-1],",
    ),
    Mutant(
        "C7: rejected messages are all of the first id series",
        "stream/rejected_messages.py",
        "            received_time_us=now_us,\n            id_series=flow.id_series,\n",
        "            received_time_us=now_us,\n",
    ),
    # probes and metrics
    Mutant(
        "C8: the metric of readiness is always 1",
        "metrics.py",
        '"marketfeed_worker_ready", (), int(status.ready)',
        '"marketfeed_worker_ready", (), 1',
    ),
    Mutant(
        "C8: gaps are not counted by their outcome",
        "metrics.py",
        "self._counters.gap_outcomes[outcome]",
        "0",
    ),
    Mutant(
        "C8: /readyz always returns 200",
        "status.py",
        "return ProbeResult(not reason, reason)",
        "return ProbeResult(True, reason)",
    ),
    Mutant(
        "C8: /livez fails after a while",
        "status.py",
        "return check_event_loop(self._monotonic() - self.last_loop_at, drain_seconds)",
        "return check_event_loop(self._monotonic() - min(self.last_loop_at, 30), drain_seconds)",
    ),
    # limits
    Mutant(
        "C5: a 429 at the handshake is ignored",
        "connection/connection.py",
        "                delay = error.retry_after_seconds\n",
        "                delay = 0.25\n",
    ),
    Mutant(
        "C5: a refusal at the handshake is retried at once",
        "connection/connection.py",
        "                delay = REFUSED_SECONDS * self._parts.rng.uniform(0.8, 1.2)\n                refused",
        "                delay = 1.0\n                refused",
    ),
    Mutant(
        "C5: request weight is not counted",
        "rate_limit.py",
        "        return 0.0 if own_fits and all_fit else ",
        "        return 0.0 if True else ",
    ),
    # the beginning of a series
    Mutant(
        "C3: a series begins with the first buffered trade, whatever REST returns",
        "stream/id_series_monitor.py",
        "begins = series_start(first_id, suspected_reset.trades)",
        "begins = series_start(None, suspected_reset.trades)",
    ),
    # bounds
    Mutant(
        "C6: trades for comparison with duplicates are kept without limit",
        "stream/recent_trades.py",
        "while self._held > self._max_messages and",
        "while False and",
    ),
    Mutant(
        "C6: any number of trades is buffered behind a gap",
        "backfill.py",
        "while held and sum(len(flow.sequence.buffered) for flow in held) > self._hold_trades:",
        "while False:",
    ),
)
