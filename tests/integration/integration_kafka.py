"""Apache Kafka for tests: fetched by Maven into the cache once, then one process on free ports."""

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

POM = Path(__file__).parent / "maven" / "kafka.xml"
START_SECONDS = 60


def require(*programs: str) -> None:
    """Skip where a program is missing; in CI that is a failure."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        reason = f"Apache Kafka needs {' and '.join(missing)}, which this machine lacks"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def libraries() -> Path:
    """The folder of Kafka's jars; the first call fetches them, keyed by what the pom asks for."""
    cache = Path(os.environ.get("MARKETFEED_CACHE") or Path.home() / ".cache" / "marketfeed")
    folder = cache / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            print(f"fetching Apache Kafka once into {folder}", flush=True)
            subprocess.run(
                ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies",
                 f"-DoutputDirectory={folder / 'jars'}", "-DincludeScope=runtime"],
                check=True,
            )  # fmt: skip
            (folder / "complete").touch()
    return folder / "jars"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ApacheKafka:
    """One broker that is its own controller; use it in a ``with`` block.

    Attributes:
        address: its bootstrap address; the same after `restart`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._controller_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._java = ["java", "-Xms512m", "-Xmx512m", "-cp", f"{libraries()}/*"]
        self._properties = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._properties.write_text(
            f"""
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{self._controller_port}
listeners=PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{self._port}
controller.listener.names=CONTROLLER
log.dirs={self._folder}/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""
        )
        tool = [*self._java, "kafka.tools.StorageTool"]
        cluster = subprocess.run([*tool, "random-uuid"], check=True, capture_output=True, text=True)
        subprocess.run(
            [*tool, "format", "--standalone", "-t", cluster.stdout.split()[-1], "-c", str(self._properties)],
            check=True,
            capture_output=True,
        )
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self._folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._properties)], stdout=log, stderr=log
            )
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert time.monotonic() < deadline, f"Kafka did not start: {self.tail()}"
            assert self._process.poll() is None, f"Kafka ended: {self.tail()}"
            with suppress(KafkaException):
                if admin.list_topics(timeout=2).brokers:
                    return

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process; what it stored stays for `start`."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self._process.kill()
            self._process.wait()

    def new_topic(self, name: str, partitions: int, **config: str) -> None:
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        for answer in admin.create_topics([NewTopic(name, partitions, config=config)]).values():
            answer.result()

    def tail(self) -> str:
        return "\n".join((self._folder / "kafka.log").read_text(errors="replace").splitlines()[-15:])
