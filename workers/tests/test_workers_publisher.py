"""The publisher against a real client and broker: counted messages are those that can be consumed."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until
from marketfeed_wire import Trade, decode_trade, encode, key_for
from marketfeed_workers.counters import StreamCounters
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.kafka.producer_config import producer_config
from marketfeed_workers.kafka.publisher import Publisher

MESSAGE_TOO_LARGE = 10  # error codes of the Kafka protocol
NOT_LEADER = 6
SYMBOLS = ("BTCUSDT", "ETHUSDT", "CRVUSDT")


def trade(symbol: str, trade_id: int) -> Trade:
    return Trade("binance_us", symbol, trade_id, "61685.99000000", "0.00120000", True, 1, 2, 3)


def records(trades: list[Trade]) -> list[Record]:
    return [{"value": encode(each), "key": key_for(each.symbol)} for each in trades]


def poll_until(publisher: Publisher, condition: Callable[[], bool]) -> None:
    def met() -> bool:
        publisher.poll()
        return condition()

    until(met, lambda: f"the condition; {publisher.pending} messages are pending", 20)


@pytest.fixture
def publisher(make_settings: MakeSettings, shared_broker: Broker) -> Publisher:
    return Publisher(make_settings(KAFKA_BROKER=shared_broker.address), now_us)


@pytest.fixture
def trades_stream(shared_broker: Broker) -> StreamCounters:
    return StreamCounters("trade", shared_broker.new_topic("trades"))


def test_publisher_counts_what_a_consumer_reads(
    publisher: Publisher, trades_stream: StreamCounters, shared_broker: Broker
) -> None:
    sent: list[Trade] = []
    for read in range(200):  # as many reads of a socket, of differing sizes
        batch = [trade(symbol, 10 * read + n) for n in range(1 + read % 10) for symbol in SYMBOLS]
        sent += batch
        newest = dict.fromkeys(SYMBOLS, batch[-1].trade_id)
        publisher.publish(trades_stream, records(batch), now_us(), newest)
        publisher.poll()
    assert publisher.flush(20) == 0

    stored = shared_broker.read(trades_stream.topic)
    assert trades_stream.acknowledged == len(sent) == len(stored)
    assert (trades_stream.failed, publisher.pending, publisher.fatal_error) == (0, 0, "")
    for symbol in SYMBOLS:
        of_symbol = [decode_trade(value) for key, value in stored if key == symbol.encode()]
        assert of_symbol == [each for each in sent if each.symbol == symbol]
    assert publisher.acknowledged_trade_ids == dict.fromkeys(SYMBOLS, 1999)
    assert sum(trades_stream.socket_to_ack.counts) == len(sent)


def test_publisher_counts_nothing_before_the_acknowledgement(
    make_settings: MakeSettings, own_broker: Broker
) -> None:
    stream = StreamCounters("trade", own_broker.new_topic("trades"))
    publisher = Publisher(make_settings(KAFKA_BROKER=own_broker.address, KAFKA_LINGER_MS="0"), now_us)
    publisher.publish(stream, records([trade("BTCUSDT", 1)]), now_us(), {"BTCUSDT": 1})
    poll_until(publisher, lambda: stream.acknowledged == 1)
    own_broker.down()
    publisher.publish(stream, records([trade("BTCUSDT", 2), trade("BTCUSDT", 3)]), now_us(), {"BTCUSDT": 3})
    assert publisher.flush(0.5) == 2
    assert (stream.acknowledged, publisher.pending) == (1, 2)
    assert publisher.acknowledged_trade_ids == {"BTCUSDT": 1}
    own_broker.up()
    assert publisher.flush(20) == 0
    assert (stream.acknowledged, stream.failed, publisher.fatal_error) == (3, 0, "")
    assert publisher.acknowledged_trade_ids == {"BTCUSDT": 3}
    assert [decode_trade(value).trade_id for _, value in own_broker.read(stream.topic)] == [1, 2, 3]


def test_publisher_survives_a_transient_broker_fault_without_loss_or_duplicate(
    make_settings: MakeSettings, own_broker: Broker
) -> None:
    stream = StreamCounters("trade", own_broker.new_topic("trades", partitions=1))
    publisher = Publisher(make_settings(KAFKA_BROKER=own_broker.address), now_us)
    own_broker.refuse_produce(NOT_LEADER, NOT_LEADER, NOT_LEADER)
    for trade_id in range(50):
        publisher.publish(stream, records([trade("BTCUSDT", trade_id)]), now_us(), {"BTCUSDT": trade_id})
    assert publisher.flush(20) == 0
    assert (stream.acknowledged, stream.failed, publisher.fatal_error) == (50, 0, "")
    assert [decode_trade(value).trade_id for _, value in own_broker.read(stream.topic)] == list(range(50))


def test_publisher_rejected_message_is_counted_and_stops_the_checkpoint(
    make_settings: MakeSettings, own_broker: Broker
) -> None:
    stream = StreamCounters("trade", own_broker.new_topic("trades", partitions=1))
    publisher = Publisher(make_settings(KAFKA_BROKER=own_broker.address), now_us)
    publisher.publish(stream, records([trade("BTCUSDT", 1)]), now_us(), {"BTCUSDT": 1})
    assert publisher.flush(20) == 0
    own_broker.refuse_produce(MESSAGE_TOO_LARGE)
    publisher.publish(stream, records([trade("BTCUSDT", 2)]), now_us(), {"BTCUSDT": 2})
    assert publisher.flush(20) == 0
    publisher.publish(stream, records([trade("BTCUSDT", 3)]), now_us(), {"BTCUSDT": 3})
    assert publisher.flush(20) == 0
    assert stream.failed == 1, "a purged message counts as rejected"
    assert stream.topic in publisher.fatal_error
    assert "too large" in publisher.fatal_error
    assert publisher.acknowledged_trade_ids == {"BTCUSDT": 1}
    stored = [decode_trade(value).trade_id for _, value in own_broker.read(stream.topic)]
    assert stored == [1], "the topic does not end before the rejected message"
    publisher.replace_producer(20)
    publisher.publish(stream, [{"value": b"the last word", "key": b"BTCUSDT"}], now_us(), {})
    assert publisher.flush(20) == 0
    assert own_broker.read(stream.topic)[-1] == (b"BTCUSDT", b"the last word")


def test_publisher_never_counts_more_than_is_stored_after_a_rejection(
    make_settings: MakeSettings, own_broker: Broker
) -> None:
    stream = StreamCounters("trade", own_broker.new_topic("trades", partitions=1))
    settings = make_settings(KAFKA_BROKER=own_broker.address, KAFKA_COMPRESSION="none")
    publisher = Publisher(settings, now_us, max_batch_bytes=20_000)
    publisher.publish(stream, records([trade("BTCUSDT", 0)]), now_us(), {"BTCUSDT": 0})
    assert publisher.flush(20) == 0
    own_broker.refuse_produce(0, MESSAGE_TOO_LARGE)
    read = [
        trade(symbol, trade_id) for trade_id in range(1, 201) for symbol in SYMBOLS
    ]  # several Kafka batches
    settled: list[str] = []
    publisher.publish(
        stream, records(read), now_us(), dict.fromkeys(SYMBOLS, 200), lambda: settled.append("all")
    )
    poll_until(publisher, lambda: bool(publisher.fatal_error))
    publisher.publish(stream, records([trade("ETHUSDT", 201)]), now_us(), {"ETHUSDT": 201})
    publisher.replace_producer(20)
    assert publisher.pending == 0, "purged messages are still pending"
    stored = own_broker.read(stream.topic)
    assert 1 < len(stored) < len(read), "the rejection was not in the middle"
    assert settled == []
    assert stream.acknowledged == 1, "how many of the read were stored before the refusal is not known"
    assert stream.failed == 1, "though no report was asked for the refused ones"
    assert publisher.acknowledged_trade_ids == {"BTCUSDT": 0}


def test_publisher_requests_a_report_per_message_below_acks_all(
    make_settings: MakeSettings, own_broker: Broker
) -> None:
    stream = StreamCounters("trade", own_broker.new_topic("trades", partitions=1))
    settings = make_settings(KAFKA_BROKER=own_broker.address, KAFKA_ACKS="1", KAFKA_COMPRESSION="none")
    publisher = Publisher(settings, now_us, max_batch_bytes=20_000)
    own_broker.refuse_produce(MESSAGE_TOO_LARGE)
    read = [trade("BTCUSDT", trade_id) for trade_id in range(300)]
    publisher.publish(stream, records(read), now_us(), {"BTCUSDT": 299})
    assert publisher.flush(20) == 0
    stored = len(own_broker.read(stream.topic))
    assert 0 < stored < len(read), "messages after the rejected batch were stored"
    assert (stream.acknowledged, stream.failed) == (stored, len(read) - stored)
    assert publisher.acknowledged_trade_ids == {}


def test_publisher_last_message_of_a_symbol_not_queued_leaves_nothing_pending(
    publisher: Publisher, trades_stream: StreamCounters, shared_broker: Broker
) -> None:
    too_large: Record = {"value": b"x" * 1_000_001, "key": b"BTCUSDT"}
    btc, eth = records([trade("BTCUSDT", 1)]), records([trade("ETHUSDT", 1), trade("ETHUSDT", 2)])
    newest = {"BTCUSDT": 2, "ETHUSDT": 2}
    publisher.publish(trades_stream, [*btc, *eth, too_large], now_us(), newest)
    assert publisher.flush(20) == 0
    assert (trades_stream.acknowledged, trades_stream.failed, publisher.pending) == (2, 1, 0)
    assert publisher.acknowledged_trade_ids == {"ETHUSDT": 2}
    publisher.publish(trades_stream, [dict(too_large)], now_us(), {"BTCUSDT": 3})
    assert (trades_stream.acknowledged, trades_stream.failed, publisher.pending) == (2, 2, 0)
    assert publisher.acknowledged_trade_ids == {"ETHUSDT": 2}


def test_publisher_rejection_of_one_symbol_does_not_stop_the_checkpoint_of_another(
    publisher: Publisher, trades_stream: StreamCounters
) -> None:
    too_large: Record = {"value": b"x" * 1_000_001, "key": b"BTCUSDT"}
    good = records([trade("ETHUSDT", 2)])
    publisher.publish(trades_stream, [too_large, *good], now_us(), {"BTCUSDT": 1, "ETHUSDT": 2})
    assert publisher.flush(20) == 0
    assert publisher.acknowledged_trade_ids == {"ETHUSDT": 2}


def test_publisher_message_not_queued_leaves_nothing_pending(
    publisher: Publisher, trades_stream: StreamCounters, shared_broker: Broker
) -> None:
    too_large: Record = {"value": b"x" * 1_000_001, "key": b"BTCUSDT"}
    good = records([trade("BTCUSDT", 1), trade("BTCUSDT", 2)])
    publisher.publish(trades_stream, [good[0], too_large, good[1]], now_us(), {"BTCUSDT": 2})
    assert publisher.flush(20) == 0
    assert (trades_stream.acknowledged, trades_stream.failed, publisher.pending) == (2, 1, 0)
    assert trades_stream.topic in publisher.fatal_error
    assert publisher.acknowledged_trade_ids == {}
    assert len(shared_broker.read(trades_stream.topic)) == 2


def test_publisher_capacity_by_messages(make_settings: MakeSettings, own_broker: Broker) -> None:
    stream = StreamCounters("trade", own_broker.new_topic("trades"))
    publisher = Publisher(
        make_settings(KAFKA_BROKER=own_broker.address, KAFKA_QUEUE_MAX_MESSAGES="1000"), now_us
    )
    own_broker.down()
    for trade_id in range(1000):
        assert not publisher.full, f"full at {publisher.pending}"
        publisher.publish(stream, records([trade("BTCUSDT", trade_id)]), now_us(), {"BTCUSDT": trade_id})
    assert publisher.full
    assert not publisher.has_room
    own_broker.up()
    poll_until(publisher, lambda: publisher.has_room)
    assert publisher.pending <= 500
    assert publisher.flush(20) == 0
    assert stream.acknowledged == 1000


def test_publisher_capacity_by_bytes(make_settings: MakeSettings, own_broker: Broker) -> None:
    stream = StreamCounters("trade", own_broker.new_topic("trades"))
    publisher = Publisher(
        make_settings(KAFKA_BROKER=own_broker.address, KAFKA_QUEUE_MAX_BYTES=str(2**20)), now_us
    )
    own_broker.down()
    for published in range(1, 5):
        publisher.publish(stream, [{"value": b"x" * 2**18, "key": b"BTCUSDT"}], now_us(), {})
        assert publisher.full == (published == 4)
    own_broker.up()
    assert publisher.flush(20) == 0
    assert (stream.acknowledged, publisher.full, publisher.has_room) == (4, False, True)


@pytest.mark.parametrize("acks", ["all", "1", "0"])
def test_publisher_delivers_at_every_acks_level(
    acks: str, make_settings: MakeSettings, shared_broker: Broker, trades_stream: StreamCounters
) -> None:
    publisher = Publisher(make_settings(KAFKA_BROKER=shared_broker.address, KAFKA_ACKS=acks), now_us)
    publisher.publish(trades_stream, records([trade("BTCUSDT", 1)]), now_us(), {"BTCUSDT": 1})
    assert publisher.flush(20) == 0
    assert trades_stream.acknowledged == 1
    assert len(shared_broker.read(trades_stream.topic)) == 1


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_publisher_every_compression_round_trips(
    compression: str, make_settings: MakeSettings, shared_broker: Broker, trades_stream: StreamCounters
) -> None:
    publisher = Publisher(
        make_settings(KAFKA_BROKER=shared_broker.address, KAFKA_COMPRESSION=compression), now_us
    )
    batch = [trade("BTCUSDT", trade_id) for trade_id in range(100)]
    publisher.publish(trades_stream, records(batch), now_us(), {"BTCUSDT": 99})
    assert publisher.flush(20) == 0
    assert [decode_trade(value) for _, value in shared_broker.read(trades_stream.topic)] == batch


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param({}, {"acks": "all", "enable.idempotence": True}, id="idempotent by default"),
        pytest.param(
            {"KAFKA_ACKS": "1"},
            {"acks": "1", "enable.idempotence": False},
            id="not idempotent below acks=all",
        ),
        pytest.param({}, {"message.timeout.ms": 0}, id="no message times out"),
        pytest.param({"KAFKA_LINGER_MS": "12.5"}, {"linger.ms": 12.5}, id="linger"),
        pytest.param({"KAFKA_COMPRESSION": "zstd"}, {"compression.type": "zstd"}, id="compression"),
        pytest.param({"SHARD": "btc-3"}, {"client.id": "marketfeed-worker-btc-3"}, id="named by its shard"),
        pytest.param(
            {"KAFKA_QUEUE_MAX_MESSAGES": "5000", "KAFKA_QUEUE_MAX_BYTES": str(2**20)},
            {"queue.buffering.max.messages": 0, "queue.buffering.max.kbytes": 2**31 - 1},
            id="the queue is bounded by the publisher, not by the client",
        ),
    ],
)
def test_publisher_settings_are_passed_to_the_client(
    variables: dict[str, str], expected: dict[str, object], make_settings: MakeSettings
) -> None:
    config = producer_config(make_settings(**variables))
    assert {name: config[name] for name in expected} == expected


def test_publisher_maximum_queue_size_is_accepted_by_the_client(make_settings: MakeSettings) -> None:
    largest = make_settings(KAFKA_QUEUE_MAX_MESSAGES="5000000", KAFKA_QUEUE_MAX_BYTES=str(2**31 - 1))
    assert Publisher(largest, now_us).pending == 0


def test_publisher_batch_size_is_limited_by_the_topics(make_settings: MakeSettings) -> None:
    assert "batch.size" not in producer_config(make_settings(), 1_048_576), "more than the client would send"
    small = producer_config(make_settings(), 20_000)
    assert (small["batch.size"], small["message.max.bytes"]) == (20_000, 20_000)


def test_authentication_failure_is_logged_once_with_its_end(
    make_settings: MakeSettings,
) -> None:
    """Nothing said that they were accepted again."""
    publisher = Publisher(make_settings(), now_us)
    with capture_logs() as lines:
        for _ in range(3):
            publisher._on_error(KafkaError(KafkaError._AUTHENTICATION))
        assert publisher.auth_failed
        publisher._locked_out.end()
    assert [(line["event"], line.get("occurrences")) for line in lines] == [
        ("Kafka credentials refused", None),
        ("Kafka credentials accepted", 3),
    ]
    assert not publisher.auth_failed
