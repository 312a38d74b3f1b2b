"""Cost of each stage of the worker's hot path, measured separately in one process: CPU microseconds per event.

The stages are the worker's functions on recorded frames, 1,000 per read. CPU time of the thread, except for `publish`,
which includes librdkafka's threads until Kafka has acknowledged.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from confluent_kafka import Producer

from marketfeed_service import settings as service_settings
from marketfeed_wire import BookTicker, Trade, encode, key_for
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues import binance_us

READ_FRAMES = 1_000
TOPICS = ("bench.stages.trades", "bench.stages.quotes")


class _DiscardingPublisher(Publisher):
    """Discards messages, so that only the pipeline's cost is measured."""

    def publish(self, *_: Any, **__: Any) -> None:
        return

    def poll(self) -> None:
        return


@dataclass
class Stages:
    """The stages, on frames of a recording."""

    frames: list[bytes]
    broker: str

    def __post_init__(self) -> None:
        self._venue = binance_us.VENUE
        self._settings = service_settings.read(
            WorkerSettings, {"BINANCE_SYMBOLS": "BTCUSDT,ETHUSDT", "KAFKA_BROKER": self.broker}
        )
        self.events = [
            event
            for frame in self.frames
            if isinstance(event := self._venue.read(frame, 1), Trade | BookTicker)
        ]
        self._records: dict[str, list[dict[str, bytes]]] = {topic: [] for topic in TOPICS}
        for event in self.events:
            topic = TOPICS[isinstance(event, BookTicker)]
            self._records[topic].append({"value": encode(event), "key": key_for(event.symbol)})
        self.reads = [
            self.frames[start : start + READ_FRAMES] for start in range(0, len(self.frames), READ_FRAMES)
        ]

    def gauge(self) -> float:
        """Measure the gauge, decode and encode, which depends on the current speed of the machine only."""
        read = self._venue.read

        def run() -> None:
            for frame in self.frames:
                encode(read(frame, 1))

        return self._each(run, time.thread_time)

    def decode(self) -> float:
        """Measure decoding of frames, with validation of decimals."""
        read_all = self._venue.read_all

        def run() -> None:
            for read in self.reads:
                read_all(read, 1)

        return self._each(run, time.thread_time)

    def encode(self) -> float:
        """Measure encoding of messages."""

        def run() -> None:
            for event in self.events:
                encode(event)

        return self._each(run, time.thread_time)

    def pipeline(self) -> float:
        """Measure the pipeline without Kafka: decode, continuity, encode, counters."""
        pipeline, _ = self._pipeline(_DiscardingPublisher(self._settings, _now_us))

        def run() -> None:
            for read in self.reads:
                pipeline.process(read)

        return self._each(run, time.thread_time)

    def publish(self) -> float:
        """Measure publishing with delivery reports; all threads."""
        publisher = Publisher(self._settings, _now_us)
        streams = [StreamCounters("stage", topic) for topic in TOPICS]
        batches = [
            (stream, [dict(record) for record in self._records[stream.topic][start : start + READ_FRAMES]])
            for stream in streams
            for start in range(0, len(self._records[stream.topic]), READ_FRAMES)
        ]

        def run() -> None:
            for stream, records in batches:
                publisher.publish(stream, records, _now_us(), {})
                publisher.poll()
            publisher.flush(60)

        cost = self._each(run, time.process_time)
        if sum(stream.acknowledged for stream in streams) != len(self.events):
            raise SystemExit("Kafka did not acknowledge every message")
        return cost

    def produce_alone(self) -> float:
        """Measure the client library with delivery reports for errors only; all threads."""
        producer = Producer(
            {
                "bootstrap.servers": self.broker, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
                "compression.type": "lz4", "delivery.report.only.error": True, "queue.buffering.max.messages": 0,
                "queue.buffering.max.kbytes": 2**31 - 1,
            }
        )  # fmt: skip

        def run() -> None:
            for topic, records in self._records.items():
                remaining = iter(records)
                while batch := [dict(record) for record in islice(remaining, READ_FRAMES)]:
                    producer.produce_batch(topic, batch)
                    producer.poll(0)
            producer.flush(60)

        return self._each(run, time.process_time)

    def _pipeline(self, publisher: Publisher) -> tuple[Pipeline, Counters]:
        counters = Counters(
            *(StreamCounters(name, name) for name in ("trades", "quotes", "gaps", "progress"))
        )
        pipeline = Pipeline(self._venue, publisher, counters, _now_us)
        for symbol in self._settings.binance_symbols:
            pipeline.add_symbol(symbol)
        return pipeline, counters

    def _each(self, run: Callable[[], object], clock: Callable[[], float]) -> float:
        began = clock()
        run()
        return (clock() - began) / len(self.frames) * 1e6


def _now_us() -> int:
    return time.time_ns() // 1000
