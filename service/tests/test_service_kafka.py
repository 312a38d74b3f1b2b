"""Kafka access: settings, client properties, and waiting for a broker."""

import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until
from marketfeed_service import kafka, logs
from marketfeed_service.errors import SettingsError, StartupError
from marketfeed_service.kafka import (
    KafkaSettings,
    client_config,
    wait_for_broker,
)
from marketfeed_service.settings import read


def settings(**environment: str) -> KafkaSettings:
    return read(KafkaSettings, {"KAFKA_BROKER": "127.0.0.1:1", **environment})


SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "worker",
    "KAFKA_SASL_PASSWORD": "s3cret",
}


@pytest.fixture
def dead_address() -> Iterator[str]:
    """Yield an address that refuses connections and stays reserved."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(scope="module")
def broker_address() -> Iterator[str]:
    """Yield the address of a broker of librdkafka's mock cluster."""
    with Broker() as broker:
        yield broker.address


@pytest.mark.parametrize(
    "broker",
    [
        "localhost:9092",
        "kafka-0.kafka.svc:9092,kafka-1.kafka.svc:9092",
        "127.0.0.1:1",
        "[::1]:9092,[fe80::1]:9093",
    ],
)
def test_kafka_broker_accepts_valid_addresses(broker: str) -> None:
    assert settings(KAFKA_BROKER=broker).kafka_broker == broker


@pytest.mark.parametrize(
    "broker",
    [
        "kafka",
        "kafka:",
        ":9092",
        "kafka:port",
        "a:1,",
        "a:1,,b:2",
        "a:1;b:2",
        "::1:9092",
        "a b:1",
        "a:123456",
    ],
)
def test_kafka_broker_rejects_invalid_addresses_with_the_format(broker: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(KAFKA_BROKER=broker)
    assert str(caught.value) == (
        f"KAFKA_BROKER={broker!r} cannot be used. Allowed: bootstrap servers, host:port[,host:port…]"
    )


def test_client_config_of_a_plain_client_has_no_empty_property() -> None:
    config = client_config(settings())
    assert config["bootstrap.servers"] == "127.0.0.1:1"
    assert config["security.protocol"] == "plaintext"
    assert not [name for name in config if name.startswith(("sasl.", "ssl."))]
    Producer(config)


def test_client_config_contains_the_sasl_settings() -> None:
    config = client_config(settings(**SASL))
    assert {name: value for name, value in config.items() if name.startswith(("sasl.", "security."))} == {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "worker",
        "sasl.password": "s3cret",
    }
    Producer(config)


def test_client_config_contains_the_tls_settings(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("ca.pem", "tls.crt", "tls.key")}
    for file in files.values():
        Path(file).write_text("")
    chosen = settings(
        KAFKA_SECURITY_PROTOCOL="SSL",
        KAFKA_SSL_CA_LOCATION=files["ca.pem"],
        KAFKA_SSL_CERTIFICATE_LOCATION=files["tls.crt"],
        KAFKA_SSL_KEY_LOCATION=files["tls.key"],
        KAFKA_SSL_KEY_PASSWORD="s3cret",
    )
    config = client_config(chosen)
    assert {name: value for name, value in config.items() if name.startswith(("ssl.", "security."))} == {
        "security.protocol": "ssl",
        "ssl.ca.location": files["ca.pem"],
        "ssl.certificate.location": files["tls.crt"],
        "ssl.key.location": files["tls.key"],
        "ssl.key.password": "s3cret",
    }
    assert "s3cret" not in repr(chosen)


INCOMPLETE: list[tuple[dict[str, str], str]] = [
    (
        {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
        "needs KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD",
    ),
    ({**SASL, "KAFKA_SASL_PASSWORD": ""}, "needs KAFKA_SASL_PASSWORD"),
    (
        {**SASL, "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"},
        "does not use KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME",
    ),
    ({**SASL, "KAFKA_SECURITY_PROTOCOL": "SSL"}, "does not use KAFKA_SASL_MECHANISM"),
    ({"KAFKA_SSL_KEY_PASSWORD": "s3cret"}, "'PLAINTEXT' does not use KAFKA_SSL_KEY_PASSWORD"),
    ({"KAFKA_SSL_CA_LOCATION": "/dev/null", **SASL}, "'SASL_PLAINTEXT' does not use KAFKA_SSL_CA_LOCATION"),
    (
        {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_LOCATION": "/no/ca.pem"},
        "KAFKA_SSL_CA_LOCATION='/no/ca.pem'",
    ),
    ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "Allowed: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
    ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "Allowed: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
]


@pytest.mark.parametrize(("environment", "says"), INCOMPLETE)
def test_kafka_security_that_is_incomplete_is_rejected_before_connecting(
    environment: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**environment)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_wait_for_broker_ends_when_a_broker_responds(broker_address: str) -> None:
    wait_for_broker(settings(KAFKA_BROKER=broker_address))


def test_wait_for_broker_ends_when_one_of_several_responds(broker_address: str, dead_address: str) -> None:
    wait_for_broker(settings(KAFKA_BROKER=f"{dead_address},{broker_address}"))


def test_wait_for_broker_fails_with_address_reason_and_remedy(
    dead_address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with pytest.raises(StartupError) as caught:
        wait_for_broker(settings(KAFKA_BROKER=dead_address, START_DEADLINE_SECONDS="0.5"))
    assert time.monotonic() - begun < 30
    text = str(caught.value)
    assert text.startswith(f"no Kafka broker responded at {dead_address} within 0.5 s (")
    assert "Connection refused" in text
    assert text.endswith("check KAFKA_BROKER, or raise START_DEADLINE_SECONDS")
    assert capfd.readouterr().err == "", "the client library must not write to stderr by itself"


def test_wait_for_broker_error_has_a_host_that_does_not_resolve() -> None:
    with pytest.raises(StartupError, match=r"no\.such\.host\.invalid.*resolve"):
        wait_for_broker(settings(KAFKA_BROKER="no.such.host.invalid:9092", START_DEADLINE_SECONDS="0.5"))


@pytest.mark.usefixtures("own_logging")
def test_wait_for_broker_is_logged_meanwhile(
    dead_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("INFO", "json")
    monkeypatch.setattr(kafka, "LOG_SECONDS", 0.1)
    with pytest.raises(StartupError):
        wait_for_broker(settings(KAFKA_BROKER=dead_address, START_DEADLINE_SECONDS="2.5"))
    (first,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first["event"], first["broker"], first["level"]) == ("waiting for Kafka", dead_address, "warning")
    assert "Connection refused" in first["reason"]
    assert 0 <= first["seconds_left"] <= 3


def test_wait_for_broker_ends_on_stop(dead_address: str) -> None:
    answers = iter([False, True])
    wait_for_broker(settings(KAFKA_BROKER=dead_address), stopping=lambda: next(answers))
    assert next(answers, None) is None


def test_client_that_cannot_be_created_is_a_settings_error(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate\n")
    with pytest.raises(SettingsError, match=r"rejects its settings: .*ssl\.ca\.location"):
        wait_for_broker(settings(KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CA_LOCATION=str(file)))


def test_librdkafka_log_is_forwarded_and_not_written_to_stderr(
    dead_address: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    config: dict[str, Any] = client_config(settings(KAFKA_BROKER=dead_address))
    producer = Producer(config)

    def records() -> list[logging.LogRecord]:
        producer.poll(0.1)
        return caplog.records

    record = until(records, "a line of librdkafka", 30)[0]
    assert (record.name, record.levelno) == ("librdkafka", logging.ERROR)
    assert "Connection refused" in record.getMessage()
    assert "%3|" not in capfd.readouterr().err
