"""The Kafka client accepts all valid settings."""

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
def test_kafka_client_accepts_every_session_timeout_of_the_settings(session_timeout_ms: str) -> None:
    environment = {
        "DATABASE_URL": "postgresql://nobody@localhost/none",
        "KAFKA_BROKER": "localhost:1",
        "KAFKA_SESSION_TIMEOUT_MS": session_timeout_ms,
    }
    read = settings.read(ConsumerSettings, environment)

    Consumer(consumer_config(read, lambda _: None)).close()


def test_rebalance_of_maximum_duration_is_within_liveness_and_max_poll_interval() -> None:
    allowed = ConsumerSettings.model_fields["drain_deadline_seconds"].metadata
    (longest_seconds,) = (one.le for one in allowed if hasattr(one, "le"))
    assert longest_seconds < service._STUCK_SECONDS
    assert longest_seconds + group_member._ACQUIRE_SECONDS < admin_requests.MAX_POLL_INTERVAL_MS / 1000


def test_kafka_client_logs_through_the_limited_handler() -> None:
    environment = {"DATABASE_URL": "postgresql://nobody@localhost/none"}
    config = consumer_config(settings.read(ConsumerSettings, environment), lambda _: None)

    assert config["logger"].name == "librdkafka"


def test_topic_ids_without_a_response_are_a_one_line_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin_requests, "_DESCRIBE_SECONDS", 0.2)
    nobody = AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})

    with pytest.raises(StartupError) as refused:
        admin_requests.topic_ids(nobody, ["market.trades.raw"])

    (line,) = str(refused.value).splitlines()
    assert line.startswith("cannot get the id of market.trades.raw from Kafka: ")
    assert "Broker transport failure" in line
