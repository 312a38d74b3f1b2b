"""Messages with an impossible time: published as rejected, their ids missing until they are backfilled."""

import json
import time

import pytest
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until
from marketfeed_service.id_ranges import IdRange
from marketfeed_wire import Gap, RejectedMessage, Trade, decode_gap, decode_rejected, decode_trade
from marketfeed_wire.ledger import decode_checkpoint
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.clock import VenueClock
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import Fetched

SYMBOL = "BTCUSDT"
NOW_MS = 1_796_000_000_000


def frame(trade_id: int, trade_ms: int = NOW_MS, event_ms: int | None = NOW_MS) -> bytes:
    data = {
        "e": "trade",
        "E": event_ms,
        "s": SYMBOL,
        "t": trade_id,
        "p": "1.0",
        "q": "2.0",
        "T": trade_ms,
        "m": True,
    }
    return json.dumps({"stream": "btcusdt@trade", "data": data}, separators=(",", ":")).encode()


class Rig:
    """A pipeline with the venue's clock at NOW_MS, and its topics."""

    def __init__(self, make_settings: MakeSettings, broker: Broker, venue: str = "binance_us") -> None:
        self.broker = broker
        self.topics = {
            name: broker.new_topic(name) for name in ("trades", "quotes", "gaps", "progress", "rejected")
        }
        settings = make_settings(KAFKA_BROKER=broker.address)
        self.counters = Counters(
            *(StreamCounters(name, topic) for name, topic in self.topics.items()),
        )
        clock = VenueClock(now_us, time.monotonic)
        clock.measure(NOW_MS * 1000, time.monotonic())
        self.publisher = Publisher(settings, now_us)
        self.pipeline = Pipeline(VENUES[venue], self.publisher, self.counters, now_us, clock=clock)
        self.flow = self.pipeline.add_symbol(SYMBOL)

    def acknowledged(self) -> None:
        def settled() -> bool:
            self.pipeline.poll()
            return not self.publisher.pending

        until(settled, "acknowledgements")

    def trades(self) -> list[Trade]:
        return [decode_trade(value) for _, value in self.broker.read(self.topics["trades"])]

    def rejected(self) -> list[RejectedMessage]:
        return [decode_rejected(value) for _, value in self.broker.read(self.topics["rejected"])]

    def gaps(self) -> list[Gap]:
        newest = {key: decode_gap(value) for key, value in self.broker.read(self.topics["gaps"])}
        return list(newest.values())


@pytest.fixture
def rig(make_settings: MakeSettings, shared_broker: Broker) -> Rig:
    made = Rig(make_settings, shared_broker)
    made.pipeline.process([frame(100)])
    made.acknowledged()
    return made


@pytest.mark.parametrize(
    ("trade_ms", "event_ms"),
    [
        pytest.param(0, NOW_MS, id="T of 0"),
        pytest.param(NOW_MS // 1000, NOW_MS // 1000, id="seconds"),
        pytest.param(NOW_MS * 1000, NOW_MS * 1000, id="microseconds of a venue of milliseconds"),
        pytest.param(NOW_MS * 10**6, NOW_MS * 10**6, id="nanoseconds"),
        pytest.param(NOW_MS + 10 * 365 * 86_400_000, NOW_MS, id="ten years ahead"),
        pytest.param(NOW_MS + 3_600_000, None, id="an hour ahead, without an event time"),
    ],
)
def test_rejected_message_is_stored_and_its_id_backfilled(
    rig: Rig, trade_ms: int, event_ms: int | None
) -> None:
    odd = frame(101, trade_ms, event_ms)
    rig.pipeline.process([odd, frame(102)])
    rig.acknowledged()
    assert [trade.trade_id for trade in rig.trades()] == [100, 102]
    (kept,) = rig.rejected()
    assert (kept.symbol, kept.trade_id, kept.reason, kept.raw) == (SYMBOL, 101, "impossible_time", odd)
    (gap,) = rig.gaps()
    assert (gap.state, gap.missing, gap.proof) == ("unresolved", [(101, 101)], "rejected: impossible_time")
    assert rig.counters.rejections == {"impossible_time": 1}
    assert rig.flow.missing == 1
    row = Trade("binance_us", SYMBOL, 101, "1.0", "2.0", True, NOW_MS * 1000, None, now_us(), "backfill")
    assert rig.pipeline.fetched.publish(rig.flow, Fetched([row], [], "trades")) == 1
    rig.acknowledged()
    rig.pipeline.poll()
    rig.acknowledged()
    assert [trade.trade_id for trade in rig.trades()] == [100, 102, 101]
    assert [gap.state for gap in rig.gaps()] == ["backfilled"]


def test_rejected_row_of_rest_is_stored_once_and_its_id_stays_missing(rig: Rig) -> None:
    rig.pipeline.process([frame(101, 0), frame(102)])
    row = Trade("binance_us", SYMBOL, 101, "1.0", "2.0", True, 5, None, now_us(), "backfill")
    for _ in range(3):
        assert (
            rig.pipeline.fetched.publish(
                rig.flow, Fetched([row], [], "trades", refused=("impossible time 5 of trade 101",))
            )
            == 0
        )
    rig.acknowledged()
    assert rig.flow.missing == 1
    assert [trade.trade_id for trade in rig.trades()] == [100, 102]
    assert [kept.trade_id for kept in rig.rejected()] == [101, None, 101]
    assert [gap.state for gap in rig.gaps()] == ["unresolved"]


def test_rejected_feed_is_one_growing_gap(rig: Rig) -> None:
    for trade_id in range(101, 141):
        rig.pipeline.process([frame(trade_id, NOW_MS // 1000, NOW_MS // 1000)])
        rig.acknowledged()
    assert rig.flow.is_rejecting
    assert rig.flow.trades == 1, "rejected messages count as delivered"
    (gap,) = rig.gaps()
    assert (gap.first_id, gap.missing) == (101, [(101, 140)])
    assert len(rig.rejected()) == 40
    rig.pipeline.process([frame(141)])
    assert not rig.flow.is_rejecting


@pytest.mark.parametrize("first_id", [0, 1, 500])
def test_rejected_first_trade_of_a_symbol_is_backfilled(
    make_settings: MakeSettings, shared_broker: Broker, first_id: int
) -> None:
    """Nothing was missing, and nothing fetched, before the first valid trade of the symbol."""
    rig = Rig(make_settings, shared_broker)
    gaps: list[str] = []
    rig.pipeline.on_gap = gaps.append
    rig.pipeline.process([frame(first_id, NOW_MS * 1000, NOW_MS * 1000)])
    rig.acknowledged()
    rig.pipeline.process([frame(first_id + 1, NOW_MS * 1000, NOW_MS * 1000)])
    rig.acknowledged()
    assert gaps[:1] == [SYMBOL]
    assert rig.flow.sequence.missing() == [IdRange(first_id, first_id + 1)]
    (gap,) = rig.gaps()
    assert (gap.missing, gap.proof) == ([(first_id, first_id + 1)], "rejected: impossible_time")
    rig.pipeline.process([frame(first_id + 2)])
    rows = [
        Trade("binance_us", SYMBOL, n, "1", "2", True, NOW_MS * 1000, None, now_us(), "backfill")
        for n in (first_id, first_id + 1)
    ]
    assert rig.pipeline.fetched.publish(rig.flow, Fetched(rows, [], "trades")) == 2
    rig.acknowledged()
    assert sorted(trade.trade_id for trade in rig.trades()) == [first_id, first_id + 1, first_id + 2]
    (word, *_) = [decode_checkpoint(value) for _, value in rig.broker.read(rig.topics["progress"])]
    assert (word.trade_id, word.next_id) == ((0, 0) if first_id == 0 else (first_id - 1, None))


def test_rejected_first_trade_and_valid_ones_in_one_read(
    make_settings: MakeSettings, shared_broker: Broker
) -> None:
    rig = Rig(make_settings, shared_broker)
    rig.pipeline.process([frame(7, 0), frame(8), frame(9, 5), frame(10)])
    rig.acknowledged()
    rig.pipeline.flush(rig.flow)
    rig.acknowledged()
    assert [trade.trade_id for trade in rig.trades()] == [8, 10]
    assert rig.flow.sequence.missing() == [IdRange(7, 7), IdRange(9, 9)]


def test_rejected_duplicate_changes_nothing(rig: Rig) -> None:
    rig.pipeline.process([frame(100, 0)])
    assert rig.flow.sequence.missing() == []
    rig.pipeline.process([frame(102), frame(102, 0)])
    assert rig.flow.sequence.missing() == [IdRange(101, 101)]


def test_rejected_milliseconds_of_a_venue_of_microseconds(
    make_settings: MakeSettings, shared_broker: Broker
) -> None:
    rig = Rig(make_settings, shared_broker, "binance")
    rig.pipeline.process([frame(1), frame(2), frame(3)])
    rig.acknowledged()
    assert rig.trades() == []
    assert "milliseconds instead of microseconds" in rig.rejected()[0].details
    assert rig.flow.is_rejecting


def test_last_trade_time_is_the_newest_and_never_moves_back(rig: Rig) -> None:
    rig.pipeline.process([frame(101, NOW_MS + 5)])
    for each in (frame(103, NOW_MS + 9), frame(102, NOW_MS + 7), frame(104, NOW_MS + 2)):
        rig.pipeline.process([each])
        assert rig.flow.last_trade_time_us is not None
    assert rig.flow.last_trade_time_us == (NOW_MS + 9) * 1000
    rig.pipeline.process([frame(106, NOW_MS + 20)])
    rig.pipeline.flush(rig.flow)
    late = Trade(
        "binance_us", SYMBOL, 105, "1.0", "2.0", True, (NOW_MS + 11) * 1000, None, now_us(), "backfill"
    )
    rig.pipeline.fetched.publish(rig.flow, Fetched([late], [], "trades"))
    assert rig.flow.last_trade_time_us == (NOW_MS + 20) * 1000


def test_event_time_unchecked_does_not_set_the_venue_clock(rig: Rig) -> None:
    """A time in another unit of an unassigned symbol made every later time possible."""
    ahead_ms = NOW_MS * 1000
    other = frame(7, ahead_ms, ahead_ms).replace(SYMBOL.encode(), b"ETHUSDT")
    rig.pipeline.process([frame(101), other])
    rig.pipeline.process([other])
    rig.pipeline.process([frame(102, ahead_ms, ahead_ms)])
    rig.acknowledged()
    assert rig.counters.unexpected == 2
    assert [trade.trade_id for trade in rig.trades()] == [100, 101]
    assert [message.trade_id for message in rig.rejected()] == [102]


def test_event_time_of_a_valid_trade_beside_a_rejected_one(rig: Rig) -> None:
    """An accelerated replay advances the clock with each valid trade."""
    ahead_ms = NOW_MS + 50_000
    rig.pipeline.process([frame(101, ahead_ms, ahead_ms), frame(102, NOW_MS * 1000)])
    rig.pipeline.process([frame(103, ahead_ms + 50_000, ahead_ms + 50_000)])
    rig.acknowledged()
    assert [message.trade_id for message in rig.rejected()] == [102]
    assert 103 in [trade.trade_id for trade in rig.trades()] or rig.flow.sequence.buffered
