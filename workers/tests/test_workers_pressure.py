"""Back-pressure: trades are never skipped, quotes only in favour of a newer one, and reading is paused."""

import json
from collections.abc import Iterator

import pytest
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_wire import decode_book_ticker, decode_checkpoint, decode_trade
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.registry import VENUES


def trade(symbol: str, trade_id: int) -> bytes:
    data = {
        "e": "trade",
        "E": 1_723_161_600_000,
        "s": symbol,
        "t": trade_id,
        "p": "1.0",
        "q": "2.0",
        "T": 1_723_161_600_000,
        "m": True,
    }
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}, separators=(",", ":")).encode()


def quote(symbol: str, update_id: int) -> bytes:
    data = {"u": update_id, "s": symbol, "b": "1.0", "B": "1", "a": "2.0", "A": "1"}
    return json.dumps(
        {"stream": f"{symbol.lower()}@bookTicker", "data": data}, separators=(",", ":")
    ).encode()


class Reading:
    """A socket that records whether it is read."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Line:
    def __init__(self, make_settings: MakeSettings, broker: Broker) -> None:
        self.broker = broker
        topics = [broker.new_topic(name) for name in ("trades", "quotes", "gaps", "progress")]
        names = ("trade", "book_ticker", "gaps", "progress")
        self.counters = Counters(
            *[StreamCounters(name, topic) for name, topic in zip(names, topics, strict=True)]
        )
        settings = make_settings(KAFKA_BROKER=broker.address, KAFKA_QUEUE_MAX_MESSAGES="1000")
        self.publisher = Publisher(settings, now_us)
        self.pipeline = Pipeline(VENUES["binance_us"], self.publisher, self.counters, now_us)
        self.pipeline.add_symbol("BTCUSDT")
        self.pipeline.add_symbol("ETHUSDT")
        self.socket = Reading()
        self.pipeline.reads.attach(self.socket)  # type: ignore[arg-type]


@pytest.fixture
def line(make_settings: MakeSettings, own_broker: Broker) -> Iterator[Line]:
    made = Line(make_settings, own_broker)
    yield made
    own_broker.up()
    assert made.publisher.flush(20) == 0


def test_pressure_conflates_quotes(line: Line) -> None:
    line.pipeline.process([quote("BTCUSDT", n) for n in range(100)])
    assert line.publisher.flush(20) == 0
    assert line.counters.quotes.conflated == 0
    line.broker.down()
    line.pipeline.process(
        [trade("BTCUSDT", n) for n in range(800)]
    )  # three quarters of the capacity are used
    read = [
        frame
        for n in range(100, 150)
        for frame in (quote("BTCUSDT", n), quote("ETHUSDT", n), trade("ETHUSDT", n - 100))
    ]
    line.pipeline.process(read)
    assert line.counters.quotes.conflated == 98
    line.broker.up()
    assert line.publisher.flush(20) == 0
    updates = [decode_book_ticker(value) for _, value in line.broker.read(line.counters.quotes.topic)]
    assert sorted((each.symbol, each.update_id) for each in updates if each.update_id >= 100) == [
        ("BTCUSDT", 149),
        ("ETHUSDT", 149),
    ]
    trades = [decode_trade(value) for _, value in line.broker.read(line.counters.trades.topic)]
    assert [each.trade_id for each in trades if each.symbol == "BTCUSDT"] == list(range(800))
    assert [each.trade_id for each in trades if each.symbol == "ETHUSDT"] == list(range(50))


def test_pressure_pauses_reading_until_half_is_free(line: Line) -> None:
    line.broker.down()
    for n in range(0, 900, 100):
        line.pipeline.process([trade("BTCUSDT", each) for each in range(n, n + 100)])
    assert line.socket.reading
    line.pipeline.process([trade("BTCUSDT", each) for each in range(900, 1010)])
    assert not line.socket.reading
    assert (line.pipeline.paused, line.counters.paused_reads) == (True, 1)
    late = Reading()
    line.pipeline.reads.attach(late)  # type: ignore[arg-type]
    assert not late.reading, "a socket opened during the pause is read"
    line.pipeline.poll()
    assert line.pipeline.paused
    line.broker.up()
    while line.pipeline.paused:
        assert line.publisher.pending > 0
        line.pipeline.poll()
    assert line.publisher.pending <= 500
    assert line.socket.reading
    assert late.reading


class Hoarding(Reading):
    """A socket that delivers the frames it kept as soon as it is resumed."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.kept = [trade("BTCUSDT", n) for n in range(1000, 3000)]

    def resume_reading(self) -> None:
        super().resume_reading()
        kept, self.kept = self.kept, []
        self.line.pipeline.process(kept)


def test_pressure_of_a_resumed_socket_pauses_all_again(line: Line) -> None:
    sockets = [Hoarding(line) for _ in range(3)]
    for socket in sockets:
        line.pipeline.reads.attach(socket)  # type: ignore[arg-type]
    line.broker.down()
    line.pipeline.process([trade("BTCUSDT", n) for n in range(1000)])
    line.broker.up()
    while all(socket.kept for socket in sockets):
        line.pipeline.poll()
    assert line.pipeline.paused
    assert sum(bool(socket.kept) for socket in sockets) == 2, "other sockets were resumed"
    assert not any(socket.reading for socket in (line.socket, *sockets))


def test_quote_outdated_is_counted_and_not_published(line: Line) -> None:
    line.pipeline.process(
        [quote("BTCUSDT", 5), quote("BTCUSDT", 5), quote("BTCUSDT", 4), quote("BTCUSDT", 6)]
    )
    assert line.publisher.flush(20) == 0
    assert line.counters.quotes.outdated == 2
    stored = line.broker.read(line.counters.quotes.topic)
    assert [decode_book_ticker(value).update_id for _, value in stored] == [5, 6]


def test_message_of_an_unassigned_symbol_is_counted_and_not_published(line: Line) -> None:
    line.pipeline.process([trade("XRPUSDT", 0), quote("XRPUSDT", 1), trade("BTCUSDT", 0)])
    assert line.publisher.flush(20) == 0
    assert line.counters.unexpected == 2
    assert len(line.broker.read(line.counters.trades.topic)) == 1


def test_frame_invalid_is_skipped_alone(line: Line) -> None:
    line.pipeline.process([trade("BTCUSDT", 0), b"<html>", trade("BTCUSDT", 1)])
    assert line.publisher.flush(20) == 0
    assert line.counters.failures == {"bad_frame": 1}
    assert len(line.broker.read(line.counters.trades.topic)) == 2


def stored_ids(line: Line) -> list[int]:
    return [decode_trade(value).trade_id for _, value in line.broker.read(line.counters.trades.topic)]


def test_first_trade_is_published_after_its_checkpoint(line: Line) -> None:
    line.pipeline.process([trade("BTCUSDT", 7), trade("BTCUSDT", 8)])
    assert line.publisher.flush(20) == 0
    (word,) = [decode_checkpoint(value) for _, value in line.broker.read(line.counters.progress.topic)]
    assert (word.symbol, word.trade_id) == ("BTCUSDT", 6)
    assert stored_ids(line) == [], "trades were published before the checkpoint"
    line.pipeline.process([trade("BTCUSDT", 9)])
    line.pipeline.process([trade("BTCUSDT", 10)])
    assert line.publisher.flush(20) == 0
    assert stored_ids(line) == [7, 8, 9, 10]
    assert len(line.broker.read(line.counters.progress.topic)) == 1


def test_first_trades_held_are_bounded(line: Line) -> None:
    line.broker.down()
    for first in range(7, 1207, 100):
        line.pipeline.process([trade("BTCUSDT", n) for n in range(first, first + 100)])
    assert line.publisher.pending > 1000, "they count as unacknowledged, so that reading is paused"
    assert not line.socket.reading
    line.broker.up()
    assert line.publisher.flush(20) == 0
    assert stored_ids(line) == list(range(7, 1207))
