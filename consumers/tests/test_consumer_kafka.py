"""The Kafka client takes what the settings allow."""

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from marketfeed_consumers import service
from marketfeed_consumers.kafka import admin_requests, group_member
from marketfeed_consumers.kafka.admin_requests import consumer_config
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_service import settings
from marketfeed_service.errors import StartupError


@pytest.mark.parametrize("session_timeout_ms", ["1000", "45000", "300001", "1800000"])
def test_the_client_takes_every_session_timeout_that_the_settings_allow(session_timeout_ms: str) -> None:
    environment = {
        "DATABASE_URL": "postgresql://nobody@localhost/none",
        "KAFKA_BROKER": "localhost:1",
        "KAFKA_SESSION_TIMEOUT_MS": session_timeout_ms,
    }
    read = settings.read(ConsumerSettings, environment)

    Consumer(consumer_config(read, lambda _: None)).close()


def test_a_rebalance_that_uses_all_its_time_is_neither_stuck_nor_too_long_for_kafka() -> None:
    allowed = ConsumerSettings.model_fields["drain_deadline_seconds"].metadata
    (longest_seconds,) = (one.le for one in allowed if hasattr(one, "le"))
    assert longest_seconds < service._STUCK_SECONDS
    assert longest_seconds + group_member._ACQUIRE_SECONDS < admin_requests.MAX_POLL_INTERVAL_MS / 1000


def test_the_client_writes_to_the_log_that_is_limited() -> None:
    environment = {"DATABASE_URL": "postgresql://nobody@localhost/none"}
    config = consumer_config(settings.read(ConsumerSettings, environment), lambda _: None)

    assert config["logger"].name == "librdkafka"


def test_a_broker_that_does_not_answer_for_the_topics_ids_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin_requests, "_DESCRIBE_SECONDS", 0.2)
    nobody = AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})

    with pytest.raises(StartupError) as refused:
        admin_requests.topic_ids(nobody, ["market.trades.raw"])

    (line,) = str(refused.value).splitlines()
    assert line.startswith("cannot get the id of market.trades.raw from Kafka: ")
    assert "Broker transport failure" in line
