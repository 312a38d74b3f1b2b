"""Kafka access that workers and consumers share: where the broker is, how to prove who we are, is it there."""

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import Field, SecretStr

from marketfeed_chassis import logs
from marketfeed_chassis.errors import StartupError
from marketfeed_chassis.settings import ServiceSettings

log = logs.get(__name__)


class KafkaSettings(ServiceSettings):
    """The variables of a service that speaks to Kafka."""

    kafka_broker: str = Field(
        "localhost:9092",
        description="bootstrap servers, host:port[,host:port…]",
        min_length=3,
        pattern=r"^[^\s:,]+:\d+(,[^\s:,]+:\d+)*$",
    )
    kafka_security_protocol: str = Field(
        "PLAINTEXT",
        pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
        description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    )
    kafka_sasl_mechanism: str = Field(
        "",
        pattern="^(|PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$",
        description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
    )
    kafka_sasl_username: str = Field("", description="user name for SASL")
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="password for SASL")
    kafka_ssl_ca_location: str = Field(
        "", description="PEM file of the CA that signed the brokers' certificates"
    )
    kafka_ssl_certificate_location: str = Field("", description="PEM file of this client's certificate")
    kafka_ssl_key_location: str = Field("", description="PEM file of this client's key")
    kafka_ssl_key_password: SecretStr = Field(SecretStr(""), description="password of the client's key")


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """The librdkafka properties that every client of ours sets alike; holds secrets, so never log it."""
    config = {
        "bootstrap.servers": settings.kafka_broker,
        "security.protocol": settings.kafka_security_protocol.lower(),
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password.get_secret_value(),
        "ssl.ca.location": settings.kafka_ssl_ca_location,
        "ssl.certificate.location": settings.kafka_ssl_certificate_location,
        "ssl.key.location": settings.kafka_ssl_key_location,
        "ssl.key.password": settings.kafka_ssl_key_password.get_secret_value(),
        # Without this a lost broker is polled ten times a second, by every client of the fleet.
        "reconnect.backoff.max.ms": 5000,
        "socket.keepalive.enable": True,
    }
    return {name: value for name, value in config.items() if value != ""}


def wait_for_broker(settings: KafkaSettings, *, stopping: Callable[[], bool] = lambda: False) -> None:
    """Return once a broker answers; say every few seconds what is being waited for.

    Raises:
        StartupError: none answered within START_DEADLINE_SECONDS, or it refused our credentials.
    """
    deadline = time.monotonic() + settings.start_deadline_seconds
    admin = AdminClient({**client_config(settings), "log_level": 2})
    while not stopping():
        remaining = deadline - time.monotonic()
        try:
            admin.list_topics(timeout=max(0.1, min(3.0, remaining)))
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() == KafkaError._AUTHENTICATION:
                raise StartupError(
                    f"Kafka at {settings.kafka_broker} refused the credentials: {reason.str()}"
                ) from None
            if time.monotonic() >= deadline:
                raise StartupError(
                    f"no Kafka broker answered at {settings.kafka_broker} within "
                    f"{settings.start_deadline_seconds:g} s ({reason.str()}); "
                    "check KAFKA_BROKER, or raise START_DEADLINE_SECONDS"
                ) from None
            log.warning(
                "waiting for Kafka",
                broker=settings.kafka_broker,
                reason=reason.str(),
                seconds_left=round(max(0.0, remaining)),
            )
        else:
            return
