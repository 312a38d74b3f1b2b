"""Readiness by Kafka: the age of the oldest unacknowledged message, and the existence of the topics."""

import time
from collections.abc import Iterator

import pytest
from workers_line import Line, Worker
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until
from marketfeed_workers.counters import StreamCounters
from marketfeed_workers.kafka.monitor import KafkaMonitor, topic_probe
from marketfeed_workers.kafka.publisher import Publisher


@pytest.fixture(scope="module")
def quiet_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Line, Worker]]:
    """Start a worker whose symbols are both halted."""
    with Line(tmp_path_factory.mktemp("quiet")) as line:
        worker = line.worker()
        line.fault("halt", symbols=["BTCUSDT", "ETHUSDT"])
        until(lambda: worker.status().pending == 0, "acknowledgements")
        yield line, worker


@pytest.mark.parametrize("fault", ["down", "freeze"])
def test_readiness_of_a_quiet_feed_ends_within_seconds_when_kafka_does_not_respond(
    quiet_line: tuple[Line, Worker], fault: str
) -> None:
    line, worker = quiet_line
    until(worker.ready, "readiness")
    logged = len(worker.log.read_text())
    {"down": line.broker_down, "freeze": line.broker_freeze}[fault]()
    began = time.monotonic()
    until(lambda: not worker.status().ready, "the end of readiness", 30)
    took = time.monotonic() - began
    status = worker.status()
    {"down": line.broker_up, "freeze": line.broker_thaw}[fault]()
    assert "Kafka" in status.reason
    assert took < 10, f"{took:.1f} s"
    until(worker.ready, "readiness", 60)
    text = worker.log.read_text()[logged:]
    assert text.count("Kafka publishing stalled") == 1
    assert text.count("Kafka publishing resumed") == 1


def test_readiness_ends_with_the_first_message_that_is_not_acknowledged_in_time(
    make_settings: MakeSettings, own_broker: Broker
) -> None:
    topic = own_broker.new_topic("trades")
    settings = make_settings(
        KAFKA_BROKER=own_broker.address, READY_ACK_SECONDS="1", MARKET_TRADES_TOPIC=topic
    )
    now = 100.0
    publisher = Publisher(settings, now_us, monotonic=lambda: now)
    watch = KafkaMonitor(settings, publisher, lambda: "")
    own_broker.down()
    publisher.publish(StreamCounters("trade", topic), [{"value": b"v", "key": b"k"}], now_us(), {})
    publisher.poll()
    now += 0.9
    watch.check()
    assert watch.reason == ""
    now += 0.2
    watch.check()
    assert watch.reason.startswith("Kafka has not acknowledged a message for 1 s")
    own_broker.up()
    until(lambda: publisher.poll() or publisher.pending == 0, "the acknowledgement", 60)
    watch.check()
    assert watch.reason == ""
    assert publisher.oldest_unacknowledged_seconds == 0


def test_topic_missing_is_reported_and_not_created(
    make_settings: MakeSettings, shared_broker: Broker
) -> None:
    topics = {
        f"MARKET_{name}_TOPIC": shared_broker.new_topic(name.lower())
        for name in ("TRADES", "BOOK", "PROGRESS", "GAPS", "REJECTED")
    }
    assert topic_probe(make_settings(KAFKA_BROKER=shared_broker.address, **topics))() == ""
    topics["MARKET_GAPS_TOPIC"] = "no.such.topic"
    probe = topic_probe(make_settings(KAFKA_BROKER=shared_broker.address, **topics))
    assert probe().startswith("topic no.such.topic does not exist")
    assert probe().startswith("topic no.such.topic does not exist")
