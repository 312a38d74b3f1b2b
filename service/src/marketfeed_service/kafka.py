"""Kafka access for workers and consumers: bootstrap servers, authentication, and waiting for a broker at start."""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import AfterValidator, Field, SecretStr, model_validator

from marketfeed_service import logs
from marketfeed_service.errors import SettingsError, StartupError
from marketfeed_service.settings import ServiceSettings

log = logs.get(__name__)

ATTEMPT_SECONDS: Final = 1.0
"""Timeout of one metadata request; also how long a stop signal may wait for its response."""

LOG_SECONDS: Final = 5.0
"""Interval of the log line "waiting for Kafka"."""

_client_log: Final = logging.getLogger("librdkafka")


def _existing_file(value: str) -> str:
    if value and not Path(value).exists():
        raise ValueError("the file does not exist")
    return value


File = Annotated[str, AfterValidator(_existing_file)]


def _ports(value: str) -> str:
    for address in value.split(","):
        port = address.rpartition(":")[2]
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"the port {port} is not between 1 and 65535")
    return value


TOPIC_PATTERN: Final = r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$"
"""Valid topic names (org.apache.kafka.common.internals.Topic)."""


def _topic_name(value: str) -> str:
    if not re.fullmatch(TOPIC_PATTERN, value):
        raise ValueError("a topic's name has 1 to 249 of the characters A-Z a-z 0-9 . _ - and is not . or ..")
    return value


TopicName = Annotated[str, AfterValidator(_topic_name)]


class KafkaSettings(ServiceSettings):
    """The variables of a Kafka client."""

    kafka_broker: Annotated[str, AfterValidator(_ports)] = Field(
        "localhost:9092",
        description="bootstrap servers, host:port[,host:port…]",
        min_length=3,
        pattern=r"^(?:[^\s:,\[\]]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}(?:,(?:[^\s:,\[\]]+|\[[0-9A-Fa-f:.]+\]):\d{1,5})*$",
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
    kafka_ssl_ca_location: File = Field(
        "", description="PEM file of the CA that signed the brokers' certificates"
    )
    kafka_ssl_certificate_location: File = Field("", description="PEM file of this client's certificate")
    kafka_ssl_key_location: File = Field("", description="PEM file of this client's key")
    kafka_ssl_key_password: SecretStr = Field(SecretStr(""), description="password of the client's key")

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        """Reject settings that the client would reject later or ignore, such as a password that is not used."""
        protocol = self.kafka_security_protocol
        sasl = {
            "KAFKA_SASL_MECHANISM": self.kafka_sasl_mechanism,
            "KAFKA_SASL_USERNAME": self.kafka_sasl_username,
            "KAFKA_SASL_PASSWORD": self.kafka_sasl_password.get_secret_value(),
        }
        tls = {
            "KAFKA_SSL_CA_LOCATION": self.kafka_ssl_ca_location,
            "KAFKA_SSL_CERTIFICATE_LOCATION": self.kafka_ssl_certificate_location,
            "KAFKA_SSL_KEY_LOCATION": self.kafka_ssl_key_location,
            "KAFKA_SSL_KEY_PASSWORD": self.kafka_ssl_key_password.get_secret_value(),
        }
        uses_sasl, uses_tls = protocol.startswith("SASL"), protocol.endswith("SSL")
        missing = [name for name, value in sasl.items() if uses_sasl and not value]
        if missing:
            raise ValueError(f"KAFKA_SECURITY_PROTOCOL={protocol!r} needs {', '.join(missing)} to be set")
        unused = [name for name, value in sasl.items() if value and not uses_sasl]
        unused += [name for name, value in tls.items() if value and not uses_tls]
        if unused:
            raise ValueError(
                f"KAFKA_SECURITY_PROTOCOL={protocol!r} does not use {', '.join(unused)}: "
                "unset them, or choose SSL, SASL_PLAINTEXT or SASL_SSL"
            )
        return self


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """Return the common librdkafka properties of every client; contains secrets, never log it.

    librdkafka's log is forwarded to the logger "librdkafka" whenever the client is polled.
    """
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
        # The default makes each client reconnect to a lost broker ten times a second.
        "reconnect.backoff.max.ms": 5000,
        "socket.keepalive.enable": True,
        "logger": _client_log,
    }
    return {name: value for name, value in config.items() if value != ""}


def wait_for_broker(settings: KafkaSettings, *, stopping: Callable[[], bool] = lambda: False) -> None:
    """Return once a broker responds, or if `stopping` returns true; log the wait when it begins and when it ends.

    Raises:
        SettingsError: the client rejects the settings, for example the content of a PEM file.
        StartupError: no broker responded within START_DEADLINE_SECONDS, or the authentication failed.
    """
    last = _LastError()
    admin = _admin(settings, last)
    deadline = time.monotonic() + settings.start_deadline_seconds
    said_from = time.monotonic() + LOG_SECONDS
    waiting = logs.Episode(log, "waiting for Kafka", "Kafka reached")
    while not stopping():
        remaining = deadline - time.monotonic()
        try:
            admin.list_topics(timeout=max(0.1, min(ATTEMPT_SECONDS, remaining)))
        except KafkaException as error:
            # The exception is a timeout without a reason; poll() delivers the reasons to the error callback.
            last.reason = last.reason or error.args[0].str()
            admin.poll(0.1)
        else:
            waiting.end(broker=settings.kafka_broker)
            return
        if last.refused:
            raise StartupError(f"Kafka at {settings.kafka_broker} rejected the credentials: {last.reason}")
        if time.monotonic() >= deadline:
            raise StartupError(
                f"no Kafka broker responded at {settings.kafka_broker} within "
                f"{settings.start_deadline_seconds:g} s ({last.reason}); "
                "check KAFKA_BROKER, or raise START_DEADLINE_SECONDS"
            )
        if time.monotonic() >= said_from:
            waiting.begin(
                broker=settings.kafka_broker,
                reason=last.reason,
                seconds_left=round(max(0.0, deadline - time.monotonic())),
            )


class _LastError:
    """Error callback that keeps the newest connection error of a client."""

    def __init__(self) -> None:
        self.reason = ""
        self.refused = False

    def __call__(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # the errors before it have the reason
            return
        self.reason = error.str()
        self.refused = error.code() == KafkaError._AUTHENTICATION


def _admin(settings: KafkaSettings, on_error: Callable[[KafkaError], None]) -> AdminClient:
    # No log: it would repeat the errors of `on_error`, one line for each attempt.
    config: dict[str, Any] = {**client_config(settings), "log_level": 0, "error_cb": on_error}
    try:
        return AdminClient(config)
    except KafkaException as error:
        raise SettingsError(f"the Kafka client rejects its settings: {error.args[0].str()}") from error
