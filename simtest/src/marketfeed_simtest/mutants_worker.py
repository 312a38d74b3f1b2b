"""Defects of one line of the worker."""

from typing import Final

from marketfeed_simtest.mutants import Mutant
from marketfeed_simtest.mutants_former import FORMER_MUTANTS

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "a start loses the missing ids",
        "stream/symbol_flow.py",
        "self.sequence.resume_after(trade_id, unresolved)",
        "self.sequence.resume_after(trade_id, [])",
    ),
    Mutant(
        "a symbol begins without a checkpoint",
        "stream/first_trades.py",
        "self._parts.contiguous and flow.sequence.expected is None and bool(",
        "False and bool(",
    ),
    Mutant(
        "unresolved gaps are dropped",
        "stream/reorder_buffer.py",
        "self.unresolved = merged([*self.unresolved, *self._gaps])",
        "self.unresolved = merged([*self.unresolved])",
    ),
    Mutant(
        "the checkpoint does not wait for gap records",
        "stream/gap_publisher.py",
        "return min([acknowledged_id, *(first_id - 1 for first_id in unacknowledged)])",
        "return acknowledged_id",
    ),
    Mutant(
        "the checkpoint does not wait for acknowledgements",
        "kafka/checkpoints.py",
        "trade_id = self._pipeline.gaps.checkpoint(symbol, acknowledged_id)",
        "trade_id = self._pipeline.flows[symbol].sequence.expected - 1",
    ),
    Mutant(
        "a gap is filled before Kafka has its trades",
        "stream/gaps.py",
        "*part_of(unacknowledged, self.ids), ",
        "",
    ),
    Mutant(
        "unpublished ids do not count as missing",
        "stream/gaps.py",
        ", *sequence.unpublished(self.ids)]",
        "]",
    ),
    Mutant(
        "the id after the last row of a page is absent, too",
        "venues/binance_spot/rows.py",
        "    return Proof(hull, absent)\n\n\ndef needed_part",
        "    return Proof(hull, [*absent, IdRange(newest + 1, newest + 1)])\n\n\ndef needed_part",
    ),
    Mutant(
        "a 429 is ignored",
        "venues/binance_spot/rest_client.py",
        "self.budget.block(error)",
        "pass",
    ),
    Mutant(
        "gap records have the wall clock's time",
        "stream/gaps.py",
        "updated_time_us=max(now_us, self.record_time_us + 1),",
        "updated_time_us=now_us,",
    ),
    Mutant(
        "a hold never ends",
        "backfill.py",
        "if gaps and now - min(gaps.values()) >= self._hold_seconds:",
        "if False:",
    ),
    Mutant(
        "a hold ends after a tenth of its time",
        "backfill.py",
        "now - min(gaps.values()) >= self._hold_seconds",
        "now - min(gaps.values()) >= self._hold_seconds / 10",
    ),
    Mutant(
        "BACKFILL_FROM is a minute late",
        "startup.py",
        "parse_time_us(start))",
        "parse_time_us(start) + 60_000_000)",
    ),
    Mutant(
        "sockets are not read again after a pause",
        "stream/back_pressure.py",
        "            socket.resume_reading()\n",
        "            pass\n",
        survives="the detector of stalled streams replaces the connection, within its own bound",
    ),
    Mutant(
        "the pipeline never leaves its pause",
        "stream/pipeline.py",
        "if self.paused and self._publisher.has_room and not self.resets.holds_too_many():",
        "if False:",
    ),
    Mutant(
        "an earlier trade is published again",
        "stream/reorder_buffer.py",
        "        self.duplicates += 1\n        return _NOTHING\n\n    def _add_tombstones",
        "        self.duplicates += 1\n        return Arrival([trade], None)\n\n    def _add_tombstones",
        survives="unreachable: callers check `is_known` first, and a trade that passes is not an "
        "earlier one, or is late or absent, which the lines above handle",
    ),
    Mutant(
        "a duplicate is published again",
        "stream/trade_publisher.py",
        "            if same_trade(first, trade):\n",
        "            if False:\n",
    ),
    Mutant(
        "buffered trades are flushed in another order",
        "stream/reorder_buffer.py",
        "for trade_id in sorted(self.buffered)]",
        "for trade_id in sorted(self.buffered, reverse=True)]",
    ),
    Mutant(
        "an older quote is published, too",
        "stream/quote_publisher.py",
        "if quote.update_id > flow.last_update_id:",
        "if quote.update_id != flow.last_update_id:",
    ),
    Mutant(
        "quotes stop after a thousand",
        "stream/quote_publisher.py",
        "            flow.quotes += 1\n",
        "            flow.quotes += 1\n            if flow.quotes > 1000:\n                continue\n",
    ),
    Mutant(
        "a rejection does not end the process",
        "worker.py",
        "while not stop.is_set() and not self._publisher.fatal_error:",
        "while not stop.is_set():",
    ),
    Mutant(
        "a stop does not wait for acknowledgements",
        "worker.py",
        "        left = publisher.flush(max(0.0, deadline - monotonic()))\n",
        "        left = 0\n",
    ),
    Mutant(
        "a stop does not publish the checkpoint",
        "worker.py",
        "self._checkpoints.publish(is_final=True)",
        "pass",
    ),
    Mutant(
        "the event time replaces the trade's time",
        "venues/binance_spot/mapper.py",
        "trade.T * time_unit_us,",
        "trade.E * time_unit_us,",
    ),
    Mutant(
        "a backfilled trade has the other side",
        "venues/binance_spot/rest.py",
        "row.qty, row.is_buyer_maker,",
        "row.qty, not row.is_buyer_maker,",
    ),
    Mutant(
        "a backfilled price loses its last digits",
        "venues/binance_spot/rest.py",
        "self._venue, symbol, row.id, row.price, ",
        "self._venue, symbol, row.id, row.price[:-2], ",
    ),
    Mutant(
        "acknowledged counts one too many",
        "kafka/delivery_report.py",
        "self._stream.acknowledged += size - ",
        "self._stream.acknowledged += 1 + size - ",
    ),
    Mutant(
        "received counts reads",
        "stream/pipeline.py",
        "counters.received += len(trades)",
        "counters.received += 1",
    ),
    Mutant(
        "the checkpoint passes a rejected message",
        "kafka/publisher.py",
        "refused and key_for(split_series_key(symbol)[0]) in refused",
        "False",
    ),
    Mutant(
        "delivery reports are kept without limit",
        "kafka/publisher.py",
        "self._in_flight_reads.pop(receipt)",
        "self._in_flight_reads[receipt]",
    ),
    Mutant(
        "a gap is not backfilled",
        "stream/gap_publisher.py",
        "            flow.new_gaps = 0\n            self.on_gap(flow.symbol)\n",
        "            flow.new_gaps = 0\n",
    ),
    Mutant(
        "ready whatever the streams do",
        "status.py",
        "return self._streams.not_ready()",
        'return ""',
    ),
    Mutant(
        "never ready because of the streams",
        "status.py",
        "return self._streams.not_ready()",
        'return self._streams.not_ready() or "streams"',
    ),
    Mutant(
        "stalled streams are not replaced",
        "stall_detector.py",
        "if self._is_broken(stream) and not was_broken:",
        "if False:",
        survives="trades are backfilled and readiness is correct meanwhile; timely replacement "
        "is covered by the process tests of stalled streams",
    ),
    Mutant(
        "an unresponsive peer is not dropped",
        "connection/session.py",
        "                socket.abort()\n                return\n\n    async def _send_keepalives",
        "                return\n\n    async def _send_keepalives",
        survives="the detector of stalled streams replaces the connection as well, within its own bound",
    ),
    Mutant(
        "a frame of the wrong kind ends the process",
        "stream/pipeline.py",
        "            self._counters.failures[error.reason] += 1\n",
        "            raise error\n",
    ),
    Mutant(
        "a hold is measured by the wall clock",
        "backfill.py",
        "        now = self._monotonic()\n        held =",
        "        now = self._now_us() / 1e6\n        held =",
    ),
    *FORMER_MUTANTS,
)
