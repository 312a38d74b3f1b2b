"""A pipeline with a real publisher and a real broker, driven call by call."""

from collections.abc import Callable

from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until
from marketfeed_wire import Gap, decode_checkpoint, decode_gap
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.checkpoints import CheckpointPublisher
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.registry import VENUES

SYMBOL = "BTCUSDT"


def frames(*trade_ids: int) -> list[bytes]:
    """Return trade frames of the stream."""
    data = b'{"e":"trade","E":1723161600000,"s":"BTCUSDT","t":%d,"p":"1","q":"2","T":1723161600000,"m":true,"M":true}'
    return [b'{"stream":"btcusdt@trade","data":%b}' % (data % n) for n in trade_ids]


class Clock:
    """A wall clock that can be stepped."""

    def __init__(self) -> None:
        self.set_by_us = 0

    def __call__(self) -> int:
        return now_us() + self.set_by_us


class Rig:
    """A pipeline with a real publisher, one symbol and topics of one partition."""

    def __init__(self, make_settings: MakeSettings, broker: Broker) -> None:
        self.broker = broker
        self.trades, self.quotes, self.gaps, self.progress = [
            broker.new_topic(name, 1) for name in ("trades", "quotes", "gaps", "progress")
        ]
        self.counters = Counters(
            StreamCounters("trade", self.trades),
            StreamCounters("book_ticker", self.quotes),
            StreamCounters("gaps", self.gaps),
            StreamCounters("progress", self.progress),
        )
        settings = self.settings = make_settings(KAFKA_BROKER=broker.address)
        self.clock = Clock()
        self.publisher = Publisher(settings, self.clock)
        self.pipeline = Pipeline(VENUES["binance_us"], self.publisher, self.counters, self.clock)
        self.teller = CheckpointPublisher(settings, self.pipeline, self.publisher, self.counters, self.clock)
        self.flow: SymbolFlow = self.pipeline.add_symbol(SYMBOL)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        def answered() -> bool:
            self.pipeline.poll()
            return condition()

        until(answered, what)

    def let(self, topic: str) -> None:
        """Wait until `topic` has every message published so far."""
        stored: list[str] = []
        mark = StreamCounters("mark", topic)
        self.publisher.publish(
            mark, [{"value": b"mark", "key": b"mark"}], now_us(), {}, lambda: stored.append(topic)
        )
        self.wait(lambda: bool(stored), f"{topic} to be written")

    def stored(self, topic: str) -> list[bytes]:
        return [value for key, value in self.broker.read(topic) if key != b"mark"]

    def gap_records(self) -> dict[int, Gap]:
        """Return the newest record of each gap by its first id."""
        return {gap.first_id: gap for gap in map(decode_gap, self.stored(self.gaps))}

    def published_checkpoints(self) -> list[int]:
        self.teller.publish()
        self.let(self.progress)
        return [decode_checkpoint(value).trade_id for value in self.stored(self.progress)]

    def settle(self) -> None:
        self.wait(lambda: not self.publisher.pending, "every acknowledgement")
