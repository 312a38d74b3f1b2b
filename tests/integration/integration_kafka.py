"""Apache Kafka for tests: downloaded by Maven into the cache once, then one process or three on free ports."""

import base64
import signal
import struct
import subprocess
import time
import uuid
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from confluent_kafka.cimpl import NewTopic

from marketfeed_devtools import maven
from marketfeed_devtools.ports import free_ports
from marketfeed_devtools.programs import Unavailable, require
from marketfeed_devtools.skipping import skip_or_fail
from marketfeed_devtools.waiting import until

POM = Path(__file__).parent / "maven" / "kafka.xml"
START_SECONDS = 120
JAVA_OPTIONS = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Options for short-lived brokers: small heap and fast compilation."""


def libraries() -> Path:
    """Return the folder of Kafka's jars; the first call downloads them.

    Raises:
        Unavailable: Java or Maven is not installed.
        CommandFailed: Maven failed.
    """
    require("java", "runs Apache Kafka (Debian: default-jre-headless)")
    return maven.jars(POM, "kafka")


def require_kafka() -> None:
    """Skip the test where Kafka is unavailable; in CI that is a failure."""
    try:
        libraries()
    except Unavailable as reason:
        skip_or_fail(reason)


class ApacheKafka:
    """One broker process; alone it is its own controller. Use it in a ``with`` block.

    Args:
        folder: folder of its settings, log and data.
        node: its id, the key in `voters`.
        voters: node -> port of its controller, for a cluster of several; all must be started before one responds.
        settings: lines of its settings file that override the defaults below.

    Attributes:
        address: its bootstrap address; the same after `restart`.
        sasl_address: the same for clients that authenticate by SCRAM-SHA-512.
    """

    def __init__(
        self,
        folder: Path,
        *,
        node: int = 1,
        voters: dict[int, int] | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self.node = node
        self._voters = voters or {}
        self._port, self._sasl_port, own_port = free_ports(3)
        self._controller_port = self._voters.get(node) or own_port
        self._settings = settings or {}
        self.address = f"127.0.0.1:{self._port}"
        self.sasl_address = f"127.0.0.1:{self._sasl_port}"
        self._java = ["java", *JAVA_OPTIONS, "-cp", f"{libraries()}/*"]
        self._properties = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        tool = [*self._java, "kafka.tools.StorageTool"]
        cluster = subprocess.run([*tool, "random-uuid"], check=True, capture_output=True, text=True)
        self.format(cluster.stdout.split()[-1])
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def format(self, cluster_id: str) -> None:
        """Write its settings and format its storage for `cluster_id`."""
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        quorum = (
            {"controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{p}" for n, p in self._voters.items())}
            if self._voters
            else {"controller.quorum.bootstrap.servers": f"127.0.0.1:{self._controller_port}"}
        )
        clients = f"PLAINTEXT://{self.address},SASL_PLAINTEXT://{self.sasl_address}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(self.node),
            **quorum,
            "listeners": f"{clients},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": clients,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT"
            ),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": scram,
            "log.dirs": f"{self._folder}/logs",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            **self._settings,
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        alone = [] if self._voters else ["--standalone"]
        subprocess.run(
            [*self._java, "kafka.tools.StorageTool", "format", *alone, "-t", cluster_id,
             "-c", str(self._properties)],
            check=True,
            capture_output=True,
        )  # fmt: skip

    def start(self) -> None:
        """Start the process, and wait until it responds."""
        self.launch()
        self.await_answer()

    def launch(self) -> None:
        """Start the process without waiting."""
        with (self._folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._properties)], stdout=log, stderr=log
            )

    def await_answer(self) -> None:
        """Wait until it responds."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert time.monotonic() < deadline, f"Kafka did not start: {self.tail()}"
            assert self._process.poll() is None, f"Kafka ended: {self.tail()}"
            with suppress(KafkaException):
                if self.admin.list_topics(timeout=2).brokers:
                    return

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop the process; its data is kept for `start`."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)  # a frozen process does not handle SIGTERM
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Freeze the process: it does not respond, its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the frozen process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def new_topic(self, name: str, partitions: int, **config: str) -> None:
        for answer in self.admin.create_topics([NewTopic(name, partitions, config=config)]).values():
            answer.result()

    def alter_topic(self, name: str, **config: str) -> None:
        """Set values of a topic's configuration, and wait until the broker has applied them."""
        changes = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=changes)
        for answer in self.admin.incremental_alter_configs([resource]).values():
            answer.result()
        until(lambda: config.items() <= self.topic_config(name).items(), f"{name} to have {config}")

    def topic_config(self, name: str) -> dict[str, str]:
        """Return a topic's configuration as the broker describes it."""
        (answer,) = self.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]).values()
        return {key: entry.value for key, entry in answer.result().items()}

    def set_password(self, user: str, password: str) -> None:
        """Set `user`'s password at the SASL address."""
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(user, scram, password.encode())
        for answer in self.admin.alter_user_scram_credentials([change]).values():
            answer.result()

    def tail(self) -> str:
        return "\n".join((self._folder / "kafka.log").read_text(errors="replace").splitlines()[-15:])


def cut_log(kafka: ApacheKafka, folder: Path, topic: str, partition: int, offset: int) -> None:
    """Kill the broker, truncate a partition's log to `offset`, and start it again."""
    kafka.stop(signal.SIGKILL)
    (log,) = folder.rglob(f"{topic}-{partition}/*.log")
    data, end = log.read_bytes(), 0
    while end < len(data):
        base, length = struct.unpack(">qi", data[end : end + 12])
        if base >= offset:
            break
        end += 12 + length
    with log.open("r+b") as file:
        file.truncate(end)
    for mark in folder.rglob(".kafka_cleanshutdown"):
        mark.unlink()
    kafka.start()


class KafkaCluster:
    """Three brokers that are also controllers; use it in a ``with`` block. One may be stopped at a time."""

    def __init__(self, folder: Path) -> None:
        voters = dict(zip((1, 2, 3), free_ports(3), strict=True))
        self.brokers = {}
        for node in voters:
            own = folder / f"broker-{node}"
            own.mkdir()
            self.brokers[node] = ApacheKafka(
                own, node=node, voters=voters, settings={"offsets.topic.replication.factor": "3"}
            )
        self.address = ",".join(broker.address for broker in self.brokers.values())

    def __enter__(self) -> Self:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        try:
            for broker in self.brokers.values():
                broker.format(cluster_id)
                broker.launch()
            for broker in self.brokers.values():
                broker.await_answer()
            until(
                lambda: len(self.admin.list_topics(timeout=5).brokers) == len(self.brokers),
                "the brokers to form a cluster",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for broker in self.brokers.values():
            broker.stop(signal.SIGKILL)

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def new_topic(self, name: str, partitions: int, **config: str) -> None:
        """Create a topic with a replica on every broker, which accepts messages as long as two of them run."""
        config = {"min.insync.replicas": "2", **config}
        topic = NewTopic(name, partitions, replication_factor=3, config=config)
        for answer in self.admin.create_topics([topic]).values():
            answer.result()

    def leaders(self, topic: str) -> dict[int, int]:
        """Return partition -> leader node."""
        partitions = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        return {number: partition.leader for number, partition in partitions.items()}

    def await_in_sync(self, *topics: str) -> None:
        """Wait until every broker has all of these topics."""

        def in_sync() -> bool:
            found = self.admin.list_topics(timeout=5).topics
            return all(
                len(partition.isrs) == len(self.brokers)
                for topic in topics
                for partition in found[topic].partitions.values()
            )

        until(in_sync, f"every broker to have {', '.join(topics)}")


def read_topic(address: str, topic: str) -> list[tuple[bytes, bytes]]:
    """Return (key, value) of every record in `topic`, ordered within a key."""
    reader = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    stored: list[tuple[bytes, bytes]] = []
    try:
        unread = set(reader.list_topics(topic, timeout=10).topics[topic].partitions)
        reader.assign([TopicPartition(topic, number, 0) for number in unread])
        while unread:
            for message in reader.consume(1000, timeout=1):
                error = message.error()
                if error is None:
                    stored.append((message.key() or b"", message.value() or b""))
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    unread.discard(message.partition())
    finally:
        reader.close()
    return stored
