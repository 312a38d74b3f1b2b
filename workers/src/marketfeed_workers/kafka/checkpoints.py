"""Publishing of checkpoints: the last acknowledged trade id and update id of each symbol."""

from collections.abc import Callable, Iterator
from typing import Final

from marketfeed_wire import (
    Checkpoint,
    QuoteCheckpoint,
    checkpoint_key,
    encode,
    quote_checkpoint_key,
)
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.series_key import split_series_key

QUOTE_CHECKPOINT_INTERVAL: Final = 30
"""Quotes have a checkpoint with every so many checkpoints of trades: they are only needed to detect id resets."""


class CheckpointPublisher:
    """Publishes checkpoints."""

    def __init__(
        self,
        settings: WorkerSettings,
        pipeline: Pipeline,
        publisher: Publisher,
        counters: Counters,
        now_us: Callable[[], int],
    ) -> None:
        self._venue = settings.venue
        self._pipeline = pipeline
        self._publisher = publisher
        self._counters = counters
        self._now_us = now_us
        self._published: dict[str, int] = {}
        self._published_quotes: dict[str, tuple[int, int]] = {}
        self._calls = 0

    def publish(self, *, is_final: bool = False) -> None:
        """Publish the checkpoints that have changed; `is_final` includes those of all quotes."""
        self._pipeline.gaps.publish_changes()
        now_us = self._now_us()
        records = []
        for name, acknowledged_id in self._publisher.acknowledged_trade_ids.items():
            symbol, id_series = split_series_key(name)
            flow = self._pipeline.flows.get(symbol)
            if flow is not None and flow.id_series != id_series:
                continue  # the series has ended
            trade_id = self._pipeline.gaps.checkpoint(symbol, acknowledged_id)
            if trade_id <= self._published.get(name, self._pipeline.resumed_id(symbol)):
                continue
            self._published[name] = trade_id
            is_newest = flow is not None and flow.sequence.newest == trade_id
            progress = Checkpoint(
                self._venue,
                symbol,
                trade_id,
                now_us,
                id_series,
                flow.last_trade_time_us if flow is not None and is_newest else None,
            )
            records.append({"value": encode(progress), "key": checkpoint_key(self._venue, symbol, id_series)})
        records += self._quotes(now_us, all_of_them=is_final or self._calls % QUOTE_CHECKPOINT_INTERVAL == 0)
        self._calls += 1
        if records:
            self._publisher.publish(self._counters.progress, records, now_us, {})

    def _quotes(self, now_us: int, *, all_of_them: bool) -> Iterator[dict[str, bytes]]:
        """Yield the changed checkpoints of quotes: of all symbols, or only of those with a new series."""
        for symbol, flow in self._pipeline.flows.items():
            now = (flow.quote_series, flow.last_update_id)
            published = self._published_quotes.get(symbol)
            is_new_series = published is None or published[0] != flow.quote_series
            if flow.last_update_id < 0 or published == now or not (all_of_them or is_new_series):
                continue
            self._published_quotes[symbol] = now
            checkpoint = QuoteCheckpoint(self._venue, symbol, flow.last_update_id, flow.quote_series, now_us)
            yield {
                "value": encode(checkpoint),
                "key": quote_checkpoint_key(self._venue, symbol, flow.quote_series),
            }
